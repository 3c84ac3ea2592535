//! `strait_gap_offsets_total`: what the positions record as left out, counted when a position is persisted.

use std::collections::BTreeMap;

use strait_wire::{GapReason, SyncRecord};

use crate::spec::FlowKey;

/// What was counted of each flow since the process began. A position's sums only grow, so the difference between one
/// persisted position and the next is counted once, however often a stretch between them was read; outlives sessions.
#[derive(Debug)]
pub(crate) struct GapCounts {
    link: String,
    flows: BTreeMap<FlowKey, BTreeMap<GapReason, i64>>,
}

impl GapCounts {
    /// Nothing counted.
    pub(crate) fn new(link: &str) -> Self {
        Self {
            link: link.to_owned(),
            flows: BTreeMap::new(),
        }
    }

    /// A flow begins at the position that a new session found. What it records from before this process is not counted.
    pub(crate) fn begin(&mut self, key: &FlowKey, found: Option<&SyncRecord>) {
        match found {
            Some(sync) if self.flows.contains_key(key) => self.persisted(sync),
            _ => {
                let gaps = found.map_or(&[][..], gaps).iter().copied();
                self.flows
                    .entry(key.clone())
                    .or_insert_with(|| gaps.collect());
            }
        }
    }

    /// A position of a flow was persisted.
    pub(crate) fn persisted(&mut self, sync: &SyncRecord) {
        for (reason, offsets) in self.grown(sync) {
            metrics::counter!("strait_gap_offsets_total", "link" => self.link.clone(), "reason" => reason.as_str())
                .increment(offsets);
        }
    }

    /// By how much the sums grew since they were counted last.
    fn grown(&mut self, sync: &SyncRecord) -> Vec<(GapReason, u64)> {
        let gaps = gaps(sync);
        let mut grown = Vec::new();
        // Most positions of most flows: nothing is looked up for them.
        if gaps.is_empty() {
            return grown;
        }
        let key = FlowKey {
            topic: sync.topic.clone(),
            partition: sync.partition,
        };
        let counted = self.flows.entry(key).or_default();
        for &(reason, sum) in gaps {
            let known = counted.entry(reason).or_default();
            let more = sum.saturating_sub(*known);
            if let Ok(more @ 1..) = u64::try_from(more) {
                *known = sum;
                grown.push((reason, more));
            }
        }
        grown
    }
}

fn gaps(sync: &SyncRecord) -> &[(GapReason, i64)] {
    let position = sync.position.as_ref();
    position.map_or(&[], |position| &position.gaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::position;

    fn key() -> FlowKey {
        FlowKey {
            topic: "t".to_owned(),
            partition: 0,
        }
    }

    fn sync(gaps: &[(GapReason, i64)]) -> SyncRecord {
        SyncRecord {
            topic: "t".to_owned(),
            partition: 0,
            upstream: 0,
            downstream: 0,
            position: Some(position(gaps.to_vec())),
        }
    }

    #[test]
    fn each_recorded_gap_is_counted_once() {
        use GapReason::{Control, Expired, Recreated};
        let mut counts = GapCounts::new("l");
        counts.begin(&key(), Some(&sync(&[(Control, 7)])));
        let first = sync(&[(Control, 9), (Expired, 100)]);
        let grown = counts.grown(&first);
        assert_eq!(
            grown,
            [(Control, 2), (Expired, 100)],
            "7 are of an earlier process"
        );
        assert_eq!(counts.grown(&first), []);
        // A session that was lost: what it had written is found, and what it had not is read again.
        counts.begin(&key(), Some(&first));
        let second = sync(&[(Control, 9), (Expired, 100), (Recreated, 3)]);
        assert_eq!(counts.grown(&second), [(Recreated, 3)]);
    }

    #[test]
    fn what_a_lost_session_wrote_unheard_is_counted_by_the_next() {
        let mut counts = GapCounts::new("l");
        counts.begin(&key(), None);
        counts.begin(&key(), Some(&sync(&[(GapReason::Aborted, 4)])));
        assert_eq!(counts.flows[&key()][&GapReason::Aborted], 4);
        let grown = counts.grown(&sync(&[(GapReason::Aborted, 5)]));
        assert_eq!(grown, [(GapReason::Aborted, 1)]);
    }
}
