//! What scripts and operators rely on: signals and exit codes, pages, names, start positions, MirrorMaker 2 files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod look;
mod outcome;
mod page;
mod rig;

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use outcome::{count, lines, run_text};
use rig::{Mirror, STOPS_WITHIN, free_port, pass, wait_until, west_to_east};
use rustix::process::Signal;
use strait_testkit::kafka::{
    Codec, DumpOptions, Isolation, KafkaCluster, Oracle, RecordSpec, Workload,
};
use strait_testkit::{Broker, BrokerConfig, Fault, KitRecord, Rule};

const SOON: Duration = Duration::from_secs(60);
const PRODUCE: i16 = 0;
/// Records are older than the time brokers keep them by default.
const FOREVER: (&str, &str) = ("retention.ms", "-1");

fn clusters() -> (Oracle, String, String) {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    (
        Oracle::shared().unwrap(),
        west.bootstrap(),
        east.bootstrap(),
    )
}

fn assert_equal(oracle: &Oracle, west: (&str, &str), east: (&str, &str)) {
    wait_until("the topic is there", SOON, || {
        oracle
            .list_topics(east.0)
            .unwrap()
            .iter()
            .any(|t| t == east.1)
    });
    let compared = oracle
        .compare(west, east, Isolation::ReadCommitted, SOON)
        .unwrap();
    assert!(compared.equal, "{}: {compared}", west.1);
}

fn end(oracle: &Oracle, kafka: &str, topic: &str) -> i64 {
    let offsets = oracle.offsets(kafka, topic, Isolation::ReadUncommitted);
    offsets.unwrap().iter().map(|o| o.end).sum()
}

/// The values of a topic's only partition, in order.
fn values(oracle: &Oracle, kafka: &str, topic: &str) -> Vec<String> {
    let options = DumpOptions {
        records: true,
        ..DumpOptions::default()
    };
    let dump = oracle
        .dump(kafka, topic, Isolation::ReadCommitted, options)
        .unwrap();
    let text = |value: &Option<Vec<u8>>| String::from_utf8(value.clone().unwrap()).unwrap();
    dump.partitions[0]
        .records
        .iter()
        .map(|r| text(&r.value))
        .collect()
}

/// One record with this value, written at this time.
fn record(value: &str, timestamp: i64) -> RecordSpec {
    RecordSpec {
        value: Some(value.as_bytes().to_vec()),
        timestamp: Some(timestamp),
        ..RecordSpec::default()
    }
}

#[test]
fn a_stop_drains_and_the_next_start_leaves_no_trace() {
    let (oracle, west, east) = clusters();
    oracle.create_topic(&west, "stops", 2, 1, &[]).unwrap();
    oracle
        .produce(&west, &Workload::new("stops"), 1_000)
        .unwrap();
    let mut mirror = Mirror::new(&west_to_east(&west, &east, &["stops"], "name = \"stops\""));
    // A stop before the session is open has nothing to drain, and is told otherwise.
    let start = |mirror: &mut Mirror| {
        let before = mirror.log().len();
        mirror.start();
        mirror.wait_for_news(before, "running=2 troubled=0 mirroring", SOON);
    };
    start(&mut mirror);
    assert_equal(&oracle, (&west, "stops"), (&east, "west.stops"));
    mirror.stop();
    for signal in [Signal::INT, Signal::TERM] {
        start(&mut mirror);
        mirror.signal(signal);
        assert_eq!(
            mirror.wait(STOPS_WITHIN).code(),
            Some(0),
            "{}",
            mirror.tail()
        );
    }
    // No marker, nothing but the records.
    assert_eq!(end(&oracle, &east, "west.stops"), 1_000);

    // Stopped under load, in the middle of everything.
    let load = oracle
        .start_producer(&west, &Workload::new("stops").first_id(1_000).rate(2_000.0))
        .unwrap();
    for _ in 0..2 {
        start(&mut mirror);
        mirror.stop();
    }
    load.stop().unwrap();
    start(&mut mirror);
    assert_equal(&oracle, (&west, "stops"), (&east, "west.stops"));
    mirror.stop();
    assert_eq!(
        end(&oracle, &east, "west.stops"),
        end(&oracle, &west, "stops"),
        "a clean restart needs no marker"
    );
    let log = mirror.log();
    assert_eq!(lines(&log, "ERROR"), Vec::<&str>::new());
    for line in [
        "INFO  signal received, stopping within 10 s",
        "link=stops stopping: waiting for what is in flight",
        "link=stops stopped",
    ] {
        assert_eq!(count(&log, line), 6, "{line}: {log}");
    }
    // Every line is one event: a time, a level, a text.
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-11-21T09:00:00.123Z".len(), "{line}");
        assert!(
            ["INFO  ", "WARN  "]
                .iter()
                .any(|level| rest.starts_with(level)),
            "{line}"
        );
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let brokers = ["west", "east"].map(|name| {
        let broker = Broker::new(BrokerConfig {
            cluster_id: name.to_owned(),
            ..BrokerConfig::default()
        });
        let address = runtime.block_on(broker.listen("127.0.0.1:0")).unwrap();
        (broker, address.to_string())
    });
    let [(west, from), (east, to)] = &brokers;
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let topic = format!("hangs-{code}");
        west.create_topic(&topic, 1, &[]).unwrap();
        let records = [KitRecord::new(1_000, None, Some(b"value"))];
        let mut producer = west.plain_producer();
        producer
            .send(&topic, 0, strait_testkit::Codec::None, &records)
            .unwrap();
        let mirrored = format!("west.{topic}");
        let rule = east
            .faults()
            .add(Rule::on(PRODUCE, Fault::Hang).topic(&mirrored));
        let text = west_to_east(from, to, &[&topic], &format!("name = {topic:?}"));
        let mut mirror = Mirror::new(&text).started();
        wait_until("a request hangs", SOON, || east.faults().fired(rule) > 0);
        mirror.signal(Signal::TERM);
        mirror.wait_for_log("signal received, stopping within 10 s", SOON);
        // Signals close together are one.
        pass(Duration::from_millis(300));
        mirror.signal(second);
        let ended = mirror.wait(STOPS_WITHIN);
        assert_eq!(ended.code(), Some(code), "{}", mirror.tail());
        assert!(
            mirror.log().contains(
                "second signal: ending at once; the next start reads the target to be sure"
            ),
            "{}",
            mirror.tail()
        );
        east.faults().clear();
    }
}

