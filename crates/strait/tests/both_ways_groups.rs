//! Groups that move between clusters that mirror each other under the same names, on real Kafka: nothing is skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    missing_docs
)]

mod rig;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use rig::{Mirror, wait_until};
use strait_testkit::kafka::{DumpOptions, Isolation, KafkaCluster, KafkaOptions, Oracle, Workload};

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;

fn link(from: &str, to: &str, topic: &str) -> String {
    format!(
        "[[links]]\nname = \"{topic}-{from}-{to}\"\nsource = {from:?}\ntarget = {to:?}\ntopics = [{topic:?}]\nnaming = \"identity\"\n\
         forward = \"local\"\nstart = \"earliest\"\nreplicate-heartbeats = false\nrefresh-topics = \"1s\"\nsync-topic-configs = false\n\
         internal-replication-factor = 1\ngroups = [\"{topic}\"]\nrefresh-groups = \"1s\"\nsync-group-offsets = true\n\
         sync-group-offsets-interval = \"1s\"\n"
    )
}

/// A group of the same name as its topic, which reads here and there.
struct Trip {
    oracle: Oracle,
    topic: &'static str,
    seen: BTreeSet<u64>,
    reads: usize,
}

impl Trip {
    /// Before anything is written.
    fn new(topic: &'static str, clusters: &[&String]) -> Self {
        let oracle = Oracle::shared().unwrap();
        for kafka in clusters {
            oracle
                .create_topic(kafka, topic, PARTITIONS, 1, &[])
                .unwrap();
        }
        Self {
            oracle,
            topic,
            seen: BTreeSet::new(),
            reads: 0,
        }
    }

    fn load(&self, first: u64) -> Workload {
        Workload::new(self.topic).first_id(first).sizes(20, 200)
    }

    /// Waits until that many records are there.
    fn waits(&self, kafka: &str, there: usize) {
        wait_until("records come", SOON, || {
            let options = DumpOptions {
                records: true,
                ..DumpOptions::default()
            };
            let dump = self
                .oracle
                .dump(kafka, self.topic, Isolation::ReadCommitted, options);
            let partitions = dump.unwrap().partitions;
            partitions.iter().map(|p| p.records.len()).sum::<usize>() >= there
        });
    }

    /// Reads so many once that many are there, some of every origin.
    fn read(&mut self, kafka: &str, there: usize, count: u64) {
        self.waits(kafka, there);
        let reset = if self.seen.is_empty() {
            "earliest"
        } else {
            "none"
        };
        let group = (self.topic, self.topic);
        let read = self
            .oracle
            .consume_group(kafka, group, count, reset)
            .unwrap();
        self.reads += read.len();
        self.seen.extend(read);
    }

    fn stands(&self, kafka: &str) -> i64 {
        let committed = self.oracle.committed(kafka, self.topic).unwrap();
        committed.values().map(|(offset, _)| *offset).sum()
    }

    /// Waits until the group's commits go on here. How far depends on when positions were written last.
    fn arrives(&self, kafka: &str, at: i64) {
        let what = format!("what {} has read goes on from {at}", self.topic);
        wait_until(&what, SOON, || {
            let committed = self.oracle.committed(kafka, self.topic).unwrap();
            committed.len() == PARTITIONS as usize && self.stands(kafka) > at
        });
    }

    /// Nothing was skipped.
    fn ends(self, expected: &BTreeSet<u64>) {
        let skipped: Vec<u64> = expected.difference(&self.seen).copied().collect();
        let all = expected.len();
        assert_eq!(skipped, [0; 0], "skipped of {all}");
        let again = self.reads - self.seen.len();
        println!("{all} records, {again} read again");
        assert!(again < all, "{again} of {all} read again");
    }
}

