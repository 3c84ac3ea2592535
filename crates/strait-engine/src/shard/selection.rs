//! Which flows there are: those that come are opened, those that go leave a legacy.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::debug;

use super::{Event, Shard};
use crate::error::FlowError;
use crate::flow::{Flow, Legacy, Phase};
use crate::open::{Opened, Opening, passing};
use crate::spec::{FlowSpec, STRAIT_TOPIC};

impl Shard<'_> {
    /// From now on these flows and no others.
    pub(super) fn select(&mut self, specs: Vec<FlowSpec>) {
        let now = self.session.rt.now();
        // Whoever looked for topics may have found re-created ones.
        self.session.source.invalidate();
        self.session.target.invalidate();
        for flow in &mut self.flows {
            flow.removing = true;
        }
        self.session
            .source
            .watch(specs.iter().map(|s| s.key.topic.clone()));
        self.session
            .target
            .watch(specs.iter().map(|s| s.target_topic.clone()));
        for spec in specs {
            match self.index.get(&spec.key) {
                Some(&at) if self.flows[at].spec.target_topic == spec.target_topic => {
                    let flow = &mut self.flows[at];
                    flow.removing = false;
                    if flow.spec.max_batch_bytes != spec.max_batch_bytes {
                        // Perhaps what was refused is taken now.
                        flow.verdicts.limit = None;
                        if let Some(running) = flow.running() {
                            running.send_at = now;
                        }
                    }
                    flow.spec = spec;
                }
                _ => {
                    let legacy = self.legacies.remove(&spec.key);
                    let found = self.session.positions.get(&spec.key);
                    let last = legacy.as_ref().map_or(found, Legacy::last).cloned();
                    let key = spec.key.clone();
                    self.gap_counts.begin(&key, last.as_ref());
                    let flow = Flow::new(spec, last, now);
                    let at = match self.vacant.pop() {
                        Some(at) => {
                            let generation = self.flows[at].generation;
                            self.flows[at] = flow.after(generation, legacy);
                            at
                        }
                        None => {
                            self.flows.push(flow.after(0, legacy));
                            self.flows.len() - 1
                        }
                    };
                    self.index.insert(key, at);
                }
            }
        }
        self.forget_routes();
    }

    /// Begins to look for the place where the flow goes on.
    pub(super) fn open(&mut self, at: usize) {
        let flow = &mut self.flows[at];
        flow.phase = Phase::Opening;
        let mut opening = Opening {
            session: self.session.clone(),
            spec: flow.spec.clone(),
            last: flow.last.clone(),
            fence: flow.fence,
            active: flow.active,
            acked: flow.acked.clone(),
            looked_cut: flow.looked_cut,
            drained: flow.drained,
            too_large: flow.verdicts.too_large,
            expired: flow.verdicts.expired,
        };
        let generation = flow.generation;
        self.opening += 1;
        self.jobs.spawn(async move {
            let result = Box::new(opening.run().await);
            Event::Opened {
                flow: at,
                generation,
                fence: opening.fence,
                last: opening.last,
                result,
            }
        });
    }

    /// The place was found, or the flow waits for its next try.
    pub(super) fn opened(&mut self, at: usize, result: Result<Opened, FlowError>) {
        let now = self.session.rt.now();
        match result {
            Ok(opened) => {
                self.gap_counts.persisted(&opened.sync);
                self.flows[at].opened(opened, now);
                self.schedule(at, now);
            }
            Err(FlowError::Session(error)) => {
                self.lost.get_or_insert(error);
            }
            Err(error) => {
                if passing(&error) && !matches!(error, FlowError::NoLeader { .. }) {
                    self.session.source.invalidate();
                    self.session.target.invalidate();
                }
                self.trouble(at, &error);
                let wait = error.backoff(self.flows[at].tries, self.flows.len());
                self.flows[at].wait(now + wait);
            }
        }
    }

    /// Flows that are not selected any more leave once they are drained, and nobody asks for their topics.
    pub(super) fn leave(&mut self, now: Instant) {
        let mut left = false;
        for at in 0..self.flows.len() {
            let flow = &mut self.flows[at];
            if !flow.removing {
                continue;
            }
            // One that was replaced under its key, or is vacant already, is not found by it.
            let known = self.index.get(&flow.spec.key) == Some(&at);
            if !known || !flow.gone() {
                continue;
            }
            flow.wait(now);
            self.legacies.insert(flow.spec.key.clone(), flow.legacy());
            self.index.remove(&flow.spec.key);
            self.vacant.push(at);
            left = true;
            debug!(link = %self.session.spec.name, topic = %flow.spec.key.topic, partition = flow.spec.key.partition, "flow left");
        }
        if left {
            self.forget_routes();
        }
    }

    /// Nobody asks for topics without a flow.
    fn forget_routes(&self) {
        let flows = || self.index.values().map(|&at| &self.flows[at].spec);
        let own = [STRAIT_TOPIC.to_owned(), self.session.syncs_topic.clone()];
        let mut sources: BTreeSet<String> = flows().map(|spec| spec.key.topic.clone()).collect();
        if self.session.spec.only_local {
            sources.insert(STRAIT_TOPIC.to_owned());
        }
        let targets = flows().map(|spec| spec.target_topic.clone());
        self.session.source.keep(&sources);
        self.session.target.keep(&targets.chain(own).collect());
    }
}
