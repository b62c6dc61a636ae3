//! What trackers answer: written by ours, read from anybody's.

use super::query::TRACKER_ID_MAX;
use crate::bencode::{BencodeError, BencodeErrorKind, Decoder, DictEncoder, Encoder, Limits};
use crate::metainfo::Digest;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

/// Most peers taken from one answer; the rest is ignored. A node connects to 128 at most.
pub const REPLY_PEERS_MAX: usize = 512;

/// A peer as a tracker hands it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Which program it is, if it said so.
    pub peer_id: Option<[u8; 20]>,
}

/// How many peers a torrent has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Peers that have all of it.
    pub complete: u32,
    /// Peers that do not.
    pub incomplete: u32,
    /// How many reported that they got all of it.
    pub downloaded: u32,
}

/// Our answer to an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// When the peer shall announce again; whole seconds are told.
    pub interval: Duration,
    /// How early it may do so.
    pub min_interval: Duration,
    /// How many peers there are.
    pub counts: Counts,
    /// Some of them.
    pub peers: Vec<Entry>,
    /// Where the tracker sees the peer that announced (BEP 24).
    pub external_ip: IpAddr,
    /// Whether peers go out as strings of bytes (BEP 23, BEP 7), or as dictionaries (BEP 3).
    pub compact: bool,
    /// Whether dictionaries go without peer ids.
    pub no_peer_id: bool,
}

impl Reply {
    /// The answer in bencoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.dict(|d| {
            d.key("complete").uint(self.counts.complete.into());
            d.key("downloaded").uint(self.counts.downloaded.into());
            match self.external_ip.to_canonical() {
                IpAddr::V4(ip) => d.key("external ip").bytes(&ip.octets()),
                IpAddr::V6(ip) => d.key("external ip").bytes(&ip.octets()),
            }
            d.key("incomplete").uint(self.counts.incomplete.into());
            d.key("interval").uint(self.interval.as_secs());
            d.key("min interval").uint(self.min_interval.as_secs());
            if self.compact {
                self.encode_compact(d);
            } else {
                self.encode_dicts(d.key("peers"));
            }
        });
        encoder.finish()
    }

    fn encode_compact(&self, d: &mut DictEncoder<'_>) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Entry { addr, .. } in &self.peers {
            let out = match addr.ip() {
                IpAddr::V4(ip) => {
                    v4.extend_from_slice(&ip.octets());
                    &mut v4
                }
                IpAddr::V6(ip) => {
                    v6.extend_from_slice(&ip.octets());
                    &mut v6
                }
            };
            out.extend_from_slice(&addr.port().to_be_bytes());
        }
        // There even when it is empty: clients take it for the mark of a good answer.
        d.key("peers").bytes(&v4);
        if !v6.is_empty() {
            d.key("peers6").bytes(&v6);
        }
    }

    fn encode_dicts(&self, e: &mut Encoder) {
        e.list(|e| {
            for Entry { addr, peer_id } in &self.peers {
                e.dict(|d| {
                    d.key("ip").bytes(alloc::format!("{}", addr.ip()).as_bytes());
                    if let (Some(id), false) = (peer_id, self.no_peer_id) {
                        d.key("peer id").bytes(id);
                    }
                    d.key("port").uint(addr.port().into());
                });
            }
        });
    }
}

/// An answer that refuses: `why` is shown to people.
#[must_use]
pub fn encode_failure(why: &str) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.dict(|d| d.key("failure reason").bytes(why.as_bytes()));
    encoder.finish()
}

/// The answer to a scrape (BEP 48). `files` must ascend and hold no torrent twice.
#[must_use]
pub fn encode_scrape(files: &[(Digest, Counts)]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.dict(|d| {
        // Keys of raw bytes, which `DictEncoder::key` does not take.
        let e = d.key("files");
        e.raw(b"d");
        for (info_hash, counts) in files {
            e.bytes(info_hash);
            e.dict(|d| {
                d.key("complete").uint(counts.complete.into());
                d.key("downloaded").uint(counts.downloaded.into());
                d.key("incomplete").uint(counts.incomplete.into());
            });
        }
        e.raw(b"e");
    });
    encoder.finish()
}

