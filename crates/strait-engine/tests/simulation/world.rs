//! The world of one history: two clusters, the mirror's processes, the source's traffic, and the script that moves them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strait_engine::{FlowSpec, Link, LinkHandle, LinkSpec, SessionError};
use strait_net::Runtime;
use strait_testkit::fault::RuleId;
use strait_testkit::{Broker, BrokerConfig};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle};

use crate::checker::{Checker, Invariant, Violation};
use crate::journal::Journal;
use crate::mirror;
use crate::network::{Network, Side, Weather};
use crate::script::{Kind, Script, What, start};
use crate::traffic::Traffic;

/// The longest time, once all is calm, until everything is mirrored and synced: leases, backoffs of 30 s, timeouts.
const DRAIN: Duration = Duration::from_secs(150);
/// How long a clean stop may take.
const STOP: Duration = Duration::from_secs(12);

/// What became of a history.
pub(crate) struct Outcome {
    pub(crate) violations: Vec<Violation>,
    pub(crate) hash: u64,
    pub(crate) journal: Vec<String>,
    pub(crate) records: u64,
    pub(crate) sessions: u64,
    pub(crate) syncs: u64,
    pub(crate) virtual_ms: u64,
}

/// One running process.
struct Process {
    name: &'static str,
    network: Network,
    handle: LinkHandle,
    task: JoinHandle<Result<(), SessionError>>,
}

struct World {
    script: Script,
    journal: Journal,
    source: Broker,
    target: Broker,
    weather: Arc<Weather>,
    alarm: Arc<Notify>,
    rng: fastrand::Rng,
    start_ms: i64,
    timeline: BTreeMap<(u64, u64), What>,
    added: u64,
    first: Option<Process>,
    second: Option<Process>,
    rules: Vec<(Side, RuleId)>,
    sessions: u64,
    calm: bool,
}

/// The history's traffic and what the checker saw, for the tasks that write and watch.
type Shared = Arc<Mutex<(Traffic, Checker)>>;

/// Lives through the history of `script`. Call it on a paused current-thread runtime.
pub(crate) async fn live(script: Script, journal: Journal) -> Outcome {
    let clusters = clusters(&script);
    let (source, target) = clusters.clone();
    let mut rng = fastrand::Rng::with_seed(script.seed ^ 0x5eed);
    let mut traffic = Traffic::new(&source, &script.topics, rng.u64(..));
    for _ in 0..script.preload {
        traffic.write();
    }
    let syncs_topic = "mm2-offset-syncs.source.internal".to_owned();
    let checker = Checker::new(clusters, &script.topics, syncs_topic);
    let shared: Shared = Arc::new(Mutex::new((traffic, checker)));
    let watcher = tokio::spawn(watch(target.clone(), shared.clone()));
    let load = tokio::spawn(load(script.clone(), shared.clone(), rng.u64(..)));
    let mut world = World {
        start_ms: source.now_ms(),
        journal: journal.clone(),
        source,
        target,
        weather: Arc::default(),
        alarm: Arc::default(),
        rng,
        timeline: BTreeMap::new(),
        added: 0,
        first: None,
        second: None,
        rules: Vec::new(),
        sessions: 0,
        calm: false,
        script,
    };
    for step in world.script.steps.clone() {
        world.plan(step.at_ms, step.what);
    }
    world.run_until(world.script.calm_at_ms).await;
    let _ = load.await;
    world.heal();
    shared.lock().unwrap().0.finish();
    let mut trouble = world.drain(&shared).await;
    watcher.abort();
    let mut shared = shared.lock().unwrap();
    let (traffic, checker) = &mut *shared;
    checker.look(traffic);
    let incomplete = if checker.violations.is_empty() {
        checker.missing(traffic)
    } else {
        BTreeMap::new()
    };
    for what in incomplete.into_values() {
        checker.violations.push(Violation {
            invariant: Invariant::Complete,
            what,
        });
    }
    trouble.append(&mut checker.violations);
    for topic in &world.script.topics {
        for partition in 0..topic.partitions {
            for batch in world.target.read_log(&topic.name, partition) {
                journal.mix(&batch.bytes);
            }
        }
    }
    for cluster in [&world.source, &world.target] {
        for seen in cluster.requests() {
            journal.mix(format!("{seen:?}").as_bytes());
        }
    }
    Outcome {
        hash: journal.hash(),
        journal: journal.lines(),
        records: traffic.truth.values().map(|w| w.fates.len() as u64).sum(),
        sessions: world.sessions,
        syncs: checker.syncs,
        virtual_ms: journal.now_ms(),
        violations: trouble,
    }
}

