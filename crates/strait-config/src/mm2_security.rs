//! TLS and SASL of a cluster in a MirrorMaker 2 file, as Kafka's clients read them (`CommonClientConfigs`, `SslConfigs`,
//! `SaslConfigs`): what Strait can do the same way is obeyed, everything else is refused with what to write instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Problem;
use crate::jaas;
use crate::model::{PasswordFrom, SaslConfig, SaslMechanism, TlsConfig};
use crate::properties::{Entry, Properties};
use crate::secret::Secret;

/// Clients of a cluster that MirrorMaker 2 configures one by one.
const CLIENTS: [&str; 3] = ["consumer.", "producer.", "admin."];

/// Settings without a counterpart: TLS 1.2 and 1.3 with safe ciphers are always there, PEM files have no passwords, and
/// the rest is Kerberos's and OAuth's.
const NO_EFFECT: [&str; 11] = [
    "ssl.protocol",
    "ssl.provider",
    "ssl.enabled.protocols",
    "ssl.cipher.suites",
    "ssl.trustmanager.algorithm",
    "ssl.keymanager.algorithm",
    "ssl.secure.random.implementation",
    "ssl.truststore.password",
    "ssl.keystore.password",
    "ssl.key.password",
    "sasl.kerberos.service.name",
];
const NO_EFFECT_UNDER: [&str; 3] = ["sasl.kerberos.", "sasl.login.", "sasl.oauthbearer."];

/// Classes that would decide how to connect.
const TLS_CLASSES: [&str; 2] = ["ssl.engine.factory.class", "security.providers"];
const SASL_CLASSES: [&str; 3] = [
    "sasl.client.callback.handler.class",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
];

/// The setting that a key of a cluster is about, without the client it is for; none for keys of other kinds.
pub(crate) fn setting(rest: &str) -> Option<&str> {
    let own = CLIENTS.iter().find_map(|client| rest.strip_prefix(client));
    let key = own.unwrap_or(rest);
    ["security.", "ssl.", "sasl."]
        .iter()
        .any(|begin| key.starts_with(begin))
        .then_some(key)
}

/// Whether a setting is known and does nothing here.
pub(crate) fn without_effect(setting: &str) -> bool {
    !SASL_CLASSES.contains(&setting)
        && (NO_EFFECT.contains(&setting)
            || NO_EFFECT_UNDER
                .iter()
                .any(|begin| setting.starts_with(begin)))
}

/// What a cluster is connected with; problems are added to the list.
pub(crate) fn read(
    properties: &Properties,
    alias: &str,
    folder: &Path,
    problems: &mut Vec<Problem>,
) -> (Option<TlsConfig>, Option<SaslConfig>) {
    let mut reading = Reading {
        properties,
        alias,
        folder,
        problems,
    };
    reading.one_identity();
    let (tls, sasl) = match reading.protocol() {
        Some(found) => found,
        None => return (None, None),
    };
    let tls = tls.then(|| reading.tls());
    let sasl = if sasl { reading.sasl() } else { None };
    (tls, sasl)
}

