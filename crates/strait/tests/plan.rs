//! `strait plan` before anything is written, and `strait status` when a source is gone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod rig;

use std::process::{Command, Output};
use std::time::Duration;

use rig::{Mirror, wait_until, west_to_east};
use strait_testkit::kafka::{Isolation, KafkaCluster, Oracle, Workload};

const SOON: Duration = Duration::from_secs(60);

fn strait(command: &str, mirror: &Mirror, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(command.split(' '))
        .arg(mirror.folder().join("mirror.toml"))
        .args(more)
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A line with these words in this order, however far apart.
fn has_line(text: &str, words: &[&str]) -> bool {
    let of_line = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    text.lines().any(|line| of_line(line) == words)
}

#[test]
fn a_plan_tells_what_would_be_made_and_what_refused_and_writes_nothing() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&west.bootstrap(), &east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let day = [("retention.ms", "86400000")];
    oracle.create_topic(west, "plan-new", 3, 1, &day).unwrap();
    oracle
        .produce(west, &Workload::new("plan-new").seed(1), 3_000)
        .unwrap();
    oracle.create_topic(west, "plan-grows", 4, 1, &day).unwrap();
    oracle
        .create_topic(east, "west.plan-grows", 1, 1, &[])
        .unwrap();
    let long = format!("plan-{}", "x".repeat(240));
    oracle.create_topic(west, &long, 1, 1, &[]).unwrap();
    for (kafka, topic) in [(west, "plan-taken"), (east, "west.plan-taken")] {
        oracle.create_topic(kafka, topic, 1, 1, &[]).unwrap();
        oracle
            .produce(kafka, &Workload::new(topic).seed(2), 100)
            .unwrap();
    }
    let topics = |kafka| {
        let mut topics = oracle.list_topics(kafka).unwrap();
        topics.retain(|topic| topic.contains("plan-") || topic == "heartbeats");
        topics
    };
    let before = (topics(west), topics(east));
    oracle.create_topic(west, "unplanned", 1, 1, &[]).unwrap();
    for (group, topic) in [("plan-group", "plan-new"), ("plan-other", "unplanned")] {
        oracle
            .commit_offsets(west, group, &[(topic, 0, 10)])
            .unwrap();
    }
    let place = ("plan-group", "west.plan-grows");
    let member = oracle.join_group(east, place, "classic").unwrap();

    let more = "name = \"planned\"\nemit-heartbeats = \"both\"\nsync-topic-acls = true\ngroups = [\"plan-.*\"]";
    let mirror = Mirror::new(&west_to_east(
        west,
        east,
        &["plan-.*", "plan.mistyped"],
        more,
    ));
    let output = strait("plan", &mirror, &[]);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(
        text.starts_with(
            "link planned: from west (1 broker) to east (1 broker); nothing was written\n"
        ),
        "{text}"
    );
    let new = text.lines().find(|l| l.starts_with("plan-new ")).unwrap();
    let cells: Vec<&str> = new.split_whitespace().collect();
    assert_eq!(
        cells[..5],
        ["plan-new", "west.plan-new", "3", "1", "3000"],
        "{text}"
    );
    assert_eq!(cells.last(), Some(&"created"), "{text}");
    let grows = text.lines().find(|l| l.starts_with("plan-grows ")).unwrap();
    assert!(grows.ends_with("given 3 more partitions"), "{text}");
    for topic in ["west.plan-new", "west.plan-grows"] {
        assert!(has_line(&text, &[topic, "retention.ms=86400000"]), "{text}");
    }
    assert!(
        text.contains(
            "no ACLs would be made: cluster west does not tell its ACLs: SECURITY_DISABLED (54)"
        ),
        "{text}"
    );
    let unseen = "\nnot seen on cluster west, and mirrored as soon as they are: plan.mistyped\n";
    assert!(text.contains(unseen), "{text}");
    let groups = text.split("\nconsumer groups\n").nth(1).unwrap();
    assert!(
        groups.starts_with("2 selected by name, 1 of them with commits on these topics\n1 with members on the target, which are left alone: plan-group\n\n"),
        "{text}"
    );
    assert!(
        text.contains("1 topics, 6 partitions with 6 replicas, "),
        "{text}"
    );
    assert!(text.contains("/s to catch up within an hour, "), "{text}");
    let refused = text.split("\nREFUSED\n").nth(1).unwrap();
    assert!(
        refused.contains(&format!("{long}: the name 'west.{long}'")),
        "{text}"
    );
    assert!(
        refused.contains(
            "plan-taken: partition 0: west.plan-taken holds data that this link has no position for"
        ),
        "{text}"
    );
    assert_eq!(refused.lines().count(), 2, "{text}");

    let machines = printed(&strait(
        "plan",
        &mirror,
        &["--json", "--link", "planned", "--bandwidth", "1MiB"],
    ));
    assert!(machines.starts_with("[{\"link\":\"planned\",\"topics\":[{\"source\":\"plan-grows\",\"target\":\"west.plan-grows\",\"change\":\"grow\",\"partitions\":4,"), "{machines}");
    assert!(machines.contains("\"seconds_at\":1048576"), "{machines}");
    let unseen = "],\"unseen\":[\"plan.mistyped\"],\"acls\":";
    assert!(machines.contains(unseen), "{machines}");
    assert!(
        machines.contains("\"groups\":{\"selected\":2,\"with_commits\":1,\"active\":[\"plan-group\"],\"untranslated\":null,\"refused\":[],"),
        "{machines}"
    );
    member.leave().unwrap();
    assert_eq!((topics(west), topics(east)), before);
}

