//! Every way to be wrong, and the exact words that tell it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod said;

use said::{CLUSTERS, LINK, MM2, cluster, link, load, toml, wrong};
use strait_config::Policy;

#[test]
fn files_that_are_no_configuration() {
    toml(
        "",
        &[
            "f.toml: clusters: it is missing. Write [clusters] and under it one line per cluster, paris = \"paris-1:9092\".",
            "f.toml: links: it is missing. Write [[links]] and under it source = \"paris\", target = \"tokyo\" and topics = [\"orders.*\"].",
        ],
    );
    toml(
        "a = 1\nb = = 2\n",
        &["f.toml:2: this is not TOML: extra `=`, expected nothing. Mend this line."],
    );
    toml(
        "a = 1\na = 2\n",
        &["f.toml:2: this is not TOML: duplicate key. Mend this line."],
    );
    wrong(
        "f.properties",
        "clusters = \\uZZZZ\n",
        &[
            "f.properties:1: this is not a properties file: Malformed \\uxxxx encoding: not hex. Mend this line.",
        ],
    );
    wrong(
        "f",
        "hello\n",
        &[
            "f: neither its name nor its content tells what it is. Name it .toml (with [clusters] and [[links]]), .properties (MirrorMaker 2, with clusters = A, B) or .yaml (Strimzi).",
        ],
    );
    wrong(
        "f.yaml",
        "apiVersion: kafka.strimzi.io/v1beta2\nkind: KafkaMirrorMaker2\n",
        &["f.yaml:1: spec: it is missing. Name a whole resource."],
    );
    assert_eq!(
        load("f.toml", b"a = \"\xff\"").unwrap_err(),
        "f.toml: it is not UTF-8, as TOML must be. Save it as UTF-8."
    );
    assert_eq!(
        load("f.toml", &vec![b' '; 2 << 20]).unwrap_err(),
        "f.toml: it has 2097152 bytes and is no configuration. Name a configuration file."
    );
}

#[test]
fn kinds_are_told_by_content_where_the_name_does_not() {
    assert!(load("f.conf", format!("# mine\n{CLUSTERS}{LINK}").as_bytes()).is_ok());
    assert!(load("f", MM2.as_bytes()).is_ok());
}

#[test]
fn unknown_keys_are_answered_with_the_nearest_known_one() {
    toml(
        &format!("instanze = \"x\"\n{CLUSTERS}{LINK}"),
        &["f.toml:1: instanze: there is no such key. Did you mean `instance`?"],
    );
    link(
        "replication_factor = 3",
        &[
            "f.toml:8: links[0].replication_factor: there is no such key. Did you mean `replication-factor`?",
        ],
    );
    cluster(
        "{ bootstrap = \"c:1\", colour = \"red\" }",
        &["f.toml:4: clusters.c.colour: there is no such key. Known here: bootstrap, tls, sasl."],
    );
    toml(
        &format!("[admin]\nport = 1\n{CLUSTERS}{LINK}"),
        &["f.toml:2: admin.port: there is no such key. Known here: listen, token-file."],
    );
}

#[test]
fn clusters() {
    cluster(
        "7",
        &[
            "f.toml:4: clusters.c = 7: this is a number, not a string or a list of strings. Write \"kafka-1:9092,kafka-2:9092\".",
        ],
    );
    cluster(
        "\"\"",
        &["f.toml:4: clusters.c = \"\": it names no broker. Write \"kafka-1:9092,kafka-2:9092\"."],
    );
    cluster(
        "\"c:1, d\"",
        &["f.toml:4: clusters.c = \"d\": it has no port. Write host:port, for example d:9092."],
    );
    cluster(
        "{ tls = true }",
        &[
            "f.toml:4: clusters.c.bootstrap: it is missing. Write bootstrap = \"kafka-1:9092,kafka-2:9092\".",
        ],
    );
    toml(
        &format!("{CLUSTERS}\"c d\" = \"c:1\"\n{LINK}"),
        &[
            "f.toml:4: clusters.c d: an alias becomes part of topic names and may have letters, digits, '.', '_' and '-' only. Choose another alias.",
        ],
    );
    toml(
        &format!("clusters = \"a:1\"\n{LINK}"),
        &[
            "f.toml:1: clusters = \"a:1\": this is a string, not a table. Write [clusters] and under it paris = \"paris-1:9092\".",
        ],
    );
}

