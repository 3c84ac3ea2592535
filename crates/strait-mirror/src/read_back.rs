//! The way back: up to which offset of the source a group has read, by what it has committed on the target.

use std::collections::{BTreeMap, BTreeSet};

use strait_config::LinkConfig;
use strait_engine::{FlowKey, KnownPosition, PositionTail, read_ladders};
use strait_net::{Cluster, KafkaError, Runtime, TopicMetadata};
use strait_wire::{Position, SyncKind};
use uuid::Uuid;

use crate::groups::one_look::committed;
use crate::mirror::MirrorError;
use crate::translation::differ;

/// One commit of a group on the target, as an offset of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBack {
    /// The partition of the source.
    pub flow: FlowKey,
    /// The topic on the target.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// What the group has committed there.
    pub committed: i64,
    /// The source's offset: every record below it is one that the group has read there, or one that is not mirrored.
    pub offset: i64,
    /// Whether it is no lower than it could be.
    pub exact: bool,
    /// What the group has committed on the source, if anything.
    pub on_source: Option<i64>,
}

/// What a group has read, and commits of which that cannot be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Back {
    /// By partition of the source.
    pub read: Vec<ReadBack>,
    /// Partitions of the target that the group has committed on, each with why nothing is told of it.
    pub left_out: Vec<(FlowKey, String)>,
}

/// A position that a flow has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rung {
    source: i64,
    target: i64,
    forwarded: i64,
}

/// What is known of one flow, the oldest first.
#[derive(Debug)]
struct Passed {
    rungs: Vec<Rung>,
    last: Box<Position>,
    /// Its history is known from its beginning: nothing older belongs to it.
    anew: bool,
}

/// What a group has read on the target of the topics that the link has mirrored, as offsets of the source; by partition. Needs
/// on both clusters Describe on the group, and on the target Describe and Read on the link's positions there. Writes nothing.
///
/// # Errors
/// A cluster cannot be reached, or does not tell.
pub async fn read_back(
    rt: &Runtime,
    link: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    group: &str,
) -> Result<Back, MirrorError> {
    let mut flows: BTreeMap<FlowKey, Passed> = BTreeMap::new();
    let mut tail = PositionTail::new(rt, target.clone(), source.alias());
    tail.read(|flow, known| match known {
        KnownPosition::Strait(position) if position.link == link.name => {
            pass(&mut flows, flow, position);
        }
        _ => {
            flows.remove(&flow);
        }
    })
    .await?;
    for (flow, (_, newest_first)) in read_ladders(rt, target.clone(), &link.name).await? {
        if let Some(passed) = flows.get_mut(&flow) {
            passed.before(&newest_first);
        }
    }
    let here = committed(rt, source, group).await?;
    let there = committed(rt, target, group).await?;
    let (mut sources, mut targets) = (BTreeSet::new(), BTreeSet::new());
    for (flow, passed) in &flows {
        sources.insert(flow.topic.clone());
        targets.insert(passed.last.target_topic.clone());
    }
    let mut found = Back::default();
    if flows.is_empty() {
        return Ok(found);
    }
    let ask = |names: BTreeSet<String>| names.into_iter().collect::<Vec<String>>();
    let (sources, targets) = (ask(sources), ask(targets));
    let (on_source, on_target) = tokio::try_join!(
        source.metadata(Some(&sources)),
        target.metadata(Some(&targets))
    )?;
    for (flow, passed) in flows {
        let last = &passed.last;
        let place = (last.target_topic.clone(), last.target_partition);
        let Some(committed) = there.get(&place).map(|c| c.offset) else {
            continue;
        };
        let other = |name: &str, now: Option<&TopicMetadata>, id: Uuid, cluster: &Cluster| {
            let alias = cluster.alias();
            match now {
                Some(t) if t.error == 0 && differ(&t.id, &id) => Some(format!(
                    "topic {name} on cluster {alias} is not the one that the link's positions speak of: it was created anew since"
                )),
                Some(t) if t.error == 0 => None,
                Some(t) => Some(format!(
                    "cluster {alias} answers {} for topic {name}",
                    KafkaError(t.error)
                )),
                None => Some(format!("cluster {alias} tells nothing of topic {name}")),
            }
        };
        let (here_now, there_now) = (
            on_source.topics.get(&flow.topic),
            on_target.topics.get(&place.0),
        );
        let why = other(&place.0, there_now, last.target_topic_id, target)
            .or_else(|| other(&flow.topic, here_now, last.source_topic_id, source));
        let told = match why {
            Some(why) => Err(why),
            None => below(&passed.rungs, committed).ok_or_else(|| {
                format!("offset {committed} lies before all positions of the link that are left")
            }),
        };
        match told {
            Ok((offset, exact)) => {
                let on_source = here.get(&(flow.topic.clone(), flow.partition));
                found.read.push(ReadBack {
                    on_source: on_source.map(|c| c.offset),
                    flow,
                    topic: place.0,
                    partition: place.1,
                    committed,
                    offset,
                    exact,
                });
            }
            Err(why) => {
                let (topic, partition) = place;
                found.left_out.push((FlowKey { topic, partition }, why));
            }
        }
    }
    Ok(found)
}

