//! Joined batches, read by the test kit's own codec.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use strait_testkit::KitRecord;
use strait_testkit::codec;
use strait_testkit::records::{self, BatchSpec};
use strait_wire::{
    Attributes, Batch, BatchHeader, Codec, WireError, join, join_compressed, joinable,
    joinable_compressed, joined_bound,
};

const MIB: usize = 1 << 20;

/// What a producer has in front of its records: another base timestamp than theirs, a codec, a transaction.
fn spec(base_offset: i64, leader_epoch: i32) -> BatchSpec {
    BatchSpec {
        base_offset,
        leader_epoch,
        producer_id: 77,
        producer_epoch: 3,
        base_sequence: 5,
        flags: records::TRANSACTIONAL,
        ..BatchSpec::default()
    }
}

fn batch(base_offset: i64, leader_epoch: i32, records: &[KitRecord]) -> Batch {
    Batch::parse(spec(base_offset, leader_epoch).build(records).unwrap()).unwrap()
}

/// Batches in the order of their offsets from 1,000 on, each with a leader epoch of its own.
fn chain(parts: &[(Option<i64>, Vec<KitRecord>)], codec: codec::Codec) -> Vec<Batch> {
    let mut base = 1_000;
    let mut batches = Vec::new();
    for (epoch, (base_timestamp, records)) in (0..).zip(parts) {
        let spec = BatchSpec {
            base_timestamp: *base_timestamp,
            codec,
            ..spec(base, epoch)
        };
        batches.push(Batch::parse(spec.build(records).unwrap()).unwrap());
        base += records.len() as i64;
    }
    batches
}

/// What the kit's own codec makes of all the records in one batch.
fn expected(batches: &[Batch], codec: codec::Codec) -> Bytes {
    let records: Vec<KitRecord> = batches
        .iter()
        .flat_map(|batch| records::decode(&batch.bytes).unwrap())
        .collect();
    let max = batches.iter().map(|batch| batch.header.max_timestamp).max();
    BatchSpec {
        base_offset: 1_000,
        leader_epoch: batches.len() as i32 - 1,
        base_timestamp: Some(batches[0].header.base_timestamp),
        max_timestamp: max,
        codec,
        ..BatchSpec::default()
    }
    .build(&records)
    .unwrap()
}

fn joined(batches: &[Batch]) -> Result<Batch, WireError> {
    let all: Vec<&Batch> = batches.iter().collect();
    let mut out = BytesMut::with_capacity(joined_bound(&all));
    let room = (out.capacity(), out.as_ptr());
    let header = join(&all, &mut out)?;
    assert_eq!((out.capacity(), out.as_ptr()), room, "the bound holds");
    let batch = Batch::parse(out.freeze())?;
    assert_eq!(batch.header, header);
    Ok(batch)
}

fn refused(batches: &[Batch], why: &str) {
    let error = joined(batches).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
}

fn bytes(most: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..most))
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        -1..2i64,
        1_700_000_000_000..1_700_000_100_000i64,
        Just(i64::MAX),
        Just(i64::MIN),
        any::<i64>()
    ]
}

fn record() -> impl Strategy<Value = KitRecord> {
    let headers = prop::collection::vec(("[a-z]{0,3}", bytes(20)), 0..3);
    (timestamp(), bytes(80), bytes(300), headers).prop_map(|(timestamp, key, value, headers)| {
        let record = KitRecord::new(timestamp, key.as_deref(), value.as_deref());
        headers.iter().fold(record, |record, (key, value)| {
            record.header(key, value.as_deref())
        })
    })
}

