//! `ezio watch` of a server with many machines, that goes and comes back; and of a real deployment.

use super::pty::Terminal;
use super::room::{Room, Trouble};
use super::{PATIENCE, ezio, image, serve, wait};
use lab::Running;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

fn troubles() -> Vec<Trouble> {
    let mut troubles = vec![Trouble::None; 24];
    troubles[4] = Trouble::Link100;
    troubles[11] = Trouble::NoPeers;
    troubles[16] = Trouble::Gone;
    troubles[21] = Trouble::Failed;
    (troubles[0], troubles[9]) = (Trouble::Done, Trouble::Verifying);
    troubles
}

fn addr(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A server of `path` that can be where one was before.
fn serve_at(path: &Path, addr: SocketAddr) -> Running {
    let addr = addr.to_string();
    let args = ["serve", "--http", &addr, path.to_str().unwrap(), "--raw"];
    let mut server = Running::start(ezio(), &args).unwrap();
    server.ready().unwrap();
    server
}

#[test]
fn a_room_is_watched_on_a_terminal_of_80_by_24() {
    let (_dir, path) = image(1 << 20);
    let at = SocketAddr::from(([127, 0, 0, 1], lab::free_port()));
    let server = serve_at(&path, at);
    let room = Room::open(at, &"a".repeat(40), 0, troubles());
    let mut terminal = Terminal::start(&["watch", &format!("http://{at}")], (80, 24), &[]);
    let screen = terminal.wait("those that need a look come first, with the reason", |screen| {
        let words = [
            ("lab-22 ", " failed "),
            ("    write 8 MiB", "/dev/sda: input/output error;"),
            ("lab-12 ", " stuck "),
            ("    no peers", ""),
            ("lab-17 ", " gone "),
            ("    no report for ", ""),
            ("lab-05 ", " slow "),
            ("    its link runs at 100 Mbit/s only", ""),
            ("lab-02 ", " downloading "),
        ];
        let mut rows = screen.iter();
        screen.first().is_some_and(|line| line.contains("classroom (1 MiB)"))
            && words
                .iter()
                .all(|(start, word)| rows.any(|row| row.starts_with(start) && row.contains(word)))
    });
    assert_eq!(screen.len(), 24);
    assert!(screen.iter().all(|line| line.chars().count() <= 80), "{screen:#?}");
    assert!(screen[0].contains("classroom (1 MiB)"), "{screen:#?}");
    assert!(screen[2].starts_with("24 machines: 1 done, "), "{screen:#?}");
    let row = screen.iter().find(|line| line.starts_with("lab-05")).unwrap();
    assert!(row.contains("slow") && row.contains("MB/s") && row.contains('%'), "{row}");
    steer(&mut terminal);
    // Nobody reports while there is no server.
    drop(room);
    drop(server);
    terminal.wait("that the server is silent is said", |screen| {
        screen[1].contains("THE SERVER DOES NOT ANSWER")
            && screen.iter().any(|l| l.contains("lab-22"))
    });
    let _server = serve_at(&path, at);
    let _room = Room::open(at, &"a".repeat(40), 0, vec![Trouble::Done]);
    terminal.wait("it is found again", |screen| {
        screen[2].starts_with("1 machines: 1 done") && !screen[1].contains("NOT ANSWER")
    });
    assert!(terminal.output().contains("\x1b[31mlab-22"), "colours");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
    terminal.check_restored();
}

/// Sorts, searches, chooses, scrolls; makes the terminal larger and very small.
fn steer(terminal: &mut Terminal) {
    let first = |screen: &[String]| screen[4].chars().take(6).collect::<String>();
    terminal.press("n");
    terminal.wait("sorted by name", |screen| first(screen) == "lab-01");
    terminal.press("\x1b[B");
    terminal.wait("scrolled by a line", |screen| first(screen) == "lab-02");
    terminal.press("G");
    terminal.wait("at the end", |screen| screen[23].contains("-24 of 24"));
    terminal.press("/LAB-1");
    terminal
        .wait("searched", |screen| screen[23].contains("of 10 (24)") && first(screen) == "lab-10");
    terminal.press("\x1b");
    terminal.wait("forgotten", |screen| screen[23].contains("of 24 "));
    terminal.press("f");
    terminal.wait("chosen", |screen| screen[23].starts_with("1-4 of 4 (24)"));
    terminal.press("fff");
    terminal.resize((132, 50));
    terminal.wait("all fit", |screen| screen.len() == 50 && screen[49].starts_with("1-24 of 24"));
    terminal.resize((30, 8));
    terminal.wait("little fits", |screen| {
        screen.len() == 8 && screen.iter().all(|line| line.chars().count() <= 30)
    });
    terminal.resize((80, 24));
    terminal.press("a");
    terminal.wait("as before", |screen| screen.len() == 24 && first(screen) == "lab-22");
}

#[test]
fn a_signal_gives_the_terminal_back_and_colours_can_be_forbidden() {
    let (_dir, path) = image(1 << 20);
    let (_server, url) = serve(&path, &[]);
    let _room = Room::open(addr(&url), &"a".repeat(40), 0, vec![Trouble::Failed]);
    let env = [("NO_COLOR", "1"), ("LC_ALL", "C")];
    for signal in ["TERM", "HUP"] {
        let mut terminal = Terminal::start(&["watch", &url], (80, 24), &env);
        terminal.wait("it is shown", |screen| screen.iter().any(|line| line.contains("lab-01")));
        terminal.signal(signal);
        assert_eq!(terminal.end().code(), Some(0));
        terminal.check_restored();
        assert!(!terminal.output().contains("\x1b[3") && terminal.output().is_ascii());
    }
}

#[test]
fn ctrl_z_gives_the_terminal_back_until_it_goes_on() {
    let (_dir, path) = image(1 << 20);
    let (_server, url) = serve(&path, &[]);
    let _room = Room::open(addr(&url), &"a".repeat(40), 0, vec![Trouble::Failed]);
    let mut terminal = Terminal::start(&["watch", &url], (80, 24), &[]);
    let shown = |screen: &[String]| screen.iter().any(|line| line.contains("lab-01"));
    terminal.wait("it is shown", shown);
    terminal.press("\x1a");
    wait("it stands still", || terminal.is_stopped());
    terminal.check_restored();
    let seen = terminal.output().len();
    terminal.signal("CONT");
    wait("it is shown again", || {
        terminal.output().get(seen..).is_some_and(|new| new.contains("lab-01"))
    });
    assert!(terminal.output()[seen..].starts_with("\x1b[?1049h"), "on the other screen");
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(0));
    terminal.check_restored();
}

