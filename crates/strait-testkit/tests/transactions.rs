//! Transactional ids: epochs, fencing, markers that come after EndTxn's answer, stuck and lost markers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest,
    EndTxnRequest, InitProducerIdRequest, ProducerId, TransactionalId, WriteTxnMarkersRequest,
};
use kafka_protocol::protocol::StrBytes;
use strait_testkit::clock::ManualClock;
use strait_testkit::records::{BatchSpec, TRANSACTIONAL};
use strait_testkit::transactions::TransactionPhase;
use strait_testkit::{Broker, BrokerConfig, Codec};
use wire::{
    Client, DAY, NOW, broker, fetch_with, name, plain, produce_request, records, with_pid,
    with_pid_at,
};

const TID: &str = "link-0";

fn tid() -> TransactionalId {
    TransactionalId(StrBytes::from_static_str(TID))
}

async fn init_with(client: &mut Client, pid: i64, epoch: i16, timeout: i32) -> (i16, i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(tid()))
        .with_transaction_timeout_ms(timeout)
        .with_producer_id(ProducerId(pid))
        .with_producer_epoch(epoch);
    let answer = client.call(4, &request).await.unwrap();
    (
        answer.error_code,
        answer.producer_id.0,
        answer.producer_epoch,
    )
}

async fn init(client: &mut Client) -> (i16, i64, i16) {
    init_with(client, -1, -1, 10_000).await
}

async fn add(client: &mut Client, pid: i64, epoch: i16, partitions: &[i32]) -> i16 {
    let topic = AddPartitionsToTxnTopic::default()
        .with_name(name("t"))
        .with_partitions(partitions.to_vec());
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(tid())
        .with_v3_and_below_producer_id(ProducerId(pid))
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(vec![topic]);
    let answer = client.call(3, &request).await.unwrap();
    let topic = &answer.results_by_topic_v3_and_below[0];
    topic.results_by_partition[0].partition_error_code
}

async fn end(client: &mut Client, version: i16, pid: i64, epoch: i16, commit: bool) -> (i16, i16) {
    let request = EndTxnRequest::default()
        .with_transactional_id(tid())
        .with_producer_id(ProducerId(pid))
        .with_producer_epoch(epoch)
        .with_committed(commit);
    let answer = client.call(version, &request).await.unwrap();
    (answer.error_code, answer.producer_epoch)
}

/// (error, state, partitions not yet marked).
async fn describe(client: &mut Client) -> (i16, String, usize) {
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![tid()]);
    let answer = client.call(0, &request).await.unwrap();
    let row = &answer.transaction_states[0];
    let partitions = row.topics.iter().map(|t| t.partitions.len()).sum();
    (
        row.error_code,
        row.transaction_state.to_string(),
        partitions,
    )
}

async fn barrier(client: &mut Client, pid: i64, epoch: i16) {
    assert_eq!(add(client, pid, epoch, &[0]).await, 0);
    assert_eq!(end(client, 3, pid, epoch, false).await.0, 0);
    tokio::time::sleep(Duration::from_millis(60)).await;
}

fn with_topic(partitions: i32) -> Broker {
    let broker = broker();
    broker.create_topic("t", partitions, &[]).unwrap();
    broker
}

#[tokio::test(start_paused = true)]
async fn the_same_id_gets_the_same_producer_with_the_next_epoch() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    assert_eq!(init(&mut client).await, (0, 0, 0));
    assert_eq!(init(&mut client).await, (0, 0, 1));
    assert_eq!(init_with(&mut client, 0, 1, 10_000).await, (0, 0, 2));
    // Repeated, as after a lost answer (KIP-360).
    assert_eq!(init_with(&mut client, 0, 1, 10_000).await, (0, 0, 2));
    assert_eq!(
        init_with(&mut client, 0, 0, 10_000).await.0,
        90,
        "the zombie"
    );
    assert_eq!(init_with(&mut client, -1, -1, 900_001).await.0, 50);
    assert_eq!(add(&mut client, 0, 1, &[0]).await, 90);
    assert_eq!(add(&mut client, 5, 2, &[0]).await, 49);
    assert_eq!(end(&mut client, 2, 0, 1, false).await.0, 90);
    assert_eq!(end(&mut client, 1, 0, 1, false).await.0, 47);
    assert_eq!(
        end(&mut client, 3, 0, 2, false).await.0,
        48,
        "nothing to end"
    );
    assert_eq!(add(&mut client, 0, 2, &[9]).await, 3);
}

