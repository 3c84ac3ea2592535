//! A link from start to stop: session after session, until it is told to stop or may not go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use strait_net::{Action, NetError, Runtime};
use strait_wire::RegistryRecord;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::gap_counts::GapCounts;
use crate::limits;
use crate::routes::Routes;
use crate::session::error::SessionError;
use crate::session::lock::LinkLock;
use crate::session::{Session, successor};
use crate::shard::{Command, Ended, Shard};
use crate::spec::{FlowKey, FlowSpec, LinkSpec};
use crate::status::LinkStatus;

/// A link, ready to run.
pub struct Link {
    rt: Runtime,
    spec: Arc<LinkSpec>,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<LinkStatus>,
}

/// Steers a running link.
#[derive(Clone, Debug)]
pub struct LinkHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<LinkStatus>,
}

impl LinkHandle {
    /// Replaces the set of flows: new ones are opened, missing ones are drained and left.
    pub async fn set_flows(&self, flows: Vec<FlowSpec>) {
        let _ = self.commands.send(Command::Flows(flows)).await;
    }

    /// Keeps the records in the link's registry, if a session is open; else they are dropped.
    pub async fn keep(&self, records: Vec<RegistryRecord>) {
        let _ = self.commands.send(Command::Keep(records)).await;
    }

    /// Ends the link: what is in flight is awaited, the last syncs are written, the lease is closed.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
    }

    /// The link's state, renewed about ten times a second.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.clone()
    }
}

impl Link {
    /// A link that does nothing until [`run`](Self::run).
    pub fn new(rt: Runtime, spec: LinkSpec) -> (Self, LinkHandle) {
        let (sender, commands) = mpsc::channel(16);
        let (status, receiver) = watch::channel(LinkStatus::default());
        let link = Self {
            rt,
            spec: Arc::new(spec),
            commands,
            status,
        };
        (
            link,
            LinkHandle {
                commands: sender,
                status: receiver,
            },
        )
    }

    /// Mirrors until stopped. Sessions that are lost are followed by new ones.
    ///
    /// # Errors
    /// What cannot be mended by trying again: another owner, a registry this version cannot read, clusters
    /// other than the link was set up with, or clusters that were never reached.
    pub async fn run(mut self) -> Result<(), SessionError> {
        let mut flows: BTreeMap<FlowKey, FlowSpec> = BTreeMap::new();
        let clusters = async {
            let source = self.spec.source.metadata(Some(&[])).await?.cluster_id;
            Ok::<_, NetError>((
                source,
                self.spec.target.metadata(Some(&[])).await?.cluster_id,
            ))
        };
        let Some(clusters) =
            until_stopped(clusters, &mut self.commands, &mut flows, &self.status).await
        else {
            self.no_session();
            return Ok(());
        };
        let (source_id, target_id) = clusters?;
        let _lock = match &self.spec.lock_dir {
            Some(dir) => Some(LinkLock::acquire(dir, &self.spec.name, &target_id)?),
            None => None,
        };
        let source = Arc::new(Routes::new(self.rt.clone(), self.spec.source.clone()));
        let target = Arc::new(Routes::new(self.rt.clone(), self.spec.target.clone()));
        let mut gap_counts = GapCounts::new(&self.spec.name);
        let mut wait = limits::BACKOFF_MIN;
        let mut said = None;
        loop {
            let begun = self.rt.now();
            let ids = (source_id.clone(), target_id.clone());
            let opening = Session::open(&self.rt, &self.spec, ids, source.clone(), target.clone());
            let Some(opened) =
                until_stopped(opening, &mut self.commands, &mut flows, &self.status).await
            else {
                self.no_session();
                return Ok(());
            };
            let error = match opened {
                Ok(session) => {
                    let ours = (session.epoch.producer_id, session.first_epoch);
                    let shard = Shard::new(
                        Arc::new(session),
                        flows.values().cloned().collect(),
                        &self.status,
                        &mut gap_counts,
                    );
                    match shard.run(&mut self.commands, &mut flows).await {
                        Ended::Stopped => {
                            info!(link = %self.spec.name, "stopped");
                            return Ok(());
                        }
                        Ended::Renewed => {
                            wait = limits::BACKOFF_MIN;
                            continue;
                        }
                        Ended::Lost(SessionError::Fenced { link, why, .. }) => {
                            let asking = successor(&self.rt, &self.spec, &target, ours);
                            let owner =
                                until_stopped(asking, &mut self.commands, &mut flows, &self.status)
                                    .await;
                            let owner = owner.flatten();
                            let why = match &owner {
                                Some(owner) if *owner == self.spec.instance => format!(
                                    "{why}; both have the same name: give each process its own with --instance"
                                ),
                                _ => why,
                            };
                            SessionError::Fenced { link, owner, why }
                        }
                        Ended::Lost(error) => error,
                    }
                }
                Err(error) => error,
            };
            // Without a successor it was the coordinator that ended our own barrier, after a stall of it or of us:
            // a new session finds out, and stands back if somebody renews the lease after all.
            let error = match error {
                SessionError::Fenced {
                    owner: None, why, ..
                } => SessionError::Lost(why),
                other => other,
            };
            self.status.send_modify(|status| {
                status.open = false;
                status.trouble = Some(format!("{error} (id={})", error.id()));
            });
            if error.action() == Action::Stop {
                return Err(error);
            }
            let (now, text) = (self.rt.now(), error.to_string());
            if now.saturating_duration_since(begun) >= limits::REMIND {
                (wait, said) = (limits::BACKOFF_MIN, None);
            }
            // Said once a minute while it stays the same.
            let known = said
                .as_ref()
                .is_some_and(|(known, at): &(String, Instant)| {
                    *known == text && now.saturating_duration_since(*at) < limits::REMIND
                });
            if known {
                debug!(link = %self.spec.name, id = error.id(), "{text}");
            } else {
                warn!(link = %self.spec.name, id = error.id(), "{text}");
                said = Some((text, now));
            }
            let pause = self.rt.sleep(self.rt.jitter(wait));
            if until_stopped(pause, &mut self.commands, &mut flows, &self.status)
                .await
                .is_none()
            {
                self.no_session();
                return Ok(());
            }
            wait = (wait * 2).min(limits::BACKOFF_PASSING);
        }
    }

    fn no_session(&self) {
        info!(link = %self.spec.name, "told to stop while no session is open");
    }
}

/// Waits for the work, taking commands meanwhile; `None` when told to stop.
async fn until_stopped<F: Future>(
    work: F,
    commands: &mut mpsc::Receiver<Command>,
    flows: &mut BTreeMap<FlowKey, FlowSpec>,
    status: &watch::Sender<LinkStatus>,
) -> Option<F::Output> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(Command::Flows(new)) => {
                    *flows = new.into_iter().map(|f| (f.key.clone(), f)).collect();
                    LinkStatus::select(status);
                }
                // Without a session nobody may write it; it comes again.
                Some(Command::Keep(_)) => {}
                Some(Command::Stop) | None => return None,
            },
            done = &mut work => return Some(done),
        }
    }
}
