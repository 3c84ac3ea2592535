//! The numbers of this process, for Prometheus.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error::AdminError;

/// For histograms named `..._seconds`: from a near broker's answer to a far line's worst.
const SECONDS: [f64; 16] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// For histograms named `..._bytes`: from one small batch to the largest answer a broker gives.
const BYTES: [f64; 10] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// For all other histograms, which count things.
const COUNTS: [f64; 10] = [
    1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 10_000.0, 100_000.0,
];

/// Collects what the `metrics` macros report, and renders it. Clones share one collection.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Collects the metrics of the whole process from now on, beginning with `strait_build_info`.
    ///
    /// Once per process. Histograms have fixed buckets, chosen by the unit in their name (`_seconds`, `_bytes`,
    /// anything else counts): without buckets the exporter would make summaries, which cannot be added up.
    pub fn install(version: &str, commit: &str) -> Result<Self, AdminError> {
        let mut builder = PrometheusBuilder::new();
        for (suffix, buckets) in [("_seconds", &SECONDS[..]), ("_bytes", &BYTES[..])] {
            let matcher = Matcher::Suffix(suffix.to_owned());
            // Fails for empty buckets only.
            builder = builder
                .set_buckets_for_metric(matcher, buckets)
                .map_err(|_| AdminError::AlreadyInstalled)?;
        }
        builder = builder
            .set_buckets(&COUNTS)
            .map_err(|_| AdminError::AlreadyInstalled)?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| AdminError::AlreadyInstalled)?;
        metrics::describe_gauge!(
            "strait_build_info",
            "1, with the version and commit of this process"
        );
        let labels = [
            ("version", version.to_owned()),
            ("commit", commit.to_owned()),
        ];
        metrics::gauge!("strait_build_info", &labels).set(1.0);
        Ok(Self { handle })
    }

    /// The page, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds collected samples into their buckets. Without it, memory grows until somebody asks for the page;
    /// [`crate::Admin::serve`] does it every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}
