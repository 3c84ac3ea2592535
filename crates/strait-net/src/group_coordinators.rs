//! Groups by the brokers that coordinate them: many are asked about at once, and what a broker's failure means for them is
//! judged here.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::call::Call;
use crate::cluster::{Cluster, Spared};
use crate::connection::Connection;
use crate::coordinator::CoordinatorKind;
use crate::error::{Action, NetError};
use crate::groups::PATIENCE;
use crate::kafka_error::KafkaError;

/// Groups that are asked about in one request.
const GROUPS_PER_REQUEST: usize = 100;

/// By group.
pub(crate) type Answers<T> = BTreeMap<String, Result<T, NetError>>;

impl Cluster {
    /// Asks each group's coordinator with `ask`, the coordinators side by side and each about many groups at once. One group's
    /// error is its own. A broker that cannot be reached fails its groups at once, and is left alone for a while.
    pub(crate) async fn ask_about_groups<T, A>(
        &self,
        spared: Spared,
        groups: &[String],
        ask: impl Fn(Cluster, i32, Vec<String>) -> A + Copy + Send + 'static,
    ) -> Answers<T>
    where
        T: Send + 'static,
        A: Future<Output = Result<(Connection, Answers<T>), NetError>> + Send + 'static,
    {
        let mut found = Answers::new();
        let mut by_broker: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for (group, broker) in self.coordinators(CoordinatorKind::Group, groups).await {
            match broker {
                Ok(broker) => by_broker.entry(broker).or_default().push(group),
                Err(error) => drop(found.insert(group, Err(error))),
            }
        }
        let mut jobs = JoinSet::new();
        for (broker, groups) in by_broker {
            let cluster = self.clone();
            jobs.spawn(async move {
                let mut found = Answers::new();
                for piece in groups.chunks(GROUPS_PER_REQUEST) {
                    let asking = ask(cluster.clone(), broker, piece.to_vec());
                    let answers = cluster.sparing(broker, spared, asking).await;
                    found.extend(cluster.told(piece, answers));
                }
                found
            });
        }
        while let Some(done) = jobs.join_next().await {
            found.extend(done.into_iter().flatten());
        }
        found
    }

    /// What was told about each of these groups; where to ask is asked anew after an error that may come from a wrong coordinator.
    fn told<T>(
        &self,
        groups: &[String],
        answers: Result<(Connection, Answers<T>), NetError>,
    ) -> Answers<T> {
        let mut told = Answers::new();
        let mut answers = answers;
        for group in groups {
            let answer = match &mut answers {
                Ok((connection, answers)) => answers.remove(group).unwrap_or_else(|| {
                    Err(NetError::Malformed {
                        peer: connection.peer().clone(),
                        what: format!("the answer about groups lacks group '{group}'"),
                    })
                }),
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = &answer {
                self.group_failed(group, error);
            }
            told.insert(group.clone(), answer);
        }
        told
    }

    /// [`ask_coordinator`](Self::ask_coordinator) of a group. A broker that cannot be reached is left alone for a while.
    pub(crate) async fn ask_group<R: Call + Clone>(
        &self,
        spared: Spared,
        group: &str,
        request: R,
        error: fn(&R::Response) -> i16,
    ) -> Result<(Connection, R::Response), NetError> {
        let group = (CoordinatorKind::Group, group);
        self.ask_coordinator_sparing(group, (Some(spared), PATIENCE), request, error)
            .await
    }

    fn group_failed(&self, group: &str, error: &NetError) {
        let moved = error.code().is_some_and(|code| {
            code == KafkaError::NOT_COORDINATOR || code == KafkaError::COORDINATOR_NOT_AVAILABLE
        });
        if moved || error.action() == Action::Reconnect {
            self.forget_coordinator(CoordinatorKind::Group, group);
        }
    }
}
