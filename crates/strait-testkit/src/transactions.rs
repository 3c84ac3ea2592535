//! The transaction coordinator: transactional ids, their producer ids and epochs, and the two-step end of a transaction.
//!
//! Transitions of Kafka's `TransactionCoordinator` and `TransactionMetadata`. What matters most to a client under test:
//! EndTxn is answered BEFORE the markers are written.

use std::collections::{BTreeMap, BTreeSet};

use crate::code;
use crate::log::Marker;

/// Highest epoch that may still be raised; the one above it is the last usable.
const EXHAUSTED: i16 = i16::MAX - 1;

/// State of a transactional id, as DescribeTransactions names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionPhase {
    /// No transaction yet.
    Empty,
    /// Partitions have been added.
    Ongoing,
    /// Commit decided, markers not all written.
    PrepareCommit,
    /// Abort decided, markers not all written.
    PrepareAbort,
    /// All commit markers written.
    CompleteCommit,
    /// All abort markers written.
    CompleteAbort,
}

impl TransactionPhase {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    fn completing(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// One transactional id.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) phase: TransactionPhase,
    pub(crate) partitions: BTreeSet<(String, i32)>,
    pub(crate) started_ms: i64,
    pub(crate) updated_ms: i64,
    /// Markers still to be written, each with the time of the next attempt.
    pub(crate) markers: BTreeMap<(String, i32), i64>,
    /// Producer id and epoch the markers carry.
    marker_stamp: (i64, i16),
    previous_producer_id: Option<i64>,
    /// The epoch before the last raise that its owner asked for; a repeated request is recognised by it.
    last_epoch: i16,
}

/// Producer id and epoch a client presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
}

/// How long markers wait: before the first, and from one to the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MarkerPace {
    pub(crate) delay_ms: i64,
    pub(crate) step_ms: i64,
}

/// All transactional ids of a cluster, and the source of producer ids.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    pub(crate) ids: BTreeMap<String, Transaction>,
    pub(crate) next_producer_id: i64,
    pub(crate) epoch: i32,
    pub(crate) expiration_ms: i64,
    pub(crate) max_timeout_ms: i32,
    pub(crate) pace: MarkerPace,
}

