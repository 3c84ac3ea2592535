//! What must hold between the parts of a configuration, whatever file it came from.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Problem;
use crate::model::{Config, Forward, LinkConfig, SaslMechanism};
use crate::naming::{MAX_TOPIC_NAME, Naming, names_source};
use crate::nearest::nearest;

/// Where a link stands in its file.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) line: Option<usize>,
    pub(crate) key: String,
}

/// Everything that cannot stand. `places` has one entry per link.
pub(crate) fn problems(config: &Config, places: &[Place]) -> Vec<Problem> {
    let mut problems = conflicts(config, places);
    for (index, place) in places.iter().enumerate() {
        if let Some((from, to)) = missing_link(config, index) {
            let why = format!(
                "links with forward = \"local\" go round under the same names, but none goes from {from} to {to}: no record passes through a third cluster, so what is produced on {from} never comes to {to}"
            );
            let instead = format!(
                "Add a link from {from} to {to}, or take one of the clusters out of the round"
            );
            problems.push(Problem::at(place.line, place.key.clone(), why, instead));
        }
    }
    problems
}

/// What would double or lose records, whichever of the links run: the selections of a running process may do that, too.
pub(crate) fn conflicts(config: &Config, places: &[Place]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (link, place) in config.links.iter().zip(places) {
        let at = |key: &str, why: String, instead: String| {
            Problem::at(place.line, format!("{}{key}", place.key), why, instead)
        };
        for (key, alias) in [(".source", &link.source), (".target", &link.target)] {
            if !config.clusters.contains_key(alias) {
                let aliases = config.clusters.keys().map(String::as_str);
                let instead = match nearest(alias, aliases.clone()) {
                    Some(meant) => format!("Did you mean \"{meant}\"?"),
                    None => format!("Known clusters: {}", aliases.collect::<Vec<_>>().join(", ")),
                };
                let why = "no cluster has this alias".to_owned();
                problems.push(at(key, why, instead).with_value(format!("{alias:?}")));
            }
        }
        if link.source == link.target {
            let why = format!("source and target are the same cluster, {:?}", link.source);
            problems.push(at("", why, "Name two clusters".to_owned()));
        }
        if !names.insert(&link.name) {
            let why = format!("another link is called {:?} too", link.name);
            problems.push(at(
                "",
                why,
                "Give one of them another name = \"...\"".to_owned(),
            ));
        }
        if keeps_names(link) && shared_broker(config, link).is_some() {
            let why = format!(
                "source and target share the broker {}, so topics would be mirrored into themselves",
                shared_broker(config, link).unwrap_or_default()
            );
            let instead = "Use the default naming, or two clusters".to_owned();
            problems.push(at("", why, instead));
        }
    }
    for (index, link) in config.links.iter().enumerate() {
        let Some(place) = places.get(index) else {
            continue;
        };
        for earlier in config.links.iter().take(index) {
            if same_targets(earlier, link) && earlier.topics.may_overlap(&link.topics) {
                let why = format!(
                    "links {:?} and {:?} may both write the same target topics, which would hold every record twice",
                    earlier.name, link.name
                );
                let instead =
                    "Put all topics into one link, or exclude in one what the other mirrors";
                problems.push(Problem::at(place.line, place.key.clone(), why, instead));
            }
        }
        let twin = |earlier: &&LinkConfig| {
            (&earlier.source, &earlier.target) == (&link.source, &link.target)
                && !same_targets(earlier, link)
                && earlier.topics.may_overlap(&link.topics)
        };
        if let Some(earlier) = config.links.iter().take(index).find(twin) {
            let why = format!(
                "links {:?} and {:?} may both mirror the same topics from {} to {} under different names; positions are kept once per source topic",
                earlier.name, link.name, link.source, link.target
            );
            let instead = "Exclude in one link what the other mirrors";
            problems.push(Problem::at(place.line, place.key.clone(), why, instead));
        }
        if let Some(back) = over_positions(config, link) {
            let why = format!(
                "link {:?} keeps its positions in the same topic on {}, in which syncs of topics of the same name would stand over them",
                back.name, link.source
            );
            let key = format!("{}.offset-syncs-on-source", place.key);
            let instead = "Leave it out: readers of offset syncs find those on the target";
            problems.push(Problem::at(place.line, key, why, instead));
        }
        if let Some(round) = loop_through(config, index) {
            let why = format!(
                "identity naming sends the same topics round and round: {}",
                round.join(", ")
            );
            let instead = "Use the default naming in one of these links, or write forward = \"local\" in all of them, or make their topics plainly different (other names or other beginnings)";
            problems.push(Problem::at(place.line, place.key.clone(), why, instead));
        } else if let Some((topic, round)) = named_round(config, index) {
            let why = format!(
                "the topic {topic:?} comes back to where it was under the names given to it: {}",
                round.join(", ")
            );
            let instead = "Give it a name that no link on the way back mirrors";
            problems.push(Problem::at(place.line, place.key.clone(), why, instead));
        }
    }
    problems
}

