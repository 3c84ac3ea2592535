//! The `strait.pos` header and the sync records that carry it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::Bytes;
use proptest::prelude::*;
use strait_wire::{
    GapReason, Isolation, Losses, POSITION_HEADER, Position, PositionError, PositionFlags, Record,
    SyncKind, SyncRecord, WireError,
};
use uuid::Uuid;

/// Laid out by hand from the format's description; checksum by a bitwise CRC-32C.
const GOLDEN: &str = "02 01 01 05 \
    00000000000003e8 0000000000000384 0000000000000352 0000000000001b59 0003 0000002a 00000005 \
    11111111111111111111111111111111 00000000000000000000000000000000 00000002 0000018bcfe56800 \
    0003 6f2e41 0002 6162 02 01 0000000000000064 09 0000000000000032 \
    02 09 00000000000000c8 00000000000000dc 0000000000000014 \
    09 000000000000012c 000000000000014a 000000000000001e bf6ba8db";

/// The same position without ranges, which is version 1.
const VERSION_1: &str = "01 01 01 05 \
    00000000000003e8 0000000000000384 0000000000000352 0000000000001b59 0003 0000002a 00000005 \
    11111111111111111111111111111111 00000000000000000000000000000000 00000002 0000018bcfe56800 \
    0003 6f2e41 0002 6162 02 01 0000000000000064 09 0000000000000032 c42c6609";

/// Where in [`GOLDEN`] the sums begin, and where the ranges.
const SUMS: usize = 99;
const RANGES: usize = SUMS + 19;

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

fn sample() -> Position {
    Position {
        kind: SyncKind::Session,
        isolation: Isolation::ReadCommitted,
        flags: PositionFlags::SHARED | PositionFlags::PROVENANCE,
        source_next: 1000,
        target_next: 900,
        forwarded: 850,
        producer_id: 7001,
        producer_epoch: 3,
        next_sequence: 42,
        source_epoch: 5,
        source_topic_id: Uuid::from_bytes([0x11; 16]),
        target_topic_id: Uuid::nil(),
        target_partition: 2,
        wall_ms: 1_700_000_000_000,
        target_topic: "o.A".into(),
        link: "ab".into(),
        gaps: vec![(GapReason::Control, 100), (GapReason::Unexplained, 50)],
        lost: losses([
            (GapReason::Unexplained, 200, 220),
            (GapReason::Unexplained, 300, 330),
        ]),
    }
}

fn losses(ranges: impl IntoIterator<Item = (GapReason, i64, i64)>) -> Losses {
    let mut losses = Losses::default();
    for (reason, from, to) in ranges {
        losses.add(reason, from, to);
    }
    losses
}

/// `bytes` with a checksum that fits.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let body = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

#[test]
fn golden_bytes() {
    assert_eq!(sample().encode(), unhex(GOLDEN));
    assert_eq!(Position::decode(&unhex(GOLDEN)), Ok(sample()));
}

#[test]
fn without_ranges_a_position_is_of_version_1() {
    let read = Position::decode(&unhex(VERSION_1)).unwrap();
    let expected = Position {
        lost: Losses::default(),
        ..sample()
    };
    assert_eq!(read, expected);
    assert_eq!(
        read.encode(),
        unhex(VERSION_1),
        "a Strait that reads no version 2 can go on where nothing was lost"
    );
}

