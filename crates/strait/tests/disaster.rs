//! Disaster recovery as the book tells it: to the other cluster and back, and to a new one where the first is lost for good.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod example;
mod page;
mod rig;
mod wildcard;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rig::{Mirror, free_port, wait_until};
use strait_testkit::kafka::{Isolation, KafkaCluster, KafkaOptions, Oracle, Workload};
use wildcard::numbers;

const SOON: Duration = Duration::from_secs(60);
const MANAGER: &str = "manager-0123456789abcdef";

/// The page's file for one direction, looked at more often.
fn link(file: &str, from: &Site, to: &Site, more: &str) -> String {
    let alias = |site: &Site| site.alias.to_ascii_lowercase();
    let (a, b) = (alias(from), alias(to));
    let addresses = [(a.as_str(), from.at.as_str()), (&b, &to.at)];
    example::example(file, &addresses, &format!("{}\n{more}", example::QUICK))
}

/// `strait WHAT mirror.toml MORE`: what it prints, if it ends with this code.
fn strait(mirror: &Mirror, what: &[&str], more: &[&str], code: i32) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(what)
        .arg(mirror.folder().join("mirror.toml"))
        .args(more)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{what:?}: {out}{err}");
    out + &err
}

/// Records, and what groups have read of them.
fn caught_up(mirror: &Mirror) {
    let arguments = ["--groups", "--timeout", "1m"];
    let said = strait(mirror, &["wait", "caught-up"], &arguments, 0);
    assert!(
        said.contains("\ncommitted there too: the offsets of "),
        "{said}"
    );
}

/// A cluster with the topic that applications write there.
struct Site {
    oracle: Oracle,
    alias: &'static str,
    at: String,
    topic: &'static str,
}

impl Site {
    fn new(kafka: &KafkaCluster, alias: &'static str, topic: &'static str) -> Self {
        let site = Self {
            oracle: Oracle::shared().unwrap(),
            alias,
            at: kafka.bootstrap(),
            topic,
        };
        site.oracle
            .create_topic(&site.at, topic, 2, 1, &[])
            .unwrap();
        site
    }

    /// Producers write records of these numbers to the local topic.
    fn produce(&self, numbers: std::ops::Range<u64>) {
        let load = Workload::new(self.topic).first_id(numbers.start);
        let count = numbers.end - numbers.start;
        self.oracle.produce(&self.at, &load, count).unwrap();
    }

    /// The local topic, and those that came from elsewhere.
    fn topics(&self) -> Vec<String> {
        let mut topics = self.oracle.list_topics(&self.at).unwrap();
        topics.retain(|topic| topic.starts_with(self.topic));
        topics.sort();
        topics
    }

    /// The numbers that a group reads, up to `count` or the end.
    fn read(&self, group: &str, topic: &str, count: u64) -> Vec<u64> {
        let read = self
            .oracle
            .consume_group(&self.at, (group, topic), count, "earliest");
        read.unwrap()
    }

    /// What a consumer of local and remote topics reads to their ends.
    fn read_all(&self, group: &str) -> Vec<(String, u64, u64)> {
        let pattern = format!("{}.*", self.topic.replace('.', "\\."));
        wildcard::read_all(&self.at, group, &pattern)
    }

    fn ends(&self, topic: &str) -> Vec<i64> {
        let offsets = self
            .oracle
            .offsets(&self.at, topic, Isolation::ReadCommitted);
        offsets.unwrap().iter().map(|o| o.end).collect()
    }

    fn committed(&self, group: &str, topic: &str) -> Vec<i64> {
        let committed = self.oracle.committed_offsets(&self.at, group).unwrap();
        let of_topic = committed.iter().filter(|((name, _), _)| name == topic);
        of_topic.map(|(_, offset)| *offset).collect()
    }

    /// Each record of the one is once and in order on the other.
    fn assert_mirrored(&self, topic: &str, to: &Site, remote: &str) {
        let isolation = Isolation::ReadCommitted;
        let (left, right) = ((self.at.as_str(), topic), (to.at.as_str(), remote));
        let compared = self.oracle.compare(left, right, isolation, SOON).unwrap();
        assert!(compared.equal, "{topic} to {remote}: {compared}");
    }
}

/// What `kafka-consumer-groups.sh --reset-offsets --from-file` does with the lines of `strait offsets back --csv`.
fn reset_offsets(site: &Site, mirror: &Mirror, group: &str) {
    let lines = strait(
        mirror,
        &["offsets", "back"],
        &["--group", group, "--csv"],
        0,
    );
    let at = lines.lines().map(|line| {
        let mut cells = line.split(',');
        let topic = cells.next().unwrap();
        let mut number = || cells.next().unwrap().parse::<i64>().unwrap();
        (topic, i32::try_from(number()).unwrap(), number())
    });
    let at: Vec<(&str, i32, i64)> = at.collect();
    assert!(!at.is_empty());
    site.oracle.commit_offsets(&site.at, group, &at).unwrap();
}

