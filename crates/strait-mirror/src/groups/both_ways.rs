//! Offsets of groups between clusters that mirror each other under the same names: the first record of any origin that a
//! group has not read (groups.md in the book, "Active/active").

use std::collections::{BTreeMap, BTreeSet};

use strait_engine::{FlowKey, SessionError};
use strait_net::{Cluster, Runtime};
use strait_wire::RegistryRecord;
use tracing::{debug, warn};

use crate::groups::origins::{Ended, Untold, first_unread};
use crate::groups::writers::Writers;
use crate::translation::{Exactness, Translated};

/// Groups and topics of which it is remembered that they are not translated.
const UNTOLD: usize = 10_000;
/// Rounds after which that is said: a link that has just begun has no positions yet.
const SAY_AFTER: u8 = 3;

/// Both sides of one partition, as far as groups want it.
#[derive(Debug, Default)]
struct Ends {
    ended: Ended,
    /// Where the source and the target ended when they were asked last.
    last: Option<(i64, i64)>,
}

/// What is known for the groups of one link.
pub(crate) struct BothWays {
    link: String,
    source: Cluster,
    target: Cluster,
    on_source: Writers,
    on_target: Writers,
    /// Source partitions on which groups have commits.
    ends: BTreeMap<FlowKey, Ends>,
    /// Those of them in this round.
    wanted: BTreeSet<FlowKey>,
    /// What is not translated, and for how many rounds.
    untold: BTreeMap<(String, String), u8>,
    /// Those of them in this round.
    untold_now: BTreeSet<(String, String)>,
    /// Records that would be read again in this round.
    again: i64,
    rereads: metrics::Gauge,
}

impl BothWays {
    pub(crate) fn new(rt: &Runtime, link: &str, source: Cluster, target: Cluster) -> Self {
        Self {
            on_source: Writers::new(rt, source.clone()),
            on_target: Writers::new(rt, target.clone()),
            source,
            target,
            ends: BTreeMap::new(),
            wanted: BTreeSet::new(),
            untold: BTreeMap::new(),
            untold_now: BTreeSet::new(),
            again: 0,
            rereads: metrics::gauge!("strait_group_rereads", "link" => link.to_owned()),
            link: link.to_owned(),
        }
    }

    /// Learns what a round goes by.
    pub(crate) async fn refresh(&mut self) -> Result<(), SessionError> {
        // Those of a round that did not come to its end.
        self.again = 0;
        // Where both sides end is asked before it is read who writes to them: whoever begins later writes behind that.
        self.ask_ends().await;
        self.on_source.refresh(|_| ()).await?;
        let ends = &mut self.ends;
        let anew = |flow: &FlowKey| {
            ends.remove(flow);
        };
        self.on_target.refresh(anew).await
    }

    /// The target's ends, and then the source's.
    async fn ask_ends(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        self.ends.retain(|flow, _| wanted.contains(flow));
        let mut places = BTreeMap::new();
        for flow in wanted {
            if let Some(place) = self.place(&flow) {
                places.insert(flow, (place.topic.clone(), place.partition));
            }
        }
        if places.is_empty() {
            return;
        }
        let key = |flow: &FlowKey| (flow.topic.clone(), flow.partition);
        let asked = places.values().cloned().collect();
        let there = self.target.log_ends(&asked).await;
        let asked = places.keys().map(key).collect();
        let here = self.source.log_ends(&asked).await;
        for (flow, place) in places {
            let both = (here.get(&key(&flow)), there.get(&place));
            if let (Some(Ok((_, source))), Some(Ok((_, target)))) = both {
                let ends = self.ends.entry(flow).or_default();
                ends.ended.push(*source, *target);
                ends.last = Some((*source, *target));
            } else {
                self.ends.remove(&flow);
            }
        }
    }

    fn place(&self, flow: &FlowKey) -> Option<&FlowKey> {
        self.on_target.place(&self.link, self.source.alias(), flow)
    }

    /// Where a group that has committed this on the source goes on on the target. Nothing where the partition is not mirrored,
    /// or that cannot be known, which is said.
    pub(crate) fn translate(
        &mut self,
        group: &str,
        flow: &FlowKey,
        committed: i64,
    ) -> Option<Translated> {
        let place = self.place(flow)?.clone();
        self.wanted.insert(flow.clone());
        let (from, to) = (self.on_source.side(flow), self.on_target.side(&place));
        let both = [from.cluster, to.cluster];
        let unseen = self.on_source.unseen(both);
        let unseen = unseen.or_else(|| self.on_target.unseen(both));
        let none = Ended::default();
        let ends = self.ends.get(flow);
        let found = match unseen {
            Some(link) => Err(Untold::Unseen(link.to_owned())),
            None => first_unread(committed, &from, &to, ends.map_or(&none, |e| &e.ended)),
        };
        let offset = match found {
            Ok(offset) => offset.max(0),
            Err(why) => {
                self.untold(group, flow, &why);
                return None;
            }
        };
        if let Some((source, target)) = ends.and_then(|e| e.last) {
            let (left, again) = (source - committed, target - offset);
            self.again += (again - left.max(0)).max(0);
        }
        Some(Translated {
            topic: place.topic,
            partition: place.partition,
            offset,
            exactness: Exactness::LowerBound,
        })
    }

    fn untold(&mut self, group: &str, flow: &FlowKey, why: &Untold) {
        let key = (group.to_owned(), flow.topic.clone());
        if !self.untold_now.insert(key.clone()) {
            return;
        }
        if self.untold.len() >= UNTOLD && !self.untold.contains_key(&key) {
            return;
        }
        let rounds = self.untold.entry(key).or_default();
        *rounds = rounds.saturating_add(1);
        let (link, topic, partition) = (&self.link, &flow.topic, flow.partition);
        let mut why = why.to_string();
        for (writers, cluster) in [
            (&self.on_source, &self.source),
            (&self.on_target, &self.target),
        ] {
            if !writers.id.is_empty() {
                why = why.replace(&writers.id, cluster.alias());
            }
        }
        if *rounds == SAY_AFTER {
            warn!(
                %link, id = "groups-untranslated", %group, %topic, partition,
                "what this group has not read on cluster {} cannot be known: {why}; nothing is committed for it there on this topic, and the others go on; tried again each round", self.target.alias()
            );
        } else {
            debug!(%link, %group, %topic, partition, "not translated: {why}");
        }
    }

    /// Whoever cannot look tells of nothing that is read again.
    pub(crate) fn nothing_known(&self) {
        self.rereads.set(0.0);
    }

    /// Ends a round: how many groups are not translated, in part at least.
    pub(crate) fn count(&mut self) -> usize {
        self.rereads.set(std::mem::take(&mut self.again) as f64);
        let now = std::mem::take(&mut self.untold_now);
        self.untold.retain(|key, _| now.contains(key));
        let groups: BTreeSet<String> = now.into_iter().map(|(group, _)| group).collect();
        groups.len()
    }

    /// Positions that the registry does not have yet.
    pub(crate) fn unkept(&mut self, most: usize) -> (Vec<RegistryRecord>, bool) {
        self.on_target.unkept(&self.link, most)
    }
}
