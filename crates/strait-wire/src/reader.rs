//! A reader over received bytes: every step checked against what is really there.

use bytes::{Buf, Bytes};
use uuid::Uuid;

use crate::WireError;

type Result<T> = std::result::Result<T, WireError>;

/// Reads Kafka's primitive types (big endian) from the front of a `Bytes`. Slices it gives share the memory.
///
/// No count read through it can make a caller allocate more than the remaining bytes could hold: see
/// [`array_len`](Self::array_len).
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
}

macro_rules! fixed {
    ($($name:ident $ty:ty, $n:literal;)*) => {$(
        #[doc = concat!("Reads a big-endian `", stringify!($ty), "`.")]
        ///
        /// # Errors
        /// [`WireError::Truncated`].
        pub fn $name(&mut self, what: &'static str) -> Result<$ty> {
            let mut raw = [0; $n];
            let Some(front) = self.bytes.get(..$n) else {
                return Err(WireError::Truncated { what, need: $n, have: self.bytes.len() });
            };
            raw.copy_from_slice(front);
            self.bytes.advance($n);
            Ok(<$ty>::from_be_bytes(raw))
        }
    )*};
}

impl Reader {
    /// A reader at the front of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes left, without consuming them.
    pub fn rest(&self) -> &Bytes {
        &self.bytes
    }

    fixed! {
        i8 i8, 1;
        i16 i16, 2;
        i32 i32, 4;
        u32 u32, 4;
        i64 i64, 8;
    }

    /// Takes the next `n` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn take(&mut self, what: &'static str, n: usize) -> Result<Bytes> {
        if n > self.bytes.len() {
            return Err(WireError::Truncated {
                what,
                need: n,
                have: self.bytes.len(),
            });
        }
        Ok(self.bytes.split_to(n))
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`WireError::Trailing`].
    pub fn finish(&self, what: &'static str) -> Result<()> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing { what, left }),
        }
    }

    /// An unsigned varint of at most 32 bits (KIP-482).
    ///
    /// # Errors
    /// [`WireError::Truncated`], or [`WireError::BadValue`] beyond 32 bits.
    pub fn uvarint(&mut self, what: &'static str) -> Result<u32> {
        let raw = self.uvarint64(what, 5)?;
        u32::try_from(raw).map_err(|_| WireError::BadValue {
            what,
            value: raw as i64,
        })
    }

    /// A zigzag varint of at most 32 bits, as in records.
    ///
    /// # Errors
    /// As [`uvarint`](Self::uvarint).
    pub fn varint(&mut self, what: &'static str) -> Result<i32> {
        let raw = self.uvarint(what)?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// A zigzag varint of at most 64 bits, as in records.
    ///
    /// # Errors
    /// As [`uvarint`](Self::uvarint).
    pub fn varlong(&mut self, what: &'static str) -> Result<i64> {
        let raw = self.uvarint64(what, 10)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn uvarint64(&mut self, what: &'static str, max_bytes: usize) -> Result<u64> {
        let mut value: u64 = 0;
        for i in 0..max_bytes {
            let Some(&byte) = self.bytes.get(i) else {
                return Err(WireError::Truncated {
                    what,
                    need: i + 1,
                    have: self.bytes.len(),
                });
            };
            if i == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.bytes.advance(i + 1);
                return Ok(value);
            }
        }
        Err(WireError::BadValue {
            what,
            value: value as i64,
        })
    }

    /// The length of an array: INT32, or uvarint(n + 1) when `compact`. `None` for a null array.
    /// `min_item` is the least number of bytes one item takes (at least 1), which bounds the count by the
    /// bytes that are there.
    ///
    /// # Errors
    /// [`WireError::BadCount`] for a count that cannot be.
    pub fn array_len(
        &mut self,
        what: &'static str,
        compact: bool,
        min_item: usize,
    ) -> Result<Option<usize>> {
        let count = if compact {
            i64::from(self.uvarint(what)?) - 1
        } else {
            i64::from(self.i32(what)?)
        };
        match usize::try_from(count) {
            Ok(n) if n <= self.remaining() / min_item.max(1) => Ok(Some(n)),
            Err(_) if count == -1 => Ok(None),
            _ => Err(WireError::BadCount {
                what,
                count,
                have: self.remaining(),
            }),
        }
    }

    /// A nullable string: INT16 length, or uvarint(n + 1) when `compact`.
    ///
    /// # Errors
    /// A length that cannot be, or bytes that are not UTF-8.
    pub fn nullable_string(&mut self, what: &'static str, compact: bool) -> Result<Option<String>> {
        let len = if compact {
            i64::from(self.uvarint(what)?) - 1
        } else {
            i64::from(self.i16(what)?)
        };
        let Ok(len) = usize::try_from(len) else {
            return if len == -1 {
                Ok(None)
            } else {
                Err(WireError::BadCount {
                    what,
                    count: len,
                    have: self.remaining(),
                })
            };
        };
        let raw = self.take(what, len)?;
        match std::str::from_utf8(&raw) {
            Ok(s) => Ok(Some(s.to_owned())),
            Err(_) => Err(WireError::NotUtf8 { what }),
        }
    }

    /// A string that may not be null.
    ///
    /// # Errors
    /// As [`nullable_string`](Self::nullable_string); null is [`WireError::BadCount`].
    pub fn string(&mut self, what: &'static str, compact: bool) -> Result<String> {
        let have = self.remaining();
        self.nullable_string(what, compact)?
            .ok_or(WireError::BadCount {
                what,
                count: -1,
                have,
            })
    }

    /// Nullable bytes: INT32 length, or uvarint(n + 1) when `compact`. The slice shares the memory.
    ///
    /// # Errors
    /// A length that cannot be.
    pub fn nullable_bytes(&mut self, what: &'static str, compact: bool) -> Result<Option<Bytes>> {
        let len = if compact {
            i64::from(self.uvarint(what)?) - 1
        } else {
            i64::from(self.i32(what)?)
        };
        match usize::try_from(len) {
            Ok(len) => Ok(Some(self.take(what, len)?)),
            Err(_) if len == -1 => Ok(None),
            Err(_) => Err(WireError::BadCount {
                what,
                count: len,
                have: self.remaining(),
            }),
        }
    }

    /// A UUID, 16 bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn uuid(&mut self, what: &'static str) -> Result<Uuid> {
        let mut raw = [0; 16];
        raw.copy_from_slice(&self.take(what, 16)?);
        Ok(Uuid::from_bytes(raw))
    }

    /// Tagged fields (KIP-482): calls `each` with every tag and its bytes; unknown ones are for `each` to ignore.
    ///
    /// # Errors
    /// Malformed tags, or what `each` returns.
    pub fn tagged(
        &mut self,
        what: &'static str,
        mut each: impl FnMut(u32, Reader) -> Result<()>,
    ) -> Result<()> {
        let count = self.uvarint(what)?;
        if count as usize > self.remaining() / 2 {
            return Err(WireError::BadCount {
                what,
                count: i64::from(count),
                have: self.remaining(),
            });
        }
        for _ in 0..count {
            let tag = self.uvarint(what)?;
            let size = self.uvarint(what)? as usize;
            each(tag, Reader::new(self.take(what, size)?))?;
        }
        Ok(())
    }

    /// Skips tagged fields.
    ///
    /// # Errors
    /// Malformed tags.
    pub fn skip_tagged(&mut self, what: &'static str) -> Result<()> {
        self.tagged(what, |_, _| Ok(()))
    }
}
