//! A MirrorMaker 2 properties file (dedicated mode, `connect-mirror-maker.sh mm2.properties`) as a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::address::{parse_address, split_list};
use crate::check::{self, Place};
use crate::cluster_toml::check_alias;
use crate::error::{ConfigError, Problem};
use crate::heartbeats;
use crate::mm2_keys::{Meaning, Refusal, is_worker_key, known_keys, meaning};
use crate::model::{
    AdminConfig, ClusterConfig, Config, Isolation, LinkConfig, MM2_REFRESH_TOPICS, share_memory,
};
use crate::naming::Naming;
use crate::nearest::nearest;
use crate::pattern::Pattern;
use crate::properties::{Entry, Properties, Scope, split_scope};
use crate::selection::{DEFAULT_TOPICS_EXCLUDE, TopicSelection};
use crate::start::StartPosition;
use crate::strimzi_file::TlsFiles;
use crate::takeover;
use crate::{mm2_providers, mm2_security};

/// Reads and validates the bytes of a properties file.
pub(crate) fn read(
    bytes: &[u8],
    file: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let mut properties =
        Properties::parse(bytes).map_err(|problem| ConfigError::one(file, problem))?;
    let problems = mm2_providers::resolve(&mut properties, folder_of(file), env)
        .map_err(|problems| ConfigError::new(file, problems))?;
    from_properties(properties, problems, &BTreeMap::new(), file)
}

/// A configuration of keys that lie in memory. `files`: what clusters are connected with beside what keys can say.
pub(crate) fn from_properties(
    properties: Properties,
    problems: Vec<Problem>,
    files: &BTreeMap<String, TlsFiles>,
    file: &Path,
) -> Result<Config, ConfigError> {
    let mut reading = Reading {
        properties,
        aliases: Vec::new(),
        problems,
    };
    match reading.config(file, files) {
        Some(config) if reading.problems.is_empty() => Ok(config),
        _ => Err(ConfigError::new(file, reading.problems)),
    }
}

/// What is known of a file while it is read.
pub(crate) struct Reading {
    pub(crate) properties: Properties,
    aliases: Vec<String>,
    pub(crate) problems: Vec<Problem>,
}

/// An enabled flow.
pub(crate) struct Flow {
    pub(crate) source: String,
    pub(crate) target: String,
    line: usize,
}

impl Reading {
    fn config(&mut self, file: &Path, files: &BTreeMap<String, TlsFiles>) -> Option<Config> {
        self.aliases = self.read_aliases()?;
        let flows = self.enabled_flows();
        if flows.is_empty() {
            let example = match self.aliases.as_slice() {
                [a, b, ..] => format!("{a}->{b}"),
                _ => "A->B".to_owned(),
            };
            let instead = format!("Write {example}.enabled = true");
            self.problems.push(Problem::whole(
                "no flow is enabled, so there is nothing to mirror",
                instead,
            ));
        }
        let mut clusters = BTreeMap::new();
        let wanted: BTreeSet<String> = flows
            .iter()
            .flat_map(|flow| [flow.source.clone(), flow.target.clone()])
            .collect();
        for alias in &wanted {
            if let Some(bootstrap) = self.read_bootstrap(alias) {
                let (mut tls, sasl) = mm2_security::read(
                    &self.properties,
                    alias,
                    folder_of(file),
                    &mut self.problems,
                );
                if let (Some(tls), Some(files)) = (&mut tls, files.get(alias)) {
                    tls.ca_files.extend(files.authorities.iter().cloned());
                    if let Some((certificate, key)) = &files.client {
                        tls.cert_file = Some(certificate.clone());
                        tls.key_file = Some(key.clone());
                    }
                }
                let cluster = ClusterConfig {
                    alias: alias.clone(),
                    bootstrap,
                    tls,
                    sasl,
                };
                clusters.insert(alias.clone(), cluster);
            }
        }
        self.refuse(&flows);
        let mut links: Vec<LinkConfig> = flows
            .iter()
            .filter_map(|flow| self.read_link(flow))
            .collect();
        if !self.problems.is_empty() {
            return None;
        }
        share_memory(&mut links, &[]);
        for link in &mut links {
            self.keep_off_source(link);
        }
        heartbeats::settle(&mut links);
        let mut config = Config {
            clusters,
            links,
            admin: AdminConfig::default(),
            admin_token_file: None,
            instance: None,
            state_dir: None,
            warnings: Vec::new(),
        };
        let place = |flow: &Flow| Place {
            line: Some(flow.line),
            key: format!("{}->{}", flow.source, flow.target),
        };
        let places: Vec<Place> = flows.iter().map(place).collect();
        let over = |link: &LinkConfig| check::over_positions(&config, link).is_some();
        let over: Vec<bool> = config.links.iter().map(over).collect();
        config.warnings = self.warnings(file, &flows);
        for (link, _) in config.links.iter_mut().zip(over).filter(|(_, over)| *over) {
            link.syncs_on_source = false;
            config.warnings.push(format!(
                "link {}: offset-syncs.topic.location = source is not obeyed, since the other direction is mirrored too: its positions stand in that topic on {}; offset syncs are written on {} alone, as with target",
                link.name, link.source, link.target
            ));
        }
        self.problems = check::problems(&config, &places);
        config.warnings.extend(check::warnings(&config));
        Some(config)
    }

