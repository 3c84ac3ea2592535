//! One cluster: its addresses, its metadata, and the connections its control plane shares.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::Instant;

use crate::call::Call;
use crate::connection::{Connection, Dialer, Identity, Limits};
use crate::coordinator::CoordinatorKind;
use crate::error::{Action, NetError};
use crate::kafka_error::KafkaError;
use crate::metadata::Metadata;
use crate::peer::Peer;
use crate::pool::Pool;
use crate::runtime::Runtime;
use crate::security::Security;
use crate::tls;
use crate::unanswered::Waits;

/// Time a control-plane request is given.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How many known brokers are tried before the bootstrap addresses: with a large cluster gone, each
/// costs a connect timeout.
const KNOWN_BROKERS_TRIED: usize = 3;

/// How many shared connections a request that any broker answers is made on: the one of the bootstrap address and the one of
/// the broker's id may go to the same dead broker.
pub(crate) const CONNECTIONS_TRIED: u32 = 3;

/// How long a broker that could not be reached is not asked again for what is asked over and over: it would be waited for
/// each time.
const AWAY_FOR: Duration = Duration::from_secs(30);
/// And where it does not answer about share groups alone: consumer groups have their turn between the tries.
const SHARE_AWAY_FOR: Duration = Duration::from_secs(60);

/// The slot of the connection that was opened through a bootstrap address.
const BOOTSTRAP: i32 = -1;

/// One cluster, known by an alias. Clones share metadata and control connections.
///
/// Nothing is connected before it is needed. The typed calls on topics, offsets, producers and
/// transactions are in the modules of these names; each refreshes what it knows and tries once more
/// when a broker says that it is the wrong one to ask.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    rt: Runtime,
    alias: Arc<str>,
    bootstrap: Vec<String>,
    security: Security,
    identity: Identity,
    limits: Limits,
    tls: Mutex<Option<Arc<ClientConfig>>>,
    state: Mutex<State>,
    connections: Mutex<BTreeMap<i32, Slot>>,
    /// Like the control connections, for whoever reads logs beside the flows.
    readers: Mutex<BTreeMap<i32, Slot>>,
    refreshes: Mutex<BTreeMap<Option<Vec<String>>, Refresh>>,
    /// What has no answer yet.
    waits: Arc<Waits>,
    /// Orders calls and refreshes, to tell which refresh began after which call.
    tick: AtomicU64,
}

/// What a broker that gave no answer in time is not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Spared {
    /// Anything: it hangs.
    Everything,
    /// What is stored of share groups: that lies in a log of its own, and the broker may answer about all the rest.
    ShareGroups,
}

type Slot = Arc<tokio::sync::Mutex<Shared>>;

/// A connection that many use.
#[derive(Default)]
struct Shared {
    connection: Option<Connection>,
    /// Why it could not be opened the last time, and when that was known.
    failed: Option<(Instant, NetError)>,
}

impl Shared {
    fn open(&self) -> Option<Connection> {
        let open = self.connection.as_ref().filter(|c| !c.is_closed());
        open.cloned()
    }
}
type Refresh = Arc<tokio::sync::Mutex<Option<(u64, Result<Arc<Metadata>, NetError>)>>>;

#[derive(Default)]
struct State {
    cluster_id: String,
    brokers: BTreeMap<i32, (String, u16)>,
    controller: i32,
    coordinators: BTreeMap<(CoordinatorKind, String), i32>,
    /// Brokers that could not be reached, for what, since when and why.
    away: BTreeMap<(i32, Spared), (Instant, NetError)>,
    /// Which bootstrap address or broker comes first next time.
    rotation: usize,
}

impl Cluster {
    /// A cluster reached through `bootstrap` (each `host:port` or `[v6]:port`), with default
    /// [`Limits`]. A wrong address is reported when it is used.
    pub fn new(
        rt: Runtime,
        alias: impl Into<String>,
        bootstrap: Vec<String>,
        security: Security,
        identity: Identity,
    ) -> Self {
        Self::with_limits(rt, alias, bootstrap, security, identity, Limits::default())
    }

    /// [`Cluster::new`] with bounds of one's own for every connection.
    pub fn with_limits(
        rt: Runtime,
        alias: impl Into<String>,
        bootstrap: Vec<String>,
        security: Security,
        identity: Identity,
        limits: Limits,
    ) -> Self {
        Self(Arc::new(Inner {
            rt,
            alias: alias.into().into(),
            bootstrap,
            security,
            identity,
            limits,
            tls: Mutex::new(None),
            state: Mutex::new(State {
                controller: -1,
                ..State::default()
            }),
            connections: Mutex::default(),
            readers: Mutex::default(),
            refreshes: Mutex::default(),
            waits: Arc::default(),
            tick: AtomicU64::new(0),
        }))
    }

