//! TLS and SASL against real Kafka, as an operator configures them, and what is said when they do not fit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod outcome;
mod rig;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use outcome::{Outcome, run_text};
use rig::{Mirror, wait_until};
use strait_testkit::kafka::{Isolation, KafkaCluster, KafkaOptions, Oracle, Workload};

const SOON: Duration = Duration::from_secs(60);
const USER: &str = "mirror";
const PASSWORD: &str = "correct-horse";
const WRONG: &str = "battery-staple";

/// A source that asks for everything, and a target that asks for nothing.
fn clusters() -> [&'static KafkaCluster; 2] {
    let safe = || KafkaOptions::new().ssl().sasl_user(USER, PASSWORD);
    [
        KafkaCluster::shared("safe", safe).unwrap(),
        KafkaCluster::shared("open", KafkaOptions::new).unwrap(),
    ]
}

/// A cluster in TOML.
fn cluster(bootstrap: &[String], ca: Option<&Path>, sasl: Option<(&str, &str)>) -> String {
    let mut text = format!("{{ bootstrap = {:?}", bootstrap.join(","));
    if let Some(ca) = ca {
        write!(text, ", tls = {{ ca-file = {ca:?} }}").unwrap();
    }
    if let Some((mechanism, password)) = sasl {
        write!(
            text,
            ", sasl = {{ mechanism = {mechanism:?}, username = {USER:?}, password = {password:?} }}"
        )
        .unwrap();
    }
    text + " }"
}

fn link(west: &str, east: &str, name: &str, topic: &str) -> String {
    format!(
        "[clusters]\nwest = {west}\neast = {east}\n[[links]]\nname = {name:?}\nsource = \"west\"\ntarget = \"east\"\n\
         topics = [{topic:?}]\nrefresh-topics = \"1s\"\nconnect-timeout = \"10s\"\n"
    )
}

/// A start that ends by itself, from this source; secrets stay secret.
fn start(west: &str) -> Outcome {
    start_within("10s", west)
}

/// The same with a time to connect: a source that gives no answer costs all of it.
fn start_within(connect: &str, west: &str) -> Outcome {
    let [_, open] = clusters();
    let east = cluster(&open.bootstrap_list(), None, None);
    let text = link(west, &east, "refused", "orders").replace("\"10s\"", &format!("{connect:?}"));
    let said = run_text("mirror.toml", &text);
    for secret in [PASSWORD, WRONG] {
        assert!(!said.log.contains(secret), "{}", said.log);
    }
    said
}

#[test]
fn a_mirror_over_tls_and_scram_is_complete() {
    let [safe, open] = clusters();
    let oracle = Oracle::shared().unwrap();
    let (west, east) = (safe.bootstrap(), open.bootstrap());
    let ca = safe.ca_file();
    let ways = [
        (
            "tls-scram-512",
            safe.sasl_ssl_bootstrap(),
            ca,
            Some(("SCRAM-SHA-512", PASSWORD)),
        ),
        (
            "tls-plain",
            safe.sasl_ssl_bootstrap(),
            ca,
            Some(("PLAIN", PASSWORD)),
        ),
        ("tls", safe.ssl_bootstrap(), ca, None),
        (
            "scram-256",
            safe.sasl_bootstrap(),
            None,
            Some(("SCRAM-SHA-256", PASSWORD)),
        ),
    ];
    for (name, bootstrap, ca, sasl) in ways {
        oracle.create_topic(&west, name, 2, 1, &[]).unwrap();
        let workload = Workload::new(name).sizes(10, 5_000);
        oracle.produce(&west, &workload, 2_000).unwrap();
        let text = link(
            &cluster(&bootstrap, ca, sasl),
            &cluster(&open.bootstrap_list(), None, None),
            name,
            name,
        );
        let mut mirror = Mirror::new(&text).started();
        completes(&mut mirror, (&west, name), (&east, &format!("west.{name}")));
    }
}

