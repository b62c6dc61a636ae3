//! `ezio doctor`, in networks of which the test knows what is wrong.

use super::{ezio, image, run, serve, text};
use lab::{Lan, Links, Need};
use serde_json::Value;
use std::process::Output;

fn findings(output: &Output) -> Vec<Value> {
    let out = text(&output.stdout);
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn verdict<'a>(findings: &'a [Value], check: &str) -> &'a str {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no {check}: {findings:#?}"))["verdict"].as_str().unwrap()
}

/// A server and another machine on a switch: nothing is wrong there. Alone, much is.
#[test]
fn a_machine_is_looked_at_from_all_sides() {
    lab::require!([Need::Root, Need::Program("ip"), Need::Program("tc")]);
    let lan = Lan::new(2, &Links::default()).unwrap();
    let (dir, path) = image(1 << 20);
    let server_addr = lan.addr(0);
    let mut server = lan.command(0, ezio());
    server.args(["serve", "--json", "--raw", path.to_str().unwrap()]);
    let mut server = lab::Running::spawn(server).unwrap();
    server.ready().unwrap();
    let (url, target) = (format!("http://{server_addr}:6969"), dir.path().join("to"));
    let doctor = |machine: usize, args: &[&str]| {
        let mut command = lan.command(machine, ezio());
        command.args(["doctor", "--json"]).args(args).output().unwrap()
    };
    let well = doctor(1, &[&url, "--to", target.to_str().unwrap()]);
    let found = findings(&well);
    assert_eq!(well.status.code(), Some(0), "{found:#?}");
    for check in ["rights", "memory", "port 6969", "peer port", "server"] {
        assert_eq!(verdict(&found, check), "ok", "{found:#?}");
    }
    assert_eq!(verdict(&found, &format!("target {}", target.display())), "ok");
    assert!(!target.exists(), "nothing is written");
    let result = found.last().unwrap();
    assert_eq!((&result["event"], &result["wrong"]), (&"result".into(), &0.into()));
    // On the server's own machine its port is taken, by itself.
    let own = findings(&doctor(0, &[]));
    assert_eq!(verdict(&own, "port 6969"), "ok");
    drop(server);
    let ill = doctor(1, &[&url, "--to", "/dev/null"]);
    let found = findings(&ill);
    assert_eq!(ill.status.code(), Some(1));
    for check in ["server", "target /dev/null"] {
        assert_eq!(verdict(&found, check), "wrong", "{found:#?}");
    }
}

#[test]
fn people_read_what_to_do() {
    let (_dir, path) = image(1 << 20);
    let (_server, url) = serve(&path, &[]);
    let output = run(&["doctor", &url, "--to", "/dev/null"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    let at =
        lines.iter().position(|line| line.starts_with("wrong    target /dev/null: ")).expect(&said);
    assert!(lines[at + 1].starts_with("         -> `lsblk` lists"), "{said}");
    assert!(said.contains("ok       server: serves classroom: 1 MiB used"), "{said}");
    assert!(lines.last().unwrap().ends_with(" wrong"), "{said}");
}
