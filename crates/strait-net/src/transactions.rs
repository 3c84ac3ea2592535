//! Producer ids, transactions, and what brokers remember of producers.

use std::collections::BTreeMap;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest,
    EndTxnRequest, InitProducerIdRequest, ProducerId, TransactionalId,
};

use crate::call::Call;
use crate::cluster::{Cluster, REQUEST_TIMEOUT};
use crate::coordinator::{CoordinatorKind, named, refusal};
use crate::error::NetError;
use crate::kafka_error::KafkaError;
use crate::metadata::{text, topic_name};
use crate::offsets::{missing, place};

const TRANSACTION: CoordinatorKind = CoordinatorKind::Transaction;

/// The state of a transactional id at its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    /// `Empty`, `Ongoing`, `PrepareCommit`, `PrepareAbort`, `CompleteCommit`, `CompleteAbort`, ...
    pub state: String,
    /// Current producer id.
    pub producer_id: i64,
    /// Current producer epoch.
    pub producer_epoch: i16,
    /// Timeout of its transactions, in ms.
    pub timeout_ms: i32,
    /// Start of the open transaction in ms since the epoch, or -1.
    pub start_ms: i64,
    /// Partitions that still wait for their marker.
    pub topics: BTreeMap<String, Vec<i32>>,
}

/// What a replica remembers of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i32,
    /// Sequence of its last record, or -1 (after a marker).
    pub last_sequence: i32,
    /// Timestamp of its last record, in ms.
    pub last_timestamp: i64,
    /// Epoch of the coordinator that wrote its last marker, or -1.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, or -1.
    pub txn_start_offset: i64,
}

impl Cluster {
    /// A producer id and epoch: with a transactional id the id's own, its epoch raised; without, a
    /// new id at epoch 0. Never returns a producer id below 0.
    ///
    /// # Errors
    /// [`NetError::Kafka`], to be retried by the caller after a pause where
    /// [`NetError::action`] says `Retry`: COORDINATOR_LOAD_IN_PROGRESS (14, for a while after a
    /// broker's start), COORDINATOR_NOT_AVAILABLE (15), NOT_COORDINATOR (16, again after it was looked up anew),
    /// CONCURRENT_TRANSACTIONS (51). A success that carries producer id -1 is reported as 14. With `held`, the
    /// epoch is raised only if that producer id and epoch are still the id's own (KIP-360, brokers from 2.5):
    /// otherwise PRODUCER_FENCED (90).
    pub async fn init_producer_id(
        &self,
        transactional_id: Option<&str>,
        transaction_timeout_ms: i32,
        held: Option<(i64, i16)>,
    ) -> Result<(i64, i16), NetError> {
        // The defaults of `kafka-protocol` would ask for the transactional id "".
        let request = InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(transaction_timeout_ms)
            .with_producer_id(ProducerId(held.map_or(-1, |(id, _)| id)))
            .with_producer_epoch(held.map_or(-1, |(_, epoch)| epoch));
        let (connection, answer) = match transactional_id {
            Some(id) => {
                self.ask_coordinator(TRANSACTION, id, request, |r| r.error_code)
                    .await?
            }
            None => {
                let connection = self.any().await?;
                let answer = connection.request(request, REQUEST_TIMEOUT).await?;
                (connection, answer)
            }
        };
        let what = || match transactional_id {
            Some(id) => format!("{} on {}", named(TRANSACTION, id), connection.peer()),
            None => format!("a new producer on {}", connection.peer()),
        };
        let name = InitProducerIdRequest::NAME;
        refusal(answer.error_code, name, what, None)?;
        let (id, epoch) = (answer.producer_id.0, answer.producer_epoch);
        if id < 0 || epoch < 0 {
            return Err(NetError::Kafka {
                code: KafkaError::COORDINATOR_LOAD_IN_PROGRESS,
                api: name,
                what: what(),
                message: Some(format!("it gave the producer id {id} with epoch {epoch}")),
            });
        }
        Ok((id, epoch))
    }

