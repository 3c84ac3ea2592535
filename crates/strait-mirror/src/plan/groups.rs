//! What a link would do for consumer groups, found out without writing anything.

use std::collections::{BTreeMap, BTreeSet};

use strait_config::{Forward, LinkConfig, Policy};
use strait_net::{Cluster, NetError};

use crate::untold::{Untold, listed_groups};

/// Groups that are asked about at a time.
const SLICE: usize = 500;
/// Refusals that are told one by one.
const TOLD: usize = 20;

/// The groups of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedGroups {
    /// Selected by their names, of those that the source shows to Strait's user.
    pub selected: usize,
    /// Those of them with commits on topics that would be mirrored: they are looked after.
    pub with_commits: usize,
    /// Those of these with members on the target, which are left alone. None where the brokers do not tell (before Kafka 2.6).
    pub active: Option<Vec<String>>,
    /// Groups that cannot be read, and the right that is missing.
    pub refused: Vec<(String, String)>,
    /// Brokers that do not tell their groups, and why: the groups that they coordinate are missing here.
    pub unlisted: Vec<String>,
    /// Why nothing is translated at all, if so.
    pub untranslated: Option<String>,
}

/// Looks at the groups of a link that would mirror these `topics` of the source. `None` where it would look after none; or why
/// that is not known.
pub(crate) async fn planned_groups(
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
        planned.untranslated = Some(why.to_owned());
        return Some(Ok(planned));
    }
    Some(look(config, source, target, topics, planned).await)
}

async fn look(
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    topics: &BTreeMap<String, String>,
    mut planned: PlannedGroups,
) -> Result<PlannedGroups, String> {
    let listed = |error: NetError, cluster: &Cluster| {
        format!(
            "the groups of cluster {}, where Strait's user needs Describe on them: {error}",
            cluster.alias()
        )
    };
    let (groups, untold) = listed_groups(source).await.map_err(|e| listed(e, source))?;
    let told = |one: &Untold| format!("{}: {}", one.what, one.why);
    let mut unlisted: Vec<String> = untold.iter().map(told).collect();
    let selected: Vec<String> = groups
        .into_iter()
        .filter(|group| group.has_offsets() && config.groups.selects(&group.id))
        .map(|group| group.id)
        .collect();
    planned.selected = selected.len();
    let mut concerned = BTreeSet::new();
    let mut refused = BTreeMap::new();
    for slice in selected.chunks(SLICE) {
        for (group, committed) in source.committed_offsets(slice).await {
            match committed {
                Ok(committed)
                    if committed
                        .keys()
                        .any(|(topic, _)| topics.contains_key(topic)) =>
                {
                    concerned.insert(group);
                }
                Ok(_) => {}
                Err(error) => drop(refused.insert(group, why(&error, source, "Describe"))),
            }
        }
    }
    planned.with_commits = concerned.len();
    if config.groups.sync_offsets {
        let concerned: Vec<String> = concerned.into_iter().collect();
        for slice in concerned.chunks(SLICE) {
            for (group, committed) in target.committed_offsets(slice).await {
                if let Err(error) = committed {
                    refused.insert(group, why(&error, target, "Read (Describe is in it)"));
                }
            }
        }
        let (there, untold) = listed_groups(target).await.map_err(|e| listed(e, target))?;
        unlisted.extend(untold.iter().map(told));
        let told = there.iter().all(|group| !group.state.is_empty());
        let active = there.into_iter().filter(|group| {
            let idle = matches!(group.state.as_str(), "Empty" | "Dead");
            !idle && concerned.binary_search(&group.id).is_ok()
        });
        planned.active = told.then(|| active.map(|group| group.id).collect());
    } else {
        planned.active = Some(Vec::new());
    }
    planned.unlisted = unlisted;
    let more = refused.len().saturating_sub(TOLD);
    planned.refused = refused.into_iter().take(TOLD).collect();
    if more > 0 {
        let what = format!("{more} groups more");
        planned.refused.push((what, "for such reasons".to_owned()));
    }
    Ok(planned)
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
