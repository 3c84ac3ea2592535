//! What can stop a flow or a link, in words for the person who has to act.

use std::time::Duration;

use strait_net::{Action, KafkaError, NetError};
use strait_wire::WireError;
use thiserror::Error;

use crate::limits;
use crate::resume::ScanError;
use crate::stitch::StitchError;

/// Why one flow does not move. Other flows go on.
#[derive(Debug, Error)]
pub enum FlowError {
    /// The topic or partition is missing on the source.
    #[error(
        "the source has no partition {topic}-{partition}; it may have been deleted; the flow goes on when it is back"
    )]
    SourceMissing {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The topic or partition is missing on the target.
    #[error(
        "the target has no partition {topic}-{partition}; create it there (or give the topic as many partitions as the source has)"
    )]
    TargetMissing {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// A partition has no leader at the moment.
    #[error(
        "{topic}-{partition} has no leader on cluster {cluster}: look at its brokers; the flow goes on when it has one"
    )]
    NoLeader {
        /// The cluster's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// Too few replicas are in sync for the flow to be fenced.
    #[error(
        "{topic}-{partition} on the target has {insync} replicas in sync and needs {needed} (min.insync.replicas): look at its brokers; the flow goes on when they are back"
    )]
    UnderMinIsr {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// In sync now.
        insync: usize,
        /// Needed.
        needed: usize,
    },
    /// The target partition holds data, but no position of this link: its history is unknown.
    #[error(
        "the target partition {topic}-{partition} holds data from offset {from} to {to} that this link has no position for; \
         mirror into another name, or delete the target topic, or remove the data there"
    )]
    TargetHasData {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// First offset with data.
        from: i64,
        /// The log end.
        to: i64,
    },
    /// The position was written by MirrorMaker 2.
    #[error(
        "the last offset sync of {topic}-{partition} was written by MirrorMaker 2; taking over its position is not supported by this version: \
         mirror into another name, or delete the target topic and its syncs"
    )]
    Mm2Position {
        /// The source topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The position cannot be read.
    #[error("the last position of the flow cannot be used: {0}")]
    Position(String),
    /// The source topic is another one than the position speaks of, and the policy is to stop.
    #[error(
        "the source topic {topic} was re-created on cluster {cluster}: what partition {partition} holds now is not what was mirrored up to offset {next}; \
         nothing was mirrored of the new one; set on-source-recreated = \"continue\" and restart to append it to the old records"
    )]
    SourceRecreated {
        /// The source's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset of the old topic.
        next: i64,
    },
    /// Records expired before they were mirrored, and the policy is to stop.
    #[error(
        "retention overtook the mirror: {topic}-{partition} on cluster {cluster} begins at offset {start} now, and {next} would be next; \
         nothing was mirrored since; set on-retention-overtook = \"continue\" and restart to go on at offset {start} without the records between"
    )]
    RetentionOvertook {
        /// The source's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset to mirror.
        next: i64,
        /// The source's log start.
        start: i64,
    },
    /// The source lost records that were mirrored, and the policy is to stop.
    #[error(
        "the source lost records: {topic}-{partition} on cluster {cluster} was cut at offset {end}, and was mirrored up to {next}; \
         nothing was mirrored since; bring the lost replica back, or set on-source-truncated = \"remirror\" and restart to let its new history follow"
    )]
    SourceTruncated {
        /// The source's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where its log was cut.
        end: i64,
        /// The next offset to mirror.
        next: i64,
    },
    /// The target topic is another one than the position speaks of, and the policy is to stop.
    #[error(
        "the target topic {topic} was re-created on cluster {cluster}: partition {partition} no longer holds the records mirrored up to source offset {next}; \
         nothing was mirrored since; set on-target-recreated = \"remirror\" and restart to mirror everything again"
    )]
    TargetRecreated {
        /// The target's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next source offset to mirror.
        next: i64,
    },
    /// The target lost what was acknowledged, and the policy is to stop.
    #[error(
        "the target lost data: {topic}-{partition} on cluster {cluster} ends at offset {end}, but records up to {expected} had been acknowledged; \
         nothing was mirrored since; bring the lost replica back, or set on-target-lost = \"remirror\" and restart to mirror them again"
    )]
    TargetLost {
        /// The target's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The log end found.
        end: i64,
        /// The end expected.
        expected: i64,
    },
    /// The target's log does not fit the position.
    #[error(
        "the target partition {topic}-{partition} on cluster {cluster} is not what this link left: {source}; nothing was mirrored since; {}",
        source.advice()
    )]
    Scan {
        /// The target's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What was found.
        source: ScanError,
    },
    /// The target refused a batch.
    #[error(
        "the target refused source offsets {first}..={last} ({size} bytes) for {topic} on cluster {cluster}: {error}{}; {advice}",
        message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default()
    )]
    Refused {
        /// The target's alias.
        cluster: String,
        /// The target topic.
        topic: String,
        /// The first source offset.
        first: i64,
        /// The last one.
        last: i64,
        /// The batch's size.
        size: usize,
        /// The reason.
        error: KafkaError,
        /// The broker's own words.
        message: Option<String>,
        /// What to do.
        advice: &'static str,
    },
    /// A batch is larger than the target takes.
    #[error(
        "the target refused source offsets {first}..={last} as one batch of {size} bytes: {error}; asking {topic} for its present limit and splitting by it"
    )]
    TooLarge {
        /// The target topic.
        topic: String,
        /// The first source offset.
        first: i64,
        /// The last one.
        last: i64,
        /// The batch's size.
        size: usize,
        /// The reason.
        error: KafkaError,
    },
    /// Replicas are missing; nothing was appended.
    #[error("the target does not take records now: {0}; they are sent again")]
    NotAppended(KafkaError),
    /// Records are missing in order on the target.
    #[error(
        "source offsets {first}..={last} were refused, but later ones were stored, because the target's brokers had already forgotten the producer \
         (records older than producer.id.expiration.ms); reading the target's log to see what it holds"
    )]
    Hole {
        /// The first missing source offset.
        first: i64,
        /// The last one.
        last: i64,
    },
    /// The source's records cannot be joined or read.
    #[error("source: {0}")]
    Stitch(#[from] StitchError),
    /// The source answered an error.
    #[error("the source answered {error} at offset {offset}")]
    Source {
        /// The error.
        error: KafkaError,
        /// The offset asked for.
        offset: i64,
    },
    /// A stretch of a log that a broker says is there cannot be read.
    #[error(
        "nothing could be read of {topic}-{partition} on cluster {cluster} at offset {offset} for {} s, although its log ends at {end}: \
         look at the log of its leader; the flow tries again",
        waited.as_secs()
    )]
    NothingRead {
        /// The cluster's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
        /// Where the log ends.
        end: i64,
        /// How long it was tried without progress.
        waited: Duration,
    },
    /// What the target holds is in doubt: it is read before anything else is sent.
    #[error("{0}; reading the target's log to see what it holds")]
    Doubt(String),
    /// The fence did not arrive in time.
    #[error("no fence marker appeared in {topic}-{partition} within {} s; another round follows", waited.as_secs())]
    Fence {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How long.
        waited: Duration,
    },
    /// A request failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A response could not be read.
    #[error("unreadable answer: {0}")]
    Wire(#[from] WireError),
    /// The session ended under the flow.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl FlowError {
    /// The name under which this kind of failure stands in logs, metrics and the book; it never changes.
    pub fn id(&self) -> &'static str {
        match self {
            Self::SourceMissing { .. } => "source-missing",
            Self::TargetMissing { .. } => "target-missing",
            Self::NoLeader { .. } => "no-leader",
            Self::UnderMinIsr { .. } => "under-min-isr",
            Self::TargetHasData { .. } => "target-has-data",
            Self::Mm2Position { .. } => "mm2-position",
            Self::Position(_) => "position-unusable",
            Self::SourceRecreated { .. } => "source-recreated",
            Self::RetentionOvertook { .. } => "retention-overtook",
            Self::SourceTruncated { .. } => "source-truncated",
            Self::TargetRecreated { .. } => "target-recreated",
            Self::TargetLost { .. } => "target-lost",
            Self::Scan { source, .. } => source.id(),
            Self::Refused { .. } => "record-refused",
            Self::TooLarge { .. } => "batch-too-large",
            Self::NotAppended(_) => "not-appended",
            Self::Hole { .. } => "target-hole",
            Self::Stitch(StitchError::Stale { .. }) => "source-stale",
            Self::Stitch(StitchError::Unproven { .. }) => "source-epoch",
            Self::Stitch(StitchError::Hole { .. }) => "source-hole",
            Self::Stitch(_) => "source-unreadable",
            Self::Source { .. } => "source-error",
            Self::NothingRead { .. } => "nothing-to-read",
            Self::Doubt(_) => "target-in-doubt",
            Self::Fence { .. } => "no-fence",
            Self::Net(error) => error.id(),
            Self::Wire(_) => "answer-unreadable",
            Self::Session(error) => error.id(),
        }
    }

    /// Whether waiting may help by itself, or somebody has to act first. The flow tries again either way,
    /// soon in the first case, at the longest interval in the second.
    pub fn action(&self) -> Action {
        match self {
            Self::SourceMissing { .. }
            | Self::TargetMissing { .. }
            | Self::NoLeader { .. }
            | Self::UnderMinIsr { .. }
            | Self::NotAppended(_)
            | Self::Source { .. }
            | Self::Doubt(_)
            | Self::NothingRead { .. }
            | Self::TooLarge { .. }
            | Self::Hole { .. }
            | Self::Fence { .. } => Action::Retry,
            Self::Stitch(
                StitchError::Stale { .. } | StitchError::Unproven { .. } | StitchError::Hole { .. },
            ) => Action::Retry,
            Self::Net(error) => error.action(),
            Self::Session(error) => error.action(),
            _ => Action::Stop,
        }
    }

    /// How long to wait before try number `tries` (from 0).
    pub fn backoff(&self, tries: u32) -> Duration {
        match self.action() {
            Action::Stop => limits::BACKOFF_MAX,
            _ => limits::BACKOFF_MIN
                .saturating_mul(1 << tries.min(9))
                .min(limits::BACKOFF_MAX),
        }
    }

    /// What to do about a refusal, by the broker's reason.
    pub fn advice(error: KafkaError) -> &'static str {
        match error.0 {
            10 | 18 => {
                "raise max.message.bytes (and segment.bytes) of the target topic, and the flow goes on by itself; or set on-refused-record = \"skip\" and restart to leave such records out"
            }
            32 => {
                "set message.timestamp.after.max.ms and message.timestamp.before.max.ms of the target topic to admit the record's time, and the flow goes on by itself; or set on-refused-record = \"skip\" and restart to leave such records out"
            }
            29 => "give Strait's user Write on the target topic; the flow goes on by itself",
            87 => {
                "the target topic may be compacted and the record has no key: change cleanup.policy, and the flow goes on by itself; or set on-refused-record = \"skip\" and restart to leave such records out"
            }
            2 => {
                "the batch arrived damaged: its checksum, carried from the source, does not fit; check the source's log and the line"
            }
            _ => "change what the target refuses; the flow goes on by itself",
        }
    }
}

