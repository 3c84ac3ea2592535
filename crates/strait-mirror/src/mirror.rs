//! One configured link at work: topics found, kept, and turned into flows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strait_config::{Isolation, LinkConfig, StartPosition};
use strait_engine::{
    FlowKey, FlowSpec, Link, LinkHandle, LinkSpec, LinkStatus, Policies, Policy, SessionError,
    Start,
};
use strait_net::{Cluster, ConfigEntry, KafkaError, Metadata, NetError, Runtime};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::groups::Groups;
use crate::naming::{Route, route};
use crate::topics::{TOPIC_IN_PART, TOPIC_NOT_MIRRORED, TopicKeeper, Wanted, setting};

/// How long to wait after a refresh that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How long at the most where the target refused something that may be mended there.
const RETRY_REFUSED: Duration = Duration::from_secs(30);

/// Why a link ended without being asked to.
#[derive(Debug, Error)]
pub enum MirrorError {
    /// The engine cannot go on.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A cluster could not be reached at start.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl MirrorError {
    /// The name under which this kind of failure stands in logs, metrics and the book; it never changes.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Session(error) => error.id(),
            Self::Net(error) => error.id(),
        }
    }
}

/// How long topics and partitions that were just made may take to appear in the target's metadata.
const APPEARANCE: Duration = Duration::from_secs(5);

/// What the last look at both clusters brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whether there was such a look since the start.
    pub known: bool,
    /// Topics selected, mirrored or not.
    pub topics: usize,
    /// Partitions that are mirrored or shall be.
    pub flows: usize,
    /// Topics selected that are not mirrored, or not with all their partitions: the name and why.
    pub troubles: Vec<(String, String)>,
}

/// One link, ready to run.
pub struct Mirror {
    rt: Runtime,
    config: LinkConfig,
    source: Cluster,
    target: Cluster,
    link: Link,
    handle: LinkHandle,
    selection: watch::Sender<Selection>,
}

/// What a look at both clusters brought.
struct Found {
    /// Topics selected, mirrored or not.
    topics: usize,
    flows: Vec<FlowSpec>,
    /// The target refused something.
    refused: bool,
    troubles: Vec<(String, String)>,
}

impl Mirror {
    /// A mirror of `source` into `target`. `instance` names this process in leases; `lock_dir` holds the local lock.
    pub fn new(
        rt: Runtime,
        config: LinkConfig,
        source: Cluster,
        target: Cluster,
        instance: String,
        lock_dir: Option<PathBuf>,
        take_over: bool,
    ) -> Self {
        let spec = LinkSpec {
            name: config.name.clone(),
            source: source.clone(),
            target: target.clone(),
            isolation: match config.isolation {
                Isolation::ReadCommitted => strait_wire::Isolation::ReadCommitted,
                Isolation::ReadUncommitted => strait_wire::Isolation::ReadUncommitted,
            },
            instance,
            lock_dir,
            internal_replication: config.internal_replication_factor,
            take_over,
            memory_budget: config.memory_budget,
            lanes: config.fetch_connections,
            long_poll: Duration::from_millis(500),
            request_timeout: config.timeouts.request,
            open_transaction: config.open_transaction_warning,
            drain: config.timeouts.drain,
            policies: policies(&config),
        };
        let (link, handle) = Link::new(rt.clone(), spec);
        Self {
            rt,
            config,
            source,
            target,
            link,
            handle,
            selection: watch::Sender::new(Selection::default()),
        }
    }

