//! Offsets of the source as offsets of the target: from the positions that a link has written, and where they leave a gap
//! by counting in the logs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use strait_engine::tally::{Counted, Stretch, Tally};
use strait_engine::{FlowKey, KnownPosition, PositionTail, Rungs, SessionError, read_ladders};
use strait_net::{Cluster, Runtime};
use strait_wire::{GapReason, Position, PositionFlags, RegistryRecord, SyncKind};
use tokio::time::Instant;
use tracing::debug;

use crate::before::Before;
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
    /// Offsets that were counted and are not known exactly all the same: what they are at least, and when to try again.
    tried: BTreeMap<i64, (i64, Instant)>,
}

/// How long it takes until an offset is counted again that could not be known exactly.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// How many of them are remembered for one flow.
const TRIED: usize = 1_024;

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
    /// What MirrorMaker 2 wrote before.
    before: Before,
    /// What the registry had is known.
    loaded: bool,
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
            target,
            flows: BTreeMap::new(),
            loaded: false,
        }
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
        if !self.before.known() && self.flows.values().any(|h| h.ladder.took_over()) {
            let (source, target) = (self.source.clone(), self.target.clone());
            self.before = Before::read(&self.rt, source, target).await;
        }
        Ok(())
    }

    /// Whether the link mirrors this partition, as far as it has written a position for it.
    pub fn mirrors(&self, flow: &FlowKey) -> bool {
        self.flows.contains_key(flow)
    }

    /// The translation of an offset as far as it is known without reading: what is not exact may become it by
    /// [`count`](Self::count). Nothing for a partition that is not mirrored.
    pub fn known(&self, flow: &FlowKey, offset: i64) -> Option<Translated> {
        let history = self.flows.get(flow)?;
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
                let tried = history.tried.get(&offset).map_or(0, |(at, _)| *at);
                (target.max(tried), Exactness::LowerBound)
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
                && history.tried.get(&offset).is_none_or(|(_, at)| now >= *at)
        })
    }

    /// Counts in the logs what it takes to know these offsets of one flow exactly, and remembers it, until `budget`, in bytes,
    /// is used up; what was read is not read again. Answers with what it found.
    pub async fn count(
        &mut self,
        flow: &FlowKey,
        offsets: &BTreeSet<i64>,
        budget: &mut u64,
    ) -> BTreeMap<i64, Translated> {
        let Some(history) = self.flows.get_mut(flow) else {
            return BTreeMap::new();
        };
        if *budget == 0 {
            return BTreeMap::new();
        }
        let (tally, again) = (&self.tally, self.rt.now() + TRY_AGAIN);
        let mut open: BTreeMap<(i64, i64), (Interval, Vec<i64>)> = BTreeMap::new();
        for &offset in offsets {
            if let Found::Between(interval) = history.ladder.find(offset) {
                let key = (interval.below.source, interval.below.target);
                let entry = open.entry(key).or_insert((interval, Vec::new()));
                entry.1.push(offset);
            }
        }
        let topic = history.position.target_topic.clone();
        let place = (topic.as_str(), flow.partition);
        let mut better = BTreeMap::new();
        for (interval, cuts) in open.into_values() {
            let counts = counts(tally, flow, history, &interval, &cuts, budget).await;
            // What was reached on the way is where the next round goes on.
            let further = counts.len() > cuts.len();
            for (offset, records, sure) in counts {
                let (target, placed) = place_in(tally, place, &interval, records, budget).await;
                let exactness = if sure && placed {
                    history.ladder.add_counted(Rung {
                        source: offset,
                        target,
                        forwarded: interval.below.forwarded + records,
                    });
                    Exactness::Exact
                } else {
                    if !further {
                        if history.tried.len() >= TRIED {
                            history.tried.clear();
                        }
                        history.tried.insert(offset, (target, again));
                    }
                    Exactness::LowerBound
                };
                if offsets.contains(&offset) {
                    better.insert(offset, history.translated(target, exactness));
                }
            }
        }
        better
    }

    /// Ladders that the registry does not have yet, `most` at the most; from now on it has them.
    pub fn to_keep(&mut self, most: usize) -> Vec<RegistryRecord> {
        let changed = self
            .flows
            .iter_mut()
            .filter(|(_, history)| history.kept != history.ladder.rungs());
        changed
            .take(most)
            .map(|(flow, history)| {
                history.kept = history.ladder.rungs().to_vec();
                let newest_first = history.kept.iter().rev();
                RegistryRecord::Ladder {
                    link: self.link.clone(),
                    topic: flow.topic.clone(),
                    partition: flow.partition,
                    rungs: newest_first
                        .map(|r| (r.source, r.target, r.forwarded))
                        .collect(),
                }
            })
            .collect()
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
            || position.forwarded == 0;
        let kept = Vec::new();
        flows.insert(
            flow,
            History {
                ladder,
                position,
                begun,
                kept,
                tried: BTreeMap::new(),
            },
        );
        return;
    };
    let last = &history.position;
    let breaks = matches!(position.kind, SyncKind::Rebase | SyncKind::Takeover)
        || position.isolation != last.isolation
        || position.target_topic != last.target_topic
        || differ(&position.source_topic_id, &last.source_topic_id)
        || differ(&position.target_topic_id, &last.target_topic_id);
    if breaks || !history.ladder.push(rung) {
        history.ladder.restart(rung);
        history.tried.clear();
        history.begun = true;
    }
    history.position = position;
}

