//! The links of a configuration file, for commands that look at them and end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use clap::Args;
use strait_config::{Config, LinkConfig};
use strait_mirror::MirrorError;
use strait_net::{Cluster, Runtime};

use crate::exit::Exit;
use crate::output::{Out, complain};
use crate::serve::{cluster, exit_for, patience};

/// How long nothing is told of an answer that does not come, and how long it takes until it is told again.
const SILENT: Duration = Duration::from_secs(5);
/// Answers that do not come, at the most, that are told at once.
const NAMED: usize = 3;

/// Which links of which file, and how to print.
#[derive(Args, Debug)]
pub(crate) struct OfLinks {
    /// TOML, a MirrorMaker 2 properties file, or a Strimzi KafkaMirrorMaker2 (.yaml)
    pub(crate) file: PathBuf,
    /// Only this link
    #[arg(long, value_name = "NAME")]
    pub(crate) link: Option<String>,
    /// One JSON array instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads the file; the links, or the one of this name. What is wrong has been told.
pub(crate) fn read(of: &OfLinks) -> Result<(Config, Vec<LinkConfig>), Exit> {
    let config = strait_config::load(&of.file).map_err(|error| {
        complain(error);
        Exit::Configuration
    })?;
    let named = |link: &&LinkConfig| of.link.as_ref().is_none_or(|name| *name == link.name);
    let chosen: Vec<LinkConfig> = config.links.iter().filter(named).cloned().collect();
    if chosen.is_empty() {
        let names: Vec<&str> = config.links.iter().map(|link| link.name.as_str()).collect();
        complain(format_args!(
            "--link: {} has no such link; it has {}",
            of.file.display(),
            names.join(", ")
        ));
        return Err(Exit::Usage);
    }
    Ok((config, chosen))
}

/// What commands run on that look and end. What is wrong has been told.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|cause| {
        complain(format_args!("cannot start: {cause}"));
        Exit::Failed
    })
}

/// The clusters of a file: links that share one share its connections.
pub(crate) struct Clusters(BTreeMap<String, Cluster>);

impl Clusters {
    /// Nothing is connected before it is asked.
    pub(crate) fn new(rt: &Runtime, config: &Config) -> Self {
        let one = |(alias, found)| {
            let cluster = cluster(rt, found, patience(config, found));
            (String::clone(alias), cluster)
        };
        Self(config.clusters.iter().map(one).collect())
    }

    /// A link's source and target.
    pub(crate) fn of(&self, link: &LinkConfig) -> Option<(Cluster, Cluster)> {
        let (source, target) = (self.0.get(&link.source)?, self.0.get(&link.target)?);
        Some((source.clone(), target.clone()))
    }
}

/// Waits for all of them, each beside the others; what they bring, in their order.
pub(crate) async fn side_by_side<T>(all: impl IntoIterator<Item: Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut open = false;
        for (one, done) in &mut all {
            if done.is_none() {
                match one.as_mut().poll(context) {
                    Poll::Ready(brought) => *done = Some(brought),
                    Poll::Pending => open = true,
                }
            }
        }
        match open {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}

/// What was brought, each with its link, and the exit code for the other links.
type Looked<'a, T> = (Vec<(&'a LinkConfig, T)>, Exit);

/// Looks at each link's source and target, the links side by side, and tells on stderr who does not answer meanwhile; what
/// was brought, in their order. What is wrong with the others has been told; where all of them failed, there is only an exit code.
pub(crate) fn look<'a, T>(
    config: &Config,
    links: &'a [LinkConfig],
    at: impl AsyncFn(&Runtime, &LinkConfig, Cluster, Cluster) -> Result<T, MirrorError>,
) -> Result<Looked<'a, T>, Exit> {
    let runtime = runtime()?;
    let rt = Runtime::system();
    let clusters = Clusters::new(&rt, config);
    let all: Vec<Cluster> = clusters.0.values().cloned().collect();
    let looking = links.iter().filter_map(|link| {
        let (source, target) = clusters.of(link)?;
        let looking = at(&rt, link, source, target);
        Some(async move { (link, looking.await) })
    });
    let looked = runtime.block_on(async {
        let mut looking = pin!(side_by_side(looking));
        loop {
            tokio::select! {
                biased;
                looked = &mut looking => return looked,
                () = rt.sleep(SILENT) => {
                    if let Some(why) = unanswered(&all, SILENT) {
                        complain(format_args!("{why}; waiting for it"));
                    }
                }
            }
        }
    });
    let (mut found, mut exit) = (Vec::new(), Exit::Ok);
    for (link, looked) in looked {
        match looked {
            Ok(brought) => found.push((link, brought)),
            Err(error) => {
                let of = match links.len() {
                    1 => String::new(),
                    _ => format!("link {}: ", link.name),
                };
                complain(format_args!("{of}{error} (id={})", error.id()));
                if exit == Exit::Ok {
                    exit = exit_for(&error);
                }
            }
        }
    }
    match (found.is_empty(), exit) {
        (_, Exit::Ok) | (false, _) => Ok((found, exit)),
        (true, exit) => Err(exit),
    }
}

/// Who has not answered for at least so long, in a few words; none where all do.
pub(crate) fn unanswered(clusters: &[Cluster], least: Duration) -> Option<String> {
    let all = clusters.iter().flat_map(|c| c.unanswered(least));
    let mut told: Vec<String> = Vec::new();
    for one in all {
        // One request of each broker's is enough: it answers them in turn.
        let peer = one.peer().to_string();
        if !told.iter().any(|told| told.starts_with(&peer)) {
            told.push(one.to_string());
        }
    }
    told.truncate(NAMED);
    (!told.is_empty()).then(|| told.join("; "))
}

/// Writes the result to stdout.
pub(crate) fn print(text: &str, done: Exit) -> Exit {
    match Out::stdout().text(text) {
        Ok(()) => done,
        Err(error) => {
            complain(format_args!("stdout cannot be written: {error}"));
            Exit::Failed
        }
    }
}

/// `12 B`, `1.5 KiB`, `3.2 GiB`.
pub(crate) fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).unwrap_or(&"B");
    match unit {
        0 => format!("{value:.0} {name}"),
        _ => format!("{value:.1} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_one_unit() {
        let shown = [0.0, 1_023.0, 1_536.0, 3.0 * 1_073_741_824.0].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }
}
