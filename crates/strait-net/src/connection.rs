//! One pipelined connection to one broker.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::call::{self, Call};
use crate::driver::{Command, Driver, Outgoing};
use crate::error::NetError;
use crate::frame::{header_kinds, request_name};
use crate::peer::Peer;
use crate::pool::Pool;
use crate::runtime::Runtime;
use crate::security::Security;
use crate::socket::Stream;
use crate::unanswered::{Waiting, Waits};
use crate::{handshake, sasl, tls};

/// The API that brokers have and KRaft controllers have not.
const METADATA: i16 = 3;

/// The longest pause that a broker is granted.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How we introduce ourselves to brokers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `client.id` of every request: what quotas and the broker's logs show. At most 32,767 bytes.
    pub client_id: String,
    /// Name of the software (KIP-511), shown in the broker's connection metrics.
    pub software_name: String,
    /// Version of the software (KIP-511).
    pub software_version: String,
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest response accepted, in bytes; a larger one closes the connection. Default 128 MiB.
    pub response_bytes: usize,
    /// How much of a response's announced length is allocated before its bytes have arrived; beyond
    /// it the buffer grows, by doubling, with what really comes. A response up to this size is
    /// never copied. Default 4 MiB.
    pub eager_bytes: usize,
    /// Time to resolve the name and connect. Default 5 s.
    pub connect: Duration,
    /// Time for each of: the TLS handshake, ApiVersions, and every SASL step. Default 10 s.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            response_bytes: 128 << 20,
            eager_bytes: 4 << 20,
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
        }
    }
}

/// The right to write, asked for immediately before a guarded frame goes to the socket and again
/// before each further piece of it.
pub trait WriteGuard: Send + Sync {
    /// Whether the frame may be written now. `false` closes the connection; a frame of which a part
    /// had been written is thereby never complete, so the broker does not carry it out.
    fn may_write(&self) -> bool;
}

/// A pipelined connection. Clones share it; when the last clone is dropped the socket is closed and
/// whatever is still pending fails with [`NetError::Closed`].
///
/// Requests are written in the order of the calls to [`Connection::send`], and the broker answers in
/// that order. When one request has no answer in time, the connection is closed and everything
/// pending fails: a broker answers strictly in order, so nothing behind it could arrive either.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
    rt: Runtime,
}

/// What the connection's handles and its driver both see.
pub(crate) struct Shared {
    pub(crate) peer: Peer,
    pub(crate) closed: AtomicBool,
    /// Why it closed; set once, before `closed`.
    pub(crate) reason: OnceLock<NetError>,
    versions: OnceLock<BTreeMap<i16, (i16, i16)>>,
    round_trip: OnceLock<Duration>,
    /// Where it is told what has no answer yet.
    waits: Option<Arc<Waits>>,
}

impl Shared {
    pub(crate) fn reason(&self) -> NetError {
        self.reason
            .get()
            .cloned()
            .unwrap_or_else(|| NetError::Closed {
                peer: self.peer.clone(),
                why: "it was closed from this side".to_owned(),
            })
    }
}

/// What every new connection of a cluster needs; TLS is prepared once.
pub(crate) struct Dialer<'a> {
    pub(crate) rt: &'a Runtime,
    pub(crate) security: &'a Security,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) identity: &'a Identity,
    pub(crate) limits: Limits,
    /// Where the buffers of answers come from.
    pub(crate) pool: Option<Pool>,
    /// Where it is told what has no answer yet.
    pub(crate) waits: Option<Arc<Waits>>,
}

impl Dialer<'_> {
    /// Connects, secures, negotiates versions and authenticates.
    pub(crate) async fn open(&self, peer: Peer) -> Result<Connection, NetError> {
        let waits = self.waits.as_ref();
        let _opening = waits.map(|waits| waits.begin(&peer, None, self.rt.now()));
        let socket = self.rt.dial(&peer, self.limits.connect).await?;
        let stream = match (&self.security.tls, &self.tls) {
            (Some(_), Some(config)) => {
                tls::handshake(&peer, config.clone(), socket, self.limits.handshake).await?
            }
            _ => Stream::Plain(socket),
        };
        let connection = Connection::start(
            self.rt,
            peer,
            stream,
            self.identity,
            self.limits,
            self.pool.clone(),
            self.waits.clone(),
        );
        let asked = self.rt.now();
        let versions =
            handshake::negotiate(&connection, self.identity, self.limits.handshake).await?;
        let _ = connection
            .handle
            .shared
            .round_trip
            .set(self.rt.now().saturating_duration_since(asked));
        let _ = connection.handle.shared.versions.set(versions);
        if let Some(sasl) = &self.security.sasl {
            sasl::authenticate(&connection, sasl, self.rt, self.limits.handshake).await?;
        }
        tracing::debug!(peer = %connection.peer(), "connected");
        Ok(connection)
    }
}

