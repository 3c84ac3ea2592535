//! Consumer groups of a running link: their offsets are translated, written as checkpoints, and committed on the target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_config::{GroupSettings, LinkConfig, Policy};
use strait_engine::{FlowKey, LinkHandle, SessionError};
use strait_net::{Action, Cluster, CommittedOffset, GroupOffsets, KafkaError, NetError, Runtime};
use strait_wire::mm2::Checkpoint;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::checkpoints::{Checkpoints, Place};
use crate::ladder::{Direction, direction};
use crate::translation::{Exactness, Translated, Translator};

/// What one round may read from the logs to know offsets exactly.
const ROUND_BYTES: u64 = 64 << 20;
/// Commits under way at the same time.
const COMMITS: usize = 16;
/// How long the ends of a target partition are believed.
const ENDS_FOR: Duration = Duration::from_secs(60);
/// How often ladders are kept, and how many at the most.
const KEEP_LADDERS: (Duration, usize) = (Duration::from_secs(300), 2_000);
/// How long after the start that is done first.
const KEEP_FIRST: Duration = Duration::from_secs(10);
/// How long until the next try after a round that failed.
const RETRY: Duration = Duration::from_secs(5);

/// What a group has committed on the source cannot be read.
const UNREADABLE: &str = "group-unreadable";
/// A group's offsets cannot be committed on the target.
const UNCOMMITTED: &str = "group-uncommitted";

/// Source partitions that are mirrored now.
pub(crate) type Mirrored = watch::Receiver<Arc<BTreeSet<FlowKey>>>;

/// The groups of one link.
pub(crate) struct Groups {
    rt: Runtime,
    link: String,
    settings: GroupSettings,
    internal_replication: Option<i16>,
    /// Others write to the target partitions too.
    shared: bool,
    source: Cluster,
    target: Cluster,
    handle: LinkHandle,
    mirrored: Mirrored,
    translator: Translator,
    checkpoints: Option<Checkpoints>,
    /// Groups that are selected, as the source listed them last.
    groups: Vec<String>,
    listed: Option<Instant>,
    emitted: Option<Instant>,
    keep_at: Instant,
    /// Where the target partitions begin and end, and when that was asked.
    ends: BTreeMap<(String, i32), (i64, i64, Instant)>,
    /// What is wrong with a group, by the id it was said with.
    troubles: BTreeMap<String, &'static str>,
    /// Groups that have members on the target, as the last commit told.
    active: BTreeSet<String>,
    gauges: Gauges,
}

struct Gauges {
    seen: metrics::Gauge,
    committed: metrics::Gauge,
    active: metrics::Gauge,
    troubled: metrics::Gauge,
    commits: metrics::Counter,
}

impl Gauges {
    fn new(link: &str) -> Self {
        let gauge = |name: &'static str| metrics::gauge!(name, "link" => link.to_owned());
        Self {
            seen: gauge("strait_groups"),
            committed: gauge("strait_groups_committed"),
            active: gauge("strait_groups_active"),
            troubled: gauge("strait_groups_troubled"),
            commits: metrics::counter!("strait_group_commits_total", "link" => link.to_owned()),
        }
    }
}

/// One commit of a group on the source, with what it means on the target.
#[derive(Clone, Debug)]
struct Entry {
    flow: FlowKey,
    upstream: i64,
    metadata: String,
    translated: Translated,
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
type Entries = BTreeMap<String, Vec<Entry>>;

/// What is to be committed for a group, and which partitions of it go back.
#[derive(Debug, Default)]
struct Commit {
    offsets: GroupOffsets,
    back: BTreeSet<(String, i32)>,
}

impl Groups {
    pub(crate) fn new(
        rt: Runtime,
        config: &LinkConfig,
        source: Cluster,
        target: Cluster,
        handle: LinkHandle,
        mirrored: Mirrored,
    ) -> Self {
        let translator = Translator::new(&rt, &config.name, source.clone(), target.clone());
        Self {
            link: config.name.clone(),
            settings: config.groups.clone(),
            internal_replication: config.internal_replication_factor,
            shared: config.policies.foreign_writer == Policy::GoOn,
            source,
            target,
            handle,
            mirrored,
            translator,
            checkpoints: None,
            groups: Vec::new(),
            listed: None,
            emitted: None,
            keep_at: rt.now() + KEEP_FIRST,
            ends: BTreeMap::new(),
            troubles: BTreeMap::new(),
            active: BTreeSet::new(),
            gauges: Gauges::new(&config.name),
            rt,
        }
    }

