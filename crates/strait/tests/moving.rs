//! Kafka Streams and Kafka Connect run on one cluster, are stopped, and go on at the other: nothing tells that they moved.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod rig;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rig::{Mirror, wait_until};
use strait_testkit::kafka::{
    Codec, DumpOptions, Isolation, KafkaCluster, Oracle, PartitionDump, RecordSpec, run_java,
};

const SOON: Duration = Duration::from_secs(60);

/// The book's example between these clusters.
fn mirror(from: &str, to: &str) -> Mirror {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("book/examples/move-applications.toml");
    let example = std::fs::read_to_string(book).unwrap();
    let quick = "[[links]]\nname = \"moving\"\nrefresh-topics = \"1s\"\nrefresh-groups = \"1s\"\nreplicate-heartbeats = false";
    let toml = example
        .replace("old-1:9092,old-2:9092", from)
        .replace("new-1:9092,new-2:9092", to)
        .replace("[[links]]", quick);
    Mirror::new(&toml)
}

fn java(program: &str, arguments: &[&str]) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/moving");
    run_java(&source.join(program), arguments).unwrap()
}

/// What consumers of committed records are shown; nothing of a topic that is not there.
fn held(oracle: &Oracle, kafka: &str, topic: &str) -> Vec<PartitionDump> {
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let dump = oracle.dump(kafka, topic, Isolation::ReadCommitted, options);
    dump.map(|dump| dump.partitions).unwrap_or_default()
}

/// By topic and partition, what the group has still to read.
fn unread(oracle: &Oracle, kafka: &str, group: &str) -> BTreeMap<(String, i32), Vec<String>> {
    let mut unread = BTreeMap::new();
    for ((topic, partition), offset) in oracle.committed_offsets(kafka, group).unwrap() {
        let dumps = held(oracle, kafka, &topic);
        let records = dumps.into_iter().filter(|d| d.partition == partition);
        let records = records.flat_map(|d| d.records);
        let left = records.filter(|r| r.offset >= offset).map(|r| r.hash);
        unread.insert((topic, partition), left.collect());
    }
    unread
}

struct Sides {
    oracle: Oracle,
    west: String,
    east: String,
}

impl Sides {
    /// Waits until the topics are the same on both sides, and the group has the same records before it.
    fn wait_moved(&self, topics: &[&str], group: &str) {
        let oracle = &self.oracle;
        wait_until(&format!("{group} can move"), SOON, || {
            let same = |topic: &&str| {
                let hashes = |kafka| {
                    let partitions = held(oracle, kafka, topic).into_iter();
                    let hash = |p: PartitionDump| p.records.into_iter().map(|r| r.hash).collect();
                    partitions.map(hash).collect::<Vec<Vec<String>>>()
                };
                let source = hashes(&self.west);
                !source.is_empty() && source == hashes(&self.east)
            };
            let before = unread(oracle, &self.west, group);
            !before.is_empty()
                && topics.iter().all(same)
                && before == unread(oracle, &self.east, group)
        });
    }

    fn write_lines(&self, kafka: &str, numbers: std::ops::Range<u64>) {
        let line = |n: u64| RecordSpec {
            partition: i32::try_from(n % 2).unwrap(),
            value: Some(format!("seven{} eleven{}", n % 7, n % 11).into_bytes()),
            ..RecordSpec::default()
        };
        let lines: Vec<RecordSpec> = numbers.map(line).collect();
        self.oracle
            .send(kafka, "lines", Codec::Lz4, &lines)
            .unwrap();
    }
}

