//! Message formats v0 and v1 (magic 0 and 1), which brokers before 4.0 may still hold in old segments.
//!
//! Layout (`LegacyRecord`): INT64 offset, INT32 size, then UINT32 crc (CRC-32 of what follows), INT8 magic, INT8
//! attributes, from v1 on INT64 timestamp, INT32 key length and key, INT32 value length and value (negative is null). A
//! compressed set is one such message, the wrapper, with the set's messages in its value.

use bytes::Bytes;
use flate2::Crc;

use crate::batch::{Attributes, Batch, Codec};
use crate::record::{BatchBuilder, Record};
use crate::{Reader, Stamp, WireError, compress};

/// Bytes in front of those that a message's size counts: its offset and the size itself.
const OVERHEAD: usize = 12;

type Result<T> = std::result::Result<T, WireError>;

/// A message of an old format as a batch that can be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// Its records from the start asked for on: dense, magic 2, the same codec, CreateTime with the timestamps a consumer
    /// sees, leader epoch -1, no producer, the base offset of its first record in the source. Without a record to keep, it
    /// has count 0 and is nothing that can be sent.
    pub batch: Batch,
    /// The first source offset it accounts for.
    pub first: i64,
    /// The last source offset it accounts for: the message's own.
    pub last: i64,
}

/// Makes of a message, as [`Entry::Legacy`](crate::Entry::Legacy) carries it, a batch with its records from
/// `from_offset` on. `max_bytes` bounds what a compressed set may inflate to.
///
/// # Errors
/// As [`legacy_records`]; [`WireError::Encode`] when the batch would exceed 2 GiB.
pub fn upgrade(magic: i8, message: &Bytes, from_offset: i64, max_bytes: usize) -> Result<Upgraded> {
    let outer = Message::outer(magic, message)?;
    let (codec, last) = (outer.codec()?, outer.offset);
    let mut builder = BatchBuilder::new(codec);
    let mut first = None;
    let mut base_offset = None;
    for record in outer.records(max_bytes)? {
        first.get_or_insert(record.offset);
        if record.offset >= from_offset {
            base_offset.get_or_insert(record.offset);
            builder.push(record);
        }
    }
    let base_offset = base_offset.unwrap_or(last.saturating_add(1));
    Ok(Upgraded {
        batch: builder.build_at(base_offset, -1, Stamp::NONE)?,
        first: first.unwrap_or(last).max(from_offset),
        last,
    })
}

/// The records of a message, as [`Entry::Legacy`](crate::Entry::Legacy) carries it, under their source offsets, once
/// the checksums of it and of the messages inside are found right.
///
/// Where old clients were lenient (`AbstractLegacyRecordBatch`), so is this: a last message inside that is cut off and
/// bytes behind a message's value are not seen, and a v1 set may have v0 messages inside.
///
/// # Errors
/// [`WireError::Crc`], [`WireError::TooLarge`], [`WireError::Decompress`], or what is wrong with the message: sets inside
/// of sets and empty ones are refused, and offsets that do not rise up to the message's own.
pub fn legacy_records(magic: i8, message: &Bytes, max_bytes: usize) -> Result<Vec<Record>> {
    Message::outer(magic, message)?.records(max_bytes)
}

/// One message; its bytes share the memory it was read from.
struct Message {
    offset: i64,
    magic: i8,
    attributes: Attributes,
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
}

impl Message {
    /// The only message in `bytes`, of format `magic`.
    fn outer(magic: i8, bytes: &Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes.clone());
        let message = Self::read(&mut reader)?;
        reader.finish("message")?;
        let right = message.magic == magic;
        check("magic of a message", i64::from(message.magic), right)?;
        Ok(message)
    }

    fn records(self, max_bytes: usize) -> Result<Vec<Record>> {
        let codec = self.codec()?;
        if codec == Codec::None {
            let (offset, timestamp) = (self.offset, self.timestamp);
            return Ok(vec![self.into_record(offset, timestamp)]);
        }
        let packed = self.value.clone().ok_or(WireError::BadCount {
            what: "compressed message set",
            count: -1,
            have: 0,
        })?;
        let packed = match (self.magic, codec) {
            (0, Codec::Lz4) => mend_lz4(packed),
            _ => packed,
        };
        let plain = compress::decompress(codec, &packed, max_bytes, self.offset)?;
        self.unwrap_set(messages(plain.into())?)
    }

    /// Reads one from the front, checksum included.
    fn read(reader: &mut Reader) -> Result<Self> {
        let offset = reader.i64("message offset")?;
        let size = reader.i32("message size")?;
        let Ok(size) = usize::try_from(size) else {
            return Err(WireError::BadCount {
                what: "message",
                count: i64::from(size),
                have: reader.remaining(),
            });
        };
        let mut body = Reader::new(reader.take("message", size)?);
        let found = body.u32("message checksum")?;
        let mut crc = Crc::new();
        crc.update(body.rest());
        if found != crc.sum() {
            return Err(WireError::Crc {
                offset,
                found,
                computed: crc.sum(),
            });
        }
        check(
            "offset of a message",
            offset,
            (0..i64::MAX).contains(&offset),
        )?;
        let magic = body.i8("magic of a message")?;
        check(
            "magic of a message",
            i64::from(magic),
            (0..=1).contains(&magic),
        )?;
        let attributes = Attributes(i16::from(body.i8("message attributes")?));
        let timestamp = match magic {
            0 => NO_TIMESTAMP,
            _ => body.i64("message timestamp")?,
        };
        Ok(Self {
            offset,
            magic,
            attributes,
            timestamp,
            key: nullable(&mut body, "message key")?,
            value: nullable(&mut body, "message value")?,
        })
    }

    /// Zstandard came with magic 2 (KIP-110).
    fn codec(&self) -> Result<Codec> {
        let codec = self.attributes.codec()?;
        check(
            "compression codec of a message",
            i64::from(codec.id()),
            codec != Codec::Zstd,
        )?;
        Ok(codec)
    }

    /// The records of the messages `inner` to this wrapper, with their own offsets and timestamps. Inside of v1 wrappers
    /// offsets are relative, and the wrapper has that of the last one; its timestamp is that of all if it is an append
    /// time (KIP-31, KIP-32).
    fn unwrap_set(&self, inner: Vec<Self>) -> Result<Vec<Record>> {
        let relative = self.magic == 1;
        let Some(last) = inner.last().map(|message| message.offset) else {
            return Err(WireError::BadCount {
                what: "messages of a compressed set",
                count: 0,
                have: 0,
            });
        };
        check(
            "offset of the last message of a compressed set, higher than the set's",
            last,
            last <= self.offset,
        )?;
        let base = if relative { self.offset - last } else { 0 };
        let append_time = relative && self.attributes.timestamp_type_append();
        let mut records = Vec::with_capacity(inner.len());
        let mut least = 0;
        for message in inner {
            check(
                "offset of a message of a compressed set, out of order",
                message.offset,
                (least..=last).contains(&message.offset),
            )?;
            least = message.offset + 1;
            let offset = base + message.offset;
            let timestamp = match append_time && message.magic == 1 {
                true => self.timestamp,
                false => message.timestamp,
            };
            records.push(message.into_record(offset, timestamp));
        }
        Ok(records)
    }

    fn into_record(self, offset: i64, timestamp: i64) -> Record {
        Record {
            offset,
            timestamp,
            key: self.key,
            value: self.value,
            headers: Vec::new(),
        }
    }
}

