//! The lease: data is written only while this process can prove that it owned the link a moment ago.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strait_net::{Runtime, WriteGuard};

use crate::limits;

/// The proof of ownership that every data batch is checked against right before it is written.
///
/// Counted by `CLOCK_BOOTTIME`, which goes on while the process or the machine is suspended: a process
/// that was stopped for longer than the lease finds it lapsed.
#[derive(Debug)]
pub(crate) struct Lease {
    rt: Runtime,
    proven_ms: AtomicU64,
}

impl Lease {
    /// A lease whose first proof was sent at `sent` (boot time).
    pub(crate) fn new(rt: Runtime, sent: Duration) -> Self {
        let lease = Self {
            rt,
            proven_ms: AtomicU64::new(0),
        };
        lease.renew(sent);
        lease
    }

    /// Records a proof by the moment it was sent; an older one changes nothing.
    pub(crate) fn renew(&self, sent: Duration) {
        self.proven_ms.fetch_max(millis(sent), Ordering::SeqCst);
    }

    /// Gives the lease up: nothing more is written.
    pub(crate) fn revoke(&self) {
        self.proven_ms.store(u64::MAX, Ordering::SeqCst);
    }

    /// Whether a data batch may be written now.
    pub(crate) fn valid(&self) -> bool {
        let proven = self.proven_ms.load(Ordering::SeqCst);
        proven != u64::MAX
            && millis(self.rt.boottime()).saturating_sub(proven) < millis(limits::LEASE_VALIDITY)
    }
}

impl WriteGuard for Lease {
    fn may_write(&self) -> bool {
        self.valid()
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX - 1)
}
