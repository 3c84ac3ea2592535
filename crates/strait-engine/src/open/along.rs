//! The way along the source: over what the scan counted on the target, to the place where a flow goes on.

use std::time::Duration;

use strait_net::NetError;
use strait_wire::{GapReason, Position, Record, SyncKind};
use tracing::{debug, warn};

use crate::error::FlowError;
use crate::ledger::Ledger;
use crate::left_out::LeftOut;
use crate::matching::{Match, of_session, timeless};
use crate::open::{Ends, Opening, source_recreated};
use crate::partition::PartitionReader;
use crate::scan::Scanned;
use crate::spec::Policy;
use crate::stitch::{Item, Stitch, StitchError};
use crate::transfer::{epoch_reaches, readable_end};
use crate::walk::Walk;

/// How a walk ended.
enum Walked {
    /// Behind the last record, or in doubt.
    Ended(Walk),
    /// The source's log was cut to (epoch, end) below what was forwarded.
    Cut(Walk, (i32, i64)),
}

impl Opening {
    /// Where the source's log was cut, if it ends below the position or took another way there: the epoch before
    /// the cut, and its end.
    pub(crate) async fn source_cut(
        &self,
        ends: &Ends,
        position: &Position,
    ) -> Result<Option<(i32, i64)>, FlowError> {
        if source_recreated(position, ends) {
            return Ok(None);
        }
        let (epoch, next) = (position.source_epoch, position.source_next);
        let key = &self.spec.key;
        let reached = if epoch < 0 {
            None
        } else {
            let routes = &ends.source.routes;
            match epoch_reaches(routes, &key.topic, key.partition, epoch, next).await {
                Err(FlowError::Net(NetError::Unsupported { .. })) => None,
                other => Some(other?),
            }
        };
        let cut = match reached {
            Some((_, _, true)) => None,
            Some((found, end, _)) if end >= 0 => Some((found, end.min(next))),
            // The source has no record of so young an epoch: whatever it holds, it is not what was mirrored.
            Some(_) => Some((-1, ends.source.log_start().await?.min(next))),
            None => {
                let end = ends.source.log_end().await?;
                (end < next).then_some((-1, end))
            }
        };
        match cut {
            Some((_, end)) => self.may_follow(end, next).map(|()| cut),
            None => Ok(None),
        }
    }

    /// The source's log was cut at `end`, below `next`.
    fn may_follow(&self, end: i64, next: i64) -> Result<(), FlowError> {
        if self.session.spec.policies.source_truncated == Policy::Stop {
            return Err(FlowError::SourceTruncated {
                cluster: self.session.spec.source.alias().to_owned(),
                topic: self.spec.key.topic.clone(),
                partition: self.spec.key.partition,
                end,
                next,
            });
        }
        Ok(())
    }

    /// Moves the ledger over what was forwarded. A sync of the returned kind says where the flow goes on.
    pub(crate) async fn along_the_source(
        &self,
        ends: &Ends,
        position: &Position,
        scanned: &Scanned,
        ledger: &mut Ledger,
        cut: Option<(i32, i64)>,
    ) -> Result<SyncKind, FlowError> {
        let (records, next) = (scanned.records, position.source_next);
        let stay = |ledger: &mut Ledger| {
            let (next, epoch) = (ledger.source_next(), ledger.source_epoch());
            ledger.resume(records, &LeftOut::default(), next, epoch);
        };
        if let Some((epoch, end)) = cut {
            stay(ledger);
            return Ok(self.follow(ledger, (epoch, end), next.saturating_add(records), scanned));
        }
        if records == 0 || source_recreated(position, ends) {
            stay(ledger);
            return Ok(SyncKind::Session);
        }
        match self.walk(ends, position, records).await? {
            Walked::Ended(walk) if walk.done() => {
                ledger.resume(records, walk.left_out(), walk.next(), walk.epoch());
                Ok(SyncKind::Session)
            }
            Walked::Ended(_) => self.match_by_content(ends, position, scanned, ledger).await,
            Walked::Cut(walk, (epoch, end)) => {
                let mirrored = walk.next().saturating_add(walk.left());
                self.may_follow(end, mirrored)?;
                ledger.resume(records, walk.left_out(), walk.next(), walk.epoch());
                Ok(self.follow(ledger, (epoch, end), mirrored, scanned))
            }
        }
    }

