//! In-memory clusters that a mirror in another process reaches over sockets.
#![allow(dead_code, clippy::disallowed_methods)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use strait_testkit::compare::{compare_partition, differences};
use strait_testkit::{Broker, BrokerConfig, Codec, KitProducer, KitRecord};

/// One broker that listens on a port of 127.0.0.1 for as long as the runtime lives.
pub(crate) struct Kit {
    pub(crate) broker: Broker,
    pub(crate) address: String,
}

/// The runtime that the brokers of a test run on.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Starts a broker of these settings.
pub(crate) fn start(runtime: &tokio::runtime::Runtime, config: BrokerConfig) -> Kit {
    let broker = Broker::new(config);
    let address = runtime.block_on(broker.listen("127.0.0.1:0")).unwrap();
    Kit {
        broker,
        address: address.to_string(),
    }
}

/// Settings of a cluster of this id.
pub(crate) fn cluster(id: &str) -> BrokerConfig {
    BrokerConfig {
        cluster_id: id.to_owned(),
        auto_create_topics: false,
        ..BrokerConfig::default()
    }
}

/// The present in ms since 1970.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis(),
    )
    .unwrap()
}

/// Records with keys and values that name them.
pub(crate) fn records(name: &str, count: usize, size: usize) -> Vec<KitRecord> {
    let record = |n: usize| {
        let key = format!("{name}/{n}");
        let mut value = key.clone().into_bytes();
        value.resize(size.max(value.len()), b'.');
        KitRecord::new(now_ms(), Some(key.as_bytes()), Some(&value)).header("n", Some(&[n as u8]))
    };
    (0..count).map(record).collect()
}

/// How a partition differs on the target; none if it is the same.
pub(crate) fn difference(source: (&Kit, &str), target: (&Kit, &str)) -> Option<String> {
    let report = compare_partition(
        (&source.0.broker, source.1),
        (&target.0.broker, target.1),
        0,
    );
    (!report.differences.is_empty()).then(|| format!("{report:?}"))
}

/// The same for given records of the source.
pub(crate) fn differs(expected: &[KitRecord], target: (&Kit, &str)) -> Option<String> {
    let found = target.0.broker.records(target.1, 0, true);
    let differences = differences(expected, &found);
    (!differences.is_empty()).then(|| format!("{differences:?}"))
}

/// Writes a record every few milliseconds to partition 0 of a topic until dropped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(kit: &Kit, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic) = (stop.clone(), topic.to_owned());
        let producer: Mutex<KitProducer> = Mutex::new(kit.broker.idempotent_producer());
        let thread = std::thread::spawn(move || {
            let mut n = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let mut producer = producer.lock().unwrap_or_else(PoisonError::into_inner);
                let record = records(&n.to_string(), 1, 200);
                producer.send(&topic, 0, Codec::None, &record).unwrap();
                n += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until what is written to `source` from now on has arrived on the target.
pub(crate) fn assert_goes_on(source: (&Kit, &str), target: (&Kit, &str), within: Duration) {
    let wanted = source.0.broker.log_end(source.1, 0) + 20;
    let begun = Instant::now();
    while target.0.broker.log_end(target.1, 0) < wanted {
        assert!(
            begun.elapsed() < within,
            "{} does not go on: {} of {wanted}",
            target.1,
            target.0.broker.log_end(target.1, 0)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
