//! Kafka's own error codes.

use std::fmt;

use kafka_protocol::error::ResponseError;

use crate::error::Action;

/// An error code as a broker sent it. `Display` reads `NOT_LEADER_OR_FOLLOWER (6)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KafkaError(pub i16);

impl KafkaError {
    /// `UNKNOWN_SERVER_ERROR`: the broker failed in a way it has no code for.
    pub const UNKNOWN_SERVER_ERROR: Self = Self(-1);
    /// `OFFSET_OUT_OF_RANGE`.
    pub const OFFSET_OUT_OF_RANGE: Self = Self(1);
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    pub const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    /// `LEADER_NOT_AVAILABLE`: an election is going on.
    pub const LEADER_NOT_AVAILABLE: Self = Self(5);
    /// `NOT_LEADER_OR_FOLLOWER`: ask the metadata again.
    pub const NOT_LEADER_OR_FOLLOWER: Self = Self(6);
    /// `COORDINATOR_LOAD_IN_PROGRESS`: also InitProducerId for a while after a broker's start.
    pub const COORDINATOR_LOAD_IN_PROGRESS: Self = Self(14);
    /// `COORDINATOR_NOT_AVAILABLE`: also while the coordinator's own topic is being created.
    pub const COORDINATOR_NOT_AVAILABLE: Self = Self(15);
    /// `NOT_COORDINATOR`: look the coordinator up again.
    pub const NOT_COORDINATOR: Self = Self(16);
    /// `UNKNOWN_MEMBER_ID`: to a commit from outside, that the group has members.
    pub const UNKNOWN_MEMBER_ID: Self = Self(25);
    /// `UNSUPPORTED_VERSION`.
    pub const UNSUPPORTED_VERSION: Self = Self(35);
    /// `TOPIC_ALREADY_EXISTS`.
    pub const TOPIC_ALREADY_EXISTS: Self = Self(36);
    /// `NOT_CONTROLLER`: ask the metadata again.
    pub const NOT_CONTROLLER: Self = Self(41);
    /// `CONCURRENT_TRANSACTIONS`: the previous transaction of this id is still being completed.
    pub const CONCURRENT_TRANSACTIONS: Self = Self(51);

    /// Kafka's name of the code, such as `NOT_LEADER_OR_FOLLOWER`; `UNKNOWN_CODE` for one that is
    /// newer than this program.
    pub fn name(self) -> String {
        if self.0 == 0 {
            return "NONE".to_owned();
        }
        match ResponseError::try_from_code(self.0) {
            None | Some(ResponseError::Unknown(_)) => "UNKNOWN_CODE".to_owned(),
            Some(known) => upper_snake(&known.to_string()),
        }
    }

    /// Whether Kafka calls the error retriable. Codes newer than this program are not.
    pub fn retriable(self) -> bool {
        // Retriable in Kafka's own client (`ConcurrentTransactionsException`), not in the table here.
        self == Self::CONCURRENT_TRANSACTIONS
            || ResponseError::try_from_code(self.0).is_some_and(|e| e.is_retriable())
    }

    /// Whether the error says that this broker is the wrong one to ask, or that what we know about
    /// the cluster is out of date (Kafka's `InvalidMetadataException` and the epoch errors).
    pub fn stale_metadata(self) -> bool {
        matches!(
            self.0,
            3 | 5 | 6 | 9 | 13 | 16 | 41 | 56 | 72 | 74 | 75 | 100 | 103
        )
    }

    /// What to do about it: go elsewhere, try again here, or give up and tell the operator.
    pub fn action(self) -> Action {
        match self {
            // The cluster's typed calls have forgotten the coordinator or controller by themselves.
            Self::NOT_COORDINATOR | Self::NOT_CONTROLLER => Action::Retry,
            code if code.stale_metadata() => Action::Reconnect,
            Self::UNKNOWN_SERVER_ERROR => Action::Retry,
            code if code.retriable() => Action::Retry,
            _ => Action::Stop,
        }
    }
}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// `NotLeaderOrFollower` to `NOT_LEADER_OR_FOLLOWER`.
fn upper_snake(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 8);
    for (i, c) in camel.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_kafka_writes_it() {
        let shown: Vec<String> = [0, -1, 6, 45, 51, 90, 100, 3000]
            .map(|c| KafkaError(c).to_string())
            .into();
        assert_eq!(
            shown,
            [
                "NONE (0)",
                "UNKNOWN_SERVER_ERROR (-1)",
                "NOT_LEADER_OR_FOLLOWER (6)",
                "OUT_OF_ORDER_SEQUENCE_NUMBER (45)",
                "CONCURRENT_TRANSACTIONS (51)",
                "PRODUCER_FENCED (90)",
                "UNKNOWN_TOPIC_ID (100)",
                "UNKNOWN_CODE (3000)",
            ]
        );
    }

    #[test]
    fn actions_follow_the_kind_of_error() {
        assert_eq!(KafkaError(6).action(), Action::Reconnect);
        assert_eq!(KafkaError(74).action(), Action::Reconnect);
        assert_eq!(KafkaError(14).action(), Action::Retry);
        assert_eq!(KafkaError(16).action(), Action::Retry);
        assert_eq!(KafkaError(51).action(), Action::Retry);
        assert_eq!(KafkaError(29).action(), Action::Stop);
        assert_eq!(KafkaError(90).action(), Action::Stop);
        assert_eq!(KafkaError(3000).action(), Action::Stop);
    }
}
