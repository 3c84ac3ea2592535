//! Records on the plaintext path are not copied: what is produced lies inside the buffer that the kernel filled, and a link
//! allocates next to nothing beside such buffers. Small uncompressed batches that are joined are the exception.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unsafe_code,
    clippy::disallowed_methods
)] // An allocator that counts; real threads and sockets.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use strait_engine::stitch::Stitch;
use strait_engine::writer::Writer;
use strait_engine::{FlowKey, FlowSpec, Link, LinkSpec, Policies, Start, Takeover, limits};
use strait_net::{Cluster, Identity, Pool, Runtime, Security};
use strait_testkit::{Broker, BrokerConfig, Codec, KitRecord};
use strait_wire::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, Isolation, ProducePartition,
    ProduceRequest,
};

const TOPIC: &str = "data";
const MIB: usize = 1 << 20;

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Counted in full: it may move, and so copy, all of it.
        ASKED.set(ASKED.get() + size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn cluster(rt: &Runtime, alias: &str, broker: &Broker) -> Cluster {
    let (host, port) = broker.address();
    let identity = Identity {
        client_id: "test".to_owned(),
        software_name: "test".to_owned(),
        software_version: "0".to_owned(),
    };
    let bootstrap = vec![format!("{host}:{port}")];
    Cluster::new(rt.clone(), alias, bootstrap, Security::default(), identity)
}

/// A cluster on loopback TCP whose topic has one partition with `batches` of about `batch_bytes` before compression.
fn filled(
    tokio: &tokio::runtime::Runtime,
    id: &str,
    codec: Codec,
    batches: usize,
    batch_bytes: usize,
) -> Broker {
    let broker = Broker::new(BrokerConfig {
        cluster_id: id.to_owned(),
        ..BrokerConfig::default()
    });
    tokio.block_on(broker.listen("127.0.0.1:0")).unwrap();
    broker.create_topic(TOPIC, 1, &[]).unwrap();
    let mut producer = broker.plain_producer();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..batches {
        let value = std::iter::repeat_with(|| random.u8(..)).take(batch_bytes);
        let record = KitRecord {
            value: Some(value.collect::<Vec<u8>>().into()),
            timestamp: broker.now_ms(),
            ..KitRecord::default()
        };
        producer.send(TOPIC, 0, codec, &[record]).unwrap();
    }
    broker
}

/// The brokers' threads; the test's own runs the mirror.
fn servers() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn mirror() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn what_is_produced_lies_in_the_buffer_that_was_received() {
    let servers = servers();
    // What is joined has to be small and uncompressed; these are large, or compressed.
    for (codec, batches, size) in [
        (Codec::None, 10, limits::JOIN_BELOW),
        (Codec::Lz4, 50, 16_000),
        (Codec::Zstd, 50, 16_000),
    ] {
        let broker = filled(&servers, "source", codec, batches, size);
        let id = broker.topic_id(TOPIC).unwrap();
        let rt = Runtime::system();
        mirror().block_on(async {
            let pool = Pool::new(16 * MIB, 16 * MIB);
            let source = cluster(&rt, "source", &broker);
            source.metadata(None).await.unwrap();
            let connection = source
                .connect_bulk(broker.id(), &pool, 8 * MIB)
                .await
                .unwrap();
            let partition = FetchPartition {
                partition: 0,
                leader_epoch: -1,
                offset: 0,
                last_fetched_epoch: -1,
                max_bytes: 8 << 20,
            };
            let request = FetchRequest {
                max_wait_ms: 100,
                min_bytes: 1,
                max_bytes: 8 << 20,
                isolation: Isolation::ReadCommitted,
                rack: String::new(),
                topics: vec![FetchTopic {
                    name: TOPIC.to_owned(),
                    id,
                    partitions: vec![partition],
                }],
            };
            let version = connection.version(1, FetchRequest::MAX_VERSION, 4).unwrap();
            let body = vec![request.encode(version).unwrap()];
            let timeout = Duration::from_secs(30);
            let pending = connection.send(1, version, body, timeout, None);
            let received = pending.await.unwrap();
            let within = received.as_ptr_range();

            let asked = ASKED.get();
            let answer = FetchResponse::decode(version, received.clone()).unwrap();
            let fetched = &answer.partitions[0];
            let mut stitch = Stitch::new(0, -1, false, Isolation::ReadCommitted, 1 << 20);
            let mut items = Vec::new();
            stitch.admit(fetched, true, &mut items).unwrap();
            assert_eq!(items.len(), batches, "{codec:?}");
            let (mut inside, mut outside) = (0, 0);
            for item in items {
                // A writer of its own for each: no answers are needed.
                let mut writer = Writer::new(1, 0, 0);
                writer.push(item);
                let dispatch = writer.next_batch(&pool).unwrap();
                let request = ProduceRequest {
                    acks: -1,
                    timeout_ms: 1_000,
                    partitions: vec![ProducePartition {
                        topic: TOPIC.to_owned(),
                        topic_id: id,
                        partition: 0,
                        batch: dispatch.batch.into(),
                    }],
                };
                for segment in request.encode(13).unwrap() {
                    let range = segment.as_ptr_range();
                    if range.start >= within.start && range.end <= within.end {
                        inside += segment.len();
                    } else {
                        outside += segment.len();
                    }
                }
            }
            let asked = ASKED.get() - asked;
            let headers = batches * 61;
            assert_eq!(inside, fetched.records.len() - headers, "{codec:?}");
            assert!(
                outside < batches * 200,
                "{codec:?}: {outside} bytes outside"
            );
            assert!(
                asked < batches * 4_000,
                "{codec:?}: {asked} bytes allocated for {batches} batches"
            );
        });
    }
}

#[test]
fn a_link_allocates_less_than_it_forwards() {
    const BATCHES: usize = 1_920;
    /// Such that nothing is joined.
    const BATCH: usize = 64 << 10;
    const { assert!(BATCH >= limits::JOIN_BELOW) };
    const BUDGET: u64 = 8 << 20;
    let servers = servers();
    let source = filled(&servers, "source", Codec::None, BATCHES, BATCH);
    let target = filled(&servers, "target", Codec::None, 0, 0);
    let forwarded = BATCHES * BATCH;
    let rt = Runtime::system();
    let asked = mirror().block_on(async {
        let spec = LinkSpec {
            name: "link".to_owned(),
            source: cluster(&rt, "source", &source),
            target: cluster(&rt, "target", &target),
            isolation: Isolation::ReadCommitted,
            instance: "test".to_owned(),
            lock_dir: None,
            internal_replication: None,
            take_over: false,
            memory_budget: BUDGET,
            lanes: 1,
            long_poll: Duration::from_millis(500),
            request_timeout: Duration::from_secs(30),
            open_transaction: Duration::from_secs(300),
            drain: Duration::from_secs(5),
            policies: Policies::default(),
            only_local: false,
            takeover: Takeover::default(),
        };
        let (link, handle) = Link::new(rt.clone(), spec);
        let task = tokio::spawn(link.run());
        let flow = FlowSpec {
            key: FlowKey {
                topic: TOPIC.to_owned(),
                partition: 0,
            },
            target_topic: TOPIC.to_owned(),
            start: Start::Earliest,
            compacted: false,
            target_compacted: false,
            min_insync: 1,
            max_batch_bytes: None,
        };
        let before = ASKED.get();
        handle.set_flows(vec![flow]).await;
        let mut status = handle.status();
        let begun = Instant::now();
        while status.borrow_and_update().records < BATCHES as u64 {
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "it stands still"
            );
            let _ = tokio::time::timeout(Duration::from_secs(1), status.changed()).await;
        }
        let asked = ASKED.get() - before;
        handle.stop().await;
        task.await.unwrap().unwrap();
        asked
    });
    println!("{asked} bytes allocated while {forwarded} were forwarded");
    assert!(
        asked < forwarded / 4,
        "{asked} bytes allocated while {forwarded} were forwarded"
    );
    let mut ends = BTreeMap::new();
    for (name, broker) in [("source", &source), ("target", &target)] {
        let records = broker.records(TOPIC, 0, true);
        let values: Vec<_> = records.into_iter().map(|r| r.value).collect();
        ends.insert(name, values);
    }
    assert!(ends["source"] == ends["target"], "the contents differ");
}
