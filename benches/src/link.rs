//! A link between two real Kafka nodes on this machine, Strait and MirrorMaker 2 in turn on the same data:
//! rate, processor time, memory and stored bytes, from the start of the process to the last record.
//!
//! `bench-link [RECORDS] [ROUNDS]` prints a Markdown table; `just bench-link` keeps it under `benches/results/`.
#![allow(clippy::print_stdout, clippy::disallowed_methods)] // It prints its table and measures real time.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use strait_testkit::kafka::{Codec, Isolation, KafkaCluster, KafkaOptions, Oracle, Workload};

type Failure = Box<dyn std::error::Error>;

const TOPIC: &str = "bench";
const PARTITIONS: i32 = 8;
const RECORD_BYTES: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, PartialEq)]
enum Mirror {
    Strait,
    MirrorMaker,
}

impl Mirror {
    fn name(self) -> &'static str {
        match self {
            Self::Strait => "Strait",
            Self::MirrorMaker => "MirrorMaker 2",
        }
    }
}

/// What one mirror did with one data set.
#[derive(Clone, Copy, Default)]
struct Figures {
    seconds: f64,
    first: f64,
    cpu: f64,
    peak_mib: f64,
    stored: f64,
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let records: u64 = args.next().map_or(Ok(500_000), |a| a.parse())?;
    let rounds: usize = args.next().map_or(Ok(3), |a| a.parse())?;
    println!("{}", heading(records, rounds)?);
    println!(
        "| codec | mirror | records/s | MB/s of values | CPU s per GB | first record after | peak RSS | stored / source |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for codec in [Codec::None, Codec::Zstd, Codec::Lz4] {
        let mut strait = Vec::new();
        let mut other = Vec::new();
        for _ in 0..rounds {
            let [a, b] = KafkaCluster::start_all([
                KafkaOptions::new().heap("1g"),
                KafkaOptions::new().heap("1g"),
            ])?;
            let oracle = Oracle::start()?;
            oracle.create_topic(&a.bootstrap(), TOPIC, PARTITIONS, 1, &[])?;
            let workload = Workload::new(TOPIC)
                .codec(codec)
                .size(RECORD_BYTES)
                .batches(65_536, 5);
            oracle.produce(&a.bootstrap(), &workload, records)?;
            strait.push(run(Mirror::Strait, &oracle, &a, &b, records)?);
            other.push(run(Mirror::MirrorMaker, &oracle, &a, &b, records)?);
        }
        for (mirror, figures) in [(Mirror::Strait, &strait), (Mirror::MirrorMaker, &other)] {
            println!("{}", row(codec, mirror, records, figures));
        }
    }
    Ok(())
}

fn run(
    mirror: Mirror,
    oracle: &Oracle,
    a: &KafkaCluster,
    b: &KafkaCluster,
    records: u64,
) -> Result<Figures, Failure> {
    let dir = tempfile::tempdir()?;
    let (alias, mut command) = match mirror {
        Mirror::Strait => ("S", strait(dir.path(), a, b)?),
        Mirror::MirrorMaker => ("M", mirror_maker(dir.path(), a, b)?),
    };
    let target = format!("{alias}.{TOPIC}");
    let log = std::fs::File::create(dir.path().join("log"))?;
    let started = Instant::now();
    let mut child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()?;
    let result = follow(&mut child, oracle, b, &target, records, started);
    let _ = child.kill();
    let _ = child.wait();
    let mut figures = result.map_err(|e| {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        format!(
            "{}: {e}; its last lines: {}",
            mirror.name(),
            tail.join(" / ")
        )
    })?;
    let stored: u64 = oracle.stored_bytes(&b.bootstrap(), &target)?.iter().sum();
    let source: u64 = oracle.stored_bytes(&a.bootstrap(), TOPIC)?.iter().sum();
    figures.stored = stored as f64 / source as f64;
    Ok(figures)
}

