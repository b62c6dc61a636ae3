//! What peers send: a stream of messages, fed in pieces; what they carry; bitfields.

#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm::bitfield::Bitfield;
use swarm::wire::extension::{Hello, Xg};
use swarm::wire::metadata::Metadata;
use swarm::wire::pex::{PEERS_MAX, Pex};
use swarm::wire::{
    BLOCK_LEN_MAX, Block, EXTENDED_LEN_MAX, HANDSHAKE_LEN, Handshake, Message, decode,
};

fuzz_target!(|data: &[u8]| {
    check_handshake(data);
    check_stream(data);
    check_extension(data);
    check_bitfield(data);
});

fn check_handshake(data: &[u8]) {
    let found = Handshake::decode(data);
    let wanted = b"\x13BitTorrent protocol";
    let fits = data.iter().zip(wanted).all(|(found, wanted)| found == wanted);
    assert_eq!(found.is_ok(), fits);
    match found {
        Ok(Some(handshake)) => assert_eq!(handshake.encode(), data[..HANDSHAKE_LEN]),
        Ok(None) => assert!(data.len() < HANDSHAKE_LEN, "waits for more than a handshake"),
        Err(_) => {}
    }
}

/// Decodes message after message, the blocks of `piece` passed over.
fn check_stream(data: &[u8]) {
    let mut rest = data;
    while let Some((message, used)) = check_message(rest) {
        let block = if let Message::Piece(block) = message { block.len as usize } else { 0 };
        if let Message::Extended { payload, .. } = &message {
            check_extension(payload);
        }
        rest = rest.get(used + block..).unwrap_or_default();
    }
}

fn check_message(buf: &[u8]) -> Option<(Message, usize)> {
    let found = decode(buf);
    // What was decided from a part of a message is not changed by the rest of it, and nothing is
    // decided that the part does not show.
    for end in (0..buf.len().min(20)).chain([buf.len().saturating_sub(1)]) {
        match (decode(&buf[..end]), &found) {
            (Ok(None), Ok(Some((_, used)))) => assert!(end < *used, "waits at {end} of {used}"),
            (Ok(None), _) => {}
            (part, whole) => assert_eq!(part, *whole, "another message at {end} bytes"),
        }
    }
    let (message, used) = found.ok()??;
    assert!(used <= buf.len() && used >= 4, "{used} of {} bytes", buf.len());
    let mut encoded = Vec::new();
    message.encode(&mut encoded);
    assert_eq!(encoded, buf[..used], "{message:?}");
    check_bounds(&message);
    Some((message, used))
}

fn check_bounds(message: &Message) {
    match message {
        Message::Request(block)
        | Message::Piece(block)
        | Message::Cancel(block)
        | Message::Reject(block) => {
            let Block { len, .. } = *block;
            assert!((1..=BLOCK_LEN_MAX).contains(&len), "a block of {len} bytes");
        }
        Message::Extended { payload, .. } => {
            assert!(payload.len() <= EXTENDED_LEN_MAX as usize);
        }
        _ => {}
    }
}

/// What was read can be written, and is then read as the same.
fn check_extension(payload: &[u8]) {
    if let Ok(xg) = Xg::decode(payload) {
        assert_eq!(Xg::decode(&xg.encode()), Ok(xg), "{:?}", payload.escape_ascii().to_string());
    }
    check_pex(payload);
    check_metadata(payload);
    let Ok(hello) = Hello::decode(payload) else { return };
    assert_ne!(hello.xg_id, Some(0), "0 is the extended handshake");
    // Each byte that is no text becomes a replacement character of three.
    let name = hello.client.as_deref().unwrap_or_default();
    assert!(name.chars().count() <= 64, "{name:?}");
    let again = Hello::decode(&hello.encode()).expect("what we write can be read");
    if name.len() <= 64 {
        assert_eq!(again, hello);
    }
}

fn check_metadata(payload: &[u8]) {
    match Metadata::decode(payload) {
        Err(_) | Ok(Metadata::Other) => {}
        Ok(message) => assert_eq!(Metadata::decode(&message.encode()), Ok(message)),
    }
}

/// Bounded, dialable, and read again as the same but for the order of the families.
fn check_pex(payload: &[u8]) {
    let Ok(pex) = Pex::decode(payload) else { return };
    let again = Pex::decode(&pex.encode()).expect("what we write can be read");
    for (mut first, mut second) in [(pex.added, again.added), (pex.dropped, again.dropped)] {
        assert!(first.len() <= PEERS_MAX && first.iter().all(|addr| addr.port() != 0));
        first.sort();
        second.sort();
        assert_eq!(first, second);
    }
}

fn check_bitfield(data: &[u8]) {
    let Some((&len, bytes)) = data.split_first_chunk() else { return };
    let len = u32::from(u16::from_be_bytes(len));
    let bits = 8 * bytes.len() as u64;
    let spare = bytes.last().map_or(0, |last| last.trailing_zeros().min(8));
    let is_one = bits.div_ceil(8) == u64::from(len.div_ceil(8))
        && bits.saturating_sub(spare.into()) <= u64::from(len);
    let found = Bitfield::from_bytes(bytes, len);
    assert_eq!(found.is_some(), is_one, "{len} pieces in {bytes:?}");
    let Some(field) = found else { return };
    assert_eq!(field.to_bytes(), bytes);
    let members: Vec<u32> = field.iter().collect();
    assert_eq!(members.len(), field.count() as usize);
    let bit = |&i: &u32| bytes[(i / 8) as usize] & (0x80 >> (i % 8)) != 0;
    assert!(members.iter().all(|i| *i < len && field.has(*i) && bit(i)));
    assert_eq!(bytes.iter().map(|b| b.count_ones()).sum::<u32>(), field.count());
}
