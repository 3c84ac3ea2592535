//! What becomes of a mirror whose target topic is deleted, or written to by somebody else: both choices, on real Kafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod pair;
mod rig;

use pair::{Pair, SOON, record, wait_for_gaps};
use strait_testkit::kafka::{Codec, KafkaCluster, KafkaOptions, RecordSpec};

#[test]
fn a_target_topic_that_was_deleted_is_mirrored_again() {
    let pair = Pair::shared();
    pair.create("deleted");
    pair.write("deleted", &["a", "b"]);
    let mut mirror = pair.mirror("deleted", "");
    pair.wait_for("deleted", &["a", "b"]);
    pair.oracle
        .delete_topic(&pair.east, "west.deleted")
        .unwrap();
    mirror.wait_for_log("id=target-recreated topic=west.deleted partition=0 the target topic was re-created on cluster east: mirroring again from source offset 0", SOON);
    pair.write("deleted", &["c"]);
    pair.wait_for("deleted", &["a", "b", "c"]);
    mirror.stop();
}

#[test]
fn a_target_topic_that_was_deleted_can_stop_its_flow() {
    let pair = Pair::shared();
    pair.create("deleted-stop");
    pair.write("deleted-stop", &["a", "b"]);
    let mut mirror = pair.mirror("deleted-stop", "on-target-recreated = \"stop\"");
    pair.wait_for("deleted-stop", &["a", "b"]);
    pair.oracle
        .delete_topic(&pair.east, "west.deleted-stop")
        .unwrap();
    mirror.wait_for_log(
        "id=target-recreated topic=deleted-stop partition=0 flow stopped: the target topic west.deleted-stop was re-created on cluster east",
        SOON,
    );
    pair.write("deleted-stop", &["c"]);
    mirror.stop();
    assert_eq!(pair.values("deleted-stop"), [""; 0]);

    let mut mirror = pair.mirror("deleted-stop", "");
    pair.wait_for("deleted-stop", &["a", "b", "c"]);
    mirror.stop();
}

/// Somebody else writes to the target topic.
fn intrude(pair: &Pair, topic: &str, value: &str) {
    let mirrored = format!("west.{topic}");
    pair.oracle
        .send(&pair.east, &mirrored, Codec::None, &[record(value)])
        .unwrap();
}

#[test]
fn a_target_topic_that_holds_records_already_is_left_alone_at_the_first_start() {
    let pair = Pair::shared();
    pair.create("held");
    pair.oracle
        .create_topic(&pair.east, "west.held", 1, 1, &[])
        .unwrap();
    intrude(&pair, "held", "x");
    pair.write("held", &["a"]);
    let mut mirror = pair.mirror("held", "");
    mirror.wait_for_log("id=target-has-data topic=held partition=0 flow stopped: west.held-0 on cluster east: the target holds data from offset 0 to 1 that this link has no position for: nothing was mirrored", SOON);
    assert_eq!(pair.values("held"), ["x"]);
    // As the message says.
    pair.oracle.delete_topic(&pair.east, "west.held").unwrap();
    pair.wait_for("held", &["a"]);
    mirror.stop();
}

#[test]
fn another_writer_stops_the_flow() {
    let pair = Pair::shared();
    pair.create("foreign");
    pair.write("foreign", &["a"]);
    let mut mirror = pair.mirror("foreign", "");
    pair.wait_for("foreign", &["a"]);
    intrude(&pair, "foreign", "x");
    pair.write("foreign", &["b"]);
    mirror.wait_for_log("id=foreign-writer topic=foreign partition=0 flow stopped: the target partition west.foreign-0 on cluster east is not what this link left: offset 1 was written by another producer", SOON);
    // The record that found it out was stored behind the other's.
    pair.write("foreign", &["c"]);
    mirror.stop();
    assert_eq!(pair.values("foreign"), ["a", "x", "b"]);

    let mut mirror = pair.mirror("foreign", "on-foreign-writer = \"continue\"");
    pair.wait_for("foreign", &["a", "x", "b", "c"]);
    mirror.stop();
}

#[test]
fn beside_another_writer_each_record_still_arrives_once() {
    let pair = Pair::shared();
    let more = "on-foreign-writer = \"continue\"";
    pair.create("beside-it");
    pair.write("beside-it", &["a"]);
    let mut mirror = pair.mirror("beside-it", more);
    pair.wait_for("beside-it", &["a"]);
    intrude(&pair, "beside-it", "x");
    pair.write("beside-it", &["b", "c"]);
    pair.wait_for("beside-it", &["a", "x", "b", "c"]);
    intrude(&pair, "beside-it", "y");
    mirror.kill9();
    pair.write("beside-it", &["d"]);
    let mut mirror = pair.mirror("beside-it", more);
    pair.wait_for("beside-it", &["a", "x", "b", "c", "y", "d"]);
    mirror.stop();
}

#[test]
fn a_target_that_retention_emptied_goes_on_where_it_was() {
    let retaining = || {
        KafkaOptions::new()
            .property("log.retention.check.interval.ms", "200")
            .property("log.initial.task.delay.ms", "100")
    };
    let target = KafkaCluster::shared("retaining", retaining).unwrap();
    let pair = Pair {
        east: target.bootstrap(),
        ..Pair::shared()
    };
    let topic = "emptied";
    let forever = [("retention.ms", "-1")];
    pair.create_both(topic, &forever);
    let on_source = pair
        .oracle
        .alter_topic_configs(&pair.west, topic, &forever, &[]);
    on_source.unwrap();
    let old = |value| RecordSpec {
        timestamp: Some(1_650_000_000_000),
        ..record(value)
    };
    pair.batch(topic, &[old("a"), old("b")]);
    pair.batch(topic, &[old("c")]);
    let mut mirror = pair.mirror(topic, "internal-replication-factor = 1");
    pair.wait_for(topic, &["a", "b", "c"]);
    wait_for_gaps(&mirror, "\"source_next\":3,");

    // The markers of a restart are of today: they go too.
    let empty = || {
        pair.set(topic, &[("retention.ms", "1")]);
        pair.wait_for(topic, &[]);
        pair.set(topic, &forever);
    };
    mirror.kill9();
    pair.batch(topic, &[old("d")]);
    empty();
    let mut mirror = pair.mirror(topic, "internal-replication-factor = 1");
    pair.wait_for(topic, &["d"]);
    // And under the running mirror.
    empty();
    pair.batch(topic, &[old("e")]);
    pair.wait_for(topic, &["e"]);
    wait_for_gaps(&mirror, "\"source_next\":5,");
    mirror.stop();
    let log = mirror.log();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
}
