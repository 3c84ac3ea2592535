//! What an operator sees when something is wrong: one clear message, the right exit code, and everything else going on.
//! On real Kafka, judged by Kafka's own consumer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod outcome;
mod page;
mod rig;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use outcome::{count, lines, run_text};
use rig::{Mirror, free_port, pass, wait_until, west_to_east};
use rustix::process::Signal;
use strait_testkit::kafka::{Isolation, KafkaCluster, KafkaOptions, Oracle, Version, Workload};

const SOON: Duration = Duration::from_secs(60);

/// The shared clusters and their judge.
struct World {
    oracle: Oracle,
    west: String,
    east: String,
}

fn world() -> World {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    World {
        oracle: Oracle::shared().unwrap(),
        west: west.bootstrap(),
        east: east.bootstrap(),
    }
}

impl World {
    /// A topic on the source with so many records.
    fn topic(&self, name: &str, partitions: i32, records: u64) {
        self.oracle
            .create_topic(&self.west, name, partitions, 1, &[])
            .unwrap();
        self.oracle
            .produce(&self.west, &Workload::new(name), records)
            .unwrap();
    }

    /// A configuration for one link between the shared clusters.
    fn link(&self, name: &str, topics: &[&str], more: &str) -> String {
        let more = format!("name = {name:?}\n{more}");
        west_to_east(&self.west, &self.east, topics, &more)
    }

    fn assert_mirrored(&self, topic: &str) {
        assert_equal(&self.oracle, &self.west, &self.east, topic);
    }

    /// Records in each partition of a target topic.
    fn on_target(&self, topic: &str) -> Vec<i64> {
        let offsets = self
            .oracle
            .offsets(&self.east, topic, Isolation::ReadUncommitted);
        offsets.unwrap().iter().map(|o| o.end - o.start).collect()
    }

    fn target_has(&self, topic: &str) -> bool {
        let topics = self.oracle.list_topics(&self.east).unwrap();
        topics.iter().any(|t| t == topic)
    }

    fn setting(&self, topic: &str, name: &str) -> Option<String> {
        let state = self.oracle.describe_topic(&self.east, topic).unwrap();
        let config = state.configs.get(name)?;
        config
            .set_on_topic
            .then(|| config.value.clone().unwrap_or_default())
    }
}

/// The topic is on the target, record by record.
fn assert_equal(oracle: &Oracle, west: &str, east: &str, topic: &str) {
    let mirrored = format!("west.{topic}");
    wait_until("the topic is on the target", SOON, || {
        oracle
            .list_topics(east)
            .is_ok_and(|topics| topics.contains(&mirrored))
    });
    let compared = oracle
        .compare(
            (west, topic),
            (east, &mirrored),
            Isolation::ReadCommitted,
            SOON,
        )
        .unwrap();
    assert!(compared.equal, "{topic}: {compared}");
}

