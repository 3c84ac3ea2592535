//! What a broker checks and rewrites in a client's batch before it is appended.
//!
//! Rules of `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords` and `LogValidator`,
//! with the answers measured on Kafka 4.3.1 and 3.9.2.

use bytes::{Bytes, BytesMut};

use crate::code;
use crate::codec::Codec;
use crate::records::{
    APPEND_TIME, BatchHeader, BatchSpec, CONTROL, DELETE_HORIZON, HEADER_LEN, KitRecord,
    TRANSACTIONAL, check_crc, decode, fix_crc,
};
use crate::topic_config::LogSettings;

/// Smallest record the oldest format allows; a smaller length is corruption, not an end.
const OLDEST_RECORD: i32 = 14;

/// How the records field of one partition splits into batches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Exactly one whole batch (trailing cut bytes already trimmed).
    One(Bytes),
    /// No whole batch, two batches, or an old format: this partition gets INVALID_RECORD.
    Invalid,
    /// Lengths or magic that cannot be: the whole REQUEST fails with CORRUPT_MESSAGE.
    Corrupt,
}

/// Splits a produce request's records. Two or more batches, none, or a cut one are refused; trailing bytes that look
/// like the beginning of a batch are ignored, others are corruption (`ByteBufferLogInputStream`).
pub(crate) fn frame(records: &Bytes) -> Framing {
    let mut at = 0usize;
    let mut first = None;
    loop {
        let rest = records.get(at..).unwrap_or_default();
        if rest.len() < 12 {
            break;
        }
        let length = rest
            .get(8..12)
            .and_then(|b| b.try_into().ok())
            .map_or(0, i32::from_be_bytes);
        if length < OLDEST_RECORD {
            return Framing::Corrupt;
        }
        let Some(&magic) = rest.get(16) else { break };
        if magic > 2 {
            return Framing::Corrupt;
        }
        let size = 12 + usize::try_from(length).unwrap_or(usize::MAX - 12);
        if rest.len() < size {
            break;
        }
        if first.is_some() || magic < 2 || size < HEADER_LEN {
            return Framing::Invalid;
        }
        first = Some(records.slice(at..at + size));
        at += size;
    }
    first.map_or(Framing::Invalid, Framing::One)
}

/// Whether the first batch of a records field claims to be transactional (asked before anything else is checked).
pub(crate) fn claims_transaction(records: &Bytes) -> bool {
    BatchHeader::parse(records).is_ok_and(|h| h.magic == 2 && h.has(TRANSACTIONAL))
}

/// A refused batch: the error code and Kafka's kind of message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) i16, pub(crate) String);

fn refuse<T>(code: i16, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(code, message.into()))
}

/// Where and when an accepted batch is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) base_offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) now_ms: i64,
}

/// Judges one client batch and answers the bytes to be stored at `place`.
pub(crate) fn accept(
    batch: &Bytes,
    settings: &LogSettings,
    place: Placement,
) -> Result<Bytes, Refusal> {
    let Ok(header) = BatchHeader::parse(batch) else {
        return refuse(code::INVALID_RECORD, "no whole batch");
    };
    check_header(batch, &header, settings)?;
    let Some(codec) = header.codec() else {
        return refuse(code::UNKNOWN_SERVER_ERROR, "unknown compression type");
    };
    let records = match decode(batch) {
        Ok(records) => records,
        Err(error) => return refuse(code::INVALID_RECORD, error.to_string()),
    };
    check_records(&header, codec, &records, settings, place.now_ms)?;
    let target = settings.recompress.unwrap_or(codec);
    if target == codec {
        Ok(in_place(batch, &header, &records, settings, place))
    } else {
        rebuild(&header, target, &records, settings, place)
    }
}

fn check_header(
    batch: &Bytes,
    header: &BatchHeader,
    settings: &LogSettings,
) -> Result<(), Refusal> {
    if header.base_offset != 0 {
        return refuse(
            code::INVALID_RECORD,
            "The baseOffset of the record batch should be 0",
        );
    }
    if batch.len() as i64 > settings.max_message_bytes {
        return refuse(
            code::MESSAGE_TOO_LARGE,
            format!(
                "batch of {} bytes exceeds max.message.bytes {}",
                batch.len(),
                settings.max_message_bytes
            ),
        );
    }
    if let Err(error) = check_crc(batch) {
        return refuse(code::CORRUPT_MESSAGE, error.to_string());
    }
    let offsets = i64::from(header.last_offset_delta) + 1;
    if offsets <= 0 || header.count <= 0 || offsets != i64::from(header.count) {
        return refuse(
            code::INVALID_RECORD,
            format!("{offsets} offsets for {} records", header.count),
        );
    }
    if header.has(CONTROL) {
        return refuse(
            code::INVALID_RECORD,
            "Clients are not allowed to write control records",
        );
    }
    if header.producer_id >= 0 && header.base_sequence < 0 {
        return refuse(
            code::INVALID_RECORD,
            "Invalid sequence number -1 with a producer id",
        );
    }
    if header.has(APPEND_TIME) && settings.append_time {
        return refuse(
            code::INVALID_TIMESTAMP,
            "Invalid timestamp type in record batch",
        );
    }
    Ok(())
}

