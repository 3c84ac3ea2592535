//! Heartbeats: written as MirrorMaker 2 writes them, so that its clients see which clusters are mirrored into which.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use strait_config::{EmitHeartbeats, LinkConfig, Naming};
use strait_engine::{FlowError, LinkStatus, PlainLog, existing, holds_positions};
use strait_net::{Cluster, KafkaError, Metadata, NetError, NewTopic, Runtime};
use strait_wire::{Heartbeat, Record};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// MirrorMaker 2's topic of heartbeats on the cluster where they begin (`ReplicationPolicy.heartbeatsTopic`).
pub(crate) const HEARTBEATS: &str = "heartbeats";
/// The header of a record that Strait itself keeps on the target; its value is the topic's name, so that it means
/// nothing once the record was mirrored further.
const KEPT: &[u8] = b"strait.kept";
/// Replicas of the topics, as far as there are brokers: `heartbeats.topic.replication.factor`.
const REPLICATION: i16 = 3;
/// How often a topic that was just made is looked for.
const APPEARANCE_TRIES: u32 = 25;
const APPEARANCE_PAUSE: Duration = Duration::from_millis(200);
/// Pause after a refusal, which somebody has to mend.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Pause after anything else.
const PAUSE: Duration = Duration::from_secs(2);

/// The separator of remote names; where naming has none, MirrorMaker 2's: it has one for heartbeats under identity naming too.
pub(crate) fn separator(config: &LinkConfig) -> &str {
    match &config.naming {
        Naming::Default { separator } | Naming::Suffix { separator } => separator,
        _ => match (
            &config.heartbeats.separator,
            config.internal_separator.as_str(),
        ) {
            (Some(separator), _) => separator,
            (None, "") => strait_config::DEFAULT_SEPARATOR,
            (None, separator) => separator,
        },
    }
}

/// The separator by which the remote topic of heartbeats is there under one of the two names that Kafka takes for the same. Only
/// where naming leaves it open.
fn settled_separator(config: &LinkConfig, source: &str, there: Option<&str>) -> Option<String> {
    let found = [strait_engine::SEPARATOR, "_"]
        .into_iter()
        .find(|by| there.is_some_and(|there| there == format!("{source}{by}{HEARTBEATS}")));
    found
        .filter(|by| *by != separator(config))
        .map(str::to_owned)
}

/// Whether a topic holds heartbeats by its name, as `ReplicationPolicy.isHeartbeatsTopic` has it: `heartbeats`,
/// `A.heartbeats`, `B.A.heartbeats`.
pub(crate) fn is_heartbeats(topic: &str, separator: &str) -> bool {
    match topic.strip_suffix(HEARTBEATS) {
        Some("") => true,
        Some(way) => way.len() > separator.len() && way.ends_with(separator),
        None => false,
    }
}

/// Whether a topic of so many partitions is mirrored whatever was selected, as MirrorMaker 2 does with heartbeats.
pub(crate) fn replicated(config: &LinkConfig, topic: &str, partitions: usize) -> bool {
    partitions == 1 && may_be_replicated(config, topic)
}

/// The same by the name alone.
pub(crate) fn may_be_replicated(config: &LinkConfig, topic: &str) -> bool {
    config.heartbeats.replicate && is_heartbeats(topic, separator(config))
}

/// The link's configuration with the naming that holds for this topic: under their own name the source's heartbeats would
/// get among the target's.
pub(crate) fn named<'c>(
    config: &'c LinkConfig,
    topic: &str,
    partitions: usize,
) -> Cow<'c, LinkConfig> {
    if topic != HEARTBEATS && !replicated(config, topic, partitions) {
        return Cow::Borrowed(config);
    }
    Cow::Owned(LinkConfig {
        naming: Naming::Default {
            separator: separator(config).to_owned(),
        },
        names: BTreeMap::new(),
        ..config.clone()
    })
}

/// `A.heartbeats`, whatever the link's naming: MirrorMaker 2's clients look for this name, under identity naming too.
fn remote(config: &LinkConfig, source: &str) -> String {
    format!("{source}{}{HEARTBEATS}", separator(config))
}

/// Who fills `A.heartbeats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remote {
    /// Not known yet, or nobody.
    Nobody,
    /// It is mirrored from `heartbeats` on the source.
    Mirrored,
    /// Strait itself.
    Kept,
}

/// One link's heartbeats.
pub(crate) struct Heart {
    rt: Runtime,
    config: LinkConfig,
    source: Cluster,
    target: Cluster,
    remote: watch::Sender<Remote>,
    /// The source may not be written.
    refused: watch::Sender<bool>,
    /// It was said that the source's heartbeats are not mirrored.
    told: AtomicBool,
    /// The separator of the remote topic that is there, where it is another one.
    separator: OnceLock<Option<String>>,
}

