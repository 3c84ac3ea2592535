//! The ledger: what a flow has forwarded and what it has left out, with the reason; what was lost by its offsets.

use std::time::Duration;

use strait_wire::{GapReason, Losses, Position};
use tokio::time::Instant;

use crate::left_out::LeftOut;
use crate::limits;

/// The account of one flow.
///
/// Guarantees `source_next - first = forwarded + sum(gaps)`: every source offset below
/// [`source_next`](Self::source_next) was forwarded once or stands in a gap counter; where records may be lost by it
/// also in a range, and the ranges' offsets are those of the counters (except for what an older position counted).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    source_next: i64,
    target_next: i64,
    /// Where the record at `source_next` - 1 stands on the target, at the least: markers may lie behind it. None where there
    /// is no record of ours at that offset.
    last_record: Option<i64>,
    forwarded: i64,
    next_sequence: i32,
    source_epoch: i32,
    left_out: LeftOut,
    unsynced_bytes: u64,
    unsynced_since: Option<Instant>,
}

impl Ledger {
    /// A flow's account at its very start: nothing forwarded, nothing left out.
    pub fn begin(source_next: i64, target_next: i64) -> Self {
        Self {
            source_next,
            target_next,
            last_record: None,
            forwarded: 0,
            next_sequence: 0,
            source_epoch: -1,
            left_out: LeftOut::default(),
            unsynced_bytes: 0,
            unsynced_since: None,
        }
    }

    /// The account that a persisted position holds, which was written with an offset sync to this downstream offset.
    pub fn restore(position: &Position, downstream: i64) -> Self {
        let last = position.target_next.saturating_sub(1);
        Self {
            source_next: position.source_next,
            target_next: position.target_next,
            // A sync without a pair tells nothing.
            last_record: Some(if downstream < 0 {
                last
            } else {
                last.min(downstream)
            }),
            forwarded: position.forwarded,
            next_sequence: position.next_sequence,
            source_epoch: position.source_epoch,
            left_out: LeftOut::restore(position),
            unsynced_bytes: 0,
            unsynced_since: None,
        }
    }

    /// S: the next source offset to account for.
    pub fn source_next(&self) -> i64 {
        self.source_next
    }

    /// T: the target offset the next record is expected at.
    pub fn target_next(&self) -> i64 {
        self.target_next
    }

    /// The downstream offset of a sync from `source_next` - 1, which MirrorMaker 2 takes for one record's offsets on both
    /// sides: T - 1, or less where markers lie between the last record and T.
    pub fn downstream(&self) -> i64 {
        let last = self.target_next.saturating_sub(1);
        self.last_record.map_or(last, |record| record.min(last))
    }

    /// F: records forwarded since the flow began.
    pub fn forwarded(&self) -> i64 {
        self.forwarded
    }

    /// The sequence of the next record in the session's epoch.
    pub fn next_sequence(&self) -> i32 {
        self.next_sequence
    }

    /// The source's leader epoch of the last batch accounted for; -1 when unknown.
    pub fn source_epoch(&self) -> i32 {
        self.source_epoch
    }

    /// Offsets left out so far, by reason.
    pub fn gaps(&self) -> Vec<(GapReason, i64)> {
        self.left_out.sums()
    }

    /// Which of them were lost.
    pub fn lost(&self) -> &Losses {
        self.left_out.lost()
    }

    /// The source offset the flow began at.
    pub fn first(&self) -> i64 {
        let counted = self.forwarded.saturating_add(self.left_out.total());
        self.source_next.saturating_sub(counted)
    }

    /// Accounts for an acknowledged batch: source offsets up to and including `last`, of which `count`
    /// were forwarded, now in the target up to `target_next`.
    pub fn forward(&mut self, batch: &Forwarded, target_next: i64, now: Instant) {
        let left_out = (batch.last + 1 - i64::from(batch.count)).saturating_sub(self.source_next);
        self.source_next = batch.last + 1;
        self.forwarded = self.forwarded.saturating_add(i64::from(batch.count));
        self.target_next = target_next;
        self.last_record = Some(target_next.saturating_sub(1));
        self.next_sequence = batch.next_sequence;
        self.source_epoch = batch.source_epoch;
        self.left_out.compacted(left_out);
        self.touch(batch.bytes, now);
    }

