//! Blocks of addresses as people write them (CIDR, RFC 4632), and lists of them.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

/// A block of addresses: those that begin with the same bits as `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    base: IpAddr,
    prefix_len: u8,
}

/// Why a text names no block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not an IPv4 or IPv6 address in front of the slash.
    #[error("no IP address; write it as 10.0.0.0/8 or fd00::/8")]
    Address,
    /// Not a number behind the slash, or more bits than an address has.
    #[error("an address of this kind has {0} bits; write as many or fewer behind the slash")]
    PrefixLen(u8),
    /// Bits are set behind the prefix: one of both is a mistake, and guessing would open doors.
    #[error("bits are set behind the prefix; this network begins at {0}")]
    HostBits(IpAddr),
}

impl Network {
    /// Whether `addr` is in the block. An IPv4 address in IPv6's clothes counts as IPv4.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.base, addr.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(addr)) => {
                let differing = (base.to_bits() ^ addr.to_bits()).leading_zeros();
                differing >= u32::from(self.prefix_len)
            }
            (IpAddr::V6(base), IpAddr::V6(addr)) => {
                let differing = (base.to_bits() ^ addr.to_bits()).leading_zeros();
                differing >= u32::from(self.prefix_len)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `10.0.0.0/8`, `fd00::/8`, or one address.
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (addr, prefix_len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let base: IpAddr = addr.trim().parse().map_err(|_| NetworkError::Address)?;
        // ::ffff:10.0.0.0/104 would never match: addresses are compared without IPv6's clothes.
        if base.to_canonical() != base {
            return Err(NetworkError::Address);
        }
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix_len.map(str::trim) {
            None => bits,
            Some(len) if !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit()) => {
                len.parse().ok().filter(|len| *len <= bits).ok_or(NetworkError::PrefixLen(bits))?
            }
            Some(_) => return Err(NetworkError::PrefixLen(bits)),
        };
        let first = masked(base, prefix_len);
        if first != base {
            return Err(NetworkError::HostBits(first));
        }
        Ok(Network { base, prefix_len })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_len)
    }
}

/// The addresses a node deals with: all, unless blocks are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Only the addresses of `blocks`; all addresses if there are none.
    #[must_use]
    pub fn new(blocks: Vec<Network>) -> Networks {
        Networks(blocks)
    }

    /// Whether a node may deal with `addr`.
    #[must_use]
    pub fn allow(&self, addr: IpAddr) -> bool {
        self.0.is_empty() || self.0.iter().any(|block| block.contains(addr))
    }
}

/// `addr` with all bits behind the first `prefix_len` cleared.
fn masked(addr: IpAddr, prefix_len: u8) -> IpAddr {
    let prefix_len = u32::from(prefix_len);
    match addr {
        // A shift by all bits is none to Rust, so a prefix of no bits needs `checked_shl`.
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shl(32 - prefix_len).unwrap_or(0);
            IpAddr::V4((addr.to_bits() & mask).into())
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
            IpAddr::V6((addr.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn check(network: &str, inside: &[&str], outside: &[&str]) {
        let network: Network = network.parse().unwrap();
        for addr in inside {
            assert!(network.contains(addr.parse().unwrap()), "{addr} is in {network}");
        }
        for addr in outside {
            assert!(!network.contains(addr.parse().unwrap()), "{addr} is not in {network}");
        }
    }

    #[test]
    fn a_block_holds_what_begins_as_it_does() {
        check("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &["11.0.0.0"]);
        check("192.168.4.0/22", &["192.168.7.255"], &["192.168.8.0", "::1"]);
        check("192.0.2.7", &["192.0.2.7"], &["192.0.2.6"]);
        check("0.0.0.0/0", &["255.255.255.255", "0.0.0.0"], &["::"]);
        check("::/0", &["ffff::", "::"], &["1.2.3.4", "::ffff:1.2.3.4"]);
        check("fd00::/8", &["fdff::1"], &["fe80::1"]);
        check("fe80::1", &["fe80::1"], &["fe80::2"]);
    }

    #[test]
    fn what_is_no_block_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<Network>().unwrap_err();
        for text in ["", "/8", "10.0.0/8", "server/8", "10.0.0.0.0", "::ffff:10.0.0.0/104"] {
            assert_eq!(refused(text), NetworkError::Address, "{text}");
        }
        for text in ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/999"] {
            assert_eq!(refused(text), NetworkError::PrefixLen(32), "{text}");
        }
        assert_eq!(refused("fd00::/129"), NetworkError::PrefixLen(128));
        assert_eq!(
            refused("192.168.7.1/22").to_string(),
            "bits are set behind the prefix; this network begins at 192.168.4.0"
        );
    }

    #[test]
    fn no_blocks_are_all_addresses() {
        assert!(Networks::default().allow("203.0.113.9".parse().unwrap()));
        let two = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        let two = Networks::new(two.into());
        assert!(two.allow("10.1.1.1".parse().unwrap()) && two.allow("fd12::1".parse().unwrap()));
        assert!(!two.allow("203.0.113.9".parse().unwrap()));
    }
}
