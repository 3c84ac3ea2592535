//! One configured link at work: topics found, kept, and turned into flows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strait_config::{Forward, Isolation, LinkConfig, StartPosition};
use strait_engine::{
    FlowKey, FlowSpec, Link, LinkHandle, LinkSpec, LinkStatus, Policies, Policy, SEPARATOR,
    SessionError, Start, Takeover,
};
use strait_net::{Cluster, ConfigEntry, KafkaError, Metadata, NetError, Runtime};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::groups::Groups;
use crate::heartbeats::{HEARTBEATS, Heart, may_be_replicated, named, replicated};
use crate::naming::left_out::LeftOut;
use crate::naming::{NamingError, Route, names_its_own_cluster, route};
use crate::selection::StoredSelection;
use crate::selection::in_force::{Known, Selections, follow};
use crate::source_syncs;
use crate::topics::acls;
use crate::topics::{TOPIC_IN_PART, TOPIC_NOT_MIRRORED, TopicKeeper, Wanted, setting};
use crate::users;

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
    /// Names of the source's topics that are mirrored, sorted.
    pub active: Arc<[String]>,
    /// The selection stored on the target, where that is obeyed instead of the file's.
    pub stored: Option<StoredSelection>,
    /// Why what is stored on the target is not obeyed, if so.
    pub refused: Option<String>,
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
    selections: Selections,
}

/// What a look at both clusters brought.
struct Found {
    /// Topics selected, mirrored or not.
    topics: usize,
    flows: Vec<FlowSpec>,
    /// Those that are mirrored, in part at least.
    names: acls::Names,
    /// The target refused something.
    refused: bool,
    troubles: Vec<(String, String)>,
}

impl Mirror {
    /// A mirror of `source` into `target`. `instance` names this process in leases; `lock_dir` holds the local lock;
    /// `selections` is shared by all links of the process.
    #[allow(clippy::too_many_arguments)] // Each once, in one place.
    pub fn new(
        rt: Runtime,
        config: LinkConfig,
        source: Cluster,
        target: Cluster,
        instance: String,
        lock_dir: Option<PathBuf>,
        take_over: bool,
        selections: Selections,
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
            only_local: config.forward == Forward::Local,
            takeover: taken_from(&config),
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
            selections,
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
            selections,
        } = self;
        let known = watch::Sender::new(Known::default());
        let following = follow(&rt, &config, target.clone(), &selections, &known);
        let heart = Heart::new(&rt, &config, &source, &target);
        let status = handle.status();
        let names = watch::Sender::new(acls::Names::new());
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
            heart.begin().await;
            let (mut first, mut empty) = (true, false);
            let mut changes = known.subscribe();
            let mut last = None;
            let mut running: Vec<FlowSpec> = Vec::new();
            loop {
                let Known { in_force, refused } = changes.borrow_and_update().clone();
                let Some(in_force) = in_force else {
                    selection.send_modify(|now| now.refused = refused);
                    let _ = changes.changed().await;
                    continue;
                };
                let mut config = config.clone();
                config.topics = in_force.topics.clone();
                let stored = in_force.stored.clone();
                if last.as_ref() != Some(&in_force) {
                    (first, last) = (true, Some(in_force));
                    // At once: the source may not answer now, and must not be mirrored when it does.
                    let flows = running.len();
                    running.retain(|flow| {
                        let topic = &flow.key.topic;
                        config.topics.selects(topic) || may_be_replicated(&config, topic)
                    });
                    if running.len() < flows {
                        handle.set_flows(running.clone()).await;
                    }
                    selection.send_modify(|now| {
                        now.flows = running.len();
                        now.active = topics_of(&running);
                        now.troubles.retain(|(topic, _)| {
                            config.topics.selects(topic) || may_be_replicated(&config, topic)
                        });
                        now.stored.clone_from(&stored);
                        now.refused.clone_from(&refused);
                    });
                }
                let wait = match flows(&rt, &config, &source, &target, &mut keeper, &heart, first)
                    .await
                {
                    Ok(found) => {
                        if first {
                            info!(link = %config.name, topics = found.topics, flows = found.flows.len(), "topics found");
                        }
                        let includes = config.topics.includes();
                        // That none is wanted was said when it was stored.
                        let wanted = stored.is_none() || !includes.is_empty();
                        if found.topics == 0 && wanted && (first || !empty) {
                            let by = match stored {
                                None => "topics",
                                Some(_) => "the selection on the target",
                            };
                            warn!(
                                link = %config.name, id = "nothing-selected",
                                "no topic of the source is selected by {by} = {}: nothing is mirrored until one appears",
                                includes.join(", ")
                            );
                        }
                        (first, empty) = (false, found.topics == 0);
                        running.clone_from(&found.flows);
                        let now = Selection {
                            known: true,
                            active: topics_of(&running),
                            stored,
                            refused,
                            topics: found.topics,
                            flows: found.flows.len(),
                            troubles: found.troubles,
                        };
                        names.send_if_modified(|names| {
                            let changed = *names != found.names;
                            *names = found.names;
                            changed
                        });
                        let keys = found.flows.iter().map(|flow| flow.key.clone());
                        mirrored.send_replace(Arc::new(keys.collect::<BTreeSet<FlowKey>>()));
                        handle.set_flows(found.flows).await;
                        selection.send_replace(now);
                        match (config.refresh_topics, found.refused) {
                            (Some(interval), false) => Some(interval),
                            (Some(interval), true) => Some(interval.min(RETRY_REFUSED)),
                            (None, true) => Some(RETRY_REFUSED),
                            (None, false) => None,
                        }
                    }
                    Err(error) => {
                        warn!(link = %config.name, id = "topics-unreadable", "cannot look for topics, trying again: {error}");
                        Some(RETRY)
                    }
                };
                let pause = async {
                    match wait {
                        Some(wait) => rt.sleep(rt.jitter(wait)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    _ = changes.changed() => {}
                    () = pause => {}
                }
            }
        };
        tokio::select! {
            biased;
            result = link.run() => Ok(result?),
            () = refresh => Ok(()),
            () = following => Ok(()),
            () = heart.run(status) => Ok(()),
            () = acls::keep(&rt, &config, &source, &target, names.subscribe()) => Ok(()),
            () = users::report(&rt, &config, &source, &target) => Ok(()),
            () = groups => Ok(()),
            () = source_syncs::keep(&rt, &config, &source, &target, handle.status()) => Ok(()),
        }
    }
}

