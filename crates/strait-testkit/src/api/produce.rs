//! Produce (0), versions 3..13. As 4.3.1: 0..2 are advertised but close the connection.
//!
//! Deviations: no throttling, no record-level errors, no `current_leader` hints; transaction verification is always on.
//! The answer lists partitions in descending order, so that nobody relies on the request's order.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Call, Pending, Step};
use crate::cluster::{Cluster, Partition};
use crate::code;
use crate::codec::Codec;
use crate::log::Appended;
use crate::records::{BatchHeader, TRANSACTIONAL};
use crate::transactions::Stamp;
use crate::validate::{Framing, Refusal, claims_transaction, frame};

/// A partition of the request: by name up to v12, by id from v13.
type Target = (String, Uuid, i32);

/// Appends, and answers at once unless `acks=all` has to wait for the high watermark.
pub(super) fn handle(cluster: &mut Cluster, call: &Call, request: &ProduceRequest) -> Step {
    let mut entries: BTreeMap<Target, Bytes> = BTreeMap::new();
    for topic in &request.topic_data {
        for partition in &topic.partition_data {
            // Null records: 4.3.1 never answers, and the connection stays open and dead.
            let Some(records) = &partition.records else {
                return Step::Hang;
            };
            // The same partition twice: one answer, the first entry vanishes.
            entries.insert(
                (topic.name.to_string(), topic.topic_id, partition.index),
                records.clone(),
            );
        }
    }
    let whole = whole_request_error(request, &entries);
    let mut failed = false;
    let mut required = Vec::new();
    let mut topics: Vec<TopicProduceResponse> = Vec::new();
    for ((name, id, index), records) in entries.into_iter().rev() {
        let known = if call.version >= 13 {
            cluster.name_of(id)
        } else {
            Some(name.clone())
        };
        let outcome = match (whole, known) {
            (Some(code), _) => Err(Refusal(code, String::new())),
            (None, None) => Err(Refusal(code::UNKNOWN_TOPIC_ID, String::new())),
            (None, Some(topic)) => append(cluster, call, request, (&topic, index), &records)
                .inspect(|done| {
                    required.push((topic.clone(), index, done.0.next_offset));
                }),
        };
        let row = answer(cluster, call, index, outcome);
        failed |= row.error_code != code::NONE;
        match topics
            .last_mut()
            .filter(|t| t.name.0.as_str() == name && t.topic_id == id)
        {
            Some(topic) => topic.partition_responses.push(row),
            None => topics.push(
                TopicProduceResponse::default()
                    .with_name(TopicName(StrBytes::from(name)))
                    .with_topic_id(id)
                    .with_partition_responses(vec![row]),
            ),
        }
    }
    let response = Box::new(ProduceResponse::default().with_responses(topics));
    match request.acks {
        0 if failed => Step::Close,
        0 => Step::Silent,
        -1 => {
            let until_ms = call
                .now_ms
                .saturating_add(i64::from(request.timeout_ms.max(0)));
            resume(cluster, call, response, required, until_ms, false)
        }
        _ => Step::from(*response),
    }
}

