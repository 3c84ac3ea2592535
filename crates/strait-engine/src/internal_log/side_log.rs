//! A topic of Strait's own beside those of a session: one partition, compacted, written without a session's fence, so only
//! for records that may stand twice and whose last one counts.

use std::sync::Arc;
use std::time::Duration;

use strait_net::{Cluster, Runtime};
use strait_wire::Record;
use tokio::task::JoinSet;

use crate::internal_log::{InternalLog, Until, read_log};
use crate::routes::Routes;
use crate::session::create_own_topics;
use crate::session::error::SessionError;

/// The producer id and epoch of who has none.
const NO_PRODUCER: (i64, i16) = (-1, -1);

/// One such topic, there and open for appending.
#[derive(Debug)]
pub struct SideLog {
    rt: Runtime,
    link: String,
    topic: String,
    routes: Arc<Routes>,
    log: InternalLog,
    _task: JoinSet<()>,
}

impl SideLog {
    /// Creates the topic on `cluster` where it does not exist, with `replication` replicas, else 3 capped at the live brokers.
    ///
    /// # Errors
    /// The cluster cannot be reached, or the topic can neither be found nor created.
    pub async fn open(
        rt: &Runtime,
        link: &str,
        cluster: Cluster,
        topic: &str,
        replication: Option<i16>,
    ) -> Result<Self, SessionError> {
        let routes = Arc::new(Routes::new(rt.clone(), cluster));
        create_own_topics(rt, link, replication, &routes, &[topic]).await?;
        let (log, task) = InternalLog::new(
            rt.clone(),
            link,
            routes.clone(),
            topic.to_owned(),
            NO_PRODUCER,
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        Ok(Self {
            rt: rt.clone(),
            link: link.to_owned(),
            topic: topic.to_owned(),
            routes,
            log,
            _task: tasks,
        })
    }

    /// Every record from the beginning to the end of the log.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub async fn read(&self, mut each: impl FnMut(&Record)) -> Result<(), SessionError> {
        let take = |_, record: &Record| {
            each(record);
            Ok(())
        };
        read_log(&self.rt, &self.routes, &self.topic, 0, Until::End, take)
            .await
            .map(drop)
    }

    /// [`append`](Self::append) in this time.
    ///
    /// # Errors
    /// As there, or nothing was taken until then: the records may stand there all the same, or come later unless this log is
    /// dropped.
    pub async fn append_within(
        &self,
        time: Duration,
        records: Vec<Record>,
    ) -> Result<(), SessionError> {
        tokio::select! {
            biased;
            done = self.append(records) => done,
            () = self.rt.sleep(time) => Err(SessionError::Lost(format!(
                "{} on cluster {} has taken nothing for {} s; look at the brokers of this cluster",
                self.topic,
                self.routes.cluster().alias(),
                time.as_secs()
            ))),
        }
    }

    /// Appends in order; returns once all in-sync replicas have the records. What may pass is tried again.
    ///
    /// # Errors
    /// The topic does not take them; this log then takes no more.
    pub async fn append(&self, records: Vec<Record>) -> Result<(), SessionError> {
        self.log.append(&self.link, records).await
    }
}