#[test]
fn pages_tell_how_it_is() {
    let (oracle, west, east) = clusters();
    oracle.create_topic(&west, "paged", 3, 1, &[]).unwrap();
    oracle.produce(&west, &Workload::new("paged"), 300).unwrap();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let text = west_to_east(&west, &east, &["paged"], "name = \"paged\"");
    let mut mirror = Mirror::new(&text)
        .arguments(&["--admin-listen", &listen])
        .started();
    wait_until("it is ready", SOON, || {
        page::get(port, "/readyz") == Some((200, "1 link mirroring\n".to_owned()))
    });
    assert_eq!(
        page::get(port, "/healthz"),
        Some((200, "alive\n".to_owned()))
    );
    wait_until("records are counted", SOON, || {
        page::metric(port, "strait_records_total{link=\"paged\"}") == Some(300.0)
    });
    for (series, value) in [
        ("strait_flows{link=\"paged\",state=\"running\"}", 3.0),
        ("strait_flows{link=\"paged\",state=\"troubled\"}", 0.0),
        ("strait_lag_records{link=\"paged\"}", 0.0),
        ("strait_link_ready{link=\"paged\"}", 1.0),
    ] {
        // Told ten times a second.
        wait_until(series, SOON, || page::metric(port, series) == Some(value));
    }
    assert!(page::metric(port, "strait_bytes_total{link=\"paged\"}").unwrap() > 0.0);
    let (_, metrics) = page::get(port, "/metrics").unwrap();
    assert!(
        metrics.contains("strait_build_info{version=\"0."),
        "{metrics}"
    );

    // The port is taken: said at once, nothing else is started.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mirror.toml");
    std::fs::write(&file, &text).unwrap();
    let said = outcome::run(&file, folder.path(), &["--admin-listen", &listen]);
    assert_eq!(said.code, Some(1));
    assert_eq!(said.log.lines().count(), 1, "{}", said.log);
    assert!(
        said.log.contains(&format!("metrics and health cannot be served on {listen}: another process listens there. Stop it, or choose another address")),
        "{}",
        said.log
    );
    mirror.stop();
}

