//! Messages of formats v0 and v1, as brokers before 0.11 stored them: an encoder of its own, to judge readers by.
//!
//! A message is offset, size, CRC-32, magic, attributes, (v1) timestamp, key and value. A compressed set is the value of
//! a wrapper message that has the offset of the last one inside; offsets inside are absolute in v0 and relative in v1.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::Codec;
use crate::records::{BatchHeader, KitRecord, RecordsError};

/// A message format before record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Without timestamps.
    V0,
    /// With timestamps.
    V1,
}

impl Format {
    fn magic(self) -> i8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }

    /// The record as a consumer sees it: without headers, and in v0 without time.
    pub(crate) fn seen(self, record: &KitRecord, offset: i64) -> KitRecord {
        KitRecord {
            offset,
            timestamp: match self {
                Self::V0 => -1,
                Self::V1 => record.timestamp,
            },
            headers: Vec::new(),
            ..record.clone()
        }
    }

    /// The stored form of records that begin at `base`: a message each, or one wrapper where there is a codec.
    pub(crate) fn sets(
        self,
        codec: Codec,
        base: i64,
        records: &[KitRecord],
    ) -> Result<Vec<(BatchHeader, Bytes, Vec<KitRecord>)>, RecordsError> {
        let seen: Vec<KitRecord> = (base..)
            .zip(records)
            .map(|(o, r)| self.seen(r, o))
            .collect();
        if codec == Codec::None {
            let single = |record: KitRecord| {
                let bytes = self.message(record.offset, 0, &record);
                (
                    self.header(&bytes, codec, std::slice::from_ref(&record)),
                    bytes,
                    vec![record],
                )
            };
            return Ok(seen.into_iter().map(single).collect());
        }
        let mut inner = BytesMut::new();
        for (delta, record) in (0..).zip(&seen) {
            let offset = match self {
                Self::V0 => record.offset,
                Self::V1 => delta,
            };
            inner.extend_from_slice(&self.message(offset, 0, record));
        }
        let wrapper = KitRecord {
            timestamp: seen.iter().map(|r| r.timestamp).max().unwrap_or(-1),
            value: Some(codec.compress(&inner)?.into()),
            ..KitRecord::default()
        };
        let last = seen.last().map_or(base, |r| r.offset);
        let bytes = self.message(last, codec.id() as i8, &wrapper);
        Ok(vec![(self.header(&bytes, codec, &seen), bytes, seen)])
    }

    fn message(self, offset: i64, attributes: i8, record: &KitRecord) -> Bytes {
        let mut body = BytesMut::new();
        body.put_i8(self.magic());
        body.put_i8(attributes);
        if self == Self::V1 {
            body.put_i64(record.timestamp);
        }
        for part in [&record.key, &record.value] {
            match part {
                None => body.put_i32(-1),
                Some(bytes) => {
                    body.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                    body.put_slice(bytes);
                }
            }
        }
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        let mut out = BytesMut::with_capacity(body.len() + 16);
        out.put_i64(offset);
        out.put_i32(i32::try_from(body.len() + 4).unwrap_or(i32::MAX));
        out.put_u32(crc.sum());
        out.put_slice(&body);
        out.freeze()
    }

    /// What the log knows of a stored set, in the terms of a batch.
    fn header(self, bytes: &Bytes, codec: Codec, records: &[KitRecord]) -> BatchHeader {
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        let times = || records.iter().map(|r| r.timestamp);
        BatchHeader {
            base_offset: records.first().map_or(0, |r| r.offset),
            length: i32::try_from(bytes.len()).unwrap_or(i32::MAX) - 12,
            leader_epoch: -1,
            magic: self.magic(),
            crc: 0,
            attributes: codec.id(),
            last_offset_delta: count - 1,
            base_timestamp: times().next().unwrap_or(-1),
            max_timestamp: times().max().unwrap_or(-1),
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
        }
    }
}
