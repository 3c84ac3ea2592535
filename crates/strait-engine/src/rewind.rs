//! Rewind: where a flow goes on after the target lost acknowledged records.
//!
//! Pure machines. [`Survey`] looks for the last batch of this link that is still in its place in the target;
//! [`Rewind`] moves back along the source from the last sync, over as many records as were lost. Doubt goes
//! towards repeating: a record that stands twice can be seen, one that is missing cannot.

use std::collections::BTreeSet;

use strait_wire::{Batch, GapReason, Isolation, Position, PositionFlags, WireError};

use crate::sequence::{advance, distance};
use crate::stitch::Item;

/// Looks through what is left of the target's log for the last batch of this link.
#[derive(Debug)]
pub struct Survey {
    sync: Position,
    ours: BTreeSet<i64>,
    end: i64,
    shared: bool,
    found: Option<Batch>,
}

/// How many records before the sync are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// At least so many.
    pub least: i64,
    /// At most so many.
    pub most: i64,
}

impl Survey {
    /// A survey of a log that lost what `sync` speaks of from offset `end` on, or from further below. `ours`: every
    /// producer id this link ever used.
    pub fn new(sync: Position, ours: BTreeSet<i64>, end: i64, shared: bool) -> Self {
        let end = end.min(sync.target_next);
        Self {
            sync,
            ours,
            end,
            shared,
            found: None,
        }
    }

    /// Takes a batch of the target's log; those below the end, in order.
    pub fn feed(&mut self, batch: &Batch) {
        if self.in_place(batch) {
            self.found = Some(batch.clone());
        }
    }

    /// Whether a batch was found: nothing below it has to be looked at.
    pub fn found(&self) -> bool {
        self.found.is_some()
    }

    /// Of the sync's own session offsets and sequences go together; a batch that a new leader took after the loss
    /// has a sequence too high for its offset.
    fn in_place(&self, batch: &Batch) -> bool {
        let header = &batch.header;
        if header.attributes.control()
            || header.last_offset() >= self.end
            || !self.ours.contains(&header.producer_id)
        {
            return false;
        }
        !self.of_session(batch) || self.shared || self.missing(batch) == self.behind(batch)
    }

    fn of_session(&self, batch: &Batch) -> bool {
        (batch.header.producer_id, batch.header.producer_epoch)
            == (self.sync.producer_id, self.sync.producer_epoch)
    }

    /// Offsets between a batch and the sync's.
    fn behind(&self, batch: &Batch) -> i64 {
        self.sync
            .target_next
            .saturating_sub(batch.header.next_offset())
    }

    fn missing(&self, batch: &Batch) -> i64 {
        let next = advance(batch.header.last_sequence(), 1);
        distance(next, self.sync.next_sequence)
    }

    /// What was found. `log_start`: the target's; what lies below it was not lost but expired.
    ///
    /// Offsets bound what is missing, whatever stands in the log: all that was forwarded from an offset on lies
    /// there. Content proves nothing, because records may stand in the wrong place since an earlier loss.
    pub fn finish(self, log_start: i64) -> Lost {
        let (least, most) = match &self.found {
            Some(batch) if self.of_session(batch) => {
                let exact = self.missing(batch);
                (exact, exact)
            }
            // Markers may be among the offsets that are gone.
            Some(batch) => (0, self.behind(batch)),
            None => (0, self.sync.target_next.saturating_sub(log_start)),
        };
        Lost {
            least,
            most: self.with_refused(most),
        }
    }

    /// The source still has records that the target refused, and under the lower isolation aborted ones: they are
    /// met on the way back although they never were forwarded.
    fn with_refused(&self, records: i64) -> i64 {
        let met = |reason: GapReason| match reason {
            GapReason::Refused => true,
            GapReason::Aborted => self.sync.isolation == Isolation::ReadUncommitted,
            // Before the link forwarded what others bring, too.
            GapReason::OtherLink => !self.sync.flags.contains(PositionFlags::PROVENANCE),
            _ => false,
        };
        let gaps = self.sync.gaps.iter().filter(|(reason, _)| met(*reason));
        gaps.fold(records.max(0), |sum, (_, offsets)| {
            sum.saturating_add(*offsets)
        })
    }
}

/// Finds the source offset to mirror from again. The source is read twice from an offset far enough below the sync:
/// first [`count`](Self::count)ed, then [`locate`](Self::locate)d.
#[derive(Debug)]
pub struct Rewind {
    lost: Lost,
    next: i64,
    records: i64,
    index: i64,
    found: Option<i64>,
}

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The source offset to mirror from.
    pub next: i64,
    /// So many records are mirrored that may still be in the target.
    pub repeated: i64,
    /// So many that were lost are no longer in the source either.
    pub gone: i64,
}

impl Rewind {
    /// A way back from source offset `next`, the sync's, over what was lost.
    pub fn new(lost: Lost, next: i64) -> Self {
        Self {
            lost,
            next,
            records: 0,
            index: 0,
            found: None,
        }
    }

    /// Counts an item of the source; the last one may reach over the sync's offset.
    ///
    /// # Errors
    /// The batch cannot be decoded.
    pub fn count(&mut self, item: &Item) -> Result<(), WireError> {
        self.records += self.counted(item)?;
        Ok(())
    }

    /// Whether what was counted reaches back over all that may be lost.
    pub fn enough(&self) -> bool {
        self.records >= self.lost.most
    }

