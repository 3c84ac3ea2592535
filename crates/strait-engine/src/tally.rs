//! Counting along a flow's two partitions between two known positions: how many records of the source were forwarded,
//! and where on the target the n-th of them stands. For who translates offsets.

pub(crate) mod contents;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strait_net::{Cluster, Runtime};
use strait_wire::{Batch, GapReason, Isolation};
use tokio::time::Instant;

use crate::error::FlowError;
use crate::limits;
use crate::partition::patience::Patience;
use crate::partition::{Fetched, PartitionReader, batches_from};
use crate::routes::Routes;
use crate::spec::FlowKey;
use crate::stitch::{Item, Stitch, StitchError};
pub use crate::tally::contents::Contents;

/// How long a log may give nothing of what lies below a position.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a broker may wait with its answer.
const WAIT: Duration = Duration::from_millis(200);

/// How long an answer under way is awaited when the time is over.
const GRACE: Duration = Duration::from_secs(1);

/// What may be spent on counting, by all who count side by side: of each of the two sides as much.
#[derive(Debug)]
pub struct Budget {
    rt: Runtime,
    source: AtomicU64,
    target: AtomicU64,
    until: Instant,
}

impl Budget {
    /// So many bytes to read of the source, as many of the target, and so much time.
    pub fn new(rt: &Runtime, bytes: u64, time: Duration) -> Self {
        Self {
            rt: rt.clone(),
            source: AtomicU64::new(bytes),
            target: AtomicU64::new(bytes),
            until: rt.now() + time,
        }
    }

    /// Whether nothing is left of a side, or no time.
    pub fn spent(&self) -> bool {
        let none = |side: &AtomicU64| side.load(Ordering::Relaxed) == 0;
        none(&self.source) || none(&self.target) || self.rt.now() >= self.until
    }

    /// What a fetch brings, taken off; nothing where the side's budget, or the time, is used up before.
    pub(crate) async fn fetch(
        &self,
        reader: &PartitionReader,
        offset: i64,
    ) -> Option<Result<Fetched, FlowError>> {
        let side = if reader.source {
            &self.source
        } else {
            &self.target
        };
        if side.load(Ordering::Relaxed) == 0 || self.rt.now() >= self.until {
            return None;
        }
        let fetched = tokio::select! {
            done = reader.fetch(offset, -1, WAIT) => done,
            () = self.rt.sleep_until(self.until + GRACE) => return None,
        };
        if let Ok(fetched) = &fetched {
            let bytes = fetched.part.records.len() as u64;
            let take = |left: u64| Some(left.saturating_sub(bytes));
            let _ = side.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
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

/// How far the target was walked: what was seen to be a record below an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// The offset.
    pub at: i64,
    /// Records below it, from where the walk began.
    pub records: i64,
    /// Whether every batch on the way was seen; if not, there may be fewer.
    pub whole: bool,
}

impl Walked {
    /// A walk that begins here.
    pub fn from(at: i64) -> Self {
        Self {
            at,
            records: 0,
            whole: true,
        }
    }
}

/// How reading a stretch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was read.
    Reached,
    /// The budget was used up before.
    Spent,
    /// The log begins behind where reading began, or gives nothing of what lies below the end.
    Lost,
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

    /// Hands what the source has of a stretch to `take`, in order, until that has enough; the last item may go beyond the end.
    pub(crate) async fn read_source(
        &self,
        stretch: &Stretch<'_>,
        budget: &Budget,
        mut take: impl FnMut(&Item) -> Result<bool, FlowError>,
    ) -> Result<End, FlowError> {
        let reader = PartitionReader {
            source: true,
            rt: self.rt.clone(),
            routes: self.source.clone(),
            topic: stretch.flow.topic.clone(),
            partition: stretch.flow.partition,
            isolation: stretch.isolation,
        };
        let mut stitch = Stitch::new(
            stretch.from,
            -1,
            stretch.compacted,
            stretch.isolation,
            limits::DECODE_LEAST_BYTES,
        );
        let mut patience = Patience::new(&self.rt, PATIENCE, stretch.from);
        while stitch.head() < stretch.to {
            let Some(fetched) = budget.fetch(&reader, stitch.head()).await else {
                return Ok(End::Spent);
            };
            let fetched = fetched?;
            if fetched.part.error != 0 {
                return Ok(End::Lost);
            }
            let mut items = Vec::new();
            // Elections that the mirror has passed are not judged again: its own position tells of a truncation.
            match stitch.admit(&fetched.part, true, &mut items) {
                Ok(()) | Err(StitchError::Hole { .. }) => {}
                Err(StitchError::Stale { found, .. }) => stitch.confirm(found),
                Err(error) => return Err(error.into()),
            }
            for item in &items {
                if take(item)? {
                    return Ok(End::Reached);
                }
            }
            if stitch.head() < stretch.to && !patience.asks_again(stitch.head()).await {
                return Ok(End::Lost);
            }
        }
        Ok(End::Reached)
    }

    /// Hands the target's batches from offset `from` to below `to` to `take`, in order, until that has enough; the first one may
    /// begin below, the last one end beyond.
    pub(crate) async fn read_target(
        &self,
        (topic, partition): (&str, i32),
        (from, to): (i64, i64),
        budget: &Budget,
        mut take: impl FnMut(&Batch) -> Result<bool, FlowError>,
    ) -> Result<End, FlowError> {
        let reader = PartitionReader {
            source: false,
            rt: self.rt.clone(),
            routes: self.target.clone(),
            topic: topic.to_owned(),
            partition,
            isolation: Isolation::ReadUncommitted,
        };
        let mut next = from;
        let mut patience = Patience::new(&self.rt, PATIENCE, from);
        while next < to {
            let Some(fetched) = budget.fetch(&reader, next).await else {
                return Ok(End::Spent);
            };
            let fetched = fetched?;
            if fetched.part.error != 0 {
                return Ok(End::Lost);
            }
            for batch in batches_from(&fetched.part, next)? {
                if take(&batch)? {
                    return Ok(End::Reached);
                }
                next = next.max(batch.header.last_offset() + 1);
            }
            if next < to && !patience.asks_again(next).await {
                return Ok(End::Lost);
            }
        }
        Ok(End::Reached)
    }

    /// Counts, by headers wherever they tell, what the mirror forwards of the stretch; `cuts` are in order and inside of it.
    /// Takes what it reads off `budget`, and ends where that is used up: what was reached tells where to go on. Nothing where
    /// the log begins behind `from`.
    ///
    /// # Errors
    /// The source cannot be read.
    pub async fn count(
        &self,
        stretch: &Stretch<'_>,
        cuts: &[i64],
        budget: &Budget,
    ) -> Result<Option<Counted>, FlowError> {
        let mut counting = Counting::new(stretch.from, stretch.to, cuts);
        let end = self
            .read_source(stretch, budget, |item| counting.take(item).map(|()| false))
            .await?;
        Ok((end != End::Lost).then(|| counting.finish()))
    }

    /// The target offsets behind so many records each, in order and no less than `walked` has, `to` at the most: control
    /// batches, those of the mirror's own fences, take offsets and are no records. Each with whether every batch before it was
    /// seen; if not, it may stand higher. Goes on from `walked`, which is then as far as was read: only the first ones are
    /// told where `budget` is used up before. Nothing where the log begins behind it.
    ///
    /// # Errors
    /// The target cannot be read.
    pub async fn place(
        &self,
        place: (&str, i32),
        walked: &mut Walked,
        to: i64,
        records: &[i64],
        budget: &Budget,
    ) -> Result<Option<Vec<(i64, bool)>>, FlowError> {
        let mut placing = Placing::new(*walked, to, records);
        let mut end = End::Reached;
        if !placing.done() {
            let take = |batch: &Batch| {
                let header = &batch.header;
                let end = header.last_offset() + 1;
                placing.take(header.base_offset, end, header.attributes.control());
                Ok(placing.done())
            };
            let range = (walked.at, to);
            end = self.read_target(place, range, budget, take).await?;
        }
        *walked = placing.walked;
        Ok((end != End::Lost).then_some(placing.placed))
    }
}

/// The way along the target over so many records.
struct Placing<'a> {
    walked: Walked,
    to: i64,
    records: &'a [i64],
    placed: Vec<(i64, bool)>,
}

