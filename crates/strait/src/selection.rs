//! `strait selection`, and the same under Event Streams' names: what is selected at run time, stored on the target.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use strait_config::{Config, LinkConfig, Pattern, TopicSelection, read_select};
use strait_mirror::{MirrorError, SelectionError, StoredSelections, active_topics};
use strait_net::{Cluster, Runtime};

use crate::exit::Exit;
use crate::gaps::quoted;
use crate::output::{Out, complain};
use crate::serve::{cluster, exit_for, patience};

/// `strait selection`.
#[derive(Args, Debug)]
pub(crate) struct SelectionArgs {
    /// What to do with the selection.
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print which topics are selected, and whether the file says so or the target
    Get(OfLink),
    /// Replace the selection, for a running link too; it wins over the file until it is reset
    Set(Set),
    /// Select no topic
    None(OfLink),
    /// Forget the selection on the target: the file's topics hold again
    Reset(OfLink),
}

/// Which link of which file.
#[derive(Args, Debug)]
pub(crate) struct OfLink {
    /// TOML, a MirrorMaker 2 properties file, or a Strimzi KafkaMirrorMaker2 (.yaml)
    file: PathBuf,
    /// Which link, where the file has several
    #[arg(long, value_name = "NAME")]
    link: Option<String>,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

/// `strait selection set`.
#[derive(Args, Debug)]
struct Set {
    #[command(flatten)]
    of: OfLink,
    /// Regular expressions that match whole names of source topics, with commas between them: '^a.*,^b.*'
    #[arg(long, value_name = "PATTERNS")]
    select: String,
}

/// `strait mirroring-topic-selection-set`.
#[derive(Args, Debug)]
pub(crate) struct SetOrNone {
    #[command(flatten)]
    of: OfLink,
    /// Regular expressions that match whole names of source topics, with commas between them: '^a.*,^b.*'
    #[arg(
        long,
        value_name = "PATTERNS",
        conflicts_with = "none",
        required_unless_present = "none"
    )]
    select: Option<String>,
    /// Select no topic
    #[arg(long)]
    none: bool,
}

/// What is wanted of the link.
enum Wish {
    Get,
    Store(Option<Vec<Pattern>>),
    Active,
}

/// `strait selection get|set|none|reset`.
pub(crate) fn selection(args: &SelectionArgs) -> Exit {
    match &args.action {
        Action::Get(of) => run(of, Wish::Get),
        Action::Set(set) => select(&set.of, &set.select),
        Action::None(of) => run(of, Wish::Store(Some(Vec::new()))),
        Action::Reset(of) => run(of, Wish::Store(None)),
    }
}

/// `strait mirroring-topic-selection-set`.
pub(crate) fn set_or_none(args: &SetOrNone) -> Exit {
    match &args.select {
        Some(text) => select(&args.of, text),
        None => run(&args.of, Wish::Store(Some(Vec::new()))),
    }
}

/// `strait mirroring-topic-selection`.
pub(crate) fn get(of: &OfLink) -> Exit {
    run(of, Wish::Get)
}

/// `strait mirroring-active-topics`.
pub(crate) fn active(of: &OfLink) -> Exit {
    run(of, Wish::Active)
}

fn select(of: &OfLink, text: &str) -> Exit {
    match read_select(text) {
        Ok(patterns) => run(of, Wish::Store(Some(patterns))),
        Err(why) => {
            complain(format_args!("--select: {why}; nothing was changed"));
            Exit::Usage
        }
    }
}

fn run(of: &OfLink, wish: Wish) -> Exit {
    let config = match strait_config::load(&of.file) {
        Ok(config) => config,
        Err(error) => {
            complain(error);
            return Exit::Configuration;
        }
    };
    let link = match the_link(&config, of) {
        Ok(link) => link,
        Err(why) => {
            complain(why);
            return Exit::Usage;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(grant(&config, link, of, wish)),
        Err(cause) => {
            complain(format_args!("cannot start: {cause}"));
            return Exit::Failed;
        }
    };
    let text = match done {
        Ok(text) => text,
        Err(exit) => return exit,
    };
    match Out::stdout().text(text) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(format_args!("stdout cannot be written: {error}"));
            Exit::Failed
        }
    }
}

/// The link that is meant; what to say where none is.
fn the_link<'c>(config: &'c Config, of: &OfLink) -> Result<&'c LinkConfig, String> {
    let names: Vec<&str> = config.links.iter().map(|l| l.name.as_str()).collect();
    let file = of.file.display();
    match (&of.link, config.links.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(format!(
            "{file} has several links: say which one with --link: {}",
            names.join(", ")
        )),
        (Some(name), links) => links.iter().find(|l| l.name == *name).ok_or_else(|| {
            format!(
                "--link: {file} has no such link; it has {}",
                names.join(", ")
            )
        }),
    }
}

