//! `strait wait caught-up --groups`: what consumer groups have read, behind the records.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use strait_config::LinkConfig;
use strait_engine::FlowKey;
use strait_mirror::{Carried, GroupBehind, Untold};
use strait_net::Cluster;

use super::caught_up::SHOWN;
use super::waiting::{Look, Seen, State, Trouble, Waiting};
use crate::exit::Exit;
use crate::gaps::quoted;
use crate::unread::count;

/// What is told of the link's groups in the end, behind what is told of its records, and the exit code for that.
pub(super) async fn wait(
    waiting: &mut Waiting<'_>,
    link: &LinkConfig,
    clusters: (Cluster, Cluster),
    flows: BTreeSet<FlowKey>,
    json: bool,
) -> (String, Exit) {
    let mut groups = Groups(Carried::new(waiting.rt, link, clusters, flows));
    let seen = waiting.until(&mut groups).await;
    let text = match json {
        true => json_of(&groups.0, &seen),
        false => text_of(&groups.0, &seen),
    };
    (text, seen.exit)
}

struct Groups(Carried);

impl Look for Groups {
    type Found = (Vec<GroupBehind>, Vec<Untold>);

    async fn look(&mut self, _: Duration) -> Result<Self::Found, Trouble> {
        Ok(self.0.look().await?)
    }

    fn state(&self, (left, untold): &Self::Found) -> State {
        if left.is_empty() && untold.is_empty() {
            return State::Done;
        }
        // Who cannot be asked cannot be said to stand where it should.
        if left.is_empty() && !untold.iter().any(Untold::passes) {
            return State::Never;
        }
        let first = left.first().map(behind_text);
        let first = first
            .into_iter()
            .chain(untold.first().map(ToString::to_string));
        let first: Vec<String> = first.collect();
        let waits = count(left.len(), "commit", "commits");
        State::Open(format!("{waits} of groups to go; {}", first.join("; ")))
    }
}

/// `billing stands at 40 in orders.A-0 and belongs at 75`.
fn behind_text(behind: &GroupBehind) -> String {
    let stands = behind.stands.map_or_else(
        || "is not known".to_owned(),
        |offset| format!("stands at {offset}"),
    );
    let kind = if behind.share { "share group " } else { "" };
    format!(
        "{kind}{} {stands} in {}-{} and belongs at {}",
        behind.group, behind.topic, behind.partition, behind.belongs
    )
}

fn text_of(carried: &Carried, seen: &Seen<(Vec<GroupBehind>, Vec<Untold>)>) -> String {
    let mut text = String::new();
    let groups = count(carried.groups(), "group", "groups");
    // Writing to a String cannot fail.
    if let Some((left, untold)) = &seen.found {
        let _ = match left.is_empty() && untold.is_empty() {
            true => writeln!(text, "committed there too: the offsets of {groups}"),
            false => writeln!(text, "not committed there yet, of {groups}:"),
        };
        let lines = left.iter().map(behind_text);
        let lines = lines.chain(untold.iter().map(ToString::to_string));
        for line in lines.take(SHOWN) {
            let _ = writeln!(text, "{line}");
        }
        let all = left.len() + untold.len();
        if all > SHOWN {
            let _ = writeln!(text, "and {} more", all - SHOWN);
        }
    }
    if !carried.unserved().is_empty() {
        let names: Vec<&str> = carried.unserved().iter().map(String::as_str).collect();
        let _ = writeln!(
            text,
            "share groups not waited for, as one of the clusters lacks the API for where they begin: {}",
            names.join(", ")
        );
    }
    if let Some(why) = &seen.trouble {
        let _ = writeln!(text, "not known of groups in the end: {why}");
    }
    text
}

/// Fields and the end of the object.
fn json_of(carried: &Carried, seen: &Seen<(Vec<GroupBehind>, Vec<Untold>)>) -> String {
    let null = || "null".to_owned();
    let rows = |left: &[GroupBehind]| {
        let rows: Vec<String> = left
            .iter()
            .map(|one| {
                let share = if one.share { "\"share\":true," } else { "" };
                format!(
                    "{{\"group\":{},{share}\"topic\":{},\"partition\":{},\"stands\":{},\"belongs\":{}}}",
                    quoted(&one.group),
                    quoted(&one.topic),
                    one.partition,
                    one.stands.map_or_else(null, |n| n.to_string()),
                    one.belongs
                )
            })
            .collect();
        format!("[{}]", rows.join(","))
    };
    let (mut left, mut unknown) = (null(), Vec::new());
    if let Some((behind, untold)) = &seen.found {
        left = rows(behind);
        unknown.extend(untold.iter().map(ToString::to_string));
    }
    unknown.extend(seen.trouble.clone());
    let unknown: Vec<String> = unknown.iter().map(|why| quoted(why)).collect();
    let unserved = carried.unserved();
    let names: Vec<String> = unserved.iter().map(|name| quoted(name)).collect();
    let unserved = match names.is_empty() {
        true => String::new(),
        false => format!(",\"share_groups_left_out\":[{}]", names.join(",")),
    };
    format!(
        ",\"groups\":{},\"groups_unknown\":[{}]{unserved},\"groups_behind\":{left}}}",
        carried.groups(),
        unknown.join(",")
    )
}