#[test]
fn tls() {
    cluster(
        "{ bootstrap = \"c:1\", tls = \"yes\" }",
        &[
            "f.toml:4: clusters.c.tls = \"yes\": this is a string, not a table. Write tls = true, or tls = { ca-file = \"ca.pem\" }.",
        ],
    );
    cluster(
        "{ bootstrap = \"c:1\", tls = { ca-file = \"none.pem\" } }",
        &[
            "f.toml:4: clusters.c.tls.ca-file = \"none.pem\": none.pem cannot be read: No such file or directory (os error 2). Write the path of a PEM file, relative to the configuration file.",
        ],
    );
    cluster(
        "{ bootstrap = \"c:1\", tls = { cert-file = \"ca.pem\" } }",
        &[
            "f.toml:4: clusters.c.tls.key-file: it is missing. A client certificate needs its private key: write key-file = \"key.pem\".",
        ],
    );
    cluster(
        "{ bootstrap = \"c:1\", tls = { key-file = \"ca.pem\" } }",
        &[
            "f.toml:4: clusters.c.tls.cert-file: it is missing. A private key needs its certificate: write cert-file = \"cert.pem\".",
        ],
    );
}

#[test]
fn sasl() {
    let sasl =
        |inside: &str| format!("{{ bootstrap = \"c:1\", tls = true, sasl = {{ {inside} }} }}");
    cluster(
        &sasl("mechanism = \"SCRAM-SHA512\", username = \"u\", password = \"hunter2\""),
        &[
            "f.toml:4: clusters.c.sasl.mechanism = \"SCRAM-SHA512\": this mechanism is not supported. Did you mean \"SCRAM-SHA-512\"?",
        ],
    );
    cluster(
        &sasl("mechanism = \"GSSAPI\", username = \"\", password = \"hunter2\""),
        &[
            "f.toml:4: clusters.c.sasl.mechanism = \"GSSAPI\": this mechanism is not supported. Write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
            "f.toml:4: clusters.c.sasl.username = \"\": it is empty. Write the user's name.",
        ],
    );
    cluster(
        &sasl(""),
        &[
            "f.toml:4: clusters.c.sasl.mechanism: it is missing. Write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
            "f.toml:4: clusters.c.sasl.username: it is missing. Write username = \"strait\".",
            "f.toml:4: clusters.c.sasl.password-file: it is missing. Write password-file = \"path\", password-env = \"NAME\", or password = \"...\".",
        ],
    );
    let with = |password: &str| {
        sasl(&format!(
            "mechanism = \"PLAIN\", username = \"u\", {password}"
        ))
    };
    cluster(
        &with("password = \"hunter2\", password-env = \"X\""),
        &[
            "f.toml:4: clusters.c.sasl.password: the password is given more than once. Keep one of password-file, password-env and password.",
        ],
    );
    cluster(
        &with("password = 42"),
        &["f.toml:4: clusters.c.sasl.password: this is a number, not a string. Write a string."],
    );
    cluster(
        &with("password-env = \"NOT_SET\""),
        &[
            "f.toml:4: clusters.c.sasl.password-env: the environment variable NOT_SET is not set. Set it for this process, or name another.",
        ],
    );
    cluster(
        &with("password-file = \"none\""),
        &[
            "f.toml:4: clusters.c.sasl.password-file: none cannot be read: No such file or directory (os error 2). Write the path of a file that holds the password and nothing else, relative to the configuration file.",
        ],
    );
    cluster(
        &with("password-file = \"empty\""),
        &[
            "f.toml:4: clusters.c.sasl.password-file: the password is empty. Give the user's password.",
        ],
    );
}

