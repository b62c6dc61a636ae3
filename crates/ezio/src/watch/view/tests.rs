use super::*;
use serde_json::json;

fn machine(host: &str, health: &str, progress: f64, why: &str) -> Machine {
    Machine {
        host: host.to_owned(),
        phase: if progress < 1.0 { "downloading" } else { "done" }.to_owned(),
        health: health.to_owned(),
        progress,
        rate_in: (progress * 1e8) as u64,
        peers: 7,
        why: why.to_owned(),
        ..Machine::default()
    }
}

/// Six machines: two that fare well, one that is done, three that need a look.
fn room() -> Room {
    let mut room = Room::new("http://10.0.0.1:6969");
    room.images = json!([{"name": "sda1", "bytes": 1 << 30}]);
    room.summary = json!({"machines": 6, "downloading": 4, "done": 1, "failed": 1, "slow": 1,
        "gone": 1, "progress": 0.62, "rate_in": 250_000_000, "server_rate": 117_000_000,
        "eta_seconds": 75, "elapsed_seconds": 130});
    let all = [
        machine("lab-01", "fine", 0.5, ""),
        machine("lab-02", "slow", 0.1, "its link runs at 100 Mbit/s only"),
        machine("lab-03", "fine", 1.0, ""),
        machine(
            "lab-04",
            "failed",
            0.3,
            "write 8 MiB at 0x1a4000000 of /dev/sda: input/output error",
        ),
        machine("lab-05", "gone", 0.2, "no report for 30 s"),
        machine("lab-06", "fine", 0.4, ""),
    ];
    room.machines = (1..).zip(all).collect();
    room
}

/// Numbers of the machines that are shown after `keys`, in their order.
fn shown(view: &mut View, keys: &str, size: (usize, usize)) -> String {
    for key in keys.chars() {
        let key = match key {
            '\n' => Key::Enter,
            '<' => Key::Escape,
            key => Key::Char(key),
        };
        assert!(!view.press(key), "{key:?}");
    }
    let lines = view.draw(&room(), size);
    assert_eq!(lines.len(), size.1, "{lines:#?}");
    let rows = lines.iter().filter_map(|line| line.split_once("lab-0"));
    rows.filter_map(|(_, rest)| rest.chars().next()).collect()
}

#[test]
fn keys_sort_choose_search_and_scroll() {
    for (keys, wanted) in [
        ("", "452163"),
        ("n", "123456"),
        ("p", "254613"),
        ("r", "316452"),
        ("ra", "452163"),
        ("f", "452"),
        ("ff", "5216"),
        ("fff", "3"),
        ("ffff", "452163"),
        ("/LAB-06\n", "6"),
        ("/mbit", "2"),
        ("/q\nn", ""),
        ("/q<n", "123456"),
        ("/q\n<n", "123456"),
        ("hn", "123456"),
    ] {
        let mut view = View::new(false, true);
        assert_eq!(shown(&mut view, keys, (80, 24)), wanted, "{keys}");
    }
    assert!(View::new(false, true).press(Key::Char('q')));
    let mut typing = View::new(false, true);
    typing.press(Key::Char('/'));
    assert!(typing.press(Key::Interrupt));
}

#[test]
fn a_small_terminal_shows_a_part_and_says_which() {
    let mut view = View::new(false, true);
    // Four lines of head, one of foot, three for machines.
    assert_eq!(shown(&mut view, "n", (80, 8)), "12");
    assert_eq!(shown(&mut view, "j", (80, 8)), "23");
    assert_eq!(shown(&mut view, " ", (80, 8)), "4");
    assert_eq!(shown(&mut view, "G", (80, 8)), "56");
    let foot = view.draw(&room(), (80, 8)).pop().unwrap();
    assert!(foot.starts_with("\x1b[2m5-6 of 6  sort: name  show: all"), "{foot}");
    assert_eq!(shown(&mut view, "k", (80, 8)), "4", "not beyond the end");
    assert_eq!(shown(&mut view, "g", (80, 8)), "12");
    for rows in 1..12 {
        for columns in [1, 5, 20, 40, 80, 200] {
            let mut view = View::new(false, true);
            view.press(Key::Char('h'));
            let lines = view.draw(&room(), (columns, rows));
            let plain = |line: &String| line.replace("\x1b[1m", "").replace("\x1b[2m", "");
            let lens = lines.iter().map(|l| plain(l).replace("\x1b[0m", "").chars().count());
            assert!(lines.len() == rows && lens.max() <= Some(columns), "{columns}x{rows}");
        }
    }
}

#[test]
fn the_whole_is_told_above() {
    let lines = View::new(false, true).draw(&room(), (80, 24));
    assert!(lines[0].contains("http://10.0.0.1:6969  sda1 (1 GiB)"), "{}", lines[0]);
    assert!(lines[1].starts_with(" 62% [####"), "{}", lines[1]);
    assert!(lines[1].ends_with("250 MB/s, from this server 117 MB/s, 1m15s left"), "{}", lines[1]);
    assert_eq!(
        lines[2],
        "6 machines: 1 done, 4 downloading; 1 failed, 1 gone, 1 slow  2m10s so far"
    );
    assert_eq!(lines[5], "    write 8 MiB at 0x1a4000000 of /dev/sda: input/output error");
    assert!(lines.iter().all(|line| !line.contains("\x1b[3")), "no colours");
    let narrow = View::new(false, true).draw(&room(), (50, 24));
    assert_eq!(narrow[5], "    write 8 MiB at 0x1a4000000 of /dev/sda:");
    assert_eq!(narrow[6], "    input/output error");
}

#[test]
fn colours_and_letters_are_those_the_terminal_has() {
    let mut umlaut = room();
    umlaut.machines.insert(9, machine("büro", "fine", 0.5, ""));
    let text = |view: View| view.draw(&umlaut, (80, 24)).join("\n");
    let plain = text(View::new(true, false));
    assert!(plain.contains("\x1b[31mlab-04") && plain.contains("\x1b[33mlab-02"), "{plain}");
    assert!(plain.contains("b?ro") && plain.is_ascii());
    assert!(text(View::new(true, true)).contains("büro"));
}

#[test]
fn that_the_server_is_silent_is_said_and_what_was_known_stays() {
    let mut lost = room();
    lost.lost = Some(("connection refused".into(), std::time::Instant::now()));
    let lines = View::new(false, true).draw(&lost, (80, 24));
    assert!(lines[1].starts_with("THE SERVER DOES NOT ANSWER for 0s"), "{}", lines[1]);
    assert!(lines[1].contains("connection refused") && lines[2].contains("62%"), "{lines:#?}");
    let nothing = Room::new("http://x");
    assert!(View::new(false, true).draw(&nothing, (80, 24))[1].contains("asking the server"));
}
