//! Offsets of the source as offsets of the target: from the positions that a link has written, and where they leave a gap
//! by counting in the logs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

pub use strait_engine::tally::Budget;
use strait_engine::tally::Tally;
use strait_engine::{
    FlowKey, KnownPosition, PositionTail, Rungs, SEPARATOR, SessionError, TakenAt, read_ladders,
};
use strait_net::{Cluster, Runtime};
use strait_wire::{GapReason, Position, PositionFlags, RegistryRecord, SyncKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::before::Before;
use crate::count::Count;
use crate::counting::{Answer, Done, Job, Work};
use crate::ladder::{Found, Interval, Ladder, Rung};

/// How good a translated offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// It is where the first mirrored record at or above the source offset stands, or what markers stand before it.
    Exact,
    /// That record stands there or behind it: what lies between is read again.
    LowerBound,
    /// The source offset is not mirrored yet: it is the end of what is.
    Ahead,
}

impl Exactness {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::LowerBound => "lower bound",
            Self::Ahead => "ahead of mirror",
        }
    }
}

/// A translated offset. Never behind a record that was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The topic's name on the target.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
    /// How good it is.
    pub exactness: Exactness,
}

/// What is known of one flow.
#[derive(Debug)]
struct History {
    ladder: Ladder,
    /// The last position.
    position: Box<Position>,
    /// The history was seen to begin: nothing that was kept before belongs to it.
    begun: bool,
    /// What the registry has.
    kept: Vec<Rung>,
    /// Offsets that were counted to no end: what they are at least, or exactly, and when to try again.
    tried: BTreeMap<i64, Tried>,
    /// A count that goes on.
    begun_count: Option<Count>,
}

/// What reading told of an offset that could not be counted.
#[derive(Clone, Copy, Debug)]
struct Tried {
    target: i64,
    exact: bool,
    again: Instant,
}

/// How long it takes until an offset is counted again that could not be known exactly, and one that could not be read.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(900), Duration::from_secs(60));
/// And one whose place is known.
const PLACED_FOR: Duration = Duration::from_secs(86_400);
/// How many of them are remembered for one flow.
const TRIED: usize = 4_096;
/// How many counted places are kept for one flow; and beyond which number of them in all only a few.
const COUNTED: (usize, usize) = (4_096, 500_000);
/// So few.
const COUNTED_FEW: usize = 64;
/// Flows that are counted side by side.
const COUNTING: usize = 8;

/// Translates offsets of one link, from what it has written: it need not run, and nothing is written.
#[derive(Debug)]
pub struct Translator {
    rt: Runtime,
    link: String,
    target: Cluster,
    tail: PositionTail,
    tally: Tally,
    flows: BTreeMap<FlowKey, History>,
    source: Cluster,
    /// What MirrorMaker 2 wrote before, and the separator in the names of its topics.
    before: Before,
    separator: String,
    /// What the registry had is known.
    loaded: bool,
    /// Grows with each refresh.
    round: u64,
    /// Counted places of all flows, as of the last refresh.
    counted: usize,
    /// Behind the flow whose ladder was looked at last.
    kept_to: Option<FlowKey>,
    comparing: Arc<Semaphore>,
}

impl Translator {
    /// Of the link of this name from `source` to `target`.
    pub fn new(rt: &Runtime, link: &str, source: Cluster, target: Cluster) -> Self {
        Self {
            rt: rt.clone(),
            link: link.to_owned(),
            tail: PositionTail::new(rt, target.clone(), source.alias()),
            tally: Tally::new(rt.clone(), source.clone(), target.clone()),
            source,
            before: Before::default(),
            separator: SEPARATOR.to_owned(),
            target,
            flows: BTreeMap::new(),
            loaded: false,
            round: 0,
            counted: 0,
            kept_to: None,
            comparing: Arc::new(Semaphore::new(1)),
        }
    }

    /// With the separator that MirrorMaker 2 has in the names of its topics.
    #[must_use]
    pub fn internal_separator(mut self, separator: &str) -> Self {
        separator.clone_into(&mut self.separator);
        self
    }

