//! The harness itself, on real Kafka: what a test writes survives kills, is read back as it was, and differences are seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use strait_testkit::kafka::{
    Codec, DumpOptions, HarnessError, HeaderSpec, Isolation, KafkaCluster, KafkaOptions, Offsets,
    Oracle, RecordSpec, TransactionSpec, Version, Workload,
};

const NOW: Duration = Duration::ZERO;

/// Waits until this holds.
fn until(what: &str, done: &dyn Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(180), "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Waits until no transaction is open in the topic.
fn settled(oracle: &Oracle, kafka: &str, topic: &str) {
    until("a transaction stays open", &|| {
        !oracle.has_open_transaction(kafka, topic).unwrap()
    });
}

#[test]
fn a_killed_and_a_stopped_broker_come_back_with_their_data() {
    let oracle = Oracle::shared().unwrap();
    let cluster = KafkaCluster::start(KafkaOptions::new()).unwrap();
    let kafka = cluster.bootstrap();
    oracle.create_topic(&kafka, "orders", 3, 1, &[]).unwrap();
    let workload = Workload::new("orders")
        .codec(Codec::Zstd)
        .headers(HeaderSpec::Odd)
        .null_value_every(7)
        .seed(11);
    let report = oracle.produce(&kafka, &workload, 3_000).unwrap();
    assert_eq!((report.acked, report.failed), (3_000, 0), "{report:?}");
    let before = oracle
        .digest(&kafka, "orders", Isolation::ReadCommitted)
        .unwrap();
    assert_eq!(before.count(), 3_000);

    let first = cluster.pid(0).unwrap();
    cluster.kill9(0).unwrap();
    assert_eq!(cluster.pid(0), None);
    cluster.restart(0).unwrap();
    assert_ne!(cluster.pid(0), Some(first));
    assert_eq!(
        oracle
            .digest(&kafka, "orders", Isolation::ReadCommitted)
            .unwrap(),
        before
    );

    cluster.stop(0).unwrap();
    cluster.restart(0).unwrap();
    assert_eq!(
        oracle
            .digest(&kafka, "orders", Isolation::ReadCommitted)
            .unwrap(),
        before
    );
}

#[test]
fn a_background_producer_outlives_the_kill_of_its_broker() {
    let oracle = Oracle::shared().unwrap();
    let cluster = KafkaCluster::start(KafkaOptions::new().nice(5)).unwrap();
    let kafka = cluster.bootstrap();
    oracle.create_topic(&kafka, "ticks", 2, 1, &[]).unwrap();
    let producer = oracle
        .start_producer(
            &kafka,
            &Workload::new("ticks").rate(2_000.0).codec(Codec::Lz4),
        )
        .unwrap();
    let acked = |more_than: u64| {
        let begun = Instant::now();
        while producer.progress().unwrap().acked <= more_than {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{:?}",
                producer.progress()
            );
        }
        producer.progress().unwrap().acked
    };
    let before = acked(500);
    cluster.kill9(0).unwrap();
    cluster.restart(0).unwrap();
    acked(before + 500);
    let report = producer.stop().unwrap();
    assert_eq!(
        (report.failed, report.acked),
        (0, report.next_id),
        "{report:?}"
    );
    let dump = oracle
        .digest(&kafka, "ticks", Isolation::ReadUncommitted)
        .unwrap();
    assert!(
        dump.count() >= report.acked,
        "{} of {}",
        dump.count(),
        report.acked
    );
}

