//! Settings of mirrored topics: what the source loses the target loses, whose defaults hold, and how often they are
//! compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod rig;

use std::time::Duration;

use rig::{Mirror, wait_until, west_to_east};
use strait_testkit::kafka::{KafkaCluster, Oracle};

const SOON: Duration = Duration::from_secs(60);
const DAY: &str = "86400000";

/// The value that the topic itself has; none where it has the default.
fn own(oracle: &Oracle, kafka: &str, topic: &str, setting: &str) -> Option<String> {
    let topic = oracle.describe_topic(kafka, topic).unwrap();
    let config = &topic.configs[setting];
    config.value.clone().filter(|_| config.set_on_topic)
}

fn is_there(oracle: &Oracle, kafka: &str, topic: &str) {
    wait_until(&format!("{topic} is there"), SOON, || {
        oracle
            .list_topics(kafka)
            .unwrap()
            .iter()
            .any(|t| t == topic)
    });
}

#[test]
fn a_setting_that_is_removed_on_the_source_goes_back_to_the_default() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let set = [("retention.ms", DAY), ("segment.ms", DAY)];
    oracle.create_topic(&west, "kept", 1, 1, &set).unwrap();
    let toml = west_to_east(&west, &east, &["kept"], "name = \"kept\"");
    let mut mirror = Mirror::new(&toml).started();
    let target = "west.kept";
    is_there(&oracle, &east, target);
    let on_target = |setting| own(&oracle, &east, target, setting);
    assert_eq!(on_target("retention.ms").as_deref(), Some(DAY));

    // What is excluded is the target's own affair.
    let by_hand = [("min.insync.replicas", "1")];
    let changed = oracle.alter_topic_configs(&east, target, &by_hand, &[]);
    changed.unwrap();
    let changed = oracle.alter_topic_configs(&west, "kept", &[], &["retention.ms"]);
    changed.unwrap();
    wait_until("the default is back", SOON, || {
        on_target("retention.ms").is_none()
    });
    assert_eq!(on_target("segment.ms").as_deref(), Some(DAY));
    assert_eq!(on_target("min.insync.replicas").as_deref(), Some("1"));
    mirror.stop();
}

#[test]
fn the_defaults_are_the_sources_where_that_is_asked_for() {
    let [west, east] = KafkaCluster::shared_pair().unwrap();
    let (west, east) = (west.bootstrap(), east.bootstrap());
    let oracle = Oracle::shared().unwrap();
    let set = [("retention.ms", DAY)];
    oracle.create_topic(&west, "defaults", 1, 1, &set).unwrap();
    let mm2 = format!(
        "clusters = paris, east\nparis.bootstrap.servers = {west}\neast.bootstrap.servers = {east}\n\
         paris->east.enabled = true\ntopics = defaults.*\nemit.heartbeats.enabled = false\n\
         use.defaults.from = source\nrefresh.topics.interval.seconds = 1\n\
         sync.topic.configs.interval.seconds = 2\n"
    );
    let mut mirror = Mirror::with_file("mm2.properties", &mm2).started();
    let target = "paris.defaults";
    is_there(&oracle, &east, target);
    let on_target = |setting| own(&oracle, &east, target, setting);
    assert_eq!(on_target("retention.ms").as_deref(), Some(DAY));
    // A default of Kafka's, which is set on the target now, whatever its brokers would say.
    let default = on_target("max.message.bytes");
    assert_eq!(default.as_deref(), Some("1048588"));
    // Without its own value the source's default is set, not removed.
    let changed = oracle.alter_topic_configs(&west, "defaults", &[], &["retention.ms"]);
    changed.unwrap();
    wait_until("the source's default is there", SOON, || {
        on_target("retention.ms").as_deref() == Some("604800000")
    });
    mirror.stop();

    // Not compared before it is time, although topics are looked for.
    let rarely = mm2.replace("seconds = 2\n", "seconds = 3600\n");
    let mut mirror = Mirror::with_file("mm2.properties", &rarely).started();
    mirror.wait_for_log(" mirroring", SOON);
    let changed = oracle.alter_topic_configs(&west, "defaults", &set, &[]);
    changed.unwrap();
    oracle.create_topic(&west, "defaults-2", 1, 1, &[]).unwrap();
    is_there(&oracle, &east, "paris.defaults-2");
    assert_eq!(on_target("retention.ms").as_deref(), Some("604800000"));
    mirror.stop();
}
