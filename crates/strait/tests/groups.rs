//! Consumer groups that move to the target: what they read there, what is committed for them, what they are told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod page;
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rig::{Mirror, free_port, wait_until, west_to_east};
use strait_testkit::kafka::{
    DumpOptions, Isolation, KafkaCluster, Oracle, TransactionSpec, Workload,
};

const SOON: Duration = Duration::from_secs(60);

struct Clusters {
    oracle: Oracle,
    west: String,
    east: String,
}

fn clusters() -> Clusters {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    Clusters {
        oracle: Oracle::shared().unwrap(),
        west: west.bootstrap(),
        east: east.bootstrap(),
    }
}

/// A link for the topic and the groups, each test with those of its own.
fn mirror(clusters: &Clusters, topic: &str, groups: &str) -> Mirror {
    let more = format!(
        "name = {topic:?}\nsync-topic-configs = false\ngroups = [{groups:?}]\nrefresh-groups = \"1s\"\nsync-group-offsets-interval = \"1s\"\nemit-checkpoints-interval = \"1s\"\n"
    );
    Mirror::new(&west_to_east(
        &clusters.west,
        &clusters.east,
        &[topic],
        &more,
    ))
}

/// One line of `strait offsets translate --json`.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    partition: i32,
    source: i64,
    target: Option<i64>,
    how: String,
}

fn translate(folder: &Path, arguments: &[&str]) -> Vec<Line> {
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(["offsets", "translate"])
        .arg(folder.join("mirror.toml"))
        .arg("--json")
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows = text.trim().trim_matches(['[', ']']).split("},{");
    rows.filter(|row| !row.is_empty())
        .map(|row| {
            let field = |name: &str| {
                let (_, rest) = row.split_once(&format!("\"{name}\":"))?;
                Some(rest.split([',', '}']).next().unwrap().trim_matches('"'))
            };
            let number = |name: &str| field(name).map(|n| n.parse::<i64>().unwrap());
            Line {
                partition: i32::try_from(number("source_partition").unwrap()).unwrap(),
                source: number("source_offset").unwrap(),
                target: number("target_offset"),
                how: field("how").unwrap().to_owned(),
            }
        })
        .collect()
}

/// Waits until the group's commits on the target are the exact translation of those on the source.
fn wait_committed(clusters: &Clusters, mirror: &Mirror, topic: &str, group: &str) {
    let mut seen = (BTreeMap::new(), Vec::new());
    let begun = std::time::Instant::now();
    while begun.elapsed() < SOON {
        let lines = translate(mirror.folder(), &["--group", group]);
        let committed = clusters.oracle.committed_offsets(&clusters.east, group);
        let committed = committed.unwrap();
        let target = format!("west.{topic}");
        let stands = |line: &Line| {
            line.how == "exact"
                && committed.get(&(target.clone(), line.partition)).copied() == line.target
        };
        if !lines.is_empty() && lines.iter().all(stands) {
            return;
        }
        seen = (committed, lines);
    }
    panic!("{group}: {seen:?}\n{}", mirror.tail());
}

fn set(numbers: &[u64]) -> BTreeSet<u64> {
    let set: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(set.len(), numbers.len(), "nothing is read twice");
    set
}