fn clusters(script: &Script) -> (Broker, Broker) {
    let source = Broker::new(BrokerConfig {
        nodes: script.nodes,
        seed: script.seed,
        first_producer_id: 9_000,
        ..BrokerConfig::simulated("source")
    });
    let target = Broker::new(BrokerConfig {
        nodes: script.nodes,
        seed: script.seed,
        producer_id_expiration_ms: script.expiration_ms,
        producer_expiry_check_ms: 2_000,
        ..BrokerConfig::simulated("target")
    });
    for topic in &script.topics {
        let policy = if topic.kind == Kind::Compacted {
            "compact"
        } else {
            "delete"
        };
        let replicas = i16::try_from(script.nodes).unwrap();
        let configs = [("cleanup.policy", policy), ("retention.ms", "-1")];
        source
            .create_replicated(&topic.name, topic.partitions, replicas, &configs)
            .unwrap();
        let configs = [("retention.ms", "-1")];
        target
            .create_replicated(&topic.name, topic.partitions, replicas, &configs)
            .unwrap();
    }
    (source, target)
}

/// Looks at the target whenever it has changed.
async fn watch(target: Broker, shared: Shared) {
    let mut changes = target.changes();
    loop {
        changes.changed().await;
        let mut shared = shared.lock().unwrap();
        let (traffic, checker) = &mut *shared;
        checker.look(traffic);
    }
}

