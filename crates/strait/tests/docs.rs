//! The documentation against the product: examples are valid, links lead somewhere, lists are complete.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("book")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files below a folder, or the file itself.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut found: Vec<PathBuf> = fs::read_dir(path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .flat_map(|entry| files(&entry.unwrap().path()))
        .collect();
    found.sort();
    found
}

fn with_extension(path: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = files(path);
    found.retain(|f| f.extension().is_some_and(|e| e == extension));
    found
}

/// The pages: the book's, and those at the top.
fn pages() -> Vec<PathBuf> {
    let top = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ];
    let mut pages: Vec<PathBuf> = top.iter().map(|name| root().join(name)).collect();
    pages.extend(with_extension(&book(), "md"));
    pages
}

fn strait(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn assert_valid(file: &Path) {
    let (code, _, said) = strait(&["check", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{}:\n{said}", file.display());
}

/// What stands between two `mark`s, in order: `a` and `c` of "x`a`b`c`".
fn between<'t>(text: &'t str, mark: &str) -> Vec<&'t str> {
    text.split(mark).skip(1).step_by(2).collect()
}

#[test]
fn every_example_is_valid() {
    let folder = book().join("examples");
    let mut examples = with_extension(&folder, "toml");
    examples.extend(with_extension(&folder, "properties"));
    examples.extend(with_extension(&folder, "yaml"));
    assert!(examples.len() >= 6, "{examples:?}");
    for example in examples {
        assert_valid(&example);
    }
}

#[test]
fn every_configuration_shown_in_a_page_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut shown = 0;
    for page in pages() {
        let text = read(&page);
        for (kind, name) in [("```toml\n", "a.toml"), ("```properties\n", "a.properties")] {
            for block in text.split(kind).skip(1) {
                let file = folder.path().join(name);
                fs::write(&file, block.split("```").next().unwrap()).unwrap();
                let (code, _, said) = strait(&["check", file.to_str().unwrap()]);
                assert_eq!(code, Some(0), "{}:\n{block}\n{said}", page.display());
                shown += 1;
            }
        }
    }
    assert!(shown >= 2, "{shown}");
}

#[test]
fn every_relative_link_resolves() {
    for page in pages() {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            if target.starts_with("http") || target.contains(' ') {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            assert!(
                file.exists(),
                "{}: the link {target} leads nowhere",
                page.display()
            );
            if !anchor.is_empty() {
                let found = read(&file).lines().any(|line| {
                    let heading = line.trim_start_matches('#');
                    heading.len() < line.len() && slug(heading) == anchor
                });
                assert!(
                    found,
                    "{}: {target} names a heading that is not there",
                    page.display()
                );
            }
        }
    }
}

/// A heading's anchor, as GitHub and mdBook make it.
fn slug(heading: &str) -> String {
    let kept = heading
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn the_summary_lists_every_page() {
    let summary = read(book().join("SUMMARY.md"));
    for page in with_extension(&book(), "md") {
        let name = page
            .strip_prefix(book())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if name != "SUMMARY.md" {
            assert!(
                summary.contains(&format!("({name})")),
                "{name} is not in SUMMARY.md"
            );
        }
    }
}

#[test]
fn the_books_exit_codes_are_those_of_help() {
    let (_, help, _) = strait(&["--help"]);
    let table = help.split("Exit codes:\n").nth(1).unwrap();
    let promised: Vec<(String, String)> = table
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(code, meaning)| (code.to_owned(), meaning.to_owned()))
        .collect();
    let page = read(book().join("operations.md"));
    let section = page
        .split("## Exit codes")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let written: Vec<(String, String)> = section
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| ")?
                .strip_suffix(" |")?
                .split_once(" | ")
        })
        .filter(|(code, _)| code.chars().all(|c| c.is_ascii_digit()))
        .map(|(code, meaning)| (code.to_owned(), meaning.to_owned()))
        .collect();
    assert_eq!(written, promised);
}

#[test]
fn the_book_lists_every_metric_and_no_other() {
    let mut reported = BTreeSet::new();
    for file in sources(&[
        "strait",
        "strait-admin",
        "strait-engine",
        "strait-mirror",
        "strait-net",
    ]) {
        let text = read(&file);
        for call in ["counter!(", "gauge!(", "histogram!("] {
            for rest in text.split(call).skip(1) {
                if let Some(name) = rest
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|r| r.split('"').next())
                {
                    reported.insert(name.to_owned());
                }
            }
        }
    }
    let page = read(book().join("operations.md"));
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `strait_")?.split('`').next());
    let written: BTreeSet<String> = rows.map(|name| format!("strait_{name}")).collect();
    assert_eq!(written, reported);
}

fn sources(crates: &[&str]) -> Vec<PathBuf> {
    let of = |name: &&str| with_extension(&root().join("crates").join(name).join("src"), "rs");
    crates.iter().flat_map(of).collect()
}

