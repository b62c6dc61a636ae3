use super::*;

const HASH: &str = "0101010101010101010101010101010101010101";

fn report(host: &str, stored: u64, phase: &str) -> Value {
    json!({
        "node": host, "host": host, "phase": phase, "seconds": 30, "can_retry": true,
        "torrents": [{
            "info_hash": HASH, "name": "lab", "image_bytes": 1000, "stored_bytes": stored,
            "received_bytes": stored, "peers": 3, "map": "f".repeat(MAP_LEN / 2) + &"0".repeat(MAP_LEN / 2),
        }],
    })
}

fn tell(fleet: &mut Fleet, now: Instant, addr: u8, report: &Value) -> Value {
    let from = std::net::Ipv4Addr::new(10, 0, 0, addr).into();
    fleet.reports.keep(now, from, report.to_string().as_bytes()).unwrap()
}

fn surroundings() -> Surroundings {
    let image = Image {
        name: "lab".into(),
        info_hash: HASH.into(),
        bytes: 1000,
        pieces: 10,
        ..Image::default()
    };
    Surroundings { images: vec![image], ..Surroundings::default() }
}

/// The next event: its name and its data.
fn next(events: &mut mpsc::Receiver<Bytes>) -> (String, Value) {
    let bytes = events.try_recv().expect("an event");
    let text = std::str::from_utf8(&bytes).unwrap();
    let (name, data) = text.trim_end().split_once('\n').unwrap();
    let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    (name.strip_prefix("event: ").unwrap().to_owned(), data)
}

#[test]
fn viewers_get_the_whole_and_then_what_changes() {
    let (mut fleet, now) = (Fleet::new(), Instant::now());
    tell(&mut fleet, now, 1, &report("a", 100, "downloading"));
    tell(&mut fleet, now, 2, &report("b", 1000, "done"));
    fleet.tick(now, surroundings());
    let mut events = fleet.view().unwrap();
    let (name, all) = next(&mut events);
    assert_eq!(name, "snapshot");
    assert_eq!(all["machines"].as_array().unwrap().len(), 2);
    assert_eq!(all["machines"][0]["progress"], 0.1);
    assert_eq!(all["images"][0]["copies"][0], 3.0, "this server and two machines");
    assert_eq!(all["images"][0]["copies"][MAP_LEN - 1], 1.0);
    assert_eq!((&all["summary"]["done"], &all["summary"]["working"]), (&json!(1), &json!(1)));
    tell(&mut fleet, now + Duration::from_secs(1), 1, &report("a", 200, "downloading"));
    fleet.tick(now + Duration::from_secs(1), surroundings());
    let (name, delta) = next(&mut events);
    assert_eq!(name, "delta");
    let changed = delta["machines"].as_array().unwrap();
    assert_eq!(changed.len(), 1, "{delta}");
    assert_eq!((&changed[0]["id"], &changed[0]["progress"]), (&json!(1), &json!(0.2)));
    assert_eq!(changed[0].get("host"), None, "it has not changed");
    assert_eq!(delta.get("images"), None, "nor have these");
    assert_eq!(delta["history"]["step_seconds"], 1);
    // Who does not listen is cut off, and nobody else is.
    let mut other = fleet.view().unwrap();
    for second in 2..20 {
        fleet.tick(now + Duration::from_secs(second), surroundings());
        while other.try_recv().is_ok() {}
    }
    assert_eq!(fleet.viewers.len(), 1);
    let viewers: Vec<_> = (0..VIEWERS_MAX).map_while(|_| fleet.view()).collect();
    assert_eq!(viewers.len(), VIEWERS_MAX - 1, "one more is refused");
}

