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
    pub why: Why,
}

/// Why something is not known.
#[derive(Clone, Debug)]
pub enum Why {
    /// A broker's error, or none answered.
    Net(NetError),
    /// It was not found out in the time and with the bytes of one look; the next one goes on.
    Unfinished,
    /// What stands there cannot be read, in words.
    Unreadable(String),
}

impl Untold {
    pub(crate) fn new(what: impl Into<String>, error: NetError) -> Self {
        Self::because(what, Why::Net(error))
    }

    pub(crate) fn because(what: impl Into<String>, why: Why) -> Self {
        let what = what.into();
        Self { what, why }
    }

    /// Whether asking again may help before somebody changes something.
    pub fn passes(&self) -> bool {
        match &self.why {
            Why::Net(error) => error.action() != Action::Stop,
            Why::Unfinished => true,
            Why::Unreadable(_) => false,
        }
    }
}

impl fmt::Display for Untold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why } = self;
        write!(f, "{what} is not known: {why}")
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(error) => write!(f, "{error} (id={})", error.id()),
            Self::Unfinished => f.write_str("records are still being counted"),
            Self::Unreadable(why) => f.write_str(why),
        }
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
