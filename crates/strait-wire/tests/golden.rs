//! Batches that Kafka's own classes made (see `golden/Batches.java`), read, restamped and repacked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::{Bytes, BytesMut};
use strait_wire::{
    Batch, BatchBuilder, Codec, ControlType, Entries, Entry, HEADER_LEN, Record, RepackCause,
    Stamp, WireError, needs_repack, repack, restamp,
};

const MIB: usize = 1 << 20;
const STAMP: Stamp = Stamp {
    producer_id: 0x0102_0304_0506,
    producer_epoch: 5,
    base_sequence: 0x7fff_fff0,
};

macro_rules! golden {
    ($name:literal) => {
        Batch::parse(Bytes::from_static(include_bytes!(concat!(
            "golden/", $name, ".bin"
        ))))
        .unwrap()
    };
}

fn all() -> Vec<(Codec, Batch)> {
    vec![
        (Codec::None, golden!("none")),
        (Codec::Gzip, golden!("gzip")),
        (Codec::Snappy, golden!("snappy")),
        (Codec::Lz4, golden!("lz4")),
        (Codec::Zstd, golden!("zstd")),
    ]
}

/// The records of `Batches.java`, with a value of `big` bytes in the second.
fn records(big: usize) -> Vec<Record> {
    let value: Vec<u8> = (0..big).map(|i| (i * 7 + i / 256) as u8).collect();
    let s = Bytes::from_static;
    vec![
        Record {
            offset: 1234,
            timestamp: 1_700_000_001_000,
            key: Some(s(b"k1")),
            value: Some(s(b"v1")),
            headers: vec![
                (s(b"a"), Some(s(b"1"))),
                (s(b"a"), None),
                (s(b"b"), Some(s(b""))),
            ],
        },
        Record {
            offset: 1235,
            timestamp: 1_700_000_001_005,
            key: None,
            value: Some(value.into()),
            headers: vec![],
        },
        Record {
            offset: 1236,
            timestamp: 1_700_000_000_900,
            key: Some(s(b"k3")),
            value: None,
            headers: vec![],
        },
    ]
}

fn joined(parts: [Bytes; 2]) -> Batch {
    let mut bytes = BytesMut::new();
    for part in parts {
        bytes.extend_from_slice(&part);
    }
    Batch::parse(bytes.freeze()).unwrap()
}

fn without_offsets(records: Vec<Record>) -> Vec<Record> {
    records
        .into_iter()
        .map(|record| Record {
            offset: 0,
            ..record
        })
        .collect()
}

#[test]
fn kafkas_batches_are_read_in_every_codec() {
    for (codec, batch) in all() {
        let big = if codec == Codec::None { 10 } else { 100_000 };
        let h = batch.header;
        assert_eq!(h.attributes.codec(), Ok(codec));
        assert_eq!(
            (h.base_offset, h.last_offset(), h.next_offset()),
            (1234, 1236, 1237)
        );
        assert_eq!(
            (h.leader_epoch, h.producer_id, h.producer_epoch, h.count),
            (9, 77, 3, 3)
        );
        assert_eq!(
            (h.base_sequence, h.last_sequence()),
            (i32::MAX - 1, 0),
            "sequences wrap to 0"
        );
        assert_eq!(
            (h.base_timestamp, h.max_timestamp),
            (1_700_000_001_000, 1_700_000_001_005)
        );
        assert!(h.attributes.transactional() && !h.attributes.control() && h.is_dense());
        assert_eq!(h.size(), batch.bytes.len());
        assert_eq!(h.encode(), batch.bytes[..HEADER_LEN]);
        batch.verify_crc().unwrap();
        assert_eq!(batch.decode(MIB).unwrap(), records(big), "{codec:?}");
    }
}

#[test]
fn what_is_built_reads_as_what_was_pushed() {
    for (codec, kafkas) in all() {
        let mut builder = BatchBuilder::new(codec);
        for record in kafkas.decode(MIB).unwrap() {
            builder.push(record);
        }
        let batch = Batch::parse(builder.build(STAMP).unwrap()).unwrap();
        let h = batch.header;
        assert_eq!(
            (h.base_offset, h.leader_epoch, h.count, h.attributes.0),
            (0, -1, 3, codec.id())
        );
        assert_eq!(
            (h.base_timestamp, h.max_timestamp),
            (kafkas.header.base_timestamp, kafkas.header.max_timestamp)
        );
        assert_eq!(
            (h.producer_id, h.producer_epoch, h.base_sequence),
            (0x0102_0304_0506, 5, 0x7fff_fff0)
        );
        let read = batch.decode(MIB).unwrap();
        assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(
            without_offsets(read),
            without_offsets(kafkas.decode(MIB).unwrap())
        );
        if codec == Codec::None {
            assert_eq!(
                batch.records(),
                kafkas.records(),
                "uncompressed, the bytes are Kafka's own"
            );
        }
    }
    let empty = BatchBuilder::new(Codec::None);
    assert!(matches!(empty.build(STAMP), Err(WireError::Encode { .. })));
}

