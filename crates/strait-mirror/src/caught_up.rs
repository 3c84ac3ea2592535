//! Whether a link has mirrored everything up to where its source ended at one moment, as its positions on the target tell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use strait_config::{Isolation, LinkConfig};
use strait_engine::tally::{Budget, Stretch, Tally};
use strait_engine::{FlowKey, KnownPosition, PositionTail, SessionError};
use strait_net::{Cluster, NetError, Runtime, TopicMetadata};
use strait_wire::{Position, PositionFlags};
use tokio::time::Instant;

use crate::active_topics::{Selected, selected};
use crate::plan::{END, START, offsets, partitions};
use crate::stored_selection::{SelectionError, StoredSelections};
use crate::translation::differ;

/// How long a position stands still before it is looked at whether anything lies between it and the end.
const STANDS: Duration = Duration::from_secs(2);
/// How many offsets may lie between for that, and what one look may read of them, in bytes.
const LITTLE: (i64, u64) = (100_000, 8 << 20);
/// How long one look may read.
const LOOK_FOR: Duration = Duration::from_secs(5);

/// A partition that is not mirrored up to the end yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The partition of the source.
    pub flow: FlowKey,
    /// The offsets that its last position lacks; none where the end is not known.
    pub offsets: Option<i64>,
    /// Why, where it is more than that.
    pub why: Option<String>,
}

/// What a partition has to reach.
#[derive(Debug)]
struct Goal {
    target_topic: String,
    start: i64,
    /// None as long as its leader does not tell.
    end: Option<i64>,
    /// What was looked at of the way between the position and the end.
    looked: Option<(i64, Instant, bool)>,
}

/// The goals of one link: the ends of the partitions that it mirrors, as they stood when it was begun.
#[derive(Debug)]
pub struct CatchUp {
    rt: Runtime,
    link: LinkConfig,
    source: Cluster,
    target: Cluster,
    tail: PositionTail,
    tally: Tally,
    positions: BTreeMap<FlowKey, KnownPosition>,
    goals: BTreeMap<FlowKey, Goal>,
    /// The source's topics, as they were at the beginning.
    topics: BTreeMap<String, TopicMetadata>,
    /// What is to catch up, that which has included.
    flows: BTreeSet<FlowKey>,
    refused: Vec<(String, String)>,
    open: usize,
}

impl CatchUp {
    /// Asks the source for the ends, as the link's isolation shows them. Needs Describe on the topics there, and on the
    /// target what [`StoredSelections`] and [`PositionTail`] need. Writes nothing.
    ///
    /// # Errors
    /// A cluster cannot be reached, or the selection cannot be read.
    pub async fn begin(
        rt: &Runtime,
        link: &LinkConfig,
        source: Cluster,
        target: Cluster,
    ) -> Result<Self, SelectionError> {
        let net = |error: NetError| SelectionError::Registry(SessionError::Net(error));
        // Whether the source is there at all is told first.
        let found = source.metadata(None).await.map_err(net)?;
        let mut stored = StoredSelections::new(rt.clone(), target.clone());
        stored.refresh().await?;
        let topics = stored.topics(link)?;
        let mut goals = BTreeMap::new();
        let Selected { chosen, refused } = selected(link, &topics, &found);
        for (topic, target_topic) in chosen {
            let Some(metadata) = found.topics.get(&topic) else {
                continue;
            };
            for &partition in metadata.partitions.keys() {
                let flow = FlowKey {
                    topic: topic.clone(),
                    partition,
                };
                let goal = Goal {
                    target_topic: target_topic.clone(),
                    start: 0,
                    end: None,
                    looked: None,
                };
                goals.insert(flow, goal);
            }
        }
        let mut begun = Self {
            rt: rt.clone(),
            link: link.clone(),
            tail: PositionTail::new(rt, target.clone(), source.alias()),
            tally: Tally::new(rt.clone(), source.clone(), target.clone()),
            source,
            target,
            positions: BTreeMap::new(),
            flows: goals.keys().cloned().collect(),
            refused,
            goals,
            topics: found.topics,
            open: 0,
        };
        begun.ask_ends().await.map_err(net)?;
        Ok(begun)
    }

