//! What a broker's answer to a produced batch means.

use strait_net::KafkaError;

/// What a produce answer means for the batch it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Appended at this base offset.
    Appended(i64),
    /// Certainly not appended; the same bytes may be sent again later.
    NotAppended(KafkaError),
    /// Certainly not appended, and it will not be until somebody changes something.
    Refused(Box<Refusal>),
    /// The sequence does not follow: something before it is missing, or the broker forgot us.
    OutOfOrder,
    /// Another session owns this partition.
    Fenced(KafkaError),
    /// May or may not have been appended.
    Doubt(String),
}

impl Answer {
    /// Classifies a partition's answer. The codes that can follow an append are doubts
    /// (`ReplicaManager.appendRecords`, `Partition.appendRecordsToLeader`).
    pub fn classify(
        code: i16,
        base_offset: i64,
        message: Option<String>,
        records: Vec<i32>,
    ) -> Self {
        match code {
            0 => Self::Appended(base_offset),
            19 => Self::NotAppended(KafkaError(code)),
            2 | 10 | 18 | 29 | 32 | 42 | 43 | 44 | 53 | 76 | 87 => {
                Self::Refused(Box::new(Refusal {
                    error: KafkaError(code),
                    message,
                    records,
                }))
            }
            45 => Self::OutOfOrder,
            47 | 90 => Self::Fenced(KafkaError(code)),
            _ => Self::Doubt(KafkaError(code).to_string()),
        }
    }
}

/// Why a batch was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The broker's reason.
    pub error: KafkaError,
    /// The broker's words, where it sent any.
    pub message: Option<String>,
    /// The records that are to blame, by their place in the batch, where the broker names them.
    pub records: Vec<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_follow_an_append_are_doubts() {
        for (code, expected) in [
            (0, "Appended"),
            (19, "NotAppended"),
            (10, "Refused"),
            (87, "Refused"),
            (45, "OutOfOrder"),
            (47, "Fenced"),
            (90, "Fenced"),
            (6, "Doubt"),
            (7, "Doubt"),
            (20, "Doubt"),
            (56, "Doubt"),
            (-1, "Doubt"),
        ] {
            let answer = format!("{:?}", Answer::classify(code, 5, None, Vec::new()));
            assert!(answer.starts_with(expected), "{code}: {answer}");
        }
    }
}