#[test]
fn aborted_and_open_transactions_are_invisible_to_read_committed() {
    let oracle = Oracle::shared().unwrap();
    let [cluster, _] = KafkaCluster::shared_pair().unwrap();
    let kafka = cluster.bootstrap();
    oracle.create_topic(&kafka, "payments", 1, 1, &[]).unwrap();
    let count = |isolation| {
        oracle
            .digest(&kafka, "payments", isolation)
            .unwrap()
            .count()
    };

    let workload =
        Workload::new("payments").transaction(TransactionSpec::new("harness", 100).abort_every(3));
    let report = oracle.produce(&kafka, &workload, 900).unwrap();
    assert_eq!((report.acked, report.aborted), (600, 300), "{report:?}");
    settled(&oracle, &kafka, "payments");
    assert_eq!(count(Isolation::ReadCommitted), 600);
    assert_eq!(count(Isolation::ReadUncommitted), 900);
    let markers = cluster
        .stored_batches(0, "payments", 0)
        .unwrap()
        .iter()
        .filter(|batch| batch.is_control())
        .count();
    assert_eq!(markers, 9);

    let more = Workload::new("payments").first_id(900);
    let open = oracle
        .produce_open(&kafka, &more, 50, "harness-open")
        .unwrap();
    assert_eq!(count(Isolation::ReadCommitted), 600);
    assert_eq!(count(Isolation::ReadUncommitted), 950);
    let stable = oracle
        .offsets(&kafka, "payments", Isolation::ReadCommitted)
        .unwrap();
    let end = oracle
        .offsets(&kafka, "payments", Isolation::ReadUncommitted)
        .unwrap();
    assert_eq!((stable[0].end, end[0].end), (909, 959));
    open.commit().unwrap();
    settled(&oracle, &kafka, "payments");
    assert_eq!(count(Isolation::ReadCommitted), 650);
}

#[test]
fn records_are_read_back_as_they_were_sent() {
    let oracle = Oracle::shared().unwrap();
    let [cluster, _] = KafkaCluster::shared_pair().unwrap();
    let kafka = cluster.bootstrap();
    oracle
        .create_topic(&kafka, "spelled-out", 1, 1, &[])
        .unwrap();
    let full = RecordSpec {
        partition: 0,
        key: Some(b"k".to_vec()),
        value: Some(vec![0, 255, 128]),
        headers: vec![
            ("twice".into(), Some(b"b".to_vec())),
            ("none".into(), None),
            ("twice".into(), Some(vec![])),
        ],
        timestamp: Some(1_000_000_000_000),
    };
    let bare = RecordSpec {
        timestamp: Some(5),
        ..RecordSpec::default()
    };
    for codec in Codec::ALL {
        oracle
            .send(&kafka, "spelled-out", codec, &[full.clone(), bare.clone()])
            .unwrap();
    }
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let dump = oracle
        .dump(&kafka, "spelled-out", Isolation::ReadUncommitted, options)
        .unwrap();
    let records = &dump.partitions[0].records;
    assert_eq!(records.len(), 10);
    for (index, pair) in records.chunks(2).enumerate() {
        assert_eq!(pair[0].offset, 2 * index as i64);
        assert_eq!(
            (&pair[0].key, &pair[0].value, pair[0].timestamp),
            (&full.key, &full.value, 1_000_000_000_000)
        );
        let headers: Vec<_> = pair[0]
            .headers
            .iter()
            .map(|(key, value)| (key.clone(), value.0.clone()))
            .collect();
        assert_eq!(headers, full.headers);
        assert_eq!(
            (&pair[1].key, &pair[1].value, pair[1].timestamp),
            (&None, &None, 5)
        );
        assert_eq!(pair[0].hash, records[0].hash);
    }
    let batches = cluster.stored_batches(0, "spelled-out", 0).unwrap();
    let codecs: Vec<i16> = batches.iter().map(|batch| batch.codec()).collect();
    assert_eq!(codecs, [0, 1, 2, 3, 4]);
    assert_eq!(batches.iter().map(|batch| batch.count).sum::<i32>(), 10);
    let stored: usize = batches.iter().map(|batch| batch.stored_bytes()).sum();
    assert_eq!(
        oracle.stored_bytes(&kafka, "spelled-out").unwrap(),
        [stored as u64]
    );
}

