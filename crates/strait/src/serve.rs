//! `strait run` at work: every link mirrors until a signal or an error ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use strait_admin::{Access, Admin, Health, Metrics, State};
use strait_config::{AdminTokens, ClusterConfig, Config, LinkConfig, SaslMechanism};
use strait_engine::{LinkHandle, SessionError};
use strait_mirror::{Mirror, MirrorError, Selections};
use strait_net::{
    Action, ClientCertificate, Cluster, Identity, Limits, NetError, Runtime, Sasl, Security, Tls,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::args::RunArgs;
use crate::exit::Exit;
use crate::logging::Logging;
use crate::mirroring::Links;
use crate::standing::{ActiveTopics, follow, report};

/// How many times the connect timeout a cluster may be out of reach at start before the link is given up.
const START_PATIENCE: u32 = 3;
/// The pause between two tries to reach a cluster.
const START_PAUSE: Duration = Duration::from_secs(2);
/// How often the same failure to start is logged.
const REMIND: Duration = Duration::from_secs(60);
/// How often log lines that were held back are looked at.
const HELD_PAUSE: Duration = Duration::from_secs(10);
/// Signals that come this close together are one: `timeout`, for example, sends its own twice.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// Runs every link of the configuration.
pub(crate) fn serve(
    config: &Config,
    tokens: Option<AdminTokens>,
    args: &RunArgs,
    logging: &Logging,
) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(mirror_all(config, tokens, args, logging));
            runtime.shutdown_timeout(Duration::from_millis(200));
            exit
        }
        Err(cause) => {
            error!("cannot start: {cause}");
            Exit::Failed
        }
    }
}

async fn mirror_all(
    config: &Config,
    tokens: Option<AdminTokens>,
    args: &RunArgs,
    logging: &Logging,
) -> Exit {
    let rt = Runtime::system();
    let health = Health::new();
    let (stop, stopped) = watch::channel(false);
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        error!("cannot listen for signals");
        return Exit::Failed;
    };
    for link in &config.links {
        health.set(&link.name, State::Starting);
    }
    let selections = Selections::new(config.clone());
    let active = ActiveTopics::default();
    let endpoints = tokens.map(|tokens| {
        let access = Access::new(tokens.viewer.expose(), tokens.manager.expose());
        let links = Links::new(&rt, config, selections.clone(), active.clone());
        (access, links)
    });
    if let Err(exit) = serve_admin(&rt, config, &health, endpoints, stopped.clone()).await {
        return exit;
    }
    for link in &config.links {
        begin_metrics(&link.name);
    }

    let instance = config.instance.clone().unwrap_or_else(host_name);
    let lock_dir = config
        .state_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join("strait"));
    let mut links = JoinSet::new();
    for link in &config.links {
        let connect = |alias: &str| {
            let found = config.clusters.get(alias)?;
            Some(cluster(&rt, found, patience(config, found)))
        };
        let (Some(source), Some(target)) = (connect(&link.source), connect(&link.target)) else {
            continue;
        };
        let one = OneLink {
            rt: rt.clone(),
            config: link.clone(),
            source,
            target,
            instance: instance.clone(),
            lock_dir: lock_dir.clone(),
            take_over: args.take_over,
            health: health.clone(),
            selections: selections.clone(),
            active: active.clone(),
        };
        links.spawn(on_its_thread(one, stopped.clone()));
    }

    let mut exit = Exit::Ok;
    let mut alive = links.len();
    let mut first_signal = None;
    loop {
        tokio::select! {
            biased;
            ended = links.join_next() => match ended {
                None => return exit,
                Some(result) => {
                    alive -= 1;
                    let one = result.unwrap_or(Exit::Failed);
                    if one != Exit::Ok {
                        exit = one;
                        if alive > 0 && first_signal.is_none() {
                            warn!("the other links go on ({alive})");
                        }
                    }
                }
            },
            early = on_signal(&mut interrupt, &mut terminate) => match first_signal {
                None => {
                    first_signal = Some(rt.now());
                    info!("signal received, stopping within {} s", longest_stop(config).as_secs());
                    stop.send_replace(true);
                }
                Some(first) if rt.now() - first < ONE_SIGNAL => {}
                Some(_) => {
                    warn!("second signal: ending at once; the next start reads the target to be sure");
                    return early;
                }
            },
            () = rt.sleep(HELD_PAUSE) => logging.flush_repeats(),
        }
    }
}

