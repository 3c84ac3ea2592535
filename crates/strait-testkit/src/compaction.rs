//! The log cleaner: keeps the last record of each key and never renumbers.
//!
//! A cleaned batch keeps baseOffset, lastOffsetDelta, producer id, epoch and baseSequence; only records and count go.
//! Deviation: a real cleaner leaves the whole active segment alone; here everything but the partition's last batch
//! counts as closed, so that a test need not fill segments.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::log::{Log, StoredBatch};
use crate::records::{
    APPEND_TIME, BatchHeader, BatchSpec, CONTROL, DELETE_HORIZON, KitRecord, TRANSACTIONAL,
};
use crate::topic_config::LogSettings;

/// Cleans one partition's log as one pass of the cleaner does.
pub(crate) fn compact(log: &mut Log, settings: &LogSettings, now_ms: i64) {
    let stable = log.last_stable();
    let last = log.batches.len().saturating_sub(1);
    let cleanable =
        |index: usize, batch: &StoredBatch| index < last && batch.header.last_offset() < stable;
    let newest = newest_per_key(log, &cleanable);
    let mut kept = Vec::with_capacity(log.batches.len());
    for (index, batch) in log.batches.iter().enumerate() {
        if !cleanable(index, batch) {
            kept.push(batch.clone());
        } else if let Some(batch) = clean(log, batch, &newest, settings, now_ms) {
            kept.push(batch);
        }
    }
    log.batches = kept;
}

fn newest_per_key(
    log: &Log,
    cleanable: &dyn Fn(usize, &StoredBatch) -> bool,
) -> BTreeMap<Bytes, i64> {
    let mut newest = BTreeMap::new();
    for (index, batch) in log.batches.iter().enumerate() {
        if !cleanable(index, batch) || batch.header.has(CONTROL) || is_aborted(log, &batch.header) {
            continue;
        }
        for record in batch.records().unwrap_or_default() {
            if let Some(key) = record.key {
                newest.insert(key, record.offset);
            }
        }
    }
    newest
}

fn is_aborted(log: &Log, header: &BatchHeader) -> bool {
    header.has(TRANSACTIONAL)
        && !header.has(CONTROL)
        && log.ended_by(header).is_some_and(|t| !t.committed)
}

/// The batch after cleaning, nothing if it vanishes.
fn clean(
    log: &Log,
    batch: &StoredBatch,
    newest: &BTreeMap<Bytes, i64>,
    settings: &LogSettings,
    now_ms: i64,
) -> Option<StoredBatch> {
    let header = &batch.header;
    let horizon = header.has(DELETE_HORIZON).then_some(header.base_timestamp);
    let past_horizon = horizon.is_some_and(|h| h < now_ms);
    let records = batch.records().unwrap_or_default();
    let total = records.len();
    let aborted = is_aborted(log, header);
    let data_left = || {
        log.batches.iter().any(|b| {
            b.header.producer_id == header.producer_id
                && b.header.base_offset < header.base_offset
                && !b.header.has(CONTROL)
                && b.header.count > 0
        })
    };
    let keep = |record: &KitRecord| {
        if header.has(CONTROL) {
            return !past_horizon || data_left();
        }
        let Some(key) = &record.key else { return false };
        !aborted
            && newest
                .get(key)
                .is_none_or(|offset| *offset == record.offset)
            && !(record.value.is_none() && past_horizon)
    };
    let records: Vec<_> = records.into_iter().filter(keep).collect();
    let first_pass =
        horizon.is_none() && (header.has(CONTROL) || records.iter().any(|r| r.value.is_none()));
    let horizon = if first_pass {
        Some(now_ms.saturating_add(settings.delete_retention_ms))
    } else {
        horizon
    };
    if records.is_empty() {
        // An empty batch keeps the sequence of a producer that is still known.
        return log
            .producers
            .holds_last_of(header)
            .then(|| rewritten(batch, &[], None))?;
    }
    if records.len() == total && !first_pass {
        return Some(batch.clone());
    }
    rewritten(batch, &records, horizon)
}

fn rewritten(
    batch: &StoredBatch,
    records: &[KitRecord],
    horizon: Option<i64>,
) -> Option<StoredBatch> {
    let header = &batch.header;
    let mut flags = header.attributes & (APPEND_TIME | TRANSACTIONAL | CONTROL);
    if horizon.is_some() {
        flags |= DELETE_HORIZON;
    }
    let keep_max = records.is_empty() || header.has(APPEND_TIME);
    let spec = BatchSpec {
        base_offset: header.base_offset,
        leader_epoch: header.leader_epoch,
        codec: if records.is_empty() {
            crate::codec::Codec::None
        } else {
            header.codec()?
        },
        flags,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        last_offset_delta: Some(header.last_offset_delta),
        base_timestamp: horizon,
        max_timestamp: keep_max.then_some(header.max_timestamp),
        count: None,
    };
    let bytes = spec.build_at(records).ok()?;
    Some(StoredBatch {
        header: BatchHeader::parse(&bytes).ok()?,
        bytes,
        segment: batch.segment,
        legacy: Vec::new(),
    })
}