#[test]
fn a_comparison_names_what_is_lost_doubled_foreign_and_reordered() {
    let oracle = Oracle::shared().unwrap();
    let [left, right] = KafkaCluster::shared_pair().unwrap();
    let (left, right) = (left.bootstrap(), right.bootstrap());
    let record = |n: i64| RecordSpec {
        value: Some(format!("record {n}").into_bytes()),
        timestamp: Some(1_000 + n),
        ..RecordSpec::default()
    };
    let compare = |topic: &str, a: &[i64], b: &[i64]| {
        for (bootstrap, numbers) in [(&left, a), (&right, b)] {
            oracle.create_topic(bootstrap, topic, 1, 1, &[]).unwrap();
            let records: Vec<_> = numbers.iter().map(|n| record(*n)).collect();
            oracle
                .send(bootstrap, topic, Codec::Gzip, &records)
                .unwrap();
        }
        oracle
            .compare(
                (&left, topic),
                (&right, topic),
                Isolation::ReadCommitted,
                NOW,
            )
            .unwrap()
    };
    let same = compare("same", &[0, 1, 2], &[0, 1, 2]);
    assert!(same.equal, "{same}");

    let lost = compare("lost", &[0, 1, 2, 3], &[0, 2, 3]);
    let p = &lost.partitions[0];
    assert_eq!(
        (lost.equal, p.lost, p.doubled, p.foreign, p.reordered),
        (false, 1, 0, 0, false),
        "{lost}"
    );
    assert_eq!(p.lost_left_offsets, [1]);
    let first = p.first.as_ref().unwrap();
    assert_eq!(
        (first.index, first.left_offset, first.right_offset),
        (1, 1, 1)
    );
    assert!(
        first.left.as_ref().unwrap().contains("'record 1'"),
        "{lost}"
    );

    let doubled = compare("doubled", &[0, 1, 2], &[0, 1, 1, 2]);
    let p = &doubled.partitions[0];
    assert_eq!(
        (
            p.lost,
            p.doubled,
            p.foreign,
            p.doubled_right_offsets.as_slice()
        ),
        (0, 1, 0, &[2][..]),
        "{doubled}"
    );

    let tail = compare("tail-doubled", &[0, 1, 2], &[0, 1, 2, 0]);
    let p = &tail.partitions[0];
    assert_eq!(
        (
            p.lost,
            p.doubled,
            p.foreign,
            p.doubled_right_offsets.as_slice()
        ),
        (0, 1, 0, &[3][..]),
        "{tail}"
    );

    let changed = compare("changed", &[0, 1, 2], &[0, 9, 2]);
    let p = &changed.partitions[0];
    assert_eq!(
        (
            p.lost,
            p.doubled,
            p.foreign,
            p.foreign_right_offsets.as_slice()
        ),
        (1, 0, 1, &[1][..]),
        "{changed}"
    );

    let reordered = compare("reordered", &[0, 1, 2], &[0, 2, 1]);
    let p = &reordered.partitions[0];
    assert_eq!(
        (p.equal, p.lost, p.doubled, p.foreign, p.reordered),
        (false, 0, 0, 0, true),
        "{reordered}"
    );
}

#[test]
fn a_comparison_waits_for_the_slower_side() {
    let oracle = Oracle::shared().unwrap();
    let [left, right] = KafkaCluster::shared_pair().unwrap();
    let (left, right) = (left.bootstrap(), right.bootstrap());
    for bootstrap in [&left, &right] {
        oracle.create_topic(bootstrap, "late", 2, 1, &[]).unwrap();
    }
    let workload = Workload::new("late").timestamps(1_000, 1).seed(3);
    oracle.produce(&left, &workload, 4_000).unwrap();
    let slow = oracle
        .start_producer(&right, &workload.clone().rate(8_000.0))
        .unwrap();
    let wait = Duration::from_secs(60);
    // The right side goes past the left: seen as more records, never as a loss.
    let result = oracle
        .compare(
            (&left, "late"),
            (&right, "late"),
            Isolation::ReadCommitted,
            wait,
        )
        .unwrap();
    slow.stop().unwrap();
    for partition in &result.partitions {
        assert!(partition.right_count >= partition.left_count, "{result}");
        assert_eq!((partition.lost, partition.doubled), (0, 0), "{result}");
    }
}

