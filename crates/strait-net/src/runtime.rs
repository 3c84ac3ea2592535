//! The seam between Strait and the machine: clocks, randomness, tasks, names and sockets.
//!
//! Nothing else in the product may ask the operating system for these, so that a simulation owns
//! them all: tokio's paused clock, a seeded generator, and a [`World`] that hands out in-memory
//! connections.
#![allow(clippy::disallowed_methods)]

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::error::{NetError, seconds};
use crate::peer::Peer;
use crate::socket::Socket;

/// Idle time before the first keepalive probe, and between probes. A peer that vanished without a
/// word is noticed even where no request is waiting.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Where a simulation's monotonic clock since boot begins: not zero, so that "ten seconds ago"
/// exists from the start.
const SIMULATED_UPTIME: Duration = Duration::from_secs(1_000);

/// As good as never.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// The network and the wall clock of a simulation.
pub trait World: Send + Sync {
    /// Opens a connection to `host:port`. An error of kind `TimedOut` stands for a host that does
    /// not answer at all: the caller then waits its whole timeout. `NotFound` stands for a name
    /// that does not resolve.
    fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream>;
    /// Milliseconds since the Unix epoch.
    fn wall_ms(&self) -> i64;
}

/// Time, randomness, tasks, names and sockets; real or simulated. Cheap to clone, and all clones
/// share one random generator.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    kind: Kind,
    random: Mutex<fastrand::Rng>,
}

enum Kind {
    System,
    Simulated {
        world: Arc<dyn World>,
        start: Instant,
    },
}

impl Runtime {
    /// The real machine.
    pub fn system() -> Self {
        Self::new(Kind::System, fastrand::Rng::new())
    }

    /// A simulated machine: tokio's clock (start the test with `start_paused`), the random numbers
    /// of `seed`, and the network and wall clock of `world`.
    pub fn simulated(world: Arc<dyn World>, seed: u64) -> Self {
        let start = Instant::now();
        Self::new(
            Kind::Simulated { world, start },
            fastrand::Rng::with_seed(seed),
        )
    }

    fn new(kind: Kind, random: fastrand::Rng) -> Self {
        Self(Arc::new(Inner {
            kind,
            random: Mutex::new(random),
        }))
    }

    /// Monotonic time for intervals and deadlines. Stands still while the machine sleeps.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The moment `after` from now; a century ahead where that is too far to name.
    pub fn deadline(&self, after: Duration) -> Instant {
        later(self.now(), after)
    }

