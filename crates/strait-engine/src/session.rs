//! A session: one ownership of a link's shard, from the lease and the fence to the last sync.

mod displaced;
pub(crate) mod error;
pub(crate) mod fence;
mod lease;
pub(crate) mod lock;
pub(crate) mod match_memory;
pub(crate) mod provenance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use strait_net::{KafkaError, NetError, NewTopic, Pool, Runtime};
use strait_wire::{OffsetSync, Position, PositionFlags, RegistryRecord, SyncRecord};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::internal_log::{InternalLog, Until, read_log};
use crate::limits;
use crate::registry::Registry;
use crate::routes::Routes;
use crate::session::displaced::Displaced;
use crate::session::error::SessionError;
use crate::session::fence::{Epoch, Fencer, Owner, fence_own, new_epoch, producer_record};
use crate::session::lease::Lease;
use crate::session::match_memory::MatchMemory;
use crate::session::provenance::{Producers, Provenance};
use crate::spec::{FlowKey, LinkSpec, STRAIT_TOPIC};
use crate::syncs_topic::{existing, syncs_topic};
use crate::takeover::TakeoverState;

/// The only shard of a link for now; the records carry its number for later.
pub(crate) const SHARD: i16 = 0;

/// Replicas of Strait's own topics, unless configured or not to be had.
const OWN_REPLICATION: i16 = 3;

/// An open session. Dropping it ends its tasks; nothing more is written.
pub(crate) struct Session {
    pub(crate) rt: Runtime,
    pub(crate) spec: Arc<LinkSpec>,
    pub(crate) source: Arc<Routes>,
    pub(crate) target: Arc<Routes>,
    pub(crate) epoch: Arc<Epoch>,
    pub(crate) first_epoch: i16,
    pub(crate) lease: Arc<Lease>,
    pub(crate) strait: InternalLog,
    pub(crate) syncs: InternalLog,
    pub(crate) fencer: Fencer,
    /// The topic of positions.
    pub(crate) syncs_topic: String,
    pub(crate) positions: BTreeMap<FlowKey, SyncRecord>,
    /// Positions that others' syncs stand over.
    pub(crate) displaced: Displaced,
    /// Why a flow's last position cannot be used by this version.
    pub(crate) unusable: BTreeMap<FlowKey, String>,
    pub(crate) closed_cleanly: bool,
    /// When the link was first started, in milliseconds.
    pub(crate) created_ms: i64,
    /// The highest epoch registered for every producer id the link ever used.
    pub(crate) producers: BTreeMap<i64, i16>,
    /// Whose the producer ids of other links were when the session was opened.
    pub(crate) others: BTreeMap<i64, String>,
    pub(crate) fenced_at: Instant,
    pub(crate) producer_expiration: Duration,
    /// Where the source's answers are read into; knows what they hold.
    pub(crate) pool: Pool,
    /// Who writes to the source.
    pub(crate) provenance: Arc<Provenance>,
    /// Where flows find their position by content.
    pub(crate) matching: MatchMemory,
    /// What may be taken over from MirrorMaker 2.
    pub(crate) takeover: TakeoverState,
    owner: Owner,
    ended: watch::Receiver<Option<Ending>>,
    _tasks: JoinSet<()>,
}

