//! Keeps one trouble from filling the log: the same event is printed at once, then once a minute with a count.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tracing::Level;
use tracing::callsite::Identifier;

use super::fields::Value;
use super::line::Line;

/// How long the same event stays unprinted.
pub(super) const QUIET_MS: i64 = 60_000;
/// Events that are remembered. Beyond this the one printed longest ago is forgotten: it may then be printed sooner.
const REMEMBERED: usize = 2_048;
/// Numbers that say WHICH thing an event is about. All other numbers count something, and change while the trouble
/// stays the same.
const IDENTIFYING: [&str; 5] = ["partition", "broker", "shard", "code", "lane"];

struct Seen {
    printed_ms: i64,
    /// Times it happened since it was last printed.
    held: u64,
    /// The last of them, and when.
    last: Line,
    last_ms: i64,
}

/// An event that was held back.
pub(super) struct Held {
    pub(super) line: Line,
    /// Times it happened since it was last printed.
    pub(super) count: u64,
    /// When it happened last.
    pub(super) last_ms: i64,
}

/// What happened lately.
#[derive(Default)]
pub(super) struct Repeats {
    seen: HashMap<u64, Seen>,
}

impl Repeats {
    /// Whether this event is to be printed now: with how many times it happened since it was last printed, this
    /// time included. What is no trouble (INFO and below) always is.
    pub(super) fn admit(&mut self, callsite: &Identifier, line: &Line, now_ms: i64) -> Option<u64> {
        if line.level > Level::WARN {
            return Some(1);
        }
        let key = key(callsite, line);
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.held += 1;
            // A clock set back must not silence anything.
            if (0..QUIET_MS).contains(&(now_ms - seen.printed_ms)) {
                seen.last = line.clone();
                seen.last_ms = now_ms;
                return None;
            }
            let repeated = seen.held;
            seen.printed_ms = now_ms;
            seen.held = 0;
            return Some(repeated);
        }
        if self.seen.len() >= REMEMBERED {
            let oldest = self
                .seen
                .iter()
                .min_by_key(|(_, seen)| seen.printed_ms)
                .map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.seen.remove(&oldest);
            }
        }
        self.seen.insert(
            key,
            Seen {
                printed_ms: now_ms,
                held: 0,
                last: line.clone(),
                last_ms: now_ms,
            },
        );
        Some(1)
    }

    /// Events held back whose minute is over, or that are `due` all the same, to be printed with their counts and the
    /// time at which they happened last.
    pub(super) fn take_held(&mut self, now_ms: i64, due: impl Fn(&Line) -> bool) -> Vec<Held> {
        let mut held: Vec<Held> = Vec::new();
        self.seen.retain(|_, seen| {
            let over = now_ms.saturating_sub(seen.printed_ms) >= QUIET_MS;
            if !(over || seen.held > 0 && due(&seen.last)) {
                return true;
            }
            if seen.held > 0 {
                held.push(Held {
                    line: seen.last.clone(),
                    count: seen.held,
                    last_ms: seen.last_ms,
                });
                seen.held = 0;
                seen.printed_ms = now_ms;
                return true;
            }
            // It has not happened for a minute: forget it.
            false
        });
        held.sort_by_key(|held| held.last_ms);
        held
    }
}

fn key(callsite: &Identifier, line: &Line) -> u64 {
    let mut hasher = DefaultHasher::new();
    callsite.hash(&mut hasher);
    line.fields.message.hash(&mut hasher);
    for (name, value) in &line.fields.named {
        match value {
            Value::Bare(_) if !IDENTIFYING.contains(name) => {}
            value => (name, value.text()).hash(&mut hasher),
        }
    }
    hasher.finish()
}
