//! The broker's APIs, one file each; this file is the table of what is served and the dispatch.

mod add_partitions_to_txn;
mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_producers;
mod describe_transactions;
mod end_txn;
mod fetch;
mod find_coordinator;
mod incremental_alter_configs;
mod init_producer_id;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sasl;
mod write_txn_markers;

use kafka_protocol::messages::{FetchRequest, ProduceResponse, RequestKind, ResponseKind};
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::config::BrokerConfig;

pub(crate) use api_versions::unsupported as unsupported_api_versions;
pub(crate) use delete_records::delete as delete_records;

/// `(key, lowest, highest)` of every API served. Produce 0..2 is advertised as by 4.3.1 but not spoken.
const SERVED: [(i16, i16, i16); 25] = [
    (0, 0, 13),
    (1, 4, 18),
    (2, 1, 10),
    (3, 0, 13),
    (8, 2, 9),
    (9, 1, 9),
    (10, 0, 6),
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
    (60, 0, 2),
    (61, 0, 0),
    (65, 0, 0),
];

/// The API keys served.
pub(crate) fn served() -> impl Iterator<Item = i16> {
    SERVED.iter().map(|(key, ..)| *key)
}

/// Versions advertised for each API under this configuration.
pub(crate) fn advertised(config: &BrokerConfig) -> impl Iterator<Item = (i16, i16, i16)> + '_ {
    SERVED
        .iter()
        .filter(|(key, ..)| !config.hidden_apis.contains(key))
        .map(|&(key, low, high)| {
            let high = config
                .max_versions
                .get(&key)
                .map_or(high, |cap| high.min(*cap));
            (key, low.min(high), high)
        })
}

/// Whether the broker speaks this version; if not it closes the connection without an answer.
pub(crate) fn speaks(config: &BrokerConfig, key: i16, version: i16) -> bool {
    let low = |key, low| if key == 0 { 3 } else { low };
    advertised(config).any(|(k, l, high)| k == key && version >= low(k, l) && version <= high)
}

/// An error code that a fault rule puts into an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forced {
    pub(crate) topic: Option<String>,
    pub(crate) partition: Option<i32>,
    pub(crate) code: i16,
    /// Whether the request is handled before the error is answered.
    pub(crate) after: bool,
}

/// What a connection remembers: the state of its SASL exchange.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) mechanism_agreed: bool,
    pub(crate) authenticated: bool,
}

/// The circumstances of one request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) now_ms: i64,
    pub(crate) node: i32,
    pub(crate) version: i16,
    pub(crate) forced: Option<Forced>,
}

impl Call {
    /// The forced error for a topic and partition, if it is to be answered instead of handling.
    fn forced(&self, topic: &str, partition: i32) -> Option<i16> {
        let forced = self.forced.as_ref().filter(|f| !f.after)?;
        forced.matches(topic, partition).then_some(forced.code)
    }

    /// The forced error for a topic and partition that is to be answered after handling.
    fn forced_after(&self, topic: &str, partition: i32) -> Option<i16> {
        let forced = self.forced.as_ref().filter(|f| f.after)?;
        forced.matches(topic, partition).then_some(forced.code)
    }

    /// The forced error of a request that has no topics (or as a whole), before handling.
    fn forced_whole(&self) -> Option<i16> {
        self.forced
            .as_ref()
            .filter(|f| !f.after && f.topic.is_none())
            .map(|f| f.code)
    }

    /// The same, after handling.
    fn forced_whole_after(&self) -> Option<i16> {
        self.forced
            .as_ref()
            .filter(|f| f.after && f.topic.is_none())
            .map(|f| f.code)
    }
}

impl Forced {
    fn matches(&self, topic: &str, partition: i32) -> bool {
        self.topic.as_deref().is_none_or(|t| t == topic)
            && self.partition.is_none_or(|p| p == partition)
    }
}

/// A request that cannot be answered yet.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    /// A fetch without enough data: handled again when something changes.
    Fetch(Box<FetchRequest>),
    /// A produce with `acks=all` that is appended but not replicated.
    Produce {
        response: Box<ProduceResponse>,
        /// Topic, partition, and the high watermark it waits for.
        required: Vec<(String, i32, i64)>,
    },
}

/// What handling a request leads to.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Send this response.
    Reply(Box<ResponseKind>),
    /// Resume when the state changes, or give up at `until_ms`.
    Wait { pending: Pending, until_ms: i64 },
    /// The request has no response (`acks=0`).
    Silent,
    /// Close the connection.
    Close,
    /// Never answer, and never read from the connection again.
    Hang,
}

impl<T: Into<ResponseKind>> From<T> for Step {
    fn from(response: T) -> Self {
        Self::Reply(Box::new(response.into()))
    }
}

