//! One and eight partitions over a long line: the mirror stands beside the target, the source is far away.

use std::process::Stdio;
use std::time::{Duration, Instant};

use strait_testkit::kafka::{KafkaCluster, KafkaOptions, Oracle};

use crate::clusters::{self, Clusters};
use crate::dataset::Dataset;
use crate::heading::heading;
use crate::line::{FAR, Line, NEAR};
use crate::peer::{mirror_maker, strait, strait_binary};
use crate::process::{Running, Usage};
use crate::{Failure, argument};

const PARTITIONS: [i32; 2] = [1, 8];
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);

/// `bench wan [ROUND_TRIP_MS] [SECONDS] [RECORDS]`: RECORDS of 1,000 bytes in each partition.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let round_trip: f64 = argument(args, 0, 100.0)?;
    let seconds: f64 = argument(args, 1, 20.0)?;
    let records: u64 = argument(args, 2, 500_000)?;
    let _line = Line::lay(Duration::from_secs_f64(round_trip / 2e3))?;
    // What is far away is written there, too.
    let source = FAR.inside(|| far(records).map_err(|e| e.to_string()))??;
    let port = source.port(0).ok_or("the source has no port")?;
    let text = NEAR.inside(|| near(source, port, seconds).map_err(|e| e.to_string()))??;
    let what = format!(
        "A source behind a line with a round trip of {round_trip} ms (two network namespaces, a TUN device each; no loss, no limit), target and mirror on this side; Kafka 4.3.1 with its default socket buffers (100 KiB), records of 1,000 bytes, uncompressed; the {seconds} s after the first record."
    );
    let recipe = format!("just bench-wan {round_trip} {seconds} {records}");
    println!("{}", heading("Over a long line", &recipe, &what)?);
    println!("{text}");
    Ok(())
}

fn far(records: u64) -> Result<KafkaCluster, Failure> {
    let options: KafkaOptions = clusters::options().advertise(FAR.address);
    let source = KafkaCluster::start(options)?;
    let oracle = Oracle::start()?;
    for partitions in PARTITIONS {
        let data = Dataset::letters(records * partitions as u64);
        let topic = format!("wan{partitions}");
        data.produce(&oracle, &source.bootstrap(), &topic, partitions)?;
    }
    Ok(source)
}

/// The table: both mirrors, one after the other, with each topic.
fn near(source: KafkaCluster, port: u16, seconds: f64) -> Result<String, Failure> {
    let target = KafkaCluster::start(clusters::options())?;
    let clusters = Clusters::of(source, target)?;
    let bootstrap = format!("{}:{port}", FAR.address);
    let mut text = String::from(
        "| partitions | mirror | MB/s of values | MB/s per partition | first record after | peak RSS |\n|---|---|---|---|---|---|\n",
    );
    for partitions in PARTITIONS {
        for (alias, name) in [("S", "Strait"), ("M", "MirrorMaker 2")] {
            let alias = format!("{alias}{partitions}");
            let topic = format!("wan{partitions}");
            let (rate, first, peak) = measure(
                &clusters, &bootstrap, name, &alias, &topic, partitions, seconds,
            )?;
            eprintln!("{partitions} partitions, {name}: {rate:.1} MB/s");
            text += &format!(
                "| {partitions} | {name} | {rate:.1} | {:.1} | {first:.1} s | {peak:.0} MiB |\n",
                rate / f64::from(partitions)
            );
        }
    }
    Ok(text)
}

/// MB/s, seconds to the first record, and peak memory.
fn measure(
    clusters: &Clusters,
    source: &str,
    name: &str,
    alias: &str,
    topic: &str,
    partitions: i32,
    seconds: f64,
) -> Result<(f64, f64, f64), Failure> {
    let dir = tempfile::tempdir()?;
    let target = clusters.target.bootstrap();
    let mut command = if name == "Strait" {
        strait(&strait_binary()?, dir.path(), alias, source, &target, topic)?
    } else {
        mirror_maker(dir.path(), alias, source, &target, topic, partitions)?
    };
    let log = std::fs::File::create(dir.path().join("log"))?;
    let started = Instant::now();
    let child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()?;
    let running = Running(child);
    let remote = format!("{alias}.{topic}");
    let watch = clusters.watch(&remote, partitions)?;
    let markers = partitions as u64;
    while watch.end() <= markers {
        if Usage::of(running.0.id())?.ended || started.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            return Err(format!("{name} does not mirror:\n{log}").into());
        }
        std::thread::park_timeout(LOOK);
    }
    let (first, begun, had) = (started.elapsed().as_secs_f64(), Instant::now(), watch.end());
    let (mut moved, mut took) = (0, 0.0);
    while begun.elapsed().as_secs_f64() < seconds {
        std::thread::park_timeout(LOOK);
        let now = watch.end() - had;
        if now > moved {
            (moved, took) = (now, begun.elapsed().as_secs_f64());
        }
    }
    let peak = Usage::of(running.0.id())?.peak_mib;
    drop(running);
    clusters.delete(&remote)?;
    Ok((moved as f64 * 1e3 / took / 1e6, first, peak))
}
