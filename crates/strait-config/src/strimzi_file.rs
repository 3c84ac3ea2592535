//! Strimzi's `KafkaMirrorMaker2` resource, `v1beta2` (`spec.clusters`, `spec.connectCluster`) and `v1` (`spec.target`,
//! `spec.mirrors[].source`), as the MirrorMaker 2 properties that its operator would make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::{ConfigError, Problem};
use crate::mm2_file;
use crate::model::Config;
use crate::nearest::nearest;
use crate::properties::{Entry, Properties};
use crate::yaml::{Node, documents};

const KIND: &str = "KafkaMirrorMaker2";
/// Where secrets lie, a folder for each: as Kubernetes mounts them.
const SECRETS_ENV: &str = "STRAIT_SECRETS_DIR";
const SECRETS: &str = "secrets";
/// No password is larger.
const MAX_PASSWORD: u64 = 64 << 10;

/// What the operator calls Connect's group and its offset topic, where the resource does not.
const CONNECT: [(&str, &str); 2] = [
    ("group.id", "mirrormaker2-cluster"),
    ("offset.storage.topic", "mirrormaker2-cluster-offsets"),
];

const CLUSTER_KEYS: [&str; 5] = [
    "alias",
    "bootstrapServers",
    "authentication",
    "tls",
    "config",
];
const MIRROR_KEYS: [&str; 12] = [
    "source",
    "sourceCluster",
    "targetCluster",
    "topicsPattern",
    "topicsExcludePattern",
    "topicsBlacklistPattern",
    "groupsPattern",
    "groupsExcludePattern",
    "groupsBlacklistPattern",
    "sourceConnector",
    "checkpointConnector",
    "heartbeatConnector",
];
/// Of a mirror, and the key of MirrorMaker 2 that the operator makes of it.
const PATTERNS: [(&str, &str); 6] = [
    ("topicsPattern", "topics"),
    ("topicsExcludePattern", "topics.exclude"),
    ("topicsBlacklistPattern", "topics.exclude"),
    ("groupsPattern", "groups"),
    ("groupsExcludePattern", "groups.exclude"),
    ("groupsBlacklistPattern", "groups.exclude"),
];

/// What a cluster is connected with beside what the keys of MirrorMaker 2 can say.
#[derive(Debug, Default)]
pub(crate) struct TlsFiles {
    /// Of a client's certificate and its private key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// Further authorities to trust.
    pub(crate) authorities: Vec<PathBuf>,
}

/// Reads and validates the text of a file with one such resource in it.
pub(crate) fn read(
    text: &str,
    file: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let whole = |problem| ConfigError::one(file, problem);
    let documents = documents(text).map_err(whole)?;
    let resource = resource(&documents).map_err(whole)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut building = Building {
        folder,
        secrets: env(SECRETS_ENV).map_or_else(|| PathBuf::from(SECRETS), PathBuf::from),
        entries: Vec::new(),
        tls_files: BTreeMap::new(),
        idle: Vec::new(),
        problems: Vec::new(),
    };
    building.spec(resource);
    building.unresolved();
    let Building {
        entries,
        tls_files,
        idle,
        problems,
        ..
    } = building;
    if !problems.is_empty() {
        return Err(ConfigError::new(file, problems));
    }
    let properties = Properties { entries };
    let mut config = mm2_file::from_properties(properties, Vec::new(), &tls_files, file)?;
    if !idle.is_empty() {
        let warning = format!(
            "{}: what is for Kubernetes and Connect is without a meaning here: {}",
            file.display(),
            idle.join(", ")
        );
        config.warnings.insert(0, warning);
    }
    Ok(config)
}

