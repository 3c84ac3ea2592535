//! The records MirrorMaker 2 keeps in its internal topics, byte for byte (big endian, STRING = INT16 length and
//! UTF-8; Kafka's `OffsetSync`, `Checkpoint` and `Heartbeat`).

use bytes::Bytes;

use crate::{Reader, WireError, Writer};

type Result<T> = std::result::Result<T, WireError>;

/// The version of checkpoint and heartbeat values.
const VERSION: i16 = 0;

/// A pair of offsets that stand for the same record: topic `mm2-offset-syncs.<alias>.internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetSync {
    /// The topic's name on the source.
    pub topic: String,
    /// The partition on the source.
    pub partition: i32,
    /// The record's offset on the source.
    pub upstream: i64,
    /// The record's offset on the target.
    pub downstream: i64,
}

impl OffsetSync {
    /// The record's key. Names are cut at 32,767 bytes (Kafka allows 249).
    pub fn key(&self) -> Bytes {
        let mut w = Writer::with_capacity(6 + self.topic.len());
        w.cut_string(&self.topic);
        w.i32(self.partition);
        w.split()
    }

    /// The record's value (it carries no version).
    pub fn value(&self) -> Bytes {
        let mut w = Writer::with_capacity(16);
        w.i64(self.upstream);
        w.i64(self.downstream);
        w.split()
    }

    /// Reads key and value.
    ///
    /// # Errors
    /// Bytes that are no sync.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        let mut k = Reader::new(Bytes::copy_from_slice(key));
        let mut v = Reader::new(Bytes::copy_from_slice(value));
        let sync = Self {
            topic: k.string("sync topic", false)?,
            partition: k.i32("sync partition")?,
            upstream: v.i64("sync upstream offset")?,
            downstream: v.i64("sync downstream offset")?,
        };
        k.finish("sync key")?;
        v.finish("sync value")?;
        Ok(sync)
    }
}

/// A group's position, translated: topic `<source>.checkpoints.internal` on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The consumer group.
    pub group: String,
    /// The topic's name on the target.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The group's offset on the source.
    pub upstream: i64,
    /// The offset on the target. Never negative: Java's `translateOffsets` throws on it.
    pub downstream: i64,
    /// The metadata of the group's commit.
    pub metadata: String,
}

impl Checkpoint {
    /// The record's key. Names are cut at 32,767 bytes.
    pub fn key(&self) -> Bytes {
        let mut w = Writer::with_capacity(8 + self.group.len() + self.topic.len());
        w.cut_string(&self.group);
        w.cut_string(&self.topic);
        w.i32(self.partition);
        w.split()
    }

    /// The record's value. Metadata is cut at 32,767 bytes (brokers allow 4,096).
    pub fn value(&self) -> Bytes {
        let mut w = Writer::with_capacity(20 + self.metadata.len());
        w.i16(VERSION);
        w.i64(self.upstream);
        w.i64(self.downstream);
        w.cut_string(&self.metadata);
        w.split()
    }

    /// Reads key and value.
    ///
    /// # Errors
    /// Bytes that are no checkpoint, or one of another version.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        let mut k = Reader::new(Bytes::copy_from_slice(key));
        let mut v = Reader::new(Bytes::copy_from_slice(value));
        check_version("checkpoint", &mut v)?;
        let checkpoint = Self {
            group: k.string("checkpoint group", false)?,
            topic: k.string("checkpoint topic", false)?,
            partition: k.i32("checkpoint partition")?,
            upstream: v.i64("checkpoint upstream offset")?,
            downstream: v.i64("checkpoint downstream offset")?,
            metadata: v.string("checkpoint metadata", false)?,
        };
        k.finish("checkpoint key")?;
        v.finish("checkpoint value")?;
        Ok(checkpoint)
    }
}

/// A sign of life of a pair of clusters: topic `heartbeats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The source's alias.
    pub source: String,
    /// The target's alias.
    pub target: String,
    /// When it was sent, in milliseconds.
    pub timestamp: i64,
}

impl Heartbeat {
    /// The record's key. Names are cut at 32,767 bytes.
    pub fn key(&self) -> Bytes {
        let mut w = Writer::with_capacity(4 + self.source.len() + self.target.len());
        w.cut_string(&self.source);
        w.cut_string(&self.target);
        w.split()
    }

    /// The record's value.
    pub fn value(&self) -> Bytes {
        let mut w = Writer::with_capacity(10);
        w.i16(VERSION);
        w.i64(self.timestamp);
        w.split()
    }

    /// Reads key and value.
    ///
    /// # Errors
    /// Bytes that are no heartbeat, or one of another version.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        let mut k = Reader::new(Bytes::copy_from_slice(key));
        let mut v = Reader::new(Bytes::copy_from_slice(value));
        check_version("heartbeat", &mut v)?;
        let heartbeat = Self {
            source: k.string("heartbeat source", false)?,
            target: k.string("heartbeat target", false)?,
            timestamp: v.i64("heartbeat timestamp")?,
        };
        k.finish("heartbeat key")?;
        v.finish("heartbeat value")?;
        Ok(heartbeat)
    }
}

fn check_version(api: &'static str, value: &mut Reader) -> Result<()> {
    match value.i16("MirrorMaker record version")? {
        VERSION => Ok(()),
        version => Err(WireError::Version {
            api,
            version,
            min: VERSION,
            max: VERSION,
        }),
    }
}