/// Writes until all is to be calm.
async fn load(script: Script, shared: Shared, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let end = tokio::time::Instant::now() + Duration::from_millis(script.calm_at_ms);
    while tokio::time::Instant::now() < end {
        shared.lock().unwrap().0.write();
        let pause = rng.u64(1..=script.pause_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

impl World {
    fn now(&self) -> u64 {
        self.journal.now_ms()
    }

    fn plan(&mut self, at_ms: u64, what: What) {
        self.added += 1;
        self.timeline.insert((at_ms, self.added), what);
    }

    fn broker(&self, side: Side) -> &Broker {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// Follows the timeline, and starts the mirror again when it ends by itself.
    async fn run_until(&mut self, end_ms: u64) {
        while self.now() < end_ms {
            let next = self.timeline.keys().next().map_or(end_ms, |(at, _)| *at);
            let wait = next.min(end_ms).saturating_sub(self.now());
            let ended = async {
                match &mut self.first {
                    Some(process) => (&mut process.task).await,
                    None => std::future::pending().await,
                }
            };
            let alarm = Arc::clone(&self.alarm);
            tokio::select! {
                biased;
                result = ended => self.ended(result),
                () = alarm.notified() => self.crash(Some(0), 500),
                () = tokio::time::sleep(Duration::from_millis(wait)) => {
                    if let Some(entry) = self.timeline.first_entry()
                        && entry.key().0 <= self.journal.now_ms()
                    {
                        let what = entry.remove();
                        self.perform(what);
                    }
                }
            }
        }
    }

    fn ended(&mut self, how: Result<Result<(), SessionError>, JoinError>) {
        self.journal.note(&format!("first ended: {}", words(how)));
        self.first = None;
        let again = self.now() + self.rng.u64(200..2_000);
        let what = start(&mut self.rng);
        self.plan(again, what);
    }

    fn crash(&mut self, linger: Option<u64>, down_ms: u64) {
        if let Some(process) = self.first.take() {
            self.journal.note("first dies");
            process.kill(linger);
            let what = start(&mut self.rng);
            self.plan(self.now() + down_ms, what);
        }
    }

    fn perform(&mut self, what: What) {
        self.journal.note(&format!("script: {what:?}"));
        let now = self.now();
        match what {
            What::Crash { linger, down_ms } => self.crash(linger, down_ms),
            What::Start { dies_after } => {
                if self.first.is_none() {
                    let process = self.spawn("first");
                    if let Some(pieces) = dies_after.filter(|_| !self.calm) {
                        process.network.alarm_after(pieces);
                    }
                    self.first = Some(process);
                }
            }
            What::Stop => {
                // It ends by itself, and that starts it again.
                if let Some(process) = &self.first {
                    let handle = process.handle.clone();
                    tokio::spawn(async move { handle.stop().await });
                }
            }
            What::Second { for_ms } => {
                if self.second.is_none() {
                    self.second = Some(self.spawn("second"));
                    self.plan(now + for_ms, What::SecondEnds);
                }
            }
            What::SecondEnds => {
                if let Some(mut process) = self.second.take() {
                    let how = poll_once(&mut process.task);
                    if let Poll::Ready(how) = how {
                        self.journal.note(&format!("second ended: {}", words(how)));
                    }
                    process.kill(Some(self.rng.u64(0..100)));
                }
            }
            What::Compact(topic) => self.source.compact(&topic),
            What::Restart(side) => self.broker(side).restart(),
            What::Elect(side, at, node) => self.broker(side).elect(&at.0, at.1, node),
            What::Cut(side) => {
                for node in self.broker(side).nodes() {
                    node.cut_connections();
                }
            }
            What::Stall(side, for_ms) => self.weather.stall(side, now + for_ms),
            What::Leaderless(side, at, for_ms) => {
                let leader = self.broker(side).leader(&at.0, at.1).0.unwrap_or(1);
                self.broker(side).set_leaderless(&at.0, at.1);
                self.plan(now + for_ms, What::HasLeader(side, at, leader));
            }
            What::HasLeader(side, at, node) => self.broker(side).elect(&at.0, at.1, node),
            What::UnderMinIsr(at, for_ms) => {
                self.target.set_under_min_isr(&at.0, at.1, true);
                self.plan(now + for_ms, What::InSync(at));
            }
            What::InSync(at) => self.target.set_under_min_isr(&at.0, at.1, false),
            What::Hold(at, for_ms) => {
                let watermark = self.target.high_watermark(&at.0, at.1);
                self.target
                    .hold_high_watermark(&at.0, at.1, Some(watermark));
                self.plan(now + for_ms, What::Release(at));
            }
            What::Release(at) => self.target.hold_high_watermark(&at.0, at.1, None),
            What::Expire => self.target.expire_producers(),
            What::Forget => self.target.forget_transactional_ids(),
            What::Fault(side, rule, for_ms) => {
                let id = self.broker(side).faults().add(rule);
                self.rules.push((side, id));
                self.plan(now + for_ms, What::FaultEnds(side, self.rules.len() - 1));
            }
            What::FaultEnds(side, index) => {
                self.broker(side).faults().remove(self.rules[index].1);
            }
        }
    }

    /// Ends everything that is wrong.
    fn heal(&mut self) {
        self.journal.note("all is calm");
        self.calm = true;
        let now = self.now();
        let pending: Vec<What> = std::mem::take(&mut self.timeline).into_values().collect();
        for what in pending {
            match what {
                What::HasLeader(..)
                | What::InSync(_)
                | What::Release(_)
                | What::FaultEnds(..)
                | What::SecondEnds => self.perform(what),
                _ => {}
            }
        }
        for side in [Side::Source, Side::Target] {
            self.broker(side).faults().clear();
        }
        match &self.first {
            None => self.plan(now, What::Start { dies_after: None }),
            Some(process) => {
                process.network.calm();
                process.network.alarm_after(u64::MAX);
            }
        }
    }

    /// Waits until the mirror has caught up, then stops it and lets a last session show that the stop was clean.
    async fn drain(&mut self, shared: &Shared) -> Vec<Violation> {
        let stuck = |what: String| {
            vec![Violation {
                invariant: Invariant::Drains,
                what,
            }]
        };
        let deadline = self.now() + DRAIN.as_millis() as u64;
        loop {
            self.run_until(self.now() + 200).await;
            let behind = {
                let shared = shared.lock().unwrap();
                let mut behind = shared.1.unsynced();
                behind.extend(shared.1.missing(&shared.0));
                behind
            };
            let opened = self.first.as_ref().is_some_and(|process| {
                let status = process.handle.status().borrow().clone();
                status.open && status.opening == 0
            });
            if behind.is_empty() && opened {
                break;
            }
            if !shared.lock().unwrap().1.violations.is_empty() {
                return Vec::new();
            }
            if self.now() >= deadline {
                let status = self
                    .first
                    .as_ref()
                    .map(|p| p.handle.status().borrow().clone());
                return stuck(format!(
                    "after {DRAIN:?}: {behind:?}; the mirror says {status:?}"
                ));
            }
        }
        let Some(process) = self.first.take() else {
            return stuck("the mirror ended by itself at the end".to_owned());
        };
        process.handle.stop().await;
        match tokio::time::timeout(STOP, process.task).await {
            Ok(Ok(Ok(()))) => {}
            other => return stuck(format!("the last stop: {other:?}")),
        }
        let mut shared = shared.lock().unwrap();
        let (traffic, checker) = &mut *shared;
        checker.look(traffic);
        let unclean: Vec<String> = checker
            .last_syncs
            .values()
            // A flow that had nothing to forward all session long was never fenced: its last sync stands.
            .filter(|s| {
                let end = self.source.last_stable_offset(&s.topic, s.partition);
                s.kind != 3 && s.source_next != end
            })
            .map(|s| format!("{}-{}", s.topic, s.partition))
            .collect();
        if unclean.is_empty() {
            Vec::new()
        } else {
            stuck(format!(
                "stopped cleanly, but the last syncs of {unclean:?} are not of that kind"
            ))
        }
    }

    fn spawn(&mut self, name: &'static str) -> Process {
        self.journal.note(&format!("{name} starts"));
        self.sessions += 1;
        let alarm = if name == "first" {
            Arc::clone(&self.alarm)
        } else {
            Arc::default()
        };
        let mut climate = self.script.climate.clone();
        if self.calm {
            climate.stall_one_in = 0;
        }
        let network = Network::new(
            (self.source.clone(), self.target.clone()),
            Arc::clone(&self.weather),
            climate,
            self.rng.u64(..),
            self.start_ms,
            alarm,
        );
        let rt = Runtime::simulated(Arc::new(network.clone()), self.rng.u64(..));
        let spec = LinkSpec {
            memory_budget: self.script.memory_budget,
            request_timeout: self.script.request_timeout,
            ..mirror::link(&rt, &self.source, &self.target, name)
        };
        let flows = self.flows();
        let (link, handle) = Link::new(rt.clone(), spec);
        let task = tokio::spawn(link.run());
        let steering = handle.clone();
        tokio::spawn(async move { steering.set_flows(flows).await });
        Process {
            name,
            network,
            handle,
            task,
        }
    }

    fn flows(&self) -> Vec<FlowSpec> {
        let topics = self.script.topics.iter();
        topics
            .flat_map(|topic| {
                (0..topic.partitions).map(|partition| FlowSpec {
                    compacted: topic.kind == Kind::Compacted,
                    target_compacted: topic.kind == Kind::Compacted,
                    min_insync: usize::try_from(self.script.nodes).unwrap(),
                    ..mirror::flow(&topic.name, partition)
                })
            })
            .collect()
    }
}

impl Process {
    /// All its tasks are gone at once.
    fn kill(self, linger: Option<u64>) {
        self.network.cut(linger);
        self.task.abort();
        let _ = self.name;
    }
}

fn words(how: Result<Result<(), SessionError>, JoinError>) -> String {
    match how {
        Ok(Ok(())) => "stopped".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
