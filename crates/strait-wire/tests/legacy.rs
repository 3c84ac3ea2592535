//! Message formats v0 and v1: sets that Kafka's own classes made (see `golden/Legacy.java`), and forged ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use strait_testkit::{codec, records};
use strait_wire::{
    Attributes, Batch, Codec, Entries, Entry, Record, Upgraded, WireError, legacy_records, upgrade,
};

const MIB: usize = 1 << 20;
const TIME: i64 = 1_700_000_001_000;
const APPENDED: i64 = 1_700_000_009_999;

macro_rules! golden {
    ($name:literal) => {
        Bytes::from_static(include_bytes!(concat!("golden/legacy/", $name, ".bin")))
    };
}

fn upgraded(set: &Bytes, from: i64) -> Vec<Upgraded> {
    let entries = Entries::new(set.clone()).map(|entry| match entry.unwrap() {
        Entry::Legacy {
            magic,
            offset,
            bytes,
        } => {
            let upgraded = upgrade(magic, &bytes, from, MIB).unwrap();
            assert_eq!(upgraded.last, offset);
            let read = legacy_records(magic, &bytes, MIB).unwrap();
            let kept = read.iter().filter(|record| record.offset >= from).count();
            assert_eq!(upgraded.batch.header.count as usize, kept);
            upgraded
        }
        Entry::Batch(_) => panic!("not of an old format"),
    });
    entries.collect()
}

/// Offset, timestamp, key and value of all records of a batch, by the test kit's codec.
type Seen = (i64, i64, Option<Bytes>, Option<Bytes>);

fn seen(batch: &Batch) -> Vec<Seen> {
    records::check_crc(&batch.bytes).unwrap();
    let all = records::decode(&batch.bytes).unwrap().into_iter();
    all.map(|r| {
        assert!(r.headers.is_empty());
        (r.offset, r.timestamp, r.key, r.value)
    })
    .collect()
}

/// The records of `Legacy.java`.
fn expected(times: [i64; 3], big: usize) -> Vec<Seen> {
    let s = |s: &'static str| Some(Bytes::from_static(s.as_bytes()));
    let value: Vec<u8> = (0..big).map(|i| (i * 7 + i / 256) as u8).collect();
    vec![
        (1234, times[0], s("k1"), s("v1")),
        (1235, times[1], None, Some(value.into())),
        (1236, times[2], s("k3"), None),
    ]
}

fn check_header(batch: &Batch, codec: Codec) {
    assert_eq!(Batch::parse(batch.bytes.clone()), Ok(batch.clone()));
    let h = batch.header;
    assert_eq!((h.attributes, h.leader_epoch), (Attributes(codec.id()), -1));
    assert_eq!(
        (h.producer_id, h.producer_epoch, h.base_sequence),
        (-1, -1, -1)
    );
    assert!(h.is_dense());
    assert_eq!(Some(h.max_timestamp), seen(batch).iter().map(|r| r.1).max());
}

#[test]
fn kafkas_compressed_sets_become_batches() {
    let sets = [
        (Codec::Gzip, golden!("v0_gzip"), golden!("v1_gzip")),
        (Codec::Snappy, golden!("v0_snappy"), golden!("v1_snappy")),
        (Codec::Lz4, golden!("v0_lz4"), golden!("v1_lz4")),
    ];
    for (codec, v0, v1) in sets {
        for (set, times) in [(v0, [-1; 3]), (v1, [TIME, TIME + 5, TIME - 100])] {
            let [one] = &upgraded(&set, 0)[..] else {
                panic!("one set")
            };
            check_header(&one.batch, codec);
            assert_eq!((one.first, one.last), (1234, 1236));
            assert_eq!(seen(&one.batch), expected(times, 40_000), "{codec:?}");

            let tail = &upgraded(&set, 1235)[0];
            assert_eq!(
                (tail.first, tail.last, tail.batch.header.base_offset),
                (1235, 1236, 1235)
            );
            assert_eq!(seen(&tail.batch), expected(times, 40_000)[1..]);
            let nothing = &upgraded(&set, 1237)[0];
            assert_eq!((nothing.batch.header.count, nothing.last), (0, 1236));
        }
    }
}

#[test]
fn kafkas_plain_messages_become_batches() {
    let sets = [
        (golden!("v0_none"), [-1; 3]),
        (golden!("v1_none"), [TIME, TIME + 5, TIME - 100]),
        (golden!("v1_append_time_none"), [APPENDED; 3]),
    ];
    for (set, times) in sets {
        let all = upgraded(&set, 0);
        let places: Vec<(i64, i64)> = all.iter().map(|one| (one.first, one.last)).collect();
        assert_eq!(places, [(1234, 1234), (1235, 1235), (1236, 1236)]);
        for (one, expected) in all.iter().zip(expected(times, 10)) {
            check_header(&one.batch, Codec::None);
            assert_eq!(seen(&one.batch), [expected]);
        }
    }
}

