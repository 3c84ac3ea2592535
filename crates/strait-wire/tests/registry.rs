//! The records of `mm2-strait.internal`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::Bytes;
use proptest::prelude::*;
use strait_wire::{MAX_RUNGS, Record, RegistryError, RegistryRecord, WireError};

fn unhex(text: &str) -> Bytes {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

fn golden(record: RegistryRecord, key: &str, value: &str) {
    let written = record.to_record(5);
    assert_eq!((written.offset, written.timestamp), (0, 5));
    assert_eq!(written.key, Some(unhex(key)));
    assert_eq!(written.value, Some(unhex(value)));
    assert!(written.headers.is_empty());
    assert_eq!(RegistryRecord::from_record(&written), Ok(record));
    for cut in 0..unhex(value).len() {
        let short = Record {
            value: Some(unhex(value).slice(..cut)),
            ..written.clone()
        };
        assert!(
            matches!(
                RegistryRecord::from_record(&short),
                Err(RegistryError::Malformed(_))
            ),
            "cut at {cut}"
        );
    }
}

#[test]
fn golden_link() {
    let record = RegistryRecord::Link {
        link: "ab".into(),
        source_cluster: "S".into(),
        target_cluster: "TT".into(),
        shards: 4,
        created_ms: 1_700_000_000_000,
    };
    golden(
        record,
        "01 0002 6162",
        "01 0001 53 0002 5454 0004 0000018bcfe56800",
    );
}

#[test]
fn golden_producer() {
    let record = RegistryRecord::Producer {
        producer_id: 7001,
        link: "ab".into(),
        shard: 2,
        highest_epoch: 9,
        source_cluster: "S".into(),
        target_cluster: "TT".into(),
    };
    golden(
        record,
        "02 0000000000001b59",
        "01 0002 6162 0002 0009 0001 53 0002 5454",
    );
}

#[test]
fn golden_lease() {
    let record = RegistryRecord::Lease {
        link: "ab".into(),
        shard: 2,
        producer_id: 7001,
        epoch: 9,
        instance: "i1".into(),
        wall_ms: 1_700_000_000_000,
        closed: true,
    };
    golden(
        record,
        "03 0002 6162 0002",
        "01 0000000000001b59 0009 0002 6931 0000018bcfe56800 01",
    );
}

#[test]
fn golden_ladder() {
    let record = RegistryRecord::Ladder {
        link: "ab".into(),
        topic: "t".into(),
        partition: 3,
        rungs: vec![(30, 20, 10), (3, 2, 1)],
    };
    golden(
        record,
        "04 0002 6162 0001 74 00000003",
        "01 0002 000000000000001e 0000000000000014 000000000000000a \
         0000000000000003 0000000000000002 0000000000000001",
    );
}

#[test]
fn golden_selection() {
    let record = RegistryRecord::Selection {
        link: "ab".into(),
        includes: vec!["^a".into(), String::new()],
        wall_ms: 1_700_000_000_000,
    };
    golden(
        record,
        "05 0002 6162",
        "01 00000002 00000002 5e61 00000000 0000018bcfe56800",
    );
}

fn read(key: &str, value: &str) -> Result<RegistryRecord, RegistryError> {
    let (key, value) = (Some(unhex(key)), Some(unhex(value)));
    RegistryRecord::from_record(&Record {
        offset: 0,
        timestamp: 0,
        key,
        value,
        headers: Vec::new(),
    })
}

#[test]
fn other_types_and_versions_are_told_apart() {
    assert_eq!(read("06 00", "01"), Err(RegistryError::UnknownType(6)));
    assert_eq!(
        read("06 00", "02"),
        Err(RegistryError::UnknownType(6)),
        "a new type may have any version"
    );
    let newer = read("03 0002 6162 0002", "02 ff").unwrap_err();
    assert_eq!(newer, RegistryError::NewerVersion(2));
    assert_eq!(
        newer.to_string(),
        "written by a newer Strait (record format 2, this build reads up to 1): upgrade this instance"
    );
    assert!(matches!(
        read("03 0002 6162 0002", "00"),
        Err(RegistryError::Malformed(_))
    ));
    assert!(matches!(read("", "01"), Err(RegistryError::Malformed(_))));
    assert!(
        matches!(read("01 0002 6162", ""), Err(RegistryError::Malformed(_))),
        "a tombstone"
    );
}

#[test]
fn counts_are_bounded_by_the_bytes() {
    let bad_count = |r| matches!(r, Err(RegistryError::Malformed(WireError::BadCount { .. })));
    assert!(bad_count(read("04 0000 0000 00000000", "01 0040")));
    assert!(bad_count(read("04 0000 0000 00000000", "01 ffff")));
    assert!(bad_count(read(
        "04 0000 0000 00000000",
        &format!("01 0041 {}", "00".repeat(65 * 24))
    )));
    assert!(bad_count(read("05 0000", "01 7fffffff 00000000")));
    assert!(bad_count(read("05 0000", "01 ffffffff 0000000000000000")));
}

#[test]
fn a_ladder_keeps_its_newest_rungs() {
    let rungs: Vec<_> = (0..100).map(|i| (100 - i, 100 - i, 100 - i)).collect();
    let ladder = |rungs| RegistryRecord::Ladder {
        link: "l".into(),
        topic: "t".into(),
        partition: 0,
        rungs,
    };
    let read = RegistryRecord::from_record(&ladder(rungs.clone()).to_record(0)).unwrap();
    assert_eq!(read, ladder(rungs[..MAX_RUNGS].to_vec()));
}

#[test]
fn a_long_pattern_is_not_cut() {
    let record = RegistryRecord::Selection {
        link: "l".into(),
        includes: vec!["x".repeat(100_000)],
        wall_ms: 0,
    };
    assert_eq!(
        RegistryRecord::from_record(&record.to_record(0)),
        Ok(record)
    );
}

fn any_record() -> impl Strategy<Value = RegistryRecord> {
    let name = || ".{0,30}";
    prop_oneof![
        (name(), name(), name(), any::<i16>(), any::<i64>()).prop_map(
            |(link, source_cluster, target_cluster, shards, created_ms)| RegistryRecord::Link {
                link,
                source_cluster,
                target_cluster,
                shards,
                created_ms
            }
        ),
        (
            any::<i64>(),
            name(),
            any::<i16>(),
            any::<i16>(),
            name(),
            name()
        )
            .prop_map(
                |(producer_id, link, shard, highest_epoch, source_cluster, target_cluster)| {
                    RegistryRecord::Producer {
                        producer_id,
                        link,
                        shard,
                        highest_epoch,
                        source_cluster,
                        target_cluster,
                    }
                }
            ),
        (
            name(),
            any::<i16>(),
            any::<i64>(),
            any::<i16>(),
            name(),
            any::<i64>(),
            any::<bool>()
        )
            .prop_map(
                |(link, shard, producer_id, epoch, instance, wall_ms, closed)| {
                    RegistryRecord::Lease {
                        link,
                        shard,
                        producer_id,
                        epoch,
                        instance,
                        wall_ms,
                        closed,
                    }
                }
            ),
        (
            name(),
            name(),
            any::<i32>(),
            proptest::collection::vec(any::<(i64, i64, i64)>(), 0..=64)
        )
            .prop_map(|(link, topic, partition, rungs)| RegistryRecord::Ladder {
                link,
                topic,
                partition,
                rungs
            }),
        (
            name(),
            proptest::collection::vec(name(), 0..5),
            any::<i64>()
        )
            .prop_map(|(link, includes, wall_ms)| RegistryRecord::Selection {
                link,
                includes,
                wall_ms
            }),
    ]
}

proptest! {
    #[test]
    fn round_trip(record in any_record()) {
        prop_assert_eq!(RegistryRecord::from_record(&record.to_record(0)), Ok(record));
    }

    #[test]
    fn arbitrary_bytes(
        kind in 0..7_i8,
        mut key in proptest::collection::vec(any::<u8>(), 0..40),
        mut value in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        key.insert(0, kind as u8);
        value.insert(0, 1);
        let record =
            Record { offset: 0, timestamp: 0, key: Some(key.into()), value: Some(value.into()), headers: Vec::new() };
        if let Ok(understood) = RegistryRecord::from_record(&record) {
            prop_assert_eq!(understood.to_record(0), record);
        }
    }

    #[test]
    fn damaged(record in any_record(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut written = record.to_record(0);
        let mut value = written.value.clone().unwrap().to_vec();
        let at = at.index(value.len());
        value[at] = with;
        written.value = Some(value.into());
        if let Ok(understood) = RegistryRecord::from_record(&written) {
            prop_assert_eq!(understood.to_record(0), written);
        }
    }
}

#[test]
fn a_reset_is_a_selection_that_every_version_reads() {
    let record = RegistryRecord::Selection {
        link: "ab".into(),
        includes: Vec::new(),
        wall_ms: strait_wire::SELECTION_RESET,
    };
    golden(record, "05 0002 6162", "01 00000000 ffffffffffffffff");
}

#[test]
fn the_link_of_a_selection_is_known_without_its_value() {
    let mut record = RegistryRecord::Selection {
        link: "ab".into(),
        includes: Vec::new(),
        wall_ms: 0,
    }
    .to_record(0);
    record.value = Some(vec![99].into());
    assert!(RegistryRecord::from_record(&record).is_err());
    assert_eq!(RegistryRecord::selection_of(&record).as_deref(), Some("ab"));
    record.key = Some(vec![1, 0, 2, b'a', b'b'].into());
    assert_eq!(RegistryRecord::selection_of(&record), None);
    record.key = Some(vec![5, 0, 2, b'a'].into());
    assert_eq!(RegistryRecord::selection_of(&record), None);
}
