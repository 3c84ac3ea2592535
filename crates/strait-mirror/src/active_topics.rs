//! Which topics a link mirrors now, as it is seen from outside of its process.

use strait_config::LinkConfig;
use strait_engine::SessionError;
use strait_net::{Cluster, NetError};

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
    let mut chosen = Vec::new();
    for (name, topic) in &found.topics {
        if topic.internal || topic.error != 0 || !topics.selects(name) {
            continue;
        }
        let routed = route(&link.naming, source.alias(), target.alias(), name);
        if let Ok(Route::Mirror(mirrored)) = routed {
            chosen.push((name.clone(), mirrored));
        }
    }
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
