//! TLS: rustls with ring.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::error::NetError;
use crate::peer::Peer;
use crate::security::Tls;
use crate::socket::{Socket, Stream};

/// How much plaintext and ciphertext rustls may hold. Its default of 64 KiB would cut large produce
/// requests into many small writes.
const BUFFER_LIMIT: usize = 512 << 10;

/// Reads the files and builds the configuration all connections of a cluster share.
pub(crate) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, NetError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = roots(&tls.ca_files)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(format!("TLS cannot be set up: {e}")))?
        .with_root_certificates(roots);
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = certificates(&client.cert_file)?;
            let key = PrivateKeyDer::from_pem_file(&client.key_file)
                .map_err(|e| unreadable("the client's private key", &client.key_file, &e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                invalid(format!(
                    "the client certificate {} and key {} cannot be used: {e}",
                    client.cert_file.display(),
                    client.key_file.display()
                ))
            })?
        }
    };
    Ok(Arc::new(config))
}

/// The authorities to trust: those of the files, and only those; without a file the operating system's.
fn roots(ca_files: &[PathBuf]) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    for path in ca_files {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|e| {
                invalid(format!(
                    "a certificate in {} is not valid: {e}",
                    path.display()
                ))
            })?;
        }
    }
    if ca_files.is_empty() {
        // Systems carry the odd certificate that webpki does not accept; the rest still counts.
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(invalid(
                "this system has no trusted certificates: name the brokers' authority in the TLS settings (ca-file)".to_owned(),
            ));
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| unreadable("the certificate file", path, &e))?;
    if found.is_empty() {
        return Err(invalid(format!(
            "{} holds no certificate in PEM form",
            path.display()
        )));
    }
    Ok(found)
}

fn unreadable(what: &str, path: &Path, error: &rustls::pki_types::pem::Error) -> NetError {
    invalid(format!("{what} {} cannot be read: {error}", path.display()))
}

fn invalid(what: String) -> NetError {
    NetError::Invalid { what }
}

/// Secures a socket within `limit`.
pub(crate) async fn handshake(
    peer: &Peer,
    config: Arc<ClientConfig>,
    socket: Socket,
    limit: Duration,
) -> Result<Stream, NetError> {
    let name = ServerName::try_from(peer.host().to_owned()).map_err(|_| NetError::Tls {
        peer: peer.clone(),
        why: "its host is neither a DNS name nor an address".to_owned(),
    })?;
    let connecting = TlsConnector::from(config).connect(name, socket);
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().1.set_buffer_limit(Some(BUFFER_LIMIT));
            Ok(Stream::Tls(Box::new(stream)))
        }
        Ok(Err(e)) => Err(handshake_error(peer, &e)),
        Err(_) => Err(NetError::TimedOut {
            what: "the TLS handshake".to_owned(),
            peer: peer.clone(),
            after: limit,
        }),
    }
}

fn handshake_error(peer: &Peer, error: &io::Error) -> NetError {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    let Some(inner) = inner else {
        return NetError::Mismatch {
            peer: peer.clone(),
            why: format!(
                "{} during the TLS handshake; check that this listener speaks TLS",
                error.kind()
            ),
        };
    };
    let hint = match inner {
        // A bad signature is what an authority of the same name but with another key looks like.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "; its authority is not trusted: name it in the TLS settings (ca-file)",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "; connect by a name that the certificate has",
        rustls::Error::InvalidMessage(_) => "; check that this listener speaks TLS",
        rustls::Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA,
        ) => "; the broker may want another client certificate",
        _ => "",
    };
    NetError::Tls {
        peer: peer.clone(),
        why: format!("{inner}{hint}"),
    }
}
