//! Consumer groups of a running link: their offsets are translated, written as checkpoints, and committed on the target.

mod both_ways;
mod checkpoints;
pub(crate) mod commits;
pub(crate) mod one_look;
mod origins;
pub(crate) mod share_groups;
mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_config::{Forward, GroupSettings, LinkConfig, Policy};
use strait_engine::{FlowKey, LinkHandle, SessionError};
use strait_net::{Action, Cluster, CoordinatorKind, GroupOffsets, NetError, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::groups::both_ways::BothWays;
use crate::groups::checkpoints::Checkpoints;
use crate::groups::commits::{Ends, Entries, Entry, Kind, UNCOMMITTED, Waiting};
use crate::groups::share_groups::ShareGroups;
use crate::translation::{Budget, Translator};

/// What one round may read from the logs of each side to know offsets exactly.
const ROUND_BYTES: u64 = 64 << 20;
/// And for how long.
const ROUND_TIME: Duration = Duration::from_secs(5);
/// How often ladders are kept.
const KEEP_LADDERS: Duration = Duration::from_secs(300);
/// How many in one piece, and the time to the next one.
const KEEP_AT_ONCE: usize = 50;
const KEEP_PAUSE: Duration = Duration::from_millis(100);
/// How long after the start that is done first.
const KEEP_FIRST: Duration = Duration::from_secs(10);
/// How long until the next try after a round that failed.
const RETRY: Duration = Duration::from_secs(5);

/// How many rounds in a row may fail without a word where the error passes by itself.
const WORDLESS: u32 = 2;

/// What a group has committed on the source cannot be read.
pub(crate) const UNREADABLE: &str = "group-unreadable";

/// Source partitions that are mirrored now.
pub(crate) type Mirrored = watch::Receiver<Arc<BTreeSet<FlowKey>>>;

/// The groups of one link.
pub(crate) struct Groups {
    pub(crate) rt: Runtime,
    pub(crate) link: String,
    pub(crate) settings: GroupSettings,
    internal_replication: Option<i16>,
    internal_separator: String,
    /// Others write to the target partitions too.
    shared: bool,
    pub(crate) source: Cluster,
    pub(crate) target: Cluster,
    handle: LinkHandle,
    pub(crate) mirrored: Mirrored,
    pub(crate) translator: Translator,
    /// In its place where links go both ways under the same names.
    pub(crate) both_ways: Option<BothWays>,
    pub(crate) checkpoints: Option<Checkpoints>,
    /// Groups that are selected, as the source listed them last.
    groups: Vec<String>,
    /// And share groups.
    pub(crate) share: ShareGroups,
    listed: Option<Instant>,
    emitted: Option<Instant>,
    keep_at: Instant,
    /// The last round was told which groups there are, and the positions.
    ready: bool,
    /// Where the target partitions begin and end.
    pub(crate) ends: Ends,
    /// The group that the next round begins with, and the flow that it counts first.
    first: Option<String>,
    first_flow: Option<FlowKey>,
    /// What is wrong with a group, by the id it was said with.
    pub(crate) troubles: BTreeMap<String, &'static str>,
    /// Those that were not committed for in this round since the look at them had become too old; whether that was said.
    pub(crate) late: BTreeSet<String>,
    pub(crate) late_said: bool,
    /// Groups of either kind with commits on mirrored partitions, as was seen last.
    concerned: BTreeSet<String>,
    /// Those of them with members on the target, as the last round was told.
    pub(crate) active: BTreeSet<String>,
    pub(crate) gauges: Gauges,
}

pub(crate) struct Gauges {
    seen: metrics::Gauge,
    committed: metrics::Gauge,
    active: metrics::Gauge,
    troubled: metrics::Gauge,
    round: metrics::Gauge,
    pub(crate) commits: metrics::Counter,
}

impl Gauges {
    fn new(link: &str) -> Self {
        let gauge = |name: &'static str| metrics::gauge!(name, "link" => link.to_owned());
        Self {
            seen: gauge("strait_groups"),
            committed: gauge("strait_groups_committed"),
            active: gauge("strait_groups_active"),
            troubled: gauge("strait_groups_troubled"),
            round: gauge("strait_groups_round_seconds"),
            commits: metrics::counter!("strait_group_commits_total", "link" => link.to_owned()),
        }
    }

    /// Whoever cannot look tells of none that stands there.
    fn nothing_known(&self) {
        self.committed.set(0.0);
        self.active.set(0.0);
    }

    /// Whoever does not own the link has none.
    fn none(&self) {
        self.seen.set(0.0);
        self.troubled.set(0.0);
    }
}

/// What comes next between two rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The next round.
    Round,
    /// A piece of the ladders.
    Keep,
    /// A slice of the share groups.
    Share,
    /// Nothing before this.
    Wait(Instant),
}