#[test]
fn an_append_time_is_that_of_the_whole_set() {
    let one = &upgraded(&golden!("v1_append_time"), 0)[0];
    check_header(&one.batch, Codec::Gzip);
    assert_eq!(seen(&one.batch), expected([APPENDED; 3], 10));
}

#[test]
fn holes_of_old_cleanings_are_closed_and_their_offsets_known() {
    for set in [golden!("v0_holes"), golden!("v1_holes")] {
        let one = &upgraded(&set, 0)[0];
        assert_eq!(
            (one.first, one.last, one.batch.header.count),
            (1234, 1236, 2)
        );
        check_header(&one.batch, Codec::Gzip);
        let Entry::Legacy { magic, bytes, .. } = Entries::new(set.clone()).next().unwrap().unwrap()
        else {
            panic!()
        };
        let offsets: Vec<i64> = legacy_records(magic, &bytes, MIB)
            .unwrap()
            .iter()
            .map(|r| r.offset)
            .collect();
        assert_eq!(offsets, [1234, 1236]);
        let from_the_hole = &upgraded(&set, 1235)[0];
        assert_eq!(
            (from_the_hole.first, from_the_hole.batch.header.base_offset),
            (1235, 1236)
        );
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A message with whatever one likes in it.
fn message(
    magic: i8,
    offset: i64,
    attributes: i8,
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Vec<u8> {
    let mut body = vec![magic as u8, attributes as u8];
    if magic > 0 {
        body.extend_from_slice(&timestamp.to_be_bytes());
    }
    for part in [key, value] {
        body.extend_from_slice(&part.map_or(-1, |p| p.len() as i32).to_be_bytes());
        body.extend_from_slice(part.unwrap_or_default());
    }
    let mut out = offset.to_be_bytes().to_vec();
    out.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
    out.extend_from_slice(&crc32(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

fn wrapper(magic: i8, offset: i64, flags: i8, inner: &[Vec<u8>]) -> Bytes {
    let packed = codec::Codec::Gzip.compress(&inner.concat()).unwrap();
    message(magic, offset, 1 | flags, 77, None, Some(&packed)).into()
}

fn offsets(magic: i8, set: &Bytes) -> Result<Vec<i64>, WireError> {
    Ok(legacy_records(magic, set, MIB)?
        .iter()
        .map(|r| r.offset)
        .collect())
}

fn plain(magic: i8, offset: i64) -> Vec<u8> {
    message(magic, offset, 0, 5, Some(b"k"), Some(b"v"))
}

#[test]
fn offsets_inside_are_relative_in_v1_and_absolute_in_v0() {
    let inner = |magic| [plain(magic, 0), plain(magic, 2), plain(magic, 3)];
    assert_eq!(
        offsets(1, &wrapper(1, 103, 0, &inner(1))),
        Ok(vec![100, 102, 103])
    );
    assert_eq!(offsets(0, &wrapper(0, 3, 0, &inner(0))), Ok(vec![0, 2, 3]));
    // v1 wrappers with v0 messages and the other way round are read as Kafka's consumer reads them.
    assert_eq!(
        offsets(1, &wrapper(1, 103, 0, &inner(0))),
        Ok(vec![100, 102, 103])
    );
    let times = |magic, set: Bytes| legacy_records(magic, &set, MIB).unwrap()[0].timestamp;
    assert_eq!(times(1, wrapper(1, 103, 8, &inner(1))), 77, "append time");
    assert_eq!(times(1, wrapper(1, 103, 8, &inner(0))), -1);
    assert_eq!(times(0, wrapper(0, 103, 8, &inner(1))), 5);
}

#[test]
fn sets_that_cannot_be_are_refused() {
    let value = |magic, set: Bytes| {
        let refused = offsets(magic, &set);
        assert!(
            matches!(
                refused,
                Err(WireError::BadValue { .. } | WireError::BadCount { .. })
            ),
            "{refused:?}"
        );
    };
    value(1, wrapper(1, 2, 0, &[plain(1, 3)])); // would begin below 0
    value(0, wrapper(0, 2, 0, &[plain(0, 3)])); // ends behind its wrapper
    value(1, wrapper(1, 9, 0, &[plain(1, 1), plain(1, 1)]));
    value(1, wrapper(1, 9, 0, &[plain(1, 2), plain(1, 1)]));
    value(1, wrapper(1, 9, 0, &[plain(1, -1), plain(1, 1)]));
    value(1, wrapper(1, 9, 0, &[]));
    value(1, wrapper(1, 9, 0, &[plain(2, 0)])); // a format that has no such messages
    value(
        1,
        wrapper(1, 9, 0, &[wrapper(1, 0, 0, &[plain(1, 0)]).to_vec()]),
    ); // a set inside of a set
    value(1, message(1, 9, 1, 0, None, None).into());
    value(1, message(1, 9, 4, 0, None, Some(b"zstd")).into());
    value(1, message(1, 9, 7, 0, None, Some(b"no codec")).into());
    value(0, plain(1, 9).into()); // not the magic it was said to have
    value(1, plain(1, -1).into());
    value(1, plain(1, i64::MAX).into());
    let gone = wrapper(1, 9, 0, &[plain(1, 0), plain(1, 1)[..20].to_vec()]);
    assert_eq!(
        offsets(1, &gone),
        Ok(vec![9]),
        "a message that is cut off is not seen"
    );
}

#[test]
fn checksums_are_verified_outside_and_inside() {
    let set = golden!("v1_gzip");
    for at in 12..set.len() {
        let mut damaged = BytesMut::from(&set[..]);
        damaged[at] ^= 0x10;
        let refused = upgrade(1, &damaged.freeze(), 0, MIB);
        assert!(
            matches!(refused, Err(WireError::Crc { offset: 1236, .. })),
            "{at}: {refused:?}"
        );
    }
    let mut inner = plain(1, 0);
    *inner.last_mut().unwrap() ^= 1;
    assert!(matches!(
        offsets(1, &wrapper(1, 9, 0, &[inner])),
        Err(WireError::Crc { .. })
    ));
}

#[test]
fn a_set_inflates_to_its_limit_at_the_most() {
    let bomb = wrapper(1, 9, 0, &[message(1, 0, 0, 0, None, Some(&vec![0; MIB]))]);
    assert!(bomb.len() < 2_000);
    assert_eq!(
        legacy_records(1, &bomb, MIB),
        Err(WireError::TooLarge {
            offset: 9,
            limit: MIB
        })
    );
    assert_eq!(legacy_records(1, &bomb, 2 * MIB).unwrap().len(), 1);
}

#[test]
fn the_frame_checksum_of_magic_0_is_right_or_that_of_old_clients() {
    let right = codec::Codec::Lz4.compress(&plain(0, 7)).unwrap();
    for checksum in 0..=255u8 {
        let mut frame = right.clone();
        frame[6] = checksum;
        let read = |magic| offsets(magic, &message(magic, 7, 3, 0, None, Some(&frame)).into());
        assert_eq!(read(0), Ok(vec![7]));
        assert_eq!(
            read(1).is_ok(),
            checksum == right[6],
            "from v1 on it must be right"
        );
    }
    // What the descriptor may hold beside: the content's size, the dictionary's id. Cuts must not matter either.
    for flags in 0..=255u8 {
        for end in 0..right.len() {
            let mut frame = right.clone();
            frame[4] = flags;
            let _ = offsets(0, &message(0, 7, 3, 0, None, Some(&frame[..end])).into());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_set_comes_out_as_it_went_in(
        magic in 0i8..2, kits in prop::sample::select(vec![codec::Codec::Gzip, codec::Codec::Snappy, codec::Codec::Lz4]),
        parts in prop::collection::vec((1i64..3, any::<i64>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            prop::option::of(prop::collection::vec(any::<u8>(), 0..300))), 1..20), base in 0i64..1 << 60, from in 0i64..50,
    ) {
        let mut next = -1;
        let mut inner = Vec::new();
        let mut expected = Vec::new();
        for (step, timestamp, key, value) in parts {
            next += step;
            let place = if magic == 0 { base + next } else { next };
            inner.extend(message(magic, place, 0, timestamp, key.as_deref(), value.as_deref()));
            let timestamp = if magic == 0 { -1 } else { timestamp };
            expected.push(Record { offset: base + next, timestamp, key: key.map(Bytes::from), value: value.map(Bytes::from), headers: vec![] });
        }
        let packed = kits.compress(&inner).unwrap();
        let set = message(magic, base + next, kits.id() as i8, 0, None, Some(&packed)).into();
        prop_assert_eq!(&legacy_records(magic, &set, MIB).unwrap(), &expected);
        let up = upgrade(magic, &set, base + from, MIB).unwrap();
        expected.retain(|record| record.offset >= base + from);
        let read = up.batch.decode(MIB).unwrap();
        prop_assert_eq!(read.iter().map(Record::hash).collect::<Vec<_>>(), expected.iter().map(Record::hash).collect::<Vec<_>>());
        prop_assert_eq!(up.last, base + next);
        if let Some(first) = expected.first() {
            prop_assert_eq!(up.batch.header.base_offset, first.offset);
            prop_assert!(up.first <= first.offset && up.first >= base + from);
        }
    }
}
