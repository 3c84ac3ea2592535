use std::collections::{BTreeMap, BTreeSet};

use strait_wire::{Isolation, Losses};

use super::*;

fn position(link: &str, kind: SyncKind, (s, t, f): (i64, i64, i64)) -> Position {
    Position {
        kind,
        isolation: Isolation::ReadCommitted,
        flags: PositionFlags::PROVENANCE,
        source_next: s,
        target_next: t,
        forwarded: f,
        producer_id: 7,
        producer_epoch: 0,
        next_sequence: 0,
        source_epoch: 0,
        source_topic_id: Uuid::nil(),
        target_topic_id: Uuid::nil(),
        target_partition: 0,
        wall_ms: 0,
        target_topic: "t".to_owned(),
        link: link.to_owned(),
        gaps: Vec::new(),
        lost: Losses::default(),
    }
}

fn passed(link: &str, positions: &[(i64, i64, i64)]) -> Passed {
    let mut all = positions
        .iter()
        .map(|at| position(link, SyncKind::Periodic, *at));
    let mut passed = Passed::new(&all.next().unwrap());
    all.for_each(|next| assert!(passed.push(&next)));
    passed
}

fn flow() -> FlowKey {
    FlowKey {
        topic: "t".to_owned(),
        partition: 0,
    }
}

/// What is known of the way from a to b, by who wrote to each.
fn ask(
    committed: i64,
    on_a: &[(&str, &Passed)],
    on_b: &[(&str, &Passed)],
    ended: &Ended,
) -> Result<i64, Untold> {
    let flow = flow();
    let side = |cluster: &'static str, writers: &[(&str, &Passed)]| {
        let writers: Vec<(String, Passed)> = writers
            .iter()
            .map(|(from, passed)| ((*from).to_owned(), (*passed).clone()))
            .collect();
        (cluster, writers)
    };
    let (a, b) = (side("a", on_a), side("b", on_b));
    let [a, b] = [&a, &b].map(|(cluster, writers)| Side {
        cluster,
        place: &flow,
        topic_id: Uuid::nil(),
        writers: writers
            .iter()
            .map(|(cluster, passed)| Writer {
                cluster,
                from: &flow,
                passed,
            })
            .collect(),
    });
    first_unread(committed, &a, &b, ended)
}

#[test]
fn the_least_of_both_origins_is_where_a_group_goes_on() {
    // 100 records of a, then 50 of b, on both.
    let over = passed("over", &[(0, 0, 0), (100, 100, 100)]);
    let back = passed("back", &[(0, 0, 0), (150, 150, 50)]);
    let ask = |committed| {
        ask(
            committed,
            &[("b", &back)],
            &[("a", &over)],
            &Ended::default(),
        )
    };
    assert_eq!(ask(0), Ok(0));
    // Of what b produced nothing certain was read.
    assert_eq!(ask(120), Ok(0));
    assert_eq!(ask(150), Ok(100));
    // Both ends at the same time tell more than a link that brings nothing.
    let mut ended = Ended::default();
    ended.push(150, 150);
    assert_eq!(
        self::ask(150, &[("b", &back)], &[("a", &over)], &ended),
        Ok(150)
    );
}

#[test]
fn what_cannot_be_known_is_told() {
    let known = passed("known", &[(0, 0, 0), (100, 100, 100)]);
    let old = passed("old", &[(50, 50, 50), (100, 100, 100)]);
    let none = Ended::default();
    let ask = |on_a: &[_], on_b: &[_]| ask(40, on_a, on_b, &none);
    let no_link = |cluster: &str, to: &str| {
        Err(Untold::NoLink {
            cluster: cluster.to_owned(),
            to: to.to_owned(),
        })
    };
    let (from_a, from_b, from_c) = (("a", &known), ("b", &known), ("c", &known));
    assert_eq!(ask(&[from_b], &[]), no_link("a", "b"));
    assert_eq!(ask(&[], &[from_a]), no_link("b", "a"));
    assert_eq!(ask(&[from_b, from_c], &[from_a]), no_link("c", "b"));
    assert_eq!(ask(&[from_b], &[from_a, from_c]), no_link("c", "a"));
    let too_old = Err(Untold::TooOld("old".to_owned()));
    assert_eq!(ask(&[("b", &old)], &[from_a]), too_old);
    assert_eq!(ask(&[from_b], &[("a", &old)]), too_old);
    let lost = Passed::unreadable(flow());
    assert_eq!(
        ask(&[from_b, ("", &lost)], &[from_a]),
        Err(Untold::Unreadable)
    );
    // The history was broken off: what stood before it is no measure.
    let mut rebased = known.clone();
    assert!(!rebased.push(&position("known", SyncKind::Rebase, (120, 130, 120))));
    assert_eq!(
        ask(&[from_b], &[("a", &rebased)]),
        Err(Untold::TooOld("known".to_owned()))
    );
    // And what is kept of it is not put before it.
    rebased.before(&[(0, 0, 0)]);
    assert_eq!(rebased.stands(40), None);
}

