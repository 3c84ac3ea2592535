//! `strait wait`: until a link has caught up with its source, or until consumers have read what it has mirrored.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use strait_config::{Config, LinkConfig, Pattern, Policy};
use strait_engine::FlowKey;
use strait_mirror::{
    Behind, Carried, CatchUp, GroupBehind, MirrorError, SelectionError, StoredSelections, Unread,
    UnreadTopic,
};
use strait_net::{Cluster, Runtime};
use tokio::time::Instant;

use crate::exit::Exit;
use crate::gaps::{aligned, quoted};
use crate::links;
use crate::output::complain;
use crate::serve::{cluster, exit_for, patience};

/// How long a look may go on when the time is over: the first one is made whatever the time.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at the target.
const LOOK: Duration = Duration::from_millis(500);
/// Between two lines that tell how far it is.
const TELL: Duration = Duration::from_secs(5);
/// Lines of a table at the most.
const SHOWN: usize = 20;

/// `strait wait`.
#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    /// What to wait for.
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Wait until everything is mirrored that the source holds when this begins; a mirror may run or not
    CaughtUp(CaughtUp),
    /// Wait until consumer groups on the target have read the mirrored topics to the ends that these have when this begins
    Drained(Drained),
}

/// Which links, and how long.
#[derive(Args, Debug)]
struct OfLinks {
    /// TOML, a MirrorMaker 2 properties file, or a Strimzi KafkaMirrorMaker2 (.yaml)
    file: PathBuf,
    /// Only this link
    #[arg(long, value_name = "NAME")]
    link: Option<String>,
    /// Give up after this time, 30s or 10m, with exit code 6; without it there is no end to waiting
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// One JSON array instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct CaughtUp {
    #[command(flatten)]
    of: OfLinks,
    /// And until the offsets that the link's consumer groups have committed on the source then are committed on the target
    #[arg(long)]
    groups: bool,
}

#[derive(Args, Debug)]
struct Drained {
    #[command(flatten)]
    of: OfLinks,
    /// Wait for this group; several times for several. Without it: for all that the link selects and that have read the
    /// topics
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Only mirrored topics whose names on the target match this regular expression as a whole; several times for several
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    topic: Vec<Pattern>,
}

fn time(text: &str) -> Result<Duration, String> {
    strait_config::parse_duration(text)
        .ok_or_else(|| "write a whole number with its unit, 30s or 10m".to_owned())
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).map_err(|why| why.to_string())
}

/// Waits, and prints the result to stdout; tells how far it is on stderr, unless `quiet`.
pub(crate) fn wait(args: &WaitArgs, quiet: bool) -> Exit {
    let of = match &args.what {
        What::CaughtUp(args) => &args.of,
        What::Drained(args) => &args.of,
    };
    let (config, chosen) = match links::read(&of.file, of.link.as_deref()) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(cause) => {
            complain(format_args!("cannot start: {cause}"));
            return Exit::Failed;
        }
    };
    let rt = Runtime::system();
    let waited = runtime.block_on(async {
        let deadline = of.timeout.map(|timeout| rt.now() + timeout);
        let mut told = Vec::new();
        let mut exit = Exit::Ok;
        for link in &chosen {
            let one = Waiting {
                rt: &rt,
                config: &config,
                link,
                deadline,
                quiet,
                json: of.json,
            };
            let (text, ended) = match &args.what {
                What::CaughtUp(args) => one.caught_up(args.groups).await?,
                What::Drained(args) => one.drained(&args.topic, &args.group).await?,
            };
            told.push(text);
            if exit == Exit::Ok {
                exit = ended;
            }
        }
        Ok((told, exit))
    });
    let (told, exit) = match waited {
        Ok(waited) => waited,
        Err(exit) => return exit,
    };
    let whole = match of.json {
        true => format!("[{}]\n", told.join(",")),
        false => told.join("\n"),
    };
    links::print(&whole, exit)
}

/// One link that is waited for.
struct Waiting<'a> {
    rt: &'a Runtime,
    config: &'a Config,
    link: &'a LinkConfig,
    deadline: Option<Instant>,
    quiet: bool,
    json: bool,
}

