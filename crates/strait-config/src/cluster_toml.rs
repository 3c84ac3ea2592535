//! `[clusters]` of a TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::address::{parse_address, split_list};
use crate::error::Problem;
use crate::model::{ClusterConfig, PasswordFrom, SaslConfig, SaslMechanism, TlsConfig};
use crate::nearest::nearest;
use crate::secret::Secret;
use crate::table::{Field, Reader, Table};

const CLUSTER_EXAMPLE: &str = "paris = \"paris-1:9092\"";
const TLS_EXAMPLE: &str = "tls = true, or tls = { ca-file = \"ca.pem\" }";
const SASL_EXAMPLE: &str =
    "sasl = { mechanism = \"SCRAM-SHA-512\", username = \"strait\", password-file = \"password\" }";
/// A password file is one line; anything larger is some other file.
const MAX_PASSWORD_FILE: u64 = 64 << 10;
/// `mm2-offset-syncs.<alias>.internal` must stay within the 249 characters of a topic name.
const MAX_ALIAS: usize = 200;

/// What lies outside the file: its folder, and the environment.
pub(crate) struct Surroundings<'a> {
    pub(crate) folder: PathBuf,
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Surroundings<'a> {
    /// Relative paths in a file are relative to the folder it lies in.
    pub(crate) fn of(file: &Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            folder: file.parent().unwrap_or(Path::new("")).to_owned(),
            env,
        }
    }

    pub(crate) fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written)
    }
}

pub(crate) fn read_clusters(
    reader: &mut Reader<'_>,
    around: &Surroundings<'_>,
    field: &Field<'_, '_>,
) -> BTreeMap<String, ClusterConfig> {
    let mut clusters = BTreeMap::new();
    let Some(entries) = field.table(
        reader,
        &format!("[clusters] and under it {CLUSTER_EXAMPLE}"),
    ) else {
        return clusters;
    };
    // Every alias is a key of its own making, so none is unknown.
    let table = Table::open_any("clusters", Some(field.line), entries);
    for name in entries.keys() {
        let alias: &str = name.get_ref();
        let Some(entry) = table.field(reader, alias) else {
            continue;
        };
        if let Err((why, instead)) = check_alias(alias) {
            reader.problems.push(Problem::at(
                Some(entry.line),
                entry.key.clone(),
                why,
                instead,
            ));
        }
        if let Some(cluster) = read_cluster(reader, around, alias, &entry) {
            clusters.insert(alias.to_owned(), cluster);
        }
    }
    clusters
}

/// An alias becomes part of topic names, so it is made of what those are made of.
pub(crate) fn check_alias(alias: &str) -> Result<(), (String, String)> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if alias.is_empty() || !alias.chars().all(fits) {
        let why = "an alias becomes part of topic names and may have letters, digits, '.', '_' and '-' only";
        return Err((why.to_owned(), "Choose another alias".to_owned()));
    }
    if alias.len() > MAX_ALIAS {
        let why = format!(
            "an alias becomes part of topic names and may have {MAX_ALIAS} characters at most"
        );
        return Err((why, "Choose a shorter alias".to_owned()));
    }
    Ok(())
}

fn read_cluster(
    reader: &mut Reader<'_>,
    around: &Surroundings<'_>,
    alias: &str,
    entry: &Field<'_, '_>,
) -> Option<ClusterConfig> {
    if !entry.value.get_ref().is_table() {
        let bootstrap = read_bootstrap(reader, entry)?;
        return Some(ClusterConfig {
            alias: alias.to_owned(),
            bootstrap,
            tls: None,
            sasl: None,
        });
    }
    let entries = entry.table(reader, CLUSTER_EXAMPLE)?;
    let known = ["bootstrap", "tls", "sasl"];
    let table = Table::open(reader, &entry.key, Some(entry.line), entries, &known);
    let bootstrap = match table.field(reader, "bootstrap") {
        Some(field) => read_bootstrap(reader, &field),
        None => {
            table.missing(
                reader,
                "bootstrap",
                "Write bootstrap = \"kafka-1:9092,kafka-2:9092\"",
            );
            None
        }
    };
    let tls = table
        .field(reader, "tls")
        .and_then(|field| read_tls(reader, around, &field));
    let sasl = table
        .field(reader, "sasl")
        .and_then(|field| read_sasl(reader, around, &field));
    Some(ClusterConfig {
        alias: alias.to_owned(),
        bootstrap: bootstrap?,
        tls,
        sasl,
    })
}

fn read_bootstrap(reader: &mut Reader<'_>, field: &Field<'_, '_>) -> Option<Vec<String>> {
    let example = "\"kafka-1:9092,kafka-2:9092\"";
    let mut addresses = Vec::new();
    let before = reader.problems.len();
    for (element, text) in field.strings(reader, example)? {
        for part in split_list(text) {
            match parse_address(part) {
                Ok(address) => addresses.push(address),
                Err((why, instead)) => {
                    let problem = element
                        .problem(why, instead)
                        .with_value(format!("{part:?}"));
                    reader.problems.push(problem);
                }
            }
        }
    }
    if addresses.is_empty() && reader.problems.len() == before {
        reader
            .problems
            .push(field.problem("it names no broker", format!("Write {example}")));
    }
    (reader.problems.len() == before).then_some(addresses)
}

