//! One flow's state within a session.

use strait_net::Action;
use strait_wire::{SyncKind, SyncRecord};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::error::FlowError;
use crate::ledger::Ledger;
use crate::open::Opened;
use crate::open::expiry::Expiry;
use crate::ranges::Ranges;
use crate::spec::{FlowSpec, LinkSpec};
use crate::stable_offset::StableOffset;
use crate::stitch::Stitch;
use crate::writer::Writer;

/// A flow, whatever its phase.
pub(crate) struct Flow {
    pub(crate) spec: FlowSpec,
    /// Tells answers for an earlier phase from those for the present one.
    pub(crate) generation: u64,
    pub(crate) phase: Phase,
    /// The last sync known to be persisted.
    pub(crate) last: Option<SyncRecord>,
    /// The fence of this session.
    pub(crate) fence: Fence,
    /// It has something to forward, so it is opened behind a fence.
    pub(crate) active: bool,
    pub(crate) tries: u32,
    pub(crate) trouble: Option<String>,
    /// The trouble was logged for this flow.
    pub(crate) said: bool,
    /// The trouble does not pass by itself.
    pub(crate) stopped: bool,
    /// One of its partitions has no leader.
    pub(crate) leaderless: bool,
    /// No longer selected: it goes once it is drained.
    pub(crate) removing: bool,
    /// What the target said of this flow's records.
    pub(crate) verdicts: Verdicts,
    /// What was acknowledged when it ran last.
    pub(crate) acked: Option<Acked>,
    /// The source's log looked cut: its topic may be another one, whatever is known of it.
    pub(crate) looked_cut: bool,
    /// Everything it sent was answered when it ran last, so that nothing of it can arrive late; with what it still
    /// held back for an older session.
    pub(crate) drained: Option<Option<Instant>>,
    /// What is known of open transactions on the source.
    pub(crate) stable: StableOffset,
}

/// What the target said of a flow's records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdicts {
    /// The largest batch that it takes, where it refused one within the topic's known limit.
    pub(crate) limit: Option<usize>,
    /// The size of a batch that was too large, until the present limit is asked for.
    pub(crate) too_large: Option<usize>,
    /// Each record below this source offset is sent alone, to find those that are refused.
    pub(crate) singles_to: i64,
    /// Source offsets that it refuses and that are left out: half-open ranges in order.
    pub(crate) refused: Vec<(i64, i64)>,
    /// It deletes what was mirrored a moment ago, and the flow is to stop at that.
    pub(crate) expired: bool,
}

impl Verdicts {
    /// Records that are to be left out from now on.
    pub(crate) fn leave_out(&mut self, ranges: &[(i64, i64)]) {
        self.refused.extend_from_slice(ranges);
        self.refused.sort_unstable();
    }

    /// What lies below `next` is over.
    pub(crate) fn settled(&mut self, next: i64) {
        self.refused.retain(|&(_, to)| to > next);
    }

    /// The largest piece that a batch which begins at source offset `first` is sent in.
    pub(crate) fn largest(&self, first: i64, known: Option<usize>) -> usize {
        if self.alone(first) {
            return 0;
        }
        self.limit_of(known)
    }

    /// Whether a record at source offset `first` is sent by itself.
    pub(crate) fn alone(&self, first: i64) -> bool {
        first < self.singles_to
    }

    /// The largest batch that the target takes.
    pub(crate) fn limit_of(&self, known: Option<usize>) -> usize {
        let known = known.unwrap_or(usize::MAX);
        self.limit.map_or(known, |limit| limit.min(known))
    }
}

/// How far a flow's fence got in this session. The scan ends at the first marker of an epoch, so there may be
/// one marker of each only: what may have left one behind asks for the next under a newer epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fence {
    /// The newest epoch it wrote under, or asked for a marker under.
    pub(crate) above: Option<i16>,
    /// The marker that was read, as long as nothing was written behind it.
    pub(crate) standing: Option<(i64, i16)>,
}

/// How far a flow came that runs no more; what its last sync says may be a second older.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) ledger: Ledger,
    pub(crate) identity: (i64, i16),
    pub(crate) ids: (Uuid, Uuid),
}

/// What is left of a flow that is gone: its partition may be selected again before the session ends, and has the marker
/// of this epoch already.
#[derive(Clone, Debug)]
pub(crate) struct Legacy {
    last: Option<SyncRecord>,
    fence: Fence,
    acked: Option<Acked>,
}

