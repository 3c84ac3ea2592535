//! `strait status`: what a link has left behind on its target.

use std::fmt::Write as _;

use strait_config::{Config, LinkConfig};
use strait_mirror::{GoneTopic, gone_topics};

use crate::args::StatusArgs;
use crate::exit::Exit;
use crate::gaps::{aligned, quoted};
use crate::links::{self, size};

/// Prints the topics whose source is gone to stdout.
pub(crate) fn status(args: &StatusArgs) -> Exit {
    let (config, chosen) = match links::read(&args.file, args.link.as_deref()) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let looked = links::look(&config, &chosen, async |rt, link, source, target| {
        gone_topics(rt, link, &source, &target).await
    });
    let found = match looked {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let told: Vec<String> = chosen
        .iter()
        .zip(&found)
        .map(|(link, gone)| match args.json {
            true => json(&config, link, gone),
            false => text(&config, link, gone),
        })
        .collect();
    let whole = match args.json {
        true => format!("[{}]\n", told.join(",")),
        false => told.join("\n"),
    };
    links::print(&whole, Exit::Ok)
}

fn text(config: &Config, link: &LinkConfig, gone: &[GoneTopic]) -> String {
    let mut out = format!("link {}\n", link.name);
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

fn json(config: &Config, link: &LinkConfig, gone: &[GoneTopic]) -> String {
    let topics: Vec<String> = gone
        .iter()
        .map(|topic| {
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
    format!(
        "{{\"link\":{},\"source_gone\":[{}]}}",
        quoted(&link.name),
        topics.join(",")
    )
}
