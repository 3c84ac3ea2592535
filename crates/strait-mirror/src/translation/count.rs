//! Counting along both sides of one interval, over several rounds where one does not suffice: how many records of the source
//! were forwarded below an offset, and where on the target so many of them end.

use std::collections::{BTreeMap, BTreeSet};

use strait_engine::tally::{Budget, Counted, Stretch, Tally, Walked};
use tracing::debug;

use crate::translation::counting::{Answer, Job, Work};
use crate::translation::ladder::{Interval, Rung};

/// Rounds in which the records of both sides may be compared in vain: what did not fit into the budget of the first may fit
/// into the next one's, of which nothing is used up yet.
const COMPARES: u8 = 3;

/// An offset with the records forwarded below it, and whether that is certain; else at least so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passed {
    offset: i64,
    records: i64,
    sure: bool,
}

/// A count, and where it has got to. What it has found holds as long as the flow's history goes on.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    interval: Interval,
    /// From the first offset up to the position above, instead of up from the one below.
    from_above: bool,
    compacted: bool,
    /// Offsets that were not reached yet, in order.
    cuts: Vec<i64>,
    /// Those that were, and have no answer yet.
    passed: Vec<Passed>,
    /// Where reading the source got to, what was counted on the way, and whether every offset is accounted for.
    reached: (i64, i64, bool),
    /// The same at the position above.
    all: Option<(i64, bool)>,
    /// What was counted is what can be told; else at its end it is not settled yet what that is.
    settled: bool,
    /// How often records are compared still.
    compares: u8,
    walked: Walked,
}

impl Count {
    /// Of some offsets of an interval.
    pub(crate) fn new(work: &Work, compacted: bool) -> Self {
        let Work { interval, cuts, .. } = work;
        let (below, above) = (interval.below, interval.above);
        let least = cuts.first().copied().unwrap_or(below.source);
        let most = cuts.last().copied().unwrap_or(below.source);
        // Where markers stand on the target the places would have to be counted from below all the same.
        let from_above = !compacted
            && interval.markers() == 0
            && (above.source - least) < (most - below.source) / 4;
        let from = if from_above { least } else { below.source };
        let mut count = Self {
            interval: *interval,
            from_above,
            compacted,
            cuts: Vec::new(),
            passed: Vec::new(),
            reached: (from, 0, true),
            all: None,
            settled: false,
            compares: if compacted { COMPARES } else { 0 },
            walked: Walked::from(below.target),
        };
        // No offset was left out: markers of the target alone stand between.
        let dense = above.source - below.source == interval.forwarded();
        if dense || !work.countable {
            (count.settled, count.compares) = (true, 0);
            count.reached.0 = above.source;
            let passed = cuts.iter().map(|&offset| Passed {
                offset,
                records: if dense {
                    offset - below.source
                } else {
                    interval.at_least(offset)
                },
                sure: dense,
            });
            count.passed = passed.collect();
        } else {
            count.cuts.clone_from(cuts);
        }
        count
    }

    /// Nothing is wanted of it.
    pub(crate) fn idle(&self) -> bool {
        self.cuts.is_empty() && self.passed.is_empty()
    }

    /// Takes what it can tell out of what is wanted now, and tells nothing else from now on: but the last place that was counted,
    /// from which somebody else can go on. Where another position is known since before an offset, it is not counted from here.
    pub(crate) fn want(&mut self, works: &mut [Work]) {
        let wanted: BTreeSet<i64> = works.iter().flat_map(|w| &w.cuts).copied().collect();
        let last = self.passed.last().map(|p| p.offset);
        self.passed
            .retain(|p| wanted.contains(&p.offset) || last == Some(p.offset));
        let passed: BTreeSet<i64> = self.passed.iter().map(|p| p.offset).collect();
        let (reached, ahead) = (self.reached.0, self.reached.0..self.interval.above.source);
        let mut cuts = BTreeSet::new();
        for work in works {
            let here = work.interval.below.source <= reached;
            work.cuts.retain(|cut| {
                let taken = here && ahead.contains(cut) && !passed.contains(cut);
                if taken {
                    cuts.insert(*cut);
                }
                !taken && !passed.contains(cut)
            });
        }
        self.cuts = cuts.into_iter().collect();
        self.settled &= self.cuts.is_empty();
    }

    /// Goes on until the budget is used up; nothing is wanted any more at the end.
    pub(crate) async fn go_on(&mut self, job: &Job, tally: &Tally, budget: &Budget) -> Vec<Answer> {
        if !self.settled && !self.read_on(job, tally, budget).await {
            return self.failed();
        }
        let mut answers = Vec::new();
        if self.settled && self.compares > 0 && self.passed.iter().any(|p| !p.sure) {
            match job
                .compare(&self.interval, &self.doubtful(), tally, budget)
                .await
            {
                Some(alike) => {
                    self.compares = 0;
                    self.compared(&alike, &mut answers);
                }
                None => self.compares -= 1,
            }
            if self.compares > 0 && budget.spent() {
                return answers;
            }
        }
        if !self.place(job, tally, budget, &mut answers).await {
            answers.extend(self.failed());
        }
        answers
    }

