//! Every record once and in order on real Kafka, whatever is killed and whenever.
//!
//! `STRAIT_SEED` repeats a run's schedule, `STRAIT_KILLS` sets the number of kills of the mirror, `STRAIT_NODES` that of
//! the target's nodes, `STRAIT_KILL_REPORT` names a file for the result. The judge is Kafka's own consumer, and what the source's log holds: what producers
//! believe to have written while their broker died does not count.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    missing_docs
)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rig::{Mirror, STOPS_WITHIN, pass, wait_until, west_to_east};
use rustix::process::Signal;
use strait_testkit::kafka::{
    Background, Codec, DumpOptions, DumpedRecord, HeaderSpec, Isolation, KafkaCluster,
    KafkaOptions, Oracle, TransactionSpec, Workload,
};

const KILLS_IN_CI: u64 = 15;
/// A young process is killed within this time.
const YOUNG: Duration = Duration::from_millis(500);
/// What the target may need after the load ended: a flow of historic records waits 10 s for the last lease.
const CATCH_UP: Duration = Duration::from_secs(120);
/// The first record of the topic whose records are older than any broker's memory of producers.
const HISTORY_BEGINS_MS: i64 = 1_500_000_000_000;

/// The topic that the source's cleaner works on.
const COMPACTED: &str = "profiles";

/// Settings of a topic on the source.
fn settings(topic: &str) -> Vec<(&'static str, &'static str)> {
    match topic {
        COMPACTED => vec![
            ("cleanup.policy", "compact"),
            ("segment.ms", "1000"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ],
        "stamped" => vec![
            ("retention.ms", "-1"),
            ("message.timestamp.type", "LogAppendTime"),
        ],
        _ => vec![("retention.ms", "-1")],
    }
}

/// How a compacted topic differs from the mirrored one, both read by Kafka's consumer: the last value of each key is the
/// same, and no record stands on the target twice or out of order.
fn compacted_difference(oracle: &Oracle, west: &str, east: &str) -> Option<String> {
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let read = |kafka: &str, topic: &str| {
        let dump = oracle.dump(kafka, topic, Isolation::ReadCommitted, options);
        let partitions = dump.unwrap().partitions.into_iter();
        partitions.flat_map(|p| p.records).collect::<Vec<_>>()
    };
    let (left, right) = (
        read(west, COMPACTED),
        read(east, &format!("west.{COMPACTED}")),
    );
    let last = |records: &[DumpedRecord]| -> BTreeMap<Option<Vec<u8>>, String> {
        let records = records.iter();
        records.map(|r| (r.key.clone(), r.hash.clone())).collect()
    };
    let distinct: BTreeSet<&str> = right.iter().map(|r| r.hash.as_str()).collect();
    if last(&left) != last(&right) {
        return Some(format!("{COMPACTED}: last values differ"));
    }
    if distinct.len() != right.len() || !right.is_sorted_by_key(|r| r.timestamp) {
        return Some(format!("{COMPACTED}: records stand twice or out of order"));
    }
    None
}

/// Topics, their partitions and what is written to them; two workloads on one topic are interleaved.
fn workloads(seed: u64) -> Vec<(&'static str, i32, Workload)> {
    let paid = |id: &str, records, abort_every| {
        TransactionSpec::new(id, records)
            .abort_every(abort_every)
            .timeout_ms(30_000)
    };
    vec![
        (
            "orders",
            3,
            Workload::new("orders")
                .rate(400.0)
                .codec(Codec::Zstd)
                .headers(HeaderSpec::Odd)
                .null_key_every(9)
                .null_value_every(11),
        ),
        (
            "clicks",
            2,
            Workload::new("clicks")
                .rate(600.0)
                .codec(Codec::Lz4)
                .sizes(20, 400),
        ),
        (
            "payments",
            2,
            Workload::new("payments")
                .rate(150.0)
                .codec(Codec::Gzip)
                .transaction(paid("payments-1", 40, 3)),
        ),
        (
            "payments",
            2,
            Workload::new("payments")
                .rate(100.0)
                .transaction(paid("payments-2", 15, 4)),
        ),
        (
            "sensors",
            1,
            Workload::new("sensors")
                .rate(100.0)
                .codec(Codec::Snappy)
                .not_idempotent(),
        ),
        (
            "history",
            1,
            Workload::new("history")
                .rate(20.0)
                .codec(Codec::Lz4)
                .timestamps(HISTORY_BEGINS_MS, 1_000),
        ),
        // Times of the source's broker.
        (
            "stamped",
            1,
            Workload::new("stamped")
                .rate(60.0)
                .codec(Codec::Gzip)
                .headers(HeaderSpec::Odd),
        ),
        // Batches of one record.
        (
            "ticks",
            1,
            Workload::new("ticks").rate(80.0).size(20).flush_every(1),
        ),
        // Batches of some bytes to some hundred kibibytes.
        (
            "sizes",
            1,
            Workload::new("sizes")
                .rate(8.0)
                .sizes(20, 150_000)
                .codec(Codec::Zstd)
                .incompressible()
                .batches(300_000, 200),
        ),
        // Cleaned all the time.
        (
            COMPACTED,
            1,
            Workload::new(COMPACTED)
                .rate(120.0)
                .codec(Codec::Lz4)
                .keys(61)
                .headers(HeaderSpec::Odd)
                .flush_every(9),
        ),
    ]
    .into_iter()
    .zip(seed..)
    .map(|((topic, partitions, workload), seed)| (topic, partitions, workload.seed(seed)))
    .collect()
}

/// As fast as it goes, for kills in the middle of the highest speed.
fn bulk(seed: u64) -> Workload {
    Workload::new("bulk")
        .seed(seed)
        .rate(1e6)
        .size(1_500)
        .incompressible()
        .batches(65_536, 5)
}

/// The producers, all of them running or none.
struct Load<'a> {
    oracle: &'a Oracle,
    west: &'a str,
    workloads: Vec<(Workload, u64)>,
    running: Vec<Background>,
}