    /// Takes the positions that were written since the last call.
    ///
    /// # Errors
    /// The target cannot be reached or read.
    pub async fn refresh(&mut self) -> Result<(), SessionError> {
        let (flows, link) = (&mut self.flows, &self.link);
        self.tail
            .read(|flow, known| follow(flows, link, flow, known))
            .await?;
        if !self.loaded {
            let ladders = read_ladders(&self.rt, self.target.clone(), &self.link).await?;
            for (flow, (_, rungs)) in ladders {
                if let Some(history) = self.flows.get_mut(&flow) {
                    history.restore(&rungs);
                }
            }
            self.loaded = true;
        }
        self.round += 1;
        self.counted = self.flows.values().map(|h| h.ladder.counted()).sum();
        let taken = |(flow, history): (&FlowKey, &History)| {
            let first = history.ladder.rungs().first()?;
            let taken = history.ladder.took_over().then(|| TakenAt {
                topic: history.position.target_topic.clone(),
                partition: history.position.target_partition,
                offset: first.target,
            });
            Some((flow.clone(), taken?))
        };
        let taken_at: BTreeMap<FlowKey, TakenAt> = self.flows.iter().filter_map(taken).collect();
        // Flows that are taken over later have syncs of their own.
        if taken_at.len() > self.before.flows() {
            let (source, target) = (self.source.clone(), self.target.clone());
            self.before = Before::read(&self.rt, source, target, &self.separator, &taken_at).await;
        }
        Ok(())
    }

    /// Whether the link mirrors this partition, as far as it has written a position for it.
    pub fn mirrors(&self, flow: &FlowKey) -> bool {
        self.flows.contains_key(flow)
    }

    /// The translation of an offset as far as it is known without reading: what is not exact may become it by
    /// [`count`](Self::count). Nothing for a partition that is not mirrored.
    pub fn known(&mut self, flow: &FlowKey, offset: i64) -> Option<Translated> {
        let history = self.flows.get_mut(flow)?;
        history.ladder.want(offset, self.round);
        let first = history.ladder.rungs().first();
        if let Some(first) = first.filter(|f| history.ladder.took_over() && offset < f.source) {
            let place = self.before.find(flow, offset, first.target);
            return Some(history.translated(place, Exactness::LowerBound));
        }
        let (offset, exactness) = match history.ladder.find(offset) {
            Found::Exact(target) => (target, Exactness::Exact),
            Found::Ahead(target) => (target, Exactness::Ahead),
            Found::Between(interval) => {
                let (target, _) = interval.place(interval.at_least(offset));
                match history.tried.get(&offset) {
                    Some(tried) if tried.exact => (tried.target, Exactness::Exact),
                    Some(tried) => (target.max(tried.target), Exactness::LowerBound),
                    None => (target, Exactness::LowerBound),
                }
            }
            Found::Unknown => (0, Exactness::LowerBound),
        };
        Some(history.translated(offset, exactness))
    }

    /// Whether [`count`](Self::count) may tell more about an offset than what is known.
    pub fn countable(&self, flow: &FlowKey, offset: i64) -> bool {
        let now = self.rt.now();
        self.flows.get(flow).is_some_and(|history| {
            matches!(history.ladder.find(offset), Found::Between(_))
                && history.tried.get(&offset).is_none_or(|t| now >= t.again)
        })
    }

    /// Counts in the logs what it takes to know these offsets exactly, some flows side by side, until `budget` is used up; what
    /// was read is not read again. [`known`](Self::known) tells what was found. Returns the first flow that was not begun with.
    pub async fn count(
        &mut self,
        offsets: impl IntoIterator<Item = (FlowKey, BTreeSet<i64>)>,
        budget: &Arc<Budget>,
    ) -> Option<FlowKey> {
        let mut jobs: JoinSet<Done> = JoinSet::new();
        let mut left = None;
        for (flow, offsets) in offsets {
            if jobs.len() >= COUNTING
                && let Some(Ok(done)) = jobs.join_next().await
            {
                self.learn(done);
            }
            if budget.spent() {
                left = Some(flow);
                break;
            }
            let Some(job) = self.job(flow, &offsets) else {
                continue;
            };
            let (tally, budget) = (self.tally.clone(), budget.clone());
            jobs.spawn(async move { job.run(tally, &budget).await });
        }
        while let Some(done) = jobs.join_next().await {
            if let Ok(done) = done {
                self.learn(done);
            }
        }
        left
    }

    fn job(&self, flow: FlowKey, offsets: &BTreeSet<i64>) -> Option<Job> {
        let history = self.flows.get(&flow)?;
        let mut open: BTreeMap<(i64, i64), Work> = BTreeMap::new();
        for &offset in offsets {
            if let Found::Between(interval) = history.ladder.find(offset) {
                let key = (interval.below.source, interval.below.target);
                let work = open.entry(key).or_insert_with(|| Work {
                    interval,
                    cuts: Vec::new(),
                    countable: !history.uncountable(&interval),
                });
                work.cuts.push(offset);
            }
        }
        let position = &history.position;
        (!open.is_empty()).then(|| Job {
            place: (position.target_topic.clone(), position.target_partition),
            isolation: position.isolation,
            compacted: position.flags.contains(PositionFlags::COMPACTED),
            complete: history.sum(GapReason::Compacted) + history.sum(GapReason::Unexplained) == 0,
            work: open.into_values().collect(),
            begun: history.begun_count.clone(),
            comparing: self.comparing.clone(),
            flow,
        })
    }