/// Batches whose base timestamp is the first record's, or any.
fn parts(
    records: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<(Option<i64>, Vec<KitRecord>)>> {
    let part = (
        prop::option::of(timestamp()),
        prop::collection::vec(record(), records),
    );
    prop::collection::vec(part, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_joined_batch_is_what_one_batch_of_all_records_would_be(parts in parts(1..80)) {
        let batches = chain(&parts, codec::Codec::None);
        let one = joined(&batches).unwrap();
        prop_assert_eq!(&one.bytes, &expected(&batches, codec::Codec::None));
        let read: Vec<_> = batches.iter().flat_map(|batch| batch.decode(MIB).unwrap()).collect();
        prop_assert_eq!(one.decode(MIB).unwrap(), read);
    }

    #[test]
    fn compressed_batches_are_joined_with_their_codec(parts in parts(1..20), codec in 1i16..5) {
        let kits = codec::Codec::from_id(codec).unwrap();
        let batches = chain(&parts, kits);
        let all: Vec<&Batch> = batches.iter().collect();
        prop_assert!(all.iter().all(|batch| joinable_compressed(&batch.header)));
        let one = join_compressed(&all, MIB).unwrap();
        prop_assert_eq!(Batch::parse(one.bytes.clone()), Ok(one.clone()));
        let (ours, theirs) = (one.header, Batch::parse(expected(&batches, kits)).unwrap().header);
        // Compressors differ in their bytes, so only these fields can.
        prop_assert_eq!(ours, BatchHeader { length: ours.length, crc: ours.crc, ..theirs });
        let read: Vec<_> = batches.iter().flat_map(|batch| records::decode(&batch.bytes).unwrap()).collect();
        prop_assert_eq!(records::decode(&one.bytes).unwrap(), read);

        let plain: usize = batches.iter().map(|batch| kits.decompress(&batch.records()).unwrap().len()).sum();
        prop_assert!(join_compressed(&all, plain).is_ok());
        let refused = join_compressed(&all, plain - 1);
        prop_assert!(matches!(&refused, Err(WireError::TooLarge { limit, .. }) if *limit == plain - 1), "{:?}", refused);
    }

    #[test]
    fn damage_is_refused_and_never_copied(
        parts in parts(1..20), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let mut batches = chain(&parts, codec::Codec::None);
        let victim = which.index(batches.len());
        let mut raw = batches[victim].bytes.to_vec();
        let at = 61 + at.index(raw.len() - 61);
        raw[at] ^= flip;
        batches[victim] = Batch::parse(Bytes::from(raw)).unwrap();
        let refused = joined(&batches);
        prop_assert!(matches!(&refused, Err(WireError::Crc { .. })), "{:?}", refused);
    }

    /// With a right checksum the records may be anything: then they are joined if and only if they can be decoded.
    #[test]
    fn what_cannot_be_decoded_is_not_joined(
        parts in parts(1..6), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        with in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..4, Just(0x7f), Just(0x80), Just(0xff)], 1..12),
    ) {
        let mut batches = chain(&parts, codec::Codec::None);
        let victim = which.index(batches.len());
        let mut raw = batches[victim].bytes.to_vec();
        let at = 61 + at.index(raw.len() - 61);
        for (byte, with) in raw[at..].iter_mut().zip(with) {
            *byte = with;
        }
        records::fix_crc(&mut raw);
        batches[victim] = Batch::parse(Bytes::from(raw)).unwrap();
        let read: Result<Vec<_>, _> = batches.iter().map(|batch| batch.decode(MIB)).collect();
        match (read, joined(&batches)) {
            (Ok(read), Ok(one)) => prop_assert_eq!(one.decode(MIB).unwrap(), read.concat()),
            (read, one) => prop_assert!(read.is_err() && one.is_err(), "{:?} {:?}", read, one),
        }
    }
}

