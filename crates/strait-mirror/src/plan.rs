//! What a link would do, found out without writing anything to either cluster.

pub(crate) mod groups;
pub(crate) mod mm2_left;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use strait_config::{Isolation, LinkConfig, Policy, StartPosition};
use strait_engine::{FlowKey, KnownPosition, SessionError, read_positions};
use strait_net::{AskEnds, Cluster, KafkaError, LogEnds, Metadata, NetError, Runtime};
use tracing::subscriber::{NoSubscriber, with_default};

use crate::heartbeats::{HEARTBEATS, Heart};
use crate::mirror::{MirrorError, choose, named_unseen, wanted};
use crate::plan::groups::{PlannedGroups, planned_groups};
use crate::plan::mm2_left::{Mm2Left, PlannedTakeover, takes_over};
use crate::topics::acls;
use crate::topics::{TopicKeeper, Wanted};

/// What a link would do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The topics that would be mirrored, by their names on the source.
    pub topics: Vec<PlannedTopic>,
    /// What would not be mirrored, or not whole: the topic and why.
    pub refused: Vec<(String, String)>,
    /// Topics that `topics` names and the source does not show; they would be mirrored as soon as it does.
    pub unseen: Vec<String>,
    /// ACLs that would be made, as `topic (Read for User:alice)`, or why that is not known. `None`: not asked for.
    pub acls: Option<Result<Vec<String>, String>>,
    /// Consumer groups, or why they are not known. `None`: none would be looked after.
    pub groups: Option<Result<PlannedGroups, String>>,
    /// Live brokers of source and target.
    pub brokers: (usize, usize),
    /// What is not known, and why: whole sentences.
    pub unknown: Vec<String>,
    /// The time between the two looks that rates are taken from.
    pub watched: Duration,
}

/// What would become of a topic on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It would be created.
    Create,
    /// It has all partitions.
    Exists,
    /// It has this many partitions and would get the rest.
    Grow(usize),
}

/// One topic that would be mirrored.
#[derive(Clone, Debug)]
pub struct PlannedTopic {
    /// On the source.
    pub source: String,
    /// On the target.
    pub target: String,
    /// What would be done there.
    pub change: Change,
    /// Partitions on the source.
    pub partitions: usize,
    /// Replicas of each on the target; those of the source's topic where the target's default decides.
    pub replicas: usize,
    /// Settings that would be set on the target topic.
    pub sets: BTreeMap<String, String>,
    /// Settings that would be taken off it.
    pub deletes: Vec<String>,
    /// What it would go on from where MirrorMaker 2 stopped.
    pub takeover: Option<PlannedTakeover>,
    /// Source offsets to be read.
    pub offsets: i64,
    /// What they take on the source's disks; none where it does not tell.
    pub bytes: Option<u64>,
    /// Source offsets written in a second.
    pub offsets_per_second: f64,
    /// Bytes written in a second.
    pub bytes_per_second: Option<f64>,
}

