//! The handle of an in-memory cluster's broker: connections from outside, white-box access for tests.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::api::delete_records;
use crate::changes::{Changes, Waiter};
use crate::cluster::{Cluster, KitError, Partition, TopicPlan};
use crate::compaction;
use crate::config::BrokerConfig;
use crate::fault::{FaultPlan, Seen};
use crate::groups::Commit;
use crate::log::StoredBatch;
use crate::producers::ProducerEntry;
use crate::records::{CONTROL, KitRecord, TRANSACTIONAL};
use crate::server;
use crate::topic_config::{LogSettings, check};
use crate::transactions::TransactionPhase;

/// Bytes in flight in each direction of an in-memory connection.
const DUPLEX_BYTES: usize = 256 << 10;
/// Requests kept for [`Broker::requests`].
const REQUESTS_KEPT: usize = 10_000;

/// One request a broker has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRequest {
    /// When, by the cluster's clock.
    pub at_ms: i64,
    /// The node that received it.
    pub node: i32,
    /// Its API key.
    pub api: i16,
    /// Its version.
    pub version: i16,
}

/// State shared by all handles and connections of a cluster.
pub(crate) struct Shared {
    cluster: Mutex<Cluster>,
    requests: Mutex<VecDeque<SeenRequest>>,
    config: BrokerConfig,
    faults: FaultPlan,
    changed: Arc<Changes>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state at the present time, after everything that was due, and tells whoever waits.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Cluster, i64) -> T) -> T {
        let now_ms = self.now_ms();
        let mut cluster = self.lock();
        let due = cluster.run_due(now_ms);
        let before = cluster.touched;
        let out = change(&mut cluster, now_ms);
        let changed = due || cluster.touched != before;
        drop(cluster);
        if changed {
            self.tell();
        }
        out
    }

    pub(crate) fn tell(&self) {
        self.changed.tell();
    }

    pub(crate) fn changes(&self) -> Waiter {
        Changes::waiter(&self.changed)
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.config.clock.now_ms()
    }

    pub(crate) fn config(&self) -> &BrokerConfig {
        &self.config
    }

    pub(crate) fn faults(&self) -> &FaultPlan {
        &self.faults
    }

    pub(crate) fn note_request(&self, node: i32, api: i16, version: i16) {
        let mut seen = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == REQUESTS_KEPT {
            seen.pop_front();
        }
        seen.push_back(SeenRequest {
            at_ms: self.now_ms(),
            node,
            api,
            version,
        });
    }
}

/// One broker of an in-memory cluster. Clones, and the handles of the other nodes, share the cluster.
///
/// Methods about topics act on the whole cluster; methods about connections act on this node.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
    node: i32,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("cluster", &self.shared.config.cluster_id)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Connections.
impl Broker {
    /// A new, empty cluster; the handle is that of its first node.
    #[must_use]
    pub fn new(config: BrokerConfig) -> Self {
        let node = config.node_id;
        Self {
            shared: Arc::new(Shared {
                faults: FaultPlan::new(config.seed),
                requests: Mutex::new(VecDeque::new()),
                cluster: Mutex::new(Cluster::new(config.clone())),
                config,
                changed: Arc::default(),
            }),
            node,
        }
    }

    /// The handles of all nodes, by rising id.
    #[must_use]
    pub fn nodes(&self) -> Vec<Self> {
        let ids: Vec<i32> = self.shared.lock().nodes.keys().copied().collect();
        let handle = |node| Self {
            shared: Arc::clone(&self.shared),
            node,
        };
        ids.into_iter().map(handle).collect()
    }

    /// The handle of another node, if there is one with this id.
    #[must_use]
    pub fn node(&self, id: i32) -> Option<Self> {
        self.nodes().into_iter().find(|broker| broker.node == id)
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.node
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.shared.config.cluster_id.clone()
    }

    /// The address this node advertises.
    #[must_use]
    pub fn address(&self) -> (String, u16) {
        let cluster = self.shared.lock();
        let node = cluster.nodes.get(&self.node);
        node.map_or_else(Default::default, |n| (n.host.clone(), n.port))
    }

