//! The data of the demo: an online shop's topics, drawn from a seed. The same seed writes the same records in the
//! same batches; only their times follow the clock.

use std::fmt::Write;

use strait_testkit::KitError;
use strait_testkit::{Broker, Codec, KitProducer, KitRecord};

/// One topic of the shop.
pub(crate) struct ShopTopic {
    pub(crate) name: &'static str,
    pub(crate) partitions: i32,
    pub(crate) codec: Codec,
    pub(crate) configs: &'static [(&'static str, &'static str)],
    pub(crate) about: &'static str,
    /// Its part of all batches.
    weight: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Orders,
    Customers,
    Clicks,
    Payments,
    Meters,
}

/// The topic that is compacted before the mirror starts.
pub(crate) const COMPACTED: &str = "customers";

/// All topics: every codec, and every kind of record.
pub(crate) const TOPICS: [ShopTopic; 5] = [
    ShopTopic {
        name: "orders",
        partitions: 4,
        codec: Codec::Lz4,
        configs: &[],
        about: "JSON, headers",
        weight: 30,
        kind: Kind::Orders,
    },
    ShopTopic {
        name: COMPACTED,
        partitions: 3,
        codec: Codec::Gzip,
        configs: &[("cleanup.policy", "compact")],
        about: "compacted, tombstones",
        weight: 10,
        kind: Kind::Customers,
    },
    ShopTopic {
        name: "clicks",
        partitions: 6,
        codec: Codec::Snappy,
        configs: &[("retention.ms", "172800000")],
        about: "no keys",
        weight: 35,
        kind: Kind::Clicks,
    },
    ShopTopic {
        name: "payments",
        partitions: 3,
        codec: Codec::Zstd,
        configs: &[],
        about: "transactions",
        weight: 15,
        kind: Kind::Payments,
    },
    ShopTopic {
        name: "meters",
        partitions: 3,
        codec: Codec::None,
        configs: &[],
        about: "binary",
        weight: 10,
        kind: Kind::Meters,
    },
];

const CITIES: [&str; 8] = [
    "Lyon", "Köln", "Zürich", "Kraków", "Porto", "Malmö", "Gent", "Turin",
];
const GOODS: [(&str, u32); 8] = [
    ("tea-green-100g", 690),
    ("kettle-1l", 3_950),
    ("cup-blue", 1_200),
    ("cup-white", 1_100),
    ("filter-x50", 420),
    ("honey-250g", 780),
    ("tray-oak", 4_400),
    ("spoon-set", 1_650),
];
const PAGES: [&str; 6] = [
    "/",
    "/tea",
    "/tea/green",
    "/cups?color=blue",
    "/basket",
    "/checkout",
];
const CUSTOMERS: u32 = 4_000;

/// A payment's transaction has up to so many batches; every fourth is aborted.
const LONGEST_TRANSACTION: u32 = 4;
const ABORT_EVERY: u32 = 4;

struct Transaction {
    producer: KitProducer,
    /// Batches until it ends; 0 when none is open.
    left: u32,
    ended: u32,
}

/// Writes the shop's topics into a cluster, batch by batch.
pub(crate) struct Shop {
    broker: Broker,
    chance: fastrand::Rng,
    plain: KitProducer,
    idempotent: KitProducer,
    transactions: Vec<Transaction>,
    serial: u64,
}

impl Shop {
    /// Creates the topics and producers.
    pub(crate) fn open(broker: &Broker, seed: u64) -> Result<Self, KitError> {
        for topic in &TOPICS {
            broker.create_topic(topic.name, topic.partitions, topic.configs)?;
        }
        let transaction = |index: usize| {
            Ok::<_, KitError>(Transaction {
                producer: broker.transactional_producer(&format!("checkout-{index}"))?,
                left: 0,
                ended: 0,
            })
        };
        Ok(Self {
            broker: broker.clone(),
            chance: fastrand::Rng::with_seed(seed),
            plain: broker.plain_producer(),
            idempotent: broker.idempotent_producer(),
            transactions: (0..3).map(transaction).collect::<Result<_, _>>()?,
            serial: 0,
        })
    }

