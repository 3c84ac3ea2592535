//! Opening a flow: from its last sync and the target's log to the exact place where it goes on.

use std::sync::Arc;
use std::time::Duration;

use strait_net::{Action, KafkaError};
use strait_wire::{GapReason, Isolation, Position, PositionFlags, Record, SyncKind, SyncRecord};
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::error::FlowError;
use crate::flow::Fence;
use crate::ledger::Ledger;
use crate::limits;
use crate::partition::{PartitionReader, batches_from};
use crate::resume::{Match, Scan, ScanError, Scanned, Walk, ended_cleanly, of_session, timeless};
use crate::routes::{Lookup, Routes};
use crate::session::Session;
use crate::spec::{FlowSpec, Start};
use crate::stitch::{Stitch, StitchError};
use crate::writer::Writer;

/// A flow ready to run.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stitch: Stitch,
    pub(crate) writer: Writer,
    pub(crate) ledger: Ledger,
    pub(crate) sync: SyncRecord,
    pub(crate) ids: (Uuid, Uuid),
    /// No record that the brokers forget at once is written before this moment: until then a late request of
    /// an older epoch may still arrive.
    pub(crate) hold_until: Option<Instant>,
    /// Nothing is there to forward: no fence was put up, so nothing may be written either.
    pub(crate) idle: bool,
}

/// Everything an opening needs to know.
pub(crate) struct Opening {
    pub(crate) session: Arc<Session>,
    pub(crate) spec: FlowSpec,
    /// The last sync known to be persisted.
    pub(crate) last: Option<SyncRecord>,
    /// What earlier openings of this session left behind.
    pub(crate) fence: Fence,
    /// There is something to forward: put up the fence.
    pub(crate) active: bool,
}

struct Ends {
    source: PartitionReader,
    target: PartitionReader,
    ids: (Uuid, Uuid),
}

impl Opening {
    /// Finds the position and persists the session sync; after it only this session's (producer id, epoch)
    /// can stand behind the sync (position protocol, section 3, steps 6 to 8).
    pub(crate) async fn run(&mut self) -> Result<Opened, FlowError> {
        if let Some(why) = self.session.unusable.get(&self.spec.key) {
            return Err(FlowError::Position(why.clone()));
        }
        let ends = self.ends().await?;
        if let Some(idle) = self.idle(&ends).await? {
            return Ok(idle);
        }
        let epoch = (self.session.epoch.producer_id, self.session.epoch.current());
        let (mut ledger, identity, kind, hold_until) = match &self.last {
            None => (self.fresh(&ends).await?, epoch, SyncKind::Session, None),
            Some(sync) => {
                let Some(position) = sync.position.clone() else {
                    let FlowSpec { key, .. } = &self.spec;
                    return Err(FlowError::Mm2Position {
                        topic: key.topic.clone(),
                        partition: key.partition,
                    });
                };
                self.check(&position)?;
                self.resume(&ends, &position).await?
            }
        };
        let source_gone = self
            .last
            .as_ref()
            .and_then(|s| s.position.as_ref())
            .is_some_and(|p| {
                !p.source_topic_id.is_nil()
                    && !ends.ids.0.is_nil()
                    && p.source_topic_id != ends.ids.0
            });
        let mut kind = kind;
        if source_gone {
            let start = ends.source.log_start().await?;
            warn!(
                link = %self.session.spec.name, topic = %self.spec.key.topic, partition = self.spec.key.partition,
                "the source topic was re-created: mirroring it from offset {start}; what was mirrored of the old one stays before it"
            );
            ledger.rebase(GapReason::Recreated, start, -1);
            kind = SyncKind::Rebase;
        }
        let sync = sync_record(&self.session, &self.spec, kind, &ledger, identity, ends.ids);
        let mut records = vec![sync.to_record(self.session.rt.wall_ms())];
        if kind == SyncKind::Rebase {
            // MirrorMaker 2 forgets its old pairs only when the upstream falls. In one batch with the position.
            let mut cleared = sync.clone();
            (cleared.upstream, cleared.downstream) = (-1, -1);
            records.insert(0, cleared.to_record(self.session.rt.wall_ms()));
        }
        self.session
            .syncs
            .append(&self.session.spec.name, records)
            .await?;
        debug!(
            link = %self.session.spec.name, topic = %self.spec.key.topic, partition = self.spec.key.partition,
            source = ledger.source_next(), target = ledger.target_next(), "flow open"
        );
        let isolation = self.session.spec.isolation;
        Ok(Opened {
            stitch: Stitch::new(
                ledger.source_next(),
                ledger.source_epoch(),
                self.spec.compacted,
                isolation,
            ),
            writer: Writer::new(identity.0, identity.1, ledger.target_next()),
            ledger,
            sync,
            ids: ends.ids,
            hold_until,
            idle: false,
        })
    }