    /// Makes this node advertise another address.
    pub fn set_address(&self, host: &str, port: u16) {
        self.change_node(|node| {
            host.clone_into(&mut node.host);
            node.port = port;
        });
    }

    /// The node of this cluster that advertises an address: what a simulated network asks.
    #[must_use]
    pub fn at_address(&self, host: &str, port: u16) -> Option<Self> {
        self.nodes()
            .into_iter()
            .find(|broker| broker.address() == (host.to_owned(), port))
    }

    /// Accepts TCP connections for this node at `addr` (port 0: any) and advertises that address.
    ///
    /// # Errors
    /// When the address cannot be bound. Needs a tokio runtime; the listener lives as long as that.
    pub async fn listen(&self, addr: &str) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(addr).await?;
        let local = listener.local_addr()?;
        self.set_address(&local.ip().to_string(), local.port());
        let broker = self.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                if broker.accepts() {
                    spawn(broker.serve(stream));
                }
            }
        });
        Ok(local)
    }

    /// Opens an in-memory connection to this node, served on the present runtime.
    ///
    /// # Errors
    /// `ConnectionRefused` while the node is offline or a rule refuses connections.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        if !self.accepts() {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        let (client, server) = tokio::io::duplex(DUPLEX_BYTES);
        spawn(self.serve(server));
        Ok(client)
    }

    /// Serves one connection of this node until it ends; it ends at once when the node is or goes offline.
    pub fn serve<S>(&self, stream: S) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        server::serve(Arc::clone(&self.shared), self.node, stream)
    }

    fn accepts(&self) -> bool {
        let online = self
            .shared
            .lock()
            .nodes
            .get(&self.node)
            .is_some_and(|n| n.online);
        let seen = Seen {
            api: None,
            node: self.node,
            targets: &[],
        };
        online && self.faults().decide(&seen).is_none()
    }

    /// The cluster's fault rules.
    #[must_use]
    pub fn faults(&self) -> FaultPlan {
        self.shared.faults.clone()
    }

    /// Stops (false) or starts this node: connections are cut and refused, Metadata no longer lists it.
    /// Leadership does not move by itself; see [`Self::elect`] and [`Self::set_leaderless`].
    pub fn set_online(&self, online: bool) {
        self.change_node(|node| {
            node.online = online;
            node.generation += 1;
        });
    }

    /// Cuts all connections of this node; new ones are accepted.
    pub fn cut_connections(&self) {
        self.change_node(|node| node.generation += 1);
    }

    /// Makes this node stop handling requests (they stay in the connection) until [`Self::resume`].
    pub fn pause(&self) {
        self.change_node(|node| node.paused = true);
    }

    /// Ends [`Self::pause`].
    pub fn resume(&self) {
        self.change_node(|node| node.paused = false);
    }

    fn change_node(&self, change: impl FnOnce(&mut crate::cluster::Node)) {
        if let Some(node) = self.shared.lock().nodes.get_mut(&self.node) {
            change(node);
        }
        self.shared.tell();
    }

    /// The last 10,000 requests of all nodes, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<SeenRequest> {
        let seen = self
            .shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.iter().copied().collect()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the kit serves its own connections"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Topics.