#[test]
fn restamping_changes_the_header_and_keeps_the_records_in_their_memory() {
    let more = [
        golden!("horizon"),
        golden!("append_time"),
        golden!("emptied"),
        golden!("commit"),
    ];
    for batch in all().into_iter().map(|(_, batch)| batch).chain(more) {
        let parts = restamp(&batch, STAMP);
        assert_eq!(parts[0].len(), HEADER_LEN);
        assert_eq!(
            parts[1].as_ptr(),
            batch.bytes[HEADER_LEN..].as_ptr(),
            "the same memory"
        );
        assert_eq!(parts[1].len(), batch.bytes.len() - HEADER_LEN);
        let new = joined(parts);
        new.verify_crc().unwrap();
        let (h, source) = (new.header, batch.header);
        assert_eq!((h.base_offset, h.leader_epoch), (0, -1));
        assert_eq!(h.attributes.0, source.attributes.0 & 0x07);
        assert_eq!(
            (h.producer_id, h.producer_epoch, h.base_sequence),
            (0x0102_0304_0506, 5, 0x7fff_fff0)
        );
        assert_eq!(
            (h.base_timestamp, h.max_timestamp),
            (source.base_timestamp, source.max_timestamp)
        );
        assert_eq!(
            (h.count, h.last_offset_delta, h.length),
            (source.count, source.last_offset_delta, source.length)
        );
    }
}

#[test]
fn attributes_without_a_meaning_are_passed_on() {
    let mut bytes = BytesMut::from(&golden!("none").bytes[..]);
    bytes[21] = 0x7f;
    bytes[22] |= 0x80;
    let [header, _] = restamp(&Batch::parse(bytes.freeze()).unwrap(), STAMP);
    assert_eq!(header[21..23], [0x7f, 0x80]);
}

#[test]
fn damage_at_the_source_is_still_seen_behind_a_new_header() {
    let good = golden!("none");
    for at in 21..good.bytes.len() {
        for bit in 0..8 {
            let mut bytes = BytesMut::from(&good.bytes[..]);
            bytes[at] ^= 1 << bit;
            let Ok(damaged) = Batch::parse(bytes.freeze()) else {
                continue;
            };
            let [header, records] = restamp(&damaged, STAMP);
            let crc = u32::from_be_bytes(header[17..21].try_into().unwrap());
            let computed = crc32c::crc32c_append(crc32c::crc32c(&header[21..]), &records);
            assert_ne!(crc, computed, "bit {bit} of byte {at}");
            assert!(matches!(
                repack(&damaged, 0, MIB),
                Err(WireError::Crc { offset: 1234, .. })
            ));
        }
    }
}

#[test]
fn a_batch_with_delete_horizon_keeps_its_timestamps() {
    const DELETE_HORIZON: i16 = 0x40;
    let batch = golden!("horizon");
    assert_eq!(batch.header.attributes.0 & DELETE_HORIZON, DELETE_HORIZON);
    assert_eq!(
        batch.header.base_timestamp, 1_800_086_400_000,
        "the horizon, not a record's time"
    );
    assert_eq!(needs_repack(&batch.header), None);
    assert_eq!(batch.decode(MIB).unwrap(), records(10));
    let sent = joined(restamp(&batch, STAMP));
    assert_eq!(sent.header.attributes.0 & DELETE_HORIZON, 0);
    assert_eq!(
        without_offsets(sent.decode(MIB).unwrap()),
        without_offsets(records(10))
    );
}

