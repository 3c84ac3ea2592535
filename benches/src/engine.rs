//! The mirror alone: `strait run` over loopback TCP between brokers that cost nothing, in a process of its own, so that its
//! processor time, the kernel's included, is nobody else's.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::canned::Canned;
use crate::heading::heading;
use crate::peer::{strait, strait_binary};
use crate::process::{Running, Usage};
use crate::{Failure, argument, median, relay};

const PARTITIONS: i32 = 8;
/// Sizes of the source's batches: producers that fill them, the Java client's default, and such that are not joined.
const BATCH_BYTES: [usize; 3] = [64 << 10, 16 << 10, 128 << 10];
/// GB of records per second of one core's time that the larger batches are held to.
const BAR: f64 = 1.2;
/// From the start of the process until measuring begins.
const WARM_UP: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

/// What one run brought, between two moments of steady work.
struct Figures {
    gigabytes: f64,
    seconds: f64,
    user: f64,
    kernel: f64,
    requests: f64,
    peak_mib: f64,
}

impl Figures {
    fn per_core(&self) -> f64 {
        self.gigabytes / (self.user + self.kernel)
    }

    fn rate(&self) -> f64 {
        self.gigabytes / self.seconds
    }
}

/// `bench engine [SECONDS] [ROUNDS] [OTHER]`: OTHER is a second binary, run in turns with the first.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let seconds: f64 = argument(args, 0, 5.0)?;
    let rounds: usize = argument(args, 1, 3)?;
    let other = args.get(2).map(PathBuf::from);
    let mut binaries = vec![strait_binary()?];
    binaries.extend(other);
    let what = format!(
        "`strait run` between a source and a sink on loopback TCP that answer from memory, {PARTITIONS} partitions, records of 1,000 bytes; processor time of the mirror's process alone, the kernel's included, over {seconds} s of steady work. Medians of {rounds} rounds."
    );
    let (title, recipe) = match binaries.len() {
        1 => ("The engine alone", "bench-engine"),
        _ => ("The static binary beside the usual one", "bench-static"),
    };
    let recipe = format!("just {recipe} {seconds} {rounds}");
    println!("{}", heading(title, &recipe, &what)?);
    println!(
        "The limit is a process that reads from one connection and writes the same bytes to another, in turns with them.\n"
    );
    println!(
        "| batches | binary | GB/s per core of CPU time | of the limit | user / kernel s per GB | GB/s | Produce requests per GB | peak RSS | |\n|---|---|---|---|---|---|---|---|---|"
    );
    for batch_bytes in BATCH_BYTES {
        let mut all: Vec<Vec<Figures>> = binaries.iter().map(|_| Vec::new()).collect();
        let mut limits = Vec::new();
        for _ in 0..rounds {
            limits.push(relay::measure(seconds)?);
            for (exe, figures) in binaries.iter().zip(&mut all) {
                figures.push(measure(exe, batch_bytes, seconds)?);
            }
        }
        for (exe, figures) in binaries.iter().zip(&all) {
            println!("{}", row(exe, batch_bytes, figures, &limits));
        }
        println!(
            "| | limit | {:.2} | 1 | | | | | |",
            median(limits.iter().copied())
        );
        if let [first, second] = all.as_slice() {
            let paired = |pick: &dyn Fn(&Figures) -> f64| {
                median(first.iter().zip(second).map(|(a, b)| pick(b) / pick(a)))
            };
            let (core, rate) = (paired(&Figures::per_core), paired(&Figures::rate));
            let verdict = if core.min(rate) >= 0.95 {
                "pass"
            } else {
                "FAIL"
            };
            println!(
                "| {} KiB | second : first, paired | {core:.3} | | | {rate:.3} | | | {verdict}: both at least 0.95 |",
                batch_bytes >> 10
            );
        }
    }
    Ok(())
}

fn row(exe: &Path, batch_bytes: usize, figures: &[Figures], limits: &[f64]) -> String {
    let of = |pick: &dyn Fn(&Figures) -> f64| median(figures.iter().map(pick));
    let per_core = of(&Figures::per_core);
    let pairs = figures.iter().zip(limits);
    let share = median(pairs.map(|(figures, limit)| figures.per_core() / limit));
    let verdict = match (batch_bytes == BATCH_BYTES[0], per_core >= BAR) {
        (false, _) => "",
        (true, true) => "pass: at least 1.2",
        (true, false) => "FAIL: at least 1.2",
    };
    format!(
        "| {} KiB | {} | {per_core:.2} | {share:.2} | {:.2} / {:.2} | {:.2} | {:.0} | {:.0} MiB | {verdict} |",
        batch_bytes >> 10,
        flavour(exe),
        of(&|f| f.user / f.gigabytes),
        of(&|f| f.kernel / f.gigabytes),
        of(&Figures::rate),
        of(&|f| f.requests / f.gigabytes),
        of(&|f| f.peak_mib),
    )
}

fn flavour(exe: &Path) -> &'static str {
    if exe.to_string_lossy().contains("musl") {
        "static, musl"
    } else {
        "glibc"
    }
}

fn measure(exe: &Path, batch_bytes: usize, seconds: f64) -> Result<Figures, Failure> {
    let dir = tempfile::tempdir()?;
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let source = Canned::source("data", PARTITIONS, &[batch_bytes])?;
    let sink = Canned::sink("S.data");
    let (from, to) = (source.listen(&rt)?, sink.listen(&rt)?);
    let mut command = strait(
        exe,
        dir.path(),
        "S",
        &from.to_string(),
        &to.to_string(),
        "data",
    )?;
    let log = std::fs::File::create(dir.path().join("log"))?;
    let child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()?;
    let running = Running(child);
    let pid = running.0.id();
    let begun = Instant::now();
    while sink.bytes.load(Ordering::Relaxed) == 0 {
        if Usage::of(pid)?.ended || begun.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(dir.path().join("log"))?;
            return Err(format!("nothing was mirrored:\n{log}").into());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    std::thread::sleep(WARM_UP);
    let look = || -> Result<_, Failure> {
        Ok((
            Instant::now(),
            Usage::of(pid)?,
            sink.bytes.load(Ordering::Relaxed) as f64 / 1e9,
            sink.requests.load(Ordering::Relaxed) as f64,
        ))
    };
    let (begun, before, had, asked) = look()?;
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (ended, after, has, asked_now) = look()?;
    if has <= had {
        let log = std::fs::read_to_string(dir.path().join("log"))?;
        return Err(format!("the mirror stands still:\n{log}").into());
    }
    Ok(Figures {
        gigabytes: has - had,
        seconds: (ended - begun).as_secs_f64(),
        user: after.user - before.user,
        kernel: after.kernel - before.kernel,
        requests: asked_now - asked,
        peak_mib: after.peak_mib,
    })
}
