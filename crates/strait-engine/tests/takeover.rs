//! What MirrorMaker 2 may have left, and where a link goes on from it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

use std::ops::Range;
use std::time::{Duration, Instant};

use strait_engine::{
    FlowKey, FlowSpec, Link, LinkHandle, LinkSpec, Policies, SessionError, Start, TakenAt,
    TakenOver, Takeover, read_mm2_pairs,
};
use strait_net::{Cluster, Identity, Runtime, Security};
use strait_testkit::{Broker, BrokerConfig, Codec, KitProducer, KitRecord};
use strait_wire::{Isolation, OffsetSync};

const TOPIC: &str = "t";
const MIRRORED: &str = "source.t";
const OFFSETS: &str = "mm2-offsets.source.internal";
const SYNCS: &str = "mm2-offset-syncs.target.internal";

type Running = tokio::task::JoinHandle<Result<(), SessionError>>;

/// Two clusters between which MirrorMaker 2 ran.
struct Scene {
    source: Broker,
    target: Broker,
    base_ms: i64,
    isolation: Isolation,
    memory_budget: u64,
}

impl Scene {
    fn new(on_target: &[(&str, &str)]) -> Self {
        let broker = |id: &str| {
            Broker::new(BrokerConfig {
                cluster_id: id.to_owned(),
                auto_create_topics: false,
                ..BrokerConfig::default()
            })
        };
        let (source, target) = (broker("source"), broker("target"));
        source.create_topic(TOPIC, 1, &[]).unwrap();
        target.create_topic(MIRRORED, 1, on_target).unwrap();
        let compacted = [("cleanup.policy", "compact")];
        target.create_topic(OFFSETS, 5, &compacted).unwrap();
        source.create_topic(SYNCS, 1, &compacted).unwrap();
        Self {
            base_ms: source.now_ms() - 60_000,
            source,
            target,
            isolation: Isolation::ReadCommitted,
            memory_budget: 64 << 20,
        }
    }

    fn record(&self, n: i64) -> KitRecord {
        KitRecord::new(self.base_ms + n / 3, None, Some(n.to_string().as_bytes()))
    }

    /// All alike.
    fn same(&self, count: usize) -> Vec<KitRecord> {
        vec![KitRecord::new(self.base_ms, None, Some(b"-1")); count]
    }

    fn send(&self, to: &mut KitProducer, topic: &str, numbers: Range<i64>) {
        for start in numbers.clone().step_by(500) {
            let part = start..numbers.end.min(start + 500);
            let records: Vec<_> = part.map(|n| self.record(n)).collect();
            to.send(topic, 0, Codec::None, &records).unwrap();
        }
    }

    fn write(&self, numbers: Range<i64>) {
        self.send(&mut self.source.plain_producer(), TOPIC, numbers);
    }

    /// As MirrorMaker 2 copied them.
    fn copied(&self, numbers: Range<i64>) {
        self.send(&mut self.target.plain_producer(), MIRRORED, numbers);
    }

    fn internal(broker: &Broker, topic: &str, partition: i32, key: &[u8], value: Option<&[u8]>) {
        let record = KitRecord::new(broker.now_ms(), Some(key), value);
        let mut producer = broker.plain_producer();
        producer
            .send(topic, partition, Codec::None, &[record])
            .unwrap();
    }

