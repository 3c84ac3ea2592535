//! Which topics a link mirrors now, as it is seen from outside of its process.

use std::collections::BTreeSet;

use strait_config::{LinkConfig, TopicSelection};
use strait_engine::SessionError;
use strait_net::{Cluster, Metadata, NetError, TopicMetadata};

use crate::naming::{Route, route};
use crate::stored_selection::{SelectionError, StoredSelections};

/// The source's names, sorted, of the topics that are selected and are on the target; nothing where no process runs the
/// link. Needs Describe on the topics of both clusters, and what [`StoredSelections`] needs.
///
/// # Errors
/// A cluster cannot be reached, or the selection cannot be read.
pub async fn active_topics(
    link: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    stored: &mut StoredSelections,
) -> Result<Option<Vec<String>>, SelectionError> {
    if !stored.runs(&link.name).await? {
        return Ok(None);
    }
    let topics = stored.topics(link)?;
    let net = |error: NetError| SelectionError::Registry(SessionError::Net(error));
    let found = source.metadata(None).await.map_err(net)?;
    let mut chosen = selected(link, &topics, &found);
    let names: Vec<String> = chosen
        .iter()
        .map(|(_, mirrored)| mirrored.clone())
        .collect();
    let there = target.metadata(Some(&names)).await.map_err(net)?;
    chosen.retain(|(_, mirrored)| {
        let topic = there.topics.get(mirrored);
        topic.is_some_and(|t| t.error == 0 && !t.partitions.is_empty())
    });
    let mut active: Vec<String> = chosen.into_iter().map(|(name, _)| name).collect();
    active.sort();
    Ok(Some(active))
}

/// The source's topics that the link mirrors by these patterns, each with its name on the target.
pub(crate) fn selected(
    link: &LinkConfig,
    topics: &TopicSelection,
    found: &Metadata,
) -> Vec<(String, String)> {
    let named = |name: &&String| link.names.contains_key(*name);
    let (first, rest): (Vec<&String>, Vec<&String>) = found.topics.keys().partition(named);
    let (mut chosen, mut taken) = (Vec::new(), BTreeSet::new());
    for name in first.into_iter().chain(rest) {
        let fits = |t: &TopicMetadata| !t.internal && topics.selects(name);
        if let Some(topic) = found.topics.get(name).filter(|t| fits(t))
            && let Ok(Route::Mirror(mirrored)) = route(link, name)
            && taken.insert(mirrored.clone())
            && topic.error == 0
        {
            chosen.push((name.clone(), mirrored));
        }
    }
    chosen
}
