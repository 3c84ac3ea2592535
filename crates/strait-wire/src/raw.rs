//! Records that move from one batch into another undecoded: only what stands in front of the key is written anew.
//!
//! The layout is in [`record`](crate::record). A walk accepts exactly what [`Batch::decode`](crate::Batch::decode)
//! accepts of a dense batch, but makes nothing of it.

use bytes::BytesMut;

use crate::WireError;
use crate::batch::BatchHeader;
use crate::record::{LEAST_HEADER, LEAST_RECORD};

type Result<T> = std::result::Result<T, WireError>;

/// Bytes of a record's length at the most.
const LENGTH_ROOM: usize = 5;
/// What the front of a record takes at the most: length, attributes, timestamp delta, offset delta.
const LONGEST_FRONT: usize = LENGTH_ROOM + 1 + 10 + 5;
/// What a record may grow by when its front is written anew: the shortest front has 4 bytes.
pub(crate) const GROWTH: usize = LONGEST_FRONT - 4;

/// One record in the bytes of its batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawRecord<'a> {
    attributes: u8,
    /// Its timestamp less the batch's base timestamp.
    pub(crate) timestamp_delta: i64,
    /// From the key's length on.
    body: &'a [u8],
}

impl RawRecord<'_> {
    /// Appends it to `out` with other deltas. `out` should have room for it: see [`GROWTH`].
    #[inline]
    pub(crate) fn copy_to(&self, timestamp_delta: i64, offset_delta: i32, out: &mut BytesMut) {
        let front = self.front(timestamp_delta, offset_delta);
        out.extend_from_slice(front.bytes());
        out.extend_from_slice(self.body);
    }

    /// Bytes that [`copy_to`](Self::copy_to) appends.
    pub(crate) fn size(&self, timestamp_delta: i64, offset_delta: i32) -> usize {
        self.front(timestamp_delta, offset_delta).bytes().len() + self.body.len()
    }

    #[inline]
    fn front(&self, timestamp_delta: i64, offset_delta: i32) -> Front {
        let mut front = Front {
            raw: [0; LONGEST_FRONT],
            begin: LENGTH_ROOM,
            end: LENGTH_ROOM + 1,
        };
        front.raw[LENGTH_ROOM] = self.attributes;
        front.varint(zigzag(timestamp_delta));
        front.varint(zigzag(i64::from(offset_delta)));
        front.length((front.end - LENGTH_ROOM + self.body.len()) as u64);
        front
    }
}

/// The front of a record: attributes and deltas, and before them their length, which is known last.
struct Front {
    raw: [u8; LONGEST_FRONT],
    begin: usize,
    end: usize,
}

impl Front {
    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.raw[self.end] = value as u8 | 0x80;
            value >>= 7;
            self.end += 1;
        }
        self.raw[self.end] = value as u8;
        self.end += 1;
    }

    /// Lengths are not negative, so their zigzag form is the double. A batch, and so its records, stay below 2^31.
    #[inline]
    fn length(&mut self, length: u64) {
        let value = length << 1;
        let width = (70 - (value | 1).leading_zeros() as usize) / 7;
        self.begin = LENGTH_ROOM - width;
        let mut rest = value;
        for byte in &mut self.raw[LENGTH_ROOM - width..LENGTH_ROOM] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.raw[LENGTH_ROOM - 1] &= 0x7f;
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.raw[self.begin..self.end]
    }
}

/// Walks the records of a dense batch: as many as the header says, with the offset deltas 0, 1, 2 and so on, and
/// nothing behind them. The first thing that is wrong is an error and ends the walk.
#[derive(Clone, Debug)]
pub(crate) struct RawRecords<'a> {
    rest: &'a [u8],
    next: i32,
    count: i32,
}

impl<'a> RawRecords<'a> {
    /// A walk over `records`, uncompressed, of the batch with `header`.
    ///
    /// # Errors
    /// [`WireError::BadCount`] for more records than `records` can hold.
    pub(crate) fn new(header: &BatchHeader, records: &'a [u8]) -> Result<Self> {
        match usize::try_from(header.count) {
            Ok(count) if count <= records.len() / LEAST_RECORD => Ok(Self {
                rest: records,
                next: 0,
                count: header.count,
            }),
            _ => Err(WireError::BadCount {
                what: "records of a batch",
                count: i64::from(header.count),
                have: records.len(),
            }),
        }
    }