impl Heart {
    pub(crate) fn new(
        rt: &Runtime,
        config: &LinkConfig,
        source: &Cluster,
        target: &Cluster,
    ) -> Self {
        Self {
            rt: rt.clone(),
            config: config.clone(),
            source: source.clone(),
            target: target.clone(),
            remote: watch::Sender::new(Remote::Nobody),
            refused: watch::Sender::new(false),
            told: AtomicBool::new(false),
            separator: OnceLock::new(),
        }
    }

    /// Makes `heartbeats` on the source before it is looked at for the first time, so that it is mirrored at once.
    pub(crate) async fn begin(&self) {
        if self.config.heartbeats.emit != EmitHeartbeats::Both {
            return;
        }
        let mut beat = self.of_source();
        for _ in 0..APPEARANCE_TRIES {
            match beat.beat().await {
                // A topic has no leader when it was just made.
                Err(FlowError::NoLeader { .. }) => self.rt.sleep(APPEARANCE_PAUSE).await,
                Err(error) if is_denied(&error) => {
                    self.refused.send_replace(true);
                    return;
                }
                _ => return,
            }
        }
    }

    /// Whether `heartbeats` of the source shall be mirrored, were it by the selection. Decides who fills
    /// `A.heartbeats`: once Strait itself does it goes on, because a topic that holds records of others cannot be
    /// mirrored into.
    pub(crate) async fn mirrors(&self, found: &Metadata) -> bool {
        self.settle_name().await;
        let heartbeats = &self.config.heartbeats;
        let topic = found.topics.get(HEARTBEATS).filter(|t| t.error == 0);
        let on_source = topic.is_some();
        let selected = self.config.topics.selects(HEARTBEATS)
            || topic.is_some_and(|t| heartbeats.replicate && t.partitions.len() == 1);
        let now = match (*self.remote.borrow(), heartbeats.emit) {
            (Remote::Kept, _) => Remote::Kept,
            (Remote::Mirrored, _) if on_source => Remote::Mirrored,
            _ if on_source && selected => {
                let kept = self.is_kept().await;
                match (kept, heartbeats.emit) {
                    (false, _) => Remote::Mirrored,
                    (true, EmitHeartbeats::Off) => Remote::Nobody,
                    (true, _) => Remote::Kept,
                }
            }
            // Somebody's own topic, which may be selected later.
            _ if topic.is_some_and(|t| t.partitions.len() != 1) => Remote::Nobody,
            (_, EmitHeartbeats::Target) => Remote::Kept,
            (_, EmitHeartbeats::Both) if *self.refused.borrow() => Remote::Kept,
            _ => Remote::Nobody,
        };
        if now == Remote::Kept && on_source && selected && !self.told.swap(true, Ordering::Relaxed)
        {
            let remote = self.remote_topic();
            let target = self.target.alias();
            warn!(
                link = %self.config.name, id = "heartbeats-kept", topic = HEARTBEATS,
                "this topic of the source is not mirrored, because {remote} on cluster {target} holds heartbeats that Strait itself keeps there; to have it mirrored delete {remote} on the target and start Strait again"
            );
        }
        self.remote.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        now == Remote::Mirrored
    }

    /// Whether `A.heartbeats` ends with a record that Strait kept there.
    async fn is_kept(&self) -> bool {
        let topic = self.remote_topic();
        let there = self
            .target
            .metadata(Some(std::slice::from_ref(&topic)))
            .await;
        if !there.is_ok_and(|there| there.has(&topic)) {
            return false;
        }
        // What cannot be read is told by the flow, with the right that is missing.
        match PlainLog::new(&self.rt, self.target.clone(), &topic)
            .last()
            .await
        {
            Ok(Some(record)) => record
                .headers
                .iter()
                .any(|(key, value)| key == KEPT && value.as_deref() == Some(topic.as_bytes())),
            Ok(None) | Err(_) => false,
        }
    }

    fn remote_topic(&self) -> String {
        remote(&self.settled(&self.config), self.source.alias())
    }

    /// The remote topic stays what it is called, as an older Strait made it: Kafka lets no other exist whose name differs in `.` and
    /// `_` alone.
    async fn settle_name(&self) {
        let named = matches!(
            self.config.naming,
            Naming::Default { .. } | Naming::Suffix { .. }
        );
        if named || self.separator.get().is_some() || !holds_positions(separator(&self.config)) {
            return;
        }
        let source = self.source.alias();
        match existing(&self.target, |by| format!("{source}{by}{HEARTBEATS}")).await {
            Ok(there) => {
                let settled = settled_separator(&self.config, source, there.as_deref());
                let _ = self.separator.set(settled);
            }
            // Asked again at the next look for topics.
            Err(error) => debug!(link = %self.config.name, "{error}"),
        }
    }

