//! Counting in the logs what two known positions leave open: many flows side by side.

use std::collections::BTreeMap;
use std::sync::Arc;

use strait_engine::tally::{Budget, Counted, Stretch, Tally};
use strait_engine::{FlowError, FlowKey};
use strait_wire::Isolation;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::alike::Alike;
use crate::ladder::{Interval, Rung};

/// Records of one side that are compared at the most.
const COMPARED: usize = 100_000;

/// What has to be counted of one flow.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) flow: FlowKey,
    /// Topic and partition on the target.
    pub(crate) place: (String, i32),
    pub(crate) isolation: Isolation,
    pub(crate) compacted: bool,
    pub(crate) work: Vec<Work>,
    /// A count downwards that did not come to its end.
    pub(crate) begun: Option<Begun>,
    /// Held by who compares records, which takes memory.
    pub(crate) comparing: Arc<Semaphore>,
}

/// Offsets between two positions, in order.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) interval: Interval,
    pub(crate) cuts: Vec<i64>,
    /// Every record that the source has there was forwarded.
    pub(crate) countable: bool,
}

/// Records counted from an offset on, towards the position above it, every offset on the way accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) from: i64,
    pub(crate) reached: i64,
    pub(crate) records: i64,
}

/// What was found out about an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is known.
    Exact(Rung),
    /// Its place is known, though not how many records lie below.
    Placed(i64, i64),
    /// The place is no lower than this; reading once more would tell no more.
    AtLeast(i64, i64),
    /// As before, but something went wrong: it may be tried again before long.
    Failed(i64, i64),
}

/// What became of a [`Job`].
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) flow: FlowKey,
    pub(crate) answers: Vec<Answer>,
    pub(crate) begun: Option<Begun>,
}

/// For each cut the records forwarded below it, and whether that is certain; else at least so many.
#[derive(Debug, Default)]
struct Counts {
    cuts: Vec<(i64, i64, bool)>,
    /// The budget ended before all of them: what is not certain is gone on with.
    open: bool,
    failed: bool,
    begun: Option<Begun>,
}

impl Job {
    /// Counts until the budget is used up.
    pub(crate) async fn run(self, tally: Tally, budget: &Budget) -> Done {
        let mut done = Done {
            flow: self.flow.clone(),
            answers: Vec::new(),
            begun: self.begun,
        };
        for work in &self.work {
            if budget.spent() {
                break;
            }
            let counts = self.counts(work, &tally, budget).await;
            done.begun = counts.begun.or(done.begun);
            let doubtful = counts.cuts.iter().any(|(_, _, sure)| !sure);
            let alike = if self.compacted && doubtful && work.countable && !counts.open {
                self.compare(work, &tally, budget).await
            } else {
                BTreeMap::new()
            };
            for (offset, records, sure) in counts.cuts {
                let placed = self.place_in(&work.interval, records, &tally, budget).await;
                let (target, exact) = placed.unwrap_or((work.interval.place(records).0, false));
                if let (false, Some(&(place, known))) = (sure, alike.get(&offset)) {
                    done.answers.push(if known {
                        Answer::Placed(offset, place)
                    } else {
                        Answer::AtLeast(offset, target.max(place))
                    });
                    continue;
                }
                done.answers.push(if sure && exact {
                    Answer::Exact(Rung {
                        source: offset,
                        target,
                        forwarded: work.interval.below.forwarded + records,
                    })
                } else if counts.open || budget.spent() {
                    continue;
                } else if counts.failed || placed.is_none() {
                    Answer::Failed(offset, target)
                } else {
                    Answer::AtLeast(offset, target)
                });
            }
        }
        done
    }

    /// What the records that are left on both sides tell of the cuts: their places, and which are known.
    async fn compare(
        &self,
        work: &Work,
        tally: &Tally,
        budget: &Budget,
    ) -> BTreeMap<i64, (i64, bool)> {
        let _one = self.comparing.acquire().await;
        let interval = &work.interval;
        let stretch = Stretch {
            flow: &self.flow,
            isolation: self.isolation,
            compacted: true,
            from: interval.below.source,
            to: interval.above.source,
        };
        let range = (interval.below.target, interval.above.target);
        let place = (self.place.0.as_str(), self.place.1);
        let both = async {
            let Some(source) = tally.source_contents(&stretch, COMPARED, budget).await? else {
                return Ok(None);
            };
            let target = tally
                .target_contents(place, range, COMPARED, budget)
                .await?;
            Ok::<_, FlowError>(target.map(|target| (source, target)))
        };
        let (source, target) = match both.await {
            Ok(Some(both)) => both,
            Ok(None) => return BTreeMap::new(),
            Err(error) => {
                debug!(flow = %self.flow, "cannot compare records to translate an offset: {error}");
                return BTreeMap::new();
            }
        };
        let Some(mut alike) = Alike::new(interval, &source, &target) else {
            return BTreeMap::new();
        };
        let cuts = work.cuts.iter();
        cuts.filter_map(|&cut| Some((cut, alike.place(cut)?)))
            .collect()
    }

