//! Producer ids, epochs, sequences, deduplication and its expiry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use strait_testkit::code;
use strait_testkit::records::BatchSpec;
use strait_testkit::{Broker, BrokerConfig};
use wire::{
    Client, DAY, NOW, broker, plain, produce_request, records, timed, with_pid, with_pid_at,
};

/// One step: (epoch, sequence, records) and the expected (error, base offset).
type Step = (i16, i32, usize, i16, i64);

async fn run(steps: &[Step]) {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    for (index, (epoch, sequence, count, error, base)) in steps.iter().enumerate() {
        let got = client.put(&with_pid(7, *epoch, *sequence, *count)).await;
        assert_eq!(
            got,
            (*error, *base),
            "step {index}: epoch {epoch}, sequence {sequence}"
        );
    }
}

const OK: i16 = code::NONE;
const GAP: i16 = code::OUT_OF_ORDER_SEQUENCE_NUMBER;
const FENCED: i16 = code::INVALID_PRODUCER_EPOCH;

#[tokio::test(start_paused = true)]
async fn the_last_five_batches_are_known_and_the_sixth_is_not() {
    run(&[
        (0, 0, 2, OK, 0),
        (0, 2, 2, OK, 2),
        (0, 4, 2, OK, 4),
        (0, 6, 2, OK, 6),
        (0, 8, 2, OK, 8),
        (0, 10, 2, OK, 10),
        (0, 2, 2, OK, 2),
        (0, 10, 2, OK, 10),
        (0, 0, 2, GAP, -1),
        // Same start with another count, an overlap, two batches merged, a gap.
        (0, 10, 1, GAP, -1),
        (0, 9, 2, GAP, -1),
        (0, 8, 4, GAP, -1),
        (0, 13, 1, GAP, -1),
        (0, 12, 1, OK, 12),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn epochs_begin_at_zero_and_fence_lower_ones() {
    run(&[
        (3, 40, 1, OK, 0),
        (4, 41, 1, GAP, -1),
        (4, 0, 1, OK, 1),
        (3, 41, 1, FENCED, -1),
        (3, 40, 1, FENCED, -1),
        (9, 0, 1, OK, 2),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_producer_begins_anywhere_and_sequences_wrap() {
    run(&[
        (0, i32::MAX - 1, 3, OK, 0),
        (0, 1, 1, OK, 3),
        (0, i32::MAX - 1, 3, OK, 0),
    ])
    .await;
    run(&[(0, i32::MAX, 1, OK, 0), (0, 0, 1, OK, 1)]).await;
    run(&[(-1, 0, 1, OK, 0)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_resend_is_recognised_by_sequence_and_never_by_content() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let (mut one, mut other) = (Client::new(&broker), Client::new(&broker));
    assert_eq!(one.put(&with_pid(7, 0, 0, 2)).await, (0, 0));
    let forged = BatchSpec {
        producer_id: 7,
        producer_epoch: 0,
        base_sequence: 0,
        ..BatchSpec::default()
    };
    let forged = forged.build(&records(2)).unwrap();
    assert_eq!(other.put(&forged).await, (0, 0));
    assert_eq!(broker.log_end("t", 0), 2);
    // Without a producer id nothing is recognised.
    assert_eq!(one.put(&plain(1)).await, (0, 2));
    assert_eq!(one.put(&plain(1)).await, (0, 3));
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_only_the_last_batch_is_known() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    for sequence in 0..4 {
        client.put(&with_pid(7, 0, sequence, 1)).await;
    }
    broker.restart();
    assert!(
        client
            .call(9, &produce_request(1, &[("t", 0, plain(1))]))
            .await
            .is_err()
    );
    let mut client = Client::new(&broker);
    assert_eq!(client.put(&with_pid(7, 0, 3, 1)).await, (0, 3));
    assert_eq!(client.put(&with_pid(7, 0, 2, 1)).await, (GAP, -1));
    assert_eq!(client.put(&with_pid(7, 0, 4, 1)).await, (0, 4));
    assert_eq!(client.put(&with_pid(7, 0, 3, 1)).await, (0, 3));
    assert_eq!(broker.leader("t", 0), (Some(1), 2));
}

#[tokio::test(start_paused = true)]
async fn an_election_without_loss_keeps_all_five() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    for sequence in 0..5 {
        client.put(&with_pid(7, 0, sequence, 1)).await;
    }
    broker.elect("t", 0, 1);
    assert_eq!(client.put(&with_pid(7, 0, 0, 1)).await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn state_expires_by_the_timestamp_of_the_last_batch() {
    // (timestamps of two batches, topic type, whether a resend is still recognised after one check)
    let old = NOW - 730 * DAY;
    for (first, second, kind, known) in [
        (NOW, old, "CreateTime", false),
        (old, NOW, "CreateTime", true),
        (old, old, "LogAppendTime", true),
    ] {
        let (broker, clock) = timed();
        broker
            .set_topic_config("t", "message.timestamp.type", kind)
            .unwrap();
        let mut client = Client::new(&broker);
        client.put(&with_pid_at(7, 0, 0, 1, first)).await;
        client.put(&with_pid_at(7, 0, 1, 1, second)).await;
        assert_eq!(
            client.put(&with_pid_at(7, 0, 1, 1, second)).await,
            (0, 1),
            "before the check"
        );
        clock.advance(600_001);
        let again = client.put(&with_pid_at(7, 0, 1, 1, second)).await;
        assert_eq!(
            again,
            (0, if known { 1 } else { 2 }),
            "{kind}, {first} then {second}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn after_expiry_a_gap_sets_the_new_baseline() {
    let (broker, clock) = timed();
    let mut client = Client::new(&broker);
    let old = NOW - 730 * DAY;
    client.put(&with_pid_at(7, 1, 0, 6, old)).await;
    clock.advance(600_001);
    assert_eq!(
        client.put(&with_pid_at(7, 0, 100, 1, NOW)).await,
        (0, 6),
        "old epoch, gap"
    );
    assert_eq!(client.put(&with_pid_at(7, 0, 200, 1, NOW)).await, (GAP, -1));
    assert_eq!(
        client.put(&with_pid_at(7, 1, 6, 1, NOW)).await,
        (GAP, -1),
        "the rightful epoch"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_producer_with_a_refused_first_batch_loses_it() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    let mut bad = with_pid(7, 0, 0, 1).to_vec();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(client.put(&bad.into()).await.0, code::CORRUPT_MESSAGE);
    assert_eq!(client.put(&with_pid(7, 0, 1, 1)).await, (0, 0));
    assert_eq!(client.put(&with_pid(7, 0, 0, 1)).await, (GAP, -1));
}

#[tokio::test(start_paused = true)]
async fn twelve_batches_in_flight_stay_in_order_behind_a_refused_one() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    for sequence in 0..12 {
        let mut batch = with_pid(7, 0, sequence, 1).to_vec();
        if sequence == 4 {
            *batch.last_mut().unwrap() ^= 1;
        }
        let request = produce_request(-1, &[("t", 0, batch.into())]);
        client.send(9, &request).await.unwrap();
    }
    let mut errors = Vec::new();
    for _ in 0..12 {
        let response = client.receive::<ProduceRequest>(9).await.unwrap();
        errors.push(response.responses[0].partition_responses[0].error_code);
    }
    assert_eq!(errors, [0, 0, 0, 0, 2, 45, 45, 45, 45, 45, 45, 45]);
}

#[tokio::test(start_paused = true)]
async fn a_loading_coordinator_answers_14_with_producer_id_minus_one() {
    let broker = Broker::new(BrokerConfig {
        coordinator_load_ms: 500,
        ..BrokerConfig::simulated("test")
    });
    let mut client = Client::new(&broker);
    let request = InitProducerIdRequest::default().with_transactional_id(None);
    for version in 0..=5 {
        let answer = client.call(version, &request).await.unwrap();
        assert_eq!((answer.error_code, answer.producer_id.0), (14, -1));
    }
    tokio::time::advance(std::time::Duration::from_millis(501)).await;
    let answer = client.call(4, &request).await.unwrap();
    assert_eq!(
        (
            answer.error_code,
            answer.producer_id.0,
            answer.producer_epoch
        ),
        (0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn acks_zero_has_no_answer_and_an_error_closes_the_connection() {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    let mut client = Client::new(&broker);
    client
        .send(9, &produce_request(0, &[("t", 0, plain(2))]))
        .await
        .unwrap();
    assert_eq!(client.put(&plain(1)).await, (0, 2));
    client
        .send(9, &produce_request(0, &[("nope", 0, plain(2))]))
        .await
        .unwrap();
    assert!(client.frame().await.is_err());
}
