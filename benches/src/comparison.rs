//! All peers on the same brokers and the same data, interleaved, in one run.
//!
//! What is kept the same: one pair of nodes for everything; each data set is written once and read by all; every run has a
//! target topic of its own, deleted with its files before the next begins, and dirty pages are written first (`sync`), so
//! that nobody pays for the run before. A run of the patching copier and one of Strait that are not counted let both nodes
//! compile their hot paths and create their own topics.
//! A run begins with the start of the process and ends when consumers of the target see the last record; that of a peer which
//! decodes records ends earlier, see [`SLOW_PEER_RECORDS`].

use std::process::Stdio;
use std::time::{Duration, Instant};

use strait_testkit::kafka::Codec;

use crate::clusters::Clusters;
use crate::dataset::{BATCH_BYTES, Dataset};
use crate::heading::heading;
use crate::peer::Peer;
use crate::plot;
use crate::process::{Running, Usage};
use crate::{Failure, argument, median};

const PARTITIONS: i32 = 8;
/// Records that the peers which decode them are followed for: the largest sets would take them minutes. Their
/// start, which counts, weighs more in fewer records: some seconds of MirrorMaker 2's minute.
const SLOW_PEER_RECORDS: u64 = 1_500_000;
/// The slowest peer on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at the target until the first record is there: the error of that figure.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// Afterwards: looking costs the target processor time too.
const LOOK: Duration = Duration::from_millis(25);

/// What one peer did with one data set.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Records it was followed for: all of them, or those that a slow peer is measured by.
    records: f64,
    seconds: f64,
    first: f64,
    cpu: f64,
    target_cpu: f64,
    peak_mib: f64,
    stored: f64,
}

impl Figures {
    /// Records per second, the start included.
    pub(crate) fn rate(&self) -> f64 {
        self.records / self.seconds
    }
}

/// Names of data sets and peers, separated by commas, in `BENCH_ONLY`: what is left out costs no time. Everything unless set.
struct Only(Option<String>);

impl Only {
    fn from_env() -> Self {
        Self(std::env::var("BENCH_ONLY").ok())
    }

    /// As it stands before the command.
    fn prefix(&self) -> String {
        let list = self.0.as_ref();
        list.map_or(String::new(), |list| format!("BENCH_ONLY='{list}' "))
    }

    fn has(&self, name: &str) -> bool {
        let Some(list) = &self.0 else { return true };
        list.split(',').any(|wanted| wanted == name)
    }
}

/// All rounds of one peer with one data set.
pub(crate) struct Series {
    pub(crate) peer: Peer,
    pub(crate) rounds: Vec<Figures>,
}

