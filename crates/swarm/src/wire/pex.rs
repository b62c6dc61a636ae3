//! What peers tell of other peers: messages of `ut_pex` (BEP 11).
//!
//! A bencoded dictionary of strings: `added` and `dropped` hold six bytes an IPv4 address with its
//! port, `added6` and `dropped6` eighteen an IPv6 one; `added.f` and `added6.f` a byte of flags for
//! each address added. Whether an address may be dialled is not decided here.

use super::extension::LENIENT;
use crate::bencode::{BencodeError, Decoder, Encoder};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The id by which we ask others to send us `ut_pex` messages.
pub const PEX_ID: u8 = 2;

/// Addresses that a message adds at the most, and as many that it drops (BEP 11); those of both
/// families are counted together. What goes beyond is not read.
pub const PEERS_MAX: usize = 50;

/// Who came and who went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pex {
    /// Where peers listen that the sender has been connected with since its last message.
    pub added: Vec<SocketAddr>,
    /// Where those listen that it is no longer connected with.
    pub dropped: Vec<SocketAddr>,
}

impl Pex {
    /// The payload of the extended message; of `added` and `dropped` the first [`PEERS_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (added, added6) = compact(&self.added);
        let (dropped, dropped6) = compact(&self.dropped);
        // We reach all whom we tell of, and know nothing else about them.
        let (flags, flags6) = (alloc::vec![0; added.len() / V4], alloc::vec![0; added6.len() / V6]);
        let mut encoder = Encoder::new();
        encoder.dict(|d| {
            d.key("added").bytes(&added);
            d.key("added.f").bytes(&flags);
            d.key("added6").bytes(&added6);
            d.key("added6.f").bytes(&flags6);
            d.key("dropped").bytes(&dropped);
            d.key("dropped6").bytes(&dropped6);
        });
        encoder.finish()
    }

    /// Reads an extended message that came with the id of `ut_pex`. Bytes that make no whole address,
    /// and addresses without a port, are passed over.
    ///
    /// # Errors
    /// What is wrong with the notation, or with the type of a field we read.
    pub fn decode(payload: &[u8]) -> Result<Pex, BencodeError> {
        let mut pex = Pex::default();
        let mut decoder = Decoder::new(payload, LENIENT)?;
        decoder.dict(|d, key| {
            match key {
                b"added" => read::<V4>(d.bytes()?, v4, &mut pex.added),
                b"added6" => read::<V6>(d.bytes()?, v6, &mut pex.added),
                b"dropped" => read::<V4>(d.bytes()?, v4, &mut pex.dropped),
                b"dropped6" => read::<V6>(d.bytes()?, v6, &mut pex.dropped),
                _ => {}
            }
            Ok::<(), BencodeError>(())
        })?;
        Ok(pex)
    }
}

/// Bytes of an address and its port.
const V4: usize = 6;
const V6: usize = 18;

/// The addresses of either family, as they are sent.
fn compact(addrs: &[SocketAddr]) -> (Vec<u8>, Vec<u8>) {
    let (mut four, mut six) = (Vec::new(), Vec::new());
    for addr in addrs.iter().take(PEERS_MAX) {
        let to = match addr.ip() {
            IpAddr::V4(ip) => {
                four.extend(ip.octets());
                &mut four
            }
            IpAddr::V6(ip) => {
                six.extend(ip.octets());
                &mut six
            }
        };
        to.extend(addr.port().to_be_bytes());
    }
    (four, six)
}

fn read<const LEN: usize>(
    bytes: &[u8],
    ip: fn(&[u8; LEN]) -> (IpAddr, u16),
    to: &mut Vec<SocketAddr>,
) {
    let (entries, _) = bytes.as_chunks::<LEN>();
    let addrs = entries.iter().map(ip).filter(|&(_, port)| port != 0);
    let room = PEERS_MAX.saturating_sub(to.len());
    to.extend(addrs.take(room).map(|(ip, port)| SocketAddr::new(ip, port)));
}

fn v4(&[a, b, c, d, high, low]: &[u8; V4]) -> (IpAddr, u16) {
    (Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))
}

fn v6(entry: &[u8; V6]) -> (IpAddr, u16) {
    let mut ip = [0; 16];
    ip.copy_from_slice(&entry[..16]);
    (Ipv6Addr::from(ip).into(), u16::from_be_bytes([entry[16], entry[17]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_strangers_message_is_read() {
        let pex = Pex::decode(
            b"d5:added12:\x0a\x00\x00\x01\x1a\xe1\x0a\x00\x00\x02\x1a\xe27:added.f2:\x02\x10\
              6:added618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe18:added6.f1:\0\
              7:dropped6:\x0a\x00\x00\x03\x1a\xe18:dropped60:e",
        );
        let addr = |text: &str| text.parse().unwrap();
        let added = ["10.0.0.1:6881", "10.0.0.2:6882", "[fd00::1]:6881"].map(addr).to_vec();
        assert_eq!(pex, Ok(Pex { added, dropped: [addr("10.0.0.3:6881")].to_vec() }));
    }

    #[test]
    fn half_addresses_ports_of_zero_and_what_is_too_much_are_passed_over() {
        let half = Pex::decode(b"d5:added9:\x0a\0\0\x01\0\x01\x0a\0\0e").unwrap();
        assert_eq!(half.added, ["10.0.0.1:1".parse().unwrap()]);
        assert_eq!(Pex::decode(b"d5:added6:\x0a\0\0\x01\0\0e"), Ok(Pex::default()));
        let mut many = b"d5:added600:".to_vec();
        many.extend([1; 600]);
        many.extend(b"6:added6180:");
        many.extend([1; 180]);
        many.push(b'e');
        assert_eq!(Pex::decode(&many).unwrap().added.len(), PEERS_MAX);
        assert!(Pex::decode(b"d5:addedi1ee").is_err() && Pex::decode(b"le").is_err());
    }

    fn addrs() -> impl Strategy<Value = Vec<SocketAddr>> {
        prop::collection::vec((any::<IpAddr>(), 1_u16..).prop_map(SocketAddr::from), 0..80)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(added in addrs(), dropped in addrs()) {
            let found = Pex::decode(&Pex { added: added.clone(), dropped: dropped.clone() }.encode());
            // IPv4 comes first.
            let kept = |mut addrs: Vec<SocketAddr>| {
                addrs.truncate(PEERS_MAX);
                addrs.sort_by_key(SocketAddr::is_ipv6);
                addrs
            };
            prop_assert_eq!(found, Ok(Pex { added: kept(added), dropped: kept(dropped) }));
        }

        #[test]
        fn noise_is_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Pex::decode(&bytes);
        }
    }
}
