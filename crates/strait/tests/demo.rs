//! `strait demo`, with the built binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strait"));
    command
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", folder)
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a demo left in its temporary folder.
fn left(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Whether the process runs; one that ended and waits for its parent's notice (`Z`) does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|s| s.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap()
}

#[test]
fn the_demo_kills_the_mirror_and_finds_both_sides_equal() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--seed", "42"]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");

    let kills = stderr.matches("kill -9").count();
    assert!(kills >= 3, "{stderr}");
    assert!(!stderr.contains("with 0 records still to come"), "{stderr}");
    assert!(stderr.contains("Seed 42."), "{stderr}");
    assert!(
        stdout.contains(&format!("kills       {kills} with SIGKILL")),
        "{stdout}"
    );

    let verdict = stdout
        .lines()
        .find(|line| line.starts_with("EQUAL. All "))
        .unwrap();
    let told = verdict.split(' ').nth(2).unwrap();
    assert!(
        verdict.ends_with(&format!("across {kills} kills.")),
        "{verdict}"
    );
    // topic, partitions, codec, records: each topic has its codec, and together they are what the verdict counts.
    let rows: Vec<Vec<&str>> = stdout
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|cells| cells.contains(&"yes"))
        .collect();
    let codecs: Vec<&str> = rows.iter().take(5).map(|cells| cells[2]).collect();
    assert_eq!(codecs, ["lz4", "gzip", "snappy", "zstd", "none"]);
    let records: u64 = rows.iter().take(5).map(|cells| number(cells[3])).sum();
    assert_eq!(records, number(told));
    assert!(records > 50_000, "{stdout}");
    assert!(stdout.contains("aborted left out"), "{stdout}");

    let escape = '\u{1b}';
    assert!(
        !stdout.contains(escape) && !stderr.contains(escape),
        "colours without a terminal"
    );
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
}

/// Reads stderr until a line has `part`, and answers the line.
fn wait_for(stderr: &mut impl BufRead, part: &str) -> String {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert!(
            stderr.read_line(&mut line).unwrap() > 0,
            "{part} is not in\n{all}"
        );
        if line.contains(part) {
            return line;
        }
        all.push_str(&line);
    }
}

fn mirror_of(folder: &Path) -> u32 {
    let text = std::fs::read_to_string(left(folder)[0].join("mirror.pid")).unwrap();
    text.trim().parse().unwrap()
}

fn ends_with_code(mut demo: Child, code: i32) {
    assert_eq!(demo.wait().unwrap().code(), Some(code));
}

#[test]
fn ctrl_c_ends_the_mirror_and_removes_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = demo(folder.path(), &["--seed", "1"]).spawn().unwrap();
    let mut stderr = BufReader::new(demo.stderr.take().unwrap());
    wait_for(&mut stderr, "resumed where it stopped");
    let mirror = mirror_of(folder.path());
    assert!(is_alive(mirror));
    signal(demo.id(), rustix::process::Signal::INT);
    wait_for(&mut stderr, "interrupted");
    ends_with_code(demo, 130);
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
    assert!(!is_alive(mirror));
}

#[test]
fn kept_running_it_restarts_a_killed_mirror_and_compares_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = demo(folder.path(), &["--keep", "--seed", "5"])
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(demo.stderr.take().unwrap());
    let mut stdout = BufReader::new(demo.stdout.take().unwrap());
    let mut said = String::new();
    while !said.contains("what the mirror says about itself") {
        assert!(stdout.read_line(&mut said).unwrap() > 0, "{said}");
    }
    assert!(said.contains("\nEQUAL. All "), "{said}");
    let mirror = mirror_of(folder.path());
    assert!(said.contains(&format!(
        "kill -9 $(cat {}",
        left(folder.path())[0].display()
    )));
    signal(mirror, rustix::process::Signal::KILL);
    wait_for(&mut stderr, &format!("process {mirror} is gone"));
    wait_for(&mut stderr, "EQUAL.");
    assert_ne!(mirror_of(folder.path()), mirror);
    signal(demo.id(), rustix::process::Signal::TERM);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("its folder removed"), "{rest}");
    ends_with_code(demo, 0);
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
}