/// The string literals of the arrays that follow `start` in a source file, each up to its `]`.
fn arrays(source: &str, start: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in source.split(start).skip(1) {
        let body = rest.split(']').next().unwrap();
        found.extend(between(body, "\"").into_iter().map(str::to_owned));
    }
    found
}

fn config_source(name: &str) -> String {
    read(root().join("crates/strait-config/src").join(name))
}

#[test]
fn the_book_has_every_toml_key_and_no_other() {
    let file = config_source("toml_file.rs");
    let cluster = config_source("cluster_toml.rs");
    let mut keys: BTreeSet<String> = BTreeSet::new();
    for (source, start) in [
        (&file, "const TOP_KEYS: [&str; 5] = ["),
        (&file, "const LINK_KEYS: [&str; 54] = ["),
        (&file, "let known = ["),
        (&cluster, "let known = ["),
    ] {
        let found = arrays(source, start);
        assert!(!found.is_empty(), "{start} has moved: mend this test");
        keys.extend(found);
    }
    let page = read(book().join("configuration.md"));
    let toml = page.split("### What cannot be set").next().unwrap();
    for key in &keys {
        let dotted = format!(".{key}`");
        assert!(
            toml.contains(&format!("`{key}`")) || toml.contains(&dotted),
            "configuration.md has no `{key}`"
        );
    }
    for row in toml.lines().filter_map(|line| line.strip_prefix("| `")) {
        let key = row.split('`').next().unwrap();
        let last = key.rsplit('.').next().unwrap();
        assert!(
            keys.contains(last),
            "configuration.md has `{key}`, which is no key"
        );
    }
    let example = read(book().join("examples/every-key.toml"));
    let unused = ["password", "password-env"]; // One of three.
    for key in keys.iter().filter(|k| !unused.contains(&k.as_str())) {
        assert!(
            example.contains(key.as_str()),
            "every-key.toml has no {key}"
        );
    }
}

#[test]
fn the_book_has_every_mirror_maker_key() {
    let source = config_source("mm2_keys.rs");
    let page = read(book().join("configuration.md"));
    let section = page.split("## MirrorMaker 2 properties").nth(1).unwrap();
    let mut count = 0;
    for rest in source.split("[&str; ").skip(1) {
        let body = rest.split_once("= [").unwrap().1.split(']').next().unwrap();
        for key in between(body, "\"") {
            assert!(
                section.contains(&format!("`{key}`")),
                "configuration.md has no `{key}`"
            );
            count += 1;
        }
    }
    assert!(count > 90, "only {count} keys were found: mend this test");
}

/// Paths in backticks lead to files, and test names behind a path are in that file.
#[test]
fn design_pages_name_files_and_tests_that_exist() {
    let mut paths = 0;
    for page in with_extension(&book().join("design"), "md") {
        // A line that is a path and a colon stands for the lines up to the next heading.
        let mut of_section: Option<PathBuf> = None;
        let mut file: Option<PathBuf> = None;
        for line in read(&page).lines() {
            if line.starts_with('#') {
                of_section = None;
            }
            // An indented line goes on with the one before it.
            if !line.starts_with("  ") {
                file = of_section.clone();
            }
            for token in between(line, "`") {
                let code = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
                if ["crates/", "proto-tests", "testdata", "benches"]
                    .iter()
                    .any(|p| token.starts_with(p))
                    && token.chars().all(code)
                {
                    let path = root().join(token);
                    assert!(path.exists(), "{}: {token} does not exist", page.display());
                    paths += 1;
                    if line == format!("`{token}`:") {
                        of_section = Some(path.clone());
                    }
                    file = Some(path);
                } else if let Some(path) = &file
                    && token.matches('_').count() >= 3
                    && token
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
                {
                    let named = format!("fn {token}(");
                    assert!(
                        files(path).iter().any(|f| read(f).contains(&named)),
                        "{}: there is no {token} in {}",
                        page.display(),
                        path.display()
                    );
                }
            }
        }
    }
    assert!(paths > 40, "{paths}");
}