#[test]
fn links() {
    toml(
        &format!("{CLUSTERS}[[links]]\n"),
        &[
            "f.toml:4: links[0].source: it is missing. Write source = and an alias from [clusters], in quotes.",
            "f.toml:4: links[0].target: it is missing. Write target = and an alias from [clusters], in quotes.",
            "f.toml:4: links[0].topics: it is missing. Write topics = [\"orders.*\"], or topics = [\".*\"] for all of them.",
        ],
    );
    toml(
        &format!("links = []\n{CLUSTERS}"),
        &[
            "f.toml:1: links = []: there is nothing to mirror. Write [[links]] and under it source = \"paris\", target = \"tokyo\" and topics = [\"orders.*\"].",
        ],
    );
    toml(
        &format!(
            "{CLUSTERS}c1 = \"c:1\"\n{}",
            LINK.replace("\"b\"", "\"zebra\"")
        ),
        &[
            "f.toml:5: links[0].target = \"zebra\": no cluster has this alias. Known clusters: a, b, c1.",
        ],
    );
    toml(
        &format!("{CLUSTERS}{}", LINK.replace("\"b\"", "\"a\"")),
        &["f.toml:4: links[0]: source and target are the same cluster, \"a\". Name two clusters."],
    );
    link(
        "name = \"a b\"",
        &[
            "f.toml:8: links[0].name = \"a b\": a name may have 1 to 200 letters, digits, '.', '_', '-' and '>'. Choose another name.",
        ],
    );
    link(
        "naming = \"Identity\"",
        &[
            "f.toml:8: links[0].naming = \"Identity\": this is not one of its values. Did you mean \"identity\"?",
        ],
    );
    link(
        "naming = \"prefix\"",
        &[
            "f.toml:8: links[0].naming = \"prefix\": this is not one of its values. Write \"default\", \"suffix\", \"identity\" or a template such as \"dr.{source}.{topic}\".",
        ],
    );
    link(
        "naming = \"identity\"\nseparator = \"/\"",
        &[
            "f.toml:9: links[0].separator = \"/\": a separator becomes part of topic names and may have 1 to 16 letters, digits, '.', '_' and '-'. Write \".\", \"_\" or \"-\".",
        ],
    );
    link(
        "separator = \"/\"",
        &[
            "f.toml:8: links[0].separator = \"/\": a separator becomes part of topic names and may have 1 to 16 letters, digits, '.', '_' and '-'. Write \".\", \"_\" or \"-\".",
        ],
    );
    link(
        "isolation = \"committed\"",
        &[
            "f.toml:8: links[0].isolation = \"committed\": this is not one of its values. Write \"read_committed\" or \"read_uncommitted\".",
        ],
    );
    link(
        "grow-partitions = \"yes\"",
        &[
            "f.toml:8: links[0].grow-partitions = \"yes\": this is a string, not true or false. Write true or false, without quotes.",
        ],
    );
}

#[test]
fn numbers_times_and_sizes() {
    link(
        "replication-factor = 0",
        &[
            "f.toml:8: links[0].replication-factor = 0: no topic can have so many replicas. Write 1 to 32767, or -1 for the broker's default.",
        ],
    );
    link(
        "replication-factor = \"3\"",
        &[
            "f.toml:8: links[0].replication-factor = \"3\": this is a string, not a whole number. Write 3.",
        ],
    );
    link(
        "internal-replication-factor = 99999999999999999999",
        &[
            "f.toml:8: links[0].internal-replication-factor = 99999999999999999999: this is a number, not a number of a sensible size. Write 3.",
        ],
    );
    link(
        "refresh-topics = 30",
        &[
            "f.toml:8: links[0].refresh-topics = 30: this is a number, not a string. Write a time with its unit, \"30s\" or \"5m\".",
        ],
    );
    link(
        "refresh-topics = \"often\"",
        &[
            "f.toml:8: links[0].refresh-topics = \"often\": this is not a time. Write a time with its unit, \"30s\" or \"5m\".",
        ],
    );
    link(
        "request-timeout = \"1ms\"",
        &["f.toml:8: links[0].request-timeout = \"1ms\": this is out of range. Write 1s to 10m."],
    );
    link(
        "memory-budget = \"1MiB\"",
        &[
            "f.toml:8: links[0].memory-budget = \"1MiB\": a link cannot work with so little. Write 16MiB or more.",
        ],
    );
    link(
        "memory-budget = \"lots\"",
        &[
            "f.toml:8: links[0].memory-budget = \"lots\": this is not a size. Write a size with its unit, \"256MiB\".",
        ],
    );
    toml(
        &format!("[admin]\nlisten = \"localhost\"\n{CLUSTERS}{LINK}"),
        &[
            "f.toml:2: admin.listen = \"localhost\": this is no address to listen on. Write an IP address and a port, \"127.0.0.1:9464\", or \"off\".",
        ],
    );
}

