//! Whether each link does its work.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a link is doing, as far as an operator cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Connecting, taking over, finding its positions.
    Starting,
    /// Copying, or waiting for records to copy.
    Mirroring,
    /// Copying, but not everything: what stands still, and why, in one sentence.
    Impaired(String),
    /// Not copying, with the reason in one sentence.
    Failed(String),
    /// Ended on request.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Mirroring => f.write_str("mirroring"),
            Self::Impaired(why) => write!(f, "mirroring in part: {}", one_line(why)),
            Self::Failed(why) => write!(f, "failed: {}", one_line(why)),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// One line per link, whatever a broker put into the reason.
fn one_line(why: &str) -> String {
    why.replace(['\n', '\r'], " ")
}

/// The states of all links, shared between those who work and those who ask. Clones share one table.
#[derive(Clone, Debug, Default)]
pub struct Health {
    links: Arc<Mutex<BTreeMap<String, State>>>,
    notes: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Health {
    /// No links yet. Set every link to [`State::Starting`] before serving, or one that never starts goes unnoticed.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a link is doing now. Cheap; call it at every change.
    pub fn set(&self, link: &str, state: State) {
        self.table().insert(link.to_owned(), state);
    }

    /// What else the page shall say about a link, in one line, until it is told something else.
    pub fn note(&self, link: &str, note: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => notes.insert(link.to_owned(), note),
            None => notes.remove(link),
        };
    }

    fn notes(&self) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = notes.iter().map(|(l, n)| format!("{l}: {}\n", one_line(n)));
        lines.collect()
    }

    /// All links and what they are doing, by name.
    pub fn states(&self) -> Vec<(String, State)> {
        self.table()
            .iter()
            .map(|(link, state)| (link.clone(), state.clone()))
            .collect()
    }

    /// Ready, with one short line and one for each link of which a part stands still; or not, with one line for each
    /// link that is not mirroring. The notes follow.
    pub fn readiness(&self) -> Result<String, String> {
        let table = self.table();
        if table.is_empty() {
            return Err("no link has been started yet\n".to_owned());
        }
        let waiting: String = table
            .iter()
            .filter(|(_, state)| !matches!(state, State::Mirroring | State::Impaired(_)))
            .map(|(link, state)| format!("{link}: {state}\n"))
            .collect();
        if !waiting.is_empty() {
            return Err(waiting + &self.notes());
        }
        let links = if table.len() == 1 { "link" } else { "links" };
        let impaired: String = table
            .iter()
            .filter(|(_, state)| **state != State::Mirroring)
            .map(|(link, state)| format!("{link}: {state}\n"))
            .collect();
        let notes = self.notes();
        Ok(format!(
            "{} {links} mirroring\n{impaired}{notes}",
            table.len()
        ))
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // A panic elsewhere leaves a whole table behind: inserts do not stop half-way.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, State};

    #[test]
    fn ready_means_every_link_mirrors() {
        let health = Health::new();
        assert_eq!(
            health.readiness(),
            Err("no link has been started yet\n".to_owned())
        );
        health.set("a->b", State::Starting);
        health.clone().set("b->a", State::Mirroring);
        assert_eq!(health.readiness(), Err("a->b: starting\n".to_owned()));
        health.set("a->b", State::Failed("no broker\nanswers".to_owned()));
        assert_eq!(
            health.readiness(),
            Err("a->b: failed: no broker answers\n".to_owned())
        );
        health.set("a->b", State::Mirroring);
        assert_eq!(health.readiness(), Ok("2 links mirroring\n".to_owned()));
        health.set(
            "b->a",
            State::Impaired("1 of 3 flows\nstands still".to_owned()),
        );
        assert_eq!(
            health.readiness(),
            Ok(
                "2 links mirroring\nb->a: mirroring in part: 1 of 3 flows stands still\n"
                    .to_owned()
            )
        );
        health.note("a->b", Some("topics as selected on the target".to_owned()));
        let noted = health.readiness().unwrap();
        assert!(
            noted.ends_with("stands still\na->b: topics as selected on the target\n"),
            "{noted}"
        );
        health.note("a->b", None);
        health.set("b->a", State::Stopped);
        assert_eq!(health.readiness(), Err("b->a: stopped\n".to_owned()));
    }
}
