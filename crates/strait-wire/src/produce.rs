//! Produce, versions 3 to 13. The batches of a request are never copied: the body is a list of segments.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use uuid::Uuid;

use crate::fetch::required;
use crate::{Reader, TopicRef, WireError, Writer};

type Result<T> = std::result::Result<T, WireError>;

const API: &str = "Produce";

/// A Produce request without a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Acknowledgements asked for: -1 all, 1 the leader's, 0 none.
    pub acks: i16,
    /// How long the leader may wait for its followers, in milliseconds.
    pub timeout_ms: i32,
    /// The batches, each of another partition.
    pub partitions: Vec<ProducePartition>,
}

/// One batch of a [`ProduceRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    /// The topic's name; sent up to version 12.
    pub topic: String,
    /// The topic's id; sent from version 13 on.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The segments of ONE batch.
    pub batch: Vec<Bytes>,
}

impl ProducePartition {
    fn size(&self) -> usize {
        self.batch.iter().map(Bytes::len).sum()
    }
}

impl ProduceRequest {
    /// The lowest version spoken: the first that takes magic 2.
    pub const MIN_VERSION: i16 = 3;
    /// The highest version spoken.
    pub const MAX_VERSION: i16 = 13;

    /// The request's body (no request header) as segments, none of them empty: the batches' own slices, and
    /// what stands between them from one buffer. Partitions are grouped by topic, in order of appearance.
    ///
    /// # Errors
    /// [`WireError::Version`]; [`WireError::Encode`] for two batches of one partition (a broker keeps only
    /// the last without a word), an empty batch, one beyond 2 GiB, a name that is too long, or a topic
    /// without id from version 13 on.
    pub fn encode(&self, version: i16) -> Result<Vec<Bytes>> {
        check_version(version)?;
        let flexible = version >= 9;
        let topics = self.by_topic(version)?;
        let mut body = Vec::with_capacity(3 * self.partitions.len() + 1);
        let mut w = Writer::with_capacity(self.glue_hint(&topics));
        w.nullable_string(None, flexible); // transactional id
        w.i16(self.acks);
        w.i32(self.timeout_ms);
        w.len32(Some(topics.len()), flexible);
        for partitions in topics {
            if let Some(first) = partitions.first() {
                match version {
                    13.. => w.uuid(first.topic_id),
                    _ => w.short_string("Produce topic name", &first.topic, flexible)?,
                }
            }
            w.len32(Some(partitions.len()), flexible);
            for p in partitions {
                w.i32(p.partition);
                w.len32(Some(p.size()), flexible);
                body.push(w.split());
                body.extend(p.batch.iter().filter(|s| !s.is_empty()).cloned());
                w.no_tags(flexible);
            }
            w.no_tags(flexible);
        }
        w.no_tags(flexible);
        if !w.is_empty() {
            body.push(w.split());
        }
        Ok(body)
    }

    fn by_topic(&self, version: i16) -> Result<Vec<Vec<&ProducePartition>>> {
        let refuse = |why| {
            Err(WireError::Encode {
                what: "Produce partition",
                why,
            })
        };
        let by_id = version >= 13;
        let mut seen = HashSet::with_capacity(self.partitions.len());
        let mut index = HashMap::new();
        let mut topics: Vec<Vec<&ProducePartition>> = Vec::new();
        for p in &self.partitions {
            if by_id && p.topic_id.is_nil() {
                return refuse("version 13 needs the topic's id");
            }
            match p.size() {
                0 => return refuse("the batch is empty"),
                n if n >= i32::MAX as usize => return refuse("the batch is larger than 2 GiB"),
                _ => {}
            }
            let key = if by_id {
                ("", p.topic_id)
            } else {
                (p.topic.as_str(), Uuid::nil())
            };
            let at = *index.entry(key).or_insert(topics.len());
            if !seen.insert((at, p.partition)) {
                return refuse(
                    "two batches of one partition: the broker would keep only one of them",
                );
            }
            match topics.get_mut(at) {
                Some(topic) => topic.push(p),
                None => topics.push(vec![p]),
            }
        }
        Ok(topics)
    }

    /// Enough for everything but the batches, so that the buffer never moves.
    fn glue_hint(&self, topics: &[Vec<&ProducePartition>]) -> usize {
        let names: usize = topics
            .iter()
            .flat_map(|t| t.first())
            .map(|p| 24 + p.topic.len())
            .sum();
        24 + names + 10 * self.partitions.len()
    }
}

/// A Produce response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceResponse {
    /// How long the broker throttled, in milliseconds.
    pub throttle_ms: i32,
    /// The partitions in the order of the response.
    pub partitions: Vec<ProducedPartition>,
}

