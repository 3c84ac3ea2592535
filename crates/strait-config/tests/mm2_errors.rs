//! What a MirrorMaker 2 file cannot have here, and whose word counts in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod said;

use said::{MM2, link, load, mm2, wrong};

#[test]
fn properties_that_miss_something() {
    wrong(
        "f.properties",
        "a.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\n",
        &["f.properties: clusters: it is missing. Write clusters = a, b."],
    );
    wrong(
        "f.properties",
        "clusters =\n",
        &["f.properties:1: clusters = : it names no cluster. Write clusters = A, B."],
    );
    wrong(
        "f.properties",
        "clusters = a, b\n",
        &[
            "f.properties: no flow is enabled, so there is nothing to mirror. Write a->b.enabled = true.",
        ],
    );
    wrong(
        "f.properties",
        "clusters = a, b\na->b.enabled = true\na.bootstrap.servers = a, a:99999\n",
        &[
            "f.properties:3: a.bootstrap.servers = a, a:99999: a: it has no port. Write host:port, for example a:9092.",
            "f.properties:3: a.bootstrap.servers = a, a:99999: a:99999: `99999` is not a port from 1 to 65535. Write host:port, for example a:9092.",
            "f.properties: b.bootstrap.servers: it is missing. Write b.bootstrap.servers = host-1:9092,host-2:9092.",
        ],
    );
}

#[test]
fn properties_with_wrong_values() {
    mm2(
        "a->b.topics = x, (",
        &[
            "f.properties:5: a->b.topics = x, (: (: it is not a regular expression: unclosed group. Write regular expressions that match whole names, with commas between them and none inside.",
        ],
    );
    mm2(
        "topics = x.*  # all",
        &[
            "f.properties:5: topics = x.*  # all: in a properties file a comment stands on its own line; here it is part of the value. Write topics = x.* and move # all to a line of its own.",
        ],
    );
    mm2(
        "replication.factor = 0",
        &[
            "f.properties:5: replication.factor = 0: no topic can have so many replicas. Write 1 to 32767, or -1 for the broker's default.",
        ],
    );
    mm2(
        "refresh.topics.interval.seconds = 0",
        &[
            "f.properties:5: refresh.topics.interval.seconds = 0: this is no such number of seconds. Write 1 or more, or refresh.topics.enabled = false.",
        ],
    );
    mm2(
        "sync.group.offsets.interval.seconds = often",
        &[
            "f.properties:5: sync.group.offsets.interval.seconds = often: this is no such number of seconds. Write 1 or more, or sync.group.offsets.enabled = false.",
        ],
    );
    mm2(
        "sync.topic.configs.enabled = no",
        &[
            "f.properties:5: sync.topic.configs.enabled = no: this is neither true nor false. Write true or false.",
        ],
    );
    mm2(
        "a.consumer.auto.offset.reset = none",
        &[
            "f.properties:5: a.consumer.auto.offset.reset = none: a flow without a position must begin somewhere. Write earliest or latest.",
        ],
    );
    mm2(
        "a.consumer.auto.offset.reset = by_duration:PT1H",
        &[
            "f.properties:5: a.consumer.auto.offset.reset = by_duration:PT1H: a start by duration would move with every restart. Write the configuration in TOML, where start takes a time such as 2026-11-01T00:00:00Z.",
        ],
    );
    mm2(
        "a.consumer.isolation.level = committed",
        &[
            "f.properties:5: a.consumer.isolation.level = committed: this is not one of its values. Write read_committed or read_uncommitted.",
        ],
    );
    mm2(
        "replication.policy.separator = /",
        &[
            "f.properties:5: replication.policy.separator = /: a separator becomes part of topic names and may have 1 to 16 letters, digits, '.', '_' and '-'. Write \".\", \"_\" or \"-\".",
        ],
    );
    mm2(
        "replication.policy.class = IdentityReplicationPolicy\nb->a.enabled = true",
        &[
            "f.properties:6: b->a: identity naming sends the same topics round and round: a->b, b->a. Use the default naming in one of these links, or write forward = \"local\" in all of them, or make their topics plainly different (other names or other beginnings).",
        ],
    );
}

