//! A writer of Kafka's primitive types.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::WireError;

/// The longest string: its length is an INT16, and the compact form keeps that limit.
const MAX_STRING: usize = i16::MAX as usize;

/// Appends Kafka's primitive types (big endian) to a growing buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: BytesMut,
}

impl Writer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: BytesMut::with_capacity(capacity),
        }
    }

    /// Bytes written since the last [`split`](Self::split).
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written since the last [`split`](Self::split).
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written so far as one segment; writing goes on behind it in the same allocation.
    pub fn split(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    /// What was written since the last [`split`](Self::split).
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Drops what was written since the last [`split`](Self::split); the memory is kept for what comes next.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// INT8.
    pub fn i8(&mut self, v: i8) {
        self.bytes.put_i8(v);
    }

    /// INT16.
    pub fn i16(&mut self, v: i16) {
        self.bytes.put_i16(v);
    }

    /// INT32.
    pub fn i32(&mut self, v: i32) {
        self.bytes.put_i32(v);
    }

    /// UINT32.
    pub fn u32(&mut self, v: u32) {
        self.bytes.put_u32(v);
    }

    /// INT64.
    pub fn i64(&mut self, v: i64) {
        self.bytes.put_i64(v);
    }

    /// Raw bytes without a length.
    pub fn raw(&mut self, v: &[u8]) {
        self.bytes.put_slice(v);
    }

    /// The CRC-32C of what was written since the last [`split`](Self::split).
    pub fn checksum(&mut self) {
        self.bytes.put_u32(crc32c::crc32c(&self.bytes));
    }

    /// A UUID, 16 bytes.
    pub fn uuid(&mut self, v: Uuid) {
        self.bytes.put_slice(v.as_bytes());
    }

    /// An unsigned varint (KIP-482).
    pub fn uvarint(&mut self, v: u32) {
        self.uvarint64(u64::from(v));
    }

    fn uvarint64(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.bytes.put_u8((v as u8 & 0x7f) | 0x80);
            v >>= 7;
        }
        self.bytes.put_u8(v as u8);
    }

    /// A zigzag varint of 32 bits, as in records.
    pub fn varint(&mut self, v: i32) {
        self.uvarint(((v << 1) ^ (v >> 31)) as u32);
    }

    /// A zigzag varint of 64 bits, as in records.
    pub fn varlong(&mut self, v: i64) {
        self.uvarint64(((v << 1) ^ (v >> 63)) as u64);
    }

    /// The length of an array or of bytes: INT32, or uvarint(n + 1) when `compact`; `None` is null.
    pub fn len32(&mut self, n: Option<usize>, compact: bool) {
        match (n, compact) {
            (Some(n), true) => self.uvarint(n as u32 + 1),
            (None, true) => self.uvarint(0),
            (Some(n), false) => self.i32(n as i32),
            (None, false) => self.i32(-1),
        }
    }

    /// A nullable string: INT16 length, or uvarint(n + 1) when `compact`.
    pub fn nullable_string(&mut self, v: Option<&str>, compact: bool) {
        match (v, compact) {
            (Some(s), true) => self.uvarint(s.len() as u32 + 1),
            (None, true) => self.uvarint(0),
            (Some(s), false) => self.i16(s.len() as i16),
            (None, false) => self.i16(-1),
        }
        self.raw(v.unwrap_or_default().as_bytes());
    }

    /// A string that must fit its length field: at most 32,767 bytes, as everywhere in the protocol.
    ///
    /// # Errors
    /// [`WireError::Encode`] for a longer one; nothing is written then.
    pub fn short_string(
        &mut self,
        what: &'static str,
        v: &str,
        compact: bool,
    ) -> Result<(), WireError> {
        if v.len() > MAX_STRING {
            return Err(WireError::Encode {
                what,
                why: "longer than 32,767 bytes",
            });
        }
        self.string(v, compact);
        Ok(())
    }

    /// A string with an INT16 length, cut at the last character that ends within 32,767 bytes. For names that
    /// Kafka or the configuration keeps far below that: the record stays readable whatever comes.
    pub fn cut_string(&mut self, v: &str) {
        let mut end = v.len().min(MAX_STRING);
        while !v.is_char_boundary(end) {
            end -= 1;
        }
        self.string(&v[..end], false);
    }

    /// A string of at most 32,767 bytes.
    pub fn string(&mut self, v: &str, compact: bool) {
        self.nullable_string(Some(v), compact);
    }

    /// An empty set of tagged fields when `flexible` (KIP-482), else nothing.
    pub fn no_tags(&mut self, flexible: bool) {
        if flexible {
            self.uvarint(0);
        }
    }
}
