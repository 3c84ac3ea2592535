//! What a broker refuses, accepts and rewrites in a client's batch (LogValidator and its callers).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod wire;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use strait_testkit::records::{
    APPEND_TIME, BatchHeader, BatchSpec, CONTROL, DELETE_HORIZON, TRANSACTIONAL, fix_crc,
};
use strait_testkit::{Broker, Codec, KitRecord, code};
use wire::{Client, DAY, NOW, broker, name, plain, produce_request, record, records};

fn spec() -> BatchSpec {
    BatchSpec::default()
}

fn edited(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut out = batch.to_vec();
    out[at..at + bytes.len()].copy_from_slice(bytes);
    fix_crc(&mut out);
    out.into()
}

fn with_config(configs: &[(&str, &str)]) -> Broker {
    let broker = broker();
    broker.create_topic("t", 1, configs).unwrap();
    broker
}

async fn error_of(configs: &[(&str, &str)], batch: &Bytes) -> i16 {
    let broker = with_config(configs);
    let error = Client::new(&broker).put(batch).await.0;
    assert_eq!(
        broker.log_end("t", 0) > 0,
        error == 0,
        "stored if and only if accepted"
    );
    error
}

#[tokio::test(start_paused = true)]
async fn malformed_batches_are_refused_with_kafkas_codes() {
    let two = plain(2);
    let cut = two.slice(..two.len() - 1);
    let double = Bytes::from([two.clone(), two.clone()].concat());
    let mut bad_crc = two.to_vec();
    bad_crc[70] ^= 1;
    let trailing = |tail: &[u8]| Bytes::from([&two[..], tail].concat());
    let gzip = BatchSpec {
        codec: Codec::Gzip,
        ..spec()
    };
    let cases: Vec<(&str, Bytes, i16)> = vec![
        ("good", two.clone(), 0),
        ("count above the offsets", spec_count(Some(3), None), 87),
        ("offsets above the count", spec_count(None, Some(5)), 87),
        ("count 0", spec_count(Some(0), None), 87),
        ("count -1", spec_count(Some(-1), None), 87),
        (
            "count and delta not matching the records",
            spec_count(Some(3), Some(2)),
            87,
        ),
        ("no bytes", Bytes::new(), 87),
        ("cut short", cut, 87),
        ("two batches", double, 87),
        ("magic 1", edited(&two, 16, &[1]), 87),
        ("magic 3", edited(&two, 16, &[3]), 2),
        (
            "base offset 1234",
            edited(&two, 0, &1234i64.to_be_bytes()),
            87,
        ),
        (
            "base offset -5",
            edited(&two, 0, &(-5i64).to_be_bytes()),
            87,
        ),
        (
            "leader epoch garbage",
            edited(&two, 12, &77i32.to_be_bytes()),
            0,
        ),
        ("CRC", bad_crc.into(), 2),
        ("30 bytes of a cut batch behind it", trailing(&two[..30]), 0),
        ("100 bytes of 0xff behind it", trailing(&[0xff; 100]), 2),
        ("100 bytes of 0 behind it", trailing(&[0; 100]), 2),
        ("codec 5", edited(&two, 21, &5i16.to_be_bytes()), -1),
        ("codec 7", edited(&two, 21, &7i16.to_be_bytes()), -1),
        ("producer id without sequence", pid_without_sequence(), 87),
        (
            "wrong inner offsets in gzip",
            gzip.encode(&[(5, &record(NOW, "a")), (6, &record(NOW, "b"))])
                .unwrap(),
            87,
        ),
        (
            "wrong inner offsets in gzip, right delta",
            wrong_inner(Codec::Gzip),
            -1,
        ),
        ("wrong inner offsets, plain", wrong_inner(Codec::None), 0),
    ];
    for (what, batch, error) in cases {
        assert_eq!(error_of(&[], &batch).await, error, "{what}");
    }
}

fn spec_count(count: Option<i32>, last: Option<i32>) -> Bytes {
    let spec = BatchSpec {
        count,
        last_offset_delta: last,
        ..spec()
    };
    spec.build(&records(2)).unwrap()
}

fn pid_without_sequence() -> Bytes {
    let spec = BatchSpec {
        producer_id: 4,
        producer_epoch: 0,
        ..spec()
    };
    spec.build(&records(1)).unwrap()
}

