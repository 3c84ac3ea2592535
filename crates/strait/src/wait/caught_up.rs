//! `strait wait caught-up`.

use std::fmt::Write as _;
use std::time::Duration;

use strait_config::LinkConfig;
use strait_mirror::{Behind, CatchUp, StoredSelections};
use strait_net::{Cluster, Runtime};
use tokio::task::JoinSet;

use super::carried;
use super::waiting::{Look, State, TELL, Trouble, Waiting};
use crate::exit::Exit;
use crate::gaps::{aligned, quoted};
use crate::output::complain;
use crate::unread::count;

/// Lines of a table at the most.
pub(super) const SHOWN: usize = 20;

/// How the link stands in the end, as text or JSON, and the exit code for that.
pub(super) async fn wait(
    mut waiting: Waiting<'_>,
    link: &LinkConfig,
    (source, target): (Cluster, Cluster),
    groups: bool,
    json: bool,
) -> (String, Exit) {
    let goal = CatchUp::new(waiting.rt, link, source.clone(), target.clone());
    let mut records = Records {
        link,
        goal,
        told: false,
    };
    let runs = whether_it_runs(waiting.rt, link, target.clone());
    let seen = waiting.until(&mut records).await;
    drop(runs);
    let goal = records.goal;
    let mut exit = seen.exit;
    let end = End {
        link,
        goal: &goal,
        behind: seen.found.as_deref(),
        trouble: seen.trouble.as_deref(),
    };
    let mut text = match json {
        true => end.json(),
        false => end.text(),
    };
    if exit == Exit::Ok && groups {
        // What groups have read is carried over behind the records.
        let clusters = (source, target);
        let (more, ended) =
            carried::wait(&mut waiting, link, clusters, goal.flows().clone(), json).await;
        exit = ended;
        if json {
            // Into the object.
            text.truncate(text.trim_end_matches('}').len());
        }
        text.push_str(&more);
    }
    if exit == Exit::Ok && !goal.refused().is_empty() {
        exit = Exit::Failed;
    }
    (text, exit)
}

/// Tells once whether any process runs the link, where it does not catch up by itself; until dropped.
fn whether_it_runs(rt: &Runtime, link: &LinkConfig, target: Cluster) -> JoinSet<()> {
    let (rt, name) = (rt.clone(), link.name.clone());
    let mut beside = JoinSet::new();
    beside.spawn(async move {
        rt.sleep(TELL / 2).await;
        let mut stored = StoredSelections::new(rt, target);
        if matches!(stored.runs(&name).await, Ok(false)) {
            complain(format_args!(
                "link {name} is not run by any process: nothing more is mirrored until one does"
            ));
        }
    });
    beside
}

/// The records that the source held.
struct Records<'a> {
    link: &'a LinkConfig,
    goal: CatchUp,
    /// What is never mirrored was told.
    told: bool,
}

impl Look for Records<'_> {
    type Found = Vec<Behind>;

    async fn look(&mut self, patience: Duration) -> Result<Vec<Behind>, Trouble> {
        let (link, goal) = (self.link, &mut self.goal);
        let looked = goal.look(patience).await;
        if goal.begun() && goal.partitions() == 0 {
            return Err(Trouble::nothing(format!(
                "it selects no topic that cluster {} has: there is nothing to wait for",
                link.source
            )));
        }
        if goal.begun() && !self.told {
            self.told = true;
            for (topic, why) in goal.refused() {
                complain(format_args!(
                    "link {}: topic {topic} is selected and never caught up, since it cannot be mirrored: {why}",
                    link.name
                ));
            }
        }
        Ok(looked?)
    }

    fn state(&self, behind: &Vec<Behind>) -> State {
        if behind.is_empty() {
            return State::Done;
        }
        if behind.iter().all(|b| b.never) {
            return State::Never;
        }
        let offsets: i64 = behind.iter().filter_map(|b| b.offsets).sum();
        // What has a reason is worth more than what just goes on.
        let first = behind.iter().find(|b| b.why.is_some());
        let why = first.map_or_else(String::new, |b| {
            format!("; {}: {}", b.flow, b.why.as_deref().unwrap_or_default())
        });
        State::Open(format!(
            "{} of {} behind, {offsets} offsets to go{why}",
            behind.len(),
            count(self.goal.partitions(), "partition", "partitions"),
        ))
    }
}

fn at(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.0}"))
}

/// How the records stand in the end.
struct End<'a> {
    link: &'a LinkConfig,
    goal: &'a CatchUp,
    behind: Option<&'a [Behind]>,
    trouble: Option<&'a str>,
}

impl End<'_> {
    fn text(&self) -> String {
        let mut out = format!("link {}\n", self.link.name);
        // Writing to a String cannot fail.
        if let Some(behind) = self.behind {
            self.table(&mut out, behind);
        }
        if let Some(why) = self.trouble {
            let _ = writeln!(out, "not known in the end: {why}");
        }
        let open = self.goal.open_transactions();
        if open > 0 {
            let _ = writeln!(
                out,
                "transactions are open in {} there: what is in them follows when they are committed",
                count(open, "partition", "partitions")
            );
        }
        out
    }

    fn table(&self, out: &mut String, behind: &[Behind]) {
        let partitions = count(self.goal.partitions(), "partition", "partitions");
        let stood = at(self.goal.as_of_ms());
        let stood = format!("cluster {} as it stood at {stood}", self.link.source);
        if behind.is_empty() {
            let _ = writeln!(out, "caught up: {partitions}, with {stood}");
            return;
        }
        let _ = writeln!(
            out,
            "not caught up: {} of {partitions}, with {stood}",
            behind.len()
        );
        let mut lines = vec![["BEHIND", "OFFSETS", "WHY"].map(str::to_owned)];
        lines.extend(behind.iter().take(SHOWN).map(|b| {
            let offsets = b.offsets.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let why = b.why.clone().unwrap_or_default();
            [b.flow.to_string(), offsets, why]
        }));
        aligned(out, &lines, 1..=1);
        if behind.len() > SHOWN {
            let _ = writeln!(out, "and {} more", behind.len() - SHOWN);
        }
    }

    fn json(&self) -> String {
        let null = || "null".to_owned();
        let rows = |behind: &[Behind]| {
            let rows: Vec<String> = behind
                .iter()
                .map(|b| {
                    format!(
                        "{{\"topic\":{},\"partition\":{},\"offsets\":{},\"why\":{},\"never\":{}}}",
                        quoted(&b.flow.topic),
                        b.flow.partition,
                        b.offsets.map_or_else(null, |n| n.to_string()),
                        b.why.as_deref().map_or_else(null, quoted),
                        b.never
                    )
                })
                .collect();
            format!("[{}]", rows.join(","))
        };
        let as_of = match self.goal.begun() {
            true => self.goal.as_of_ms().to_string(),
            false => null(),
        };
        format!(
            "{{\"link\":{},\"caught_up\":{},\"as_of_ms\":{as_of},\"trouble\":{},\"partitions\":{},\"open_transactions\":{},\"behind\":{}}}",
            quoted(&self.link.name),
            self.behind.is_some_and(<[Behind]>::is_empty),
            self.trouble.map_or_else(null, quoted),
            self.goal.partitions(),
            self.goal.open_transactions(),
            self.behind.map_or_else(null, rows)
        )
    }
}
