//! Users and quotas by their names; never a secret.

use std::collections::BTreeSet;

use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeUserScramCredentialsRequest};

use crate::call::Call;
use crate::cluster::Cluster;
use crate::coordinator::refusal;
use crate::error::NetError;

impl Cluster {
    /// The users that can log in by SCRAM, each with a mechanism: `alice (SCRAM-SHA-512)`.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with CLUSTER_AUTHORIZATION_FAILED (31) without Describe on the cluster;
    /// [`NetError::Unsupported`] before Kafka 2.7.
    pub async fn scram_users(&self) -> Result<BTreeSet<String>, NetError> {
        // None stands for all as well, but then a broker that has to refuse fails at its own answer and gives none.
        let request = DescribeUserScramCredentialsRequest::default().with_users(Some(Vec::new()));
        let (_, answer) = self.ask_any(request).await?;
        refusal(
            answer.error_code,
            DescribeUserScramCredentialsRequest::NAME,
            || format!("cluster '{}'", self.alias()),
            answer.error_message,
        )?;
        let users = answer.results.into_iter().filter(|r| r.error_code == 0);
        Ok(users
            .flat_map(|user| {
                let name = user.user.to_string();
                user.credential_infos.into_iter().map(move |info| {
                    let mechanism = match info.mechanism {
                        1 => "SCRAM-SHA-256",
                        2 => "SCRAM-SHA-512",
                        _ => "another mechanism",
                    };
                    format!("{name} ({mechanism})")
                })
            })
            .collect())
    }

    /// The client quotas, each by whom it is for and its name: `user alice: producer_byte_rate`.
    ///
    /// # Errors
    /// [`NetError::Kafka`] with CLUSTER_AUTHORIZATION_FAILED (31) without DescribeConfigs on the cluster;
    /// [`NetError::Unsupported`] before Kafka 2.6.
    pub async fn client_quotas(&self) -> Result<BTreeSet<String>, NetError> {
        let request = DescribeClientQuotasRequest::default();
        let (_, answer) = self.ask_any(request).await?;
        refusal(
            answer.error_code,
            DescribeClientQuotasRequest::NAME,
            || format!("cluster '{}'", self.alias()),
            answer.error_message,
        )?;
        let entries = answer.entries.unwrap_or_default();
        Ok(entries
            .into_iter()
            .flat_map(|entry| {
                let mut whom: Vec<String> = entry
                    .entity
                    .iter()
                    .map(|part| {
                        let name = part
                            .entity_name
                            .as_ref()
                            .map_or("(default)", |n| n.as_str());
                        format!("{} {name}", part.entity_type.as_str())
                    })
                    .collect();
                whom.sort();
                let whom = whom.join(", ");
                let names = entry.values.into_iter();
                names.map(move |value| format!("{whom}: {}", value.key.as_str()))
            })
            .collect())
    }
}
