//! One batch made several: pieces that a target with a lower limit takes.

use bytes::{Bytes, BytesMut};

use crate::batch::{Attributes, Batch, BatchHeader, Codec, HEADER_LEN, LEAST_LENGTH};
use crate::raw::{RawRecord, RawRecords};
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
    // The places of very small records take more than the records.
    let places = (header.count as usize).saturating_mul(size_of::<RawRecord<'_>>());
    if plain.len().saturating_add(places) > max_bytes {
        return Err(WireError::TooLarge {
            offset: header.base_offset,
            limit: max_bytes,
        });
    }
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