/// The one resource of the file, also inside a `List` as `kubectl get -o yaml` prints it.
fn resource(documents: &[Node]) -> Result<&Node, Problem> {
    let kind = |node: &Node| node.get("kind").and_then(Node::text).map(str::to_owned);
    let mut all = Vec::new();
    for document in documents {
        match document.get("items") {
            Some(items) => all.extend(items.elements()),
            None => all.push(document),
        }
    }
    let found: Vec<&&Node> = all
        .iter()
        .filter(|node| kind(node).as_deref() == Some(KIND))
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [_, second, ..] => Err(Problem::at(
            Some(second.line),
            "kind",
            format!("the file has more than one {KIND}"),
            "Give each a file and a process of its own, or write them as one TOML file with a link for each",
        )),
        [] if all
            .iter()
            .any(|node| kind(node).as_deref() == Some("EventStreamsGeoReplicator")) =>
        {
            Err(Problem::whole(
                format!(
                    "a geo-replicator does not name its clusters: its operator makes a {KIND} of it"
                ),
                "Save that one: kubectl get kafkamirrormaker2 NAME -o yaml > mirror.yaml",
            ))
        }
        [] => Err(Problem::whole(
            format!("it has no resource of kind {KIND}"),
            "Save one: kubectl get kafkamirrormaker2 NAME -o yaml > mirror.yaml",
        )),
    }
}

struct Building<'a> {
    folder: &'a Path,
    secrets: PathBuf,
    entries: Vec<Entry>,
    tls_files: BTreeMap<String, TlsFiles>,
    idle: Vec<String>,
    problems: Vec<Problem>,
}

