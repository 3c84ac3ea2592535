//! What MirrorMaker 2 left on both clusters: how far it came, and whether it still runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strait_net::{Cluster, KafkaError, NetError, Runtime};
use strait_wire::{Isolation, Mm2Offset, OffsetSync, Record, has_position};
use tokio::task::JoinSet;
use tracing::debug;

use crate::error::FlowError;
use crate::internal_log::own_reader;
use crate::limits;
use crate::partition::PartitionReader;
use crate::routes::Routes;
use crate::spec::{FlowKey, Takeover};
use crate::syncs_topic::{SEPARATOR, holds_positions, syncs_topic};
use crate::takeover::proof::same_record;

/// Pairs of one flow that are remembered.
const PAIRS: usize = 64;
/// Of them so many are looked at, from the last one on, to see that they are the flow's.
const PROVEN_BY: usize = 4;
/// Flows that are looked at side by side.
const PROVING: usize = 16;
/// The longest name that a topic can have.
const LONGEST_TOPIC: usize = 249;

/// Source and target offsets of one record.
pub type Pair = (i64, i64);

/// How far MirrorMaker 2 came, by what it wrote itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mm2Positions {
    offsets: Offsets,
    /// Of each flow the last sync of each topic that has one. A topic may hold the flow's of the same name in the other
    /// direction.
    pairs: BTreeMap<FlowKey, Vec<Pair>>,
    /// Why there are none.
    pairs_unread: Option<String>,
    /// On the source Strait's positions of the other direction stand among them, which may have taken the place of the flow's.
    displaced: bool,
}

/// The positions that it flushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Offsets {
    /// A flow may have had several connectors, one after the other: each with the last record it knew to be on the target.
    flows: BTreeMap<FlowKey, Vec<(u16, i64)>>,
    /// How many these are together.
    kept: usize,
    /// The numbers of the connectors.
    connectors: BTreeMap<String, u16>,
}

impl Offsets {
    fn take(&mut self, found: Mm2Offset) -> Result<(), FlowError> {
        // No topic is called so.
        if found.topic.len() > LONGEST_TOPIC {
            return Ok(());
        }
        let flow = FlowKey {
            topic: found.topic,
            partition: found.partition,
        };
        let Some(offset) = found.offset else {
            let number = self.connectors.get(&found.connector);
            let (Some(number), Some(of_flow)) = (number, self.flows.get_mut(&flow)) else {
                return Ok(());
            };
            let before = of_flow.len();
            of_flow.retain(|(connector, _)| connector != number);
            self.kept -= before - of_flow.len();
            if of_flow.is_empty() {
                self.flows.remove(&flow);
            }
            return Ok(());
        };
        let next = self.connectors.len();
        let known = self.connectors.get(&found.connector).copied();
        let number = match known {
            Some(number) => number,
            None if next < limits::MM2_CONNECTORS => {
                let number = u16::try_from(next).unwrap_or(u16::MAX);
                self.connectors.insert(found.connector, number);
                number
            }
            None => {
                let most = limits::MM2_CONNECTORS;
                return Err(too_many(&format!("more than {most} connectors")));
            }
        };
        let of_flow = self.flows.entry(flow).or_default();
        match of_flow
            .iter_mut()
            .find(|(connector, _)| *connector == number)
        {
            Some((_, last)) => *last = offset,
            None => {
                of_flow.push((number, offset));
                self.kept += 1;
            }
        }
        if self.kept > limits::MM2_PARTITIONS {
            let most = limits::MM2_PARTITIONS;
            return Err(too_many(&format!("more than {most} partitions")));
        }
        Ok(())
    }
}

fn too_many(what: &str) -> FlowError {
    FlowError::Mm2Unreadable(format!(
        "it has positions of {what}, more than are taken over; delete those of connectors that are gone"
    ))
}

impl Mm2Positions {
    /// Whether it left nothing of the link.
    pub fn is_empty(&self) -> bool {
        self.offsets.flows.is_empty() && self.pairs.is_empty()
    }

    /// The source offset of the last record that it knew to be on the target: of several connectors' the lowest.
    pub fn mirrored(&self, flow: &FlowKey) -> Option<i64> {
        let of_flow = self.offsets.flows.get(flow)?;
        of_flow.iter().map(|(_, offset)| *offset).min()
    }

