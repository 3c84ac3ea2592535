//! A link that stops at the records of another link of Strait's says which one that is.
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

use std::time::Duration;

use kit::{cluster, records};
use rig::{Mirror, wait_until};
use strait_testkit::Codec;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_other_link_is_named() {
    let runtime = kit::runtime();
    let [west, north, east] = ["west", "north", "east"].map(|id| kit::start(&runtime, cluster(id)));
    let link = |source: &str, address: &str, more: &str| {
        format!(
            "[clusters]\n{source} = {address:?}\neast = {:?}\n[[links]]\nsource = {source:?}\ntarget = \"east\"\ntopics = [\"orders\"]\nnaming = \"identity\"\n{more}\n",
            east.address
        )
    };
    for source in [&west, &north] {
        source.broker.create_topic("orders", 1, &[]).unwrap();
        let mut producer = source.broker.idempotent_producer();
        let written = producer.send("orders", 0, Codec::None, &records("r", 10, 50));
        written.unwrap();
    }
    let mut first = Mirror::new(&link("west", &west.address, "")).started();
    let ends_at = |least: i64| {
        wait_until("it is mirrored", SOON, || {
            let there = east.broker.topics().contains_key("orders");
            there && east.broker.log_end("orders", 0) >= least
        });
    };
    ends_at(10);
    first.stop();
    let shared = "on-foreign-writer = \"continue\"\non-target-has-data = \"continue\"";
    let mut second = Mirror::new(&link("north", &north.address, shared)).started();
    ends_at(20);
    second.stop();

    // It looks when there is something to write.
    let mut producer = west.broker.idempotent_producer();
    let written = producer.send("orders", 0, Codec::None, &records("more", 1, 50));
    written.unwrap();
    first.start();
    first.wait_for_log(", that is link north->east of Strait)", SOON);
    assert!(
        first.log().contains("id=foreign-writer"),
        "{}",
        first.tail()
    );
    runtime.shutdown_background();
}
