//! What becomes of a mirror whose source is not what it was: both choices of each key, on real Kafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod page;
mod pair;
mod rig;

use page::metric;
use pair::{Pair, SOON, gaps, gaps_table, wait_for_gaps};
use rig::{Mirror, free_port, wait_until, west_to_east};
use rustix::process::Signal;

/// Deletes the topic on the source and creates it again with other records.
fn create_again(pair: &Pair, topic: &str, values: &[&str]) {
    pair.oracle.delete_topic(&pair.west, topic).unwrap();
    wait_until("the topic is gone", SOON, || {
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
    assert!(log.contains("id=retention-overtook topic=expired partition=0 retention on the source overtook the mirror: offsets 2 to 3 of expired-0 are gone on cluster west"), "{log}");
    wait_for_gaps(
        &mirror,
        "\"left_out\":{\"expired\":2},\"lost\":[{\"reason\":\"expired\",\"from\":2,\"to\":3,\"offsets\":2}]",
    );
    mirror.stop();
    let table = gaps_table(mirror.folder());
    assert!(
        table.ends_with("\n\nLOST FROM  REASON   OFFSETS  COUNT\nexpired-0  expired      2-3  2\n"),
        "{table}"
    );
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

/// The offsets that a mirror of one flow has recorded as expired, by `strait gaps`.
fn expired(mirror: &Mirror) -> u64 {
    let printed = gaps(mirror.folder());
    let count = printed.split("\"left_out\":{\"expired\":").nth(1);
    count.map_or(0, |rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap().parse().unwrap()
    })
}

#[test]
fn the_metric_counts_what_retention_took_once_over_all_lives_of_the_mirror() {
    let pair = Pair::shared();
    let topic = "counted";
    let port = free_port();
    let more = "name = \"counted\"\nsync-topic-configs = false";
    let listen = format!("127.0.0.1:{port}");
    let mut mirror = Mirror::new(&west_to_east(&pair.west, &pair.east, &[topic], more))
        .arguments(&["--admin-listen", &listen]);
    let series = "strait_gap_offsets_total{link=\"counted\",reason=\"expired\"}";
    // None until something is counted.
    let counted = || metric(port, series).unwrap_or(0.0) as u64;
    let lose = |values: &[&str], before| {
        pair.write(topic, values);
        let lost = pair.oracle.delete_records(&pair.west, topic, 0, before);
        lost.unwrap();
    };
    pair.create(topic);
    pair.write(topic, &["a", "b"]);
    mirror.start();
    pair.wait_for(topic, &["a", "b"]);
    mirror.stop();

    // While it was down.
    lose(&["c", "d", "e"], 4);
    mirror.start();
    pair.wait_for(topic, &["a", "b", "e"]);
    wait_for_gaps(&mirror, "\"source_next\":5,");
    wait_until("it is counted", SOON, || counted() == 2);
    assert_eq!(expired(&mirror), 2);
    // While it ran, but for what a fetch under way brings.
    mirror.signal(Signal::STOP);
    lose(&["f", "g", "h", "i"], 8);
    mirror.signal(Signal::CONT);
    wait_for_gaps(&mirror, "\"source_next\":9,");
    let first = expired(&mirror);
    assert!((4..=5).contains(&first), "{first}");
    wait_until("it is counted", SOON, || counted() == first);

    // Around a crash: nothing of before is counted again, nothing of after is left out.
    mirror.signal(Signal::STOP);
    lose(&["j"], 10);
    mirror.kill9();
    lose(&["k", "l"], 11);
    mirror.start();
    wait_for_gaps(&mirror, "\"source_next\":12,");
    pair.write(topic, &["m"]);
    wait_for_gaps(&mirror, "\"source_next\":13,");
    let all = expired(&mirror);
    assert_eq!((all, counted()), (first + 2, 2));
    // Which offsets it was: of the second time all but what the fetch under way brought.
    let range = |from: u64, to: u64| {
        let offsets = to - from + 1;
        format!("{{\"reason\":\"expired\",\"from\":{from},\"to\":{to},\"offsets\":{offsets}}}")
    };
    let ranges = [range(2, 3), range(10 - first, 7), range(9, 10)].join(",");
    let listed = gaps(mirror.folder());
    assert!(listed.contains(&format!("\"lost\":[{ranges}]")), "{listed}");
    let written = 13;
    assert_eq!(pair.values(topic).len() as u64 + all, written);
    mirror.stop();
}
