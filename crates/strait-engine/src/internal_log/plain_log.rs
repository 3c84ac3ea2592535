//! Single records in a topic of one partition that is not the link's alone: heartbeats.

use std::sync::Arc;
use std::time::Duration;

use strait_net::{Cluster, NetError, Runtime};
use strait_wire::{BatchBuilder, Codec, Isolation, Record, Stamp};

use crate::appender::Appender;
use crate::error::FlowError;
use crate::limits;
use crate::partition::{PartitionReader, batches_from};
use crate::routes::Routes;

/// Partition 0 of a topic, for records of which the last one counts. Nothing of a link's session is in it: no fence
/// holds them back, and no position depends on them.
pub struct PlainLog {
    rt: Runtime,
    routes: Arc<Routes>,
    appender: Appender,
}

impl PlainLog {
    /// Connects to nothing yet.
    pub fn new(rt: &Runtime, cluster: Cluster, topic: &str) -> Self {
        let routes = Arc::new(Routes::new(rt.clone(), cluster));
        let appender = Appender::new(routes.clone(), topic.to_owned());
        Self {
            rt: rt.clone(),
            routes,
            appender,
        }
    }

    /// Appends one record, by one try; returns once all replicas in sync have it.
    ///
    /// # Errors
    /// What the cluster answers; after any error it may or may not be there, so that it may stand twice when it is appended again.
    pub async fn append(&mut self, record: Record) -> Result<(), FlowError> {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.push(record);
        let answered = self.appender.produce(builder.build(Stamp::NONE)?).await;
        let (topic, cluster) = (self.appender.topic(), self.appender.cluster());
        let error = match answered {
            Ok((0, _)) => return Ok(()),
            Ok((code, message)) => {
                let what = format!("topic '{topic}' of cluster '{cluster}'");
                let mut error = NetError::kafka(code, "Produce", what);
                if let NetError::Kafka { message: words, .. } = &mut error {
                    *words = message;
                }
                error.into()
            }
            Err(error) => error,
        };
        self.appender.anew();
        Err(error)
    }

    /// The last record, none where the log is empty or ends with something else: a marker, or what compaction left.
    ///
    /// # Errors
    /// What the cluster answers.
    pub async fn last(&self) -> Result<Option<Record>, FlowError> {
        let reader = PartitionReader {
            source: false,
            rt: self.rt.clone(),
            routes: self.routes.clone(),
            topic: self.appender.topic().to_owned(),
            partition: 0,
            isolation: Isolation::ReadUncommitted,
        };
        let end = reader.log_end().await?;
        if end <= reader.log_start().await? {
            return Ok(None);
        }
        let fetched = reader.fetch(end - 1, -1, Duration::ZERO).await?;
        let batches = batches_from(&fetched.part, end - 1)?;
        let Some(batch) = batches.last().filter(|b| !b.header.attributes.control()) else {
            return Ok(None);
        };
        Ok(batch.decode(limits::DECODE_LEAST_BYTES)?.pop())
    }
}