impl Connection {
    /// Opens a connection: TCP, then TLS if `security` has it, then ApiVersions (4, 3 or 0, as
    /// KIP-511 has it), then SASL. The broker's node id is not known this way
    /// ([`Connection::broker`] is -1); [`crate::Cluster::connect`] knows it.
    ///
    /// # Errors
    /// Whatever went wrong on the way, naming the address.
    pub async fn open(
        rt: &Runtime,
        host: &str,
        port: u16,
        security: &Security,
        identity: &Identity,
        limits: Limits,
    ) -> Result<Self, NetError> {
        let dialer = Dialer {
            rt,
            security,
            tls: security.tls.as_ref().map(tls::client_config).transpose()?,
            identity,
            limits,
            pool: None,
            waits: None,
        };
        dialer.open(Peer::address(host, port)).await
    }

    /// Starts the driver on a stream; no byte has been exchanged yet.
    pub(crate) fn start(
        rt: &Runtime,
        peer: Peer,
        stream: Stream,
        identity: &Identity,
        limits: Limits,
        pool: Option<Pool>,
        waits: Option<Arc<Waits>>,
    ) -> Self {
        let shared = Arc::new(Shared {
            peer,
            closed: AtomicBool::new(false),
            reason: OnceLock::new(),
            versions: OnceLock::new(),
            round_trip: OnceLock::new(),
            waits,
        });
        let (commands, receiver) = mpsc::unbounded_channel();
        let driver = Driver::new(
            rt.clone(),
            stream,
            receiver,
            shared.clone(),
            identity.client_id.clone(),
            limits,
            pool,
        );
        drop(rt.spawn(driver));
        Self {
            handle: Arc::new(Handle {
                commands,
                shared,
                rt: rt.clone(),
            }),
        }
    }

    /// The highest version of `api` within `min..=max` that the broker speaks.
    ///
    /// # Errors
    /// [`NetError::Unsupported`], naming both ranges.
    pub fn version(&self, api: i16, max: i16, min: i16) -> Result<i16, NetError> {
        let offered = self
            .handle
            .shared
            .versions
            .get()
            .and_then(|v| v.get(&api).copied());
        match offered {
            Some((low, high)) if low <= max && high >= min && max.min(high) >= min.max(low) => {
                Ok(max.min(high))
            }
            other => {
                let name = call_name(api);
                let offer = match other {
                    Some((low, high)) => format!("it offers {low} to {high}"),
                    None if api == METADATA => {
                        "it does not offer this API: this is probably a KRaft controller's listener, use a broker's".to_owned()
                    }
                    None => "it does not offer this API".to_owned(),
                };
                Err(NetError::Unsupported {
                    peer: self.handle.shared.peer.clone(),
                    what: format!("{name} in a version from {min} to {max}: {offer}"),
                })
            }
        }
    }

    /// Sends a request whose body is given in segments, which are written as they are, without being
    /// copied. Length, header and correlation id are added. The request is queued before this
    /// returns, so the order of calls is the order on the wire.
    ///
    /// The answer is the body after the response header. `timeout` runs from now. A `guard` is asked
    /// immediately before the frame is written. Only for requests that are answered: not Produce
    /// with acks=0.
    ///
    /// The caller bounds how much it has in flight; the queue does not.
    pub fn send(
        &self,
        api: i16,
        version: i16,
        body: Vec<Bytes>,
        timeout: Duration,
        guard: Option<Arc<dyn WriteGuard>>,
    ) -> Pending {
        let shared = &self.handle.shared;
        let Some(header) = header_kinds(api, version) else {
            return Pending::failed(NetError::Unsupported {
                peer: shared.peer.clone(),
                what: format!("API {api}: this program does not know its headers"),
            });
        };
        let (answer, receiver) = oneshot::channel();
        let command = Command::Send(Outgoing {
            api,
            version,
            header,
            body,
            timeout,
            deadline: self.handle.rt.deadline(timeout),
            guard,
            answer,
        });
        if self.is_closed() || self.handle.commands.send(command).is_err() {
            return Pending::failed(shared.reason());
        }
        let now = || self.handle.rt.now();
        let waits = shared.waits.as_ref();
        Pending(State::Waiting {
            receiver,
            shared: shared.clone(),
            _waiting: waits.map(|waits| waits.begin(&shared.peer, Some((api, version)), now())),
        })
    }