#[test]
fn an_administrator_s_actions_show() {
    let oracle = Oracle::shared().unwrap();
    let [cluster, _] = KafkaCluster::shared_pair().unwrap();
    let kafka = cluster.bootstrap();
    let id = oracle
        .create_topic(&kafka, "managed", 1, 1, &[("retention.ms", "60000")])
        .unwrap();
    oracle
        .alter_topic_configs(
            &kafka,
            "managed",
            &[("cleanup.policy", "compact")],
            &["retention.ms"],
        )
        .unwrap();
    oracle.create_partitions(&kafka, "managed", 3).unwrap();
    let topic = oracle.describe_topic(&kafka, "managed").unwrap();
    assert_eq!((topic.id, topic.partitions.len()), (id, 3));
    let policy = &topic.configs["cleanup.policy"];
    assert_eq!(
        (policy.value.as_deref(), policy.set_on_topic),
        (Some("compact"), true)
    );
    assert!(!topic.configs["retention.ms"].set_on_topic);

    oracle.create_topic(&kafka, "trimmed", 1, 1, &[]).unwrap();
    oracle
        .produce(&kafka, &Workload::new("trimmed"), 10)
        .unwrap();
    assert_eq!(oracle.delete_records(&kafka, "trimmed", 0, 4).unwrap(), 4);
    let offsets = oracle
        .offsets(&kafka, "trimmed", Isolation::ReadUncommitted)
        .unwrap();
    assert_eq!(offsets, [Offsets { start: 4, end: 10 }]);
    oracle
        .commit_offsets(&kafka, "readers", &[("trimmed", 0, 7)])
        .unwrap();
    let committed = oracle.committed_offsets(&kafka, "readers").unwrap();
    assert_eq!(
        committed.into_iter().collect::<Vec<_>>(),
        [(("trimmed".to_owned(), 0), 7)]
    );

    oracle.delete_topic(&kafka, "trimmed").unwrap();
    until("the topic is still there", &|| {
        let topics = oracle.list_topics(&kafka).unwrap();
        !topics.contains(&"trimmed".to_owned())
    });
    let refused = oracle
        .create_topic(&kafka, "managed", 1, 1, &[])
        .unwrap_err();
    assert!(
        matches!(&refused, HarnessError::Refused { error, .. } if error.contains("TopicExists")),
        "{refused}"
    );
}

#[test]
fn the_leader_of_three_nodes_is_killed_and_its_records_stay() {
    let oracle = Oracle::shared().unwrap();
    let cluster = KafkaCluster::start(KafkaOptions::new().nodes(3)).unwrap();
    let kafka = cluster.bootstrap();
    oracle
        .create_topic(&kafka, "kept", 1, 3, &[("min.insync.replicas", "2")])
        .unwrap();
    oracle
        .produce(&kafka, &Workload::new("kept"), 1_000)
        .unwrap();
    let before = oracle
        .digest(&kafka, "kept", Isolation::ReadCommitted)
        .unwrap();
    let leader = oracle.describe_topic(&kafka, "kept").unwrap().partitions[0].leader;
    let node = usize::try_from(leader - 1).unwrap();
    cluster.kill9(node).unwrap();
    assert_eq!(
        oracle
            .digest(&kafka, "kept", Isolation::ReadCommitted)
            .unwrap(),
        before
    );
    oracle
        .produce(&kafka, &Workload::new("kept").first_id(1_000), 10)
        .unwrap();
    cluster.restart(node).unwrap();
    let after = oracle
        .digest(&kafka, "kept", Isolation::ReadCommitted)
        .unwrap();
    assert_eq!(after.count(), 1_010);
}

