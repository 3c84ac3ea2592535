//! What becomes of a mirror whose source is not what it was: both choices of each key, on real Kafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod pair;
mod rig;

use pair::{Pair, SOON, gaps, wait_for_gaps};

/// Deletes the topic on the source and creates it again with other records.
fn create_again(pair: &Pair, topic: &str, values: &[&str]) {
    pair.oracle.delete_topic(&pair.west, topic).unwrap();
    rig::wait_until("the topic is gone", SOON, || {
        let topics = pair.oracle.list_topics(&pair.west).unwrap();
        !topics.iter().any(|t| t == topic)
    });
    pair.create(topic);
    pair.write(topic, values);
}

#[test]
fn a_source_topic_that_was_created_again_follows_the_old_one() {
    let pair = Pair::shared();
    pair.create("again");
    pair.write("again", &["a", "b", "c"]);
    let mut mirror = pair.mirror("again", "");
    pair.wait_for("again", &["a", "b", "c"]);
    create_again(&pair, "again", &["d", "e", "f", "g"]);
    pair.wait_for("again", &["a", "b", "c", "d", "e", "f", "g"]);
    mirror.wait_for_log("id=source-recreated topic=again partition=0 the source topic was re-created: mirroring it from offset 0", SOON);
    mirror.stop();
}

#[test]
fn a_source_topic_that_was_created_again_can_stop_its_flow() {
    let pair = Pair::shared();
    pair.create("again-stop");
    pair.write("again-stop", &["a", "b", "c"]);
    let mut mirror = pair.mirror("again-stop", "on-source-recreated = \"stop\"");
    pair.wait_for("again-stop", &["a", "b", "c"]);
    create_again(&pair, "again-stop", &["d"]);
    mirror.wait_for_log(
        "id=source-recreated topic=again-stop partition=0 flow stopped: the source topic again-stop was re-created on cluster west",
        SOON,
    );
    mirror.stop();
    assert_eq!(pair.values("again-stop"), ["a", "b", "c"]);

    let mut mirror = pair.mirror("again-stop", "");
    pair.wait_for("again-stop", &["a", "b", "c", "d"]);
    mirror.stop();
}

/// Mirrors two of five records, then the source loses all but the last one to retention.
fn overtake(pair: &Pair, topic: &str) {
    pair.create(topic);
    pair.write(topic, &["a", "b"]);
    let mut mirror = pair.mirror(topic, "");
    pair.wait_for(topic, &["a", "b"]);
    mirror.stop();
    pair.write(topic, &["c", "d", "e"]);
    pair.oracle.delete_records(&pair.west, topic, 0, 4).unwrap();
}

#[test]
fn what_retention_took_is_a_gap() {
    let pair = Pair::shared();
    overtake(&pair, "expired");
    let mut mirror = pair.mirror("expired", "");
    pair.wait_for("expired", &["a", "b", "e"]);
    let log = mirror.log();
    assert!(log.contains("id=retention-overtook topic=expired partition=0 retention on the source overtook the mirror: offsets 2 to 3 are gone"), "{log}");
    wait_for_gaps(&mirror, "\"left_out\":{\"expired\":2}");
    mirror.stop();
}

#[test]
fn a_mirror_that_retention_overtook_can_stop_its_flow() {
    let pair = Pair::shared();
    overtake(&pair, "expired-stop");
    let mut mirror = pair.mirror("expired-stop", "on-retention-overtook = \"stop\"");
    mirror.wait_for_log("id=retention-overtook topic=expired-stop partition=0 flow stopped: retention overtook the mirror: expired-stop-0 on cluster west begins at offset 4 now, and 2 would be next", SOON);
    mirror.stop();
    assert_eq!(pair.values("expired-stop"), ["a", "b"]);
    assert!(gaps(mirror.folder()).contains("\"source_next\":2,"));

    let mut mirror = pair.mirror("expired-stop", "");
    pair.wait_for("expired-stop", &["a", "b", "e"]);
    mirror.stop();
}
