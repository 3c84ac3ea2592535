//! Committed offsets of consumer groups: what a mirror writes and reads without being a member.

use std::collections::BTreeMap;

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The offset, which Kafka does not check against the log.
    pub offset: i64,
    /// Leader epoch stored with it, -1 if none.
    pub leader_epoch: i32,
    /// Metadata text.
    pub metadata: String,
}

/// One group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    /// Whether members are consuming: commits from outside are then refused with UNKNOWN_MEMBER_ID.
    pub(crate) live: bool,
    /// Whether a transaction with offsets of the group is not finished yet.
    pub(crate) pending: bool,
    pub(crate) commits: BTreeMap<(String, i32), Commit>,
}

/// All groups by id.
pub(crate) type Groups = BTreeMap<String, Group>;
