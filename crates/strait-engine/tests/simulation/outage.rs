//! Brokers that are away for hours, under load: the mirror waits quietly, and goes on by itself.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use strait_testkit::Broker;

use crate::journal::live;
use crate::pair::{Pair, TOPIC};
use crate::sync::Sync;

const PARTITIONS: i32 = 3;
const HOUR_MS: u64 = 3_600_000;
const AWAY_MS: u64 = 6 * HOUR_MS;
/// From the brokers' return until records move again: a pause of 4 s, or the end of what a request waited for.
const SOON: Duration = Duration::from_secs(20);
/// From a broker's return until very many flows are open: a pause of 4 s, and their openings.
const WOKEN: Duration = Duration::from_secs(15);
/// Until all that was written meanwhile is mirrored.
const BACK: Duration = Duration::from_secs(150);
/// As `strait.pos` numbers it.
const EXPIRED: u8 = 5;
const BUDGET: u64 = 1 << 20;
/// Warnings in an hour: each broker that is away, its cluster, and what the session says, once a minute each.
const WARNINGS_AN_HOUR: usize = 5 * 60;
/// Connections tried in an hour: lanes, channels, metadata and Strait's own topics each pause after a failure.
const TRIES_AN_HOUR: u64 = 6 * 3_600;
/// Bytes of a record: more comes in six hours than the budget holds.
const RECORD: usize = 300;

/// Who is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Source,
    Target,
    Both,
}

/// How brokers are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Nobody listens.
    Refuse,
    /// They take connections and answer nothing.
    Hang,
}

/// The most that the link's account of memory ever showed.
#[derive(Clone, Default)]
struct Peak(Arc<AtomicU64>);

impl GaugeFn for Peak {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.0.fetch_max(value as u64, Ordering::SeqCst);
    }
}

