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

/// The topic on `target` that may hold the positions of flows from the cluster of this alias: one that is there, else one that
/// is hidden.
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

/// The name that is there, and the first that may be.
async fn look(
    cluster: &Cluster,
    name: impl Fn(&str) -> String,
) -> Result<[Option<String>; 2], NetError> {
    let names = [SEPARATOR, COLLIDING].map(name);
    let metadata = cluster.metadata(Some(&names)).await?;
    let error = |name: &String| metadata.topics.get(name).map_or(3, |t| t.error);
    // UNKNOWN_TOPIC_OR_PARTITION, TOPIC_AUTHORIZATION_FAILED
    let visible = names.iter().find(|name| ![3, 29].contains(&error(name)));
    let hidden = names.iter().find(|name| error(name) == 29);
    Ok([visible.cloned(), hidden.cloned()])
}

#[cfg(test)]
mod tests {
    use super::*;

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
