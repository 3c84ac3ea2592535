//! Fetch, ListOffsets and OffsetForLeaderEpoch: bounds, epochs, waiting, followers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use std::time::Duration;

use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
};
use strait_testkit::clock::{Clock, TokioClock};
use strait_testkit::records::{BatchHeader, split_batches};
use strait_testkit::{Broker, BrokerConfig, Codec, code};
use wire::{
    Client, NOW, broker, fetch_at, fetch_with, list_offsets, name, plain, produce_request, record,
    records,
};

fn filled(batches: &[usize]) -> Broker {
    let broker = broker();
    broker.create_topic("t", 1, &[]).unwrap();
    for count in batches {
        broker.append("t", 0, &plain(*count)).unwrap();
    }
    broker
}

/// (error, diverging epoch, base offsets of the batches returned).
async fn read(client: &mut Client, request: &FetchRequest) -> (i16, (i32, i64), Vec<i64>) {
    let row = client.fetch(request).await;
    let batches = split_batches(&row.records.unwrap_or_default());
    let bases = batches
        .iter()
        .map(|b| BatchHeader::parse(b).unwrap().base_offset);
    let diverging = (row.diverging_epoch.epoch, row.diverging_epoch.end_offset);
    (row.error_code, diverging, bases.collect())
}

async fn elapsed<T>(work: impl Future<Output = T>) -> (T, i64) {
    let clock = TokioClock::starting_at(0);
    let out = work.await;
    (out, clock.now_ms())
}

#[tokio::test(start_paused = true)]
async fn log_end_by_list_offsets() {
    let broker = filled(&[3]);
    let mut producer = broker.transactional_producer("x").unwrap();
    producer.begin();
    producer.send("t", 0, Codec::None, &records(2)).unwrap();
    let mut client = Client::new(&broker);
    for committed in [false, true] {
        for replica in [-2, -3, 0, 1, 5] {
            assert_eq!(
                client.offset(replica, -1, committed).await,
                (0, 5),
                "replica {replica}"
            );
        }
    }
    assert_eq!(client.offset(-1, -1, false).await, (0, 5));
    assert_eq!(client.offset(-1, -1, true).await, (0, 3));
    broker.hold_high_watermark("t", 0, Some(2));
    assert_eq!(client.offset(-2, -1, true).await, (0, 5));
    assert_eq!(client.offset(-1, -1, false).await, (0, 2));
    assert_eq!(client.offset(-1, -1, true).await, (0, 2));
}