impl Broker {
    /// Creates a topic (replication 1; 3 nodes or more: still 1, see [`Self::create_replicated`]).
    ///
    /// # Errors
    /// As CreateTopics: exists, bad name, bad settings.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<Uuid, KitError> {
        self.create_replicated(name, partitions, 1, configs)
    }

    /// Creates a topic with a replication factor.
    ///
    /// # Errors
    /// As [`Self::create_topic`].
    pub fn create_replicated(
        &self,
        name: &str,
        partitions: i32,
        replication: i16,
        configs: &[(&str, &str)],
    ) -> Result<Uuid, KitError> {
        let plan = TopicPlan {
            partitions,
            replication,
            assignments: Vec::new(),
            configs: configs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        };
        self.shared
            .with(|cluster, _| cluster.create_topic(name, &plan))
    }

    /// Deletes a topic and its records; answers whether it existed.
    pub fn delete_topic(&self, name: &str) -> bool {
        self.shared
            .with(|cluster, _| cluster.topics.remove(name).is_some())
    }

    /// Grows a topic to `total` partitions.
    ///
    /// # Errors
    /// Unknown topic, or `total` not above the present number.
    pub fn add_partitions(&self, name: &str, total: i32) -> Result<(), KitError> {
        self.shared
            .with(|cluster, _| cluster.grow(name, total, false))
    }

    /// All topics with their number of partitions.
    #[must_use]
    pub fn topics(&self) -> BTreeMap<String, i32> {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let cluster = self.shared.lock();
        let topics = cluster.topics.iter();
        topics
            .map(|(name, topic)| (name.clone(), count(topic.partitions.len())))
            .collect()
    }

    /// A topic's id.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.shared.lock().topics.get(name).map(|topic| topic.id)
    }

    /// A topic's own settings (without defaults).
    #[must_use]
    pub fn topic_configs(&self, name: &str) -> BTreeMap<String, String> {
        let cluster = self.shared.lock();
        cluster
            .topics
            .get(name)
            .map(|t| t.overrides.clone())
            .unwrap_or_default()
    }

    /// Sets one of a topic's settings.
    ///
    /// # Errors
    /// Unknown topic, name or value.
    pub fn set_topic_config(&self, name: &str, key: &str, value: &str) -> Result<(), KitError> {
        check(key, value).map_err(|what| KitError::refused(crate::code::INVALID_CONFIG, what))?;
        self.shared.with(|cluster, _| {
            let topic = cluster.topics.get_mut(name);
            let topic = topic
                .ok_or_else(|| KitError::refused(crate::code::UNKNOWN_TOPIC_OR_PARTITION, name))?;
            topic.overrides.insert(key.to_owned(), value.to_owned());
            Ok(())
        })
    }

    /// Appends one whole batch as a producer with `acks=1` would; answers its base offset.
    ///
    /// # Errors
    /// Whatever the broker's checks say.
    pub fn append(&self, topic: &str, partition: i32, batch: &Bytes) -> Result<i64, KitError> {
        self.shared.with(|cluster, now_ms| {
            let unknown = || {
                KitError::refused(
                    crate::code::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("{topic}-{partition}"),
                )
            };
            let (settings, found) = cluster
                .with_settings(topic, partition)
                .ok_or_else(unknown)?;
            let epoch = found.leader_epoch;
            let done = found.log.append(batch, &settings, epoch, now_ms);
            done.map(|a| a.base_offset).map_err(|refusal| {
                KitError::refused(refusal.0, format!("{topic}-{partition}: {}", refusal.1))
            })
        })
    }

    /// One cleaner pass over all partitions of a topic (see `compaction.rs` for what stays).
    pub fn compact(&self, topic: &str) {
        self.each_log(topic, |log, settings, now_ms| {
            compaction::compact(log, settings, now_ms)
        });
    }

    /// Closes the active segments of a topic: a Fetch never crosses from one segment to the next.
    pub fn roll(&self, topic: &str) {
        self.each_log(topic, |log, _, _| log.roll());
    }

    /// The retention check, at once, for all topics.
    pub fn retain(&self) {
        self.shared.with(|cluster, now_ms| cluster.retain(now_ms));
        self.shared.tell();
    }

    fn each_log(&self, topic: &str, change: impl Fn(&mut crate::log::Log, &LogSettings, i64)) {
        self.shared.with(|cluster, now_ms| {
            let defaults = cluster.defaults();
            if let Some(topic) = cluster.topics.get_mut(topic) {
                let settings = LogSettings::new(&topic.overrides, &defaults);
                for partition in &mut topic.partitions {
                    change(&mut partition.log, &settings, now_ms);
                }
            }
        });
        self.shared.tell();
    }

    /// Deletes records below `before` (-1: up to the high watermark); answers the new log start.
    ///
    /// # Errors
    /// As DeleteRecords.
    pub fn delete_records(
        &self,
        topic: &str,
        partition: i32,
        before: i64,
    ) -> Result<i64, KitError> {
        let outcome = self
            .shared
            .with(|cluster, _| delete_records(cluster, None, topic, partition, before));
        outcome.map_err(|code| {
            KitError::refused(code, format!("delete records of {topic}-{partition}"))
        })
    }
}

