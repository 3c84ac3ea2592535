//! Losses: which source offsets a flow lost, as a bounded list of ranges.
//!
//! Layout (big endian), within a [`Position`](crate::Position): INT8 k, k x (INT8 gap reason · INT64 from · INT64
//! to · INT64 offsets lost in between), sorted by reason, from, to. `to` is the first offset behind the range.

use crate::{GapReason, Reader, WireError, Writer};

/// The most ranges that one flow's position lists: they make it at most 801 bytes longer, and there is a position
/// per flow and second.
pub const LOST_RANGES: usize = 32;

/// Bytes of one range.
const RANGE_BYTES: usize = 25;

/// Source offsets that were lost for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// Why.
    pub reason: GapReason,
    /// The first offset.
    pub from: i64,
    /// The first offset behind it.
    pub to: i64,
    /// How many were lost in between. Less than the width where it is not known which, or where several ranges had
    /// to share an entry; more where those overlapped, because the same offsets were lost in two histories of the
    /// source.
    pub offsets: i64,
}

impl LostRange {
    /// The last offset.
    pub fn last(&self) -> i64 {
        self.to.saturating_sub(1)
    }

    /// How many offsets lie in it.
    pub fn width(&self) -> i64 {
        self.to.saturating_sub(self.from)
    }

    fn place(&self) -> (GapReason, i64, i64) {
        (self.reason, self.from, self.to)
    }

    fn touches(&self, other: &Self) -> bool {
        self.reason == other.reason && (self.to == other.from || other.to == self.from)
    }

    fn joined(self, other: Self) -> Self {
        Self {
            reason: self.reason,
            from: self.from.min(other.from),
            to: self.to.max(other.to),
            offsets: self.offsets.saturating_add(other.offsets),
        }
    }
}

/// What a flow lost since it began.
///
/// Guarantees that every lost offset lies in a range of its reason, and that the ranges' offsets add up to all that
/// were lost for it. As exact as what was added up to [`LOST_RANGES`] ranges; after that the nearest two of one reason share an entry.
/// Ranges that follow each other are one. Those that overlap stay apart while there is room: they are of different
/// histories of the source (a flow went back, or its topic is another one).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    ranges: Vec<LostRange>,
}

impl Losses {
    /// Adds source offsets `[from, to)`. Nothing happens for an empty range, and for a reason that loses nothing
    /// ([`GapReason::is_loss`]).
    pub fn add(&mut self, reason: GapReason, from: i64, to: i64) {
        self.add_among(reason, from, to, i64::MAX);
    }

    /// Adds so many source offsets among `[from, to)`, of which nobody knows any more which they are.
    pub fn add_among(&mut self, reason: GapReason, from: i64, to: i64, offsets: i64) {
        let offsets = offsets.min(to.saturating_sub(from));
        if reason.is_loss() && offsets > 0 {
            self.insert(LostRange {
                reason,
                from,
                to,
                offsets,
            });
        }
    }

    /// Adds all that `other` holds.
    pub fn add_all(&mut self, other: &Self) {
        for range in &other.ranges {
            self.insert(*range);
        }
    }

    /// The ranges, by reason and then by offset.
    pub fn ranges(&self) -> &[LostRange] {
        &self.ranges
    }

    /// How many offsets the ranges of a reason hold.
    pub fn offsets(&self, reason: GapReason) -> i64 {
        let of = self.ranges.iter().filter(|range| range.reason == reason);
        of.fold(0, |sum, range| sum.saturating_add(range.offsets))
    }

    fn insert(&mut self, mut range: LostRange) {
        while let Some(at) = self.ranges.iter().position(|other| other.touches(&range)) {
            range = range.joined(self.ranges.remove(at));
        }
        let at = self
            .ranges
            .partition_point(|other| other.place() < range.place());
        self.ranges.insert(at, range);
        if self.ranges.len() > LOST_RANGES {
            self.join_nearest();
        }
    }

    /// More ranges than reasons: there are always two of one reason. The older two where several are equally near,
    /// so that the latest stay exact longest.
    fn join_nearest(&mut self) {
        let pairs = self.ranges.iter().zip(self.ranges.iter().skip(1));
        let nearest = pairs
            .enumerate()
            .filter(|(_, (a, b))| a.reason == b.reason)
            .min_by_key(|(_, (a, b))| b.from.saturating_sub(a.to).max(0));
        if let Some((at, (a, b))) = nearest {
            let both = a.joined(*b);
            self.ranges.splice(at..at + 2, [both]);
        }
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.i8(self.ranges.len() as i8); // LOST_RANGES at most
        for range in &self.ranges {
            w.i8(range.reason as i8);
            w.i64(range.from);
            w.i64(range.to);
            w.i64(range.offsets);
        }
    }

    pub(crate) fn read(r: &mut Reader) -> Result<Self, WireError> {
        let what = "lost ranges";
        let count = r.i8(what)?;
        let bad = WireError::BadCount {
            what,
            count: count.into(),
            have: r.remaining(),
        };
        let count = usize::try_from(count).map_err(|_| bad.clone())?;
        if count > LOST_RANGES || count * RANGE_BYTES > r.remaining() {
            return Err(bad);
        }
        let mut ranges: Vec<LostRange> = Vec::with_capacity(count);
        for _ in 0..count {
            let range = read_range(r)?;
            if ranges.last().is_some_and(|l| l.place() > range.place()) {
                return Err(WireError::BadValue {
                    what: "lost range that is out of order",
                    value: range.from,
                });
            }
            ranges.push(range);
        }
        Ok(Self { ranges })
    }
}

fn read_range(r: &mut Reader) -> Result<LostRange, WireError> {
    let range = LostRange {
        reason: GapReason::read(r.i8("lost range's reason")?)?,
        from: r.i64("lost range's begin")?,
        to: r.i64("lost range's end")?,
        offsets: r.i64("lost range's offsets")?,
    };
    let wrong = |what, value| Err(WireError::BadValue { what, value });
    if !range.reason.is_loss() {
        return wrong("lost range's reason", range.reason as i64);
    }
    if range.from >= range.to {
        return wrong("lost range's end", range.to);
    }
    if range.offsets < 1 {
        return wrong("lost range's offsets", range.offsets);
    }
    Ok(range)
}