struct Reading<'a> {
    properties: &'a Properties,
    alias: &'a str,
    folder: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reading<'a> {
    /// The cluster's own setting, else the global one, else a client's (`MirrorMakerConfig.clusterProps`).
    fn get(&self, setting: &str) -> Option<&'a Entry> {
        let alias = self.alias;
        let own = self.properties.get(&format!("{alias}.{setting}"));
        let own = own.or_else(|| self.properties.get(setting));
        own.or_else(|| {
            let mut keys = CLIENTS.iter();
            keys.find_map(|client| self.properties.get(&format!("{alias}.{client}{setting}")))
        })
    }

    /// The value, none where it is empty.
    fn value(&self, setting: &str) -> Option<&'a str> {
        let value = self.get(setting)?.value.as_str();
        (!value.is_empty()).then_some(value)
    }

    fn problem(&mut self, setting: &str, why: impl Into<String>, instead: impl Into<String>) {
        let (line, key) = match self.get(setting) {
            Some(entry) => (Some(entry.line), entry.key.clone()),
            None => (None, format!("{}.{setting}", self.alias)),
        };
        self.problems.push(Problem::at(line, key, why, instead));
    }

    /// MirrorMaker 2 could connect its consumer as somebody else than its producer.
    fn one_identity(&mut self) {
        for entry in &self.properties.entries {
            let Some(rest) = entry
                .key
                .strip_prefix(self.alias)
                .and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            let Some(setting) = setting(rest) else {
                continue;
            };
            let counts = self.get(setting).map(|e| &e.value);
            if !without_effect(setting) && counts != Some(&entry.value) {
                let why = "Strait connects to a cluster in one way and as one user, and this differs from another of its clients";
                let instead = format!(
                    "Write {}.{setting} once, for a user with all the rights that are needed, and remove this",
                    self.alias
                );
                self.problems.push(Problem::at(
                    Some(entry.line),
                    entry.key.clone(),
                    why,
                    instead,
                ));
            }
        }
    }

    /// Whether TLS and SASL are on.
    fn protocol(&mut self) -> Option<(bool, bool)> {
        let protocol = self.value("security.protocol").unwrap_or("PLAINTEXT");
        match protocol.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Some((false, false)),
            "SSL" => Some((true, false)),
            "SASL_PLAINTEXT" => Some((false, true)),
            "SASL_SSL" => Some((true, true)),
            _ => {
                let instead = "Write PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL";
                self.problem(
                    "security.protocol",
                    "this is not one of its values",
                    instead,
                );
                None
            }
        }
    }

    fn tls(&mut self) -> TlsConfig {
        self.no_classes(&TLS_CLASSES);
        let check = "ssl.endpoint.identification.algorithm";
        if let Some(entry) = self.get(check)
            && !entry.value.eq_ignore_ascii_case("https")
        {
            let why = "Strait always checks that a broker's certificate has the broker's host name";
            let instead = "Give the brokers certificates with the names in bootstrap.servers and advertised.listeners, and remove it";
            self.problem(check, why, instead);
        }
        let authorities = self.store("truststore", &["ssl.truststore.certificates"]);
        let inside = ["ssl.keystore.certificate.chain", "ssl.keystore.key"];
        let client = self.store("keystore", &inside);
        if let Some(file) = &client
            && std::fs::read_to_string(file).is_ok_and(|text| text.contains("ENCRYPTED"))
        {
            let shown = file.display();
            let why = "its private key is encrypted, which Strait does not read";
            let instead = format!(
                "Decrypt it (openssl pkcs8 -in {shown} -out key.pem), and put key and certificates into one file that only this user may read"
            );
            self.problem("ssl.keystore.location", why, instead);
        }
        TlsConfig {
            ca_files: authorities.into_iter().collect(),
            cert_file: client.clone(),
            key_file: client,
        }
    }

    /// The PEM file of a store. `inside`: settings that hold the same in the file itself.
    fn store(&mut self, which: &str, inside: &[&str]) -> Option<PathBuf> {
        let alias = self.alias;
        let write = format!(
            "write {alias}.ssl.{which}.type = PEM and {alias}.ssl.{which}.location = {which}.pem"
        );
        if let Some(setting) = inside.iter().find(|s| self.value(s).is_some()) {
            let why = "certificates and keys are read from files, not from the configuration";
            self.problem(
                setting,
                why,
                format!("Put it into a PEM file, and {write}; MirrorMaker 2 reads that too"),
            );
            return None;
        }
        let setting = format!("ssl.{which}.location");
        let location = self.value(&setting)?;
        let kind = self.value(&format!("ssl.{which}.type")).unwrap_or("JKS");
        if !kind.eq_ignore_ascii_case("PEM") {
            let convert = match which {
                "truststore" => format!("keytool -list -rfc -keystore {location} > {which}.pem"),
                _ if kind.eq_ignore_ascii_case("JKS") => format!(
                    "keytool -importkeystore -srckeystore {location} -destkeystore {which}.p12 -deststoretype PKCS12, then openssl pkcs12 -in {which}.p12 -nodes -out {which}.pem"
                ),
                _ => format!("openssl pkcs12 -in {location} -nodes -out {which}.pem"),
            };
            let why = format!("Strait reads PEM files, and this is a store of type {kind}");
            self.problem(
                &setting,
                why,
                format!("Run {convert}, and {write}; MirrorMaker 2 reads that too"),
            );
            return None;
        }
        let path = self.folder.join(location);
        if let Err(error) = std::fs::File::open(&path) {
            let why = format!("{} cannot be read: {error}", path.display());
            let instead = "Write the path of a PEM file, relative to the configuration file";
            self.problem(&setting, why, instead);
        }
        Some(path)
    }

    fn sasl(&mut self) -> Option<SaslConfig> {
        let before = self.problems.len();
        self.no_classes(&SASL_CLASSES);
        // Kafka's default.
        let name = self.value("sasl.mechanism").unwrap_or("GSSAPI");
        let (mechanism, module) = match name {
            "PLAIN" => (SaslMechanism::Plain, "PlainLoginModule"),
            "SCRAM-SHA-256" => (SaslMechanism::ScramSha256, "ScramLoginModule"),
            "SCRAM-SHA-512" => (SaslMechanism::ScramSha512, "ScramLoginModule"),
            other => {
                let why =
                    format!("Strait speaks PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, not {other}");
                let instead = "Give it a user with a password for one of these, or a client certificate (security.protocol = SSL)";
                self.problem("sasl.mechanism", why, instead);
                return None;
            }
        };
        let setting = "sasl.jaas.config";
        let example = format!(
            "Write {}.{setting} = org.apache.kafka.common.security.{}.{module} required username=\"user\" password=\"...\";",
            self.alias,
            if mechanism == SaslMechanism::Plain {
                "plain"
            } else {
                "scram"
            }
        );
        let Some(text) = self.value(setting) else {
            self.problem(setting, "it is missing", example);
            return None;
        };
        let login = match jaas::parse(text) {
            Ok(login) => login,
            Err(why) => {
                self.problem(setting, why, example);
                return None;
            }
        };
        if login.module.rsplit('.').next() != Some(module) {
            let why = format!("its login module {} is not that of {name}", login.module);
            self.problem(setting, why, example);
            return None;
        }
        let option = |options: &BTreeMap<String, String>, name: &str| {
            options.get(name).filter(|text| !text.is_empty()).cloned()
        };
        let (Some(username), Some(password)) = (
            option(&login.options, "username"),
            option(&login.options, "password"),
        ) else {
            self.problem(setting, "it has no username or no password", example);
            return None;
        };
        (self.problems.len() == before).then(|| SaslConfig {
            mechanism,
            username,
            password: Secret::new(password),
            password_from: PasswordFrom::Inline,
        })
    }

    fn no_classes(&mut self, settings: &[&str]) {
        for setting in settings {
            if self.value(setting).is_some() {
                let why = "classes written in Java cannot be run";
                let instead =
                    "Remove it, and connect with certificates or with a user and a password";
                self.problem(setting, why, instead);
            }
        }
    }
}
