//! Older releases of Apache Kafka, as far as a client can tell them by the versions they offer.
//!
//! From `ApiKeys` and `*Request.json` of the tags 2.1.1, 2.8.2, 3.0.2 and 3.6.2; only what the kit serves. What a
//! release answers within a version is the kit's own behaviour, that of 4.3 and 3.9.

use crate::config::BrokerConfig;

/// A release that a cluster can pass for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Release {
    /// The oldest that is mirrored: no IncrementalAlterConfigs, no KIP-360, no flexible versions, ApiVersions up to 2.
    V2_1,
    /// The first with topic ids (KIP-516), in Metadata only; no DescribeTransactions.
    V2_8,
    /// The first with DescribeTransactions (KIP-664); Fetch by name.
    V3_0,
    /// Fetch by topic id; ApiVersions up to 3.
    V3_6,
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V2_1, Self::V2_8, Self::V3_0, Self::V3_6];

    /// The highest version of each API key it offers.
    fn highest(self) -> &'static [(i16, i16)] {
        match self {
            Self::V2_1 => &V2_1,
            Self::V2_8 => &V2_8,
            Self::V3_0 => &V3_0,
            Self::V3_6 => &V3_6,
        }
    }
}

impl BrokerConfig {
    /// Passes for an older release: offers what that offered and nothing else.
    #[must_use]
    pub fn release(mut self, release: Release) -> Self {
        let highest = release.highest();
        self.max_versions.extend(highest.iter().copied());
        let offers = |key: &i16| highest.iter().any(|(offered, _)| offered == key);
        let served = crate::api::served();
        self.hidden_apis.extend(served.filter(|key| !offers(key)));
        self
    }
}

const V2_1: [(i16, i16); 21] = [
    (0, 7),
    (1, 10),
    (2, 4),
    (3, 7),
    (8, 6),
    (9, 5),
    (10, 2),
    (16, 2),
    (17, 1),
    (18, 2),
    (19, 3),
    (20, 3),
    (21, 1),
    (22, 1),
    (23, 2),
    (24, 1),
    (26, 1),
    (27, 0),
    (32, 2),
    (36, 0),
    (37, 1),
];

const V2_8: [(i16, i16); 24] = [
    (0, 9),
    (1, 12),
    (2, 6),
    (3, 11),
    (8, 8),
    (9, 7),
    (10, 3),
    (16, 4),
    (17, 1),
    (18, 3),
    (19, 7),
    (20, 6),
    (21, 2),
    (22, 4),
    (23, 4),
    (24, 3),
    (26, 3),
    (27, 1),
    (32, 4),
    (36, 2),
    (37, 3),
    (44, 1),
    (60, 0),
    (61, 0),
];

const V3_0: [(i16, i16); 25] = [
    (0, 9),
    (1, 12),
    (2, 7),
    (3, 11),
    (8, 8),
    (9, 8),
    (10, 4),
    (16, 4),
    (17, 1),
    (18, 3),
    (19, 7),
    (20, 6),
    (21, 2),
    (22, 4),
    (23, 4),
    (24, 3),
    (26, 3),
    (27, 1),
    (32, 4),
    (36, 2),
    (37, 3),
    (44, 1),
    (60, 0),
    (61, 0),
    (65, 0),
];

const V3_6: [(i16, i16); 25] = [
    (0, 9),
    (1, 15),
    (2, 8),
    (3, 12),
    (8, 8),
    (9, 8),
    (10, 4),
    (16, 4),
    (17, 1),
    (18, 3),
    (19, 7),
    (20, 6),
    (21, 2),
    (22, 4),
    (23, 4),
    (24, 4),
    (26, 3),
    (27, 1),
    (32, 4),
    (36, 2),
    (37, 3),
    (44, 1),
    (60, 0),
    (61, 0),
    (65, 0),
];
