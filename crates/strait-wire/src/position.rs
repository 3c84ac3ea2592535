//! Positions: the `strait.pos` header of the records in `mm2-offset-syncs.<source>.internal`.
//!
//! Header (big endian): INT8 version · INT8 kind · INT8 isolation · INT8 flags · INT64 source next · INT64
//! target next · INT64 forwarded · INT64 producer id · INT16 epoch · INT32 next sequence · INT32 source leader
//! epoch · 16 B source topic id · 16 B target topic id · INT32 target partition · INT64 wall clock ms · STRING
//! target topic · STRING link · INT8 k, k x (INT8 gap reason, INT64 offsets so far) · INT8 k, k x (INT8 gap
//! reason, INT64 from, INT64 to, INT64 offsets), the ranges that were lost · INT32 CRC-32C of all before. STRING is
//! an INT16 length and UTF-8. Version 1 is the same without the ranges, and what is written where there are none: a Strait
//! that reads no later version can go on from it.

use std::fmt;
use std::ops::BitOr;

use bytes::Bytes;
use thiserror::Error;
use uuid::Uuid;

use crate::{Isolation, Losses, OffsetSync, Reader, Record, WireError, Writer};

/// The key of the header that carries a [`Position`].
pub const POSITION_HEADER: &str = "strait.pos";
/// The highest version of the header this build writes and reads. It reads all from 1 on.
pub const POSITION_VERSION: i8 = 2;
/// The first version that lists what was lost by its offsets; a position without losses is written as the one before.
const WITH_LOSSES: i8 = 2;

/// Whether Strait wrote this sync: it has a position, readable or not.
pub fn has_position(record: &Record) -> bool {
    position_of(record).is_some()
}

/// The value of the header with the position; the last one counts.
fn position_of(record: &Record) -> Option<Option<&[u8]>> {
    let mut headers = record.headers.iter().rev();
    let header = headers.find(|(key, _)| key == POSITION_HEADER.as_bytes());
    header.map(|(_, value)| value.as_deref())
}

/// Why a sync was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncKind {
    /// Enough data or time has passed.
    Periodic = 0,
    /// A session begins: before its first data.
    Session = 1,
    /// The flow goes on elsewhere: target lost data, source truncated or re-created.
    Rebase = 2,
    /// The writer had every acknowledgement and ended by itself.
    CleanStop = 3,
    /// Records were lost (refused, or expired): before anything behind them is sent.
    AfterLoss = 4,
    /// The position was taken over from another mirror.
    Takeover = 5,
}

impl SyncKind {
    fn read(value: i8) -> Result<Self, WireError> {
        Ok(match value {
            0 => Self::Periodic,
            1 => Self::Session,
            2 => Self::Rebase,
            3 => Self::CleanStop,
            4 => Self::AfterLoss,
            5 => Self::Takeover,
            _ => {
                return Err(WireError::BadValue {
                    what: "sync kind",
                    value: value.into(),
                });
            }
        })
    }
}

/// Why a source offset has no record on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GapReason {
    /// A transaction marker or another control record.
    Control = 1,
    /// Of an aborted transaction.
    Aborted = 2,
    /// Compacted away, or an empty batch.
    Compacted = 3,
    /// Truncated on the source after an election.
    Truncated = 4,
    /// Deleted by retention before it was read.
    Expired = 5,
    /// Refused by the target.
    Refused = 6,
    /// The source topic was deleted and created again.
    Recreated = 7,
    /// Written to the source by another link.
    OtherLink = 8,
    /// None of these: reported.
    Unexplained = 9,
}

