//! The effective configuration as TOML: what `strait check` prints, and what turns a MirrorMaker 2 file into TOML.

use std::fmt::Write as _;
use std::path::Path;

use crate::beside;
use crate::groups::GroupSettings;
use crate::heartbeats;
use crate::model::{Config, LinkConfig, PasswordFrom, Policy, SaslConfig, TlsConfig};
use crate::naming::Naming;
use crate::pattern::Pattern;
use crate::quantity::{duration_text, size_text};
use crate::takeover;

impl Config {
    /// The whole configuration with every default written out. It reads back as the same model, but for a password
    /// that was written in the file itself: that is replaced by a `password-env` and a comment, never shown.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_toml(&mut text);
        text
    }

    fn write_toml(&self, out: &mut String) -> std::fmt::Result {
        if let Some(instance) = &self.instance {
            writeln!(out, "instance = {}", quoted(instance))?;
        }
        if let Some(folder) = &self.state_dir {
            writeln!(out, "state-dir = {}", quoted(&folder.display().to_string()))?;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str("[admin]\n");
        match self.admin.listen {
            Some(listen) => writeln!(out, "listen = \"{listen}\"")?,
            None => out.push_str("listen = \"off\"\n"),
        }
        if let Some(file) = &self.admin_token_file {
            let file = quoted(&file.display().to_string());
            writeln!(out, "token-file = {file}")?;
        }
        for cluster in self.clusters.values() {
            writeln!(out, "\n[clusters.{}]", quoted(&cluster.alias))?;
            writeln!(
                out,
                "bootstrap = {}",
                list(cluster.bootstrap.iter().map(String::as_str))
            )?;
            if let Some(tls) = &cluster.tls {
                writeln!(out, "tls = {}", tls_text(tls))?;
            }
            if let Some(sasl) = &cluster.sasl {
                if sasl.password_from == PasswordFrom::Inline {
                    out.push_str("# The password came with the configuration and is not shown.\n");
                }
                writeln!(out, "sasl = {}", sasl_text(sasl))?;
            }
        }
        for link in &self.links {
            out.push('\n');
            write_link(out, link)?;
        }
        Ok(())
    }
}

fn write_link(out: &mut String, link: &LinkConfig) -> std::fmt::Result {
    out.push_str("[[links]]\n");
    writeln!(out, "name = {}", quoted(&link.name))?;
    writeln!(out, "source = {}", quoted(&link.source))?;
    writeln!(out, "target = {}", quoted(&link.target))?;
    writeln!(
        out,
        "topics = {}",
        list(link.topics.includes().iter().map(String::as_str))
    )?;
    writeln!(
        out,
        "exclude = {}",
        list(link.topics.excludes().iter().map(String::as_str))
    )?;
    match &link.naming {
        Naming::Default { separator } => {
            writeln!(
                out,
                "naming = \"default\"\nseparator = {}",
                quoted(separator)
            )?;
        }
        Naming::Suffix { separator } => {
            writeln!(
                out,
                "naming = \"suffix\"\nseparator = {}",
                quoted(separator)
            )?;
        }
        Naming::Identity => {
            out.push_str("naming = \"identity\"\n");
            if let Some(separator) = &link.heartbeats.separator {
                writeln!(out, "separator = {}", quoted(separator))?;
            }
        }
        Naming::Template(template) => {
            writeln!(out, "naming = {}", quoted(&template.text()))?;
        }
    }
    writeln!(
        out,
        "internal-separator = {}",
        quoted(&link.internal_separator)
    )?;
    if !link.names.is_empty() {
        let pair =
            |(topic, name): (&String, &String)| format!("{} = {}", quoted(topic), quoted(name));
        let pairs: Vec<String> = link.names.iter().map(pair).collect();
        writeln!(out, "names = {{ {} }}", pairs.join(", "))?;
    }
    match link.replication_factor {
        Some(factor) => writeln!(out, "replication-factor = {factor}")?,
        None => out.push_str(
            "# replication-factor is not set: chosen at creation, capped at the live brokers\n",
        ),
    }
    match link.internal_replication_factor {
        Some(factor) => writeln!(out, "internal-replication-factor = {factor}")?,
        None => out.push_str("# internal-replication-factor is not set: chosen at creation, capped at the live brokers\n"),
    }
    let refresh = link
        .refresh_topics
        .map_or_else(|| "off".to_owned(), duration_text);
    writeln!(out, "refresh-topics = \"{refresh}\"")?;
    writeln!(out, "sync-topic-configs = {}", link.sync_topic_configs)?;
    writeln!(
        out,
        "config-exclude = {}",
        list(link.config_excludes.iter().map(Pattern::as_str))
    )?;
    writeln!(out, "start = \"{}\"", link.start.default.to_text())?;
    if !link.start.rules.is_empty() {
        out.push_str("start-rules = [\n");
        for (pattern, start) in &link.start.rules {
            let topics = list([pattern.as_str()].into_iter());
            writeln!(
                out,
                "  {{ topics = {topics}, start = \"{}\" }},",
                start.to_text()
            )?;
        }
        out.push_str("]\n");
    }
    writeln!(out, "isolation = \"{}\"", link.isolation.as_str())?;
    writeln!(out, "forward = \"{}\"", link.forward.as_str())?;
    writeln!(out, "grow-partitions = {}", link.grow_partitions)?;
    writeln!(
        out,
        "connect-timeout = \"{}\"",
        duration_text(link.timeouts.connect)
    )?;
    writeln!(
        out,
        "request-timeout = \"{}\"",
        duration_text(link.timeouts.request)
    )?;
    writeln!(
        out,
        "drain-timeout = \"{}\"",
        duration_text(link.timeouts.drain)
    )?;
    writeln!(out, "memory-budget = \"{}\"", size_text(link.memory_budget))?;
    writeln!(out, "fetch-connections = {}", link.fetch_connections)?;
    for (key, go_on, policy) in link.policies.clone().keyed() {
        let word = match policy {
            Policy::GoOn => go_on,
            Policy::Stop => "stop",
        };
        writeln!(out, "{key} = \"{word}\"")?;
    }
    writeln!(
        out,
        "open-transaction-warning = \"{}\"",
        duration_text(link.open_transaction_warning)
    )?;
    heartbeats::write(out, &link.heartbeats)?;
    beside::write(out, &link.beside)?;
    write_groups(out, &link.groups)?;
    takeover::write(out, &link.takeover)?;
    writeln!(out, "offset-syncs-on-source = {}", link.syncs_on_source)
}

