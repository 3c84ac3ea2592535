//! What one cluster's own topics tell of the links that write to it: whose they are, and the positions they have passed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use strait_engine::{
    FlowKey, KnownPosition, PositionTail, RegistryLog, RegistryNews, Rungs, STRAIT_TOPIC,
    SessionError, alias_of_syncs,
};
use strait_net::{Cluster, Runtime};
use strait_wire::{RegistryError, RegistryRecord};
use tokio::time::Instant;
use uuid::Uuid;

use crate::groups::origins::{Passed, Side, Writer};

/// How often all topics of the cluster are listed for topics of positions that are new; and where a link is registered whose
/// positions were not seen yet.
const LIST: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));

/// A source partition, by the source's alias in the names of the topics of positions.
type From = (String, FlowKey);

/// The links that write to one cluster. Needs Describe and Read on `mm2-strait.internal` and `mm2-offset-syncs.*.internal` there.
pub(crate) struct Writers {
    rt: Runtime,
    cluster: Cluster,
    /// The cluster's id.
    pub(crate) id: String,
    /// The ids of topics that links write to.
    topics: BTreeMap<String, Uuid>,
    listed: Option<Instant>,
    register: RegistryLog,
    /// The ids of the clusters that links read.
    links: BTreeMap<String, String>,
    /// Links of which positions were seen.
    seen: BTreeSet<String>,
    tails: BTreeMap<String, PositionTail>,
    flows: BTreeMap<From, Passed>,
    /// Who writes to a partition, or did.
    places: BTreeMap<FlowKey, BTreeSet<From>>,
    /// What was kept of older positions was taken.
    loaded: bool,
}

impl Writers {
    pub(crate) fn new(rt: &Runtime, cluster: Cluster) -> Self {
        Self {
            rt: rt.clone(),
            register: RegistryLog::new(rt.clone(), cluster.clone()),
            cluster,
            id: String::new(),
            topics: BTreeMap::new(),
            listed: None,
            links: BTreeMap::new(),
            seen: BTreeSet::new(),
            tails: BTreeMap::new(),
            flows: BTreeMap::new(),
            places: BTreeMap::new(),
            loaded: false,
        }
    }

    /// Takes all that was written before this call; `anew` hears of source partitions whose history was broken off.
    pub(crate) async fn refresh(
        &mut self,
        mut anew: impl FnMut(&FlowKey),
    ) -> Result<(), SessionError> {
        let now = self.rt.now();
        let new = self.links.keys().any(|link| !self.seen.contains(link));
        let often = if new { LIST.1 } else { LIST.0 };
        let due = |at: Instant| now.saturating_duration_since(at) >= often;
        let metadata = if self.listed.is_none_or(due) {
            let all = self.cluster.metadata(None).await?;
            self.listed = Some(now);
            all
        } else {
            let wanted: BTreeSet<&String> = self.places.keys().map(|place| &place.topic).collect();
            let wanted: Vec<String> = wanted.into_iter().cloned().collect();
            self.cluster.metadata(Some(&wanted)).await?
        };
        self.id = metadata.cluster_id;
        for alias in metadata
            .topics
            .keys()
            .filter_map(|name| alias_of_syncs(name))
        {
            if !self.tails.contains_key(alias) {
                let tail = PositionTail::new(&self.rt, self.cluster.clone(), alias);
                self.tails.insert(alias.to_owned(), tail);
            }
        }
        let topics = metadata.topics.into_iter();
        self.topics = topics.map(|(name, topic)| (name, topic.id)).collect();
        let ladders = self.read_register().await?;
        let (flows, places, seen) = (&mut self.flows, &mut self.places, &mut self.seen);
        for (alias, tail) in &mut self.tails {
            tail.read(|flow, known| {
                let from = (alias.clone(), flow);
                match known {
                    KnownPosition::Strait(position) => {
                        seen.insert(position.link.clone());
                        match flows.get_mut(&from) {
                            Some(passed) => {
                                if passed.push(&position) {
                                    return;
                                }
                                anew(&from.1);
                            }
                            None => drop(flows.insert(from.clone(), Passed::new(&position))),
                        }
                    }
                    // Pairs of MirrorMaker 2 tell of its own flows, unless they stand in the way of a link's.
                    KnownPosition::MirrorMaker2 => match flows.get_mut(&from) {
                        Some(passed) => passed.spoil(),
                        None => return,
                    },
                    KnownPosition::Unreadable(_) => {
                        let place = from.1.clone();
                        let passed = flows.entry(from.clone());
                        passed.or_insert_with(|| Passed::unreadable(place)).spoil();
                    }
                }
                if let Some(passed) = flows.get(&from) {
                    places.entry(passed.place.clone()).or_default().insert(from);
                }
            })
            .await?;
        }
        if !self.loaded {
            for ((link, flow), rungs) in ladders {
                let its = self.flows.iter_mut();
                // One link reads one cluster, under one alias at a time.
                for (_, passed) in its.filter(|((_, f), p)| *f == flow && p.link == link) {
                    passed.before(&rungs);
                }
            }
            self.loaded = true;
        }
        Ok(())
    }

