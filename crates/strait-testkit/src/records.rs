//! The kit's own record-batch codec (magic 2), written independently of Strait's, so that it can judge it.
//!
//! It is simple rather than fast, and it can build batches a correct client never would:
//! every header field of a [`BatchSpec`] is free.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::codec::Codec;

/// Bytes of a magic-2 batch before its records.
pub const HEADER_LEN: usize = 61;
/// Attribute bit: timestamps are the append time.
pub const APPEND_TIME: i16 = 0x08;
/// Attribute bit: the batch belongs to a transaction.
pub const TRANSACTIONAL: i16 = 0x10;
/// Attribute bit: the batch is a transaction marker.
pub const CONTROL: i16 = 0x20;
/// Attribute bit: baseTimestamp holds the delete horizon of tombstones.
pub const DELETE_HORIZON: i16 = 0x40;

/// What is wrong with a batch of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordsError {
    /// Fewer bytes than the structure needs.
    #[error("the batch ends inside {0}")]
    Truncated(&'static str),
    /// A length or count that cannot be.
    #[error("{what} is {value}, which no batch can have")]
    BadNumber {
        /// The field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// The batch is not of format 2.
    #[error("magic is {0}; only format 2 is modelled")]
    Magic(i8),
    /// The checksum does not match the bytes.
    #[error("CRC-32C is {found:08x}, the header says {stated:08x}")]
    Crc {
        /// The header's value.
        stated: u32,
        /// The value of the bytes.
        found: u32,
    },
    /// Compression failed.
    #[error("{codec:?}: {cause}")]
    Compression {
        /// The codec in question.
        codec: Codec,
        /// What its library said.
        cause: String,
    },
    /// The number of records differs from the header's count.
    #[error("the header counts {stated} records, the batch holds {found}")]
    Count {
        /// The header's count.
        stated: i32,
        /// Records found.
        found: usize,
    },
}

/// One record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct KitRecord {
    /// Offset in its partition; ignored when producing.
    pub offset: i64,
    /// Effective timestamp in ms (the batch's maximum on append-time batches).
    pub timestamp: i64,
    /// Key, or null.
    pub key: Option<Bytes>,
    /// Value, or null (a tombstone).
    pub value: Option<Bytes>,
    /// Headers in order, duplicates kept.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl KitRecord {
    /// A record with a timestamp, key and value, and no headers.
    #[must_use]
    pub fn new(timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        Self {
            offset: 0,
            timestamp,
            key: key.map(Bytes::copy_from_slice),
            value: value.map(Bytes::copy_from_slice),
            headers: Vec::new(),
        }
    }

    /// The same record with one more header.
    #[must_use]
    pub fn header(mut self, key: &str, value: Option<&[u8]>) -> Self {
        self.headers.push((
            Bytes::copy_from_slice(key.as_bytes()),
            value.map(Bytes::copy_from_slice),
        ));
        self
    }
}

/// The 61-byte header of a magic-2 batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes after the length field.
    pub length: i32,
    /// Leader epoch stamped by the broker.
    pub leader_epoch: i32,
    /// Format; 2 here.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec and flag bits.
    pub attributes: i16,
    /// Last offset less base offset.
    pub last_offset_delta: i32,
    /// Base of the records' timestamp deltas, or the delete horizon.
    pub base_timestamp: i64,
    /// Largest timestamp, or the append time.
    pub max_timestamp: i64,
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Producer epoch, -1 for none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
    /// Number of records.
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; neither length nor CRC is judged.
    ///
    /// # Errors
    /// [`RecordsError::Truncated`] below 61 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordsError> {
        let mut r = Reader { rest: bytes };
        let what = "its header";
        Ok(Self {
            base_offset: i64::from_be_bytes(r.array(what)?),
            length: i32::from_be_bytes(r.array(what)?),
            leader_epoch: i32::from_be_bytes(r.array(what)?),
            magic: i8::from_be_bytes(r.array(what)?),
            crc: u32::from_be_bytes(r.array(what)?),
            attributes: i16::from_be_bytes(r.array(what)?),
            last_offset_delta: i32::from_be_bytes(r.array(what)?),
            base_timestamp: i64::from_be_bytes(r.array(what)?),
            max_timestamp: i64::from_be_bytes(r.array(what)?),
            producer_id: i64::from_be_bytes(r.array(what)?),
            producer_epoch: i16::from_be_bytes(r.array(what)?),
            base_sequence: i32::from_be_bytes(r.array(what)?),
            count: i32::from_be_bytes(r.array(what)?),
        })
    }

    /// Offset of the last record (or of the hole that compaction left there).
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset after the batch.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence of the last record; wraps to 0 after 2^31-1; -1 without a sequence.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        add_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// Whether all of the attribute `bits` are set.
    #[must_use]
    pub fn has(&self, bits: i16) -> bool {
        self.attributes & bits == bits
    }

    /// The codec, none for numbers 5..7.
    #[must_use]
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_id(self.attributes & 7)
    }
}