impl Building<'_> {
    fn problem(
        &mut self,
        line: usize,
        key: impl Into<String>,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) {
        self.problems
            .push(Problem::at(Some(line), key, why, instead));
    }

    /// A property, unless the same is said already.
    fn put(&mut self, line: usize, key: String, value: impl Into<String>) {
        let value = value.into();
        match self.entries.iter().find(|entry| entry.key == key) {
            Some(entry) if entry.value == value => {}
            Some(entry) => {
                let why = format!("line {} says otherwise", entry.line);
                self.problem(line, key, why, "Write the same in both places, or in one");
            }
            None => self.entries.push(Entry {
                line,
                key,
                value,
                written: None,
            }),
        }
    }

    /// Providers of the operator's ask Kubernetes, which Strait does not.
    fn unresolved(&mut self) {
        let asked = |entry: &&Entry| {
            entry.value.contains("${")
                && ["sasl.", "ssl.", "password"]
                    .iter()
                    .any(|part| entry.key.contains(part))
        };
        let found: Vec<(usize, String)> = self
            .entries
            .iter()
            .filter(asked)
            .map(|entry| (entry.line, entry.key.clone()))
            .collect();
        for (line, key) in found {
            let why = "config providers (${...}) are not asked for what stands in a resource";
            let instead = "Write authentication of type scram-sha-512 or plain with its passwordSecret, or the value itself";
            self.problem(line, key, why, instead);
        }
    }

    /// A text that has to be there.
    fn text<'n>(&mut self, node: &'n Node, key: &str, path: &str) -> Option<&'n str> {
        let text = node.get(key).and_then(Node::text);
        if text.is_none() {
            let instead = format!("Write {key}: ...");
            self.problem(node.line, format!("{path}.{key}"), "it is missing", instead);
        }
        text
    }

    /// Settings of Kafka under the alias or the flow they are for.
    fn settings(&mut self, node: Option<&Node>, scope: &str) {
        for (key, node) in node.map(Node::entries).unwrap_or_default() {
            let key = format!("{scope}.{key}");
            match &node.value {
                crate::yaml::Value::Null => self.put(node.line, key, ""),
                crate::yaml::Value::Text(text) => self.put(node.line, key, text.trim()),
                _ => self.problem(
                    node.line,
                    key,
                    "this is not a text or a number",
                    "Write the value as Kafka has it",
                ),
            }
        }
    }

    /// Keys that mean nothing here are named once, with what they may have been meant to be.
    fn left(&mut self, node: &Node, known: &[&str], path: &str) {
        for (key, _) in node.entries() {
            if known.contains(&key.as_str()) {
                continue;
            }
            let meant = nearest(key, known.iter().copied());
            let meant = meant.map_or(String::new(), |meant| format!(" (did you mean {meant}?)"));
            self.idle.push(format!("{path}.{key}{meant}"));
        }
    }

    fn spec(&mut self, resource: &Node) {
        let Some(spec) = resource.get("spec") else {
            return self.problem(
                resource.line,
                "spec",
                "it is missing",
                "Name a whole resource",
            );
        };
        let known = ["target", "clusters", "mirrors", "connectCluster"];
        for (key, _) in spec.entries() {
            if !known.contains(&key.as_str()) {
                self.idle.push(format!("spec.{key}"));
            }
        }
        let mut aliases = BTreeSet::new();
        let mut target = None;
        if let Some(node) = spec.get("target") {
            let connect = [
                "groupId",
                "configStorageTopic",
                "offsetStorageTopic",
                "statusStorageTopic",
            ];
            target = self.cluster(node, "spec.target", &connect);
            aliases.extend(target.clone());
            let named = [
                ("groupId", "group.id"),
                ("offsetStorageTopic", "offset.storage.topic"),
            ];
            for (ours, theirs) in named {
                if let (Some(target), Some(name)) = (&target, node.get(ours))
                    && let Some(text) = name.text()
                {
                    self.put(name.line, format!("{target}.{theirs}"), text);
                }
            }
        }
        for (at, node) in spec
            .get("clusters")
            .map(Node::elements)
            .unwrap_or_default()
            .iter()
            .enumerate()
        {
            aliases.extend(self.cluster(node, &format!("spec.clusters[{at}]"), &[]));
        }
        let mirrors = spec.get("mirrors").map(Node::elements).unwrap_or_default();
        let mut flows = BTreeSet::new();
        for (at, mirror) in mirrors.iter().enumerate() {
            let path = format!("spec.mirrors[{at}]");
            let source = match mirror.get("source") {
                Some(node) => self.cluster(node, &format!("{path}.source"), &[]),
                None => self.text(mirror, "sourceCluster", &path).map(str::to_owned),
            };
            let target = match (&target, mirror.get("targetCluster").and_then(Node::text)) {
                (_, Some(named)) => Some(named.to_owned()),
                (Some(target), None) => Some(target.clone()),
                (None, None) => self.text(mirror, "targetCluster", &path).map(str::to_owned),
            };
            let (Some(source), Some(target)) = (source, target) else {
                continue;
            };
            aliases.extend([source.clone(), target.clone()]);
            self.mirror(mirror, &path, &format!("{source}->{target}"));
            flows.insert((source, target));
        }
        if mirrors.is_empty() {
            let instead = "Write a list of mirrors, each with a source and sourceConnector: {}";
            self.problem(spec.line, "spec.mirrors", "it is missing or empty", instead);
        }
        // Its heartbeat connector writes to the target alone.
        for (source, target) in &flows {
            if !flows.contains(&(target.clone(), source.clone())) {
                let key = format!("{target}->{source}.emit.heartbeats.enabled");
                self.put(spec.line, key, "false");
            }
        }
        // Where it has to be looked whether it still runs, and where it stopped.
        for (_, target) in &flows {
            for (key, value) in CONNECT {
                let key = format!("{target}.{key}");
                if !self.entries.iter().any(|entry| entry.key == key) {
                    self.put(spec.line, key, value);
                }
            }
        }
        let aliases: Vec<String> = aliases.into_iter().collect();
        self.put(spec.line, "clusters".to_owned(), aliases.join(", "));
    }

    /// One cluster; its alias. `also`: keys without a meaning here that need not be named.
    fn cluster(&mut self, node: &Node, path: &str, also: &[&str]) -> Option<String> {
        let known: Vec<&str> = CLUSTER_KEYS.iter().chain(also).copied().collect();
        self.left(node, &known, path);
        let alias = self.text(node, "alias", path)?.to_owned();
        let bootstrap = self.text(node, "bootstrapServers", path)?;
        self.put(node.line, format!("{alias}.bootstrap.servers"), bootstrap);
        let tls = node.get("tls");
        if let Some(tls) = tls {
            self.trust(tls, path, &alias);
        }
        let sasl = match node.get("authentication") {
            Some(authentication) => self.authenticate(authentication, path, &alias, tls.is_some()),
            None => false,
        };
        let protocol = match (tls.is_some(), sasl) {
            (false, false) => "PLAINTEXT",
            (true, false) => "SSL",
            (false, true) => "SASL_PLAINTEXT",
            (true, true) => "SASL_SSL",
        };
        self.put(node.line, format!("{alias}.security.protocol"), protocol);
        self.settings(node.get("config"), &alias);
        Some(alias)
    }

    /// The authorities to trust; without any those of the system.
    fn trust(&mut self, tls: &Node, path: &str, alias: &str) {
        let key = format!("{path}.tls.trustedCertificates");
        let certificates = tls.get("trustedCertificates").map(Node::elements);
        let mut files = Vec::new();
        for certificate in certificates.unwrap_or_default() {
            let Some(secret) = self.text(certificate, "secretName", &key) else {
                continue;
            };
            match certificate.get("pattern").and_then(Node::text) {
                Some(pattern) => {
                    let found = self.matching(secret, pattern);
                    if found.is_empty() {
                        self.no_secret(
                            certificate.line,
                            &key,
                            secret,
                            pattern,
                            "no file there fits",
                        );
                    }
                    files.extend(found);
                }
                None => {
                    let Some(name) = self.text(certificate, "certificate", &key) else {
                        continue;
                    };
                    let file = self.secrets.join(secret).join(name);
                    if let Err(error) = std::fs::File::open(self.folder.join(&file)) {
                        let why = format!("{} cannot be read: {error}", file.display());
                        self.no_secret(certificate.line, &key, secret, name, &why);
                    } else {
                        files.push(file);
                    }
                }
            }
        }
        let Some((first, others)) = files.split_first() else {
            return;
        };
        let line = tls.line;
        self.put(line, format!("{alias}.ssl.truststore.type"), "PEM");
        let location = first.display().to_string();
        self.put(line, format!("{alias}.ssl.truststore.location"), location);
        // While an authority is being replaced its secret has both.
        let others = others.iter().map(|file| self.folder.join(file)).collect();
        let files = self.tls_files.entry(alias.to_owned()).or_default();
        files.authorities = others;
    }

    /// Files of a secret whose names fit a pattern of Strimzi's (`*.crt`).
    fn matching(&self, secret: &str, pattern: &str) -> Vec<PathBuf> {
        let folder = self.folder.join(&self.secrets).join(secret);
        let (begin, end) = pattern.split_once('*').unwrap_or((pattern, ""));
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // Kubernetes keeps its own versions in names that begin with two dots.
            .filter(|name| !name.starts_with("..") && name.len() >= begin.len() + end.len())
            .filter(|name| name.starts_with(begin) && name.ends_with(end))
            .map(|name| self.secrets.join(secret).join(name))
            .collect();
        found.sort();
        found
    }

    /// Whether SASL is used.
    fn authenticate(&mut self, node: &Node, path: &str, alias: &str, tls: bool) -> bool {
        let path = format!("{path}.authentication");
        let Some(kind) = self.text(node, "type", &path) else {
            return false;
        };
        let line = node.line;
        let (mechanism, module) = match kind {
            "tls" => {
                if !tls {
                    let instead = "Write tls with the trustedCertificates of the brokers";
                    self.problem(
                        line,
                        path,
                        "certificates need tls, which the cluster has not",
                        instead,
                    );
                    return false;
                }
                self.client(node, &path, alias);
                return false;
            }
            "scram-sha-512" => ("SCRAM-SHA-512", "scram.ScramLoginModule"),
            "scram-sha-256" => ("SCRAM-SHA-256", "scram.ScramLoginModule"),
            "plain" => ("PLAIN", "plain.PlainLoginModule"),
            "custom" => {
                self.settings(node.get("config"), alias);
                return node.get("sasl").and_then(Node::text) == Some("true");
            }
            other => {
                let why = format!("Strait cannot authenticate with {other}");
                let instead = "Give it a user with tls, scram-sha-512, scram-sha-256 or plain";
                self.problem(line, path, why, instead);
                return false;
            }
        };
        let username = self.text(node, "username", &path);
        let password = self.password(node, &path);
        if let (Some(username), Some(password)) = (username, password) {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let login = format!(
                "org.apache.kafka.common.security.{module} required username=\"{}\" password=\"{}\";",
                quoted(username),
                quoted(&password)
            );
            self.put(line, format!("{alias}.sasl.mechanism"), mechanism);
            self.put(line, format!("{alias}.sasl.jaas.config"), login);
        }
        true
    }

    fn client(&mut self, node: &Node, path: &str, alias: &str) {
        let path = format!("{path}.certificateAndKey");
        let Some(pair) = node.get("certificateAndKey") else {
            let instead = "Write certificateAndKey with secretName, certificate and key";
            return self.problem(node.line, path, "it is missing", instead);
        };
        let secret = self.text(pair, "secretName", &path);
        let certificate = self.text(pair, "certificate", &path);
        let key = self.text(pair, "key", &path);
        let (Some(secret), Some(certificate), Some(key)) = (secret, certificate, key) else {
            return;
        };
        let mut files = Vec::new();
        for name in [certificate, key] {
            let file = self.folder.join(&self.secrets).join(secret).join(name);
            if let Err(error) = std::fs::File::open(&file) {
                let why = format!("{} cannot be read: {error}", file.display());
                self.no_secret(pair.line, &path, secret, name, &why);
            }
            files.push(file);
        }
        if let (Some(key), Some(certificate)) = (files.pop(), files.pop()) {
            let files = self.tls_files.entry(alias.to_owned()).or_default();
            files.client = Some((certificate, key));
        }
    }

    fn password(&mut self, node: &Node, path: &str) -> Option<String> {
        let path = format!("{path}.passwordSecret");
        let Some(from) = node.get("passwordSecret") else {
            let instead = "Write passwordSecret with secretName and password";
            self.problem(node.line, path, "it is missing", instead);
            return None;
        };
        let secret = self.text(from, "secretName", &path)?;
        let name = self.text(from, "password", &path)?;
        let file = self.folder.join(&self.secrets).join(secret).join(name);
        let read = std::fs::metadata(&file).and_then(|found| match found.len() {
            0..=MAX_PASSWORD => std::fs::read_to_string(&file),
            _ => Err(std::io::Error::other("it is too large for a password")),
        });
        match read {
            Ok(text) => Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()),
            Err(error) => {
                let why = format!("{} cannot be read: {error}", file.display());
                self.no_secret(from.line, &path, secret, name, &why);
                None
            }
        }
    }

    fn no_secret(&mut self, line: usize, path: &str, secret: &str, name: &str, why: &str) {
        let which = match name.contains('*') {
            true => format!("kubectl get secret {secret} -o yaml shows its keys, in Base64"),
            false => format!(
                "kubectl get secret {secret} -o go-template='{{{{index .data \"{name}\" | base64decode}}}}'"
            ),
        };
        let instead = format!(
            "Mount the secret {secret} there, or save it: {which}; {SECRETS_ENV} names another folder for all secrets"
        );
        self.problem(line, path, why, instead);
    }

    fn mirror(&mut self, mirror: &Node, path: &str, flow: &str) {
        self.left(mirror, &MIRROR_KEYS, path);
        self.put(mirror.line, format!("{flow}.enabled"), "true");
        for (ours, theirs) in PATTERNS {
            if let Some(node) = mirror.get(ours)
                && let Some(text) = node.text()
            {
                self.put(node.line, format!("{flow}.{theirs}"), text.trim());
            }
        }
        // The operator runs those connectors that are written down.
        let off: [(&str, &[&str]); 3] = [
            ("sourceConnector", &[]),
            (
                "checkpointConnector",
                &["emit.checkpoints.enabled", "sync.group.offsets.enabled"],
            ),
            ("heartbeatConnector", &["emit.heartbeats.enabled"]),
        ];
        for (name, off) in off {
            let Some(connector) = mirror.get(name) else {
                if off.is_empty() {
                    let key = format!("{path}.{name}");
                    let why = "without it no topics are mirrored";
                    self.problem(mirror.line, key, why, format!("Write {name}: {{}}"));
                }
                for key in off {
                    self.put(mirror.line, format!("{flow}.{key}"), "false");
                }
                continue;
            };
            let is = |key: &str, values: &[&str]| {
                let text = connector.get(key).and_then(Node::text);
                text.is_some_and(|text| values.contains(&text))
            };
            if is("state", &["paused", "stopped"]) || is("pause", &["true"]) {
                let key = format!("{path}.{name}");
                self.problem(
                    connector.line,
                    key,
                    "it is paused or stopped",
                    "Remove that to let it run here",
                );
            }
            self.settings(connector.get("config"), flow);
        }
    }
}
