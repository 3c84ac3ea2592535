//! What Strait and MirrorMaker 2 add to the way of a record, in turns on the same nodes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use strait_testkit::kafka::Workload;

use crate::clusters::Clusters;
use crate::heading::heading;
use crate::peer::{mirror_maker, strait, strait_binary};
use crate::process::{Running, Usage};
use crate::{Failure, argument, median};

/// Records per second of the one producer.
const RATES: [u32; 2] = [100, 1_000];
/// The rate at which Strait is held to [`P50_BAR`] and [`P99_BAR`], in milliseconds.
const BAR_RATE: u32 = 100;
const P50_BAR: f64 = 2.0;
const P99_BAR: f64 = 6.0;
/// What the nodes compile their hot paths with, before each measurement.
const WARM_UP_RATE: u32 = 1_000;
const WARM_UP_SECONDS: u32 = 30;
/// Records that a mirror has brought over before it is measured.
const FIRST: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(180);

/// p50 and p99 in milliseconds of: produced to consumed at the source, at the target, and what lies in between.
type Percentiles = [f64; 6];

/// `bench latency [SECONDS] [ROUNDS]`.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let seconds: u32 = argument(args, 0, 20)?;
    let rounds: usize = argument(args, 1, 3)?;
    let clusters = Clusters::start()?;
    let mut all: Vec<(&str, u32, Vec<Percentiles>)> = Vec::new();
    for name in ["Strait", "MirrorMaker 2"] {
        all.extend(RATES.map(|rate| (name, rate, Vec::new())));
    }
    for round in 0..rounds {
        for (turn, series) in all.chunks_mut(RATES.len()).enumerate() {
            let alias = format!("R{round}T{turn}");
            measure(&clusters, &alias, seconds, series)?;
        }
    }
    let what = format!(
        "Two Kafka 4.3.1 nodes, the mirror and the probe (librdkafka) together on this machine; one producer (linger.ms=0, acks=1), records of 208 bytes, one partition, {seconds} s each after {WARM_UP_SECONDS} s at {WARM_UP_RATE} records/s which do not count; medians of {rounds} rounds. Added: consumed at the target minus consumed at the source, of the same record."
    );
    let recipe = format!("just bench-latency {seconds} {rounds}");
    println!("{}", heading("Added latency", &recipe, &what)?);
    println!(
        "| mirror | records/s | added p50 | added p99 | to the source's consumer p50 / p99 | to the target's p50 / p99 | |\n|---|---|---|---|---|---|---|"
    );
    for (name, rate, found) in &all {
        let of = |i: usize| median(found.iter().filter_map(|f| f.get(i).copied()));
        let verdict = match (
            *name == "Strait" && *rate == BAR_RATE,
            of(4) <= P50_BAR && of(5) <= P99_BAR,
        ) {
            (false, _) => "",
            (true, true) => "pass: at most 2 and 6 ms",
            (true, false) => "FAIL: at most 2 and 6 ms",
        };
        println!(
            "| {name} | {rate} | {:.2} ms | {:.2} ms | {:.2} / {:.2} ms | {:.2} / {:.2} ms | {verdict} |",
            of(4),
            of(5),
            of(0),
            of(1),
            of(2),
            of(3)
        );
    }
    Ok(())
}

/// Starts one mirror and lets the probe run at every rate.
fn measure(
    clusters: &Clusters,
    alias: &str,
    seconds: u32,
    series: &mut [(&str, u32, Vec<Percentiles>)],
) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let (source, target) = (clusters.source.bootstrap(), clusters.target.bootstrap());
    let topic = format!("latency-{alias}");
    clusters.oracle.create_topic(&source, &topic, 1, 1, &[])?;
    clusters
        .oracle
        .produce(&source, &Workload::new(&topic), FIRST)?;
    let Some((name, ..)) = series.first() else {
        return Ok(());
    };
    let mut command = if *name == "Strait" {
        strait(
            &strait_binary()?,
            dir.path(),
            alias,
            &source,
            &target,
            &topic,
        )?
    } else {
        mirror_maker(dir.path(), alias, &source, &target, &topic, 1)?
    };
    let log = std::fs::File::create(dir.path().join("log"))?;
    let child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()?;
    let running = Running(child);
    let remote = format!("{alias}.{topic}");
    let watch = clusters.watch(&remote, 1)?;
    let begun = Instant::now();
    while watch.end() < FIRST {
        if Usage::of(running.0.id())?.ended || begun.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            return Err(format!("{name} does not mirror:\n{log}").into());
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let rates: Vec<u32> = series.iter().map(|(_, rate, _)| *rate).collect();
    let measured = probe(&source, &target, (&topic, &remote), &rates, seconds)?;
    for ((name, rate, found), percentiles) in series.iter_mut().zip(measured) {
        eprintln!(
            "{name}, {rate} records/s: added p50 {:.2} ms, p99 {:.2} ms",
            percentiles[4], percentiles[5]
        );
        found.push(percentiles);
    }
    Ok(())
}

/// One line of the probe for every rate.
fn probe(
    source: &str,
    target: &str,
    topics: (&str, &str),
    rates: &[u32],
    seconds: u32,
) -> Result<Vec<Percentiles>, Failure> {
    let output = Command::new("target/python/bin/python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("probes/latency.py"))
        .args([source, target, topics.0, topics.1])
        .arg(format!("{WARM_UP_RATE}:{WARM_UP_SECONDS}"))
        .args(rates.iter().map(|rate| format!("{rate}:{seconds}")))
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let of_line = |line: &str| {
        let numbers: Vec<f64> = line
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        Percentiles::try_from(numbers).ok()
    };
    let measured: Vec<Percentiles> = said.lines().filter_map(of_line).collect();
    if measured.len() != rates.len() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the probe ended with {}: {errors}", output.status).into());
    }
    Ok(measured)
}
