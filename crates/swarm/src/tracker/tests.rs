use super::*;
use alloc::format;
use alloc::string::{String, ToString};

const HASH: Digest = [1; 20];
const SECOND: Duration = Duration::from_secs(1);

/// An announce in words: `10.0.0.1:7 left=5 started`.
fn say(text: &str) -> (SocketAddr, Announce) {
    let mut words = text.split(' ');
    let addr: SocketAddr = words.next().unwrap().parse().unwrap();
    // One program at each address.
    let mut peer_id = [b'-'; 20];
    let name = addr.to_string();
    peer_id[..name.len().min(20)].copy_from_slice(&name.as_bytes()[..name.len().min(20)]);
    let query = words.fold(String::from("port="), |query, word| match word.contains('=') {
        true => format!("{query}&{word}"),
        false => format!("{query}&event={word}"),
    });
    let query = query.replacen("port=", &format!("port={}", addr.port()), 1);
    let ids = "info_hash=%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01&peer_id=%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00%00&";
    let mut announce = Announce::parse(format!("{ids}{query}").as_bytes()).unwrap();
    announce.peer_id = peer_id;
    (addr, announce)
}

/// The address of ours that everybody reaches the tracker at.
const LOCAL: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 254));

fn ask(tracker: &mut Tracker, now: Time, text: &str) -> Result<Reply, Refusal> {
    let (addr, announce) = say(text);
    tracker.announce(now, &announce, addr.ip(), LOCAL, 1)
}

fn peers(reply: &Reply) -> String {
    let mut peers: Vec<String> = reply.peers.iter().map(|entry| entry.addr.to_string()).collect();
    peers.sort();
    peers.join(" ")
}

/// Announces, each a second after the one before, and whom the last of them is told.
fn check(announces: &[&str], wanted: Result<&str, Refusal>) {
    check_with(&mut tracker(Config::default()), announces, wanted);
}

fn check_with(tracker: &mut Tracker, announces: &[&str], wanted: Result<&str, Refusal>) {
    let mut found = Err(Refusal::Full);
    for (second, text) in announces.iter().enumerate() {
        found = ask(tracker, Time(0) + SECOND * second as u32, text);
        assert_eq!(tracker.total, tracker.peers(&HASH).count(), "peers are counted");
    }
    assert_eq!(found.map(|reply| peers(&reply)), wanted.map(String::from), "{announces:?}");
}

fn tracker(config: Config) -> Tracker {
    let mut tracker = Tracker::new(config);
    tracker.register(HASH, None);
    tracker
}

#[test]
fn peers_are_told_of_each_other_at_once() {
    check(&["10.0.0.1:7 left=0 started"], Ok(""));
    check(&["10.0.0.1:7 left=0 started", "10.0.0.2:7 left=9 started"], Ok("10.0.0.1:7"));
    check(
        &["10.0.0.1:7 left=9", "10.0.0.1:8 left=9", "[fd::2]:7 left=9"],
        Ok("10.0.0.1:7 10.0.0.1:8"),
    );
    // IPv4 in IPv6's clothes is IPv4.
    check(&["[::ffff:10.0.0.1]:7 left=9", "[fd::2]:7 left=9"], Ok("10.0.0.1:7"));
}

#[test]
fn complete_peers_are_not_told_of_complete_peers() {
    check(&["10.0.0.1:7 left=0", "10.0.0.2:7 left=9", "10.0.0.3:7 left=0"], Ok("10.0.0.2:7"));
    // Who does not say what it lacks may lack something.
    check(&["10.0.0.1:7 left=0", "10.0.0.2:7 left=-1", "10.0.0.3:7 left=0"], Ok("10.0.0.2:7"));
}

