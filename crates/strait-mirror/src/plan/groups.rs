//! What a link would do for consumer groups, found out without writing anything.

use std::collections::{BTreeMap, BTreeSet};

use strait_config::{Forward, LinkConfig, Policy};
use strait_net::{Cluster, ListedGroup, NetError, Runtime};
use tokio::time::Instant;

use crate::groups::commits::Kind;
use crate::groups::one_look::{PATIENCE, offsets_at_last};
use crate::groups::share_groups::unsupported;
use crate::untold::{Untold, listed_groups};

/// Groups that are asked about at a time.
const SLICE: usize = 500;
/// Refusals that are told one by one.
const TOLD: usize = 20;

/// The groups of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedGroups {
    /// Those of consumers: they have commits.
    pub consumer: PlannedKind,
    /// Share groups: they have start offsets.
    pub share: PlannedKind,
    /// Groups that cannot be read, and the right that is missing.
    pub refused: Vec<(String, String)>,
    /// Brokers that do not tell their groups, and why: the groups that they coordinate are missing here.
    pub unlisted: Vec<String>,
}

/// The groups of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedKind {
    /// Selected by their names, of those that the source shows to Strait's user.
    pub selected: usize,
    /// Those of them with offsets on topics that would be mirrored: they are looked after.
    pub with_offsets: usize,
    /// Those of these with members on the target, which are left alone. None where the brokers do not tell (before Kafka 2.6), or
    /// none is looked after.
    pub active: Option<Vec<String>>,
    /// Why none is looked after, if so.
    pub untranslated: Option<String>,
}

/// Looks at the groups of a link that would mirror these `topics` of the source. `None` where it would look after none; or why
/// that is not known.
pub(crate) async fn planned_groups(
    rt: &Runtime,
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    topics: &BTreeMap<String, String>,
) -> Option<Result<PlannedGroups, String>> {
    if !config.groups.wanted() {
        return None;
    }
    let mut planned = PlannedGroups::default();
    if config.policies.foreign_writer == Policy::GoOn && config.forward == Forward::All {
        let why = "others write to the target topics too (on-foreign-writer = \"continue\")";
        for kind in [&mut planned.consumer, &mut planned.share] {
            kind.untranslated = Some(why.to_owned());
        }
        return Some(Ok(planned));
    }
    let mut look = Look {
        rt,
        until: rt.now() + PATIENCE,
        config,
        source,
        target,
        refused: BTreeMap::new(),
    };
    Some(look.take(topics, planned).await)
}

/// One look at both sides.
struct Look<'a> {
    rt: &'a Runtime,
    /// How long coordinators that are not there yet are waited for.
    until: Instant,
    config: &'a LinkConfig,
    source: &'a Cluster,
    target: &'a Cluster,
    refused: BTreeMap<String, String>,
}

