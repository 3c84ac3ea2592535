//! The kit's own instruments: record codec, workload, comparison.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use bytes::Bytes;
use strait_testkit::codec::ALL;
use strait_testkit::compare::{Difference, compare, differences};
use strait_testkit::records::{BatchSpec, RecordsError, check_crc, decode};
use strait_testkit::workload::{Age, Generator, TOPICS, Workload};
use strait_testkit::{Broker, KitRecord};
use wire::{NOW, broker, record};

#[test]
fn records_survive_every_codec() {
    let mut records = vec![
        KitRecord::new(NOW, None, None),
        KitRecord::new(NOW - 1_000_000, Some(b""), Some(b""))
            .header("k", Some(b"1"))
            .header("k", None),
        KitRecord::new(-1, Some(&[0xff; 300]), Some(&[7; 100_000])),
    ];
    for (offset, record) in (0..).zip(&mut records) {
        record.offset = offset;
    }
    for codec in ALL {
        let spec = BatchSpec {
            codec,
            ..BatchSpec::default()
        };
        let batch = spec.build(&records).unwrap();
        check_crc(&batch).unwrap();
        assert_eq!(decode(&batch).unwrap(), records, "{codec:?}");
        for end in 0..batch.len() {
            assert!(decode(&batch[..end]).is_err(), "{codec:?} cut at {end}");
            if end > 400 {
                break;
            }
        }
    }
}

#[test]
fn another_decoder_reads_the_same() {
    let records = [
        record(NOW, "a").header("h", Some(b"x")).header("n", None),
        KitRecord::new(NOW + 5, None, Some(b"v")),
    ];
    let spec = BatchSpec {
        producer_id: 9,
        producer_epoch: 2,
        base_sequence: 4,
        ..BatchSpec::default()
    };
    let mut batch = spec.build(&records).unwrap();
    let read = kafka_protocol::records::RecordBatchDecoder::decode(&mut batch)
        .unwrap()
        .records;
    for (index, (theirs, ours)) in read.iter().zip(&records).enumerate() {
        assert_eq!(
            (theirs.offset, theirs.timestamp),
            (index as i64, ours.timestamp)
        );
        assert_eq!((&theirs.key, &theirs.value), (&ours.key, &ours.value));
        assert_eq!(theirs.headers.len(), ours.headers.len());
        assert_eq!((theirs.producer_id, theirs.sequence), (9, 4 + index as i32));
    }
}

