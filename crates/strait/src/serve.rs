//! `strait run` at work: every link mirrors until a signal or an error ends it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use strait_admin::{Admin, Health, Metrics, State};
use strait_config::{ClusterConfig, Config, LinkConfig, SaslMechanism};
use strait_engine::{LinkHandle, LinkStatus, SessionError};
use strait_mirror::{Mirror, MirrorError};
use strait_net::{
    ClientCertificate, Cluster, Identity, Limits, NetError, Runtime, Sasl, Security, Tls,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::args::RunArgs;
use crate::exit::Exit;

/// How long a cluster may be out of reach at start before the process ends with code 5.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two tries to reach a cluster.
const START_PAUSE: Duration = Duration::from_secs(2);

/// Runs every link of the configuration.
pub(crate) fn serve(config: &Config, args: &RunArgs) -> Exit {
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(1, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(mirror_all(config, args));
            runtime.shutdown_timeout(Duration::from_millis(200));
            exit
        }
        Err(cause) => {
            error!("cannot start: {cause}");
            Exit::Failed
        }
    }
}

async fn mirror_all(config: &Config, args: &RunArgs) -> Exit {
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
    if let Err(exit) = serve_admin(&rt, config, &health, stopped.clone()).await {
        return exit;
    }

    let instance = config.instance.clone().unwrap_or_else(host_name);
    let lock_dir = config
        .state_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join("strait"));
    let clusters: BTreeMap<&str, Cluster> = config
        .clusters
        .values()
        .map(|c| (c.alias.as_str(), cluster(&rt, c, patience(config, c))))
        .collect();
    let mut links = JoinSet::new();
    for link in &config.links {
        let (Some(source), Some(target)) = (
            clusters.get(link.source.as_str()),
            clusters.get(link.target.as_str()),
        ) else {
            continue;
        };
        let one = OneLink {
            rt: rt.clone(),
            config: link.clone(),
            source: source.clone(),
            target: target.clone(),
            instance: instance.clone(),
            lock_dir: lock_dir.clone(),
            take_over: args.take_over,
            health: health.clone(),
        };
        links.spawn(one.run(stopped.clone()));
    }

    let mut exit = Exit::Ok;
    let mut alive = links.len();
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
                        if alive > 0 && !*stop.borrow() {
                            warn!("{alive} other links go on");
                        }
                    }
                }
            },
            early = on_signal(&mut interrupt, &mut terminate) => {
                if *stop.borrow() {
                    warn!("second signal: ending at once; the next start reads the target to be sure");
                    return early;
                }
                info!("signal received, stopping within 10 s");
                stop.send_replace(true);
            }
        }
    }
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
    let admin = Admin::bind(listen, metrics, health.clone())
        .await
        .map_err(|e| failed(&e))?;
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
}

impl OneLink {
    /// Mirrors until stopped. A cluster that is out of reach at start gets some time before that is an error.
    async fn run(self, mut stopped: watch::Receiver<bool>) -> Exit {
        let name = self.config.name.clone();
        let patience = self.rt.now() + START_PATIENCE;
        loop {
            let mirror = Mirror::new(
                self.rt.clone(),
                self.config.clone(),
                self.source.clone(),
                self.target.clone(),
                self.instance.clone(),
                Some(self.lock_dir.clone()),
                self.take_over,
            );
            let (handle, status) = (mirror.handle(), mirror.status());
            let mut follow = JoinSet::new();
            follow.spawn(follow_health(name.clone(), status, self.health.clone()));
            follow.spawn(stop_when(handle, stopped.clone()));
            let Err(cause) = mirror.run().await else {
                self.health.set(&name, State::Stopped);
                return Exit::Ok;
            };
            let unreachable = unreachable(&cause);
            if unreachable && self.rt.now() < patience && !*stopped.borrow() {
                warn!(link = %name, "{cause}; trying again");
                self.health.set(&name, State::Failed(cause.to_string()));
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stop| *stop) => return Exit::Ok,
                    () = self.rt.sleep(START_PAUSE) => continue,
                }
            }
            error!(link = %name, "{cause}");
            self.health.set(&name, State::Failed(cause.to_string()));
            return if unreachable {
                Exit::Unreachable
            } else {
                Exit::Failed
            };
        }
    }
}

fn unreachable(cause: &MirrorError) -> bool {
    matches!(
        cause,
        MirrorError::Net(NetError::Unreachable { .. })
            | MirrorError::Session(SessionError::Net(NetError::Unreachable { .. }))
    )
}

async fn stop_when(handle: LinkHandle, mut stopped: watch::Receiver<bool>) {
    if stopped.wait_for(|stop| *stop).await.is_ok() {
        handle.stop().await;
    }
}

async fn follow_health(link: String, mut status: watch::Receiver<LinkStatus>, health: Health) {
    let mut mirroring = false;
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        let state = if !now.open {
            State::Starting
        } else if let Some((flow, why)) = now.troubles.first().filter(|_| now.running == 0) {
            State::Failed(format!(
                "{} of {} flows do not move; {flow}: {why}",
                now.troubles.len(),
                now.flows
            ))
        } else if now.flows > 0 && now.running + now.troubles.len() < now.flows {
            State::Starting
        } else {
            State::Mirroring
        };
        if state == State::Mirroring && !mirroring {
            info!(link, flows = now.flows, running = now.running, "mirroring");
        }
        mirroring = state == State::Mirroring;
        health.set(&link, state);
    }
}

/// The longest time to connect that a link using the cluster asks for.
fn patience(config: &Config, cluster: &ClusterConfig) -> Duration {
    let uses = config
        .links
        .iter()
        .filter(|l| l.source == cluster.alias || l.target == cluster.alias);
    uses.map(|link| link.timeouts.connect)
        .max()
        .unwrap_or_else(|| Limits::default().connect)
}

fn cluster(rt: &Runtime, config: &ClusterConfig, connect: Duration) -> Cluster {
    let security =
        Security {
            tls: config.tls.as_ref().map(|tls| Tls {
                ca_file: tls.ca_file.clone(),
                client: tls.cert_file.clone().zip(tls.key_file.clone()).map(
                    |(cert_file, key_file)| ClientCertificate {
                        cert_file,
                        key_file,
                    },
                ),
                verify_server_name: true,
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
        "strait_flows",
        Unit::Count,
        "Flows (source partitions) by state."
    );
    describe_gauge!(
        "strait_lag_records",
        Unit::Count,
        "Source offsets not yet forwarded, all running flows together."
    );
    describe_gauge!(
        "strait_memory_bytes",
        Unit::Bytes,
        "Record bytes held or reserved in memory."
    );
}