/// `sequence + delta` in the producer's number circle 0..=2^31-1.
#[must_use]
pub fn add_sequence(sequence: i32, delta: i32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(delta)).rem_euclid(1 << 31);
    i32::try_from(sum).unwrap_or(0)
}

/// Everything of a batch to be built except its records. `Default` is a plain, uncompressed producer batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSpec {
    /// Offset of the first record; a client sends 0.
    pub base_offset: i64,
    /// Leader epoch; a client sends -1.
    pub leader_epoch: i32,
    /// Codec of the records (sets the low attribute bits).
    pub codec: Codec,
    /// Further attribute bits.
    pub flags: i16,
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Producer epoch, -1 for none.
    pub producer_epoch: i16,
    /// First sequence, -1 for none.
    pub base_sequence: i32,
    /// Overrides lastOffsetDelta (normally the last record's).
    pub last_offset_delta: Option<i32>,
    /// Overrides baseTimestamp (normally the first record's).
    pub base_timestamp: Option<i64>,
    /// Overrides maxTimestamp (normally the largest).
    pub max_timestamp: Option<i64>,
    /// Overrides the record count.
    pub count: Option<i32>,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self {
            base_offset: 0,
            leader_epoch: -1,
            codec: Codec::None,
            flags: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            last_offset_delta: None,
            base_timestamp: None,
            max_timestamp: None,
            count: None,
        }
    }
}

impl BatchSpec {
    /// A producer batch of records numbered 0, 1, 2, ... whatever their `offset` says.
    ///
    /// # Errors
    /// Whatever compression says.
    pub fn build(&self, records: &[KitRecord]) -> Result<Bytes, RecordsError> {
        let numbered: Vec<_> = (0i32..).zip(records).collect();
        self.encode(&numbered)
    }

    /// A batch whose records keep their offsets (relative to `base_offset`), holes included.
    ///
    /// # Errors
    /// Whatever compression says, or an offset that does not fit.
    pub fn build_at(&self, records: &[KitRecord]) -> Result<Bytes, RecordsError> {
        let mut numbered = Vec::with_capacity(records.len());
        for record in records {
            let delta = record.offset - self.base_offset;
            let delta = i32::try_from(delta).map_err(|_| RecordsError::BadNumber {
                what: "an offset delta",
                value: delta,
            })?;
            numbered.push((delta, record));
        }
        self.encode(&numbered)
    }

    /// A batch of records with explicit offset deltas.
    ///
    /// # Errors
    /// Whatever compression says.
    pub fn encode(&self, records: &[(i32, &KitRecord)]) -> Result<Bytes, RecordsError> {
        let first = records.first().map_or(-1, |(_, r)| r.timestamp);
        let base_timestamp = self.base_timestamp.unwrap_or(first);
        let mut body = Vec::new();
        for (delta, record) in records {
            put_record(&mut body, *delta, record, base_timestamp);
        }
        let max = records.iter().map(|(_, r)| r.timestamp).max().unwrap_or(-1);
        let last = records.last().map_or(-1, |(delta, _)| *delta);
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        self.frame(
            &self.codec.compress(&body)?,
            self.last_offset_delta.unwrap_or(last),
            base_timestamp,
            self.max_timestamp.unwrap_or(max),
            self.count.unwrap_or(count),
        )
    }

    fn frame(
        &self,
        records: &[u8],
        last: i32,
        base_ts: i64,
        max_ts: i64,
        count: i32,
    ) -> Result<Bytes, RecordsError> {
        let length = HEADER_LEN - 12 + records.len();
        let length = i32::try_from(length).map_err(|_| RecordsError::BadNumber {
            what: "the batch length",
            value: i64::MAX,
        })?;
        let mut out = BytesMut::with_capacity(HEADER_LEN + records.len());
        out.put_i64(self.base_offset);
        out.put_i32(length);
        out.put_i32(self.leader_epoch);
        out.put_i8(2);
        out.put_u32(0);
        out.put_i16(self.codec.id() | self.flags);
        out.put_i32(last);
        out.put_i64(base_ts);
        out.put_i64(max_ts);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(count);
        out.put_slice(records);
        fix_crc(&mut out);
        Ok(out.freeze())
    }
}

/// Recomputes the CRC of a whole batch after its header was edited (a test's way to forge batches).
pub fn fix_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(batch.get(21..).unwrap_or_default());
    if let Some(field) = batch.get_mut(17..21) {
        field.copy_from_slice(&crc.to_be_bytes());
    }
}

/// Whether a whole batch's CRC is right.
///
/// # Errors
/// [`RecordsError::Crc`] if not, [`RecordsError::Truncated`] below 61 bytes.
pub fn check_crc(batch: &[u8]) -> Result<(), RecordsError> {
    let stated = BatchHeader::parse(batch)?.crc;
    let found = crc32c::crc32c(batch.get(21..).unwrap_or_default());
    if stated == found {
        Ok(())
    } else {
        Err(RecordsError::Crc { stated, found })
    }
}

