//! Topics that a link has mirrored and whose source is gone. Strait deletes nothing: it names them.

use std::collections::{BTreeMap, BTreeSet};

use strait_config::LinkConfig;
use strait_engine::{KnownPosition, SessionError, alias_of_syncs, read_positions};
use strait_net::{Cluster, KafkaError, Runtime};
use strait_wire::PositionFlags;

use crate::mirror::MirrorError;

/// A topic on the target that nothing flows into any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneTopic {
    /// What it was called on the source.
    pub source: String,
    /// What it is called on the target.
    pub target: String,
    /// Its partitions there.
    pub partitions: usize,
    /// What all of its replicas take on disk; none where the target does not tell.
    pub bytes: Option<u64>,
}

/// The topics that this link has mirrored by its positions, which the target still has and the source does not. A topic
/// that the source only hides is none, and neither is one that others mirror or write into too.
///
/// # Errors
/// A cluster that cannot be reached, positions that cannot be read.
pub async fn gone_topics(
    rt: &Runtime,
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
) -> Result<Vec<GoneTopic>, MirrorError> {
    let positions = read_positions(rt, target.clone(), source.alias()).await?;
    let mut by_target: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut others: BTreeSet<&str> = BTreeSet::new();
    for (flow, known) in &positions {
        if let KnownPosition::Strait(position) = known {
            if position.flags.contains(PositionFlags::SHARED) {
                others.insert(&position.target_topic);
            } else if position.link == config.name {
                by_target
                    .entry(&position.target_topic)
                    .or_default()
                    .insert(&flow.topic);
            } else {
                others.insert(&position.target_topic);
            }
        }
    }
    let elsewhere = of_other_sources(rt, source.alias(), target).await?;
    by_target.retain(|name, _| !others.contains(name) && !elsewhere.contains(*name));
    let sources: BTreeSet<&str> = by_target.values().flatten().copied().collect();
    let sources: Vec<String> = sources.into_iter().map(str::to_owned).collect();
    let targets: Vec<String> = by_target.keys().map(|name| (*name).to_owned()).collect();
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    // Asked for by name, a topic that is hidden is told from one that is not there.
    let on_source = source.metadata(Some(&sources)).await?;
    let gone = |topic: &str| {
        let found = on_source.topics.get(topic);
        found.is_some_and(|t| KafkaError(t.error) == KafkaError::UNKNOWN_TOPIC_OR_PARTITION)
    };
    by_target.retain(|_, sources| sources.iter().all(|topic| gone(topic)));
    let there = target.metadata(Some(&targets)).await?;
    let left: Vec<String> = targets
        .into_iter()
        .filter(|name| by_target.contains_key(name.as_str()))
        .filter(|name| there.has(name))
        .collect();
    let bytes = target.log_bytes(&there, &left).await.ok();
    let found = left.into_iter().filter_map(|name| {
        let topic = there.topics.get(&name)?;
        let on_disk = bytes.as_ref().map(|bytes| {
            let of_partition = |(partition, found): (&i32, &strait_net::PartitionMetadata)| {
                let size = bytes.get(&(name.clone(), *partition)).copied().unwrap_or(0);
                size.unsigned_abs() * found.replicas.len() as u64
            };
            topic.partitions.iter().map(of_partition).sum()
        });
        Some(GoneTopic {
            source: by_target
                .get(name.as_str())?
                .iter()
                .copied()
                .collect::<Vec<_>>()
                .join(", "),
            partitions: topic.partitions.len(),
            bytes: on_disk,
            target: name,
        })
    });
    Ok(found.collect())
}

/// The target topics of positions from other sources.
async fn of_other_sources(
    rt: &Runtime,
    source: &str,
    target: &Cluster,
) -> Result<BTreeSet<String>, SessionError> {
    let mut found = BTreeSet::new();
    let all = target.metadata(None).await?;
    let aliases = all.topics.keys().filter_map(|name| alias_of_syncs(name));
    for alias in aliases.filter(|alias| *alias != source) {
        for known in read_positions(rt, target.clone(), alias)
            .await?
            .into_values()
        {
            if let KnownPosition::Strait(position) = known {
                found.insert(position.target_topic);
            }
        }
    }
    Ok(found)
}
