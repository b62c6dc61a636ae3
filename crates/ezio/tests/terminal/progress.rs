//! How far a work is: bars on a terminal, lines in a pipe, objects for programs.

use super::pty::{Terminal, plain};
use super::{ALONE, ezio, image, run, serve, text};
use lab::Running;
use serde_json::Value;
use std::collections::BTreeSet;

/// Every phase of a deployment, with rate, time left and peers, on a terminal.
#[test]
fn bars_tell_phase_rate_time_left_and_peers() {
    let (dir, path) = image(24 << 20);
    let (_server, url) = serve(&path, &["--limit", "8MB/s"]);
    let target = format!("--to={}", dir.path().join("target").display());
    let args = [&["deploy", &url, &target, "--verify"], &ALONE[..]].concat();
    let mut terminal = Terminal::start(&args, (100, 24), &[]);
    terminal.wait_output("s left  1 peer");
    assert_eq!(terminal.end().code(), Some(0), "{}", terminal.output());
    let shown = plain(&terminal.output());
    for words in ["downloading /", " MB/s  ", "%", "target: 24 MiB of classroom are on the medium"]
    {
        assert!(shown.contains(words), "no `{words}`: {shown}");
    }
    assert!(terminal.output().contains('█'));
    let mut ascii = Terminal::start(&args, (100, 24), &[("LC_ALL", "C"), ("NO_COLOR", "1")]);
    assert_eq!(ascii.end().code(), Some(0));
    assert!(ascii.output().is_ascii() && !ascii.output().contains("\x1b[3"), "{}", ascii.output());
}

/// An image that takes some time and no room: zeros.
#[test]
fn capture_and_verify_have_bars_too() {
    let dir = tempfile::tempdir().unwrap();
    let (image, torrent) = (dir.path().join("zeros"), dir.path().join("zeros.torrent"));
    std::fs::File::create(&image).unwrap().set_len(3 << 30).unwrap();
    let [image, torrent] = [&image, &torrent].map(|path| path.to_str().unwrap());
    for (args, phase, said) in [
        (&["capture", "--raw", image, "-o", torrent][..], "capture ", "3 GiB"),
        (&["verify", torrent, image], "verify ", "are right"),
    ] {
        let mut terminal = Terminal::start(args, (100, 24), &[]);
        terminal.wait_output("s left");
        assert_eq!(terminal.end().code(), Some(0), "{}", terminal.output());
        let shown = plain(&terminal.output());
        for words in [phase, "%  ", "B/s  ", said] {
            assert!(shown.contains(words), "no `{words}`: {shown}");
        }
        assert!(terminal.output().contains('█'), "{shown}");
    }
}

#[test]
fn a_pipe_gets_lines_and_no_control_characters() {
    let (dir, path) = image(24 << 20);
    let (_server, url) = serve(&path, &["--limit", "3MB/s"]);
    let target = format!("--to={}", dir.path().join("target").display());
    let output = run(&[&["deploy", &url, &target], &ALONE[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(!said.contains('\x1b') && !said.contains('\r'), "{said:?}");
    let line = said.lines().find(|line| line.starts_with("downloading /")).expect(&said);
    assert!(line.contains("% of 24 MiB, ") && line.contains("MB/s, "), "{line}");
    assert!(line.contains("s left, 1 peer"), "{line}");
    assert!(text(&output.stdout).contains("are on the medium"));
}

/// Two images at once: every event tells of both, and of each.
#[test]
fn events_tell_of_every_target() {
    let (dir, first) = image(12 << 20);
    let second = dir.path().join("office");
    std::fs::write(&second, vec![7; 3 << 20]).unwrap();
    let args = [second.to_str().unwrap(), "--limit", "3MB/s"];
    let (mut server, url) = serve(&first, &args);
    let to =
        |name: &str| format!("--to={name}={}", dir.path().join(format!("to-{name}")).display());
    let (classroom, office) = (to("classroom"), to("office"));
    let args = ["deploy", &url, &classroom, &office, "--verify"];
    let mut client = Running::start(ezio(), &args).unwrap();
    let mut events = Vec::new();
    while let Some(event) = client.event().unwrap() {
        events.push(event);
    }
    assert_eq!(client.code().unwrap(), Some(0));
    let progress: Vec<&Value> =
        events.iter().filter(|e| e["event"] == "progress" && !e["targets"].is_null()).collect();
    assert!(progress.len() >= 3, "{events:#?}");
    for event in &progress {
        let targets = event["targets"].as_array().unwrap();
        let sum = |key: &str| targets.iter().map(|t| t[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(
            (event["bytes"].as_u64(), event["total"].as_u64()),
            (Some(sum("bytes")), Some(sum("total")))
        );
        assert_eq!(targets.len(), 2);
    }
    let phases: BTreeSet<&str> = progress.iter().filter_map(|e| e["phase"].as_str()).collect();
    assert!(phases.contains("downloading"), "{phases:?}");
    let known = |key: &str| progress.iter().any(|event| event[key].as_u64().is_some_and(|n| n > 0));
    assert!(known("bytes_per_second") && known("eta_seconds") && known("peers"), "{progress:#?}");
    // The server tells what the machine did, without being asked.
    let told = loop {
        let event = server.event().unwrap().expect("it goes on");
        if event["event"] == "machine" {
            break event;
        }
    };
    assert_eq!(told["machine"]["phase"], "done");
}
