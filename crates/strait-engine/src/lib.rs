//! The mirror's engine: flows, writers, ledger, positions, fencing.
//!
//! [`Link::run`] drives everything; what decides is pure and takes `now` and results: [`stitch`], [`writer`],
//! [`ledger`], [`scan`], [`walk`] and [`matching`]. The steps, and why they are in this order, stand in the
//! book's position protocol.

mod along;
pub mod answer;
mod appender;
mod comparison;
mod contents;
mod displaced;
mod error;
mod expiry;
mod fence;
pub mod fit;
mod flow;
mod gap_counts;
mod internal_log;
mod lease;
pub mod ledger;
pub mod left_out;
pub mod limits;
mod link;
mod lock;
mod match_memory;
pub mod matching;
mod mm2_positions;
mod open;
mod partition;
mod patience;
mod plain_log;
mod positions;
mod proof;
mod provenance;
mod queue;
pub mod ranges;
mod reading;
mod registry;
mod registry_log;
mod remaining;
mod remirror;
pub mod rewind;
mod routes;
#[cfg(test)]
mod sample;
pub mod scan;
mod sequence;
mod session;
mod session_error;
mod shard;
mod side_log;
mod spec;
mod stable_offset;
mod status;
pub mod stitch;
mod stitch_error;
mod syncs_topic;
mod takeover;
pub mod tally;
mod target_scan;
mod transfer;
pub mod walk;
pub mod writer;

pub use error::FlowError;
pub use link::{Link, LinkHandle};
pub use mm2_positions::{
    Mm2Positions, Mm2Presence, Pair, TakenAt, mm2_presence, read_mm2_pairs, read_mm2_positions,
};
pub use plain_log::PlainLog;
pub use positions::{KnownPosition, PositionTail, Rungs, read_ladders, read_positions};
pub use registry_log::{RegistryLog, RegistryNews};
pub use remaining::{Left, Remaining};
pub use session_error::SessionError;
pub use side_log::SideLog;
pub use spec::{FlowKey, FlowSpec, LinkSpec, Policies, Policy, STRAIT_TOPIC, Start, Takeover};
pub use status::{LinkStatus, TakenOver};
pub use syncs_topic::{SEPARATOR, alias_of_syncs, existing, holds_positions, syncs_topic};
