//! Fetch in every version, held against the kafka-protocol crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData, SnapshotId,
};
use kafka_protocol::messages::{self as theirs, BrokerId, ProducerId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use strait_wire::{
    AbortedTxn, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition,
    Isolation, TopicRef,
};
use uuid::Uuid;

const IDS: [Uuid; 2] = [Uuid::from_bytes([0x11; 16]), Uuid::from_bytes([0x22; 16])];

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.into()))
}

fn request(isolation: Isolation) -> FetchRequest {
    let partition = |partition, offset| FetchPartition {
        partition,
        leader_epoch: partition + 10,
        offset,
        last_fetched_epoch: partition - 1,
        max_bytes: 1 << 20,
    };
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        isolation,
        rack: "rack-1".into(),
        topics: vec![
            FetchTopic {
                name: "orders".into(),
                id: IDS[0],
                partitions: vec![partition(0, 0), partition(7, i64::MAX)],
            },
            FetchTopic {
                name: "t".repeat(249),
                id: IDS[1],
                partitions: vec![partition(3, 1 << 40)],
            },
        ],
    }
}

#[test]
fn requests_are_read_as_meant() {
    for version in FetchRequest::MIN_VERSION..=FetchRequest::MAX_VERSION {
        for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
            let ours = request(isolation);
            let mut body = ours.encode(version).unwrap();
            let read = theirs::FetchRequest::decode(&mut body, version).unwrap();
            assert!(
                body.is_empty(),
                "version {version}: {} bytes left over",
                body.len()
            );
            assert_eq!(read.replica_id, BrokerId(-1));
            assert_eq!(read.replica_state.replica_id, BrokerId(-1));
            assert_eq!(
                (read.max_wait_ms, read.min_bytes, read.max_bytes),
                (500, 1, 50 << 20)
            );
            assert_eq!(
                read.isolation_level,
                i8::from(isolation == Isolation::ReadCommitted)
            );
            assert_eq!((read.session_id, read.session_epoch), (0, -1));
            assert_eq!(
                read.rack_id.as_str(),
                if version >= 11 { "rack-1" } else { "" }
            );
            assert!(read.forgotten_topics_data.is_empty());
            assert_eq!(
                (read.cluster_id, read.unknown_tagged_fields.len()),
                (None, 0)
            );
            assert_eq!(read.topics.len(), ours.topics.len());
            for (read, ours) in read.topics.iter().zip(&ours.topics) {
                match version {
                    13.. => assert_eq!((read.topic_id, read.topic.as_str()), (ours.id, "")),
                    _ => assert_eq!(
                        (read.topic_id, read.topic.as_str()),
                        (Uuid::nil(), ours.name.as_str())
                    ),
                }
                assert_eq!(read.partitions.len(), ours.partitions.len());
                for (read, ours) in read.partitions.iter().zip(&ours.partitions) {
                    let since = |first, value| if version >= first { value } else { -1 };
                    assert_eq!(
                        (read.partition, read.fetch_offset),
                        (ours.partition, ours.offset)
                    );
                    assert_eq!(read.current_leader_epoch, since(9, ours.leader_epoch));
                    assert_eq!(read.last_fetched_epoch, since(12, ours.last_fetched_epoch));
                    assert_eq!(
                        (read.log_start_offset, read.partition_max_bytes),
                        (-1, ours.max_bytes)
                    );
                    assert_eq!(read.replica_directory_id, Uuid::nil());
                }
            }
        }
    }
}

/// Their encoder gives the same bytes for the same request.
#[test]
fn requests_are_the_same_bytes() {
    for version in FetchRequest::MIN_VERSION..=FetchRequest::MAX_VERSION {
        let ours = request(Isolation::ReadCommitted).encode(version).unwrap();
        let mut again = BytesMut::new();
        theirs::FetchRequest::decode(&mut ours.clone(), version)
            .unwrap()
            .encode(&mut again, version)
            .unwrap();
        assert_eq!(again, ours, "version {version}");
    }
}

fn their_partition(version: i16, index: i32) -> PartitionData {
    let mut data = PartitionData::default()
        .with_partition_index(index)
        .with_error_code(if index == 1 { 1 } else { 0 })
        .with_high_watermark(1000 + i64::from(index))
        .with_last_stable_offset(900)
        .with_aborted_transactions(None)
        .with_records(None);
    if version >= 5 {
        data.log_start_offset = 50;
    }
    if version >= 11 {
        data.preferred_read_replica = BrokerId(index);
    }
    if index == 2 {
        let aborted = |id, first| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(id))
                .with_first_offset(first)
        };
        data.aborted_transactions = Some(vec![aborted(7, 70), aborted(8, 80)]);
        data.records = Some(Bytes::from(vec![0xab; 300]));
    }
    if index == 3 {
        data.aborted_transactions = Some(Vec::new());
        data.records = Some(Bytes::new());
        if version >= 12 {
            data.diverging_epoch = EpochEndOffset::default().with_epoch(4).with_end_offset(44);
            data.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(2))
                .with_leader_epoch(9);
            data.snapshot_id = SnapshotId::default().with_end_offset(5).with_epoch(1);
            data.unknown_tagged_fields
                .insert(100, Bytes::from_static(b"later"));
        }
    }
    data
}

