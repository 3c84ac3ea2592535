//! The stitch: turns fetch responses into one gap-free run of items in source order.
//!
//! Nothing is assumed to be missing: a hole is accepted only where a response to a fetch at or below it
//! shows the batch behind it (positions.md in the book, "In a session").

pub(crate) mod error;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use strait_wire::{
    Batch, Codec, Entries, Entry, FetchedPartition, GapReason, Isolation, Judge, Record, Upgraded,
    Verdict, WireError, joinable, joinable_compressed, legacy_records, needs_repack, repack,
    upgrade,
};

use crate::limits;
use crate::session::provenance::{Origin, Producers};
pub(crate) use crate::stitch::error::INFLATES_ADVICE;
pub use crate::stitch::error::StitchError;

/// What goes down to the writer, in source order and without anything missing between two items.
#[derive(Clone, Debug)]
pub enum Item {
    /// Records to forward.
    Batch(Outgoing),
    /// Source offsets `[from, to)` that will not be forwarded.
    Gap {
        /// Why.
        reason: GapReason,
        /// The first offset left out.
        from: i64,
        /// The offset after the last one left out.
        to: i64,
        /// The source's leader epoch of the last batch left out; of the batch behind it where there is none.
        source_epoch: i32,
    },
}

impl Item {
    /// The source's leader epoch at its end, -1 where it has none.
    pub fn source_epoch(&self) -> i32 {
        match self {
            Self::Batch(outgoing) => outgoing.source_epoch,
            Self::Gap { source_epoch, .. } => *source_epoch,
        }
    }

    /// The first source offset it accounts for.
    pub fn first(&self) -> i64 {
        match self {
            Self::Batch(outgoing) => outgoing.first,
            Self::Gap { from, .. } => *from,
        }
    }
}

/// A batch on its way: untouched source bytes, or a re-encoded batch where those cannot be forwarded.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The batch; its offsets are the source's.
    pub batch: Batch,
    /// The first source offset it accounts for.
    pub first: i64,
    /// The last source offset it accounts for.
    pub last: i64,
    /// The source's leader epoch of the original batch.
    pub source_epoch: i32,
    /// What the source has, where `batch` was re-encoded from it.
    pub original: Option<Original>,
    /// It is sent by itself, to find out which record the target refuses: never joined.
    pub alone: bool,
    /// Bytes it may take where it has to be decoded.
    pub max_decoded: usize,
}

/// What a re-encoded batch was made of.
#[derive(Clone, Debug)]
pub enum Original {
    /// A record batch.
    Batch(Box<Batch>),
    /// A message of format v0 or v1.
    Message {
        /// 0 or 1.
        magic: i8,
        /// The message, from its offset on.
        bytes: Bytes,
    },
}

impl Original {
    fn records(&self, max_bytes: usize) -> Result<Vec<Record>, WireError> {
        match self {
            Self::Batch(batch) => batch.decode(max_bytes),
            Self::Message { magic, bytes } => legacy_records(*magic, bytes, max_bytes),
        }
    }
}

impl Outgoing {
    /// Records in it.
    pub fn count(&self) -> i32 {
        self.batch.header.count
    }

    /// Its records under their source offsets.
    ///
    /// # Errors
    /// The batch cannot be decoded.
    pub fn records(&self) -> Result<Vec<Record>, WireError> {
        let mut records = match &self.original {
            Some(original) => original.records(self.max_decoded)?,
            None => self.batch.decode(self.max_decoded)?,
        };
        records.retain(|record| (self.first..=self.last).contains(&record.offset));
        Ok(records)
    }

    /// How it may be joined with its neighbours, if at all: small, and every source offset has its record, so that
    /// the joined batch still tells which source offset each of its records has.
    pub fn joins(&self) -> Option<Codec> {
        let header = &self.batch.header;
        let codec = header.attributes.codec().ok()?;
        let below = match codec {
            Codec::None => limits::JOIN_BELOW,
            _ => limits::JOIN_COMPRESSED_BELOW,
        };
        let dense = self.last - self.first + 1 == i64::from(self.count());
        let fits = joinable(header) || joinable_compressed(header);
        (!self.alone && dense && fits && self.size() < below).then_some(codec)
    }

    /// Its size on the wire.
    pub fn size(&self) -> usize {
        self.batch.bytes.len()
    }
}