/// Nothing is read twice, and all of it is read.
fn assert_once(read: &[u64], numbers: std::ops::Range<u64>) {
    let once: BTreeSet<u64> = read.iter().copied().collect();
    assert_eq!(once.len(), read.len(), "read twice");
    assert_eq!(once, numbers.collect(), "left out");
}

#[test]
fn work_moves_to_b_and_back_to_a() {
    let [a, b] = KafkaCluster::shared_pair().unwrap();
    let (local, from_a, from_b) = (
        "accounting.invoices",
        "accounting.invoices.A",
        "accounting.invoices.B",
    );
    let (a, b) = (Site::new(a, "A", local), Site::new(b, "B", local));
    let mut a_to_b = Mirror::new(&link("dr-a-to-b.toml", &a, &b, "")).started();
    // Beside A, with the endpoints that Event Streams has.
    let port = free_port();
    let admin = format!("[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken-file = \"tokens\"\n");
    let toml = admin + &link("dr-b-to-a.toml", &b, &a, "");
    let mut b_to_a = Mirror::new(&toml).arguments(&[]);
    let tokens = b_to_a.folder().join("tokens");
    std::fs::write(
        &tokens,
        format!("viewer = viewer-0123456789abcdef\nmanager = {MANAGER}\n"),
    )
    .unwrap();
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&tokens, mode).unwrap();

    // A serves. Its consumers are somewhere in the middle when it has to be left.
    a.produce(0..400);
    let mut read = a.read("billing", local, 150);
    caught_up(&a_to_b);
    assert_eq!(b.committed("billing", from_a).iter().sum::<i64>(), 150);
    let out = strait(&a_to_b, &["mirroring-topic-selection-set"], &["--none"], 0);
    assert!(out.contains("topics, as stored on B since "), "{out}");
    let active = || strait(&a_to_b, &["mirroring-active-topics"], &[], 0);
    wait_until("nothing is mirrored any more", SOON, || active().is_empty());

    // B serves: what came from A first, then what is produced here.
    b.produce(400..700);
    let drained = |timeout: &str, code: i32| {
        let which = ["--group", "billing", "--topic", r"accounting\.invoices\.A"];
        let arguments = [&which[..], &["--timeout", timeout]].concat();
        strait(&a_to_b, &["wait", "drained"], &arguments, code)
    };
    assert!(drained("8s", 6).contains("billing has 250 records left in accounting.invoices.A"));
    read.extend(b.read("billing", from_a, 100));
    let status = strait(&a_to_b, &["status"], &[], 0);
    assert!(
        status.contains("billing  accounting.invoices.A           150"),
        "{status}"
    );
    read.extend(b.read("billing", from_a, 150));
    drained("1m", 0);
    assert_once(&read, 0..400);
    let both = b.read_all("billing");
    assert_eq!(numbers(&both, from_a), Vec::<u64>::new());
    read.extend(numbers(&both, local));
    assert_once(&read, 0..700);

    // A is back: only what B has of its own returns.
    b_to_a.start();
    b.produce(700..800);
    caught_up(&b_to_a);
    assert_eq!(a.topics(), [local, from_b]);
    b.assert_mirrored(local, &a, from_b);
    read.extend(numbers(&b.read_all("billing"), local));
    b.produce(800..900);
    caught_up(&b_to_a);
    // What the group has read on B of A's own it need not read again.
    let back = strait(&a_to_b, &["offsets", "back"], &["--group", "billing"], 0);
    let row = back
        .lines()
        .find(|l| l.starts_with("accounting.invoices.A-0 "));
    let cells: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert_eq!(cells[1], "accounting.invoices-0", "{back}");
    assert_eq!(cells[4..], ["200", "exact"], "{back}");
    reset_offsets(&a, &a_to_b, "billing");
    let ends = a.ends(local);
    assert_eq!(ends, [200, 200]);
    assert_eq!(a.committed("billing", local), ends);
    assert_eq!(a.committed("billing", from_b).iter().sum::<i64>(), 400);
    let bearer = format!("Bearer {MANAGER}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let path = "/admin/mirroring/topic-selection";
    let answer = page::send(port, "POST", path, &headers, "{\"includes\":[\"\"]}").unwrap();
    assert_eq!(
        (answer.status, answer.body.trim()),
        (200, "{\"includes\":[]}")
    );
    wait_until("nothing returns any more", SOON, || {
        strait(&b_to_a, &["mirroring-active-topics"], &[], 0).is_empty()
    });

    // A serves again: what came from B first.
    a.produce(900..1_000);
    let rest = a.read("billing", from_b, 100);
    strait(&b_to_a, &["wait", "drained"], &["--timeout", "1m"], 0);
    read.extend(rest);
    let both = a.read_all("billing");
    assert_eq!(numbers(&both, from_b), Vec::<u64>::new());
    read.extend(numbers(&both, local));
    assert_once(&read, 0..1_000);

    // And B is its replica again, from where it was.
    strait(&a_to_b, &["selection", "reset"], &[], 0);
    caught_up(&a_to_b);
    assert_eq!(b.topics(), [local, from_a]);
    a.assert_mirrored(local, &b, from_a);
    // The group has read all of it on A, and B knows.
    drained("1m", 0);
    a_to_b.stop();
    b_to_a.stop();
    assert_eq!(a.topics(), [local, from_b]);
}