#[test]
fn a_newer_version_is_named_whatever_follows() {
    let error = Position::decode(&[3, 9, 9]).unwrap_err();
    assert_eq!(error, PositionError::NewerVersion(3));
    assert_eq!(
        error.to_string(),
        "written by a newer Strait (record format 3, this build reads up to 2): upgrade this instance"
    );
    assert!(matches!(
        Position::decode(&[0; 200]),
        Err(PositionError::Malformed(WireError::BadValue { .. }))
    ));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = unhex(GOLDEN);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Position::decode(&bad).is_err(), "bit {bit}");
    }
    for cut in 0..good.len() {
        assert!(Position::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn fields_that_no_version_has_are_refused() {
    let at = |index: usize, value: u8| {
        let mut bytes = unhex(GOLDEN);
        bytes[index] = value;
        Position::decode(&sealed(bytes))
    };
    let gaps = SUMS;
    assert!(matches!(
        at(1, 6),
        Err(PositionError::Malformed(WireError::BadValue {
            what: "sync kind",
            ..
        }))
    ));
    assert!(matches!(
        at(2, 2),
        Err(PositionError::Malformed(WireError::BadValue {
            what: "sync isolation",
            ..
        }))
    ));
    assert!(matches!(
        at(gaps, 0xff),
        Err(PositionError::Malformed(WireError::BadCount { .. }))
    ));
    assert!(matches!(
        at(gaps, 10),
        Err(PositionError::Malformed(WireError::BadCount { .. }))
    ));
    assert!(matches!(
        at(RANGES, 1),
        Err(PositionError::Malformed(WireError::Trailing { .. }))
    ));
    assert!(matches!(
        at(gaps + 1, 10),
        Err(PositionError::Malformed(WireError::BadValue { .. }))
    ));
    assert!(
        matches!(
            at(gaps + 1, 9),
            Err(PositionError::Malformed(WireError::BadValue { .. }))
        ),
        "a reason twice"
    );
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let with = |index: usize, value: u8| {
        let mut bytes = unhex(GOLDEN);
        bytes[RANGES + index] = value;
        match Position::decode(&sealed(bytes)) {
            Err(PositionError::Malformed(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    for (index, value, said) in [
        // Counts: negative, above the bound, more than there is.
        (
            0,
            0xff,
            "lost ranges: count -1 cannot be right, 54 bytes are left",
        ),
        (
            0,
            33,
            "lost ranges: count 33 cannot be right, 54 bytes are left",
        ),
        (
            0,
            3,
            "lost ranges: count 3 cannot be right, 54 bytes are left",
        ),
        (1, 10, "gap reason: value 10 is not allowed"),
        (1, 1, "lost range's reason: value 1 is not allowed"),
        // An empty range, and one that ends before it begins.
        (17, 200, "lost range's end: value 200 is not allowed"),
        (17, 199, "lost range's end: value 199 is not allowed"),
        (
            10,
            0x80,
            "lost range's end: value -9223372036854775588 is not allowed",
        ),
        (25, 0, "lost range's offsets: value 0 is not allowed"),
        (
            18,
            0x80,
            "lost range's offsets: value -9223372036854775788 is not allowed",
        ),
        (
            26,
            5,
            "lost range that is out of order: value 300 is not allowed",
        ),
    ] {
        assert_eq!(with(index, value), said);
    }
}

#[test]
fn flags_that_are_not_known_survive() {
    let mut bytes = unhex(GOLDEN);
    bytes[3] = 0x8c;
    let bytes = sealed(bytes);
    let position = Position::decode(&bytes).unwrap();
    assert!(
        position
            .flags
            .contains(PositionFlags::PROVENANCE | PositionFlags::IDENTICAL)
    );
    assert!(
        !position
            .flags
            .contains(PositionFlags::SHARED | PositionFlags::IDENTICAL)
    );
    assert_eq!(position.encode(), bytes);
}

#[test]
fn a_reason_named_twice_is_written_once() {
    let mut position = sample();
    position.gaps = vec![
        (GapReason::Aborted, 3),
        (GapReason::Expired, 1),
        (GapReason::Aborted, 4),
    ];
    let read = Position::decode(&position.encode()).unwrap();
    assert_eq!(
        read.gaps,
        [(GapReason::Aborted, 7), (GapReason::Expired, 1)]
    );
}

#[test]
fn a_name_beyond_the_length_field_leaves_a_readable_record() {
    let mut position = sample();
    position.link = "ä".repeat(20_000);
    let read = Position::decode(&position.encode()).unwrap();
    assert_eq!(read.link, "ä".repeat(16_383));
    assert_eq!(read.gaps, position.gaps);
}

#[test]
fn reasons_have_their_numbers_and_words() {
    let words: Vec<_> = GapReason::ALL
        .iter()
        .map(|r| (*r as i8, r.to_string()))
        .collect();
    let expected = [
        (1, "control"),
        (2, "aborted"),
        (3, "compacted"),
        (4, "truncated"),
        (5, "expired"),
        (6, "refused"),
        (7, "re-created"),
        (8, "mirrored by another link"),
        (9, "unexplained"),
    ];
    assert_eq!(words, expected.map(|(n, s)| (n, s.to_owned())));
}

fn sync(position: Option<Position>) -> SyncRecord {
    SyncRecord {
        topic: "t".into(),
        partition: 3,
        upstream: 999,
        downstream: 899,
        position,
    }
}

#[test]
fn a_sync_is_a_mirror_maker_sync_with_one_header() {
    let record = sync(Some(sample())).to_record(77);
    assert_eq!(record.timestamp, 77);
    assert_eq!(record.key.as_deref(), Some(&unhex("0001 74 00000003")[..]));
    assert_eq!(
        record.value.as_deref(),
        Some(&unhex("00000000000003e7 0000000000000383")[..])
    );
    assert_eq!(
        record.headers,
        [(Bytes::from("strait.pos"), Some(Bytes::from(unhex(GOLDEN))))]
    );
    assert_eq!(SyncRecord::from_record(&record), Ok(sync(Some(sample()))));
}

#[test]
fn mirror_maker_s_own_sync_has_no_position() {
    let mut record = sync(None).to_record(0);
    assert!(record.headers.is_empty());
    record.headers.push((Bytes::from("other"), None));
    assert_eq!(SyncRecord::from_record(&record), Ok(sync(None)));
}

#[test]
fn the_last_of_several_headers_counts() {
    let mut record = sync(Some(sample())).to_record(0);
    let newer = Position {
        source_next: 2000,
        ..sample()
    };
    record
        .headers
        .push((Bytes::from(POSITION_HEADER), Some(newer.encode())));
    assert_eq!(SyncRecord::from_record(&record), Ok(sync(Some(newer))));
    record.headers.push((Bytes::from(POSITION_HEADER), None));
    assert!(
        matches!(
            SyncRecord::from_record(&record),
            Err(PositionError::Malformed(_))
        ),
        "never a fallback"
    );
}

#[test]
fn tombstones_and_foreign_records_are_refused() {
    let good = sync(None).to_record(0);
    for (key, value) in [
        (None, good.value.clone()),
        (good.key.clone(), None),
        (good.value.clone(), good.key.clone()),
    ] {
        let record = Record {
            key,
            value,
            ..good.clone()
        };
        assert!(matches!(
            SyncRecord::from_record(&record),
            Err(PositionError::Malformed(_))
        ));
    }
}

fn any_losses() -> impl Strategy<Value = Losses> {
    let reasons = proptest::sample::select(GapReason::ALL.to_vec());
    proptest::collection::vec((reasons, any::<i64>(), any::<i64>()), 0..80).prop_map(losses)
}

fn any_position() -> impl Strategy<Value = Position> {
    let kinds = [
        SyncKind::Periodic,
        SyncKind::Session,
        SyncKind::Rebase,
        SyncKind::CleanStop,
        SyncKind::AfterLoss,
        SyncKind::Takeover,
    ];
    let flags = [
        PositionFlags::default(),
        PositionFlags::COMPACTED | PositionFlags::IDENTICAL,
    ];
    (
        (
            0..6_usize,
            any::<bool>(),
            0..2_usize,
            any::<[i64; 5]>(),
            any::<i16>(),
            any::<[i32; 3]>(),
        ),
        (any::<[u8; 16]>(), any::<[u8; 16]>(), ".{0,40}", ".{0,40}"),
        proptest::sample::subsequence(GapReason::ALL.to_vec(), 0..=9).prop_shuffle(),
        any::<[i64; 9]>(),
        any_losses(),
    )
        .prop_map(
            move |(
                (kind, committed, flag, longs, epoch, ints),
                (source, target, topic, link),
                reasons,
                gaps,
                lost,
            )| {
                Position {
                    kind: kinds[kind],
                    isolation: if committed {
                        Isolation::ReadCommitted
                    } else {
                        Isolation::ReadUncommitted
                    },
                    flags: flags[flag],
                    source_next: longs[0],
                    target_next: longs[1],
                    forwarded: longs[2],
                    producer_id: longs[3],
                    producer_epoch: epoch,
                    next_sequence: ints[0],
                    source_epoch: ints[1],
                    source_topic_id: Uuid::from_bytes(source),
                    target_topic_id: Uuid::from_bytes(target),
                    target_partition: ints[2],
                    wall_ms: longs[4],
                    target_topic: topic,
                    link,
                    gaps: reasons.into_iter().zip(gaps).collect(),
                    lost,
                }
            },
        )
}

proptest! {
    #[test]
    fn round_trip(position in any_position()) {
        prop_assert_eq!(Position::decode(&position.encode()), Ok(position));
    }

    #[test]
    fn arbitrary_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Position::decode(&bytes);
        for version in [1, 2] {
            if bytes.len() >= 5 {
                bytes[0] = version;
                // Past the checksum; what is understood must be written back the same.
                bytes = sealed(bytes);
                if let Ok(position) = Position::decode(&bytes) {
                    prop_assert_eq!(&Position::decode(&position.encode()), &Ok(position.clone()));
                    prop_assert!(version == 1 || position.encode() == bytes);
                }
            }
        }
    }

    #[test]
    fn damaged_but_sealed(position in any_position(), at in 1..1_200_usize, with in any::<u8>()) {
        let mut bytes = position.encode().to_vec();
        let at = at % bytes.len();
        if at > 0 {
            bytes[at] = with;
        }
        let bytes = sealed(bytes);
        if let Ok(position) = Position::decode(&bytes) {
            prop_assert_eq!(position.encode(), bytes);
        }
    }
}