/// The head of a flow on the source side.
#[derive(Clone, Debug)]
pub struct Stitch {
    head: i64,
    epoch: i32,
    compacted: bool,
    isolation: Isolation,
    max_decoded: usize,
    /// The head behind which an answer showed a hole that nothing explains: the next answer there decides.
    doubted: Option<i64>,
    /// Who writes to the source, where only what was produced there is forwarded.
    producers: Option<Arc<Producers>>,
}

impl Stitch {
    /// A flow that continues at `head`, after a batch of leader epoch `epoch` (-1: unknown). A batch that has to be
    /// decoded may take `max_decoded` bytes.
    pub fn new(
        head: i64,
        epoch: i32,
        compacted: bool,
        isolation: Isolation,
        max_decoded: usize,
    ) -> Self {
        Self {
            head,
            epoch,
            compacted,
            isolation,
            max_decoded,
            doubted: None,
            producers: None,
        }
    }

    /// Leaves out what links brought to the source, as these producers tell.
    #[must_use]
    pub(crate) fn only_local(mut self, producers: Option<Arc<Producers>>) -> Self {
        self.producers = producers;
        self
    }

    /// The next offset to fetch.
    pub fn head(&self) -> i64 {
        self.head
    }

    /// The leader epoch of the record just before the head, -1 when unknown: what Fetch v12+ takes as
    /// `last_fetched_epoch` (KIP-595).
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Goes back to `head`, behind a batch of leader epoch `epoch`: what was admitted from there on was not used.
    pub fn rewind(&mut self, head: i64, epoch: i32) {
        self.head = head;
        self.epoch = epoch;
    }

    /// The end of the admitted epoch was asked for and lies at or above the head: the next epoch may join.
    pub fn confirm(&mut self, epoch: i32) {
        self.epoch = epoch;
    }

    /// Admits what a fetch at or below the head brought, and adds it to `items`. `proven` says whether the fetch
    /// carried the last epoch (v12+), so that an answer without divergence proves the join of a new epoch.
    ///
    /// # Errors
    /// What stands before the cause is admitted; the head is where the cause is.
    pub fn admit(
        &mut self,
        fetched: &FetchedPartition,
        proven: bool,
        items: &mut Vec<Item>,
    ) -> Result<(), StitchError> {
        let mut judge = Judge::new(&fetched.aborted, self.isolation);
        let mut ordered = false;
        let believed = self.compacted || self.doubted.take() == Some(self.head);
        for entry in Entries::new(fetched.records.clone()) {
            let entry = entry.map_err(|source| StitchError::wire(self.head, source))?;
            let batch = match entry {
                Entry::Batch(batch) => batch,
                Entry::Legacy { offset, .. } if offset < self.head => continue,
                Entry::Legacy { magic, bytes, .. } => {
                    self.upgrade(magic, bytes, items)?;
                    continue;
                }
            };
            // Judged even when it lies below the head: an abort marker there ends a transaction.
            let verdict = judge.judge(&batch.header, &batch);
            if batch.header.last_offset() < self.head {
                continue;
            }
            self.seam(&batch, proven)?;
            if batch.header.base_offset > self.head && !believed {
                self.doubted = Some(self.head);
                return Err(StitchError::Hole {
                    from: self.head,
                    to: batch.header.base_offset,
                });
            }
            // Before the first hole is believed: what it lacks must not stand behind it, out of order.
            if batch.header.base_offset > self.head && !std::mem::replace(&mut ordered, true) {
                for entry in Entries::new(fetched.records.clone()) {
                    entry.map_err(|source| StitchError::wire(self.head, source))?;
                }
            }
            let brought = self.brought(&batch, verdict, &fetched.records)?;
            self.take(batch, verdict, brought, items)?;
        }
        Ok(())
    }

    /// Whether a link brought the batch here, and it is left out for that.
    fn brought(
        &self,
        batch: &Batch,
        verdict: Verdict,
        records: &Bytes,
    ) -> Result<bool, StitchError> {
        let header = &batch.header;
        match &self.producers {
            Some(producers) if verdict == Verdict::Forward => {
                match producers.origin(header.producer_id) {
                    Origin::Here => Ok(false),
                    Origin::Link => Ok(true),
                    Origin::Unknown => {
                        let at = header.base_offset;
                        let unknown = Entries::new(records.clone())
                            .filter_map(|entry| match entry.ok()? {
                                Entry::Batch(batch) => Some(batch.header),
                                Entry::Legacy { .. } => None,
                            })
                            .filter(|h| h.base_offset >= at && !h.attributes.control())
                            .map(|h| h.producer_id)
                            .filter(|id| producers.origin(*id) == Origin::Unknown);
                        let producer_ids: BTreeSet<i64> = unknown.collect();
                        Err(StitchError::Origin {
                            producer_ids: producer_ids.into_iter().collect(),
                            at,
                        })
                    }
                }
            }
            _ => Ok(false),
        }
    }

