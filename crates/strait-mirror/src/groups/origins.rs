//! Where a group stands on a partition that several clusters write to: the first record of any origin that it has not read
//! (groups.md in the book, "Active/active"). The arithmetic alone.

use std::collections::BTreeSet;

use strait_engine::FlowKey;
use strait_wire::{MAX_RUNGS, Position, PositionFlags, SyncKind};
use thiserror::Error;
use uuid::Uuid;

use crate::translation::differ;
use crate::translation::ladder::{Rung, thin};

/// What a link's positions on a cluster tell of one partition there.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    /// Oldest first; neither offset ever goes back. None where they cannot be read.
    rungs: Vec<Rung>,
    /// Nothing was forwarded before the first one.
    begins: bool,
    /// Nothing older belongs to it.
    anew: bool,
    /// The partition that is written to.
    pub(crate) place: FlowKey,
    pub(crate) link: String,
    source_id: Uuid,
    target_id: Uuid,
    /// The newest one that was kept.
    kept: Option<Rung>,
}

impl Passed {
    /// A history that begins with this position, as far as is known.
    pub(crate) fn new(position: &Position) -> Self {
        let mut passed = Self::unreadable(FlowKey {
            topic: String::new(),
            partition: 0,
        });
        passed.restart(position);
        passed.anew = turns(position);
        passed
    }

    /// What is written to `place` by positions that cannot be read.
    pub(crate) fn unreadable(place: FlowKey) -> Self {
        Self {
            rungs: Vec::new(),
            begins: false,
            anew: true,
            place,
            link: String::new(),
            source_id: Uuid::nil(),
            target_id: Uuid::nil(),
            kept: None,
        }
    }

    /// Its positions cannot be relied on from here on.
    pub(crate) fn spoil(&mut self) {
        self.rungs.clear();
        (self.begins, self.anew) = (false, true);
    }

    /// The next position. Whether it goes on from those before.
    pub(crate) fn push(&mut self, position: &Position) -> bool {
        let rung = rung(position);
        let on = self.rungs.last().is_some_and(|last| {
            rung.source >= last.source
                && rung.target >= last.target
                && rung.forwarded >= last.forwarded
        });
        if !on
            || turns(position)
            || position.link != self.link
            || position.target_topic != self.place.topic
            || position.target_partition != self.place.partition
            || differ(&position.source_topic_id, &self.source_id)
            || differ(&position.target_topic_id, &self.target_id)
        {
            self.restart(position);
            return false;
        }
        add(&mut self.rungs, rung);
        true
    }

    fn restart(&mut self, position: &Position) {
        self.rungs = vec![rung(position)];
        self.begins = position.forwarded == 0
            && position.flags.contains(PositionFlags::PROVENANCE)
            && position.kind != SyncKind::Takeover;
        self.anew = true;
        self.place = FlowKey {
            topic: position.target_topic.clone(),
            partition: position.target_partition,
        };
        self.link.clone_from(&position.link);
        self.source_id = position.source_topic_id;
        self.target_id = position.target_topic_id;
    }

    /// Puts what was kept for long before what is known.
    pub(crate) fn before(&mut self, newest_first: &[(i64, i64, i64)]) {
        let Some(&first) = self.rungs.first().filter(|_| !self.anew) else {
            return;
        };
        let mut older = vec![first];
        let mut next = first;
        for &(source, target, forwarded) in newest_first {
            if source <= next.source && target <= next.target && forwarded <= next.forwarded {
                next = Rung {
                    source,
                    target,
                    forwarded,
                };
                older.push(next);
            }
        }
        older.reverse();
        for rung in self.rungs.drain(1..) {
            add(&mut older, rung);
        }
        self.rungs = older;
        self.anew = true;
    }

    /// The positions, newest first, where there are some that were not kept yet; from now on they are.
    pub(crate) fn unkept(&mut self) -> Option<Vec<(i64, i64, i64)>> {
        let last = self.rungs.last().copied();
        if last == self.kept {
            return None;
        }
        self.kept = last;
        let newest_first = self.rungs.iter().rev();
        let all = newest_first.map(|r| (r.source, r.target, r.forwarded));
        Some(all.collect())
    }

    /// No record at or above this source offset stands below what is returned.
    fn stands(&self, source: i64) -> Option<i64> {
        let at = self.rungs.partition_point(|r| r.source <= source);
        let rung = match at.checked_sub(1) {
            Some(at) => self.rungs.get(at),
            None => self.rungs.first().filter(|_| self.begins),
        };
        rung.map(|r| r.target)
    }

    /// Every record below the source offset that is returned stands below `target`, if it was forwarded at all.
    fn read(&self, target: i64) -> Option<i64> {
        let at = self.rungs.partition_point(|r| r.target <= target);
        let rung = match at.checked_sub(1) {
            Some(at) => self.rungs.get(at),
            None => self.rungs.first().filter(|_| self.begins),
        };
        rung.map(|r| r.source)
    }
}

fn rung(position: &Position) -> Rung {
    Rung {
        source: position.source_next,
        target: position.target_next,
        forwarded: position.forwarded,
    }
}

fn turns(position: &Position) -> bool {
    matches!(position.kind, SyncKind::Rebase | SyncKind::Takeover)
}

/// Adds the newest; one between two that tell the same is not kept.
fn add(rungs: &mut Vec<Rung>, rung: Rung) {
    if let [.., before, last] = rungs.as_slice()
        && (before.target == last.target && last.target == rung.target
            || before.source == last.source && last.source == rung.source)
    {
        rungs.pop();
    }
    rungs.push(rung);
    if rungs.len() > MAX_RUNGS {
        thin(rungs);
    }
}