#[tokio::test(start_paused = true)]
async fn end_txn_answers_before_the_marker_is_written() {
    let broker = with_topic(3);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    assert_eq!(init(&mut client).await, (0, 0, 1));
    assert_eq!(add(&mut client, 0, 1, &[0, 1, 2]).await, 0);
    assert_eq!(end(&mut client, 3, 0, 1, false).await.0, 0);
    assert_eq!(
        describe(&mut client).await,
        (0, "PrepareAbort".to_owned(), 3)
    );
    assert_eq!(init(&mut client).await.0, 51);
    assert_eq!(add(&mut client, 0, 1, &[0]).await, 51);
    assert_eq!(
        client.put(&with_pid(0, 0, 0, 1)).await,
        (0, 0),
        "the zombie still writes"
    );
    tokio::time::sleep(Duration::from_millis(21)).await;
    assert_eq!(
        describe(&mut client).await.2,
        1,
        "two partitions are marked, one is not"
    );
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(
        describe(&mut client).await,
        (0, "CompleteAbort".to_owned(), 0)
    );
    for partition in 0..3 {
        let zombie = client.produce("t", partition, &with_pid(0, 0, 1, 1)).await;
        assert_eq!(zombie.error_code, 47);
        assert_eq!(
            client
                .produce("t", partition, &with_pid(0, 1, 1, 1))
                .await
                .error_code,
            45
        );
        assert_eq!(
            client
                .produce("t", partition, &with_pid(0, 1, 0, 1))
                .await
                .error_code,
            0
        );
    }
    let marker = &broker.read_log("t", 1)[0];
    assert_eq!(marker.marker(), Some(false));
    let h = marker.header;
    assert_eq!(
        (h.attributes, h.producer_id, h.producer_epoch),
        (0x30, 0, 1)
    );
    assert_eq!((h.base_sequence, h.count, marker.bytes.len()), (-1, 1, 78));
}

#[tokio::test(start_paused = true)]
async fn the_same_epoch_twice_in_a_barrier_goes_on_with_its_sequence() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    barrier(&mut client, 0, 0).await;
    assert_eq!(client.put(&with_pid(0, 0, 0, 2)).await, (0, 1));
    barrier(&mut client, 0, 0).await;
    assert_eq!(
        client.put(&with_pid(0, 0, 0, 2)).await,
        (0, 1),
        "a duplicate"
    );
    assert_eq!(client.put(&with_pid(0, 0, 2, 1)).await, (0, 4));
}

#[tokio::test(start_paused = true)]
async fn an_open_transaction_is_aborted_by_the_successor_two_epochs_later() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    add(&mut client, 0, 0, &[0]).await;
    assert_eq!(init(&mut client).await.0, 51);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(init(&mut client).await, (0, 0, 2));
    assert_eq!(client.put(&with_pid(0, 0, 0, 1)).await.0, 47);
}

#[tokio::test(start_paused = true)]
async fn end_txn_v5_raises_the_epoch() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    add(&mut client, 0, 0, &[0]).await;
    assert_eq!(end(&mut client, 5, 0, 0, true).await, (0, 1));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(broker.read_log("t", 0)[0].header.producer_epoch, 1);
    assert_eq!(client.put(&with_pid(0, 0, 0, 1)).await.0, 47);
    assert_eq!(
        end(&mut client, 5, 0, 1, false).await,
        (0, 2),
        "an empty transaction"
    );
}

#[tokio::test(start_paused = true)]
async fn read_committed_stops_at_the_oldest_open_transaction_and_lists_the_aborted() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    let mut one = broker.transactional_producer("one").unwrap();
    let mut two = broker.transactional_producer("two").unwrap();
    for producer in [&mut one, &mut two] {
        producer.begin();
        producer.send("t", 0, Codec::None, &records(2)).unwrap();
    }
    broker.append("t", 0, &plain(1)).unwrap();
    two.abort().unwrap();
    let row = client.fetch(&fetch_with(0, -1, -1, true)).await;
    assert_eq!((row.last_stable_offset, row.high_watermark), (0, 6));
    assert!(row.records.unwrap().is_empty());
    one.commit().unwrap();
    let row = client.fetch(&fetch_with(0, -1, -1, true)).await;
    let aborted: Vec<_> = row.aborted_transactions.unwrap();
    assert_eq!(row.last_stable_offset, 7);
    assert_eq!(aborted.len(), 1);
    assert_eq!(
        (aborted[0].producer_id.0, aborted[0].first_offset),
        (two.identity().0, 2)
    );
    let offsets: Vec<_> = broker
        .records("t", 0, true)
        .iter()
        .map(|r| r.offset)
        .collect();
    assert_eq!(offsets, [0, 1, 4]);
    assert_eq!(broker.records("t", 0, false).len(), 5);
    let row = client.fetch(&fetch_with(6, -1, -1, true)).await;
    assert_eq!(
        row.aborted_transactions.unwrap().len(),
        0,
        "its marker lies below"
    );
    let row = client.fetch(&fetch_with(0, -1, -1, false)).await;
    assert_eq!(row.aborted_transactions, None);
}