#[test]
fn holes_are_closed_with_the_same_codec() {
    let batch = golden!("holes");
    assert_eq!((batch.header.count, batch.header.last_offset_delta), (1, 2));
    assert_eq!(needs_repack(&batch.header), Some(RepackCause::Holes));
    let dense = repack(&batch, 0, MIB).unwrap();
    assert_eq!(dense.header.attributes.0, Codec::Gzip.id());
    assert_eq!(
        (
            dense.header.base_offset,
            dense.header.count,
            dense.header.last_offset_delta
        ),
        (1235, 1, 0)
    );
    assert_eq!(dense.header.leader_epoch, 9);
    assert_eq!(
        (dense.header.producer_id, dense.header.base_sequence),
        (-1, -1)
    );
    assert_eq!(dense.decode(MIB).unwrap(), records(10)[1..2]);
    assert_eq!(Batch::parse(dense.bytes.clone()).unwrap(), dense);

    let batch = golden!("horizon_holes");
    assert_eq!(needs_repack(&batch.header), Some(RepackCause::Holes));
    let dense = repack(&batch, 0, MIB).unwrap();
    assert_eq!(dense.header.attributes.0, 0);
    let expected = vec![records(10)[0].clone(), records(10)[2].clone()];
    assert_eq!(
        without_offsets(dense.decode(MIB).unwrap()),
        without_offsets(expected)
    );
    joined(restamp(&dense, STAMP)).verify_crc().unwrap();
}

#[test]
fn append_time_becomes_the_time_of_every_record() {
    let batch = golden!("append_time");
    assert_eq!(needs_repack(&batch.header), Some(RepackCause::AppendTime));
    let packed = repack(&batch, 0, MIB).unwrap();
    assert!(!packed.header.attributes.timestamp_type_append());
    assert_eq!(
        (packed.header.base_timestamp, packed.header.max_timestamp),
        (1_700_000_009_999, 1_700_000_009_999)
    );
    for (record, plain) in packed.decode(MIB).unwrap().into_iter().zip(records(10)) {
        assert_eq!(
            record,
            Record {
                timestamp: 1_700_000_009_999,
                ..plain
            }
        );
    }
}

#[test]
fn records_below_the_start_are_left_out() {
    for (codec, batch) in all() {
        for (from, first, count) in [
            (0, 1234, 3),
            (1234, 1234, 3),
            (1235, 1235, 2),
            (1236, 1236, 1),
        ] {
            let packed = repack(&batch, from, MIB).unwrap();
            assert_eq!(
                (packed.header.base_offset, packed.header.count),
                (first, count),
                "{codec:?} {from}"
            );
            assert_eq!(packed.header.last_offset_delta, count - 1);
            assert_eq!(
                packed.decode(MIB).unwrap(),
                batch.decode(MIB).unwrap()[3 - count as usize..]
            );
        }
        let nothing = repack(&batch, 1237, MIB).unwrap();
        assert_eq!(
            (
                nothing.header.count,
                nothing.header.last_offset_delta,
                nothing.bytes.len()
            ),
            (0, -1, HEADER_LEN)
        );
        assert_eq!(
            (nothing.header.base_offset, nothing.header.next_offset()),
            (1237, 1237)
        );
    }
    assert_eq!(repack(&golden!("emptied"), 0, MIB).unwrap().header.count, 0);
}

#[test]
fn markers_and_emptied_batches_are_known() {
    assert_eq!(golden!("commit").control_type(), Some(ControlType::Commit));
    assert_eq!(golden!("abort").control_type(), Some(ControlType::Abort));
    assert_eq!(golden!("none").control_type(), None);
    let emptied = golden!("emptied");
    assert_eq!(
        (
            emptied.header.count,
            emptied.header.base_sequence,
            emptied.header.last_sequence()
        ),
        (0, 10, 12)
    );
    assert_eq!(needs_repack(&emptied.header), None);
    assert_eq!(emptied.decode(MIB), Ok(vec![]));
}

#[test]
fn a_walk_gives_every_entry_and_ends_at_a_cut() {
    let mut blob = BytesMut::new();
    blob.extend_from_slice(&golden!("commit").bytes);
    blob.extend_from_slice(include_bytes!("golden/legacy1.bin"));
    let whole = blob.len();
    blob.extend_from_slice(&golden!("none").bytes);
    let blob = blob.freeze();

    for end in 0..=blob.len() {
        let mut walk = Entries::new(blob.slice(..end));
        let entries: Vec<Entry> = walk.by_ref().collect::<Result<_, _>>().unwrap();
        let expected = if end == blob.len() {
            3
        } else {
            usize::from(end >= 78) + usize::from(end >= whole)
        };
        assert_eq!(entries.len(), expected, "{end}");
        assert!(walk.next().is_none());
        for entry in entries {
            match entry {
                Entry::Batch(batch) => assert!(blob.as_ptr_range().contains(&batch.bytes.as_ptr())),
                Entry::Legacy {
                    magic,
                    offset,
                    bytes,
                } => assert_eq!((magic, offset, bytes.len()), (1, 50, 36)),
            }
        }
    }
}

