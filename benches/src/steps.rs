//! The table of what `cargo bench` measured: each step of forwarding a batch beside its limits.

use std::path::Path;

use crate::Failure;
use crate::heading::heading;

const CRITERION: &str = "target/criterion";

/// One measured step: its group, its name, its size in bytes, the median in nanoseconds.
type Step = (String, String, f64, f64);

/// `bench steps`, after `cargo bench`.
pub(crate) fn run() -> Result<(), Failure> {
    let mut steps = Vec::new();
    collect(Path::new(CRITERION), &mut steps)?;
    if steps.is_empty() {
        return Err(format!("nothing in {CRITERION}: run `just bench`").into());
    }
    // Beside their limits: what has the same group and size.
    steps.sort_by(|a, b| (&a.0, a.2 as u64, &a.1).cmp(&(&b.0, b.2 as u64, &b.1)));
    let what = "Medians of criterion. The limits are the same bytes copied (memcpy) and checked (the CRC-32C of the `crc32c` crate, alone).";
    println!(
        "{}",
        heading("What forwarding a batch costs", "just bench", what)?
    );
    println!("| | step | bytes | time | GB/s |\n|---|---|---|---|---|");
    for (group, name, bytes, nanos) in steps {
        println!(
            "| {group} | {name} | {bytes:.0} | {} | {:.2} |",
            time(nanos),
            bytes / nanos
        );
    }
    Ok(())
}

/// Criterion keeps a folder `new` for every step, at any depth.
fn collect(dir: &Path, steps: &mut Vec<Step>) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "new") {
            steps.extend(step(&path)?);
        } else if path.is_dir() {
            collect(&path, steps)?;
        }
    }
    Ok(())
}

fn step(dir: &Path) -> Result<Option<Step>, Failure> {
    let read = |name| -> Result<serde_json::Value, Failure> {
        Ok(serde_json::from_slice(&std::fs::read(dir.join(name))?)?)
    };
    let (benchmark, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let text = |key: &str| benchmark[key].as_str().map(str::to_owned);
    let found = (
        text("group_id"),
        text("function_id"),
        benchmark["throughput"]["Bytes"].as_f64(),
        estimates["median"]["point_estimate"].as_f64(),
    );
    Ok(match found {
        (Some(group), Some(name), Some(bytes), Some(nanos)) => Some((group, name, bytes, nanos)),
        _ => None,
    })
}

fn time(nanos: f64) -> String {
    if nanos < 1e3 {
        format!("{nanos:.0} ns")
    } else {
        format!("{:.1} us", nanos / 1e3)
    }
}