    /// Writes one batch of up to `most` records to some topic, made `age_ms` ago.
    pub(crate) fn write(&mut self, most: usize, age_ms: i64) -> Result<(), KitError> {
        let mut ticket = self.chance.u32(0..TOPICS.iter().map(|t| t.weight).sum());
        for topic in &TOPICS {
            if ticket < topic.weight {
                return self.write_to(topic, most, age_ms);
            }
            ticket -= topic.weight;
        }
        Ok(())
    }

    /// Ends the transactions that are open.
    pub(crate) fn finish(&mut self) -> Result<(), KitError> {
        let mut open = self.transactions.iter_mut().filter(|t| t.left > 0);
        open.try_for_each(Transaction::end)
    }

    fn write_to(&mut self, topic: &ShopTopic, most: usize, age_ms: i64) -> Result<(), KitError> {
        let partition = self.chance.i32(0..topic.partitions);
        // Few records in most batches, many in some, as producers with little linger write them.
        let least = 1 + most / 12;
        let count = match self.chance.u32(0..10) {
            0 => most,
            1..=3 => self.chance.usize(least..=most.max(least)),
            _ => self.chance.usize(least..=(most / 3).max(least)),
        };
        let made = self.broker.now_ms() - age_ms;
        let records: Vec<KitRecord> = (0..count).map(|_| self.record(topic.kind, made)).collect();
        match topic.kind {
            Kind::Payments => {
                let index = self.chance.usize(0..self.transactions.len().max(1));
                let length = self.chance.u32(1..=LONGEST_TRANSACTION);
                match self.transactions.get_mut(index) {
                    Some(transaction) => {
                        transaction.write(topic, partition, &records, length)?;
                    }
                    None => return Ok(()),
                }
            }
            Kind::Clicks | Kind::Meters => {
                self.plain
                    .send(topic.name, partition, topic.codec, &records)?;
            }
            Kind::Orders | Kind::Customers => {
                self.idempotent
                    .send(topic.name, partition, topic.codec, &records)?;
            }
        }
        Ok(())
    }

    fn pick<T: Copy + Default>(&mut self, from: &[T]) -> T {
        self.chance.choice(from).copied().unwrap_or_default()
    }

    fn record(&mut self, kind: Kind, made: i64) -> KitRecord {
        self.serial += 1;
        // Machines' clocks differ a little, so times do not only rise.
        let time = made - self.chance.i64(0..40);
        match kind {
            Kind::Orders => self.order(time),
            Kind::Customers => self.customer(time),
            Kind::Clicks => self.click(time),
            Kind::Payments => self.payment(time),
            Kind::Meters => self.meter(time),
        }
    }

    fn order(&mut self, time: i64) -> KitRecord {
        let serial = self.serial;
        let customer = format!("c-{:05}", self.chance.u32(0..CUSTOMERS));
        let mut items = String::new();
        let mut total = 0;
        for line in 0..self.chance.u32(1..=4) {
            let (sku, cents) = self.pick(&GOODS);
            let pieces = self.chance.u32(1..=3);
            total += pieces * cents;
            let comma = if line == 0 { "" } else { "," };
            let _ = write!(
                items,
                "{comma}{{\"sku\":\"{sku}\",\"pieces\":{pieces},\"cents\":{cents}}}"
            );
        }
        let city = self.pick(&CITIES);
        let value = format!(
            "{{\"order\":{serial},\"customer\":\"{customer}\",\"placed\":{time},\"city\":\"{city}\",\"items\":[{items}],\"total\":{total}}}"
        );
        let record = KitRecord::new(time, Some(customer.as_bytes()), Some(value.as_bytes()));
        let trace = format!("{:016x}", self.chance.u64(..));
        let record = record.header("trace", Some(trace.as_bytes()));
        match self.chance.u32(0..8) {
            // The same key twice, in this order: Kafka allows it and consumers see it.
            0 => record
                .header("retry", Some(b"1"))
                .header("retry", Some(b"2")),
            1 => record.header("voucher", None).header("note", Some(b"")),
            _ => record,
        }
    }