    /// A message of an old format. It has no leader epoch, so what follows it proves nothing by one.
    fn upgrade(
        &mut self,
        magic: i8,
        bytes: Bytes,
        items: &mut Vec<Item>,
    ) -> Result<(), StitchError> {
        let Upgraded { batch, first, last } =
            upgrade(magic, &bytes, self.head, self.max_decoded)
                .map_err(|source| StitchError::wire(self.head, source))?;
        self.hole(first, -1, items);
        let first = self.head;
        (self.head, self.epoch) = (last + 1, -1);
        items.push(if batch.header.count > 0 {
            Item::Batch(Outgoing {
                batch,
                first,
                last,
                source_epoch: -1,
                original: Some(Original::Message { magic, bytes }),
                alone: false,
                max_decoded: self.max_decoded,
            })
        } else {
            Item::Gap {
                reason: GapReason::Compacted,
                from: first,
                to: last + 1,
                source_epoch: -1,
            }
        });
        Ok(())
    }

    /// What is missing between the head and the next batch at `next`.
    fn hole(&mut self, next: i64, source_epoch: i32, items: &mut Vec<Item>) {
        if next > self.head {
            let reason = if self.compacted {
                GapReason::Compacted
            } else {
                GapReason::Unexplained
            };
            items.push(Item::Gap {
                reason,
                from: self.head,
                to: next,
                source_epoch,
            });
            self.head = next;
        }
    }

    fn seam(&self, batch: &Batch, proven: bool) -> Result<(), StitchError> {
        let found = batch.header.leader_epoch;
        if self.epoch >= 0 && found < self.epoch {
            return Err(StitchError::Stale {
                admitted: self.epoch,
                found,
            });
        }
        if self.epoch >= 0 && found > self.epoch && !proven {
            return Err(StitchError::Unproven {
                admitted: self.epoch,
                found,
                at: self.head,
            });
        }
        Ok(())
    }

