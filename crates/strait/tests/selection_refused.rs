//! A stored selection on clusters that have no registry yet, do not take the record, or hold one that cannot be read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod kit;
mod page;
mod rig;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

use kit::{cluster, difference, now_ms, records};
use page::{get, send};
use rig::{Mirror, free_port, wait_until, west_to_east};
use strait_testkit::{Codec, Fault, KitRecord, Rule};

const SOON: Duration = Duration::from_secs(60);
const REGISTRY: &str = "mm2-strait.internal";
/// Kafka's number.
const PRODUCE: i16 = 0;

fn strait(mirror: &Mirror, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(arguments)
        .current_dir(mirror.folder())
        .output()
        .unwrap()
}

#[test]
fn what_was_selected_holds_on_where_a_selection_is_refused_or_damaged() {
    let runtime = kit::runtime();
    let [west, east] = ["west", "east"].map(|id| kit::start(&runtime, cluster(id)));
    let write = |topic: &str, name: &str| {
        let mut producer = west.broker.idempotent_producer();
        let sent = producer.send(topic, 0, Codec::None, &records(name, 10, 100));
        sent.unwrap();
    };
    for topic in ["a", "b"] {
        west.broker.create_topic(topic, 1, &[]).unwrap();
        write(topic, "first");
    }
    let port = free_port();
    let toml = format!(
        "[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken-file = \"tokens\"\n{}",
        west_to_east(&west.address, &east.address, &["a", "b"], "")
    );
    let mut mirror = Mirror::new(&toml).arguments(&[]);
    let tokens = mirror.folder().join("tokens");
    let lines = "viewer = viewer-0123456789abcdef\nmanager = manager-0123456789abcdef\n";
    std::fs::write(&tokens, lines).unwrap();
    std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o600)).unwrap();

    // Before the first start, so that nothing of `b` is ever mirrored.
    let set = strait(
        &mirror,
        &["selection", "set", "mirror.toml", "--select", "a"],
    );
    assert!(set.status.success(), "{set:?}");
    mirror.start();
    wait_until("a is mirrored", SOON, || {
        difference((&west, "a"), (&east, "west.a")).is_none()
    });
    assert!(!east.broker.topics().contains_key("west.b"));

    // The target takes no such record.
    let rule = Rule::on(PRODUCE, Fault::Error(29)).topic(REGISTRY);
    let rule = east.broker.faults().add(rule);
    let headers = [
        ("Authorization", "manager-0123456789abcdef"),
        ("Content-Type", "application/json"),
    ];
    let body = "{\"includes\":[\"b\"]}";
    let path = "/admin/mirroring/topic-selection";
    let answer = send(port, "POST", path, &headers, body).unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer
            .body
            .contains("give Strait's user Write on the topic"),
        "{answer:?}"
    );
    mirror.wait_for_log(
        "WARN  link=west->east id=selection-unwritten role=manager",
        SOON,
    );
    let set = strait(&mirror, &["selection", "none", "mirror.toml"]);
    let said = String::from_utf8_lossy(&set.stderr);
    assert_eq!(set.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot use mm2-strait.internal on cluster east")
            && said.contains("give Strait's user Write on the topic"),
        "{said}"
    );
    east.broker.faults().remove(rule);

    // A record of a later version: INT8 type 5 and the link; version 2.
    let link = "west->east";
    let key = [&[5, 0, u8::try_from(link.len()).unwrap()], link.as_bytes()].concat();
    let newer = KitRecord::new(now_ms(), Some(&key), Some(&[2, 0, 0]));
    let mut producer = east.broker.plain_producer();
    producer.send(REGISTRY, 0, Codec::None, &[newer]).unwrap();
    mirror.wait_for_log(
        "WARN  link=west->east id=selection-unreadable cannot read which topics are selected, what was selected before holds on; trying again: the selection of link west->east on cluster east cannot be read: written by a newer Strait",
        SOON,
    );
    write("a", "second");
    wait_until("a goes on", SOON, || {
        difference((&west, "a"), (&east, "west.a")).is_none()
    });
    wait_until("the page says it", SOON, || {
        get(port, "/readyz").is_some_and(|(status, body)| {
            status == 200 && body.contains("west->east: mirroring in part: the selection of link")
        })
    });
    let shown = strait(&mirror, &["selection", "get", "mirror.toml"]);
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
    // A reset helps.
    let reset = strait(&mirror, &["selection", "reset", "mirror.toml"]);
    assert!(reset.status.success(), "{reset:?}");
    wait_until("b is mirrored", SOON, || {
        east.broker.topics().contains_key("west.b")
            && difference((&west, "b"), (&east, "west.b")).is_none()
    });
    wait_until("the page is clean", SOON, || {
        get(port, "/readyz").is_some_and(|(_, body)| body == "1 link mirroring\n")
    });

    // What is de-selected while the source is away is not mirrored when it is back.
    west.broker.set_online(false);
    let set = strait(
        &mirror,
        &["selection", "set", "mirror.toml", "--select", "b"],
    );
    assert!(set.status.success(), "{set:?}");
    wait_until("only b is active", SOON, || {
        let answer = send(port, "GET", "/admin/mirroring/active-topics", &headers, "");
        answer.is_some_and(|a| a.body == "{\"active_topics\":[\"b\"]}\n")
    });
    let mirrored = east.broker.log_end("west.a", 0);
    for topic in ["a", "b"] {
        write(topic, "third");
    }
    west.broker.set_online(true);
    wait_until("b goes on", SOON, || {
        difference((&west, "b"), (&east, "west.b")).is_none()
    });
    assert_eq!(east.broker.log_end("west.a", 0), mirrored);
    mirror.stop();
    runtime.shutdown_background();
}