#[test]
fn patterns_and_starts() {
    let topics = |value: &str, said: &[&str]| {
        toml(
            &format!("{CLUSTERS}{}", LINK.replace("[\"x\"]", value)),
            said,
        );
    };
    topics(
        "\"a,b.*\"",
        &[
            "f.toml:7: links[0].topics = \"a,b.*\": one string is one pattern, and no topic has a comma. Write [\"a\", \"b.*\"].",
        ],
    );
    topics(
        "[\"x\", \"(\"]",
        &[
            "f.toml:7: links[0].topics[1] = \"(\": it is not a regular expression: unclosed group. Write a regular expression that matches the whole name.",
        ],
    );
    topics(
        "[\"(?!x)[\"]",
        &[
            "f.toml:7: links[0].topics[0] = \"(?!x)[\": it is not a regular expression: Invalid character class. Write a regular expression that matches the whole name.",
        ],
    );
    topics(
        "[\"\"]",
        &[
            "f.toml:7: links[0].topics[0] = \"\": an empty pattern matches nothing. Leave it out; an empty list selects nothing.",
        ],
    );
    topics(
        "[\"((a{999}){999}){999}\"]",
        &[
            "f.toml:7: links[0].topics[0] = \"((a{999}){999}){999}\": it takes more than 4194304 bytes when compiled. Write a regular expression that matches the whole name.",
        ],
    );
    let start = "\"earliest\", \"latest\" or a time such as 2026-11-01T00:00:00Z";
    link(
        "start = \"newest\"",
        &[&format!(
            "f.toml:8: links[0].start = \"newest\": this is no place to start from (a time needs its offset, such as Z). Write {start}."
        )],
    );
    link(
        "start = 2026-11-01T00:00:00",
        &[&format!(
            "f.toml:8: links[0].start = 2026-11-01T00:00:00: this is no place to start from (a time needs its offset, such as Z). Write {start}."
        )],
    );
    link(
        "start-rules = [{ topics = \"x\" }]",
        &[
            "f.toml:8: links[0].start-rules[0].start: it is missing. Write [{ topics = [\"orders.*\"], start = \"latest\" }].",
        ],
    );
}

