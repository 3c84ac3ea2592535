//! Which selection of topics a running link obeys: the one stored on the target, else the file's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strait_config::{Config, LinkConfig, TopicSelection, read_includes};
use strait_net::{Cluster, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::selection::{SelectionError, StoredSelection, StoredSelections};

/// How often the end of the registry is looked at: one request.
const POLL: Duration = Duration::from_secs(1);
/// How soon it is looked for where it is not there yet.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// How often it is said that this is in vain.
const REMIND: Duration = Duration::from_secs(60);
/// How long at a start it is not said.
const QUIET: Duration = Duration::from_secs(10);

/// What each link of a process selects, so that none selects what another one writes already.
#[derive(Clone)]
pub struct Selections {
    config: Arc<Config>,
    known: Arc<Mutex<BTreeMap<String, TopicSelection>>>,
}

impl Selections {
    /// For the links of this configuration, none of which selects anything yet.
    pub fn new(config: Config) -> Self {
        Self {
            config: Arc::new(config),
            known: Arc::default(),
        }
    }

    /// Why a link cannot select these topics beside what the others of the process select now, if so.
    pub fn problem(&self, link: &str, topics: &TopicSelection) -> Option<String> {
        let known = self.lock();
        let others = |name: &str| known.get(name).cloned();
        self.config.selection_problem(link, topics, &others)
    }

    /// From now on the link selects these topics, unless there is a problem with them.
    fn admit(&self, link: &str, topics: &TopicSelection) -> Result<(), String> {
        let mut known = self.lock();
        let others = |name: &str| known.get(name).cloned();
        match self.config.selection_problem(link, topics, &others) {
            Some(problem) => Err(problem),
            None => {
                known.insert(link.to_owned(), topics.clone());
                Ok(())
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, TopicSelection>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The selection that a link obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Which topics.
    pub(crate) topics: TopicSelection,
    /// The stored selection that they are; nothing where they are the file's.
    pub(crate) stored: Option<StoredSelection>,
}

/// What is known about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Nothing before the target was asked: what the file selects may have been de-selected there.
    pub(crate) in_force: Option<InForce>,
    /// Why what is stored is not obeyed, if so.
    pub(crate) refused: Option<String>,
}

/// Keeps `known` up to date, for ever.
pub(crate) async fn follow(
    rt: &Runtime,
    link: &LinkConfig,
    target: Cluster,
    selections: &Selections,
    known: &watch::Sender<Known>,
) {
    let mut stored = StoredSelections::new(rt.clone(), target);
    let mut said: Option<(String, Instant)> = None;
    let mut failing: Option<Instant> = None;
    let mut read = false;
    let mut pause = FIRST_LOOK;
    loop {
        let result = if read {
            stored.poll().await
        } else {
            stored.refresh().await
        };
        // The session makes it before anything else. A broker that only begins may not know it yet.
        if result.is_ok() && !stored.known() {
            rt.sleep(pause).await;
            pause = (pause * 2).min(POLL);
            continue;
        }
        let (read_it, problem) = match result.and_then(|()| stored.get(&link.name)) {
            Ok(found) => {
                (read, failing) = (true, None);
                match obey(link, found, selections, known) {
                    Ok(()) => {
                        said = None;
                        rt.sleep(POLL).await;
                        continue;
                    }
                    Err(problem) => (true, problem),
                }
            }
            Err(error) => {
                // Of a target that is away the session tells first.
                let quiet = match error {
                    SelectionError::Registry(_) if read => REMIND,
                    SelectionError::Registry(_) => QUIET,
                    SelectionError::Unreadable { .. } => Duration::ZERO,
                };
                let begun = *failing.get_or_insert(rt.now());
                if rt.now().saturating_duration_since(begun) < quiet {
                    rt.sleep(POLL).await;
                    continue;
                }
                (false, error.to_string())
            }
        };
        let now = rt.now();
        let old = said.as_ref().is_some_and(|(text, at)| {
            *text == problem && now.saturating_duration_since(*at) < REMIND
        });
        if !old {
            let holds = match &known.borrow().in_force {
                Some(_) => "what was selected before holds on",
                None => "nothing is mirrored until it can be",
            };
            if read_it {
                warn!(link = %link.name, id = "selection-refused", "the selection of topics is not obeyed, {holds}: {problem}");
            } else {
                warn!(link = %link.name, id = "selection-unreadable", "cannot read which topics are selected, {holds}; trying again: {problem}");
            }
            said = Some((problem.clone(), now));
        }
        let id = if read_it {
            "selection-refused"
        } else {
            "selection-unreadable"
        };
        let refused = Some(format!("{problem} (id={id})"));
        known.send_if_modified(|known| {
            let changed = known.refused != refused;
            known.refused = refused;
            changed
        });
        rt.sleep(POLL).await;
    }
}

/// Puts what is stored, or the file's selection, in force where it is not yet.
fn obey(
    link: &LinkConfig,
    found: Option<&StoredSelection>,
    selections: &Selections,
    known: &watch::Sender<Known>,
) -> Result<(), String> {
    let before = known.borrow().clone();
    let same = before
        .in_force
        .as_ref()
        .is_some_and(|now| now.stored.as_ref() == found);
    if same && before.refused.is_none() {
        return Ok(());
    }
    let topics = match found {
        Some(stored) => link.topics.with_includes(read_includes(&stored.includes)?),
        None => link.topics.clone(),
    };
    selections.admit(&link.name, &topics)?;
    if !same {
        told(link, before.in_force.as_ref(), found, &topics);
    }
    known.send_replace(Known {
        in_force: Some(InForce {
            topics,
            stored: found.cloned(),
        }),
        refused: None,
    });
    Ok(())
}

fn told(
    link: &LinkConfig,
    before: Option<&InForce>,
    found: Option<&StoredSelection>,
    topics: &TopicSelection,
) {
    let name = &link.name;
    let now = listed(&topics.includes());
    let was = before.map(|before| listed(&before.topics.includes()));
    match (found, was) {
        (Some(stored), None) => {
            let (since, file) = (stored.since(), listed(&link.topics.includes()));
            info!(link = %name, topics = %now, "topics as selected on the target at {since}; the file's ({file}) do not hold until strait selection reset");
        }
        (Some(stored), Some(was)) => {
            let since = stored.since();
            info!(link = %name, topics = %now, before = %was, "topics selected anew on the target at {since}");
        }
        (None, Some(was)) => {
            info!(link = %name, topics = %now, before = %was, "the selection on the target was reset: the file's topics hold again");
        }
        (None, None) => {}
    }
}

/// Patterns as a person reads them.
fn listed(includes: &[String]) -> String {
    if includes.is_empty() {
        return "none".to_owned();
    }
    includes.join(",")
}
