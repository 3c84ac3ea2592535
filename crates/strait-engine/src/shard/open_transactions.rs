//! Open transactions on the source that hold flows back: whose they are, and who is told.

use strait_net::{NetError, ProducerState};
use strait_wire::{FetchedPartition, Isolation};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Event, Shard};
use crate::routes::Lookup;
use crate::stable_offset::{Due, Held};
use crate::transfer::Part;

impl Shard<'_> {
    /// A fetch for this part was answered.
    pub(super) fn heard_stable(
        &mut self,
        part: &Part,
        fetched: Option<&FetchedPartition>,
        now: Instant,
    ) {
        let (Some(flow), Some(fetched)) = (self.flows.get_mut(part.flow), fetched) else {
            return;
        };
        let asked_at = flow.running().and_then(|r| r.ranges.asked_at(part.mark));
        let Some(asked_at) = asked_at else {
            return;
        };
        flow.stable.heard(
            asked_at,
            fetched.last_stable_offset,
            fetched.high_watermark,
            now,
        );
    }

    /// Asks for the producers behind last stable offsets that have stood still for too long.
    pub(super) fn watch_open_transactions(&mut self, now: Instant) {
        if self.session.spec.isolation != Isolation::ReadCommitted {
            return;
        }
        let limit = self.session.spec.open_transaction;
        let link = &self.session.spec.name;
        let mut held_back = 0;
        for (at, flow) in self.flows.iter_mut().enumerate() {
            if flow.removing {
                continue;
            }
            let key = &flow.spec.key;
            match flow.stable.due(limit, now) {
                None => {}
                Some(Due::Over(over)) => info!(
                    link, topic = %key.topic, partition = key.partition,
                    "the open transaction at source offset {} is over after {} s: the flow goes on",
                    over.offset, over.after.as_secs()
                ),
                Some(Due::Ask(held)) => {
                    // Without a leader there is nobody to ask, and another trouble is reported.
                    if let Lookup::Leader(route) =
                        self.session.source.lookup(&key.topic, key.partition)
                    {
                        let source = self.session.spec.source.clone();
                        let key = key.clone();
                        self.jobs.spawn(async move {
                            let result = source
                                .describe_producers(&key.topic, key.partition, route.broker)
                                .await;
                            Event::Producers {
                                flow: at,
                                held,
                                result,
                            }
                        });
                    }
                }
            }
            held_back += usize::from(flow.stable.held_for(limit, now));
        }
        metrics::gauge!("strait_flows_held_by_transactions", "link" => link.clone())
            .set(held_back as f64);
    }

    /// The leader answered, or cannot be asked such a thing.
    pub(super) fn producers(
        &mut self,
        at: usize,
        held: Held,
        result: Result<Vec<ProducerState>, NetError>,
    ) {
        let now = self.session.rt.now();
        let link = &self.session.spec.name;
        let cluster = self.session.spec.source.alias();
        let flow = &mut self.flows[at];
        let (topic, partition) = (&flow.spec.key.topic, flow.spec.key.partition);
        let owner = match result {
            Ok(producers) => match oldest(&producers) {
                Some(producer) => owner(&producer, self.session.rt.wall_ms()),
                // It ended meanwhile: the next answer says so.
                None => return,
            },
            // The broker is too old (before 2.8), or it does not let us ask.
            Err(error @ (NetError::Unsupported { .. } | NetError::Kafka { .. })) => {
                format!("of an unknown producer ({error})")
            }
            Err(error) => {
                debug!(link, %topic, partition, "the producers cannot be asked for: {error}");
                return;
            }
        };
        if !flow.stable.reported(held.offset, now) {
            return;
        }
        warn!(
            link, id = "open-transaction", cluster, %topic, partition,
            "an open transaction on the source holds the flow back at offset {} (the high watermark is {}), for {} s at least: {owner}; \
             the flow goes on when it ends: look for the application, or end it with \
             kafka-transactions.sh --bootstrap-server BROKER-OF-{cluster} abort --topic {topic} --partition {partition} --start-offset {}",
            held.offset,
            held.high_watermark,
            now.saturating_duration_since(held.since).as_secs(),
            held.offset
        );
    }
}

/// The producer whose open transaction started first: it is what the last stable offset waits for.
fn oldest(producers: &[ProducerState]) -> Option<ProducerState> {
    let open = producers.iter().filter(|p| p.txn_start_offset >= 0);
    open.min_by_key(|p| p.txn_start_offset).copied()
}

fn owner(producer: &ProducerState, wall_ms: i64) -> String {
    let age = wall_ms.saturating_sub(producer.last_timestamp);
    let last = if producer.last_timestamp >= 0 && age >= 0 {
        format!(", its last record is {} s old", age / 1_000)
    } else {
        String::new()
    };
    format!(
        "of producer id {}, epoch {}, begun at offset {}{last}",
        producer.producer_id, producer.producer_epoch, producer.txn_start_offset
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(producer_id: i64, txn_start_offset: i64) -> ProducerState {
        ProducerState {
            producer_id,
            producer_epoch: 3,
            last_sequence: 0,
            last_timestamp: 40_000,
            coordinator_epoch: 0,
            txn_start_offset,
        }
    }

    #[test]
    fn the_oldest_open_transaction_is_named() {
        let all = [producer(7, -1), producer(8, 900), producer(9, 42)];
        let oldest = oldest(&all).unwrap();
        assert_eq!(
            owner(&oldest, 345_000),
            "of producer id 9, epoch 3, begun at offset 42, its last record is 305 s old"
        );
        assert_eq!(super::oldest(&all[..1]), None);
    }
}
