//! Records, and batches built from them.
//!
//! Layout of a record (`DefaultRecord`): varint length, INT8 attributes (unused), varlong timestamp delta,
//! varint offset delta, varint-prefixed key and value (negative is null), varint count of headers, each a
//! varint-prefixed key and value.

use bytes::Bytes;

use crate::batch::{Attributes, Batch, BatchHeader, Codec, HEADER_LEN, LEAST_LENGTH};
use crate::compress;
use crate::rewrite::Stamp;
use crate::{Reader, WireError, Writer};

type Result<T> = std::result::Result<T, WireError>;

/// The least a record takes: length, attributes, both deltas, key length, value length, header count.
pub(crate) const LEAST_RECORD: usize = 7;
/// The least a header takes: its two lengths.
pub(crate) const LEAST_HEADER: usize = 2;

/// One record of a batch. Its bytes share the memory they were decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition it was read from.
    pub offset: i64,
    /// Its effective timestamp, ms since the Unix epoch: that of its batch if the batch has log append time.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers in their order, duplicate keys included.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Record {
    /// A hash of timestamp, key, value and headers, not of the offset: two records with the same one are the
    /// same to a consumer. It never changes between versions. FNV-1a of 128 bits, so it guards against
    /// accidents, not against forgery.
    pub fn hash(&self) -> u128 {
        let mut hash = Fnv::new();
        hash.write(&self.timestamp.to_be_bytes());
        hash.write_sized(self.key.as_deref());
        hash.write_sized(self.value.as_deref());
        hash.write(&(self.headers.len() as u64).to_be_bytes());
        for (key, value) in &self.headers {
            hash.write_sized(Some(key));
            hash.write_sized(value.as_deref());
        }
        hash.0
    }

    /// Bytes of the record inside a batch, but for the varints' width: a bound from above.
    fn size_bound(&self) -> usize {
        let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len).saturating_add(5);
        let headers = self
            .headers
            .iter()
            .map(|(key, value)| part(value).saturating_add(key.len() + 5));
        headers
            .fold(26, usize::saturating_add)
            .saturating_add(part(&self.key))
            .saturating_add(part(&self.value))
    }
}

struct Fnv(u128);

impl Fnv {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    fn new() -> Self {
        Self(Self::BASIS)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Self::PRIME);
        }
    }

    /// Null is no length of any bytes, so it differs from empty.
    fn write_sized(&mut self, bytes: Option<&[u8]>) {
        self.write(&bytes.map_or(u64::MAX, |b| b.len() as u64).to_be_bytes());
        self.write(bytes.unwrap_or_default());
    }
}

/// Decodes the records behind `header`; see [`Batch::decode`](crate::Batch::decode). The checksum is the caller's.
pub(crate) fn decode(
    header: &BatchHeader,
    records: Bytes,
    max_bytes: usize,
) -> Result<Vec<Record>> {
    let mut room = Room {
        left: max_bytes,
        too_large: WireError::TooLarge {
            offset: header.base_offset,
            limit: max_bytes,
        },
    };
    let records = match header.attributes.codec()? {
        Codec::None => records,
        codec => {
            let plain = compress::decompress(codec, &records, max_bytes, header.base_offset)?;
            room.take::<u8>(plain.len())?;
            plain.into()
        }
    };
    let mut reader = Reader::new(records);
    let count = match usize::try_from(header.count) {
        Ok(count) if count <= reader.remaining() / LEAST_RECORD => count,
        _ => {
            let have = reader.remaining();
            return Err(WireError::BadCount {
                what: "records of a batch",
                count: i64::from(header.count),
                have,
            });
        }
    };
    room.take::<Record>(count)?;
    let mut out: Vec<Record> = Vec::with_capacity(count);
    let mut next_delta = 0;
    for _ in 0..count {
        let (record, delta) = decode_one(header, &mut reader, &mut room)?;
        if delta < next_delta || delta > header.last_offset_delta {
            return Err(WireError::BadValue {
                what: "offset delta of a record",
                value: i64::from(delta),
            });
        }
        next_delta = delta.saturating_add(1);
        out.push(record);
    }
    reader.finish("records of a batch")?;
    Ok(out)
}

/// What decoded records may still take. A header of two bytes becomes one of [`Header`]'s size, so a limit on inflated
/// bytes alone would let a small batch take many times that.
struct Room {
    left: usize,
    too_large: WireError,
}

impl Room {
    fn take<T>(&mut self, count: usize) -> Result<()> {
        let bytes = count.saturating_mul(size_of::<T>());
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| self.too_large.clone())?;
        Ok(())
    }
}

/// A record's header: key and value.
type Header = (Bytes, Option<Bytes>);