impl Load<'_> {
    fn start(&mut self) {
        for (workload, next) in &self.workloads {
            let workload = workload.clone().first_id(*next);
            self.running
                .push(self.oracle.start_producer(self.west, &workload).unwrap());
        }
    }

    fn stop(&mut self) {
        for (producer, (_, next)) in self.running.drain(..).zip(&mut self.workloads) {
            *next = producer.stop().unwrap().next_id;
        }
    }
}

/// Kills brokers, source and target in turn, until it has killed each often enough. Between the kills it freezes one:
/// what a killed mirror had sent is then carried out late, beside or after its successor's start.
fn kill_brokers(
    sides: [&KafkaCluster; 2],
    each: u64,
    mut random: fastrand::Rng,
    ended: &AtomicBool,
) {
    let mut nodes = random.fork();
    let mut calm = |least: u64, most: u64, hurry: bool| {
        let until = Instant::now() + Duration::from_millis(random.u64(least..most));
        // Without mirror kills to go along with, the rest goes without pauses.
        while Instant::now() < until && !(hurry && ended.load(Ordering::Relaxed)) {
            pass(Duration::from_millis(20));
        }
    };
    for round in 0..each {
        for side in sides {
            let node = nodes.usize(0..side.nodes());
            calm(1_500, 8_000, true);
            side.kill9(node).unwrap();
            calm(0, 3_000, false);
            side.restart(node).unwrap();
        }
        let frozen = sides[usize::from(round % 3 != 2)];
        let node = nodes.usize(0..frozen.nodes());
        calm(500, 3_000, true);
        frozen.pause(node).unwrap();
        calm(100, 5_000, false);
        frozen.resume(node).unwrap();
    }
}

#[derive(Default)]
struct Kills {
    all: u64,
    young: u64,
    idle: u64,
    bulk: u64,
    clean_stops: u64,
    at: Vec<u128>,
}

fn kill_mirror(
    mirror: &mut Mirror,
    load: &mut Load<'_>,
    wanted: u64,
    seed: u64,
    random: &mut fastrand::Rng,
) -> Kills {
    let mut kills = Kills::default();
    let mut bulk_next = 0;
    let mut started = Instant::now();
    while kills.all < wanted {
        let (mut idle, mut kill_at) = (false, started);
        match kills.all % 5 {
            0 => kill_at += Duration::from_micros(random.u64(0..500_000)),
            1 => {
                idle = true;
                load.stop();
                kill_at = Instant::now() + Duration::from_millis(random.u64(0..2_500));
            }
            2 => {
                let report = load
                    .oracle
                    .produce(load.west, &bulk(seed).first_id(bulk_next), 4_000)
                    .unwrap();
                bulk_next = report.next_id;
                kills.bulk += 1;
                kill_at = Instant::now() + Duration::from_millis(random.u64(0..700));
            }
            _ => kill_at += Duration::from_millis(random.u64(0..9_000)),
        }
        if kills.all % 8 == 6 {
            // Between two kills one clean stop: the next session starts without a fence.
            mirror.signal(Signal::TERM);
            mirror.wait(STOPS_WITHIN);
            kills.clean_stops += 1;
            mirror.start();
            kill_at = Instant::now() + Duration::from_millis(random.u64(0..9_000));
            started = Instant::now();
        }
        pass(kill_at.saturating_duration_since(Instant::now()));
        assert!(
            mirror.runs(),
            "the mirror ended by itself:\n{}",
            mirror.tail()
        );
        mirror.kill9();
        let age = started.elapsed();
        kills.at.push(age.as_millis());
        kills.all += 1;
        kills.young += u64::from(age < YOUNG);
        kills.idle += u64::from(idle);
        if random.bool() {
            pass(Duration::from_millis(random.u64(0..1_500)));
        }
        mirror.start();
        started = Instant::now();
        if idle {
            load.start();
        }
    }
    kills
}

