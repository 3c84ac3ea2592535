//! The writer of one flow: gives batches their sequences, keeps the order, and judges every answer.
//!
//! A record sent under (producer id, epoch) has one sequence for ever. Whatever leaves doubt about what
//! the target holds ends the epoch: the flow is opened again behind a new fence, and the target's own
//! log decides (positions.md in the book, "Scan" and "In a session"). Nothing leans on the broker's deduplication.

pub mod answer;
pub(crate) mod queue;

use std::collections::VecDeque;

use bytes::Bytes;
use strait_net::{KafkaError, Pool};
use strait_wire::{GapReason, Stamp, restamp};
use tokio::time::Instant;

use crate::ledger::{Forwarded, Ledger};
use crate::limits;
use crate::sequence::advance;
use crate::stitch::{Item, Outgoing};
use crate::writer::answer::{Answer, Refusal};
use crate::writer::queue::Queue;

/// What to do once every batch in flight has its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing of the failed stretch was appended: it is queued again under its old sequences.
    Resend(KafkaError),
    /// As `Resend`, but only after somebody changed something. The batch is [`Writer::next_outgoing`] now.
    Refused(Refusal),
    /// The target's log has to be read to know what it holds.
    Reopen(String),
    /// A batch was refused and a later one was appended: the broker had forgotten the producer.
    Hole {
        /// The first source offset that is missing in order.
        first: i64,
        /// The last one.
        last: i64,
    },
    /// Another process owns the link.
    Fenced(KafkaError),
}

/// One batch to put on the wire.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// Names the batch in [`Writer::answer`].
    pub ticket: u64,
    /// A new header and the untouched records.
    pub batch: [Bytes; 2],
    /// Their size.
    pub size: usize,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Gaps are few; a box would cost every batch an allocation.
enum Slot {
    Batch {
        outgoing: Outgoing,
        sequence: i32,
        ticket: u64,
        answer: Option<Answer>,
    },
    Gap {
        reason: GapReason,
        from: i64,
        to: i64,
        source_epoch: i32,
    },
}

/// The target side of one flow within one epoch.
#[derive(Debug)]
pub struct Writer {
    producer_id: i64,
    epoch: i16,
    expected: i64,
    next_sequence: i32,
    known: bool,
    queue: Queue,
    slots: VecDeque<Slot>,
    in_flight: usize,
    /// Of what was sent and is not in the ledger yet.
    sent_bytes: u64,
    next_ticket: u64,
    settling: bool,
    /// A loss was passed: nothing follows before a sync behind it is persisted.
    barred: bool,
    /// Others write to the partition too.
    shared: bool,
    /// One batch is sent at a time, whatever the window.
    lockstep: bool,
    /// The source offset that has to be sent next, once anything was sent.
    sent_next: Option<i64>,
    /// Something was queued that does not continue what was sent.
    broken: Option<String>,
}

impl Writer {
    /// A writer whose first record gets sequence 0 and is expected at target offset `expected`.
    pub fn new(producer_id: i64, epoch: i16, expected: i64) -> Self {
        Self {
            sent_next: None,
            broken: None,
            producer_id,
            epoch,
            expected,
            next_sequence: 0,
            known: false,
            queue: Queue::new(),
            slots: VecDeque::new(),
            in_flight: 0,
            sent_bytes: 0,
            next_ticket: 0,
            settling: false,
            barred: false,
            shared: false,
            lockstep: false,
        }
    }

    /// Others write to the partition too: acknowledgements may skip their records.
    pub fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Whether the next batch may only be sent with none in flight: what waits behind it is worth joining then.
    pub fn lockstep(&mut self, lockstep: bool) {
        self.lockstep = lockstep;
    }

    /// The next batch to be sent.
    pub fn next_outgoing(&self) -> Option<&Outgoing> {
        self.queue.next_outgoing()
    }

    /// Whether the ledger stands right behind a loss (refused or expired): a sync of it lets the flow go on.
    pub fn at_loss(&self) -> bool {
        self.barred && self.slots.is_empty()
    }

    /// Whether a loss was passed and no sync behind it is persisted yet: nothing is sent.
    pub fn barred(&self) -> bool {
        self.barred
    }

    /// A sync behind the loss is persisted.
    pub fn loss_recorded(&mut self) {
        self.barred = false;
    }

    /// The largest batch that the target takes: none is joined beyond it.
    pub fn limit(&mut self, bytes: usize) {
        self.queue.limit(bytes);
    }

    /// The producer id and epoch of everything this writer sends.
    pub fn identity(&self) -> (i64, i16) {
        (self.producer_id, self.epoch)
    }

