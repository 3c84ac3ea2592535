//! Clusters that check rights: what a topic's readers may do follows it to the target, users that are missing there are
//! named, and a source that may only be read is not written to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs
)]

mod look;
mod outcome;
mod rig;

use std::time::Duration;

use look::look;
use outcome::count;
use rig::{Mirror, wait_until};
use strait_testkit::kafka::{KafkaCluster, KafkaOptions, Oracle, Right};

const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct-horse";
const MIRROR: &str = "mirror";

/// Two clusters that allow their users nothing; the harness itself may do everything.
fn clusters() -> [&'static KafkaCluster; 2] {
    let guarded = || {
        KafkaOptions::new()
            .sasl_user(MIRROR, PASSWORD)
            .property(
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            )
            .property("super.users", "User:ANONYMOUS")
    };
    ["first", "second"].map(|name| KafkaCluster::shared(name, guarded).unwrap())
}

fn allow(kafka: &KafkaCluster, kind: &str, name: &str, operations: &[&str]) {
    let right = Right {
        kind,
        name,
        prefixed: kind != "CLUSTER",
        operations,
    };
    let oracle = Oracle::shared().unwrap();
    oracle.allow(&kafka.bootstrap(), MIRROR, right).unwrap();
}

/// The ACLs of topics that begin so, by literal names.
fn acls(kafka: &KafkaCluster, beginning: &str) -> Vec<String> {
    let mut lines = look(&["acls", &kafka.bootstrap()]);
    lines.retain(|line| line.starts_with(beginning) && line.contains(" LITERAL "));
    lines
}

#[test]
fn readers_follow_their_topic_writers_do_not_and_a_missing_right_is_said_once() {
    let [source, target] = clusters();
    let oracle = Oracle::shared().unwrap();
    let (west, east) = (&source.bootstrap(), &target.bootstrap());
    oracle.create_topic(west, "orders", 1, 1, &[]).unwrap();
    let granted = [
        "orders LITERAL User:alice * READ ALLOW",
        "orders LITERAL User:alice * WRITE ALLOW",
        "orders LITERAL User:bob 10.1.2.3 ALL ALLOW",
        "orders LITERAL User:eve * WRITE DENY",
        "orders LITERAL User:eve * ALL DENY",
        "ord PREFIXED User:carol * READ ALLOW",
        "* LITERAL User:dave * READ ALLOW",
        "other LITERAL User:alice * READ ALLOW",
    ];
    let mut arguments = vec!["grant", west.as_str()];
    arguments.extend(granted);
    look(&arguments);
    look(&["user", west, "frank"]);

    allow(source, "TOPIC", "orders", &["READ", "DESCRIBE_CONFIGS"]);
    let all = ["CREATE", "READ", "WRITE", "DESCRIBE_CONFIGS"];
    for topic in ["west.", "mm2-"] {
        allow(target, "TOPIC", topic, &all);
    }
    allow(target, "TRANSACTIONAL_ID", "strait.", &["WRITE"]);

    let cluster = |kafka: &KafkaCluster| {
        format!(
            "{{ bootstrap = {:?}, sasl = {{ mechanism = \"SCRAM-SHA-512\", username = {MIRROR:?}, password = {PASSWORD:?} }} }}",
            kafka.sasl_bootstrap().join(",")
        )
    };
    // Heartbeats as MirrorMaker 2 writes them, which this source does not allow.
    let toml = format!(
        "[clusters]\nwest = {}\neast = {}\n[[links]]\nsource = \"west\"\ntarget = \"east\"\ntopics = [\"orders\"]\n\
         refresh-topics = \"1s\"\nsync-topic-acls = true\nsync-topic-acls-interval = \"1s\"\nemit-heartbeats = \"both\"\n\
         report-missing-users = true\n",
        cluster(source),
        cluster(target)
    );
    let mut mirror = Mirror::new(&toml).started();
    let unread = "id=acls-unread the ACLs of topics on cluster west cannot be read, so none are copied, mirroring goes on: ";
    mirror.wait_for_log(unread, SOON);
    mirror.wait_for_log("give Strait's user Describe on the cluster there", SOON);
    let unknown = "id=users-unread the SCRAM users of cluster west cannot be read, ";
    mirror.wait_for_log(unknown, SOON);
    mirror.wait_for_log(
        "id=heartbeats-unwritten topic=heartbeats no heartbeats are written on cluster west, mirroring goes on: ",
        SOON,
    );
    let here = "id=heartbeats-unwritten topic=heartbeats no heartbeats are written on cluster east, mirroring goes on: ";
    mirror.wait_for_log(here, SOON);
    mirror.wait_for_log(
        "give Strait's user Create and Write on topic heartbeats",
        SOON,
    );
    // The link is seen all the same.
    wait_until("west.heartbeats is there", SOON, || {
        let topics = oracle.list_topics(east).unwrap();
        topics.iter().any(|topic| topic == "west.heartbeats")
    });
    assert_eq!(
        look(&["mirror", east, "west"]),
        [
            "heartbeats [west.heartbeats]",
            "upstream [west]",
            "hops west 1"
        ]
    );
    assert_eq!(acls(target, "west.orders "), Vec::<String>::new());

    allow(source, "CLUSTER", "kafka-cluster", &["DESCRIBE"]);
    mirror.wait_for_log(
        "id=acls-unread the ACLs of topics on cluster east cannot be read, ",
        SOON,
    );
    allow(target, "CLUSTER", "kafka-cluster", &["DESCRIBE"]);
    mirror.wait_for_log(
        "id=acls-refused cluster east refuses ACLs, mirroring goes on: west.orders (",
        SOON,
    );
    mirror.wait_for_log("give Strait's user Alter on the cluster there", SOON);
    allow(target, "CLUSTER", "kafka-cluster", &["ALTER"]);
    let wanted = [
        "west.orders LITERAL User:alice * READ ALLOW",
        "west.orders LITERAL User:bob 10.1.2.3 READ ALLOW",
        "west.orders LITERAL User:eve * ALL DENY",
        "west.orders LITERAL User:eve * WRITE DENY",
    ];
    mirror.wait_for_log("acls=4 created ACLs on the target: west.orders (", SOON);
    assert_eq!(acls(target, "west."), wanted);
    let log = mirror.log();
    assert_eq!(count(&log, unread), 1, "{log}");
    assert_eq!(count(&log, here), 1, "{log}");
    mirror.stop();

    // Users and quotas: names only.
    for kafka in [source, target] {
        allow(
            kafka,
            "CLUSTER",
            "kafka-cluster",
            &["DESCRIBE", "DESCRIBE_CONFIGS"],
        );
    }
    mirror.start();
    mirror.wait_for_log(
        "id=users-missing cluster east lacks 1 SCRAM users of cluster west: frank (SCRAM-SHA-256); create them there",
        SOON,
    );
    mirror.wait_for_log(
        "id=users-missing cluster east lacks 1 client quotas of cluster west: user frank: producer_byte_rate; ",
        SOON,
    );
    mirror.stop();
    assert!(!mirror.log().contains("never-shown"));
}
