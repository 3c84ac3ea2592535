//! Histories in which a cluster loses what it had, or refuses what it is sent, while the mirror runs, stops and dies.
//!
//! The other histories of this simulation lose nothing, so that each record stands once. Here a record may stand twice where the
//! engine says so, but none is missing, and none is out of its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_engine::{Link, LinkHandle, LinkSpec, Policies, Policy};
use strait_net::Runtime;
use strait_testkit::codec::Codec;
use strait_testkit::fault::ResponseKind;
use strait_testkit::records::{BatchSpec, CONTROL};
use strait_testkit::{Broker, BrokerConfig, Fault, KitRecord, Rewrite, Rule};
use tokio::task::JoinHandle;

use crate::journal::Journal;
use crate::mirror;
use crate::network::{Climate, Network, Weather};
use crate::sync::{EXPIRED, REFUSED, Sync};

/// What goes wrong in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    /// The target's log is cut, again and again.
    TargetLoss,
    /// The source's log is cut, again and again.
    SourceLoss,
    /// The source deletes records, mirrored or not, again and again.
    Retention,
    /// Some records are older than the target admits, and are left out; the largest batch changes.
    Refusals,
    /// The target's log is cut once, and the policy is to stop.
    Stop,
    /// Brokers say that there is something to read, and give nothing of it for a while.
    Silence,
    /// The topic is selected, and not, and again.
    Selection,
}

/// What became of a history.
pub(crate) struct Told {
    pub(crate) journal: Vec<String>,
    /// What was wrong.
    pub(crate) wrong: Vec<String>,
    /// Records that stand twice.
    pub(crate) repeated: usize,
}

const TOPIC: &str = "t";
const DAY_MS: i64 = 86_400_000;
/// Virtual time for the mirror to come to rest.
const REST: Duration = Duration::from_secs(100);

struct Play {
    source: Broker,
    target: Broker,
    journal: Journal,
    rng: fastrand::Rng,
    start_ms: i64,
    policies: Policies,
    serial: i64,
    /// The source offset of each record, by its number.
    offsets: Vec<i64>,
    old: BTreeSet<i64>,
    process: Option<(Network, LinkHandle, JoinHandle<()>)>,
    epochs: i32,
    wrong: Vec<String>,
}

/// Lives through one history. Call it on a paused current-thread runtime.
pub(crate) async fn live(seed: u64, theme: Theme, journal: Journal) -> Told {
    let broker = |name: &str| {
        Broker::new(BrokerConfig {
            nodes: 1,
            seed,
            ..BrokerConfig::simulated(name)
        })
    };
    let (source, target) = (broker("source"), broker("target"));
    for cluster in [&source, &target] {
        let configs = [("retention.ms", "-1")];
        cluster.create_replicated(TOPIC, 1, 1, &configs).unwrap();
    }
    let mut policies = Policies::default();
    match theme {
        Theme::Refusals => {
            policies.refused_record = Policy::GoOn;
            target
                .set_topic_config(TOPIC, "message.timestamp.before.max.ms", "3600000")
                .unwrap();
        }
        Theme::Stop => policies.target_lost = Policy::Stop,
        Theme::TargetLoss
        | Theme::SourceLoss
        | Theme::Retention
        | Theme::Silence
        | Theme::Selection => {}
    }
    let start_ms = source.now_ms();
    let mut play = Play {
        source,
        target,
        journal,
        rng: fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        start_ms,
        policies,
        serial: 0,
        offsets: Vec::new(),
        old: BTreeSet::new(),
        process: None,
        epochs: 10,
        wrong: Vec::new(),
    };
    play.start();
    for _ in 0..play.rng.u32(10..40) {
        for _ in 0..play.rng.u32(1..4) {
            play.write(theme == Theme::Refusals);
            if theme == Theme::Retention && play.rng.u32(0..3) == 0 {
                play.abort();
            }
        }
        play.pass(3_000).await;
        match play.rng.u32(0..6) {
            0 => play.crash(),
            1 => play.stop().await,
            2 | 3 if theme == Theme::TargetLoss => play.cut_target(),
            2 | 3 if theme == Theme::SourceLoss => play.cut_source(),
            2..=4 if theme == Theme::Retention => play.expire().await,
            2 if theme == Theme::Refusals => play.lower_limit(),
            2..=4 if theme == Theme::Selection => play.leave_out().await,
            2 | 3 if theme == Theme::Silence => play.silence().await,
            _ => {}
        }
        if play.rng.bool() {
            play.pass(2_000).await;
        }
        play.start();
    }
    if theme == Theme::Stop {
        return if play.rng.bool() {
            play.stopped().await
        } else {
            play.stopped_behind_the_sync().await
        };
    }
    tokio::time::sleep(REST).await;
    play.stop().await;
    // A last session shows that all is at rest.
    play.start();
    tokio::time::sleep(REST).await;
    play.stop().await;
    play.judge(theme)
}

