//! A topic of one partition between the two shared clusters, told as the values of its records.
#![allow(dead_code)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use strait_testkit::kafka::{Codec, DumpOptions, Isolation, KafkaCluster, Oracle, RecordSpec};

use crate::rig::{Mirror, wait_until, west_to_east};

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The shared clusters and their judge.
pub(crate) struct Pair {
    pub(crate) oracle: Oracle,
    pub(crate) west: String,
    pub(crate) east: String,
}

/// A record with this value, and the value's beginning as key.
pub(crate) fn record(value: &str) -> RecordSpec {
    RecordSpec {
        key: Some(value.bytes().take(8).collect()),
        value: Some(value.as_bytes().to_vec()),
        ..RecordSpec::default()
    }
}

impl Pair {
    pub(crate) fn shared() -> Self {
        let [west, east] = KafkaCluster::shared_pair().unwrap();
        Self {
            oracle: Oracle::shared().unwrap(),
            west: west.bootstrap(),
            east: east.bootstrap(),
        }
    }

    /// Creates the topic on the source.
    pub(crate) fn create(&self, topic: &str) {
        let created = self.oracle.create_topic(&self.west, topic, 1, 1, &[]);
        created.unwrap();
    }

    /// Creates the topic on the source, and on the target with these settings.
    pub(crate) fn create_both(&self, topic: &str, on_target: &[(&str, &str)]) {
        self.create_both_with(topic, &[], on_target);
    }

    /// Creates the topic on the source and on the target, each with its own settings.
    pub(crate) fn create_both_with(
        &self,
        topic: &str,
        on_source: &[(&str, &str)],
        on_target: &[(&str, &str)],
    ) {
        let created = self.oracle.create_topic(&self.west, topic, 1, 1, on_source);
        created.unwrap();
        let mirrored = format!("west.{topic}");
        let created = self
            .oracle
            .create_topic(&self.east, &mirrored, 1, 1, on_target);
        created.unwrap();
    }

    /// Writes one batch to the source.
    pub(crate) fn batch(&self, topic: &str, records: &[RecordSpec]) {
        let sent = self.oracle.send(&self.west, topic, Codec::Lz4, records);
        sent.unwrap();
    }

    /// Writes each value in a batch of its own.
    pub(crate) fn write(&self, topic: &str, values: &[&str]) {
        for value in values {
            self.batch(topic, &[record(value)]);
        }
    }

    /// A running mirror of the topic, as a link of its name.
    pub(crate) fn mirror(&self, topic: &str, more: &str) -> Mirror {
        let more = format!("name = {topic:?}\nsync-topic-configs = false\n{more}");
        Mirror::new(&west_to_east(&self.west, &self.east, &[topic], &more)).started()
    }

    /// The values on the target, in order; none while there is no topic.
    pub(crate) fn values(&self, topic: &str) -> Vec<String> {
        let options = DumpOptions {
            records: true,
            ..DumpOptions::default()
        };
        let mirrored = format!("west.{topic}");
        let dump = self
            .oracle
            .dump(&self.east, &mirrored, Isolation::ReadCommitted, options);
        let Ok(dump) = dump else {
            return Vec::new();
        };
        let records = dump.partitions.into_iter().flat_map(|p| p.records);
        records
            .map(|r| String::from_utf8(r.value.unwrap_or_default()).unwrap())
            .collect()
    }

    /// Waits until the target holds exactly these values in this order.
    pub(crate) fn wait_for(&self, topic: &str, values: &[&str]) {
        let mut found = Vec::new();
        let mut holds = || {
            found = self.values(topic);
            found == values
        };
        let begun = std::time::Instant::now();
        while !holds() {
            assert!(begun.elapsed() < SOON, "{topic} holds {found:.40?}");
        }
    }

    pub(crate) fn set(&self, topic: &str, settings: &[(&str, &str)]) {
        let mirrored = format!("west.{topic}");
        let set = self
            .oracle
            .alter_topic_configs(&self.east, &mirrored, settings, &[]);
        set.unwrap();
    }
}

/// What `strait gaps` prints of the mirror's configuration, for machines.
pub(crate) fn gaps(folder: &Path) -> String {
    printed_gaps(folder, &["--json"])
}

/// The same for people.
pub(crate) fn gaps_table(folder: &Path) -> String {
    printed_gaps(folder, &[])
}

fn printed_gaps(folder: &Path, more: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .arg("gaps")
        .arg(folder.join("mirror.toml"))
        .args(more)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `strait gaps` prints this of a running mirror.
pub(crate) fn wait_for_gaps(mirror: &Mirror, text: &str) {
    let mut printed = String::new();
    wait_until(&format!("gaps say {text}"), SOON, || {
        printed = gaps(mirror.folder());
        printed.contains(text)
    });
}
