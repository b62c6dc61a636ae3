mod tiers;

use super::*;
use lab::{Need, require};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};

/// Longer than anything here takes on a busy machine; what takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const HASH: Digest = *b"an info hash, 20 by.";

/// A running thread, and what it tells.
struct Node {
    control: Control,
    events: Receiver<Event>,
}

impl Node {
    fn start(config: ControlConfig) -> Node {
        let (sender, events) = mpsc::channel();
        let control = Control::start(config, move |event| {
            let _ = sender.send(event);
        });
        Node { control: control.unwrap(), events }
    }

    /// Waits for the first event that `wanted` makes something of.
    fn wait<T>(&self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let (end, mut seen) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => match wanted(&event) {
                    Some(found) => return found,
                    None => seen.push(event),
                },
                Err(why) => panic!("no {what} ({why}); instead {seen:?}"),
            }
        }
    }

    fn wait_for_peer(&self, port: u16, wanted: Origin) -> SocketAddr {
        self.wait(&format!("peer at port {port}"), |event| match event {
            Event::Found { info_hash: HASH, addr, from } => {
                (addr.port() == port && *from == wanted).then_some(*addr)
            }
            _ => None,
        })
    }

    fn wait_for_note(&self, words: &str) -> String {
        self.wait(&format!("note with `{words}`"), |event| match event {
            Event::Note(note) | Event::Warning(note) => note.contains(words).then(|| note.clone()),
            Event::Found { .. } => None,
        })
    }
}

/// Waits until one of two nodes has found the other: who hears connects, so one is enough.
fn wait_for_meeting(a: &Node, b: &Node, wanted: Origin) {
    let (end, mut seen) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        for event in [a, b].iter().flat_map(|node| node.events.recv_timeout(POLL)) {
            match event {
                Event::Found { info_hash: HASH, from, .. } if from == wanted => return,
                event => seen.push(event),
            }
        }
        assert!(Instant::now() < end, "nobody found the other; instead {seen:?}");
    }
}

/// How long to listen to one node before listening to the other.
const POLL: Duration = Duration::from_millis(10);

/// A node on this machine alone, without local discovery. Each has a peer id of its own.
fn quiet(number: u8) -> ControlConfig {
    let mut peer_id = *b"-XG0100-000000000000";
    peer_id[19] = number;
    ControlConfig { lsd_port: None, ..ControlConfig::new(peer_id) }
}

/// The same with the pages of `ezio serve`.
fn serving(number: u8) -> ControlConfig {
    let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    ControlConfig { http: Some(HttpConfig::new(listen)), ..quiet(number) }
}

fn torrent(port: u16, left: u64, trackers: &[&[String]]) -> Torrent {
    let counters = Counters { left: AtomicU64::new(left), ..Counters::default() };
    Torrent {
        info_hash: HASH,
        name: "an image".into(),
        metainfo: Some(Arc::from(&b"d4:infodee"[..])),
        trackers: trackers.iter().map(|tier| tier.to_vec()).collect(),
        local: true,
        port,
        counters: Arc::new(counters),
    }
}

