//! What a link reports about itself.

use tokio::sync::watch;

use crate::spec::FlowKey;

/// How many troubles a status names; it is renewed several times a second.
pub(crate) const TROUBLES: usize = 20;

/// A link's state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether a session is open.
    pub open: bool,
    /// Whether it is known what to mirror.
    pub selected: bool,
    /// Flows selected.
    pub flows: usize,
    /// Flows that mirror, or would if there were something to mirror.
    pub running: usize,
    /// Flows being positioned.
    pub opening: usize,
    /// Records forwarded and acknowledged since the process started.
    pub records: u64,
    /// Bytes of record batches forwarded and acknowledged since the process started.
    pub bytes: u64,
    /// Source offsets between what was forwarded and the source's end, all running flows together.
    pub lag: i64,
    /// Flows that do not move.
    pub troubled: usize,
    /// The first of them, 20 at the most, each with the reason.
    pub troubles: Vec<(FlowKey, String)>,
    /// Why the link as a whole does not move.
    pub trouble: Option<String>,
    /// What this session has taken over from MirrorMaker 2.
    pub taken_over: Option<TakenOver>,
}

/// What was taken over from MirrorMaker 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// Source topics.
    pub topics: usize,
    /// Partitions of them.
    pub partitions: usize,
    /// Records behind its own last word that were found on the target.
    pub records: u64,
    /// Partitions of which records may be repeated.
    pub in_doubt: usize,
}

impl LinkStatus {
    /// It is known now what to mirror; said with the next status, which counts the flows.
    pub(crate) fn select(status: &watch::Sender<Self>) {
        status.send_if_modified(|status| {
            status.selected = true;
            false
        });
    }
}
