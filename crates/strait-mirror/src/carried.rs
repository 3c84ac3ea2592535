//! Whether the offsets of consumer groups have been carried over: what they have committed on the source, against what stands
//! for them on the target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_config::LinkConfig;
use strait_engine::FlowKey;
use strait_net::{Cluster, GroupOffsets, NetError, Runtime};

use crate::mirror::MirrorError;
use crate::translation::{Budget, Translator};

/// What one look may read to know offsets exactly, in bytes, and how long.
const LOOK: (u64, Duration) = (64 << 20, Duration::from_secs(5));

/// A group that does not stand on the target where it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupBehind {
    /// The group.
    pub group: String,
    /// The topic on the target.
    pub topic: String,
    /// The partition there.
    pub partition: i32,
    /// What is committed there, if anything.
    pub stands: Option<i64>,
    /// What should be.
    pub belongs: i64,
}

/// The groups of one link, with what they had committed on the source when this was begun.
#[derive(Debug)]
pub struct Carried {
    rt: Runtime,
    target: Cluster,
    translator: Translator,
    wanted: BTreeMap<String, Vec<(FlowKey, i64)>>,
}

impl Carried {
    /// Asks the source for the groups that the link selects, and what they have committed of these partitions. Needs Describe
    /// on them on both clusters, and on the target what [`Translator`] needs.
    ///
    /// # Errors
    /// A cluster cannot be reached, or does not tell.
    pub async fn begin(
        rt: &Runtime,
        link: &LinkConfig,
        (source, target): (Cluster, Cluster),
        flows: &BTreeSet<FlowKey>,
    ) -> Result<Self, MirrorError> {
        let groups = selected_groups(link, &source).await?;
        let mut translator = Translator::new(rt, &link.name, source.clone(), target.clone())
            .internal_separator(&link.internal_separator);
        translator.refresh().await?;
        let mut wanted = BTreeMap::new();
        for (group, committed) in source.committed_offsets(&groups).await {
            let commits = committed?.into_iter().map(|((topic, partition), at)| {
                let flow = FlowKey { topic, partition };
                (flow, at.offset)
            });
            let mirrored: Vec<(FlowKey, i64)> = commits
                .filter(|(flow, _)| flows.contains(flow) && translator.mirrors(flow))
                .collect();
            if !mirrored.is_empty() {
                wanted.insert(group, mirrored);
            }
        }
        Ok(Self {
            rt: rt.clone(),
            target,
            translator,
            wanted,
        })
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.wanted.len()
    }

    /// Those that do not stand where they should yet; by group and partition. Who went further on the target does.
    ///
    /// # Errors
    /// The target cannot be reached, or does not tell what a group has committed.
    pub async fn look(&mut self) -> Result<Vec<GroupBehind>, MirrorError> {
        self.translator.refresh().await?;
        let mut open: BTreeMap<FlowKey, BTreeSet<i64>> = BTreeMap::new();
        for (flow, offset) in self.wanted.values().flatten() {
            if self.translator.countable(flow, *offset) {
                open.entry(flow.clone()).or_default().insert(*offset);
            }
        }
        let budget = Arc::new(Budget::new(&self.rt, LOOK.0, LOOK.1));
        self.translator.count(open, &budget).await;
        let groups: Vec<String> = self.wanted.keys().cloned().collect();
        let mut behind = Vec::new();
        for (group, committed) in self.target.committed_offsets(&groups).await {
            behind.extend(self.of_group(&group, &committed?));
        }
        Ok(behind)
    }

    fn of_group(&mut self, group: &str, committed: &GroupOffsets) -> Vec<GroupBehind> {
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
                    group: group.to_owned(),
                    topic,
                    partition,
                    stands,
                    belongs: belongs.offset,
                })
        });
        behind.collect()
    }
}

/// The groups of a cluster that a link selects, sorted.
pub(crate) async fn selected_groups(
    link: &LinkConfig,
    cluster: &Cluster,
) -> Result<Vec<String>, NetError> {
    let brokers = cluster.metadata(Some(&[])).await?.brokers;
    let mut found = BTreeSet::new();
    for &broker in brokers.keys() {
        let listed = cluster.list_groups(broker).await?;
        let wanted = listed
            .into_iter()
            .filter(|g| g.has_offsets() && link.groups.selects(&g.id));
        found.extend(wanted.map(|g| g.id));
    }
    Ok(found.into_iter().collect())
}
