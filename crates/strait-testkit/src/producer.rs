//! A producer that writes straight into a broker, for tests that need data rather than a network.

use std::collections::BTreeMap;

use crate::broker::Broker;
use crate::cluster::KitError;
use crate::codec::Codec;
use crate::records::{BatchSpec, KitRecord, TRANSACTIONAL, add_sequence};
use crate::transactions::Stamp;

/// A producer with its own id, epoch and sequences (or none of them).
#[derive(Debug, Clone)]
pub struct KitProducer {
    broker: Broker,
    tid: Option<String>,
    stamp: Option<Stamp>,
    sequences: BTreeMap<(String, i32), i32>,
    open: bool,
}

impl Broker {
    /// A producer without producer id: nothing is deduplicated.
    #[must_use]
    pub fn plain_producer(&self) -> KitProducer {
        KitProducer {
            broker: self.clone(),
            tid: None,
            stamp: None,
            sequences: BTreeMap::new(),
            open: false,
        }
    }

    /// An idempotent producer with a fresh producer id.
    #[must_use]
    pub fn idempotent_producer(&self) -> KitProducer {
        let producer_id = self.with_cluster(|cluster, _| cluster.coordinator.new_producer_id());
        KitProducer {
            stamp: Some(Stamp {
                producer_id,
                epoch: 0,
            }),
            ..self.plain_producer()
        }
    }

    /// A transactional producer; an older one with the same id is fenced as in Kafka.
    ///
    /// # Errors
    /// 51 while that one's transaction is being completed.
    pub fn transactional_producer(&self, tid: &str) -> Result<KitProducer, KitError> {
        let stamp = self
            .with_cluster(|cluster, now_ms| {
                let longest = cluster.coordinator.max_timeout_ms;
                cluster.coordinator.init(tid, longest, None, now_ms)
            })
            .map_err(|code| KitError::refused(code, format!("InitProducerId of {tid}")))?;
        Ok(KitProducer {
            tid: Some(tid.to_owned()),
            stamp: Some(stamp),
            ..self.plain_producer()
        })
    }
}

impl KitProducer {
    /// The producer id and epoch, (-1, -1) for a plain producer.
    #[must_use]
    pub fn identity(&self) -> (i64, i16) {
        self.stamp.map_or((-1, -1), |s| (s.producer_id, s.epoch))
    }

    /// Writes one batch, inside the open transaction if there is one; answers its base offset.
    ///
    /// # Errors
    /// Whatever the broker's checks say.
    pub fn send(
        &mut self,
        topic: &str,
        partition: i32,
        codec: Codec,
        records: &[KitRecord],
    ) -> Result<i64, KitError> {
        let at = (topic.to_owned(), partition);
        let sequence = self.sequences.get(&at).copied().unwrap_or(0);
        let mut spec = BatchSpec {
            codec,
            ..BatchSpec::default()
        };
        if let Some(stamp) = self.stamp {
            spec.producer_id = stamp.producer_id;
            spec.producer_epoch = stamp.epoch;
            spec.base_sequence = sequence;
        }
        if self.open
            && let (Some(tid), Some(stamp)) = (&self.tid, self.stamp)
        {
            spec.flags |= TRANSACTIONAL;
            let added = self.broker.with_cluster(|cluster, now_ms| {
                cluster
                    .coordinator
                    .add(tid, stamp, std::slice::from_ref(&at), now_ms)
            });
            added.map_err(|code| {
                KitError::refused(code, format!("adding {topic}-{partition} to {tid}"))
            })?;
        }
        let offset = self
            .broker
            .append(topic, partition, &spec.build(records)?)?;
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        self.sequences.insert(at, add_sequence(sequence, count));
        Ok(offset)
    }

    /// Opens a transaction: what is sent from now on belongs to it. No effect without a transactional id.
    pub fn begin(&mut self) {
        self.open = self.tid.is_some();
    }

    /// Commits; the markers are written before this returns.
    ///
    /// # Errors
    /// 48 if nothing was sent, 90 if fenced.
    pub fn commit(&mut self) -> Result<(), KitError> {
        self.end(true)
    }

    /// Aborts; the markers are written before this returns.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn abort(&mut self) -> Result<(), KitError> {
        self.end(false)
    }

    fn end(&mut self, commit: bool) -> Result<(), KitError> {
        let (Some(tid), Some(stamp)) = (&self.tid, self.stamp) else {
            return Ok(());
        };
        self.open = false;
        let outcome = self.broker.with_cluster(|cluster, now_ms| {
            cluster.coordinator.end(tid, stamp, commit, false, now_ms)?;
            cluster.coordinator.hurry(tid, now_ms);
            cluster.run_due(now_ms);
            Ok(())
        });
        outcome.map_err(|code| KitError::refused(code, format!("EndTxn of {tid}")))
    }
}
