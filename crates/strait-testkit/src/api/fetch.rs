//! Fetch (1), versions 4..18 (topic ids from 13).
//!
//! Deviations: no incremental sessions (a new session is answered with id 0, as by a broker whose session cache is
//! full; any other id gets 70); a follower serves v11+ up to the high watermark as its own log end; no divergence
//! check on followers; no throttling.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId, TopicName};
use uuid::Uuid;

use super::{Call, Pending, Step};
use crate::cluster::{Cluster, Partition};
use crate::code;

/// One answered partition, and whether it is a reason to answer at once.
struct Row {
    data: PartitionData,
    urgent: bool,
}

/// Answers, or waits for `min_bytes`.
pub(super) fn handle(cluster: &Cluster, call: &Call, request: FetchRequest) -> Step {
    let until_ms = call
        .now_ms
        .saturating_add(i64::from(request.max_wait_ms.max(0)));
    let expired = request.max_wait_ms <= 0;
    resume(cluster, call, request, until_ms, expired)
}

/// The same again when something has changed or the time is over.
pub(super) fn resume(
    cluster: &Cluster,
    call: &Call,
    request: FetchRequest,
    until_ms: i64,
    expired: bool,
) -> Step {
    if request.session_id != 0 {
        return FetchResponse::default()
            .with_error_code(code::FETCH_SESSION_ID_NOT_FOUND)
            .into();
    }
    let (topics, bytes, urgent) = read_all(cluster, call, &request);
    let enough = bytes as i64 >= i64::from(request.min_bytes);
    if enough || urgent || expired || topics.is_empty() {
        FetchResponse::default().with_responses(topics).into()
    } else {
        Step::Wait {
            pending: Pending::Fetch(Box::new(request)),
            until_ms,
        }
    }
}

fn read_all(
    cluster: &Cluster,
    call: &Call,
    request: &FetchRequest,
) -> (Vec<FetchableTopicResponse>, usize, bool) {
    // The same partition twice: one answer, the last entry wins; the order is that of the first mention.
    let mut last: BTreeMap<(TopicName, Uuid, i32), &FetchPartition> = BTreeMap::new();
    let mut order = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.topic.clone(), topic.topic_id, partition.partition);
            if last.insert(key.clone(), partition).is_none() {
                order.push(key);
            }
        }
    }
    let mut room = usize::try_from(request.max_bytes).unwrap_or(0);
    let mut taken = 0usize;
    let mut urgent = false;
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    for key in order {
        let Some(partition) = last.get(&key) else {
            continue;
        };
        let name = if call.version >= 13 {
            cluster.name_of(key.1)
        } else {
            Some(key.0.to_string())
        };
        let row = match name {
            None => failed(key.2, code::UNKNOWN_TOPIC_ID),
            Some(name) => read(cluster, call, request, &name, partition, room, taken == 0),
        };
        let size = row.data.records.as_ref().map_or(0, Bytes::len);
        room = room.saturating_sub(size);
        taken += size;
        urgent |= row.urgent;
        match topics
            .last_mut()
            .filter(|t| t.topic == key.0 && t.topic_id == key.1)
        {
            Some(topic) => topic.partitions.push(row.data),
            None => topics.push(
                FetchableTopicResponse::default()
                    .with_topic(key.0)
                    .with_topic_id(key.1)
                    .with_partitions(vec![row.data]),
            ),
        }
    }
    (topics, taken, urgent)
}

fn failed(index: i32, code: i16) -> Row {
    Row {
        data: PartitionData::default()
            .with_partition_index(index)
            .with_error_code(code)
            .with_high_watermark(-1)
            .with_last_stable_offset(-1)
            .with_log_start_offset(-1)
            .with_preferred_read_replica(BrokerId(-1))
            .with_records(Some(Bytes::new())),
        urgent: true,
    }
}

fn read(
    cluster: &Cluster,
    call: &Call,
    request: &FetchRequest,
    topic: &str,
    wanted: &FetchPartition,
    room: usize,
    whole_first: bool,
) -> Row {
    let index = wanted.partition;
    if let Some(code) = call
        .forced(topic, index)
        .or_else(|| call.forced_after(topic, index))
    {
        return failed(index, code);
    }
    match cluster.partition(topic, index) {
        Ok(partition) => {
            let may = may_read(partition, call, wanted);
            may.map_or_else(
                |code| failed(index, code),
                |()| read_partition(partition, request, wanted, room, whole_first),
            )
        }
        Err(code) => failed(index, code),
    }
}

fn may_read(partition: &Partition, call: &Call, wanted: &FetchPartition) -> Result<(), i16> {
    let follows = partition.leader.is_some() && partition.replicas.contains(&call.node);
    if partition.led_by(call.node).is_err() && !(follows && call.version >= 11) {
        return Err(code::NOT_LEADER_OR_FOLLOWER);
    }
    partition.check_epoch(wanted.current_leader_epoch)
}

fn read_partition(
    partition: &Partition,
    request: &FetchRequest,
    wanted: &FetchPartition,
    room: usize,
    whole_first: bool,
) -> Row {
    let log = &partition.log;
    let offset = wanted.fetch_offset;
    let committed = request.isolation_level == 1;
    let stable = log.last_stable();
    let base = PartitionData::default()
        .with_partition_index(wanted.partition)
        .with_high_watermark(log.high_watermark())
        .with_last_stable_offset(stable)
        .with_log_start_offset(log.start)
        .with_preferred_read_replica(BrokerId(-1))
        .with_aborted_transactions(committed.then(Vec::new))
        .with_records(Some(Bytes::new()));
    // The epoch is judged before the offset: an offset beyond the log end then means divergence, not error 1.
    if wanted.last_fetched_epoch >= 0 {
        let (epoch, end) = log.epochs.end_of(wanted.last_fetched_epoch, log.end);
        if epoch < 0 || end < 0 || offset < log.start {
            return failed(wanted.partition, code::OFFSET_OUT_OF_RANGE);
        }
        if epoch < wanted.last_fetched_epoch || end < offset {
            let diverging = EpochEndOffset::default()
                .with_epoch(epoch)
                .with_end_offset(end);
            return Row {
                data: base.with_diverging_epoch(diverging),
                urgent: true,
            };
        }
    }
    if offset < log.start || offset > log.end {
        return failed(wanted.partition, code::OFFSET_OUT_OF_RANGE);
    }
    let limit = if committed {
        stable
    } else {
        log.high_watermark()
    };
    if offset >= limit {
        // Between the limit and the log end: empty and AT ONCE; only exactly at the limit it long-polls.
        return Row {
            data: base,
            urgent: offset > limit,
        };
    }
    let max_bytes = usize::try_from(wanted.partition_max_bytes)
        .unwrap_or(0)
        .min(room);
    let records = log.read(offset, limit, max_bytes, whole_first);
    let aborted = committed.then(|| {
        let aborted = log.aborted(offset, limit).into_iter();
        let row = |(pid, first)| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(pid))
                .with_first_offset(first)
        };
        aborted.map(row).collect()
    });
    Row {
        data: base
            .with_aborted_transactions(aborted)
            .with_records(Some(records)),
        urgent: false,
    }
}
