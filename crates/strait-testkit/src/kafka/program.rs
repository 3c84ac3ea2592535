//! Programs in Java that a test brings along: compiled and run as its users would, against Kafka's own jars.

use super::error::HarnessError;
use super::install::{Install, Version};
use std::path::Path;
use std::process::Stdio;

/// Compiles a Java source file and runs it with these arguments; answers what it printed to stdout.
///
/// # Errors
/// It does not compile, or it ended with another code than 0: its stderr is in the error.
pub fn run_java(source: &Path, arguments: &[&str]) -> Result<String, HarnessError> {
    let install = Install::find(Version::default())?;
    let output = install
        .java(0, "256m", false)
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
        .arg(source)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(HarnessError::io(
            "start `java`, which `just setup` installs",
        ))?;
    if !output.status.success() {
        return Err(HarnessError::Refused {
            command: format!("{} {}", source.display(), arguments.join(" ")),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
