//! A shard at work: one task that owns all flows of a session, asks for records, sends them on, and keeps
//! the account. It never waits for one flow while another could move.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use strait_net::{Connection, KafkaError, NetError};
use strait_wire::{
    FetchPartition, FetchRequest, FetchTopic, FetchedPartition, GapReason, ProducePartition, ProduceRequest,
    ProducedPartition, SyncKind, SyncRecord, TopicRef,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use crate::error::{FlowError, SessionError};
use crate::flow::{Flow, Phase, Running};
use crate::internal_log::PRODUCE;
use crate::limits;
use crate::link::Command;
use crate::open::{Opened, Opening, passing, sync_record};
use crate::partition::{FETCH, FETCH_BY_NAME, FETCH_NEWEST, PartitionReader, moved};
use crate::routes::{Lookup, Routes};
use crate::session::Session;
use crate::spec::{FlowKey, FlowSpec};
use crate::status::LinkStatus;
use crate::stitch::{Item, Stitch, StitchError};
use crate::transfer::{FetchAnswer, Lane, Part, Way, epoch_reaches, fetch, produce_version, produced, readable_end};
use crate::writer::{Answer, Settled};

/// How often time-driven work is looked at.
const TICK: Duration = Duration::from_millis(100);

/// How a shard's run ended.
pub(crate) enum Ended {
    Stopped,
    /// The session was closed to begin a new one (the transactional id must not expire).
    Renewed,
    Lost(SessionError),
}

enum Event {
    Opened { flow: usize, generation: u64, result: Box<Result<Opened, FlowError>> },
    LaneOpen { way: (i32, Lane), result: Result<Connection, NetError> },
    Fetched { way: (i32, Lane), parts: Vec<Part>, result: Result<FetchAnswer, FlowError> },
    ChannelOpen { broker: i32, result: Result<Connection, NetError> },
    Produced { broker: i32, parts: Vec<(Part, Option<ProducedPartition>)>, failure: Option<String> },
    Synced { flows: Vec<(usize, u64, SyncRecord, u64)>, result: Result<(), SessionError> },
    /// Where the source's log begins and ends, for a flow whose head lies outside.
    Bounds { flow: usize, generation: u64, result: Result<(i64, i64), FlowError> },
    EpochChecked { flow: usize, generation: u64, found: i32, result: Result<(i32, i64, bool), FlowError> },
    Routed(Result<(), NetError>),
}

pub(crate) struct Shard<'a> {
    session: Arc<Session>,
    status: &'a watch::Sender<LinkStatus>,
    flows: Vec<Flow>,
    index: BTreeMap<FlowKey, usize>,
    jobs: JoinSet<Event>,
    lanes: BTreeMap<(i32, Lane), Way>,
    channels: BTreeMap<i32, Way>,
    opening: usize,
    reserved: u64,
    held: u64,
    syncing: bool,
    routing: (bool, bool),
    stopping: Option<(Instant, bool)>,
    lost: Option<SessionError>,
}

impl<'a> Shard<'a> {
    pub(crate) fn new(session: Arc<Session>, flows: Vec<FlowSpec>, status: &'a watch::Sender<LinkStatus>) -> Self {
        let mut shard = Self {
            session,
            status,
            flows: Vec::new(),
            index: BTreeMap::new(),
            jobs: JoinSet::new(),
            lanes: BTreeMap::new(),
            channels: BTreeMap::new(),
            opening: 0,
            reserved: 0,
            held: 0,
            syncing: false,
            routing: (false, false),
            stopping: None,
            lost: None,
        };
        shard.select(flows);
        shard
    }