/// The messages inside of a set. One that is cut off ends it quietly.
fn messages(plain: Bytes) -> Result<Vec<Message>> {
    let mut reader = Reader::new(plain);
    let mut inner = Vec::new();
    while let Some(&[.., s0, s1, s2, s3]) = reader.rest().first_chunk::<OVERHEAD>() {
        let size = i32::from_be_bytes([s0, s1, s2, s3]);
        if usize::try_from(size).is_ok_and(|size| size > reader.remaining() - OVERHEAD) {
            break;
        }
        let message = Message::read(&mut reader)?;
        let plain = message.codec()? == Codec::None;
        check(
            "compression codec of a message inside of a compressed set",
            i64::from(message.attributes.0),
            plain,
        )?;
        inner.push(message);
    }
    Ok(inner)
}

/// `RecordBatch.NO_TIMESTAMP`.
const NO_TIMESTAMP: i64 = -1;

fn check(what: &'static str, value: i64, ok: bool) -> Result<()> {
    match ok {
        true => Ok(()),
        false => Err(WireError::BadValue { what, value }),
    }
}

/// Any negative length is null, as in `Utils.sizeDelimited`.
fn nullable(reader: &mut Reader, what: &'static str) -> Result<Option<Bytes>> {
    match usize::try_from(reader.i32(what)?) {
        Ok(length) => reader.take(what, length).map(Some),
        Err(_) => Ok(None),
    }
}

/// Gives an LZ4 frame the checksum its descriptor should have. Clients that wrote magic 0 computed it over the frame's
/// magic number too (KAFKA-3160), and readers of magic 0 do not look at it; the decompressor does.
fn mend_lz4(frame: Bytes) -> Bytes {
    const MAGIC: usize = 4;
    let flags = frame.get(MAGIC).copied().unwrap_or(0);
    // Flags, block size, and the content's size and the dictionary's id if the flags say so.
    let length = 2 + usize::from(flags >> 3 & 1) * 8 + usize::from(flags & 1) * 4;
    let Some(descriptor) = frame.get(MAGIC..MAGIC + length) else {
        return frame;
    };
    let right = (xxh32(descriptor) >> 8) as u8;
    match frame.get(MAGIC + length) {
        Some(&found) if found != right => {
            let mut mended = frame.to_vec();
            mended[MAGIC + length] = right;
            mended.into()
        }
        _ => frame,
    }
}

/// xxHash32 with seed 0 of fewer than 16 bytes, which is what a descriptor has at the most.
fn xxh32(short: &[u8]) -> u32 {
    const PRIMES: [u32; 5] = [
        0x9e37_79b1,
        0x85eb_ca77,
        0xc2b2_ae3d,
        0x27d4_eb2f,
        0x1656_67b1,
    ];
    let mut hash = PRIMES[4].wrapping_add(short.len() as u32);
    let (words, bytes) = short.as_chunks::<4>();
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(PRIMES[2]);
        hash = hash
            .wrapping_add(word)
            .rotate_left(17)
            .wrapping_mul(PRIMES[3]);
    }
    for byte in bytes {
        let byte = u32::from(*byte).wrapping_mul(PRIMES[4]);
        hash = hash
            .wrapping_add(byte)
            .rotate_left(11)
            .wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(PRIMES[1]);
    hash = (hash ^ hash >> 13).wrapping_mul(PRIMES[2]);
    hash ^ hash >> 16
}