    fn record(&mut self) -> Result<RawRecord<'a>> {
        let length = varint(&mut self.rest, "record length")?;
        let mut front = take(&mut self.rest, "record", length)?;
        let Some((&attributes, behind)) = front.split_first() else {
            return Err(truncated("record attributes", 1, 0));
        };
        front = behind;
        let timestamp_delta = varlong(&mut front, "timestamp delta")?;
        let offset_delta = varint(&mut front, "offset delta")?;
        if offset_delta != self.next {
            return Err(WireError::BadValue {
                what: "offset delta of a record",
                value: i64::from(offset_delta),
            });
        }
        check_body(front)?;
        self.next += 1;
        Ok(RawRecord {
            attributes,
            timestamp_delta,
            body: front,
        })
    }
}

impl<'a> Iterator for RawRecords<'a> {
    type Item = Result<RawRecord<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            let left = std::mem::take(&mut self.rest).len();
            return (left > 0).then_some(Err(WireError::Trailing {
                what: "records of a batch",
                left,
            }));
        }
        let record = self.record();
        if record.is_err() {
            (self.rest, self.next) = (&[], self.count);
        }
        Some(record)
    }
}

/// Key, value and headers have to fill the record.
#[inline]
fn check_body(mut body: &[u8]) -> Result<()> {
    skip_nullable(&mut body, "record key")?;
    skip_nullable(&mut body, "record value")?;
    let count = varint(&mut body, "record headers")?;
    let have = body.len();
    match usize::try_from(count) {
        Ok(n) if n <= have / LEAST_HEADER => {}
        _ => return Err(bad_count("record headers", count, have)),
    }
    for _ in 0..count {
        let length = varint(&mut body, "record header key")?;
        take(&mut body, "record header key", length)?;
        skip_nullable(&mut body, "record header value")?;
    }
    match body.len() {
        0 => Ok(()),
        left => Err(WireError::Trailing {
            what: "record",
            left,
        }),
    }
}

/// Any negative length is null.
#[inline]
fn skip_nullable(bytes: &mut &[u8], what: &'static str) -> Result<()> {
    let length = varint(bytes, what)?;
    if length >= 0 {
        take(bytes, what, length)?;
    }
    Ok(())
}

#[inline]
fn take<'a>(bytes: &mut &'a [u8], what: &'static str, length: i32) -> Result<&'a [u8]> {
    let have = bytes.len();
    let Ok(need) = usize::try_from(length) else {
        return Err(bad_count(what, length, have));
    };
    let Some((front, behind)) = bytes.split_at_checked(need) else {
        return Err(truncated(what, need, have));
    };
    *bytes = behind;
    Ok(front)
}

#[inline]
fn varint(bytes: &mut &[u8], what: &'static str) -> Result<i32> {
    let raw = match **bytes {
        [one @ ..0x80, ..] => {
            *bytes = &bytes[1..];
            u64::from(one)
        }
        [one, two @ ..0x80, ..] => {
            *bytes = &bytes[2..];
            u64::from(one & 0x7f) | u64::from(two) << 7
        }
        _ => uvarint(bytes, what, 5)?,
    };
    let raw = u32::try_from(raw).map_err(|_| WireError::BadValue {
        what,
        value: raw as i64,
    })?;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

#[inline]
fn varlong(bytes: &mut &[u8], what: &'static str) -> Result<i64> {
    let raw = match **bytes {
        [one @ ..0x80, ..] => {
            *bytes = &bytes[1..];
            u64::from(one)
        }
        _ => uvarint(bytes, what, 10)?,
    };
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// An unsigned varint of at most `most` bytes, and of 64 bits.
fn uvarint(bytes: &mut &[u8], what: &'static str, most: usize) -> Result<u64> {
    let mut value: u64 = 0;
    for i in 0..most {
        let Some(&byte) = bytes.get(i) else {
            return Err(truncated(what, i + 1, bytes.len()));
        };
        // The tenth byte has room for one bit.
        if i == 9 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err(WireError::BadValue {
        what,
        value: value as i64,
    })
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cold]
fn truncated(what: &'static str, need: usize, have: usize) -> WireError {
    WireError::Truncated { what, need, have }
}

#[cold]
fn bad_count(what: &'static str, count: i32, have: usize) -> WireError {
    WireError::BadCount {
        what,
        count: i64::from(count),
        have,
    }
}
