//! The ladder against a simple model: a source of records and gaps, a target of records and markers.

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What each source offset from the flow's first one on became: the target offset of its record.
struct Model {
    first: i64,
    source: Vec<Option<i64>>,
    target: Vec<bool>,
    start: i64,
    forwarded: i64,
}

impl Model {
    fn new(random: &mut Random) -> Self {
        Self {
            first: random.below(1_000) as i64,
            source: Vec::new(),
            target: Vec::new(),
            start: random.below(50) as i64,
            forwarded: 0,
        }
    }

    fn forward(&mut self) {
        self.source
            .push(Some(self.start + self.target.len() as i64));
        self.target.push(true);
        self.forwarded += 1;
    }

    fn rung(&self) -> Rung {
        Rung {
            source: self.first + self.source.len() as i64,
            target: self.start + self.target.len() as i64,
            forwarded: self.forwarded,
        }
    }

    /// The first record at or above a target offset.
    fn record_at(&self, target: i64) -> i64 {
        let skip = usize::try_from((target - self.start).max(0)).unwrap();
        let markers = self.target.iter().skip(skip).take_while(|r| !**r).count();
        target.max(self.start) + markers as i64
    }

    fn truth(&self, offset: i64) -> i64 {
        let skip = usize::try_from((offset - self.first).max(0)).unwrap();
        let next = self.source.iter().skip(skip).find_map(|t| *t);
        next.unwrap_or(self.start + self.target.len() as i64)
    }

    /// Records forwarded from `from` up to `to`.
    fn count(&self, from: i64, to: i64) -> i64 {
        let at = |offset: i64| usize::try_from(offset - self.first).unwrap();
        let slice = &self.source[at(from)..at(to)];
        slice.iter().filter(|t| t.is_some()).count() as i64
    }
}

/// Mirrors a random source, with a position now and then, and restarts with markers.
fn mirrored(random: &mut Random, ladder: &mut Ladder) -> Model {
    let mut model = Model::new(random);
    assert!(ladder.push(model.rung()));
    let (gaps, markers) = (random.below(30), random.below(4));
    for _ in 0..random.below(4_000) {
        match random.below(100) {
            n if n < gaps => model.source.push(None),
            n if n < gaps + markers => {
                model.target.push(false);
                if random.chance(70) {
                    assert!(ladder.push(model.rung()));
                }
            }
            _ => model.forward(),
        }
        if random.chance(10) {
            assert!(ladder.push(model.rung()));
        }
    }
    assert!(ladder.push(model.rung()));
    model
}

#[test]
fn what_is_called_exact_is_exact_and_the_rest_never_skips() {
    for seed in 1..200 {
        let random = &mut Random(seed * 0x9E37_79B9);
        let mut ladder = Ladder::default();
        let model = mirrored(random, &mut ladder);
        assert!(ladder.rungs().len() <= MAX_RUNGS);
        let last = model.rung();
        let mut exact = 0;
        for _ in 0..300 {
            let width = model.source.len() as u64 + 20;
            let offset = model.first - 10 + random.below(width) as i64;
            let truth = model.truth(offset);
            match ladder.find(offset) {
                Found::Exact(target) => {
                    exact += 1;
                    assert_eq!(model.record_at(target), truth, "seed {seed} at {offset}");
                }
                Found::Ahead(target) => {
                    assert!(offset > last.source && target == last.target);
                }
                Found::Between(interval) => {
                    let Interval { below, above } = interval;
                    assert!(below.source < offset && offset < above.source);
                    let records = model.count(below.source, offset);
                    assert!(interval.at_least(offset) <= records);
                    let (target, placed) = interval.place(records);
                    assert!(target <= truth, "seed {seed} at {offset}");
                    if placed {
                        assert_eq!(model.record_at(target), truth, "seed {seed} at {offset}");
                    }
                    let (floor, _) = interval.place(interval.at_least(offset));
                    assert!(floor <= truth, "seed {seed} at {offset}");
                    if placed && random.chance(50) {
                        let rung = rung(offset, target, below.forwarded + records);
                        ladder.add_counted(rung, 1, 64);
                    }
                }
                Found::Unknown => panic!("seed {seed}: nothing known about {offset}"),
            }
        }
        assert!(exact > 0, "seed {seed}");
    }
}

fn rung(source: i64, target: i64, forwarded: i64) -> Rung {
    Rung {
        source,
        target,
        forwarded,
    }
}

#[test]
fn a_plain_topic_needs_two_rungs_and_is_exact_everywhere() {
    let mut ladder = Ladder::default();
    ladder.push(rung(0, 0, 0));
    for n in 1..1_000 {
        ladder.push(rung(n * 10, n * 10, n * 10));
    }
    assert_eq!(ladder.rungs().len(), 2);
    assert_eq!(ladder.find(1_234), Found::Exact(1_234));
    assert_eq!(ladder.find(9_991), Found::Ahead(9_990));
}