#[test]
fn keys_that_would_connect_or_copy_otherwise_are_all_refused_at_once() {
    mm2(
        "consumer.security.protocol = SASL_SSL\nb->c.sasl.mechanism = x\na->b.ssl.truststore.location = /t\na->b.producer.override.sasl.mechanism = PLAIN\ntransforms = x\ntransforms.x.type = y\npredicates = p\ntopic.filter.class = com.example.Mine\na->b.group.filter.class = com.example.Mine\nforwarding.admin.class = com.example.Mine\nconfig.providers = file\nconfig.providers.file.class = F\nreplication.policy.class = com.example.Mine\nvalue.converter = org.example.Avro\nb.producer.interceptor.classes = I\na->b.source.cluster.alias = z\na.consumer.bootstrap.servers = z:1\nenabled = true",
        &[
            "f.properties:5: consumer.security.protocol = SASL_SSL: this is about none of the clusters, and to leave it out would connect otherwise than asked. Write it for a cluster, as A.security.protocol, or for all of them, with nothing before it.",
            "f.properties:7: a->b.ssl.truststore.location, a->b.producer.override.sasl.mechanism: Strait connects to a cluster in one way and as one user, whatever the flow. Write it for the cluster: a.security.protocol, a.ssl.truststore.location, a.sasl.jaas.config and so on.",
            "f.properties:9: transforms, transforms.x.type, predicates: Strait forwards record batches as they are and runs no transformations. Remove it, or keep MirrorMaker 2 for this flow.",
            "f.properties:12: topic.filter.class = com.example.Mine: filters written in Java cannot be run. Say the same with topics, topics.exclude and config.properties.exclude, and remove it.",
            "f.properties:13: a->b.group.filter.class = com.example.Mine: filters written in Java cannot be run. Say the same with topics, topics.exclude and config.properties.exclude, and remove it.",
            "f.properties:14: forwarding.admin.class = com.example.Mine: admin classes written in Java cannot be run: topics are created on the target cluster itself. Remove it, or create the topics beforehand by your own means.",
            "f.properties:16: config.providers.file.class = F: config providers written in Java cannot be run, but for Kafka's own for files, folders and the environment. Use FileConfigProvider, DirectoryConfigProvider or EnvVarConfigProvider of org.apache.kafka.common.config.provider, or write the values themselves.",
            "f.properties:17: replication.policy.class = com.example.Mine: this replication policy is not known here, and topics would be named otherwise than asked. Use org.apache.kafka.connect.mirror.DefaultReplicationPolicy or org.apache.kafka.connect.mirror.IdentityReplicationPolicy.",
            "f.properties:18: value.converter = org.example.Avro: Strait forwards bytes as they are and runs no converters. Remove it, or use org.apache.kafka.connect.converters.ByteArrayConverter.",
            "f.properties:19: b.producer.interceptor.classes = I: interceptors written in Java cannot be run. Remove it, or keep MirrorMaker 2 for this flow.",
            "f.properties:20: a->b.source.cluster.alias = z: a flow's clusters are those in its name. Rename the cluster in clusters and in the flow's keys instead.",
            "f.properties:21: a.consumer.bootstrap.servers = z:1: Strait connects to a cluster by one list of brokers. Put these brokers into a.bootstrap.servers.",
            "f.properties:22: enabled = true: this would enable every flow between every two clusters. Write A->B.enabled = true for each flow that is meant.",
        ],
    );
    // What is off, or is about clusters and flows that are not mirrored, stops nothing.
    let harmless = "security.protocol = PLAINTEXT\na.admin.security.protocol = PLAINTEXT\ntransforms =\nc.ssl.key.password = x\nb->a.transforms = x\nlisteners.https.ssl.keystore.location = x\na.consumer.bootstrap.servers = a:1\n";
    let three = MM2.replace("a, b", "a, b, c");
    assert!(load("f.properties", format!("{three}{harmless}").as_bytes()).is_ok());
    // Of a cluster nobody knows, it may be a misspelt one.
    mm2(
        "B.security.protocol = SSL",
        &[
            "f.properties:5: B.security.protocol = SSL: this is about none of the clusters, and to leave it out would connect otherwise than asked. Write it for a cluster, as A.security.protocol, or for all of them, with nothing before it.",
        ],
    );
}

#[test]
fn start_and_isolation_follow_the_order_of_mirror_maker() {
    use strait_config::{Isolation, StartPosition};
    let start = |lines: &str| {
        let config = load("f.properties", format!("{MM2}{lines}\n").as_bytes()).unwrap();
        config.links[0].start.default
    };
    let keys = [
        "a->b.source.consumer.auto.offset.reset",
        "a.consumer.auto.offset.reset",
        "a->b.consumer.auto.offset.reset",
        "source.consumer.auto.offset.reset",
        "consumer.auto.offset.reset",
    ];
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(
            start(&format!("{key} = latest")),
            StartPosition::Latest,
            "{key}"
        );
        for weaker in &keys[index + 1..] {
            let both = format!("{weaker} = earliest\n{key} = latest");
            assert_eq!(start(&both), StartPosition::Latest, "{key} over {weaker}");
        }
    }
    assert_eq!(
        start("b.consumer.auto.offset.reset = latest"),
        StartPosition::Earliest
    );
    let text = format!("{MM2}a.consumer.isolation.level = read_uncommitted\n");
    let config = load("f.properties", text.as_bytes()).unwrap();
    assert_eq!(config.links[0].isolation, Isolation::ReadUncommitted);
}

