//! What stands on the target of a real Kafka, read by Kafka's own clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rig::{Mirror, wait_until, west_to_east};
use strait_testkit::kafka::{
    Codec, Dump, DumpOptions, HeaderSpec, Isolation, KafkaCluster, KafkaOptions, Oracle,
    RecordSpec, StoredBatch, TransactionSpec, Version, Workload,
};

const SOON: Duration = Duration::from_secs(60);

/// Reads a topic of both sides to its end, once no transaction of the source is open and the target has as many records,
/// and holds them against each other.
fn assert_mirrored(oracle: &Oracle, west: &str, east: &str, topic: &str) -> u64 {
    wait_until("every transaction is over", SOON, || {
        !oracle.has_open_transaction(west, topic).unwrap()
    });
    assert_mirrored_so_far(oracle, west, east, topic)
}

/// The same while a transaction is open.
fn assert_mirrored_so_far(oracle: &Oracle, west: &str, east: &str, topic: &str) -> u64 {
    let mirrored = format!("west.{topic}");
    wait_for_topic(oracle, east, &mirrored);
    let compared = oracle
        .compare(
            (west, topic),
            (east, &mirrored),
            Isolation::ReadCommitted,
            SOON,
        )
        .unwrap();
    assert!(compared.equal, "{topic}: {compared}");
    compared.partitions.iter().map(|p| p.left_count).sum()
}

fn wait_for_topic(oracle: &Oracle, kafka: &str, topic: &str) {
    wait_until(&format!("there is {topic}"), SOON, || {
        oracle
            .list_topics(kafka)
            .unwrap()
            .iter()
            .any(|t| t == topic)
    });
}

/// A running link of this name.
fn mirror(west: &str, east: &str, name: &str, topics: &[&str]) -> Mirror {
    Mirror::new(&west_to_east(
        west,
        east,
        topics,
        &format!("name = {name:?}"),
    ))
    .started()
}

#[test]
fn every_codec_arrives_byte_for_byte() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let topics = Codec::ALL.map(|codec| (codec, format!("codec-{codec:?}").to_lowercase()));
    for (seed, (codec, topic)) in (1..).zip(&topics) {
        let forever = [("retention.ms", "-1")];
        oracle.create_topic(west, topic, 2, 1, &forever).unwrap();
        let workload = Workload::new(topic.as_str())
            .codec(*codec)
            .seed(seed)
            .sizes(10, 2_000)
            .headers(HeaderSpec::Odd)
            .null_key_every(5)
            .null_value_every(7)
            .timestamps(1_700_000_000_000, 13);
        let report = oracle.produce(west, &workload, 5_000).unwrap();
        assert_eq!(report.acked, 5_000, "{report:?}");
    }
    let _mirror = mirror(west, east, "codecs", &["codec-.*"]);
    for (codec, topic) in &topics {
        assert_eq!(assert_mirrored(&oracle, west, east, topic), 5_000);
        // Small batches that are not compressed are joined.
        let whole = *codec != Codec::None;
        for partition in if whole { 0..2 } else { 0..0 } {
            let sent = source.stored_batches(0, topic, partition).unwrap();
            let kept = target
                .stored_batches(0, &format!("west.{topic}"), partition)
                .unwrap();
            let payload = |batch: &StoredBatch| (batch.codec(), batch.count, batch.records.clone());
            assert!(
                sent.iter().map(payload).eq(kept.iter().map(payload)),
                "{topic}-{partition}: the batches differ"
            );
        }
        let stored =
            |kafka, topic: &str| -> u64 { oracle.stored_bytes(kafka, topic).unwrap().iter().sum() };
        let sizes = (stored(west, topic), stored(east, &format!("west.{topic}")));
        assert!(
            sizes.0.abs_diff(sizes.1) * 100 <= sizes.0,
            "{topic}: {sizes:?} bytes"
        );
    }
}

