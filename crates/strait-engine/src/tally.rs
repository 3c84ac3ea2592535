//! Counting along a flow's two partitions between two known positions: how many records of the source were forwarded,
//! and where on the target the n-th of them stands. For who translates offsets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strait_net::{Cluster, Runtime};
use strait_wire::{GapReason, Isolation};
use tokio::time::Instant;

pub use crate::contents::Contents;
use crate::error::FlowError;
use crate::limits;
use crate::partition::{Fetched, PartitionReader, batches_from};
use crate::patience::Patience;
use crate::routes::Routes;
use crate::spec::FlowKey;
use crate::stitch::{Item, Stitch, StitchError};

/// How long a log may give nothing of what lies below a position.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a broker may wait with its answer.
pub(crate) const WAIT: Duration = Duration::from_millis(200);

/// How long an answer under way is awaited when the time is over.
const GRACE: Duration = Duration::from_secs(1);

/// What may be spent on counting, by all who count side by side.
#[derive(Debug)]
pub struct Budget {
    rt: Runtime,
    bytes: AtomicU64,
    until: Instant,
}

impl Budget {
    /// So many bytes to read, and so much time.
    pub fn new(rt: &Runtime, bytes: u64, time: Duration) -> Self {
        Self {
            rt: rt.clone(),
            bytes: AtomicU64::new(bytes),
            until: rt.now() + time,
        }
    }

    /// Whether nothing is left.
    pub fn spent(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) == 0 || self.rt.now() >= self.until
    }

    fn take(&self, bytes: usize) {
        let take = |left: u64| Some(left.saturating_sub(bytes as u64));
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// What a fetch brings, taken off; nothing where the budget is used up before.
    pub(crate) async fn fetch(
        &self,
        fetching: impl Future<Output = Result<Fetched, FlowError>>,
    ) -> Option<Result<Fetched, FlowError>> {
        if self.spent() {
            return None;
        }
        let fetched = tokio::select! {
            done = fetching => done,
            () = self.rt.sleep_until(self.until + GRACE) => return None,
        };
        if let Ok(fetched) = &fetched {
            self.take(fetched.part.records.len());
        }
        Some(fetched)
    }
}

/// Reads the two sides of flows, by routes of its own.
#[derive(Clone, Debug)]
pub struct Tally {
    rt: Runtime,
    source: Arc<Routes>,
    target: Arc<Routes>,
}

/// A stretch of a source partition.
#[derive(Clone, Debug)]
pub struct Stretch<'a> {
    /// The partition.
    pub flow: &'a FlowKey,
    /// Which records count.
    pub isolation: Isolation,
    /// Whether the source's policy contains `compact`.
    pub compacted: bool,
    /// The first offset.
    pub from: i64,
    /// The offset behind the last one.
    pub to: i64,
}

/// What was counted in a [`Stretch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// For each cut the records that would be forwarded below it, and whether every offset there is accounted for: none
    /// can have been forwarded and be gone since. Nothing where reading ended before it.
    pub below: Vec<Option<(i64, bool)>>,
    /// The same for the whole stretch.
    pub all: Option<(i64, bool)>,
    /// How far was read, what was counted until there, and whether every offset is accounted for.
    pub reached: (i64, i64, bool),
}

/// Where a record stands on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The offset behind as many records as were asked for.
    pub offset: i64,
    /// Whether every batch before it was seen; if not, it may stand higher.
    pub whole: bool,
}

impl Tally {
    /// Reads flows from `source` to `target`.
    pub fn new(rt: Runtime, source: Cluster, target: Cluster) -> Self {
        Self {
            source: Arc::new(Routes::new(rt.clone(), source)),
            target: Arc::new(Routes::new(rt.clone(), target)),
            rt,
        }
    }

    pub(crate) fn rt(&self) -> &Runtime {
        &self.rt
    }

    pub(crate) fn source_reader(&self, stretch: &Stretch<'_>) -> PartitionReader {
        PartitionReader {
            source: true,
            rt: self.rt.clone(),
            routes: self.source.clone(),
            topic: stretch.flow.topic.clone(),
            partition: stretch.flow.partition,
            isolation: stretch.isolation,
        }
    }

    pub(crate) fn target_reader(&self, (topic, partition): (&str, i32)) -> PartitionReader {
        PartitionReader {
            source: false,
            rt: self.rt.clone(),
            routes: self.target.clone(),
            topic: topic.to_owned(),
            partition,
            isolation: Isolation::ReadUncommitted,
        }
    }

