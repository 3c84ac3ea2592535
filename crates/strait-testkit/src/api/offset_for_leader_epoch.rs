//! OffsetForLeaderEpoch (23), versions 2..4. A follower answers 6, also to replica ids other than -1.

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::Call;
use crate::cluster::Cluster;

/// Answers the end offset of each epoch asked for; (-1, -1) without error above the newest.
pub(super) fn handle(
    cluster: &Cluster,
    call: &Call,
    request: &OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.iter().map(|topic| {
        let rows = topic.partitions.iter().map(|wanted| {
            let row = EpochEndOffset::default().with_partition(wanted.partition);
            match look_up(cluster, call, &topic.topic, wanted) {
                Ok((epoch, end)) => row.with_leader_epoch(epoch).with_end_offset(end),
                Err(code) => row
                    .with_error_code(code)
                    .with_leader_epoch(-1)
                    .with_end_offset(-1),
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(rows.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn look_up(
    cluster: &Cluster,
    call: &Call,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<(i32, i64), i16> {
    let forced = call.forced(topic, wanted.partition);
    if let Some(code) = forced.or_else(|| call.forced_after(topic, wanted.partition)) {
        return Err(code);
    }
    let partition = cluster.partition(topic, wanted.partition)?;
    partition.led_by(call.node)?;
    partition.check_epoch(wanted.current_leader_epoch)?;
    Ok(partition
        .log
        .epochs
        .end_of(wanted.leader_epoch, partition.log.end))
}
