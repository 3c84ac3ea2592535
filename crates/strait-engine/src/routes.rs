//! Routes: which broker leads which partition, asked for once for everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use strait_net::{Cluster, NetError, Runtime};
use tokio::time::Instant;
use uuid::Uuid;

use crate::limits;

const TOPIC_AUTHORIZATION_FAILED: i16 = 29;

/// The way to one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The leader's node id.
    pub broker: i32,
    /// The leader epoch, -1 when unknown.
    pub epoch: i32,
    /// The topic's id, nil when the cluster has none.
    pub topic_id: Uuid,
    /// Replicas in sync.
    pub insync: usize,
    /// All replicas.
    pub replicas: usize,
}

/// What is known about a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It can be reached.
    Leader(Route),
    /// It exists but has no leader.
    NoLeader,
    /// The cluster does not have it.
    Missing,
    /// The cluster does not show its topic to Strait's user.
    Denied,
    /// Not asked for yet, or invalidated.
    Unknown,
}

/// The routes of one cluster for the topics of one link.
#[derive(Debug)]
pub(crate) struct Routes {
    rt: Runtime,
    cluster: Cluster,
    known: Mutex<Known>,
    refreshing: tokio::sync::Mutex<()>,
    /// Reads of single partitions that are under way.
    reads: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    topics: BTreeSet<String>,
    partitions: BTreeMap<String, BTreeMap<i32, Lookup>>,
    /// Topics that the user may not see, and never saw.
    denied: BTreeSet<String>,
    /// Something turned out wrong.
    stale: bool,
    /// Partitions that had no leader, or topics that the cluster could not tell about, when it was asked last; and how
    /// long nothing about them has changed.
    waiting: BTreeSet<(String, i32)>,
    pause: Duration,
    /// Why the cluster could not be asked the last time, and how long it is left alone for that.
    error: Option<NetError>,
    failed: Duration,
    asked: Option<Instant>,
}