#[test]
fn who_leaves_is_told_to_nobody_and_nothing() {
    check(&["10.0.0.1:7 left=9", "10.0.0.1:7 left=9 stopped", "10.0.0.2:7 left=9"], Ok(""));
    check(&["10.0.0.1:7 left=0", "10.0.0.2:7 left=9 stopped"], Ok(""));
    // Nobody else can say that a peer leaves.
    check(
        &["10.0.0.1:7 left=9", "10.0.0.3:7 left=9 stopped", "10.0.0.2:7 left=9"],
        Ok("10.0.0.1:7"),
    );
}

#[test]
fn who_cannot_be_reached_is_told_to_nobody() {
    check(&["10.0.0.1:0 left=9", "10.0.0.2:7 left=9"], Ok(""));
    check(&["[fe80::1]:7 left=9", "10.0.0.2:7 left=9"], Ok(""));
    check(&["127.0.0.1:7 left=9", "10.0.0.2:7 left=9"], Ok(""));
    check(
        &["127.0.0.1:7 left=9", "10.0.0.2:7 left=9", "127.0.0.1:8 left=9"],
        Ok("10.0.0.2:7 127.0.0.1:7"),
    );
}

#[test]
fn a_peer_cannot_name_another_address() {
    check(&["10.0.0.1:7 left=9 ip=10.9.9.9", "10.0.0.2:7 left=9"], Ok("10.0.0.1:7"));
}

#[test]
fn only_registered_torrents_are_answered() {
    let mut tracker = tracker(Config::default());
    check_with(&mut tracker, &["10.0.0.1:7 left=9"], Ok(""));
    tracker.unregister(&HASH);
    assert_eq!(tracker.total, 0);
    let (addr, announce) = say("10.0.0.1:7 left=9");
    let found = tracker.announce(Time(0), &announce, addr.ip(), LOCAL, 1);
    assert_eq!(found, Err(Refusal::UnknownTorrent));
}

#[test]
fn our_own_peer_is_where_the_asker_found_the_tracker() {
    let mut tracker = tracker(Config::default());
    tracker.register(HASH, Some(Own { port: 6881, peer_id: [b'-'; 20], complete: true }));
    let (addr, announce) = say("10.0.0.1:7 left=9 numwant=1");
    for local in ["10.0.0.254", "192.0.2.1"] {
        let reply = tracker.announce(Time(0), &announce, addr.ip(), local.parse().unwrap(), 1);
        assert_eq!(peers(&reply.unwrap()), format!("{local}:6881"));
    }
    let reply = ask(&mut tracker, Time(0), "10.0.0.2:7 left=0").unwrap();
    assert_eq!(peers(&reply), "10.0.0.1:7");
    assert_eq!(reply.counts, Counts { complete: 2, incomplete: 1, downloaded: 0 });
    // Its own announces change nothing.
    let (_, mut own) = say("10.0.0.254:6881 left=0");
    own.peer_id = [b'-'; 20];
    let reply = tracker.announce(Time(0), &own, LOCAL, LOCAL, 1).unwrap();
    assert_eq!((peers(&reply), reply.counts.complete), ("10.0.0.1:7".into(), 2));
}

#[test]
fn peers_outside_the_networks_are_refused_and_never_told() {
    let networks = Networks::new(["10.0.0.0/24".parse().unwrap()].into());
    let mut tracker = tracker(Config { networks, ..Config::default() });
    check_with(&mut tracker, &["10.0.1.1:7 left=9"], Err(Refusal::Network));
    tracker.introduce(Time(0), &HASH, "10.0.1.1:7".parse().unwrap());
    tracker.introduce(Time(0), &HASH, "10.0.0.9:7".parse().unwrap());
    check_with(&mut tracker, &["10.0.0.1:7 left=9"], Ok("10.0.0.9:7"));
}

