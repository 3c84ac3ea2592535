//! The state of an in-memory cluster, without input or output: topics, nodes, coordinator, groups, time-driven work.

use std::collections::BTreeMap;

use thiserror::Error;
use uuid::Uuid;

use crate::code;
use crate::config::BrokerConfig;
use crate::groups::Groups;
use crate::log::Log;
use crate::topic_config::{LogSettings, check};
use crate::transactions::{Coordinator, MarkerPace};

/// Pause between two attempts to write a marker that a partition refuses.
const MARKER_RETRY_MS: i64 = 100;

/// Why the kit could not do what a test asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KitError {
    /// The broker answers with an error code.
    #[error("{what}: {} ({code})", code::name(*.code))]
    Refused {
        /// Kafka's error code.
        code: i16,
        /// What was attempted, or the broker's message.
        what: String,
    },
    /// The records could not be encoded or decoded.
    #[error(transparent)]
    Records(#[from] crate::records::RecordsError),
}

impl KitError {
    /// Kafka's error code, -1 if it was not a refusal by the broker.
    #[must_use]
    pub fn code(&self) -> i16 {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Records(_) => code::UNKNOWN_SERVER_ERROR,
        }
    }

    pub(crate) fn refused(code: i16, what: impl Into<String>) -> Self {
        Self::Refused {
            code,
            what: what.into(),
        }
    }
}

/// One broker of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) online: bool,
    pub(crate) paused: bool,
    /// Rises when all connections of the node must go.
    pub(crate) generation: u64,
}

/// One partition with its log and its leadership.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) log: Log,
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) leaderless_since: Option<i64>,
    pub(crate) under_min_isr: bool,
}

impl Partition {
    fn new(replicas: Vec<i32>) -> Self {
        let mut log = Log::default();
        log.epochs.assign(0, 0);
        Self {
            log,
            leader: replicas.first().copied(),
            leader_epoch: 0,
            replicas,
            leaderless_since: None,
            under_min_isr: false,
        }
    }

    /// A leader of the next (or a given) epoch takes over.
    pub(crate) fn elect(&mut self, leader: i32, epoch: i32) {
        self.leader = Some(leader);
        self.leaderless_since = None;
        self.leader_epoch = epoch;
        let end = self.log.end;
        self.log.epochs.assign(epoch, end);
    }

    /// NOT_LEADER_OR_FOLLOWER unless `node` leads.
    pub(crate) fn led_by(&self, node: i32) -> Result<(), i16> {
        if self.leader == Some(node) {
            Ok(())
        } else {
            Err(code::NOT_LEADER_OR_FOLLOWER)
        }
    }

    /// The check of `current_leader_epoch`: 74 below, 75 above, -1 is not checked.
    pub(crate) fn check_epoch(&self, current: i32) -> Result<(), i16> {
        if current == -1 || current == self.leader_epoch {
            Ok(())
        } else if current < self.leader_epoch {
            Err(code::FENCED_LEADER_EPOCH)
        } else {
            Err(code::UNKNOWN_LEADER_EPOCH)
        }
    }

    /// In-sync replicas as Metadata shows them.
    pub(crate) fn isr(&self) -> Vec<i32> {
        match self.leader {
            Some(leader) if self.under_min_isr => vec![leader],
            _ => self.replicas.clone(),
        }
    }
}

/// One topic.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) overrides: BTreeMap<String, String>,
    pub(crate) partitions: Vec<Partition>,
}

/// What a topic is to be created with.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicPlan {
    pub(crate) partitions: i32,
    pub(crate) replication: i16,
    pub(crate) assignments: Vec<Vec<i32>>,
    pub(crate) configs: BTreeMap<String, String>,
}

/// The state of the cluster; all methods are synchronous and take the time from their caller.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: BrokerConfig,
    pub(crate) nodes: BTreeMap<i32, Node>,
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) coordinator: Coordinator,
    pub(crate) groups: Groups,
    /// Cluster-wide settings altered at run time.
    pub(crate) broker_overrides: BTreeMap<String, String>,
    pub(crate) loading_until_ms: i64,
    /// Rises whenever a partition may have changed: waiting requests then look again.
    pub(crate) touched: u64,
    ids: fastrand::Rng,
    producer_check_at: i64,
    retention_check_at: i64,
}

