//! The source's traffic, and the truth about it: every record ever written, where it lies, and what became of it.

use std::collections::{BTreeMap, HashMap};

use strait_testkit::{Broker, Codec, KitProducer, KitRecord};

use crate::script::{Age, Kind, TopicScript};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its transaction is still open.
    Open,
    Committed,
    Aborted,
}

/// A record without its offset: no two written records are equal.
pub(crate) type Content = KitRecord;

/// One source partition.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// By source offset.
    pub(crate) fates: BTreeMap<i64, Fate>,
    pub(crate) offsets: HashMap<Content, i64>,
}

/// What was written, by topic and partition.
pub(crate) type Truth = BTreeMap<(String, i32), Written>;

/// Everything but the offset.
pub(crate) fn content(record: &KitRecord) -> Content {
    KitRecord {
        offset: 0,
        ..record.clone()
    }
}

/// A transactional producer with what its open transaction has written.
struct Transactional {
    producer: KitProducer,
    batches_left: u32,
    open: Vec<(String, i32, i64)>,
}

/// Writes into the source.
pub(crate) struct Traffic {
    broker: Broker,
    topics: Vec<TopicScript>,
    plain: KitProducer,
    idempotent: KitProducer,
    transactional: Vec<Transactional>,
    rng: fastrand::Rng,
    serial: u64,
    pub(crate) truth: Truth,
}

const CODECS: [Codec; 5] = [
    Codec::None,
    Codec::Gzip,
    Codec::Snappy,
    Codec::Lz4,
    Codec::Zstd,
];
const TWO_YEARS_MS: i64 = 2 * 365 * 86_400_000;

impl Traffic {
    pub(crate) fn new(broker: &Broker, topics: &[TopicScript], seed: u64) -> Self {
        let transactional = (0..2)
            .map(|i| Transactional {
                producer: broker.transactional_producer(&format!("app-{i}")).unwrap(),
                batches_left: 0,
                open: Vec::new(),
            })
            .collect();
        let partitions = topics
            .iter()
            .flat_map(|t| (0..t.partitions).map(|p| (t.name.clone(), p)));
        Self {
            plain: broker.plain_producer(),
            idempotent: broker.idempotent_producer(),
            transactional,
            broker: broker.clone(),
            topics: topics.to_vec(),
            rng: fastrand::Rng::with_seed(seed),
            serial: 0,
            truth: partitions.map(|at| (at, Written::default())).collect(),
        }
    }

    /// One batch into one partition of one topic.
    pub(crate) fn write(&mut self) {
        let topic = self.topics[self.rng.usize(0..self.topics.len())].clone();
        let partition = self.rng.i32(0..topic.partitions);
        let codec = CODECS[self.rng.usize(0..CODECS.len())];
        let historic = match topic.age {
            Age::Recent => false,
            Age::Historic => true,
            Age::Mixed => self.rng.bool(),
        };
        let count = if self.rng.u32(0..30) == 0 { 120 } else { 12 };
        let count = self.rng.usize(1..=count);
        let records: Vec<KitRecord> = (0..count)
            .map(|_| self.record(topic.kind, historic))
            .collect();
        let name = topic.name.clone();
        match topic.kind {
            Kind::Transactional => self.in_transaction(&name, partition, codec, &records),
            Kind::Plain => {
                let base = self.plain.send(&name, partition, codec, &records).unwrap();
                self.note(&name, partition, base, &records, Fate::Committed);
            }
            Kind::Idempotent | Kind::Compacted => {
                let base = self
                    .idempotent
                    .send(&name, partition, codec, &records)
                    .unwrap();
                self.note(&name, partition, base, &records, Fate::Committed);
            }
        }
    }

    /// Ends all open transactions.
    pub(crate) fn finish(&mut self) {
        for index in 0..self.transactional.len() {
            if !self.transactional[index].open.is_empty() {
                self.end(index);
            }
        }
    }

    fn in_transaction(&mut self, topic: &str, partition: i32, codec: Codec, records: &[KitRecord]) {
        let index = self.rng.usize(0..self.transactional.len());
        if self.transactional[index].open.is_empty() {
            self.transactional[index].producer.begin();
            self.transactional[index].batches_left = self.rng.u32(1..5);
        }
        let base = self.transactional[index]
            .producer
            .send(topic, partition, codec, records)
            .unwrap();
        let offsets = self.note(topic, partition, base, records, Fate::Open);
        let writer = &mut self.transactional[index];
        let placed = offsets.map(|offset| (topic.to_owned(), partition, offset));
        writer.open.extend(placed);
        writer.batches_left -= 1;
        if writer.batches_left == 0 {
            self.end(index);
        }
    }

    fn end(&mut self, index: usize) {
        let commit = self.rng.u32(0..3) > 0;
        let writer = &mut self.transactional[index];
        let fate = if commit {
            writer.producer.commit().unwrap();
            Fate::Committed
        } else {
            writer.producer.abort().unwrap();
            Fate::Aborted
        };
        for (topic, partition, offset) in writer.open.drain(..) {
            let written = self.truth.get_mut(&(topic, partition)).unwrap();
            written.fates.insert(offset, fate);
        }
    }

    fn note(
        &mut self,
        topic: &str,
        partition: i32,
        base: i64,
        records: &[KitRecord],
        fate: Fate,
    ) -> std::ops::Range<i64> {
        let written = self.truth.get_mut(&(topic.to_owned(), partition)).unwrap();
        let offsets = base..base + records.len() as i64;
        for (offset, record) in offsets.clone().zip(records) {
            written.fates.insert(offset, fate);
            let before = written.offsets.insert(content(record), offset);
            assert_eq!(before, None, "the traffic wrote the same record twice");
        }
        offsets
    }

    fn record(&mut self, kind: Kind, historic: bool) -> KitRecord {
        self.serial += 1;
        let serial = self.serial.to_string();
        let age = if historic { TWO_YEARS_MS } else { 0 };
        let timestamp = self.broker.now_ms() - age - self.rng.i64(0..3_000);
        let key = format!("k{}", self.rng.u32(0..15));
        let filler = "x".repeat(self.rng.usize(0..60));
        let value = format!("{serial}:{filler}");
        let record = match (kind, self.rng.u32(0..6)) {
            // What has no value carries its serial in a header: every record can be told from all others.
            (_, 0) => KitRecord::new(timestamp, Some(key.as_bytes()), None)
                .header("serial", Some(serial.as_bytes())),
            (Kind::Compacted, _) => {
                KitRecord::new(timestamp, Some(key.as_bytes()), Some(value.as_bytes()))
            }
            (_, 1) => KitRecord::new(timestamp, None, None)
                .header("serial", Some(serial.as_bytes()))
                .header("null", None)
                .header("twice", Some(b"1"))
                .header("twice", Some(b"")),
            (_, 2) => KitRecord::new(timestamp, None, Some(value.as_bytes())),
            _ => KitRecord::new(timestamp, Some(key.as_bytes()), Some(value.as_bytes())),
        };
        if self.rng.u32(0..8) == 0 {
            record.header("größe", Some(&[0, 255, 128]))
        } else {
            record
        }
    }
}
