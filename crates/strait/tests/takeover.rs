//! MirrorMaker 2 under way, stopped or killed, and Strait in its place with the same file: each record once on the target.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod rig;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rig::{Mirror, wait_until};
use strait_testkit::kafka::{
    Background, Codec, DumpOptions, HeaderSpec, Isolation, KafkaCluster, MirrorMaker, Oracle,
    TransactionSpec, Workload,
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// Held by tests that kill MirrorMaker 2: each is a heavy process, and no more than two run at a time.
static KILLING: Mutex<()> = Mutex::new(());

/// Two clusters under aliases of the test's own, and its two topics: one plain, one written in transactions.
struct Scene {
    oracle: Oracle,
    source: String,
    target: String,
    from: &'static str,
    topics: [String; 2],
    /// Topics have the same name on both.
    identity: bool,
    dir: TempDir,
}

impl Scene {
    fn new(from: &'static str) -> Self {
        let [west, east] = KafkaCluster::shared_pair().unwrap();
        let scene = Self {
            oracle: Oracle::shared().unwrap(),
            source: west.bootstrap(),
            target: east.bootstrap(),
            from,
            topics: [format!("{from}-orders"), format!("{from}-payments")],
            identity: false,
            dir: TempDir::with_prefix("strait-mm2-").unwrap(),
        };
        for (topic, partitions) in scene.topics.iter().zip([3, 2]) {
            let created = scene
                .oracle
                .create_topic(&scene.source, topic, partitions, 1, &[]);
            created.unwrap();
        }
        scene
    }

    /// A file of MirrorMaker 2, as it is run with one node a side.
    fn properties(&self, more: &str) -> String {
        let (from, topics) = (self.from, self.topics.join(","));
        let mut text = format!(
            "clusters = {from}, east\n{from}.bootstrap.servers = {}\neast.bootstrap.servers = {}\n\
             {from}->east.enabled = true\n{from}->east.topics = {topics}\neast->{from}.enabled = false\n\
             emit.heartbeats.enabled = false\nemit.checkpoints.enabled = false\nsync.topic.configs.enabled = false\n\
             sync.topic.acls.enabled = false\ntasks.max = 2\n{more}\n",
            self.source, self.target
        );
        for key in [
            "replication.factor",
            "checkpoints.topic.replication.factor",
            "heartbeats.topic.replication.factor",
            "offset-syncs.topic.replication.factor",
            "config.storage.replication.factor",
            "offset.storage.replication.factor",
            "status.storage.replication.factor",
        ] {
            writeln!(text, "{key} = 1").unwrap();
        }
        text
    }

    /// The same with the other direction, for a topic of the same name.
    fn both_ways(&self, properties: &str) -> String {
        let (from, orders) = (self.from, &self.topics[0]);
        properties.replace(
            &format!("east->{from}.enabled = false"),
            &format!("east->{from}.enabled = true\neast->{from}.topics = {orders}"),
        )
    }

    /// Whose sync stands last in the topic of positions for each partition that goes both ways: whether Strait's; and how many
    /// there are of MirrorMaker 2.
    fn positions(&self) -> (Vec<bool>, usize) {
        let topic = format!("mm2-offset-syncs.{}.internal", self.from);
        let options = DumpOptions {
            records: true,
            ..DumpOptions::default()
        };
        let read = Isolation::ReadUncommitted;
        let (mut last, mut foreign) = (BTreeMap::new(), 0);
        // It is not there from the beginning.
        let Ok(dump) = self.oracle.dump(&self.target, &topic, read, options) else {
            return (Vec::new(), 0);
        };
        for record in &dump.partitions[0].records {
            let own = record.headers.iter().any(|(key, _)| key == "strait.pos");
            foreign += usize::from(!own);
            let key = record.key.clone().unwrap();
            if key.windows(7).any(|part| part == b"-orders") {
                last.insert(key, own);
            }
        }
        (last.into_values().collect(), foreign)
    }

    fn mirror_maker(&self, properties: &str) -> MirrorMaker {
        let file = self.dir.path().join("mm2.properties");
        std::fs::write(&file, properties).unwrap();
        MirrorMaker::start(&file, &self.dir.path().join("mm2.log")).unwrap()
    }

    fn load(&self) -> [Background; 2] {
        self.load_of(11)
    }

    /// Each seed has records of its own.
    fn load_of(&self, seed: u64) -> [Background; 2] {
        let [orders, payments] = &self.topics;
        let orders = Workload::new(orders)
            .seed(seed)
            .codec(Codec::Lz4)
            .headers(HeaderSpec::Odd)
            .null_key_every(7)
            .rate(400.0);
        let payments = Workload::new(payments)
            .seed(seed + 1)
            .transaction(TransactionSpec::new(format!("{}-pay", self.from), 9).abort_every(4))
            .rate(300.0);
        [orders, payments].map(|load| self.oracle.start_producer(&self.source, &load).unwrap())
    }

    /// What a command prints about the mirror's file.
    fn strait(&self, mirror: &Mirror, command: &[&str]) -> String {
        let file = mirror.folder().join("mm2.properties");
        let (words, more) =
            command.split_at(command.iter().take_while(|w| !w.starts_with('-')).count());
        let output = Command::new(env!("CARGO_BIN_EXE_strait"))
            .args(words)
            .arg(file)
            .args(more)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn mirrored(&self, topic: &str) -> String {
        if self.identity {
            return topic.to_owned();
        }
        format!("{}.{topic}", self.from)
    }

    /// Where each partition of the target ends.
    fn on_target(&self) -> Option<Vec<i64>> {
        let topics = self.topics.iter().map(|topic| {
            let topic = self.mirrored(topic);
            let read = Isolation::ReadUncommitted;
            let offsets = self.oracle.offsets(&self.target, &topic, read).ok()?;
            Some(offsets.into_iter().map(|o| o.end))
        });
        let topics: Option<Vec<_>> = topics.collect();
        let ends: Vec<i64> = topics?.into_iter().flatten().collect();
        (ends.len() == 5).then_some(ends)
    }

    /// Waits until each partition has this many records more on the target.
    fn wait_for_more(&self, records: i64, who: &str, says: impl Fn() -> String) {
        let before = self.on_target().unwrap_or_default();
        let grown = || {
            // Each look takes from what it waits for.
            rig::pass(Duration::from_millis(200));
            self.on_target().is_some_and(|now| {
                let then = |at: usize| before.get(at).copied().unwrap_or(0);
                let mut ends = now.iter().enumerate();
                ends.all(|(at, end)| *end >= then(at) + records)
            })
        };
        assert!(
            rig::holds_within(3 * SOON, grown),
            "{who} does not mirror:\n{}",
            says()
        );
    }

    /// Each record of the source stands on the target once, in its order; of aborted transactions at most once. How many of
    /// these stand there.
    fn assert_each_once(&self, mirror: &Mirror) -> usize {
        let mut aborted = 0;
        for topic in &self.topics {
            let options = DumpOptions {
                hashes: true,
                ..DumpOptions::default()
            };
            let dump = |bootstrap: &str, topic: &str, isolation| {
                let dump = self.oracle.dump(bootstrap, topic, isolation, options);
                dump.unwrap().partitions
            };
            let committed = dump(&self.source, topic, Isolation::ReadCommitted);
            let all = dump(&self.source, topic, Isolation::ReadUncommitted);
            let name = self.mirrored(topic);
            let holds = || dump(&self.target, &name, Isolation::ReadCommitted);
            wait_until("the last record arrived", SOON, || {
                committed.iter().zip(holds()).all(|(there, here)| {
                    let last = there.records.last().map(|r| &r.hash);
                    here.records.last().map(|r| &r.hash) == last
                })
            });
            for ((committed, all), here) in committed.iter().zip(&all).zip(holds()) {
                let offsets: BTreeMap<&str, i64> = all
                    .records
                    .iter()
                    .map(|r| (r.hash.as_str(), r.offset))
                    .collect();
                assert_eq!(offsets.len(), all.records.len(), "no two records are equal");
                let found: Vec<i64> = here
                    .records
                    .iter()
                    .map(|r| offsets[r.hash.as_str()])
                    .collect();
                let at = format!("{topic}-{}", committed.partition);
                if let Some(pair) = found.windows(2).find(|pair| pair[0] >= pair[1]) {
                    panic!(
                        "{at}: {pair:?} is out of order or doubled\n{}",
                        mirror.tail()
                    );
                }
                let lost = committed
                    .records
                    .iter()
                    .find(|r| found.binary_search(&r.offset).is_err());
                assert!(lost.is_none(), "{at}: {lost:?} is lost\n{}", mirror.tail());
                assert!(
                    committed.records.len() > 200,
                    "{at}: too little to be a test"
                );
                aborted += found.len() - committed.records.len();
            }
        }
        aborted
    }
}

/// The sum of a number in the log's lines about what was taken over: a transaction that a killed MirrorMaker 2 left
/// open is waited for, and its partition told in a line of its own.
fn said(mirror: &Mirror, field: &str) -> u64 {
    let log = mirror.log();
    let lines = log.lines().filter(|line| {
        line.contains("took over from MirrorMaker 2")
            || line.contains("took over more from MirrorMaker 2")
    });
    lines
        .map(|line| {
            let (_, rest) = line.split_once(&format!(" {field}=")).unwrap();
            rest.split(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum()
}

/// It flushes its position when it is told to stop. What it copied of aborted transactions stays; Strait adds none. The other
/// direction, with a topic of the same name, goes on with MirrorMaker 2, and its syncs stand over positions.
#[test]
fn where_mirror_maker_2_was_stopped_strait_goes_on() {
    let scene = Scene::new("paris");
    let properties = scene.properties("offset-syncs.topic.location = source");
    let both = scene.both_ways(&properties);
    let load = scene.load();
    let back = Workload::new(&scene.topics[0]).seed(13).rate(45.0);
    let (oracle, target) = (&scene.oracle, &scene.target);
    oracle
        .create_topic(target, &scene.topics[0], 3, 1, &[])
        .unwrap();
    let back = oracle.start_producer(target, &back).unwrap();
    let mm2 = scene.mirror_maker(&both);
    scene.wait_for_more(200, "MirrorMaker 2", || mm2.tail());
    let other = || scene.positions().0 == [false; 3];
    assert!(rig::holds_within(SOON, other), "{}", mm2.tail());
    mm2.stop().unwrap();
    let copied = scene.on_target().unwrap()[0];
    let mut mirror = Mirror::with_file("mm2.properties", &properties);
    // A member that could not say that it leaves is one until its session ends.
    let mut plan = String::new();
    let clean = rig::holds_within(2 * SOON, || {
        plan = scene.strait(&mirror, &["plan"]);
        !plan.contains("REFUSED")
    });
    assert!(clean, "{plan}");
    assert!(plan.contains("taken over from MirrorMaker 2\n"), "{plan}");
    let line = plan
        .lines()
        .find(|line| line.contains("3 partitions at offset"));
    assert!(line.unwrap().starts_with("paris.paris-orders "), "{plan}");
    mirror.start();
    scene.wait_for_more(100, "Strait", || mirror.tail());
    // It is said once all flows run.
    wait_until("all is taken over", SOON, || {
        said(&mirror, "partitions") == 5
    });
    // Its own positions count from now on.
    mirror.kill9();
    mirror.start();
    scene.wait_for_more(100, "Strait", || mirror.tail());
    for load in load {
        load.stop().unwrap();
    }
    let aborted = scene.assert_each_once(&mirror);
    assert!(aborted > 0, "MirrorMaker 2 copies aborted records");
    assert_eq!(said(&mirror, "partitions"), 5);
    let orders = scene.topics[0].as_str();
    // What MirrorMaker 2 copied, each record under its own offset here, is translated by its own syncs.
    let translated = |offset: i64| {
        let offset = offset.to_string();
        let of = [
            "offsets",
            "translate",
            "--topic",
            orders,
            "--partition",
            "0",
        ];
        let told = scene.strait(
            &mirror,
            &[&of[..], &["--offset", &offset, "--json"]].concat(),
        );
        assert!(told.contains("lower bound"), "{told}");
        let (_, rest) = told.split_once("\"target_offset\":").unwrap();
        rest.split([',', '}'])
            .next()
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    let (middle, last) = (translated(copied / 2), translated(copied - 1));
    assert!((1..=copied / 2).contains(&middle), "{middle} of {copied}");
    assert!((copied - 110..copied).contains(&last), "{last} of {copied}");
    // Its reader finds Strait's syncs where it looks by default.
    let end = |bootstrap: &str, topic: &str| {
        scene
            .oracle
            .offsets(bootstrap, topic, Isolation::ReadCommitted)
            .unwrap()[0]
            .end
    };
    let ends = (
        end(&scene.source, orders),
        end(&scene.target, &scene.mirrored(orders)),
    );
    wait_until("the last sync stands on the source", SOON, || {
        let place = (orders, 0);
        let read = scene
            .oracle
            .mm2_translate(&scene.source, "east", place, &[ends.0]);
        read.unwrap() == [Some(ends.1)]
    });
    let times = mirror.log().matches("took over from MirrorMaker 2").count();
    assert_eq!(times, 1, "{}", mirror.tail());
    mirror.stop();
    let one_way = both.replace("paris->east.enabled = true", "paris->east.enabled = false");
    let mm2 = scene.mirror_maker(&one_way);
    let overwritten = || scene.positions().0 == [false; 3];
    assert!(rig::holds_within(3 * SOON, overwritten), "{}", mm2.tail());
    assert!(!mirror.log().contains("position-overwritten"));
    // There is nothing to mirror, and still each position is written again: compaction leaves the last record of a key.
    mirror.start();
    mirror.wait_for_log("id=position-overwritten", SOON);
    let written_again = || scene.positions().0 == [true; 3];
    wait_until("positions stand last again", SOON, written_again);
    let foreign = scene.positions().1;
    wait_until("it writes over them again", SOON, || {
        scene.positions().1 > foreign
    });
    wait_until("they stand last again", SOON, written_again);
    let load = scene.load_of(21);
    scene.wait_for_more(20, "Strait", || mirror.tail());
    mirror.kill9();
    mirror.start();
    scene.wait_for_more(20, "Strait", || mirror.tail());
    for load in load.into_iter().chain([back]) {
        load.stop().unwrap();
    }
    mm2.kill9().unwrap();
    scene.assert_each_once(&mirror);
    let times = mirror.log().matches("took over from MirrorMaker 2").count();
    assert_eq!(times, 1, "{}", mirror.tail());
    mirror.stop();
}

/// Strait waits while it runs, and goes on by itself once it is gone: killed, with a minute of records behind its position.
#[test]
fn where_mirror_maker_2_was_killed_strait_goes_on_as_soon_as_it_is_gone() {
    let _turn = KILLING.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::new("west");
    let properties = scene.properties("east.offset.flush.interval.ms = 4000");
    let load = scene.load();
    let mm2 = scene.mirror_maker(&properties);
    scene.wait_for_more(200, "MirrorMaker 2", || mm2.tail());
    let mut mirror = Mirror::with_file("mm2.properties", &properties).started();
    mirror.wait_for_log("id=mm2-running", SOON);
    let log = mirror.log();
    assert!(
        log.contains("its group west-mm2 on cluster east has 1 member"),
        "{log}"
    );
    scene.wait_for_more(100, "MirrorMaker 2", || mm2.tail());
    let plan = scene.strait(&mirror, &["plan"]);
    let refused = "every topic: MirrorMaker 2 still runs: its group west-mm2 on cluster east";
    assert!(plan.contains(refused), "{plan}");
    assert!(!mirror.log().contains("session open"), "{}", mirror.tail());
    mm2.kill9().unwrap();
    mirror.wait_for_log("took over from MirrorMaker 2", SOON);
    scene.wait_for_more(100, "Strait", || mirror.tail());
    for load in load {
        load.stop().unwrap();
    }
    scene.assert_each_once(&mirror);
    assert!(said(&mirror, "records") > 0, "{}", mirror.tail());
    assert!(
        !mirror.log().contains("takeover-in-doubt"),
        "{}",
        mirror.tail()
    );
    mirror.stop();
}

/// Its connector on a cluster of Kafka Connect.
struct Connect {
    worker: MirrorMaker,
    rest: u16,
}

impl Connect {
    fn start(scene: &Scene, rest: u16) -> Self {
        let (group, target) = (format!("{}-connect", scene.from), &scene.target);
        let mut text = format!(
            "bootstrap.servers = {target}\ngroup.id = {group}\nlisteners = http://127.0.0.1:{rest}\n\
             offset.storage.topic = {group}-offsets\nconfig.storage.topic = {group}-configs\nstatus.storage.topic = {group}-status\n\
             exactly.once.source.support = enabled\noffset.flush.interval.ms = 3000\nsession.timeout.ms = 6000\nheartbeat.interval.ms = 1000\n"
        );
        for converter in ["key", "value", "header"] {
            let class = "org.apache.kafka.connect.converters.ByteArrayConverter";
            writeln!(text, "{converter}.converter = {class}").unwrap();
        }
        for topic in ["offset", "config", "status"] {
            writeln!(text, "{topic}.storage.replication.factor = 1").unwrap();
        }
        let file = scene.dir.path().join("worker.properties");
        std::fs::write(&file, text).unwrap();
        let log = scene.dir.path().join("worker.log");
        let worker = MirrorMaker::start_worker(&file, &log).unwrap();
        Self { worker, rest }
    }

    /// A request to its REST interface, as soon as that answers with success.
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let once = || -> Option<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.rest)).ok()?;
            write!(
                stream,
                "{method} {path} HTTP/1.1\r\nHost: connect\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.starts_with("HTTP/1.1 20").then_some(answer)
        };
        let mut answered = None;
        let answers = rig::holds_within(3 * SOON, || {
            answered = once();
            answered.is_some()
        });
        assert!(answers, "{method} {path}:\n{}", self.worker.tail());
        answered.unwrap()
    }

    /// The connector, with what it is to mirror.
    fn mirror(&self, scene: &Scene) {
        let settings = [
            (
                "connector.class",
                "org.apache.kafka.connect.mirror.MirrorSourceConnector",
            ),
            ("source.cluster.alias", scene.from),
            ("target.cluster.alias", "east"),
            ("source.cluster.bootstrap.servers", &scene.source),
            ("target.cluster.bootstrap.servers", &scene.target),
            ("topics", &scene.topics.join(",")),
            (
                "replication.policy.class",
                "org.apache.kafka.connect.mirror.IdentityReplicationPolicy",
            ),
            ("replication.policy.separator", "_"),
            ("offset-syncs.topic.location", "target"),
            ("replication.factor", "1"),
            ("offset-syncs.topic.replication.factor", "1"),
            ("sync.topic.configs.enabled", "false"),
            ("sync.topic.acls.enabled", "false"),
            ("producer.override.transaction.timeout.ms", "4000"),
            ("tasks.max", "2"),
        ];
        let settings = settings
            .map(|(key, value)| format!("{key:?}: {value:?}"))
            .join(", ");
        self.ask(
            "PUT",
            "/connectors/to-east/config",
            &format!("{{{settings}}}"),
        );
    }
}

/// It writes records, their offset syncs and its position in transactions (`exactly.once.source.support`), names topics as they
/// are and its own with another separator, and was killed with a transaction open.
#[test]
fn its_connector_on_a_connect_cluster_is_taken_over() {
    let _turn = KILLING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut scene = Scene::new("rome");
    scene.identity = true;
    let load = scene.load();
    let connect = Connect::start(&scene, rig::free_port());
    connect.mirror(&scene);
    scene.wait_for_more(200, "the connector", || connect.worker.tail());
    let toml = format!(
        "[clusters]\nrome = {:?}\neast = {:?}\n\n[[links]]\nsource = \"rome\"\ntarget = \"east\"\ntopics = [\"rome-.*\"]\n\
         naming = \"identity\"\ninternal-separator = \"_\"\ntakeover-offsets-topic = \"rome-connect-offsets\"\n\
         takeover-group = \"rome-connect\"\ngroups = []\nsync-topic-configs = false\n",
        scene.source, scene.target
    );
    let mut mirror = Mirror::new(&toml).started();
    mirror.wait_for_log("its group rome-connect on cluster east has 1 member", SOON);
    connect.worker.kill9().unwrap();
    mirror.wait_for_log("took over from MirrorMaker 2", SOON);
    scene.wait_for_more(100, "Strait", || mirror.tail());
    for load in load {
        load.stop().unwrap();
    }
    scene.assert_each_once(&mirror);
    wait_until("all is taken over", SOON, || {
        said(&mirror, "partitions") == 5
    });
    let log = mirror.log();
    assert!(!log.contains("takeover-in-doubt"), "{}", mirror.tail());
    // Strait's positions stand behind its offset syncs.
    let topics = scene.oracle.list_topics(&scene.target).unwrap();
    let syncs: Vec<&String> = topics
        .iter()
        .filter(|t| t.starts_with("mm2-offset-syncs") && t.contains("rome"))
        .collect();
    assert_eq!(syncs, ["mm2-offset-syncs_rome_internal"]);
    mirror.stop();
}
