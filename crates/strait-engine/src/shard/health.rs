//! What does not work at the moment: brokers out of reach, flows that stand still, and who is told.

use std::collections::BTreeMap;
use std::time::Duration;

use strait_net::Action;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Shard;
use crate::error::FlowError;
use crate::flow::{Flow, Phase};
use crate::limits;
use crate::routes::{Lookup, Routes};
use crate::status::{LinkStatus, TROUBLES};

/// Stands for the cluster as a whole where a broker's id is asked for.
pub(super) const CLUSTER: i32 = -1;

/// How often it is said that a broker throttles.
const REMIND_THROTTLED: Duration = Duration::from_secs(600);
/// How many partitions one line names.
const NAMED: usize = 5;

/// One of a link's two clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Source,
    Target,
}

/// What the link has forwarded, in its status and in metrics.
pub(crate) struct Sums {
    records: u64,
    bytes: u64,
    counters: [metrics::Counter; 2],
}

impl Sums {
    pub(super) fn new(link: &str, status: &LinkStatus) -> Self {
        let counters = [
            metrics::counter!("strait_records_total", "link" => link.to_owned()),
            metrics::counter!("strait_bytes_total", "link" => link.to_owned()),
        ];
        Self {
            records: status.records,
            bytes: status.bytes,
            counters,
        }
    }

    pub(super) fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
        let [counted_records, counted_bytes] = &self.counters;
        counted_records.increment(records);
        counted_bytes.increment(bytes);
    }
}

/// A broker that cannot be used at the moment.
pub(crate) struct Ill {
    why: String,
    said: Instant,
    /// When it is looked after where nothing is to be sent to it.
    look_at: Instant,
}