#[test]
fn orders_reach_those_they_are_meant_for_until_they_are_taken_back() {
    let (mut fleet, now) = (Fleet::new(), Instant::now());
    let a = report("a", 100, "downloading");
    let b = report("b", 100, "failed");
    tell(&mut fleet, now, 1, &a);
    tell(&mut fleet, now, 2, &b);
    let mut order = |order: Value| fleet.order(&order);
    assert_eq!(order(json!({"action": "pause", "machines": [1]})), Ok(1));
    assert_eq!(order(json!({"action": "limit", "machines": "all", "limit": 5000})), Ok(2));
    assert_eq!(order(json!({"action": "retry", "machines": "all"})), Ok(1), "only one has failed");
    assert!(order(json!({"action": "eat", "machines": "all"})).is_err());
    assert!(order(json!({"action": "pause"})).is_err());
    assert!(order(json!({"action": "pause", "machines": ["1"]})).is_err());
    assert!(order(json!({"action": "limit", "machines": "all", "limit": -1})).is_err());
    let answer = json!({"paused": true, "limit": 5000, "finish": false, "retries": 0});
    assert_eq!(tell(&mut fleet, now, 1, &a), answer);
    assert_eq!(tell(&mut fleet, now, 1, &a), answer, "an answer may be lost");
    assert_eq!(tell(&mut fleet, now, 2, &b)["retries"], 1);
    fleet.order(&json!({"action": "resume", "machines": [1]})).unwrap();
    fleet.order(&json!({"action": "limit", "machines": [1], "limit": null})).unwrap();
    assert_eq!(tell(&mut fleet, now, 1, &a), json!({}));
    // Another process on that machine was told nothing.
    let mut anew = b.clone();
    anew["run"] = "another".into();
    assert_eq!(tell(&mut fleet, now, 2, &anew), json!({}));
}

#[test]
fn documents_and_metrics_name_every_machine() {
    let (mut fleet, now) = (Fleet::new(), Instant::now());
    tell(&mut fleet, now, 1, &report("<b>\"=a", 1000, "done"));
    fleet.tick(now, surroundings());
    let csv = csv(&fleet);
    assert!(csv.lines().nth(1).unwrap().starts_with("\"<b>\"\"=a\",10.0.0.1,,lab,"), "{csv}");
    let page = html(&fleet);
    assert!(page.contains("&lt;b&gt;&quot;=a") && !page.contains("<b>"), "{page}");
    let metrics = metrics(&fleet);
    let line =
        "ezio_machine_progress_ratio{machine=\"<b>\\\"=a\",address=\"10.0.0.1\",device=\"\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("# TYPE ezio_server_sent_bytes_total counter\n"));
}

#[test]
fn ends_are_told_once_each() {
    let (mut fleet, mut now) = (Fleet::new(), Instant::now());
    let mut tick = |fleet: &mut Fleet| {
        now += Duration::from_secs(1);
        let ended = fleet.tick(now, surroundings());
        let name = |ended| match ended {
            Ended::Machine(machine) => format!("{} {}", machine["host"], machine["phase"]),
            Ended::All(summary) => format!("{} of {}", summary["done"], summary["machines"]),
        };
        ended.into_iter().map(name).collect::<Vec<_>>()
    };
    assert!(tick(&mut fleet).is_empty(), "nobody is there");
    tell(&mut fleet, Instant::now(), 1, &report("a", 100, "downloading"));
    tell(&mut fleet, Instant::now(), 2, &report("b", 1000, "done"));
    assert_eq!(tick(&mut fleet), ["\"b\" \"done\""]);
    assert!(tick(&mut fleet).is_empty());
    tell(&mut fleet, Instant::now(), 1, &report("a", 100, "failed"));
    assert_eq!(tick(&mut fleet), ["\"a\" \"failed\"", "1 of 2"]);
    assert!(tick(&mut fleet).is_empty());
    // It tries again.
    tell(&mut fleet, Instant::now(), 1, &report("a", 100, "downloading"));
    assert!(tick(&mut fleet).is_empty());
    tell(&mut fleet, Instant::now(), 1, &report("a", 1000, "done"));
    assert_eq!(tick(&mut fleet), ["\"a\" \"done\"", "2 of 2"]);
}

#[test]
fn who_runs_the_server_hears_once_that_a_machine_is_gone_and_that_it_is_back() {
    let (mut fleet, now) = (Fleet::new(), Instant::now());
    let at = |second| now + Duration::from_secs(second);
    tell(&mut fleet, now, 1, &report("a", 100, "downloading"));
    let mut heard = Vec::new();
    for second in 0..=40 {
        if second >= 20 {
            tell(&mut fleet, at(second), 1, &report("a", 100 + second, "downloading"));
        }
        fleet.tick(at(second), surroundings());
        heard.extend(fleet.turns().into_iter().map(|turn| turn.0));
    }
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].starts_with("a (10.0.0.1) is gone: no report for 10 s"), "{heard:?}");
    assert_eq!(heard[1], "a (10.0.0.1) gets along again");
}