fn wrong_inner(codec: Codec) -> Bytes {
    let spec = BatchSpec {
        codec,
        last_offset_delta: Some(1),
        ..spec()
    };
    spec.encode(&[(0, &record(NOW, "a")), (5, &record(NOW, "b"))])
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn header_bits() {
    let flagged = |flags| BatchSpec { flags, ..spec() }.build(&records(2)).unwrap();
    let append_time = [("message.timestamp.type", "LogAppendTime")];
    // (bits sent, topic, error, bits stored)
    for (bits, configs, error, stored) in [
        (APPEND_TIME, &[][..], 0, 0),
        (APPEND_TIME, &append_time[..], 32, 0),
        (0, &append_time[..], 0, APPEND_TIME),
        (DELETE_HORIZON, &[][..], 0, DELETE_HORIZON),
        (TRANSACTIONAL, &[][..], 53, 0),
        (CONTROL, &[][..], 87, 0),
        (TRANSACTIONAL | CONTROL, &[][..], 53, 0),
        (0x80, &[][..], 0, 0x80),
        (0x4000, &[][..], 0, 0x4000),
    ] {
        let broker = with_config(configs);
        let mut client = Client::new(&broker);
        assert_eq!(client.put(&flagged(bits)).await.0, error, "bits {bits:#x}");
        if error == 0 {
            let header = broker.read_log("t", 0)[0].header;
            assert_eq!(header.attributes, stored, "bits {bits:#x}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn append_time_batches_show_the_producers_times_again_on_a_create_time_topic() {
    let broker = with_config(&[]);
    let spec = BatchSpec {
        flags: APPEND_TIME,
        max_timestamp: Some(NOW - 5),
        ..spec()
    };
    let batch = spec
        .build(&[record(NOW - 700, "a"), record(NOW - 600, "b")])
        .unwrap();
    Client::new(&broker).put(&batch).await;
    let times: Vec<_> = broker
        .records("t", 0, false)
        .iter()
        .map(|r| r.timestamp)
        .collect();
    assert_eq!(times, [NOW - 700, NOW - 600]);
    assert_eq!(broker.read_log("t", 0)[0].header.max_timestamp, NOW - 600);
}

#[tokio::test(start_paused = true)]
async fn the_largest_timestamp_is_recomputed_and_the_base_kept() {
    for codec in [Codec::None, Codec::Gzip] {
        for wrong in [-1, 0, NOW + 2 * 3_600_000] {
            let broker = with_config(&[]);
            let spec = BatchSpec {
                codec,
                max_timestamp: Some(wrong),
                base_timestamp: Some(NOW - 10),
                ..spec()
            };
            assert_eq!(
                Client::new(&broker)
                    .put(&spec.build(&records(2)).unwrap())
                    .await,
                (0, 0)
            );
            let header = broker.read_log("t", 0)[0].header;
            assert_eq!(
                (header.base_timestamp, header.max_timestamp),
                (NOW - 10, NOW)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn timestamps_within_the_topics_limits() {
    let hour = 3_600_000;
    let no_limit = [("message.timestamp.after.max.ms", "9223372036854775807")];
    let one_hour_back = [("message.timestamp.before.max.ms", "3600000")];
    for (time, configs, error) in [
        (NOW + 2 * hour, &[][..], 32),
        (NOW + 59 * 60_000, &[][..], 0),
        (NOW + 100 * 365 * DAY, &no_limit[..], 0),
        (NOW - 3_650 * DAY, &[][..], 0),
        (0, &[][..], 0),
        (-1, &[][..], 0),
        (-2, &[][..], 0),
        (NOW - 2 * hour, &one_hour_back[..], 32),
    ] {
        let batch = spec()
            .build(&[record(NOW, "a"), record(time, "b")])
            .unwrap();
        assert_eq!(error_of(configs, &batch).await, error, "time {time}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_sizes_and_codecs_by_topic() {
    let keyless = spec()
        .build(&[record(NOW, "a"), KitRecord::new(NOW, None, Some(b"v"))])
        .unwrap();
    assert_eq!(
        error_of(&[("cleanup.policy", "compact")], &keyless).await,
        87
    );
    assert_eq!(
        error_of(&[("cleanup.policy", "compact,delete")], &keyless).await,
        87
    );
    assert_eq!(error_of(&[], &keyless).await, 0);
    let batch = plain(3);
    let exact = batch.len().to_string();
    let less = (batch.len() - 1).to_string();
    assert_eq!(error_of(&[("max.message.bytes", &exact)], &batch).await, 0);
    assert_eq!(error_of(&[("max.message.bytes", &less)], &batch).await, 10);
    let zstd = BatchSpec {
        codec: Codec::Zstd,
        ..spec()
    }
    .build(&records(2))
    .unwrap();
    let broker = with_config(&[]);
    let request = produce_request(1, &[("t", 0, zstd)]);
    let mut client = Client::new(&broker);
    let old = client.call(6, &request).await.unwrap();
    assert_eq!(old.responses[0].partition_responses[0].error_code, 76);
    let new = client.call(7, &request).await.unwrap();
    assert_eq!(new.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn recompression_keeps_producer_and_sequence() {
    for (target, codec) in [
        ("gzip", Codec::Gzip),
        ("uncompressed", Codec::None),
        ("lz4", Codec::Lz4),
    ] {
        let broker = with_config(&[("compression.type", target)]);
        let mut client = Client::new(&broker);
        for (pid, epoch, sequence) in [(-1, 7, 99), (5, 2, 31)] {
            let spec = BatchSpec {
                codec: Codec::Snappy,
                producer_id: pid,
                producer_epoch: epoch,
                base_sequence: sequence,
                ..spec()
            };
            client.put(&spec.build(&records(3)).unwrap()).await;
            let stored = broker.read_log("t", 0).pop().unwrap();
            let h = stored.header;
            assert_eq!(
                (h.producer_id, h.producer_epoch, h.base_sequence),
                (pid, epoch, sequence)
            );
            assert_eq!(
                (h.codec(), h.last_offset_delta, h.count),
                (Some(codec), 2, 3)
            );
            assert_eq!(stored.records().unwrap().len(), 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_and_leader_epoch_are_stamped_on_the_stored_batch() {
    let broker = with_config(&[]);
    let mut client = Client::new(&broker);
    client.put(&plain(2)).await;
    broker.elect("t", 0, 1);
    client.put(&plain(3)).await;
    let log = broker.read_log("t", 0);
    let seen: Vec<_> = log
        .iter()
        .map(|b| (b.header.base_offset, b.header.leader_epoch))
        .collect();
    assert_eq!(seen, [(0, 0), (2, 1)]);
    for batch in log {
        assert_eq!(BatchHeader::parse(&batch.bytes).unwrap(), batch.header);
        strait_testkit::records::check_crc(&batch.bytes).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn some_errors_hit_every_partition_of_the_request_and_others_one() {
    let transactional = BatchSpec {
        flags: TRANSACTIONAL,
        ..spec()
    }
    .build(&records(1))
    .unwrap();
    let mut bad_crc = plain(1).to_vec();
    bad_crc[65] ^= 1;
    for (what, batch, other) in [
        ("transactional", transactional, 53),
        ("magic 3", edited(&plain(1), 16, &[3]), 2),
        ("CRC", bad_crc.into(), 0),
        ("magic 1", edited(&plain(1), 16, &[1]), 0),
    ] {
        let broker = broker();
        broker.create_topic("t", 3, &[]).unwrap();
        let entries = [("t", 0, plain(1)), ("t", 1, batch), ("t", 2, plain(1))];
        let response = Client::new(&broker)
            .call(9, &produce_request(1, &entries))
            .await
            .unwrap();
        let mut errors: Vec<_> = response
            .responses
            .iter()
            .flat_map(|t| {
                t.partition_responses
                    .iter()
                    .map(|p| (p.index, p.error_code))
            })
            .collect();
        let answered: Vec<_> = errors.iter().map(|(index, _)| *index).collect();
        assert_eq!(answered, [2, 1, 0], "not in request order");
        errors.sort_unstable();
        assert_eq!((errors[0].1, errors[2].1), (other, other), "{what}");
        assert_ne!(errors[1].1, 0, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_named_twice_gets_one_answer_and_the_last_wins() {
    let broker = with_config(&[]);
    let entries = [("t", 0, plain(1)), ("t", 0, plain(5))];
    let response = Client::new(&broker)
        .call(9, &produce_request(1, &entries))
        .await
        .unwrap();
    assert_eq!(response.responses.len(), 1);
    assert_eq!(response.responses[0].partition_responses.len(), 1);
    assert_eq!(broker.log_end("t", 0), 5);
}

#[tokio::test(start_paused = true)]
async fn null_records_are_never_answered() {
    let broker = with_config(&[]);
    let mut client = Client::new(&broker);
    let request = ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(1)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(name("t"))
                .with_partition_data(vec![PartitionProduceData::default().with_records(None)]),
        ]);
    client.send(9, &request).await.unwrap();
    let waited = tokio::time::timeout(std::time::Duration::from_secs(600), client.frame()).await;
    assert!(waited.is_err(), "neither answered nor closed");
}

#[tokio::test(start_paused = true)]
async fn nothing_a_client_sends_upsets_the_broker() {
    let broker = with_config(&[]);
    let mut chance = fastrand::Rng::with_seed(7);
    let good = plain(4);
    for _ in 0..500 {
        let mut batch = BytesMut::from(&good[..]);
        for _ in 0..chance.usize(1..6) {
            let at = chance.usize(0..batch.len());
            batch[at] = chance.u8(..);
        }
        if chance.bool() {
            batch.put_bytes(chance.u8(..), chance.usize(0..40));
        }
        if chance.bool() {
            fix_crc(&mut batch);
        }
        let mut client = Client::new(&broker);
        let (error, _) = client.put(&batch.freeze()).await;
        assert!(error >= -1);
    }
    assert_eq!(Client::new(&broker).put(&good).await.0, code::NONE);
}
