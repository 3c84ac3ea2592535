//! What to mirror: selection, naming, topics and their configuration.
//!
//! [`Mirror`] runs one configured link: it finds the topics that the configuration selects, sees to it that the
//! target has them, and hands the resulting flows to the engine, again and again while topics come and go.

mod acls;
mod active_topics;
mod alike;
mod before;
mod both_ways;
mod carried;
mod caught_up;
mod checkpoints;
mod count;
mod counting;
mod gone;
mod group_commits;
mod groups;
mod heartbeats;
mod in_force;
mod ladder;
mod left_out;
mod mirror;
mod mm2_left;
mod naming;
mod origins;
mod plan;
mod planned_groups;
mod read_back;
mod share_groups;
mod source_syncs;
mod stored_selection;
mod topics;
mod translation;
mod unread;
mod untold;
mod users;
mod writers;

pub use active_topics::active_topics;
pub use carried::{Carried, GroupBehind};
pub use caught_up::{Behind, CatchUp};
pub use gone::{GoneTopic, gone_topics};
pub use in_force::Selections;
pub use mirror::{Mirror, MirrorError, Selection};
pub use mm2_left::PlannedTakeover;
pub use naming::{NamingError, Route, route};
pub use plan::{Change, Plan, PlannedTopic, plan};
pub use planned_groups::PlannedGroups;
pub use read_back::{Back, ReadBack, read_back};
pub use stored_selection::{SelectionError, StoredSelection, StoredSelections};
pub use translation::{Budget, Exactness, Translated, Translator};
pub use unread::{Unread, UnreadTopic};
pub use untold::{Untold, Why};