    pub(crate) async fn run(
        mut self,
        commands: &mut mpsc::Receiver<Command>,
        flows: &mut BTreeMap<FlowKey, FlowSpec>,
    ) -> Ended {
        let session = self.session.clone();
        let ended = session.ended();
        tokio::pin!(ended);
        let renew = session.rt.now() + limits::BARRIER_REFRESH;
        let mut tick = session.rt.now();
        loop {
            let now = session.rt.now();
            if now >= tick {
                tick = now + TICK;
                self.tick(now);
                if self.stopping.is_none() && now >= renew {
                    self.stopping = Some((now + limits::STOP_DEADLINE, true));
                }
            }
            self.dispatch(now);
            if let Some(error) = self.lost.take() {
                session.lease.revoke();
                return Ended::Lost(error);
            }
            if let Some((deadline, renewal)) = self.stopping
                && (now >= deadline || self.drained())
            {
                return self.close(now >= deadline, renewal).await;
            }
            tokio::select! {
                biased;
                Some(event) = self.jobs.join_next() => {
                    self.take(event);
                    for _ in 0..256 {
                        let Some(event) = self.jobs.try_join_next() else { break };
                        self.take(event);
                    }
                }
                command = commands.recv() => match command {
                    Some(Command::Flows(new)) => {
                        *flows = new.iter().map(|f| (f.key.clone(), f.clone())).collect();
                        self.select(new);
                    }
                    Some(Command::Stop) | None => {
                        info!(link = %session.spec.name, "stopping: waiting for what is in flight");
                        self.stopping = Some((session.rt.now() + limits::STOP_DEADLINE, false));
                    }
                },
                why = &mut ended => {
                    self.lost.get_or_insert(SessionError::Lost(why));
                }
                () = session.rt.sleep_until(tick) => {}
            }
        }
    }

    // ---- selection and time

