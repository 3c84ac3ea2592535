//! The topic of offset syncs by MirrorMaker 2's names for it.

use strait_net::{Cluster, NetError};

/// The separator in the names of MirrorMaker 2's own topics, unless it was told another one.
pub const SEPARATOR: &str = ".";
/// One of which Kafka lets no topic exist beside that of [`SEPARATOR`]: to metrics both names are the same
/// (`Topic.hasCollision`).
const COLLIDING: &str = "_";

const KIND: &str = "mm2-offset-syncs";
const INTERNAL: &str = "internal";

/// MirrorMaker 2's offset-syncs topic for flows with the cluster of this alias on the other side
/// (`DefaultReplicationPolicy.offsetSyncsTopic`).
pub fn syncs_topic(separator: &str, alias: &str) -> String {
    format!("{KIND}{separator}{alias}{separator}{INTERNAL}")
}

/// The alias in the name of a topic that may hold positions.
pub fn alias_of_syncs(topic: &str) -> Option<&str> {
    let inner = topic.strip_prefix(KIND)?.strip_suffix(INTERNAL)?;
    [SEPARATOR, COLLIDING].into_iter().find_map(|separator| {
        let alias = inner.strip_prefix(separator)?.strip_suffix(separator)?;
        (!alias.is_empty()).then_some(alias)
    })
}

/// Whether a topic with positions may have this separator in its name. With any other one they stand under the name with
/// [`SEPARATOR`], where everybody finds them who knows no more than an alias.
pub fn holds_positions(separator: &str) -> bool {
    [SEPARATOR, COLLIDING].contains(&separator)
}

/// Of the two names that a topic may have by these separators, of which only one can exist, the one that does, as far as one
/// may see.
///
/// # Errors
/// The cluster cannot be reached.
pub async fn existing(
    cluster: &Cluster,
    name: impl Fn(&str) -> String,
) -> Result<Option<String>, NetError> {
    let [visible, _] = look(cluster, name).await?;
    Ok(visible)
}

/// The topic on `target` that may hold the positions of flows from the cluster of this alias: one that is there, else the
/// first where both are hidden: one that nobody may see for want of a right that the other name has is not there.
///
/// # Errors
/// The target cannot be reached.
pub(crate) async fn positions_topic(
    target: &Cluster,
    source: &str,
) -> Result<Option<String>, NetError> {
    let [visible, hidden] = look(target, |separator| syncs_topic(separator, source)).await?;
    Ok(visible.or(hidden))
}

/// The name that is there, and the first where both are hidden.
async fn look(
    cluster: &Cluster,
    name: impl Fn(&str) -> String,
) -> Result<[Option<String>; 2], NetError> {
    let names = [SEPARATOR, COLLIDING].map(name);
    let metadata = cluster.metadata(Some(&names)).await?;
    let error = |name: &String| metadata.topics.get(name).map_or(3, |t| t.error);
    let errors = names.each_ref().map(error);
    Ok(of_errors(errors).map(|at| names.get(at?).cloned()))
}

/// The place of the name that is there, and of the first where both are hidden.
fn of_errors(errors: [i16; 2]) -> [Option<usize>; 2] {
    // UNKNOWN_TOPIC_OR_PARTITION, TOPIC_AUTHORIZATION_FAILED
    let visible = errors.iter().position(|error| ![3, 29].contains(error));
    [visible, (errors == [29, 29]).then_some(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user with rights on one of them does not see the other one, which nobody can create beside it.
    #[test]
    fn a_name_that_is_hidden_beside_one_that_is_not_there_is_not_there_either() {
        for (errors, found) in [
            ([3, 29], None),
            ([29, 3], None),
            ([3, 3], None),
            ([29, 29], Some(0)),
            ([0, 29], Some(0)),
            ([29, 0], Some(1)),
            ([3, 5], Some(1)),
        ] {
            let [visible, hidden] = of_errors(errors);
            assert_eq!(visible.or(hidden), found, "{errors:?}");
        }
    }

    #[test]
    fn an_alias_is_read_from_both_names_of_a_topic_of_positions() {
        for (topic, alias) in [
            ("mm2-offset-syncs.A.internal", Some("A")),
            ("mm2-offset-syncs_A_internal", Some("A")),
            ("mm2-offset-syncs_a_b.c_internal", Some("a_b.c")),
            ("mm2-offset-syncs_A.internal", None),
            ("mm2-offset-syncs-A-internal", None),
            ("mm2-offset-syncs..internal", None),
            ("mm2-offset-syncs.internal", None),
        ] {
            assert_eq!(alias_of_syncs(topic), alias, "{topic}");
        }
    }
}
