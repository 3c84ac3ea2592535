//! What the engine takes for granted about brokers, tried on a real one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use strait_net::{Cluster, Connection, Identity, KafkaError, Runtime, Security};
use strait_testkit::kafka::{KafkaCluster, KafkaOptions, Oracle, Workload};
use strait_wire::{
    BatchBuilder, Codec, Entries, Entry, FetchPartition, FetchRequest, FetchResponse, FetchTopic,
    FetchedPartition, Isolation, ProducePartition, ProduceRequest, ProduceResponse,
    ProducedPartition, Record, Stamp,
};
use uuid::Uuid;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const TIMEOUT: Duration = Duration::from_secs(20);

struct Node {
    kafka: KafkaCluster,
    oracle: Oracle,
    cluster: Cluster,
}

fn node() -> Node {
    let kafka = KafkaCluster::start(KafkaOptions::new()).unwrap();
    let identity = Identity {
        client_id: "proto-tests".into(),
        software_name: "strait".into(),
        software_version: "0".into(),
    };
    let cluster = Cluster::new(
        Runtime::system(),
        "real",
        vec![kafka.bootstrap()],
        Security::default(),
        identity,
    );
    Node {
        oracle: Oracle::start().unwrap(),
        kafka,
        cluster,
    }
}

impl Node {
    fn topic(&self, name: &str) {
        self.oracle
            .create_topic(&self.kafka.bootstrap(), name, 1, 1, &[])
            .unwrap();
    }

    async fn connection(&self) -> Connection {
        self.cluster.metadata(Some(&[])).await.unwrap();
        self.cluster.connect(1).await.unwrap()
    }
}

async fn fetch(
    connection: &Connection,
    topic: &str,
    offset: i64,
    wait: Duration,
) -> (FetchedPartition, Duration) {
    let request = FetchRequest {
        max_wait_ms: wait.as_millis() as i32,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation: Isolation::ReadCommitted,
        rack: String::new(),
        topics: vec![FetchTopic {
            name: topic.into(),
            id: Uuid::nil(),
            partitions: vec![FetchPartition {
                partition: 0,
                leader_epoch: -1,
                offset,
                last_fetched_epoch: -1,
                max_bytes: 1 << 20,
            }],
        }],
    };
    let asked = Instant::now();
    let body = vec![request.encode(12).unwrap()];
    let answer = connection
        .send(FETCH, 12, body, TIMEOUT, None)
        .await
        .unwrap();
    let mut response = FetchResponse::decode(12, answer).unwrap();
    (response.partitions.pop().unwrap(), asked.elapsed())
}

async fn produce(
    connection: &Connection,
    topic: &str,
    stamp: Stamp,
    value: &'static str,
) -> ProducedPartition {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(Record {
        offset: 0,
        timestamp: 1_700_000_000_000,
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from_static(value.as_bytes())),
        headers: Vec::new(),
    });
    let batch = vec![builder.build(stamp).unwrap()];
    let partition = ProducePartition {
        topic: topic.into(),
        topic_id: Uuid::nil(),
        partition: 0,
        batch,
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        partitions: vec![partition],
    };
    let answer = connection
        .send(PRODUCE, 9, request.encode(9).unwrap(), TIMEOUT, None)
        .await
        .unwrap();
    ProduceResponse::decode(9, answer)
        .unwrap()
        .partitions
        .pop()
        .unwrap()
}

fn stamp((producer_id, producer_epoch): (i64, i16), base_sequence: i32) -> Stamp {
    Stamp {
        producer_id,
        producer_epoch,
        base_sequence,
    }
}

