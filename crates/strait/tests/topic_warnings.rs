//! What is said of topics that cannot be looked at, and that cannot have what their sources have; all of it ends by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod kit;
mod rig;

use std::time::Duration;

use kit::{assert_goes_on, cluster};
use rig::{Mirror, west_to_east};
use strait_testkit::fault::ResponseKind;
use strait_testkit::{Fault, Rewrite, Rule};

const SOON: Duration = Duration::from_secs(60);
/// Kafka's numbers.
const METADATA: i16 = 3;
const DESCRIBE_CONFIGS: i16 = 32;

#[test]
fn topics_that_cannot_be_looked_at_are_named() {
    let runtime = kit::runtime();
    let [west, east] = ["west", "east"].map(|id| kit::start(&runtime, cluster(id)));
    west.broker.create_topic("orders", 1, &[]).unwrap();
    let load = kit::Load::start(&west, "orders");
    // Three replicas there, of which one broker on the target can have one.
    let three = Rewrite::new(|answer| {
        if let ResponseKind::Metadata(metadata) = answer {
            for partition in metadata.topics.iter_mut().flat_map(|t| &mut t.partitions) {
                partition.replica_nodes = [1, 2, 3].map(Into::into).to_vec();
            }
        }
    });
    west.broker
        .faults()
        .add(Rule::on(METADATA, Fault::Answer(three)));
    west.broker
        .faults()
        .add(Rule::on(DESCRIBE_CONFIGS, Fault::Error(29)));
    let toml = west_to_east(&west.address, &east.address, &["orders"], "");
    let mut mirror = Mirror::new(&toml).started();
    for text in [
        "WARN  link=west->east id=replication-capped source topics have 3 replicas, but the target has ",
        "WARN  link=west->east id=settings-unreadable topic=",
    ] {
        mirror.wait_for_log(text, SOON);
    }
    assert_goes_on((&west, "orders"), (&east, "west.orders"), SOON);
    west.broker.faults().clear();
    west.broker
        .faults()
        .add(Rule::on(METADATA, Fault::DropBefore));
    mirror.wait_for_log(
        "WARN  link=west->east id=topics-unreadable cannot look for topics, trying again: ",
        SOON,
    );
    west.broker.faults().clear();
    assert_goes_on((&west, "orders"), (&east, "west.orders"), SOON);
    drop(load);
    mirror.stop();
    runtime.shutdown_background();
}