impl Coordinator {
    pub(crate) fn new_producer_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }

    /// Forgets transactional ids without an open transaction that the coordinator has not touched for long.
    pub(crate) fn expire(&mut self, now_ms: i64) {
        let limit = self.expiration_ms;
        self.ids.retain(|_, t| {
            t.phase == TransactionPhase::Ongoing
                || t.phase.completing()
                || now_ms.saturating_sub(t.updated_ms) < limit
        });
    }

    /// InitProducerId with a transactional id; `expected` is what the client believes to own (v3+).
    pub(crate) fn init(
        &mut self,
        tid: &str,
        timeout_ms: i32,
        expected: Option<Stamp>,
        now_ms: i64,
    ) -> Result<Stamp, i16> {
        if tid.is_empty() {
            return Err(code::INVALID_REQUEST);
        }
        if timeout_ms <= 0 || timeout_ms > self.max_timeout_ms {
            return Err(code::INVALID_TRANSACTION_TIMEOUT);
        }
        self.expire(now_ms);
        let pace = self.pace;
        let fresh_id = self.next_producer_id;
        let Some(txn) = self.ids.get_mut(tid) else {
            let producer_id = self.new_producer_id();
            self.ids.insert(
                tid.to_owned(),
                Transaction::new(producer_id, timeout_ms, now_ms),
            );
            return Ok(Stamp {
                producer_id,
                epoch: 0,
            });
        };
        if let Some(expected) = expected {
            let known = expected.producer_id == txn.producer_id
                || (Some(expected.producer_id) == txn.previous_producer_id
                    && expected.epoch >= EXHAUSTED);
            if !known {
                return Err(code::PRODUCER_FENCED);
            }
        }
        if txn.phase.completing() {
            return Err(code::CONCURRENT_TRANSACTIONS);
        }
        if txn.phase == TransactionPhase::Ongoing {
            // Whoever asks: the epoch of the client is looked at only where the epoch is raised below.
            txn.abort_with_fence(now_ms, pace);
            return Err(code::CONCURRENT_TRANSACTIONS);
        }
        if txn.epoch >= EXHAUSTED && expected.is_none_or(|e| e.epoch == txn.epoch) {
            txn.previous_producer_id = Some(txn.producer_id);
            txn.producer_id = fresh_id;
            txn.epoch = 0;
            txn.last_epoch = expected.map_or(-1, |e| e.epoch);
            self.next_producer_id += 1;
        } else {
            match expected {
                None => {
                    txn.last_epoch = -1;
                    txn.epoch += 1;
                }
                Some(e) if e.epoch == txn.epoch => {
                    txn.last_epoch = txn.epoch;
                    txn.epoch += 1;
                }
                // `TransactionMetadata.prepareIncrementProducerEpoch`: the answer to the first request was lost.
                Some(e) if e.epoch == txn.last_epoch => {}
                Some(_) => return Err(code::PRODUCER_FENCED),
            }
        }
        txn.phase = TransactionPhase::Empty;
        txn.partitions.clear();
        txn.timeout_ms = timeout_ms;
        txn.updated_ms = now_ms;
        Ok(Stamp {
            producer_id: txn.producer_id,
            epoch: txn.epoch,
        })
    }

    /// The transaction of `tid` if the client's stamp is the current one: 49, or 90 for a wrong epoch.
    fn owned(&mut self, tid: &str, stamp: Stamp, now_ms: i64) -> Result<&mut Transaction, i16> {
        self.expire(now_ms);
        let txn = self
            .ids
            .get_mut(tid)
            .ok_or(code::INVALID_PRODUCER_ID_MAPPING)?;
        if txn.producer_id != stamp.producer_id {
            Err(code::INVALID_PRODUCER_ID_MAPPING)
        } else if txn.epoch != stamp.epoch {
            Err(code::PRODUCER_FENCED)
        } else {
            Ok(txn)
        }
    }

    /// AddPartitionsToTxn for partitions that exist.
    pub(crate) fn add(
        &mut self,
        tid: &str,
        stamp: Stamp,
        partitions: &[(String, i32)],
        now_ms: i64,
    ) -> Result<(), i16> {
        let txn = self.owned(tid, stamp, now_ms)?;
        if txn.phase.completing() {
            return Err(code::CONCURRENT_TRANSACTIONS);
        }
        if txn.phase != TransactionPhase::Ongoing {
            txn.phase = TransactionPhase::Ongoing;
            txn.started_ms = now_ms;
            txn.partitions.clear();
        }
        txn.partitions.extend(partitions.iter().cloned());
        txn.updated_ms = now_ms;
        Ok(())
    }

    /// Whether a transactional batch may be written: the partition must be part of the open transaction.
    pub(crate) fn verify(
        &mut self,
        tid: &str,
        stamp: Stamp,
        partition: &(String, i32),
        now_ms: i64,
    ) -> Result<(), i16> {
        let txn = self.owned(tid, stamp, now_ms).map_err(|code| match code {
            code::PRODUCER_FENCED => code::INVALID_PRODUCER_EPOCH,
            other => other,
        })?;
        if txn.phase == TransactionPhase::Ongoing && txn.partitions.contains(partition) {
            Ok(())
        } else {
            Err(code::INVALID_TXN_STATE)
        }
    }

    /// EndTxn. `bump` is transaction version 2 (EndTxn v5): the marker and the answer carry the next epoch.
    pub(crate) fn end(
        &mut self,
        tid: &str,
        stamp: Stamp,
        commit: bool,
        bump: bool,
        now_ms: i64,
    ) -> Result<Stamp, i16> {
        let pace = self.pace;
        let fresh_id = self.next_producer_id;
        let txn = self.owned(tid, stamp, now_ms)?;
        let same = |phase| match phase {
            TransactionPhase::PrepareCommit | TransactionPhase::CompleteCommit => commit,
            _ => !commit,
        };
        match txn.phase {
            TransactionPhase::Ongoing => {}
            TransactionPhase::PrepareCommit | TransactionPhase::PrepareAbort => {
                let verdict = if same(txn.phase) {
                    code::CONCURRENT_TRANSACTIONS
                } else {
                    code::INVALID_TXN_STATE
                };
                return Err(verdict);
            }
            // Transaction version 2 may abort a transaction that has no partitions; it costs an epoch.
            _ if bump && !commit => {}
            TransactionPhase::CompleteCommit | TransactionPhase::CompleteAbort
                if same(txn.phase) && !bump =>
            {
                return Ok(stamp);
            }
            _ => return Err(code::INVALID_TXN_STATE),
        }
        let mut rotated = false;
        txn.marker_stamp = (txn.producer_id, txn.epoch);
        if bump {
            txn.marker_stamp.1 = txn.epoch.saturating_add(1);
            if txn.epoch >= EXHAUSTED {
                rotated = true;
                txn.previous_producer_id = Some(txn.producer_id);
                txn.producer_id = fresh_id;
                txn.epoch = 0;
            } else {
                txn.epoch += 1;
            }
        }
        txn.decide(commit, now_ms, pace);
        let answer = Stamp {
            producer_id: txn.producer_id,
            epoch: txn.epoch,
        };
        self.next_producer_id += i64::from(rotated);
        Ok(answer)
    }

    /// Aborts transactions that are older than their timeout (with a raised epoch, as a fence).
    pub(crate) fn time_out(&mut self, now_ms: i64) {
        let pace = self.pace;
        for txn in self.ids.values_mut() {
            if txn.phase == TransactionPhase::Ongoing && now_ms >= txn.times_out_at() {
                txn.abort_with_fence(now_ms, pace);
            }
        }
    }

    /// The next marker due at or before `now_ms`, earliest first.
    pub(crate) fn due_marker(&self, now_ms: i64) -> Option<(String, (String, i32), i64, Marker)> {
        let all = self.ids.iter().flat_map(|(tid, txn)| {
            txn.markers
                .iter()
                .map(move |(partition, due)| (*due, tid, partition, txn))
        });
        let (due, tid, partition, txn) = all
            .filter(|(due, ..)| *due <= now_ms)
            .min_by_key(|(due, ..)| *due)?;
        let marker = Marker {
            producer_id: txn.marker_stamp.0,
            epoch: txn.marker_stamp.1,
            coordinator_epoch: self.epoch,
            commit: txn.phase == TransactionPhase::PrepareCommit,
        };
        Some((tid.clone(), partition.clone(), due, marker))
    }

    /// The earliest time at which the coordinator has something to do.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let markers = self.ids.values().flat_map(|t| t.markers.values().copied());
        let timeouts = self
            .ids
            .values()
            .filter(|t| t.phase == TransactionPhase::Ongoing)
            .map(Transaction::times_out_at);
        markers.chain(timeouts).min()
    }

    /// A marker was written or is given up; the last one completes the transaction.
    pub(crate) fn marker_done(&mut self, tid: &str, partition: &(String, i32), now_ms: i64) {
        if let Some(txn) = self.ids.get_mut(tid) {
            txn.markers.remove(partition);
            txn.complete_if_done(now_ms);
        }
    }

    /// All markers of a transactional id are due now.
    pub(crate) fn hurry(&mut self, tid: &str, now_ms: i64) {
        if let Some(txn) = self.ids.get_mut(tid) {
            txn.markers.values_mut().for_each(|due| *due = now_ms);
        }
    }

    /// A marker could not be written: the next attempt is at `at_ms`.
    pub(crate) fn marker_later(&mut self, tid: &str, partition: &(String, i32), at_ms: i64) {
        if let Some(due) = self
            .ids
            .get_mut(tid)
            .and_then(|t| t.markers.get_mut(partition))
        {
            *due = at_ms;
        }
    }
}

