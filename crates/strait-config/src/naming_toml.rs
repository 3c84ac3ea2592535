//! The keys of a link that say what its topics are called on the target, and whose records go there.

use std::collections::BTreeMap;

use crate::model::{Forward, LinkConfig, Policy};
use crate::naming::{DEFAULT_SEPARATOR, Naming, Template, check_topic_name, names_source};
use crate::nearest::nearest;
use crate::table::{Reader, Table};
use crate::toml_file::read_choice;

const KINDS: [&str; 3] = ["default", "suffix", "identity"];
const EXAMPLE: &str =
    "\"default\", \"suffix\", \"identity\" or a template such as \"dr.{source}.{topic}\"";

pub(crate) fn read_naming(reader: &mut Reader<'_>, table: &Table<'_, '_>) -> Option<Naming> {
    let separator = table.field(reader, "separator");
    let kind = match table.field(reader, "naming") {
        None => "default",
        Some(field) => {
            let text = field.string(reader, EXAMPLE)?;
            let own = if KINDS.contains(&text) {
                None
            } else if text.contains('{') {
                match Template::new(text) {
                    Ok(template) => Some(Naming::Template(template)),
                    Err(why) => {
                        let problem = field.problem(why, format!("Write {EXAMPLE}"));
                        reader.problems.push(problem);
                        return None;
                    }
                }
            } else {
                let instead = match nearest(text, KINDS) {
                    Some(meant) => format!("Did you mean \"{meant}\"?"),
                    None => format!("Write {EXAMPLE}"),
                };
                let problem = field.problem("this is not one of its values", instead);
                reader.problems.push(problem);
                return None;
            };
            match (own, text) {
                (Some(own), _) => {
                    let why = "a template has its separators in it";
                    refuse_separator(reader, table, why);
                    return Some(own);
                }
                (None, "identity") => return Some(Naming::Identity),
                (None, kind) => kind,
            }
        }
    };
    let separator = match separator {
        None => DEFAULT_SEPARATOR.to_owned(),
        Some(field) => {
            let text = field.string(reader, "separator = \".\"")?;
            if let Err((why, instead)) = check_separator(text) {
                reader.problems.push(field.problem(why, instead));
                return None;
            }
            text.to_owned()
        }
    };
    Some(match kind {
        "suffix" => Naming::Suffix { separator },
        _ => Naming::Default { separator },
    })
}

fn refuse_separator(reader: &mut Reader<'_>, table: &Table<'_, '_>, why: &str) {
    if let Some(field) = table.field(reader, "separator") {
        let instead = "Leave out separator, or write naming = \"default\"";
        reader.problems.push(field.problem(why, instead));
    }
}

/// `names = { "orders" = "orders-of-paris" }`.
pub(crate) fn read_names(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
) -> Option<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    let Some(field) = table.field(reader, "names") else {
        return Some(names);
    };
    let example = "names = { \"orders\" = \"orders-of-paris\" }";
    let entries = field.table(reader, example)?;
    // Every topic is a key of its own making, so none is unknown.
    let pairs = Table::open_any(&field.key, Some(field.line), entries);
    let before = reader.problems.len();
    for key in entries.keys() {
        let topic: &str = key.get_ref();
        let Some(entry) = pairs.field(reader, topic) else {
            continue;
        };
        let Some(name) = entry.string(reader, example) else {
            continue;
        };
        let twin = names.iter().find(|(_, other)| *other == name);
        let problem = match (check_topic_name(topic), check_topic_name(name), twin) {
            (Err(why), ..) => Some((format!("the source topic: {why}"), example.to_owned())),
            (_, Err(why), _) => {
                Some((format!("the name on the target: {why}"), example.to_owned()))
            }
            (.., Some((other, _))) => Some((
                format!(
                    "the topic {other:?} goes to {name:?} too, and two source topics cannot share a target topic within one link"
                ),
                "Give each a name of its own".to_owned(),
            )),
            _ => None,
        };
        match problem {
            Some((why, instead)) => reader.problems.push(entry.problem(why, instead)),
            None => {
                names.insert(topic.to_owned(), name.to_owned());
            }
        }
    }
    (reader.problems.len() == before).then_some(names)
}

