//! ListOffsets (2), versions 1..10: earliest (-2), latest (-1), largest timestamp (-3, v7+), local earliest (-4),
//! tiered latest (-5, answered -1), or by time.
//!
//! As verified: with replica_id other than -1 the answer to -1 is the LOG END, given by followers too (their own end,
//! here the high watermark) and without error.

use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::Call;
use crate::cluster::Cluster;
use crate::code;

/// Answers every partition of the request.
pub(super) fn handle(
    cluster: &Cluster,
    call: &Call,
    request: &ListOffsetsRequest,
) -> ListOffsetsResponse {
    let topics = request.topics.iter().map(|topic| {
        let rows = topic.partitions.iter().map(|wanted| {
            let row = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_timestamp(-1)
                .with_offset(-1)
                .with_leader_epoch(-1);
            match look_up(cluster, call, request, &topic.name, wanted) {
                Ok((timestamp, offset, epoch)) => row
                    .with_timestamp(timestamp)
                    .with_offset(offset)
                    .with_leader_epoch(if call.version >= 4 { epoch } else { -1 }),
                Err(code) => row.with_error_code(code),
            }
        });
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(rows.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn look_up(
    cluster: &Cluster,
    call: &Call,
    request: &ListOffsetsRequest,
    topic: &str,
    wanted: &ListOffsetsPartition,
) -> Result<(i64, i64, i32), i16> {
    let forced = call.forced(topic, wanted.partition_index);
    if let Some(code) = forced.or_else(|| call.forced_after(topic, wanted.partition_index)) {
        return Err(code);
    }
    let partition = cluster.partition(topic, wanted.partition_index)?;
    let from_client = request.replica_id.0 == -1;
    let leads = partition.led_by(call.node);
    if from_client || !partition.replicas.contains(&call.node) {
        leads?;
    }
    partition.check_epoch(wanted.current_leader_epoch)?;
    let log = &partition.log;
    let limit = match (from_client, leads.is_ok()) {
        (false, true) => log.end,
        (true, _) if request.isolation_level == 1 => log.last_stable(),
        _ => log.high_watermark(),
    };
    Ok(match wanted.timestamp {
        -1 => (-1, limit, partition.leader_epoch),
        -2 | -4 => (-1, log.start, log.epochs.at(log.start)),
        -3 => match log.max_time() {
            Some((timestamp, offset)) => (timestamp, offset, log.epochs.at(offset)),
            None => (-1, -1, -1),
        },
        -5 => (-1, -1, -1),
        time if time < 0 => return Err(code::UNSUPPORTED_FOR_MESSAGE_FORMAT),
        time => match log.find_time(time, limit) {
            Some((timestamp, offset)) => (timestamp, offset, log.epochs.at(offset)),
            None => (-1, -1, -1),
        },
    })
}
