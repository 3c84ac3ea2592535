//! The fence: a marker of our newest epoch in every partition that is about to be written.
//!
//! A transaction that holds no data is begun over the partitions and aborted. Its marker raises the epoch
//! there, so that no request of an older session is accepted behind it. The fence stands where the marker is
//! *read*, not where EndTxn was answered (positions.md in the book, "Fence").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use strait_net::{Cluster, KafkaError, NetError, Runtime};
use strait_wire::RegistryRecord;
use tokio::sync::{mpsc, oneshot};

use crate::error::FlowError;
use crate::internal_log::InternalLog;
use crate::limits;
use crate::session::error::SessionError;

/// Our identity on the target.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) link: String,
    pub(crate) shard: i16,
    pub(crate) transactional_id: String,
    pub(crate) clusters: (String, String),
}

/// The epoch the shard uses last; flows that were opened earlier keep theirs.
#[derive(Debug)]
pub(crate) struct Epoch {
    pub(crate) producer_id: i64,
    epoch: AtomicI32,
}

impl Epoch {
    pub(crate) fn new(producer_id: i64, epoch: i16) -> Self {
        Self {
            producer_id,
            epoch: AtomicI32::new(i32::from(epoch)),
        }
    }

    pub(crate) fn current(&self) -> i16 {
        self.epoch.load(Ordering::SeqCst) as i16
    }
}

/// A handle to join the next barrier round.
#[derive(Clone, Debug)]
pub(crate) struct Fencer {
    queue: mpsc::Sender<Join>,
}

struct Join {
    topic: String,
    partition: i32,
    above: Option<i16>,
    done: oneshot::Sender<Result<(i64, i16), FenceError>>,
}

#[derive(Clone, Debug)]
enum FenceError {
    Fenced(String),
    Lost(String),
    Partition(KafkaError),
    Retry(String),
}

impl FenceError {
    fn of(error: &NetError) -> Self {
        if matches!(error, NetError::Unsupported { .. }) {
            return Self::Lost(error.to_string());
        }
        // TRANSACTIONAL_ID_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED
        if matches!(error.code(), Some(KafkaError(31 | 53))) {
            return Self::Lost(format!(
                "{error}; give Strait's user Describe and Write on transactional ids that begin with strait."
            ));
        }
        match error.code() {
            Some(code @ KafkaError(47 | 90)) => Self::Fenced(code.to_string()),
            Some(code @ KafkaError(49)) => {
                Self::Lost(format!("the transactional id expired ({code})"))
            }
            _ => Self::Retry(error.to_string()),
        }
    }
}

impl Fencer {
    pub(crate) fn new(
        rt: Runtime,
        cluster: Cluster,
        owner: Owner,
        epoch: Arc<Epoch>,
        registry: InternalLog,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, joins) = mpsc::channel(4_096);
        let task = Task {
            rt,
            cluster,
            owner,
            epoch,
            registry,
        };
        (Self { queue }, task.run(joins))
    }

    /// Puts a marker into the partition under an epoch above `above`. Returns the (producer id, epoch) whose
    /// marker has to be read there.
    pub(crate) async fn join(
        &self,
        link: &str,
        topic: &str,
        partition: i32,
        above: Option<i16>,
    ) -> Result<(i64, i16), FlowError> {
        let (done, answer) = oneshot::channel();
        let ended = || SessionError::Lost("its fencing task ended".to_owned());
        let join = Join {
            topic: topic.to_owned(),
            partition,
            above,
            done,
        };
        self.queue.send(join).await.map_err(|_| ended())?;
        answer
            .await
            .map_err(|_| ended())?
            .map_err(|error| match error {
                FenceError::Fenced(why) => SessionError::Fenced {
                    link: link.to_owned(),
                    owner: None,
                    why,
                }
                .into(),
                FenceError::Lost(why) => SessionError::Lost(why).into(),
                FenceError::Partition(error) => FlowError::NotAppended(error),
                FenceError::Retry(why) => FlowError::Doubt(format!("the fence failed: {why}")),
            })
    }
}

struct Task {
    rt: Runtime,
    cluster: Cluster,
    owner: Owner,
    epoch: Arc<Epoch>,
    registry: InternalLog,
}

