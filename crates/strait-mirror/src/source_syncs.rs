//! Offset syncs on the source as well, where MirrorMaker 2's readers look for them by default
//! (`offset-syncs.topic.location = source`). The position of a flow is always on the target.

use std::collections::BTreeMap;
use std::time::Duration;

use strait_config::LinkConfig;
use strait_engine::{FlowKey, KnownPosition, LinkStatus, PositionTail, SessionError, SideLog};
use strait_net::{Cluster, KafkaError, NetError, NewTopic, Runtime};
use strait_wire::{OffsetSync, Position, Record, SyncKind};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// How often what was written on the target is written on the source.
const EVERY: Duration = Duration::from_secs(1);
/// How long until the next try where the source does not take them.
const RETRY: Duration = Duration::from_secs(30);
/// Replicas of the topic, unless configured or not to be had.
const REPLICATION: i16 = 3;

/// Keeps the pairs on the source for as long as it is polled; forever idle where they are not asked for.
pub(crate) async fn keep(
    rt: &Runtime,
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    mut status: watch::Receiver<LinkStatus>,
) {
    let mut said = None;
    // The link ends the other parts as well.
    while config.syncs_on_source && status.wait_for(|status| status.open).await.is_ok() {
        let Err(failed) = copy(rt, config, source, target, &mut status).await else {
            continue;
        };
        let text = failed.said(source.alias(), target.alias());
        if said.as_ref() == Some(&text) {
            debug!(link = %config.name, "{text}");
        } else {
            warn!(
                link = %config.name, id = "source-syncs-unwritten",
                "offset syncs are not written on the source, trying again; everything else goes on: {text}"
            );
            said = Some(text);
        }
        rt.sleep(RETRY).await;
    }
    std::future::pending().await
}

/// What went wrong, by the cluster where it did.
#[derive(Debug)]
enum Failed {
    /// They cannot be written there.
    Source(SessionError),
    /// They cannot be read there.
    Target(SessionError),
}

impl Failed {
    /// In words, with what helps.
    fn said(self, source: &str, target: &str) -> String {
        let why = |error: SessionError| match error {
            SessionError::Lost(why) => why,
            error => error.to_string(),
        };
        match self {
            Self::Source(error) => format!(
                "on cluster {target} they are, and cluster {source} does not take them: {}; Strait's user needs Describe, Create and Write on {} there, or take offset-syncs.topic.location = source (offset-syncs-on-source) from the configuration",
                why(error),
                topic_of(target)
            ),
            Self::Target(error) => format!(
                "they cannot be read on cluster {target}, from where they are copied: {}; Strait's user needs Describe and Read on {} there",
                why(error),
                topic_of(source)
            ),
        }
    }
}

/// The topic of the syncs with the cluster of this alias, on the other one.
fn topic_of(alias: &str) -> String {
    format!("mm2-offset-syncs.{alias}.internal")
}

/// Copies until the session ends.
async fn copy(
    rt: &Runtime,
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    status: &mut watch::Receiver<LinkStatus>,
) -> Result<(), Failed> {
    let topic = topic_of(target.alias());
    let created = create(config, source, &topic).await;
    created.map_err(Failed::Source)?;
    let replication = config.internal_replication_factor;
    let log = SideLog::open(rt, &config.name, source.clone(), &topic, replication).await;
    let log = log.map_err(Failed::Source)?;
    let mut tail = PositionTail::new(rt, target.clone(), source.alias());
    // Whoever does not own the link writes nothing.
    while status.borrow_and_update().open {
        let mut news = BTreeMap::new();
        tail.read(|flow, known| match known {
            KnownPosition::Strait(position) if position.link == config.name => {
                let rebased = news.get(&flow).is_some_and(|(rebased, _)| *rebased);
                let rebased = rebased || position.kind == SyncKind::Rebase;
                news.insert(flow, (rebased, position));
            }
            _ => {}
        })
        .await
        .map_err(Failed::Target)?;
        let now = rt.wall_ms();
        let records = news
            .iter()
            .flat_map(|(flow, (rebased, position))| records(flow, *rebased, position, now));
        let records: Vec<Record> = records.collect();
        if !records.is_empty() {
            log.append(records).await.map_err(Failed::Source)?;
        }
        rt.sleep(EVERY).await;
    }
    Ok(())
}

/// MirrorMaker 2 forgets its old pairs only when the upstream falls.
fn records(flow: &FlowKey, rebased: bool, position: &Position, now: i64) -> Vec<Record> {
    let pair = |upstream, downstream| OffsetSync {
        topic: flow.topic.clone(),
        partition: flow.partition,
        upstream,
        downstream,
    };
    let mut pairs = Vec::new();
    if rebased {
        pairs.push(pair(-1, -1));
    }
    pairs.push(pair(position.source_next - 1, position.target_next - 1));
    let records = pairs.into_iter().map(|sync| Record {
        offset: 0,
        timestamp: now,
        key: Some(sync.key()),
        value: Some(sync.value()),
        headers: Vec::new(),
    });
    records.collect()
}

/// The topic with MirrorMaker 2's settings, where it does not exist.
async fn create(config: &LinkConfig, source: &Cluster, topic: &str) -> Result<(), SessionError> {
    let name = topic.to_owned();
    let metadata = source.metadata(Some(std::slice::from_ref(&name))).await?;
    match metadata.topics.get(topic).map_or(3, |t| t.error) {
        0 => return Ok(()),
        // UNKNOWN_TOPIC_OR_PARTITION
        3 => {}
        error => return Err(NetError::kafka(error, "Metadata", name).into()),
    }
    let live = i16::try_from(metadata.brokers.len().max(1)).unwrap_or(REPLICATION);
    let replicas = config.internal_replication_factor;
    let new = NewTopic {
        name,
        partitions: 1,
        replication: replicas.unwrap_or_else(|| live.min(REPLICATION)),
        configs: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
    };
    match source.create_topic(&new).await {
        Ok(_) => {
            info!(link = %config.name, %topic, "created the topic of offset syncs on the source");
            Ok(())
        }
        // TOPIC_ALREADY_EXISTS
        Err(error) if error.code() == Some(KafkaError(36)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_that_is_missing_is_named_with_its_cluster() {
        let denied = || NetError::kafka(29, "Fetch", "a topic").into();
        let there = Failed::Source(denied()).said("west", "east");
        assert!(there.contains("cluster west does not take them"), "{there}");
        assert!(
            there.contains("Create and Write on mm2-offset-syncs.east.internal there"),
            "{there}"
        );
        let here = Failed::Target(denied()).said("west", "east");
        assert!(here.contains("cannot be read on cluster east"), "{here}");
        assert!(
            here.contains("Read on mm2-offset-syncs.west.internal there"),
            "{here}"
        );
        assert!(!here.contains("Write") && here.contains("(29)"), "{here}");
    }
}
