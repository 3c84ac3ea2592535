//! An opening's look at the target: a marker of ours is put up there, and what stands before it is final.

use std::time::Duration;

use strait_wire::{Position, PositionFlags};
use tokio::time::Instant;
use tracing::warn;

use crate::error::FlowError;
use crate::limits;
use crate::open::{Ends, Opening};
use crate::partition::batches_from;
use crate::partition::patience::Patience;
use crate::scan::{Scan, ScanError, Scanned};
use crate::sequence::advance;
use crate::spec::Policy;

impl Opening {
    /// A marker of ours that will be read in the target partition.
    pub(crate) async fn put_up(&mut self, ends: &Ends) -> Result<(i64, i16), FlowError> {
        let route = ends.target.route().await?;
        // More than there are replicas has no effect on the broker either.
        let (insync, needed) = (route.insync, self.spec.min_insync.min(route.replicas));
        if insync < needed {
            return Err(FlowError::UnderMinIsr { insync, needed });
        }
        self.put_up_fence().await
    }

    /// The marker makes everything before it final; the scan up to it counts what is ours.
    pub(crate) async fn fence_and_scan(
        &mut self,
        ends: &Ends,
        position: &Position,
    ) -> Result<((i64, i16), Result<Scanned, ScanError>), FlowError> {
        let policies = self.session.spec.policies;
        let log_start = ends.target.log_start().await?;
        let identity = self.put_up(ends).await?;
        let markers = self.markers_since(position, identity);
        let mut scan = Scan::new(
            position.clone(),
            identity,
            log_start,
            self.spec.target_compacted,
            markers,
        )
        .shared(position.flags.contains(PositionFlags::SHARED) || self.session.spec.shared_target())
        .mending(policies.target_lost == Policy::GoOn);
        let mut offset = scan.from();
        // A long scan over a slow line is no missing marker.
        let mut patience = Patience::new(&self.session.rt, limits::BARRIER_TIMEOUT, offset);
        loop {
            let fetched = ends
                .target
                .fetch(offset, -1, Duration::from_millis(200))
                .await?;
            if fetched.part.error != 0 {
                let (end, expected) = (ends.target.log_end().await?, position.target_next);
                if end < expected {
                    return Ok((identity, Err(ScanError::Lost { end, expected })));
                }
                return Err(ends.target.answered(fetched.part.error, offset));
            }
            for batch in batches_from(&fetched.part, offset)? {
                offset = batch.header.last_offset() + 1;
                match scan.feed(&batch.header) {
                    Ok(false) => {}
                    Ok(true) => {
                        self.fence.standing = Some(identity);
                        let scanned = scan
                            .finish()
                            .ok_or_else(|| FlowError::Doubt("the scan had no end".to_owned()))?;
                        return Ok((identity, Ok(scanned)));
                    }
                    Err(error) => {
                        // The next try looks again; another marker would add nothing.
                        self.fence.standing = Some(identity);
                        return Ok((identity, Err(error)));
                    }
                }
            }
            if !patience.asks_again(offset).await {
                self.fence.standing = None;
                return Err(FlowError::Fence {
                    waited: limits::BARRIER_TIMEOUT,
                });
            }
        }
    }

    /// Whether the batch in front of the position is the one it speaks of: a log that lost its end and got a marker in
    /// its place has the same length. Nothing to see where it is gone, or where nothing was sent in that session.
    pub(crate) async fn anchored(
        &self,
        ends: &Ends,
        position: &Position,
    ) -> Result<bool, FlowError> {
        let last = position.target_next.saturating_sub(1);
        if position.next_sequence == 0 || last < ends.target.log_start().await? {
            return Ok(true);
        }
        let fetched = ends
            .target
            .fetch(last, -1, Duration::from_millis(200))
            .await?;
        let batches = batches_from(&fetched.part, last)?;
        // No batch is no proof: after an election the high watermark may lie below it for a while.
        Ok(batches.first().is_some_and(|batch| {
            let header = &batch.header;
            !header.attributes.control()
                && (header.producer_id, header.producer_epoch)
                    == (position.producer_id, position.producer_epoch)
                && advance(header.last_sequence(), 1) == position.next_sequence
        }))
    }

    /// The most markers that sessions begun after the sync can have left, ours included: one for each epoch.
    fn markers_since(&self, position: &Position, (producer_id, epoch): (i64, i16)) -> i64 {
        let (old, since) = (position.producer_id, i64::from(position.producer_epoch));
        if producer_id == old {
            return i64::from(epoch) - since;
        }
        let highest = self
            .session
            .producers
            .get(&old)
            .copied()
            .unwrap_or(i16::MAX);
        (i64::from(highest) - since).max(0) + i64::from(epoch) + 1
    }

    /// The identity whose marker is to be read in the target partition.
    async fn put_up_fence(&mut self) -> Result<(i64, i16), FlowError> {
        if let Some(identity) = self.fence.standing {
            return Ok(identity);
        }
        let (link, topic) = (&self.session.spec.name, &self.spec.target_topic);
        let partition = self.spec.key.partition;
        let fencer = &self.session.fencer;
        let joined = fencer.join(link, topic, partition, self.fence.above).await;
        if !matches!(joined, Err(FlowError::NotAppended(_))) {
            self.fence.above = Some(self.session.epoch.current());
        }
        joined
    }

    /// Says what a scan found that should not be.
    pub(crate) fn report(&self, scanned: &Scanned) {
        let (link, topic) = (&self.session.spec.name, &self.spec.target_topic);
        let (partition, cluster) = (self.spec.key.partition, self.session.spec.target.alias());
        if let Some(first) = scanned.late.first() {
            warn!(
                %link, id = "late-writes", %topic, partition,
                "{} batches, the first at offset {first} of {topic}-{partition} on cluster {cluster}, were appended late by an older session: their records stand twice",
                scanned.late.len()
            );
        }
        if let Some(offset) = scanned.cut {
            warn!(
                %link, id = "target-lost", %topic, partition,
                "the target lost data in the middle: acknowledged records are missing before offset {offset} of {topic}-{partition} on cluster {cluster}; mirroring again from there, so that {} records behind it stand twice; look there for an unclean election or a restored disk",
                scanned.displaced
            );
        }
        if scanned.uncertain > 0 {
            warn!(
                %link, id = "target-expired", %topic, partition,
                "retention removed the end of {topic}-{partition} on cluster {cluster} before it could be counted: at most {} records are repeated; give the topic a longer retention there",
                scanned.uncertain
            );
        }
    }

    /// Until when no record is written that the brokers forget at once.
    pub(crate) fn hold_until(&self) -> Option<Instant> {
        self.drained
            .unwrap_or_else(|| Some(self.fenced_at() + limits::LEASE_VALIDITY))
    }

    /// When the last request of an older epoch can have been written: under a lease that ends
    /// [`limits::LEASE_VALIDITY`] after this moment.
    fn fenced_at(&self) -> Instant {
        if self.fence.above.is_some() {
            self.session.rt.now()
        } else {
            self.session.fenced_at
        }
    }
}