/// `bench mm2 [RECORDS] [ROUNDS] [BATCH_BYTES] [PLOT]`.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let records: u64 = argument(args, 0, 2_000_000)?;
    let rounds: usize = argument(args, 1, 3)?;
    let batch: usize = argument(args, 2, BATCH_BYTES)?;
    let dir = tempfile::tempdir()?;
    let events = records * 2;
    let only = Only::from_env();
    let sets = [
        Dataset::letters(records),
        Dataset::events(Codec::Zstd, events, dir.path())?,
        Dataset::events(Codec::Lz4, events, dir.path())?,
    ]
    .map(|data| data.batches(batch));
    let value_bytes = sets[1].value_bytes / events as f64;
    let sets: Vec<Dataset> = sets.into_iter().filter(|d| only.has(d.name())).collect();
    let clusters = Clusters::start()?;
    let mut results = Vec::new();
    for data in &sets {
        eprintln!("{}: writing {} records", data.name(), data.records);
        let bootstrap = clusters.source.bootstrap();
        data.produce(&clusters.oracle, &bootstrap, data.name(), PARTITIONS)?;
        copy(Peer::Patching, &clusters, data, "WarmP")?;
        copy(Peer::Strait, &clusters, data, "WarmS")?;
        let peers = Peer::ALL.into_iter().filter(|peer| only.has(peer.name()));
        let mut all: Vec<Series> = peers
            .map(|peer| Series {
                peer,
                rounds: Vec::new(),
            })
            .collect();
        for round in 0..rounds {
            for turn in 0..all.len() {
                let at = (round + turn) % all.len();
                let Some(series) = all.get_mut(at) else {
                    continue;
                };
                let alias = format!("R{round}P{at}");
                let figures = copy(series.peer, &clusters, data, &alias)?;
                eprintln!(
                    "{}, round {}: {}: {:.1} s",
                    data.name(),
                    round + 1,
                    series.peer.name(),
                    figures.seconds
                );
                series.rounds.push(figures);
            }
        }
        clusters.oracle.delete_topic(&bootstrap, data.name())?;
        results.push((data, all));
    }
    drop(clusters);
    let what = format!(
        "Two Kafka 4.3.1 nodes and the mirror together on this machine. {records} records of 1,000 bytes uncompressed, {events} JSON records of {:.0} bytes with zstd and lz4, {PARTITIONS} partitions, written by Kafka's ProducerPerformance with batch.size={batch}. Medians of {rounds} rounds, interleaved; the start of each mirror is included. What decodes records is followed for the first {SLOW_PEER_RECORDS}, so that its start weighs more.",
        value_bytes
    );
    println!(
        "{}",
        heading(
            "Strait beside MirrorMaker 2 and two throwaway copiers",
            &format!("{}just bench-mm2 {records} {rounds} {batch}", only.prefix()),
            &what
        )?
    );
    println!("{}", table(&results));
    println!("{}", bars(&results));
    if let Some(path) = args.get(3) {
        std::fs::write(path, plot::rates(&results))?;
    }
    Ok(())
}

/// Lets one peer copy the whole data set, and removes what it wrote.
fn copy(peer: Peer, clusters: &Clusters, data: &Dataset, alias: &str) -> Result<Figures, Failure> {
    let dir = tempfile::tempdir()?;
    let topic = data.name();
    let target = format!("{alias}.{topic}");
    if !peer.creates_topic() {
        let to = clusters.target.bootstrap();
        clusters
            .oracle
            .create_topic(&to, &target, PARTITIONS, 1, &[])?;
    }
    let mut command = peer.command(clusters, data, topic, alias, PARTITIONS, dir.path())?;
    let log = std::fs::File::create(dir.path().join("log"))?;
    rustix::fs::sync();
    let before = clusters.target_usage()?.cpu();
    let started = Instant::now();
    let child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()?;
    let mut running = Running(child);
    let enough = match peer {
        Peer::MirrorMaker | Peer::FranzGo => data.records.min(SLOW_PEER_RECORDS),
        Peer::Strait | Peer::Patching => data.records,
    };
    let followed = follow(&mut running, clusters, &target, enough, started);
    let mut figures = followed.map_err(|e| {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        format!("{}: {e}; its last lines: {}", peer.name(), tail.join(" / "))
    })?;
    figures.target_cpu = clusters.target_usage()?.cpu() - before;
    drop(running);
    let stored = |bootstrap: &str, topic: &str| -> Result<f64, Failure> {
        let bytes = clusters.oracle.stored_bytes(bootstrap, topic)?;
        Ok(bytes.iter().sum::<u64>() as f64)
    };
    let there = clusters.watch(&target, PARTITIONS)?.end() as f64;
    figures.stored = stored(&clusters.target.bootstrap(), &target)? / there * data.records as f64
        / stored(&clusters.source.bootstrap(), topic)?;
    clusters.delete(&target)?;
    Ok(figures)
}

