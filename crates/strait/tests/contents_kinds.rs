//! Kinds of batches that brokers really store, between real brokers of both releases, read by Kafka's own consumer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod outcome;
mod page;
mod rig;

use std::time::Duration;

use outcome::{count, lines};
use rig::{Mirror, free_port, wait_until, west_to_east};
use strait_testkit::kafka::{
    Codec, Dump, DumpOptions, HeaderSpec, Isolation, KafkaCluster, KafkaOptions, Oracle,
    RecordSpec, StoredBatch, TransactionSpec, Version, Workload,
};

const SOON: Duration = Duration::from_secs(60);

/// Records are older than the time brokers keep them by default.
const FOREVER: (&str, &str) = ("retention.ms", "-1");

/// Reads a topic of both sides to its end, and holds them against each other until they are equal.
fn assert_mirrored(oracle: &Oracle, west: &str, east: &str, topic: &str, isolation: Isolation) {
    let mirrored = format!("west.{topic}");
    wait_until(&format!("there is {mirrored}"), SOON, || {
        oracle.list_topics(east).unwrap().contains(&mirrored)
    });
    // The markers of the last transactions may still be on their way into the source.
    let compare = || {
        let sides = ((west, topic), (east, mirrored.as_str()));
        oracle.compare(sides.0, sides.1, isolation, SOON).unwrap()
    };
    let mut compared = compare();
    let _ = rig::holds_within(SOON, || {
        compared = compare();
        compared.equal
    });
    assert!(compared.equal, "{topic}: {compared}");
    let records: u64 = compared.partitions.iter().map(|p| p.left_count).sum();
    assert!(records > 0, "{topic} is empty");
}

/// A running link of this name.
fn mirror(west: &str, east: &str, name: &str, topics: &[&str], more: &str) -> Mirror {
    let more = format!("name = {name:?}\n{more}");
    Mirror::new(&west_to_east(west, east, topics, &more)).started()
}

/// One partition with batches of 1 record to 900 KiB, all codecs in turn.
fn write_mixed_sizes(oracle: &Oracle, west: &str, topic: &str) {
    let value = |bytes: usize, salt: usize| {
        // Half of it compresses.
        let byte = |i: usize| {
            if i.is_multiple_of(2) {
                b'.'
            } else {
                (i * 31 + i / 256 * 7 + salt) as u8
            }
        };
        (0..bytes).map(byte).collect::<Vec<u8>>()
    };
    let batches: [(usize, usize); 6] = [
        (1, 3),
        (400, 30),
        (1, 900_000),
        (3, 250_000),
        (2_000, 5),
        (2, 60_000),
    ];
    for (round, codec) in Codec::ALL.into_iter().enumerate() {
        for (kind, (records, bytes)) in batches.into_iter().enumerate() {
            let record = |n: usize| RecordSpec {
                key: Some(format!("{round}/{kind}/{n}").into_bytes()),
                value: (n % 7 < 6).then(|| value(bytes, n + kind)),
                headers: vec![("kind".to_owned(), Some(vec![kind as u8]))],
                timestamp: Some(1_650_000_000_000 + (round * 6 + kind) as i64),
                ..RecordSpec::default()
            };
            let records: Vec<RecordSpec> = (0..records).map(record).collect();
            oracle.send(west, topic, codec, &records).unwrap();
        }
    }
}

#[test]
fn batches_of_one_byte_to_a_mebibyte_arrive_in_order() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    oracle
        .create_topic(west, "mixed-a", 1, 1, &[FOREVER])
        .unwrap();
    let mut mirror = mirror(west, east, "mixed", &["mixed-a"], "");
    // The first round while the mirror looks for the topic, the rest while it mirrors.
    write_mixed_sizes(&oracle, west, "mixed-a");
    assert_mirrored(&oracle, west, east, "mixed-a", Isolation::ReadCommitted);
    mirror.kill9();
    write_mixed_sizes(&oracle, west, "mixed-a");
    mirror.start();
    assert_mirrored(&oracle, west, east, "mixed-a", Isolation::ReadCommitted);
    let sizes = source.stored_batches(0, "mixed-a", 0).unwrap();
    let sizes: Vec<usize> = sizes.iter().map(StoredBatch::stored_bytes).collect();
    assert!(
        sizes.iter().any(|s| *s < 120) && sizes.iter().any(|s| *s > 900_000),
        "{sizes:?}"
    );
    mirror.stop();
}

/// Key, value and number of headers of a record.
type Timeless = (Option<Vec<u8>>, Option<Vec<u8>>, usize);

/// Every record, without its timestamp.
fn without_times(dump: &Dump) -> Vec<Timeless> {
    let records = dump.partitions.iter().flat_map(|p| &p.records);
    records
        .map(|r| (r.key.clone(), r.value.clone(), r.headers.len()))
        .collect()
}