    /// Adds partitions to the transaction of (transactional id, producer id, epoch), opening it if
    /// need be. Returns the code of every partition: either all are 0, or none was added. Version 3
    /// at most, because later ones are for brokers.
    ///
    /// # Errors
    /// The usual ones of a connection; codes are in the answer.
    pub async fn add_partitions_to_txn(
        &self,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        partitions: &[(String, Vec<i32>)],
    ) -> Result<Vec<(String, i32, i16)>, NetError> {
        let topics = partitions
            .iter()
            .map(|(topic, partitions)| {
                AddPartitionsToTxnTopic::default()
                    .with_name(topic_name(topic))
                    .with_partitions(partitions.clone())
            })
            .collect();
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(transactional_id)))
            .with_v3_and_below_producer_id(ProducerId(producer_id))
            .with_v3_and_below_producer_epoch(producer_epoch)
            .with_v3_and_below_topics(topics);
        let (_, answer) = self
            .ask_coordinator(TRANSACTION, transactional_id, request, |r| {
                r.results_by_topic_v3_and_below
                    .iter()
                    .flat_map(|t| &t.results_by_partition)
                    .map(|p| p.partition_error_code)
                    .find(|code| *code == KafkaError::NOT_COORDINATOR.0)
                    .unwrap_or(0)
            })
            .await?;
        let results = answer.results_by_topic_v3_and_below;
        Ok(results
            .into_iter()
            .flat_map(|t| {
                let name = t.name.to_string();
                t.results_by_partition
                    .into_iter()
                    .map(move |p| (name.clone(), p.partition_index, p.partition_error_code))
            })
            .collect())
    }

    /// Commits or aborts the open transaction. Version 4 at most, which keeps the producer's epoch.
    /// The markers are written after the answer: the answer proves nothing about any partition.
    ///
    /// # Errors
    /// [`NetError::Kafka`], for example INVALID_TXN_STATE (48) if none is open, PRODUCER_FENCED
    /// (90).
    pub async fn end_txn(
        &self,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
    ) -> Result<(), NetError> {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(transactional_id)))
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(producer_epoch)
            .with_committed(commit);
        let (connection, answer) = self
            .ask_coordinator(TRANSACTION, transactional_id, request, |r| r.error_code)
            .await?;
        refusal(
            answer.error_code,
            EndTxnRequest::NAME,
            || {
                let id = named(TRANSACTION, transactional_id);
                format!("{id} on {}", connection.peer())
            },
            None,
        )
    }

    /// The state of a transactional id (Kafka 3.0 and later).
    ///
    /// # Errors
    /// [`NetError::Kafka`], for example TRANSACTIONAL_ID_NOT_FOUND (105).
    pub async fn describe_transaction(
        &self,
        transactional_id: &str,
    ) -> Result<TransactionDescription, NetError> {
        let id = TransactionalId(text(transactional_id));
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id]);
        let (connection, answer) = self
            .ask_coordinator(TRANSACTION, transactional_id, request, |r| {
                r.transaction_states.first().map_or(0, |s| s.error_code)
            })
            .await?;
        let what = || {
            let id = named(TRANSACTION, transactional_id);
            format!("{id} on {}", connection.peer())
        };
        let found = answer
            .transaction_states
            .into_iter()
            .find(|s| s.transactional_id.as_str() == transactional_id)
            .ok_or_else(|| NetError::Malformed {
                peer: connection.peer().clone(),
                what: format!("the answer to DescribeTransactions lacks '{transactional_id}'"),
            })?;
        refusal(
            found.error_code,
            DescribeTransactionsRequest::NAME,
            what,
            None,
        )?;
        Ok(TransactionDescription {
            state: found.transaction_state.to_string(),
            producer_id: found.producer_id.0,
            producer_epoch: found.producer_epoch,
            timeout_ms: found.transaction_timeout_ms,
            start_ms: found.transaction_start_time_ms,
            topics: found
                .topics
                .into_iter()
                .map(|t| (t.topic.to_string(), t.partitions))
                .collect(),
        })
    }

    /// What `broker` remembers of the producers of one partition (Kafka 2.8 and later). A FOLLOWER
    /// answers with its own state and no error; be sure of the leader first.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with the partition's code.
    pub async fn describe_producers(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
    ) -> Result<Vec<ProducerState>, NetError> {
        let asked = [(topic.to_owned(), vec![partition])];
        let connection = self.control(broker).await?;
        let mut answer = self.describe_producers_of(broker, &asked).await?;
        match answer.remove(&(topic.to_owned(), partition)) {
            Some(Ok(producers)) => Ok(producers),
            Some(Err(code)) => Err(NetError::kafka(
                code.0,
                DescribeProducersRequest::NAME,
                place(topic, partition, &connection),
            )),
            None => Err(missing(
                &connection,
                DescribeProducersRequest::NAME,
                topic,
                partition,
            )),
        }
    }

    /// [`Cluster::describe_producers`] for many partitions of one broker in one request; each with
    /// its own result.
    ///
    /// # Errors
    /// The usual ones of a connection.
    pub async fn describe_producers_of(
        &self,
        broker: i32,
        partitions: &[(String, Vec<i32>)],
    ) -> Result<BTreeMap<(String, i32), Result<Vec<ProducerState>, KafkaError>>, NetError> {
        let topics = partitions
            .iter()
            .map(|(topic, partitions)| {
                TopicRequest::default()
                    .with_name(topic_name(topic))
                    .with_partition_indexes(partitions.clone())
            })
            .collect();
        let request = DescribeProducersRequest::default().with_topics(topics);
        let connection = self.control(broker).await?;
        let answer = connection.request(request, REQUEST_TIMEOUT).await?;
        let mut described = BTreeMap::new();
        for topic in answer.topics {
            let name = topic.name.to_string();
            for p in topic.partitions {
                let result = match p.error_code {
                    0 => Ok(p.active_producers.into_iter().map(producer_state).collect()),
                    code => Err(KafkaError(code)),
                };
                described.insert((name.clone(), p.partition_index), result);
            }
        }
        Ok(described)
    }
}

fn producer_state(p: describe_producers_response::ProducerState) -> ProducerState {
    ProducerState {
        producer_id: p.producer_id.0,
        producer_epoch: p.producer_epoch,
        last_sequence: p.last_sequence,
        last_timestamp: p.last_timestamp,
        coordinator_epoch: p.coordinator_epoch,
        txn_start_offset: p.current_txn_start_offset,
    }
}