impl GapReason {
    /// Every reason, by number.
    pub const ALL: [Self; 9] = [
        Self::Control,
        Self::Aborted,
        Self::Compacted,
        Self::Truncated,
        Self::Expired,
        Self::Refused,
        Self::Recreated,
        Self::OtherLink,
        Self::Unexplained,
    ];

    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Aborted => "aborted",
            Self::Compacted => "compacted",
            Self::Truncated => "truncated",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Recreated => "re-created",
            Self::OtherLink => "mirrored by another link",
            Self::Unexplained => "unexplained",
        }
    }

    /// Whether records may be lost by it, so that its offsets are listed ([`Losses`]) and not only counted. What
    /// the other reasons leave out was never a record to mirror, and the source's own log tells which offsets it is.
    pub fn is_loss(self) -> bool {
        match self {
            Self::Control | Self::Aborted | Self::Compacted | Self::OtherLink => false,
            Self::Truncated
            | Self::Expired
            | Self::Refused
            | Self::Recreated
            | Self::Unexplained => true,
        }
    }

    pub(crate) fn read(value: i8) -> Result<Self, WireError> {
        let found = Self::ALL.into_iter().find(|r| *r as i8 == value);
        found.ok_or(WireError::BadValue {
            what: "gap reason",
            value: value.into(),
        })
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What holds for the flow while the position was written. Bits this build does not know are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PositionFlags(u8);

impl PositionFlags {
    /// The target partition has other writers too.
    pub const SHARED: Self = Self(1);
    /// The source topic is compacted.
    pub const COMPACTED: Self = Self(2);
    /// Batches of other links are left out.
    pub const PROVENANCE: Self = Self(4);
    /// Target offsets are the source's.
    pub const IDENTICAL: Self = Self(8);
    /// The target deletes what was mirrored a moment ago, and the flow was to stop at that.
    pub const EXPIRED: Self = Self(16);

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for PositionFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Where a flow stands: everything a new session needs to go on without loss or doubles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Why it was written.
    pub kind: SyncKind,
    /// The isolation the source is read with.
    pub isolation: Isolation,
    /// What holds for the flow.
    pub flags: PositionFlags,
    /// S: the next source offset to account for.
    pub source_next: i64,
    /// T: the flow's next target offset.
    pub target_next: i64,
    /// F: records forwarded since the flow began.
    pub forwarded: i64,
    /// The producer id the flow writes with.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// The sequence of the next record.
    pub next_sequence: i32,
    /// The source's leader epoch of the last batch accounted for, -1 for unknown.
    pub source_epoch: i32,
    /// The source topic's id, nil for unknown.
    pub source_topic_id: Uuid,
    /// The target topic's id, nil for unknown.
    pub target_topic_id: Uuid,
    /// The target partition.
    pub target_partition: i32,
    /// When it was written, wall clock in milliseconds.
    pub wall_ms: i64,
    /// The target topic.
    pub target_topic: String,
    /// The link's id.
    pub link: String,
    /// Offsets left out since the flow began, by reason; each reason once.
    pub gaps: Vec<(GapReason, i64)>,
    /// Which of them were lost. A flow that began under version 1 has sums without ranges of that time.
    pub lost: Losses,
}

/// Why a position or a sync record cannot be read. A flow never goes on with a guess: it stops.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PositionError {
    /// Of a version this build does not know.
    #[error(
        "written by a newer Strait (record format {0}, this build reads up to {POSITION_VERSION}): upgrade this instance"
    )]
    NewerVersion(i8),
    /// The checksum does not fit.
    #[error(
        "the position's checksum does not fit its bytes: the record was damaged, and the flow cannot resume from it"
    )]
    Crc,
    /// No position or sync record at all.
    #[error(
        "not a sync record of MirrorMaker 2 or Strait ({0}): only these may be written to the syncs topic"
    )]
    Malformed(#[from] WireError),
}

impl Position {
    /// The header's value. A reason that `gaps` names twice is written once, with the sum. Names are cut at
    /// 32,767 bytes (Kafka allows 249).
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(192 + self.target_topic.len() + self.link.len());
        let with_losses = !self.lost.ranges().is_empty();
        w.i8(if with_losses {
            WITH_LOSSES
        } else {
            WITH_LOSSES - 1
        });
        w.i8(self.kind as i8);
        w.i8(match self.isolation {
            Isolation::ReadUncommitted => 0,
            Isolation::ReadCommitted => 1,
        });
        w.raw(&[self.flags.0]);
        w.i64(self.source_next);
        w.i64(self.target_next);
        w.i64(self.forwarded);
        w.i64(self.producer_id);
        w.i16(self.producer_epoch);
        w.i32(self.next_sequence);
        w.i32(self.source_epoch);
        w.uuid(self.source_topic_id);
        w.uuid(self.target_topic_id);
        w.i32(self.target_partition);
        w.i64(self.wall_ms);
        w.cut_string(&self.target_topic);
        w.cut_string(&self.link);
        let gaps = self.gap_totals();
        w.i8(gaps.len() as i8); // one per reason at most
        for (reason, offsets) in gaps {
            w.i8(reason as i8);
            w.i64(offsets);
        }
        if with_losses {
            self.lost.write(&mut w);
        }
        w.checksum();
        w.split()
    }

    fn gap_totals(&self) -> Vec<(GapReason, i64)> {
        let mut totals: Vec<(GapReason, i64)> =
            Vec::with_capacity(self.gaps.len().min(GapReason::ALL.len()));
        for &(reason, offsets) in &self.gaps {
            match totals.iter_mut().find(|(r, _)| *r == reason) {
                Some((_, total)) => *total = total.saturating_add(offsets),
                None => totals.push((reason, offsets)),
            }
        }
        totals
    }

    /// Reads the header's value.
    ///
    /// # Errors
    /// A newer version, a checksum that does not fit, or bytes that are no position.
    pub fn decode(bytes: &[u8]) -> Result<Self, PositionError> {
        let mut r = Reader::new(Bytes::copy_from_slice(bytes));
        let version = match r.i8("position version")? {
            known @ 1..=POSITION_VERSION => known,
            newer if newer > POSITION_VERSION => return Err(PositionError::NewerVersion(newer)),
            value => {
                return Err(WireError::BadValue {
                    what: "position version",
                    value: value.into(),
                }
                .into());
            }
        };
        let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
            return Err(WireError::Truncated {
                what: "position",
                need: 5,
                have: bytes.len(),
            }
            .into());
        };
        if u32::from_be_bytes(*crc) != crc32c::crc32c(body) {
            return Err(PositionError::Crc);
        }
        let kind = SyncKind::read(r.i8("sync kind")?)?;
        let isolation = match r.i8("sync isolation")? {
            0 => Isolation::ReadUncommitted,
            1 => Isolation::ReadCommitted,
            value => {
                return Err(WireError::BadValue {
                    what: "sync isolation",
                    value: value.into(),
                }
                .into());
            }
        };
        let position = Self {
            kind,
            isolation,
            flags: PositionFlags(r.i8("sync flags")? as u8),
            source_next: r.i64("sync source offset")?,
            target_next: r.i64("sync target offset")?,
            forwarded: r.i64("sync records")?,
            producer_id: r.i64("sync producer id")?,
            producer_epoch: r.i16("sync producer epoch")?,
            next_sequence: r.i32("sync sequence")?,
            source_epoch: r.i32("sync source epoch")?,
            source_topic_id: r.uuid("sync source topic id")?,
            target_topic_id: r.uuid("sync target topic id")?,
            target_partition: r.i32("sync target partition")?,
            wall_ms: r.i64("sync time")?,
            target_topic: r.string("sync target topic", false)?,
            link: r.string("sync link", false)?,
            gaps: read_gaps(&mut r)?,
            lost: if version >= WITH_LOSSES {
                Losses::read(&mut r)?
            } else {
                Losses::default()
            },
        };
        r.u32("sync checksum")?;
        r.finish("position")?;
        Ok(position)
    }
}

