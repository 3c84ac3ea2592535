//! Where targets begin: batches and sets that Kafka's own classes made, and what is in `testdata/fuzz`, which
//! `STRAIT_BLESS=1` writes anew with the encoders of kafka-protocol, of the test kit and of Strait.

use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    self as theirs, ApiVersionsResponse, BrokerId, MetadataRequest, ProducerId, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use strait_net::Call;
use strait_testkit::KitRecord;
use strait_testkit::codec::Codec;
use strait_testkit::records::{BatchSpec, HEADER_LEN};
use strait_wire::{
    Checkpoint, FetchRequest, GapReason, Heartbeat, Isolation, Losses, OffsetSync, Position,
    PositionFlags, ProduceRequest, RegistryRecord, SyncKind, SyncRecord,
};
use uuid::Uuid;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn directory(name: &str) -> PathBuf {
    root().join("testdata/fuzz").join(name)
}

fn golden(under: &str) -> Vec<Vec<u8>> {
    files(&root().join("crates/strait-wire/tests/golden").join(under))
}

/// The `.bin` files of a directory in the order of their names.
fn files(dir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "bin"));
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// The corpus of a target; never empty.
pub(crate) fn of(name: &str) -> Vec<Vec<u8>> {
    if std::env::var_os("STRAIT_BLESS").is_some() {
        bless(name);
    }
    let mut corpus = files(&directory(name));
    match name {
        "entries" | "join" => {
            let batches = golden("");
            corpus.push(batches.concat());
            corpus.extend(batches);
        }
        "message" => corpus.extend(golden("legacy")),
        _ => {}
    }
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus
}

fn bless(name: &str) {
    let made = match name {
        "join" => vec![
            joinable(Codec::None),
            joinable(Codec::Gzip),
            joinable(Codec::Zstd),
        ],
        "records" => records(),
        "message_set" => message_sets(),
        "fetch" => (FetchRequest::MIN_VERSION..=FetchRequest::MAX_VERSION)
            .map(fetch)
            .collect(),
        "produce" => (ProduceRequest::MIN_VERSION..=ProduceRequest::MAX_VERSION)
            .map(produce)
            .collect(),
        "control" => vec![api_versions(0), api_versions(4)],
        "metadata" => (MetadataRequest::MIN..=MetadataRequest::MAX)
            .map(metadata)
            .collect(),
        "scram" => logins(),
        "sync" => vec![sync()],
        "registry" => registry(),
        "mm2" => mm2(),
        _ => return,
    };
    let dir = directory(name);
    std::fs::create_dir_all(&dir).unwrap();
    for (index, bytes) in made.iter().enumerate() {
        std::fs::write(dir.join(format!("{index:02}.bin")), bytes).unwrap();
    }
}

fn kit_records() -> Vec<KitRecord> {
    vec![
        KitRecord::new(1_700_000_000_000, Some(b"key"), Some(b"value"))
            .header("h", Some(b"1"))
            .header("h", None),
        KitRecord::new(1_700_000_000_777, None, Some(&[7; 200])),
        KitRecord::new(-1, Some(b""), None),
    ]
}

fn joinable(codec: Codec) -> Vec<u8> {
    let spec = |base_offset| BatchSpec {
        base_offset,
        leader_epoch: 3,
        codec,
        ..BatchSpec::default()
    };
    [0, 3, 6]
        .map(|base| spec(base).build(&kit_records()).unwrap())
        .concat()
}

fn records() -> Vec<Vec<u8>> {
    let dense = BatchSpec::default().build(&kit_records()).unwrap();
    let mut all = Vec::new();
    for codec in 0..5 {
        all.push([&[codec, 2, 3, 1], &dense[HEADER_LEN..]].concat());
        let codec_of = Codec::from_id(codec.into()).unwrap();
        let packed = codec_of.compress(&dense[HEADER_LEN..]).unwrap();
        all.push([&[codec | 0x80, 2, 3, 1], &packed[..]].concat());
    }
    let kit = kit_records();
    let holes = BatchSpec::default()
        .encode(&[(2, &kit[0]), (5, &kit[1])])
        .unwrap();
    all.push([&[0x48, 6, 2, 3], &holes[HEADER_LEN..]].concat());
    all
}

