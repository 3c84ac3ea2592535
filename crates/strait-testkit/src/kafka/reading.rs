//! What the oracle reads, and how two topics differ.

use super::error::HarnessError;
use super::oracle::Oracle;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use std::fmt;
use std::time::Duration;

/// Which records a consumer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// All below the high watermark.
    ReadUncommitted,
    /// Without those of aborted transactions, up to the first open one.
    ReadCommitted,
}

/// The offsets between which a partition has records.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct Offsets {
    /// The log's first offset.
    pub start: i64,
    /// The next offset: the high watermark, or the last stable offset.
    pub end: i64,
}

/// What to read beside counts and digests, and how long to wait for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpOptions {
    /// Return every record's content.
    pub records: bool,
    /// Return every record's offset and hash; implied by `records`.
    pub hashes: bool,
    /// Before looking for the end, read on until the topic has shown this many records or `wait` is over.
    pub count: u64,
    /// How long to wait for `count`.
    pub wait: Duration,
}

/// A topic as a consumer reads it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Dump {
    /// The partitions in order.
    pub partitions: Vec<PartitionDump>,
}

impl Dump {
    /// Records in all partitions.
    pub fn count(&self) -> u64 {
        self.partitions
            .iter()
            .map(|partition| partition.count)
            .sum()
    }
}

/// A partition as a consumer reads it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartitionDump {
    /// The partition's number.
    pub partition: i32,
    /// The log's first offset.
    pub start: i64,
    /// The offset that the consumer read up to: the high watermark, or the last stable offset.
    pub end: i64,
    /// Records that it was shown.
    pub count: u64,
    /// The offset of the first of them, -1 for none.
    pub first_offset: i64,
    /// The offset of the last of them, -1 for none.
    pub last_offset: i64,
    /// A digest over key, value, headers in order and timestamp of every record in order; not over offsets.
    pub sha256: String,
    /// The records, when they were asked for.
    #[serde(default)]
    pub records: Vec<DumpedRecord>,
}

/// One record as a consumer reads it; beyond offset and hash only when content was asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct DumpedRecord {
    /// Its offset.
    pub offset: i64,
    /// A 128-bit hash of its key, value, headers and timestamp, in hex.
    pub hash: String,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub timestamp: i64,
    /// "CreateTime" or "LogAppendTime".
    #[serde(default)]
    pub timestamp_type: String,
    /// The key.
    #[serde(default, deserialize_with = "bytes")]
    pub key: Option<Vec<u8>>,
    /// The value.
    #[serde(default, deserialize_with = "bytes")]
    pub value: Option<Vec<u8>>,
    /// The headers in order.
    #[serde(default)]
    pub headers: Vec<(String, HeaderValue)>,
}

/// A header's value.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct HeaderValue(
    /// Its bytes, or null.
    #[serde(deserialize_with = "bytes")]
    pub Option<Vec<u8>>,
);

/// How the right topic differs from the left one.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Comparison {
    /// Whether every partition has the same records in the same order.
    pub equal: bool,
    /// The partitions in order; one that only one side has counts as empty on the other.
    pub partitions: Vec<PartitionComparison>,
}

/// How one partition differs.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct PartitionComparison {
    /// The partition's number.
    pub partition: i32,
    /// Whether it has the same records in the same order.
    pub equal: bool,
    /// Records on the left.
    pub left_count: u64,
    /// Records on the right.
    pub right_count: u64,
    /// Records of the left that the right lacks.
    #[serde(default)]
    pub lost: u64,
    /// Records of the left that the right has too often.
    #[serde(default)]
    pub doubled: u64,
    /// Records of the right that the left never had: also those whose content was changed.
    #[serde(default)]
    pub foreign: u64,
    /// The same records in another order.
    #[serde(default)]
    pub reordered: bool,
    /// Left offsets of the first few lost records.
    #[serde(default)]
    pub lost_left_offsets: Vec<i64>,
    /// Right offsets of the first few doubled records, at their last place.
    #[serde(default)]
    pub doubled_right_offsets: Vec<i64>,
    /// Right offsets of the first few foreign records.
    #[serde(default)]
    pub foreign_right_offsets: Vec<i64>,
    /// Where the two first differ.
    #[serde(default)]
    pub first: Option<Difference>,
}

