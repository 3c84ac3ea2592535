//! What consumer groups on the target have left to read of the topics that a link has mirrored there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_config::{LinkConfig, Pattern};
use strait_engine::tally::Budget;
use strait_engine::{FlowKey, KnownPosition, Left, Remaining, read_positions};
use strait_net::{AskEnds, Cluster, GroupOffsets, KafkaError, NetError, Runtime, TopicMetadata};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::heartbeats::replicated;
use crate::mirror::MirrorError;
use crate::selection::{SelectionError, StoredSelections};
use crate::translation::differ;
use crate::untold::{Untold, Why, selected_groups};

/// What one look may read to tell records from markers, in bytes, and how long.
const LOOK: (u64, Duration) = (32 << 20, Duration::from_secs(5));
/// How many offsets may be left in a partition for that.
const LITTLE: i64 = 100_000;
/// How many partitions are read side by side.
const READ_AT_ONCE: usize = 8;
/// How long a number holds that is no exact one, before the log is read once more.
const ROUGH_FOR: Duration = Duration::from_secs(30);

/// How long a topic is not there before it counts as deleted; and one that was there, since what brokers know may be old.
const GONE_FOR: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

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
    /// Partitions of which the target does not tell what they hold: nothing of them counts.
    pub unknown: usize,
}

/// A partition's records from a commit to the end, as they were counted.
#[derive(Clone, Copy, Debug)]
struct Counted {
    left: Left,
    at: Instant,
}

/// A topic's partition and an offset there.
type At = ((String, i32), i64);

/// The mirrored topics of one link on its target, with their ends as they stood when they were first told. The source is not
/// asked.
#[derive(Debug)]
pub struct Unread {
    rt: Runtime,
    link: LinkConfig,
    target: Cluster,
    remaining: Remaining,
    /// Which topics' names count; none: all.
    named: Vec<Pattern>,
    /// None before it is known which they are.
    topics: Option<BTreeSet<String>>,
    /// The ids of those whose partitions are known, nil for unknown.
    ids: BTreeMap<String, Uuid>,
    /// Topics that were there and are no more.
    deleted: BTreeSet<String>,
    /// Those that the target does not know, since when.
    missing: BTreeMap<String, Instant>,
    /// Topics that were created anew since: what they held is gone, and the rest is not what was to be waited for.
    anew: BTreeSet<String>,
    /// Partitions of the source whose positions cannot be read, and why.
    unreadable: Vec<(FlowKey, String)>,
    /// By topic and partition the log's start and end; none where they were not told yet.
    ends: BTreeMap<(String, i32), Option<(i64, i64)>>,
    /// Those to wait for; none: all that the link selects and that have commits there.
    groups: Vec<String>,
    /// What is left from the offsets where groups stood at the last look.
    counted: BTreeMap<At, Counted>,
}

impl Unread {
    /// Of the link's topics whose names on the target match one of `topics`; where there are none, of all but heartbeats that
    /// nobody selected. For `groups`, or for all that the link selects. Needs Describe on topics and groups of the target, and
    /// Read on the link's positions there. Nothing is asked before the first look.
    pub fn new(
        rt: &Runtime,
        link: &LinkConfig,
        target: Cluster,
        topics: &[Pattern],
        groups: &[String],
    ) -> Self {
        Self {
            rt: rt.clone(),
            link: link.clone(),
            remaining: Remaining::new(rt, target.clone()),
            target,
            named: topics.to_vec(),
            topics: None,
            ids: BTreeMap::new(),
            deleted: BTreeSet::new(),
            missing: BTreeMap::new(),
            anew: BTreeSet::new(),
            unreadable: Vec::new(),
            ends: BTreeMap::new(),
            groups: groups.to_vec(),
            counted: BTreeMap::new(),
        }
    }

    /// The topics, by their names on the target; none before it is known which they are.
    pub fn topics(&self) -> Option<&BTreeSet<String>> {
        self.topics.as_ref()
    }

    /// Topics that were deleted on the target since the first look: they count no more.
    pub fn deleted(&self) -> &BTreeSet<String> {
        &self.deleted
    }

