//! Texts of the command line into values, or why they are none.

use crate::control::interfaces::{self, Interface};
use swarm::metainfo::{PIECE_LEN_MAX, PIECE_LEN_MIN};
use swarm::units::{parse_rate, parse_size};

pub(super) fn http_url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
        _ => Err("only URLs with http:// can be posted to".to_owned()),
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|e| e.to_string())
}

pub(super) fn piece_size(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text).map_err(|e| e.to_string())?;
    u32::try_from(bytes)
        .ok()
        .filter(|len| (PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(len) && len.is_power_of_two())
        .ok_or_else(|| "a piece has a power of two of bytes, from 16KiB to 64MiB".to_owned())
}

pub(super) fn rate(text: &str) -> Result<u64, String> {
    let rate = parse_rate(text).map_err(|e| e.to_string())?;
    if rate < RATE_MIN {
        Err("at least 100kB/s, or nothing ever ends".to_owned())
    } else {
        Ok(rate)
    }
}

/// Below this a block of 16 KiB takes so long that peers take us for dead.
const RATE_MIN: u64 = 100_000;

pub(super) fn interface(text: &str) -> Result<Interface, String> {
    interfaces::choose(text).map_err(|error| format!("{error:#}"))
}

pub(super) fn tracker_url(text: &str) -> Result<String, String> {
    let known = ["http://", "https://", "udp://"].iter().any(|scheme| text.starts_with(scheme));
    if known && !text.contains(char::is_whitespace) {
        Ok(text.to_owned())
    } else {
        Err("an announce URL looks like http://192.168.1.1:6969/announce".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piece_sizes_are_powers_of_two_within_bounds() {
        assert_eq!(piece_size("16MiB"), Ok(16 << 20));
        assert!(piece_size("15MiB").is_err());
        assert!(piece_size("8KiB").is_err());
        assert!(piece_size("128MiB").is_err());
    }
}
