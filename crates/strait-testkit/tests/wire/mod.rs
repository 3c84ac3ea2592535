//! A raw client on kafka-protocol, one connection, no cleverness, and batches to send with it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, ProduceRequest, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use strait_testkit::clock::ManualClock;
use strait_testkit::records::BatchSpec;
use strait_testkit::{Broker, BrokerConfig, KitRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub const NOW: i64 = BrokerConfig::SIMULATED_START_MS;
pub const DAY: i64 = 86_400_000;

pub fn broker() -> Broker {
    Broker::new(BrokerConfig::simulated("test"))
}

/// A broker whose time the test moves, with a topic `t` of one partition.
pub fn timed() -> (Broker, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOW));
    let broker = Broker::new(BrokerConfig {
        clock: clock.clone(),
        ..BrokerConfig::default()
    });
    broker.create_topic("t", 1, &[]).unwrap();
    (broker, clock)
}

pub fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from(text.to_owned()))
}

pub fn record(timestamp: i64, text: &str) -> KitRecord {
    KitRecord::new(timestamp, Some(text.as_bytes()), Some(text.as_bytes()))
}

pub fn records(count: usize) -> Vec<KitRecord> {
    (0..count).map(|i| record(NOW, &format!("r{i}"))).collect()
}

/// A plain batch of `count` records, made now.
pub fn plain(count: usize) -> Bytes {
    BatchSpec::default().build(&records(count)).unwrap()
}

pub fn with_pid(pid: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    with_pid_at(pid, epoch, sequence, count, NOW)
}

pub fn with_pid_at(pid: i64, epoch: i16, sequence: i32, count: usize, timestamp: i64) -> Bytes {
    let records: Vec<_> = (0..count)
        .map(|i| record(timestamp, &format!("{sequence}+{i}")))
        .collect();
    let spec = BatchSpec {
        producer_id: pid,
        producer_epoch: epoch,
        base_sequence: sequence,
        ..BatchSpec::default()
    };
    spec.build(&records).unwrap()
}

pub struct Client {
    stream: DuplexStream,
    correlation: i32,
}

impl Client {
    pub fn new(broker: &Broker) -> Self {
        Self {
            stream: broker.connect().unwrap(),
            correlation: 0,
        }
    }

    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.send(version, request).await?;
        self.receive::<R>(version).await
    }

    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        self.correlation += 1;
        let mut body = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("test")))
            .encode(&mut body, R::header_version(version))
            .unwrap();
        request.encode(&mut body, version).unwrap();
        self.stream
            .write_all(&(body.len() as u32).to_be_bytes())
            .await?;
        self.stream.write_all(&body).await
    }

    pub async fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut frame = self.frame().await?;
        ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes left over", frame.len());
        Ok(response)
    }

    pub async fn frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).await?;
        Ok(Bytes::from(frame))
    }

    /// Sends bytes as a request without an encoder.
    pub async fn raw(&mut self, body: &[u8]) -> io::Result<()> {
        self.stream
            .write_all(&(body.len() as u32).to_be_bytes())
            .await?;
        self.stream.write_all(body).await
    }

    pub async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: &Bytes,
    ) -> PartitionProduceResponse {
        let request = produce_request(-1, &[(topic, partition, batch.clone())]);
        let mut response = self.call(9, &request).await.unwrap();
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// `(error, base offset)` of a produce to `t`/0.
    pub async fn put(&mut self, batch: &Bytes) -> (i16, i64) {
        let row = self.produce("t", 0, batch).await;
        (row.error_code, row.base_offset)
    }

    pub async fn fetch(&mut self, request: &FetchRequest) -> PartitionData {
        let mut response = self.call(12, request).await.unwrap();
        response.responses.remove(0).partitions.remove(0)
    }

    /// `(error, offset)` of ListOffsets v7 on `t`/0.
    pub async fn offset(&mut self, replica: i32, timestamp: i64, committed: bool) -> (i16, i64) {
        let request = list_offsets("t", replica, timestamp, committed);
        let response = self.call(7, &request).await.unwrap();
        let row = &response.topics[0].partitions[0];
        (row.error_code, row.offset)
    }
}

pub fn produce_request(acks: i16, entries: &[(&str, i32, Bytes)]) -> ProduceRequest {
    let topics = entries.iter().map(|(topic, partition, batch)| {
        TopicProduceData::default()
            .with_name(name(topic))
            .with_partition_data(vec![
                PartitionProduceData::default()
                    .with_index(*partition)
                    .with_records(Some(batch.clone())),
            ])
    });
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(1_000)
        .with_topic_data(topics.collect())
}

/// A fetch of `t`/0 that waits at most 500 ms for a byte.
pub fn fetch_at(offset: i64) -> FetchRequest {
    fetch_with(offset, -1, -1, false)
}

pub fn fetch_with(
    offset: i64,
    current_epoch: i32,
    last_epoch: i32,
    committed: bool,
) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(current_epoch)
        .with_last_fetched_epoch(last_epoch)
        .with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_isolation_level(i8::from(committed))
        .with_session_epoch(-1)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(name("t"))
                .with_partitions(vec![partition]),
        ])
}

pub fn list_offsets(
    topic: &str,
    replica: i32,
    timestamp: i64,
    committed: bool,
) -> ListOffsetsRequest {
    let partition = ListOffsetsPartition::default()
        .with_timestamp(timestamp)
        .with_current_leader_epoch(-1);
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(replica))
        .with_isolation_level(i8::from(committed))
        .with_topics(vec![
            ListOffsetsTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![partition]),
        ])
}