/// What a tracker answered to an announce of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// When it wants to hear from us again, as it says; 0 if it does not.
    pub interval: Duration,
    /// How early it bears to; 0 if it does not say.
    pub min_interval: Duration,
    /// Where peers listen. Without ports 0 and addresses nobody can be at.
    pub peers: Vec<SocketAddr>,
    /// How many peers it knows, if it says so.
    pub complete: Option<u64>,
    /// See `complete`.
    pub incomplete: Option<u64>,
    /// Something people should read.
    pub warning: Option<String>,
    /// To be told back from now on.
    pub tracker_id: Option<Vec<u8>>,
    /// Where it sees us (BEP 24).
    pub external_ip: Option<IpAddr>,
}

/// Why there is no answer in the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The tracker says no (`failure reason`), in its words.
    #[error("the tracker refuses: {0}")]
    Refused(String),
    /// Not bencoding, or values of other types than BEP 3 gives them.
    #[error("not a tracker's answer: {0}")]
    Bencode(#[from] BencodeError),
    /// A string of peers that does not hold whole peers.
    #[error("not a tracker's answer: `{key}` has {len} bytes, {size} a peer")]
    Compact {
        /// The key of the string.
        key: &'static str,
        /// Its length.
        len: usize,
        /// Bytes a peer.
        size: usize,
    },
}

impl Answer {
    /// Reads an answer, strictly: see [`Limits::NETWORK`].
    ///
    /// # Errors
    /// A refusal, or bytes that are no answer. Peers that make no sense are left out silently.
    pub fn parse(bytes: &[u8]) -> Result<Answer, AnswerError> {
        let mut answer = Answer::default();
        let mut refused = None;
        let mut decoder = Decoder::new(bytes, Limits::NETWORK)?;
        decoder.dict(|d, key| match key {
            b"failure reason" => {
                refused = Some(shown(d.bytes()?));
                Ok(())
            }
            _ => answer.field(d, key),
        })?;
        decoder.finish()?;
        match refused {
            Some(why) => Err(AnswerError::Refused(why)),
            None => Ok(answer),
        }
    }

