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

# All tests, those against real Kafka too. Twice as many at a time as there are processors: they mostly wait for brokers.
test: setup
    RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(({{num_cpus()}} * 2))}" cargo test --workspace --locked --no-fail-fast

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

# One fuzz target (or `all`) for so many seconds, on stable Rust. STRAIT_SEED repeats a run; what fails is kept in target/fuzz.
fuzz target="all" seconds="60":
    STRAIT_FUZZ_SECONDS={{seconds}} cargo test --release --locked -p proto-tests --test fuzz -- --nocapture {{ if target == "all" { "" } else { "--exact " + target } }}

# Everything that must pass before a change lands. The static binary is optimised less here, which halves its build: what is tried is that
# it is one file, starts, and mirrors.
ci: lint test plants
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 just static

# What forwarding a batch costs, beside copying and checking its bytes; keeps the table in benches/results/steps.md.
bench: bench-build
    cargo bench --locked -p strait-benches --bench batch
    target/release/bench steps >target/steps.md
    mv target/steps.md benches/results/steps.md

# MirrorMaker 2, two throwaway copiers and Strait on the same brokers and data; keeps table and plot in benches/results/.
bench-mm2 records="4000000" rounds="3" batch_bytes="16384": setup bench-build
    for program in go python3; do command -v "$program" >/dev/null || { echo "bench-mm2: $program is missing: the copiers to measure beside need Go and Python 3" >&2; exit 1; }; done
    mkdir -p benches/results
    cd benches/peers/franz-go && go build -o ../../../target/release/peers/franz-go .
    name="mm2{{ if batch_bytes == "16384" { "" } else { "-" + batch_bytes } }}"; \
    target/release/bench mm2 {{records}} {{rounds}} {{batch_bytes}} "benches/results/$name.svg" | tee target/mm2.md; \
    mv target/mm2.md "benches/results/$name.md"

# What Strait and MirrorMaker 2 add to a record's way; keeps the table in benches/results/latency.md.
bench-latency seconds="20" rounds="3": setup bench-build
    [ -x target/python/bin/python3 ] || python3 -m venv target/python
    target/python/bin/pip install --quiet confluent-kafka==2.16.1
    target/release/bench latency {{seconds}} {{rounds}} | tee target/latency.md
    mv target/latency.md benches/results/latency.md

# One and eight partitions over a line of 100 ms (network namespaces, so as root); keeps the table in benches/results/wan.md.
bench-wan round_trip_ms="100" seconds="20" records="500000": setup bench-build
    target/release/bench wan {{round_trip_ms}} {{seconds}} {{records}} | tee target/wan.md
    mv target/wan.md benches/results/wan.md

# The mirror alone between brokers that cost nothing, in GB/s per core; keeps the table in benches/results/engine.md.
bench-engine seconds="5" rounds="3": bench-build
    target/release/bench engine {{seconds}} {{rounds}} | tee target/engine.md
    mv target/engine.md benches/results/engine.md

# Resident memory with very many flows and a target that stands still; keeps the table in benches/results/memory.md.
bench-memory flows="2000": bench-build
    target/release/bench memory {{flows}} | tee target/memory.md
    mv target/memory.md benches/results/memory.md

# The static binary beside the usual one, in turns; keeps the table in benches/results/static.md.
bench-static seconds="5" rounds="5": bench-build static
    target/release/bench engine {{seconds}} {{rounds}} target/x86_64-unknown-linux-musl/release/strait | tee target/static.md
    mv target/static.md benches/results/static.md

# What the recipes above measure with.
[private]
bench-build:
    cargo build --release --locked -p strait -p strait-benches

# The release binary as one static file for every x86_64 Linux: built, started, and the demo run with it.
static:
    crates/strait/packaging/static.sh

# Random offsets of groups translated, beside a real MirrorMaker 2; keeps the result in benches/results/offsets.md.
offsets offsets="10000": setup
    mkdir -p benches/results
    STRAIT_OFFSETS={{offsets}} STRAIT_OFFSETS_REPORT="$PWD/benches/results/offsets.md" cargo test --locked -p strait --test offsets -- --nocapture

# Kill the mirror at random instants under load on real Kafka, the brokers too; keeps the result in benches/results/kill.md.
# STRAIT_SEED repeats a schedule.
kill kills="100": setup
    mkdir -p benches/results
    STRAIT_KILLS={{kills}} STRAIT_KILL_REPORT="$PWD/benches/results/kill.md" cargo test --locked -p strait --test exactly_once -- --nocapture