/// Handles one request.
pub(crate) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    session: &mut Session,
    request: RequestKind,
) -> Step {
    match request {
        RequestKind::Produce(r) => produce::handle(cluster, call, &r),
        RequestKind::Fetch(r) => fetch::handle(cluster, call, r),
        RequestKind::ListOffsets(r) => list_offsets::handle(cluster, call, &r).into(),
        RequestKind::Metadata(r) => metadata::handle(cluster, call, &r).into(),
        RequestKind::OffsetCommit(r) => offset_commit::handle(cluster, call, &r).into(),
        RequestKind::OffsetFetch(r) => offset_fetch::handle(cluster, call, &r).into(),
        RequestKind::FindCoordinator(r) => find_coordinator::handle(cluster, call, &r).into(),
        RequestKind::ListGroups(_) => list_groups::handle(cluster, call).into(),
        RequestKind::SaslHandshake(r) => sasl::handshake(cluster, session, &r).into(),
        RequestKind::SaslAuthenticate(r) => sasl::authenticate(cluster, session, &r).into(),
        RequestKind::ApiVersions(_) => api_versions::handle(cluster, call).into(),
        RequestKind::CreateTopics(r) => create_topics::handle(cluster, call, &r).into(),
        RequestKind::DeleteTopics(r) => delete_topics::handle(cluster, call, &r).into(),
        RequestKind::DeleteRecords(r) => delete_records::handle(cluster, call, &r).into(),
        RequestKind::InitProducerId(r) => init_producer_id::handle(cluster, call, &r).into(),
        RequestKind::OffsetForLeaderEpoch(r) => {
            offset_for_leader_epoch::handle(cluster, call, &r).into()
        }
        RequestKind::AddPartitionsToTxn(r) => {
            add_partitions_to_txn::handle(cluster, call, &r).into()
        }
        RequestKind::EndTxn(r) => end_txn::handle(cluster, call, &r).into(),
        RequestKind::WriteTxnMarkers(r) => write_txn_markers::handle(cluster, call, &r).into(),
        RequestKind::DescribeConfigs(r) => describe_configs::handle(cluster, call, &r).into(),
        RequestKind::CreatePartitions(r) => create_partitions::handle(cluster, call, &r).into(),
        RequestKind::IncrementalAlterConfigs(r) => {
            incremental_alter_configs::handle(cluster, call, &r).into()
        }
        RequestKind::DescribeCluster(r) => describe_cluster::handle(cluster, &r).into(),
        RequestKind::DescribeProducers(r) => describe_producers::handle(cluster, call, &r).into(),
        RequestKind::DescribeTransactions(r) => {
            describe_transactions::handle(cluster, call, &r).into()
        }
        _ => Step::Close,
    }
}

/// Takes up a waiting request again; `expired` if its time is over.
pub(crate) fn resume(
    cluster: &mut Cluster,
    call: &Call,
    pending: Pending,
    until_ms: i64,
    expired: bool,
) -> Step {
    match pending {
        Pending::Fetch(request) => fetch::resume(cluster, call, *request, until_ms, expired),
        Pending::Produce { response, required } => {
            produce::resume(cluster, call, response, required, until_ms, expired)
        }
    }
}

/// The topics and partitions a request is about, for fault rules; empty for APIs without any.
pub(crate) fn targets(cluster: &Cluster, request: &RequestKind) -> Vec<(String, i32)> {
    let named = |name: &str, id: Uuid| {
        if name.is_empty() {
            cluster.name_of(id).unwrap_or_default()
        } else {
            name.to_owned()
        }
    };
    let mut out = Vec::new();
    match request {
        RequestKind::Produce(r) => {
            for topic in &r.topic_data {
                let name = named(&topic.name, topic.topic_id);
                out.extend(topic.partition_data.iter().map(|p| (name.clone(), p.index)));
            }
        }
        RequestKind::Fetch(r) => {
            for topic in &r.topics {
                let name = named(&topic.topic, topic.topic_id);
                out.extend(topic.partitions.iter().map(|p| (name.clone(), p.partition)));
            }
        }
        RequestKind::ListOffsets(r) => {
            for topic in &r.topics {
                out.extend(
                    topic
                        .partitions
                        .iter()
                        .map(|p| (topic.name.to_string(), p.partition_index)),
                );
            }
        }
        RequestKind::OffsetForLeaderEpoch(r) => {
            for topic in &r.topics {
                out.extend(
                    topic
                        .partitions
                        .iter()
                        .map(|p| (topic.topic.to_string(), p.partition)),
                );
            }
        }
        RequestKind::DescribeProducers(r) => {
            for topic in &r.topics {
                out.extend(
                    topic
                        .partition_indexes
                        .iter()
                        .map(|p| (topic.name.to_string(), *p)),
                );
            }
        }
        RequestKind::AddPartitionsToTxn(r) => {
            for topic in &r.v3_and_below_topics {
                out.extend(
                    topic
                        .partitions
                        .iter()
                        .map(|p| (topic.name.to_string(), *p)),
                );
            }
        }
        RequestKind::CreateTopics(r) => {
            out.extend(r.topics.iter().map(|t| (t.name.to_string(), -1)))
        }
        RequestKind::CreatePartitions(r) => {
            out.extend(r.topics.iter().map(|t| (t.name.to_string(), -1)))
        }
        RequestKind::Metadata(r) => {
            let topics = r.topics.iter().flatten().filter_map(|t| t.name.as_ref());
            out.extend(topics.map(|name| (name.to_string(), -1)));
        }
        _ => {}
    }
    out
}