    /// The first source offset that it may not have mirrored, by all that it wrote: what follows may be on the target as well.
    /// Where syncs of several topics tell different things only its position counts.
    pub fn reaches(&self, flow: &FlowKey) -> Option<i64> {
        let mirrored = self.mirrored(flow);
        let alone = match self.pairs(flow) {
            [pair] if !self.displaced => Some(pair.0),
            _ => None,
        };
        Some(mirrored.max(alone)?.saturating_add(1))
    }

    /// The last syncs that may be the flow's, one of each topic: a record's offsets on both sides, or what another flow of the
    /// same name tells of its own.
    pub(crate) fn pairs(&self, flow: &FlowKey) -> &[Pair] {
        self.pairs.get(flow).map_or(&[], Vec::as_slice)
    }

    /// Whether all its offset syncs were read, and nothing of Strait's can have taken the place of one.
    pub(crate) fn all_pairs_known(&self) -> bool {
        self.pairs_unread.is_none() && !self.displaced
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        let flows = self.offsets.flows.keys().chain(self.pairs.keys());
        // With what the trees and the allocator add.
        let flows = flows.map(|flow| flow.topic.len() + 96);
        let connectors = self.offsets.connectors.keys().map(|name| name.len() + 64);
        let pairs = self.pairs.values().map(|pairs| 24 + pairs.capacity() * 16);
        flows.chain(connectors).chain(pairs).sum::<usize>() + self.offsets.kept * 16
    }

    /// Why its offset syncs on the source were not read.
    pub(crate) fn pairs_unread(&self) -> Option<&str> {
        self.pairs_unread.as_deref()
    }
}

/// Whether MirrorMaker 2 may be at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mm2Presence {
    /// It left nothing, or the link takes nothing over.
    Absent,
    /// It ran, and does not now.
    Gone,
    /// Its group on the target has so many members.
    Running(String, usize),
    /// The group cannot be asked, and why.
    Unseen(String),
}

/// Looks for MirrorMaker 2 on the target: for its topic, and for members of its group.
///
/// # Errors
/// The target cannot be reached.
pub async fn mm2_presence(target: &Cluster, takeover: &Takeover) -> Result<Mm2Presence, NetError> {
    let Some(topic) = &takeover.offsets_topic else {
        return Ok(Mm2Presence::Absent);
    };
    let found = target.metadata(Some(std::slice::from_ref(topic))).await?;
    match found.topics.get(topic).map_or(3, |t| t.error) {
        // UNKNOWN_TOPIC_OR_PARTITION
        3 => return Ok(Mm2Presence::Absent),
        // TOPIC_AUTHORIZATION_FAILED: whether there is such a topic or not.
        29 => {
            let alias = target.alias();
            return Ok(Mm2Presence::Unseen(format!(
                "topic {topic} is hidden on cluster {alias}; give Strait's user Describe and Read on it there, or set takeover-offsets-topic = \"off\" where MirrorMaker 2 never ran"
            )));
        }
        _ => {}
    }
    let Some(group) = &takeover.group else {
        return Ok(Mm2Presence::Gone);
    };
    match target.group_members(group).await {
        Ok(0) => Ok(Mm2Presence::Gone),
        Ok(members) => Ok(Mm2Presence::Running(group.clone(), members)),
        // GROUP_AUTHORIZATION_FAILED, and what brokers say that are asked for a group that nobody may have.
        Err(error) if matches!(error.code(), Some(KafkaError(24 | 29..=31))) => {
            let alias = target.alias();
            Ok(Mm2Presence::Unseen(format!(
                "whether MirrorMaker 2 still runs cannot be seen on cluster {alias}: {error}; give Strait's user Describe on group {group} there, or set takeover-group = \"off\" once it does not"
            )))
        }
        Err(error) => Err(error),
    }
}

/// What MirrorMaker 2 wrote of its flow from `source`: its position on the target, and its offset syncs on the source.
///
/// # Errors
/// [`FlowError::Mm2Unreadable`] where the position cannot be read. Syncs that cannot be read are none.
pub async fn read_mm2_positions(
    rt: &Runtime,
    source: Cluster,
    target: Cluster,
    takeover: &Takeover,
) -> Result<Mm2Positions, FlowError> {
    let source = Arc::new(Routes::new(rt.clone(), source));
    let target = Arc::new(Routes::new(rt.clone(), target));
    read(rt, &source, &target, takeover).await
}