/// Finds out what the link would do; takes `watch` longer than the questions.
///
/// # Errors
/// A cluster that cannot be reached.
pub async fn plan(
    rt: &Runtime,
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    watch: Duration,
) -> Result<Plan, MirrorError> {
    let mut found = source.metadata(None).await?;
    let heart = Heart::new(rt, config, source, target);
    if !heart.mirrors(&found).await {
        found.topics.remove(HEARTBEATS);
    }
    let mut refused = Vec::new();
    let (from, to) = (source.alias(), target.alias());
    // What a running link would log is in the plan.
    let chosen = with_default(NoSubscriber::new(), || {
        let mut keeper = TopicKeeper::default();
        let config = heart.settled(config);
        choose(&config, from, &found, &mut keeper, &mut refused)
    });
    for (_, why) in &mut refused {
        if let Some(id) = why.rfind(" (id=") {
            why.truncate(id);
        }
    }
    let names: Vec<String> = chosen.keys().cloned().collect();
    let targets: Vec<String> = chosen.values().cloned().collect();
    let configs = source.describe_topic_configs(&names).await?;
    let there = target.metadata(Some(&targets)).await?;
    let on_target: Vec<String> = targets
        .iter()
        .filter(|name| there.has(name))
        .cloned()
        .collect();
    let target_configs = target.describe_topic_configs(&on_target).await?;

    let mut unknown = Vec::new();
    let positions = match read_positions(rt, target.clone(), from).await {
        Ok(positions) => positions,
        Err(SessionError::Net(error)) if error.code().is_none() => return Err(error.into()),
        Err(error) => {
            unknown.push(format!("the link's positions on cluster {to}, so that everything counts as not mirrored yet: {error}"));
            BTreeMap::new()
        }
    };
    let asked = partitions(&there, &on_target);
    let target_logs = target.log_ends(&asked).await;
    let target_logs = known(to, target_logs, &mut unknown);
    let left = Mm2Left::look(rt, config, source, target).await?;
    unknown.extend(left.unknown.clone());
    let own =
        |known: &KnownPosition| matches!(known, KnownPosition::Strait(p) if p.link == config.name);
    // A link that has begun goes on, whatever runs beside it.
    if let Some((group, members)) = &left.running
        && !positions.values().any(own)
    {
        let word = if *members == 1 { "member" } else { "members" };
        let why = format!(
            "MirrorMaker 2 still runs: its group {group} on cluster {to} has {members} {word}; nothing is mirrored until it is stopped"
        );
        refused.push(("every topic".to_owned(), why));
    }
    let taken = |topic: &str, partition: i32| {
        let flow = FlowKey {
            topic: topic.to_owned(),
            partition,
        };
        let key = (chosen.get(topic)?.clone(), partition);
        let written = target_logs.get(&key).is_some_and(|(_, end)| *end > 0);
        left.next(&flow, positions.get(&flow), written)
    };
    let all = partitions(&found, &names);
    let progress = Progress::look(config, source, &all, (&positions, &taken), &mut unknown).await;
    let first_bytes = source.log_bytes(&found, &names).await;
    rt.sleep(watch).await;
    let later_ends = source
        .log_ends_as(&progress.partitions(), ends_of(config))
        .await;
    let later_bytes = match (first_bytes, source.log_bytes(&found, &names).await) {
        (Ok(first), Ok(later)) => Some((first, later)),
        (Err(error), _) | (_, Err(error)) => {
            let denied = matches!(error.code(), Some(KafkaError(29 | 31)));
            let right = match denied {
                true => ", where Strait's user needs Describe on the cluster",
                false => "",
            };
            let why = shortly(&error);
            unknown.push(format!("bytes on cluster {from}{right}: {why}"));
            None
        }
    };
    let mut topics = Vec::new();
    for (name, target_name) in &chosen {
        let Some(wanted) = wanted(&found, &configs, name, target_name) else {
            continue;
        };
        if let Some(Err(error)) = configs.get(name) {
            unknown.push(format!("the settings of topic {name} on cluster {from}, where Strait's user needs DescribeConfigs: {error}"));
        }
        let existing = there.topics.get(target_name).filter(|t| t.error != 3);
        let (change, replicas, why) =
            match on_the_target(config, &wanted, existing, there.brokers.len(), to) {
                Ok(planned) => planned,
                Err(why) => {
                    refused.push((name.clone(), why));
                    continue;
                }
            };
        refused.extend(why.map(|why| (name.clone(), why)));
        let (sets, deletes) = match target_configs.get(target_name) {
            Some(Ok(entries)) if config.sync_topic_configs && !wanted.configs.is_empty() => {
                wanted.differences(config, entries)
            }
            Some(Err(error)) => {
                unknown.push(format!("the settings of topic {target_name} on cluster {to}, where Strait's user needs DescribeConfigs: {error}"));
                Default::default()
            }
            Some(Ok(_)) => Default::default(),
            None => (wanted.at_creation(config), Vec::new()),
        };
        let mut takeover = None;
        for partition in progress.of(name) {
            let key = (target_name.clone(), partition);
            let holds = target_logs.get(&key);
            let has_data = holds.is_some_and(|(start, end)| end > start);
            let position = positions.get(&FlowKey {
                topic: name.clone(),
                partition,
            });
            if let Some(next) = taken(name, partition) {
                takeover = PlannedTakeover::and(takeover, next);
                continue;
            }
            if let Some(why) = obstacle(config, position, target_name, has_data) {
                let unseen = left.unseen.as_ref().filter(|_| position.is_none());
                let unseen = unseen.map_or_else(String::new, |why| format!("; {why}"));
                refused.push((
                    name.clone(),
                    format!("partition {partition}: {why}{unseen}"),
                ));
            }
        }
        let seconds = watch.as_secs_f64().max(0.001);
        let grown = progress.grown(name, &later_ends);
        let bytes = later_bytes
            .as_ref()
            .map(|(_, later)| progress.bytes(name, later));
        let bytes_per_second = later_bytes.as_ref().map(|(first, later)| {
            let grown = sum(name, later) - sum(name, first);
            // Retention takes whole segments away meanwhile.
            (grown.max(0) as f64) / seconds
        });
        topics.push(PlannedTopic {
            source: name.clone(),
            target: target_name.clone(),
            change,
            partitions: wanted.found.partitions.len(),
            replicas,
            sets,
            deletes,
            takeover,
            offsets: progress.offsets(name),
            bytes,
            offsets_per_second: (grown as f64) / seconds,
            bytes_per_second,
        });
    }
    let leaderless = names.iter().flat_map(|name| {
        let partitions = found.topics.get(name).map(|t| &t.partitions);
        let without = partitions
            .into_iter()
            .flatten()
            .filter(|(_, p)| p.leader < 0);
        without.map(move |(partition, _)| {
            (
                name.clone(),
                format!("partition {partition} has no leader on cluster {from}"),
            )
        })
    });
    refused.extend(leaderless);
    let groups = planned_groups(rt, config, source, target, &chosen).await;
    if let Some(Ok(groups)) = &groups {
        unknown.extend(groups.unlisted.iter().cloned());
    }
    Ok(Plan {
        topics,
        refused,
        unseen: named_unseen(config, &found),
        acls: acls_to_make(config, source, target, &chosen).await,
        groups,
        brokers: (found.brokers.len(), there.brokers.len()),
        unknown,
        watched: watch,
    })
}

