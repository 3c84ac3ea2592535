//! TLS and SASL in MirrorMaker 2 files: what is obeyed, and what is said of the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod said;

use said::{MM2, load, mm2};
use strait_config::{ClusterConfig, SaslMechanism};

fn cluster(lines: &str) -> ClusterConfig {
    let config = load("f.properties", format!("{MM2}{lines}\n").as_bytes()).unwrap();
    config.clusters["a"].clone()
}

const USER: &str =
    "a.sasl.jaas.config = x.PlainLoginModule required username=\"u\" password=\"p#1\";";

#[test]
fn a_clusters_own_settings_win_over_those_of_all() {
    let found = cluster(&format!(
        "security.protocol = SASL_SSL\nsasl.mechanism = PLAIN\nssl.truststore.type = pem\nssl.truststore.location = ca.pem\n{USER}\nb.security.protocol = PLAINTEXT"
    ));
    let sasl = found.sasl.unwrap();
    assert_eq!(
        (
            sasl.mechanism,
            sasl.username.as_str(),
            sasl.password.expose()
        ),
        (SaslMechanism::Plain, "u", "p#1")
    );
    let tls = found.tls.unwrap();
    assert!(tls.ca_files[0].ends_with("ca.pem"));
    assert_eq!((tls.cert_file, tls.key_file), (None, None));
    // As with Kafka's clients, without a protocol nothing of it counts.
    assert_eq!(
        cluster(&format!("sasl.mechanism = PLAIN\n{USER}")).sasl,
        None
    );
    // What a client has for itself is the cluster's where all agree.
    let found = cluster(&format!(
        "a.admin.security.protocol = sasl_plaintext\na.consumer.security.protocol = sasl_plaintext\na.sasl.mechanism = PLAIN\n{USER}"
    ));
    assert!(found.tls.is_none() && found.sasl.is_some());
}

#[test]
fn what_cannot_be_done_the_same_way_is_refused() {
    let scram = "a.security.protocol = SASL_PLAINTEXT\na.sasl.mechanism = SCRAM-SHA-512\n";
    let example = "Write a.sasl.jaas.config = org.apache.kafka.common.security.scram.ScramLoginModule required username=\"user\" password=\"...\";.";
    let tls = "a.security.protocol = SSL\n";
    let cases: [(String, String); 13] = [
        (
            "a.security.protocol = TLS".to_owned(),
            "5: a.security.protocol: this is not one of its values. Write PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.".to_owned(),
        ),
        (
            "a.security.protocol = SASL_SSL".to_owned(),
            " a.sasl.mechanism: Strait speaks PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, not GSSAPI. Give it a user with a password for one of these, or a client certificate (security.protocol = SSL).".to_owned(),
        ),
        (scram.to_owned(), format!(" a.sasl.jaas.config: it is missing. {example}")),
        (
            format!("{scram}a.sasl.jaas.config = x.ScramLoginModule required password=secret"),
            format!("7: a.sasl.jaas.config: it does not end with a semicolon. {example}"),
        ),
        (
            format!("{scram}a.sasl.jaas.config = x.ScramLoginModule required password=secret;"),
            format!("7: a.sasl.jaas.config: it has no username or no password. {example}"),
        ),
        (
            format!("{scram}{USER}"),
            format!("7: a.sasl.jaas.config: its login module x.PlainLoginModule is not that of SCRAM-SHA-512. {example}"),
        ),
        (
            format!("{scram}a.sasl.jaas.config = x.ScramLoginModule required username=u password=p;\na.sasl.login.class = L"),
            "8: a.sasl.login.class: classes written in Java cannot be run. Remove it, and connect with certificates or with a user and a password.".to_owned(),
        ),
        (
            format!("{tls}a.ssl.truststore.location = /etc/t.jks"),
            "6: a.ssl.truststore.location: Strait reads PEM files, and this is a store of type JKS. Run keytool -list -rfc -keystore /etc/t.jks > truststore.pem, and write a.ssl.truststore.type = PEM and a.ssl.truststore.location = truststore.pem; MirrorMaker 2 reads that too.".to_owned(),
        ),
        (
            format!("{tls}a.ssl.keystore.type = PKCS12\na.ssl.keystore.location = /etc/k.p12"),
            "7: a.ssl.keystore.location: Strait reads PEM files, and this is a store of type PKCS12. Run openssl pkcs12 -in /etc/k.p12 -nodes -out keystore.pem, and write a.ssl.keystore.type = PEM and a.ssl.keystore.location = keystore.pem; MirrorMaker 2 reads that too.".to_owned(),
        ),
        (
            format!("{tls}a.ssl.keystore.key = secret"),
            "6: a.ssl.keystore.key: certificates and keys are read from files, not from the configuration. Put it into a PEM file, and write a.ssl.keystore.type = PEM and a.ssl.keystore.location = keystore.pem; MirrorMaker 2 reads that too.".to_owned(),
        ),
        (
            format!("{tls}a.ssl.endpoint.identification.algorithm ="),
            "6: a.ssl.endpoint.identification.algorithm: Strait always checks that a broker's certificate has the broker's host name. Give the brokers certificates with the names in bootstrap.servers and advertised.listeners, and remove it.".to_owned(),
        ),
        (
            format!("{tls}a.ssl.truststore.type = PEM\na.ssl.truststore.location = nowhere.pem"),
            "7: a.ssl.truststore.location: nowhere.pem cannot be read: No such file or directory (os error 2). Write the path of a PEM file, relative to the configuration file.".to_owned(),
        ),
        (
            format!("{tls}a.producer.security.protocol = PLAINTEXT"),
            "6: a.producer.security.protocol: Strait connects to a cluster in one way and as one user, and this differs from another of its clients. Write a.security.protocol once, for a user with all the rights that are needed, and remove this.".to_owned(),
        ),
    ];
    for (lines, said) in cases {
        mm2(&lines, &[&format!("f.properties:{said}")]);
    }
}

