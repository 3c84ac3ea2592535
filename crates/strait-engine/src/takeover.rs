//! Taking over from MirrorMaker 2: a flow without a position goes on where that stopped.
//!
//! What it wrote about itself lags behind what it wrote: its position by up to a minute, its offset syncs by up to a hundred
//! records. The rest is found by content: behind a record that is known on both sides, the source's records are looked for
//! in the target, in order. Each needs a copy of its own there, so none is passed over that the target does not hold.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use strait_wire::{Isolation, Record, SyncKind};
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use crate::error::FlowError;
use crate::ledger::Ledger;
use crate::matching::{Match, timeless};
use crate::mm2_positions::{Mm2Positions, Mm2Presence, Pair, mm2_presence, read};
use crate::open::{Ends, Opening, Resumed};
use crate::partition::PartitionReader;
use crate::session_error::SessionError;
use crate::spec::{LinkSpec, Policy, Takeover};
use crate::status::TakenOver;
use crate::stitch::{Original, Outgoing, StitchError};

/// How far beyond its position MirrorMaker 2 is looked for at the least, where no sync tells more.
const BEYOND: i64 = 10_000;

/// What a session knows of MirrorMaker 2.
pub(crate) struct TakeoverState {
    spec: Takeover,
    /// Nobody could tell whether it has stopped.
    unseen: bool,
    /// It runs.
    running: Option<(String, usize)>,
    positions: OnceCell<Mm2Positions>,
    taken: Mutex<(BTreeSet<String>, TakenOver)>,
}

impl TakeoverState {
    /// Looks whether MirrorMaker 2 runs.
    ///
    /// # Errors
    /// The target cannot be reached.
    pub(crate) async fn look(spec: &LinkSpec) -> Result<Self, SessionError> {
        let mut takeover = spec.takeover.clone();
        let (mut unseen, mut running) = (false, None);
        match mm2_presence(&spec.target, &takeover).await? {
            Mm2Presence::Running(group, members) => running = Some((group, members)),
            Mm2Presence::Absent => takeover.offsets_topic = None,
            Mm2Presence::Unseen(_) => unseen = true,
            Mm2Presence::Gone => {}
        }
        Ok(Self {
            spec: takeover,
            // Asked again by each flow that has something to take over.
            unseen: unseen || running.is_some(),
            running,
            positions: OnceCell::new(),
            taken: Mutex::default(),
        })
    }

    /// A link that begins beside a MirrorMaker 2 at work would write every record twice.
    ///
    /// # Errors
    /// [`SessionError::Mm2Running`].
    pub(crate) fn refuse(&self, spec: &LinkSpec) -> Result<(), SessionError> {
        match &self.running {
            Some((group, members)) => Err(running(spec, group.clone(), *members)),
            None => Ok(()),
        }
    }

    /// What this session has taken over so far.
    pub(crate) fn taken(&self) -> Option<TakenOver> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.1.partitions > 0).then(|| taken.1.clone())
    }

    fn took(&self, topic: &str, taken: &Taken) {
        let mut all = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (topics, sum) = &mut *all;
        topics.insert(topic.to_owned());
        sum.topics = topics.len();
        sum.partitions += 1;
        sum.records += u64::try_from(taken.matched).unwrap_or(0);
        sum.in_doubt += usize::from(taken.doubt.is_some());
    }
}

fn running(spec: &LinkSpec, group: String, members: usize) -> SessionError {
    SessionError::Mm2Running {
        link: spec.name.clone(),
        cluster: spec.target.alias().to_owned(),
        group,
        members,
    }
}

/// Where MirrorMaker 2 stopped.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The next source offset.
    next: i64,
    /// The target's end.
    end: i64,
    /// Records found by content.
    matched: i64,
    /// Why records may be repeated.
    doubt: Option<String>,
}