fn read_gaps(r: &mut Reader) -> Result<Vec<(GapReason, i64)>, WireError> {
    let what = "sync gaps";
    let count = r.i8(what)?;
    let bad = WireError::BadCount {
        what,
        count: count.into(),
        have: r.remaining(),
    };
    let count = usize::try_from(count).map_err(|_| bad.clone())?;
    if count > GapReason::ALL.len() {
        return Err(bad);
    }
    let mut gaps: Vec<(GapReason, i64)> = Vec::with_capacity(count);
    for _ in 0..count {
        let reason = GapReason::read(r.i8("gap reason")?)?;
        if gaps.iter().any(|(r, _)| *r == reason) {
            return Err(WireError::BadValue {
                what: "gap reason that comes twice",
                value: reason as i64,
            });
        }
        gaps.push((reason, r.i64("gap offsets")?));
    }
    Ok(gaps)
}

/// A record of `mm2-offset-syncs.<source>.internal`: MirrorMaker 2's sync, with a position if Strait wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRecord {
    /// The topic's name on the source.
    pub topic: String,
    /// The partition on the source.
    pub partition: i32,
    /// An offset on the source: S - 1 in Strait's own records, so that MirrorMaker 2 translates at most to T.
    pub upstream: i64,
    /// The offset of the same record on the target: in Strait's own records T - 1, or less where markers lie before T.
    pub downstream: i64,
    /// The position; none in MirrorMaker 2's own syncs, whose next offsets are `upstream + 1`, `downstream + 1`.
    pub position: Option<Position>,
}

impl SyncRecord {
    /// The record to write, stamped `wall_ms`; its offset is 0.
    pub fn to_record(&self, wall_ms: i64) -> Record {
        let sync = OffsetSync {
            topic: self.topic.clone(),
            partition: self.partition,
            upstream: self.upstream,
            downstream: self.downstream,
        };
        let header = |p: &Position| {
            (
                Bytes::from_static(POSITION_HEADER.as_bytes()),
                Some(p.encode()),
            )
        };
        Record {
            offset: 0,
            timestamp: wall_ms,
            key: Some(sync.key()),
            value: Some(sync.value()),
            headers: self.position.iter().map(header).collect(),
        }
    }

    /// Reads a record. Of several `strait.pos` headers the last counts, as in Kafka's own `lastHeader`.
    ///
    /// # Errors
    /// A tombstone, a record that is no sync, or a position that cannot be read.
    pub fn from_record(record: &Record) -> Result<Self, PositionError> {
        let key = record.key.as_deref().unwrap_or_default();
        let value = record.value.as_deref().unwrap_or_default();
        let sync = OffsetSync::decode(key, value)?;
        let position = position_of(record)
            .map(|value| Position::decode(value.unwrap_or_default()))
            .transpose()?;
        Ok(Self {
            topic: sync.topic,
            partition: sync.partition,
            upstream: sync.upstream,
            downstream: sync.downstream,
            position,
        })
    }
}
