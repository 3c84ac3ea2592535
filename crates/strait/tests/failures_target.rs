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

use std::sync::atomic::{AtomicU32, Ordering};

use pair::{Pair, SOON, record, wait_for_gaps};
use rig::wait_until;
use rustix::process::Signal;
use strait_testkit::kafka::{Codec, Isolation, KafkaCluster, KafkaOptions, RecordSpec};

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

/// Two clusters, of which the target looks every 200 ms for what has expired.
fn retaining() -> Pair {
    let options = || {
        KafkaOptions::new()
            .property("log.retention.check.interval.ms", "200")
            .property("log.initial.task.delay.ms", "100")
    };
    let target = KafkaCluster::shared("retaining", options).unwrap();
    Pair {
        east: target.bootstrap(),
        ..Pair::shared()
    }
}

const FOREVER: [(&str, &str); 1] = [("retention.ms", "-1")];

fn create_keeping(pair: &Pair, topic: &str) {
    pair.create_both_with(topic, &FOREVER, &FOREVER);
}

/// A record of years ago.
fn old(value: &str) -> RecordSpec {
    RecordSpec {
        timestamp: Some(1_650_000_000_000),
        ..record(value)
    }
}

/// Records of years ago, in one batch each.
fn write_old(pair: &Pair, topic: &str, values: &[&str]) {
    for value in values {
        pair.batch(topic, &[old(value)]);
    }
}

const AT_ONCE: [(&str, &str); 1] = [("retention.ms", "1")];

/// Retention takes all that the target holds, and nothing that is written from now on.
fn empty(pair: &Pair, topic: &str) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    pair.set(topic, &AT_ONCE);
    pair.wait_for(topic, &[]);
    pair.set(topic, &FOREVER);
    // A broker obeys a setting some time after it was accepted. It learns of a topic made later only after that, and
    // where retention has been at work in that one, it does not go on in the other by what it knew before.
    let later = format!("later-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let (oracle, east) = (&pair.oracle, &pair.east);
    oracle.create_topic(east, &later, 1, 1, &AT_ONCE).unwrap();
    oracle
        .send(east, &later, Codec::None, &[old("gone")])
        .unwrap();
    wait_until("retention has been at work", SOON, || {
        let offsets = oracle.offsets(east, &later, Isolation::ReadUncommitted);
        offsets.unwrap()[0].start == 1
    });
}

#[test]
fn a_target_that_retention_emptied_goes_on_where_it_was() {
    let pair = retaining();
    let topic = "emptied";
    create_keeping(&pair, topic);
    write_old(&pair, topic, &["a", "b", "c"]);
    let mut mirror = pair.mirror(topic, "internal-replication-factor = 1");
    pair.wait_for(topic, &["a", "b", "c"]);
    wait_for_gaps(&mirror, "\"source_next\":3,");

    // The markers of a restart are of today: they go too.
    mirror.kill9();
    write_old(&pair, topic, &["d"]);
    empty(&pair, topic);
    let mut mirror = pair.mirror(topic, "internal-replication-factor = 1");
    pair.wait_for(topic, &["d"]);
    wait_for_gaps(&mirror, "\"source_next\":4,");
    let log = mirror.log();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    // And under the running mirror, which is told by the next answer.
    empty(&pair, topic);
    write_old(&pair, topic, &["e"]);
    pair.wait_for(topic, &["e"]);
    mirror.wait_for_log("id=target-expired topic=west.emptied partition=0 the target deletes what was just mirrored: offsets 4 to 4 of west.emptied-0 on cluster east are gone, its log starts at 5 now; mirroring goes on, and what was deleted is not mirrored again", SOON);
    wait_for_gaps(&mirror, "\"source_next\":5,");
    mirror.stop();
}

#[test]
fn a_target_that_retention_empties_can_stop_its_flow() {
    let pair = retaining();
    let topic = "emptied-stop";
    create_keeping(&pair, topic);
    write_old(&pair, topic, &["a"]);
    let stop = "internal-replication-factor = 1\non-target-expired = \"stop\"";
    let mut mirror = pair.mirror(topic, stop);
    pair.wait_for(topic, &["a"]);
    empty(&pair, topic);
    write_old(&pair, topic, &["b"]);
    let stopped = "id=target-expired topic=emptied-stop partition=0 flow stopped: the target deletes what was just mirrored: the log of west.emptied-stop-0 on cluster east starts at offset 1 now; nothing was mirrored since";
    mirror.wait_for_log(stopped, SOON);
    write_old(&pair, topic, &["c"]);
    mirror.stop();

    // The next process knows it.
    let mut mirror = pair.mirror(topic, stop);
    mirror.wait_for_log(stopped, SOON);
    assert_eq!(pair.values(topic), ["b"]);
    mirror.kill9();
    let mut mirror = pair.mirror(topic, "internal-replication-factor = 1");
    pair.wait_for(topic, &["b", "c"]);
    mirror.stop();
    // Nothing expired since.
    let mut mirror = pair.mirror(topic, stop);
    write_old(&pair, topic, &["d"]);
    pair.wait_for(topic, &["b", "c", "d"]);
    mirror.stop();
}

#[test]
fn a_target_that_retention_emptied_is_mirrored_again_into_a_new_topic() {
    let pair = retaining();
    let topic = "emptied-anew";
    create_keeping(&pair, topic);
    write_old(&pair, topic, &["a"]);
    let stop = "internal-replication-factor = 1\non-target-expired = \"stop\"";
    let mut mirror = pair.mirror(topic, stop);
    pair.wait_for(topic, &["a"]);
    empty(&pair, topic);
    write_old(&pair, topic, &["b"]);
    mirror.wait_for_log("id=target-expired", SOON);
    // As the message says. The mirror would make the topic itself, with other settings, if it looked in between.
    mirror.signal(Signal::STOP);
    let mirrored = format!("west.{topic}");
    pair.oracle.delete_topic(&pair.east, &mirrored).unwrap();
    let created = pair
        .oracle
        .create_topic(&pair.east, &mirrored, 1, 1, &FOREVER);
    created.unwrap();
    mirror.signal(Signal::CONT);
    pair.wait_for(topic, &["a", "b"]);
    mirror.stop();
}