    fn customer(&mut self, time: i64) -> KitRecord {
        let number = self.chance.u32(0..CUSTOMERS);
        let key = format!("c-{number:05}");
        let (city, serial) = (self.pick(&CITIES), self.serial);
        let value = format!(
            "{{\"customer\":\"{key}\",\"mail\":\"customer{number}@example.org\",\"city\":\"{city}\",\"version\":{serial}}}"
        );
        let gone = self.chance.u32(0..12) == 0;
        KitRecord::new(
            time,
            Some(key.as_bytes()),
            (!gone).then_some(value.as_bytes()),
        )
    }

    fn click(&mut self, time: i64) -> KitRecord {
        let (page, visitor) = (self.pick(&PAGES), self.chance.u64(..));
        let value = format!(
            "{{\"n\":{},\"page\":\"{page}\",\"visitor\":\"{visitor:x}\",\"ms\":{}}}",
            self.serial,
            self.chance.u32(3..900)
        );
        KitRecord::new(time, None, Some(value.as_bytes()))
    }

    fn payment(&mut self, time: i64) -> KitRecord {
        let serial = self.serial;
        let customer = format!("c-{:05}", self.chance.u32(0..CUSTOMERS));
        let value = format!(
            "{{\"payment\":{serial},\"customer\":\"{customer}\",\"cents\":{},\"currency\":\"EUR\",\"card\":\"**** {:04}\"}}",
            self.chance.u32(400..50_000),
            self.chance.u32(0..10_000)
        );
        let record = KitRecord::new(time, Some(customer.as_bytes()), Some(value.as_bytes()));
        record.header("content-type", Some(b"application/json"))
    }

    fn meter(&mut self, time: i64) -> KitRecord {
        let meter = self.chance.u16(0..500);
        let mut value = Vec::with_capacity(64);
        value.extend_from_slice(&self.serial.to_be_bytes());
        value.extend_from_slice(&time.to_be_bytes());
        for _ in 0..6 {
            value.extend_from_slice(&self.chance.u64(..).to_le_bytes());
        }
        KitRecord::new(time, Some(&meter.to_be_bytes()), Some(&value))
    }
}

impl Transaction {
    fn write(
        &mut self,
        topic: &ShopTopic,
        partition: i32,
        records: &[KitRecord],
        length: u32,
    ) -> Result<(), KitError> {
        if self.left == 0 {
            self.producer.begin();
            self.left = length;
        }
        self.producer
            .send(topic.name, partition, topic.codec, records)?;
        if self.left == 1 {
            return self.end();
        }
        self.left -= 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), KitError> {
        self.left = 0;
        self.ended += 1;
        if self.ended.is_multiple_of(ABORT_EVERY) {
            self.producer.abort()
        } else {
            self.producer.commit()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Shop, TOPICS};
    use strait_testkit::clock::ManualClock;
    use strait_testkit::compare::compare;
    use strait_testkit::{Broker, BrokerConfig};

    fn written(seed: u64) -> Broker {
        let broker = Broker::new(BrokerConfig {
            clock: Arc::new(ManualClock::new(BrokerConfig::SIMULATED_START_MS)),
            ..BrokerConfig::default()
        });
        let mut shop = Shop::open(&broker, seed).unwrap();
        for _ in 0..200 {
            shop.write(30, 0).unwrap();
        }
        shop.finish().unwrap();
        broker
    }

    #[test]
    fn a_seed_repeats_the_data_and_another_one_does_not() {
        let (first, again, other) = (written(7), written(7), written(8));
        let same = compare(&first, &again, str::to_owned);
        assert!(same.is_equal() && same.source_records() > 1_000, "{same}");
        assert!(!compare(&first, &other, str::to_owned).is_equal());
    }

    #[test]
    fn every_topic_uses_its_codec_and_some_payments_are_aborted() {
        let broker = written(7);
        for topic in &TOPICS {
            let partitions = 0..topic.partitions;
            let logs = partitions.flat_map(|p| broker.read_log(topic.name, p));
            let data: Vec<_> = logs.filter(|batch| batch.marker().is_none()).collect();
            assert!(!data.is_empty());
            assert!(data.iter().all(|b| b.header.codec() == Some(topic.codec)));
        }
        let seen = |committed| {
            let partitions = 0..3;
            let records = partitions.map(|p| broker.records("payments", p, committed).len());
            records.sum::<usize>()
        };
        assert!(seen(true) < seen(false));
    }
}
