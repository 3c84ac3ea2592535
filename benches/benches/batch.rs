//! What forwarding one batch costs, beside its limits: copying the bytes, and checking them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strait_wire::{Batch, BatchBuilder, Codec, Entries, Entry, Record, Stamp, restamp};

fn batch(records: usize, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None);
    for i in 0..records {
        let value = vec![i as u8; size];
        builder.push(Record {
            offset: 0,
            timestamp: 1,
            key: None,
            value: Some(value.into()),
            headers: Vec::new(),
        });
    }
    builder
        .build(Stamp {
            producer_id: 1,
            producer_epoch: 0,
            base_sequence: 0,
        })
        .unwrap()
}

fn parsed(bytes: &Bytes) -> Batch {
    match Entries::new(bytes.clone()).next().unwrap().unwrap() {
        Entry::Batch(batch) => batch,
        Entry::Legacy { .. } => unreachable!(),
    }
}

fn forwarding(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    for records in [16, 64, 1024] {
        let bytes = batch(records, 1000);
        let one = parsed(&bytes);
        let blob: Bytes = bytes.repeat(16).into();
        let size = bytes.len();
        group.throughput(Throughput::Bytes(size as u64));
        let id = |name: &str| BenchmarkId::new(name, format!("{} KiB", size / 1024));
        let stamp = Stamp {
            producer_id: 7,
            producer_epoch: 3,
            base_sequence: 99,
        };
        group.bench_function(id("restamp"), |b| b.iter(|| restamp(&one, stamp)));
        group.bench_function(id("limit: crc32c"), |b| b.iter(|| crc32c::crc32c(&bytes)));
        group.bench_function(id("limit: memcpy"), |b| b.iter(|| bytes.to_vec()));
        group.throughput(Throughput::Bytes(blob.len() as u64));
        group.bench_function(id("scan 16"), |b| {
            b.iter(|| Entries::new(blob.clone()).count())
        });
    }
    group.finish();
}

criterion_group!(benches, forwarding);
criterion_main!(benches);