impl Waiting<'_> {
    fn connect(&self, alias: &str) -> Result<Cluster, Exit> {
        let found = self.config.clusters.get(alias).ok_or(Exit::Configuration)?;
        Ok(cluster(self.rt, found, patience(self.config, found)))
    }

    async fn caught_up(&self, groups: bool) -> Result<(String, Exit), Exit> {
        if groups && !carries_groups(self.link) {
            let why = match self.link.groups.sync_offsets {
                true => {
                    "shares its target topics with other writers, and whether it has carried over what groups have read is not told"
                }
                false => "commits no offsets of consumer groups",
            };
            complain(format_args!(
                "link {} {why}: leave out --groups",
                self.link.name
            ));
            return Err(Exit::Usage);
        }
        let (source, target) = (
            self.connect(&self.link.source)?,
            self.connect(&self.link.target)?,
        );
        let as_of_ms = self.rt.wall_ms();
        let begun = CatchUp::begin(self.rt, self.link, source.clone(), target.clone()).await;
        let mut goal = begun.map_err(|error| match error {
            SelectionError::Registry(error) => failed(&MirrorError::from(error)),
            error => {
                complain(format_args!("{error} (id={})", error.id()));
                Exit::Failed
            }
        })?;
        if goal.partitions() == 0 {
            complain(format_args!(
                "link {} selects no topic that cluster {} has: there is nothing to wait for",
                self.link.name, self.link.source
            ));
            return Err(Exit::Failed);
        }
        let all = goal.partitions();
        for (topic, why) in goal.refused() {
            complain(format_args!(
                "link {}: topic {topic} is selected and never caught up, since it cannot be mirrored: {why}",
                self.link.name
            ));
        }
        let mut runs = Runs::new(self.rt);
        let mut telling = Telling::new(self.rt, self.quiet);
        let behind = loop {
            let looked = self.until_deadline(goal.look()).await;
            let behind = match looked {
                Looked::Found(behind) => behind,
                Looked::Failed(error) => {
                    telling.trouble(&error)?;
                    if self.pause().await {
                        continue;
                    }
                    return Err(failed(&error));
                }
                Looked::Late => break None,
            };
            if behind.is_empty() {
                break Some(behind);
            }
            telling.say(|| progress(self.link, all, &behind));
            runs.look(self.link, &target).await;
            if !self.pause().await {
                break Some(behind);
            }
        };
        let Some(behind) = behind else {
            return Err(self.late());
        };
        let open = goal.open_transactions();
        // What groups have read is carried over behind the records.
        let carried = match groups && behind.is_empty() {
            true => Some(
                self.carried((source, target), goal.flows(), &mut telling)
                    .await?,
            ),
            false => None,
        };
        let group_waits = carried.as_ref().is_some_and(|(_, left)| !left.is_empty());
        let ended = match (behind.is_empty() && !group_waits, goal.refused()) {
            (true, []) => Exit::Ok,
            (true, _) => Exit::Failed,
            (false, _) => Exit::NotYet,
        };
        let mut text = match self.json {
            true => caught_up_json(self.link, as_of_ms, all, open, &behind),
            false => caught_up_text(self.link, as_of_ms, all, open, &behind),
        };
        if let Some((count, left)) = &carried {
            carried_told(&mut text, self.json, *count, left);
        }
        Ok((text, ended))
    }

    /// How many groups there are, and which do not stand on the target where they should when the time is over.
    async fn carried(
        &self,
        clusters: (Cluster, Cluster),
        flows: &BTreeSet<FlowKey>,
        telling: &mut Telling<'_>,
    ) -> Result<(usize, Vec<GroupBehind>), Exit> {
        let begun = Carried::begin(self.rt, self.link, clusters, flows).await;
        let mut carried = begun.map_err(|error| failed(&error))?;
        loop {
            match self.until_deadline(carried.look()).await {
                Looked::Found(left) if left.is_empty() => return Ok((carried.groups(), left)),
                Looked::Found(left) => {
                    telling.say(|| {
                        let first = left.first().map_or_else(String::new, behind_text);
                        let waits = count(left.len(), "commit", "commits");
                        format!("link {}: {waits} of groups to go; {first}", self.link.name)
                    });
                    if !self.pause().await {
                        return Ok((carried.groups(), left));
                    }
                }
                Looked::Failed(error) => {
                    telling.trouble(&error)?;
                    if !self.pause().await {
                        return Err(failed(&error));
                    }
                }
                Looked::Late => return Err(self.late()),
            }
        }
    }

    async fn drained(&self, topics: &[Pattern], groups: &[String]) -> Result<(String, Exit), Exit> {
        let target = self.connect(&self.link.target)?;
        let begun = Unread::begin(self.rt, self.link, target, topics, groups).await;
        let unread = begun.map_err(|error| failed(&error))?;
        if unread.topics().is_empty() {
            let such = match topics.is_empty() {
                true => "",
                false => " of such a name",
            };
            complain(format_args!(
                "link {} has mirrored no topic{such} to cluster {}: there is nothing to wait for",
                self.link.name, self.link.target
            ));
            return Err(Exit::Failed);
        }
        let mut telling = Telling::new(self.rt, self.quiet);
        let left = loop {
            let look = async {
                match unread.look().await {
                    // Who cannot be asked cannot be said to have read it.
                    Ok((left, untold)) => match untold.into_iter().next() {
                        Some((_, error)) => Err(MirrorError::from(error)),
                        None => Ok(left),
                    },
                    Err(error) => Err(error),
                }
            };
            let left = match self.until_deadline(look).await {
                Looked::Found(left) => left,
                Looked::Failed(error) => {
                    telling.trouble(&error)?;
                    if self.pause().await {
                        continue;
                    }
                    return Err(failed(&error));
                }
                Looked::Late => break None,
            };
            if left.is_empty() {
                complain(format_args!(
                    "link {}: no consumer group on cluster {} has committed offsets of these topics; name those that shall read them with --group",
                    self.link.name, self.link.target
                ));
                return Err(Exit::Failed);
            }
            let rest: Vec<&UnreadTopic> = left.iter().filter(|u| u.left.records > 0).collect();
            if rest.is_empty() {
                break Some(left);
            }
            telling.say(|| {
                let first: Vec<String> = rest.iter().take(3).map(|u| unread_text(u)).collect();
                let more = match rest.len() {
                    0..=3 => String::new(),
                    n => format!("; and {} more", n - 3),
                };
                format!("link {}: {}{more}", self.link.name, first.join("; "))
            });
            if !self.pause().await {
                break Some(left);
            }
        };
        let Some(left) = left else {
            return Err(self.late());
        };
        let done = left.iter().all(|u| u.left.records == 0);
        let text = match self.json {
            true => format!(
                "{{\"link\":{},\"drained\":{done},\"groups\":{}}}",
                quoted(&self.link.name),
                unread_json(&left)
            ),
            false => drained_text(self.link, done, &left),
        };
        let ended = if done { Exit::Ok } else { Exit::NotYet };
        Ok((text, ended))
    }

    /// The target did not answer while there was time.
    fn late(&self) -> Exit {
        complain(format_args!(
            "link {}: cluster {} did not answer within --timeout",
            self.link.name, self.link.target
        ));
        Exit::NotYet
    }

    /// Looks, unless that takes longer than there is time.
    async fn until_deadline<T, E: Into<MirrorError>>(
        &self,
        look: impl Future<Output = Result<T, E>>,
    ) -> Looked<T> {
        let late = async {
            match self.deadline {
                Some(at) => self.rt.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // The time may be over before the first look, which is made all the same.
        tokio::select! {
            biased;
            looked = look => match looked {
                Ok(found) => Looked::Found(found),
                Err(error) => Looked::Failed(error.into()),
            },
            () = async { late.await; self.rt.sleep(GRACE).await } => Looked::Late,
        }
    }

    /// Waits until the next look; false where there is no time for one.
    async fn pause(&self) -> bool {
        let now = self.rt.now();
        match self.deadline {
            Some(at) if at <= now => false,
            Some(at) => {
                self.rt.sleep_until(at.min(now + LOOK)).await;
                true
            }
            None => {
                self.rt.sleep(LOOK).await;
                true
            }
        }
    }
}

enum Looked<T> {
    Found(T),
    Failed(MirrorError),
    Late,
}

fn failed(error: &MirrorError) -> Exit {
    complain(format_args!("{error} (id={})", error.id()));
    exit_for(error)
}

/// Lines on stderr while it lasts: what has changed, not too often.
struct Telling<'a> {
    rt: &'a Runtime,
    quiet: bool,
    last: Option<(String, Instant)>,
}

