//! The harness itself, on real Kafka.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use strait_testkit::kafka::{KafkaCluster, KafkaOptions, Version};

#[test]
fn start_stop() {
    let t = std::time::Instant::now();
    let c = KafkaCluster::start(KafkaOptions::new()).unwrap();
    eprintln!("start {:?}", t.elapsed());
    c.kill9(0).unwrap();
    eprintln!("killed {:?}", t.elapsed());
    c.restart(0).unwrap();
    eprintln!("restarted {:?}", t.elapsed());
    c.stop(0).unwrap();
    eprintln!("stopped {:?}", t.elapsed());
    c.restart(0).unwrap();
    eprintln!("restarted {:?}", t.elapsed());
    drop(c);
    let t = std::time::Instant::now();
    let c = KafkaCluster::start_all([
        KafkaOptions::new().ssl().sasl_user("alice", "secret"),
        KafkaOptions::new().version(Version::V3_9),
    ])
    .unwrap();
    eprintln!("two: {:?}", t.elapsed());
    drop(c);
    let t = std::time::Instant::now();
    let _c = KafkaCluster::start(KafkaOptions::new().nodes(3)).unwrap();
    eprintln!("three nodes: {:?}", t.elapsed());
}
