//! Changes: wakes whoever waits for the cluster, always in the order in which they began to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts the changes of one cluster's state and wakes those who wait for the next one.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    count: AtomicU64,
    told: Notify,
}

impl Changes {
    pub(crate) fn tell(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.told.notify_waiters();
    }

    pub(crate) fn waiter(this: &Arc<Self>) -> Waiter {
        Waiter {
            seen: this.count.load(Ordering::SeqCst),
            changes: Arc::clone(this),
        }
    }
}

/// Waits for changes of a cluster. No change is missed between two waits; several of them count as one.
#[derive(Debug)]
pub struct Waiter {
    changes: Arc<Changes>,
    seen: u64,
}

impl Waiter {
    /// Returns once something has changed since the last return, or since this waiter was made.
    pub async fn changed(&mut self) {
        loop {
            // Made before the count is looked at, so that a change in between wakes it.
            let told = self.changes.told.notified();
            let count = self.changes.count.load(Ordering::SeqCst);
            if count != self.seen {
                self.seen = count;
                return;
            }
            told.await;
        }
    }
}
