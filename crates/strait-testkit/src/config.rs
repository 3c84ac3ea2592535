//! Settings of an in-memory cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock, TokioClock};

/// Settings of an in-memory cluster of one or more brokers. Defaults are Kafka 4.3's unless stated.
#[derive(Clone)]
pub struct BrokerConfig {
    /// Cluster id as Metadata answers it.
    pub cluster_id: String,
    /// Node id of the first broker; the others follow upwards.
    pub node_id: i32,
    /// Number of brokers (default 1).
    pub nodes: i32,
    /// Advertised host of every broker until it listens on a socket (default `kit`).
    pub host: String,
    /// Advertised port of the first broker until it listens (default 9092); the others follow upwards.
    pub port: u16,
    /// Where the brokers take the time from (default: the machine).
    pub clock: Arc<dyn Clock>,
    /// `producer.id.expiration.ms`: age of a producer's last batch at which it is forgotten (default 1 day).
    pub producer_id_expiration_ms: i64,
    /// Period of the check for expired producers in ms (default 10 min).
    pub producer_expiry_check_ms: i64,
    /// Period of the retention check in ms (default 5 min).
    pub retention_check_ms: i64,
    /// `message.max.bytes`, the default of topics' `max.message.bytes` (default 1,048,588).
    pub max_message_bytes: i64,
    /// `transactional.id.expiration.ms` (default 7 days). The kit expires at once, Kafka at an hourly check.
    pub transactional_id_expiration_ms: i64,
    /// `transaction.max.timeout.ms` (default 15 min).
    pub transaction_max_timeout_ms: i32,
    /// Time from EndTxn's ANSWER to the first marker in ms (default 20; real brokers: 13 to 41).
    pub marker_delay_ms: i64,
    /// Time between the markers of two partitions of one transaction in ms (default 1).
    pub marker_step_ms: i64,
    /// Time after which a partition without leader counts as lost for a transaction's marker (default 9 s).
    pub session_timeout_ms: i64,
    /// Time after start and after each restart during which InitProducerId answers 14 and producer id -1 (default 0).
    pub coordinator_load_ms: i64,
    /// Whether Metadata creates unknown topics when a client allows it (default true, as in Kafka).
    pub auto_create_topics: bool,
    /// `num.partitions` (default 1).
    pub default_partitions: i32,
    /// `default.replication.factor` (default 1).
    pub default_replication: i16,
    /// First producer id handed out (default 0).
    pub first_producer_id: i64,
    /// Seed of topic ids (default 0; mixed with the cluster id).
    pub seed: u64,
    /// Highest version offered per API key, below what the kit can do, to pass for an older broker.
    pub max_versions: BTreeMap<i16, i16>,
    /// API keys not offered at all, to pass for an older or restricted service.
    pub hidden_apis: BTreeSet<i16>,
    /// User and password when SASL/PLAIN is required (default: no authentication).
    pub sasl_plain: Option<(String, String)>,
    /// Further broker-wide defaults by topic-setting name (`retention.ms`, `compression.type`, ...).
    pub topic_defaults: BTreeMap<String, String>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            cluster_id: "kit-cluster".to_owned(),
            node_id: 1,
            nodes: 1,
            host: "kit".to_owned(),
            port: 9092,
            clock: Arc::new(SystemClock),
            producer_id_expiration_ms: 86_400_000,
            producer_expiry_check_ms: 600_000,
            retention_check_ms: 300_000,
            max_message_bytes: 1_048_588,
            transactional_id_expiration_ms: 7 * 86_400_000,
            transaction_max_timeout_ms: 900_000,
            marker_delay_ms: 20,
            marker_step_ms: 1,
            session_timeout_ms: 9_000,
            coordinator_load_ms: 0,
            auto_create_topics: true,
            default_partitions: 1,
            default_replication: 1,
            first_producer_id: 0,
            seed: 0,
            max_versions: BTreeMap::new(),
            hidden_apis: BTreeSet::new(),
            sasl_plain: None,
            topic_defaults: BTreeMap::new(),
        }
    }
}

impl BrokerConfig {
    /// The present of simulated clusters: 2025-11-21 00:00 UTC.
    pub const SIMULATED_START_MS: i64 = 1_763_683_200_000;

    /// Defaults with a cluster id and with tokio's (pausable) clock beginning at [`Self::SIMULATED_START_MS`].
    #[must_use]
    pub fn simulated(cluster_id: &str) -> Self {
        Self {
            cluster_id: cluster_id.to_owned(),
            host: cluster_id.to_owned(),
            clock: Arc::new(TokioClock::starting_at(Self::SIMULATED_START_MS)),
            ..Self::default()
        }
    }
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("cluster_id", &self.cluster_id)
            .field("node_id", &self.node_id)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}
