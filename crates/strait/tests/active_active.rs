//! Links that go both ways under the same names, on real Kafka: both sides end with the same records, each once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod rig;

use std::time::{Duration, Instant};

use rig::{Mirror, pass};
use strait_testkit::kafka::{
    Codec, DumpOptions, HarnessError, Isolation, KafkaCluster, KafkaOptions, Oracle, RecordSpec,
    TransactionSpec, Workload,
};

const SOON: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 2;

/// The records of a topic on a cluster, by their hashes, sorted; partition by partition.
fn held(oracle: &Oracle, kafka: &str, topic: &str) -> Vec<Vec<String>> {
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let Ok(dump) = oracle.dump(kafka, topic, Isolation::ReadCommitted, options) else {
        return Vec::new();
    };
    let partitions = dump.partitions.into_iter().map(|partition| {
        let mut hashes: Vec<String> = partition.records.into_iter().map(|r| r.hash).collect();
        hashes.sort();
        hashes
    });
    partitions.collect()
}

/// Waits until all of these clusters hold the same records and as many as `count`; none may stand twice.
fn wait_for_equal(oracle: &Oracle, clusters: &[&str], topic: &str, count: usize) {
    let begun = Instant::now();
    loop {
        let sides: Vec<_> = clusters.iter().map(|c| held(oracle, c, topic)).collect();
        let counts: Vec<usize> = sides
            .iter()
            .map(|side| side.iter().map(Vec::len).sum())
            .collect();
        for (side, cluster) in sides.iter().zip(clusters) {
            for partition in side {
                let twice = partition.windows(2).find(|pair| pair[0] == pair[1]);
                assert!(
                    twice.is_none(),
                    "{topic} stands twice on {cluster}: {counts:?}"
                );
            }
        }
        if counts.iter().all(|c| *c == count) && sides.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        assert!(begun.elapsed() < SOON, "{topic}: {counts:?} of {count}");
    }
}

fn link(from: &str, to: &str, topic: &str, more: &str) -> String {
    format!(
        "[[links]]\nname = \"{topic}-{from}-{to}\"\nsource = {from:?}\ntarget = {to:?}\ntopics = [{topic:?}]\nnaming = \"identity\"\n\
         refresh-topics = \"1s\"\nsync-topic-configs = false\ninternal-replication-factor = 1\n{more}\n"
    )
}

fn local(from: &str, to: &str, topic: &str, start: &str) -> String {
    link(
        from,
        to,
        topic,
        // The clusters have heartbeats of other tests' links.
        &format!("forward = \"local\"\nreplicate-heartbeats = false\nstart = {start:?}"),
    )
}

/// Each record is told by the id it begins with.
fn load(topic: &str, first_id: u64) -> Workload {
    Workload::new(topic)
        .first_id(first_id)
        .codec(Codec::Lz4)
        .sizes(20, 200)
}

#[test]
fn both_sides_get_each_record_once_whatever_is_killed() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let third = KafkaCluster::shared("third", KafkaOptions::new).unwrap();
    let (west, east, third) = (west.bootstrap(), east.bootstrap(), third.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let topic = "both-ways";
    for kafka in [&west, &east, &third] {
        oracle
            .create_topic(kafka, topic, PARTITIONS, 1, &[])
            .unwrap();
    }
    // West has a history, which east is to get.
    oracle.produce(&west, &load(topic, 0), 300).unwrap();
    let clusters = format!("[clusters]\nwest = {west:?}\neast = {east:?}\n");
    let pair = local("west", "east", topic, "earliest") + &local("east", "west", topic, "latest");
    let mut mirror = Mirror::new(&format!("{clusters}{pair}")).started();
    wait_for_equal(&oracle, &[&west, &east], topic, 300);

    // Applications on both sides: new producers all the time, some without a producer id, some with transactions.
    let mut expected = 300;
    for round in 0_u64..4 {
        for (side, kafka) in [(0, &west), (1, &east)] {
            let first = 10_000 * (2 * round + side + 1);
            let one = load(topic, first);
            let other = load(topic, first + 1_000).not_idempotent();
            let id = format!("both-ways-{round}-{side}");
            let third = load(topic, first + 2_000).transaction(TransactionSpec::new(id, 20));
            oracle.produce(kafka, &one, 150).unwrap();
            oracle.produce(kafka, &other, 50).unwrap();
            oracle.produce(kafka, &third, 100).unwrap();
            expected += 300;
            pass(Duration::from_millis(300 * (round + side)));
            mirror.kill9();
            mirror.start();
        }
    }
    wait_for_equal(&oracle, &[&west, &east], topic, expected);
    let log = mirror.log();
    for id in ["target-lost", "foreign-writer", "target-has-data"] {
        assert!(!log.contains(&format!("id={id}")), "{id}");
    }
    mirror.stop();

    // A third cluster joins. All that it gets comes from the very first offsets, over batches of every session there was.
    let clusters = format!("{clusters}third = {third:?}\n");
    let mesh = [("west", "third"), ("east", "third")]
        .map(|(from, to)| local(from, to, topic, "earliest"))
        .concat()
        + &[("third", "west"), ("third", "east")]
            .map(|(from, to)| local(from, to, topic, "latest"))
            .concat();
    let mut mirror = Mirror::new(&format!("{clusters}{pair}{mesh}")).started();
    wait_for_equal(&oracle, &[&west, &east, &third], topic, expected);
    for (first, kafka) in [(900_000, &west), (910_000, &east), (920_000, &third)] {
        oracle.produce(kafka, &load(topic, first), 100).unwrap();
    }
    mirror.kill9();
    mirror.start();
    wait_for_equal(&oracle, &[&west, &east, &third], topic, expected + 300);
    mirror.stop();
}

