//! The checker: looks at the target whenever it has changed, with the kit's own codec, and holds it against the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use strait_testkit::Broker;
use strait_testkit::records::{CONTROL as CONTROL_BIT, add_sequence};

use crate::script::{Kind, TopicScript};
use crate::sync::{ABORTED, COMPACTED, CONTROL, Sync};
use crate::traffic::{Fate, Traffic, content};

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// Key, value, headers and timestamp of every target record are those of a source record of that partition.
    Content,
    /// No source record stands twice in the target.
    Once,
    /// A source partition's records keep their order.
    Order,
    /// Aborted records and markers are not forwarded.
    CommittedOnly,
    /// The batches of two (producer id, epoch)s are never interleaved, and sequences have no gap.
    OneWriter,
    /// A sync claims no more than the target holds when it becomes visible, and exactly what it holds.
    Sync,
    /// Every source offset is forwarded or in a gap counter: S - S_first = F + gaps. What is lost is in a range too.
    Account,
    /// Once all is calm, every committed record of the source is in the target.
    Complete,
    /// Once all is calm, the mirror catches up and can be stopped cleanly.
    Drains,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

/// What is known about one target partition.
#[derive(Debug, Default)]
struct Seen {
    /// The target offset to go on reading at.
    end: i64,
    /// Target offset by source offset.
    placed: BTreeMap<i64, i64>,
    /// Data records below each target offset: (offset after a batch, records so far).
    counts: Vec<(i64, i64)>,
    last_source: i64,
    /// The (producer id, epoch)s in the order in which they began, with the next sequence of each.
    writers: Vec<((i64, i16), i32)>,
    /// Next sequence after the batches below an offset: (offset after the batch, writer, next sequence).
    sequences: Vec<(i64, (i64, i16), i32)>,
    /// The claim that was checked last: S and T.
    claimed: (i64, i64),
}

/// Watches one history.
pub(crate) struct Checker {
    source: Broker,
    target: Broker,
    topics: Vec<TopicScript>,
    syncs_topic: String,
    syncs_end: i64,
    seen: BTreeMap<(String, i32), Seen>,
    pub(crate) syncs: u64,
    pub(crate) batches: u64,
    pub(crate) last_syncs: BTreeMap<(String, i32), Sync>,
    pub(crate) violations: Vec<Violation>,
}

