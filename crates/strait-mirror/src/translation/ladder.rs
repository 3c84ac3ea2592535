//! The positions a flow has passed, and what they tell about offsets: the arithmetic of translation.
//!
//! T(C), the translation of a source offset C, is the target offset of the first forwarded record at or above C. It may
//! point at control batches right before that record: a consumer does not see them.

use std::collections::BTreeMap;

use strait_wire::MAX_RUNGS;

/// One position of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rung {
    /// S: every source offset below it is accounted for.
    pub(crate) source: i64,
    /// T: where the record after them goes on the target, or what markers stand before it.
    pub(crate) target: i64,
    /// F: records forwarded.
    pub(crate) forwarded: i64,
}

/// What a ladder knows about a source offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// T(C).
    Exact(i64),
    /// C lies beyond what is mirrored: the end.
    Ahead(i64),
    /// T(C) lies between two rungs, and has to be counted.
    Between(Interval),
    /// C lies below what is known.
    Unknown,
}

/// Two rungs of one history, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) below: Rung,
    pub(crate) above: Rung,
}

impl Interval {
    /// Records that were forwarded in it.
    pub(crate) fn forwarded(&self) -> i64 {
        self.above.forwarded - self.below.forwarded
    }

    /// Target offsets in it that are no records: control batches.
    pub(crate) fn markers(&self) -> i64 {
        self.above.target - self.below.target - self.forwarded()
    }

    /// Every source offset is a record, and every target offset too.
    fn dense(&self) -> bool {
        let source = self.above.source - self.below.source;
        source == self.forwarded() && self.markers() == 0
    }

    /// Records that were certainly forwarded below `offset`: those above are no more than their offsets.
    pub(crate) fn at_least(&self, offset: i64) -> i64 {
        (self.forwarded() - (self.above.source - offset)).max(0)
    }

    /// Where `records` records of it end, as far as that is known without looking: exactly without control batches.
    pub(crate) fn place(&self, records: i64) -> (i64, bool) {
        let records = records.clamp(0, self.forwarded().max(0));
        if records == self.forwarded() && self.markers() >= 0 {
            return (self.above.target, true);
        }
        let exact = records == 0 || self.markers() == 0;
        (self.below.target + records, exact)
    }
}

/// A place between the rungs that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    target: i64,
    forwarded: i64,
    /// The round in which somebody wanted it last.
    wanted: u64,
}

/// The positions of one flow since its history last broke off: the first one, and of the others the fewer the older, 64 at
/// the most; and places between them that were counted, by source offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ladder {
    rungs: Vec<Rung>,
    counted: BTreeMap<i64, Counted>,
}

impl Ladder {
    /// The positions, oldest first.
    pub(crate) fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// Nothing was forwarded before the first position, and something stands before it all the same: it was taken over,
    /// unless those are markers.
    pub(crate) fn took_over(&self) -> bool {
        let first = self.rungs.first();
        first.is_some_and(|r| r.forwarded == 0 && r.source > 0 && r.target > 0)
    }

    /// A history that begins with this position.
    pub(crate) fn restart(&mut self, rung: Rung) {
        self.counted.clear();
        self.rungs.clear();
        self.rungs.push(rung);
    }

    /// The flow's next position. Whether it can follow the last one: what goes back is another history.
    pub(crate) fn push(&mut self, rung: Rung) -> bool {
        let Some(&last) = self.rungs.last() else {
            self.rungs.push(rung);
            return true;
        };
        if rung.source < last.source
            || rung.forwarded < last.forwarded
            || rung.target - last.target < rung.forwarded - last.forwarded
            || rung.source - last.source < rung.forwarded - last.forwarded
        {
            return false;
        }
        if rung == last {
            return true;
        }
        let interval = |below, above| Interval { below, above };
        if let [.., before, last] = self.rungs.as_slice()
            && interval(*before, *last).dense()
            && interval(*last, rung).dense()
        {
            self.rungs.pop();
        }
        self.rungs.push(rung);
        if self.rungs.len() > MAX_RUNGS {
            thin(&mut self.rungs);
        }
        true
    }

    /// A place between the rungs that was counted exactly in this `round`. `most` are kept, and those given up that nobody
    /// has wanted for the longest: what a commit stands on is not counted again.
    pub(crate) fn add_counted(&mut self, rung: Rung, round: u64, most: usize) {
        let counted = Counted {
            target: rung.target,
            forwarded: rung.forwarded,
            wanted: round,
        };
        self.counted.insert(rung.source, counted);
        while self.counted.len() > most.max(1) {
            let oldest = self.counted.iter().min_by_key(|(_, c)| c.wanted);
            let Some(source) = oldest.map(|(source, _)| *source) else {
                return;
            };
            self.counted.remove(&source);
        }
    }

    /// Places that were counted.
    pub(crate) fn counted(&self) -> usize {
        self.counted.len()
    }