/// What works, but should be known.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for link in &config.links {
        if link.topics.includes().is_empty() {
            warnings.push(format!(
                "link {} selects no topics: it mirrors nothing",
                link.name
            ));
        }
        if let Some(cluster) = left_out(config, link) {
            warnings.push(format!(
                "link {}: what it brings to {} does not come to {cluster}, since links with forward = \"local\" forward only what was produced on their own source: add a link from {} to {cluster}",
                link.name, link.target, link.source
            ));
        }
        if let Some(broker) = shared_broker(config, link) {
            warnings.push(format!(
                "link {}: source and target share the broker {broker}: is this meant to be one cluster?",
                link.name
            ));
        }
    }
    for (index, link) in config.links.iter().enumerate() {
        for earlier in config.links.iter().take(index) {
            if earlier.target != link.target || earlier.source == link.source {
                continue;
            }
            let merged = !names_source(&link.naming) && link.naming == earlier.naming;
            let what = match shared_name(earlier, link) {
                Some(name) => format!("both write {name:?} on {}", link.target),
                None if merged && earlier.topics.may_overlap(&link.topics) => {
                    format!("may write the same topics on {}", link.target)
                }
                None => continue,
            };
            if !earlier.shares_targets() || !link.shares_targets() {
                warnings.push(format!(
                    "links {} and {} {what}: each would stop at the records of the other one; where they shall be mixed, write on-foreign-writer = \"continue\" and on-target-has-data = \"continue\" in both",
                    earlier.name, link.name
                ));
            }
        }
    }
    for cluster in config.clusters.values() {
        let used = |link: &LinkConfig| link.source == cluster.alias || link.target == cluster.alias;
        if !config.links.iter().any(used) {
            warnings.push(format!("cluster {} is in no link", cluster.alias));
        }
        let clear = |mechanism| mechanism == SaslMechanism::Plain && cluster.tls.is_none();
        if cluster
            .sasl
            .as_ref()
            .is_some_and(|sasl| clear(sasl.mechanism))
        {
            warnings.push(format!(
                "cluster {}: SASL PLAIN without TLS sends the password readable over the network",
                cluster.alias
            ));
        }
    }
    for link in &config.links {
        for pattern in link.topics.includes() {
            if let Some(meant) = glob(&pattern) {
                warnings.push(format!(
                    "link {}: topics = {pattern:?} is a regular expression, in which * repeats the letter before it; to have every name that begins so, write {meant:?}",
                    link.name
                ));
            }
        }
    }
    warnings.extend(config.admin_warnings());
    warnings
}

/// What `orders*` was probably to mean: `orders.*`.
fn glob(pattern: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name = pattern.strip_suffix('*')?;
    (!name.is_empty() && name.chars().all(plain)).then(|| format!("{name}.*"))
}

/// Two links whose equal source topics have one target topic.
/// The link of the other direction whose positions stand where this one writes offset syncs on its source. Under names with
/// another separator than these there are no positions.
pub(crate) fn over_positions<'c>(config: &'c Config, link: &LinkConfig) -> Option<&'c LinkConfig> {
    if !link.syncs_on_source || ![".", "_"].contains(&link.internal_separator.as_str()) {
        return None;
    }
    let back = |other: &&LinkConfig| other.source == link.target && other.target == link.source;
    config.links.iter().find(back)
}

fn same_targets(a: &LinkConfig, b: &LinkConfig) -> bool {
    (&a.source, &a.target, &a.naming, &a.names) == (&b.source, &b.target, &b.naming, &b.names)
}

/// Whether some topics have the same name on both sides.
fn keeps_names(link: &LinkConfig) -> bool {
    link.naming == Naming::Identity || link.names.iter().any(|(topic, name)| topic == name)
}

/// A name on the target that both links give to a topic which they name.
fn shared_name(a: &LinkConfig, b: &LinkConfig) -> Option<String> {
    let given = |link: &LinkConfig| -> BTreeSet<String> {
        let named = link.topics.named_topics().into_iter();
        let all = named.chain(link.names.keys().cloned());
        let selected = all.filter(|topic| link.topics.selects(topic));
        selected.map(|topic| link.remote_name(&topic)).collect()
    };
    given(a).intersection(&given(b)).next().cloned()
}

fn shared_broker<'c>(config: &'c Config, link: &LinkConfig) -> Option<&'c str> {
    if link.source == link.target {
        return None;
    }
    let source = config.clusters.get(&link.source)?;
    let target = config.clusters.get(&link.target)?;
    source
        .bootstrap
        .iter()
        .find(|address| target.bootstrap.contains(address))
        .map(String::as_str)
}