    /// Accounts for source offsets `[source_next, to)` that are left out for `reason`; `source_epoch` is the
    /// leader epoch there. A position whose epoch stayed behind would look like a truncated source.
    pub fn leave_out(&mut self, reason: GapReason, to: i64, source_epoch: i32, now: Instant) {
        if to > self.source_next {
            self.left_out.add(reason, self.source_next, to);
            self.source_next = to;
            self.last_record = None;
            self.source_epoch = source_epoch;
            self.touch(0, now);
        }
    }

    /// Moves to a source offset that does not follow from the last one (a re-created or truncated source).
    /// Offsets skipped count as `reason`; a step back lowers nothing that was counted, and the account
    /// goes on from there: ranges of the history before stay listed, and the same offsets may be lost once more.
    pub fn rebase(&mut self, reason: GapReason, source_next: i64, source_epoch: i32) {
        self.left_out.add(reason, self.source_next, source_next);
        self.source_next = source_next;
        self.last_record = Some(self.target_next.saturating_sub(1));
        self.source_epoch = source_epoch;
    }

    /// Accounts for what a resume found beyond the last sync: `records` more forwarded, and what was left
    /// out on the way to `source_next`.
    pub fn resume(&mut self, records: i64, left_out: &LeftOut, source_next: i64, epoch: i32) {
        self.forwarded = self.forwarded.saturating_add(records);
        if records > 0 {
            // Markers may lie among them.
            self.last_record = Some(self.target_next.saturating_add(records - 1));
        } else if source_next != self.source_next {
            self.last_record = None;
        }
        self.left_out.add_all(left_out);
        self.source_next = source_next;
        self.source_epoch = epoch;
    }

    /// Begins a new epoch: the target continues at `target_next`, sequences at 0.
    pub fn new_epoch(&mut self, target_next: i64) {
        self.target_next = target_next;
        self.next_sequence = 0;
    }

    fn touch(&mut self, bytes: u64, now: Instant) {
        self.unsynced_bytes += bytes;
        self.unsynced_since.get_or_insert(now);
    }

    /// Whether a sync is due: enough bytes, or old enough.
    pub fn sync_due(&self, now: Instant) -> bool {
        self.unsynced_since.is_some_and(|since| {
            self.unsynced_bytes >= limits::SYNC_BYTES
                || now.saturating_duration_since(since) >= limits::SYNC_AGE
        })
    }

    /// When the next sync falls due by age; `None` when everything is synced.
    pub fn sync_at(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + limits::SYNC_AGE)
    }

    /// Bytes forwarded since the last sync.
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// A sync of the present position was handed to the log: what follows is unsynced anew.
    pub fn sync_sent(&mut self) {
        self.unsynced_bytes = 0;
        self.unsynced_since = None;
    }

    /// The sync sent last did not get through: the position is due again.
    pub fn sync_failed(&mut self, bytes: u64, now: Instant) {
        self.unsynced_bytes += bytes;
        self.unsynced_since = Some(now.checked_sub(Duration::from_millis(500)).unwrap_or(now));
    }
}

/// What an acknowledgement adds to the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The last source offset that the batch covers.
    pub last: i64,
    /// Records in it.
    pub count: i32,
    /// The sequence after its last record.
    pub next_sequence: i32,
    /// The source's leader epoch of the batch.
    pub source_epoch: i32,
    /// Its size in bytes.
    pub bytes: u64,
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Virtual time.
mod tests {
    use super::*;

    fn batch(last: i64, count: i32, next_sequence: i32) -> Forwarded {
        Forwarded {
            last,
            count,
            next_sequence,
            source_epoch: 3,
            bytes: 100,
        }
    }

    /// MirrorMaker 2 takes a sync for one record's offsets on both sides, and who stands at that record may not go on behind it.
    #[tokio::test(start_paused = true)]
    async fn a_sync_behind_a_marker_does_not_pass_the_record_before() {
        let now = Instant::now();
        let mut ledger = Ledger::begin(0, 0);
        assert_eq!(ledger.downstream(), -1);
        ledger.forward(&batch(9, 10, 10), 10, now);
        assert_eq!(ledger.downstream(), 9);
        // Killed: two records more are found, and a marker is put up behind them.
        ledger.resume(2, &LeftOut::default(), 12, 3);
        ledger.new_epoch(13);
        assert_eq!((ledger.target_next(), ledger.downstream()), (13, 11));
        // Once more, with nothing behind the marker, the next position having been written with that offset.
        ledger.new_epoch(14);
        assert_eq!(ledger.downstream(), 11);
        // The source's own marker is no record of ours: what comes next stands at T.
        ledger.leave_out(GapReason::Control, 13, 3, now);
        assert_eq!(ledger.downstream(), 13);
        ledger.forward(&batch(13, 1, 1), 15, now);
        assert_eq!(ledger.downstream(), 14);
    }