#[test]
fn a_batch_written_by_hand_is_read() {
    // One record: key "k", value "v", header a=b, timestamp 1000; lengths as zigzag varints.
    let body = [24, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'a', 2, b'b'];
    let mut batch = Vec::new();
    batch.extend_from_slice(&5i64.to_be_bytes());
    batch.extend_from_slice(&(49i32 + body.len() as i32).to_be_bytes());
    batch.extend_from_slice(&[0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    batch.extend_from_slice(&1000i64.to_be_bytes());
    batch.extend_from_slice(&1000i64.to_be_bytes());
    batch.extend_from_slice(&[0xff; 14]);
    batch.extend_from_slice(&1i32.to_be_bytes());
    batch.extend_from_slice(&body);
    let read = decode(&batch).unwrap();
    let mut expected = KitRecord::new(1000, Some(b"k"), Some(b"v")).header("a", Some(b"b"));
    expected.offset = 5;
    assert_eq!(read, [expected]);
    assert!(matches!(
        check_crc(&batch),
        Err(RecordsError::Crc { stated: 0, .. })
    ));
}

fn dump(broker: &Broker) -> Vec<(String, i32, Vec<Bytes>)> {
    let mut out = Vec::new();
    for (topic, partitions) in broker.topics() {
        for partition in 0..partitions {
            let log = broker.read_log(&topic, partition);
            out.push((
                topic.clone(),
                partition,
                log.into_iter().map(|b| b.bytes).collect(),
            ));
        }
    }
    out
}

fn filled(seed: u64, age: Age) -> Broker {
    let broker = broker();
    let workload = Workload {
        seed,
        age,
        ..Workload::default()
    };
    let mut generator = Generator::new(&broker, workload).unwrap();
    generator.write(300).unwrap();
    generator.finish().unwrap();
    broker
}

#[tokio::test(start_paused = true)]
async fn one_seed_one_log() {
    let first = dump(&filled(5, Age::Mixed));
    assert_eq!(first, dump(&filled(5, Age::Mixed)));
    assert_ne!(first, dump(&filled(6, Age::Mixed)));
}

#[tokio::test(start_paused = true)]
async fn a_workload_has_everything_a_mirror_may_stumble_over() {
    let broker = filled(1, Age::Mixed);
    let all = |committed| {
        let parts = TOPICS.iter().flat_map(|t| (0..3).map(move |p| (*t, p)));
        parts
            .flat_map(|(t, p)| broker.records(t, p, committed))
            .collect::<Vec<_>>()
    };
    let records = all(false);
    assert!(records.len() > 3000);
    assert!(all(true).len() < records.len(), "something was aborted");
    assert!(
        records.iter().any(|r| r.value.is_none() && r.key.is_some()),
        "tombstones"
    );
    assert!(records.iter().any(|r| r.key.is_none()), "null keys");
    let doubled = |r: &KitRecord| r.headers.iter().filter(|(k, _)| &k[..] == b"retry").count() == 2;
    assert!(records.iter().any(doubled), "headers with one key twice");
    assert!(
        records.iter().any(|r| r.timestamp < NOW - 86_400_000),
        "historic"
    );
    assert!(
        records.iter().any(|r| r.timestamp > NOW - 86_400_000),
        "recent"
    );
    let batches: Vec<_> = dump(&broker).into_iter().flat_map(|(_, _, b)| b).collect();
    for codec in ALL {
        let has = |b: &Bytes| {
            strait_testkit::records::BatchHeader::parse(b)
                .unwrap()
                .codec()
                == Some(codec)
        };
        assert!(batches.iter().any(has), "{codec:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_faithful_copy_is_equal_whatever_its_batches_and_offsets() {
    let source = filled(3, Age::Recent);
    let target = broker();
    for (topic, partitions) in source.topics() {
        target
            .create_topic(&format!("a.{topic}"), partitions, &[("retention.ms", "-1")])
            .unwrap();
        for partition in 0..partitions {
            for chunk in source.records(&topic, partition, true).chunks(7) {
                let batch = BatchSpec::default().build(chunk).unwrap();
                target
                    .append(&format!("a.{topic}"), partition, &batch)
                    .unwrap();
            }
        }
    }
    let report = compare(&source, &target, |topic| format!("a.{topic}"));
    assert!(report.is_equal(), "{report}");
    assert!(report.source_records() > 1000);
    let first = &target.records("a.orders", 0, true)[..1];
    target
        .append("a.orders", 0, &BatchSpec::default().build(first).unwrap())
        .unwrap();
    let report = compare(&source, &target, |topic| format!("a.{topic}"));
    assert!(!report.is_equal());
    assert!(
        report.to_string().contains("1 written more than once"),
        "{report}"
    );
}

fn at(offset: i64, text: &str) -> KitRecord {
    KitRecord {
        offset,
        ..record(NOW, text)
    }
}

#[test]
fn differences_are_named_one_by_one() {
    let source = [at(10, "a"), at(11, "b"), at(13, "c"), at(14, "d")];
    let copy =
        |texts: &[&str]| -> Vec<KitRecord> { (0..).zip(texts).map(|(i, t)| at(i, t)).collect() };
    assert_eq!(differences(&source, &copy(&["a", "b", "c", "d"])), []);
    let missing = Difference::Missing {
        source: vec![11, 13],
    };
    let found = differences(&source, &copy(&["a", "d"]));
    assert_eq!(found, std::slice::from_ref(&missing));
    assert_eq!(
        missing.to_string(),
        "2 missing on the target: source offsets 11, 13"
    );
    assert_eq!(
        differences(&source, &copy(&["a", "b", "a", "c", "d"])),
        [Difference::Doubled { target: vec![2] }]
    );
    assert_eq!(
        differences(&source, &copy(&["a", "b", "x", "c", "d"])),
        [Difference::Foreign { target: vec![2] }]
    );
    assert_eq!(
        differences(&source, &copy(&["a", "c", "b", "d"])),
        [Difference::OutOfOrder {
            source: 13,
            target: 1
        }]
    );
    let mut changed = copy(&["a", "b", "c", "d"]);
    changed[1].timestamp += 1;
    changed[1].headers.push((Bytes::from_static(b"h"), None));
    let difference = Difference::Changed {
        source: 11,
        target: 1,
        fields: vec!["timestamp", "headers"],
    };
    assert_eq!(differences(&source, &changed), [difference]);
}

#[test]
fn equal_records_are_counted_not_merged() {
    let source = [at(0, "a"), at(1, "a"), at(2, "a")];
    assert_eq!(
        differences(&source, &source[..2]),
        [Difference::Missing { source: vec![2] }]
    );
    assert_eq!(
        differences(&source[..2], &source),
        [Difference::Doubled { target: vec![2] }]
    );
}
