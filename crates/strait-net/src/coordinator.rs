//! Coordinators of groups and transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::StrBytes;
use tokio::task::JoinSet;

use crate::call::Call;
use crate::cluster::{CONNECTIONS_TRIED, Cluster, REQUEST_TIMEOUT, Spared};
use crate::connection::Connection;
use crate::error::{Action, NetError};
use crate::kafka_error::KafkaError;
use crate::metadata::text;

/// From this version on one FindCoordinator takes many keys (KIP-699).
const FIND_MANY: i16 = 4;
/// How many it is given.
const KEYS_PER_REQUEST: usize = 500;
/// How many requests an older broker is sent before the first answer.
const ASKED_AT_ONCE: usize = 16;

/// By group or transactional id.
type Coordinators = BTreeMap<String, Result<i32, NetError>>;

/// What a coordinator coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoordinatorKind {
    /// A consumer group.
    Group,
    /// A transactional id.
    Transaction,
}

impl Cluster {
    /// The broker that coordinates a group or transactional id, as last known or else asked for.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with COORDINATOR_NOT_AVAILABLE (15) while the coordinator's own topic is
    /// being created or has no leader: retry.
    pub async fn coordinator(&self, kind: CoordinatorKind, key: &str) -> Result<i32, NetError> {
        if let Some(known) = self.cached_coordinator(kind, key) {
            return Ok(known);
        }
        let keys = [key.to_owned()];
        let found = self.coordinators(kind, &keys).await.remove(key);
        found.unwrap_or_else(|| {
            Err(NetError::kafka(
                KafkaError::COORDINATOR_NOT_AVAILABLE.0,
                FindCoordinatorRequest::NAME,
                named(kind, key),
            ))
        })
    }

    /// [`Cluster::coordinator`] of many, those that are not known asked for in few requests (one for each where the broker
    /// is older than Kafka 3.0). One's error is its own.
    pub async fn coordinators(
        &self,
        kind: CoordinatorKind,
        keys: &[String],
    ) -> BTreeMap<String, Result<i32, NetError>> {
        let mut found = BTreeMap::new();
        let mut unknown = Vec::new();
        for key in keys {
            match self.cached_coordinator(kind, key) {
                Some(broker) => drop(found.insert(key.clone(), Ok(broker))),
                None => unknown.push(key.clone()),
            }
        }
        let mut unknown = unknown.chunks(KEYS_PER_REQUEST);
        while let Some(keys) = unknown.next() {
            match self.find_coordinators(kind, keys).await {
                Ok(answers) => {
                    for (key, answer) in &answers {
                        if let Ok(broker) = answer {
                            self.set_coordinator(kind, key, Some(*broker));
                        }
                    }
                    found.extend(answers);
                }
                // No broker answers: none is waited for once more for the others.
                Err(error) => {
                    let rest = keys.iter().chain(unknown.by_ref().flatten());
                    found.extend(rest.map(|key| (key.clone(), Err(error.clone()))));
                }
            }
        }
        found
    }

