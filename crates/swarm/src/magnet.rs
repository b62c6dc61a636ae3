//! Magnet links (BEP 9): a torrent named by nothing but its info-hash, and where to ask for it.
//!
//! `magnet:?xt=urn:btih:HASH`, the hash as 40 hexadecimal digits or 32 of base 32; `dn` a name for
//! people, `tr` a tracker, `x.pe` a peer as `HOST:PORT`. Other keys are passed over.

use crate::bencode::Encoder;
use crate::metainfo::Digest;
use crate::percent;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

/// What a magnet link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnet {
    /// Which torrent.
    pub info_hash: Digest,
    /// What it is called, for people.
    pub name: Option<String>,
    /// Announce URLs, in their order.
    pub trackers: Vec<String>,
    /// Where peers listen: names or addresses of hosts, IPv6 ones without brackets, and ports.
    pub peers: Vec<(String, u16)>,
}

/// Why a text is no magnet link that can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// It does not begin as one.
    #[error("it does not begin with magnet:?")]
    NotMagnet,
    /// No `xt` names a torrent.
    #[error("it names no torrent: `xt=urn:btih:` and the info-hash are missing")]
    NoHash,
    /// It names a torrent of version 2 only.
    #[error("it names a torrent of BitTorrent version 2 only (urn:btmh), which has other hashes")]
    Version2,
    /// What stands behind `urn:btih:` is no hash.
    #[error("its info-hash has neither 40 hexadecimal digits nor 32 of base 32")]
    BadHash,
    /// It names two torrents.
    #[error("it names two torrents")]
    TwoHashes,
    /// A value's percent-encoding is broken or it is no text.
    #[error("the value of `{0}` is malformed or too long")]
    BadValue(&'static str),
    /// An `x.pe` is no host with a port.
    #[error("a peer (`x.pe`) is not HOST:PORT")]
    BadPeer,
}

impl Magnet {
    /// Whether `text` is meant as a magnet link.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
    }

    /// Reads a magnet link.
    ///
    /// # Errors
    /// See [`MagnetError`].
    pub fn parse(text: &str) -> Result<Magnet, MagnetError> {
        if !Magnet::is_meant(text) {
            return Err(MagnetError::NotMagnet);
        }
        let query = text[SCHEME.len()..].strip_prefix('?').ok_or(MagnetError::NotMagnet)?;
        let (mut info_hash, mut version2) = (None, false);
        let (mut name, mut trackers, mut peers) = (None, Vec::new(), Vec::new());
        for (key, value) in percent::pairs(query.as_bytes()) {
            // `xt.1`, `tr.2` and so on: several of a kind may be numbered.
            match key.split(|&b| b == b'.').next().unwrap_or_default() {
                b"xt" => {
                    let urn = value_of("xt", value)?;
                    version2 |= urn.starts_with("urn:btmh:");
                    let Some(digits) = urn.strip_prefix("urn:btih:") else { continue };
                    let hash = hash(digits).ok_or(MagnetError::BadHash)?;
                    if info_hash.replace(hash).is_some_and(|other| other != hash) {
                        return Err(MagnetError::TwoHashes);
                    }
                }
                b"dn" => name = Some(value_of("dn", value)?),
                b"tr" => trackers.push(value_of("tr", value)?),
                b"x" if key == b"x.pe" => {
                    peers.push(peer(&value_of("x.pe", value)?).ok_or(MagnetError::BadPeer)?);
                }
                _ => {}
            }
        }
        let missing = if version2 { MagnetError::Version2 } else { MagnetError::NoHash };
        Ok(Magnet { info_hash: info_hash.ok_or(missing)?, name, trackers, peers })
    }

    /// A `.torrent` file of the link's trackers, each a tier of its own, and the dictionary `info`.
    #[must_use]
    pub fn torrent(&self, info: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.dict(|d| {
            if let Some(first) = self.trackers.first() {
                d.key("announce").bytes(first.as_bytes());
                d.key("announce-list").list(|tiers| {
                    for url in &self.trackers {
                        tiers.list(|tier| tier.bytes(url.as_bytes()));
                    }
                });
            }
            d.key("info").raw(info);
        });
        encoder.finish()
    }
}

/// The link itself.
impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("magnet:?xt=urn:btih:")?;
        self.info_hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        let mut put = |key: &str, value: &str| {
            let mut encoded = String::new();
            percent::encode(value.as_bytes(), &mut encoded);
            write!(f, "&{key}={encoded}")
        };
        if let Some(name) = &self.name {
            put("dn", name)?;
        }
        self.trackers.iter().try_for_each(|url| put("tr", url))?;
        self.peers.iter().try_for_each(|(host, port)| {
            let mut text = String::new();
            if host.contains(':') {
                write!(text, "[{host}]:{port}")?;
            } else {
                write!(text, "{host}:{port}")?;
            }
            put("x.pe", &text)
        })
    }
}

const SCHEME: &str = "magnet:";

/// Bytes of a value at the most: a tracker's URL with a pass key has a hundred.
const VALUE_MAX: usize = 4096;