impl Session {
    /// Opens a session in the order of positions.md in the book, "Start of a session": registry, lease,
    /// new epoch, barrier on our own topics, producer record and lease, and only then the syncs.
    pub(crate) async fn open(
        rt: &Runtime,
        spec: &Arc<LinkSpec>,
        clusters: (String, String),
        source: Arc<Routes>,
        target: Arc<Routes>,
    ) -> Result<Self, SessionError> {
        let takeover = TakeoverState::look(spec).await?;
        let source_alias = spec.source.alias();
        let found = existing(&spec.target, |by| syncs_topic(by, source_alias)).await?;
        let syncs_topic = found.unwrap_or_else(|| spec.new_syncs_topic());
        let source_id = clusters.0.clone();
        let own = [STRAIT_TOPIC, &syncs_topic];
        create_own_topics(rt, &spec.name, spec.internal_replication, &target, &own).await?;
        let (registry, read_to) = read_registry(rt, spec, &target, Registry::default(), 0).await?;
        check_clusters(spec, &registry, &clusters)?;
        // A link that has run before has positions of its own.
        if registry.leases.is_empty() {
            takeover.refuse(spec)?;
        }
        let (mut registry, read_to) = await_lease(rt, spec, &target, registry, read_to).await?;

        let owner = Owner {
            link: spec.name.clone(),
            shard: SHARD,
            transactional_id: spec.transactional_id(SHARD),
            clusters: clusters.clone(),
        };
        let tid = &owner.transactional_id;
        let (producer_id, epoch) = new_epoch(rt, &spec.target, &spec.name, tid).await?;
        fence_own(
            rt,
            &spec.target,
            &spec.name,
            tid,
            (producer_id, epoch),
            &[STRAIT_TOPIC, &syncs_topic],
        )
        .await?;
        let marker = Until::Marker(producer_id, epoch);
        // What an older session wrote up to the fence counts; nothing of it can follow. Read on from where the first
        // look ended: an old registry is long.
        read_log(
            rt,
            &target,
            STRAIT_TOPIC,
            read_to,
            marker,
            |offset, record| {
                registry
                    .apply(&spec.name, record)
                    .map_err(|e| unreadable(STRAIT_TOPIC, offset, &e))
            },
        )
        .await?;
        let fenced_at = rt.now();
        let last = registry.leases.get(&SHARD);
        let closed_cleanly = last.is_some_and(|lease| lease.closed);
        if last.is_some_and(|lease| lease.producer_id != producer_id && !lease.closed) {
            // The marker of a new producer id does not reach the old one: its lease has to run out.
            warn!(link = %spec.name, id = "transactional-id-expired", "the transactional id had expired, so the last session cannot be fenced: waiting until its lease has run out");
            rt.sleep(limits::LEASE_VALIDITY).await;
        }

        let mut tasks = JoinSet::new();
        let (strait, task) = InternalLog::new(
            rt.clone(),
            &spec.name,
            target.clone(),
            STRAIT_TOPIC.to_owned(),
            (producer_id, epoch),
        );
        tasks.spawn(task);
        let (syncs, task) = InternalLog::new(
            rt.clone(),
            &spec.name,
            target.clone(),
            syncs_topic.clone(),
            (producer_id, epoch),
        );
        tasks.spawn(task);

        let sent = rt.boottime();
        let mut records = Vec::new();
        let created_ms = registry.created_ms.unwrap_or_else(|| rt.wall_ms());
        if registry.clusters.is_none() {
            records.push(RegistryRecord::Link {
                link: spec.name.clone(),
                source_cluster: clusters.0,
                target_cluster: clusters.1,
                shards: 1,
                created_ms,
            });
        }
        records.push(producer_record(&owner, producer_id, epoch));
        records.push(lease_record(rt, spec, producer_id, epoch, false));
        let now_ms = rt.wall_ms();
        strait
            .append(
                &spec.name,
                records.iter().map(|r| r.to_record(now_ms)).collect(),
            )
            .await?;
        let lease = Arc::new(Lease::new(rt.clone(), sent));
        let current = Arc::new(Epoch::new(producer_id, epoch));
        let (end, ended) = watch::channel(None);
        tasks.spawn(keep_lease(
            rt.clone(),
            spec.clone(),
            lease.clone(),
            strait.clone(),
            current.clone(),
            epoch,
            end,
        ));
        let (fencer, task) = Fencer::new(
            rt.clone(),
            spec.target.clone(),
            owner.clone(),
            current.clone(),
            strait.clone(),
        );
        tasks.spawn(task);

        let mut positions = BTreeMap::new();
        let mut unusable = BTreeMap::new();
        let displaced = Displaced::default();
        let read_to = read_log(rt, &target, &syncs_topic, 0, marker, |offset, record| {
            let key = |topic: &str, partition| FlowKey {
                topic: topic.to_owned(),
                partition,
            };
            match SyncRecord::from_record(record) {
                Ok(sync) => {
                    let key = key(&sync.topic, sync.partition);
                    let known = positions
                        .get(&key)
                        .and_then(|s: &SyncRecord| s.position.as_ref());
                    if sync.position.is_none() && (known.is_some() || unusable.contains_key(&key)) {
                        displaced.add(key);
                        return Ok(());
                    }
                    unusable.remove(&key);
                    // Written again since.
                    displaced.remove(&key);
                    positions.insert(key, sync);
                }
                // Whose it is can be told even if what it says cannot: that flow alone stops.
                Err(error) => {
                    let (raw, value) = (record.key.as_ref(), record.value.as_ref());
                    let pair = raw
                        .zip(value)
                        .and_then(|(k, v)| OffsetSync::decode(k, v).ok());
                    let pair = pair.ok_or_else(|| unreadable(&syncs_topic, offset, &error))?;
                    unusable.insert(key(&pair.topic, pair.partition), error.to_string());
                }
            }
            Ok(())
        })
        .await?;
        let watch = displaced.clone();
        tasks.spawn(watch.watch(rt.clone(), target.clone(), syncs_topic.clone(), read_to));
        let producer_expiration = producer_expiration(spec).await;
        let provenance = Provenance::new(rt.clone(), source.clone(), source_id);
        let provenance = Arc::new(provenance);
        let budget = usize::try_from(spec.memory_budget).unwrap_or(usize::MAX);
        let pool = Pool::new(limits::IDLE_BUFFERS, budget);
        info!(link = %spec.name, producer_id, epoch, positions = positions.len(), "session open");
        Ok(Self {
            rt: rt.clone(),
            spec: spec.clone(),
            source,
            target,
            epoch: current,
            first_epoch: epoch,
            lease,
            strait,
            syncs,
            fencer,
            syncs_topic,
            positions,
            displaced,
            unusable,
            closed_cleanly,
            created_ms,
            producers: registry
                .producers
                .iter()
                .map(|(&id, &(_, epoch))| (id, epoch))
                .collect(),
            others: registry.others,
            fenced_at,
            producer_expiration,
            provenance,
            matching: MatchMemory::new(rt.clone(), pool.clone(), budget),
            takeover,
            pool,
            owner,
            ended,
            _tasks: tasks,
        })
    }

