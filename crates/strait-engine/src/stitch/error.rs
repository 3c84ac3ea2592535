//! Why what a fetch brought cannot be joined to what was admitted before it.

use strait_wire::WireError;
use thiserror::Error;

/// Why a response could not be joined.
#[derive(Debug, Error)]
pub enum StitchError {
    /// The batch at the head is of an older leader epoch than what was admitted before it.
    #[error("the answer is stale: it continues with leader epoch {found} after {admitted}")]
    Stale {
        /// The epoch admitted last.
        admitted: i32,
        /// The epoch found.
        found: i32,
    },
    /// The leader epoch rose and the fetch did not prove the join: ask for the end of `admitted`.
    #[error("leader epoch rose from {admitted} to {found} at offset {at}")]
    Unproven {
        /// The epoch admitted last.
        admitted: i32,
        /// The new epoch.
        found: i32,
        /// The offset of the seam.
        at: i64,
    },
    /// Offsets are missing in a log that is not compacted: asked for once more before that is believed.
    #[error("offsets {from} to {} are missing in the answer, which neither compaction nor retention explains", to - 1)]
    Hole {
        /// The first offset missing.
        from: i64,
        /// The offset behind the last one.
        to: i64,
    },
    /// A batch has to be decoded, and takes more than is allowed.
    #[error(
        "the batch at offset {at} has to be decoded and inflates beyond {} MiB, the larger of 32 MiB and a quarter of memory-budget", limit >> 20
    )]
    Inflates {
        /// Its base offset.
        at: i64,
        /// The bytes that are allowed.
        limit: usize,
    },
    /// Nobody knows yet who wrote a batch: the register of links is looked at first.
    #[error("producer ids {producer_ids:?}, from offset {at} on, are not known yet")]
    Origin {
        /// Its producer id, and those of the batches behind it that nobody knows either.
        producer_ids: Vec<i64>,
        /// Its base offset.
        at: i64,
    },
    /// Bytes that are no record batch.
    #[error("the records at offset {at} cannot be read: {source}")]
    Wire {
        /// Where.
        at: i64,
        /// What is wrong with them.
        source: WireError,
    },
}

impl StitchError {
    /// What is wrong with the records at `at`.
    pub(crate) fn wire(at: i64, source: WireError) -> Self {
        match source {
            WireError::TooLarge { offset, limit } => Self::Inflates { at: offset, limit },
            source => Self::Wire { at, source },
        }
    }

    /// What is done about it, and what to do.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Stale { .. } => {
                "the records are fetched again; if it lasts, look at the brokers of this cluster"
            }
            Self::Unproven { .. } => "the leader is asked where the older epoch ends",
            Self::Hole { .. } => "they are fetched once more, then recorded as a gap",
            Self::Origin { .. } => "the register of links on this cluster is read",
            Self::Inflates { .. } => INFLATES_ADVICE,
            Self::Wire { .. } => {
                "nothing from there on is mirrored; check the source's log with kafka-dump-log"
            }
        }
    }
}

/// What to do about a batch that takes too much to be decoded, on either side.
pub(crate) const INFLATES_ADVICE: &str = "nothing from there on is mirrored; raise memory-budget to more than four times what the batch inflates to, and restart; or exclude the topic";
