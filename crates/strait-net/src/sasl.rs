//! SASL over Kafka: SaslHandshake v1, then SaslAuthenticate (KIP-43, KIP-152).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;

use crate::connection::Connection;
use crate::error::NetError;
use crate::runtime::Runtime;
use crate::scram::Scram;
use crate::security::Sasl;

/// Authenticates a fresh connection; each step has `limit`.
pub(crate) async fn authenticate(
    connection: &Connection,
    sasl: &Sasl,
    rt: &Runtime,
    limit: Duration,
) -> Result<(), NetError> {
    let session = Session {
        connection,
        mechanism: sasl.mechanism(),
        limit,
    };
    session.handshake().await?;
    match sasl {
        Sasl::Plain { user, password } => {
            if user.contains('\0') || password.contains('\0') {
                return Err(session.failed("user name and password must not hold a NUL"));
            }
            let token = format!("\0{user}\0{password}");
            session.step(token.into_bytes()).await?;
        }
        Sasl::Scram {
            sha512,
            user,
            password,
        } => {
            let nonce = BASE64.encode(rt.nonce()?);
            let mut scram = Scram::new(*sha512, user, password, nonce);
            let server_first = session.step(scram.client_first()).await?;
            let proof = scram
                .client_final(&server_first)
                .map_err(|e| session.failed(e))?;
            let server_final = session.step(proof).await?;
            scram.finish(&server_final).map_err(|e| session.failed(e))?;
        }
    }
    Ok(())
}

struct Session<'a> {
    connection: &'a Connection,
    mechanism: &'static str,
    limit: Duration,
}

impl Session<'_> {
    async fn handshake(&self) -> Result<(), NetError> {
        let request = SaslHandshakeRequest::default()
            .with_mechanism(StrBytes::from_static_str(self.mechanism));
        let answer = self.connection.request(request, self.limit).await?;
        match answer.error_code {
            0 => Ok(()),
            33 => {
                let offered: Vec<&str> = answer.mechanisms.iter().map(|m| m.as_str()).collect();
                Err(self.failed(format!(
                    "this listener does not offer it, it offers: {}",
                    offered.join(", ")
                )))
            }
            34 => Err(self.failed(
                "this listener takes no SASL: take it out of the settings, or use another port",
            )),
            code => Err(NetError::kafka(
                code,
                "SaslHandshake",
                self.connection.peer().to_string(),
            )),
        }
    }

    /// One message to the broker and its answer.
    async fn step(&self, token: Vec<u8>) -> Result<Bytes, NetError> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token));
        let answer = self.connection.request(request, self.limit).await?;
        match answer.error_code {
            0 => Ok(answer.auth_bytes),
            _ => {
                let words = answer.error_message.unwrap_or_default();
                Err(self.failed(if words.is_empty() {
                    "check user name and password".to_owned()
                } else {
                    format!("{words}; check user name and password")
                }))
            }
        }
    }

    fn failed(&self, why: impl Into<String>) -> NetError {
        self.connection.close();
        NetError::Auth {
            peer: self.connection.peer().clone(),
            mechanism: self.mechanism,
            why: why.into(),
        }
    }
}
