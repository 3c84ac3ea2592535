//! What a flow has asked its source for: the head first, and ranges beyond it over a far line.
//!
//! Over a distance a connection brings a fixed number of bytes per round trip, so one partition is read over several
//! connections at once, each at another offset. Where a range ends is a guess; only the stitch decides what joins
//! (positions.md in the book, "In a session"): an answer counts only from a head that lies at or behind the offset it was
//! asked at.

use std::collections::VecDeque;

use strait_wire::FetchedPartition;

/// Offsets are asked for a little before their expected place: what overlaps is dropped, what is missing costs a
/// round trip.
const CAUTION: f64 = 0.97;
/// The weight of the newest answer in the estimate.
const NEWEST: f64 = 0.3;
/// Bytes asked for at least when a hole between two ranges is closed.
const HOLE_BYTES: i32 = 64 * 1024;

/// One fetch to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Names the range in [`Ranges::arrived`]: the id that was offered.
    pub id: u64,
    /// The offset to fetch.
    pub from: i64,
    /// The leader epoch before it; -1 beyond the head, where it is not known.
    pub last_epoch: i32,
    /// Bytes wanted.
    pub max_bytes: i32,
}

/// An answer whose turn has come.
#[derive(Debug)]
pub struct Arrived {
    /// The offset it was asked at.
    pub from: i64,
    /// What came.
    pub fetched: FetchedPartition,
    /// The fetch carried the last epoch and a version that checks it.
    pub proven: bool,
}

#[derive(Debug)]
struct Range {
    id: u64,
    from: i64,
    /// Where the next range begins, as far as can be guessed.
    to: i64,
    proves: bool,
    answer: Option<(FetchedPartition, bool)>,
}

/// The ranges of one flow, in the order of their offsets.
#[derive(Debug, Default)]
pub struct Ranges {
    ranges: VecDeque<Range>,
    /// Bytes per offset, as learned from answers.
    density: Option<f64>,
}

impl Ranges {
    /// The next fetch for a flow whose head is `head`, in a log that is known to reach to `end`: at the head
    /// where nobody fetches it, else behind the last range while there are fewer than `depth`. `id` must be new.
    pub fn ask(
        &mut self,
        id: u64,
        head: i64,
        epoch: i32,
        end: i64,
        depth: usize,
        max_bytes: i32,
    ) -> Option<Ask> {
        let front = self.ranges.front().map(|range| range.from);
        if front.is_none_or(|from| from > head) {
            let bytes = match (front, self.density) {
                (Some(from), Some(density)) => hole_bytes(from - head, density, max_bytes),
                _ => max_bytes,
            };
            let to = front.unwrap_or_else(|| self.guess(head, bytes));
            self.ranges.push_front(Range {
                id,
                from: head,
                to,
                proves: true,
                answer: None,
            });
            return Some(Ask {
                id,
                from: head,
                last_epoch: epoch,
                max_bytes: bytes,
            });
        }
        let last = self.ranges.back()?;
        if self.ranges.len() >= depth || self.density.is_none() || last.to >= end {
            return None;
        }
        let from = last.to.max(last.from + 1);
        let to = self.guess(from, max_bytes);
        self.ranges.push_back(Range {
            id,
            from,
            to,
            proves: false,
            answer: None,
        });
        Some(Ask {
            id,
            from,
            last_epoch: -1,
            max_bytes,
        })
    }

    /// Whether [`ask`](Self::ask) would ask for something.
    pub fn wants(&self, head: i64, end: i64, depth: usize) -> bool {
        match (self.ranges.front(), self.ranges.back()) {
            (Some(front), Some(last)) if front.from <= head => {
                self.ranges.len() < depth && self.density.is_some() && last.to < end
            }
            _ => true,
        }
    }

    /// Takes an answer; `proving` is whether its version checks the last epoch. Returns whether it was still
    /// waited for.
    pub fn arrived(&mut self, id: u64, fetched: FetchedPartition, proving: bool) -> bool {
        match self.ranges.iter_mut().find(|range| range.id == id) {
            Some(range) => {
                let proven = proving && range.proves;
                range.answer = Some((fetched, proven));
                true
            }
            None => false,
        }
    }

    /// Where a range that is still waited for was asked at.
    pub fn asked_at(&self, id: u64) -> Option<i64> {
        self.ranges.iter().find(|r| r.id == id).map(|r| r.from)
    }

    /// A fetch brought nothing that can be used: its range is asked for again when the head reaches it.
    pub fn failed(&mut self, id: u64) {
        self.ranges.retain(|range| range.id != id);
    }

    /// The answer that continues at `head`, if it is there.
    pub fn take(&mut self, head: i64) -> Option<Arrived> {
        let front = self.ranges.front()?;
        if front.from > head || front.answer.is_none() {
            return None;
        }
        let range = self.ranges.pop_front()?;
        let (fetched, proven) = range.answer?;
        Some(Arrived {
            from: range.from,
            fetched,
            proven,
        })
    }

    /// Gives back an answer of which a part was admitted: it is taken again, at `head`, before anything is asked for.
    pub fn put_back(&mut self, head: i64, fetched: FetchedPartition, proven: bool) {
        let to = self.ranges.front().map_or(head + 1, |next| next.from);
        self.ranges.push_front(Range {
            // No fetch has it: they count from 1.
            id: 0,
            from: head,
            to: to.max(head + 1),
            proves: proven,
            answer: Some((fetched, proven)),
        });
    }

    /// What an answer of `bytes` covered: offsets `[from, to)`.
    pub fn learn(&mut self, from: i64, to: i64, bytes: usize) {
        if to <= from || bytes == 0 {
            return;
        }
        let density = bytes as f64 / (to - from) as f64;
        self.density = Some(match self.density {
            Some(known) => known + NEWEST * (density - known),
            None => density,
        });
    }

