//! Where the kit's brokers take the time from: the machine, tokio's (pausable) clock, or the test itself.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

/// A source of wall-clock time, in milliseconds since the Unix epoch.
pub trait Clock: Send + Sync {
    /// The present, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// Wall time derived from tokio's clock, so that a paused runtime (`start_paused`) owns it.
///
/// In a runtime that is not paused it advances like the machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    origin: Instant,
    origin_ms: i64,
}

impl TokioClock {
    /// A clock that shows `origin_ms` now and then follows tokio's time.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the kit's own clock seam"
    )]
    pub fn starting_at(origin_ms: i64) -> Self {
        Self {
            origin: Instant::now(),
            origin_ms,
        }
    }
}

impl Clock for TokioClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the kit's own clock seam"
    )]
    fn now_ms(&self) -> i64 {
        let elapsed = Instant::now().saturating_duration_since(self.origin);
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        self.origin_ms.saturating_add(elapsed)
    }
}

/// The machine's wall clock, for brokers that serve real clients over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the kit's own clock seam"
    )]
    fn now_ms(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that moves only when the test moves it.
///
/// Waiting requests (long polls, `acks=all`) still wait in tokio time; what the clock decides is
/// timestamps, expiry and when transaction markers are due.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now_ms` until it is moved.
    #[must_use]
    pub fn new(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms))
    }

    /// Moves the clock forward (or, for a test of clock steps, back) by `ms`.
    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the clock to `now_ms`.
    pub fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}
