//! The records of `mm2-strait.internal`: what Strait keeps about its links on every cluster it writes to.
//!
//! Keys begin with an INT8 type, values with INT8 version 1. Big endian; STRING is an INT16 length and UTF-8.
//! - 1 link: STRING link -> STRING source cluster id, STRING target cluster id, INT16 shards, INT64 created ms.
//! - 2 producer: INT64 producer id -> STRING link, INT16 shard, INT16 highest epoch, STRING source cluster id,
//!   STRING target cluster id.
//! - 3 lease: STRING link, INT16 shard -> INT64 producer id, INT16 epoch, STRING instance, INT64 ms, INT8 closed.
//! - 4 ladder: STRING link, STRING source topic, INT32 partition -> INT16 k, k x (INT64 S, INT64 T, INT64 F).
//! - 5 selection: STRING link -> INT32 n, n x (INT32 length and UTF-8 of a pattern), INT64 ms. No pattern and a time
//!   of -1: reset, the configuration file holds. No pattern and any other time: none selected.

use bytes::Bytes;
use thiserror::Error;

use crate::{Reader, Record, WireError, Writer};

/// The version of the values this build writes, and the highest it reads.
pub const REGISTRY_VERSION: i8 = 1;
/// The time of a selection that was reset. No tombstone: a session that reads one stops.
pub const SELECTION_RESET: i64 = -1;
/// The most rungs a ladder has.
pub const MAX_RUNGS: usize = 64;

const LINK: i8 = 1;
const PRODUCER: i8 = 2;
const LEASE: i8 = 3;
const LADDER: i8 = 4;
const SELECTION: i8 = 5;

/// A record of `mm2-strait.internal`. The topic is compacted: the last record of a key counts, and none is
/// ever deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryRecord {
    /// A link that writes to this cluster; key: `link`.
    Link {
        /// The link's id.
        link: String,
        /// The source's cluster id.
        source_cluster: String,
        /// The target's cluster id.
        target_cluster: String,
        /// Its number of shards.
        shards: i16,
        /// When it was first started, in milliseconds.
        created_ms: i64,
    },
    /// A producer id a link ever wrote with; key: `producer_id`. Its batches are still in topics.
    Producer {
        /// The producer id.
        producer_id: i64,
        /// The link's id.
        link: String,
        /// The shard.
        shard: i16,
        /// The highest epoch used.
        highest_epoch: i16,
        /// The source's cluster id.
        source_cluster: String,
        /// The target's cluster id.
        target_cluster: String,
    },
    /// Who writes for a shard; key: `link`, `shard`.
    Lease {
        /// The link's id.
        link: String,
        /// The shard.
        shard: i16,
        /// The owner's producer id.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// The owner's name.
        instance: String,
        /// When it was renewed, wall clock in milliseconds.
        wall_ms: i64,
        /// Whether the owner ended with every acknowledgement.
        closed: bool,
    },
    /// Positions a flow has passed; key: `link`, `topic`, `partition`.
    Ladder {
        /// The link's id.
        link: String,
        /// The source topic.
        topic: String,
        /// The source partition.
        partition: i32,
        /// Source offset, target offset, records forwarded: the newest first, at most [`MAX_RUNGS`].
        rungs: Vec<(i64, i64, i64)>,
    },
    /// The topics a link mirrors, as set at run time; key: `link`.
    Selection {
        /// The link's id.
        link: String,
        /// The patterns; none selects nothing.
        includes: Vec<String>,
        /// When it was set, wall clock in milliseconds; [`SELECTION_RESET`] without patterns: none is set any more.
        wall_ms: i64,
    },
}

/// Why a registry record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A known type in a version this build does not know.
    #[error(
        "written by a newer Strait (record format {0}, this build reads up to {REGISTRY_VERSION}): upgrade this instance"
    )]
    NewerVersion(i8),
    /// A type this build does not know: readers ignore such records.
    #[error("record type {0} is not known to this build: ignored")]
    UnknownType(i8),
    /// No registry record at all.
    #[error("not a record of Strait's registry ({0}): nothing else may be written to its topic")]
    Malformed(#[from] WireError),
}