    /// The partitions that are to catch up, those that have included.
    pub fn partitions(&self) -> usize {
        self.flows.len()
    }

    /// The same, one by one.
    pub fn flows(&self) -> &BTreeSet<FlowKey> {
        &self.flows
    }

    /// Topics that are selected and that the link cannot mirror, each with why: they never catch up.
    pub fn refused(&self) -> &[(String, String)] {
        &self.refused
    }

    /// Partitions in which a transaction was open: what is in it is mirrored when it is committed.
    pub fn open_transactions(&self) -> usize {
        self.open
    }

    /// The partitions that have not caught up yet, as the positions on the target tell now.
    ///
    /// # Errors
    /// The target cannot be reached; the source, where it is still to be asked.
    pub async fn look(&mut self) -> Result<Vec<Behind>, SessionError> {
        self.ask_ends().await?;
        let positions = &mut self.positions;
        self.tail
            .read(|flow, known| {
                positions.insert(flow, known);
            })
            .await?;
        let mut behind = Vec::new();
        let mut reached = Vec::new();
        let flows: Vec<FlowKey> = self.goals.keys().cloned().collect();
        let budget = Budget::new(&self.rt, LITTLE.1, LOOK_FOR);
        for flow in flows {
            match self.judge(&flow, &budget).await {
                Some(one) => behind.push(one),
                None => reached.push(flow),
            }
        }
        behind.extend(self.lost(&reached).await?);
        let left: BTreeSet<&FlowKey> = behind.iter().map(|b| &b.flow).collect();
        self.goals.retain(|flow, _| left.contains(flow));
        behind.sort_by(|a, b| a.flow.cmp(&b.flow));
        Ok(behind)
    }

    async fn ask_ends(&mut self) -> Result<(), NetError> {
        let unknown = self.goals.iter().filter(|(_, goal)| goal.end.is_none());
        let mut topics: Vec<String> = unknown.map(|(flow, _)| flow.topic.clone()).collect();
        topics.dedup();
        if topics.is_empty() {
            return Ok(());
        }
        let found = self.source.metadata(Some(&topics)).await?;
        let all = partitions(&found, &topics);
        let (rt, source, seen) = (&self.rt, &self.source, self.link.isolation);
        let starts = offsets(rt, source, &found, &all, START, seen).await;
        let ends = offsets(rt, source, &found, &all, END, seen).await;
        let marks = match seen {
            Isolation::ReadCommitted => {
                offsets(rt, source, &found, &all, END, Isolation::ReadUncommitted).await
            }
            Isolation::ReadUncommitted => BTreeMap::new(),
        };
        for (flow, goal) in &mut self.goals {
            let key = (flow.topic.clone(), flow.partition);
            if goal.end.is_none()
                && let (Some(&start), Some(&end)) = (starts.get(&key), ends.get(&key))
            {
                (goal.start, goal.end) = (start, Some(end));
                self.open += usize::from(marks.get(&key).is_some_and(|mark| *mark > end));
            }
        }
        Ok(())
    }