/// Replication, producers and time.
impl Broker {
    /// All brokers restart: connections are cut, leader epochs rise by two, and of each producer only the LAST batch
    /// is still a known duplicate.
    pub fn restart(&self) {
        self.shared.with(|cluster, now_ms| cluster.restart(now_ms));
        self.shared.tell();
    }

    /// The check for expired producers, at once.
    pub fn expire_producers(&self) {
        self.shared
            .with(|cluster, now_ms| cluster.expire_producers(now_ms));
    }

    /// Forgets all producers of a partition, as if they had expired.
    pub fn forget_producers(&self, topic: &str, partition: i32) {
        self.change_partition(topic, partition, |p, _| p.log.producers.clear());
    }

    /// Forgets all transactional ids without an open transaction, as if `transactional.id.expiration.ms` were over.
    pub fn forget_transactional_ids(&self) {
        self.shared
            .with(|cluster, _| cluster.coordinator.expire(i64::MAX));
    }

    /// Runs whatever is due by now (markers, timeouts, expiry, retention). Otherwise that happens at the next request.
    pub fn run_due(&self) {
        self.shared.with(|_, _| ());
    }

    /// Makes `leader` the leader of a partition, in the next leader epoch, without losing records.
    pub fn elect(&self, topic: &str, partition: i32, leader: i32) {
        self.change_partition(topic, partition, |p, _| p.elect(leader, p.leader_epoch + 1));
    }

    /// Takes a partition's leader away: Metadata says 5, requests get 6.
    pub fn set_leaderless(&self, topic: &str, partition: i32) {
        self.change_partition(topic, partition, |p, now_ms| {
            p.leader = None;
            p.leaderless_since = Some(now_ms);
        });
    }

    /// Whether a partition has fewer in-sync replicas than its minimum: `acks=all` and markers are then refused.
    pub fn set_under_min_isr(&self, topic: &str, partition: i32, under: bool) {
        self.change_partition(topic, partition, |p, _| p.under_min_isr = under);
    }

    /// Holds the high watermark at an offset while the log grows; `None` lets it follow the log end again.
    pub fn hold_high_watermark(&self, topic: &str, partition: i32, at: Option<i64>) {
        self.change_partition(topic, partition, |p, _| p.log.held_watermark = at);
    }

    /// Cuts a partition back to `to` and begins `new_epoch` there: an unclean election.
    pub fn truncate(&self, topic: &str, partition: i32, to: i64, new_epoch: i32) {
        self.change_partition(topic, partition, |p, _| {
            p.log.truncate(to);
            let leader = p.leader.or_else(|| p.replicas.first().copied());
            if let Some(leader) = leader {
                p.elect(leader, new_epoch);
            }
        });
    }

    fn change_partition(
        &self,
        topic: &str,
        partition: i32,
        change: impl FnOnce(&mut Partition, i64),
    ) {
        self.shared.with(|cluster, now_ms| {
            if let Some((_, partition)) = cluster.with_settings(topic, partition) {
                change(partition, now_ms);
            }
        });
        self.shared.tell();
    }

    /// Tells of every change of the cluster's state from now on: what a test watches logs with.
    #[must_use]
    pub fn changes(&self) -> Waiter {
        self.shared.changes()
    }

