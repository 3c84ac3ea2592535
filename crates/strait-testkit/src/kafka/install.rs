//! Where setup put Kafka's jars, and the command line of a JVM on them.

use super::error::HarnessError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A release of Apache Kafka that the harness can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// The newest 4.x, and the default.
    #[default]
    V4_3,
    /// The last line that still speaks the oldest requests.
    V3_9,
}

impl Version {
    /// The full version number, as in the names of its jars.
    pub fn number(self) -> &'static str {
        match self {
            Self::V4_3 => "4.3.1",
            Self::V3_9 => "3.9.2",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

/// The Java that setup compiled, to be held against the Java of this build.
const SOURCES: [(&str, &str); 13] = [
    ("Node.java", include_str!("../../java/Node.java")),
    ("Warmup.java", include_str!("../../java/Warmup.java")),
    ("Oracle.java", include_str!("../../java/Oracle.java")),
    (
        "oracle/Access.java",
        include_str!("../../java/oracle/Access.java"),
    ),
    (
        "oracle/Clients.java",
        include_str!("../../java/oracle/Clients.java"),
    ),
    (
        "oracle/Compare.java",
        include_str!("../../java/oracle/Compare.java"),
    ),
    (
        "oracle/Groups.java",
        include_str!("../../java/oracle/Groups.java"),
    ),
    (
        "oracle/Produce.java",
        include_str!("../../java/oracle/Produce.java"),
    ),
    (
        "oracle/Reader.java",
        include_str!("../../java/oracle/Reader.java"),
    ),
    (
        "oracle/Run.java",
        include_str!("../../java/oracle/Run.java"),
    ),
    (
        "oracle/Topics.java",
        include_str!("../../java/oracle/Topics.java"),
    ),
    (
        "oracle/Workload.java",
        include_str!("../../java/oracle/Workload.java"),
    ),
    (
        "org/apache/kafka/connect/mirror/Mm2Reader.java",
        include_str!("../../java/org/apache/kafka/connect/mirror/Mm2Reader.java"),
    ),
];

/// One resolved Kafka release.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    classpath: String,
    archive: PathBuf,
    /// The certificate of the authority behind the SSL listeners.
    pub(crate) ca_file: PathBuf,
    /// The SSL listeners' key and certificate, PKCS#12.
    pub(crate) keystore: PathBuf,
}

/// The password of the keystore, which holds a key made for tests.
pub(crate) const KEYSTORE_PASSWORD: &str = "strait-test";

impl Install {
    /// Finds a release below `STRAIT_KAFKA_DIR`, by default `.kafka` in the workspace's root.
    pub(crate) fn find(version: Version) -> Result<Self, HarnessError> {
        let root = match std::env::var_os("STRAIT_KAFKA_DIR") {
            Some(dir) => PathBuf::from(dir),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.kafka"),
        };
        let root = root
            .canonicalize()
            .map_err(|_| missing(format!("the folder {}", root.display())))?;
        for (name, text) in SOURCES {
            let compiled =
                std::fs::read_to_string(root.join("java").join(name)).unwrap_or_default();
            if compiled != text {
                return Err(missing(format!(
                    "its Java compiled as it is now ({name} differs)"
                )));
            }
        }
        let folder = root.join(version.number());
        let list = folder.join("classpath");
        let jars = std::fs::read_to_string(&list)
            .map_err(|_| missing(format!("the jars of Kafka {version} ({})", list.display())))?;
        let jars: Vec<PathBuf> = jars.lines().map(|jar| root.join(jar)).collect();
        if let Some(gone) = jars.iter().find(|jar| !jar.is_file()) {
            return Err(missing(format!("{}", gone.display())));
        }
        let classpath = jars
            .iter()
            .map(|jar| jar.display().to_string())
            .collect::<Vec<_>>()
            .join(":");
        let (ca_file, keystore) = (root.join("tls/ca.pem"), root.join("tls/server.p12"));
        if !ca_file.is_file() || !keystore.is_file() {
            return Err(missing("its test certificates".to_owned()));
        }
        Ok(Self {
            classpath,
            archive: folder.join("classes.jsa"),
            ca_file,
            keystore,
        })
    }

    /// A JVM with quick start-up: serial collector, archived classes and, unless `fast`, only the first compiler,
    /// which starts quicker and peaks lower.
    pub(crate) fn java(&self, nice: i32, heap: &str, fast: bool) -> Command {
        let mut command = if nice == 0 {
            Command::new("java")
        } else {
            // `nice` becomes the JVM by exec: the process id stays the one that is started here.
            let mut command = Command::new("nice");
            command.args(["-n", &nice.to_string(), "java"]);
            command
        };
        command.args(["-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xshare:auto"]);
        command.arg(format!("-XX:SharedArchiveFile={}", self.archive.display()));
        if !fast {
            command.arg("-XX:TieredStopAtLevel=1");
        }
        command.arg(format!("-Xmx{heap}"));
        command.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        command.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
        command.args(["-cp", &self.classpath]);
        command
    }
}

/// The error for anything that setup provides.
fn missing(what: String) -> HarnessError {
    HarnessError::NotInstalled { what }
}