    /// Counts, by headers wherever they tell, what the mirror forwards of the stretch; `cuts` are in order and inside of it.
    /// Takes what it reads off `budget`, and ends where that is used up. Nothing where the log begins behind `from`.
    ///
    /// # Errors
    /// The source cannot be read.
    pub async fn count(
        &self,
        stretch: &Stretch<'_>,
        cuts: &[i64],
        budget: &Budget,
    ) -> Result<Option<Counted>, FlowError> {
        let reader = self.source_reader(stretch);
        let mut stitch = Stitch::new(
            stretch.from,
            -1,
            stretch.compacted,
            stretch.isolation,
            limits::DECODE_LEAST_BYTES,
        );
        let mut counting = Counting::new(stretch.from, stretch.to, cuts);
        let mut patience = Patience::new(&self.rt, PATIENCE, stretch.from);
        while stitch.head() < stretch.to {
            let fetching = reader.fetch(stitch.head(), -1, WAIT);
            let Some(fetched) = budget.fetch(fetching).await else {
                break;
            };
            let fetched = fetched?;
            if fetched.part.error != 0 {
                return Ok(None);
            }
            let mut items = Vec::new();
            // Elections that the mirror has passed are not judged again: its own position tells of a truncation.
            match stitch.admit(&fetched.part, true, &mut items) {
                Ok(()) | Err(StitchError::Hole { .. }) => {}
                Err(StitchError::Stale { found, .. }) => stitch.confirm(found),
                Err(error) => return Err(error.into()),
            }
            for item in &items {
                counting.take(item)?;
            }
            if stitch.head() < stretch.to && !patience.asks_again(stitch.head()).await {
                return Ok(None);
            }
        }
        Ok(Some(counting.finish()))
    }

    /// The target offset behind `records` records of the partition from `from` on, `to` at the most: control batches, those of
    /// the mirror's own fences, take offsets and are no records. Nothing where the log begins behind `from`, or where
    /// `budget` is used up before.
    ///
    /// # Errors
    /// The target cannot be read.
    pub async fn place(
        &self,
        (topic, partition): (&str, i32),
        (from, to): (i64, i64),
        records: i64,
        budget: &Budget,
    ) -> Result<Option<Placed>, FlowError> {
        let reader = self.target_reader((topic, partition));
        let mut placing = Placing::new(from, to, records);
        let mut patience = Patience::new(&self.rt, PATIENCE, from);
        while placing.placed().is_none() {
            let next = placing.next;
            let fetching = reader.fetch(next, -1, WAIT);
            let Some(fetched) = budget.fetch(fetching).await else {
                return Ok(None);
            };
            let fetched = fetched?;
            if fetched.part.error != 0 {
                return Ok(None);
            }
            for batch in batches_from(&fetched.part, next)? {
                let header = &batch.header;
                placing.take(
                    header.base_offset,
                    header.last_offset() + 1,
                    header.attributes.control(),
                );
            }
            if placing.placed().is_none() && !patience.asks_again(placing.next).await {
                return Ok(None);
            }
        }
        Ok(placing.placed())
    }
}

/// The way along the target over so many records.
struct Placing {
    next: i64,
    to: i64,
    left: i64,
    whole: bool,
}

impl Placing {
    fn new(from: i64, to: i64, records: i64) -> Self {
        Self {
            next: from,
            to,
            left: records,
            whole: true,
        }
    }

    /// The place, once it is reached.
    fn placed(&self) -> Option<Placed> {
        (self.left == 0 || self.next >= self.to).then(|| Placed {
            offset: self.next.min(self.to),
            whole: self.whole,
        })
    }

    /// Takes the next batch, of offsets from `base` to below `end`.
    fn take(&mut self, base: i64, end: i64, control: bool) {
        let base = base.max(self.next);
        // What is missing may have been records or markers: taken for records, the place found is the lower one.
        if base > self.next && self.left > 0 {
            self.whole = false;
            self.over(base);
        }
        if self.left > 0 && control {
            self.next = end;
        } else {
            self.over(end);
        }
    }

    /// Over records up to `end`, or as many as are left.
    fn over(&mut self, end: i64) {
        let records = (end - self.next).clamp(0, self.left);
        self.next += records;
        self.left -= records;
    }
}

/// The count while it is made.
struct Counting<'a> {
    to: i64,
    cuts: &'a [i64],
    below: Vec<Option<(i64, bool)>>,
    reached: i64,
    records: i64,
    whole: bool,
    /// At the end of the stretch.
    all: Option<(i64, bool)>,
}

impl<'a> Counting<'a> {
    fn new(from: i64, to: i64, cuts: &'a [i64]) -> Self {
        Self {
            to,
            cuts,
            below: Vec::with_capacity(cuts.len()),
            reached: from,
            records: 0,
            whole: true,
            all: None,
        }
    }

