//! The bencode decoder against a second parser, and against itself: `skip` and typed calls must
//! tell the same about the same bytes.

#![no_main]

use fuzz::reference::{self, Parsed, Value};
use libfuzzer_sys::fuzz_target;
use swarm::bencode::{BencodeError, Decoder, Encoder, Limits};

fuzz_target!(|data: &[u8]| {
    let wanted = reference::parse(data);
    // Limits that the input itself sets, so that it can be at, below and above each of them.
    let depth = data.last().map_or(0, |&b| usize::from(b % 10));
    let tight = Limits { depth, tokens: data.len() / 4, bytes: 2000, keys_ascend: depth > 5 };
    for limits in [Limits::NETWORK, Limits::TORRENT, tight] {
        check(data, limits, wanted.as_ref());
    }
    if let Some(parsed) = wanted.filter(|parsed| parsed.keys_ascend) {
        check_encoders(&data[..parsed.len], &parsed.value);
    }
});

/// The decoder takes `data` exactly if the limits allow what the other parser found.
fn check(data: &[u8], limits: Limits, wanted: Option<&Parsed<'_>>) {
    let wanted = wanted.filter(|parsed| allows(limits, data, parsed)).map(|parsed| parsed.len);
    let Ok(mut skipping) = Decoder::new(data, limits) else {
        assert!(data.len() > limits.bytes, "refused {} bytes", data.len());
        return;
    };
    let skipped = skipping.skip();
    let used = skipping.offset();
    match skipped {
        Ok(span) => assert_eq!(span, &data[..used], "the span is not what was passed over"),
        Err(error) => assert!(error.at <= data.len(), "{error} is behind the input"),
    }
    assert_eq!(skipped.ok().map(<[u8]>::len), wanted, "skip: {skipped:?} with {limits:?}");

    let mut walking = Decoder::new(data, limits).expect("the same as above");
    let walked = walk(&mut walking, data);
    assert_eq!(walked, skipped.map(drop), "typed calls and skip disagree with {limits:?}");
    assert_eq!(walking.offset(), used, "typed calls and skip end elsewhere with {limits:?}");
    assert_eq!(walked.is_ok() && walking.finish().is_ok(), wanted == Some(data.len()));
}

fn allows(limits: Limits, data: &[u8], parsed: &Parsed<'_>) -> bool {
    let keys = if limits.keys_ascend { parsed.keys_ascend } else { !parsed.key_repeats };
    let within = parsed.depth <= limits.depth && parsed.tokens <= limits.tokens;
    keys && within && data.len() <= limits.bytes
}

/// Reads the next value by typed calls. The decoder's depth limit bounds the recursion.
fn walk(d: &mut Decoder<'_>, data: &[u8]) -> Result<(), BencodeError> {
    match data.get(d.offset()) {
        Some(b'i') => d.int().map(drop),
        Some(b'0'..=b'9') => d.bytes().map(drop),
        Some(b'l') => d.list(|d| walk(d, data)),
        Some(b'd') => d.dict(|d, key| {
            // Every other length of key, so that values are left to the decoder to skip, too.
            if key.len() % 2 == 0 { walk(d, data) } else { Ok(()) }
        }),
        _ => d.skip().map(drop),
    }
}

/// Canonical bytes have one value, and the value has one encoding.
fn check_encoders(data: &[u8], value: &Value<'_>) {
    let mut rewritten = Vec::new();
    reference::write(value, &mut rewritten);
    assert_eq!(rewritten, data, "the same value, written again");
    let mut encoder = Encoder::new();
    if encode(&mut encoder, value).is_some() {
        assert_eq!(encoder.finish(), data, "the same value, encoded");
    }
}

/// `None` if the value has what our encoder never writes: negative numbers, keys that are no text.
fn encode(e: &mut Encoder, value: &Value<'_>) -> Option<()> {
    let mut possible = Some(());
    match value {
        Value::Int(number) => e.uint(u64::try_from(*number).ok()?),
        Value::Bytes(bytes) => e.bytes(bytes),
        Value::List(items) => e.list(|e| {
            possible = items.iter().try_for_each(|item| encode(e, item));
        }),
        Value::Dict(entries) => e.dict(|d| {
            possible = entries
                .iter()
                .try_for_each(|(key, value)| encode(d.key(str::from_utf8(key).ok()?), value));
        }),
    }
    possible
}
