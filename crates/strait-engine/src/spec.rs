//! What a link and its flows are asked to do.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use strait_net::Cluster;
use strait_wire::Isolation;

use crate::limits;
use crate::syncs_topic::{SEPARATOR, holds_positions, syncs_topic};

/// Where a flow without a position begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The source's log start.
    Earliest,
    /// The source's end at the moment of the first start.
    Latest,
    /// The first record whose timestamp is at or after this one (milliseconds since the epoch);
    /// the end where there is none.
    Timestamp(i64),
}

/// The source partition of a flow: its name within a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The topic's name on the source.
    pub topic: String,
    /// The partition on the source.
    pub partition: i32,
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// One source partition mirrored into one target partition of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// The source partition.
    pub key: FlowKey,
    /// The topic's name on the target.
    pub target_topic: String,
    /// Where to begin when the flow has no position yet.
    pub start: Start,
    /// Whether the source topic's `cleanup.policy` contains `compact`.
    pub compacted: bool,
    /// The same of the target topic; what is known of the source's where its own cannot be read.
    pub target_compacted: bool,
    /// `min.insync.replicas` of the target topic; a partition below it takes part in no barrier.
    pub min_insync: usize,
    /// The largest batch that the target topic takes, in bytes (the smaller of `max.message.bytes` and
    /// `segment.bytes`); `None` where that is not known.
    pub max_batch_bytes: Option<usize>,
}

/// Whether a flow goes on or stops at something it can go on after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Go on; how depends on what happened.
    GoOn,
    /// Stop the flow until somebody decides.
    Stop,
}

/// One [`Policy`] for each failure after which a flow can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// The source topic was deleted and created again. Going on appends the new topic's records.
    pub source_recreated: Policy,
    /// The source deleted records before they were mirrored. Going on leaves a gap.
    pub retention_overtook: Policy,
    /// The source lost records that were mirrored. Going on mirrors what it has in their place.
    pub source_truncated: Policy,
    /// The target lost records that it had acknowledged. Going on mirrors them again.
    pub target_lost: Policy,
    /// The target topic was deleted and created again. Going on mirrors everything again.
    pub target_recreated: Policy,
    /// The target deletes records that were mirrored a moment ago. Going on leaves them deleted.
    pub target_expired: Policy,
    /// Another producer wrote to the target partition. Going on writes beside it.
    pub foreign_writer: Policy,
    /// The target partition holds records, and the flow has no position yet. Going on begins behind them; only where
    /// `foreign_writer` goes on.
    pub target_has_data: Policy,
    /// The target refuses a record. Going on leaves it out.
    pub refused_record: Policy,
}

impl Default for Policies {
    /// Records are never left out, and never mixed with others, unless somebody asked for it.
    fn default() -> Self {
        Self {
            source_recreated: Policy::GoOn,
            retention_overtook: Policy::GoOn,
            source_truncated: Policy::GoOn,
            target_lost: Policy::GoOn,
            target_recreated: Policy::GoOn,
            target_expired: Policy::GoOn,
            foreign_writer: Policy::Stop,
            target_has_data: Policy::Stop,
            refused_record: Policy::Stop,
        }
    }
}

/// Where MirrorMaker 2 kept what a link takes over from it. By default nothing is taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takeover {
    /// The topic on the target with the offsets of Connect's sources. `None`: nothing is taken over.
    pub offsets_topic: Option<String>,
    /// Connect's group on the target, which has members while MirrorMaker 2 runs. `None`: it is known not to.
    pub group: Option<String>,
    /// What MirrorMaker 2 has in the names of its topics, where that is not [`SEPARATOR`]. From before Kafka 3.1 they have that
    /// all the same.
    pub separator: Option<String>,
}

/// One link: a direction between two clusters, run by this process.
#[derive(Clone)]
pub struct LinkSpec {
    /// The link's name; part of its transactional id, so it must stay the same across restarts.
    pub name: String,
    /// The cluster that is read.
    pub source: Cluster,
    /// The cluster that is written.
    pub target: Cluster,
    /// Which records of the source count.
    pub isolation: Isolation,
    /// The name of this process in leases: the same after a restart, different on every machine.
    pub instance: String,
    /// Where the local lock file is kept; `None` takes no lock (several links simulated in one process).
    pub lock_dir: Option<PathBuf>,
    /// Replication factor of Strait's own topics on the target; `None`: 3, capped at the live brokers.
    pub internal_replication: Option<i16>,
    /// Take over a lease that another instance still holds.
    pub take_over: bool,
    /// Bytes of records that may be held in memory for all flows together.
    pub memory_budget: u64,
    /// Fetch connections to one source broker at the most, beside those for flows that have caught up.
    pub lanes: u8,
    /// How long the broker may hold a fetch of flows that have caught up.
    pub long_poll: Duration,
    /// How long a fetch or produce request may go unanswered before its connection is given up.
    pub request_timeout: Duration,
    /// How long an open transaction on the source may hold a flow back before it is reported.
    pub open_transaction: Duration,
    /// How long a stop waits for what is in flight.
    pub drain: Duration,
    /// Whether its flows go on or stop where either can be wanted.
    pub policies: Policies,
    /// Forward only what was produced on the source, and not what links brought there; for links that go both ways
    /// under the same names. Others write to its target partitions, so `policies.foreign_writer` has to go on.
    /// A flow without a position may begin on a target partition that holds records.
    pub only_local: bool,
    /// Flows without a position go on where MirrorMaker 2 stopped, if it mirrored them; not together with `only_local`.
    pub takeover: Takeover,
}

impl LinkSpec {
    /// The transactional id of a shard: `strait.<link>.<shard>`.
    pub fn transactional_id(&self, shard: i16) -> String {
        format!("strait.{}.{shard}", self.name)
    }

    /// Whether others may write to the target partitions too.
    pub(crate) fn shared_target(&self) -> bool {
        self.policies.foreign_writer == Policy::GoOn
    }

    /// Whether flows go on where MirrorMaker 2 stopped.
    pub(crate) fn takes_over(&self) -> bool {
        !self.only_local && self.takeover.offsets_topic.is_some()
    }

    /// Bytes that one batch may take when it has to be decoded.
    pub(crate) fn decode_bytes(&self) -> usize {
        let share = self.memory_budget / limits::DECODE_SHARE;
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        share.max(limits::DECODE_LEAST_BYTES)
    }

    /// The offset-syncs topic on the target where there is none yet, in MirrorMaker 2's naming for
    /// `offset-syncs.topic.location=target`.
    pub(crate) fn new_syncs_topic(&self) -> String {
        let separator = self.takeover.separator.as_deref();
        let separator = separator.filter(|separator| holds_positions(separator));
        syncs_topic(separator.unwrap_or(SEPARATOR), self.source.alias())
    }
}

/// Strait's own registry on every cluster it writes to. Every MirrorMaker 2 excludes the name.
pub const STRAIT_TOPIC: &str = "mm2-strait.internal";
