//! The contract of the command line, with the built binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FIVE_LINES: &str = "\
[clusters]
paris = \"paris-1:9092\"
tokyo = \"tokyo-1:9092\"
[[links]]
source = \"paris\"
target = \"tokyo\"
topics = [\"orders.*\"]
";

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn strait(arguments: &[&str]) -> Said {
    strait_with(arguments, &[])
}

fn strait_with(arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(arguments)
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn help_goes_to_stdout_and_has_the_exit_codes() {
    let said = strait(&["--help"]);
    assert_eq!(said.code, Some(0));
    assert_eq!(said.stderr, "");
    for part in [
        "\n  run ",
        "mirroring-topic-selection-set ",
        "demo ",
        "check ",
        "--log-format <LOG_FORMAT>",
        "--quiet",
        "Exit codes:\n    0  done, or stopped by SIGINT or SIGTERM; what could not be written is told on stderr\n    1  failed;",
        "    2  wrong usage of the command line\n    3  wrong configuration, or credentials or certificates that a cluster refuses\n    4  differences found; by plan: something that is asked for would be refused\n    5  a cluster cannot be reached, tried for three times the connect timeout\n    6  by wait: not caught up, or not drained, within --timeout\n  130  ended by a second SIGINT before everything was written\n  143  ended by a second SIGTERM",
    ] {
        assert!(
            said.stdout.contains(part),
            "{part} is not in\n{}",
            said.stdout
        );
    }
}

#[test]
fn every_command_explains_itself() {
    for (command, part) in [
        ("run", "--admin-listen <ADDRESS>"),
        ("demo", "--keep"),
        ("demo", "--seed <NUMBER>"),
        ("check", "as TOML, with every default"),
        ("gaps", "--link <NAME>"),
        ("selection", "Select no topic"),
        ("mirroring-topic-selection-set", "--none"),
        ("mirroring-active-topics", "--json"),
        ("offsets", "translate"),
        ("offsets", "back"),
        ("wait", "caught-up"),
        (
            "gaps",
            "left out and lost, from the positions on the target",
        ),
    ] {
        let said = strait(&[command, "--help"]);
        assert_eq!(said.code, Some(0));
        assert!(
            said.stdout.contains(part),
            "{part} is not in\n{}",
            said.stdout
        );
        assert!(
            said.stdout.contains("--log-level <LOG_LEVEL>"),
            "{}",
            said.stdout
        );
    }
}

#[test]
fn the_version_has_commit_and_target() {
    let said = strait(&["--version"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    let rest = said
        .stdout
        .strip_prefix(concat!("strait ", env!("CARGO_PKG_VERSION"), " ("))
        .unwrap();
    let (commit, target) = rest.strip_suffix(")\n").unwrap().split_once(", ").unwrap();
    let hex = commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit());
    assert!(hex || commit == "unknown", "{commit}");
    assert!(target.split('-').count() >= 3, "{target}");
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_how_to_do_it() {
    for (arguments, part) in [
        (&["--nonsense"][..], "unexpected argument '--nonsense'"),
        (&["chek", "x.toml"], "a similar subcommand exists: 'check'"),
        (&["run"], "<FILE>"),
        (
            &["run", "x.toml", "--quiet", "--log-level", "debug"],
            "cannot be used with",
        ),
        (
            &["run", "x.toml", "--admin-listen", "9464"],
            "write an IP address and a port, 127.0.0.1:9464, or off",
        ),
        (
            &["run", "x.toml", "--instance", "a b"],
            "a name may have 1 to 200 letters",
        ),
        (&[], "Usage: strait"),
    ] {
        let said = strait(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}");
        assert_eq!(said.stdout, "", "{arguments:?}");
        assert!(
            said.stderr.contains(part),
            "{part} is not in\n{}",
            said.stderr
        );
    }
}

#[test]
fn check_prints_the_effective_configuration_and_nothing_else_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "mirror.toml", FIVE_LINES);
    let said = strait(&["check", path.to_str().unwrap()]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
    assert!(
        said.stdout.contains("name = \"paris->tokyo\"\n"),
        "{}",
        said.stdout
    );
    // What it prints is a configuration that means the same.
    let printed = file(folder.path(), "printed.toml", &said.stdout);
    assert_eq!(
        strait(&["check", printed.to_str().unwrap()]).stdout,
        said.stdout
    );
}

#[test]
fn warnings_of_check_go_to_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let text = "clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\ntasks.max = 4\n";
    let path = file(folder.path(), "mm2.properties", text);
    let said = strait(&["check", path.to_str().unwrap()]);
    assert_eq!(said.code, Some(0));
    assert!(said.stdout.starts_with("[admin]\n"), "{}", said.stdout);
    let first = said.stderr.lines().next().unwrap();
    assert_eq!(
        first,
        format!(
            "warning: {}: keys that are not obeyed; without a meaning here: tasks.max",
            path.display()
        )
    );
}

#[test]
fn a_wrong_configuration_is_exit_code_3_with_every_problem_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let text = FIVE_LINES
        .replace("source", "sorce")
        .replace("tokyo-1:9092", "tokyo-1");
    let path = file(folder.path(), "mirror.toml", &text);
    let said = strait(&["check", path.to_str().unwrap()]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""));
    let name = path.display();
    assert_eq!(
        said.stderr,
        format!(
            "{name}:3: clusters.tokyo = \"tokyo-1\": it has no port. Write host:port, for example tokyo-1:9092.\n\
             {name}:4: links[0].source: it is missing. Write source = and an alias from [clusters], in quotes.\n\
             {name}:5: links[0].sorce: there is no such key. Did you mean `source`?\n"
        )
    );
    let missing = strait(&["check", "no-such-file.toml"]);
    assert_eq!(missing.code, Some(3));
    assert_eq!(
        missing.stderr,
        "no-such-file.toml: it cannot be read: No such file or directory (os error 2). Name a configuration file that exists and can be read.\n"
    );
}

