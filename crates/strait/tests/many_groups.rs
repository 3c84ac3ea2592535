//! Very many consumer groups: all of them are committed for, in rounds that stay short.
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

use std::time::{Duration, Instant};

use rig::{Mirror, free_port, wait_until, west_to_east};
use strait_testkit::kafka::{KafkaCluster, Oracle, TransactionSpec, Workload};

const SOON: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 4;

#[test]
fn very_many_groups_are_committed_for_in_short_rounds() {
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
    // A change of one of them is not held up by all the others.
    let before = commits();
    commit(wanted - 1, 60);
    let begun = Instant::now();
    wait_until("the change arrives", SOON, || commits() > before);
    let change = begun.elapsed();
    let round = metric("strait_groups_round_seconds").unwrap_or(f64::NAN);
    eprintln!(
        "{wanted} groups: all committed for after {first:.2?}, a change after {change:.2?}, last round {round:.3} s"
    );
    assert!(round.is_nan() || round < 5.0, "{round}");
    mirror.stop();
}