    /// A flow whose source ends where its last sync does: nothing was forwarded behind the sync, and nothing is
    /// waiting. It is watched without a fence, so that restarts put no marker into every idle partition.
    async fn idle(&self, ends: &Ends) -> Result<Option<Opened>, FlowError> {
        let Some(sync) = self
            .last
            .as_ref()
            .filter(|_| !self.active && self.fence.above.is_none())
        else {
            return Ok(None);
        };
        let Some(position) = &sync.position else {
            return Ok(None);
        };
        self.check(position)?;
        let ids = (position.source_topic_id, position.target_topic_id);
        let isolation = self.session.spec.isolation;
        if ids != ends.ids
            || position.isolation != isolation
            || ends.source.offset_at(-1).await? != position.source_next
        {
            return Ok(None);
        }
        let (next, epoch) = (position.source_next, position.source_epoch);
        Ok(Some(Opened {
            stitch: Stitch::new(next, epoch, self.spec.compacted, isolation),
            writer: Writer::new(
                position.producer_id,
                position.producer_epoch,
                position.target_next,
            ),
            ledger: Ledger::restore(position),
            sync: sync.clone(),
            ids,
            hold_until: None,
            idle: true,
        }))
    }

    async fn ends(&self) -> Result<Ends, FlowError> {
        let FlowSpec {
            key, target_topic, ..
        } = &self.spec;
        let reader = |source, routes: &Arc<Routes>, topic: &str, isolation| PartitionReader {
            source,
            rt: self.session.rt.clone(),
            routes: routes.clone(),
            topic: topic.to_owned(),
            partition: key.partition,
            isolation,
        };
        let source = reader(
            true,
            &self.session.source,
            &key.topic,
            self.session.spec.isolation,
        );
        let target = reader(
            false,
            &self.session.target,
            target_topic,
            Isolation::ReadUncommitted,
        );
        if self.session.source.find(&key.topic, key.partition).await? == Lookup::Missing {
            self.session.source.invalidate();
            return Err(FlowError::SourceMissing {
                topic: key.topic.clone(),
                partition: key.partition,
            });
        }
        if self
            .session
            .target
            .find(target_topic, key.partition)
            .await?
            == Lookup::Missing
        {
            self.session.target.invalidate();
            return Err(FlowError::TargetMissing {
                topic: target_topic.clone(),
                partition: key.partition,
            });
        }
        let ids = (source.topic_id().await?, target.topic_id().await?);
        Ok(Ends {
            source,
            target,
            ids,
        })
    }