#[tokio::test(start_paused = true)]
async fn list_offsets_by_time() {
    let broker = filled(&[]);
    for (index, time) in [100, 300, 200].into_iter().enumerate() {
        let batch = strait_testkit::records::BatchSpec::default();
        let batch = batch
            .build(&[record(NOW + time, &index.to_string())])
            .unwrap();
        broker.append("t", 0, &batch).unwrap();
    }
    let mut client = Client::new(&broker);
    for (time, offset) in [
        (NOW, 0),
        (NOW + 100, 0),
        (NOW + 101, 1),
        (NOW + 301, -1),
        (-3, 1),
        (-2, 0),
        (-4, 0),
    ] {
        assert_eq!(
            client.offset(-1, time, false).await,
            (0, offset),
            "time {time}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn followers_answer_some_things_with_their_own_end() {
    let cluster = Broker::new(BrokerConfig {
        nodes: 2,
        ..BrokerConfig::simulated("two")
    });
    cluster.create_replicated("t", 1, 2, &[]).unwrap();
    for _ in 0..2 {
        cluster.append("t", 0, &plain(5)).unwrap();
    }
    cluster.hold_high_watermark("t", 0, Some(6));
    let leader = cluster.leader("t", 0).0.unwrap();
    let nodes = cluster.nodes();
    let follower = nodes.iter().find(|n| n.id() != leader).unwrap();
    let mut client = Client::new(follower);
    assert_eq!(
        client.offset(-2, -1, false).await,
        (0, 6),
        "no error, its own end"
    );
    assert_eq!(
        client.offset(-1, -1, false).await.0,
        code::NOT_LEADER_OR_FOLLOWER
    );
    assert_eq!(
        epoch_end(&mut client, -1, 0).await.0,
        code::NOT_LEADER_OR_FOLLOWER
    );
    assert_eq!(client.put(&plain(1)).await.0, code::NOT_LEADER_OR_FOLLOWER);
    for (version, error) in [(4, 6), (10, 6), (11, 0), (12, 0)] {
        let response = client.call(version, &fetch_at(0)).await.unwrap();
        assert_eq!(
            response.responses[0].partitions[0].error_code, error,
            "Fetch v{version}"
        );
    }
    let mut client = Client::new(&cluster.node(leader).unwrap());
    assert_eq!(epoch_end(&mut client, 0, 0).await, (0, 0, 10));
}

/// (error, epoch, end) of OffsetForLeaderEpoch v4.
async fn epoch_end(client: &mut Client, current: i32, asked: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(current)
        .with_leader_epoch(asked);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let response = client.call(4, &request).await.unwrap();
    let row = &response.topics[0].partitions[0];
    (row.error_code, row.leader_epoch, row.end_offset)
}

#[tokio::test(start_paused = true)]
async fn leader_epochs_after_a_restart() {
    let broker = filled(&[18]);
    broker.restart();
    broker.append("t", 0, &plain(3)).unwrap();
    let mut client = Client::new(&broker);
    for (asked, epoch, end) in [(0, 0, 18), (1, 0, 18), (2, 2, 21), (3, -1, -1)] {
        assert_eq!(
            epoch_end(&mut client, 2, asked).await,
            (0, epoch, end),
            "epoch {asked}"
        );
    }
    assert_eq!(epoch_end(&mut client, 1, 0).await.0, 74);
    assert_eq!(epoch_end(&mut client, 3, 0).await.0, 75);
    let empty = filled(&[]);
    assert_eq!(epoch_end(&mut Client::new(&empty), -1, 0).await, (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn fetch_epochs() {
    let broker = filled(&[6]);
    broker.elect("t", 0, 1);
    broker.append("t", 0, &plain(4)).unwrap();
    let mut client = Client::new(&broker);
    let none = (-1, -1);
    // (offset, current epoch, last fetched epoch) -> (error, diverging, batches)
    let cases = [
        ((8, -1, 0), (0, (0, 6), vec![])),
        ((8, -1, 1), (0, none, vec![6])),
        ((6, -1, 0), (0, none, vec![6])),
        ((8, -1, 2), (1, none, vec![])),
        ((11, -1, 1), (0, (1, 10), vec![])),
        ((1000, -1, 1), (0, (1, 10), vec![])),
        ((11, -1, -1), (1, none, vec![])),
        ((-1, -1, -1), (1, none, vec![])),
        ((0, 0, -1), (74, none, vec![])),
        ((0, 2, -1), (75, none, vec![])),
        ((2, 1, -1), (0, none, vec![0, 6])),
    ];
    for ((offset, current, last), expected) in cases {
        let got = read(&mut client, &fetch_with(offset, current, last, false)).await;
        assert_eq!(
            got, expected,
            "offset {offset}, current {current}, last {last}"
        );
    }
    let old = client.call(10, &fetch_with(0, 0, -1, false)).await.unwrap();
    assert_eq!(old.responses[0].partitions[0].error_code, 74);
}

#[tokio::test(start_paused = true)]
async fn truncation_and_recreation_look_like_divergence() {
    let broker = filled(&[5, 5]);
    broker.truncate("t", 0, 5, 1);
    broker.append("t", 0, &plain(4)).unwrap();
    let mut client = Client::new(&broker);
    assert_eq!(
        read(&mut client, &fetch_with(9, -1, 0, false)).await.1,
        (0, 5)
    );
    assert_eq!(
        read(&mut client, &fetch_with(6, -1, 0, false)).await.1,
        (0, 5)
    );
    assert_eq!(
        read(&mut client, &fetch_with(6, -1, -1, false)).await,
        (0, (-1, -1), vec![5])
    );
    assert_eq!(read(&mut client, &fetch_with(10, -1, -1, false)).await.0, 1);
    let before = broker.topic_id("t");
    broker.delete_topic("t");
    broker.create_topic("t", 1, &[]).unwrap();
    assert_ne!(broker.topic_id("t"), before);
    assert_eq!(
        read(&mut client, &fetch_with(5, -1, 0, false)).await.1,
        (0, 0)
    );
    assert_eq!(read(&mut client, &fetch_with(5, -1, -1, false)).await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_empty_waits_at_the_high_watermark_and_nowhere_else() {
    let broker = filled(&[10]);
    let mut client = Client::new(&broker);
    broker.hold_high_watermark("t", 0, Some(6));
    for (offset, error, wait) in [(10, 0, 0), (8, 0, 0), (6, 0, 500), (11, 1, 0)] {
        let (got, ms) = elapsed(read(&mut client, &fetch_at(offset))).await;
        assert_eq!((got.0, got.2, ms), (error, vec![], wait), "offset {offset}");
    }
    broker.hold_high_watermark("t", 0, None);
    let (got, ms) = elapsed(read(&mut client, &fetch_at(10))).await;
    assert_eq!((got.0, ms), (0, 500));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_wakes_for_new_records_and_blocks_its_connection_only() {
    let broker = filled(&[1]);
    let (mut tail, mut other) = (Client::new(&broker), Client::new(&broker));
    tail.send(12, &fetch_at(1)).await.unwrap();
    tail.send(12, &fetch_at(0)).await.unwrap();
    tail.send(7, &list_offsets("t", -1, -1, false))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (got, ms) = elapsed(read(&mut other, &fetch_at(0))).await;
    assert_eq!((got.2, ms), (vec![0], 0));
    let (answer, ms) = elapsed(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        broker.append("t", 0, &plain(1)).unwrap();
        let first = tail.receive::<FetchRequest>(12).await.unwrap();
        tail.receive::<FetchRequest>(12).await.unwrap();
        tail.receive::<ListOffsetsRequest>(7).await.unwrap();
        first
    })
    .await;
    assert_eq!(ms, 50);
    assert!(
        !answer.responses[0].partitions[0]
            .records
            .as_ref()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn sizes_segments_and_duplicates_in_a_fetch() {
    let broker = filled(&[4, 4, 4]);
    let size = broker.read_log("t", 0)[0].bytes.len();
    let mut client = Client::new(&broker);
    let limited = |offset, bytes: usize| {
        let mut request = fetch_at(offset);
        request.topics[0].partitions[0].partition_max_bytes = bytes as i32;
        request
    };
    // A whole first batch whatever the limit; the second one cut at it; a request inside a batch gets all of it.
    let row = client.fetch(&limited(0, 1)).await;
    assert_eq!(row.records.unwrap().len(), size);
    let row = client.fetch(&limited(2, size + 30)).await;
    assert_eq!(row.records.unwrap().len(), size + 30);
    broker.roll("t");
    broker.append("t", 0, &plain(4)).unwrap();
    assert_eq!(
        read(&mut client, &fetch_at(9)).await.2,
        [8],
        "never across segments"
    );
    assert_eq!(read(&mut client, &fetch_at(12)).await.2, [12]);
    let mut twice = fetch_at(0);
    let mut second = twice.topics[0].partitions[0].clone();
    second.fetch_offset = 8;
    twice.topics[0].partitions.push(second);
    let response = client.call(12, &twice).await.unwrap();
    assert_eq!(response.responses[0].partitions.len(), 1);
    assert_eq!(
        read(&mut client, &twice).await.2,
        [8],
        "the last entry wins"
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_first_partition_with_data_gets_a_batch_beyond_the_limits() {
    let broker = broker();
    broker.create_topic("t", 2, &[]).unwrap();
    broker.append("t", 0, &plain(4)).unwrap();
    broker.append("t", 1, &plain(4)).unwrap();
    let mut request = fetch_at(0);
    request.max_bytes = 10;
    let mut other = request.topics[0].partitions[0].clone();
    other.partition = 1;
    request.topics[0].partitions.insert(0, other);
    let response = Client::new(&broker).call(12, &request).await.unwrap();
    let sizes: Vec<_> = response.responses[0]
        .partitions
        .iter()
        .map(|p| p.records.as_ref().unwrap().len())
        .collect();
    assert!(sizes[0] > 0);
    assert_eq!(sizes[1], 0);
}

#[tokio::test(start_paused = true)]
async fn topic_ids_from_version_13() {
    let broker = filled(&[2]);
    let old = broker.topic_id("t").unwrap();
    let mut client = Client::new(&broker);
    let by_id = |id| {
        let mut request = fetch_at(0);
        request.topics[0].topic = Default::default();
        request.topics[0].topic_id = id;
        request
    };
    let produce = |id| {
        let mut request = produce_request(1, &[("", 0, plain(1))]);
        request.topic_data[0].topic_id = id;
        request
    };
    let row = client.call(13, &by_id(old)).await.unwrap();
    assert_eq!(
        (row.error_code, row.responses[0].partitions[0].error_code),
        (0, 0)
    );
    let row = client.call(13, &produce(old)).await.unwrap();
    assert_eq!(row.responses[0].partition_responses[0].error_code, 0);
    broker.delete_topic("t");
    broker.create_topic("t", 1, &[]).unwrap();
    for version in [13, 17, 18] {
        let row = client.call(version, &by_id(old)).await.unwrap();
        assert_eq!(
            (row.error_code, row.responses[0].partitions[0].error_code),
            (0, 100)
        );
    }
    let row = client.call(13, &produce(old)).await.unwrap();
    assert_eq!(row.responses[0].partition_responses[0].error_code, 100);
}

#[tokio::test(start_paused = true)]
async fn acks_all_waits_for_the_high_watermark_and_times_out_with_the_offset() {
    let broker = filled(&[3]);
    broker.hold_high_watermark("t", 0, Some(3));
    let mut client = Client::new(&broker);
    let (answer, ms) = elapsed(client.put(&plain(2))).await;
    assert_eq!((answer, ms), ((7, 3), 1000), "timed out, yet appended at 3");
    client
        .send(9, &produce_request(-1, &[("t", 0, plain(1))]))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    broker.hold_high_watermark("t", 0, None);
    let (answer, ms) = elapsed(client.receive::<kafka_protocol::messages::ProduceRequest>(9)).await;
    assert_eq!(
        (
            answer.unwrap().responses[0].partition_responses[0].base_offset,
            ms
        ),
        (5, 0)
    );
    broker.set_under_min_isr("t", 0, true);
    assert_eq!(client.put(&plain(1)).await.0, 19);
    let one = client
        .call(9, &produce_request(1, &[("t", 0, plain(1))]))
        .await
        .unwrap();
    assert_eq!(one.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_change_ends_the_wait_of_an_appended_batch_with_6() {
    let cluster = Broker::new(BrokerConfig {
        nodes: 2,
        ..BrokerConfig::simulated("two")
    });
    cluster.create_replicated("t", 1, 2, &[]).unwrap();
    cluster.hold_high_watermark("t", 0, Some(0));
    let (leader, other) = if cluster.leader("t", 0).0 == Some(1) {
        (1, 2)
    } else {
        (2, 1)
    };
    let mut client = Client::new(&cluster.node(leader).unwrap());
    let request = produce_request(-1, &[("t", 0, plain(1))]);
    client.send(9, &request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    cluster.elect("t", 0, other);
    let answer = client
        .receive::<kafka_protocol::messages::ProduceRequest>(9)
        .await
        .unwrap();
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 6);
    assert_eq!(cluster.log_end("t", 0), 1, "appended all the same");
}
