//! Comparing what a target partition holds with its source, to find by content where MirrorMaker 2 stopped.

use std::sync::Arc;

use strait_wire::{Isolation, Record};
use tokio::time::Instant;

use crate::error::FlowError;
use crate::limits;
use crate::matching::{Match, timeless};
use crate::open::{Ends, Opening};
use crate::partition::PartitionReader;
use crate::stitch::{Original, Outgoing, StitchError};

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// The first offset on the source.
    pub(crate) source: i64,
    /// The first offset on the target, and its end.
    pub(crate) target: (i64, i64),
    /// The record before both is the same. Else the last records of the target are looked for on the source, from the
    /// first one's time on, for as long as [`limits::SEEK_BYTES`] and [`limits::SEEK_TIME`] last.
    pub(crate) anchored: bool,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// The source offset behind the last record that the target holds.
    pub(crate) next: i64,
    pub(crate) matched: i64,
    /// Records of the target that were not found behind it.
    pub(crate) left: i64,
    /// Of those the ones that are not another copy of what was found.
    pub(crate) strange: i64,
    /// The end was not found within what may be read for it.
    pub(crate) given_up: bool,
}

/// What may be read to find the beginning, and until when.
struct Allowance {
    bytes: usize,
    until: Instant,
}

impl Allowance {
    /// Takes a batch; whether it was too much.
    fn exceeded(&mut self, batch: &Outgoing, now: Instant) -> bool {
        let size = batch.size();
        let short = self.bytes < size || now >= self.until;
        self.bytes = self.bytes.saturating_sub(size);
        short
    }
}

/// The target's records of one piece of a stretch.
struct Held {
    hashes: Vec<u128>,
    /// The offset behind them.
    to: i64,
    /// The lowest of their times.
    earliest: i64,
}

enum Holds {
    Records(Held),
    /// The target stamps records itself, and their times were asked for.
    Stamped,
    /// They are more than may be read.
    TooMuch,
}