/// Decodes all records of one whole batch with absolute offsets and effective timestamps.
///
/// # Errors
/// Any malformation: magic, codec, lengths, count not matching, trailing bytes.
pub fn decode(batch: &[u8]) -> Result<Vec<KitRecord>, RecordsError> {
    let header = BatchHeader::parse(batch)?;
    if header.magic != 2 {
        return Err(RecordsError::Magic(header.magic));
    }
    let codec = header.codec().ok_or(RecordsError::BadNumber {
        what: "the codec",
        value: i64::from(header.attributes & 7),
    })?;
    let body = codec.decompress(batch.get(HEADER_LEN..).unwrap_or_default())?;
    let mut reader = Reader { rest: &body };
    let mut records = Vec::new();
    while !reader.rest.is_empty() {
        records.push(take_record(&mut reader, &header)?);
    }
    if usize::try_from(header.count) != Ok(records.len()) {
        return Err(RecordsError::Count {
            stated: header.count,
            found: records.len(),
        });
    }
    Ok(records)
}

/// Splits a Fetch answer's records into whole batches; a cut last one is left out.
#[must_use]
pub fn split_batches(blob: &Bytes) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut at = 0usize;
    while let Some(length) = blob.get(at + 8..at + 12).and_then(|b| b.try_into().ok()) {
        let Ok(length) = usize::try_from(i32::from_be_bytes(length)) else {
            break;
        };
        let end = at + 12 + length;
        if end > blob.len() {
            break;
        }
        out.push(blob.slice(at..end));
        at = end;
    }
    out
}

/// Whether a control batch is a commit marker; none if it is no control batch of a known kind.
#[must_use]
pub fn marker_commits(batch: &[u8]) -> Option<bool> {
    let header = BatchHeader::parse(batch).ok()?;
    if !header.has(CONTROL) {
        return None;
    }
    let records = decode(batch).ok()?;
    let key = records.first()?.key.clone()?;
    match key.get(2..4)? {
        [0, 0] => Some(false),
        [0, 1] => Some(true),
        _ => None,
    }
}

/// The one record of a transaction marker, as a coordinator writes it.
#[must_use]
pub fn marker_record(commit: bool, coordinator_epoch: i32, timestamp: i64) -> KitRecord {
    let mut value = vec![0, 0];
    value.extend_from_slice(&coordinator_epoch.to_be_bytes());
    KitRecord::new(timestamp, Some(&[0, 0, 0, u8::from(commit)]), Some(&value))
}

fn put_record(out: &mut Vec<u8>, delta: i32, record: &KitRecord, base_timestamp: i64) {
    let mut body = vec![0];
    put_varint(&mut body, record.timestamp.wrapping_sub(base_timestamp));
    put_varint(&mut body, i64::from(delta));
    put_field(&mut body, record.key.as_deref());
    put_field(&mut body, record.value.as_deref());
    put_varint(&mut body, record.headers.len() as i64);
    for (key, value) in &record.headers {
        put_field(&mut body, Some(key));
        put_field(&mut body, value.as_deref());
    }
    put_varint(out, body.len() as i64);
    out.extend_from_slice(&body);
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn take_record(outer: &mut Reader<'_>, header: &BatchHeader) -> Result<KitRecord, RecordsError> {
    let len = outer.length("a record's length")?;
    let mut r = Reader {
        rest: outer.slice(len, "a record")?,
    };
    let [_attributes] = r.array::<1>("a record's attributes")?;
    let timestamp = header.base_timestamp.wrapping_add(r.varint()?);
    let offset = header.base_offset.wrapping_add(r.varint()?);
    let key = r.field("a key")?;
    let value = r.field("a value")?;
    let count = r.length("a header count")?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let key = r.field("a header key")?.ok_or(RecordsError::BadNumber {
            what: "a header key's length",
            value: -1,
        })?;
        headers.push((key, r.field("a header value")?));
    }
    if !r.rest.is_empty() {
        return Err(RecordsError::BadNumber {
            what: "the bytes left over in a record",
            value: r.rest.len() as i64,
        });
    }
    Ok(KitRecord {
        offset,
        timestamp: if header.has(APPEND_TIME) {
            header.max_timestamp
        } else {
            timestamp
        },
        key,
        value,
        headers,
    })
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordsError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(RecordsError::Truncated(what))?;
        self.rest = tail;
        Ok(*head)
    }

    fn slice(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], RecordsError> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(RecordsError::Truncated(what))?;
        self.rest = tail;
        Ok(head)
    }

    fn varint(&mut self) -> Result<i64, RecordsError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>("a varint")?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err(RecordsError::Truncated("a varint"))
    }

    fn length(&mut self, what: &'static str) -> Result<usize, RecordsError> {
        let value = self.varint()?;
        usize::try_from(value).map_err(|_| RecordsError::BadNumber { what, value })
    }

    fn field(&mut self, what: &'static str) -> Result<Option<Bytes>, RecordsError> {
        let len = self.varint()?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| RecordsError::BadNumber { what, value: len })?;
        Ok(Some(Bytes::copy_from_slice(self.slice(len, what)?)))
    }
}
