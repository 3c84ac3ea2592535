//! What can go wrong between a test and real Kafka.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A failure of the harness itself or of the Kafka it runs; each says what to look at. `Debug` prints the same message, so
/// that a test that unwraps shows it.
#[derive(thiserror::Error)]
pub enum HarnessError {
    /// Something that `just setup` installs is not there, or is older than the sources.
    #[error("the tests against real Kafka need {what}: run `just setup`")]
    NotInstalled {
        /// The missing file or program.
        what: String,
    },
    /// A file or process operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// No pair of free ports was found.
    #[error("no free port between {from} and {to}: are many test runs alive?")]
    NoPort {
        /// First port of the range that was tried.
        from: u16,
        /// Last port of the range that was tried.
        to: u16,
    },
    /// A node ended before it was ready.
    #[error(
        "the Kafka node ended before it was ready ({status}); the end of its log {log}:\n{tail}"
    )]
    NodeEnded {
        /// The exit status of the process.
        status: String,
        /// The node's log file; gone with the cluster unless `STRAIT_KAFKA_KEEP` is set.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },
    /// A node did not become ready, or did not stop, in time.
    #[error("the Kafka node was not {state} within {after:?}; the end of its log {log}:\n{tail}")]
    NodeSlow {
        /// "ready" or "stopped".
        state: &'static str,
        /// How long it was waited for.
        after: Duration,
        /// The node's log file; gone with the cluster unless `STRAIT_KAFKA_KEEP` is set.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },
    /// A node was asked for something that needs it running, or not running.
    #[error("node {node} is {state}")]
    NodeState {
        /// The index of the node, from 0.
        node: usize,
        /// What it is: "running" or "not running".
        state: &'static str,
    },
    /// The oracle answered with an error: Kafka's own exception, by name and message.
    #[error("{command}: {error}")]
    Refused {
        /// The command.
        command: String,
        /// The exception's class and message.
        error: String,
    },
    /// The oracle's process is gone.
    #[error("the oracle's process ended; the end of its log {log}:\n{tail}")]
    OracleEnded {
        /// Its log file.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },
    /// The oracle answered something that does not have the expected shape.
    #[error(
        "{command}: the oracle's answer cannot be read ({source}): its Java and this crate differ"
    )]
    Answer {
        /// The command.
        command: String,
        /// What does not fit.
        source: serde_json::Error,
    },
}

impl fmt::Debug for HarnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl HarnessError {
    /// Names the operation of an I/O error.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