impl Cluster {
    pub(crate) fn new(config: BrokerConfig) -> Self {
        let now_ms = config.clock.now_ms();
        let nodes = (0..config.nodes.max(1))
            .map(|i| {
                let node = Node {
                    host: config.host.clone(),
                    port: config.port.saturating_add(u16::try_from(i).unwrap_or(0)),
                    online: true,
                    paused: false,
                    generation: 0,
                };
                (config.node_id + i, node)
            })
            .collect();
        // FNV-1a of the cluster id: two clusters with one seed still have different topic ids.
        let mixed = config
            .cluster_id
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self {
            nodes,
            topics: BTreeMap::new(),
            coordinator: Coordinator {
                ids: BTreeMap::new(),
                next_producer_id: config.first_producer_id,
                epoch: 0,
                expiration_ms: config.transactional_id_expiration_ms,
                max_timeout_ms: config.transaction_max_timeout_ms,
                pace: MarkerPace {
                    delay_ms: config.marker_delay_ms,
                    step_ms: config.marker_step_ms,
                },
            },
            groups: Groups::default(),
            broker_overrides: BTreeMap::new(),
            loading_until_ms: now_ms + config.coordinator_load_ms,
            touched: 0,
            ids: fastrand::Rng::with_seed(config.seed ^ mixed),
            producer_check_at: now_ms + config.producer_expiry_check_ms,
            retention_check_at: now_ms + config.retention_check_ms,
            config,
        }
    }

    /// Does everything that time has brought up to `now_ms`: markers, transaction timeouts, expiry, retention.
    /// Answers whether anything may have changed.
    pub(crate) fn run_due(&mut self, now_ms: i64) -> bool {
        let mut changed = false;
        self.coordinator.time_out(now_ms);
        while let Some((tid, at, due, marker)) = self.coordinator.due_marker(now_ms) {
            changed = true;
            if self.try_marker(&at, marker, due, now_ms) {
                self.coordinator.marker_done(&tid, &at, now_ms);
            } else {
                self.coordinator
                    .marker_later(&tid, &at, now_ms + MARKER_RETRY_MS);
            }
        }
        if now_ms >= self.producer_check_at {
            self.producer_check_at = next_check(
                self.producer_check_at,
                self.config.producer_expiry_check_ms,
                now_ms,
            );
            self.expire_producers(now_ms);
            changed = true;
        }
        if now_ms >= self.retention_check_at {
            self.retention_check_at = next_check(
                self.retention_check_at,
                self.config.retention_check_ms,
                now_ms,
            );
            self.retain(now_ms);
            changed = true;
        }
        changed
    }

    /// When [`Self::run_due`] next has something to do that a waiting client could notice.
    pub(crate) fn next_due(&self) -> i64 {
        let checks = self.producer_check_at.min(self.retention_check_at);
        self.coordinator
            .next_due()
            .map_or(checks, |due| due.min(checks))
    }

    /// Whether the coordinator is done with a partition's marker: written, or given up.
    fn try_marker(
        &mut self,
        at: &(String, i32),
        marker: crate::log::Marker,
        due: i64,
        now_ms: i64,
    ) -> bool {
        let grace = self.config.session_timeout_ms;
        let Some((settings, partition)) = self.with_settings(&at.0, at.1) else {
            return true;
        };
        if partition.leader.is_none() {
            // Once the only broker is fenced the coordinator drops the marker in silence and says Complete.
            return partition
                .leaderless_since
                .is_none_or(|since| now_ms - since >= grace);
        }
        if partition.under_min_isr {
            return false;
        }
        let epoch = partition.leader_epoch;
        partition
            .log
            .append_marker(marker, &settings, epoch, due)
            .is_ok()
    }

    pub(crate) fn expiration_ms(&self) -> i64 {
        self.broker_overrides
            .get("producer.id.expiration.ms")
            .and_then(|v| v.parse().ok())
            .unwrap_or(self.config.producer_id_expiration_ms)
    }

