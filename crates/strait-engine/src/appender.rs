//! Produce requests of one batch to partition 0 of one topic.

use std::sync::Arc;

use bytes::Bytes;
use strait_net::{Connection, NetError};
use strait_wire::{ProducePartition, ProduceRequest, ProduceResponse};

use crate::error::FlowError;
use crate::limits;
use crate::routes::{Lookup, Route, Routes};

/// Produce's API key.
pub(crate) const PRODUCE: i16 = 0;
/// Produce by topic name; from 13 on by topic id.
pub(crate) const PRODUCE_BY_NAME: i16 = 12;
/// The newest Produce version spoken.
pub(crate) const PRODUCE_NEWEST: i16 = 13;

/// One topic's partition 0, with a connection of its own to the leader.
pub(crate) struct Appender {
    routes: Arc<Routes>,
    topic: String,
    connection: Option<(i32, Connection)>,
}

impl Appender {
    pub(crate) fn new(routes: Arc<Routes>, topic: String) -> Self {
        Self {
            routes,
            topic,
            connection: None,
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// The alias of the topic's cluster.
    pub(crate) fn cluster(&self) -> &str {
        self.routes.cluster().alias()
    }

    /// Something went wrong: look for the leader again.
    pub(crate) fn anew(&mut self) {
        self.connection = None;
        self.routes.invalidate();
    }

    /// One try, acknowledged by all replicas in sync: the partition's error code and the broker's words.
    pub(crate) async fn produce(
        &mut self,
        batch: Bytes,
    ) -> Result<(i16, Option<String>), FlowError> {
        let route = match self.routes.find(&self.topic, 0).await? {
            Lookup::Leader(route) => route,
            Lookup::Denied => return Err(FlowError::denied(&self.routes, &self.topic)),
            _ => {
                return Err(FlowError::NoLeader {
                    cluster: self.cluster().to_owned(),
                    topic: self.topic.clone(),
                    partition: 0,
                });
            }
        };
        let connection = self.connection(route).await?;
        let newest = if route.topic_id.is_nil() {
            PRODUCE_BY_NAME
        } else {
            PRODUCE_NEWEST
        };
        let version = connection.version(PRODUCE, newest, 3)?;
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: limits::PRODUCE_TIMEOUT.as_millis() as i32,
            partitions: vec![ProducePartition {
                topic: self.topic.clone(),
                topic_id: route.topic_id,
                partition: 0,
                batch: vec![batch],
            }],
        };
        let body = request.encode(version)?;
        let answer = connection
            .send(PRODUCE, version, body, limits::REQUEST_TIMEOUT, None)
            .await?;
        let mut response = ProduceResponse::decode(version, answer)
            .map_err(|error| NetError::malformed(connection.peer(), "Produce", version, error))?;
        if let Some(pause) = response.throttled() {
            connection.paused(pause);
        }
        match response.partitions.pop() {
            Some(part) => Ok((part.error, part.message)),
            None => Ok((-1, None)),
        }
    }

    async fn connection(&mut self, route: Route) -> Result<Connection, NetError> {
        if let Some((broker, connection)) = &self.connection
            && *broker == route.broker
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let connection = self.routes.cluster().connect(route.broker).await?;
        self.connection = Some((route.broker, connection.clone()));
        Ok(connection)
    }
}
