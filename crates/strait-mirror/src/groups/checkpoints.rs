//! Checkpoints: what was translated for each group, in MirrorMaker 2's topic and bytes, for its clients to read, and for
//! Strait to know its own commits again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use strait_engine::{SessionError, SideLog, existing, holds_positions};
use strait_net::{Cluster, Runtime};
use strait_wire::Record;
use strait_wire::mm2::Checkpoint;
use tokio::time::Instant;
use tracing::warn;

use crate::translation::ladder::Written;

/// The header with what Strait had committed on the target before, INT64; -1 where nothing is known.
const PREVIOUS: &[u8] = b"strait.prev";
/// The header, without a value, of a checkpoint that was written with no commit to follow.
const UNCOMMITTED: &[u8] = b"strait.uncommitted";
/// For how long a group has not been on the source when it is forgotten: should it come back, it is a new one.
const GONE_FOR: Duration = Duration::from_secs(86_400);

/// Records appended at once.
const AT_ONCE: usize = 1_000;
/// How long that may take: others have their turn while there is no leader.
const APPEND_FOR: Duration = Duration::from_secs(10);

/// A group's partition, by its name on the target.
pub(crate) type Place = (String, (String, i32));

/// The checkpoints of one link, as they were written last; in memory alone where no topic is wanted.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    log: Option<SideLog>,
    names: Names,
    /// By the numbers of group and topic, and the partition: there may be millions.
    written: BTreeMap<(u32, u32, i32), Written>,
    /// Groups by their numbers that the source has not any more, and since when.
    gone: BTreeMap<u32, Instant>,
}

/// Names of groups and topics, each with a number of its own.
#[derive(Debug, Default)]
struct Names {
    numbers: BTreeMap<Box<str>, u32>,
    next: u32,
}

impl Names {
    fn get(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.get(name) {
            return number;
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(name.into(), number);
        number
    }
}

/// What follows a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// A commit of its offset on the target.
    Commit,
    /// None that is known of.
    Nothing,
    /// None, and what became of the commit before cannot be seen at the moment: where that is open, it is not written over.
    Unseen,
    /// Its commit was made before.
    Done,
    /// Its commit was refused.
    Refused,
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
        let key = (self.names.get(group)?, self.names.get(topic)?, *partition);
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

    /// What became of a commit that was to follow the last checkpoint: made, or refused.
    pub(crate) fn settle(&mut self, place: &Place, made: bool) {
        if let Some(mut last) = self.last(place) {
            last.open = false;
            if made {
                last.own = Some(last.downstream);
            }
            self.set(place, last);
        }
    }

    /// What the target has `committed` tells what became of a commit that was to follow the last checkpoint; unless somebody
    /// else has committed there since.
    pub(crate) fn seen(&mut self, place: &Place, committed: Option<i64>) {
        let Some(last) = self.last(place).filter(|last| last.open) else {
            return;
        };
        if committed == Some(last.downstream) {
            self.settle(place, true);
        } else if last.own.is_some() && committed == last.own {
            self.settle(place, false);
        }
    }

    /// Forgets groups that have not been `present` on the source for a day; their checkpoints stay in the topic.
    pub(crate) fn forget_gone(&mut self, present: impl Fn(&str) -> bool, now: Instant) {
        for (name, &number) in &self.names.numbers {
            let mut of_group = self.written.range((number, 0, i32::MIN)..);
            let is_group = of_group.next().is_some_and(|((n, ..), _)| *n == number);
            if is_group && !present(name) {
                self.gone.entry(number).or_insert(now);
            } else {
                self.gone.remove(&number);
            }
        }
        let over = |since: &Instant| now.saturating_duration_since(*since) >= GONE_FOR;
        if !self.gone.values().any(over) {
            return;
        }
        let gone = std::mem::take(&mut self.gone);
        self.written
            .retain(|(group, ..), _| !gone.get(group).is_some_and(over));
        self.gone = gone.into_iter().filter(|(_, at)| !over(at)).collect();
        let numbers = self.written.keys().flat_map(|&(g, t, _)| [g, t]);
        let numbers: BTreeSet<u32> = numbers.collect();
        self.names.numbers.retain(|_, n| numbers.contains(n));
    }

