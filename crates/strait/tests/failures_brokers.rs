//! Real brokers brought to harm: elections that lose records, restored disks, missing replicas, moving leaders, quotas,
//! a broker that is away for long. One flow's trouble never holds up another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod outcome;
mod rig;

use std::path::Path;
use std::time::{Duration, Instant};

use outcome::lines;

use rig::{Mirror, wait_until, west_to_east};
use strait_testkit::kafka::{
    Background, Codec, Comparison, Isolation, KafkaCluster, KafkaOptions, Oracle, Workload,
};

const SOON: Duration = Duration::from_secs(60);

/// Two clusters of which one is harmed, and their judge.
struct World {
    oracle: Oracle,
    west: String,
    east: String,
}

impl World {
    fn between(source: &KafkaCluster, target: &KafkaCluster) -> Self {
        Self {
            oracle: Oracle::shared().unwrap(),
            west: source.bootstrap(),
            east: target.bootstrap(),
        }
    }

    fn write(&self, topic: &str, seed: u64, records: u64) {
        let workload = Workload::new(topic)
            .seed(seed)
            .codec(Codec::Lz4)
            .partition(0);
        let report = self.oracle.produce(&self.west, &workload, records).unwrap();
        assert_eq!(report.acked, records, "{report:?}");
    }

    /// Writes to a topic that nothing happens to.
    fn load(&self, topic: &str, partition: i32) -> Background {
        let workload = Workload::new(topic).rate(100.0).partition(partition);
        self.oracle.start_producer(&self.west, &workload).unwrap()
    }

    fn on_target(&self, topic: &str, partition: usize) -> i64 {
        let all = Isolation::ReadUncommitted;
        let offsets = self
            .oracle
            .offsets(&self.east, &format!("west.{topic}"), all);
        offsets.map_or(0, |o| o.get(partition).map_or(0, |o| o.end))
    }

    /// The records that a consumer is shown: the markers of a flow that looked again are none.
    fn records(&self, topic: &str, partition: usize) -> u64 {
        let all = Isolation::ReadUncommitted;
        let dump = self
            .oracle
            .digest(&self.east, &format!("west.{topic}"), all);
        dump.map_or(0, |d| d.partitions.get(partition).map_or(0, |p| p.count))
    }

    /// Records written from now on arrive.
    fn assert_goes_on(&self, topic: &str, partition: usize) {
        let now = self.on_target(topic, partition);
        wait_until("others go on", SOON, || {
            self.on_target(topic, partition) > now + 50
        });
    }

    fn compare(&self, topic: &str) -> Comparison {
        let (left, right) = (
            (&*self.west, topic),
            (&*self.east, &*format!("west.{topic}")),
        );
        self.oracle
            .compare(left, right, Isolation::ReadCommitted, SOON)
            .unwrap()
    }

    fn assert_equal(&self, topic: &str) {
        let compared = self.compare(topic);
        assert!(compared.equal, "{topic}: {compared}");
    }

    /// One link for all topics but `halt`, and one for that, with lines of their own; both have `common` ones.
    fn mirror(&self, common: &str, of_halt: &str) -> Mirror {
        let common = format!(
            "sync-topic-configs = false\ninternal-replication-factor = 1\nreplication-factor = 1\n{common}"
        );
        let mut more = format!("{common}\nexclude = [\"halt\"]");
        if !of_halt.is_empty() {
            let halt = "[[links]]\nname = \"halt\"\nsource = \"west\"\ntarget = \"east\"\ntopics = [\"halt\"]";
            more = format!("{more}\n{halt}\n{common}\n{of_halt}");
        }
        Mirror::new(&west_to_east(&self.west, &self.east, &[".*"], &more)).started()
    }
}

/// A node's place in its cluster.
fn node(id: i32) -> usize {
    usize::try_from(id - 1).unwrap()
}

