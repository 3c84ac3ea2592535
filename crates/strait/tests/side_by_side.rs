//! One scenario through MirrorMaker 2 and through Strait, with the same file: what differs is listed in the book.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use rig::{Mirror, wait_until};
use strait_testkit::kafka::{
    Codec, DumpOptions, Isolation, KafkaCluster, KafkaOptions, MirrorMaker, Oracle,
    TransactionSpec, Workload, run_java,
};

const SOON: Duration = Duration::from_secs(240);
/// How many records each topic has when the mirrors start; in payments whole transactions: two committed, one aborted.
const FIRST: u64 = 60;

/// A cluster that allows its users nothing; the harness itself may do everything.
fn guarded(name: &str) -> String {
    let options = || {
        KafkaOptions::new()
            .property(
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            )
            .property("super.users", "User:ANONYMOUS")
    };
    KafkaCluster::shared(name, options).unwrap().bootstrap()
}

fn java(folder: &str, program: &str, arguments: &[&str]) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let printed = run_java(&source.join(folder).join(program), arguments).unwrap();
    printed.lines().map(str::to_owned).collect()
}

/// The user's file, quicker: everything that has an interval is done each second.
fn file(source: &str, target: &str) -> String {
    let mut text = format!(
        "clusters = A, B\nA.bootstrap.servers = {source}\nB.bootstrap.servers = {target}\n\
         A->B.enabled = true\nA->B.topics = .*\nA->B.topics.exclude = secret.*, .*[\\\\-\\\\.]internal, .*\\\\.replica, __.*\n\
         B->A.enabled = false\nsync.group.offsets.enabled = true\n"
    );
    for key in [
        "refresh.topics",
        "refresh.groups",
        "sync.topic.configs",
        "sync.topic.acls",
        "emit.checkpoints",
        "sync.group.offsets",
        "emit.heartbeats",
    ] {
        text += &format!("{key}.interval.seconds = 1\n");
    }
    for key in [
        "replication",
        "checkpoints.topic.replication",
        "heartbeats.topic.replication",
        "offset-syncs.topic.replication",
        "config.storage.replication",
        "offset.storage.replication",
        "status.storage.replication",
    ] {
        text += &format!("{key}.factor = 1\n");
    }
    text
}