    /// The alias the configuration gives it.
    pub fn alias(&self) -> &str {
        &self.0.alias
    }

    pub(crate) fn waits(&self) -> &Arc<Waits> {
        &self.0.waits
    }

    /// The runtime this cluster was made with.
    pub fn runtime(&self) -> &Runtime {
        &self.0.rt
    }

    /// Asks the cluster about `topics` (`None`: all; an empty slice: only the brokers). Topics are
    /// never created by asking. Calls for the same topics that overlap share one request; the answer
    /// is never older than the call.
    ///
    /// # Errors
    /// [`NetError::Unreachable`] if no broker answers; [`NetError::OtherCluster`] if the cluster id
    /// has changed. Errors of single topics and partitions are in the answer.
    pub async fn metadata(&self, topics: Option<&[String]>) -> Result<Metadata, NetError> {
        self.metadata_arc(topics).await.map(Arc::unwrap_or_clone)
    }

    async fn metadata_arc(&self, topics: Option<&[String]>) -> Result<Arc<Metadata>, NetError> {
        let key = topics.map(<[String]>::to_vec);
        let called = self.0.tick.fetch_add(1, Ordering::Relaxed);
        let refresh = lock(&self.0.refreshes).entry(key).or_default().clone();
        let mut last = refresh.lock().await;
        let result = match &*last {
            Some((started, result)) if *started > called => result.clone(),
            _ => {
                let started = self.0.tick.fetch_add(1, Ordering::Relaxed);
                let result = self.fetch_metadata(topics).await;
                *last = Some((started, result.clone()));
                result
            }
        };
        drop(last);
        drop(refresh);
        // What nobody waits for any more need not be kept.
        lock(&self.0.refreshes).retain(|_, r| Arc::strong_count(r) > 1);
        result
    }

    async fn fetch_metadata(&self, topics: Option<&[String]>) -> Result<Arc<Metadata>, NetError> {
        let (connection, response) = self.ask_any(Metadata::request(topics)).await?;
        let metadata = Metadata::from_response(response).map_err(|what| NetError::Malformed {
            peer: connection.peer().clone(),
            what: format!("its metadata lists {what}"),
        })?;
        self.learn(&metadata)?;
        Ok(Arc::new(metadata))
    }

