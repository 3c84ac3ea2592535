//! Record batches as they stand in a log: the 61-byte header, and a walk over a Fetch response's records.
//!
//! Layout: `DefaultRecordBatch`. Offset 0 baseOffset, 8 length, 12 partitionLeaderEpoch, 16 magic, 17 crc,
//! 21 attributes, 23 lastOffsetDelta, 27 baseTimestamp, 35 maxTimestamp, 43 producerId, 51 producerEpoch,
//! 53 baseSequence, 57 count, 61 records. The checksum (CRC-32C) covers byte 21 to the end.

use std::iter::FusedIterator;

use bytes::{Bytes, BytesMut};

use crate::WireError;
use crate::record::{self, Record};

type Result<T> = std::result::Result<T, WireError>;

/// Bytes of a batch's header; the records begin there.
pub const HEADER_LEN: usize = 61;
/// Where the bytes begin that the checksum covers.
pub(crate) const CRC_START: usize = 21;
/// Bytes in front of those that `length` counts: the base offset and the length itself.
const LENGTH_END: usize = 12;
/// What `length` counts of a header, so the least it can be.
pub(crate) const LEAST_LENGTH: usize = HEADER_LEN - LENGTH_END;
/// The least `length` of a magic 0 or 1 message: crc, magic, attributes, key length, value length.
const LEAST_LEGACY_LENGTH: usize = 14;
/// Through the magic byte, which stands at the same place in every format.
const MAGIC_END: usize = 17;
/// A marker is 78 bytes; one that would inflate beyond this is none.
const CONTROL_LIMIT: usize = 64 * 1024;

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not compressed.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy, framed as xerial's snappy-java does, or a single raw block.
    Snappy,
    /// An LZ4 frame.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// Its number in bits 0-2 of a batch's attributes (`CompressionType`).
    pub fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Its name, as in Kafka's `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// A batch's attributes. Bits 7 to 15 mean nothing yet and are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    pub(crate) const CODEC: i16 = 0x07;
    pub(crate) const APPEND_TIME: i16 = 0x08;
    pub(crate) const TRANSACTIONAL: i16 = 0x10;
    pub(crate) const CONTROL: i16 = 0x20;
    pub(crate) const DELETE_HORIZON: i16 = 0x40;

    /// The codec of the records.
    ///
    /// # Errors
    /// [`WireError::BadValue`] for a number that no codec has (5 to 7).
    pub fn codec(self) -> Result<Codec> {
        match self.0 & Self::CODEC {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            n => Err(WireError::BadValue {
                what: "compression codec of a record batch",
                value: i64::from(n),
            }),
        }
    }

    /// Whether the records' effective timestamp is the batch's `max_timestamp` (LogAppendTime, 0x08).
    pub fn timestamp_type_append(self) -> bool {
        self.0 & Self::APPEND_TIME != 0
    }

    /// Whether the batch belongs to a transaction (0x10).
    pub fn transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch is a marker, not data (0x20).
    pub fn control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }
}

/// The header of a magic 2 batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record, also when compaction removed that record.
    pub base_offset: i64,
    /// Bytes behind this field: the batch's size less 12.
    pub length: i32,
    /// Epoch of the leader that appended the batch; -1 from a producer.
    pub leader_epoch: i32,
    /// The format: 2.
    pub magic: i8,
    /// CRC-32C of byte 21 to the end.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Last offset less base offset; compaction leaves it as it was.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are added to, ms; also the delete horizon if that attribute is set.
    pub base_timestamp: i64,
    /// Highest timestamp of the records, or the append time, ms.
    pub max_timestamp: i64,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Records in the batch.
    pub count: i32,
}

fn field<const N: usize>(raw: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[at..at + N]);
    out
}

