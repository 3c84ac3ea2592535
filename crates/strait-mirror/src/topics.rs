//! Topics on the target: made like the source's, kept in step with them.

pub(crate) mod acls;
pub(crate) mod gone;

use std::collections::{BTreeMap, BTreeSet};

use strait_config::{DefaultsFrom, LinkConfig};
use strait_net::{
    Action, Cluster, ConfigEntry, KafkaError, Metadata, NetError, NewTopic, TopicMetadata,
};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::naming::left_out::LeftOut;

/// A topic's own settings, as opposed to defaults: DescribeConfigs source 1 (`DYNAMIC_TOPIC_CONFIG`).
const OWN: i8 = 1;
/// What stands in a broker's file: DescribeConfigs source 4 (`STATIC_BROKER_CONFIG`).
const STATIC_BROKER: i8 = 4;
const INVALID_TOPIC: KafkaError = KafkaError(17);
const INVALID_REPLICATION_FACTOR: KafkaError = KafkaError(38);
const INVALID_CONFIG: KafkaError = KafkaError(40);
const INVALID_REQUEST: KafkaError = KafkaError(42);
const POLICY_VIOLATION: KafkaError = KafkaError(44);
const TOPIC_ALREADY_EXISTS: KafkaError = KafkaError(36);

/// The id of what keeps a topic from being mirrored at all.
pub(crate) const TOPIC_NOT_MIRRORED: &str = "topic-not-mirrored";
/// The id of what keeps some partitions of a topic from being mirrored.
pub(crate) const TOPIC_IN_PART: &str = "topic-in-part";

/// Keeps one link's topics on the target. Remembers what it reported, so that every refusal is said once.
#[derive(Debug, Default)]
pub(crate) struct TopicKeeper {
    /// Settings that the target refused: (topic, setting) and the value, none for a removal.
    refused: BTreeMap<(String, String), Option<String>>,
    capped: bool,
    /// The source's topics that were mirrored when it was looked at last.
    mirrored: BTreeSet<String>,
    reported: BTreeMap<String, String>,
    /// Topics of which it was said that they are left out by their names.
    left_out: BTreeSet<String>,
    /// When settings were compared last.
    compared: Option<Instant>,
}

/// How a topic stands on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Partitions that are there, or will be in a moment.
    pub(crate) partitions: usize,
    /// The target refused something that may be mended there: ask again before long.
    pub(crate) refused: bool,
    /// Why the topic is not mirrored, or not all of its partitions.
    pub(crate) why: Option<String>,
}

/// One topic to mirror.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) target: &'a str,
    pub(crate) found: &'a TopicMetadata,
    pub(crate) configs: &'a [ConfigEntry],
}