    #[tokio::test(start_paused = true)]
    async fn every_offset_is_forwarded_or_left_out() {
        let now = Instant::now();
        let mut ledger = Ledger::begin(100, 7);
        ledger.forward(&batch(109, 10, 10), 17, now);
        ledger.leave_out(GapReason::Control, 111, 4, now);
        assert_eq!(
            ledger.source_epoch(),
            4,
            "a gap moves the epoch like a batch"
        );
        ledger.forward(&batch(120, 4, 14), 21, now);
        assert_eq!(
            (
                ledger.source_next(),
                ledger.target_next(),
                ledger.forwarded()
            ),
            (121, 21, 14)
        );
        assert_eq!(
            ledger.gaps(),
            vec![(GapReason::Control, 1), (GapReason::Compacted, 6)]
        );
        assert_eq!(ledger.first(), 100, "S - first = F + gaps");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_falls_due_by_bytes_or_by_age() {
        let now = Instant::now();
        let mut ledger = Ledger::begin(0, 0);
        assert_eq!(ledger.sync_at(), None);
        ledger.forward(&batch(0, 1, 1), 1, now);
        assert!(!ledger.sync_due(now));
        assert!(ledger.sync_due(now + limits::SYNC_AGE));
        ledger.forward(
            &Forwarded {
                bytes: limits::SYNC_BYTES,
                ..batch(1, 1, 2)
            },
            2,
            now,
        );
        assert!(ledger.sync_due(now), "4 MiB are due at once");
        ledger.sync_sent();
        assert!(!ledger.sync_due(now + limits::SYNC_AGE));
    }

    /// As the offsets are lost, over a truncation and a restart.
    #[tokio::test(start_paused = true)]
    async fn what_was_lost_is_listed_by_its_offsets() {
        let now = Instant::now();
        let mut ledger = Ledger::begin(100, 0);
        ledger.leave_out(GapReason::Expired, 200, 1, now);
        ledger.leave_out(GapReason::Control, 201, 1, now);
        ledger.leave_out(GapReason::Refused, 203, 1, now);
        ledger.leave_out(GapReason::Refused, 204, 1, now);
        ledger.rebase(GapReason::Truncated, 150, 1);
        let mut found = LeftOut::default();
        found.add(GapReason::Expired, 160, 180);
        ledger.resume(10, &found, 180, 1);
        let listed: Vec<_> = ledger
            .lost()
            .ranges()
            .iter()
            .map(|range| (range.reason, range.from, range.last(), range.offsets))
            .collect();
        let expected = [
            (GapReason::Expired, 100, 199, 100),
            (GapReason::Expired, 160, 179, 20),
            (GapReason::Refused, 201, 203, 3),
        ];
        assert_eq!(listed, expected);
        for (reason, offsets) in ledger.gaps() {
            let lost = if reason.is_loss() { offsets } else { 0 };
            assert_eq!(ledger.lost().offsets(reason), lost, "{reason}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn leaving_out_what_is_behind_changes_nothing() {
        let mut ledger = Ledger::begin(50, 0);
        ledger.leave_out(GapReason::Expired, 40, 9, Instant::now());
        assert_eq!((ledger.source_next(), ledger.gaps().len()), (50, 0));
        assert_eq!(ledger.source_epoch(), -1);
    }

    #[tokio::test(start_paused = true)]
    async fn offsets_at_the_end_of_the_range_do_not_wrap() {
        let mut ledger = Ledger::begin(i64::MIN, 0);
        ledger.rebase(GapReason::Expired, i64::MAX, -1);
        ledger.rebase(GapReason::Expired, 5, -1);
        ledger.leave_out(GapReason::Expired, i64::MAX, 0, Instant::now());
        assert_eq!(ledger.gaps(), vec![(GapReason::Expired, i64::MAX)]);
        assert_eq!(ledger.first(), 0);
    }
}
