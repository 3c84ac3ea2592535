//! White-box access to topics: creation, settings, appending, cleaning.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::Broker;
use crate::api::delete_records;
use crate::cluster::{KitError, TopicPlan};
use crate::codec::Codec;
use crate::compaction;
use crate::legacy::Format;
use crate::records::KitRecord;
use crate::topic_config::{LogSettings, check};

/// Topics.
impl Broker {
    /// Creates a topic (replication 1; 3 nodes or more: still 1, see [`Self::create_replicated`]).
    ///
    /// # Errors
    /// As CreateTopics: exists, bad name, bad settings.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<Uuid, KitError> {
        self.create_replicated(name, partitions, 1, configs)
    }

    /// Creates a topic with a replication factor.
    ///
    /// # Errors
    /// As [`Self::create_topic`].
    pub fn create_replicated(
        &self,
        name: &str,
        partitions: i32,
        replication: i16,
        configs: &[(&str, &str)],
    ) -> Result<Uuid, KitError> {
        let plan = TopicPlan {
            partitions,
            replication,
            assignments: Vec::new(),
            configs: configs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        };
        self.shared
            .with(|cluster, _| cluster.create_topic(name, &plan))
    }

    /// Deletes a topic and its records; answers whether it existed.
    pub fn delete_topic(&self, name: &str) -> bool {
        self.shared
            .with(|cluster, _| cluster.topics.remove(name).is_some())
    }

    /// Grows a topic to `total` partitions.
    ///
    /// # Errors
    /// Unknown topic, or `total` not above the present number.
    pub fn add_partitions(&self, name: &str, total: i32) -> Result<(), KitError> {
        self.shared
            .with(|cluster, _| cluster.grow(name, total, false))
    }

    /// All topics with their number of partitions.
    #[must_use]
    pub fn topics(&self) -> BTreeMap<String, i32> {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        let cluster = self.shared.lock();
        let topics = cluster.topics.iter();
        topics
            .map(|(name, topic)| (name.clone(), count(topic.partitions.len())))
            .collect()
    }

    /// A topic's id.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.shared.lock().topics.get(name).map(|topic| topic.id)
    }

    /// A topic's own settings (without defaults).
    #[must_use]
    pub fn topic_configs(&self, name: &str) -> BTreeMap<String, String> {
        let cluster = self.shared.lock();
        cluster
            .topics
            .get(name)
            .map(|t| t.overrides.clone())
            .unwrap_or_default()
    }

    /// Sets one of a topic's settings.
    ///
    /// # Errors
    /// Unknown topic, name or value.
    pub fn set_topic_config(&self, name: &str, key: &str, value: &str) -> Result<(), KitError> {
        check(key, value).map_err(|what| KitError::refused(crate::code::INVALID_CONFIG, what))?;
        self.shared.with(|cluster, _| {
            let topic = cluster.topics.get_mut(name);
            let topic = topic
                .ok_or_else(|| KitError::refused(crate::code::UNKNOWN_TOPIC_OR_PARTITION, name))?;
            topic.overrides.insert(key.to_owned(), value.to_owned());
            Ok(())
        })
    }

    /// Appends one whole batch as a producer with `acks=1` would; answers its base offset.
    ///
    /// # Errors
    /// Whatever the broker's checks say.
    pub fn append(&self, topic: &str, partition: i32, batch: &Bytes) -> Result<i64, KitError> {
        self.shared.with(|cluster, now_ms| {
            let unknown = || {
                KitError::refused(
                    crate::code::UNKNOWN_TOPIC_OR_PARTITION,
                    format!("{topic}-{partition}"),
                )
            };
            let (settings, found) = cluster
                .with_settings(topic, partition)
                .ok_or_else(unknown)?;
            let epoch = found.leader_epoch;
            let done = found.log.append(batch, &settings, epoch, now_ms);
            done.map(|a| a.base_offset).map_err(|refusal| {
                KitError::refused(refusal.0, format!("{topic}-{partition}: {}", refusal.1))
            })
        })
    }

    /// Appends records in a message format older than record batches, as a broker before 0.11 has left them; answers
    /// the first offset.
    ///
    /// # Errors
    /// Unknown partition; whatever compression says.
    pub fn append_legacy(
        &self,
        topic: &str,
        partition: i32,
        format: Format,
        codec: Codec,
        records: &[KitRecord],
    ) -> Result<i64, KitError> {
        self.shared.with(|cluster, now_ms| {
            let found = cluster.with_settings(topic, partition);
            let (settings, found) = found.ok_or_else(|| {
                let what = format!("{topic}-{partition}");
                KitError::refused(crate::code::UNKNOWN_TOPIC_OR_PARTITION, what)
            })?;
            let log = &mut found.log;
            Ok(log.append_legacy(format, codec, records, &settings, now_ms)?)
        })
    }

    /// One cleaner pass over all partitions of a topic (see `compaction.rs` for what stays).
    pub fn compact(&self, topic: &str) {
        self.each_log(topic, |log, settings, now_ms| {
            compaction::compact(log, settings, now_ms)
        });
    }

    /// Closes the active segments of a topic: a Fetch never crosses from one segment to the next.
    pub fn roll(&self, topic: &str) {
        self.each_log(topic, |log, _, _| log.roll());
    }

    /// The retention check, at once, for all topics.
    pub fn retain(&self) {
        self.shared.with(|cluster, now_ms| cluster.retain(now_ms));
        self.shared.tell();
    }

    fn each_log(&self, topic: &str, change: impl Fn(&mut crate::log::Log, &LogSettings, i64)) {
        self.shared.with(|cluster, now_ms| {
            let defaults = cluster.defaults();
            if let Some(topic) = cluster.topics.get_mut(topic) {
                let settings = LogSettings::new(&topic.overrides, &defaults);
                for partition in &mut topic.partitions {
                    change(&mut partition.log, &settings, now_ms);
                }
            }
        });
        self.shared.tell();
    }

    /// Deletes records below `before` (-1: up to the high watermark); answers the new log start.
    ///
    /// # Errors
    /// As DeleteRecords.
    pub fn delete_records(
        &self,
        topic: &str,
        partition: i32,
        before: i64,
    ) -> Result<i64, KitError> {
        let outcome = self
            .shared
            .with(|cluster, _| delete_records(cluster, None, topic, partition, before));
        outcome.map_err(|code| {
            KitError::refused(code, format!("delete records of {topic}-{partition}"))
        })
    }
}
