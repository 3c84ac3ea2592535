//! What does not work at the moment: brokers out of reach, flows that stand still, and who is told.

use tracing::{info, warn};

use super::Shard;
use crate::flow::{Flow, Phase};
use crate::routes::{Lookup, Routes};
use crate::status::{LinkStatus, TROUBLES};

/// Stands for the cluster as a whole where a broker's id is asked for.
pub(super) const CLUSTER: i32 = -1;

/// One of a link's two clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Source,
    Target,
}

impl Shard<'_> {
    /// A broker cannot be used: its flows wait, the others go on.
    pub(super) fn ill(&mut self, side: Side, broker: i32, why: String) {
        let link = &self.session.spec.name;
        match side {
            Side::Source => warn!(link, "cannot read from the source, trying again: {why}"),
            Side::Target => warn!(link, "cannot write to the target, trying again: {why}"),
        }
        self.ills.insert((side, broker), why);
    }

    /// A broker answers.
    pub(super) fn well(&mut self, side: Side, broker: i32) {
        if self.ills.remove(&(side, broker)).is_none() {
            return;
        }
        let link = &self.session.spec.name;
        let cluster = self.side(side).cluster().alias();
        if broker == CLUSTER {
            info!(link, %cluster, "the cluster answers again");
        } else {
            info!(link, %cluster, broker, "the broker answers again");
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
        if self.ills.is_empty() {
            return None;
        }
        let ends = [
            (Side::Source, &flow.spec.key.topic),
            (Side::Target, &flow.spec.target_topic),
        ];
        ends.into_iter().find_map(|(side, topic)| {
            match self.side(side).lookup(topic, flow.spec.key.partition) {
                Lookup::Leader(route) => self.ills.get(&(side, route.broker)).map(String::as_str),
                _ => None,
            }
        })
    }

    /// Tells everybody who watches how the link is.
    pub(super) fn publish(&self) {
        let mut status = LinkStatus {
            open: self.stopping.is_none(),
            records: self.status.borrow().records,
            bytes: self.status.borrow().bytes,
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
                status.lag += (running.source_end - running.ledger.source_next()).max(0);
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
            .set((self.held + self.reserved) as f64);
        self.status.send_replace(status);
    }
}
