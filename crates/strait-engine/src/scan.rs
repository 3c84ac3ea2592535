//! Scan: how much of a flow the target's log really holds behind the last sync.
//!
//! A pure machine, fed with the target's batches in order (positions.md in the book, "Scan").

use std::collections::BTreeMap;

use strait_wire::{BatchHeader, Position, SyncKind};
use thiserror::Error;

use crate::sequence::{advance, distance};

/// Why the target's log does not fit the position.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScanError {
    /// Somebody else writes to this partition.
    #[error("offset {offset} was written by another producer (id {producer_id}, epoch {epoch}{})", of_link(.link))]
    Foreign {
        /// Where.
        offset: i64,
        /// Whose.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// The link that it is, where the register of links on the target tells.
        link: Option<String>,
    },
    /// The batch before the position is not the one the sync speaks of.
    #[error(
        "the batch that ends at offset {offset} ends with sequence {found}, but the last sync says {expected}"
    )]
    Anchor {
        /// The last offset of the batch.
        offset: i64,
        /// Its last sequence.
        found: i32,
        /// What the sync expects.
        expected: i32,
    },
    /// Our own sequences do not follow each other.
    #[error("sequence {found} at offset {offset} does not follow {expected}")]
    Sequence {
        /// Where.
        offset: i64,
        /// The sequence found.
        found: i32,
        /// The one that should follow.
        expected: i32,
    },
    /// The log ends before the position: acknowledged records are gone.
    #[error("the log ended at offset {end}, but records up to {expected} had been acknowledged")]
    Lost {
        /// Where it ended.
        end: i64,
        /// Where it should have ended at least.
        expected: i64,
    },
    /// A newer session of this link wrote here although it was never given to anybody.
    #[error(
        "offset {offset} was written under epoch {epoch}, which is newer than this session's sync knows"
    )]
    Newer {
        /// Where.
        offset: i64,
        /// The epoch found.
        epoch: i16,
    },
}

fn of_link(link: &Option<String>) -> String {
    let of = |link: &String| format!(", that is link {link} of Strait");
    link.as_ref().map(of).unwrap_or_default()
}

impl ScanError {
    /// The name under which this kind of failure stands in logs, metrics and the book; it never changes.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "foreign-writer",
            Self::Anchor { .. } | Self::Sequence { .. } => "target-changed",
            Self::Lost { .. } => "target-lost",
            Self::Newer { .. } => "target-newer",
        }
    }

    /// With the name of the link that the producer belongs to, if it is one of these.
    pub(crate) fn named(mut self, links: &BTreeMap<i64, String>) -> Self {
        if let Self::Foreign {
            producer_id, link, ..
        } = &mut self
        {
            *link = links.get(producer_id).cloned();
        }
        self
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => {
                "stop other writers to it and delete the target topic to mirror it anew; or, where others shall write there, set on-foreign-writer = \"continue\" and restart"
            }
            Self::Anchor { .. } | Self::Sequence { .. } | Self::Lost { .. } => {
                "restore the log, or set on-target-lost = \"remirror\" and restart to mirror again what is missing"
            }
            Self::Newer { .. } => "report it, and delete the target topic to mirror it anew",
        }
    }
}

/// Counts the records that the session of a sync appended behind it, up to our marker.
#[derive(Debug)]
pub struct Scan {
    sync: Position,
    marker: (i64, i16),
    log_start: i64,
    cleaned: bool,
    markers: i64,
    next_sequence: i32,
    next_offset: i64,
    seen: bool,
    counted: i64,
    control: i64,
    late: Vec<i64>,
    shared: bool,
    mending: bool,
    cut: Option<i64>,
    displaced: i64,
    done: Option<i64>,
}

/// The result of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Records of the sync's session behind the sync.
    pub records: i64,
    /// The offset after our marker: the target goes on here.
    pub target_next: i64,
    /// Offsets of batches that an older session appended late; their records stand twice.
    pub late: Vec<i64>,
    /// Records that retention removed before they could be counted, so that this many may be repeated.
    pub uncertain: i64,
    /// Where acknowledged records are missing in the middle of the session's, if they are.
    pub cut: Option<i64>,
    /// Records behind that place: they are counted as not forwarded, so they will stand twice.
    pub displaced: i64,
}