/// Waits until the running mirror has made a complete copy, stops it, and looks that it kept the password to itself.
fn completes(mirror: &mut Mirror, (west, topic): (&str, &str), (east, copy): (&str, &str)) {
    let oracle = Oracle::shared().unwrap();
    wait_until("the topic is there", SOON, || {
        oracle.list_topics(east).unwrap().iter().any(|t| t == copy)
    });
    let compared = oracle.compare((west, topic), (east, copy), Isolation::ReadCommitted, SOON);
    let compared = compared.unwrap();
    assert!(compared.equal, "{topic}: {compared}");
    mirror.stop();
    assert!(!mirror.log().contains(PASSWORD), "{}", mirror.log());
}

/// As its users have it: the password in a file of its own.
#[test]
fn a_mirror_maker_2_file_connects_as_it_says() {
    let [safe, open] = clusters();
    let oracle = Oracle::shared().unwrap();
    let (south, east) = (safe.bootstrap(), open.bootstrap());
    oracle.create_topic(&south, "theirs", 2, 1, &[]).unwrap();
    let workload = Workload::new("theirs");
    oracle.produce(&south, &workload, 2_000).unwrap();
    let text = format!(
        "clusters = south, east\nsouth.bootstrap.servers = {}\neast.bootstrap.servers = {}\n\
         south->east.enabled = true\nsouth->east.topics = theirs\nsouth->east.emit.heartbeats.enabled = false\n\
         config.providers = secrets\n\
         config.providers.secrets.class = org.apache.kafka.common.config.provider.FileConfigProvider\n\
         south.security.protocol = SASL_SSL\nsouth.sasl.mechanism = SCRAM-SHA-512\n\
         south.sasl.jaas.config = org.apache.kafka.common.security.scram.ScramLoginModule required \
         username=\"{USER}\" password=\"${{secrets:secret.values:south}}\";\n\
         south.ssl.truststore.type = PEM\nsouth.ssl.truststore.location = {}\n",
        safe.sasl_ssl_bootstrap().join(","),
        open.bootstrap(),
        safe.ca_file().unwrap().display()
    );
    let mut mirror = Mirror::with_file("mm2.properties", &text);
    let secret = mirror.folder().join("secret.values");
    std::fs::write(secret, format!("south = {PASSWORD}\n")).unwrap();
    mirror.start();
    completes(&mut mirror, (&south, "theirs"), (&east, "south.theirs"));
}