    /// A configuration of the link with the name that the remote topic has.
    pub(crate) fn settled<'c>(&self, config: &'c LinkConfig) -> Cow<'c, LinkConfig> {
        let Some(Some(separator)) = self.separator.get() else {
            return Cow::Borrowed(config);
        };
        let mut config = config.clone();
        config.heartbeats.separator = Some(separator.clone());
        Cow::Owned(config)
    }

    /// The other direction's, which MirrorMaker 2 writes also where only this one is enabled.
    fn of_source(&self) -> Beat {
        let pair = (self.target.alias(), self.source.alias());
        Beat::new(self, &self.source, HEARTBEATS.to_owned(), pair)
    }

    /// Writes heartbeats while the link has a session, without end.
    pub(crate) async fn run(&self, status: watch::Receiver<LinkStatus>) {
        let (source, target) = (self.source.alias(), self.target.alias());
        let on_target = async {
            if self.config.heartbeats.emit == EmitHeartbeats::Both {
                let beat = Beat::new(self, &self.target, HEARTBEATS.to_owned(), (source, target));
                self.go_on(beat, status.clone(), None).await;
            }
        };
        let on_source = async {
            if self.config.heartbeats.on_source {
                let beat = self.of_source();
                self.go_on(beat, status.clone(), Some(&self.refused)).await;
            }
        };
        let kept = async {
            let mut remote = self.remote.subscribe();
            if remote.wait_for(|r| *r == Remote::Kept).await.is_ok() {
                let topic = self.remote_topic();
                let mut beat = Beat::new(self, &self.target, topic, (source, target));
                beat.kept = true;
                self.go_on(beat, status.clone(), None).await;
            }
        };
        let ((), (), ()) = tokio::join!(on_target, on_source, kept);
        std::future::pending().await
    }

    async fn go_on(
        &self,
        mut beat: Beat,
        mut status: watch::Receiver<LinkStatus>,
        refused: Option<&watch::Sender<bool>>,
    ) {
        let mut said: Option<String> = None;
        loop {
            // Without a session this process may not be the one that runs the link.
            if status.wait_for(|s| s.open).await.is_err() {
                return;
            }
            // What Strait says of the source is true only while the source answers.
            let alive = !beat.kept || self.source.metadata(Some(&[])).await.is_ok();
            let pause = match alive {
                false => PAUSE,
                true => match beat.beat().await {
                    Ok(()) => {
                        if said.take().is_some() {
                            info!(link = %self.config.name, topic = %beat.topic, "heartbeats are written again");
                        }
                        self.config.heartbeats.interval
                    }
                    Err(error) if is_answer(&error) => {
                        if let (Some(refused), true) = (refused, is_denied(&error)) {
                            refused.send_replace(true);
                        }
                        let text = error.to_string();
                        if said.as_ref() != Some(&text) {
                            let cluster = beat.cluster.alias();
                            warn!(
                                link = %self.config.name, id = "heartbeats-unwritten", topic = %beat.topic,
                                "no heartbeats are written on cluster {cluster}, mirroring goes on: {text}; {}",
                                self.advice(&beat, &error)
                            );
                            said = Some(text);
                        }
                        REFUSED_PAUSE
                    }
                    // The link's flows tell what is wrong.
                    Err(error) => {
                        debug!(link = %self.config.name, topic = %beat.topic, "{error}");
                        PAUSE
                    }
                },
            };
            self.rt.sleep(pause).await;
        }
    }

    fn advice(&self, beat: &Beat, error: &FlowError) -> String {
        let off = "set emit-heartbeats (emit.heartbeats.enabled)";
        let topic = &beat.topic;
        if !is_denied(error) {
            return format!("create the topic yourself, or {off} to switch them off");
        }
        if beat.cluster.alias() == self.source.alias() {
            let (remote, target) = (self.remote_topic(), self.target.alias());
            return format!(
                "Strait itself keeps {remote} on cluster {target} unless heartbeats of others are mirrored there; if it shall write them here, give its user Create and Write on topic {topic}"
            );
        }
        format!("give Strait's user Create and Write on topic {topic}, or {off} to switch them off")
    }
}

/// Heartbeats of one pair of clusters in one topic.
struct Beat {
    rt: Runtime,
    link: String,
    cluster: Cluster,
    topic: String,
    pair: (String, String),
    replication: Option<i16>,
    /// They stand for heartbeats that would be mirrored.
    kept: bool,
    there: bool,
    log: PlainLog,
}