fn read_tls(
    reader: &mut Reader<'_>,
    around: &Surroundings<'_>,
    field: &Field<'_, '_>,
) -> Option<TlsConfig> {
    if let DeValue::Boolean(on) = field.value.get_ref() {
        return on.then(TlsConfig::default);
    }
    let entries = field.table(reader, TLS_EXAMPLE)?;
    let known = ["ca-file", "cert-file", "key-file"];
    let table = Table::open(reader, &field.key, Some(field.line), entries, &known);
    let mut file = |key: &str| {
        let entry = table.field(reader, key)?;
        let path = around.path(entry.string(reader, "the path of a PEM file")?);
        readable(reader, &entry, &path);
        Some(path)
    };
    let (cert_file, key_file) = (file("cert-file"), file("key-file"));
    let mut ca_files = Vec::new();
    if let Some(entry) = table.field(reader, "ca-file") {
        let named = entry.strings(reader, "the path of a PEM file");
        for (element, written) in named.unwrap_or_default() {
            let path = around.path(written);
            readable(reader, &element, &path);
            ca_files.push(path);
        }
    }
    let tls = TlsConfig {
        ca_files,
        cert_file,
        key_file,
    };
    match (&tls.cert_file, &tls.key_file) {
        (Some(_), None) => table.missing(
            reader,
            "key-file",
            "A client certificate needs its private key: write key-file = \"key.pem\"",
        ),
        (None, Some(_)) => table.missing(
            reader,
            "cert-file",
            "A private key needs its certificate: write cert-file = \"cert.pem\"",
        ),
        _ => {}
    }
    Some(tls)
}

fn readable(reader: &mut Reader<'_>, entry: &Field<'_, '_>, path: &Path) {
    if let Err(error) = std::fs::File::open(path) {
        let why = format!("{} cannot be read: {error}", path.display());
        let instead = "Write the path of a PEM file, relative to the configuration file";
        reader.problems.push(entry.problem(why, instead));
    }
}

fn read_sasl(
    reader: &mut Reader<'_>,
    around: &Surroundings<'_>,
    field: &Field<'_, '_>,
) -> Option<SaslConfig> {
    let entries = field.table(reader, SASL_EXAMPLE)?;
    let known = [
        "mechanism",
        "username",
        "password",
        "password-file",
        "password-env",
    ];
    let field_line = Some(field.line);
    let table = Table::open(reader, &field.key, field_line, entries, &known);
    let mechanism = match table.field(reader, "mechanism") {
        Some(entry) => read_mechanism(reader, &entry),
        None => {
            table.missing(
                reader,
                "mechanism",
                "Write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
            );
            None
        }
    };
    let username = match table.field(reader, "username") {
        Some(entry) => match entry.string(reader, "username = \"strait\"") {
            Some("") => {
                reader
                    .problems
                    .push(entry.problem("it is empty", "Write the user's name"));
                None
            }
            other => other,
        },
        None => {
            table.missing(reader, "username", "Write username = \"strait\"");
            None
        }
    };
    let (password, password_from) = read_password(reader, around, &table)?;
    Some(SaslConfig {
        mechanism: mechanism?,
        username: username?.to_owned(),
        password,
        password_from,
    })
}

fn read_mechanism(reader: &mut Reader<'_>, entry: &Field<'_, '_>) -> Option<SaslMechanism> {
    let all = [
        SaslMechanism::Plain,
        SaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512,
    ];
    let text = entry.string(reader, "\"SCRAM-SHA-512\"")?;
    let found = all.into_iter().find(|mechanism| mechanism.as_str() == text);
    if found.is_none() {
        let instead = match nearest(text, all.map(SaslMechanism::as_str)) {
            Some(meant) => format!("Did you mean \"{meant}\"?"),
            None => "Write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512".to_owned(),
        };
        reader
            .problems
            .push(entry.problem("this mechanism is not supported", instead));
    }
    found
}

fn read_password(
    reader: &mut Reader<'_>,
    around: &Surroundings<'_>,
    table: &Table<'_, '_>,
) -> Option<(Secret, PasswordFrom)> {
    let keys = ["password-file", "password-env", "password"];
    let given: Vec<Field<'_, '_>> = keys
        .iter()
        .filter_map(|key| table.field(reader, key))
        .map(Field::secret)
        .collect();
    let [entry] = given.as_slice() else {
        match given.get(1) {
            Some(second) => reader.problems.push(second.problem(
                "the password is given more than once",
                "Keep one of password-file, password-env and password",
            )),
            None => table.missing(
                reader,
                "password-file",
                "Write password-file = \"path\", password-env = \"NAME\", or password = \"...\"",
            ),
        }
        return None;
    };
    let text = entry.string(reader, "a string")?;
    let (password, from) = if entry.key.ends_with("password-file") {
        let path = around.path(text);
        match read_password_file(&path) {
            Ok(password) => (password, PasswordFrom::File(path)),
            Err(why) => {
                let instead = "Write the path of a file that holds the password and nothing else, relative to the configuration file";
                reader.problems.push(entry.problem(why, instead));
                return None;
            }
        }
    } else if entry.key.ends_with("password-env") {
        match (around.env)(text) {
            Some(password) => (password, PasswordFrom::Env(text.to_owned())),
            None => {
                let why = format!("the environment variable {text} is not set");
                reader
                    .problems
                    .push(entry.problem(why, "Set it for this process, or name another"));
                return None;
            }
        }
    } else {
        (text.to_owned(), PasswordFrom::Inline)
    };
    if password.is_empty() {
        reader
            .problems
            .push(entry.problem("the password is empty", "Give the user's password"));
        return None;
    }
    Some((Secret::new(password), from))
}

fn read_password_file(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_PASSWORD_FILE {
        return Err(format!(
            "{} has {size} bytes and is no password",
            path.display()
        ));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    // Editors end a file with a line end that nobody means to be part of the password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
