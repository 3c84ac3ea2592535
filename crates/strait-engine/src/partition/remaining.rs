//! How many records a partition of the target holds between two offsets: for who waits until they are read.

use std::sync::Arc;
use std::time::Duration;

use strait_net::{Cluster, Runtime};
use strait_wire::Isolation;

use crate::error::FlowError;
use crate::partition::patience::Patience;
use crate::partition::{PartitionReader, batches_from};
use crate::routes::Routes;
use crate::tally::Budget;

/// How long a log may give nothing of what lies below its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is left between two offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Records, or how many there are at the most.
    pub records: i64,
    /// Whether it is the exact number.
    pub exact: bool,
}

/// Counts records of one cluster, by the headers of their batches: markers take offsets and are no records.
#[derive(Clone, Debug)]
pub struct Remaining {
    rt: Runtime,
    routes: Arc<Routes>,
}

impl Remaining {
    /// On this cluster.
    pub fn new(rt: &Runtime, cluster: Cluster) -> Self {
        Self {
            rt: rt.clone(),
            routes: Arc::new(Routes::new(rt.clone(), cluster)),
        }
    }

    /// The records from `from` to below `to`. Takes what it reads off `budget`; where that is used up, and where the log cannot
    /// be read, every offset counts as a record.
    pub async fn count(
        &self,
        (topic, partition): (&str, i32),
        (from, to): (i64, i64),
        budget: &Budget,
    ) -> Left {
        let reader = PartitionReader {
            source: false,
            rt: self.rt.clone(),
            routes: self.routes.clone(),
            topic: topic.to_owned(),
            partition,
            isolation: Isolation::ReadUncommitted,
        };
        let mut counting = Counting::new(from, to);
        // What cannot be read is told by the number's being no exact one.
        let _ = self.read(&reader, &mut counting, budget).await;
        counting.left()
    }

    async fn read(
        &self,
        reader: &PartitionReader,
        counting: &mut Counting,
        budget: &Budget,
    ) -> Result<(), FlowError> {
        let mut patience = Patience::new(&self.rt, PATIENCE, counting.next);
        while counting.next < counting.to {
            let next = counting.next;
            let Some(fetched) = budget.fetch(reader, next).await else {
                return Ok(());
            };
            let fetched = fetched?;
            if fetched.part.error != 0 {
                return Ok(());
            }
            for batch in batches_from(&fetched.part, next)? {
                let header = &batch.header;
                counting.take(
                    (header.base_offset, header.last_offset() + 1),
                    i64::from(header.count),
                    header.attributes.control(),
                );
            }
            if counting.next < counting.to && !patience.asks_again(counting.next).await {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The count while it is made.
struct Counting {
    next: i64,
    to: i64,
    records: i64,
    exact: bool,
}

impl Counting {
    fn new(from: i64, to: i64) -> Self {
        Self {
            next: from,
            to,
            records: 0,
            exact: true,
        }
    }

    /// Takes the next batch, of offsets from `base` to below `end`, with `count` records.
    fn take(&mut self, (base, end): (i64, i64), count: i64, control: bool) {
        // Behind the stretch: what lies before holds no records.
        let (first, last) = (base.max(self.next), end.min(self.to));
        if !control && first < last {
            let offsets = last - first;
            self.records += offsets.min(count);
            // Of a batch with holes that is cut, the part is not known.
            self.exact &= (first, last) == (base, end) || count == end - base;
        }
        self.next = self.next.max(end).min(self.to);
    }

    fn left(&self) -> Left {
        let unread = self.to - self.next;
        Left {
            records: self.records + unread,
            exact: self.exact && unread == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(from: i64, to: i64, batches: &[((i64, i64), i64, bool)]) -> Left {
        let mut counting = Counting::new(from, to);
        for (offsets, count, control) in batches {
            counting.take(*offsets, *count, *control);
        }
        counting.left()
    }

    fn exactly(records: i64) -> Left {
        Left {
            records,
            exact: true,
        }
    }

    fn at_most(records: i64) -> Left {
        Left {
            records,
            exact: false,
        }
    }

    #[test]
    fn markers_and_holes_are_no_records() {
        let log = [
            ((95, 105), 10, false),
            ((105, 106), 1, true),
            // A hole, and a batch that compaction has thinned out.
            ((110, 120), 4, false),
            ((120, 121), 1, true),
        ];
        assert_eq!(counted(100, 121, &log), exactly(9));
        assert_eq!(counted(105, 121, &log), exactly(4));
        assert_eq!(counted(120, 121, &log[3..]), exactly(0));
        assert_eq!(counted(112, 121, &log[2..]), at_most(4));
        assert_eq!(counted(118, 121, &log[2..]), at_most(2));
    }

    #[test]
    fn what_is_not_read_may_be_records() {
        assert_eq!(counted(100, 130, &[((95, 105), 10, false)]), at_most(30));
        assert_eq!(counted(130, 130, &[]), exactly(0));
    }
}
