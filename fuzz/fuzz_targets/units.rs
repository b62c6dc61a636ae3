//! Sizes and rates: what people type, against exact arithmetic, and what is shown to them, read
//! back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm::units::{Bytes, Rate, Seconds, parse_rate, parse_size};

fuzz_target!(|data: &[u8]| {
    if let Some(&value) = data.first_chunk() {
        shown(u64::from_le_bytes(value));
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let (size, rate) = (parse_size(text).ok(), parse_rate(text).ok());
    assert_eq!(size, reference(text, &SIZES), "size {text:?}");
    assert_eq!(rate, reference(text, &RATES), "rate {text:?}");
    size.into_iter().chain(rate).for_each(shown);
});

/// Value shown, and read back: less than a tenth of a unit is lost, and nothing of whole units.
fn shown(value: u64) {
    let size = Bytes(value).to_string();
    close(value, parse_size(&size).ok(), &size, &SIZES);
    let rate = Rate(value).to_string();
    close(value, parse_rate(&rate).ok(), &rate, &RATES);
    let seconds = Seconds(value).to_string();
    assert!(seconds.ends_with(if value < 3600 { 's' } else { 'm' }), "{seconds}");
}

fn close(value: u64, read: Option<u64>, text: &str, units: &[(&str, u128, u128)]) {
    let Some(read) = read else {
        // Sizes end at 2^63, what can be shown does not.
        assert!(value > i64::MAX as u64, "{text} cannot be read");
        return;
    };
    let unit = text.split(' ').nth(1).expect("a number, a space, a unit");
    let factor = units.iter().find(|u| u.0 == unit).map_or(1, |u| u.1);
    let lost = u128::from(value).checked_sub(u128::from(read)).expect("rounded up");
    assert!(lost <= factor.div_ceil(10), "{value} became {text}, which is {read}");
    assert!(lost == 0 || text.contains('.'), "{value} is shown as if {text} were all of it");
}

/// Unit, factor, divisor.
const SIZES: [(&str, u128, u128); 16] = [
    ("", 1, 1),
    ("B", 1, 1),
    ("kB", 1_000, 1),
    ("KB", 1_000, 1),
    ("MB", 1_000_000, 1),
    ("GB", 1_000_000_000, 1),
    ("TB", 1_000_000_000_000, 1),
    ("KiB", 1 << 10, 1),
    ("K", 1 << 10, 1),
    ("k", 1 << 10, 1),
    ("MiB", 1 << 20, 1),
    ("M", 1 << 20, 1),
    ("GiB", 1 << 30, 1),
    ("G", 1 << 30, 1),
    ("TiB", 1 << 40, 1),
    ("T", 1 << 40, 1),
];

const RATES: [(&str, u128, u128); 13] = [
    ("bit/s", 1, 8),
    ("kbit/s", 1_000, 8),
    ("Kbit/s", 1_000, 8),
    ("Mbit/s", 1_000_000, 8),
    ("Gbit/s", 1_000_000_000, 8),
    ("B/s", 1, 1),
    ("kB/s", 1_000, 1),
    ("KB/s", 1_000, 1),
    ("MB/s", 1_000_000, 1),
    ("GB/s", 1_000_000_000, 1),
    ("KiB/s", 1 << 10, 1),
    ("MiB/s", 1 << 20, 1),
    ("GiB/s", 1 << 30, 1),
];

/// Whole part and fraction apart, in 128 bits.
fn reference(text: &str, units: &[(&str, u128, u128)]) -> Option<u64> {
    let text = text.trim();
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let unit = text.trim_start_matches(is_number);
    let number = &text[..text.len() - unit.len()];
    let &(_, factor, divisor) = units.iter().find(|u| u.0 == unit.trim_start())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // All digits together have to fit in 64 bits, and at most nine stand behind the point.
    let all: u128 = [whole, fraction].concat().parse().ok().filter(|n| *n < 1 << 64)?;
    if whole.is_empty() || fraction.len() > 9 {
        return None;
    }
    let ten_to = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let (whole, fraction) = (all / ten_to, all % ten_to);
    let bytes = (whole * factor + fraction * factor / ten_to) / divisor;
    i64::try_from(bytes).ok()?.try_into().ok()
}
