//! What the oracle writes.

use super::error::HarnessError;
use super::oracle::Oracle;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A compression codec of Kafka's producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Uncompressed.
    None,
    /// gzip.
    Gzip,
    /// Snappy in Java's framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// All five.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];
}

/// Which headers the records of a workload carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderSpec {
    /// No headers.
    None,
    /// The record's id and a trace id.
    Plain,
    /// What maps and careless codecs lose: duplicate keys and their order, null and empty values, an empty key.
    Odd,
}

/// A workload in transactions, one after the other.
#[derive(Clone, Debug, Serialize)]
pub struct TransactionSpec {
    id: String,
    records: u64,
    abort_every: u64,
    leave_open: bool,
    timeout_ms: u32,
}

impl TransactionSpec {
    /// Transactions of `records` records each under this `transactional.id`, all committed.
    pub fn new(id: impl Into<String>, records: u64) -> Self {
        Self {
            id: id.into(),
            records,
            abort_every: 0,
            leave_open: false,
            timeout_ms: 60_000,
        }
    }

    /// Aborts every n-th transaction after all of its records are in the log; 1 aborts all.
    #[must_use]
    pub fn abort_every(mut self, n: u64) -> Self {
        self.abort_every = n;
        self
    }

    /// The `transaction.timeout.ms`; a minute unless set.
    #[must_use]
    pub fn timeout_ms(mut self, timeout: u32) -> Self {
        self.timeout_ms = timeout;
        self
    }
}

/// Records to write: number n is the same in every run with the same options. Each value begins with "seed/n/", so that
/// no two records of a topic are equal when workloads have seeds of their own.
///
/// Defaults: seed 0, no compression, values of 100 compressible bytes, a key per record, no headers, the current time,
/// partitions in turn, idempotent, `linger.ms` 5 and batches of 16 KiB.
#[derive(Clone, Debug, Serialize)]
pub struct Workload {
    topic: String,
    first_id: u64,
    seed: u64,
    codec: Codec,
    size: usize,
    size_to: Option<usize>,
    incompressible: bool,
    keys: u64,
    null_key_every: u64,
    null_value_every: u64,
    headers: HeaderSpec,
    timestamp: Option<i64>,
    timestamp_step: i64,
    partition: Option<i32>,
    batch_size: usize,
    linger_ms: u32,
    flush_every: u64,
    rate: f64,
    not_idempotent: bool,
    transaction: Option<TransactionSpec>,
}

impl Workload {
    /// Records for a topic that exists.
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            first_id: 0,
            seed: 0,
            codec: Codec::None,
            size: 100,
            size_to: None,
            incompressible: false,
            keys: 0,
            null_key_every: 0,
            null_value_every: 0,
            headers: HeaderSpec::None,
            timestamp: None,
            timestamp_step: 0,
            partition: None,
            batch_size: 16_384,
            linger_ms: 5,
            flush_every: 0,
            rate: 0.0,
            not_idempotent: false,
            transaction: None,
        }
    }

    /// The number of the first record.
    #[must_use]
    pub fn first_id(mut self, id: u64) -> Self {
        self.first_id = id;
        self
    }

    /// Seeds all content.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The producer's `compression.type`.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Bytes per value, at least what the id needs.
    #[must_use]
    pub fn size(mut self, bytes: usize) -> Self {
        self.size = bytes;
        self
    }

    /// Bytes per value, between the two (both included).
    #[must_use]
    pub fn sizes(mut self, from: usize, to: usize) -> Self {
        self.size = from;
        self.size_to = Some(to);
        self
    }

    /// Fills values with random bytes instead of words.
    #[must_use]
    pub fn incompressible(mut self) -> Self {
        self.incompressible = true;
        self
    }

    /// Uses this many different keys in turn, as for a compacted topic.
    #[must_use]
    pub fn keys(mut self, keys: u64) -> Self {
        self.keys = keys;
        self
    }

    /// Makes every n-th key null, beginning with record n-1.
    #[must_use]
    pub fn null_key_every(mut self, n: u64) -> Self {
        self.null_key_every = n;
        self
    }

    /// Makes every n-th value null (a tombstone, where the key is there), beginning with record 0.
    #[must_use]
    pub fn null_value_every(mut self, n: u64) -> Self {
        self.null_value_every = n;
        self
    }

    /// The records' headers.
    #[must_use]
    pub fn headers(mut self, headers: HeaderSpec) -> Self {
        self.headers = headers;
        self
    }

    /// The timestamp of record 0 in milliseconds since 1970, and how much each record adds.
    #[must_use]
    pub fn timestamps(mut self, first_ms: i64, step_ms: i64) -> Self {
        self.timestamp = Some(first_ms);
        self.timestamp_step = step_ms;
        self
    }

    /// Writes to this partition only.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The producer's `batch.size` in bytes and `linger.ms`.
    #[must_use]
    pub fn batches(mut self, bytes: usize, linger_ms: u32) -> Self {
        self.batch_size = bytes;
        self.linger_ms = linger_ms;
        self
    }

    /// Waits for all acknowledgements after every n records, which ends their batches.
    #[must_use]
    pub fn flush_every(mut self, n: u64) -> Self {
        self.flush_every = n;
        self
    }

    /// Writes at most this many records per second.
    #[must_use]
    pub fn rate(mut self, records_per_second: f64) -> Self {
        self.rate = records_per_second;
        self
    }

    /// Writes without a producer id.
    #[must_use]
    pub fn not_idempotent(mut self) -> Self {
        self.not_idempotent = true;
        self
    }

    /// Writes in transactions.
    #[must_use]
    pub fn transaction(mut self, transaction: TransactionSpec) -> Self {
        self.transaction = Some(transaction);
        self
    }

    fn request(&self, bootstrap: &str) -> Value {
        // A struct of plain fields always becomes JSON.
        let mut request = serde_json::to_value(self).unwrap_or_default();
        request["bootstrap"] = bootstrap.into();
        request
    }
}

