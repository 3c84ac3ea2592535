//! The other end of a connection, as a test scripts it, and the network that leads to it.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, api_versions_response::ApiVersion};
use kafka_protocol::protocol::{Decodable, Encodable, decode_request_header_from_buffer};
use strait_net::{Identity, Runtime, World};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

/// Bytes that an in-memory connection holds in each direction.
pub const PIPE: usize = 64 << 10;

pub fn identity() -> Identity {
    Identity {
        client_id: "strait-test".into(),
        software_name: "strait".into(),
        software_version: "0.1.0".into(),
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    pub api: i16,
    pub version: i16,
    pub correlation: i32,
    pub client_id: String,
    pub body: Bytes,
}

impl Asked {
    /// The body as a request of `kafka-protocol`.
    pub fn decode<R: Decodable>(&self) -> R {
        R::decode(&mut self.body.clone(), self.version).unwrap()
    }
}

/// A broker's side of a connection.
pub struct Peer<S = DuplexStream>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// The next request; `None` once the other side has closed.
    pub async fn next(&mut self) -> Option<Asked> {
        let length = self.0.read_i32().await.ok()?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut frame).await.ok()?;
        let mut frame = Bytes::from(frame);
        let header = decode_request_header_from_buffer(&mut frame).unwrap();
        Some(Asked {
            api: header.request_api_key,
            version: header.request_api_version,
            correlation: header.correlation_id,
            client_id: header.client_id.unwrap().to_string(),
            body: frame,
        })
    }

    /// Answers with a body; header and length are added.
    pub async fn answer(&mut self, asked: &Asked, body: &[u8]) {
        let key = ApiKey::try_from(asked.api).unwrap();
        let flexible =
            key != ApiKey::ApiVersions && key.response_header_version(asked.version) >= 1;
        let mut frame = BytesMut::new();
        frame.put_i32(4 + i32::from(flexible) + i32::try_from(body.len()).unwrap());
        frame.put_i32(asked.correlation);
        if flexible {
            frame.put_u8(0);
        }
        frame.put_slice(body);
        let _ = self.0.write_all(&frame).await;
        let _ = self.0.flush().await;
    }

    /// Answers with a response of `kafka-protocol`.
    pub async fn reply(&mut self, asked: &Asked, response: &impl Encodable) {
        self.answer(asked, &encode(response, asked.version)).await;
    }

    /// Takes the ApiVersions request and offers `ranges`.
    pub async fn greet(&mut self, ranges: &[(i16, i16, i16)]) -> Option<Asked> {
        let asked = self.next().await?;
        assert_eq!(asked.api, 18);
        self.reply(&asked, &versions(ranges)).await;
        Some(asked)
    }
}

pub fn encode(response: &impl Encodable, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    response.encode(&mut body, version).unwrap();
    body.freeze()
}

pub fn versions(ranges: &[(i16, i16, i16)]) -> ApiVersionsResponse {
    let keys = ranges
        .iter()
        .map(|(api, min, max)| {
            ApiVersion::default()
                .with_api_key(*api)
                .with_min_version(*min)
                .with_max_version(*max)
        })
        .collect();
    ApiVersionsResponse::default().with_api_keys(keys)
}

/// What Apache Kafka 4.3 offers of the APIs in use.
pub const MODERN: &[(i16, i16, i16)] = &[
    (0, 0, 13),
    (1, 4, 18),
    (2, 1, 11),
    (3, 0, 13),
    (8, 2, 10),
    (9, 1, 10),
    (10, 0, 6),
    (15, 0, 6),
    (16, 0, 5),
    (17, 0, 1),
    (18, 0, 4),
    (19, 2, 7),
    (20, 1, 6),
    (21, 0, 2),
    (22, 0, 5),
    (23, 2, 4),
    (24, 0, 5),
    (26, 0, 5),
    (27, 1, 1),
    (32, 1, 4),
    (36, 0, 2),
    (37, 0, 3),
    (44, 0, 1),
    (61, 0, 0),
    (65, 0, 0),
];

/// How an address behaves.
#[derive(Clone)]
enum Host {
    Serves(Arc<dyn Fn(DuplexStream) + Send + Sync>),
    Silent,
    Unknown,
}

/// A network of scripted hosts. Addresses that nobody serves refuse the connection.
#[derive(Default)]
pub struct Net {
    hosts: Mutex<BTreeMap<(String, u16), Host>>,
    /// Every address that was connected to, in order.
    pub dialled: Mutex<Vec<String>>,
}

impl Net {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Runs `script` for each connection to `host:port`.
    pub fn serve<F>(
        &self,
        host: &str,
        port: u16,
        script: impl Fn(DuplexStream) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let host_kind = Host::Serves(Arc::new(move |stream| {
            tokio::spawn(script(stream));
        }));
        self.set(host, port, host_kind);
    }

    /// A host that never answers.
    pub fn silent(&self, host: &str, port: u16) {
        self.set(host, port, Host::Silent);
    }

    /// A name that does not resolve.
    pub fn unknown(&self, host: &str, port: u16) {
        self.set(host, port, Host::Unknown);
    }

    fn set(&self, host: &str, port: u16, kind: Host) {
        self.hosts
            .lock()
            .unwrap()
            .insert((host.to_owned(), port), kind);
    }

    pub fn runtime(self: &Arc<Self>) -> Runtime {
        Runtime::simulated(self.clone(), 1)
    }
}

impl World for Net {
    fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        self.dialled.lock().unwrap().push(format!("{host}:{port}"));
        let host = self
            .hosts
            .lock()
            .unwrap()
            .get(&(host.to_owned(), port))
            .cloned();
        match host {
            Some(Host::Serves(serve)) => {
                let (ours, theirs) = tokio::io::duplex(PIPE);
                serve(theirs);
                Ok(ours)
            }
            Some(Host::Silent) => Err(io::ErrorKind::TimedOut.into()),
            Some(Host::Unknown) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "name or service not known",
            )),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}