    async fn counts(&self, work: &Work, tally: &Tally, budget: &Budget) -> Counts {
        let Work { interval, cuts, .. } = work;
        let (below, above) = (interval.below, interval.above);
        let (Some(&least), Some(&most)) = (cuts.first(), cuts.last()) else {
            return Counts::default();
        };
        let certain = |cuts| Counts {
            cuts,
            ..Counts::default()
        };
        let floor = || cuts.iter().map(|&c| (c, interval.at_least(c), false));
        // No offset was left out: markers of the target alone stand between.
        if above.source - below.source == interval.forwarded() {
            return certain(cuts.iter().map(|&c| (c, c - below.source, true)).collect());
        }
        if !work.countable {
            return certain(floor().collect());
        }
        // What has to be read from a far rung on is not lost where the budget ends on the way.
        let from_above = !self.compacted && (above.source - least) < (most - below.source) / 4;
        let begun = self
            .begun
            .filter(|begun| from_above && begun.from == least && begun.reached < above.source);
        let from = begun.map_or(least, |begun| begun.reached);
        let stretch = Stretch {
            flow: &self.flow,
            isolation: self.isolation,
            compacted: self.compacted,
            from: if from_above { from } else { below.source },
            to: if self.compacted || from_above {
                above.source
            } else {
                most
            },
        };
        let wanted: Vec<i64> = match begun {
            Some(begun) => cuts
                .iter()
                .copied()
                .filter(|&c| c >= begun.reached)
                .collect(),
            None => cuts.clone(),
        };
        let counted = match tally.count(&stretch, &wanted, budget).await {
            Ok(Some(counted)) => counted,
            failed => {
                if let Err(error) = failed {
                    debug!(flow = %self.flow, "cannot count records to translate an offset: {error}");
                }
                return Counts {
                    cuts: floor().collect(),
                    failed: true,
                    ..Counts::default()
                };
            }
        };
        // Nothing came in all the time there was: others have their turn before.
        let stuck = counted.reached.0 <= stretch.from && stretch.from < stretch.to;
        let open = counted.reached.0 < stretch.to && !stuck;
        if from_above {
            let carried = begun.unwrap_or(Begun {
                from: least,
                reached: least,
                records: 0,
            });
            let (reached, records, whole) = counted.reached;
            let on_the_way = open && whole && reached > carried.reached;
            Counts {
                cuts: counted_down(interval, cuts, &wanted, carried.records, &counted),
                open,
                failed: stuck,
                begun: on_the_way.then(|| Begun {
                    from: least,
                    reached,
                    records: carried.records + records,
                }),
            }
        } else {
            Counts {
                cuts: counted_up(interval, cuts, &counted, stretch.to),
                open,
                failed: stuck,
                begun: None,
            }
        }
    }

    /// Where so many records of the interval end on the target, and whether that is certain. Nothing where it cannot be read.
    async fn place_in(
        &self,
        interval: &Interval,
        records: i64,
        tally: &Tally,
        budget: &Budget,
    ) -> Option<(i64, bool)> {
        let (offset, sure) = interval.place(records);
        if sure {
            return Some((offset, true));
        }
        let range = (interval.below.target, interval.above.target);
        let place = (self.place.0.as_str(), self.place.1);
        match tally.place(place, range, records, budget).await {
            Ok(placed) => placed.map(|placed| (placed.offset, placed.whole)),
            Err(error) => {
                debug!(topic = %place.0, partition = place.1, "cannot count markers to translate an offset: {error}");
                None
            }
        }
    }
}

/// From the rung below on; a further one for what was reached on the way.
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

/// From the first cut to the rung above, `carried` records of it before: only where every offset is accounted for. What is
/// gone would be missing above, and the place found would lie too far on. Of the cuts only those `wanted`, and the first.
fn counted_down(
    interval: &Interval,
    cuts: &[i64],
    wanted: &[i64],
    carried: i64,
    counted: &Counted,
) -> Vec<(i64, i64, bool)> {
    let below = |cut: i64| match wanted.binary_search(&cut) {
        Ok(at) => {
            let below = counted.below.get(at).copied().flatten();
            below.map(|(records, whole)| (carried + records, whole))
        }
        Err(_) => (cuts.first() == Some(&cut)).then_some((0, true)),
    };
    cuts.iter()
        .map(|&cut| match (below(cut), counted.all) {
            (Some((before, true)), Some((all, true))) if carried + all <= interval.forwarded() => {
                (cut, interval.forwarded() - (carried + all - before), true)
            }
            _ => (cut, interval.at_least(cut), false),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let down = |all| {
            let counted = counted(vec![Some((0, true))], Some((40, all)));
            counted_down(&interval, &[50], &[50], 0, &counted)
        };
        assert_eq!(down(false), [(50, 30, false)]);
        assert_eq!(down(true), [(50, 40, true)]);
    }

    #[test]
    fn a_count_downwards_goes_on_where_it_was() {
        let interval = interval((0, 0, 0), (1_000, 800, 800));
        // Of the 250 offsets from 750 on those below 900 were counted before: 120 records. 80 more are above.
        let rest = Counted {
            below: vec![Some((50, true))],
            all: Some((80, true)),
            reached: (1_000, 80, true),
        };
        let found = counted_down(&interval, &[750, 800, 950], &[950], 120, &rest);
        let floor = interval.at_least(800);
        assert_eq!(
            found,
            [(750, 600, true), (800, floor, false), (950, 770, true)]
        );
    }
}
