//! `strait status`: what a link has left behind on its target, and what groups have not read of it.

use std::fmt::Write as _;
use std::time::Duration;

use strait_config::{Config, LinkConfig};
use strait_mirror::{GoneTopic, MirrorError, Unread, UnreadTopic, Why, gone_topics};
use strait_net::{Cluster, KafkaError, Runtime};

use crate::exit::Exit;
use crate::gaps::{aligned, quoted};
use crate::links::{self, OfLinks, size, unanswered};
use crate::output::complain;
use crate::serve::exit_for;
use crate::unread::{unread_json, unread_table};

/// How long one of the two questions may take: a broker that hangs is named rather than waited for.
const LIMIT: Duration = Duration::from_secs(45);
/// And how long the target's brokers have to tell where their logs end.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is told of who did not answer has waited for at least so long.
const LATE: Duration = Duration::from_secs(1);

/// What is known of one link; what is not was told, with the exit code that it ends with.
struct Standing {
    unread: Option<Vec<UnreadTopic>>,
    gone: Option<Vec<GoneTopic>>,
    exit: Exit,
}

/// What is asked of one link, and what cannot be told.
struct Asking<'a> {
    rt: &'a Runtime,
    link: &'a LinkConfig,
    exit: Exit,
}

impl Asking<'_> {
    /// The answer, if it comes in time.
    async fn within<T>(
        &self,
        clusters: &[Cluster],
        asking: impl Future<Output = Result<T, MirrorError>>,
    ) -> Result<T, (String, Exit)> {
        tokio::select! {
            biased;
            answer = asking => answer.map_err(|error| {
                let exit = exit_for(&error);
                (format!("{error} (id={})", error.id()), exit)
            }),
            () = self.rt.sleep(LIMIT) => {
                let why = unanswered(clusters, LATE);
                let why = why.unwrap_or_else(|| "there was too much to read".to_owned());
                Err((format!("{why}; given up after {} s", LIMIT.as_secs()), Exit::Unreachable))
            }
        }
    }

    fn untold(&mut self, what: &str, (why, exit): (String, Exit)) {
        complain(format_args!(
            "link {}: {what} cannot be told: {why}",
            self.link.name
        ));
        if self.exit == Exit::Ok {
            self.exit = exit;
        }
    }
}

/// Prints what groups have left to read, and the topics whose source is gone, to stdout. One of them does without the
/// source, which may be lost; both are asked for side by side.
pub(crate) fn status(of: &OfLinks) -> Exit {
    let (config, chosen) = match links::read(of) {
        Ok(read) => read,
        Err(exit) => return exit,
    };
    let looked = links::look(&config, &chosen, async |rt, link, source, target| {
        let mut asking = Asking {
            rt,
            link,
            exit: Exit::Ok,
        };
        let both = [source.clone(), target.clone()];
        let mut reading = Unread::new(rt, link, target.clone(), &[], &[]);
        let (unread, gone) = tokio::join!(
            asking.within(&both[1..], reading.look(PATIENCE)),
            asking.within(&both, gone_topics(rt, link, &source, &target))
        );
        let unread = match unread {
            Ok((unread, untold)) => {
                for one in untold {
                    let exit = match &one.why {
                        // It was deleted: nobody has anything to read of it.
                        Why::Net(error)
                            if error.code() == Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION) =>
                        {
                            continue;
                        }
                        Why::Net(error) => exit_for(&MirrorError::from(error.clone())),
                        Why::Unfinished | Why::Unreadable(_) => Exit::Failed,
                    };
                    asking.untold(&one.what, (one.why.to_string(), exit));
                }
                Some(unread)
            }
            Err(why) => {
                asking.untold("what consumer groups have left to read", why);
                None
            }
        };
        let gone = match gone {
            Ok(gone) => Some(gone),
            Err(why) => {
                asking.untold("whether the source of a topic is gone", why);
                None
            }
        };
        let exit = asking.exit;
        Ok(Standing { unread, gone, exit })
    });
    let (found, exit) = match looked {
        Ok(looked) => looked,
        Err(exit) => return exit,
    };
    let exits = found.iter().map(|(_, one)| one.exit);
    let ended = exits.chain([exit]).find(|e| *e != Exit::Ok);
    let told: Vec<String> = found
        .iter()
        .map(|(link, standing)| match of.json {
            true => json(&config, link, standing),
            false => text(&config, link, standing),
        })
        .collect();
    let whole = match of.json {
        true => format!("[{}]\n", told.join(",")),
        false => told.join("\n"),
    };
    links::print(&whole, ended.unwrap_or(Exit::Ok))
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