impl Scan {
    /// A scan for what follows `sync`, ended by the marker of (producer id, epoch). `log_start` is the
    /// target's log start: offsets from the sync to there can no longer be read. `cleaned`: the target's
    /// log is compacted, so that whole batches may be missing.
    /// `markers`: how many markers sessions begun after the sync may have left, ours included.
    pub fn new(
        sync: Position,
        marker: (i64, i16),
        log_start: i64,
        cleaned: bool,
        markers: i64,
    ) -> Self {
        let (next_sequence, next_offset) = (sync.next_sequence, sync.target_next);
        Self {
            sync,
            marker,
            log_start,
            cleaned,
            markers,
            next_sequence,
            next_offset,
            seen: false,
            counted: 0,
            control: 0,
            late: Vec::new(),
            shared: false,
            mending: false,
            cut: None,
            displaced: 0,
            done: None,
        }
    }

    /// Others write to the partition too: their batches are stepped over, and offsets alone count nothing.
    pub fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Where acknowledged records are missing before others of the same session, what follows counts as not
    /// forwarded, instead of being an error.
    pub fn mending(mut self, mending: bool) -> Self {
        self.mending = mending;
        self
    }

    /// The offset to read from: one below the sync, so that the anchor is seen too.
    pub fn from(&self) -> i64 {
        self.sync
            .target_next
            .saturating_sub(1)
            .max(self.log_start)
            .max(0)
    }

    /// Takes the next batch of the target's log; returns true when our marker was reached.
    ///
    /// # Errors
    /// The log holds what no session of this link can have written there.
    pub fn feed(&mut self, header: &BatchHeader) -> Result<bool, ScanError> {
        if header.attributes.control() {
            let identity = (header.producer_id, header.producer_epoch);
            if header.base_offset >= self.sync.target_next {
                self.control += 1;
                self.next_offset = header.last_offset() + 1;
            } else if identity == self.marker || self.begun_after_sync(identity) {
                return Err(ScanError::Lost {
                    end: header.base_offset,
                    expected: self.sync.target_next,
                });
            }
            if identity == self.marker {
                self.done = Some(header.last_offset() + 1);
            }
            return Ok(self.done.is_some());
        }
        let ours = header.producer_id == self.sync.producer_id
            && header.producer_epoch == self.sync.producer_epoch;
        // Batches end at the sync's offset, so one that reaches over it took the place of others.
        let before = header.last_offset() < self.sync.target_next;
        if before || (ours && header.base_offset < self.sync.target_next) {
            if ours && (!before || advance(header.last_sequence(), 1) != self.sync.next_sequence) {
                return Err(ScanError::Anchor {
                    offset: header.last_offset(),
                    found: header.last_sequence(),
                    expected: self.sync.next_sequence.wrapping_sub(1) & 0x7fff_ffff,
                });
            }
            return Ok(false);
        }
        if !ours {
            return self.not_ours(header);
        }
        if self.cut.is_some() {
            self.displaced += header.last_offset() - header.base_offset + 1;
            return Ok(false);
        }
        if self.seen || self.log_start <= self.sync.target_next {
            // Equal sequences again are a late append of the same batch; a gap cannot be ours.
            if header.base_sequence != self.next_sequence {
                let behind = distance(header.base_sequence, self.next_sequence);
                if behind < i64::from(i32::MAX) / 2 {
                    self.late.push(header.base_offset);
                    return Ok(false);
                }
                // Cleaned away records leave a hole in the offsets as well; a batch that was never stored does not.
                let missing = distance(self.next_sequence, header.base_sequence);
                if !self.cleaned || header.base_offset.saturating_sub(self.next_offset) < missing {
                    if self.mending {
                        self.cut = Some(header.base_offset);
                        self.displaced += header.last_offset() - header.base_offset + 1;
                        return Ok(false);
                    }
                    let (offset, found) = (header.base_offset, header.base_sequence);
                    return Err(ScanError::Sequence {
                        offset,
                        found,
                        expected: self.next_sequence,
                    });
                }
            }
        }
        self.seen = true;
        self.next_offset = header.last_offset() + 1;
        self.next_sequence = advance(header.last_sequence(), 1);
        self.counted = distance(self.sync.next_sequence, self.next_sequence);
        Ok(false)
    }

    /// Whether a marker is of a session begun after the sync: found below the sync's offset, it says that the log
    /// was cut below it and has grown again since.
    fn begun_after_sync(&self, (producer_id, epoch): (i64, i16)) -> bool {
        if producer_id == self.sync.producer_id {
            epoch > self.sync.producer_epoch
        } else {
            producer_id == self.marker.0
        }
    }