    /// Forgets everything beyond what was admitted; answers that still come are not waited for any more.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Drops the answer that lies farthest ahead, to make room: it will be fetched again. The one at the head stays.
    pub fn shed(&mut self, head: i64) -> bool {
        match self.ranges.back() {
            Some(last) if last.from > head && last.answer.is_some() => {
                self.ranges.pop_back();
                true
            }
            _ => false,
        }
    }

    fn guess(&self, from: i64, bytes: i32) -> i64 {
        let offsets = self.density.map_or(1.0, |density| {
            f64::from(bytes) * CAUTION / density.max(1e-3)
        });
        from.saturating_add((offsets as i64).max(1))
    }
}

fn hole_bytes(offsets: i64, density: f64, most: i32) -> i32 {
    let expected = (offsets as f64 * density * 1.25) as i32;
    expected.saturating_add(HOLE_BYTES).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{fetched, sample};

    const MIB: i32 = 1 << 20;

    /// An answer of one batch of `count` records from `base`.
    fn answer(base: i64, count: i64) -> FetchedPartition {
        fetched(&[sample(base, count).batch()])
    }

    /// Everything that can be asked for from head 0.
    fn asks(ranges: &mut Ranges, epoch: i32, end: i64, depth: usize) -> Vec<Ask> {
        let mut ids = 1..;
        std::iter::from_fn(|| ranges.ask(ids.next()?, 0, epoch, end, depth, MIB)).collect()
    }

    /// Ranges that know of 1,000 bytes per offset.
    fn informed() -> Ranges {
        let mut ranges = Ranges::default();
        ranges.learn(0, 1_000, 1_000_000);
        ranges
    }

    #[test]
    fn only_the_head_is_fetched_until_the_density_is_known() {
        let mut ranges = Ranges::default();
        let head = ranges.ask(101, 10, 3, 5_000, 8, MIB).unwrap();
        assert_eq!((head.from, head.last_epoch), (10, 3));
        assert_eq!(ranges.ask(102, 10, 3, 5_000, 8, MIB), None);
    }

    #[test]
    fn ranges_follow_each_other_up_to_the_depth_and_the_end() {
        let mut ranges = informed();
        let asks: Vec<Ask> = asks(&mut ranges, 3, 1_000_000, 4);
        let froms: Vec<i64> = asks.iter().map(|a| a.from).collect();
        assert_eq!(froms, [0, 1_017, 2_034, 3_051]);
        let epochs: Vec<i32> = asks.iter().map(|a| a.last_epoch).collect();
        assert_eq!(epochs, [3, -1, -1, -1], "a jump knows no epoch");
        assert!(!ranges.wants(0, 1_000_000, 4) && ranges.wants(0, 1_000_000, 5));

        let mut ranges = informed();
        assert!(ranges.ask(103, 0, 3, 1_500, 4, MIB).is_some());
        assert!(ranges.ask(104, 0, 3, 1_500, 4, MIB).is_some());
        assert_eq!(
            ranges.ask(105, 0, 3, 1_500, 4, MIB),
            None,
            "nothing beyond the end"
        );
    }

    #[test]
    fn an_answer_counts_only_from_a_head_at_or_behind_it() {
        let mut ranges = informed();
        let asks: Vec<Ask> = asks(&mut ranges, 3, 9_000, 3);
        // The second comes first, and waits.
        assert!(ranges.arrived(asks[1].id, answer(1_017, 900), true));
        assert!(ranges.take(0).is_none());
        assert!(ranges.arrived(asks[0].id, answer(0, 1_000), true));
        let first = ranges.take(0).unwrap();
        assert!(first.proven, "the head's fetch carried its epoch");
        // The head reached 1,000 only: what lies between is asked for, and nothing is assumed.
        assert!(ranges.take(1_000).is_none());
        let hole = ranges.ask(106, 1_000, 3, 9_000, 3, MIB).unwrap();
        assert_eq!((hole.from, hole.last_epoch), (1_000, 3));
        assert!(hole.max_bytes < MIB / 8, "{}", hole.max_bytes);
        assert!(ranges.arrived(hole.id, answer(1_000, 20), true));
        assert_eq!(ranges.take(1_000).unwrap().from, 1_000);
        let second = ranges.take(1_020).unwrap();
        assert_eq!((second.from, second.proven), (1_017, false));
    }

    #[test]
    fn a_failed_range_is_asked_for_again_when_the_head_is_there() {
        let mut ranges = informed();
        let asks: Vec<Ask> = asks(&mut ranges, 3, 9_000, 3);
        ranges.failed(asks[0].id);
        assert!(!ranges.arrived(asks[0].id, answer(0, 1), true), "too late");
        let again = ranges.ask(107, 0, 3, 9_000, 3, MIB).unwrap();
        assert_eq!(again.from, 0);
        assert!(ranges.arrived(asks[2].id, answer(2_034, 10), true));
        assert!(ranges.shed(0), "the farthest goes first");
        assert!(!ranges.shed(0), "what is outstanding cannot be shed");
        ranges.clear();
        assert!(ranges.take(0).is_none());
    }

    #[test]
    fn sparse_and_dense_logs_are_both_met() {
        for density in [0.01, 1.0, 100.0, 5_000_000.0] {
            let mut ranges = Ranges::default();
            ranges.learn(0, 1_000, (1_000.0 * density) as usize);
            let first = ranges.ask(108, 0, 3, i64::MAX, 2, MIB).unwrap();
            let second = ranges.ask(109, 0, 3, i64::MAX, 2, MIB).unwrap();
            assert!(second.from > first.from, "{density}");
        }
    }
}
