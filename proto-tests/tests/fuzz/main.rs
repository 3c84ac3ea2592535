//! The stable runner of the fuzz targets: each takes what a seeded generator makes of its corpus.
//!
//! `STRAIT_FUZZ_SECONDS` runs each target for so long rather than for [`RUNS`] inputs, `STRAIT_SEED` repeats a run, and
//! `STRAIT_FUZZ_INPUT` gives one file to the chosen target. An input that fails is kept in `target/fuzz`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod corpus;
mod mutate;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use proto_tests::fuzz::{Counting, TARGETS, Target, peak};

#[global_allocator]
static HEAP: Counting = Counting;

/// Inputs of a target in an ordinary test run: a few seconds for all targets.
const RUNS: u64 = 4_000;

macro_rules! smoke {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                fuzz(stringify!($name));
            }
        )+

        #[test]
        fn every_target_runs() {
            let named = [$(stringify!($name)),+];
            let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(targets, named);
        }
    };
}

smoke! { entries records join message message_set fetch produce control metadata scram sync registry mm2 }

#[test]
fn the_allocator_counts() {
    let ((), peak) = peak(|| drop(std::hint::black_box(vec![1u8; 5_000])));
    assert!((5_000..6_000).contains(&peak), "{peak}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

// The runner is no part of what is simulated: a long run has a clock and draws a seed.
#[allow(clippy::disallowed_methods)]
fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    if let Ok(file) = std::env::var("STRAIT_FUZZ_INPUT") {
        return (target.run)(&std::fs::read(file).unwrap());
    }
    let corpus = corpus::of(name);
    let seed = number("STRAIT_SEED").unwrap_or(match number("STRAIT_FUZZ_SECONDS") {
        Some(_) => fastrand::u64(..),
        None => 1,
    });
    let end = number("STRAIT_FUZZ_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    eprintln!(
        "{name}: {} inputs in the corpus, STRAIT_SEED={seed}",
        corpus.len()
    );
    for input in &corpus {
        check(target, input, seed);
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut runs = 0;
    while end.map_or(runs < RUNS, |end| Instant::now() < end) {
        check(target, &mutate::input(&corpus, &mut rng), seed);
        runs += 1;
    }
    eprintln!("{name}: {runs} inputs made of them");
}

fn check(target: &Target, input: &[u8], seed: u64) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return;
    }
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz");
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join(format!("{}-{:016x}", target.name, hasher.finish()));
    std::fs::write(&file, input).unwrap();
    let (name, file) = (target.name, file.display());
    panic!(
        "seed {seed}; to repeat: STRAIT_FUZZ_INPUT={file} cargo test -p proto-tests --test fuzz {name} -- --exact"
    );
}