/// Why a link's session ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Another process took the link over.
    #[error(
        "link {link} was taken over by {}: this process stops and writes nothing more ({why}); \
         if that was not meant, stop the other one and start this one again",
        owner.as_ref().map_or_else(|| "another process".to_owned(), |o| format!("instance '{o}'"))
    )]
    Fenced {
        /// The link.
        link: String,
        /// The owner's instance name, where known.
        owner: Option<String>,
        /// What told us.
        why: String,
    },
    /// Another process runs the link already.
    #[error(
        "link {link} is run by instance '{owner}', which goes on renewing its lease: this process stops and has written nothing; \
         stop the other one first, or start with --take-over to fence it"
    )]
    Owned {
        /// The link.
        link: String,
        /// The owner's instance name.
        owner: String,
    },
    /// Another process on this machine runs the link.
    #[error(
        "link {link} already runs on this machine, in process {pid} (it holds {path}): this process stops and has written nothing; stop the other one first"
    )]
    Locked {
        /// The link.
        link: String,
        /// The lock file.
        path: String,
        /// Its holder.
        pid: String,
    },
    /// The lock file cannot be made.
    #[error(
        "cannot create the lock file {path}: {source}; set state-dir to a directory that can be written"
    )]
    LockFile {
        /// The lock file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The registry or the syncs cannot be read by this version.
    #[error("{topic} offset {offset}: {why}")]
    Registry {
        /// The topic.
        topic: String,
        /// The record's offset.
        offset: i64,
        /// What is wrong.
        why: String,
    },
    /// The link was set up between other clusters.
    #[error(
        "link {link} was set up from cluster {known_source} to cluster {known_target}, but now connects {source_id} to {target_id}: \
         check the bootstrap addresses, or give the link another name"
    )]
    OtherClusters {
        /// The link.
        link: String,
        /// Source id in the registry.
        known_source: String,
        /// Target id in the registry.
        known_target: String,
        /// Source id found.
        source_id: String,
        /// Target id found.
        target_id: String,
    },
    /// One of Strait's own topics cannot be made.
    #[error(
        "cannot create {topic} on the target, where Strait keeps its positions: {error}; {}",
        own_topic_advice(error)
    )]
    OwnTopic {
        /// The topic.
        topic: String,
        /// The answer.
        error: NetError,
    },
    /// A write to one of Strait's own topics failed.
    #[error("cannot write to {topic} on the target: {why}")]
    Internal {
        /// The topic.
        topic: String,
        /// Why.
        why: String,
    },
    /// The session's producer id or epoch is no longer valid; a new session begins.
    #[error("the session ended: {0}; a new one begins")]
    Lost(String),
    /// A request failed.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl SessionError {
    /// The name under which this kind of failure stands in logs, metrics and the book; it never changes.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "taken-over",
            Self::Owned { .. } => "link-owned",
            Self::Locked { .. } => "link-locked",
            Self::LockFile { .. } => "lock-file",
            Self::Registry { .. } => "registry-unreadable",
            Self::OtherClusters { .. } => "other-clusters",
            Self::OwnTopic { .. } => "own-topic",
            Self::Internal { .. } => "own-topic-unavailable",
            Self::Lost(_) => "session-ended",
            Self::Net(error) => error.id(),
        }
    }

    /// Whether a new session may be tried.
    pub fn action(&self) -> Action {
        match self {
            Self::Fenced { .. }
            | Self::Owned { .. }
            | Self::Locked { .. }
            | Self::LockFile { .. }
            | Self::Registry { .. }
            | Self::OtherClusters { .. } => Action::Stop,
            Self::Internal { .. } | Self::Lost(_) => Action::Reconnect,
            Self::OwnTopic { error, .. } | Self::Net(error) => error.action(),
        }
    }
}

fn own_topic_advice(error: &NetError) -> &'static str {
    match error.code().map(|code| code.0) {
        Some(38) => {
            "lower internal-replication-factor (offset-syncs.topic.replication.factor in a properties file), or leave it out to have it capped at the live brokers"
        }
        Some(29 | 31) => {
            "give Strait's user Create on the target's topics, or create it yourself with one partition and cleanup.policy=compact"
        }
        Some(44) => {
            "the target's policy refuses it: create it yourself with one partition and cleanup.policy=compact"
        }
        _ => {
            "look at the target's brokers, or create it yourself with one partition and cleanup.policy=compact"
        }
    }
}
