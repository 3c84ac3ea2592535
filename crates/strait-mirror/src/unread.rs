//! What consumer groups on the target have left to read of the topics that a link has mirrored there.

use std::collections::{BTreeMap, BTreeSet};

use strait_config::{Isolation, LinkConfig, Pattern};
use strait_engine::{KnownPosition, Left, Remaining, read_positions};
use strait_net::{Cluster, GroupOffsets, NetError, Runtime};

use crate::carried::selected_groups;
use crate::mirror::MirrorError;
use crate::plan::{END, START, offsets};

/// What one look may read to tell records from markers, in bytes.
const LOOK_BYTES: u64 = 32 << 20;
/// How many offsets may be left in a partition for that.
const LITTLE: i64 = 100_000;

/// What a group has left to read of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadTopic {
    /// The group.
    pub group: String,
    /// The topic on the target.
    pub topic: String,
    /// The records up to the topic's end, as it stood at the beginning.
    pub left: Left,
    /// Partitions in which it has committed nothing: all that they hold counts.
    pub uncommitted: usize,
}

/// The mirrored topics of one link on its target, with their ends as they stood when this was begun. The source is not asked.
#[derive(Debug)]
pub struct Unread {
    link: LinkConfig,
    target: Cluster,
    remaining: Remaining,
    /// By topic and partition the log's start and end.
    ends: BTreeMap<(String, i32), (i64, i64)>,
    topics: BTreeSet<String>,
    /// Those to wait for; none: all that the link selects and that have commits there.
    groups: Vec<String>,
}

impl Unread {
    /// Of the link's topics whose names on the target match one of `topics`, all where there are none; for `groups`, or for
    /// all that the link selects. Needs Describe on topics and groups of the target, and Read on the link's positions there.
    ///
    /// # Errors
    /// The target cannot be reached, or the positions there cannot be read.
    pub async fn begin(
        rt: &Runtime,
        link: &LinkConfig,
        target: Cluster,
        topics: &[Pattern],
        groups: &[String],
    ) -> Result<Self, MirrorError> {
        let positions = read_positions(rt, target.clone(), &link.source).await?;
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (flow, known) in positions {
            match known {
                KnownPosition::Strait(position) if position.link == link.name => {
                    names.insert(position.target_topic);
                }
                KnownPosition::MirrorMaker2 => {
                    names.insert(link.remote_name(&flow.topic));
                }
                KnownPosition::Strait(_) | KnownPosition::Unreadable(_) => {}
            }
        }
        names.retain(|name| topics.is_empty() || topics.iter().any(|p| p.matches(name)));
        let mut begun = Self {
            link: link.clone(),
            remaining: Remaining::new(rt, target.clone()),
            target,
            ends: BTreeMap::new(),
            topics: BTreeSet::new(),
            groups: groups.to_vec(),
        };
        if names.is_empty() {
            return Ok(begun);
        }
        let names: Vec<String> = names.into_iter().collect();
        let found = begun.target.metadata(Some(&names)).await?;
        begun.topics = names
            .iter()
            .filter(|name| found.topics.get(*name).is_some_and(|t| t.error == 0))
            .cloned()
            .collect();
        let of = |topic: &String| {
            let partitions = found.topics.get(topic).map(|t| t.partitions.keys());
            let all = partitions.into_iter().flatten();
            all.map(|p| (topic.clone(), *p)).collect::<Vec<_>>()
        };
        let all: Vec<(String, i32)> = begun.topics.iter().flat_map(of).collect();
        let ask = |time| {
            let isolation = Isolation::ReadUncommitted;
            offsets(rt, &begun.target, &found, &all, time, isolation)
        };
        let (starts, ends) = (ask(START).await, ask(END).await);
        for key in all {
            let Some((start, end)) = starts.get(&key).zip(ends.get(&key)) else {
                // What it holds is not known, so nobody can be said to have read it: LEADER_NOT_AVAILABLE.
                let what = format!(
                    "partition {}-{} on cluster {}",
                    key.0,
                    key.1,
                    begun.target.alias()
                );
                return Err(NetError::kafka(5, "ListOffsets", what).into());
            };
            begun.ends.insert(key, (*start, *end));
        }
        Ok(begun)
    }

    /// The topics, by their names on the target.
    pub fn topics(&self) -> &BTreeSet<String> {
        &self.topics
    }

    /// What each group has left of each topic that it reads, as it has committed until now; by group and topic. Beside it the
    /// groups whose commits the target does not tell.
    ///
    /// # Errors
    /// The target does not tell its groups.
    pub async fn look(&self) -> Result<(Vec<UnreadTopic>, Vec<(String, NetError)>), MirrorError> {
        let groups = match self.groups.as_slice() {
            [] => selected_groups(&self.link, &self.target).await?,
            named => named.to_vec(),
        };
        let mut budget = LOOK_BYTES;
        let (mut found, mut untold) = (Vec::new(), Vec::new());
        for (group, committed) in self.target.committed_offsets(&groups).await {
            match committed {
                Ok(committed) => found.extend(self.of_group(&group, &committed, &mut budget).await),
                Err(error) => untold.push((group, error)),
            }
        }
        Ok((found, untold))
    }

    async fn of_group(
        &self,
        group: &str,
        committed: &GroupOffsets,
        budget: &mut u64,
    ) -> Vec<UnreadTopic> {
        let reads = |topic: &String| committed.keys().any(|(name, _)| name == topic);
        let mut topics: Vec<&String> = self.topics.iter().filter(|t| reads(t)).collect();
        // Whoever is named is to read them.
        if !self.groups.is_empty() {
            topics = self.topics.iter().collect();
        }
        let mut found = Vec::new();
        for topic in topics {
            let mut left = Left {
                records: 0,
                exact: true,
            };
            let mut uncommitted = 0;
            let range = (topic.clone(), i32::MIN)..=(topic.clone(), i32::MAX);
            for (key, &(start, end)) in self.ends.range(range) {
                let commit = committed.get(key).map(|c| c.offset);
                uncommitted += usize::from(commit.is_none());
                let from = commit.unwrap_or(start).max(start);
                if from >= end {
                    continue;
                }
                let place = (topic.as_str(), key.1);
                let here = if end - from <= LITTLE && *budget > 0 {
                    self.remaining.count(place, (from, end), budget).await
                } else {
                    Left {
                        records: end - from,
                        exact: false,
                    }
                };
                left.records += here.records;
                left.exact &= here.exact;
            }
            found.push(UnreadTopic {
                group: group.to_owned(),
                topic: topic.clone(),
                left,
                uncommitted,
            });
        }
        found
    }
}
