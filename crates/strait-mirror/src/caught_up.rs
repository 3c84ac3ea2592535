//! Whether a link has mirrored everything up to where its source ended at one moment, as its positions on the target tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_config::{Isolation, LinkConfig};
use strait_engine::tally::{Budget, Stretch, Tally};
use strait_engine::{FlowKey, KnownPosition, PositionTail, SessionError};
use strait_net::{AskEnds, Cluster, KafkaError, NetError, Runtime, TopicMetadata};
use strait_wire::{Position, PositionFlags};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::selection::active_topics::{Selected, selected};
use crate::selection::{SelectionError, StoredSelections};
use crate::translation::differ;

/// How long a position stands still before it is looked at whether anything lies between it and the end; and how long a topic
/// is not there before it counts as deleted.
const STANDS: Duration = Duration::from_secs(2);
/// How many offsets may lie between for that, and what one look may read of them, in bytes.
const LITTLE: (i64, u64) = (100_000, 8 << 20);
/// How long one look may read.
const LOOK_FOR: Duration = Duration::from_secs(5);
/// Partitions that are read side by side.
const READ_AT_ONCE: usize = 8;

/// A partition that is not mirrored up to the end yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The partition of the source.
    pub flow: FlowKey,
    /// The offsets that its last position lacks; none where the end is not known.
    pub offsets: Option<i64>,
    /// Why, where it is more than that.
    pub why: Option<String>,
    /// It never catches up: what it lacks is gone from the source.
    pub never: bool,
}

/// What a partition has to reach.
#[derive(Debug)]
struct Goal {
    target_topic: String,
    start: i64,
    /// Why it is not known, as long as its leader does not tell.
    end: Result<i64, String>,
    /// Since when the position stands where it stands, and what was found between it and the end: whether that is nothing
    /// that is mirrored.
    stands: Option<(i64, Instant, Option<bool>)>,
}

/// The goals of one link: the ends of the partitions that it mirrors, as they stood when they were first told.
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
    /// The source's topics that are to catch up, as they were at the beginning; none before that.
    topics: Option<BTreeMap<String, TopicMetadata>>,
    /// Topics that the source did not have any more at the last look, since when.
    missing: BTreeMap<String, Instant>,
    /// What is to catch up, that which has included.
    flows: BTreeSet<FlowKey>,
    refused: Vec<(String, String)>,
    open: usize,
    as_of_ms: i64,
}

impl CatchUp {
    /// Of this link. Needs Describe on the selected topics of the source, and on the target what [`StoredSelections`] and
    /// [`PositionTail`] need. Nothing is asked before the first look, and nothing is ever written.
    pub fn new(rt: &Runtime, link: &LinkConfig, source: Cluster, target: Cluster) -> Self {
        Self {
            rt: rt.clone(),
            link: link.clone(),
            tail: PositionTail::new(rt, target.clone(), source.alias()),
            tally: Tally::new(rt.clone(), source.clone(), target.clone()),
            source,
            target,
            positions: BTreeMap::new(),
            goals: BTreeMap::new(),
            topics: None,
            missing: BTreeMap::new(),
            flows: BTreeSet::new(),
            refused: Vec::new(),
            open: 0,
            as_of_ms: 0,
        }
    }

    /// Whether it is known what is to catch up.
    pub fn begun(&self) -> bool {
        self.topics.is_some()
    }

    /// When the source was asked for that, in milliseconds since 1970-01-01 UTC.
    pub fn as_of_ms(&self) -> i64 {
        self.as_of_ms
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

    /// The partitions that have not caught up yet, as the positions on the target tell now. A broker is given `patience` to
    /// tell the ends of its partitions, and one that does not answer is named with these.
    ///
    /// # Errors
    /// A cluster cannot be reached at all; the selection or the positions cannot be read.
    pub async fn look(&mut self, patience: Duration) -> Result<Vec<Behind>, SelectionError> {
        let begun = self.topics.is_some();
        if !begun {
            self.begin().await?;
        }
        self.ask_ends(patience).await;
        let positions = &mut self.positions;
        self.tail
            .read(|flow, known| {
                positions.insert(flow, known);
            })
            .await?;
        let mut gone = BTreeMap::new();
        if begun {
            gone = self.gone().await?;
        }
        self.read_between().await;
        let mut behind = Vec::new();
        let mut reached = Vec::new();
        for (flow, goal) in &mut self.goals {
            let topics = self.topics.as_ref();
            let topic = topics.and_then(|topics| topics.get(&flow.topic));
            let position = self.positions.get(flow);
            let lacks = judge(&self.link.name, (flow, topic), goal, position);
            match (lacks, gone.get(&flow.topic)) {
                (None, _) => reached.push(flow.clone()),
                (Some(lacks), None) => behind.push(lacks),
                (Some(lacks), Some(why)) => behind.push(Behind {
                    why: Some(why.clone()),
                    never: true,
                    ..lacks
                }),
            }
        }
        behind.extend(self.lost(&reached, patience).await);
        let left: BTreeSet<&FlowKey> = behind.iter().map(|b| &b.flow).collect();
        self.goals.retain(|flow, _| left.contains(flow));
        behind.sort_by(|a, b| a.flow.cmp(&b.flow));
        Ok(behind)
    }

    /// Finds what is to catch up.
    async fn begin(&mut self) -> Result<(), SelectionError> {
        let net = |error: NetError| SelectionError::Registry(SessionError::Net(error));
        let as_of_ms = self.rt.wall_ms();
        // Whether the source is there at all is told first.
        let mut found = self.source.metadata(None).await.map_err(net)?;
        let mut stored = StoredSelections::new(self.rt.clone(), self.target.clone());
        stored.refresh().await?;
        let topics = stored.topics(&self.link)?;
        let Selected { chosen, refused } = selected(&self.link, &topics, &found);
        let mut own = BTreeMap::new();
        for (topic, target_topic) in chosen {
            let Some(metadata) = found.topics.remove(&topic) else {
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
                    end: Err("it was not asked yet".to_owned()),
                    stands: None,
                };
                self.goals.insert(flow, goal);
            }
            own.insert(topic, metadata);
        }
        self.flows = self.goals.keys().cloned().collect();
        self.refused = refused;
        self.as_of_ms = as_of_ms;
        self.topics = Some(own);
        Ok(())
    }