#[test]
fn brokers_see_who_connects_and_version_says_what_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!(
        "[clusters]\nwest = \"{address}\"\neast = \"127.0.0.1:1\"\n[[links]]\nsource = \"west\"\ntarget = \"east\"\n\
         topics = [\"a\"]\nconnect-timeout = \"300ms\"\n"
    );
    let seen = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut size = [0; 4];
        client.read_exact(&mut size).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(size)).unwrap()];
        client.read_exact(&mut frame).unwrap();
        frame
    });
    let said = run_text("mirror.toml", &text);
    assert_eq!(said.code, Some(5), "{}", said.log);
    let frame = seen.join().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    // ApiVersions v4: key, version, correlation id, client id; tags; software name and version as compact strings.
    assert_eq!(frame[..4], [0, 18, 0, 4]);
    let client_id = format!("strait/{version}");
    assert_eq!(&frame[10..10 + client_id.len()], client_id.as_bytes());
    let mut expected = vec![b"strait".len() as u8 + 1];
    expected.extend_from_slice(b"strait");
    expected.push(version.len() as u8 + 1);
    expected.extend_from_slice(version.as_bytes());
    let body = &frame[11 + client_id.len()..];
    assert!(body.starts_with(&expected), "{body:?}");

    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (name, rest) = text.trim_end().split_once(" (").unwrap();
    assert_eq!(name, format!("strait {version}"));
    let (commit, target) = rest.trim_end_matches(')').split_once(", ").unwrap();
    assert!(
        commit == "unknown" || commit.len() == 12 && commit.chars().all(|c| c.is_ascii_hexdigit()),
        "{text}"
    );
    assert!(target.split('-').count() >= 3, "{text}");
}

#[test]
fn flows_begin_where_they_are_told_and_go_on_where_they_were() {
    let (oracle, west, east) = clusters();
    let old = |topic: &str| {
        oracle.create_topic(&west, topic, 1, 1, &[FOREVER]).unwrap();
        for (value, at) in [("one", 1_000), ("two", 2_000), ("three", 3_000)] {
            let sent = oracle.send(&west, topic, Codec::None, &[record(value, at)]);
            sent.unwrap();
        }
    };
    for topic in ["begin-earliest", "begin-latest", "begin-later", "begin-mm2"] {
        old(topic);
    }
    let more = "name = \"begins\"\nstart = \"latest\"\n\
                [[links.start-rules]]\ntopics = [\"begin-earliest\"]\nstart = \"earliest\"\n\
                [[links.start-rules]]\ntopics = [\"begin-later\"]\nstart = \"1970-01-01T00:00:02Z\"\n";
    let topics = ["begin-earliest", "begin-latest", "begin-later"];
    let mut mirror = Mirror::new(&west_to_east(&west, &east, &topics, more)).started();
    mirror.wait_for_log("running=3 troubled=0 mirroring", SOON);
    let new = |value: &str, at| {
        for topic in topics {
            oracle
                .send(&west, topic, Codec::None, &[record(value, at)])
                .unwrap();
        }
    };
    new("four", 4_000);
    let expect = |tail: &[&str]| {
        for (topic, first) in [
            ("begin-earliest", &["one", "two", "three"][..]),
            ("begin-later", &["two", "three"]),
            ("begin-latest", &[]),
        ] {
            let expected = [first, tail].concat();
            let mut found = Vec::new();
            wait_until(&format!("{topic} is {expected:?}"), SOON, || {
                found = values(&oracle, &east, &format!("west.{topic}"));
                found.len() >= expected.len()
            });
            assert_eq!(found, expected, "{topic}");
        }
    };
    expect(&["four"]);
    mirror.stop();
    // A flow with a position goes on there, whatever the start says, and misses nothing of the time between.
    new("five", 5_000);
    mirror.start();
    expect(&["four", "five"]);
    mirror.stop();

    let mm2 = format!(
        "clusters = north, east\nnorth.bootstrap.servers = {west}\neast.bootstrap.servers = {east}\n\
         north->east.enabled = true\nnorth->east.topics = begin-mm2\nemit.heartbeats.enabled = false\nnorth.consumer.auto.offset.reset = latest\n"
    );
    let mut mirror = Mirror::with_file("mm2.properties", &mm2).started();
    mirror.wait_for_log("running=1 troubled=0 mirroring", SOON);
    oracle
        .send(&west, "begin-mm2", Codec::None, &[record("four", 4_000)])
        .unwrap();
    let mut found = Vec::new();
    wait_until("the new record is there", SOON, || {
        found = values(&oracle, &east, "north.begin-mm2");
        !found.is_empty()
    });
    assert_eq!(found, ["four"]);
    mirror.stop();
}

