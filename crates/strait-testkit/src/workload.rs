//! Realistic data by seed: the same seed writes the same records in the same batches.
//!
//! Topics: `orders` (JSON, some with headers, some keys null), `profiles` (compacted: updates and tombstones),
//! `clicks` (null keys, tiny and huge batches, all codecs), `payments` (transactions, some aborted, interleaved).

use crate::broker::Broker;
use crate::cluster::KitError;
use crate::codec::ALL;
use crate::producer::KitProducer;
use crate::records::KitRecord;

/// The topics a workload creates, in the order it writes them.
pub const TOPICS: [&str; 4] = ["orders", "profiles", "clicks", "payments"];

const DAY_MS: i64 = 86_400_000;

/// When the records claim to have been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Within the last minutes.
    Recent,
    /// Two years ago: older than producer state and retention live (topics are created with `retention.ms` -1).
    Historic,
    /// Both, at random per batch.
    Mixed,
}

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Seed of everything.
    pub seed: u64,
    /// Partitions per topic.
    pub partitions: i32,
    /// When the records claim to have been made.
    pub age: Age,
    /// Largest number of records in a usual batch; one in fifty is ten times as large.
    pub largest_batch: usize,
    /// Largest value in bytes.
    pub largest_value: usize,
    /// Prefix of the topic names.
    pub prefix: String,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            seed: 1,
            partitions: 3,
            age: Age::Recent,
            largest_batch: 40,
            largest_value: 400,
            prefix: String::new(),
        }
    }
}

/// Writes a workload into a broker, bit by bit.
#[derive(Debug)]
pub struct Generator {
    workload: Workload,
    chance: fastrand::Rng,
    broker: Broker,
    plain: KitProducer,
    idempotent: KitProducer,
    transactional: Vec<KitProducer>,
    /// Batches left in the transaction of each transactional producer, 0 when none is open.
    open: Vec<u32>,
    serial: u64,
    written: usize,
}

impl Generator {
    /// Creates the topics that do not exist yet and the producers.
    ///
    /// # Errors
    /// When a topic or a transactional id is refused.
    pub fn new(broker: &Broker, workload: Workload) -> Result<Self, KitError> {
        let present = broker.topics();
        for topic in TOPICS {
            let name = format!("{}{topic}", workload.prefix);
            if !present.contains_key(&name) {
                let policy = if topic == "profiles" {
                    "compact"
                } else {
                    "delete"
                };
                let configs = [("cleanup.policy", policy), ("retention.ms", "-1")];
                broker.create_topic(&name, workload.partitions, &configs)?;
            }
        }
        let tid = |index| format!("{}workload-{}-{index}", workload.prefix, workload.seed);
        let transactional = (0..3)
            .map(|index| broker.transactional_producer(&tid(index)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            chance: fastrand::Rng::with_seed(workload.seed),
            plain: broker.plain_producer(),
            idempotent: broker.idempotent_producer(),
            open: vec![0; transactional.len()],
            transactional,
            broker: broker.clone(),
            workload,
            serial: 0,
            written: 0,
        })
    }

    /// Records written so far, aborted ones included.
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Writes `batches` more batches, over all topics and partitions. Transactions may stay open; see
    /// [`Self::finish`].
    ///
    /// # Errors
    /// Whatever the broker refuses (nothing, unless a test broke it).
    pub fn write(&mut self, batches: usize) -> Result<(), KitError> {
        for _ in 0..batches {
            let topic = TOPICS
                .get(self.chance.usize(0..TOPICS.len()))
                .copied()
                .unwrap_or("orders");
            let partition = self.chance.i32(0..self.workload.partitions);
            let codec = ALL
                .get(self.chance.usize(0..ALL.len()))
                .copied()
                .unwrap_or(crate::Codec::None);
            let records = self.batch(topic);
            let name = format!("{}{topic}", self.workload.prefix);
            self.written += records.len();
            match topic {
                "payments" => self.in_transaction(&name, partition, codec, &records)?,
                "clicks" => {
                    self.plain.send(&name, partition, codec, &records)?;
                }
                _ => {
                    self.idempotent.send(&name, partition, codec, &records)?;
                }
            }
        }
        Ok(())
    }

    /// Ends every open transaction (two in three commit).
    ///
    /// # Errors
    /// Whatever the broker refuses.
    pub fn finish(&mut self) -> Result<(), KitError> {
        for index in 0..self.transactional.len() {
            self.end(index)?;
        }
        Ok(())
    }

