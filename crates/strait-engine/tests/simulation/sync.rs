//! Position syncs, read by an own decoder: what the checker knows of them does not come from the code under test.

use bytes::Bytes;
use strait_testkit::KitRecord;

/// One sync as it lies in the target's syncs topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sync {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) upstream: i64,
    pub(crate) downstream: i64,
    pub(crate) kind: u8,
    pub(crate) source_next: i64,
    pub(crate) target_next: i64,
    pub(crate) forwarded: i64,
    pub(crate) producer: (i64, i16),
    pub(crate) next_sequence: i32,
    /// (reason, offsets), reasons as `strait.pos` numbers them.
    pub(crate) gaps: Vec<(u8, i64)>,
    /// What was lost: (reason, from, to, offsets), `to` being the first offset behind.
    pub(crate) lost: Vec<(u8, i64, i64, i64)>,
}

/// The gap reasons the checker looks at.
pub(crate) const CONTROL: u8 = 1;
pub(crate) const ABORTED: u8 = 2;
pub(crate) const COMPACTED: u8 = 3;
pub(crate) const EXPIRED: u8 = 5;
pub(crate) const REFUSED: u8 = 6;
/// Those that lose records: truncated, expired, refused, re-created, unexplained.
const LOSSES: [u8; 5] = [4, EXPIRED, REFUSED, 7, 9];
/// Ranges that a position lists at most.
const LISTED: usize = 32;

struct Bytewise<'a>(&'a [u8]);

impl Bytewise<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn i8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()?).ok()?;
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        String::from_utf8(head.to_vec()).ok()
    }
}

impl Sync {
    /// Reads a record of the syncs topic; `None` if it is not one with a position of version 1 or 2.
    pub(crate) fn read(record: &KitRecord) -> Option<Self> {
        let bytes = |b: &Option<Bytes>| b.clone().unwrap_or_default();
        let (key, value) = (bytes(&record.key), bytes(&record.value));
        let (mut key, mut value) = (Bytewise(&key), Bytewise(&value));
        let (topic, partition) = (key.string()?, key.i32()?);
        let (upstream, downstream) = (value.i64()?, value.i64()?);
        let header = record.headers.iter().find(|h| &h.0[..] == b"strait.pos")?;
        let header = header.1.clone()?;
        let (body, crc) = header.split_at_checked(header.len().checked_sub(4)?)?;
        if crc != crc32c(body).to_be_bytes() {
            return None;
        }
        let mut p = Bytewise(body);
        let (version, kind, _isolation, _flags) = (p.i8()?, p.i8()?, p.i8()?, p.i8()?);
        if !matches!(version, 1 | 2) {
            return None;
        }
        let (source_next, target_next, forwarded) = (p.i64()?, p.i64()?, p.i64()?);
        let producer = (p.i64()?, p.i16()?);
        let (next_sequence, _source_epoch) = (p.i32()?, p.i32()?);
        p.take::<32>()?;
        let (_partition, _wall_ms) = (p.i32()?, p.i64()?);
        let (_target_topic, _link) = (p.string()?, p.string()?);
        let mut gaps = Vec::new();
        for _ in 0..p.i8()? {
            gaps.push((p.i8()?, p.i64()?));
        }
        let mut lost = Vec::new();
        // Version 1 lists nothing.
        for _ in 0..if version == 2 { p.i8()? } else { 0 } {
            lost.push((p.i8()?, p.i64()?, p.i64()?, p.i64()?));
        }
        p.0.is_empty().then_some(Self {
            topic,
            partition,
            upstream,
            downstream,
            kind,
            source_next,
            target_next,
            forwarded,
            producer,
            next_sequence,
            gaps,
            lost,
        })
    }

    /// What is wrong between the sums and the ranges of what was lost.
    pub(crate) fn disagrees(&self) -> Option<String> {
        for reason in 1..=9 {
            let of = self.lost.iter().filter(|(r, ..)| *r == reason);
            let (listed, sum) = (of.map(|l| l.3).sum::<i64>(), self.gap(reason));
            if listed != if LOSSES.contains(&reason) { sum } else { 0 } {
                return Some(format!(
                    "{sum} offsets are left out for reason {reason}, and {listed} are listed"
                ));
            }
        }
        if self.lost.len() > LISTED {
            return Some(format!("{} ranges are listed", self.lost.len()));
        }
        let wrong = self
            .lost
            .iter()
            .find(|(_, from, to, n)| from >= to || *n < 1);
        wrong.map(|range| format!("{range:?} is no range"))
    }

    /// Whether an offset lies in a range that was lost for this reason.
    pub(crate) fn lists(&self, reason: u8, offset: i64) -> bool {
        let holds =
            |&(r, from, to, _): &(u8, i64, i64, i64)| r == reason && (from..to).contains(&offset);
        self.lost.iter().any(holds)
    }

    /// Whether it lies in one that holds nothing else.
    pub(crate) fn lists_exactly(&self, offset: i64) -> bool {
        let holds = |&(_, from, to, n): &(u8, i64, i64, i64)| {
            (from..to).contains(&offset) && n == to - from
        };
        self.lost.iter().any(holds)
    }

    /// Offsets left out for a reason.
    pub(crate) fn gap(&self, reason: u8) -> i64 {
        let of = self.gaps.iter().filter(|(r, _)| *r == reason);
        of.map(|(_, offsets)| offsets).sum()
    }

    /// All offsets left out.
    pub(crate) fn left_out(&self) -> i64 {
        self.gaps.iter().map(|(_, offsets)| offsets).sum()
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
        })
    })
}