fn check(what: &'static str, value: i64, ok: bool) -> Result<()> {
    if ok {
        Ok(())
    } else {
        Err(WireError::BadValue { what, value })
    }
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`, which may be longer or end behind the header, and checks
    /// that it can be: magic 2, a length that holds the header, offsets that are not negative and do not
    /// overflow, a count between 0 and the number of offsets. The checksum is not checked.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 61 bytes, [`WireError::BadValue`] for a field that cannot be.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let Some(raw) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(WireError::Truncated {
                what: "record batch header",
                need: HEADER_LEN,
                have: bytes.len(),
            });
        };
        let header = Self {
            base_offset: i64::from_be_bytes(field(raw, 0)),
            length: i32::from_be_bytes(field(raw, 8)),
            leader_epoch: i32::from_be_bytes(field(raw, 12)),
            magic: i8::from_be_bytes(field(raw, 16)),
            crc: u32::from_be_bytes(field(raw, 17)),
            attributes: Attributes(i16::from_be_bytes(field(raw, 21))),
            last_offset_delta: i32::from_be_bytes(field(raw, 23)),
            base_timestamp: i64::from_be_bytes(field(raw, 27)),
            max_timestamp: i64::from_be_bytes(field(raw, 35)),
            producer_id: i64::from_be_bytes(field(raw, 43)),
            producer_epoch: i16::from_be_bytes(field(raw, 51)),
            base_sequence: i32::from_be_bytes(field(raw, 53)),
            count: i32::from_be_bytes(field(raw, 57)),
        };
        let delta = header.last_offset_delta;
        check(
            "magic of a record batch",
            i64::from(header.magic),
            header.magic == 2,
        )?;
        check(
            "length of a record batch",
            i64::from(header.length),
            header.length >= LEAST_LENGTH as i32,
        )?;
        check(
            "last offset delta of a record batch",
            i64::from(delta),
            delta >= 0,
        )?;
        let room = header.base_offset >= 0 && header.base_offset < i64::MAX - i64::from(delta);
        check("base offset of a record batch", header.base_offset, room)?;
        let fits = header.count >= 0 && i64::from(header.count) <= i64::from(delta) + 1;
        check(
            "record count of a record batch",
            i64::from(header.count),
            fits,
        )?;
        Ok(header)
    }

    /// The 61 bytes that [`parse`](Self::parse) reads.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut raw = [0; HEADER_LEN];
        raw[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        raw[8..12].copy_from_slice(&self.length.to_be_bytes());
        raw[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        raw[16..17].copy_from_slice(&self.magic.to_be_bytes());
        raw[17..21].copy_from_slice(&self.crc.to_be_bytes());
        raw[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        raw[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        raw[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        raw[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        raw[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        raw[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        raw[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        raw[57..61].copy_from_slice(&self.count.to_be_bytes());
        raw
    }

    /// The batch with this header, which is right but for the checksum, in front of `records`.
    pub(crate) fn with_records(mut self, records: &[u8]) -> Batch {
        let mut bytes = BytesMut::with_capacity(HEADER_LEN + records.len());
        self.crc = crc32c::crc32c_append(crc32c::crc32c(&self.encode()[CRC_START..]), records);
        bytes.extend_from_slice(&self.encode());
        bytes.extend_from_slice(records);
        Batch {
            header: self,
            bytes: bytes.freeze(),
        }
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        LENGTH_END + usize::try_from(self.length).unwrap_or(0)
    }

    /// Offset of the last record, also when compaction removed that record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset behind the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence of the last record: 2^31 - 1 is followed by 0. -1 if the batch has no sequence.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence {
            ..0 => -1,
            base => base.wrapping_add(self.last_offset_delta) & i32::MAX,
        }
    }

    /// Whether every offset has its record, which brokers demand of a produced batch.
    pub fn is_dense(&self) -> bool {
        i64::from(self.count) == i64::from(self.last_offset_delta) + 1
    }
}

/// What a control batch says (`ControlRecordType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlType {
    /// The producer's transaction is aborted.
    Abort,
    /// The producer's transaction is committed.
    Commit,
    /// Anything else, such as a leader change.
    Other(i16),
}

/// A whole magic 2 batch. Clones share the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What the first 61 of `bytes` say.
    pub header: BatchHeader,
    /// The batch, header included.
    pub bytes: Bytes,
}