impl Task {
    async fn run(self, mut joins: mpsc::Receiver<Join>) {
        while let Some(first) = joins.recv().await {
            self.rt.sleep(limits::BARRIER_GATHER).await;
            let mut round = vec![first];
            while round.len() < limits::BARRIER_PARTITIONS {
                let Ok(join) = joins.try_recv() else { break };
                round.push(join);
            }
            if let Err(error) = self.raise(round.iter().filter_map(|j| j.above).max()).await {
                for join in round {
                    let _ = join.done.send(Err(error.clone()));
                }
                continue;
            }
            let partitions: Vec<(String, i32)> = round
                .iter()
                .map(|j| (j.topic.clone(), j.partition))
                .collect();
            let identity = (self.epoch.producer_id, self.epoch.current());
            let results = barrier(
                &self.rt,
                &self.cluster,
                &self.owner.transactional_id,
                identity,
                &partitions,
            )
            .await;
            for (join, result) in round.into_iter().zip(results) {
                let _ = join.done.send(result.map(|()| identity));
            }
        }
    }

    // A record that was sent keeps its sequence within an epoch, so a flow in doubt needs a new one.
    async fn raise(&self, above: Option<i16>) -> Result<(), FenceError> {
        let current = self.epoch.current();
        if above.is_none_or(|above| current > above) {
            return Ok(());
        }
        let held = (self.epoch.producer_id, current);
        let (producer_id, epoch) = init(
            &self.rt,
            &self.cluster,
            &self.owner.transactional_id,
            Some(held),
        )
        .await?;
        if producer_id != self.epoch.producer_id {
            return Err(FenceError::Lost(
                "the broker gave it another producer id".to_owned(),
            ));
        }
        let record = producer_record(&self.owner, producer_id, epoch).to_record(self.rt.wall_ms());
        self.registry
            .append(&self.owner.link, vec![record])
            .await
            .map_err(|error| match error {
                SessionError::Fenced { why, .. } => FenceError::Fenced(why),
                other => FenceError::Lost(other.to_string()),
            })?;
        self.epoch.epoch.store(i32::from(epoch), Ordering::SeqCst);
        Ok(())
    }
}

/// The registry's record of a producer id.
pub(crate) fn producer_record(
    owner: &Owner,
    producer_id: i64,
    highest_epoch: i16,
) -> RegistryRecord {
    RegistryRecord::Producer {
        producer_id,
        link: owner.link.clone(),
        shard: owner.shard,
        highest_epoch,
        source_cluster: owner.clusters.0.clone(),
        target_cluster: owner.clusters.1.clone(),
    }
}

/// InitProducerId, patient with a coordinator that is loading or still ends the last barrier. With `held`
/// the coordinator raises the epoch only if it is still ours (KIP-360), so that a process that was
/// taken over learns of it instead of fencing its successor.
async fn init(
    rt: &Runtime,
    cluster: &Cluster,
    transactional_id: &str,
    held: Option<(i64, i16)>,
) -> Result<(i64, i16), FenceError> {
    let deadline = rt.now() + limits::REQUEST_TIMEOUT * 2;
    let timeout_ms = limits::BARRIER_TIMEOUT.as_millis() as i32;
    loop {
        match cluster
            .init_producer_id(Some(transactional_id), timeout_ms, held)
            .await
        {
            Ok(identity) => return Ok(identity),
            Err(error) => match FenceError::of(&error) {
                FenceError::Retry(_) if rt.now() < deadline => {
                    rt.sleep(rt.jitter(limits::BACKOFF_MIN)).await
                }
                other => return Err(other),
            },
        }
    }
}

/// A new epoch for a new session; older sessions of the same shard lose the coordinator's favour.
pub(crate) async fn new_epoch(
    rt: &Runtime,
    cluster: &Cluster,
    link: &str,
    transactional_id: &str,
) -> Result<(i64, i16), SessionError> {
    init(rt, cluster, transactional_id, None)
        .await
        .map_err(|error| session_error(link, transactional_id, error))
}

