//! `strait wait`, and what `strait status` tells of groups: how a move from one cluster to the other is timed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod rig;

use std::process::{Command, Output};
use std::time::Duration;

use rig::{Mirror, free_port, holds_within, wait_until, west_to_east};
use strait_testkit::kafka::{Isolation, KafkaCluster, Oracle, TransactionSpec, Workload};

const SOON: Duration = Duration::from_secs(60);

fn strait(mirror: &Mirror, what: &[&str], more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(what)
        .arg(mirror.folder().join("mirror.toml"))
        .args(more)
        .output()
        .unwrap()
}

/// Exit code, stdout, stderr.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), out, err)
}

fn wait(mirror: &Mirror, what: &str, more: &[&str]) -> (Option<i32>, String, String) {
    told(&strait(mirror, &["wait", what], more))
}

/// A wait that ends by its time alone with what is expected on stdout and stderr; again where a busy machine left it no time to
/// look to the end.
fn not_yet(mirror: &Mirror, what: &str, more: &[&str], expected: impl Fn(&str, &str) -> bool) {
    let mut last = (None, String::new(), String::new());
    let told = holds_within(SOON, || {
        last = wait(mirror, what, &[&["--timeout", "1s"], more].concat());
        let (code, out, err) = &last;
        assert_eq!(*code, Some(6), "{out}{err}");
        expected(out, err)
    });
    assert!(told, "{last:?}");
}