fn message_sets() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (magic, file) in [(0u8, "v0_none.bin"), (1, "v1_none.bin")] {
        let path = root()
            .join("crates/strait-wire/tests/golden/legacy")
            .join(file);
        let mut inner = std::fs::read(path).unwrap();
        let mut at = 0;
        for offset in 0..3i64 {
            inner[at..at + 8].copy_from_slice(&offset.to_be_bytes());
            at += 12 + i32::from_be_bytes(inner[at + 8..at + 12].try_into().unwrap()) as usize;
        }
        for codec in 0..4 {
            all.push([&[magic << 6 | codec, 2], &inner[..]].concat());
        }
    }
    all
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

fn encoded(head: &[u8], response: &impl Encodable, version: i16) -> Vec<u8> {
    let mut out = BytesMut::from(head);
    response.encode(&mut out, version).unwrap();
    out.to_vec()
}

fn fetch(version: i16) -> Vec<u8> {
    let records = BatchSpec::default().build(&kit_records()).unwrap();
    let aborted = AbortedTransaction::default()
        .with_producer_id(ProducerId(7))
        .with_first_offset(3);
    let mut data = PartitionData::default()
        .with_partition_index(1)
        .with_high_watermark(9)
        .with_last_stable_offset(9)
        .with_aborted_transactions(Some(vec![aborted.clone(), aborted]))
        .with_records(Some(records));
    if version >= 5 {
        data = data.with_log_start_offset(2);
    }
    if version >= 12 {
        data =
            data.with_diverging_epoch(EpochEndOffset::default().with_epoch(3).with_end_offset(5));
    }
    let mut topics = FetchableTopicResponse::default().with_partitions(vec![data.clone(), data]);
    topics = match version {
        ..13 => topics.with_topic(topic()),
        _ => topics.with_topic_id(Uuid::from_bytes([0x11; 16])),
    };
    let response = theirs::FetchResponse::default().with_responses(vec![topics.clone(), topics]);
    encoded(
        &[(version - FetchRequest::MIN_VERSION) as u8],
        &response,
        version,
    )
}

fn produce(version: i16) -> Vec<u8> {
    let mut data = PartitionProduceResponse::default()
        .with_index(1)
        .with_base_offset(77);
    if version >= 8 {
        let message = || Some(StrBytes::from_static_str("too large"));
        let error = BatchIndexAndErrorMessage::default()
            .with_batch_index(2)
            .with_batch_index_error_message(message());
        data = data
            .with_record_errors(vec![error.clone(), error])
            .with_error_message(message());
    }
    let mut topics =
        TopicProduceResponse::default().with_partition_responses(vec![data.clone(), data]);
    topics = match version {
        ..13 => topics.with_name(topic()),
        _ => topics.with_topic_id(Uuid::from_bytes([0x11; 16])),
    };
    let response = theirs::ProduceResponse::default().with_responses(vec![topics]);
    encoded(
        &[(version - ProduceRequest::MIN_VERSION) as u8],
        &response,
        version,
    )
}

/// The other answers of the control plane are written by `strait-net`'s tests of their shapes.
fn api_versions(version: i16) -> Vec<u8> {
    let api = theirs::api_versions_response::ApiVersion::default()
        .with_api_key(1)
        .with_max_version(17);
    let response = ApiVersionsResponse::default().with_api_keys(vec![api; 3]);
    encoded(&[0, version as u8], &response, version)
}

fn metadata(version: i16) -> Vec<u8> {
    let ids = || vec![BrokerId(1), BrokerId(2)];
    let mut partition = MetadataResponsePartition::default()
        .with_partition_index(3)
        .with_leader_id(BrokerId(1))
        .with_replica_nodes(ids())
        .with_isr_nodes(ids());
    if version >= 7 {
        partition = partition.with_leader_epoch(9);
    }
    let named = |name| MetadataResponseTopic::default().with_name(name);
    let topics = vec![
        named(Some(topic())).with_partitions(vec![partition.clone(), partition]),
        named(Some(TopicName::default())).with_error_code(3),
    ];
    let broker = |id| MetadataResponseBroker::default().with_node_id(BrokerId(id));
    let host = StrBytes::from_static_str("b1.example");
    let response = theirs::MetadataResponse::default()
        .with_brokers(vec![broker(1).with_host(host).with_port(9092), broker(2)])
        .with_cluster_id(Some(StrBytes::from_static_str("cluster")))
        .with_controller_id(BrokerId(2))
        .with_topics(topics);
    let mut head = vec![(version - MetadataRequest::MIN) as u8];
    if version >= 9 {
        // No tagged fields in the header.
        head.push(0);
    }
    encoded(&head, &response, version)
}

