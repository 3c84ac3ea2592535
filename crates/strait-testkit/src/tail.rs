//! Follows a partition from outside: what has been added since the last look, counted as a reader would see it.

use std::collections::BTreeMap;

use crate::broker::Broker;
use crate::records::{CONTROL, TRANSACTIONAL};

/// Counts what a partition has been given. Looking costs only what is new.
///
/// Records of a transaction count when its commit marker is in the log. What compaction or retention takes away after
/// it was seen stays counted.
#[derive(Debug, Clone)]
pub struct Tail {
    broker: Broker,
    topic: String,
    partition: i32,
    next: i64,
    open: BTreeMap<i64, u64>,
    records: u64,
    aborted: u64,
    bytes: u64,
    writer: Option<(i64, i16)>,
}

impl Tail {
    /// Follows a partition from its log start; a topic that does not exist yet looks empty until it does.
    #[must_use]
    pub fn new(broker: &Broker, topic: &str, partition: i32) -> Self {
        Self {
            broker: broker.clone(),
            topic: topic.to_owned(),
            partition,
            next: 0,
            open: BTreeMap::new(),
            records: 0,
            aborted: 0,
            bytes: 0,
            writer: None,
        }
    }

    /// Takes in what is new.
    pub fn look(&mut self) {
        let new = self.broker.with_cluster(|cluster, _| {
            let Ok(partition) = cluster.partition(&self.topic, self.partition) else {
                return Vec::new();
            };
            let log = &partition.log;
            let new = log.batches.get(log.find(self.next)..).unwrap_or_default();
            new.to_vec()
        });
        for batch in new {
            let header = &batch.header;
            let count = u64::try_from(header.count).unwrap_or(0);
            self.next = header.next_offset();
            if header.has(CONTROL) {
                let records = self.open.remove(&header.producer_id).unwrap_or(0);
                match batch.marker() {
                    Some(true) => self.records += records,
                    _ => self.aborted += records,
                }
                continue;
            }
            self.writer = Some((header.producer_id, header.producer_epoch));
            self.bytes += batch.bytes.len() as u64;
            if header.has(TRANSACTIONAL) {
                *self.open.entry(header.producer_id).or_default() += count;
            } else {
                self.records += count;
            }
        }
    }

    /// Records seen, without those of open or aborted transactions.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Producer id and epoch of the newest batch seen, markers apart.
    #[must_use]
    pub fn writer(&self) -> Option<(i64, i16)> {
        self.writer
    }

    /// Records of aborted transactions.
    #[must_use]
    pub fn aborted(&self) -> u64 {
        self.aborted
    }

    /// Bytes of all batches seen but markers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Tail;
    use crate::{Broker, BrokerConfig, Codec, KitRecord};

    #[test]
    fn counts_each_record_once_and_transactions_when_they_end() {
        let broker = Broker::new(BrokerConfig::default());
        let mut tail = Tail::new(&broker, "payments", 0);
        tail.look();
        assert_eq!((tail.records(), tail.bytes()), (0, 0));

        broker.create_topic("payments", 1, &[]).unwrap();
        let three = vec![KitRecord::new(broker.now_ms(), None, Some(b"42")); 3];
        let mut plain = broker.plain_producer();
        plain.send("payments", 0, Codec::Lz4, &three).unwrap();
        tail.look();
        tail.look();
        assert_eq!((tail.records(), tail.aborted()), (3, 0));

        let mut both = ["a", "b"].map(|tid| broker.transactional_producer(tid).unwrap());
        for producer in &mut both {
            producer.begin();
            producer.send("payments", 0, Codec::None, &three).unwrap();
        }
        tail.look();
        assert_eq!(tail.records(), 3);
        both[0].abort().unwrap();
        both[1].commit().unwrap();
        tail.look();
        assert_eq!((tail.records(), tail.aborted()), (6, 3));
        assert_eq!(tail.writer(), Some(both[1].identity()));
    }
}