fn decode_one(header: &BatchHeader, reader: &mut Reader, room: &mut Room) -> Result<(Record, i32)> {
    let length = reader.varint("record length")?;
    let Ok(length) = usize::try_from(length) else {
        let have = reader.remaining();
        return Err(WireError::BadCount {
            what: "record length",
            count: i64::from(length),
            have,
        });
    };
    let mut body = Reader::new(reader.take("record", length)?);
    body.i8("record attributes")?;
    let timestamp_delta = body.varlong("timestamp delta")?;
    let offset_delta = body.varint("offset delta")?;
    let key = nullable(&mut body, "record key")?;
    let value = nullable(&mut body, "record value")?;
    let count = body.varint("record headers")?;
    let count = match usize::try_from(count) {
        Ok(n) if n <= body.remaining() / LEAST_HEADER => n,
        _ => {
            let have = body.remaining();
            return Err(WireError::BadCount {
                what: "record headers",
                count: i64::from(count),
                have,
            });
        }
    };
    room.take::<Header>(count)?;
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let have = body.remaining();
        let key = nullable(&mut body, "record header key")?;
        let key = key.ok_or(WireError::BadCount {
            what: "record header key",
            count: -1,
            have,
        })?;
        headers.push((key, nullable(&mut body, "record header value")?));
    }
    body.finish("record")?;
    let timestamp = match header.attributes.timestamp_type_append() {
        true => header.max_timestamp,
        // Java's long wraps, and so must this.
        false => header.base_timestamp.wrapping_add(timestamp_delta),
    };
    let offset = header.base_offset.saturating_add(i64::from(offset_delta));
    Ok((
        Record {
            offset,
            timestamp,
            key,
            value,
            headers,
        },
        offset_delta,
    ))
}

/// Any negative length is null, as in `Utils.readBytes`.
fn nullable(reader: &mut Reader, what: &'static str) -> Result<Option<Bytes>> {
    match usize::try_from(reader.varint(what)?) {
        Ok(length) => reader.take(what, length).map(Some),
        Err(_) => Ok(None),
    }
}

/// Builds one magic 2 batch as a producer sends it: base offset 0, dense offsets, CreateTime, leader epoch -1,
/// no transaction. The offsets of the records are not kept, their timestamps are.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    records: Writer,
    body: Writer,
    count: usize,
    base_timestamp: i64,
    max_timestamp: i64,
    too_large: bool,
}

impl BatchBuilder {
    /// An empty batch whose records will be compressed with `codec`.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            records: Writer::default(),
            body: Writer::default(),
            count: 0,
            base_timestamp: -1,
            max_timestamp: -1,
            too_large: false,
        }
    }

    /// As [`new`](Self::new), with room for these records: a buffer that grows takes up to three times what it holds.
    pub fn with_room(codec: Codec, records: &[Record]) -> Self {
        let bytes = records.iter().map(Record::size_bound).sum();
        Self {
            records: Writer::with_capacity(bytes),
            ..Self::new(codec)
        }
    }

    /// Records in the batch.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch before compression.
    pub fn size(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// Appends a record.
    pub fn push(&mut self, record: Record) {
        // Beyond what the format's INT32 lengths can say; build() reports it.
        let size = self.size().saturating_add(record.size_bound());
        if self.too_large || i32::try_from(size).is_err() {
            self.too_large = true;
            return;
        }
        if self.is_empty() {
            self.base_timestamp = record.timestamp;
            self.max_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let body = &mut self.body;
        body.clear();
        body.i8(0);
        body.varlong(record.timestamp.wrapping_sub(self.base_timestamp));
        body.varint(self.count as i32);
        sized(body, record.key.as_deref());
        sized(body, record.value.as_deref());
        body.varint(record.headers.len() as i32);
        for (key, value) in &record.headers {
            sized(body, Some(key));
            sized(body, value.as_deref());
        }
        self.records.varint(body.len() as i32);
        self.records.raw(body.as_slice());
        self.count += 1;
    }

    /// The batch, ready to be produced.
    ///
    /// # Errors
    /// [`WireError::Encode`] without a record, or when the batch exceeds 2 GiB.
    pub fn build(&self, stamp: Stamp) -> Result<Bytes> {
        if self.is_empty() && !self.too_large {
            return Err(WireError::Encode {
                what: "record batch",
                why: "it has no records",
            });
        }
        Ok(self.build_at(0, -1, stamp)?.bytes)
    }

    /// As [`build`](Self::build), but with the place in a log that a broker would give it, and also without a
    /// record: that has count 0 and last offset delta -1.
    ///
    /// # Errors
    /// [`WireError::Encode`] when the batch would exceed 2 GiB.
    pub fn build_at(&self, base_offset: i64, leader_epoch: i32, stamp: Stamp) -> Result<Batch> {
        let too_large = WireError::Encode {
            what: "record batch",
            why: "it exceeds 2 GiB",
        };
        if self.too_large {
            return Err(too_large);
        }
        let packed;
        let (codec, records) = match self.codec {
            codec if codec == Codec::None || self.is_empty() => {
                (Codec::None, self.records.as_slice())
            }
            codec => {
                packed = compress::compress(codec, self.records.as_slice())?;
                (codec, packed.as_slice())
            }
        };
        let (Ok(length), Ok(count)) = (
            i32::try_from(LEAST_LENGTH + records.len()),
            i32::try_from(self.count),
        ) else {
            return Err(too_large);
        };
        let header = BatchHeader {
            base_offset,
            length,
            leader_epoch,
            magic: 2,
            crc: 0,
            attributes: Attributes(codec.id()),
            last_offset_delta: count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: stamp.producer_id,
            producer_epoch: stamp.producer_epoch,
            base_sequence: stamp.base_sequence,
            count,
        };
        Ok(header.with_records(records))
    }
}

fn sized(out: &mut Writer, bytes: Option<&[u8]>) {
    out.varint(bytes.map_or(-1, |b| b.len() as i32));
    out.raw(bytes.unwrap_or_default());
}
