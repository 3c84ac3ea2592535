//! What a table is worthless without: machine, versions, date and commit.

use std::process::Command;

use crate::Failure;

/// The first lines of a result: its title, and where, when and of what it was measured.
pub(crate) fn heading(title: &str, recipe: &str, what: &str) -> Result<String, Failure> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name\t: "))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let dirty = if said("git", &["status", "--porcelain"]).is_empty() {
        ""
    } else {
        " with changes"
    };
    let release = said("uname", &["-r"]);
    // Without what a distribution adds to it.
    let kernel: Vec<&str> = release.splitn(3, '.').take(2).collect();
    Ok(format!(
        "# {title}\n\n{} · commit {}{dirty} · {cores} cores, {model}, {} GiB, Linux {} · {} · {}\n\n{what}\n\n`{recipe}`\n",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("git", &["rev-parse", "--short=12", "HEAD"]),
        kib >> 20,
        kernel.join("."),
        said("rustc", &["--version"]),
        java(),
    ))
}

fn java() -> String {
    let version = Command::new("java").arg("-version").output();
    let text = version.map(|o| String::from_utf8_lossy(&o.stderr).into_owned());
    text.unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .replace('"', "")
}

/// What a program answers, without the line end; nothing where it is missing.
pub(crate) fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default()
}
