//! What a cluster does not tell at the moment, while it tells the rest.

use std::collections::BTreeSet;
use std::fmt;

use strait_config::LinkConfig;
use strait_net::{Action, Cluster, ListedGroup, NetError};
use tokio::task::JoinSet;

/// Something that could not be asked.
#[derive(Clone, Debug)]
pub struct Untold {
    /// What, in words that go on "is not known": `what group billing has committed`.
    pub what: String,
    /// Why.
    pub error: NetError,
}

impl Untold {
    pub(crate) fn new(what: impl Into<String>, error: NetError) -> Self {
        let what = what.into();
        Self { what, error }
    }

    /// Whether asking again may help before somebody changes something.
    pub fn passes(&self) -> bool {
        self.error.action() != Action::Stop
    }
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, error } = self;
        write!(f, "{what} is not known: {error} (id={})", error.id())
    }
}

/// The groups that a cluster's brokers list, each asked beside the others; those that do not answer are named.
///
/// # Errors
/// The cluster does not tell its brokers.
pub(crate) async fn listed_groups(
    cluster: &Cluster,
) -> Result<(Vec<ListedGroup>, Vec<Untold>), NetError> {
    let brokers = cluster.metadata(Some(&[])).await?.brokers;
    let mut jobs = JoinSet::new();
    for &broker in brokers.keys() {
        let cluster = cluster.clone();
        jobs.spawn(async move { (broker, cluster.list_groups(broker).await) });
    }
    let (mut groups, mut untold) = (Vec::new(), Vec::new());
    while let Some(done) = jobs.join_next().await {
        match done {
            Ok((_, Ok(listed))) => groups.extend(listed),
            Ok((broker, Err(error))) => {
                let alias = cluster.alias();
                let what = format!("which groups broker {broker} of cluster {alias} has");
                untold.push(Untold::new(what, error));
            }
            Err(_) => {}
        }
    }
    untold.sort_by(|a, b| a.what.cmp(&b.what));
    Ok((groups, untold))
}

/// Those of them that a link selects, sorted.
///
/// # Errors
/// As [`listed_groups`].
pub(crate) async fn selected_groups(
    link: &LinkConfig,
    cluster: &Cluster,
) -> Result<(BTreeSet<String>, Vec<Untold>), NetError> {
    let (listed, untold) = listed_groups(cluster).await?;
    let wanted = listed
        .into_iter()
        .filter(|g| g.has_offsets() && link.groups.selects(&g.id));
    Ok((wanted.map(|g| g.id).collect(), untold))
}