#[test]
fn links_that_would_harm_each_other() {
    toml(
        &format!("{CLUSTERS}{LINK}{LINK}name = \"two\"\n"),
        &[
            "f.toml:8: links[1]: links \"a->b\" and \"two\" may both write the same target topics, which would hold every record twice. Put all topics into one link, or exclude in one what the other mirrors.",
        ],
    );
    let other = LINK.replace("\"x\"", "\"y\"");
    toml(
        &format!("{CLUSTERS}{LINK}{other}"),
        &[
            "f.toml:8: links[1]: another link is called \"a->b\" too. Give one of them another name = \"...\".",
        ],
    );
    let there = format!("{LINK}offset-syncs-on-source = true\n");
    let back = LINK.replace(
        "source = \"a\"\ntarget = \"b\"",
        "source = \"b\"\ntarget = \"a\"",
    );
    toml(
        &format!("{CLUSTERS}{there}{back}"),
        &[
            "f.toml:4: links[0].offset-syncs-on-source: link \"b->a\" keeps its positions in the same topic on a, in which syncs of topics of the same name would stand over them. Leave it out: readers of offset syncs find those on the target.",
        ],
    );
    let there = format!("{LINK}naming = \"identity\"\n");
    let back = there.replace(
        "source = \"a\"\ntarget = \"b\"",
        "source = \"b\"\ntarget = \"a\"",
    );
    toml(
        &format!("{CLUSTERS}{there}{back}"),
        &[
            "f.toml:9: links[1]: identity naming sends the same topics round and round: a->b, b->a. Use the default naming in one of these links, or write forward = \"local\" in all of them, or make their topics plainly different (other names or other beginnings).",
        ],
    );
    assert!(
        load(
            "f.toml",
            format!("{CLUSTERS}{there}{}", back.replace("\"x\"", "\"y\"")).as_bytes()
        )
        .is_ok()
    );
    assert!(load("f.toml", format!("{CLUSTERS}{LINK}{back}").as_bytes()).is_ok());
    toml(
        &format!("[clusters]\na = \"k:1\"\nb = \"k:1\"\n{there}"),
        &[
            "f.toml:4: links[0]: source and target share the broker k:1, so topics would be mirrored into themselves. Use the default naming, or two clusters.",
        ],
    );
}

#[test]
fn a_longer_round_of_identity_links_is_found() {
    let link = |from: &str, to: &str| {
        format!(
            "[[links]]\nsource = \"{from}\"\ntarget = \"{to}\"\ntopics = [\".*\"]\nnaming = \"identity\"\n"
        )
    };
    let text = format!(
        "{CLUSTERS}c = \"c:1\"\n{}{}{}",
        link("a", "b"),
        link("b", "c"),
        link("c", "a")
    );
    toml(
        &text,
        &[
            "f.toml:15: links[2]: identity naming sends the same topics round and round: a->b, b->c, c->a. Use the default naming in one of these links, or write forward = \"local\" in all of them, or make their topics plainly different (other names or other beginnings).",
        ],
    );
}

#[test]
fn what_forward_local_asks_for_is_said() {
    for (lines, said) in [
        (
            "forward = \"local\"\nstart = \"latest\"",
            "f.toml:8: links[0].forward = \"local\": it is for links that go both ways under the same names. Write naming = \"identity\", or leave out forward.",
        ),
        (
            "naming = \"identity\"\nforward = \"local\"",
            "f.toml:4: links[0].start: it is missing. With forward = \"local\" both sides may hold records before: write start = \"earliest\" in the link whose source's history the other side is to get, and start = \"latest\" in the other one.",
        ),
        (
            "naming = \"identity\"\nforward = \"local\"\nstart = \"latest\"\non-target-has-data = \"stop\"",
            "f.toml:11: links[0].on-target-has-data = \"stop\": with forward = \"local\" applications write to the same topics. Write on-target-has-data = \"continue\", or leave it out.",
        ),
        (
            "on-target-has-data = \"continue\"",
            "f.toml:8: links[0].on-target-has-data = \"continue\": what the target holds was written by others, and with on-foreign-writer = \"stop\" the flow would stop at their next record. Write on-foreign-writer = \"continue\" too, or leave this out.",
        ),
        (
            "naming = \"identity\"\nforward = \"local\"\nstart = \"latest\"\non-foreign-writer = \"stop\"",
            "f.toml:11: links[0].on-foreign-writer = \"stop\": with forward = \"local\" applications write to the same topics. Write on-foreign-writer = \"continue\", or leave it out.",
        ),
        (
            "naming = \"identity\"\nforward = \"local\"\nstart = \"latest\"\nemit-checkpoints = true",
            "f.toml:11: links[0].emit-checkpoints = true: with forward = \"local\" no checkpoints are written: a group goes on at the first record of either side that it has not read, which is no translation of one offset. Leave it out; sync-group-offsets = true commits what groups have read on the other side.",
        ),
    ] {
        toml(&format!("{CLUSTERS}{LINK}{lines}\n"), &[said]);
    }
}

