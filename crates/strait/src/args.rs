//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use strait_config::{AdminConfig, Config};

use crate::exit;
use crate::links::OfLinks;
use crate::selection::{OfLink, SelectionArgs, SetOrNone};
use crate::wait::WaitArgs;

/// `0.1.0 (0123456789ab, x86_64-unknown-linux-musl)`.
pub(crate) const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("STRAIT_COMMIT"),
    ", ",
    env!("STRAIT_TARGET"),
    ")"
);

/// Mirrors topics between Apache Kafka clusters, byte for byte, exactly once.
///
/// Results are written to stdout, logs to stderr.
#[derive(Debug, Parser)]
#[command(name = "strait", version = VERSION, after_help = exit::TABLE, max_term_width = 100)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How to log; the same for every command.
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mirror, as a configuration file says, until SIGINT or SIGTERM
    Run(RunArgs),
    /// Show it: two clusters inside this process, a mirror that is killed again and again, and the comparison
    Demo(DemoArgs),
    /// Check a configuration file and print what it means, as TOML, with every default
    Check(CheckArgs),
    /// Print what each partition has forwarded, left out and lost, from the positions on the target; also while links run
    Gaps(OfLinks),
    /// Show or replace the selection of topics at run time; it is stored on the target and wins over the file
    Selection(SelectionArgs),
    /// Replace the selection of topics, by the name that it has in Event Streams: `selection set` and `selection none`
    #[command(name = "mirroring-topic-selection-set")]
    MirroringTopicSelectionSet(SetOrNone),
    /// Show the selection of topics, by the name that it has in Event Streams: `selection get`
    #[command(name = "mirroring-topic-selection")]
    MirroringTopicSelection(OfLink),
    /// List the source's topics that are mirrored now
    #[command(name = "mirroring-active-topics")]
    MirroringActiveTopics(OfLink),
    /// Print what each link would do, before anything is written: topics, settings, ACLs, bytes, bandwidth, refusals
    Plan(PlanArgs),
    /// Print what consumer groups have left to read of the mirrored topics, and which of these have lost their source
    Status(OfLinks),
    /// Offsets of the source on the target; also while links run
    Offsets(OffsetsArgs),
    /// Wait until everything is mirrored, or until consumer groups have read it; the exit code tells
    Wait(WaitArgs),
}

/// `strait run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// TOML, a MirrorMaker 2 properties file, or a Strimzi KafkaMirrorMaker2 (.yaml)
    pub(crate) file: PathBuf,
    /// Serve metrics and health on this address instead, or `off`
    #[arg(long, value_name = "ADDRESS", value_parser = admin_listen)]
    pub(crate) admin_listen: Option<AdminConfig>,
    /// The file with the tokens for /admin/mirroring/...
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// The name of this process among those that may run the same links
    #[arg(long, value_name = "NAME", value_parser = instance_name)]
    pub(crate) instance: Option<String>,
    /// Where lock files are kept
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Run links even where another instance still renews its lease; that one is fenced and stops
    #[arg(long)]
    pub(crate) take_over: bool,
}

/// `strait demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Leave clusters and mirror running afterwards, to play with, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// Repeat a demo: the same data and the same schedule of kills, drawn from this number
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
}

/// `strait check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// TOML, a MirrorMaker 2 properties file, or a Strimzi KafkaMirrorMaker2 (.yaml)
    pub(crate) file: PathBuf,
}

/// `strait plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// Of which links.
    #[command(flatten)]
    pub(crate) of: OfLinks,
    /// The bytes a second to tell the time for
    #[arg(long, value_name = "SIZE", default_value = "10MiB", value_parser = bandwidth)]
    pub(crate) bandwidth: u64,
}

/// `strait offsets`.
#[derive(Args, Debug)]
pub(crate) struct OffsetsArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub(crate) command: OffsetsCommand,
}

/// What to do with offsets.
#[derive(Debug, Subcommand)]
pub(crate) enum OffsetsCommand {
    /// Print where offsets of the source, or those that a group has committed there, stand on the target; writes nothing
    Translate(TranslateArgs),
    /// Print up to which offsets of the source a group has read, by what it has committed on the target: for the way back
    Back(BackArgs),
}

/// `strait offsets translate`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["group", "topic"]))]
pub(crate) struct TranslateArgs {
    /// Of which links.
    #[command(flatten)]
    pub(crate) of: OfLinks,
    /// What this consumer group has committed on the source
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Offsets of this topic of the source
    #[arg(long, value_name = "TOPIC", requires = "offset")]
    pub(crate) topic: Option<String>,
    /// The topic's partition
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "topic")]
    pub(crate) partition: i32,
    /// The offset, or several with commas between them
    #[arg(
        long,
        value_name = "NUMBER",
        value_delimiter = ',',
        requires = "topic",
        allow_hyphen_values = true
    )]
    pub(crate) offset: Vec<i64>,
}

/// `strait offsets back`.
#[derive(Args, Debug)]
pub(crate) struct BackArgs {
    /// Of which links.
    #[command(flatten)]
    pub(crate) of: OfLinks,
    /// The consumer group
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: String,
    /// What lies further than the group stands on the source, as kafka-consumer-groups.sh --from-file takes it
    #[arg(long, conflicts_with = "json")]
    pub(crate) csv: bool,
}

/// How to log.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct LogArgs {
    /// One line of text per event, or one JSON object
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    pub(crate) log_format: LogFormat,
    /// The least level that is logged
    #[arg(long, value_enum, default_value_t = LogLevel::Info, global = true)]
    pub(crate) log_level: LogLevel,
    /// Log warnings and errors only
    #[arg(long, short, global = true, conflicts_with = "log_level")]
    pub(crate) quiet: bool,
}

/// The forms of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Levels, as in every log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl RunArgs {
    /// What the command line says wins over the file.
    pub(crate) fn apply(&self, config: &mut Config) {
        if let Some(admin) = self.admin_listen {
            config.set_admin(admin);
        }
        if let Some(file) = &self.admin_token_file {
            config.set_admin_token_file(file.clone());
        }
        if let Some(instance) = &self.instance {
            config.instance = Some(instance.clone());
        }
        if let Some(folder) = &self.state_dir {
            config.state_dir = Some(folder.clone());
        }
    }
}

fn instance_name(text: &str) -> Result<String, String> {
    strait_config::check_name(text).map(|()| text.to_owned())
}

fn bandwidth(text: &str) -> Result<u64, String> {
    let size = strait_config::parse_size(text).filter(|bytes| *bytes > 0);
    size.ok_or_else(|| "write a size with its unit, 10MiB".to_owned())
}

fn admin_listen(text: &str) -> Result<AdminConfig, String> {
    if text == "off" {
        return Ok(AdminConfig { listen: None });
    }
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok(AdminConfig {
            listen: Some(address),
        }),
        Err(_) => Err("write an IP address and a port, 127.0.0.1:9464, or off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::CommandLine::command().debug_assert();
    }
}
