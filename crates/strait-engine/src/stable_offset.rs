//! Whether an open transaction holds a flow back: its last stable offset stands still below the high watermark.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// What fetch answers told of a flow's last stable offset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StableOffset {
    held: Option<Held>,
    /// A trouble that was reported and is over, to be said once.
    over: Option<Over>,
}

/// An offset that everybody who reads committed records waits at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The last stable offset: where the oldest open transaction begins.
    pub(crate) offset: i64,
    /// The high watermark as last heard: how much waits.
    pub(crate) high_watermark: i64,
    /// Since when the offset has been seen to stand still.
    pub(crate) since: Instant,
    /// The mirror has come as far.
    reached: bool,
    /// When it is looked at next; none before it was first due.
    again: Option<Instant>,
    said: bool,
}

/// The end of what was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over {
    /// The offset that was waited at.
    pub(crate) offset: i64,
    /// How long it stood still.
    pub(crate) after: Duration,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Ask the leader whose transaction it is, and report it.
    Ask(Held),
    /// Say that it is over.
    Over(Over),
}

impl StableOffset {
    /// A fetch at `head` was answered with these.
    pub(crate) fn heard(&mut self, head: i64, stable: i64, high_watermark: i64, now: Instant) {
        if stable < 0 || high_watermark < 0 {
            return;
        }
        let waits = stable < high_watermark;
        match &mut self.held {
            Some(held) if waits && held.offset == stable => {
                held.high_watermark = high_watermark;
                held.reached |= head >= stable;
            }
            held => {
                if let Some(ended) = held.filter(|held| held.said) {
                    self.over = Some(Over {
                        offset: ended.offset,
                        after: now.saturating_duration_since(ended.since),
                    });
                }
                *held = waits.then_some(Held {
                    offset: stable,
                    high_watermark,
                    since: now,
                    reached: head >= stable,
                    again: None,
                    said: false,
                });
            }
        }
    }

    /// What is to be done, given once: an offset that has stood still for `limit` is asked about, and again every
    /// [`limits::OPEN_TRANSACTION_REMIND`] or, where the answer did not come, after
    /// [`limits::OPEN_TRANSACTION_RETRY`].
    pub(crate) fn due(&mut self, limit: Duration, now: Instant) -> Option<Due> {
        if let Some(over) = self.over.take() {
            return Some(Due::Over(over));
        }
        let held = self.held.as_mut().filter(|held| held.reached)?;
        if now < held.again.unwrap_or(held.since + limit) {
            return None;
        }
        held.again = Some(now + limits::OPEN_TRANSACTION_RETRY);
        Some(Due::Ask(*held))
    }

    /// Whether it still waits at this offset; it is reported then, and not soon again.
    pub(crate) fn reported(&mut self, offset: i64, now: Instant) -> bool {
        match self.held.as_mut().filter(|held| held.offset == offset) {
            Some(held) => {
                held.again = Some(now + limits::OPEN_TRANSACTION_REMIND);
                held.said = true;
                true
            }
            None => false,
        }
    }

    /// Whether the flow has been held back for so long.
    pub(crate) fn held_for(&self, limit: Duration, now: Instant) -> bool {
        self.held
            .is_some_and(|held| held.reached && now >= held.since + limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "some moment to count from")]
    fn begin() -> Instant {
        Instant::now()
    }

    const LIMIT: Duration = Duration::from_secs(300);
    const SECOND: Duration = Duration::from_secs(1);

    /// A flow at offset 40 whose answers say that a transaction is open there.
    fn waiting(now: Instant) -> StableOffset {
        let mut stable = StableOffset::default();
        stable.heard(40, 40, 50, now);
        stable
    }

    #[test]
    fn an_offset_that_stands_still_is_due_after_the_limit_and_reported_every_ten_minutes() {
        let begun = begin();
        let mut stable = waiting(begun);
        assert_eq!(stable.due(LIMIT, begun + LIMIT - SECOND), None);
        stable.heard(40, 40, 70, begun + LIMIT);
        let Some(Due::Ask(held)) = stable.due(LIMIT, begun + LIMIT) else {
            panic!("{stable:?}")
        };
        assert_eq!(
            (held.offset, held.high_watermark, held.since),
            (40, 70, begun)
        );
        assert!(stable.held_for(LIMIT, begun + LIMIT));

        // Nobody answered: it is asked again soon, not at every look.
        let now = begun + LIMIT + SECOND;
        assert_eq!(stable.due(LIMIT, now), None);
        let now = begun + LIMIT + limits::OPEN_TRANSACTION_RETRY;
        assert!(matches!(stable.due(LIMIT, now), Some(Due::Ask(_))));
        assert!(stable.reported(40, now));
        let again = now + limits::OPEN_TRANSACTION_REMIND;
        assert_eq!(stable.due(LIMIT, again - SECOND), None);
        assert!(matches!(stable.due(LIMIT, again), Some(Due::Ask(_))));
    }

    #[test]
    fn the_end_of_what_was_reported_is_said_once() {
        let begun = begin();
        let mut stable = waiting(begun);
        let now = begun + LIMIT;
        assert!(stable.due(LIMIT, now).is_some());
        assert!(stable.reported(40, now));
        stable.heard(40, 55, 55, now + SECOND);
        let over = Over {
            offset: 40,
            after: LIMIT + SECOND,
        };
        assert_eq!(stable.due(LIMIT, now + SECOND), Some(Due::Over(over)));
        assert_eq!(stable.due(LIMIT, now + LIMIT * 9), None);
        assert!(!stable.held_for(LIMIT, now + LIMIT * 9));
        assert!(!stable.reported(40, now + SECOND), "a late answer");
    }

    #[test]
    fn an_offset_that_moves_or_was_not_reached_is_not_due() {
        let begun = begin();
        let mut moving = waiting(begun);
        moving.heard(45, 45, 60, begun + LIMIT - SECOND);
        assert_eq!(moving.due(LIMIT, begun + LIMIT), None);

        let mut behind = StableOffset::default();
        behind.heard(3, 40, 50, begun);
        assert_eq!(behind.due(LIMIT, begun + LIMIT), None);
        behind.heard(40, 40, 50, begun + LIMIT);
        assert!(behind.due(LIMIT, begun + LIMIT).is_some());

        let mut uncommitted = StableOffset::default();
        uncommitted.heard(40, -1, 50, begun);
        assert_eq!(uncommitted.due(LIMIT, begun + LIMIT), None);
    }
}
