//! AddPartitionsToTxn (24), versions 0..5. Up to v3 a client's request for one transaction; from v4 a broker's batch.
//!
//! Deviation: no limit on the size of the transaction's state record (a real one refuses far above 1,000 partitions).

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use super::Call;
use crate::cluster::Cluster;
use crate::code;
use crate::transactions::Stamp;

/// Adds partitions, all or none.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if call.version <= 3 {
        let stamp = Stamp {
            producer_id: request.v3_and_below_producer_id.0,
            epoch: request.v3_and_below_producer_epoch,
        };
        let tid = request.v3_and_below_transactional_id.0.as_str();
        let rows = add(
            cluster,
            call,
            tid,
            stamp,
            false,
            &request.v3_and_below_topics,
        );
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(rows);
    }
    let results = request.transactions.iter().map(|txn| {
        let stamp = Stamp {
            producer_id: txn.producer_id.0,
            epoch: txn.producer_epoch,
        };
        let rows = add(
            cluster,
            call,
            &txn.transactional_id,
            stamp,
            txn.verify_only,
            &txn.topics,
        );
        AddPartitionsToTxnResult::default()
            .with_transactional_id(txn.transactional_id.clone())
            .with_topic_results(rows)
    });
    AddPartitionsToTxnResponse::default().with_results_by_transaction(results.collect())
}

fn add(
    cluster: &mut Cluster,
    call: &Call,
    tid: &str,
    stamp: Stamp,
    verify_only: bool,
    topics: &[AddPartitionsToTxnTopic],
) -> Vec<AddPartitionsToTxnTopicResult> {
    let all: Vec<(String, i32)> = topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(|p| (t.name.to_string(), *p)))
        .collect();
    let unknown: Vec<bool> = all
        .iter()
        .map(|(t, p)| cluster.partition(t, *p).is_err())
        .collect();
    let whole = if let Some(code) = call.forced_whole() {
        code
    } else if cluster.coordinator_of(tid) != call.node {
        code::NOT_COORDINATOR
    } else if unknown.contains(&true) {
        code::OPERATION_NOT_ATTEMPTED
    } else {
        let outcome = if verify_only {
            all.iter()
                .try_for_each(|p| cluster.coordinator.verify(tid, stamp, p, call.now_ms))
        } else {
            cluster.coordinator.add(tid, stamp, &all, call.now_ms)
        };
        let code = outcome.err().unwrap_or(code::NONE);
        // Before v2 clients knew the older code for a fenced producer only.
        let code = if call.version < 2 && code == code::PRODUCER_FENCED {
            code::INVALID_PRODUCER_EPOCH
        } else {
            code
        };
        call.forced_whole_after().unwrap_or(code)
    };
    let row = |topic: &AddPartitionsToTxnTopic, index: i32| {
        let name = topic.name.to_string();
        let known = cluster.partition(&name, index).is_ok();
        let code = match call.forced(&name, index) {
            Some(code) => code,
            None if whole == code::OPERATION_NOT_ATTEMPTED && !known => {
                code::UNKNOWN_TOPIC_OR_PARTITION
            }
            None => whole,
        };
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(index)
            .with_partition_error_code(code)
    };
    let result = |topic: &AddPartitionsToTxnTopic| {
        let rows = topic
            .partitions
            .iter()
            .map(|index| row(topic, *index))
            .collect();
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(rows)
    };
    topics.iter().map(result).collect()
}
