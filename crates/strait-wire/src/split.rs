//! One batch made several: pieces that a target with a lower limit takes, or the runs between records that it refuses.

use bytes::{Bytes, BytesMut};

use crate::batch::{Attributes, Batch, BatchHeader, Codec, HEADER_LEN, LEAST_LENGTH};
use crate::raw::{RawRecord, RawRecords};
use crate::record::{BatchBuilder, Record};
use crate::{Stamp, WireError, compress};

type Result<T> = std::result::Result<T, WireError>;

/// Cuts a dense batch of data into batches of at most `limit` bytes, with the same codec, CreateTime and the
/// timestamps a consumer sees. A record that exceeds the limit alone is alone in its batch: the caller sees that by its
/// size. A batch within the limit is its own only piece, untouched.
///
/// A piece has the base offset of its first record in the source and the leader epoch of the source's batch, no
/// producer and no flags. `max_bytes` bounds what compressed records may inflate to.
///
/// How much is compressed in vain is bounded, whatever the records are: a piece is tried with as many as the ratio of
/// the one before it promises, but at most twice its bytes, and with half of them while it comes out too large.
///
/// # Errors
/// As [`Batch::decode`]: a damaged batch is refused, never given a new checksum. [`WireError::Encode`] for a batch
/// with holes, which [`repack`](crate::repack) closes, and for control records.
pub fn split(batch: &Batch, limit: usize, max_bytes: usize) -> Result<Vec<Batch>> {
    let header = &batch.header;
    if header.attributes.control() || header.count <= 0 || !header.is_dense() {
        return Err(WireError::Encode {
            what: "piece of a record batch",
            why: "only dense batches of data are split",
        });
    }
    batch.verify_crc()?;
    if batch.bytes.len() <= limit && !header.attributes.timestamp_type_append() {
        return Ok(vec![batch.clone()]);
    }
    let codec = header.attributes.codec()?;
    let packed = batch.records();
    let plain = match codec {
        Codec::None => packed.clone(),
        _ => compress::decompress(codec, &packed, max_bytes, header.base_offset)?.into(),
    };
    let records: Vec<RawRecord<'_>> = RawRecords::new(header, &plain)?.collect::<Result<_>>()?;
    let room = limit.saturating_sub(HEADER_LEN);
    // What is not compressed has the size it has.
    let promise = |plain: usize, packed: usize| match codec {
        Codec::None => room,
        _ => room.saturating_mul(plain) / packed.max(1) / 16 * 15,
    };
    let mut pieces = Vec::new();
    let mut offset = header.base_offset;
    let mut rest = records.as_slice();
    let mut target = promise(plain.len(), packed.len());
    while !rest.is_empty() {
        let piece = Piece::fill(header, rest, target);
        let packed = match codec {
            Codec::None => piece.plain.clone().freeze(),
            _ => Bytes::from(compress::compress(codec, &piece.plain)?),
        };
        if packed.len() > room && piece.count > 1 {
            target = piece.plain.len() / 2;
            continue;
        }
        target = match codec {
            Codec::None => room,
            _ => promise(piece.plain.len(), packed.len()).min(piece.plain.len() * 2),
        };
        let piece_batch = piece
            .header(header, offset, packed.len())?
            .with_records(&packed);
        offset = piece_batch.header.next_offset();
        rest = &rest[piece.count..];
        pieces.push(piece_batch);
    }
    Ok(pieces)
}