impl<'a> Telling<'a> {
    fn new(rt: &'a Runtime, quiet: bool) -> Self {
        let last = None;
        Self { rt, quiet, last }
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        let now = self.rt.now();
        let soon = |(_, at): &(String, Instant)| now.saturating_duration_since(*at) < TELL;
        if self.quiet || self.last.as_ref().is_some_and(soon) {
            return;
        }
        let line = line();
        if self.last.as_ref().is_none_or(|(last, _)| *last != line) {
            complain(&line);
        }
        self.last = Some((line, now));
    }

    /// What passes by itself is waited for.
    fn trouble(&mut self, error: &MirrorError) -> Result<(), Exit> {
        // A log that cannot be read at the moment, too: its leader may just move.
        let passing = exit_for(error) == Exit::Unreachable || error.id() == "own-topic-unavailable";
        if !passing {
            return Err(failed(error));
        }
        self.say(|| format!("{error} (id={}); trying again", error.id()));
        Ok(())
    }
}

/// Whether any process runs the link is told once, where it does not catch up by itself.
struct Runs<'a> {
    rt: &'a Runtime,
    at: Option<Instant>,
}

impl<'a> Runs<'a> {
    fn new(rt: &'a Runtime) -> Self {
        let at = Some(rt.now() + TELL / 2);
        Self { rt, at }
    }

