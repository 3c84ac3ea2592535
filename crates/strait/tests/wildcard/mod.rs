//! Kafka's own consumer, subscribed to a pattern that local and remote topics match alike.
#![allow(dead_code)]

use std::path::Path;

use strait_testkit::kafka::run_java;

/// Reads all topics that match the pattern to their ends, as the group, and commits: topic, seed and number of each record of a
/// workload, in the order in which they came.
pub(crate) fn read_all(kafka: &str, group: &str, pattern: &str) -> Vec<(String, u64, u64)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wildcard/ReadAll.java");
    let printed = run_java(&source, &[kafka, group, pattern]).unwrap();
    let line = |line: &str| -> Option<(String, u64, u64)> {
        let (topic, value) = line.split_once(' ')?;
        let (seed, number) = value.split_once('/')?;
        Some((topic.to_owned(), seed.parse().ok()?, number.parse().ok()?))
    };
    printed.lines().map(|l| line(l).unwrap()).collect()
}

/// The numbers of the records of one topic.
pub(crate) fn numbers(read: &[(String, u64, u64)], topic: &str) -> Vec<u64> {
    let of_topic = read.iter().filter(|(name, ..)| name == topic);
    of_topic.map(|(_, _, number)| *number).collect()
}
