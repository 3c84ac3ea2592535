//! Very many consumer groups: all of them are committed for, and a change of one is committed alone.
//!
//! `STRAIT_GROUPS` is how many (120 unless set); the times are printed.
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

use std::process::Command;
use std::time::{Duration, Instant};

use rig::{Mirror, free_port, wait_until, west_to_east};
use strait_testkit::kafka::{KafkaCluster, Oracle, TransactionSpec, Workload};

const SOON: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 4;

#[test]
fn very_many_groups_are_committed_for_and_a_change_of_one_alone() {
    let wanted = std::env::var("STRAIT_GROUPS").ok();
    let wanted: i64 = wanted.map_or(120, |n| n.parse().unwrap());
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&west.bootstrap(), &east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let topic = "crowded";
    oracle
        .create_topic(west, topic, PARTITIONS, 1, &[])
        .unwrap();
    let workload = Workload::new(topic)
        .flush_every(50)
        .transaction(TransactionSpec::new(topic, 40).abort_every(5));
    let each = 1_200;
    oracle
        .produce(west, &workload, each * PARTITIONS as u64)
        .unwrap();
    let commit = |group: i64, further: i64| {
        let at = |p: i32| (topic, p, (group * 7 + i64::from(p) * 13) % 1_000 + further);
        let offsets: Vec<_> = (0..PARTITIONS).map(at).collect();
        oracle
            .commit_offsets(west, &format!("crowd-{group:05}"), &offsets)
            .unwrap();
    };
    (0..wanted).for_each(|group| commit(group, 0));

    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let more = format!(
        "name = {topic:?}\nsync-topic-configs = false\ngroups = [\"crowd-.*\"]\nsync-group-offsets-interval = \"1s\"\nemit-checkpoints-interval = \"1s\"\n"
    );
    let toml = west_to_east(west, east, &[topic], &more);
    let mut mirror = Mirror::new(&toml).arguments(&["--admin-listen", &listen]);
    mirror.start();
    mirror.wait_for_log("mirroring", SOON);
    let metric = |name: &str| page::metric(port, &format!("{name}{{link={topic:?}}}"));
    let commits = || metric("strait_group_commits_total").unwrap_or(0.0) as i64;
    let begun = Instant::now();
    wait_until("all groups are committed for", SOON, || {
        commits() >= wanted * i64::from(PARTITIONS)
            && metric("strait_groups_committed") == Some(wanted as f64)
    });
    let first = begun.elapsed();
    let waited = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(["wait", "caught-up", "--groups", "--timeout", "2m"])
        .arg(mirror.folder().join("mirror.toml"))
        .output()
        .unwrap();
    assert_eq!(waited.status.code(), Some(0), "{waited:?}");
    let there = |group: i64| {
        let group = format!("crowd-{group:05}");
        oracle.committed_offsets(east, &group).unwrap()
    };
    // Each has commits of its own: those of groups that stand on other offsets differ.
    for group in [0, wanted / 2, wanted - 1] {
        let same = |other: i64| there(group) == there(other);
        assert_eq!(there(group).len(), PARTITIONS as usize, "{group}");
        assert!(!same((group + 1) % wanted), "{group}");
    }
    // A change of one of them is committed, and nothing of the others.
    let (changing, neighbour) = (wanted - 1, wanted - 2);
    let (before, old, still) = (commits(), there(changing), there(neighbour));
    commit(changing, 60);
    let begun = Instant::now();
    let moved = || there(changing).iter().all(|(place, at)| *at > old[place]);
    wait_until("the change arrives", SOON, moved);
    let change = begun.elapsed();
    let expected = before + i64::from(PARTITIONS);
    wait_until("its commits are counted", SOON, || commits() >= expected);
    // The time a round took is a new one after each.
    let took = || metric("strait_groups_round_seconds");
    for further in ["that round ends", "one more does"] {
        let last = took();
        wait_until(further, SOON, || took() != last);
    }
    assert_eq!(commits(), expected);
    assert_eq!(there(neighbour), still);
    let round = metric("strait_groups_round_seconds");
    let round = round.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    let round = round.expect("the page tells how long a round took");
    eprintln!(
        "{wanted} groups: all committed for after {first:.2?}, a change after {change:.2?}, last round {round:.3} s"
    );
    mirror.stop();
}