    /// Looks after the groups for as long as it is polled; returns only where there is nothing to do.
    pub(crate) async fn run(mut self) {
        if !self.settings.wanted() {
            return;
        }
        if self.shared {
            warn!(
                link = %self.link, id = "groups-untranslated",
                "offsets of consumer groups are not translated: with on-foreign-writer = \"continue\" others write to the target topics too, and it cannot be known which of their records a group has read; set groups = [] to say that this is meant"
            );
            return;
        }
        // Until the topics are found.
        let _ = self.mirrored.changed().await;
        let mut said = None;
        loop {
            // Whoever does not own the link commits nothing.
            if !self.owns().await {
                return;
            }
            let wait = match self.round().await {
                Ok(()) => {
                    said = None;
                    self.interval()
                }
                Err(error) => {
                    let text = match error {
                        SessionError::Lost(why) => why,
                        error => error.to_string(),
                    };
                    if said.as_ref() == Some(&text) {
                        debug!(link = %self.link, "{text}");
                    } else {
                        warn!(
                            link = %self.link, id = "groups-stalled",
                            "offsets of consumer groups are not translated at the moment, trying again; topics are mirrored all the same: {text}"
                        );
                    }
                    said = Some(text);
                    RETRY
                }
            };
            self.rt.sleep(self.rt.jitter(wait)).await;
        }
    }

    fn interval(&self) -> Duration {
        let settings = &self.settings;
        match (settings.sync_offsets, settings.emit_checkpoints) {
            (true, true) => settings.sync_interval.min(settings.checkpoints_interval),
            (true, false) => settings.sync_interval,
            _ => settings.checkpoints_interval,
        }
    }

    /// Waits until a session is open; false at the end of the link.
    async fn owns(&self) -> bool {
        self.handle
            .status()
            .wait_for(|status| status.open)
            .await
            .is_ok()
    }

    async fn round(&mut self) -> Result<(), SessionError> {
        let now = self.rt.now();
        let refresh = match (self.listed, self.settings.refresh) {
            (None, _) => true,
            (Some(at), Some(interval)) => now.saturating_duration_since(at) >= interval,
            (Some(_), None) => false,
        };
        if refresh {
            self.list().await?;
        }
        self.translator.refresh().await?;
        let source = self.source.committed_offsets(&self.groups).await;
        let (entries, open) = self.entries(source);
        self.gauges.seen.set(entries.len() as f64);
        // Whoever mirrors no groups needs no rights for them.
        if self.checkpoints.is_none() && !entries.is_empty() {
            self.checkpoints = Some(self.open_checkpoints().await?);
        }
        let emit = self.settings.emit_checkpoints
            && self.emitted.is_none_or(|at| {
                now.saturating_duration_since(at) + Duration::from_millis(500)
                    >= self.settings.checkpoints_interval
            });
        // What is known is not held up by what has to be read.
        let (known, unknown): (Entries, Entries) = split(entries, &open);
        let committed = self.apply(&known, emit).await?;
        let unknown = self.count(unknown, &open).await;
        let more = self.apply(&unknown, emit).await?;
        if emit {
            self.emitted = Some(now);
        }
        let committed: BTreeSet<&String> = committed.union(&more).collect();
        self.gauges.committed.set(committed.len() as f64);
        self.gauges.active.set(self.active.len() as f64);
        self.gauges.troubled.set(self.troubles.len() as f64);
        if self.rt.now() >= self.keep_at {
            let (interval, most) = KEEP_LADDERS;
            self.keep_at = self.rt.now() + interval;
            let ladders = self.translator.to_keep(most);
            if !ladders.is_empty() {
                self.handle.keep(ladders).await;
            }
        }
        Ok(())
    }

