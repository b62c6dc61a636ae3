//! The description of the API against the running server: every path, and every field in both
//! directions.

use super::room::{Room, Trouble};
use super::{PATIENCE, ask, ezio, serve};
use lab::{Lan, Links, Need, Running, require, tool};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Says what of `value` is not as `schema` has it.
fn check(description: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let named = &description["components"]["schemas"][name.rsplit('/').next().unwrap()];
        return check(description, named, value, at, faults);
    }
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        other => panic!("{at}: the type {other:?}"),
    };
    if !fits {
        faults.push(format!("{at} is {value:.40}, not as {schema:.80}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        faults.push(format!("{at} is {value}, none of {allowed:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        check(description, &schema["items"], item, &format!("{at}[]"), faults);
    }
    let (Some(object), Some(known)) = (value.as_object(), schema["properties"].as_object()) else {
        return;
    };
    for (key, inner) in object {
        match known.get(key) {
            Some(schema) => check(description, schema, inner, &format!("{at}.{key}"), faults),
            None => faults.push(format!("{at}.{key} is not described")),
        }
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(key.as_str().unwrap()) {
            faults.push(format!("{at} lacks {key}"));
        }
    }
}

#[test]
fn every_path_and_field_is_described_and_answers_so() {
    let server = serve(&[]);
    let _room = Room::open(server.addr, &server.info_hash, 0, vec![Trouble::None, Trouble::Done]);
    server.wait("known", |machine| machine["phase"].is_string());
    let description = server.get("/api/openapi.json", "").json();
    let end = Instant::now() + PATIENCE;
    let known = || {
        let image = server.get("/api/images", "").json()[0]["bytes"].as_u64().unwrap_or_default();
        image > 0 && server.get("/api/machines", "").json()[1].is_object()
    };
    while !known() {
        assert!(Instant::now() < end, "the image and both machines are not known");
    }
    let mut faults = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            let content = described["responses"]["200"]["content"].as_object().unwrap();
            let (kind, schema) = content.iter().next().unwrap();
            if path == "/events" {
                continue;
            }
            let asked = path.replace("{file}", "classroom.torrent");
            let answer = match method.as_str() {
                "get" => server.get(&asked, &format!("Accept: {kind}\r\n")),
                _ if path == "/api/actions" => {
                    server.order(&json!({"action": "pause", "machines": "all"}))
                }
                _ => {
                    let headers = "Content-Type: application/json\r\n";
                    let body = r#"{"node": "here"}"#;
                    ask(LOCALHOST, server.addr, "POST", &asked, headers, body).unwrap()
                }
            };
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
            let head = answer.head.to_ascii_lowercase();
            assert!(head.contains(&format!("content-type: {kind}")), "{path}: {head}");
            if let Some(schema) = schema.get("schema") {
                check(&description, schema, &answer.json(), path, &mut faults);
            }
        }
    }
    assert_eq!(faults, [] as [String; 0]);
    // And there is nothing that is not described.
    let sources = [
        include_str!("../../src/control/http.rs"),
        include_str!("../../src/control/http/dashboard.rs"),
    ];
    let routes: BTreeSet<&str> = sources
        .iter()
        .flat_map(|text| text.split(".route(\"").skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let described = description["paths"].as_object().unwrap();
    let described: BTreeSet<&str> = described.keys().map(String::as_str).collect();
    assert_eq!(routes, described);
    let metrics = server.get("/metrics", "").body;
    metrics_are_as_prometheus_wants_them(&metrics);
    let grafana = include_str!("../../../../docs/grafana.json");
    for name in grafana.split("ezio_").skip(1) {
        let end = name.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap();
        let family = format!("# TYPE ezio_{} ", &name[..end]);
        assert!(metrics.contains(&family), "Grafana asks for what there is not: {family}");
    }
}

/// Every sample belongs to a family with HELP and TYPE before it, and names say their units.
fn metrics_are_as_prometheus_wants_them(text: &str) {
    let (mut family, mut kind) = ("", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap();
            assert!(rest.ends_with('.'), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, is) = rest.split_once(' ').unwrap();
            assert_eq!(name, family, "{line}");
            kind = is;
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(series.split('{').next().unwrap(), family, "{line}");
            assert!(!kind.is_empty() && value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for wanted in [
        "ezio_image_bytes{image=\"classroom\"} 21474836480",
        "ezio_machines{phase=\"done\"} 1",
        "ezio_machine_progress_ratio{machine=\"lab-02\",address=\"127.3.0.3\",device=\"/dev/sda\"} 1",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
}

#[test]
fn a_private_server_shows_nothing_to_strangers_and_takes_reports() {
    let server = serve(&["--private", "--allow-host", "images.school.example"]);
    let token = format!("Authorization: Bearer {}\r\n", server.token);
    for path in ["/events", "/metrics", "/report.csv", "/api/machines", "/api/status"] {
        assert_eq!(server.get(path, "").status, 401, "{path}");
    }
    assert_eq!(server.get("/api/machines", &token).status, 200);
    assert_eq!(
        server.get("/api/machines", &format!("{token}Host: images.school.example\r\n")).status,
        200
    );
    assert_eq!(server.get("/api/machines", &format!("{token}Host: evil.example\r\n")).status, 421);
    let page = server.get("/", "Accept: text/html\r\n");
    assert_eq!(page.status, 200);
    let head = page.head.to_ascii_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    let report = r#"{"node": "here"}"#;
    let headers = "Content-Type: application/json\r\n";
    let answer = ask(LOCALHOST, server.addr, "POST", "/api/report", headers, report).unwrap();
    assert_eq!(answer.status, 200, "machines need no token");
    assert_eq!(server.get("/torrents/classroom.torrent", "").status, 200);
    assert_eq!(server.get("/healthz", "Host: evil.example\r\n").status, 200);
}

/// A server and two other machines on a switch, of which the server is told to obey none, or one.
#[test]
fn orders_are_taken_on_the_server_unless_told_otherwise() {
    require!([Need::Root, Need::Program("ip"), Need::Program("tc"), Need::Program("curl")]);
    let lan = Lan::new(3, &Links::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("disk.img");
    std::fs::write(&source, vec![7; 1 << 20]).unwrap();
    let allowed = lan.addr(2).to_string();
    for options in [&[][..], &["--control", &allowed]] {
        let mut server = lan.command(0, ezio());
        server.args(["serve", "--json", "--raw", source.to_str().unwrap()]).args(options);
        let mut server = Running::spawn(server).unwrap();
        let token = server.ready().unwrap()["token"].as_str().unwrap().to_owned();
        // Status and what is said, of an order from `machine` to `host`.
        let order = |machine: usize, host: &str, token: &str| {
            let mut curl = lan.command(machine, Path::new("curl"));
            curl.args(["-sS", "--max-time", "30", "-w", "%{http_code}"]);
            curl.args(["-H", "Content-Type: application/json", "-H"]);
            curl.arg(format!("Authorization: Bearer {token}"));
            curl.args(["-d", r#"{"action": "pause", "machines": "all"}"#]);
            tool::run(curl.arg(format!("http://{host}:6969/api/actions"))).unwrap()
        };
        let addr = lan.addr(0).to_string();
        for own in ["127.0.0.1", &addr] {
            assert_eq!(order(0, own, &token), r#"{"machines":0}200"#);
            assert!(order(0, own, "another token").ends_with("401"));
        }
        let refused = order(1, &addr, &token);
        let words = format!("--control {}", lan.addr(1));
        assert!(refused.ends_with("403") && refused.contains(&words), "{refused}");
        let other = order(2, &addr, &token);
        let wanted = if options.is_empty() { "403" } else { "200" };
        assert!(other.ends_with(wanted), "{options:?}: {other}");
        // Looking is for all.
        let mut curl = lan.command(1, Path::new("curl"));
        let machines = curl.args(["-fsS", &format!("http://{addr}:6969/api/machines")]);
        assert_eq!(tool::run(machines).unwrap(), "[]");
    }
}
