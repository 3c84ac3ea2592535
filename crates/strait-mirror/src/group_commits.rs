//! What becomes of translated offsets: checkpoints, and commits on the target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_engine::{FlowKey, SessionError};
use strait_net::{CommittedOffset, GroupOffsets, KafkaError, NetError};
use strait_wire::mm2::Checkpoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use crate::checkpoints::Place;
use crate::groups::Groups;
use crate::ladder::{Direction, direction};
use crate::translation::{Exactness, Translated};

/// Commits under way at the same time.
const COMMITS: usize = 16;
/// How long the ends of a target partition are believed.
const ENDS_FOR: Duration = Duration::from_secs(60);

/// A group's offsets cannot be committed on the target.
const UNCOMMITTED: &str = "group-uncommitted";

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

impl Groups {
    /// Decides, writes checkpoints, commits; the groups that stand on the target where they should.
    pub(crate) async fn apply(
        &mut self,
        entries: &Entries,
        emit: bool,
    ) -> Result<BTreeSet<String>, SessionError> {
        let mut commits: BTreeMap<String, Commit> = BTreeMap::new();
        let mut standing = BTreeSet::new();
        if self.settings.sync_offsets && !entries.is_empty() {
            let groups: Vec<String> = entries.keys().cloned().collect();
            let target = self.target.committed_offsets(&groups).await;
            let asked = self.ask_ends(entries, &target).await;
            for (group, committed) in target {
                let Some(entries) = entries.get(&group) else {
                    continue;
                };
                match committed {
                    Ok(committed) => {
                        let commit = self.decide(&group, entries, &committed, &asked);
                        if commit.offsets.is_empty() {
                            self.well(&group, UNCOMMITTED);
                            standing.insert(group);
                        } else {
                            commits.insert(group, commit);
                        }
                    }
                    Err(error) => self.trouble(
                        &group,
                        UNCOMMITTED,
                        &error,
                        &format!(
                            "cannot read what this group has committed on cluster {}, so nothing is committed for it there",
                            self.target.alias()
                        ),
                        "Read (Describe is in it) on the group there",
                    ),
                }
            }
        }
        let mut written = Vec::new();
        for (group, entries) in entries {
            let commit = commits.get(group);
            for entry in entries {
                let now = commit.is_some_and(|c| c.offsets.contains_key(&entry.key()));
                if (emit || now) && !self.worse(group, entry) {
                    written.push(entry.checkpoint(group));
                }
            }
        }
        self.write(written, false).await?;
        let settled = self.commit(commits, entries, &mut standing).await;
        self.write(settled, true).await?;
        Ok(standing)
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

    async fn write(
        &mut self,
        checkpoints: Vec<Checkpoint>,
        settled: bool,
    ) -> Result<(), SessionError> {
        let Some(all) = &mut self.checkpoints else {
            return Ok(());
        };
        let now_ms = self.rt.wall_ms();
        let written = all.write(checkpoints, settled, now_ms).await;
        if written.is_err() {
            // Its log takes no more: opened anew with the next round.
            self.checkpoints = None;
        }
        written
    }

    /// What has to be committed on the target.
    fn decide(
        &self,
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
            // Between clusters that mirror each other no commit goes back at all.
            let forward_only = self.both_ways.is_some();
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

    /// Commits; answers with the checkpoints of those that went back, which is settled now.
    async fn commit(
        &mut self,
        commits: BTreeMap<String, Commit>,
        entries: &Entries,
        standing: &mut BTreeSet<String>,
    ) -> Vec<Checkpoint> {
        let mut jobs = JoinSet::new();
        let places = Arc::new(Semaphore::new(COMMITS));
        for (group, commit) in commits {
            let (target, places) = (self.target.clone(), places.clone());
            jobs.spawn(async move {
                let _place = places.acquire().await;
                let result = target.commit_offsets(&group, &commit.offsets).await;
                (group, commit, result)
            });
        }
        let mut settled = Vec::new();
        while let Some(done) = jobs.join_next().await {
            let Ok((group, commit, result)) = done else {
                continue;
            };
            let codes = match result {
                Ok(codes) => codes,
                Err(error) => {
                    self.uncommitted(&group, &error);
                    continue;
                }
            };
            let refused = codes.iter().find(|(_, code)| code.0 != 0);
            if let Some((_, code)) = refused {
                if *code == KafkaError::UNKNOWN_MEMBER_ID {
                    self.active.insert(group.clone());
                    self.troubles.remove(&group);
                } else {
                    let what = format!("group '{group}' on cluster {}", self.target.alias());
                    let error = NetError::kafka(code.0, "OffsetCommit", what);
                    self.uncommitted(&group, &error);
                }
            } else {
                self.active.remove(&group);
                self.troubles.remove(&group);
                standing.insert(group.clone());
            }
            let done = codes.values().filter(|code| code.0 == 0).count();
            self.gauges.commits.increment(done as u64);
            for entry in entries.get(&group).into_iter().flatten() {
                let key = entry.key();
                let back = commit.back.contains(&key);
                if back && codes.get(&key).is_some_and(|code| code.0 == 0) {
                    settled.push(entry.checkpoint(&group));
                }
            }
        }
        settled
    }

    fn uncommitted(&mut self, group: &str, error: &NetError) {
        let what = format!(
            "cannot commit the offsets of this group on cluster {}, the others go on",
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
