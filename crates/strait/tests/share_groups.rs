//! Share groups that move to the target: where they begin to read there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod page;
mod rig;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rig::{Mirror, free_port, wait_until};
use strait_testkit::kafka::{
    DumpOptions, Isolation, KafkaCluster, KafkaOptions, Oracle, TransactionSpec, Version, Workload,
    run_java,
};

const SOON: Duration = Duration::from_secs(90);

/// The one node can hold the state of share groups.
fn node() -> KafkaOptions {
    KafkaOptions::new()
        .property("share.coordinator.state.topic.replication.factor", "1")
        .property("share.coordinator.state.topic.min.isr", "1")
}

fn share(arguments: &[&str]) -> Vec<u64> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let said = run_java(&tests.join("look/ShareGroups.java"), arguments).unwrap();
    said.lines().map(|line| line.parse().unwrap()).collect()
}

/// Nothing is left out; who has members on the target is left alone; and a target that knows no share groups is told of once.
#[test]
fn a_share_group_begins_on_the_target_where_it_was() {
    let old = KafkaOptions::new().version(Version::V3_9);
    let [west, east, south] = KafkaCluster::start_all([node(), node(), old]).unwrap();
    let (west, east, south) = (&west.bootstrap(), &east.bootstrap(), south.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let (topic, target) = ("dealt", "west.dealt");
    oracle.create_topic(west, topic, 1, 1, &[]).unwrap();
    let workload = Workload::new(topic)
        .flush_every(7)
        .transaction(TransactionSpec::new("dealt", 13).abort_every(4));
    oracle.produce(west, &workload, 200).unwrap();
    // It has taken care of what lies below, over some transactions.
    share(&["alter", west, "dealers", topic, "100"]);

    let port = free_port();
    let link = |target: &str| {
        format!(
            "[[links]]\nname = \"west->{target}\"\nsource = \"west\"\ntarget = {target:?}\ntopics = [{topic:?}]\ngroups = [\"dealers\"]\nrefresh-topics = \"1s\"\nsync-group-offsets-interval = \"1s\"\nemit-checkpoints-interval = \"1s\"\n"
        )
    };
    let toml = format!(
        "[clusters]\nwest = {west:?}\neast = {east:?}\nsouth = {south:?}\n{}{}",
        link("east"),
        link("south")
    );
    let listen = format!("127.0.0.1:{port}");
    let mut mirror = Mirror::new(&toml).arguments(&["--admin-listen", &listen]);
    mirror.start();
    mirror.wait_for_log("id=share-groups-unsupported", SOON);
    let metric = |name: &str| page::metric(port, &format!("{name}{{link=\"west->east\"}}"));
    wait_until("the group stands on the target", SOON, || {
        metric("strait_groups_committed") == Some(1.0)
    });
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let records = |kafka: &str, topic: &str| {
        let dump = oracle.dump(kafka, topic, Isolation::ReadCommitted, options);
        dump.unwrap().partitions.remove(0).records
    };
    let number = |value: Option<&[u8]>| -> u64 {
        let text = String::from_utf8(value.unwrap().to_vec()).unwrap();
        text.split('/').nth(1).unwrap().parse().unwrap()
    };
    let unread: BTreeSet<u64> = records(west, topic)
        .iter()
        .filter(|record| record.offset >= 100)
        .map(|record| number(record.value.as_deref()))
        .collect();
    let there = records(east, target);
    let first = there
        .iter()
        .find(|record| unread.contains(&number(record.value.as_deref())));
    // Nothing but markers lies between.
    let start = share(&["offsets", east, "dealers"])[0] as i64;
    let first = first.unwrap().offset;
    assert!(
        there.iter().all(|r| r.offset < start || r.offset >= first),
        "{start} {first}"
    );
    assert!(start <= first);

    let folder = tempfile::tempdir().unwrap();
    let end = folder.path().join("end");
    let until = end.to_str().unwrap().to_owned();
    let member = {
        let east = east.clone();
        std::thread::spawn(move || share(&["read", &east, "dealers", target, &until]))
    };
    wait_until("it reads", SOON, || {
        folder.path().join("end.begun").exists()
    });
    // It goes on here and there: not moved under a member's feet.
    share(&["alter", west, "dealers", topic, "150"]);
    wait_until("it is known to be active", SOON, || {
        metric("strait_groups_active") == Some(1.0)
    });
    std::fs::write(&end, "").unwrap();
    let read: BTreeSet<u64> = member.join().unwrap().into_iter().collect();
    assert_eq!(read, unread);
    let said = mirror.log();
    assert_eq!(said.matches("id=share-groups-unsupported").count(), 1);
    assert!(!said.contains("id=group-un"), "{}", mirror.tail());
    mirror.stop();
}