#[test]
fn what_was_kept_for_long_stands_before_what_is_known() {
    let mut passed = passed("l", &[(500, 500, 500), (600, 700, 600)]);
    // The newest first; one is of another history.
    passed.before(&[
        (500, 500, 500),
        (300, 300, 300),
        (900, 100, 100),
        (10, 10, 10),
    ]);
    let asked = [9, 10, 299, 300, 599, 600].map(|at| passed.stands(at));
    assert_eq!(
        asked,
        [None, Some(10), Some(10), Some(300), Some(500), Some(700)]
    );
    for next in 1..1_000 {
        let at = 600 + next * 10;
        assert!(passed.push(&position("l", SyncKind::Periodic, (at, at + 200, at))));
    }
    assert!(passed.unkept().unwrap().len() <= MAX_RUNGS);
    assert_eq!(passed.unkept(), None);
    assert_eq!(passed.stands(10), Some(10));
    assert_eq!(passed.read(10_700), Some(10_500));
}

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % most
    }
}

/// A link in the model: how far it has read, what of it was acknowledged, and what its positions told.
struct Link {
    from: usize,
    to: usize,
    sent: usize,
    last: i64,
    forwarded: i64,
    acked: (i64, i64, i64),
    passed: Passed,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Logs of some clusters, each a record's number or a marker, and where each record was produced.
struct Model {
    logs: Vec<Vec<Option<usize>>>,
    origins: Vec<usize>,
    links: Vec<Link>,
}

impl Model {
    fn new(clusters: usize) -> Self {
        let mut logs = vec![Vec::new(); clusters];
        let mut links = Vec::new();
        for (from, to) in (0..clusters).flat_map(|a| (0..clusters).map(move |b| (a, b))) {
            if from != to {
                logs[to].push(None);
                let acked = (0, logs[to].len() as i64, 0);
                let name = format!("{from}-{to}");
                links.push(Link {
                    from,
                    to,
                    sent: 0,
                    last: acked.1,
                    forwarded: 0,
                    acked,
                    passed: passed(&name, &[acked]),
                });
            }
        }
        Self {
            logs,
            origins: Vec::new(),
            links,
        }
    }

    fn produce(&mut self, cluster: usize) {
        self.logs[cluster].push(Some(self.origins.len()));
        self.origins.push(cluster);
    }

    /// The link's next offset of the source.
    fn forward(&mut self, link: usize) {
        let link = &mut self.links[link];
        let Some(&record) = self.logs[link.from].get(link.sent) else {
            return;
        };
        link.sent += 1;
        if let Some(record) = record.filter(|r| self.origins[*r] == link.from) {
            self.logs[link.to].push(Some(record));
            link.last = self.logs[link.to].len() as i64;
            link.forwarded += 1;
        }
    }

    fn acknowledge(&mut self, link: usize) {
        let link = &mut self.links[link];
        link.acked = (link.sent as i64, link.last, link.forwarded);
    }

    fn write_position(&mut self, link: usize) {
        let link = &mut self.links[link];
        let name = link.passed.link.clone();
        let next = position(&name, SyncKind::Periodic, link.acked);
        assert!(link.passed.push(&next));
    }

    /// Where a group that has read the first cluster below `committed` goes on on the second one.
    fn ask(&self, committed: usize, ended: &Ended) -> i64 {
        let on = |to: usize| -> Vec<(&str, &Passed)> {
            let links = self.links.iter().filter(|l| l.to == to);
            links.map(|l| (NAMES[l.from], &l.passed)).collect()
        };
        ask(committed as i64, &on(0), &on(1), ended).unwrap()
    }
}

/// Three clusters, or two, that write all the time: whatever a group has read on one, nothing that it has not read stands below
/// where it goes on on the other.
#[test]
fn nothing_unread_stands_below_whatever_was_written_in_between() {
    for seed in 1..600_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let clusters = 2 + random.below(2);
        let mut model = Model::new(clusters);
        let mut ended = Ended::default();
        let mut target_end = None;
        let writers = 1 + random.below(clusters);
        for _ in 0..random.below(700) {
            let link = random.below(model.links.len());
            match random.below(20) {
                0..4 => model.produce(random.below(writers)),
                4..12 => model.forward(link),
                12..15 => model.acknowledge(link),
                15..17 => model.write_position(link),
                17 => target_end = Some(model.logs[1].len() as i64),
                18 => {
                    if let Some(target) = target_end.take() {
                        ended.push(model.logs[0].len() as i64, target);
                    }
                }
                _ => {
                    let committed = random.below(model.logs[0].len() + 1);
                    let read: BTreeSet<Option<usize>> =
                        model.logs[0][..committed].iter().copied().collect();
                    let at = model.ask(committed, &ended) as usize;
                    let below = model.logs[1].iter().take(at);
                    let unread = below.flatten().find(|r| !read.contains(&Some(**r)));
                    assert_eq!(unread, None, "seed {seed}: {committed} is {at}");
                }
            }
        }
        // Once nothing is written any more, a group that has read everything reads nothing again.
        for link in 0..model.links.len() {
            (0..2_000).for_each(|_| model.forward(link));
        }
        for link in 0..model.links.len() {
            (0..2_000).for_each(|_| model.forward(link));
            model.acknowledge(link);
            model.write_position(link);
        }
        ended.push(model.logs[0].len() as i64, model.logs[1].len() as i64);
        let at = model.ask(model.logs[0].len(), &ended) as usize;
        let mut again = BTreeMap::new();
        for record in model.logs[1][at..].iter().flatten() {
            *again.entry(model.origins[*record]).or_insert(0) += 1;
        }
        if clusters == 2 {
            assert_eq!(again, BTreeMap::new(), "seed {seed}");
        }
    }
}
