//! What becomes of translated offsets: checkpoints, and commits on the target.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use strait_engine::{FlowKey, SessionError};
use strait_net::{
    Action, Cluster, CommittedOffset, GroupOffsets, KafkaError, ListedGroup, NetError, ShareOffsets,
};
use strait_wire::mm2::Checkpoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::groups::Groups;
use crate::groups::checkpoints::{Follows, Place};
use crate::translation::ladder::{Direction, Written, direction};
use crate::translation::{Exactness, Translated};

/// Commits under way at the same time.
const COMMITS: usize = 16;
/// How long what groups have committed on the target is believed: consumers may come, read on and go meanwhile.
const LOOK_HOLDS: Duration = Duration::from_secs(15);
/// How long the ends of a target partition are believed.
const ENDS_FOR: Duration = Duration::from_secs(60);

/// Commits that wait for what has to be read, at the most; others are translated as far as is known, and wait in a later round.
const WAITING: usize = 50_000;
/// The code for a share group that has members.
const NON_EMPTY_GROUP: KafkaError = KafkaError(68);

/// A group's offsets cannot be committed on the target.
pub(crate) const UNCOMMITTED: &str = "group-uncommitted";

/// One commit of a group on the source, with what it means on the target.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) flow: FlowKey,
    pub(crate) upstream: i64,
    pub(crate) metadata: String,
    pub(crate) translated: Translated,
}

impl Entry {
    fn key(&self) -> (String, i32) {
        (self.translated.topic.clone(), self.translated.partition)
    }

    fn checkpoint(&self, group: &str) -> Checkpoint {
        Checkpoint {
            group: group.to_owned(),
            topic: self.translated.topic.clone(),
            partition: self.translated.partition,
            upstream: self.upstream,
            downstream: self.translated.offset,
            metadata: self.metadata.clone(),
        }
    }
}

/// The two kinds of groups that have offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Of consumers: they commit.
    Consumer,
    /// Share groups (KIP-932): they have start offsets.
    Share,
}

impl Kind {
    /// That of a group, if it has offsets.
    pub(crate) fn of(group: &ListedGroup) -> Option<Self> {
        if group.is_share() {
            Some(Self::Share)
        } else {
            group.has_offsets().then_some(Self::Consumer)
        }
    }

    /// The request that sets offsets.
    fn setting(self) -> &'static str {
        match self {
            Self::Consumer => "OffsetCommit",
            Self::Share => "AlterShareGroupOffsets",
        }
    }

    /// Groups that are looked at at a time: few share groups, since a coordinator reads the state of each from another log
    /// before it answers.
    pub(crate) fn at_once(self) -> usize {
        match self {
            Self::Consumer => 100,
            Self::Share => 25,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consumer => "group",
            Self::Share => "share group",
        })
    }
}

/// Start offsets of a share group like commits.
fn as_commits(starts: ShareOffsets) -> GroupOffsets {
    let commit = |offset| CommittedOffset {
        offset,
        metadata: String::new(),
    };
    let starts = starts.into_iter();
    starts.map(|(place, at)| (place, commit(at))).collect()
}

/// What these groups of one kind have on a cluster; `stable`: nothing of consumer groups whose last transaction is not finished.
pub(crate) async fn offsets_of(
    kind: Kind,
    cluster: &Cluster,
    groups: &[String],
    stable: bool,
) -> BTreeMap<String, Result<GroupOffsets, NetError>> {
    match kind {
        Kind::Consumer if stable => cluster.stable_offsets(groups).await,
        Kind::Consumer => cluster.committed_offsets(groups).await,
        Kind::Share => {
            let found = cluster.share_offsets(groups).await.into_iter();
            let alike = |(group, offsets): (String, Result<ShareOffsets, NetError>)| {
                (group, offsets.map(as_commits))
            };
            found.map(alike).collect()
        }
    }
}

/// And the other way round.
fn as_starts(commits: &GroupOffsets) -> ShareOffsets {
    let commits = commits.iter();
    commits
        .map(|(place, c)| (place.clone(), c.offset))
        .collect()
}