    fn not_ours(&mut self, header: &BatchHeader) -> Result<bool, ScanError> {
        if header.producer_id == self.sync.producer_id {
            if header.producer_epoch < self.sync.producer_epoch {
                self.late.push(header.base_offset);
                return Ok(false);
            }
            return Err(ScanError::Newer {
                offset: header.base_offset,
                epoch: header.producer_epoch,
            });
        }
        if self.shared {
            return Ok(false);
        }
        Err(ScanError::Foreign {
            offset: header.base_offset,
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            link: None,
        })
    }

    /// The result, once [`feed`](Self::feed) returned true.
    pub fn finish(self) -> Option<Scanned> {
        let target_next = self.done?;
        let mut scanned = Scanned {
            records: self.counted,
            target_next,
            late: self.late,
            uncertain: 0,
            cut: self.cut,
            displaced: self.displaced,
        };
        let lost = self.log_start.saturating_sub(self.sync.target_next);
        if !self.seen && lost > 0 && self.shared {
            // Whose the lost offsets were cannot be told.
            scanned.uncertain = lost;
        } else if !self.seen && lost > 0 {
            // Retention emptied the log: every lost offset counts as ours, except that each session begun
            // since may have left a marker there. Doubt goes towards repeating.
            let markers = (self.markers - self.control).clamp(0, lost);
            scanned.records = lost - markers;
            scanned.uncertain = markers;
        }
        Some(scanned)
    }
}

/// Whether a flow may go on without a marker: its writer had every answer and ended by itself, under a
/// lease that was closed afterwards.
pub fn ended_cleanly(sync: &Position, lease_closed: bool) -> bool {
    lease_closed && sync.kind == SyncKind::CleanStop
}

#[cfg(test)]
mod tests {
    use strait_wire::Batch;

    use super::*;
    use crate::sample::{position, sample};

    const OLD: (i64, i16) = (7, 3);
    const NEW: (i64, i16) = (7, 4);

    fn sync() -> Position {
        position(Vec::new())
    }

    fn scan(
        log_start: i64,
        marker: (i64, i16),
        log: &[Batch],
    ) -> Result<Option<Scanned>, ScanError> {
        let epochs = i64::from(marker.1) - i64::from(OLD.1);
        let markers = if marker.0 == OLD.0 { epochs } else { 0 };
        let mut scan = Scan::new(sync(), marker, log_start, false, markers);
        for batch in log {
            if scan.feed(&batch.header)? {
                break;
            }
        }
        Ok(scan.finish())
    }

    fn data(base: i64, count: i64, sequence: i32) -> Batch {
        sample(base, count).by(OLD, sequence).batch()
    }

    fn marker(at: i64, by: (i64, i16)) -> Batch {
        sample(at, 1).by(by, -1).marker(false)
    }

    /// A log cut below the sync grows again by the markers of every session that looks at it.
    #[test]
    fn later_markers_do_not_hide_that_the_log_was_cut() {
        let lost = |end| Err(ScanError::Lost { end, expected: 100 });
        let newest = (7, 9);
        assert_eq!(
            scan(0, newest, &[marker(99, NEW), marker(100, newest)]),
            lost(99)
        );
        assert_eq!(scan(0, (8, 0), &[marker(99, (8, 0))]), lost(99));
        // The marker the sync's own session began behind is no sign of it.
        let kept = scan(0, NEW, &[marker(99, OLD), marker(100, NEW)])
            .unwrap()
            .unwrap();
        assert_eq!((kept.records, kept.target_next), (0, 101));
    }

    /// On a compacted target whole batches may be gone, and their offsets with them; a batch that was refused
    /// leaves a hole in the sequences only.
    #[test]
    fn a_cleaned_target_may_lack_batches_but_not_sequences_alone() {
        let feed = |log: &[Batch]| {
            let mut scan = Scan::new(sync(), NEW, 0, true, 1);
            log.iter()
                .map(|batch| scan.feed(&batch.header))
                .collect::<Result<Vec<_>, _>>()
        };
        assert!(feed(&[data(100, 5, 50), data(110, 5, 60)]).is_ok());
        let hole = feed(&[data(100, 5, 50), data(105, 5, 60)]).unwrap_err();
        assert_eq!(
            hole,
            ScanError::Sequence {
                offset: 105,
                found: 60,
                expected: 55
            }
        );
    }

