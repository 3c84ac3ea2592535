//! What can stop a flow, in words for the person who has to act.

use std::time::Duration;

use strait_net::{Action, KafkaError, NetError};
use strait_wire::WireError;
use thiserror::Error;

use crate::limits;
use crate::open::expiry::ADVICE;
use crate::routes::Routes;
use crate::scan::ScanError;
use crate::session::error::SessionError;
use crate::spec::FlowSpec;
use crate::stitch::{INFLATES_ADVICE, StitchError};

/// Why one flow does not move. Other flows go on.
#[derive(Debug, Error)]
pub enum FlowError {
    /// The topic or partition is missing on the source.
    #[error(
        "the source has no such partition: it may have been deleted; the flow waits, and goes on when it is back; or exclude the topic"
    )]
    SourceMissing,
    /// The topic or partition is missing on the target.
    #[error(
        "the target has no such partition: the flow waits; create it there (or give the topic as many partitions as the source has)"
    )]
    TargetMissing,
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
    /// A cluster hides the topic.
    #[error(
        "cluster {cluster} does not show topic {topic} to Strait's user: TOPIC_AUTHORIZATION_FAILED (29); give Strait's user Read there (Describe is in it), and this goes on by itself"
    )]
    Denied {
        /// The cluster's alias.
        cluster: String,
        /// The topic.
        topic: String,
    },
    /// Too few replicas are in sync for the flow to be fenced.
    #[error(
        "the target has {insync} replicas in sync and needs {needed} (min.insync.replicas): nothing is sent; look at its brokers; the flow goes on when they are back"
    )]
    UnderMinIsr {
        /// In sync now.
        insync: usize,
        /// Needed.
        needed: usize,
    },
    /// The target partition holds data, but no position of this link: its history is unknown.
    #[error(
        "the target holds data from offset {from} to {to} that this link has no position for: nothing was mirrored; \
         mirror into another name, or delete the target topic, or remove the data there; \
         if MirrorMaker 2 wrote it, name its topic in takeover-offsets-topic and let Strait's user read that; \
         where others shall write there too, set on-target-has-data = \"continue\" with on-foreign-writer = \"continue\" and restart"
    )]
    TargetHasData {
        /// First offset with data.
        from: i64,
        /// The log end.
        to: i64,
    },
    /// The position was written by MirrorMaker 2.
    #[error(
        "the last offset sync was written by MirrorMaker 2, and this link takes nothing over from it: nothing was mirrored; \
         take takeover-offsets-topic = \"off\" and forward = \"local\" from the link to go on where MirrorMaker 2 stopped, or give the source another alias, under which positions and topics of its own are kept"
    )]
    Mm2Position,
    /// What MirrorMaker 2 left cannot be read, and it may have mirrored the flow.
    #[error(
        "the target holds data, and what MirrorMaker 2 may have left of it cannot be used, so nothing was mirrored: {0}; to begin without it, mirror into another name"
    )]
    Mm2Unreadable(String),
    /// The position cannot be read.
    #[error("the last position of the flow cannot be used, so nothing was mirrored: {0}")]
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
    /// The target deletes what was mirrored a moment ago, and the policy is to stop.
    #[error(
        "the target deletes what was just mirrored: the log of {topic}-{partition} on cluster {cluster} starts at offset {start} now; \
         nothing was mirrored since; {}; or set on-target-expired = \"continue\" and restart to go on without what is gone",
        ADVICE
    )]
    TargetExpired {
        /// The target's alias.
        cluster: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where its log starts.
        start: i64,
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
        "the target refused source offsets {first}..={last} ({size} bytes) for {topic}-{partition} on cluster {cluster}: {error}{}; {advice}",
        message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default()
    )]
    Refused {
        /// The target's alias.
        cluster: String,
        /// The target topic.
        topic: String,
        /// The partition.
        partition: i32,
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
        "the target refused source offsets {first}..={last} as one batch of {size} bytes: {error}; asking the topic for its present limit and splitting by it"
    )]
    TooLarge {
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
    #[error("the target does not take records now: {0}; they are sent again; {advice}", advice = not_appended_advice(*.0))]
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
    #[error("{0}; {advice}", advice = .0.advice())]
    Stitch(#[from] StitchError),
    /// The source answered an error.
    #[error("the source answered {error} at offset {offset}; it is asked again; {}", read_advice(*.error))]
    Source {
        /// The error.
        error: KafkaError,
        /// The offset asked for.
        offset: i64,
    },
    /// The register of links on the source cannot be read, and only what was produced there is forwarded.
    #[error(
        "mm2-strait.internal there tells what links brought to this cluster, and cannot be read: {0}; it is asked again"
    )]
    Origin(String),
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
    /// The target answered an error when it was read.
    #[error("the target answered {error} at offset {offset}, which Strait has to read to know what it holds; it is asked again; {}", read_advice(*.error))]
    Target {
        /// The error.
        error: KafkaError,
        /// The offset asked for.
        offset: i64,
    },
    /// What the target holds is in doubt: it is read before anything else is sent.
    #[error("{0}; reading the target's log to see what it holds")]
    Doubt(String),
    /// The fence did not arrive in time.
    #[error("no fence marker appeared on the target within {} s; another round follows; if it repeats, look at its brokers", waited.as_secs())]
    Fence {
        /// How long.
        waited: Duration,
    },
    /// A request failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The target holds bytes that are no records.
    #[error(
        "the target's log cannot be read: {0}; {advice}", advice = unreadable_advice(.0)
    )]
    Wire(#[from] WireError),
    /// The session ended under the flow.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl FlowError {
    /// The cluster of these routes hides the topic.
    pub(crate) fn denied(routes: &Routes, topic: &str) -> Self {
        Self::Denied {
            cluster: routes.cluster().alias().to_owned(),
            topic: topic.to_owned(),
        }
    }

    /// The name under which this kind of failure stands in logs, metrics and the book; it never changes.
    pub fn id(&self) -> &'static str {
        match self {
            Self::SourceMissing => "source-missing",
            Self::TargetMissing => "target-missing",
            Self::NoLeader { .. } => "no-leader",
            Self::Denied { .. } => "topic-hidden",
            Self::UnderMinIsr { .. } => "under-min-isr",
            Self::TargetHasData { .. } => "target-has-data",
            Self::Mm2Position => "mm2-position",
            Self::Mm2Unreadable(_) => "mm2-unreadable",
            Self::Position(_) => "position-unusable",
            Self::SourceRecreated { .. } => "source-recreated",
            Self::RetentionOvertook { .. } => "retention-overtook",
            Self::SourceTruncated { .. } => "source-truncated",
            Self::TargetRecreated { .. } => "target-recreated",
            Self::TargetExpired { .. } => "target-expired",
            Self::TargetLost { .. } => "target-lost",
            Self::Scan { source, .. } => source.id(),
            Self::Refused { .. } => "record-refused",
            Self::TooLarge { .. } => "batch-too-large",
            Self::NotAppended(_) => "not-appended",
            Self::Hole { .. } => "target-hole",
            Self::Stitch(StitchError::Stale { .. }) => "source-stale",
            Self::Stitch(StitchError::Unproven { .. }) => "source-epoch",
            Self::Stitch(StitchError::Hole { .. }) => "source-hole",
            Self::Stitch(StitchError::Origin { .. }) => "source-origin",
            Self::Stitch(StitchError::Inflates { .. }) | Self::Wire(WireError::TooLarge { .. }) => {
                "batch-inflates"
            }
            Self::Stitch(StitchError::Wire { .. }) => "source-unreadable",
            Self::Source { .. } => "source-error",
            Self::Origin(_) => "source-origin",
            Self::NothingRead { .. } => "nothing-to-read",
            Self::Target { .. } => "target-error",
            Self::Doubt(_) => "target-in-doubt",
            Self::Fence { .. } => "no-fence",
            Self::Net(error) => error.id(),
            Self::Wire(_) => "target-unreadable",
            Self::Session(error) => error.id(),
        }
    }

    /// The whole message: with the partition and the cluster in front where the error's own words do not name them.
    pub(crate) fn told(&self, flow: &FlowSpec, (source, target): (&str, &str)) -> String {
        let (topic, partition) = (&flow.key.topic, flow.key.partition);
        match self {
            Self::NoLeader { .. }
            | Self::Denied { .. }
            | Self::SourceRecreated { .. }
            | Self::RetentionOvertook { .. }
            | Self::SourceTruncated { .. }
            | Self::TargetRecreated { .. }
            | Self::TargetExpired { .. }
            | Self::TargetLost { .. }
            | Self::Scan { .. }
            | Self::NothingRead { .. }
            | Self::Refused { .. } => self.to_string(),
            Self::SourceMissing | Self::Source { .. } | Self::Stitch(_) | Self::Origin(_) => {
                format!("{topic}-{partition} on cluster {source}: {self}")
            }
            Self::TargetMissing
            | Self::UnderMinIsr { .. }
            | Self::TargetHasData { .. }
            | Self::TooLarge { .. }
            | Self::NotAppended(_)
            | Self::Hole { .. }
            | Self::Target { .. }
            | Self::Doubt(_)
            | Self::Fence { .. }
            | Self::Wire(_) => format!(
                "{}-{partition} on cluster {target}: {self}",
                flow.target_topic
            ),
            // Of the flow as a whole, or of a request to either of them.
            Self::Mm2Position
            | Self::Mm2Unreadable(_)
            | Self::Position(_)
            | Self::Net(_)
            | Self::Session(_) => {
                format!("{topic}-{partition} from cluster {source} to {target}: {self}")
            }
        }
    }

    /// Whether waiting may help by itself, or somebody has to act first. The flow tries again either way,
    /// soon in the first case, at the longest interval in the second.
    pub fn action(&self) -> Action {
        match self {
            Self::SourceMissing
            | Self::TargetMissing
            | Self::NoLeader { .. }
            | Self::Denied { .. }
            | Self::UnderMinIsr { .. }
            | Self::NotAppended(_)
            | Self::Mm2Unreadable(_)
            | Self::Source { .. }
            | Self::Target { .. }
            | Self::Doubt(_)
            | Self::Origin(_)
            | Self::NothingRead { .. }
            | Self::TooLarge { .. }
            | Self::Hole { .. }
            | Self::Fence { .. } => Action::Retry,
            Self::Stitch(
                StitchError::Stale { .. }
                | StitchError::Unproven { .. }
                | StitchError::Hole { .. }
                | StitchError::Origin { .. },
            ) => Action::Retry,
            Self::Net(error) => error.action(),
            Self::Session(error) => error.action(),
            _ => Action::Stop,
        }
    }

    /// How long to wait before try number `tries` (from 0), in a link of so many flows.
    pub fn backoff(&self, tries: u32, flows: usize) -> Duration {
        let flows = u32::try_from(flows).unwrap_or(u32::MAX);
        let longest = limits::BACKOFF_EACH
            .saturating_mul(flows)
            .clamp(limits::BACKOFF_PASSING, limits::BACKOFF_MAX);
        match self.action() {
            Action::Stop => limits::BACKOFF_MAX,
            _ => limits::BACKOFF_MIN
                .saturating_mul(1 << tries.min(9))
                .min(longest),
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
            44 => {
                "a policy of the target refuses it: change the policy, and the flow goes on by itself; or set on-refused-record = \"skip\" and restart to leave such records out"
            }
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

fn not_appended_advice(error: KafkaError) -> &'static str {
    match error.0 {
        29 => "give Strait's user Write on this topic",
        _ => "if it lasts, look at the brokers of this cluster",
    }
}

fn read_advice(error: KafkaError) -> &'static str {
    match error.0 {
        29 => "give Strait's user Read on this topic",
        _ => "if it lasts, look at the brokers of this cluster",
    }
}

