//! Reading positions from outside: what each flow of a link has forwarded and left out, also while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strait_net::{Cluster, Runtime};
use strait_wire::{OffsetSync, Position, Record, RegistryError, RegistryRecord, SyncRecord};

use crate::internal_log::{Until, read_log};
use crate::routes::Routes;
use crate::session::error::SessionError;
use crate::spec::{FlowKey, STRAIT_TOPIC};
use crate::syncs_topic::positions_topic;

/// The last position of one flow, as it lies on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownPosition {
    /// Written by Strait.
    Strait(Box<Position>),
    /// Written by MirrorMaker 2: no account of what was left out.
    MirrorMaker2,
    /// This version cannot read it, and why.
    Unreadable(String),
}

/// Reads the positions of every flow from one cluster as they are written: all that the topic still has, in their order,
/// then what was added since. Needs Describe and Read on the topic of the syncs, and nothing else.
#[derive(Debug)]
pub struct PositionTail {
    rt: Runtime,
    routes: Arc<Routes>,
    source: String,
    /// Where they stand, as soon as that is known, and the next offset there.
    topic: String,
    next: i64,
    /// Partitions of topics that have a position of Strait's.
    known: BTreeMap<String, BTreeSet<i32>>,
}

impl PositionTail {
    /// Of flows from the cluster of alias `source`, kept on `target`.
    pub fn new(rt: &Runtime, target: Cluster, source: &str) -> Self {
        Self {
            rt: rt.clone(),
            routes: Arc::new(Routes::new(rt.clone(), target)),
            source: source.to_owned(),
            topic: String::new(),
            next: 0,
            known: BTreeMap::new(),
        }
    }

    /// What was written since the last call, whichever link wrote it; behind a position of Strait's no sync of MirrorMaker 2's, which
    /// may be of another flow of this name: of the other direction. Nothing where the topic does not exist yet.
    ///
    /// # Errors
    /// The target cannot be reached or read, or the topic holds what is no sync at all.
    pub async fn read(
        &mut self,
        mut each: impl FnMut(FlowKey, KnownPosition),
    ) -> Result<(), SessionError> {
        self.read_with_pairs(|flow, known, _| each(flow, known))
            .await
    }

    /// As [`read`](Self::read), with the upstream and the downstream offset of each sync.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub async fn read_with_pairs(
        &mut self,
        mut each: impl FnMut(FlowKey, KnownPosition, (i64, i64)),
    ) -> Result<(), SessionError> {
        let found = positions_topic(self.routes.cluster(), &self.source).await?;
        let Some(found) = found else {
            return Ok(());
        };
        if self.topic != found {
            self.topic = found;
            self.next = 0;
            self.known.clear();
        }
        let (topic, known) = (&self.topic, &mut self.known);
        let mut reached = self.next;
        let take = |offset, record: &Record| {
            let (key, position, offsets) = match SyncRecord::from_record(record) {
                Ok(sync) => {
                    let position = sync.position.map(Box::new);
                    let known = position.map_or(KnownPosition::MirrorMaker2, KnownPosition::Strait);
                    let offsets = (sync.upstream, sync.downstream);
                    ((sync.topic, sync.partition), known, offsets)
                }
                Err(error) => {
                    let (raw, value) = (record.key.as_ref(), record.value.as_ref());
                    let pair = raw
                        .zip(value)
                        .and_then(|(key, value)| OffsetSync::decode(key, value).ok());
                    let pair = pair.ok_or_else(|| SessionError::Registry {
                        topic: topic.clone(),
                        offset,
                        why: error.to_string(),
                    })?;
                    (
                        (pair.topic, pair.partition),
                        KnownPosition::Unreadable(error.to_string()),
                        (pair.upstream, pair.downstream),
                    )
                }
            };
            let (topic, partition) = key;
            if position != KnownPosition::MirrorMaker2 {
                known.entry(topic.clone()).or_default().insert(partition);
            } else if known
                .get(&topic)
                .is_some_and(|all| all.contains(&partition))
            {
                reached = offset + 1;
                return Ok(());
            }
            each(FlowKey { topic, partition }, position, offsets);
            reached = offset + 1;
            Ok(())
        };
        let (rt, routes) = (&self.rt, &self.routes);
        let read = read_log(rt, routes, topic, self.next, Until::End, take).await;
        // What was given is not given again.
        self.next = *read.as_ref().unwrap_or(&reached);
        read.map(drop)
    }
}

async fn exists(cluster: &Cluster, topic: &str) -> Result<bool, SessionError> {
    let name = topic.to_owned();
    let metadata = cluster.metadata(Some(std::slice::from_ref(&name))).await?;
    // UNKNOWN_TOPIC_OR_PARTITION
    Ok(metadata.topics.get(topic).is_some_and(|t| t.error != 3))
}

/// The last position of every flow from the cluster of alias `source`, as [`PositionTail`] reads them.
///
/// # Errors
/// Those of [`PositionTail::read`].
pub async fn read_positions(
    rt: &Runtime,
    target: Cluster,
    source: &str,
) -> Result<BTreeMap<FlowKey, KnownPosition>, SessionError> {
    let mut positions = BTreeMap::new();
    let mut tail = PositionTail::new(rt, target, source);
    tail.read(|flow, position| {
        positions.insert(flow, position);
    })
    .await?;
    Ok(positions)
}

/// Positions that a flow has passed: source offset, target offset, records forwarded.
pub type Rungs = Vec<(i64, i64, i64)>;

/// The ladder that the registry on `target` has for each flow of a link, with the time when it was written, in ms.
///
/// # Errors
/// The target cannot be reached or read, or the registry is that of a newer version.
pub async fn read_ladders(
    rt: &Runtime,
    target: Cluster,
    link: &str,
) -> Result<BTreeMap<FlowKey, (i64, Rungs)>, SessionError> {
    let mut ladders = BTreeMap::new();
    if !exists(&target, STRAIT_TOPIC).await? {
        return Ok(ladders);
    }
    let routes = Arc::new(Routes::new(rt.clone(), target));
    let take = |offset, record: &Record| {
        match RegistryRecord::from_record(record) {
            Ok(RegistryRecord::Ladder {
                link: of,
                topic,
                partition,
                rungs,
            }) if of == link => {
                ladders.insert(FlowKey { topic, partition }, (record.timestamp, rungs));
            }
            Ok(_) | Err(RegistryError::UnknownType(_)) => {}
            Err(error) => {
                return Err(SessionError::Registry {
                    topic: STRAIT_TOPIC.to_owned(),
                    offset,
                    why: error.to_string(),
                });
            }
        }
        Ok(())
    };
    read_log(rt, &routes, STRAIT_TOPIC, 0, Until::End, take).await?;
    Ok(ladders)
}