    fn doubtful(&self) -> Vec<i64> {
        let doubtful = self.passed.iter().filter(|p| !p.sure);
        doubtful.map(|p| p.offset).collect()
    }

    /// Something went wrong, or nothing came in all the time there was: others have their turn before.
    fn failed(&mut self) -> Vec<Answer> {
        let passed = std::mem::take(&mut self.passed);
        let passed = passed.into_iter().map(|p| p.offset);
        let all = passed.chain(std::mem::take(&mut self.cuts));
        let interval = self.interval;
        let floor = |offset| interval.place(interval.at_least(offset)).0;
        all.map(|offset| Answer::Failed(offset, floor(offset)))
            .collect()
    }

    /// Reads the source on. Whether that went well.
    async fn read_on(&mut self, job: &Job, tally: &Tally, budget: &Budget) -> bool {
        let above = self.interval.above.source;
        let (from, ..) = self.reached;
        // Of a compacted topic it is the whole that tells whether something is gone.
        let to = if self.compacted || self.from_above {
            above
        } else {
            self.cuts.last().copied().unwrap_or(from)
        };
        if from < to {
            let stretch = Stretch {
                flow: &job.flow,
                isolation: job.isolation,
                compacted: self.compacted,
                from,
                to,
            };
            let fresh = !budget.spent();
            match tally.count(&stretch, &self.cuts, budget).await {
                Ok(Some(counted)) if fresh && counted.reached.0 <= from => return false,
                Ok(Some(counted)) => self.take(&counted, to == above),
                failed => {
                    if let Err(error) = failed {
                        debug!(flow = %job.flow, "cannot count records to translate an offset: {error}");
                    }
                    return false;
                }
            }
        } else {
            let (_, records, sure) = self.reached;
            let here = std::mem::take(&mut self.cuts).into_iter();
            self.passed.extend(here.map(|offset| Passed {
                offset,
                records,
                sure,
            }));
        }
        if self.reached.0 >= to {
            self.settle();
        }
        true
    }

    /// What was counted from where it had got to.
    fn take(&mut self, counted: &Counted, to_above: bool) {
        let (_, before, sure) = self.reached;
        let sum = |(records, whole): (i64, bool)| (before + records, sure && whole);
        let below = counted.below.iter().map_while(|below| below.map(sum));
        let passed: Vec<_> = self.cuts.iter().copied().zip(below).collect();
        self.cuts.drain(..passed.len());
        let passed = passed.into_iter().map(|(offset, (records, sure))| Passed {
            offset,
            records,
            sure,
        });
        self.passed.extend(passed);
        if to_above {
            self.all = counted.all.map(sum);
        }
        let (at, records, whole) = counted.reached;
        if at > self.reached.0 {
            let (records, whole) = sum((records, whole));
            self.reached = (at, records, whole);
        }
    }

    /// The source was read as far as it has to be.
    fn settle(&mut self) {
        let interval = self.interval;
        let forwarded = interval.forwarded();
        for passed in &mut self.passed {
            let Passed {
                offset,
                records,
                sure,
            } = *passed;
            let known = if self.from_above {
                // What is gone would be missing above, and the place found would lie too far on.
                match self.all {
                    Some((all, true)) if sure && all <= forwarded => {
                        Some(forwarded - (all - records))
                    }
                    _ => None,
                }
            } else {
                // Nothing that was forwarded is gone: then nothing of a part is.
                let complete = self.all.is_some_and(|(all, _)| all == forwarded);
                (records <= forwarded && (sure || complete)).then_some(records)
            };
            // Some may be gone since, none can have come.
            let floor = if self.from_above || records > forwarded {
                interval.at_least(offset)
            } else {
                records.max(interval.at_least(offset))
            };
            (passed.records, passed.sure) = (known.unwrap_or(floor), known.is_some());
        }
        self.settled = true;
    }

    /// What the records that both sides have tell.
    fn compared(&mut self, alike: &BTreeMap<i64, (i64, bool)>, answers: &mut Vec<Answer>) {
        let interval = self.interval;
        self.passed.retain(|passed| {
            let Some(&(place, known)) = alike.get(&passed.offset).filter(|_| !passed.sure) else {
                return true;
            };
            answers.push(if known {
                Answer::Placed(passed.offset, place)
            } else {
                let least = interval.place(passed.records).0;
                Answer::AtLeast(passed.offset, least.max(place))
            });
            false
        });
    }