impl Taken {
    /// No fence is needed: no older session of ours can have written here, and those of MirrorMaker 2 have no epoch.
    pub(crate) fn resumed(self, identity: (i64, i16)) -> Resumed {
        Resumed {
            ledger: Ledger::begin(self.next, self.end),
            identity,
            kind: SyncKind::Takeover,
            hold_until: None,
        }
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// The first offset on the source.
    source: i64,
    /// The first offset on the target, and its end.
    target: (i64, i64),
    /// The record before both is the same: else the beginning has to be found as well, up to this source offset.
    begin_by: Option<i64>,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// The source offset behind the last record that the target holds.
    next: i64,
    matched: i64,
    /// Records of the target that were not found behind it.
    left: i64,
}

impl Opening {
    /// Where MirrorMaker 2 stopped to mirror this partition; nothing where it left nothing of it.
    ///
    /// # Errors
    /// What it left cannot be read, or does not fit what there is and the policy is to stop.
    pub(crate) async fn take_over(&self, ends: &Ends) -> Result<Option<Resumed>, FlowError> {
        let state = &self.session.takeover;
        if !self.session.spec.takes_over() {
            return Ok(None);
        }
        let (start, end) = (ends.target.log_start().await?, ends.target.log_end().await?);
        // Never written: whatever MirrorMaker 2 mirrored, it was not into here.
        if end == 0 {
            return Ok(None);
        }
        let mut spec = state.spec.clone();
        if state.unseen {
            let target = &self.session.spec.target;
            match mm2_presence(target, &spec).await? {
                Mm2Presence::Gone => {}
                Mm2Presence::Absent => spec.offsets_topic = None,
                Mm2Presence::Running(group, members) => {
                    return Err(running(&self.session.spec, group, members).into());
                }
                // Without records there nothing can be written twice.
                Mm2Presence::Unseen(why) => {
                    return match self.refuse_data(ends, start, end).await {
                        Ok(()) if self.last.is_none() => Ok(None),
                        Ok(()) | Err(FlowError::TargetHasData { .. }) => {
                            Err(FlowError::Mm2Unreadable(why))
                        }
                        Err(error) => Err(error),
                    };
                }
            }
        }
        // Where it kept no position it may run, or be another one: its offset syncs alone do not tell.
        if spec.offsets_topic.is_none() {
            return Ok(None);
        }
        let (source, target) = (&self.session.source, &self.session.target);
        let read = || read(&self.session.rt, source, target, &spec);
        let positions = state.positions.get_or_try_init(read).await?;
        let Some(taken) = self.find(ends, positions, (start, end)).await? else {
            return Ok(None);
        };
        let (link, topic, partition) = (
            &self.session.spec.name,
            &self.spec.key.topic,
            self.spec.key.partition,
        );
        debug!(%link, %topic, partition, ?taken, "position of MirrorMaker 2 found");
        if let Some(doubt) = &taken.doubt {
            warn!(
                %link, id = "takeover-in-doubt", %topic, partition,
                "taking over {topic}-{partition} from MirrorMaker 2 at source offset {}: {doubt}", taken.next
            );
        }
        state.took(topic, &taken);
        let current = (self.session.epoch.producer_id, self.session.epoch.current());
        Ok(Some(taken.resumed(current)))
    }