    fn read_aliases(&mut self) -> Option<Vec<String>> {
        let Some(entry) = self.properties.get("clusters").cloned() else {
            // The cluster aliases are still in the file: show the line that is missing.
            let named = self.properties.entries.iter().filter_map(|entry| {
                let alias = entry.key.strip_suffix(".bootstrap.servers")?;
                check_alias(alias).is_ok().then_some(alias)
            });
            let named: Vec<&str> = named.collect();
            let list = if named.is_empty() {
                "A, B".to_owned()
            } else {
                named.join(", ")
            };
            let instead = format!("Write clusters = {list}");
            self.problems
                .push(Problem::at(None, "clusters", "it is missing", instead));
            return None;
        };
        let before = self.problems.len();
        let aliases = split_list(self.value_of(&entry)?);
        let mut found: Vec<String> = Vec::new();
        for alias in aliases {
            match check_alias(alias) {
                Ok(()) if found.iter().any(|earlier| earlier == alias) => {}
                Ok(()) => found.push(alias.to_owned()),
                Err((why, instead)) => self.problems.push(wrong(&entry, why, instead)),
            }
        }
        if found.is_empty() && self.problems.len() == before {
            self.problems.push(wrong(
                &entry,
                "it names no cluster",
                "Write clusters = A, B",
            ));
        }
        (self.problems.len() == before).then_some(found)
    }

