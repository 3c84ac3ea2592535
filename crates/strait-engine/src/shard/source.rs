//! The source side of a shard: which flows are asked for next, and what their answers mean.

use std::time::Duration;

use strait_net::{Connection, KafkaError};
use strait_wire::{
    FetchPartition, FetchRequest, FetchTopic, FetchedPartition, GapReason, TopicRef,
};
use tokio::time::Instant;
use tracing::warn;

use super::health::Side;
use super::{Event, Shard};
use crate::error::FlowError;
use crate::flow::Running;
use crate::limits;
use crate::partition::{FETCH, FETCH_BY_NAME, FETCH_NEWEST, PartitionReader, moved};
use crate::routes::Lookup;
use crate::spec::FlowKey;
use crate::stitch::{Item, Stitch, StitchError};
use crate::transfer::{FetchAnswer, Lane, Part, epoch_reaches, fetch, readable_end};

impl Shard<'_> {
    pub(super) fn dispatch_fetches(&mut self, way: (i32, Lane), now: Instant) {
        let (broker, lane) = way;
        let Some(state) = self.lanes.get_mut(&way) else {
            return;
        };
        let Some(connection) = state.open() else {
            if !state.connecting {
                state.connecting = true;
                let cluster = self.session.spec.source.clone();
                self.jobs.spawn(async move {
                    Event::LaneOpen {
                        way,
                        result: cluster.connect(broker).await,
                    }
                });
            }
            return;
        };
        while self
            .lanes
            .get(&way)
            .is_some_and(|s| !s.waiting.is_empty() && s.outstanding < lane.outstanding())
        {
            let Some((request, parts, version)) = self.plan_fetch(way, &connection, now) else {
                return;
            };
            self.reserved += reservation(parts.len());
            if let Some(state) = self.lanes.get_mut(&way) {
                state.outstanding += 1;
            }
            let connection = connection.clone();
            let timeout = self.session.spec.request_timeout;
            self.jobs.spawn(async move {
                let (parts, result) = fetch(connection, version, request, parts, timeout).await;
                Event::Fetched { way, parts, result }
            });
        }
    }

    pub(super) fn plan_fetch(
        &mut self,
        way: (i32, Lane),
        connection: &Connection,
        now: Instant,
    ) -> Option<(FetchRequest, Vec<Part>, i16)> {
        let (broker, lane) = way;
        let budget = self.session.spec.memory_budget;
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut chosen = Vec::new();
        let mut by_id = true;
        let state = self.lanes.get_mut(&way)?;
        while chosen.len() < limits::FETCH_PARTITIONS
            && let Some(at) = state.waiting.pop_front()
        {
            let planned = self.held + self.reserved + reservation(chosen.len() + 1);
            let flow = &mut self.flows[at];
            let (key, generation) = (flow.spec.key.clone(), flow.generation);
            let Some(running) = flow.running() else {
                continue;
            };
            running.in_lane = false;
            // A flow that holds nothing is always let in: those that stand still must not hold up the others.
            if planned > budget && running.writer.bytes() > 0 {
                continue;
            }
            let Lookup::Leader(route) = self.session.source.lookup(&key.topic, key.partition)
            else {
                continue;
            };
            if route.broker != broker || running.fetching {
                continue;
            }
            running.fetching = true;
            by_id &= !route.topic_id.is_nil();
            chosen.push((
                at,
                key,
                generation,
                route,
                running.stitch.head(),
                running.stitch.epoch(),
            ));
        }
        if chosen.is_empty() {
            return None;
        }
        let newest = if by_id { FETCH_NEWEST } else { FETCH_BY_NAME };
        let version = match connection.version(FETCH, newest, 4) {
            Ok(version) => version,
            Err(error) => {
                let error = FlowError::from(error);
                for (at, ..) in chosen {
                    if let Some(running) = self.flows[at].running() {
                        running.fetching = false;
                        running.fetch_at = now + limits::BACKOFF_MAX;
                    }
                    self.trouble(at, &error);
                }
                return None;
            }
        };
        let named = version <= FETCH_BY_NAME;
        let mut parts = Vec::with_capacity(chosen.len());
        for (flow, key, generation, route, offset, epoch) in chosen {
            let partition = FetchPartition {
                partition: key.partition,
                leader_epoch: route.epoch,
                offset,
                last_fetched_epoch: epoch,
                max_bytes: limits::FETCH_PARTITION_BYTES,
            };
            match topics.iter_mut().rev().find(|t| t.name == key.topic) {
                Some(topic) => topic.partitions.push(partition),
                None => topics.push(FetchTopic {
                    name: key.topic.clone(),
                    id: route.topic_id,
                    partitions: vec![partition],
                }),
            }
            let topic = if named {
                TopicRef::Name(key.topic)
            } else {
                TopicRef::Id(route.topic_id)
            };
            parts.push(Part {
                flow,
                generation,
                topic,
                partition: key.partition,
                mark: offset as u64,
            });
        }
        let wait = if lane == Lane::Tail {
            self.session.spec.long_poll
        } else {
            Duration::ZERO
        };
        let request = FetchRequest {
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(500),
            min_bytes: 1,
            max_bytes: limits::FETCH_BYTES,
            isolation: self.session.spec.isolation,
            rack: String::new(),
            topics,
        };
        Some((request, parts, version))
    }

    pub(super) fn fetched(
        &mut self,
        way: (i32, Lane),
        parts: Vec<Part>,
        result: Result<FetchAnswer, FlowError>,
    ) {
        let now = self.session.rt.now();
        self.reserved -= reservation(parts.len());
        if let Some(state) = self.lanes.get_mut(&way) {
            state.outstanding -= 1;
        }
        match result {
            Err(error) => {
                self.ill(Side::Source, way.0, error.to_string());
                self.session.source.invalidate();
                for part in parts {
                    if let Some(running) = self.current(&part) {
                        running.fetching = false;
                        running.fetch_at = now + limits::ROUTES_MIN_AGE;
                    }
                }
            }
            Ok(answer) => {
                self.well(Side::Source, way.0);
                for (part, fetched) in answer.parts {
                    self.heard_stable(&part, fetched.as_ref(), now);
                    let Some(running) = self.current(&part) else {
                        continue;
                    };
                    running.fetching = false;
                    match fetched {
                        Some(fetched) => self.admit(&part, fetched, answer.proven, now),
                        None => running.fetch_at = now + limits::ROUTES_MIN_AGE,
                    }
                    self.schedule(part.flow, now);
                }
            }
        }
    }

    pub(super) fn current(&mut self, part: &Part) -> Option<&mut Running> {
        let flow = self.flows.get_mut(part.flow)?;
        if flow.generation == part.generation {
            flow.running()
        } else {
            None
        }
    }

    pub(super) fn admit(
        &mut self,
        part: &Part,
        fetched: FetchedPartition,
        proven: bool,
        now: Instant,
    ) {
        let at = part.flow;
        let isolation = self.session.spec.isolation;
        let key = self.flows[at].spec.key.clone();
        let Some(running) = self.flows[at].running() else {
            return;
        };
        if running.stitch.head() != part.mark as i64 {
            return;
        }
        match fetched.error {
            0 => {}
            1 => return self.ask_bounds(at),
            code if moved(code) => {
                running.fetch_at = now + limits::ROUTES_MIN_AGE;
                self.session.source.invalidate();
                return;
            }
            code => {
                running.fetch_at = now + limits::BACKOFF_MAX / 6;
                return self.trouble(
                    at,
                    &FlowError::Source {
                        error: KafkaError(code),
                        offset: part.mark as i64,
                    },
                );
            }
        }
        if let Some((epoch, end)) = fetched.diverging {
            running.truncated = Some((epoch, end.min(running.stitch.head())));
            return;
        }
        running.source_end = readable_end(&fetched, isolation);
        match running.stitch.admit(&fetched, proven) {
            Ok(items) if running.idle && !items.is_empty() => self.flows[at].activate(now),
            Ok(items) => {
                running.caught_up = running.stitch.head() >= running.source_end;
                if items.is_empty() && running.stitch.head() != running.source_end {
                    // Between the end of what may be read and the log end brokers answer at once.
                    running.fetch_at = now + Duration::from_millis(20);
                }
                let before = running.writer.bytes();
                for item in items {
                    if let Item::Gap {
                        reason, from, to, ..
                    } = &item
                    {
                        left_out(&self.session.spec.name, &key, *reason, *from, *to);
                    }
                    running.writer.push(item);
                }
                self.held += running.writer.bytes() - before;
                if running.caught_up && running.writer.bytes() == 0 {
                    self.flows[at].caught_up(&self.session.spec.name);
                }
            }
            Err(StitchError::Unproven {
                admitted,
                found,
                at: seam,
            }) => {
                let (routes, key) = (self.session.source.clone(), self.flows[at].spec.key.clone());
                let generation = self.flows[at].generation;
                if let Some(running) = self.flows[at].running() {
                    running.fetching = true;
                }
                self.jobs.spawn(async move {
                    let result =
                        epoch_reaches(&routes, &key.topic, key.partition, admitted, seam).await;
                    Event::EpochChecked {
                        flow: at,
                        generation,
                        found,
                        result,
                    }
                });
            }
            Err(error) => {
                running.fetch_at = now
                    + if matches!(error, StitchError::Stale { .. }) {
                        self.session.source.invalidate();
                        limits::ROUTES_MIN_AGE
                    } else {
                        limits::BACKOFF_MAX
                    };
                self.trouble(at, &error.into());
            }
        }
    }

    pub(super) fn ask_bounds(&mut self, at: usize) {
        let session = self.session.clone();
        let flow = &mut self.flows[at];
        let (key, generation) = (flow.spec.key.clone(), flow.generation);
        if let Some(running) = flow.running() {
            running.fetching = true;
        }
        self.jobs.spawn(async move {
            let reader = PartitionReader {
                source: true,
                rt: session.rt.clone(),
                routes: session.source.clone(),
                topic: key.topic,
                partition: key.partition,
                isolation: session.spec.isolation,
            };
            let bounds = async { Ok((reader.log_start().await?, reader.log_end().await?)) };
            Event::Bounds {
                flow: at,
                generation,
                result: bounds.await,
            }
        });
    }

    pub(super) fn bounds(&mut self, at: usize, result: Result<(i64, i64), FlowError>) {
        let now = self.session.rt.now();
        let link = self.session.spec.name.clone();
        let flow = &mut self.flows[at];
        let key = flow.spec.key.clone();
        let (topic, partition) = (&key.topic, key.partition);
        let (compacted, isolation) = (flow.spec.compacted, self.session.spec.isolation);
        let Some(running) = flow.running() else {
            return;
        };
        running.fetching = false;
        let head = running.stitch.head();
        match result {
            Ok((start, end)) if running.idle && (head < start || head > end) => {
                self.flows[at].activate(now);
            }
            Ok((start, _)) if head < start => {
                warn!(
                    %link, %topic, partition,
                    "retention on the source overtook the mirror: offsets {head} to {} are gone there and were not mirrored; going on at {start}",
                    start - 1
                );
                left_out(&link, &key, GapReason::Expired, head, start);
                running.writer.push(Item::Gap {
                    reason: GapReason::Expired,
                    from: head,
                    to: start,
                    source_epoch: -1,
                });
                running.stitch = Stitch::new(start, -1, compacted, isolation);
            }
            Ok((_, end)) if head > end => running.truncated = Some((-1, end)),
            Ok(_) => running.fetch_at = now + limits::ROUTES_MIN_AGE,
            Err(error) => {
                running.fetch_at = now + limits::BACKOFF_MAX / 6;
                self.trouble(at, &error);
            }
        }
    }

    pub(super) fn epoch_checked(
        &mut self,
        at: usize,
        found: i32,
        result: Result<(i32, i64, bool), FlowError>,
    ) {
        let now = self.session.rt.now();
        let Some(running) = self.flows[at].running() else {
            return;
        };
        running.fetching = false;
        match result {
            Ok((_, _, true)) => running.stitch.confirm(found),
            Ok((epoch, end, false)) => {
                running.truncated = Some((epoch, end.min(running.stitch.head())))
            }
            Err(error) => {
                running.fetch_at = now + limits::ROUTES_MIN_AGE;
                self.trouble(at, &error);
            }
        }
    }
}

/// What a fetch for so many partitions may bring: its answer is bounded for each and as a whole.
fn reservation(partitions: usize) -> u64 {
    (partitions as u64 * limits::FETCH_PARTITION_BYTES as u64).min(limits::FETCH_BYTES as u64)
}

/// Counts what is left out. A hole that nothing explains is said as well.
fn left_out(link: &str, key: &FlowKey, reason: GapReason, from: i64, to: i64) {
    let offsets = u64::try_from(to - from).unwrap_or(0);
    metrics::counter!("strait_gap_offsets_total", "link" => link.to_owned(), "reason" => reason.as_str())
        .increment(offsets);
    if reason == GapReason::Unexplained {
        warn!(
            link, topic = %key.topic, partition = key.partition,
            "the source has no records from offset {from} to {}, and neither compaction nor retention explains it: they are recorded as a gap",
            to - 1
        );
    }
}