/// The first place at which two partitions differ.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Difference {
    /// How many records are equal before it.
    pub index: u64,
    /// The left record's offset, -1 if the left ends here.
    pub left_offset: i64,
    /// The right record's offset, -1 if the right ends here.
    pub right_offset: i64,
    /// The left record in one line.
    pub left: Option<String>,
    /// The right record in one line.
    pub right: Option<String>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records: u64 = self
            .partitions
            .iter()
            .map(|partition| partition.left_count)
            .sum();
        if self.equal {
            return write!(
                f,
                "equal: {records} records in {} partitions",
                self.partitions.len()
            );
        }
        writeln!(f, "different:")?;
        for p in self.partitions.iter().filter(|partition| !partition.equal) {
            writeln!(
                f,
                "  partition {}: {} records on the left, {} on the right; lost {} (left offsets {:?}), doubled {} \
                 (right offsets {:?}), foreign or changed {} (right offsets {:?}){}",
                p.partition,
                p.left_count,
                p.right_count,
                p.lost,
                p.lost_left_offsets,
                p.doubled,
                p.doubled_right_offsets,
                p.foreign,
                p.foreign_right_offsets,
                if p.reordered { ", reordered" } else { "" },
            )?;
            if let Some(first) = &p.first {
                writeln!(f, "    after {} equal records", first.index)?;
                writeln!(f, "    left:  {}", first.left.as_deref().unwrap_or("(end)"))?;
                writeln!(
                    f,
                    "    right: {}",
                    first.right.as_deref().unwrap_or("(end)")
                )?;
            }
        }
        Ok(())
    }
}

/// Reading. Every call reads with a consumer of its own, which checks CRCs and belongs to no group.
impl Oracle {
    /// The offsets of every partition, in order; the end is the last stable offset for
    /// [`Isolation::ReadCommitted`].
    pub fn offsets(
        &self,
        bootstrap: &str,
        topic: &str,
        isolation: Isolation,
    ) -> Result<Vec<Offsets>, HarnessError> {
        self.ask(
            "offsets",
            json!({"bootstrap": bootstrap, "topic": topic, "isolation": isolation}),
        )
    }

    /// Reads a topic from its first offsets to its present end: counts and digests only.
    pub fn digest(
        &self,
        bootstrap: &str,
        topic: &str,
        isolation: Isolation,
    ) -> Result<Dump, HarnessError> {
        self.dump(bootstrap, topic, isolation, DumpOptions::default())
    }

    /// Reads a topic from its first offsets to its present end.
    pub fn dump(
        &self,
        bootstrap: &str,
        topic: &str,
        isolation: Isolation,
        options: DumpOptions,
    ) -> Result<Dump, HarnessError> {
        self.ask(
            "dump",
            json!({"bootstrap": bootstrap, "topic": topic, "isolation": isolation, "records": options.records,
                   "hashes": options.hashes, "count": options.count, "wait_ms": millis(options.wait)}),
        )
    }

    /// Translates offsets of a source partition as MirrorMaker 2 would, with its own class that reads the topic
    /// `mm2-offset-syncs.<source>.internal` on the target: none where it knows of no sync, -1 where it only knows that
    /// the offset lies before its first one.
    pub fn mm2_translate(
        &self,
        target: &str,
        source: &str,
        (topic, partition): (&str, i32),
        offsets: &[i64],
    ) -> Result<Vec<Option<i64>>, HarnessError> {
        self.ask(
            "mm2_translate",
            json!({"bootstrap": target, "source": source, "topic": topic, "partition": partition, "offsets": offsets}),
        )
    }

    /// Compares a topic (bootstrap, name) with another, partition by partition: content and order, not offsets. Waits
    /// until the right one has shown as many records as the left one, at most for `wait`, then reads it to its end.
    pub fn compare(
        &self,
        left: (&str, &str),
        right: (&str, &str),
        isolation: Isolation,
        wait: Duration,
    ) -> Result<Comparison, HarnessError> {
        let side = |(bootstrap, topic): (&str, &str)| json!({"bootstrap": bootstrap, "topic": topic, "isolation": isolation});
        self.ask(
            "compare",
            json!({"left": side(left), "right": side(right), "wait_ms": millis(wait)}),
        )
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2_000_000)
}

/// Bytes in hex, or null.
fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect();
    match bytes {
        Some(bytes) if rest.is_empty() => Ok(Some(bytes)),
        _ => Err(D::Error::custom(format!("not hex: {text}"))),
    }
}
