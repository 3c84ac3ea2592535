//! Checkpoints: what was translated for each group, in MirrorMaker 2's topic and bytes, for its clients to read, and for
//! Strait to know its own commits again.

use std::collections::BTreeMap;

use bytes::Bytes;
use strait_engine::{SessionError, SideLog, existing, holds_positions};
use strait_net::{Cluster, Runtime};
use strait_wire::Record;
use strait_wire::mm2::Checkpoint;
use tracing::warn;

use crate::ladder::Written;

/// The header with the translated offset of the checkpoint before, INT64.
const PREVIOUS: &[u8] = b"strait.prev";

/// Records appended at once.
const AT_ONCE: usize = 1_000;

/// A group's partition, by its name on the target.
pub(crate) type Place = (String, (String, i32));

/// The checkpoints of one link, as they were written last; in memory alone where no topic is wanted.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    log: Option<SideLog>,
    names: Names,
    /// By the numbers of group and topic, and the partition: there may be millions.
    written: BTreeMap<(u32, u32, i32), Written>,
}

/// Names of groups and topics, each with a number of its own.
#[derive(Debug, Default)]
struct Names(BTreeMap<Box<str>, u32>);

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.0.get(name) {
            return *number;
        }
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.insert(name.into(), number);
        number
    }
}

impl Checkpoints {
    /// Those that nobody reads.
    pub(crate) fn in_memory() -> Self {
        Self::default()
    }

    /// Those in `<source>.checkpoints.internal` on `target`, by this separator; the topic is created where it does not exist.
    /// What stands under the name with the default one counts where nothing newer does; where Kafka lets only one of the
    /// two names exist, the one that does is used.
    pub(crate) async fn open(
        rt: &Runtime,
        link: &str,
        source: &str,
        target: Cluster,
        separator: &str,
        replication: Option<i16>,
    ) -> Result<Self, SessionError> {
        let mut topic = topic_of(source, separator);
        let mut all = Self::default();
        let mut take = |record: &Record| {
            if let Some((place, last)) = read(record) {
                all.set(&place, last);
            }
        };
        match existing(&target, |separator| topic_of(source, separator)).await? {
            Some(found) if found != topic && !holds_positions(separator) => {
                SideLog::open(rt, link, target.clone(), &found, replication)
                    .await?
                    .read(&mut take)
                    .await?;
            }
            Some(found) if found != topic => {
                let alias = target.alias();
                warn!(
                    %link, id = "checkpoints-elsewhere",
                    "checkpoints are written to {found} on cluster {alias}, which is there, and Kafka takes {topic} for the same name: MirrorMaker 2's readers that look for that find none; give them the same replication.policy.internal.topic.separator.enabled as before, or delete {found} while Strait is stopped"
                );
                topic = found;
            }
            _ => {}
        }
        let log = SideLog::open(rt, link, target, &topic, replication).await?;
        log.read(take).await?;
        all.log = Some(log);
        Ok(all)
    }

    /// What was written last.
    pub(crate) fn last(&self, place: &Place) -> Option<Written> {
        let (group, (topic, partition)) = place;
        let number = |name: &str| self.names.0.get(name).copied();
        let key = (number(group)?, number(topic)?, *partition);
        self.written.get(&key).copied()
    }

    fn set(&mut self, place: &Place, written: Written) {
        let (group, (topic, partition)) = place;
        let key = (
            self.names.number(group),
            self.names.number(topic),
            *partition,
        );
        self.written.insert(key, written);
    }