    /// What each group has left of each topic that it reads, as it has committed until now; by group and topic. Beside it what
    /// the target does not tell, its brokers being given `patience` for the ends. What was counted before and has not
    /// changed is not read again.
    ///
    /// # Errors
    /// The positions on the target cannot be read, or it cannot be reached at all.
    pub async fn look(
        &mut self,
        patience: Duration,
    ) -> Result<(Vec<UnreadTopic>, Vec<Untold>), MirrorError> {
        if self.topics.is_none() {
            self.begin().await?;
        }
        let mut untold = self.ask_partitions().await?;
        untold.extend(self.ask_ends(patience).await);
        let groups = match self.groups.as_slice() {
            [] => {
                let (groups, unlisted) = selected_groups(&self.link, &self.target).await?;
                untold.extend(unlisted);
                groups.into_iter().collect()
            }
            named => named.to_vec(),
        };
        let mut commits = BTreeMap::new();
        for (group, committed) in self.target.committed_offsets(&groups).await {
            match committed {
                Ok(committed) => drop(commits.insert(group, committed)),
                Err(error) => {
                    let what = format!("what group {group} has left to read");
                    untold.push(Untold::new(what, error));
                }
            }
        }
        self.count(&commits).await;
        let mut found = Vec::new();
        for (group, committed) in &commits {
            found.extend(self.of_group(group, committed));
        }
        Ok((found, untold))
    }

    /// Finds the topics.
    async fn begin(&mut self) -> Result<(), MirrorError> {
        let positions = read_positions(&self.rt, self.target.clone(), &self.link.source).await?;
        let unasked = self.unasked(positions.keys()).await?;
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (flow, known) in positions {
            let name = match &known {
                KnownPosition::Strait(position) if position.link == self.link.name => {
                    position.target_topic.clone()
                }
                KnownPosition::MirrorMaker2 | KnownPosition::Unreadable(_) => {
                    self.link.remote_name(&flow.topic)
                }
                KnownPosition::Strait(_) => continue,
            };
            let named = self.named.iter().any(|pattern| pattern.matches(&name));
            let counts = named || self.named.is_empty() && !unasked.contains(&flow.topic);
            match known {
                _ if !counts => {}
                KnownPosition::Unreadable(why) => self.unreadable.push((flow, why)),
                _ => drop(names.insert(name)),
            }
        }
        self.topics = Some(names);
        Ok(())
    }

    /// Those of the source's topics that came along though nobody selected them: heartbeats, whose end no group waits for. None
    /// where topics are named.
    async fn unasked(
        &self,
        flows: impl Iterator<Item = &FlowKey>,
    ) -> Result<BTreeSet<String>, MirrorError> {
        if !self.named.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut partitions: BTreeMap<&str, usize> = BTreeMap::new();
        for flow in flows {
            *partitions.entry(&flow.topic).or_default() += 1;
        }
        let along = partitions.into_iter().filter(|(topic, partitions)| {
            replicated(&self.link, topic, *partitions) && !self.link.topics.selects(topic)
        });
        let mut along: BTreeSet<String> = along.map(|(topic, _)| topic.to_owned()).collect();
        if along.is_empty() {
            return Ok(along);
        }
        // What was selected while the link ran counts as well, for those who may see it.
        let mut stored = StoredSelections::new(self.rt.clone(), self.target.clone());
        let selected = match stored.refresh().await {
            Ok(()) => stored.topics(&self.link).ok(),
            Err(SelectionError::Registry(error)) if !error.is_denied() => return Err(error.into()),
            Err(_) => None,
        };
        if let Some(selected) = selected {
            along.retain(|topic| !selected.selects(topic));
        }
        Ok(along)
    }

