//! The names of block files and the last components of a torrent's paths: device offsets in
//! hexadecimal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm::metainfo::parse_offset;

fuzz_target!(|data: &[u8]| {
    let found = parse_offset(data);
    assert_eq!(found, reference(data), "{:?}", data.escape_ascii().to_string());
    let Some(offset) = found else { return };
    // partclone's 32 digits, the shortest form, and capitals name the same place.
    for name in [format!("{offset:032x}"), format!("{offset:x}"), format!("{offset:X}")] {
        assert_eq!(parse_offset(name.as_bytes()), Some(offset), "{name}");
    }
    for spoilt in [[data, b"g"].concat(), [b"0x", data].concat(), [b"-", data].concat()] {
        assert_eq!(parse_offset(&spoilt), None);
    }
});

fn reference(name: &[u8]) -> Option<u64> {
    let text = str::from_utf8(name).ok().filter(|text| !text.contains(['+', '-']))?;
    let significant = text.trim_start_matches('0');
    let digits = if significant.is_empty() && !text.is_empty() { "0" } else { significant };
    i64::from_str_radix(digits, 16).ok()?.try_into().ok()
}