impl Shard<'_> {
    /// A broker cannot be used: its flows wait, the others go on. Said once, and once a minute while it lasts: one
    /// dead broker fails in many ways.
    pub(super) fn ill(&mut self, side: Side, broker: i32, why: String) {
        let now = self.session.rt.now();
        let link = &self.session.spec.name;
        let said = self.ills.get(&(side, broker)).map(|ill| ill.said);
        let silent = said.filter(|said| now.saturating_duration_since(*said) < limits::REMIND);
        match (silent, side) {
            (Some(_), _) => debug!(link, "{why}"),
            (None, Side::Source) => warn!(
                link,
                id = "source-unavailable",
                "cannot read from the source, trying again: {why}"
            ),
            (None, Side::Target) => warn!(
                link,
                id = "target-unavailable",
                "cannot write to the target, trying again: {why}"
            ),
        }
        let said = silent.unwrap_or(now);
        let look_at = now + limits::BACKOFF_PASSING;
        let ill = Ill { why, said, look_at };
        self.ills.insert((side, broker), ill);
    }

    /// A broker answers: the flows that waited for it try at once, and not again and again where it comes and goes.
    pub(super) fn well(&mut self, side: Side, broker: i32) {
        if self.ills.remove(&(side, broker)).is_none() {
            return;
        }
        let now = self.session.rt.now();
        let last = self.woken.get(&(side, broker));
        if last.is_none_or(|at| now.saturating_duration_since(*at) >= limits::BACKOFF_PASSING) {
            self.woken.insert((side, broker), now);
            for at in 0..self.flows.len() {
                let flow = &self.flows[at];
                if !flow.stopped
                    && self.leads(side, broker, flow)
                    && let Phase::Waiting(until) = &mut self.flows[at].phase
                {
                    *until = now.min(*until);
                }
            }
        }
        let link = &self.session.spec.name;
        let cluster = self.side(side).cluster().alias();
        if broker == CLUSTER {
            info!(link, %cluster, "the cluster answers again");
        } else {
            info!(link, %cluster, broker, "the broker answers again");
        }
    }

    /// A broker answered that it will read nothing for this time, because a quota is used up.
    pub(super) fn throttled(&mut self, side: Side, broker: i32, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let (now, link) = (self.session.rt.now(), self.session.spec.name.clone());
        let cluster = self.side(side).cluster().alias().to_owned();
        let ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        metrics::counter!("strait_throttled_ms_total", "link" => link.clone(), "cluster" => cluster.clone())
            .increment(ms);
        let said = self.throttles.get(&(side, broker));
        if said.is_none_or(|said| now.saturating_duration_since(*said) >= REMIND_THROTTLED) {
            info!(
                link,
                id = "throttled",
                cluster,
                broker,
                "the broker throttles Strait for {ms} ms: a quota for its client id or user is used up; mirroring goes on at the quota's rate"
            );
            self.throttles.insert((side, broker), now);
        }
    }

    fn side(&self, side: Side) -> &Routes {
        match side {
            Side::Source => &self.session.source,
            Side::Target => &self.session.target,
        }
    }

    /// Why a running flow stands still, if it does.
    fn standstill<'s>(&'s self, flow: &'s Flow) -> Option<&'s str> {
        if let Some(trouble) = &flow.trouble {
            return Some(trouble);
        }
        self.ill_end(flow)
    }

    /// Why one of the brokers that lead the flow's partitions cannot be used, if that is so.
    fn ill_end(&self, flow: &Flow) -> Option<&str> {
        if self.ills.is_empty() {
            return None;
        }
        ends(flow).into_iter().find_map(|(side, topic)| {
            match self.side(side).lookup(topic, flow.spec.key.partition) {
                Lookup::Leader(route) => {
                    let ill = self.ills.get(&(side, route.broker))?;
                    Some(ill.why.as_str())
                }
                _ => None,
            }
        })
    }

    /// Whether a broker, or the cluster as a whole, is what the flow needs on that side.
    fn leads(&self, side: Side, broker: i32, flow: &Flow) -> bool {
        let of_side = |(of, topic): &(Side, &str)| {
            *of == side
                && match self.side(side).lookup(topic, flow.spec.key.partition) {
                    Lookup::Leader(route) => route.broker == broker,
                    _ => false,
                }
        };
        broker == CLUSTER || ends(flow).iter().any(of_side)
    }

    /// Target brokers that failed, and that nobody has anything for now, are looked after by their connections: no answer
    /// to a batch would ever say that they are well.
    pub(super) fn revive(&mut self, now: Instant) {
        let failed = self.ills.iter().filter(|((side, broker), ill)| {
            *side == Side::Target && *broker != CLUSTER && now >= ill.look_at
        });
        for broker in failed.map(|((_, broker), _)| *broker).collect::<Vec<_>>() {
            if let Some(ill) = self.ills.get_mut(&(Side::Target, broker)) {
                ill.look_at = now + limits::BACKOFF_PASSING;
            }
            let busy = self.flows.iter().any(|flow| {
                let waits = match &flow.phase {
                    Phase::Running(running) => running.writer.bytes() > 0,
                    _ => false,
                };
                waits && self.leads(Side::Target, broker, flow)
            });
            let channel = (broker, 0);
            if busy {
                continue;
            }
            match self
                .channels
                .get_mut(&channel)
                .map(|way| (way.open().is_some(), way.connecting))
            {
                Some((true, _)) => self.well(Side::Target, broker),
                Some((_, true)) => {}
                _ => self.connect_channel(channel),
            }
        }
    }

    /// How many flows may be opening for this one to begin, too: those that cannot get far now, or did not before, leave room for the others.
    pub(super) fn opening_at_once(&self, at: usize) -> usize {
        let flow = &self.flows[at];
        let waits = ends(flow).into_iter().any(|(side, topic)| {
            let found = self.side(side).lookup(topic, flow.spec.key.partition);
            matches!(found, Lookup::NoLeader | Lookup::Missing | Lookup::Denied)
        });
        if waits || flow.tries > 0 || self.ill_end(flow).is_some() {
            limits::OPENING_FLOWS / 2
        } else {
            limits::OPENING_FLOWS
        }
    }

    pub(super) fn trouble(&mut self, at: usize, error: &FlowError) {
        let link = &self.session.spec.name;
        metrics::counter!("strait_flow_errors_total", "link" => link.clone(), "id" => error.id())
            .increment(1);
        // What a broker's illness does to each of its flows needs no line of its own.
        let quiet = error.action() != Action::Stop && self.ill_end(&self.flows[at]).is_some();
        self.flows[at].report(&self.session.spec, error, quiet);
    }

    /// A trouble on the way from the source: reading stands at this place.
    pub(super) fn unread(&mut self, at: usize, error: &FlowError) {
        if let Some(running) = self.flows[at].running() {
            running.stuck = Some(running.stitch.head());
        }
        self.trouble(at, error);
    }

    /// Running flows whose partitions have no leader on one side stand still: said once for all that lost theirs
    /// together, and once when it is over.
    pub(super) fn watch_leaders(&mut self) {
        let mut lost: BTreeMap<Side, Vec<usize>> = BTreeMap::new();
        let mut back = Vec::new();
        for at in 0..self.flows.len() {
            if self.flows[at].running().is_none() {
                continue;
            }
            let flow = &self.flows[at];
            let without = ends(flow).into_iter().find(|(side, topic)| {
                let found = self.side(*side).lookup(topic, flow.spec.key.partition);
                found == Lookup::NoLeader
            });
            match without {
                Some((side, _)) if !flow.leaderless => lost.entry(side).or_default().push(at),
                None if flow.leaderless => back.push(at),
                _ => {}
            }
        }
        let link = self.session.spec.name.clone();
        for (side, flows) in lost {
            let cluster = self.side(side).cluster().alias().to_owned();
            let mut named = Vec::new();
            for at in flows {
                let flow = &mut self.flows[at];
                let (topic, partition) = match side {
                    Side::Source => (&flow.spec.key.topic, flow.spec.key.partition),
                    Side::Target => (&flow.spec.target_topic, flow.spec.key.partition),
                };
                let error = FlowError::NoLeader {
                    cluster: cluster.clone(),
                    topic: topic.clone(),
                    partition,
                };
                named.push(format!("{topic}-{partition}"));
                flow.leaderless = true;
                metrics::counter!("strait_flow_errors_total", "link" => link.clone(), "id" => error.id())
                    .increment(1);
                flow.report(&self.session.spec, &error, true);
            }
            let (count, have) = (named.len(), if named.len() == 1 { "has" } else { "have" });
            warn!(
                link,
                id = "no-leader",
                cluster,
                partitions = count,
                "{} {have} no leader: look at the brokers of this cluster; mirroring goes on by itself when there is one",
                list(&named)
            );
        }
        let mut named = Vec::new();
        for at in back {
            let flow = &mut self.flows[at];
            flow.leaderless = false;
            flow.recovered(&link);
            named.push(flow.spec.key.to_string());
        }
        if !named.is_empty() {
            let count = named.len();
            info!(
                link,
                partitions = count,
                "leaders are back, mirroring goes on: {}",
                list(&named)
            );
        }
    }

    /// Tells everybody who watches how the link is.
    pub(super) fn publish(&self) {
        let mut status = LinkStatus {
            open: self.stopping.is_none(),
            selected: self.status.borrow().selected,
            records: self.sums.records,
            bytes: self.sums.bytes,
            taken_over: self.session.takeover.taken(),
            ..LinkStatus::default()
        };
        if !self.session.lease.valid() && self.stopping.is_none() {
            status.trouble = Some(format!(
                "ownership of the link cannot be renewed on cluster '{}', so nothing is written there: look at its brokers",
                self.session.spec.target.alias()
            ));
        }
        for flow in self.flows.iter().filter(|f| !f.removing) {
            status.flows += 1;
            let mut trouble = flow.trouble.as_deref();
            if let Phase::Running(running) = &flow.phase {
                trouble = self.standstill(flow);
                status.running += usize::from(trouble.is_none());
                status.lag = status.lag.saturating_add(
                    running
                        .source_end
                        .saturating_sub(running.ledger.source_next())
                        .max(0),
                );
            } else if trouble.is_none() && matches!(flow.phase, Phase::Opening) {
                status.opening += 1;
            }
            if let Some(trouble) = trouble {
                status.troubled += 1;
                if status.troubles.len() < TROUBLES {
                    let named = (flow.spec.key.clone(), trouble.to_owned());
                    status.troubles.push(named);
                }
            }
        }
        let link = self.session.spec.name.clone();
        let states = [
            ("running", status.running),
            ("opening", status.opening),
            ("troubled", status.troubled),
        ];
        for (state, flows) in states {
            metrics::gauge!("strait_flows", "link" => link.clone(), "state" => state)
                .set(flows as f64);
        }
        metrics::gauge!("strait_lag_records", "link" => link.clone()).set(status.lag as f64);
        metrics::gauge!("strait_memory_bytes", "link" => link)
            .set(self.pool.held() as f64 + self.reserved as f64);
        self.status.send_replace(status);
    }
}

/// A flow's topics.
fn ends(flow: &Flow) -> [(Side, &str); 2] {
    [
        (Side::Source, &flow.spec.key.topic),
        (Side::Target, &flow.spec.target_topic),
    ]
}

/// The first few names.
fn list(named: &[String]) -> String {
    match named.get(..NAMED) {
        Some(first) if named.len() > NAMED => {
            format!("{} and {} more", first.join(", "), named.len() - NAMED)
        }
        _ => named.join(", "),
    }
}