#[test]
fn nothing_is_lost_doubled_or_reordered_by_kills() {
    let wanted = number("STRAIT_KILLS").unwrap_or(KILLS_IN_CI);
    let seed = number("STRAIT_SEED").unwrap_or_else(|| fastrand::u64(..) % 1_000_000);
    eprintln!("STRAIT_SEED={seed} STRAIT_KILLS={wanted}");
    let mut random = fastrand::Rng::with_seed(seed);
    let oracle = Oracle::start().unwrap();
    let nodes = number("STRAIT_NODES").unwrap_or(1);
    // The target forgets producers of old records within seconds instead of at some time within ten minutes.
    let [source, target] = KafkaCluster::start_all([
        KafkaOptions::new().property("log.cleaner.backoff.ms", "500"),
        KafkaOptions::new()
            .nodes(usize::try_from(nodes).unwrap())
            .property("min.insync.replicas", if nodes > 1 { "2" } else { "1" })
            .property("producer.id.expiration.check.interval.ms", "1000"),
    ])
    .unwrap();
    let (west, east) = (source.bootstrap(), target.bootstrap());
    let mut topics = vec![("bulk", 2)];
    topics.extend(
        workloads(seed)
            .iter()
            .map(|(topic, partitions, _)| (*topic, *partitions)),
    );
    topics.dedup();
    for (topic, partitions) in &topics {
        oracle
            .create_topic(&west, topic, *partitions, 1, &settings(topic))
            .unwrap();
    }

    let begun = Instant::now();
    let mut load = Load {
        oracle: &oracle,
        west: &west,
        workloads: workloads(seed)
            .into_iter()
            .map(|(_, _, workload)| (workload, 0))
            .collect(),
        running: Vec::new(),
    };
    load.start();
    let mut mirror = Mirror::new(&west_to_east(
        &west,
        &east,
        &[".*"],
        // The target's log of the compacted topic is not cleaned, so that every record can be counted there. A mirror that
        // starts while a broker is down waits for it three times as long as for a connection.
        &format!(
            "connect-timeout = \"60s\"\nreplication-factor = {nodes}\nconfig-exclude = [\"segment.*\", \"min.cleanable.*\", \
             \"message.timestamp.*\", \"min.insync.replicas\"]"
        ),
    ))
    .started();
    let each = (wanted / 8).max(2);
    let ended = AtomicBool::new(false);
    let brokers = random.fork();
    let kills = std::thread::scope(|scope| {
        let brokers = scope.spawn(|| kill_brokers([&source, &target], each, brokers, &ended));
        let kills = kill_mirror(&mut mirror, &mut load, wanted, seed, &mut random);
        ended.store(true, Ordering::Relaxed);
        brokers.join().unwrap();
        kills
    });
    load.stop();
    // Not after having waited in vain for what nobody mirrors.
    assert!(
        mirror.runs(),
        "the mirror ended by itself\n{}",
        mirror.tail()
    );
    let loaded = Instant::now();

    let mut records = 0;
    let mut per_topic = String::new();
    let mut different = String::new();
    for (topic, _) in &topics {
        wait_until("transactions left open are over", CATCH_UP, || {
            !oracle.has_open_transaction(&west, topic).unwrap()
        });
        if *topic == COMPACTED {
            let mut found = None;
            let same = rig::holds_within(CATCH_UP, || {
                found = compacted_difference(&oracle, &west, &east);
                found.is_none()
            });
            if !same {
                let _ = writeln!(different, "{}", found.unwrap_or_default());
            }
            continue;
        }
        let compared = oracle
            .compare(
                (&west, topic),
                (&east, &format!("west.{topic}")),
                Isolation::ReadCommitted,
                CATCH_UP,
            )
            .unwrap();
        let count: u64 = compared.partitions.iter().map(|p| p.left_count).sum();
        assert!(count > 0, "nothing was written to {topic}");
        records += count;
        let _ = write!(
            per_topic,
            "{}{topic} {count}",
            if per_topic.is_empty() { "" } else { ", " }
        );
        if !compared.equal {
            let _ = writeln!(different, "{topic}: {compared}");
        }
    }
    assert!(
        different.is_empty(),
        "seed {seed}, kills at {:?} ms\n{different}",
        kills.at
    );
    assert!(mirror.runs(), "the mirror ended by itself");
    mirror.stop();
    // Nobody else writes to these topics, so that none of this may ever happen, whatever is killed.
    let log = mirror.log();
    for never in ["panicked", " ERROR ", "stand twice"] {
        let found: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(never))
            .take(5)
            .collect();
        assert!(found.is_empty(), "seed {seed}: in the log: {found:#?}");
    }
    // A coordinator that is elected again repeats the markers of an unfinished round, so that a flow may find itself
    // further on than it thought, and looks. Never less far: that would be a loss.
    let losses: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("acknowledged at offset"))
        .filter(|line| surprise(line).is_none_or(|(base, expected)| base <= expected))
        .collect();
    assert!(losses.is_empty(), "seed {seed}: in the log: {losses:#?}");
    let summary = format!(
        "{} kills of the mirror ({} within 500 ms of its start, {} idle, {} in bulk), {} clean stops, {each} kills of \
         each side's broker, {each} freezes, {records} records ({per_topic}), {} s of load: none lost, none doubled, none out of order; \
         compared {} s after the load ended",
        kills.all,
        kills.young,
        kills.idle,
        kills.bulk,
        kills.clean_stops,
        (loaded - begun).as_secs(),
        loaded.elapsed().as_secs(),
    );
    eprintln!("seed {seed}: {summary}");
    if let Some(file) = std::env::var_os("STRAIT_KILL_REPORT") {
        std::fs::write(
            file,
            report(seed, nodes, &kills, each, records, &per_topic, &summary),
        )
        .unwrap();
    }
}

