//! Offsets from before a link took over from MirrorMaker 2: translated by that one's own offset syncs.

use std::collections::BTreeMap;

use strait_engine::{FlowKey, Pair, TakenAt, read_mm2_pairs};
use strait_net::{Cluster, Runtime};

/// What MirrorMaker 2's offset syncs tell.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pairs: BTreeMap<FlowKey, Vec<Pair>>,
    flows: usize,
}

impl Before {
    /// For flows that were taken over, each with the place where.
    pub(crate) async fn read(
        rt: &Runtime,
        source: Cluster,
        target: Cluster,
        separator: &str,
        taken_at: &BTreeMap<FlowKey, TakenAt>,
    ) -> Self {
        let pairs = read_mm2_pairs(rt, source, target, separator, taken_at).await;
        Self {
            pairs,
            flows: taken_at.len(),
        }
    }

    /// For how many flows they were looked for.
    pub(crate) fn flows(&self) -> usize {
        self.flows
    }

    /// Where records at and above a source offset stand on the target, at the least. `end`: where Strait took over there.
    ///
    /// A pair stands for one record on both sides, and those that follow it on the source were copied behind it. What was
    /// copied again after a crash stands there once more, further on.
    pub(crate) fn find(&self, flow: &FlowKey, offset: i64, end: i64) -> i64 {
        let pairs = self.pairs.get(flow);
        let places = pairs
            .into_iter()
            .flatten()
            .filter_map(|&(upstream, downstream)| {
                let place = match upstream.cmp(&offset) {
                    std::cmp::Ordering::Less => downstream.saturating_add(1),
                    std::cmp::Ordering::Equal => downstream,
                    std::cmp::Ordering::Greater => return None,
                };
                (place <= end).then_some(place)
            });
        places.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_placed_behind_the_last_pair_below_it() {
        let flow = FlowKey {
            topic: "t".to_owned(),
            partition: 0,
        };
        let pairs = vec![(0, 0), (100, 90), (200, 180), (300, 900)];
        let before = Before {
            pairs: [(flow.clone(), pairs)].into(),
            flows: 1,
        };
        // (source offset, at least there)
        for (offset, place) in [
            (0, 0),
            (50, 1),
            (100, 90),
            (150, 91),
            (250, 181),
            (400, 181),
        ] {
            assert_eq!(before.find(&flow, offset, 260), place, "{offset}");
        }
        let other = FlowKey {
            partition: 1,
            ..flow
        };
        assert_eq!(before.find(&other, 250, 260), 0);
    }
}
