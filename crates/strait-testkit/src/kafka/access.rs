//! What clients may do, and how fast.

use super::error::HarnessError;
use super::oracle::Oracle;
use serde_json::{Value, json};

/// Operations that a user is allowed, in Kafka's capital letters: `READ`, `DESCRIBE_CONFIGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right<'a> {
    /// The kind of resource: `TOPIC`, `TRANSACTIONAL_ID`, `CLUSTER`.
    pub kind: &'a str,
    /// The resource's name, or the beginning of its name.
    pub name: &'a str,
    /// Whether all resources are meant whose names begin with `name`.
    pub prefixed: bool,
    /// The operations.
    pub operations: &'a [&'a str],
}

/// Quotas and rights. Brokers learn of them a moment after these calls.
impl Oracle {
    /// Sets quotas of a client id, for example `producer_byte_rate`; none takes one away.
    pub fn set_quotas(
        &self,
        bootstrap: &str,
        client: &str,
        quotas: &[(&str, Option<f64>)],
    ) -> Result<(), HarnessError> {
        let set: serde_json::Map<String, Value> = quotas
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        self.tell(
            "quota",
            json!({"bootstrap": bootstrap, "client": client, "set": set}),
        )
    }

    /// Gives a user this right.
    pub fn allow(&self, bootstrap: &str, user: &str, right: Right<'_>) -> Result<(), HarnessError> {
        self.tell("allow", acl(bootstrap, user, right))
    }

    /// Takes a right away that [`allow`](Self::allow) gave, or some of its operations.
    pub fn revoke(
        &self,
        bootstrap: &str,
        user: &str,
        right: Right<'_>,
    ) -> Result<(), HarnessError> {
        self.tell("revoke", acl(bootstrap, user, right))
    }
}

fn acl(bootstrap: &str, user: &str, right: Right<'_>) -> Value {
    json!({"bootstrap": bootstrap, "user": user, "type": right.kind, "name": right.name,
           "prefixed": right.prefixed, "operations": right.operations})
}
