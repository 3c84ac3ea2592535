//! Where compaction has taken records since they were mirrored, counting what is left tells too little: records that stand on
//! both sides tell more.
//!
//! A record that each side has exactly once between two known positions is the same one: compaction keeps the last of those
//! that are alike, on either side. Between two such records the offsets themselves bound how many records lie below an offset.

use std::collections::BTreeMap;

use strait_engine::tally::Contents;

use crate::translation::ladder::Interval;

/// Records that stand on both sides.
#[derive(Debug)]
pub(crate) struct Alike<'a> {
    interval: Interval,
    target: &'a Contents,
    /// What the source's batches tell of its offsets, and the target's of its own.
    nothing: Ranges<'a>,
    were: Ranges<'a>,
    were_there: Ranges<'a>,
    /// Source and target offset of each, in order; the two ends of the interval around them.
    pairs: Vec<(i64, i64)>,
    /// Before which pair was looked last, what stands open there, and how much of it was records.
    open: (usize, Vec<i64>, i64),
}

/// Ranges in order, with how many offsets lie in those before each: there may be very many of them, and of questions.
#[derive(Debug)]
struct Ranges<'a> {
    ranges: &'a [(i64, i64)],
    before: Vec<i64>,
    all: i64,
}

impl<'a> Ranges<'a> {
    fn new(ranges: &'a [(i64, i64)]) -> Self {
        let mut all = 0;
        let before = ranges.iter().map(|(from, to)| {
            let before = all;
            all += (to - from).max(0);
            before
        });
        let before = before.collect();
        Self {
            ranges,
            before,
            all,
        }
    }

    /// Offsets in them below this one.
    fn below(&self, offset: i64) -> i64 {
        let at = self.ranges.partition_point(|(_, to)| *to <= offset);
        match (self.ranges.get(at), self.before.get(at)) {
            (Some((from, _)), Some(before)) => before + (offset - from).max(0),
            _ => self.all,
        }
    }

    /// Offsets in them from `from` to below `to`.
    fn between(&self, from: i64, to: i64) -> i64 {
        (self.below(to) - self.below(from)).max(0)
    }
}

impl<'a> Alike<'a> {
    /// Compares both sides of an interval; what the source's batches tell of records that are gone has to be true of what was
    /// forwarded. Nothing where they contradict each other, or the target has records that are not the link's.
    pub(crate) fn new(
        interval: &Interval,
        source: &'a Contents,
        target: &'a Contents,
    ) -> Option<Self> {
        // The offset of a hash, unless there are several.
        let once = |records: &[(i64, u128)]| {
            let mut found: BTreeMap<u128, Option<i64>> = BTreeMap::new();
            for &(offset, hash) in records {
                found
                    .entry(hash)
                    .and_modify(|o| *o = None)
                    .or_insert(Some(offset));
            }
            found
        };
        let there = once(&target.records);
        let (below, above) = (interval.below, interval.above);
        let mut pairs = vec![(below.source - 1, below.target - 1)];
        let here = once(&source.records);
        for (offset, hash) in &source.records {
            let single = here.get(hash).copied().flatten().is_some();
            if let (true, Some(Some(at))) = (single, there.get(hash)) {
                pairs.push((*offset, *at));
            }
        }
        pairs.push((above.source, above.target));
        let in_order = pairs.windows(2).all(|two| match two {
            [a, b] => a.0 < b.0 && a.1 < b.1,
            _ => false,
        });
        let were_there = Ranges::new(&target.were);
        let there = were_there.between(below.target, above.target);
        (in_order && there <= interval.forwarded()).then_some(Self {
            interval: *interval,
            target,
            nothing: Ranges::new(&source.nothing),
            were: Ranges::new(&source.were),
            were_there,
            pairs,
            open: (0, Vec::new(), 0),
        })
    }