/// By group.
pub(crate) type Entries = BTreeMap<String, Vec<Entry>>;

/// What is to be committed for a group, and which partitions of it go back.
#[derive(Debug, Default)]
struct Commit {
    offsets: GroupOffsets,
    back: BTreeSet<(String, i32)>,
}

/// Where target partitions begin and end, and when that was asked.
#[derive(Debug, Default)]
pub(crate) struct Ends(BTreeMap<(String, i32), (i64, i64, Instant)>);

impl Ends {
    /// Whether what is known will do: not older than a minute, asked anew where a commit may lie `beyond` them, and where
    /// what is `wanted` lies below: the topic may be another one since, which begins at 0.
    fn holds(&self, key: &(String, i32), wanted: i64, beyond: Option<i64>, now: Instant) -> bool {
        self.0.get(key).is_some_and(|&(start, end, at)| {
            let fresh = now.saturating_duration_since(at) < ENDS_FOR;
            fresh && start <= wanted && beyond.is_none_or(|commit| commit <= end)
        })
    }

    /// Log start and high watermark. What was mirrored lies below the high watermark, which has gone on since: one that was
    /// not asked for just now counts for a commit `beyond` what is wanted alone.
    fn get(&self, key: &(String, i32), beyond: Option<i64>, new: bool) -> Option<(i64, i64)> {
        let &(start, end, _) = self.0.get(key)?;
        let counts = new || beyond.is_some();
        Some((start, if counts { end } else { i64::MAX }))
    }
}

/// Commits that wait for what has to be read.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// By group.
    pub(crate) entries: Entries,
    count: usize,
    /// The first group of which not all had room.
    pub(crate) full_at: Option<String>,
}

impl Waiting {
    /// All of them: there is room again.
    pub(crate) fn take(&mut self) -> Entries {
        self.count = 0;
        std::mem::take(&mut self.entries)
    }

    /// Whether it took this one.
    fn add(&mut self, group: &str, entry: &Entry) -> bool {
        if self.count >= WAITING {
            self.full_at.get_or_insert_with(|| group.to_owned());
            return false;
        }
        self.count += 1;
        let of = self.entries.entry(group.to_owned()).or_default();
        of.push(entry.clone());
        true
    }
}

impl Groups {
    /// Puts aside what has to be read for, as much as may wait; by partition, so that a group may be in both.
    pub(crate) fn defer(&self, entries: Entries, waiting: &mut Waiting) -> Entries {
        let mut known = Entries::new();
        for (group, entries) in entries {
            for entry in entries {
                let countable = self.translator.countable(&entry.flow, entry.upstream);
                if !countable || !waiting.add(&group, &entry) {
                    known.entry(group.clone()).or_default().push(entry);
                }
            }
        }
        known
    }

    /// Takes up what was read for those that waited.
    pub(crate) fn take_up(&mut self, entries: &mut Entries) {
        for entry in entries.values_mut().flatten() {
            if let Some(found) = self.translator.known(&entry.flow, entry.upstream) {
                entry.translated = found;
            }
        }
    }

    /// Decides, writes checkpoints (of consumer groups), commits; the groups that stand on the target where they should.
    pub(crate) async fn apply(
        &mut self,
        kind: Kind,
        entries: &Entries,
        emit: bool,
    ) -> Result<BTreeSet<String>, SessionError> {
        let mut standing = BTreeSet::new();
        let looked = self.rt.now();
        let (commits, unseen) = if self.settings.sync_offsets && !entries.is_empty() {
            self.commits(kind, entries, &mut standing).await
        } else {
            (BTreeMap::new(), BTreeSet::new())
        };
        if kind == Kind::Consumer {
            let mut written = Vec::new();
            for (group, entries) in entries {
                let commit = commits.get(group);
                // What the target will hardly take is not said to be Strait's.
                let follows = if self.doubtful(group) {
                    Follows::Nothing
                } else {
                    Follows::Commit
                };
                for entry in entries {
                    let now = commit.is_some_and(|c| c.offsets.contains_key(&entry.key()));
                    if (emit || now) && !self.worse(group, entry) {
                        let follows = match now {
                            true => follows,
                            false if unseen.contains(group) => Follows::Unseen,
                            false => Follows::Nothing,
                        };
                        written.push((entry.checkpoint(group), follows));
                    }
                }
            }
            self.write(written).await?;
        }
        let age = self.rt.now().saturating_duration_since(looked);
        if self.open() && age < LOOK_HOLDS {
            let settled = self
                .commit(kind, (commits, looked), entries, &mut standing)
                .await;
            self.write(settled).await?;
        } else if self.open() {
            self.late.extend(commits.into_keys());
        }
        Ok(standing)
    }