impl Wanted<'_> {
    fn partitions(&self) -> i32 {
        i32::try_from(self.found.partitions.len()).unwrap_or(i32::MAX)
    }

    /// The settings to copy: the topic's own ones, less what the configuration excludes; with the source's defaults also
    /// those, but for what a broker's file says (`MirrorSourceConnector.targetConfig`).
    pub(crate) fn settings(&self, link: &LinkConfig) -> BTreeMap<String, String> {
        let copied = |e: &&ConfigEntry| {
            let taken = match link.beside.defaults_from {
                DefaultsFrom::Target => e.source == OWN,
                DefaultsFrom::Source => e.source != STATIC_BROKER && !e.read_only,
            };
            taken && !e.sensitive && !link.config_excludes.iter().any(|p| p.matches(&e.name))
        };
        let entries = self.configs.iter().filter(copied);
        entries
            .filter_map(|e| Some((e.name.clone(), e.value.clone()?)))
            .collect()
    }

    /// What the topic is created with.
    pub(crate) fn at_creation(&self, link: &LinkConfig) -> BTreeMap<String, String> {
        let mut settings = self.settings(link);
        // Without sync, only what decides whether records can be stored at all is copied at creation.
        if !link.sync_topic_configs {
            settings
                .retain(|name, _| matches!(name.as_str(), "cleanup.policy" | "max.message.bytes"));
        }
        settings
    }

    /// Replicas of the source's partitions; of the one that has most.
    pub(crate) fn replicas(&self) -> i16 {
        let most = self
            .found
            .partitions
            .values()
            .map(|p| p.replicas.len())
            .max();
        i16::try_from(most.unwrap_or(1)).unwrap_or(i16::MAX)
    }

    /// What has to be set on an existing topic, and what has to be taken off it.
    pub(crate) fn differences(
        &self,
        link: &LinkConfig,
        existing: &[ConfigEntry],
    ) -> (BTreeMap<String, String>, Vec<String>) {
        let source = self.settings(link);
        let own = |e: &&ConfigEntry| {
            e.source == OWN
                && !e.read_only
                && !link.config_excludes.iter().any(|p| p.matches(&e.name))
        };
        let current: BTreeMap<&str, Option<&str>> = existing
            .iter()
            .filter(own)
            .map(|e| (e.name.as_str(), e.value.as_deref()))
            .collect();
        let deletes = current
            .keys()
            .filter(|name| !source.contains_key(**name))
            .map(|name| (*name).to_owned())
            .collect();
        let sets = source
            .iter()
            .filter(|(name, value)| current.get(name.as_str()) != Some(&Some(value.as_str())))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        (sets, deletes)
    }

    pub(crate) fn compacted(&self) -> bool {
        setting(self.configs, "cleanup.policy").is_some_and(|v| v.contains("compact"))
    }
}

/// The value of a setting, wherever it comes from.
pub(crate) fn setting<'a>(configs: &'a [ConfigEntry], name: &str) -> Option<&'a str> {
    configs
        .iter()
        .find(|e| e.name == name)
        .and_then(|e| e.value.as_deref())
}

impl TopicKeeper {
    /// Says why a topic is not mirrored at all: once, and again only when it changed.
    pub(crate) fn report(&mut self, link: &str, topic: &str, problem: &str) {
        if self.reported.get(topic).map(String::as_str) != Some(problem) {
            error!(link, id = TOPIC_NOT_MIRRORED, topic, "{problem}");
            self.reported.insert(topic.to_owned(), problem.to_owned());
        }
    }

    /// Says which selected topics are left out by their names.
    pub(crate) fn report_left_out(&mut self, link: &LinkConfig, left_out: LeftOut) {
        left_out.report(link, &mut self.left_out);
    }

    /// Says once that a topic is called like one that came from its own cluster.
    pub(crate) fn report_alias(&mut self, link: &LinkConfig, topic: &str, target_name: &str) {
        // No topic has a space in its name.
        if self
            .reported
            .insert(format!("{topic} alias"), String::new())
            .is_none()
        {
            warn!(
                link = %link.name, id = "alias-in-name", topic,
                "the topic has the alias of its own cluster {} in its name, so that MirrorMaker 2's clients take it for one that came from there; it is mirrored as {target_name}; give it another name under names, or another separator or alias to the link",
                link.source
            );
        }
    }

    /// [`report`](Self::report) for a topic of which a part is mirrored.
    fn report_part(&mut self, link: &str, topic: &str, problem: &str) {
        if self.reported.get(topic).map(String::as_str) != Some(problem) {
            warn!(link, id = TOPIC_IN_PART, topic, "{problem}");
            self.reported.insert(topic.to_owned(), problem.to_owned());
        }
    }

    /// [`report`](Self::report) for what keeps a topic's settings, not its records, from being copied. Not said, and false, the
    /// first time that a broker does not know a topic: of one that was made a moment ago it learns soon.
    pub(crate) fn report_settings(
        &mut self,
        link: &str,
        (topic, error): (&str, KafkaError),
        problem: &str,
    ) -> bool {
        // No topic has a space in its name.
        let key = format!("{topic} settings");
        let last = self.reported.get(&key).map(String::as_str);
        if last == Some(problem) {
            return true;
        }
        if last.is_none() && error == KafkaError::UNKNOWN_TOPIC_OR_PARTITION {
            self.reported.insert(key, String::new());
            return false;
        }
        warn!(link, id = "settings-unreadable", topic, "{problem}");
        self.reported.insert(key, problem.to_owned());
        true
    }

