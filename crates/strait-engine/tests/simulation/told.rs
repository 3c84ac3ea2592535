//! What is said of a trouble: each id that somebody may look for is said when its cause comes, and once the cause is gone
//! the flow goes on.

use std::time::Duration;

use bytes::BytesMut;
use strait_engine::Policy;
use strait_testkit::fault::ResponseKind;
use strait_testkit::records::BatchSpec;
use strait_testkit::{Broker, BrokerConfig, Fault, KitRecord, Rewrite, Rule};

use crate::journal::live;
use crate::pair::{Pair, TOPIC};
use crate::sync::Sync;

const SOON: Duration = Duration::from_secs(90);
/// Kafka's numbers.
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const SYNCS: &str = "mm2-offset-syncs.source.internal";

/// When the trouble comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Running,
    /// Between a crash and the next start.
    Crashed,
}

/// What follows once faults are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// All that was written is there once.
    GoesOn,
    /// Somebody has to act, or records were lost.
    Stays,
}

fn history(id: &str, when: When, then: Then, trouble: fn(&mut Pair)) {
    live(async |journal| {
        let mut pair = Pair::new(journal, 7, 1, -1);
        let mirrored = |pair: &Pair| Pair::serials(&pair.target, 0).len() as i64 >= pair.serial;
        // A first life, so that the second one has an older epoch before it.
        pair.start();
        pair.write(0, 10);
        assert!(pair.holds_within(SOON, mirrored).await, "{id}");
        assert_eq!(pair.told("id=\"few-replicas\"").len(), 1, "one broker");
        pair.crash();
        pair.start();
        pair.write(0, 5);
        assert!(pair.holds_within(SOON, mirrored).await, "{id}");
        // A position is written behind these, and none behind the next ones.
        tokio::time::sleep(Duration::from_secs(3)).await;
        pair.write(0, 7);
        assert!(pair.holds_within(SOON, mirrored).await, "{id}");
        let text = format!("id={id:?}");
        let before = pair.told(&text).len();
        if when == When::Crashed {
            pair.crash();
        }
        trouble(&mut pair);
        if when == When::Crashed {
            pair.start();
        }
        let told = |pair: &Pair| pair.told(&text).len() > before;
        let mut said = false;
        for _ in 0..SOON.as_secs() {
            said = pair.holds_within(Duration::from_secs(1), told).await;
            if said {
                break;
            }
            // What waited for records when the trouble came was answered well.
            if when == When::Running && pair.source.topic_id(TOPIC).is_some() {
                pair.write(0, 2);
                pair.write(0, 2);
            }
        }
        let lines = pair.journal.lines();
        assert!(
            said,
            "{id} was not said:\n{}",
            lines[lines.len().saturating_sub(30)..].join("\n")
        );
        if then == Then::GoesOn {
            pair.source.faults().clear();
            pair.target.faults().clear();
            pair.target.hold_high_watermark(TOPIC, 0, None);
            assert!(pair.holds_within(SOON, mirrored).await, "{id} does not end");
            let found = Pair::serials(&pair.target, 0);
            assert!(found.iter().copied().eq(0..pair.serial), "{id}: {found:?}");
        }
    });
}

/// A fault in the requests of this kind that concern a topic.
fn fail(broker: &Broker, api: i16, topic: &str, fault: Fault) {
    broker.faults().add(Rule::on(api, fault).topic(topic));
}

/// The records that are fetched, changed.
fn change(broker: &Broker, change: fn(&mut BytesMut)) {
    let id = broker.topic_id(TOPIC).unwrap();
    let changed = Rewrite::records(id, move |records| {
        let mut bytes = BytesMut::from(&records[..]);
        change(&mut bytes);
        bytes.freeze()
    });
    fail(broker, FETCH, TOPIC, Fault::Answer(changed));
}

fn other_magic(bytes: &mut BytesMut) {
    bytes[16] = 9;
}

fn append(broker: &Broker, topic: &str, spec: BatchSpec, key: &[u8], value: &[u8]) {
    let record = KitRecord::new(broker.now_ms(), Some(key), Some(value));
    broker
        .append(topic, 0, &spec.build(&[record]).unwrap())
        .unwrap();
}

#[test]
fn troubles_of_the_source_are_told_by_their_ids() {
    use Then::{GoesOn, Stays};
    use When::{Crashed, Running};
    history("source-missing", Running, Stays, |pair| {
        pair.source.delete_topic(TOPIC);
    });
    history("source-error", Running, GoesOn, |pair| {
        fail(&pair.source, FETCH, TOPIC, Fault::Error(29));
        pair.write(0, 5);
    });
    history("source-unreadable", Running, GoesOn, |pair| {
        change(&pair.source, other_magic);
        pair.write(0, 5);
    });
    history("topic-hidden", Crashed, GoesOn, |pair| {
        let hidden = Rewrite::new(|answer| {
            if let ResponseKind::Metadata(metadata) = answer {
                for topic in &mut metadata.topics {
                    topic.error_code = 29;
                    topic.partitions.clear();
                }
            }
        });
        fail(&pair.source, METADATA, TOPIC, Fault::Answer(hidden));
        pair.write(0, 5);
    });
    history("source-origin", Crashed, Stays, |pair| {
        let registry = "mm2-strait.internal";
        pair.only_local = true;
        pair.policies.foreign_writer = Policy::GoOn;
        pair.source.create_topic(registry, 1, &[]).unwrap();
        fail(&pair.source, LIST_OFFSETS, registry, Fault::Error(-1));
        // An application's, but who knows.
        let unknown = BatchSpec {
            producer_id: 1_000_000,
            producer_epoch: 0,
            base_sequence: 0,
            ..BatchSpec::default()
        };
        append(&pair.source, TOPIC, unknown, b"app", b"0");
    });
    history("source-hole", Running, Stays, |pair| {
        change(&pair.source, |bytes| {
            // The first batch is left out.
            let length = i32::from_be_bytes(bytes[8..12].try_into().unwrap());
            let first = usize::try_from(length).unwrap() + 12;
            if bytes.len() > first {
                let _ = bytes.split_to(first);
            }
        });
        pair.write(0, 5);
        pair.write(0, 5);
    });
}