impl Opening {
    /// Looks for the source's records in the target, in order, up to the first that it does not hold.
    pub(crate) async fn compare(&self, ends: &Ends, stretch: Stretch) -> Result<Found, FlowError> {
        let (mut from, end) = stretch.target;
        let mut found = Found {
            next: stretch.source,
            ..Found::default()
        };
        let mut stamped = false;
        let mut begun = stretch.anchored;
        let mut allowance = Allowance {
            bytes: limits::SEEK_BYTES,
            until: self.session.rt.deadline(limits::SEEK_TIME),
        };
        while from < end {
            // Once more as much, to know which records it holds once.
            let twice = if begun { 1 } else { 2 };
            let room = self
                .session
                .matching
                .room((end - from).saturating_mul(twice))
                .await;
            let most = room.records / twice as usize;
            if !begun {
                let few = i64::try_from(most).unwrap_or(i64::MAX);
                from = self.tail(ends, (from, end)).await?.max(end - few);
            }
            let limit = (!begun).then_some(&mut allowance);
            let hash = (!stamped).then_some(Record::hash as fn(&Record) -> u128);
            let held = match self.held(ends, (from, end), most, hash, limit).await? {
                Holds::Records(held) => held,
                Holds::Stamped => {
                    stamped = true;
                    continue;
                }
                Holds::TooMuch => {
                    found.given_up = true;
                    return Ok(found);
                }
            };
            if !begun {
                // Without their times records look alike: no beginning can be told.
                if stamped {
                    found.left = i64::try_from(held.hashes.len()).unwrap_or(i64::MAX);
                    found.strange = found.left;
                    return Ok(found);
                }
                allowance.bytes = limits::SEEK_BYTES;
                found.next = found.next.max(not_before(ends, held.earliest).await?);
            }
            let to = held.to;
            let once = (!begun).then(|| once(&held.hashes));
            let mut matching = Match::new(held.hashes, found.next);
            if stamped {
                matching = matching.without_times();
            }
            // As MirrorMaker 2 reads by default; where it was told to leave aborted records out, they are not there.
            for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
                matching.again();
                let begin = once.as_deref().map(|once| (once, &mut allowance));
                found.given_up |= self
                    .embed_into(ends, isolation, &mut matching, begin)
                    .await?;
                if matching.left() == 0 || matching.matched() == 0 && !begun {
                    break;
                }
            }
            found.next = found.next.max(matching.next());
            found.matched += matching.matched();
            found.left = i64::try_from(matching.left()).unwrap_or(i64::MAX);
            begun |= matching.matched() > 0;
            if found.left > 0 {
                // What was not read is not found either.
                found.left += end - to;
                found.strange = i64::try_from(matching.strange()).unwrap_or(i64::MAX) + (end - to);
                return Ok(found);
            }
            from = to;
        }
        Ok(found)
    }

    /// From where on the target's last records are about as many bytes as may be read for a beginning.
    async fn tail(&self, ends: &Ends, (from, end): (i64, i64)) -> Result<i64, FlowError> {
        let sampled = end.saturating_sub(limits::SEEK_SAMPLE).max(from);
        let batches = ends.target.batches(sampled).await?;
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            return Ok(from);
        };
        let bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let offsets = (last.header.last_offset() - first.header.base_offset + 1).max(1);
        let each = (bytes / offsets).max(1);
        // What it holds before may be larger.
        let few = i64::try_from(limits::SEEK_BYTES / 2).unwrap_or(i64::MAX) / each;
        Ok(from.max(end.saturating_sub(few.max(1))))
    }

    /// What a consumer sees of the target from `from` on, `most` records at the most, and no more than `limit` lets read.
    /// Without their times for no hash.
    async fn held(
        &self,
        ends: &Ends,
        (from, end): (i64, i64),
        most: usize,
        hash: Option<fn(&Record) -> u128>,
        mut limit: Option<&mut Allowance>,
    ) -> Result<Holds, FlowError> {
        let target = reader(&ends.target, Isolation::ReadCommitted);
        let rt = &self.session.rt;
        let max = self.session.spec.decode_bytes();
        let (mut hashes, mut stamped, mut too_much) = (Vec::new(), false, false);
        let mut earliest = i64::MAX;
        let mut full_at = None;
        let reached = target
            .each_batch(from, end, max, |batch| {
                stamped |= hash.is_some() && appended(batch);
                too_much |= limit
                    .as_mut()
                    .is_some_and(|limit| limit.exceeded(batch, rt.now()));
                if stamped || too_much {
                    return Ok(false);
                }
                for record in records(batch)? {
                    if hashes.len() == most {
                        full_at = Some(record.offset);
                        return Ok(false);
                    }
                    earliest = earliest.min(record.timestamp);
                    hashes.push(hash.unwrap_or(timeless)(&record));
                }
                Ok(true)
            })
            .await?;
        if stamped {
            return Ok(Holds::Stamped);
        }
        if too_much {
            return Ok(Holds::TooMuch);
        }
        let to = full_at.unwrap_or(reached);
        if full_at.is_none() && to < end {
            return Err(FlowError::Mm2Unreadable(format!(
                "the last records of the target, from offset {to} to {end}, cannot be read yet: replicas there are behind, or MirrorMaker 2 left a transaction open, which the broker ends by itself"
            )));
        }
        Ok(Holds::Records(Held {
            hashes,
            to,
            earliest,
        }))
    }

    /// Feeds the match with the source's records from its place on. Of a match that has to find its beginning those that
    /// stand in the target once may be it, for as long as it may read; answers whether that ended before.
    async fn embed_into(
        &self,
        ends: &Ends,
        isolation: Isolation,
        matching: &mut Match,
        mut begin: Option<(&[u128], &mut Allowance)>,
    ) -> Result<bool, FlowError> {
        let source = reader(&ends.source, isolation);
        let rt = &self.session.rt;
        let max = self.session.spec.decode_bytes();
        let mut given_up = false;
        source
            .each_batch(matching.next(), i64::MAX, max, |batch| {
                if let Some((_, limit)) = begin.as_mut().filter(|_| matching.matched() == 0)
                    && limit.exceeded(batch, rt.now())
                {
                    given_up = true;
                    return Ok(false);
                }
                for record in records(batch)? {
                    if let Some((once, _)) = begin.as_ref().filter(|_| matching.matched() == 0)
                        && once.binary_search(&record.hash()).is_err()
                    {
                        continue;
                    }
                    if matching.feed(&record, batch.source_epoch) {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .await?;
        Ok(given_up)
    }
}

/// The first offset of the source that can hold a record of this time; 0 where it does not tell.
async fn not_before(ends: &Ends, time: i64) -> Result<i64, FlowError> {
    // Records without a time have a negative one, and others must not be asked for.
    if !(0..i64::MAX).contains(&time) {
        return Ok(0);
    }
    ends.source.offset_at(time).await
}

pub(crate) fn reader(of: &PartitionReader, isolation: Isolation) -> PartitionReader {
    PartitionReader {
        rt: of.rt.clone(),
        routes: Arc::clone(&of.routes),
        topic: of.topic.clone(),
        partition: of.partition,
        source: of.source,
        isolation,
    }
}

pub(crate) fn records(batch: &Outgoing) -> Result<Vec<Record>, FlowError> {
    let records = batch.records();
    records.map_err(|source| StitchError::wire(batch.first, source).into())
}

/// Whether the broker stamped the batch itself.
pub(crate) fn appended(batch: &Outgoing) -> bool {
    let header = match &batch.original {
        Some(Original::Batch(original)) => &original.header,
        _ => &batch.batch.header,
    };
    header.attributes.timestamp_type_append()
}

/// Those that occur once, sorted.
fn once(hashes: &[u128]) -> Vec<u128> {
    let mut sorted = hashes.to_vec();
    sorted.sort_unstable();
    let alone = sorted.chunk_by(|a, b| a == b).filter(|run| run.len() == 1);
    alone.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_begins_with_what_stands_there_once() {
        assert_eq!(once(&[5, 1, 5, 3, 2, 2, 2]), [1, 3]);
        assert!(once(&[7, 7]).is_empty());
    }
}
