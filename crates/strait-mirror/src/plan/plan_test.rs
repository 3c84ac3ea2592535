use strait_config::{Naming, Pattern, TopicSelection};
use strait_testkit::{Fault, Rule, code};

use super::*;
use crate::two_clusters::TwoClusters;

/// A running link keeps the name, since Kafka lets no other exist that differs in `.` and `_` alone.
#[tokio::test(start_paused = true)]
async fn heartbeats_are_planned_under_the_name_that_is_there() {
    for there in [None, Some("source.heartbeats")] {
        let clusters = TwoClusters::new();
        clusters.source.create_topic(HEARTBEATS, 1, &[]).unwrap();
        if let Some(name) = there {
            clusters.target.create_topic(name, 1, &[]).unwrap();
        }
        let topics = TopicSelection::new(Vec::new(), Vec::new());
        let config = LinkConfig {
            naming: Naming::Identity,
            internal_separator: "_".to_owned(),
            ..LinkConfig::new("source", "target", topics)
        };
        let watch = Duration::from_secs(1);
        let plan = plan(
            &clusters.rt,
            &config,
            &clusters.here,
            &clusters.there,
            watch,
        )
        .await
        .unwrap();
        let names: Vec<&str> = plan.topics.iter().map(|t| t.target.as_str()).collect();
        assert_eq!(names, [there.unwrap_or("source_heartbeats")]);
    }
}

/// The first question about a group makes a broker create the topic that groups are kept in, and until then it names nobody.
#[tokio::test(start_paused = true)]
async fn a_target_that_never_had_a_group_refuses_none() {
    let clusters = TwoClusters::new();
    clusters.source.create_topic("orders", 1, &[]).unwrap();
    clusters.source.commit("billing", "orders", 0, 0);
    // FindCoordinator
    let late = Rule::on(10, Fault::Error(code::COORDINATOR_NOT_AVAILABLE)).times(4);
    let late = clusters.target.faults().add(late);
    let topics = TopicSelection::new(vec![Pattern::new("orders").unwrap()], Vec::new());
    let config = LinkConfig::new("source", "target", topics);
    let (here, there) = (&clusters.here, &clusters.there);
    let watch = Duration::from_secs(1);
    let plan = plan(&clusters.rt, &config, here, there, watch)
        .await
        .unwrap();
    assert_eq!(clusters.target.faults().fired(late), 4);
    let groups = plan.groups.unwrap().unwrap();
    assert_eq!((groups.consumer.with_offsets, groups.refused), (1, vec![]));
}