#[test]
fn old_rungs_are_fewer_and_the_first_is_kept() {
    let mut ladder = Ladder::default();
    for n in 0..100_000 {
        // A marker on the source now and then.
        assert!(ladder.push(rung(n * 11, n * 10, n * 10)));
    }
    let rungs = ladder.rungs();
    assert_eq!(rungs.len(), MAX_RUNGS);
    assert_eq!(rungs[0], rung(0, 0, 0));
    let widths: Vec<i64> = rungs
        .windows(2)
        .map(|w| w[1].source - w[0].source)
        .collect();
    let end = rungs[MAX_RUNGS - 1].source;
    for (width, rung) in widths.iter().zip(rungs) {
        let distance = end - rung.source;
        assert!(*width <= (distance / 2).max(11), "{width} at {distance}");
    }
}

#[test]
fn what_goes_back_is_another_history() {
    let mut ladder = Ladder::default();
    assert!(ladder.push(rung(100, 50, 40)));
    for back in [
        rung(99, 60, 41),
        rung(110, 60, 39),
        rung(110, 50, 41),
        rung(110, 80, 70),
    ] {
        assert!(!ladder.push(back), "{back:?}");
    }
    ladder.restart(rung(10, 60, 50));
    assert_eq!(ladder.find(5), Found::Unknown);
    assert_eq!(ladder.find(10), Found::Exact(60));
}

#[test]
fn commits_go_forward_and_back_only_behind_their_own() {
    use Direction::{Forward, Rewind, Stay};
    let written = |upstream, downstream, own, open| {
        Some(Written {
            upstream,
            downstream,
            own,
            open,
        })
    };
    let own = |upstream, downstream, before| written(upstream, downstream, Some(before), true);
    let done = |upstream, downstream| written(upstream, downstream, Some(downstream), false);
    let other = |upstream, downstream, own| written(upstream, downstream, own, false);
    let table = [
        // The first one, and forward whoever committed.
        (None, 50, 60, None, None, Forward),
        (Some(40), 50, 60, None, None, Forward),
        (Some(50), 50, 60, own(60, 50, 50), None, Stay),
        // Back on the source, and the commit is ours.
        (Some(50), 20, 30, own(60, 50, 50), Some(900), Rewind),
        // A consumer of the target has moved it.
        (Some(70), 20, 30, own(60, 50, 50), Some(900), Stay),
        (Some(70), 20, 30, None, Some(900), Stay),
        (Some(50), 20, 30, done(60, 50), Some(900), Rewind),
        // Somebody else committed what had only been written down.
        (Some(50), 20, 30, other(60, 50, None), Some(900), Stay),
        (Some(50), 20, 30, other(60, 50, Some(40)), Some(900), Stay),
        // A worse translation of an offset that did not go back.
        (Some(50), 20, 60, own(60, 50, 50), Some(900), Stay),
        (Some(50), 20, 61, own(60, 50, 50), Some(900), Stay),
        // Written down, not committed.
        (Some(50), 20, 30, own(30, 20, 50), Some(900), Rewind),
        (Some(50), 20, 30, own(30, 20, 20), Some(900), Stay),
        // The target lost its end.
        (Some(70), 20, 30, None, Some(60), Forward),
        (Some(70), 70, 80, None, Some(60), Stay),
    ];
    for (committed, wanted, upstream, written, end, expected) in table {
        let found = direction(committed, (wanted, false), upstream, written, end);
        assert_eq!(
            found, expected,
            "{committed:?} {wanted} {upstream} {written:?} {end:?}"
        );
    }
    // The target lost records that the source has not any more: what a group has read lies lower there.
    let exact = |committed, written| direction(Some(committed), (20, true), 60, written, Some(900));
    assert_eq!(exact(50, own(60, 50, 50)), Rewind);
    assert_eq!(
        exact(50, own(60, 20, 50)),
        Rewind,
        "written down, not committed"
    );
    assert_eq!(exact(70, own(60, 50, 50)), Stay, "a consumer has moved it");
    assert_eq!(exact(70, None), Stay);
}

/// Ten thousand groups stand on as many offsets of one partition, and others come and go.
#[test]
fn what_a_commit_stands_on_is_kept() {
    let mut ladder = Ladder::default();
    ladder.push(rung(0, 0, 0));
    ladder.push(rung(10_000, 5_000, 5_000));
    let standing: Vec<i64> = (0..50).map(|n| 100 * n + 7).collect();
    for &offset in &standing {
        ladder.add_counted(rung(offset, offset / 2, offset / 2), 0, 64);
    }
    for round in 1..200 {
        for &offset in &standing {
            ladder.want(offset, round);
            assert_eq!(
                ladder.find(offset),
                Found::Exact(offset / 2),
                "round {round}"
            );
        }
        for n in 0..10 {
            let offset = 5_000 + (round as i64) * 20 + n;
            ladder.add_counted(rung(offset, offset / 2, offset / 2), round, 64);
        }
        assert_eq!(ladder.counted(), 64.min(50 + round as usize * 10));
    }
}