    /// Says once for how many groups nothing is committed round after round, since the target takes too long. `standing`: some
    /// stand on it where they should.
    pub(crate) fn tell_late(&mut self, standing: bool) {
        let late = std::mem::take(&mut self.late);
        let (target, secs) = (self.target.alias(), LOOK_HOLDS.as_secs());
        if late.is_empty() {
            if standing && std::mem::take(&mut self.late_said) {
                info!(link = %self.link, "offsets are committed in time again on cluster {target}");
            }
        } else if !std::mem::replace(&mut self.late_said, true) {
            let first = late.first().map_or("", String::as_str);
            warn!(
                link = %self.link, id = "groups-late", groups = late.len(), group = first,
                "cluster {target} took more than {secs} s from the look at what groups have committed there to their turn, so nothing was committed for them: consumers may have gone on meanwhile; it is looked again each round, and topics are mirrored all the same: see how long its brokers take for OffsetFetch, OffsetCommit and writes to the checkpoints"
            );
        }
    }

    /// What is to be committed for each group; and those of which it cannot be seen at the moment what the target has.
    async fn commits(
        &mut self,
        kind: Kind,
        entries: &Entries,
        standing: &mut BTreeSet<String>,
    ) -> (BTreeMap<String, Commit>, BTreeSet<String>) {
        let (mut commits, mut unseen) = (BTreeMap::new(), BTreeSet::new());
        let groups: Vec<String> = entries.keys().cloned().collect();
        let target = self.committed(kind, false, &groups).await;
        if kind == Kind::Share {
            if self.share_lacks(&target) {
                return (commits, unseen);
            }
            if target.values().any(Result::is_ok) {
                self.share_served();
            }
        }
        let asked = self.ask_ends(entries, &target).await;
        for (group, committed) in target {
            let Some(entries) = entries.get(&group) else {
                continue;
            };
            let error = match committed {
                Ok(committed) => {
                    if let (Kind::Consumer, Some(checkpoints)) = (kind, &mut self.checkpoints) {
                        for key in entries.iter().map(Entry::key) {
                            let now = committed.get(&key).map(|c| c.offset);
                            checkpoints.seen(&(group.clone(), key), now);
                        }
                    }
                    let commit = self.decide(kind, &group, entries, &committed, &asked);
                    if commit.offsets.is_empty() {
                        self.well(&group, UNCOMMITTED);
                        // Whether it has members is asked for at the end of the round.
                        self.active.remove(&group);
                        standing.insert(group);
                    } else {
                        commits.insert(group, commit);
                    }
                    continue;
                }
                Err(error) => error,
            };
            if error.action() != Action::Stop {
                unseen.insert(group.clone());
            }
            self.active.remove(&group);
            let what = format!(
                "cannot read what this {kind} has committed on cluster {}, so nothing is committed for it there",
                self.target.alias()
            );
            let right = "Read (Describe is in it) on the group there";
            self.trouble(&group, UNCOMMITTED, &error, &what, right);
        }
        (commits, unseen)
    }

    /// Whether the last commit for the group was refused.
    fn doubtful(&self, group: &str) -> bool {
        self.active.contains(group) || self.troubles.get(group) == Some(&UNCOMMITTED)
    }

    /// What these groups have committed on the source or the target.
    pub(crate) async fn committed(
        &self,
        kind: Kind,
        source: bool,
        groups: &[String],
    ) -> BTreeMap<String, Result<GroupOffsets, NetError>> {
        let cluster = if source { &self.source } else { &self.target };
        // A commit on the target would win over what a transaction is about to commit there.
        offsets_of(kind, cluster, groups, !source).await
    }

