//! Positions that MirrorMaker 2's offset syncs stand over. One that goes the other way, from the target to the source, by default
//! writes its syncs into the topic of positions, under the same key for a topic of the same name; compaction then takes the
//! position away.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strait_net::Runtime;
use strait_wire::{OffsetSync, Record, has_position};
use tracing::debug;

use crate::internal_log::{Until, read_log};
use crate::routes::Routes;
use crate::spec::FlowKey;

/// How often the topic is read on.
const EVERY: Duration = Duration::from_secs(5);

/// Flows whose position has to be written again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Displaced(Arc<Mutex<BTreeSet<FlowKey>>>);

impl Displaced {
    pub(crate) fn add(&self, flow: FlowKey) {
        let mut flows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flows.insert(flow);
    }

    /// Its position stands behind what stood over it.
    pub(crate) fn remove(&self, flow: &FlowKey) {
        let mut flows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flows.remove(flow);
    }

    /// Those that were added since the last call.
    pub(crate) fn take(&self) -> BTreeSet<FlowKey> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the topic on from this offset, for as long as it is polled.
    pub(crate) async fn watch(self, rt: Runtime, target: Arc<Routes>, topic: String, from: i64) {
        let mut next = from;
        loop {
            rt.sleep(EVERY).await;
            let take = |_, record: &Record| {
                if let Some(flow) = without_position(record) {
                    self.add(flow);
                }
                Ok(())
            };
            match read_log(&rt, &target, &topic, next, Until::End, take).await {
                Ok(reached) => next = reached,
                Err(error) => {
                    debug!(%topic, "cannot see whether positions are overwritten: {error}")
                }
            }
        }
    }
}

/// The flow of a sync that is none of Strait's.
fn without_position(record: &Record) -> Option<FlowKey> {
    if has_position(record) {
        return None;
    }
    let sync = OffsetSync::decode(record.key.as_deref()?, record.value.as_deref()?).ok()?;
    Some(FlowKey {
        topic: sync.topic,
        partition: sync.partition,
    })
}
