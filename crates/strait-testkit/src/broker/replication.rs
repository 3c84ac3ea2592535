//! White-box access to leadership, replication, producers and time.

use super::Broker;
use crate::changes::Waiter;
use crate::cluster::{Cluster, Partition};

/// Replication, producers and time.
impl Broker {
    /// All brokers restart: connections are cut, leader epochs rise by two, and of each producer only the LAST batch
    /// is still a known duplicate.
    pub fn restart(&self) {
        self.shared.with(|cluster, now_ms| cluster.restart(now_ms));
        self.shared.tell();
    }

    /// The check for expired producers, at once.
    pub fn expire_producers(&self) {
        self.shared
            .with(|cluster, now_ms| cluster.expire_producers(now_ms));
    }

    /// Forgets all producers of a partition, as if they had expired.
    pub fn forget_producers(&self, topic: &str, partition: i32) {
        self.change_partition(topic, partition, |p, _| p.log.producers.clear());
    }

    /// Forgets all transactional ids without an open transaction, as if `transactional.id.expiration.ms` were over.
    pub fn forget_transactional_ids(&self) {
        self.shared
            .with(|cluster, _| cluster.coordinator.expire(i64::MAX));
    }

    /// Runs whatever is due by now (markers, timeouts, expiry, retention). Otherwise that happens at the next request.
    pub fn run_due(&self) {
        self.shared.with(|_, _| ());
    }

    /// Makes `leader` the leader of a partition, in the next leader epoch, without losing records.
    pub fn elect(&self, topic: &str, partition: i32, leader: i32) {
        self.change_partition(topic, partition, |p, _| p.elect(leader, p.leader_epoch + 1));
    }

    /// Takes a partition's leader away: Metadata says 5, requests get 6.
    pub fn set_leaderless(&self, topic: &str, partition: i32) {
        self.change_partition(topic, partition, |p, now_ms| {
            p.leader = None;
            p.leaderless_since = Some(now_ms);
        });
    }

    /// Whether a partition has fewer in-sync replicas than its minimum: `acks=all` and markers are then refused.
    pub fn set_under_min_isr(&self, topic: &str, partition: i32, under: bool) {
        self.change_partition(topic, partition, |p, _| p.under_min_isr = under);
    }

    /// Holds the high watermark at an offset while the log grows; `None` lets it follow the log end again.
    pub fn hold_high_watermark(&self, topic: &str, partition: i32, at: Option<i64>) {
        self.change_partition(topic, partition, |p, _| p.log.held_watermark = at);
    }

    /// Cuts a partition back to `to` and begins `new_epoch` there: an unclean election.
    pub fn truncate(&self, topic: &str, partition: i32, to: i64, new_epoch: i32) {
        self.change_partition(topic, partition, |p, _| {
            p.log.truncate(to);
            let leader = p.leader.or_else(|| p.replicas.first().copied());
            if let Some(leader) = leader {
                p.elect(leader, new_epoch);
            }
        });
    }

    fn change_partition(
        &self,
        topic: &str,
        partition: i32,
        change: impl FnOnce(&mut Partition, i64),
    ) {
        self.shared.with(|cluster, now_ms| {
            if let Some((_, partition)) = cluster.with_settings(topic, partition) {
                change(partition, now_ms);
            }
        });
        self.shared.tell();
    }

    /// Tells of every change of the cluster's state from now on: what a test watches logs with.
    #[must_use]
    pub fn changes(&self) -> Waiter {
        self.shared.changes()
    }

    /// The present, by the cluster's clock.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.shared.now_ms()
    }

    pub(crate) fn with_cluster<T>(&self, change: impl FnOnce(&mut Cluster, i64) -> T) -> T {
        self.shared.with(change)
    }

    pub(super) fn see<T: Default>(
        &self,
        topic: &str,
        partition: i32,
        look: impl FnOnce(&Partition) -> T,
    ) -> T {
        self.shared.with(|cluster, _| {
            cluster
                .partition(topic, partition)
                .map(look)
                .unwrap_or_default()
        })
    }
}
