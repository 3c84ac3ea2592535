//! The registry from outside of a session: followed record by record, and written to where no lease is needed.

use std::sync::Arc;
use std::time::Duration;

use strait_net::{Cluster, Runtime};
use strait_wire::{Isolation, Record, RegistryRecord};
use uuid::Uuid;

use crate::error::FlowError;
use crate::internal_log::{Until, append_once, read_log};
use crate::limits;
use crate::partition::{PartitionReader, batches_from};
use crate::routes::{Lookup, Routes};
use crate::session::create_own_topics;
use crate::session::error::SessionError;
use crate::spec::STRAIT_TOPIC;

/// What a look at the registry brings.
#[derive(Clone, Copy, Debug)]
pub enum RegistryNews<'r> {
    /// Another log begins: what was read before holds no longer.
    Anew,
    /// The next record.
    Record(&'r Record),
}

/// `mm2-strait.internal` on one cluster, read from its beginning and then followed. Needs Describe and Read on it; to
/// append, Write.
pub struct RegistryLog {
    rt: Runtime,
    routes: Arc<Routes>,
    reader: PartitionReader,
    /// The next offset to read, of the topic of this id; none before anything was read.
    next: Option<(i64, Uuid)>,
}

impl RegistryLog {
    /// The registry of this cluster, of which nothing was read yet.
    pub fn new(rt: Runtime, cluster: Cluster) -> Self {
        let routes = Arc::new(Routes::new(rt.clone(), cluster));
        let reader = PartitionReader {
            rt: rt.clone(),
            routes: routes.clone(),
            topic: STRAIT_TOPIC.to_owned(),
            partition: 0,
            source: false,
            isolation: Isolation::ReadUncommitted,
        };
        Self {
            rt,
            routes,
            reader,
            next: None,
        }
    }

    /// Whether the registry was there and was read to an end.
    pub fn was_read(&self) -> bool {
        self.next.is_some()
    }

    /// Tells `each` everything that is new, up to the log end of this moment at least. A registry that does not exist
    /// yet is empty.
    ///
    /// # Errors
    /// The cluster cannot be reached, or the topic cannot be read.
    pub async fn read_to_end(
        &mut self,
        mut each: impl FnMut(RegistryNews<'_>) + Send,
    ) -> Result<(), SessionError> {
        let Some(id) = self.topic().await? else {
            return Ok(());
        };
        let from = self.from(id, &mut each);
        let end = self.reader.log_end().await.map_err(|e| self.internal(e))?;
        // Its end was lost, with what was read of it.
        let from = if from > end {
            each(RegistryNews::Anew);
            0
        } else {
            from
        };
        let news = |_, record: &Record| {
            each(RegistryNews::Record(record));
            Ok(())
        };
        let next = read_log(&self.rt, &self.routes, STRAIT_TOPIC, from, Until::End, news).await?;
        self.next = Some((next, id));
        Ok(())
    }

    /// The same at the price of one request, which may miss what was written a moment ago.
    ///
    /// # Errors
    /// As [`read_to_end`](Self::read_to_end).
    pub async fn poll(
        &mut self,
        mut each: impl FnMut(RegistryNews<'_>) + Send,
    ) -> Result<(), SessionError> {
        let known = match (self.topic().await?, self.next) {
            (None, _) => return Ok(()),
            (Some(id), Some((next, known))) if known == id => Some(next),
            _ => None,
        };
        let Some(mut next) = known else {
            return self.read_to_end(each).await;
        };
        loop {
            let fetched = self
                .reader
                .fetch(next, -1, Duration::ZERO)
                .await
                .map_err(|e| self.internal(e))?;
            if fetched.part.error != 0 {
                return self.read_to_end(each).await;
            }
            let batches = batches_from(&fetched.part, next).map_err(|e| self.internal(e))?;
            if batches.is_empty() {
                return Ok(());
            }
            for batch in batches {
                next = batch.header.last_offset() + 1;
                if batch.header.attributes.control() {
                    continue;
                }
                let records = batch
                    .decode(limits::DECODE_LEAST_BYTES)
                    .map_err(|e| self.internal(e.into()))?;
                for record in &records {
                    each(RegistryNews::Record(record));
                }
            }
            self.next = self.next.map(|(_, id)| (next, id));
        }
    }

    /// Appends a record that is no session's, once all in-sync replicas have it; it may stand there twice. Where the
    /// topic does not exist yet it is created for this link, with `replication` replicas.
    ///
    /// # Errors
    /// The cluster cannot be reached, or refuses it; it may have been appended all the same where it did not answer.
    pub async fn append(
        &mut self,
        link: &str,
        replication: Option<i16>,
        record: &RegistryRecord,
    ) -> Result<(), SessionError> {
        if self.topic().await?.is_none() {
            create_own_topics(&self.rt, link, replication, &self.routes, &[STRAIT_TOPIC]).await?;
        }
        let record = record.to_record(self.rt.wall_ms());
        append_once(&self.rt, &self.routes, STRAIT_TOPIC, record).await
    }

    /// The topic's id, nil where the cluster has none; nothing where it has no such topic.
    async fn topic(&self) -> Result<Option<Uuid>, SessionError> {
        match self.routes.find(STRAIT_TOPIC, 0).await? {
            Lookup::Missing | Lookup::Unknown => Ok(None),
            Lookup::Denied => Err(self.internal(FlowError::denied(&self.routes, STRAIT_TOPIC))),
            Lookup::Leader(route) => Ok(Some(route.topic_id)),
            // The reader waits for one, and says so where none comes.
            Lookup::NoLeader => Ok(Some(
                self.reader.topic_id().await.map_err(|e| self.internal(e))?,
            )),
        }
    }

    /// Where to read on in the topic of this id.
    fn from(&self, id: Uuid, each: &mut impl FnMut(RegistryNews<'_>)) -> i64 {
        match self.next {
            Some((next, known)) if known == id => next,
            Some(_) => {
                each(RegistryNews::Anew);
                0
            }
            None => 0,
        }
    }

    fn internal(&self, error: FlowError) -> SessionError {
        SessionError::Internal {
            cluster: self.routes.cluster().alias().to_owned(),
            topic: STRAIT_TOPIC.to_owned(),
            why: error.to_string(),
            denied: matches!(error, FlowError::Denied { .. }),
        }
    }
}