fn our_partition(version: i16, topic: TopicRef, index: i32) -> FetchedPartition {
    let since = |first, value| if version >= first { value } else { -1 };
    let aborted = |producer_id, first_offset| AbortedTxn {
        producer_id,
        first_offset,
    };
    FetchedPartition {
        topic,
        partition: index,
        error: if index == 1 { 1 } else { 0 },
        high_watermark: 1000 + i64::from(index),
        last_stable_offset: 900,
        log_start_offset: since(5, 50),
        diverging: (version >= 12 && index == 3).then_some((4, 44)),
        aborted: if index == 2 {
            vec![aborted(7, 70), aborted(8, 80)]
        } else {
            Vec::new()
        },
        preferred_replica: since(11, i64::from(index)) as i32,
        records: if index == 2 {
            Bytes::from(vec![0xab; 300])
        } else {
            Bytes::new()
        },
    }
}

#[test]
fn responses_are_read_as_meant() {
    for version in FetchRequest::MIN_VERSION..=FetchRequest::MAX_VERSION {
        let topic = |text: &str, id, partitions: &[i32]| {
            let data = partitions
                .iter()
                .map(|i| their_partition(version, *i))
                .collect();
            let topic = FetchableTopicResponse::default().with_partitions(data);
            if version >= 13 {
                topic.with_topic_id(id)
            } else {
                topic.with_topic(name(text))
            }
        };
        let mut response = theirs::FetchResponse::default()
            .with_throttle_time_ms(12)
            .with_responses(vec![
                topic("orders", IDS[0], &[0, 1, 2]),
                topic("x", IDS[1], &[]),
                topic("y", IDS[1], &[3]),
            ]);
        if version >= 7 {
            response = response.with_error_code(70).with_session_id(99);
        }
        if version >= 12 {
            response
                .unknown_tagged_fields
                .insert(100, Bytes::from_static(b"later"));
        }
        if version >= 16 {
            let node = NodeEndpoint::default()
                .with_node_id(BrokerId(2))
                .with_host(StrBytes::from_static_str("h"));
            response = response.with_node_endpoints(vec![node.with_port(9092)]);
        }
        let mut body = BytesMut::new();
        response.encode(&mut body, version).unwrap();
        let body = body.freeze();
        let read = FetchResponse::decode(version, body.clone()).unwrap();

        let by = |text: &str, id| {
            if version >= 13 {
                TopicRef::Id(id)
            } else {
                TopicRef::Name(text.into())
            }
        };
        assert_eq!(
            (read.throttle_ms, read.error),
            (12, if version >= 7 { 70 } else { 0 })
        );
        let expected = [
            ("orders", IDS[0], 0),
            ("orders", IDS[0], 1),
            ("orders", IDS[0], 2),
            ("y", IDS[1], 3),
        ]
        .map(|(text, id, index)| our_partition(version, by(text, id), index));
        assert_eq!(read.partitions, expected, "version {version}");
        assert!(
            body.as_ptr_range()
                .contains(&read.partitions[2].records.as_ptr()),
            "records were copied"
        );
    }
}

#[test]
fn an_empty_response_is_read_in_every_version() {
    for version in FetchRequest::MIN_VERSION..=FetchRequest::MAX_VERSION {
        let mut body = BytesMut::new();
        theirs::FetchResponse::default()
            .encode(&mut body, version)
            .unwrap();
        let read = FetchResponse::decode(version, body.freeze()).unwrap();
        assert_eq!(
            read,
            FetchResponse {
                throttle_ms: 0,
                error: 0,
                partitions: Vec::new()
            }
        );
    }
}

/// The smallest partition a version allows must pass the bound on counts.
#[test]
fn many_minimal_partitions_are_read() {
    for version in FetchRequest::MIN_VERSION..=FetchRequest::MAX_VERSION {
        let data = (0..1000)
            .map(|i| {
                PartitionData::default()
                    .with_partition_index(i)
                    .with_records(None)
            })
            .collect();
        let topic = FetchableTopicResponse::default().with_partitions(data);
        let topic = if version >= 13 {
            topic.with_topic_id(IDS[0])
        } else {
            topic
        };
        let topics = vec![FetchableTopicResponse::default(); 1000]
            .into_iter()
            .chain([topic])
            .collect();
        let mut body = BytesMut::new();
        theirs::FetchResponse::default()
            .with_responses(topics)
            .encode(&mut body, version)
            .unwrap();
        let read = FetchResponse::decode(version, body.freeze()).unwrap();
        assert_eq!(read.partitions.len(), 1000, "version {version}");
    }
}
