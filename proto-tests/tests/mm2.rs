//! MirrorMaker 2's records, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use strait_wire::{Checkpoint, Heartbeat, OffsetSync, WireError};

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

#[test]
fn offset_sync() {
    let sync = OffsetSync {
        topic: "t".into(),
        partition: 3,
        upstream: 10,
        downstream: 7,
    };
    assert_eq!(sync.key(), unhex("0001 74 00000003"));
    assert_eq!(sync.value(), unhex("000000000000000A 0000000000000007"));
    assert_eq!(OffsetSync::decode(&sync.key(), &sync.value()), Ok(sync));
}

#[test]
fn offset_sync_at_the_very_start() {
    let sync = OffsetSync {
        topic: "t".into(),
        partition: 0,
        upstream: -1,
        downstream: -1,
    };
    assert_eq!(sync.value(), [0xff; 16].as_slice());
    assert_eq!(OffsetSync::decode(&sync.key(), &sync.value()), Ok(sync));
}

#[test]
fn checkpoint() {
    let checkpoint = Checkpoint {
        group: "grp".into(),
        topic: "A.t".into(),
        partition: 1,
        upstream: 100,
        downstream: 90,
        metadata: "é".into(),
    };
    assert_eq!(checkpoint.key(), unhex("0003 677270 0003 412e74 00000001"));
    assert_eq!(
        checkpoint.value(),
        unhex("0000 0000000000000064 000000000000005a 0002 c3a9")
    );
    assert_eq!(
        Checkpoint::decode(&checkpoint.key(), &checkpoint.value()),
        Ok(checkpoint)
    );
}

#[test]
fn heartbeat() {
    let heartbeat = Heartbeat {
        source: "A".into(),
        target: "BB".into(),
        timestamp: 1_700_000_000_000,
    };
    assert_eq!(heartbeat.key(), unhex("0001 41 0002 4242"));
    assert_eq!(heartbeat.value(), unhex("0000 0000018bcfe56800"));
    assert_eq!(
        Heartbeat::decode(&heartbeat.key(), &heartbeat.value()),
        Ok(heartbeat)
    );
}

#[test]
fn other_versions_and_other_records_are_refused() {
    let key = unhex("0001 41 0002 4242");
    let newer = Heartbeat::decode(&key, &unhex("0001 0000018bcfe56800"));
    assert!(matches!(newer, Err(WireError::Version { version: 1, .. })));
    assert!(Heartbeat::decode(&key, &[]).is_err());
    assert!(
        OffsetSync::decode(&unhex("0001 41 0001 42"), &[0; 16]).is_err(),
        "a heartbeat's key"
    );
    assert!(OffsetSync::decode(&unhex("0001 74 00000003"), &[0; 17]).is_err());
    assert!(
        OffsetSync::decode(&unhex("0001 ff 00000003"), &[0; 16]).is_err(),
        "not UTF-8"
    );
    assert!(Checkpoint::decode(&unhex("0001 74 00000003"), &[0; 20]).is_err());
}

proptest! {
    #[test]
    fn round_trip(a in ".{0,40}", b in ".{0,40}", c in ".{0,40}", partition: i32, upstream: i64, downstream: i64) {
        let sync = OffsetSync { topic: a.clone(), partition, upstream, downstream };
        prop_assert_eq!(OffsetSync::decode(&sync.key(), &sync.value()), Ok(sync));
        let heartbeat = Heartbeat { source: a.clone(), target: b.clone(), timestamp: upstream };
        prop_assert_eq!(Heartbeat::decode(&heartbeat.key(), &heartbeat.value()), Ok(heartbeat));
        let checkpoint = Checkpoint { group: a, topic: b, partition, upstream, downstream, metadata: c };
        prop_assert_eq!(Checkpoint::decode(&checkpoint.key(), &checkpoint.value()), Ok(checkpoint));
    }

    #[test]
    fn arbitrary_bytes(key in proptest::collection::vec(any::<u8>(), 0..40), value in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(sync) = OffsetSync::decode(&key, &value) {
            prop_assert_eq!((sync.key().to_vec(), sync.value().to_vec()), (key.clone(), value.clone()));
        }
        if let Ok(heartbeat) = Heartbeat::decode(&key, &value) {
            prop_assert_eq!((heartbeat.key().to_vec(), heartbeat.value().to_vec()), (key.clone(), value.clone()));
        }
        if let Ok(checkpoint) = Checkpoint::decode(&key, &value) {
            prop_assert_eq!((checkpoint.key().to_vec(), checkpoint.value().to_vec()), (key, value));
        }
    }
}
