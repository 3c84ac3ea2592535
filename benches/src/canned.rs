//! Brokers that cost nothing: a source whose one topic never ends, and a target that throws its records away.
//!
//! Each is an in-memory broker of the test kit with a front before it. The front answers Fetch and Produce of the data's
//! topic by itself, from batches made beforehand, and hands every other request on to the kit.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, decode_request_header_from_buffer};
use strait_testkit::{Broker, BrokerConfig};
use strait_wire::{BatchBuilder, Codec, Record, Stamp};

use crate::Failure;

/// Far beyond what is read in one run.
const END: i64 = 1_000_000_000_000;
/// Offset of the base offset, of the leader epoch and of the last offset's delta in a batch.
const LEADER_EPOCH: usize = 12;
const LAST_DELTA: usize = 23;

/// What a front answers by itself.
enum Part {
    /// One template for each partition, in turn.
    Source(Vec<Template>),
    Sink {
        /// The next offset of each partition.
        ends: Mutex<BTreeMap<i32, i64>>,
    },
}

/// One batch, repeated for ever.
struct Template {
    batch: Bytes,
    records: i64,
}

/// A canned cluster.
pub(crate) struct Canned {
    broker: Broker,
    topic: String,
    part: Part,
    /// Record bytes of the data's topic that came in or went out.
    pub(crate) bytes: AtomicU64,
    /// Produce requests of it.
    pub(crate) requests: AtomicU64,
    held: Mutex<bool>,
    released: Condvar,
}

impl Canned {
    /// A source whose `topic` has `partitions` endless partitions of batches of about `batch_bytes`, in turn.
    pub(crate) fn source(
        topic: &str,
        partitions: i32,
        batch_bytes: &[usize],
    ) -> Result<Arc<Self>, Failure> {
        let broker = Broker::new(BrokerConfig {
            cluster_id: "canned-source".to_owned(),
            ..BrokerConfig::default()
        });
        broker.create_topic(topic, partitions, &[])?;
        Ok(Arc::new(Self {
            broker,
            topic: topic.to_owned(),
            part: Part::Source(
                batch_bytes
                    .iter()
                    .map(|bytes| Template::new(*bytes))
                    .collect::<Result<_, _>>()?,
            ),
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            held: Mutex::default(),
            released: Condvar::new(),
        }))
    }

    /// A target that throws away what comes for `topic`.
    pub(crate) fn sink(topic: &str) -> Arc<Self> {
        let broker = Broker::new(BrokerConfig {
            cluster_id: "canned-sink".to_owned(),
            ..BrokerConfig::default()
        });
        Arc::new(Self {
            broker,
            topic: topic.to_owned(),
            part: Part::Sink {
                ends: Mutex::default(),
            },
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            held: Mutex::default(),
            released: Condvar::new(),
        })
    }

    /// Partitions that something was produced to.
    pub(crate) fn partitions(&self) -> usize {
        match &self.part {
            Part::Source(_) => 0,
            Part::Sink { ends } => ends.lock().unwrap_or_else(PoisonError::into_inner).len(),
        }
    }

