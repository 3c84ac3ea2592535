//! The network between one process and the two clusters: latency, stalls, and what a dead process leaves behind.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strait_net::World;
use strait_testkit::Broker;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::Notify;

/// Bytes a socket holds for a process that may die.
const SOCKET: usize = 256 << 10;

/// Which cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Target,
}

/// How slow and moody the network is.
#[derive(Clone, Debug)]
pub(crate) struct Climate {
    /// The largest usual delay of a piece of data, in ms.
    pub(crate) latency_ms: u64,
    /// One piece in so many is held up; 0: none.
    pub(crate) stall_one_in: u32,
    /// For how long at the most, in ms.
    pub(crate) stall_ms: u64,
}

/// What all processes share: stalls of a whole side.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    source_until: AtomicU64,
    target_until: AtomicU64,
}

impl Weather {
    /// Nothing passes to or from `side` before the moment `until` (ms of the simulation).
    pub(crate) fn stall(&self, side: Side, until: u64) {
        self.until(side).fetch_max(until, Ordering::SeqCst);
    }

    fn until(&self, side: Side) -> &AtomicU64 {
        match side {
            Side::Source => &self.source_until,
            Side::Target => &self.target_until,
        }
    }
}

/// The network of one process.
#[derive(Clone)]
pub(crate) struct Network(Arc<Inner>);

struct Inner {
    source: Broker,
    target: Broker,
    weather: Arc<Weather>,
    climate: Mutex<Climate>,
    start_ms: i64,
    rng: Mutex<fastrand::Rng>,
    /// The process is dead.
    cut: AtomicBool,
    /// What was in its sockets arrives this much later, or not at all.
    linger_ms: AtomicU64,
    /// Pieces that the process has sent to a broker, and the number at which somebody wants to know.
    sent: AtomicU64,
    alarm_at: AtomicU64,
    alarm: Arc<Notify>,
    /// Connections that the process has tried.
    tries: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Network {
    pub(crate) fn new(
        (source, target): (Broker, Broker),
        weather: Arc<Weather>,
        climate: Climate,
        seed: u64,
        start_ms: i64,
        alarm: Arc<Notify>,
    ) -> Self {
        Self(Arc::new(Inner {
            source,
            target,
            weather,
            climate: Mutex::new(climate),
            start_ms,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            cut: AtomicBool::new(false),
            linger_ms: AtomicU64::new(NEVER),
            sent: AtomicU64::new(0),
            alarm_at: AtomicU64::new(NEVER),
            alarm,
            tries: AtomicU64::new(0),
        }))
    }

    /// Rings the alarm as soon as the process has sent `pieces` pieces.
    pub(crate) fn alarm_after(&self, pieces: u64) {
        self.0.alarm_at.store(pieces, Ordering::SeqCst);
    }

    /// The process is dead: no new connections; what its sockets hold arrives `linger` later, or never.
    pub(crate) fn cut(&self, linger: Option<u64>) {
        self.0
            .linger_ms
            .store(linger.unwrap_or(NEVER), Ordering::SeqCst);
        self.0.cut.store(true, Ordering::SeqCst);
    }

    /// Connections that the process has tried.
    pub(crate) fn tries(&self) -> u64 {
        self.0.tries.load(Ordering::SeqCst)
    }

    /// No more stalls.
    pub(crate) fn calm(&self) {
        self.0.climate.lock().unwrap().stall_one_in = 0;
    }
}

impl Inner {
    fn dead(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    fn now(&self) -> u64 {
        (self.source.now_ms() - self.start_ms) as u64
    }

    fn note(&self) {
        let sent = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        if sent == self.alarm_at.load(Ordering::SeqCst) {
            self.alarm.notify_one();
        }
    }
}

impl World for Network {
    fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        let inner = &self.0;
        inner.tries.fetch_add(1, Ordering::SeqCst);
        if inner.dead() {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        let on = |broker: &Broker, side| broker.at_address(host, port).map(|b| (b, side));
        let (broker, side) = on(&inner.source, Side::Source)
            .or_else(|| on(&inner.target, Side::Target))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let (far_read, far_write) = tokio::io::split(broker.connect()?);
        let (near, ours) = tokio::io::duplex(SOCKET);
        let (near_read, near_write) = tokio::io::split(ours);
        let mut rng = fastrand::Rng::with_seed(inner.rng.lock().unwrap().u64(..));
        let way = |up: bool, rng: fastrand::Rng| Way {
            network: Arc::clone(inner),
            side,
            up,
            rng,
        };
        tokio::spawn(way(true, rng.fork()).carry(near_read, far_write));
        tokio::spawn(way(false, rng).carry(far_read, near_write));
        Ok(near)
    }

    fn wall_ms(&self) -> i64 {
        self.0.source.now_ms()
    }
}

/// One direction of a connection.
struct Way {
    network: Arc<Inner>,
    side: Side,
    up: bool,
    rng: fastrand::Rng,
}

impl Way {
    async fn carry(mut self, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
        let mut piece = vec![0; 64 << 10];
        let mut lingered = false;
        while let Ok(size @ 1..) = from.read(&mut piece).await {
            if self.up {
                self.network.note();
            }
            self.pass().await;
            if self.network.dead() {
                match self.network.linger_ms.load(Ordering::SeqCst) {
                    _ if !self.up => return,
                    NEVER => return,
                    linger if !lingered => {
                        lingered = true;
                        tokio::time::sleep(Duration::from_millis(linger)).await;
                    }
                    _ => {}
                }
            }
            if to.write_all(&piece[..size]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    }

    /// Waits as long as the network takes for the next piece.
    async fn pass(&mut self) {
        let climate = self.network.climate.lock().unwrap().clone();
        let mut wait = self.rng.u64(0..=climate.latency_ms);
        if climate.stall_one_in > 0 && self.rng.u32(0..climate.stall_one_in) == 0 {
            wait += self.rng.u64(0..=climate.stall_ms);
        }
        loop {
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            let until = self.network.weather.until(self.side).load(Ordering::SeqCst);
            wait = until.saturating_sub(self.network.now());
            if wait == 0 {
                return;
            }
        }
    }
}
