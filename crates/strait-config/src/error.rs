//! What is wrong with a configuration, said so that a person can mend it.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong: where, which key, which value, why, and what to write instead.
///
/// Values of secret keys are never put in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1, where one is known.
    pub line: Option<usize>,
    /// The key as the file spells it, with its table: `links[0].topics`; empty for the file as a whole.
    pub key: String,
    /// The value as written, where it helps and is no secret.
    pub value: Option<String>,
    /// Why it cannot stand.
    pub why: String,
    /// What to write instead.
    pub instead: String,
}

impl Problem {
    /// A problem with the file as a whole.
    pub(crate) fn whole(why: impl Into<String>, instead: impl Into<String>) -> Self {
        Self::at(None, "", why, instead)
    }

    /// A problem with one key.
    pub(crate) fn at(
        line: Option<usize>,
        key: impl Into<String>,
        why: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        Self {
            line,
            key: key.into(),
            value: None,
            why: why.into(),
            instead: instead.into(),
        }
    }

    /// Adds the value as written.
    pub(crate) fn with_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// `file:line: key = value: why. what to write instead.`, on one line.
    fn line_for(&self, file: &Path) -> String {
        let mut text = file.display().to_string();
        if let Some(line) = self.line {
            text += &format!(":{line}");
        }
        if !self.key.is_empty() {
            text += &format!(": {}", self.key);
            if let Some(value) = &self.value {
                text += &format!(" = {value}");
            }
        }
        text += &format!(": {}.", self.why);
        if !self.instead.is_empty() {
            text += &format!(" {}", self.instead);
            if !self.instead.ends_with('?') {
                text.push('.');
            }
        }
        text
    }
}

/// A configuration that cannot be used, with everything found wrong in it.
///
/// `Display` is meant for a person at a terminal: one line per problem, in the order of the file, each as
/// `file:line: key = value: why. what to write instead.`
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file as it was named by the caller.
    pub file: PathBuf,
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// One line per problem, as `Display` has them.
    pub fn lines(&self) -> Vec<String> {
        self.problems
            .iter()
            .map(|problem| problem.line_for(&self.file))
            .collect()
    }

    pub(crate) fn new(file: &Path, mut problems: Vec<Problem>) -> Self {
        // Stable: problems without a line keep their place behind those that have one.
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Self {
            file: file.to_owned(),
            problems,
        }
    }

    pub(crate) fn one(file: &Path, problem: Problem) -> Self {
        Self {
            file: file.to_owned(),
            problems: vec![problem],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}
