//! Small batches made one: fewer and larger batches cost the target less.

use bytes::{BufMut, BytesMut};

use crate::batch::{Attributes, Batch, BatchHeader, CRC_START, Codec, HEADER_LEN, LEAST_LENGTH};
use crate::compress;
use crate::crc::replace_front;
use crate::raw::{GROWTH, RawRecords};
use crate::record::LEAST_RECORD;
use crate::{Stamp, WireError};

type Result<T> = std::result::Result<T, WireError>;

/// Attributes that do not hinder joining, beside the codec: [`restamp`](crate::restamp) clears them too. One whose
/// meaning is unknown would be passed on by it, and joining cannot.
const CLEARED: i16 = Attributes::TRANSACTIONAL | Attributes::DELETE_HORIZON;

/// Whether [`join`] takes the batch: uncompressed data, a record for every offset, times that are the records' own.
pub fn joinable(header: &BatchHeader) -> bool {
    header.attributes.codec() == Ok(Codec::None) && plain_and_dense(header)
}

/// Whether [`join_compressed`] takes the batch: as [`joinable`], but compressed.
pub fn joinable_compressed(header: &BatchHeader) -> bool {
    !matches!(header.attributes.codec(), Ok(Codec::None) | Err(_)) && plain_and_dense(header)
}

fn plain_and_dense(header: &BatchHeader) -> bool {
    header.attributes.0 & !(Attributes::CODEC | CLEARED) == 0
        && header.count > 0
        && header.is_dense()
}

/// Bytes that the joined batch has at the most.
pub fn joined_bound(batches: &[&Batch]) -> usize {
    let sizes = batches.iter().map(|batch| {
        let records = batch.bytes.len().saturating_sub(HEADER_LEN);
        grown(records, batch.header.count)
    });
    sizes.fold(HEADER_LEN, usize::saturating_add)
}

fn grown(bytes: usize, count: i32) -> usize {
    // A header may lie about its count, and a buffer is taken before that is noticed.
    let count = usize::try_from(count)
        .unwrap_or(0)
        .min(bytes / LEAST_RECORD);
    bytes.saturating_add(count.saturating_mul(GROWTH))
}

