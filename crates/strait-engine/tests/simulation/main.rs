//! A seeded simulation of the whole engine: one seed, one history.
//!
//! `Link::run` with its sessions, fences, shards and connections runs in virtual time against two in-memory clusters.
//! A seed draws the topics, the traffic, and what goes wrong: crashes at any point, late requests, lost answers,
//! elections, restarts, second instances. The checker reads the target with a codec of its own whenever it changes.
//!
//! `STRAIT_SEED=n` replays one seed with its whole journal; `STRAIT_SEEDS=n` runs the seeds 0..n,
//! `STRAIT_SEEDS=a..b` those; `STRAIT_FAILURES=n` stops after so many failing ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    missing_docs
)]

mod both_ways;
mod checker;
mod journal;
mod losses;
mod mirror;
mod network;
mod outage;
mod pair;
mod remembered;
mod script;
mod sync;
mod told;
mod traffic;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use journal::live;
use script::Script;
use world::Outcome;

/// Seeds without a wish.
const SEEDS: u64 = 1_000;
/// Seeds of histories with losses without a wish.
const LOSSES: u64 = 120;
/// Seeds of histories in which the source's retention overtakes the mirror.
const EXPIRIES: u64 = 60;
/// Seeds of histories with brokers that give nothing.
const SILENCES: u64 = 15;
/// Seeds of histories in which the selection changes.
const SELECTIONS: u64 = 60;
/// Lines of the journal shown for a failing seed.
const SHOWN: usize = 80;
/// Failing seeds after which no further ones are tried.
const FAILURES: u64 = 3;

/// What the histories are about, by what the engine says of it: a thousand seeds that never get there prove little.
const REACHED: [&str; 11] = [
    "first dies",
    "reading the target's log to see what it holds",
    "position found by content",
    "they are sent again",
    "id=\"transactional-id-expired\"",
    "watching its lease",
    "was taken over by",
    "id=\"positions-unwritten\"",
    "reading ahead",
    "memory is short",
    "id=\"under-min-isr\"",
];

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is not a number")),
    )
}

/// The seeds to run: `STRAIT_SEEDS` is a number or a range `a..b`.
fn seeds() -> (u64, u64) {
    match std::env::var("STRAIT_SEEDS")
        .ok()
        .as_deref()
        .map(|s| s.split_once(".."))
    {
        Some(Some((first, end))) => (first.parse().unwrap(), end.parse().unwrap()),
        _ => (0, number("STRAIT_SEEDS").unwrap_or(SEEDS)),
    }
}

fn run(seed: u64) -> Outcome {
    live(|journal| world::live(Script::draw(seed), journal))
}

fn tell(seed: u64, outcome: &Outcome, shown: usize) {
    eprintln!("---- {}", Script::draw(seed));
    let lines = &outcome.journal;
    for line in &lines[lines.len().saturating_sub(shown)..] {
        eprintln!("{line}");
    }
    for violation in outcome.violations.iter().take(8) {
        eprintln!("seed {seed} violates {violation}");
    }
    eprintln!("replay: STRAIT_SEED={seed} cargo test -p strait-engine --test simulation");
}

#[test]
fn no_history_breaks_an_invariant() {
    if let Some(seed) = number("STRAIT_SEED") {
        let outcome = run(seed);
        tell(seed, &outcome, usize::MAX);
        assert!(
            outcome.violations.is_empty(),
            "seed {seed} broke an invariant"
        );
        return;
    }
    let (first, end) = seeds();
    let enough = number("STRAIT_FAILURES").unwrap_or(FAILURES).max(1);
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let reached = [const { AtomicU64::new(0) }; REACHED.len()];
    let totals = [const { AtomicU64::new(0) }; 4];
    let failed: Mutex<Vec<(u64, Outcome)>> = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end || failed.lock().unwrap().len() as u64 >= enough {
                        return;
                    }
                    let outcome = run(seed);
                    let counts = [
                        outcome.records,
                        outcome.sessions,
                        outcome.syncs,
                        outcome.virtual_ms / 1_000,
                    ];
                    for (total, count) in totals.iter().zip(counts) {
                        total.fetch_add(count, Ordering::SeqCst);
                    }
                    for (phrase, count) in REACHED.iter().zip(&reached) {
                        let said = outcome.journal.iter().filter(|l| l.contains(phrase));
                        count.fetch_add(said.count() as u64, Ordering::SeqCst);
                    }
                    if !outcome.violations.is_empty() {
                        failed.lock().unwrap().push((seed, outcome));
                    }
                }
            });
        }
    });
    let [records, sessions, syncs, seconds] = totals.map(AtomicU64::into_inner);
    eprintln!(
        "{} histories, {records} records, {sessions} starts, {syncs} syncs, {seconds} virtual s, in {:.1} s",
        end - first,
        began.elapsed().as_secs_f64()
    );
    let reached = reached.map(AtomicU64::into_inner);
    for (phrase, count) in REACHED.iter().zip(reached) {
        eprintln!("{count:>8} x {phrase}");
    }
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|(seed, _)| *seed);
    for (seed, outcome) in &failed {
        tell(*seed, outcome, SHOWN);
    }
    let broken: Vec<String> = failed
        .iter()
        .map(|(seed, outcome)| format!("{seed} ({:?})", outcome.violations[0].invariant))
        .collect();
    assert!(
        broken.is_empty(),
        "invariants broken by seeds {}",
        broken.join(", ")
    );
    if end - first >= SEEDS {
        assert!(!reached.contains(&0), "some of it never happened");
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 7, 11] {
        let (one, other) = (run(seed), run(seed));
        let differs = one
            .journal
            .iter()
            .zip(&other.journal)
            .position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!(
                "seed {seed} had two histories:\n{}\n{}",
                one.journal[at], other.journal[at]
            );
        }
        assert_eq!(one.hash, other.hash, "seed {seed} had two histories");
    }
}