    /// Makes a control-plane request in the highest version both sides speak. The response's shape
    /// is checked against its bytes before it is decoded, so a hostile count costs nothing.
    ///
    /// # Errors
    /// [`NetError::Unsupported`] if there is no common version, or a field is set that the version
    /// does not have; [`NetError::Malformed`] for a response that does not have its shape; otherwise
    /// as [`Connection::send`]. Error codes inside the response are the caller's to read.
    pub async fn request<R: Call>(
        &self,
        request: R,
        timeout: Duration,
    ) -> Result<R::Response, NetError> {
        let version = self.version(R::API, R::MAX, R::MIN)?;
        self.request_at(request, version, timeout).await
    }

    /// [`Connection::request`] in a version that the caller has chosen with
    /// [`Connection::version`], within [`Call::MIN`] and [`Call::MAX`].
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub async fn request_at<R: Call>(
        &self,
        request: R,
        version: i16,
        timeout: Duration,
    ) -> Result<R::Response, NetError> {
        let body = call::encode(&request, version).map_err(|e| NetError::Unsupported {
            peer: self.peer().clone(),
            what: format!("this request in {}: {e}", request_name(R::API, version)),
        })?;
        let answer = self
            .send(R::API, version, vec![body], timeout, None)
            .await?;
        call::decode::<R>(version, answer).map_err(|e| {
            self.close();
            NetError::Malformed {
                peer: self.peer().clone(),
                what: format!("the answer to {}: {e}", request_name(R::API, version)),
            }
        })
    }

    /// Whether the connection has ended. A `false` may be out of date by the time it is read.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.closed.load(Ordering::Acquire)
    }

    /// The broker has answered that it reads nothing more from this connection for `pause` (a quota, KIP-219; counted up
    /// to ten minutes): the timeouts of what waits for it begin after that.
    pub fn paused(&self, pause: Duration) {
        let pause = pause.min(PAUSE_MAX);
        let _ = self.handle.commands.send(Command::Paused(pause));
    }

    /// Closes the connection; everything pending fails with [`NetError::Closed`].
    pub fn close(&self) {
        self.handle.shared.closed.store(true, Ordering::Release);
        let _ = self.handle.commands.send(Command::Close);
    }

    /// How long the broker took to answer ApiVersions when the connection was opened: about the line's round
    /// trip, as a broker answers it from memory. Zero before that.
    pub fn round_trip(&self) -> Duration {
        self.handle
            .shared
            .round_trip
            .get()
            .copied()
            .unwrap_or_default()
    }

    /// The broker's node id, or -1 where it is not known (opened by address).
    pub fn broker(&self) -> i32 {
        self.handle.shared.peer.broker()
    }

    /// Whom this connection leads to, as errors name it.
    pub fn peer(&self) -> &Peer {
        &self.handle.shared.peer
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer())
    }
}

fn call_name(api: i16) -> String {
    match kafka_protocol::messages::ApiKey::try_from(api) {
        Ok(key) => format!("{key:?}"),
        Err(()) => format!("API {api}"),
    }
}

/// The answer to one request, when it comes: the body after the response header, in memory of its
/// own. Dropping it discards the answer; the request is carried out all the same.
#[must_use = "an answer that nobody waits for is discarded"]
pub struct Pending(State);

enum State {
    Waiting {
        receiver: oneshot::Receiver<Result<Bytes, NetError>>,
        shared: Arc<Shared>,
        _waiting: Option<Waiting>,
    },
    Failed(Option<NetError>),
}

impl Pending {
    fn failed(error: NetError) -> Self {
        Self(State::Failed(Some(error)))
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

impl Future for Pending {
    type Output = Result<Bytes, NetError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Waiting {
                receiver, shared, ..
            } => {
                let answer = ready!(Pin::new(receiver).poll(cx));
                Poll::Ready(answer.unwrap_or_else(|_| Err(shared.reason())))
            }
            State::Failed(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}
