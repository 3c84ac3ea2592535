//! What a flow left out: how many source offsets for each reason, and of those that were lost, which.

use std::collections::BTreeMap;

use strait_wire::{GapReason, Losses, Position};

/// Sums by reason, and the ranges of what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    sums: BTreeMap<GapReason, i64>,
    lost: Losses,
}

impl LeftOut {
    /// What a persisted position says.
    pub fn restore(position: &Position) -> Self {
        Self {
            sums: position.gaps.iter().copied().collect(),
            lost: position.lost.clone(),
        }
    }

    /// Leaves out source offsets `[from, to)`.
    pub fn add(&mut self, reason: GapReason, from: i64, to: i64) {
        self.count(reason, to.saturating_sub(from));
        self.lost.add(reason, from, to);
    }

    /// Leaves out so many offsets among `[from, to)`; which of them is not known.
    pub fn add_among(&mut self, reason: GapReason, from: i64, to: i64, offsets: i64) {
        self.count(reason, offsets);
        self.lost.add_among(reason, from, to, offsets);
    }

    /// Leaves out so many offsets that were compacted away, or hold nothing else that is forwarded: between records,
    /// so that they make no range.
    pub fn compacted(&mut self, offsets: i64) {
        self.count(GapReason::Compacted, offsets);
    }

    /// Leaves out all that `other` does.
    pub fn add_all(&mut self, other: &Self) {
        for (&reason, &offsets) in &other.sums {
            self.count(reason, offsets);
        }
        self.lost.add_all(&other.lost);
    }

    /// Offsets by reason.
    pub fn sums(&self) -> Vec<(GapReason, i64)> {
        let pairs = self
            .sums
            .iter()
            .map(|(&reason, &offsets)| (reason, offsets));
        pairs.collect()
    }

    /// All offsets together.
    pub fn total(&self) -> i64 {
        self.sums
            .values()
            .fold(0, |sum: i64, offsets| sum.saturating_add(*offsets))
    }

    /// The ranges of what was lost.
    pub fn lost(&self) -> &Losses {
        &self.lost
    }

    fn count(&mut self, reason: GapReason, offsets: i64) {
        if offsets > 0 {
            let sum = self.sums.entry(reason).or_default();
            *sum = sum.saturating_add(offsets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::position;

    #[test]
    fn what_is_lost_is_counted_and_listed() {
        let mut left_out = LeftOut::restore(&position(vec![(GapReason::Expired, 5)]));
        left_out.add(GapReason::Control, 10, 11);
        left_out.add(GapReason::Expired, 11, 20);
        left_out.compacted(3);
        let mut more = LeftOut::default();
        more.add(GapReason::Expired, 20, 22);
        more.add(GapReason::Aborted, 22, 24);
        more.add_among(GapReason::Expired, 30, 40, 3);
        left_out.add_all(&more);
        let sums = [
            (GapReason::Control, 1),
            (GapReason::Aborted, 2),
            (GapReason::Compacted, 3),
            (GapReason::Expired, 19),
        ];
        assert_eq!((left_out.sums(), left_out.total()), (sums.to_vec(), 25));
        // The first five are of a position that knew no ranges.
        let listed: Vec<_> = left_out
            .lost()
            .ranges()
            .iter()
            .map(|range| (range.from, range.to, range.offsets))
            .collect();
        assert_eq!(listed, [(11, 22, 11), (30, 40, 3)]);
    }
}