    /// The source lost what lies at and above `end`: its new history is mirrored from there.
    fn follow(
        &self,
        ledger: &mut Ledger,
        (epoch, end): (i32, i64),
        mirrored: i64,
        scanned: &Scanned,
    ) -> SyncKind {
        warn!(
            link = %self.session.spec.name, id = "source-truncated", topic = %self.spec.key.topic, partition = self.spec.key.partition,
            "the source lost records: its log on cluster {} was cut at offset {end}, and was mirrored up to {mirrored}; what it lost stays in the target below offset {}, and its new history follows from {end}",
            self.session.spec.source.alias(), scanned.target_next
        );
        ledger.rebase(GapReason::Truncated, end, epoch);
        SyncKind::Rebase
    }

    async fn walk(
        &self,
        ends: &Ends,
        position: &Position,
        records: i64,
    ) -> Result<Walked, FlowError> {
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
            self.session.spec.decode_bytes(),
        )
        .only_local(self.session.producers_then(position));
        let mut patience = source.patience(stitch.head());
        while !walk.done() && !walk.doubtful() {
            let fetched = source
                .fetch(stitch.head(), stitch.epoch(), Duration::from_millis(200))
                .await?;
            if let Some((epoch, end)) = fetched.part.diverging {
                return Ok(Walked::Cut(walk, (epoch, end.min(stitch.head()).max(0))));
            }
            if fetched.part.error != 0 {
                break;
            }
            let mut items = Vec::new();
            match stitch.admit(&fetched.part, fetched.proven, &mut items) {
                // The next answer decides about a hole; what came before it counts.
                Ok(()) | Err(StitchError::Hole { .. }) => {}
                Err(StitchError::Origin { producer_ids, .. }) => {
                    self.session.provenance.look_up(&producer_ids).await?;
                }
                Err(StitchError::Stale { .. } | StitchError::Unproven { .. }) => break,
                Err(error) => return Err(error.into()),
            }
            for item in &items {
                if walk.feed(item) {
                    break;
                }
            }
            // Forwarded once, so it was below the high watermark: it comes back, or it was truncated.
            if !walk.done() && !walk.doubtful() && !patience.asks_again(stitch.head()).await {
                break;
            }
        }
        Ok(Walked::Ended(walk))
    }

    /// The source's history changed since: elections, compaction or retention. The target's records
    /// tell what was forwarded.
    async fn match_by_content(
        &self,
        ends: &Ends,
        position: &Position,
        scanned: &Scanned,
        ledger: &mut Ledger,
    ) -> Result<SyncKind, FlowError> {
        let offsets = scanned.target_next.saturating_sub(position.target_next);
        let room = self.session.matching.room(offsets).await;
        let most = room.records;
        let hashed = self.hashes(ends, position, scanned, Some(Record::hash), most);
        let (hashes, stamped) = match hashed.await? {
            Some(hashes) => (hashes, false),
            None => {
                let hashes = self.hashes(ends, position, scanned, None, most).await?;
                (hashes.unwrap_or_default(), true)
            }
        };
        let held = hashes.len() as i64;
        let whole = offsets.min(held + 1) <= room.records as i64;
        let from = position.source_next.max(ends.source.log_start().await?);
        let matching = if !stamped {
            Match::new(hashes, from)
        } else if self.spec.compacted || from > position.source_next {
            // What is left of the source could be taken for what is gone.
            Match::new(Vec::new(), from)
        } else {
            Match::new(hashes, from).without_times()
        };
        let matched = self.embed(ends, position, matching, from).await?;
        let (link, topic, partition) = (
            &self.session.spec.name,
            &self.spec.key.topic,
            self.spec.key.partition,
        );
        let cluster = self.session.spec.source.alias();
        if held < scanned.records {
            let why = if whole {
                "the target no longer holds everything since then"
            } else {
                "an eighth of memory-budget does not hold all that was mirrored since then"
            };
            warn!(
                %link, id = "source-changed", %topic, partition,
                "{topic}-{partition} on cluster {cluster} was compacted or cut since the last sync at offset {}, and {why}: at most {} records are repeated",
                position.source_next,
                scanned.records - held
            );
        }
        if stamped && matched.matched() < held {
            warn!(
                %link, id = "source-changed", %topic, partition,
                "{topic}-{partition} on cluster {cluster} was compacted or cut since the last sync at offset {}, and the target stamps records itself (LogAppendTime), so that they cannot be told apart: at most {} records are repeated",
                position.source_next,
                held - matched.matched()
            );
        }
        debug!(%link, %topic, partition, next = matched.next(), "position found by content");
        let (records, next) = (scanned.records, matched.next());
        let mirrored = position.source_next.saturating_add(records);
        let left_out = next.saturating_sub(mirrored).max(0);
        let expired = if matched.overlaps() {
            // What was forwarded reaches beyond the log's start, and no loss lies between: the writer stops behind
            // each until a sync says so.
            0
        } else {
            from.saturating_sub(mirrored).clamp(0, left_out)
        };
        if expired > 0 {
            if self.session.spec.policies.retention_overtook == Policy::Stop {
                return Err(self.overtaken(mirrored, from));
            }
            warn!(
                %link, id = "retention-overtook", %topic, partition,
                "retention on the source overtook the mirror while it was down: of the offsets {} to {} of {topic}-{partition} on cluster {cluster}, {expired} were not mirrored; going on at {next}; give the topic a longer retention there",
                position.source_next, from - 1
            );
        }
        // What lies before `from` cannot be read any more: nobody can tell markers there from records.
        let mut passed = LeftOut::default();
        passed.add_among(GapReason::Expired, position.source_next, from, expired);
        passed.compacted(left_out - expired);
        ledger.resume(records, &passed, next, matched.epoch());
        // Compaction may have removed the last of what was mirrored.
        if next < mirrored && whole && !self.spec.compacted && !stamped {
            self.may_follow(next, mirrored)?;
            return Ok(self.follow(ledger, (matched.epoch(), next), mirrored, scanned));
        }
        Ok(SyncKind::Session)
    }

    /// What the target holds of the records behind the position, as hashes in order: at most `most` of them. By `hash`,
    /// and `None` as soon as the target turns out to stamp records; or without their times.
    async fn hashes(
        &self,
        ends: &Ends,
        position: &Position,
        scanned: &Scanned,
        hash: Option<fn(&Record) -> u128>,
        most: usize,
    ) -> Result<Option<Vec<u128>>, FlowError> {
        let mut hashes = Vec::with_capacity(most);
        let mut offset = position.target_next.max(ends.target.log_start().await?);
        let mut patience = ends.target.patience(offset);
        while offset < scanned.target_next && hashes.len() < most {
            for batch in ends.target.batches(offset).await? {
                offset = batch.header.last_offset() + 1;
                if !of_session(position, &batch) {
                    continue;
                }
                if hash.is_some() && batch.header.attributes.timestamp_type_append() {
                    return Ok(None);
                }
                let records = batch.decode(self.session.spec.decode_bytes())?;
                let room = most - hashes.len();
                hashes.extend(records.iter().take(room).map(hash.unwrap_or(timeless)));
            }
            if !patience.asks_again(offset).await {
                return Err(ends.target.nothing_read(offset, scanned.target_next));
            }
        }
        Ok(Some(hashes))
    }

    async fn embed(
        &self,
        ends: &Ends,
        position: &Position,
        mut matching: Match,
        from: i64,
    ) -> Result<Match, FlowError> {
        let mut stitch = Stitch::new(
            from,
            -1,
            self.spec.compacted,
            position.isolation,
            self.session.spec.decode_bytes(),
        )
        .only_local(self.session.producers_then(position));
        let mut patience = ends.source.patience(from);
        while !matching.done() {
            let fetched = ends.source.fetch(stitch.head(), -1, Duration::ZERO).await?;
            if fetched.part.error != 0 {
                return Err(ends.source.answered(fetched.part.error, stitch.head()));
            }
            let mut items = Vec::new();
            match stitch.admit(&fetched.part, true, &mut items) {
                // The next answer decides; what came before counts.
                Ok(()) | Err(StitchError::Hole { .. }) => {}
                Err(StitchError::Origin { producer_ids, .. }) => {
                    self.session.provenance.look_up(&producer_ids).await?;
                }
                Err(error) => return Err(error.into()),
            }
            let end = readable_end(&fetched.part, position.isolation);
            for item in &items {
                if let Item::Batch(outgoing) = item {
                    let records = outgoing
                        .records()
                        .map_err(|source| StitchError::wire(outgoing.first, source))?;
                    for record in records {
                        if matching.feed(&record, outgoing.source_epoch) {
                            return Ok(matching);
                        }
                    }
                }
            }
            if items.is_empty() && stitch.head() >= end {
                break;
            }
            if !patience.asks_again(stitch.head()).await {
                return Err(ends.source.nothing_read(stitch.head(), end));
            }
        }
        Ok(matching)
    }
}
