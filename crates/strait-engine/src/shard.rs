//! A shard at work: one task that owns all flows of a session, asks for records, sends them on, and keeps
//! the account. It never waits for one flow while another could move.

mod asked;
mod health;
mod open_transactions;
mod selection;
mod source;
mod target;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use strait_net::{Connection, NetError, Pool, ProducerState};
use strait_wire::{RegistryRecord, SyncKind, SyncRecord};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::error::FlowError;
use crate::flow::{Fence, Flow, Legacy, Phase};
use crate::gap_counts::GapCounts;
use crate::limits;
use crate::open::{Opened, sync_record};
use crate::routes::{Lookup, Routes};
use crate::session::Session;
use crate::session::error::SessionError;
use crate::spec::{FlowKey, FlowSpec};
use crate::stable_offset::Held;
use crate::status::LinkStatus;
use crate::transfer::{Channel, FetchAnswer, Lane, Pace, Part, ProduceAnswer, Way, lanes};
use health::{CLUSTER, Ill, Side, Sums};

/// How often time-driven work is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What a running link can be told.
#[derive(Debug)]
pub(crate) enum Command {
    Flows(Vec<FlowSpec>),
    /// Records for the registry, by whoever owns the link.
    Keep(Vec<RegistryRecord>),
    Stop,
}

/// How a shard's run ended.
pub(crate) enum Ended {
    Stopped,
    /// The session was closed to begin a new one (the transactional id must not expire).
    Renewed,
    Lost(SessionError),
}

enum Event {
    Opened {
        flow: usize,
        generation: u64,
        fence: Fence,
        last: Option<SyncRecord>,
        result: Box<Result<Opened, FlowError>>,
    },
    LaneOpen {
        lane: Lane,
        result: Result<Connection, NetError>,
    },
    Fetched {
        lane: Lane,
        sent: Instant,
        reserved: u64,
        parts: Vec<Part>,
        result: Result<FetchAnswer, FlowError>,
    },
    ChannelOpen {
        channel: Channel,
        result: Result<Connection, NetError>,
    },
    Produced {
        channel: Channel,
        answer: ProduceAnswer,
    },
    Synced {
        flows: Vec<(usize, u64, SyncRecord, u64)>,
        result: Result<(), SessionError>,
    },
    /// Where the source's log begins and ends, for a flow whose head lies outside.
    Bounds {
        flow: usize,
        generation: u64,
        result: Result<(i64, i64), FlowError>,
    },
    EpochChecked {
        flow: usize,
        generation: u64,
        found: i32,
        result: Result<(i32, i64, bool), FlowError>,
    },
    /// Whether a link wrote what stands at a flow's head.
    OriginFound {
        flow: usize,
        generation: u64,
        result: Result<(), FlowError>,
    },
    /// Who writes to a flow's source partition, asked because its last stable offset stands still.
    Producers {
        flow: usize,
        held: Held,
        result: Result<Vec<ProducerState>, NetError>,
    },
    Routed {
        side: Side,
        result: Result<(), NetError>,
    },
    /// What was to be kept in the registry is there, or the session has ended.
    Kept,
}

