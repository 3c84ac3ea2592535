# Every check of this repository; people and CI call the same recipes.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the recipes.
default:
    @just --list

# Install or name what the tests need: Java, Maven, Kafka's jars, test certificates. Quick when all is there.
setup:
    crates/strait-testkit/java/setup.sh

# Build everything.
build:
    cargo build --workspace --all-targets --locked

# All tests, those against real Kafka too.
test: setup
    cargo test --workspace --locked --no-fail-fast

# Formatting, clippy, documentation, dependencies.
lint: && deny
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Licences, sources and banned crates of all dependencies, by .cargo/deny.toml.
deny:
    command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
    cargo deny --locked check bans licenses sources

# Plant known bugs into a copy, one by one: the simulation has to find each.
plants:
    crates/strait-engine/tests/plants/run.sh

# Everything that must pass before a change lands.
ci: lint test plants

# What forwarding a batch costs, beside copying and checking its bytes.
bench:
    cargo bench --locked -p strait-benches --bench batch

# Strait and MirrorMaker 2 in turn between two real Kafka nodes; keeps the table in benches/results/link.md.
bench-link records="500000" rounds="3": setup
    cargo build --release --locked -p strait -p strait-benches
    target/release/bench-link {{records}} {{rounds}} | tee benches/results/link.md

# Kill the mirror at random instants under load on real Kafka, the brokers too; keeps the result in benches/results/kill.md.
# STRAIT_SEED repeats a schedule.
kill kills="100": setup
    mkdir -p benches/results
    STRAIT_KILLS={{kills}} STRAIT_KILL_REPORT="$PWD/benches/results/kill.md" cargo test --locked -p strait --test exactly_once -- --nocapture
