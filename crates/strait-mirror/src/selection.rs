//! The selection of topics that is stored on the target, in Strait's registry there, and wins over the file's.

pub(crate) mod active_topics;
pub(crate) mod in_force;

use std::collections::BTreeMap;
use std::time::Duration;

use strait_config::{LinkConfig, Pattern, TopicSelection, read_includes};
use strait_engine::{RegistryLog, RegistryNews, SessionError, limits};
use strait_net::{Cluster, Runtime};
use strait_wire::{Record, RegistryRecord, SELECTION_RESET};
use thiserror::Error;

/// How often the registry is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// A selection that was set at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSelection {
    /// The patterns, as they were written; none selects nothing.
    pub includes: Vec<String>,
    /// When it was set, in milliseconds since 1970-01-01 UTC.
    pub since_ms: i64,
}

impl StoredSelection {
    /// When it was set, as RFC 3339 has it.
    pub fn since(&self) -> String {
        jiff::Timestamp::from_millisecond(self.since_ms)
            .map_or_else(|_| self.since_ms.to_string(), |at| format!("{at:.0}"))
    }
}

/// Why a stored selection cannot be read, or not be written.
#[derive(Debug, Error)]
pub enum SelectionError {
    /// The registry cannot be read or written.
    #[error(transparent)]
    Registry(#[from] SessionError),
    /// The record is there, and this version cannot read it.
    #[error(
        "the selection of link {link} on cluster {cluster} cannot be read: {why}; set it anew, or reset it"
    )]
    Unreadable {
        /// The link.
        link: String,
        /// The target's alias.
        cluster: String,
        /// Why.
        why: String,
    },
}

impl SelectionError {
    /// The name under which this kind of failure stands in logs and the book; it never changes.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Registry(error) => error.id(),
            Self::Unreadable { .. } => "selection-unreadable",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LeaseSeen {
    wall_ms: i64,
    epoch: i16,
    closed: bool,
}

/// What the registry of one target says about the links that write there.
#[derive(Debug, Default)]
struct Fold {
    selections: BTreeMap<String, Result<StoredSelection, String>>,
    leases: BTreeMap<String, LeaseSeen>,
}

impl Fold {
    fn take(&mut self, news: RegistryNews<'_>) {
        match news {
            RegistryNews::Anew => *self = Self::default(),
            RegistryNews::Record(record) => self.record(record),
        }
    }

    fn record(&mut self, record: &Record) {
        match RegistryRecord::from_record(record) {
            Ok(RegistryRecord::Selection {
                link,
                includes,
                wall_ms: SELECTION_RESET,
            }) if includes.is_empty() => {
                self.selections.remove(&link);
            }
            Ok(RegistryRecord::Selection {
                link,
                includes,
                wall_ms,
            }) => {
                let selection = StoredSelection {
                    includes,
                    since_ms: wall_ms,
                };
                self.selections.insert(link, Ok(selection));
            }
            Ok(RegistryRecord::Lease {
                link,
                wall_ms,
                epoch,
                closed,
                ..
            }) => {
                let seen = LeaseSeen {
                    wall_ms,
                    epoch,
                    closed,
                };
                self.leases.insert(link, seen);
            }
            Ok(_) => {}
            // What is no selection is the sessions' to judge.
            Err(error) => {
                if let Some(link) = RegistryRecord::selection_of(record) {
                    self.selections.insert(link, Err(error.to_string()));
                }
            }
        }
    }
}

/// The stored selections of the links that write to one target. Needs Describe and Read on `mm2-strait.internal` there;
/// to change them, Write. No link has to run.
pub struct StoredSelections {
    rt: Runtime,
    cluster: String,
    log: RegistryLog,
    fold: Fold,
}

impl StoredSelections {
    /// Those on this target, not read yet.
    pub fn new(rt: Runtime, target: Cluster) -> Self {
        Self {
            rt: rt.clone(),
            cluster: target.alias().to_owned(),
            log: RegistryLog::new(rt, target),
            fold: Fold::default(),
        }
    }

    /// Reads all that was stored before this call.
    ///
    /// # Errors
    /// The target cannot be reached, or its registry cannot be read.
    pub async fn refresh(&mut self) -> Result<(), SelectionError> {
        let fold = &mut self.fold;
        Ok(self.log.read_to_end(|news| fold.take(news)).await?)
    }

    /// Whether there is a registry, and it was read.
    pub(crate) fn known(&self) -> bool {
        self.log.was_read()
    }

    /// Reads what was stored since, at the price of one request; what was stored a moment ago may be missing yet.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(crate) async fn poll(&mut self) -> Result<(), SelectionError> {
        let fold = &mut self.fold;
        Ok(self.log.poll(|news| fold.take(news)).await?)
    }