    async fn find(
        &self,
        ends: &Ends,
        positions: &Mm2Positions,
        (start, end): (i64, i64),
    ) -> Result<Option<Taken>, FlowError> {
        let key = &self.spec.key;
        let mirrored = positions
            .mirrored(key)
            .map(|offset| offset.saturating_add(1));
        // Both are records that it wrote: the one further on tells more.
        let own = self
            .last
            .as_ref()
            .map(|sync| (sync.upstream, sync.downstream));
        let pairs = own.into_iter().chain(positions.pair(key));
        let pair = pairs
            .filter(|pair| pair.0 >= 0 && pair.1 >= 0)
            .max_by_key(|pair| pair.1);
        if mirrored.is_none() && pair.is_none() && positions.is_empty() {
            return Ok(None);
        }
        let (first, last) = (ends.source.log_start().await?, ends.source.log_end().await?);
        let taken = |next, matched, doubt| {
            Ok(Some(Taken {
                next,
                end,
                matched,
                doubt,
            }))
        };
        let behind = |pair: Pair| (pair.0.saturating_add(1), pair.1.saturating_add(1));
        let pair = pair.map(behind);
        let most = mirrored.max(pair.map(|pair| pair.0)).unwrap_or(0);
        if most > last {
            return self
                .source_cut_below(ends, most, (first, last), (start, end))
                .await;
        }
        let held = pair.filter(|pair| pair.1 <= end);
        if let Some(pair) = held.filter(|pair| pair.0 >= first && pair.1 >= start) {
            let stretch = Stretch {
                source: pair.0,
                target: (pair.1, end),
                begin_by: None,
            };
            let found = self.compare(ends, stretch).await?;
            let mirrored = mirrored.unwrap_or(0);
            if found.left == 0 && found.next < mirrored {
                let doubt = format!(
                    "its own position is {mirrored}, but the target does not hold what lies between; mirroring that again"
                );
                return taken(found.next, found.matched, Some(doubt));
            }
            let doubt = (found.next < mirrored).then(|| {
                format!("not all that the target holds behind it is found on the source in the same order; at most {} records are repeated", found.left)
            });
            return taken(found.next.max(mirrored), found.matched, doubt);
        }
        // The target lost what the pair speaks of: then its position does not hold either.
        let lost = pair.is_some() && held.is_none();
        let known = (!lost)
            .then(|| mirrored.max(held.map(|pair| pair.0)))
            .flatten();
        if start == end {
            return match known {
                Some(next) => taken(next, 0, None),
                None => Ok(None),
            };
        }
        let window = end - start;
        let back = window.saturating_mul(2).saturating_add(BEYOND);
        let stretch = Stretch {
            source: known
                .map_or(first, |next| next.saturating_sub(back))
                .max(first),
            target: (start, end),
            begin_by: Some(known.map_or(last, |next| next.saturating_add(back))),
        };
        let found = self.compare(ends, stretch).await?;
        match known {
            Some(next) if found.matched > 0 && found.next >= next => {
                taken(found.next, found.matched, None)
            }
            Some(next) => {
                let why = positions.pairs_unread().unwrap_or(
                    "no offset sync of its own tells where that stands on the target, and what follows was not found by content",
                );
                let doubt = format!(
                    "what it mirrored since its last flush (a minute by default) is repeated: {why}"
                );
                taken(next, found.matched, Some(doubt))
            }
            // Nothing else speaks for it than that all of the target's end is on the source.
            None if found.matched > 0 && found.left == 0 => taken(found.next, found.matched, None),
            None => Ok(None),
        }
    }

    /// The source ends before what MirrorMaker 2 mirrored: it is another topic, or lost its end.
    async fn source_cut_below(
        &self,
        ends: &Ends,
        mirrored: i64,
        (first, last): (i64, i64),
        target: (i64, i64),
    ) -> Result<Option<Taken>, FlowError> {
        if self.session.spec.policies.source_truncated == Policy::Stop {
            return Err(FlowError::SourceTruncated {
                cluster: self.session.spec.source.alias().to_owned(),
                topic: self.spec.key.topic.clone(),
                partition: self.spec.key.partition,
                end: last,
                next: mirrored,
            });
        }
        let stretch = Stretch {
            source: first,
            target,
            begin_by: Some(last),
        };
        let found = self.compare(ends, stretch).await?;
        let next = if found.matched > 0 { found.next } else { first };
        Ok(Some(Taken {
            next,
            end: target.1,
            matched: found.matched,
            doubt: Some(format!(
                "it had mirrored up to offset {mirrored}, and the source ends at {last}: the topic was re-created or lost its end, and what it holds now follows what was mirrored"
            )),
        }))
    }

