//! Opening a flow: from its last sync and the target's log to the exact place where it goes on.

pub(crate) mod along;
pub(crate) mod expiry;
pub(crate) mod remirror;
pub(crate) mod target_scan;

use std::sync::Arc;
use std::time::Duration;

use strait_net::{Action, ConfigEntry};
use strait_wire::{GapReason, Isolation, Position, PositionFlags, SyncKind, SyncRecord};
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::error::FlowError;
use crate::flow::{Acked, Fence};
use crate::ledger::Ledger;
use crate::partition::{PartitionReader, batches_from};
use crate::routes::{Lookup, Routes};
use crate::scan::{ScanError, ended_cleanly};
use crate::session::Session;
use crate::spec::{FlowSpec, Policy, Start};
use crate::stitch::Stitch;
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
    /// The largest batch that the target takes, where it was asked for.
    pub(crate) limit: Option<usize>,
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
    /// What this session had acknowledged.
    pub(crate) acked: Option<Acked>,
    /// The source's log looked cut: its topic may be another one.
    pub(crate) looked_cut: bool,
    /// Nothing that this session sent to the partition can arrive late; with what was held back for an older one.
    pub(crate) drained: Option<Option<Instant>>,
    /// The size of a batch that the target refused as too large.
    pub(crate) too_large: Option<usize>,
    /// The target deletes what was mirrored a moment ago, and the flow is to stop at that.
    pub(crate) expired: bool,
}

/// Both partitions of a flow.
pub(crate) struct Ends {
    pub(crate) source: PartitionReader,
    pub(crate) target: PartitionReader,
    /// The ids of their topics.
    pub(crate) ids: (Uuid, Uuid),
}

/// Where an opening goes on.
pub(crate) struct Resumed {
    pub(crate) ledger: Ledger,
    pub(crate) identity: (i64, i16),
    pub(crate) kind: SyncKind,
    pub(crate) hold_until: Option<Instant>,
}

