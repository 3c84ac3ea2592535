//! The eight uses of the book's page, each run with the page's own file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod example;
mod rig;
mod wildcard;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rig::{Mirror, wait_until};
use strait_testkit::kafka::{DumpOptions, Isolation, KafkaCluster, KafkaOptions, Oracle, Workload};

const SOON: Duration = Duration::from_secs(60);

struct Sites {
    oracle: Oracle,
    paris: String,
    tokyo: String,
    berlin: String,
}

fn sites() -> Sites {
    let [paris, tokyo] = KafkaCluster::shared_pair().unwrap();
    let berlin = KafkaCluster::shared("third", KafkaOptions::new).unwrap();
    Sites {
        oracle: Oracle::shared().unwrap(),
        paris: paris.bootstrap(),
        tokyo: tokyo.bootstrap(),
        berlin: berlin.bootstrap(),
    }
}

/// The example on these clusters, not started; its text stands in the page as it is in the file.
fn mirror(file: &str, addresses: &[(&str, &str)]) -> Mirror {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("book");
    let text = std::fs::read_to_string(book.join("examples").join(file)).unwrap();
    let shown = text.split_once('\n').unwrap().1;
    let page = std::fs::read_to_string(book.join("uses.md")).unwrap();
    assert!(page.contains(shown), "the page shows another {file}");
    // Names of links are kept apart on clusters that several tests share.
    let mut links = example::example(file, addresses, example::QUICK);
    for n in 1..=text.matches("[[links]]").count() {
        let name = format!("[[ links]]\nname = \"{file}-{n}\"\n");
        links = links.replacen("[[links]]\n", &name, 1);
    }
    Mirror::new(&links.replace("[[ links]]", "[[links]]"))
}