pub(crate) async fn read(
    rt: &Runtime,
    source: &Arc<Routes>,
    target: &Arc<Routes>,
    takeover: &Takeover,
) -> Result<Mm2Positions, FlowError> {
    let mut found = Mm2Positions::default();
    if let Some(topic) = &takeover.offsets_topic {
        read_offsets(
            rt,
            source.cluster().alias(),
            target,
            topic,
            &mut found.offsets,
        )
        .await
        .map_err(|error| unreadable(target.cluster(), topic, &error))?;
    }
    let separators = [Some(SEPARATOR), takeover.separator.as_deref()];
    let mut topics: Vec<_> = separators
        .into_iter()
        .flatten()
        .map(|separator| (source, separator, target))
        .collect();
    // Others on the target stand among the link's positions.
    let apart = takeover
        .separator
        .as_deref()
        .filter(|separator| !holds_positions(separator));
    topics.extend(apart.map(|separator| (target, separator, source)));
    for (on, separator, other) in topics {
        let topic = syncs_topic(separator, other.cluster().alias());
        let mut pairs = BTreeMap::new();
        let room = limits::MM2_PARTITIONS.saturating_sub(found.pairs.len());
        let read = read_syncs(rt, on, &topic, |flow, pair| {
            if pairs.len() < room || pairs.contains_key(&flow) {
                pairs.insert(flow, pair);
            }
        });
        match read.await {
            Ok(positions) => found.displaced |= positions && Arc::ptr_eq(on, source),
            Err(error) => {
                let error = unreadable(on.cluster(), &topic, &error);
                found.pairs_unread.get_or_insert(error.to_string());
            }
        }
        for (flow, pair) in pairs {
            found.pairs.entry(flow).or_default().push(pair);
        }
    }
    Ok(found)
}

fn unreadable(cluster: &Cluster, topic: &str, error: &FlowError) -> FlowError {
    let alias = cluster.alias();
    FlowError::Mm2Unreadable(format!(
        "{topic} on cluster {alias}: {error}; Strait's user needs Describe and Read on it there"
    ))
}

/// The last offset of each partition of the topic that belongs to a flow from the cluster of this alias.
async fn read_offsets(
    rt: &Runtime,
    alias: &str,
    target: &Arc<Routes>,
    topic: &str,
    offsets: &mut Offsets,
) -> Result<(), FlowError> {
    let name = topic.to_owned();
    let metadata = target.cluster().metadata(Some(std::slice::from_ref(&name)));
    let metadata = metadata.await?;
    let Some(topic) = metadata.topics.get(topic).filter(|t| t.error != 3) else {
        return Ok(());
    };
    if topic.error != 0 {
        return Err(NetError::kafka(topic.error, "Metadata", name).into());
    }
    for &partition in topic.partitions.keys() {
        let reader = PartitionReader {
            source: false,
            rt: rt.clone(),
            routes: target.clone(),
            topic: name.clone(),
            partition,
            // With exactly.once.support they are written in the transactions of the records.
            isolation: Isolation::ReadCommitted,
        };
        each_record(&reader, |record| {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let Some(found) = Mm2Offset::decode(key, value).filter(|o| o.cluster == alias) else {
                return Ok(());
            };
            offsets.take(found)
        })
        .await?;
    }
    Ok(())
}

/// Where a flow was taken over from MirrorMaker 2: the target partition, and the next offset there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenAt {
    /// The topic on the target.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What the topics of syncs may have of each flow, one list of each topic.
type OfTopics = BTreeMap<FlowKey, Vec<Vec<Pair>>>;