    /// Makes a request that every broker answers and that may be made twice. Where the shared connection closes under it
    /// (for idleness, or with its broker), another one is asked.
    pub(crate) async fn ask_any<R: Call + Clone>(
        &self,
        request: R,
    ) -> Result<(Connection, R::Response), NetError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let connection = self.any().await?;
            match connection.request(request.clone(), REQUEST_TIMEOUT).await {
                Ok(answer) => return Ok((connection, answer)),
                Err(e) if tries < CONNECTIONS_TRIED && e.action() == Action::Reconnect => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn learn(&self, metadata: &Metadata) -> Result<(), NetError> {
        let mut state = self.state();
        let known = !state.cluster_id.is_empty();
        if known && !metadata.cluster_id.is_empty() && state.cluster_id != metadata.cluster_id {
            return Err(NetError::OtherCluster {
                cluster: self.0.alias.clone(),
                expected: state.cluster_id.clone(),
                found: metadata.cluster_id.clone(),
            });
        }
        if !known {
            state.cluster_id.clone_from(&metadata.cluster_id);
        }
        let brokers = metadata
            .brokers
            .iter()
            .map(|(id, b)| (*id, (b.host.clone(), b.port)))
            .collect();
        let old = std::mem::replace(&mut state.brokers, brokers);
        let moved: Vec<i32> = old
            .iter()
            .filter(|(id, address)| state.brokers.get(id) != Some(address))
            .map(|(id, _)| *id)
            .collect();
        state.controller = metadata.controller;
        state.away.retain(|(id, _), _| !moved.contains(id));
        drop(state);
        for shared in [&self.0.connections, &self.0.readers] {
            let mut shared = lock(shared);
            for id in &moved {
                shared.remove(id);
            }
        }
        Ok(())
    }

    /// The leader of a partition and its epoch (-1 where the broker does not say), from new metadata.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with the topic's error, or LEADER_NOT_AVAILABLE; else as
    /// [`Cluster::metadata`].
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<(i32, i32), NetError> {
        let metadata = self.metadata_arc(Some(&[topic.to_owned()])).await?;
        metadata.leader(topic, partition).ok_or_else(|| {
            let found = metadata.topics.get(topic);
            let code = match found.map(|t| (t.error, t.partitions.get(&partition))) {
                None | Some((0, None)) => KafkaError::UNKNOWN_TOPIC_OR_PARTITION.0,
                Some((0, Some(p))) if p.error != 0 => p.error,
                Some((0, Some(_))) => KafkaError::LEADER_NOT_AVAILABLE.0,
                Some((code, _)) => code,
            };
            let what = format!(
                "topic '{topic}' partition {partition} of cluster '{}'",
                self.0.alias
            );
            NetError::kafka(code, "Metadata", what)
        })
    }

    /// The broker that takes changes to topics.
    pub(crate) async fn controller(&self, refresh: bool) -> Result<Connection, NetError> {
        let mut id = self.state().controller;
        if refresh || id < 0 {
            id = self.metadata_arc(Some(&[])).await?.controller;
        }
        // KRaft brokers pass the request on, so any will do where none is named.
        if id < 0 {
            self.any().await
        } else {
            self.control(id).await
        }
    }

    /// Opens a NEW connection to a broker, owned by the caller: for fetch lanes and writers.
    ///
    /// # Errors
    /// [`NetError::UnknownBroker`] if the metadata, asked again, does not list it; otherwise what
    /// went wrong in connecting. The address is then looked up again at the next call.
    pub async fn connect(&self, broker: i32) -> Result<Connection, NetError> {
        let address = self.address(broker).await?;
        self.open_broker(broker, &address, None).await
    }

    /// [`connect`](Self::connect) for bulk answers, whose buffers come from `pool`. A response is never copied up to
    /// `eager` bytes; a larger one grows its buffer with what really arrives.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn connect_bulk(
        &self,
        broker: i32,
        pool: &Pool,
        eager: usize,
    ) -> Result<Connection, NetError> {
        let address = self.address(broker).await?;
        self.open_broker(broker, &address, Some((pool, eager)))
            .await
    }