impl Batch {
    /// Takes `bytes`, exactly one whole batch. The checksum is not checked.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`]; [`WireError::Truncated`] or [`WireError::Trailing`] when the length in
    /// the header is not that of `bytes`.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let header = BatchHeader::parse(&bytes)?;
        match bytes.len().checked_sub(header.size()) {
            Some(0) => Ok(Self { header, bytes }),
            Some(left) => Err(WireError::Trailing {
                what: "record batch",
                left,
            }),
            None => Err(WireError::Truncated {
                what: "record batch",
                need: header.size(),
                have: bytes.len(),
            }),
        }
    }

    /// The bytes behind the header, compressed as the header says; the same memory.
    pub fn records(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN.min(self.bytes.len())..)
    }

    /// Checks the checksum.
    ///
    /// # Errors
    /// [`WireError::Crc`]: the batch was damaged since its producer made it.
    pub fn verify_crc(&self) -> Result<()> {
        let computed = crc32c::crc32c(self.bytes.get(CRC_START..).unwrap_or_default());
        if computed == self.header.crc {
            return Ok(());
        }
        Err(WireError::Crc {
            offset: self.header.base_offset,
            found: self.header.crc,
            computed,
        })
    }

    /// What a control batch says. `None` for a batch of data, one that compaction emptied, and one that
    /// cannot be read.
    pub fn control_type(&self) -> Option<ControlType> {
        if !self.header.attributes.control() {
            return None;
        }
        let records = self.decode(CONTROL_LIMIT).ok()?;
        // The key is INT16 version, INT16 type.
        let &[_, _, hi, lo, ..] = records.first()?.key.as_deref()? else {
            return None;
        };
        Some(match i16::from_be_bytes([hi, lo]) {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            other => ControlType::Other(other),
        })
    }

    /// Decodes the records, once the checksum is found right. Those of an uncompressed batch share its
    /// memory. `max_bytes` bounds what they take otherwise: inflated bytes, records and their headers.
    ///
    /// # Errors
    /// [`WireError::Crc`], [`WireError::TooLarge`], [`WireError::Decompress`], or what is wrong with the
    /// records: they must be as many as the header says, in the order of their offsets and within the batch's.
    pub fn decode(&self, max_bytes: usize) -> Result<Vec<Record>> {
        self.verify_crc()?;
        record::decode(&self.header, self.records(), max_bytes)
    }
}

/// One piece of a Fetch response's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A magic 2 batch.
    Batch(Batch),
    /// A message of an old format, which brokers before 4.0 may still hold in old segments.
    Legacy {
        /// 0 or 1.
        magic: i8,
        /// Its offset; for a compressed set, that of the last message inside.
        offset: i64,
        /// The message, from its offset field on.
        bytes: Bytes,
    },
}

impl Entry {
    /// The offset behind it.
    pub fn next_offset(&self) -> i64 {
        match self {
            Self::Batch(batch) => batch.header.next_offset(),
            Self::Legacy { offset, .. } => offset.saturating_add(1),
        }
    }
}

/// Walks the records of a Fetch response, of which the last entry may be cut off: that ends the walk quietly.
/// Anything that cannot be is an error, and nothing follows it. Checksums are not checked. The entries share the memory.
#[derive(Clone, Debug)]
pub struct Entries {
    rest: Bytes,
    /// The least offset the next entry may have.
    next_offset: i64,
}

impl Entries {
    /// A walk from the front of `records`.
    pub fn new(records: Bytes) -> Self {
        Self {
            rest: records,
            next_offset: 0,
        }
    }

    fn entry(&mut self) -> Result<Option<Entry>> {
        let have = self.rest.len();
        let Some(start) = self.rest.first_chunk::<MAGIC_END>() else {
            return Ok(None);
        };
        let &[o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3, .., magic] = start;
        let offset = i64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        let length = i32::from_be_bytes([l0, l1, l2, l3]);
        let magic = i8::from_be_bytes([magic]);
        let least = match magic {
            0 | 1 => LEAST_LEGACY_LENGTH,
            2 => LEAST_LENGTH,
            _ => {
                return Err(WireError::BadValue {
                    what: "magic of a record batch",
                    value: i64::from(magic),
                });
            }
        };
        check(
            "length of a record batch",
            i64::from(length),
            length >= least as i32,
        )?;
        check(
            "offset of a record batch, lower than the one before it allows",
            offset,
            offset >= self.next_offset,
        )?;
        let size = LENGTH_END + usize::try_from(length).unwrap_or(0);
        if size > have {
            return Ok(None);
        }
        let entry = match magic {
            2 => {
                let header = BatchHeader::parse(&self.rest)?;
                Entry::Batch(Batch {
                    header,
                    bytes: self.rest.split_to(size),
                })
            }
            _ => Entry::Legacy {
                magic,
                offset,
                bytes: self.rest.split_to(size),
            },
        };
        self.next_offset = entry.next_offset();
        Ok(Some(entry))
    }
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entry().transpose();
        if !matches!(entry, Some(Ok(_))) {
            self.rest = Bytes::new();
        }
        entry
    }
}

impl FusedIterator for Entries {}
