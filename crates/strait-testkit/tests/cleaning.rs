//! Compaction, DeleteRecords and retention, and what they leave of producers and markers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use strait_testkit::records::{BatchSpec, DELETE_HORIZON};
use strait_testkit::{Broker, Codec, KitRecord};
use wire::{Client, DAY, NOW, broker, fetch_at, name, plain, record, timed, with_pid_at};

fn keyed(pid: i64, sequence: i32, codec: Codec, keys: &[&str]) -> bytes::Bytes {
    let records: Vec<_> = keys
        .iter()
        .map(|key| {
            let (key, value) = key
                .strip_prefix('-')
                .map_or((*key, Some(b"v".as_slice())), |key| (key, None));
            KitRecord::new(NOW, Some(key.as_bytes()), value)
        })
        .collect();
    let spec = BatchSpec {
        codec,
        producer_id: pid,
        producer_epoch: if pid < 0 { -1 } else { 0 },
        base_sequence: sequence,
        ..BatchSpec::default()
    };
    spec.build(&records).unwrap()
}

fn compacted() -> Broker {
    let broker = broker();
    broker
        .create_topic("t", 1, &[("cleanup.policy", "compact")])
        .unwrap();
    broker
}

/// (base offset, last offset delta, base sequence, count) of each batch.
fn shape(broker: &Broker) -> Vec<(i64, i32, i32, i32)> {
    let log = broker.read_log("t", 0);
    let row = |h: strait_testkit::records::BatchHeader| {
        (h.base_offset, h.last_offset_delta, h.base_sequence, h.count)
    };
    log.iter().map(|b| row(b.header)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_cleaner_lowers_count_only_and_leaves_the_tail() {
    let broker = compacted();
    broker
        .append("t", 0, &keyed(7, 0, Codec::Gzip, &["a", "b", "c"]))
        .unwrap();
    broker
        .append("t", 0, &keyed(7, 3, Codec::None, &["a", "b"]))
        .unwrap();
    broker
        .append("t", 0, &keyed(7, 5, Codec::None, &["b", "b"]))
        .unwrap();
    broker.compact("t");
    assert_eq!(shape(&broker), [(0, 2, 0, 1), (3, 1, 3, 2), (5, 1, 5, 2)]);
    let offsets: Vec<_> = broker
        .records("t", 0, false)
        .iter()
        .map(|r| r.offset)
        .collect();
    assert_eq!(offsets, [2, 3, 4, 5, 6]);
    for batch in broker.read_log("t", 0) {
        strait_testkit::records::check_crc(&batch.bytes).unwrap();
    }
    // Duplicates are still recognised.
    let again = broker
        .append("t", 0, &keyed(7, 3, Codec::None, &["a", "b"]))
        .unwrap();
    assert_eq!(again, 3);
}

#[tokio::test(start_paused = true)]
async fn a_superseded_last_batch_stays_empty_while_its_producer_is_known() {
    let broker = compacted();
    broker
        .append("t", 0, &keyed(7, 0, Codec::Zstd, &["a", "a"]))
        .unwrap();
    broker
        .append("t", 0, &keyed(-1, -1, Codec::None, &["a"]))
        .unwrap();
    broker
        .append("t", 0, &keyed(8, 0, Codec::None, &["a"]))
        .unwrap();
    broker
        .append("t", 0, &keyed(8, 1, Codec::None, &["z"]))
        .unwrap();
    broker.compact("t");
    assert_eq!(shape(&broker), [(0, 1, 0, 0), (3, 0, 0, 1), (4, 0, 1, 1)]);
    broker.compact("t");
    assert_eq!(shape(&broker).len(), 3);
    broker.forget_producers("t", 0);
    broker.compact("t");
    assert_eq!(shape(&broker), [(3, 0, 0, 1), (4, 0, 1, 1)]);
    let row = Client::new(&broker).fetch(&fetch_at(0)).await;
    assert_eq!(row.error_code, 0, "a hole is no error");
}

#[tokio::test(start_paused = true)]
async fn tombstones_go_when_their_horizon_has_passed() {
    let (broker, clock) = timed();
    broker
        .set_topic_config("t", "cleanup.policy", "compact")
        .unwrap();
    broker
        .set_topic_config("t", "delete.retention.ms", "1000")
        .unwrap();
    broker
        .append("t", 0, &keyed(-1, -1, Codec::None, &["a", "-a", "b"]))
        .unwrap();
    broker
        .append("t", 0, &keyed(-1, -1, Codec::None, &["z"]))
        .unwrap();
    broker.compact("t");
    let first = &broker.read_log("t", 0)[0];
    assert!(first.header.has(DELETE_HORIZON));
    assert_eq!(first.header.base_timestamp, NOW + 1000);
    let times: Vec<_> = first
        .records()
        .unwrap()
        .iter()
        .map(|r| r.timestamp)
        .collect();
    assert_eq!(times, [NOW, NOW], "timestamps survive the new base");
    clock.advance(1001);
    broker.compact("t");
    let offsets: Vec<_> = broker
        .records("t", 0, false)
        .iter()
        .map(|r| r.offset)
        .collect();
    assert_eq!(offsets, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_horizon_sent_by_a_client_counts_on_the_target() {
    for (horizon, kept) in [(NOW - 1, 2), (NOW + DAY, 3)] {
        let broker = compacted();
        let spec = BatchSpec {
            flags: DELETE_HORIZON,
            base_timestamp: Some(horizon),
            ..BatchSpec::default()
        };
        let records = [KitRecord::new(NOW, Some(b"a"), None), record(NOW, "b")];
        broker
            .append("t", 0, &spec.build(&records).unwrap())
            .unwrap();
        broker
            .append("t", 0, &keyed(-1, -1, Codec::None, &["z"]))
            .unwrap();
        broker.compact("t");
        assert_eq!(broker.records("t", 0, false).len(), kept);
    }
}

#[tokio::test(start_paused = true)]
async fn aborted_records_are_cleaned_away_and_open_transactions_hold_the_cleaner() {
    let broker = compacted();
    let mut producer = broker.transactional_producer("x").unwrap();
    let ab = [record(NOW, "a"), record(NOW, "b")];
    broker
        .append("t", 0, &keyed(-1, -1, Codec::None, &["a"]))
        .unwrap();
    producer.begin();
    producer.send("t", 0, Codec::None, &ab).unwrap();
    broker
        .append("t", 0, &keyed(-1, -1, Codec::None, &["z"]))
        .unwrap();
    broker.compact("t");
    assert_eq!(broker.records("t", 0, false).len(), 4);
    producer.abort().unwrap();
    broker
        .append("t", 0, &keyed(-1, -1, Codec::None, &["y"]))
        .unwrap();
    broker.compact("t");
    let offsets: Vec<_> = broker
        .records("t", 0, false)
        .iter()
        .map(|r| r.offset)
        .collect();
    assert_eq!(
        offsets,
        [0, 3, 5],
        "the aborted update of a does not supersede it"
    );
}

#[tokio::test(start_paused = true)]
async fn delete_records_moves_the_start_and_may_empty_the_log() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    broker.append("t", 0, &plain(5)).unwrap();
    broker.append("t", 0, &plain(5)).unwrap();
    let mut client = Client::new(&broker);
    let request = |offset| {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        DeleteRecordsRequest::default().with_topics(vec![topic])
    };
    for (offset, error, start) in [(7, 0, 7), (11, 1, -1), (3, 0, 7), (-1, 0, 10)] {
        let answer = client.call(2, &request(offset)).await.unwrap();
        let row = &answer.topics[0].partitions[0];
        assert_eq!(
            (row.error_code, row.low_watermark),
            (error, start),
            "offset {offset}"
        );
    }
    assert_eq!(client.fetch(&fetch_at(9)).await.error_code, 1);
    let row = client.fetch(&fetch_at(10)).await;
    assert_eq!((row.error_code, row.records.unwrap().len()), (0, 0));
    broker
        .set_topic_config("t", "cleanup.policy", "compact")
        .unwrap();
    let answer = client.call(2, &request(-1)).await.unwrap();
    assert_eq!(answer.topics[0].partitions[0].error_code, 44);
}

#[tokio::test(start_paused = true)]
async fn historic_data_is_deleted_at_the_next_check_but_for_what_lies_on_a_marker() {
    let old = NOW - 730 * DAY;
    let (broker, clock) = timed();
    broker
        .append("t", 0, &with_pid_at(7, 0, 0, 4, old))
        .unwrap();
    clock.advance(300_001);
    broker.run_due();
    assert_eq!((broker.log_start("t", 0), broker.log_end("t", 0)), (4, 4));
    // A marker opens a segment; old data behind it stays as long as the marker.
    let mut producer = broker.transactional_producer("x").unwrap();
    broker
        .append("t", 0, &with_pid_at(9, 0, 0, 4, old))
        .unwrap();
    producer.begin();
    producer
        .send("t", 0, Codec::None, &[record(old, "x")])
        .unwrap();
    producer.abort().unwrap();
    broker
        .append("t", 0, &with_pid_at(9, 0, 4, 4, old))
        .unwrap();
    clock.advance(300_001);
    broker.run_due();
    assert_eq!((broker.log_start("t", 0), broker.log_end("t", 0)), (9, 14));
    clock.advance(8 * DAY);
    broker.run_due();
    assert_eq!((broker.log_start("t", 0), broker.log_end("t", 0)), (14, 14));
}
