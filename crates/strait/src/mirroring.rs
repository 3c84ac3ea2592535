//! What the admin server's endpoints for mirroring do: the links of this process, and what is stored on their targets.

use std::sync::Arc;
use std::time::Duration;

use strait_admin::{Answer, Caller, LinkName, Mirroring, Refusal};
use strait_config::{Config, LinkConfig, Pattern, read_includes};
use strait_mirror::{SelectionError, Selections, StoredSelections};
use strait_net::Runtime;
use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::serve::{cluster, patience};
use crate::standing::ActiveTopics;

/// How long a call waits for the target.
const PATIENCE: Duration = Duration::from_secs(20);

/// The links of this process, each with what is stored for it, read over connections of its own.
pub(crate) struct Links {
    rt: Runtime,
    links: Vec<OneSelection>,
    selections: Selections,
    active: ActiveTopics,
}

#[derive(Clone)]
struct OneSelection {
    link: LinkConfig,
    stored: Arc<Mutex<StoredSelections>>,
}

impl Links {
    pub(crate) fn new(
        rt: &Runtime,
        config: &Config,
        selections: Selections,
        active: ActiveTopics,
    ) -> Self {
        let one = |link: &LinkConfig| {
            let target = config.clusters.get(&link.target)?;
            let target = cluster(rt, target, patience(config, target));
            Some(OneSelection {
                link: link.clone(),
                stored: Arc::new(Mutex::new(StoredSelections::new(rt.clone(), target))),
            })
        };
        Self {
            rt: rt.clone(),
            links: config.links.iter().filter_map(one).collect(),
            selections,
            active,
        }
    }

    fn one(&self, link: &str) -> Result<OneSelection, Refusal> {
        let found = self.links.iter().find(|one| one.link.name == link);
        found
            .cloned()
            .ok_or_else(|| Refusal::Invalid(format!("no link {link} runs here")))
    }

    /// Does the work to its end, however long whoever asked for it waits.
    async fn finish(
        &self,
        work: impl Future<Output = Result<Vec<String>, Refusal>> + Send + 'static,
        overdue: &str,
    ) -> Result<Vec<String>, Refusal> {
        let ended = |cause| Refusal::Unavailable(format!("the work ended: {cause}"));
        tokio::select! {
            biased;
            done = self.rt.spawn(work) => done.unwrap_or_else(|cause| Err(ended(cause))),
            () = self.rt.sleep(PATIENCE) => Err(Refusal::Unavailable(format!(
                "the target did not answer within {} s: {overdue}", PATIENCE.as_secs()
            ))),
        }
    }
}

impl Mirroring for Links {
    fn links(&self) -> Vec<LinkName> {
        let name = |one: &OneSelection| LinkName {
            name: one.link.name.clone(),
            source: one.link.source.clone(),
        };
        self.links.iter().map(name).collect()
    }

    fn selection<'a>(&'a self, link: &'a str) -> Answer<'a> {
        Box::pin(async move {
            let one = self.one(link)?;
            self.finish(one.read(), "ask again later").await
        })
    }

    fn select<'a>(&'a self, link: &'a str, includes: Vec<String>, by: Caller) -> Answer<'a> {
        Box::pin(async move {
            let one = self.one(link)?;
            let patterns = read_includes(&includes).map_err(Refusal::Invalid)?;
            let topics = one.link.topics.with_includes(patterns.clone());
            if let Some(problem) = self.selections.problem(link, &topics) {
                return Err(Refusal::Invalid(problem));
            }
            let overdue = "the selection may have been stored all the same; ask for it";
            self.finish(one.write(patterns, by), overdue).await
        })
    }

    fn active_topics(&self, link: &str) -> Vec<String> {
        self.active.of(link).to_vec()
    }
}

impl OneSelection {
    async fn read(self) -> Result<Vec<String>, Refusal> {
        let mut stored = self.stored.lock().await;
        stored.refresh().await.map_err(unavailable)?;
        self.includes(&stored).map_err(unavailable)
    }

    async fn write(self, patterns: Vec<Pattern>, by: Caller) -> Result<Vec<String>, Refusal> {
        let mut stored = self.stored.lock().await;
        stored.refresh().await.map_err(unavailable)?;
        let before = match self.includes(&stored) {
            Ok(before) => before.join(","),
            Err(error) => error.to_string(),
        };
        let (link, incident) = (&self.link.name, &by.incident);
        let wanted: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        let wanted = wanted.join(",");
        if let Err(error) = stored.store(&self.link, Some(&patterns)).await {
            warn!(
                link = %link, id = "selection-unwritten", role = %by.role, peer = %by.peer, incident = %incident, before = %before, after = %wanted,
                "a selection of topics sent over HTTP could not be stored, or it is not known whether it was: {error}"
            );
            return Err(unavailable(error));
        }
        info!(
            link = %link, role = %by.role, peer = %by.peer, incident = %incident, before = %before, after = %wanted,
            "the selection of topics was replaced over HTTP"
        );
        self.includes(&stored).map_err(unavailable)
    }

    /// What holds: the stored patterns, else the file's.
    fn includes(&self, stored: &StoredSelections) -> Result<Vec<String>, SelectionError> {
        let found = stored.get(&self.link.name)?;
        Ok(found.map_or_else(|| self.link.topics.includes(), |s| s.includes.clone()))
    }
}

fn unavailable(error: SelectionError) -> Refusal {
    Refusal::Unavailable(format!("{error} (id={})", error.id()))
}