/// The example of RFC 7677, and servers that say less, more or no.
fn logins() -> Vec<Vec<u8>> {
    const FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    let login = |sha512: u8, first: &str, last: &str| {
        [
            &[sha512, first.len() as u8],
            first.as_bytes(),
            last.as_bytes(),
        ]
        .concat()
    };
    vec![
        login(0, FIRST, LAST),
        login(1, FIRST, LAST),
        login(0, &FIRST.replace("4096", "262144"), "e=invalid-proof"),
        login(1, &format!("m=ext,{FIRST},x=y"), &format!("{LAST},x=y")),
        login(0, "e=unknown-user", ""),
    ]
}

fn sized(key: &[u8], value: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut out = vec![key.len() as u8, value.len() as u8];
    for part in [key, value, rest] {
        out.put_slice(part);
    }
    out
}

fn sync() -> Vec<u8> {
    let mut lost = Losses::default();
    lost.add(GapReason::Refused, 3, 4);
    lost.add(GapReason::Expired, 7, 9);
    let position = Position {
        kind: SyncKind::Periodic,
        isolation: Isolation::ReadCommitted,
        flags: PositionFlags::default(),
        source_next: 12,
        target_next: 9,
        forwarded: 9,
        producer_id: 4_000,
        producer_epoch: 3,
        next_sequence: 9,
        source_epoch: 2,
        source_topic_id: Uuid::from_bytes([0x11; 16]),
        target_topic_id: Uuid::from_bytes([0x22; 16]),
        target_partition: 1,
        wall_ms: 1_700_000_000_000,
        target_topic: "paris.orders".into(),
        link: "paris->tokyo".into(),
        gaps: vec![(GapReason::Expired, 2), (GapReason::Refused, 1)],
        lost,
    };
    let sync = SyncRecord {
        topic: "orders".into(),
        partition: 1,
        upstream: 11,
        downstream: 8,
        position: Some(position),
    };
    let record = sync.to_record(0);
    let position = record.headers[0].1.clone().unwrap_or_default();
    sized(&record.key.unwrap(), &record.value.unwrap(), &position)
}

fn registry() -> Vec<Vec<u8>> {
    let link = || "paris->tokyo".to_owned();
    let (source_cluster, target_cluster) = ("c1".to_owned(), "c2".to_owned());
    let all = [
        RegistryRecord::Link {
            link: link(),
            source_cluster: source_cluster.clone(),
            target_cluster: target_cluster.clone(),
            shards: 1,
            created_ms: 5,
        },
        RegistryRecord::Producer {
            producer_id: 7,
            link: link(),
            shard: 0,
            highest_epoch: 3,
            source_cluster,
            target_cluster,
        },
        RegistryRecord::Lease {
            link: link(),
            shard: 0,
            producer_id: 7,
            epoch: 3,
            instance: "n1".into(),
            wall_ms: 5,
            closed: true,
        },
        RegistryRecord::Ladder {
            link: link(),
            topic: "orders".into(),
            partition: 1,
            rungs: vec![(1, 2, 3); 4],
        },
        RegistryRecord::Selection {
            link: link(),
            includes: vec!["orders.*".into(), "a".into()],
            wall_ms: 5,
        },
    ];
    let records = all.iter().map(|record| record.to_record(0));
    records
        .map(|record| sized(&record.key.unwrap(), &record.value.unwrap(), &[]))
        .collect()
}

fn mm2() -> Vec<Vec<u8>> {
    let sync = OffsetSync {
        topic: "orders".into(),
        partition: 1,
        upstream: 11,
        downstream: 8,
    };
    let checkpoint = Checkpoint {
        group: "g".into(),
        topic: "paris.orders".into(),
        partition: 1,
        upstream: 11,
        downstream: 8,
        metadata: "m".into(),
    };
    let heartbeat = Heartbeat {
        source: "paris".into(),
        target: "tokyo".into(),
        timestamp: 5,
    };
    let pairs: [(Bytes, Bytes); 3] = [
        (sync.key(), sync.value()),
        (checkpoint.key(), checkpoint.value()),
        (heartbeat.key(), heartbeat.value()),
    ];
    pairs
        .iter()
        .map(|(key, value)| sized(key, value, &[]))
        .collect()
}
