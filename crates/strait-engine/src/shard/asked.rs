//! What a shard asks about a source partition before a flow goes on there, and what the answers mean.

use strait_wire::GapReason;
use tracing::warn;

use super::{Event, Shard};
use crate::error::FlowError;
use crate::limits;
use crate::partition::PartitionReader;
use crate::spec::Policy;
use crate::stitch::{Item, Stitch};

impl Shard<'_> {
    pub(super) fn ask_bounds(&mut self, at: usize) {
        let session = self.session.clone();
        let flow = &mut self.flows[at];
        let (key, generation) = (flow.spec.key.clone(), flow.generation);
        if let Some(running) = flow.running() {
            running.checking = true;
        }
        self.jobs.spawn(async move {
            let reader = PartitionReader {
                source: true,
                rt: session.rt.clone(),
                routes: session.source.clone(),
                topic: key.topic,
                partition: key.partition,
                isolation: session.spec.isolation,
            };
            let bounds = async { Ok((reader.log_start().await?, reader.log_end().await?)) };
            Event::Bounds {
                flow: at,
                generation,
                result: bounds.await,
            }
        });
    }

    pub(super) fn bounds(&mut self, at: usize, result: Result<(i64, i64), FlowError>) {
        let now = self.session.rt.now();
        let link = self.session.spec.name.clone();
        let flow = &mut self.flows[at];
        let key = flow.spec.key.clone();
        let (topic, partition) = (&key.topic, key.partition);
        let cluster = self.session.spec.source.alias().to_owned();
        let (compacted, isolation) = (flow.spec.compacted, self.session.spec.isolation);
        let max_decoded = self.session.spec.decode_bytes();
        let producers = self.session.producers_here();
        let Some(running) = flow.running() else {
            return;
        };
        running.checking = false;
        let head = running.stitch.head();
        match result {
            // What it had queued is gone: there is nothing the gap could follow.
            _ if running.closing() => {}
            Ok((start, end)) if running.idle && (head < start || head > end) => {
                self.flows[at].activate(now);
            }
            // Opening it again says so, and stops.
            Ok((start, _))
                if head < start
                    && self.session.spec.policies.retention_overtook == Policy::Stop =>
            {
                running.judged = true;
                running.ranges.clear();
            }
            Ok((start, _)) if head < start => {
                warn!(
                    %link, id = "retention-overtook", %topic, partition,
                    "retention on the source overtook the mirror: offsets {head} to {} of {topic}-{partition} are gone on cluster {cluster} and were not mirrored; going on at {start}; give the topic a longer retention there, or see why the mirror was so far behind",
                    start - 1
                );
                running.writer.push(Item::Gap {
                    reason: GapReason::Expired,
                    from: head,
                    to: start,
                    source_epoch: -1,
                });
                running.ranges.clear();
                running.stitch =
                    Stitch::new(start, -1, compacted, isolation, max_decoded).only_local(producers);
            }
            Ok((_, end)) if head > end => running.truncated = Some((-1, end)),
            Ok(_) => running.fetch_at = now + limits::ROUTES_MIN_AGE,
            Err(error) => {
                running.fetch_at = now + limits::BACKOFF_MAX / 6;
                self.unread(at, &error);
            }
        }
    }

    pub(super) fn origin_found(&mut self, at: usize, result: Result<(), FlowError>) {
        let now = self.session.rt.now();
        let Some(running) = self.flows[at].running() else {
            return;
        };
        running.checking = false;
        match result {
            Ok(()) => self.admit_arrived(at, now),
            Err(FlowError::Session(error)) => {
                self.lost.get_or_insert(error);
            }
            Err(error) => {
                running.ranges.clear();
                running.fetch_at = now + limits::BACKOFF_PASSING;
                self.unread(at, &error);
            }
        }
    }

    pub(super) fn epoch_checked(
        &mut self,
        at: usize,
        found: i32,
        result: Result<(i32, i64, bool), FlowError>,
    ) {
        let now = self.session.rt.now();
        let Some(running) = self.flows[at].running() else {
            return;
        };
        running.checking = false;
        match result {
            Ok((_, _, true)) => {
                running.stitch.confirm(found);
                // Nobody asks again for a range that came meanwhile.
                self.admit_arrived(at, now);
            }
            Ok((epoch, end, false)) => {
                running.truncated = Some((epoch, end.min(running.stitch.head())))
            }
            Err(error) => {
                running.ranges.clear();
                running.fetch_at = now + limits::ROUTES_MIN_AGE;
                self.unread(at, &error);
            }
        }
    }
}