impl<'a> Placing<'a> {
    fn new(walked: Walked, to: i64, records: &'a [i64]) -> Self {
        let mut placing = Self {
            walked,
            to,
            records,
            placed: Vec::with_capacity(records.len()),
        };
        placing.settle();
        placing
    }

    fn done(&self) -> bool {
        self.placed.len() == self.records.len()
    }

    /// Places all that stand here.
    fn settle(&mut self) {
        let Walked { at, records, whole } = self.walked;
        while let Some(&wanted) = self.records.get(self.placed.len())
            && (wanted == records || at >= self.to)
        {
            self.placed.push((at.min(self.to), whole));
        }
    }

    /// Takes the next batch, of offsets from `base` to below `end`, or as much of it as is wanted.
    fn take(&mut self, base: i64, end: i64, control: bool) {
        if self.done() {
            return;
        }
        // What is missing may have been records or markers: taken for records, the place found is the lower one.
        if base > self.walked.at {
            self.walked.whole = false;
            self.over(base);
        }
        if control && !self.done() {
            self.walked.at = self.walked.at.max(end);
            self.settle();
        } else {
            self.over(end);
        }
    }

    /// Over records up to `end`, or to the last place.
    fn over(&mut self, end: i64) {
        while self.walked.at < end
            && let Some(wanted) = self.records.get(self.placed.len())
        {
            let step = (end - self.walked.at).min(wanted - self.walked.records);
            self.walked.at += step;
            self.walked.records += step;
            self.settle();
        }
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
        let expected = [
            (0, 100, true),
            (5, 105, true),
            (6, 107, true),
            (9, 110, true),
            (10, 112, true),
            (18, 120, true),
            (19, 121, false),
            (24, 126, false),
            (90, 128, false),
        ];
        let records = expected.map(|(records, ..)| records);
        let places = expected.map(|(_, offset, whole)| (offset, whole));
        let mut placing = Placing::new(Walked::from(100), 128, &records);
        for (base, end, control) in log {
            placing.take(base, end, control);
        }
        assert_eq!(placing.placed, places);
        // Each by itself, and gone on with after each batch.
        for (records, place) in records.into_iter().zip(places) {
            let (mut walked, mut placed) = (Walked::from(100), Vec::new());
            for (base, end, control) in log {
                let mut placing = Placing::new(walked, 128, std::slice::from_ref(&records));
                if !placing.done() {
                    placing.take(base, end, control);
                }
                (walked, placed) = (placing.walked, placing.placed);
            }
            assert_eq!(placed, [place], "{records}");
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