    fn learn(&mut self, done: Done) {
        let now = self.rt.now();
        let Some(history) = self.flows.get_mut(&done.flow) else {
            return;
        };
        history.begun_count = done.begun;
        for answer in done.answers {
            let (offset, target, exact, again) = match answer {
                Answer::Exact(rung) => {
                    let most = if self.counted < COUNTED.1 {
                        COUNTED.0
                    } else {
                        COUNTED_FEW
                    };
                    let before = history.ladder.counted();
                    history.ladder.add_counted(rung, self.round, most);
                    history.tried.remove(&rung.source);
                    self.counted = (self.counted + history.ladder.counted()) - before;
                    continue;
                }
                Answer::Placed(offset, target) => (offset, target, true, PLACED_FOR),
                Answer::AtLeast(offset, target) => (offset, target, false, TRY_AGAIN.0),
                Answer::Failed(offset, target) => (offset, target, false, TRY_AGAIN.1),
            };
            let again = now + again;
            let tried = Tried {
                target,
                exact,
                again,
            };
            history.tried.insert(offset, tried);
            // Those that would be counted next all the same.
            if history.tried.len() > TRIED {
                history.tried.retain(|_, t| t.again > now);
            }
            while history.tried.len() > TRIED {
                let next = history.tried.iter().min_by_key(|(_, t)| t.again);
                let Some(offset) = next.map(|(offset, _)| *offset) else {
                    break;
                };
                history.tried.remove(&offset);
            }
        }
    }

    /// Ladders that the registry does not have yet, `most` at the most, each flow in its turn; from now on it has them. And whether
    /// all flows had their turn: the next call begins anew.
    pub fn to_keep(&mut self, most: usize) -> (Vec<RegistryRecord>, bool) {
        let from = self.kept_to.clone();
        let from = from.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut kept = Vec::new();
        for (flow, history) in self.flows.range_mut((from, Bound::Unbounded)) {
            self.kept_to = Some(flow.clone());
            if history.kept == history.ladder.rungs() {
                continue;
            }
            history.kept = history.ladder.rungs().to_vec();
            let newest_first = history.kept.iter().rev();
            kept.push(RegistryRecord::Ladder {
                link: self.link.clone(),
                topic: flow.topic.clone(),
                partition: flow.partition,
                rungs: newest_first
                    .map(|r| (r.source, r.target, r.forwarded))
                    .collect(),
            });
            if kept.len() >= most {
                return (kept, false);
            }
        }
        self.kept_to = None;
        (kept, true)
    }
}

/// Takes one position.
fn follow(flows: &mut BTreeMap<FlowKey, History>, link: &str, flow: FlowKey, known: KnownPosition) {
    let position = match known {
        KnownPosition::Strait(position) if position.link == link => position,
        // Whoever else writes here: what was known does not hold any more.
        _ => {
            flows.remove(&flow);
            return;
        }
    };
    let rung = Rung {
        source: position.source_next,
        target: position.target_next,
        forwarded: position.forwarded,
    };
    let Some(history) = flows.get_mut(&flow) else {
        let mut ladder = Ladder::default();
        ladder.restart(rung);
        let begun = matches!(position.kind, SyncKind::Rebase | SyncKind::Takeover)
            || position.forwarded == 0
            || position.flags.contains(PositionFlags::SHARED);
        let kept = Vec::new();
        flows.insert(
            flow,
            History {
                ladder,
                position,
                begun,
                kept,
                tried: BTreeMap::new(),
                begun_count: None,
            },
        );
        return;
    };
    let last = &history.position;
    // Of a target that others write to too it is not known whose records stand between two positions.
    let shared = position.flags | last.flags;
    let breaks = matches!(position.kind, SyncKind::Rebase | SyncKind::Takeover)
        || shared.contains(PositionFlags::SHARED)
        || position.isolation != last.isolation
        || position.target_topic != last.target_topic
        || differ(&position.source_topic_id, &last.source_topic_id)
        || differ(&position.target_topic_id, &last.target_topic_id);
    if breaks || !history.ladder.push(rung) {
        history.ladder.restart(rung);
        history.tried.clear();
        history.begun_count = None;
        history.begun = true;
    }
    history.position = position;
}

