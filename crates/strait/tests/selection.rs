//! The selection of topics, replaced while links run: by the command line, over HTTP, and what is not obeyed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod page;
mod rig;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use page::{Answered, get, send};
use rig::{Mirror, free_port, wait_until, west_to_east};
use strait_testkit::kafka::{DumpOptions, Isolation, KafkaCluster, Oracle, Workload};

const SOON: Duration = Duration::from_secs(60);
const SELECTION: &str = "/admin/mirroring/topic-selection";
const ACTIVE: &str = "/admin/mirroring/active-topics";
const VIEWER: &str = "viewer-0123456789abcdef";
const MANAGER: &str = "manager-0123456789abcdef";

/// How a command ended, and what it wrote to stdout and stderr.
fn strait(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_strait"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// What a command that must succeed prints.
fn printed(mirror: &Mirror, arguments: &[&str]) -> String {
    let (code, out, said) = strait(mirror.folder(), arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    out
}

/// Topics of one test between the shared clusters.
struct Topics {
    oracle: Oracle,
    west: String,
    east: String,
}

impl Topics {
    fn shared() -> Self {
        let [west, east] = KafkaCluster::shared_pair().unwrap();
        Self {
            oracle: Oracle::shared().unwrap(),
            west: west.bootstrap(),
            east: east.bootstrap(),
        }
    }

    fn create(&self, topics: &[&str]) {
        for topic in topics {
            let created = self.oracle.create_topic(&self.west, topic, 1, 1, &[]);
            created.unwrap();
        }
    }

    fn write(&self, topics: &[&str], records: u64) {
        for topic in topics {
            let load = Workload::new(*topic);
            self.oracle.produce(&self.west, &load, records).unwrap();
        }
    }

    /// Records on the target; none while there is no topic.
    fn mirrored(&self, topic: &str) -> u64 {
        let name = format!("west.{topic}");
        let options = DumpOptions::default();
        let dump = self
            .oracle
            .dump(&self.east, &name, Isolation::ReadCommitted, options);
        dump.map_or(0, |dump| dump.count())
    }

    fn wait_for(&self, topic: &str, records: u64) {
        wait_until(&format!("{topic} has {records} records"), SOON, || {
            self.mirrored(topic) == records
        });
    }

    /// All of the source is there once and in order.
    fn assert_equal(&self, topic: &str) {
        let compared = self
            .oracle
            .compare(
                (&self.west, topic),
                (&self.east, &format!("west.{topic}")),
                Isolation::ReadCommitted,
                SOON,
            )
            .unwrap();
        assert!(compared.equal, "{topic}: {compared}");
    }
}

/// A mirror with its admin server on this port.
fn served(toml: &str, port: u16) -> Mirror {
    let listen = format!("127.0.0.1:{port}");
    Mirror::new(toml).arguments(&["--admin-listen", &listen])
}

#[test]
fn a_running_link_obeys_what_is_set_and_a_restarted_one_too() {
    let kafka = Topics::shared();
    kafka.create(&["sel.a", "sel.b", "sel.secret"]);
    kafka.write(&["sel.a", "sel.b", "sel.secret"], 100);
    let more = "name = \"sel-cli\"\nexclude = [\".*secret\"]";
    let toml = west_to_east(&kafka.west, &kafka.east, &["sel.a"], more)
        .replace("refresh-topics = \"1s\"", "refresh-topics = \"off\"");
    let port = free_port();
    let mut mirror = served(&toml, port);
    // Before the first start: nothing is stored yet, and there may be no registry.
    let get_json =
        |mirror: &Mirror| printed(mirror, &["selection", "get", "mirror.toml", "--json"]);
    assert_eq!(
        get_json(&mirror),
        "{\"link\":\"sel-cli\",\"includes\":[\"sel.a\"],\"stored\":false,\"since_ms\":null,\"file\":[\"sel.a\"],\"excludes\":[\".*secret\"]}\n"
    );
    let active = |mirror: &Mirror| printed(mirror, &["mirroring-active-topics", "mirror.toml"]);
    assert_eq!(active(&mirror), "");
    mirror.start();
    kafka.wait_for("sel.a", 100);
    wait_until("a is active", SOON, || active(&mirror) == "sel.a\n");

    let set = ["mirroring-topic-selection-set", "mirror.toml", "--select"];
    let out = printed(&mirror, &[&set[..], &["^sel\\.b$,^sel.secret"]].concat());
    assert!(
        out.contains("link sel-cli\ntopics, as stored on east since 20")
            && out.contains("\n  ^sel\\.b$\n  ^sel.secret\ntopics of the file, not in force until strait selection reset\n  sel.a\n"),
        "{out}"
    );
    kafka.wait_for("sel.b", 100);
    mirror.wait_for_log(
        "link=sel-cli topics=^sel\\.b$,^sel.secret before=sel.a topics selected anew on the target at 20",
        SOON,
    );
    wait_until("only b is active", SOON, || active(&mirror) == "sel.b\n");
    // De-selected: nothing of it follows, here and behind a restart, where the stored selection wins.
    kafka.write(&["sel.a"], 50);
    kafka.write(&["sel.b"], 50);
    kafka.wait_for("sel.b", 150);
    mirror.stop();
    mirror.start();
    mirror.wait_for_log(
        "the file's (sel.a) do not hold until strait selection reset",
        SOON,
    );
    kafka.write(&["sel.b"], 50);
    kafka.wait_for("sel.b", 200);
    assert_eq!(kafka.mirrored("sel.a"), 100);
    let ready = "sel-cli: topics = ^sel\\.b$, ^sel.secret, as stored on the target since 20";
    wait_until("the page says so", SOON, || {
        get(port, "/readyz").is_some_and(|(status, body)| status == 200 && body.contains(ready))
    });

    // Selected again it goes on where it was, and the file's exclude still holds.
    let select = ["selection", "set", "mirror.toml", "--select"];
    printed(&mirror, &[&select[..], &["sel\\..*"]].concat());
    kafka.wait_for("sel.a", 150);
    kafka.assert_equal("sel.a");
    wait_until("a and b are active", SOON, || {
        active(&mirror) == "sel.a\nsel.b\n"
    });
    assert_eq!(kafka.mirrored("sel.secret"), 0);

    // What is wrong is refused and changes nothing.
    let before = get_json(&mirror);
    for (wrong, why) in [
        (
            "sel.a,(",
            "--select: pattern \"(\": it is not a regular expression: unclosed group; nothing was changed\n",
        ),
        (
            "sel.a,",
            "--select: an empty pattern beside others matches nothing; leave it out; nothing was changed\n",
        ),
    ] {
        let (code, _, said) = strait(mirror.folder(), &[&select[..], &[wrong]].concat());
        assert_eq!((code, said.as_str()), (2, why));
    }
    let neither = strait(mirror.folder(), &set[..2]);
    assert_eq!(neither.0, 2, "{neither:?}");
    let nobody = ["selection", "get", "mirror.toml", "--link", "other"];
    let (code, _, said) = strait(mirror.folder(), &nobody);
    assert_eq!(code, 2);
    assert_eq!(
        said,
        "--link: mirror.toml has no such link; it has sel-cli\n"
    );
    assert_eq!(get_json(&mirror), before);

    // None is a selection; a reset is not.
    let none = [
        "mirroring-topic-selection-set",
        "mirror.toml",
        "--none",
        "--json",
    ];
    let out = printed(&mirror, &none);
    assert!(out.contains("\"includes\":[],\"stored\":true"), "{out}");
    wait_until("none is active", SOON, || {
        get(port, "/readyz").is_some_and(|(status, body)| {
            status == 200 && body.contains("no topic is selected, as stored on the target")
        })
    });
    assert_eq!(active(&mirror), "");
    kafka.write(&["sel.a", "sel.b"], 50);
    let out = printed(&mirror, &["selection", "reset", "mirror.toml"]);
    assert!(
        out.contains("topics, as the file says; none are stored on east\n  sel.a\n"),
        "{out}"
    );
    kafka.wait_for("sel.a", 200);
    kafka.assert_equal("sel.a");
    mirror.wait_for_log(
        "topics=sel.a before=none the selection on the target was reset: the file's topics hold again",
        SOON,
    );
    assert_eq!(kafka.mirrored("sel.b"), 200);
    // What retention took meanwhile is reported.
    let taken = kafka.oracle.delete_records(&kafka.west, "sel.b", 0, 225);
    taken.unwrap();
    printed(&mirror, &[&select[..], &["sel.b"]].concat());
    kafka.wait_for("sel.b", 225);
    mirror.wait_for_log(
        "retention on the source overtook the mirror: offsets 200 to 224 of sel.b-0 are gone on cluster west",
        SOON,
    );
    mirror.stop();
    assert_eq!(active(&mirror), "");
}

/// The incident's id, of a body of an error that is otherwise as expected.
fn assert_error(answer: &Answered, status: u16, part: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.body.trim_end();
    let id = answer.header("x-global-transaction-id").unwrap();
    assert!(
        body.starts_with(&format!("{{\"error_code\":{status},"))
            && body.contains("\"message\":\"")
            && body.contains(part)
            && body.contains(&format!("\"incident_id\":\"{id}\"")),
        "{body}"
    );
}

#[test]
fn event_streams_endpoints_show_and_replace_the_selection() {
    let kafka = Topics::shared();
    kafka.create(&["http.a", "http.b"]);
    kafka.write(&["http.a", "http.b"], 20);
    let (port, dead) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let toml = format!(
        "[admin]\ntoken-file = \"tokens\"\n\
         [clusters]\nwest = {:?}\neast = {:?}\nsouth = {dead:?}\nnorth = {dead:?}\n\
         [[links]]\nname = \"sel-http\"\nsource = \"west\"\ntarget = \"east\"\ntopics = [\"http.a\"]\nrefresh-topics = \"1s\"\n\
         [[links]]\nsource = \"south\"\ntarget = \"north\"\ntopics = [\"x\"]\nnaming = \"suffix\"\n",
        kafka.west, kafka.east
    );
    let mut mirror = served(&toml, port);
    let tokens = mirror.folder().join("tokens");
    std::fs::write(&tokens, format!("viewer = {VIEWER}\nmanager = {MANAGER}\n")).unwrap();
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    // Whoever can read it has the tokens.
    std::fs::set_permissions(&tokens, mode(0o644)).unwrap();
    mirror.start();
    assert_eq!(mirror.wait(SOON).code(), Some(3));
    mirror.wait_for_log(
        "others than its owner and group have rights on it (mode 0644). Take them away: chmod 600",
        SOON,
    );
    assert!(!mirror.log().contains(MANAGER));
    std::fs::set_permissions(&tokens, mode(0o600)).unwrap();
    mirror.start();
    kafka.wait_for("http.a", 20);

    let bearer = format!("Bearer {MANAGER}");
    let manager = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let viewer = [("X-Auth-Token", VIEWER)];
    let of_west = format!("{SELECTION}?source=west");
    let read = |path: &str| send(port, "GET", path, &viewer, "").unwrap();
    let post = |body: &str| send(port, "POST", &of_west, &manager, body).unwrap();

    // 200
    let answer = read(&of_west);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body.trim_end(), "{\"includes\":[\"http.a\"]}");
    let wanted = "{\"includes\":[\"^http\\\\.b$\"]}";
    let named = [&manager[..], &[("X-Global-Transaction-Id", "change-42")]].concat();
    let answer = send(port, "POST", &of_west, &named, wanted).unwrap();
    assert_eq!((answer.status, answer.body.trim_end()), (200, wanted));
    assert_eq!(answer.header("x-global-transaction-id"), Some("change-42"));
    assert_eq!(read(&of_west).body.trim_end(), wanted);
    mirror.wait_for_log(
        "incident=change-42 before=http.a after=^http\\.b$ the selection of topics was replaced over HTTP",
        SOON,
    );
    mirror.wait_for_log("link=sel-http role=manager peer=127.0.0.1:", SOON);
    kafka.wait_for("http.b", 20);
    let active = format!("{ACTIVE}?source=west");
    wait_until("only b is active", SOON, || {
        read(&active).body.trim_end() == "{\"active_topics\":[\"http.b\"]}"
    });
    // The command line reads the same.
    let get = [
        "mirroring-topic-selection",
        "mirror.toml",
        "--link",
        "sel-http",
    ];
    assert!(printed(&mirror, &get).contains("\n  ^http\\.b$\n"));
    // 400
    assert_error(&post("{\"includes\":"), 400, "the body is not JSON");
    assert_error(&post("{\"includes\":[\"(\"]}"), 400, "unclosed group");
    assert_error(&read(SELECTION), 400, "?source=: west, south");
    // 401
    for headers in [&[][..], &[("Authorization", "Bearer no-such-token-here")]] {
        let answer = send(port, "GET", &of_west, headers, "").unwrap();
        assert_error(&answer, 401, "no token that is known here");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    // 403
    let may_look = [viewer[0], manager[1]];
    let answer = send(port, "POST", &of_west, &may_look, wanted).unwrap();
    assert_error(&answer, 403, "the viewer's token may look");
    // 404
    let nowhere = read(&format!("{SELECTION}?source=nowhere"));
    assert_error(&nowhere, 404, "no such link runs here");
    // 405, 413, 415
    let answer = send(port, "DELETE", &of_west, &manager, "").unwrap();
    assert_error(&answer, 405, "method");
    assert_eq!(answer.header("allow"), Some("GET, POST"));
    let length = [manager[0], manager[1], ("Content-Length", "300000")];
    let answer = send(port, "POST", &of_west, &length, "").unwrap();
    assert_error(&answer, 413, "more than 262144 bytes");
    let text = [manager[0], ("Content-Type", "text/plain")];
    let answer = send(port, "POST", &of_west, &text, wanted).unwrap();
    assert_error(&answer, 415, "Content-Type: application/json");
    // 503
    let of_south = format!("{SELECTION}?source=south");
    let answer = send(port, "POST", &of_south, &manager, wanted).unwrap();
    assert_error(&answer, 503, "cannot reach cluster 'north'");
    // None of this changed anything; an empty pattern selects nothing.
    assert_eq!(read(&of_west).body.trim_end(), wanted);
    let basic = "Basic dG9rZW46bWFuYWdlci0wMTIzNDU2Nzg5YWJjZGVm";
    let by_basic = [("Authorization", basic), manager[1]];
    let answer = send(port, "POST", &of_west, &by_basic, "{\"includes\":[\"\"]}").unwrap();
    assert_eq!(
        (answer.status, answer.body.trim_end()),
        (200, "{\"includes\":[]}")
    );
    wait_until("none is active", SOON, || {
        read(&active).body.trim_end() == "{\"active_topics\":[]}"
    });
    for token in [VIEWER, MANAGER] {
        assert!(!mirror.log().contains(token));
    }
    mirror.stop();

    // Without tokens there are no such endpoints.
    let toml = west_to_east(&kafka.west, &kafka.east, &["http.a"], "name = \"sel-http\"");
    let mut mirror = served(&toml, port).started();
    wait_until("the pages are served", SOON, || get_page(port));
    let answer = send(port, "GET", SELECTION, &manager, "").unwrap();
    assert_error(&answer, 404, "mirroring is not enabled here");
    mirror.stop();
}

fn get_page(port: u16) -> bool {
    get(port, "/healthz").is_some_and(|(status, _)| status == 200)
}

#[test]
fn a_selection_that_closes_a_circle_is_refused() {
    let kafka = Topics::shared();
    kafka.create(&["circle_a"]);
    let clusters = format!(
        "[clusters]\nwest = {:?}\neast = {:?}\n",
        kafka.west, kafka.east
    );
    let link = |name: &str, from: &str, to: &str, topic: &str| {
        format!(
            "[[links]]\nname = {name:?}\nsource = {from:?}\ntarget = {to:?}\ntopics = [{topic:?}]\nnaming = \"identity\"\nrefresh-topics = \"1s\"\n"
        )
    };
    let there = link("circle-there", "west", "east", "circle_a");
    let back = link("circle-back", "east", "west", "circle_b");
    let port = free_port();
    let mut mirror = served(&format!("{clusters}{there}{back}"), port).started();
    wait_until("both links run", SOON, || {
        get(port, "/readyz")
            .is_some_and(|(status, body)| status == 200 && body.starts_with("2 links mirroring"))
    });
    let all = ["selection", "set", "mirror.toml", "--select", "circle_.*"];
    let (code, _, said) = strait(mirror.folder(), &all);
    assert_eq!(code, 2);
    assert_eq!(
        said,
        "mirror.toml has several links: say which one with --link: circle-there, circle-back\n"
    );
    let named = [&all[..], &["--link", "circle-back"]].concat();
    let (code, _, said) = strait(mirror.folder(), &named);
    assert_eq!(code, 3, "{said}");
    assert!(
        said.contains(
            "identity naming sends the same topics round and round: circle-there, circle-back"
        ) && said.ends_with("; nothing was changed\n"),
        "{said}"
    );
    // From a file that does not know of the other link it can be stored; the process that runs both does not obey.
    let alone = Mirror::new(&format!("{clusters}{back}"));
    printed(&alone, &all);
    mirror.wait_for_log(
        "WARN  link=circle-back id=selection-refused the selection of topics is not obeyed, what was selected before holds on: identity naming sends ",
        SOON,
    );
    printed(&alone, &["selection", "reset", "mirror.toml"]);
    wait_until("the file's topics hold again", SOON, || {
        get(port, "/readyz").is_some_and(|(_, body)| body == "2 links mirroring\n")
    });
    mirror.stop();
}
