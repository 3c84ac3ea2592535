//! Which batches of a Fetch response a reader of committed records may see.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::batch::{Batch, BatchHeader, ControlType};

/// One entry of a Fetch response's `aborted_transactions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbortedTxn {
    /// The producer whose transaction was aborted.
    pub producer_id: i64,
    /// The transaction's first offset in the partition.
    pub first_offset: i64,
}

/// What a Fetch request asks to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset, without aborted transactions.
    #[default]
    ReadCommitted,
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Data the reader asked for.
    Forward,
    /// A marker or another control batch: never forwarded.
    Control,
    /// Data of an aborted transaction.
    Aborted,
    /// Compaction left no record in it.
    Empty,
}

/// Judges the batches of one partition in one Fetch response, in their order. The response's own list of
/// aborted transactions is all it needs, so ranges read in parallel do not depend on each other.
///
/// The rule is that of the consumer's `CompletedFetch`, with one difference. There only a marker that reads
/// ABORT ends a producer's aborted transaction; here every marker of that producer does. A producer has at most
/// one open transaction in a partition and any marker ends it, so the first one behind an aborted transaction's
/// start is its end, also when compaction emptied it or it cannot be read.
#[derive(Clone, Debug)]
pub struct Judge {
    isolation: Isolation,
    /// Not yet begun; the lowest first offset last.
    pending: Vec<AbortedTxn>,
    /// Producers inside an aborted transaction.
    active: HashSet<i64>,
}

impl Judge {
    /// A judge at the front of a response that lists `aborted`, in any order.
    pub fn new(aborted: &[AbortedTxn], isolation: Isolation) -> Self {
        let mut pending = match isolation {
            Isolation::ReadCommitted => aborted.to_vec(),
            Isolation::ReadUncommitted => Vec::new(),
        };
        pending.sort_unstable_by_key(|txn| Reverse(txn.first_offset));
        Self {
            isolation,
            pending,
            active: HashSet::new(),
        }
    }

    /// The verdict on the next batch, whose header is `header`. Under [`Isolation::ReadUncommitted`] it is never
    /// [`Verdict::Aborted`].
    pub fn judge(&mut self, header: &BatchHeader, batch: &Batch) -> Verdict {
        let committed = self.isolation == Isolation::ReadCommitted;
        let producer = header.producer_id;
        if committed && producer >= 0 {
            let last = header.last_offset();
            while let Some(txn) = self.pending.pop_if(|txn| txn.first_offset <= last) {
                self.active.insert(txn.producer_id);
            }
        }
        if header.attributes.control() {
            // Only of another type is it no marker; those of brokers have no producer anyway.
            if self.active.contains(&producer)
                && !matches!(batch.control_type(), Some(ControlType::Other(_)))
            {
                self.active.remove(&producer);
            }
            Verdict::Control
        } else if header.count == 0 {
            Verdict::Empty
        } else if committed && header.attributes.transactional() && self.active.contains(&producer)
        {
            Verdict::Aborted
        } else {
            Verdict::Forward
        }
    }
}