#[test]
fn small_compressed_batches_arrive_as_fewer_of_the_same_codec() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let codecs = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let forever = [("retention.ms", "-1")];
    oracle.create_topic(west, "tiny", 8, 1, &forever).unwrap();
    // Of today, and so old that a broker forgets their producer: such batches go one at a time.
    for partition in 0..8 {
        // A batch for each record or two.
        let workload = Workload::new("tiny")
            .codec(codecs[partition as usize % codecs.len()])
            .seed(70)
            .partition(partition)
            .sizes(10, 400)
            .batches(200, 0)
            .headers(HeaderSpec::Odd)
            .null_key_every(5)
            .null_value_every(7);
        let workload = match partition {
            0..4 => workload,
            _ => workload.timestamps(1_700_000_000_000, 13),
        };
        let report = oracle.produce(west, &workload, 600).unwrap();
        assert_eq!(report.acked, 600, "{report:?}");
    }
    let _mirror = mirror(west, east, "tiny", &["tiny"]);
    assert_eq!(assert_mirrored(&oracle, west, east, "tiny"), 4_800);
    for partition in 0..8 {
        let sent = source.stored_batches(0, "tiny", partition).unwrap();
        let kept = target.stored_batches(0, "west.tiny", partition).unwrap();
        assert!(sent.len() > 200, "{} batches", sent.len());
        assert!(sent.iter().all(|batch| batch.stored_bytes() < 1_024));
        assert!(
            kept.len() * 2 < sent.len(),
            "{partition}: {} of {} batches",
            kept.len(),
            sent.len()
        );
        let codec = sent[0].codec();
        assert!(codec > 0 && kept.iter().all(|batch| batch.codec() == codec));
    }
}

#[test]
fn interleaved_transactions_arrive_without_what_was_aborted() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    oracle.create_topic(west, "txn-orders", 2, 1, &[]).unwrap();
    let _mirror = mirror(west, east, "transactions", &["txn-.*"]);
    // Five producers at a time, so that batches, markers and aborts of different transactions interleave.
    std::thread::scope(|scope| {
        for (seed, codec) in (20_u64..).zip(Codec::ALL) {
            let oracle = &oracle;
            scope.spawn(move || {
                let workload = Workload::new("txn-orders")
                    .codec(codec)
                    .seed(seed)
                    .headers(HeaderSpec::Odd)
                    .batches(700, 2)
                    .null_value_every(17);
                let spec = TransactionSpec::new(format!("txn-{seed}"), 5 + 7 * (seed - 20));
                let workload = match codec {
                    Codec::Snappy => workload,
                    _ => workload.transaction(spec.abort_every(seed - 18)),
                };
                let report = oracle.produce(west, &workload, 1_500).unwrap();
                assert_eq!(report.acked + report.aborted, 1_500, "{report:?}");
                assert!(codec == Codec::Snappy || report.aborted > 0, "{report:?}");
            });
        }
    });
    let committed = assert_mirrored(&oracle, west, east, "txn-orders");

    // An open transaction holds up what comes after it, on the target as on the source.
    let pending = Workload::new("txn-orders").seed(30);
    let open = oracle.produce_open(west, &pending, 20, "txn-open").unwrap();
    let after = Workload::new("txn-orders").seed(31);
    assert_eq!(oracle.produce(west, &after, 50).unwrap().acked, 50);
    assert_eq!(
        assert_mirrored_so_far(&oracle, west, east, "txn-orders"),
        committed
    );
    open.commit().unwrap();
    assert_eq!(
        assert_mirrored(&oracle, west, east, "txn-orders"),
        committed + 70
    );
    let open = oracle
        .produce_open(west, &pending.first_id(20), 20, "txn-open")
        .unwrap();
    open.abort().unwrap();
    assert_eq!(
        assert_mirrored(&oracle, west, east, "txn-orders"),
        committed + 70
    );

    // The target has no transactions: nothing aborted is there for anybody, and nobody waits for a marker.
    let count = |isolation| {
        let dump = oracle.digest(east, "west.txn-orders", isolation).unwrap();
        dump.count()
    };
    assert_eq!(count(Isolation::ReadUncommitted), committed + 70);
    assert_eq!(count(Isolation::ReadCommitted), committed + 70);
}

