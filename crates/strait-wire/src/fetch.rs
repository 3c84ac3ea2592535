//! Fetch, versions 4 to 17 (KIP-74 on), without a fetch session.

use bytes::Bytes;
use uuid::Uuid;

use crate::{AbortedTxn, Isolation, Reader, WireError, Writer};

type Result<T> = std::result::Result<T, WireError>;

const API: &str = "Fetch";
/// The longest name a topic can have (Kafka's `Topic.MAX_NAME_LENGTH`).
const MAX_TOPIC_NAME: usize = 249;

/// How a response names its topic: by name, or by id from Fetch and Produce version 13 on (KIP-516).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRef {
    /// The name.
    Name(String),
    /// The id.
    Id(Uuid),
}

impl TopicRef {
    /// The least bytes it takes.
    pub(crate) fn min_len(by_id: bool, compact: bool) -> usize {
        match (by_id, compact) {
            (true, _) => 16,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    /// Reads either form. A name longer than Kafka allows is refused: every partition of the topic gets a
    /// copy, which must not multiply a hostile response.
    pub(crate) fn read(r: &mut Reader, by_id: bool, compact: bool) -> Result<Self> {
        if by_id {
            return Ok(Self::Id(r.uuid("topic id")?));
        }
        let name = r.string("topic name", compact)?;
        if name.len() > MAX_TOPIC_NAME {
            return Err(WireError::BadValue {
                what: "length of a topic name",
                value: name.len() as i64,
            });
        }
        Ok(Self::Name(name))
    }
}

/// A Fetch request of a consumer (replica id -1) outside of any fetch session (id 0, epoch -1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// How long the broker may wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes the broker waits for.
    pub min_bytes: i32,
    /// Bytes the whole response may carry; the first batch comes even if it is larger.
    pub max_bytes: i32,
    /// Whether aborted and open transactions are answered.
    pub isolation: Isolation,
    /// The reader's rack, empty for none; only sent from version 11 on (KIP-392).
    pub rack: String,
    /// What to read, in the order the broker fills the response.
    pub topics: Vec<FetchTopic>,
}

/// One topic of a [`FetchRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    /// The name; sent up to version 12.
    pub name: String,
    /// The id; sent from version 13 on.
    pub id: Uuid,
    /// The partitions.
    pub partitions: Vec<FetchPartition>,
}

/// One partition of a [`FetchTopic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition.
    pub partition: i32,
    /// The leader epoch the reader knows, -1 for none; only sent from version 9 on (KIP-320).
    pub leader_epoch: i32,
    /// The offset to read from.
    pub offset: i64,
    /// The leader epoch of the batch before `offset`, -1 for none; only sent from version 12 on (KIP-595).
    pub last_fetched_epoch: i32,
    /// Bytes of this partition; the first batch comes even if it is larger.
    pub max_bytes: i32,
}

impl FetchRequest {
    /// The lowest version spoken: the first that returns magic 2 unconverted.
    pub const MIN_VERSION: i16 = 4;
    /// The highest version spoken.
    pub const MAX_VERSION: i16 = 17;

    /// The request's body (no request header).
    ///
    /// # Errors
    /// [`WireError::Version`]; [`WireError::Encode`] for a name that is too long, or a topic without id from
    /// version 13 on.
    pub fn encode(&self, version: i16) -> Result<Bytes> {
        check_version(version)?;
        let flexible = version >= 12;
        let mut w = Writer::with_capacity(self.size_hint());
        // From version 15 on the replica is a tagged field with the default -1 (KIP-903).
        if version <= 14 {
            w.i32(-1);
        }
        w.i32(self.max_wait_ms);
        w.i32(self.min_bytes);
        w.i32(self.max_bytes);
        w.i8(match self.isolation {
            Isolation::ReadUncommitted => 0,
            Isolation::ReadCommitted => 1,
        });
        if version >= 7 {
            w.i32(0); // session id
            w.i32(-1); // session epoch: a full fetch, no session wanted (KIP-227)
        }
        w.len32(Some(self.topics.len()), flexible);
        for topic in &self.topics {
            topic.encode(&mut w, version)?;
        }
        if version >= 7 {
            w.len32(Some(0), flexible); // forgotten topics
        }
        if version >= 11 {
            w.short_string("rack", &self.rack, flexible)?;
        }
        w.no_tags(flexible);
        Ok(w.split())
    }

    fn size_hint(&self) -> usize {
        let topics: usize = self
            .topics
            .iter()
            .map(|t| 32 + t.name.len() + 33 * t.partitions.len())
            .sum();
        64 + self.rack.len() + topics
    }
}

impl FetchTopic {
    fn encode(&self, w: &mut Writer, version: i16) -> Result<()> {
        let flexible = version >= 12;
        if version >= 13 {
            if self.id.is_nil() {
                return Err(WireError::Encode {
                    what: "Fetch topic",
                    why: "version 13 needs the topic's id",
                });
            }
            w.uuid(self.id);
        } else {
            w.short_string("Fetch topic name", &self.name, flexible)?;
        }
        w.len32(Some(self.partitions.len()), flexible);
        for p in &self.partitions {
            w.i32(p.partition);
            if version >= 9 {
                w.i32(p.leader_epoch);
            }
            w.i64(p.offset);
            if version >= 12 {
                w.i32(p.last_fetched_epoch);
            }
            if version >= 5 {
                w.i64(-1); // log start offset: followers only
            }
            w.i32(p.max_bytes);
            w.no_tags(flexible);
        }
        w.no_tags(flexible);
        Ok(())
    }
}