/// Where both sides of a partition ended at the same time: first the target was asked, then the source. So no record of the
/// source at or above an end there stands below the target's end of that time, however long the link brings nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended(Vec<Rung>);

impl Ended {
    /// Both ends, the target's asked before the source's.
    pub(crate) fn push(&mut self, source: i64, target: i64) {
        let rung = Rung {
            source,
            target,
            forwarded: 0,
        };
        let back = |last: &Rung| source < last.source || target < last.target;
        if self.0.last().is_some_and(back) {
            self.0.clear();
        }
        if self.0.last() != Some(&rung) {
            add(&mut self.0, rung);
        }
    }

    fn stands(&self, source: i64) -> Option<i64> {
        let at = self.0.partition_point(|r| r.source <= source);
        self.0.get(at.checked_sub(1)?).map(|r| r.target)
    }
}

/// Who writes to one side of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Writer<'a> {
    /// The id of the cluster that it reads.
    pub(crate) cluster: &'a str,
    /// The partition there.
    pub(crate) from: &'a FlowKey,
    pub(crate) passed: &'a Passed,
}

/// One side of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Side<'a> {
    /// The cluster's id.
    pub(crate) cluster: &'a str,
    pub(crate) place: &'a FlowKey,
    /// The topic's id now, nil for unknown.
    pub(crate) topic_id: Uuid,
    /// Every link that writes to it.
    pub(crate) writers: Vec<Writer<'a>>,
}

/// Why it cannot be known what a group has not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Untold {
    #[error("no link has brought anything from {cluster} to {to} for this topic")]
    NoLink { cluster: String, to: String },
    #[error("the positions of link {0} do not go back that far, or do not go on since then")]
    TooOld(String),
    #[error("the topic was created again since link {0} wrote its last position")]
    Recreated(String),
    #[error("link {0} writes to this topic from one that has another name or number")]
    Elsewhere(String),
    #[error(
        "link {0} is registered, but none of its positions are to be seen (Describe on mm2-offset-syncs.*.internal is needed)"
    )]
    Unseen(String),
    #[error("positions of this topic cannot be read, or their link is not in the register")]
    Unreadable,
}

/// The offset on the side `to` below which every record is one that was read below `committed` on the side `from`, or that is
/// not there: the least over all clusters that records come from.
pub(crate) fn first_unread(
    committed: i64,
    from: &Side<'_>,
    to: &Side<'_>,
    ended: &Ended,
) -> Result<i64, Untold> {
    for side in [from, to] {
        for writer in &side.writers {
            writer.check(side, [from, to])?;
        }
    }
    let mut least = i64::MAX;
    // What was produced where the group has read.
    for writer in to.writers_from(from.cluster)? {
        let stands = writer.passed.stands(committed);
        let stands = stands.max(ended.stands(committed));
        least = least.min(stands.ok_or_else(|| writer.too_old())?);
    }
    // What was produced where it goes on.
    for writer in from.writers_from(to.cluster)? {
        let read = writer.passed.read(committed);
        least = least.min(read.ok_or_else(|| writer.too_old())?);
    }
    // What was produced elsewhere came to both.
    let writers = from.writers.iter().chain(&to.writers);
    let others: BTreeSet<(&str, &FlowKey)> = writers
        .filter(|w| w.cluster != from.cluster && w.cluster != to.cluster)
        .map(|w| (w.cluster, w.from))
        .collect();
    for (cluster, flow) in others {
        let mut read = i64::MAX;
        let mut id = Uuid::nil();
        for writer in from.writers_from(cluster)? {
            writer.is_from(flow)?;
            let its = writer.passed.read(committed);
            read = read.min(its.ok_or_else(|| writer.too_old())?);
            id = writer.passed.source_id;
        }
        for writer in to.writers_from(cluster)? {
            writer.is_from(flow)?;
            if differ(&id, &writer.passed.source_id) {
                return Err(Untold::Recreated(writer.passed.link.clone()));
            }
            let stands = writer.passed.stands(read);
            least = least.min(stands.ok_or_else(|| writer.too_old())?);
        }
    }
    Ok(least)
}

impl<'a> Side<'a> {
    /// Those that bring what was produced on this cluster; one at least.
    fn writers_from(&self, cluster: &str) -> Result<Vec<&Writer<'a>>, Untold> {
        let found = self.writers.iter().filter(|w| w.cluster == cluster);
        let found: Vec<&Writer<'a>> = found.collect();
        if found.is_empty() {
            return Err(Untold::NoLink {
                cluster: cluster.to_owned(),
                to: self.cluster.to_owned(),
            });
        }
        Ok(found)
    }
}

impl Writer<'_> {
    fn too_old(&self) -> Untold {
        Untold::TooOld(self.passed.link.clone())
    }

    fn is_from(&self, flow: &FlowKey) -> Result<(), Untold> {
        if self.from == flow {
            Ok(())
        } else {
            Err(Untold::Elsewhere(self.passed.link.clone()))
        }
    }

    /// Whether its positions are of the topics that are there now.
    fn check(&self, side: &Side<'_>, both: [&Side<'_>; 2]) -> Result<(), Untold> {
        if self.cluster.is_empty() || self.passed.rungs.is_empty() {
            return Err(Untold::Unreadable);
        }
        let link = || self.passed.link.clone();
        if differ(&self.passed.target_id, &side.topic_id) {
            return Err(Untold::Recreated(link()));
        }
        for other in both {
            if other.cluster == self.cluster {
                self.is_from(other.place)?;
                if differ(&self.passed.source_id, &other.topic_id) {
                    return Err(Untold::Recreated(link()));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "origins_test.rs"]
mod tests;
