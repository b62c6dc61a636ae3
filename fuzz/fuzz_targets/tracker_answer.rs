//! What trackers answer, against the second bencode parser.

#![no_main]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use fuzz::reference::{Value, parse};
use libfuzzer_sys::fuzz_target;
use swarm::tracker::{Answer, AnswerError, REPLY_PEERS_MAX, encode_failure};

fuzz_target!(|data: &[u8]| {
    let found = Answer::parse(data);
    if let Err(error) = &found {
        let message = error.to_string();
        let control = message.chars().any(char::is_control);
        assert!(!control && message.chars().count() < 300, "{message:?}");
    }
    if let Ok(answer) = &found {
        check_bounds(answer);
    }
    let wanted = reference(data);
    match (&found, &wanted) {
        (Err(AnswerError::Refused(why)), Some(Err(refusal))) => assert_eq!(why, refusal),
        (Err(AnswerError::Bencode(_) | AnswerError::Compact { .. }), None) => {}
        (Ok(found), Some(Ok(wanted))) => assert_eq!(found, wanted),
        _ => panic!("{found:?} is not {wanted:?}: {}", data.escape_ascii()),
    }
    if let Ok(why) = str::from_utf8(data) {
        let refused = Answer::parse(&encode_failure(why));
        assert!(matches!(refused, Err(AnswerError::Refused(_))), "{refused:?}");
    }
});

fn check_bounds(answer: &Answer) {
    assert!(answer.peers.len() <= REPLY_PEERS_MAX);
    for addr in &answer.peers {
        assert!(addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast());
    }
    let year = Duration::from_secs(365 * 86_400);
    assert!(answer.interval <= year && answer.min_interval <= year);
}

/// `None`: no answer. `Err`: a refusal.
fn reference(data: &[u8]) -> Option<Result<Answer, String>> {
    let parsed = parse(data)?;
    if parsed.len != data.len() || parsed.depth > 8 || !parsed.keys_ascend {
        return None;
    }
    let Value::Dict(entries) = parsed.value else { return None };
    let mut answer = Answer::default();
    let mut refusal = None;
    for (key, value) in &entries {
        match *key {
            b"failure reason" => refusal = Some(shown(bytes(value)?)),
            b"warning message" => answer.warning = Some(shown(bytes(value)?)),
            b"interval" => answer.interval = seconds(value)?,
            b"min interval" => answer.min_interval = seconds(value)?,
            b"complete" => answer.complete = Some(count(value)?),
            b"incomplete" => answer.incomplete = Some(count(value)?),
            b"tracker id" => {
                let id = bytes(value)?;
                answer.tracker_id = (id.len() <= 256).then(|| id.to_vec());
            }
            b"external ip" => answer.external_ip = ip(bytes(value)?),
            b"peers" => match value {
                Value::List(peers) => {
                    for peer in peers {
                        answer.peers.extend(peer_of(peer)?);
                    }
                }
                other => answer.peers.extend(compact(bytes(other)?, 6)?),
            },
            b"peers6" => answer.peers.extend(compact(bytes(value)?, 18)?),
            _ => {}
        }
    }
    answer.peers.truncate(REPLY_PEERS_MAX);
    Some(refusal.map_or(Ok(answer), Err))
}

fn bytes<'a>(value: &Value<'a>) -> Option<&'a [u8]> {
    if let Value::Bytes(bytes) = value { Some(bytes) } else { None }
}

fn count(value: &Value<'_>) -> Option<u64> {
    if let Value::Int(number) = value { u64::try_from(*number).ok() } else { None }
}

fn seconds(value: &Value<'_>) -> Option<Duration> {
    let Value::Int(number) = value else { return None };
    Some(Duration::from_secs((*number).clamp(0, 31_536_000).unsigned_abs()))
}

fn shown(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    text.chars().take(200).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// `None` if the string does not hold whole peers; without those nobody can be.
fn compact(string: &[u8], size: usize) -> Option<Vec<SocketAddr>> {
    let peer = |peer: &[u8]| {
        let (octets, port) = peer.split_at(size - 2);
        place(ip(octets), u64::from(port[0]) * 256 + u64::from(port[1]))
    };
    string.len().is_multiple_of(size).then(|| string.chunks(size).filter_map(peer).collect())
}

/// `None` if it is no peer; empty if nobody can be there.
fn peer_of(value: &Value<'_>) -> Option<Option<SocketAddr>> {
    let Value::Dict(entries) = value else { return None };
    let (mut addr, mut port) = (None, 0);
    for (key, value) in entries {
        match *key {
            b"ip" => addr = str::from_utf8(bytes(value)?).ok().and_then(|text| text.parse().ok()),
            b"port" => port = count(value)?,
            _ => {}
        }
    }
    Some(place(addr, port))
}

fn place(ip: Option<IpAddr>, port: u64) -> Option<SocketAddr> {
    let ip = match ip? {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        v4 => v4,
    };
    let nobody = match ip {
        IpAddr::V4(ip) => {
            ip == Ipv4Addr::new(0, 0, 0, 0) || ip.is_broadcast() || ip.octets()[0] >> 4 == 14
        }
        IpAddr::V6(ip) => ip.octets() == [0; 16] || ip.octets()[0] == 0xff,
    };
    u16::try_from(port).ok().filter(|port| *port != 0 && !nobody).map(|port| (ip, port).into())
}