#[test]
fn groups_have_mirror_maker_2s_defaults_until_they_are_set() {
    let groups = |more: &str| {
        let text = format!("{MM2}{more}");
        let mut config = load("f.properties", text.as_bytes()).unwrap();
        config.links.remove(0).groups
    };
    let unset = groups("");
    let minute = std::time::Duration::from_secs(60);
    assert!(unset.emit_checkpoints && !unset.sync_offsets);
    assert_eq!(
        (unset.checkpoints_interval, unset.sync_interval),
        (minute, minute)
    );
    assert_eq!(unset.refresh, Some(10 * minute));
    assert!(unset.selects("billing") && !unset.selects("connect-sink"));
    let set = groups(
        "groups = billing.*, orders\ngroups.blacklist = billing-test\nrefresh.groups.enabled = false\n\
         emit.checkpoints.enabled = false\nsync.group.offsets.enabled = false\na->b.sync.group.offsets.enabled = true\n\
         a->b.sync.group.offsets.interval.seconds = 7\ncheckpoints.topic.replication.factor = 2\n",
    );
    assert!(!set.emit_checkpoints && set.sync_offsets);
    assert_eq!(set.sync_interval, std::time::Duration::from_secs(7));
    assert_eq!(
        (set.refresh, set.checkpoints_replication_factor),
        (None, Some(2))
    );
    let selected = ["billing-eu", "billing-test", "orders", "orders-2"].map(|g| set.selects(g));
    assert_eq!(selected, [true, false, true, false]);
}

#[test]
fn flows_win_over_globals_and_blank_means_none() {
    let text = format!(
        "{MM2}topics = x\na->b.topics = y.*\ntopics.exclude =\nreplication.factor = 2\na->b.replication.factor = 3\n"
    );
    let config = load("f.properties", text.as_bytes()).unwrap();
    let link = &config.links[0];
    assert_eq!(
        (link.topics.includes(), link.topics.excludes()),
        (vec!["y.*".to_owned()], vec![])
    );
    assert_eq!(link.replication_factor, Some(3));
}

#[test]
fn what_mirror_maker_2_ran_with_is_taken_over() {
    let read = |lines: &str| {
        let text = format!("{MM2}{lines}");
        let mut config = load("f.properties", text.as_bytes()).unwrap();
        let warnings = config.warnings.join("\n");
        (config.links.remove(0), warnings)
    };
    let names = |lines: &str| {
        let takeover = read(lines).0.takeover;
        (takeover.offsets_topic.unwrap(), takeover.group.unwrap())
    };
    let pair = |topic: &str, group: &str| (topic.to_owned(), group.to_owned());
    assert_eq!(names(""), pair("mm2-offsets.a.internal", "a-mm2"));
    let own = "b.offset.storage.topic = of-b\nb.group.id = workers\n";
    assert_eq!(names(own), pair("of-b", "workers"));
    // The global topic wins over the cluster's, and a global group is nobody's.
    let both = format!("{own}offset.storage.topic = of-all\ngroup.id = all\n");
    assert_eq!(names(&both), pair("of-all", "workers"));
    let (unchanged, warnings) = read("a.offset.storage.topic = of-a\na.group.id = workers\n");
    assert_eq!(unchanged.takeover.group.unwrap(), "a-mm2");
    let idle = "without a meaning here: a.offset.storage.topic, a.group.id";
    assert!(warnings.contains(idle), "{warnings}");
    mm2(
        "offset.storage.topic = a b",
        &[
            "f.properties:5: offset.storage.topic = a b: ' ' cannot stand in a topic name: letters, digits, '.', '_' and '-' can. Write the name of the topic that MirrorMaker 2 used.",
        ],
    );
}

#[test]
fn toml_names_what_is_taken_over_in_its_own_keys() {
    link(
        "takeover-offsets-topic = \"a b\"",
        &[
            "f.toml:8: links[0].takeover-offsets-topic = \"a b\": ' ' cannot stand in a topic name: letters, digits, '.', '_' and '-' can. Write the name of Connect's offset.storage.topic, or \"off\".",
        ],
    );
    link(
        "takeover-group = \"\"",
        &[
            "f.toml:8: links[0].takeover-group = \"\": no group has an empty name. Write Connect's group.id, or \"off\".",
        ],
    );
}

