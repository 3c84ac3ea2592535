//! What can be seen of a mirror from outside: how much lies on either side, and how far the target is behind.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use strait_testkit::{Broker, Tail};
use tokio::time::Instant;

use super::shop::TOPICS;

/// What has been seen up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// Committed records on the source.
    pub(crate) source_records: u64,
    /// Records of aborted transactions on the source.
    pub(crate) aborted: u64,
    /// Records on the target.
    pub(crate) records: u64,
    /// Bytes of their batches.
    pub(crate) bytes: u64,
    /// Committed records that the target does not have yet.
    pub(crate) lag: u64,
    /// For how long the oldest of them has been committed: what a loss of the source would cost now.
    pub(crate) behind: Duration,
    /// Producer ids and epochs seen on the target: one more for each mirror process that has written.
    pub(crate) writers: usize,
}

struct Flow {
    source: Tail,
    target: Tail,
    /// The most records seen on the source.
    seen: u64,
    /// When the source was first seen to have so many records, for those that the target lacks.
    ahead: VecDeque<(Instant, u64)>,
}

/// Measures both clusters. It asks neither the mirror nor its log or metrics.
pub(crate) struct Gauge {
    flows: Vec<Flow>,
    writers: BTreeSet<(i64, i16)>,
}

impl Gauge {
    /// Follows the shop's topics on both clusters.
    pub(crate) fn new(
        source: &Broker,
        target: &Broker,
        target_name: impl Fn(&str) -> String,
    ) -> Self {
        let mut flows = Vec::new();
        for topic in &TOPICS {
            for partition in 0..topic.partitions {
                flows.push(Flow {
                    source: Tail::new(source, topic.name, partition),
                    target: Tail::new(target, &target_name(topic.name), partition),
                    seen: 0,
                    ahead: VecDeque::new(),
                });
            }
        }
        Self {
            flows,
            writers: BTreeSet::new(),
        }
    }

    /// Looks at both sides. What is committed counts from the look that first saw it.
    pub(crate) fn look(&mut self, now: Instant) -> Reading {
        let mut reading = Reading::default();
        for flow in &mut self.flows {
            // The target first: what arrives between the two looks must not hide what is missing.
            flow.target.look();
            flow.source.look();
            let (there, here) = (flow.source.records(), flow.target.records());
            if there > flow.seen {
                flow.ahead.push_back((now, there));
                flow.seen = there;
            }
            let arrived = |(_, records): &(Instant, u64)| *records <= here;
            while flow.ahead.front().is_some_and(arrived) {
                flow.ahead.pop_front();
            }
            if let Some((since, _)) = flow.ahead.front() {
                let behind = now.saturating_duration_since(*since);
                reading.behind = reading.behind.max(behind);
            }
            self.writers.extend(flow.target.writer());
            reading.source_records += there;
            reading.aborted += flow.source.aborted();
            reading.records += here;
            reading.bytes += flow.target.bytes();
            reading.lag += there.saturating_sub(here);
        }
        reading.writers = self.writers.len();
        reading
    }
}