fn check_records(
    header: &BatchHeader,
    codec: Codec,
    records: &[KitRecord],
    settings: &LogSettings,
    now_ms: i64,
) -> Result<(), Refusal> {
    if settings.compacted && records.iter().any(|r| r.key.is_none()) {
        return refuse(
            code::INVALID_RECORD,
            "Compacted topic cannot accept message without key",
        );
    }
    // Inner offsets are looked at in compressed batches only; in plain ones wrong offsets are stored as sent.
    let dense = (0i64..).zip(records).all(|(i, r)| r.offset == i);
    if codec != Codec::None && !dense {
        return refuse(code::UNKNOWN_SERVER_ERROR, "unexpected inner offsets");
    }
    if settings.append_time {
        return Ok(());
    }
    for record in records {
        // A record inside an append-time batch carries its own create time on a CreateTime topic.
        let time = if header.has(APPEND_TIME) {
            header.max_timestamp
        } else {
            record.timestamp
        };
        if time >= 0
            && (now_ms.saturating_sub(time) > settings.before_max_ms
                || time.saturating_sub(now_ms) > settings.after_max_ms)
        {
            return refuse(
                code::INVALID_TIMESTAMP,
                format!("timestamp {time} is out of range"),
            );
        }
    }
    Ok(())
}

/// The producer's own largest timestamp, which Kafka recomputes whatever the header says.
fn create_time_max(batch: &Bytes, records: &[KitRecord], header: &BatchHeader) -> i64 {
    if !header.has(APPEND_TIME) {
        return records.iter().map(|r| r.timestamp).max().unwrap_or(-1);
    }
    let mut plain = BytesMut::from(batch.as_ref());
    clear_bits(&mut plain, APPEND_TIME);
    decode(&plain).map_or(-1, |own| {
        own.iter().map(|r| r.timestamp).max().unwrap_or(-1)
    })
}

fn in_place(
    batch: &Bytes,
    header: &BatchHeader,
    records: &[KitRecord],
    settings: &LogSettings,
    place: Placement,
) -> Bytes {
    let max = if settings.append_time {
        place.now_ms
    } else {
        create_time_max(batch, records, header)
    };
    let mut out = BytesMut::from(batch.as_ref());
    clear_bits(&mut out, APPEND_TIME);
    if settings.append_time
        && let Some(low) = out.get_mut(22)
    {
        *low |= APPEND_TIME as u8;
    }
    if let Some(field) = out.get_mut(35..43) {
        field.copy_from_slice(&max.to_be_bytes());
    }
    stamp(&mut out, place);
    fix_crc(&mut out);
    out.freeze()
}

fn rebuild(
    header: &BatchHeader,
    codec: Codec,
    records: &[KitRecord],
    settings: &LogSettings,
    place: Placement,
) -> Result<Bytes, Refusal> {
    let spec = BatchSpec {
        codec,
        flags: (header.attributes & (TRANSACTIONAL | DELETE_HORIZON))
            | if settings.append_time { APPEND_TIME } else { 0 },
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        base_timestamp: header.has(DELETE_HORIZON).then_some(header.base_timestamp),
        max_timestamp: settings.append_time.then_some(place.now_ms),
        ..BatchSpec::default()
    };
    let built = spec
        .build(records)
        .map_err(|e| Refusal(code::UNKNOWN_SERVER_ERROR, e.to_string()))?;
    let mut out = BytesMut::from(built.as_ref());
    stamp(&mut out, place);
    Ok(out.freeze())
}

fn clear_bits(batch: &mut [u8], bits: i16) {
    if let Some(low) = batch.get_mut(22) {
        *low &= !(bits as u8);
    }
}

/// Base offset and leader epoch lie outside the CRC.
fn stamp(batch: &mut [u8], place: Placement) {
    if let Some(field) = batch.get_mut(0..8) {
        field.copy_from_slice(&place.base_offset.to_be_bytes());
    }
    if let Some(field) = batch.get_mut(12..16) {
        field.copy_from_slice(&place.leader_epoch.to_be_bytes());
    }
}
