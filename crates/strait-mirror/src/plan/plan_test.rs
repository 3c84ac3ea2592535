use strait_config::{Naming, TopicSelection};

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