/// Transactions, some of them aborted, with a mirror that is killed in between: at the head and in the middle a group goes
/// on without a record read again or left out.
#[test]
fn a_group_that_was_stopped_goes_on_where_it_was() {
    let all = clusters();
    let (oracle, west, east) = (&all.oracle, &all.west, &all.east);
    let topic = "moved-orders";
    oracle.create_topic(west, topic, 2, 1, &[]).unwrap();
    let mut next = 0;
    let mut write = |count: u64, transactions: bool| {
        let mut workload = Workload::new(topic).seed(3).first_id(next).flush_every(7);
        if transactions {
            workload = workload.transaction(TransactionSpec::new("moved", 13).abort_every(4));
        }
        next = oracle.produce(west, &workload, count).unwrap().next_id;
    };
    write(400, true);
    let mut mirror = mirror(&all, topic, "moved-.*").started();
    let arrived = |records: u64| {
        let options = DumpOptions {
            count: records,
            wait: SOON,
            ..DumpOptions::default()
        };
        let target = format!("west.{topic}");
        let dump = oracle.dump(east, &target, Isolation::ReadCommitted, options);
        dump.map_or(0, |d| d.count())
    };
    wait_until("the first part arrives", SOON, || arrived(1) > 0);
    // In the middle of what comes before and after fences.
    let middle = ("moved-middle", topic);
    let mut read = oracle.consume_group(west, middle, 170, "earliest").unwrap();
    for transactions in [false, true, true] {
        mirror.kill9();
        write(300, transactions);
        mirror.start();
        mirror.wait_for_log("mirroring", SOON);
    }
    read.extend(oracle.consume_group(west, middle, 333, "none").unwrap());
    let head = ("moved-head", topic);
    let everything = oracle
        .consume_group(west, head, u64::MAX >> 1, "earliest")
        .unwrap();
    assert_eq!(read.len(), 503);
    for group in ["moved-middle", "moved-head"] {
        wait_committed(&all, &mirror, topic, group);
    }
    mirror.stop();
    let target = format!("west.{topic}");
    let rest = oracle
        .consume_group(east, ("moved-middle", &target), u64::MAX >> 1, "none")
        .unwrap();
    read.extend(rest);
    assert_eq!(set(&read), set(&everything));
    let again = oracle
        .consume_group(east, ("moved-head", &target), u64::MAX >> 1, "none")
        .unwrap();
    assert_eq!(again, Vec::<u64>::new());
}

/// A topic that begins anew on the target has other offsets: those of its first life would leave records out.
#[test]
fn a_group_is_committed_anew_where_the_target_topic_is_another_one() {
    let all = clusters();
    let (oracle, west, east) = (&all.oracle, &all.west, &all.east);
    let (topic, target, group) = ("anew-orders", "west.anew-orders", "anew-group");
    oracle.create_topic(west, topic, 1, 1, &[]).unwrap();
    oracle.produce(west, &Workload::new(topic), 100).unwrap();
    let mut mirror = mirror(&all, topic, "anew-.*").started();
    let held = || {
        let options = DumpOptions::default();
        let dump = oracle.dump(east, target, Isolation::ReadCommitted, options);
        dump.map_or(0, |d| d.count())
    };
    wait_until("all is mirrored", SOON, || held() == 100);
    // The target's log begins above what the group has read.
    oracle.delete_records(east, target, 0, 80).unwrap();
    let read = oracle.consume_group(west, (group, topic), 60, "earliest");
    assert_eq!(read.unwrap().len(), 60);
    let committed = || {
        let committed = oracle.committed_offsets(east, group).unwrap();
        committed.get(&(target.to_owned(), 0)).copied()
    };
    wait_until("the group begins with the log", SOON, || {
        committed() == Some(80)
    });
    oracle.delete_topic(east, target).unwrap();
    wait_until("all is mirrored again", SOON, || held() == 100);
    wait_until("the group reads on where it was", SOON, || {
        committed() == Some(60)
    });
    mirror.stop();
}