impl Checker {
    pub(crate) fn new(
        (source, target): (Broker, Broker),
        topics: &[TopicScript],
        syncs_topic: String,
    ) -> Self {
        let seen = topics
            .iter()
            .flat_map(|t| (0..t.partitions).map(|p| (t.name.clone(), p)))
            .map(|at| {
                let fresh = Seen {
                    last_source: -1,
                    ..Seen::default()
                };
                (at, fresh)
            })
            .collect();
        Self {
            source,
            target,
            topics: topics.to_vec(),
            syncs_topic,
            syncs_end: 0,
            seen,
            syncs: 0,
            batches: 0,
            last_syncs: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    fn violate(&mut self, invariant: Invariant, what: String) {
        self.violations.push(Violation { invariant, what });
    }

    /// Takes everything that was appended to the target since the last look: data first, then what syncs say of it.
    pub(crate) fn look(&mut self, traffic: &Traffic) {
        let partitions: Vec<(String, i32)> = self.seen.keys().cloned().collect();
        for at in partitions {
            if self.target.log_end(&at.0, at.1) > self.seen[&at].end {
                self.look_at(&at, traffic);
            }
        }
        if self.target.log_end(&self.syncs_topic, 0) > self.syncs_end {
            let batches = self.target.read_log(&self.syncs_topic, 0);
            for batch in batches {
                if batch.header.base_offset < self.syncs_end {
                    continue;
                }
                self.syncs_end = batch.header.next_offset();
                if batch.header.has(CONTROL_BIT) {
                    continue;
                }
                for record in batch.records().unwrap() {
                    match Sync::read(&record) {
                        Some(sync) => self.judge_sync(&sync, traffic),
                        None => self.violate(
                            Invariant::Sync,
                            format!("syncs offset {}: not a sync: {record:?}", record.offset),
                        ),
                    }
                }
            }
        }
    }

    fn look_at(&mut self, at: &(String, i32), traffic: &Traffic) {
        let name = format!("{}-{}", at.0, at.1);
        let truth = &traffic.truth[at];
        let log = self.target.read_log(&at.0, at.1);
        let mut found = Vec::new();
        let seen = self.seen.get_mut(at).unwrap();
        for batch in log {
            let header = batch.header;
            if header.base_offset < seen.end {
                continue;
            }
            seen.end = header.next_offset();
            self.batches += 1;
            if header.has(CONTROL_BIT) {
                continue;
            }
            let writer = (header.producer_id, header.producer_epoch);
            let known = seen.writers.iter().position(|(w, _)| *w == writer);
            match known {
                None => {
                    if header.base_sequence != 0 {
                        let what = format!(
                            "{name} target offset {}: {writer:?} begins at sequence {}",
                            header.base_offset, header.base_sequence
                        );
                        found.push((Invariant::OneWriter, what));
                    }
                    seen.writers.push((writer, 0));
                }
                Some(index) if index + 1 < seen.writers.len() => {
                    let (last, _) = seen.writers[seen.writers.len() - 1];
                    let what = format!(
                        "{name} target offset {}: {writer:?} writes behind {last:?}",
                        header.base_offset
                    );
                    found.push((Invariant::OneWriter, what));
                }
                Some(index) if seen.writers[index].1 != header.base_sequence => {
                    let what = format!(
                        "{name} target offset {}: {writer:?} goes on at sequence {} instead of {}",
                        header.base_offset, header.base_sequence, seen.writers[index].1
                    );
                    found.push((Invariant::OneWriter, what));
                }
                Some(_) => {}
            }
            let next = add_sequence(header.last_sequence(), 1);
            if let Some(entry) = seen.writers.iter_mut().find(|(w, _)| *w == writer) {
                entry.1 = next;
            }
            seen.sequences.push((header.next_offset(), writer, next));
            let mut records = 0;
            for record in batch.records().unwrap() {
                records += 1;
                let place = record.offset;
                let Some(&offset) = truth.offsets.get(&content(&record)) else {
                    let what =
                        format!("{name} target offset {place}: no source record is {record:?}");
                    found.push((Invariant::Content, what));
                    continue;
                };
                if truth.fates.get(&offset) != Some(&Fate::Committed) {
                    let what = format!(
                        "{name} target offset {place}: source offset {offset} is {:?}",
                        truth.fates.get(&offset)
                    );
                    found.push((Invariant::CommittedOnly, what));
                }
                if let Some(before) = seen.placed.get(&offset) {
                    let what = format!(
                        "{name}: source offset {offset} stands at target offsets {before} and {place}"
                    );
                    found.push((Invariant::Once, what));
                    continue;
                }
                if offset < seen.last_source {
                    let what = format!(
                        "{name} target offset {place}: source offset {offset} comes after {}",
                        seen.last_source
                    );
                    found.push((Invariant::Order, what));
                }
                seen.last_source = seen.last_source.max(offset);
                seen.placed.insert(offset, place);
            }
            let so_far = seen.counts.last().map_or(0, |(_, n)| *n);
            seen.counts.push((header.next_offset(), so_far + records));
        }
        for (invariant, what) in found {
            self.violate(invariant, what);
        }
    }

    fn judge_sync(&mut self, sync: &Sync, traffic: &Traffic) {
        self.syncs += 1;
        let at = (sync.topic.clone(), sync.partition);
        let name = format!("{}-{} {sync:?}", at.0, at.1);
        let Some(truth) = traffic.truth.get(&at) else {
            return self.violate(Invariant::Sync, format!("{name}: unknown flow"));
        };
        let kind = self.topics.iter().find(|t| t.name == at.0).unwrap().kind;
        let seen = &self.seen[&at];
        let (s, t) = (sync.source_next, sync.target_next);
        let mut found = Vec::new();
        let mut sync_lies = |what: String| found.push((Invariant::Sync, format!("{name}: {what}")));
        if sync.upstream != s - 1 || sync.downstream > t - 1 {
            sync_lies("the pair for MirrorMaker 2 is not S-1 and at most T-1".to_owned());
        }
        // Who stands at that record goes on at the pair's offset on the target.
        let before = seen.placed.get(&(s - 1)).copied().unwrap_or(t - 1);
        if sync.downstream > before {
            sync_lies(format!("the pair leads past the record at {before}"));
        }
        if t > seen.end {
            sync_lies(format!("the target ends at {}", seen.end));
        }
        if (s, t) < seen.claimed || t < seen.claimed.1 {
            sync_lies(format!("an earlier sync claimed {:?}", seen.claimed));
        }
        let stable = self.source.last_stable_offset(&at.0, at.1);
        if s > stable {
            sync_lies(format!("the source is stable up to {stable} only"));
        }
        // What it claims beyond the last claim must be there, and below T.
        for (&offset, &fate) in truth.fates.range(seen.claimed.0.min(s)..s) {
            match (fate, seen.placed.get(&offset)) {
                (Fate::Committed, Some(&place)) if place < t => {}
                (Fate::Committed, None) if kind == Kind::Compacted => {}
                (Fate::Committed, place) => {
                    sync_lies(format!(
                        "source offset {offset} is claimed, but in the target it is at {place:?}"
                    ));
                    break;
                }
                _ => {}
            }
        }
        if let Some((offset, place)) = seen.placed.range(s..).find(|(_, place)| **place < t) {
            sync_lies(format!(
                "source offset {offset} is not claimed, but stands at target offset {place}"
            ));
        }
        let below = seen.counts.partition_point(|(end, _)| *end <= t);
        let records = below.checked_sub(1).map_or(0, |i| seen.counts[i].1);
        if seen
            .counts
            .get(below)
            .is_some_and(|(end, n)| end - (n - records) < t)
        {
            sync_lies("T lies inside a batch".to_owned());
        }
        if sync.forwarded != records {
            sync_lies(format!("{records} records lie below T, not F"));
        }
        let of_writer = seen
            .sequences
            .iter()
            .rev()
            .find(|(end, writer, _)| *end <= t && *writer == sync.producer);
        let expected = of_writer.map_or(0, |(_, _, next)| *next);
        if sync.next_sequence != expected {
            sync_lies(format!("the next sequence at T is {expected}"));
        }
        let mut wrong = |what: String| found.push((Invariant::Account, format!("{name}: {what}")));
        if s != sync.forwarded + sync.left_out() {
            wrong(format!(
                "S - 0 is {s}, but F + gaps is {}",
                sync.forwarded + sync.left_out()
            ));
        }
        if let Some(what) = sync.disagrees() {
            wrong(what);
        }
        let aborted = truth.fates.range(..s).filter(|(_, f)| **f == Fate::Aborted);
        let (written, aborted) = (
            truth.fates.range(..s).count() as i64,
            aborted.count() as i64,
        );
        let markers = s - written;
        if sync.gap(CONTROL) > markers || sync.gap(ABORTED) > aborted {
            wrong(format!(
                "below S lie {markers} markers and {aborted} aborted records"
            ));
        }
        let known = [CONTROL, ABORTED, COMPACTED];
        if let Some((reason, _)) = sync.gaps.iter().find(|(r, n)| *n > 0 && !known.contains(r)) {
            wrong(format!("nothing here can be left out for reason {reason}"));
        }
        self.seen.get_mut(&at).unwrap().claimed = (s, t);
        self.last_syncs.insert(at.clone(), sync.clone());
        for (invariant, what) in found {
            self.violate(invariant, what);
        }
    }

    /// Source records that the target should hold and does not (the first of each partition), once all is calm.
    pub(crate) fn missing(&self, traffic: &Traffic) -> BTreeMap<(String, i32), String> {
        let mut missing = BTreeMap::new();
        for (at, seen) in &self.seen {
            let truth = &traffic.truth[at];
            let compacted = self
                .topics
                .iter()
                .any(|t| t.name == at.0 && t.kind == Kind::Compacted);
            let left: Option<BTreeSet<i64>> = compacted.then(|| {
                let records = self.source.records(&at.0, at.1, true);
                records.iter().map(|r| r.offset).collect()
            });
            let due = truth.fates.iter().filter(|(offset, fate)| {
                **fate == Fate::Committed
                    && !seen.placed.contains_key(offset)
                    && left.as_ref().is_none_or(|left| left.contains(offset))
            });
            let offsets: Vec<i64> = due.map(|(offset, _)| *offset).collect();
            if let Some(first) = offsets.first() {
                let (n, total) = (offsets.len(), truth.fates.len());
                let what = format!(
                    "{}-{}: {n} of {total} records, the first at source offset {first}",
                    at.0, at.1
                );
                missing.insert(at.clone(), what);
            }
        }
        missing
    }

    /// Flows whose last sync does not stand at the end of the source.
    pub(crate) fn unsynced(&self) -> BTreeMap<(String, i32), String> {
        let mut unsynced = BTreeMap::new();
        for at in self.seen.keys() {
            let end = self.source.log_end(&at.0, at.1);
            let synced = self.last_syncs.get(at).map_or(0, |s| s.source_next);
            if synced != end {
                let what = format!("{}-{}: last sync at {synced} of {end}", at.0, at.1);
                unsynced.insert(at.clone(), what);
            }
        }
        unsynced
    }
}