/// What became of a workload.
#[derive(Clone, Debug, Deserialize)]
pub struct ProduceReport {
    /// Records acknowledged, and committed where there are transactions.
    pub acked: u64,
    /// Records in aborted transactions.
    pub aborted: u64,
    /// Records whose commit ended in an error: they may be committed or not.
    pub uncertain: u64,
    /// Records that the producer gave up.
    pub failed: u64,
    /// The number of the record that would have come next.
    pub next_id: u64,
    /// How long it took.
    pub millis: u64,
    /// The last error, also one that a retry made good.
    pub error: Option<String>,
}

/// A workload that goes on until it is stopped.
#[derive(Debug)]
pub struct Background {
    oracle: Oracle,
    handle: u64,
}

impl Background {
    /// Counts so far.
    pub fn progress(&self) -> Result<ProduceReport, HarnessError> {
        self.oracle
            .ask("producer_progress", json!({"handle": self.handle}))
    }

    /// Ends it, once everything it sent is acknowledged or given up.
    pub fn stop(self) -> Result<ProduceReport, HarnessError> {
        self.oracle
            .ask("stop_producer", json!({"handle": self.handle}))
    }
}

/// A transaction whose records are in the log and whose end is not.
#[derive(Debug)]
pub struct OpenTransaction {
    oracle: Oracle,
    handle: u64,
}

impl OpenTransaction {
    /// Commits it.
    pub fn commit(self) -> Result<(), HarnessError> {
        self.oracle.tell(
            "end_transaction",
            json!({"handle": self.handle, "commit": true}),
        )
    }

    /// Aborts it.
    pub fn abort(self) -> Result<(), HarnessError> {
        self.oracle.tell(
            "end_transaction",
            json!({"handle": self.handle, "commit": false}),
        )
    }
}

/// One record as a test spells it out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordSpec {
    /// The partition.
    pub partition: i32,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; none for the current time.
    pub timestamp: Option<i64>,
}

/// Writing. A broker that is down for up to ten minutes delays these calls, it does not fail them.
impl Oracle {
    /// Writes `count` records and returns when all are acknowledged, committed or given up.
    pub fn produce(
        &self,
        bootstrap: &str,
        workload: &Workload,
        count: u64,
    ) -> Result<ProduceReport, HarnessError> {
        let mut request = workload.request(bootstrap);
        request["count"] = count.into();
        self.ask("produce", request)
    }

    /// Writes `count` records in one transaction and leaves it open.
    pub fn produce_open(
        &self,
        bootstrap: &str,
        workload: &Workload,
        count: u64,
        transactional_id: &str,
    ) -> Result<OpenTransaction, HarnessError> {
        #[derive(Deserialize)]
        struct Opened {
            handle: u64,
        }
        let mut transaction = TransactionSpec::new(transactional_id, count).timeout_ms(600_000);
        transaction.leave_open = true;
        let mut request = workload.clone().transaction(transaction).request(bootstrap);
        request["count"] = count.into();
        let opened: Opened = self.ask("produce", request)?;
        Ok(OpenTransaction {
            oracle: self.clone(),
            handle: opened.handle,
        })
    }

    /// Begins to write records until [`Background::stop`].
    pub fn start_producer(
        &self,
        bootstrap: &str,
        workload: &Workload,
    ) -> Result<Background, HarnessError> {
        #[derive(Deserialize)]
        struct Started {
            handle: u64,
        }
        let started: Started = self.ask("start_producer", workload.request(bootstrap))?;
        Ok(Background {
            oracle: self.clone(),
            handle: started.handle,
        })
    }

    /// Writes exactly these records, those of one partition in one batch (up to 8 MiB), and returns their offsets.
    pub fn send(
        &self,
        bootstrap: &str,
        topic: &str,
        codec: Codec,
        records: &[RecordSpec],
    ) -> Result<Vec<i64>, HarnessError> {
        let records: Vec<Value> = records
            .iter()
            .map(|record| {
                let headers: Vec<_> = record.headers.iter().map(|(key, value)| (key, hex(value))).collect();
                json!({"partition": record.partition, "key": hex(&record.key), "value": hex(&record.value),
                       "headers": headers, "timestamp": record.timestamp})
            })
            .collect();
        self.ask(
            "send",
            json!({"bootstrap": bootstrap, "topic": topic, "codec": codec, "records": records}),
        )
    }
}

fn hex(bytes: &Option<Vec<u8>>) -> Option<String> {
    bytes
        .as_ref()
        .map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