/// Histories with losses and refusals: `STRAIT_SEED=n` replays one with its whole journal.
#[test]
fn no_loss_leaves_a_record_out() {
    use losses::Theme::{Refusals, SourceLoss, Stop, TargetLoss};
    let themes = [TargetLoss, SourceLoss, Refusals, Stop];
    histories(LOSSES, |seed| themes[(seed % 4) as usize]);
}

/// Histories in which the source deletes records, mirrored or not: what is missing on the target is listed as expired.
#[test]
fn no_record_expires_unlisted() {
    let told = histories(EXPIRIES, |_| losses::Theme::Retention);
    for phrase in [
        "retention on the source overtook the mirror: offsets",
        "retention on the source overtook the mirror while it was down",
    ] {
        assert!(
            !all_seeds() || told.contains(phrase),
            "nobody said {phrase:?}"
        );
    }
}

/// Histories in which brokers give nothing of what they say is there: whoever reads it says so and is not in a hurry, and
/// all of it arrives once.
#[test]
fn silence_is_told_and_not_asked_for_without_end() {
    let told = histories(SILENCES, |_| losses::Theme::Silence);
    for phrase in ["position found by content", "id=\"nothing-to-read\""] {
        assert!(
            !all_seeds() || told.contains(phrase),
            "nobody said {phrase:?}"
        );
    }
}

/// A topic that is selected, and not, and again, within one session: its records arrive once and in order.
#[test]
fn topics_that_come_and_go_arrive_once() {
    let told = histories(SELECTIONS, |_| losses::Theme::Selection);
    let left = told.contains("flow left");
    assert!(left || !all_seeds(), "no flow ever left");
}

/// Whether nobody asked for certain seeds: one alone need not reach everything.
fn all_seeds() -> bool {
    ["STRAIT_SEED", "STRAIT_SEEDS"]
        .iter()
        .all(|name| std::env::var_os(name).is_none())
}

/// Lives through histories with losses; what they said together.
fn histories(wish: u64, theme: impl Fn(u64) -> losses::Theme) -> String {
    let (seeds, shown) = match number("STRAIT_SEED") {
        Some(seed) => (seed..seed + 1, usize::MAX),
        None => (0..number("STRAIT_SEEDS").unwrap_or(wish), SHOWN),
    };
    let (mut repeated, mut failed, mut told_all) = (0, Vec::new(), String::new());
    for seed in seeds.clone() {
        let theme = theme(seed);
        let told = live(|journal| losses::live(seed, theme, journal));
        repeated += told.repeated;
        told_all.extend(told.journal.iter().map(String::as_str));
        if failed.len() as u64 >= number("STRAIT_FAILURES").unwrap_or(FAILURES).max(1) {
            break;
        }
        if !told.wrong.is_empty() || shown == usize::MAX {
            let lines = &told.journal;
            for line in &lines[lines.len().saturating_sub(shown)..] {
                eprintln!("{line}");
            }
            for what in &told.wrong {
                eprintln!("seed {seed} violates {theme:?}: {what}");
                failed.push(seed);
            }
        }
    }
    eprintln!("{seeds:?} histories with losses, {repeated} records repeated");
    assert!(
        failed.is_empty(),
        "records are missing or out of place: seeds {failed:?}"
    );
    told_all
}