/// Runs a link on a thread of its own, with connections of its own: what it waits for, no other link waits for, and
/// its tasks need not wake other threads.
async fn on_its_thread(link: OneLink, stopped: watch::Receiver<bool>) -> Exit {
    let (ended, end) = tokio::sync::oneshot::channel();
    let name = link.config.name.clone();
    let spawned = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let exit = match runtime {
                Ok(runtime) => {
                    let exit = runtime.block_on(link.run(stopped));
                    runtime.shutdown_timeout(Duration::from_millis(200));
                    exit
                }
                Err(cause) => {
                    error!(link = %link.config.name, "cannot start: {cause}");
                    Exit::Failed
                }
            };
            let _ = ended.send(exit);
        });
    if let Err(cause) = spawned {
        error!(link = %name, "cannot start: {cause}");
        return Exit::Failed;
    }
    end.await.unwrap_or(Exit::Failed)
}

/// The drain, and two seconds for the last positions.
fn longest_stop(config: &Config) -> Duration {
    let drains = config.links.iter().map(|link| link.timeouts.drain);
    drains.max().unwrap_or_default() + Duration::from_secs(2)
}

async fn on_signal(interrupt: &mut Signal, terminate: &mut Signal) -> Exit {
    tokio::select! {
        biased;
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    }
}

async fn serve_admin(
    rt: &Runtime,
    config: &Config,
    health: &Health,
    endpoints: Option<(Access, Links)>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Exit> {
    let failed = |cause: &dyn std::fmt::Display| {
        error!("{cause}");
        Exit::Failed
    };
    let metrics = Metrics::install(env!("CARGO_PKG_VERSION"), env!("STRAIT_COMMIT"))
        .map_err(|e| failed(&e))?;
    describe_metrics();
    let Some(listen) = config.admin.listen else {
        return Ok(());
    };
    let mut admin = Admin::bind(listen, metrics, health.clone())
        .await
        .map_err(|e| failed(&e))?;
    if let Some((access, links)) = endpoints {
        admin = admin.with_mirroring(access, Arc::new(links));
    }
    info!("metrics and health on http://{}", admin.address());
    let stop = async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    rt.spawn(async move {
        if let Err(cause) = admin.serve(stop).await {
            error!("{cause}");
        }
    });
    Ok(())
}

struct OneLink {
    rt: Runtime,
    config: LinkConfig,
    source: Cluster,
    target: Cluster,
    instance: String,
    lock_dir: PathBuf,
    take_over: bool,
    health: Health,
    selections: Selections,
    active: ActiveTopics,
}

impl OneLink {
    /// Mirrors until stopped. A cluster that is out of reach at start gets some time before that is an error; while
    /// other links mirror or begin to, it gets all the time it needs.
    async fn run(self, mut stopped: watch::Receiver<bool>) -> Exit {
        let name = self.config.name.clone();
        info!(
            link = %name, source = %self.source.alias(), target = %self.target.alias(), instance = %self.instance,
            topics = %self.config.topics.includes().join(","), "starting"
        );
        let patience = self.config.timeouts.connect * START_PATIENCE;
        let begun = self.rt.now();
        let mut said: Option<(String, tokio::time::Instant)> = None;
        loop {
            let mirror = Mirror::new(
                self.rt.clone(),
                self.config.clone(),
                self.source.clone(),
                self.target.clone(),
                self.instance.clone(),
                Some(self.lock_dir.clone()),
                self.take_over,
                self.selections.clone(),
            );
            let (handle, status) = (mirror.handle(), mirror.status());
            let selection = mirror.selection();
            let mut beside = JoinSet::new();
            let (health, active) = (self.health.clone(), self.active.clone());
            beside.spawn(follow(name.clone(), status, selection, health, active));
            beside.spawn(stop_when(handle, stopped.clone()));
            let ended = mirror.run().await;
            beside.shutdown().await;
            let Err(cause) = ended else {
                report(&self.health, &name, State::Stopped);
                return Exit::Ok;
            };
            let told = format!("{cause} (id={})", cause.id());
            report(&self.health, &name, State::Failed(told));
            let exit = exit_for(&cause);
            let waited = self.rt.now() - begun;
            if !may_mend(&cause) || (waited >= patience && !self.others_live()) {
                match exit {
                    _ if may_mend(&cause) => {
                        error!(link = %name, id = cause.id(), "given up after {:.1} s: {cause}", waited.as_secs_f64());
                    }
                    _ => error!(link = %name, id = cause.id(), "{cause}"),
                }
                return exit;
            }
            let text = cause.to_string();
            let now = self.rt.now();
            match &said {
                None => {
                    if self.others_live() {
                        warn!(link = %name, id = cause.id(), "{text}; trying again as long as another link goes on");
                    } else {
                        let all = patience.as_secs_f64();
                        warn!(link = %name, id = cause.id(), "{text}; trying again, for {all} s in all or a little more");
                    }
                }
                Some((old, at)) if *old != text || now - *at >= REMIND => {
                    warn!(link = %name, id = cause.id(), "{text}; still trying");
                }
                Some((_, at)) => {
                    debug!(link = %name, "{text}; said {} s ago", (now - *at).as_secs());
                }
            }
            if said
                .as_ref()
                .is_none_or(|(old, at)| *old != text || now - *at >= REMIND)
            {
                said = Some((text, now));
            }
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => return Exit::Ok,
                () = self.rt.sleep(START_PAUSE.min(patience / 4)) => {}
            }
        }
    }

    fn others_live(&self) -> bool {
        self.health.states().iter().any(|(link, state)| {
            *link != self.config.name && !matches!(state, State::Failed(_) | State::Stopped)
        })
    }
}