/// Members of either protocol keep what they have; when they leave, the group is committed for.
#[test]
fn a_group_with_members_on_the_target_is_left_alone() {
    let all = clusters();
    let (oracle, west, east) = (&all.oracle, &all.west, &all.east);
    let topic = "busy-orders";
    oracle.create_topic(west, topic, 1, 1, &[]).unwrap();
    oracle
        .create_topic(east, "west.busy-orders", 1, 1, &[])
        .unwrap();
    let workload = Workload::new(topic);
    oracle.produce(west, &workload, 100).unwrap();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let groups = [("busy-classic", "classic"), ("busy-consumer", "consumer")];
    let members: Vec<_> = groups
        .iter()
        .map(|(group, protocol)| {
            let place = (*group, "west.busy-orders");
            oracle.join_group(east, place, protocol).unwrap()
        })
        .collect();
    for (group, _) in groups {
        let at = [(topic, 0, 60)];
        oracle.commit_offsets(west, group, &at).unwrap();
    }
    for group in ["busy-nobody", "busy-ahead"] {
        let at = [(topic, 0, 40)];
        oracle.commit_offsets(west, group, &at).unwrap();
    }
    // One has gone on there: there is nothing to commit for it, and it has a member all the same.
    let ahead = ("busy-ahead", "west.busy-orders");
    oracle
        .commit_offsets(east, ahead.0, &[(ahead.1, 0, 70)])
        .unwrap();
    let ahead = oracle.join_group(east, ahead, "classic").unwrap();
    let mut mirror = mirror(&all, topic, "busy-.*").arguments(&["--admin-listen", &listen]);
    mirror.start();
    let link = "{link=\"busy-orders\"}";
    let metric = |name: &str| page::metric(port, &format!("{name}{link}"));
    wait_until("all three are known to be active", SOON, || {
        metric("strait_groups_active") == Some(3.0)
            && metric("strait_groups_committed") == Some(2.0)
            && metric("strait_groups") == Some(4.0)
    });
    ahead.leave().unwrap();
    wait_until("one of them no longer", SOON, || {
        metric("strait_groups_active") == Some(2.0)
    });
    assert_eq!(metric("strait_groups_troubled"), Some(0.0));
    let committed = |group: &str| {
        let committed = oracle.committed_offsets(east, group).unwrap();
        committed.get(&("west.busy-orders".to_owned(), 0)).copied()
    };
    wait_until("the third one is committed for", SOON, || {
        committed("busy-nobody") == Some(40)
    });
    for (group, _) in groups {
        assert_eq!(committed(group), None, "{group}");
    }
    for member in members {
        member.leave().unwrap();
    }
    wait_until("they are committed for", SOON, || {
        groups.iter().all(|(group, _)| committed(group) == Some(60))
    });
    wait_until("nobody is active any more", SOON, || {
        metric("strait_groups_active") == Some(0.0)
            && metric("strait_groups_committed") == Some(4.0)
    });
    assert_eq!(committed("busy-ahead"), Some(70));
    assert!(metric("strait_group_commits_total") >= Some(3.0));
    assert!(!mirror.log().contains("group="), "{}", mirror.tail());
    // Kept for a start long after: type 4, the link's name, the topic.
    wait_until("the positions passed are kept", SOON, || {
        let options = DumpOptions {
            records: true,
            ..DumpOptions::default()
        };
        let all = Isolation::ReadUncommitted;
        let registry = oracle.dump(east, "mm2-strait.internal", all, options);
        let keys = registry.unwrap().partitions.remove(0).records.into_iter();
        let mut keys = keys.filter_map(|record| record.key);
        keys.any(|key| key.starts_with(b"\x04\0\x0bbusy-orders\0\x0bbusy-orders"))
    });
    mirror.stop();
}

/// A group that goes back on the source goes back on the target, unless somebody has moved it there. Checkpoints tell
/// MirrorMaker 2's client the same.
#[test]
fn a_rewind_follows_only_behind_commits_of_straits_own() {
    let all = clusters();
    let (oracle, west, east) = (&all.oracle, &all.west, &all.east);
    let topic = "rewound";
    oracle.create_topic(west, topic, 1, 1, &[]).unwrap();
    oracle.produce(west, &Workload::new(topic), 500).unwrap();
    let commit = |kafka: &str, topic: &str, offset: i64| {
        let at = [(topic, 0, offset)];
        oracle.commit_offsets(kafka, "rewound-group", &at).unwrap();
    };
    let place = ("west.rewound".to_owned(), 0);
    let committed = || {
        let found = oracle.committed(east, "rewound-group").unwrap();
        found.get(&place).map(|(offset, _)| *offset)
    };
    let checkpoint = || {
        let told = oracle.translated_offsets(east, "west", "rewound-group");
        told.unwrap().get(&place).map(|(offset, _)| *offset)
    };
    commit(west, topic, 400);
    let mut mirror = mirror(&all, topic, "rewound-.*").started();
    wait_until("forward", SOON, || committed() == Some(400));
    assert_eq!(checkpoint(), Some(400));
    let topics = oracle.checkpoint_topics(east).unwrap();
    assert!(
        topics.contains(&"west.checkpoints.internal".to_owned()),
        "{topics:?}"
    );
    commit(west, topic, 100);
    wait_until("back", SOON, || committed() == Some(100));
    // Also where the process that wrote the commit is gone.
    mirror.kill9();
    commit(west, topic, 50);
    mirror.start();
    wait_until("back after a restart", SOON, || committed() == Some(50));

    commit(east, "west.rewound", 300);
    commit(west, topic, 20);
    wait_until("the checkpoint goes back", SOON, || {
        checkpoint() == Some(20)
    });
    commit(west, topic, 30);
    wait_until("one more round", SOON, || checkpoint() == Some(30));
    assert_eq!(committed(), Some(300), "somebody else's commit stays");
    commit(west, topic, 450);
    wait_until("forward again", SOON, || committed() == Some(450));
    mirror.stop();
}