/// A read of a partition that is under way.
pub(crate) struct Read<'r> {
    /// What it may ask for.
    pub(crate) bytes: i32,
    reads: &'r AtomicUsize,
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        self.reads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Routes {
    /// No routes yet.
    pub(crate) fn new(rt: Runtime, cluster: Cluster) -> Self {
        Self {
            rt,
            cluster,
            known: Mutex::default(),
            refreshing: tokio::sync::Mutex::new(()),
            reads: AtomicUsize::new(0),
        }
    }

    /// The cluster they lead through.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Begins to read a partition outside of the lanes. Many who read at once get less each: what they hold is in no budget.
    pub(crate) fn read(&self) -> Read<'_> {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = limits::READ_BYTES / i32::try_from(reads).unwrap_or(i32::MAX);
        Read {
            bytes: bytes.clamp(limits::READ_LEAST_BYTES, limits::FETCH_PARTITION_BYTES),
            reads: &self.reads,
        }
    }

    /// The topics to know about.
    pub(crate) fn watch(&self, topics: impl IntoIterator<Item = String>) {
        let mut known = self.lock();
        for topic in topics {
            if known.topics.insert(topic) {
                known.stale = true;
            }
        }
    }

    /// Forgets every other topic: nobody needs it any more.
    pub(crate) fn keep(&self, wanted: &BTreeSet<String>) {
        let mut known = self.lock();
        known.topics.retain(|topic| wanted.contains(topic));
        known.partitions.retain(|topic, _| wanted.contains(topic));
        known.denied.retain(|topic| wanted.contains(topic));
    }

    /// What is known now, without asking.
    pub(crate) fn lookup(&self, topic: &str, partition: i32) -> Lookup {
        let known = self.lock();
        match known.partitions.get(topic) {
            Some(partitions) => partitions
                .get(&partition)
                .copied()
                .unwrap_or(Lookup::Missing),
            None if known.denied.contains(topic) => Lookup::Denied,
            None => Lookup::Unknown,
        }
    }

    /// The route turned out wrong: ask again soon.
    pub(crate) fn invalidate(&self) {
        self.lock().stale = true;
    }

    /// Whether it is time to ask: something is stale, or the answer is old.
    pub(crate) fn due(&self) -> bool {
        let known = self.lock();
        let age = known
            .asked
            .map(|at| self.rt.now().saturating_duration_since(at));
        match age {
            None => !known.topics.is_empty(),
            Some(age) => {
                age >= limits::ROUTES_MAX_AGE
                    || (known.stale && age >= known.failed.max(limits::ROUTES_MIN_AGE))
                    || (!known.waiting.is_empty() && age >= known.pause)
            }
        }
    }

    /// Asks the cluster, unless somebody else just did.
    pub(crate) async fn refresh(&self) -> Result<(), NetError> {
        let before = self.rt.now();
        let _one = self.refreshing.lock().await;
        let topics: Vec<String> = {
            let mut known = self.lock();
            if known.asked.is_some_and(|at| at > before) {
                return known.error.clone().map_or(Ok(()), Err);
            }
            known.stale = false;
            known.asked = Some(self.rt.now());
            known.topics.iter().cloned().collect()
        };
        let answer = self.cluster.metadata(Some(&topics)).await;
        let mut known = self.lock();
        known.asked = Some(self.rt.now());
        let metadata = match answer {
            Ok(metadata) => metadata,
            Err(error) => {
                known.stale = true;
                known.error = Some(error.clone());
                known.failed =
                    (known.failed * 2).clamp(limits::ROUTES_MIN_AGE, limits::ROUTES_PAUSE_MAX);
                return Err(error);
            }
        };
        (known.error, known.failed) = (None, Duration::ZERO);
        let mut waiting = BTreeSet::new();
        for topic in topics {
            let mut partitions = BTreeMap::new();
            if let Some(found) = metadata.topics.get(&topic) {
                // A deleted topic is asked for again by whoever needs it.
                if !matches!(found.error, 0 | 3) {
                    waiting.insert((topic.clone(), -1));
                }
                // UNKNOWN_TOPIC_OR_PARTITION says that it is gone; any other error says nothing about it.
                if !matches!(found.error, 0 | 3) && known.partitions.contains_key(&topic) {
                    continue;
                }
                if found.error == TOPIC_AUTHORIZATION_FAILED {
                    if known.topics.contains(&topic) {
                        known.denied.insert(topic);
                    }
                    continue;
                }
                for (&partition, p) in &found.partitions {
                    let lookup = if p.leader >= 0 {
                        Lookup::Leader(Route {
                            broker: p.leader,
                            epoch: p.leader_epoch,
                            topic_id: found.id,
                            insync: p.isr.len(),
                            replicas: p.replicas.len(),
                        })
                    } else {
                        waiting.insert((topic.clone(), partition));
                        Lookup::NoLeader
                    };
                    partitions.insert(partition, lookup);
                }
            }
            known.denied.remove(&topic);
            // Forgotten meanwhile.
            if known.topics.contains(&topic) {
                known.partitions.insert(topic, partitions);
            }
        }
        // One that is away for hours is not worth four answers about everything each second.
        known.pause = if known.waiting == waiting {
            (known.pause * 2).min(limits::ROUTES_PAUSE_MAX)
        } else {
            limits::ROUTES_MIN_AGE
        };
        known.waiting = waiting;
        Ok(())
    }

    /// The route, asking the cluster where it is not known or the answer is due.
    pub(crate) async fn find(&self, topic: &str, partition: i32) -> Result<Lookup, NetError> {
        self.watch([topic.to_owned()]);
        // A partition that is missing may have been added since.
        let known = self.lookup(topic, partition);
        if matches!(known, Lookup::Unknown | Lookup::Missing) || self.due() {
            self.refresh().await?;
        }
        Ok(self.lookup(topic, partition))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