    /// Whether the last checkpoint says more about a group that did not go back: it was translated exactly then.
    fn worse(&self, group: &str, entry: &Entry) -> bool {
        let place: Place = (group.to_owned(), entry.key());
        let last = self.checkpoints.as_ref().and_then(|c| c.last(&place));
        last.is_some_and(|last| {
            entry.translated.exactness == Exactness::LowerBound
                && entry.upstream >= last.upstream
                && entry.translated.offset < last.downstream
        })
    }

    async fn write(&mut self, checkpoints: Vec<(Checkpoint, Follows)>) -> Result<(), SessionError> {
        let Some(all) = &mut self.checkpoints else {
            return Ok(());
        };
        let now_ms = self.rt.wall_ms();
        let written = all.write(checkpoints, now_ms).await;
        if written.is_err() {
            // Its log takes no more: opened anew with the next round.
            self.checkpoints = None;
        }
        written
    }

    /// What has to be committed on the target.
    fn decide(
        &self,
        kind: Kind,
        group: &str,
        entries: &[Entry],
        committed: &GroupOffsets,
        asked: &BTreeSet<(String, i32)>,
    ) -> Commit {
        let mut commit = Commit::default();
        for entry in entries {
            let (key, wanted) = (entry.key(), entry.translated.offset);
            let now = committed.get(&key).map(|c| c.offset);
            if now == Some(wanted) {
                continue;
            }
            let back = now.is_some_and(|now| wanted < now);
            let place: Place = (group.to_owned(), key.clone());
            let written = self.checkpoints.as_ref().and_then(|c| c.last(&place));
            let beyond = now.filter(|_| back);
            let Some((start, end)) = self.ends.get(&key, beyond, asked.contains(&key)) else {
                continue;
            };
            // What a group wants to read and the target has not any more, it cannot read.
            let wanted = wanted.clamp(start, end.max(start));
            if now == Some(wanted) {
                continue;
            }
            // Between clusters that mirror each other no commit goes back at all, and no share group does.
            let forward_only = kind == Kind::Share || self.both_ways.is_some();
            let written = written.filter(|_| !forward_only);
            let end = (back && !forward_only).then_some(end);
            let exact = entry.translated.exactness == Exactness::Exact;
            let offset = CommittedOffset {
                offset: wanted,
                metadata: entry.metadata.clone(),
            };
            match direction(now, (wanted, exact), entry.upstream, written, end) {
                Direction::Stay => {}
                Direction::Forward => {
                    commit.offsets.insert(key, offset);
                }
                Direction::Rewind => {
                    commit.back.insert(key.clone());
                    commit.offsets.insert(key, offset);
                }
            }
        }
        commit
    }

    /// Asks where the target's logs begin and end, of those partitions where that decides something and is not known, and
    /// returns these.
    async fn ask_ends(
        &mut self,
        entries: &Entries,
        target: &BTreeMap<String, Result<GroupOffsets, NetError>>,
    ) -> BTreeSet<(String, i32)> {
        let now = self.rt.now();
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < ENDS_FOR;
        self.ends.0.retain(|_, (.., at)| fresh(at));
        let mut asked = BTreeSet::new();
        for (group, entries) in entries {
            let Some(Ok(committed)) = target.get(group) else {
                continue;
            };
            for entry in entries {
                let (key, wanted) = (entry.key(), entry.translated.offset);
                let committed = committed.get(&key).map(|c| c.offset);
                let beyond = committed.filter(|committed| wanted < *committed);
                if committed != Some(wanted) && !self.ends.holds(&key, wanted, beyond, now) {
                    asked.insert(key);
                }
            }
        }
        if asked.is_empty() {
            return asked;
        }
        for (key, ends) in self.target.log_ends(&asked).await {
            match ends {
                Ok((start, end)) => drop(self.ends.0.insert(key, (start, end, now))),
                Err(error) => {
                    self.ends.0.remove(&key);
                    debug!(link = %self.link, topic = %key.0, partition = key.1, "offsets are not committed, the log's ends are not known: {error}");
                }
            }
        }
        asked
    }

