//! What stands on the target of a real Kafka, read by Kafka's own clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod rig;

use std::time::Duration;

use rig::{Mirror, west_to_east};
use strait_testkit::kafka::{
    Codec, HeaderSpec, Isolation, KafkaCluster, Oracle, StoredBatch, Workload,
};

const SOON: Duration = Duration::from_secs(60);

/// Reads a topic of both sides to its end, once the target has as many records, and holds them against each other.
fn assert_mirrored(oracle: &Oracle, west: &str, east: &str, topic: &str) -> u64 {
    let mirrored = format!("west.{topic}");
    let compared = oracle
        .compare(
            (west, topic),
            (east, &mirrored),
            Isolation::ReadCommitted,
            SOON,
        )
        .unwrap();
    assert!(compared.equal, "{topic}: {compared}");
    compared.partitions.iter().map(|p| p.left_count).sum()
}

#[test]
fn every_codec_arrives_byte_for_byte() {
    let [source, target] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let topics = Codec::ALL.map(|codec| (codec, format!("codec-{codec:?}").to_lowercase()));
    for (seed, (codec, topic)) in (1..).zip(&topics) {
        oracle.create_topic(west, topic, 2, 1, &[]).unwrap();
        let workload = Workload::new(topic.as_str())
            .codec(*codec)
            .seed(seed)
            .sizes(10, 2_000)
            .headers(HeaderSpec::Odd)
            .null_key_every(5)
            .null_value_every(7)
            .timestamps(1_700_000_000_000, 13);
        let report = oracle.produce(west, &workload, 5_000).unwrap();
        assert_eq!(report.acked, 5_000, "{report:?}");
    }
    let _mirror = Mirror::new(&west_to_east(west, east, &["codec-.*"], "")).started();
    for (_, topic) in &topics {
        assert_eq!(assert_mirrored(&oracle, west, east, topic), 5_000);
        for partition in 0..2 {
            let sent = source.stored_batches(0, topic, partition).unwrap();
            let kept = target
                .stored_batches(0, &format!("west.{topic}"), partition)
                .unwrap();
            let payload = |batch: &StoredBatch| (batch.codec(), batch.count, batch.records.clone());
            assert!(
                sent.iter().map(payload).eq(kept.iter().map(payload)),
                "{topic}-{partition}: the batches differ"
            );
        }
    }
}