    /// The selection of this link as it was read last; nothing where the configuration file holds.
    ///
    /// # Errors
    /// The record cannot be read by this version.
    pub fn get(&self, link: &str) -> Result<Option<&StoredSelection>, SelectionError> {
        match self.fold.selections.get(link) {
            None => Ok(None),
            Some(Ok(selection)) => Ok(Some(selection)),
            Some(Err(why)) => Err(self.unreadable(link, why.clone())),
        }
    }

    /// The topics that this link shall mirror: those stored, else the file's, less the file's excludes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn topics(&self, link: &LinkConfig) -> Result<TopicSelection, SelectionError> {
        let Some(stored) = self.get(&link.name)? else {
            return Ok(link.topics.clone());
        };
        let includes = read_includes(&stored.includes);
        let includes = includes.map_err(|why| self.unreadable(&link.name, why))?;
        Ok(link.topics.with_includes(includes))
    }

    fn unreadable(&self, link: &str, why: String) -> SelectionError {
        SelectionError::Unreadable {
            link: link.to_owned(),
            cluster: self.cluster.clone(),
            why,
        }
    }

    /// Stores a selection of this link, or with `None` that its configuration file holds again, and reads back what
    /// then stands there. Returns once all in-sync replicas have it.
    ///
    /// # Errors
    /// The target cannot be reached, or refuses it. Where it did not answer it may have been stored all the same.
    pub async fn store(
        &mut self,
        link: &LinkConfig,
        includes: Option<&[Pattern]>,
    ) -> Result<(), SelectionError> {
        let texts = includes.unwrap_or_default().iter();
        let record = RegistryRecord::Selection {
            link: link.name.clone(),
            includes: texts.map(|p| p.as_str().to_owned()).collect(),
            wall_ms: match includes {
                Some(_) => self.rt.wall_ms(),
                None => SELECTION_RESET,
            },
        };
        let replication = link.internal_replication_factor;
        self.log.append(&link.name, replication, &record).await?;
        self.refresh().await
    }

    /// Whether some process runs the link: its lease is open and is renewed. Takes [`limits::LEASE_VALIDITY`] where it is open and
    /// is not renewed.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub async fn runs(&mut self, link: &str) -> Result<bool, SelectionError> {
        self.refresh().await?;
        let Some(seen) = self.fold.leases.get(link).copied() else {
            return Ok(false);
        };
        // Whoever has not renewed it for so long writes nothing any more.
        let until = self.rt.now() + limits::LEASE_VALIDITY;
        let mut now = Some(seen);
        while now == Some(seen) && !seen.closed {
            if self.rt.now() >= until {
                return Ok(false);
            }
            self.rt.sleep(LOOK).await;
            self.poll().await?;
            now = self.fold.leases.get(link).copied();
        }
        Ok(now.is_some_and(|lease| !lease.closed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(link: &str, includes: &[&str], wall_ms: i64) -> Record {
        let record = RegistryRecord::Selection {
            link: link.to_owned(),
            includes: includes.iter().map(|p| (*p).to_owned()).collect(),
            wall_ms,
        };
        record.to_record(5)
    }

    #[test]
    fn none_is_a_selection_and_a_reset_is_not() {
        let mut fold = Fold::default();
        let mut after = |record: &Record| {
            fold.take(RegistryNews::Record(record));
            fold.selections.get("l").cloned()
        };
        let stored = |includes: &[&str], since_ms| {
            Some(Ok(StoredSelection {
                includes: includes.iter().map(|p| (*p).to_owned()).collect(),
                since_ms,
            }))
        };
        assert_eq!(after(&set("other", &["x"], 1)), None);
        assert_eq!(after(&set("l", &["a", "b"], 1)), stored(&["a", "b"], 1));
        assert_eq!(after(&set("l", &[], 2)), stored(&[], 2));
        assert_eq!(after(&set("l", &[], SELECTION_RESET)), None);
        assert_eq!(after(&set("l", &["a"], 3)), stored(&["a"], 3));
    }

    #[test]
    fn a_selection_of_a_newer_version_is_no_selection_of_the_file() {
        let mut fold = Fold::default();
        let mut newer = set("l", &["a"], 1);
        newer.value = Some(vec![2_u8, 0, 0].into());
        fold.take(RegistryNews::Record(&newer));
        let said = fold.selections.get("l").unwrap().as_ref().unwrap_err();
        assert!(said.contains("newer Strait"), "{said}");
        fold.take(RegistryNews::Record(&set("l", &[], SELECTION_RESET)));
        assert!(fold.selections.is_empty());
        fold.take(RegistryNews::Record(&set("l", &["b"], 1)));
        fold.take(RegistryNews::Anew);
        assert!(fold.selections.is_empty());
    }
}
