//! The play: history is written, the mirror starts, writing goes on, the mirror is killed again and again, and at the
//! end both sides are compared.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use strait_net::Runtime;
use strait_testkit::{Broker, BrokerConfig};
use tokio::time::Instant;

use super::gauge::{Gauge, Reading};
use super::home::{Home, Mirror};
use super::load::{Load, Pace};
use super::screen::{Screen, count, span};
use super::shop::{COMPACTED, Shop, TOPICS};
use super::summary::{Kill, Story, Verdict};
use super::{DemoError, target_name};
use crate::output::complain;

/// A build without optimisation shows the same with less data.
const SCALE: usize = if cfg!(debug_assertions) { 4 } else { 1 };
/// What lies on the source before the mirror starts.
const HISTORY_BATCHES: usize = 2_400 / SCALE;
const HISTORY_LARGEST: usize = 800;
/// What is written while it runs: 9 s at this pace.
const LIVE: Pace = Pace {
    batches: 3_600 / SCALE,
    interval: Duration::from_micros(2_500 * SCALE as u64),
    largest: 500,
};
/// How far apart the records of history are made.
const HISTORY_STEP_MS: i64 = 9_000;
/// Kills at a chosen batch. One of them is followed by another kill while the mirror is starting again.
const CUES: usize = 4;
/// Between two looks at the clusters.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// The mirror has failed when it writes nothing for so long although records wait.
const PATIENCE: Duration = Duration::from_secs(40);
/// The mirror's own promise is 10 s.
const STOP_PATIENCE: Duration = Duration::from_secs(12);
/// Rates are taken over so long.
const RATE_SPAN: Duration = Duration::from_millis(500);

/// When to kill: drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cue {
    /// Not before so many batches were written while the mirror ran.
    batch: usize,
    /// Nor before this part of the history (in percent) has arrived.
    arrived: u64,
    /// And so long after that.
    delay: Duration,
    /// Once more, so long after the restart.
    again: Option<Duration>,
}

/// The stage and everybody on it.
pub(crate) struct Play {
    pub(super) rt: Runtime,
    pub(super) source: Broker,
    pub(super) target: Broker,
    pub(super) addresses: (SocketAddr, SocketAddr),
    pub(super) mirror: Option<Mirror>,
    pub(super) home: Home,
    gauge: Gauge,
    pub(super) screen: Screen,
    pub(super) story: Story,
    cues: Vec<Cue>,
    /// Committed records on the source before the mirror starts.
    history: u64,
    pub(super) shop: Option<Shop>,
    seen: Seen,
}

/// What was seen at the last look, and what it is compared with.
struct Seen {
    reading: Reading,
    /// When the target grew last.
    moved: Instant,
    rates: VecDeque<(Instant, u64)>,
    /// The last kill, until another process has written.
    waiting: Option<(Instant, usize)>,
    caught_up: bool,
}

impl Play {
    /// Starts two clusters and prepares everything else.
    pub(crate) async fn open(
        rt: Runtime,
        seed: u64,
        quiet: bool,
        keep: bool,
    ) -> Result<Self, DemoError> {
        let cluster = |name: &str, number: u64| {
            Broker::new(BrokerConfig {
                cluster_id: name.to_owned(),
                seed: seed ^ number,
                ..BrokerConfig::default()
            })
        };
        let (source, target) = (cluster("paris", 1), cluster("tokyo", 2));
        let listen = DemoError::io("listening on 127.0.0.1");
        let addresses = (
            source.listen("127.0.0.1:0").await.map_err(&listen)?,
            target.listen("127.0.0.1:0").await.map_err(&listen)?,
        );
        let admin = if keep { Some(free_address()?) } else { None };
        let now = rt.now();
        Ok(Self {
            home: Home::make(addresses.0, addresses.1, admin)?,
            gauge: Gauge::new(&source, &target, target_name),
            screen: Screen::new(quiet, now),
            story: Story {
                seed,
                ..Story::default()
            },
            cues: cues(seed),
            history: 0,
            shop: None,
            mirror: None,
            seen: Seen {
                reading: Reading::default(),
                moved: now,
                rates: VecDeque::new(),
                waiting: None,
                caught_up: false,
            },
            rt,
            source,
            target,
            addresses,
        })
    }