pub(crate) struct Shard<'a> {
    session: Arc<Session>,
    status: &'a watch::Sender<LinkStatus>,
    gap_counts: &'a mut GapCounts,
    flows: Vec<Flow>,
    index: BTreeMap<FlowKey, usize>,
    /// Places in `flows` whose flow is gone, for the next ones.
    vacant: Vec<usize>,
    /// What is left of flows that are gone.
    legacies: BTreeMap<FlowKey, Legacy>,
    jobs: JoinSet<Event>,
    lanes: BTreeMap<Lane, Way>,
    channels: BTreeMap<Channel, Way>,
    /// Flows that wait for their turn, by broker and pace.
    fetch_queues: BTreeMap<(i32, Pace), VecDeque<usize>>,
    /// Flows with something to send, by channel.
    produce_queues: BTreeMap<Channel, VecDeque<usize>>,
    /// The fastest answer of each source broker.
    round_trips: BTreeMap<i32, Duration>,
    /// When a flow has to be looked at again before the next tick.
    timers: BTreeSet<(Instant, usize)>,
    next_range: u64,
    turn: usize,
    /// Where the last tick began.
    first_flow: usize,
    opening: usize,
    /// Where answers are read into; knows what they hold.
    pool: Pool,
    /// When the pool gives back what it has not needed.
    settle_at: Instant,
    /// Bytes that outstanding fetches may bring.
    reserved: u64,
    /// A fetch had to wait for memory.
    tight: bool,
    sums: Sums,
    syncing: bool,
    /// Flows whose position is to be written again.
    displaced: BTreeSet<FlowKey>,
    /// Whether that was said of one that is selected (true), and of one that is not.
    displaced_said: BTreeSet<bool>,
    routing: BTreeSet<Side>,
    /// Brokers that cannot be used at the moment, with the cause.
    ills: BTreeMap<(Side, i32), Ill>,
    /// When flows were last woken because a broker answered again.
    woken: BTreeMap<(Side, i32), Instant>,
    /// When it was last said of a broker that it throttles.
    throttles: BTreeMap<(Side, i32), Instant>,
    stopping: Option<(Instant, bool)>,
    lost: Option<SessionError>,
}

