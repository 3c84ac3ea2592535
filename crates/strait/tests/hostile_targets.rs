//! Target brokers that lie: their own link stops and complains, the other link of the process goes on, and once they
//! behave nothing is lost or doubled. And one whose policy refuses records, which no real broker has by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod kit;
mod rig;

use std::time::Duration;

use kit::{Load, assert_goes_on, cluster, difference, records};
use rig::{Mirror, wait_until};
use strait_testkit::fault::ResponseKind;
use strait_testkit::{Codec, Fault, FrameLie, Rewrite, Rule};

const SOON: Duration = Duration::from_secs(60);
/// Kafka's numbers.
const PRODUCE: i16 = 0;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const INIT_PRODUCER_ID: i16 = 22;

fn rewrite(change: fn(&mut ResponseKind)) -> Fault {
    Fault::Answer(Rewrite::new(change))
}

/// Every offset that Produce acknowledges, changed.
fn acknowledged(answer: &mut ResponseKind, change: fn(i64) -> i64) {
    if let ResponseKind::Produce(produced) = answer {
        let topics = produced.responses.iter_mut();
        for partition in topics.flat_map(|t| &mut t.partition_responses) {
            partition.base_offset = change(partition.base_offset);
        }
    }
}

fn listed(answer: &mut ResponseKind, offset: i64) {
    if let ResponseKind::ListOffsets(listed) = answer {
        for partition in listed.topics.iter_mut().flat_map(|t| &mut t.partitions) {
            partition.offset = offset;
        }
    }
}

/// What the target lies about, in which answer, how, and what is said of it.
fn cases() -> Vec<(&'static str, i16, Fault, &'static str)> {
    vec![
        (
            "acknowledged elsewhere",
            PRODUCE,
            rewrite(|a| acknowledged(a, |at| at + 1_000)),
            "id=target-in-doubt topic=orders partition=0 west.orders-0 on cluster liar: acknowledged at offset ",
        ),
        (
            "acknowledged below zero",
            PRODUCE,
            rewrite(|a| acknowledged(a, |_| -5)),
            "id=target-in-doubt topic=orders partition=0 west.orders-0 on cluster liar: acknowledged at offset -5 instead of ",
        ),
        (
            "nothing acknowledged",
            PRODUCE,
            rewrite(|a| {
                if let ResponseKind::Produce(produced) = a {
                    produced.responses.clear();
                }
            }),
            "id=positions-unwritten topic=mm2-strait.internal cannot write positions or the lease on cluster liar, trying again: UNKNOWN_SERVER_ERROR (-1)",
        ),
        (
            "another partition acknowledged",
            PRODUCE,
            rewrite(|a| {
                if let ResponseKind::Produce(produced) = a {
                    for partition in produced
                        .responses
                        .iter_mut()
                        .flat_map(|t| &mut t.partition_responses)
                    {
                        partition.index += 7;
                    }
                }
            }),
            "id=target-in-doubt topic=orders partition=0 west.orders-0 on cluster liar: the broker left the answer out",
        ),
        (
            "an error code of no meaning",
            PRODUCE,
            Fault::ErrorAfter(9_999),
            "id=positions-unwritten topic=mm2-strait.internal cannot write positions or the lease on cluster liar, trying again: UNKNOWN_CODE (9999)",
        ),
        (
            "acknowledgements cut short",
            PRODUCE,
            Fault::Frame(FrameLie::Cut(9)),
            "sent an answer that cannot be understood: the answer to Produce v",
        ),
        (
            "acknowledgements of others",
            PRODUCE,
            Fault::Frame(FrameLie::Correlation),
            "sent an answer that cannot be understood: correlation id ",
        ),
        (
            "a log that ends below zero",
            LIST_OFFSETS,
            rewrite(|a| listed(a, -5)),
            "id=own-topic-unavailable cannot use mm2-strait.internal on cluster liar, where Strait keeps its positions: ",
        ),
        (
            "a producer id below zero",
            INIT_PRODUCER_ID,
            rewrite(|a| {
                if let ResponseKind::InitProducerId(given) = a {
                    given.producer_id = (-7).into();
                }
            }),
            "id=session-ended the session ended: no fence for transactional id strait.west->liar.0: ",
        ),
        (
            "leaders that do not exist",
            METADATA,
            rewrite(|a| {
                if let ResponseKind::Metadata(metadata) = a {
                    for partition in metadata.topics.iter_mut().flat_map(|t| &mut t.partitions) {
                        partition.leader_id = 99.into();
                    }
                }
            }),
            "id=own-topic-unavailable cannot use mm2-strait.internal on cluster liar, where Strait keeps its positions: cluster 'liar' has no broker 99 at present",
        ),
        (
            "metadata cut short",
            METADATA,
            Fault::Frame(FrameLie::Cut(9)),
            "id=answer-unreadable ",
        ),
    ]
}