#[test]
fn a_target_that_stamps_records_itself_gets_all_of_them_under_its_own_times() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let append = [("message.timestamp.type", "LogAppendTime")];
    for topic in ["append-both", "append-target"] {
        let of_source = if topic == "append-both" {
            &append
        } else {
            &[FOREVER]
        };
        oracle.create_topic(west, topic, 1, 1, of_source).unwrap();
        let mirrored = format!("west.{topic}");
        oracle.create_topic(east, &mirrored, 1, 1, &append).unwrap();
    }
    let mut mirror = mirror(west, east, "append", &["append-.*"], "");
    for topic in ["append-both", "append-target"] {
        for (seed, codec) in (10..).zip(Codec::ALL) {
            let workload = Workload::new(topic)
                .codec(codec)
                .seed(seed)
                .headers(HeaderSpec::Odd);
            let workload = workload.timestamps(1_600_000_000_000, 10).null_key_every(4);
            oracle.produce(west, &workload, 200).unwrap();
        }
    }
    mirror.wait_for_log("mirroring", SOON);
    mirror.kill9();
    mirror.start();
    for topic in ["append-both", "append-target"] {
        let dump = |kafka: &str, topic: &str, count| {
            let options = DumpOptions {
                records: true,
                count,
                wait: SOON,
                ..DumpOptions::default()
            };
            oracle
                .dump(kafka, topic, Isolation::ReadCommitted, options)
                .unwrap()
        };
        let (sent, kept) = (
            dump(west, topic, 0),
            dump(east, &format!("west.{topic}"), 1_000),
        );
        assert_eq!(sent.count(), 1_000);
        assert!(
            without_times(&sent) == without_times(&kept),
            "{topic}: {} records, {} on the target",
            sent.count(),
            kept.count()
        );
        let stamped = &kept.partitions[0].records;
        assert!(
            stamped
                .iter()
                .all(|r| r.timestamp_type == "LogAppendTime" && r.timestamp > 1_700_000_000_000)
        );
    }
    mirror.stop();
}

#[test]
fn batches_that_the_cleaner_emptied_are_passed_over() {
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
        .create_topic(west, "emptied-a", 1, 1, &compacting)
        .unwrap();
    let write = |seed: u64, records: u64| {
        // Each call is a producer of its own, whose last batch is kept without records once it is superseded.
        let workload = Workload::new("emptied-a")
            .seed(seed)
            .keys(3)
            .codec(Codec::Lz4);
        oracle.produce(west, &workload, records).unwrap();
    };
    let empty = || {
        let batches = source.stored_batches(0, "emptied-a", 0).unwrap();
        batches
            .iter()
            .filter(|b| b.count == 0 && !b.is_control())
            .count()
    };
    let mut seed = 0;
    wait_until("the cleaner has left empty batches", SOON, || {
        write(seed, 6);
        seed += 1;
        seed >= 6 && empty() >= 3
    });
    let more = "sync-topic-configs = false";
    let mut mirror = mirror(west, east, "emptied", &["emptied-.*"], more);
    mirror.wait_for_log("mirroring", SOON);
    for _ in 0..2 {
        mirror.kill9();
        write(seed, 6);
        seed += 1;
        mirror.start();
        write(seed, 6);
        seed += 1;
    }
    // The cleaner goes on: the last record of each key is what both sides agree on.
    let last = |kafka: &str, topic: &str| {
        let options = DumpOptions {
            records: true,
            ..DumpOptions::default()
        };
        let dump = oracle
            .dump(kafka, topic, Isolation::ReadCommitted, options)
            .ok()?;
        let records = dump.partitions.into_iter().flat_map(|p| p.records);
        let last: std::collections::BTreeMap<_, _> =
            records.map(|r| (r.key, (r.timestamp, r.value))).collect();
        Some(last)
    };
    let equal = rig::holds_within(SOON, || {
        let sides = (last(west, "emptied-a"), last(east, "west.emptied-a"));
        sides.0.as_ref().is_some_and(|l| l.len() == 3) && sides.0 == sides.1
    });
    assert!(
        equal,
        "{:?} {:?}",
        last(west, "emptied-a"),
        last(east, "west.emptied-a")
    );
    wait_until("empty batches are left", SOON, || empty() >= 3);
    assert_eq!(lines(&mirror.log(), "ERROR"), Vec::<&str>::new());
    mirror.stop();
}