    /// The target offset of an offset in the interval, and whether a consumer finds exactly what it has not read there;
    /// else no less than this can be known.
    pub(crate) fn place(&mut self, cut: i64) -> Option<(i64, bool)> {
        let at = self.pairs.partition_point(|(source, _)| *source < cut);
        let (before, after) = (*self.pairs.get(at.checked_sub(1)?)?, *self.pairs.get(at)?);
        let records = between(&self.target.records, before.1 + 1, after.1);
        if after.0 == cut || records.is_empty() {
            return Some((after.1, true));
        }
        // Offsets that may be, or have been, forwarded records; of the source those below the cut and those from it on.
        if self.open.0 != at {
            let (from, to) = (before.1 + 1, after.1);
            let here = self.were_there.between(from, to);
            self.open = (at, self.open_places(from, to), here);
        }
        let (_, open, here) = &self.open;
        let here = *here;
        let may = |from: i64, to: i64| to - from - self.nothing.between(from, to);
        let are = |from: i64, to: i64| self.were.between(from, to);
        let certain = open.len() as i64 == here;
        let least = (here - may(cut, after.0)).max(are(before.0 + 1, cut));
        let most = (open.len() as i64 - are(cut, after.0)).min(may(before.0 + 1, cut));
        let place = |n: i64| {
            let n = usize::try_from(n).unwrap_or(0);
            open.get(n).copied().unwrap_or(after.1)
        };
        let found = place(least);
        if least > most {
            return None;
        }
        let last = if certain { place(most) } else { after.1 };
        let exact = between(&self.target.records, found, last).is_empty();
        Some((if exact { last } else { found }, exact))
    }

    /// Offsets of the target from `from` to below `to` that are not known to be none.
    fn open_places(&self, from: i64, to: i64) -> Vec<i64> {
        let nothing = &self.target.nothing;
        let is_none = |offset: &i64| {
            let at = nothing.partition_point(|(_, end)| *end <= *offset);
            nothing.get(at).is_some_and(|(begin, _)| begin <= offset)
        };
        // No more than there were forwarded records: what lies beyond are markers of another kind.
        let most = usize::try_from(self.interval.forwarded()).unwrap_or(0) + 1;
        (from..to).filter(|o| !is_none(o)).take(most).collect()
    }
}