    /// Wall clock, in milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> i64 {
        match &self.0.kind {
            Kind::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
            Kind::Simulated { world, .. } => world.wall_ms(),
        }
    }

    /// Time since boot that also advances while the machine sleeps or the process is stopped
    /// (`CLOCK_BOOTTIME`): the clock that leases are measured by.
    pub fn boottime(&self) -> Duration {
        match &self.0.kind {
            Kind::System => {
                let t = rustix::time::clock_gettime(BOOT_CLOCK);
                Duration::new(
                    u64::try_from(t.tv_sec).unwrap_or(0),
                    u32::try_from(t.tv_nsec).unwrap_or(0),
                )
            }
            Kind::Simulated { start, .. } => SIMULATED_UPTIME + start.elapsed(),
        }
    }

    /// A random number; in simulation the next one of the seed.
    pub fn random(&self) -> u64 {
        self.0
            .random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .u64(..)
    }

    /// `base` spread over 75 % to 125 %, so that many waiters do not act in step.
    pub fn jitter(&self, base: Duration) -> Duration {
        let part = (self.random() >> 11) as f64 / (1u64 << 53) as f64;
        base.min(FAR).mul_f64(0.75 + part / 2.0)
    }

    /// 24 bytes that nobody can guess (in simulation: the seed's).
    pub(crate) fn nonce(&self) -> Result<[u8; 24], NetError> {
        let mut nonce = [0; 24];
        match &self.0.kind {
            Kind::System => rustls::crypto::ring::default_provider()
                .secure_random
                .fill(&mut nonce)
                .map_err(|_| NetError::Invalid {
                    what: "the operating system gives no random numbers".to_owned(),
                })?,
            Kind::Simulated { .. } => {
                for part in nonce.chunks_exact_mut(8) {
                    part.copy_from_slice(&self.random().to_be_bytes());
                }
            }
        }
        Ok(nonce)
    }

    /// Starts a task.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(task)
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until `deadline`; returns at once if it has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        tokio::time::sleep_until(deadline).await;
    }

    /// Connects to `host:port`: resolves the name, tries every address it has, and sets TCP_NODELAY
    /// and keepalive. The receive buffer stays with the kernel's auto-tuning, which a long line
    /// needs. `limit` bounds all of it together.
    ///
    /// # Errors
    /// [`NetError::Resolve`] or [`NetError::Connect`], saying what each address answered.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Socket, NetError> {
        self.dial(&Peer::address(host, port), limit).await
    }

    /// [`Runtime::connect`] with a peer that errors can name in full.
    pub(crate) async fn dial(&self, peer: &Peer, limit: Duration) -> Result<Socket, NetError> {
        match &self.0.kind {
            Kind::System => dial_tcp(peer, limit).await.map(Socket::Tcp),
            Kind::Simulated { world, .. } => match world.connect(peer.host(), peer.port()) {
                Ok(stream) => Ok(Socket::Memory(stream)),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    tokio::time::sleep(limit).await;
                    Err(connect_error(peer, timed_out(limit)))
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => Err(NetError::Resolve {
                    peer: peer.clone(),
                    why: e.to_string(),
                }),
                Err(e) => Err(connect_error(peer, io_cause(&e))),
            },
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind {
            Kind::System => "Runtime(system)",
            Kind::Simulated { .. } => "Runtime(simulated)",
        })
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const BOOT_CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
/// Elsewhere there is no such clock by that name; macOS's monotonic clock is the nearest.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const BOOT_CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

fn later(now: Instant, after: Duration) -> Instant {
    now + after.min(FAR)
}

async fn dial_tcp(peer: &Peer, limit: Duration) -> Result<TcpStream, NetError> {
    let deadline = later(Instant::now(), limit);
    let resolve = |why: String| NetError::Resolve {
        peer: peer.clone(),
        why,
    };
    let addresses: Vec<SocketAddr> =
        match timeout(limit, tokio::net::lookup_host((peer.host(), peer.port()))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(e)) => return Err(resolve(e.to_string())),
            Err(_) => return Err(resolve(timed_out(limit))),
        };
    if addresses.is_empty() {
        return Err(resolve("the name has no address".to_owned()));
    }
    let mut causes = Vec::new();
    for (i, address) in addresses.iter().enumerate() {
        // An address that does not answer must not use up the time of those behind it.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - i).unwrap_or(1);
        let cause = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match prepare(&stream) {
                Ok(()) => return Ok(stream),
                Err(e) => io_cause(&e),
            },
            Ok(Err(e)) => io_cause(&e),
            Err(_) => timed_out(share),
        };
        causes.push(if addresses.len() == 1 {
            cause
        } else {
            format!("{}: {cause}", address.ip())
        });
    }
    Err(connect_error(peer, causes.join(", ")))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn connect_error(peer: &Peer, why: String) -> NetError {
    NetError::Connect {
        peer: peer.clone(),
        why,
    }
}

fn timed_out(after: Duration) -> String {
    format!("timed out after {}", seconds(&after))
}

/// The cause without the operating system's number: `connection refused`.
pub(crate) fn io_cause(error: &io::Error) -> String {
    let kind = error.kind().to_string();
    // Kinds that the standard library does not name say less than the error itself.
    if matches!(
        error.kind(),
        io::ErrorKind::Other | io::ErrorKind::InvalidData
    ) || kind.starts_with("uncategorized")
    {
        error.to_string()
    } else {
        kind
    }
}