#[test]
fn an_open_transaction_is_reported_with_its_producer_until_it_ends() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    oracle.create_topic(west, "held-orders", 1, 1, &[]).unwrap();
    oracle.create_topic(west, "held-others", 1, 1, &[]).unwrap();
    let before = Workload::new("held-orders").seed(1);
    oracle.produce(west, &before, 10).unwrap();
    let admin = free_port();
    let more =
        "name = \"held\"\ninternal-replication-factor = 1\nopen-transaction-warning = \"1s\"";
    let mut mirror = Mirror::new(&west_to_east(west, east, &["held-.*"], more))
        .arguments(&["--admin-listen", &format!("127.0.0.1:{admin}")])
        .started();
    let open = oracle
        .produce_open(west, &Workload::new("held-orders").seed(2), 20, "held-app")
        .unwrap();
    let after = Workload::new("held-orders").seed(3);
    oracle.produce(west, &after, 30).unwrap();
    mirror.wait_for_log(
        "an open transaction on the source holds the flow back",
        SOON,
    );
    let held = || page::metric(admin, "strait_flows_held_by_transactions{link=\"held\"}");
    wait_until("the metric counts it", SOON, || held() == Some(1.0));
    let batches = source.stored_batches(0, "held-orders", 0).unwrap();
    let owner = batches.iter().find(|b| b.attributes & 0x10 != 0).unwrap();
    let log = mirror.log();
    let warnings = lines(&log, "WARN");
    let [warning] = warnings.as_slice() else {
        panic!("{log}")
    };
    for part in [
        "link=held ",
        "cluster=west ",
        "id=open-transaction ",
        "topic=held-orders partition=0 ",
        "at offset 10 (the high watermark is ",
        &format!(
            "of producer id {}, epoch {}, begun at offset 10",
            owner.producer_id, owner.producer_epoch
        ),
        "kafka-transactions.sh --bootstrap-server BROKER-OF-west abort --topic held-orders --partition 0 --start-offset 10",
    ] {
        assert!(warning.contains(part), "no {part:?} in {warning}");
    }
    // Others go on meanwhile.
    oracle
        .produce(west, &Workload::new("held-others"), 100)
        .unwrap();
    assert_mirrored(&oracle, west, east, "held-others", Isolation::ReadCommitted);
    open.commit().unwrap();
    mirror.wait_for_log(
        "the open transaction at source offset 10 is over after ",
        SOON,
    );
    assert_mirrored(&oracle, west, east, "held-orders", Isolation::ReadCommitted);
    wait_until("the metric forgets it", SOON, || held() == Some(0.0));
    assert_eq!(
        count(&mirror.log(), "an open transaction on the source holds"),
        1
    );
    mirror.stop();
}

/// Every kind in one cluster, so that one run shows whether another release takes them all.
fn write_every_kind(oracle: &Oracle, west: &str, prefix: &str) -> Vec<String> {
    let topic = |kind: &str| format!("{prefix}-{kind}");
    let append = [("message.timestamp.type", "LogAppendTime")];
    for (kind, settings) in [
        ("codecs", &[FOREVER][..]),
        ("paid", &[FOREVER]),
        ("stamped", &append),
        ("sizes", &[FOREVER]),
    ] {
        oracle
            .create_topic(west, &topic(kind), 1, 1, settings)
            .unwrap();
    }
    for (seed, codec) in (1..).zip(Codec::ALL) {
        for kind in ["codecs", "stamped"] {
            let workload = Workload::new(topic(kind)).codec(codec).seed(seed);
            let workload = workload
                .headers(HeaderSpec::Odd)
                .null_key_every(5)
                .null_value_every(7);
            oracle.produce(west, &workload, 200).unwrap();
        }
    }
    std::thread::scope(|scope| {
        for seed in 1..3 {
            let spec =
                TransactionSpec::new(format!("{prefix}-{seed}"), 10 * seed).abort_every(2 + seed);
            let workload = Workload::new(topic("paid"))
                .seed(seed)
                .transaction(spec)
                .batches(900, 2);
            scope.spawn(move || oracle.produce(west, &workload, 400).unwrap());
        }
    });
    write_mixed_sizes(oracle, west, &topic("sizes"));
    ["codecs", "paid", "stamped", "sizes"].map(topic).to_vec()
}

#[test]
fn releases_mirror_into_each_other_in_both_directions() {
    let old = KafkaCluster::start(KafkaOptions::new().version(Version::V3_9)).unwrap();
    let [_, new] = KafkaCluster::shared_pair().unwrap();
    let (old, new) = (&old.bootstrap(), &new.bootstrap());
    let oracle = Oracle::shared().unwrap();
    for (west, east, prefix) in [(old, new, "up"), (new, old, "down")] {
        let topics = write_every_kind(&oracle, west, prefix);
        let pattern = format!("{prefix}-.*");
        let mut mirror = mirror(west, east, prefix, &[&pattern], "");
        for topic in &topics {
            assert_mirrored(&oracle, west, east, topic, Isolation::ReadCommitted);
        }
        mirror.kill9();
        mirror.start();
        for topic in &topics {
            oracle
                .produce(west, &Workload::new(topic.as_str()).seed(99), 50)
                .unwrap();
            assert_mirrored(&oracle, west, east, topic, Isolation::ReadCommitted);
        }
        mirror.stop();
        let log = mirror.log();
        assert_eq!(lines(&log, "ERROR"), Vec::<&str>::new());
    }
}