/// A group reads on one side, goes on on the other one, and comes back, while applications write to both all the time.
#[test]
fn a_group_that_commutes_reads_every_record_of_both_sides() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let topic = "commuting";
    let mut trip = Trip::new(topic, &[&west, &east]);
    let oracle = trip.oracle.clone();
    oracle.produce(&west, &trip.load(0), 1_000).unwrap();
    trip.read(&west, 1_000, 600);

    // Without a way back it is not known what the group has read of east's own.
    let clusters = format!("[clusters]\nwest = {west:?}\neast = {east:?}\n");
    let over = clusters + &link("west", "east", topic);
    let mut mirror = Mirror::new(&over).started();
    mirror.wait_for_log(
        "id=groups-untranslated group=commuting topic=commuting",
        SOON,
    );
    assert!(oracle.committed(&east, topic).unwrap().is_empty());
    mirror.stop();

    let mut mirror = Mirror::new(&(over + &link("east", "west", topic))).started();
    let writers = [(10_000, &west), (50_000, &east)].map(|(first, kafka)| {
        let load = trip.load(first).rate(60.0).batches(2_000, 20);
        oracle.start_producer(kafka, &load).unwrap()
    });
    trip.read(&west, 1_500, 850);
    trip.arrives(&east, 100);
    let before = trip.stands(&west);
    trip.read(&east, 2_000, 700);
    trip.arrives(&west, before);
    let before = trip.stands(&east);
    trip.read(&west, 2_400, 600);
    trip.arrives(&east, before);
    let before = trip.stands(&west);
    trip.read(&east, 2_800, 600);

    let [of_west, of_east] = writers.map(|writer| writer.stop().unwrap());
    trip.arrives(&west, before);
    assert_eq!((of_west.failed, of_east.failed), (0, 0));
    let expected: BTreeSet<u64> = (0..1_000)
        .chain(10_000..of_west.next_id)
        .chain(50_000..of_east.next_id)
        .collect();
    trip.read(&west, expected.len(), 1 << 40);
    trip.ends(&expected);
    mirror.stop();
}

/// The same with a third cluster, to which applications write too: what comes from there reaches the others in any order.
#[test]
fn a_group_that_travels_between_three_reads_every_record() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let third = KafkaCluster::shared("third", KafkaOptions::new).unwrap();
    let all = [west, east, third].map(KafkaCluster::bootstrap);
    let names = ["west", "east", "third"];
    let topic = "touring";
    let mut trip = Trip::new(topic, &all.each_ref());
    let oracle = trip.oracle.clone();
    let mut clusters = "[clusters]\n".to_owned();
    for (name, kafka) in names.iter().zip(&all) {
        clusters.push_str(&format!("{name} = {kafka:?}\n"));
    }
    let mut links = clusters;
    for from in names {
        let others = names.iter().filter(|to| **to != from);
        links.extend(others.map(|to| link(from, to, topic)));
    }
    let mut mirror = Mirror::new(&links).started();
    let file = mirror.folder().join("mirror.toml");
    let selection = |what: &str| {
        let status = Command::new(env!("CARGO_BIN_EXE_strait"))
            .args(["selection", what])
            .arg(&file)
            .args(["--link", "touring-third-west"])
            .status();
        assert!(status.unwrap().success());
    };
    let write = |first, count, kafka: &str| {
        let load = Workload::new(topic).first_id(first).sizes(20, 200);
        oracle.produce(kafka, &load, count).unwrap();
    };
    write(0, 300, &all[0]);
    write(1_000, 100, &all[2]);
    all.iter().for_each(|kafka| trip.waits(kafka, 400));
    trip.read(&all[0], 400, 1 << 40);
    trip.arrives(&all[1], 0);
    trip.arrives(&all[2], 0);

    // What third writes comes to east only, and before what the group reads on west.
    selection("none");
    mirror.wait_for_log("link=touring-third-west topics=0", SOON);
    write(1_100, 200, &all[2]);
    trip.waits(&all[1], 600);
    write(300, 300, &all[0]);
    trip.waits(&all[1], 900);
    trip.waits(&all[2], 900);
    trip.read(&all[0], 700, 1 << 40);
    // What is not read holds the commits there back: nothing is to be waited for but some rounds.
    rig::pass(Duration::from_secs(4));
    trip.read(&all[1], 900, 1 << 40);
    let written: BTreeSet<u64> = (0..600).chain(1_000..1_300).collect();
    assert_eq!(trip.seen, written);
    selection("reset");

    let firsts = [10_000, 40_000, 70_000];
    let writers = [0, 1, 2].map(|n| {
        let load = trip.load(firsts[n]).rate(50.0).batches(2_000, 20);
        oracle.start_producer(&all[n], &load).unwrap()
    });
    // More than it reads again, so that it gets further on each of them.
    for (step, (here, next)) in (1..).zip([(1, 2), (2, 0)]) {
        let before = trip.stands(&all[next]);
        trip.read(&all[here], 900 + step * 700, 600);
        trip.arrives(&all[next], before);
    }
    let mut expected = written;
    for (first, writer) in firsts.into_iter().zip(writers) {
        let written = writer.stop().unwrap();
        assert_eq!(written.failed, 0);
        expected.extend(first..written.next_id);
    }
    trip.read(&all[0], expected.len(), 1 << 40);
    trip.ends(&expected);
    mirror.stop();
}