impl<'a> Shard<'a> {
    pub(crate) fn new(
        session: Arc<Session>,
        flows: Vec<FlowSpec>,
        status: &'a watch::Sender<LinkStatus>,
        gap_counts: &'a mut GapCounts,
    ) -> Self {
        let sums = Sums::new(&session.spec.name, &status.borrow());
        let settle_at = session.rt.now() + limits::IDLE_BUFFERS_FOR;
        let pool = session.pool.clone();
        let mut shard = Self {
            session,
            status,
            gap_counts,
            flows: Vec::new(),
            index: BTreeMap::new(),
            vacant: Vec::new(),
            legacies: BTreeMap::new(),
            jobs: JoinSet::new(),
            lanes: BTreeMap::new(),
            channels: BTreeMap::new(),
            fetch_queues: BTreeMap::new(),
            produce_queues: BTreeMap::new(),
            round_trips: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_range: 0,
            turn: 0,
            first_flow: 0,
            opening: 0,
            pool,
            settle_at,
            reserved: 0,
            tight: false,
            sums,
            syncing: false,
            displaced: BTreeSet::new(),
            displaced_said: BTreeSet::new(),
            routing: BTreeSet::new(),
            ills: BTreeMap::new(),
            woken: BTreeMap::new(),
            throttles: BTreeMap::new(),
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
                    self.stopping = Some((now + session.spec.drain, true));
                }
            }
            while let Some(&(due, at)) = self.timers.first()
                && due <= now
            {
                self.timers.pop_first();
                self.schedule(at, now);
            }
            self.dispatch(now);
            if let Some(error) = self.lost.take() {
                session.lease.revoke();
                // A stop that was asked for stands, however the session ends.
                return match self.stopping {
                    Some((_, false)) => {
                        warn!(link = %session.spec.name, id = "stop-unclean", "stopping without the last positions, the next start reads the target instead: {error}");
                        Ended::Stopped
                    }
                    _ => Ended::Lost(error),
                };
            }
            if let Some((deadline, renewal)) = self.stopping
                && (now >= deadline || self.drained())
            {
                return self.close(now >= deadline, renewal).await;
            }
            let wake = self.timers.first().map_or(tick, |(due, _)| tick.min(*due));
            tokio::select! {
                biased;
                Some(event) = self.jobs.join_next() => {
                    self.take(event);
                    for _ in 0..256 {
                        let Some(event) = self.jobs.try_join_next() else { break };
                        self.take(event);
                    }
                }
                command = commands.recv(), if !matches!(self.stopping, Some((_, false))) => match command {
                    Some(Command::Flows(new)) => {
                        *flows = new.iter().map(|f| (f.key.clone(), f.clone())).collect();
                        self.select(new);
                        LinkStatus::select(self.status);
                    }
                    Some(Command::Keep(records)) => self.keep(&records),
                    Some(Command::Stop) | None => {
                        info!(link = %session.spec.name, "stopping: waiting for what is in flight");
                        self.stopping = Some((session.rt.now() + session.spec.drain, false));
                    }
                },
                error = &mut ended => {
                    self.lost.get_or_insert(error);
                }
                () = session.rt.sleep_until(wake) => {}
            }
        }
    }

    /// Whatever keeps the records from being written ends the session too.
    fn keep(&mut self, records: &[RegistryRecord]) {
        let session = self.session.clone();
        let now_ms = session.rt.wall_ms();
        let records = records.iter().map(|r| r.to_record(now_ms)).collect();
        self.jobs.spawn(async move {
            let _ = session.strait.append(&session.spec.name, records).await;
            Event::Kept
        });
    }

    fn tick(&mut self, now: Instant) {
        for (side, routes) in [
            (Side::Source, self.session.source.clone()),
            (Side::Target, self.session.target.clone()),
        ] {
            if routes.due() && self.routing.insert(side) {
                self.jobs.spawn(async move {
                    let result = routes.refresh().await;
                    Event::Routed { side, result }
                });
            }
        }
        self.watch_leaders();
        self.watch_open_transactions(now);
        // Nobody is always the first to be opened.
        let flows = self.flows.len();
        self.first_flow = (self.first_flow + limits::OPENING_FLOWS / 2) % flows.max(1);
        for at in (self.first_flow..flows).chain(0..self.first_flow) {
            self.settle(at, now);
            self.schedule(at, now);
        }
        self.leave(now);
        self.revive(now);
        // What positions are found in is taken without asking.
        let over = self.pool.held() as u64 > self.session.spec.memory_budget;
        if std::mem::take(&mut self.tight) || over {
            self.make_room(now);
        }
        if now >= self.settle_at {
            self.settle_at = now + limits::IDLE_BUFFERS_FOR;
            self.pool.settle();
        }
        self.watch_displaced(now);
        self.write_syncs(now);
        self.publish();
    }

    /// Puts the flow into the queues it has a reason to be in.
    pub(super) fn schedule(&mut self, at: usize, now: Instant) {
        let stopping = self.stopping.is_some();
        if let Phase::Waiting(until) = self.flows[at].phase
            && !stopping
            && !self.flows[at].removing
            && now >= until
            && self.opening < self.opening_at_once(at)
        {
            return self.open(at);
        }
        let flow = &mut self.flows[at];
        let Phase::Running(running) = &mut flow.phase else {
            return;
        };
        let partition = flow.spec.key.partition;
        let source = leader(
            &self.session.source,
            &flow.spec.key.topic,
            partition,
            running.ids.0,
        );
        let target = leader(
            &self.session.target,
            &flow.spec.target_topic,
            partition,
            running.ids.1,
        );
        let (source, target) = match (source, target) {
            (Ok(source), Ok(target)) => (source, target),
            (Err(why), _) => {
                let (topic, cluster) = (&flow.spec.key.topic, self.session.spec.source.alias());
                running.reopen.get_or_insert_with(|| {
                    format!("its source topic {topic} {why} on cluster {cluster}")
                });
                return;
            }
            (_, Err(why)) => {
                running
                    .reopen
                    .get_or_insert_with(|| format!("the topic {why}"));
                return;
            }
        };
        let leaving = stopping || flow.removing || running.closing();
        let room = running.writer.bytes() < limits::FLOW_BYTES
            && running.ledger.unsynced_bytes() < limits::UNSYNCED_MAX
            && !running.writer.settling()
            && !running.writer.barred();
        let channel = target.map(|broker| (broker, channel(at)));
        let stalled = channel
            .and_then(|channel| self.channels.get(&channel))
            .is_some_and(|way| way.stalled(now));
        if let Some(broker) = source
            && !leaving
            && room
            && !stalled
            && !running.checking
            && !running.in_lane
            && now >= running.fetch_at
        {
            let (head, end) = (running.stitch.head(), running.source_end);
            let round_trip = self.round_trips.get(&broker).copied().unwrap_or_default();
            if running.ranges.wants(
                head,
                end,
                ranges_at_once(round_trip, self.session.spec.lanes),
            ) {
                running.in_lane = true;
                let pace = if running.caught_up {
                    Pace::Tail
                } else {
                    Pace::Bulk
                };
                let queue = self.fetch_queues.entry((broker, pace)).or_default();
                queue.push_back(at);
            }
        }
        if !leaving {
            let waits = [
                (running.fetch_at, room && !stalled && !running.checking),
                (running.send_at, running.writer.ready()),
            ];
            for (due, wanted) in waits {
                if wanted && due > now {
                    self.timers.insert((due, at));
                }
            }
        }
        if let Some(channel) = channel
            && !stopping
            && !running.closing()
            && running.writer.ready()
            && !running.in_channel
            && now >= running.send_at
        {
            running.in_channel = true;
            let queue = self.produce_queues.entry(channel).or_default();
            queue.push_back(at);
        }
    }

    fn dispatch(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        // Nobody is always the first when memory is short.
        let mut fetches = waiting(&self.fetch_queues);
        if !fetches.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % fetches.len();
            fetches.rotate_left(first);
        }
        for (broker, pace) in fetches {
            self.dispatch_fetches(broker, pace, now);
        }
        for channel in waiting(&self.produce_queues) {
            self.dispatch_batches(channel, now);
        }
    }

    /// Memory is short: ranges that lie ahead are dropped, the farthest first, then what was queued for brokers that
    /// do not take it. All of it can be fetched again; what is in flight has to stay.
    fn make_room(&mut self, now: Instant) {
        let enough = self.session.spec.memory_budget / 4 * 3;
        let full = |shard: &Self| shard.pool.held() as u64 + shard.reserved > enough;
        self.pool.trim();
        debug!(link = %self.session.spec.name, held = self.pool.held(), reserved = self.reserved, "memory is short");
        let mut dropped = true;
        while full(self) && std::mem::take(&mut dropped) {
            for flow in &mut self.flows {
                if let Some(running) = flow.running() {
                    let head = running.stitch.head();
                    dropped |= running.ranges.shed(head);
                }
            }
        }
        for at in 0..self.flows.len() {
            if !full(self) {
                return;
            }
            let stuck = self.stuck(at, now);
            // While an epoch is asked for, the head has to stay where it is.
            if let Some(running) = self.flows[at].running()
                && stuck
                && !running.checking
            {
                running.unqueue();
                running.fetch_at = now + limits::BACKOFF_MAX / 6;
            }
        }
    }

    /// Whether what the flow has queued cannot be sent for a while.
    fn stuck(&mut self, at: usize, now: Instant) -> bool {
        let flow = &mut self.flows[at];
        let (topic, partition) = (flow.spec.target_topic.clone(), flow.spec.key.partition);
        let held_back = flow.running().is_some_and(|running| {
            running.send_at > now + limits::STALL || running.writer.barred()
        });
        let stalled = match self.session.target.lookup(&topic, partition) {
            Lookup::Leader(route) => self
                .channels
                .get(&(route.broker, channel(at)))
                .is_none_or(|way| way.connection.is_none() || way.stalled(now)),
            _ => true,
        };
        held_back || stalled
    }

    fn take(&mut self, event: Result<Event, tokio::task::JoinError>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.lost
                    .get_or_insert(SessionError::Lost(format!("a task failed: {error}")));
                return;
            }
        };
        let now = self.session.rt.now();
        match event {
            Event::Opened {
                flow,
                generation,
                fence,
                last,
                result,
            } => {
                self.opening -= 1;
                if self.flows[flow].generation == generation {
                    self.flows[flow].fence = fence;
                    self.flows[flow].last = last;
                    self.opened(flow, *result);
                }
            }
            Event::LaneOpen { lane, result } => self.lane_open(lane, result),
            Event::Fetched {
                lane,
                sent,
                reserved,
                parts,
                result,
            } => self.fetched(lane, sent, reserved, parts, result),
            Event::ChannelOpen { channel, result } => self.channel_open(channel, result),
            Event::Produced { channel, answer } => self.produced(channel, answer),
            Event::Synced { flows, result } => self.synced(flows, result),
            Event::Bounds {
                flow,
                generation,
                result,
            } => {
                if self.flows[flow].generation == generation {
                    self.bounds(flow, result);
                    self.schedule(flow, now);
                }
            }
            Event::EpochChecked {
                flow,
                generation,
                found,
                result,
            } => {
                if self.flows[flow].generation == generation {
                    self.epoch_checked(flow, found, result);
                    self.schedule(flow, now);
                }
            }
            Event::OriginFound {
                flow,
                generation,
                result,
            } => {
                if self.flows[flow].generation == generation {
                    self.origin_found(flow, result);
                    self.schedule(flow, now);
                }
            }
            Event::Kept => {}
            Event::Producers { flow, held, result } => self.producers(flow, held, result),
            Event::Routed { side, result } => {
                self.routing.remove(&side);
                match result {
                    Ok(()) => {
                        self.well(side, CLUSTER);
                        for at in 0..self.flows.len() {
                            self.schedule(at, now);
                        }
                    }
                    Err(error) => self.ill(side, CLUSTER, error.to_string()),
                }
            }
        }
    }

    fn drained(&mut self) -> bool {
        !self.syncing
            && self.flows.iter_mut().all(|flow| {
                flow.running()
                    .is_none_or(|running| running.writer.in_flight() == 0)
            })
    }

    /// The last syncs, then the closed lease: the next session goes on without a fence. A flow in doubt gets
    /// no clean sync.
    async fn close(mut self, late: bool, renewal: bool) -> Ended {
        let session = self.session.clone();
        let now = session.rt.now();
        self.publish();
        let mut records = Vec::new();
        for flow in &mut self.flows {
            let spec = flow.spec.clone();
            let Some(running) = flow.running() else {
                continue;
            };
            running.writer.advance_ledger(&mut running.ledger, now);
            if running.idle || running.writer.in_flight() > 0 || running.writer.settling() {
                continue;
            }
            let identity = running.writer.identity();
            let sync = sync_record(
                &session,
                &spec,
                SyncKind::CleanStop,
                &running.ledger,
                identity,
                running.ids,
            );
            records.push(sync.to_record(session.rt.wall_ms()));
        }
        if late {
            warn!(link = %session.spec.name, id = "stop-unclean", "not everything in flight was answered in time; the next start reads the target to be sure");
        }
        self.jobs.shutdown().await;
        let written = async {
            for chunk in records.chunks(limits::SYNCS_PER_BATCH) {
                session
                    .syncs
                    .append(&session.spec.name, chunk.to_vec())
                    .await?;
            }
            session.close().await
        };
        tokio::select! {
            biased;
            result = written => if let Err(error) = result {
                warn!(link = %session.spec.name, id = "stop-unclean", "the last positions could not be written, the next start reads the target instead: {error}");
            },
            () = session.rt.sleep(Duration::from_millis(1_500)) => {
                warn!(link = %session.spec.name, id = "stop-unclean", "the last positions could not be written in time, the next start reads the target instead");
            }
        }
        if renewal {
            Ended::Renewed
        } else {
            Ended::Stopped
        }
    }
}