/// What a link's end means for the process: what waiting may mend is out of reach, what somebody has to correct in
/// the file is configuration.
pub(crate) fn exit_for(cause: &MirrorError) -> Exit {
    let (MirrorError::Net(net) | MirrorError::Session(SessionError::Net(net))) = cause else {
        return Exit::Failed;
    };
    match (net, net.action()) {
        _ if net.is_mismatch() => Exit::Configuration,
        (
            NetError::Unreachable { .. }
            | NetError::Auth { .. }
            | NetError::Tls { .. }
            | NetError::Invalid { .. },
            Action::Stop,
        ) => Exit::Configuration,
        (_, Action::Stop) => Exit::Failed,
        (_, Action::Retry | Action::Reconnect) => Exit::Unreachable,
    }
}

/// Whether waiting may mend it: a broker may be starting, or the other end of a proxy.
fn may_mend(cause: &MirrorError) -> bool {
    let (MirrorError::Net(net) | MirrorError::Session(SessionError::Net(net))) = cause else {
        return false;
    };
    net.action() != Action::Stop
}

async fn stop_when(handle: LinkHandle, mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stop| *stop).await.is_ok() {
        handle.stop().await;
    }
}

/// The longest time to connect that a link using the cluster asks for.
pub(crate) fn patience(config: &Config, cluster: &ClusterConfig) -> Duration {
    let uses = config
        .links
        .iter()
        .filter(|l| l.source == cluster.alias || l.target == cluster.alias);
    uses.map(|link| link.timeouts.connect)
        .max()
        .unwrap_or_else(|| Limits::default().connect)
}