    /// Looks for the source's records in the target, in order, up to the first that it does not hold.
    async fn compare(&self, ends: &Ends, stretch: Stretch) -> Result<Found, FlowError> {
        let (mut from, end) = stretch.target;
        let mut found = Found {
            next: stretch.source,
            ..Found::default()
        };
        let mut stamped = false;
        let mut begun = stretch.begin_by.is_none();
        while from < end {
            // Once more as much, to know which records it holds once.
            let twice = if begun { 1 } else { 2 };
            let room = self
                .session
                .matching
                .room((end - from).saturating_mul(twice))
                .await;
            let most = room.records / twice as usize;
            if !begun {
                from = from.max(end.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX)));
            }
            let held = self
                .held(ends, (from, end), most, (!stamped).then_some(Record::hash))
                .await?;
            let Some((hashes, to)) = held else {
                stamped = true;
                continue;
            };
            let records = i64::try_from(hashes.len()).unwrap_or(i64::MAX);
            if stamped && !begun {
                // Without their times records look alike: no beginning can be told.
                found.left = records;
                return Ok(found);
            }
            let once = (!begun).then(|| once(&hashes));
            let mut matching = Match::new(hashes, found.next);
            if stamped {
                matching = matching.without_times();
            }
            let by = stretch.begin_by.unwrap_or(i64::MAX);
            // As MirrorMaker 2 reads by default; where it was told to leave aborted records out, they are not there.
            for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
                matching.again();
                let begin = once.as_deref().map(|once| (once, by));
                self.embed_into(ends, isolation, &mut matching, begin)
                    .await?;
                if matching.left() == 0 || matching.matched() == 0 && !begun {
                    break;
                }
            }
            found.next = found.next.max(matching.next());
            found.matched += matching.matched();
            found.left = i64::try_from(matching.left()).unwrap_or(i64::MAX);
            begun |= matching.matched() > 0;
            if found.left > 0 {
                // What was not read is not found either.
                found.left += end - to;
                return Ok(found);
            }
            from = to;
        }
        Ok(found)
    }

    /// Hashes of what a consumer sees of the target from `from` on, `most` at the most, and the offset behind them. Without
    /// their times for no hash; nothing where the target stamps records and their times are asked for.
    async fn held(
        &self,
        ends: &Ends,
        (from, end): (i64, i64),
        most: usize,
        hash: Option<fn(&Record) -> u128>,
    ) -> Result<Option<(Vec<u128>, i64)>, FlowError> {
        let target = reader(&ends.target, Isolation::ReadCommitted);
        let max = self.session.spec.decode_bytes();
        let (mut hashes, mut stamped) = (Vec::new(), false);
        let mut full_at = None;
        let reached = target
            .each_batch(from, end, max, |batch| {
                stamped |= hash.is_some() && appended(batch);
                for record in records(batch)? {
                    if hashes.len() == most {
                        full_at = Some(record.offset);
                        return Ok(false);
                    }
                    hashes.push(hash.unwrap_or(timeless)(&record));
                }
                Ok(!stamped)
            })
            .await?;
        if stamped {
            return Ok(None);
        }
        let to = full_at.unwrap_or(reached);
        if full_at.is_none() && to < end {
            return Err(FlowError::Mm2Unreadable(format!(
                "the last records of the target, from offset {to} to {end}, cannot be read yet: replicas there are behind, or MirrorMaker 2 left a transaction open, which the broker ends by itself"
            )));
        }
        Ok(Some((hashes, to)))
    }

    /// Feeds the match with the source's records from its place on. Of a match that has to find its beginning those that
    /// stand in the target once may be it, up to an offset.
    async fn embed_into(
        &self,
        ends: &Ends,
        isolation: Isolation,
        matching: &mut Match,
        begin: Option<(&[u128], i64)>,
    ) -> Result<(), FlowError> {
        let source = reader(&ends.source, isolation);
        let max = self.session.spec.decode_bytes();
        source
            .each_batch(matching.next(), i64::MAX, max, |batch| {
                for record in records(batch)? {
                    if let Some((once, by)) = begin.filter(|_| matching.matched() == 0) {
                        if record.offset > by {
                            return Ok(false);
                        }
                        if once.binary_search(&record.hash()).is_err() {
                            continue;
                        }
                    }
                    if matching.feed(&record, batch.source_epoch) {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .await
            .map(drop)
    }
}

fn reader(of: &PartitionReader, isolation: Isolation) -> PartitionReader {
    PartitionReader {
        rt: of.rt.clone(),
        routes: Arc::clone(&of.routes),
        topic: of.topic.clone(),
        partition: of.partition,
        source: of.source,
        isolation,
    }
}

fn records(batch: &Outgoing) -> Result<Vec<Record>, FlowError> {
    let records = batch.records();
    records.map_err(|source| StitchError::wire(batch.first, source).into())
}

/// Whether the broker stamped the batch itself.
fn appended(batch: &Outgoing) -> bool {
    let header = match &batch.original {
        Some(Original::Batch(original)) => &original.header,
        _ => &batch.batch.header,
    };
    header.attributes.timestamp_type_append()
}

/// Those that occur once, sorted.
fn once(hashes: &[u128]) -> Vec<u128> {
    let mut sorted = hashes.to_vec();
    sorted.sort_unstable();
    let alone = sorted.chunk_by(|a, b| a == b).filter(|run| run.len() == 1);
    alone.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_begins_with_what_stands_there_once() {
        assert_eq!(once(&[5, 1, 5, 3, 2, 2, 2]), [1, 3]);
        assert!(once(&[7, 7]).is_empty());
    }
}