    async fn open_checkpoints(&self) -> Result<Checkpoints, SessionError> {
        if !self.settings.emit_checkpoints {
            return Ok(Checkpoints::in_memory());
        }
        let replication = self
            .settings
            .checkpoints_replication_factor
            .or(self.internal_replication);
        let (source, target) = (self.source.alias(), self.target.clone());
        Checkpoints::open(&self.rt, &self.link, source, target, replication).await
    }

    /// Asks every broker of the source for its groups.
    async fn list(&mut self) -> Result<(), NetError> {
        let brokers = self.source.metadata(Some(&[])).await?.brokers;
        let mut found = BTreeSet::new();
        let mut failed = None;
        for &broker in brokers.keys() {
            match self.source.list_groups(broker).await {
                Ok(groups) => found.extend(
                    groups
                        .into_iter()
                        .filter(|g| g.has_offsets() && self.settings.selects(&g.id))
                        .map(|g| g.id),
                ),
                // The groups of the others have their turn.
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            if found.is_empty() && self.groups.is_empty() {
                return Err(error);
            }
            debug!(link = %self.link, "a broker of the source did not list its groups: {error}");
            found.extend(self.groups.drain(..));
        } else {
            if self.listed.is_none() {
                info!(link = %self.link, groups = found.len(), "groups found");
            }
            self.listed = Some(self.rt.now());
        }
        self.troubles.retain(|group, _| found.contains(group));
        self.active.retain(|group| found.contains(group));
        self.groups = found.into_iter().collect();
        Ok(())
    }

    /// The commits on mirrored partitions, translated as far as is known; and those offsets that have to be counted.
    fn entries(
        &mut self,
        source: BTreeMap<String, Result<GroupOffsets, NetError>>,
    ) -> (Entries, BTreeMap<FlowKey, BTreeSet<i64>>) {
        let mirrored = self.mirrored.borrow().clone();
        let mut entries = Entries::new();
        let mut open: BTreeMap<FlowKey, BTreeSet<i64>> = BTreeMap::new();
        for (group, offsets) in source {
            let offsets = match offsets {
                Ok(offsets) => {
                    self.well(&group, UNREADABLE);
                    offsets
                }
                Err(error) => {
                    self.trouble(
                        &group,
                        UNREADABLE,
                        &error,
                        &format!(
                            "cannot read the offsets of this group on cluster {}",
                            self.source.alias()
                        ),
                        "Describe on the group there",
                    );
                    continue;
                }
            };
            let mut found = Vec::new();
            for ((topic, partition), committed) in offsets {
                let flow = FlowKey { topic, partition };
                if !mirrored.contains(&flow) {
                    continue;
                }
                let Some(translated) = self.translator.known(&flow, committed.offset) else {
                    continue;
                };
                if self.translator.countable(&flow, committed.offset) {
                    let offsets = open.entry(flow.clone()).or_default();
                    offsets.insert(committed.offset);
                }
                found.push(Entry {
                    flow,
                    upstream: committed.offset,
                    metadata: committed.metadata,
                    translated,
                });
            }
            if !found.is_empty() {
                entries.insert(group, found);
            }
        }
        (entries, open)
    }

    /// Reads for those that are not known, within the budget of a round.
    async fn count(
        &mut self,
        mut entries: Entries,
        open: &BTreeMap<FlowKey, BTreeSet<i64>>,
    ) -> Entries {
        let mut budget = ROUND_BYTES;
        let mut better = BTreeMap::new();
        for (flow, offsets) in open {
            let found = self.translator.count(flow, offsets, &mut budget).await;
            better.insert(flow, found);
        }
        for entry in entries.values_mut().flatten() {
            let found = better.get(&entry.flow);
            if let Some(translated) = found.and_then(|f| f.get(&entry.upstream)) {
                entry.translated = translated.clone();
            }
        }
        entries
    }

    /// Decides, writes checkpoints, commits; the groups that stand on the target where they should.
    async fn apply(
        &mut self,
        entries: &Entries,
        emit: bool,
    ) -> Result<BTreeSet<String>, SessionError> {
        let mut commits: BTreeMap<String, Commit> = BTreeMap::new();
        let mut standing = BTreeSet::new();
        if self.settings.sync_offsets && !entries.is_empty() {
            let groups: Vec<String> = entries.keys().cloned().collect();
            let target = self.target.committed_offsets(&groups).await;
            for (group, committed) in target {
                let Some(entries) = entries.get(&group) else {
                    continue;
                };
                match committed {
                    Ok(committed) => {
                        let commit = self.decide(&group, entries, &committed).await;
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
    async fn decide(&mut self, group: &str, entries: &[Entry], committed: &GroupOffsets) -> Commit {
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
            let Some((start, end)) = self.ends(&key, wanted, beyond).await else {
                continue;
            };
            // What a group wants to read and the target has not any more, it cannot read.
            let wanted = wanted.clamp(start, end.max(start));
            if now == Some(wanted) {
                continue;
            }
            let end = back.then_some(end);
            let offset = CommittedOffset {
                offset: wanted,
                metadata: entry.metadata.clone(),
            };
            match direction(now, wanted, entry.upstream, written, end) {
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

    /// Log start and high watermark of a target partition, not older than a minute; asked anew where a commit may lie
    /// `beyond` them, and where what is `wanted` lies below: the topic may be another one since, which begins at 0.
    async fn ends(
        &mut self,
        key: &(String, i32),
        wanted: i64,
        beyond: Option<i64>,
    ) -> Option<(i64, i64)> {
        let now = self.rt.now();
        if let Some(&(start, end, at)) = self.ends.get(key)
            && start <= wanted
            && now.saturating_duration_since(at) < ENDS_FOR
        {
            match beyond {
                // What was mirrored lies below the high watermark, which has gone on since.
                None => return Some((start, i64::MAX)),
                Some(commit) if commit <= end => return Some((start, end)),
                Some(_) => {}
            }
        }
        let asked = async {
            let leader = self.target.leader(&key.0, key.1).await?;
            let list = |time| {
                self.target
                    .list_offsets(&key.0, key.1, leader, time, false, false)
            };
            Ok::<_, NetError>((list(-2).await?.0, list(-1).await?.0))
        };
        match asked.await {
            Ok((start, end)) => {
                self.ends.insert(key.clone(), (start, end, now));
                Some((start, end))
            }
            Err(error) => {
                debug!(link = %self.link, topic = %key.0, partition = key.1, "offsets are not committed, the log's ends are not known: {error}");
                None
            }
        }
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

    fn well(&mut self, group: &str, id: &'static str) {
        if self.troubles.get(group) == Some(&id) {
            self.troubles.remove(group);
        }
    }

    /// Says once what is wrong with a group, unless it passes by itself.
    fn trouble(
        &mut self,
        group: &str,
        id: &'static str,
        error: &NetError,
        what: &str,
        right: &str,
    ) {
        let denied = error.code().is_some_and(|c| matches!(c.0, 29..=31));
        let text = if denied {
            format!(
                "{what}: {error}; give Strait's user {right}, or leave the group out with groups-exclude"
            )
        } else {
            format!("{what}: {error}; tried again each round")
        };
        let passing = error.action() != Action::Stop;
        let known = self.troubles.get(group) == Some(&id);
        if known || passing {
            debug!(link = %self.link, id, %group, "{text}");
        } else {
            warn!(link = %self.link, id, %group, "{text}");
            self.troubles.insert(group.to_owned(), id);
        }
    }
}

/// Entries that are known, and those that have to be counted; by partition, so that a group may be in both.
fn split(entries: Entries, open: &BTreeMap<FlowKey, BTreeSet<i64>>) -> (Entries, Entries) {
    let mut both = (Entries::new(), Entries::new());
    for (group, entries) in entries {
        for entry in entries {
            let counted = open
                .get(&entry.flow)
                .is_some_and(|offsets| offsets.contains(&entry.upstream));
            let side = if counted { &mut both.1 } else { &mut both.0 };
            side.entry(group.clone()).or_default().push(entry);
        }
    }
    both
}