    /// Plays it to the end. With `stop`, the mirror is then asked to stop, and has to do so properly.
    pub(crate) async fn perform(&mut self, stop: bool) -> Result<Verdict, DemoError> {
        self.prologue()?;
        let mut shop = Shop::open(&self.source, self.story.seed)?;
        self.write_history(&mut shop)?;
        self.start()?;
        let began = self.rt.now();
        let first = self.cues.get(1).map_or(LIVE.batches, |cue| cue.batch);
        let load = Load::start(&self.rt, shop, LIVE, first);
        for number in 0..self.cues.len() {
            let (Some(cue), after) = (self.cues.get(number).copied(), self.cues.get(number + 2))
            else {
                continue;
            };
            let after = after.map_or(LIVE.batches, |cue| cue.batch);
            self.kill_on(cue, &load).await?;
            // However slow this machine is, what is written stays ahead of the mirror, and not too far.
            load.go_on_to(after);
        }
        load.go_on_to(LIVE.batches);
        while !load.is_done() || self.seen.reading.lag > 0 {
            self.tick(Some(load.written())).await?;
        }
        self.story.lasted = self.rt.now().saturating_duration_since(began);
        self.shop = Some(load.finish().await.ok_or(DemoError::LoadLost)??);
        self.screen
            .tell(self.rt.now(), "everything has been written and mirrored");
        if stop {
            self.stop().await?;
        }
        self.screen.busy("comparing both sides, record by record");
        let verdict = Verdict::reach(&self.source, &self.target);
        self.screen.clear();
        Ok(verdict)
    }

    fn prologue(&self) -> Result<(), DemoError> {
        let paint = self.screen.paint();
        let kills = CUES + 1;
        self.screen.say(format_args!(
            "{} A mirror between two Kafka clusters is killed {kills} times while data pours in. Seed {}.\n",
            paint.bold("Strait demo."),
            self.story.seed
        ));
        self.screen.say(format_args!(
            "  {}   127.0.0.1:{}   the source, a cluster inside this process\n  {}   127.0.0.1:{}   the target, another one",
            paint.bold("paris"),
            self.addresses.0.port(),
            paint.bold("tokyo"),
            self.addresses.1.port()
        ));
        self.screen.say(format_args!(
            "  {}  a process of its own: strait run {}\n",
            paint.bold("mirror"),
            self.home.config().display()
        ));
        Ok(())
    }

    fn write_history(&mut self, shop: &mut Shop) -> Result<(), DemoError> {
        self.screen.busy("writing what lies there before");
        for batch in 0..HISTORY_BATCHES {
            let left = i64::try_from(HISTORY_BATCHES - batch).unwrap_or(0);
            shop.write(HISTORY_LARGEST, left * HISTORY_STEP_MS)?;
        }
        shop.finish()?;
        let before: usize = self.compacted_records();
        self.source.compact(COMPACTED);
        let gone = before - self.compacted_records();
        let reading = self.gauge.look(self.rt.now());
        let partitions: i32 = TOPICS.iter().map(|topic| topic.partitions).sum();
        self.screen.tell(
            self.rt.now(),
            format_args!(
                "{} records in {} topics ({partitions} partitions) lie on paris; compaction took {} from {COMPACTED}",
                count(reading.source_records),
                TOPICS.len(),
                count(gone as u64)
            ),
        );
        self.seen.reading = reading;
        self.history = reading.source_records;
        Ok(())
    }

    fn compacted_records(&self) -> usize {
        let topic = TOPICS.iter().find(|topic| topic.name == COMPACTED);
        let partitions = 0..topic.map_or(0, |topic| topic.partitions);
        partitions
            .map(|p| self.source.records(COMPACTED, p, true).len())
            .sum()
    }

    /// Starts the mirror; answers its process id.
    pub(super) fn start(&mut self) -> Result<u32, DemoError> {
        let mirror = self.home.start()?;
        let pid = mirror.pid();
        self.mirror = Some(mirror);
        self.seen.moved = self.rt.now();
        if self.story.kills.is_empty() && self.seen.waiting.is_none() {
            self.screen.tell(
                self.rt.now(),
                format_args!("the mirror starts, process {pid}"),
            );
        }
        Ok(pid)
    }

