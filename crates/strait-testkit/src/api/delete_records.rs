//! DeleteRecords (21), versions 0..2: -1 means up to the high watermark; compact-only topics answer 44.

use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::Call;
use crate::cluster::Cluster;
use crate::code;

/// Moves log starts up.
pub(super) fn handle(
    cluster: &mut Cluster,
    call: &Call,
    request: &DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let topics = request.topics.iter().map(|topic| {
        let rows = topic.partitions.iter().map(|wanted| {
            let row = DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index);
            match delete(
                cluster,
                Some(call),
                &topic.name,
                wanted.partition_index,
                wanted.offset,
            ) {
                Ok(start) => row.with_low_watermark(start),
                Err(code) => row.with_low_watermark(-1).with_error_code(code),
            }
        });
        DeleteRecordsTopicResult::default()
            .with_name(topic.name.clone())
            .with_partitions(rows.collect())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// Deletes below `before` (-1: everything); `call` is absent when a test does it from inside.
pub(crate) fn delete(
    cluster: &mut Cluster,
    call: Option<&Call>,
    topic: &str,
    index: i32,
    before: i64,
) -> Result<i64, i16> {
    if let Some(code) = call.and_then(|c| c.forced(topic, index)) {
        return Err(code);
    }
    let (settings, partition) = cluster
        .with_settings(topic, index)
        .ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    if let Some(call) = call {
        partition.led_by(call.node)?;
    }
    if !settings.deleted {
        return Err(code::POLICY_VIOLATION);
    }
    let watermark = partition.log.high_watermark();
    let before = if before == -1 { watermark } else { before };
    if before < 0 || before > watermark {
        return Err(code::OFFSET_OUT_OF_RANGE);
    }
    partition.log.move_start(before);
    Ok(partition.log.start)
}
