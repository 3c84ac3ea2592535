//! What a link would take over from MirrorMaker 2, as far as can be told without it.

use strait_config::{Forward, LinkConfig};
use strait_engine::{
    FlowKey, KnownPosition, Mm2Positions, Mm2Presence, mm2_presence, read_mm2_positions,
};
use strait_net::{Cluster, NetError, Runtime};

use crate::mirror::taken_from;

/// What partitions of a topic would go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedTakeover {
    /// Partitions that would.
    pub partitions: usize,
    /// The lowest source offset that MirrorMaker 2 may not have mirrored, by what it wrote itself.
    pub from: i64,
    /// The highest.
    pub to: i64,
}

impl PlannedTakeover {
    /// With one partition more.
    pub(crate) fn and(so_far: Option<Self>, next: i64) -> Option<Self> {
        let so_far = so_far.unwrap_or(Self {
            partitions: 0,
            from: next,
            to: next,
        });
        Some(Self {
            partitions: so_far.partitions + 1,
            from: so_far.from.min(next),
            to: so_far.to.max(next),
        })
    }
}

/// Whether the link goes on where MirrorMaker 2 stopped.
pub(crate) fn takes_over(config: &LinkConfig) -> bool {
    config.takeover.offsets_topic.is_some() && config.forward != Forward::Local
}

/// What MirrorMaker 2 left for a link.
#[derive(Debug, Default)]
pub(crate) struct Mm2Left {
    positions: Mm2Positions,
    /// Its group and how many members that has.
    pub(crate) running: Option<(String, usize)>,
    /// What is not known of it, and why.
    pub(crate) unknown: Option<String>,
    /// Why it cannot be seen whether it was ever there.
    pub(crate) unseen: Option<String>,
}

impl Mm2Left {
    pub(crate) async fn look(
        rt: &Runtime,
        config: &LinkConfig,
        source: &Cluster,
        target: &Cluster,
    ) -> Result<Self, NetError> {
        let mut left = Self::default();
        let takeover = taken_from(config);
        if !takes_over(config) {
            return Ok(left);
        }
        match mm2_presence(target, &takeover).await? {
            Mm2Presence::Absent => return Ok(left),
            Mm2Presence::Gone => {}
            Mm2Presence::Running(group, members) => left.running = Some((group, members)),
            Mm2Presence::Unseen(why) => {
                left.unseen = Some(why);
                return Ok(left);
            }
        }
        match read_mm2_positions(rt, source.clone(), target.clone(), &takeover).await {
            Ok(positions) => left.positions = positions,
            Err(error) => left.unknown = Some(format!("what MirrorMaker 2 left: {error}")),
        }
        Ok(left)
    }

    /// Where the flow would go on at the least, if it would be taken over. `written`: the target partition has held records.
    pub(crate) fn next(
        &self,
        flow: &FlowKey,
        known: Option<&KnownPosition>,
        written: bool,
    ) -> Option<i64> {
        match known {
            None | Some(KnownPosition::MirrorMaker2) if written => self.positions.reaches(flow),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_are_told_together() {
        let one = PlannedTakeover::and(None, 41);
        let three = PlannedTakeover::and(PlannedTakeover::and(one, 7), 90).unwrap();
        assert_eq!((three.partitions, three.from, three.to), (3, 7, 90));
    }
}