/// The first of some records, packed anew but not compressed.
struct Piece {
    plain: BytesMut,
    count: usize,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Piece {
    /// Takes the first of `records` and those behind it that fit into `target` bytes with it.
    fn fill(source: &BatchHeader, records: &[RawRecord<'_>], target: usize) -> Self {
        let timestamp = |record: &RawRecord<'_>| match source.attributes.timestamp_type_append() {
            true => source.max_timestamp,
            false => source.base_timestamp.wrapping_add(record.timestamp_delta),
        };
        let base_timestamp = records.first().map_or(-1, timestamp);
        let mut piece = Self {
            plain: BytesMut::new(),
            count: 0,
            base_timestamp,
            max_timestamp: base_timestamp,
        };
        for (offset_delta, record) in (0..).zip(records) {
            let timestamp = timestamp(record);
            let delta = timestamp.wrapping_sub(base_timestamp);
            let size = record.size(delta, offset_delta);
            if piece.count > 0 && piece.plain.len().saturating_add(size) > target {
                break;
            }
            record.copy_to(delta, offset_delta, &mut piece.plain);
            piece.max_timestamp = piece.max_timestamp.max(timestamp);
            piece.count += 1;
        }
        piece
    }

    /// Its header but for the checksum, with `bytes` of records.
    fn header(&self, source: &BatchHeader, base_offset: i64, bytes: usize) -> Result<BatchHeader> {
        let too_large = |_| WireError::Encode {
            what: "piece of a record batch",
            why: "it exceeds 2 GiB",
        };
        let count = i32::try_from(self.count).map_err(too_large)?;
        Ok(BatchHeader {
            base_offset,
            length: i32::try_from(LEAST_LENGTH + bytes).map_err(too_large)?,
            attributes: Attributes(source.attributes.0 & Attributes::CODEC),
            last_offset_delta: count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: Stamp::NONE.producer_id,
            producer_epoch: Stamp::NONE.producer_epoch,
            base_sequence: Stamp::NONE.base_sequence,
            count,
            ..*source
        })
    }
}

/// Part of a batch of which some records are left out: see [`without`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Records that go on.
    Kept {
        /// The first source offset it accounts for.
        first: i64,
        /// The last source offset it accounts for.
        last: i64,
        /// Its records as a dense batch. The base offset is that of its first record in the source.
        batch: Batch,
    },
    /// Records that are left out.
    LeftOut {
        /// The first source offset it accounts for.
        first: i64,
        /// The last source offset it accounts for.
        last: i64,
        /// Records among them; the other offsets had none.
        records: usize,
    },
}

/// What `batch` is without those of its records, from `from_offset` on, of which `drop` says so: runs of kept and of
/// left-out records in source order. They account for every source offset from `from_offset` (or the base offset, if
/// higher) to the batch's last, once. Offsets without a record (compaction) belong to the run of the record behind
/// them, the last ones to the last run. Without a record there is no run.
///
/// Kept batches have the same codec, the leader epoch of the source's batch, CreateTime and the timestamps a consumer
/// sees, no producer and no flags, as from [`repack`](crate::repack).
///
/// # Errors
/// As [`Batch::decode`]; [`WireError::Encode`] when a batch would exceed 2 GiB.
pub fn without(
    batch: &Batch,
    from_offset: i64,
    mut drop: impl FnMut(&Record) -> bool,
    max_bytes: usize,
) -> Result<Vec<Run>> {
    let header = &batch.header;
    let mut records = batch.decode(max_bytes)?.into_iter().peekable();
    while records
        .next_if(|record| record.offset < from_offset)
        .is_some()
    {}
    let mut runs = Vec::new();
    let mut first = from_offset.max(header.base_offset);
    let mut verdict = records.peek().map(&mut drop);
    while let Some(dropped) = verdict {
        let mut builder = BatchBuilder::new(header.attributes.codec()?);
        let (mut base_offset, mut last, mut left_out) = (None, first, 0);
        // Each record is judged once: the verdict on the next run's first record is kept.
        while verdict == Some(dropped) {
            let Some(record) = records.next() else { break };
            base_offset.get_or_insert(record.offset);
            last = record.offset;
            left_out += 1;
            if !dropped {
                builder.push(record);
            }
            verdict = records.peek().map(&mut drop);
        }
        if verdict.is_none() {
            last = header.last_offset();
        }
        runs.push(match base_offset {
            Some(base_offset) if !dropped => Run::Kept {
                first,
                last,
                batch: builder.build_at(base_offset, header.leader_epoch, Stamp::NONE)?,
            },
            _ => Run::LeftOut {
                first,
                last,
                records: left_out,
            },
        });
        first = last.saturating_add(1);
    }
    Ok(runs)
}