    /// Says which topics the source had when it was looked at last and does not show now.
    pub(crate) fn report_gone(&mut self, link: &str, source: &str, found: &Metadata) {
        self.mirrored.retain(|topic| {
            let there = found.topics.contains_key(topic);
            if !there {
                warn!(
                    link, id = "topic-unknown", topic,
                    "cluster {source} does not show this topic any more, so it is not mirrored: it was deleted, or Strait's user may not see it; give Strait's user Read there (Describe is in it) if it still exists; it goes on by itself when it is back"
                );
            }
            there
        });
    }

    /// A topic is mirrored, with some of its partitions at least.
    pub(crate) fn mirrored(&mut self, topic: &str) {
        if !self.mirrored.contains(topic) {
            self.mirrored.insert(topic.to_owned());
        }
    }

    /// Forgets what was said of topics that are gone on both sides.
    pub(crate) fn keep_known(&mut self, known: impl Fn(&str) -> bool) {
        // No topic has a space in its name.
        let topic = |key: &str| key.split(' ').next().unwrap_or_default().to_owned();
        self.reported.retain(|key, _| known(&topic(key)));
        self.refused.retain(|(topic, _), _| known(topic));
    }

    /// Whether settings of topics that are there are due to be compared, which then counts as done.
    pub(crate) fn compares_now(&mut self, now: Instant, link: &LinkConfig) -> bool {
        let interval = link.beside.configs_interval.unwrap_or_default();
        let due = self
            .compared
            .is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if due {
            self.compared = Some(now);
        }
        due
    }

    /// A topic's problem is over.
    pub(crate) fn settled(&mut self, topic: &str) {
        self.reported.remove(topic);
    }

    /// Creates the topic, or gives it the partitions of the source's. A refusal is reported and concerns this topic
    /// only.
    pub(crate) async fn keep(
        &mut self,
        link: &LinkConfig,
        target: &Cluster,
        metadata: &Metadata,
        wanted: &Wanted<'_>,
    ) -> Result<Kept, NetError> {
        match metadata.topics.get(wanted.target).filter(|t| t.error != 3) {
            None => {
                self.create(link, target, metadata.brokers.len(), wanted)
                    .await
            }
            Some(existing) if existing.error != 0 => {
                let error = KafkaError(existing.error);
                let why = format!(
                    "cluster {} answers {error} for this topic: it is not mirrored until that is over; {}",
                    target.alias(),
                    rights(error, "Read and Write (Describe is in them)")
                );
                self.report(&link.name, wanted.target, &why);
                Ok(Kept {
                    partitions: 0,
                    refused: true,
                    why: Some(why),
                })
            }
            Some(existing) => self.grow(link, target, wanted, existing).await,
        }
    }