fn pass(flows: &mut BTreeMap<FlowKey, Passed>, flow: FlowKey, position: Box<Position>) {
    let rung = Rung {
        source: position.source_next,
        target: position.target_next,
        forwarded: position.forwarded,
    };
    let turns = matches!(position.kind, SyncKind::Rebase | SyncKind::Takeover);
    match flows.get_mut(&flow) {
        None => {
            let passed = Passed {
                rungs: vec![rung],
                anew: turns || position.forwarded == 0,
                last: position,
            };
            flows.insert(flow, passed);
        }
        Some(passed) => {
            if turns || !passed.follows(&rung, &position) {
                passed.rungs.clear();
                passed.anew = true;
            }
            passed.rungs.push(rung);
            passed.last = position;
        }
    }
}

impl Passed {
    fn follows(&self, rung: &Rung, position: &Position) -> bool {
        let last = &self.last;
        let on = self.rungs.last().is_none_or(|last| {
            rung.source >= last.source
                && rung.target >= last.target
                && rung.forwarded >= last.forwarded
        });
        on && position.target_topic == last.target_topic
            && !differ(&position.source_topic_id, &last.source_topic_id)
            && !differ(&position.target_topic_id, &last.target_topic_id)
    }

    /// Puts what was kept for long before what is known.
    fn before(&mut self, newest_first: &[(i64, i64, i64)]) {
        let Some(&first) = self.rungs.first().filter(|_| !self.anew) else {
            return;
        };
        let mut rungs = older(first, newest_first);
        rungs.append(&mut self.rungs);
        self.rungs = rungs;
    }
}

/// Those of a history that lead to `first`, the oldest first.
fn older(first: Rung, newest_first: &[(i64, i64, i64)]) -> Vec<Rung> {
    let mut older: Vec<Rung> = Vec::new();
    for &(source, target, forwarded) in newest_first {
        let next = older.last().copied().unwrap_or(first);
        if source <= next.source && target <= next.target && forwarded <= next.forwarded {
            older.push(Rung {
                source,
                target,
                forwarded,
            });
        }
    }
    older.reverse();
    older
}

/// The source offset below which everything was read by who has read the target below `committed`, and whether it could not be
/// higher; nothing where that lies before all that is known.
fn below(rungs: &[Rung], committed: i64) -> Option<(i64, bool)> {
    let next = rungs.partition_point(|rung| rung.target <= committed);
    let rung = rungs.get(next.checked_sub(1)?)?;
    let read = committed - rung.target;
    let Some(above) = rungs.get(next) else {
        // What was forwarded behind the last position is not known.
        return Some((rung.source, read == 0));
    };
    let forwarded = above.forwarded - rung.forwarded;
    // Markers and records of others, all of which may stand below.
    let others = (above.target - rung.target) - forwarded;
    let records = (read - others).clamp(0, forwarded);
    let dense = others == 0 && above.source - rung.source == forwarded;
    Some((rung.source + records, dense || read == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where commits on the target lie on the source, between these positions: source, target, forwarded.
    fn back(positions: &[(i64, i64, i64)], committed: &[i64]) -> Vec<Option<(i64, bool)>> {
        let rung = |&(source, target, forwarded): &(i64, i64, i64)| Rung {
            source,
            target,
            forwarded,
        };
        let rungs: Vec<Rung> = positions.iter().map(rung).collect();
        committed.iter().map(|at| below(&rungs, *at)).collect()
    }

    #[test]
    fn what_was_read_is_told_exactly_where_nothing_stands_between() {
        let positions = [(1_000, 0, 0), (1_100, 100, 100), (1_200, 200, 200)];
        assert_eq!(
            back(&positions, &[0, 50, 100, 199, 200]),
            [1_000, 1_050, 1_100, 1_199, 1_200].map(|at| Some((at, true)))
        );
        // Behind the last position nothing is known; nor is it before the first.
        assert_eq!(back(&positions, &[230]), [Some((1_200, false))]);
        assert_eq!(back(&positions[1..], &[99]), [None]);
    }

    #[test]
    fn markers_and_what_was_left_out_are_never_taken_for_read_records() {
        // Two markers on the target.
        let marked = [(0, 0, 0), (100, 102, 100)];
        assert_eq!(
            back(&marked, &[1, 2, 50, 101, 102]),
            [
                (0, false),
                (0, false),
                (48, false),
                (99, false),
                (100, true)
            ]
            .map(Some)
        );
        // Forty offsets of the source hold no record.
        let thin = [(0, 0, 0), (100, 60, 60)];
        assert_eq!(
            back(&thin, &[0, 10, 59, 60]),
            [(0, true), (10, false), (59, false), (100, true)].map(Some)
        );
    }

    #[test]
    fn what_was_kept_for_long_stands_before_what_is_known() {
        let first = Rung {
            source: 500,
            target: 500,
            forwarded: 500,
        };
        // The newest first; one is of another history.
        let kept = [(500, 500, 500), (300, 300, 300), (900, 100, 100), (0, 0, 0)];
        let rungs = older(first, &kept);
        let targets: Vec<i64> = rungs.iter().map(|rung| rung.target).collect();
        assert_eq!(targets, [0, 300, 500]);
        assert_eq!(below(&rungs, 100), Some((100, true)));
    }
}
