//! What stands behind the `?` of an announce or a scrape: read by trackers, written by peers.
//!
//! Info-hashes and peer ids are raw bytes in percent-encoding, so a query is bytes, not text.

use crate::metainfo::Digest;
use crate::percent::{decode, encode, pairs};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// Most info-hashes a scrape may ask for at once: as many fit into a request line of 4 KiB.
pub const SCRAPE_MAX: usize = 64;

/// What a peer tells a tracker (BEP 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Which torrent.
    pub info_hash: Digest,
    /// Which program.
    pub peer_id: [u8; 20],
    /// Where it listens; 0 if it does not.
    pub port: u16,
    /// Bytes of blocks sent since `started`.
    pub uploaded: u64,
    /// Bytes of blocks received since `started`.
    pub downloaded: u64,
    /// Bytes of the image it lacks; `None` if it does not know.
    pub left: Option<u64>,
    /// Why it announces.
    pub event: Event,
    /// How many peers it wants; `None` leaves that to the tracker.
    pub numwant: Option<u32>,
    /// Whether peers shall come as strings of bytes (BEP 23), which is usual, or as dictionaries.
    pub compact: bool,
    /// Whether dictionaries may come without peer ids.
    pub no_peer_id: bool,
    /// What the tracker asked to be told again (`tracker id`).
    pub tracker_id: Option<Vec<u8>>,
}

/// Why a peer announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// Because it is time to.
    #[default]
    Regular,
    /// It begins.
    Started,
    /// It has all of the image now, and did not when it began.
    Completed,
    /// It leaves.
    Stopped,
}

/// Why a query is no announce, or no scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A key that must be there is not.
    #[error("the query lacks `{0}`")]
    Missing(&'static str),
    /// A value is not what the key asks for.
    #[error("`{0}` is {1}")]
    Bad(&'static str, &'static str),
}

impl Announce {
    /// Reads the query of an announce. Keys that are not known are ignored, `ip` among them: where
    /// a peer is, its connection tells, or one peer could point all others at a third party.
    ///
    /// # Errors
    /// No, or a wrong, `info_hash`, `peer_id` or `port`. Statistics that are no numbers are taken
    /// as unknown; clients that send `-1` exist.
    pub fn parse(query: &[u8]) -> Result<Announce, QueryError> {
        let (mut info_hash, mut peer_id, mut port, mut left) = (None, None, None, None);
        let (mut uploaded, mut downloaded) = (0, 0);
        let (mut event, mut numwant, mut tracker_id) = (Event::Regular, None, None);
        let (mut compact, mut no_peer_id) = (true, false);
        for (key, value) in pairs(query) {
            match key {
                b"info_hash" => info_hash = Some(twenty("info_hash", value)?),
                b"peer_id" => peer_id = Some(twenty("peer_id", value)?),
                b"port" => {
                    let bad = QueryError::Bad("port", "not a number from 0 to 65535");
                    port = Some(number(value).and_then(|n| n.try_into().ok()).ok_or(bad)?);
                }
                b"uploaded" => uploaded = number(value).unwrap_or(0),
                b"downloaded" => downloaded = number(value).unwrap_or(0),
                b"left" => left = number(value),
                b"event" => event = Event::of(value),
                b"numwant" => numwant = number(value).map(|n| n.try_into().unwrap_or(u32::MAX)),
                b"compact" => compact = value != b"0",
                b"no_peer_id" => no_peer_id = value == b"1",
                b"trackerid" => tracker_id = decode(value, TRACKER_ID_MAX),
                _ => {}
            }
        }
        Ok(Announce {
            info_hash: info_hash.ok_or(QueryError::Missing("info_hash"))?,
            peer_id: peer_id.ok_or(QueryError::Missing("peer_id"))?,
            port: port.ok_or(QueryError::Missing("port"))?,
            uploaded,
            downloaded,
            left,
            event,
            numwant,
            compact,
            no_peer_id,
            tracker_id,
        })
    }

    /// The query that tells this, without `?`.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut out = String::with_capacity(320);
        out.push_str("info_hash=");
        encode(&self.info_hash, &mut out);
        out.push_str("&peer_id=");
        encode(&self.peer_id, &mut out);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "&port={}&uploaded={}&downloaded={}",
            self.port, self.uploaded, self.downloaded
        );
        if let Some(left) = self.left {
            let _ = write!(out, "&left={left}");
        }
        let _ = write!(out, "&compact={}", u8::from(self.compact));
        if self.no_peer_id {
            out.push_str("&no_peer_id=1");
        }
        if let Some(numwant) = self.numwant {
            let _ = write!(out, "&numwant={numwant}");
        }
        if let Some(event) = self.event.name() {
            let _ = write!(out, "&event={event}");
        }
        if let Some(id) = &self.tracker_id {
            out.push_str("&trackerid=");
            encode(id, &mut out);
        }
        out
    }
}

impl Event {
    fn of(value: &[u8]) -> Event {
        match value {
            b"started" => Event::Started,
            b"completed" => Event::Completed,
            b"stopped" => Event::Stopped,
            // Also `paused` (BEP 21), which concerns only those who count partial seeds.
            _ => Event::Regular,
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Event::Regular => None,
            Event::Started => Some("started"),
            Event::Completed => Some("completed"),
            Event::Stopped => Some("stopped"),
        }
    }
}

/// Reads the query of a scrape (BEP 48): the torrents it asks about, all if it names none.
///
/// # Errors
/// An info-hash that is none, or more than [`SCRAPE_MAX`] of them.
pub fn parse_scrape(query: &[u8]) -> Result<Vec<Digest>, QueryError> {
    let mut wanted = Vec::new();
    for (_, value) in pairs(query).filter(|(key, _)| *key == b"info_hash") {
        if wanted.len() == SCRAPE_MAX {
            return Err(QueryError::Bad("info_hash", "given more than 64 times"));
        }
        wanted.push(twenty("info_hash", value)?);
    }
    Ok(wanted)
}