    fn take(
        &mut self,
        batch: Batch,
        verdict: Verdict,
        brought: bool,
        items: &mut Vec<Item>,
    ) -> Result<(), StitchError> {
        let header = &batch.header;
        self.hole(header.base_offset, header.leader_epoch, items);
        let (first, last, source_epoch) = (self.head, header.last_offset(), header.leader_epoch);
        let reason = match verdict {
            Verdict::Forward if brought => GapReason::OtherLink,
            Verdict::Forward => {
                let (batch, original) =
                    if header.base_offset < first || needs_repack(header).is_some() {
                        let repacked = repack(&batch, first, self.max_decoded)
                            .map_err(|source| StitchError::wire(first, source))?;
                        (repacked, Some(Original::Batch(Box::new(batch))))
                    } else {
                        (batch, None)
                    };
                (self.head, self.epoch) = (last + 1, source_epoch);
                if batch.header.count > 0 {
                    items.push(Item::Batch(Outgoing {
                        batch,
                        first,
                        last,
                        source_epoch,
                        original,
                        alone: false,
                        max_decoded: self.max_decoded,
                    }));
                    return Ok(());
                }
                GapReason::Compacted
            }
            Verdict::Control => GapReason::Control,
            Verdict::Aborted => GapReason::Aborted,
            Verdict::Empty => GapReason::Compacted,
        };
        (self.head, self.epoch) = (last + 1, source_epoch);
        items.push(Item::Gap {
            reason,
            from: first,
            to: last + 1,
            source_epoch,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use strait_wire::AbortedTxn;

    use super::*;
    use crate::error::FlowError;
    use crate::sample::{fetched, sample};

    fn stitch(head: i64) -> Stitch {
        Stitch::new(head, 2, false, Isolation::ReadCommitted, 1 << 20)
    }

    fn admit(
        stitch: &mut Stitch,
        fetched: &FetchedPartition,
        proven: bool,
    ) -> Result<Vec<Item>, StitchError> {
        let mut items = Vec::new();
        let mut admitted = stitch.admit(fetched, proven, &mut items);
        if matches!(admitted, Err(StitchError::Hole { .. })) {
            admitted = stitch.admit(fetched, proven, &mut items);
        }
        admitted.map(|()| items)
    }

    #[test]
    fn a_hole_that_nothing_explains_is_asked_for_once_more() {
        let answer = fetched(&[
            sample(10, 2).epoch(2).batch(),
            sample(20, 2).epoch(2).batch(),
        ]);
        let mut stitch = stitch(10);
        let mut items = Vec::new();
        let error = stitch.admit(&answer, true, &mut items).unwrap_err();
        assert!(
            matches!(error, StitchError::Hole { from: 12, to: 20 }),
            "{error}"
        );
        // A whole answer there: the first one lacked something.
        let whole = fetched(&[sample(12, 10).epoch(2).batch()]);
        stitch.admit(&whole, true, &mut items).unwrap();
        assert_eq!(
            shape(&items),
            [
                ("2 records".to_owned(), 10, 11),
                ("10 records".to_owned(), 12, 21)
            ]
        );
    }

    /// Items as (what, first, last).
    fn shape(items: &[Item]) -> Vec<(String, i64, i64)> {
        items
            .iter()
            .map(|item| match item {
                Item::Batch(o) => (format!("{} records", o.count()), o.first, o.last),
                Item::Gap {
                    reason, from, to, ..
                } => (format!("{reason:?}"), *from, to - 1),
            })
            .collect()
    }

    #[test]
    fn offsets_follow_without_anything_missing() {
        let aborted = sample(10, 5).epoch(2).by((9, 0), 0);
        let mut aborting = aborted.batch().bytes.to_vec();
        aborting[22] |= 0x10; // transactional
        strait_testkit::records::fix_crc(&mut aborting);
        let bytes = bytes::Bytes::from(aborting);
        let aborting = Batch {
            header: strait_wire::BatchHeader::parse(&bytes).unwrap(),
            bytes,
        };
        let mut answer = fetched(&[
            sample(0, 10).epoch(2).batch(),
            aborting,
            sample(15, 1).epoch(3).by((9, 0), -1).marker(false),
            sample(20, 4).epoch(3).batch(),
        ]);
        answer.aborted = vec![AbortedTxn {
            producer_id: 9,
            first_offset: 10,
        }];
        let mut stitch = stitch(4);
        let items = admit(&mut stitch, &answer, true).unwrap();
        assert_eq!(
            shape(&items),
            [
                ("6 records".to_owned(), 4, 9),
                ("Aborted".to_owned(), 10, 14),
                ("Control".to_owned(), 15, 15),
                ("Unexplained".to_owned(), 16, 19),
                ("4 records".to_owned(), 20, 23),
            ]
        );
        assert_eq!((stitch.head(), stitch.epoch()), (24, 3));
        let epochs: Vec<i32> = items
            .iter()
            .map(|item| match item {
                Item::Batch(o) => o.source_epoch,
                Item::Gap { source_epoch, .. } => *source_epoch,
            })
            .collect();
        assert_eq!(epochs, [2, 2, 3, 3, 3]);
        let Item::Batch(first) = &items[0] else {
            panic!("{items:?}")
        };
        let offsets: Vec<i64> = first.records().unwrap().iter().map(|r| r.offset).collect();
        assert_eq!(
            offsets,
            [4, 5, 6, 7, 8, 9],
            "a batch cut at the head keeps its tail"
        );
    }

    #[test]
    fn a_cleaned_batch_is_forwarded_dense_and_accounts_for_its_holes() {
        let mut stitch = Stitch::new(0, 2, true, Isolation::ReadCommitted, 1 << 20);
        let answer = fetched(&[sample(0, 10).epoch(2).holding(&[3, 7])]);
        let items = admit(&mut stitch, &answer, true).unwrap();
        assert_eq!(shape(&items), [("2 records".to_owned(), 0, 9)]);
        assert_eq!(stitch.head(), 10);
    }

    #[test]
    fn what_lies_below_the_head_is_dropped_and_nothing_proves_nothing() {
        let mut stitch = stitch(10);
        let below = fetched(&[sample(0, 10).epoch(2).batch()]);
        assert!(admit(&mut stitch, &below, true).unwrap().is_empty());
        assert!(admit(&mut stitch, &fetched(&[]), true).unwrap().is_empty());
        assert_eq!(stitch.head(), 10);
    }

    #[test]
    fn a_seam_between_epochs_has_to_be_proven() {
        let newer = fetched(&[sample(10, 2).epoch(3).batch()]);
        let mut unproven = stitch(10);
        let error = admit(&mut unproven, &newer, false).unwrap_err();
        assert!(
            matches!(
                error,
                StitchError::Unproven {
                    admitted: 2,
                    found: 3,
                    at: 10
                }
            ),
            "{error}"
        );
        assert_eq!(
            (unproven.head(), unproven.epoch()),
            (10, 2),
            "nothing was admitted"
        );
        assert_eq!(FlowError::from(error).id(), "source-epoch");
        unproven.confirm(3);
        assert_eq!(admit(&mut unproven, &newer, false).unwrap().len(), 1);

        let mut proven = stitch(10);
        assert_eq!(admit(&mut proven, &newer, true).unwrap().len(), 1);
        let stale = fetched(&[sample(12, 2).epoch(2).batch()]);
        let error = admit(&mut proven, &stale, true).unwrap_err();
        assert_eq!(FlowError::from(error).id(), "source-stale");
        assert_eq!(proven.head(), 12);
    }

    #[test]
    fn what_stands_before_an_unproven_seam_is_admitted() {
        let both = fetched(&[
            sample(10, 2).epoch(2).batch(),
            sample(12, 2).epoch(3).batch(),
        ]);
        let mut stitch = stitch(10);
        let mut items = Vec::new();
        let error = stitch.admit(&both, false, &mut items).unwrap_err();
        assert!(
            matches!(error, StitchError::Unproven { at: 12, .. }),
            "{error}"
        );
        assert_eq!(shape(&items), [("2 records".to_owned(), 10, 11)]);
        // Confirmed, it goes on at the seam, not at the batches of the old epoch again.
        stitch.confirm(3);
        assert_eq!(admit(&mut stitch, &both, false).unwrap().len(), 1);
        assert_eq!(stitch.head(), 14);
    }

    #[test]
    fn messages_of_old_formats_are_forwarded_as_batches() {
        // Offsets 1234 to 1236, written by Kafka's own classes.
        let plain = include_bytes!("../../strait-wire/tests/golden/legacy/v0_none.bin");
        let holes = include_bytes!("../../strait-wire/tests/golden/legacy/v1_holes.bin");
        for (set, expected) in [
            (
                &plain[..],
                [("1 records", 1235, 1235), ("1 records", 1236, 1236)].as_slice(),
            ),
            (&holes[..], &[("1 records", 1235, 1236)]),
        ] {
            let mut answer = fetched(&[]);
            answer.records = Bytes::from_static(set);
            // The head lies inside.
            let mut stitch = Stitch::new(1235, -1, true, Isolation::ReadCommitted, 1 << 20);
            let items = admit(&mut stitch, &answer, true).unwrap();
            let expected: Vec<(String, i64, i64)> = expected
                .iter()
                .map(|&(what, first, last)| (what.to_owned(), first, last))
                .collect();
            assert_eq!(shape(&items), expected);
            assert_eq!((stitch.head(), stitch.epoch()), (1237, -1));
            for item in &items {
                let Item::Batch(outgoing) = item else {
                    continue;
                };
                let own: Vec<i64> = outgoing
                    .records()
                    .unwrap()
                    .iter()
                    .map(|r| r.offset)
                    .collect();
                assert!(
                    own.iter()
                        .all(|o| (outgoing.first..=outgoing.last).contains(o)),
                    "{own:?}"
                );
                assert_eq!(own.len(), usize::try_from(outgoing.count()).unwrap());
            }
        }
    }

    #[test]
    fn offsets_that_go_backwards_are_no_hole() {
        let answer = fetched(&[
            sample(14, 2).epoch(2).batch(),
            sample(10, 4).epoch(2).batch(),
        ]);
        let mut stitch = stitch(10);
        let error = admit(&mut stitch, &answer, true).unwrap_err();
        assert!(matches!(error, StitchError::Wire { at: 10, .. }), "{error}");
        assert_eq!(stitch.head(), 10);
    }

    #[test]
    fn damaged_bytes_admit_nothing() {
        let mut answer = fetched(&[sample(10, 2).epoch(2).batch()]);
        let mut bytes = answer.records.to_vec();
        bytes[16] = 9; // magic
        answer.records = bytes.into();
        let mut stitch = stitch(10);
        assert!(admit(&mut stitch, &answer, true).is_err());
        assert_eq!(stitch.head(), 10);
    }
}