    pub(crate) fn expire_producers(&mut self, now_ms: i64) {
        let expiration = self.expiration_ms();
        for partition in self.all_partitions() {
            partition.log.producers.expire(now_ms, expiration);
        }
    }

    pub(crate) fn retain(&mut self, now_ms: i64) {
        let defaults = self.defaults();
        for topic in self.topics.values_mut() {
            let settings = LogSettings::new(&topic.overrides, &defaults);
            for partition in &mut topic.partitions {
                partition.log.retain(&settings, now_ms);
            }
        }
    }

    /// A restart of every broker: leader epochs rise by two, only the last batch per producer stays known.
    pub(crate) fn restart(&mut self, now_ms: i64) {
        let expiration = self.expiration_ms();
        for partition in self.all_partitions() {
            partition.log.producers.reload(now_ms, expiration);
            if let Some(leader) = partition.leader {
                let epoch = partition.leader_epoch + 2;
                partition.elect(leader, epoch);
            }
        }
        for node in self.nodes.values_mut() {
            node.generation += 1;
        }
        self.coordinator.epoch += 2;
        self.loading_until_ms = now_ms + self.config.coordinator_load_ms;
    }

    fn all_partitions(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.topics
            .values_mut()
            .flat_map(|t| t.partitions.iter_mut())
    }

    /// Broker-wide defaults of topic settings.
    pub(crate) fn defaults(&self) -> BTreeMap<String, String> {
        let mut defaults = self.config.topic_defaults.clone();
        defaults
            .entry("max.message.bytes".to_owned())
            .or_insert_with(|| self.config.max_message_bytes.to_string());
        for (name, value) in &self.broker_overrides {
            let topic_name = match name.as_str() {
                "log.retention.ms" => "retention.ms",
                "message.max.bytes" => "max.message.bytes",
                other => other,
            };
            defaults.insert(topic_name.to_owned(), value.clone());
        }
        defaults
    }