/// The names of identity links that lead from this link's target back to its source over topics that both this link
/// and every one of them may carry, if one of them forwards what links brought; told once per round, at its last link in
/// the file.
fn loop_through(config: &Config, index: usize) -> Option<Vec<String>> {
    let link = config.links.get(index)?;
    if link.naming != Naming::Identity {
        return None;
    }
    let earlier: Vec<&LinkConfig> = config
        .links
        .iter()
        .take(index)
        .filter(|other| other.naming == Naming::Identity && other.topics.may_overlap(&link.topics))
        .collect();
    // A cluster, and whether a link on the way there forwards everything; with the way by which it was reached.
    let all = |link: &LinkConfig| link.forward == Forward::All;
    let first = (link.target.as_str(), all(link));
    let mut reached = BTreeMap::from([(first, Vec::new())]);
    let mut queue = vec![first];
    while let Some((cluster, open)) = queue.pop() {
        for next in earlier.iter().filter(|next| next.source == cluster) {
            let there = (next.target.as_str(), open || all(next));
            if !reached.contains_key(&there) {
                let way = reached.get(&(cluster, open)).cloned().unwrap_or_default();
                reached.insert(there, [way, vec![next.name.clone()]].concat());
                queue.push(there);
            }
        }
    }
    let mut round = reached.remove(&(link.source.as_str(), true))?;
    round.push(link.name.clone());
    Some(round)
}

/// The links with `forward = "local"` that mirror some of what this one does.
fn local_beside<'c>(config: &'c Config, link: &LinkConfig) -> Vec<&'c LinkConfig> {
    let local = |other: &&LinkConfig| {
        other.forward == Forward::Local && other.topics.may_overlap(&link.topics)
    };
    config.links.iter().filter(local).collect()
}

/// The clusters that these links lead to from a cluster and back; only itself where they do not.
fn round<'c>(config: &'c Config, links: &[&LinkConfig], of: &str) -> Vec<&'c str> {
    let reached = |from: &str| {
        let mut reached = BTreeSet::from([from.to_owned()]);
        while let Some(next) = links
            .iter()
            .find(|l| reached.contains(&l.source) && !reached.contains(&l.target))
        {
            reached.insert(next.target.clone());
        }
        reached
    };
    let there = reached(of);
    let clusters = config.clusters.keys().map(String::as_str);
    clusters
        .filter(|cluster| there.contains(*cluster) && reached(cluster).contains(of))
        .collect()
}

/// Two clusters that this link's round of local links goes over, in a direction in which no link leads; told once, at
/// the last link of the file that is in such a round.
fn missing_link(config: &Config, index: usize) -> Option<(&str, &str)> {
    let link = config.links.get(index)?;
    let links = local_beside(config, link);
    let round = round(config, &links, &link.source);
    let inside = |l: &LinkConfig| {
        links.iter().any(|local| local.name == l.name)
            && round.contains(&l.source.as_str())
            && round.contains(&l.target.as_str())
    };
    let last = config.links.iter().rposition(inside)?;
    if last != index {
        return None;
    }
    for &from in &round {
        for &to in &round {
            let leads = |l: &&&LinkConfig| l.source == from && l.target == to;
            if from != to && !links.iter().any(|l| leads(&l)) {
                return Some((from, to));
            }
        }
    }
    None
}

/// A cluster of a round of local links that gets nothing of what this link brings to another one of it.
fn left_out<'c>(config: &'c Config, link: &LinkConfig) -> Option<&'c str> {
    let links = local_beside(config, link);
    let round = round(config, &links, &link.target);
    if link.naming != Naming::Identity || round.contains(&link.source.as_str()) {
        return None;
    }
    let brought = |cluster: &str| {
        let beside = |other: &LinkConfig| {
            other.source == link.source
                && other.target == cluster
                && other.topics.may_overlap(&link.topics)
        };
        config.links.iter().any(beside)
    };
    round.into_iter().find(|cluster| !brought(cluster))
}

/// A topic that `names` of this link send out and that other links bring back under its first name, with the links of
/// the way; told once per round, at the first link in the file that names it.
fn named_round(config: &Config, index: usize) -> Option<(String, Vec<String>)> {
    let first = config.links.get(index)?;
    for (topic, name) in first.names.iter().filter(|(t, _)| first.topics.selects(t)) {
        let mut seen = BTreeSet::from([(&first.target, name.clone())]);
        let mut ways = vec![(&first.target, name.clone(), vec![index])];
        while let Some((cluster, name, way)) = ways.pop() {
            if *cluster == first.source && name == *topic {
                let named =
                    |at: &&usize| config.links.get(**at).is_some_and(|l| !l.names.is_empty());
                if way.iter().filter(named).any(|at| *at < index) {
                    continue;
                }
                let links = way.iter().filter_map(|at| config.links.get(*at));
                return Some((topic.clone(), links.map(|l| l.name.clone()).collect()));
            }
            for (at, next) in config.links.iter().enumerate() {
                // What has the source's alias in its name is known for a mirrored topic when it comes back.
                let plain = next.names.contains_key(&name) || !names_source(&next.naming);
                if next.source != *cluster || !plain || !next.topics.selects(&name) {
                    continue;
                }
                let there = (&next.target, next.remote_name(&name));
                if there.1.len() <= MAX_TOPIC_NAME && seen.insert(there.clone()) {
                    let way = [way.as_slice(), &[at]].concat();
                    ways.push((there.0, there.1, way));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shell_pattern_is_told_from_a_regular_expression() {
        assert_eq!(super::glob("orders*").as_deref(), Some("orders.*"));
        for fine in ["orders.*", "orders", "*", "[a-z]*", "a|b*"] {
            assert_eq!(super::glob(fine), None, "{fine}");
        }
    }
}