    /// The value, unless a comment was put behind it: to Java that is part of the value.
    pub(crate) fn value_of<'e>(&mut self, entry: &'e Entry) -> Option<&'e str> {
        if let Some((value, comment)) = entry.value.split_once('#') {
            let why = "in a properties file a comment stands on its own line; here it is part of the value";
            let instead = format!(
                "Write {} = {} and move #{comment} to a line of its own",
                entry.key,
                value.trim()
            );
            self.problems.push(wrong(entry, why, instead));
            return None;
        }
        Some(&entry.value)
    }

    fn enabled_flows(&mut self) -> Vec<Flow> {
        let mut flows = Vec::new();
        for entry in self.properties.entries.clone() {
            let (scope, rest) = split_scope(&entry.key, &self.aliases);
            let Scope::Flow(source, target) = scope else {
                continue;
            };
            if rest == "enabled" && source != target && self.read_bool(&entry) == Some(true) {
                flows.push(Flow {
                    source,
                    target,
                    line: entry.line,
                });
            }
        }
        flows
    }

    fn read_bootstrap(&mut self, alias: &str) -> Option<Vec<String>> {
        let key = format!("{alias}.bootstrap.servers");
        // MirrorMakerConfig.clusterProps falls back to the global key.
        let entry = self
            .properties
            .get(&key)
            .or_else(|| self.properties.get("bootstrap.servers"));
        let Some(entry) = entry.cloned() else {
            let keys = self
                .properties
                .entries
                .iter()
                .map(|entry| entry.key.as_str());
            let similar = nearest(
                &key,
                keys.filter(|other| other.ends_with(".bootstrap.servers")),
            );
            let instead = match similar {
                Some(other)
                    if !self
                        .aliases
                        .iter()
                        .any(|a| other.strip_suffix(".bootstrap.servers") == Some(a)) =>
                {
                    format!("The file has {other}: did you mean `{key}`?")
                }
                _ => format!("Write {key} = host-1:9092,host-2:9092"),
            };
            self.problems
                .push(Problem::at(None, key, "it is missing", instead));
            return None;
        };
        let before = self.problems.len();
        let mut addresses = Vec::new();
        let value = self.value_of(&entry)?;
        for part in split_list(value) {
            match parse_address(part) {
                Ok(address) => addresses.push(address),
                Err((why, instead)) => {
                    self.problems
                        .push(wrong(&entry, format!("{part}: {why}"), instead));
                }
            }
        }
        if addresses.is_empty() && self.problems.len() == before {
            self.problems.push(wrong(
                &entry,
                "it names no broker",
                format!("Write {key} = host-1:9092,host-2:9092"),
            ));
        }
        (self.problems.len() == before).then_some(addresses)
    }

    /// What the key means, if it is about something that is enabled.
    fn classify(&self, entry: &Entry, flows: &[Flow]) -> Option<(Scope, Meaning)> {
        let (scope, rest) = split_scope(&entry.key, &self.aliases);
        let in_use = match &scope {
            Scope::Global => true,
            Scope::Cluster(alias) => flows
                .iter()
                .any(|flow| flow.source == *alias || flow.target == *alias),
            Scope::Flow(source, target) => flows
                .iter()
                .any(|flow| flow.source == *source && flow.target == *target),
            Scope::UnknownFlow(_) => false,
        };
        let own = match &scope {
            Scope::Cluster(alias) => self.properties.get(&format!("{alias}.bootstrap.servers")),
            _ => None,
        };
        let bootstrap = own.map_or("", |entry| entry.value.as_str());
        let read_from = |alias: &String| flows.iter().any(|flow| flow.source == *alias);
        let written_to = |alias: &String| flows.iter().any(|flow| flow.target == *alias);
        in_use.then(|| {
            let meaning = match (meaning(&scope, rest, &entry.value, bootstrap), &scope) {
                // Only the source's consumer decides what is mirrored, and workers run beside the target.
                (Meaning::Used, Scope::Cluster(alias))
                    if rest.starts_with("consumer.") && !read_from(alias)
                        || is_worker_key(rest) && !written_to(alias) =>
                {
                    Meaning::NoEffect
                }
                (meaning, _) => meaning,
            };
            (scope, meaning)
        })
    }

    fn refuse(&mut self, flows: &[Flow]) {
        let mut refused: BTreeMap<(Scope, Refusal), Vec<&Entry>> = BTreeMap::new();
        for entry in &self.properties.entries {
            if let Some((scope, Meaning::Refused(refusal))) = self.classify(entry, flows) {
                refused.entry((scope, refusal)).or_default().push(entry);
            }
        }
        let explained = refused.into_iter().map(|((scope, refusal), entries)| {
            let alias = match &scope {
                Scope::Cluster(alias) | Scope::Flow(alias, _) => Some(alias.as_str()),
                _ => None,
            };
            let (why, instead) = refusal.explain(alias);
            let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            let line = entries.first().map(|entry| entry.line);
            let problem = Problem::at(line, keys.join(", "), why, instead);
            match entries.as_slice() {
                // One key is shown with its value, but for what may be a password.
                [entry] if refusal != Refusal::Security || entry.key.ends_with(".protocol") => {
                    problem.with_value(entry.shown())
                }
                _ => problem,
            }
        });
        let explained: Vec<Problem> = explained.collect();
        self.problems.extend(explained);
    }

    /// The flow's own key, else the global one.
    pub(crate) fn flow_entry(&self, flow: &Flow, key: &str) -> Option<Entry> {
        let own = format!("{}->{}.{key}", flow.source, flow.target);
        self.properties
            .get(&own)
            .or_else(|| self.properties.get(key))
            .cloned()
    }

    fn read_link(&mut self, flow: &Flow) -> Option<LinkConfig> {
        let includes = match self.flow_entry(flow, "topics") {
            Some(entry) => self.read_patterns(&entry),
            None => compiled(&[".*"]),
        };
        let exclude = self
            .flow_entry(flow, "topics.exclude")
            .or_else(|| self.flow_entry(flow, "topics.blacklist"));
        let excludes = match exclude {
            Some(entry) => self.read_patterns(&entry),
            None => compiled(&DEFAULT_TOPICS_EXCLUDE),
        };
        let topics = TopicSelection::new(includes, excludes);
        let mut link = LinkConfig::new(&flow.source, &flow.target, topics);
        (link.naming, link.internal_separator) = self.read_naming(flow)?;
        if let Some(entry) = self.flow_entry(flow, "replication.factor") {
            link.replication_factor = self.read_replication(&entry);
        }
        if let Some(entry) = self.flow_entry(flow, "offset-syncs.topic.replication.factor") {
            link.internal_replication_factor = self.read_replication(&entry);
        }
        link.refresh_topics = self.read_refresh(flow, "topics", MM2_REFRESH_TOPICS);
        link.groups = self.read_groups(flow)?;
        if let Some(entry) = self.flow_entry(flow, "sync.topic.configs.enabled") {
            link.sync_topic_configs = self.read_bool(&entry)?;
        }
        let exclude = self
            .flow_entry(flow, "config.properties.exclude")
            .or_else(|| self.flow_entry(flow, "config.properties.blacklist"));
        if let Some(entry) = exclude {
            link.config_excludes = self.read_patterns(&entry);
        }
        if let Some(entry) = self.reader_entry(flow, "consumer.auto.offset.reset") {
            link.start.default = self.read_start(&entry)?;
        }
        if let Some(entry) = self.reader_entry(flow, "consumer.isolation.level") {
            link.isolation = self.read_isolation(&entry)?;
        }
        link.heartbeats = self.read_heartbeats(flow)?;
        // `isHeartbeatsTopic` of the identity policy goes by it, whatever stands in the names of MirrorMaker 2's own topics.
        let entry = self.flow_entry(flow, "replication.policy.separator");
        let separator = entry.map(|entry| entry.value).filter(|s| {
            link.naming == Naming::Identity && !s.is_empty() && *s != link.internal_separator
        });
        link.heartbeats.separator = separator;
        link.beside = self.read_beside(flow)?;
        let location = self.flow_entry(flow, "offset-syncs.topic.location");
        let left = takeover::of_file(&self.properties, (&flow.source, &flow.target), location);
        match left {
            Ok(left) => (link.takeover, link.syncs_on_source) = left,
            Err(problem) => self.problems.push(problem),
        }
        Some(link)
    }

    /// A setting of the source's consumer, in MirrorMaker 2's order: `MirrorConnectorConfig.sourceConsumerConfig`
    /// lets `source.consumer.` win over `consumer.`, and `A.consumer.` becomes the former.
    fn reader_entry(&self, flow: &Flow, key: &str) -> Option<Entry> {
        let (source, target) = (&flow.source, &flow.target);
        let order = [
            format!("{source}->{target}.source.{key}"),
            format!("{source}.{key}"),
            format!("{source}->{target}.{key}"),
            format!("source.{key}"),
            key.to_owned(),
        ];
        order
            .iter()
            .find_map(|key| self.properties.get(key))
            .cloned()
    }

    pub(crate) fn read_patterns(&mut self, entry: &Entry) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        let Some(value) = self.value_of(entry) else {
            return patterns;
        };
        for text in split_list(value) {
            match Pattern::new(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => {
                    let instead = "Write regular expressions that match whole names, with commas between them and none inside";
                    self.problems
                        .push(wrong(entry, format!("{text}: {why}"), instead));
                }
            }
        }
        patterns
    }

    pub(crate) fn read_bool(&mut self, entry: &Entry) -> Option<bool> {
        let value = self.value_of(entry)?;
        if value.eq_ignore_ascii_case("true") {
            return Some(true);
        }
        if !value.eq_ignore_ascii_case("false") {
            self.problems.push(wrong(
                entry,
                "this is neither true nor false",
                "Write true or false",
            ));
            return None;
        }
        Some(false)
    }

    pub(crate) fn read_replication(&mut self, entry: &Entry) -> Option<i16> {
        match self.value_of(entry)?.parse::<i16>() {
            Ok(factor) if factor > 0 || factor == -1 => Some(factor),
            _ => {
                let instead = "Write 1 to 32767, or -1 for the broker's default";
                self.problems
                    .push(wrong(entry, "no topic can have so many replicas", instead));
                None
            }
        }
    }

    /// `what`: topics or groups.
    pub(crate) fn read_refresh(
        &mut self,
        flow: &Flow,
        what: &str,
        default: Duration,
    ) -> Option<Duration> {
        let enabled = format!("refresh.{what}.enabled");
        if let Some(entry) = self.flow_entry(flow, &enabled)
            && self.read_bool(&entry) == Some(false)
        {
            return None;
        }
        let Some(entry) = self.flow_entry(flow, &format!("refresh.{what}.interval.seconds")) else {
            return Some(default);
        };
        self.read_seconds(&entry, &format!("{enabled} = false"))
    }

    /// An interval; `off` is how to have none.
    pub(crate) fn read_seconds(&mut self, entry: &Entry, off: &str) -> Option<Duration> {
        match self.value_of(entry)?.parse::<u64>() {
            // A day is the longest that anything waits here.
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.min(86_400))),
            _ => {
                let instead = format!("Write 1 or more, or {off}");
                self.problems
                    .push(wrong(entry, "this is no such number of seconds", instead));
                None
            }
        }
    }

    fn read_start(&mut self, entry: &Entry) -> Option<StartPosition> {
        let value = self.value_of(entry)?;
        let (why, instead) = match value {
            "earliest" => return Some(StartPosition::Earliest),
            "latest" => return Some(StartPosition::Latest),
            "none" => {
                let why = "a flow without a position must begin somewhere";
                (why, "Write earliest or latest")
            }
            text if text.starts_with("by_duration:") => {
                let why = "a start by duration would move with every restart";
                (
                    why,
                    "Write the configuration in TOML, where start takes a time such as 2026-11-01T00:00:00Z",
                )
            }
            _ => ("this is not one of its values", "Write earliest or latest"),
        };
        self.problems.push(wrong(entry, why, instead));
        None
    }

    fn read_isolation(&mut self, entry: &Entry) -> Option<Isolation> {
        match self.value_of(entry)? {
            "read_committed" => Some(Isolation::ReadCommitted),
            "read_uncommitted" => Some(Isolation::ReadUncommitted),
            _ => {
                let instead = "Write read_committed or read_uncommitted";
                self.problems
                    .push(wrong(entry, "this is not one of its values", instead));
                None
            }
        }
    }

    /// One warning for everything that is read and not obeyed, and one per thing that would surprise.
    fn warnings(&self, file: &Path, flows: &[Flow]) -> Vec<String> {
        let (mut idle, mut unknown) = (Vec::new(), Vec::new());
        for entry in &self.properties.entries {
            let Some((_, meaning)) = self.classify(entry, flows) else {
                continue;
            };
            let (_, rest) = split_scope(&entry.key, &self.aliases);
            match meaning {
                Meaning::NoEffect => idle.push(entry.key.clone()),
                Meaning::Unknown => unknown.push(match nearest(rest, known_keys()) {
                    Some(meant) => format!("{} (did you mean {meant}?)", entry.key),
                    None => entry.key.clone(),
                }),
                Meaning::Used | Meaning::Refused(_) => {}
            }
        }
        let mut parts = Vec::new();
        for (what, keys) in [("without a meaning here", idle), ("not known", unknown)] {
            if !keys.is_empty() {
                parts.push(format!("{what}: {}", keys.join(", ")));
            }
        }
        let mut warnings = Vec::new();
        if !parts.is_empty() {
            warnings.push(format!(
                "{}: keys that are not obeyed; {}",
                file.display(),
                parts.join("; ")
            ));
        }
        for key in ["auto.offset.reset", "isolation.level"] {
            let global = format!("consumer.{key}");
            let obeyed = |flow: &Flow| {
                self.reader_entry(flow, &global)
                    .is_some_and(|entry| entry.key == global)
            };
            if flows.iter().any(obeyed) {
                warnings.push(format!(
                    "{global} is obeyed here; MirrorMaker 2 ignores it without a cluster or a flow before it"
                ));
            }
        }
        let unset = |flow: &&Flow| {
            self.reader_entry(flow, "consumer.isolation.level")
                .is_none()
        };
        let sources: BTreeSet<&str> = flows.iter().filter(unset).map(|f| &*f.source).collect();
        if !sources.is_empty() {
            let key = |source| format!("{source}.consumer.isolation.level = read_uncommitted");
            let keys: Vec<String> = sources.into_iter().map(key).collect();
            warnings.push(format!(
                "records of aborted transactions are left out; to copy them as MirrorMaker 2 does, write {}",
                keys.join(", and ")
            ));
        }
        for entry in &self.properties.entries {
            if let (Scope::UnknownFlow(flow), _) = split_scope(&entry.key, &self.aliases)
                && entry.key.ends_with(".enabled")
                && entry.value.eq_ignore_ascii_case("true")
            {
                warnings.push(format!(
                    "flow {flow} is enabled but not mirrored: one of its clusters is not in clusters = {}",
                    self.aliases.join(", ")
                ));
            }
        }
        warnings
    }
}

/// Relative paths in a file are relative to the folder it lies in.
fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn compiled(patterns: &[&str]) -> Vec<Pattern> {
    patterns
        .iter()
        .filter_map(|pattern| Pattern::new(pattern).ok())
        .collect()
}

pub(crate) fn wrong(entry: &Entry, why: impl Into<String>, instead: impl Into<String>) -> Problem {
    Problem::at(Some(entry.line), entry.key.clone(), why, instead).with_value(entry.shown())
}
