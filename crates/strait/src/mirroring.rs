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

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;

    use strait_admin::Role;
    use strait_net::World;
    use strait_testkit::{Broker, BrokerConfig, Fault, Rule};
    use tokio::io::DuplexStream;

    use super::*;

    /// The network has the target's broker.
    struct Only(Broker);

    impl World for Only {
        fn connect(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
            let found = self.0.at_address(host, port);
            found.ok_or(io::ErrorKind::NotFound)?.connect()
        }

        fn wall_ms(&self) -> i64 {
            BrokerConfig::SIMULATED_START_MS
        }
    }

    fn links(rt: &Runtime) -> Links {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("strait.toml");
        let toml = "[clusters]\na = \"a:9092\"\nb = \"b:9092\"\n[[links]]\nsource = \"a\"\ntarget = \"b\"\ntopics = [\"orders\"]\n";
        std::fs::write(&file, toml).unwrap();
        let config = strait_config::load(&file).unwrap();
        let selections = Selections::new(config.clone());
        Links::new(rt, &config, selections, ActiveTopics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_is_not_kept_waiting_by_a_target_that_hangs() {
        let broker = Broker::new(BrokerConfig::simulated("b"));
        let rt = Runtime::simulated(Arc::new(Only(broker.clone())), 1);
        let links = links(&rt);
        let by = || Caller {
            role: Role::Manager,
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            incident: "x".to_owned(),
        };
        let want = |topic: &str| vec![topic.to_owned()];
        let stored = links.select("a->b", want("invoices"), by()).await;
        assert_eq!(stored, Ok(want("invoices")));

        broker.pause();
        let late = |why: &str| {
            Err(Refusal::Unavailable(format!(
                "the target did not answer within 20 s: {why}"
            )))
        };
        let asked = rt.now();
        let read = links.selection("a->b").await;
        assert_eq!(read, late("ask again later"));
        assert_eq!(rt.now() - asked, Duration::from_secs(20));
        broker.resume();
        let mut left = 100;
        while links.selection("a->b").await != Ok(want("invoices")) {
            left -= 1;
            assert!(left > 0, "nothing is answered any more");
            rt.sleep(Duration::from_secs(1)).await;
        }

        // What was begun is done all the same.
        let list_offsets = 2;
        let slow = Rule::on(list_offsets, Fault::Delay(Duration::from_secs(12)));
        broker.faults().add(slow.times(2));
        let asked = rt.now();
        let stored = links.select("a->b", want("bills"), by()).await;
        let overdue = "the selection may have been stored all the same; ask for it";
        assert_eq!(stored, late(overdue));
        assert_eq!(rt.now() - asked, Duration::from_secs(20));
        rt.sleep(Duration::from_secs(30)).await;
        assert_eq!(links.selection("a->b").await, Ok(want("bills")));
    }
}