    async fn read_register(&mut self) -> Result<BTreeMap<(String, FlowKey), Rungs>, SessionError> {
        let (mut ladders, mut failed) = (BTreeMap::new(), None);
        let (links, id, loaded) = (&mut self.links, &self.id, self.loaded);
        let news = |news: RegistryNews<'_>| {
            let record = match news {
                RegistryNews::Anew => return links.clear(),
                RegistryNews::Record(record) => record,
            };
            match RegistryRecord::from_record(record) {
                // A register that was copied tells of another cluster's topics.
                Ok(
                    RegistryRecord::Link {
                        link,
                        source_cluster,
                        target_cluster,
                        ..
                    }
                    | RegistryRecord::Producer {
                        link,
                        source_cluster,
                        target_cluster,
                        ..
                    },
                ) if target_cluster == *id => drop(links.insert(link, source_cluster)),
                Ok(RegistryRecord::Ladder {
                    link,
                    topic,
                    partition,
                    rungs,
                }) if !loaded => {
                    ladders.insert((link, FlowKey { topic, partition }), rungs);
                }
                Ok(_) | Err(RegistryError::UnknownType(_)) => {}
                Err(error) => {
                    failed.get_or_insert((record.offset, error));
                }
            }
        };
        self.register.read_to_end(news).await?;
        if let Some((offset, error)) = failed {
            // Read again from the beginning next time.
            self.register = RegistryLog::new(self.rt.clone(), self.cluster.clone());
            return Err(SessionError::Registry {
                topic: format!("{STRAIT_TOPIC} on cluster {}", self.cluster.alias()),
                offset,
                why: error.to_string(),
            });
        }
        Ok(ladders)
    }

    /// Where a link writes this source partition, as its last position tells.
    pub(crate) fn place(&self, link: &str, alias: &str, flow: &FlowKey) -> Option<&FlowKey> {
        let passed = self.flows.get(&(alias.to_owned(), flow.clone()))?;
        (passed.link == link).then_some(&passed.place)
    }

    /// A link from a third cluster of which it cannot be seen what it writes to.
    pub(crate) fn unseen(&self, both: [&str; 2]) -> Option<&str> {
        let third = |(link, source): &(&String, &String)| {
            !both.contains(&source.as_str()) && !self.seen.contains(*link)
        };
        let mut unseen = self.links.iter().filter(third);
        unseen.next().map(|(link, _)| link.as_str())
    }

    /// All that is known of who writes to a partition.
    pub(crate) fn side<'a>(&'a self, place: &'a FlowKey) -> Side<'a> {
        let froms = self.places.get(place).into_iter().flatten();
        let writers = froms.filter_map(|from| {
            let passed = self.flows.get(from).filter(|p| p.place == *place)?;
            Some(Writer {
                cluster: self.links.get(&passed.link).map_or("", String::as_str),
                from: &from.1,
                passed,
            })
        });
        Side {
            cluster: &self.id,
            place,
            topic_id: self.topics.get(&place.topic).copied().unwrap_or_default(),
            writers: writers.collect(),
        }
    }

    /// Positions of a link that the registry does not have yet, `most` at the most; from now on it has them. And whether these
    /// were all.
    pub(crate) fn unkept(&mut self, link: &str, most: usize) -> (Vec<RegistryRecord>, bool) {
        let mut kept = Vec::new();
        let its = self.flows.iter_mut();
        for ((_, flow), passed) in its.filter(|(_, passed)| passed.link == link) {
            if kept.len() >= most {
                return (kept, false);
            }
            if let Some(rungs) = passed.unkept() {
                kept.push(RegistryRecord::Ladder {
                    link: link.to_owned(),
                    topic: flow.topic.clone(),
                    partition: flow.partition,
                    rungs,
                });
            }
        }
        (kept, true)
    }
}
