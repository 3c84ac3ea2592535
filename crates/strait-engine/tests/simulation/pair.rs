//! A source, a target and one process between them, moved by hand: for histories that are told and not drawn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use strait_engine::{Link, LinkHandle, LinkSpec, Policies};
use strait_net::Runtime;
use strait_testkit::records::{BatchSpec, CONTROL};
use strait_testkit::{Broker, BrokerConfig, KitRecord};
use tokio::task::JoinHandle;

use crate::journal::Journal;
use crate::mirror;
use crate::network::{Climate, Network, Weather};

pub(crate) const TOPIC: &str = "t";

pub(crate) struct Pair {
    pub(crate) source: Broker,
    pub(crate) target: Broker,
    pub(crate) journal: Journal,
    weather: Arc<Weather>,
    pub(crate) memory_budget: u64,
    pub(crate) policies: Policies,
    /// Forward only what was produced on the source.
    pub(crate) only_local: bool,
    /// The link's name.
    pub(crate) link: &'static str,
    /// The number of the next record that is written.
    pub(crate) serial: i64,
    /// Bytes of a record's value, beside its number.
    pub(crate) record_bytes: usize,
    /// What was written, by partition.
    pub(crate) written: BTreeMap<i32, Vec<i64>>,
    pub(crate) rng: fastrand::Rng,
    partitions: i32,
    start_ms: i64,
    process: Option<(Network, LinkHandle, JoinHandle<()>)>,
}

impl Pair {
    /// Clusters whose topic has so many partitions; the source keeps records for `retention_ms`.
    pub(crate) fn new(journal: Journal, seed: u64, partitions: i32, retention_ms: i64) -> Self {
        let broker = |name: &str| {
            Broker::new(BrokerConfig {
                nodes: 1,
                seed,
                ..BrokerConfig::simulated(name)
            })
        };
        let (source, target) = (broker("source"), broker("target"));
        for (cluster, retention_ms) in [(&source, retention_ms), (&target, -1)] {
            let retention = retention_ms.to_string();
            // Only whole segments expire.
            let configs = [
                ("retention.ms", retention.as_str()),
                ("segment.bytes", "65536"),
            ];
            cluster
                .create_replicated(TOPIC, partitions, 1, &configs)
                .unwrap();
        }
        Self {
            start_ms: source.now_ms(),
            source,
            target,
            journal,
            weather: Arc::default(),
            memory_budget: 64 << 20,
            policies: Policies::default(),
            only_local: false,
            link: "link",
            serial: 0,
            record_bytes: 0,
            written: BTreeMap::new(),
            partitions,
            rng: fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            process: None,
        }
    }

    /// Appends a batch of `count` records to a partition of the source; each value begins with a number of its own.
    pub(crate) fn write(&mut self, partition: i32, count: i64) {
        let now = self.source.now_ms();
        let serials = self.serial..self.serial + count;
        self.serial += count;
        self.written
            .entry(partition)
            .or_default()
            .extend(serials.clone());
        let records: Vec<KitRecord> = serials
            .map(|serial| format!("{serial}:{}", "x".repeat(self.record_bytes)))
            .map(|value| KitRecord::new(now, None, Some(value.as_bytes())))
            .collect();
        let batch = BatchSpec::default().build(&records).unwrap();
        self.source.append(TOPIC, partition, &batch).unwrap();
    }

    /// The numbers that a partition holds, in order.
    pub(crate) fn serials(broker: &Broker, partition: i32) -> Vec<i64> {
        let log = broker.read_log(TOPIC, partition);
        log.iter()
            .filter(|batch| !batch.header.has(CONTROL))
            .flat_map(|batch| batch.records().unwrap())
            .map(|r| {
                let value = r.value.as_deref().unwrap();
                let number = value.split(|byte| *byte == b':').next().unwrap();
                std::str::from_utf8(number).unwrap().parse().unwrap()
            })
            .collect()
    }

    pub(crate) fn start(&mut self) {
        let climate = Climate {
            latency_ms: 5,
            stall_one_in: 0,
            stall_ms: 0,
        };
        let network = Network::new(
            (self.source.clone(), self.target.clone()),
            Arc::clone(&self.weather),
            climate,
            self.rng.u64(..),
            self.start_ms,
            Arc::default(),
        );
        let rt = Runtime::simulated(Arc::new(network.clone()), self.rng.u64(..));
        let spec = LinkSpec {
            memory_budget: self.memory_budget,
            name: self.link.to_owned(),
            policies: self.policies,
            only_local: self.only_local,
            ..mirror::link(&rt, &self.source, &self.target, "one")
        };
        let (link, handle) = Link::new(rt, spec);
        let journal = self.journal.clone();
        journal.note("the mirror starts");
        let task = tokio::spawn(async move {
            if let Err(error) = link.run().await {
                journal.note(&format!("the mirror ended: id={:?} {error}", error.id()));
            }
        });
        let flows = (0..self.partitions).map(|partition| mirror::flow(TOPIC, partition));
        let (steering, flows) = (handle.clone(), flows.collect());
        tokio::spawn(async move { steering.set_flows(flows).await });
        self.process = Some((network, handle, task));
    }

    pub(crate) fn crash(&mut self) {
        let (network, _, task) = self.process.take().unwrap();
        self.journal.note("the mirror dies");
        network.cut(Some(0));
        task.abort();
    }

    /// Asks it to stop after a while.
    pub(crate) fn tell_to_stop(&self, after: Duration) {
        let handle = self.process.as_ref().unwrap().1.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            handle.stop().await;
        });
    }

    /// Waits until it holds, for so long at the most.
    pub(crate) async fn holds_within(&self, most: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = tokio::time::Instant::now() + most;
        while !holds(self) {
            if tokio::time::Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Connections that the process has tried.
    pub(crate) fn tries(&self) -> u64 {
        self.process.as_ref().unwrap().0.tries()
    }

    /// The lines of the journal that hold a text.
    pub(crate) fn told(&self, text: &str) -> Vec<String> {
        let mut lines = self.journal.lines();
        lines.retain(|line| line.contains(text));
        lines
    }
}