    async fn create(
        &mut self,
        link: &LinkConfig,
        target: &Cluster,
        brokers: usize,
        wanted: &Wanted<'_>,
    ) -> Result<Kept, NetError> {
        let all = Kept {
            partitions: wanted.found.partitions.len(),
            refused: false,
            why: None,
        };
        let live = i16::try_from(brokers.max(1)).unwrap_or(i16::MAX);
        let replication = link.replication_factor.unwrap_or_else(|| {
            let source = wanted.replicas();
            if source > live && !self.capped {
                self.capped = true;
                warn!(
                    link = %link.name, id = "replication-capped",
                    "source topics have {source} replicas, but the target has {}: topics are created with {live}; set replication-factor to decide it yourself",
                    brokers_alive(live)
                );
            }
            source.min(live)
        });
        let settings = wanted.at_creation(link);
        let mut topic = NewTopic {
            name: wanted.target.to_owned(),
            partitions: wanted.partitions(),
            replication,
            configs: settings.clone().into_iter().collect(),
        };
        let mut result = target.create_topic(&topic).await;
        let refusal = |r: &Result<_, NetError>| r.as_ref().err().and_then(NetError::code);
        let one_by_one = matches!(
            refusal(&result),
            Some(INVALID_CONFIG | POLICY_VIOLATION | INVALID_REQUEST)
        );
        if one_by_one && !topic.configs.is_empty() {
            topic.configs.clear();
            result = target.create_topic(&topic).await;
        }
        match (result, one_by_one) {
            (Ok(_), one_by_one) => {
                info!(
                    link = %link.name, topic = %wanted.target, partitions = topic.partitions, replication,
                    "created on the target"
                );
                if one_by_one {
                    self.set(link, target, wanted.target, &settings, &[])
                        .await?;
                }
                self.settled(wanted.target);
                Ok(all)
            }
            (Err(error), _) if error.code() == Some(TOPIC_ALREADY_EXISTS) => Ok(all),
            (Err(error), _) if error.code().is_some() => {
                let advice = match error.code() {
                    Some(INVALID_REPLICATION_FACTOR) => format!(
                        "the target has {}: lower replication-factor (now {replication}), or leave it out to have it capped",
                        brokers_alive(live)
                    ),
                    Some(INVALID_TOPIC) => {
                        "choose another separator or naming for this link, or exclude the topic"
                            .to_owned()
                    }
                    Some(code) => rights(code, "Create"),
                    None => String::new(),
                };
                let why = format!(
                    "cannot create the topic on cluster {}, the others go on: {error}; {advice}",
                    target.alias()
                );
                self.report(&link.name, wanted.target, &why);
                Ok(Kept {
                    partitions: 0,
                    refused: true,
                    why: Some(why),
                })
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn grow(
        &mut self,
        link: &LinkConfig,
        target: &Cluster,
        wanted: &Wanted<'_>,
        existing: &TopicMetadata,
    ) -> Result<Kept, NetError> {
        let kept = |partitions, refused, why| Kept {
            partitions,
            refused,
            why,
        };
        let (have, need) = (existing.partitions.len(), wanted.found.partitions.len());
        if have >= need {
            self.settled(wanted.target);
            return Ok(kept(need, false, None));
        }
        if !link.grow_partitions {
            let why = format!(
                "the target topic has {have} partitions, the source {need}: {} not mirrored; add partitions on the target, or set grow-partitions = true",
                missing(have, need)
            );
            self.report_part(&link.name, wanted.target, &why);
            return Ok(kept(have, false, Some(why)));
        }
        match target
            .create_partitions(wanted.target, wanted.partitions())
            .await
        {
            Ok(()) => {
                info!(link = %link.name, topic = %wanted.target, from = have, to = need, "added partitions on the target");
                self.settled(wanted.target);
                Ok(kept(need, false, None))
            }
            Err(error) => match error.code() {
                Some(code) => {
                    let why = format!(
                        "the target topic has {have} partitions, the source {need}, and adding them was refused: {error}; {} not mirrored; add them yourself, or {}",
                        missing(have, need),
                        rights(code, "Alter")
                    );
                    self.report_part(&link.name, wanted.target, &why);
                    Ok(kept(have, true, Some(why)))
                }
                None => Err(error),
            },
        }
    }

    /// Brings the settings of an existing topic in step with the source's.
    pub(crate) async fn sync_settings(
        &mut self,
        link: &LinkConfig,
        target: &Cluster,
        wanted: &Wanted<'_>,
        existing: &[ConfigEntry],
    ) -> Result<(), NetError> {
        let (mut sets, mut deletes) = wanted.differences(link, existing);
        sets.retain(|name, value| !self.was_refused(wanted.target, name, Some(value)));
        deletes.retain(|name| !self.was_refused(wanted.target, name, None));
        if sets.is_empty() && deletes.is_empty() {
            return Ok(());
        }
        self.set(link, target, wanted.target, &sets, &deletes).await
    }

    fn was_refused(&self, topic: &str, name: &str, value: Option<&String>) -> bool {
        let key = (topic.to_owned(), name.to_owned());
        self.refused
            .get(&key)
            .is_some_and(|refused| refused.as_ref() == value)
    }

    /// All at once; where the target refuses that, one by one, and what it refuses is named and left out.
    async fn set(
        &mut self,
        link: &LinkConfig,
        target: &Cluster,
        topic: &str,
        sets: &BTreeMap<String, String>,
        deletes: &[String],
    ) -> Result<(), NetError> {
        let all: Vec<(String, String)> = sets.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        match target.alter_topic_configs(topic, &all, deletes).await {
            Ok(()) => {
                let changed: Vec<&str> = sets.keys().chain(deletes).map(String::as_str).collect();
                info!(link = %link.name, topic, settings = changed.join(","), "brought settings in step with the source");
                return Ok(());
            }
            Err(error) if !is_refusal(&error) => return Err(error),
            Err(_) => {}
        }
        for (name, value) in &all {
            let one = [(name.clone(), value.clone())];
            if let Err(error) = target.alter_topic_configs(topic, &one, &[]).await {
                if !is_refusal(&error) {
                    return Err(error);
                }
                self.refused
                    .insert((topic.to_owned(), name.clone()), Some(value.clone()));
                warn!(
                    link = %link.name, id = "setting-refused", topic,
                    "the target refuses the setting {name}={value}, it is left out: {error}; name it in config-exclude (config.properties.exclude in a properties file) if it is not wanted there"
                );
            }
        }
        for name in deletes {
            if let Err(error) = target
                .alter_topic_configs(topic, &[], std::slice::from_ref(name))
                .await
            {
                if !is_refusal(&error) {
                    return Err(error);
                }
                self.refused.insert((topic.to_owned(), name.clone()), None);
                warn!(
                    link = %link.name, id = "setting-refused", topic,
                    "the target does not let go of the setting {name}, which the source does not have: {error}; name it in config-exclude if it is wanted there"
                );
            }
        }
        Ok(())
    }
}

/// Whether a target that answers will not take a setting: it said so, not that it cannot now, or is too old to be asked (before 2.3).
fn is_refusal(error: &NetError) -> bool {
    let refused = error.code().is_some() && error.action() == Action::Stop;
    refused || matches!(error, NetError::Unsupported { .. })
}

fn brokers_alive(live: i16) -> String {
    match live {
        1 => "1 live broker".to_owned(),
        live => format!("{live} live brokers"),
    }
}

/// `partition 3 is`, `partitions 3 to 5 are`.
fn missing(have: usize, need: usize) -> String {
    match need - have {
        1 => format!("partition {have} is"),
        _ => format!("partitions {have} to {} are", need - 1),
    }
}

/// What to do about a target's refusal, where `needed` are the rights for what was refused.
fn rights(error: KafkaError, needed: &str) -> String {
    match error.0 {
        29 | 31 => format!("give Strait's user {needed} on the target topic"),
        44 => "the target's policy refuses it: create the topic yourself as the policy wants it"
            .to_owned(),
        _ => "create the topic yourself, and the mirror goes on".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_a_broker_does_not_know_is_looked_at_again_before_that_is_said() {
        let mut keeper = TopicKeeper::default();
        let unknown = ("new", KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
        let said: Vec<bool> = (0..3)
            .map(|_| keeper.report_settings("l", unknown, "why"))
            .collect();
        assert_eq!(said, [false, true, true]);
        assert!(keeper.report_settings("l", ("denied", KafkaError(29)), "why"));
    }

    #[test]
    fn what_was_said_of_topics_that_are_gone_is_forgotten() {
        let mut keeper = TopicKeeper::default();
        for topic in ["here", "gone"] {
            keeper.report("l", topic, "why");
            keeper.report_settings("l", (topic, KafkaError(29)), "why");
            let setting = (topic.to_owned(), "retention.ms".to_owned());
            keeper.refused.insert(setting, None);
        }
        keeper.keep_known(|topic| topic == "here");
        let left: Vec<&String> = keeper.reported.keys().collect();
        assert_eq!(left, ["here", "here settings"]);
        assert_eq!(keeper.refused.len(), 1);
    }
}
