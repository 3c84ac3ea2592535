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
use std::process::Command;
use std::time::Duration;

use rig::{Mirror, free_port, wait_until};
use strait_testkit::kafka::{
    DumpOptions, Isolation, KafkaCluster, KafkaOptions, Oracle, TransactionSpec, Version, Workload,
    run_java,
};

const SOON: Duration = Duration::from_secs(120);

/// The one node can hold the state of share groups.
fn node() -> KafkaOptions {
    KafkaOptions::new()
        .property("share.coordinator.state.topic.replication.factor", "1")
        .property("share.coordinator.state.topic.min.isr", "1")
}

/// Beside the one that is looked at: more than one slice of them.
const MANY: i64 = 60;

fn share(arguments: &[&str]) -> Vec<i64> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let said = run_java(&tests.join("look/ShareGroups.java"), arguments).unwrap();
    said.lines().map(|line| line.parse().unwrap()).collect()
}

/// Nothing is left out; who has members on the target is left alone; consumer groups go on beside; a target that knows no share
/// groups is told of once, and one that learns to know them has them from then on.
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
    // Each has taken care of what lies below, over some transactions.
    let hands: Vec<String> = (0..MANY).map(|n| format!("hand-{n}")).collect();
    let hands: Vec<&str> = hands.iter().map(String::as_str).collect();
    share(&[&["alter", west, topic, "60", "dealers"], &hands[..]].concat());
    share(&["feature", east, "0"]);

    let port = free_port();
    let link = |target: &str| {
        format!(
            "[[links]]\nname = \"west->{target}\"\nsource = \"west\"\ntarget = {target:?}\ntopics = [{topic:?}]\ngroups = [\"dealers\", \"hand-.*\", \"readers\"]\nrefresh-topics = \"1s\"\nrefresh-groups = \"1s\"\nsync-group-offsets-interval = \"1s\"\nemit-checkpoints-interval = \"1s\"\n"
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
    let metric = |name: &str| page::metric(port, &format!("{name}{{link=\"west->east\"}}"));
    let unsupported = |log: &str| log.matches("id=share-groups-unsupported").count();
    wait_until("both targets know none", SOON, || {
        unsupported(&mirror.log()) == 2
    });
    oracle
        .commit_offsets(west, "readers", &[(topic, 0, 60)])
        .unwrap();
    wait_until("consumer groups go on", SOON, || {
        metric("strait_groups_committed") == Some(1.0)
    });
    share(&["feature", east, "1"]);
    wait_until("all stand on the target", SOON, || {
        metric("strait_groups_committed") == Some((MANY + 2) as f64)
    });
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let records = |kafka: &str, topic: &str| {
        let dump = oracle.dump(kafka, topic, Isolation::ReadCommitted, options);
        dump.unwrap().partitions.remove(0).records
    };
    let number = |value: Option<&[u8]>| -> i64 {
        let text = String::from_utf8(value.unwrap().to_vec()).unwrap();
        text.split('/').nth(1).unwrap().parse().unwrap()
    };
    let (here, there) = (records(west, topic), records(east, target));
    let unread = |from: i64| -> BTreeSet<i64> {
        let rest = here.iter().filter(|record| record.offset >= from);
        rest.map(|record| number(record.value.as_deref())).collect()
    };
    // Nothing but markers lies between the start and what is unread, and nothing that was not read before it.
    let stands = |start: i64, from: i64| {
        let rest = there.iter().filter(|record| record.offset >= start);
        let rest: BTreeSet<i64> = rest.map(|r| number(r.value.as_deref())).collect();
        start >= 0 && rest == unread(from)
    };
    let last = hands[hands.len() - 1];
    wait_until("they begin where they were", SOON, || {
        let told = share(&["offsets", east, "dealers", hands[0], last]);
        stands(told[0], 60) && stands(told[1], 61) && stands(told[2], 60 + MANY)
    });

    let folder = tempfile::tempdir().unwrap();
    let end = folder.path().join("end");
    let until = end.to_str().unwrap().to_owned();
    let member = {
        let east = east.clone();
        std::thread::spawn(move || share(&["read", &east, "dealers", target, &until]))
    };
    let left = unread(60);
    wait_until("it has read all that was left", SOON, || {
        let read = std::fs::read_to_string(folder.path().join("end.read"));
        read.is_ok_and(|read| read.parse::<usize>().unwrap() >= left.len())
    });
    // It goes on here and there: not moved under a member's feet.
    share(&["alter", west, topic, "190", "dealers"]);
    wait_until("it is known to be active", SOON, || {
        metric("strait_groups_active") == Some(1.0)
    });
    std::fs::write(&end, "").unwrap();
    let read = member.join().unwrap();
    assert_eq!(read.iter().copied().collect::<BTreeSet<_>>(), left);
    assert_eq!(read.len(), left.len(), "each once");
    wait_until("nobody is active any more", SOON, || {
        metric("strait_groups_active") == Some(0.0)
    });
    let said = mirror.log();
    assert_eq!(unsupported(&said), 2);
    assert!(said.contains("share groups are looked after now"));
    assert!(!said.contains("id=group-un"), "{}", mirror.tail());
    mirror.stop();

    // Waiting for groups waits for these too: where one does not begin yet, members would leave something out.
    share(&["alter", west, topic, "190", hands[0]]);
    let file = mirror.folder().join("mirror.toml");
    let wait_for = |more: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_strait"))
            .args(["wait", "caught-up"])
            .arg(&file)
            .args(more)
            .output()
            .unwrap();
        let told = String::from_utf8(ended.stdout).unwrap();
        (ended.status.code(), told)
    };
    let wait = |time: &str| wait_for(&["--link", "west->east", "--groups", "--timeout", time]);
    let (code, told) = wait("45s");
    assert_eq!(code, Some(6), "{told}");
    let behind = format!("share group {} stands at ", hands[0]);
    assert!(told.contains(&behind), "{told}");
    mirror.start();
    let (code, told) = wait("120s");
    assert_eq!(code, Some(0), "{told}");
    mirror.stop();

    let planned = Command::new(env!("CARGO_BIN_EXE_strait"))
        .arg("plan")
        .arg(&file)
        .output()
        .unwrap();
    let planned = String::from_utf8(planned.stdout).unwrap();
    let to = |target: &str| {
        let of = planned
            .split("link west->")
            .find(|of| of.starts_with(target));
        of.unwrap().to_owned()
    };
    let all = MANY + 1;
    let counted = format!(
        "share groups: {all} selected by name, {all} of them with start offsets on these topics\n"
    );
    assert!(to("east").contains(&counted), "{planned}");
    let lacks = "share groups: none is looked after: cluster south does not have what is needed";
    assert!(to("south").contains(lacks), "{planned}");

    // Nor are they waited for there.
    let more = ["--link", "west->south", "--groups", "--timeout", "60s"];
    let (code, told) = wait_for(&more);
    assert_eq!(code, Some(0), "{told}");
    let left_out = "\nshare groups not waited for, as one of the clusters lacks the API for where they begin: dealers, hand-0, ";
    assert!(told.contains(left_out), "{told}");
}
