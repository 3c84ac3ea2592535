//! Coordinators of groups and transactions.

use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::StrBytes;

use crate::call::Call;
use crate::cluster::{Cluster, REQUEST_TIMEOUT};
use crate::connection::Connection;
use crate::error::{Action, NetError};
use crate::kafka_error::KafkaError;
use crate::metadata::text;

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
        let request = FindCoordinatorRequest::default()
            .with_key(text(key))
            .with_key_type(match kind {
                CoordinatorKind::Group => 0,
                CoordinatorKind::Transaction => 1,
            });
        let (connection, answer) = self.ask_any(request).await?;
        let what = || format!("{} on {}", named(kind, key), connection.peer());
        refusal(
            answer.error_code,
            FindCoordinatorRequest::NAME,
            what,
            answer.error_message,
        )?;
        let broker = answer.node_id.0;
        self.set_coordinator(kind, key, Some(broker));
        Ok(broker)
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
        let mut first_try = true;
        loop {
            let broker = self.coordinator(kind, key).await?;
            let asked = async {
                let connection = self.control(broker).await?;
                let answer = connection.request(request.clone(), REQUEST_TIMEOUT).await?;
                Ok((connection, answer))
            };
            match asked.await {
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
                    let e: NetError = e;
                    if e.action() == Action::Reconnect {
                        self.forget_coordinator(kind, key);
                    }
                    return Err(e);
                }
            }
        }
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