    #[test]
    fn a_scan_counts_the_old_session_up_to_our_marker() {
        let anchor = data(90, 10, 40);
        // (log behind the anchor, records, T')
        let table = [
            (vec![marker(100, NEW)], 0, 101),
            (vec![data(100, 5, 50), marker(105, NEW)], 5, 106),
            (
                vec![data(100, 5, 50), data(105, 7, 55), marker(112, NEW)],
                12,
                113,
            ),
            // Markers of sessions that died early are no records.
            (
                vec![marker(100, (7, 4)), data(101, 5, 50), marker(106, (7, 5))],
                5,
                107,
            ),
        ];
        for (log, records, next) in table {
            let ours = log
                .last()
                .map(|b| (b.header.producer_id, b.header.producer_epoch));
            let log: Vec<Batch> = std::iter::once(anchor.clone()).chain(log).collect();
            let found = scan(0, ours.unwrap(), &log).unwrap().unwrap();
            assert_eq!((found.records, found.target_next), (records, next));
            assert_eq!((found.late.len(), found.uncertain), (0, 0));
        }
    }

    #[test]
    fn a_cleaned_batch_counts_by_its_sequences() {
        let cleaned = sample(100, 10).by(OLD, 50).holding(&[103, 109]);
        let found = scan(0, NEW, &[cleaned, marker(110, NEW)]).unwrap().unwrap();
        assert_eq!(found.records, 10);
    }

    #[test]
    fn what_came_late_is_reported_and_not_counted() {
        let older = sample(105, 4).by((7, 2), 0).batch();
        let repeated = data(109, 5, 50);
        let log = [data(100, 5, 50), older, repeated, marker(114, NEW)];
        let found = scan(0, NEW, &log).unwrap().unwrap();
        assert_eq!((found.records, found.late), (5, vec![105, 109]));
    }

    #[test]
    fn a_log_that_is_not_ours_is_refused() {
        let stranger = sample(100, 1).by((8, 0), 0).batch();
        let newer = sample(100, 1).by((7, 9), 0).batch();
        let table = [
            (vec![stranger], "another producer", "foreign-writer"),
            (vec![newer], "newer than this session", "target-newer"),
            (
                vec![data(90, 9, 40)],
                "the last sync says",
                "target-changed",
            ),
            (
                vec![data(95, 10, 50)],
                "the last sync says",
                "target-changed",
            ),
            (vec![data(100, 5, 55)], "does not follow", "target-changed"),
            (
                vec![marker(99, NEW)],
                "had been acknowledged",
                "target-lost",
            ),
        ];
        for (log, expected, id) in table {
            let error = scan(0, NEW, &log).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.id(), id);
        }
    }

    #[test]
    fn what_retention_removed_counts_as_ours_less_possible_markers() {
        // Offsets 100 to 119 are gone; two sessions began since, and one marker of them may be among those.
        let found = scan(120, (7, 5), &[marker(120, (7, 5))]).unwrap().unwrap();
        assert_eq!((found.records, found.uncertain), (19, 1));
        let found = scan(120, NEW, &[marker(120, NEW)]).unwrap().unwrap();
        assert_eq!((found.records, found.uncertain), (20, 0));
    }

    #[test]
    fn a_shared_log_is_counted_by_our_sequences_alone() {
        let foreign = |base| sample(base, 3).by((99, 0), 0).batch();
        let log = [
            foreign(100),
            data(103, 5, 50),
            foreign(108),
            marker(111, NEW),
        ];
        let count = |log_start, log: &[Batch]| {
            let mut scan = Scan::new(sync(), NEW, log_start, false, 1).shared(true);
            for batch in log {
                if scan.feed(&batch.header).unwrap() {
                    break;
                }
            }
            scan.finish().unwrap()
        };
        let found = count(0, &log);
        assert_eq!((found.records, found.target_next), (5, 112));
        // Emptied by retention: whose the offsets were cannot be told.
        let found = count(120, &[marker(120, NEW)]);
        assert_eq!((found.records, found.uncertain), (0, 20));
    }

    #[test]
    fn records_missing_in_the_middle_end_the_count_where_the_rest_is_mirrored_again() {
        let log = [
            data(100, 5, 50),
            data(105, 4, 70),
            data(109, 2, 74),
            marker(111, NEW),
        ];
        let mut scan = Scan::new(sync(), NEW, 0, false, 1).mending(true);
        for batch in &log {
            scan.feed(&batch.header).unwrap();
        }
        let found = scan.finish().unwrap();
        assert_eq!(
            (found.records, found.cut, found.displaced),
            (5, Some(105), 6)
        );
        assert_eq!(found.target_next, 112);
    }
}
