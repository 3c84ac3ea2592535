//! A target that lost acknowledged records, or its topic: back along the source to what is missing.

use std::time::Duration;

use strait_wire::{GapReason, Position, SyncKind};
use tracing::{debug, warn};

use crate::error::FlowError;
use crate::ledger::Ledger;
use crate::limits;
use crate::open::{Ends, Opening, Resumed};
use crate::partition::PartitionReader;
use crate::partition::patience::Patience;
use crate::rewind::{Lost, Place, Rewind, Survey};
use crate::spec::Policy;
use crate::stitch::{Item, Stitch, StitchError};
use crate::transfer::readable_end;

/// Offsets of the target that are looked at in the first step back; each further one is four times as long.
const STEP: i64 = 1_000;

impl Opening {
    /// The target topic is another one than the position speaks of: nothing of the flow is there.
    pub(crate) async fn start_over(
        &self,
        ends: &Ends,
        mut ledger: Ledger,
        identity: (i64, i16),
    ) -> Result<Resumed, FlowError> {
        let cluster = self.session.spec.target.alias();
        if self.session.spec.policies.target_recreated == Policy::Stop {
            return Err(FlowError::TargetRecreated {
                cluster: cluster.to_owned(),
                topic: self.spec.target_topic.clone(),
                partition: self.spec.key.partition,
                next: ledger.source_next(),
            });
        }
        let (start, end) = (ends.target.log_start().await?, ends.target.log_end().await?);
        if !self.session.spec.shared_target() {
            self.refuse_data(ends, start, end).await?;
        }
        let first = ends.source.log_start().await?;
        warn!(
            link = %self.session.spec.name, id = "target-recreated", topic = %self.spec.target_topic, partition = self.spec.key.partition,
            "the target topic was re-created on cluster {cluster}: mirroring again from source offset {first} what was mirrored up to {}",
            ledger.source_next()
        );
        ledger.rebase(GapReason::Expired, first, -1);
        ledger.new_epoch(end);
        Ok(Resumed {
            ledger,
            identity,
            kind: SyncKind::Rebase,
            hold_until: None,
        })
    }

    /// The target ends, or ended, at `end` although it acknowledged what `position` speaks of: what is missing is
    /// mirrored again, behind what is left.
    pub(crate) async fn remirror(
        &mut self,
        ends: &Ends,
        position: &Position,
        end: i64,
    ) -> Result<Resumed, FlowError> {
        let identity = self.put_up(ends).await?;
        let log_start = ends.target.log_start().await?;
        let marker = self.marker(ends, identity, end.max(log_start)).await?;
        self.fence.standing = Some(identity);
        let lost = self.survey(ends, position, end, log_start).await?;
        let mut ledger = self.restored(position);
        let place = self.rewind(ends, position, lost, ledger.first()).await?;
        warn!(
            link = %self.session.spec.name, id = "target-lost", topic = %self.spec.target_topic, partition = self.spec.key.partition,
            "the target lost data: the log on cluster {} ended at offset {end}, but records up to {} had been acknowledged; mirroring again from source offset {} what was mirrored up to {}; at most {} records are repeated, and {} are gone on the source as well",
            self.session.spec.target.alias(), position.target_next, place.next, position.source_next, place.repeated, place.gone
        );
        ledger.new_epoch(end);
        ledger.rebase(GapReason::Expired, place.next, -1);
        ledger.new_epoch(marker);
        let hold_until = self.hold_until();
        Ok(Resumed {
            ledger,
            identity,
            kind: SyncKind::Rebase,
            hold_until,
        })
    }

    /// The offset behind our marker.
    async fn marker(
        &mut self,
        ends: &Ends,
        identity: (i64, i16),
        from: i64,
    ) -> Result<i64, FlowError> {
        let mut offset = from;
        let mut patience = Patience::new(&self.session.rt, limits::BARRIER_TIMEOUT, offset);
        loop {
            for batch in ends.target.batches(offset).await? {
                let header = &batch.header;
                offset = header.last_offset() + 1;
                let ours = (header.producer_id, header.producer_epoch) == identity;
                if header.attributes.control() && ours {
                    return Ok(offset);
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

    /// Looks back from the end of what is left for the last batch of this link.
    async fn survey(
        &self,
        ends: &Ends,
        position: &Position,
        end: i64,
        log_start: i64,
    ) -> Result<Lost, FlowError> {
        let ours = self.session.producers.keys().copied();
        let ours = ours.chain([position.producer_id]).collect();
        let shared = self.session.spec.shared_target();
        let mut survey = Survey::new(position.clone(), ours, end, shared);
        let (mut below, mut step) = (end.min(position.target_next), STEP);
        while below > log_start && !survey.found() {
            let from = below.saturating_sub(step).max(log_start);
            let mut offset = from;
            while offset < below {
                let batches = ends.target.batches(offset).await?;
                let Some(last) = batches.last() else { break };
                offset = last.header.last_offset() + 1;
                for batch in &batches {
                    survey.feed(batch);
                }
            }
            (below, step) = (from, step.saturating_mul(4));
        }
        Ok(survey.finish(log_start))
    }

    /// Goes back along the source, never below where the flow or the source's log begins.
    async fn rewind(
        &self,
        ends: &Ends,
        position: &Position,
        lost: Lost,
        first: i64,
    ) -> Result<Place, FlowError> {
        let next = position.source_next;
        let begin = ends.source.log_start().await?;
        let lowest = first.clamp(begin.min(next), next);
        let mut span = lost.most.saturating_add(STEP);
        loop {
            let from = next.saturating_sub(span).max(lowest);
            let mut rewind = Rewind::new(lost, next);
            self.each_item(ends, position, from, |item| rewind.count(item))
                .await?;
            if !rewind.enough() && from > lowest {
                span = span.saturating_mul(2);
                continue;
            }
            self.each_item(ends, position, from, |item| rewind.locate(item))
                .await?;
            let place = rewind.place(from);
            debug!(
                link = %self.session.spec.name, topic = %self.spec.key.topic, partition = self.spec.key.partition,
                ?lost, ?place, "place found on the way back"
            );
            return Ok(place);
        }
    }

    /// What the source has from `from` to the position, under the position's isolation.
    async fn each_item(
        &self,
        ends: &Ends,
        position: &Position,
        from: i64,
        mut each: impl FnMut(&Item) -> Result<(), strait_wire::WireError>,
    ) -> Result<(), FlowError> {
        let source = PartitionReader {
            source: true,
            rt: self.session.rt.clone(),
            routes: ends.source.routes.clone(),
            topic: ends.source.topic.clone(),
            partition: ends.source.partition,
            isolation: position.isolation,
        };
        // Holes are counted by nobody here.
        let mut stitch = Stitch::new(
            from,
            -1,
            true,
            position.isolation,
            self.session.spec.decode_bytes(),
        )
        .only_local(self.session.producers_then(position));
        let mut patience = source.patience(from);
        while stitch.head() < position.source_next {
            let fetched = source.fetch(stitch.head(), -1, Duration::ZERO).await?;
            if fetched.part.error != 0 {
                return Err(source.answered(fetched.part.error, stitch.head()));
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
            for item in &items {
                if item.first() < position.source_next {
                    let at = item.first();
                    each(item).map_err(|source| StitchError::wire(at, source))?;
                }
            }
            let end = readable_end(&fetched.part, position.isolation);
            if items.is_empty() && stitch.head() >= end {
                break;
            }
            if !patience.asks_again(stitch.head()).await {
                return Err(source.nothing_read(stitch.head(), end));
            }
        }
        Ok(())
    }
}
