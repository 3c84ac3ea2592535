//! Offsets by time, by leader epoch, and the true end of a log.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest};

use crate::call::Call;
use crate::cluster::{Cluster, REQUEST_TIMEOUT};
use crate::connection::Connection;
use crate::coordinator::refusal;
use crate::error::NetError;
use crate::kafka_error::KafkaError;
use crate::metadata::topic_name;

/// An ordinary consumer.
const CONSUMER: BrokerId = BrokerId(-1);
/// Kafka's debugging consumer: it sees the log end rather than the high watermark.
const DEBUGGING: BrokerId = BrokerId(-2);

/// `ListOffsets` timestamp for the end.
const LATEST: i64 = -1;

impl Cluster {
    /// The offset for a time: `timestamp` -1 for the end, -2 for the beginning, otherwise the first
    /// record with a timestamp in ms at or after it (offset -1 if there is none). The end is the
    /// high watermark, or with `read_committed` the last stable offset, or with `log_end` the log
    /// end (replica id -2). Also returns the leader epoch of that offset, -1 if unknown.
    ///
    /// `leader` is (broker, leader epoch, -1 if unknown); where the broker answers that it is not
    /// the leader in that epoch, new metadata is asked for and the call made once more.
    ///
    /// A FOLLOWER answers `log_end` with its own end and no error: use [`Cluster::log_end`] where
    /// that matters.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with the partition's code; the usual ones of a connection.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partition: i32,
        leader: (i32, i32),
        timestamp: i64,
        read_committed: bool,
        log_end: bool,
    ) -> Result<(i64, i32), NetError> {
        let replica = if log_end { DEBUGGING } else { CONSUMER };
        let first = self
            .list_offsets_at(topic, partition, leader, timestamp, read_committed, replica)
            .await;
        if !wrong_leader(&first) {
            return first;
        }
        let leader = self.leader(topic, partition).await?;
        self.list_offsets_at(topic, partition, leader, timestamp, read_committed, replica)
            .await
    }

    async fn list_offsets_at(
        &self,
        topic: &str,
        partition: i32,
        (broker, epoch): (i32, i32),
        timestamp: i64,
        read_committed: bool,
        replica: BrokerId,
    ) -> Result<(i64, i32), NetError> {
        let connection = self.control(broker).await?;
        // The isolation level exists since version 2; below, everything is uncommitted.
        let min = if read_committed {
            2
        } else {
            ListOffsetsRequest::MIN
        };
        let version = connection.version(ListOffsetsRequest::API, ListOffsetsRequest::MAX, min)?;
        let request = ListOffsetsRequest::default()
            .with_replica_id(replica)
            .with_isolation_level(i8::from(read_committed))
            .with_topics(vec![
                ListOffsetsTopic::default()
                    .with_name(topic_name(topic))
                    .with_partitions(vec![
                        ListOffsetsPartition::default()
                            .with_partition_index(partition)
                            .with_current_leader_epoch(if version >= 4 { epoch } else { -1 })
                            .with_timestamp(timestamp),
                    ]),
            ]);
        let answer = connection
            .request_at(request, version, REQUEST_TIMEOUT)
            .await?;
        let found = answer
            .topics
            .iter()
            .filter(|t| t.name.as_str() == topic)
            .flat_map(|t| &t.partitions)
            .find(|p| p.partition_index == partition)
            .ok_or_else(|| missing(&connection, ListOffsetsRequest::NAME, topic, partition))?;
        refusal(
            found.error_code,
            ListOffsetsRequest::NAME,
            || place(topic, partition, &connection),
            None,
        )?;
        // A time may have no record; a log has a start and an end. Taken for 0, this would look like a lost log.
        if timestamp < 0 && found.offset < 0 {
            return Err(NetError::Malformed {
                peer: connection.peer().clone(),
                what: format!(
                    "the answer to {} says {} where the log of topic '{topic}' partition {partition} has to start or end",
                    ListOffsetsRequest::NAME,
                    found.offset
                ),
            });
        }
        Ok((found.offset, found.leader_epoch))
    }

    /// Where a leader epoch ends in the leader's log: the largest epoch at or below `epoch` that
    /// the leader knows, and the offset after its last record. (-1, -1) if it knows none. For the
    /// current epoch the end is the log end, above the high watermark too.
    ///
    /// `leader` is (broker, current leader epoch, -1 if unknown), refreshed once if it is wrong.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with the partition's code; [`NetError::Unsupported`] where the service
    /// has no such API.
    pub async fn offset_for_leader_epoch(
        &self,
        topic: &str,
        partition: i32,
        leader: (i32, i32),
        epoch: i32,
    ) -> Result<(i32, i64), NetError> {
        let first = self.epoch_end_at(topic, partition, leader, epoch).await;
        if !wrong_leader(&first) {
            return first;
        }
        let leader = self.leader(topic, partition).await?;
        self.epoch_end_at(topic, partition, leader, epoch).await
    }

    async fn epoch_end_at(
        &self,
        topic: &str,
        partition: i32,
        (broker, current_epoch): (i32, i32),
        epoch: i32,
    ) -> Result<(i32, i64), NetError> {
        let connection = self.control(broker).await?;
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(CONSUMER)
            .with_topics(vec![
                OffsetForLeaderTopic::default()
                    .with_topic(topic_name(topic))
                    .with_partitions(vec![
                        OffsetForLeaderPartition::default()
                            .with_partition(partition)
                            .with_current_leader_epoch(current_epoch)
                            .with_leader_epoch(epoch),
                    ]),
            ]);
        let answer = connection.request(request, REQUEST_TIMEOUT).await?;
        let name = OffsetForLeaderEpochRequest::NAME;
        let found = answer
            .topics
            .iter()
            .filter(|t| t.topic.as_str() == topic)
            .flat_map(|t| &t.partitions)
            .find(|p| p.partition == partition)
            .ok_or_else(|| missing(&connection, name, topic, partition))?;
        refusal(
            found.error_code,
            name,
            || place(topic, partition, &connection),
            None,
        )?;
        Ok((found.leader_epoch, found.end_offset))
    }

    /// The true end of the leader's log, high watermark or not, and the leader epoch it was read in.
    ///
    /// ListOffsets with replica id -2 gives it, but a follower answers that with its own end and no
    /// error. So leader and epoch come from one new Metadata answer, and the same broker is then
    /// asked where its current epoch ends, which a follower refuses.
    ///
    /// # Errors
    /// As [`Cluster::list_offsets`] and [`Cluster::offset_for_leader_epoch`]; NOT_LEADER_OR_FOLLOWER
    /// too where the two answers contradict each other.
    pub async fn log_end(&self, topic: &str, partition: i32) -> Result<(i64, i32), NetError> {
        let mut first_try = true;
        loop {
            let leader = self.leader(topic, partition).await?;
            let result = self.log_end_at(topic, partition, leader).await;
            if !(first_try && wrong_leader(&result)) {
                return result;
            }
            first_try = false;
        }
    }

    async fn log_end_at(
        &self,
        topic: &str,
        partition: i32,
        leader: (i32, i32),
    ) -> Result<(i64, i32), NetError> {
        let (end, _) = self
            .list_offsets_at(topic, partition, leader, LATEST, false, DEBUGGING)
            .await?;
        let (epoch, epoch_end) = self
            .epoch_end_at(topic, partition, leader, leader.1)
            .await?;
        // The log may have grown in between; it cannot have shrunk under one leader. An epoch in
        // which nothing was written yet is answered with an older one, or (-1, -1) where the log
        // holds nothing, and then the end is still its end.
        if epoch_end >= end || epoch_end == -1 && epoch == -1 {
            return Ok((end, leader.1));
        }
        Err(NetError::Kafka {
            code: KafkaError::NOT_LEADER_OR_FOLLOWER,
            api: ListOffsetsRequest::NAME,
            what: place(topic, partition, &self.control(leader.0).await?),
            message: Some(format!(
                "its log end is {end}, but its epoch {epoch} ends at {epoch_end}"
            )),
        })
    }
}

/// Whether the answer says that another broker, or another epoch, is the leader's.
fn wrong_leader<T>(result: &Result<T, NetError>) -> bool {
    match result {
        Err(NetError::UnknownBroker { .. }) => true,
        Err(e) => e.code().is_some_and(|c| matches!(c.0, 5 | 6 | 9 | 74 | 75)),
        Ok(_) => false,
    }
}

pub(crate) fn place(topic: &str, partition: i32, connection: &Connection) -> String {
    format!(
        "topic '{topic}' partition {partition} on {}",
        connection.peer()
    )
}

pub(crate) fn missing(connection: &Connection, api: &str, topic: &str, partition: i32) -> NetError {
    NetError::Malformed {
        peer: connection.peer().clone(),
        what: format!("the answer to {api} lacks topic '{topic}' partition {partition}"),
    }
}