fn write_groups(out: &mut String, groups: &GroupSettings) -> std::fmt::Result {
    let patterns = |patterns: &[Pattern]| list(patterns.iter().map(Pattern::as_str));
    writeln!(out, "groups = {}", patterns(&groups.includes))?;
    writeln!(out, "groups-exclude = {}", patterns(&groups.excludes))?;
    let refresh = groups
        .refresh
        .map_or_else(|| "off".to_owned(), duration_text);
    writeln!(out, "refresh-groups = \"{refresh}\"")?;
    writeln!(out, "sync-group-offsets = {}", groups.sync_offsets)?;
    let interval = duration_text(groups.sync_interval);
    writeln!(out, "sync-group-offsets-interval = \"{interval}\"")?;
    writeln!(out, "emit-checkpoints = {}", groups.emit_checkpoints)?;
    let interval = duration_text(groups.checkpoints_interval);
    writeln!(out, "emit-checkpoints-interval = \"{interval}\"")?;
    if let Some(factor) = groups.checkpoints_replication_factor {
        writeln!(out, "checkpoints-replication-factor = {factor}")?;
    }
    Ok(())
}

fn tls_text(tls: &TlsConfig) -> String {
    let named = |path: &Path| quoted(&path.display().to_string());
    let authorities: Vec<String> = tls.ca_files.iter().map(|path| named(path)).collect();
    let mut parts = Vec::new();
    match authorities.as_slice() {
        [] => {}
        [one] => parts.push(format!("ca-file = {one}")),
        several => parts.push(format!("ca-file = [{}]", several.join(", "))),
    }
    for (key, path) in [("cert-file", &tls.cert_file), ("key-file", &tls.key_file)] {
        parts.extend(path.as_ref().map(|path| format!("{key} = {}", named(path))));
    }
    if parts.is_empty() {
        "true".to_owned()
    } else {
        format!("{{ {} }}", parts.join(", "))
    }
}

fn sasl_text(sasl: &SaslConfig) -> String {
    let password = match &sasl.password_from {
        PasswordFrom::File(path) => {
            format!("password-file = {}", quoted(&path.display().to_string()))
        }
        PasswordFrom::Env(name) => format!("password-env = {}", quoted(name)),
        PasswordFrom::Inline => "password-env = \"PASSWORD\"".to_owned(),
    };
    format!(
        "{{ mechanism = \"{}\", username = {}, {password} }}",
        sasl.mechanism.as_str(),
        quoted(&sasl.username)
    )
}

/// A basic TOML string; a literal one where that spares escapes, as patterns like `mm2.*\.internal` do.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains('\\') && !text.contains('\'') && !text.chars().any(char::is_control) {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", items.map(quoted).collect::<Vec<_>>().join(", "))
}
