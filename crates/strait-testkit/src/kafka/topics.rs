//! Topics as an administrator sees and changes them.

use super::error::HarnessError;
use super::oracle::Oracle;
use super::reading::Isolation;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a new topic may be unknown to some brokers, and the time between two questions.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// A topic as the cluster describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct TopicState {
    /// The topic id, in Kafka's base64.
    pub id: String,
    /// Whether Kafka counts it as internal.
    pub internal: bool,
    /// The partitions in order.
    pub partitions: Vec<PartitionState>,
    /// Every topic configuration, defaults too, by name.
    pub configs: BTreeMap<String, TopicConfig>,
}

/// One partition as the cluster describes it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartitionState {
    /// The partition's number.
    pub partition: i32,
    /// The leader's node id, -1 for none.
    pub leader: i32,
    /// The replicas' node ids, the preferred leader first.
    pub replicas: Vec<i32>,
    /// The node ids of the in-sync replicas.
    pub isr: Vec<i32>,
}

/// One configuration of a topic.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct TopicConfig {
    /// Its value; none for a sensitive one.
    pub value: Option<String>,
    /// Whether it is set on the topic itself rather than inherited.
    pub set_on_topic: bool,
}

/// Topics. Every error is Kafka's own answer, or that of a client that got none within a minute.
impl Oracle {
    /// Creates a topic and returns its id once every partition has a leader that answers. Without that, a producer
    /// whose first batch comes too early and whose second one does not never gets the first one in.
    pub fn create_topic(
        &self,
        bootstrap: &str,
        topic: &str,
        partitions: i32,
        replication: i16,
        configs: &[(&str, &str)],
    ) -> Result<String, HarnessError> {
        #[derive(Deserialize)]
        struct Created {
            id: String,
        }
        let created: Created = self.ask(
            "create_topic",
            json!({"bootstrap": bootstrap, "topic": topic, "partitions": partitions, "replication": replication,
                   "configs": pairs(configs)}),
        )?;
        self.await_known(bootstrap, topic)?;
        Ok(created.id)
    }