#[test]
fn records_that_an_unclean_election_took_from_the_source_stay_and_the_new_ones_follow() {
    let three = KafkaOptions::new()
        .nodes(3)
        .property("replica.lag.time.max.ms", "3000");
    let [source, target] = KafkaCluster::start_all([three, KafkaOptions::new()]).unwrap();
    let world = World::between(&source, &target);
    let unclean = [
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "1"),
    ];
    world
        .oracle
        .create_topic(&world.west, "cut", 1, 2, &unclean)
        .unwrap();
    world
        .oracle
        .create_topic(&world.west, "beside", 3, 1, &[])
        .unwrap();
    let cut = world
        .oracle
        .describe_topic(&world.west, "cut")
        .unwrap()
        .partitions
        .remove(0);
    let beside = world
        .oracle
        .describe_topic(&world.west, "beside")
        .unwrap()
        .partitions;
    let beside = beside
        .iter()
        .find(|p| !cut.replicas.contains(&p.leader))
        .unwrap()
        .partition;
    let beside_at = usize::try_from(beside).unwrap();
    let (first, second) = (
        cut.leader,
        *cut.replicas.iter().find(|r| **r != cut.leader).unwrap(),
    );
    // Beside it a topic with the same fate and the other choice.
    world
        .oracle
        .create_topic(&world.west, "halt", 1, 2, &unclean)
        .unwrap();
    world
        .oracle
        .reassign(&world.west, "halt", 0, &[first, second])
        .unwrap();
    wait_until("it has moved", SOON, || {
        let _ = world.oracle.elect_preferred(&world.west, "halt", 0);
        let halt = world.oracle.describe_topic(&world.west, "halt").unwrap();
        let halt = &halt.partitions[0];
        halt.leader == first && halt.replicas == [first, second] && halt.isr.len() == 2
    });
    let mut mirror = world.mirror(
        "connect-timeout = \"2s\"\nrequest-timeout = \"3s\"",
        "on-source-truncated = \"stop\"",
    );
    let load = world.load("beside", beside);
    let write_both = |seed, records| {
        world.write("cut", seed, records);
        world.write("halt", seed, records);
    };
    let both_mirrored = |records| {
        wait_until("both are mirrored", SOON, || {
            world.records("cut", 0) == records && world.records("halt", 0) == records
        });
    };
    write_both(1, 100);
    both_mirrored(100);

    // Only the leader has what comes now; then only the other one is left.
    source.kill9(node(second)).unwrap();
    write_both(2, 50);
    both_mirrored(150);
    source.kill9(node(first)).unwrap();
    world.assert_goes_on("beside", beside_at);
    source.restart(node(second)).unwrap();
    wait_until("the other one leads", SOON, || {
        let cut = world.oracle.describe_topic(&world.west, "cut").unwrap();
        let halt = world.oracle.describe_topic(&world.west, "halt").unwrap();
        cut.partitions[0].leader == second && halt.partitions[0].leader == second
    });
    write_both(3, 30);
    mirror.wait_for_log("id=source-truncated", SOON);
    mirror.wait_for_log("the source lost records: its log on cluster west was cut at offset 100, and was mirrored up to 150", SOON);
    wait_until("the new history is mirrored", SOON, || {
        world.compare("cut").partitions[0].lost == 0
    });
    let compared = world.compare("cut");
    let partition = &compared.partitions[0];
    assert_eq!(
        (partition.lost, partition.doubled, partition.foreign),
        (0, 0, 50),
        "{compared}"
    );
    mirror.wait_for_log("link=halt id=source-truncated topic=halt partition=0 flow stopped: the source lost records: halt-0 on cluster west was cut at offset 100, and was mirrored up to 150", SOON);
    world.assert_goes_on("beside", beside_at);
    assert_eq!(world.records("halt", 0), 150);
    source.restart(node(first)).unwrap();
    load.stop().unwrap();
    world.assert_equal("beside");
    mirror.stop();
}

