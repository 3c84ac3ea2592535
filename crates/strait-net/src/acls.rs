//! ACLs of topics.

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::{CreateAclsRequest, DescribeAclsRequest};

use crate::call::Call;
use crate::cluster::Cluster;
use crate::coordinator::refusal;
use crate::error::NetError;
use crate::metadata::text;

/// Kafka's numbers (`ResourceType`, `PatternType`, `AclOperation`, `AclPermissionType`).
const TOPIC: i8 = 2;
const LITERAL: i8 = 3;
const ANY: i8 = 1;

/// ACLs created in one request: keeps it far below a broker's limit.
const ACLS_PER_CREATE: usize = 1_000;

/// One ACL of one topic, by its literal name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicAcl {
    /// The topic; `*` stands for all.
    pub topic: String,
    /// Whom it is about: `User:alice`.
    pub principal: String,
    /// From where: a host, or `*`.
    pub host: String,
    /// What: one of the constants of this type, or another of Kafka's numbers.
    pub operation: i8,
    /// [`TopicAcl::ALLOW`] or [`TopicAcl::DENY`].
    pub permission: i8,
}

impl TopicAcl {
    /// Every operation.
    pub const ALL: i8 = 2;
    /// Read.
    pub const READ: i8 = 3;
    /// Write.
    pub const WRITE: i8 = 4;
    /// Forbidden.
    pub const DENY: i8 = 2;
    /// Allowed.
    pub const ALLOW: i8 = 3;

    /// The operation in Kafka's words: `Read`.
    pub fn operation_name(&self) -> &'static str {
        match self.operation {
            Self::ALL => "All",
            Self::READ => "Read",
            Self::WRITE => "Write",
            5 => "Create",
            6 => "Delete",
            7 => "Alter",
            8 => "Describe",
            10 => "DescribeConfigs",
            11 => "AlterConfigs",
            _ => "another operation",
        }
    }
}

impl Cluster {
    /// Every ACL of a topic by its literal name.
    ///
    /// # Errors
    /// [`NetError::Kafka`]: SECURITY_DISABLED (54) where the cluster checks no ACLs, CLUSTER_AUTHORIZATION_FAILED (31)
    /// without Describe on the cluster.
    pub async fn topic_acls(&self) -> Result<Vec<TopicAcl>, NetError> {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(TOPIC)
            .with_resource_name_filter(None)
            .with_pattern_type_filter(LITERAL)
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(ANY)
            .with_permission_type(ANY);
        let (_, answer) = self.ask_any(request).await?;
        refusal(
            answer.error_code,
            DescribeAclsRequest::NAME,
            || format!("topics of cluster '{}'", self.alias()),
            answer.error_message,
        )?;
        let of_topics = answer
            .resources
            .into_iter()
            .filter(|r| r.resource_type == TOPIC && r.pattern_type == LITERAL);
        Ok(of_topics
            .flat_map(|resource| {
                let topic = resource.resource_name.to_string();
                resource.acls.into_iter().map(move |acl| TopicAcl {
                    topic: topic.clone(),
                    principal: acl.principal.to_string(),
                    host: acl.host.to_string(),
                    operation: acl.operation,
                    permission: acl.permission_type,
                })
            })
            .collect())
    }

    /// Creates ACLs of topics by their literal names; one that is there already stays. Answers with what was refused.
    ///
    /// # Errors
    /// The usual ones of a connection.
    pub async fn create_topic_acls(
        &self,
        acls: &[TopicAcl],
    ) -> Result<Vec<(TopicAcl, NetError)>, NetError> {
        let mut refused = Vec::new();
        for chunk in acls.chunks(ACLS_PER_CREATE) {
            let creations = chunk.iter().map(|acl| {
                AclCreation::default()
                    .with_resource_type(TOPIC)
                    .with_resource_name(text(&acl.topic))
                    .with_resource_pattern_type(LITERAL)
                    .with_principal(text(&acl.principal))
                    .with_host(text(&acl.host))
                    .with_operation(acl.operation)
                    .with_permission_type(acl.permission)
            });
            let request = CreateAclsRequest::default().with_creations(creations.collect());
            let (_, answer) = self
                .ask_controller(request, |r| r.results.first().map_or(0, |r| r.error_code))
                .await?;
            for (acl, result) in chunk.iter().zip(answer.results) {
                let created = refusal(
                    result.error_code,
                    CreateAclsRequest::NAME,
                    || format!("topic '{}' of cluster '{}'", acl.topic, self.alias()),
                    result.error_message,
                );
                if let Err(error) = created {
                    refused.push((acl.clone(), error));
                }
            }
        }
        Ok(refused)
    }
}