    /// The shared connection to a broker for control-plane requests, opened anew if it is closed.
    /// Long polls and bulk data do not belong on it: answers come strictly in order.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn control(&self, broker: i32) -> Result<Connection, NetError> {
        if let Some(open) = self.open_slot(broker) {
            return Ok(open);
        }
        let address = self.address(broker).await?;
        self.control_at(broker, &address).await
    }

    /// A connection to a broker that is shared by all who read logs outside of fetch lanes, opened anew if it is closed:
    /// control-plane requests do not wait behind their answers.
    ///
    /// # Errors
    /// As [`Cluster::connect`].
    pub async fn reader(&self, broker: i32) -> Result<Connection, NetError> {
        let slot = lock(&self.0.readers).entry(broker).or_default().clone();
        self.shared(slot, self.connect(broker)).await
    }

    /// The open connection of a slot, or a new one. Who waited for a try that failed is told so, and does not try in turn.
    async fn shared(
        &self,
        slot: Slot,
        opening: impl Future<Output = Result<Connection, NetError>>,
    ) -> Result<Connection, NetError> {
        let asked = self.0.rt.now();
        let mut slot = slot.lock().await;
        if let Some(open) = slot.open() {
            return Ok(open);
        }
        if let Some((_, error)) = slot.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(error.clone());
        }
        let opened = opening.await;
        match &opened {
            Ok(connection) => slot.connection = Some(connection.clone()),
            Err(error) => slot.failed = Some((self.0.rt.now(), error.clone())),
        }
        opened
    }

    /// Where a broker is, as last known or else from new metadata.
    async fn address(&self, broker: i32) -> Result<(String, u16), NetError> {
        let known = self.state().brokers.get(&broker).cloned();
        if let Some(address) = known {
            return Ok(address);
        }
        let metadata = self.metadata_arc(Some(&[])).await?;
        match metadata.brokers.get(&broker) {
            Some(found) => Ok((found.host.clone(), found.port)),
            None => Err(NetError::UnknownBroker {
                cluster: self.0.alias.clone(),
                broker,
            }),
        }
    }

    /// The shared connection to a broker whose address is known. Asks for no metadata, so that
    /// metadata can be asked through it; nothing else is awaited while its slot is held.
    async fn control_at(
        &self,
        broker: i32,
        address: &(String, u16),
    ) -> Result<Connection, NetError> {
        let opening = self.open_broker(broker, address, None);
        self.shared(self.slot(broker), opening).await
    }

    async fn open_broker(
        &self,
        broker: i32,
        (host, port): &(String, u16),
        bulk: Option<(&Pool, usize)>,
    ) -> Result<Connection, NetError> {
        let peer = Peer::broker_of(&self.0.alias, broker, host, *port);
        let result = self.open(peer, bulk).await;
        if matches!(
            result,
            Err(NetError::Connect { .. } | NetError::Resolve { .. })
        ) {
            self.state().brokers.remove(&broker);
        }
        result
    }

    /// The shared connection to a broker, if it is open and nobody is just replacing it.
    fn open_slot(&self, broker: i32) -> Option<Connection> {
        let slot = lock(&self.0.connections).get(&broker)?.clone();
        let slot = slot.try_lock().ok()?;
        slot.open()
    }

    /// A shared connection to any broker: an open one, else to a broker that is known, else through
    /// the bootstrap addresses, beginning with another one each time.
    ///
    /// # Errors
    /// [`NetError::Unreachable`], listing every address that was tried with its cause.
    pub async fn any(&self) -> Result<Connection, NetError> {
        let ids: Vec<i32> = lock(&self.0.connections).keys().copied().collect();
        if let Some(open) = ids.into_iter().find_map(|id| self.open_slot(id)) {
            return Ok(open);
        }
        let (known, rotation) = {
            let mut state = self.state();
            state.rotation = state.rotation.wrapping_add(1);
            let known: Vec<i32> = state.brokers.keys().copied().collect();
            (known, state.rotation.wrapping_sub(1))
        };
        let mut tried = Tried::default();
        for broker in rotated(&known, rotation).take(KNOWN_BROKERS_TRIED) {
            let address = self.state().brokers.get(broker).cloned();
            let Some(address) = address else { continue };
            match self.control_at(*broker, &address).await {
                Ok(connection) => return Ok(connection),
                Err(e) => tried.add(&format!("{}:{}", address.0, address.1), &e),
            }
        }
        self.bootstrap(rotation, tried).await
    }

    async fn bootstrap(&self, rotation: usize, mut tried: Tried) -> Result<Connection, NetError> {
        let slot = self.slot(BOOTSTRAP);
        let mut slot = slot.lock().await;
        if let Some(open) = slot.open() {
            return Ok(open);
        }
        for address in rotated(&self.0.bootstrap, rotation) {
            let opened = match host_and_port(address) {
                Ok((host, port)) => {
                    self.open(Peer::broker_of(&self.0.alias, BOOTSTRAP, host, port), None)
                        .await
                }
                Err(e) => Err(e),
            };
            match opened {
                Ok(connection) => {
                    slot.connection = Some(connection.clone());
                    return Ok(connection);
                }
                Err(e) => tried.add(address, &e),
            }
        }
        Err(tried.into_error(&self.0.alias))
    }

    async fn open(&self, peer: Peer, bulk: Option<(&Pool, usize)>) -> Result<Connection, NetError> {
        let mut limits = self.0.limits;
        if let Some((_, eager)) = bulk {
            limits.eager_bytes = eager;
        }
        let dialer = Dialer {
            rt: &self.0.rt,
            security: &self.0.security,
            tls: self.tls()?,
            identity: &self.0.identity,
            limits,
            pool: bulk.map(|(pool, _)| pool.clone()),
            waits: bulk.is_none().then(|| self.0.waits.clone()),
        };
        dialer.open(peer).await
    }

    /// The TLS configuration, built at the first use so that a missing file is an error of the
    /// connection; shared afterwards, so that sessions are resumed.
    fn tls(&self) -> Result<Option<Arc<ClientConfig>>, NetError> {
        let Some(settings) = &self.0.security.tls else {
            return Ok(None);
        };
        let mut cached = lock(&self.0.tls);
        if cached.is_none() {
            *cached = Some(tls::client_config(settings)?);
        }
        Ok(cached.clone())
    }

    pub(crate) fn cached_coordinator(&self, kind: CoordinatorKind, key: &str) -> Option<i32> {
        self.state()
            .coordinators
            .get(&(kind, key.to_owned()))
            .copied()
    }

    pub(crate) fn set_coordinator(&self, kind: CoordinatorKind, key: &str, broker: Option<i32>) {
        let mut state = self.state();
        let key = (kind, key.to_owned());
        match broker {
            Some(broker) => state.coordinators.insert(key, broker),
            None => state.coordinators.remove(&key),
        };
    }

    /// Remembers the groups that a broker coordinates, and none besides.
    pub(crate) fn set_groups_of<'a>(&self, broker: i32, groups: impl Iterator<Item = &'a str>) {
        let mut state = self.state();
        let group = CoordinatorKind::Group;
        state
            .coordinators
            .retain(|(kind, _), at| *kind != group || *at != broker);
        let groups = groups.map(|id| ((group, id.to_owned()), broker));
        state.coordinators.extend(groups);
    }

    /// Asks a broker, unless it could not be reached a moment ago: then that error is the answer. An end that says so is
    /// remembered.
    pub(crate) async fn sparing<T>(
        &self,
        broker: i32,
        spared: Spared,
        asking: impl Future<Output = Result<T, NetError>>,
    ) -> Result<T, NetError> {
        if let Some(error) = self.away(broker, spared) {
            return Err(error);
        }
        asking
            .await
            .inspect_err(|error| self.went_away(broker, spared, error))
    }

    fn away(&self, broker: i32, spared: Spared) -> Option<NetError> {
        let now = self.0.rt.now();
        let mut state = self.state();
        state.away.retain(|(_, spared), (since, _)| {
            let time = match spared {
                Spared::Everything => AWAY_FOR,
                Spared::ShareGroups => SHARE_AWAY_FOR,
            };
            now.saturating_duration_since(*since) < time
        });
        let of = |spared| state.away.get(&(broker, spared));
        let found = of(Spared::Everything).or_else(|| of(spared));
        found.map(|(_, error)| error.clone())
    }

    fn went_away(&self, broker: i32, spared: Spared, error: &NetError) {
        let spared = match error {
            NetError::Connect { .. } | NetError::Resolve { .. } => Spared::Everything,
            NetError::TimedOut { .. } => spared,
            _ => return,
        };
        let now = self.0.rt.now();
        let away = (now, error.clone());
        self.state().away.insert((broker, spared), away);
    }

    fn slot(&self, broker: i32) -> Slot {
        lock(&self.0.connections).entry(broker).or_default().clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster('{}')", self.0.alias)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn rotated<T>(items: &[T], by: usize) -> impl Iterator<Item = &T> {
    let by = by.checked_rem(items.len()).unwrap_or(0);
    items[by..].iter().chain(&items[..by])
}

