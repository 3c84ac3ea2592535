//! What MirrorMaker 2 left on the target, for links that go on where it stopped.

use std::fmt::Write as _;

use crate::error::Problem;
use crate::mm2_keys::{OFFSETS_TOPIC, WORKER_GROUP};
use crate::naming::check_topic_name;
use crate::properties::{Entry, Properties};
use crate::render::quoted;
use crate::table::{Field, Reader, Table};

/// Where MirrorMaker 2 kept its position, and how to see that it has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The topic on the target in which Connect keeps the offsets of sources (`offset.storage.topic`). `None`: nothing is
    /// taken over.
    pub offsets_topic: Option<String>,
    /// Connect's group on the target (`group.id`), which has members for as long as MirrorMaker 2 runs. `None`: somebody
    /// else sees to it that it does not.
    pub group: Option<String>,
}

impl Takeover {
    /// As MirrorMaker 2 names them in its dedicated mode (`MirrorMakerConfig.workerConfig`) for flows from `source`.
    pub fn from(source: &str) -> Self {
        Self {
            offsets_topic: Some(format!("mm2-offsets.{source}.internal")),
            group: Some(format!("{source}-mm2")),
        }
    }
}

fn of_workers(properties: &Properties, source: &str, target: &str) -> Result<Takeover, Problem> {
    let mut takeover = Takeover::from(source);
    let of_cluster = |key: &str| properties.get(&format!("{target}.{key}"));
    let topic = properties.get(OFFSETS_TOPIC);
    if let Some(entry) = topic.or_else(|| of_cluster(OFFSETS_TOPIC)) {
        check_topic_name(&entry.value).map_err(|why| {
            let instead = "Write the name of the topic that MirrorMaker 2 used";
            Problem::at(Some(entry.line), entry.key.clone(), why, instead).with_value(&entry.value)
        })?;
        takeover.offsets_topic = Some(entry.value.clone());
    }
    if let Some(entry) = of_cluster(WORKER_GROUP).filter(|entry| !entry.value.is_empty()) {
        takeover.group = Some(entry.value.clone());
    }
    Ok(takeover)
}

/// What a MirrorMaker 2 file tells of the workers that ran it, and whether syncs are written on the source too.
pub(crate) fn of_file(
    properties: &Properties,
    (source, target): (&str, &str),
    location: Option<Entry>,
) -> Result<(Takeover, bool), Problem> {
    let takeover = of_workers(properties, source, target)?;
    let on_source = location.as_ref().map_or(Ok(false), on_source)?;
    Ok((takeover, on_source))
}

fn on_source(location: &Entry) -> Result<bool, Problem> {
    match location.value.as_str() {
        "source" => Ok(true),
        "target" => Ok(false),
        _ => {
            let why = "this is not one of its values";
            let key = location.key.clone();
            let problem = Problem::at(Some(location.line), key, why, "Write source or target");
            Err(problem.with_value(&location.value))
        }
    }
}

/// The keys of a TOML link.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_, '_>,
    source: &str,
) -> Option<Takeover> {
    let mut takeover = Takeover::from(source);
    if let Some(field) = table.field(reader, "takeover-offsets-topic") {
        takeover.offsets_topic = match field.string(reader, "a topic's name, or \"off\"")? {
            "off" => None,
            name => {
                if let Err(why) = check_topic_name(name) {
                    refuse(
                        reader,
                        &field,
                        why,
                        "Write the name of Connect's offset.storage.topic, or \"off\"",
                    );
                    return None;
                }
                Some(name.to_owned())
            }
        };
    }
    if let Some(field) = table.field(reader, "takeover-group") {
        takeover.group = match field.string(reader, "a group's name, or \"off\"")? {
            "off" => None,
            "" => {
                refuse(
                    reader,
                    &field,
                    "no group has an empty name".to_owned(),
                    "Write Connect's group.id, or \"off\"",
                );
                return None;
            }
            name => Some(name.to_owned()),
        };
    }
    Some(takeover)
}

fn refuse(reader: &mut Reader<'_>, field: &Field<'_, '_>, why: String, instead: &str) {
    reader.problems.push(field.problem(why, instead));
}

/// The keys of a TOML link, written out.
pub(crate) fn write(out: &mut String, takeover: &Takeover) -> std::fmt::Result {
    let text = |value: &Option<String>| quoted(value.as_deref().unwrap_or("off"));
    writeln!(
        out,
        "takeover-offsets-topic = {}",
        text(&takeover.offsets_topic)
    )?;
    writeln!(out, "takeover-group = {}", text(&takeover.group))
}