/// The broker's words name the single request.
fn shortly(error: &NetError) -> String {
    error
        .code()
        .map_or_else(|| error.to_string(), |code| code.to_string())
}

/// What would be done, replicas, and why not with all partitions; or why not at all.
fn on_the_target(
    config: &LinkConfig,
    wanted: &Wanted<'_>,
    existing: Option<&strait_net::TopicMetadata>,
    live: usize,
    target: &str,
) -> Result<(Change, usize, Option<String>), String> {
    let need = wanted.found.partitions.len();
    let Some(existing) = existing else {
        let source = usize::try_from(wanted.replicas()).unwrap_or(1);
        let replicas = match config.replication_factor {
            None => source.min(live.max(1)),
            Some(factor) => usize::try_from(factor).unwrap_or(source),
        };
        if config.replication_factor.is_some() && replicas > live {
            return Err(format!(
                "replication-factor asks for {replicas} replicas, and cluster {target} has {live} live brokers"
            ));
        }
        return Ok((Change::Create, replicas, None));
    };
    if existing.error != 0 {
        let error = KafkaError(existing.error);
        return Err(format!(
            "cluster {target} answers {error} for topic {}; look at the rights of Strait's user there",
            wanted.target
        ));
    }
    let have = existing.partitions.len();
    let most = existing.partitions.values().map(|p| p.replicas.len()).max();
    let replicas = most.unwrap_or(1).max(1);
    if have >= need {
        return Ok((Change::Exists, replicas, None));
    }
    if config.grow_partitions {
        return Ok((Change::Grow(have), replicas, None));
    }
    let why = format!(
        "topic {} on cluster {target} has {have} partitions, the source {need}, and grow-partitions is false: the rest is not mirrored",
        wanted.target
    );
    Ok((Change::Exists, replicas, Some(why)))
}

