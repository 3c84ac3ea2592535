//! Mirrors from and to brokers that offer no more than older releases did, killed on the way: nothing is lost or
//! doubled with what they have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod kit;
mod outcome;
mod rig;

use std::time::Duration;

use kit::{Kit, cluster};
use outcome::lines;
use rig::{Mirror, west_to_east};
use strait_testkit::compare::compare;
use strait_testkit::legacy::Format;
use strait_testkit::workload::{Age, Generator, Workload};
use strait_testkit::{Codec, Release};

const SOON: Duration = Duration::from_secs(120);

/// Both sides hold the same once the mirror has come to the end.
fn assert_mirrored(west: &Kit, east: &Kit, mirror: &Mirror) {
    let mut report = String::new();
    let equal = rig::holds_within(SOON, || {
        let compared = compare(&west.broker, &east.broker, |topic| format!("west.{topic}"));
        report = compared.to_string();
        if !compared.is_equal() {
            // Each look takes from what it waits for.
            rig::pass(Duration::from_millis(200));
        }
        compared.is_equal()
    });
    assert!(equal, "{report}\n{}", mirror.tail());
}

/// Mirrors a workload with kills in between; `west` or `east` is the older one.
fn mirror_with_kills(west: Option<Release>, east: Option<Release>) {
    let runtime = kit::runtime();
    let settings = |id, release| match release {
        Some(release) => cluster(id).release(release),
        None => cluster(id),
    };
    let sides = [settings("west", west), settings("east", east)];
    let [west, east] = sides.map(|config| kit::start(&runtime, config));
    let workload = Workload {
        partitions: 2,
        age: Age::Recent,
        ..Workload::default()
    };
    let mut generator = Generator::new(&west.broker, workload).unwrap();
    generator.write(60).unwrap();
    let more = "internal-replication-factor = 1\nrefresh-groups = \"1s\"\nsync-group-offsets-interval = \"1s\"";
    let config = west_to_east(&west.address, &east.address, &[".*"], more);
    let mut mirror = Mirror::new(&config).started();
    for round in 0..3 {
        generator.write(60).unwrap();
        // A leader of a new epoch, without loss: where Fetch proves no epochs the mirror has to ask.
        west.broker.elect("orders", 0, 1);
        east.broker.elect("west.orders", 1, 1);
        generator.write(20).unwrap();
        mirror.wait_for_log("mirroring", SOON);
        if round == 1 {
            generator.finish().unwrap();
            assert_mirrored(&west, &east, &mirror);
        }
        mirror.kill9();
        generator.write(20).unwrap();
        mirror.start();
    }
    generator.finish().unwrap();
    assert_mirrored(&west, &east, &mirror);
    // A group behind all records, and one with members.
    let place = ("west.orders".to_owned(), 0);
    let end = |kit: &Kit, topic: &str| {
        let records = kit.broker.records(topic, 0, true);
        records.last().unwrap().offset + 1
    };
    east.broker.set_group_live("busy", true);
    for group in ["busy", "readers"] {
        let at = end(&west, "orders");
        west.broker.commit(group, "orders", 0, at);
    }
    let expected = end(&east, "west.orders");
    let committed = || east.broker.commits("readers").get(&place).map(|c| c.offset);
    rig::wait_until("the group's offset follows", SOON, || {
        // Fences may follow the last record.
        let all = expected..=east.broker.log_end("west.orders", 0);
        committed().is_some_and(|at| all.contains(&at))
    });
    assert!(east.broker.commits("busy").is_empty());
    mirror.stop();
    let log = mirror.log();
    assert_eq!(lines(&log, "ERROR"), Vec::<&str>::new(), "{log}");
    // A clean stop is gone on from without a fence.
    generator.write(10).unwrap();
    generator.finish().unwrap();
    mirror.start();
    assert_mirrored(&west, &east, &mirror);
    mirror.stop();
    runtime.shutdown_background();
}

#[test]
fn older_sources_are_mirrored() {
    std::thread::scope(|scope| {
        for release in Release::ALL {
            scope.spawn(move || mirror_with_kills(Some(release), None));
        }
    });
}

