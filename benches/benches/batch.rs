//! What forwarding costs, step by step, each beside its limits: copying the same bytes, and checking them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::messages::FetchResponse as KafkaFetchResponse;
use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::protocol::{Encodable, StrBytes};
use strait_wire::{
    Batch, BatchBuilder, Codec, Entries, Entry, FetchResponse, ProducePartition, ProduceRequest,
    Record, Stamp, join, joined_bound, restamp,
};

const STAMP: Stamp = Stamp {
    producer_id: 7,
    producer_epoch: 3,
    base_sequence: 99,
};
/// Fetch and Produce by topic name.
const FETCH: i16 = 12;
const PRODUCE: i16 = 12;

/// A batch whose first record has offset `base`.
fn batch(base: i64, records: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for i in 0..records {
        builder.push(Record {
            offset: base + i as i64,
            timestamp: 1,
            key: None,
            value: Some(vec![i as u8; 1000].into()),
            headers: Vec::new(),
        });
    }
    let mut bytes = BytesMut::from(&builder.build(STAMP).unwrap()[..]);
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes.freeze()
}

fn parsed(bytes: Bytes) -> Vec<Batch> {
    Entries::new(bytes)
        .map(|entry| match entry.unwrap() {
            Entry::Batch(batch) => batch,
            Entry::Legacy { .. } => unreachable!(),
        })
        .collect()
}

/// So many batches of one partition, one behind the other.
fn log(batches: usize, records: usize) -> Bytes {
    let all = (0..batches).map(|i| batch((i * records) as i64, records));
    all.fold(BytesMut::new(), |mut log, batch| {
        log.extend_from_slice(&batch);
        log
    })
    .freeze()
}

fn limits(c: &mut Criterion, name: &str, bytes: &Bytes) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let size = format!("{} KiB", bytes.len() / 1024);
    group.bench_function(BenchmarkId::new("limit: crc32c", &size), |b| {
        b.iter(|| crc32c::crc32c(bytes))
    });
    group.bench_function(BenchmarkId::new("limit: memcpy", &size), |b| {
        b.iter(|| bytes.to_vec())
    });
    group.finish();
}

/// A fetch response taken apart into batches.
fn scan(c: &mut Criterion) {
    for records in [15, 64] {
        let log = log(16, records);
        let topic = FetchableTopicResponse::default()
            .with_topic(TopicName(StrBytes::from_static_str("orders")))
            .with_partitions(vec![
                PartitionData::default().with_records(Some(log.clone())),
            ]);
        let response = KafkaFetchResponse::default().with_responses(vec![topic]);
        let mut body = BytesMut::new();
        response.encode(&mut body, FETCH).unwrap();
        let body = body.freeze();
        let mut group = c.benchmark_group("fetch");
        group.throughput(Throughput::Bytes(log.len() as u64));
        let size = format!("{} KiB", log.len() / 1024);
        group.bench_function(BenchmarkId::new("scan 16 batches", &size), |b| {
            b.iter(|| {
                let response = FetchResponse::decode(FETCH, body.clone()).unwrap();
                Entries::new(response.partitions[0].records.clone()).count()
            })
        });
        group.finish();
        limits(c, "fetch", &log);
    }
}

/// A new header, with the checksum of the untouched records.
fn patch(c: &mut Criterion) {
    for records in [15, 64, 1024] {
        let bytes = batch(0, records);
        let batch = parsed(bytes.clone()).remove(0);
        let mut group = c.benchmark_group("patch");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let size = format!("{} KiB", bytes.len() / 1024);
        group.bench_function(BenchmarkId::new("restamp", &size), |b| {
            b.iter(|| restamp(&batch, STAMP))
        });
        group.bench_function(BenchmarkId::new("verify the checksum", &size), |b| {
            b.iter(|| batch.verify_crc().unwrap())
        });
        group.finish();
        limits(c, "patch", &bytes);
    }
}

/// Eight partitions' batches gathered into one request.
fn gather(c: &mut Criterion) {
    let batches: Vec<Batch> = (0..8).flat_map(|_| parsed(batch(0, 64))).collect();
    let bytes = log(8, 64);
    let mut group = c.benchmark_group("produce");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let size = format!("{} KiB", bytes.len() / 1024);
    group.bench_function(BenchmarkId::new("gather 8 batches", &size), |b| {
        b.iter(|| {
            let partitions = batches.iter().zip(0..).map(|(batch, partition)| {
                let segments = restamp(batch, STAMP);
                ProducePartition {
                    topic: "orders".to_owned(),
                    topic_id: uuid::Uuid::nil(),
                    partition,
                    batch: segments.into(),
                }
            });
            let request = ProduceRequest {
                acks: -1,
                timeout_ms: 10_000,
                partitions: partitions.collect(),
            };
            request.encode(PRODUCE).unwrap()
        })
    });
    group.finish();
    limits(c, "produce", &bytes);
}

/// Small batches made into a large one: a copy, and the check of what is copied.
fn joining(c: &mut Criterion) {
    let bytes = log(60, 15);
    let batches = parsed(bytes.clone());
    let batches: Vec<&Batch> = batches.iter().collect();
    let mut group = c.benchmark_group("join");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let size = format!("{} KiB", bytes.len() / 1024);
    let mut out = BytesMut::with_capacity(joined_bound(&batches));
    group.bench_function(BenchmarkId::new("join 60 batches", &size), |b| {
        b.iter(|| {
            out.clear();
            join(&batches, &mut out).unwrap()
        })
    });
    group.finish();
    limits(c, "join", &bytes);
}

criterion_group!(benches, scan, patch, gather, joining);
criterion_main!(benches);