/// The base offset that a batch got, and the one that the mirror expected, from a line of its log.
fn surprise(line: &str) -> Option<(i64, i64)> {
    let (_, offsets) = line.split_once("acknowledged at offset ")?;
    let (base, rest) = offsets.split_once(" instead of ")?;
    Some((base.parse().ok()?, rest.split(';').next()?.parse().ok()?))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}

/// What a reader needs to believe the result, or to repeat it.
fn report(
    seed: u64,
    nodes: u64,
    kills: &Kills,
    brokers: u64,
    records: u64,
    per_topic: &str,
    summary: &str,
) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map_or_else(
            |_| String::new(),
            |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
        )
    };
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    // Without what a distribution adds to the release.
    let kernel: Vec<String> = said("uname", &["-sr"])
        .splitn(3, '.')
        .take(2)
        .map(str::to_owned)
        .collect();
    let kernel = kernel.join(".");
    let mut commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    if !said(
        "git",
        &[
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            ":/crates",
        ],
    )
    .is_empty()
    {
        commit.push_str(" and changes");
    }
    format!(
        "# Kills on real Kafka\n\n\
         The last result of `just kill`: Apache Kafka 4.3.1 on both sides, nodes: 1 of the source, {nodes} of the target, judged by its own consumer \
         (read_committed).\n\n\
         | | |\n|---|---|\n\
         | date | {} |\n| commit | {commit} |\n| seed | {seed} |\n\
         | kills of the mirror (SIGKILL) | {}, {} of them within 500 ms of its start, {} without load, {} at full speed |\n\
         | clean stops | {} |\n\
         | kills of brokers (SIGKILL) | {brokers} of the source's, {brokers} of the target's |\n\
         | brokers frozen for up to 5 s (SIGSTOP) | {brokers} |\n\
         | records compared | {records} ({per_topic}) |\n\
         | lost, doubled, out of order | 0, 0, 0 |\n\
         | machine | {model}, {threads} threads, {} |\n\n\
         {summary}.\n\n\
         Repeat it with `STRAIT_SEED={seed} just kill {}` at the same commit: the same schedule, on another machine not the same instants.\n",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        kills.all,
        kills.young,
        kills.idle,
        kills.bulk,
        kills.clean_stops,
        kernel,
        kills.all,
    )
}