#[test]
fn older_targets_are_mirrored_into() {
    std::thread::scope(|scope| {
        for release in Release::ALL {
            scope.spawn(move || mirror_with_kills(None, Some(release)));
        }
    });
}

#[test]
fn a_target_before_2_3_gets_settings_at_creation_and_says_that_later_ones_cannot_follow() {
    let runtime = kit::runtime();
    let west = kit::start(&runtime, cluster("west"));
    let east = kit::start(&runtime, cluster("east").release(Release::V2_1));
    west.broker
        .create_topic("tuned", 1, &[("retention.ms", "7200000")])
        .unwrap();
    let config = west_to_east(&west.address, &east.address, &["tuned", "later"], "");
    let mut mirror = Mirror::new(&config).started();
    mirror.wait_for_log("mirroring", SOON);
    let kept = || {
        east.broker
            .topic_configs("west.tuned")
            .get("retention.ms")
            .cloned()
    };
    assert_eq!(kept().as_deref(), Some("7200000"));
    west.broker
        .set_topic_config("tuned", "retention.ms", "3600000")
        .unwrap();
    let refused = "id=setting-refused topic=west.tuned the target refuses the setting retention.ms=3600000, it is left out: ";
    mirror.wait_for_log(refused, SOON);
    // New topics are found all the same.
    west.broker.create_topic("later", 1, &[]).unwrap();
    let mut producer = west.broker.idempotent_producer();
    let records = kit::records("tuned", 20, 100);
    producer.send("tuned", 0, Codec::Zstd, &records).unwrap();
    rig::wait_until("records go on", SOON, || {
        kit::difference((&west, "tuned"), (&east, "west.tuned")).is_none()
    });
    assert_eq!(kept().as_deref(), Some("7200000"));
    mirror.stop();
    let log = mirror.log();
    assert_eq!(
        outcome::count(&log, "does not support IncrementalAlterConfigs"),
        1,
        "{log}"
    );
    runtime.shutdown_background();
}

#[test]
fn messages_of_formats_v0_and_v1_arrive_with_the_times_that_consumers_see() {
    let runtime = kit::runtime();
    let west = kit::start(&runtime, cluster("west").release(Release::V2_8));
    let east = kit::start(&runtime, cluster("east"));
    west.broker
        .create_topic("ancient", 1, &[("retention.ms", "-1")])
        .unwrap();
    let write = |name: &str| {
        let sets = [
            (Format::V0, Codec::None),
            (Format::V0, Codec::Gzip),
            (Format::V0, Codec::Snappy),
            (Format::V1, Codec::None),
            (Format::V1, Codec::Gzip),
            (Format::V1, Codec::Snappy),
            (Format::V1, Codec::Lz4),
        ];
        for (number, (format, codec)) in sets.into_iter().enumerate() {
            let mut records = kit::records(&format!("{name}/{number}"), 7, 120);
            records[3].key = None;
            records[4].value = None;
            west.broker
                .append_legacy("ancient", 0, format, codec, &records)
                .unwrap();
        }
    };
    write("a");
    let config = west_to_east(&west.address, &east.address, &["ancient"], "");
    let mut mirror = Mirror::new(&config).started();
    mirror.wait_for_log("mirroring", SOON);
    mirror.kill9();
    write("b");
    mirror.start();
    assert_mirrored(&west, &east, &mirror);
    // The topic is written in the present format from here on.
    let mut producer = west.broker.idempotent_producer();
    let records = kit::records("new", 20, 100);
    producer.send("ancient", 0, Codec::Zstd, &records).unwrap();
    assert_mirrored(&west, &east, &mirror);
    let found = east.broker.records("west.ancient", 0, true);
    assert_eq!(found.len(), 2 * 7 * 7 + 20);
    assert_eq!(
        found.iter().filter(|r| r.timestamp == -1).count(),
        2 * 3 * 7
    );
    mirror.stop();
    let log = mirror.log();
    assert_eq!(lines(&log, "ERROR"), Vec::<&str>::new(), "{log}");
    runtime.shutdown_background();
}