/// Errors that hit every partition of the request.
fn whole_request_error(request: &ProduceRequest, entries: &BTreeMap<Target, Bytes>) -> Option<i16> {
    if !matches!(request.acks, -1..=1) {
        return Some(code::INVALID_REQUIRED_ACKS);
    }
    if entries
        .values()
        .any(|records| frame(records) == Framing::Corrupt)
    {
        return Some(code::CORRUPT_MESSAGE);
    }
    let transactional = entries.values().any(claims_transaction);
    (transactional && request.transactional_id.is_none())
        .then_some(code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
}

/// Appends to one partition; answers also the error a fault rule wants reported in spite of it.
fn append(
    cluster: &mut Cluster,
    call: &Call,
    request: &ProduceRequest,
    (topic, index): (&str, i32),
    records: &Bytes,
) -> Result<(Appended, Option<i16>), Refusal> {
    let plain = |code| Refusal(code, String::new());
    if let Some(code) = call.forced(topic, index) {
        return Err(plain(code));
    }
    cluster
        .partition(topic, index)
        .and_then(|p| p.led_by(call.node))
        .map_err(plain)?;
    let Framing::One(batch) = frame(records) else {
        return Err(Refusal(
            code::INVALID_RECORD,
            "a produce request holds exactly one batch of format 2 per partition".to_owned(),
        ));
    };
    let header = BatchHeader::parse(&batch).map_err(|_| plain(code::INVALID_RECORD))?;
    if header.codec() == Some(Codec::Zstd) && call.version < 7 {
        return Err(plain(code::UNSUPPORTED_COMPRESSION_TYPE));
    }
    if header.has(TRANSACTIONAL)
        && let Some(tid) = &request.transactional_id
    {
        verify(cluster, call, tid, (topic, index), &header).map_err(plain)?;
    }
    let (settings, partition) = cluster
        .with_settings(topic, index)
        .ok_or_else(|| plain(code::UNKNOWN_TOPIC_OR_PARTITION))?;
    if request.acks == -1 && partition.under_min_isr {
        return Err(plain(code::NOT_ENOUGH_REPLICAS));
    }
    let epoch = partition.leader_epoch;
    let done = partition
        .log
        .append(&batch, &settings, epoch, call.now_ms)?;
    Ok((done, call.forced_after(topic, index)))
}

/// A transactional batch needs its partition in the transaction; from v12 on writing adds it.
fn verify(
    cluster: &mut Cluster,
    call: &Call,
    tid: &str,
    (topic, index): (&str, i32),
    header: &BatchHeader,
) -> Result<(), i16> {
    let stamp = Stamp {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
    };
    let partition = (topic.to_owned(), index);
    if call.version >= 12 {
        cluster
            .coordinator
            .add(tid, stamp, std::slice::from_ref(&partition), call.now_ms)?;
    }
    cluster
        .coordinator
        .verify(tid, stamp, &partition, call.now_ms)
}

fn answer(
    cluster: &Cluster,
    call: &Call,
    index: i32,
    outcome: Result<(Appended, Option<i16>), Refusal>,
) -> PartitionProduceResponse {
    let row = PartitionProduceResponse::default().with_index(index);
    match outcome {
        Ok((done, error)) => row
            .with_error_code(error.unwrap_or(code::NONE))
            .with_base_offset(if error.is_some() {
                -1
            } else {
                done.base_offset
            })
            .with_log_append_time_ms(done.append_time)
            .with_log_start_offset(done.log_start),
        Err(Refusal(code, message)) => {
            let shown = (call.version >= 8 && !message.is_empty()).then(|| StrBytes::from(message));
            let cluster = &cluster.config.cluster_id;
            tracing::debug!(code, index, node = call.node, %cluster, "batch refused");
            row.with_error_code(code)
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(-1)
                .with_error_message(shown)
        }
    }
}

/// Answers when every partition's high watermark has passed its batch; at the deadline with REQUEST_TIMED_OUT, which
/// carries the real base offset: the batch IS in the log.
pub(super) fn resume(
    cluster: &Cluster,
    call: &Call,
    mut response: Box<ProduceResponse>,
    required: Vec<(String, i32, i64)>,
    until_ms: i64,
    expired: bool,
) -> Step {
    let moved = |topic: &str, index| {
        cluster
            .partition(topic, index)
            .is_ok_and(|p| p.led_by(call.node).is_err())
    };
    let lagging = |(topic, index, next): &(String, i32, i64)| {
        let below = |p: &Partition| p.log.high_watermark() < *next;
        cluster.partition(topic, *index).is_ok_and(below)
    };
    let late: Vec<_> = required.iter().filter(|r| lagging(r)).cloned().collect();
    if late.is_empty() {
        return Step::from(*response);
    }
    // Another leader: the wait is over, and whether the batch survives is open.
    let waits = late.iter().any(|(topic, index, _)| !moved(topic, *index));
    if !expired && waits {
        return Step::Wait {
            pending: Pending::Produce { response, required },
            until_ms,
        };
    }
    for (topic, index, _) in late {
        let id = cluster.topic(&topic).map_or(Uuid::nil(), |t| t.id);
        let rows = response
            .responses
            .iter_mut()
            .filter(|t| t.name.0.as_str() == topic || (!id.is_nil() && t.topic_id == id))
            .flat_map(|t| t.partition_responses.iter_mut());
        for row in rows.filter(|row| row.index == index && row.error_code == code::NONE) {
            row.error_code = if moved(&topic, index) {
                code::NOT_LEADER_OR_FOLLOWER
            } else {
                code::REQUEST_TIMED_OUT
            };
        }
    }
    Step::from(*response)
}
