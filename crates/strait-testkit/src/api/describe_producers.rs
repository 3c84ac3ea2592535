//! DescribeProducers (61), version 0. A follower answers without error, with its own (here: equal) state.

use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::Call;
use crate::cluster::Cluster;
use crate::code;

/// Lists the producers each partition remembers.
pub(super) fn handle(
    cluster: &Cluster,
    call: &Call,
    request: &DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.iter().map(|topic| {
        let rows = topic.partition_indexes.iter().map(|index| {
            let row = PartitionResponse::default().with_partition_index(*index);
            match describe(cluster, call, &topic.name, *index) {
                Ok(producers) => row.with_active_producers(producers),
                Err(code) => row.with_error_code(code),
            }
        });
        TopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(rows.collect())
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn describe(
    cluster: &Cluster,
    call: &Call,
    topic: &str,
    index: i32,
) -> Result<Vec<ProducerState>, i16> {
    let forced = call.forced(topic, index);
    if let Some(code) = forced.or_else(|| call.forced_after(topic, index)) {
        return Err(code);
    }
    let partition = cluster.partition(topic, index)?;
    if partition.leader.is_none() || !partition.replicas.contains(&call.node) {
        return Err(code::NOT_LEADER_OR_FOLLOWER);
    }
    let rows = partition.log.producers.entries().iter().map(|(id, entry)| {
        ProducerState::default()
            .with_producer_id(ProducerId(*id))
            .with_producer_epoch(i32::from(entry.epoch))
            .with_last_sequence(entry.last_sequence())
            .with_last_timestamp(entry.last_timestamp)
            .with_coordinator_epoch(entry.coordinator_epoch)
            .with_current_txn_start_offset(entry.open_transaction.unwrap_or(-1))
    });
    Ok(rows.collect())
}