/// Those with offsets from `from` to below `to`.
fn between(records: &[(i64, u128)], from: i64, to: i64) -> &[(i64, u128)] {
    let begin = records.partition_point(|(offset, _)| *offset < from);
    let end = records.partition_point(|(offset, _)| *offset < to);
    records.get(begin..end.max(begin)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translation::ladder::Rung;

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    /// Keys that have a later record lose the earlier ones, up to an offset.
    fn compact(records: &mut Vec<(i64, u128)>, key: fn(u128) -> u128, to: i64) {
        let mut last = BTreeMap::new();
        for (offset, hash) in records.iter().filter(|(offset, _)| *offset < to) {
            last.insert(key(*hash), *offset);
        }
        records.retain(|(offset, hash)| last.get(&key(*hash)).is_none_or(|l| l <= offset));
    }

    /// The next record goes into the last batch, where that `may` be, or into one of its own.
    fn batch(batches: &mut Vec<(i64, i64)>, offset: i64, may: bool) {
        match batches.last_mut() {
            Some((_, end)) if may && *end == offset => *end += 1,
            _ => batches.push((offset, offset + 1)),
        }
    }

    /// Batches without records are not left.
    fn left(mut batches: Vec<(i64, i64)>, records: &[(i64, u128)]) -> Vec<(i64, i64)> {
        batches.retain(|(from, to)| !between(records, *from, *to).is_empty());
        batches
    }

    #[test]
    fn offsets_in_ranges_are_counted() {
        let all = [(3, 5), (5, 6), (9, 9), (10, 14)];
        let ranges = Ranges::new(&all);
        let inside = |offset: &i64| all.iter().any(|(a, b)| (*a..*b).contains(offset));
        for from in 0..16 {
            for to in from..16 {
                let expected = (from..to).filter(inside).count() as i64;
                assert_eq!(ranges.between(from, to), expected, "{from} to {to}");
            }
        }
        assert_eq!(Ranges::new(&[]).between(0, 9), 0);
    }

    /// Random histories with transactions, fences, records that look alike, compaction on the source and on the target.
    #[test]
    fn nothing_is_skipped_and_what_is_called_exact_is() {
        let (mut exact, mut asked) = (0, 0);
        for seed in 1..400_u64 {
            let random = &mut Random(seed * 0x9E37_79B9);
            let key = |hash: u128| hash % 13;
            let (mut source, mut target) = (Contents::default(), Contents::default());
            // For each source offset how many records were forwarded below it, and where each stands.
            let (mut below, mut places, mut to) = (Vec::new(), Vec::new(), 1_000);
            let (mut here, mut there) = (Vec::new(), Vec::new());
            let length = 100 + random.below(300) as i64;
            let transactions = seed % 3 != 0;
            for offset in 0..length {
                below.push(places.len());
                match random.below(10) {
                    0 if transactions => source.nothing.push((offset, offset + 1)),
                    // A marker that the source has compacted away.
                    1 if transactions => {}
                    _ => {
                        if random.below(40) == 0 {
                            target.nothing.push((to, to + 1));
                            to += 1;
                        }
                        let hash =
                            u128::from(random.below(if seed % 5 == 0 { 30 } else { 100_000 }));
                        source.records.push((offset, hash));
                        target.records.push((to, hash));
                        batch(&mut here, offset, random.below(6) > 0);
                        batch(&mut there, to, random.below(9) > 0);
                        places.push(to);
                        to += 1;
                    }
                }
            }
            below.push(places.len());
            let rung = |source, target, forwarded| Rung {
                source,
                target,
                forwarded,
            };
            let interval = Interval {
                below: rung(0, 1_000, 0),
                above: rung(length, to, places.len() as i64),
            };
            compact(
                &mut source.records,
                key,
                random.below(length as u64 + 50) as i64,
            );
            if seed % 2 == 0 {
                let until = 1_000 + random.below(length as u64) as i64;
                compact(&mut target.records, key, until);
                target.nothing.retain(|(from, _)| from % 2 == 0);
            }
            source.were = left(here, &source.records);
            target.were = left(there, &target.records);
            let mut alike = Alike::new(&interval, &source, &target).unwrap();
            for cut in 0..=length {
                let first = places.get(below[cut as usize]).copied().unwrap_or(to);
                let (found, sure) = alike.place(cut).unwrap();
                asked += 1;
                let truth = between(&target.records, first, i64::MAX).first();
                let read = between(&target.records, found, i64::MAX).first();
                if sure {
                    exact += 1;
                    assert_eq!(read, truth, "seed {seed} at {cut}");
                } else {
                    let skips = read.map(|r| r.0).unwrap_or(to) > truth.map(|r| r.0).unwrap_or(to);
                    assert!(!skips, "seed {seed} at {cut}: {found} {first}");
                }
            }
        }
        assert!(exact * 2 > asked, "{exact} of {asked}");
    }

    #[test]
    fn sides_that_contradict_each_other_tell_nothing() {
        let rung = |source, target, forwarded| Rung {
            source,
            target,
            forwarded,
        };
        let interval = Interval {
            below: rung(0, 0, 0),
            above: rung(10, 10, 8),
        };
        let of = |records: &[(i64, u128)]| Contents {
            records: records.to_vec(),
            ..Contents::default()
        };
        let (source, target) = (of(&[(1, 7), (4, 9)]), of(&[(1, 9), (3, 7)]));
        assert!(Alike::new(&interval, &source, &target).is_none());
        // Records of others stand on the target as well.
        let source = of(&[(1, 7), (4, 9)]);
        let mut target = of(&[(1, 7), (3, 9)]);
        target.were = vec![(0, 8)];
        assert!(Alike::new(&interval, &source, &target).is_some());
        target.were = vec![(0, 4), (5, 10)];
        assert!(Alike::new(&interval, &source, &target).is_none());
    }
}
