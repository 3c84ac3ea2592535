//! Offset syncs where MirrorMaker 2's readers look for them: on the source, as by default
//! (`offset-syncs.topic.location = source`), or on the target under a name with another separator. The position of a flow is
//! always on the target, and under one name.

use std::collections::BTreeMap;
use std::time::Duration;

use strait_config::LinkConfig;
use strait_engine::{
    FlowKey, KnownPosition, LinkStatus, PositionTail, SEPARATOR, SessionError, SideLog, existing,
    holds_positions, syncs_topic,
};
use strait_net::{Cluster, KafkaError, NetError, NewTopic, Runtime};
use strait_wire::{OffsetSync, Record, SyncKind};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// How often what was written among the positions is written there.
const EVERY: Duration = Duration::from_secs(1);
/// How long until the next try where they are not taken.
const RETRY: Duration = Duration::from_secs(30);
/// Replicas of the topic, unless configured or not to be had.
const REPLICATION: i16 = 3;

/// Where MirrorMaker 2's readers look for them, beside the topic of positions.
struct Place {
    cluster: Cluster,
    topic: String,
    /// The topic that they are copied from, on the target.
    positions: String,
    on_source: bool,
}

impl Place {
    /// On the source where that is asked for; else on the target where MirrorMaker 2 has a name for the topic that
    /// positions do not stand under.
    fn of(config: &LinkConfig, source: &Cluster, target: &Cluster) -> Option<Self> {
        let separator = &config.internal_separator;
        let of_positions = match holds_positions(separator) {
            true => separator.as_str(),
            false => SEPARATOR,
        };
        let place = |cluster: &Cluster, other: &Cluster| Self {
            cluster: cluster.clone(),
            topic: syncs_topic(separator, other.alias()),
            positions: syncs_topic(of_positions, source.alias()),
            on_source: config.syncs_on_source,
        };
        if config.syncs_on_source {
            return Some(place(source, target));
        }
        (!holds_positions(separator)).then(|| place(target, source))
    }

    /// What is wrong, in words, with what helps.
    fn unwritten(&self, failed: Failed, target: &str) -> String {
        let why = |error: SessionError| match error {
            SessionError::Lost(why) => why,
            error => error.to_string(),
        };
        let (what, elsewhere, instead) = if self.on_source {
            (
                "on the source",
                format!("on cluster {target} they are"),
                "take offset-syncs.topic.location = source (offset-syncs-on-source) from the configuration",
            )
        } else {
            (
                "under MirrorMaker 2's name",
                format!("in {} they are", self.positions),
                "set replication.policy.internal.topic.separator.enabled = false (internal-separator = \".\") where nobody reads them",
            )
        };
        let why = match failed {
            Failed::Write(error) => format!(
                "{elsewhere}, and cluster {} does not take them: {}; Strait's user needs Describe, Create and Write on {} there, or {instead}",
                self.cluster.alias(),
                why(error),
                self.topic
            ),
            Failed::Read(error) => format!(
                "they cannot be read on cluster {target}, from where they are copied: {}; Strait's user needs Describe and Read on {} there",
                why(error),
                self.positions
            ),
        };
        format!("offset syncs are not written {what}, trying again; everything else goes on: {why}")
    }
}

/// Keeps the pairs there for as long as it is polled; forever idle where they are not asked for.
pub(crate) async fn keep(
    rt: &Runtime,
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    mut status: watch::Receiver<LinkStatus>,
) {
    let Some(place) = Place::of(config, source, target) else {
        return std::future::pending().await;
    };
    let mut said = None;
    // The link ends the other parts as well.
    while status.wait_for(|status| status.open).await.is_ok() {
        let Err(failed) = copy(rt, config, &place, source, target, &mut status).await else {
            continue;
        };
        let text = place.unwritten(failed, target.alias());
        if said.as_ref() == Some(&text) {
            debug!(link = %config.name, "{text}");
        } else {
            warn!(link = %config.name, id = "source-syncs-unwritten", "{text}");
            said = Some(text);
        }
        rt.sleep(RETRY).await;
    }
    std::future::pending().await
}