    /// Somebody wants this offset in this `round`.
    pub(crate) fn want(&mut self, offset: i64, round: u64) {
        if let Some(counted) = self.counted.get_mut(&offset) {
            counted.wanted = round;
        }
    }

    /// What is known about a source offset without reading.
    pub(crate) fn find(&self, offset: i64) -> Found {
        let (Some(first), Some(last)) = (self.rungs.first(), self.rungs.last()) else {
            return Found::Unknown;
        };
        if offset > last.source {
            return Found::Ahead(last.target);
        }
        if offset < first.source {
            // Where the flow began: nothing was forwarded before.
            return match first.forwarded {
                0 => Found::Exact(first.target),
                _ => Found::Unknown,
            };
        }
        let counted = |(source, c): (&i64, &Counted)| Rung {
            source: *source,
            target: c.target,
            forwarded: c.forwarded,
        };
        let at = self.rungs.partition_point(|r| r.source <= offset);
        let (rungs_below, rungs_above) = self.rungs.split_at(at);
        let below = self.counted.range(..=offset).next_back().map(counted);
        let below = rungs_below.last().copied().into_iter().chain(below);
        let above = self
            .counted
            .range(offset.saturating_add(1)..)
            .next()
            .map(counted);
        let above = rungs_above.first().copied().into_iter().chain(above);
        let key = |r: &Rung| (r.source, r.target);
        let (Some(below), above) = (below.max_by_key(key), above.min_by_key(key)) else {
            return Found::Unknown;
        };
        if below.source == offset {
            return Found::Exact(below.target);
        }
        let Some(above) = above else {
            return Found::Unknown;
        };
        let interval = Interval { below, above };
        if interval.forwarded() == 0 {
            return Found::Exact(above.target);
        }
        if interval.dense() {
            return Found::Exact(below.target + (offset - below.source));
        }
        Found::Between(interval)
    }
}

/// Gives up the rung that is missed least: the one between neighbours that lie close together, seen from the end.
pub(crate) fn thin(rungs: &mut Vec<Rung>) {
    let Some(end) = rungs.last().map(|r| r.source) else {
        return;
    };
    let width = |from: i64, to: i64| to.saturating_sub(from).max(1) as f64;
    let closeness = |three: &[Rung]| match three {
        [a, _, c] => width(a.source, c.source) / width(a.source, end),
        _ => f64::INFINITY,
    };
    let least = rungs
        .windows(3)
        .enumerate()
        .min_by(|(_, a), (_, b)| closeness(a).total_cmp(&closeness(b)));
    if let Some((index, _)) = least {
        rungs.remove(index + 1);
    }
}

/// What was written for a group's partition the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The group's offset on the source.
    pub(crate) upstream: i64,
    /// What it was translated to.
    pub(crate) downstream: i64,
    /// What Strait had committed on the target before, as far as is known.
    pub(crate) own: Option<i64>,
    /// The translated offset was about to be committed, and what became of that is not known.
    pub(crate) open: bool,
}

impl Written {
    /// Strait's last commit, as far as is known.
    pub(crate) fn last_own(&self) -> Option<i64> {
        if self.open {
            Some(self.downstream)
        } else {
            self.own
        }
    }

    /// Whether a commit of the translated offset is Strait's own: one of the same value that somebody else made cannot be told
    /// from it.
    fn is_own(&self, committed: i64) -> bool {
        committed == self.downstream && (self.open || self.own == Some(committed))
    }
}

/// What becomes of a commit on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// It stands where it should, or must not be moved.
    Stay,
    /// It is set to the translated offset: forward, for the first time, or back into the log.
    Forward,
    /// It follows the group on the source back.
    Rewind,
}

/// Whether a commit on the target is moved to `wanted`, the translation of `upstream`: forward always; back only where the
/// target's commit is Strait's own as far as what was `written` tells, and the group went back on the source or `wanted` is known to be `exact`
/// (records that a commit counted are lost on the target); or where it lies beyond the `end` of the target's log (given where
/// `wanted` lies below the commit).
pub(crate) fn direction(
    committed: Option<i64>,
    (wanted, exact): (i64, bool),
    upstream: i64,
    written: Option<Written>,
    end: Option<i64>,
) -> Direction {
    let Some(committed) = committed else {
        return Direction::Forward;
    };
    if wanted > committed || end.is_some_and(|end| committed > end) {
        return if wanted == committed {
            Direction::Stay
        } else {
            Direction::Forward
        };
    }
    let Some(written) = written else {
        return Direction::Stay;
    };
    let may = |since: bool| exact || since;
    let went_back = written.is_own(committed) && may(upstream < written.upstream);
    // Written down, but not committed: the process ended in between, or the group was active.
    let unfinished = written.own == Some(committed)
        && written.downstream < committed
        && may(upstream <= written.upstream);
    if wanted < committed && (went_back || unfinished) {
        Direction::Rewind
    } else {
        Direction::Stay
    }
}

#[cfg(test)]
#[path = "ladder_test.rs"]
mod tests;