    async fn kill_on(&mut self, cue: Cue, load: &Load) -> Result<(), DemoError> {
        let arrived = self.history * cue.arrived / 100;
        while !self.over(load)
            && (load.written() < cue.batch
                || self.seen.waiting.is_some()
                || self.seen.reading.records < arrived.max(1))
        {
            self.follow(load).await?;
        }
        self.kill_after(cue.delay, load).await?;
        if let Some(delay) = cue.again {
            self.kill_after(delay, load).await?;
        }
        Ok(())
    }

    /// Kills the mirror when records are on their way, and starts it again.
    async fn kill_after(&mut self, delay: Duration, load: &Load) -> Result<(), DemoError> {
        let due = self.rt.now() + delay;
        while !self.over(load) && (self.rt.now() < due || self.seen.reading.lag == 0) {
            self.follow(load).await?;
        }
        if self.over(load) {
            self.screen.tell(
                self.rt.now(),
                "everything is mirrored already: one kill is left out, there is nothing to resume",
            );
            return Ok(());
        }
        let Some(mirror) = self.mirror.take() else {
            return Ok(());
        };
        let (pid, killed) = (mirror.pid(), self.rt.now());
        // As it was when the signal was sent: what the mirror had sent already may still arrive when it is dead.
        let missing = self.seen.reading.lag;
        mirror.kill().await?;
        self.look();
        self.story.kills.push(Kill {
            missing,
            resumed: None,
        });
        self.wait_for_resume(killed);
        let next = self.start()?;
        let paint = self.screen.paint();
        self.screen.tell(
            killed,
            format_args!(
                "{} {pid}, with {} records still to come; process {next} takes over",
                paint.red("kill -9"),
                count(missing)
            ),
        );
        Ok(())
    }

    /// Whether all is written and mirrored: there is nothing to kill the mirror at any more.
    fn over(&self, load: &Load) -> bool {
        load.is_done() && self.seen.reading.lag == 0
    }

    /// One tick. Where the load stands at its mark and all of it has arrived, as on a machine that stood still for a while, a
    /// little more is written: both sides would wait for each other.
    async fn follow(&mut self, load: &Load) -> Result<(), DemoError> {
        let written = load.written();
        let reading = self.tick(Some(written)).await?;
        if reading.lag == 0 {
            load.go_on_to(written + 1);
        }
        Ok(())
    }

    /// Waits a moment, looks, and shows it. `written` tells how far the load is.
    pub(super) async fn tick(&mut self, written: Option<usize>) -> Result<Reading, DemoError> {
        self.rt.sleep(TICK).await;
        let reading = self.look();
        if let Some(mirror) = &mut self.mirror
            && let Some(status) = mirror.ended()?
        {
            return Err(DemoError::Ended(status));
        }
        let after = self.rt.now().saturating_duration_since(self.seen.moved);
        if written.is_some() && reading.lag > 0 && after > PATIENCE {
            let lag = reading.lag;
            return Err(DemoError::Stalled { after, lag });
        }
        let done = match written {
            Some(written) => self.done(written, &reading),
            None => 1.0,
        };
        let rate = self.rate();
        self.story.peak = self.story.peak.max(rate);
        self.screen.show(self.rt.now(), done, &reading, rate);
        Ok(reading)
    }

    fn look(&mut self) -> Reading {
        let now = self.rt.now();
        let reading = self.gauge.look(now);
        if reading.records > self.seen.reading.records {
            self.seen.moved = now;
        }
        self.seen.caught_up |= reading.records > 0 && reading.lag < reading.source_records / 100;
        if self.seen.caught_up {
            self.story.behind.push(reading.behind);
        }
        self.seen.rates.push_back((now, reading.bytes));
        let old = |(at, _): &(Instant, u64)| now.saturating_duration_since(*at) > RATE_SPAN;
        while self.seen.rates.front().is_some_and(old) {
            self.seen.rates.pop_front();
        }
        if let Some((killed, writers)) = self.seen.waiting
            && reading.writers > writers
        {
            let took = now.saturating_duration_since(killed);
            self.seen.waiting = None;
            if let Some(kill) = self.story.kills.last_mut() {
                kill.resumed = Some(took);
            }
            self.screen.tell(
                now,
                format_args!("resumed where it stopped, {} after the kill", span(took)),
            );
        }
        self.seen.reading = reading;
        reading
    }

