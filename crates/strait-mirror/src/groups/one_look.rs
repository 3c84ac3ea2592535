//! What groups have on a cluster, for a command that looks once and ends: whoever is only late with the answer is asked again.

use std::collections::BTreeMap;
use std::time::Duration;

use strait_net::{Action, Cluster, GroupOffsets, NetError, Runtime};
use tokio::time::Instant;

use crate::groups::commits::{Kind, offsets_of};

/// How long a coordinator that is not there yet is waited for: a cluster that never had a group first creates the topic that
/// groups are kept in, and a broker loads its groups after it started.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// What these groups of one kind have. One group's error is its own; one that passes by itself is waited out `until` then.
pub(crate) async fn offsets_at_last(
    rt: &Runtime,
    until: Instant,
    kind: Kind,
    cluster: &Cluster,
    groups: &[String],
) -> BTreeMap<String, Result<GroupOffsets, NetError>> {
    let mut found = offsets_of(kind, cluster, groups, false).await;
    loop {
        let late = |answer: &Result<GroupOffsets, NetError>| {
            let error = answer.as_ref().err();
            error.is_some_and(|error| error.action() == Action::Retry)
        };
        let again = found.iter().filter(|(_, answer)| late(answer));
        let again: Vec<String> = again.map(|(group, _)| group.clone()).collect();
        if again.is_empty() || rt.now() >= until {
            return found;
        }
        rt.sleep(PAUSE).await;
        found.extend(offsets_of(kind, cluster, &again, false).await);
    }
}

/// What a consumer group has committed on a cluster; nothing for one that does not exist. A coordinator that is not available
/// yet is asked again for 10 s.
///
/// # Errors
/// The group's coordinator cannot be reached, is not available for 10 s, or does not let Strait's user Describe the group.
pub async fn committed(
    rt: &Runtime,
    cluster: &Cluster,
    group: &str,
) -> Result<GroupOffsets, NetError> {
    let groups = [group.to_owned()];
    let until = rt.now() + PATIENCE;
    let mut found = offsets_at_last(rt, until, Kind::Consumer, cluster, &groups).await;
    found
        .remove(group)
        .transpose()
        .map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use strait_testkit::{Fault, Rule, code};

    use super::*;
    use crate::two_clusters::TwoClusters;

    const FIND_COORDINATOR: i16 = 10;

    #[tokio::test(start_paused = true)]
    async fn a_coordinator_that_is_on_its_way_is_waited_for_and_not_for_ever() {
        let clusters = TwoClusters::new();
        let late = Rule::on(
            FIND_COORDINATOR,
            Fault::Error(code::COORDINATOR_NOT_AVAILABLE),
        );
        let faults = clusters.target.faults();
        faults.add(late.clone().times(3));
        let found = committed(&clusters.rt, &clusters.there, "billing").await;
        assert_eq!(found.unwrap().len(), 0);

        let clusters = TwoClusters::new();
        clusters.target.faults().add(late);
        let began = clusters.rt.now();
        let found = committed(&clusters.rt, &clusters.there, "billing").await;
        assert_eq!(found.unwrap_err().code().map(|code| code.0), Some(15));
        let waited = clusters.rt.now() - began;
        assert!(waited >= PATIENCE && waited < PATIENCE * 2, "{waited:?}");
    }
}