/// Why a flow would not begin.
fn obstacle(
    config: &LinkConfig,
    position: Option<&KnownPosition>,
    target: &str,
    has_data: bool,
) -> Option<String> {
    match position {
        None if has_data && config.policies.target_has_data == Policy::Stop => Some(format!(
            "{target} holds data that this link has no position for"
        )),
        None => None,
        Some(KnownPosition::Strait(position)) if position.link != config.name => {
            Some(format!("its position belongs to link {}", position.link))
        }
        Some(KnownPosition::Strait(position)) if position.target_topic != target => Some(format!(
            "its position stands for {} on the target",
            position.target_topic
        )),
        Some(KnownPosition::Strait(_)) => None,
        // Where nothing tells of its place it is found by content.
        Some(KnownPosition::MirrorMaker2) if takes_over(config) => None,
        Some(KnownPosition::MirrorMaker2) => Some(
            "its last position was written by MirrorMaker 2, and nothing is taken over from it"
                .to_owned(),
        ),
        Some(KnownPosition::Unreadable(why)) => {
            Some(format!("its last position cannot be read: {why}"))
        }
    }
}

async fn acls_to_make(
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    chosen: &BTreeMap<String, String>,
) -> Option<Result<Vec<String>, String>> {
    if !config.beside.sync_acls {
        return None;
    }
    let mut sides = Vec::new();
    for cluster in [source, target] {
        match cluster.topic_acls().await {
            Ok(acls) => sides.push(acls),
            Err(error) => {
                let (alias, why) = (cluster.alias(), shortly(&error));
                return Some(Err(format!(
                    "cluster {alias} does not tell its ACLs: {why}"
                )));
            }
        }
    }
    let there: BTreeSet<_> = sides.pop().into_iter().flatten().collect();
    let of_source = sides.pop().unwrap_or_default();
    let wanted = acls::wanted_acls(&of_source, chosen);
    Some(Ok(wanted.difference(&there).map(acls::shown).collect()))
}

fn sum(topic: &str, bytes: &BTreeMap<(String, i32), i64>) -> i64 {
    let of_topic = bytes.iter().filter(|((name, _), _)| name == topic);
    of_topic.map(|(_, bytes)| bytes).sum()
}

/// The partitions of these topics that have a leader.
fn partitions(metadata: &Metadata, topics: &[String]) -> BTreeSet<(String, i32)> {
    let of = |topic: &String| {
        let partitions = metadata.topics.get(topic).map(|t| &t.partitions);
        let led = partitions
            .into_iter()
            .flatten()
            .filter(|(_, p)| p.leader >= 0);
        led.map(|(p, _)| (topic.clone(), *p)).collect::<Vec<_>>()
    };
    topics.iter().flat_map(of).collect()
}

/// Up to where the link mirrors.
fn ends_of(config: &LinkConfig) -> AskEnds {
    AskEnds {
        committed: config.isolation == Isolation::ReadCommitted,
        ..AskEnds::default()
    }
}

/// What is known of these partitions; of the others one is named for each reason.
fn known<T>(
    cluster: &str,
    found: BTreeMap<(String, i32), Result<T, NetError>>,
    unknown: &mut Vec<String>,
) -> BTreeMap<(String, i32), T> {
    let mut known = BTreeMap::new();
    let mut why: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (place, found) in found {
        match found {
            Ok(found) => drop(known.insert(place, found)),
            Err(error) => {
                let first = || (0, format!("{}-{}", place.0, place.1));
                why.entry(shortly(&error)).or_insert_with(first).0 += 1;
            }
        }
    }
    unknown.extend(why.into_iter().map(|(why, (count, first))| {
        let more = match count {
            1 => String::new(),
            _ => format!(" and {} partitions more", count - 1),
        };
        format!("what {first}{more} on cluster {cluster} holds: {why}")
    }));
    known
}

