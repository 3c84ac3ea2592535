//! What to mirror: selection, naming, topics and their configuration.
//!
//! [`Mirror`] runs one configured link: it finds the topics that the configuration selects, sees to it that the
//! target has them, and hands the resulting flows to the engine, again and again while topics come and go.

mod checkpoints;
mod groups;
mod ladder;
mod mirror;
mod naming;
mod topics;
mod translation;

pub use mirror::{Mirror, MirrorError, Selection};
pub use naming::{NamingError, Route, route};
pub use translation::{Exactness, Translated, Translator};