/// MirrorMaker 2's offset syncs on both clusters, under names with this separator or its default one, for these flows, in the
/// order of their target offsets, 64 of each at the most. What lies at or above the target offset of a flow was written by
/// Strait, which took over there, and is none of them. Clusters that hide theirs have none.
///
/// Where syncs of both directions can be among them, those of a flow count that stand for the same record on both sides.
pub async fn read_mm2_pairs(
    rt: &Runtime,
    source: Cluster,
    target: Cluster,
    separator: &str,
    taken_at: &BTreeMap<FlowKey, TakenAt>,
) -> BTreeMap<FlowKey, Vec<Pair>> {
    let mut all = OfTopics::new();
    let source = Arc::new(Routes::new(rt.clone(), source));
    let target = Arc::new(Routes::new(rt.clone(), target));
    let mut topics = Vec::new();
    for separator in BTreeSet::from([SEPARATOR, separator]) {
        for (on, other) in [(&source, &target), (&target, &source)] {
            let topic = syncs_topic(separator, other.cluster().alias());
            topics.push((on, topic, Arc::ptr_eq(on, &source)));
        }
    }
    let (mut with_pairs, mut mixed) = (0, false);
    for (routes, topic, on_source) in topics {
        let mut pairs: BTreeMap<FlowKey, Vec<Pair>> = BTreeMap::new();
        let read = read_syncs(rt, routes, &topic, |flow, pair| {
            let Some(taken_at) = taken_at.get(&flow) else {
                return;
            };
            if pair.0 < 0 || pair.1 < 0 {
                pairs.remove(&flow);
            } else if pair.1 < taken_at.offset {
                keep_pair(pairs.entry(flow).or_default(), pair);
            }
        });
        match read.await {
            Ok(positions) => mixed |= positions && on_source,
            Err(error) => {
                mixed = true;
                debug!(%topic, "cannot read offset syncs: {error}");
            }
        }
        with_pairs += usize::from(!pairs.is_empty());
        for (flow, found) in pairs {
            all.entry(flow).or_default().push(found);
        }
    }
    if mixed || with_pairs > 1 {
        all = proven(rt, (&source, &target), all, taken_at).await;
    }
    let merged = all.into_iter().map(|(flow, of_topics)| {
        let mut pairs: Vec<Pair> = of_topics.into_iter().flatten().collect();
        pairs.sort_by_key(|pair| (pair.1, pair.0));
        (flow, pairs)
    });
    merged.collect()
}

/// Those of topics in which a flow's last records are the same on both sides. What cannot be seen in time does not count.
async fn proven(
    rt: &Runtime,
    (source, target): (&Arc<Routes>, &Arc<Routes>),
    all: OfTopics,
    taken_at: &BTreeMap<FlowKey, TakenAt>,
) -> OfTopics {
    let deadline = rt.deadline(limits::SEEK_TIME);
    let mut proven = OfTopics::new();
    let mut jobs = JoinSet::new();
    let mut todo = all.into_iter();
    loop {
        while jobs.len() < PROVING
            && let Some((flow, of_topics)) = todo.next()
        {
            let Some(taken) = taken_at.get(&flow) else {
                continue;
            };
            let reader = |routes: &Arc<Routes>, topic: &str, partition, source| PartitionReader {
                source,
                rt: rt.clone(),
                routes: routes.clone(),
                topic: topic.to_owned(),
                partition,
                isolation: Isolation::ReadUncommitted,
            };
            let source = reader(source, &flow.topic, flow.partition, true);
            let target = reader(target, &taken.topic, taken.partition, false);
            jobs.spawn(async move {
                let mut own = Vec::new();
                for pairs in of_topics {
                    if are_own(&source, &target, &pairs).await {
                        own.push(pairs);
                    }
                }
                (flow, own)
            });
        }
        let done = tokio::select! {
            biased;
            done = jobs.join_next() => done,
            () = rt.sleep_until(deadline) => None,
        };
        match done {
            Some(Ok((flow, own))) if !own.is_empty() => drop(proven.insert(flow, own)),
            Some(_) => {}
            None => return proven,
        }
    }
}

/// Whether the last of these pairs that both sides still have stands for one record.
async fn are_own(source: &PartitionReader, target: &PartitionReader, pairs: &[Pair]) -> bool {
    for &pair in pairs.iter().rev().take(PROVEN_BY) {
        match same_record(source, target, pair, limits::DECODE_LEAST_BYTES).await {
            Ok(Some(same)) => return same,
            Ok(None) => {}
            Err(error) => {
                let (topic, partition) = (&source.topic, source.partition);
                debug!(%topic, partition, "cannot see whose offset syncs these are: {error}");
                return false;
            }
        }
    }
    false
}

