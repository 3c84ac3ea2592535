//! Whose records a batch on the source holds: those of an application there, or what a link brought. Told by the
//! batch's producer id, so that links that go both ways under the same names forward each record once
//! (positions.md in the book, "Active/active").

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use strait_net::Runtime;
use strait_wire::{Record, RegistryError, RegistryRecord};
use tracing::debug;

use crate::error::FlowError;
use crate::internal_log::{Until, own_reader, read_with};
use crate::limits;
use crate::routes::{Lookup, Routes};
use crate::session::error::SessionError;
use crate::spec::STRAIT_TOPIC;

/// How long a topic that was just made may take until every broker knows it.
const APPEARANCE: Duration = Duration::from_millis(500);

/// Who wrote a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An application, or a mirror that is no link of Strait's.
    Here,
    /// A link that writes to this cluster.
    Link,
    /// Nobody has looked yet.
    Unknown,
}

#[derive(Debug, Default)]
struct Known {
    links: HashSet<i64>,
    here: HashSet<i64>,
}

/// What is known of the producers that write to one cluster.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    known: Mutex<Known>,
}

impl Producers {
    /// Who wrote a batch of this producer id. Without one (-1) it was no link.
    pub(crate) fn origin(&self, producer_id: i64) -> Origin {
        let known = self.lock();
        if producer_id < 0 || known.here.contains(&producer_id) {
            Origin::Here
        } else if known.links.contains(&producer_id) {
            Origin::Link
        } else {
            Origin::Unknown
        }
    }

    /// Links write under this producer id.
    fn is_link(&self, producer_id: i64) {
        let mut known = self.lock();
        known.here.remove(&producer_id);
        known.links.insert(producer_id);
    }

    /// The registry was read to its end after a batch of this producer id had been received. Links register theirs
    /// before they write, so that stands for ever.
    fn settle(&self, producer_id: i64) {
        let mut known = self.lock();
        if !known.links.contains(&producer_id) {
            // Whoever is forgotten is looked up again.
            if known.here.len() >= limits::PRODUCERS_KNOWN {
                known.here.clear();
            }
            known.here.insert(producer_id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The register of links on the source, read on as producers appear that nobody knows.
pub(crate) struct Provenance {
    rt: Runtime,
    source: Arc<Routes>,
    /// The source's cluster id: what other clusters' links wrote is in a registry only where it was copied.
    cluster_id: String,
    pub(crate) producers: Arc<Producers>,
    /// The registry's next offset.
    next: tokio::sync::Mutex<i64>,
    /// Reads that have begun.
    begun: AtomicU64,
    /// The newest read that has ended, by its number.
    ended: AtomicU64,
}

impl Provenance {
    pub(crate) fn new(rt: Runtime, source: Arc<Routes>, cluster_id: String) -> Self {
        Self {
            rt,
            source,
            cluster_id,
            producers: Arc::default(),
            next: tokio::sync::Mutex::new(0),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// Finds out whose these producer ids are. Many may ask at once: one reads for all who asked before it began.
    ///
    /// # Errors
    /// The registry cannot be read, or is another cluster's.
    pub(crate) async fn look_up(&self, producer_ids: &[i64]) -> Result<(), FlowError> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut next = self.next.lock().await;
        // One that began after this call may have ended meanwhile.
        if self.ended.load(Ordering::SeqCst) <= asked {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            *next = self.read_on(*next).await?;
            self.ended.store(number, Ordering::SeqCst);
        }
        for &producer_id in producer_ids {
            self.producers.settle(producer_id);
            let origin = self.producers.origin(producer_id);
            debug!(producer_id, ?origin, "looked up who writes to the source");
        }
        Ok(())
    }

    /// Reads the registry from an offset to its end.
    async fn read_on(&self, from: i64) -> Result<i64, FlowError> {
        let mut found = self.source.find(STRAIT_TOPIC, 0).await?;
        if found == Lookup::Missing {
            // A link may just have made it, and not every broker know of it.
            self.rt.sleep(APPEARANCE).await;
            self.source.refresh().await?;
            found = self.source.lookup(STRAIT_TOPIC, 0);
        }
        match found {
            // No link writes to this cluster.
            Lookup::Missing => return Ok(0),
            Lookup::Denied => return Err(FlowError::denied(&self.source, STRAIT_TOPIC)),
            Lookup::Leader(_) | Lookup::NoLeader | Lookup::Unknown => {}
        }
        let reader = own_reader(&self.rt, &self.source, STRAIT_TOPIC, true);
        // A log that lost its end, or another one: from its beginning.
        let end = reader.log_end().await;
        let end = end.map_err(|error| FlowError::Origin(error.to_string()))?;
        let from = if end < from { 0 } else { from };
        let take = |offset, record: &Record| self.take(offset, record);
        let read = read_with(&reader, from, Until::End, take);
        read.await.map_err(|error| match error {
            SessionError::Internal { why, .. } => FlowError::Origin(why),
            SessionError::Net(error) => error.into(),
            other => other.into(),
        })
    }

    fn take(&self, offset: i64, record: &Record) -> Result<(), SessionError> {
        let cluster = self.source.cluster().alias();
        let decoded = match RegistryRecord::from_record(record) {
            Err(RegistryError::UnknownType(_)) => return Ok(()),
            // What a newer version says may be whose the next batch is.
            other => other.map_err(|error| SessionError::Registry {
                topic: format!("{STRAIT_TOPIC} on cluster {cluster}"),
                offset,
                why: error.to_string(),
            })?,
        };
        let RegistryRecord::Producer {
            producer_id,
            target_cluster,
            link,
            ..
        } = decoded
        else {
            return Ok(());
        };
        if target_cluster != self.cluster_id {
            return Err(SessionError::Register {
                cluster: cluster.to_owned(),
                id: self.cluster_id.clone(),
                offset,
                link,
                other: target_cluster,
            });
        }
        self.producers.is_link(producer_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_known_once_the_registry_was_read() {
        let producers = Producers::default();
        assert_eq!(producers.origin(-1), Origin::Here);
        assert_eq!(producers.origin(7), Origin::Unknown);
        producers.is_link(7);
        producers.settle(7);
        producers.settle(8);
        assert_eq!(producers.origin(7), Origin::Link);
        assert_eq!(producers.origin(8), Origin::Here);
    }

    #[test]
    fn memory_of_applications_is_bounded() {
        let producers = Producers::default();
        producers.is_link(1);
        for id in 2..limits::PRODUCERS_KNOWN as i64 + 10 {
            producers.settle(id);
        }
        assert!(producers.lock().here.len() <= limits::PRODUCERS_KNOWN);
        assert_eq!(producers.origin(1), Origin::Link);
        assert_eq!(producers.origin(2), Origin::Unknown);
    }
}