impl Beat {
    fn new(heart: &Heart, cluster: &Cluster, topic: String, pair: (&str, &str)) -> Self {
        Self {
            rt: heart.rt.clone(),
            link: heart.config.name.clone(),
            cluster: cluster.clone(),
            log: PlainLog::new(&heart.rt, cluster.clone(), &topic),
            topic,
            pair: (pair.0.to_owned(), pair.1.to_owned()),
            replication: heart.config.heartbeats.replication_factor,
            kept: false,
            there: false,
        }
    }

    /// Writes one.
    async fn beat(&mut self) -> Result<(), FlowError> {
        if !self.there {
            self.create().await?;
            self.there = true;
        }
        let timestamp = self.rt.wall_ms();
        let heartbeat = Heartbeat {
            source: self.pair.0.clone(),
            target: self.pair.1.clone(),
            timestamp,
        };
        let topic = Bytes::copy_from_slice(self.topic.as_bytes());
        let kept = self.kept.then(|| (Bytes::from_static(KEPT), Some(topic)));
        let record = Record {
            offset: 0,
            timestamp,
            key: Some(heartbeat.key()),
            value: Some(heartbeat.value()),
            headers: kept.into_iter().collect(),
        };
        let appended = self.log.append(record).await;
        if appended.is_err() {
            self.there = false;
        }
        appended
    }

    /// As `MirrorUtils.createSinglePartitionCompactedTopic`: one that is there stays as it is.
    async fn create(&self) -> Result<(), NetError> {
        let metadata = self
            .cluster
            .metadata(Some(std::slice::from_ref(&self.topic)))
            .await?;
        // UNKNOWN_TOPIC_OR_PARTITION; where it is hidden, creating it tells.
        if metadata.has(&self.topic) {
            return Ok(());
        }
        let live = i16::try_from(metadata.brokers.len().max(1)).unwrap_or(i16::MAX);
        let topic = NewTopic {
            name: self.topic.clone(),
            partitions: 1,
            replication: self.replication.unwrap_or_else(|| live.min(REPLICATION)),
            configs: vec![("cleanup.policy".to_owned(), "compact".to_owned())],
        };
        match self.cluster.create_topic(&topic).await {
            // TOPIC_ALREADY_EXISTS
            Err(error) if error.code() == Some(KafkaError(36)) => Ok(()),
            created => {
                created?;
                info!(
                    link = %self.link, topic = %self.topic, replication = topic.replication,
                    "created the topic of heartbeats on cluster {}", self.cluster.alias()
                );
                Ok(())
            }
        }
    }
}

/// A right is missing: TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED.
fn is_denied(error: &FlowError) -> bool {
    match error {
        FlowError::Denied { .. } => true,
        FlowError::Net(error) => matches!(error.code(), Some(KafkaError(29 | 31))),
        _ => false,
    }
}

/// The cluster answered with what waiting alone does not mend.
fn is_answer(error: &FlowError) -> bool {
    match error {
        FlowError::Net(error) => {
            error.code().is_some() && error.action() == strait_net::Action::Stop
        }
        error => is_denied(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An older Strait called it `A.heartbeats` under identity naming, whatever the separator.
    #[test]
    fn under_identity_naming_the_remote_topic_keeps_the_name_that_it_has() {
        let topics = strait_config::TopicSelection::new(Vec::new(), Vec::new());
        let mut config = LinkConfig {
            naming: Naming::Identity,
            internal_separator: "_".to_owned(),
            ..LinkConfig::new("A", "B", topics)
        };
        assert_eq!(remote(&config, "A"), "A_heartbeats");
        assert_eq!(settled_separator(&config, "A", None), None);
        assert_eq!(settled_separator(&config, "A", Some("A_heartbeats")), None);
        config.heartbeats.separator = settled_separator(&config, "A", Some("A.heartbeats"));
        assert_eq!(remote(&config, "A"), "A.heartbeats");
        let mirrored = named(&config, HEARTBEATS, 1).naming.clone();
        assert_eq!(
            mirrored,
            Naming::Default {
                separator: ".".to_owned()
            }
        );
        // The policy's own separator, where MirrorMaker 2's own topics have another one.
        config.internal_separator = ".".to_owned();
        config.heartbeats.separator = Some("_".to_owned());
        assert_eq!(remote(&config, "A"), "A_heartbeats");
    }

    #[test]
    fn heartbeats_are_known_by_their_name_over_any_way() {
        for (topic, separator) in [
            ("heartbeats", "."),
            ("A.heartbeats", "."),
            ("B.A.heartbeats", "."),
            ("A_heartbeats", "_"),
        ] {
            assert!(is_heartbeats(topic, separator), "{topic}");
        }
        for topic in [
            ".heartbeats",
            "A_heartbeats",
            "myheartbeats",
            "heartbeats.A",
            "heartbeat",
        ] {
            assert!(!is_heartbeats(topic, "."), "{topic}");
        }
    }
}