impl RegistryRecord {
    /// The record to write, stamped `wall_ms` (the present, so that producer state on the topic does not age);
    /// its offset is 0. Names are cut at 32,767 bytes (Kafka allows 249); of a ladder's rungs the first
    /// [`MAX_RUNGS`] are written.
    pub fn to_record(&self, wall_ms: i64) -> Record {
        Record {
            offset: 0,
            timestamp: wall_ms,
            key: Some(self.key()),
            value: Some(self.value()),
            headers: Vec::new(),
        }
    }

    fn key(&self) -> Bytes {
        let mut w = Writer::with_capacity(64);
        match self {
            Self::Link { link, .. } => {
                w.i8(LINK);
                w.cut_string(link);
            }
            Self::Producer { producer_id, .. } => {
                w.i8(PRODUCER);
                w.i64(*producer_id);
            }
            Self::Lease { link, shard, .. } => {
                w.i8(LEASE);
                w.cut_string(link);
                w.i16(*shard);
            }
            Self::Ladder {
                link,
                topic,
                partition,
                ..
            } => {
                w.i8(LADDER);
                w.cut_string(link);
                w.cut_string(topic);
                w.i32(*partition);
            }
            Self::Selection { link, .. } => {
                w.i8(SELECTION);
                w.cut_string(link);
            }
        }
        w.split()
    }

    fn value(&self) -> Bytes {
        let mut w = Writer::with_capacity(128);
        w.i8(REGISTRY_VERSION);
        match self {
            Self::Link {
                source_cluster,
                target_cluster,
                shards,
                created_ms,
                ..
            } => {
                w.cut_string(source_cluster);
                w.cut_string(target_cluster);
                w.i16(*shards);
                w.i64(*created_ms);
            }
            Self::Producer {
                link,
                shard,
                highest_epoch,
                source_cluster,
                target_cluster,
                ..
            } => {
                w.cut_string(link);
                w.i16(*shard);
                w.i16(*highest_epoch);
                w.cut_string(source_cluster);
                w.cut_string(target_cluster);
            }
            Self::Lease {
                producer_id,
                epoch,
                instance,
                wall_ms,
                closed,
                ..
            } => {
                w.i64(*producer_id);
                w.i16(*epoch);
                w.cut_string(instance);
                w.i64(*wall_ms);
                w.i8((*closed).into());
            }
            Self::Ladder { rungs, .. } => {
                let rungs = rungs.get(..MAX_RUNGS).unwrap_or(rungs);
                w.i16(rungs.len() as i16);
                for (source, target, forwarded) in rungs {
                    w.i64(*source);
                    w.i64(*target);
                    w.i64(*forwarded);
                }
            }
            Self::Selection {
                includes, wall_ms, ..
            } => {
                w.len32(Some(includes.len()), false);
                for pattern in includes {
                    w.len32(Some(pattern.len()), false); // a pattern must not be cut: 32 bits
                    w.raw(pattern.as_bytes());
                }
                w.i64(*wall_ms);
            }
        }
        w.split()
    }