/// The URL to ask: `announce` as the torrent gives it, with `query` behind what it has already.
#[must_use]
pub fn url(announce: &str, query: &str) -> String {
    let announce = announce.split_once('#').map_or(announce, |(url, _)| url);
    let joint = match announce.find('?') {
        None => "?",
        // Only the first `?` begins the query; another one is part of a value.
        Some(at) if at + 1 == announce.len() || announce.ends_with('&') => "",
        Some(_) => "&",
    };
    [announce, joint, query].concat()
}

/// `bytes` as they may stand in a URL: all but the unreserved characters of RFC 3986 escaped.
#[must_use]
pub fn percent_encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    encode(bytes, &mut out);
    out
}

/// Longest `tracker id` that is told back, in bytes.
pub(super) const TRACKER_ID_MAX: usize = 256;

fn twenty(key: &'static str, value: &[u8]) -> Result<[u8; 20], QueryError> {
    let bytes = decode(value, 20).ok_or(QueryError::Bad(key, "not 20 bytes in %-encoding"))?;
    bytes.try_into().map_err(|_| QueryError::Bad(key, "not 20 bytes long"))
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = core::str::from_utf8(value).ok()?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    const HASH: &str = "info_hash=%00+%2B%2b%ff%FFabcdefghijklmn";

    fn check(query: &str, wanted: Result<(), &str>) {
        let found = Announce::parse(query.as_bytes()).map(drop).map_err(|e| e.to_string());
        assert_eq!(found, wanted.map_err(String::from), "{query}");
    }

    #[test]
    fn bytes_come_out_of_percent_encoding() {
        let query =
            [HASH, "&peer_id=-XG0100-0123456789ab&port=6881&left=-1&event=started"].concat();
        let announce = Announce::parse(query.as_bytes()).unwrap();
        assert_eq!(&announce.info_hash, b"\0 ++\xff\xffabcdefghijklmn");
        assert_eq!(&announce.peer_id, b"-XG0100-0123456789ab");
        assert_eq!((announce.port, announce.left), (6881, None));
        assert_eq!((announce.event, announce.compact), (Event::Started, true));
    }

    #[test]
    fn an_announce_needs_three_things() {
        let id = "peer_id=-XG0100-0123456789ab";
        check("", Err("the query lacks `info_hash`"));
        check(&[HASH, "&port=1"].concat(), Err("the query lacks `peer_id`"));
        check(&[HASH, "&", id].concat(), Err("the query lacks `port`"));
        check(&[HASH, "&", id, "&port=65535&ip=9.9.9.9&&=&x&left="].concat(), Ok(()));
        for port in ["65536", "-1", "", "+1", "%31"] {
            let query = [HASH, "&", id, "&port=", port].concat();
            check(&query, Err("`port` is not a number from 0 to 65535"));
        }
        check("info_hash=%00", Err("`info_hash` is not 20 bytes long"));
        for bad in ["%", "%0", "%0g", "%%00", "123456789012345678901"] {
            let query = ["info_hash=", bad].concat();
            check(&query, Err("`info_hash` is not 20 bytes in %-encoding"));
        }
    }

    #[test]
    fn a_scrape_asks_for_a_bounded_number() {
        let many = [HASH; SCRAPE_MAX].join("&");
        assert_eq!(parse_scrape(many.as_bytes()).unwrap().len(), SCRAPE_MAX);
        assert!(parse_scrape([&many, "&", HASH].concat().as_bytes()).is_err());
        assert_eq!(parse_scrape(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_query_joins_what_the_url_has() {
        assert_eq!(url("http://t/announce", "a=1"), "http://t/announce?a=1");
        assert_eq!(url("http://t/announce?key=7", "a=1"), "http://t/announce?key=7&a=1");
        assert_eq!(url("http://t/announce?#x", "a=1"), "http://t/announce?a=1");
        assert_eq!(url("http://t/announce?key=7&", "a=1"), "http://t/announce?key=7&a=1");
    }

    #[test]
    fn a_key_that_ends_with_a_question_mark_swallowed_the_query() {
        assert_eq!(url("http://t/announce?key=7?", "a=1"), "http://t/announce?key=7?&a=1");
    }

    fn event() -> impl Strategy<Value = Event> {
        use Event::{Completed, Regular, Started, Stopped};
        prop::sample::select(&[Regular, Started, Completed, Stopped][..])
    }

    proptest! {
        #[test]
        fn what_a_peer_writes_a_tracker_reads(
            ids in any::<([u8; 20], [u8; 20])>(),
            numbers in any::<(u16, u64, u64, Option<u64>, Option<u32>)>(),
            flags in any::<(bool, bool)>(),
            event in event(),
            tracker_id in prop::option::of(prop::collection::vec(any::<u8>(), 0..30)),
        ) {
            let announce = Announce {
                info_hash: ids.0,
                peer_id: ids.1,
                port: numbers.0,
                uploaded: numbers.1,
                downloaded: numbers.2,
                left: numbers.3,
                event,
                numwant: numbers.4,
                compact: flags.0,
                no_peer_id: flags.1,
                tracker_id,
            };
            prop_assert_eq!(Announce::parse(announce.to_query().as_bytes()).unwrap(), announce);
        }

        #[test]
        fn no_query_is_too_strange(query in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Announce::parse(&query);
            let _ = parse_scrape(&query);
        }
    }
}
