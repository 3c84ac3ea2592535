//! What is said of a file, in the words a user sees.
#![allow(dead_code, unreachable_pub)]

pub const CLUSTERS: &str = "[clusters]\na = \"a:9092\"\nb = \"b:9092\"\n";
pub const LINK: &str = "[[links]]\nsource = \"a\"\ntarget = \"b\"\ntopics = [\"x\"]\n";
pub const MM2: &str =
    "clusters = a, b\na.bootstrap.servers = a:1\nb.bootstrap.servers = b:1\na->b.enabled = true\n";

pub fn load(name: &str, text: &[u8]) -> Result<strait_config::Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    std::fs::write(folder.path().join("ca.pem"), "x").unwrap();
    strait_config::load_with(&path, &|_| None).map_err(|error| {
        error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    })
}

#[track_caller]
pub fn wrong(name: &str, text: &str, said: &[&str]) {
    let error = load(name, text.as_bytes()).expect_err("this should be refused");
    assert_eq!(error, said.join("\n"));
}

/// A whole file; lines from 1.
#[track_caller]
pub fn toml(text: &str, said: &[&str]) {
    wrong("f.toml", text, said);
}

/// Lines of a link, from line 8.
#[track_caller]
pub fn link(lines: &str, said: &[&str]) {
    toml(&format!("{CLUSTERS}{LINK}{lines}\n"), said);
}

/// The inside of cluster `c`, on line 4.
#[track_caller]
pub fn cluster(value: &str, said: &[&str]) {
    toml(&format!("{CLUSTERS}c = {value}\n{LINK}"), said);
}

/// Lines of a properties file, from line 5.
#[track_caller]
pub fn mm2(lines: &str, said: &[&str]) {
    wrong("f.properties", &format!("{MM2}{lines}\n"), said);
}
