//! TLS and SASL against a broker in the same process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod peer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use kafka_protocol::messages::{
    MetadataRequest, MetadataResponse, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use peer::{MODERN, Net, Peer, identity};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha512};
use strait_net::{
    Action, ClientCertificate, Connection, Limits, NetError, Sasl, Security, Stream, Tls,
};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

const LONG: Duration = Duration::from_secs(30);

/// An authority, a broker's certificate for `broker`, and a client's; all as PEM files.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        Self::named("authority")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let dir = TempDir::new().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tls(&self) -> Tls {
        Tls {
            ca_files: vec![self.file("ca.pem")],
            ..Tls::default()
        }
    }

    fn certified(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn client(&self) -> ClientCertificate {
        let (certificate, key) = self.certified("strait");
        std::fs::write(self.file("client.pem"), certificate.pem()).unwrap();
        std::fs::write(self.file("client.key"), key.serialize_pem()).unwrap();
        ClientCertificate {
            cert_file: self.file("client.pem"),
            key_file: self.file("client.key"),
        }
    }

    /// The broker's side of TLS, with a certificate for `name`.
    fn acceptor(&self, name: &str, wants_client: bool) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_client {
            use rustls::pki_types::{CertificateDer, pem::PemObject};
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_file(self.file("ca.pem")).unwrap())
                .unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.certified(name);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A TLS listener at `broker:9093` that answers one Metadata request and one large one.
fn serve_tls(net: &Net, acceptor: TlsAcceptor) {
    net.serve("broker", 9093, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut peer = Peer(stream);
            if peer.greet(MODERN).await.is_none() {
                return;
            }
            while let Some(asked) = peer.next().await {
                if asked.api == 3 {
                    peer.reply(&asked, &MetadataResponse::default()).await;
                } else {
                    peer.answer(&asked, &asked.body).await;
                }
            }
        }
    });
}

async fn open(net: &Arc<Net>, security: &Security) -> Result<Connection, NetError> {
    let rt = net.runtime();
    Connection::open(
        &rt,
        "broker",
        9093,
        security,
        &identity(),
        Limits::default(),
    )
    .await
}

fn with_tls(tls: Tls) -> Security {
    Security {
        tls: Some(tls),
        sasl: None,
    }
}