    /// Asks for the ends that are not known yet.
    async fn ask_ends(&mut self, patience: Duration) {
        let unknown = self.goals.iter().filter(|(_, goal)| goal.end.is_err());
        let places: BTreeSet<(String, i32)> = unknown
            .map(|(flow, _)| (flow.topic.clone(), flow.partition))
            .collect();
        if places.is_empty() {
            return;
        }
        let ask = |committed| AskEnds {
            committed,
            within: patience,
        };
        let committed = self.link.isolation == Isolation::ReadCommitted;
        // The marks first: a stable offset below one that was told before is held back by a transaction.
        let mut marks = match committed {
            true => self.source.log_ends_as(&places, ask(false)).await,
            false => BTreeMap::new(),
        };
        let ends = self.source.log_ends_as(&places, ask(committed)).await;
        for ((topic, partition), found) in ends {
            let key = (topic, partition);
            let mark = marks.remove(&key);
            let (topic, partition) = key;
            let Some(goal) = self.goals.get_mut(&FlowKey { topic, partition }) else {
                continue;
            };
            match found {
                Ok((start, end)) => {
                    (goal.start, goal.end) = (start, Ok(end));
                    let open = matches!(mark, Some(Ok((_, mark))) if mark > end);
                    self.open += usize::from(open);
                }
                Err(error) => goal.end = Err(error.to_string()),
            }
        }
    }

    /// The topics of those that are behind which were deleted since the beginning, and what is told of that.
    async fn gone(&mut self) -> Result<BTreeMap<String, String>, SelectionError> {
        let net = |error: NetError| SelectionError::Registry(SessionError::Net(error));
        let Some(topics) = &self.topics else {
            return Ok(BTreeMap::new());
        };
        let names: BTreeSet<&String> = self.goals.keys().map(|flow| &flow.topic).collect();
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let names: Vec<String> = names.into_iter().cloned().collect();
        let now = self
            .source
            .metadata(Some(&names))
            .await
            .map_err(net)?
            .topics;
        let at = self.rt.now();
        let mut gone = BTreeMap::new();
        for name in names {
            let found = now.get(&name);
            let there =
                found.is_none_or(|t| KafkaError(t.error) != KafkaError::UNKNOWN_TOPIC_OR_PARTITION);
            if there {
                self.missing.remove(&name);
                let (was, is) = (topics.get(&name), found.filter(|t| t.error == 0));
                if was.zip(is).is_some_and(|(was, is)| differ(&was.id, &is.id)) {
                    let why = "the source topic was deleted and created anew since this began: what it held then is gone; begin again to wait for the new one";
                    gone.insert(name, why.to_owned());
                }
                continue;
            }
            // One broker may not know it for a moment.
            let since = *self.missing.entry(name.clone()).or_insert(at);
            if at.saturating_duration_since(since) >= STANDS {
                let why = "the source topic was deleted since this began: what was not mirrored of it is gone";
                gone.insert(name, why.to_owned());
            }
        }
        Ok(gone)
    }

