//! A MirrorMaker 2 properties file as keys with their place: global, of a cluster, or of a flow.

use std::collections::HashMap;

use java_properties::{LineContent, PropertiesIter};

use crate::error::Problem;

/// One `key = value` of the file. Blanks around the value are gone, as Kafka's ConfigDef takes them off.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) value: String,
    /// How it stands in the file, where a config provider gave the value: it may be a password.
    pub(crate) written: Option<String>,
}

impl Entry {
    /// The value as it may be shown.
    pub(crate) fn shown(&self) -> &str {
        self.written.as_ref().unwrap_or(&self.value)
    }
}

/// All entries in the order of the file. A key given twice counts as its last line, as in Java.
#[derive(Debug, Default)]
pub(crate) struct Properties {
    pub(crate) entries: Vec<Entry>,
}

impl Properties {
    /// Reads the bytes as `java.util.Properties` does: ISO 8859-1 with `\u` escapes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut last_lines = HashMap::new();
        for line in PropertiesIter::new(bytes) {
            let line = line.map_err(|error| {
                let said = error.to_string();
                // The line is told in its own place.
                let said = said.split(" (line_number").next().unwrap_or_default();
                let why = format!(
                    "this is not a properties file: {}",
                    said.trim_end_matches('.')
                );
                Problem::at(error.line_number(), "", why, "Mend this line")
            })?;
            let number = line.line_number();
            if let LineContent::KVPair(key, value) = line.consume_content() {
                last_lines.insert(key.clone(), number);
                entries.push(Entry {
                    line: number,
                    key,
                    value: value.trim().to_owned(),
                    written: None,
                });
            }
        }
        entries.retain(|entry| last_lines.get(&entry.key) == Some(&entry.line));
        Ok(Self { entries })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// What a key is about, by its prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Global,
    Cluster(String),
    Flow(String, String),
    /// `A->X.` where one of the two is not in `clusters`.
    UnknownFlow(String),
}

/// Splits a key into its scope and the rest. Aliases may have dots, so the longest one that fits counts.
pub(crate) fn split_scope<'k>(key: &'k str, aliases: &[String]) -> (Scope, &'k str) {
    let longest = |text: &'k str| {
        let fits = aliases.iter().filter_map(|alias| {
            let rest = text.strip_prefix(alias.as_str())?.strip_prefix('.')?;
            Some((alias, rest))
        });
        fits.max_by_key(|(alias, _)| alias.len())
    };
    if let Some((source, after)) = key.split_once("->") {
        return match longest(after) {
            Some((target, rest)) if aliases.iter().any(|alias| alias == source) => {
                (Scope::Flow(source.to_owned(), target.clone()), rest)
            }
            _ => {
                let flow = key.strip_suffix(".enabled").unwrap_or(key);
                (Scope::UnknownFlow(flow.to_owned()), after)
            }
        };
    }
    match longest(key) {
        Some((alias, rest)) => (Scope::Cluster(alias.clone()), rest),
        None => (Scope::Global, key),
    }
}

#[cfg(test)]
mod tests {
    use super::{Properties, Scope, split_scope};

    #[test]
    fn files_are_read_as_java_reads_them() {
        let text = "# comment\nclusters: a, b \n a.x=1\\\n  2\nb\\ c = \\u0041\na.x = 3\n";
        let properties = Properties::parse(text.as_bytes()).unwrap();
        let all: Vec<_> = properties
            .entries
            .iter()
            .map(|e| (e.line, e.key.as_str(), e.value.as_str()))
            .collect();
        assert_eq!(
            all,
            [(2, "clusters", "a, b"), (5, "b c", "A"), (6, "a.x", "3")]
        );
    }

    #[test]
    fn hostile_files_are_refused_or_read_but_never_fatal() {
        for text in [
            "\\",
            "\\u",
            "\\uZZZZ",
            "=",
            ":",
            "\u{0}",
            "a\\",
            "\r\r\r",
            "a=\\\n\\\n\\",
        ] {
            let _ = Properties::parse(text.as_bytes());
        }
        let said = Properties::parse(b"a = 1\nb = \\uZZZZ\n").unwrap_err();
        assert_eq!(said.line, Some(2));
    }

    #[test]
    fn the_longest_alias_is_the_scope() {
        let aliases = ["us".to_owned(), "us.west".to_owned(), "eu".to_owned()];
        let split = |key| split_scope(key, &aliases);
        assert_eq!(split("topics"), (Scope::Global, "topics"));
        assert_eq!(
            split("us.west.x.y"),
            (Scope::Cluster("us.west".into()), "x.y")
        );
        assert_eq!(split("us.x"), (Scope::Cluster("us".into()), "x"));
        let flow = Scope::Flow("eu".into(), "us.west".into());
        assert_eq!(split("eu->us.west.enabled"), (flow, "enabled"));
        assert_eq!(
            split("eu->xx.enabled").0,
            Scope::UnknownFlow("eu->xx".into())
        );
    }
}
