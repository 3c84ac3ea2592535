//! The target side of a shard: batches sent, answers judged, positions persisted.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use strait_net::{Connection, KafkaError, NetError};
use strait_wire::{ProducePartition, ProduceRequest, SyncKind, SyncRecord, TopicRef, WireError};
use tokio::time::Instant;
use tracing::warn;

use super::health::Side;
use super::{Event, Shard};
use crate::appender::PRODUCE;
use crate::error::FlowError;
use crate::flow::Legacy;
use crate::limits;
use crate::open::expiry::warn_expired;
use crate::open::sync_record;
use crate::routes::Lookup;
use crate::session::error::SessionError;
use crate::spec::{FlowSpec, Policy};
use crate::stitch::{Outgoing, StitchError};
use crate::transfer::{Channel, Part, ProduceAnswer, produce_version, produced};
use crate::writer::Settled;
use crate::writer::answer::{Answer, Refusal};

impl Shard<'_> {
    pub(super) fn dispatch_batches(&mut self, channel: Channel, now: Instant) {
        if !self.session.lease.valid() {
            return;
        }
        let way = self.channels.entry(channel).or_default();
        let Some(connection) = way.open() else {
            if !way.connecting {
                self.connect_channel(channel);
            }
            return;
        };
        while self
            .channels
            .get(&channel)
            .is_some_and(|way| way.outstanding < limits::REQUESTS_PER_CONNECTION)
        {
            if !self.send_request(channel, &connection, now) {
                return;
            }
        }
    }

    pub(super) fn connect_channel(&mut self, channel: Channel) {
        self.channels.entry(channel).or_default().connecting = true;
        let cluster = self.session.spec.target.clone();
        self.jobs.spawn(async move {
            Event::ChannelOpen {
                channel,
                result: cluster.connect(channel.0).await,
            }
        });
    }

    pub(super) fn channel_open(&mut self, channel: Channel, result: Result<Connection, NetError>) {
        let now = self.session.rt.now();
        let way = self.channels.entry(channel).or_default();
        way.connecting = false;
        match result {
            Ok(connection) => way.connection = Some(connection),
            Err(error) => {
                self.ill(Side::Target, channel.0, error.to_string());
                self.session.target.invalidate();
                let waiting = self.produce_queues.remove(&channel);
                for at in waiting.unwrap_or_default() {
                    if let Some(running) = self.flows[at].running() {
                        running.in_channel = false;
                        running.send_at = now + limits::ROUTES_MIN_AGE * 2;
                    }
                }
            }
        }
    }

    /// One request with at most one batch per target partition; false when there was nothing to send.
    pub(super) fn send_request(
        &mut self,
        channel: Channel,
        connection: &Connection,
        now: Instant,
    ) -> bool {
        let session = self.session.clone();
        let mut partitions = Vec::new();
        let mut parts = Vec::new();
        let mut size = 0;
        let mut by_id = true;
        let queued = self.produce_queues.get(&channel);
        let turns = queued.map_or(0, VecDeque::len);
        for _ in 0..turns {
            if size >= limits::PRODUCE_BYTES {
                break;
            }
            let queued = self.produce_queues.get_mut(&channel);
            let Some(at) = queued.and_then(VecDeque::pop_front) else {
                break;
            };
            let flow = &mut self.flows[at];
            let (topic, partition, generation) = (
                flow.spec.target_topic.clone(),
                flow.spec.key.partition,
                flow.generation,
            );
            let Some(running) = flow.running() else {
                continue;
            };
            // Left over from before it was opened again, or to be drained.
            if !std::mem::take(&mut running.in_channel) || running.closing() {
                continue;
            }
            let Lookup::Leader(route) = self.session.target.lookup(&topic, partition) else {
                continue;
            };
            if route.broker != channel.0 || now < running.send_at {
                continue;
            }
            let forgotten = running
                .writer
                .next_timestamp()
                .is_some_and(|timestamp| session.forgotten(timestamp));
            if forgotten {
                if let Some(until) = running.hold_until.filter(|until| now < *until) {
                    running.send_at = until;
                    continue;
                }
                // A broker that forgot us takes any sequence: a refused batch must have no successor in flight.
                if running.writer.in_flight() > 0 {
                    continue;
                }
            }
            running.writer.lockstep(forgotten);
            let Some(dispatch) = running.writer.next_batch(&self.pool) else {
                running.writer.advance_ledger(&mut running.ledger, now);
                continue;
            };
            size += dispatch.size;
            by_id &= !route.topic_id.is_nil();
            parts.push((
                at,
                generation,
                topic.clone(),
                route.topic_id,
                partition,
                dispatch.ticket,
            ));
            partitions.push(ProducePartition {
                topic,
                topic_id: route.topic_id,
                partition,
                batch: dispatch.batch.into(),
            });
        }
        if parts.is_empty() {
            return false;
        }
        // For the next request: a partition stands only once in each.
        for (at, ..) in &parts {
            self.schedule(*at, now);
        }
        let version = produce_version(connection, by_id);
        let named = version
            .as_ref()
            .is_ok_and(|v| *v <= crate::appender::PRODUCE_BY_NAME);
        let parts: Vec<Part> = parts
            .into_iter()
            .map(|(flow, generation, name, id, partition, mark)| {
                let topic = if named {
                    TopicRef::Name(name)
                } else {
                    TopicRef::Id(id)
                };
                Part {
                    flow,
                    generation,
                    topic,
                    partition,
                    mark,
                }
            })
            .collect();
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: self.broker_timeout_ms(),
            partitions,
        };
        let encoded = version.map_err(|e| e.to_string()).and_then(|v| {
            request
                .encode(v)
                .map(|body| (v, body))
                .map_err(|e| e.to_string())
        });
        if let Some(way) = self.channels.get_mut(&channel) {
            way.sent(now);
        }
        match encoded {
            Ok((version, body)) => {
                let guard = Some(self.session.lease.clone() as Arc<dyn strait_net::WriteGuard>);
                let timeout = self.session.spec.request_timeout;
                // Put on the wire here and now: the order of these calls is the order of the sequences.
                let pending = connection.send(PRODUCE, version, body, timeout, guard);
                let connection = connection.clone();
                self.jobs.spawn(async move {
                    let answer = produced(pending, connection, version, parts).await;
                    Event::Produced { channel, answer }
                });
            }
            Err(failure) => {
                self.produced(channel, ProduceAnswer::none(parts, failure));
            }
        }
        true
    }

    /// The broker gives up waiting for replicas before we give up waiting for the broker.
    fn broker_timeout_ms(&self) -> i32 {
        i32::try_from(self.session.spec.request_timeout.as_millis() / 2).unwrap_or(i32::MAX)
    }

    pub(super) fn produced(&mut self, channel: Channel, answer: ProduceAnswer) {
        let now = self.session.rt.now();
        let ProduceAnswer {
            parts,
            failure,
            throttled,
        } = answer;
        self.throttled(Side::Target, channel.0, throttled);
        if let Some(way) = self.channels.get_mut(&channel) {
            way.answered(now);
            if failure.is_some()
                && let Some(connection) = way.connection.take()
            {
                connection.close();
            }
        }
        match &failure {
            Some(why) => {
                self.ill(Side::Target, channel.0, why.clone());
                self.session.target.invalidate();
            }
            None => self.well(Side::Target, channel.0),
        }
        let (mut records, mut bytes) = (0, 0);
        for (part, answered) in parts {
            let log_start = answered.as_ref().map_or(-1, |a| a.log_start_offset);
            let answer = match answered {
                Some(a) => Answer::classify(a.error, a.base_offset, a.message, a.refused),
                None => Answer::Doubt(
                    failure
                        .clone()
                        .unwrap_or_else(|| "the broker left the answer out".to_owned()),
                ),
            };
            let Some(running) = self.current(&part) else {
                continue;
            };
            let (forwarded, held) = (running.ledger.forwarded(), running.writer.bytes());
            running
                .writer
                .answer(part.mark, answer, &mut running.ledger, now);
            let freed = held - running.writer.bytes();
            let moved = running.ledger.forwarded() - forwarded;
            (records, bytes) = (records + moved as u64, bytes + freed);
            let expired = running
                .expiry
                .noticed(log_start, running.ledger.target_next(), now);
            if moved > 0 {
                self.flows[part.flow].forwarded(&self.session.spec.name);
            }
            if let Some(first) = expired {
                self.expired(part.flow, first, log_start);
            }
            self.settle(part.flow, now);
            self.schedule(part.flow, now);
        }
        self.sums.add(records, bytes);
    }

    /// Acts on a flow whose failed answers are all in, or that has to be drained for another reason.
    pub(super) fn settle(&mut self, at: usize, now: Instant) {
        let link = self.session.spec.name.clone();
        let (tries, flows) = (self.flows[at].tries, self.flows.len());
        let Some(running) = self.flows[at].running() else {
            return;
        };
        running.writer.advance_ledger(&mut running.ledger, now);
        match running.writer.settle() {
            None => {}
            // The next opening builds on the last sync: one that is on its way has to be known first.
            Some(Settled::Reopen(_) | Settled::Hole { .. }) if running.syncing => return,
            Some(Settled::Resend(error)) => {
                let error = FlowError::NotAppended(error);
                running.send_at = now + error.backoff(tries, flows);
                return self.trouble(at, &error);
            }
            Some(Settled::Refused(refusal)) => self.refused(at, refusal, now),
            Some(Settled::Reopen(why)) => return self.reopen(at, &FlowError::Doubt(why), now),
            Some(Settled::Hole { first, last }) => {
                return self.reopen(at, &FlowError::Hole { first, last }, now);
            }
            Some(Settled::Fenced(error)) => {
                let why = format!("{}: {error}", self.flows[at].spec.key);
                self.lost.get_or_insert(SessionError::Fenced {
                    link,
                    owner: None,
                    why,
                });
                return;
            }
        }
        let Some(running) = self.flows[at].running() else {
            return;
        };
        if running.closing() {
            running.writer.drop_queue();
        }
        if running.writer.in_flight() > 0 || running.syncing {
            return;
        }
        if let Some(why) = running.reopen.take() {
            return self.reopen(at, &FlowError::Doubt(why), now);
        }
        let drained = (!running.idle).then_some(running.hold_until);
        if running.judged {
            self.flows[at].drained = drained;
            self.flows[at].wait(now);
            return self.schedule(at, now);
        }
        if running.truncated.is_some() && !running.checking {
            // Opening it again finds where both logs part, and whether it is the same topic at all. Under a new epoch:
            // what was refused is dropped now, and its sequences must not be used for other records.
            let flow = &mut self.flows[at];
            flow.looked_cut = true;
            flow.drained = drained;
            flow.active = true;
            flow.tries = flow.tries.saturating_add(1);
            let wait = limits::BACKOFF_MIN * (1 << flow.tries.min(8));
            flow.wait(now + wait);
        }
    }

    pub(super) fn reopen(&mut self, at: usize, error: &FlowError, now: Instant) {
        self.session.target.invalidate();
        self.trouble(at, error);
        let wait = error.backoff(self.flows[at].tries.saturating_sub(1), self.flows.len());
        self.flows[at].wait(now + wait);
    }

    /// The target deletes what was mirrored a moment ago.
    fn expired(&mut self, at: usize, first: i64, start: i64) {
        // Among others' records it cannot be told whose went, and when they came.
        if self.session.spec.shared_target() {
            return;
        }
        if self.session.spec.policies.target_expired == Policy::GoOn {
            return warn_expired(&self.session.spec, &self.flows[at].spec, first, start);
        }
        // Opening it again persists that it stops, before anything else.
        self.flows[at].verdicts.expired = true;
        if let Some(running) = self.flows[at].running() {
            running.judged = true;
        }
    }

    /// The target refused a batch; it is the next one to be sent again.
    fn refused(&mut self, at: usize, refusal: Refusal, now: Instant) {
        let Refusal {
            error,
            message,
            records,
        } = refusal;
        let skip = self.session.spec.policies.refused_record == Policy::GoOn;
        let flow = &mut self.flows[at];
        let (topic, partition) = (flow.spec.target_topic.clone(), flow.spec.key.partition);
        let Some(running) = flow.running() else {
            return;
        };
        running.send_at = now + limits::BACKOFF_MAX;
        let Some(outgoing) = running.writer.next_outgoing().cloned() else {
            return;
        };
        let (first, last, size) = (outgoing.first, outgoing.last, outgoing.size());
        // MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE
        if matches!(error.0, 10 | 18) && outgoing.count() > 1 {
            running.judged = true;
            flow.verdicts.too_large = Some(size);
            let error = FlowError::TooLarge {
                first,
                last,
                size,
                error,
            };
            return self.trouble(at, &error);
        }
        // Rights, damage and faults of Strait's own are mended, not left out.
        if skip && matches!(error.0, 10 | 18 | 32 | 44 | 87) {
            running.judged = true;
            if records.is_empty() && outgoing.count() > 1 {
                flow.verdicts.singles_to = last + 1;
                return;
            }
            match blamed(&outgoing, &records) {
                Ok(ranges) => return self.leave_out(at, &ranges, error, message.as_deref()),
                Err(source) => {
                    let error = StitchError::wire(first, source);
                    return self.trouble(at, &error.into());
                }
            }
        }
        let refused = FlowError::Refused {
            cluster: self.session.spec.target.alias().to_owned(),
            topic,
            partition,
            first,
            last,
            size,
            error,
            message,
            advice: FlowError::advice(error),
        };
        // Damaged here or on the way: only a new copy can help.
        if error.0 == 2 {
            self.reopen(at, &refused, now);
        } else {
            self.trouble(at, &refused);
        }
    }

    /// These source offsets are refused for good, and the policy is to go on without them.
    fn leave_out(
        &mut self,
        at: usize,
        ranges: &[(i64, i64)],
        error: KafkaError,
        message: Option<&str>,
    ) {
        let link = self.session.spec.name.clone();
        let flow = &mut self.flows[at];
        let FlowSpec {
            key, target_topic, ..
        } = flow.spec.clone();
        let words = message.map(|m| format!(" ({m})")).unwrap_or_default();
        for &(from, to) in ranges {
            warn!(
                link, id = "record-skipped", topic = %key.topic, partition = key.partition,
                "left out source offsets {from} to {}: {target_topic} on cluster {} refuses them: {error}{words}; they are counted as a gap and will not be sent again",
                to - 1, self.session.spec.target.alias()
            );
        }
        flow.verdicts.leave_out(ranges);
    }

    /// Takes up the flows whose position somebody's sync stands over.
    pub(super) fn watch_displaced(&mut self, now: Instant) {
        let (link, spec) = (&self.session.spec.name, &self.session.spec);
        for key in self.session.displaced.take() {
            let selected = self.index.contains_key(&key);
            let position = self.session.positions.get(&key);
            let left = self.legacies.get(&key).and_then(Legacy::last);
            let left = left
                .or(position)
                .is_some_and(|sync| sync.position.is_some());
            // What has no position is another direction's.
            if !selected && !left {
                continue;
            }
            if self.displaced_said.insert(selected) {
                let (source, target) = (spec.source.alias(), spec.target.alias());
                let (topic, partition) = (&key.topic, key.partition);
                let again = if selected {
                    "it is written again, as with all that follow"
                } else {
                    "the topic is not selected: only once it is, the position is written again, if compaction has not taken it away until then"
                };
                warn!(
                    %link, id = "position-overwritten", %topic, partition,
                    "somebody else's offset sync stands over the flow's position in {} on cluster {target}; {again}: MirrorMaker 2 mirrors from {target} to {source} with offset-syncs.topic.location = source, its default; write {target}->{source}.offset-syncs.topic.location = target there, or mirror that direction with Strait too, without offset-syncs-on-source",
                    self.session.syncs_topic
                );
            }
            self.displaced.insert(key);
        }
        for key in &self.displaced {
            let Some(&at) = self.index.get(key) else {
                continue;
            };
            // One without a fence may not write: it is opened with one.
            let flow = &mut self.flows[at];
            if flow.running().is_some_and(|running| running.idle) {
                flow.activate(now);
            }
        }
    }

    pub(super) fn write_syncs(&mut self, now: Instant) {
        if self.syncing {
            return;
        }
        let session = self.session.clone();
        let mut due: Vec<(u64, usize)> = Vec::new();
        for (at, flow) in self.flows.iter_mut().enumerate() {
            let key = &flow.spec.key;
            let displaced = !self.displaced.is_empty() && self.displaced.contains(key);
            if let Some(running) = flow.running()
                && !running.syncing
                && !running.idle
                && (running.ledger.sync_due(now) || running.writer.at_loss() || displaced)
            {
                due.push((running.ledger.unsynced_bytes(), at));
            }
        }
        if due.is_empty() {
            return;
        }
        due.sort_unstable_by(|a, b| b.cmp(a));
        due.truncate(limits::SYNCS_PER_BATCH);
        let mut flows = Vec::with_capacity(due.len());
        for (bytes, at) in due {
            let flow = &mut self.flows[at];
            let (spec, generation) = (flow.spec.clone(), flow.generation);
            if let Some(running) = flow.running() {
                let identity = running.writer.identity();
                let kind = if running.writer.at_loss() {
                    SyncKind::AfterLoss
                } else {
                    SyncKind::Periodic
                };
                let sync = sync_record(
                    &session,
                    &spec,
                    kind,
                    &running.ledger,
                    identity,
                    running.ids,
                );
                running.ledger.sync_sent();
                running.syncing = true;
                self.displaced.remove(&spec.key);
                flows.push((at, generation, sync, bytes));
            }
        }
        self.syncing = true;
        self.jobs.spawn(async move {
            let wall_ms = session.rt.wall_ms();
            let records = flows
                .iter()
                .map(|(_, _, sync, _)| sync.to_record(wall_ms))
                .collect();
            let result = session.syncs.append(&session.spec.name, records).await;
            Event::Synced { flows, result }
        });
    }

    pub(super) fn synced(
        &mut self,
        flows: Vec<(usize, u64, SyncRecord, u64)>,
        result: Result<(), SessionError>,
    ) {
        self.syncing = false;
        let now = self.session.rt.now();
        for (at, generation, sync, bytes) in flows {
            if result.is_ok() {
                self.gap_counts.persisted(&sync);
            }
            let flow = &mut self.flows[at];
            if flow.generation != generation {
                continue;
            }
            let behind_loss = sync
                .position
                .as_ref()
                .filter(|p| p.kind == SyncKind::AfterLoss && result.is_ok())
                .map(|p| p.source_next);
            if result.is_ok() {
                flow.last = Some(sync);
            }
            if let Some(next) = behind_loss {
                flow.verdicts.settled(next);
            }
            if let Some(running) = flow.running() {
                running.syncing = false;
                if behind_loss.is_some() {
                    running.writer.loss_recorded();
                }
                if result.is_err() {
                    running.ledger.sync_failed(bytes, now);
                }
            }
        }
        if let Err(error) = result {
            self.lost.get_or_insert(error);
        }
    }
}

/// The source offsets that are to blame for a batch's refusal: half-open ranges in order; the whole batch where the
/// broker named no record of it.
fn blamed(outgoing: &Outgoing, records: &[i32]) -> Result<Vec<(i64, i64)>, WireError> {
    let sent = outgoing.records()?;
    let blamed: BTreeSet<i32> = records.iter().copied().collect();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for (index, record) in sent.iter().enumerate() {
        let named = i32::try_from(index).is_ok_and(|index| blamed.contains(&index));
        if !named && !blamed.is_empty() {
            continue;
        }
        match ranges.last_mut() {
            Some((_, to)) if *to == record.offset => *to += 1,
            _ => ranges.push((record.offset, record.offset + 1)),
        }
    }
    if ranges.is_empty() {
        ranges.push((outgoing.first, outgoing.last + 1));
    }
    Ok(ranges)
}