/// Secrets as Kubernetes mounts them.
#[test]
fn a_strimzi_resource_connects_as_it_says() {
    let [safe, open] = clusters();
    let oracle = Oracle::shared().unwrap();
    let (north, east) = (safe.bootstrap(), open.bootstrap());
    oracle.create_topic(&north, "strimzi", 2, 1, &[]).unwrap();
    let workload = Workload::new("strimzi");
    oracle.produce(&north, &workload, 2_000).unwrap();
    let text = format!(
        "apiVersion: kafka.strimzi.io/v1beta2\nkind: KafkaMirrorMaker2\nmetadata:\n  name: m\nspec:\n  connectCluster: east\n  clusters:\n\
         \x20 - alias: north\n    bootstrapServers: {}\n    tls:\n      trustedCertificates:\n      - secretName: ca\n        pattern: \"*.crt\"\n\
         \x20   authentication:\n      type: scram-sha-512\n      username: {USER}\n      passwordSecret:\n        secretName: user\n        password: password\n\
         \x20 - alias: east\n    bootstrapServers: {}\n  mirrors:\n  - sourceCluster: north\n    targetCluster: east\n    topicsPattern: strimzi\n    sourceConnector: {{}}\n",
        safe.sasl_ssl_bootstrap().join(","),
        open.bootstrap(),
    );
    let mut mirror = Mirror::with_file("mirror.yaml", &text);
    let secret = |name: &str| {
        let folder = mirror.folder().join("secrets").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    std::fs::copy(safe.ca_file().unwrap(), secret("ca").join("ca.crt")).unwrap();
    std::fs::write(secret("user").join("password"), PASSWORD).unwrap();
    mirror.start();
    completes(&mut mirror, (&north, "strimzi"), (&east, "north.strimzi"));
}

#[test]
fn the_target_may_ask_for_everything_too() {
    let [safe, open] = clusters();
    let oracle = Oracle::shared().unwrap();
    let (west, east) = (open.bootstrap(), safe.bootstrap());
    oracle.create_topic(&west, "inwards", 2, 1, &[]).unwrap();
    oracle
        .produce(&west, &Workload::new("inwards"), 2_000)
        .unwrap();
    let sasl = Some(("SCRAM-SHA-512", PASSWORD));
    let text = link(
        &cluster(&open.bootstrap_list(), None, None),
        &cluster(&safe.sasl_ssl_bootstrap(), safe.ca_file(), sasl),
        "inwards",
        "inwards",
    );
    let mut mirror = Mirror::new(&text).started();
    wait_until("the topic is there", SOON, || {
        let topics = oracle.list_topics(&east).unwrap();
        topics.iter().any(|t| t == "west.inwards")
    });
    let compared = oracle
        .compare(
            (&west, "inwards"),
            (&east, "west.inwards"),
            Isolation::ReadCommitted,
            SOON,
        )
        .unwrap();
    assert!(compared.equal, "{compared}");
    mirror.stop();
}

#[test]
fn a_wrong_password_stops_the_start_at_once() {
    let [safe, _] = clusters();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let said = start(&cluster(
            &safe.sasl_ssl_bootstrap(),
            safe.ca_file(),
            Some((mechanism, WRONG)),
        ));
        assert_eq!(said.code, Some(3), "{}", said.log);
        let errors = said.lines("ERROR");
        assert_eq!(errors.len(), 1, "{}", said.log);
        assert_eq!(said.lines("WARN").len(), 0, "{}", said.log);
        for part in [
            "cannot reach cluster 'west': tried 127.0.0.1:",
            &format!("SASL {mechanism}: "),
            "; correct these settings of the cluster",
        ] {
            assert!(errors[0].contains(part), "{part}: {}", errors[0]);
        }
    }
}

#[test]
fn a_certificate_that_cannot_be_trusted_stops_the_start() {
    let [safe, _] = clusters();
    // The system's authorities do not know the test's.
    let west = format!(
        "{{ bootstrap = {:?}, tls = {{}} }}",
        safe.ssl_bootstrap().join(",")
    );
    let said = start(&west);
    assert_eq!(said.code, Some(3), "{}", said.log);
    let errors = said.lines("ERROR");
    assert!(
        errors.len() == 1 && errors[0].contains("TLS: ") && errors[0].contains("ca-file"),
        "{}",
        said.log
    );

    let missing = Path::new("/no/such/ca.pem");
    let said = start(&cluster(&safe.ssl_bootstrap(), Some(missing), None));
    assert_eq!(said.code, Some(3), "{}", said.log);
    assert!(
        said.lines("ERROR")[0].contains("/no/such/ca.pem"),
        "{}",
        said.log
    );
}

#[test]
fn the_wrong_kind_of_listener_is_named() {
    let [safe, _] = clusters();
    // Plain words to a TLS listener, and to one that wants SASL first.
    for (bootstrap, hint, connect, code) in [
        (safe.ssl_bootstrap(), "this listener speaks TLS", "10s", 3),
        (
            safe.sasl_bootstrap(),
            "this listener may want TLS or SASL",
            "2s",
            5,
        ),
    ] {
        let said = start_within(connect, &cluster(&bootstrap, None, None));
        assert_eq!(said.code, Some(code), "{}", said.log);
        let errors = said.lines("ERROR");
        assert!(
            errors.len() == 1 && errors[0].contains(hint),
            "{}",
            said.log
        );
    }
    // A TLS greeting to a plain listener.
    let plain = cluster(&safe.bootstrap_list(), safe.ca_file(), None);
    let said = start_within("2s", &plain);
    assert!(matches!(said.code, Some(3 | 5)), "{}", said.log);
    let errors = said.lines("ERROR");
    assert!(
        errors.len() == 1 && errors[0].contains("TLS"),
        "{}",
        said.log
    );
}