    fn take(&mut self, item: &Item) -> Result<(), FlowError> {
        let (first, end, count, dense) = match item {
            Item::Gap {
                reason, from, to, ..
            } => {
                let gone = matches!(reason, GapReason::Compacted | GapReason::Unexplained);
                (*from, *to, 0, !gone)
            }
            Item::Batch(outgoing) => {
                let count = i64::from(outgoing.count());
                let (first, end) = (outgoing.first, outgoing.last + 1);
                (first, end, count, end - first == count)
            }
        };
        let mut offsets = None;
        let mut below = |cut: i64, whole: bool| -> Result<(i64, bool), FlowError> {
            if cut <= first {
                return Ok((0, whole));
            }
            let Item::Batch(outgoing) = item else {
                return Ok((0, whole && dense));
            };
            if dense {
                return Ok((cut - first, whole));
            }
            if offsets.is_none() {
                let wire = |source| StitchError::wire(first, source);
                let records = outgoing.records().map_err(wire)?;
                offsets = Some(records.into_iter().map(|r| r.offset).collect::<Vec<i64>>());
            }
            let known = offsets.as_deref().unwrap_or_default();
            Ok((known.iter().filter(|o| **o < cut).count() as i64, false))
        };
        while let Some(&cut) = self.cuts.get(self.below.len())
            && cut <= end
        {
            let (count, whole) = if cut == end {
                (count, self.whole && dense)
            } else {
                below(cut, self.whole)?
            };
            self.below.push(Some((self.records + count, whole)));
        }
        if end >= self.to && self.all.is_none() {
            let (count, whole) = if end == self.to {
                (count, self.whole && dense)
            } else {
                below(self.to, self.whole)?
            };
            self.all = Some((self.records + count, whole));
        }
        self.records += count;
        self.whole &= dense;
        self.reached = end;
        Ok(())
    }

    fn finish(mut self) -> Counted {
        self.below.resize(self.cuts.len(), None);
        Counted {
            below: self.below,
            all: self.all,
            reached: (self.reached, self.records, self.whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;

    fn gap(reason: GapReason, from: i64, to: i64) -> Item {
        Item::Gap {
            reason,
            from,
            to,
            source_epoch: 2,
        }
    }

    fn counted(items: &[Item], to: i64, cuts: &[i64]) -> Counted {
        let mut counting = Counting::new(100, to, cuts);
        for item in items {
            counting.take(item).unwrap();
        }
        counting.finish()
    }

    #[test]
    fn records_below_each_cut_are_counted_over_markers() {
        let items = [
            Item::Batch(sample(100, 10).outgoing()),
            gap(GapReason::Control, 110, 111),
            gap(GapReason::Aborted, 111, 115),
            Item::Batch(sample(115, 10).outgoing()),
        ];
        let found = counted(&items, 120, &[100, 104, 110, 111, 113, 115, 116]);
        let expected = [0, 4, 10, 10, 10, 10, 11].map(|n| Some((n, true)));
        assert_eq!(found.below, expected);
        assert_eq!(found.all, Some((15, true)));
        assert_eq!(found.reached, (125, 20, true));
    }

    #[test]
    fn markers_on_the_target_are_no_records() {
        // Two fences, and a hole at 120.
        let log = [
            (95, 105, false),
            (105, 106, true),
            (106, 110, false),
            (110, 111, true),
            (111, 120, false),
            (125, 130, false),
        ];
        // Records from 100 on, the place behind them, and whether it is certain.
        for (records, offset, whole) in [
            (0, 100, true),
            (5, 105, true),
            (6, 107, true),
            (9, 110, true),
            (10, 112, true),
            (18, 120, true),
            (19, 121, false),
            (24, 126, false),
            (90, 128, false),
        ] {
            let mut placing = Placing::new(100, 128, records);
            for (base, end, control) in log {
                if placing.placed().is_none() {
                    placing.take(base, end, control);
                }
            }
            let expected = Placed { offset, whole };
            assert_eq!(placing.placed(), Some(expected), "{records}");
        }
    }

    #[test]
    fn what_may_be_gone_is_no_whole_count() {
        let items = [
            Item::Batch(sample(100, 10).outgoing()),
            gap(GapReason::Compacted, 110, 120),
            Item::Batch(sample(120, 5).outgoing()),
        ];
        let found = counted(&items, 125, &[105, 110, 115, 122]);
        assert_eq!(
            found.below,
            [(5, true), (10, true), (10, false), (12, false)].map(Some)
        );
        assert_eq!(found.all, Some((15, false)));
        let short = counted(&items[..1], 125, &[105, 115]);
        assert_eq!(short.below, [Some((5, true)), None]);
        assert_eq!(short.all, None);
    }
}