    /// Whether the target's brokers may forget the producer of a batch of this age at their next check, and
    /// with it the fence. Where it was the last one, a late request of an older epoch would then be accepted.
    pub(crate) fn forgotten(&self, timestamp: i64) -> bool {
        let margin = Duration::from_secs(3600).min(self.producer_expiration / 2);
        let remembered = self.producer_expiration.saturating_sub(margin);
        let age = self.rt.wall_ms().saturating_sub(timestamp);
        age > i64::try_from(remembered.as_millis()).unwrap_or(i64::MAX)
    }

    /// Who writes to the source, where that decides about what is forwarded.
    pub(crate) fn producers_here(&self) -> Option<Arc<Producers>> {
        let producers = &self.provenance.producers;
        self.spec.only_local.then(|| producers.clone())
    }

    /// The same for what was forwarded up to a position and behind it, in its session.
    pub(crate) fn producers_then(&self, position: &Position) -> Option<Arc<Producers>> {
        let filtered = position.flags.contains(PositionFlags::PROVENANCE);
        filtered.then(|| self.provenance.producers.clone())
    }

    /// Why the session ended, once it has.
    pub(crate) async fn ended(&self) -> SessionError {
        let mut ended = self.ended.clone();
        let ending = match ended.wait_for(Option::is_some).await {
            Ok(ending) => ending.clone(),
            Err(_) => None,
        };
        match ending {
            Some(Ending::Fenced(why)) => SessionError::Fenced {
                link: self.spec.name.clone(),
                owner: None,
                why,
            },
            Some(Ending::Lost(why)) => SessionError::Lost(why),
            None => SessionError::Lost("its lease task ended".to_owned()),
        }
    }

    /// Closes the lease after the last syncs, so that the next session needs no fence.
    pub(crate) async fn close(&self) -> Result<(), SessionError> {
        self.lease.revoke();
        let record = lease_record(
            &self.rt,
            &self.spec,
            self.epoch.producer_id,
            self.first_epoch,
            true,
        );
        self.strait
            .append(&self.owner.link, vec![record.to_record(self.rt.wall_ms())])
            .await
    }
}

/// How the lease task ended.
#[derive(Clone, Debug)]
enum Ending {
    /// Somebody else took the link over: no new session may begin by itself.
    Fenced(String),
    Lost(String),
}

fn lease_record(
    rt: &Runtime,
    spec: &LinkSpec,
    producer_id: i64,
    epoch: i16,
    closed: bool,
) -> RegistryRecord {
    RegistryRecord::Lease {
        link: spec.name.clone(),
        shard: SHARD,
        producer_id,
        epoch,
        instance: spec.instance.clone(),
        wall_ms: rt.wall_ms(),
        closed,
    }
}