impl Legacy {
    /// The last sync known to be persisted.
    pub(crate) fn last(&self) -> Option<&SyncRecord> {
        self.last.as_ref()
    }
}

pub(crate) enum Phase {
    /// Opened at this moment at the earliest.
    Waiting(Instant),
    Opening,
    Running(Box<Running>),
}

/// A flow that mirrors.
pub(crate) struct Running {
    pub(crate) stitch: Stitch,
    pub(crate) writer: Writer,
    pub(crate) ledger: Ledger,
    pub(crate) ids: (Uuid, Uuid),
    /// What was asked of the source and not admitted yet.
    pub(crate) ranges: Ranges,
    /// The source's bounds or epochs are asked for; nothing is fetched meanwhile.
    pub(crate) checking: bool,
    /// It waits for its turn in a lane.
    pub(crate) in_lane: bool,
    /// It waits for its turn in a channel.
    pub(crate) in_channel: bool,
    /// A sync of it is being written.
    pub(crate) syncing: bool,
    pub(crate) caught_up: bool,
    /// Its last fetch brought nothing although records wait: others filled the answer, or its batch is larger than what
    /// was asked for. Brokers give whole batches of any size only to the first partition of a fetch.
    pub(crate) starved: bool,
    /// Since when that is so although it stood first in its fetches.
    pub(crate) starved_since: Option<Instant>,
    pub(crate) fetch_at: Instant,
    pub(crate) send_at: Instant,
    /// Until then nothing is sent that the brokers forget at once.
    pub(crate) hold_until: Option<Instant>,
    /// The source offset where reading failed: what is acknowledged up to there does not show that it goes on.
    pub(crate) stuck: Option<i64>,
    /// The source's end as last heard: the high watermark, or the last stable offset.
    pub(crate) source_end: i64,
    /// To be drained, then opened again for this reason.
    pub(crate) reopen: Option<String>,
    /// The source's log was truncated to (epoch, end): to be drained, then opened again.
    pub(crate) truncated: Option<(i32, i64)>,
    /// What the target said of it asks for another opening: to be drained, then opened again.
    pub(crate) judged: bool,
    /// Whether the target keeps what is mirrored.
    pub(crate) expiry: Expiry,
    /// Watched without a fence: it may not write.
    pub(crate) idle: bool,
}

impl Running {
    /// It is being drained: nothing more is admitted or sent, since what was queued is gone and what follows it would
    /// take its place.
    pub(crate) fn closing(&self) -> bool {
        self.reopen.is_some() || self.truncated.is_some() || self.judged
    }

    /// Forgets what was queued and not sent yet; it is fetched again.
    pub(crate) fn unqueue(&mut self) {
        let epoch = self
            .writer
            .sent_epoch()
            .unwrap_or(self.ledger.source_epoch());
        if let Some(first) = self.writer.drop_queue() {
            self.ranges.clear();
            self.stitch.rewind(first, epoch);
            self.caught_up = false;
        }
    }
}

impl Flow {
    pub(crate) fn new(spec: FlowSpec, last: Option<SyncRecord>, now: Instant) -> Self {
        Self {
            spec,
            generation: 0,
            phase: Phase::Waiting(now),
            last,
            fence: Fence::default(),
            active: false,
            tries: 0,
            trouble: None,
            said: false,
            stopped: false,
            leaderless: false,
            removing: false,
            verdicts: Verdicts::default(),
            acked: None,
            looked_cut: false,
            drained: None,
            stable: StableOffset::default(),
        }
    }

    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    pub(crate) fn opened(&mut self, opened: Opened, now: Instant) {
        let Opened {
            stitch,
            writer,
            ledger,
            sync,
            ids,
            hold_until,
            idle,
            limit,
        } = opened;
        self.looked_cut &= idle;
        self.drained = None;
        self.verdicts.expired = false;
        if limit.is_some() {
            self.verdicts.limit = limit;
            self.verdicts.too_large = None;
        }
        if sync
            .position
            .as_ref()
            .is_some_and(|p| p.kind == SyncKind::Rebase)
        {
            // They speak of the history before.
            self.verdicts.refused.clear();
            self.verdicts.singles_to = 0;
        }
        self.last = Some(sync);
        let mut writer = writer;
        writer.limit(self.verdicts.limit_of(self.spec.max_batch_bytes));
        if !idle {
            self.fence = Fence {
                above: Some(writer.identity().1),
                standing: None,
            };
        }
        self.phase = Phase::Running(Box::new(Running {
            source_end: stitch.head(),
            stuck: None,
            expiry: Expiry::new(ledger.target_next(), now),
            stitch,
            writer,
            ledger,
            ids,
            ranges: Ranges::default(),
            checking: false,
            in_lane: false,
            in_channel: false,
            syncing: false,
            caught_up: false,
            starved: false,
            starved_since: None,
            fetch_at: now,
            send_at: now,
            hold_until,
            reopen: None,
            truncated: None,
            judged: false,
            idle,
        }));
    }