#[test]
fn read_uncommitted_mirrors_what_was_aborted_too() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    oracle
        .create_topic(west, "dirty-orders", 1, 1, &[])
        .unwrap();
    let more = "name = \"dirty\"\nisolation = \"read_uncommitted\"";
    let _mirror = Mirror::new(&west_to_east(west, east, &["dirty-.*"], more)).started();
    let spec = TransactionSpec::new("dirty", 20).abort_every(2);
    let workload = Workload::new("dirty-orders").seed(40).transaction(spec);
    let report = oracle.produce(west, &workload, 400).unwrap();
    assert_eq!((report.acked, report.aborted), (200, 200), "{report:?}");
    wait_for_topic(&oracle, east, "west.dirty-orders");
    let compared = oracle
        .compare(
            (west, "dirty-orders"),
            (east, "west.dirty-orders"),
            Isolation::ReadUncommitted,
            SOON,
        )
        .unwrap();
    assert!(compared.equal, "{compared}");
    assert_eq!(compared.partitions[0].right_count, 400);
}

#[test]
fn append_times_are_kept() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let append = [("message.timestamp.type", "LogAppendTime")];
    oracle
        .create_topic(west, "stamped-a", 1, 1, &append)
        .unwrap();
    let workload = |codec, seed| {
        Workload::new("stamped-a")
            .codec(codec)
            .seed(seed)
            .headers(HeaderSpec::Odd)
            .null_key_every(3)
            .timestamps(1_600_000_000_000, 10)
    };
    for (seed, codec) in (50..).zip(Codec::ALL) {
        oracle.produce(west, &workload(codec, seed), 500).unwrap();
    }
    // From here on the producer's own times count; the batches before keep the broker's.
    oracle
        .alter_topic_configs(west, "stamped-a", &[], &["message.timestamp.type"])
        .unwrap();
    oracle
        .produce(west, &workload(Codec::Zstd, 60), 500)
        .unwrap();
    let _mirror = mirror(west, east, "stamps", &["stamped-.*"]);
    assert_eq!(assert_mirrored(&oracle, west, east, "stamped-a"), 3_000);
    let stamped = |cluster: &KafkaCluster, topic| {
        let batches = cluster.stored_batches(0, topic, 0).unwrap();
        batches.iter().filter(|b| b.attributes & 0x08 != 0).count()
    };
    assert!(stamped(source, "stamped-a") >= 5);
    assert_eq!(stamped(target, "west.stamped-a"), 0);
}

/// Timestamp and value of the last record of each key.
type LastValues = BTreeMap<Option<Vec<u8>>, (i64, Option<Vec<u8>>)>;

/// The last value of every key, as somebody who reads the topic into a map gets it.
fn last_values(dump: &Dump) -> LastValues {
    let records = dump.partitions.iter().flat_map(|p| &p.records);
    records
        .map(|r| (r.key.clone(), (r.timestamp, r.value.clone())))
        .collect()
}