    /// MirrorMaker 2's position.
    fn offset(&self, connector: &str, cluster: &str, offset: Option<i64>) {
        let key =
            format!(r#"["{connector}",{{"cluster":"{cluster}","partition":0,"topic":"{TOPIC}"}}]"#);
        let value = offset.map(|offset| format!(r#"{{"offset":{offset}}}"#));
        let partition = i32::try_from(key.len() % 5).unwrap();
        let value = value.as_ref().map(String::as_bytes);
        Self::internal(&self.target, OFFSETS, partition, key.as_bytes(), value);
    }

    fn flushed(&self, offset: i64) {
        self.offset("MirrorSourceConnector", "source", Some(offset));
    }

    /// A position of another topic.
    fn flushed_another(&self) {
        let key = r#"["MirrorSourceConnector",{"cluster":"source","partition":0,"topic":"u"}]"#;
        let value = Some(&br#"{"offset":5}"#[..]);
        Self::internal(&self.target, OFFSETS, 0, key.as_bytes(), value);
    }

    /// One of its offset syncs, on the source as by default.
    fn pair(&self, upstream: i64, downstream: i64) {
        Self::sync(&self.source, SYNCS, (upstream, downstream));
    }

    fn sync(broker: &Broker, topic: &str, (upstream, downstream): (i64, i64)) {
        let sync = OffsetSync {
            topic: TOPIC.to_owned(),
            partition: 0,
            upstream,
            downstream,
        };
        Self::internal(broker, topic, 0, &sync.key(), Some(&sync.value()));
    }

    /// One of the flow of the same name in the other direction, on its source, which is this one's target.
    fn reverse_pair(&self, upstream: i64, downstream: i64) {
        let topic = "mm2-offset-syncs.source.internal";
        let compacted = [("cleanup.policy", "compact")];
        self.target.create_topic(topic, 1, &compacted).unwrap();
        Self::sync(&self.target, topic, (upstream, downstream));
    }

    /// Strait's position of the flow of the same name in the other direction.
    fn reverse_position(&self, upstream: i64, downstream: i64) {
        let sync = OffsetSync {
            topic: TOPIC.to_owned(),
            partition: 0,
            upstream,
            downstream,
        };
        let (key, value) = (sync.key(), sync.value());
        let record = KitRecord::new(self.source.now_ms(), Some(&key), Some(&value));
        let record = record.header("strait.pos", Some(b"of another flow"));
        let mut producer = self.source.plain_producer();
        producer.send(SYNCS, 0, Codec::None, &[record]).unwrap();
    }

    fn mirrored(&self) -> Vec<i64> {
        let records = self.target.records(MIRRORED, 0, false);
        let number = |r: KitRecord| {
            let value = r.value.unwrap();
            let digits = value.split(|b| *b == b' ').next().unwrap();
            String::from_utf8(digits.to_vec()).unwrap()
        };
        records
            .into_iter()
            .map(|r| number(r).parse().unwrap())
            .collect()
    }

    /// Runs the link until the target holds these, and one record more that is written then: nothing else follows.
    fn assert_becomes(&self, expected: &[i64]) -> Option<TakenOver> {
        self.run(expected, || ())
    }

    fn clusters(&self, runtime: &tokio::runtime::Runtime) -> (Cluster, Cluster) {
        let cluster = |alias: &str, broker: &Broker| {
            let identity = Identity {
                client_id: "test".to_owned(),
                software_name: "strait".to_owned(),
                software_version: "0".to_owned(),
            };
            let security = Security::default();
            let address = runtime.block_on(broker.listen("127.0.0.1:0")).unwrap();
            let bootstrap = vec![address.to_string()];
            Cluster::new(Runtime::system(), alias, bootstrap, security, identity)
        };
        (
            cluster("source", &self.source),
            cluster("target", &self.target),
        )
    }

    /// MirrorMaker 2's pairs of the flow as groups know them, which was taken over at this target offset.
    fn pairs_before(&self, offset: i64) -> Vec<(i64, i64)> {
        let runtime = runtime();
        let (source, target) = self.clusters(&runtime);
        let flow = FlowKey {
            topic: TOPIC.to_owned(),
            partition: 0,
        };
        let taken = TakenAt {
            topic: MIRRORED.to_owned(),
            partition: 0,
            offset,
        };
        let (rt, taken_at) = (Runtime::system(), [(flow.clone(), taken)].into());
        let read = read_mm2_pairs(&rt, source, target, ".", &taken_at);
        runtime.block_on(read).remove(&flow).unwrap_or_default()
    }

    /// A link between the two, at work.
    fn link(&self, runtime: &tokio::runtime::Runtime) -> (LinkHandle, Running) {
        let rt = Runtime::system();
        let (source, target) = self.clusters(runtime);
        let spec = LinkSpec {
            name: "link".to_owned(),
            source,
            target,
            isolation: self.isolation,
            instance: "test".to_owned(),
            lock_dir: None,
            internal_replication: None,
            take_over: false,
            memory_budget: self.memory_budget,
            lanes: 1,
            long_poll: Duration::from_millis(100),
            request_timeout: Duration::from_secs(30),
            open_transaction: Duration::from_secs(300),
            drain: Duration::from_secs(5),
            policies: Policies::default(),
            only_local: false,
            takeover: Takeover {
                offsets_topic: Some(OFFSETS.to_owned()),
                group: None,
                separator: Some("_".to_owned()),
            },
        };
        let (link, handle) = Link::new(rt.clone(), spec);
        let task = runtime.spawn(link.run());
        let flow = FlowSpec {
            key: FlowKey {
                topic: TOPIC.to_owned(),
                partition: 0,
            },
            target_topic: MIRRORED.to_owned(),
            start: Start::Earliest,
            compacted: false,
            target_compacted: false,
            min_insync: 1,
            max_batch_bytes: None,
        };
        runtime.block_on(handle.set_flows(vec![flow]));
        (handle, task)
    }

    /// Why nothing is mirrored, and that nothing is.
    fn refused(&self) -> String {
        let runtime = runtime();
        let (handle, task) = self.link(&runtime);
        let before = self.target.records(MIRRORED, 0, false).len();
        let mut status = handle.status();
        let told = runtime.block_on(status.wait_for(|status| !status.troubles.is_empty()));
        let (_, why) = told.unwrap().troubles[0].clone();
        runtime.block_on(handle.stop());
        runtime.block_on(task).unwrap().unwrap();
        assert_eq!(self.target.records(MIRRORED, 0, false).len(), before);
        why
    }

    fn run(&self, expected: &[i64], meanwhile: impl FnOnce()) -> Option<TakenOver> {
        let runtime = runtime();
        let (handle, task) = self.link(&runtime);
        meanwhile();
        let mut found = Vec::new();
        let begun = Instant::now();
        let wait_for = |wanted: &[i64], found: &mut Vec<i64>| {
            while *found != wanted {
                let status = handle.status().borrow().clone();
                assert!(
                    begun.elapsed() < Duration::from_secs(120),
                    "{} of {} records: ..{:?}\n{status:?}",
                    found.len(),
                    wanted.len(),
                    found.get(found.len().saturating_sub(60)..)
                );
                std::thread::sleep(Duration::from_millis(5));
                *found = self.mirrored();
            }
        };
        wait_for(expected, &mut found);
        self.write(1_000_000..1_000_001);
        let mut expected = expected.to_vec();
        expected.push(1_000_000);
        wait_for(&expected, &mut found);
        // It is renewed now and then: the first that counts a record is late enough.
        let mut status = handle.status();
        let told = runtime.block_on(status.wait_for(|status| status.records > 0));
        let taken = told.unwrap().taken_over.clone();
        runtime.block_on(handle.stop());
        runtime.block_on(task).unwrap().unwrap();
        taken
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn all(range: Range<i64>) -> Vec<i64> {
    range.collect()
}

fn numbers(ranges: &[Range<i64>]) -> Vec<i64> {
    ranges.iter().cloned().flatten().collect()
}

/// (flushed, last pair, records found by content)
#[test]
fn what_was_copied_behind_its_last_word_is_found() {
    for (flushed, pair, found) in [
        // Killed within a minute of its first start.
        (None, Some((0, 0)), 59),
        (Some(19), Some((0, 0)), 59),
        // Its sync is younger than its position.
        (Some(19), Some((40, 40)), 19),
        // Stopped: its position is all there is to know.
        (Some(59), Some((59, 59)), 0),
        // Its syncs are hidden, or were deleted.
        (Some(19), None, 60),
        (Some(59), None, 60),
    ] {
        let scene = Scene::new(&[]);
        scene.write(0..100);
        scene.copied(0..60);
        if let Some(offset) = flushed {
            scene.flushed(offset);
        }
        if let Some((upstream, downstream)) = pair {
            scene.pair(upstream, downstream);
        }
        let taken = scene.assert_becomes(&all(0..100)).unwrap();
        let what = format!("{flushed:?} {pair:?}");
        assert_eq!((taken.partitions, taken.in_doubt), (1, 0), "{what}");
        assert_eq!(taken.records, found, "{what}");
    }
}

/// With `offset-syncs.topic.location = target` they stand where Strait keeps its own.
#[test]
fn its_syncs_on_the_target_count_as_well() {
    for copied in [60, 0] {
        let scene = Scene::new(&[]);
        let syncs = "mm2-offset-syncs.source.internal";
        let compacted = [("cleanup.policy", "compact")];
        scene.target.create_topic(syncs, 1, &compacted).unwrap();
        scene.write(0..100);
        scene.copied(0..copied);
        // Where nothing was copied the topic was created anew.
        Scene::sync(&scene.target, syncs, (40, 40));
        scene.flushed(45);
        let taken = scene.assert_becomes(&all(0..100));
        assert_eq!(taken.map(|t| t.records), (copied > 0).then_some(19));
    }
}

/// From Kafka 3.1 on their topic has its separator in its name, on the source as on the target.
#[test]
fn its_syncs_under_names_with_another_separator_count_as_well() {
    for (on_source, syncs) in [
        (true, "mm2-offset-syncs_target_internal"),
        (false, "mm2-offset-syncs_source_internal"),
    ] {
        let scene = Scene::new(&[]);
        let broker = if on_source {
            &scene.source
        } else {
            &scene.target
        };
        let compacted = [("cleanup.policy", "compact")];
        broker.create_topic(syncs, 1, &compacted).unwrap();
        scene.write(0..100);
        scene.copied(0..60);
        // From before.
        scene.pair(10, 10);
        Scene::sync(broker, syncs, (40, 40));
        scene.flushed(45);
        let taken = scene.assert_becomes(&all(0..100)).unwrap();
        assert_eq!((taken.records, taken.in_doubt), (19, 0), "{syncs}");
    }
}

/// It began anew at its position after a crash, and crashed again before it was as far as before.
#[test]
fn what_it_copied_twice_is_not_copied_a_third_time() {
    let scene = Scene::new(&[]);
    scene.write(0..100);
    scene.copied(0..60);
    scene.copied(40..50);
    scene.flushed(39);
    scene.pair(0, 0);
    let taken = scene.assert_becomes(&numbers(&[0..60, 40..50, 60..100]));
    assert_eq!(taken.unwrap().in_doubt, 0);
}

/// Compaction on the target took one away: it stands between records that it kept.
#[test]
fn what_is_repeated_behind_a_record_that_the_target_lacks_is_said() {
    for pair in [Some((0, 0)), None] {
        let scene = Scene::new(&[]);
        scene.write(0..100);
        scene.copied(0..30);
        scene.copied(31..60);
        scene.flushed(19);
        if let Some((upstream, downstream)) = pair {
            scene.pair(upstream, downstream);
        }
        let taken = scene.assert_becomes(&numbers(&[0..30, 31..60, 30..100]));
        assert_eq!(taken.unwrap().in_doubt, 1, "{pair:?}");
    }
}

/// 130 records of 600 kB on the source, and a copy of the last but one: more lies before it than is read to find it.
fn with_large_records(time: impl Fn(i64) -> i64) -> Scene {
    let scene = Scene::new(&[]);
    let large = |n: i64| {
        let mut value = format!("{n} ").into_bytes();
        value.resize(600_000, b'.');
        KitRecord::new(scene.base_ms + time(n), None, Some(&value))
    };
    let mut to_source = scene.source.plain_producer();
    for n in 0..130 {
        to_source.send(TOPIC, 0, Codec::None, &[large(n)]).unwrap();
    }
    let mut to_target = scene.target.plain_producer();
    to_target
        .send(MIRRORED, 0, Codec::None, &[large(128)])
        .unwrap();
    scene.flushed_another();
    scene
}

/// It was stopped before its first flush, and its syncs are hidden.
#[test]
fn without_any_position_the_times_of_records_tell_where_to_look() {
    let scene = with_large_records(|n| n);
    let taken = scene.assert_becomes(&[128, 129]).unwrap();
    assert_eq!((taken.records, taken.in_doubt), (1, 0));
}

#[test]
fn where_times_tell_nothing_the_source_is_not_read_from_end_to_end() {
    let scene = with_large_records(|_| 0);
    let why = scene.refused();
    assert!(why.contains("no position for"), "{why}");
    // With a position it goes on there, and says that what follows may stand there already.
    scene.flushed(9);
    let runtime = runtime();
    let (handle, task) = scene.link(&runtime);
    let mut status = handle.status();
    let told = runtime.block_on(status.wait_for(|status| status.taken_over.is_some()));
    assert_eq!(told.unwrap().taken_over.as_ref().unwrap().in_doubt, 1);
    runtime.block_on(handle.stop());
    runtime.block_on(task).unwrap().unwrap();
}

#[test]
fn records_that_look_alike_are_counted_where_a_sync_tells_from_where() {
    let scene = Scene::new(&[]);
    let mut to_source = scene.source.plain_producer();
    to_source
        .send(TOPIC, 0, Codec::None, &scene.same(100))
        .unwrap();
    let mut to_target = scene.target.plain_producer();
    to_target
        .send(MIRRORED, 0, Codec::None, &scene.same(60))
        .unwrap();
    scene.flushed(30);
    scene.pair(0, 0);
    scene.assert_becomes(&[-1; 100]);
}

/// Without a sync nobody knows which of them the target has: they are repeated, and that is said.
#[test]
fn records_that_look_alike_are_repeated_where_nothing_tells_them_apart() {
    let scene = Scene::new(&[]);
    let mut to_source = scene.source.plain_producer();
    to_source
        .send(TOPIC, 0, Codec::None, &scene.same(100))
        .unwrap();
    let mut to_target = scene.target.plain_producer();
    to_target
        .send(MIRRORED, 0, Codec::None, &scene.same(60))
        .unwrap();
    scene.flushed(30);
    let taken = scene.assert_becomes(&[-1; 60 + 69]).unwrap();
    assert_eq!(taken.in_doubt, 1);
}

/// Offsets 0 to 59 on the source: 20 to 29 were aborted, and a marker follows at 30.
fn with_an_aborted_transaction(scene: &Scene) {
    scene.write(0..20);
    let mut producer = scene.source.transactional_producer("pay").unwrap();
    producer.begin();
    scene.send(&mut producer, TOPIC, 20..30);
    producer.abort().unwrap();
    scene.write(30..60);
}

#[test]
fn aborted_records_are_told_from_others_whether_they_were_copied_or_not() {
    let scene = Scene::new(&[]);
    with_an_aborted_transaction(&scene);
    scene.copied(0..50);
    scene.pair(0, 0);
    scene.assert_becomes(&all(0..60));

    let scene = Scene::new(&[]);
    with_an_aborted_transaction(&scene);
    scene.copied(0..20);
    scene.copied(30..50);
    scene.flushed(10);
    scene.pair(0, 0);
    scene.assert_becomes(&numbers(&[0..20, 30..60]));

    let mut scene = Scene::new(&[]);
    scene.isolation = Isolation::ReadUncommitted;
    with_an_aborted_transaction(&scene);
    scene.copied(0..25);
    scene.pair(0, 0);
    scene.assert_becomes(&all(0..60));
}

/// It copies what nobody has decided about yet; the link waits for the decision about the rest.
#[test]
fn what_was_copied_of_an_open_transaction_is_not_copied_again() {
    let scene = Scene::new(&[]);
    scene.write(0..20);
    let mut producer = scene.source.transactional_producer("pay").unwrap();
    producer.begin();
    scene.send(&mut producer, TOPIC, 20..30);
    scene.write(30..60);
    scene.copied(0..45);
    scene.pair(0, 0);
    scene.run(&all(0..60), || producer.commit().unwrap());
}

#[test]
fn of_several_connectors_the_lowest_position_counts_and_others_do_not() {
    // Its broker stamps records, so that their content tells nothing without a sync.
    let scene = Scene::new(&[("message.timestamp.type", "LogAppendTime")]);
    scene.write(0..100);
    scene.copied(0..60);
    scene.offset("a->b.MirrorSourceConnector", "source", Some(29));
    scene.offset("older", "source", Some(9));
    scene.offset("reset", "source", Some(5));
    scene.offset("reset", "source", None);
    scene.offset("MirrorSourceConnector", "other", Some(3));
    let taken = scene.assert_becomes(&numbers(&[0..60, 10..100])).unwrap();
    assert_eq!(taken.in_doubt, 1);
}

#[test]
fn a_target_that_stamps_records_is_compared_without_their_times() {
    let scene = Scene::new(&[("message.timestamp.type", "LogAppendTime")]);
    scene.write(0..100);
    scene.copied(0..60);
    scene.flushed(19);
    scene.pair(4, 4);
    let taken = scene.assert_becomes(&all(0..100)).unwrap();
    assert_eq!(taken.in_doubt, 0);
}

#[test]
fn a_target_that_was_emptied_by_retention_is_believed_to_have_had_it_all() {
    let scene = Scene::new(&[]);
    scene.write(0..100);
    scene.copied(0..60);
    scene.target.delete_records(MIRRORED, 0, 60).unwrap();
    scene.flushed(39);
    scene.pair(51, 51);
    scene.assert_becomes(&all(52..100));
}

#[test]
fn a_target_that_lost_its_end_or_was_created_anew_gets_what_it_lacks() {
    let scene = Scene::new(&[]);
    scene.write(0..100);
    scene.copied(0..50);
    scene.flushed(59);
    scene.pair(59, 59);
    scene.assert_becomes(&all(0..100));

    let scene = Scene::new(&[]);
    scene.write(0..100);
    scene.flushed(59);
    scene.pair(59, 59);
    assert_eq!(scene.assert_becomes(&all(0..100)), None);
}

#[test]
fn a_source_that_was_created_anew_is_mirrored_from_its_beginning() {
    let scene = Scene::new(&[]);
    scene.write(500..530);
    scene.copied(0..400);
    scene.flushed(399);
    scene.pair(399, 399);
    let taken = scene.assert_becomes(&numbers(&[0..400, 500..530])).unwrap();
    assert_eq!(taken.in_doubt, 1);
}

/// The memory for what the target holds is a share of the link's: more than that is compared in pieces.
#[test]
fn more_than_can_be_remembered_is_compared_in_pieces() {
    let mut scene = Scene::new(&[]);
    scene.memory_budget = 1 << 20;
    scene.write(0..10_000);
    scene.copied(0..9_000);
    scene.flushed(19);
    scene.pair(0, 0);
    let taken = scene.assert_becomes(&all(0..10_000)).unwrap();
    assert_eq!((taken.records, taken.in_doubt), (8_999, 0));
}

/// Its offset topic has another name, so it cannot be seen whether it runs: its syncs alone are no reason to go on.
#[test]
fn without_its_position_nothing_is_taken_over() {
    let scene = Scene::new(&[]);
    assert!(scene.target.delete_topic(OFFSETS));
    scene.write(0..100);
    scene.copied(0..60);
    scene.pair(50, 50);
    let why = scene.refused();
    assert!(
        why.contains("name its topic in takeover-offsets-topic"),
        "{why}"
    );
}

/// A MirrorMaker 2 that goes both ways at its defaults, with topics of one name: the other direction's syncs stand where this
/// link has its positions.
#[test]
fn syncs_of_the_other_direction_count_for_nothing() {
    for reverse in [
        // Beyond the target's end; beyond the source's; between what was mirrored and that.
        (30, 5_000),
        (5_000, 55),
        (90, 55),
        (70, 59),
    ] {
        for (flushed, pair, stamped) in [
            (Some(19), Some((40, 40)), false),
            (None, Some((40, 40)), false),
            (Some(19), None, false),
            (Some(19), Some((40, 40)), true),
        ] {
            let settings: &[_] = match stamped {
                true => &[("message.timestamp.type", "LogAppendTime")],
                false => &[],
            };
            let scene = Scene::new(settings);
            scene.write(0..100);
            scene.copied(0..60);
            if let Some(offset) = flushed {
                scene.flushed(offset);
            }
            if let Some((upstream, downstream)) = pair {
                scene.pair(upstream, downstream);
            }
            scene.reverse_pair(reverse.0, reverse.1);
            let taken = scene.assert_becomes(&all(0..100)).unwrap();
            let what = format!("{reverse:?} {flushed:?} {pair:?} {stamped}");
            assert_eq!(taken.in_doubt, 0, "{what}");
        }
    }
}

/// The other direction moved before: its positions stand where MirrorMaker 2 has this one's syncs.
#[test]
fn positions_of_the_other_direction_count_for_nothing() {
    for downstream in [55, 5_000] {
        let scene = Scene::new(&[]);
        scene.write(0..100);
        scene.copied(0..60);
        scene.flushed(19);
        scene.reverse_position(90, downstream);
        let taken = scene.assert_becomes(&all(0..100)).unwrap();
        assert_eq!((taken.records, taken.in_doubt), (60, 0), "{downstream}");
    }
}

/// Nobody can look at the records of either direction's pair: what the target lacks is mirrored again all the same.
#[test]
fn a_target_that_lost_its_end_gets_it_again_beside_another_direction() {
    let scene = Scene::new(&[]);
    scene.write(0..100);
    scene.copied(0..50);
    scene.flushed(59);
    scene.pair(59, 59);
    scene.reverse_pair(5_000, 55);
    let taken = scene.assert_becomes(&all(0..100)).unwrap();
    assert_eq!(taken.in_doubt, 1);
}

/// By a pair of the other direction a group would go on behind records that it has not read.
#[test]
fn groups_are_not_placed_by_syncs_of_the_other_direction() {
    let scene = || {
        let scene = Scene::new(&[]);
        scene.write(0..100);
        scene.copied(0..60);
        scene
    };
    let both = scene();
    both.pair(10, 10);
    both.pair(40, 40);
    both.reverse_pair(5, 50);
    assert_eq!(both.pairs_before(60), [(10, 10), (40, 40)]);
    let moved = scene();
    moved.reverse_pair(5, 50);
    moved.reverse_position(7, 45);
    assert_eq!(moved.pairs_before(60), []);
    // One direction alone is believed, whatever its records are by now.
    let alone = scene();
    alone.pair(10, 9);
    alone.pair(40, 39);
    assert_eq!(alone.pairs_before(60), [(10, 9), (40, 39)]);
}

/// A MirrorMaker 2 that goes the other way writes its syncs where positions stand (`position-overwritten`), under the same key: compaction would leave
/// the sync alone.
#[test]
fn a_position_is_written_again_over_a_sync_of_the_other_direction() {
    let scene = Scene::new(&[]);
    // Nothing is taken over, so that nothing but the position tells where to go on.
    assert!(scene.target.delete_topic(OFFSETS));
    let topic = "mm2-offset-syncs_source_internal";
    let positions = || scene.target.records(topic, 0, false);
    let of_strait = |record: &KitRecord| record.headers.iter().any(|(key, _)| key == "strait.pos");
    let rewritten = || {
        let begun = Instant::now();
        let before = positions().len();
        Scene::sync(&scene.target, topic, (7_000, 9_000));
        while positions().len() < before + 2 || !of_strait(positions().last().unwrap()) {
            assert!(begun.elapsed() < Duration::from_secs(120), "not yet");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    scene.write(0..10);
    scene.run(&all(0..10), || ());
    // While nothing was running; what follows is neither doubled nor left out.
    Scene::sync(&scene.target, topic, (7_000, 9_000));
    scene.write(10..20);
    let mut expected = all(0..10);
    expected.push(1_000_000);
    expected.extend(10..20);
    scene.run(&expected, || ());
    assert!(of_strait(positions().last().unwrap()));
    expected.push(1_000_000);
    // One that has nothing to mirror, and one that had: the position stands last at once.
    let runtime = runtime();
    let (handle, task) = scene.link(&runtime);
    let mut status = handle.status();
    runtime
        .block_on(status.wait_for(|s| s.running > 0))
        .unwrap();
    rewritten();
    rewritten();
    runtime.block_on(handle.stop());
    runtime.block_on(task).unwrap().unwrap();
    assert_eq!(scene.mirrored(), expected);
    // The syncs before it do not count again: nothing is written for a flow that has nothing to do.
    let ends = || (positions().len(), scene.target.log_end(MIRRORED, 0));
    let before = ends();
    let (handle, task) = scene.link(&runtime);
    let mut status = handle.status();
    runtime
        .block_on(status.wait_for(|s| s.running > 0))
        .unwrap();
    runtime.block_on(handle.stop());
    runtime.block_on(task).unwrap().unwrap();
    assert_eq!(ends(), before);
    // One that came while nothing was running, with nothing to mirror: the position is written again all the same.
    Scene::sync(&scene.target, topic, (7_000, 9_000));
    let (handle, task) = scene.link(&runtime);
    let begun = Instant::now();
    while !of_strait(positions().last().unwrap()) {
        assert!(begun.elapsed() < Duration::from_secs(120), "not yet");
        std::thread::sleep(Duration::from_millis(20));
    }
    runtime.block_on(handle.stop());
    runtime.block_on(task).unwrap().unwrap();
    assert_eq!(scene.mirrored(), expected);
}