#[tokio::test(start_paused = true)]
async fn tls_with_a_ca_file_carries_large_requests_both_ways() {
    let (net, authority) = (Net::new(), Authority::new());
    serve_tls(&net, authority.acceptor("broker", false));
    let connection = open(&net, &with_tls(authority.tls())).await.unwrap();
    connection
        .request(MetadataRequest::default(), LONG)
        .await
        .unwrap();
    let segments: Vec<Bytes> = (0..200u8).map(|i| Bytes::from(vec![i; 10_000])).collect();
    let expected = segments.concat();
    let answer = connection.send(0, 9, segments, LONG, None).await.unwrap();
    assert_eq!(answer, expected);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_authority_is_refused_with_a_hint() {
    let (net, authority) = (Net::new(), Authority::new());
    for other in [Authority::new(), Authority::named("another")] {
        serve_tls(&net, other.acceptor("broker", false));
        let error = open(&net, &with_tls(authority.tls())).await.unwrap_err();
        assert_eq!(error.id(), "tls-failed", "{error:?}");
        assert!(error.to_string().contains("ca-file"), "{error}");
        assert_eq!(error.action(), Action::Stop);
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_another_name_is_refused() {
    let (net, authority) = (Net::new(), Authority::new());
    serve_tls(&net, authority.acceptor("elsewhere", false));
    let error = open(&net, &with_tls(authority.tls())).await.unwrap_err();
    assert!(matches!(error, NetError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("name"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_client_certificate_is_shown_where_it_is_wanted() {
    let (net, authority) = (Net::new(), Authority::new());
    serve_tls(&net, authority.acceptor("broker", true));
    let mut tls = authority.tls();
    let error = open(&net, &with_tls(tls.clone())).await.unwrap_err();
    assert!(error.to_string().contains("ertificate"), "{error}");
    tls.client = Some(authority.client());
    open(&net, &with_tls(tls)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_used_are_named() {
    let (net, authority) = (Net::new(), Authority::new());
    serve_tls(&net, authority.acceptor("broker", false));
    let mut tls = authority.tls();
    tls.ca_files = vec![authority.file("absent.pem")];
    let error = open(&net, &with_tls(tls.clone())).await.unwrap_err();
    assert!(error.to_string().contains("absent.pem"), "{error}");
    assert_eq!(error.id(), "setting-invalid");
    assert_eq!(error.action(), Action::Stop);
    std::fs::write(authority.file("empty.pem"), "nothing").unwrap();
    tls.ca_files = vec![authority.file("empty.pem")];
    let error = open(&net, &with_tls(tls)).await.unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn tls_to_a_listener_without_it_is_recognised() {
    let (net, authority) = (Net::new(), Authority::new());
    net.serve("broker", 9093, |stream| async move {
        // What Kafka makes of a TLS hello: a frame far too long, so it closes.
        let mut first = [0; 4];
        let mut peer = Peer(stream);
        tokio::io::AsyncReadExt::read_exact(&mut peer.0, &mut first)
            .await
            .unwrap();
    });
    let error = open(&net, &with_tls(authority.tls())).await.unwrap_err();
    assert!(error.to_string().contains("speaks TLS"), "{error}");
}

#[test]
fn streams_are_sendable() {
    fn sendable<T: Send + AsyncRead + AsyncWrite + Unpin>() {}
    sendable::<Stream>();
}

const USER: &str = "anna";
const PASSWORD: &str = "hunter2";

fn scram(password: &str) -> Security {
    Security {
        tls: None,
        sasl: Some(Sasl::Scram {
            sha512: true,
            user: USER.into(),
            password: password.into(),
        }),
    }
}

fn plain(password: &str) -> Security {
    Security {
        tls: None,
        sasl: Some(Sasl::Plain {
            user: USER.into(),
            password: password.into(),
        }),
    }
}

fn hmac512(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha512>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A SASL listener at `broker:9093` for PLAIN and SCRAM-SHA-512. `honest`: it really knows the
/// password.
fn serve_sasl(net: &Net, honest: bool) {
    net.serve("broker", 9093, move |stream| async move {
        let mut peer = Peer(stream);
        peer.greet(MODERN).await;
        let asked = peer.next().await.unwrap();
        let hello: SaslHandshakeRequest = asked.decode();
        let offered = ["PLAIN", "SCRAM-SHA-512"].map(StrBytes::from_static_str);
        let known = offered.contains(&hello.mechanism);
        let welcome = SaslHandshakeResponse::default()
            .with_error_code(if known { 0 } else { 33 })
            .with_mechanisms(offered.into());
        peer.reply(&asked, &welcome).await;
        let mut first_bare = String::new();
        let mut server_first = String::new();
        while let Some(asked) = peer.next().await {
            if asked.api == 3 {
                peer.reply(&asked, &MetadataResponse::default()).await;
                continue;
            }
            let token: SaslAuthenticateRequest = asked.decode();
            let token = String::from_utf8(token.auth_bytes.to_vec()).unwrap();
            let result = if hello.mechanism.as_str() == "PLAIN" {
                (token == format!("\0{USER}\0{PASSWORD}")).then(String::new)
            } else if let Some(bare) = token.strip_prefix("n,,") {
                first_bare = bare.to_owned();
                let nonce = bare.rsplit_once("r=").unwrap().1;
                server_first = format!("r={nonce}SERVER,s={},i=4096", BASE64.encode("salt"));
                Some(server_first.clone())
            } else {
                let (without_proof, proof) = token.rsplit_once(",p=").unwrap();
                let salted =
                    pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(PASSWORD.as_bytes(), b"salt", 4096);
                let message = format!("{first_bare},{server_first},{without_proof}");
                let client_key = hmac512(&salted, "Client Key");
                let signature = hmac512(&Sha512::digest(&client_key), &message);
                let expected: Vec<u8> = client_key
                    .iter()
                    .zip(signature)
                    .map(|(a, b)| a ^ b)
                    .collect();
                let key = if honest { "Server Key" } else { "Wrong Key" };
                let verifier = hmac512(&hmac512(&salted, key), &message);
                (BASE64.decode(proof).unwrap() == expected || !honest)
                    .then(|| format!("v={}", BASE64.encode(verifier)))
            };
            let answer = match result {
                Some(token) => SaslAuthenticateResponse::default()
                    .with_auth_bytes(Bytes::from(token.into_bytes())),
                None => SaslAuthenticateResponse::default()
                    .with_error_code(58)
                    .with_error_message(Some(StrBytes::from_static_str("Authentication failed"))),
            };
            peer.reply(&asked, &answer).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn sasl_lets_in_who_knows_the_password() {
    let net = Net::new();
    serve_sasl(&net, true);
    for security in [plain(PASSWORD), scram(PASSWORD)] {
        let connection = open(&net, &security).await.unwrap();
        connection
            .request(MetadataRequest::default(), LONG)
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_stops_and_is_not_repeated_in_the_error() {
    let net = Net::new();
    serve_sasl(&net, true);
    for security in [plain("guess"), scram("guess")] {
        let error = open(&net, &security).await.unwrap_err();
        assert_eq!(error.id(), "login-failed", "{error:?}");
        assert_eq!(error.action(), Action::Stop);
        let text = error.to_string();
        assert!(text.contains("Authentication failed"), "{text}");
        assert!(!format!("{error:?}{text}").contains("guess"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_know_the_password_is_not_trusted() {
    let net = Net::new();
    serve_sasl(&net, false);
    let error = open(&net, &scram(PASSWORD)).await.unwrap_err();
    assert!(
        error.to_string().contains("does not know this password"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_mechanism_that_is_not_offered_names_those_that_are() {
    let net = Net::new();
    serve_sasl(&net, true);
    let security = Security {
        tls: None,
        sasl: Some(Sasl::Scram {
            sha512: false,
            user: USER.into(),
            password: PASSWORD.into(),
        }),
    };
    let error = open(&net, &security).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "SASL SCRAM-SHA-256 authentication with broker:9093 failed: this listener does not offer it, it offers: PLAIN, SCRAM-SHA-512"
    );
}
