//! What a cluster owes an answer to: for who waits, and wants to know for whom.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::frame::request_name;
use crate::peer::Peer;

/// A request, or the opening of a connection, that has no answer yet.
#[derive(Clone, Debug)]
pub struct Unanswered {
    peer: Peer,
    /// The API and its version; none for the opening.
    request: Option<(i16, i16)>,
    since: Instant,
    waited: Duration,
}

impl Unanswered {
    /// Who does not answer.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl fmt::Display for Unanswered {
    /// `broker 2 (b:9092) of cluster 'east' has not answered ListOffsets v9 for 4 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, seconds) = (&self.peer, self.waited.as_secs());
        match self.request {
            Some((api, version)) => {
                let name = request_name(api, version);
                write!(f, "{peer} has not answered {name} for {seconds} s")
            }
            None => write!(f, "{peer} cannot be connected to for {seconds} s"),
        }
    }
}

/// What is under way on a cluster's connections.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    waits: BTreeMap<u64, Unanswered>,
}

impl Waits {
    /// Something begins to wait now, until the guard is dropped.
    pub(crate) fn begin(
        self: &Arc<Self>,
        peer: &Peer,
        request: Option<(i16, i16)>,
        now: Instant,
    ) -> Waiting {
        let mut open = self.open();
        let id = open.next;
        open.next += 1;
        let one = Unanswered {
            peer: peer.clone(),
            request,
            since: now,
            waited: Duration::ZERO,
        };
        open.waits.insert(id, one);
        drop(open);
        Waiting {
            of: self.clone(),
            id,
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the wait when dropped.
pub(crate) struct Waiting {
    of: Arc<Waits>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.of.open().waits.remove(&self.id);
    }
}

impl Cluster {
    /// What has waited for an answer of this cluster for at least so long, the longest first. Connections of lanes that carry
    /// bulk data are left out.
    pub fn unanswered(&self, least: Duration) -> Vec<Unanswered> {
        let now = self.runtime().now();
        let all = self.waits().open().waits.values().cloned().collect();
        let mut all: Vec<Unanswered> = all;
        for one in &mut all {
            one.waited = now.saturating_duration_since(one.since);
        }
        all.retain(|one| one.waited >= least);
        all.sort_by_key(|one| one.since);
        all
    }
}
