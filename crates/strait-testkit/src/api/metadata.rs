//! Metadata (3), versions 0..13; by topic id from v10.
//!
//! Deviations: no racks, no authorized operations. Unknown topics are created when the client allows it and the
//! cluster does (v0..3 always allow), as Kafka does: a mirror that forgets to forbid it is caught.

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Call;
use crate::cluster::{Cluster, TopicPlan};
use crate::code;

/// Describes the cluster and the topics asked for.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &MetadataRequest,
) -> MetadataResponse {
    let names = match &request.topics {
        Some(topics) if !(topics.is_empty() && call.version == 0) => topics
            .iter()
            .map(|topic| match &topic.name {
                Some(name) if !name.is_empty() || topic.topic_id.is_nil() => {
                    (Some(name.to_string()), Uuid::nil())
                }
                _ => (cluster.name_of(topic.topic_id), topic.topic_id),
            })
            .collect(),
        _ => cluster
            .topics
            .keys()
            .map(|name| (Some(name.clone()), Uuid::nil()))
            .collect::<Vec<_>>(),
    };
    let may_create = (call.version < 4 || request.allow_auto_topic_creation)
        && cluster.config.auto_create_topics;
    let topics: Vec<_> = names
        .into_iter()
        .map(|(name, id)| match name {
            Some(name) => describe(cluster, call, &name, may_create),
            None => MetadataResponseTopic::default()
                .with_error_code(code::UNKNOWN_TOPIC_ID)
                .with_name(None)
                .with_topic_id(id),
        })
        .collect();
    let brokers = cluster
        .nodes
        .iter()
        .filter(|(_, node)| node.online)
        .map(|(id, node)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(*id))
                .with_host(StrBytes::from(node.host.clone()))
                .with_port(i32::from(node.port))
        });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from(cluster.config.cluster_id.clone())))
        .with_controller_id(BrokerId(cluster.config.node_id))
        .with_topics(topics)
}

fn describe(
    cluster: &mut Cluster,
    call: &Call,
    name: &str,
    may_create: bool,
) -> MetadataResponseTopic {
    let row = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from(name.to_owned()))));
    let forced = call
        .forced(name, -1)
        .or_else(|| call.forced_after(name, -1));
    if let Some(code) = forced {
        return row.with_error_code(code);
    }
    if !cluster.topics.contains_key(name) {
        if !may_create {
            return row.with_error_code(code::UNKNOWN_TOPIC_OR_PARTITION);
        }
        let plan = TopicPlan {
            partitions: -1,
            replication: -1,
            ..TopicPlan::default()
        };
        // The first answer after an automatic creation has no leader yet.
        return match cluster.create_topic(name, &plan) {
            Ok(_) => row.with_error_code(code::LEADER_NOT_AVAILABLE),
            Err(error) => row.with_error_code(error.code()),
        };
    }
    let Ok(topic) = cluster.topic(name) else {
        return row.with_error_code(code::UNKNOWN_TOPIC_OR_PARTITION);
    };
    let ids = |nodes: &[i32]| nodes.iter().copied().map(BrokerId).collect::<Vec<_>>();
    let partitions = (0i32..).zip(&topic.partitions).map(|(index, partition)| {
        let error = if partition.leader.is_none() {
            code::LEADER_NOT_AVAILABLE
        } else {
            code::NONE
        };
        MetadataResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(index)
            .with_leader_id(BrokerId(partition.leader.unwrap_or(-1)))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr()))
    });
    row.with_topic_id(topic.id)
        .with_is_internal(name == "__consumer_offsets" || name == "__transaction_state")
        .with_partitions(partitions.collect())
}