#[test]
fn a_is_lost_for_good_and_c_takes_its_place() {
    let [c, b] = KafkaCluster::shared_pair().unwrap();
    let lost = KafkaCluster::start(KafkaOptions::new()).unwrap();
    let (local, from_a) = ("payroll.slips", "payroll.slips.A");
    let (a, b) = (Site::new(&lost, "A", local), Site::new(b, "B", local));
    let c = Site::new(c, "C", local);
    let payroll = |toml: String| toml.replace("accounting", "payroll");
    let a_to_b = payroll(link("dr-a-to-b.toml", &a, &b, "name = \"payroll\""));
    let mut a_to_b = Mirror::new(&a_to_b).started();
    a.produce(0..300);
    let mut read = a.read("payday", local, 100);
    caught_up(&a_to_b);
    assert_eq!(b.committed("payday", from_a).iter().sum::<i64>(), 100);
    // What A acknowledged in its last moment may not have arrived.
    a.produce(300..350);
    lost.kill9(0).unwrap();
    let said = strait(&a_to_b, &["wait", "caught-up"], &["--timeout", "3s"], 5);
    assert!(said.contains("cannot reach cluster 'A'"), "{said}");
    a_to_b.stop();
    let arrived: i64 = b.ends(from_a).iter().sum();
    assert!((300..=350).contains(&arrived), "{arrived}");
    let status = strait(&a_to_b, &["status"], &[], 5);
    let left = format!("payday  payroll.slips.A           {}", arrived - 100);
    assert!(status.contains(&left), "{status}");

    // B serves, and its consumers are in the middle of both topics when C is there.
    b.produce(1_000..1_200);
    read.extend(b.read("payday", from_a, 90));
    read.extend(b.read("payday", local, 70));
    // With the heartbeats that B has of A.
    let b_to_c = payroll(link("dr-b-to-c.toml", &b, &c, "name = \"payroll\"")).replace(
        "replicate-heartbeats = false",
        "replicate-heartbeats = true",
    );
    let mut b_to_c = Mirror::new(&b_to_c).started();
    caught_up(&b_to_c);
    wait_until("heartbeats are mirrored", SOON, || {
        strait(&b_to_c, &["gaps"], &[], 0).contains("B.A.heartbeats-0")
    });
    let (old, new) = ("payroll.slips.A.B", "payroll.slips.B");
    assert_eq!(c.topics(), [local, old, new]);
    b.assert_mirrored(from_a, &c, old);
    b.assert_mirrored(local, &c, new);
    assert_eq!(c.committed("payday", old).iter().sum::<i64>(), 190);
    assert_eq!(c.committed("payday", new).iter().sum::<i64>(), 70);
    b_to_c.stop();
    let rest = c.read_all("payday");
    assert_eq!(numbers(&rest, local), Vec::<u64>::new());
    assert_eq!(numbers(&rest, old).len() as i64, arrived - 190);
    assert_eq!(numbers(&rest, new).len(), 130);
    read.extend(rest.iter().map(|(_, _, number)| *number));
    // The heartbeats came along unasked, and no group waits for their end.
    let named = ["--group", "payday", "--timeout", "1m"];
    strait(&b_to_c, &["wait", "drained"], &named, 0);
    let (of_b, of_a): (Vec<u64>, Vec<u64>) = read.iter().partition(|number| **number >= 1_000);
    assert_eq!(of_a.len() as i64, arrived);
    assert_eq!(
        of_a.iter().collect::<BTreeSet<_>>().len(),
        of_a.len(),
        "read twice"
    );
    assert_once(&of_b, 1_000..1_200);
}