fn value_of(key: &'static str, value: &[u8]) -> Result<String, MagnetError> {
    let bytes = percent::decode(value, VALUE_MAX).ok_or(MagnetError::BadValue(key))?;
    String::from_utf8(bytes).map_err(|_| MagnetError::BadValue(key))
}

fn hash(digits: &str) -> Option<Digest> {
    let bits: u32 = match digits.len() {
        40 => 4,
        32 => 5,
        _ => return None,
    };
    let mut hash = [0; 20];
    for (index, digit) in digits.bytes().enumerate() {
        let value = if bits == 4 { char::from(digit).to_digit(16)? } else { base32(digit)? };
        for bit in 0..bits as usize {
            let at = index * bits as usize + bit;
            let set = value >> (bits as usize - 1 - bit) & 1;
            // One bit.
            hash[at / 8] |= (set as u8) << (7 - at % 8);
        }
    }
    Some(hash)
}

/// RFC 4648: the letters, then 2 to 7.
fn base32(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a',
        b'2'..=b'7' => digit - b'2' + 26,
        _ => return None,
    }))
}

fn peer(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = inner.unwrap_or(host);
    let port = port.parse().ok().filter(|&port| port != 0)?;
    let named =
        !host.is_empty() && !host.contains(['[', ']']) && (inner.is_some() || !host.contains(':'));
    named.then(|| (host.into(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec;

    const HASH: Digest =
        *b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10\0\xff\x80\x7f";

    #[test]
    fn a_link_is_read() {
        let magnet = Magnet::parse(
            "magnet:?xt=urn:btih:0123456789ABCDEFfedcba987654321000ff807f&dn=sda1%20neu\
             &tr=http%3A%2F%2F10.0.0.1%3A6969%2Fannounce&tr.2=http://b/&x.pe=10.0.0.1:6881\
             &x.pe=%5Bfd00%3A%3A1%5D:6882&x.pe=host:1&ws=ignored&xl=5",
        );
        let wanted = Magnet {
            info_hash: HASH,
            name: Some("sda1 neu".into()),
            trackers: vec!["http://10.0.0.1:6969/announce".into(), "http://b/".into()],
            peers: [("10.0.0.1", 6881), ("fd00::1", 6882), ("host", 1)]
                .map(|(host, port)| (host.to_string(), port))
                .to_vec(),
        };
        assert_eq!(magnet, Ok(wanted.clone()));
        assert_eq!(Magnet::parse(&wanted.to_string()), Ok(wanted));
    }

    #[test]
    fn hashes_of_base_32_are_those_of_base_16() {
        let link = "MAGNET:?xt=urn:btih:AERUKZ4JVPG677W4XKMHMVBSCAAP7AD7";
        assert_eq!(Magnet::parse(link).map(|magnet| magnet.info_hash), Ok(HASH));
        let all = Magnet::parse("magnet:?xt=urn:btih:77777777777777777777777777777777");
        assert_eq!(all.map(|magnet| magnet.info_hash), Ok([0xff; 20]));
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let check = |link: &str, wanted| assert_eq!(Magnet::parse(link), Err(wanted), "{link}");
        let digits = "0123456789abcdef0123456789abcdef01234567";
        check("http://a/x.torrent", MagnetError::NotMagnet);
        check("magnet:", MagnetError::NotMagnet);
        check("magnet:?dn=x", MagnetError::NoHash);
        check("magnet:?xt=urn:sha1:x", MagnetError::NoHash);
        check("magnet:?xt=urn:btmh:1220aa", MagnetError::Version2);
        check("magnet:?xt=urn:btih:0123", MagnetError::BadHash);
        check(&alloc::format!("magnet:?xt=urn:btih:{}g", &digits[1..]), MagnetError::BadHash);
        check(
            &alloc::format!("magnet:?xt=urn:btih:{digits}&xt=urn:btih:{}8", &digits[1..]),
            MagnetError::TwoHashes,
        );
        for peer in ["x", "[[x]]:1", "x:0", "x:65536", ":1", "fd00::1"] {
            check(
                &alloc::format!("magnet:?xt=urn:btih:{digits}&x.pe={peer}"),
                MagnetError::BadPeer,
            );
        }
        for value in ["%ff", "%4", "%zz"] {
            let link = alloc::format!("magnet:?xt=urn:btih:{digits}&dn={value}");
            check(&link, MagnetError::BadValue("dn"));
        }
    }

    #[test]
    fn a_torrent_file_is_made_of_it() {
        let magnet = Magnet {
            info_hash: HASH,
            name: None,
            trackers: vec!["http://a".into(), "http://b".into()],
            peers: Vec::new(),
        };
        let wanted = b"d8:announce8:http://a13:announce-listll8:http://ael8:http://bee4:infodee";
        assert_eq!(magnet.torrent(b"de"), wanted);
        let bare = Magnet { trackers: Vec::new(), ..magnet };
        assert_eq!(bare.torrent(b"de"), b"d4:infodee");
    }
}