    /// Whether Produce requests have to wait for their answers.
    pub(crate) fn hold(&self, hold: bool) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = hold;
        self.released.notify_all();
    }

    /// Listens until the process ends.
    pub(crate) fn listen(
        self: &Arc<Self>,
        rt: &tokio::runtime::Runtime,
    ) -> Result<SocketAddr, Failure> {
        let kit = rt.block_on(self.broker.listen("127.0.0.1:0"))?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let front = listener.local_addr()?;
        self.broker.set_address("127.0.0.1", front.port());
        let canned = Arc::clone(self);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let canned = Arc::clone(&canned);
                std::thread::spawn(move || {
                    // A connection that its client ends is no failure.
                    let _ = canned.serve(client, kit);
                });
            }
        });
        Ok(front)
    }

    fn serve(&self, mut client: TcpStream, kit: SocketAddr) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut kit = TcpStream::connect(kit)?;
        kit.set_nodelay(true)?;
        let mut buffer = BytesMut::new();
        loop {
            let request = read_frame(&mut client, &mut buffer)?;
            let answer = match self.answer(request.clone()).map_err(io::Error::other)? {
                Some(answer) => answer,
                None => {
                    kit.write_all(&(request.len() as u32).to_be_bytes())?;
                    kit.write_all(&request)?;
                    read_frame(&mut kit, &mut BytesMut::new())?
                }
            };
            client.write_all(&(answer.len() as u32).to_be_bytes())?;
            client.write_all(&answer)?;
        }
    }

    /// The answer to a request for the data, from its correlation id on; none for the kit's requests.
    fn answer(&self, mut frame: Bytes) -> Result<Option<Bytes>, String> {
        let key = frame
            .get(..2)
            .and_then(|b| b.try_into().ok())
            .map(i16::from_be_bytes);
        let api = match (&self.part, key) {
            (Part::Source(_), Some(1)) => ApiKey::Fetch,
            (Part::Sink { .. }, Some(0)) => ApiKey::Produce,
            _ => return Ok(None),
        };
        let id = self.broker.topic_id(&self.topic);
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let header = decode_request_header_from_buffer(&mut frame).map_err(|e| text(&e))?;
        let version = header.request_api_version;
        let mut body = BytesMut::new();
        let head = ResponseHeader::default().with_correlation_id(header.correlation_id);
        head.encode(&mut body, api.response_header_version(version))
            .map_err(|e| text(&e))?;
        match &self.part {
            Part::Source(templates) => {
                let request = FetchRequest::decode(&mut frame, version).map_err(|e| text(&e))?;
                if !request.topics.iter().all(|t| Some(t.topic_id) == id) {
                    return Ok(None);
                }
                let response = self.fetch(templates, &request);
                response.encode(&mut body, version).map_err(|e| text(&e))?;
            }
            Part::Sink { ends } => {
                let request = ProduceRequest::decode(&mut frame, version).map_err(|e| text(&e))?;
                if !request.topic_data.iter().all(|t| Some(t.topic_id) == id) {
                    return Ok(None);
                }
                let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                drop(self.released.wait_while(held, |held| *held));
                let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
                let response = self.produce(&mut ends, &request);
                response.encode(&mut body, version).map_err(|e| text(&e))?;
            }
        }
        Ok(Some(body.freeze()))
    }

    fn fetch(&self, templates: &[Template], request: &FetchRequest) -> FetchResponse {
        let mut room = request.max_bytes.max(0) as usize;
        let mut first = true;
        let mut topics = Vec::new();
        for topic in &request.topics {
            let mut partitions = Vec::new();
            for wanted in &topic.partitions {
                let most = room.min(wanted.partition_max_bytes.max(0) as usize);
                let template = &templates[wanted.partition as usize % templates.len()];
                // A broker gives at least one batch of the first partition that has any; of others what fits.
                let records = if !first && most < template.batch.len() {
                    Bytes::new()
                } else {
                    template.records(wanted.fetch_offset, most)
                };
                first = false;
                room = room.saturating_sub(records.len());
                self.bytes
                    .fetch_add(records.len() as u64, Ordering::Relaxed);
                let data = PartitionData::default()
                    .with_partition_index(wanted.partition)
                    .with_high_watermark(END)
                    .with_last_stable_offset(END)
                    .with_log_start_offset(0)
                    .with_preferred_read_replica(BrokerId(-1))
                    .with_records(Some(records));
                partitions.push(data);
            }
            let answer = FetchableTopicResponse::default()
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions);
            topics.push(answer);
        }
        FetchResponse::default().with_responses(topics)
    }

    fn produce(&self, ends: &mut BTreeMap<i32, i64>, request: &ProduceRequest) -> ProduceResponse {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut topics = Vec::new();
        for topic in &request.topic_data {
            let mut partitions = Vec::new();
            for data in &topic.partition_data {
                let batch = data.records.as_deref().unwrap_or_default();
                let delta = batch
                    .get(LAST_DELTA..LAST_DELTA + 4)
                    .and_then(|b| b.try_into().ok())
                    .map_or(0, i32::from_be_bytes);
                let end = ends
                    .entry(data.index)
                    .or_insert_with(|| self.broker.log_end(&self.topic, data.index));
                let answer = PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_base_offset(*end)
                    .with_log_start_offset(0);
                *end += i64::from(delta) + 1;
                self.bytes.fetch_add(batch.len() as u64, Ordering::Relaxed);
                partitions.push(answer);
            }
            let answer = TopicProduceResponse::default()
                .with_topic_id(topic.topic_id)
                .with_partition_responses(partitions);
            topics.push(answer);
        }
        ProduceResponse::default().with_responses(topics)
    }
}

impl Template {
    /// Uncompressed records of 1,000 bytes, in one batch of up to `batch_bytes`.
    fn new(batch_bytes: usize) -> Result<Self, Failure> {
        let records = (batch_bytes / 1_012).max(1);
        let mut builder = BatchBuilder::new(Codec::None);
        for number in 0..records {
            builder.push(Record {
                offset: 0,
                timestamp: 1_700_000_000_000,
                key: None,
                value: Some(vec![number as u8; 1_000].into()),
                headers: Vec::new(),
            });
        }
        let stamp = Stamp {
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        };
        let mut batch = BytesMut::from(&builder.build(stamp)?[..]);
        if let Some(epoch) = batch.get_mut(LEADER_EPOCH..LEADER_EPOCH + 4) {
            epoch.fill(0);
        }
        Ok(Self {
            batch: batch.freeze(),
            records: records as i64,
        })
    }

    /// The batches from the one that holds `offset` on, whole ones, one at least.
    fn records(&self, offset: i64, most: usize) -> Bytes {
        let count = (most / self.batch.len()).max(1);
        let mut records = BytesMut::with_capacity(count * self.batch.len());
        let mut base = offset - offset % self.records;
        for _ in 0..count {
            // The base offset comes first and is not covered by the checksum.
            records.extend_from_slice(&base.to_be_bytes());
            records.extend_from_slice(self.batch.get(8..).unwrap_or_default());
            base += self.records;
        }
        records.freeze()
    }
}

/// One frame without its length; the buffer is used again once nothing of the last frame is left.
fn read_frame(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    buffer.resize(length, 0);
    stream.read_exact(buffer)?;
    Ok(buffer.split().freeze())
}