    pub(crate) fn topic(&self, name: &str) -> Result<&Topic, i16> {
        self.topics
            .get(name)
            .ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)
    }

    pub(crate) fn name_of(&self, id: Uuid) -> Option<String> {
        let found = self.topics.iter().find(|(_, topic)| topic.id == id);
        found.map(|(name, _)| name.clone())
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Result<&Partition, i16> {
        let index = usize::try_from(partition).map_err(|_| code::UNKNOWN_TOPIC_OR_PARTITION)?;
        self.topic(topic)?
            .partitions
            .get(index)
            .ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)
    }

    /// A partition to change, with the settings of its topic.
    pub(crate) fn with_settings(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Option<(LogSettings, &mut Partition)> {
        self.touched += 1;
        let defaults = self.defaults();
        let topic = self.topics.get_mut(topic)?;
        let settings = LogSettings::new(&topic.overrides, &defaults);
        let partition = topic.partitions.get_mut(usize::try_from(partition).ok()?)?;
        Some((settings, partition))
    }

    /// The node that coordinates a transactional id or a group.
    pub(crate) fn coordinator_of(&self, key: &str) -> i32 {
        let count = self.nodes.len().max(1) as u64;
        let hash = key.bytes().fold(0u64, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        let index = usize::try_from(hash % count).unwrap_or(0);
        self.nodes
            .keys()
            .nth(index)
            .copied()
            .unwrap_or(self.config.node_id)
    }

    /// Checks a creation without doing it; answers the plan with defaults filled in.
    pub(crate) fn check_topic(&self, name: &str, plan: &TopicPlan) -> Result<TopicPlan, KitError> {
        let refuse = |code, what: String| Err(KitError::refused(code, what));
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty()
            || name.len() > 249
            || name == "."
            || name == ".."
            || !name.chars().all(legal)
        {
            return refuse(
                code::INVALID_TOPIC_EXCEPTION,
                format!("Topic name is invalid: '{name}'"),
            );
        }
        if self.topics.contains_key(name) {
            return refuse(
                code::TOPIC_ALREADY_EXISTS,
                format!("Topic '{name}' already exists."),
            );
        }
        let mut plan = plan.clone();
        if !plan.assignments.is_empty() {
            let known = plan
                .assignments
                .iter()
                .flatten()
                .all(|node| self.nodes.contains_key(node));
            if !known || plan.assignments.iter().any(Vec::is_empty) {
                return refuse(
                    code::INVALID_REPLICA_ASSIGNMENT,
                    "unknown broker in an assignment".to_owned(),
                );
            }
            plan.partitions = i32::try_from(plan.assignments.len()).unwrap_or(i32::MAX);
            plan.replication = plan
                .assignments
                .first()
                .map_or(1, |a| i16::try_from(a.len()).unwrap_or(1));
        }
        if plan.partitions == -1 {
            plan.partitions = self.config.default_partitions;
        }
        if plan.replication == -1 {
            plan.replication = self.config.default_replication;
        }
        if plan.partitions <= 0 {
            return refuse(
                code::INVALID_PARTITIONS,
                "Number of partitions must be larger than 0.".to_owned(),
            );
        }
        if plan.replication <= 0
            || usize::try_from(plan.replication).is_ok_and(|r| r > self.nodes.len())
        {
            let what = format!(
                "replication factor {} with {} brokers",
                plan.replication,
                self.nodes.len()
            );
            return refuse(code::INVALID_REPLICATION_FACTOR, what);
        }
        for (key, value) in &plan.configs {
            check(key, value).map_err(|what| KitError::refused(code::INVALID_CONFIG, what))?;
        }
        Ok(plan)
    }

    /// Creates a topic; its id is new even if the name has existed before.
    pub(crate) fn create_topic(&mut self, name: &str, plan: &TopicPlan) -> Result<Uuid, KitError> {
        let plan = self.check_topic(name, plan)?;
        let id = Uuid::from_u64_pair(self.ids.u64(..), self.ids.u64(..));
        let mut topic = Topic {
            id,
            overrides: plan.configs.clone(),
            partitions: Vec::new(),
        };
        let nodes: Vec<i32> = self.nodes.keys().copied().collect();
        for index in 0..usize::try_from(plan.partitions).unwrap_or(0) {
            let replicas = plan.assignments.get(index).cloned();
            let spread = || spread(&nodes, self.topics.len() + index, plan.replication);
            topic
                .partitions
                .push(Partition::new(replicas.unwrap_or_else(spread)));
        }
        self.topics.insert(name.to_owned(), topic);
        Ok(id)
    }

    /// Grows a topic to `total` partitions.
    pub(crate) fn grow(
        &mut self,
        name: &str,
        total: i32,
        validate_only: bool,
    ) -> Result<(), KitError> {
        let nodes: Vec<i32> = self.nodes.keys().copied().collect();
        let Some(topic) = self.topics.get_mut(name) else {
            return Err(KitError::refused(code::UNKNOWN_TOPIC_OR_PARTITION, name));
        };
        let present = topic.partitions.len();
        let wanted = usize::try_from(total).unwrap_or(0);
        if wanted <= present {
            let what = format!(
                "Topic currently has {present} partitions, which is higher than the requested {total}."
            );
            return Err(KitError::refused(code::INVALID_PARTITIONS, what));
        }
        if !validate_only {
            let replication = topic.partitions.first().map_or(1, |p| p.replicas.len());
            for index in present..wanted {
                let replicas = spread(&nodes, index, i16::try_from(replication).unwrap_or(1));
                topic.partitions.push(Partition::new(replicas));
            }
        }
        Ok(())
    }
}

/// Replicas of partition `index`: leaders go round the nodes.
fn spread(nodes: &[i32], index: usize, replication: i16) -> Vec<i32> {
    let count = usize::try_from(replication).unwrap_or(1);
    let ring = nodes.iter().cycle().skip(index % nodes.len().max(1));
    ring.take(count.min(nodes.len())).copied().collect()
}

/// The first check after `now_ms`, on the period that began with `last`.
fn next_check(last: i64, period: i64, now_ms: i64) -> i64 {
    let period = period.max(1);
    last + ((now_ms - last) / period + 1) * period
}
