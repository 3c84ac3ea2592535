//! The layout of control-plane responses, walked before they are decoded.
//!
//! `kafka-protocol` allocates what an array's count promises, and a count of 2^31 aborts the
//! process. So every response body is first walked by the description below, which reads each
//! count, length and tagged field and holds it against the bytes that are really there.

use std::fmt;

/// One field, present in versions `from..=to`.
pub(crate) struct Field {
    kind: Kind,
    from: i16,
    to: i16,
}

/// What a field looks like on the wire. In flexible versions lengths and counts are unsigned
/// varints of the value plus one, before that INT16 (text) or INT32; null is allowed everywhere,
/// the decoder knows where it may stand.
pub(crate) enum Kind {
    /// This many bytes.
    Fixed(usize),
    /// A string.
    Text,
    /// Bytes.
    Blob,
    /// An array of values of this many bytes each.
    Ints(usize),
    /// An array of strings.
    Texts,
    /// An array of structs.
    List(&'static [Field]),
    /// A tagged field which the decoder reads: (tag, exact size). Others are skipped by size.
    Tag(u32, usize),
}

/// The layout of one response, for all versions.
pub(crate) struct Shape {
    /// First flexible version.
    pub(crate) flexible: i16,
    /// The fields of the body.
    pub(crate) fields: &'static [Field],
}

/// A field that is there in every version.
pub(crate) const fn all(kind: Kind) -> Field {
    between(kind, 0, i16::MAX)
}

/// A field that appears in version `from`.
pub(crate) const fn since(from: i16, kind: Kind) -> Field {
    between(kind, from, i16::MAX)
}

/// A field that is there in `from..=to` only.
pub(crate) const fn between(kind: Kind, from: i16, to: i16) -> Field {
    Field { kind, from, to }
}

/// Why a body does not have its shape.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Misshapen {
    /// Something needs more bytes than are left.
    Short { need: usize, left: usize },
    /// An array or string of this negative length other than null, or a varint too long.
    BadCount(i64),
    /// A known tagged field with another size than it must have.
    BadTag(u32),
    /// Bytes after the end.
    Trailing(usize),
}

impl fmt::Display for Misshapen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { need, left } => {
                write!(
                    f,
                    "it promises {need} bytes or entries where {left} bytes are left"
                )
            }
            Self::BadCount(n) => write!(f, "it holds the impossible count {n}"),
            Self::BadTag(n) => write!(f, "its tagged field {n} has the wrong size"),
            Self::Trailing(n) => write!(f, "{n} bytes are left over at its end"),
        }
    }
}

impl Shape {
    /// Checks that `body` has this shape in `version`, to the last byte.
    pub(crate) fn check(&self, version: i16, body: &[u8]) -> Result<(), Misshapen> {
        let mut cursor = Cursor {
            rest: body,
            version,
            flexible: version >= self.flexible,
        };
        cursor.fields(self.fields)?;
        match cursor.rest.len() {
            0 => Ok(()),
            n => Err(Misshapen::Trailing(n)),
        }
    }
}

/// A reader that never goes beyond the bytes it was given.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
}

impl<'a> Cursor<'a> {
    /// A reader of `bytes` for a message of this kind.
    pub(crate) fn new(bytes: &'a [u8], flexible: bool) -> Self {
        Self {
            rest: bytes,
            version: 0,
            flexible,
        }
    }

    /// How many bytes have not been read.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    fn fields(&mut self, fields: &'static [Field]) -> Result<(), Misshapen> {
        for field in fields {
            if (field.from..=field.to).contains(&self.version) {
                self.field(&field.kind)?;
            }
        }
        if self.flexible {
            self.tags(fields)?;
        }
        Ok(())
    }

    fn field(&mut self, kind: &Kind) -> Result<(), Misshapen> {
        match kind {
            Kind::Fixed(n) => self.skip(*n),
            Kind::Text => {
                let n = self.text_length()?;
                self.skip(n)
            }
            Kind::Blob => {
                let n = self.count()?;
                self.skip(n)
            }
            Kind::Ints(size) => {
                let n = self.count()?;
                self.skip(n.saturating_mul(*size))
            }
            Kind::Texts => {
                for _ in 0..self.count()? {
                    let n = self.text_length()?;
                    self.skip(n)?;
                }
                Ok(())
            }
            Kind::List(fields) => {
                for _ in 0..self.count()? {
                    self.fields(fields)?;
                }
                Ok(())
            }
            Kind::Tag(..) => Ok(()),
        }
    }

    /// Skips the tagged fields at the end of a struct or header.
    pub(crate) fn tags(&mut self, known: &'static [Field]) -> Result<(), Misshapen> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let wrong = known
                .iter()
                .any(|f| matches!(f.kind, Kind::Tag(t, n) if t == tag && n != size));
            if wrong {
                return Err(Misshapen::BadTag(tag));
            }
            self.skip(size)?;
        }
        Ok(())
    }

    /// The count of an array or the length of bytes; null counts as none. Never more than the bytes
    /// that are left, because every element takes at least one.
    pub(crate) fn count(&mut self) -> Result<usize, Misshapen> {
        let n = if self.flexible {
            i64::from(self.varint()?) - 1
        } else {
            i64::from(i32::from_be_bytes(self.array()?))
        };
        self.bounded(n)
    }

    fn text_length(&mut self) -> Result<usize, Misshapen> {
        let n = if self.flexible {
            i64::from(self.varint()?) - 1
        } else {
            i64::from(i16::from_be_bytes(self.array()?))
        };
        self.bounded(n)
    }

    fn bounded(&self, n: i64) -> Result<usize, Misshapen> {
        match usize::try_from(n) {
            Ok(need) if need > self.left() => Err(Misshapen::Short {
                need,
                left: self.left(),
            }),
            Ok(n) => Ok(n),
            Err(_) if n == -1 => Ok(0),
            Err(_) => Err(Misshapen::BadCount(n)),
        }
    }

    /// An unsigned varint of at most 32 bits.
    pub(crate) fn varint(&mut self) -> Result<u32, Misshapen> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| Misshapen::BadCount(value as i64));
            }
        }
        Err(Misshapen::BadCount(value as i64))
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Misshapen> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            None => Err(Misshapen::Short {
                need: N,
                left: self.left(),
            }),
        }
    }

    fn skip(&mut self, need: usize) -> Result<(), Misshapen> {
        match self.rest.get(need..) {
            Some(tail) => {
                self.rest = tail;
                Ok(())
            }
            None => Err(Misshapen::Short {
                need,
                left: self.left(),
            }),
        }
    }
}
