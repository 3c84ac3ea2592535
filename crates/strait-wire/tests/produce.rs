//! Produce: no copies, and hostile bytes. Its shape in every version is held against another implementation in
//! `proto-tests`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::Bytes;
use proptest::prelude::*;
use strait_wire::{ProducePartition, ProduceRequest, ProduceResponse, TopicRef, WireError};
use uuid::Uuid;

fn unhex(text: &str) -> Bytes {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

fn partition(topic: &str, id: u8, partition: i32, batch: &[&'static [u8]]) -> ProducePartition {
    let batch = batch.iter().map(|s| Bytes::from_static(s)).collect();
    ProducePartition {
        topic: topic.into(),
        topic_id: Uuid::from_bytes([id; 16]),
        partition,
        batch,
    }
}

fn request(partitions: Vec<ProducePartition>) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        partitions,
    }
}

#[test]
fn golden_requests() {
    // The partitions of `a` stand apart, and come out together.
    let request = request(vec![
        partition("a", 0x11, 0, &[b"xy", b"z"]),
        partition("b", 0x22, 7, &[b"w"]),
        partition("a", 0x11, 1, &[b"", b"v"]),
    ]);
    let v3 = "ffff ffff 00007530 00000002 0001 61 00000002 00000000 00000003 78797a 00000001 00000001 76 \
        0001 62 00000001 00000007 00000001 77";
    assert_eq!(request.encode(3).unwrap().concat(), unhex(v3));
    let v9 = "00 ffff 00007530 03 02 61 03 00000000 04 78797a 00 00000001 02 76 00 00 \
        02 62 02 00000007 02 77 00 00 00";
    assert_eq!(request.encode(9).unwrap().concat(), unhex(v9));
    let v13 = "00 ffff 00007530 03 11111111111111111111111111111111 03 00000000 04 78797a 00 00000001 02 76 00 00 \
        22222222222222222222222222222222 02 00000007 02 77 00 00 00";
    assert_eq!(request.encode(13).unwrap().concat(), unhex(v13));
}

#[test]
fn batches_are_not_copied_and_glue_is_one_buffer() {
    let name = "t".repeat(249);
    let partitions: Vec<_> = (0..100)
        .map(|p| partition(&name, 1, p, &[b"header", b"", b"records"]))
        .collect();
    let expected: Vec<_> = partitions
        .iter()
        .flat_map(|p| &p.batch)
        .filter(|s| !s.is_empty())
        .cloned()
        .collect();
    for version in 3..=13 {
        let body = request(partitions.clone()).encode(version).unwrap();
        assert!(body.iter().all(|s| !s.is_empty()));
        let same = |a: &Bytes, b: &Bytes| a.as_ptr_range() == b.as_ptr_range();
        let (batches, glue): (Vec<_>, Vec<_>) = body
            .iter()
            .partition(|s| expected.iter().any(|e| same(s, e)));
        assert_eq!(batches.len(), expected.len(), "version {version}");
        for pair in glue.windows(2) {
            assert_eq!(
                pair[0].as_ptr_range().end,
                pair[1].as_ptr(),
                "version {version}: glue moved"
            );
        }
    }
}

#[test]
fn no_partitions_is_a_valid_request() {
    assert_eq!(
        request(Vec::new()).encode(3).unwrap().concat(),
        unhex("ffff ffff 00007530 00000000")
    );
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let refused = |version, partitions| {
        matches!(
            request(partitions).encode(version),
            Err(WireError::Encode { what: _, why: _ })
        )
    };
    let one = || partition("a", 1, 0, &[b"x"]);
    assert!(
        refused(3, vec![one(), partition("b", 1, 0, &[b"x"]), one()]),
        "the same partition twice"
    );
    assert!(
        refused(13, vec![one(), partition("b", 1, 0, &[b"x"])]),
        "the same topic id under two names"
    );
    assert!(!refused(12, vec![one(), partition("b", 1, 0, &[b"x"])]));
    assert!(!refused(13, vec![one(), partition("a", 2, 0, &[b"x"])]));
    assert!(
        refused(3, vec![partition("a", 1, 0, &[b""])]),
        "an empty batch"
    );
    assert!(
        refused(13, vec![partition("a", 0, 0, &[b"x"])]),
        "no topic id"
    );
    assert!(refused(
        3,
        vec![partition(&"x".repeat(40_000), 1, 0, &[b"x"])]
    ));
    for version in [2, 14, -1] {
        assert!(matches!(
            request(Vec::new()).encode(version),
            Err(WireError::Version {
                min: 3,
                max: 13,
                ..
            })
        ));
        assert!(matches!(
            ProduceResponse::decode(version, Bytes::new()),
            Err(WireError::Version { .. })
        ));
    }
}

/// Version 3: topic `t`, partition 3, error 87, base 9, time -1; throttle 1.
const V3: &str =
    "00000001 0001 74 00000001 00000003 0057 0000000000000009 ffffffffffffffff 00000001";
/// Version 10: the same with log start 2, record 5 refused (`bad`), the message `no`, a new leader (tag 0).
const V10: &str = "02 02 74 02 00000003 0057 0000000000000009 ffffffffffffffff 0000000000000002 \
    02 00000005 04 626164 00 03 6e6f 01 00 09 00000001 00000002 00 00 00000001 00";

#[test]
fn golden_responses() {
    let old = ProduceResponse::decode(3, unhex(V3)).unwrap();
    assert_eq!((old.throttle_ms, old.partitions.len()), (1, 1));
    let p = &old.partitions[0];
    assert_eq!(
        (&p.topic, p.partition, p.error),
        (&TopicRef::Name("t".into()), 3, 87)
    );
    assert_eq!(
        (
            p.base_offset,
            p.log_append_time,
            p.log_start_offset,
            &p.message
        ),
        (9, -1, -1, &None)
    );
    let new = ProduceResponse::decode(10, unhex(V10)).unwrap();
    let mut same = p.clone();
    (same.log_start_offset, same.message) = (2, Some("no (record 5 of the batch: bad)".into()));
    same.refused = vec![5];
    assert_eq!(new.partitions, [same]);
}

#[test]
fn counts_are_bounded_by_the_bytes() {
    for version in 3..=13 {
        for count in [i32::MAX, 1_000, i32::MIN, -1] {
            let mut body = match version {
                ..9 => count.to_be_bytes().to_vec(),
                _ if count == -1 => vec![0],
                _ => vec![0xff, 0xff, 0xff, 0xff, 0x0f],
            };
            body.extend([0; 8]);
            let error = ProduceResponse::decode(version, body.into()).unwrap_err();
            assert!(
                matches!(error, WireError::BadCount { .. }),
                "version {version}, count {count}: {error}"
            );
        }
    }
}

#[test]
fn every_cut_and_every_extra_byte_is_noticed() {
    for (version, hex) in [(3, V3), (10, V10)] {
        let body = unhex(hex);
        for cut in 0..body.len() {
            assert!(
                ProduceResponse::decode(version, body.slice(..cut)).is_err(),
                "version {version} cut at {cut}"
            );
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(
            ProduceResponse::decode(version, longer.into()),
            Err(WireError::Trailing {
                what: "Produce response",
                left: 1
            })
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(version in 3..=13_i16, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ProduceResponse::decode(version, body.into());
    }

    #[test]
    fn damaged(version in prop_oneof![Just(3_i16), Just(10)], changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut body = unhex(if version == 3 { V3 } else { V10 }).to_vec();
        for (at, with) in changes {
            let at = at.index(body.len());
            body[at] = with;
        }
        let _ = ProduceResponse::decode(version, body.into());
    }
}