#[test]
fn secured_listeners_admit_kafka_s_own_client_and_refuse_a_wrong_password() {
    let oracle = Oracle::shared().unwrap();
    let options = KafkaOptions::new().ssl().sasl_user("alice", "alice-secret");
    let cluster = KafkaCluster::start(options).unwrap();
    oracle
        .create_topic(&cluster.bootstrap(), "secured", 1, 1, &[])
        .unwrap();
    let trust = format!(
        "ssl.truststore.type=PEM\nssl.truststore.location={}",
        cluster.ca_file().unwrap().display()
    );
    let login = |mechanism: &str, module: &str, password: &str| {
        format!(
            "sasl.mechanism={mechanism}\nsasl.jaas.config=org.apache.kafka.common.security.{module}LoginModule required \
             username=\"alice\" password=\"{password}\";"
        )
    };
    let (ssl, sasl, both) = (
        cluster.ssl_bootstrap(),
        cluster.sasl_bootstrap(),
        cluster.sasl_ssl_bootstrap(),
    );
    let plain = login("PLAIN", "plain.Plain", "alice-secret");
    let scram = login("SCRAM-SHA-512", "scram.Scram", "alice-secret");
    for connection in [
        format!("{}\nsecurity.protocol=SSL\n{trust}", ssl[0]),
        format!("{}\nsecurity.protocol=SASL_PLAINTEXT\n{plain}", sasl[0]),
        format!("{}\nsecurity.protocol=SASL_PLAINTEXT\n{scram}", sasl[0]),
        format!("{}\nsecurity.protocol=SASL_SSL\n{trust}\n{scram}", both[0]),
    ] {
        assert_eq!(
            oracle.list_topics(&connection).unwrap(),
            ["secured"],
            "{connection}"
        );
    }
    let wrong = login("SCRAM-SHA-256", "scram.Scram", "guessed");
    let refused = oracle
        .list_topics(&format!(
            "{}\nsecurity.protocol=SASL_PLAINTEXT\n{wrong}",
            sasl[0]
        ))
        .unwrap_err();
    assert!(
        refused.to_string().contains("SaslAuthentication"),
        "{refused}"
    );
}

#[test]
fn the_older_release_runs_too() {
    let oracle = Oracle::shared().unwrap();
    let cluster = KafkaCluster::start(KafkaOptions::new().version(Version::V3_9)).unwrap();
    let kafka = cluster.bootstrap();
    oracle.create_topic(&kafka, "older", 1, 1, &[]).unwrap();
    oracle
        .produce(&kafka, &Workload::new("older").codec(Codec::Snappy), 100)
        .unwrap();
    assert_eq!(
        oracle
            .digest(&kafka, "older", Isolation::ReadCommitted)
            .unwrap()
            .count(),
        100
    );
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let refused =
        KafkaCluster::start(KafkaOptions::new().property("num.io.threads", "none")).unwrap_err();
    assert!(
        matches!(&refused, HarnessError::NodeEnded { tail, .. } if tail.contains("num.io.threads")),
        "{refused}"
    );
}

#[test]
fn without_setup_a_test_fails_and_names_it() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["the_older_release_runs_too", "--exact", "--nocapture"])
        .env("STRAIT_KAFKA_DIR", empty.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("run `just setup`"),
        "{said}"
    );
}

/// What the test below runs as a process of its own; nothing by itself.
#[test]
fn abandoned_child() {
    let Some(told) = std::env::var_os("STRAIT_HARNESS_TELL").map(PathBuf::from) else {
        return;
    };
    let cluster = KafkaCluster::start(KafkaOptions::new()).unwrap();
    let log = cluster.log_file(0).unwrap();
    std::fs::write(
        told.with_extension("new"),
        format!("{}\n{}", cluster.pid(0).unwrap(), log.display()),
    )
    .unwrap();
    std::fs::rename(told.with_extension("new"), &told).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_is_left_of_a_killed_test_process() {
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["abandoned_child", "--exact"])
        .env("STRAIT_HARNESS_TELL", &told)
        .env_remove("STRAIT_KAFKA_KEEP")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the child started no cluster", &|| told.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let text = std::fs::read_to_string(&told).unwrap();
    let (pid, log) = text.split_once('\n').unwrap();
    let data = Path::new(log).parent().unwrap().parent().unwrap();
    until("the node lives on", &|| {
        !Path::new("/proc").join(pid).join("cwd").is_dir()
    });
    until("the node's data is still there", &|| !data.exists());
}
