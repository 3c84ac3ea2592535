//! Users and quotas that the source has and the target lacks, by name. Strait copies none: passwords cannot be read.

use std::collections::BTreeSet;
use std::time::Duration;

use strait_config::LinkConfig;
use strait_net::{Cluster, NetError, Runtime};
use tracing::{debug, info, warn};

/// How often the clusters are compared.
const INTERVAL: Duration = Duration::from_secs(600);
/// How soon again when they could not be.
const PAUSE: Duration = Duration::from_secs(30);
/// Names in one message at the most.
const NAMED: usize = 50;

/// What is compared, and the right that it takes.
#[derive(Clone, Copy)]
enum Kind {
    Users,
    Quotas,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Users => "SCRAM users",
            Self::Quotas => "client quotas",
        }
    }

    fn right(self) -> &'static str {
        match self {
            Self::Users => "Describe",
            Self::Quotas => "DescribeConfigs",
        }
    }

    async fn of(self, cluster: &Cluster) -> Result<BTreeSet<String>, NetError> {
        match self {
            Self::Users => cluster.scram_users().await,
            Self::Quotas => cluster.client_quotas().await,
        }
    }
}

/// Says which are missing on the target, once, and again when that changes.
pub(crate) async fn report(rt: &Runtime, config: &LinkConfig, source: &Cluster, target: &Cluster) {
    if !config.beside.report_missing_users {
        return std::future::pending().await;
    }
    let mut said: [String; 2] = Default::default();
    loop {
        let mut again = false;
        for (kind, said) in [Kind::Users, Kind::Quotas].into_iter().zip(&mut said) {
            again |= compare(config, source, target, kind, said).await;
        }
        let pause = if again { PAUSE } else { INTERVAL };
        rt.sleep(rt.jitter(pause)).await;
    }
}

/// Whether it has to be tried again soon.
async fn compare(
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    kind: Kind,
    said: &mut String,
) -> bool {
    let mut sides = Vec::new();
    for cluster in [source, target] {
        match kind.of(cluster).await {
            Ok(found) => sides.push(found),
            Err(error)
                if error.code().is_some() || matches!(error, NetError::Unsupported { .. }) =>
            {
                let (what, right, alias) = (kind.name(), kind.right(), cluster.alias());
                // The broker's words name the single request.
                let why = error
                    .code()
                    .map_or_else(|| error.to_string(), |code| code.to_string());
                let text = format!("{alias} {why}");
                if *said != text {
                    warn!(
                        link = %config.name, id = "users-unread",
                        "the {what} of cluster {alias} cannot be read, so it is not known which are missing, mirroring goes on: {why}; give Strait's user {right} on the cluster there, or set report-missing-users = false"
                    );
                    *said = text;
                }
                return true;
            }
            Err(error) => {
                debug!(link = %config.name, "{error}");
                return true;
            }
        }
    }
    let (Some(of_target), Some(of_source)) = (sides.pop(), sides.pop()) else {
        return true;
    };
    let missing: Vec<&str> = of_source
        .difference(&of_target)
        .map(String::as_str)
        .collect();
    let mut text = missing
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join("; ");
    if missing.len() > NAMED {
        text.push_str(&format!("; and {} more", missing.len() - NAMED));
    }
    if *said == text {
        return false;
    }
    let (what, from, to) = (kind.name(), source.alias(), target.alias());
    if missing.is_empty() {
        info!(link = %config.name, "cluster {to} has all {what} of cluster {from}");
    } else {
        warn!(
            link = %config.name, id = "users-missing",
            "cluster {to} lacks {} {what} of cluster {from}: {text}; create them there before clients move, Strait does not",
            missing.len()
        );
    }
    *said = text;
    false
}
