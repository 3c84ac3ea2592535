//! Bytes from a broken or hostile sender: an error or a value, never a panic, never memory beyond the limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use strait_wire::{
    AbortedTxn, Batch, BatchBuilder, BatchHeader, Codec, Entries, Entry, Isolation, Judge, Record,
    Stamp, needs_repack, repack, restamp,
};

const LIMIT: usize = 1 << 20;

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn record() -> impl Strategy<Value = Record> {
    let headers = vec((bytes(8), option::of(bytes(8))), 0..4);
    (
        any::<i64>(),
        option::of(bytes(40)),
        option::of(bytes(200)),
        headers,
    )
        .prop_map(|(timestamp, key, value, headers)| Record {
            offset: 0,
            timestamp,
            key,
            value,
            headers,
        })
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![
        Just(Codec::None),
        Just(Codec::Gzip),
        Just(Codec::Snappy),
        Just(Codec::Lz4),
        Just(Codec::Zstd)
    ]
}

fn build(codec: Codec, records: &[Record]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for record in records {
        builder.push(record.clone());
    }
    builder
        .build(Stamp {
            producer_id: 1,
            producer_epoch: 2,
            base_sequence: 3,
        })
        .unwrap()
}

/// With a right checksum, so that what is behind it is reached.
fn repaired(batch: &Batch) -> Batch {
    let mut bytes = BytesMut::from(&batch.bytes[..]);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Batch::parse(bytes.freeze()).unwrap()
}

/// Does everything with `blob` that the product does with a Fetch response's records.
fn chew(blob: Bytes) {
    let aborted = [AbortedTxn {
        producer_id: 1,
        first_offset: 0,
    }];
    let mut judge = Judge::new(&aborted, Isolation::ReadCommitted);
    let mut next = 0;
    let mut seen = 0;
    for entry in Entries::new(blob.clone()) {
        let Ok(entry) = entry else { continue };
        assert!(
            entry.next_offset() > next || next == 0,
            "offsets go forwards"
        );
        next = entry.next_offset();
        let Entry::Batch(batch) = entry else { continue };
        seen += batch.bytes.len();
        assert_eq!(BatchHeader::parse(&batch.header.encode()), Ok(batch.header));
        let _ = judge.judge(&batch.header, &batch);
        let _ = needs_repack(&batch.header);
        let source_ok = batch.verify_crc().is_ok();
        let [header, records] = restamp(&batch, Stamp::NONE);
        let sent = crc32c::crc32c_append(crc32c::crc32c(&header[21..]), &records);
        assert_eq!(
            source_ok,
            header[17..21] == sent.to_be_bytes(),
            "a checksum stays as right or wrong as it was"
        );
        for batch in [repaired(&batch), batch] {
            let _ = batch.control_type();
            let _ = batch.decode(LIMIT);
            if let Ok(packed) = repack(&batch, next - 1, LIMIT) {
                assert!(packed.header.count <= batch.header.count);
            }
        }
    }
    assert!(seen <= blob.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(blob in vec(any::<u8>(), 0..400)) {
        chew(blob.into());
    }

    #[test]
    fn any_records_behind_a_plausible_header(
        attributes in 0u8..0x80, delta in 0i32..6, count in 0i32..7, records in vec(any::<u8>(), 0..300)
    ) {
        let header = BatchHeader { length: 49 + records.len() as i32, last_offset_delta: delta, count, ..template() };
        let mut blob = BytesMut::from(&header.encode()[..]);
        blob[22] = attributes;
        blob.extend_from_slice(&records);
        chew(blob.freeze());
    }

    #[test]
    fn flips_and_cuts(
        codec in codec(), records in vec(record(), 1..6),
        flips in vec((any::<prop::sample::Index>(), 0u8..8), 1..4), end in option::of(any::<prop::sample::Index>())
    ) {
        let mut blob = BytesMut::from(&build(codec, &records)[..]);
        for (at, bit) in flips {
            let at = at.index(blob.len());
            blob[at] ^= 1 << bit;
        }
        if let Some(end) = end {
            blob.truncate(end.index(blob.len()));
        }
        chew(blob.freeze());
    }

    #[test]
    fn damaged_compressed_data(
        codec in codec(), value in vec(0u8..3, 1..5000), at in any::<prop::sample::Index>(), with in any::<[u8; 4]>()
    ) {
        let record = Record { offset: 0, timestamp: 0, key: None, value: Some(value.into()), headers: vec![] };
        let mut blob = BytesMut::from(&build(codec, &[record])[..]);
        let at = 61 + at.index(blob.len() - 61);
        for (byte, with) in blob[at..].iter_mut().zip(with) {
            *byte = with;
        }
        chew(blob.freeze());
    }

    #[test]
    fn built_records_come_back(codec in codec(), records in vec(record(), 1..20)) {
        let batch = Batch::parse(build(codec, &records)).unwrap();
        let read = batch.decode(LIMIT).unwrap();
        prop_assert_eq!(read.len(), records.len());
        for (offset, (read, record)) in read.into_iter().zip(records).enumerate() {
            prop_assert_eq!(read.hash(), record.hash());
            prop_assert_eq!(read, Record { offset: offset as i64, ..record });
        }
    }
}

/// Two bytes of a header become some 60 when they are decoded, so the limit counts those.
#[test]
fn headers_that_would_take_many_times_their_bytes_are_refused() {
    let empty = (Bytes::new(), None);
    for (count, codec) in [(LIMIT / 4, Codec::None), (LIMIT / 4, Codec::Gzip)] {
        let record = Record {
            offset: 0,
            timestamp: 0,
            key: None,
            value: None,
            headers: vec![empty.clone(); count],
        };
        let batch = Batch::parse(build(codec, &[record])).unwrap();
        assert!(batch.bytes.len() < LIMIT);
        assert!(matches!(
            batch.decode(LIMIT),
            Err(strait_wire::WireError::TooLarge { limit: LIMIT, .. })
        ));
        assert_eq!(batch.decode(40 * LIMIT).unwrap()[0].headers.len(), count);
    }
}

fn template() -> BatchHeader {
    let record = Record {
        offset: 0,
        timestamp: 1,
        key: None,
        value: None,
        headers: vec![],
    };
    BatchHeader::parse(&build(Codec::None, &[record])).unwrap()
}