/// A name, how many partitions, settings.
type Topic = (&'static str, i32, &'static [(&'static str, &'static str)]);
/// A group, and what it has read: topic, partition, offset.
type Commits = (&'static str, &'static [(&'static str, i32, i64)]);

/// Where the groups stop.
const GROUPS: [Commits; 4] = [
    (
        "billing",
        &[("orders", 0, 150), ("orders", 1, 400), ("payments", 0, 600)],
    ),
    (
        "reports",
        &[
            ("orders", 2, 0),
            ("invoices", 0, 1_200),
            ("secret-plans", 0, 10),
        ],
    ),
    ("console-consumer-1", &[("orders", 0, 7)]),
    ("ahead", &[("orders", 0, 390)]),
];

struct Scenario {
    oracle: Oracle,
    source: String,
    with_mm2: String,
    with_strait: String,
}

/// What is written to a topic, from this record on.
fn load(topic: &str, first: u64) -> Workload {
    let load = Workload::new(topic).codec(Codec::Zstd).keys(50).seed(7);
    let load = load.first_id(first);
    match topic {
        "payments" => load.transaction(TransactionSpec::new("payments", 20).abort_every(3)),
        _ => load,
    }
}

impl Scenario {
    /// Topics with a few records each, what users may do, and groups that have read one record at most.
    fn begin(&self) {
        let topics: [Topic; 6] = [
            (
                "orders",
                3,
                &[
                    ("retention.ms", "86400000"),
                    ("max.message.bytes", "2097152"),
                    ("min.insync.replicas", "1"),
                ],
            ),
            ("invoices", 1, &[("cleanup.policy", "compact")]),
            ("payments", 1, &[("segment.ms", "3600000")]),
            ("secret-plans", 1, &[]),
            ("audit.internal", 1, &[]),
            ("B.came-from-there", 1, &[]),
        ];
        for (topic, partitions, configs) in topics {
            let made = self
                .oracle
                .create_topic(&self.source, topic, partitions, 1, configs);
            made.unwrap();
            self.produce(topic, 0..FIRST);
        }
        let acls = [
            "orders LITERAL User:alice * READ ALLOW",
            "orders LITERAL User:alice * WRITE ALLOW",
            "orders LITERAL User:bob 10.1.2.3 ALL ALLOW",
            "orders LITERAL User:eve * WRITE DENY",
            "ord PREFIXED User:carol * READ ALLOW",
            "secret-plans LITERAL User:alice * READ ALLOW",
        ];
        java(
            "look",
            "Look.java",
            &[&["grant", &self.source], &acls[..]].concat(),
        );
        for (group, offsets) in GROUPS {
            let begun = offsets
                .iter()
                .map(|(topic, partition, offset)| (*topic, *partition, *offset.min(&1)));
            self.commit(group, &begun.collect::<Vec<_>>());
        }
    }

    /// The rest of the records, and the groups go on to somewhere in them.
    fn fill(&self) {
        for topic in ["orders", "invoices", "payments", "secret-plans"] {
            self.produce(topic, FIRST..1_200);
        }
        for (group, offsets) in GROUPS {
            self.commit(group, offsets);
        }
    }

    fn produce(&self, topic: &str, records: Range<u64>) {
        let load = load(topic, records.start);
        let count = records.end - records.start;
        self.oracle.produce(&self.source, &load, count).unwrap();
    }

    fn commit(&self, group: &str, offsets: &[(&str, i32, i64)]) {
        let committed = self.oracle.commit_offsets(&self.source, group, offsets);
        committed.unwrap();
    }

    /// What happens while both run.
    fn change(&self) {
        let (oracle, source) = (&self.oracle, &self.source);
        let set = [("retention.bytes", "1000000000")];
        oracle
            .alter_topic_configs(source, "orders", &set, &["retention.ms"])
            .unwrap();
        oracle.create_partitions(source, "orders", 5).unwrap();
        oracle.create_topic(source, "later", 2, 1, &[]).unwrap();
        self.produce("later", 0..FIRST);
        self.commit("billing", &[("later", 0, 1)]);
        self.wait_commits("billing", 4);
        self.produce("later", FIRST..500);
        self.produce("orders", 10_000..10_500);
        self.commit("billing", &[("later", 0, 100), ("payments", 0, 700)]);
    }
}

/// What stands on a target: the lines of its picture without offsets, how many records each mirrored topic shows, and the
/// offsets by group and partition.
struct Picture {
    lines: BTreeSet<String>,
    commits: BTreeMap<(String, String, i32), i64>,
}

impl Scenario {
    fn picture(&self, kafka: &str) -> Picture {
        let mut lines = BTreeSet::new();
        let mut commits = BTreeMap::new();
        for line in java("side_by_side", "Picture.java", &[kafka]) {
            let words: Vec<&str> = line.split(' ').collect();
            let translated = words[0] == "commit" || words[0] == "checkpoint";
            lines.insert(if translated {
                words[..3].join(" ")
            } else {
                line.clone()
            });
            if words[0] == "commit" {
                let (topic, partition) = words[2].rsplit_once('-').unwrap();
                let at = (
                    words[1].to_owned(),
                    topic.to_owned(),
                    partition.parse().unwrap(),
                );
                commits.insert(at, words[3].parse().unwrap());
            }
            if words[0] == "topic" && words[1].starts_with("A.") && !beside(words[1]) {
                let dump = self
                    .oracle
                    .digest(kafka, words[1], Isolation::ReadCommitted);
                lines.insert(format!("records {}={}", words[1], dump.unwrap().count()));
            }
        }
        Picture { lines, commits }
    }

    /// How many records a group that reads only what was committed has before it.
    fn unread(&self, kafka: &str, topic: &str, partition: i32, offset: i64) -> usize {
        let options = DumpOptions {
            hashes: true,
            ..DumpOptions::default()
        };
        let dump = self
            .oracle
            .dump(kafka, topic, Isolation::ReadCommitted, options);
        let partitions = dump.unwrap().partitions.into_iter();
        let here = partitions.filter(|p| p.partition == partition);
        here.flat_map(|p| p.records)
            .filter(|r| r.offset >= offset)
            .count()
    }

    /// For which of its partitions each group has more before it on Strait's target than on the source; it never has less.
    fn apart(&self, strait: &Picture) -> Vec<String> {
        let mut apart = Vec::new();
        for ((group, topic, partition), offset) in &strait.commits {
            let (name, read) = self.read(group, topic, *partition);
            let unread = self.unread(&self.source, name, *partition, read);
            let here = self.unread(&self.with_strait, topic, *partition, *offset);
            assert!(
                here >= unread,
                "{group} {topic}-{partition} leaves something out"
            );
            if here != unread {
                apart.push(format!(
                    "{group} {topic}-{partition}: {here} instead of {unread}"
                ));
            }
        }
        apart
    }

    /// The source topic of a mirrored one, and what the group has read of it.
    fn read<'t>(&self, group: &str, topic: &'t str, partition: i32) -> (&'t str, i64) {
        let source = self.oracle.committed_offsets(&self.source, group).unwrap();
        let name = topic.strip_prefix("A.").unwrap();
        (name, source[&(name.to_owned(), partition)])
    }

    /// Both, and how many records of payments each mirrors: only one of them copies the aborted transactions.
    fn targets(&self) -> [(&'static str, &str, u64); 2] {
        [
            ("MirrorMaker 2", &self.with_mm2, 1_200),
            ("Strait", &self.with_strait, 800),
        ]
    }

    /// Waits until both have this group's commits, for so many partitions.
    ///
    /// MirrorMaker 2 has at most ten offset-syncs under way, and of what has to wait only the newest for each partition: where its
    /// first one is lost so, a group in front of the next is never translated. So its first records are waited for alone.
    fn wait_commits(&self, group: &str, partitions: usize) {
        for (who, target, _) in self.targets() {
            wait_until(&format!("{group} is committed by {who}"), 2 * SOON, || {
                let committed = self.oracle.committed_offsets(target, group);
                committed.unwrap().len() == partitions
            });
        }
    }

    /// Waits until both have what there was before anything changed.
    fn wait_begun(&self) {
        for (who, target, payments) in self.targets() {
            wait_until(&format!("all is mirrored by {who}"), SOON, || {
                let all = |topic, records| {
                    let dump = self.oracle.digest(target, topic, Isolation::ReadCommitted);
                    dump.is_ok_and(|dump| dump.count() == records)
                };
                all("A.orders", 1_200) && all("A.invoices", 1_200) && all("A.payments", payments)
            });
            wait_until(&format!("groups have gone on with {who}"), SOON, || {
                let read = self.oracle.committed_offsets(target, "reports").unwrap();
                read.get(&("A.invoices".to_owned(), 0)) > Some(&1)
            });
        }
    }
}

/// Whether a topic goes on growing beside what is mirrored.
fn beside(topic: &str) -> bool {
    topic.ends_with("heartbeats") || topic.ends_with(".internal")
}

/// What only MirrorMaker 2 makes (-) and what only Strait does (+), as the book has it.
fn listed() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("book/beside-mirror-maker.md");
    let page = std::fs::read_to_string(page).unwrap();
    let block = page.split("```diff\n").nth(1).unwrap();
    let lines = block.split("```").next().unwrap().lines();
    lines.map(str::to_owned).collect()
}

#[test]
fn the_book_lists_what_differs() {
    let scenario = Scenario {
        oracle: Oracle::shared().unwrap(),
        source: guarded("A"),
        with_mm2: guarded("B"),
        with_strait: guarded("C"),
    };
    scenario.begin();
    let ours = file(&scenario.source, &scenario.with_strait);
    let mut mirror = Mirror::with_file("mm2.properties", &ours);
    let theirs = mirror.folder().join("theirs.properties");
    std::fs::write(&theirs, file(&scenario.source, &scenario.with_mm2)).unwrap();
    let other = MirrorMaker::start(&theirs, &mirror.folder().join("theirs.log")).unwrap();
    mirror.start();
    scenario.wait_commits("billing", 3);
    scenario.wait_commits("reports", 2);
    scenario.fill();
    scenario.wait_begun();
    scenario.change();
    compare(&scenario, &listed());
    mirror.stop();
    other.kill9().unwrap();
}

/// Waits until both have followed, and compares.
fn compare(scenario: &Scenario, listed: &BTreeSet<String>) {
    let begun = Instant::now();
    let (mm2, strait) = loop {
        let (mm2, strait) = (
            scenario.picture(&scenario.with_mm2),
            scenario.picture(&scenario.with_strait),
        );
        let only = |sign: &str, one: &Picture, other: &Picture| {
            let lines = one.lines.difference(&other.lines);
            lines
                .map(|line| format!("{sign} {line}"))
                .collect::<BTreeSet<_>>()
        };
        let mut differ = only("-", &mm2, &strait);
        differ.extend(only("+", &strait, &mm2));
        let followed = strait.lines.contains("records A.later=500")
            && strait.lines.contains("commit billing A.later-0");
        let followed_alike = followed && differ == *listed;
        // The offsets of one picture may be older than others of it: they are written one after the other.
        let apart = if followed_alike {
            scenario.apart(&strait)
        } else {
            Vec::new()
        };
        if followed_alike && apart.is_empty() {
            break (mm2, strait);
        }
        if begun.elapsed() > SOON {
            assert_eq!(&differ, listed);
            assert!(followed, "not all has followed: {:?}", strait.lines);
            panic!("a group has something left out or twice: {apart:?}");
        }
    };
    let topics = ["orders", "invoices", "later"].map(|topic| format!("A.{topic}"));
    for topic in &topics {
        let sides =
            [&scenario.with_mm2, &scenario.with_strait].map(|c| (c.as_str(), topic.as_str()));
        let compared = scenario
            .oracle
            .compare(sides[0], sides[1], Isolation::ReadCommitted, SOON);
        let compared = compared.unwrap();
        assert!(compared.equal, "{topic}: {compared}");
    }
    // Neither leaves anything out for a group; Strait gives it nothing twice.
    let mut twice = 0;
    assert_eq!(scenario.apart(&strait), Vec::<String>::new());
    for (group, topic, partition) in strait.commits.keys() {
        let (name, read) = scenario.read(group, topic, *partition);
        let unread = scenario.unread(&scenario.source, name, *partition, read);
        let theirs = mm2.commits[&(group.clone(), topic.clone(), *partition)];
        let theirs = scenario.unread(&scenario.with_mm2, topic, *partition, theirs);
        assert!(theirs >= unread, "{group} {topic}-{partition}");
        twice += theirs - unread;
    }
    assert!(
        twice > 0,
        "MirrorMaker 2 is exact now: the book says otherwise"
    );
}
