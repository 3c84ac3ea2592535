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

fn select(link: &str, topics: &[&str], more: &str) -> String {
    let (from, rest) = link.split_once('>').unwrap();
    let (to, _) = rest.split_once("-").unwrap();
    format!(
        "[[links]]\nname = {link:?}\nsource = {from:?}\ntarget = {to:?}\ntopics = {topics:?}\nrefresh-topics = \"1s\"\n{more}\n"
    )
}

/// Topics of one partition with one record each.
fn create(oracle: &Oracle, kafka: &str, topics: &[&str]) {
    for topic in topics {
        oracle.create_topic(kafka, topic, 1, 1, &[]).unwrap();
        oracle.produce(kafka, &Workload::new(*topic), 20).unwrap();
    }
}

fn assert_equal(oracle: &Oracle, from: (&str, &str), to: (&str, &str)) {
    wait_until("the remote topic is there", SOON, || {
        topics(oracle, to.0, to.1).iter().any(|topic| topic == to.1)
    });
    let compared = oracle
        .compare(from, to, Isolation::ReadCommitted, SOON)
        .unwrap();
    assert!(compared.equal, "{}: {compared}", to.1);
}

/// A template both ways between two clusters, and names that break it.
#[test]
fn templates_and_given_names_are_applied_once_and_collide_visibly() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    // The last one comes to the name that the first was given.
    create(
        &oracle,
        &west,
        &["shape.first", "shape.second", "shape.first.of.west"],
    );
    create(&oracle, &east, &["shape.eastern"]);
    let more = "naming = \"{topic}.copy\"";
    let names = "names = { \"shape.first\" = \"shape.first.of.west.copy\" }";
    let toml = format!(
        "[clusters]\nwest = {west:?}\neast = {east:?}\n{}{}",
        select("west>east-shape", &["shape.*"], &format!("{more}\n{names}")),
        select("east>west-shape", &["shape.*"], more)
    );
    let mut mirror = Mirror::new(&toml).started();
    for (from, to) in [
        ((&west, "shape.first"), (&east, "shape.first.of.west.copy")),
        ((&west, "shape.second"), (&east, "shape.second.copy")),
        ((&east, "shape.eastern"), (&west, "shape.eastern.copy")),
    ] {
        assert_equal(&oracle, (from.0, from.1), (to.0, to.1));
    }
    mirror.wait_for_log("id=topic-not-mirrored topic=shape.first.of.west the name 'shape.first.of.west.copy' on the target belongs to the source topic 'shape.first'", SOON);
    mirror.wait_for_log("link=west>east-shape topics=1 not mirrored, because they have the shape of this link's names already: shape.eastern.copy;", SOON);
    // Both have looked again since.
    create(&oracle, &west, &["shape.late"]);
    assert_equal(&oracle, (&west, "shape.late"), (&east, "shape.late.copy"));
    mirror.stop();
    assert_eq!(
        topics(&oracle, &east, "shape."),
        [
            "shape.eastern",
            "shape.first.of.west.copy",
            "shape.late.copy",
            "shape.second.copy"
        ]
    );
    assert_eq!(
        topics(&oracle, &west, "shape."),
        [
            "shape.eastern.copy",
            "shape.first",
            "shape.first.of.west",
            "shape.late",
            "shape.second"
        ]
    );
}

#[test]
fn a_topic_that_looks_like_one_from_its_own_cluster_is_told() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    create(&oracle, &west, &["west.own", "east.back"]);
    let toml = format!(
        "[clusters]\nwest = {west:?}\neast = {east:?}\n{}",
        // Other tests make a topic of heartbeats with such a name.
        select(
            "west>east-own",
            &["west.own", "east.back"],
            "replicate-heartbeats = false"
        )
    );
    let mut mirror = Mirror::new(&toml).started();
    mirror.wait_for_log("WARN  link=west>east-own id=alias-in-name topic=west.own the topic has the alias of its own cluster west in its name", SOON);
    mirror.wait_for_log("link=west>east-own topics=1 not mirrored, because by their names they came from cluster east: east.back;", SOON);
    assert_equal(&oracle, (&west, "west.own"), (&east, "west.west.own"));
    mirror.stop();
}
