//! Records that the target refuses: split, waited for, or left out, on real Kafka.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod pair;
mod rig;

use std::time::{SystemTime, UNIX_EPOCH};

use pair::{Pair, SOON, gaps_table, record, wait_for_gaps};
use strait_testkit::kafka::RecordSpec;

const SKIP: &str = "on-refused-record = \"skip\"";

/// A value of so many bytes that does not compress.
fn large(name: &str, bytes: usize) -> String {
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    });
    format!("{name}{}", noise.take(bytes).collect::<String>())
}

#[test]
fn batches_above_the_targets_limit_are_split() {
    let pair = Pair::shared();
    pair.create_both("split", &[("max.message.bytes", "20000")]);
    let values: Vec<String> = (0..100).map(|i| large(&format!("{i}/"), 1_000)).collect();
    let records: Vec<RecordSpec> = values.iter().map(|v| record(v)).collect();
    pair.batch("split", &records);
    let mut mirror = pair.mirror("split", "");
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    pair.wait_for("split", &values);

    // Lowered under the running mirror: noticed at the latest when the broker refuses a batch.
    pair.set("split", &[("max.message.bytes", "5000")]);
    pair.batch("split", &records);
    pair.wait_for("split", &[values.clone(), values].concat());
    let log = mirror.log();
    assert!(!log.contains("ERROR"), "{log}");
    mirror.stop();
}

#[test]
fn a_record_that_is_too_large_waits_until_the_limit_is_raised() {
    let pair = Pair::shared();
    pair.create_both("too-large", &[("max.message.bytes", "5000")]);
    let big = large("big", 9_000);
    pair.write("too-large", &["a", &big, "b"]);
    let mut mirror = pair.mirror("too-large", "");
    mirror.wait_for_log("id=record-refused topic=too-large partition=0 flow stopped: the target refused source offsets 1..=1", SOON);
    pair.wait_for("too-large", &["a"]);
    let log = mirror.log();
    assert!(
        log.contains("for west.too-large-0 on cluster east: MESSAGE_TOO_LARGE (10)"),
        "{log}"
    );
    assert!(log.contains("raise max.message.bytes"), "{log}");

    pair.set("too-large", &[("max.message.bytes", "1000000")]);
    pair.wait_for("too-large", &["a", &big, "b"]);
    mirror.wait_for_log("flow goes on", SOON);
    mirror.stop();
}

#[test]
fn a_record_that_is_too_large_can_be_left_out() {
    let pair = Pair::shared();
    pair.create_both("skip-large", &[("max.message.bytes", "5000")]);
    let big = large("big", 9_000);
    // In the middle of a batch, and alone.
    pair.batch("skip-large", &[record("a"), record(&big), record("b")]);
    pair.write("skip-large", &[&big, "c"]);
    let mut mirror = pair.mirror("skip-large", SKIP);
    pair.wait_for("skip-large", &["a", "b", "c"]);
    let log = mirror.log();
    for offset in [1, 3] {
        let said = format!(
            "id=record-skipped topic=skip-large partition=0 left out source offsets {offset} to {offset}: west.skip-large on cluster east refuses them: MESSAGE_TOO_LARGE (10)"
        );
        assert_eq!(log.matches(&said).count(), 1, "{log}");
    }
    wait_for_gaps(&mirror, "\"source_next\":5,");
    wait_for_gaps(
        &mirror,
        "\"left_out\":{\"refused\":2},\"lost\":[{\"reason\":\"refused\",\"from\":1,\"to\":1,\"offsets\":1},{\"reason\":\"refused\",\"from\":3,\"to\":3,\"offsets\":1}]",
    );

    // What was left out stays left out, and nothing is repeated, after a crash too.
    mirror.kill9();
    pair.write("skip-large", &["d"]);
    let mut mirror = pair.mirror("skip-large", SKIP);
    pair.wait_for("skip-large", &["a", "b", "c", "d"]);
    mirror.stop();
    let table = gaps_table(mirror.folder());
    assert!(
        table.ends_with(
            "\n\nLOST FROM     REASON   OFFSETS  COUNT\nskip-large-0  refused      1-1  1\nskip-large-0  refused      3-3  1\n"
        ),
        "{table}"
    );
}

/// One batch: a record of now, one of ten days ago, one of now.
fn with_an_old_record() -> [RecordSpec; 3] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    let at = |value, timestamp| RecordSpec {
        timestamp: Some(timestamp),
        ..record(value)
    };
    [at("a", now), at("old", now - 10 * 86_400_000), at("b", now)]
}

const ONE_HOUR: [(&str, &str); 1] = [("message.timestamp.before.max.ms", "3600000")];

#[test]
fn a_record_that_is_too_old_for_the_target_stops_the_flow_until_it_may_pass() {
    let pair = Pair::shared();
    pair.create_both("too-old", &ONE_HOUR);
    pair.batch("too-old", &with_an_old_record());
    let mut mirror = pair.mirror("too-old", "");
    mirror.wait_for_log("id=record-refused topic=too-old partition=0 flow stopped: the target refused source offsets 0..=2", SOON);
    let log = mirror.log();
    assert!(log.contains("INVALID_TIMESTAMP (32)"), "{log}");
    assert!(
        log.contains("set message.timestamp.after.max.ms and message.timestamp.before.max.ms"),
        "{log}"
    );
    mirror.stop();
    assert_eq!(pair.values("too-old"), [""; 0]);

    pair.set(
        "too-old",
        &[("message.timestamp.before.max.ms", "9223372036854775807")],
    );
    let mut mirror = pair.mirror("too-old", "");
    pair.wait_for("too-old", &["a", "old", "b"]);
    mirror.stop();
}