    async fn find_coordinators(
        &self,
        kind: CoordinatorKind,
        keys: &[String],
    ) -> Result<Coordinators, NetError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let connection = self.any().await?;
            match find_at(&connection, kind, keys).await {
                Err(e) if tries < CONNECTIONS_TRIED && e.action() == Action::Reconnect => {}
                result => return result,
            }
        }
    }

    /// Forgets a coordinator, after it has answered NOT_COORDINATOR or went away.
    pub fn forget_coordinator(&self, kind: CoordinatorKind, key: &str) {
        self.set_coordinator(kind, key, None);
    }

    /// Makes a request of a coordinator. `error` reads the code that tells of a wrong one; on
    /// NOT_COORDINATOR the coordinator is looked up again and asked once more.
    pub(crate) async fn ask_coordinator<R: Call + Clone>(
        &self,
        kind: CoordinatorKind,
        key: &str,
        request: R,
        error: fn(&R::Response) -> i16,
    ) -> Result<(Connection, R::Response), NetError> {
        self.ask_coordinator_sparing((kind, key), (None, REQUEST_TIMEOUT), request, error)
            .await
    }

    /// [`ask_coordinator`](Self::ask_coordinator) with so much time for an answer; a broker that is to be `spared` and could not be
    /// reached a moment ago is not asked.
    pub(crate) async fn ask_coordinator_sparing<R: Call + Clone>(
        &self,
        (kind, key): (CoordinatorKind, &str),
        (spared, patience): (Option<Spared>, Duration),
        request: R,
        error: fn(&R::Response) -> i16,
    ) -> Result<(Connection, R::Response), NetError> {
        let mut first_try = true;
        loop {
            let broker = self.coordinator(kind, key).await?;
            let asking = async {
                let connection = self.control(broker).await?;
                let answer = connection.request(request.clone(), patience).await?;
                Ok((connection, answer))
            };
            let asked = match spared {
                Some(spared) => self.sparing(broker, spared, asking).await,
                None => asking.await,
            };
            match asked {
                Ok((_, answer)) if first_try && error(&answer) == KafkaError::NOT_COORDINATOR.0 => {
                    first_try = false;
                    self.forget_coordinator(kind, key);
                }
                Ok((connection, answer)) => {
                    if error(&answer) == KafkaError::NOT_COORDINATOR.0 {
                        self.forget_coordinator(kind, key);
                    }
                    return Ok((connection, answer));
                }
                Err(e) => {
                    if e.action() == Action::Reconnect {
                        self.forget_coordinator(kind, key);
                    }
                    return Err(e);
                }
            }
        }
    }
}

/// Asks this broker; of an older one for one after the other, without waiting for the answer in between.
async fn find_at(
    connection: &Connection,
    kind: CoordinatorKind,
    keys: &[String],
) -> Result<Coordinators, NetError> {
    let api = FindCoordinatorRequest::API;
    let version = connection.version(
        api,
        FindCoordinatorRequest::MAX,
        FindCoordinatorRequest::MIN,
    )?;
    let asked = FindCoordinatorRequest::default().with_key_type(match kind {
        CoordinatorKind::Group => 0,
        CoordinatorKind::Transaction => 1,
    });
    let what = |key: &str| format!("{} on {}", named(kind, key), connection.peer());
    let mut found = Coordinators::new();
    if version < FIND_MANY {
        for keys in keys.chunks(ASKED_AT_ONCE) {
            let mut jobs = JoinSet::new();
            for key in keys {
                let (connection, key) = (connection.clone(), key.clone());
                let request = asked.clone().with_key(text(&key));
                jobs.spawn(async move {
                    let answer = connection
                        .request_at(request, version, REQUEST_TIMEOUT)
                        .await;
                    (key, answer)
                });
            }
            while let Some(done) = jobs.join_next().await {
                let Ok((key, answer)) = done else { continue };
                let answer = answer?;
                let name = FindCoordinatorRequest::NAME;
                let refused = refusal(answer.error_code, name, || what(&key), answer.error_message);
                found.insert(key, refused.map(|()| answer.node_id.0));
            }
        }
        return Ok(found);
    }
    let request = asked.with_coordinator_keys(keys.iter().map(|key| text(key)).collect());
    let answer = connection
        .request_at(request, version, REQUEST_TIMEOUT)
        .await?;
    for one in answer.coordinators {
        let key = one.key.to_string();
        let name = FindCoordinatorRequest::NAME;
        let refused = refusal(one.error_code, name, || what(&key), one.error_message);
        found.insert(key, refused.map(|()| one.node_id.0));
    }
    match keys.iter().find(|key| !found.contains_key(*key)) {
        Some(key) => Err(NetError::Malformed {
            peer: connection.peer().clone(),
            what: format!("the answer to FindCoordinator lacks {}", named(kind, key)),
        }),
        None => Ok(found),
    }
}

pub(crate) fn named(kind: CoordinatorKind, key: &str) -> String {
    match kind {
        CoordinatorKind::Group => format!("group '{key}'"),
        CoordinatorKind::Transaction => format!("transactional id '{key}'"),
    }
}

/// An error for every code but 0, with the broker's own words.
pub(crate) fn refusal(
    code: i16,
    api: &'static str,
    what: impl FnOnce() -> String,
    message: Option<StrBytes>,
) -> Result<(), NetError> {
    if code == 0 {
        return Ok(());
    }
    Err(NetError::Kafka {
        code: KafkaError(code),
        api,
        what: what(),
        message: message.map(|m| m.to_string()),
    })
}
