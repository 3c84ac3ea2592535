//! Joined batches, read by the test kit's own codec.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use strait_testkit::KitRecord;
use strait_testkit::records::{self, BatchSpec};
use strait_wire::{Batch, WireError, join, joinable, joined_bound};

fn batch(base_offset: i64, leader_epoch: i32, records: &[KitRecord]) -> Batch {
    let spec = BatchSpec {
        base_offset,
        leader_epoch,
        producer_id: 77,
        producer_epoch: 3,
        base_sequence: 5,
        ..BatchSpec::default()
    };
    Batch::parse(spec.build(records).unwrap()).unwrap()
}

fn joined(batches: &[Batch]) -> Result<Batch, WireError> {
    let all: Vec<&Batch> = batches.iter().collect();
    let mut out = BytesMut::with_capacity(joined_bound(&all));
    let room = out.capacity();
    let header = join(&all, &mut out)?;
    assert_eq!(out.capacity(), room, "the bound holds");
    let batch = Batch::parse(out.freeze())?;
    assert_eq!(batch.header, header);
    Ok(batch)
}

/// Records as a consumer sees them, without their offsets.
fn contents(bytes: &[u8]) -> Vec<KitRecord> {
    let mut all = records::decode(bytes).unwrap();
    for record in &mut all {
        record.offset = 0;
    }
    all
}

fn bytes(most: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..most))
}

fn record() -> impl Strategy<Value = KitRecord> {
    let timestamp = prop_oneof![
        -1..2i64,
        1_700_000_000_000..1_700_000_100_000i64,
        Just(i64::MAX),
        Just(i64::MIN),
        any::<i64>()
    ];
    let headers = prop::collection::vec(("[a-z]{0,3}", bytes(20)), 0..3);
    (timestamp, bytes(40), bytes(300), headers).prop_map(|(timestamp, key, value, headers)| {
        let record = KitRecord::new(timestamp, key.as_deref(), value.as_deref());
        headers.iter().fold(record, |record, (key, value)| {
            record.header(key, value.as_deref())
        })
    })
}

proptest! {
    #[test]
    fn a_joined_batch_holds_the_records_of_all(
        parts in prop::collection::vec(prop::collection::vec(record(), 1..80), 1..6)
    ) {
        let mut base = 1_000;
        let mut batches = Vec::new();
        for (index, records) in parts.iter().enumerate() {
            batches.push(batch(base, index as i32, records));
            base += records.len() as i64;
        }
        let one = joined(&batches).unwrap();
        records::check_crc(&one.bytes).unwrap();
        let expected: Vec<KitRecord> = batches.iter().flat_map(|b| contents(&b.bytes)).collect();
        prop_assert_eq!(contents(&one.bytes), expected);
        let offsets: Vec<i64> = records::decode(&one.bytes).unwrap().iter().map(|r| r.offset).collect();
        prop_assert_eq!(offsets, (1_000..base).collect::<Vec<i64>>());
        prop_assert_eq!(one.header.leader_epoch, parts.len() as i32 - 1);
        prop_assert_eq!((one.header.producer_id, one.header.producer_epoch, one.header.base_sequence), (-1, -1, -1));
        let latest = batches.iter().map(|b| b.header.max_timestamp).max().unwrap();
        prop_assert_eq!(one.header.max_timestamp, latest);
    }

    #[test]
    fn damage_is_refused_and_never_copied(
        parts in prop::collection::vec(prop::collection::vec(record(), 1..20), 2..4),
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1u8..,
        mended in any::<bool>(),
    ) {
        let mut batches: Vec<Batch> = parts.iter().map(|records| batch(0, 0, records)).collect();
        let index = which.index(batches.len());
        let victim = &mut batches[index];
        let mut raw = victim.bytes.to_vec();
        // Behind the header: with a right checksum the records themselves may be anything.
        let at = 61 + at.index(raw.len() - 61);
        raw[at] ^= flip;
        if mended {
            records::fix_crc(&mut raw);
        }
        *victim = Batch::parse(Bytes::from(raw)).unwrap();
        match joined(&batches) {
            Err(error) => prop_assert!(mended || matches!(error, WireError::Crc { .. }), "{}", error),
            Ok(one) => {
                prop_assert!(mended, "damage got a new checksum");
                records::check_crc(&one.bytes).unwrap();
            }
        }
    }
}

#[test]
fn lengths_that_lead_out_of_the_batch_are_refused() {
    let whole = batch(0, 0, &[KitRecord::new(1, Some(b"k"), Some(b"value"))]);
    for (at, value) in [(61, 0x7f), (61, 0x01), (61, 0x00), (64, 0x02), (62, 0xff)] {
        let mut raw = whole.bytes.to_vec();
        raw[at] = value;
        records::fix_crc(&mut raw);
        let Ok(bad) = Batch::parse(Bytes::from(raw)) else {
            continue;
        };
        let mut out = BytesMut::from(&b"before"[..]);
        // An attribute byte means nothing; everything else here does.
        let result = join(&[&whole, &bad], &mut out);
        assert!(result.is_err() || at == 62, "byte {at} = {value:#x}");
        if result.is_err() {
            assert_eq!(&out[..], b"before", "a failure leaves nothing behind");
        }
    }
}

#[test]
fn only_plain_dense_data_is_joined() {
    let plain = batch(0, 0, &[KitRecord::new(1, None, Some(b"v"))]);
    assert!(joinable(&plain.header));
    let changes: [fn(&mut strait_wire::BatchHeader); 5] = [
        |h| h.attributes.0 |= 1,
        |h| h.attributes.0 |= 0x08,
        |h| h.attributes.0 |= 0x20,
        |h| h.count = 0,
        |h| h.last_offset_delta += 1,
    ];
    for change in changes {
        let mut other = plain.clone();
        change(&mut other.header);
        assert!(!joinable(&other.header), "{:?}", other.header);
        assert!(joined(&[plain.clone(), other]).is_err());
    }
    assert!(joined(&[]).is_err());
}