    /// An idle flow has something to do now: it is opened behind a fence.
    pub(crate) fn activate(&mut self, now: Instant) {
        self.active = true;
        self.wait(now);
    }

    /// Whether a flow that is not selected any more has nothing left to wait for. What it had queued is dropped.
    pub(crate) fn gone(&mut self) -> bool {
        match &mut self.phase {
            Phase::Waiting(_) => true,
            Phase::Opening => false,
            Phase::Running(running) => {
                // While an epoch is asked for, the head has to stay where it is; what is closing is drained anyway.
                if running.checking || running.closing() {
                    return false;
                }
                running.unqueue();
                let settled = running.writer.in_flight() == 0 && !running.writer.settling();
                settled && !running.syncing && running.ledger.sync_at().is_none()
            }
        }
    }

    /// What a later flow of the same partition in this session has to know.
    pub(crate) fn legacy(&self) -> Legacy {
        Legacy {
            last: self.last.clone(),
            fence: self.fence,
            acked: self.acked.clone(),
        }
    }

    /// A flow after one that was gone; answers to that one are ignored.
    pub(crate) fn after(mut self, generation: u64, legacy: Option<Legacy>) -> Self {
        self.generation = generation + 1;
        if let Some(Legacy { last, fence, acked }) = legacy {
            (self.last, self.fence, self.acked) = (last, fence, acked);
        }
        self
    }

    /// Puts the flow back to the start; answers still outstanding are ignored.
    pub(crate) fn wait(&mut self, until: Instant) {
        if let Phase::Running(running) = &self.phase
            && !running.idle
        {
            self.acked = Some(Acked {
                ledger: running.ledger.clone(),
                identity: running.writer.identity(),
                ids: running.ids,
            });
        }
        self.generation += 1;
        self.phase = Phase::Waiting(until);
    }

    /// Reports a trouble once; the same one again only adds to the count of tries. `quiet`: somebody else says it.
    pub(crate) fn report(&mut self, link: &LinkSpec, error: &FlowError, quiet: bool) {
        let clusters = (link.source.alias(), link.target.alias());
        let (id, text, link) = (error.id(), error.told(&self.spec, clusters), &link.name);
        let trouble = format!("{text} (id={id})");
        let (topic, partition) = (&self.spec.key.topic, self.spec.key.partition);
        if quiet {
            debug!(link, id, %topic, partition, "{text}");
        } else if self.trouble.as_deref() != Some(&trouble) {
            if error.action() == Action::Stop {
                tracing::error!(link, id, %topic, partition, "flow stopped: {text}");
            } else {
                warn!(link, id, %topic, partition, "{text}");
            }
            self.said = true;
        }
        self.trouble = Some(trouble);
        self.tries = self.tries.saturating_add(1);
        self.stopped = error.action() == Action::Stop;
    }

    /// The target acknowledged more. What was read before a trouble of the source says nothing about that.
    pub(crate) fn forwarded(&mut self, link: &str) {
        if let Phase::Running(running) = &mut self.phase
            && let Some(at) = running.stuck
        {
            if running.ledger.source_next() <= at {
                return;
            }
            running.stuck = None;
        }
        self.recovered(link);
    }

    /// It moves again, or there is nothing left to do: whatever kept it from moving is over, unless a leader is missing.
    pub(crate) fn recovered(&mut self, link: &str) {
        if self.leaderless {
            return;
        }
        (self.tries, self.stopped) = (0, false);
        let said = std::mem::take(&mut self.said);
        if self.trouble.take().is_some() && said {
            info!(link, topic = %self.spec.key.topic, partition = self.spec.key.partition, "flow goes on");
        }
    }
}