    /// Bytes queued or in flight.
    pub fn bytes(&self) -> u64 {
        self.queue.bytes() + self.sent_bytes
    }

    /// Batches in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether an answer failed and no more is sent until all are in.
    pub fn settling(&self) -> bool {
        self.settling
    }

    /// Whether [`next_batch`](Self::next_batch) would give a batch or move a gap along.
    pub fn ready(&self) -> bool {
        !self.settling && !self.barred && !self.queue.is_empty() && self.in_flight < self.window()
    }

    /// The largest timestamp of the batch that [`next_batch`](Self::next_batch) would give.
    pub fn next_timestamp(&self) -> Option<i64> {
        let outgoing = self.queue.next_outgoing()?;
        Some(outgoing.batch.header.max_timestamp)
    }

    /// Queues an item behind all others.
    pub fn push(&mut self, item: Item) {
        self.queue.push(item);
    }

    /// Forgets what was not sent yet and returns its first source offset: it will be fetched again by whoever
    /// continues.
    pub fn drop_queue(&mut self) -> Option<i64> {
        let first = self.queue.first();
        self.queue.clear();
        first
    }

    /// The source's leader epoch of the last item that was sent and is not in the ledger yet.
    pub fn sent_epoch(&self) -> Option<i32> {
        self.slots.back().map(|slot| match slot {
            Slot::Batch { outgoing, .. } => outgoing.source_epoch,
            Slot::Gap { source_epoch, .. } => *source_epoch,
        })
    }

    // A broker that does not know the producer accepts any first sequence: a refused batch with
    // successors in flight would then be lost for good. So one at a time until the first answer.
    fn window(&self) -> usize {
        if self.known {
            limits::IN_FLIGHT_PER_PARTITION
        } else {
            1
        }
    }

    /// The next batch to send, now with its sequence; `None` when there is none or the window is full. Small batches
    /// that wait behind each other are joined, in a buffer of `pool`.
    pub fn next_batch(&mut self, pool: &Pool) -> Option<Dispatch> {
        while self.ready() {
            let first = self.queue.first()?;
            if let Some(next) = self.sent_next.filter(|next| *next != first) {
                // Sent, it would take the sequences of what is missing, and no count would tell.
                self.broken = Some(format!(
                    "source offset {first} was to be sent where {next} had to follow"
                ));
                self.settling = true;
                return None;
            }
            match self.queue.pop()? {
                Item::Gap {
                    reason,
                    from,
                    to,
                    source_epoch,
                } => {
                    // A start must find neither behind its sync. A walk that crossed a refused record would count
                    // it as forwarded; and what expired could not be told from what was forwarded and then expired.
                    self.barred |= matches!(reason, GapReason::Refused | GapReason::Expired);
                    self.sent_next = Some(to);
                    self.slots.push_back(Slot::Gap {
                        reason,
                        from,
                        to,
                        source_epoch,
                    });
                }
                Item::Batch(outgoing) => {
                    let outgoing =
                        self.queue
                            .join(outgoing, self.in_flight > 0 || self.lockstep, pool);
                    return Some(self.dispatch(outgoing));
                }
            }
        }
        None
    }

    fn dispatch(&mut self, outgoing: Outgoing) -> Dispatch {
        let sequence = self.next_sequence;
        let stamp = Stamp {
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            base_sequence: sequence,
        };
        let batch = restamp(&outgoing.batch, stamp);
        let (ticket, size) = (self.next_ticket, outgoing.size());
        self.sent_next = Some(outgoing.last + 1);
        self.next_sequence = advance(sequence, outgoing.count());
        self.next_ticket += 1;
        self.in_flight += 1;
        self.sent_bytes += size as u64;
        self.slots.push_back(Slot::Batch {
            outgoing,
            sequence,
            ticket,
            answer: None,
        });
        Dispatch {
            ticket,
            batch,
            size,
        }
    }

    /// Takes the answer for a batch. Answers may come in any order; the ledger moves in source order only.
    pub fn answer(&mut self, ticket: u64, answer: Answer, ledger: &mut Ledger, now: Instant) {
        for slot in &mut self.slots {
            if let Slot::Batch {
                ticket: t,
                answer: a @ None,
                ..
            } = slot
                && *t == ticket
            {
                self.settling |= !matches!(answer, Answer::Appended(_));
                *a = Some(answer);
                self.in_flight -= 1;
                break;
            }
        }
        self.advance_ledger(ledger, now);
    }