#[test]
fn lengths_that_lead_out_of_a_record_are_refused() {
    let whole = batch(0, 0, &[KitRecord::new(1, Some(b"k"), Some(b"value"))]);
    // The record: length 12, attributes, timestamp delta, offset delta, 1 and k, 5 and value, no headers.
    assert_eq!(&whole.bytes[61..], b"\x18\0\0\0\x02k\x0avalue\0");
    let lies = [
        (61, 0x7f, "varint of a negative length"),
        (61, 0x1a, "one byte beyond the batch"),
        (61, 0x16, "one byte less than it has"),
        (61, 0x00, "nothing"),
        (64, 0x02, "another offset"),
        (65, 0x04, "a key that begins with the value's length"),
        (67, 0x0c, "a value that swallows the headers"),
        (67, 0x7e, "a value beyond the record"),
        (73, 0x02, "a header that is not there"),
        (73, 0x01, "minus one header"),
    ];
    for (at, value, what) in lies {
        let mut raw = whole.bytes.to_vec();
        raw[at] = value;
        records::fix_crc(&mut raw);
        let bad = Batch::parse(Bytes::from(raw)).unwrap();
        let mut bad = [whole.clone(), bad];
        bad[1].header.base_offset = 1;
        let mut out = BytesMut::from(&b"before"[..]);
        assert!(join(&[&bad[0], &bad[1]], &mut out).is_err(), "{what}");
        assert_eq!(&out[..], b"before", "a failure leaves nothing behind");
    }
}

#[test]
fn only_plain_dense_data_is_joined() {
    let plain = batch(0, 0, &[KitRecord::new(1, None, Some(b"v"))]);
    assert!(joinable(&plain.header));
    let changes: [fn(&mut BatchHeader); 7] = [
        |h| h.attributes.0 |= Codec::Gzip.id(),
        |h| h.attributes.0 |= 7,
        |h| h.attributes.0 |= 0x08,
        |h| h.attributes.0 |= 0x20,
        |h| h.attributes.0 |= 0x80,
        |h| (h.count, h.last_offset_delta) = (0, -1),
        |h| h.last_offset_delta += 1,
    ];
    for change in changes {
        let mut other = plain.clone();
        change(&mut other.header);
        assert!(!joinable(&other.header), "{:?}", other.header);
        refused(&[other], "not of the kind");
    }
    refused(&[], "nothing to join");
    refused(&[plain.clone(), plain.clone()], "does not follow");
    assert!(!joinable_compressed(&plain.header));
    assert!(join_compressed(&[&plain], MIB).is_err());
    let packed = |codec| {
        let mut header = plain.header;
        header.attributes = Attributes(codec);
        joinable_compressed(&header)
    };
    assert_eq!(
        (0..8).filter(|&codec| packed(codec)).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
}

#[test]
fn a_delete_horizon_and_a_transaction_do_not_hinder() {
    let records = [KitRecord::new(5, Some(b"k"), None)];
    let horizon = BatchSpec {
        flags: records::DELETE_HORIZON | records::TRANSACTIONAL,
        base_timestamp: Some(9_000_000),
        ..spec(1, 4)
    };
    let horizon = Batch::parse(horizon.build(&records).unwrap()).unwrap();
    let one = joined(&[batch(0, 3, &records), horizon]).unwrap();
    assert_eq!(one.header.attributes, Attributes(0));
    let times: Vec<i64> = records::decode(&one.bytes)
        .unwrap()
        .iter()
        .map(|r| r.timestamp)
        .collect();
    assert_eq!(times, [5, 5]);
}

#[test]
fn codecs_are_not_mixed() {
    let records = [KitRecord::new(5, Some(b"k"), None)];
    let packed = |base_offset, codec| {
        let spec = BatchSpec {
            codec,
            ..spec(base_offset, 0)
        };
        Batch::parse(spec.build(&records).unwrap()).unwrap()
    };
    let (first, second) = (packed(0, codec::Codec::Lz4), packed(1, codec::Codec::Zstd));
    let error = join_compressed(&[&first, &second], MIB).unwrap_err();
    assert!(error.to_string().contains("codecs"), "{error}");
}

#[test]
fn a_count_that_lies_makes_no_large_buffer() {
    let mut lying = batch(0, 0, &[KitRecord::new(5, Some(b"k"), None)]);
    (lying.header.count, lying.header.last_offset_delta) = (i32::MAX, i32::MAX - 1);
    assert!(joinable(&lying.header));
    assert!(joined_bound(&[&lying]) < 4 * lying.bytes.len());
    assert!(joined(&[lying]).is_err());
}