    async fn look(&mut self, link: &LinkConfig, target: &Cluster) {
        if self.at.is_none_or(|at| self.rt.now() < at) {
            return;
        }
        self.at = None;
        let mut stored = StoredSelections::new(self.rt.clone(), target.clone());
        if matches!(stored.runs(&link.name).await, Ok(false)) {
            complain(format_args!(
                "link {} is not run by any process: nothing more is mirrored until one does",
                link.name
            ));
        }
    }
}

fn count(n: usize, one: &str, many: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        _ => format!("{n} {many}"),
    }
}

fn progress(link: &LinkConfig, all: usize, behind: &[Behind]) -> String {
    let offsets: i64 = behind.iter().filter_map(|b| b.offsets).sum();
    let first = behind.first().map_or_else(String::new, |b| {
        let why = b.why.as_ref();
        why.map_or_else(String::new, |why| format!("; {}: {why}", b.flow))
    });
    format!(
        "link {}: {} of {} behind, {offsets} offsets to go{first}",
        link.name,
        behind.len(),
        count(all, "partition", "partitions"),
    )
}

fn at(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.0}"))
}

fn caught_up_text(
    link: &LinkConfig,
    as_of_ms: i64,
    all: usize,
    open: usize,
    behind: &[Behind],
) -> String {
    let mut out = format!("link {}\n", link.name);
    let partitions = count(all, "partition", "partitions");
    let stood = format!("cluster {} as it stood at {}", link.source, at(as_of_ms));
    // Writing to a String cannot fail.
    if behind.is_empty() {
        let _ = writeln!(out, "caught up: {partitions}, with {stood}");
    } else {
        let _ = writeln!(
            out,
            "not caught up: {} of {partitions}, with {stood}",
            behind.len()
        );
        let mut lines = vec![["BEHIND", "OFFSETS", "WHY"].map(str::to_owned)];
        lines.extend(behind.iter().take(SHOWN).map(|b| {
            let offsets = b.offsets.map_or_else(|| "?".to_owned(), |n| n.to_string());
            [
                b.flow.to_string(),
                offsets,
                b.why.clone().unwrap_or_default(),
            ]
        }));
        aligned(&mut out, &lines, 1..=1);
        if behind.len() > SHOWN {
            let _ = writeln!(out, "and {} more", behind.len() - SHOWN);
        }
    }
    if open > 0 {
        let _ = writeln!(
            out,
            "transactions are open in {} there: what is in them follows when they are committed",
            count(open, "partition", "partitions")
        );
    }
    out
}

fn caught_up_json(
    link: &LinkConfig,
    as_of_ms: i64,
    all: usize,
    open: usize,
    behind: &[Behind],
) -> String {
    let null = || "null".to_owned();
    let rows: Vec<String> = behind
        .iter()
        .map(|b| {
            format!(
                "{{\"topic\":{},\"partition\":{},\"offsets\":{},\"why\":{}}}",
                quoted(&b.flow.topic),
                b.flow.partition,
                b.offsets.map_or_else(null, |n| n.to_string()),
                b.why.as_deref().map_or_else(null, quoted)
            )
        })
        .collect();
    format!(
        "{{\"link\":{},\"caught_up\":{},\"as_of_ms\":{as_of_ms},\"partitions\":{all},\"open_transactions\":{open},\"behind\":[{}]}}",
        quoted(&link.name),
        behind.is_empty(),
        rows.join(",")
    )
}

