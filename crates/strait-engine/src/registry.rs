//! The registry: what `mm2-strait.internal` says about this link, folded from its records.

use std::collections::BTreeMap;

use strait_wire::{Record, RegistryError, RegistryRecord};

/// The last lease of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRecord {
    /// The holder's producer id.
    pub producer_id: i64,
    /// The holder's epoch.
    pub epoch: i16,
    /// The holder's instance name.
    pub instance: String,
    /// When it was written, in the holder's wall clock.
    pub wall_ms: i64,
    /// Whether the holder ended by itself.
    pub closed: bool,
}

/// What the registry holds for one link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    /// Source and target cluster ids the link was set up with.
    pub clusters: Option<(String, String)>,
    /// When the link was first started, in milliseconds.
    pub created_ms: Option<i64>,
    /// The last lease of each shard.
    pub leases: BTreeMap<i16, LeaseRecord>,
    /// Every producer id the link ever used, with its shard and highest registered epoch.
    pub producers: BTreeMap<i64, (i16, i16)>,
    /// Whose the producer ids of other links are.
    pub others: BTreeMap<i64, String>,
}

impl Registry {
    /// Takes the next record; of other links only their producer ids, and nothing of unknown kinds.
    ///
    /// # Errors
    /// A record of this link's kind that only a newer version can read.
    pub(crate) fn apply(&mut self, link: &str, record: &Record) -> Result<(), RegistryError> {
        let decoded = match RegistryRecord::from_record(record) {
            Err(RegistryError::UnknownType(_)) => return Ok(()),
            other => other?,
        };
        match decoded {
            RegistryRecord::Link {
                link: l,
                source_cluster,
                target_cluster,
                created_ms,
                ..
            } if l == link => {
                self.created_ms = Some(created_ms);
                self.clusters = Some((source_cluster, target_cluster));
            }
            RegistryRecord::Producer {
                producer_id,
                link: l,
                shard,
                highest_epoch,
                ..
            } if l == link => {
                self.producers.insert(producer_id, (shard, highest_epoch));
            }
            RegistryRecord::Producer {
                producer_id,
                link: other,
                ..
            } => {
                self.others.insert(producer_id, other);
            }
            RegistryRecord::Lease {
                link: l,
                shard,
                producer_id,
                epoch,
                instance,
                wall_ms,
                closed,
            } if l == link => {
                self.leases.insert(
                    shard,
                    LeaseRecord {
                        producer_id,
                        epoch,
                        instance,
                        wall_ms,
                        closed,
                    },
                );
            }
            _ => {}
        }
        Ok(())
    }
}