#[test]
fn two_processes_on_one_link_double_nothing() {
    let w = world();
    w.topic("twice", 3, 1_000);
    let text = w.link("twice", &["twice"], "");
    let mut first = Mirror::new(&text)
        .arguments(&["--admin-listen", "off", "--instance", "first"])
        .started();
    first.wait_for_log("mirroring", SOON);
    let load = w
        .oracle
        .start_producer(
            &w.west,
            &Workload::new("twice").seed(1).first_id(1_000).rate(500.0),
        )
        .unwrap();

    // On the same machine the lock file tells at once.
    let file = first.folder().join("mirror.toml");
    let state = first.folder().join("state");
    let said = outcome::run(&file, &state, &["--admin-listen", "off"]);
    let lock = std::fs::read_dir(&state).unwrap().next().unwrap().unwrap();
    let pid = std::fs::read_to_string(lock.path()).unwrap();
    assert_eq!(said.code, Some(1), "{}", said.log);
    let expected = format!(
        "link=twice id=link-locked link twice already runs on this machine, in process {} (it holds {}): this process stops and has written nothing; stop the other one first",
        pid.trim(),
        lock.path().display()
    );
    assert!(said.log.contains(&expected), "{}", said.log);
    assert_eq!(lines(&said.log, "ERROR").len(), 1, "{}", said.log);

    // Elsewhere the lease is watched.
    let elsewhere = tempfile::tempdir().unwrap();
    let arguments = ["--admin-listen", "off", "--instance", "second"];
    let said = outcome::run(&file, elsewhere.path(), &arguments);
    assert_eq!(said.code, Some(1), "{}", said.log);
    assert!(
        said.log.contains("link=twice id=link-owned link twice is run by instance 'first', which goes on renewing its lease: this process stops and has written nothing; stop the other one first, or start with --take-over to fence it"),
        "{}",
        said.log
    );
    assert!(said.took > Duration::from_secs(4), "{:?}", said.took);
    assert!(first.runs(), "{}", first.tail());

    // Asked to, the second one takes over, and the first one learns of it.
    let mut second = Mirror::new(&text)
        .arguments(&[
            "--admin-listen",
            "off",
            "--instance",
            "second",
            "--take-over",
        ])
        .started();
    let ended = first.wait(SOON);
    assert_eq!(ended.code(), Some(1), "{}", first.tail());
    let log = first.log();
    assert!(
        log.contains("link=twice id=taken-over link twice was taken over by instance 'second': this process stops and writes nothing more"),
        "{log}"
    );
    assert_eq!(lines(&log, "ERROR").len(), 1, "{log}");

    pass(Duration::from_secs(1));
    let report = load.stop().unwrap();
    assert_eq!(report.failed, 0, "{report:?}");
    w.assert_mirrored("twice");
    second.stop();
}

#[test]
fn a_cluster_out_of_reach_ends_the_start_with_code_5() {
    let dead = format!("127.0.0.1:{}", free_port());
    let wrong = "no-such-host.invalid:9092";
    let text = format!(
        "[clusters]\nwest = \"{dead}\"\neast = {wrong:?}\n[[links]]\nsource = \"west\"\ntarget = \"east\"\n\
         topics = [\"orders\"]\nconnect-timeout = \"500ms\"\n"
    );
    let said = run_text("mirror.toml", &text);
    assert_eq!(said.code, Some(5), "{}", said.log);
    let reason = format!(
        "cannot reach cluster 'west': tried {dead} (connection refused); check the bootstrap addresses, that the brokers run, and that no firewall is in between"
    );
    let (warnings, errors) = (said.lines("WARN"), said.lines("ERROR"));
    assert_eq!((warnings.len(), errors.len()), (1, 1), "{}", said.log);
    assert!(
        warnings[0].ends_with(&format!(
            "{reason}; trying again, for 1.5 s in all or a little more"
        )),
        "{}",
        warnings[0]
    );
    assert!(
        errors[0].contains(" given up after ") && errors[0].ends_with(&format!(" s: {reason}")),
        "{}",
        errors[0]
    );
    // Three times the connect timeout.
    assert!(said.took > Duration::from_millis(1_400), "{:?}", said.took);
    assert_eq!(said.stdout, "");

    let said = run_text("mirror.toml", &text.replace(&dead, "other.invalid:9092"));
    assert_eq!(said.code, Some(5), "{}", said.log);
    assert!(
        said.lines("ERROR")[0].contains("tried other.invalid:9092 (cannot resolve the name: "),
        "{}",
        said.log
    );
}

#[test]
fn a_half_open_broker_is_given_up_in_time_and_a_stop_does_not_wait_for_it() {
    // The system accepts connections to a listener that nobody asks.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let text = |timeout| {
        format!(
            "[clusters]\nwest = \"{address}\"\neast = \"127.0.0.1:1\"\n[[links]]\nsource = \"west\"\ntarget = \"east\"\n\
             topics = [\"orders\"]\nconnect-timeout = {timeout:?}\n"
        )
    };
    let said = run_text("mirror.toml", &text("500ms"));
    assert_eq!(said.code, Some(5), "{}", said.log);
    let reason = format!(
        "cannot reach cluster 'west': tried {address} (connected, but ApiVersions v4 had no answer within 0.5 s)"
    );
    let (warnings, errors) = (said.lines("WARN"), said.lines("ERROR"));
    assert_eq!((warnings.len(), errors.len()), (1, 1), "{}", said.log);
    assert!(
        warnings[0].contains(&reason) && errors[0].contains(&reason),
        "{}",
        said.log
    );

    let mut mirror = Mirror::new(&text("60s")).started();
    mirror.wait_for_log("starting", SOON);
    mirror.signal(Signal::TERM);
    // Half of what the broker is waited for.
    let ended = mirror.wait(Duration::from_secs(30));
    assert_eq!(ended.code(), Some(0), "{}", mirror.tail());
}

