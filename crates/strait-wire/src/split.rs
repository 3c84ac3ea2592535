//! One batch made several: pieces that a target with a lower limit takes, or the runs between records that it refuses.

use bytes::{BufMut, Bytes, BytesMut};

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
/// producer, and no flags. `max_bytes` bounds what compressed records may inflate to.
///
/// The cost is bounded whatever the records are: a piece is tried with as many records as the ratio of the piece before
/// it promises, at most twice as many bytes as that had, and with half of them while it comes out too large.
///
/// # Errors
/// As [`Batch::decode`]: a damaged batch is refused, never given a new checksum. [`WireError::Encode`] for a batch
/// with holes (see [`repack`](crate::repack)) or of control records.
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
        _ => Bytes::from(compress::decompress(
            codec,
            &packed,
            max_bytes,
            header.base_offset,
        )?),
    };
    let room = limit.saturating_sub(HEADER_LEN);
    let mut pieces = Vec::new();
    let mut rest = RawRecords::new(header, &plain)?;
    let mut offset = header.base_offset;
    let mut target = estimate(room, plain.len(), packed.len());
    while !rest.is_empty() {
        let (piece, behind) = loop {
            let mut behind = rest.clone();
            let piece = Piece::fill(header, &mut behind, target)?;
            let records = compressed(codec, piece.records)?;
            if records.len() <= room || piece.count == 1 {
                let plain = piece.plain;
                target = estimate(room, plain, records.len()).min(plain.saturating_mul(2));
                break (piece.header(codec, offset, records), behind);
            }
            target = piece.plain / 2;
        };
        let piece = piece?;
        offset = piece.header.next_offset();
        pieces.push(piece);
        rest = behind;
    }
    Ok(pieces)
}
