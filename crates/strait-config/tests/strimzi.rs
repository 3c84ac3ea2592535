//! `KafkaMirrorMaker2` resources: what is said of those that cannot be used. What becomes of the others stands in the goldens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod said;

use said::{load, wrong};

const HEAD: &str = "apiVersion: kafka.strimzi.io/v1beta2\nkind: KafkaMirrorMaker2\nspec:\n";
const A: &str = "  - alias: a\n    bootstrapServers: a:1\n";
const B: &str = "  - alias: b\n    bootstrapServers: b:1\n";
const MIRROR: &str =
    "  mirrors:\n  - sourceCluster: a\n    targetCluster: b\n    sourceConnector: {}\n";

/// `more`: of cluster `a`, from line 7.
fn of_a(more: &str) -> String {
    format!("{HEAD}  clusters:\n{B}{A}{more}{MIRROR}")
}

#[track_caller]
fn refused(text: &str, said: &[&str]) {
    wrong("f.yaml", text, said);
}

#[test]
fn files_without_one_resource() {
    refused(
        "kind: KafkaMirrorMaker\n",
        &[
            "f.yaml: it has no resource of kind KafkaMirrorMaker2. Save one: kubectl get kafkamirrormaker2 NAME -o yaml > mirror.yaml.",
        ],
    );
    refused(
        "kind: EventStreamsGeoReplicator\n",
        &[
            "f.yaml: a geo-replicator does not name its clusters: its operator makes a KafkaMirrorMaker2 of it. Save that one: kubectl get kafkamirrormaker2 NAME -o yaml > mirror.yaml.",
        ],
    );
    refused(
        "kind: KafkaMirrorMaker2\n---\nkind: KafkaMirrorMaker2\n",
        &[
            "f.yaml:3: kind: the file has more than one KafkaMirrorMaker2. Give each a file and a process of its own, or write them as one TOML file with a link for each.",
        ],
    );
    refused(
        "a: [",
        &[
            "f.yaml:2: this is not YAML: while parsing a node, did not find expected node content. Mend this line.",
        ],
    );
    // Among others, and where the name does not tell.
    let text = format!("kind: Secret\n---\n{}", of_a(""));
    assert!(load("f", text.as_bytes()).is_ok());
}

#[test]
fn what_is_missing_is_named_by_its_path() {
    refused(
        &format!("{HEAD}  clusters:\n  - alias: a\n{B}"),
        &[
            "f.yaml:4: spec.mirrors: it is missing or empty. Write a list of mirrors, each with a source and sourceConnector: {}.",
            "f.yaml:5: spec.clusters[0].bootstrapServers: it is missing. Write bootstrapServers: ....",
        ],
    );
    refused(
        &format!(
            "{HEAD}  clusters:\n{A}{B}  mirrors:\n  - sourceCluster: a\n  - sourceCluster: a\n    targetCluster: b\n    checkpointConnector: {{}}\n"
        ),
        &[
            "f.yaml:10: spec.mirrors[0].targetCluster: it is missing. Write targetCluster: ....",
            "f.yaml:11: spec.mirrors[1].sourceConnector: without it no topics are mirrored. Write sourceConnector: {}.",
        ],
    );
    refused(
        &format!(
            "{HEAD}  clusters:\n{A}  mirrors:\n  - sourceCluster: a\n    targetCluster: b\n    sourceConnector:\n      state: stopped\n"
        ),
        &[
            "f.yaml:11: spec.mirrors[0].sourceConnector: it is paused or stopped. Remove that to let it run here.",
        ],
    );
    refused(
        &of_a("").replace("sourceConnector: {}", "sourceConnector:\n      config:\n        groups: [x]\n        topics: y\n    topicsPattern: x"),
        &[
            "f.yaml:14: a->b.groups: this is not a text or a number. Write the value as Kafka has it.",
            "f.yaml:15: a->b.topics: line 16 says otherwise. Write the same in both places, or in one.",
        ],
    );
}

#[test]
fn secrets_that_are_not_there_are_told_with_how_to_get_them() {
    let how = |secret: &str, key: &str| {
        if key.contains('*') {
            return format!(
                "Mount the secret {secret} there, or save it: kubectl get secret {secret} -o yaml shows its keys, in Base64; STRAIT_SECRETS_DIR names another folder for all secrets."
            );
        }
        format!(
            "Mount the secret {secret} there, or save it: kubectl get secret {secret} -o go-template='{{{{index .data \"{key}\" | base64decode}}}}'; STRAIT_SECRETS_DIR names another folder for all secrets."
        )
    };
    refused(
        &of_a(
            "    authentication:\n      type: scram-sha-512\n      username: u\n      passwordSecret:\n        secretName: s\n        password: p\n",
        ),
        &[&format!(
            "f.yaml:13: spec.clusters[1].authentication.passwordSecret: secrets/s/p cannot be read: No such file or directory (os error 2). {}",
            how("s", "p")
        )],
    );
    refused(
        &of_a(
            "    tls:\n      trustedCertificates:\n      - secretName: s\n        pattern: \"*.crt\"\n",
        ),
        &[&format!(
            "f.yaml:11: spec.clusters[1].tls.trustedCertificates: no file there fits. {}",
            how("s", "*.crt")
        )],
    );
    refused(
        &of_a(
            "    tls: {}\n    authentication:\n      type: tls\n      certificateAndKey:\n        secretName: s\n        certificate: c\n        key: k\n",
        ),
        &[
            &format!(
                "f.yaml:13: spec.clusters[1].authentication.certificateAndKey: secrets/s/c cannot be read: No such file or directory (os error 2). {}",
                how("s", "c")
            ),
            &format!(
                "f.yaml:13: spec.clusters[1].authentication.certificateAndKey: secrets/s/k cannot be read: No such file or directory (os error 2). {}",
                how("s", "k")
            ),
        ],
    );
}

#[test]
fn ways_to_authenticate_that_strait_does_not_have_are_refused() {
    refused(
        &of_a("    authentication:\n      type: oauth\n"),
        &[
            "f.yaml:10: spec.clusters[1].authentication: Strait cannot authenticate with oauth. Give it a user with tls, scram-sha-512, scram-sha-256 or plain.",
        ],
    );
    refused(
        &of_a("    authentication:\n      type: tls\n"),
        &[
            "f.yaml:10: spec.clusters[1].authentication: certificates need tls, which the cluster has not. Write tls with the trustedCertificates of the brokers.",
        ],
    );
    // The operator would ask Kubernetes.
    let asks = "    authentication:\n      type: custom\n      sasl: true\n      config:\n        sasl.mechanism: PLAIN\n        sasl.jaas.config: x.PlainLoginModule required username=u password=\"${secrets:ns/s:p}\";\n";
    refused(
        &of_a(asks),
        &[
            "f.yaml:14: a.sasl.jaas.config: config providers (${...}) are not asked for what stands in a resource. Write authentication of type scram-sha-512 or plain with its passwordSecret, or the value itself.",
        ],
    );
    // v1's own words are Kafka's.
    let custom = "    authentication:\n      type: custom\n      sasl: true\n      config:\n        sasl.mechanism: PLAIN\n        sasl.jaas.config: x.PlainLoginModule required username=u password=p;\n";
    let config = load("f.yaml", of_a(custom).as_bytes()).unwrap();
    assert_eq!(config.clusters["a"].sasl.as_ref().unwrap().username, "u");
}