/// The beginnings of the pieces of a message that no value is put into.
fn fixed_parts(message: &str) -> Vec<String> {
    let lines: Vec<&str> = message.split("\\\n").map(str::trim_start).collect();
    let mut pieces = vec![String::new()];
    let mut depth = 0;
    for c in lines.join("").replace("\\\"", "\"").chars() {
        match c {
            '{' => {
                depth += 1;
                pieces.push(String::new());
            }
            '}' => depth -= 1,
            c if depth == 0 => pieces.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    let beginning = |piece: &String| {
        let words: Vec<&str> = piece.split_whitespace().take(4).collect();
        // A page cuts the ends of messages.
        words
            .join(" ")
            .trim_matches([':', ';', ',', '(', ' '])
            .to_owned()
    };
    let mut parts: Vec<String> = pieces.iter().map(beginning).collect();
    parts.retain(|part| part.split(' ').count() >= 2);
    parts
}

/// Messages of which no piece is in messages.md.
fn unexplained(messages: &[(PathBuf, String)]) -> Vec<String> {
    let page = read(book().join("messages.md"));
    let missing = messages
        .iter()
        .filter(|(_, m)| !fixed_parts(m).iter().any(|part| page.contains(part)));
    missing
        .map(|(file, m)| format!("{}: {m}", file.display()))
        .collect()
}

/// The string literals in the parentheses that begin after `call`.
fn literals(rest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut depth, mut chars) = (1, rest.chars());
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '"' => {
                let mut text = String::new();
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => {
                            text.push(c);
                            text.extend(chars.next());
                        }
                        '"' => break,
                        c => text.push(c),
                    }
                }
                found.push(text);
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// What stands behind `mark` in double quotes, in all these files.
fn quoted_behind(files: &[PathBuf], mark: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files {
        for rest in read(file).split(mark).skip(1) {
            found.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    found
}

#[test]
fn the_book_has_every_message_id_and_no_other() {
    let files = sources(&["strait-net", "strait-engine", "strait-mirror", "strait"]);
    let mut ids = quoted_behind(&files, "id = \"");
    ids.extend(quoted_behind(&files, "const TOPIC_NOT_MIRRORED: &str = \""));
    ids.extend(quoted_behind(&files, "const TOPIC_IN_PART: &str = \""));
    ids.extend(quoted_behind(&files, "const UNREADABLE: &str = \""));
    ids.extend(quoted_behind(&files, "const UNCOMMITTED: &str = \""));
    for file in &files {
        let text = read(file);
        for rest in text.split("pub fn id(&self) -> &'static str {").skip(1) {
            let body = rest.split("\n    }\n").next().unwrap();
            ids.extend(between(body, "\"").into_iter().map(str::to_owned));
        }
    }
    assert!(ids.len() > 60, "{ids:?}");
    assert_eq!(written_ids(), ids);
    let failures = read(book().join("failures.md"));
    let table = failures.split("## The table").nth(1).unwrap();
    for id in between(table.split("\n## ").next().unwrap(), "`id=") {
        let id = id.split('`').next().unwrap();
        assert!(ids.contains(id), "failures.md has {id}, which is no id");
    }
}

/// The ids that messages.md lists.
fn written_ids() -> BTreeSet<String> {
    let page = read(book().join("messages.md"));
    let mut written = BTreeSet::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cell = format!("`{}", row.split(" | ").next().unwrap());
        written.extend(between(&cell, "`").into_iter().map(str::to_owned));
    }
    written
}

/// Each id is what some test looks for: one that nothing reaches may be said of the wrong thing, or never.
#[test]
fn every_message_id_is_named_by_a_test() {
    let mut tests = String::new();
    for folder in ["crates", "proto-tests"] {
        for file in with_extension(&root().join(folder), "rs") {
            let path = file.strip_prefix(root()).unwrap().to_str().unwrap();
            let text = read(&file);
            if path.contains("/tests/") || path.ends_with("_test.rs") {
                tests += &text;
            } else if let Some((_, of_tests)) = text.split_once("#[cfg(test)]\n") {
                tests += of_tests;
            }
        }
    }
    // As a word: an id may be the beginning of another one.
    let part = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    let named: BTreeSet<&str> = tests.split(part).collect();
    let ids = written_ids();
    let unnamed: Vec<&String> = ids
        .iter()
        .filter(|id| !named.contains(id.as_str()))
        .collect();
    assert_eq!(unnamed, Vec::<&String>::new());
}

/// Each line of the log that warns of something can be found by an id.
#[test]
fn every_warning_of_the_engine_has_an_id() {
    for file in sources(&["strait-engine", "strait-mirror"]) {
        let text = read(&file);
        for call in ["warn!(", "error!("] {
            for rest in text.split(call).skip(1) {
                let fields = rest.split('"').next().unwrap();
                let named = fields.split([',', '(']).any(|f| {
                    let field = f.trim();
                    field == "id" || field.starts_with("id =")
                });
                let line: String = rest.chars().take(80).collect();
                assert!(named, "{}: no id in {line}", file.display());
            }
        }
    }
}

#[test]
fn the_book_explains_every_error_and_warning() {
    let mut messages = Vec::new();
    for file in sources(&["strait-engine", "strait-mirror"]) {
        let text = read(&file);
        for call in ["#[error(", "warn!(", "error!("] {
            for rest in text.split(call).skip(1) {
                let said = literals(rest);
                if let Some(message) = said.iter().find(|l| !fixed_parts(l).is_empty()) {
                    messages.push((file.clone(), message.clone()));
                }
            }
        }
    }
    assert!(messages.len() > 40, "{}", messages.len());
    let missing = unexplained(&messages);
    assert!(
        missing.is_empty(),
        "messages.md does not explain:\n{}",
        missing.join("\n")
    );
}