/// Passes connections on to `address`, for ever.
fn forward(listener: TcpListener, address: String) {
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(&address).unwrap();
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ] {
                std::thread::spawn(move || {
                    let mut bytes = [0; 16_384];
                    while let Ok(n @ 1..) = from.read(&mut bytes) {
                        if to.write_all(&bytes[..n]).is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
}

#[test]
fn a_link_that_cannot_start_leaves_the_others_alone_and_starts_later() {
    let w = world();
    w.topic("alone", 1, 100);
    let (dead, admin) = (free_port(), free_port());
    let text = format!(
        "{}[[links]]\nname = \"late\"\nsource = \"north\"\ntarget = \"east\"\ntopics = [\"alone\"]\nconnect-timeout = \"500ms\"\n",
        w.link("early", &["alone"], "").replace(
            "[[links]]",
            &format!("north = \"127.0.0.1:{dead}\"\n[[links]]")
        )
    );
    let mut mirror = Mirror::new(&text)
        .arguments(&["--admin-listen", &format!("127.0.0.1:{admin}")])
        .started();
    w.assert_mirrored("alone");
    // Well beyond three times the connect timeout.
    pass(Duration::from_secs(3));
    wait_until("only the late link is named", SOON, || {
        let (status, body) = page::get(admin, "/readyz").unwrap();
        let late = body.starts_with("late: failed: cannot reach cluster 'north'");
        status == 503 && late && body.lines().count() == 1
    });
    for (link, ready) in [("late", 0.0), ("early", 1.0)] {
        let series = format!("strait_link_ready{{link={link:?}}}");
        wait_until(&series, SOON, || {
            page::metric(admin, &series) == Some(ready)
        });
    }
    let log = mirror.log();
    assert_eq!(count(&log, "cannot reach cluster 'north'"), 1, "{log}");

    forward(
        TcpListener::bind(("127.0.0.1", dead)).unwrap(),
        w.west.clone(),
    );
    wait_until("the late link mirrors", SOON, || {
        page::get(admin, "/readyz") == Some((200, "2 links mirroring\n".to_owned()))
    });
    wait_until("its topic is there", SOON, || {
        w.target_has("north.alone") && w.on_target("north.alone") == [100]
    });
    mirror.stop();
}

#[test]
fn an_unknown_topic_is_named_and_mirrored_as_soon_as_it_appears() {
    let w = world();
    let more = "internal-replication-factor = 1";
    let mut mirror = Mirror::new(&w.link("unknown", &["not-yet", "nothing.*"], more)).started();
    mirror.wait_for_log("nothing is mirrored until one appears", SOON);
    pass(Duration::from_secs(3));
    let log = mirror.log();
    let warnings = lines(&log, "WARN");
    assert_eq!(warnings.len(), 2, "{log}");
    assert!(
        warnings[0].ends_with("id=topic-unknown topic=not-yet the source has no such topic (or Strait's user may not see it: Describe is needed); it is mirrored as soon as it appears"),
        "{log}"
    );
    assert!(
        warnings[1].ends_with("id=nothing-selected no topic of the source is selected by topics = not-yet, nothing.*: nothing is mirrored until one appears"),
        "{log}"
    );
    w.topic("not-yet", 2, 500);
    w.assert_mirrored("not-yet");
    mirror.stop();
}

#[test]
fn a_target_topic_with_fewer_partitions_grows_or_is_named() {
    let w = world();
    for name in ["grows", "stays", "beside"] {
        w.topic(name, 3, 300);
        let partitions = if name == "beside" { 3 } else { 1 };
        let target = format!("west.{name}");
        w.oracle
            .create_topic(&w.east, &target, partitions, 1, &[])
            .unwrap();
    }
    let mut grows =
        Mirror::new(&w.link("grows", &["grows"], "internal-replication-factor = 1")).started();
    grows.wait_for_log(
        "topic=west.grows from=1 to=3 added partitions on the target",
        SOON,
    );
    w.assert_mirrored("grows");
    grows.stop();
    let log = grows.log();
    assert_eq!(lines(&log, "WARN"), Vec::<&str>::new());

    let mut stays =
        Mirror::new(&w.link("stays", &["stays", "beside"], "grow-partitions = false")).started();
    w.assert_mirrored("beside");
    wait_until("the first partition is mirrored", SOON, || {
        w.on_target("west.stays") == [100]
    });
    pass(Duration::from_secs(2));
    let log = stays.log();
    let warnings = lines(&log, "WARN");
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].ends_with("id=topic-in-part topic=west.stays the target topic has 1 partitions, the source 3: partitions 1 to 2 are not mirrored; add partitions on the target, or set grow-partitions = true"),
        "{log}"
    );
    w.oracle
        .create_partitions(&w.east, "west.stays", 3)
        .unwrap();
    w.assert_mirrored("stays");
    stays.stop();
}

#[test]
fn what_the_target_refuses_is_named_and_the_rest_goes_on() {
    let w = world();
    w.topic("plain", 1, 100);
    w.oracle
        .create_topic(
            &w.west,
            "tuned",
            1,
            1,
            &[("retention.ms", "7200000"), ("cleanup.policy", "delete")],
        )
        .unwrap();
    w.oracle
        .produce(&w.west, &Workload::new("tuned"), 100)
        .unwrap();
    let admin = free_port();
    // Else it is warned of a target with fewer brokers than its own topics have replicas by default.
    let more = "replication-factor = 3\ninternal-replication-factor = 1";
    let mut too_many = Mirror::new(&w.link("too-many", &["plain"], more))
        .arguments(&["--admin-listen", &format!("127.0.0.1:{admin}")])
        .started();
    too_many.wait_for_log("cannot create the topic on cluster east", SOON);
    too_many.wait_for_log("the link stands still: 1 of 1 topics", SOON);
    let mut body = String::new();
    wait_until("the page names the topic", SOON, || {
        let (status, told) = page::get(admin, "/readyz").unwrap();
        body = told;
        status == 503
            && body.contains(
                "1 of 1 topics is not mirrored, or not whole; plain: cannot create the topic",
            )
    });
    wait_until("the topic is counted", SOON, || {
        page::metric(admin, "strait_topics_troubled{link=\"too-many\"}") == Some(1.0)
    });
    // It tries again every second, and does not say so every time.
    pass(Duration::from_secs(3));
    let log = too_many.log();
    let warnings = lines(&log, "ERROR");
    let about = |text: &str| warnings.iter().filter(|l| l.contains(text)).count();
    assert_eq!(about("cannot create the topic"), 1, "{log}");
    assert_eq!(
        about(
            "INVALID_REPLICATION_FACTOR (38): Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered"
        ),
        1,
        "{log}"
    );
    assert_eq!(
        about(
            "the target has 1 live broker: lower replication-factor (now 3), or leave it out to have it capped"
        ),
        1,
        "{log}"
    );
    assert!(!w.target_has("west.plain"));
    assert_eq!(lines(&log, "WARN").len(), 1, "{log}");
    too_many.stop();

    // A topic that is there already goes on beside one that cannot be made.
    w.oracle
        .create_topic(&w.east, "west.tuned", 1, 1, &[])
        .unwrap();
    let mut one =
        Mirror::new(&w.link("one-of-two", &["plain", "tuned"], "replication-factor = 3")).started();
    w.assert_mirrored("tuned");
    wait_until("settings are in step", SOON, || {
        w.setting("west.tuned", "retention.ms").as_deref() == Some("7200000")
    });
    w.oracle
        .alter_topic_configs(
            &w.west,
            "tuned",
            &[("retention.ms", "3600000"), ("min.insync.replicas", "1")],
            &["cleanup.policy"],
        )
        .unwrap();
    wait_until("settings follow", SOON, || {
        w.setting("west.tuned", "retention.ms").as_deref() == Some("3600000")
            && w.setting("west.tuned", "cleanup.policy").is_none()
    });
    // Not copied by default.
    assert_eq!(w.setting("west.tuned", "min.insync.replicas"), None);
    one.stop();

    let said = run_text(
        "mirror.toml",
        &format!(
            "[clusters]\nwest = {:?}\neast = {:?}\n[[links]]\nsource = \"east\"\ntarget = \"west\"\ntopics = [\"none\"]\ninternal-replication-factor = 3\n",
            w.west, w.east
        ),
    );
    assert_eq!(said.code, Some(1), "{}", said.log);
    let errors = said.lines("ERROR");
    assert_eq!(errors.len(), 1, "{}", said.log);
    assert!(
        errors[0].contains("id=own-topic cannot create mm2-strait.internal on the target, where Strait keeps its positions: CreateTopics")
            && errors[0].contains("lower internal-replication-factor"),
        "{}",
        said.log
    );
}

#[test]
fn a_setting_that_only_the_target_refuses_is_left_out_and_the_topic_is_made() {
    let w = world();
    // Kafka 4 no longer knows a setting of Kafka 3, and wants segments of a mebibyte at least.
    let old = KafkaCluster::shared("old", || KafkaOptions::new().version(Version::V3_9)).unwrap();
    let west = old.bootstrap();
    let settings = [
        ("message.downconversion.enable", "false"),
        ("segment.bytes", "100000"),
        ("retention.ms", "7200000"),
    ];
    w.oracle
        .create_topic(&west, "cold", 1, 1, &settings)
        .unwrap();
    w.oracle
        .produce(&west, &Workload::new("cold"), 100)
        .unwrap();
    let more = "name = \"cold\"";
    let mut mirror = Mirror::new(&west_to_east(&west, &w.east, &["cold"], more)).started();
    mirror.wait_for_log("the target refuses the setting segment.bytes", SOON);
    assert_equal(&w.oracle, &west, &w.east, "cold");
    pass(Duration::from_secs(2));
    let log = mirror.log();
    assert_eq!(count(&log, "the target refuses the setting"), 2, "{log}");
    for setting in [
        "message.downconversion.enable=false",
        "segment.bytes=100000",
    ] {
        let said = format!(
            "id=setting-refused topic=west.cold the target refuses the setting {setting}, it is left out: "
        );
        assert_eq!(count(&log, &said), 1, "{log}");
    }
    assert_eq!(
        w.setting("west.cold", "retention.ms").as_deref(),
        Some("7200000")
    );
    // Mended at the source, the setting follows.
    w.oracle
        .alter_topic_configs(&west, "cold", &[("segment.bytes", "2000000")], &[])
        .unwrap();
    wait_until("the setting follows", SOON, || {
        w.setting("west.cold", "segment.bytes").as_deref() == Some("2000000")
    });
    mirror.stop();
}

#[test]
fn brokers_that_die_or_freeze_stop_only_what_they_lead() {
    let oracle = Oracle::shared().unwrap();
    let [source, target] =
        KafkaCluster::start_all([KafkaOptions::new().nodes(3), KafkaOptions::new()]).unwrap();
    let (west, east) = (source.bootstrap(), target.bootstrap());
    oracle.create_topic(&west, "spread", 6, 1, &[]).unwrap();
    oracle
        .produce(&west, &Workload::new("spread"), 600)
        .unwrap();
    let admin = free_port();
    let more = "connect-timeout = \"2s\"\nrequest-timeout = \"3s\"";
    let mut mirror = Mirror::new(&west_to_east(&west, &east, &["spread"], more))
        .arguments(&["--admin-listen", &format!("127.0.0.1:{admin}")])
        .started();
    assert_equal(&oracle, &west, &east, "spread");
    let readyz = || page::get(admin, "/readyz").unwrap_or_default();
    wait_until("it is ready", SOON, || {
        readyz() == (200, "1 link mirroring\n".to_owned())
    });

    // One of three source brokers dies: its partitions have no leader, the others go on.
    let partitions = oracle.describe_topic(&west, "spread").unwrap().partitions;
    let dead = usize::try_from(partitions[0].leader - 1).unwrap();
    let (gone, alive): (Vec<_>, Vec<_>) = partitions
        .iter()
        .partition(|p| p.leader == partitions[0].leader);
    source.kill9(dead).unwrap();
    for partition in &alive {
        let more = Workload::new("spread")
            .seed(2)
            .partition(partition.partition);
        oracle.produce(&west, &more, 100).unwrap();
    }
    let end = |partition: i32| {
        let ends = oracle
            .offsets(&east, "west.spread", Isolation::ReadUncommitted)
            .unwrap();
        ends[usize::try_from(partition).unwrap()].end
    };
    wait_until("the others go on", SOON, || {
        alive.iter().all(|p| end(p.partition) >= 200)
    });
    let stand_still = format!(
        "west->east: mirroring in part: {} of 6 flows stand still; spread-{}: ",
        gone.len(),
        gone[0].partition
    );
    let no_leader = format!("spread-{} has no leader on cluster west", gone[0].partition);
    wait_until("readyz names the partitions", SOON, || {
        let (status, body) = readyz();
        status == 200 && body.contains(&stand_still) && body.contains(&no_leader)
    });
    assert_eq!(
        page::metric(
            admin,
            "strait_flows{link=\"west->east\",state=\"troubled\"}"
        ),
        Some(gone.len() as f64)
    );
    let log = mirror.log();
    // One line for the broker, one for its partitions, however many they are.
    let warnings = lines(&log, "WARN");
    let about = |text: &str| warnings.iter().filter(|l| l.contains(text)).count();
    let address = west.split(',').nth(dead).unwrap();
    let of_the_dead = |l: &&&str| {
        l.contains("cannot read from the source, trying again: ") && l.contains(address)
    };
    assert_eq!(warnings.iter().filter(of_the_dead).count(), 1, "{log}");
    assert_eq!(
        about(
            " no leader: look at the brokers of this cluster; mirroring goes on by itself when there is one"
        ),
        1,
        "{log}"
    );
    source.restart(dead).unwrap();
    wait_until("all is well", SOON, || readyz().1 == "1 link mirroring\n");
    assert_equal(&oracle, &west, &east, "spread");

    // The target freezes: connections stay open and nothing is answered.
    let before = mirror.log().len();
    target.pause(0).unwrap();
    oracle
        .produce(&west, &Workload::new("spread").seed(3), 600)
        .unwrap();
    wait_until("readyz tells", SOON, || {
        let (status, body) = readyz();
        status == 503 && body.starts_with("west->east: failed: ")
    });
    pass(Duration::from_secs(8));
    let log = mirror.log().split_off(before);
    assert_eq!(
        count(
            &log,
            "id=target-unavailable cannot write to the target, trying again: "
        ),
        1,
        "{log}"
    );
    // Each kind of trouble once, however often it comes: data, and later on positions.
    let field = |line: &str, name: &str| {
        let mut words = line.split_whitespace();
        words.find_map(|w| w.strip_prefix(name).map(str::to_owned))
    };
    let mut kinds: Vec<_> = lines(&log, "WARN")
        .into_iter()
        .map(|line| (field(line, "id="), field(line, "topic=")))
        .collect();
    let said = kinds.len();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), said, "{log}");
    let known = ["few-replicas", "target-unavailable", "positions-unwritten"];
    let known = |id: &Option<String>| id.as_deref().is_none_or(|id| known.contains(&id));
    assert!(kinds.iter().all(|(id, _)| known(id)), "{log}");
    target.resume(0).unwrap();
    wait_until("all is well again", SOON, || {
        readyz().1 == "1 link mirroring\n"
    });
    assert_equal(&oracle, &west, &east, "spread");
    assert!(
        mirror.log().contains("the broker answers again"),
        "{}",
        mirror.tail()
    );
    mirror.stop();
}
