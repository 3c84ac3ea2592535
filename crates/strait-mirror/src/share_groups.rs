//! Share groups of a running link: where they begin to read is translated and set on the target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strait_engine::FlowKey;
use strait_net::{KafkaError, NetError, ShareOffsets};
use tracing::{debug, warn};

use crate::groups::{Groups, UNREADABLE};
use crate::translation::Budget;

/// What may be read of the logs for them in one round.
const READ: (u64, Duration) = (16 << 20, Duration::from_secs(2));
/// Groups that are looked at at a time.
const SLICE: usize = 100;
/// A group's start offsets cannot be set on the target.
const UNSET: &str = "group-uncommitted";

/// Share groups of a link, selected.
#[derive(Debug, Default)]
pub(crate) struct ShareGroups {
    /// As the source listed them last.
    pub(crate) names: Vec<String>,
    /// A cluster does not have what is needed for them.
    unsupported: bool,
}

impl Groups {
    /// All share groups once: how many have a place on mirrored partitions, and those that stand on the target where they
    /// should.
    pub(crate) async fn share_round(&mut self) -> (usize, usize) {
        if !self.settings.sync_offsets || self.share.unsupported {
            return (0, 0);
        }
        let names = self.share.names.clone();
        let (mut seen, mut standing) = (0, 0);
        for slice in names.chunks(SLICE) {
            let source = self.source.share_offsets(slice).await;
            if self.unsupported(&source) {
                return (0, 0);
            }
            let wanted = self.share_wanted(source).await;
            seen += wanted.len();
            let groups: Vec<String> = wanted.keys().cloned().collect();
            let mut target = self.target.share_offsets(&groups).await;
            if self.unsupported(&target) {
                return (0, 0);
            }
            for (group, wanted) in wanted {
                if !self.open() {
                    break;
                }
                let there = match target.remove(&group) {
                    Some(Ok(there)) => there,
                    Some(Err(error)) => {
                        self.unset(&group, &error);
                        continue;
                    }
                    None => continue,
                };
                standing += usize::from(self.share_set(&group, wanted, &there).await);
            }
        }
        (seen, standing)
    }

    /// Whether a cluster lacks the API, which is said once.
    fn unsupported(&mut self, found: &BTreeMap<String, Result<ShareOffsets, NetError>>) -> bool {
        let lacks = found.values().find_map(|found| match found {
            Err(error @ NetError::Unsupported { .. }) => Some(error),
            _ => None,
        });
        if let Some(error) = lacks {
            self.share.unsupported = true;
            warn!(
                link = %self.link, id = "share-groups-unsupported", groups = self.share.names.len(),
                "share groups are not looked after: {error}; consumer groups are (Kafka 4.1 has what is needed)"
            );
        }
        lacks.is_some()
    }

    /// The translated start offsets of groups with a place on mirrored partitions.
    async fn share_wanted(
        &mut self,
        source: BTreeMap<String, Result<ShareOffsets, NetError>>,
    ) -> BTreeMap<String, ShareOffsets> {
        let mirrored = self.mirrored.borrow().clone();
        let mut found: Vec<(String, FlowKey, i64)> = Vec::new();
        let mut open: BTreeMap<FlowKey, BTreeSet<i64>> = BTreeMap::new();
        for (group, offsets) in source {
            let offsets = match offsets {
                Ok(offsets) => {
                    self.well(&group, UNREADABLE);
                    offsets
                }
                Err(error) => {
                    let cluster = self.source.alias().to_owned();
                    let what = format!(
                        "cannot read the start offsets of this share group on cluster {cluster}"
                    );
                    self.trouble(
                        &group,
                        UNREADABLE,
                        &error,
                        &what,
                        "Describe on the group there",
                    );
                    continue;
                }
            };
            for ((topic, partition), offset) in offsets {
                let flow = FlowKey { topic, partition };
                if !mirrored.contains(&flow) {
                    continue;
                }
                if self.translator.countable(&flow, offset) {
                    open.entry(flow.clone()).or_default().insert(offset);
                }
                found.push((group.clone(), flow, offset));
            }
        }
        let budget = Arc::new(Budget::new(&self.rt, READ.0, READ.1));
        self.translator.count(open, &budget).await;
        let mut wanted: BTreeMap<String, ShareOffsets> = BTreeMap::new();
        for (group, flow, offset) in found {
            if let Some(at) = self.translator.known(&flow, offset) {
                let offsets = wanted.entry(group).or_default();
                offsets.insert((at.topic, at.partition), at.offset);
            }
        }
        wanted
    }

    /// Sets what lies behind on the target; whether the group then stands where it should.
    async fn share_set(&mut self, group: &str, wanted: ShareOffsets, there: &ShareOffsets) -> bool {
        // Forward alone: whoever reads on the target may have gone on there.
        let behind = |(place, offset): &(&(String, i32), &i64)| {
            there.get(*place).is_none_or(|now| now < *offset)
        };
        let places: BTreeSet<(String, i32)> = wanted
            .iter()
            .filter(behind)
            .map(|(p, _)| p.clone())
            .collect();
        if places.is_empty() {
            self.well(group, UNSET);
            return true;
        }
        let ends = self.target.log_ends(&places).await;
        let mut offsets = ShareOffsets::new();
        for place in places {
            let (Some(Ok((start, end))), Some(&offset)) = (ends.get(&place), wanted.get(&place))
            else {
                continue;
            };
            let offset = offset.clamp(*start, (*end).max(*start));
            if there.get(&place).is_none_or(|now| *now < offset) {
                offsets.insert(place, offset);
            }
        }
        if offsets.is_empty() {
            return true;
        }
        let codes = match self.target.alter_share_offsets(group, &offsets).await {
            Ok(codes) => codes,
            Err(error) if error.code() == Some(KafkaError(NON_EMPTY_GROUP)) => {
                debug!(link = %self.link, group, "the share group has members on the target");
                self.active.insert(group.to_owned());
                self.troubles.remove(group);
                return false;
            }
            Err(error) => {
                self.unset(group, &error);
                return false;
            }
        };
        self.active.remove(group);
        let done = codes.values().filter(|code| code.0 == 0).count();
        self.gauges.commits.increment(done as u64);
        match codes.iter().find(|(_, code)| code.0 != 0) {
            Some((_, code)) => {
                let what = format!("group '{group}' on cluster {}", self.target.alias());
                let error = NetError::kafka(code.0, "AlterShareGroupOffsets", what);
                self.unset(group, &error);
                false
            }
            None => {
                self.troubles.remove(group);
                true
            }
        }
    }

    fn unset(&mut self, group: &str, error: &NetError) {
        let what = format!(
            "cannot set where this share group begins on cluster {}, the others go on",
            self.target.alias()
        );
        let right = "Read on the group there, and Read on the mirrored topics";
        self.trouble(group, UNSET, error, &what, right);
    }
}

/// The code for a group that has members.
const NON_EMPTY_GROUP: i16 = 68;
