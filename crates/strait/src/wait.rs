//! `strait wait`: until a link has caught up with its source, or until consumers have read what it has mirrored.

mod carried;
mod caught_up;
mod drained;
mod waiting;

use std::time::Duration;

use clap::{Args, Subcommand};
use strait_config::{LinkConfig, Pattern, Policy};
use strait_net::{Cluster, Runtime};

use crate::exit::Exit;
use crate::links::{self, Clusters, OfLinks};
use crate::output::complain;
use waiting::{Times, Waiting};

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

/// How long to wait.
#[derive(Args, Debug)]
struct ForTime {
    /// Give up after this time, 30s or 10m, with exit code 6; without it there is no end to waiting
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

#[derive(Args, Debug)]
struct CaughtUp {
    #[command(flatten)]
    of: OfLinks,
    #[command(flatten)]
    time: ForTime,
    /// And until the offsets that the link's consumer groups have committed on the source then are committed on the target
    #[arg(long)]
    groups: bool,
}

#[derive(Args, Debug)]
struct Drained {
    #[command(flatten)]
    of: OfLinks,
    #[command(flatten)]
    time: ForTime,
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

/// Waits for all links side by side, and prints how each of them stands in the end to stdout; tells how far it is on stderr,
/// unless `quiet`.
pub(crate) fn wait(args: &WaitArgs, quiet: bool) -> Exit {
    let (of, time) = match &args.what {
        What::CaughtUp(args) => (&args.of, &args.time),
        What::Drained(args) => (&args.of, &args.time),
    };
    let (config, chosen) = match links::read(of) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    if let What::CaughtUp(CaughtUp { groups: true, .. }) = &args.what
        && let Some(why) = chosen.iter().find_map(carries_no_groups)
    {
        complain(format_args!("{why}: leave out --groups"));
        return Exit::Usage;
    }
    let runtime = match links::runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let rt = Runtime::system();
    let clusters = Clusters::new(&rt, &config);
    let begun = rt.now();
    let waiting = chosen.iter().filter_map(|link| {
        let (source, target) = clusters.of(link)?;
        let times = Times::new(begun, time.timeout, link.timeouts.connect);
        let json = of.json;
        let rt = &rt;
        Some(async move {
            let asked = |all: &[&Cluster]| all.iter().map(|c| (*c).clone()).collect();
            match &args.what {
                What::CaughtUp(args) => {
                    let asked = asked(&[&source, &target]);
                    let waiting = Waiting::new(rt, &link.name, asked, times, quiet);
                    caught_up::wait(waiting, link, (source, target), args.groups, json).await
                }
                What::Drained(args) => {
                    let waiting = Waiting::new(rt, &link.name, asked(&[&target]), times, quiet);
                    let what = (args.topic.as_slice(), args.group.as_slice());
                    drained::wait(waiting, link, target, what, json).await
                }
            }
        })
    });
    let ended = runtime.block_on(links::side_by_side(waiting));
    let (told, exits): (Vec<String>, Vec<Exit>) = ended.into_iter().unzip();
    let whole = match of.json {
        true => format!("[{}]\n", told.join(",")),
        false => told.join("\n"),
    };
    // What waiting does not help is told rather than that it takes longer.
    let bad = |exit: &&Exit| !matches!(exit, Exit::Ok);
    let worst = exits.iter().find(|e| bad(e) && **e != Exit::NotYet);
    let exit = worst.or_else(|| exits.iter().find(bad)).copied();
    links::print(&whole, exit.unwrap_or(Exit::Ok))
}

/// Why the link commits nothing of what groups have read, if so.
fn carries_no_groups(link: &LinkConfig) -> Option<String> {
    let shared = link.policies.foreign_writer == Policy::GoOn;
    let why = match link.groups.wanted() && link.groups.sync_offsets {
        false => "commits no offsets of consumer groups",
        true if shared => {
            "shares its target topics with other writers, and whether it has carried over what groups have read is not told"
        }
        true => return None,
    };
    Some(format!("link {} {why}", link.name))
}
