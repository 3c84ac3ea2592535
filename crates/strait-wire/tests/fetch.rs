//! Fetch against hostile bytes. Its shape in every version is held against another implementation in
//! `proto-tests`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::Bytes;
use proptest::prelude::*;
use strait_wire::{
    AbortedTxn, FetchPartition, FetchRequest, FetchResponse, FetchTopic, Isolation, TopicRef,
    WireError,
};
use uuid::Uuid;

fn unhex(text: &str) -> Bytes {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

/// Version 4: throttle 1; topic `t`, partition 3, error 0, watermark 9, stable 8, one aborted (7 from 5), 4 bytes.
const V4: &str = "00000001 00000001 0001 74 00000001 00000003 0000 0000000000000009 0000000000000008 \
    00000001 0000000000000007 0000000000000005 00000004 deadbeef";
/// Version 12: the same with error 0, session 0, log start 2, replica -1, diverging at epoch 6, offset 4.
const V12: &str = "00000001 0000 00000000 02 02 74 02 00000003 0000 0000000000000009 0000000000000008 \
    0000000000000002 02 0000000000000007 0000000000000005 00 ffffffff 05 deadbeef \
    01 00 0d 00000006 0000000000000004 00 00 00";

#[test]
fn golden_responses() {
    let old = FetchResponse::decode(4, unhex(V4)).unwrap();
    let new = FetchResponse::decode(12, unhex(V12)).unwrap();
    assert_eq!(
        (old.throttle_ms, old.error, old.partitions.len()),
        (1, 0, 1)
    );
    let p = &old.partitions[0];
    assert_eq!(
        (&p.topic, p.partition, p.error),
        (&TopicRef::Name("t".into()), 3, 0)
    );
    assert_eq!(
        (p.high_watermark, p.last_stable_offset, p.log_start_offset),
        (9, 8, -1)
    );
    assert_eq!(
        p.aborted,
        [AbortedTxn {
            producer_id: 7,
            first_offset: 5
        }]
    );
    assert_eq!(
        (p.preferred_replica, p.diverging, &p.records[..]),
        (-1, None, &[0xde, 0xad, 0xbe, 0xef][..])
    );
    let mut same = p.clone();
    (same.log_start_offset, same.diverging) = (2, Some((6, 4)));
    assert_eq!(new.partitions, [same]);
}

#[test]
fn golden_request() {
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1024,
        isolation: Isolation::ReadCommitted,
        rack: "r".into(),
        topics: vec![FetchTopic {
            name: "t".into(),
            id: Uuid::from_bytes([0x22; 16]),
            partitions: vec![FetchPartition {
                partition: 3,
                leader_epoch: 5,
                offset: 9,
                last_fetched_epoch: 4,
                max_bytes: 512,
            }],
        }],
    };
    let v4 = "ffffffff 000001f4 00000001 00000400 01 00000001 0001 74 00000001 \
        00000003 0000000000000009 00000200";
    assert_eq!(request.encode(4).unwrap(), unhex(v4));
    let v17 = "000001f4 00000001 00000400 01 00000000 ffffffff 02 22222222222222222222222222222222 02 \
        00000003 00000005 0000000000000009 00000004 ffffffffffffffff 00000200 00 00 01 02 72 00";
    assert_eq!(request.encode(17).unwrap(), unhex(v17));
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let topic = |name: &str| FetchTopic {
        name: name.into(),
        id: Uuid::nil(),
        partitions: Vec::new(),
    };
    let mut request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 0,
        isolation: Isolation::ReadUncommitted,
        rack: String::new(),
        topics: vec![topic("t")],
    };
    for version in [3, 18, -1, i16::MAX] {
        assert!(matches!(
            request.encode(version),
            Err(WireError::Version {
                min: 4,
                max: 17,
                ..
            })
        ));
        assert!(matches!(
            FetchResponse::decode(version, unhex(V4)),
            Err(WireError::Version { .. })
        ));
    }
    assert!(
        matches!(request.encode(13), Err(WireError::Encode { .. })),
        "no topic id"
    );
    request.topics = vec![topic(&"x".repeat(40_000))];
    assert!(matches!(request.encode(4), Err(WireError::Encode { .. })));
}

#[test]
fn records_are_slices_of_the_response() {
    for (version, hex) in [(4, V4), (12, V12)] {
        let body = unhex(hex);
        let records = FetchResponse::decode(version, body.clone())
            .unwrap()
            .partitions
            .remove(0)
            .records;
        assert!(body.as_ptr_range().contains(&records.as_ptr()));
    }
}

#[test]
fn counts_are_bounded_by_the_bytes() {
    for version in 4..=17 {
        let mut body = vec![0; 4]; // throttle
        if version >= 7 {
            body.extend([0; 6]); // error and session
        }
        for count in [i32::MAX, 1_000, i32::MIN, -1] {
            let mut body = body.clone();
            match version {
                ..12 => body.extend(count.to_be_bytes()),
                // The same count as uvarint(n + 1); 0 is null.
                _ if count == -1 => body.push(0),
                _ => body.extend([0xff, 0xff, 0xff, 0xff, 0x0f]),
            }
            body.extend([0; 8]);
            let error = FetchResponse::decode(version, body.into()).unwrap_err();
            assert!(
                matches!(error, WireError::BadCount { .. }),
                "version {version}, count {count}: {error}"
            );
        }
    }
}

#[test]
fn a_name_no_topic_can_have_is_refused() {
    let mut body = unhex("00000000 00000001 00fa").to_vec();
    body.extend([b'x'; 250]);
    body.extend([0; 4]);
    assert!(matches!(
        FetchResponse::decode(4, body.into()),
        Err(WireError::BadValue { value: 250, .. })
    ));
}

#[test]
fn every_cut_and_every_extra_byte_is_noticed() {
    for (version, hex) in [(4, V4), (12, V12)] {
        let body = unhex(hex);
        for cut in 0..body.len() {
            assert!(
                FetchResponse::decode(version, body.slice(..cut)).is_err(),
                "version {version} cut at {cut}"
            );
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(
            FetchResponse::decode(version, longer.into()),
            Err(WireError::Trailing {
                what: "Fetch response",
                left: 1
            })
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(version in 4..=17_i16, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = FetchResponse::decode(version, body.into());
    }

    #[test]
    fn damaged(version in prop_oneof![Just(4_i16), Just(12)], changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut body = unhex(if version == 4 { V4 } else { V12 }).to_vec();
        for (at, with) in changes {
            let at = at.index(body.len());
            body[at] = with;
        }
        let len = body.len();
        if let Ok(response) = FetchResponse::decode(version, body.into()) {
            let held: usize = response.partitions.iter().map(|p| p.records.len() + 16 * p.aborted.len()).sum();
            prop_assert!(held <= len);
        }
    }
}