/// A group that reads on both sides came to the same place by itself: its commit there is not Strait's, also for a process that
/// knows it from its checkpoints alone.
#[test]
fn a_commit_that_only_equals_a_checkpoint_is_not_taken_back() {
    let all = clusters();
    let (oracle, west, east) = (&all.oracle, &all.west, &all.east);
    let (topic, target, group) = ("level", "west.level", "level-group");
    oracle.create_topic(west, topic, 1, 1, &[]).unwrap();
    oracle.produce(west, &Workload::new(topic), 100).unwrap();
    let mut mirror = mirror(&all, topic, "level-.*").started();
    let held = || {
        let options = DumpOptions::default();
        let dump = oracle.dump(east, target, Isolation::ReadCommitted, options);
        dump.map_or(0, |d| d.count())
    };
    wait_until("all is mirrored", SOON, || held() == 100);
    let read = oracle.consume_group(east, (group, target), u64::MAX >> 1, "earliest");
    assert_eq!(read.unwrap().len(), 100);
    let place = (target.to_owned(), 0);
    let committed = || oracle.committed_offsets(east, group).unwrap()[&place];
    let checkpoint = || {
        let told = oracle.translated_offsets(east, "west", group).unwrap();
        told.get(&place).map(|(offset, _)| *offset)
    };
    let end = committed();
    let goes_to = |offset: i64| {
        let at = [(topic, 0, offset)];
        oracle.commit_offsets(west, group, &at).unwrap();
        wait_until(&format!("a checkpoint of {offset}"), SOON, || {
            checkpoint() == Some(offset)
        });
    };
    for (level, back) in [(100, [40, 45]), (100, [30, 35])] {
        goes_to(level);
        assert_eq!(committed(), end, "they stand at the same place");
        mirror.kill9();
        mirror.start();
        // The second one tells that the first one was acted on.
        back.into_iter().for_each(goes_to);
        assert_eq!(committed(), end, "it is the group's own");
    }
    mirror.stop();
}

/// Which of several writers' records a group has read cannot be known.
#[test]
fn with_other_writers_nothing_is_translated_and_that_is_said() {
    let all = clusters();
    let topic = "mixed";
    all.oracle
        .create_topic(&all.west, topic, 1, 1, &[])
        .unwrap();
    let more = "name = \"mixed\"\non-foreign-writer = \"continue\"";
    let toml = west_to_east(&all.west, &all.east, &[topic], more);
    let mut mirror = Mirror::new(&toml).started();
    mirror.wait_for_log("id=groups-untranslated offsets of consumer groups", SOON);
    mirror.wait_for_log("mirroring", SOON);
    mirror.stop();
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(["offsets", "translate", "--topic", topic, "--offset", "1"])
        .arg(mirror.folder().join("mirror.toml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("its offsets are not translated"), "{said}");
}

/// Where a consumer with this metadata stopped, the target's commit has it too.
#[test]
fn metadata_goes_along() {
    let all = clusters();
    let (oracle, west, east) = (&all.oracle, &all.west, &all.east);
    let topic = "noted";
    oracle.create_topic(west, topic, 1, 1, &[]).unwrap();
    oracle.produce(west, &Workload::new(topic), 50).unwrap();
    let read = oracle.consume_group(west, ("noted-group", topic), 20, "earliest");
    assert_eq!(read.unwrap().len(), 20);
    let mut mirror = mirror(&all, topic, "noted-.*").started();
    let key = ("west.noted".to_owned(), 0);
    let expected = (20, "at 19".to_owned());
    wait_until("offset and metadata", SOON, || {
        oracle.committed(east, "noted-group").unwrap().get(&key) == Some(&expected)
    });
    let told = oracle.translated_offsets(east, "west", "noted-group");
    assert_eq!(told.unwrap().get(&key), Some(&expected));
    mirror.stop();
}
