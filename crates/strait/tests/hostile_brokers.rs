//! Source brokers that lie: their own link stops and says who lies, the other link of the process goes on, memory stays
//! bounded, and once they behave nothing is lost or doubled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod kit;
mod page;
mod rig;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kit::{Kit, Load, assert_goes_on, cluster, difference, records};
use rig::{Mirror, free_port, wait_until};
use strait_testkit::fault::ResponseKind;
use strait_testkit::records::{APPEND_TIME, BatchSpec, HEADER_LEN, fix_crc, split_batches};
use strait_testkit::{BrokerConfig, Codec, Fault, FrameLie, KitRecord, Rewrite, Rule};

const SOON: Duration = Duration::from_secs(60);
/// Kafka's number of Fetch.
const FETCH: i16 = 1;
/// Kafka's number of Produce.
const PRODUCE: i16 = 0;
const BUDGET_MIB: u64 = 32;

/// A hostile source, a healthy one, a target, and a mirror with a link from each source.
struct World {
    runtime: tokio::runtime::Runtime,
    north: Kit,
    west: Kit,
    east: Kit,
    mirror: Mirror,
    admin: u16,
    load: Option<Load>,
}

/// Starts everything; `topics` are those of the hostile cluster, of one partition each.
fn world(topics: &[&str]) -> World {
    let runtime = kit::runtime();
    let large = |id: &str| BrokerConfig {
        max_message_bytes: 80 << 20,
        ..cluster(id)
    };
    let [north, west, east] = ["north", "west", "east"].map(|id| kit::start(&runtime, large(id)));
    for topic in topics {
        north.broker.create_topic(topic, 1, &[]).unwrap();
    }
    west.broker.create_topic("healthy", 1, &[]).unwrap();
    let load = Some(Load::start(&west, "healthy"));
    let toml = format!(
        "[clusters]\nnorth = {:?}\nwest = {:?}\neast = {:?}\n\
         [[links]]\nsource = \"north\"\ntarget = \"east\"\ntopics = [\".*\"]\nrequest-timeout = \"1s\"\n\
         memory-budget = \"{BUDGET_MIB}MiB\"\ninternal-replication-factor = 1\n\
         [[links]]\nsource = \"west\"\ntarget = \"east\"\ntopics = [\".*\"]\nmemory-budget = \"{BUDGET_MIB}MiB\"\n\
         internal-replication-factor = 1\n",
        north.address, west.address, east.address
    );
    let admin = free_port();
    let mirror = Mirror::new(&toml)
        .arguments(&["--admin-listen", &format!("127.0.0.1:{admin}")])
        .started();
    let world = World {
        runtime,
        north,
        west,
        east,
        mirror,
        admin,
        load,
    };
    world.assert_healthy_goes_on();
    world
}

impl World {
    fn assert_healthy_goes_on(&self) {
        assert_goes_on((&self.west, "healthy"), (&self.east, "west.healthy"), SOON);
    }

    /// Writes a few batches to a topic of the hostile cluster.
    fn write(&self, topic: &str, name: &str) {
        let mut producer = self.north.broker.idempotent_producer();
        for (batch, codec) in strait_testkit::codec::ALL.into_iter().enumerate() {
            let records = records(&format!("{name}/{batch}"), 5, 300);
            producer.send(topic, 0, codec, &records).unwrap();
        }
    }

    /// What was written to a topic of the hostile cluster is on the target.
    fn assert_mirrored(&self, topic: &str) {
        let mirrored = format!("north.{topic}");
        let mut report = None;
        let equal = rig::holds_within(SOON, || {
            report = difference((&self.north, topic), (&self.east, &mirrored));
            report.is_none()
        });
        assert!(equal, "{topic}: {report:?}\n{}", self.mirror.tail());
    }

    /// A warning or an error of the hostile link, written after `before` bytes of the log, that has all these texts.
    fn wait_for_complaint(&self, before: usize, texts: &[&str]) {
        assert!(
            self.complains_within(SOON, before, texts),
            "nothing with {texts:?} in\n{}",
            &self.mirror.log()[before..]
        );
    }