/// What went wrong.
#[derive(Debug)]
enum Failed {
    /// They cannot be written where they are wanted.
    Write(SessionError),
    /// They cannot be read on the target, where positions are.
    Read(SessionError),
}

/// Copies until the session ends.
async fn copy(
    rt: &Runtime,
    config: &LinkConfig,
    place: &Place,
    source: &Cluster,
    target: &Cluster,
    status: &mut watch::Receiver<LinkStatus>,
) -> Result<(), Failed> {
    let on = &place.cluster;
    let other = if place.on_source { target } else { source }.alias();
    let older = existing(on, |separator| syncs_topic(separator, other)).await;
    // One that Kafka takes for the same name stays in use, as it does where positions stand.
    let older = older.map_err(|error| Failed::Write(error.into()))?;
    let older = older.filter(|_| holds_positions(&config.internal_separator));
    let topic = older.as_ref().unwrap_or(&place.topic);
    let created = create(config, on, topic).await;
    created.map_err(Failed::Write)?;
    let replication = config.internal_replication_factor;
    let log = SideLog::open(rt, &config.name, on.clone(), topic, replication).await;
    let log = log.map_err(Failed::Write)?;
    let mut tail = PositionTail::new(rt, target.clone(), source.alias());
    // Whoever does not own the link writes nothing.
    while status.borrow_and_update().open {
        let mut news = BTreeMap::new();
        tail.read_with_pairs(|flow, known, pair| match known {
            KnownPosition::Strait(position) if position.link == config.name => {
                let rebased = news.get(&flow).is_some_and(|(rebased, _)| *rebased);
                let rebased = rebased || position.kind == SyncKind::Rebase;
                news.insert(flow, (rebased, pair));
            }
            _ => {}
        })
        .await
        .map_err(Failed::Read)?;
        let now = rt.wall_ms();
        let records = news
            .iter()
            .flat_map(|(flow, (rebased, pair))| records(flow, *rebased, *pair, now));
        let records: Vec<Record> = records.collect();
        if !records.is_empty() {
            log.append(records).await.map_err(Failed::Write)?;
        }
        rt.sleep(EVERY).await;
    }
    Ok(())
}

/// MirrorMaker 2 forgets its old pairs only when the upstream falls.
fn records(
    flow: &FlowKey,
    rebased: bool,
    (upstream, downstream): (i64, i64),
    now: i64,
) -> Vec<Record> {
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
    pairs.push(pair(upstream, downstream));
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
async fn create(config: &LinkConfig, cluster: &Cluster, topic: &str) -> Result<(), SessionError> {
    let name = topic.to_owned();
    let metadata = cluster.metadata(Some(std::slice::from_ref(&name))).await?;
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
    match cluster.create_topic(&new).await {
        Ok(_) => {
            let alias = cluster.alias();
            info!(link = %config.name, %topic, "created the topic of offset syncs on cluster {alias}");
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

    #[tokio::test]
    async fn the_right_that_is_missing_is_named_with_its_cluster() {
        let rt = Runtime::system();
        let identity = strait_net::Identity {
            client_id: "test".to_owned(),
            software_name: "test".to_owned(),
            software_version: "0".to_owned(),
        };
        let place = Place {
            cluster: Cluster::new(rt, "west", Vec::new(), Default::default(), identity),
            topic: "mm2-offset-syncs.east.internal".to_owned(),
            positions: "mm2-offset-syncs.west.internal".to_owned(),
            on_source: true,
        };
        let denied = || NetError::kafka(29, "Fetch", "a topic").into();
        let there = place.unwritten(Failed::Write(denied()), "east");
        assert!(there.contains("cluster west does not take them"), "{there}");
        assert!(
            there.contains("Create and Write on mm2-offset-syncs.east.internal there"),
            "{there}"
        );
        let here = place.unwritten(Failed::Read(denied()), "east");
        assert!(here.contains("cannot be read on cluster east"), "{here}");
        assert!(
            here.contains("Read on mm2-offset-syncs.west.internal there"),
            "{here}"
        );
        assert!(!here.contains("Write") && here.contains("(29)"), "{here}");
    }
}