/// A Fetch response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponse {
    /// How long the broker throttled, in milliseconds.
    pub throttle_ms: i32,
    /// The error of the whole request, 0 for none; always 0 below version 7.
    pub error: i16,
    /// The partitions in the order of the response.
    pub partitions: Vec<FetchedPartition>,
}

/// One partition of a [`FetchResponse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    /// The topic.
    pub topic: TopicRef,
    /// The partition.
    pub partition: i32,
    /// The error, 0 for none.
    pub error: i16,
    /// The replica's high watermark.
    pub high_watermark: i64,
    /// The replica's last stable offset, -1 for unknown.
    pub last_stable_offset: i64,
    /// The log's start, -1 for unknown (below version 5 always).
    pub log_start_offset: i64,
    /// Where the reader's history parts from the replica's: the largest epoch both may share and its end.
    /// Only answered from version 12 on, to a `last_fetched_epoch`.
    pub diverging: Option<(i32, i64)>,
    /// Transactions aborted within the records; empty also when the broker answered null.
    pub aborted: Vec<AbortedTxn>,
    /// The replica to read from instead, -1 for none.
    pub preferred_replica: i32,
    /// The batches, the last possibly cut: a slice of the input. Empty for null.
    pub records: Bytes,
}

/// A throttle time, where there is one.
pub(crate) fn pause(throttle_ms: i32) -> Option<std::time::Duration> {
    let ms = u64::try_from(throttle_ms).ok().filter(|ms| *ms > 0);
    ms.map(std::time::Duration::from_millis)
}

impl FetchResponse {
    /// How long the broker reads nothing more from the connection (KIP-219), because the client's quota is used up. It may
    /// have answered for no topic at all then.
    pub fn throttled(&self) -> Option<std::time::Duration> {
        pause(self.throttle_ms)
    }

    /// Reads the body of a response (what follows the response header). The records share its memory.
    ///
    /// # Errors
    /// [`WireError`] for a version that is not spoken, or a body that is not a response of that version.
    pub fn decode(version: i16, body: Bytes) -> Result<Self> {
        check_version(version)?;
        let flexible = version >= 12;
        let r = &mut Reader::new(body);
        let throttle_ms = r.i32("Fetch throttle time")?;
        let mut error = 0;
        if version >= 7 {
            error = r.i16("Fetch error")?;
            r.i32("Fetch session id")?;
        }
        let what = "Fetch topics";
        let array = if flexible { 2 } else { 4 }; // partition count, and tags
        let min_topic = TopicRef::min_len(version >= 13, flexible) + array;
        let topics = required(r.array_len(what, flexible, min_topic)?, what, r)?;
        let mut partitions = Vec::new();
        for _ in 0..topics {
            let topic = TopicRef::read(r, version >= 13, flexible)?;
            let what = "Fetch partitions";
            let count = required(
                r.array_len(what, flexible, min_partition(version))?,
                what,
                r,
            )?;
            partitions.reserve(count);
            for _ in 0..count {
                partitions.push(FetchedPartition::decode(r, version, topic.clone())?);
            }
            if flexible {
                r.skip_tagged("Fetch topic tags")?;
            }
        }
        if flexible {
            r.skip_tagged("Fetch tags")?; // node endpoints (KIP-951): Metadata is asked instead
        }
        r.finish("Fetch response")?;
        Ok(Self {
            throttle_ms,
            error,
            partitions,
        })
    }
}

/// The least bytes a partition of the response takes.
fn min_partition(version: i16) -> usize {
    match version {
        ..=4 => 30,
        5..=10 => 38,
        11 => 42,
        _ => 37,
    }
}

impl FetchedPartition {
    fn decode(r: &mut Reader, version: i16, topic: TopicRef) -> Result<Self> {
        let flexible = version >= 12;
        let partition = r.i32("Fetch partition")?;
        let error = r.i16("Fetch partition error")?;
        let high_watermark = r.i64("Fetch high watermark")?;
        let last_stable_offset = r.i64("Fetch last stable offset")?;
        let log_start_offset = if version >= 5 {
            r.i64("Fetch log start offset")?
        } else {
            -1
        };
        let min_aborted = if flexible { 17 } else { 16 };
        let count = r
            .array_len("Fetch aborted transactions", flexible, min_aborted)?
            .unwrap_or(0);
        let mut aborted = Vec::with_capacity(count);
        for _ in 0..count {
            aborted.push(AbortedTxn {
                producer_id: r.i64("aborted producer id")?,
                first_offset: r.i64("aborted first offset")?,
            });
            if flexible {
                r.skip_tagged("aborted transaction tags")?;
            }
        }
        let preferred_replica = if version >= 11 {
            r.i32("Fetch preferred replica")?
        } else {
            -1
        };
        let records = r
            .nullable_bytes("Fetch records", flexible)?
            .unwrap_or_default();
        let mut diverging = None;
        if flexible {
            r.tagged("Fetch partition tags", |tag, mut field| {
                if tag == 0 {
                    let epoch = field.i32("diverging epoch")?;
                    let end = field.i64("diverging end offset")?;
                    // The same test as Kafka's FetchResponse.isDivergingEpoch.
                    diverging = (epoch >= 0).then_some((epoch, end));
                }
                Ok(())
            })?;
        }
        Ok(Self {
            topic,
            partition,
            error,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            diverging,
            aborted,
            preferred_replica,
            records,
        })
    }
}

/// An array that may not be null.
pub(crate) fn required(count: Option<usize>, what: &'static str, r: &Reader) -> Result<usize> {
    count.ok_or(WireError::BadCount {
        what,
        count: -1,
        have: r.remaining(),
    })
}

fn check_version(version: i16) -> Result<()> {
    let (min, max) = (FetchRequest::MIN_VERSION, FetchRequest::MAX_VERSION);
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
