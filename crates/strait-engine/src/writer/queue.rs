//! What a writer has not sent yet, in source order; small batches leave it as one.

use std::collections::VecDeque;

use strait_net::Pool;
use strait_wire::{Batch, Codec, WireError, join, join_compressed, joined_bound};

use crate::limits;
use crate::stitch::{Item, Outgoing};

/// Items that wait for their turn.
#[derive(Debug)]
pub(crate) struct Queue {
    items: VecDeque<Item>,
    bytes: u64,
    join_bytes: usize,
}

impl Queue {
    /// Nothing waits.
    pub(crate) fn new() -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            join_bytes: limits::JOIN_BYTES,
        }
    }

    /// The largest batch that the target takes: none is joined beyond it.
    pub(crate) fn limit(&mut self, bytes: usize) {
        self.join_bytes = limits::JOIN_BYTES.min(bytes);
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of the batches that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first source offset that waits.
    pub(crate) fn first(&self) -> Option<i64> {
        self.items.front().map(Item::first)
    }

    /// The first batch that waits.
    pub(crate) fn next_outgoing(&self) -> Option<&Outgoing> {
        self.items.iter().find_map(|item| match item {
            Item::Batch(outgoing) => Some(outgoing),
            Item::Gap { .. } => None,
        })
    }

    /// Behind all others.
    pub(crate) fn push(&mut self, item: Item) {
        self.bytes += bytes_of(&item);
        self.items.push_back(item);
    }

    /// Before all others.
    pub(crate) fn put_back(&mut self, item: Item) {
        self.bytes += bytes_of(&item);
        self.items.push_front(item);
    }

    /// The next item, which waits no more.
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= bytes_of(&item);
        Some(item)
    }

    /// Nothing waits any more.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    /// Joins a small batch with those that wait behind it: the target handles one batch of a partition at a time, so
    /// few large ones cost it less than many small ones. A batch that is sent as soon as it comes is not copied.
    /// `kept_waiting`: it is sent one at a time, or behind batches that are not answered yet.
    pub(crate) fn join(&mut self, first: Outgoing, kept_waiting: bool, pool: &Pool) -> Outgoing {
        let (mut size, mut last, mut behind) = (first.size(), first.last, 0);
        let mut records = first.count();
        let Some(codec) = first.joins() else {
            return first;
        };
        // To compress anew is dear: only where the target keeps more waiting anyway.
        if codec != Codec::None && !kept_waiting {
            return first;
        }
        for item in &self.items {
            match item {
                Item::Batch(next)
                    if next.joins() == Some(codec)
                        && next.first == last + 1
                        && size + next.size() + grown(records, next) <= self.join_bytes =>
                {
                    (size, last, behind) = (size + next.size(), next.last, behind + 1);
                    records = records.saturating_add(next.count());
                }
                _ => break,
            }
        }
        if behind == 0 {
            return first;
        }
        let waiting = self
            .items
            .iter()
            .take(behind)
            .filter_map(|item| match item {
                Item::Batch(next) => Some(next),
                Item::Gap { .. } => None,
            });
        let batches: Vec<&Batch> = std::iter::once(&first)
            .chain(waiting)
            .map(|outgoing| &outgoing.batch)
            .collect();
        let batch = match joined(&batches, codec, pool) {
            Ok(batch) if batch.bytes.len() <= self.join_bytes => batch,
            // Damaged on its way: it goes as it is, and the target refuses it by its checksum.
            _ => return first,
        };
        self.bytes -= (size - first.size()) as u64;
        let taken = self.items.drain(..behind);
        let source_epoch = taken
            .last()
            .map_or(first.source_epoch, |item| item.source_epoch());
        Outgoing {
            batch,
            first: first.first,
            last,
            source_epoch,
            original: None,
            alone: false,
            max_decoded: first.max_decoded,
        }
    }
}

fn bytes_of(item: &Item) -> u64 {
    match item {
        Item::Batch(outgoing) => outgoing.size() as u64,
        Item::Gap { .. } => 0,
    }
}

/// What the fronts of so many records and the next ones may grow by when they are joined: their offsets and times are
/// counted from farther away.
fn grown(records: i32, next: &Outgoing) -> usize {
    const EACH: usize = 6;
    usize::try_from(records.saturating_add(next.count())).map_or(usize::MAX / 2, |n| n * EACH)
}

fn joined(batches: &[&Batch], codec: Codec, pool: &Pool) -> Result<Batch, WireError> {
    if codec != Codec::None {
        let Batch { header, bytes } = join_compressed(batches, limits::JOIN_INFLATE_BYTES)?;
        let bytes = pool.adopt(bytes);
        return Ok(Batch { header, bytes });
    }
    let mut buffer = pool.buffer(joined_bound(batches));
    let header = join(batches, buffer.bytes())?;
    Ok(Batch {
        header,
        bytes: buffer.freeze(),
    })
}