fn unreadable(topic: &str, offset: i64, error: &dyn std::fmt::Display) -> SessionError {
    SessionError::Registry {
        topic: topic.to_owned(),
        offset,
        why: error.to_string(),
    }
}

/// Strait's own topics, with the settings of positions.md in the book, "Records". MirrorMaker 2 reads the syncs.
pub(crate) async fn create_own_topics(
    rt: &Runtime,
    link: &str,
    replication: Option<i16>,
    target: &Arc<Routes>,
    topics: &[&str],
) -> Result<(), SessionError> {
    let cluster = target.cluster();
    let names: Vec<String> = topics.iter().map(|t| (*t).to_owned()).collect();
    target.watch(names.clone());
    let deadline = rt.now() + limits::REQUEST_TIMEOUT;
    let mut capped = false;
    loop {
        let metadata = cluster.metadata(Some(&names)).await?;
        let live = metadata.brokers.len().max(1) as i16;
        let mut missing = false;
        for name in topics {
            let found = metadata.topics.get(*name);
            if found.is_some_and(|t| {
                t.error == 0 && t.partitions.get(&0).is_some_and(|p| p.leader >= 0)
            }) {
                continue;
            }
            missing = true;
            if found.is_some_and(|t| t.error != 3) {
                continue;
            }
            let replicas = replication.unwrap_or_else(|| live.min(OWN_REPLICATION));
            let configs = [
                ("cleanup.policy", "compact"),
                ("segment.bytes", "67108864"),
                ("min.cleanable.dirty.ratio", "0.1"),
                ("compression.type", "lz4"),
            ];
            let topic = NewTopic {
                name: (*name).to_owned(),
                partitions: 1,
                replication: replicas,
                configs: configs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            };
            match cluster.create_topic(&topic).await {
                Ok(_) => {
                    info!(%link, topic = %name, replication = replicas, "created Strait's own topic on the target");
                    capped |= replication.is_none() && live < OWN_REPLICATION;
                }
                Err(error) if error.code() == Some(KafkaError(36)) => {}
                Err(error) if error.code().is_some() => {
                    return Err(SessionError::OwnTopic {
                        topic: (*name).to_owned(),
                        error,
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !missing {
            target.invalidate();
            if capped {
                warn!(
                    %link, id = "few-replicas",
                    "{} on the target: {live} instead of {OWN_REPLICATION} replicas, since there are no more live brokers: add replicas when there are (kafka-reassign-partitions), or set internal-replication-factor",
                    topics.join(" and ")
                );
            }
            return Ok(());
        }
        if rt.now() >= deadline {
            let why = "it has no leader; look at the brokers of this cluster".to_owned();
            return Err(SessionError::Internal {
                cluster: cluster.alias().to_owned(),
                topic: topics.join(" or "),
                why,
                denied: false,
            });
        }
        rt.sleep(limits::BACKOFF_MIN).await;
    }
}

async fn read_registry(
    rt: &Runtime,
    spec: &LinkSpec,
    target: &Arc<Routes>,
    mut registry: Registry,
    from: i64,
) -> Result<(Registry, i64), SessionError> {
    let next = read_log(
        rt,
        target,
        STRAIT_TOPIC,
        from,
        Until::End,
        |offset, record| {
            registry
                .apply(&spec.name, record)
                .map_err(|e| unreadable(STRAIT_TOPIC, offset, &e))
        },
    )
    .await?;
    Ok((registry, next))
}

fn check_clusters(
    spec: &LinkSpec,
    registry: &Registry,
    clusters: &(String, String),
) -> Result<(), SessionError> {
    match &registry.clusters {
        Some(known) if known != clusters => Err(SessionError::OtherClusters {
            link: spec.name.clone(),
            known_source: known.0.clone(),
            known_target: known.1.clone(),
            source_id: clusters.0.clone(),
            target_id: clusters.1.clone(),
        }),
        _ => Ok(()),
    }
}

/// Watches another instance's lease: an owner that is alive renews it well within the watching time. Returns the registry
/// as far as it was read.
async fn await_lease(
    rt: &Runtime,
    spec: &LinkSpec,
    target: &Arc<Routes>,
    registry: Registry,
    read_to: i64,
) -> Result<(Registry, i64), SessionError> {
    let Some(seen) = registry.leases.get(&SHARD).cloned() else {
        return Ok((registry, read_to));
    };
    if seen.closed || seen.instance == spec.instance || spec.take_over {
        return Ok((registry, read_to));
    }
    info!(
        link = %spec.name, owner = %seen.instance,
        "the link was last run by another instance: watching its lease for {} s", limits::LEASE_WATCH.as_secs()
    );
    rt.sleep(limits::LEASE_WATCH).await;
    let (registry, read_to) = read_registry(rt, spec, target, registry, read_to).await?;
    match registry.leases.get(&SHARD) {
        Some(now) if *now != seen && !now.closed => Err(SessionError::Owned {
            link: spec.name.clone(),
            owner: now.instance.clone(),
        }),
        _ => Ok((registry, read_to)),
    }
}

/// The instance that took the link over from the session of `ours`. It writes its lease right after its fence; where
/// none appears it died in between, or cannot be asked for.
pub(crate) async fn successor(
    rt: &Runtime,
    spec: &LinkSpec,
    target: &Arc<Routes>,
    ours: (i64, i16),
) -> Option<String> {
    let deadline = rt.now() + limits::SUCCESSOR_WAIT;
    loop {
        let read = read_registry(rt, spec, target, Registry::default(), 0);
        let registry = tokio::select! {
            biased;
            read = read => Some(read.ok()?.0),
            () = rt.sleep_until(deadline) => None,
        };
        if let Some(lease) = registry?.leases.get(&SHARD)
            && (lease.producer_id, lease.epoch) != ours
        {
            return Some(lease.instance.clone());
        }
        if rt.now() >= deadline {
            return None;
        }
        rt.sleep(limits::BACKOFF_MIN).await;
    }
}

/// Renews the lease until the session ends. Where the registry cannot be written, the coordinator's word
/// that we still own the transactional id is proof as well.
async fn keep_lease(
    rt: Runtime,
    spec: Arc<LinkSpec>,
    lease: Arc<Lease>,
    strait: InternalLog,
    current: Arc<Epoch>,
    epoch: i16,
    end: watch::Sender<Option<Ending>>,
) {
    let tid = spec.transactional_id(SHARD);
    loop {
        rt.sleep(limits::LEASE_RENEWAL).await;
        let sent = rt.boottime();
        let record =
            lease_record(&rt, &spec, current.producer_id, epoch, false).to_record(rt.wall_ms());
        let append = strait.append(&spec.name, vec![record]);
        tokio::pin!(append);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut append => break result,
                () = rt.sleep(limits::LEASE_RENEWAL) => {
                    let sent = rt.boottime();
                    // Another epoch than ours proves nothing either way while we raise it ourselves: no proof.
                    if let Ok(found) = spec.target.describe_transaction(&tid).await
                        && (found.producer_id, found.producer_epoch) == (current.producer_id, current.current())
                    {
                        lease.renew(sent);
                    }
                }
            }
        };
        match result {
            Ok(()) => lease.renew(sent),
            Err(error) => {
                lease.revoke();
                let ending = match error {
                    SessionError::Fenced { why, .. } => Ending::Fenced(why),
                    SessionError::Lost(why) => Ending::Lost(why),
                    other => Ending::Lost(other.to_string()),
                };
                let _ = end.send(Some(ending));
                return;
            }
        }
    }
}

async fn producer_expiration(spec: &LinkSpec) -> Duration {
    let read = async {
        let broker = *spec
            .target
            .metadata(Some(&[]))
            .await?
            .brokers
            .keys()
            .next()
            .unwrap_or(&0);
        let configs = spec.target.broker_configs(broker).await?;
        let found = configs
            .into_iter()
            .find(|c| c.name == "producer.id.expiration.ms")
            .and_then(|c| c.value);
        Ok::<_, NetError>(
            found
                .and_then(|v| v.parse().ok())
                .map(Duration::from_millis),
        )
    };
    match read.await {
        Ok(Some(expiration)) => expiration,
        Ok(None) => limits::PRODUCER_ID_EXPIRATION,
        Err(error) => {
            info!(link = %spec.name, "producer.id.expiration.ms of the target is unknown, taking 24 h: {error}");
            limits::PRODUCER_ID_EXPIRATION
        }
    }
}