/// A group of the same name on the other side may be another application: what it reads is moved only where somebody asks for it.
#[test]
fn groups_of_local_links_are_left_alone_until_that_is_written() {
    let read = |more: &str| {
        let text = format!(
            "{CLUSTERS}{LINK}naming = \"identity\"\nforward = \"local\"\nstart = \"latest\"\n{more}\n"
        );
        let config = load("f.toml", text.as_bytes()).unwrap();
        let again = load("f.toml", config.to_toml().as_bytes()).unwrap();
        assert_eq!(config.links[0].groups, again.links[0].groups);
        let groups = &config.links[0].groups;
        (groups.sync_offsets, groups.emit_checkpoints)
    };
    assert_eq!(read(""), (false, false));
    assert_eq!(read("sync-group-offsets = true"), (true, false));
}

#[test]
fn a_round_of_local_links_has_to_be_a_full_mesh() {
    let link = |from: &str, to: &str| {
        format!(
            "[[links]]\nsource = \"{from}\"\ntarget = \"{to}\"\ntopics = [\".*\"]\nnaming = \"identity\"\nforward = \"local\"\nstart = \"latest\"\n"
        )
    };
    let links = |all: &[(&str, &str)]| {
        let clusters = "[clusters]\na = \"a:1\"\nb = \"b:1\"\nc = \"c:1\"\n".to_owned();
        clusters
            + &all
                .iter()
                .map(|(from, to)| link(from, to))
                .collect::<String>()
    };
    let pair = links(&[("a", "b"), ("b", "a")]);
    let config = load("f.toml", pair.as_bytes()).unwrap();
    assert!(
        config
            .links
            .iter()
            .all(|l| l.policies.foreign_writer == Policy::GoOn)
    );
    let mesh = [
        ("a", "b"),
        ("b", "a"),
        ("a", "c"),
        ("c", "a"),
        ("b", "c"),
        ("c", "b"),
    ];
    assert!(load("f.toml", links(&mesh).as_bytes()).is_ok());
    // A link that only leads out of the round needs no way back.
    assert!(
        load(
            "f.toml",
            links(&[("a", "b"), ("b", "a"), ("b", "c")]).as_bytes()
        )
        .is_ok()
    );
    // What a link from outside brings to one of them stays there.
    let into = load(
        "f.toml",
        links(&[("a", "b"), ("b", "a"), ("c", "a")]).as_bytes(),
    );
    let said = "link c->a: what it brings to a does not come to b, since links with forward = \"local\" forward only what was produced on their own source: add a link from c to b";
    assert_eq!(into.unwrap().warnings[0], said);
    let into = links(&[("a", "b"), ("b", "a"), ("c", "a"), ("c", "b")]);
    let into = load("f.toml", into.as_bytes()).unwrap();
    assert!(!into.warnings.iter().any(|w| w.contains("does not come to")));
    toml(
        &links(&[("a", "b"), ("b", "c"), ("c", "a")]),
        &[
            "f.toml:19: links[2]: links with forward = \"local\" go round under the same names, but none goes from a to c: no record passes through a third cluster, so what is produced on a never comes to c. Add a link from a to c, or take one of the clusters out of the round.",
        ],
    );
    // Over a link that forwards all, what came to b comes back to b, whichever way is looked at first.
    let round = links(&[("a", "c"), ("c", "b"), ("a", "b"), ("b", "a")]);
    let open = round.replacen("forward = \"local\"\n", "", 2);
    toml(
        &open,
        &[
            "f.toml:24: links[3]: identity naming sends the same topics round and round: a->c, c->b, b->a. Use the default naming in one of these links, or write forward = \"local\" in all of them, or make their topics plainly different (other names or other beginnings).",
        ],
    );
    let open = pair.replacen("forward = \"local\"\n", "", 1);
    toml(
        &open,
        &[
            "f.toml:11: links[1]: identity naming sends the same topics round and round: a->b, b->a. Use the default naming in one of these links, or write forward = \"local\" in all of them, or make their topics plainly different (other names or other beginnings).",
        ],
    );
}