#[test]
fn providers_give_values_and_their_trouble_is_told_without_them() {
    let provider = |class: &str| {
        format!(
            "config.providers = p\nconfig.providers.p.class = org.apache.kafka.common.config.provider.{class}\n"
        )
    };
    // `empty` is a file of one line end; the environment has nothing.
    let file = provider("DirectoryConfigProvider") + "a->b.topics = x${p:.:ca.pem}${q:y}";
    let config = load("f.properties", format!("{MM2}{file}").as_bytes());
    // Of a provider that nobody configured it stays, and is no regular expression.
    assert!(
        config
            .unwrap_err()
            .contains("a->b.topics = x${p:.:ca.pem}${q:y}: ")
    );
    let file = provider("DirectoryConfigProvider") + "a->b.topics = y${p:.:ca.pem}";
    let config = load("f.properties", format!("{MM2}{file}").as_bytes()).unwrap();
    assert!(config.links[0].topics.selects("yx") && !config.links[0].topics.selects("y"));
    mm2(
        &(provider("EnvVarConfigProvider") + "a->b.topics = ${p:TOPICS}"),
        &[
            "f.properties:7: a->b.topics = ${p:TOPICS}: the environment variable TOPICS is not set. Give the provider what it is asked for, or write the value itself.",
        ],
    );
    mm2(
        &(provider("FileConfigProvider") + "a->b.topics = ${p:empty:t}\na->b.groups = ${p:none:t}"),
        &[
            "f.properties:7: a->b.topics = ${p:empty:t}: empty has no key t. Give the provider what it is asked for, or write the value itself.",
            "f.properties:8: a->b.groups = ${p:none:t}: none cannot be read: No such file or directory (os error 2). Give the provider what it is asked for, or write the value itself.",
        ],
    );
    // What stands beside it may be a password.
    mm2(
        &(provider("FileConfigProvider") + "a.sasl.jaas.config = x password=hunter2 ${p:none:t}"),
        &[
            "f.properties:7: a.sasl.jaas.config: none cannot be read: No such file or directory (os error 2). Give the provider what it is asked for, or write the value itself.",
        ],
    );
    mm2(
        "config.providers = vault",
        &[
            "f.properties:5: config.providers.vault.class: it is missing. Use FileConfigProvider, DirectoryConfigProvider or EnvVarConfigProvider of org.apache.kafka.common.config.provider, or write the values themselves.",
        ],
    );
}