    /// Answers those whose places on the target are known, as far as the budget allows. Whether that went well.
    async fn place(
        &mut self,
        job: &Job,
        tally: &Tally,
        budget: &Budget,
        answers: &mut Vec<Answer>,
    ) -> bool {
        let interval = self.interval;
        // Before it is settled, what is known by itself.
        let early = !self.from_above;
        let known = |p: &Passed| p.sure && p.records <= interval.forwarded();
        let told = |p: &Passed, (target, exact): (i64, bool)| {
            if p.sure && exact {
                Answer::Exact(Rung {
                    source: p.offset,
                    target,
                    forwarded: interval.below.forwarded + p.records,
                })
            } else {
                Answer::AtLeast(p.offset, target)
            }
        };
        let (mut open, mut kept) = (Vec::new(), Vec::new());
        for passed in self.passed.drain(..) {
            let place = interval.place(passed.records);
            if !(self.settled || early && known(&passed)) {
                kept.push(passed);
            } else if place.1 {
                answers.push(told(&passed, place));
            } else {
                open.push(passed);
            }
        }
        self.passed = kept;
        let Some(first) = open.first() else {
            return true;
        };
        if first.records < self.walked.records {
            self.walked = Walked::from(interval.below.target);
        }
        let (fresh, from) = (!budget.spent(), self.walked.at);
        let records: Vec<i64> = open.iter().map(|p| p.records).collect();
        let place = (job.place.0.as_str(), job.place.1);
        let (walked, to) = (&mut self.walked, interval.above.target);
        let (places, well) = match tally.place(place, walked, to, &records, budget).await {
            Ok(Some(places)) => {
                let stuck = fresh && places.is_empty() && self.walked.at == from;
                (places, !stuck)
            }
            Ok(None) => (Vec::new(), false),
            Err(error) => {
                debug!(topic = %place.0, partition = place.1, "cannot count markers to translate an offset: {error}");
                (Vec::new(), false)
            }
        };
        let left = open.split_off(places.len());
        answers.extend(open.iter().zip(places).map(|(p, place)| told(p, place)));
        self.passed.extend(left);
        self.passed.sort_by_key(|p| p.offset);
        well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(
        compacted: bool,
        below: (i64, i64, i64),
        above: (i64, i64, i64),
        cuts: &[i64],
    ) -> Count {
        let rung = |(source, target, forwarded)| Rung {
            source,
            target,
            forwarded,
        };
        let work = Work {
            interval: Interval {
                below: rung(below),
                above: rung(above),
            },
            cuts: cuts.to_vec(),
            countable: true,
        };
        Count::new(&work, compacted)
    }

    fn told(count: &Count) -> Vec<(i64, i64, bool)> {
        let passed = count.passed.iter();
        passed.map(|p| (p.offset, p.records, p.sure)).collect()
    }

    #[test]
    fn what_is_gone_since_is_a_lower_bound_and_counted_down_nothing() {
        // 100 offsets, 80 forwarded; 10 of them are compacted away now.
        let counted = |below, all| Counted {
            below: vec![Some(below)],
            all: Some(all),
            reached: (100, all.0, all.1),
        };
        let up = |all| {
            let mut count = count(true, (0, 0, 0), (100, 80, 80), &[50]);
            count.take(&counted((30, false), (all, false)), true);
            count.settle();
            told(&count)
        };
        assert_eq!(up(70), [(50, 30, false)]);
        assert_eq!(up(80), [(50, 30, true)], "nothing is gone");
        let down = |all| {
            let mut count = count(false, (0, 0, 0), (100, 80, 80), &[85]);
            assert!(count.from_above);
            count.take(&counted((0, true), (10, all)), true);
            count.settle();
            told(&count)
        };
        assert_eq!(down(false), [(85, 65, false)]);
        assert_eq!(down(true), [(85, 70, true)]);
    }

    #[test]
    fn a_count_downwards_goes_on_where_it_was() {
        let mut count = count(false, (0, 0, 0), (1_000, 800, 800), &[850, 950]);
        // Of the 150 offsets from 850 on those below 900 were counted in one round: 30 records.
        count.take(
            &Counted {
                below: vec![Some((0, true)), None],
                all: None,
                reached: (900, 30, true),
            },
            true,
        );
        // Somebody has come meanwhile, and somebody has gone below what was passed.
        let mut works = [Work {
            interval: count.interval,
            cuts: vec![860, 920, 950],
            countable: true,
        }];
        count.want(&mut works);
        // Another one has a position right before it by now.
        let mut near = [Work {
            interval: Interval {
                below: Rung {
                    source: 940,
                    ..count.interval.below
                },
                ..count.interval
            },
            cuts: vec![950],
            countable: true,
        }];
        count.clone().want(&mut near);
        assert_eq!(near[0].cuts, [950]);
        assert_eq!(
            (works[0].cuts.as_slice(), count.cuts.as_slice()),
            (&[860][..], &[920, 950][..])
        );
        count.take(
            &Counted {
                below: vec![Some((10, true)), Some((30, true))],
                all: Some((60, true)),
                reached: (1_000, 60, true),
            },
            true,
        );
        count.settle();
        // The last one that was passed is told all the same.
        let expected = [(850, 710, true), (920, 750, true), (950, 770, true)];
        assert_eq!(told(&count), expected);
    }
}
