//! Real brokers brought to harm: elections that lose records, restored disks, missing replicas, moving leaders. One
//! flow's trouble never holds up another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod rig;

use std::path::Path;
use std::time::Duration;

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

    fn mirror(&self, more: &str) -> Mirror {
        let more = format!(
            "sync-topic-configs = false\ninternal-replication-factor = 1\nreplication-factor = 1\n{more}"
        );
        Mirror::new(&west_to_east(&self.west, &self.east, &[".*"], &more)).started()
    }
}

/// A node's place in its cluster.
fn node(id: i32) -> usize {
    usize::try_from(id - 1).unwrap()
}

#[test]
fn records_that_an_unclean_election_took_from_the_source_stay_and_the_new_ones_follow() {
    let oracle = Oracle::shared().unwrap();
    let three = KafkaOptions::new()
        .nodes(3)
        .property("replica.lag.time.max.ms", "3000");
    let [source, target] = KafkaCluster::start_all([three, KafkaOptions::new()]).unwrap();
    let world = World {
        oracle,
        west: source.bootstrap(),
        east: target.bootstrap(),
    };
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
    let mut mirror = world.mirror("connect-timeout = \"2s\"\nrequest-timeout = \"3s\"");
    let load = world.load("beside", beside);
    world.write("cut", 1, 100);
    wait_until("it is mirrored", SOON, || world.on_target("cut", 0) == 100);

    // Only the leader has what comes now; then only the other one is left.
    source.kill9(node(second)).unwrap();
    world.write("cut", 2, 50);
    wait_until("it is mirrored", SOON, || world.on_target("cut", 0) == 150);
    source.kill9(node(first)).unwrap();
    world.assert_goes_on("beside", beside_at);
    source.restart(node(second)).unwrap();
    wait_until("the other one leads", SOON, || {
        let cut = world.oracle.describe_topic(&world.west, "cut").unwrap();
        cut.partitions[0].leader == second
    });
    world.write("cut", 3, 30);
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
    world.assert_goes_on("beside", beside_at);
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
    let oracle = Oracle::shared().unwrap();
    let [source, target] =
        KafkaCluster::start_all([KafkaOptions::new(), KafkaOptions::new()]).unwrap();
    let world = World {
        oracle,
        west: source.bootstrap(),
        east: target.bootstrap(),
    };
    for topic in ["restored", "beside"] {
        world
            .oracle
            .create_topic(&world.west, topic, 1, 1, &[])
            .unwrap();
    }
    let mut mirror = world.mirror("connect-timeout = \"2s\"\nrequest-timeout = \"3s\"");
    world.write("restored", 1, 100);
    wait_until("it is mirrored", SOON, || {
        world.on_target("restored", 0) == 100
    });
    target.stop(0).unwrap();
    let folder = target.partition_dir(0, "west.restored", 0).unwrap();
    let backup = tempfile::tempdir().unwrap();
    copy(&folder, &backup.path().join("log"));
    target.restart(0).unwrap();
    world.write("restored", 2, 50);
    // With the marker of the flow that looked again after the restart, if there was doubt.
    wait_until("it is mirrored", SOON, || {
        world.on_target("restored", 0) >= 150
    });
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
    copy(&backup.path().join("log"), &folder);
    target.restart(0).unwrap();
    let load = world.load("beside", 0);
    world.write("restored", 3, 20);
    mirror.wait_for_log("id=target-lost", SOON);
    world.assert_goes_on("beside", 0);
    wait_until("nothing is missing", SOON, || {
        let compared = world.compare("restored");
        let p = &compared.partitions[0];
        p.left_count == 170 && p.lost == 0 && p.foreign == 0
    });
    // What is still there is not written twice, but for what the message allows.
    let compared = world.compare("restored");
    assert!(compared.partitions[0].right_count <= 220, "{compared}");
    load.stop().unwrap();
    world.assert_equal("beside");
    mirror.stop();
}

#[test]
fn missing_replicas_and_moving_leaders_hold_up_only_their_own_topics() {
    let oracle = Oracle::shared().unwrap();
    let three = KafkaOptions::new()
        .nodes(3)
        .property("replica.lag.time.max.ms", "3000");
    let [source, target] = KafkaCluster::start_all([KafkaOptions::new(), three]).unwrap();
    let world = World {
        oracle,
        west: source.bootstrap(),
        east: target.bootstrap(),
    };
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
    wait_until("it is mirrored", SOON, || {
        world.on_target("narrow", 0) == 100
    });

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
    mirror.wait_for_log("NOT_ENOUGH_REPLICAS", SOON);
    world.assert_goes_on("beside", 0);
    world.assert_goes_on("moving", 0);
    assert_eq!(world.on_target("narrow", 0), 100);
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