/// With another separator than the default one MirrorMaker 2 has it in the names of its own topics too, unless it is told
/// not to. Where that is changed, positions and commits go on; Kafka lets no topic exist beside one whose name differs in
/// `.` and `_` alone.
#[test]
fn mirror_maker_2s_client_finds_checkpoints_by_its_separator() {
    let (oracle, west, east) = clusters();
    let dotted = "replication.policy.internal.topic.separator.enabled = false\n";
    for (alias, separator, settings) in
        [("lisbon", "_", ["", dotted]), ("porto", "-", [dotted, ""])]
    {
        let topic = format!("mm2-parted-{alias}");
        let remote = format!("{alias}{separator}{topic}");
        oracle.create_topic(&west, &topic, 1, 1, &[]).unwrap();
        oracle.produce(&west, &Workload::new(&topic), 500).unwrap();
        let commit = |offset| {
            let at = [(topic.as_str(), 0, offset)];
            oracle.commit_offsets(&west, &topic, &at).unwrap();
        };
        let committed = || {
            let found = oracle.committed(&east, &topic).unwrap();
            let place = (remote.clone(), 0);
            found.get(&place).map(|(offset, _)| *offset)
        };
        let text = format!(
            "clusters = {alias}, east\n{alias}.bootstrap.servers = {west}\neast.bootstrap.servers = {east}\n\
             {alias}->east.enabled = true\n{alias}->east.topics = {topic}\nreplication.policy.separator = {separator}\n\
             replication.factor = 1\nemit.heartbeats.enabled = false\nsync.topic.acls.enabled = false\n\
             groups = {topic}\nrefresh.groups.interval.seconds = 1\nemit.checkpoints.interval.seconds = 1\n\
             sync.group.offsets.enabled = true\nsync.group.offsets.interval.seconds = 1\n"
        );
        let mut mirror = Mirror::with_file("mm2.properties", &(text.clone() + settings[0]));
        mirror.start();
        commit(400);
        wait_until("the group is committed for", SOON, || {
            committed() == Some(400)
        });
        mirror.stop();
        let mut mirror = Mirror::with_file("mm2.properties", &(text + settings[1])).started();
        commit(100);
        // It would not go back behind a commit of somebody else's.
        wait_until("the group goes back", SOON, || committed() == Some(100));
        let own = |kind: &str| [alias, kind, "internal"].join(separator);
        let told = look::separated(&[&east, alias, &topic, separator]);
        for line in [
            format!("checkpoints {}", own("checkpoints")),
            format!("offset {remote}-0 100"),
            format!("remote {remote}"),
        ] {
            assert!(told.contains(&line), "{line}: {told:?}");
        }
        wait_until("its readers of offset syncs find them", SOON, || {
            let syncs = ["mm2-offset-syncs", alias, "internal"].join(separator);
            let there = oracle.list_topics(&east).unwrap().contains(&syncs);
            there && end(&oracle, &east, &syncs) > 0
        });
        oracle.produce(&west, &Workload::new(&topic), 100).unwrap();
        assert_equal(&oracle, (&west, &topic), (&east, &remote));
        mirror.stop();
        let log = mirror.log();
        let elsewhere = log.contains("id=checkpoints-elsewhere checkpoints are written to lisbon_checkpoints_internal on cluster east");
        assert_eq!(elsewhere, separator == "_", "{log}");
    }
}