fn wait_caught_up(mirror: &Mirror, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(["wait", "caught-up", "--timeout", "1m"])
        .args(more)
        .arg(mirror.folder().join("mirror.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.into_owned())
}

fn caught_up(mirror: &Mirror) {
    let (code, said) = wait_caught_up(mirror, &[]);
    assert_eq!(code, Some(0), "{said}\n{}", mirror.tail());
}

impl Sites {
    fn create(&self, kafka: &str, topic: &str) {
        self.oracle.create_topic(kafka, topic, 2, 1, &[]).unwrap();
    }

    fn produce(&self, kafka: &str, topic: &str, seed: u64, numbers: std::ops::Range<u64>) {
        let load = Workload::new(topic).seed(seed).first_id(numbers.start);
        let count = numbers.end - numbers.start;
        self.oracle.produce(kafka, &load, count).unwrap();
    }

    fn topics(&self, kafka: &str, beginning: &str) -> Vec<String> {
        let mut topics = self.oracle.list_topics(kafka).unwrap();
        topics.retain(|topic| topic.starts_with(beginning));
        topics.sort();
        topics
    }

    fn assert_equal(&self, from: (&str, &str), to: (&str, &str)) {
        let isolation = Isolation::ReadCommitted;
        let compared = self.oracle.compare(from, to, isolation, SOON).unwrap();
        assert!(compared.equal, "{from:?} to {to:?}: {compared}");
    }

    fn read(&self, kafka: &str, group: &str, topic: &str, count: u64) -> Vec<u64> {
        let read = self
            .oracle
            .consume_group(kafka, (group, topic), count, "earliest");
        read.unwrap()
    }

    fn committed(&self, kafka: &str, group: &str, topic: &str) -> i64 {
        let committed = self.oracle.committed_offsets(kafka, group).unwrap();
        let of_topic = committed.iter().filter(|((name, _), _)| name == topic);
        of_topic.map(|(_, offset)| offset).sum()
    }
}

#[test]
fn distribution() {
    let all = sites();
    for topic in ["stock.tokyo", "stock.berlin"] {
        all.create(&all.paris, topic);
        all.produce(&all.paris, topic, 1, 0..100);
    }
    let addresses = [
        ("paris", all.paris.as_str()),
        ("tokyo", &all.tokyo),
        ("berlin", &all.berlin),
    ];
    let mut mirror = mirror("use-distribution.toml", &addresses).started();
    caught_up(&mirror);
    for (kafka, topic) in [(&all.tokyo, "stock.tokyo"), (&all.berlin, "stock.berlin")] {
        let remote = format!("paris.{topic}");
        assert_eq!(all.topics(kafka, "paris.stock"), [remote.as_str()]);
        all.assert_equal((&all.paris, topic), (kafka, &remote));
    }
    mirror.stop();
}

#[test]
fn broadcast() {
    let all = sites();
    all.create(&all.paris, "prices");
    all.produce(&all.paris, "prices", 1, 0..100);
    let addresses = [
        ("paris", all.paris.as_str()),
        ("tokyo", &all.tokyo),
        ("berlin", &all.berlin),
    ];
    let mut mirror = mirror("use-broadcast.toml", &addresses).started();
    caught_up(&mirror);
    for kafka in [&all.tokyo, &all.berlin] {
        all.assert_equal((&all.paris, "prices"), (kafka, "paris.prices"));
    }
    mirror.stop();
}

#[test]
fn isolation() {
    let all = sites();
    all.create(&all.paris, "clicks");
    all.produce(&all.paris, "clicks", 1, 0..100);
    // Production has a group of the same name, which is another one.
    let read = all.read(&all.paris, "clicks-report", "clicks", 40);
    assert_eq!(read.len(), 40);
    let addresses = [("paris", all.paris.as_str()), ("berlin", &all.berlin)];
    let mut mirror = mirror("use-isolation.toml", &addresses).started();
    caught_up(&mirror);
    all.assert_equal((&all.paris, "clicks"), (&all.berlin, "clicks"));
    // With groups this would wait until their offsets are there.
    let (code, said) = wait_caught_up(&mirror, &["--groups"]);
    assert_eq!(code, Some(2), "{said}");
    let read = all.read(&all.berlin, "clicks-report", "clicks", 1_000);
    assert_eq!(read.len(), 100, "the readers there are other ones");
    // Nothing is written to production.
    let written = |topic: &String| topic == "heartbeats" || topic.ends_with("berlin.internal");
    let topics = all.oracle.list_topics(&all.paris).unwrap();
    assert!(!topics.iter().any(written), "{topics:?}");
    mirror.stop();
}

#[test]
fn aggregation() {
    let all = sites();
    let sources = [(&all.paris, 1), (&all.tokyo, 2)];
    for (kafka, seed) in sources {
        all.create(kafka, "sensors");
        all.produce(kafka, "sensors", seed, 0..300);
    }
    // As the second one of two links finds it: with records of others.
    all.create(&all.berlin, "sensors.all");
    all.produce(&all.berlin, "sensors.all", 3, 0..10);
    let addresses = [
        ("paris", all.paris.as_str()),
        ("tokyo", &all.tokyo),
        ("berlin", &all.berlin),
    ];
    let mut mirror = mirror("use-aggregation.toml", &addresses).started();
    caught_up(&mirror);
    // Killed while both write, and started again.
    for round in 1..=3_u64 {
        let first = round * 1_000;
        for (kafka, seed) in sources {
            all.produce(kafka, "sensors", seed, first..first + 200);
        }
        mirror.kill9();
        mirror.start();
        for (kafka, seed) in sources {
            all.produce(kafka, "sensors", seed, first + 200..first + 300);
        }
    }
    caught_up(&mirror);
    mirror.stop();
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let isolation = Isolation::ReadCommitted;
    let dump = all
        .oracle
        .dump(&all.berlin, "sensors.all", isolation, options);
    let mut whole: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut count = 0;
    for partition in dump.unwrap().partitions {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for record in partition.records {
            let value = String::from_utf8(record.value.unwrap()).unwrap();
            let mut parts = value.split('/').map(|part| part.parse::<u64>());
            let (seed, number) = (
                parts.next().unwrap().unwrap(),
                parts.next().unwrap().unwrap(),
            );
            let before = last.insert(seed, number);
            assert!(before < Some(number), "{seed}: {number} behind {before:?}");
            whole.entry(seed).or_default().insert(number);
            count += 1;
        }
    }
    let numbers: BTreeSet<u64> = (0..4).flat_map(|n| n * 1_000..n * 1_000 + 300).collect();
    let of_berlin: BTreeSet<u64> = (0..10).collect();
    let expected = [(1, numbers.clone()), (2, numbers), (3, of_berlin)];
    assert_eq!(whole, BTreeMap::from(expected));
    assert_eq!(count, 2_410, "each once");
    for id in ["target-has-data", "foreign-writer", "target-lost"] {
        let said = format!("id={id}");
        assert!(!mirror.log().contains(&said), "{}", mirror.tail());
    }
}

#[test]
fn shared_aggregation() {
    let all = sites();
    for (kafka, seed) in [(&all.paris, 1), (&all.tokyo, 2)] {
        all.create(kafka, "bookings");
        all.produce(kafka, "bookings", seed, 0..100);
    }
    let addresses = [("paris", all.paris.as_str()), ("tokyo", &all.tokyo)];
    let mut mirror = mirror("use-shared.toml", &addresses).started();
    caught_up(&mirror);
    // Both links have looked at the topics again since the other one made its own.
    for (kafka, other, topic) in [
        (&all.paris, &all.tokyo, "bookings-late-1"),
        (&all.tokyo, &all.paris, "bookings-late-2"),
    ] {
        all.create(kafka, topic);
        let arrived = || all.topics(other, topic).len() == 1;
        wait_until("a later topic arrives", SOON, arrived);
    }
    for (kafka, remote) in [
        (&all.paris, "bookings.tokyo"),
        (&all.tokyo, "bookings.paris"),
    ] {
        let mut topics = all.topics(kafka, "bookings");
        topics.retain(|topic| !topic.starts_with("bookings-late"));
        assert_eq!(topics, ["bookings", remote]);
        let read = wildcard::read_all(kafka, "bookings-report", "bookings.*");
        let both: BTreeSet<(u64, u64)> = read.iter().map(|(_, seed, n)| (*seed, *n)).collect();
        assert_eq!((read.len(), both.len()), (200, 200), "{remote}");
    }
    mirror.stop();
}

#[test]
fn disaster_recovery() {
    let all = sites();
    let topic = "accounting.invoices";
    all.create(&all.paris, topic);
    all.produce(&all.paris, topic, 1, 0..100);
    let mut read = all.read(&all.paris, "billing", topic, 40);
    let addresses = [("a", all.paris.as_str()), ("b", &all.tokyo)];
    let mut mirror = mirror("dr-a-to-b.toml", &addresses).started();
    caught_up(&mirror);
    let remote = "accounting.invoices.A";
    wait_until("the group is known on B", SOON, || {
        all.committed(&all.tokyo, "billing", remote) == 40
    });
    mirror.stop();
    read.extend(all.read(&all.tokyo, "billing", remote, 1_000));
    assert_eq!(read.len(), 100);
    assert_eq!(read.iter().collect::<BTreeSet<_>>().len(), 100);
}

#[test]
fn migration_of_an_application() {
    let all = sites();
    let topic = "shop.orders";
    all.create(&all.paris, topic);
    all.produce(&all.paris, topic, 1, 0..100);
    let mut read = all.read(&all.paris, "shop", topic, 40);
    let addresses = [("paris", all.paris.as_str()), ("tokyo", &all.tokyo)];
    let mut mirror = mirror("use-application-migration.toml", &addresses).started();
    caught_up(&mirror);
    wait_until("the group is known on tokyo", SOON, || {
        all.committed(&all.tokyo, "shop", topic) == 40
    });
    // Consumers first; producers are still on the other side.
    read.extend(all.read(&all.tokyo, "shop", topic, 70));
    all.produce(&all.paris, topic, 1, 100..150);
    caught_up(&mirror);
    read.extend(all.read(&all.tokyo, "shop", topic, 1_000));
    mirror.stop();
    all.produce(&all.tokyo, topic, 1, 150..200);
    read.extend(all.read(&all.tokyo, "shop", topic, 1_000));
    let once: BTreeSet<u64> = read.iter().copied().collect();
    assert_eq!((read.len(), once), (200, (0..200).collect()));
}

#[test]
fn migration_of_a_cluster() {
    let all = sites();
    // It holds nothing but what moves.
    let old = KafkaCluster::shared("old", KafkaOptions::new)
        .unwrap()
        .bootstrap();
    let topics = ["moving.orders", "moving-store-changelog", "moving.settings"];
    for topic in topics {
        let settings = [
            ("retention.ms", "86400000"),
            ("cleanup.policy", "compact,delete"),
        ];
        let settings = if topic == "moving.settings" {
            &settings[..]
        } else {
            &[]
        };
        all.oracle
            .create_topic(&old, topic, 2, 1, settings)
            .unwrap();
        all.produce(&old, topic, 1, 0..100);
    }
    // What belongs to the cluster or its mirrors stays.
    for topic in ["__moving_state", "moving.checkpoints.internal"] {
        all.create(&old, topic);
        all.produce(&old, topic, 1, 0..10);
    }
    let mut read = all.read(&old, "moving-app", "moving.orders", 40);
    let addresses = [("old", old.as_str()), ("new", &all.tokyo)];
    let mut mirror = mirror("use-infrastructure-migration.toml", &addresses).started();
    caught_up(&mirror);
    for topic in topics {
        all.assert_equal((&old, topic), (&all.tokyo, topic));
    }
    let moved = all
        .oracle
        .describe_topic(&all.tokyo, "moving.settings")
        .unwrap();
    let setting = |name: &str| moved.configs.get(name).and_then(|c| c.value.as_deref());
    assert_eq!(setting("retention.ms"), Some("86400000"));
    assert_eq!(setting("cleanup.policy"), Some("compact,delete"));
    wait_until("the group is known on the new one", SOON, || {
        all.committed(&all.tokyo, "moving-app", "moving.orders") == 40
    });
    mirror.stop();
    read.extend(all.read(&all.tokyo, "moving-app", "moving.orders", 1_000));
    assert_eq!(read.iter().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(read.len(), 100);
    assert_eq!(all.topics(&all.tokyo, "moving"), {
        let mut topics = topics;
        topics.sort_unstable();
        topics
    });
    assert_eq!(all.topics(&all.tokyo, "__moving"), Vec::<String>::new());
}