#[test]
fn gaps_tells_what_is_wrong_and_prints_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = file(folder.path(), "wrong.toml", "links = 1\n");
    let said = strait(&["gaps", wrong.to_str().unwrap()]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""));
    let text = FIVE_LINES.replace("tokyo-1:9092", "127.0.0.1:1");
    let path = file(folder.path(), "mirror.toml", &text);
    let path = path.to_str().unwrap();
    let said = strait(&["gaps", path, "--link", "paris->oslo"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    assert_eq!(
        said.stderr,
        format!("--link: {path} has no such link; it has paris->tokyo\n")
    );
    let said = strait(&["gaps", path]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(5), ""));
    assert!(
        said.stderr.starts_with("cannot reach cluster 'tokyo'")
            && said.stderr.ends_with("(id=cluster-unreachable)\n"),
        "{}",
        said.stderr
    );
}

#[test]
fn run_logs_a_wrong_configuration_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "mirror.toml", "");
    let run = |more: &[&str], environment: &[(&str, &str)]| {
        let mut arguments = vec!["run", path.to_str().unwrap()];
        arguments.extend(more);
        let said = strait_with(&arguments, environment);
        assert_eq!((said.code, said.stdout.as_str()), (Some(3), ""));
        said.stderr
    };
    let text = run(&[], &[]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in &lines {
        // 2026-11-21T09:00:00.123Z ERROR ...
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-11-21T09:00:00.123Z".len(), "{line}");
        assert!(time.ends_with('Z') && time.as_bytes()[19] == b'.', "{line}");
        assert!(rest.starts_with("ERROR "), "{line}");
    }
    assert!(lines[0].contains(": clusters: it is missing."), "{text}");
    // Not a terminal: no colours, with NO_COLOR or without.
    assert!(!text.contains('\x1b'));
    assert!(!run(&[], &[("NO_COLOR", "1")]).contains('\x1b'));
    assert_eq!(run(&["--quiet"], &[]).lines().count(), 2);

    let json = run(&["--log-format", "json"], &[]);
    for line in json.lines() {
        assert!(line.starts_with("{\"time\":\"20"), "{line}");
        assert!(
            line.contains("\",\"level\":\"ERROR\",\"module\":\"strait"),
            "{line}"
        );
        assert!(line.ends_with("\"}"), "{line}");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "mirror.toml", FIVE_LINES);
    let mut child = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(["check", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    // Whether it wrote before or after the pipe was closed, it has nothing to complain about.
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}