impl Opening {
    /// Finds the position and persists the session sync; after it only this session's (producer id, epoch)
    /// can stand behind the sync (positions.md in the book, "Opening a flow").
    pub(crate) async fn run(&mut self) -> Result<Opened, FlowError> {
        if let Some(why) = self.session.unusable.get(&self.spec.key) {
            return Err(FlowError::Position(why.clone()));
        }
        if self.looked_cut {
            // Where requests go by name a topic that was re-created looks like one that was truncated.
            self.session.source.refresh().await?;
        }
        let ends = self.ends().await?;
        if let Some(idle) = self.idle(&ends).await? {
            return Ok(idle);
        }
        let Resumed {
            ledger,
            identity,
            kind,
            hold_until,
        } = self.resumed(&ends).await?;
        let limit = match self.too_large {
            Some(size) => Some(self.measure(size).await),
            None => None,
        };
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
                self.session.spec.decode_bytes(),
            )
            .only_local(self.session.producers_here()),
            writer: Writer::new(identity.0, identity.1, ledger.target_next())
                .shared(self.session.spec.shared_target()),
            ledger,
            sync,
            ids: ends.ids,
            hold_until,
            idle: false,
            limit,
        })
    }

    async fn resumed(&mut self, ends: &Ends) -> Result<Resumed, FlowError> {
        let current = (self.session.epoch.producer_id, self.session.epoch.current());
        if self
            .last
            .as_ref()
            .is_none_or(|sync| sync.position.is_none())
            && let Some(taken) = self.take_over(ends).await?
        {
            return Ok(taken);
        }
        let taking = self.session.spec.takes_over();
        // A sync of MirrorMaker 2 that could not be gone on from: of a target that was created anew.
        let last = self.last.as_ref();
        let Some(sync) = last.filter(|sync| sync.position.is_some() || !taking) else {
            return Ok(Resumed {
                ledger: self.fresh(ends).await?,
                identity: current,
                kind: SyncKind::Session,
                hold_until: None,
            });
        };
        let key = self.spec.key.clone();
        let Some(position) = sync.position.clone() else {
            return Err(FlowError::Mm2Position);
        };
        self.check(&position)?;
        let recreated = source_recreated(&position, ends);
        let cluster = self.session.spec.source.alias().to_owned();
        let policies = self.session.spec.policies;
        if recreated && policies.source_recreated == Policy::Stop {
            return Err(FlowError::SourceRecreated {
                cluster,
                topic: key.topic,
                partition: key.partition,
                next: position.source_next,
            });
        }
        let mut resumed = self.resume(ends, &position).await?;
        if recreated {
            let start = ends.source.log_start().await?;
            warn!(
                link = %self.session.spec.name, id = "source-recreated", topic = %key.topic, partition = key.partition,
                "the source topic was re-created: mirroring it from offset {start}; what was mirrored of the old one up to offset {} stays before it, in {} on cluster {} up to offset {}",
                position.source_next, self.spec.target_topic, self.session.spec.target.alias(), resumed.ledger.target_next()
            );
            resumed.ledger.rebase(GapReason::Recreated, start, -1);
            resumed.kind = SyncKind::Rebase;
        } else if policies.retention_overtook == Policy::Stop {
            let (start, next) = (ends.source.log_start().await?, resumed.ledger.source_next());
            if start > next {
                return Err(self.overtaken(next, start));
            }
        }
        Ok(resumed)
    }

    pub(crate) fn overtaken(&self, next: i64, start: i64) -> FlowError {
        FlowError::RetentionOvertook {
            cluster: self.session.spec.source.alias().to_owned(),
            topic: self.spec.key.topic.clone(),
            partition: self.spec.key.partition,
            next,
            start,
        }
    }

    /// The largest batch that the target takes now, at any rate less than the one of `size` that it refused.
    async fn measure(&self, size: usize) -> usize {
        let topics = [self.spec.target_topic.clone()];
        let answer = self.session.spec.target.describe_topic_configs(&topics);
        let number = |entry: &ConfigEntry| entry.value.as_ref()?.parse::<usize>().ok();
        let limit = answer.await.ok().and_then(|mut topics| {
            let entries = topics.remove(&self.spec.target_topic)?.ok()?;
            let limits = entries
                .iter()
                .filter(|e| matches!(e.name.as_str(), "max.message.bytes" | "segment.bytes"));
            limits.filter_map(number).min()
        });
        // What a broker packs anew may be larger than it was.
        limit.filter(|limit| *limit < size).unwrap_or(size / 2)
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
        let max_decoded = self.session.spec.decode_bytes();
        let expired = position.flags.contains(PositionFlags::EXPIRED)
            && self.session.spec.policies.target_expired == Policy::Stop;
        if ids != ends.ids
            || expired
            || position.isolation != isolation
            || ends.source.offset_at(-1).await? != position.source_next
            // Nothing will be written that could find out about a loss.
            || ends.target.log_end().await? < position.target_next
        {
            return Ok(None);
        }
        let (next, epoch) = (position.source_next, position.source_epoch);
        Ok(Some(Opened {
            stitch: Stitch::new(next, epoch, self.spec.compacted, isolation, max_decoded)
                .only_local(self.session.producers_here()),
            writer: Writer::new(
                position.producer_id,
                position.producer_epoch,
                position.target_next,
            ),
            ledger: Ledger::restore(position, sync.downstream),
            sync: sync.clone(),
            ids,
            hold_until: None,
            idle: true,
            limit: None,
        }))
    }

    /// The account of the last sync.
    pub(crate) fn restored(&self, position: &Position) -> Ledger {
        let downstream = self.last.as_ref().map_or(-1, |sync| sync.downstream);
        Ledger::restore(position, downstream)
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
            return Err(FlowError::SourceMissing);
        }
        if self
            .session
            .target
            .find(target_topic, key.partition)
            .await?
            == Lookup::Missing
        {
            self.session.target.invalidate();
            return Err(FlowError::TargetMissing);
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
                "it stands for {}-{} on the target, but the flow now goes to {}-{}: restore the naming; or delete the target topics and give the source another alias",
                named.0, named.1, self.spec.target_topic, self.spec.key.partition
            )));
        }
        let known = PositionFlags::SHARED
            | PositionFlags::COMPACTED
            | PositionFlags::PROVENANCE
            | PositionFlags::EXPIRED;
        if position.flags | known != known {
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
        let spec = &self.session.spec;
        if !spec.only_local && spec.policies.target_has_data == Policy::Stop {
            self.refuse_data(ends, start, end).await?;
        }
        let from = match self.spec.start {
            Start::Earliest => ends.source.log_start().await?,
            // A topic or partition that came later belongs to it from its first record on.
            Start::Latest if self.session.spec.only_local => {
                self.since(ends, self.session.created_ms).await?
            }
            Start::Latest => ends.source.offset_at(-1).await?,
            Start::Timestamp(ms) => self.since(ends, ms).await?,
        };
        Ok(Ledger::begin(from, end))
    }

    /// The first offset at or after a time on the source, the end where there is none.
    async fn since(&self, ends: &Ends, ms: i64) -> Result<i64, FlowError> {
        match ends.source.offset_at(ms).await? {
            -1 => ends.source.offset_at(-1).await,
            offset => Ok(offset),
        }
    }

    pub(crate) async fn refuse_data(
        &self,
        ends: &Ends,
        start: i64,
        end: i64,
    ) -> Result<(), FlowError> {
        let mut offset = start;
        let mut patience = ends.target.patience(offset);
        while offset < end {
            let fetched = ends
                .target
                .fetch(offset, -1, Duration::from_millis(100))
                .await?;
            if fetched.part.error != 0 {
                return Err(ends.target.answered(fetched.part.error, offset));
            }
            for batch in batches_from(&fetched.part, offset)? {
                if !batch.header.attributes.control() {
                    return Err(FlowError::TargetHasData {
                        from: batch.header.base_offset,
                        to: end,
                    });
                }
                offset = batch.header.last_offset() + 1;
            }
            // Formats before record batches hold data as well.
            if fetched.part.records.len() > 16 && offset < end && fetched.part.records[16] < 2 {
                return Err(FlowError::TargetHasData {
                    from: offset,
                    to: end,
                });
            }
            if !patience.asks_again(offset).await {
                return Err(ends.target.nothing_read(offset, end));
            }
        }
        Ok(())
    }

    async fn resume(&mut self, ends: &Ends, position: &Position) -> Result<Resumed, FlowError> {
        let mut ledger = self.restored(position);
        let current = (self.session.epoch.producer_id, self.session.epoch.current());
        let recreated = !position.target_topic_id.is_nil()
            && !ends.ids.1.is_nil()
            && position.target_topic_id != ends.ids.1;
        if recreated {
            return self.start_over(ends, ledger, current).await;
        }
        self.judge_expiry(ends, position).await?;
        let end = ends.target.log_end().await?;
        let acked = self.acked.as_ref().map(|acked| acked.ledger.target_next());
        let expected = position.target_next.max(acked.unwrap_or(0));
        let remirror = self.session.spec.policies.target_lost == Policy::GoOn;
        if end < expected && !remirror {
            // Known before a fence adds its marker to the shortened log.
            self.keep_acked(position).await?;
            return Err(self.lost(end, expected));
        }
        let cut = self.source_cut(ends, position).await?;
        if end < position.target_next {
            return self.remirror(ends, position, end).await;
        }
        if end < expected {
            // What is missing lies behind the last sync: the scan counts what is left.
            warn!(
                link = %self.session.spec.name, id = "target-lost", topic = %self.spec.target_topic, partition = self.spec.key.partition,
                "the target lost data: the log on cluster {} ends at offset {end}, but records up to {expected} had been acknowledged; mirroring again what is missing",
                self.session.spec.target.alias()
            );
        }
        // What others wrote behind it is theirs.
        let shared = position.flags.contains(PositionFlags::SHARED);
        if self.fence.above.is_none()
            && ended_cleanly(position, self.session.closed_cleanly)
            && (end == position.target_next || (shared && self.session.spec.shared_target()))
            && cut.is_none()
            && self.anchored(ends, position).await?
        {
            ledger.new_epoch(end.max(position.target_next));
            return Ok(Resumed {
                ledger,
                identity: current,
                kind: SyncKind::Session,
                hold_until: None,
            });
        }
        let (identity, scanned) = match self.fence_and_scan(ends, position).await? {
            (identity, Ok(scanned)) => (identity, scanned),
            (_, Err(ScanError::Lost { end, .. } | ScanError::Anchor { offset: end, .. }))
                if remirror =>
            {
                return self.remirror(ends, position, end).await;
            }
            (_, Err(ScanError::Lost { end, expected })) => return Err(self.lost(end, expected)),
            (_, Err(source)) => {
                return Err(FlowError::Scan {
                    cluster: self.session.spec.target.alias().to_owned(),
                    topic: self.spec.target_topic.clone(),
                    partition: self.spec.key.partition,
                    source: source.named(&self.session.others),
                });
            }
        };
        self.report(&scanned);
        let hold_until = self.hold_until();
        let kind = self
            .along_the_source(ends, position, &scanned, &mut ledger, cut)
            .await?;
        ledger.new_epoch(scanned.target_next);
        Ok(Resumed {
            ledger,
            identity,
            kind,
            hold_until,
        })
    }

    /// Persists what was acknowledged and is lost now: whoever opens the flow next has to know of it as well. Without a
    /// pair for MirrorMaker 2, which the target does not hold.
    async fn keep_acked(&mut self, position: &Position) -> Result<(), FlowError> {
        let Some(acked) = &self.acked else {
            return Ok(());
        };
        let Acked {
            ledger,
            identity,
            ids,
        } = acked;
        if ledger.target_next() <= position.target_next {
            return Ok(());
        }
        let kind = SyncKind::Periodic;
        let mut sync = sync_record(&self.session, &self.spec, kind, ledger, *identity, *ids);
        (sync.upstream, sync.downstream) = (-1, -1);
        self.keep(sync).await
    }

    /// Persists a position although the flow does not go on from it yet.
    pub(crate) async fn keep(&mut self, sync: SyncRecord) -> Result<(), FlowError> {
        let record = sync.to_record(self.session.rt.wall_ms());
        let link = &self.session.spec.name;
        self.session.syncs.append(link, vec![record]).await?;
        self.last = Some(sync);
        Ok(())
    }

    fn lost(&self, end: i64, expected: i64) -> FlowError {
        FlowError::TargetLost {
            cluster: self.session.spec.target.alias().to_owned(),
            topic: self.spec.target_topic.clone(),
            partition: self.spec.key.partition,
            end,
            expected,
        }
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
    let mut flags = PositionFlags::default();
    if spec.compacted {
        flags = flags | PositionFlags::COMPACTED;
    }
    if session.spec.shared_target() {
        flags = flags | PositionFlags::SHARED;
    }
    if session.spec.only_local {
        flags = flags | PositionFlags::PROVENANCE;
    }
    SyncRecord {
        topic: spec.key.topic.clone(),
        partition: spec.key.partition,
        upstream: ledger.source_next().saturating_sub(1),
        downstream: ledger.downstream(),
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
            lost: ledger.lost().clone(),
        }),
    }
}

/// Whether the source topic is another one than the position speaks of.
pub(crate) fn source_recreated(position: &Position, ends: &Ends) -> bool {
    !position.source_topic_id.is_nil()
        && !ends.ids.0.is_nil()
        && position.source_topic_id != ends.ids.0
}

/// Whether an opening that failed should be tried again at once with fresh routes.
pub(crate) fn passing(error: &FlowError) -> bool {
    error.action() == Action::Retry
}
