//! Match: the place to go on found by content, where a walk proves nothing.
//!
//! A pure machine, fed with the source's records in order (positions.md in the book, "Match").

use strait_wire::{Batch, Position, Record};

/// Finds the position by content: embeds the source's records in what the target holds of this flow.
#[derive(Debug)]
pub struct Match {
    target: Vec<u128>,
    at: usize,
    next: i64,
    epoch: i32,
    matched: i64,
    /// Where in `target` the first was found.
    begun: Option<usize>,
    timeless: bool,
    done: bool,
}

impl Match {
    /// A match of the source from offset `from` against the target's records, as hashes in order.
    pub fn new(target: Vec<u128>, from: i64) -> Self {
        let done = target.is_empty();
        Self {
            target,
            at: 0,
            next: from,
            epoch: -1,
            matched: 0,
            begun: None,
            timeless: false,
            done,
        }
    }

    /// A match against a target that stamps records itself (LogAppendTime): `target` was hashed by [`timeless`].
    /// Without their times different records look alike, so none of the target's is passed over.
    #[must_use]
    pub fn without_times(mut self) -> Self {
        self.timeless = true;
        self
    }

    /// Whether a source record was found that the target does not hold.
    pub fn done(&self) -> bool {
        self.done
    }

    /// The source offset to go on at.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The leader epoch before [`next`](Self::next), -1 when it is not known.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Source records found in the target.
    pub fn matched(&self) -> i64 {
        self.matched
    }

    /// Records of the target behind the last one that was found.
    pub fn left(&self) -> usize {
        self.target.len() - self.at
    }

    /// Of those [`left`](Self::left) the ones that no other copy was found of: their source records are repeated, where they
    /// have any.
    pub(crate) fn strange(mut self) -> usize {
        if self.timeless {
            return self.left();
        }
        let (before, left) = self.target.split_at_mut(self.at);
        before.sort_unstable();
        let strange = left.iter().filter(|h| before.binary_search(h).is_err());
        strange.count()
    }

    /// The same match, from here on against other source records: those of another isolation.
    pub(crate) fn again(&mut self) {
        self.done = self.left() == 0;
    }

    /// Whether what was found are the last of the target's records, without one missing: the source begins in the middle
    /// of what was forwarded. One record that looks like another proves nothing.
    pub fn overlaps(&self) -> bool {
        self.begun.is_some_and(|begun| {
            self.at == self.target.len() && self.matched as usize == self.at - begun
        })
    }

    /// Takes the next source record; returns true once it is the first that was not forwarded.
    /// After compaction or truncation the target holds a superset of what the source still has, so
    /// target records without a counterpart are passed over.
    pub fn feed(&mut self, record: &Record, source_epoch: i32) -> bool {
        if self.done {
            return true;
        }
        let rest = &self.target[self.at..];
        let found = if self.timeless {
            (rest.first() == Some(&timeless(record))).then_some(0)
        } else {
            let hash = record.hash();
            rest.iter().position(|&h| h == hash)
        };
        match found {
            Some(passed) => {
                self.begun.get_or_insert(self.at + passed);
                self.at += passed + 1;
                self.next = record.offset + 1;
                self.epoch = source_epoch;
                self.matched += 1;
            }
            None => {
                // Over a hole the position takes the epoch behind it, as over any gap: with the older one it
                // would look like a truncated source where the epoch rose inside the hole.
                if record.offset > self.next {
                    self.epoch = source_epoch;
                }
                self.next = record.offset;
                self.done = true;
            }
        }
        self.done
    }
}

/// A record's hash without its timestamp.
pub fn timeless(record: &Record) -> u128 {
    Record {
        timestamp: 0,
        ..record.clone()
    }
    .hash()
}

/// Whether a batch of the target belongs to the session of `sync` and lies behind it.
pub fn of_session(sync: &Position, batch: &Batch) -> bool {
    !batch.header.attributes.control()
        && batch.header.base_offset >= sync.target_next
        && (batch.header.producer_id, batch.header.producer_epoch)
            == (sync.producer_id, sync.producer_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    #[test]
    fn one_record_that_looks_like_another_is_no_overlap() {
        let records = sample(0, 4).batch().decode(1 << 20).unwrap();
        let hashes: Vec<u128> = records.iter().map(Record::hash).collect();
        let mut forwarded = Match::new(hashes.clone(), 2);
        assert!(!forwarded.overlaps());
        for (at, record) in records.iter().enumerate().skip(2) {
            forwarded.feed(record, 1);
            assert_eq!(forwarded.overlaps(), at == 3, "{at}");
        }
        // Found in the middle, and the next one nowhere.
        let mut alike = Match::new(hashes, 9);
        alike.feed(&records[1], 1);
        let other = sample(50, 1).batch().decode(1 << 20).unwrap();
        alike.feed(&other[0], 1);
        assert!(alike.matched() == 1 && !alike.overlaps());
    }

    #[test]
    fn a_match_that_ends_behind_a_hole_takes_the_epoch_there() {
        let target = sample(0, 2).batch().decode(1 << 20).unwrap();
        let target = target.iter().map(Record::hash).collect::<Vec<_>>();
        for (unmatched, epoch) in [(2, 4), (5, 6)] {
            let mut matching = Match::new(target.clone(), 0);
            for record in sample(0, 2).batch().decode(1 << 20).unwrap() {
                assert!(!matching.feed(&record, 4));
            }
            let behind = sample(unmatched, 1).batch().decode(1 << 20).unwrap();
            assert!(matching.feed(&behind[0], 6));
            assert_eq!((matching.next(), matching.epoch()), (unmatched, epoch));
        }
    }

    #[test]
    fn a_match_finds_the_first_record_that_was_not_forwarded() {
        let records = |offsets: &[i64]| -> Vec<Record> {
            let sampled = sample(offsets[0], 20).holding(offsets);
            sampled.decode(1 << 20).unwrap()
        };
        let target: Vec<u128> = records(&[0, 1, 2, 3, 4]).iter().map(Record::hash).collect();
        // (what the source has left, S', matched)
        for (left, next, matched) in [
            (vec![0, 1, 2, 3, 4, 5], 5, 5),
            // Cleaned: the target holds a superset.
            (vec![1, 4, 7], 7, 2),
            (vec![4, 5], 5, 1),
            // Nothing behind what was forwarded.
            (vec![0, 1, 2], 3, 3),
            // Nothing of it is left.
            (vec![9], 9, 0),
        ] {
            let mut matching = Match::new(target.clone(), 0);
            for record in records(&left) {
                if matching.feed(&record, 2) {
                    break;
                }
            }
            assert_eq!(
                (matching.next(), matching.matched()),
                (next, matched),
                "{left:?}"
            );
        }
    }

    #[test]
    fn a_target_that_stamps_records_is_matched_without_times_and_without_passing_over() {
        let mut target = sample(0, 5).batch().decode(1 << 20).unwrap();
        for record in &mut target {
            record.timestamp += 1_000_000;
        }
        let target: Vec<u128> = target.iter().map(timeless).collect();
        let source = sample(0, 8).batch().decode(1 << 20).unwrap();
        // (the source's records in order, S', matched)
        for (left, next, matched) in [(&source[..], 5, 5), (&source[1..], 1, 0)] {
            let mut matching = Match::new(target.clone(), 0).without_times();
            assert!(left.iter().any(|record| matching.feed(record, 2)));
            assert_eq!((matching.next(), matching.matched()), (next, matched));
        }
    }
}