/// Whether the link commits what groups have read at all.
fn carries_groups(link: &LinkConfig) -> bool {
    let shared = link.policies.foreign_writer == Policy::GoOn;
    link.groups.wanted() && link.groups.sync_offsets && !shared
}

/// `billing stands at 40 in orders.A-0 and belongs at 75`.
fn behind_text(behind: &GroupBehind) -> String {
    let stands = behind.stands.map_or_else(
        || "is not known".to_owned(),
        |offset| format!("stands at {offset}"),
    );
    format!(
        "{} {stands} in {}-{} and belongs at {}",
        behind.group, behind.topic, behind.partition, behind.belongs
    )
}

/// What is told of groups, behind what was told of the link.
fn carried_told(text: &mut String, json: bool, all: usize, left: &[GroupBehind]) {
    if !json {
        let groups = count(all, "group", "groups");
        // Writing to a String cannot fail.
        let _ = match left.is_empty() {
            true => writeln!(text, "committed there too: the offsets of {groups}"),
            false => writeln!(text, "not committed there yet, of {groups}:"),
        };
        for one in left.iter().take(SHOWN) {
            let _ = writeln!(text, "{}", behind_text(one));
        }
        if left.len() > SHOWN {
            let _ = writeln!(text, "and {} more", left.len() - SHOWN);
        }
        return;
    }
    let rows: Vec<String> = left
        .iter()
        .map(|one| {
            let stands = one
                .stands
                .map_or_else(|| "null".to_owned(), |n| n.to_string());
            format!(
                "{{\"group\":{},\"topic\":{},\"partition\":{},\"stands\":{stands},\"belongs\":{}}}",
                quoted(&one.group),
                quoted(&one.topic),
                one.partition,
                one.belongs
            )
        })
        .collect();
    // Into the object.
    text.truncate(text.trim_end_matches('}').len());
    let _ = write!(
        text,
        ",\"groups\":{all},\"groups_behind\":[{}]}}",
        rows.join(",")
    );
}

fn drained_text(link: &LinkConfig, done: bool, left: &[UnreadTopic]) -> String {
    let mut out = format!("link {}\n", link.name);
    out.push_str(match done {
        true => "drained: the topics' own records may be read\n",
        false => "not drained\n",
    });
    unread_table(&mut out, left);
    out
}

/// `billing has 12 records left in orders.A`.
fn unread_text(unread: &UnreadTopic) -> String {
    let most = if unread.left.exact { "" } else { "at most " };
    let records = match unread.left.records {
        1 => "1 record".to_owned(),
        n => format!("{n} records"),
    };
    format!(
        "{} has {most}{records} left in {}",
        unread.group, unread.topic
    )
}

/// What groups have left, one line for each group and topic.
pub(crate) fn unread_table(out: &mut String, left: &[UnreadTopic]) {
    let mut lines = vec![["GROUP", "MIRRORED TOPIC", "RECORDS LEFT", ""].map(str::to_owned)];
    lines.extend(left.iter().map(|unread| {
        let records = match unread.left.exact {
            true => unread.left.records.to_string(),
            false => format!("at most {}", unread.left.records),
        };
        let note = match unread.uncommitted {
            0 => String::new(),
            n => format!(
                "nothing committed in {}",
                count(n, "partition", "partitions")
            ),
        };
        [unread.group.clone(), unread.topic.clone(), records, note]
    }));
    aligned(out, &lines, 2..=2);
}

/// The same for a machine.
pub(crate) fn unread_json(left: &[UnreadTopic]) -> String {
    let rows: Vec<String> = left
        .iter()
        .map(|unread| {
            format!(
                "{{\"group\":{},\"topic\":{},\"records_left\":{},\"exact\":{},\"uncommitted_partitions\":{}}}",
                quoted(&unread.group),
                quoted(&unread.topic),
                unread.left.records,
                unread.left.exact,
                unread.uncommitted
            )
        })
        .collect();
    format!("[{}]", rows.join(","))
}