    fn complains_within(&self, time: Duration, before: usize, texts: &[&str]) -> bool {
        let said = |line: &str| {
            (line.contains(" WARN ") || line.contains(" ERROR "))
                && line.contains("link=north->east")
                && texts.iter().all(|text| line.contains(text))
        };
        rig::holds_within(time, || self.mirror.log()[before..].lines().any(said))
    }

    /// The hostile link stands still, and says so on its page with all these texts; the log may be silent about what it
    /// told within the last minute.
    fn wait_for_standstill(&self, texts: &[&str]) {
        let mut body = String::new();
        let said = rig::holds_within(SOON, || {
            body = page::get(self.admin, "/readyz").unwrap_or_default().1;
            let lines = body
                .lines()
                .filter(|line| line.starts_with("north->east: "));
            lines.clone().count() == 1 && lines.clone().all(|l| texts.iter().all(|t| l.contains(t)))
        });
        assert!(
            said,
            "nothing with {texts:?} in {body}\n{}",
            self.mirror.tail()
        );
    }

    /// The most memory that the process ever had, in MiB.
    fn peak_mib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.mirror.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }

    /// Nothing of the healthy link was ever said to be wrong, and both stop cleanly.
    fn end(mut self) {
        drop(self.load.take());
        wait_until("the healthy topic is whole", SOON, || {
            difference((&self.west, "healthy"), (&self.east, "west.healthy")).is_none()
        });
        self.mirror.stop();
        let log = self.mirror.log();
        let wrong = |line: &&str| {
            line.contains("link=west->east")
                && (line.contains(" WARN ") || line.contains(" ERROR "))
        };
        assert_eq!(
            log.lines().filter(wrong).collect::<Vec<_>>(),
            Vec::<&str>::new()
        );
        assert!(!log.contains("panicked"), "{log}");
        self.runtime.shutdown_background();
    }
}

#[test]
fn answers_that_lie_stop_their_own_link_and_name_the_broker() {
    let world = world(&["lies"]);
    let broker = format!("broker 1 ({}) of cluster 'north'", world.north.address);
    let frame = |lie| Fault::Frame(lie);
    let rewrite = |change: fn(&mut ResponseKind)| Fault::Answer(Rewrite::new(change));
    let cases: Vec<(Fault, &str)> = vec![
        (frame(FrameLie::Length(-5)), "a frame of -5 bytes"),
        (frame(FrameLie::Length(3)), "a frame of 3 bytes"),
        (
            frame(FrameLie::Length(i32::MAX)),
            "a frame of 2147483647 bytes",
        ),
        (
            frame(FrameLie::Length((128 << 20) + 1)),
            "a frame of 134217729 bytes",
        ),
        // As much as is allowed, and never sent.
        (frame(FrameLie::Length(128 << 20)), "had no answer within"),
        (
            frame(FrameLie::Endless {
                promised: 120 << 20,
                every: Duration::from_millis(2),
            }),
            "had no answer within",
        ),
        (frame(FrameLie::Correlation), "correlation id "),
        (frame(FrameLie::Cut(9)), "the answer to Fetch v"),
        // Nobody waits for the second one: the connection ends, and the next one is used.
        (frame(FrameLie::Twice), ""),
        (
            rewrite(|answer| {
                // Another partition than was asked for.
                if let ResponseKind::Fetch(fetched) = answer {
                    for partition in fetched.responses.iter_mut().flat_map(|t| &mut t.partitions) {
                        partition.partition_index += 7;
                    }
                }
            }),
            "it lacks topic id ",
        ),
        (
            rewrite(|answer| {
                if let ResponseKind::Fetch(fetched) = answer {
                    for topic in &mut fetched.responses {
                        topic.topic_id = uuid::Uuid::from_u128(77);
                    }
                }
            }),
            "it lacks topic id ",
        ),
        (
            rewrite(|answer| {
                if let ResponseKind::Fetch(fetched) = answer {
                    fetched.responses.clear();
                }
            }),
            "it lacks topic id ",
        ),
    ];
    for (number, (fault, text)) in cases.into_iter().enumerate() {
        let before = world.mirror.log().len();
        let said = format!("{fault:?}");
        eprintln!("{number}: {said}");
        let rule = world.north.broker.faults().add(Rule::on(FETCH, fault));
        world.write("lies", &number.to_string());
        if !text.is_empty() {
            world.wait_for_standstill(&[&broker, text]);
        }
        world.assert_healthy_goes_on();
        world.north.broker.faults().remove(rule);
        world.assert_mirrored("lies");
        // A complaint that lasts is said once a minute: the next case shall have its own.
        if text.is_empty() {
            continue;
        }
        let back = "link=north->east cluster=north broker=1 the broker answers again";
        wait_until("the broker is trusted again", SOON, || {
            world.mirror.log()[before..].contains(back)
                && page::get(world.admin, "/readyz")
                    .is_some_and(|(_, b)| b == "2 links mirroring\n")
        });
    }
    let peak = world.peak_mib();
    assert!(peak < BUDGET_MIB * 2 + 60, "{peak} MiB");
    world.end();
}

