//! `strait wait drained`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use strait_config::{LinkConfig, Pattern};
use strait_mirror::{Unread, UnreadTopic, Untold};
use strait_net::Cluster;

use super::waiting::{Look, Seen, State, Trouble, Waiting};
use crate::exit::Exit;
use crate::gaps::quoted;
use crate::unread::{unread_json, unread_table, unread_text};

/// Groups that a line names.
const NAMED: usize = 3;

/// How the link's groups stand in the end, as text or JSON, and the exit code for that.
pub(super) async fn wait(
    mut waiting: Waiting<'_>,
    link: &LinkConfig,
    target: Cluster,
    (topics, groups): (&[Pattern], &[String]),
    json: bool,
) -> (String, Exit) {
    let mut reading = Reading {
        link,
        unread: Unread::new(waiting.rt, link, target, topics, groups),
        of_such_a_name: match topics.is_empty() {
            true => "",
            false => " of such a name",
        },
    };
    let seen = waiting.until(&mut reading).await;
    let text = match json {
        true => json_of(link, &seen, reading.unread.deleted()),
        false => text_of(link, &seen, reading.unread.deleted()),
    };
    (text, seen.exit)
}

struct Reading<'a> {
    link: &'a LinkConfig,
    unread: Unread,
    of_such_a_name: &'static str,
}

impl Look for Reading<'_> {
    type Found = (Vec<UnreadTopic>, Vec<Untold>);

    async fn look(&mut self, patience: Duration) -> Result<Self::Found, Trouble> {
        let (left, untold) = self.unread.look(patience).await?;
        let target = &self.link.target;
        let none = self.unread.topics().is_some_and(|topics| topics.is_empty());
        if none && untold.is_empty() {
            return Err(Trouble::nothing(match self.unread.deleted().is_empty() {
                true => format!(
                    "it has mirrored no topic{} to cluster {target}: there is nothing to wait for",
                    self.of_such_a_name
                ),
                false => format!(
                    "what was left was deleted on cluster {target} since this began: there is nothing to wait for any more"
                ),
            }));
        }
        if left.is_empty() && untold.is_empty() {
            return Err(Trouble::nothing(format!(
                "no consumer group on cluster {target} has committed offsets of these topics; name those that shall read them with --group"
            )));
        }
        Ok((left, untold))
    }

    fn state(&self, (left, untold): &Self::Found) -> State {
        let rest: Vec<&UnreadTopic> = left.iter().filter(|u| u.left.records > 0).collect();
        if rest.is_empty() && untold.is_empty() {
            return State::Done;
        }
        // Who cannot be asked cannot be said to have read it.
        if rest.is_empty() && !untold.iter().any(Untold::passes) {
            return State::Never;
        }
        let mut told: Vec<String> = rest.iter().take(NAMED).map(|u| unread_text(u)).collect();
        if rest.len() > NAMED {
            let more: i64 = rest.iter().skip(NAMED).map(|u| u.left.records).sum();
            told.push(format!("{} more have {more}", rest.len() - NAMED));
        }
        told.extend(untold.first().map(ToString::to_string));
        State::Open(told.join("; "))
    }
}

fn text_of(
    link: &LinkConfig,
    seen: &Seen<(Vec<UnreadTopic>, Vec<Untold>)>,
    deleted: &BTreeSet<String>,
) -> String {
    let mut out = format!("link {}\n", link.name);
    // Writing to a String cannot fail.
    if let Some((left, untold)) = &seen.found {
        out.push_str(match seen.exit {
            Exit::Ok => "drained: the topics' own records may be read\n",
            _ => "not drained\n",
        });
        unread_table(&mut out, left);
        for one in untold {
            let _ = writeln!(out, "{one}");
        }
    }
    for topic in deleted {
        let _ = writeln!(
            out,
            "topic {topic} was deleted on cluster {} since this began: it does not count any more",
            link.target
        );
    }
    if let Some(why) = &seen.trouble {
        let _ = writeln!(out, "not known in the end: {why}");
    }
    out
}

fn json_of(
    link: &LinkConfig,
    seen: &Seen<(Vec<UnreadTopic>, Vec<Untold>)>,
    deleted: &BTreeSet<String>,
) -> String {
    let mut unknown = Vec::new();
    let mut groups = "null".to_owned();
    if let Some((left, untold)) = &seen.found {
        groups = unread_json(left);
        unknown.extend(untold.iter().map(ToString::to_string));
    }
    unknown.extend(seen.trouble.clone());
    let unknown: Vec<String> = unknown.iter().map(|why| quoted(why)).collect();
    let deleted: Vec<String> = deleted.iter().map(|topic| quoted(topic)).collect();
    let deleted = match deleted.is_empty() {
        true => String::new(),
        false => format!("\"deleted\":[{}],", deleted.join(",")),
    };
    format!(
        "{{\"link\":{},\"drained\":{},{deleted}\"unknown\":[{}],\"groups\":{groups}}}",
        quoted(&link.name),
        seen.exit == Exit::Ok,
        unknown.join(",")
    )
}
