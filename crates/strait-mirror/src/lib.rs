//! What to mirror: selection, naming, topics and their configuration.
//!
//! [`Mirror`] runs one configured link: it finds the topics that the configuration selects, sees to it that the
//! target has them, and hands the resulting flows to the engine, again and again while topics come and go.

mod acls;
mod gone;
mod heartbeats;
mod mirror;
mod naming;
mod plan;
mod topics;
mod users;

pub use gone::{GoneTopic, gone_topics};
pub use mirror::{Mirror, MirrorError, Selection};
pub use naming::{NamingError, Route, route};
pub use plan::{Change, Plan, PlannedTopic, plan};