    /// Moves the ledger over everything that is acknowledged in order, gaps included.
    pub fn advance_ledger(&mut self, ledger: &mut Ledger, now: Instant) {
        while let Some(slot) = self.slots.front_mut() {
            match slot {
                Slot::Gap {
                    reason,
                    to,
                    source_epoch,
                    ..
                } => ledger.leave_out(*reason, *to, *source_epoch, now),
                Slot::Batch {
                    outgoing,
                    sequence,
                    answer: Some(answer),
                    ..
                } => {
                    let Answer::Appended(base) = *answer else {
                        return;
                    };
                    // A repeated base offset is what deduplication by content-blind sequence looks like, a
                    // higher one is somebody else's batch in between: the log has to be read.
                    if self.shared && base > self.expected {
                        self.expected = base;
                    }
                    if base != self.expected {
                        let expected = self.expected;
                        *answer = Answer::Doubt(format!(
                            "acknowledged at offset {base} instead of {expected}"
                        ));
                        self.settling = true;
                        return;
                    }
                    let forwarded = Forwarded {
                        last: outgoing.last,
                        count: outgoing.count(),
                        next_sequence: advance(*sequence, outgoing.count()),
                        source_epoch: outgoing.source_epoch,
                        bytes: outgoing.size() as u64,
                    };
                    self.expected = self.expected.saturating_add(i64::from(forwarded.count));
                    self.sent_bytes -= forwarded.bytes;
                    self.known = true;
                    ledger.forward(&forwarded, self.expected, now);
                }
                Slot::Batch { .. } => return,
            }
            self.slots.pop_front();
        }
    }

    /// Once nothing is in flight any more: what the failed answers mean. `None` while answers are
    /// outstanding or nothing failed.
    pub fn settle(&mut self) -> Option<Settled> {
        if !self.settling || self.in_flight > 0 {
            return None;
        }
        if let Some(why) = self.broken.take() {
            return Some(Settled::Reopen(why));
        }
        let answers: Vec<&Answer> = self.slots.iter().filter_map(Slot::answered).collect();
        if let Some(error) = answers.iter().find_map(|a| {
            if let Answer::Fenced(e) = a {
                Some(*e)
            } else {
                None
            }
        }) {
            return Some(Settled::Fenced(error));
        }
        let nothing_after = answers.iter().skip(1).all(|a| {
            matches!(
                a,
                Answer::OutOfOrder | Answer::NotAppended(_) | Answer::Refused(..)
            )
        });
        let appended_after = answers
            .iter()
            .skip(1)
            .any(|a| matches!(a, Answer::Appended(_)));
        let settled = match answers.first() {
            Some(Answer::NotAppended(error)) if nothing_after => Settled::Resend(*error),
            Some(Answer::Refused(refusal)) if nothing_after => {
                Settled::Refused(Refusal::clone(refusal))
            }
            Some(Answer::NotAppended(_) | Answer::Refused(..)) if appended_after => {
                let (first, last) = self.failed().map_or((-1, -1), |o| (o.first, o.last));
                Settled::Hole { first, last }
            }
            Some(Answer::Doubt(why)) => Settled::Reopen(why.clone()),
            Some(Answer::OutOfOrder) => Settled::Reopen(KafkaError(45).to_string()),
            _ => Settled::Reopen("the answers do not fit together".to_owned()),
        };
        if matches!(settled, Settled::Resend(_) | Settled::Refused(_)) {
            self.requeue();
        }
        Some(settled)
    }

    fn failed(&self) -> Option<&Outgoing> {
        self.slots.iter().find_map(|slot| match slot {
            Slot::Batch { outgoing, .. } => Some(outgoing),
            Slot::Gap { .. } => None,
        })
    }

    // The same batches in the same cut and order get the same sequences again.
    fn requeue(&mut self) {
        while let Some(slot) = self.slots.pop_back() {
            self.queue.put_back(match slot {
                Slot::Batch {
                    outgoing, sequence, ..
                } => {
                    self.next_sequence = sequence;
                    self.sent_bytes -= outgoing.size() as u64;
                    Item::Batch(outgoing)
                }
                Slot::Gap {
                    reason,
                    from,
                    to,
                    source_epoch,
                } => Item::Gap {
                    reason,
                    from,
                    to,
                    source_epoch,
                },
            });
        }
        self.sent_next = self.queue.first();
        self.known = false;
        self.settling = false;
        self.barred = false;
    }
}

impl Slot {
    fn answered(&self) -> Option<&Answer> {
        match self {
            Self::Batch { answer, .. } => answer.as_ref(),
            Self::Gap { .. } => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Virtual time.
#[path = "writer/writer_test.rs"]
mod tests;