fn unreadable_advice(error: &WireError) -> &'static str {
    match error {
        WireError::TooLarge { .. } => INFLATES_ADVICE,
        _ => "nothing was mirrored since; check it with kafka-dump-log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{FlowKey, Start};

    const CODE: KafkaError = KafkaError(29);
    const INFLATES: WireError = WireError::TooLarge {
        offset: 5,
        limit: 32 << 20,
    };

    fn told(error: &FlowError) -> String {
        let flow = FlowSpec {
            key: FlowKey {
                topic: "orders".to_owned(),
                partition: 3,
            },
            target_topic: "copied".to_owned(),
            start: Start::Earliest,
            compacted: false,
            target_compacted: false,
            min_insync: 1,
            max_batch_bytes: None,
        };
        error.told(&flow, ("west", "east"))
    }

    #[test]
    fn waiting_grows_to_a_few_seconds_and_with_the_number_of_flows() {
        let passing = FlowError::Doubt("no answer".to_owned());
        let after = |tries, flows| passing.backoff(tries, flows).as_millis();
        assert_eq!((after(0, 1), after(1, 1), after(9, 1)), (100, 200, 4_000));
        assert_eq!((after(0, 1_000), after(9, 1_000)), (100, 10_000));
        assert_eq!(after(9, 100_000), 30_000);
        let stopped = FlowError::Position("it is damaged".to_owned());
        assert_eq!(stopped.backoff(0, 1), limits::BACKOFF_MAX);
    }

    #[test]
    fn what_is_wrong_on_the_source_names_its_partition_there() {
        let wire = WireError::Trailing { what: "x", left: 1 };
        for error in [
            FlowError::SourceMissing,
            FlowError::Source {
                error: CODE,
                offset: 7,
            },
            StitchError::Hole { from: 5, to: 9 }.into(),
            StitchError::wire(5, INFLATES).into(),
            StitchError::Wire {
                at: 5,
                source: wire,
            }
            .into(),
        ] {
            let text = told(&error);
            assert!(text.starts_with("orders-3 on cluster west: "), "{text}");
            assert!(!text.contains("the target"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_on_the_target_names_its_partition_there() {
        for error in [
            FlowError::TargetMissing,
            FlowError::UnderMinIsr {
                insync: 1,
                needed: 2,
            },
            FlowError::TargetHasData { from: 0, to: 4 },
            FlowError::TooLarge {
                first: 1,
                last: 2,
                size: 9,
                error: CODE,
            },
            FlowError::NotAppended(CODE),
            FlowError::Hole { first: 1, last: 2 },
            FlowError::Target {
                error: CODE,
                offset: 7,
            },
            FlowError::Doubt("acknowledged at offset 7 instead of 5".to_owned()),
            FlowError::Fence {
                waited: Duration::from_secs(10),
            },
            WireError::Trailing { what: "x", left: 1 }.into(),
            INFLATES.into(),
        ] {
            let text = told(&error);
            assert!(text.starts_with("copied-3 on cluster east: "), "{text}");
            assert!(!text.contains("the source answered"), "{text}");
        }
    }

    /// No broker of a test gets there: it has to forget a producer between two of its batches.
    #[test]
    fn a_refused_batch_whose_successors_were_stored_has_its_own_name() {
        let hole = FlowError::Hole { first: 5, last: 9 };
        assert_eq!(hole.id(), "target-hole");
        assert_eq!(hole.action(), Action::Retry);
        assert!(told(&hole).contains("source offsets 5..=9"));
    }

    #[test]
    fn what_is_wrong_between_both_names_both() {
        for error in [
            FlowError::Mm2Position,
            FlowError::Mm2Unreadable("it is hidden".to_owned()),
            FlowError::Position("it is old".to_owned()),
            NetError::kafka(29, "ListOffsets", "orders-3").into(),
            SessionError::Lost("it was idle".to_owned()).into(),
        ] {
            let text = told(&error);
            assert!(
                text.starts_with("orders-3 from cluster west to east: "),
                "{text}"
            );
        }
    }

    /// Nothing is damaged: another memory budget helps, and no look at the log does.
    #[test]
    fn a_batch_that_inflates_too_much_is_not_called_damaged() {
        for error in [
            FlowError::from(StitchError::wire(5, INFLATES)),
            INFLATES.into(),
        ] {
            let text = told(&error);
            assert_eq!(error.id(), "batch-inflates", "{text}");
            assert!(text.contains("offset 5"), "{text}");
            assert!(text.contains("raise memory-budget"), "{text}");
            assert!(!text.contains("kafka-dump-log"), "{text}");
        }
    }

    #[test]
    fn every_refusal_that_may_be_skipped_says_so() {
        for code in [10, 18, 32, 44, 87] {
            let advice = FlowError::advice(KafkaError(code));
            assert!(
                advice.contains("on-refused-record = \"skip\""),
                "{code}: {advice}"
            );
        }
    }
}