/// Sends `request` and returns all that comes until the other side closes.
fn raw(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Who refuses early may close while we still write.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn http_get(addr: SocketAddr, path: &str) -> String {
    raw(addr, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
}

fn http_post(addr: SocketAddr, headers: &str, body: &str) -> String {
    let head = format!("POST /api/report HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}");
    raw(addr, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
}

fn failure(why: &str) -> String {
    format!("d14:failure reason{}:{why}e", why.len())
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// A tracker that follows a script: one raw answer for each request, then it is gone. What it was
/// asked comes out at the other side. An empty answer is silence until the other side leaves.
fn scripted(answers: Vec<Vec<u8>>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let (asked, questions) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head);
            let _ = asked.send(head.lines().next().unwrap_or_default().to_owned());
            if answer.is_empty() {
                let _ = stream.read(&mut byte);
            }
            let _ = stream.write_all(&answer);
        }
    });
    (url, questions)
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A tracker's answer with one peer at 127.0.0.1 and `port`.
fn peer_at(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    ok(&[b"d8:intervali1800e5:peers6:\x7f\0\0\x01".as_slice(), &[high, low], b"e"].concat())
}

#[test]
fn nodes_meet_at_the_tracker_of_the_server_and_leave_it() {
    let server = Node::start(serving(1));
    server.control.add(torrent(7001, 0, &[]));
    let addr = server.control.http()[0];
    let url = format!("http://{addr}/announce");
    let started = Instant::now();
    let a = Node::start(quiet(2));
    a.control.add(torrent(7002, 9, &[std::slice::from_ref(&url)]));
    // The server's own peer is told at the address at which the tracker was found.
    assert_eq!(a.wait_for_peer(7001, Origin::Tracker), "127.0.0.1:7001".parse().unwrap());
    server.wait_for_peer(7002, Origin::Tracker);
    let b = Node::start(quiet(3));
    b.control.add(torrent(7003, 9, &[&[url]]));
    b.wait_for_peer(7002, Origin::Tracker);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    let tracked = |server: &Node| {
        let status: Value =
            serde_json::from_str(body(&http_get(server.control.http()[0], "/api/status"))).unwrap();
        let torrent = &status["tracker"][0];
        (torrent["complete"].clone(), torrent["incomplete"].clone())
    };
    assert_eq!(tracked(&server), (json!(1), json!(2)));
    let stopping = Instant::now();
    b.control.stop();
    assert!(stopping.elapsed() < Duration::from_secs(2), "{:?}", stopping.elapsed());
    assert_eq!(tracked(&server), (json!(1), json!(1)));
}

#[test]
fn the_pages_say_what_they_should() {
    let server = Node::start(serving(1));
    server.control.add(torrent(7001, 0, &[]));
    let addr = server.control.http()[0];
    assert_eq!(
        fetch(&format!("http://{addr}/torrents/an%20image.torrent"), 99).unwrap(),
        b"d4:infodee"
    );
    let error = fetch(&format!("http://{addr}/torrents/an%20image.torrent"), 9).unwrap_err();
    assert!(format!("{error:#}").ends_with("the answer has more than 9 bytes"), "{error:#}");
    let error = fetch(&format!("http://{addr}/torrents/other.torrent"), 99).unwrap_err();
    assert!(format!("{error:#}").ends_with("the server says 404 Not Found"), "{error:#}");
    let list: Value =
        serde_json::from_slice(&fetch(&format!("http://{addr}/torrents"), 9999).unwrap()).unwrap();
    let hash: String = HASH.iter().map(|b| format!("{b:02x}")).collect();
    let path = "/torrents/an%20image.torrent";
    assert_eq!(list, json!([{"name": "an image", "info_hash": hash, "path": path, "bytes": 10}]));
    assert_eq!(body(&http_get(addr, "/healthz")), "ok\n");
    let line = format!("ezio deploy http://x{path} --to DEVICE");
    assert!(body(&http_get(addr, "/")).contains(&line));
    for (path, status) in [("/torrents/../../etc/passwd", 404), ("/nothing", 404), ("/%", 404)] {
        let answer = http_get(addr, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }

    // What the tracker says to those who ask wrongly, and to scrapes.
    let unknown =
        http_get(addr, &format!("/announce?info_hash={0}&peer_id={0}&port=1", "x".repeat(20)));
    assert_eq!(body(&unknown), failure("this tracker does not know the torrent"));
    assert_eq!(body(&http_get(addr, "/announce")), failure("the query lacks `info_hash`"));
    let counts = "d8:completei1e10:downloadedi0e10:incompletei0ee";
    let scraped = format!("d5:filesd20:{}{counts}ee", String::from_utf8_lossy(&HASH));
    assert_eq!(body(&http_get(addr, "/scrape")), scraped);
    assert_eq!(
        body(&http_get(addr, "/scrape?info_hash=%00")),
        failure("`info_hash` is not 20 bytes long")
    );
    server.control.remove(HASH);
    let end = Instant::now() + PATIENCE;
    while body(&http_get(addr, "/torrents")) != "[]" {
        assert!(Instant::now() < end, "the torrent is still handed out");
    }
    assert_eq!(body(&http_get(addr, "/scrape")), "d5:filesdee");
}

#[test]
fn reports_reach_the_server_and_orders_the_node() {
    let mut config = serving(1);
    if let Some(http) = &mut config.http {
        http.status = Arc::new(|| json!({"phase": "seeding"}));
        http.token = "secret".into();
    }
    let server = Node::start(config);
    let addr = server.control.http()[0];
    let (sender, orders) = mpsc::channel();
    let node = Node::start(ControlConfig {
        report: Some(ReportConfig {
            url: format!("http://{addr}/api/report"),
            report: Arc::new(|| json!({"node": "lab7", "rate": 5})),
            orders: Arc::new(move |order| {
                let _ = sender.send(order);
            }),
        }),
        ..quiet(2)
    });
    assert_eq!(orders.recv_timeout(PATIENCE).unwrap(), json!({}));
    let order = |host: &str, headers: &str| {
        let body = r#"{"action": "pause", "machines": "all"}"#;
        let head = format!("POST /api/actions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        let json = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let answer = raw(addr, format!("{head}{json}{headers}\r\n{body}").as_bytes());
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let token = "Authorization: Bearer secret\r\n";
    assert_eq!(order("x", ""), "401");
    assert_eq!(order("x", "Authorization: Bearer secreT\r\n"), "401");
    assert_eq!(order("evil.example", token), "421");
    assert_eq!(order("x:1", &format!("{token}Origin: http://evil.example\r\n")), "403");
    assert_eq!(order("x:1", &format!("{token}Origin: http://x:1\r\n")), "200");
    let end = Instant::now() + PATIENCE;
    while orders.recv_timeout(PATIENCE).unwrap()["paused"] != true {
        assert!(Instant::now() < end, "the order does not come");
    }
    let status: Value = serde_json::from_str(body(&http_get(addr, "/api/status"))).unwrap();
    assert_eq!(status["phase"], "seeding");
    assert_eq!(status["nodes"][0]["report"], json!({"node": "lab7", "rate": 5}));
    drop(node);
}

#[test]
fn only_nodes_report_and_only_so_much() {
    let server = Node::start(serving(1));
    let addr = server.control.http()[0];
    let json = "Content-Type: application/json\r\n";
    let check = |headers: &str, body: &str, status: u16| {
        let answer = http_post(addr, headers, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers}{body:.50}: {answer}"
        );
    };
    check(json, r#"{"node": "a"}"#, 200);
    check(json, "{}", 400);
    check("", r#"{"node": "a"}"#, 415);
    check("Content-Type: text/plain\r\n", r#"{"node": "a"}"#, 415);
    let rebound = raw(addr, b"POST /api/report HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
    check(&format!("{json}Origin: http://127.0.0.1\r\n"), r#"{"node": "a"}"#, 403);
    check(json, &format!(r#"{{"node": "{}"}}"#, "x".repeat(64 << 10)), 413);
    check(&format!("{json}{}", "X: y\r\n".repeat(70)), "", 431);
    check(&format!("{json}X: {}\r\n", "y".repeat(17 << 10)), "", 431);
    // Without an end: what does not stop by itself is stopped.
    let endless =
        format!("POST /api/report HTTP/1.1\r\nHost: x\r\n{json}Transfer-Encoding: chunked\r\n\r\n");
    let endless = endless + &format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(4);
    assert!(raw(addr, endless.as_bytes()).starts_with("HTTP/1.1 413 "));
}

#[test]
fn who_sends_a_head_slowly_or_none_is_disconnected() {
    let server = Node::start(serving(1));
    let addr = server.control.http()[0];
    let started = Instant::now();
    for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\nX: "] {
        let begun = begun.as_bytes().to_vec();
        // All at once, so that the test takes the time of one.
        thread::spawn(move || raw(addr, &begun));
    }
    let answer = raw(addr, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET");
    assert!(answer.contains("ok\n"), "{answer}");
    let taken = started.elapsed();
    assert!(taken < PATIENCE / 2, "an idle connection was closed after {taken:?}");
}

#[test]
fn one_address_cannot_take_all_connections() {
    let server = Node::start(serving(1));
    let addr = server.control.http()[0];
    let guests: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            // Its answer says that the connection was taken.
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            stream
        })
        .collect();
    assert_eq!(raw(addr, b"GET /healthz HTTP/1.1\r\n"), "");
    drop(guests);
    let end = Instant::now() + PATIENCE;
    while !http_get(addr, "/healthz").contains("200 OK") {
        assert!(Instant::now() < end, "places are not given back");
    }
}

#[test]
fn an_address_that_is_taken_is_an_error_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let http = Some(HttpConfig::new(vec![addr]));
    let error = Control::start(ControlConfig { http, ..quiet(1) }, |_| {}).err().unwrap();
    let wanted = format!("listen on {addr} (HTTP): Address already in use; `ss -ltnp | grep :");
    assert!(format!("{error:#}").starts_with(&wanted), "{error:#}");
}

/// A tracker that answers `bad` at first, then well: `words` are noted, and peers come.
fn check_recovery(bad: Vec<u8>, words: &str) {
    let (url, questions) = scripted(vec![bad, peer_at(7009)]);
    let node = Node::start(quiet(1));
    node.control.add(torrent(7001, 9, &[&[url]]));
    let note = node.wait_for_note("announce to http://127.0.0.1:");
    assert!(note.contains(words) && note.ends_with("; it will be tried again"), "{note}");
    node.wait_for_peer(7009, Origin::Tracker);
    // What was not understood may not have been heard either.
    for _ in 0..2 {
        let question = questions.recv_timeout(PATIENCE).unwrap();
        assert!(question.contains("&event=started"), "{question}");
    }
}

#[test]
fn a_tracker_that_talks_rubbish_is_asked_again() {
    check_recovery(b"rubbish".to_vec(), "no HTTP answer");
    check_recovery(ok(b"<html>"), "not a tracker's answer: not a dictionary at byte 0");
    check_recovery(ok(b"d5:peers7:1234567e"), "`peers` has 7 bytes, 6 a peer");
    check_recovery(ok(&vec![b'x'; (1 << 20) + 1]), "the answer has more than 1048576 bytes");
    check_recovery(
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nd".to_vec(),
        "the answer broke off",
    );
    check_recovery(b"HTTP/1.1 500 Oops\r\n\r\n".to_vec(), "the server says 500");
    check_recovery(
        ok(failure("Requested download is not authorized\x1b[2J!").as_bytes()),
        "the tracker refuses: Requested download is not authorized\u{fffd}[2J!",
    );
}

#[test]
fn redirections_are_followed_but_not_for_ever() {
    let (url, _questions) = scripted(vec![peer_at(7009)]);
    let to = |url: &str| format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\n\r\n").into_bytes();
    let target = format!("{url}?x=1");
    let (moved, _moved_questions) = scripted(vec![to("/here"), to(&target)]);
    let node = Node::start(quiet(1));
    node.control.add(torrent(7001, 9, &[&[moved]]));
    node.wait_for_peer(7009, Origin::Tracker);

    let (endless, _endless_questions) = scripted(vec![to("/again"); 4]);
    let node = Node::start(quiet(1));
    node.control.add(torrent(7001, 9, &[&[endless]]));
    node.wait_for_note("redirected more than 3 times");
    let (away, _away_questions) = scripted(vec![to("https://127.0.0.1/")]);
    let node = Node::start(quiet(1));
    node.control.add(torrent(7001, 9, &[&[away]]));
    node.wait_for_note("redirected: `https://127.0.0.1/` does not begin with http://HOST");
}

#[test]
fn a_dead_tracker_does_not_delay_a_living_one() {
    // In one tier that is silent, in another that is gone, and first in the tier of the living.
    let (silent, _silent_questions) = scripted(vec![Vec::new(); 9]);
    let gone = "http://127.0.0.1:1/announce".to_owned();
    let (living, questions) = scripted(vec![peer_at(7009); 9]);
    let node = Node::start(quiet(1));
    let started = Instant::now();
    let last = [gone.clone(), living];
    node.control.add(torrent(7001, 9, &[&[silent], &[gone], &["udp://t:1".into()], &last]));
    node.wait_for_peer(7009, Origin::Tracker);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let question = questions.recv_timeout(PATIENCE).unwrap();
    for part in [
        "/announce?info_hash=an%20info%20hash%2C%2020%20by.&peer_id=-XG0100-",
        "&port=7001&",
        "&left=9&",
    ] {
        assert!(question.contains(part), "{question}");
    }
    node.control.completed(HASH);
    let question = questions.recv_timeout(PATIENCE).unwrap();
    assert!(question.contains("&event=completed"), "{question}");
    // The silent one takes all the time there is for a goodbye, which is not much.
    let stopping = Instant::now();
    node.control.stop();
    assert!(stopping.elapsed() < Duration::from_secs(2), "{:?}", stopping.elapsed());
    let question = questions.recv_timeout(PATIENCE).unwrap();
    assert!(question.contains("&event=stopped"), "{question}");
}

#[test]
fn peers_outside_of_the_networks_are_not_found() {
    let (url, _questions) = scripted(vec![
        ok(b"d8:intervali5e5:peers18:\x0a\x09\0\x01\x1b\x61\x0a\0\0\x01\x1b\x62\x0a\x09\0\x01\x1b\x63e"),
    ]);
    let networks = Networks::new(vec!["10.0.0.0/24".parse().unwrap()]);
    let node = Node::start(ControlConfig { networks, ..quiet(1) });
    node.control.add(torrent(7001, 9, &[&[url]]));
    let found =
        node.wait("peer", |event| matches!(event, Event::Found { .. }).then(|| event.clone()));
    let (addr, from) = ("10.0.0.1:7010".parse().unwrap(), Origin::Tracker);
    assert_eq!(found, Event::Found { info_hash: HASH, addr, from });
    node.control.stop();
    assert_eq!(node.events.try_iter().count(), 0);
}

/// A node that meets others in BEP 14's groups at a port of its test alone.
fn near(number: u8, port: u16) -> ControlConfig {
    let interface = interfaces::interfaces().unwrap().into_iter().find(|i| i.loopback);
    ControlConfig { lsd_port: Some(port), interface, ..quiet(number) }
}

/// Whether multicasts come back on the loopback interface, as the kernel itself says.
fn loopback_multicasts() -> bool {
    let group = std::net::Ipv4Addr::new(239, 192, 152, 143);
    let here = std::net::Ipv4Addr::LOCALHOST;
    let port = lab::free_port();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    let addr = SocketAddr::from((group, port));
    let heard = socket
        .bind(&addr.into())
        .and_then(|()| socket.join_multicast_v4(&group, &here))
        .and_then(|()| socket.set_multicast_if_v4(&here))
        .and_then(|()| socket.send_to(b"x", &addr.into()))
        .and_then(|_| socket.set_read_timeout(Some(Duration::from_secs(2))))
        .and_then(|()| socket.recv(&mut [std::mem::MaybeUninit::uninit(); 1]));
    heard.is_ok_and(|len| len == 1)
}

#[test]
fn nodes_meet_without_a_tracker() {
    if !loopback_multicasts() {
        lab::skip!("the kernel does not loop multicasts back on lo");
    }
    let port = lab::free_port();
    let a = Node::start(near(1, port));
    a.control.add(torrent(7001, 0, &[]));
    let b = Node::start(near(2, port));
    let started = Instant::now();
    b.control.add(torrent(7002, 9, &[]));
    wait_for_meeting(&a, &b, Origin::Lsd);
    let taken = started.elapsed();
    assert!(taken < Duration::from_secs(4), "not at once, but by another announce: {taken:?}");
    for node in [a, b] {
        let Node { control, events } = node;
        control.stop();
        let found = events.try_iter().filter(|event| matches!(event, Event::Found { .. }));
        assert!(found.count() <= 2, "nobody hears itself, or others too often");
    }
}

/// Two network namespaces with a cable between them.
struct Cable([String; 2]);

impl Cable {
    fn new() -> Result<Cable, String> {
        let [a, b] = ["a", "b"].map(|end| format!("ezio-{}-{end}", std::process::id()));
        let cable = Cable([a.clone(), b.clone()]);
        let ip = |arguments: String| {
            let mut command = std::process::Command::new("ip");
            let output = command.args(arguments.split(' ')).output().map_err(|e| e.to_string())?;
            let error = String::from_utf8_lossy(&output.stderr);
            output.status.success().then_some(()).ok_or(format!("ip {arguments}: {error}"))
        };
        for end in [&a, &b] {
            ip(format!("netns add {end}"))?;
        }
        ip(format!("-n {a} link add cable type veth peer name cable netns {b}"))?;
        for (number, end) in [&a, &b].into_iter().enumerate() {
            ip(format!("-n {end} addr add 10.77.0.{number}/31 dev cable"))?;
            ip(format!("-n {end} addr add fd77::{}/64 dev cable nodad", number + 1))?;
            ip(format!("-n {end} link set cable up"))?;
        }
        Ok(cable)
    }

    /// Runs the ignored test `name` of this program at one end.
    fn run(&self, end: usize, name: &str) -> std::process::Child {
        std::process::Command::new("ip")
            .args(["netns", "exec", &self.0[end]])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", name])
            .env("EZIO_TEST_END", end.to_string())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in &self.0 {
            let _ = std::process::Command::new("ip").args(["netns", "delete", end]).output();
        }
    }
}

#[test]
fn nodes_meet_across_a_cable_in_both_families() {
    require!([Need::Root, Need::Program("ip")]);
    let cable = match Cable::new() {
        Ok(cable) => cable,
        Err(why) => lab::skip!("no network namespaces: {why}"),
    };
    let mut ends = [0, 1].map(|end| cable.run(end, "control::tests::at_one_end_of_a_cable"));
    // Each stays until the other has found it, or has ended without.
    for end in &mut ends {
        let lines = BufReader::new(end.stdout.as_mut().unwrap()).lines();
        lines.map_while(Result::ok).find(|line| line == FOUND);
    }
    for mut end in ends {
        drop(end.stdin.take());
        let output = end.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }
}

#[test]
#[ignore = "runs within the test above"]
fn at_one_end_of_a_cable() {
    let end: u8 = std::env::var("EZIO_TEST_END").unwrap().parse().unwrap();
    // All interfaces: there is one.
    let node = Node::start(ControlConfig { lsd_port: Some(lsd::PORT), ..quiet(end) });
    node.control.add(torrent(7000 + u16::from(end), 9, &[]));
    let other = 7001 - u16::from(end);
    let mut wanted = vec![(10, 77), (0xfd, 0x77)];
    while !wanted.is_empty() {
        // Who was first at its end is heard again once it starves.
        node.control.starving(HASH);
        let found = match node.wait_for_peer(other, Origin::Lsd).ip() {
            IpAddr::V4(ip) => (ip.octets()[0], ip.octets()[1]),
            IpAddr::V6(ip) => (ip.octets()[0], ip.octets()[1]),
        };
        wanted.retain(|family| *family != found);
    }
    println!("\n{FOUND}");
    let (over, is_over) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        over.send(())
    });
    // The other end may need one more announce of ours.
    while is_over.recv_timeout(Duration::from_secs(1)).is_err() {
        node.control.starving(HASH);
    }
}

/// A line that an end of the cable prints when it has found the other.
const FOUND: &str = "found";

#[test]
fn who_announces_is_answered() {
    if !loopback_multicasts() {
        lab::skip!("the kernel does not loop multicasts back on lo");
    }
    let port = lab::free_port();
    let (a, b) = (Node::start(near(1, port)), Node::start(near(2, port)));
    a.control.add(torrent(7001, 0, &[]));
    b.control.add(torrent(7002, 9, &[]));
    // Whoever began to listen too late to hear the first announce hears the answer to its own.
    assert!(a.wait_for_peer(7002, Origin::Lsd).ip().is_loopback());
    assert!(b.wait_for_peer(7001, Origin::Lsd).ip().is_loopback());
}

#[test]
fn what_discovery_finds_the_tracker_tells() {
    if !loopback_multicasts() {
        lab::skip!("the kernel does not loop multicasts back on lo");
    }
    let port = lab::free_port();
    let http = Some(HttpConfig::new(vec![SocketAddr::from(([127, 0, 0, 1], 0))]));
    let server = Node::start(ControlConfig { http, ..near(1, port) });
    server.control.add(torrent(7001, 0, &[]));
    let deaf = format!("http://{}/announce", server.control.http()[0]);
    let mute = Node::start(near(2, port));
    mute.control.add(torrent(7002, 9, &[]));
    server.wait_for_peer(7002, Origin::Lsd);
    let deaf_node = Node::start(quiet(3));
    deaf_node.control.add(torrent(7003, 9, &[&[deaf]]));
    deaf_node.wait_for_peer(7002, Origin::Tracker);
}

/// Debian's opentracker, which serves only what its white list names.
struct OpenTracker {
    child: std::process::Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl OpenTracker {
    fn start(info_hashes: &[Digest]) -> OpenTracker {
        let dir = tempfile::tempdir().unwrap();
        let list: String = info_hashes
            .iter()
            .map(|hash| hash.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n")
            .collect();
        std::fs::write(dir.path().join("list"), list).unwrap();
        // It gives up being root, and must still find its files.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), everybody).unwrap();
        let free = SocketAddr::from(([127, 0, 0, 1], lab::free_port()));
        let child = std::process::Command::new("opentracker")
            .args([
                "-i",
                "127.0.0.1",
                "-p",
                &free.port().to_string(),
                "-P",
                &free.port().to_string(),
            ])
            .arg("-d")
            .arg(dir.path())
            .args(["-w", "list"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(free).is_err() {
            assert!(Instant::now() < end, "opentracker does not listen at {free}");
        }
        OpenTracker { child, url: format!("http://{free}/announce"), _dir: dir }
    }
}

impl Drop for OpenTracker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn nodes_meet_at_opentracker() {
    require!([Need::Program("opentracker"), Need::Root]);
    let tracker = OpenTracker::start(&[HASH]);
    let tier = [tracker.url.clone()];
    let a = Node::start(quiet(1));
    a.control.add(torrent(7001, 0, &[&tier]));
    let b = Node::start(quiet(2));
    b.control.add(torrent(7002, 9, &[&tier]));
    wait_for_meeting(&a, &b, Origin::Tracker);
    // Who has left is not told to a third.
    b.control.stop();
    let c = Node::start(quiet(3));
    c.control.add(torrent(7003, 9, &[&tier]));
    c.wait_for_peer(7001, Origin::Tracker);
    c.control.stop();
    let strangers = c.events.try_iter().filter(|event| match event {
        Event::Found { addr, .. } => addr.port() == 7002,
        Event::Note(_) | Event::Warning(_) => false,
    });
    assert_eq!(strangers.count(), 0);
}

#[test]
fn an_opentracker_that_refuses_everything_is_noted_once() {
    require!([Need::Program("opentracker"), Need::Root]);
    let tracker = OpenTracker::start(&[]);
    let node = Node::start(quiet(1));
    node.control.add(torrent(7001, 9, &[std::slice::from_ref(&tracker.url)]));
    let note = node.wait_for_note("the tracker refuses");
    assert!(note.contains("not authorized"), "{note}");
    node.control.starving(HASH);
    node.control.stop();
    assert_eq!(node.events.try_iter().count(), 0);
}