impl Recorder for Peak {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if key.name() == "strait_memory_bytes" {
            Gauge::from_arc(Arc::new(self.clone()))
        } else {
            Gauge::noop()
        }
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Pair {
    fn away(&self, who: Away, how: How, away: bool) {
        let tell = |broker: &Broker| match (how, away) {
            (How::Refuse, _) => broker.set_online(!away),
            (How::Hang, true) => broker.pause(),
            (How::Hang, false) => broker.resume(),
        };
        if who != Away::Target {
            tell(&self.source);
        }
        if who != Away::Source {
            tell(&self.target);
        }
    }

    /// Writes to all partitions, again and again.
    async fn load(&mut self, for_ms: u64) {
        let end = self.journal.now_ms() + for_ms;
        while self.journal.now_ms() < end {
            let pause = self.rng.u64(1..10_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let (partition, count) = (self.rng.i32(0..PARTITIONS), self.rng.i64(1..12));
            self.write(partition, count);
        }
    }

    /// The offsets of a partition that the last position counts as expired, and where it stands on the source.
    fn expired(&self, partition: i32) -> (i64, i64) {
        let syncs = self
            .target
            .records("mm2-offset-syncs.source.internal", 0, true);
        let last = syncs.iter().rev().filter_map(Sync::read);
        let last = last.into_iter().find(|sync| sync.partition == partition);
        let last = last.unwrap();
        (last.gap(EXPIRED), last.source_next)
    }
}

/// An outage of six hours, while records are written and the source keeps them for `kept_ms`.
fn outage(seed: u64, who: Away, how: How, kept_ms: u64) {
    let what = format!(
        "{who:?} {how:?}, kept for {} h, seed {seed}",
        kept_ms / HOUR_MS
    );
    let peak = Peak::default();
    let _counting = metrics::set_default_local_recorder(&peak);
    live(async |journal| {
        let kept = i64::try_from(kept_ms).unwrap();
        let mut pair = Pair::new(journal, seed, PARTITIONS, kept);
        pair.memory_budget = BUDGET;
        pair.record_bytes = RECORD;
        pair.start();
        pair.load(10 * 60_000).await;
        let (warned, tried) = (pair.told(" WARN ").len(), pair.tries());
        pair.away(who, how, true);
        pair.load(AWAY_MS).await;
        let hours = usize::try_from(AWAY_MS / HOUR_MS).unwrap();
        let warned = pair.told(" WARN ").len() - warned;
        let tried = pair.tries() - tried;
        eprintln!(
            "{what}: {warned} warnings, {tried} connections, {} bytes at most",
            peak.0.load(Ordering::SeqCst)
        );
        assert!(warned > 0, "{what}: nobody was told");
        assert!(
            warned <= hours * WARNINGS_AN_HOUR,
            "{what}: {warned} warnings"
        );
        assert!(
            tried <= hours as u64 * TRIES_AN_HOUR,
            "{what}: {tried} connections"
        );
        let ends = |pair: &Pair| [0, 1, 2].map(|p| Pair::serials(&pair.target, p).len());
        let stood = ends(&pair);
        pair.away(who, how, false);
        let moves = |pair: &Pair| {
            ends(pair)
                .iter()
                .zip(&stood)
                .all(|(end, stood)| end > stood)
        };
        assert!(pair.holds_within(SOON, moves).await, "{what}: stands still");
        pair.load(60_000).await;
        let done = |pair: &Pair| {
            (0..PARTITIONS).all(|p| pair.expired(p).1 == pair.source.log_end(TOPIC, p))
        };
        assert!(pair.holds_within(BACK, done).await, "{what}: not mirrored");
        let mut gone = 0;
        for partition in 0..PARTITIONS {
            let found = Pair::serials(&pair.target, partition);
            let written = &pair.written[&partition];
            let (expired, next) = pair.expired(partition);
            assert!(
                found.is_sorted_by(|a, b| a < b),
                "{what}: doubled or out of place"
            );
            assert!(found.iter().all(|serial| written.contains(serial)));
            assert_eq!(next, written.len() as i64, "{what}");
            assert_eq!(
                found.len() as i64 + expired,
                next,
                "{what}: left out without an account"
            );
            gone += expired;
        }
        if kept_ms > AWAY_MS {
            assert_eq!(gone, 0, "{what}");
        } else {
            assert!(gone > 0, "{what}");
            assert!(!pair.told("retention-overtook").is_empty(), "{what}");
        }
        assert!(pair.told("the mirror ended").is_empty(), "{what}");
        let peak = peak.0.load(Ordering::SeqCst);
        // A buffer has room for what surrounds its records, too.
        assert!(peak > 0 && peak <= BUDGET / 8 * 9, "{what}: {peak} bytes");
    });
}

#[test]
fn hours_without_brokers_lose_and_double_nothing() {
    for (seed, (who, how)) in (0..).zip([
        (Away::Target, How::Refuse),
        (Away::Source, How::Hang),
        (Away::Both, How::Refuse),
    ]) {
        outage(seed, who, how, 2 * AWAY_MS);
    }
}

#[test]
fn what_expires_in_hours_without_brokers_is_counted() {
    for (seed, (who, how)) in (10..).zip([
        (Away::Target, How::Hang),
        (Away::Source, How::Refuse),
        (Away::Both, How::Hang),
    ]) {
        outage(seed, who, how, HOUR_MS);
    }
}

/// So many flows that could not be opened pause for 20 s each; the one broker that answers again wakes them all.
#[test]
fn very_many_flows_go_on_at_once_when_their_broker_is_back() {
    const FLOWS: i32 = 2_000;
    live(async |journal| {
        let mut pair = Pair::new(journal, 20, FLOWS, -1);
        // Those before it are done.
        let first = Cell::new(0);
        let mirrored = |pair: &Pair| {
            let done = |p: i32| Pair::serials(&pair.target, p).len() == pair.written[&p].len();
            while first.get() < FLOWS && done(first.get()) {
                first.set(first.get() + 1);
            }
            first.get() == FLOWS
        };
        (0..FLOWS).for_each(|partition| pair.write(partition, 1));
        pair.start();
        assert!(pair.holds_within(BACK, mirrored).await, "the beginning");
        pair.crash();
        (0..FLOWS).for_each(|partition| pair.write(partition, 1));
        pair.start();
        let begun = pair.told("flow open").len();
        let begins = |pair: &Pair| pair.told("flow open").len() > begun;
        assert!(pair.holds_within(BACK, begins).await, "the second start");
        pair.away(Away::Source, How::Refuse, true);
        tokio::time::sleep(Duration::from_secs(200)).await;
        pair.away(Away::Source, How::Refuse, false);
        first.set(0);
        assert!(
            pair.holds_within(WOKEN, mirrored).await,
            "flow {} still waits",
            first.get()
        );
    });
}