/// Copies a folder of plain files.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn what_a_restored_disk_lacks_on_the_target_is_mirrored_again() {
    let [source, target] =
        KafkaCluster::start_all([KafkaOptions::new(), KafkaOptions::new()]).unwrap();
    let world = World::between(&source, &target);
    for topic in ["restored", "halt", "beside"] {
        world
            .oracle
            .create_topic(&world.west, topic, 1, 1, &[])
            .unwrap();
    }
    let mut mirror = world.mirror(
        "connect-timeout = \"2s\"\nrequest-timeout = \"3s\"",
        "on-target-lost = \"stop\"",
    );
    // The same happens to both; the other one's flow is to stop.
    let both = ["restored", "halt"];
    for topic in both {
        world.write(topic, 1, 100);
        wait_until("it is mirrored", SOON, || world.records(topic, 0) == 100);
    }
    target.stop(0).unwrap();
    let backup = tempfile::tempdir().unwrap();
    let folder = |topic: &str| {
        let log = target
            .partition_dir(0, &format!("west.{topic}"), 0)
            .unwrap();
        (log, backup.path().join(topic))
    };
    for (log, kept) in both.map(folder) {
        copy(&log, &kept);
    }
    target.restart(0).unwrap();
    for topic in both {
        world.write(topic, 2, 50);
        wait_until("it is mirrored", SOON, || world.records(topic, 0) == 150);
    }
    world.assert_equal("restored");
    // Its position says so too.
    let syncs = || {
        world
            .oracle
            .offsets(
                &world.east,
                "mm2-offset-syncs.west.internal",
                Isolation::ReadUncommitted,
            )
            .unwrap()[0]
            .end
    };
    let before = syncs();
    world.write("beside", 1, 10);
    wait_until("positions are written", SOON, || syncs() > before);

    target.kill9(0).unwrap();
    for (log, kept) in both.map(folder) {
        copy(&kept, &log);
    }
    target.restart(0).unwrap();
    let load = world.load("beside", 0);
    world.write("restored", 3, 20);
    world.write("halt", 3, 20);
    mirror.wait_for_log("id=target-lost", SOON);
    world.assert_goes_on("beside", 0);
    wait_until("nothing is missing", SOON, || {
        let compared = world.compare("restored");
        let p = &compared.partitions[0];
        p.left_count == 170 && p.lost == 0 && p.foreign == 0
    });
    // What is still there is not written twice, but for what the messages allow.
    let (compared, log) = (world.compare("restored"), mirror.log());
    let allowed: u64 = log
        .lines()
        .filter(|line| line.contains("topic=west.restored"))
        .flat_map(|line| {
            ["records are repeated", "records behind it stand twice"]
                .map(|words| number_before(line, words))
        })
        .sum();
    let twice = compared.partitions[0].right_count - 170;
    assert!(twice <= allowed, "{twice} of {allowed}: {compared}\n{log}");
    mirror.wait_for_log("link=halt id=target-", SOON);
    mirror.wait_for_log("topic=halt partition=0 flow stopped: the target", SOON);
    assert!(world.records("halt", 0) < 150);
    load.stop().unwrap();
    world.assert_equal("beside");
    mirror.stop();
}