#[test]
fn what_cannot_be_watched_is_an_error_and_leaves_the_terminal_as_it_was() {
    let (dir, path) = image(1 << 20);
    let (_server, url) = serve(&path, &["--private"]);
    let mut refused = Terminal::start(&["watch", &url], (80, 24), &[]);
    assert_eq!(refused.end().code(), Some(1));
    refused.check_restored();
    assert!(refused.output().contains("--token-file FILE"), "{}", refused.output());
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef").unwrap();
    let args = ["watch", &url, "--token-file", file.to_str().unwrap()];
    let mut wrong = Terminal::start(&args, (80, 24), &[]);
    assert_eq!(wrong.end().code(), Some(1));
    // A terminal that cannot move its cursor gets lines.
    let nobody = Terminal::start(&["watch", "http://127.0.0.1:1"], (80, 24), &[("TERM", "dumb")]);
    let mut nobody = nobody;
    nobody.wait_output("http://127.0.0.1:1 does not answer, trying again: get ");
    assert!(!nobody.output().contains('\x1b'), "{:?}", nobody.output());
}

/// A program whose lines are read, each wait bounded.
struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    fn start(args: &[&str]) -> Lines {
        let mut command = Command::new(ezio());
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        Lines { child, lines }
    }

    /// All lines until one is so.
    #[track_caller]
    fn until(&self, is: impl Fn(&str) -> bool) -> Vec<String> {
        let (end, mut seen) = (Instant::now() + PATIENCE, Vec::<String>::new());
        while !seen.last().is_some_and(|line| is(line)) {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            seen.push(line.unwrap_or_else(|_| panic!("it does not come: {seen:#?}")));
        }
        seen
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_deployment_is_watched_without_a_terminal() {
    let (dir, path) = image(24 << 20);
    let (_server, url) = serve(&path, &["--limit", "6MB/s"]);
    let objects = Lines::start(&["watch", "--json", &url]);
    let lines = Lines::start(&["watch", &url]);
    let target = format!("--to={}", dir.path().join("target").display());
    let mut deploy = Running::start(ezio(), &["deploy", &url, &target, "--verify"]).unwrap();
    deploy.result().unwrap();
    let seen = objects.until(|line| line.contains(r#""phase":"done""#));
    let seen: Vec<Value> = seen.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let machines: Vec<&Value> = seen.iter().filter(|event| event["event"] == "machine").collect();
    let rate = |event: &&&Value| event["rate_in"].as_u64().is_some_and(|rate| rate > 1_000_000);
    assert!(machines.iter().any(|event| event["phase"] == "downloading"));
    assert!(machines.iter().filter(rate).count() >= 2, "{machines:#?}");
    assert!(seen.iter().any(|event| event["event"] == "summary" && event["machines"] == 1));
    let told = lines.until(|line| line.contains(": done in "));
    assert!(told.iter().any(|line| line.contains("): downloading")), "{told:#?}");
}