/// One partition of a [`ProduceResponse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducedPartition {
    /// The topic.
    pub topic: TopicRef,
    /// The partition.
    pub partition: i32,
    /// The error, 0 for none.
    pub error: i16,
    /// The offset the batch's first record got, -1 for none.
    pub base_offset: i64,
    /// The time the broker stamped in milliseconds, -1 when the topic keeps the producer's.
    pub log_append_time: i64,
    /// The log's start, -1 for unknown (below version 5 always).
    pub log_start_offset: i64,
    /// The broker's words about the error, with those about the first record it names (KIP-467); below
    /// version 8 always none.
    pub message: Option<String>,
    /// The records of the batch that were refused, by their place in it from 0 (KIP-467); empty where the broker
    /// names none, below version 8 always.
    pub refused: Vec<i32>,
}

impl ProduceResponse {
    /// How long the broker reads nothing more from the connection (KIP-219), because the client's quota is used up.
    pub fn throttled(&self) -> Option<std::time::Duration> {
        crate::fetch::pause(self.throttle_ms)
    }

    /// Reads the body of a response (what follows the response header).
    ///
    /// # Errors
    /// [`WireError`] for a version that is not spoken, or a body that is not a response of that version.
    pub fn decode(version: i16, body: Bytes) -> Result<Self> {
        check_version(version)?;
        let flexible = version >= 9;
        let r = &mut Reader::new(body);
        let what = "Produce topics";
        let array = if flexible { 2 } else { 4 }; // partition count, and tags
        let min_topic = TopicRef::min_len(version >= 13, flexible) + array;
        let topics = required(r.array_len(what, flexible, min_topic)?, what, r)?;
        let mut partitions = Vec::new();
        for _ in 0..topics {
            let topic = TopicRef::read(r, version >= 13, flexible)?;
            let what = "Produce partitions";
            let count = required(
                r.array_len(what, flexible, min_partition(version))?,
                what,
                r,
            )?;
            partitions.reserve(count);
            for _ in 0..count {
                partitions.push(ProducedPartition::decode(r, version, topic.clone())?);
            }
            if flexible {
                r.skip_tagged("Produce topic tags")?;
            }
        }
        let throttle_ms = r.i32("Produce throttle time")?;
        if flexible {
            r.skip_tagged("Produce tags")?; // node endpoints (KIP-951): Metadata is asked instead
        }
        r.finish("Produce response")?;
        Ok(Self {
            throttle_ms,
            partitions,
        })
    }
}

/// The least bytes a partition of the response takes.
fn min_partition(version: i16) -> usize {
    match version {
        ..=4 => 22,
        5..=7 => 30,
        8 => 36,
        _ => 33,
    }
}

impl ProducedPartition {
    fn decode(r: &mut Reader, version: i16, topic: TopicRef) -> Result<Self> {
        let flexible = version >= 9;
        let partition = r.i32("Produce partition")?;
        let error = r.i16("Produce partition error")?;
        let base_offset = r.i64("Produce base offset")?;
        let log_append_time = r.i64("Produce log append time")?;
        let log_start_offset = if version >= 5 {
            r.i64("Produce log start offset")?
        } else {
            -1
        };
        let (mut message, mut refused) = (None, Vec::new());
        if version >= 8 {
            let first;
            (refused, first) = record_errors(r, flexible)?;
            message = match (r.nullable_string("Produce error message", flexible)?, first) {
                (Some(whole), Some(record)) => Some(format!("{whole} ({record})")),
                (whole, record) => whole.or(record),
            };
        }
        if flexible {
            r.skip_tagged("Produce partition tags")?; // the new leader (KIP-951)
        }
        Ok(Self {
            topic,
            partition,
            error,
            base_offset,
            log_append_time,
            log_start_offset,
            message,
            refused,
        })
    }
}

/// Reads the list of refused records: their places, and the first one with a message in words.
fn record_errors(r: &mut Reader, flexible: bool) -> Result<(Vec<i32>, Option<String>)> {
    let what = "Produce record errors";
    let count = required(r.array_len(what, flexible, 6)?, what, r)?;
    let mut first = None;
    let mut refused = Vec::with_capacity(count);
    for _ in 0..count {
        let index = r.i32("Produce record index")?;
        refused.push(index);
        let message = r.nullable_string("Produce record error", flexible)?;
        if flexible {
            r.skip_tagged("Produce record error tags")?;
        }
        if let (None, Some(message)) = (&first, message) {
            first = Some(format!("record {index} of the batch: {message}"));
        }
    }
    Ok((refused, first))
}

fn check_version(version: i16) -> Result<()> {
    let (min, max) = (ProduceRequest::MIN_VERSION, ProduceRequest::MAX_VERSION);
    if (min..=max).contains(&version) {
        Ok(())
    } else {
        Err(WireError::Version {
            api: API,
            version,
            min,
            max,
        })
    }
}