    /// Waits until each broker knows the topic: one may learn of it after another one led it.
    fn await_known(&self, bootstrap: &str, topic: &str) -> Result<(), HarnessError> {
        let begun = Instant::now();
        for broker in bootstrap.split(',') {
            loop {
                let answer = self
                    .offsets(broker, topic, Isolation::ReadUncommitted)
                    .and_then(|_| self.describe_topic(broker, topic));
                match answer {
                    Ok(_) => break,
                    Err(error) if begun.elapsed() > KNOWN_WITHIN => return Err(error),
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        }
        Ok(())
    }

    /// Whether a transaction is open in the topic. The end of one is answered before its markers are written.
    /// Nobody may write to it meanwhile.
    pub fn has_open_transaction(&self, bootstrap: &str, topic: &str) -> Result<bool, HarnessError> {
        let ends = |isolation| self.offsets(bootstrap, topic, isolation);
        Ok(ends(Isolation::ReadCommitted)? != ends(Isolation::ReadUncommitted)?)
    }

    /// Deletes a topic; the brokers remove it soon after.
    pub fn delete_topic(&self, bootstrap: &str, topic: &str) -> Result<(), HarnessError> {
        self.tell(
            "delete_topic",
            json!({"bootstrap": bootstrap, "topic": topic}),
        )
    }

    /// Raises a topic's partitions to `total` and returns once each has a leader that answers.
    pub fn create_partitions(
        &self,
        bootstrap: &str,
        topic: &str,
        total: i32,
    ) -> Result<(), HarnessError> {
        self.tell(
            "create_partitions",
            json!({"bootstrap": bootstrap, "topic": topic, "total": total}),
        )?;
        self.offsets(bootstrap, topic, Isolation::ReadUncommitted)?;
        Ok(())
    }

    /// The names of all topics, internal ones too, sorted.
    pub fn list_topics(&self, bootstrap: &str) -> Result<Vec<String>, HarnessError> {
        self.ask("list_topics", json!({"bootstrap": bootstrap}))
    }

    /// A topic's id, partitions and configurations.
    pub fn describe_topic(&self, bootstrap: &str, topic: &str) -> Result<TopicState, HarnessError> {
        self.ask(
            "describe_topic",
            json!({"bootstrap": bootstrap, "topic": topic}),
        )
    }

    /// Sets and deletes configurations of a topic; the others stay.
    pub fn alter_topic_configs(
        &self,
        bootstrap: &str,
        topic: &str,
        set: &[(&str, &str)],
        delete: &[&str],
    ) -> Result<(), HarnessError> {
        self.tell(
            "alter_configs",
            json!({"bootstrap": bootstrap, "topic": topic, "set": pairs(set), "delete": delete}),
        )
    }

    /// Sets and deletes the dynamic default configurations of all brokers.
    pub fn alter_broker_configs(
        &self,
        bootstrap: &str,
        set: &[(&str, &str)],
        delete: &[&str],
    ) -> Result<(), HarnessError> {
        self.tell(
            "alter_configs",
            json!({"bootstrap": bootstrap, "set": pairs(set), "delete": delete}),
        )
    }

    /// Deletes the records below `before` (-1: all that are committed) and returns the new first offset.
    pub fn delete_records(
        &self,
        bootstrap: &str,
        topic: &str,
        partition: i32,
        before: i64,
    ) -> Result<i64, HarnessError> {
        self.ask(
            "delete_records",
            json!({"bootstrap": bootstrap, "topic": topic, "partition": partition, "before": before}),
        )
    }

    /// The bytes that the leader of each partition stores, in order of partitions, as it reports them.
    pub fn stored_bytes(&self, bootstrap: &str, topic: &str) -> Result<Vec<u64>, HarnessError> {
        self.ask(
            "stored_bytes",
            json!({"bootstrap": bootstrap, "topic": topic}),
        )
    }

    /// Begins to move a partition to these node ids; the first becomes the preferred leader.
    pub fn reassign(
        &self,
        bootstrap: &str,
        topic: &str,
        partition: i32,
        replicas: &[i32],
    ) -> Result<(), HarnessError> {
        self.tell(
            "reassign",
            json!({"bootstrap": bootstrap, "topic": topic, "partition": partition, "replicas": replicas}),
        )
    }

    /// Makes a partition's preferred replica its leader.
    pub fn elect_preferred(
        &self,
        bootstrap: &str,
        topic: &str,
        partition: i32,
    ) -> Result<(), HarnessError> {
        self.tell(
            "elect",
            json!({"bootstrap": bootstrap, "topic": topic, "partition": partition}),
        )
    }

    /// Commits offsets (topic, partition, offset) for a group without members.
    pub fn commit_offsets(
        &self,
        bootstrap: &str,
        group: &str,
        offsets: &[(&str, i32, i64)],
    ) -> Result<(), HarnessError> {
        let offsets: Vec<Value> = offsets
            .iter()
            .map(|(topic, partition, offset)| json!({"topic": topic, "partition": partition, "offset": offset}))
            .collect();
        self.tell(
            "commit_offsets",
            json!({"bootstrap": bootstrap, "group": group, "offsets": offsets}),
        )
    }

    /// The committed offsets of a group by (topic, partition).
    pub fn committed_offsets(
        &self,
        bootstrap: &str,
        group: &str,
    ) -> Result<BTreeMap<(String, i32), i64>, HarnessError> {
        #[derive(Deserialize)]
        struct Committed {
            topic: String,
            partition: i32,
            offset: i64,
        }
        let offsets: Vec<Committed> = self.ask(
            "committed_offsets",
            json!({"bootstrap": bootstrap, "group": group}),
        )?;
        Ok(offsets
            .into_iter()
            .map(|at| ((at.topic, at.partition), at.offset))
            .collect())
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Value {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Value::from(*value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
