//! The log of one partition: stored batches, segments, offsets that bound it, producers, transactions.

use bytes::Bytes;

use crate::code;
use crate::codec::Codec;
use crate::epochs::Epochs;
use crate::legacy::Format;
use crate::producers::{Admission, EndedTransaction, Producers};
use crate::records::{
    BatchHeader, BatchSpec, CONTROL, KitRecord, RecordsError, TRANSACTIONAL, decode,
    marker_commits, marker_record,
};
use crate::topic_config::LogSettings;
use crate::validate::{Placement, Refusal, accept};

/// One batch as it lies in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its header.
    pub header: BatchHeader,
    /// The whole batch, header included, as a Fetch returns it.
    pub bytes: Bytes,
    /// Number of the segment it lies in, rising.
    pub segment: u64,
    /// The records of a message set older than record batches; the header is made up then.
    pub(crate) legacy: Vec<KitRecord>,
}

impl StoredBatch {
    /// The batch's records with absolute offsets and effective timestamps.
    ///
    /// # Errors
    /// None for batches a broker has stored, except those with inner offsets the broker did not check.
    pub fn records(&self) -> Result<Vec<KitRecord>, RecordsError> {
        if self.header.magic < 2 {
            return Ok(self.legacy.clone());
        }
        decode(&self.bytes)
    }

    /// Whether the batch is a transaction marker, and if so whether it commits.
    #[must_use]
    pub fn marker(&self) -> Option<bool> {
        marker_commits(&self.bytes)
    }
}

/// What an append answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    pub(crate) next_offset: i64,
    pub(crate) append_time: i64,
    pub(crate) log_start: i64,
}

/// A transaction marker to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) commit: bool,
}

/// One partition's log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) batches: Vec<StoredBatch>,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// The high watermark stands still here while a test holds it.
    pub(crate) held_watermark: Option<i64>,
    pub(crate) epochs: Epochs,
    pub(crate) producers: Producers,
    pub(crate) ended: Vec<EndedTransaction>,
    segment: u64,
    segment_size: i64,
    segment_first_timestamp: Option<i64>,
}

impl Log {
    pub(crate) fn high_watermark(&self) -> i64 {
        self.held_watermark
            .map_or(self.end, |held| held.clamp(self.start, self.end))
    }

    /// First offset that is not yet stable, bounded by the high watermark.
    pub(crate) fn last_stable(&self) -> i64 {
        let watermark = self.high_watermark();
        let unreplicated = self
            .ended
            .iter()
            .filter(|t| t.marker_offset >= watermark)
            .map(|t| t.first_offset)
            .min();
        let open = self.producers.first_open();
        open.into_iter()
            .chain(unreplicated)
            .min()
            .unwrap_or(watermark)
            .clamp(self.start, watermark)
    }