    fn field(&mut self, d: &mut Decoder<'_>, key: &[u8]) -> Result<(), AnswerError> {
        match key {
            b"interval" => self.interval = seconds(d)?,
            b"min interval" => self.min_interval = seconds(d)?,
            b"complete" => self.complete = Some(d.uint()?),
            b"incomplete" => self.incomplete = Some(d.uint()?),
            b"warning message" => self.warning = Some(shown(d.bytes()?)),
            b"tracker id" => {
                let id = d.bytes()?;
                self.tracker_id = (id.len() <= TRACKER_ID_MAX).then(|| id.to_vec());
            }
            b"external ip" => self.external_ip = ip_of(d.bytes()?),
            b"peers" => self.peers(d)?,
            b"peers6" => {
                let bytes = d.bytes()?;
                let (peers, rest) = bytes.as_chunks::<18>();
                if !rest.is_empty() {
                    return Err(AnswerError::Compact { key: "peers6", len: bytes.len(), size: 18 });
                }
                for [ip @ .., high, low] in peers {
                    self.push(ip_of(ip), u16::from_be_bytes([*high, *low]));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `peers` is a string (BEP 23) or a list of dictionaries (BEP 3), as the tracker likes.
    fn peers(&mut self, d: &mut Decoder<'_>) -> Result<(), AnswerError> {
        let bytes = match d.bytes() {
            Ok(bytes) => bytes,
            // Nothing was read of a value of another type.
            Err(e) if e.kind == BencodeErrorKind::Expected("a string") => {
                return d.list(|d| self.peer(d));
            }
            Err(e) => return Err(e.into()),
        };
        let (peers, rest) = bytes.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(AnswerError::Compact { key: "peers", len: bytes.len(), size: 6 });
        }
        for [ip @ .., high, low] in peers {
            self.push(ip_of(ip), u16::from_be_bytes([*high, *low]));
        }
        Ok(())
    }

    fn peer(&mut self, d: &mut Decoder<'_>) -> Result<(), AnswerError> {
        let (mut ip, mut port) = (None, 0);
        d.dict(|d, key| {
            match key {
                // BEP 3 allows a host name as well; whoever listens on a LAN has an address.
                b"ip" => ip = core::str::from_utf8(d.bytes()?).ok().and_then(|t| t.parse().ok()),
                b"port" => port = d.uint()?.try_into().unwrap_or(0),
                _ => {}
            }
            Ok::<_, BencodeError>(())
        })?;
        self.push(ip, port);
        Ok(())
    }

    fn push(&mut self, ip: Option<IpAddr>, port: u16) {
        let Some(ip) = ip.map(|ip| ip.to_canonical()) else { return };
        let nowhere = ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
        if port != 0 && !nowhere && self.peers.len() < REPLY_PEERS_MAX {
            self.peers.push(SocketAddr::new(ip, port));
        }
    }
}

/// A year at the most: what is longer is a mistake, and must not overflow anybody's clock.
const INTERVAL_MAX: u64 = 365 * 86_400;

fn seconds(d: &mut Decoder<'_>) -> Result<Duration, BencodeError> {
    // Trackers that send a negative number mean that they do not care.
    let seconds = u64::try_from(d.int()?).unwrap_or(0);
    Ok(Duration::from_secs(seconds.min(INTERVAL_MAX)))
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// A stranger's words as they may be shown: 200 characters, none of them a control character.
fn shown(words: &[u8]) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    // Four bytes a character at the most, so what is cut off here would not be shown.
    let words = &words[..words.len().min(800)];
    String::from_utf8_lossy(words).chars().map(printable).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn check(answer: &[u8], wanted: Result<&[&str], &str>) {
        let found = Answer::parse(answer);
        let found = found.map(|a| a.peers.iter().map(ToString::to_string).collect::<Vec<_>>());
        let found = found.map_err(|e| e.to_string());
        let wanted = wanted.map(|peers| peers.iter().map(ToString::to_string).collect());
        assert_eq!(found, wanted.map_err(String::from), "{}", answer.escape_ascii());
    }

    #[test]
    fn answers_of_both_forms_are_read() {
        check(b"d8:intervali1800e5:peers6:\x0a\0\0\x01\x1a\xe1e", Ok(&["10.0.0.1:6881"]));
        check(
            b"d5:peers0:6:peers618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1e",
            Ok(&["[fd00::1]:6881"]),
        );
        check(
            b"d5:peersld2:ip8:10.0.0.17:peer id20:123456789012345678904:porti6881eed2:ip4:fd::4:porti1eeee",
            Ok(&["10.0.0.1:6881", "[fd::]:1"]),
        );
        check(b"de", Ok(&[]));
    }

    #[test]
    fn peers_nobody_can_be_are_left_out() {
        check(b"d5:peers12:\x0a\0\0\x01\0\0\xef\0\0\x01\x1a\xe1e", Ok(&[]));
        check(b"d5:peers12:\0\0\0\0\x1a\xe1\xff\xff\xff\xff\x1a\xe1e", Ok(&[]));
        check(b"d5:peersld2:ip4:host4:porti1eed2:ip7:1.2.3.44:porti65536eeee", Ok(&[]));
        let many = [b"d5:peers6000:".as_slice(), &[9; 6000], b"e"].concat();
        assert_eq!(Answer::parse(&many).unwrap().peers.len(), REPLY_PEERS_MAX);
    }

    #[test]
    fn what_is_no_answer_is_refused_with_the_reason() {
        let refusal = "the tracker refuses: Requested download is not authorized\u{fffd}[2J";
        check(b"d14:failure reason40:Requested download is not authorized\x1b[2Je", Err(refusal));
        check(b"<html>", Err("not a tracker's answer: not a dictionary at byte 0"));
        check(b"", Err("not a tracker's answer: the data is cut off at byte 0"));
        check(b"d5:peers7:1234567e", Err("not a tracker's answer: `peers` has 7 bytes, 6 a peer"));
        check(
            b"d5:peers0:6:peers617:12345678901234567e",
            Err("not a tracker's answer: `peers6` has 17 bytes, 18 a peer"),
        );
        check(b"d5:peersi1ee", Err("not a tracker's answer: not a list at byte 8"));
        check(b"d5:peersli1eee", Err("not a tracker's answer: not a dictionary at byte 9"));
        let nested = ["d5:peers", &"l".repeat(100_000)].concat();
        check(nested.as_bytes(), Err("not a tracker's answer: not a dictionary at byte 9"));
    }

    #[test]
    fn intervals_are_seconds_in_bounds() {
        let interval = |text: &str| {
            Answer::parse(format!("d8:intervali{text}e12:min intervali{text}ee").as_bytes())
                .map(|a| (a.interval.as_secs(), a.min_interval.as_secs()))
        };
        assert_eq!(interval("1800"), Ok((1800, 1800)));
        assert_eq!(interval("-5"), Ok((0, 0)));
        assert_eq!(interval("9223372036854775807"), Ok((INTERVAL_MAX, INTERVAL_MAX)));
        assert!(interval("99999999999999999999").is_err());
    }

    #[test]
    fn a_scrape_is_answered_by_torrent() {
        let counts = Counts { complete: 1, incomplete: 2, downloaded: 3 };
        let found = encode_scrape(&[([b'a'; 20], counts), ([b'b'; 20], Counts::default())]);
        let wanted =
            b"d5:filesd20:aaaaaaaaaaaaaaaaaaaad8:completei1e10:downloadedi3e10:incompletei2ee\
            20:bbbbbbbbbbbbbbbbbbbbd8:completei0e10:downloadedi0e10:incompletei0eeee";
        assert_eq!(found.escape_ascii().to_string(), wanted.escape_ascii().to_string());
    }

    fn addr() -> impl Strategy<Value = SocketAddr> {
        // First bits that rule out addresses nobody can be at.
        let v4 = any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c]));
        let v6 = any::<[u16; 7]>()
            .prop_map(|[a, b, c, d, e, f, g]| IpAddr::from([0xfd00, a, b, c, d, e, f, g]));
        (prop_oneof![v4, v6], 1..=u16::MAX).prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn what_our_tracker_answers_our_client_reads(
            addrs in prop::collection::vec(addr(), 0..20),
            compact in any::<bool>(),
            external in addr(),
        ) {
            let entry = |addr: &SocketAddr| Entry { addr: *addr, peer_id: Some([7; 20]) };
            let reply = Reply {
                interval: Duration::from_secs(30),
                min_interval: Duration::from_secs(5),
                counts: Counts { complete: 3, incomplete: 4, downloaded: 5 },
                peers: addrs.iter().map(entry).collect(),
                external_ip: external.ip(),
                compact,
                no_peer_id: false,
            };
            let answer = Answer::parse(&reply.encode()).unwrap();
            // Compact answers tell the IPv4 peers first.
            let mut wanted = addrs;
            if compact {
                wanted.sort_by_key(SocketAddr::is_ipv6);
            }
            prop_assert_eq!(answer.peers, wanted);
            prop_assert_eq!(answer.interval.as_secs(), 30);
            prop_assert_eq!((answer.complete, answer.incomplete), (Some(3), Some(4)));
            prop_assert_eq!(answer.external_ip, Some(external.ip()));
        }

        #[test]
        fn no_answer_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Answer::parse(&bytes);
        }
    }
}