fn follow(
    running: &mut Running,
    clusters: &Clusters,
    target: &str,
    enough: u64,
    started: Instant,
) -> Result<Figures, Failure> {
    let watch = clusters.watch(target, PARTITIONS)?;
    // A marker of a transaction counts as an offset too; Strait writes at most one into each partition before its first
    // record. So the first record is there once there is more than that, and up to 8 of all records may still be missing at
    // the end: nothing, beside a data set.
    let markers = PARTITIONS as u64;
    let mut figures = Figures::default();
    loop {
        let there = watch.end();
        let elapsed = started.elapsed();
        if there > markers && figures.first == 0.0 {
            figures.first = elapsed.as_secs_f64();
        }
        let usage = Usage::of(running.0.id())?;
        figures.peak_mib = usage.peak_mib.max(figures.peak_mib);
        if there >= enough {
            figures.records = there as f64;
            figures.seconds = elapsed.as_secs_f64();
            figures.cpu = usage.cpu();
            return Ok(figures);
        }
        if usage.ended && watch.end() < enough {
            let status = running.0.wait()?;
            return Err(format!("it ended with {status} after {there} records").into());
        }
        if elapsed > PATIENCE {
            return Err(format!("only {there} records after {} s", PATIENCE.as_secs()).into());
        }
        let pause = if figures.first == 0.0 {
            FIRST_LOOK
        } else {
            LOOK
        };
        std::thread::park_timeout(pause);
    }
}

fn table(results: &[(&Dataset, Vec<Series>)]) -> String {
    let mut text = String::from(
        "| codec | peer | records/s | MB/s of values | CPU s per GB of values | target's CPU s per GB | target's share of the machine | first record after | peak RSS | stored / source |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    for (data, all) in results {
        let gigabytes = data.value_bytes / data.records as f64 / 1e9;
        for series in all {
            let of = |pick: &dyn Fn(&Figures) -> f64| median(series.rounds.iter().map(pick));
            let rate = of(&Figures::rate);
            text += &format!(
                "| {} | {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} % | {:.2} s | {:.0} MiB | {:.2} |\n",
                data.name(),
                series.peer.name(),
                rate,
                gigabytes * 1e3 * rate,
                of(&|f| f.cpu / f.records) / gigabytes,
                of(&|f| f.target_cpu / f.records) / gigabytes,
                of(&|f| f.target_cpu / f.seconds / cores) * 100.0,
                of(&|f| f.first),
                of(&|f| f.peak_mib),
                of(&|f| f.stored),
            );
        }
    }
    text
}

/// What Strait is held to, beside the patching copier of the same round.
fn bars(results: &[(&Dataset, Vec<Series>)]) -> String {
    let mut text = String::from(
        "Strait's bars; ratios are medians of those of each round.\n\n| bar | asked | measured | |\n|---|---|---|---|\n",
    );
    let mut bar = |what: String, asked: String, measured: f64, met: bool| {
        let verdict = if met { "pass" } else { "FAIL" };
        text += &format!("| {what} | {asked} | {measured:.2} | {verdict} |\n");
    };
    for (data, all) in results {
        if [Peer::Strait, Peer::Patching]
            .iter()
            .any(|peer| !all.iter().any(|series| series.peer == *peer))
        {
            continue;
        }
        let of = |peer: Peer| {
            all.iter()
                .filter(move |s| s.peer == peer)
                .flat_map(|s| s.rounds.iter())
        };
        let paired = |pick: &dyn Fn(&Figures) -> f64| {
            let pairs = of(Peer::Strait).zip(of(Peer::Patching));
            median(pairs.map(|(ours, theirs)| pick(ours) / pick(theirs)))
        };
        let least = if data.codec == Codec::None { 1.2 } else { 1.1 };
        let rate = paired(&|f| 1.0 / f.seconds);
        bar(
            format!("{}: rate, Strait : patching copier", data.name()),
            format!("at least {least}"),
            rate,
            rate >= least,
        );
        let cpu = paired(&|f| f.cpu);
        bar(
            format!("{}: CPU, Strait : patching copier", data.name()),
            "at most 0.5".to_owned(),
            cpu,
            cpu <= 0.5,
        );
        let first = median(of(Peer::Strait).map(|f| f.first));
        bar(
            format!("{}: first record after start, s", data.name()),
            "at most 1".to_owned(),
            first,
            first <= 1.0,
        );
    }
    text
}
