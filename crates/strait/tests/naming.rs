//! What mirrored topics are called, and that nothing goes back to where it came from.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod rig;

use std::time::Duration;

use rig::{Mirror, wait_until};
use strait_testkit::kafka::{Isolation, KafkaCluster, Oracle, Workload};

const SOON: Duration = Duration::from_secs(60);

fn topics(oracle: &Oracle, kafka: &str, beginning: &str) -> Vec<String> {
    let mut found = oracle.list_topics(kafka).unwrap();
    found.retain(|topic| topic.starts_with(beginning));
    found.sort();
    found
}

/// The wildcard that readers use selects local and remote topics alike, and so do both links here.
#[test]
fn suffixes_keep_both_ways_apart_under_one_wildcard() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    for (kafka, seed) in [(&west, 1), (&east, 2)] {
        oracle
            .create_topic(kafka, "accounting.invoices", 2, 1, &[])
            .unwrap();
        let load = Workload::new("accounting.invoices").seed(seed);
        oracle.produce(kafka, &load, 500).unwrap();
    }
    let link = |from: &str, to: &str| {
        format!(
            "[[links]]\nsource = \"{from}\"\ntarget = \"{to}\"\ntopics = [\"^accounting.invoices.*\"]\nnaming = \"suffix\"\nrefresh-topics = \"1s\"\n"
        )
    };
    let toml = format!(
        "[clusters]\nwest = {west:?}\neast = {east:?}\n{}{}",
        link("west", "east"),
        link("east", "west")
    );
    let mut mirror = Mirror::new(&toml).started();
    for (from, to, name) in [
        (&west, &east, "accounting.invoices.west"),
        (&east, &west, "accounting.invoices.east"),
    ] {
        wait_until("the remote topic is there", SOON, || {
            topics(&oracle, to, name) == [name]
        });
        let compared = oracle
            .compare(
                (from, "accounting.invoices"),
                (to, name),
                Isolation::ReadCommitted,
                SOON,
            )
            .unwrap();
        assert!(compared.equal, "{name}: {compared}");
    }
    // Both links have looked for topics again since the remote ones were there.
    oracle
        .create_topic(&west, "accounting.invoices.late", 1, 1, &[])
        .unwrap();
    oracle
        .create_topic(&east, "accounting.invoices.late2", 1, 1, &[])
        .unwrap();
    let all = |own: &str, remote: &str, late: &str, other: &str| -> Vec<String> {
        let mut names = vec![
            "accounting.invoices".to_owned(),
            format!("accounting.invoices.{remote}"),
            format!("accounting.invoices.{late}"),
            format!("accounting.invoices.{other}.{remote}"),
        ];
        names.sort();
        assert!(!names.iter().any(|name| name.ends_with(own)));
        names
    };
    wait_until("later topics follow", SOON, || {
        topics(&oracle, &west, "accounting.") == all("west", "east", "late", "late2")
            && topics(&oracle, &east, "accounting.") == all("east", "west", "late2", "late")
    });
    mirror.stop();
}