impl Transaction {
    fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer_id,
            epoch: 0,
            timeout_ms,
            phase: TransactionPhase::Empty,
            partitions: BTreeSet::new(),
            started_ms: -1,
            updated_ms: now_ms,
            markers: BTreeMap::new(),
            marker_stamp: (producer_id, 0),
            previous_producer_id: None,
            last_epoch: -1,
        }
    }

    fn times_out_at(&self) -> i64 {
        self.started_ms.saturating_add(i64::from(self.timeout_ms))
    }

    fn abort_with_fence(&mut self, now_ms: i64, pace: MarkerPace) {
        self.epoch = self.epoch.saturating_add(1);
        self.last_epoch = -1;
        self.marker_stamp = (self.producer_id, self.epoch);
        self.decide(false, now_ms, pace);
    }

    fn decide(&mut self, commit: bool, now_ms: i64, pace: MarkerPace) {
        self.phase = if commit {
            TransactionPhase::PrepareCommit
        } else {
            TransactionPhase::PrepareAbort
        };
        self.updated_ms = now_ms;
        let mut due = now_ms + pace.delay_ms;
        for partition in std::mem::take(&mut self.partitions) {
            self.markers.insert(partition, due);
            due += pace.step_ms;
        }
        self.complete_if_done(now_ms);
    }

    fn complete_if_done(&mut self, now_ms: i64) {
        if !self.markers.is_empty() {
            return;
        }
        self.phase = match self.phase {
            TransactionPhase::PrepareCommit => TransactionPhase::CompleteCommit,
            TransactionPhase::PrepareAbort => TransactionPhase::CompleteAbort,
            other => other,
        };
        self.updated_ms = now_ms;
    }
}