#[test]
fn a_plan_of_a_running_link_counts_what_is_left_and_a_source_that_is_gone_is_named() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&west.bootstrap(), &east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    for topic in ["left-here", "left-gone"] {
        oracle.create_topic(west, topic, 2, 1, &[]).unwrap();
        oracle
            .produce(west, &Workload::new(topic).seed(3), 500)
            .unwrap();
    }
    let more = "name = \"left\"\nsync-topic-configs = false";
    let mut mirror = Mirror::new(&west_to_east(west, east, &["left-.*"], more)).started();
    for topic in ["left-here", "left-gone"] {
        let target = format!("west.{topic}");
        wait_until(&format!("{target} is there"), SOON, || {
            oracle.list_topics(east).unwrap().contains(&target)
        });
        let compared = oracle.compare(
            (west, topic),
            (east, &target),
            Isolation::ReadCommitted,
            SOON,
        );
        assert!(compared.unwrap().equal, "{topic}");
    }
    // What is left is counted from the positions.
    let caught_up = strait("wait caught-up", &mirror, &["--timeout", "60s"]);
    assert_eq!(caught_up.status.code(), Some(0), "{caught_up:?}");
    mirror.stop();
    let nothing = printed(&strait("status", &mirror, &[]));
    assert_eq!(
        nothing,
        "link left\nno group has committed offsets of mirrored topics\nno topic whose source is gone\n"
    );
    oracle
        .produce(west, &Workload::new("left-here").seed(4), 70)
        .unwrap();
    let output = strait("plan", &mirror, &[]);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let here = text.lines().find(|l| l.starts_with("left-here ")).unwrap();
    let cells: Vec<&str> = here.split_whitespace().collect();
    assert_eq!(
        cells[..5],
        ["left-here", "west.left-here", "2", "1", "70"],
        "{text}"
    );
    assert!(here.ends_with("used as it is"), "{text}");

    oracle.delete_topic(west, "left-gone").unwrap();
    let mut text = String::new();
    wait_until("the topic is gone", SOON, || {
        text = printed(&strait("status", &mirror, &[]));
        text.contains("left-gone")
    });
    assert!(!text.contains("left-here"), "{text}");
    let delete =
        format!("kafka-topics.sh --bootstrap-server {east} --delete --topic 'west\\.left-gone'");
    assert!(text.ends_with(&format!("{delete}\n")), "{text}");
    let row = text.lines().find(|l| l.starts_with("left-gone ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..3], ["left-gone", "west.left-gone", "2"], "{text}");
    assert!(["B", "KiB"].contains(cells.last().unwrap()), "{text}");
    let machines = printed(&strait("status", &mirror, &["--json"]));
    assert!(machines.starts_with("[{\"link\":\"left\",\"groups\":[],\"source_gone\":[{\"source\":\"left-gone\",\"target\":\"west.left-gone\",\"partitions\":2,\"bytes\":"), "{machines}");
    assert!(
        oracle
            .list_topics(east)
            .unwrap()
            .iter()
            .any(|t| t == "west.left-gone")
    );
}
