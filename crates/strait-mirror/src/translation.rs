//! Offsets of the source as offsets of the target: from the positions that a link has written, and where they leave a gap
//! by counting in the logs.

mod alike;
mod before;
mod count;
mod counting;
pub(crate) mod ladder;

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

use crate::translation::before::Before;
use crate::translation::count::Count;
use crate::translation::counting::{Answer, Done, Job, Work};
use crate::translation::ladder::{Found, Interval, Ladder, Rung};

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
/// How many of them are remembered for one flow; and beyond which number of them in all only a few.
const TRIED: (usize, usize) = (4_096, 500_000);
/// How many counted places are kept, likewise.
const COUNTED: (usize, usize) = (4_096, 500_000);
/// So few.
const FEW: usize = 64;
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
    /// Counted places of all flows, and offsets that were counted to no end.
    counted: usize,
    tried: usize,
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
            tried: 0,
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
        self.tried = self.flows.values().map(|h| h.tried.len()).sum();
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
        let had = history.tried.len();
        for answer in done.answers {
            let (offset, target, exact, again) = match answer {
                Answer::Exact(rung) => {
                    let most = most(self.counted, COUNTED);
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
        }
        // Those go that would be counted next all the same.
        let most = most(self.tried, TRIED);
        if history.tried.len() > most {
            history.tried.retain(|_, t| t.again > now);
        }
        if let Some(over @ 1..) = history.tried.len().checked_sub(most) {
            let next = history.tried.iter().map(|(offset, t)| (t.again, *offset));
            let mut next: Vec<(Instant, i64)> = next.collect();
            next.sort_unstable();
            for (_, offset) in next.into_iter().take(over) {
                history.tried.remove(&offset);
            }
        }
        self.tried = (self.tried + history.tried.len()).saturating_sub(had);
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

/// How many a flow may have where all have so many.
fn most(all: usize, (of_one, of_all): (usize, usize)) -> usize {
    if all < of_all { of_one } else { FEW }
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
#[path = "translation/translation_test.rs"]
mod tests;

#[cfg(test)]
#[path = "translation/counting_test.rs"]
mod counting_test;