/// One barrier over Strait's own partitions.
pub(crate) async fn fence_own(
    rt: &Runtime,
    cluster: &Cluster,
    link: &str,
    transactional_id: &str,
    identity: (i64, i16),
    topics: &[&str],
) -> Result<(), SessionError> {
    let partitions: Vec<(String, i32)> = topics.iter().map(|t| ((*t).to_owned(), 0)).collect();
    for result in barrier(rt, cluster, transactional_id, identity, &partitions).await {
        result.map_err(|error| session_error(link, transactional_id, error))?;
    }
    Ok(())
}

fn session_error(link: &str, transactional_id: &str, error: FenceError) -> SessionError {
    match error {
        FenceError::Fenced(why) => SessionError::Fenced {
            link: link.to_owned(),
            owner: None,
            why,
        },
        FenceError::Lost(why) | FenceError::Retry(why) => SessionError::Lost(format!(
            "no fence for transactional id {transactional_id}: {why}"
        )),
        FenceError::Partition(error) => {
            SessionError::Lost(format!("its own topics cannot be fenced: {error}"))
        }
    }
}

/// AddPartitionsToTxn and EndTxn(abort) over the partitions; each gets its own result.
async fn barrier(
    rt: &Runtime,
    cluster: &Cluster,
    transactional_id: &str,
    (producer_id, epoch): (i64, i16),
    partitions: &[(String, i32)],
) -> Vec<Result<(), FenceError>> {
    let mut results: Vec<Result<(), FenceError>> = partitions.iter().map(|_| Ok(())).collect();
    let deadline = rt.now() + limits::REQUEST_TIMEOUT * 2;
    let fail_all = |mut results: Vec<Result<(), FenceError>>, error: &FenceError| {
        for result in results.iter_mut().filter(|r| r.is_ok()) {
            *result = Err(error.clone());
        }
        results
    };
    loop {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for ((topic, partition), _) in partitions.iter().zip(&results).filter(|(_, r)| r.is_ok()) {
            topics.entry(topic).or_default().push(*partition);
        }
        if topics.is_empty() {
            return results;
        }
        let topics: Vec<(String, Vec<i32>)> =
            topics.into_iter().map(|(t, p)| (t.to_owned(), p)).collect();
        let error = match cluster
            .add_partitions_to_txn(transactional_id, producer_id, epoch, &topics)
            .await
        {
            Err(error) => FenceError::of(&error),
            Ok(answers) => {
                let mut again = None;
                let mut refused = false;
                for (topic, partition, code) in answers {
                    match code {
                        // OPERATION_NOT_ATTEMPTED: another partition of the round was refused.
                        0 | 55 => {}
                        47 | 90 => again = Some(FenceError::Fenced(KafkaError(code).to_string())),
                        14..=16 | 51 => {
                            again = Some(FenceError::Retry(KafkaError(code).to_string()))
                        }
                        49 => again = Some(FenceError::Lost(KafkaError(code).to_string())),
                        _ => {
                            refused = true;
                            if let Some(at) = partitions
                                .iter()
                                .position(|p| p.0 == topic && p.1 == partition)
                            {
                                results[at] = Err(FenceError::Partition(KafkaError(code)));
                            }
                        }
                    }
                }
                match again {
                    Some(error) => error,
                    None if refused => continue,
                    None => break,
                }
            }
        };
        match error {
            FenceError::Retry(_) if rt.now() < deadline => {
                rt.sleep(rt.jitter(limits::BARRIER_GATHER * 2)).await
            }
            error => return fail_all(results, &error),
        }
    }
    loop {
        let error = match cluster
            .end_txn(transactional_id, producer_id, epoch, false)
            .await
        {
            Ok(()) => return results,
            // The transaction timed out and the coordinator ended it under a higher epoch.
            Err(error) if error.code() == Some(KafkaError(48)) => FenceError::Lost(
                "the barrier's transaction was gone before it was ended".to_owned(),
            ),
            Err(error) => FenceError::of(&error),
        };
        match error {
            FenceError::Retry(_) if rt.now() < deadline => {
                rt.sleep(rt.jitter(limits::BARRIER_GATHER * 2)).await
            }
            error => return fail_all(results, &error),
        }
    }
}
