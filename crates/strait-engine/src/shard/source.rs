//! The source side of a shard: which flows are asked for next, and what their answers mean.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use strait_net::{Connection, KafkaError, NetError};
use strait_wire::{
    FetchPartition, FetchRequest, FetchTopic, FetchedPartition, GapReason, TopicRef,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::health::Side;
use super::{Event, Shard, ranges_at_once};
use crate::error::FlowError;
use crate::fit::fit;
use crate::flow::{Phase, Running};
use crate::limits;
use crate::partition::{FETCH, FETCH_BY_NAME, FETCH_NEWEST, moved};
use crate::ranges::Arrived;
use crate::routes::Lookup;
use crate::stitch::{Item, StitchError};
use crate::transfer::{FetchAnswer, Lane, Pace, Part, epoch_reaches, fetch, lanes, readable_end};

impl Shard<'_> {
    /// Sends what waits for this broker, over as many lanes as the line is worth.
    pub(super) fn dispatch_fetches(&mut self, broker: i32, pace: Pace, now: Instant) {
        loop {
            let waiting = self
                .fetch_queues
                .get(&(broker, pace))
                .map_or(0, VecDeque::len);
            if waiting == 0 {
                return;
            }
            let (free, lane) = self.free_lane(broker, pace);
            let Some((lane, connection)) = lane else {
                return self.open_lanes(broker, pace, waiting);
            };
            if waiting > free {
                self.open_lanes(broker, pace, waiting - free);
            }
            let share = waiting.div_ceil(free);
            let Some((request, parts, version)) = self.plan_fetch(lane, share, &connection, now)
            else {
                return;
            };
            let reserved = self.reservation(&request);
            self.reserved += reserved;
            if let Some(way) = self.lanes.get_mut(&lane) {
                way.sent(now);
            }
            let asked: Vec<usize> = parts.iter().map(|part| part.flow).collect();
            let timeout = self.session.spec.request_timeout;
            self.jobs.spawn(async move {
                let (parts, result) = fetch(connection, version, request, parts, timeout).await;
                Event::Fetched {
                    lane,
                    sent: now,
                    reserved,
                    parts,
                    result,
                }
            });
            // Over a far line each flow may want its next range at once.
            for at in asked {
                self.schedule(at, now);
            }
        }
    }

    /// The open lane with the most room, and the room on all open lanes.
    fn free_lane(&mut self, broker: i32, pace: Pace) -> (usize, Option<(Lane, Connection)>) {
        let mut free = 0;
        let mut best: Option<(usize, Lane, Connection)> = None;
        for (&lane, way) in self.lanes.range_mut(all_lanes(broker, pace)) {
            let Some(connection) = way.open() else {
                continue;
            };
            let room = pace.outstanding().saturating_sub(way.outstanding);
            free += room;
            if room > best.as_ref().map_or(0, |(most, ..)| *most) {
                best = Some((room, lane, connection));
            }
        }
        (free, best.map(|(_, lane, connection)| (lane, connection)))
    }

    /// Opens up to `wanted` further lanes, as far as the line is worth them.
    fn open_lanes(&mut self, broker: i32, pace: Pace, wanted: usize) {
        let allowed = match pace {
            Pace::Bulk => lanes(self.round_trip(broker), self.session.spec.lanes),
            Pace::Tail => limits::TAIL_LANES,
        };
        let mut opening = 0;
        for number in 0..allowed {
            let lane = (broker, pace, number);
            let way = self.lanes.entry(lane).or_default();
            if way.connecting {
                opening += 1;
            } else if way.open().is_none() && opening < wanted {
                opening += 1;
                way.connecting = true;
                let (cluster, pool) = (self.session.spec.source.clone(), self.pool.clone());
                // What surrounds the records has room too: a buffer that grows is copied.
                let eager = self.fetch_bytes() as usize / 8 * 9;
                self.jobs.spawn(async move {
                    let result = cluster.connect_bulk(broker, &pool, eager).await;
                    Event::LaneOpen { lane, result }
                });
            }
        }
    }

    /// The line's round trip: no answer to a fetch came faster.
    fn round_trip(&self, broker: i32) -> Duration {
        self.round_trips.get(&broker).copied().unwrap_or_default()
    }

    pub(super) fn lane_open(&mut self, lane: Lane, result: Result<Connection, NetError>) {
        let now = self.session.rt.now();
        let (broker, pace, _) = lane;
        let way = self.lanes.entry(lane).or_default();
        way.connecting = false;
        match result {
            Ok(connection) => {
                let known = self.round_trips.entry(broker).or_insert(Duration::MAX);
                *known = connection.round_trip().min(*known);
                way.connection = Some(connection);
            }
            Err(error) => {
                self.ill(Side::Source, broker, error.to_string());
                self.session.source.invalidate();
                // Those that have another lane go on over it.
                if self.free_lane(broker, pace).1.is_none() {
                    let waiting = self.fetch_queues.remove(&(broker, pace));
                    for at in waiting.unwrap_or_default() {
                        if let Some(running) = self.flows[at].running() {
                            running.in_lane = false;
                            running.fetch_at = now + limits::ROUTES_MIN_AGE * 2;
                        }
                    }
                }
            }
        }
    }

    /// Record bytes of one answer.
    fn fetch_bytes(&self) -> i32 {
        let quarter = i32::try_from(self.session.spec.memory_budget / 4).unwrap_or(i32::MAX);
        limits::FETCH_BYTES.min(quarter)
    }

    /// Record bytes of one partition in an answer.
    fn partition_bytes(&self) -> i32 {
        limits::FETCH_PARTITION_BYTES.min(self.fetch_bytes() / 4)
    }

    /// What a fetch may bring: its answer is bounded for each partition and as a whole.
    fn reservation(&self, request: &FetchRequest) -> u64 {
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        let asked: i64 = partitions.map(|p| i64::from(p.max_bytes)).sum();
        u64::try_from(asked.min(i64::from(request.max_bytes))).unwrap_or(0)
    }

    /// Whether the memory budget allows another fetch of `bytes`. What lies ahead of a head leaves a quarter free for
    /// heads, so that the flow which everything waits for can always go on.
    fn affordable(&self, bytes: u64, ahead: bool) -> bool {
        let budget = self.session.spec.memory_budget;
        let limit = if ahead { budget / 4 * 3 } else { budget };
        self.pool.held() as u64 + self.reserved + bytes <= limit
    }

    fn plan_fetch(
        &mut self,
        lane: Lane,
        share: usize,
        connection: &Connection,
        now: Instant,
    ) -> Option<(FetchRequest, Vec<Part>, i16)> {
        let (broker, pace, _) = lane;
        let most = self.partition_bytes();
        let whole = match pace {
            Pace::Tail => most,
            Pace::Bulk => self.fetch_bytes(),
        };
        let least = limits::FETCH_LEAST_BYTES.min(most);
        let (share, each) = match pace {
            // What caught up has little to bring, and a long poll must not reserve what others need.
            Pace::Tail => (share.min(limits::TAIL_PARTITIONS), most),
            Pace::Bulk => {
                let share = share.min((whole / least) as usize);
                let each = whole / i32::try_from(share).unwrap_or(i32::MAX).max(1);
                (share, each.clamp(least, most))
            }
        };
        let depth = ranges_at_once(self.round_trip(broker), self.session.spec.lanes);
        let mut chosen = Vec::new();
        let mut planned = 0;
        let mut by_id = true;
        while chosen.len() < share
            && let Some(at) = self
                .fetch_queues
                .get_mut(&(broker, pace))
                .and_then(VecDeque::pop_front)
        {
            let room = (planned + each as u64).min(whole as u64);
            let (head_fits, ahead_fits) =
                (self.affordable(room, false), self.affordable(room, true));
            let flow = &mut self.flows[at];
            let (key, generation) = (flow.spec.key.clone(), flow.generation);
            let Some(running) = flow.running() else {
                continue;
            };
            // Left over from before it was opened again: a partition stands only once in a fetch.
            if !running.in_lane {
                continue;
            }
            if running.starved && !chosen.is_empty() {
                // Only the first partition of a fetch is sure to be served.
                if let Some(queue) = self.fetch_queues.get_mut(&(broker, pace)) {
                    queue.push_front(at);
                }
                break;
            }
            if !head_fits {
                // First in line when memory is given back.
                self.tight = true;
                if let Some(queue) = self.fetch_queues.get_mut(&(broker, pace)) {
                    queue.push_front(at);
                }
                break;
            }
            running.in_lane = false;
            let Lookup::Leader(route) = self.session.source.lookup(&key.topic, key.partition)
            else {
                continue;
            };
            if route.broker != broker || running.checking {
                continue;
            }
            let (head, epoch) = (running.stitch.head(), running.stitch.epoch());
            let depth = if ahead_fits { depth } else { 1 };
            let each = if running.starved { most } else { each };
            self.next_range += 1;
            let end = running.source_end;
            let Some(ask) = running
                .ranges
                .ask(self.next_range, head, epoch, end, depth, each)
            else {
                continue;
            };
            if ask.from > head {
                debug!(topic = %key.topic, partition = key.partition, head, from = ask.from, "reading ahead");
            }
            planned += ask.max_bytes as u64;
            by_id &= !route.topic_id.is_nil();
            chosen.push((at, key, generation, route, ask));
        }
        if chosen.is_empty() {
            return None;
        }
        let newest = if by_id { FETCH_NEWEST } else { FETCH_BY_NAME };
        let version = match connection.version(FETCH, newest, 4) {
            Ok(version) => version,
            Err(error) => {
                let error = FlowError::from(error);
                for (at, _, _, _, ask) in chosen {
                    if let Some(running) = self.flows[at].running() {
                        running.ranges.failed(ask.id);
                        running.fetch_at = now + limits::BACKOFF_MAX;
                    }
                    self.unread(at, &error);
                }
                return None;
            }
        };
        let named = version <= FETCH_BY_NAME;
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut index: HashMap<String, usize> = HashMap::new();
        let mut parts = Vec::with_capacity(chosen.len());
        for (flow, key, generation, route, ask) in chosen {
            let partition = FetchPartition {
                partition: key.partition,
                leader_epoch: route.epoch,
                offset: ask.from,
                last_fetched_epoch: ask.last_epoch,
                max_bytes: ask.max_bytes,
            };
            match index.get(&key.topic).and_then(|at| topics.get_mut(*at)) {
                Some(topic) => topic.partitions.push(partition),
                None => {
                    index.insert(key.topic.clone(), topics.len());
                    topics.push(FetchTopic {
                        name: key.topic.clone(),
                        id: route.topic_id,
                        partitions: vec![partition],
                    });
                }
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
                mark: ask.id,
            });
        }
        let wait = match pace {
            Pace::Tail => self.session.spec.long_poll,
            Pace::Bulk => Duration::ZERO,
        };
        let request = FetchRequest {
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(500),
            min_bytes: 1,
            max_bytes: whole,
            isolation: self.session.spec.isolation,
            rack: String::new(),
            topics,
        };
        Some((request, parts, version))
    }

    pub(super) fn fetched(
        &mut self,
        lane: Lane,
        sent: Instant,
        reserved: u64,
        parts: Vec<Part>,
        result: Result<FetchAnswer, FlowError>,
    ) {
        let now = self.session.rt.now();
        let (broker, pace, _) = lane;
        self.reserved -= reserved;
        if let Some(way) = self.lanes.get_mut(&lane) {
            way.answered(now);
        }
        match result {
            Err(error) => {
                self.ill(Side::Source, broker, error.to_string());
                self.session.source.invalidate();
                for part in parts {
                    if let Some(running) = self.current(&part) {
                        running.ranges.failed(part.mark);
                        running.fetch_at = now + limits::ROUTES_MIN_AGE;
                    }
                }
            }
            Ok(answer) => {
                self.well(Side::Source, broker);
                self.throttled(Side::Source, broker, answer.throttled);
                if pace == Pace::Bulk {
                    let taken = now.saturating_duration_since(sent);
                    let known = self.round_trips.entry(broker).or_insert(taken);
                    *known = taken.min(*known);
                }
                for (part, fetched) in answer.parts {
                    self.heard_stable(&part, fetched.as_ref(), now);
                    let Some(running) = self.current(&part) else {
                        continue;
                    };
                    match fetched {
                        Some(fetched) => self.arrived(&part, fetched, answer.proven, now),
                        None => {
                            let pause = answer.throttled.max(limits::ROUTES_MIN_AGE);
                            running.ranges.failed(part.mark);
                            running.fetch_at = now + pause.min(limits::THROTTLED_MAX);
                        }
                    }
                    self.schedule(part.flow, now);
                }
            }
        }
    }

    /// Puts an answer into its place, and admits whatever continues at the head.
    fn arrived(&mut self, part: &Part, fetched: FetchedPartition, proven: bool, now: Instant) {
        let at = part.flow;
        let Some(running) = self.flows[at].running() else {
            return;
        };
        let Some(from) = running.ranges.asked_at(part.mark) else {
            return;
        };
        let ahead = from > running.stitch.head();
        match fetched.error {
            0 => {}
            // Beyond the head an error says nothing: the guess may lie behind the end, or the log have changed.
            _ if ahead => return running.ranges.failed(part.mark),
            1 => {
                running.ranges.clear();
                return self.ask_bounds(at);
            }
            code if moved(code) => {
                running.ranges.clear();
                running.fetch_at = now + limits::ROUTES_MIN_AGE;
                self.session.source.invalidate();
                return;
            }
            code => {
                running.ranges.clear();
                running.fetch_at = now + limits::BACKOFF_MAX / 6;
                let error = FlowError::Source {
                    error: KafkaError(code),
                    offset: from,
                };
                return self.unread(at, &error);
            }
        }
        running.ranges.arrived(part.mark, fetched, proven);
        self.admit_arrived(at, now);
    }

    /// Admits the answers whose turn has come.
    pub(super) fn admit_arrived(&mut self, at: usize, now: Instant) {
        while let Some(running) = self.flows[at].running()
            && !running.checking
            && !running.closing()
            && let Some(arrived) = running.ranges.take(running.stitch.head())
        {
            self.admit(at, arrived, now);
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

    fn admit(&mut self, at: usize, arrived: Arrived, now: Instant) {
        let Arrived {
            from,
            fetched,
            proven,
        } = arrived;
        let isolation = self.session.spec.isolation;
        let flow = &mut self.flows[at];
        let (key, max_batch_bytes) = (flow.spec.key.clone(), flow.spec.max_batch_bytes);
        let untroubled = flow.trouble.is_none();
        let Phase::Running(running) = &mut flow.phase else {
            return;
        };
        let verdicts = &flow.verdicts;
        let head = running.stitch.head();
        if let Some((epoch, end)) = fetched.diverging {
            running.ranges.clear();
            running.truncated = Some((epoch, end.min(head)));
            return;
        }
        // A range ahead was answered earlier than the head.
        let end = readable_end(&fetched, isolation);
        running.source_end = if from == head {
            end
        } else {
            end.max(running.source_end)
        };
        let mut items = Vec::new();
        let mut behind = running.stitch.epoch();
        let mut admitted = running.stitch.admit(&fetched, proven, &mut items);
        if running.idle && !items.is_empty() {
            return self.flows[at].activate(now);
        }
        let reached = running.stitch.head();
        if admitted.is_ok() {
            running.ranges.learn(from, reached, fetched.records.len());
        }
        for item in items {
            let fitting = match item {
                Item::Batch(outgoing) => {
                    let largest = verdicts.largest(outgoing.first, max_batch_bytes);
                    let first = outgoing.first;
                    fit(outgoing, largest, &verdicts.refused).map_err(|error| (first, error))
                }
                gap => Ok(vec![gap]),
            };
            let fitting = match fitting {
                Ok(fitting) => fitting,
                Err((at, source)) => {
                    // What cannot be read stops here; what stands before it goes on.
                    running.stitch.rewind(at, behind);
                    admitted = Err(StitchError::wire(at, source));
                    break;
                }
            };
            for mut item in fitting {
                if let Item::Batch(outgoing) = &mut item {
                    running.writer.limit(verdicts.limit_of(max_batch_bytes));
                    outgoing.alone = verdicts.alone(outgoing.first);
                    if outgoing.original.is_some() {
                        // Made here, so not yet in the account.
                        let bytes = std::mem::take(&mut outgoing.batch.bytes);
                        outgoing.batch.bytes = self.pool.adopt(bytes);
                    }
                }
                if let Item::Gap {
                    reason: GapReason::Unexplained,
                    from,
                    to,
                    ..
                } = &item
                {
                    warn!(
                        link = %self.session.spec.name, id = "source-hole", topic = %key.topic, partition = key.partition,
                        "{}-{} on cluster {} has no records from offset {from} to {}, and neither compaction nor retention explains it: they are recorded as a gap; look at the log of its leader",
                        key.topic, key.partition, self.session.spec.source.alias(), to - 1
                    );
                }
                behind = item.source_epoch();
                running.writer.push(item);
            }
        }
        let reached = running.stitch.head();
        running.caught_up = reached >= running.source_end;
        match admitted {
            Ok(()) => {
                let end = running.source_end;
                if reached != head || reached == end {
                    (running.starved, running.starved_since) = (false, None);
                } else {
                    // Between the end of what may be read and the log end brokers answer at once.
                    let starved = reached < end;
                    if std::mem::replace(&mut running.starved, starved) || !starved {
                        let since = *running.starved_since.get_or_insert(now);
                        let waited = now.saturating_duration_since(since);
                        let pause = (waited / 8).min(limits::EMPTY_PAUSE_MAX);
                        running.fetch_at = now + pause.max(limits::EMPTY_PAUSE);
                        if starved && waited >= limits::REQUEST_TIMEOUT && untroubled {
                            let error = FlowError::NothingRead {
                                cluster: self.session.spec.source.alias().to_owned(),
                                topic: key.topic,
                                partition: key.partition,
                                offset: reached,
                                end,
                                waited: limits::REQUEST_TIMEOUT,
                            };
                            return self.unread(at, &error);
                        }
                    }
                }
                if running.caught_up && running.writer.bytes() == 0 {
                    self.flows[at].recovered(&self.session.spec.name);
                }
            }
            Err(StitchError::Hole { .. }) => running.ranges.clear(),
            Err(StitchError::Unproven {
                admitted,
                found,
                at: seam,
            }) => {
                let (routes, key) = (self.session.source.clone(), self.flows[at].spec.key.clone());
                let generation = self.flows[at].generation;
                if let Some(running) = self.flows[at].running() {
                    running.checking = true;
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
            Err(StitchError::Origin { producer_ids, .. }) => {
                running.ranges.put_back(reached, fetched, proven);
                running.checking = true;
                let (session, generation) = (self.session.clone(), self.flows[at].generation);
                self.jobs.spawn(async move {
                    let result = session.provenance.look_up(&producer_ids).await;
                    Event::OriginFound {
                        flow: at,
                        generation,
                        result,
                    }
                });
            }
            Err(error) => {
                running.ranges.clear();
                running.fetch_at = now
                    + if matches!(error, StitchError::Stale { .. }) {
                        self.session.source.invalidate();
                        limits::ROUTES_MIN_AGE
                    } else {
                        limits::BACKOFF_MAX
                    };
                self.unread(at, &error.into());
            }
        }
    }
}

/// Every lane of one pace to a broker.
fn all_lanes(broker: i32, pace: Pace) -> RangeInclusive<Lane> {
    (broker, pace, 0)..=(broker, pace, u8::MAX)
}