#[test]
fn a_record_that_is_too_old_can_be_left_out() {
    let pair = Pair::shared();
    pair.create_both("skip-old", &ONE_HOUR);
    pair.batch("skip-old", &with_an_old_record());
    let mut mirror = pair.mirror("skip-old", SKIP);
    pair.wait_for("skip-old", &["a", "b"]);
    mirror.wait_for_log("left out source offsets 1 to 1: west.skip-old on cluster east refuses them: INVALID_TIMESTAMP (32)", SOON);
    wait_for_gaps(&mirror, "\"left_out\":{\"refused\":1}");
    mirror.stop();
}

/// One batch: a record of now, one of tomorrow, one of now.
fn with_a_record_of_tomorrow() -> [RecordSpec; 3] {
    let [a, mut late, b] = with_an_old_record();
    late.timestamp = late
        .timestamp
        .map(|ten_days_ago| ten_days_ago + 11 * 86_400_000);
    late.value = Some(b"new".to_vec());
    [a, late, b]
}

const ONE_HOUR_AHEAD: [(&str, &str); 1] = [("message.timestamp.after.max.ms", "3600000")];

/// Creates the topic, on the source for records of any time.
fn create_for_tomorrow(pair: &Pair, topic: &str) {
    let any = [("message.timestamp.after.max.ms", "9223372036854775807")];
    pair.create_both_with(topic, &any, &ONE_HOUR_AHEAD);
    pair.batch(topic, &with_a_record_of_tomorrow());
}

#[test]
fn a_record_that_is_too_new_for_the_target_stops_the_flow_until_it_may_pass() {
    let pair = Pair::shared();
    create_for_tomorrow(&pair, "too-new");
    let mut mirror = pair.mirror("too-new", "");
    mirror.wait_for_log("id=record-refused topic=too-new partition=0 flow stopped: the target refused source offsets 0..=2", SOON);
    let log = mirror.log();
    assert!(log.contains("INVALID_TIMESTAMP (32)"), "{log}");
    mirror.stop();
    assert_eq!(pair.values("too-new"), [""; 0]);

    pair.set(
        "too-new",
        &[("message.timestamp.after.max.ms", "9223372036854775807")],
    );
    let mut mirror = pair.mirror("too-new", "");
    pair.wait_for("too-new", &["a", "new", "b"]);
    mirror.stop();
}

#[test]
fn a_record_that_is_too_new_can_be_left_out() {
    let pair = Pair::shared();
    create_for_tomorrow(&pair, "skip-new");
    let mut mirror = pair.mirror("skip-new", SKIP);
    pair.wait_for("skip-new", &["a", "b"]);
    mirror.wait_for_log("left out source offsets 1 to 1: west.skip-new on cluster east refuses them: INVALID_TIMESTAMP (32)", SOON);
    wait_for_gaps(&mirror, "\"left_out\":{\"refused\":1}");
    mirror.stop();
}

/// A record without key.
fn nameless(value: &str) -> RecordSpec {
    RecordSpec {
        key: None,
        ..record(value)
    }
}

const COMPACT: [(&str, &str); 1] = [("cleanup.policy", "compact")];

#[test]
fn a_record_without_key_stops_the_flow_until_the_topic_is_not_compacted() {
    let pair = Pair::shared();
    pair.create_both("keyless", &COMPACT);
    pair.batch("keyless", &[record("a"), nameless("x"), record("b")]);
    let mut mirror = pair.mirror("keyless", "");
    mirror.wait_for_log("id=record-refused topic=keyless partition=0 flow stopped: the target refused source offsets 0..=2", SOON);
    let log = mirror.log();
    assert!(log.contains("INVALID_RECORD (87)"), "{log}");
    mirror.stop();
    assert_eq!(pair.values("keyless"), [""; 0]);

    pair.set("keyless", &[("cleanup.policy", "delete")]);
    let mut mirror = pair.mirror("keyless", "");
    pair.wait_for("keyless", &["a", "x", "b"]);
    mirror.stop();
}

#[test]
fn a_record_without_key_for_a_compacted_topic_can_be_left_out() {
    let pair = Pair::shared();
    pair.create_both("no-key", &COMPACT);
    let records = [record("a"), nameless("x"), nameless("y"), record("b")];
    pair.batch("no-key", &records);
    let mut mirror = pair.mirror("no-key", SKIP);
    pair.wait_for("no-key", &["a", "b"]);
    mirror.wait_for_log("left out source offsets 1 to 2: west.no-key on cluster east refuses them: INVALID_RECORD (87)", SOON);
    pair.write("no-key", &["c"]);
    pair.wait_for("no-key", &["a", "b", "c"]);
    wait_for_gaps(
        &mirror,
        "\"left_out\":{\"refused\":2},\"lost\":[{\"reason\":\"refused\",\"from\":1,\"to\":2,\"offsets\":2}]",
    );
    mirror.stop();
}
