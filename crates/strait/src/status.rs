//! `strait status`: what a link has left behind on its target, and what groups have not read of it.

use std::fmt::Write as _;

use strait_config::{Config, LinkConfig};
use strait_mirror::{GoneTopic, MirrorError, Unread, UnreadTopic, gone_topics};
use strait_net::{Cluster, NetError, Runtime};

use crate::args::StatusArgs;
use crate::exit::Exit;
use crate::gaps::{aligned, quoted};
use crate::links::{self, size};
use crate::output::complain;
use crate::serve::exit_for;
use crate::wait::{unread_json, unread_table};

/// What is known of one link; what is not was told, with the exit code that it ends with.
struct Standing {
    unread: Option<Vec<UnreadTopic>>,
    gone: Option<Vec<GoneTopic>>,
    exit: Exit,
}

/// Prints what groups have left to read, and the topics whose source is gone, to stdout. One of them does without the
/// source, which may be lost.
pub(crate) fn status(args: &StatusArgs) -> Exit {
    let (config, chosen) = match links::read(&args.file, args.link.as_deref()) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let looked = links::look(&config, &chosen, async |rt, link, source, target| {
        let mut exit = Exit::Ok;
        let mut told = |what: &str, error: &MirrorError| {
            complain(format_args!(
                "link {}: {what} cannot be told: {error} (id={})",
                link.name,
                error.id()
            ));
            if exit == Exit::Ok {
                exit = exit_for(error);
            }
        };
        let unread = match unread(rt, link, target.clone()).await {
            Ok((unread, untold)) => {
                for (group, error) in untold {
                    told(
                        &format!("what group {group} has left to read"),
                        &error.into(),
                    );
                }
                Some(unread)
            }
            Err(error) => {
                told("what consumer groups have left to read", &error);
                None
            }
        };
        let gone = match gone_topics(rt, link, &source, &target).await {
            Ok(gone) => Some(gone),
            Err(error) => {
                told("whether the source of a topic is gone", &error);
                None
            }
        };
        Ok(Standing { unread, gone, exit })
    });
    let found = match looked {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let ended = found.iter().map(|one| one.exit).find(|e| *e != Exit::Ok);
    let told: Vec<String> = chosen
        .iter()
        .zip(&found)
        .map(|(link, standing)| match args.json {
            true => json(&config, link, standing),
            false => text(&config, link, standing),
        })
        .collect();
    let whole = match args.json {
        true => format!("[{}]\n", told.join(",")),
        false => told.join("\n"),
    };
    links::print(&whole, ended.unwrap_or(Exit::Ok))
}

async fn unread(
    rt: &Runtime,
    link: &LinkConfig,
    target: Cluster,
) -> Result<(Vec<UnreadTopic>, Vec<(String, NetError)>), MirrorError> {
    Unread::begin(rt, link, target, &[], &[])
        .await?
        .look()
        .await
}

fn text(config: &Config, link: &LinkConfig, standing: &Standing) -> String {
    let mut out = format!("link {}\n", link.name);
    match standing.unread.as_deref() {
        None => {}
        Some([]) => out.push_str("no group has committed offsets of mirrored topics\n"),
        Some(unread) => unread_table(&mut out, unread),
    }
    let Some(gone) = &standing.gone else {
        return out;
    };
    if gone.is_empty() {
        out.push_str("no topic whose source is gone\n");
        return out;
    }
    let head = [
        "GONE FROM THE SOURCE",
        "ON THE TARGET",
        "PARTITIONS",
        "ON DISK",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(gone.iter().map(|topic| {
        [
            topic.source.clone(),
            topic.target.clone(),
            topic.partitions.to_string(),
            topic
                .bytes
                .map_or_else(|| "?".to_owned(), |bytes| size(bytes as f64)),
        ]
    }));
    aligned(&mut out, &lines, 2..=3);
    out.push_str("\nStrait deletes nothing. Where nobody reads them any more:\n");
    for topic in gone {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", command(config, link, topic));
    }
    out
}

/// The command that deletes the topic and no other: `--topic` takes a regular expression.
fn command(config: &Config, link: &LinkConfig, topic: &GoneTopic) -> String {
    let target = config.clusters.get(&link.target);
    let bootstrap = target.map_or_else(String::new, |cluster| cluster.bootstrap.join(","));
    let secured = target.is_some_and(|cluster| cluster.tls.is_some() || cluster.sasl.is_some());
    let login = match secured {
        true => " --command-config client.properties",
        false => "",
    };
    let exact = topic.target.replace('.', "\\.");
    format!("kafka-topics.sh --bootstrap-server {bootstrap}{login} --delete --topic '{exact}'")
}

fn json(config: &Config, link: &LinkConfig, standing: &Standing) -> String {
    let null = || "null".to_owned();
    let unread = standing.unread.as_deref().map_or_else(null, unread_json);
    let gone = standing.gone.as_ref().map_or_else(null, |gone| {
        let topics: Vec<String> = gone.iter().map(|topic| {
            let bytes = topic
                .bytes
                .map_or_else(|| "null".to_owned(), |bytes| bytes.to_string());
            format!(
                "{{\"source\":{},\"target\":{},\"partitions\":{},\"bytes\":{bytes},\"delete\":{}}}",
                quoted(&topic.source),
                quoted(&topic.target),
                topic.partitions,
                quoted(&command(config, link, topic))
            )
        })
        .collect();
        format!("[{}]", topics.join(","))
    });
    format!(
        "{{\"link\":{},\"groups\":{unread},\"source_gone\":{gone}}}",
        quoted(&link.name)
    )
}