/// Whether two ids that are known are not the same.
pub(crate) fn differ<T: PartialEq + Default>(a: &T, b: &T) -> bool {
    let unknown = T::default();
    *a != unknown && *b != unknown && a != b
}

impl History {
    fn translated(&self, offset: i64, exactness: Exactness) -> Translated {
        Translated {
            topic: self.position.target_topic.clone(),
            partition: self.position.target_partition,
            offset: offset.max(0),
            exactness,
        }
    }

    /// Offsets left out for a reason since the flow began.
    fn sum(&self, reason: GapReason) -> i64 {
        let of = self.position.gaps.iter().filter(|(r, _)| *r == reason);
        of.map(|(_, offsets)| *offsets).sum()
    }

    /// Whether the source may have records in the interval that were not forwarded: those that the target refused, and
    /// those of other links; or the target those of others.
    fn uncountable(&self, interval: &Interval) -> bool {
        let flags = self.position.flags;
        if flags.contains(PositionFlags::PROVENANCE)
            || flags.contains(PositionFlags::SHARED)
            || self.sum(GapReason::OtherLink) > 0
        {
            return true;
        }
        let lost = &self.position.lost;
        self.sum(GapReason::Refused) > lost.offsets(GapReason::Refused)
            || lost.ranges().iter().any(|range| {
                range.reason == GapReason::Refused
                    && range.from < interval.above.source
                    && range.to > interval.below.source
            })
    }

    /// Puts what the registry kept below what is known.
    fn restore(&mut self, newest_first: &Rungs) {
        if self.begun {
            return;
        }
        let Some(&first) = self.ladder.rungs().first() else {
            return;
        };
        let mut ladder = Ladder::default();
        for &(source, target, forwarded) in newest_first.iter().rev() {
            let rung = Rung {
                source,
                target,
                forwarded,
            };
            self.kept.push(rung);
            let before = source < first.source && target <= first.target;
            if before && !ladder.push(rung) {
                return;
            }
        }
        for &rung in self.ladder.rungs() {
            if !ladder.push(rung) {
                return;
            }
        }
        self.ladder = ladder;
    }
}

#[cfg(test)]
mod tests {
    use strait_wire::{Isolation, Losses};

    use super::*;

    fn position(kind: SyncKind, source: i64, target: i64, forwarded: i64) -> KnownPosition {
        KnownPosition::Strait(Box::new(Position {
            kind,
            isolation: Isolation::ReadCommitted,
            flags: PositionFlags::default(),
            source_next: source,
            target_next: target,
            forwarded,
            producer_id: 1,
            producer_epoch: 0,
            next_sequence: 0,
            source_epoch: 0,
            source_topic_id: Default::default(),
            target_topic_id: Default::default(),
            target_partition: 0,
            wall_ms: 0,
            target_topic: "a.t".to_owned(),
            link: "a->b".to_owned(),
            gaps: Vec::new(),
            lost: Losses::default(),
        }))
    }

    fn flow() -> FlowKey {
        FlowKey {
            topic: "t".to_owned(),
            partition: 0,
        }
    }

    fn history(positions: Vec<KnownPosition>) -> History {
        let mut flows = BTreeMap::new();
        for known in positions {
            follow(&mut flows, "a->b", flow(), known);
        }
        flows.remove(&flow()).unwrap()
    }

    use SyncKind::{Periodic, Rebase};

    #[test]
    fn a_restart_still_knows_what_was_kept() {
        // The tail has recent positions only.
        let mut history = history(vec![
            position(Periodic, 1_100, 1_000, 1_000),
            position(Periodic, 1_200, 1_100, 1_100),
        ]);
        assert_eq!(history.ladder.find(50), Found::Unknown);
        history.restore(&vec![(1_150, 1_050, 1_050), (600, 500, 500), (100, 0, 0)]);
        assert_eq!(history.ladder.find(50), Found::Exact(0));
        assert_eq!(history.ladder.find(350), Found::Exact(250));
        assert_eq!(history.ladder.find(1_110), Found::Exact(1_010));
    }

    #[test]
    fn a_rebase_ends_what_was_known_before() {
        let mut rebased = history(vec![
            position(Periodic, 500, 500, 500),
            position(Rebase, 100, 501, 500),
            position(Periodic, 200, 601, 600),
        ]);
        assert_eq!(rebased.ladder.find(150), Found::Exact(551));
        assert_eq!(rebased.ladder.find(50), Found::Unknown);
        // Kept by somebody who had not seen it.
        rebased.restore(&vec![(90, 90, 90), (0, 0, 0)]);
        assert_eq!(rebased.ladder.find(50), Found::Unknown);
    }

