//! What a source's batch becomes on its way to the target: a new header in front of the same records, or,
//! where brokers would refuse that, the records packed anew.

use bytes::Bytes;

use crate::batch::{Attributes, Batch, BatchHeader, CRC_START};
use crate::record::BatchBuilder;
use crate::{WireError, crc};

/// Who writes a batch, and the place of its records among those the producer wrote to the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the batch's first record, or -1.
    pub base_sequence: i32,
}

impl Stamp {
    /// Of a producer that is not idempotent.
    pub const NONE: Self = Self {
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
    };
}

const CLEARED: i16 = Attributes::APPEND_TIME
    | Attributes::TRANSACTIONAL
    | Attributes::CONTROL
    | Attributes::DELETE_HORIZON;

/// Makes of a source's batch one that can be produced: a new header of 61 bytes, and the records untouched,
/// in the same memory. Base offset 0 (`UnifiedLog` demands it), leader epoch -1, and cleared are: log append
/// time (0x08), transactional (0x10: a broker refuses every partition of the request), control (0x20) and the
/// delete horizon (0x40: the target's cleaner would go by the source's deadline).
///
/// The base timestamp stays, also when the delete horizon is cleared. `MemoryRecords.filterTo` sets the horizon
/// only while it rewrites a batch, through a `MemoryRecordsBuilder` whose base timestamp is the horizon from
/// the start and from which `appendDefaultRecord` computes the deltas; and `DefaultRecordBatch.RecordIterator`
/// adds delta and base without looking at the bit. So each record keeps its timestamp.
///
/// The checksum is changed by what the header's change makes of it, not computed anew: a batch that was
/// damaged anywhere on its way still has a wrong checksum afterwards, and the target refuses it.
///
/// A batch for which [`needs_repack`] answers something needs [`repack`] first.
pub fn restamp(batch: &Batch, stamp: Stamp) -> [Bytes; 2] {
    let source = &batch.header;
    let records = batch.records();
    let mut header = BatchHeader {
        base_offset: 0,
        leader_epoch: -1,
        attributes: Attributes(source.attributes.0 & !CLEARED),
        producer_id: stamp.producer_id,
        producer_epoch: stamp.producer_epoch,
        base_sequence: stamp.base_sequence,
        ..*source
    };
    header.crc = crc::replace_front(
        source.crc,
        &source.encode()[CRC_START..],
        &header.encode()[CRC_START..],
        records.len(),
    );
    [Bytes::copy_from_slice(&header.encode()), records]
}

/// Why a batch cannot be forwarded with its records as they are.
///
/// The delete horizon is no cause: see [`restamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RepackCause {
    /// Compaction removed some of its records; `LogValidator` demands count = last offset delta + 1.
    Holes,
    /// Its records' timestamps are its append time, which only the header knows and which a target with
    /// CreateTime drops.
    AppendTime,
}

/// Whether [`repack`] is needed before [`restamp`]. An empty batch is never forwarded, so it needs nothing.
pub fn needs_repack(header: &BatchHeader) -> Option<RepackCause> {
    if header.count <= 0 {
        None
    } else if !header.is_dense() {
        Some(RepackCause::Holes)
    } else if header.attributes.timestamp_type_append() {
        Some(RepackCause::AppendTime)
    } else {
        None
    }
}

/// Packs the records from `from_offset` on anew: dense, with the same codec, CreateTime and the timestamps a
/// consumer sees. The result has the base offset of its first record in the source, the leader epoch of the
/// source's batch, no producer, and no flags. `max_bytes` bounds what compressed records may inflate to.
///
/// Without a record to keep, the result has count 0, last offset delta -1 and as base offset the one behind
/// the source's batch. It is nothing that can be sent.
///
/// # Errors
/// As [`Batch::decode`]: a damaged batch is refused, never given a new checksum. [`WireError::Encode`] when the
/// result would exceed 2 GiB.
pub fn repack(batch: &Batch, from_offset: i64, max_bytes: usize) -> Result<Batch, WireError> {
    let source = &batch.header;
    let records = batch.decode(max_bytes)?;
    let mut builder = BatchBuilder::with_room(source.attributes.codec()?, &records);
    let mut base_offset = source.next_offset();
    for record in records {
        if record.offset >= from_offset {
            base_offset = base_offset.min(record.offset);
            builder.push(record);
        }
    }
    builder.build_at(base_offset, source.leader_epoch, Stamp::NONE)
}