/// Takes the flow's next pair.
fn keep_pair(pairs: &mut Vec<Pair>, pair: Pair) {
    // Another target topic.
    if pairs.last().is_some_and(|last| pair.1 < last.1) {
        pairs.clear();
    }
    pairs.push(pair);
    // Of the older half every second one goes.
    if pairs.len() > PAIRS {
        let mut at = 0;
        pairs.retain(|_| {
            at += 1;
            at % 2 == 1 || at > PAIRS / 2
        });
    }
}

/// Every pair of the topic in order that MirrorMaker 2 may have written; nothing where it does not exist. Strait's positions
/// are none of them: answers whether there are any.
pub(crate) async fn read_syncs(
    rt: &Runtime,
    routes: &Arc<Routes>,
    topic: &str,
    mut each: impl FnMut(FlowKey, Pair),
) -> Result<bool, FlowError> {
    let name = topic.to_owned();
    let metadata = routes.cluster().metadata(Some(std::slice::from_ref(&name)));
    let error = metadata.await?.topics.get(topic).map_or(3, |t| t.error);
    match error {
        0 => {}
        3 => return Ok(false),
        error => return Err(NetError::kafka(error, "Metadata", name).into()),
    }
    let reader = own_reader(rt, routes, topic, true);
    let mut positions = false;
    each_record(&reader, |record| {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        if has_position(record) {
            positions = true;
            return Ok(());
        }
        let sync = key
            .zip(value)
            .map(|(key, value)| OffsetSync::decode(key, value));
        if let Some(Ok(sync)) = sync {
            let OffsetSync {
                topic,
                partition,
                upstream,
                downstream,
            } = sync;
            each(FlowKey { topic, partition }, (upstream, downstream));
        }
        Ok(())
    })
    .await?;
    Ok(positions)
}

/// Every record up to the present end.
async fn each_record(
    reader: &PartitionReader,
    mut each: impl FnMut(&Record) -> Result<(), FlowError>,
) -> Result<(), FlowError> {
    let (start, end) = (reader.log_start().await?, reader.offset_at(-1).await?);
    let most = limits::DECODE_LEAST_BYTES;
    reader
        .each_batch(start, end, most, |batch| {
            for record in batch.records()? {
                each(&record)?;
            }
            Ok(true)
        })
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flushed(connector: &str, topic: &str, offset: Option<i64>) -> Mm2Offset {
        Mm2Offset {
            connector: connector.to_owned(),
            cluster: "a".to_owned(),
            topic: topic.to_owned(),
            partition: 0,
            offset,
        }
    }

    #[test]
    fn connectors_are_counted_and_only_topics_that_can_be_are_kept() {
        let mut offsets = Offsets::default();
        for (connector, offset) in [("x", Some(9)), ("y", Some(5)), ("x", Some(12)), ("y", None)] {
            offsets.take(flushed(connector, "t", offset)).unwrap();
        }
        let long = "t".repeat(LONGEST_TOPIC + 1);
        offsets.take(flushed("x", &long, Some(1))).unwrap();
        assert_eq!((offsets.kept, offsets.flows.len()), (1, 1));
        let positions = Mm2Positions {
            offsets: offsets.clone(),
            ..Mm2Positions::default()
        };
        let flow = FlowKey {
            topic: "t".to_owned(),
            partition: 0,
        };
        assert_eq!(positions.mirrored(&flow), Some(12));
        assert!((100..1_000).contains(&positions.bytes()));
        let taken = (0..=limits::MM2_CONNECTORS)
            .map(|n| offsets.take(flushed(&format!("c{n}"), "t", Some(1))))
            .find_map(Result::err);
        let why = taken.unwrap().to_string();
        assert!(why.contains("more than 1000 connectors"), "{why}");
    }

    #[test]
    fn of_many_pairs_some_are_kept_from_the_first_to_the_last() {
        let mut pairs = Vec::new();
        for at in 0..1_001 {
            keep_pair(&mut pairs, (at, at + 5));
        }
        assert!(
            pairs.len() <= PAIRS && pairs.len() >= PAIRS / 4,
            "{}",
            pairs.len()
        );
        assert_eq!((pairs[0], *pairs.last().unwrap()), ((0, 5), (1_000, 1_005)));
        // The target topic is another one.
        keep_pair(&mut pairs, (1_001, 3));
        assert_eq!(pairs, [(1_001, 3)]);
    }
}