/// `host:port`, `[v6]:port`.
fn host_and_port(address: &str) -> Result<(&str, u16), NetError> {
    address
        .trim()
        .rsplit_once(':')
        .and_then(|(host, port)| {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let host = match bare {
                Some(v6) => v6,
                None if host.contains(':') => return None,
                None => host,
            };
            let port: u16 = port.parse().ok()?;
            (!host.is_empty() && port > 0).then_some((host, port))
        })
        .ok_or_else(|| NetError::Invalid {
            what: format!("'{address}' is not of the form host:port"),
        })
}

/// Addresses that were tried, with their causes.
#[derive(Default)]
struct Tried {
    list: Vec<String>,
    hopeful: bool,
    /// Some address failed for another reason than the settings.
    away: bool,
}

impl Tried {
    fn add(&mut self, address: &str, error: &NetError) {
        self.hopeful |= error.action() != Action::Stop;
        self.away |= error.action() != Action::Stop && !error.is_mismatch();
        self.list.push(format!("{address} ({})", error.cause()));
    }

    fn into_error(self, alias: &Arc<str>) -> NetError {
        let mismatch = !self.list.is_empty() && !self.away;
        let tried = if self.list.is_empty() {
            "nothing, since no bootstrap address is given".to_owned()
        } else {
            self.list.join(", ")
        };
        NetError::Unreachable {
            cluster: alias.clone(),
            tried,
            action: if self.hopeful {
                Action::Reconnect
            } else {
                Action::Stop
            },
            mismatch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(host_and_port("a.b:9092").unwrap(), ("a.b", 9092));
        assert_eq!(host_and_port(" [::1]:19092 ").unwrap(), ("::1", 19092));
        for wrong in [
            "",
            "host",
            "host:",
            ":9092",
            "host:0",
            "host:99999",
            "::1:9092",
        ] {
            let error = host_and_port(wrong).unwrap_err();
            assert_eq!(error.action(), Action::Stop);
            assert!(error.to_string().contains("host:port"), "{error}");
        }
    }

    #[test]
    fn rotation_begins_elsewhere_and_misses_nothing() {
        let all: Vec<i32> = rotated(&[1, 2, 3], 4).copied().collect();
        assert_eq!(all, [2, 3, 1]);
        assert_eq!(rotated::<i32>(&[], 4).count(), 0);
    }
}
