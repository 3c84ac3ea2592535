//! What lies in the logs and groups of a cluster, seen from inside.

use std::collections::BTreeMap;

use super::Broker;
use crate::cluster::Partition;
use crate::groups::Commit;
use crate::log::StoredBatch;
use crate::producers::ProducerEntry;
use crate::records::{CONTROL, KitRecord, TRANSACTIONAL};
use crate::transactions::TransactionPhase;

/// What lies in the logs. Unknown partitions look empty.
impl Broker {
    /// The stored batches of a partition.
    #[must_use]
    pub fn read_log(&self, topic: &str, partition: i32) -> Vec<StoredBatch> {
        self.see(topic, partition, |p| p.log.batches.clone())
    }

    /// The data records of a partition between log start and log end; with `committed`, only what a read_committed
    /// consumer would see. Markers are left out.
    #[must_use]
    pub fn records(&self, topic: &str, partition: i32, committed: bool) -> Vec<KitRecord> {
        self.see(topic, partition, |p| visible(p, committed))
    }

    /// First offset of the log.
    #[must_use]
    pub fn log_start(&self, topic: &str, partition: i32) -> i64 {
        self.see(topic, partition, |p| p.log.start)
    }

    /// Offset after the last one in the log.
    #[must_use]
    pub fn log_end(&self, topic: &str, partition: i32) -> i64 {
        self.see(topic, partition, |p| p.log.end)
    }

    /// The high watermark.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: i32) -> i64 {
        self.see(topic, partition, |p| p.log.high_watermark())
    }

    /// The last stable offset.
    #[must_use]
    pub fn last_stable_offset(&self, topic: &str, partition: i32) -> i64 {
        self.see(topic, partition, |p| p.log.last_stable())
    }

    /// Leader (none while leaderless) and leader epoch.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: i32) -> (Option<i32>, i32) {
        self.see(topic, partition, |p| (p.leader, p.leader_epoch))
    }

    /// The producers a partition remembers, by producer id.
    #[must_use]
    pub fn producers(&self, topic: &str, partition: i32) -> BTreeMap<i64, ProducerEntry> {
        self.see(topic, partition, |p| p.log.producers.entries().clone())
    }

    /// State, producer id and epoch of a transactional id.
    #[must_use]
    pub fn transaction(&self, tid: &str) -> Option<(TransactionPhase, i64, i16)> {
        self.shared.with(|cluster, _| {
            let txn = cluster.coordinator.ids.get(tid)?;
            Some((txn.phase, txn.producer_id, txn.epoch))
        })
    }
}

/// Consumer groups.
impl Broker {
    /// The offsets a group has committed.
    #[must_use]
    pub fn commits(&self, group: &str) -> BTreeMap<(String, i32), Commit> {
        let cluster = self.shared.lock();
        cluster
            .groups
            .get(group)
            .map(|g| g.commits.clone())
            .unwrap_or_default()
    }

    /// Commits an offset as the group's own member would.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let commit = Commit {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let mut cluster = self.shared.lock();
        let group = cluster.groups.entry(group.to_owned()).or_default();
        group.commits.insert((topic.to_owned(), partition), commit);
    }

    /// Whether a transaction has offsets of the group that it has not finished yet: who wants stable ones gets 88 for each.
    pub fn set_group_pending(&self, group: &str, pending: bool) {
        self.shared
            .lock()
            .groups
            .entry(group.to_owned())
            .or_default()
            .pending = pending;
    }

    /// Whether a group has members: commits from outside then get 25.
    pub fn set_group_live(&self, group: &str, live: bool) {
        self.shared
            .lock()
            .groups
            .entry(group.to_owned())
            .or_default()
            .live = live;
    }
}

fn visible(partition: &Partition, committed: bool) -> Vec<KitRecord> {
    let log = &partition.log;
    let limit = if committed {
        log.last_stable()
    } else {
        log.end
    };
    let mut out = Vec::new();
    for batch in &log.batches {
        let header = &batch.header;
        let aborted =
            || header.has(TRANSACTIONAL) && log.ended_by(header).is_some_and(|t| !t.committed);
        if header.has(CONTROL) || (committed && aborted()) {
            continue;
        }
        let records = batch.records().unwrap_or_default();
        out.extend(
            records
                .into_iter()
                .filter(|r| r.offset >= log.start && r.offset < limit),
        );
    }
    out
}
