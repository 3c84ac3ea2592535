//! Compares two clusters as a read_committed consumer would see them, and says in words what differs.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::broker::Broker;
use crate::records::KitRecord;

/// Offsets named in one line of a report before it is cut short.
const OFFSETS_NAMED: usize = 8;

/// What identifies a record across clusters: all of it but its offset.
type Content = (
    i64,
    Option<Bytes>,
    Option<Bytes>,
    Vec<(Bytes, Option<Bytes>)>,
);

/// One difference between two partitions. Offsets are those of the cluster named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Source records that the target does not have.
    Missing {
        /// Their source offsets.
        source: Vec<i64>,
    },
    /// Source records that the target has more often than the source.
    Doubled {
        /// Target offsets of the surplus copies.
        target: Vec<i64>,
    },
    /// Target records that the source never had.
    Foreign {
        /// Their target offsets.
        target: Vec<i64>,
    },
    /// The record at the same place differs in its content.
    Changed {
        /// Source offset.
        source: i64,
        /// Target offset.
        target: i64,
        /// What differs: `timestamp`, `key`, `value`, `headers`.
        fields: Vec<&'static str>,
    },
    /// Both sides have the record, but the target has it before one that precedes it on the source.
    OutOfOrder {
        /// Source offset of the record that comes too early on the target.
        source: i64,
        /// Its target offset.
        target: i64,
    },
}

/// The differences of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    /// Topic on the source.
    pub source_topic: String,
    /// Topic on the target.
    pub target_topic: String,
    /// Partition, on both.
    pub partition: i32,
    /// Records a read_committed consumer sees on the source.
    pub source_records: usize,
    /// The same on the target.
    pub target_records: usize,
    /// What differs; empty if nothing does.
    pub differences: Vec<Difference>,
}

/// The result of a comparison. `Display` is for people; [`Report::is_equal`] is for assertions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// One entry per partition compared, in order.
    pub partitions: Vec<PartitionReport>,
}

impl Report {
    /// Whether every partition compared is equal.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.partitions.iter().all(|p| p.differences.is_empty())
    }

    /// Records seen on all source partitions.
    #[must_use]
    pub fn source_records(&self) -> usize {
        self.partitions.iter().map(|p| p.source_records).sum()
    }
}

/// Compares every topic of `source` that does not begin with `__` with the topic that `target_name` maps it to.
///
/// Partitions that exist on one side only are compared with an empty one.
#[must_use]
pub fn compare(source: &Broker, target: &Broker, target_name: impl Fn(&str) -> String) -> Report {
    let target_topics = target.topics();
    let topics = source
        .topics()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("__"));
    let mut report = Report::default();
    for (topic, partitions) in topics {
        let mapped = target_name(&topic);
        let most = partitions.max(target_topics.get(&mapped).copied().unwrap_or(0));
        for partition in 0..most {
            report.partitions.push(compare_partition(
                (source, &topic),
                (target, &mapped),
                partition,
            ));
        }
    }
    report
}

/// Compares one partition of two topics.
#[must_use]
pub fn compare_partition(
    (source, source_topic): (&Broker, &str),
    (target, target_topic): (&Broker, &str),
    partition: i32,
) -> PartitionReport {
    let left = source.records(source_topic, partition, true);
    let right = target.records(target_topic, partition, true);
    PartitionReport {
        source_topic: source_topic.to_owned(),
        target_topic: target_topic.to_owned(),
        partition,
        source_records: left.len(),
        target_records: right.len(),
        differences: differences(&left, &right),
    }
}

fn content(record: &KitRecord) -> Content {
    (
        record.timestamp,
        record.key.clone(),
        record.value.clone(),
        record.headers.clone(),
    )
}

/// What differs between the records of a source and a target, both in offset order.
#[must_use]
pub fn differences(source: &[KitRecord], target: &[KitRecord]) -> Vec<Difference> {
    let same = |(left, right): (&KitRecord, &KitRecord)| {
        (left.timestamp, &left.key, &left.value, &left.headers)
            == (right.timestamp, &right.key, &right.value, &right.headers)
    };
    if source.len() == target.len() && source.iter().zip(target).all(same) {
        return Vec::new();
    }
    let mut places: BTreeMap<Content, Vec<usize>> = BTreeMap::new();
    for (index, record) in source.iter().enumerate().rev() {
        places.entry(content(record)).or_default().push(index);
    }
    let known = places.clone();
    // Each target record takes the first source record of its content that is still free.
    let mut taken: Vec<Option<usize>> = Vec::with_capacity(target.len());
    for record in target {
        taken.push(places.get_mut(&content(record)).and_then(Vec::pop));
    }
    let mut missing: Vec<usize> = places.into_values().flatten().collect();
    missing.sort_unstable();
    let unmatched = target
        .iter()
        .zip(&taken)
        .filter(|(_, place)| place.is_none());
    let (mut doubled, mut foreign): (Vec<_>, Vec<_>) = unmatched
        .map(|(record, _)| record)
        .partition(|record| known.contains_key(&content(record)));
    let mut out = changed(source, target, &taken, &mut missing, &mut foreign);
    if !missing.is_empty() {
        let offsets = missing
            .iter()
            .filter_map(|i| source.get(*i))
            .map(|r| r.offset);
        out.push(Difference::Missing {
            source: offsets.collect(),
        });
    }
    let offsets =
        |records: &mut Vec<&KitRecord>| records.iter().map(|r| r.offset).collect::<Vec<_>>();
    if !doubled.is_empty() {
        out.push(Difference::Doubled {
            target: offsets(&mut doubled),
        });
    }
    if !foreign.is_empty() {
        out.push(Difference::Foreign {
            target: offsets(&mut foreign),
        });
    }
    out.extend(out_of_order(source, target, &taken));
    out
}