    /// The link's state while it runs.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.handle.status()
    }

    /// The topics while it runs.
    pub fn selection(&self) -> watch::Receiver<Selection> {
        self.selection.subscribe()
    }

    /// Steers the running link: [`LinkHandle::stop`] ends it cleanly.
    pub fn handle(&self) -> LinkHandle {
        self.handle.clone()
    }

    /// Mirrors until stopped.
    ///
    /// # Errors
    /// What cannot be mended by trying again; see [`MirrorError`].
    pub async fn run(self) -> Result<(), MirrorError> {
        let Self {
            rt,
            config,
            source,
            target,
            link,
            handle,
            selection,
        } = self;
        let mirrored = watch::Sender::new(Arc::default());
        let groups = Groups::new(
            rt.clone(),
            &config,
            source.clone(),
            target.clone(),
            handle.clone(),
            mirrored.subscribe(),
        );
        let groups = async {
            groups.run().await;
            std::future::pending::<()>().await
        };
        let refresh = async {
            let mut keeper = TopicKeeper::default();
            let (mut first, mut empty) = (true, false);
            loop {
                let wait = match flows(&rt, &config, &source, &target, &mut keeper, first).await {
                    Ok(found) => {
                        if first {
                            info!(link = %config.name, topics = found.topics, flows = found.flows.len(), "topics found");
                        }
                        if found.topics == 0 && (first || !empty) {
                            warn!(
                                link = %config.name, id = "nothing-selected",
                                "no topic of the source is selected by topics = {}: nothing is mirrored until one appears",
                                config.topics.includes().join(", ")
                            );
                        }
                        (first, empty) = (false, found.topics == 0);
                        let now = Selection {
                            known: true,
                            topics: found.topics,
                            flows: found.flows.len(),
                            troubles: found.troubles,
                        };
                        let keys = found.flows.iter().map(|flow| flow.key.clone());
                        mirrored.send_replace(Arc::new(keys.collect::<BTreeSet<FlowKey>>()));
                        handle.set_flows(found.flows).await;
                        selection.send_replace(now);
                        match (config.refresh_topics, found.refused) {
                            (Some(interval), false) => interval,
                            (Some(interval), true) => interval.min(RETRY_REFUSED),
                            (None, true) => RETRY_REFUSED,
                            (None, false) => return std::future::pending::<()>().await,
                        }
                    }
                    Err(error) => {
                        warn!(link = %config.name, id = "topics-unreadable", "cannot look for topics, trying again: {error}");
                        RETRY
                    }
                };
                rt.sleep(rt.jitter(wait)).await;
            }
        };
        tokio::select! {
            biased;
            result = link.run() => Ok(result?),
            () = refresh => Ok(()),
            () = groups => Ok(()),
        }
    }
}

fn policies(config: &LinkConfig) -> Policies {
    let policy = |configured| match configured {
        strait_config::Policy::GoOn => Policy::GoOn,
        strait_config::Policy::Stop => Policy::Stop,
    };
    let configured = &config.policies;
    Policies {
        source_recreated: policy(configured.source_recreated),
        retention_overtook: policy(configured.retention_overtook),
        source_truncated: policy(configured.source_truncated),
        target_lost: policy(configured.target_lost),
        target_recreated: policy(configured.target_recreated),
        target_expired: policy(configured.target_expired),
        foreign_writer: policy(configured.foreign_writer),
        refused_record: policy(configured.refused_record),
    }
}

/// The flows of the present selection, with their topics in place on the target.
async fn flows(
    rt: &Runtime,
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    keeper: &mut TopicKeeper,
    first: bool,
) -> Result<Found, NetError> {
    let found = source.metadata(None).await?;
    let mut troubles = Vec::new();
    let chosen = choose(
        config,
        source.alias(),
        target.alias(),
        &found,
        keeper,
        &mut troubles,
    );
    let topics = chosen.len() + troubles.len();
    let mirrored: BTreeSet<&str> = chosen.values().map(String::as_str).collect();
    keeper.report_gone(&config.name, source.alias(), &found);
    keeper.keep_known(|topic| found.topics.contains_key(topic) || mirrored.contains(topic));
    if first {
        for name in config.topics.named_topics() {
            if !found.topics.contains_key(&name) {
                warn!(
                    link = %config.name, id = "topic-unknown", topic = %name,
                    "the source has no such topic (or Strait's user may not see it: Describe is needed); it is mirrored as soon as it appears"
                );
            }
        }
    }
    let sources: Vec<String> = chosen.keys().cloned().collect();
    let targets: Vec<String> = chosen.values().cloned().collect();
    let configs = source.describe_topic_configs(&sources).await?;
    let mut there = target.metadata(Some(&targets)).await?;
    let mut kept = BTreeMap::new();
    // An error of the source may be over before long: it is looked at again soon.
    let mut refused = found
        .topics
        .iter()
        .any(|(name, topic)| topic.error != 0 && config.topics.selects(name));
    for (name, target_name) in &chosen {
        let Some(wanted) = wanted(&found, &configs, name, target_name) else {
            continue;
        };
        if let Some(Err(error)) = configs.get(name) {
            keeper.report_settings(
                &config.name,
                name,
                &format!("the settings of the source topic cannot be read, so they are not copied: {error}; give Strait's user DescribeConfigs on it"),
            );
        }
        let now = keeper.keep(config, target, &there, &wanted).await?;
        refused |= now.refused;
        if let Some(why) = now.why {
            let id = if now.partitions > 0 {
                TOPIC_IN_PART
            } else {
                TOPIC_NOT_MIRRORED
            };
            troubles.push((name.clone(), format!("{why} (id={id})")));
        }
        if now.partitions > 0 {
            keeper.mirrored(name);
            kept.insert(name.clone(), now.partitions);
        }
    }
    // Brokers learn of new topics and partitions a moment after they were made.
    let deadline = rt.now() + APPEARANCE;
    while rt.now() < deadline && !complete(&there, &chosen, &kept) {
        rt.sleep(APPEARANCE / 100).await;
        there = target.metadata(Some(&targets)).await?;
    }
    let on_target: Vec<String> = kept
        .keys()
        .filter_map(|name| chosen.get(name))
        .filter(|t| there.topics.contains_key(*t))
        .cloned()
        .collect();
    let target_configs = target.describe_topic_configs(&on_target).await?;
    let mut flows = Vec::new();
    for (name, partitions) in kept {
        let Some(target_name) = chosen.get(&name) else {
            continue;
        };
        let Some(wanted) = wanted(&found, &configs, &name, target_name) else {
            continue;
        };
        let existing = match target_configs.get(target_name) {
            Some(Ok(entries)) => entries.as_slice(),
            Some(Err(error)) => {
                let cluster = target.alias();
                keeper.report_settings(
                    &config.name,
                    target_name,
                    &format!("the settings of the target topic on cluster {cluster} cannot be read, so that its min.insync.replicas and its limit for batches are not known, and settings of the source are not copied: {error}; give Strait's user DescribeConfigs on it"),
                );
                &[]
            }
            None => &[],
        };
        if config.sync_topic_configs && !existing.is_empty() && !wanted.configs.is_empty() {
            keeper
                .sync_settings(config, target, &wanted, existing)
                .await?;
        }
        let number = |name| setting(existing, name).and_then(|v| v.parse().ok());
        let min_insync = number("min.insync.replicas").unwrap_or(1);
        let max_batch_bytes = number("max.message.bytes")
            .into_iter()
            .chain(number("segment.bytes"))
            .min();
        for &partition in wanted.found.partitions.keys() {
            // Said by the keeper.
            if usize::try_from(partition).is_ok_and(|p| p >= partitions) {
                continue;
            }
            flows.push(FlowSpec {
                key: FlowKey {
                    topic: name.clone(),
                    partition,
                },
                target_topic: target_name.clone(),
                start: match config.start.for_topic(&name) {
                    StartPosition::Earliest => Start::Earliest,
                    StartPosition::Latest => Start::Latest,
                    StartPosition::Timestamp(ms) => Start::Timestamp(ms),
                },
                compacted: wanted.compacted(),
                target_compacted: setting(existing, "cleanup.policy")
                    .map_or(wanted.compacted(), |policy| policy.contains("compact")),
                min_insync,
                max_batch_bytes,
            });
        }
    }
    Ok(Found {
        topics,
        flows,
        refused,
        troubles,
    })
}

