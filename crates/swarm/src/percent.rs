//! Percent-encoding (RFC 3986) of bytes in queries and links: `key=value&key=value`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// Keys as they stand, and raw values.
pub(crate) fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|&b| b == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let at = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
        (&pair[..at], pair.get(at + 1..).unwrap_or_default())
    })
}

/// Undoes percent-encoding. `+` is a space, as in forms: programs that take a general URL library
/// write it so, and those that do not escape a real `+`. `None` if malformed or above `max` bytes.
pub(crate) fn decode(value: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        if out.len() == max {
            return None;
        }
        rest = tail;
        out.push(match first {
            b'+' => b' ',
            b'%' => {
                let ([high, low], tail) = rest.split_first_chunk()?;
                rest = tail;
                let digit = |d: &u8| char::from(*d).to_digit(16);
                // Two hexadecimal digits are below 256.
                (digit(high)? * 16 + digit(low)?) as u8
            }
            byte => *byte,
        });
    }
    Some(out)
}

/// Appends `bytes` in percent-encoding, all but the unreserved characters of RFC 3986.
/// Percent-encoding of all but what never needs it (RFC 3986).
pub(crate) fn encode(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
