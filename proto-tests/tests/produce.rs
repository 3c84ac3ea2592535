//! Produce in every version, held against the kafka-protocol crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use kafka_protocol::messages::{self as theirs, BrokerId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use strait_wire::{ProducePartition, ProduceRequest, ProduceResponse, ProducedPartition, TopicRef};
use uuid::Uuid;

const IDS: [Uuid; 2] = [Uuid::from_bytes([0x11; 16]), Uuid::from_bytes([0x22; 16])];
const VERSIONS: std::ops::RangeInclusive<i16> =
    ProduceRequest::MIN_VERSION..=ProduceRequest::MAX_VERSION;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Two topics, their partitions mixed; batches of 1, 3 and 300 bytes (so that compact lengths take two bytes).
fn request() -> ProduceRequest {
    let partition = |topic: &str, topic_id, partition, batch: Vec<Bytes>| ProducePartition {
        topic: topic.into(),
        topic_id,
        partition,
        batch,
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        partitions: vec![
            partition(
                "orders",
                IDS[0],
                0,
                vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")],
            ),
            partition(
                "t",
                IDS[1],
                3,
                vec![Bytes::from(vec![0xcd; 61]), Bytes::from(vec![0xab; 239])],
            ),
            partition("orders", IDS[0], 7, vec![Bytes::from_static(b"z")]),
        ],
    }
}

/// The bytes their encoder gives for the same request.
fn reference(version: i16) -> BytesMut {
    let data = |index, bytes: &[u8]| {
        let records = Some(Bytes::copy_from_slice(bytes));
        PartitionProduceData::default()
            .with_index(index)
            .with_records(records)
    };
    let topic = |name: &str, id, partitions| {
        let topic = TopicProduceData::default().with_partition_data(partitions);
        if version >= 13 {
            topic.with_topic_id(id)
        } else {
            topic.with_name(TopicName(text(name)))
        }
    };
    let large = [vec![0xcd; 61], vec![0xab; 239]].concat();
    let request = theirs::ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            topic("orders", IDS[0], vec![data(0, b"abc"), data(7, b"z")]),
            topic("t", IDS[1], vec![data(3, &large)]),
        ]);
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    body
}

#[test]
fn requests_are_the_same_bytes() {
    for version in VERSIONS {
        let ours = request().encode(version).unwrap().concat();
        assert_eq!(ours, reference(version), "version {version}");
        let mut body = Bytes::from(ours);
        theirs::ProduceRequest::decode(&mut body, version).unwrap();
        assert!(body.is_empty());
    }
}

#[test]
fn responses_are_read_as_meant() {
    for version in VERSIONS {
        let partition = |index: i32, error| {
            let mut p = PartitionProduceResponse::default()
                .with_index(index)
                .with_error_code(error)
                .with_base_offset(100 + i64::from(index))
                .with_log_append_time_ms(1_700_000_000_000);
            if version >= 5 {
                p.log_start_offset = 50;
            }
            if version >= 8 && error != 0 {
                let record = |index, why| {
                    BatchIndexAndErrorMessage::default()
                        .with_batch_index(index)
                        .with_batch_index_error_message(why)
                };
                p.record_errors = vec![
                    record(4, None),
                    record(5, Some(text("too old"))),
                    record(6, Some(text("x"))),
                ];
                p.error_message = Some(text("refused"));
            }
            if version >= 9 && error != 0 {
                p.unknown_tagged_fields
                    .insert(100, Bytes::from_static(b"later"));
            }
            if version >= 10 && error != 0 {
                p.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(2))
                    .with_leader_epoch(9);
            }
            p
        };
        let topic = |name: &str, id, partitions| {
            let topic = TopicProduceResponse::default().with_partition_responses(partitions);
            if version >= 13 {
                topic.with_topic_id(id)
            } else {
                topic.with_name(TopicName(text(name)))
            }
        };
        let mut response = theirs::ProduceResponse::default()
            .with_throttle_time_ms(12)
            .with_responses(vec![
                topic("orders", IDS[0], vec![partition(0, 0), partition(7, 87)]),
                topic("t", IDS[1], vec![partition(3, 0)]),
            ]);
        if version >= 10 {
            let node = NodeEndpoint::default()
                .with_node_id(BrokerId(2))
                .with_host(text("h"))
                .with_port(9092);
            response = response.with_node_endpoints(vec![node]);
        }
        let mut body = BytesMut::new();
        response.encode(&mut body, version).unwrap();
        let read = ProduceResponse::decode(version, body.freeze()).unwrap();

        let ours = |name: &str, id, partition: i32, error| ProducedPartition {
            topic: if version >= 13 {
                TopicRef::Id(id)
            } else {
                TopicRef::Name(name.into())
            },
            partition,
            error,
            base_offset: 100 + i64::from(partition),
            log_append_time: 1_700_000_000_000,
            log_start_offset: if version >= 5 { 50 } else { -1 },
            message: (version >= 8 && error != 0)
                .then(|| "refused (record 5 of the batch: too old)".into()),
            refused: if version >= 8 && error != 0 {
                vec![4, 5, 6]
            } else {
                Vec::new()
            },
        };
        let expected = vec![
            ours("orders", IDS[0], 0, 0),
            ours("orders", IDS[0], 7, 87),
            ours("t", IDS[1], 3, 0),
        ];
        assert_eq!(
            read,
            ProduceResponse {
                throttle_ms: 12,
                partitions: expected
            },
            "version {version}"
        );
    }
}

/// The smallest partition a version allows must pass the bound on counts.
#[test]
fn many_minimal_partitions_are_read() {
    for version in VERSIONS {
        let partition = |i| {
            PartitionProduceResponse::default()
                .with_index(i)
                .with_error_message(None)
        };
        let topic = TopicProduceResponse::default()
            .with_partition_responses((0..1000).map(partition).collect());
        let topic = if version >= 13 {
            topic.with_topic_id(IDS[0])
        } else {
            topic
        };
        let topics = vec![TopicProduceResponse::default(); 1000]
            .into_iter()
            .chain([topic])
            .collect();
        let mut body = BytesMut::new();
        theirs::ProduceResponse::default()
            .with_responses(topics)
            .encode(&mut body, version)
            .unwrap();
        let read = ProduceResponse::decode(version, body.freeze()).unwrap();
        assert_eq!(read.partitions.len(), 1000, "version {version}");
    }
}
