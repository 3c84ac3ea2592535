//! Reading positions from outside: what each flow of a link has forwarded and left out, also while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use strait_net::{Cluster, Runtime};
use strait_wire::{OffsetSync, Position, SyncRecord};

use crate::internal_log::{Until, read_log};
use crate::routes::Routes;
use crate::session_error::SessionError;
use crate::spec::{FlowKey, syncs_topic};

/// The last position of one flow, as it lies on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownPosition {
    /// Written by Strait.
    Strait(Box<Position>),
    /// Written by MirrorMaker 2: no account of what was left out.
    MirrorMaker2,
    /// This version cannot read it, and why.
    Unreadable(String),
}

/// The last position of every flow from the cluster of alias `source`, whichever link wrote it. Needs Describe and
/// Read on the topic of the syncs, and nothing else; empty where that topic does not exist yet.
///
/// # Errors
/// The target cannot be reached or read, or the topic holds what is no sync at all.
pub async fn read_positions(
    rt: &Runtime,
    target: Cluster,
    source: &str,
) -> Result<BTreeMap<FlowKey, KnownPosition>, SessionError> {
    let topic = syncs_topic(source);
    let mut positions = BTreeMap::new();
    let metadata = target.metadata(Some(std::slice::from_ref(&topic))).await?;
    // UNKNOWN_TOPIC_OR_PARTITION
    if metadata.topics.get(&topic).is_none_or(|t| t.error == 3) {
        return Ok(positions);
    }
    let routes = Arc::new(Routes::new(rt.clone(), target));
    read_log(rt, &routes, &topic, 0, Until::End, |offset, record| {
        let (key, position) = match SyncRecord::from_record(record) {
            Ok(sync) => {
                let position = sync.position.map(Box::new);
                let known = position.map_or(KnownPosition::MirrorMaker2, KnownPosition::Strait);
                ((sync.topic, sync.partition), known)
            }
            Err(error) => {
                let (raw, value) = (record.key.as_ref(), record.value.as_ref());
                let pair = raw
                    .zip(value)
                    .and_then(|(key, value)| OffsetSync::decode(key, value).ok());
                let pair = pair.ok_or_else(|| SessionError::Registry {
                    topic: topic.clone(),
                    offset,
                    why: error.to_string(),
                })?;
                (
                    (pair.topic, pair.partition),
                    KnownPosition::Unreadable(error.to_string()),
                )
            }
        };
        let (topic, partition) = key;
        positions.insert(FlowKey { topic, partition }, position);
        Ok(())
    })
    .await?;
    Ok(positions)
}