    /// Looks at what lies between positions that stand still and the ends, some side by side: a mirror that runs writes the
    /// position behind markers too, a moment later.
    async fn read_between(&mut self) {
        let now = self.rt.now();
        let budget = Arc::new(Budget::new(&self.rt, LITTLE.1, LOOK_FOR));
        let mut jobs = JoinSet::new();
        let mut found = Vec::new();
        for (flow, goal) in &mut self.goals {
            let Some(KnownPosition::Strait(position)) = self.positions.get(flow) else {
                continue;
            };
            let next = position.source_next;
            let Ok(end) = &goal.end else { continue };
            if position.link != self.link.name {
                continue;
            }
            let may = match goal.stands {
                Some((at, since, None)) if at == next => {
                    now.saturating_duration_since(since) >= STANDS
                }
                Some((at, _, Some(_))) if at == next => false,
                _ => {
                    goal.stands = Some((next, now, None));
                    false
                }
            };
            if !may || next >= *end || end - next > LITTLE.0 {
                continue;
            }
            if jobs.len() >= READ_AT_ONCE
                && let Some(Ok(done)) = jobs.join_next().await
            {
                found.push(done);
            }
            if budget.spent() {
                break;
            }
            let (tally, budget) = (self.tally.clone(), budget.clone());
            let (flow, position, end) = (flow.clone(), position.clone(), *end);
            jobs.spawn(async move {
                let nothing = nothing_between(&tally, &flow, &position, end, &budget).await;
                (flow, next, nothing)
            });
        }
        while let Some(done) = jobs.join_next().await {
            found.extend(done);
        }
        // What could not be read is looked at again, behind the others.
        let now = self.rt.now();
        for (flow, next, nothing) in found {
            if let Some(goal) = self.goals.get_mut(&flow) {
                goal.stands = Some((next, now, nothing));
            }
        }
    }

    /// Those whose position has reached the end, and whose records the target has lost since.
    async fn lost(&self, reached: &[FlowKey], patience: Duration) -> Vec<Behind> {
        let of = |flow: &FlowKey| match self.positions.get(flow) {
            Some(KnownPosition::Strait(position)) => Some(position),
            _ => None,
        };
        let places: BTreeSet<(String, i32)> = reached
            .iter()
            .filter_map(of)
            .map(|p| (p.target_topic.clone(), p.target_partition))
            .collect();
        if places.is_empty() {
            return Vec::new();
        }
        let topics: BTreeSet<&String> = places.iter().map(|(topic, _)| topic).collect();
        let topics: Vec<String> = topics.into_iter().cloned().collect();
        let ask = AskEnds {
            committed: false,
            within: patience,
        };
        let (found, ends) = tokio::join!(
            self.target.metadata(Some(&topics)),
            self.target.log_ends_as(&places, ask)
        );
        let lost = |flow: &FlowKey| -> Option<Behind> {
            let position = of(flow)?;
            let key = (position.target_topic.clone(), position.target_partition);
            let topic = found
                .as_ref()
                .ok()
                .and_then(|found| found.topics.get(&key.0));
            let anew = topic.is_some_and(|t| differ(&position.target_topic_id, &t.id));
            let untold = |why: &NetError| format!("the target does not tell its end: {why}");
            let why = match (&found, ends.get(&key)) {
                (Err(error), _) | (_, Some(Err(error))) => untold(error),
                (_, None) => "the target does not tell its end".to_owned(),
                _ if anew => "the target topic was re-created since".to_owned(),
                (_, Some(Ok((_, end)))) if *end < position.target_next => {
                    "the target has lost records that it had acknowledged".to_owned()
                }
                _ => return None,
            };
            Some(Behind {
                flow: flow.clone(),
                offsets: None,
                why: Some(why),
                never: false,
            })
        };
        reached.iter().filter_map(lost).collect()
    }
}

/// What a partition lacks; nothing where its position has reached the end.
fn judge(
    link: &str,
    (flow, topic): (&FlowKey, Option<&TopicMetadata>),
    goal: &Goal,
    position: Option<&KnownPosition>,
) -> Option<Behind> {
    let behind = |offsets, why: Option<String>| {
        Some(Behind {
            flow: flow.clone(),
            offsets,
            why,
            never: false,
        })
    };
    let end = match &goal.end {
        Ok(end) => *end,
        Err(why) => {
            return behind(
                None,
                Some(format!("its end on the source is not known: {why}")),
            );
        }
    };
    let all = end - goal.start;
    let position = match position {
        None if all == 0 => return None,
        None => {
            let why = "the link has no position for it yet";
            return behind(Some(all), Some(why.to_owned()));
        }
        Some(KnownPosition::Strait(position)) if position.link == link => position,
        Some(KnownPosition::Strait(position)) => {
            let why = format!("its position belongs to link {}", position.link);
            return behind(None, Some(why));
        }
        Some(KnownPosition::MirrorMaker2) => {
            let why = "its last position was written by MirrorMaker 2";
            return behind(None, Some(why.to_owned()));
        }
        Some(KnownPosition::Unreadable(why)) => {
            let why = format!("its last position cannot be read: {why}");
            return behind(None, Some(why));
        }
    };
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
    let nothing = matches!(goal.stands, Some((at, _, Some(true))) if at == next);
    if next >= end || nothing {
        return None;
    }
    behind(Some(end - next), None)
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