#[test]
fn compacted_topics_arrive_and_go_on() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    oracle
        .alter_broker_configs(west, &[("log.cleaner.backoff.ms", "100")], &[])
        .unwrap();
    let compacting = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "50"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    oracle
        .create_topic(west, "compact-profiles", 1, 1, &compacting)
        .unwrap();
    let mut next = 0;
    // Batches of a few records, one segment per 50 ms.
    let mut write = |count: u64, aborts: bool| {
        let mut workload = Workload::new("compact-profiles")
            .codec(Codec::Lz4)
            .keys(37)
            .null_value_every(19)
            .headers(HeaderSpec::Odd)
            .rate(500.0)
            .first_id(next)
            .flush_every(11);
        if aborts {
            workload = workload.transaction(TransactionSpec::new("compact", 23).abort_every(3));
        }
        next = oracle.produce(west, &workload, count).unwrap().next_id;
        next
    };
    // Keys in an order that leaves single records of a batch behind.
    let scatter = |from: i64, to: i64| {
        for batch in from..to {
            let record = |i: i64| RecordSpec {
                key: Some(format!("scattered-{}", (batch * 5 + i * i) % 41).into_bytes()),
                value: ((batch + i) % 13 > 0).then(|| format!("{batch}/{i}").into_bytes()),
                headers: vec![("at".to_owned(), Some(format!("{batch}/{i}").into_bytes()))],
                ..RecordSpec::default()
            };
            let records: Vec<RecordSpec> = (0..12).map(record).collect();
            oracle
                .send(west, "compact-profiles", Codec::Gzip, &records)
                .unwrap();
        }
    };
    let held = || {
        let all = Isolation::ReadUncommitted;
        oracle
            .digest(west, "compact-profiles", all)
            .unwrap()
            .count()
    };
    let wait_for_cleaner = |most| {
        wait_until("the cleaner has been there", SOON, || held() < most);
    };
    write(500, false);
    write(300, true);
    scatter(0, 30);
    write(200, false);
    wait_for_cleaner(200);
    // Held still, so that both sides can be compared record by record.
    let hold = |lag| {
        let lag = [("min.compaction.lag.ms", lag)];
        oracle
            .alter_topic_configs(west, "compact-profiles", &lag, &[])
            .unwrap();
        let folder = source.partition_dir(0, "compact-profiles", 0).unwrap();
        wait_until("no cleaning is under way", SOON, || {
            let files = std::fs::read_dir(&folder).unwrap();
            !files.flatten().any(|file| {
                let name = file.file_name().into_string().unwrap();
                name.ends_with(".cleaned") || name.ends_with(".swap")
            })
        });
    };
    hold("9000000000000");
    let batches = source.stored_batches(0, "compact-profiles", 0).unwrap();
    let with_holes = |b: &&StoredBatch| i64::from(b.count) < b.last_offset - b.base_offset + 1;
    let holes = batches.iter().filter(with_holes).count();
    assert!(holes > 3, "{holes} of {} batches have holes", batches.len());
    assert!(
        batches.iter().any(|b| b.attributes & 0x40 != 0),
        "no delete horizon"
    );

    let more = "name = \"compact\"\nsync-topic-configs = false";
    let config = west_to_east(west, east, &["compact-.*"], more);
    let mut mirror = Mirror::new(&config).started();
    let first = assert_mirrored(&oracle, west, east, "compact-profiles");
    assert!(first > 37, "{first}");

    // Killed with records on the target that no sync tells of; the source cleans them away before the next start.
    let mirrored = || {
        let dump = oracle.digest(east, "west.compact-profiles", Isolation::ReadCommitted);
        dump.unwrap().count()
    };
    let end = write(400, false);
    wait_until("some of it is mirrored", SOON, || mirrored() > first + 20);
    mirror.kill9();
    hold("0");
    write(400, true);
    scatter(30, 60);
    write(100, false);
    wait_for_cleaner(250);
    mirror.start();
    write(100, false);
    let records = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let dump = |kafka, topic| {
        let dump = oracle.dump(kafka, topic, Isolation::ReadCommitted, records);
        dump.unwrap()
    };
    let mut sides = (BTreeMap::new(), BTreeMap::new());
    let equal = rig::holds_within(SOON, || {
        sides = (
            last_values(&dump(west, "compact-profiles")),
            last_values(&dump(east, "west.compact-profiles")),
        );
        sides.0 == sides.1
    });
    assert!(equal, "after {end}: {sides:?}");
    // Every record ever written is another one (by its headers), so each may stand on the target once.
    let target_records = dump(east, "west.compact-profiles");
    let records = &target_records.partitions[0].records;
    let hashes: BTreeSet<&str> = records.iter().map(|r| r.hash.as_str()).collect();
    assert_eq!(hashes.len(), records.len(), "records stand twice");
    let times: Vec<i64> = records.iter().map(|r| r.timestamp).collect();
    assert!(times.is_sorted(), "out of order: {times:?}");
    mirror.stop();
}