impl Play {
    async fn pass(&mut self, most_ms: u64) {
        let ms = self.rng.u64(0..most_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Appends a batch to the source; each value is a number of its own.
    fn write(&mut self, some_old: bool) {
        let all_old = some_old && self.rng.u32(0..8) == 0;
        let now = self.source.now_ms();
        let records: Vec<KitRecord> = (0..self.rng.u32(1..12))
            .map(|_| {
                let serial = self.serial;
                self.serial += 1;
                let old = all_old || some_old && self.rng.u32(0..20) == 0;
                if old {
                    self.old.insert(serial);
                }
                let time = if old { now - 10 * DAY_MS } else { now };
                KitRecord::new(time, None, Some(serial.to_string().as_bytes()))
            })
            .collect();
        let codecs = [Codec::None, Codec::Lz4, Codec::Zstd];
        let spec = BatchSpec {
            codec: codecs[self.rng.usize(0..3)],
            ..BatchSpec::default()
        };
        let batch = spec.build(&records).unwrap();
        let base = self.source.append(TOPIC, 0, &batch).unwrap();
        self.offsets.extend((base..).take(records.len()));
    }

    /// Aborted transactions on the source: offsets that are no record to mirror.
    fn abort(&mut self) {
        let mut producer = self.source.transactional_producer("app").unwrap();
        for _ in 0..self.rng.u32(1..6) {
            let record = KitRecord::new(self.source.now_ms(), None, Some(b"aborted"));
            producer.begin();
            producer.send(TOPIC, 0, Codec::None, &[record]).unwrap();
            producer.abort().unwrap();
        }
    }

    /// The source deletes all below an offset, which may lie before what is mirrored, or behind.
    async fn expire(&mut self) {
        if self.rng.bool() {
            // Right behind records that no position speaks of yet.
            self.write(false);
            self.pass(400).await;
            self.crash();
            self.write(false);
        }
        let (start, end) = (
            self.source.log_start(TOPIC, 0),
            self.source.log_end(TOPIC, 0),
        );
        let before = self.rng.i64(start.max(end - 40)..=end);
        self.journal
            .note(&format!("the source deletes all below {before}"));
        self.source.delete_records(TOPIC, 0, before).unwrap();
    }

    /// The end of a log goes back to the end of one of its last batches.
    fn cut(&mut self, broker: &Broker, name: &str) {
        let log = broker.read_log(TOPIC, 0);
        let from = if self.rng.u32(0..4) == 0 {
            0
        } else {
            log.len().saturating_sub(8)
        };
        if log.len() < 2 {
            return;
        }
        let kept = self.rng.usize(from..log.len());
        let to = log[kept].header.base_offset;
        self.epochs += 1;
        self.journal.note(&format!("{name} is cut at {to}"));
        broker.truncate(TOPIC, 0, to, self.epochs);
    }

    /// The target takes smaller batches from now on, or larger ones again; a record alone always fits.
    fn lower_limit(&mut self) {
        let limit = [120, 200, 400, 1_000_000][self.rng.usize(0..4)].to_string();
        self.journal
            .note(&format!("the target takes {limit} bytes"));
        self.target
            .set_topic_config(TOPIC, "max.message.bytes", &limit)
            .unwrap();
    }

    /// A partition whose records nobody gets to read for a while, found at a start behind a crash.
    async fn silence(&mut self) {
        let own = ["mm2-strait.internal", "mm2-offset-syncs.source.internal"];
        let (broker, topic) = match self.rng.u32(0..4) {
            0 => (self.source.clone(), TOPIC),
            1 => (self.target.clone(), TOPIC),
            at => (self.target.clone(), own[at as usize - 2]),
        };
        let fault = if self.rng.bool() {
            Fault::Error(1)
        } else {
            Fault::Answer(Rewrite::new(|answer| {
                if let ResponseKind::Fetch(fetched) = answer {
                    for part in fetched.responses.iter_mut().flat_map(|t| &mut t.partitions) {
                        part.records = None;
                    }
                }
            }))
        };
        if self.rng.bool() {
            // A new epoch proves nothing on the way along the source: the position has to be found by content.
            self.epochs += 1;
            let end = self.source.log_end(TOPIC, 0);
            self.source.truncate(TOPIC, 0, end, self.epochs);
            self.write(false);
            self.pass(600).await;
        }
        self.crash();
        self.journal.note(&format!("{topic}: {fault:?}"));
        let rule = broker.faults().add(Rule::on(1, fault).topic(topic));
        let (from_ms, said) = (broker.now_ms(), self.journal.lines().len());
        self.start();
        tokio::time::sleep(Duration::from_secs(40)).await;
        let asked = broker.requests();
        let asked = asked
            .iter()
            .filter(|r| r.api == 1 && r.at_ms >= from_ms)
            .count();
        if asked > 40 * 60 {
            self.wrong
                .push(format!("{topic} was asked for {asked} times in 40 s"));
        }
        let lines = self.journal.lines();
        if own.contains(&topic)
            && !lines[said..]
                .iter()
                .any(|l| l.contains("nothing could be read of"))
        {
            self.wrong
                .push(format!("nobody said that {topic} cannot be read"));
        }
        broker.faults().remove(rule);
    }

    /// The topic is not selected for a while.
    async fn leave_out(&mut self) {
        let Some((_, handle, _)) = &self.process else {
            return;
        };
        let handle = handle.clone();
        self.journal.note("the topic is left out");
        handle.set_flows(Vec::new()).await;
        self.write(false);
        self.pass(6_000).await;
        self.write(false);
        if self.rng.u32(0..4) == 0 {
            self.crash();
        } else {
            self.journal.note("the topic is selected again");
            handle.set_flows(vec![mirror::flow(TOPIC, 0)]).await;
        }
    }

    fn cut_target(&mut self) {
        self.cut(&self.target.clone(), "the target");
    }

    fn cut_source(&mut self) {
        self.cut(&self.source.clone(), "the source");
    }

    fn start(&mut self) {
        if let Some((.., task)) = &self.process
            && !task.is_finished()
        {
            return;
        }
        let climate = Climate {
            latency_ms: 5,
            stall_one_in: 0,
            stall_ms: 0,
        };
        let network = Network::new(
            (self.source.clone(), self.target.clone()),
            Arc::<Weather>::default(),
            climate,
            self.rng.u64(..),
            self.start_ms,
            Arc::default(),
        );
        let rt = Runtime::simulated(Arc::new(network.clone()), self.rng.u64(..));
        let spec = LinkSpec {
            policies: self.policies,
            ..mirror::link(&rt, &self.source, &self.target, "one")
        };
        let (link, handle) = Link::new(rt, spec);
        let journal = self.journal.clone();
        journal.note("the mirror starts");
        let task = tokio::spawn(async move {
            if let Err(error) = link.run().await {
                journal.note(&format!("the mirror ended: {error}"));
            }
        });
        let steering = handle.clone();
        tokio::spawn(async move { steering.set_flows(vec![mirror::flow(TOPIC, 0)]).await });
        self.process = Some((network, handle, task));
    }

    fn crash(&mut self) {
        if let Some((network, _, task)) = self.process.take() {
            self.journal.note("the mirror dies");
            let linger = self.rng.u64(0..50);
            network.cut(Some(linger));
            task.abort();
        }
    }

    async fn stop(&mut self) {
        if let Some((_, handle, task)) = self.process.take() {
            self.journal.note("the mirror is told to stop");
            handle.stop().await;
            let _ = task.await;
        }
    }

    fn serials(broker: &Broker) -> Vec<i64> {
        let log = broker.read_log(TOPIC, 0);
        log.iter()
            .filter(|batch| !batch.header.has(CONTROL))
            .flat_map(|batch| batch.records().unwrap())
            .map(|r| {
                let value = r.value.as_deref().unwrap();
                std::str::from_utf8(value).unwrap().parse().unwrap()
            })
            .collect()
    }

    /// The target is cut below what was acknowledged: nothing may be appended any more.
    async fn stopped(mut self) -> Told {
        tokio::time::sleep(REST).await;
        self.stop().await;
        let data = self.target.read_log(TOPIC, 0);
        let data: Vec<_> = data.iter().filter(|b| !b.header.has(CONTROL)).collect();
        let mut wrong = Vec::new();
        if let Some(batch) = data.last() {
            self.epochs += 1;
            let to = batch.header.base_offset;
            self.target.truncate(TOPIC, 0, to, self.epochs);
            let before = Self::serials(&self.target);
            self.write(false);
            self.start();
            tokio::time::sleep(REST).await;
            self.write(false);
            tokio::time::sleep(REST).await;
            if Self::serials(&self.target) != before {
                wrong.push("records were appended behind the loss".to_owned());
            }
            let lines = self.journal.lines();
            if !lines.iter().any(|l| l.contains("the target lost data")) {
                wrong.push("nobody said target-lost".to_owned());
            }
            wrong.extend(self.goes_on_when_told().await);
        }
        Told {
            journal: self.journal.lines(),
            wrong,
            repeated: 0,
        }
    }

    /// Another policy, and the flow goes on.
    async fn goes_on_when_told(&mut self) -> Option<String> {
        self.stop().await;
        self.policies.target_lost = Policy::GoOn;
        self.start();
        tokio::time::sleep(REST).await;
        self.stop().await;
        in_place(&Self::serials(&self.target), self.serial)
    }

    /// The target loses what no position speaks of yet: a later process does not mirror it again either.
    async fn stopped_behind_the_sync(mut self) -> Told {
        tokio::time::sleep(REST).await;
        self.write(false);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut wrong = Vec::new();
        wrong.extend(in_place(&Self::serials(&self.target), self.serial));
        let data = self.target.read_log(TOPIC, 0);
        let last = data.iter().rfind(|b| !b.header.has(CONTROL)).unwrap();
        self.epochs += 1;
        let to = last.header.base_offset;
        self.target.truncate(TOPIC, 0, to, self.epochs);
        self.write(false);
        tokio::time::sleep(REST).await;
        let before = Self::serials(&self.target);
        for crash in [true, false] {
            if crash {
                self.crash();
            } else {
                self.stop().await;
            }
            self.start();
            self.write(false);
            tokio::time::sleep(REST).await;
        }
        if Self::serials(&self.target) != before {
            wrong.push("records were appended behind the loss".to_owned());
        }
        let lines = self.journal.lines();
        let start = lines.iter().rposition(|l| l.contains("the mirror starts"));
        if !lines[start.unwrap_or(0)..]
            .iter()
            .any(|l| l.contains("the target lost data"))
        {
            wrong.push("the last process did not say target-lost".to_owned());
        }
        wrong.extend(self.goes_on_when_told().await);
        Told {
            journal: self.journal.lines(),
            wrong,
            repeated: 0,
        }
    }

    fn judge(self, theme: Theme) -> Told {
        let found = Self::serials(&self.target);
        let distinct: BTreeSet<i64> = found.iter().copied().collect();
        let mut wrong = self.wrong.clone();
        match theme {
            Theme::TargetLoss | Theme::Stop => wrong.extend(in_place(&found, self.serial)),
            Theme::Silence | Theme::Selection if found.iter().copied().eq(0..self.serial) => {}
            Theme::Silence | Theme::Selection => wrong.push(format!(
                "{} records are expected, and {} there, {} of them different",
                self.serial,
                found.len(),
                distinct.len()
            )),
            Theme::SourceLoss => {
                let expected = Self::serials(&self.source);
                let left: BTreeSet<i64> = expected.iter().copied().collect();
                let mut of_left = found.clone();
                of_left.retain(|serial| left.contains(serial));
                if of_left != expected {
                    let at = of_left.iter().zip(&expected).position(|(a, b)| a != b);
                    let at = at.unwrap_or(of_left.len().min(expected.len()));
                    wrong.push(format!(
                        "of what the source still has, {} records, the target holds {}; they differ from number {at} on: {:?} instead of {:?}",
                        expected.len(), of_left.len(),
                        of_left.get(at..(at + 5).min(of_left.len())), expected.get(at..(at + 5).min(expected.len()))
                    ));
                }
            }
            Theme::Retention => {
                let missing = (0..self.serial).filter(|serial| !distinct.contains(serial));
                let missing: BTreeSet<i64> = missing.collect();
                if found.len() != distinct.len() || !found.is_sorted() {
                    wrong.push("records stand twice, or out of order".to_owned());
                }
                wrong.extend(self.listed(EXPIRED, &missing));
            }
            Theme::Refusals => {
                let mut expected: Vec<i64> = (0..self.serial).collect();
                expected.retain(|serial| !self.old.contains(serial));
                if found != expected {
                    wrong.push(format!(
                        "{} records are expected and {} there",
                        expected.len(),
                        found.len()
                    ));
                }
                wrong.extend(self.account());
                wrong.extend(self.listed(REFUSED, &self.old));
            }
        }
        wrong.extend(self.syncs().iter().find_map(|sync| {
            let what = sync.disagrees()?;
            Some(format!("{what}: {sync:?}"))
        }));
        Told {
            repeated: found.len() - distinct.len(),
            journal: self.journal.lines(),
            wrong,
        }
    }

    fn syncs(&self) -> Vec<Sync> {
        let syncs = self
            .target
            .records("mm2-offset-syncs.source.internal", 0, true);
        syncs.iter().filter_map(Sync::read).collect()
    }

    /// The last position lists every record that was lost, and none that was not.
    fn listed(&self, reason: u8, lost: &BTreeSet<i64>) -> Option<String> {
        let last = self.syncs().pop()?;
        // What expired before the flow began is none of its losses.
        let first = last.source_next - last.forwarded - last.left_out();
        self.offsets.iter().enumerate().find_map(|(serial, &at)| {
            let what = match lost.contains(&(serial as i64)) {
                true if at >= first && !last.lists(reason, at) => "was lost and is not listed",
                false if last.lists_exactly(at) => "is listed and was not lost",
                _ => return None,
            };
            Some(format!("{serial} at source offset {at} {what}: {last:?}"))
        })
    }

    /// The last position counts every record as forwarded or refused.
    fn account(&self) -> Option<String> {
        let last = self.syncs().pop()?;
        let gaps: BTreeMap<u8, i64> = last.gaps.iter().copied().collect();
        let refused = self.old.len() as i64;
        let expected = (self.serial, self.serial - refused, refused);
        let told = (last.source_next, last.forwarded, gaps.values().sum::<i64>());
        (told != expected)
            .then(|| format!("the last position says {told:?}, not {expected:?}: {last:?}"))
    }
}

/// Numbers from 0 to `end`: none is missing, however often some stand there. Where one is passed over (a target that lost its end
/// may have taken what was on its way) all that was passed over follows.
fn in_place(found: &[i64], end: i64) -> Option<String> {
    let mut last = -1;
    for (at, &serial) in found.iter().enumerate() {
        if serial > last + 1 {
            let behind: BTreeSet<i64> = found[at..].iter().copied().collect();
            let never = (last + 1..serial).find(|passed| !behind.contains(passed));
            if let Some(never) = never {
                return Some(format!(
                    "{serial} follows {last}, number {at} of the target, and {never} never comes"
                ));
            }
        }
        last = serial;
    }
    (last != end - 1).then(|| format!("the last record is {last} instead of {}", end - 1))
}