pub(crate) fn cluster(rt: &Runtime, config: &ClusterConfig, connect: Duration) -> Cluster {
    let security =
        Security {
            tls: config.tls.as_ref().map(|tls| Tls {
                ca_files: tls.ca_files.clone(),
                client: tls.cert_file.clone().zip(tls.key_file.clone()).map(
                    |(cert_file, key_file)| ClientCertificate {
                        cert_file,
                        key_file,
                    },
                ),
            }),
            sasl: config.sasl.as_ref().map(|sasl| {
                let (user, password) = (sasl.username.clone(), sasl.password.expose().to_owned());
                match sasl.mechanism {
                    SaslMechanism::Plain => Sasl::Plain { user, password },
                    SaslMechanism::ScramSha256 => Sasl::Scram {
                        sha512: false,
                        user,
                        password,
                    },
                    SaslMechanism::ScramSha512 => Sasl::Scram {
                        sha512: true,
                        user,
                        password,
                    },
                }
            }),
        };
    let version = env!("CARGO_PKG_VERSION");
    let identity = Identity {
        client_id: format!("strait/{version}"),
        software_name: "strait".to_owned(),
        software_version: version.to_owned(),
    };
    let limits = Limits {
        connect,
        handshake: connect,
        ..Limits::default()
    };
    Cluster::with_limits(
        rt.clone(),
        config.alias.clone(),
        config.bootstrap.clone(),
        security,
        identity,
        limits,
    )
}

/// The same after a restart, different on every machine.
fn host_name() -> String {
    let name = rustix::system::uname();
    match name.nodename().to_string_lossy() {
        name if name.is_empty() => "localhost".to_owned(),
        name => name.into_owned(),
    }
}

/// From the first page on, so that a rate over the first record is seen.
fn begin_metrics(link: &str) {
    for counter in [
        "strait_records_total",
        "strait_bytes_total",
        "strait_group_commits_total",
    ] {
        metrics::counter!(counter, "link" => link.to_owned()).increment(0);
    }
    metrics::gauge!("strait_link_ready", "link" => link.to_owned()).set(0.0);
    metrics::gauge!("strait_topics_troubled", "link" => link.to_owned()).set(0.0);
}

fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge};
    describe_counter!(
        "strait_records_total",
        Unit::Count,
        "Records forwarded and acknowledged by the target."
    );
    describe_counter!(
        "strait_bytes_total",
        Unit::Bytes,
        "Bytes of record batches forwarded and acknowledged."
    );
    describe_counter!(
        "strait_flow_errors_total",
        Unit::Count,
        "Troubles of single flows, each counted once per try."
    );
    describe_gauge!(
        "strait_groups",
        Unit::Count,
        "Consumer groups of the source that are selected and have commits on mirrored partitions."
    );
    describe_gauge!(
        "strait_groups_committed",
        Unit::Count,
        "Those whose commits on the target stand where they should, or were moved on by consumers there."
    );
    describe_gauge!(
        "strait_groups_active",
        Unit::Count,
        "Those that have members on the target, so that nothing is committed for them."
    );
    describe_gauge!(
        "strait_groups_round_seconds",
        Unit::Seconds,
        "How long the last round over all consumer groups took."
    );
    describe_gauge!(
        "strait_groups_troubled",
        Unit::Count,
        "Groups whose offsets cannot be read on the source or committed on the target; the log says why."
    );
    describe_counter!(
        "strait_group_commits_total",
        Unit::Count,
        "Offsets of consumer groups committed on the target, each partition counted."
    );
    describe_gauge!(
        "strait_link_ready",
        Unit::Count,
        "1 while the link mirrors, in part at least; else 0. /readyz tells why."
    );
    describe_gauge!(
        "strait_flows",
        Unit::Count,
        "Flows (source partitions) by state; troubled ones stand still. /readyz and the log tell why."
    );
    describe_gauge!(
        "strait_topics_troubled",
        Unit::Count,
        "Topics selected that are not mirrored, or not with all their partitions. /readyz and the log tell why."
    );
    describe_gauge!(
        "strait_lag_records",
        Unit::Count,
        "Source offsets not yet forwarded, all running flows together."
    );
    describe_counter!(
        "strait_gap_offsets_total",
        Unit::Count,
        "Source offsets left out, by reason."
    );
    describe_counter!(
        "strait_throttled_ms_total",
        Unit::Milliseconds,
        "Milliseconds for which brokers said that they read nothing, because a quota is used up."
    );
    describe_gauge!(
        "strait_memory_bytes",
        Unit::Bytes,
        "Record bytes held or reserved in memory."
    );
    describe_gauge!(
        "strait_flows_held_by_transactions",
        Unit::Count,
        "Flows that wait at an open transaction of the source for too long. The log names the producer."
    );
}