    /// The link that a record is a selection of, also where the selection itself cannot be read.
    pub fn selection_of(record: &Record) -> Option<String> {
        let k = &mut Reader::new(record.key.clone()?);
        let kind = k.i8("registry record type").ok()?;
        (kind == SELECTION)
            .then(|| k.string("selection's link", false).ok())
            .flatten()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// A type or version this build does not know; a tombstone, or other bytes that are no such record.
    pub fn from_record(record: &Record) -> Result<Self, RegistryError> {
        let k = &mut Reader::new(record.key.clone().unwrap_or_default());
        let v = &mut Reader::new(record.value.clone().unwrap_or_default());
        let kind = k.i8("registry record type")?;
        if !(LINK..=SELECTION).contains(&kind) {
            return Err(RegistryError::UnknownType(kind));
        }
        match v.i8("registry record version")? {
            REGISTRY_VERSION => {}
            newer if newer > REGISTRY_VERSION => return Err(RegistryError::NewerVersion(newer)),
            value => {
                return Err(WireError::BadValue {
                    what: "registry record version",
                    value: value.into(),
                }
                .into());
            }
        }
        let record = match kind {
            LINK => Self::read_link(k, v)?,
            PRODUCER => Self::read_producer(k, v)?,
            LEASE => Self::read_lease(k, v)?,
            LADDER => Self::read_ladder(k, v)?,
            _ => Self::read_selection(k, v)?,
        };
        k.finish("registry key")?;
        v.finish("registry value")?;
        Ok(record)
    }

    fn read_link(k: &mut Reader, v: &mut Reader) -> Result<Self, WireError> {
        Ok(Self::Link {
            link: k.string("link", false)?,
            source_cluster: v.string("source cluster id", false)?,
            target_cluster: v.string("target cluster id", false)?,
            shards: v.i16("shards")?,
            created_ms: v.i64("link creation time")?,
        })
    }

    fn read_producer(k: &mut Reader, v: &mut Reader) -> Result<Self, WireError> {
        Ok(Self::Producer {
            producer_id: k.i64("producer id")?,
            link: v.string("producer's link", false)?,
            shard: v.i16("producer's shard")?,
            highest_epoch: v.i16("producer's highest epoch")?,
            source_cluster: v.string("source cluster id", false)?,
            target_cluster: v.string("target cluster id", false)?,
        })
    }

    fn read_lease(k: &mut Reader, v: &mut Reader) -> Result<Self, WireError> {
        Ok(Self::Lease {
            link: k.string("lease's link", false)?,
            shard: k.i16("lease's shard")?,
            producer_id: v.i64("lease's producer id")?,
            epoch: v.i16("lease's epoch")?,
            instance: v.string("lease's instance", false)?,
            wall_ms: v.i64("lease's time")?,
            closed: match v.i8("lease's end")? {
                0 => false,
                1 => true,
                value => {
                    return Err(WireError::BadValue {
                        what: "lease's end",
                        value: value.into(),
                    });
                }
            },
        })
    }

    fn read_ladder(k: &mut Reader, v: &mut Reader) -> Result<Self, WireError> {
        let (link, topic) = (
            k.string("ladder's link", false)?,
            k.string("ladder's topic", false)?,
        );
        let partition = k.i32("ladder's partition")?;
        let what = "ladder's rungs";
        let count = v.i16(what)?;
        let bad = WireError::BadCount {
            what,
            count: count.into(),
            have: v.remaining(),
        };
        let count = usize::try_from(count)
            .ok()
            .filter(|n| *n <= MAX_RUNGS && *n <= v.remaining() / 24)
            .ok_or(bad)?;
        let mut rungs = Vec::with_capacity(count);
        for _ in 0..count {
            rungs.push((
                v.i64("rung's source offset")?,
                v.i64("rung's target offset")?,
                v.i64("rung's records")?,
            ));
        }
        Ok(Self::Ladder {
            link,
            topic,
            partition,
            rungs,
        })
    }

    fn read_selection(k: &mut Reader, v: &mut Reader) -> Result<Self, WireError> {
        let link = k.string("selection's link", false)?;
        let what = "selection's patterns";
        let no_null = |have| WireError::BadCount {
            what,
            count: -1,
            have,
        };
        let count = v
            .array_len(what, false, 4)?
            .ok_or_else(|| no_null(v.remaining()))?;
        let mut includes = Vec::new();
        for _ in 0..count {
            let pattern = v
                .nullable_bytes(what, false)?
                .ok_or_else(|| no_null(v.remaining()))?;
            includes.push(
                std::str::from_utf8(&pattern)
                    .map_err(|_| WireError::NotUtf8 { what })?
                    .to_owned(),
            );
        }
        Ok(Self::Selection {
            link,
            includes,
            wall_ms: v.i64("selection's time")?,
        })
    }
}