    /// Takes the same items again.
    ///
    /// # Errors
    /// The batch cannot be decoded.
    pub fn locate(&mut self, item: &Item) -> Result<(), WireError> {
        let counted = self.counted(item)?;
        let first = self.records.saturating_sub(self.lost.most);
        if let Item::Batch(outgoing) = item
            && (self.index..self.index + counted).contains(&first)
        {
            let at = usize::try_from(first - self.index).unwrap_or(0);
            self.found = outgoing.records()?.get(at).map(|record| record.offset);
        }
        self.index += counted;
        Ok(())
    }

    /// The place; `from` is where reading began.
    pub fn place(&self, from: i64) -> Place {
        let again = self.records.min(self.lost.most);
        let next = match self.found {
            Some(offset) => offset,
            None if self.enough() => self.next,
            None => from,
        };
        Place {
            next,
            repeated: again.saturating_sub(self.lost.least).max(0),
            gone: self.lost.least.saturating_sub(self.records).max(0),
        }
    }

    fn counted(&self, item: &Item) -> Result<i64, WireError> {
        let Item::Batch(outgoing) = item else {
            return Ok(0);
        };
        if outgoing.last < self.next {
            return Ok(i64::from(outgoing.count()));
        }
        let below = |record: &&strait_wire::Record| record.offset < self.next;
        Ok(outgoing.records()?.iter().filter(below).count() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{position, sample};

    const US: (i64, i16) = (7, 3);

    fn survey(end: i64, log: &[Batch]) -> (i64, i64) {
        let mut survey = Survey::new(position(Vec::new()), BTreeSet::from([US.0, 6]), end, false);
        for batch in log {
            survey.feed(batch);
        }
        let Lost { least, most } = survey.finish(0);
        (least, most)
    }

    #[test]
    fn sequences_tell_exactly_what_the_session_lost() {
        let left = sample(60, 20).by(US, 10).batch();
        let marker = sample(80, 1).by((7, 4), -1).marker(false);
        assert_eq!(survey(81, &[left, marker]), (20, 20));
    }

    #[test]
    fn offsets_bound_what_older_sessions_lost() {
        let left = sample(40, 10).by((6, 0), 90).batch();
        let foreign = sample(50, 10).by((99, 0), 0).batch();
        assert_eq!(survey(60, &[left, foreign]), (0, 50));
        assert_eq!(survey(0, &[]), (0, 100));
    }

    /// A leader that lost the end took later batches at lower offsets: they do not count as left.
    #[test]
    fn batches_behind_the_loss_are_not_in_their_place() {
        let left = sample(50, 20).by(US, 0).batch();
        let behind = sample(70, 5).by(US, 45).batch();
        assert_eq!(survey(100, &[left, behind]), (30, 30));
    }

    #[test]
    fn what_was_refused_is_met_on_the_way_back() {
        let gaps = vec![(GapReason::Refused, 3), (GapReason::Aborted, 9)];
        let survey = Survey::new(position(gaps), BTreeSet::from([US.0]), 80, false);
        assert_eq!(survey.finish(0).most, 103);
    }

    /// Source batches of ten records from offset 900 to 1000, and a control record between two.
    fn source() -> Vec<Item> {
        let mut items: Vec<Item> = (90..100)
            .map(|i| Item::Batch(sample(i * 10, 10).outgoing()))
            .collect();
        items[5] = Item::Gap {
            reason: GapReason::Control,
            from: 950,
            to: 960,
            source_epoch: 0,
        };
        items
    }

    fn place(least: i64, most: i64) -> (i64, i64, i64) {
        let mut rewind = Rewind::new(Lost { least, most }, 1_000);
        for item in source() {
            rewind.count(&item).unwrap();
        }
        for item in source() {
            rewind.locate(&item).unwrap();
        }
        let place = rewind.place(900);
        (place.next, place.repeated, place.gone)
    }

    #[test]
    fn the_way_back_leads_over_as_many_records_as_were_lost() {
        assert_eq!(place(15, 15), (985, 0, 0));
        // Offsets that hold no record are no step.
        assert_eq!(place(45, 45), (945, 0, 0));
        assert_eq!(place(0, 0), (1_000, 0, 0));
        assert_eq!(place(20, 30), (970, 10, 0));
        assert_eq!(place(90, 90), (900, 0, 0));
    }

    #[test]
    fn more_than_the_source_still_has_begins_at_its_start() {
        assert_eq!(place(95, 120), (900, 0, 5));
    }

    #[test]
    fn a_batch_that_reaches_over_the_position_counts_up_to_it() {
        let mut rewind = Rewind::new(Lost { least: 3, most: 3 }, 995);
        let item = Item::Batch(sample(990, 10).outgoing());
        rewind.count(&item).unwrap();
        rewind.locate(&item).unwrap();
        assert_eq!(rewind.place(990).next, 992);
    }

    /// Whatever offsets a broker or a position names: sums stop at the end of the range.
    #[test]
    fn offsets_at_the_end_of_the_range_do_not_wrap() {
        let gaps = vec![(GapReason::Refused, i64::MAX)];
        let survey = Survey::new(position(gaps), BTreeSet::from([US.0]), 80, false);
        let lost = survey.finish(i64::MIN);
        assert_eq!(lost.most, i64::MAX);
        let mut rewind = Rewind::new(lost, 1_000);
        for item in source() {
            rewind.count(&item).unwrap();
        }
        for item in source() {
            rewind.locate(&item).unwrap();
        }
        assert_eq!(rewind.place(900).next, 900);
    }
}
