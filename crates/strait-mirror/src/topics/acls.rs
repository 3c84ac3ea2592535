//! ACLs of mirrored topics on the target: made like the source's, by MirrorMaker 2's rules.

use std::collections::{BTreeMap, BTreeSet};

use strait_config::LinkConfig;
use strait_net::{Cluster, KafkaError, NetError, Runtime, TopicAcl};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// No cluster that checks no ACLs has any.
const SECURITY_DISABLED: KafkaError = KafkaError(54);
/// ACLs named at the most in one line.
const NAMED: usize = 10;

/// Source topics and what they are called on the target.
pub(crate) type Names = BTreeMap<String, String>;

/// The ACLs that the target shall have for the topics of `names`: `MirrorSourceConnector.syncTopicAcls`. Only of topics
/// by their literal name; permission to write stays behind, because the mirror is the only writer, and permission for
/// everything becomes one to read. What is forbidden stays forbidden.
pub(crate) fn wanted_acls(
    of_source: &[TopicAcl],
    names: &BTreeMap<String, String>,
) -> BTreeSet<TopicAcl> {
    let wanted = of_source.iter().filter_map(|acl| {
        let allowed = acl.permission == TopicAcl::ALLOW;
        let operation = match acl.operation {
            TopicAcl::WRITE if allowed => return None,
            TopicAcl::ALL if allowed => TopicAcl::READ,
            operation => operation,
        };
        Some(TopicAcl {
            topic: names.get(&acl.topic)?.clone(),
            operation,
            ..acl.clone()
        })
    });
    wanted.collect()
}

/// Keeps the target's ACLs in step with the source's: adds, and never takes one away. Looks when topics come, and at
/// the configured interval.
pub(crate) async fn keep(
    rt: &Runtime,
    config: &LinkConfig,
    source: &Cluster,
    target: &Cluster,
    mut names: watch::Receiver<Names>,
) {
    if !config.beside.sync_acls {
        return std::future::pending().await;
    }
    let mut said = Said {
        link: &config.name,
        before: BTreeMap::new(),
    };
    loop {
        if names.wait_for(|names| !names.is_empty()).await.is_err() {
            return std::future::pending().await;
        }
        let now = names.borrow_and_update().clone();
        once(&mut said, source, target, &now).await;
        tokio::select! {
            biased;
            changed = names.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = rt.sleep(rt.jitter(config.beside.acls_interval)) => {}
        }
    }
}

async fn once(said: &mut Said<'_>, source: &Cluster, target: &Cluster, names: &Names) {
    let of_source = match source.topic_acls().await {
        Ok(acls) => acls,
        Err(error) => return said.unread(source, &error),
    };
    said.over(source);
    let wanted = wanted_acls(&of_source, names);
    if wanted.is_empty() {
        return;
    }
    let there: BTreeSet<TopicAcl> = match target.topic_acls().await {
        Ok(acls) => acls.into_iter().collect(),
        Err(error) => return said.unread(target, &error),
    };
    said.over(target);
    let missing: Vec<TopicAcl> = wanted.difference(&there).cloned().collect();
    if missing.is_empty() {
        return;
    }
    match target.create_topic_acls(&missing).await {
        Ok(refused) => {
            let of_refused: BTreeSet<&TopicAcl> = refused.iter().map(|(acl, _)| acl).collect();
            let made: Vec<&TopicAcl> = missing.iter().filter(|a| !of_refused.contains(a)).collect();
            if !made.is_empty() {
                info!(
                    link = said.link,
                    acls = made.len(),
                    "created ACLs on the target: {}",
                    named(&made)
                );
            }
            if let Some((_, error)) = refused.first() {
                let all: Vec<&TopicAcl> = of_refused.into_iter().collect();
                said.refused(target, &all, error);
            }
        }
        Err(error) => said.unread(target, &error),
    }
}

/// `west.orders (Read for User:alice)`, several of them.
fn named(acls: &[&TopicAcl]) -> String {
    let mut names: Vec<String> = acls.iter().take(NAMED).map(|acl| shown(acl)).collect();
    if acls.len() > NAMED {
        names.push(format!("and {} more", acls.len() - NAMED));
    }
    names.join(", ")
}