#[test]
fn a_link_has_caught_up_when_nothing_is_left_to_mirror() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&west.bootstrap(), &east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    oracle.create_topic(west, "waited", 2, 1, &[]).unwrap();
    oracle
        .create_topic(west, "waited-empty", 1, 1, &[])
        .unwrap();
    let aborting = |seed: u64| {
        let transactions = TransactionSpec::new("waited", 20).abort_every(2);
        Workload::new("waited").seed(seed).transaction(transactions)
    };
    oracle.produce(west, &aborting(1), 2_000).unwrap();
    let more = "name = \"waited\"\nsync-topic-configs = false";
    let mut mirror = Mirror::new(&west_to_east(west, east, &["waited.*"], more));

    // Nobody has mirrored anything yet, and nobody does.
    let (code, out, err) = wait(&mirror, "caught-up", &["--timeout", "12s"]);
    assert_eq!(code, Some(6), "{out}{err}");
    assert!(
        out.starts_with(
            "link waited\nnot caught up: 2 of 3 partitions, with cluster west as it stood at 20"
        ) && out.contains("\nBEHIND    OFFSETS  WHY\n")
            && out.contains("  the link has no position for it yet\n"),
        "{out}"
    );
    assert!(
        err.contains("link waited: 2 of 3 partitions behind, ")
            && err.contains(
                "link waited is not run by any process: nothing more is mirrored until one does\n"
            ),
        "{err}"
    );

    // With a mirror at work, and records that come meanwhile.
    mirror.start();
    let (code, out, err) = wait(&mirror, "caught-up", &["--timeout", "1m"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.starts_with(
            "link waited\ncaught up: 3 partitions, with cluster west as it stood at 20"
        ),
        "{out}"
    );
    let compared = oracle.compare(
        (west, "waited"),
        (east, "west.waited"),
        Isolation::ReadCommitted,
        Duration::ZERO,
    );
    assert!(compared.as_ref().unwrap().equal, "{compared:?}");

    // Without one: nothing but an aborted transaction lies behind its positions, and then records do.
    mirror.stop();
    let open = oracle
        .produce_open(west, &Workload::new("waited").seed(2), 30, "waited-open")
        .unwrap();
    let (code, out, _) = wait(&mirror, "caught-up", &["--timeout", "1m"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("\ntransactions are open in ")
            && out.ends_with(" there: what is in them follows when they are committed\n"),
        "{out}"
    );
    open.abort().unwrap();
    wait_until("the transaction has ended", SOON, || {
        !oracle.has_open_transaction(west, "waited").unwrap()
    });
    let (code, out, err) = wait(&mirror, "caught-up", &["--timeout", "1m", "--json"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.starts_with("[{\"link\":\"waited\",\"caught_up\":true,\"as_of_ms\":")
            && out.ends_with(",\"partitions\":3,\"open_transactions\":0,\"behind\":[]}]\n"),
        "{out}"
    );
    let one = Workload::new("waited-empty");
    oracle.produce(west, &one, 7).unwrap();
    not_yet(&mirror, "caught-up", &[], |out, _| {
        out.contains("\nwaited-empty-0        7  \n") || out.contains("\nwaited-empty-0        7\n")
    });

    // A source that is lost is no source that nothing is left of.
    let dead = format!("127.0.0.1:{}", free_port());
    let soon = format!("{more}\nconnect-timeout = \"500ms\"");
    let lost = Mirror::new(&west_to_east(&dead, east, &["waited.*"], &soon));
    let (code, out, err) = wait(&lost, "caught-up", &["--timeout", "1m"]);
    assert_eq!(code, Some(5), "{out}{err}");
    assert!(err.contains("cannot reach cluster 'west'"), "{err}");
    assert!(
        out.starts_with("link waited\nnot known in the end: cannot reach cluster 'west'"),
        "{out}"
    );
    // And what selects nothing does not catch up.
    let none = Mirror::new(&west_to_east(west, east, &["waited-nowhere"], more));
    let (code, _, err) = wait(&none, "caught-up", &[]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains(
            "link waited: it selects no topic that cluster west has: there is nothing to wait for\n"
        ),
        "{err}"
    );
}

#[test]
fn groups_have_drained_a_topic_when_they_have_read_its_records() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (&west.bootstrap(), &east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    oracle.create_topic(west, "drained", 1, 1, &[]).unwrap();
    oracle
        .produce(west, &Workload::new("drained"), 100)
        .unwrap();
    let more = "name = \"drained\"\nsync-topic-configs = false\ngroups = [\"drained-.*\"]\nrefresh-groups = \"1s\"\nsync-group-offsets-interval = \"1s\"";
    let toml = west_to_east(west, east, &["drained"], more);
    let mut mirror = Mirror::new(&toml).started();
    let (code, out, err) = wait(&mirror, "caught-up", &["--timeout", "1m"]);
    assert_eq!(code, Some(0), "{out}{err}");
    // A marker, then records, then markers once more.
    for records in [20, 0] {
        mirror.kill9();
        if records > 0 {
            oracle
                .produce(west, &Workload::new("drained").first_id(100), records)
                .unwrap();
        }
        mirror.start();
        let (code, out, err) = wait(&mirror, "caught-up", &["--timeout", "1m"]);
        assert_eq!(code, Some(0), "{out}{err}");
    }
    let read = oracle.consume_group(west, ("drained-group", "drained"), 90, "earliest");
    assert_eq!(read.unwrap().len(), 90);
    let key = ("west.drained".to_owned(), 0);
    wait_until("the group is committed for", SOON, || {
        let committed = oracle.committed_offsets(east, "drained-group").unwrap();
        committed.get(&key) == Some(&90)
    });
    let groups = ["--groups", "--timeout", "1m"];
    let (code, out, err) = wait(&mirror, "caught-up", &groups);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.ends_with("\ncommitted there too: the offsets of 1 group\n"),
        "{out}"
    );
    mirror.stop();
    // What it reads from here on is not carried over.
    let read = oracle.consume_group(west, ("drained-group", "drained"), 5, "none");
    assert_eq!(read.unwrap().len(), 5);
    let stands = "drained-group stands at 90 in west.drained-0 and belongs at 95\n";
    not_yet(&mirror, "caught-up", &["--groups"], |out, err| {
        out.contains("\ncaught up: ")
            && out.ends_with(&format!("\nnot committed there yet, of 1 group:\n{stands}"))
            && err.contains("link drained: 1 commit of groups to go; drained-group stands")
    });
    not_yet(&mirror, "caught-up", &["--groups", "--json"], |out, _| {
        out.ends_with(",\"behind\":[],\"groups\":1,\"groups_unknown\":[],\"groups_behind\":[{\"group\":\"drained-group\",\"topic\":\"west.drained\",\"partition\":0,\"stands\":90,\"belongs\":95}]}]\n")
    });
    let end = oracle
        .offsets(east, "west.drained", Isolation::ReadUncommitted)
        .unwrap()[0]
        .end;
    assert!(end > 120, "fences take offsets: {end}");

    // The source is not needed, and gone here.
    let dead = format!("127.0.0.1:{}", free_port());
    let mirror = Mirror::new(&west_to_east(&dead, east, &["drained"], more));
    let table =
        "GROUP          MIRRORED TOPIC  RECORDS LEFT\ndrained-group  west.drained              30";
    let squeezed = |text: &str| {
        let lines = text.lines().map(str::trim_end);
        lines.collect::<Vec<_>>().join("\n")
    };
    not_yet(&mirror, "drained", &[], |out, err| {
        squeezed(out) == format!("link drained\nnot drained\n{table}")
            && err.contains("link drained: drained-group has 30 records left in west.drained\n")
    });
    let (code, out, err) = told(&strait(&mirror, &["status"], &["--json"]));
    assert_eq!(code, Some(5), "{err}");
    assert!(
        out.starts_with("[{\"link\":\"drained\",\"groups\":[{\"group\":\"drained-group\",\"topic\":\"west.drained\",\"records_left\":30,\"exact\":true,\"uncommitted_partitions\":0,\"unknown_partitions\":0}],\"source_gone\":null}]"),
        "{out}"
    );
    let (_, out, _) = told(&strait(&mirror, &["status"], &[]));
    assert_eq!(squeezed(&out), format!("link drained\n{table}"));
    // Whoever is named is waited for, though nothing is known of it.
    let named = ["--group", "drained-unknown", "--json"];
    not_yet(&mirror, "drained", &named, |out, _| {
        out.contains("\"drained\":false,\"unknown\":[],\"groups\":[{\"group\":\"drained-unknown\",\"topic\":\"west.drained\",\"records_left\":120,\"exact\":true,\"uncommitted_partitions\":1,\"unknown_partitions\":0}]")
    });
    // It reads while it is waited for.
    let reader = std::thread::spawn({
        let (oracle, east) = (oracle.clone(), east.clone());
        move || {
            oracle.consume_group(
                &east,
                ("drained-group", "west.drained"),
                u64::MAX >> 1,
                "none",
            )
        }
    });
    let pattern = [
        "--timeout",
        "1m",
        "--topic",
        ".*drained",
        "--group",
        "drained-group",
    ];
    let (code, out, err) = wait(&mirror, "drained", &pattern);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        out.starts_with("link drained\ndrained: the topics' own records may be read\n"),
        "{out}"
    );
    assert_eq!(reader.join().unwrap().unwrap().len(), 30);
    let (code, _, err) = wait(&mirror, "drained", &["--topic", "drained"]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("link drained: it has mirrored no topic of such a name to cluster east: there is nothing to wait for\n"),
        "{err}"
    );
}