#[test]
fn a_mirror_maker_2_file_is_obeyed() {
    let (oracle, west, east) = clusters();
    for (topic, partitions) in [
        ("mm2-orders", 2),
        ("mm2-orders-tmp", 1),
        ("mm2-payments", 1),
        ("mm2-other", 1),
    ] {
        let configs = [("retention.ms", "7200000")];
        oracle
            .create_topic(&west, topic, partitions, 1, &configs)
            .unwrap();
        oracle.produce(&west, &Workload::new(topic), 200).unwrap();
    }
    oracle.create_topic(&east, "mm2-back", 1, 1, &[]).unwrap();
    oracle
        .produce(&east, &Workload::new("mm2-back"), 100)
        .unwrap();
    let head = format!(
        "# as connect-mirror-maker.sh reads it\nclusters = west, east\nwest.bootstrap.servers = {west}\neast.bootstrap.servers: {east}\n"
    );
    let text = format!(
        "{head}\
         west->east.enabled = true\nwest->east.topics = mm2-orders.*, \\\n    mm2-payments\nwest->east.topics.exclude = .*-tmp\n\
         east->west.enabled = true\neast->west.topics = mm2-back\n\
         east->west.replication.policy.class = org.apache.kafka.connect.mirror.IdentityReplicationPolicy\n\
         replication.policy.separator = _\nreplication.factor = 1\nrefresh.topics.interval.seconds = 1\n\
         sync.topic.configs.enabled = false\nemit.heartbeats.enabled = false\ntasks.max = 8\nwest.producer.acks = all\nfrobnicate = 1\n"
    );
    let mut mirror = Mirror::with_file("mm2.properties", &text).started();
    assert_equal(&oracle, (&west, "mm2-orders"), (&east, "west_mm2-orders"));
    assert_equal(
        &oracle,
        (&west, "mm2-payments"),
        (&east, "west_mm2-payments"),
    );
    assert_equal(&oracle, (&east, "mm2-back"), (&west, "mm2-back"));
    // Found at the next look.
    oracle
        .create_topic(&west, "mm2-orders-new", 1, 1, &[])
        .unwrap();
    assert_equal(
        &oracle,
        (&west, "mm2-orders-new"),
        (&east, "west_mm2-orders-new"),
    );
    let topics = oracle.list_topics(&east).unwrap();
    for absent in ["west_mm2-orders-tmp", "west_mm2-other", "west_mm2-back"] {
        assert!(!topics.iter().any(|t| t == absent), "{topics:?}");
    }
    let state = oracle.describe_topic(&east, "west_mm2-orders").unwrap();
    assert!(!state.configs["retention.ms"].set_on_topic);
    let log = mirror.log();
    let ignored: Vec<&str> = log.lines().filter(|l| l.contains("not obeyed")).collect();
    assert_eq!(ignored.len(), 1, "{log}");
    for key in ["tasks.max", "west.producer.acks", "frobnicate"] {
        assert!(ignored[0].contains(key), "{key}: {}", ignored[0]);
    }
    mirror.stop();

    // What would connect, name or copy otherwise than asked stops the start, all of it at once.
    let said = run_text(
        "mm2.properties",
        &format!(
            "{head}west->east.enabled = true\nwest.security.protocol = SASL_SSL\nwest.ssl.truststore.password = hush\ntransforms = x\n\
             config.property.filter.class = com.example.Mine\nforwarding.admin.class = com.example.Mine\nconfig.providers = file\n\
             replication.policy.class = com.example.Mine\n"
        ),
    );
    assert_eq!(said.code, Some(3), "{}", said.log);
    let errors = said.lines("ERROR");
    assert_eq!(errors.len(), said.log.lines().count(), "{}", said.log);
    for key in [
        "west.sasl.mechanism",
        "transforms",
        "config.property.filter.class",
        "forwarding.admin.class",
        "config.providers",
        "replication.policy.class",
    ] {
        assert!(
            errors.iter().any(|l| l.contains(key)),
            "{key}: {}",
            said.log
        );
    }
    assert!(!said.log.contains("hush"), "{}", said.log);
}

#[test]
fn unset_replication_factors_are_capped_with_a_warning() {
    let (oracle, west, east) = clusters();
    let three = KafkaCluster::shared("three", || {
        strait_testkit::kafka::KafkaOptions::new().nodes(3)
    })
    .unwrap()
    .bootstrap();
    for topic in ["capped-1", "capped-2"] {
        oracle.create_topic(&three, topic, 1, 3, &[]).unwrap();
        oracle.produce(&three, &Workload::new(topic), 50).unwrap();
    }
    let more = "name = \"capped\"";
    let mut mirror = Mirror::new(&west_to_east(&three, &east, &["capped-.*"], more)).started();
    for topic in ["capped-1", "capped-2"] {
        assert_equal(&oracle, (&three, topic), (&east, &format!("west.{topic}")));
    }
    mirror.stop();
    let log = mirror.log();
    assert_eq!(
        count(
            &log,
            "source topics have 3 replicas, but the target has 1 live broker: topics are created with 1; set replication-factor to decide it yourself"
        ),
        1,
        "{log}"
    );

    oracle.create_topic(&west, "spread", 1, 1, &[]).unwrap();
    oracle.produce(&west, &Workload::new("spread"), 50).unwrap();
    let more = "name = \"spread\"\nreplication-factor = 2";
    let mut mirror = Mirror::new(&west_to_east(&west, &three, &["spread"], more)).started();
    assert_equal(&oracle, (&west, "spread"), (&three, "west.spread"));
    mirror.stop();
    let state = oracle.describe_topic(&three, "west.spread").unwrap();
    assert_eq!(state.partitions[0].replicas.len(), 2);
    let state = oracle
        .describe_topic(&three, "mm2-strait.internal")
        .unwrap();
    assert_eq!(state.partitions[0].replicas.len(), 3);
}