#[test]
fn a_walk_refuses_what_cannot_be() {
    let good = golden!("none").bytes;
    let broken = |at: usize, with: &[u8]| {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[at..at + with.len()].copy_from_slice(with);
        let mut walk = Entries::new(bytes.freeze());
        let first = walk.next();
        assert!(walk.next().is_none(), "nothing follows an error");
        first
    };
    let refused = |entry| matches!(entry, Some(Err(WireError::BadValue { .. })));
    assert!(
        refused(broken(0, &(-1i64).to_be_bytes())),
        "negative offset"
    );
    assert!(
        refused(broken(0, &i64::MAX.to_be_bytes())),
        "offsets that overflow"
    );
    assert!(
        refused(broken(8, &48i32.to_be_bytes())),
        "shorter than its header"
    );
    assert!(
        refused(broken(8, &(-1i32).to_be_bytes())),
        "negative length"
    );
    assert!(refused(broken(16, &[3])), "unknown magic");
    assert!(
        refused(broken(23, &(-1i32).to_be_bytes())),
        "negative offset delta"
    );
    assert!(
        refused(broken(57, &(-1i32).to_be_bytes())),
        "negative count"
    );
    assert!(
        refused(broken(57, &4i32.to_be_bytes())),
        "more records than offsets"
    );
    assert!(
        broken(8, &i32::MAX.to_be_bytes()).is_none(),
        "a length beyond the end is a cut"
    );

    // The second batch begins inside of the first one's offsets.
    let twice = [&good[..], &good[..]].concat();
    let mut walk = Entries::new(twice.into());
    assert!(walk.next().unwrap().is_ok());
    assert!(refused(walk.next()));
}

#[test]
fn a_bomb_is_refused_at_its_limit() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(codec);
        let value = Some(Bytes::from(vec![0; 4 * MIB]));
        builder.push(Record {
            offset: 0,
            timestamp: 1,
            key: None,
            value,
            headers: vec![],
        });
        let batch = Batch::parse(builder.build(Stamp::NONE).unwrap()).unwrap();
        assert!(batch.bytes.len() < MIB, "{codec:?}");
        assert_eq!(
            batch.decode(MIB),
            Err(WireError::TooLarge {
                offset: 0,
                limit: MIB
            }),
            "{codec:?}"
        );
        // The record itself takes some bytes too.
        assert_eq!(
            batch.decode(builder.size() + 1000).unwrap().len(),
            1,
            "{codec:?}"
        );
    }
}

#[test]
fn a_raw_snappy_block_is_read() {
    let source = golden!("none");
    let packed = snap::raw::Encoder::new()
        .compress_vec(&source.records())
        .unwrap();
    let mut bytes = BytesMut::from(&source.bytes[..HEADER_LEN]);
    bytes.extend_from_slice(&packed);
    let length = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] |= 2;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(
        Batch::parse(bytes.freeze()).unwrap().decode(MIB).unwrap(),
        records(10)
    );
}

#[test]
fn a_records_hash_is_stable_and_tells_null_from_empty() {
    let [first, second, third]: [Record; 3] = records(10).try_into().unwrap();
    // Part of the format: what was written down with one version is compared with another's.
    assert_eq!(first.hash(), FIRST_HASH);
    assert_eq!(
        Record {
            offset: 9,
            ..first.clone()
        }
        .hash(),
        FIRST_HASH
    );
    let empty = Bytes::new();
    let mut other = vec![first.clone(), second.clone(), third.clone()];
    other.push(Record {
        timestamp: 1,
        ..first.clone()
    });
    other.push(Record {
        key: Some(empty.clone()),
        ..second.clone()
    });
    other.push(Record {
        value: Some(empty.clone()),
        ..third.clone()
    });
    other.push(Record {
        headers: vec![(empty, None)],
        ..third.clone()
    });
    other.push(Record {
        headers: first.headers[1..].to_vec(),
        ..first.clone()
    });
    let swapped = vec![
        first.headers[1].clone(),
        first.headers[0].clone(),
        first.headers[2].clone(),
    ];
    other.push(Record {
        headers: swapped,
        ..first
    });
    let hashes: std::collections::HashSet<u128> = other.iter().map(Record::hash).collect();
    assert_eq!(hashes.len(), other.len());
}

const FIRST_HASH: u128 = 0xd363_b6c6_20e5_350b_105a_46d2_db1c_096f;