/// Whether the target's metadata shows every partition that is there or was just made.
fn complete(
    there: &Metadata,
    chosen: &BTreeMap<String, String>,
    kept: &BTreeMap<String, usize>,
) -> bool {
    kept.iter().all(|(name, partitions)| {
        let topic = chosen.get(name).and_then(|t| there.topics.get(t));
        topic.is_some_and(|t| t.partitions.len() >= *partitions)
    })
}

fn wanted<'a>(
    found: &'a Metadata,
    configs: &'a BTreeMap<String, Result<Vec<ConfigEntry>, strait_net::KafkaError>>,
    source: &'a str,
    target: &'a str,
) -> Option<Wanted<'a>> {
    let configs = match configs.get(source) {
        Some(Ok(entries)) => entries.as_slice(),
        _ => &[],
    };
    Some(Wanted {
        target,
        found: found.topics.get(source)?,
        configs,
    })
}

/// Source topic to target topic, for everything that is selected and may be mirrored. What may not is a trouble.
fn choose(
    config: &LinkConfig,
    source: &str,
    target: &str,
    found: &Metadata,
    keeper: &mut TopicKeeper,
    troubles: &mut Vec<(String, String)>,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<String, String> = BTreeMap::new();
    for (name, topic) in &found.topics {
        if topic.internal || !config.topics.selects(name) {
            continue;
        }
        match route(&config.naming, source, target, name) {
            Ok(Route::Mirror(_)) if topic.error != 0 => {
                let error = KafkaError(topic.error);
                let why = format!(
                    "the source answers {error} for this topic on cluster {source}: it is not mirrored until that is over; look at that cluster's brokers, and at the rights of Strait's user (Describe)"
                );
                keeper.report(&config.name, name, &why);
                troubles.push((name.clone(), format!("{why} (id={TOPIC_NOT_MIRRORED})")));
            }
            Ok(Route::Mirror(target_name)) => {
                // Under the same name the keeper knows whether all is well.
                if target_name != *name {
                    keeper.settled(name);
                }
                chosen.insert(name.clone(), target_name);
            }
            Ok(Route::Leave) => {}
            Ok(Route::CameThrough) => keeper.report_cycle(&config.name, name, target),
            Err(error) => {
                let why = error.to_string();
                keeper.report(&config.name, name, &why);
                troubles.push((name.clone(), format!("{why} (id={TOPIC_NOT_MIRRORED})")));
            }
        }
    }
    chosen
}
