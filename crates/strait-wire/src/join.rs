//! Small batches made one: fewer and larger batches cost the target less.

use bytes::{BufMut, BytesMut};

use crate::WireError;
use crate::batch::{Attributes, Batch, BatchHeader, CRC_START, Codec, HEADER_LEN, LEAST_LENGTH};

type Result<T> = std::result::Result<T, WireError>;

/// What the front of a record takes at the most: length, attributes, timestamp delta, offset delta.
const LONGEST_FRONT: usize = 5 + 1 + 10 + 5;
/// And at the least.
const SHORTEST_FRONT: usize = 4;

/// Whether [`join`] takes the batch: uncompressed data, a record for every offset, times that are the records' own.
pub fn joinable(header: &BatchHeader) -> bool {
    let attributes = header.attributes;
    attributes.codec() == Ok(Codec::None)
        && !attributes.control()
        && !attributes.timestamp_type_append()
        && header.count > 0
        && header.is_dense()
}

/// Bytes that the joined batch has at the most.
pub fn joined_bound(batches: &[&Batch]) -> usize {
    let records = batches.iter().map(|batch| {
        let count = usize::try_from(batch.header.count).unwrap_or(0);
        let growth = count.saturating_mul(LONGEST_FRONT - SHORTEST_FRONT);
        batch.bytes.len().saturating_add(growth)
    });
    records.fold(HEADER_LEN, usize::saturating_add)
}

/// Writes one batch with the records of all `batches`, in their order, to the end of `out`, and returns its header.
/// Each must be [`joinable`]. `out` should have room for [`joined_bound`].
///
/// The result has the base offset and base timestamp of the first batch and the leader epoch of the last, no
/// producer and no flags. Records keep their time, attributes, key, value and headers; only what stands in front of
/// them (length, timestamp delta, offset delta) is written anew, so their bytes are copied once and not looked into.
///
/// # Errors
/// [`WireError::Crc`]: a damaged batch never gets a new checksum. [`WireError::BadValue`] for a batch that is not
/// joinable or records that are not what its header says; [`WireError::Truncated`] and [`WireError::Trailing`] for
/// records that do not fill their batch. [`WireError::Encode`] without a batch, or beyond 2 GiB. `out` is then as it was.
pub fn join(batches: &[&Batch], out: &mut BytesMut) -> Result<BatchHeader> {
    let start = out.len();
    let result = write(batches, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write(batches: &[&Batch], out: &mut BytesMut) -> Result<BatchHeader> {
    let failed = |why| WireError::Encode {
        what: "joined record batch",
        why,
    };
    let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
        return Err(failed("there is nothing to join"));
    };
    let start = out.len();
    out.put_bytes(0, HEADER_LEN);
    let mut count: i32 = 0;
    let mut max_timestamp = i64::MIN;
    for batch in batches {
        let header = &batch.header;
        if !joinable(header) {
            return Err(WireError::BadValue {
                what: "attributes of a batch to join",
                value: i64::from(header.attributes.0),
            });
        }
        batch.verify_crc()?;
        let shift = header
            .base_timestamp
            .wrapping_sub(first.header.base_timestamp);
        copy_records(batch, shift, count, out)?;
        count = count
            .checked_add(header.count)
            .ok_or_else(|| failed("it exceeds 2^31 records"))?;
        max_timestamp = max_timestamp.max(header.max_timestamp);
    }
    let length = i32::try_from(out.len() - start - HEADER_LEN + LEAST_LENGTH)
        .map_err(|_| failed("it exceeds 2 GiB"))?;
    let mut header = BatchHeader {
        base_offset: first.header.base_offset,
        length,
        leader_epoch: last.header.leader_epoch,
        magic: 2,
        crc: 0,
        attributes: Attributes(Codec::None.id()),
        last_offset_delta: count - 1,
        base_timestamp: first.header.base_timestamp,
        max_timestamp,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        count,
    };
    let joined = &mut out[start..];
    joined[..HEADER_LEN].copy_from_slice(&header.encode());
    header.crc = crc32c::crc32c(&joined[CRC_START..]);
    joined[..HEADER_LEN].copy_from_slice(&header.encode());
    Ok(header)
}

/// Copies the records of `batch` behind the `before` that are already there; their times move by `shift`.
fn copy_records(batch: &Batch, shift: i64, before: i32, out: &mut BytesMut) -> Result<()> {
    let mut rest = &batch.bytes[HEADER_LEN.min(batch.bytes.len())..];
    for expected in 0..batch.header.count {
        let length = unzigzag(varint(&mut rest)?);
        let have = rest.len();
        let length = usize::try_from(length).map_err(|_| WireError::BadCount {
            what: "record length",
            count: length,
            have,
        })?;
        let Some((mut body, behind)) = rest.split_at_checked(length) else {
            return Err(WireError::Truncated {
                what: "record",
                need: length,
                have,
            });
        };
        rest = behind;
        let attributes = byte(&mut body)?;
        let timestamp = unzigzag(varint(&mut body)?).wrapping_add(shift);
        let offset = unzigzag(varint(&mut body)?);
        if offset != i64::from(expected) {
            return Err(WireError::BadValue {
                what: "offset delta of a record",
                value: offset,
            });
        }
        let mut front = [0; LONGEST_FRONT];
        let mut end = LENGTH_ROOM;
        front[end] = attributes;
        end += 1;
        end = put_varint(zigzag(timestamp), &mut front, end);
        end = put_varint(
            zigzag(i64::from(before) + i64::from(expected)),
            &mut front,
            end,
        );
        let length = (end - LENGTH_ROOM + body.len()) as u64;
        // The length is only known now; it stands right in front of what it counts.
        let mut prefix = [0; LONGEST_FRONT];
        let width = put_varint(length << 1, &mut prefix, 0);
        let begin = LENGTH_ROOM - width.min(LENGTH_ROOM);
        front[begin..LENGTH_ROOM].copy_from_slice(&prefix[..LENGTH_ROOM - begin]);
        out.extend_from_slice(&front[begin..end]);
        out.extend_from_slice(body);
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(WireError::Trailing {
        what: "records of a batch",
        left: rest.len(),
    })
}

/// Bytes of a record's length at the most: it is an INT32.
const LENGTH_ROOM: usize = 5;

fn byte(bytes: &mut &[u8]) -> Result<u8> {
    let Some((&first, behind)) = bytes.split_first() else {
        return Err(WireError::Truncated {
            what: "record",
            need: 1,
            have: 0,
        });
    };
    *bytes = behind;
    Ok(first)
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(bytes)?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            // The tenth byte has room for one bit.
            if shift == 63 && next > 1 {
                break;
            }
            return Ok(value);
        }
    }
    Err(WireError::BadValue {
        what: "varint of a record",
        value: -1,
    })
}

#[inline]
fn put_varint(mut value: u64, out: &mut [u8; LONGEST_FRONT], mut at: usize) -> usize {
    while value >= 0x80 {
        out[at] = (value as u8) | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}
