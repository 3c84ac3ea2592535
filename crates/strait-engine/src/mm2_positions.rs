//! What MirrorMaker 2 left on both clusters: how far it came, and whether it still runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strait_net::{Cluster, KafkaError, NetError, Runtime};
use strait_wire::{Isolation, Mm2Offset, OffsetSync};
use tracing::debug;

use crate::error::FlowError;
use crate::internal_log::own_reader;
use crate::limits;
use crate::partition::PartitionReader;
use crate::routes::Routes;
use crate::spec::{FlowKey, Takeover};
use crate::syncs_topic::{SEPARATOR, holds_positions, syncs_topic};

/// Pairs of one flow that are remembered.
const PAIRS: usize = 64;
/// The longest name that a topic can have.
const LONGEST_TOPIC: usize = 249;

/// Source and target offsets of one record.
pub type Pair = (i64, i64);

/// How far MirrorMaker 2 came, by what it wrote itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mm2Positions {
    offsets: Offsets,
    /// Of each flow the last sync of a topic, and of several topics the one further on.
    pairs: BTreeMap<FlowKey, Pair>,
    /// Why there are none.
    pairs_unread: Option<String>,
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
    pub fn reaches(&self, flow: &FlowKey) -> Option<i64> {
        let mirrored = self.mirrored(flow);
        let last = mirrored.max(self.pair(flow).map(|pair| pair.0))?;
        Some(last.saturating_add(1))
    }

    /// One record of the flow on both sides, the last that it told of on the source.
    pub(crate) fn pair(&self, flow: &FlowKey) -> Option<Pair> {
        self.pairs.get(flow).copied()
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        let flows = self.offsets.flows.keys().chain(self.pairs.keys());
        // With what the trees and the allocator add.
        let flows = flows.map(|flow| flow.topic.len() + 96);
        let connectors = self.offsets.connectors.keys().map(|name| name.len() + 64);
        flows.chain(connectors).sum::<usize>() + self.offsets.kept * 16
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
        if let Err(error) = read.await {
            let error = unreadable(on.cluster(), &topic, &error);
            found.pairs_unread.get_or_insert(error.to_string());
        }
        for (flow, pair) in pairs {
            let known = found.pairs.entry(flow).or_insert(pair);
            if pair.1 > known.1 {
                *known = pair;
            }
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
        each_record(&reader, |key, value| {
            let Some(found) = Mm2Offset::decode(key, value).filter(|o| o.cluster == alias) else {
                return Ok(());
            };
            offsets.take(found)
        })
        .await?;
    }
    Ok(())
}

/// MirrorMaker 2's offset syncs on both clusters, under names with this separator or its default one, for these flows, in the order of their target offsets, 64 of each at the
/// most. What lies at or above the target offset of a flow was written by Strait, which took over there, and is none of
/// them. Clusters that hide theirs have none.
pub async fn read_mm2_pairs(
    rt: &Runtime,
    source: Cluster,
    target: Cluster,
    separator: &str,
    taken_at: &BTreeMap<FlowKey, i64>,
) -> BTreeMap<FlowKey, Vec<Pair>> {
    let mut all = BTreeMap::new();
    let mut topics = Vec::new();
    for separator in BTreeSet::from([SEPARATOR, separator]) {
        for (on, other) in [(&source, &target), (&target, &source)] {
            topics.push((on.clone(), syncs_topic(separator, other.alias())));
        }
    }
    for (cluster, topic) in topics {
        let routes = Arc::new(Routes::new(rt.clone(), cluster));
        let mut pairs: BTreeMap<FlowKey, Vec<Pair>> = BTreeMap::new();
        let read = read_syncs(rt, &routes, &topic, |flow, pair| {
            let Some(&taken_at) = taken_at.get(&flow) else {
                return;
            };
            if pair.0 < 0 || pair.1 < 0 {
                pairs.remove(&flow);
            } else if pair.1 < taken_at {
                keep_pair(pairs.entry(flow).or_default(), pair);
            }
        });
        if let Err(error) = read.await {
            debug!(%topic, "cannot read offset syncs: {error}");
        }
        for (flow, found) in pairs {
            all.entry(flow).or_insert_with(Vec::new).extend(found);
        }
    }
    for pairs in all.values_mut() {
        pairs.sort_by_key(|pair| (pair.1, pair.0));
    }
    all
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

/// Every pair of the topic in order; nothing where it does not exist.
pub(crate) async fn read_syncs(
    rt: &Runtime,
    routes: &Arc<Routes>,
    topic: &str,
    mut each: impl FnMut(FlowKey, Pair),
) -> Result<(), FlowError> {
    let name = topic.to_owned();
    let metadata = routes.cluster().metadata(Some(std::slice::from_ref(&name)));
    let error = metadata.await?.topics.get(topic).map_or(3, |t| t.error);
    match error {
        0 => {}
        3 => return Ok(()),
        error => return Err(NetError::kafka(error, "Metadata", name).into()),
    }
    let reader = own_reader(rt, routes, topic, true);
    each_record(&reader, |key, value| {
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
    .await
}

/// Key and value of every record up to the present end.
async fn each_record(
    reader: &PartitionReader,
    mut each: impl FnMut(Option<&[u8]>, Option<&[u8]>) -> Result<(), FlowError>,
) -> Result<(), FlowError> {
    let (start, end) = (reader.log_start().await?, reader.offset_at(-1).await?);
    let most = limits::DECODE_LEAST_BYTES;
    reader
        .each_batch(start, end, most, |batch| {
            for record in batch.records()? {
                each(record.key.as_deref(), record.value.as_deref())?;
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