fn follow(
    child: &mut Child,
    oracle: &Oracle,
    b: &KafkaCluster,
    target: &str,
    records: u64,
    started: Instant,
) -> Result<Figures, Failure> {
    let mut figures = Figures::default();
    loop {
        let there: u64 = match oracle.offsets(&b.bootstrap(), target, Isolation::ReadUncommitted) {
            Ok(offsets) => offsets
                .iter()
                .map(|o| (o.end - o.start).max(0) as u64)
                .sum(),
            Err(_) => 0,
        };
        let elapsed = started.elapsed();
        if there > 0 && figures.first == 0.0 {
            figures.first = elapsed.as_secs_f64();
        }
        let (cpu, peak_mib) = usage(child.id())?;
        if there >= records {
            return Ok(Figures {
                seconds: elapsed.as_secs_f64(),
                cpu,
                peak_mib,
                ..figures
            });
        }
        if let Some(status) = child.try_wait()? {
            return Err(format!("it ended with {status} after {there} records").into());
        }
        if elapsed > PATIENCE {
            return Err(format!("only {there} records after {} s", PATIENCE.as_secs()).into());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Processor seconds and peak resident memory of a process, from /proc.
fn usage(pid: u32) -> Result<(f64, f64), Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |i: usize| {
        fields
            .get(i)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .and_then(|l| l.split_whitespace().next());
    let kib: f64 = peak.and_then(|p| p.parse().ok()).unwrap_or(0.0);
    Ok(((ticks(11) + ticks(12)) / 100.0, kib / 1024.0))
}

fn strait(dir: &Path, a: &KafkaCluster, b: &KafkaCluster) -> Result<Command, Failure> {
    let config = dir.join("mirror.toml");
    let text = format!(
        "[clusters]\nS = \"{}\"\nT = \"{}\"\n[[links]]\nsource = \"S\"\ntarget = \"T\"\ntopics = [\"{TOPIC}\"]\n",
        a.bootstrap(),
        b.bootstrap()
    );
    std::fs::write(&config, text)?;
    let exe = std::env::current_exe()?.with_file_name("strait");
    if !exe.exists() {
        return Err(format!(
            "{} is missing: cargo build --release -p strait",
            exe.display()
        )
        .into());
    }
    let mut command = Command::new(exe);
    command
        .args(["run", "--admin-listen", "off", "--state-dir"])
        .arg(dir)
        .arg(config);
    Ok(command)
}

fn mirror_maker(dir: &Path, a: &KafkaCluster, b: &KafkaCluster) -> Result<Command, Failure> {
    let config = dir.join("mm2.properties");
    let mut text = format!(
        "clusters=M,T\nM.bootstrap.servers={}\nT.bootstrap.servers={}\nM->T.enabled=true\nT->M.enabled=false\nM->T.topics={TOPIC}\ntasks.max=8\n",
        a.bootstrap(),
        b.bootstrap()
    );
    for key in [
        "replication.factor",
        "checkpoints.topic.replication.factor",
        "heartbeats.topic.replication.factor",
        "offset-syncs.topic.replication.factor",
        "config.storage.replication.factor",
        "offset.storage.replication.factor",
        "status.storage.replication.factor",
    ] {
        writeln!(text, "{key}=1")?;
    }
    std::fs::write(&config, text)?;
    let home =
        std::env::var_os("STRAIT_KAFKA_DIR").map_or_else(|| PathBuf::from(".kafka"), PathBuf::from);
    let libs = home.join("4.3.1").join("libs").join("*");
    let mut command = Command::new("java");
    command
        .args(["-Xmx2g", "-cp"])
        .arg(libs)
        .arg("org.apache.kafka.connect.mirror.MirrorMaker")
        .arg(config);
    Ok(command)
}

fn heading(records: u64, rounds: usize) -> Result<String, Failure> {
    let shell = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output();
        output
            .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name\t: "))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "# One link, two Kafka 4.3.1 nodes and the mirror on one machine\n\n{} · commit {} · {cores} cores, {model} · {records} records of {RECORD_BYTES} bytes, {PARTITIONS} partitions, medians of {rounds} rounds, start of the process included\n\n`just bench-link`\n",
        shell("date", &["-u", "+%Y-%m-%d"]),
        shell("git", &["rev-parse", "--short=12", "HEAD"]),
    ))
}

fn row(codec: Codec, mirror: Mirror, records: u64, figures: &[Figures]) -> String {
    let median = |pick: &dyn Fn(&Figures) -> f64| {
        let mut all: Vec<f64> = figures.iter().map(pick).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let gigabytes = records as f64 * RECORD_BYTES as f64 / 1e9;
    let seconds = median(&|f| f.seconds);
    format!(
        "| {codec:?} | {} | {:.0} | {:.0} | {:.2} | {:.1} s | {:.0} MiB | {:.2} |",
        mirror.name(),
        records as f64 / seconds,
        gigabytes * 1e3 / seconds,
        median(&|f| f.cpu) / gigabytes,
        median(&|f| f.first),
        median(&|f| f.peak_mib),
        median(&|f| f.stored),
    )
}
