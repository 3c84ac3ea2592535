//! What a cluster says about itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::call::{Call, decode};
use crate::frame::{header_kinds, response_body};

/// One answer to a Metadata request. Ordered, so that whoever walks it does so the same way each time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The cluster's own id; empty if it has none.
    pub cluster_id: String,
    /// Every live broker, by node id.
    pub brokers: BTreeMap<i32, BrokerAddress>,
    /// The broker that takes changes to topics, or -1.
    pub controller: i32,
    /// The topics asked for, or all.
    pub topics: BTreeMap<String, TopicMetadata>,
}

/// Where a broker can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// Rack, if one is configured.
    pub rack: Option<String>,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Error code: 0, or for example 3 for a topic that does not exist.
    pub error: i16,
    /// Topic id; zeros where the broker has none (before 2.8).
    pub id: Uuid,
    /// Whether Kafka itself owns the topic.
    pub internal: bool,
    /// Its partitions.
    pub partitions: BTreeMap<i32, PartitionMetadata>,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Error code, for example 5 while there is no leader.
    pub error: i16,
    /// The leader's node id, or -1.
    pub leader: i32,
    /// The leader's epoch, or -1 where the broker does not say (before 2.1).
    pub leader_epoch: i32,
    /// All replicas; the first is the preferred leader.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
}

impl Metadata {
    /// Whether the topic is there, as far as the broker that was asked knows, and Strait's user may see it.
    pub fn has(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some_and(|t| t.error == 0)
    }

    /// The leader of a partition and its epoch, if there is one at present.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        let partition = self.topics.get(topic)?.partitions.get(&partition)?;
        (partition.leader >= 0).then_some((partition.leader, partition.leader_epoch))
    }

    pub(crate) fn request(topics: Option<&[String]>) -> MetadataRequest {
        let topics = topics.map(|names| {
            names
                .iter()
                .map(|n| MetadataRequestTopic::default().with_name(Some(topic_name(n))))
                .collect()
        });
        MetadataRequest::default()
            .with_topics(topics)
            .with_allow_auto_topic_creation(false)
    }

    pub(crate) fn from_response(response: MetadataResponse) -> Result<Self, String> {
        let mut brokers = BTreeMap::new();
        for b in response.brokers {
            let port = u16::try_from(b.port)
                .map_err(|_| format!("broker {} at port {}", b.node_id.0, b.port))?;
            brokers.insert(
                b.node_id.0,
                BrokerAddress {
                    host: b.host.to_string(),
                    port,
                    rack: b.rack.map(|r| r.to_string()),
                },
            );
        }
        let mut topics = BTreeMap::new();
        for t in response.topics {
            // A topic without a name answers a question by id, which is never asked here.
            let Some(name) = t.name else { continue };
            let partitions = t
                .partitions
                .into_iter()
                .map(|p| {
                    let partition = PartitionMetadata {
                        error: p.error_code,
                        leader: p.leader_id.0,
                        leader_epoch: p.leader_epoch,
                        replicas: p.replica_nodes.into_iter().map(|b| b.0).collect(),
                        isr: p.isr_nodes.into_iter().map(|b| b.0).collect(),
                    };
                    (p.partition_index, partition)
                })
                .collect();
            topics.insert(
                name.to_string(),
                TopicMetadata {
                    error: t.error_code,
                    id: t.topic_id,
                    internal: t.is_internal,
                    partitions,
                },
            );
        }
        Ok(Self {
            cluster_id: response
                .cluster_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            brokers,
            controller: response.controller_id.0,
            topics,
        })
    }
}

/// Reads `rest`, what follows the correlation id of a Metadata answer, as a cluster does: for tests that give it hostile
/// bytes.
///
/// # Errors
/// What is wrong with the bytes.
#[doc(hidden)]
pub fn read_metadata(version: i16, rest: Bytes) -> Result<Metadata, String> {
    let kinds = header_kinds(MetadataRequest::API, version).ok_or("unknown version")?;
    let body = response_body(kinds.flexible_response, rest)?;
    decode::<MetadataRequest>(version, body).and_then(Metadata::from_response)
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