    /// Asks for the partitions of topics that are not known yet, and whether the others are still there; what is not told.
    async fn ask_partitions(&mut self) -> Result<Vec<Untold>, MirrorError> {
        let unread = self.unreadable.iter().map(|(flow, why)| {
            let what = format!("whether {flow} has been mirrored");
            Untold::because(what, Why::Unreadable(why.clone()))
        });
        let mut untold: Vec<Untold> = unread.collect();
        let asked: Vec<String> = self.topics.iter().flatten().cloned().collect();
        if !asked.is_empty() {
            let found = self.target.metadata(Some(&asked)).await?;
            for name in asked {
                let topic = found.topics.get(&name);
                untold.extend(self.told(name, topic));
            }
        }
        let cluster = self.target.alias();
        untold.extend(self.anew.iter().map(|name| {
            let why = "it was created anew since this began; begin again to wait for the new one";
            let what = format!("what topic {name} on cluster {cluster} held");
            Untold::because(what, Why::Unreadable(why.to_owned()))
        }));
        Ok(untold)
    }

    /// Takes what the target tells of one topic; what it does not tell.
    fn told(&mut self, name: String, topic: Option<&TopicMetadata>) -> Option<Untold> {
        let error = topic.map_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION.0, |t| t.error);
        let known = self.ids.get(&name).copied();
        let gone = error == KafkaError::UNKNOWN_TOPIC_OR_PARTITION.0;
        if !gone {
            self.missing.remove(&name);
        }
        match (topic, known) {
            (Some(topic), None) if error == 0 => {
                let of = topic.partitions.keys().map(|p| ((name.clone(), *p), None));
                self.ends.extend(of);
                self.ids.insert(name, topic.id);
                return None;
            }
            (Some(topic), Some(id)) if error == 0 => {
                if differ(&id, &topic.id) {
                    self.leave(&name);
                    self.anew.insert(name);
                }
                return None;
            }
            (_, Some(_)) if !gone => return None,
            _ => {}
        }
        if gone {
            // A broker that has just started may not know it for a moment.
            let now = self.rt.now();
            let since = *self.missing.entry(name.clone()).or_insert(now);
            let long = if known.is_some() {
                GONE_FOR.1
            } else {
                GONE_FOR.0
            };
            if now.saturating_duration_since(since) >= long {
                self.leave(&name);
                if known.is_some() {
                    self.deleted.insert(name);
                }
                return None;
            }
        }
        let what = format!("what topic {name} on cluster {} holds", self.target.alias());
        let why = NetError::kafka(error, "Metadata", format!("topic '{name}'"));
        Some(Untold::new(what, why))
    }

    /// Nobody can read anything of the topic any more.
    fn leave(&mut self, name: &str) {
        if let Some(topics) = &mut self.topics {
            topics.remove(name);
        }
        self.missing.remove(name);
        self.ids.remove(name);
        self.ends.retain(|(topic, _), _| topic != name);
    }

    /// Asks for the ends that are not known yet; those that are not told.
    async fn ask_ends(&mut self, patience: Duration) -> Vec<Untold> {
        let unknown = self.ends.iter().filter(|(_, ends)| ends.is_none());
        let places: BTreeSet<(String, i32)> = unknown.map(|(place, _)| place.clone()).collect();
        let mut untold = Vec::new();
        if places.is_empty() {
            return untold;
        }
        let ask = AskEnds {
            committed: false,
            within: patience,
        };
        for (place, found) in self.target.log_ends_as(&places, ask).await {
            match found {
                Ok(ends) => drop(self.ends.insert(place, Some(ends))),
                // What it holds is not known, so nobody can be said to have read it.
                Err(error) => {
                    let (topic, partition) = place;
                    let what = format!("what {topic}-{partition} holds");
                    untold.push(Untold::new(what, error));
                }
            }
        }
        untold
    }

    /// Counts what is left from each commit that is little enough; what was counted is kept.
    async fn count(&mut self, commits: &BTreeMap<String, GroupOffsets>) {
        let (now, mut last) = (self.rt.now(), std::mem::take(&mut self.counted));
        let mut wanted: BTreeSet<At> = BTreeSet::new();
        for committed in commits.values() {
            for topic in self.read_by(committed) {
                for (place, ends) in self.of_topic(topic) {
                    let Some((start, end)) = ends else { continue };
                    let from = stands(committed, place, *start).0;
                    if from < *end && end - from <= LITTLE {
                        wanted.insert((place.clone(), from));
                    }
                }
            }
        }
        let budget = Arc::new(Budget::new(&self.rt, LOOK.0, LOOK.1));
        let mut jobs: JoinSet<(At, Left)> = JoinSet::new();
        for at in wanted {
            let from = at.1;
            let Some(&Some((_, end))) = self.ends.get(&at.0) else {
                continue;
            };
            let known = last.get(&at).copied();
            let holds =
                |c: &Counted| c.left.exact || now.saturating_duration_since(c.at) < ROUGH_FOR;
            if let Some(known) = known.filter(holds) {
                self.counted.insert(at, known);
                continue;
            }
            // Where a group has read on, what it has read is taken off if that is the shorter way.
            let range = (at.0.clone(), i64::MIN)..at.clone();
            let before = last.range(range).next_back();
            let before = before.filter(|(_, c)| c.left.exact && c.left.records > 0);
            let before = before.map(|((_, before), c)| (*before, c.left.records));
            let before = before.filter(|(before, _)| from - before < end - from);
            while jobs.len() >= READ_AT_ONCE
                && let Some(done) = jobs.join_next().await
            {
                self.learn(done.ok(), now);
            }
            let (remaining, budget) = (self.remaining.clone(), budget.clone());
            jobs.spawn(async move {
                let place = (at.0.0.as_str(), at.0.1);
                if let Some((before, records)) = before {
                    let read = remaining.count(place, (before, from), &budget).await;
                    if read.exact {
                        let records = (records - read.records).max(0);
                        let exact = true;
                        return (at, Left { records, exact });
                    }
                }
                let left = remaining.count(place, (from, end), &budget).await;
                (at, left)
            });
        }
        while let Some(done) = jobs.join_next().await {
            self.learn(done.ok(), now);
        }
        last.clear();
    }

    fn learn(&mut self, counted: Option<(At, Left)>, at: Instant) {
        if let Some((of, left)) = counted {
            self.counted.insert(of, Counted { left, at });
        }
    }

    /// The topics that count for a group: those that it has committed on; for one that is named, all of them.
    fn read_by<'a>(
        &'a self,
        committed: &'a GroupOffsets,
    ) -> impl Iterator<Item = &'a String> + use<'a> {
        let reads = |topic: &String| committed.keys().any(|(name, _)| name == topic);
        let all = !self.groups.is_empty();
        let topics = self.topics.iter().flatten();
        topics.filter(move |topic| all || reads(topic))
    }

    fn of_topic(
        &self,
        topic: &str,
    ) -> impl Iterator<Item = (&(String, i32), &Option<(i64, i64)>)> + use<'_> {
        let (first, last) = ((topic.to_owned(), i32::MIN), (topic.to_owned(), i32::MAX));
        self.ends.range(first..=last)
    }

    fn of_group(&self, group: &str, committed: &GroupOffsets) -> Vec<UnreadTopic> {
        let mut found = Vec::new();
        for topic in self.read_by(committed) {
            let mut left = Left {
                records: 0,
                exact: true,
            };
            let (mut uncommitted, mut unknown) = (0, 0);
            for (place, ends) in self.of_topic(topic) {
                let Some((start, end)) = ends else {
                    unknown += 1;
                    continue;
                };
                let (from, commit) = stands(committed, place, *start);
                uncommitted += usize::from(!commit);
                if from >= *end {
                    continue;
                }
                let counted = self.counted.get(&(place.clone(), from));
                let here = counted.map_or(
                    Left {
                        records: end - from,
                        exact: false,
                    },
                    |counted| counted.left,
                );
                left.records += here.records;
                left.exact &= here.exact;
            }
            found.push(UnreadTopic {
                group: group.to_owned(),
                topic: topic.clone(),
                left,
                uncommitted,
                unknown,
            });
        }
        found
    }
}

/// Where a group goes on in a partition that begins at `start`, and whether it has committed there.
fn stands(committed: &GroupOffsets, place: &(String, i32), start: i64) -> (i64, bool) {
    let commit = committed.get(place).map(|c| c.offset);
    (commit.unwrap_or(start).max(start), commit.is_some())
}
