//! Whether the offsets of groups have been carried over: what they have committed on the source, or where share groups begin
//! there, against what stands for them on the target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_config::LinkConfig;
use strait_engine::FlowKey;
use strait_net::{Cluster, GroupOffsets, NetError, Runtime};

use crate::groups::commits::{Kind, offsets_of};
use crate::groups::share_groups::unsupported;
use crate::mirror::MirrorError;
use crate::translation::{Budget, Translator};
use crate::untold::{Untold, Why, listed_groups};

/// What one look may read to know offsets exactly, in bytes, and how long.
const LOOK: (u64, Duration) = (64 << 20, Duration::from_secs(5));

/// A group of either kind.
type Group = (Kind, String);

/// A group that does not stand on the target where it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupBehind {
    /// The group.
    pub group: String,
    /// It is a share group.
    pub share: bool,
    /// The topic on the target.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// What is committed there, if anything.
    pub stands: Option<i64>,
    /// What should be.
    pub belongs: i64,
}

/// The groups of one link, with what they had committed on the source when it was first told.
#[derive(Debug)]
pub struct Carried {
    rt: Runtime,
    link: LinkConfig,
    source: Cluster,
    target: Cluster,
    translator: Translator,
    /// The partitions whose commits count.
    flows: BTreeSet<FlowKey>,
    /// All groups are known.
    listed: bool,
    /// Groups whose commits the source has not told yet.
    unread: BTreeSet<Group>,
    wanted: BTreeMap<Group, Vec<(FlowKey, i64)>>,
    /// Groups that were asked for on the source.
    seen: BTreeSet<Group>,
    /// Share groups of which one of the clusters has no start offsets: nothing is done for them.
    unserved: BTreeSet<String>,
}

impl Carried {
    /// The groups that the link selects, and what they have committed of these partitions. Needs Describe on them on both
    /// clusters, and on the target what [`Translator`] needs. Nothing is asked before the first look.
    pub fn new(
        rt: &Runtime,
        link: &LinkConfig,
        (source, target): (Cluster, Cluster),
        flows: BTreeSet<FlowKey>,
    ) -> Self {
        Self {
            rt: rt.clone(),
            link: link.clone(),
            translator: Translator::new(rt, &link.name, source.clone(), target.clone())
                .internal_separator(&link.internal_separator),
            source,
            target,
            flows,
            listed: false,
            unread: BTreeSet::new(),
            wanted: BTreeMap::new(),
            seen: BTreeSet::new(),
            unserved: BTreeSet::new(),
        }
    }

    /// How many groups there are, of those that are known.
    pub fn groups(&self) -> usize {
        self.wanted.len()
    }

    /// Share groups that are not waited for, as one of the clusters lacks the API for their start offsets.
    pub fn unserved(&self) -> &BTreeSet<String> {
        &self.unserved
    }

    /// Those that do not stand where they should yet, by group and partition (who went further on the target does); and what
    /// the clusters do not tell.
    ///
    /// # Errors
    /// The positions on the target cannot be read, or a cluster cannot be reached at all.
    pub async fn look(&mut self) -> Result<(Vec<GroupBehind>, Vec<Untold>), MirrorError> {
        self.translator.refresh().await?;
        let mut untold = self.ask_source().await?;
        let mut open: BTreeMap<FlowKey, BTreeSet<i64>> = BTreeMap::new();
        for (flow, offset) in self.wanted.values().flatten() {
            if self.translator.countable(flow, *offset) {
                open.entry(flow.clone()).or_default().insert(*offset);
            }
        }
        let budget = Arc::new(Budget::new(&self.rt, LOOK.0, LOOK.1));
        self.translator.count(open.clone(), &budget).await;
        // A commit at a lower bound may be moved on by the mirror.
        let uncounted: usize = open
            .iter()
            .flat_map(|(flow, offsets)| offsets.iter().map(move |at| (flow, *at)))
            .filter(|(flow, at)| self.translator.countable(flow, *at))
            .count();
        if uncounted > 0 {
            let what = format!("where {uncounted} of the offsets belong exactly");
            untold.push(Untold::because(what, Why::Unfinished));
        }
        let groups: Vec<Group> = self.wanted.keys().cloned().collect();
        let mut behind = Vec::new();
        for (group, committed) in asked_of(&self.target, &groups, false).await {
            match committed {
                Ok(committed) => behind.extend(self.of_group(&group, &committed)),
                Err(error) if group.0 == Kind::Share && unsupported(&error) => {
                    self.wanted.remove(&group);
                    self.unserved.insert(group.1);
                }
                Err(error) => untold.push(not_told(&group, &self.target, error)),
            }
        }
        Ok((behind, untold))
    }