/// The tail lane parks caught-up flows at the last stable offset: the broker has to hold that fetch, and it holds
/// one above it as well (unlike a fetch between the high watermark and the log end, which it answers at once).
#[tokio::test(flavor = "multi_thread")]
async fn a_committed_fetch_is_held_at_the_last_stable_offset_and_above_it() {
    let node = node();
    node.topic("open");
    let bootstrap = node.kafka.bootstrap();
    node.oracle
        .produce(&bootstrap, &Workload::new("open"), 5)
        .unwrap();
    let open = node
        .oracle
        .produce_open(&bootstrap, &Workload::new("open"), 5, "t")
        .unwrap();
    let connection = node.connection().await;
    let wait = Duration::from_millis(700);

    let (at, waited) = fetch(&connection, "open", 5, wait).await;
    assert_eq!(
        (
            at.error,
            at.last_stable_offset,
            at.high_watermark,
            at.records.len()
        ),
        (0, 5, 10, 0)
    );
    assert!(
        waited >= wait,
        "held until the wait was over, not {waited:?}"
    );
    // Whatever else happens to the partition ends a held fetch early: one that lasts shows that it is held.
    let mut waited = std::time::Duration::ZERO;
    for _ in 0..5 {
        let (above, this) = fetch(&connection, "open", 7, wait).await;
        assert_eq!((above.error, above.records.len()), (0, 0));
        waited = waited.max(this);
        if waited >= wait {
            break;
        }
    }
    assert!(
        waited >= wait,
        "held until the wait was over, not {waited:?}"
    );
    open.commit().unwrap();
}

/// Raising one's own epoch with the held (producer id, epoch) works once; after somebody else took the
/// transactional id it fails instead of fencing the new owner.
#[tokio::test(flavor = "multi_thread")]
async fn the_epoch_is_raised_only_for_its_holder() {
    let node = node();
    let first = retried(&node.cluster, None).await;
    let raised = retried(&node.cluster, Some(first)).await;
    assert_eq!(raised, (first.0, first.1 + 1));
    // The same request again, as after a lost answer, gives the same epoch.
    assert_eq!(retried(&node.cluster, Some(first)).await, raised);
    let taken = retried(&node.cluster, None).await;
    assert_eq!(taken, (first.0, raised.1 + 1));
    let error = node
        .cluster
        .init_producer_id(Some("strait.l.0"), 10_000, Some(raised))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some(KafkaError(90)), "{error}");
}

/// The coordinator loads, and ends earlier transactions, in its own time.
async fn retried(cluster: &Cluster, held: Option<(i64, i16)>) -> (i64, i16) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match cluster
            .init_producer_id(Some("strait.l.0"), 10_000, held)
            .await
        {
            Ok(identity) => return identity,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// The fence: an aborted transaction without data leaves one marker of the new epoch, and from the moment it
/// can be read the old epoch is refused, also where the new one has written nothing.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_marker_is_read_the_old_epoch_is_refused() {
    let node = node();
    node.topic("fenced");
    let old = retried(&node.cluster, None).await;
    let connection = node.connection().await;
    assert_eq!(
        produce(&connection, "fenced", stamp(old, 0), "a")
            .await
            .error,
        0
    );
    let new = retried(&node.cluster, None).await;
    assert_eq!(
        produce(&connection, "fenced", stamp(old, 1), "b")
            .await
            .error,
        0,
        "not fenced before the marker"
    );

    let partitions = [("fenced".to_owned(), vec![0])];
    let added = node
        .cluster
        .add_partitions_to_txn("strait.l.0", new.0, new.1, &partitions)
        .await
        .unwrap();
    assert_eq!(added, [("fenced".to_owned(), 0, 0)]);
    node.cluster
        .end_txn("strait.l.0", new.0, new.1, false)
        .await
        .unwrap();
    let deadline = Instant::now() + TIMEOUT;
    let marker = loop {
        assert!(Instant::now() < deadline);
        let (part, _) = fetch(&connection, "fenced", 2, Duration::from_millis(200)).await;
        if let Some(Ok(Entry::Batch(batch))) = Entries::new(part.records.clone()).next() {
            break batch.header;
        }
    };
    assert!(marker.attributes.control());
    assert_eq!(
        (
            marker.base_offset,
            marker.producer_id,
            marker.producer_epoch
        ),
        (2, new.0, new.1)
    );
    assert_eq!(
        produce(&connection, "fenced", stamp(old, 2), "c")
            .await
            .error,
        47
    );
    assert_eq!(
        produce(&connection, "fenced", stamp(new, 5), "d")
            .await
            .error,
        45,
        "a new epoch begins at 0"
    );
    let first = produce(&connection, "fenced", stamp(new, 0), "e").await;
    assert_eq!((first.error, first.base_offset), (0, 3));
}
