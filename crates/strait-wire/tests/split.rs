//! Batches cut into pieces, read by the test kit's own codec.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::Bytes;
use proptest::prelude::*;
use strait_testkit::KitRecord;
use strait_testkit::codec;
use strait_testkit::records::{self, BatchSpec};
use strait_wire::{Attributes, Batch, HEADER_LEN, WireError, split};

const MIB: usize = 1 << 20;
const APPENDED: i64 = 1_700_000_009_999;

fn codec() -> impl Strategy<Value = codec::Codec> {
    prop::sample::select(&codec::ALL[..])
}

fn record() -> impl Strategy<Value = KitRecord> {
    let timestamp = prop_oneof![1_700_000_000_000..1_700_000_100_000i64, any::<i64>()];
    let value = prop_oneof![
        prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        (0..3000usize).prop_map(|n| Some(vec![7; n])),
    ];
    let key = prop::option::of(prop::collection::vec(any::<u8>(), 0..10));
    (timestamp, key, value, any::<bool>()).prop_map(|(timestamp, key, value, header)| {
        let record = KitRecord::new(timestamp, key.as_deref(), value.as_deref());
        match header {
            true => record.header("h", None),
            false => record,
        }
    })
}

/// A batch from offset 1,000 on whose records keep their offsets.
fn batch(
    records: &[KitRecord],
    codec: codec::Codec,
    append_time: bool,
    last: Option<i32>,
) -> Batch {
    let spec = BatchSpec {
        base_offset: 1_000,
        leader_epoch: 4,
        producer_id: 77,
        producer_epoch: 3,
        base_sequence: 5,
        codec,
        flags: if append_time {
            records::APPEND_TIME
        } else {
            records::TRANSACTIONAL
        },
        max_timestamp: append_time.then_some(APPENDED),
        last_offset_delta: last,
        ..BatchSpec::default()
    };
    Batch::parse(spec.build_at(records).unwrap()).unwrap()
}

fn dense(records: &[KitRecord]) -> Vec<KitRecord> {
    let numbered = (1_000..).zip(records.iter().cloned());
    numbered
        .map(|(offset, record)| KitRecord { offset, ..record })
        .collect()
}

fn read(batch: &Batch) -> Vec<KitRecord> {
    records::check_crc(&batch.bytes).unwrap();
    records::decode(&batch.bytes).unwrap()
}

/// What every batch that is made here has in its header.
fn check_header(batch: &Batch, codec: codec::Codec) {
    assert_eq!(Batch::parse(batch.bytes.clone()), Ok(batch.clone()));
    let h = &batch.header;
    assert_eq!((h.attributes, h.leader_epoch), (Attributes(codec.id()), 4));
    assert_eq!(
        (h.producer_id, h.producer_epoch, h.base_sequence),
        (-1, -1, -1)
    );
    let records = read(batch);
    assert!(h.is_dense());
    assert_eq!(h.base_offset, records[0].offset);
    assert_eq!(h.base_timestamp, records[0].timestamp);
    assert_eq!(
        Some(h.max_timestamp),
        records.iter().map(|r| r.timestamp).max()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_hold_the_records_and_keep_to_the_limit(
        records in prop::collection::vec(record(), 1..60), codec in codec(), append_time: bool, limit in 1usize..9000,
    ) {
        let source = batch(&dense(&records), codec, append_time, None);
        let pieces = split(&source, limit, MIB).unwrap();
        let all: Vec<KitRecord> = pieces.iter().flat_map(read).collect();
        prop_assert_eq!(all, read(&source));
        if source.bytes.len() <= limit && !append_time {
            prop_assert_eq!(&pieces[..], &[source][..], "untouched");
            return Ok(());
        }
        for piece in &pieces {
            check_header(piece, codec);
            prop_assert!(piece.bytes.len() <= limit || piece.header.count == 1);
        }
        if codec == codec::Codec::None {
            for pair in pieces.windows(2) {
                let next = read(&pair[1]).remove(0);
                let one = BatchSpec { base_timestamp: Some(pair[0].header.base_timestamp), ..BatchSpec::default() };
                let more = one.encode(&[(pair[0].header.count, &next)]).unwrap().len() - HEADER_LEN;
                prop_assert!(pair[0].bytes.len() + more > limit, "no piece is smaller than it must be");
            }
        }
    }
}

#[test]
fn a_record_that_is_too_large_alone_stands_alone() {
    // What no codec makes smaller: a xorshift generator's output.
    let mut state = 88_172_645_463_325_252u64;
    let mut big = |n: usize| -> Vec<u8> {
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..n).map(step).collect()
    };
    let sizes = [10, 5_000, 10, 10, 5_000, 5_000, 10];
    let records: Vec<KitRecord> = sizes.map(|n| KitRecord::new(1, None, Some(&big(n)))).into();
    for codec in codec::ALL {
        let pieces = split(&batch(&dense(&records), codec, false, None), 1_000, MIB).unwrap();
        let shape: Vec<(i64, i32, bool)> = pieces
            .iter()
            .map(|piece| {
                (
                    piece.header.base_offset,
                    piece.header.count,
                    piece.bytes.len() > 1_000,
                )
            })
            .collect();
        for (index, size) in (1_000..).zip(sizes) {
            let alone = shape.contains(&(index, 1, true));
            assert_eq!(alone, size == 5_000, "{codec:?} {index}: {shape:?}");
        }
        assert_eq!(
            pieces.iter().map(|piece| piece.header.count).sum::<i32>(),
            7
        );
    }
}

#[test]
fn few_pieces_are_made_of_a_batch_that_compresses_well() {
    let records: Vec<KitRecord> = (0..4_000)
        .map(|i| {
            KitRecord::new(
                1,
                None,
                Some(
                    format!("{{\"id\":{i},\"name\":\"customer {}\"}}", i * 7919 % 4_001).as_bytes(),
                ),
            )
        })
        .collect();
    for codec in &codec::ALL[1..] {
        let source = batch(&dense(&records), *codec, false, None);
        let least = source.bytes.len().div_ceil(20_000);
        let pieces = split(&source, 20_000, MIB).unwrap();
        assert!(
            pieces.len() <= least + 1 + least / 4,
            "{codec:?}: {} pieces, {least} at least",
            pieces.len()
        );
    }
}

#[test]
fn what_cannot_be_split_is_refused() {
    let records = dense(&[
        KitRecord::new(1, None, Some(b"v")),
        KitRecord::new(2, None, Some(b"w")),
    ]);
    let good = batch(&records, codec::Codec::Gzip, false, None);
    let mut raw = good.bytes.to_vec();
    raw[70] ^= 1;
    let damaged = Batch::parse(Bytes::from(raw)).unwrap();
    assert!(matches!(
        split(&damaged, 1, MIB),
        Err(WireError::Crc { .. })
    ));
    assert!(
        matches!(split(&damaged, MIB, MIB), Err(WireError::Crc { .. })),
        "also when nothing has to be done"
    );
    assert!(matches!(
        split(&good, 1, 5),
        Err(WireError::TooLarge { .. })
    ));
    let holes = batch(&records, codec::Codec::None, false, Some(2));
    assert!(matches!(
        split(&holes, 1, MIB),
        Err(WireError::Encode { .. })
    ));
}