/// What becomes of the records fetched of a topic.
type Change = fn(Bytes) -> Bytes;

/// Changes the first batch of an answer.
fn first(records: &Bytes, change: impl Fn(&mut BytesMut)) -> Bytes {
    let mut bytes = BytesMut::from(&records[..]);
    change(&mut bytes);
    bytes.freeze()
}

/// Each hostile topic, what it does to its answers, and what is said of it.
const LIES: [(&str, Change, &str); 8] = [
    (
        "crc",
        |r| first(&r, |b| b[HEADER_LEN + 3] ^= 0x11),
        "CORRUPT_MESSAGE (2)",
    ),
    (
        "magic",
        |r| first(&r, |b| b[16] = 9),
        "magic of a record batch: value 9 is not allowed",
    ),
    (
        "length",
        |r| first(&r, |b| b[8..12].copy_from_slice(&(-7_i32).to_be_bytes())),
        "cannot be read",
    ),
    (
        "count-more",
        |r| first(&r, |b| with_field(b, 57, 9_999)),
        "record count of a record batch: value 9999 is not allowed",
    ),
    (
        "count-negative",
        |r| first(&r, |b| with_field(b, 57, -3)),
        "record count of a record batch: value -3 is not allowed",
    ),
    (
        "delta-negative",
        |r| first(&r, |b| with_field(b, 23, -3)),
        "last offset delta of a record batch: value -3 is not allowed",
    ),
    (
        "backwards",
        |r| {
            let mut batches = split_batches(&r);
            batches.reverse();
            let joined: Vec<u8> = batches.iter().flat_map(|b| b.to_vec()).collect();
            Bytes::from(joined)
        },
        "lower than the one before it allows",
    ),
    (
        "repeated",
        |r| {
            let first = split_batches(&r).first().cloned().unwrap_or_default();
            Bytes::from([&first[..], &r[..]].concat())
        },
        "lower than the one before it allows",
    ),
];

/// A header field of the first batch, with the checksum that fits.
fn with_field(bytes: &mut BytesMut, at: usize, value: i32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    fix_first_crc(bytes);
}

fn fix_first_crc(bytes: &mut BytesMut) {
    let length = usize::try_from(i32::from_be_bytes(bytes[8..12].try_into().unwrap())).unwrap();
    fix_crc(&mut bytes[..12 + length]);
}

