//! `strait offsets back` says what it leaves out, also where its output is for Kafka's own command.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod kit;
mod rig;

use std::process::Command;
use std::time::Duration;

use kit::{cluster, records};
use rig::{Mirror, wait_until, west_to_east};
use strait_testkit::Codec;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_topic_of_the_same_name_is_not_taken_for_the_one_that_was_mirrored() {
    let runtime = kit::runtime();
    let [west, east] = ["west", "east"].map(|id| kit::start(&runtime, cluster(id)));
    for topic in ["kept", "anew", "further"] {
        west.broker.create_topic(topic, 1, &[]).unwrap();
        let mut producer = west.broker.idempotent_producer();
        let written = producer.send(topic, 0, Codec::None, &records("r", 40, 50));
        written.unwrap();
    }
    let topics = ["kept", "anew", "further"];
    let toml = west_to_east(&west.address, &east.address, &topics, "");
    let mut mirror = Mirror::new(&toml).started();
    wait_until("all is mirrored", SOON, || {
        let there = east.broker.topics();
        topics.iter().all(|topic| {
            let name = format!("west.{topic}");
            there.contains_key(&name) && east.broker.log_end(&name, 0) >= 40
        })
    });
    // The positions say so too.
    let caught_up = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(["wait", "caught-up", "--timeout", "60s"])
        .arg(mirror.folder().join("mirror.toml"))
        .output()
        .unwrap();
    assert_eq!(caught_up.status.code(), Some(0), "{caught_up:?}");
    mirror.stop();
    // Somebody makes it anew, and the group reads that.
    east.broker.delete_topic("west.anew");
    east.broker.create_topic("west.anew", 1, &[]).unwrap();
    for topic in topics {
        let name = format!("west.{topic}");
        east.broker.commit("readers", &name, 0, 25);
    }
    west.broker.commit("readers", "kept", 0, 5);
    west.broker.commit("readers", "further", 0, 40);
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(["offsets", "back"])
        .arg(mirror.folder().join("mirror.toml"))
        .args(["--group", "readers", "--csv"])
        .output()
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
    assert_eq!(output.status.code(), Some(0), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        matches!(lines.as_slice(), [only] if only.starts_with("kept,0,")),
        "{out}"
    );
    for told in [
        "link west->east: west.anew-0 is left out: topic west.anew on cluster east is not the one that the link's positions speak of: it was created anew since\n",
        "link west->east: further-0 is left out: the group stands at 40 on the source",
    ] {
        assert!(err.contains(told), "{err}");
    }
    runtime.shutdown_background();
}