/// `west.orders (Read for User:alice)`.
pub(crate) fn shown(acl: &TopicAcl) -> String {
    let what = acl.operation_name();
    let not = if acl.permission == TopicAcl::DENY {
        "no "
    } else {
        ""
    };
    let from = match acl.host.as_str() {
        "*" => String::new(),
        host => format!(" from {host}"),
    };
    format!("{} ({not}{what} for {}{from})", acl.topic, acl.principal)
}

/// What was said, so that it is said once.
struct Said<'l> {
    link: &'l str,
    before: BTreeMap<String, String>,
}

impl Said<'_> {
    fn is_new(&mut self, about: &str, text: &str) -> bool {
        let before = self.before.insert(about.to_owned(), text.to_owned());
        before.as_deref() != Some(text)
    }

    /// A cluster tells its ACLs.
    fn over(&mut self, cluster: &Cluster) {
        self.before.remove(cluster.alias());
    }

    fn unread(&mut self, cluster: &Cluster, error: &NetError) {
        let alias = cluster.alias();
        match error.code() {
            Some(SECURITY_DISABLED) => {
                if self.is_new(alias, "none") {
                    info!(
                        link = self.link,
                        "cluster {alias} checks no ACLs (it has no authorizer): those of topics are not copied"
                    );
                }
            }
            // The broker's words name the single request.
            Some(code) => {
                let text = code.to_string();
                if self.is_new(alias, &text) {
                    warn!(
                        link = self.link,
                        id = "acls-unread",
                        "the ACLs of topics on cluster {alias} cannot be read, so none are copied, mirroring goes on: {text}; give Strait's user Describe on the cluster there, or set sync-topic-acls (sync.topic.acls.enabled) to false"
                    );
                }
            }
            None if matches!(error, NetError::Unsupported { .. }) => {
                let text = error.to_string();
                if self.is_new(alias, &text) {
                    warn!(
                        link = self.link,
                        id = "acls-unread",
                        "the ACLs of topics on cluster {alias} cannot be read, so none are copied, mirroring goes on: {text}"
                    );
                }
            }
            // The link's flows tell what is wrong.
            None => debug!(link = self.link, "{error}"),
        }
    }

    fn refused(&mut self, target: &Cluster, acls: &[&TopicAcl], error: &NetError) {
        let why = error
            .code()
            .map_or_else(|| error.to_string(), |code| code.to_string());
        let text = format!("{}: {why}", named(acls));
        if self.is_new("refused", &text) {
            warn!(
                link = self.link,
                id = "acls-refused",
                "cluster {} refuses ACLs, mirroring goes on: {text}; give Strait's user Alter on the cluster there, create them yourself, or set sync-topic-acls (sync.topic.acls.enabled) to false",
                target.alias()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::wanted_acls;
    use strait_net::TopicAcl;

    fn acl(topic: &str, operation: i8, permission: i8) -> TopicAcl {
        TopicAcl {
            topic: topic.to_owned(),
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation,
            permission,
        }
    }

    #[test]
    fn writing_stays_behind_everything_becomes_reading_and_what_is_forbidden_stays_so() {
        use TopicAcl as A;
        const DESCRIBE: i8 = 8;
        let names = [("t".to_owned(), "A.t".to_owned())].into();
        let of_source = [
            acl("t", A::READ, A::ALLOW),
            acl("t", A::ALL, A::ALLOW),
            acl("t", A::WRITE, A::ALLOW),
            acl("t", DESCRIBE, A::ALLOW),
            acl("t", A::WRITE, A::DENY),
            acl("t", A::ALL, A::DENY),
            acl("*", A::READ, A::ALLOW),
            acl("other", A::READ, A::ALLOW),
        ];
        let wanted: Vec<(i8, i8)> = wanted_acls(&of_source, &names)
            .into_iter()
            .inspect(|acl| assert_eq!(acl.topic, "A.t"))
            .map(|acl| (acl.operation, acl.permission))
            .collect();
        assert_eq!(
            wanted,
            [
                (A::ALL, A::DENY),
                (A::READ, A::ALLOW),
                (A::WRITE, A::DENY),
                (DESCRIBE, A::ALLOW),
            ]
        );
    }
}