#[test]
fn batches_that_lie_stop_their_own_flows() {
    let mut topics: Vec<&str> = LIES.iter().map(|(topic, ..)| *topic).collect();
    topics.push("beside");
    let world = world(&topics);
    let before = world.mirror.log().len();
    let id = |topic: &str| world.north.broker.topic_id(topic).unwrap();
    let lies = LIES.map(|(topic, change, _)| Rewrite::records(id(topic), change));
    let lies = Fault::Answer(Rewrite::all(lies.to_vec()));
    let rule = world.north.broker.faults().add(Rule::on(FETCH, lies));
    for topic in &topics {
        world.write(topic, "a");
    }
    for (topic, _, text) in &LIES {
        // A fetch that waited for records when the rule came is answered honestly, with all that came meanwhile.
        if !world.complains_within(
            Duration::from_secs(3),
            before,
            &[&format!("topic={topic} "), text],
        ) {
            world.write(topic, "more");
        }
        world.wait_for_complaint(before, &[&format!("topic={topic} "), text]);
    }
    // Flows of the same link that nobody lies to go on, and so does the other link.
    world.assert_mirrored("beside");
    world.write("beside", "b");
    world.assert_mirrored("beside");
    world.assert_healthy_goes_on();
    for (topic, ..) in &LIES {
        let found = world
            .east
            .broker
            .records(&format!("north.{topic}"), 0, true);
        let sent = world.north.broker.records(topic, 0, true);
        let content = |r: &KitRecord| (r.key.clone(), r.value.clone());
        assert!(
            sent.iter()
                .map(content)
                .take(found.len())
                .eq(found.iter().map(content)),
            "{topic} holds what the source does not"
        );
    }
    world.north.broker.faults().remove(rule);
    for (topic, ..) in &LIES {
        world.assert_mirrored(topic);
    }
    world.end();
}

/// A batch that holds `plain` bytes of records when it is inflated.
fn bomb(codec: Codec, plain: usize) -> Bytes {
    let record = KitRecord::new(1, Some(b"k"), Some(&vec![0; plain]));
    let spec = BatchSpec {
        leader_epoch: 0,
        codec,
        flags: APPEND_TIME,
        max_timestamp: Some(1),
        ..BatchSpec::default()
    };
    spec.build(&[record]).unwrap()
}

#[test]
fn bombs_are_refused_at_their_limit_and_cost_no_more_memory() {
    let codecs = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let topics = codecs.map(|codec| format!("bomb-{codec:?}").to_lowercase());
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let world = world(&names);
    let before = world.mirror.log().len();
    let mut bombs = Vec::new();
    for (codec, topic) in codecs.into_iter().zip(&topics) {
        let bomb = bomb(codec, 257 << 20);
        let id = world.north.broker.topic_id(topic).unwrap();
        bombs.push(Rewrite::records(id, move |records| {
            // In the place of what was asked for.
            first(&bomb, |b| b[..8].copy_from_slice(&records[..8]))
        }));
    }
    // What waits for records when the rule comes is answered honestly.
    for topic in &topics {
        world.write(topic, "a");
        world.assert_mirrored(topic);
    }
    let bombs = Fault::Answer(Rewrite::all(bombs));
    let rule = world.north.broker.faults().add(Rule::on(FETCH, bombs));
    for topic in &topics {
        // An answer without records is an honest one: there have to be some.
        let said = |log: &str| {
            let about = format!("topic={topic} ");
            let refused = "has to be decoded and inflates beyond 32 MiB";
            log.lines()
                .any(|line| line.contains(&about) && line.contains(refused))
        };
        let mut name = 0;
        wait_until("the bomb is refused", SOON, || {
            name += 1;
            world.write(topic, &format!("b{name}"));
            said(&world.mirror.log()[before..])
        });
    }
    world.assert_healthy_goes_on();
    let peak = world.peak_mib();
    // One batch at a time is inflated, into 32 MiB beside the half that they grew from. Snappy's bomb itself has 13 MiB: two
    // fetches may bring it at a time, into buffers that grow from 9 MiB to 18.
    assert!(
        peak < 32 + 16 + BUDGET_MIB * 2 + 60 + 2 * (9 + 18),
        "{peak} MiB"
    );
    world.north.broker.faults().remove(rule);
    for topic in &topics {
        world.assert_mirrored(topic);
    }
    world.end();
}