    /// What a partition lacks; nothing where its position has reached the end.
    async fn judge(&mut self, flow: &FlowKey, budget: &Budget) -> Option<Behind> {
        let goal = self.goals.get_mut(flow)?;
        let behind = |offsets, why: Option<String>| {
            Some(Behind {
                flow: flow.clone(),
                offsets,
                why,
            })
        };
        let Some(end) = goal.end else {
            let why = "its end on the source is not known: it has no leader there, or its broker does not answer";
            return behind(None, Some(why.to_owned()));
        };
        let all = end - goal.start;
        let position = match self.positions.get(flow) {
            None if all == 0 => return None,
            None => {
                let why = "the link has no position for it yet";
                return behind(Some(all), Some(why.to_owned()));
            }
            Some(KnownPosition::Strait(position)) if position.link == self.link.name => position,
            Some(KnownPosition::Strait(position)) => {
                let why = format!("its position belongs to link {}", position.link);
                return behind(None, Some(why));
            }
            Some(KnownPosition::MirrorMaker2) => {
                let why = "its last position was written by MirrorMaker 2";
                return behind(None, Some(why.to_owned()));
            }
            Some(KnownPosition::Unreadable(why)) => {
                return behind(
                    None,
                    Some(format!("its last position cannot be read: {why}")),
                );
            }
        };
        let topic = self.topics.get(&flow.topic);
        if topic.is_some_and(|t| differ(&position.source_topic_id, &t.id)) {
            let why = "the source topic was re-created, and nothing of the new one is mirrored yet";
            return behind(Some(all), Some(why.to_owned()));
        }
        if position.target_topic != goal.target_topic {
            let why = format!(
                "its position stands for {} on the target",
                position.target_topic
            );
            return behind(None, Some(why));
        }
        let next = position.source_next;
        if next >= end {
            return None;
        }
        // A mirror that runs writes the position behind markers too, a moment later.
        let now = self.rt.now();
        match goal.looked {
            Some((at, since, looked)) if at == next => {
                let may = !looked && now.saturating_duration_since(since) >= STANDS;
                if may && end - next <= LITTLE.0 && !budget.spent() {
                    let nothing = nothing_between(&self.tally, flow, position, end, budget).await;
                    if nothing == Some(true) {
                        return None;
                    }
                    // What could not be read is looked at again.
                    goal.looked = Some((next, since, nothing.is_some()));
                }
            }
            _ => goal.looked = Some((next, now, false)),
        }
        behind(Some(end - next), None)
    }

    /// Those whose position has reached the end, and whose records the target has lost since.
    async fn lost(&self, reached: &[FlowKey]) -> Result<Vec<Behind>, SessionError> {
        let mut topics = Vec::from_iter(reached.iter().filter_map(|flow| {
            matches!(self.positions.get(flow)?, KnownPosition::Strait(_))
                .then(|| self.goals.get(flow).map(|goal| goal.target_topic.clone()))?
        }));
        topics.dedup();
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.target.metadata(Some(&topics)).await?;
        let all = partitions(&found, &topics);
        let isolation = Isolation::ReadUncommitted;
        let ends = offsets(&self.rt, &self.target, &found, &all, END, isolation).await;
        let lost = |flow: &FlowKey| -> Option<Behind> {
            let Some(KnownPosition::Strait(position)) = self.positions.get(flow) else {
                return None;
            };
            let key = (position.target_topic.clone(), position.target_partition);
            let topic = found.topics.get(&key.0);
            let anew = topic.is_some_and(|t| differ(&position.target_topic_id, &t.id));
            let why = match ends.get(&key) {
                None => "the target does not tell the end of its partition",
                Some(_) if anew => "the target topic was re-created since",
                Some(end) if *end < position.target_next => {
                    "the target has lost records that it had acknowledged"
                }
                Some(_) => return None,
            };
            Some(Behind {
                flow: flow.clone(),
                offsets: None,
                why: Some(why.to_owned()),
            })
        };
        Ok(reached.iter().filter_map(lost).collect())
    }
}

/// Whether what lies between a position and the end holds no record that is mirrored: markers, and what was aborted; nothing
/// where that could not be read.
async fn nothing_between(
    tally: &Tally,
    flow: &FlowKey,
    position: &Position,
    end: i64,
    budget: &Budget,
) -> Option<bool> {
    // Which records others have brought there is not told by reading.
    if position.flags.contains(PositionFlags::PROVENANCE) {
        return Some(false);
    }
    let stretch = Stretch {
        flow,
        isolation: position.isolation,
        compacted: position.flags.contains(PositionFlags::COMPACTED),
        from: position.source_next,
        to: end,
    };
    let counted = tally.count(&stretch, &[], budget).await;
    let (records, _) = counted.ok()??.all?;
    Some(records == 0)
}