/// Whether two ids that are known are not the same.
fn differ<T: PartialEq + Default>(a: &T, b: &T) -> bool {
    let unknown = T::default();
    *a != unknown && *b != unknown && a != b
}

/// For each cut of the interval the records forwarded below it, and whether that is certain; else at least so many. Further
/// ones for what was reached on the way.
async fn counts(
    tally: &Tally,
    flow: &FlowKey,
    history: &History,
    interval: &Interval,
    cuts: &[i64],
    budget: &mut u64,
) -> Vec<(i64, i64, bool)> {
    let (below, above) = (interval.below, interval.above);
    let (Some(&least), Some(&most)) = (cuts.first(), cuts.last()) else {
        return Vec::new();
    };
    let at_least = |cut: i64| (cut, interval.at_least(cut), false);
    // No offset was left out: markers of the target alone stand between.
    if above.source - below.source == interval.forwarded() {
        return cuts.iter().map(|&c| (c, c - below.source, true)).collect();
    }
    if history.uncountable(interval) {
        return cuts.iter().map(|&c| at_least(c)).collect();
    }
    let compacted = history.position.flags.contains(PositionFlags::COMPACTED);
    // What has to be read from a far rung on is not lost where the budget ends on the way.
    let from_above = !compacted && (above.source - least) < (most - below.source) / 4;
    let stretch = Stretch {
        flow,
        isolation: history.position.isolation,
        compacted,
        from: if from_above { least } else { below.source },
        to: if compacted || from_above {
            above.source
        } else {
            most
        },
    };
    let counted = match tally.count(&stretch, cuts, budget).await {
        Ok(Some(counted)) => counted,
        Ok(None) => return cuts.iter().map(|&c| at_least(c)).collect(),
        Err(error) => {
            debug!(%flow, "cannot count records to translate an offset: {error}");
            return cuts.iter().map(|&c| at_least(c)).collect();
        }
    };
    if from_above {
        counted_down(interval, cuts, &counted)
    } else {
        counted_up(interval, cuts, &counted, stretch.to)
    }
}