/// Both at once, by one link: each part is told apart by its panic.
#[test]
fn streams_and_connect_go_on_at_the_other_cluster() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let sides = Sides {
        oracle: Oracle::shared().unwrap(),
        west: west.bootstrap(),
        east: east.bootstrap(),
    };
    for (topic, partitions) in [("lines", 2), ("counts", 2), ("through-connect", 1)] {
        let (oracle, west) = (&sides.oracle, &sides.west);
        oracle
            .create_topic(west, topic, partitions, 1, &[])
            .unwrap();
    }
    let mut mirror = mirror(&sides.west, &sides.east).started();
    let folder = mirror.folder().to_path_buf();
    both(
        || count_here(&sides, &folder),
        || copy_here(&sides, &folder),
    );
    mirror.stop();
    both(
        || count_there(&sides, &folder),
        || copy_there(&sides, &folder),
    );
}

fn both(one: impl FnOnce() + Send, other: impl FnOnce()) {
    std::thread::scope(|threads| {
        threads.spawn(one);
        other();
    });
}

/// A Streams application with a repartition topic and a store, stopped before it has read all of its input.
fn count_here(sides: &Sides, folder: &Path) {
    sides.write_lines(&sides.west, 0..300);
    let state = folder.join("here");
    java(
        "WordCounter.java",
        &[&sides.west, state.to_str().unwrap(), "500"],
    );
    sides.write_lines(&sides.west, 300..400);
    let topics = [
        "lines",
        "counts",
        "word-counter-counted-changelog",
        "word-counter-by-word-repartition",
    ];
    sides.wait_moved(&topics, "word-counter");
}

/// It counts on, with no state but that of its changelog.
fn count_there(sides: &Sides, folder: &Path) {
    sides.write_lines(&sides.east, 400..500);
    let state = folder.join("there");
    let counted = java(
        "WordCounter.java",
        &[&sides.east, state.to_str().unwrap(), "1000"],
    );
    let mut truth: BTreeMap<String, u64> = BTreeMap::new();
    for n in 0..500 {
        *truth.entry(format!("seven{}", n % 7)).or_default() += 1;
        *truth.entry(format!("eleven{}", n % 11)).or_default() += 1;
    }
    let lines: Vec<String> = truth.iter().map(|(w, n)| format!("{w} {n}")).collect();
    assert_eq!(counted.lines().collect::<Vec<_>>(), lines);
    // Each count was told once, wherever it was made.
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let records = held(&sides.oracle, &sides.east, "counts").into_iter();
    for record in records.flat_map(|p| p.records) {
        let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap()).unwrap();
        let counts = told.entry(text(record.key)).or_default();
        counts.push(text(record.value).parse().unwrap());
    }
    for (word, count) in truth {
        assert_eq!(told[&word], (1..=count).collect::<Vec<u64>>(), "{word}");
    }
}

/// A connector that reads a file into a topic, and one that writes the topic to another file.
fn copy_here(sides: &Sides, folder: &Path) {
    write_file(folder, 100);
    run_worker(&sides.west, folder, &["100", "create"]);
    let topics = [
        "through-connect",
        "connect-moving-configs",
        "connect-moving-offsets",
        "connect-moving-status",
    ];
    sides.wait_moved(&topics, "connect-writer");
}

/// The worker is told of no connector there.
fn copy_there(sides: &Sides, folder: &Path) {
    write_file(folder, 150);
    run_worker(&sides.east, folder, &["150"]);
    let out = std::fs::read_to_string(folder.join("out")).unwrap();
    let lines: Vec<String> = (0..150).map(|n| format!("line {n}")).collect();
    assert_eq!(out.lines().collect::<Vec<_>>(), lines);
    let records: Vec<Vec<u8>> = held(&sides.oracle, &sides.east, "through-connect")
        .into_iter()
        .flat_map(|p| p.records)
        .map(|r| r.value.unwrap())
        .collect();
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    assert_eq!(records, lines);
}

fn write_file(folder: &Path, count: u64) {
    let lines: String = (0..count).map(|n| format!("line {n}\n")).collect();
    std::fs::write(folder.join("in"), lines).unwrap();
}

fn run_worker(kafka: &str, folder: &Path, more: &[&str]) {
    let begin = [kafka, folder.to_str().unwrap()];
    java("Worker.java", &[&begin, more].concat());
}