    /// Asks the source for what it has not told yet.
    async fn ask_source(&mut self) -> Result<Vec<Untold>, MirrorError> {
        let mut untold = Vec::new();
        if !self.listed {
            let (groups, unlisted) = listed_groups(&self.source).await?;
            self.listed = unlisted.is_empty();
            untold = unlisted;
            let selected = groups
                .into_iter()
                .filter(|g| self.link.groups.selects(&g.id));
            let groups = selected.filter_map(|group| Some((Kind::of(&group)?, group.id)));
            let new = groups.filter(|g| !self.seen.contains(g));
            self.unread.extend(new);
        }
        let asked: Vec<Group> = self.unread.iter().cloned().collect();
        for (group, committed) in asked_of(&self.source, &asked, true).await {
            let committed = match committed {
                Ok(committed) => committed,
                Err(error) if group.0 == Kind::Share && unsupported(&error) => {
                    self.unserved.insert(group.1.clone());
                    GroupOffsets::default()
                }
                Err(error) => {
                    untold.push(not_told(&group, &self.source, error));
                    continue;
                }
            };
            let commits = committed.into_iter().map(|((topic, partition), at)| {
                let flow = FlowKey { topic, partition };
                (flow, at.offset)
            });
            let mirrored: Vec<(FlowKey, i64)> = commits
                .filter(|(flow, _)| self.flows.contains(flow) && self.translator.mirrors(flow))
                .collect();
            self.unread.remove(&group);
            self.seen.insert(group.clone());
            if !mirrored.is_empty() {
                self.wanted.insert(group, mirrored);
            }
        }
        Ok(untold)
    }

    fn of_group(&mut self, group: &Group, committed: &GroupOffsets) -> Vec<GroupBehind> {
        let Self {
            translator, wanted, ..
        } = self;
        let wanted = wanted.get(group).into_iter().flatten();
        let behind = wanted.filter_map(|(flow, offset)| {
            let belongs = translator.known(flow, *offset)?;
            let key = (belongs.topic, belongs.partition);
            let stands = committed.get(&key).map(|c| c.offset);
            let (topic, partition) = key;
            stands
                .is_none_or(|stands| stands < belongs.offset)
                .then(|| GroupBehind {
                    group: group.1.clone(),
                    share: group.0 == Kind::Share,
                    topic,
                    partition,
                    stands,
                    belongs: belongs.offset,
                })
        });
        behind.collect()
    }
}

/// [`offsets_of`] groups of both kinds.
async fn asked_of(
    cluster: &Cluster,
    groups: &[Group],
    stable: bool,
) -> Vec<(Group, Result<GroupOffsets, NetError>)> {
    let mut found = Vec::new();
    for kind in [Kind::Consumer, Kind::Share] {
        let of = groups.iter().filter(|(k, _)| *k == kind);
        let names: Vec<String> = of.map(|(_, name)| name.clone()).collect();
        for names in names.chunks(kind.at_once()) {
            let offsets = offsets_of(kind, cluster, names, stable).await.into_iter();
            found.extend(offsets.map(|(name, offsets)| ((kind, name), offsets)));
        }
    }
    found
}

fn not_told((kind, group): &Group, cluster: &Cluster, error: NetError) -> Untold {
    let alias = cluster.alias();
    let what = match kind {
        Kind::Consumer => format!("what group {group} has committed on cluster {alias}"),
        Kind::Share => format!("where share group {group} begins on cluster {alias}"),
    };
    Untold::new(what, error)
}
