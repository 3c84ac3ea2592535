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
    cargo test --workspace --locked

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
ci: lint test
