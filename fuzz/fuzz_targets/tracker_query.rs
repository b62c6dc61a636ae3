//! Queries of announces and scrapes, against a second reader; what the tracker makes of them; the
//! URL they are put behind.

#![no_main]

use core::net::{IpAddr, SocketAddr};
use libfuzzer_sys::fuzz_target;
use swarm::time::Time;
use swarm::tracker::{
    Announce, Answer, Config, Event, SCRAPE_MAX, Tracker, parse_scrape, percent_encode, url,
};

fuzz_target!(|data: &[u8]| {
    let found = Announce::parse(data);
    assert_eq!(found.as_ref().ok(), reference(data).as_ref(), "{}", data.escape_ascii());
    if let Ok(announce) = &found {
        assert_eq!(Announce::parse(announce.to_query().as_bytes()).as_ref(), Ok(announce));
        let longer = [data, b"&ip=192.0.2.1&&=&x&Port=9&info_hash_=1"].concat();
        assert_eq!(Announce::parse(&longer).as_ref(), Ok(announce), "what is unknown counts");
        check_tracker(announce);
    }
    check_scrape(data);
    check_url(data);
});

fn reference(query: &[u8]) -> Option<Announce> {
    let last = |key: &str| values(query, key).last().copied();
    let number = |key| last(key).and_then(number);
    Some(Announce {
        info_hash: all_valid(query, "info_hash", twenty)?,
        peer_id: all_valid(query, "peer_id", twenty)?,
        port: all_valid(query, "port", |value| u16::try_from(self::number(value)?).ok())?,
        uploaded: number("uploaded").unwrap_or(0),
        downloaded: number("downloaded").unwrap_or(0),
        left: number("left"),
        event: match last("event") {
            Some(b"started") => Event::Started,
            Some(b"completed") => Event::Completed,
            Some(b"stopped") => Event::Stopped,
            _ => Event::Regular,
        },
        numwant: number("numwant").map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        compact: last("compact") != Some(b"0"),
        no_peer_id: last("no_peer_id") == Some(b"1"),
        tracker_id: last("trackerid").and_then(unescaped).filter(|id| id.len() <= 256),
    })
}

/// The last value of `key`, if there is one and all of them are what they should be.
fn all_valid<T>(query: &[u8], key: &str, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let all: Option<Vec<T>> = values(query, key).into_iter().map(read).collect();
    all?.pop()
}

/// Every value of `key`; empty if there is no `=`.
fn values<'a>(query: &'a [u8], key: &str) -> Vec<&'a [u8]> {
    let value = |pair: &'a [u8]| match pair.strip_prefix(key.as_bytes())? {
        [] => Some(&[][..]),
        [b'=', value @ ..] => Some(value),
        _ => None,
    };
    query.split(|&b| b == b'&').filter_map(value).collect()
}

fn number(digits: &[u8]) -> Option<u64> {
    let digit = |b: &u8| char::from(*b).to_digit(10).map(u64::from);
    let step = |n: u64, b: &u8| n.checked_mul(10)?.checked_add(digit(b)?);
    digits.iter().try_fold(0, step).filter(|_| !digits.is_empty())
}

fn twenty(value: &[u8]) -> Option<[u8; 20]> {
    unescaped(value)?.try_into().ok()
}

fn unescaped(value: &[u8]) -> Option<Vec<u8>> {
    let mut parts = value.split(|&b| b == b'%');
    let plain = |part: &[u8]| part.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    let mut out: Vec<u8> = plain(parts.next()?);
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        let hex = str::from_utf8(hex).ok().filter(|hex| !hex.contains('+'))?;
        out.push(u8::from_str_radix(hex, 16).ok()?);
        out.extend(plain(rest));
    }
    Some(out)
}

/// Two peers announce the same: each is told of the other if it can be, never of itself.
fn check_tracker(announce: &Announce) {
    let mut tracker = Tracker::new(Config::default());
    tracker.register(announce.info_hash, None);
    let local = IpAddr::from([10, 0, 0, 1]);
    let remotes = [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3])];
    let mut other = Announce { left: Some(0), event: Event::Regular, ..announce.clone() };
    other.peer_id[0] ^= 1;
    let _ = tracker.announce(Time::default(), &other, remotes[1], local, 1);
    let reply = tracker.announce(Time::default(), announce, remotes[0], local, 2);
    let reply = reply.expect("a peer of the LAN is welcome");
    let told: Vec<SocketAddr> = reply.peers.iter().map(|entry| entry.addr).collect();
    let wanted = announce.numwant != Some(0) && announce.event != Event::Stopped;
    let useful = wanted && announce.port != 0 && announce.left != Some(0);
    let other = SocketAddr::new(remotes[1], announce.port);
    assert_eq!(told, if useful { vec![other] } else { Vec::new() }, "{announce:?}");
    let answer = Answer::parse(&reply.encode()).expect("what we answer can be read");
    assert_eq!((answer.peers, answer.external_ip), (told, Some(remotes[0])));
}

fn check_scrape(query: &[u8]) {
    let hashes: Option<Vec<_>> = values(query, "info_hash").into_iter().map(twenty).collect();
    let wanted = hashes.filter(|hashes| hashes.len() <= SCRAPE_MAX);
    assert_eq!(parse_scrape(query).ok(), wanted, "{}", query.escape_ascii());
    let Some(hashes) = wanted else { return };
    let pairs: Vec<String> =
        hashes.iter().map(|hash| format!("info_hash={}", percent_encode(hash))).collect();
    assert_eq!(parse_scrape(pairs.join("&").as_bytes()), Ok(hashes));
}

/// What is put behind any URL is found there again.
fn check_url(data: &[u8]) {
    let Ok(announce) = str::from_utf8(data) else { return };
    let whole = url(announce, "port=1&x=2");
    let (_, query) = whole.split_once('?').expect("a query has a beginning");
    assert_eq!(values(query.as_bytes(), "x").last(), Some(&&b"2"[..]), "{whole:?}");
    assert_eq!(values(query.as_bytes(), "port").last(), Some(&&b"1"[..]), "{whole:?}");
    assert!(!whole.contains('#'), "a fragment is not sent: {whole:?}");
}
