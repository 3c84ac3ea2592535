//! DescribeTransactions (65), version 0. Unknown ids get 105, ids of another coordinator 16.
//! Topics are listed while partitions are open or their markers are missing.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::Call;
use crate::cluster::Cluster;
use crate::code;

/// Describes each transactional id.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    cluster.coordinator.expire(call.now_ms);
    let rows = request
        .transactional_ids
        .iter()
        .map(|tid| match call.forced_whole() {
            Some(code) => refused(tid, code),
            None => describe(cluster, call, tid),
        });
    DescribeTransactionsResponse::default().with_transaction_states(rows.collect())
}

fn refused(tid: &TransactionalId, code: i16) -> TransactionState {
    TransactionState::default()
        .with_transactional_id(tid.clone())
        .with_error_code(code)
}

fn describe(cluster: &Cluster, call: &Call, tid: &TransactionalId) -> TransactionState {
    if cluster.coordinator_of(tid) != call.node {
        return refused(tid, code::NOT_COORDINATOR);
    }
    let Some(txn) = cluster.coordinator.ids.get(tid.0.as_str()) else {
        return refused(tid, code::TRANSACTIONAL_ID_NOT_FOUND);
    };
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in txn.partitions.iter().chain(txn.markers.keys()) {
        topics.entry(topic.clone()).or_default().push(*partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicData::default()
            .with_topic(TopicName(StrBytes::from(topic)))
            .with_partitions(partitions)
    });
    TransactionState::default()
        .with_transactional_id(tid.clone())
        .with_transaction_state(StrBytes::from_static_str(txn.phase.name()))
        .with_transaction_timeout_ms(txn.timeout_ms)
        .with_transaction_start_time_ms(txn.started_ms)
        .with_producer_id(ProducerId(txn.producer_id))
        .with_producer_epoch(txn.epoch)
        .with_topics(topics.collect())
}
