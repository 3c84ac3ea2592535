//! Producer state of one partition: sequences, epochs, open transactions.
//!
//! Rules of Kafka's `ProducerAppendInfo`, `ProducerStateEntry` and `ProducerStateManager`, as verified on 3.9 and 4.3:
//! the last five batches are known duplicates (only the last one after a restart), an unknown producer may begin at any
//! sequence, a new epoch begins at 0, and an entry expires by the timestamp of its LAST batch.

use std::collections::{BTreeMap, VecDeque};

use crate::code;
use crate::records::{BatchHeader, CONTROL, TRANSACTIONAL, add_sequence};

/// Batches per producer that are remembered for deduplication.
pub const REMEMBERED_BATCHES: usize = 5;

/// One remembered batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedBatch {
    /// First sequence.
    pub first_sequence: i32,
    /// Last sequence.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The batch's largest timestamp.
    pub timestamp: i64,
}

/// What a partition knows about one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    /// Newest epoch seen here.
    pub epoch: i16,
    /// Remembered batches, oldest first, all of the newest epoch.
    pub batches: VecDeque<RememberedBatch>,
    /// Timestamp that decides expiry: that of the last batch or marker.
    pub last_timestamp: i64,
    /// Newest coordinator epoch that wrote a marker, -1 before the first.
    pub coordinator_epoch: i32,
    /// First offset of the open transaction, if one is open here.
    pub open_transaction: Option<i64>,
}

impl ProducerEntry {
    /// Sequence of the last record, -1 if none is known in this epoch.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |b| b.last_sequence)
    }
}

/// A batch that has been appended before, as the producer state knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// To be appended.
    New,
    /// A resend: answered with the original offset.
    Duplicate(RememberedBatch),
}

/// A transaction whose marker has been written to the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedTransaction {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    pub(crate) marker_offset: i64,
    pub(crate) committed: bool,
}

/// All producers of one partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Producers {
    entries: BTreeMap<i64, ProducerEntry>,
}

impl Producers {
    pub(crate) fn entries(&self) -> &BTreeMap<i64, ProducerEntry> {
        &self.entries
    }

    /// Judges a client's data batch with a producer id, before it is appended.
    pub(crate) fn admit(&self, batch: &BatchHeader) -> Result<Admission, i16> {
        let Some(entry) = self.entries.get(&batch.producer_id) else {
            return Ok(Admission::New);
        };
        if batch.producer_epoch == entry.epoch
            && let Some(known) = entry.batches.iter().find(|b| {
                b.first_sequence == batch.base_sequence && b.last_sequence == batch.last_sequence()
            })
        {
            return Ok(Admission::Duplicate(*known));
        }
        if batch.producer_epoch < entry.epoch {
            return Err(code::INVALID_PRODUCER_EPOCH);
        }
        let in_order = if batch.producer_epoch == entry.epoch {
            // NO_PRODUCER_EPOCH: an entry without an epoch accepts any sequence.
            entry.epoch == -1 || batch.base_sequence == next_sequence(entry.last_sequence())
        } else {
            batch.base_sequence == 0 || entry.epoch == -1
        };
        if !in_order {
            return Err(code::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        if entry.open_transaction.is_some() && !batch.has(TRANSACTIONAL) {
            return Err(code::INVALID_TXN_STATE);
        }
        Ok(Admission::New)
    }

    /// Judges a transaction marker. Lower producer epoch 47, lower coordinator epoch 52.
    pub(crate) fn admit_marker(&self, pid: i64, epoch: i16, coordinator: i32) -> Result<(), i16> {
        match self.entries.get(&pid) {
            Some(entry) if epoch < entry.epoch => Err(code::INVALID_PRODUCER_EPOCH),
            Some(entry) if coordinator < entry.coordinator_epoch => {
                Err(code::TRANSACTION_COORDINATOR_FENCED)
            }
            _ => Ok(()),
        }
    }

    /// Takes a stored data batch into account.
    pub(crate) fn record(&mut self, batch: &BatchHeader) {
        if batch.producer_id < 0 || batch.has(CONTROL) {
            return;
        }
        let entry = self.entry(batch.producer_id, batch.producer_epoch);
        entry.last_timestamp = batch.max_timestamp;
        entry.batches.push_back(RememberedBatch {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            last_offset: batch.last_offset(),
            timestamp: batch.max_timestamp,
        });
        while entry.batches.len() > REMEMBERED_BATCHES {
            entry.batches.pop_front();
        }
        if batch.has(TRANSACTIONAL) && entry.open_transaction.is_none() {
            entry.open_transaction = Some(batch.base_offset);
        }
    }

    /// Takes a stored marker into account; answers the transaction it ended, if data of it lie here.
    pub(crate) fn record_marker(
        &mut self,
        marker: &BatchHeader,
        coordinator: i32,
        committed: bool,
    ) -> Option<EndedTransaction> {
        let entry = self.entry(marker.producer_id, marker.producer_epoch);
        entry.last_timestamp = marker.max_timestamp;
        entry.coordinator_epoch = coordinator;
        let first_offset = entry.open_transaction.take()?;
        Some(EndedTransaction {
            producer_id: marker.producer_id,
            first_offset,
            marker_offset: marker.base_offset,
            committed,
        })
    }

    /// The entry of a producer, with the remembered batches of an older epoch forgotten.
    fn entry(&mut self, pid: i64, epoch: i16) -> &mut ProducerEntry {
        let entry = self.entries.entry(pid).or_insert_with(|| ProducerEntry {
            epoch,
            batches: VecDeque::new(),
            last_timestamp: -1,
            coordinator_epoch: -1,
            open_transaction: None,
        });
        if entry.epoch != epoch {
            entry.epoch = epoch;
            entry.batches.clear();
        }
        entry
    }

    /// Forgets producers whose last batch's timestamp is `expiration_ms` old, unless a transaction is open.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.entries.retain(|_, e| {
            e.open_transaction.is_some() || now_ms.saturating_sub(e.last_timestamp) < expiration_ms
        });
    }

    /// What a restart leaves: the last batch of each producer that has not expired.
    pub(crate) fn reload(&mut self, now_ms: i64, expiration_ms: i64) {
        self.expire(now_ms, expiration_ms);
        for entry in self.entries.values_mut() {
            while entry.batches.len() > 1 {
                entry.batches.pop_front();
            }
        }
    }

    /// Forgets everybody (before a rebuild from the log, or because a test says so).
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// First offset of the oldest open transaction.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.entries
            .values()
            .filter_map(|e| e.open_transaction)
            .min()
    }

    /// Transactions that lie wholly below the new log start have nothing left to hold back.
    pub(crate) fn log_start_moved(&mut self, log_start: i64) {
        for entry in self.entries.values_mut() {
            if entry
                .open_transaction
                .is_some_and(|first| first < log_start)
                && entry
                    .batches
                    .back()
                    .is_none_or(|b| b.last_offset < log_start)
            {
                entry.open_transaction = None;
            }
        }
    }

    /// Last sequence of each producer's newest epoch: the cleaner keeps the batch that holds it.
    pub(crate) fn holds_last_of(&self, batch: &BatchHeader) -> bool {
        self.entries.get(&batch.producer_id).is_some_and(|e| {
            e.batches
                .back()
                .is_some_and(|last| last.last_offset == batch.last_offset())
        })
    }
}

fn next_sequence(last: i32) -> i32 {
    if last < 0 { 0 } else { add_sequence(last, 1) }
}
