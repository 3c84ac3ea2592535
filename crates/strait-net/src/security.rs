//! How to secure connections to a cluster. Secrets never appear in `Debug`.

use std::fmt;
use std::path::PathBuf;

/// What stands between TCP and the Kafka protocol. The default is neither TLS nor SASL.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// TLS, if the listener uses it.
    pub tls: Option<Tls>,
    /// SASL, if the listener asks for it. Without TLS, PLAIN sends the password in the clear.
    pub sasl: Option<Sasl>,
}

/// TLS settings. Files are read at every cluster's first connection. A broker's certificate must be for the host name
/// that is connected to. The default trusts the operating system's authorities and shows no certificate.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM files with the certificates to trust. None: those of the operating system.
    pub ca_files: Vec<PathBuf>,
    /// Our own certificate, for listeners with `ssl.client.auth`.
    pub client: Option<ClientCertificate>,
}

/// A client's certificate and key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// PEM file with the certificate chain, ours first.
    pub cert_file: PathBuf,
    /// PEM file with the private key (PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub key_file: PathBuf,
}

/// SASL mechanism and credentials.
#[derive(Clone)]
pub enum Sasl {
    /// SASL PLAIN (RFC 4616).
    Plain {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// SCRAM (RFC 5802, RFC 7677). The broker must prove that it knows the password, too.
    Scram {
        /// SCRAM-SHA-512 if true, otherwise SCRAM-SHA-256.
        sha512: bool,
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
}

impl Sasl {
    /// The mechanism's registered name.
    pub fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain { .. } => "PLAIN",
            Self::Scram { sha512: false, .. } => "SCRAM-SHA-256",
            Self::Scram { sha512: true, .. } => "SCRAM-SHA-512",
        }
    }

    /// The user name.
    pub fn user(&self) -> &str {
        match self {
            Self::Plain { user, .. } | Self::Scram { user, .. } => user,
        }
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sasl({}, user '{}')", self.mechanism(), self.user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_a_password() {
        let security = Security {
            tls: Some(Tls::default()),
            sasl: Some(Sasl::Scram {
                sha512: true,
                user: "anna".into(),
                password: "hunter2".into(),
            }),
        };
        let shown = format!("{security:?}");
        assert!(shown.contains("anna") && shown.contains("SCRAM-SHA-512"));
        assert!(!shown.contains("hunter2"));
    }
}
