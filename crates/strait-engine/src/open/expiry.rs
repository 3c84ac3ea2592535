//! Whether the target deletes what was mirrored a moment ago. Retention counts from the records' own timestamps
//! (`message.timestamp.type=CreateTime`), so that old records can be gone before anybody read them.

use std::time::Duration;

use strait_wire::{Position, PositionFlags, SyncKind};
use tokio::time::Instant;
use tracing::warn;

use crate::error::FlowError;
use crate::open::{Ends, Opening, sync_record};
use crate::spec::{FlowSpec, LinkSpec, Policy};

/// Records that are gone within this time, or within twice as much, were not kept.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What is known of one flow's target partition: offsets, and when everything below them was acknowledged.
#[derive(Debug)]
pub(crate) struct Expiry {
    /// Acknowledged at least [`SOON`] ago, or before the flow was opened.
    old: i64,
    young: (Instant, i64),
    last: (Instant, i64),
    told: bool,
}

impl Expiry {
    /// For a flow opened at this moment whose next record is expected at `target_next`.
    pub(crate) fn new(target_next: i64, now: Instant) -> Self {
        Self {
            old: target_next,
            young: (now, target_next),
            last: (now, target_next),
            told: false,
        }
    }

    /// Takes in an acknowledgement that moved the flow to `target_next` and told where the target's log starts, -1
    /// for unknown. Once, when the log starts above records that were acknowledged less than two minutes ago: the first
    /// offset that went too soon.
    pub(crate) fn noticed(
        &mut self,
        log_start: i64,
        target_next: i64,
        now: Instant,
    ) -> Option<i64> {
        let since = |at: Instant| now.saturating_duration_since(at);
        if since(self.last.0) >= SOON {
            (self.old, self.young) = (self.last.1, self.last);
        } else if since(self.young.0) >= SOON {
            (self.old, self.young) = (self.young.1, self.last);
        }
        self.last = (now, target_next);
        let noticed = log_start > self.old && !self.told;
        self.told |= noticed;
        noticed.then_some(self.old)
    }
}

/// Says that it does, where the flow goes on. The target's log starts at `start`.
pub(crate) fn warn_expired(link: &LinkSpec, flow: &FlowSpec, first: i64, start: i64) {
    let (topic, partition) = (&flow.target_topic, flow.key.partition);
    warn!(
        link = %link.name, id = "target-expired", %topic, partition,
        "the target deletes what was just mirrored: offsets {first} to {} of {topic}-{partition} on cluster {} are gone, its log starts at {start} now; mirroring goes on, and what was deleted is not mirrored again; {ADVICE}",
        start - 1, link.target.alias()
    );
}

/// What helps.
pub(crate) const ADVICE: &str = "if that was retention, which counts from the records' own timestamps, delete the topic there and create it with a retention.ms and a retention.bytes for their age, which config-exclude names if the source topic has others: all is mirrored again";

impl Opening {
    /// Says it, or keeps the flow stopped, where the target deletes what was mirrored a moment ago. That it stops is
    /// persisted: the next process finds nothing else that would tell.
    pub(crate) async fn judge_expiry(
        &mut self,
        ends: &Ends,
        position: &Position,
    ) -> Result<(), FlowError> {
        let stop = self.session.spec.policies.target_expired == Policy::Stop;
        let flagged = stop && position.flags.contains(PositionFlags::EXPIRED);
        // Behind a position of long ago anything may have expired in its time.
        let age_ms = self.session.rt.wall_ms().saturating_sub(position.wall_ms);
        // Among others' records it cannot be told whose went, and when they came.
        let alone = !self.session.spec.shared_target();
        let recent = alone && u128::try_from(age_ms).is_ok_and(|ms| ms < SOON.as_millis());
        if !(recent || flagged || self.expired) {
            return Ok(());
        }
        let start = ends.target.log_start().await?;
        let noticed = self.expired || (recent && start > position.target_next);
        match (stop, noticed) {
            (false, true) => {
                warn_expired(&self.session.spec, &self.spec, position.target_next, start)
            }
            (true, true) if !flagged => self.keep_expired(position).await?,
            _ => {}
        }
        if flagged || (stop && noticed) {
            return Err(FlowError::TargetExpired {
                cluster: self.session.spec.target.alias().to_owned(),
                topic: self.spec.target_topic.clone(),
                partition: self.spec.key.partition,
                start,
            });
        }
        Ok(())
    }

    async fn keep_expired(&mut self, position: &Position) -> Result<(), FlowError> {
        let Some(last) = &self.last else {
            return Ok(());
        };
        let mut sync = match &self.acked {
            Some(acked) if acked.ledger.target_next() > position.target_next => sync_record(
                &self.session,
                &self.spec,
                SyncKind::Periodic,
                &acked.ledger,
                acked.identity,
                acked.ids,
            ),
            _ => last.clone(),
        };
        if let Some(position) = &mut sync.position {
            position.flags = position.flags | PositionFlags::EXPIRED;
        }
        self.keep(sync).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_was_acknowledged_a_moment_ago_is_missed_once() {
        let now = Instant::now();
        let mut expiry = Expiry::new(100, now);
        assert_eq!(expiry.noticed(100, 200, now), None, "what was there before");
        assert_eq!(expiry.noticed(-1, 300, now), None, "not known");
        assert_eq!(expiry.noticed(101, 400, now + SECOND), Some(100));
        assert_eq!(
            expiry.noticed(350, 500, now + SECOND * 2),
            None,
            "said already"
        );
    }

    #[test]
    fn what_goes_after_two_minutes_went_in_its_time() {
        let now = Instant::now();
        // Acknowledged every second, ten offsets at a time; the log starts where it ended so many seconds ago.
        let kept_for = |seconds: i64| {
            let mut expiry = Expiry::new(0, now);
            (1..1_000).any(|s| {
                let start = ((s - seconds) * 10).max(0);
                expiry
                    .noticed(start, s * 10, now + SECOND * u32::try_from(s).unwrap())
                    .is_some()
            })
        };
        assert!(kept_for(30));
        assert!(!kept_for(121));
    }

    #[test]
    fn a_flow_that_was_idle_for_long_misses_nothing() {
        let now = Instant::now();
        let mut expiry = Expiry::new(0, now);
        assert_eq!(expiry.noticed(0, 10, now + SECOND), None);
        assert_eq!(expiry.noticed(0, 20, now + SECOND * 50), None);
        // Everything expired while nothing came.
        assert_eq!(expiry.noticed(20, 30, now + SECOND * 5_000), None);
        assert_eq!(expiry.noticed(30, 40, now + SECOND * 5_001), Some(20));
    }
}
