//! What is measured on real Kafka and over real sockets: `just bench-mm2`, `bench-latency`, `bench-engine`, `bench-wan`.
//!
//! Each prints Markdown; the recipes keep it under `benches/results/`.
// It prints its tables, and measures real time on real sockets.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod canned;
mod clusters;
mod comparison;
mod dataset;
mod engine;
mod heading;
mod latency;
mod line;
mod memory;
mod peer;
mod plot;
mod process;
mod relay;
mod steps;
mod wan;

use std::process::ExitCode;

/// Whatever goes wrong ends the run with its text.
type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: bench mm2 [RECORDS] [ROUNDS] [BATCH_BYTES] [PLOT]
       bench latency [SECONDS] [ROUNDS]
       bench wan [ROUND_TRIP_MS] [SECONDS] [RECORDS]
       bench engine [SECONDS] [ROUNDS] [OTHER]
       bench memory [FLOWS]
       bench steps
RECORDS is the size of the uncompressed data set; the compressed ones have twice as many.
BENCH_ONLY=none,Strait,... leaves out the data sets and peers of mm2 that it does not name.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, args)) = args.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = match command.as_str() {
        "engine" => engine::run(args),
        "relay" => relay::run(args),
        "memory" => memory::run(args),
        "steps" => steps::run(),
        "latency" => latency::run(args),
        "wan" => wan::run(args),
        "mm2" => comparison::run(args),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench {command}: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The argument at `at`, or its default.
fn argument<T: std::str::FromStr>(args: &[String], at: usize, default: T) -> Result<T, Failure>
where
    T::Err: std::error::Error + 'static,
{
    Ok(args.get(at).map_or(Ok(default), |a| a.parse())?)
}

/// The middle of some measurements.
fn median(all: impl IntoIterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.into_iter().collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