    /// Notes that the mirror died, and that the next record of another one will be worth a word.
    pub(super) fn wait_for_resume(&mut self, died: Instant) {
        self.seen.waiting = Some((died, self.seen.reading.writers));
    }

    /// Bytes per second over the last moments.
    fn rate(&self) -> f64 {
        match (self.seen.rates.front(), self.seen.rates.back()) {
            (Some((from, before)), Some((to, after))) => {
                let time = to.saturating_duration_since(*from).max(TICK * 20);
                after.saturating_sub(*before) as f64 / time.as_secs_f64()
            }
            _ => 0.0,
        }
    }

    /// The part of all data that has arrived, as far as one can know before it is written.
    fn done(&self, written: usize, reading: &Reading) -> f64 {
        let written = (HISTORY_BATCHES * 2 + written) as f64;
        let all = (HISTORY_BATCHES * 2 + LIVE.batches) as f64;
        reading.records as f64 / (reading.source_records.max(1) as f64 * all / written)
    }

    async fn stop(&mut self) -> Result<(), DemoError> {
        let Some(mirror) = self.mirror.take() else {
            return Ok(());
        };
        self.screen.busy("stopping the mirror");
        let asked = self.rt.now();
        let status = mirror.stop(&self.rt, STOP_PATIENCE).await?;
        let status = status.ok_or(DemoError::NotStopped(STOP_PATIENCE))?;
        if !status.success() {
            return Err(DemoError::BadStop(status));
        }
        let now = self.rt.now();
        let took = span(now.saturating_duration_since(asked));
        self.screen.tell(
            now,
            format_args!("the mirror was asked to stop and did, in {took}"),
        );
        Ok(())
    }

    /// Shows the end of the mirror's log, and leaves its folder to be looked at.
    pub(crate) fn explain(self) {
        let tail = self.home.log_tail();
        if !tail.is_empty() {
            complain(format_args!("\nThe end of the mirror's log:\n{tail}"));
        }
        drop(self.mirror);
        let folder = self.home.keep();
        complain(format_args!(
            "\nThe whole log and the configuration are left in {}; the seed was {}.",
            folder.display(),
            self.story.seed
        ));
    }

    pub(crate) fn story(&self) -> &Story {
        &self.story
    }

    pub(crate) fn screen(&self) -> &Screen {
        &self.screen
    }
}

/// The kills of a seed, spread over what is written.
fn cues(seed: u64) -> Vec<Cue> {
    // Not the generator of the data: either can change without the other.
    let mut chance = fastrand::Rng::with_seed(seed ^ 0x6b69_6c6c);
    let twice = chance.usize(1..CUES);
    let part = LIVE.batches / (CUES + 1);
    // The first one while the mirror still copies what lay there before, the others while it follows what is written.
    let cue = |number: usize| match number {
        0 => Cue {
            batch: 0,
            arrived: chance.u64(5..60),
            delay: Duration::from_micros(chance.u64(0..20_000)),
            again: None,
        },
        _ => Cue {
            batch: part / 2 + number * part + chance.usize(0..part / 2),
            arrived: 100,
            delay: Duration::from_micros(chance.u64(0..100_000)),
            again: (number == twice).then(|| Duration::from_micros(chance.u64(20_000..400_000))),
        },
    };
    (0..CUES).map(cue).collect()
}

/// An address that nobody listens on now. It is the same for every mirror process.
fn free_address() -> Result<SocketAddr, DemoError> {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(DemoError::io("finding a free port"))
}

#[cfg(test)]
mod tests {
    use super::{CUES, LIVE, cues};

    #[test]
    fn kills_repeat_with_the_seed_and_come_while_data_is_written() {
        for seed in 0..200 {
            let plan = cues(seed);
            assert_eq!(plan, cues(seed));
            assert_eq!(plan.len(), CUES);
            assert!(plan.iter().all(|cue| cue.batch < LIVE.batches));
            assert!(plan[0].arrived < 60);
            assert!(plan.windows(2).all(|two| two[0].batch < two[1].batch));
            assert_eq!(plan.iter().filter(|cue| cue.again.is_some()).count(), 1);
        }
        assert_ne!(cues(1), cues(2));
    }
}
