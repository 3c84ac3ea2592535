//! Resident memory stays within the budget, a fixed part and one for each flow: the small form of `just bench-memory`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

// Brokers that answer from memory; the benchmarks' own.
#[allow(dead_code)]
#[path = "../../../benches/src/canned.rs"]
mod canned;
mod rig;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use canned::Canned;
use rig::{Mirror, pass, wait_until, west_to_east};

/// How [`canned`] fails.
type Failure = Box<dyn std::error::Error>;

const SOON: Duration = Duration::from_secs(60);
const FLOWS: i32 = 300;
const BUDGET_MIB: u64 = 16;
/// What the process may take beside its budget: 60 MiB as in the benchmark, and 16 for how far runs of a build without optimization
/// lie apart (66 to 86 MiB in all, of a machine with two processors). Without a budget it takes several times as much.
const OVERHEAD_KIB: u64 = (60 + 16) * 1_024;
const FLOW_KIB: u64 = 20;
/// A release build's code and constants.
const RELEASE_FILE_KIB: u64 = 13 * 1_024;
/// Sizes of the source's batches, by partition in turn.
const BATCH_BYTES: [usize; 4] = [1_100, 16 << 10, 200 << 10, 900 << 10];
/// What is mirrored before and after the standstill.
const WORK_BYTES: u64 = 200 << 20;

/// The most memory that the process has held. Of the pages of its own file only so many count: without optimization it
/// is twice the size of a release build.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |field: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let file = kib("RssFile:");
    kib("VmHWM:") - file + file.min(RELEASE_FILE_KIB)
}

#[test]
fn memory_stays_within_its_budget_while_the_target_stands_still() {
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let source = Canned::source("data", FLOWS, &BATCH_BYTES).unwrap();
    let sink = Canned::sink("west.data");
    let (west, east) = (source.listen(&rt).unwrap(), sink.listen(&rt).unwrap());
    let more = format!("memory-budget = \"{BUDGET_MIB}MiB\"");
    let toml = west_to_east(&west.to_string(), &east.to_string(), &["data"], &more);
    let mut mirror = Mirror::new(&toml).started();
    wait_until("every flow is mirrored", SOON, || {
        sink.partitions() == FLOWS as usize
    });
    let bytes = |kafka: &Arc<Canned>| kafka.bytes.load(Ordering::Relaxed);
    let work = || {
        let goal = bytes(&sink) + WORK_BYTES;
        wait_until("it mirrors", SOON, || bytes(&sink) >= goal);
    };
    work();
    sink.hold(true);
    let mut fetched = 0;
    wait_until("it has fetched all that it may hold", SOON, || {
        let before = std::mem::replace(&mut fetched, bytes(&source));
        pass(Duration::from_secs(1));
        before == bytes(&source)
    });
    sink.hold(false);
    work();
    let limit = BUDGET_MIB * 1_024 + OVERHEAD_KIB + FLOWS as u64 * FLOW_KIB;
    let peak = peak_kib(mirror.pid());
    assert!(peak <= limit, "{peak} KiB of {limit}");
    mirror.stop();
}
