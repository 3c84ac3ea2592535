//! `strait wait`, `strait status` and `strait plan` while a broker hangs, a partition has no leader, or a topic goes away: what
//! is concerned is named, and the rest is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod kit;
mod rig;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kit::{Kit, cluster, records};
use rig::{Mirror, free_port, wait_until, west_to_east};
use strait_testkit::{Broker, BrokerConfig, Codec, Fault, Rule};

const SOON: Duration = Duration::from_secs(60);

/// A cluster of two brokers, reached through the first one.
fn two(runtime: &tokio::runtime::Runtime, id: &str) -> (Kit, Broker) {
    let config = BrokerConfig {
        nodes: 2,
        ..cluster(id)
    };
    let kit = kit::start(runtime, config);
    let second = kit.broker.node(2).unwrap();
    runtime.block_on(second.listen("127.0.0.1:0")).unwrap();
    (kit, second)
}

fn begin(mirror: &Mirror, what: &[&str], more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(what)
        .arg(mirror.folder().join("mirror.toml"))
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Exit code, stdout and stderr.
fn strait(mirror: &Mirror, what: &[&str], more: &[&str]) -> (Option<i32>, String, String) {
    ended(begin(mirror, what, more))
}

fn ended(mut child: Child) -> (Option<i32>, String, String) {
    wait_until("it ends", SOON, || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn write(kit: &Kit, topic: &str, partition: i32, count: usize) {
    let mut producer = kit.broker.idempotent_producer();
    let written = producer.send(topic, partition, Codec::None, &records("r", count, 50));
    written.unwrap();
}

/// API keys.
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const OFFSET_FETCH: i16 = 9;

/// How often a cluster was asked.
fn asked(kit: &Kit, api: i16) -> usize {
    let seen = kit.broker.requests();
    seen.iter().filter(|r| r.api == api).count()
}

fn mirrored(east: &Kit, topic: &str, partitions: i32, records: i64) -> bool {
    east.broker.topics().contains_key(topic)
        && (0..partitions)
            .map(|p| east.broker.log_end(topic, p))
            .all(|end| end >= records)
}

#[test]
fn a_broker_that_hangs_or_is_away_holds_up_only_what_it_alone_knows() {
    let runtime = kit::runtime();
    let (west, west_2) = two(&runtime, "west");
    let (east, east_2) = two(&runtime, "east");
    west.broker.create_topic("held", 2, &[]).unwrap();
    for partition in 0..2 {
        write(&west, "held", partition, 30);
    }
    let more = "groups = [\"g.*\"]\nconnect-timeout = \"3s\"";
    let toml = west_to_east(&west.address, &east.address, &["held"], more);
    let mut mirror = Mirror::new(&toml).started();
    wait_until("all is mirrored", SOON, || {
        mirrored(&east, "west.held", 2, 30)
    });
    let (code, out, err) = strait(&mirror, &["wait", "caught-up"], &["--timeout", "1m"]);
    assert_eq!(code, Some(0), "{out}{err}");
    mirror.stop();
    // Each broker leads one partition; Strait's own topics are the first one's.
    for partition in 0..2 {
        west.broker.elect("held", partition, partition + 1);
        east.broker.elect("west.held", partition, partition + 1);
    }
    for own in ["mm2-offset-syncs.west.internal", "mm2-strait.internal"] {
        east.broker.elect(own, 0, 1);
    }

    // Hangs: connections stay open, and nothing is answered.
    west_2.pause();
    let (code, out, err) = strait(&mirror, &["wait", "caught-up"], &["--timeout", "12s"]);
    assert_eq!(code, Some(6), "{out}{err}");
    let of_the_other = |out: &str| {
        out.contains("not caught up: 1 of 2 partitions, with cluster west")
            && out.contains("its end on the source is not known: ")
            && out.contains("broker 2 (127.0.0.1:")
            && out.contains("of cluster 'west'")
    };
    assert!(of_the_other(&out), "{out}{err}");
    let (code, out, err) = strait(&mirror, &["plan"], &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    for unknown in [
        "\nwhat held-1 on cluster west holds: ",
        "\nwhich groups broker 2 of cluster west has: ",
    ] {
        assert!(out.contains(unknown), "{out}{err}");
    }
    west_2.resume();
    // Away, with its partition.
    west_2.set_online(false);
    west.broker.set_leaderless("held", 1);
    let (code, out, err) = strait(&mirror, &["wait", "caught-up"], &["--timeout", "12s"]);
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(out.contains("1 of 2 partitions"), "{out}");
    assert!(out.contains("held-1"), "{out}");

    // One group has read all; whether the other broker has groups that have not is not known.
    for group in ["g1", "g2", "g3", "g4"] {
        for partition in 0..2 {
            let end = east.broker.log_end("west.held", partition);
            east.broker.commit(group, "west.held", partition, end);
        }
    }
    let drained = &["wait", "drained"];
    let (code, out, err) = strait(&mirror, drained, &["--timeout", "30s"]);
    assert_eq!(code, Some(0), "{out}{err}");
    // What is left is read once, however often it is looked.
    east.broker.commit("g1", "west.held", 0, 10);
    let before = asked(&east, FETCH);
    let (code, out, err) = strait(&mirror, drained, &["--timeout", "8s"]);
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(out.contains("g1     west.held                 20"), "{out}");
    let read = asked(&east, FETCH) - before;
    assert!(read <= 4, "{read} fetches for one stretch of records");
    let end = east.broker.log_end("west.held", 0);
    east.broker.commit("g1", "west.held", 0, end);
    east_2.pause();
    let (code, out, err) = strait(&mirror, drained, &["--timeout", "12s"]);
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(err.contains("broker 2 (127.0.0.1:"), "{out}{err}");
    let (code, out, err) = strait(&mirror, &["status"], &[]);
    assert_eq!(code, Some(5), "{out}{err}");
    assert!(
        err.contains("which groups broker 2 of cluster east has cannot be told"),
        "{out}{err}"
    );
    assert!(out.contains("GROUP  MIRRORED TOPIC"), "{out}");
    east_2.resume();
    runtime.shutdown_background();
}

#[test]
fn every_link_is_told_of_and_a_topic_that_goes_away_is_no_endless_wait() {
    let runtime = kit::runtime();
    let [west, east] = ["west", "east"].map(|id| kit::start(&runtime, cluster(id)));
    for topic in ["gone", "anew", "stays"] {
        west.broker.create_topic(topic, 1, &[]).unwrap();
        write(&west, topic, 0, 10);
    }
    let dead = format!("127.0.0.1:{}", free_port());
    let toml = format!(
        "{}\n[clusters.lost]\nbootstrap = [\"{dead}\"]\n\n[[links]]\nsource = \"lost\"\ntarget = \"east\"\ntopics = [\"stays\"]\nconnect-timeout = \"300ms\"\n",
        west_to_east(&west.address, &east.address, &["gone", "anew"], "")
    );
    let mirror = Mirror::new(&toml);
    let waits = begin(&mirror, &["wait", "caught-up"], &[]);
    // Both topics are known to it before they go.
    let looks_again = || {
        let seen = west.broker.requests();
        let mut since = seen.iter().rev().take_while(|r| r.api != LIST_OFFSETS);
        // Starts and ends, of the marks and of what is stable.
        asked(&west, LIST_OFFSETS) >= 4 && since.any(|r| r.api == METADATA)
    };
    wait_until("it looks for the second time", SOON, looks_again);
    west.broker.delete_topic("gone");
    west.broker.delete_topic("anew");
    west.broker.create_topic("anew", 1, &[]).unwrap();
    let (code, out, err) = ended(waits);
    assert!(matches!(code, Some(1 | 5)), "{code:?} {out}{err}");
    assert!(
        out.contains("not caught up: 2 of 2 partitions, with cluster west")
            && out.contains(
                "the source topic was deleted since this began: what was not mirrored of it is gone"
            )
            && out.contains("the source topic was deleted and created anew since this began"),
        "{out}{err}"
    );
    assert!(
        out.contains("\nlink lost->east\nnot known in the end: cannot reach cluster 'lost'"),
        "{out}{err}"
    );
    // Nor do the other commands keep to themselves what they know of the link whose clusters are there.
    for (command, told) in [
        (&["plan"][..], "link west->east: from west"),
        (
            &["offsets", "translate", "--group", "g"],
            "no committed offsets on the clusters that answered",
        ),
    ] {
        let (code, out, err) = strait(&mirror, command, &[]);
        assert_eq!(code, Some(5), "{out}{err}");
        assert!(out.starts_with(told), "{out}{err}");
        let of = "link lost->east: cannot reach cluster 'lost'";
        assert!(
            err.contains(of) && err.contains("id=cluster-unreachable"),
            "{out}{err}"
        );
        assert!(!err.contains("link west->east"), "{out}{err}");
    }
    runtime.shutdown_background();
}

/// Groups have read one topic. Of the other one the target does not tell what it holds.
#[test]
fn a_topic_that_the_target_does_not_tell_of_is_not_drained() {
    let runtime = kit::runtime();
    let [west, east] = ["west", "east"].map(|id| kit::start(&runtime, cluster(id)));
    for topic in ["read", "hidden"] {
        west.broker.create_topic(topic, 1, &[]).unwrap();
        write(&west, topic, 0, 30);
    }
    let more = "groups = [\"g.*\"]\nconnect-timeout = \"3s\"";
    let toml = west_to_east(&west.address, &east.address, &["read", "hidden"], more);
    let mut mirror = Mirror::new(&toml).started();
    wait_until("all is mirrored", SOON, || {
        ["west.read", "west.hidden"]
            .iter()
            .all(|topic| mirrored(&east, topic, 1, 30))
    });
    let (code, out, err) = strait(&mirror, &["wait", "caught-up"], &["--timeout", "1m"]);
    assert_eq!(code, Some(0), "{out}{err}");
    mirror.stop();
    let end = east.broker.log_end("west.read", 0);
    east.broker.commit("g1", "west.read", 0, end);
    east.broker.commit("g1", "west.hidden", 0, 10);
    let metadata = |code| Rule::on(3, Fault::Error(code)).topic("west.hidden");
    let drained = &["wait", "drained"];

    // No right to see it.
    let rule = east.broker.faults().add(metadata(29));
    let (code, out, err) = strait(&mirror, drained, &["--timeout", "30s"]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        out.contains("what topic west.hidden on cluster east holds is not known: "),
        "{out}{err}"
    );
    east.broker.faults().remove(rule);
    // A broker that does not know it for a moment.
    let rule = east.broker.faults().add(metadata(3).once());
    let (code, out, err) = strait(&mirror, drained, &["--timeout", "12s"]);
    assert_eq!(east.broker.faults().fired(rule), 1);
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(out.contains("west.hidden               20"), "{out}{err}");
    // What is created anew while it is waited for is another topic.
    east.broker.commit("g1", "west.read", 0, 10);
    let before = asked(&east, OFFSET_FETCH);
    let waits = begin(&mirror, drained, &["--timeout", "30s"]);
    wait_until("it knows the topics", SOON, || {
        asked(&east, OFFSET_FETCH) > before
    });
    let end = east.broker.log_end("west.hidden", 0);
    east.broker.commit("g1", "west.hidden", 0, end);
    east.broker.delete_topic("west.read");
    east.broker.create_topic("west.read", 1, &[]).unwrap();
    east.broker.commit("g1", "west.read", 0, 0);
    let (code, out, err) = ended(waits);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        out.contains("what topic west.read on cluster east held is not known: it was created anew since this began; begin again"),
        "{out}{err}"
    );
    // Deleted, it holds nothing that could be read: while it is waited for, or before.
    east.broker.commit("g1", "west.hidden", 0, 10);
    let before = asked(&east, OFFSET_FETCH);
    let waits = begin(&mirror, drained, &["--timeout", "50s"]);
    wait_until("it knows the topics", SOON, || {
        asked(&east, OFFSET_FETCH) > before
    });
    east.broker.delete_topic("west.hidden");
    let (code, out, err) = ended(waits);
    assert_eq!(code, Some(0), "{out}{err}");
    let told = "topic west.hidden was deleted on cluster east since this began";
    assert!(out.contains(told), "{out}{err}");
    let (code, out, err) = strait(&mirror, drained, &["--timeout", "30s"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(!out.contains("deleted"), "{out}{err}");
    let (code, out, err) = strait(&mirror, &["status"], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    runtime.shutdown_background();
}