    /// The present, by the cluster's clock.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.shared.now_ms()
    }

    pub(crate) fn with_cluster<T>(&self, change: impl FnOnce(&mut Cluster, i64) -> T) -> T {
        self.shared.with(change)
    }

    fn see<T: Default>(
        &self,
        topic: &str,
        partition: i32,
        look: impl FnOnce(&Partition) -> T,
    ) -> T {
        self.shared.with(|cluster, _| {
            cluster
                .partition(topic, partition)
                .map(look)
                .unwrap_or_default()
        })
    }
}

/// What lies in the logs. Unknown partitions look empty.
impl Broker {
    /// The stored batches of a partition.
    #[must_use]
    pub fn read_log(&self, topic: &str, partition: i32) -> Vec<StoredBatch> {
        self.see(topic, partition, |p| p.log.batches.clone())
    }

    /// The data records of a partition between log start and log end; with `committed`, only what a read_committed
    /// consumer would see. Markers are left out.
    #[must_use]
    pub fn records(&self, topic: &str, partition: i32, committed: bool) -> Vec<KitRecord> {
        self.see(topic, partition, |p| visible(p, committed))
    }

    /// First offset of the log.
    #[must_use]
    pub fn log_start(&self, topic: &str, partition: i32) -> i64 {
        self.see(topic, partition, |p| p.log.start)
    }

    /// Offset after the last one in the log.
    #[must_use]
    pub fn log_end(&self, topic: &str, partition: i32) -> i64 {
        self.see(topic, partition, |p| p.log.end)
    }

    /// The high watermark.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: i32) -> i64 {
        self.see(topic, partition, |p| p.log.high_watermark())
    }

    /// The last stable offset.
    #[must_use]
    pub fn last_stable_offset(&self, topic: &str, partition: i32) -> i64 {
        self.see(topic, partition, |p| p.log.last_stable())
    }

    /// Leader (none while leaderless) and leader epoch.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> (Option<i32>, i32) {
        self.see(topic, partition, |p| (p.leader, p.leader_epoch))
    }

    /// The producers a partition remembers, by producer id.
    #[must_use]
    pub fn producers(&self, topic: &str, partition: i32) -> BTreeMap<i64, ProducerEntry> {
        self.see(topic, partition, |p| p.log.producers.entries().clone())
    }

    /// State, producer id and epoch of a transactional id.
    #[must_use]
    pub fn transaction(&self, tid: &str) -> Option<(TransactionPhase, i64, i16)> {
        self.shared.with(|cluster, _| {
            let txn = cluster.coordinator.ids.get(tid)?;
            Some((txn.phase, txn.producer_id, txn.epoch))
        })
    }
}

/// Consumer groups.
impl Broker {
    /// The offsets a group has committed.
    #[must_use]
    pub fn commits(&self, group: &str) -> BTreeMap<(String, i32), Commit> {
        let cluster = self.shared.lock();
        cluster
            .groups
            .get(group)
            .map(|g| g.commits.clone())
            .unwrap_or_default()
    }

    /// Commits an offset as the group's own member would.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let commit = Commit {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let mut cluster = self.shared.lock();
        let group = cluster.groups.entry(group.to_owned()).or_default();
        group.commits.insert((topic.to_owned(), partition), commit);
    }

    /// Whether a group has members: commits from outside then get 25.
    pub fn set_group_live(&self, group: &str, live: bool) {
        self.shared
            .lock()
            .groups
            .entry(group.to_owned())
            .or_default()
            .live = live;
    }
}

fn visible(partition: &Partition, committed: bool) -> Vec<KitRecord> {
    let log = &partition.log;
    let limit = if committed {
        log.last_stable()
    } else {
        log.end
    };
    let mut out = Vec::new();
    for batch in &log.batches {
        let header = &batch.header;
        let aborted =
            || header.has(TRANSACTIONAL) && log.ended_by(header).is_some_and(|t| !t.committed);
        if header.has(CONTROL) || (committed && aborted()) {
            continue;
        }
        let records = batch.records().unwrap_or_default();
        out.extend(
            records
                .into_iter()
                .filter(|r| r.offset >= log.start && r.offset < limit),
        );
    }
    out
}