/// Writes one batch with the records of all `batches`, in their order, to the end of `out`, and returns its header.
/// Each must be [`joinable`] and begin where the one before it ends, so that every record keeps its offset. Nothing is
/// allocated if `out` has room for [`joined_bound`].
///
/// The result has the base offset and base timestamp of the first batch and the leader epoch of the last, no producer
/// and no flags. Records keep time, key, value and headers. Only their fronts (length, timestamp delta, offset delta)
/// are written anew; the rest is copied once.
///
/// # Errors
/// [`WireError::Crc`]: a damaged batch never gets a new checksum. What is wrong with records that are not what
/// [`Batch::decode`] demands. [`WireError::Encode`] without a batch, for one that is not joinable or does not follow the
/// one before it, and beyond 2 GiB. `out` is then as it was.
pub fn join(batches: &[&Batch], out: &mut BytesMut) -> Result<BatchHeader> {
    let start = out.len();
    let result = write(batches, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write(batches: &[&Batch], out: &mut BytesMut) -> Result<BatchHeader> {
    let start = out.len();
    out.put_bytes(0, HEADER_LEN);
    // The header's part comes first and is known last.
    const UNKNOWN: [u8; HEADER_LEN] = [0; HEADER_LEN];
    let mut crc = crc32c::crc32c(&UNKNOWN[CRC_START..]);
    let mut join = Join::default();
    for batch in batches {
        join.admit(batch, joinable)?;
        batch.verify_crc()?;
        let records = batch.bytes.get(HEADER_LEN..).unwrap_or_default();
        let copied = out.len();
        join.copy(&batch.header, records, out)?;
        // Now, while the copy is in the processor's cache.
        crc = crc32c::crc32c_append(crc, &out[copied..]);
    }
    let bytes = out.len() - start - HEADER_LEN;
    let mut header = join.header(Codec::None, bytes)?;
    let front = &header.encode()[CRC_START..];
    header.crc = replace_front(crc, &UNKNOWN[CRC_START..], front, bytes);
    out[start..start + HEADER_LEN].copy_from_slice(&header.encode());
    Ok(header)
}

/// As [`join`], for batches that are [`joinable_compressed`] with one codec: their records are inflated, joined and
/// compressed with it. They may inflate to `max_bytes` together.
///
/// # Errors
/// As [`join`], and [`WireError::TooLarge`] or [`WireError::Decompress`]. [`WireError::Encode`] for different codecs.
pub fn join_compressed(batches: &[&Batch], max_bytes: usize) -> Result<Batch> {
    let codec = batches
        .first()
        .map_or(Ok(Codec::None), |batch| batch.header.attributes.codec())?;
    let mut plain = BytesMut::new();
    let mut left = max_bytes;
    let mut join = Join::default();
    for batch in batches {
        join.admit(batch, joinable_compressed)?;
        if batch.header.attributes.codec()? != codec {
            return Err(failed("the codecs of the batches differ"));
        }
        batch.verify_crc()?;
        let records = batch.bytes.get(HEADER_LEN..).unwrap_or_default();
        let offset = batch.header.base_offset;
        let inflated =
            compress::decompress(codec, records, left, offset).map_err(|error| match error {
                WireError::TooLarge { offset, .. } => WireError::TooLarge {
                    offset,
                    limit: max_bytes,
                },
                other => other,
            })?;
        left -= inflated.len();
        join.copy(&batch.header, &inflated, &mut plain)?;
    }
    let packed = compress::compress(codec, &plain)?;
    Ok(join.header(codec, packed.len())?.with_records(&packed))
}

/// What is known of the joined batch so far.
#[derive(Default)]
struct Join {
    first: Option<BatchHeader>,
    last: Option<BatchHeader>,
    count: i32,
    max_timestamp: i64,
}

impl Join {
    fn admit(&mut self, batch: &Batch, joinable: fn(&BatchHeader) -> bool) -> Result<()> {
        let header = batch.header;
        if !joinable(&header) {
            return Err(failed("a batch is not of the kind that can be joined"));
        }
        if self
            .last
            .is_some_and(|last| last.next_offset() != header.base_offset)
        {
            return Err(failed("a batch does not follow the one before it"));
        }
        self.max_timestamp = match self.first {
            Some(_) => self.max_timestamp.max(header.max_timestamp),
            None => header.max_timestamp,
        };
        self.first.get_or_insert(header);
        self.last = Some(header);
        Ok(())
    }

    /// Copies the `records` of the batch with `header`, which was admitted last.
    fn copy(&mut self, header: &BatchHeader, records: &[u8], out: &mut BytesMut) -> Result<()> {
        let base_timestamp = self.first.map_or(0, |first| first.base_timestamp);
        let shift = header.base_timestamp.wrapping_sub(base_timestamp);
        let end = self
            .count
            .checked_add(header.count)
            .ok_or_else(|| failed("it exceeds 2^31 records"))?;
        let walk = RawRecords::new(header, records)?;
        out.reserve(grown(records.len(), header.count));
        // The walk may end with an error in place of a record, so the count is not its length.
        for record in walk {
            let record = record?;
            record.copy_to(record.timestamp_delta.wrapping_add(shift), self.count, out);
            self.count += 1;
        }
        debug_assert_eq!(self.count, end);
        Ok(())
    }

    /// The joined batch's header but for the checksum, over `bytes` of records.
    fn header(&self, codec: Codec, bytes: usize) -> Result<BatchHeader> {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return Err(failed("there is nothing to join"));
        };
        let length = i32::try_from(LEAST_LENGTH + bytes).map_err(|_| failed("it exceeds 2 GiB"))?;
        Ok(BatchHeader {
            length,
            leader_epoch: last.leader_epoch,
            crc: 0,
            attributes: Attributes(codec.id()),
            last_offset_delta: self.count - 1,
            max_timestamp: self.max_timestamp,
            producer_id: Stamp::NONE.producer_id,
            producer_epoch: Stamp::NONE.producer_epoch,
            base_sequence: Stamp::NONE.base_sequence,
            count: self.count,
            ..first
        })
    }
}

#[cold]
fn failed(why: &'static str) -> WireError {
    WireError::Encode {
        what: "joined record batch",
        why,
    }
}
