//! The mirror's engine: flows, writers, ledger, positions, fencing.
//!
//! [`Link::run`] drives everything; what decides is pure and takes `now` and results: [`stitch`], [`writer`],
//! [`ledger`], [`scan`], [`walk`] and [`matching`]. The steps, and why they are in this order, stand in the
//! book's position protocol.

mod appender;
mod error;
pub mod fit;
mod flow;
mod gap_counts;
mod internal_log;
pub mod ledger;
pub mod left_out;
pub mod limits;
mod link;
pub mod matching;
mod open;
mod partition;
pub mod ranges;
mod registry;
pub mod rewind;
mod routes;
#[cfg(test)]
mod sample;
pub mod scan;
mod sequence;
mod session;
mod shard;
mod spec;
mod stable_offset;
mod status;
pub mod stitch;
mod syncs_topic;
mod takeover;
pub mod tally;
mod transfer;
pub mod walk;
pub mod writer;

pub use error::FlowError;
pub use internal_log::plain_log::PlainLog;
pub use internal_log::positions::{
    KnownPosition, PositionTail, Rungs, read_ladders, read_positions,
};
pub use internal_log::registry_log::{RegistryLog, RegistryNews};
pub use internal_log::side_log::SideLog;
pub use link::{Link, LinkHandle};
pub use partition::remaining::{Left, Remaining};
pub use session::error::SessionError;
pub use spec::{FlowKey, FlowSpec, LinkSpec, Policies, Policy, STRAIT_TOPIC, Start, Takeover};
pub use status::{LinkStatus, TakenOver};
pub use syncs_topic::{SEPARATOR, alias_of_syncs, existing, holds_positions, syncs_topic};
pub use takeover::mm2_positions::{
    Mm2Positions, Mm2Presence, Pair, TakenAt, mm2_presence, read_mm2_pairs, read_mm2_positions,
};
