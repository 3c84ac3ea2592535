//! What the two sides of a flow hold of a stretch, record by record, for who compares them.

use strait_wire::{Batch, GapReason};

use crate::error::FlowError;
use crate::limits;
use crate::stitch::{Item, Original, StitchError};
use crate::tally::{Budget, End, Stretch, Tally};

/// The records of a stretch of a log, and offsets that certainly are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Offsets and hashes of the records that are there, in order.
    pub records: Vec<(i64, u128)>,
    /// Ranges of control batches and of what was aborted, in order.
    pub nothing: Vec<(i64, i64)>,
    /// Ranges in which every offset is or was a record, in order: a batch is written without holes, and keeps its first and its
    /// last offset when it is compacted. What stands in neither is gone, or never was a record.
    pub were: Vec<(i64, i64)>,
}

impl Tally {
    /// What the source has of a stretch, as it would be forwarded: `most` records at the most. Nothing where it has more,
    /// where its log begins behind the stretch, or where `budget` is used up before.
    ///
    /// # Errors
    /// The source cannot be read.
    pub async fn source_contents(
        &self,
        stretch: &Stretch<'_>,
        most: usize,
        budget: &Budget,
    ) -> Result<Option<Contents>, FlowError> {
        let mut found = Contents::default();
        let take = |item: &Item| {
            match item {
                Item::Gap {
                    reason: GapReason::Control | GapReason::Aborted,
                    from,
                    to,
                    ..
                } => found.nothing.push((*from, *to)),
                Item::Gap { .. } => {}
                Item::Batch(outgoing) => {
                    let wire = |source| StitchError::wire(outgoing.first, source);
                    let records = outgoing.records().map_err(wire)?;
                    let inside = records.iter().filter(|r| r.offset < stretch.to);
                    found.records.extend(inside.map(|r| (r.offset, r.hash())));
                    // Messages of the old formats stand for themselves.
                    let first = match outgoing.original {
                        Some(Original::Message { .. }) => outgoing.last,
                        _ => outgoing.first,
                    };
                    let range = (first, (outgoing.last + 1).min(stretch.to));
                    found.were.push(range);
                }
            }
            Ok(found.records.len() > most)
        };
        let end = self.read_source(stretch, budget, take).await?;
        Ok((end == End::Reached && found.records.len() <= most).then_some(found))
    }

    /// What the target has from offset `from` to below `to`; otherwise as [`source_contents`](Self::source_contents).
    ///
    /// # Errors
    /// The target cannot be read.
    pub async fn target_contents(
        &self,
        place: (&str, i32),
        (from, to): (i64, i64),
        most: usize,
        budget: &Budget,
    ) -> Result<Option<Contents>, FlowError> {
        let mut found = Contents::default();
        let mut next = from;
        let take = |batch: &Batch| {
            let header = &batch.header;
            let (base, end) = (header.base_offset, header.last_offset() + 1);
            if header.attributes.control() {
                found.nothing.push((base.max(next), end.min(to)));
            } else {
                let wire = |source| StitchError::wire(base, source);
                let decoded = batch.decode(limits::DECODE_LEAST_BYTES).map_err(wire)?;
                let inside = decoded.iter().filter(|r| (next..to).contains(&r.offset));
                found.records.extend(inside.map(|r| (r.offset, r.hash())));
                found.were.push((base.max(next), end.min(to)));
            }
            next = next.max(end);
            Ok(found.records.len() > most)
        };
        let end = self.read_target(place, (from, to), budget, take).await?;
        Ok((end == End::Reached && found.records.len() <= most).then_some(found))
    }
}