    /// Writes those that say something new; returns once they are kept. `settled` ones follow a commit: the offset before it
    /// means nothing any more.
    pub(crate) async fn write(
        &mut self,
        checkpoints: Vec<Checkpoint>,
        settled: bool,
        now_ms: i64,
    ) -> Result<(), SessionError> {
        let mut records = Vec::new();
        let mut news = Vec::new();
        for checkpoint in checkpoints {
            let place = (
                checkpoint.group.clone(),
                (checkpoint.topic.clone(), checkpoint.partition),
            );
            let last = self.last(&place);
            let (upstream, downstream) = (checkpoint.upstream, checkpoint.downstream);
            let same = last.is_some_and(|l| (l.upstream, l.downstream) == (upstream, downstream));
            if same && !settled {
                continue;
            }
            let previous = match last {
                Some(last) if !settled => last.downstream,
                _ => downstream,
            };
            let header = Bytes::copy_from_slice(&previous.to_be_bytes());
            records.push(Record {
                offset: 0,
                timestamp: now_ms,
                key: Some(checkpoint.key()),
                value: Some(checkpoint.value()),
                headers: vec![(Bytes::from_static(PREVIOUS), Some(header))],
            });
            let written = Written {
                upstream,
                downstream,
                previous,
            };
            news.push((place, written));
        }
        let mut records = records.into_iter();
        let mut news = news.into_iter();
        loop {
            let piece: Vec<Record> = records.by_ref().take(AT_ONCE).collect();
            if piece.is_empty() {
                return Ok(());
            }
            if let Some(log) = &self.log {
                log.append(piece).await?;
            }
            for (place, written) in news.by_ref().take(AT_ONCE) {
                self.set(&place, written);
            }
        }
    }
}

/// The topic of checkpoints of groups on the cluster of this alias (`DefaultReplicationPolicy.checkpointsTopic`).
fn topic_of(source: &str, separator: &str) -> String {
    format!("{source}{separator}checkpoints{separator}internal")
}

/// A checkpoint of Strait or MirrorMaker 2; nothing from what is none.
fn read(record: &Record) -> Option<(Place, Written)> {
    let (key, value) = (record.key.as_ref()?, record.value.as_ref()?);
    let checkpoint = Checkpoint::decode(key, value).ok()?;
    let previous = record
        .headers
        .iter()
        .find(|(name, _)| &name[..] == PREVIOUS)
        .and_then(|(_, value)| value.as_deref()?.try_into().ok())
        .map(i64::from_be_bytes);
    let written = Written {
        upstream: checkpoint.upstream,
        downstream: checkpoint.downstream,
        previous: previous.unwrap_or(checkpoint.downstream),
    };
    let place = (checkpoint.group, (checkpoint.topic, checkpoint.partition));
    Some((place, written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(upstream: i64, downstream: i64) -> Checkpoint {
        Checkpoint {
            group: "billing".to_owned(),
            topic: "paris.orders".to_owned(),
            partition: 3,
            upstream,
            downstream,
            metadata: "m".to_owned(),
        }
    }

    fn place() -> Place {
        ("billing".to_owned(), ("paris.orders".to_owned(), 3))
    }

    #[tokio::test]
    async fn the_offset_before_is_kept_until_it_is_settled() {
        let mut checkpoints = Checkpoints::in_memory();
        let written = |upstream, downstream, previous| {
            Some(Written {
                upstream,
                downstream,
                previous,
            })
        };
        for (at, settled, expected) in [
            ((60, 50), false, written(60, 50, 50)),
            ((30, 20), false, written(30, 20, 50)),
            ((30, 20), false, written(30, 20, 50)),
            ((30, 20), true, written(30, 20, 20)),
            ((40, 30), false, written(40, 30, 20)),
        ] {
            let one = vec![checkpoint(at.0, at.1)];
            checkpoints.write(one, settled, 0).await.unwrap();
            assert_eq!(checkpoints.last(&place()), expected);
        }
    }

    #[test]
    fn mirror_maker_2s_checkpoints_are_read_too() {
        let mut record = Record {
            offset: 0,
            timestamp: 0,
            key: Some(checkpoint(60, 50).key()),
            value: Some(checkpoint(60, 50).value()),
            headers: Vec::new(),
        };
        let (found, written) = read(&record).unwrap();
        assert_eq!(found, place());
        assert_eq!(written.previous, 50);
        record.headers = vec![(
            Bytes::from_static(PREVIOUS),
            Some(Bytes::copy_from_slice(&70i64.to_be_bytes())),
        )];
        assert_eq!(read(&record).unwrap().1.previous, 70);
        record.value = None;
        assert_eq!(read(&record), None);
    }
}