/// How far each partition of the source has been mirrored.
struct Progress {
    /// Start, next offset to mirror, and end.
    known: BTreeMap<(String, i32), (i64, i64, i64)>,
}

impl Progress {
    async fn look(
        config: &LinkConfig,
        source: &Cluster,
        all: &BTreeSet<(String, i32)>,
        (positions, taken): (
            &BTreeMap<FlowKey, KnownPosition>,
            &impl Fn(&str, i32) -> Option<i64>,
        ),
        unknown: &mut Vec<String>,
    ) -> Self {
        let (ask, alias) = (ends_of(config), source.alias());
        let logs = known(alias, source.log_ends_as(all, ask).await, unknown);
        let mut by_time: BTreeMap<i64, BTreeSet<(String, i32)>> = BTreeMap::new();
        for key in logs.keys() {
            if let StartPosition::Timestamp(ms) = config.start.for_topic(&key.0) {
                by_time.entry(ms).or_default().insert(key.clone());
            }
        }
        let mut at_time = BTreeMap::new();
        for (ms, keys) in by_time {
            let found = source.offsets_for_time(&keys, ms, ask).await;
            at_time.extend(known(alias, found, unknown));
        }
        let known = logs.into_iter().map(|(key, (start, end))| {
            let flow = FlowKey {
                topic: key.0.clone(),
                partition: key.1,
            };
            let next = match (positions.get(&flow), config.start.for_topic(&key.0)) {
                (Some(KnownPosition::Strait(position)), _) if position.link == config.name => {
                    position.source_next
                }
                _ if taken(&key.0, key.1).is_some() => taken(&key.0, key.1).unwrap_or(start),
                (_, StartPosition::Earliest) => start,
                (_, StartPosition::Latest) => end,
                (_, StartPosition::Timestamp(_)) => at_time
                    .get(&key)
                    .copied()
                    .filter(|o| *o >= 0)
                    .unwrap_or(end),
            };
            (key, (start, next.clamp(start, end.max(start)), end))
        });
        Self {
            known: known.collect(),
        }
    }

    fn partitions(&self) -> BTreeSet<(String, i32)> {
        self.known.keys().cloned().collect()
    }

    fn of(&self, topic: &str) -> Vec<i32> {
        self.entries(topic)
            .map(|((_, partition), _)| *partition)
            .collect()
    }

    fn entries(&self, topic: &str) -> impl Iterator<Item = (&(String, i32), &(i64, i64, i64))> {
        self.known
            .range((topic.to_owned(), 0)..=(topic.to_owned(), i32::MAX))
    }

    fn offsets(&self, topic: &str) -> i64 {
        self.entries(topic)
            .map(|(_, (_, next, end))| end - next)
            .sum()
    }

    /// Of each partition's log the part that is still to be read.
    fn bytes(&self, topic: &str, bytes: &BTreeMap<(String, i32), i64>) -> u64 {
        let part = |(key, (start, next, end)): (&(String, i32), &(i64, i64, i64))| {
            let all = bytes.get(key).copied().unwrap_or(0) as f64;
            match end - start {
                0 => 0.0,
                offsets => all * ((end - next) as f64) / (offsets as f64),
            }
        };
        self.entries(topic).map(part).sum::<f64>() as u64
    }

    fn grown(&self, topic: &str, later: &LogEnds) -> i64 {
        let grown = self
            .entries(topic)
            .map(|(key, (_, _, end))| match later.get(key) {
                Some(Ok((_, later))) => later - end,
                _ => 0,
            });
        grown.sum::<i64>().max(0)
    }
}

#[cfg(test)]
#[path = "plan/plan_test.rs"]
mod tests;
