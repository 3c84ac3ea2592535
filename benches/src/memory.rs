//! The mirror's memory at the worst mix: very many flows with batches of all sizes, a target that stops answering while
//! everything is under way, and goes on later.

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::canned::Canned;
use crate::heading::heading;
use crate::peer::{strait, strait_binary};
use crate::process::{Running, Usage};
use crate::{Failure, argument};

/// Sizes of the source's batches, by partition in turn.
const BATCH_BYTES: [usize; 4] = [1_100, 16 << 10, 200 << 10, 900 << 10];
/// What a process may take beside its budget: the program, its connections, buffers kept for later.
const OVERHEAD_MIB: f64 = 60.0;
/// And for each flow.
const FLOW_MIB: f64 = 20.0 / 1024.0;
const PATIENCE: Duration = Duration::from_secs(180);
/// How long each phase lasts: work, a target that stands still, work.
const PHASE: Duration = Duration::from_secs(8);

/// `bench memory [FLOWS]`.
pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let flows: i32 = argument(args, 0, 2_000)?;
    let what = format!(
        "`strait run` between a source and a sink that answer from memory, {flows} partitions with batches of 1 KiB to 900 KiB. For {} s it mirrors, for {0} s the target answers no Produce request, then it mirrors again. The limit is the budget, {OVERHEAD_MIB} MiB, and 20 KiB for each flow.",
        PHASE.as_secs()
    );
    println!(
        "{}",
        heading(
            "Resident memory",
            &format!("just bench-memory {flows}"),
            &what
        )?
    );
    println!(
        "| memory-budget | flows | peak after work | after the standstill | at the end | limit | |\n|---|---|---|---|---|---|---|"
    );
    for budget_mib in [16, 64, 256] {
        let [work, still, end] = measure(flows, budget_mib)?;
        let limit = f64::from(budget_mib) + OVERHEAD_MIB + f64::from(flows) * FLOW_MIB;
        let verdict = if end <= limit { "pass" } else { "FAIL" };
        println!(
            "| {budget_mib} MiB | {flows} | {work:.0} MiB | {still:.0} MiB | {end:.0} MiB | {limit:.0} MiB | {verdict} |"
        );
    }
    Ok(())
}

fn measure(flows: i32, budget_mib: i32) -> Result<[f64; 3], Failure> {
    let dir = tempfile::tempdir()?;
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let source = Canned::source("data", flows, &BATCH_BYTES)?;
    let sink = Canned::sink("S.data");
    let (from, to) = (source.listen(&rt)?, sink.listen(&rt)?);
    let (from, to) = (from.to_string(), to.to_string());
    let exe = strait_binary()?;
    let mut command = strait(&exe, dir.path(), "S", &from, &to, "data")?;
    let config = dir.path().join("mirror.toml");
    let mut text = std::fs::read_to_string(&config)?;
    text.push_str(&format!("memory-budget = \"{budget_mib}MiB\"\n"));
    std::fs::write(&config, text)?;
    let log = std::fs::File::create(dir.path().join("log"))?;
    let child = command
        .stdout(log.try_clone()?)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()?;
    let running = Running(child);
    let pid = running.0.id();
    // Until every partition is being mirrored.
    let begun = Instant::now();
    while sink.partitions() < flows as usize {
        if Usage::of(pid)?.ended || begun.elapsed() > PATIENCE {
            let log = std::fs::read_to_string(dir.path().join("log"))?;
            let reached = sink.partitions();
            return Err(format!("only {reached} of {flows} flows were mirrored:\n{log}").into());
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let mut peaks = [0.0; 3];
    for (phase, peak) in peaks.iter_mut().enumerate() {
        sink.hold(phase == 1);
        let before = sink.bytes.load(Ordering::Relaxed);
        std::thread::sleep(PHASE);
        if phase != 1 && sink.bytes.load(Ordering::Relaxed) == before {
            let log = std::fs::read_to_string(dir.path().join("log"))?;
            return Err(format!("the mirror stands still:\n{log}").into());
        }
        *peak = Usage::of(pid)?.peak_mib;
    }
    Ok(peaks)
}