#[test]
fn an_older_release_is_mirrored_to_a_newer_one() {
    let old = KafkaCluster::start(KafkaOptions::new().version(Version::V3_9)).unwrap();
    let [_, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&old.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let plain = Workload::new("old-plain").codec(Codec::Zstd).seed(70);
    let spec = TransactionSpec::new("old", 30).abort_every(2);
    let paid = Workload::new("old-paid").seed(71).transaction(spec);
    for (topic, workload) in [("old-plain", plain), ("old-paid", paid)] {
        oracle.create_topic(west, topic, 2, 1, &[]).unwrap();
        oracle
            .produce(west, &workload.headers(HeaderSpec::Odd), 1_200)
            .unwrap();
    }
    let mut mirror = mirror(west, east, "old", &["old-.*"]);
    assert_eq!(assert_mirrored(&oracle, west, east, "old-plain"), 1_200);
    assert_eq!(assert_mirrored(&oracle, west, east, "old-paid"), 600);
    mirror.kill9();
    mirror.start();
    let more = Workload::new("old-plain").seed(72);
    oracle.produce(west, &more, 100).unwrap();
    assert_eq!(assert_mirrored(&oracle, west, east, "old-plain"), 1_300);
    mirror.stop();
}

#[test]
fn mirror_maker_2_translates_by_our_syncs_and_never_too_far() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    oracle.create_topic(west, "synced-a", 1, 1, &[]).unwrap();
    let mut mirror = mirror(west, east, "synced", &["synced-.*"]);
    // Aborts and kills make source and target offsets drift apart, in both directions.
    let spec = TransactionSpec::new("synced", 15).abort_every(2);
    for round in 0..3 {
        let paid = Workload::new("synced-a")
            .seed(80 + round)
            .rate(150.0)
            .transaction(spec.clone());
        oracle.produce(west, &paid, 300).unwrap();
        assert_mirrored(&oracle, west, east, "synced-a");
        mirror.kill9();
        mirror.start();
        oracle
            .produce(west, &Workload::new("synced-a").seed(90 + round), 5)
            .unwrap();
        assert_mirrored(&oracle, west, east, "synced-a");
    }
    mirror.stop();

    let offsets = |kafka, topic| -> Vec<i64> {
        let hashes = DumpOptions {
            hashes: true,
            ..DumpOptions::default()
        };
        let dump = oracle
            .dump(kafka, topic, Isolation::ReadCommitted, hashes)
            .unwrap();
        dump.partitions[0]
            .records
            .iter()
            .map(|r| r.offset)
            .collect()
    };
    let (from, to) = (offsets(west, "synced-a"), offsets(east, "west.synced-a"));
    assert_eq!(from.len(), to.len());
    assert!(from.iter().zip(&to).any(|(a, b)| a < b) || from.last() > to.last());
    let end = |kafka, topic| {
        oracle
            .offsets(kafka, topic, Isolation::ReadUncommitted)
            .unwrap()[0]
            .end
    };
    let source_end = end(west, "synced-a");
    let asked: Vec<i64> = (0..=source_end).collect();
    let translated = oracle
        .mm2_translate(east, "west", ("synced-a", 0), &asked)
        .unwrap();
    let mut exact = 0;
    for (offset, found) in asked.iter().zip(&translated) {
        let found = found.unwrap_or_else(|| panic!("{offset} is unknown"));
        // The group goes on with the first record at or after its offset.
        let record = from.partition_point(|at| at < offset);
        let right = to
            .get(record)
            .copied()
            .unwrap_or_else(|| end(east, "west.synced-a"));
        assert!(
            found <= right,
            "{offset}: {found} skips records from {right}"
        );
        exact += u64::from(found == right);
    }
    assert_eq!(translated.last(), Some(&Some(end(east, "west.synced-a"))));
    // MirrorMaker 2 is exact at the pairs it keeps, which thin out towards the past, and lower between them.
    assert!(translated.is_sorted(), "{translated:?}");
    let distinct: BTreeSet<_> = translated.iter().collect();
    assert!(
        exact >= 3 && distinct.len() >= 3,
        "{exact} are exact: {translated:?}"
    );
}
