//! Heartbeats: MirrorMaker 2's own client sees which clusters are mirrored into which.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod look;
mod rig;

use std::time::Duration;

use look::look;
use rig::{Mirror, wait_until};
use strait_testkit::kafka::{DumpOptions, Isolation, KafkaCluster, Oracle};
use strait_wire::Heartbeat;

const SOON: Duration = Duration::from_secs(60);

/// The heartbeats that a topic holds; none while it is not there.
fn heartbeats(oracle: &Oracle, kafka: &str, topic: &str) -> Vec<Heartbeat> {
    if !oracle
        .list_topics(kafka)
        .unwrap()
        .iter()
        .any(|t| t == topic)
    {
        return Vec::new();
    }
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let dump = oracle.dump(kafka, topic, Isolation::ReadCommitted, options);
    let Ok(dump) = dump else {
        return Vec::new();
    };
    let records = dump.partitions.into_iter().flat_map(|p| p.records);
    records
        .map(|r| Heartbeat::decode(&r.key.unwrap(), &r.value.unwrap()).unwrap())
        .collect()
}

/// Waits until the topic holds one that is newer than now, and returns its (source, target).
fn beating(oracle: &Oracle, kafka: &str, topic: &str) -> (String, String) {
    let before = heartbeats(oracle, kafka, topic).len();
    let mut last = None;
    wait_until(&format!("{topic} beats"), SOON, || {
        let found = heartbeats(oracle, kafka, topic);
        last = found.last().cloned();
        found.len() > before
    });
    let last = last.unwrap();
    (last.source, last.target)
}

fn pair(source: &str, target: &str) -> (String, String) {
    (source.to_owned(), target.to_owned())
}

/// A chain over two links, the third cluster being the first one under another alias.
#[test]
fn mirror_clients_find_the_way_of_each_cluster_and_a_source_is_not_written_to() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let link = |from: &str, to: &str, more: &str| {
        format!(
            "[[links]]\nsource = \"{from}\"\ntarget = \"{to}\"\ntopics = [\"nothing-here\"]\nrefresh-topics = \"1s\"\n{more}\n"
        )
    };
    let clusters = format!("[clusters]\nwest = {west:?}\neast = {east:?}\nnorth = {west:?}\n");
    let (first, second) = (link("west", "east", ""), link("east", "north", ""));
    let mut mirror = Mirror::new(&format!("{clusters}{first}{second}")).started();
    assert_eq!(
        beating(&oracle, &east, "west.heartbeats"),
        pair("west", "east")
    );
    assert_eq!(
        beating(&oracle, &west, "east.west.heartbeats"),
        pair("west", "east")
    );
    assert_eq!(
        beating(&oracle, &west, "east.heartbeats"),
        pair("east", "north")
    );
    assert_eq!(
        look(&["mirror", &east, "west", "north"]),
        [
            "heartbeats [west.heartbeats]",
            "upstream [west]",
            "hops west 1",
            "hops north -1"
        ]
    );
    assert_eq!(
        look(&["mirror", &west, "west", "east"]),
        [
            "heartbeats [east.heartbeats, east.west.heartbeats]",
            "upstream [east, west]",
            "hops west 2",
            "hops east 1"
        ]
    );
    let settings = oracle.describe_topic(&east, "west.heartbeats").unwrap();
    assert_eq!(settings.partitions.len(), 1);
    let policy = settings.configs["cleanup.policy"].value.as_deref();
    assert_eq!(policy, Some("compact"));
    // Nothing comes to be on a cluster unsaid.
    for topic in ["mm2-strait.internal", "west.heartbeats"] {
        let said = format!("topic={topic} replication=1 created ");
        assert!(mirror.log().contains(&said), "{topic}: {}", mirror.tail());
    }

    // Somebody begins to write heartbeats to the source: what Strait keeps cannot be mirrored into, also after a restart.
    mirror.stop();
    oracle.create_topic(&west, "heartbeats", 1, 1, &[]).unwrap();
    mirror.start();
    mirror.wait_for_log("id=heartbeats-kept topic=heartbeats ", SOON);
    assert_eq!(
        beating(&oracle, &east, "west.heartbeats"),
        pair("west", "east")
    );
    mirror.stop();

    // As MirrorMaker 2 does it, for a flow in one direction: the other one's heartbeats go to the source, and come back.
    let mm2 = format!(
        "clusters = a, b\na.bootstrap.servers = {west}\nb.bootstrap.servers = {east}\na->b.enabled = true\ntopics = nothing-here\n"
    );
    let mut mirror = Mirror::with_file("mm2.properties", &mm2).started();
    assert_eq!(beating(&oracle, &west, "heartbeats"), pair("b", "a"));
    assert_eq!(beating(&oracle, &east, "heartbeats"), pair("a", "b"));
    assert_eq!(beating(&oracle, &east, "a.heartbeats"), pair("b", "a"));
    let log = mirror.log();
    for no in ["heartbeats-unwritten", "heartbeats-kept"] {
        assert!(!log.contains(no), "{log}");
    }
    mirror.stop();
}