    /// Writes those that say something new; returns once they are kept.
    pub(crate) async fn write(
        &mut self,
        checkpoints: Vec<(Checkpoint, Follows)>,
        now_ms: i64,
    ) -> Result<(), SessionError> {
        let mut records = Vec::new();
        let mut news = Vec::new();
        for (checkpoint, follows) in checkpoints {
            let place = (
                checkpoint.group.clone(),
                (checkpoint.topic.clone(), checkpoint.partition),
            );
            let last = self.last(&place);
            let (upstream, downstream) = (checkpoint.upstream, checkpoint.downstream);
            let same = last.filter(|l| (l.upstream, l.downstream) == (upstream, downstream));
            let known = same.is_some_and(|l| match follows {
                Follows::Commit => l.open || l.own == Some(downstream),
                Follows::Nothing | Follows::Unseen => true,
                Follows::Done | Follows::Refused => false,
            });
            let unseen = follows == Follows::Unseen && last.is_some_and(|l| l.open);
            if known || unseen {
                continue;
            }
            // A commit of this value may have been made before.
            let before = last.is_some_and(|l| l.open && l.downstream == downstream);
            let (own, open) = match (follows, last) {
                (Follows::Done, _) => (Some(downstream), false),
                (Follows::Refused, last) => (last.and_then(|l| l.own), false),
                (_, Some(last)) if before => (last.own, true),
                (_, Some(last)) => (last.last_own(), follows == Follows::Commit),
                (_, None) => (None, follows == Follows::Commit),
            };
            let previous = Bytes::copy_from_slice(&own.unwrap_or(-1).to_be_bytes());
            let mut headers = vec![(Bytes::from_static(PREVIOUS), Some(previous))];
            if !open {
                headers.push((Bytes::from_static(UNCOMMITTED), None));
            }
            records.push(Record {
                offset: 0,
                timestamp: now_ms,
                key: Some(checkpoint.key()),
                value: Some(checkpoint.value()),
                headers,
            });
            let written = Written {
                upstream,
                downstream,
                own,
                open,
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
                log.append_within(APPEND_FOR, piece).await?;
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
    let header = |wanted: &[u8]| record.headers.iter().find(|(name, _)| &name[..] == wanted);
    let previous = header(PREVIOUS)
        .and_then(|(_, value)| value.as_deref()?.try_into().ok())
        .map(i64::from_be_bytes);
    let written = Written {
        upstream: checkpoint.upstream,
        downstream: checkpoint.downstream,
        // MirrorMaker 2 does not say what it has committed: it may be this.
        own: previous.filter(|own| *own >= 0),
        open: header(UNCOMMITTED).is_none(),
    };
    let place = (checkpoint.group, (checkpoint.topic, checkpoint.partition));
    Some((place, written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translation::ladder::{Direction, direction};

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
    async fn what_strait_committed_is_known() {
        use Follows::{Commit, Done, Nothing, Refused};
        let mut checkpoints = Checkpoints::in_memory();
        let written = |upstream, downstream, own, open| {
            Some(Written {
                upstream,
                downstream,
                own,
                open,
            })
        };
        let steps = [
            // The group has members on the target, or stands there by itself.
            ((60, 50), Nothing, written(60, 50, None, false)),
            ((60, 50), Commit, written(60, 50, None, true)),
            // A further one with no commit to make: the one before may have been made.
            ((61, 50), Nothing, written(61, 50, None, true)),
            ((30, 20), Commit, written(30, 20, Some(50), true)),
            ((30, 20), Nothing, written(30, 20, Some(50), true)),
            ((30, 20), Done, written(30, 20, Some(20), false)),
            ((40, 30), Nothing, written(40, 30, Some(20), false)),
            ((45, 35), Commit, written(45, 35, Some(20), true)),
            ((45, 35), Refused, written(45, 35, Some(20), false)),
        ];
        for (at, follows, expected) in steps {
            let one = vec![(checkpoint(at.0, at.1), follows)];
            checkpoints.write(one, 0).await.unwrap();
            assert_eq!(checkpoints.last(&place()), expected, "{at:?} {follows:?}");
        }
        let last = vec![(checkpoint(50, 40), Commit)];
        checkpoints.write(last, 0).await.unwrap();
        checkpoints.settle(&place(), false);
        assert_eq!(checkpoints.last(&place()), written(50, 40, Some(20), false));
        checkpoints.settle(&place(), true);
        assert_eq!(checkpoints.last(&place()), written(50, 40, Some(40), false));
    }

    /// A commit that had no answer may have been made or not; the group reads on before the target can be asked.
    #[tokio::test]
    async fn a_rewind_without_an_answer_is_not_forgotten() {
        use Follows::{Commit, Nothing, Unseen};
        let write = async |checkpoints: &mut Checkpoints, at: (i64, i64), follows| {
            let one = vec![(checkpoint(at.0, at.1), follows)];
            checkpoints.write(one, 0).await.unwrap();
            checkpoints.last(&place()).unwrap()
        };
        for (committed, expected) in [
            (50, Direction::Rewind),
            (20, Direction::Forward),
            // Somebody else's.
            (33, Direction::Stay),
        ] {
            let mut checkpoints = Checkpoints::in_memory();
            write(&mut checkpoints, (60, 50), Commit).await;
            checkpoints.seen(&place(), Some(50));
            let rewind = write(&mut checkpoints, (30, 20), Commit).await;
            assert_eq!((rewind.own, rewind.open), (Some(50), true));
            assert_eq!(write(&mut checkpoints, (31, 21), Unseen).await, rewind);
            checkpoints.seen(&place(), Some(committed));
            let decided = |known| direction(Some(committed), (21, true), 31, Some(known), None);
            let known = checkpoints.last(&place()).unwrap();
            assert_eq!(decided(known), expected);
            // Nor where it does not come to that in this round.
            let known = write(&mut checkpoints, (31, 21), Nothing).await;
            assert_eq!(decided(known), expected);
        }
        // Without an open one there is nothing to wait for.
        let mut checkpoints = Checkpoints::in_memory();
        for at in [(60, 50), (61, 51)] {
            assert_eq!(write(&mut checkpoints, at, Unseen).await.upstream, at.0);
        }
    }

    /// Consumers that begin under a new group name each time would fill the memory.
    #[tokio::test]
    async fn groups_that_are_gone_are_forgotten_after_a_day() {
        let mut checkpoints = Checkpoints::in_memory();
        let of = |group: &str| Checkpoint {
            group: group.to_owned(),
            ..checkpoint(60, 50)
        };
        let all = ["billing", "console-1", "console-2"].map(|group| (of(group), Follows::Nothing));
        checkpoints.write(all.to_vec(), 0).await.unwrap();
        let known = |checkpoints: &Checkpoints| {
            let place = |group: &str| (group.to_owned(), place().1);
            let known = |group: &&str| checkpoints.last(&place(group)).is_some();
            let all = ["billing", "console-1", "console-2", "console-3"];
            all.into_iter().filter(known).collect::<Vec<_>>()
        };
        let begun = Runtime::system().now();
        checkpoints.forget_gone(|group| group == "billing", begun);
        // One comes back.
        let later = begun + GONE_FOR / 2;
        checkpoints.forget_gone(|group| group != "console-1", later);
        let day = begun + GONE_FOR;
        checkpoints.forget_gone(|group| group == "billing", day);
        assert_eq!(known(&checkpoints), ["billing", "console-2"]);
        // The next one has a number of its own.
        let next = vec![(of("console-3"), Follows::Nothing)];
        checkpoints.write(next, 0).await.unwrap();
        assert_eq!(known(&checkpoints), ["billing", "console-2", "console-3"]);
        checkpoints.forget_gone(|_| false, day);
        checkpoints.forget_gone(|_| false, day + GONE_FOR);
        assert!(checkpoints.written.is_empty() && checkpoints.names.numbers.is_empty());
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
        let own = |record: &Record| read(record).map(|(_, w)| (w.own, w.open));
        assert_eq!(read(&record).unwrap().0, place());
        assert_eq!(own(&record), Some((None, true)));
        let previous = |offset: i64| {
            let value = Bytes::copy_from_slice(&offset.to_be_bytes());
            (Bytes::from_static(PREVIOUS), Some(value))
        };
        record.headers = vec![previous(70)];
        assert_eq!(own(&record), Some((Some(70), true)));
        record.headers = vec![previous(-1), (Bytes::from_static(UNCOMMITTED), None)];
        assert_eq!(own(&record), Some((None, false)));
        record.value = None;
        assert_eq!(read(&record), None);
    }
}