#[test]
fn troubles_of_the_target_are_told_by_their_ids() {
    use Then::{GoesOn, Stays};
    use When::{Crashed, Running};
    history("target-missing", Running, Stays, |pair| {
        pair.target.delete_topic(TOPIC);
        pair.write(0, 5);
    });
    history("not-appended", Running, GoesOn, |pair| {
        fail(&pair.target, PRODUCE, TOPIC, Fault::Error(19));
        pair.write(0, 5);
    });
    history("batch-too-large", Running, GoesOn, |pair| {
        let limit = ("max.message.bytes", "200");
        pair.target
            .set_topic_config(TOPIC, limit.0, limit.1)
            .unwrap();
        pair.write(0, 50);
    });
    history("positions-unwritten", Running, GoesOn, |pair| {
        fail(&pair.target, PRODUCE, SYNCS, Fault::Error(19));
        pair.write(0, 5);
    });
    history("target-unreadable", Crashed, GoesOn, |pair| {
        change(&pair.target, other_magic);
        pair.write(0, 5);
    });
    history("no-fence", Crashed, GoesOn, |pair| {
        let end = pair.target.high_watermark(TOPIC, 0);
        pair.target.hold_high_watermark(TOPIC, 0, Some(end));
        pair.write(0, 5);
    });
    history("target-expired", Crashed, Stays, |pair| {
        // Beside others it cannot be told whose the lost offsets were.
        pair.policies.foreign_writer = Policy::GoOn;
        pair.target.delete_records(TOPIC, 0, -1).unwrap();
        pair.write(0, 5);
    });
    // The target holds nothing of what it took a moment ago.
    let deleted: fn(&mut Pair) = |pair| {
        pair.target.delete_records(TOPIC, 0, -1).unwrap();
        pair.write(0, 5);
    };
    history("target-expired", Crashed, Stays, deleted);
    history("target-expired", Running, Stays, deleted);
    history("late-writes", Crashed, Stays, |pair| {
        let syncs = pair.target.records(SYNCS, 0, true);
        let last = syncs.iter().rev().find_map(Sync::read).unwrap();
        let (producer_id, epoch) = last.producer;
        // Only where the brokers have forgotten the producer.
        pair.target.forget_producers(TOPIC, 0);
        let late = BatchSpec {
            producer_id,
            producer_epoch: epoch - 1,
            base_sequence: 0,
            ..BatchSpec::default()
        };
        append(&pair.target, TOPIC, late, b"late", b"0");
        pair.write(0, 5);
    });
}

#[test]
fn troubles_of_positions_and_sessions_are_told_by_their_ids() {
    use Then::{GoesOn, Stays};
    use When::{Crashed, Running};
    history("transactional-id-expired", Crashed, GoesOn, |pair| {
        pair.target.forget_transactional_ids();
        pair.write(0, 5);
    });
    history("position-overwritten", Crashed, GoesOn, |pair| {
        let key = [&[0, 1][..], TOPIC.as_bytes(), &[0; 4]].concat();
        append(&pair.target, SYNCS, BatchSpec::default(), &key, &[0; 16]);
    });
    history("mm2-position", Crashed, Stays, |pair| {
        // Compaction has taken the position away.
        pair.target.delete_topic(SYNCS);
        let compact = [("cleanup.policy", "compact")];
        pair.target.create_topic(SYNCS, 1, &compact).unwrap();
        let key = [&[0, 1][..], TOPIC.as_bytes(), &[0; 4]].concat();
        append(&pair.target, SYNCS, BatchSpec::default(), &key, &[0; 16]);
    });
    history("position-unusable", Crashed, Stays, |pair| {
        pair.link = "renamed"
    });
    history("registry-unreadable", Crashed, Stays, |pair| {
        // A link's record of a version that does not exist yet.
        let registry = "mm2-strait.internal";
        append(&pair.target, registry, BatchSpec::default(), &[1], &[99]);
    });
    history("other-clusters", Crashed, Stays, |pair| {
        pair.source = Broker::new(BrokerConfig::simulated("third"));
        pair.source.create_topic(TOPIC, 1, &[]).unwrap();
    });
    history("stop-unclean", Running, Stays, |pair| {
        fail(&pair.target, PRODUCE, SYNCS, Fault::Hang);
        pair.write(0, 5);
        pair.tell_to_stop(Duration::from_secs(1));
    });
}
