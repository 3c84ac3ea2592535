//! Reading TOML tables key by key, so that every complaint has its line, its key and its value.

use std::fmt::Display;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::Problem;
use crate::nearest::nearest;

/// Longest piece of a file that is repeated in a complaint.
const SHOWN_VALUE: usize = 60;

/// The text being read, and everything found wrong in it so far.
pub(crate) struct Reader<'t> {
    text: &'t str,
    pub(crate) problems: Vec<Problem>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            text,
            problems: Vec::new(),
        }
    }

    /// The line of a byte, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text
            .bytes()
            .take(at)
            .filter(|byte| *byte == b'\n')
            .count()
            + 1
    }

    fn written(&self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.text.get(value.span())?.trim();
        let first = text.lines().next()?;
        if first.len() == text.len() && first.chars().count() <= SHOWN_VALUE {
            return Some(first.to_owned());
        }
        Some(first.chars().take(SHOWN_VALUE).chain(['…']).collect())
    }
}

/// One table of the file; its keys are checked against the known ones as it is opened.
pub(crate) struct Table<'a, 'i> {
    entries: &'a DeTable<'i>,
    /// `links[0].`, or nothing at the top.
    prefix: String,
    /// Where the table begins, for what is missing in it.
    pub(crate) line: Option<usize>,
}

impl<'a, 'i> Table<'a, 'i> {
    pub(crate) fn open(
        reader: &mut Reader<'_>,
        path: &str,
        line: Option<usize>,
        entries: &'a DeTable<'i>,
        known: &[&'static str],
    ) -> Self {
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}.")
        };
        for name in entries.keys() {
            let word = name.get_ref().as_ref();
            if !known.contains(&word) {
                let instead = match nearest(word, known.iter().copied()) {
                    Some(meant) => format!("Did you mean `{meant}`?"),
                    None => format!("Known here: {}", known.join(", ")),
                };
                let line = Some(reader.line(name.span().start));
                reader.problems.push(Problem::at(
                    line,
                    format!("{prefix}{word}"),
                    "there is no such key",
                    instead,
                ));
            }
        }
        Self {
            entries,
            prefix,
            line,
        }
    }

    /// A table whose keys are names of the user's choice.
    pub(crate) fn open_any(path: &str, line: Option<usize>, entries: &'a DeTable<'i>) -> Self {
        Self {
            entries,
            prefix: format!("{path}."),
            line,
        }
    }

    pub(crate) fn field(&self, reader: &Reader<'_>, key: &str) -> Option<Field<'a, 'i>> {
        let value = self.entries.get(key)?;
        Some(Field {
            value,
            key: self.path(key),
            line: reader.line(value.span().start),
            shown: reader.written(value),
        })
    }

    pub(crate) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Says that a key that must be there is not.
    pub(crate) fn missing(&self, reader: &mut Reader<'_>, key: &str, instead: impl Into<String>) {
        reader.problems.push(Problem::at(
            self.line,
            self.path(key),
            "it is missing",
            instead,
        ));
    }
}

/// One value of the file.
pub(crate) struct Field<'a, 'i> {
    pub(crate) value: &'a Spanned<DeValue<'i>>,
    pub(crate) key: String,
    pub(crate) line: usize,
    shown: Option<String>,
}

impl<'a, 'i> Field<'a, 'i> {
    /// A field for an element of this array, `links[0]`.
    pub(crate) fn element(
        &self,
        reader: &Reader<'_>,
        index: usize,
        value: &'a Spanned<DeValue<'i>>,
    ) -> Self {
        let line = reader.line(value.span().start);
        Self {
            value,
            key: format!("{}[{index}]", self.key),
            line,
            shown: reader.written(value),
        }
    }

    /// Takes the value out of complaints.
    pub(crate) fn secret(mut self) -> Self {
        self.shown = None;
        self
    }

    pub(crate) fn problem(&self, why: impl Into<String>, instead: impl Into<String>) -> Problem {
        let problem = Problem::at(Some(self.line), self.key.clone(), why, instead);
        match &self.shown {
            Some(shown) => problem.with_value(shown.clone()),
            None => problem,
        }
    }

    fn refuse<T>(&self, reader: &mut Reader<'_>, wanted: &str, instead: impl Display) -> Option<T> {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        reader.problems.push(self.problem(
            format!("this is {found}, not {wanted}"),
            format!("Write {instead}"),
        ));
        None
    }

    pub(crate) fn string(&self, reader: &mut Reader<'_>, example: &str) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => self.refuse(reader, "a string", example),
        }
    }

    pub(crate) fn bool(&self, reader: &mut Reader<'_>) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.refuse(reader, "true or false", "true or false, without quotes"),
        }
    }

    pub(crate) fn integer(&self, reader: &mut Reader<'_>, example: &str) -> Option<i64> {
        match self.value.get_ref() {
            DeValue::Integer(digits) => {
                match i64::from_str_radix(digits.as_str(), digits.radix()) {
                    Ok(value) => Some(value),
                    Err(_) => self.refuse(reader, "a number of a sensible size", example),
                }
            }
            _ => self.refuse(reader, "a whole number", example),
        }
    }

    pub(crate) fn table(&self, reader: &mut Reader<'_>, example: &str) -> Option<&'a DeTable<'i>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => self.refuse(reader, "a table", example),
        }
    }

    pub(crate) fn array(
        &self,
        reader: &mut Reader<'_>,
        example: &str,
    ) -> Option<&'a [Spanned<DeValue<'i>>]> {
        match self.value.get_ref() {
            DeValue::Array(array) => Some(array),
            _ => self.refuse(reader, "a list", example),
        }
    }

    /// One string, or a list of strings, each with the field to blame for it.
    pub(crate) fn strings(
        &self,
        reader: &mut Reader<'_>,
        example: &str,
    ) -> Option<Vec<(Self, &'a str)>> {
        match self.value.get_ref() {
            DeValue::String(text) => {
                let itself = Self {
                    value: self.value,
                    key: self.key.clone(),
                    line: self.line,
                    shown: self.shown.clone(),
                };
                Some(vec![(itself, text.as_ref())])
            }
            DeValue::Array(array) => {
                let mut all = Vec::new();
                for (index, value) in array.iter().enumerate() {
                    let element = self.element(reader, index, value);
                    let text = element.string(reader, example)?;
                    all.push((element, text));
                }
                Some(all)
            }
            _ => self.refuse(reader, "a string or a list of strings", example),
        }
    }
}
