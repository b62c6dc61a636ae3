//! Orders of the dashboard, carried out by real deployments.

use super::{PATIENCE, Server, ezio, serve};
use lab::Running;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

fn deploy(server: &Server, target: &Path, options: &[&str]) -> Running {
    let url = format!("http://{}", server.addr);
    let base = ["deploy", url.as_str(), "--to", target.to_str().unwrap()];
    Running::start(ezio(), &[&base, options].concat()).unwrap()
}

fn order(server: &Server, action: &str, limit: &Value) {
    let order = json!({"action": action, "machines": "all", "limit": limit});
    let answer = server.order(&order);
    assert_eq!((answer.status, answer.json()["machines"].as_u64()), (200, Some(1)), "{action}");
}

/// The image is much larger than what is received here: the limits hold it.
#[test]
fn a_deployment_pauses_goes_on_and_keeps_to_a_limit() {
    let server = serve(&[]);
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("copy.img");
    let client = deploy(&server, &target, &["--limit", "16MB/s"]);
    let received = |machine: &Value| machine["received_bytes"].as_u64().unwrap_or(0);
    let machine = server.wait("receiving", |machine| received(machine) > 0);
    assert_eq!((&machine["phase"], &machine["limit"]), (&json!("downloading"), &json!(16_000_000)));
    assert_eq!(machine["device"], target.to_str().unwrap());
    assert_eq!((&machine["interface"], &machine["peers"]), (&json!("lo"), &json!(1)));
    order(&server, "pause", &Value::Null);
    server.wait("paused", |machine| machine["paused"] == true);
    // What was asked for before may still come.
    server.wait("still", |machine| machine["rate_in"] == 0);
    let still = received(&server.wait("known", |_| true));
    let end = Instant::now() + std::time::Duration::from_secs(3);
    while Instant::now() < end {
        assert_eq!(received(&server.wait("known", |_| true)), still, "it goes on in its pause");
    }
    order(&server, "limit", &json!(4_000_000));
    order(&server, "resume", &Value::Null);
    server.wait("going on", |machine| received(machine) > still && machine["paused"] == false);
    let (since, before) = (Instant::now(), received(&server.wait("known", |_| true)));
    let machine = server.wait("some seconds on", |_| since.elapsed().as_secs() >= 6);
    assert_eq!(machine["limit"], 4_000_000);
    let rate = (received(&machine) - before) as f64 / since.elapsed().as_secs_f64();
    assert!(rate < 8e6, "{rate} bytes a second, above twice the limit");
    client.signal("TERM").unwrap();
    assert_eq!(client.code().unwrap(), Some(1));
    // The last word of a machine that leaves.
    let machine = server.wait("failed", |machine| machine["phase"] == "failed");
    assert!(machine["error"].as_str().unwrap().starts_with("interrupted"), "{machine}");
}

#[test]
fn a_failed_deployment_is_seen_and_tried_again_and_leaves_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("disk.img");
    let mut bytes = vec![0; 3 << 20];
    lab::Random::new(5).fill(&mut bytes);
    std::fs::write(&source, &bytes).unwrap();
    let args = ["serve", "--http", "127.0.0.1:0", source.to_str().unwrap()];
    let mut process = Running::start(ezio(), &args).unwrap();
    let ready = process.ready().unwrap();
    let port = u16::try_from(ready["http_port"].as_u64().unwrap()).unwrap();
    let server = Server {
        pid: process.pid(),
        _process: process,
        addr: ([127, 0, 0, 1], port).into(),
        token: ready["token"].as_str().unwrap().to_owned(),
        info_hash: String::new(),
        _dir: tempfile::tempdir().unwrap(),
    };
    let target = dir.path().join("later/copy.img");
    let mut client = deploy(&server, &target, &["--stay", "300", "--verify"]);
    let machine = server.wait("failed", |machine| machine["health"] == "failed");
    assert_eq!((&machine["phase"], &machine["can_retry"]), (&json!("failed"), &json!(true)));
    assert!(machine["error"].as_str().unwrap().contains("later/copy.img"), "{machine}");
    std::fs::create_dir(dir.path().join("later")).unwrap();
    order(&server, "retry", &Value::Null);
    order(&server, "finish", &Value::Null);
    client.result().unwrap();
    assert_eq!(client.code().unwrap(), Some(0));
    assert!(std::fs::read(&target).unwrap() == bytes);
    let machine = server.wait("done", |machine| machine["phase"] == "done");
    assert_eq!((&machine["verified"], &machine["read_again"]), (&json!(true), &json!(true)));
    assert_eq!((&machine["error"], &machine["progress"]), (&json!(""), &json!(1.0)));
    let csv = server.get("/report.csv", "").body;
    assert!(csv.lines().nth(1).is_some_and(|line| line.contains(",done,")), "{csv}");
    // Who has failed and does not wait says so, and ends.
    let end = Instant::now() + PATIENCE;
    let elsewhere = dir.path().join("nowhere/copy.img");
    assert_eq!(deploy(&server, &elsewhere, &[]).code().unwrap(), Some(1));
    loop {
        let machines = server.get("/api/machines", "").json();
        if machines[1]["phase"] == "failed" && machines[1]["can_retry"] == false {
            break;
        }
        assert!(Instant::now() < end, "{machines:#}");
    }
}