/// From the rung below on.
fn counted_up(
    interval: &Interval,
    cuts: &[i64],
    counted: &Counted,
    to: i64,
) -> Vec<(i64, i64, bool)> {
    let forwarded = interval.forwarded();
    // Nothing that was forwarded is gone: then nothing of a part is.
    let complete = counted.all.is_some_and(|(n, _)| n == forwarded) && to == interval.above.source;
    let mut found: Vec<(i64, i64, bool)> = cuts
        .iter()
        .zip(&counted.below)
        .map(|(&cut, below)| match below {
            Some((records, whole)) if *records <= forwarded && (*whole || complete) => {
                (cut, *records, true)
            }
            // Some may be gone since, none can have come.
            Some((records, _)) if *records <= forwarded => {
                (cut, (*records).max(interval.at_least(cut)), false)
            }
            _ => (cut, interval.at_least(cut), false),
        })
        .collect();
    let (reached, records, whole) = counted.reached;
    let inside = interval.below.source < reached && reached < interval.above.source;
    if inside && reached < to && whole && records <= forwarded {
        found.push((reached, records, true));
    }
    found
}

/// From the first cut to the rung above: only where every offset is accounted for. What is gone would be missing above, and
/// the place found would lie too far on.
fn counted_down(interval: &Interval, cuts: &[i64], counted: &Counted) -> Vec<(i64, i64, bool)> {
    cuts.iter()
        .zip(&counted.below)
        .map(|(&cut, below)| match (below, counted.all) {
            (Some((before, true)), Some((all, true))) if all <= interval.forwarded() => {
                (cut, interval.forwarded() - (all - before), true)
            }
            _ => (cut, interval.at_least(cut), false),
        })
        .collect()
}

/// Where so many records of the interval end on the target, and whether that is certain.
async fn place_in(
    tally: &Tally,
    place: (&str, i32),
    interval: &Interval,
    records: i64,
    budget: &mut u64,
) -> (i64, bool) {
    let (offset, sure) = interval.place(records);
    if sure {
        return (offset, true);
    }
    let range = (interval.below.target, interval.above.target);
    match tally.place(place, range, records, budget).await {
        Ok(Some(placed)) => (placed.offset, placed.whole),
        Ok(None) => (offset, false),
        Err(error) => {
            debug!(topic = %place.0, partition = place.1, "cannot count markers to translate an offset: {error}");
            (offset, false)
        }
    }
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

    /// Whether the source may have records in the interval that were not forwarded: those that the target refused, and
    /// those of other links.
    fn uncountable(&self, interval: &Interval) -> bool {
        let sum = |reason| {
            let of = self.position.gaps.iter().filter(|(r, _)| *r == reason);
            of.map(|(_, offsets)| *offsets).sum::<i64>()
        };
        if self.position.flags.contains(PositionFlags::PROVENANCE) || sum(GapReason::OtherLink) > 0
        {
            return true;
        }
        let lost = &self.position.lost;
        sum(GapReason::Refused) > lost.offsets(GapReason::Refused)
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

    #[test]
    fn another_writer_of_positions_ends_it() {
        let mut flows = BTreeMap::new();
        follow(&mut flows, "a->b", flow(), position(Periodic, 5, 5, 5));
        follow(&mut flows, "a->b", flow(), KnownPosition::MirrorMaker2);
        assert!(flows.is_empty());
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

    #[test]
    fn what_is_gone_since_is_a_lower_bound_and_counted_down_nothing() {
        // 100 offsets, 80 forwarded; 10 of them are compacted away now.
        let interval = interval((0, 0, 0), (100, 80, 80));
        let counted = |below, all| Counted {
            below,
            all,
            reached: (100, 0, false),
        };
        let up = |all| {
            let counted = counted(vec![Some((30, false))], Some((all, false)));
            counted_up(&interval, &[50], &counted, 100)
        };
        assert_eq!(up(70), [(50, 30, false)]);
        assert_eq!(up(80), [(50, 30, true)], "nothing is gone");
        let down = counted(vec![Some((0, true))], Some((40, false)));
        assert_eq!(counted_down(&interval, &[50], &down), [(50, 30, false)]);
        let down = counted(vec![Some((0, true))], Some((40, true)));
        assert_eq!(counted_down(&interval, &[50], &down), [(50, 40, true)]);
    }
}