impl Look<'_> {
    async fn take(
        &mut self,
        topics: &BTreeMap<String, String>,
        mut planned: PlannedGroups,
    ) -> Result<PlannedGroups, String> {
        let here = listed(self.source, &mut planned.unlisted).await?;
        let there = match self.config.groups.sync_offsets {
            true => listed(self.target, &mut planned.unlisted).await?,
            false => Vec::new(),
        };
        let sides = (here.as_slice(), there.as_slice());
        planned.consumer = self.kind(Kind::Consumer, sides, topics).await;
        planned.share = self.kind(Kind::Share, sides, topics).await;
        let refused = std::mem::take(&mut self.refused);
        let more = refused.len().saturating_sub(TOLD);
        planned.refused = refused.into_iter().take(TOLD).collect();
        if more > 0 {
            let what = format!("{more} groups more");
            planned.refused.push((what, "for such reasons".to_owned()));
        }
        Ok(planned)
    }

    async fn kind(
        &mut self,
        kind: Kind,
        (here, there): (&[ListedGroup], &[ListedGroup]),
        topics: &BTreeMap<String, String>,
    ) -> PlannedKind {
        let selected: Vec<String> = here
            .iter()
            .filter(|group| Kind::of(group) == Some(kind) && self.config.groups.selects(&group.id))
            .map(|group| group.id.clone())
            .collect();
        let mut planned = PlannedKind {
            selected: selected.len(),
            ..PlannedKind::default()
        };
        if kind == Kind::Share {
            planned.untranslated = self.share_groups_left_alone();
        }
        if planned.untranslated.is_some() {
            return planned;
        }
        let concerned = match self.concerned(kind, &selected, topics).await {
            Ok(concerned) => concerned,
            Err(why) => {
                planned.untranslated = Some(why);
                return planned;
            }
        };
        planned.with_offsets = concerned.len();
        let told = there.iter().all(|group| !group.state.is_empty());
        let active = there.iter().filter(|group| {
            let idle = matches!(group.state.as_str(), "Empty" | "Dead");
            !idle && concerned.contains(&group.id)
        });
        planned.active = told.then(|| active.map(|group| group.id.clone()).collect());
        planned
    }

    /// Those of these groups with offsets on `topics`; which of them cannot be read on a side is noted. Or why none of the kind is
    /// looked after.
    async fn concerned(
        &mut self,
        kind: Kind,
        selected: &[String],
        topics: &BTreeMap<String, String>,
    ) -> Result<BTreeSet<String>, String> {
        let mut concerned = BTreeSet::new();
        for slice in selected.chunks(SLICE) {
            for (group, offsets) in
                offsets_at_last(self.rt, self.until, kind, self.source, slice).await
            {
                match offsets {
                    Ok(offsets) if offsets.keys().any(|(topic, _)| topics.contains_key(topic)) => {
                        concerned.insert(group);
                    }
                    Ok(_) => {}
                    Err(error) => self.refuse((kind, group), &error, self.source, "Describe")?,
                }
            }
        }
        if self.config.groups.sync_offsets {
            let names: Vec<String> = concerned.iter().cloned().collect();
            for slice in names.chunks(SLICE) {
                for (group, offsets) in
                    offsets_at_last(self.rt, self.until, kind, self.target, slice).await
                {
                    if let Err(error) = offsets {
                        self.refuse(
                            (kind, group),
                            &error,
                            self.target,
                            "Read (Describe is in it)",
                        )?;
                    }
                }
            }
        }
        Ok(concerned)
    }

    fn refuse(
        &mut self,
        (kind, group): (Kind, String),
        error: &NetError,
        cluster: &Cluster,
        right: &str,
    ) -> Result<(), String> {
        if kind == Kind::Share && unsupported(error) {
            let alias = cluster.alias();
            return Err(format!(
                "cluster {alias} does not have what is needed for them, which is there from Kafka 4.1 on: {error}"
            ));
        }
        self.refused.insert(group, why(error, cluster, right));
        Ok(())
    }

    fn share_groups_left_alone(&self) -> Option<String> {
        let why = match (self.config.groups.sync_offsets, self.config.forward) {
            (false, _) => "sync-group-offsets is off, and share groups have no checkpoints",
            (true, Forward::Local) => {
                "between clusters that mirror each other a start offset has no translation"
            }
            (true, Forward::All) => return None,
        };
        Some(why.to_owned())
    }
}

/// The groups of a cluster; brokers that do not tell theirs are added to `unlisted`.
async fn listed(cluster: &Cluster, unlisted: &mut Vec<String>) -> Result<Vec<ListedGroup>, String> {
    let (groups, untold) = listed_groups(cluster).await.map_err(|error| {
        format!(
            "the groups of cluster {}, where Strait's user needs Describe on them: {error}",
            cluster.alias()
        )
    })?;
    let told = |one: &Untold| format!("{}: {}", one.what, one.why);
    unlisted.extend(untold.iter().map(told));
    Ok(groups)
}

fn why(error: &NetError, cluster: &Cluster, right: &str) -> String {
    match error.code() {
        Some(code) if matches!(code.0, 29..=31) => format!(
            "cluster {} answers {code}: give Strait's user {right} on the group there",
            cluster.alias()
        ),
        Some(code) => format!("cluster {} answers {code}", cluster.alias()),
        None => error.to_string(),
    }
}