#[test]
fn targets_that_lie_stop_their_own_link() {
    let runtime = kit::runtime();
    let [west, liar, honest] =
        ["west", "liar", "honest"].map(|id| kit::start(&runtime, cluster(id)));
    west.broker.create_topic("orders", 1, &[]).unwrap();
    let load = Load::start(&west, "orders");
    let toml = format!(
        "[clusters]\nwest = {:?}\nliar = {:?}\nhonest = {:?}\n\
         [[links]]\nsource = \"west\"\ntarget = \"liar\"\ntopics = [\".*\"]\nrequest-timeout = \"1s\"\n\
         internal-replication-factor = 1\n\
         [[links]]\nsource = \"west\"\ntarget = \"honest\"\ntopics = [\".*\"]\ninternal-replication-factor = 1\n",
        west.address, liar.address, honest.address
    );
    let mut mirror = Mirror::new(&toml).started();
    assert_goes_on((&west, "orders"), (&liar, "west.orders"), SOON);
    for (name, api, fault, text) in cases() {
        eprintln!("{name}");
        let before = mirror.log().len();
        // A session's start asks for all of it.
        mirror.kill9();
        let rule = liar.broker.faults().add(Rule::on(api, fault));
        mirror.start();
        let said = rig::holds_within(SOON, || {
            mirror.log()[before..].lines().any(|line| {
                (line.contains(" WARN ") || line.contains(" ERROR "))
                    && line.contains("link=west->liar")
                    && line.contains(text)
            })
        });
        assert!(said, "{name}: no {text:?} in\n{}", &mirror.log()[before..]);
        assert_goes_on((&west, "orders"), (&honest, "west.orders"), SOON);
        liar.broker.faults().remove(rule);
        assert_goes_on((&west, "orders"), (&liar, "west.orders"), SOON);
    }
    drop(load);
    let mut producer = west.broker.idempotent_producer();
    producer
        .send("orders", 0, Codec::None, &records("last", 3, 100))
        .unwrap();
    for target in [&liar, &honest] {
        let mut report = None;
        let equal = rig::holds_within(SOON, || {
            report = difference((&west, "orders"), (target, "west.orders"));
            report.is_none()
        });
        assert!(equal, "{}: {report:?}\n{}", target.address, mirror.tail());
    }
    mirror.stop();
    let log = mirror.log();
    let wrong = |line: &&str| line.contains("link=west->honest") && line.contains(" ERROR ");
    assert_eq!(
        log.lines().filter(wrong).collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
    assert!(!log.contains("panicked"), "{log}");
    runtime.shutdown_background();
}

#[test]
fn what_a_policy_of_the_target_refuses_stops_its_flow_or_is_left_out() {
    const POLICY_VIOLATION: i16 = 44;
    let runtime = kit::runtime();
    let [west, east] = ["west", "east"].map(|id| kit::start(&runtime, cluster(id)));
    for topic in ["stops", "skips", "beside"] {
        west.broker.create_topic(topic, 1, &[]).unwrap();
    }
    let link = |topics: &str, more: &str| {
        format!(
            "[[links]]\nname = \"{}\"\nsource = \"west\"\ntarget = \"east\"\ntopics = [{topics}]\n\
             internal-replication-factor = 1\n{more}\n",
            topics.replace(['"', ',', ' '], "")
        )
    };
    let toml = format!(
        "[clusters]\nwest = {:?}\neast = {:?}\n{}{}",
        west.address,
        east.address,
        link("\"stops\", \"beside\"", ""),
        link("\"skips\"", "on-refused-record = \"skip\"")
    );
    let mut mirror = Mirror::new(&toml).started();
    let send = |topic: &str, name: &str| {
        let mut producer = west.broker.idempotent_producer();
        producer
            .send(topic, 0, Codec::None, &records(name, 3, 100))
            .unwrap();
    };
    let equal = |topic: &str| {
        wait_until("all is mirrored", SOON, || {
            difference((&west, topic), (&east, &format!("west.{topic}"))).is_none()
        });
    };
    for topic in ["stops", "skips", "beside"] {
        send(topic, "before");
        equal(topic);
    }
    let rules = ["stops", "skips"].map(|topic| {
        let rule =
            Rule::on(PRODUCE, Fault::Error(POLICY_VIOLATION)).topic(&format!("west.{topic}"));
        east.broker.faults().add(rule)
    });
    for topic in ["stops", "skips", "beside"] {
        send(topic, "refused");
    }
    mirror.wait_for_log(
        "id=record-refused topic=stops partition=0 flow stopped: ",
        SOON,
    );
    mirror.wait_for_log("id=record-skipped topic=skips partition=0", SOON);
    equal("beside");
    let log = mirror.log();
    let stopped = log
        .lines()
        .find(|line| line.contains("id=record-refused"))
        .unwrap();
    for words in [
        "POLICY_VIOLATION (44)",
        "source offsets 3..=5",
        "west.stops-0",
        "cluster east",
        "skip",
    ] {
        assert!(stopped.contains(words), "{words} in {stopped}");
    }
    for rule in rules {
        east.broker.faults().remove(rule);
    }
    send("skips", "after");
    let has = |name: &str| {
        let found = east.broker.records("west.skips", 0, true);
        found
            .iter()
            .any(|r| r.key.as_deref() == Some(name.as_bytes()))
    };
    wait_until("what follows is mirrored", SOON, || has("after/2"));
    assert!(has("before/2") && !has("refused/0"));
    equal("stops");
    mirror.stop();
    runtime.shutdown_background();
}