/// Does what is wanted and returns what to print.
async fn grant(
    config: &Config,
    link: &LinkConfig,
    of: &OfLink,
    wish: Wish,
) -> Result<String, Exit> {
    let rt = Runtime::system();
    let failed = |error: SelectionError| {
        complain(format_args!("{error} (id={})", error.id()));
        match error {
            SelectionError::Registry(error) => exit_for(&MirrorError::from(error)),
            _ => Exit::Failed,
        }
    };
    let Some(target) = connect(&rt, config, &link.target) else {
        return Err(Exit::Configuration);
    };
    let mut stored = StoredSelections::new(rt.clone(), target.clone());
    match wish {
        Wish::Get => {
            stored.refresh().await.map_err(failed)?;
            printed(link, &stored, of.json).map_err(failed)
        }
        Wish::Store(includes) => {
            let topics = match &includes {
                Some(includes) => link.topics.with_includes(includes.clone()),
                None => link.topics.clone(),
            };
            if let Some(problem) = problem(&rt, config, link, &topics).await {
                complain(format_args!("{problem}; nothing was changed"));
                return Err(Exit::Configuration);
            }
            let done = stored.store(link, includes.as_deref()).await;
            done.map_err(failed)?;
            printed(link, &stored, of.json).map_err(failed)
        }
        Wish::Active => {
            let Some(source) = connect(&rt, config, &link.source) else {
                return Err(Exit::Configuration);
            };
            let active = active_topics(link, &source, &target, &mut stored).await;
            let active = active.map_err(failed)?.unwrap_or_else(|| {
                complain(format_args!(
                    "link {} is not run by any process, so it mirrors nothing now",
                    link.name
                ));
                Vec::new()
            });
            Ok(if of.json {
                format!("{{\"active_topics\":{}}}\n", json_list(&active))
            } else {
                active.iter().map(|topic| format!("{topic}\n")).collect()
            })
        }
    }
}

fn connect(rt: &Runtime, config: &Config, alias: &str) -> Option<Cluster> {
    let found = config.clusters.get(alias)?;
    Some(cluster(rt, found, patience(config, found)))
}

/// Why the link cannot select these topics beside what the file's other links select, stored or not. Other targets are
/// asked only where the answer matters; what one does not tell is taken from the file.
async fn problem(
    rt: &Runtime,
    config: &Config,
    link: &LinkConfig,
    topics: &TopicSelection,
) -> Option<String> {
    let all = |_: &str| {
        let all = Pattern::new(".*").ok()?;
        Some(TopicSelection::new(vec![all], Vec::new()))
    };
    config.selection_problem(&link.name, topics, &all)?;
    let mut others = BTreeMap::new();
    for other in config.links.iter().filter(|other| other.name != link.name) {
        let Some(target) = connect(rt, config, &other.target) else {
            continue;
        };
        let mut stored = StoredSelections::new(rt.clone(), target);
        let found = match stored.refresh().await {
            Ok(()) => stored.topics(other),
            Err(error) => Err(error),
        };
        let found = found.unwrap_or_else(|error| {
            complain(format_args!(
                "link {} is taken to select what the file says: {error} (id={})",
                other.name,
                error.id()
            ));
            other.topics.clone()
        });
        others.insert(other.name.clone(), found);
    }
    config.selection_problem(&link.name, topics, &|name| others.get(name).cloned())
}

fn printed(
    link: &LinkConfig,
    stored: &StoredSelections,
    json: bool,
) -> Result<String, SelectionError> {
    let found = stored.get(&link.name)?;
    let of_file = link.topics.includes();
    let includes = found.map_or(&of_file, |s| &s.includes);
    if json {
        let since = found.map_or_else(|| "null".to_owned(), |s| s.since_ms.to_string());
        return Ok(format!(
            "{{\"link\":{},\"includes\":{},\"stored\":{},\"since_ms\":{since},\"file\":{},\"excludes\":{}}}\n",
            quoted(&link.name),
            json_list(includes),
            found.is_some(),
            json_list(&of_file),
            json_list(&link.topics.excludes())
        ));
    }
    let mut text = format!("link {}\n", link.name);
    let lines = |text: &mut String, of: &[String]| {
        for pattern in of {
            // One line each, whatever was written into the registry.
            let _ = writeln!(text, "  {}", pattern.replace(char::is_control, "?"));
        }
        if of.is_empty() {
            text.push_str("  (none)\n");
        }
    };
    match found {
        Some(found) => {
            let _ = writeln!(
                text,
                "topics, as stored on {} since {}",
                link.target,
                found.since()
            );
            lines(&mut text, includes);
            text.push_str("topics of the file, not in force until strait selection reset\n");
            lines(&mut text, &of_file);
        }
        None => {
            let _ = writeln!(
                text,
                "topics, as the file says; none are stored on {}",
                link.target
            );
            lines(&mut text, includes);
        }
    }
    let excludes = link.topics.excludes();
    if !excludes.is_empty() {
        text.push_str("exclude, as the file says\n");
        lines(&mut text, &excludes);
    }
    Ok(text)
}

fn json_list(texts: &[String]) -> String {
    let all: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", all.join(","))
}
