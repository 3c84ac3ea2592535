//! Taking over from MirrorMaker 2: a flow without a position goes on where that stopped.
//!
//! What it wrote about itself lags behind what it wrote: its position by up to a minute, its offset syncs by up to a hundred
//! records. The rest is found by content: behind a record that is known on both sides, the source's records are looked for
//! in the target, in order. Each needs a copy of its own there, so none is passed over that the target does not hold.

mod comparison;
pub(crate) mod mm2_positions;
mod proof;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use strait_net::Charge;
use strait_wire::{Isolation, SyncKind};
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use crate::error::FlowError;
use crate::ledger::Ledger;
use crate::open::{Ends, Opening, Resumed};
use crate::session::error::SessionError;
use crate::spec::{LinkSpec, Policy, Takeover};
use crate::status::TakenOver;
use crate::takeover::comparison::{Found, Stretch, reader};
use crate::takeover::mm2_positions::{Mm2Positions, Mm2Presence, Pair, mm2_presence, read};
use crate::takeover::proof::same_record;

/// How far before its position what MirrorMaker 2 copied is looked for, where no sync tells more: a record that stands on
/// both sides has to be found, behind which the others follow.
const BEFORE: i64 = 10_000;

/// What a session knows of MirrorMaker 2.
pub(crate) struct TakeoverState {
    spec: Takeover,
    /// Nobody could tell whether it has stopped.
    unseen: bool,
    /// It runs.
    running: Option<(String, usize)>,
    /// With the memory that they take counted as the link's.
    positions: OnceCell<(Mm2Positions, Charge)>,
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

/// The doubt about records of the target that are not found where they should be.
fn strangers(found: &Found) -> Option<String> {
    (found.strange > 0).then(|| {
        format!("not all that the target holds behind it is found on the source in the same order; at most {} records are repeated", found.strange)
    })
}

fn running(spec: &LinkSpec, group: String, members: usize) -> SessionError {
    SessionError::Mm2Running {
        link: spec.name.clone(),
        cluster: spec.target.alias().to_owned(),
        group,
        members,
    }
}

/// Pairs of a flow, after a look at the records.
#[derive(Debug, Default)]
struct Believed {
    /// The last one of which both sides hold the same record.
    pair: Option<Pair>,
    /// Those of which one side does not hold the record.
    open: Vec<Pair>,
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
        let read = || async {
            let positions = read(&self.session.rt, source, target, &spec).await?;
            let charge = self.session.matching.charge(positions.bytes());
            Ok::<_, FlowError>((positions, charge))
        };
        let (positions, _) = state.positions.get_or_try_init(read).await?;
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
        let own = self
            .last
            .as_ref()
            .map(|sync| (sync.upstream, sync.downstream));
        let pairs = own.into_iter().chain(positions.pairs(key).iter().copied());
        let pairs: BTreeSet<Pair> = pairs.filter(|pair| pair.0 >= 0 && pair.1 >= 0).collect();
        if mirrored.is_none() && pairs.is_empty() && positions.is_empty() {
            return Ok(None);
        }
        let (first, last) = (ends.source.log_start().await?, ends.source.log_end().await?);
        let Believed { pair, open } = self.believed(ends, pairs).await?;
        // Alone beside a position it is the flow's. Of several, one may be another flow's: of this name, in the other direction.
        let alone = match open.as_slice() {
            [pair] if mirrored.is_some() && positions.all_pairs_known() => Some(*pair),
            _ => None,
        };
        let alone = alone.filter(|alone| pair.is_none() && alone.0 < last);
        // What one of those tells of that nobody can look at is not on the target any more, or never was.
        let maybe_lost = pair.or(alone).is_none() && open.iter().any(|pair| pair.1 >= end);
        let pair = pair.or(alone);
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
                anchored: true,
            };
            let found = self.compare(ends, stretch).await?;
            let mirrored = mirrored.unwrap_or(0);
            if found.left == 0 && found.next < mirrored {
                let doubt = format!(
                    "its own position is {mirrored}, but the target does not hold what lies between; mirroring that again"
                );
                return taken(found.next, found.matched, Some(doubt));
            }
            return taken(found.next.max(mirrored), found.matched, strangers(&found));
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
        let stretch = Stretch {
            source: known.map_or(first, |next| next.saturating_sub(BEFORE).max(first)),
            target: (start, end),
            anchored: false,
        };
        let found = self.compare(ends, stretch).await?;
        match known {
            Some(next) if found.matched > 0 && found.next >= next => {
                taken(found.next, found.matched, strangers(&found))
            }
            Some(next) if maybe_lost => match found.matched > 0 && found.left == 0 {
                true => {
                    let doubt = format!(
                        "its own position is {next}, but the target ends before that; mirroring what it lacks again"
                    );
                    taken(found.next, found.matched, Some(doubt))
                }
                false => Ok(None),
            },
            Some(next) => {
                let why = positions
                    .pairs_unread()
                    .unwrap_or("no offset sync of its own tells where that stands on the target");
                let what = if found.given_up {
                    "what followed was not found by content as far as was read for it"
                } else {
                    "what followed was not found by content"
                };
                let most = (end - start).min(last - next);
                let doubt = format!(
                    "that is its last position, which it writes once a minute by default, or later where that fails: all that it mirrored since then is repeated, at most {most} records, for {what}, and {why}"
                );
                taken(next, found.matched, Some(doubt))
            }
            // Nothing else speaks for it than that all of the target's end is on the source.
            None if found.matched > 0 && found.left == 0 => taken(found.next, found.matched, None),
            None => Ok(None),
        }
    }

    /// Looks at the records that pairs stand for. A topic of syncs may hold those of another flow of the same name: of the other
    /// direction, whose source is this flow's target.
    async fn believed(&self, ends: &Ends, pairs: BTreeSet<Pair>) -> Result<Believed, FlowError> {
        let source = reader(&ends.source, Isolation::ReadUncommitted);
        let target = reader(&ends.target, Isolation::ReadUncommitted);
        let max = self.session.spec.decode_bytes();
        let mut believed = Believed::default();
        // In the order of their source offsets.
        for pair in pairs {
            match same_record(&source, &target, pair, max).await? {
                // The one further on tells more, unless both cannot be true.
                Some(true) if believed.pair.is_none_or(|known| known.1 <= pair.1) => {
                    believed.pair = Some(pair);
                }
                Some(_) => {}
                None => believed.open.push(pair),
            }
        }
        Ok(believed)
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
            anchored: false,
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
}
