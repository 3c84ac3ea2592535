//! What to mirror: selection, naming, topics and their configuration.
//!
//! [`Mirror`] runs one configured link: it finds the topics that the configuration selects, sees to it that the
//! target has them, and hands the resulting flows to the engine, again and again while topics come and go.

mod carried;
mod caught_up;
mod groups;
mod heartbeats;
mod mirror;
mod naming;
mod plan;
mod read_back;
mod selection;
mod source_syncs;
mod topics;
mod translation;
#[cfg(test)]
mod two_clusters;
mod unread;
mod untold;
mod users;

pub use carried::{Carried, GroupBehind};
pub use caught_up::{Behind, CatchUp};
pub use groups::one_look::committed;
pub use mirror::{Mirror, MirrorError, Selection};
pub use naming::{NamingError, Route, route};
pub use plan::groups::{PlannedGroups, PlannedKind};
pub use plan::mm2_left::PlannedTakeover;
pub use plan::{Change, Plan, PlannedTopic, plan};
pub use read_back::{Back, ReadBack, read_back};
pub use selection::active_topics::active_topics;
pub use selection::in_force::Selections;
pub use selection::{SelectionError, StoredSelection, StoredSelections};
pub use topics::gone::{GoneTopic, gone_topics};
pub use translation::{Budget, Exactness, Translated, Translator};
pub use unread::{Unread, UnreadTopic};
pub use untold::{Untold, Why};