    /// Records of others may stand on the target between two positions, also where nobody may write there any more.
    #[test]
    fn positions_of_a_shared_target_bound_nothing() {
        let shared = |source, target, forwarded| {
            let mut known = position(Periodic, source, target, forwarded);
            if let KnownPosition::Strait(position) = &mut known {
                position.flags = PositionFlags::SHARED;
            }
            known
        };
        let positions = [
            position(Periodic, 100, 100, 100),
            shared(200, 250, 200),
            shared(300, 360, 300),
            position(SyncKind::Session, 300, 370, 300),
            position(Periodic, 400, 475, 400),
        ];
        let mut known = history(positions.to_vec());
        let open = [150, 200, 250, 299].map(|offset| known.ladder.find(offset));
        assert_eq!(open, [Found::Unknown; 4]);
        assert_eq!(known.ladder.find(300), Found::Exact(370));
        let counted = interval((300, 370, 300), (400, 475, 400));
        assert_eq!(known.ladder.find(350), Found::Between(counted));
        assert!(!known.uncountable(&counted));
        // Kept before others began to write.
        known.restore(&vec![(90, 90, 90), (0, 0, 0)]);
        assert_eq!(known.ladder.find(250), Found::Unknown);
        let mut open = history(positions[2..3].to_vec());
        open.restore(&vec![(90, 90, 90), (0, 0, 0)]);
        assert_eq!(open.ladder.find(250), Found::Unknown);
        assert!(open.uncountable(&counted));
    }

    #[test]
    fn another_writer_of_positions_ends_it() {
        let mut flows = BTreeMap::new();
        follow(&mut flows, "a->b", flow(), position(Periodic, 5, 5, 5));
        follow(&mut flows, "a->b", flow(), KnownPosition::MirrorMaker2);
        assert!(flows.is_empty());
    }

    /// With more flows than are kept at once none may wait for ever.
    #[tokio::test]
    async fn every_ladder_is_kept_in_its_turn() {
        let rt = Runtime::system();
        let cluster = |alias: &str| {
            let identity = strait_net::Identity {
                client_id: "test".to_owned(),
                software_name: "test".to_owned(),
                software_version: "0".to_owned(),
            };
            Cluster::new(rt.clone(), alias, Vec::new(), Default::default(), identity)
        };
        let mut translator = Translator::new(&rt, "a->b", cluster("a"), cluster("b"));
        let written = |translator: &mut Translator, at: i64| {
            for partition in 0..120 {
                let flow = FlowKey {
                    topic: "t".to_owned(),
                    partition,
                };
                let known = position(Periodic, at, at, at);
                follow(&mut translator.flows, "a->b", flow, known);
            }
        };
        written(&mut translator, 10);
        let mut seen = BTreeSet::new();
        for round in 1..4 {
            let (kept, all) = translator.to_keep(50);
            seen.extend(kept.iter().filter_map(|record| match record {
                RegistryRecord::Ladder { partition, .. } => Some(*partition),
                _ => None,
            }));
            assert_eq!((seen.len(), all), ((50 * round).min(120), round == 3));
            // All of them go on meanwhile.
            written(&mut translator, 10 + round as i64);
        }
    }

    fn interval(below: (i64, i64, i64), above: (i64, i64, i64)) -> Interval {
        let rung = |(source, target, forwarded)| Rung {
            source,
            target,
            forwarded,
        };
        Interval {
            below: rung(below),
            above: rung(above),
        }
    }

    /// The source has them still: counted, they would lead too far.
    #[test]
    fn records_that_were_not_forwarded_keep_an_interval_from_being_counted() {
        let mut known = history(vec![
            position(Periodic, 0, 0, 0),
            position(Periodic, 200, 150, 150),
        ]);
        let here = interval((100, 90, 90), (200, 150, 150));
        assert!(!known.uncountable(&here));
        known.position.lost.add(GapReason::Refused, 40, 50);
        known.position.gaps = vec![(GapReason::Control, 40), (GapReason::Refused, 10)];
        assert!(!known.uncountable(&here), "it lies below");
        known.position.gaps = vec![(GapReason::Refused, 11)];
        assert!(known.uncountable(&here), "one more is listed nowhere");
        known.position.lost.add(GapReason::Refused, 199, 200);
        assert!(known.uncountable(&here));
        known.position.lost = Losses::default();
        known.position.gaps = vec![(GapReason::OtherLink, 1)];
        assert!(known.uncountable(&here));
        known.position.gaps.clear();
        known.position.flags = PositionFlags::PROVENANCE;
        assert!(known.uncountable(&here));
        // What is at least right then: the offsets above are no more than so many records.
        assert_eq!(here.at_least(180), 40);
    }
}