/// The number of a flow's produce connection.
fn channel(flow: usize) -> u8 {
    (flow % usize::from(limits::CHANNELS_PER_BROKER)) as u8
}

/// The queues with somebody in them.
fn waiting<K: Copy + Ord>(queues: &BTreeMap<K, VecDeque<usize>>) -> Vec<K> {
    let waiting = queues.iter().filter(|(_, queue)| !queue.is_empty());
    waiting.map(|(key, _)| *key).collect()
}

/// How many ranges of one flow may be asked for at once over such a line: one nearby.
fn ranges_at_once(round_trip: Duration, most: u8) -> usize {
    match lanes(round_trip, most) {
        1 => 1,
        lanes => usize::from(lanes) * limits::FETCHES_PER_LANE,
    }
}

/// The broker to turn to, none while there is no leader.
///
/// # Errors
/// The partition is not the one the flow was opened on any more.
fn leader(
    routes: &Routes,
    topic: &str,
    partition: i32,
    known: Uuid,
) -> Result<Option<i32>, &'static str> {
    match routes.lookup(topic, partition) {
        Lookup::Leader(route)
            if !known.is_nil() && !route.topic_id.is_nil() && route.topic_id != known =>
        {
            Err("was re-created")
        }
        Lookup::Missing => Err("or its partition was deleted"),
        Lookup::Leader(route) => Ok(Some(route.broker)),
        Lookup::NoLeader | Lookup::Denied | Lookup::Unknown => Ok(None),
    }
}