#[tokio::test(start_paused = true)]
async fn a_transactional_batch_needs_its_partition_in_the_transaction() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    let spec = BatchSpec {
        flags: TRANSACTIONAL,
        producer_id: 0,
        producer_epoch: 0,
        base_sequence: 0,
        ..BatchSpec::default()
    };
    let request = produce_request(-1, &[("t", 0, spec.build(&records(1)).unwrap())])
        .with_transactional_id(Some(tid()));
    for (version, error) in [(9, 48), (11, 48), (12, 0)] {
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!(
            answer.responses[0].partition_responses[0].error_code, error,
            "v{version}"
        );
    }
    assert_eq!(broker.last_stable_offset("t", 0), 0);
    // Between data and marker a plain batch of the same producer is refused, a foreign one is not.
    assert_eq!(client.put(&with_pid(0, 0, 1, 1)).await.0, 48);
    assert_eq!(client.put(&plain(1)).await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_plain_batch_between_add_and_end_is_not_part_of_the_abort() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    add(&mut client, 0, 0, &[0]).await;
    assert_eq!(client.put(&with_pid(0, 0, 0, 1)).await, (0, 0));
    end(&mut client, 3, 0, 0, false).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(broker.records("t", 0, true).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn under_min_isr_the_transaction_hangs_until_it_is_over() {
    let broker = with_topic(2);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    add(&mut client, 0, 0, &[0, 1]).await;
    broker.set_under_min_isr("t", 0, true);
    end(&mut client, 3, 0, 0, false).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        describe(&mut client).await,
        (0, "PrepareAbort".to_owned(), 1)
    );
    assert_eq!(init(&mut client).await.0, 51);
    assert_eq!(broker.log_end("t", 1), 1, "the healthy partition is marked");
    broker.set_under_min_isr("t", 0, false);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(describe(&mut client).await.1, "CompleteAbort");
    assert_eq!(broker.log_end("t", 0), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_marker_is_dropped_in_silence() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    client.put(&with_pid(0, 0, 0, 1)).await;
    init(&mut client).await;
    init(&mut client).await;
    add(&mut client, 0, 1, &[0]).await;
    broker.set_leaderless("t", 0);
    assert_eq!(client.put(&plain(1)).await.0, 6);
    end(&mut client, 3, 0, 1, false).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(describe(&mut client).await.1, "PrepareAbort");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(describe(&mut client).await.1, "CompleteAbort");
    broker.elect("t", 0, 1);
    assert_eq!(
        client.put(&with_pid(0, 0, 1, 1)).await,
        (0, 1),
        "the old epoch is not fenced"
    );
}

#[tokio::test(start_paused = true)]
async fn an_epoch_by_hand_above_the_coordinators_jams_its_marker() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    assert_eq!(
        client.put(&with_pid(0, 5, 0, 1)).await.0,
        0,
        "the coordinator's number is not checked"
    );
    add(&mut client, 0, 0, &[0]).await;
    end(&mut client, 3, 0, 0, false).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(describe(&mut client).await.1, "PrepareAbort");
    assert_eq!(init(&mut client).await.0, 51);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_by_hand_below_swallows_the_next_sessions_data() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    assert_eq!(client.put(&with_pid(0, 1, 0, 1)).await, (0, 0));
    assert_eq!(init(&mut client).await, (0, 0, 1));
    assert_eq!(
        client.put(&with_pid(0, 1, 0, 1)).await,
        (0, 0),
        "taken for a duplicate"
    );
    assert_eq!(broker.log_end("t", 0), 1);
}

#[tokio::test(start_paused = true)]
async fn the_epoch_runs_out_into_a_new_producer_id() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    let mut last = (0, 0, 0);
    for _ in 0..32_767 {
        last = init(&mut client).await;
    }
    assert_eq!(last, (0, 0, 32_766));
    assert_eq!(init(&mut client).await, (0, 1, 0));
    assert_eq!(init_with(&mut client, 0, 32_766, 10_000).await.0, 90);
    assert_eq!(add(&mut client, 0, 32_766, &[0]).await, 49);
    barrier(&mut client, 1, 0).await;
    assert_eq!(
        client.put(&with_pid(0, 32_766, 0, 1)).await.0,
        0,
        "the old id is not fenced"
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_id_comes_back_with_another_producer() {
    let clock = Arc::new(ManualClock::new(NOW));
    let broker = Broker::new(BrokerConfig {
        clock: clock.clone(),
        transactional_id_expiration_ms: 20_000,
        ..BrokerConfig::default()
    });
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    init(&mut client).await;
    // Barriers keep it, data and descriptions do not.
    for _ in 0..5 {
        clock.advance(8_000);
        assert_eq!(add(&mut client, 0, 0, &[0]).await, 0);
        assert_eq!(end(&mut client, 3, 0, 0, false).await.0, 0);
        clock.advance(100);
        broker.run_due();
    }
    assert_eq!(
        broker.transaction(TID).unwrap().0,
        TransactionPhase::CompleteAbort
    );
    clock.advance(15_000);
    client.put(&with_pid(0, 0, 0, 1)).await;
    assert_eq!(describe(&mut client).await.0, 0);
    clock.advance(6_000);
    assert_eq!(describe(&mut client).await.0, 105);
    assert_eq!(add(&mut client, 0, 0, &[0]).await, 49);
    assert_eq!(end(&mut client, 3, 0, 0, false).await.0, 49);
    assert_eq!(init_with(&mut client, 0, 0, 10_000).await, (0, 1, 0));
    assert_eq!(
        client.put(&with_pid(0, 0, 1, 1)).await.0,
        0,
        "the old producer writes on"
    );
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_takes_too_long_is_aborted_with_a_raised_epoch() {
    let broker = with_topic(1);
    let mut client = Client::new(&broker);
    init(&mut client).await;
    add(&mut client, 0, 0, &[0]).await;
    tokio::time::sleep(Duration::from_millis(10_100)).await;
    assert_eq!(describe(&mut client).await.1, "PrepareAbort");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(broker.read_log("t", 0)[0].header.producer_epoch, 1);
    assert_eq!(end(&mut client, 3, 0, 0, true).await.0, 90);
}

#[tokio::test(start_paused = true)]
async fn historic_data_undoes_a_barrier_at_the_next_check() {
    let broker = with_topic(1);
    broker.set_topic_config("t", "retention.ms", "-1").unwrap();
    let mut client = Client::new(&broker);
    init(&mut client).await;
    init(&mut client).await;
    barrier(&mut client, 0, 1).await;
    let old = NOW - 730 * DAY;
    assert_eq!(client.put(&with_pid_at(0, 0, 0, 1, old)).await.0, 47);
    assert_eq!(client.put(&with_pid_at(0, 1, 0, 1, old)).await.0, 0);
    broker.expire_producers();
    assert_eq!(
        client.put(&with_pid_at(0, 0, 1, 1, old)).await.0,
        0,
        "the zombie"
    );
    assert_eq!(
        client.put(&with_pid_at(0, 1, 1, 1, old)).await.0,
        45,
        "the rightful owner"
    );
}

#[tokio::test(start_paused = true)]
async fn markers_by_hand() {
    let broker = with_topic(2);
    let mut client = Client::new(&broker);
    client.put(&with_pid(77, 3, 0, 1)).await;
    let marker = |epoch, coordinator, times: usize| {
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(77))
            .with_producer_epoch(epoch)
            .with_coordinator_epoch(coordinator)
            .with_transaction_result(false)
            .with_topics(vec![
                WritableTxnMarkerTopic::default()
                    .with_name(name("t"))
                    .with_partition_indexes(vec![0, 1]),
            ]);
        WriteTxnMarkersRequest::default().with_markers(vec![marker; times])
    };
    let mut send = async |request: WriteTxnMarkersRequest| {
        let answer = client.call(1, &request).await.unwrap();
        let rows = answer.markers[0].topics[0].partitions.iter();
        rows.map(|row| row.error_code).collect::<Vec<_>>()
    };
    assert_eq!(send(marker(4, 2, 3)).await, [0, 0]);
    assert_eq!(broker.log_end("t", 0), 4, "k entries write k offsets");
    assert_eq!(broker.log_end("t", 1), 3);
    assert_eq!(send(marker(4, 1, 1)).await, [52, 52]);
    assert_eq!(send(marker(3, 2, 1)).await, [47, 47]);
    broker.set_under_min_isr("t", 1, true);
    assert_eq!(send(marker(5, 2, 1)).await, [0, 19]);
    assert_eq!(client.put(&with_pid(77, 4, 0, 1)).await.0, 47);
    let request = DescribeProducersRequest::default().with_topics(vec![
        TopicRequest::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![0]),
    ]);
    let answer = client.call(0, &request).await.unwrap();
    let row = &answer.topics[0].partitions[0].active_producers[0];
    assert_eq!(
        (row.producer_id.0, row.producer_epoch, row.last_sequence),
        (77, 5, -1)
    );
    assert_eq!(
        (row.coordinator_epoch, row.current_txn_start_offset),
        (2, -1)
    );
}