    fn check(&self, position: &Position) -> Result<(), FlowError> {
        if position.link != self.session.spec.name {
            return Err(FlowError::Position(format!(
                "it belongs to link {:?}, which mirrors this topic into {} on the same target: stop that link and give this one its name, or exclude the topic from one of them",
                position.link, position.target_topic
            )));
        }
        let named = (position.target_topic.as_str(), position.target_partition);
        if named != (self.spec.target_topic.as_str(), self.spec.key.partition) {
            return Err(FlowError::Position(format!(
                "it stands for {}-{} on the target, but the flow now goes to {}-{}: restore the naming, or give the link a new name",
                named.0, named.1, self.spec.target_topic, self.spec.key.partition
            )));
        }
        if position.flags != PositionFlags::default() && position.flags != PositionFlags::COMPACTED
        {
            return Err(FlowError::Position(
                "it was written in a mode this version does not have: upgrade this instance"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// No older session can have written data here, nor begin to: its session sync would have been refused.
    async fn fresh(&self, ends: &Ends) -> Result<Ledger, FlowError> {
        let start = ends.target.log_start().await?;
        let end = ends.target.log_end().await?;
        self.refuse_data(ends, start, end).await?;
        let from = match self.spec.start {
            Start::Earliest => ends.source.log_start().await?,
            Start::Latest => ends.source.offset_at(-1).await?,
            Start::Timestamp(ms) => match ends.source.offset_at(ms).await? {
                -1 => ends.source.offset_at(-1).await?,
                offset => offset,
            },
        };
        Ok(Ledger::begin(from, end))
    }

    async fn refuse_data(&self, ends: &Ends, start: i64, end: i64) -> Result<(), FlowError> {
        let mut offset = start;
        let deadline = self.session.rt.now() + limits::REQUEST_TIMEOUT;
        while offset < end {
            let fetched = ends
                .target
                .fetch(offset, -1, Duration::from_millis(100))
                .await?;
            if fetched.part.error != 0 {
                return Err(FlowError::Source {
                    error: KafkaError(fetched.part.error),
                    offset,
                });
            }
            for batch in batches_from(&fetched.part, offset)? {
                if !batch.header.attributes.control() {
                    return Err(FlowError::TargetHasData {
                        topic: self.spec.target_topic.clone(),
                        partition: self.spec.key.partition,
                        from: batch.header.base_offset,
                        to: end,
                    });
                }
                offset = batch.header.last_offset() + 1;
            }
            // Formats before record batches hold data as well.
            if fetched.part.records.len() > 16 && offset < end && fetched.part.records[16] < 2 {
                return Err(FlowError::TargetHasData {
                    topic: self.spec.target_topic.clone(),
                    partition: self.spec.key.partition,
                    from: offset,
                    to: end,
                });
            }
            if fetched.part.records.is_empty() {
                if self.session.rt.now() >= deadline {
                    return Err(FlowError::Doubt(format!(
                        "the target's log ends at {end}, but nothing can be read at offset {offset}"
                    )));
                }
                self.session.rt.sleep(limits::BACKOFF_MIN).await;
            }
        }
        Ok(())
    }

    async fn resume(
        &mut self,
        ends: &Ends,
        position: &Position,
    ) -> Result<(Ledger, (i64, i16), SyncKind, Option<Instant>), FlowError> {
        let mut ledger = Ledger::restore(position);
        let current = (self.session.epoch.producer_id, self.session.epoch.current());
        let recreated = !position.target_topic_id.is_nil()
            && !ends.ids.1.is_nil()
            && position.target_topic_id != ends.ids.1;
        if recreated {
            return self.start_over(ends, ledger, current).await;
        }
        let end = ends.target.log_end().await?;
        if end < position.target_next {
            // Known before a fence adds its marker to the shortened log.
            return Err(FlowError::TargetLost {
                topic: self.spec.target_topic.clone(),
                partition: self.spec.key.partition,
                end,
                expected: position.target_next,
            });
        }
        if self.fence.above.is_none()
            && ended_cleanly(position, self.session.closed_cleanly)
            && end == position.target_next
        {
            ledger.new_epoch(position.target_next);
            return Ok((ledger, current, SyncKind::Session, None));
        }
        let (identity, scanned) = self.fence_and_scan(ends, position).await?;
        self.report(&scanned);
        let hold_until = Some(self.fenced_at() + limits::LEASE_VALIDITY);
        self.along_the_source(ends, position, &scanned, &mut ledger)
            .await?;
        ledger.new_epoch(scanned.target_next);
        Ok((ledger, identity, SyncKind::Session, hold_until))
    }

    /// The target topic is another one than the position speaks of: nothing of the flow is there.
    async fn start_over(
        &self,
        ends: &Ends,
        mut ledger: Ledger,
        current: (i64, i16),
    ) -> Result<(Ledger, (i64, i16), SyncKind, Option<Instant>), FlowError> {
        let (start, end) = (ends.target.log_start().await?, ends.target.log_end().await?);
        self.refuse_data(ends, start, end).await?;
        let first = ends.source.log_start().await?;
        warn!(
            link = %self.session.spec.name, topic = %self.spec.target_topic, partition = self.spec.key.partition,
            "the target topic was re-created: mirroring again from source offset {first}"
        );
        ledger.rebase(GapReason::Expired, first, -1);
        ledger.new_epoch(end);
        Ok((ledger, current, SyncKind::Rebase, None))
    }

    /// The marker makes everything before it final; the scan up to it counts what is ours.
    async fn fence_and_scan(
        &mut self,
        ends: &Ends,
        position: &Position,
    ) -> Result<((i64, i16), Scanned), FlowError> {
        let FlowSpec {
            key,
            target_topic,
            min_insync,
            ..
        } = &self.spec.clone();
        let route = ends.target.route().await?;
        // More than there are replicas has no effect on the broker either.
        let (insync, needed) = (route.insync, (*min_insync).min(route.replicas));
        if insync < needed {
            let (topic, partition) = (target_topic.clone(), key.partition);
            return Err(FlowError::UnderMinIsr {
                topic,
                partition,
                insync,
                needed,
            });
        }
        let log_start = ends.target.log_start().await?;
        let identity = self.put_up_fence().await?;
        let markers = self.markers_since(position, identity);
        let mut scan = Scan::new(
            position.clone(),
            identity,
            log_start,
            self.spec.compacted,
            markers,
        );
        let mut offset = scan.from();
        let deadline = self.session.rt.now() + limits::BARRIER_TIMEOUT;
        let failed = |source| match source {
            ScanError::Lost { end, expected } => FlowError::TargetLost {
                topic: target_topic.clone(),
                partition: key.partition,
                end,
                expected,
            },
            source => FlowError::Scan {
                topic: target_topic.clone(),
                partition: key.partition,
                source,
            },
        };
        loop {
            let fetched = ends
                .target
                .fetch(offset, -1, Duration::from_millis(200))
                .await?;
            if fetched.part.error != 0 {
                let end = ends.target.log_end().await?;
                if end < position.target_next {
                    return Err(failed(ScanError::Lost {
                        end,
                        expected: position.target_next,
                    }));
                }
                return Err(FlowError::Source {
                    error: KafkaError(fetched.part.error),
                    offset,
                });
            }
            for batch in batches_from(&fetched.part, offset)? {
                offset = batch.header.last_offset() + 1;
                let fed = scan.feed(&batch.header).map_err(|error| {
                    // The next try looks again; another marker would add nothing.
                    self.fence.standing = Some(identity);
                    failed(error)
                });
                if fed? {
                    self.fence.standing = Some(identity);
                    let scanned = scan
                        .finish()
                        .ok_or_else(|| FlowError::Doubt("the scan had no end".to_owned()))?;
                    return Ok((identity, scanned));
                }
            }
            if self.session.rt.now() >= deadline {
                self.fence.standing = None;
                let waited = limits::BARRIER_TIMEOUT;
                return Err(FlowError::Fence {
                    topic: target_topic.clone(),
                    partition: key.partition,
                    waited,
                });
            }
        }
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

    fn report(&self, scanned: &Scanned) {
        let (link, topic) = (&self.session.spec.name, &self.spec.target_topic);
        let partition = self.spec.key.partition;
        if let Some(first) = scanned.late.first() {
            warn!(
                %link, %topic, partition,
                "{} batches, the first at offset {first}, were appended late by an older session: their records stand twice",
                scanned.late.len()
            );
        }
        if scanned.uncertain > 0 {
            warn!(
                %link, %topic, partition,
                "retention removed the end of the target's log before it could be counted: at most {} records are repeated",
                scanned.uncertain
            );
        }
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

    async fn along_the_source(
        &self,
        ends: &Ends,
        position: &Position,
        scanned: &Scanned,
        ledger: &mut Ledger,
    ) -> Result<(), FlowError> {
        let same = position.source_topic_id.is_nil()
            || ends.ids.0.is_nil()
            || position.source_topic_id == ends.ids.0;
        if scanned.records == 0 || !same {
            ledger.resume(
                scanned.records,
                std::iter::empty(),
                ledger.source_next(),
                ledger.source_epoch(),
            );
            return Ok(());
        }
        let walk = self.walk(ends, position, scanned.records).await?;
        if walk.done() {
            ledger.resume(scanned.records, walk.gaps(), walk.next(), walk.epoch());
            return Ok(());
        }
        self.match_by_content(ends, position, scanned, ledger).await
    }

    async fn walk(
        &self,
        ends: &Ends,
        position: &Position,
        records: i64,
    ) -> Result<Walk, FlowError> {
        let mut walk = Walk::new(position, records);
        let source = PartitionReader {
            source: true,
            rt: self.session.rt.clone(),
            routes: ends.source.routes.clone(),
            topic: ends.source.topic.clone(),
            partition: ends.source.partition,
            isolation: position.isolation,
        };
        let mut stitch = Stitch::new(
            position.source_next,
            position.source_epoch,
            self.spec.compacted,
            position.isolation,
        );
        let mut deadline = self.session.rt.now() + limits::REQUEST_TIMEOUT;
        while !walk.done() && !walk.doubtful() {
            let fetched = source
                .fetch(stitch.head(), stitch.epoch(), Duration::from_millis(200))
                .await?;
            if fetched.part.error != 0 || fetched.part.diverging.is_some() {
                return Ok(walk);
            }
            let mut items = Vec::new();
            match stitch.admit(&fetched.part, fetched.proven, &mut items) {
                Ok(()) => {}
                Err(StitchError::Stale { .. } | StitchError::Unproven { .. }) => return Ok(walk),
                Err(error) => return Err(error.into()),
            }
            if items.is_empty() {
                // Forwarded once, so it was below the high watermark: it comes back, or it was truncated.
                if self.session.rt.now() >= deadline {
                    return Ok(walk);
                }
            } else {
                deadline = self.session.rt.now() + limits::REQUEST_TIMEOUT;
            }
            for item in &items {
                if walk.feed(item) {
                    break;
                }
            }
        }
        Ok(walk)
    }

    /// The source's history changed since: elections, compaction or retention. The target's records
    /// tell what was forwarded.
    async fn match_by_content(
        &self,
        ends: &Ends,
        position: &Position,
        scanned: &Scanned,
        ledger: &mut Ledger,
    ) -> Result<(), FlowError> {
        let mut records = Vec::new();
        let mut stamped = false;
        let mut offset = position.target_next.max(ends.target.log_start().await?);
        while offset < scanned.target_next {
            let fetched = ends
                .target
                .fetch(offset, -1, Duration::from_millis(200))
                .await?;
            if fetched.part.error != 0 {
                return Err(FlowError::Source {
                    error: KafkaError(fetched.part.error),
                    offset,
                });
            }
            for batch in batches_from(&fetched.part, offset)? {
                offset = batch.header.last_offset() + 1;
                if of_session(position, &batch) {
                    stamped |= batch.header.attributes.timestamp_type_append();
                    records.extend(batch.decode(limits::INFLATE_BYTES)?);
                }
            }
        }
        let held = records.len() as i64;
        let from = position.source_next.max(ends.source.log_start().await?);
        let matching = if !stamped {
            Match::new(records.iter().map(Record::hash).collect(), from)
        } else if self.spec.compacted || from > position.source_next {
            // What is left of the source could be taken for what is gone.
            Match::new(Vec::new(), from)
        } else {
            Match::new(records.iter().map(timeless).collect(), from).without_times()
        };
        drop(records);
        let matched = self.embed(ends, position, matching, from).await?;
        let (link, topic, partition) = (
            &self.session.spec.name,
            &self.spec.key.topic,
            self.spec.key.partition,
        );
        if held < scanned.records {
            warn!(
                %link, %topic, partition,
                "the source changed and the target no longer holds everything since the last sync: at most {} records are repeated",
                scanned.records - held
            );
        }
        if stamped && matched.matched() < held {
            warn!(
                %link, %topic, partition,
                "the source changed, and the target stamps records itself (LogAppendTime), so that they cannot be told apart: at most {} records are repeated",
                held - matched.matched()
            );
        }
        debug!(%link, %topic, partition, next = matched.next(), "position found by content");
        let (records, next) = (scanned.records, matched.next());
        let left_out = (next - position.source_next - records).max(0);
        let expired = (from - position.source_next - records).clamp(0, left_out);
        if expired > 0 {
            warn!(
                %link, %topic, partition,
                "retention on the source overtook the mirror while it was down: of the offsets {} to {}, {expired} were not mirrored; going on at {next}",
                position.source_next, from - 1
            );
        }
        let gaps = [
            (GapReason::Expired, expired),
            (GapReason::Compacted, left_out - expired),
        ];
        let gaps = gaps.into_iter().filter(|(_, offsets)| *offsets > 0);
        ledger.resume(records, gaps, next, matched.epoch());
        Ok(())
    }

    async fn embed(
        &self,
        ends: &Ends,
        position: &Position,
        mut matching: Match,
        from: i64,
    ) -> Result<Match, FlowError> {
        let mut stitch = Stitch::new(from, -1, self.spec.compacted, position.isolation);
        while !matching.done() {
            let fetched = ends.source.fetch(stitch.head(), -1, Duration::ZERO).await?;
            if fetched.part.error != 0 {
                return Err(FlowError::Source {
                    error: KafkaError(fetched.part.error),
                    offset: stitch.head(),
                });
            }
            let mut items = Vec::new();
            stitch.admit(&fetched.part, true, &mut items)?;
            let end = match position.isolation {
                Isolation::ReadCommitted => fetched.part.last_stable_offset,
                Isolation::ReadUncommitted => fetched.part.high_watermark,
            };
            for item in &items {
                if let crate::stitch::Item::Batch(outgoing) = item {
                    for record in outgoing.records()? {
                        if matching.feed(&record, outgoing.source_epoch) {
                            return Ok(matching);
                        }
                    }
                }
            }
            if items.is_empty() && stitch.head() >= end {
                break;
            }
        }
        Ok(matching)
    }
}

/// A sync of the flow's present position.
pub(crate) fn sync_record(
    session: &Session,
    spec: &FlowSpec,
    kind: SyncKind,
    ledger: &Ledger,
    (producer_id, producer_epoch): (i64, i16),
    ids: (Uuid, Uuid),
) -> SyncRecord {
    let flags = if spec.compacted {
        PositionFlags::COMPACTED
    } else {
        PositionFlags::default()
    };
    SyncRecord {
        topic: spec.key.topic.clone(),
        partition: spec.key.partition,
        upstream: ledger.source_next() - 1,
        downstream: ledger.target_next() - 1,
        position: Some(Position {
            kind,
            isolation: session.spec.isolation,
            flags,
            source_next: ledger.source_next(),
            target_next: ledger.target_next(),
            forwarded: ledger.forwarded(),
            producer_id,
            producer_epoch,
            next_sequence: ledger.next_sequence(),
            source_epoch: ledger.source_epoch(),
            source_topic_id: ids.0,
            target_topic_id: ids.1,
            target_partition: spec.key.partition,
            wall_ms: session.rt.wall_ms(),
            target_topic: spec.target_topic.clone(),
            link: session.spec.name.clone(),
            gaps: ledger.gaps(),
        }),
    }
}

/// Whether an opening that failed should be tried again at once with fresh routes.
pub(crate) fn passing(error: &FlowError) -> bool {
    error.action() == Action::Retry
}