#[test]
fn templates_and_names_that_cannot_stand_are_refused() {
    for (line, said) in [
        (
            "naming = \"{source}.orders\"",
            "f.toml:8: links[0].naming = \"{source}.orders\": it has no {topic} in it. Write \"default\", \"suffix\", \"identity\" or a template such as \"dr.{source}.{topic}\".",
        ),
        (
            "naming = \"{topic}.{source}\"\nseparator = \".\"",
            "f.toml:9: links[0].separator = \".\": a template has its separators in it. Leave out separator, or write naming = \"default\".",
        ),
        (
            "names = { x = \"a b\" }",
            "f.toml:8: links[0].names.x = \"a b\": the name on the target: ' ' cannot stand in a topic name: letters, digits, '.', '_' and '-' can. names = { \"orders\" = \"orders-of-paris\" }.",
        ),
        (
            "names = { x = \"z\", y = \"z\" }",
            "f.toml:8: links[0].names.y = \"z\": the topic \"x\" goes to \"z\" too, and two source topics cannot share a target topic within one link. Give each a name of its own.",
        ),
    ] {
        toml(&format!("{CLUSTERS}{LINK}{line}\n"), &[said]);
    }
}

#[test]
fn a_topic_that_comes_back_under_given_names_is_found() {
    let link = |from: &str, to: &str, names: &str| {
        format!(
            "[[links]]\nsource = \"{from}\"\ntarget = \"{to}\"\ntopics = [\".*\"]\nnames = {{ {names} }}\n"
        )
    };
    let there = link("a", "b", "x = \"y\"");
    toml(
        &format!("{CLUSTERS}{there}{}", link("b", "a", "y = \"x\"")),
        &[
            "f.toml:4: links[0]: the topic \"x\" comes back to where it was under the names given to it: a->b, b->a. Give it a name that no link on the way back mirrors.",
        ],
    );
    for back in ["y = \"z\"", "x = \"y\""] {
        let text = format!("{CLUSTERS}{there}{}", link("b", "a", back));
        assert!(load("f.toml", text.as_bytes()).is_ok(), "{back}");
    }
    toml(
        &format!(
            "{CLUSTERS}{}{}",
            link("a", "b", "x = \"x\""),
            link("b", "a", "x = \"x\"")
        ),
        &[
            "f.toml:4: links[0]: the topic \"x\" comes back to where it was under the names given to it: a->b, b->a. Give it a name that no link on the way back mirrors.",
        ],
    );
}