#[test]
fn mirror_maker_2s_own_topics_have_its_separator_unless_it_is_told_not_to() {
    const SEPARATOR: &str = "replication.policy.separator =";
    const IDENTITY: &str = "replication.policy.class = IdentityReplicationPolicy\n";
    const OFF: &str = "replication.policy.internal.topic.separator.enabled = false\n";
    for (lines, expected) in [
        (String::new(), "."),
        (OFF.to_owned(), "."),
        (format!("{SEPARATOR} _\n"), "_"),
        (format!("{SEPARATOR} _\n{OFF}"), "."),
        (format!("{SEPARATOR} _\n{OFF}a->b.{SEPARATOR} -\n"), "."),
        (format!("{SEPARATOR} _\n{IDENTITY}"), "_"),
        (format!("{SEPARATOR}\n{IDENTITY}"), ""),
        (format!("{SEPARATOR} _\n{IDENTITY}{OFF}"), "."),
    ] {
        let text = format!("{MM2}{lines}");
        let config = load("f.properties", text.as_bytes()).unwrap();
        assert_eq!(config.links[0].internal_separator, expected, "{lines}");
    }
    for (keys, expected) in [
        ("", "."),
        ("separator = \"_\"", "_"),
        ("separator = \"_\"\ninternal-separator = \".\"", "."),
        ("naming = \"suffix\"\nseparator = \"_\"", "."),
        ("naming = \"identity\"\ninternal-separator = \"\"", ""),
    ] {
        let text = format!(
            "[clusters]\na = \"a:1\"\nb = \"b:1\"\n\n[[links]]\nsource = \"a\"\ntarget = \"b\"\ntopics = [\"t\"]\n{keys}\n"
        );
        let config = load("f.toml", text.as_bytes()).unwrap();
        assert_eq!(config.links[0].internal_separator, expected, "{keys}");
    }
    mm2(
        "replication.policy.internal.topic.separator.enabled = no\nreplication.policy.separator = _",
        &[
            "f.properties:5: replication.policy.internal.topic.separator.enabled = no: this is neither true nor false. Write true or false.",
        ],
    );
}

/// The identity policy has the separator in the names of heartbeats, whatever stands in those of MirrorMaker 2's own topics.
#[test]
fn heartbeats_have_the_policy_s_separator_under_identity_naming() {
    let identity = "replication.policy.class = org.apache.kafka.connect.mirror.IdentityReplicationPolicy\nreplication.policy.separator = _\n";
    let apart = "replication.policy.internal.topic.separator.enabled = false\n";
    for (lines, internal, heartbeats) in [
        (identity.to_owned(), "_", None),
        (format!("{identity}{apart}"), ".", Some("_")),
        (
            format!("replication.policy.separator = _\n{apart}"),
            ".",
            None,
        ),
    ] {
        let config = load("f.properties", format!("{MM2}{lines}").as_bytes()).unwrap();
        let link = &config.links[0];
        assert_eq!(link.internal_separator, internal, "{lines}");
        assert_eq!(link.heartbeats.separator.as_deref(), heartbeats, "{lines}");
        // The same in TOML.
        let again = load("f.toml", config.to_toml().as_bytes()).unwrap();
        assert_eq!(
            again.links[0].heartbeats.separator,
            link.heartbeats.separator
        );
    }
}

#[test]
fn offset_syncs_are_written_on_the_source_where_that_is_said() {
    let on_source = |lines: &str| {
        let text = format!("{MM2}{lines}");
        load("f.properties", text.as_bytes()).unwrap().links[0].syncs_on_source
    };
    assert!(!on_source(""));
    assert!(on_source("offset-syncs.topic.location = source\n"));
    assert!(!on_source(
        "offset-syncs.topic.location = source\na->b.offset-syncs.topic.location = target\n"
    ));
    // Not where the other direction keeps its positions; the file starts all the same.
    let both = |lines: &str| {
        let text =
            format!("{MM2}b->a.enabled = true\noffset-syncs.topic.location = source\n{lines}");
        let config = load("f.properties", text.as_bytes()).unwrap();
        let written: Vec<bool> = config.links.iter().map(|l| l.syncs_on_source).collect();
        let said = config
            .warnings
            .iter()
            .filter(|w| w.contains("location = source is not obeyed"));
        (written, said.count())
    };
    assert_eq!(both(""), (vec![false, false], 2));
    assert_eq!(
        both("replication.policy.separator = _\n"),
        (vec![false, false], 2)
    );
    assert_eq!(
        both("replication.policy.separator = -\n"),
        (vec![true, true], 0)
    );
    assert_eq!(
        both("b->a.offset-syncs.topic.location = target\n"),
        (vec![false, false], 1)
    );
    mm2(
        "offset-syncs.topic.location = here",
        &[
            "f.properties:5: offset-syncs.topic.location = here: this is not one of its values. Write source or target.",
        ],
    );
}