/// A batch that has to be decoded, here because the source stamps records itself, and whose records compress very well.
#[test]
fn a_batch_that_inflates_beyond_a_quarter_of_the_budget_goes_on_with_a_larger_budget() {
    let runtime = kit::runtime();
    let [west, east] = ["west", "east"].map(|id| kit::start(&runtime, cluster(id)));
    let stamped = [("message.timestamp.type", "LogAppendTime")];
    west.broker.create_topic("dense", 1, &stamped).unwrap();
    let toml = |budget: &str| {
        let more = format!("memory-budget = \"{budget}\"\ninternal-replication-factor = 1");
        rig::west_to_east(&west.address, &east.address, &[".*"], &more)
    };
    let admin = free_port();
    let mut mirror = Mirror::new(&toml("16MiB"))
        .arguments(&["--admin-listen", &format!("127.0.0.1:{admin}")])
        .started();
    // What was read before is acknowledged after the flow has stopped.
    let late = Rule::on(PRODUCE, Fault::Delay(Duration::from_millis(400)));
    let late = east.broker.faults().add(late);
    for value in [100, 40 << 20] {
        let record = KitRecord::new(kit::now_ms(), Some(b"k"), Some(&vec![0; value]));
        let mut producer = west.broker.idempotent_producer();
        producer.send("dense", 0, Codec::Zstd, &[record]).unwrap();
    }
    let id = "ERROR link=west->east id=batch-inflates topic=dense partition=0 flow stopped: ";
    mirror.wait_for_log(id, SOON);
    let log = mirror.log();
    let said = log.lines().find(|line| line.contains(id)).unwrap();
    for text in [
        "dense-0 on cluster west: the batch at offset 1 has to be decoded and inflates beyond 32 MiB",
        "raise memory-budget to more than four times what the batch inflates to, and restart",
    ] {
        assert!(said.contains(text), "{text} in {said}");
    }
    assert!(!said.contains("kafka-dump-log"), "{said}");
    wait_until("the record before it is acknowledged", SOON, || {
        page::metric(admin, "strait_records_total{link=\"west->east\"}") == Some(1.0)
    });
    assert_eq!(east.broker.records("west.dense", 0, true).len(), 1);
    assert!(!mirror.log().contains("goes on"), "{}", mirror.tail());
    east.broker.faults().remove(late);
    mirror.stop();
    std::fs::write(mirror.folder().join("mirror.toml"), toml("192MiB")).unwrap();
    mirror.start();
    wait_until("all of it is mirrored", SOON, || {
        difference((&west, "dense"), (&east, "west.dense")).is_none()
    });
    mirror.stop();
    runtime.shutdown_background();
}

/// A flow that began far behind its source's first offset, and is never done: as soon as records come again it goes on, and says so.
#[test]
fn a_trouble_of_the_source_is_over_when_what_was_read_behind_it_is_acknowledged() {
    let runtime = kit::runtime();
    let [west, east] = ["west", "east"].map(|id| kit::start(&runtime, cluster(id)));
    west.broker.create_topic("busy", 1, &[]).unwrap();
    let mut producer = west.broker.idempotent_producer();
    for part in 0..80 {
        let old = records(&format!("old/{part}"), 500, 20);
        producer.send("busy", 0, Codec::None, &old).unwrap();
    }
    let more = "start = \"latest\"\ninternal-replication-factor = 1";
    let toml = rig::west_to_east(&west.address, &east.address, &["busy"], more);
    let mut mirror = Mirror::new(&toml).started();
    mirror.wait_for_log("flows=1 running=1", SOON);
    let load = Load::start(&west, "busy");
    wait_until("what is written now arrives", SOON, || {
        east.broker.log_end("west.busy", 0) >= 20
    });
    // So that something is always on its way.
    let late = Rule::on(PRODUCE, Fault::Delay(Duration::from_millis(200)));
    east.broker.faults().add(late);
    // TOPIC_AUTHORIZATION_FAILED
    let refused = Rule::on(FETCH, Fault::Error(29)).topic("busy");
    let refused = west.broker.faults().add(refused);
    mirror.wait_for_log("id=source-error topic=busy partition=0", SOON);
    west.broker.faults().remove(refused);
    mirror.wait_for_log("topic=busy partition=0 flow goes on", SOON);
    drop(load);
    east.broker.faults().clear();
    mirror.stop();
    runtime.shutdown_background();
}