    /// Appends one client batch, or recognises it.
    pub(crate) fn append(
        &mut self,
        batch: &Bytes,
        settings: &LogSettings,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Appended, Refusal> {
        let place = Placement {
            base_offset: self.end,
            leader_epoch,
            now_ms,
        };
        let stored = accept(batch, settings, place)?;
        let header = BatchHeader::parse(&stored)
            .map_err(|e| Refusal(code::INVALID_RECORD, e.to_string()))?;
        if header.producer_id >= 0 {
            match self.producers.admit(&header) {
                Ok(Admission::New) => {}
                Ok(Admission::Duplicate(known)) => {
                    return Ok(Appended {
                        base_offset: known.base_offset,
                        next_offset: known.last_offset + 1,
                        append_time: if settings.append_time {
                            known.timestamp
                        } else {
                            -1
                        },
                        log_start: self.start,
                    });
                }
                Err(code) => {
                    let pid = header.producer_id;
                    return Err(Refusal(
                        code,
                        format!("producer {pid}: sequence or epoch out of order"),
                    ));
                }
            }
        }
        self.push(header, stored, settings, now_ms);
        self.producers.record(&header);
        Ok(Appended {
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            append_time: if settings.append_time {
                header.max_timestamp
            } else {
                -1
            },
            log_start: self.start,
        })
    }

    /// Appends a transaction marker (one control batch, one offset, 78 bytes).
    pub(crate) fn append_marker(
        &mut self,
        marker: Marker,
        settings: &LogSettings,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<i64, i16> {
        self.producers
            .admit_marker(marker.producer_id, marker.epoch, marker.coordinator_epoch)?;
        let spec = BatchSpec {
            base_offset: self.end,
            leader_epoch,
            flags: TRANSACTIONAL | CONTROL,
            producer_id: marker.producer_id,
            producer_epoch: marker.epoch,
            ..BatchSpec::default()
        };
        let record = marker_record(marker.commit, marker.coordinator_epoch, now_ms);
        let bytes = spec
            .build(&[record])
            .map_err(|_| code::UNKNOWN_SERVER_ERROR)?;
        let header = BatchHeader::parse(&bytes).map_err(|_| code::UNKNOWN_SERVER_ERROR)?;
        self.push(header, bytes, settings, now_ms);
        let ended = self
            .producers
            .record_marker(&header, marker.coordinator_epoch, marker.commit);
        self.ended.extend(ended);
        Ok(header.base_offset)
    }

    fn push(&mut self, header: BatchHeader, bytes: Bytes, settings: &LogSettings, now_ms: i64) {
        let size = bytes.len() as i64;
        // `LogSegment.shouldRoll`: by size, or because this batch is segment.ms younger than the segment's first.
        let too_large = self.segment_size > 0 && self.segment_size + size > settings.segment_bytes;
        let first = self.segment_first_timestamp.unwrap_or(now_ms);
        let too_old = self.segment_size > 0
            && header.max_timestamp.saturating_sub(first) > settings.segment_ms;
        if too_large || too_old {
            self.roll();
        }
        self.segment_size += size;
        self.segment_first_timestamp
            .get_or_insert(header.max_timestamp);
        self.end = header.next_offset();
        self.batches.push(StoredBatch {
            header,
            bytes,
            segment: self.segment,
            legacy: Vec::new(),
        });
    }

    /// Appends records in a format older than record batches; answers the first offset.
    pub(crate) fn append_legacy(
        &mut self,
        format: Format,
        codec: Codec,
        records: &[KitRecord],
        settings: &LogSettings,
        now_ms: i64,
    ) -> Result<i64, RecordsError> {
        let base = self.end;
        for (header, bytes, records) in format.sets(codec, base, records)? {
            self.push(header, bytes, settings, now_ms);
            if let Some(stored) = self.batches.last_mut() {
                stored.legacy = records;
            }
        }
        Ok(base)
    }

    /// Closes the active segment.
    pub(crate) fn roll(&mut self) {
        self.segment += 1;
        self.segment_size = 0;
        self.segment_first_timestamp = None;
    }

    /// Moves the log start up; batches wholly below it are gone.
    pub(crate) fn move_start(&mut self, start: i64) {
        if start <= self.start {
            return;
        }
        self.start = start;
        self.batches.retain(|b| b.header.last_offset() >= start);
        self.ended.retain(|t| t.marker_offset >= start);
        self.epochs.start_moved(start);
        self.producers.log_start_moved(start);
    }

    /// Deletes by age and size, as the periodic retention check does.
    pub(crate) fn retain(&mut self, settings: &LogSettings, now_ms: i64) {
        if !settings.deleted {
            return;
        }
        loop {
            let Some(oldest) = self.batches.first().map(|b| b.segment) else {
                return;
            };
            let segment = || self.batches.iter().filter(move |b| b.segment == oldest);
            let newest_time = segment()
                .map(|b| b.header.max_timestamp)
                .max()
                .unwrap_or(i64::MAX);
            let size: i64 = segment().map(|b| b.bytes.len() as i64).sum();
            let next = segment()
                .last()
                .map_or(self.start, |b| b.header.next_offset());
            let total: i64 = self.batches.iter().map(|b| b.bytes.len() as i64).sum();
            let aged = settings.retention_ms >= 0
                && now_ms.saturating_sub(newest_time) > settings.retention_ms;
            let crowded = settings.retention_bytes >= 0
                && oldest != self.segment
                && total - size >= settings.retention_bytes;
            if !(aged || crowded) || next > self.high_watermark() {
                return;
            }
            if oldest == self.segment {
                // The active segment is rolled first, so that an aged log is emptied altogether.
                self.roll();
            }
            self.move_start(next);
        }
    }

    /// Cuts the log back to `end`; producer state and transactions are rebuilt from what is left.
    pub(crate) fn truncate(&mut self, end: i64) {
        if end >= self.end {
            return;
        }
        self.batches.retain(|b| b.header.last_offset() < end);
        self.end = end.max(self.start);
        self.epochs.truncate(self.end);
        self.ended.clear();
        self.producers.clear();
        for batch in &self.batches {
            match marker_commits(&batch.bytes) {
                Some(commit) => {
                    let epoch = coordinator_epoch(&batch.bytes);
                    let ended = self.producers.record_marker(&batch.header, epoch, commit);
                    self.ended.extend(ended);
                }
                None => self.producers.record(&batch.header),
            }
        }
    }

    /// Transactions aborted in `from..to`, as the transaction index answers them.
    pub(crate) fn aborted(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        self.ended
            .iter()
            .filter(|t| !t.committed && t.marker_offset >= from && t.first_offset < to)
            .map(|t| (t.producer_id, t.first_offset))
            .collect()
    }

    /// The transaction that a transactional data batch belongs to, if it has ended.
    pub(crate) fn ended_by(&self, batch: &BatchHeader) -> Option<&EndedTransaction> {
        // Sorted by marker: the first one after the batch, of its producer, is the one that ended it.
        let after = self
            .ended
            .partition_point(|t| t.marker_offset <= batch.base_offset);
        let mut later = self.ended.iter().skip(after);
        later
            .find(|t| t.producer_id == batch.producer_id)
            .filter(|t| t.first_offset <= batch.base_offset)
    }

    /// Index of the first batch that holds or follows `offset`.
    pub(crate) fn find(&self, offset: i64) -> usize {
        self.batches
            .partition_point(|b| b.header.last_offset() < offset)
    }

    /// The batch bytes for a fetch at `offset`: whole batches below `limit`, of one segment, the last one cut at
    /// `max_bytes` unless `whole_first` asks for at least one batch.
    pub(crate) fn read(
        &self,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        whole_first: bool,
    ) -> Bytes {
        let mut out = Vec::new();
        let from = self.find(offset);
        let segment = self.batches.get(from).map(|b| b.segment);
        for batch in self.batches.iter().skip(from) {
            if batch.header.base_offset >= limit || Some(batch.segment) != segment {
                break;
            }
            let room = max_bytes.saturating_sub(out.len());
            if out.is_empty() && whole_first {
                out.extend_from_slice(&batch.bytes);
            } else if out.is_empty() && batch.bytes.len() > room {
                // An incomplete first batch is replaced by nothing (Fetch v3+).
                break;
            } else {
                out.extend_from_slice(batch.bytes.get(..room).unwrap_or(&batch.bytes));
            }
            if out.len() >= max_bytes {
                break;
            }
        }
        Bytes::from(out)
    }

    /// First record at or after time `timestamp` below `limit`: (timestamp, offset).
    pub(crate) fn find_time(&self, timestamp: i64, limit: i64) -> Option<(i64, i64)> {
        let late_enough = self
            .batches
            .iter()
            .filter(|b| b.header.max_timestamp >= timestamp);
        for batch in late_enough {
            let records = batch.records().unwrap_or_default();
            let hit = records
                .iter()
                .find(|r| r.timestamp >= timestamp && r.offset >= self.start && r.offset < limit);
            if let Some(record) = hit {
                return Some((record.timestamp, record.offset));
            }
        }
        None
    }

    /// The largest timestamp and the first offset that has it.
    pub(crate) fn max_time(&self) -> Option<(i64, i64)> {
        let all = self
            .batches
            .iter()
            .flat_map(|b| b.records().unwrap_or_default());
        all.fold(None, |best: Option<(i64, i64)>, r| match best {
            Some((time, _)) if time >= r.timestamp => best,
            _ => Some((r.timestamp, r.offset)),
        })
    }
}

/// The coordinator epoch a marker carries in its value.
fn coordinator_epoch(batch: &[u8]) -> i32 {
    let records = decode(batch).unwrap_or_default();
    let value = records
        .first()
        .and_then(|r| r.value.clone())
        .unwrap_or_default();
    value
        .get(2..6)
        .and_then(|b| b.try_into().ok())
        .map_or(-1, i32::from_be_bytes)
}
