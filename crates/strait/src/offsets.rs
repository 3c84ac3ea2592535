//! `strait offsets translate`: where an offset of the source stands on the target, also while links run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use strait_config::{Forward, LinkConfig, Policy};
use strait_engine::FlowKey;
use strait_mirror::{Budget, MirrorError, Translated, Translator, committed};
use strait_net::{Cluster, Runtime};

use crate::args::TranslateArgs;
use crate::exit::Exit;
use crate::gaps::{aligned, quoted};
use crate::links;
use crate::output::complain;

/// What may be read of each side's logs to know offsets exactly, for one link.
const BUDGET: u64 = 256 << 20;
/// And for how long.
const TIME: Duration = Duration::from_secs(300);

/// One translated offset.
struct Row {
    link: String,
    flow: FlowKey,
    offset: i64,
    /// Nothing where the partition is not mirrored.
    translated: Option<Translated>,
}

impl Row {
    fn exactness(&self) -> &'static str {
        let translated = self.translated.as_ref();
        translated.map_or("not mirrored", |t| t.exactness.as_str())
    }
}

/// Prints translated offsets to stdout.
pub(crate) fn translate(args: &TranslateArgs) -> Exit {
    let (config, chosen) = match links::read(&args.of) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let shared = |link: &&LinkConfig| link.policies.foreign_writer == Policy::GoOn;
    if let Some(link) = chosen.iter().find(|link| link.forward == Forward::Local) {
        complain(format_args!(
            "link {} has forward = \"local\": applications write to both sides, and where a group goes on on the other one depends on what it has read of each, so that no single offset is translated; its offsets are not translated here, sync-group-offsets = true commits them",
            link.name
        ));
        return Exit::Failed;
    }
    if let Some(link) = chosen.iter().find(shared) {
        complain(format_args!(
            "link {} has on-foreign-writer = \"continue\": others write to its target topics too, so that it cannot be known which of their records a group has read; its offsets are not translated",
            link.name
        ));
        return Exit::Failed;
    }
    let looked = links::look(&config, &chosen, async |rt, link, source, target| {
        read(rt, link, (source, target), args).await
    });
    let (found, exit) = match looked {
        Ok(looked) => looked,
        Err(exit) => return exit,
    };
    let rows: Vec<Row> = found.into_iter().flat_map(|(_, rows)| rows).collect();
    let text = match args.of.json {
        true => json(&rows),
        false if rows.is_empty() && exit != Exit::Ok => {
            "no committed offsets on the clusters that answered\n".to_owned()
        }
        false => table(&rows),
    };
    links::print(&text, exit)
}

async fn read(
    rt: &Runtime,
    link: &LinkConfig,
    (source, target): (Cluster, Cluster),
    args: &TranslateArgs,
) -> Result<Vec<Row>, MirrorError> {
    let mut wanted: BTreeMap<FlowKey, BTreeSet<i64>> = BTreeMap::new();
    if let Some(group) = &args.group {
        for ((topic, partition), committed) in committed(rt, &source, group).await? {
            let flow = FlowKey { topic, partition };
            wanted.entry(flow).or_default().insert(committed.offset);
        }
    } else if let Some(topic) = &args.topic {
        let flow = FlowKey {
            topic: topic.clone(),
            partition: args.partition,
        };
        wanted.insert(flow, args.offset.iter().copied().collect());
    }
    let mut translator = Translator::new(rt, &link.name, source, target)
        .internal_separator(&link.internal_separator);
    translator.refresh().await?;
    let budget = Arc::new(Budget::new(rt, BUDGET, TIME));
    translator.count(wanted.clone(), &budget).await;
    let mut rows = Vec::new();
    for (flow, offsets) in wanted {
        for offset in offsets {
            rows.push(Row {
                link: link.name.clone(),
                flow: flow.clone(),
                offset,
                translated: translator.known(&flow, offset),
            });
        }
    }
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no committed offsets\n".to_owned();
    }
    let head = ["LINK", "SOURCE", "OFFSET", "ON TARGET", "TARGET", "HOW"];
    let mut lines = vec![head.map(str::to_owned)];
    for row in rows {
        let target = row.translated.as_ref();
        let dash = || "-".to_owned();
        lines.push([
            row.link.clone(),
            row.flow.to_string(),
            row.offset.to_string(),
            target.map_or_else(dash, |t| t.offset.to_string()),
            target.map_or_else(dash, |t| format!("{}-{}", t.topic, t.partition)),
            row.exactness().to_owned(),
        ]);
    }
    let mut text = String::new();
    aligned(&mut text, &lines, 2..=3);
    text
}

fn json(rows: &[Row]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|row| {
            let mut line = format!(
                "{{\"link\":{},\"source_topic\":{},\"source_partition\":{},\"source_offset\":{},",
                quoted(&row.link),
                quoted(&row.flow.topic),
                row.flow.partition,
                row.offset
            );
            if let Some(translated) = &row.translated {
                // Writing to a String cannot fail.
                let _ = write!(
                    line,
                    "\"target_topic\":{},\"target_partition\":{},\"target_offset\":{},",
                    quoted(&translated.topic),
                    translated.partition,
                    translated.offset
                );
            }
            let _ = write!(line, "\"how\":{}}}", quoted(row.exactness()));
            line
        })
        .collect();
    format!("[{}]\n", rows.join(","))
}

#[cfg(test)]
mod tests {
    use strait_mirror::Exactness;

    use super::*;

    fn rows() -> Vec<Row> {
        let flow = |partition| FlowKey {
            topic: "orders".to_owned(),
            partition,
        };
        let row = |partition, offset, translated| Row {
            link: "paris->tokyo".to_owned(),
            flow: flow(partition),
            offset,
            translated,
        };
        let translated = |offset, exactness| {
            Some(Translated {
                topic: "paris.orders".to_owned(),
                partition: 0,
                offset,
                exactness,
            })
        };
        vec![
            row(0, 120, translated(98, Exactness::Exact)),
            row(0, 9_000, translated(1_000, Exactness::Ahead)),
            row(7, 5, None),
        ]
    }

    #[test]
    fn people_get_a_table() {
        assert_eq!(
            table(&rows()),
            "LINK          SOURCE    OFFSET  ON TARGET  TARGET          HOW\n\
             paris->tokyo  orders-0     120         98  paris.orders-0  exact\n\
             paris->tokyo  orders-0    9000       1000  paris.orders-0  ahead of mirror\n\
             paris->tokyo  orders-7       5          -  -               not mirrored\n"
        );
        assert_eq!(table(&[]), "no committed offsets\n");
    }

    #[test]
    fn machines_get_the_same() {
        let text = json(&rows());
        assert!(text.starts_with("[{\"link\":\"paris->tokyo\",\"source_topic\":\"orders\",\"source_partition\":0,\"source_offset\":120,\"target_topic\":\"paris.orders\",\"target_partition\":0,\"target_offset\":98,\"how\":\"exact\"},"), "{text}");
        assert!(
            text.ends_with(
                "\"source_partition\":7,\"source_offset\":5,\"how\":\"not mirrored\"}]\n"
            ),
            "{text}"
        );
    }
}