/// Ladders go first: share groups may always have something to do.
fn turn(now: Instant, until: Instant, keep_at: Instant, share: Option<Instant>) -> Turn {
    let keep = Some(keep_at.max(now)).filter(|at| *at + KEEP_PAUSE < until);
    if now >= until {
        Turn::Round
    } else if keep == Some(now) {
        Turn::Keep
    } else if share.is_some_and(|at| at <= now) {
        Turn::Share
    } else {
        Turn::Wait(keep.into_iter().chain(share).fold(until, Instant::min))
    }
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
        let (here, there) = (source.clone(), target.clone());
        let translator = Translator::new(&rt, &config.name, here.clone(), there.clone())
            .internal_separator(&config.internal_separator);
        let both_ways = (config.forward == Forward::Local)
            .then(|| BothWays::new(&rt, &config.name, here, there));
        Self {
            link: config.name.clone(),
            settings: config.groups.clone(),
            internal_replication: config.internal_replication_factor,
            internal_separator: config.internal_separator.clone(),
            shared: config.policies.foreign_writer == Policy::GoOn,
            source,
            target,
            handle,
            mirrored,
            translator,
            both_ways,
            checkpoints: None,
            groups: Vec::new(),
            share: ShareGroups::default(),
            listed: None,
            emitted: None,
            keep_at: rt.now() + KEEP_FIRST,
            ready: false,
            ends: Ends::default(),
            first: None,
            first_flow: None,
            troubles: BTreeMap::new(),
            late: BTreeSet::new(),
            late_said: false,
            concerned: BTreeSet::new(),
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
        if self.shared && self.both_ways.is_none() {
            warn!(
                link = %self.link, id = "groups-untranslated",
                "offsets of consumer groups are not translated: with on-foreign-writer = \"continue\" others write to the target topics too, and it cannot be known which of their records a group has read; set groups = [] to say that this is meant"
            );
            return;
        }
        // Until the topics are found.
        let _ = self.mirrored.changed().await;
        let (mut said, mut failed) = (None, 0);
        loop {
            // Whoever does not own the link commits nothing.
            if !self.open() {
                self.gauges.none();
                self.nothing_known();
                self.share.stop();
            }
            if !self.owns().await {
                return;
            }
            let ended = self.round().await;
            // Where it did not come to its end nothing is told of them.
            self.late.clear();
            let wait = match ended {
                Ok(()) => {
                    (said, failed) = (None, 0);
                    self.interval()
                }
                Err(error) => {
                    self.nothing_known();
                    // A coordinator that loads its groups, or whose topic is just being made, is there in a moment.
                    let wordless = failed < WORDLESS && error.action() == Action::Retry;
                    let text = match error {
                        SessionError::Lost(why) => why,
                        error => error.to_string(),
                    };
                    if wordless {
                        failed += 1;
                        debug!(link = %self.link, "groups cannot be looked at yet: {text}");
                    } else {
                        if said.as_ref() == Some(&text) {
                            debug!(link = %self.link, "{text}");
                        } else {
                            warn!(
                                link = %self.link, id = "groups-stalled",
                                "offsets of consumer groups are not translated at the moment, trying again; topics are mirrored all the same: {text}"
                            );
                        }
                        said = Some(text);
                    }
                    RETRY
                }
            };
            self.pause(wait).await;
        }
    }

    fn nothing_known(&self) {
        self.gauges.nothing_known();
        if let Some(both_ways) = &self.both_ways {
            both_ways.nothing_known();
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

    /// All groups once, slice by slice: what is held of them at a time is bounded, and what the target has is read right
    /// before it is committed there.
    async fn round(&mut self) -> Result<(), SessionError> {
        let now = self.rt.now();
        let refresh = match (self.listed, self.settings.refresh) {
            (None, _) => true,
            (Some(at), Some(interval)) => now.saturating_duration_since(at) >= interval,
            (Some(_), None) => false,
        };
        self.ready = false;
        if refresh {
            self.list().await?;
        }
        match &mut self.both_ways {
            Some(both_ways) => both_ways.refresh().await?,
            None => self.translator.refresh().await?,
        }
        self.ready = true;
        let emit = self.settings.emit_checkpoints
            && self.emitted.is_none_or(|at| {
                now.saturating_duration_since(at) + Duration::from_millis(500)
                    >= self.settings.checkpoints_interval
            });
        let mut order = self.groups.clone();
        let first = self.first.take().unwrap_or_default();
        let first = order.partition_point(|group| *group < first);
        order.rotate_left(first);
        let mut waiting = Waiting::default();
        let looked = self.look(&order, emit, &mut waiting).await;
        if !self.open() {
            return looked.map(drop);
        }
        self.first = waiting.full_at.take();
        // Share groups need no checkpoints: what they wait for is read all the same.
        self.count(&waiting).await;
        let (seen, mut standing) = looked?;
        let mut waiting: Vec<(String, Vec<Entry>)> = waiting.entries.into_iter().collect();
        while !waiting.is_empty() && self.open() {
            let rest = waiting.split_off(waiting.len().min(Kind::Consumer.at_once()));
            let mut slice: Entries = std::mem::replace(&mut waiting, rest).into_iter().collect();
            self.take_up(&mut slice);
            standing.extend(self.apply(Kind::Consumer, &slice, emit).await?);
            self.share_step().await;
        }
        if emit {
            self.emitted = Some(now);
        }
        self.tell_late(!standing.is_empty());
        self.look_for_members().await;
        let (shared, shared_standing) = self.share.last;
        self.gauges.seen.set((seen + shared) as f64);
        let standing = standing.len() + shared_standing;
        self.gauges.committed.set(standing as f64);
        self.gauges.active.set(self.active.len() as f64);
        let untold = self.both_ways.as_mut().map_or(0, BothWays::count);
        self.gauges
            .troubled
            .set((self.troubles.len() + untold) as f64);
        let took = self.rt.now().saturating_duration_since(now);
        self.gauges.round.set(took.as_secs_f64());
        Ok(())
    }

    /// Translates and commits for these groups as far as is known; how many there are with something to commit, and those that
    /// stand on the target where they should.
    async fn look(
        &mut self,
        groups: &[String],
        emit: bool,
        waiting: &mut Waiting,
    ) -> Result<(usize, BTreeSet<String>), SessionError> {
        let (mut seen, mut standing) = (0, BTreeSet::new());
        for slice in groups.chunks(Kind::Consumer.at_once()) {
            if !self.open() {
                break;
            }
            let source = self.committed(Kind::Consumer, true, slice).await;
            let entries = self.entries(Kind::Consumer, source);
            seen += entries.len();
            // Whoever mirrors no groups needs no rights for them.
            if self.checkpoints.is_none() && !entries.is_empty() {
                self.checkpoints = Some(self.open_checkpoints().await?);
            }
            // What is known is not held up by what has to be read.
            let known = self.defer(entries, waiting);
            standing.extend(self.apply(Kind::Consumer, &known, emit).await?);
            self.share_step().await;
        }
        Ok((seen, standing))
    }

    /// Whether a session is open now.
    pub(crate) fn open(&self) -> bool {
        self.handle.status().borrow().open
    }

    /// Waits for the next round; meanwhile ladders are kept, few at a time (the lease goes by the same log), and share groups
    /// have their turn if the last round knew the positions.
    async fn pause(&mut self, wait: Duration) {
        let until = self.rt.now() + self.rt.jitter(wait);
        let mut keep_at = self.keep_at;
        loop {
            let now = self.rt.now();
            let share = self.share_due(now).filter(|_| self.ready);
            match turn(now, until, keep_at, share) {
                Turn::Round => return,
                Turn::Keep => {
                    self.keep_ladders().await;
                    keep_at = self.keep_at.max(self.rt.now() + KEEP_PAUSE);
                }
                Turn::Share => self.share_step().await,
                Turn::Wait(until) => self.rt.sleep_until(until).await,
            }
        }
    }

    async fn keep_ladders(&mut self) {
        let (ladders, all) = match &mut self.both_ways {
            Some(both_ways) => both_ways.unkept(KEEP_AT_ONCE),
            None => self.translator.to_keep(KEEP_AT_ONCE),
        };
        if all {
            self.keep_at = self.rt.now() + KEEP_LADDERS;
        }
        if !ladders.is_empty() {
            self.handle.keep(ladders).await;
        }
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
        let separator = &self.internal_separator;
        Checkpoints::open(&self.rt, &self.link, source, target, separator, replication).await
    }

    /// Asks every broker of the source for its groups.
    async fn list(&mut self) -> Result<(), NetError> {
        let brokers = self.source.metadata(Some(&[])).await?.brokers;
        let (mut found, mut shared) = (BTreeSet::new(), BTreeSet::new());
        let mut failed = None;
        let mut jobs = JoinSet::new();
        for &broker in brokers.keys() {
            let source = self.source.clone();
            jobs.spawn(async move { source.list_groups(broker).await });
        }
        while let Some(done) = jobs.join_next().await {
            let groups = match done {
                Ok(Ok(groups)) => groups,
                // The groups of the others have their turn.
                Ok(Err(error)) => {
                    failed = Some(error);
                    continue;
                }
                Err(_) => continue,
            };
            for group in groups.into_iter().filter(|g| self.settings.selects(&g.id)) {
                match Kind::of(&group) {
                    Some(Kind::Share) => shared.insert(group.id),
                    Some(Kind::Consumer) => found.insert(group.id),
                    None => continue,
                };
            }
        }
        let complete = failed.is_none();
        if let Some(error) = failed {
            if found.is_empty() && self.groups.is_empty() {
                return Err(error);
            }
            debug!(link = %self.link, "a broker of the source did not list its groups: {error}");
            found.extend(self.groups.drain(..));
            shared.extend(self.share.names.drain(..));
        } else {
            if self.listed.is_none() {
                info!(link = %self.link, groups = found.len(), share_groups = shared.len(), "groups found");
            }
            self.listed = Some(self.rt.now());
        }
        let known = |group: &String| found.contains(group) || shared.contains(group);
        self.troubles.retain(|group, _| known(group));
        self.active.retain(known);
        self.concerned.retain(known);
        for group in self.groups.iter().chain(&self.share.names) {
            if !known(group) {
                self.target
                    .forget_coordinator(CoordinatorKind::Group, group);
            }
        }
        if let (Some(checkpoints), true) = (&mut self.checkpoints, complete) {
            checkpoints.forget_gone(|group| found.contains(group), self.rt.now());
        }
        self.groups = found.into_iter().collect();
        self.share.names = shared.into_iter().collect();
        Ok(())
    }

    /// The commits on mirrored partitions, translated as far as is known.
    pub(crate) fn entries(
        &mut self,
        kind: Kind,
        source: BTreeMap<String, Result<GroupOffsets, NetError>>,
    ) -> Entries {
        let mirrored = self.mirrored.borrow().clone();
        let mut entries = Entries::new();
        for (group, offsets) in source {
            let offsets = match offsets {
                Ok(offsets) => {
                    self.well(&group, UNREADABLE);
                    offsets
                }
                Err(error) => {
                    self.active.remove(&group);
                    let what = format!(
                        "cannot read the offsets of this {kind} on cluster {}",
                        self.source.alias()
                    );
                    let right = "Describe on the group there";
                    self.trouble(&group, UNREADABLE, &error, &what, right);
                    continue;
                }
            };
            let mut found = Vec::new();
            for ((topic, partition), committed) in offsets {
                let flow = FlowKey { topic, partition };
                if !mirrored.contains(&flow) {
                    continue;
                }
                let translated = match &mut self.both_ways {
                    Some(both_ways) => both_ways.translate(&group, &flow, committed.offset),
                    None => self.translator.known(&flow, committed.offset),
                };
                let Some(translated) = translated else {
                    continue;
                };
                found.push(Entry {
                    flow,
                    upstream: committed.offset,
                    metadata: committed.metadata,
                    translated,
                });
            }
            if found.is_empty() {
                // Its topics are not mirrored, or not any more.
                self.concerned.remove(&group);
                self.active.remove(&group);
                self.well(&group, UNCOMMITTED);
            } else {
                self.concerned.insert(group.clone());
                entries.insert(group, found);
            }
        }
        entries
    }

    /// Asks the target which of the groups have members there. Of a broker that does not tell it are those whose commits were
    /// refused in this round.
    async fn look_for_members(&mut self) {
        if !self.settings.sync_offsets || self.concerned.is_empty() {
            return;
        }
        let Ok(metadata) = self.target.metadata(Some(&[])).await else {
            return;
        };
        let mut jobs = JoinSet::new();
        for &broker in metadata.brokers.keys() {
            let target = self.target.clone();
            jobs.spawn(async move { target.groups_with_members(broker).await });
        }
        let (mut active, mut whole) = (BTreeSet::new(), true);
        while let Some(done) = jobs.join_next().await {
            match done {
                Ok(Ok(Some(groups))) => {
                    let here = |group: &String| self.concerned.contains(group);
                    active.extend(groups.into_iter().filter(here));
                }
                _ => whole = false,
            }
        }
        if whole {
            self.active.clear();
        }
        self.active.extend(active);
    }

    /// Reads for those that wait, of both kinds, within what a round may take, beginning where the last one ended.
    async fn count(&mut self, waiting: &Waiting) {
        let mut open: BTreeMap<FlowKey, BTreeSet<i64>> = BTreeMap::new();
        let shared = &self.share.waiting.entries;
        for entry in waiting.entries.values().chain(shared.values()).flatten() {
            let offsets = open.entry(entry.flow.clone()).or_default();
            offsets.insert(entry.upstream);
        }
        let first = self.first_flow.take();
        let after = first.map_or_else(BTreeMap::new, |first| open.split_off(&first));
        let budget = Arc::new(Budget::new(&self.rt, ROUND_BYTES, ROUND_TIME));
        self.first_flow = self
            .translator
            .count(after.into_iter().chain(open), &budget)
            .await;
        self.share.was_read();
    }

    pub(crate) fn well(&mut self, group: &str, id: &'static str) {
        if self.troubles.get(group) == Some(&id) {
            self.troubles.remove(group);
        }
    }

    /// Says once what is wrong with a group, unless it passes by itself.
    pub(crate) fn trouble(
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

#[cfg(test)]
#[path = "groups/groups_test.rs"]
mod tests;