/// Where MirrorMaker 2 left what this link goes on from.
pub(crate) fn taken_from(config: &LinkConfig) -> Takeover {
    Takeover {
        offsets_topic: config.takeover.offsets_topic.clone(),
        group: config.takeover.group.clone(),
        separator: (config.internal_separator != SEPARATOR)
            .then(|| config.internal_separator.clone()),
    }
}

/// The source's names of the topics of these flows, which are sorted.
fn topics_of(flows: &[FlowSpec]) -> Arc<[String]> {
    let mut topics: Vec<String> = flows.iter().map(|f| f.key.topic.clone()).collect();
    topics.dedup();
    topics.into()
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
        target_has_data: policy(configured.target_has_data),
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
    heart: &Heart,
    first: bool,
) -> Result<Found, NetError> {
    let mut found = source.metadata(None).await?;
    if !heart.mirrors(&found).await {
        found.topics.remove(HEARTBEATS);
    }
    let mut troubles = Vec::new();
    let chosen = choose(
        &heart.settled(config),
        source.alias(),
        &found,
        keeper,
        &mut troubles,
    );
    // Heartbeats are mirrored beside what was asked for.
    let asked_for = chosen.keys().filter(|name| config.topics.selects(name));
    let topics = asked_for.count() + troubles.len();
    let mirrored: BTreeSet<&str> = chosen.values().map(String::as_str).collect();
    keeper.report_gone(&config.name, source.alias(), &found);
    keeper.keep_known(|topic| found.topics.contains_key(topic) || mirrored.contains(topic));
    if first {
        for name in named_unseen(config, &found) {
            warn!(
                link = %config.name, id = "topic-unknown", topic = %name,
                "the source has no such topic (or Strait's user may not see it: Describe is needed); it is mirrored as soon as it appears"
            );
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
            let passes = !keeper.report_settings(
                &config.name,
                (name, *error),
                &format!("the settings of the source topic cannot be read, so they are not copied: {error}; give Strait's user DescribeConfigs on it"),
            );
            refused |= passes;
            // Made now it would lack what it has to have from the beginning.
            if passes && !there.has(target_name) {
                continue;
            }
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
        .filter(|t| there.has(t))
        .cloned()
        .collect();
    let target_configs = target.describe_topic_configs(&on_target).await?;
    let mut flows = Vec::new();
    let in_step = keeper.compares_now(rt.now(), config);
    let names = kept
        .keys()
        .filter_map(|name| Some((name.clone(), chosen.get(name)?.clone())))
        .collect();
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
                refused |= !keeper.report_settings(
                    &config.name,
                    (target_name, *error),
                    &format!("the settings of the target topic on cluster {cluster} cannot be read, so that its min.insync.replicas and its limit for batches are not known, and settings of the source are not copied: {error}; give Strait's user DescribeConfigs on it"),
                );
                &[]
            }
            // Not all of its brokers know it yet.
            None => {
                refused = true;
                &[]
            }
        };
        let comparable = !existing.is_empty() && !wanted.configs.is_empty();
        if config.sync_topic_configs && in_step && comparable {
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
        names,
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

pub(crate) fn wanted<'a>(
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

/// The topics that `topics` names and the source does not show.
pub(crate) fn named_unseen(config: &LinkConfig, found: &Metadata) -> Vec<String> {
    let mut named = config.topics.named_topics();
    named.retain(|name| !found.topics.contains_key(name));
    named
}

/// Source topic to target topic, for everything that is selected and may be mirrored. What may not is a trouble.
pub(crate) fn choose(
    config: &LinkConfig,
    source: &str,
    found: &Metadata,
    keeper: &mut TopicKeeper,
    troubles: &mut Vec<(String, String)>,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<String, String> = BTreeMap::new();
    // Those that were given a name have it before those that come to it by their own.
    let given = |name: &&String| config.names.contains_key(*name);
    let (first, rest): (Vec<&String>, Vec<&String>) = found.topics.keys().partition(given);
    let mut taken: BTreeMap<String, &String> = BTreeMap::new();
    let mut left_out = LeftOut::default();
    for name in first.into_iter().chain(rest) {
        let Some(topic) = found.topics.get(name) else {
            continue;
        };
        let partitions = topic.partitions.len();
        let selected = config.topics.selects(name) || replicated(config, name, partitions);
        if topic.internal || !selected {
            continue;
        }
        let routed =
            route(&named(config, name, partitions), name).and_then(|routed| match routed {
                Route::Mirror(target) => match taken.get(&target) {
                    Some(other) => Err(NamingError::Taken {
                        name: target,
                        other: (*other).clone(),
                    }),
                    None => Ok(Route::Mirror(target)),
                },
                other => Ok(other),
            });
        let why = match routed {
            Ok(Route::Mirror(target_name)) => {
                taken.insert(target_name.clone(), name);
                if topic.error == 0 {
                    if !config.names.contains_key(name) && names_its_own_cluster(config, name) {
                        keeper.report_alias(config, name, &target_name);
                    }
                    // Under the same name the keeper knows whether all is well.
                    if target_name != *name {
                        keeper.settled(name);
                    }
                    chosen.insert(name.clone(), target_name);
                    continue;
                }
                let error = KafkaError(topic.error);
                format!(
                    "the source answers {error} for this topic on cluster {source}: it is not mirrored until that is over; look at that cluster's brokers, and at the rights of Strait's user (Describe)"
                )
            }
            Ok(Route::Leave) => continue,
            // Heartbeats that nobody selected need no word: where links go both ways some always come back.
            Ok(_) if !config.topics.selects(name) => continue,
            Ok(by_name) => {
                left_out.add(&by_name, name);
                continue;
            }
            Err(error) => error.to_string(),
        };
        keeper.report(&config.name, name, &why);
        troubles.push((name.clone(), format!("{why} (id={TOPIC_NOT_MIRRORED})")));
    }
    keeper.report_left_out(config, left_out);
    chosen
}
