//! The log of a server, a deployment and a daemon: text, JSON, systemd's journal.

use super::{ALONE, PATIENCE, ezio, image, run, serve, text, wait};
use lab::Need;
use serde_json::Value;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

fn objects(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn a_server_and_a_deployment_log_what_happens_once() {
    let (dir, path) = image(4 << 20);
    let (server_log, client_log) = (dir.path().join("server.json"), dir.path().join("client.log"));
    let options = ["--log", server_log.to_str().unwrap(), "--log-format", "json"];
    let (server, url) = serve(&path, &options);
    let target = format!("--to={}", dir.path().join("target").display());
    let log = ["--log", client_log.to_str().unwrap(), "--log-level", "debug"];
    let output = run(&[&["deploy", &url, &target], &log[..], &ALONE[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    wait("the machine's end is logged", || {
        objects(&server_log).iter().any(|line| line["message"] == "a machine is done")
    });
    let lines = objects(&server_log);
    let count = |words: &str| lines.iter().filter(|line| line["message"] == words).count();
    for words in ["ezio begins", "serving", "a machine is done"] {
        assert_eq!(count(words), 1, "{words}: {lines:#?}");
    }
    // Both may have dialled.
    assert!((1..=2).contains(&count("a peer is connected")), "{lines:#?}");
    let peer = lines.iter().find(|line| line["message"] == "a peer is connected").unwrap();
    assert!(peer["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{peer}");
    assert!(peer["client"].as_str().unwrap().starts_with("-XG"), "{peer}");
    assert!(lines.iter().all(|line| line["level"] == "info" || line["level"] == "warning"));
    let time = lines[0]["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
    let token = std::fs::read_to_string(&server_log).unwrap();
    assert!(!token.contains("token"), "the token is for the terminal alone");
    drop(server);
    let log = std::fs::read_to_string(&client_log).unwrap();
    for words in ["deployment begins", "the image is on the medium", "ezio ends command=deploy"] {
        assert_eq!(log.matches(words).count(), 1, "{words}: {log}");
    }
    // People get what they always got.
    assert!(!text(&output.stderr).contains("deployment begins"));
}

#[test]
fn a_failure_is_in_the_log_and_on_the_terminal_once_each() {
    let (dir, path) = image(1 << 20);
    let (_server, url) = serve(&path, &[]);
    let log = dir.path().join("log");
    let args = ["deploy", &url, "--to=/dev/null", "--log", log.to_str().unwrap()];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1));
    let log = std::fs::read_to_string(&log).unwrap();
    for said in [&log, &text(&output.stderr)] {
        assert_eq!(said.matches("character device").count(), 1, "{said}");
    }
    assert!(log.contains("Z error   open /dev/null"), "{log}");
    // The standard error has either the one or the other.
    let output = run(&["deploy", &url, "--to=/dev/null", "--log-format", "json"]);
    let said = text(&output.stderr);
    assert!(said.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{said}");
    assert_eq!(said.matches("character device").count(), 1, "{said}");
    let bad = run(&["deploy", &url, "--to=/dev/null", "--log", "/no/such/dir/log"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("open the log /no/such/dir/log: "), "{}", text(&bad.stderr));
}

/// Without a journal, levels are what systemd makes of a prefix; only if it reads this very stream.
#[test]
fn a_stream_that_systemd_reads_gets_its_prefixes() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("stderr")).unwrap();
    let stat = file.metadata().unwrap();
    let said = |stream: String| {
        file.set_len(0).unwrap();
        let mut command = Command::new(ezio());
        command.args(["deploy", "/no/such.torrent", "--to=/dev/null"]);
        command.env("JOURNAL_STREAM", stream).stderr(file.try_clone().unwrap());
        assert_eq!(command.status().unwrap().code(), Some(1));
        std::fs::read_to_string(dir.path().join("stderr")).unwrap()
    };
    if Path::new("/run/systemd/journal/socket").exists() {
        lab::skip!("this machine has a journal, which would get it");
    }
    let log = said(format!("{}:{}", stat.dev(), stat.ino()));
    let log = log.trim_start_matches('\0');
    assert!(
        log.contains("<6>ezio begins command=deploy") && log.contains("<3>open /no/such"),
        "{log}"
    );
    let plain = said(format!("{}:{}", stat.dev(), stat.ino() + 1));
    let plain = plain.trim_start_matches('\0');
    assert!(plain.starts_with("ezio: open /no/such.torrent"), "{plain}");
}

/// A journal of the test's own, at its place in a mount namespace.
#[test]
fn the_journal_gets_a_field_for_each_value() {
    lab::require!([Need::Root, Need::Program("unshare"), Need::Program("mount")]);
    let (dir, path) = image(1 << 20);
    let (_server, url) = serve(&path, &[]);
    let place = dir.path().join("journal");
    std::fs::create_dir(&place).unwrap();
    let journal = UnixDatagram::bind(place.join("socket")).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let (place, target) = (place.to_str().unwrap(), dir.path().join("target"));
    let script = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
         mount --bind {place} /run/systemd/journal && \
         exec {} deploy {url} --to {} --log-format journald --port 0 --peers 127.0.0.0/8",
        ezio().display(),
        target.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).stdout(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let (mut bytes, mut seen) = (vec![0; 64 << 10], Vec::new());
    while !seen.iter().any(|entry: &String| entry.contains("MESSAGE=ezio ends")) {
        let len = journal.recv(&mut bytes).unwrap();
        seen.push(text(&bytes[..len]));
    }
    let peer = seen.iter().find(|entry| entry.starts_with("MESSAGE=a peer is connected")).unwrap();
    for field in
        ["PRIORITY=6\n", "SYSLOG_IDENTIFIER=ezio\n", "EZIO_PEER=127.0.0.1:", "EZIO_TORRENT="]
    {
        assert!(peer.contains(field), "{field}: {peer}");
    }
    assert_eq!(text(&output.stderr), "", "all of it is in the journal");
}