#[test]
fn what_should_be_known_is_a_warning() {
    let warnings = |name: &str, text: &str| load(name, text.as_bytes()).unwrap().warnings;
    let text = format!(
        "[admin]\nlisten = \"0.0.0.0:9464\"\n[clusters]\na = \"k:1\"\nb = \"k:1\"\nc = \"c:1\"\nd = {{ bootstrap = \"d:1\", sasl = {{ mechanism = \"PLAIN\", username = \"u\", password = \"p\" }} }}\n{}",
        LINK.replace("\"x\"", "")
    );
    assert_eq!(
        warnings("f.toml", &text),
        [
            "link a->b selects no topics: it mirrors nothing",
            "link a->b: source and target share the broker k:1: is this meant to be one cluster?",
            "cluster c is in no link",
            "cluster d is in no link",
            "cluster d: SASL PLAIN without TLS sends the password readable over the network",
            "metrics and health are served on 0.0.0.0:9464 to whoever reaches it: there is no authentication",
        ]
    );
    let merge = "[clusters]\na = \"a:1\"\nb = \"b:1\"\nc = \"c:1\"\n[[links]]\nsource = \"a\"\ntarget = \"c\"\ntopics = \"x\"\nnaming = \"identity\"\n[[links]]\nsource = \"b\"\ntarget = \"c\"\ntopics = \"x\"\nnaming = \"identity\"\n";
    assert_eq!(
        warnings("f.toml", &merge.replace("\"x\"", "\"x.*\"")),
        [
            "links a->c and b->c may write the same topics on c: each would stop at the records of the other one; where they shall be mixed, write on-foreign-writer = \"continue\" and on-target-has-data = \"continue\" in both",
        ]
    );
    // Different names on the sources come to one on the target.
    let named = merge
        .replacen(
            "topics = \"x\"\nnaming = \"identity\"",
            "topics = \"y\"\nnames = { y = \"b.x\" }",
            1,
        )
        .replacen("naming = \"identity\"\n", "", 1);
    let both = "links a->c and b->c both write \"b.x\" on c: each would stop at the records of the other one; where they shall be mixed, write on-foreign-writer = \"continue\" and on-target-has-data = \"continue\" in both";
    assert_eq!(warnings("f.toml", &named), [both]);
    let shared =
        "target = \"c\"\non-foreign-writer = \"continue\"\non-target-has-data = \"continue\"\n";
    for text in [merge, named.as_str()] {
        let declared = text.replace("target = \"c\"\n", shared);
        assert_eq!(warnings("f.toml", &declared), Vec::<String>::new());
    }
    let mut config = load("f.toml", text.as_bytes()).unwrap();
    config.set_admin(strait_config::AdminConfig { listen: None });
    assert_eq!(config.warnings.len(), 5);
}

#[test]
fn an_admin_server_that_others_reach_is_warned_about() {
    let plain = format!("{CLUSTERS}{LINK}");
    let with = |admin: &str| {
        let text = format!("{admin}{plain}");
        load("f.toml", text.as_bytes()).unwrap().warnings
    };
    assert_eq!(
        with("[admin]\nlisten = \"127.0.0.1:8083\"\ntoken-file = \"tokens\"\n"),
        [
            "admin.listen = 127.0.0.1:8083: port 8083 is that of Kafka Connect's REST API; scripts that look for connectors there would talk to Strait",
        ]
    );
    let told = with("[admin]\nlisten = \"0.0.0.0:9464\"\ntoken-file = \"tokens\"\n");
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(
        told[1],
        "the tokens of admin.token-file cross the network readable on 0.0.0.0:9464: put TLS in front of it"
    );
    assert_eq!(
        with("[admin]\nlisten = \"off\"\ntoken-file = \"tokens\"\n"),
        ["admin.token-file is of no use while admin.listen is off: nothing is served"]
    );
    // What the command line says is what counts.
    let mut config = load("f.toml", plain.as_bytes()).unwrap();
    config.set_admin_token_file("tokens".into());
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    config.set_admin(strait_config::AdminConfig { listen: None });
    assert_eq!(config.warnings.len(), 1);
}

/// Whatever stands in a file, reading it ends with an answer.
#[test]
fn damaged_files_are_answered() {
    let toml = format!(
        "instance = \"x\"\n{CLUSTERS}c = {{ bootstrap = [\"c:1\"], tls = true }}\n{LINK}start = 2026-11-01T00:00:00Z\n"
    );
    let properties = format!("{MM2}topics = x\\\n  y\n");
    // A small generator of its own: the damage must be the same in every run.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % (below as u64)).unwrap()
    };
    let bits = b"\"'[]{}=.,\\#\n\r\0\xff\xc3x1-";
    let mut answered = 0;
    for round in 0..600 {
        let (name, text) = if round % 2 == 0 {
            ("f.toml", &toml)
        } else {
            ("f.properties", &properties)
        };
        let mut bytes = text.clone().into_bytes();
        for _ in 0..=draw(3) {
            let at = draw(bytes.len());
            match draw(3) {
                0 => bytes[at] = bits[draw(bits.len())],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bits[draw(bits.len())]),
            }
        }
        match load(name, &bytes) {
            Ok(config) => assert!(!config.links.is_empty()),
            Err(said) => assert!(!said.is_empty()),
        }
        answered += 1;
    }
    assert_eq!(answered, 600);
}
