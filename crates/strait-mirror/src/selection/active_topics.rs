//! Which topics a link mirrors now, as it is seen from outside of its process.

use std::collections::BTreeSet;

use strait_config::{LinkConfig, TopicSelection};
use strait_engine::SessionError;
use strait_net::{Cluster, KafkaError, Metadata, NetError, TopicMetadata};

use crate::naming::{Route, route};
use crate::selection::{SelectionError, StoredSelections};

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
    let mut chosen = selected(link, &topics, &found).chosen;
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

/// What a link makes of the source's topics.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    /// Those it mirrors, each with its name on the target.
    pub(crate) chosen: Vec<(String, String)>,
    /// Those it would and cannot, each with why.
    pub(crate) refused: Vec<(String, String)>,
}

/// The source's topics by these patterns.
pub(crate) fn selected(link: &LinkConfig, topics: &TopicSelection, found: &Metadata) -> Selected {
    let named = |name: &&String| link.names.contains_key(*name);
    let (first, rest): (Vec<&String>, Vec<&String>) = found.topics.keys().partition(named);
    let mut selected = Selected::default();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for name in first.into_iter().chain(rest) {
        let fits = |t: &TopicMetadata| !t.internal && topics.selects(name);
        let Some(topic) = found.topics.get(name).filter(|t| fits(t)) else {
            continue;
        };
        let refused = match route(link, name) {
            Ok(Route::Mirror(mirrored)) if !taken.insert(mirrored.clone()) => {
                format!("another topic has the name {mirrored} on the target")
            }
            Ok(Route::Mirror(mirrored)) if topic.error == 0 => {
                selected.chosen.push((name.clone(), mirrored));
                continue;
            }
            Ok(Route::Mirror(_)) => format!("the source answers {}", KafkaError(topic.error)),
            Ok(_) => continue,
            Err(error) => error.to_string(),
        };
        selected.refused.push((name.clone(), refused));
    }
    selected
}
