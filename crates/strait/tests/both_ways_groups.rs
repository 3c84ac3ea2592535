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
use std::time::Duration;

use rig::{Mirror, wait_until};
use strait_testkit::kafka::{DumpOptions, Isolation, KafkaCluster, Oracle, Workload};

const SOON: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;
const TOPIC: &str = "commuting";
const GROUP: (&str, &str) = ("commuter", TOPIC);

fn link(from: &str, to: &str, start: &str) -> String {
    format!(
        "[[links]]\nname = \"{TOPIC}-{from}-{to}\"\nsource = {from:?}\ntarget = {to:?}\ntopics = [{TOPIC:?}]\nnaming = \"identity\"\n\
         forward = \"local\"\nstart = {start:?}\nreplicate-heartbeats = false\nrefresh-topics = \"1s\"\nsync-topic-configs = false\n\
         internal-replication-factor = 1\ngroups = [\"commuter\"]\nrefresh-groups = \"1s\"\nsync-group-offsets = true\n\
         sync-group-offsets-interval = \"1s\"\n"
    )
}

/// A group reads on one side, goes on on the other one, and comes back, while applications write to both all the time.
#[test]
fn a_group_that_commutes_reads_every_record_of_both_sides() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    for kafka in [&west, &east] {
        oracle
            .create_topic(kafka, TOPIC, PARTITIONS, 1, &[])
            .unwrap();
    }
    let load = |first| Workload::new(TOPIC).first_id(first).sizes(20, 200);
    oracle.produce(&west, &load(0), 1_000).unwrap();
    let read = oracle.consume_group(&west, GROUP, 600, "earliest").unwrap();
    let mut seen: BTreeSet<u64> = read.iter().copied().collect();
    let mut reads = read.len();

    // Without a way back it is not known what the group has read of east's own.
    let clusters = format!("[clusters]\nwest = {west:?}\neast = {east:?}\n");
    let over = clusters + &link("west", "east", "earliest");
    let mut mirror = Mirror::new(&over).started();
    mirror.wait_for_log(
        "id=groups-untranslated group=commuter topic=commuting",
        SOON,
    );
    assert!(oracle.committed(&east, GROUP.0).unwrap().is_empty());
    mirror.stop();

    let mut mirror = Mirror::new(&(over + &link("east", "west", "earliest"))).started();
    let writers = [(10_000, &west), (50_000, &east)].map(|(first, kafka)| {
        let load = load(first).rate(60.0).batches(2_000, 20);
        oracle.start_producer(kafka, &load).unwrap()
    });
    let stands = |kafka: &str| -> i64 {
        let committed = oracle.committed(kafka, GROUP.0).unwrap();
        committed.values().map(|(offset, _)| *offset).sum()
    };
    // How far depends on when positions were written last.
    let arrives = |kafka: &str, at: i64| {
        wait_until("what the group has read arrives", SOON, || {
            oracle.committed(kafka, GROUP.0).unwrap().len() == PARTITIONS as usize
                && stands(kafka) > at
        });
    };
    let held = |kafka: &str| -> usize {
        let options = DumpOptions {
            records: true,
            ..DumpOptions::default()
        };
        let dump = oracle.dump(kafka, TOPIC, Isolation::ReadCommitted, options);
        let partitions = dump.unwrap().partitions;
        partitions.iter().map(|p| p.records.len()).sum()
    };
    // Until that many are there, some of either side.
    let mut read = |kafka: &str, there: usize, count: u64| {
        wait_until("records come", SOON, || held(kafka) >= there);
        let read = oracle.consume_group(kafka, GROUP, count, "none").unwrap();
        reads += read.len();
        seen.extend(read);
    };
    read(&west, 1_500, 850);
    arrives(&east, 100);
    read(&east, 2_000, 700);
    let before = stands(&west);
    arrives(&west, before);
    read(&west, 2_400, 600);
    let before = stands(&east);
    arrives(&east, before);
    read(&east, 2_800, 600);
    let before = stands(&west);

    let [of_west, of_east] = writers.map(|writer| writer.stop().unwrap());
    arrives(&west, before);
    assert_eq!((of_west.failed, of_east.failed), (0, 0));
    let expected: BTreeSet<u64> = (0..1_000)
        .chain(10_000..of_west.next_id)
        .chain(50_000..of_east.next_id)
        .collect();
    let all = expected.len();
    read(&west, all, 1 << 40);
    let skipped: Vec<u64> = expected.difference(&seen).copied().collect();
    assert_eq!(skipped, [0; 0], "skipped of {all}");
    let again = reads - seen.len();
    println!("{all} records, {again} read again");
    assert!(again < all, "{again} of {all} read again");
    mirror.stop();
}