/// `forward = "local"` and what it asks of the link's other keys. Read behind all of them.
pub(crate) fn read_forward(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
    link: &mut LinkConfig,
) -> Option<()> {
    let Some(field) = table.field(reader, "forward") else {
        return check_shared(reader, table, link);
    };
    let all = [Forward::All, Forward::Local];
    link.forward = read_choice(reader, &field, &all, Forward::as_str)?;
    if link.forward == Forward::All {
        return check_shared(reader, table, link);
    }
    let before = reader.problems.len();
    if names_source(&link.naming) {
        let why = "it is for links that go both ways under the same names";
        let instead = "Write naming = \"identity\", or leave out forward";
        reader.problems.push(field.problem(why, instead));
    }
    let policies = &mut link.policies;
    for (key, policy) in [
        ("on-foreign-writer", &mut policies.foreign_writer),
        ("on-target-has-data", &mut policies.target_has_data),
    ] {
        match table.field(reader, key) {
            Some(field) if *policy == Policy::Stop => {
                let why = "with forward = \"local\" applications write to the same topics";
                let instead = format!("Write {key} = \"continue\", or leave it out");
                reader.problems.push(field.problem(why, instead));
            }
            _ => *policy = Policy::GoOn,
        }
    }
    if table.field(reader, "start").is_none() {
        let instead = "With forward = \"local\" both sides may hold records before: write start = \"earliest\" in the link whose source's history the other side is to get, and start = \"latest\" in the other one";
        table.missing(reader, "start", instead);
    }
    (reader.problems.len() == before).then_some(())
}

/// Whoever begins beside the records of others has to go on beside them.
fn check_shared(reader: &mut Reader<'_>, table: &Table<'_, '_>, link: &LinkConfig) -> Option<()> {
    let policies = &link.policies;
    if policies.target_has_data == Policy::Stop || policies.foreign_writer == Policy::GoOn {
        return Some(());
    }
    let field = table.field(reader, "on-target-has-data")?;
    let why = "what the target holds was written by others, and with on-foreign-writer = \"stop\" the flow would stop at their next record";
    let instead = "Write on-foreign-writer = \"continue\" too, or leave this out";
    reader.problems.push(field.problem(why, instead));
    None
}

/// What stands between the parts of MirrorMaker 2's own topics' names: as in mirrored ones where those have its naming.
pub(crate) fn read_internal_separator(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
    naming: &Naming,
) -> Option<String> {
    let Some(field) = table.field(reader, "internal-separator") else {
        return Some(match naming {
            Naming::Default { separator } => separator.clone(),
            _ => DEFAULT_SEPARATOR.to_owned(),
        });
    };
    let text = field.string(reader, "internal-separator = \".\"")?;
    if let Err((why, instead)) = check_internal_separator(text) {
        reader.problems.push(field.problem(why, instead));
        return None;
    }
    Some(text.to_owned())
}

/// `separator` under identity naming, which heartbeats alone have in their names.
pub(crate) fn read_heartbeats_separator(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
) -> Option<Option<String>> {
    let Some(field) = table.field(reader, "separator") else {
        return Some(None);
    };
    let text = field.string(reader, "separator = \".\"")?;
    if let Err((why, instead)) = check_separator(text) {
        reader.problems.push(field.problem(why, instead));
        return None;
    }
    Some(Some(text.to_owned()))
}

/// There may be none in the names of MirrorMaker 2's own topics.
pub(crate) fn check_internal_separator(text: &str) -> Result<(), (String, String)> {
    if text.is_empty() {
        return Ok(());
    }
    check_separator(text)
}

/// A separator becomes part of topic names.
pub(crate) fn check_separator(text: &str) -> Result<(), (String, String)> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=16).contains(&text.len()) && text.chars().all(fits) {
        return Ok(());
    }
    let why = "a separator becomes part of topic names and may have 1 to 16 letters, digits, '.', '_' and '-'";
    Err((
        why.to_owned(),
        format!("Write \"{DEFAULT_SEPARATOR}\", \"_\" or \"-\""),
    ))
}