    /// The broker it writes into.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    fn in_transaction(
        &mut self,
        topic: &str,
        partition: i32,
        codec: crate::Codec,
        records: &[KitRecord],
    ) -> Result<(), KitError> {
        let index = self.chance.usize(0..self.transactional.len());
        let length = self.chance.u32(1..6);
        let (Some(producer), Some(left)) =
            (self.transactional.get_mut(index), self.open.get_mut(index))
        else {
            return Ok(());
        };
        if *left == 0 {
            producer.begin();
            *left = length;
        }
        producer.send(topic, partition, codec, records)?;
        *left -= 1;
        if *left == 0 {
            self.end_with(index)
        } else {
            Ok(())
        }
    }

    fn end(&mut self, index: usize) -> Result<(), KitError> {
        match self.open.get_mut(index) {
            Some(left) if *left > 0 => {
                *left = 0;
                self.end_with(index)
            }
            _ => Ok(()),
        }
    }

    fn end_with(&mut self, index: usize) -> Result<(), KitError> {
        let commit = self.chance.u32(0..3) > 0;
        match self.transactional.get_mut(index) {
            Some(producer) if commit => producer.commit(),
            Some(producer) => producer.abort(),
            None => Ok(()),
        }
    }

    fn batch(&mut self, topic: &str) -> Vec<KitRecord> {
        let mut count = self.chance.usize(1..=self.workload.largest_batch.max(1));
        if self.chance.u32(0..50) == 0 {
            count *= 10;
        }
        let present = self.broker.now_ms();
        let historic = match self.workload.age {
            Age::Recent => false,
            Age::Historic => true,
            Age::Mixed => self.chance.bool(),
        };
        let base = if historic {
            present - 730 * DAY_MS
        } else {
            present - 60_000
        };
        (0..count).map(|_| self.record(topic, base)).collect()
    }

    fn record(&mut self, topic: &str, base: i64) -> KitRecord {
        self.serial += 1;
        let serial = self.serial;
        // Not always rising: several machines' clocks feed one topic.
        let timestamp = base + self.chance.i64(0..50_000);
        let text = self.text();
        match topic {
            "profiles" => {
                let key = format!("user-{}", self.chance.u32(0..60));
                let value = format!("{{\"serial\":{serial},\"about\":\"{text}\"}}");
                let gone = self.chance.u32(0..8) == 0;
                KitRecord::new(
                    timestamp,
                    Some(key.as_bytes()),
                    (!gone).then_some(value.as_bytes()),
                )
            }
            "clicks" => {
                let empty = self.chance.u32(0..20) == 0;
                let value = format!("{serial};/page/{};{text}", self.chance.u32(0..500));
                KitRecord::new(timestamp, None, (!empty).then_some(value.as_bytes()))
            }
            _ => {
                let customer = self.chance.u32(0..1000);
                let cents = self.chance.u32(1..1_000_000);
                let value = format!(
                    "{{\"id\":{serial},\"customer\":\"c-{customer}\",\"cents\":{cents},\"note\":\"{text}\"}}"
                );
                let key = format!("c-{customer}");
                let keyless = self.chance.u32(0..15) == 0;
                let key = (!keyless).then_some(key.as_bytes());
                let record = KitRecord::new(timestamp, key, Some(value.as_bytes()));
                self.with_headers(record, serial)
            }
        }
    }

    fn with_headers(&mut self, record: KitRecord, serial: u64) -> KitRecord {
        match self.chance.u32(0..6) {
            0 => record
                .header("trace", Some(format!("{serial:016x}").as_bytes()))
                .header("retry", Some(b"1"))
                .header("retry", Some(b"2")),
            1 => record.header("empty", Some(b"")).header("null", None),
            2 => record.header("größe", Some(&[0, 255, 128])),
            _ => record,
        }
    }

    fn text(&mut self) -> String {
        const WORDS: [&str; 8] = [
            "grün", "schnell", "order", "Straße", "late", "blue", "42", "done",
        ];
        let length = self.chance.usize(0..=self.workload.largest_value);
        let mut text = String::new();
        while text.len() < length {
            text.push_str(
                WORDS
                    .get(self.chance.usize(0..WORDS.len()))
                    .copied()
                    .unwrap_or_default(),
            );
            text.push(' ');
        }
        text
    }
}
