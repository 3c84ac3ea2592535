//! Counting in the logs what two known positions leave open: many flows side by side.

use std::collections::BTreeMap;
use std::sync::Arc;

use strait_engine::tally::{Budget, Stretch, Tally};
use strait_engine::{FlowError, FlowKey};
use strait_wire::Isolation;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::translation::alike::Alike;
use crate::translation::count::Count;
use crate::translation::ladder::{Interval, Rung};

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
    /// Nothing was gone yet when it was mirrored.
    pub(crate) complete: bool,
    pub(crate) work: Vec<Work>,
    /// A count that did not come to its end.
    pub(crate) begun: Option<Count>,
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
    pub(crate) begun: Option<Count>,
}

impl Job {
    /// Counts until the budget is used up: first what was begun with.
    pub(crate) async fn run(mut self, tally: Tally, budget: &Budget) -> Done {
        let mut done = Done {
            flow: self.flow.clone(),
            answers: Vec::new(),
            begun: self.begun.take(),
        };
        let mut works = std::mem::take(&mut self.work);
        if let Some(count) = &mut done.begun {
            count.want(&mut works);
            if !count.idle() {
                done.answers = count.go_on(&self, &tally, budget).await;
            }
        }
        for work in works.iter().filter(|work| !work.cuts.is_empty()) {
            if budget.spent() {
                break;
            }
            let mut count = Count::new(work, self.compacted);
            done.answers
                .extend(count.go_on(&self, &tally, budget).await);
            if !count.idle() && done.begun.as_ref().is_none_or(Count::idle) {
                done.begun = Some(count);
            }
        }
        done
    }

    /// What the records that are left on both sides of an interval tell of offsets: their places, and which are known. Nothing
    /// where the budget is used up before.
    pub(crate) async fn compare(
        &self,
        interval: &Interval,
        cuts: &[i64],
        tally: &Tally,
        budget: &Budget,
    ) -> Option<BTreeMap<i64, (i64, bool)>> {
        let _one = self.comparing.acquire().await;
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
        let (mut source, mut target) = match both.await {
            Ok(Some(both)) => both,
            Ok(None) if budget.spent() => return None,
            Ok(None) => return Some(BTreeMap::new()),
            Err(error) => {
                debug!(flow = %self.flow, "cannot compare records to translate an offset: {error}");
                return Some(BTreeMap::new());
            }
        };
        // Of a batch that was compacted before it was mirrored no more than this is certain.
        if !self.complete {
            let records = source.records.iter();
            source.were = records.map(|(offset, _)| (*offset, offset + 1)).collect();
        }
        // Whatever the target has lost: no marker ever stood there.
        if interval.markers() == 0 {
            target.were = vec![range];
        }
        let Some(mut alike) = Alike::new(interval, &source, &target) else {
            return Some(BTreeMap::new());
        };
        let places = cuts
            .iter()
            .filter_map(|&cut| Some((cut, alike.place(cut)?)));
        Some(places.collect())
    }
}
