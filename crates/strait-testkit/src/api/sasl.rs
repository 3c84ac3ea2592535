//! SaslHandshake (17), versions 0..1, and SaslAuthenticate (36), versions 0..2: PLAIN only.
//!
//! Deviation: v0 of the handshake (raw tokens after it) is answered, but its tokens are not understood.

use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Session;
use crate::cluster::Cluster;
use crate::code;

/// Agrees on PLAIN.
pub(super) fn handshake(
    cluster: &Cluster,
    session: &mut Session,
    request: &SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    let known = &*request.mechanism == "PLAIN" && cluster.config.sasl_plain.is_some();
    session.mechanism_agreed = known;
    let error = match (known, cluster.config.sasl_plain.is_some()) {
        (true, _) => code::NONE,
        (false, true) => code::UNSUPPORTED_SASL_MECHANISM,
        (false, false) => code::ILLEGAL_SASL_STATE,
    };
    SaslHandshakeResponse::default()
        .with_error_code(error)
        .with_mechanisms(vec![StrBytes::from_static_str("PLAIN")])
}

/// Checks `authzid NUL user NUL password`.
pub(super) fn authenticate(
    cluster: &Cluster,
    session: &mut Session,
    request: &SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let mut parts = request.auth_bytes.split(|byte| *byte == 0).skip(1);
    let (user, password) = (parts.next(), parts.next());
    let right = cluster
        .config
        .sasl_plain
        .as_ref()
        .is_some_and(|(u, p)| user == Some(u.as_bytes()) && password == Some(p.as_bytes()));
    let answer = SaslAuthenticateResponse::default();
    if !session.mechanism_agreed {
        return answer.with_error_code(code::ILLEGAL_SASL_STATE);
    }
    session.authenticated = right;
    if right {
        answer
    } else {
        answer
            .with_error_code(code::SASL_AUTHENTICATION_FAILED)
            .with_error_message(Some(StrBytes::from_static_str(
                "Authentication failed: Invalid username or password",
            )))
    }
}