    /// Commits what was looked at then, as long as that holds; answers with the checkpoints of what has to be known as Strait's from now on, also to its next life.
    async fn commit(
        &mut self,
        kind: Kind,
        (commits, looked): (BTreeMap<String, Commit>, Instant),
        entries: &Entries,
        standing: &mut BTreeSet<String>,
    ) -> Vec<(Checkpoint, Follows)> {
        let mut jobs = JoinSet::new();
        let places = Arc::new(Semaphore::new(COMMITS));
        for (group, commit) in commits {
            let (target, places, rt) = (self.target.clone(), places.clone(), self.rt.clone());
            jobs.spawn(async move {
                let _place = places.acquire().await;
                if rt.now().saturating_duration_since(looked) >= LOOK_HOLDS {
                    return (group, commit, None);
                }
                let result = match kind {
                    Kind::Consumer => target.commit_offsets(&group, &commit.offsets).await,
                    Kind::Share => {
                        let starts = as_starts(&commit.offsets);
                        target.alter_share_offsets(&group, &starts).await
                    }
                };
                (group, commit, Some(result))
            });
        }
        let mut settled = Vec::new();
        while let Some(done) = jobs.join_next().await {
            let Ok((group, commit, result)) = done else {
                continue;
            };
            let Some(result) = result else {
                // It is looked again with the next round.
                self.late.insert(group);
                continue;
            };
            let codes = match result {
                Ok(codes) => codes,
                Err(error) if error.code() == Some(NON_EMPTY_GROUP) => {
                    debug!(link = %self.link, group, "the {kind} has members on the target");
                    self.active.insert(group.clone());
                    self.troubles.remove(&group);
                    continue;
                }
                Err(error) => {
                    self.active.remove(&group);
                    self.uncommitted(kind, &group, &error);
                    continue;
                }
            };
            let doubtful = self.doubtful(&group);
            let refused = codes.iter().find(|(_, code)| code.0 != 0);
            if let Some((_, code)) = refused {
                if *code == KafkaError::UNKNOWN_MEMBER_ID {
                    self.active.insert(group.clone());
                    self.troubles.remove(&group);
                } else {
                    self.active.remove(&group);
                    let what = format!("group '{group}' on cluster {}", self.target.alias());
                    let error = NetError::kafka(code.0, kind.setting(), what);
                    self.uncommitted(kind, &group, &error);
                }
            } else {
                self.active.remove(&group);
                self.troubles.remove(&group);
                standing.insert(group.clone());
            }
            let done = codes.values().filter(|code| code.0 == 0).count();
            self.gauges.commits.increment(done as u64);
            if kind == Kind::Share {
                continue;
            }
            for entry in entries.get(&group).into_iter().flatten() {
                let key = entry.key();
                let Some(code) = codes.get(&key) else {
                    continue;
                };
                let (made, back) = (code.0 == 0, commit.back.contains(&key));
                let place: Place = (group.clone(), key);
                let Some(checkpoints) = self.checkpoints.as_mut().filter(|checkpoints| {
                    // A worse one was not written.
                    let at = |last: Written| (last.upstream, last.downstream);
                    let this = (entry.upstream, entry.translated.offset);
                    checkpoints.last(&place).map(at) == Some(this)
                }) else {
                    continue;
                };
                checkpoints.settle(&place, made);
                // Also the process after this one has to know.
                if made && (doubtful || back) {
                    settled.push((entry.checkpoint(&group), Follows::Done));
                } else if !made && !doubtful {
                    settled.push((entry.checkpoint(&group), Follows::Refused));
                }
            }
        }
        settled
    }

    fn uncommitted(&mut self, kind: Kind, group: &str, error: &NetError) {
        let what = format!(
            "cannot commit the offsets of this {kind} on cluster {}, the others go on",
            self.target.alias()
        );
        self.trouble(
            group,
            UNCOMMITTED,
            error,
            &what,
            "Read on the group there, and Read on the mirrored topics",
        );
    }
}