#[test]
fn missing_replicas_and_moving_leaders_hold_up_only_their_own_topics() {
    let three = KafkaOptions::new()
        .nodes(3)
        .property("replica.lag.time.max.ms", "3000");
    let [source, target] = KafkaCluster::start_all([KafkaOptions::new(), three]).unwrap();
    let world = World::between(&source, &target);
    for topic in ["narrow", "moving", "beside"] {
        world
            .oracle
            .create_topic(&world.west, topic, 1, 1, &[])
            .unwrap();
    }
    let east = &world.east;
    let of = |topic: &str| {
        world
            .oracle
            .describe_topic(east, topic)
            .unwrap()
            .partitions
            .remove(0)
    };
    let narrow = [("min.insync.replicas", "2")];
    world
        .oracle
        .create_topic(east, "west.narrow", 1, 2, &narrow)
        .unwrap();
    world
        .oracle
        .create_topic(east, "west.moving", 1, 3, &[])
        .unwrap();
    world
        .oracle
        .create_topic(east, "west.beside", 1, 1, &[])
        .unwrap();
    // The follower of one topic is not the leader of another.
    let replicas = of("west.narrow").replicas;
    let follower = replicas[1];
    world
        .oracle
        .reassign(east, "west.beside", 0, &[replicas[0]])
        .unwrap();
    wait_until("it has moved", SOON, || {
        of("west.beside").leader == replicas[0]
    });
    let more =
        "connect-timeout = \"2s\"\nrequest-timeout = \"5s\"\ninternal-replication-factor = 3";
    let toml = west_to_east(
        &world.west,
        east,
        &[".*"],
        &format!("sync-topic-configs = false\n{more}"),
    );
    let mut mirror = Mirror::new(&toml).started();
    let load = world.load("beside", 0);
    let moving = world.load("moving", 0);
    world.write("narrow", 1, 100);
    wait_until("it is mirrored", SOON, || world.records("narrow", 0) == 100);

    // Leaders move under load.
    for leader in [2, 3, 1] {
        let others: Vec<i32> = [1, 2, 3].into_iter().filter(|n| *n != leader).collect();
        let order = [leader, others[0], others[1]];
        world
            .oracle
            .reassign(east, "west.moving", 0, &order)
            .unwrap();
        wait_until("it is led elsewhere", SOON, || {
            let _ = world.oracle.elect_preferred(east, "west.moving", 0);
            of("west.moving").leader == leader
        });
        world.assert_goes_on("moving", 0);
    }

    // One of two replicas is gone: nothing may be written there.
    target.kill9(node(follower)).unwrap();
    wait_until("a replica is missing", SOON, || {
        of("west.narrow").isr.len() == 1
    });
    world.write("narrow", 2, 50);
    mirror.wait_for_log("id=not-appended topic=narrow partition=0 ", SOON);
    mirror.wait_for_log("NOT_ENOUGH_REPLICAS", SOON);
    world.assert_goes_on("beside", 0);
    world.assert_goes_on("moving", 0);
    assert_eq!(world.records("narrow", 0), 100);
    target.restart(node(follower)).unwrap();
    load.stop().unwrap();
    moving.stop().unwrap();
    for topic in ["narrow", "moving", "beside"] {
        world.assert_equal(topic);
    }
    let log = mirror.log();
    assert!(!log.contains(" ERROR "), "{log}");
    mirror.stop();
}

/// The number in front of these words, 0 where they are missing.
fn number_before(line: &str, words: &str) -> u64 {
    let before = line.split(words).next().unwrap_or_default();
    let last = before.split_whitespace().last();
    let number = last.and_then(|n| n.parse().ok());
    number.filter(|_| line.contains(words)).unwrap_or(0)
}

/// What Strait calls itself towards brokers.
const CLIENT: &str = concat!("strait/", env!("CARGO_PKG_VERSION"));
/// Bytes per second; Kafka lets those of some ten seconds pass before it throttles.
const QUOTA: u64 = 400_000;
const BULK_RECORDS: u64 = 1_200;
const BULK_RECORD: u64 = 10_000;