    fn select(&mut self, specs: Vec<FlowSpec>) {
        let now = self.session.rt.now();
        for flow in &mut self.flows {
            flow.removing = true;
        }
        self.session.source.watch(specs.iter().map(|s| s.key.topic.clone()));
        self.session.target.watch(specs.iter().map(|s| s.target_topic.clone()));
        for spec in specs {
            match self.index.get(&spec.key) {
                Some(&at) if self.flows[at].spec.target_topic == spec.target_topic => {
                    self.flows[at].removing = false;
                    self.flows[at].spec = spec;
                }
                _ => {
                    let last = self.session.positions.get(&spec.key).cloned();
                    self.index.insert(spec.key.clone(), self.flows.len());
                    self.flows.push(Flow::new(spec, last, now));
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        for (source, routes) in [(true, self.session.source.clone()), (false, self.session.target.clone())] {
            let asking = if source { &mut self.routing.0 } else { &mut self.routing.1 };
            if routes.due() && !*asking {
                *asking = true;
                self.jobs.spawn(async move { Event::Routed(routes.refresh().await) });
            }
        }
        self.routing = (false, false);
        for at in 0..self.flows.len() {
            self.settle(at, now);
            self.schedule(at, now);
        }
        self.write_syncs(now);
        self.publish();
    }

    fn publish(&self) {
        let mut status = LinkStatus {
            open: self.stopping.is_none(),
            records: self.status.borrow().records,
            bytes: self.status.borrow().bytes,
            ..LinkStatus::default()
        };
        for flow in self.flows.iter().filter(|f| !f.removing) {
            status.flows += 1;
            match &flow.phase {
                Phase::Running(running) => {
                    status.running += 1;
                    status.lag += (running.source_end - running.ledger.source_next()).max(0);
                }
                Phase::Opening => status.opening += 1,
                Phase::Waiting(_) => {}
            }
            if let Some(trouble) = &flow.trouble {
                status.troubles.push((flow.spec.key.clone(), trouble.clone()));
            }
        }
        let link = self.session.spec.name.clone();
        metrics::gauge!("strait_flows", "link" => link.clone(), "state" => "running").set(status.running as f64);
        metrics::gauge!("strait_flows", "link" => link.clone(), "state" => "opening").set(status.opening as f64);
        let troubled = status.troubles.len() as f64;
        metrics::gauge!("strait_flows", "link" => link.clone(), "state" => "troubled").set(troubled);
        metrics::gauge!("strait_lag_records", "link" => link.clone()).set(status.lag as f64);
        metrics::gauge!("strait_memory_bytes", "link" => link).set((self.held + self.reserved) as f64);
        self.status.send_replace(status);
    }

    // ---- openings

    fn open(&mut self, at: usize) {
        let flow = &mut self.flows[at];
        flow.phase = Phase::Opening;
        let opening = Opening {
            session: self.session.clone(),
            spec: flow.spec.clone(),
            last: flow.last.clone(),
            above: flow.above,
        };
        let generation = flow.generation;
        self.opening += 1;
        self.jobs.spawn(async move {
            Event::Opened { flow: at, generation, result: Box::new(opening.run().await) }
        });
    }

    fn opened(&mut self, at: usize, result: Result<Opened, FlowError>) {
        let now = self.session.rt.now();
        match result {
            Ok(opened) => {
                self.flows[at].opened(opened, now);
                self.schedule(at, now);
            }
            Err(FlowError::Session(error)) => {
                self.lost.get_or_insert(error);
            }
            Err(error) => {
                if passing(&error) {
                    self.session.source.invalidate();
                    self.session.target.invalidate();
                }
                self.trouble(at, &error);
                let wait = error.backoff(self.flows[at].tries);
                self.flows[at].wait(now + wait);
            }
        }
    }

    fn trouble(&mut self, at: usize, error: &FlowError) {
        let link = &self.session.spec.name;
        metrics::counter!("strait_flow_errors_total", "link" => link.clone()).increment(1);
        self.flows[at].report(link, error);
    }

    // ---- what a flow wants next

    /// Puts the flow into the queues it has a reason to be in.
    fn schedule(&mut self, at: usize, now: Instant) {
        let stopping = self.stopping.is_some();
        let flow = &mut self.flows[at];
        let running = match &mut flow.phase {
            Phase::Opening => return,
            Phase::Waiting(until) => {
                if !stopping && !flow.removing && now >= *until && self.opening < limits::OPENING_FLOWS {
                    self.open(at);
                }
                return;
            }
            Phase::Running(running) => running,
        };
        let routes = (&self.session.source, &self.session.target);
        let (key, target_topic) = (&flow.spec.key, &flow.spec.target_topic);
        let leader = |routes: &Arc<Routes>, topic: &str, known: Uuid| match routes.lookup(topic, key.partition) {
            Lookup::Leader(route) if !known.is_nil() && !route.topic_id.is_nil() && route.topic_id != known => Err(()),
            Lookup::Leader(route) => Ok(Some(route.broker)),
            _ => Ok(None),
        };
        let (source, target) =
            match (leader(routes.0, &key.topic, running.ids.0), leader(routes.1, target_topic, running.ids.1)) {
                (Ok(source), Ok(target)) => (source, target),
                _ => {
                    running.reopen.get_or_insert_with(|| "the topic was re-created".to_owned());
                    return;
                }
            };
        let leaving = stopping || flow.removing || running.reopen.is_some() || running.truncated.is_some();
        let room = running.writer.bytes() < limits::FLOW_BYTES
            && running.ledger.unsynced_bytes() < limits::UNSYNCED_MAX
            && !running.writer.settling();
        if let Some(broker) = source
            && !leaving
            && room
            && !running.fetching
            && !running.in_lane
            && now >= running.fetch_at
        {
            running.in_lane = true;
            let lane = if running.caught_up { Lane::Tail } else { Lane::Bulk };
            self.lanes.entry((broker, lane)).or_default().waiting.push_back(at);
        }
        if let Some(broker) = target
            && !stopping
            && running.writer.ready()
            && !running.in_channel
            && now >= running.send_at
        {
            running.in_channel = true;
            self.channels.entry(broker).or_default().waiting.push_back(at);
        }
    }

    fn dispatch(&mut self, now: Instant) {
        let lanes: Vec<(i32, Lane)> =
            self.lanes.iter().filter(|(_, w)| !w.waiting.is_empty()).map(|(k, _)| *k).collect();
        for way in lanes {
            self.dispatch_fetches(way, now);
        }
        let channels: Vec<i32> =
            self.channels.iter().filter(|(_, w)| !w.waiting.is_empty()).map(|(k, _)| *k).collect();
        for broker in channels {
            self.dispatch_batches(broker, now);
        }
    }

    // ---- fetching

    fn dispatch_fetches(&mut self, way: (i32, Lane), now: Instant) {
        let (broker, lane) = way;
        let Some(state) = self.lanes.get_mut(&way) else { return };
        let Some(connection) = state.open() else {
            if !state.connecting {
                state.connecting = true;
                let cluster = self.session.spec.source.clone();
                self.jobs.spawn(async move { Event::LaneOpen { way, result: cluster.connect(broker).await } });
            }
            return;
        };
        while self.lanes.get(&way).is_some_and(|s| !s.waiting.is_empty() && s.outstanding < lane.outstanding()) {
            let Some((request, parts, version)) = self.plan_fetch(way, &connection) else { return };
            self.reserved += parts.len() as u64 * limits::FETCH_PARTITION_BYTES as u64;
            if let Some(state) = self.lanes.get_mut(&way) {
                state.outstanding += 1;
            }
            let connection = connection.clone();
            self.jobs.spawn(async move {
                let (parts, result) = fetch(connection, version, request, parts).await;
                Event::Fetched { way, parts, result }
            });
        }
        let _ = now;
    }

    fn plan_fetch(&mut self, way: (i32, Lane), connection: &Connection) -> Option<(FetchRequest, Vec<Part>, i16)> {
        let (broker, lane) = way;
        let budget = self.session.spec.memory_budget;
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut parts = Vec::new();
        let mut chosen = Vec::new();
        let mut by_id = true;
        let state = self.lanes.get_mut(&way)?;
        while let Some(&at) = state.waiting.front() {
            let planned = self.held + self.reserved + (parts.len() as u64 + 1) * limits::FETCH_PARTITION_BYTES as u64;
            let first = self.held + self.reserved == 0 && chosen.is_empty();
            if chosen.len() >= limits::FETCH_PARTITIONS || (planned > budget && !first) {
                break;
            }
            state.waiting.pop_front();
            let flow = &mut self.flows[at];
            let (key, generation) = (flow.spec.key.clone(), flow.generation);
            let Some(running) = flow.running() else { continue };
            running.in_lane = false;
            let Lookup::Leader(route) = self.session.source.lookup(&key.topic, key.partition) else { continue };
            if route.broker != broker || running.fetching {
                continue;
            }
            running.fetching = true;
            by_id &= !route.topic_id.is_nil();
            chosen.push((at, key, generation, route, running.stitch.head(), running.stitch.epoch()));
            parts.push(());
        }
        if chosen.is_empty() {
            return None;
        }
        let version = connection.version(FETCH, if by_id { FETCH_NEWEST } else { FETCH_BY_NAME }, 4).ok()?;
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
            let topic = if named { TopicRef::Name(key.topic) } else { TopicRef::Id(route.topic_id) };
            parts.push(Part { flow, generation, topic, partition: key.partition, mark: offset as u64 });
        }
        let wait = if lane == Lane::Tail { self.session.spec.long_poll } else { Duration::ZERO };
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

    fn fetched(&mut self, way: (i32, Lane), parts: Vec<Part>, result: Result<FetchAnswer, FlowError>) {
        let now = self.session.rt.now();
        self.reserved -= parts.len() as u64 * limits::FETCH_PARTITION_BYTES as u64;
        if let Some(state) = self.lanes.get_mut(&way) {
            state.outstanding -= 1;
        }
        match result {
            Err(error) => {
                warn!(link = %self.session.spec.name, "fetching from broker {} failed, trying again: {error}", way.0);
                self.session.source.invalidate();
                for part in parts {
                    if let Some(running) = self.current(&part) {
                        running.fetching = false;
                        running.fetch_at = now + limits::ROUTES_MIN_AGE;
                    }
                }
            }
            Ok(answer) => {
                for (part, fetched) in answer.parts {
                    let Some(running) = self.current(&part) else { continue };
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

    fn current(&mut self, part: &Part) -> Option<&mut Running> {
        let flow = self.flows.get_mut(part.flow)?;
        if flow.generation == part.generation { flow.running() } else { None }
    }

    fn admit(&mut self, part: &Part, fetched: FetchedPartition, proven: bool, now: Instant) {
        let at = part.flow;
        let isolation = self.session.spec.isolation;
        let Some(running) = self.flows[at].running() else { return };
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
                return self.trouble(at, &FlowError::Source { error: KafkaError(code), offset: part.mark as i64 });
            }
        }
        if let Some((epoch, end)) = fetched.diverging {
            running.truncated = Some((epoch, end.min(running.stitch.head())));
            return;
        }
        running.source_end = readable_end(&fetched, isolation);
        match running.stitch.admit(&fetched, proven) {
            Ok(items) => {
                running.caught_up = running.stitch.head() >= running.source_end;
                if items.is_empty() && !running.caught_up {
                    // Between the end of what may be read and the log end brokers answer at once.
                    running.fetch_at = now + Duration::from_millis(20);
                }
                let before = running.writer.bytes();
                for item in items {
                    running.writer.push(item);
                }
                self.held += running.writer.bytes() - before;
            }
            Err(StitchError::Unproven { admitted, found, at: seam }) => {
                let (routes, key) = (self.session.source.clone(), self.flows[at].spec.key.clone());
                let generation = self.flows[at].generation;
                if let Some(running) = self.flows[at].running() {
                    running.fetching = true;
                }
                self.jobs.spawn(async move {
                    let result = epoch_reaches(&routes, &key.topic, key.partition, admitted, seam).await;
                    Event::EpochChecked { flow: at, generation, found, result }
                });
            }
            Err(error) => {
                running.fetch_at = now + if matches!(error, StitchError::Stale { .. }) {
                    self.session.source.invalidate();
                    limits::ROUTES_MIN_AGE
                } else {
                    limits::BACKOFF_MAX
                };
                self.trouble(at, &error.into());
            }
        }
    }

    fn ask_bounds(&mut self, at: usize) {
        let session = self.session.clone();
        let flow = &mut self.flows[at];
        let (key, generation) = (flow.spec.key.clone(), flow.generation);
        if let Some(running) = flow.running() {
            running.fetching = true;
        }
        self.jobs.spawn(async move {
            let reader = PartitionReader {
                rt: session.rt.clone(),
                routes: session.source.clone(),
                topic: key.topic,
                partition: key.partition,
                isolation: session.spec.isolation,
            };
            let bounds = async { Ok((reader.log_start().await?, reader.log_end().await?)) };
            Event::Bounds { flow: at, generation, result: bounds.await }
        });
    }

    fn bounds(&mut self, at: usize, result: Result<(i64, i64), FlowError>) {
        let now = self.session.rt.now();
        let link = self.session.spec.name.clone();
        let flow = &mut self.flows[at];
        let (topic, partition) = (flow.spec.key.topic.clone(), flow.spec.key.partition);
        let (compacted, isolation) = (flow.spec.compacted, self.session.spec.isolation);
        let Some(running) = flow.running() else { return };
        running.fetching = false;
        let head = running.stitch.head();
        match result {
            Ok((start, _)) if head < start => {
                warn!(
                    %link, %topic, partition,
                    "retention on the source overtook the mirror: offsets {head} to {} are gone there and were not mirrored; going on at {start}",
                    start - 1
                );
                running.writer.push(Item::Gap { reason: GapReason::Expired, from: head, to: start });
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

    fn epoch_checked(&mut self, at: usize, found: i32, result: Result<(i32, i64, bool), FlowError>) {
        let now = self.session.rt.now();
        let Some(running) = self.flows[at].running() else { return };
        running.fetching = false;
        match result {
            Ok((_, _, true)) => running.stitch.confirm(found),
            Ok((epoch, end, false)) => running.truncated = Some((epoch, end.min(running.stitch.head()))),
            Err(error) => {
                running.fetch_at = now + limits::ROUTES_MIN_AGE;
                self.trouble(at, &error);
            }
        }
    }

    // ---- producing

    fn dispatch_batches(&mut self, broker: i32, now: Instant) {
        if !self.session.lease.valid() {
            return;
        }
        let Some(state) = self.channels.get_mut(&broker) else { return };
        let Some(connection) = state.open() else {
            if !state.connecting {
                state.connecting = true;
                let cluster = self.session.spec.target.clone();
                self.jobs.spawn(async move { Event::ChannelOpen { broker, result: cluster.connect(broker).await } });
            }
            return;
        };
        while self
            .channels
            .get(&broker)
            .is_some_and(|s| !s.waiting.is_empty() && s.outstanding < limits::REQUESTS_PER_CONNECTION)
        {
            if !self.send_request(broker, &connection, now) {
                return;
            }
        }
    }

    /// One request with at most one batch per target partition; false when there was nothing to send.
    fn send_request(&mut self, broker: i32, connection: &Connection, now: Instant) -> bool {
        let mut partitions = Vec::new();
        let mut parts = Vec::new();
        let mut size = 0;
        let mut by_id = true;
        let turns = self.channels.get(&broker).map_or(0, |s| s.waiting.len());
        for _ in 0..turns {
            if size >= limits::PRODUCE_BYTES {
                break;
            }
            let Some(at) = self.channels.get_mut(&broker).and_then(|s| s.waiting.pop_front()) else { break };
            let flow = &mut self.flows[at];
            let (topic, partition, generation) =
                (flow.spec.target_topic.clone(), flow.spec.key.partition, flow.generation);
            let Some(running) = flow.running() else { continue };
            running.in_channel = false;
            let Lookup::Leader(route) = self.session.target.lookup(&topic, partition) else { continue };
            if route.broker != broker || now < running.send_at {
                continue;
            }
            let Some(dispatch) = running.writer.next() else {
                running.writer.advance_ledger(&mut running.ledger, now);
                continue;
            };
            size += dispatch.size;
            by_id &= !route.topic_id.is_nil();
            parts.push((at, generation, topic.clone(), route.topic_id, partition, dispatch.ticket));
            partitions.push(ProducePartition {
                topic,
                topic_id: route.topic_id,
                partition,
                batch: dispatch.batch.into(),
            });
            self.schedule(at, now);
        }
        if parts.is_empty() {
            return false;
        }
        let version = produce_version(connection, by_id);
        let named = version.as_ref().is_ok_and(|v| *v <= crate::internal_log::PRODUCE_BY_NAME);
        let parts: Vec<Part> = parts
            .into_iter()
            .map(|(flow, generation, name, id, partition, mark)| {
                let topic = if named { TopicRef::Name(name) } else { TopicRef::Id(id) };
                Part { flow, generation, topic, partition, mark }
            })
            .collect();
        let request =
            ProduceRequest { acks: -1, timeout_ms: limits::PRODUCE_TIMEOUT.as_millis() as i32, partitions };
        let encoded = version.map_err(|e| e.to_string()).and_then(|v| {
            request.encode(v).map(|body| (v, body)).map_err(|e| e.to_string())
        });
        if let Some(state) = self.channels.get_mut(&broker) {
            state.outstanding += 1;
        }
        match encoded {
            Ok((version, body)) => {
                let guard = Some(self.session.lease.clone() as Arc<dyn strait_net::WriteGuard>);
                let timeout = limits::REQUEST_TIMEOUT + limits::PRODUCE_TIMEOUT;
                // Put on the wire here and now: the order of these calls is the order of the sequences.
                let pending = connection.send(PRODUCE, version, body, timeout, guard);
                self.jobs.spawn(async move {
                    let (parts, failure) = produced(pending, version, parts).await;
                    Event::Produced { broker, parts, failure }
                });
            }
            Err(failure) => {
                let parts = parts.into_iter().map(|p| (p, None)).collect();
                self.produced(broker, parts, Some(failure));
            }
        }
        true
    }

    fn produced(&mut self, broker: i32, parts: Vec<(Part, Option<ProducedPartition>)>, failure: Option<String>) {
        let now = self.session.rt.now();
        if let Some(state) = self.channels.get_mut(&broker) {
            state.outstanding -= 1;
            if failure.is_some()
                && let Some(connection) = state.connection.take()
            {
                connection.close();
            }
        }
        if let Some(why) = &failure {
            warn!(link = %self.session.spec.name, "sending to broker {broker} failed: {why}");
            self.session.target.invalidate();
        }
        let (mut records, mut bytes) = (0, 0);
        for (part, answered) in parts {
            let answer = match answered {
                Some(a) => Answer::classify(a.error, a.base_offset, a.message),
                None => Answer::Doubt(failure.clone().unwrap_or_else(|| "the broker left the answer out".to_owned())),
            };
            let Some(running) = self.current(&part) else { continue };
            let (forwarded, held) = (running.ledger.forwarded(), running.writer.bytes());
            running.writer.answer(part.mark, answer, &mut running.ledger, now);
            let freed = held - running.writer.bytes();
            let moved = running.ledger.forwarded() - forwarded;
            (records, bytes) = (records + moved as u64, bytes + freed);
            self.held -= freed;
            if moved > 0 {
                self.flows[part.flow].recovered(&self.session.spec.name);
            }
            self.settle(part.flow, now);
            self.schedule(part.flow, now);
        }
        let link = &self.session.spec.name;
        metrics::counter!("strait_records_total", "link" => link.clone()).increment(records);
        metrics::counter!("strait_bytes_total", "link" => link.clone()).increment(bytes);
        self.status.send_modify(|status| {
            status.records += records;
            status.bytes += bytes;
        });
        self.write_syncs(now);
    }

    /// Acts on a flow whose failed answers are all in, or that has to be drained for another reason.
    fn settle(&mut self, at: usize, now: Instant) {
        let link = self.session.spec.name.clone();
        let Some(running) = self.flows[at].running() else { return };
        running.writer.advance_ledger(&mut running.ledger, now);
        match running.writer.settle() {
            None => {}
            Some(Settled::Resend(error)) => {
                let error = FlowError::NotAppended(error);
                running.send_at = now + error.backoff(self.flows[at].tries);
                return self.trouble(at, &error);
            }
            Some(Settled::Refused { error, message, first, last, size }) => {
                running.send_at = now + limits::BACKOFF_MAX;
                let advice = FlowError::advice(error);
                return self.trouble(at, &FlowError::Refused { first, last, size, error, message, advice });
            }
            Some(Settled::Reopen(why)) => return self.reopen(at, &FlowError::Doubt(why), now),
            Some(Settled::Hole { first, last }) => return self.reopen(at, &FlowError::Hole { first, last }, now),
            Some(Settled::Fenced(error)) => {
                let why = format!("{}: {error}", self.flows[at].spec.key);
                self.lost.get_or_insert(SessionError::Fenced { link, owner: None, why });
                return;
            }
        }
        let Some(running) = self.flows[at].running() else { return };
        if running.reopen.is_some() || running.truncated.is_some() {
            let before = running.writer.bytes();
            running.writer.drop_queue();
            self.held -= before - running.writer.bytes();
        }
        let Some(running) = self.flows[at].running() else { return };
        if running.writer.in_flight() > 0 || running.syncing {
            return;
        }
        if let Some(why) = running.reopen.take() {
            return self.reopen(at, &FlowError::Doubt(why), now);
        }
        if running.truncated.is_some() && !running.fetching {
            self.rebase(at);
        }
    }

    fn reopen(&mut self, at: usize, error: &FlowError, now: Instant) {
        if let Some(running) = self.flows[at].running() {
            let held = running.writer.bytes();
            self.held -= held;
        }
        self.session.target.invalidate();
        self.trouble(at, error);
        let wait = error.backoff(self.flows[at].tries.saturating_sub(1));
        self.flows[at].wait(now + wait);
    }

    /// The source's log was cut below the head: its new history is mirrored from there. The sync that says so
    /// comes before its data.
    fn rebase(&mut self, at: usize) {
        let session = self.session.clone();
        let flow = &mut self.flows[at];
        let (spec, generation) = (flow.spec.clone(), flow.generation);
        let Phase::Running(running) = std::mem::replace(&mut flow.phase, Phase::Opening) else { return };
        let Running { mut ledger, writer, ids, truncated, .. } = *running;
        let (epoch, end) = truncated.unwrap_or((-1, ledger.source_next()));
        let next = end.min(ledger.source_next());
        warn!(
            link = %session.spec.name, topic = %spec.key.topic, partition = spec.key.partition,
            "the source lost records: its log was cut at offset {end}, {} of them are already in the target (up to target offset {}); mirroring its new history from {next}",
            ledger.source_next() - next, ledger.target_next() - 1
        );
        ledger.rebase(GapReason::Truncated, next, epoch);
        self.opening += 1;
        self.jobs.spawn(async move {
            let identity = writer.identity();
            let sync = sync_record(&session, &spec, SyncKind::Rebase, &ledger, identity, ids);
            let record = sync.to_record(session.rt.wall_ms());
            let result = session.syncs.append(&session.spec.name, vec![record]).await;
            let stitch = Stitch::new(next, epoch, spec.compacted, session.spec.isolation);
            let result = result
                .map(|()| Opened { stitch, writer, ledger, sync, ids, hold_until: None })
                .map_err(FlowError::from);
            Event::Opened { flow: at, generation, result: Box::new(result) }
        });
    }

    // ---- syncs

    fn write_syncs(&mut self, now: Instant) {
        if self.syncing {
            return;
        }
        let session = self.session.clone();
        let mut due: Vec<(u64, usize)> = Vec::new();
        for (at, flow) in self.flows.iter_mut().enumerate() {
            if let Some(running) = flow.running()
                && running.ledger.sync_due(now)
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
                let sync = sync_record(&session, &spec, SyncKind::Periodic, &running.ledger, identity, running.ids);
                running.ledger.sync_sent();
                running.syncing = true;
                flows.push((at, generation, sync, bytes));
            }
        }
        self.syncing = true;
        self.jobs.spawn(async move {
            let wall_ms = session.rt.wall_ms();
            let records = flows.iter().map(|(_, _, sync, _)| sync.to_record(wall_ms)).collect();
            let result = session.syncs.append(&session.spec.name, records).await;
            Event::Synced { flows, result }
        });
    }

    fn synced(&mut self, flows: Vec<(usize, u64, SyncRecord, u64)>, result: Result<(), SessionError>) {
        self.syncing = false;
        let now = self.session.rt.now();
        for (at, generation, sync, bytes) in flows {
            let flow = &mut self.flows[at];
            if flow.generation != generation {
                continue;
            }
            if result.is_ok() {
                flow.last = Some(sync);
            }
            if let Some(running) = flow.running() {
                running.syncing = false;
                if result.is_err() {
                    running.ledger.sync_failed(bytes, now);
                }
            }
        }
        if let Err(error) = result {
            self.lost.get_or_insert(error);
        }
    }

    // ---- events and the end

    fn take(&mut self, event: Result<Event, tokio::task::JoinError>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.lost.get_or_insert(SessionError::Lost(format!("a task failed: {error}")));
                return;
            }
        };
        let now = self.session.rt.now();
        match event {
            Event::Opened { flow, generation, result } => {
                self.opening -= 1;
                if self.flows[flow].generation == generation {
                    self.opened(flow, *result);
                }
            }
            Event::LaneOpen { way, result } => {
                let state = self.lanes.entry(way).or_default();
                state.connecting = false;
                match result {
                    Ok(connection) => state.connection = Some(connection),
                    Err(error) => {
                        warn!(link = %self.session.spec.name, "cannot connect to the source: {error}");
                        let waiting: Vec<usize> = state.waiting.drain(..).collect();
                        self.session.source.invalidate();
                        self.put_off(&waiting, |r| (&mut r.in_lane, &mut r.fetch_at), now);
                    }
                }
            }
            Event::Fetched { way, parts, result } => self.fetched(way, parts, result),
            Event::ChannelOpen { broker, result } => {
                let state = self.channels.entry(broker).or_default();
                state.connecting = false;
                match result {
                    Ok(connection) => state.connection = Some(connection),
                    Err(error) => {
                        warn!(link = %self.session.spec.name, "cannot connect to the target: {error}");
                        let waiting: Vec<usize> = state.waiting.drain(..).collect();
                        self.session.target.invalidate();
                        self.put_off(&waiting, |r| (&mut r.in_channel, &mut r.send_at), now);
                    }
                }
            }
            Event::Produced { broker, parts, failure } => self.produced(broker, parts, failure),
            Event::Synced { flows, result } => self.synced(flows, result),
            Event::Bounds { flow, generation, result } => {
                if self.flows[flow].generation == generation {
                    self.bounds(flow, result);
                    self.schedule(flow, now);
                }
            }
            Event::EpochChecked { flow, generation, found, result } => {
                if self.flows[flow].generation == generation {
                    self.epoch_checked(flow, found, result);
                    self.schedule(flow, now);
                }
            }
            Event::Routed(Ok(())) => {
                for at in 0..self.flows.len() {
                    self.schedule(at, now);
                }
            }
            Event::Routed(Err(error)) => {
                warn!(link = %self.session.spec.name, "cannot learn the partitions' leaders: {error}");
            }
        }
    }

    fn put_off(
        &mut self,
        waiting: &[usize],
        pick: impl for<'r> Fn(&'r mut Running) -> (&'r mut bool, &'r mut Instant),
        now: Instant,
    ) {
        for &at in waiting {
            if let Some(running) = self.flows[at].running() {
                let (queued, when) = pick(running);
                *queued = false;
                *when = now + limits::ROUTES_MIN_AGE * 2;
            }
        }
    }

    fn drained(&mut self) -> bool {
        !self.syncing
            && self.flows.iter_mut().all(|flow| flow.running().is_none_or(|running| running.writer.in_flight() == 0))
    }

    /// The last syncs, then the closed lease: the next session goes on without a fence. A flow in doubt gets
    /// no clean sync.
    async fn close(mut self, late: bool, renewal: bool) -> Ended {
        let session = self.session.clone();
        let now = session.rt.now();
        let mut records = Vec::new();
        for flow in &mut self.flows {
            let spec = flow.spec.clone();
            let Some(running) = flow.running() else { continue };
            running.writer.advance_ledger(&mut running.ledger, now);
            if running.writer.in_flight() > 0 || running.writer.settling() {
                continue;
            }
            let identity = running.writer.identity();
            let sync = sync_record(&session, &spec, SyncKind::CleanStop, &running.ledger, identity, running.ids);
            records.push(sync.to_record(session.rt.wall_ms()));
        }
        if late {
            warn!(link = %session.spec.name, "not everything in flight was answered in time; the next start reads the target to be sure");
        }
        self.jobs.shutdown().await;
        let written = async {
            for chunk in records.chunks(limits::SYNCS_PER_BATCH) {
                session.syncs.append(&session.spec.name, chunk.to_vec()).await?;
            }
            session.close().await
        };
        tokio::select! {
            biased;
            result = written => if let Err(error) = result {
                warn!(link = %session.spec.name, "the last positions could not be written, the next start reads the target instead: {error}");
            },
            () = session.rt.sleep(Duration::from_millis(1_500)) => {
                warn!(link = %session.spec.name, "the last positions could not be written in time, the next start reads the target instead");
            }
        }
        if renewal { Ended::Renewed } else { Ended::Stopped }
    }
}