#[test]
fn what_strangers_can_make_us_hold_is_bounded() {
    let small = || {
        tracker(Config {
            torrent_peers_max: 3,
            address_peers_max: 2,
            peers_max: 4,
            ..Config::default()
        })
    };
    let two = ["10.0.0.1:1 left=9", "10.0.0.1:2 left=9"];
    let mut full = small();
    check_with(&mut full, &two, Ok("10.0.0.1:1"));
    check_with(&mut full, &["10.0.0.1:3 left=9"], Err(Refusal::Address));
    check_with(&mut full, &["10.0.0.1:2 left=9"], Ok("10.0.0.1:1"));
    check_with(&mut full, &["10.0.0.2:1 left=9"], Ok("10.0.0.1:1 10.0.0.1:2"));
    check_with(&mut full, &["10.0.0.3:1 left=9"], Err(Refusal::Full));
    full.introduce(Time(0), &HASH, "10.0.0.4:1".parse().unwrap());
    assert_eq!(full.total, 3);
    // All torrents together.
    full.register([2; 20], None);
    full.introduce(Time(0), &[2; 20], "10.0.0.4:1".parse().unwrap());
    full.introduce(Time(0), &[2; 20], "10.0.0.4:2".parse().unwrap());
    assert_eq!(full.total, 4);
}

#[test]
fn a_completed_download_counts_once() {
    let mut tracker = tracker(Config::default());
    check_with(
        &mut tracker,
        &[
            "10.0.0.1:7 left=9 started",
            "10.0.0.1:7 left=0 completed",
            "10.0.0.1:7 left=0 completed",
        ],
        Ok(""),
    );
    let counts = Counts { complete: 1, incomplete: 0, downloaded: 1 };
    assert_eq!(tracker.scrape(&[]), [(HASH, counts)]);
    assert_eq!(tracker.scrape(&[HASH, [9; 20]]), [(HASH, counts)]);
    assert_eq!(tracker.scrape(&[[9; 20]]), []);
}

/// Whether a peer that announced at `seconds` is still told after so many more of silence.
fn check_silence(seconds: &[u32], silence: u32, wanted: bool) {
    let mut tracker = tracker(Config::default());
    for second in seconds {
        ask(&mut tracker, Time(0) + SECOND * *second, "10.0.0.1:7 left=9").unwrap();
    }
    let now = Time(0) + SECOND * (seconds[seconds.len() - 1] + silence);
    let told = !ask(&mut tracker, now, "10.0.0.2:7 left=9").unwrap().peers.is_empty();
    assert_eq!(told, wanted, "{silence} s after {seconds:?}");
}

#[test]
fn the_silent_are_forgotten_as_soon_as_their_habits_allow() {
    check_silence(&[0], 900, true);
    check_silence(&[0], 901, false);
    check_silence(&[0, 30], 90, true);
    check_silence(&[0, 30], 91, false);
    check_silence(&[0, 5, 10], 90, true);
    check_silence(&[0, 100], 300, true);
    check_silence(&[0, 100], 301, false);
    check_silence(&[0, 300], 900, true);
}

#[test]
fn as_many_peers_as_wanted_one_of_them_with_everything() {
    let mut tracker = tracker(Config::default());
    for host in 1..=200 {
        let left = if host == 150 { 0 } else { 9 };
        ask(&mut tracker, Time(0), &format!("10.0.0.{host}:7 left={left}")).unwrap();
    }
    let told = |tracker: &mut Tracker, numwant: &str, seed| {
        let (addr, announce) = say(&format!("10.0.1.1:7 left=9{numwant}"));
        let reply = tracker.announce(Time(0), &announce, addr.ip(), LOCAL, seed).unwrap();
        assert!(numwant.contains("=0") || peers(&reply).contains("10.0.0.150:7"));
        reply.peers
    };
    let counts = [("", 50), (" numwant=0", 0), (" numwant=64", 64), (" numwant=4294967295", 200)];
    for (numwant, count) in counts {
        let mut found = told(&mut tracker, numwant, 1);
        found.sort_by_key(|entry| entry.addr);
        found.dedup();
        assert_eq!(found.len(), count, "{numwant}");
    }
    assert_eq!(told(&mut tracker, "", 7), told(&mut tracker, "", 7));
    assert_ne!(told(&mut tracker, "", 7), told(&mut tracker, "", 8));
}