#[test]
fn quotas_slow_a_mirror_down_and_a_broker_away_for_long_holds_up_only_its_own_flows() {
    let [source, target] =
        KafkaCluster::start_all([KafkaOptions::new().nodes(3), KafkaOptions::new()]).unwrap();
    let world = World::between(&source, &target);
    for topic in ["spread", "bulk"] {
        world
            .oracle
            .create_topic(&world.west, topic, 3, 1, &[])
            .unwrap();
    }
    let led = |topic: &str, leader: i32| {
        let topic = world.oracle.describe_topic(&world.west, topic).unwrap();
        let partition = topic.partitions.iter().find(|p| p.leader == leader);
        partition.unwrap().partition
    };
    let mut mirror = world.mirror("connect-timeout = \"2s\"", "");
    let beside = led("spread", 2);
    let load = world.load("spread", beside);
    let beside = usize::try_from(beside).unwrap();
    let bulk = led("bulk", 3);
    let away = led("spread", 1);
    let workload = Workload::new("spread").seed(1).partition(away);
    world.oracle.produce(&world.west, &workload, 100).unwrap();
    let away = usize::try_from(away).unwrap();
    wait_until("it is mirrored", SOON, || {
        world.records("spread", away) == 100
    });

    source.kill9(0).unwrap();
    let gone = Instant::now();
    // Each side's quota alone, the other's taken away.
    let quotas = [
        (&world.west, "consumer_byte_rate"),
        (&world.east, "producer_byte_rate"),
    ];
    for (round, (throttled, quota)) in (1..).zip(quotas) {
        let set = |to| {
            let quotas = [(quota, to)];
            world.oracle.set_quotas(throttled, CLIENT, &quotas).unwrap();
        };
        set(Some(QUOTA as f64));
        let begun = Instant::now();
        let size = usize::try_from(BULK_RECORD).unwrap();
        let workload = Workload::new("bulk")
            .seed(round)
            .partition(bulk)
            .size(size)
            .incompressible();
        let report = world
            .oracle
            .produce(&world.west, &workload, BULK_RECORDS)
            .unwrap();
        assert_eq!(report.acked, BULK_RECORDS, "{report:?}");
        world.assert_goes_on("spread", beside);
        let wanted = i64::try_from(BULK_RECORDS * round).unwrap();
        let bulk = usize::try_from(bulk).unwrap();
        wait_until("the bulk has arrived", 2 * SOON, || {
            world.on_target("bulk", bulk) >= wanted
        });
        // Not by a clock that a slow machine could fail: it may take longer, never less.
        let least = BULK_RECORDS * BULK_RECORD / QUOTA / 2;
        let took = begun.elapsed();
        assert!(took > Duration::from_secs(least), "{quota}: {took:?}");
        set(None);
        world.assert_goes_on("spread", beside);
    }
    wait_until("it has been away for long", SOON, || {
        gone.elapsed() > Duration::from_secs(45)
    });
    assert_eq!(world.records("spread", away), 100);
    source.restart(0).unwrap();
    world
        .oracle
        .produce(&world.west, &workload.clone().seed(9), 50)
        .unwrap();
    load.stop().unwrap();
    for topic in ["spread", "bulk"] {
        world.assert_equal(topic);
    }
    mirror.stop();
    // Quotas are no trouble. Of the broker that was away two things are said, whatever its flows are.
    let log = mirror.log();
    let about_the_dead =
        |line: &str| line.contains("id=source-unavailable") || line.contains("id=no-leader");
    let (expected, others): (Vec<&str>, Vec<&str>) = lines(&log, "WARN")
        .into_iter()
        .partition(|line| about_the_dead(line));
    assert!((1..=4).contains(&expected.len()), "{log}");
    assert_eq!(others, Vec::<&str>::new(), "{log}");
    assert_eq!(lines(&log, "ERROR"), Vec::<&str>::new(), "{log}");
}

#[test]
fn a_target_that_throttles_for_longer_than_requests_may_take_is_still_mirrored_to() {
    let [source, target] =
        KafkaCluster::start_all([KafkaOptions::new(), KafkaOptions::new()]).unwrap();
    let world = World::between(&source, &target);
    world
        .oracle
        .create_topic(&world.west, "bulk", 1, 1, &[])
        .unwrap();
    let mut mirror = world.mirror("request-timeout = \"10s\"", "");
    world.write("bulk", 1, 100);
    wait_until("it is mirrored", SOON, || world.on_target("bulk", 0) >= 100);
    // A request of a megabyte is worth 25 s of it, of which Kafka forgives ten.
    let rate = 40_000;
    let set = |to| {
        let quotas = [("producer_byte_rate", to)];
        let set = world.oracle.set_quotas(&world.east, CLIENT, &quotas);
        set.unwrap();
    };
    set(Some(f64::from(rate)));
    let workload = Workload::new("bulk")
        .seed(2)
        .partition(0)
        .size(1_000)
        .incompressible();
    let report = world.oracle.produce(&world.west, &workload, 2_000).unwrap();
    assert_eq!(report.acked, 2_000, "{report:?}");
    wait_until("the bulk has arrived", 3 * SOON, || {
        world.on_target("bulk", 0) >= 2_100
    });
    world.assert_equal("bulk");
    set(None);
    world.write("bulk", 3, 100);
    world.assert_equal("bulk");
    mirror.stop();
    // It is said why it is slow, and a pause is no broker that hangs.
    let log = mirror.log();
    assert!(log.contains("id=throttled"), "{log}");
    assert!(!log.contains("had no answer within"), "{log}");
    assert_eq!(lines(&log, "ERROR"), Vec::<&str>::new(), "{log}");
}
