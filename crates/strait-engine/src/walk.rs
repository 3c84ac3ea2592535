//! Walk: as many records along the source as a scan of the target counted.
//!
//! A pure machine, fed with the source's items in order (positions.md in the book, "Walk").

use strait_wire::{GapReason, Position};

use crate::left_out::LeftOut;
use crate::stitch::Item;

/// Moves along the source over as many records as the scan counted.
#[derive(Debug)]
pub struct Walk {
    next: i64,
    epoch: i32,
    left: i64,
    left_out: LeftOut,
    doubtful: bool,
}

impl Walk {
    /// A walk over `records` from the sync's source offset. `compacted`: the source's policy contains
    /// `compact`, so that only dense, contiguous batches prove anything.
    pub fn new(sync: &Position, records: i64) -> Self {
        Self {
            next: sync.source_next,
            epoch: sync.source_epoch,
            left: records,
            left_out: LeftOut::default(),
            // Without an epoch to hold on to, a truncation behind the sync would go unnoticed.
            doubtful: records > 0 && sync.source_epoch < 0,
        }
    }

    /// Whether every record has been found.
    pub fn done(&self) -> bool {
        self.left == 0
    }

    /// Whether the walk proves nothing: the source may have lost or cleaned records since, so the
    /// position has to be found by content.
    pub fn doubtful(&self) -> bool {
        self.doubtful
    }

    /// The source offset to go on at.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Records that were not found yet.
    pub fn left(&self) -> i64 {
        self.left
    }

    /// The leader epoch of the last record walked over.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// What was left out on the way.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Takes the next item of the source; returns true when done.
    pub fn feed(&mut self, item: &Item) -> bool {
        if self.done() || self.doubtful {
            return true;
        }
        match item {
            // What was forwarded may have stood here.
            Item::Gap {
                reason: GapReason::Compacted | GapReason::Unexplained,
                ..
            } => self.doubtful = true,
            Item::Gap {
                reason, from, to, ..
            } => {
                self.left_out.add(*reason, *from, *to);
                self.next = *to;
            }
            Item::Batch(outgoing) => {
                let count = i64::from(outgoing.count());
                let dense = outgoing.last - outgoing.first + 1 == count;
                // A higher epoch may hide a truncation of what was forwarded.
                if !dense || (self.epoch >= 0 && outgoing.source_epoch > self.epoch) {
                    self.doubtful = true;
                    return true;
                }
                self.epoch = outgoing.source_epoch;
                let taken = count.min(self.left);
                self.left -= taken;
                self.next = outgoing.first + taken;
            }
        }
        self.done() || self.doubtful
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{position, sample};

    fn sync() -> Position {
        position(Vec::new())
    }

    fn gap(reason: GapReason, from: i64, to: i64) -> Item {
        Item::Gap {
            reason,
            from,
            to,
            source_epoch: 2,
        }
    }

    fn forward(base: i64, count: i64, epoch: i32) -> Item {
        Item::Batch(sample(base, count).epoch(epoch).outgoing())
    }

    #[test]
    fn a_walk_ends_behind_the_last_record() {
        let source = [
            forward(1_000, 10, 2),
            gap(GapReason::Control, 1_010, 1_011),
            gap(GapReason::Aborted, 1_011, 1_015),
            forward(1_015, 10, 2),
            gap(GapReason::Control, 1_025, 1_026),
        ];
        // (records, S', offsets left out)
        for (records, next, left_out) in [
            (0, 1_000, 0),
            (4, 1_004, 0),
            (10, 1_010, 0),
            (11, 1_016, 5),
            (20, 1_025, 5),
        ] {
            let mut walk = Walk::new(&sync(), records);
            for item in &source {
                if walk.feed(item) {
                    break;
                }
            }
            let gaps = walk.left_out().total();
            assert_eq!((walk.done(), walk.next(), gaps), (true, next, left_out));
            assert_eq!(walk.next() - 1_000, records + gaps);
        }
    }

    #[test]
    fn a_walk_over_a_changed_source_proves_nothing() {
        let hole = Item::Batch(crate::stitch::Outgoing {
            last: 1_015,
            ..sample(1_000, 10).epoch(2).outgoing()
        });
        let table = [
            vec![forward(1_000, 10, 3)],
            vec![hole],
            vec![
                gap(GapReason::Compacted, 1_000, 1_004),
                forward(1_004, 10, 2),
            ],
            vec![
                gap(GapReason::Unexplained, 1_000, 1_004),
                forward(1_004, 10, 2),
            ],
        ];
        for source in table {
            let mut walk = Walk::new(&sync(), 10);
            for item in &source {
                walk.feed(item);
            }
            assert!(walk.doubtful() && !walk.done(), "{source:?}");
        }
    }
}
