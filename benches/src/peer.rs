//! The mirrors and copiers that are measured on the same brokers and data.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::clusters::Clusters;
use crate::dataset::{Dataset, java, peers};
use crate::heading::said;

/// Threads of the patching copier.
const COPIER_THREADS: &str = "4";

/// Who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Strait,
    /// Throwaway: sets base offsets in the batches' headers and forwards them, without positions.
    Patching,
    /// Throwaway: decodes and produces every record, without positions.
    FranzGo,
    /// MirrorMaker 2 in its dedicated mode, as many tasks as partitions.
    MirrorMaker,
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [
        Self::Strait,
        Self::Patching,
        Self::FranzGo,
        Self::MirrorMaker,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Strait => "Strait",
            Self::Patching => "patching copier",
            Self::FranzGo => "franz-go copier",
            Self::MirrorMaker => "MirrorMaker 2",
        }
    }

    /// Whether it creates its target topic by itself; for the others that is done before their start.
    pub(crate) fn creates_topic(self) -> bool {
        matches!(self, Self::Strait | Self::MirrorMaker)
    }

    /// The command that copies the data set's topic to `ALIAS.topic`; its files go to `dir`.
    pub(crate) fn command(
        self,
        clusters: &Clusters,
        data: &Dataset,
        topic: &str,
        alias: &str,
        partitions: i32,
        dir: &Path,
    ) -> Result<Command, Failure> {
        let (source, target) = (clusters.source.bootstrap(), clusters.target.bootstrap());
        let copier = |program: PathBuf, first: Option<PathBuf>| {
            let mut command = Command::new(program);
            command
                .args(first)
                .args([&source, &target, topic])
                .arg(format!("{alias}.{topic}"));
            command
        };
        match self {
            Self::Strait => strait(&strait_binary()?, dir, alias, &source, &target, topic),
            Self::MirrorMaker => mirror_maker(dir, alias, &source, &target, topic, partitions),
            Self::Patching => {
                let mut command = copier(python()?, Some(peers()?.join("copier.py")));
                command.args([&partitions.to_string(), COPIER_THREADS]);
                Ok(command)
            }
            Self::FranzGo => {
                let mut command = copier(franz_go()?, None);
                command.args([&data.records.to_string(), data.name()]);
                Ok(command)
            }
        }
    }
}

/// The binary to measure: `STRAIT_BIN`, or the one beside this one.
pub(crate) fn strait_binary() -> Result<PathBuf, Failure> {
    Ok(match std::env::var_os("STRAIT_BIN") {
        Some(exe) => PathBuf::from(exe),
        None => std::env::current_exe()?.with_file_name("strait"),
    })
}

/// The command `strait run` for one topic, with every default.
pub(crate) fn strait(
    exe: &Path,
    dir: &Path,
    alias: &str,
    source: &str,
    target: &str,
    topic: &str,
) -> Result<Command, Failure> {
    let config = dir.join("mirror.toml");
    let text = format!(
        "[clusters]\n{alias} = \"{source}\"\nT = \"{target}\"\n[[links]]\nsource = \"{alias}\"\ntarget = \"T\"\ntopics = [\"{topic}\"]\n"
    );
    std::fs::write(&config, text)?;
    if !exe.exists() {
        let exe = exe.display();
        return Err(format!("{exe} is missing: cargo build --release -p strait").into());
    }
    let mut command = Command::new(exe);
    command
        .args(["run", "--admin-listen", "off", "--state-dir"])
        .arg(dir)
        .arg(config);
    Ok(command)
}

/// MirrorMaker 2's dedicated mode with its defaults, except what a single node needs and as many
/// tasks as partitions.
pub(crate) fn mirror_maker(
    dir: &Path,
    alias: &str,
    source: &str,
    target: &str,
    topic: &str,
    tasks: i32,
) -> Result<Command, Failure> {
    let config = dir.join("mm2.properties");
    let mut text = format!(
        "clusters={alias},T\n{alias}.bootstrap.servers={source}\nT.bootstrap.servers={target}\n{alias}->T.enabled=true\nT->{alias}.enabled=false\n{alias}->T.topics={topic}\ntasks.max={tasks}\n"
    );
    for key in [
        "replication.factor",
        "checkpoints.topic.replication.factor",
        "heartbeats.topic.replication.factor",
        "offset-syncs.topic.replication.factor",
        "config.storage.replication.factor",
        "offset.storage.replication.factor",
        "status.storage.replication.factor",
    ] {
        writeln!(text, "{key}=1")?;
    }
    std::fs::write(&config, text)?;
    let mut command = java();
    command
        .arg("org.apache.kafka.connect.mirror.MirrorMaker")
        .arg(config);
    Ok(command)
}

/// The interpreter itself: what is called python3 may be a script that looks for one, which is no part of the copier.
fn python() -> Result<PathBuf, Failure> {
    let exe = said("python3", &["-c", "import sys; print(sys.executable)"]);
    if exe.is_empty() {
        return Err("python3 is missing: the patching copier needs it".into());
    }
    Ok(PathBuf::from(exe))
}

/// Where `just bench-mm2` builds the copier to.
fn franz_go() -> Result<PathBuf, Failure> {
    let exe = std::env::current_exe()?
        .with_file_name("peers")
        .join("franz-go");
    if !exe.exists() {
        let exe = exe.display();
        return Err(format!("{exe} is missing: `just bench-mm2` builds it with go").into());
    }
    Ok(exe)
}
