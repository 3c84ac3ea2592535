//! The journal of one history: what the script did, what the engine said, and a hash over all of it.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Lines kept; of warnings all.
const KEPT: usize = 20_000;

#[derive(Debug)]
struct Lines {
    lines: Vec<String>,
    hash: u64,
}

/// Shared by everything that writes to it.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    start: Instant,
    lines: Arc<Mutex<Lines>>,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            lines: Arc::new(Mutex::new(Lines {
                lines: Vec::new(),
                hash: 0xcbf2_9ce4_8422_2325,
            })),
        }
    }

    /// Milliseconds since the history began.
    pub(crate) fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    pub(crate) fn note(&self, line: &str) {
        self.keep(line, false);
    }

    fn keep(&self, line: &str, always: bool) {
        let line = format!("{:>7} {line}", self.now_ms());
        let mut lines = self.lines.lock().unwrap();
        lines.mix(line.as_bytes());
        if always || lines.lines.len() < KEPT {
            lines.lines.push(line);
        }
    }

    /// Adds bytes to the hash only.
    pub(crate) fn mix(&self, bytes: &[u8]) {
        self.lines.lock().unwrap().mix(bytes);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.lines.lock().unwrap().hash
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().lines.clone()
    }
}

impl Lines {
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG && metadata.target().starts_with("strait_engine")
            || *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        let level = *event.metadata().level();
        self.keep(&format!("{level:>5}{}", words.0), level <= Level::WARN);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Runs a history in virtual time, with a journal of its own.
pub(crate) fn live<F: Future>(history: impl FnOnce(Journal) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let journal = Journal::new();
        let _listening = tracing::subscriber::set_default(journal.clone());
        history(journal).await
    })
}
