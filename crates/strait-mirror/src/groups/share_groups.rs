//! Share groups of a running link: where they begin to read is translated and set on the target, slice by slice between those
//! of the consumer groups, so that neither kind waits for all of the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use strait_net::{GroupOffsets, KafkaError, NetError};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::groups::Groups;
use crate::groups::commits::{Entries, Kind, Waiting};

/// How long until it is looked again whether a cluster has what is needed by now.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Share groups of a link, selected.
#[derive(Debug, Default)]
pub(crate) struct ShareGroups {
    /// As the source listed them last.
    pub(crate) names: Vec<String>,
    /// What is left to do of a round.
    left: VecDeque<Piece>,
    /// Start offsets that wait for what has to be read.
    pub(crate) waiting: Waiting,
    /// When the last round began, and whether it goes on.
    begun: Option<Instant>,
    going_on: bool,
    /// Groups of it with a place on mirrored partitions, and those that stand on the target where they should.
    seen: usize,
    standing: BTreeSet<String>,
    /// How many these were in the last round that ended.
    pub(crate) last: (usize, usize),
    /// A cluster does not have what is needed for them, which was said.
    lacking: bool,
}

/// A piece of a round.
#[derive(Debug)]
enum Piece {
    /// Groups to look at.
    Look(Vec<String>),
    /// Translated start offsets.
    Set(Entries),
}

/// Whether a cluster does not have what is needed for share groups.
pub(crate) fn unsupported(error: &NetError) -> bool {
    matches!(error, NetError::Unsupported { .. })
        || error.code() == Some(KafkaError::UNSUPPORTED_VERSION)
}

impl ShareGroups {
    fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
        self.going_on = true;
        self.seen = 0;
        self.standing.clear();
        // The ones first for which there was no room.
        let first = self.waiting.full_at.take().unwrap_or_default();
        let at = self.names.partition_point(|name| *name < first);
        let (before, from) = self.names.split_at(at);
        let names: Vec<String> = from.iter().chain(before).cloned().collect();
        let slices = names
            .chunks(Kind::Share.at_once())
            .map(|slice| Piece::Look(slice.to_vec()));
        self.left = slices.collect();
    }

    /// Gives up the round that goes on, and what is known of the one before.
    pub(crate) fn stop(&mut self) {
        self.left.clear();
        self.waiting = Waiting::default();
        self.going_on = false;
        self.last = (0, 0);
    }

    /// What was waited for was read.
    pub(crate) fn was_read(&mut self) {
        let mut waiting = self.waiting.take().into_iter().peekable();
        while waiting.peek().is_some() {
            let slice = waiting.by_ref().take(Kind::Share.at_once()).collect();
            self.left.push_back(Piece::Set(slice));
        }
    }
}

impl Groups {
    /// When there is something to do for share groups; `now` at the earliest.
    pub(crate) fn share_due(&self, now: Instant) -> Option<Instant> {
        let share = &self.share;
        // Between clusters that mirror each other a start offset has no translation.
        if !self.settings.sync_offsets || self.both_ways.is_some() || !self.open() {
            return None;
        }
        if share.going_on {
            let waits = share.left.is_empty() && !share.waiting.entries.is_empty();
            return (!waits).then_some(now);
        }
        let pause = if share.lacking {
            LOOK_AGAIN
        } else {
            self.settings.sync_interval
        };
        let wanted = !share.names.is_empty() || share.last != (0, 0);
        wanted.then(|| share.begun.map_or(now, |begun| (begun + pause).max(now)))
    }

    /// One slice of share groups, if one is due.
    pub(crate) async fn share_step(&mut self) {
        let now = self.rt.now();
        if self.share_due(now).is_none_or(|at| at > now) {
            return;
        }
        if !self.share.going_on {
            self.share.begin(now);
        }
        match self.share.left.pop_front() {
            Some(Piece::Look(names)) => {
                let source = self.committed(Kind::Share, true, &names).await;
                if self.share_lacks(&source) {
                    return;
                }
                let entries = self.entries(Kind::Share, source);
                self.share.seen += entries.len();
                let mut waiting = std::mem::take(&mut self.share.waiting);
                let known = self.defer(entries, &mut waiting);
                self.share.waiting = waiting;
                self.share_set(&known).await;
            }
            Some(Piece::Set(mut entries)) => {
                self.take_up(&mut entries);
                self.share_set(&entries).await;
            }
            None => {
                self.share.going_on = false;
                self.share.last = (self.share.seen, self.share.standing.len());
            }
        }
    }

    async fn share_set(&mut self, entries: &Entries) {
        let standing = self.apply(Kind::Share, entries, false).await;
        self.share.standing.extend(standing.unwrap_or_default());
    }

    /// Whether a cluster lacks the API, which is said once; it may have it later.
    pub(crate) fn share_lacks(
        &mut self,
        found: &BTreeMap<String, Result<GroupOffsets, NetError>>,
    ) -> bool {
        let mut errors = found.values().filter_map(|found| found.as_ref().err());
        let lacks = errors.find(|error| unsupported(error));
        if let Some(error) = lacks {
            if !self.share.lacking {
                warn!(
                    link = %self.link, id = "share-groups-unsupported", groups = self.share.names.len(),
                    "share groups are not looked after: {error}; consumer groups are (Kafka 4.1 has what is needed), and it is looked again whether it is there"
                );
            }
            self.share.lacking = true;
            self.share.stop();
        }
        lacks.is_some()
    }

    /// Both clusters have what is needed.
    pub(crate) fn share_served(&mut self) {
        if std::mem::take(&mut self.share.lacking) {
            info!(link = %self.link, "share groups are looked after now");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(share: &ShareGroups) -> Vec<String> {
        let names = share.left.iter().flat_map(|piece| match piece {
            Piece::Look(names) => names.clone(),
            Piece::Set(entries) => entries.keys().cloned().collect(),
        });
        names.collect()
    }

    #[test]
    fn a_round_begins_where_there_was_no_room_in_the_one_before() {
        let names: Vec<String> = (0..250).map(|n| format!("hand-{n:03}")).collect();
        let mut share = ShareGroups {
            names: names.clone(),
            ..ShareGroups::default()
        };
        let now = strait_net::Runtime::system().now();
        share.begin(now);
        assert_eq!(left(&share), names);
        assert_eq!(share.left.len(), 10);
        share.waiting.full_at = Some("hand-120".to_owned());
        share.begin(now);
        let from = [&names[120..], &names[..120]].concat();
        assert_eq!(left(&share), from);
        share.begin(now);
        assert_eq!(left(&share), names);
    }

    #[test]
    fn what_was_read_comes_in_slices_too() {
        let mut share = ShareGroups::default();
        for n in 0..250 {
            let group = format!("hand-{n:03}");
            share.waiting.entries.insert(group, Vec::new());
        }
        share.was_read();
        assert_eq!((share.left.len(), left(&share).len()), (10, 250));
        assert!(share.waiting.entries.is_empty());
    }
}