/// Pairs a missing source record with a foreign target record that stands at the same place between its neighbours.
fn changed(
    source: &[KitRecord],
    target: &[KitRecord],
    taken: &[Option<usize>],
    missing: &mut Vec<usize>,
    foreign: &mut Vec<&KitRecord>,
) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut expected = 0usize;
    for (record, place) in target.iter().zip(taken) {
        if let Some(place) = place {
            expected = place + 1;
            continue;
        }
        let is_foreign = foreign.iter().any(|f| f.offset == record.offset);
        let (Some(original), true, true) = (
            source.get(expected),
            is_foreign,
            missing.contains(&expected),
        ) else {
            continue;
        };
        let mut fields = Vec::new();
        for (name, differs) in [
            ("timestamp", original.timestamp != record.timestamp),
            ("key", original.key != record.key),
            ("value", original.value != record.value),
            ("headers", original.headers != record.headers),
        ] {
            if differs {
                fields.push(name);
            }
        }
        // Something else altogether is missing plus foreign, not changed.
        if fields.len() <= 2 {
            out.push(Difference::Changed {
                source: original.offset,
                target: record.offset,
                fields,
            });
            missing.retain(|index| *index != expected);
            foreign.retain(|f| f.offset != record.offset);
            expected += 1;
        }
    }
    out
}

fn out_of_order(
    source: &[KitRecord],
    target: &[KitRecord],
    taken: &[Option<usize>],
) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut earliest_later = usize::MAX;
    for (record, place) in target.iter().zip(taken).rev() {
        let Some(place) = *place else { continue };
        if place > earliest_later
            && let Some(original) = source.get(place)
        {
            out.push(Difference::OutOfOrder {
                source: original.offset,
                target: record.offset,
            });
        }
        earliest_later = earliest_later.min(place);
    }
    out.reverse();
    out
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bad: Vec<_> = self
            .partitions
            .iter()
            .filter(|p| !p.differences.is_empty())
            .collect();
        if bad.is_empty() {
            let (records, partitions) = (self.source_records(), self.partitions.len());
            return write!(f, "equal: {records} records in {partitions} partitions");
        }
        writeln!(
            f,
            "{} of {} partitions differ",
            bad.len(),
            self.partitions.len()
        )?;
        for partition in bad {
            write!(f, "{partition}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PartitionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}/{} -> {}/{}: {} records on the source, {} on the target",
            self.source_topic,
            self.partition,
            self.target_topic,
            self.partition,
            self.source_records,
            self.target_records
        )?;
        for difference in &self.differences {
            writeln!(f, "  {difference}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { source } => {
                let (count, list) = (source.len(), Offsets(source));
                write!(f, "{count} missing on the target: source offsets {list}")
            }
            Self::Doubled { target } => {
                let (count, list) = (target.len(), Offsets(target));
                write!(
                    f,
                    "{count} written more than once: surplus copies at target offsets {list}"
                )
            }
            Self::Foreign { target } => {
                let (count, list) = (target.len(), Offsets(target));
                write!(
                    f,
                    "{count} that the source never had: target offsets {list}"
                )
            }
            Self::Changed {
                source,
                target,
                fields,
            } => {
                let fields = fields.join(", ");
                write!(
                    f,
                    "source offset {source} arrived changed at target offset {target}: {fields}"
                )
            }
            Self::OutOfOrder { source, target } => {
                write!(
                    f,
                    "source offset {source} arrived too early, at target offset {target}"
                )
            }
        }
    }
}

/// Offsets as ranges, the first few of them.
struct Offsets<'a>(&'a [i64]);

impl fmt::Display for Offsets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(i64, i64)> = Vec::new();
        for offset in self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *offset => *last = *offset,
                _ => ranges.push((*offset, *offset)),
            }
        }
        for (index, (first, last)) in ranges.iter().take(OFFSETS_NAMED).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}..={last}")?;
            }
        }
        if ranges.len() > OFFSETS_NAMED {
            write!(f, " and {} more ranges", ranges.len() - OFFSETS_NAMED)?;
        }
        Ok(())
    }
}