/// Links that begin at the end begin at the beginning of what came after them.
#[test]
fn a_topic_that_comes_later_is_mirrored_from_its_first_record_on() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let both = |topic: &str| {
        oracle.create_topic(&west, topic, 1, 1, &[]).unwrap();
        // The link may come first.
        let created = oracle.create_topic(&east, topic, 1, 1, &[]);
        let there = |e: &HarnessError| e.to_string().contains("TopicExistsException");
        assert!(created.as_ref().err().is_none_or(there), "{created:?}");
    };
    both("later-first");
    oracle.produce(&west, &load("later-first", 0), 50).unwrap();
    let late = |from: &str, to: &str| {
        local(from, to, "later", "latest").replace("[\"later\"]", "[\"later-.*\"]")
    };
    let toml = format!(
        "[clusters]\nwest = {west:?}\neast = {east:?}\n{}{}",
        late("west", "east"),
        late("east", "west")
    );
    let mut mirror = Mirror::new(&toml).started();
    mirror.wait_for_log(
        "link=later-west-east flows=1 running=1 troubled=0 mirroring",
        SOON,
    );
    mirror.wait_for_log(
        "link=later-east-west flows=1 running=1 troubled=0 mirroring",
        SOON,
    );
    both("later-second");
    for (first, kafka) in [(1_000, &west), (2_000, &east)] {
        let topic = "later-second";
        oracle.produce(kafka, &load(topic, first), 100).unwrap();
        oracle
            .produce(kafka, &load("later-first", first), 100)
            .unwrap();
    }
    wait_for_equal(&oracle, &[&west, &east], "later-second", 200);
    let counts = || [&west, &east].map(|c| held(&oracle, c, "later-first").concat().len());
    let begun = Instant::now();
    // Of what was there before nothing is copied.
    while counts() != [250, 200] {
        assert!(begun.elapsed() < SOON, "{:?}", counts());
    }
    mirror.stop();
}

#[test]
fn a_link_out_of_the_round_forwards_what_links_brought() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let third = KafkaCluster::shared("third", KafkaOptions::new).unwrap();
    let (west, east, third) = (west.bootstrap(), east.bootstrap(), third.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let topic = "chained";
    for kafka in [&west, &east] {
        oracle
            .create_topic(kafka, topic, PARTITIONS, 1, &[])
            .unwrap();
    }
    let toml = format!(
        "[clusters]\nwest = {west:?}\neast = {east:?}\nthird = {third:?}\n{}{}{}",
        local("west", "east", topic, "earliest"),
        local("east", "west", topic, "earliest"),
        link("east", "third", topic, "")
    );
    let mut mirror = Mirror::new(&toml).started();
    oracle.produce(&west, &load(topic, 0), 200).unwrap();
    oracle.produce(&east, &load(topic, 1_000), 200).unwrap();
    wait_for_equal(&oracle, &[&west, &east, &third], topic, 400);
    mirror.stop();
}

fn copy_registry(oracle: &Oracle, from: &str, to: &str) {
    let registry = "mm2-strait.internal";
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let dump = oracle.dump(from, registry, Isolation::ReadUncommitted, options);
    let partitions = dump.unwrap().partitions.into_iter();
    let records: Vec<RecordSpec> = partitions
        .flat_map(|partition| partition.records)
        .map(|record| RecordSpec {
            key: record.key,
            value: record.value,
            ..RecordSpec::default()
        })
        .collect();
    oracle
        .create_topic(to, registry, 1, 1, &[("cleanup.policy", "compact")])
        .unwrap();
    oracle.send(to, registry, Codec::None, &records).unwrap();
}

/// A register that came from another cluster cannot tell what links brought here.
#[test]
fn a_copied_register_stops_the_link() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let copy = KafkaCluster::shared("copied", KafkaOptions::new).unwrap();
    let (west, east, copy) = (west.bootstrap(), east.bootstrap(), copy.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let topic = "copied";
    for kafka in [&west, &east, &copy] {
        oracle
            .create_topic(kafka, topic, PARTITIONS, 1, &[])
            .unwrap();
    }
    let clusters = format!("[clusters]\nwest = {west:?}\neast = {east:?}\ncopy = {copy:?}\n");
    let toml = format!("{clusters}{}", local("west", "east", topic, "earliest"));
    let mut mirror = Mirror::new(&toml).started();
    oracle.produce(&west, &load(topic, 0), 20).unwrap();
    wait_for_equal(&oracle, &[&west, &east], topic, 20);
    mirror.stop();
    copy_registry(&oracle, &east, &copy);
    oracle.produce(&copy, &load(topic, 1_000), 20).unwrap();
    let toml = format!("{clusters}{}", local("copy", "west", topic, "earliest"));
    let mut mirror = Mirror::new(&toml).started();
    mirror.wait_for_log(
        "id=register-copied mm2-strait.internal on cluster copy, which is ",
        SOON,
    );
    assert!(!mirror.wait(SOON).success());
    assert_eq!(held(&oracle, &west, topic), held(&oracle, &east, topic));
}
