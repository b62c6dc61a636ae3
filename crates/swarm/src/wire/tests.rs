use super::*;
use alloc::vec;
use proptest::prelude::*;

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

#[test]
fn messages_have_the_bytes_of_their_beps() {
    let block = Block { piece: 1, begin: 2 << 14, len: 1 << 14 };
    let check = |message: Message, bytes: &[u8]| {
        assert_eq!(encoded(&message), bytes, "{message:?}");
        assert_eq!(decode(bytes), Ok(Some((message, bytes.len()))));
    };
    check(Message::KeepAlive, &[0, 0, 0, 0]);
    check(Message::Unchoke, &[0, 0, 0, 1, 1]);
    check(Message::Have(258), &[0, 0, 0, 5, 4, 0, 0, 1, 2]);
    check(Message::Bitfield(vec![0x80]), &[0, 0, 0, 2, 5, 0x80]);
    check(Message::Request(block), &[0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0x80, 0, 0, 0, 0x40, 0]);
    check(Message::Piece(block), &[0, 0, 0x40, 9, 7, 0, 0, 0, 1, 0, 0, 0x80, 0]);
    check(Message::HaveNone, &[0, 0, 0, 1, 15]);
    check(Message::Extended { id: 0, payload: b"de".to_vec() }, b"\0\0\0\x04\x14\0de");
}

#[test]
fn bad_lengths_are_told_before_the_body_arrives() {
    let check = |bytes: &[u8], error: WireError| assert_eq!(decode(bytes), Err(error), "{bytes:?}");
    check(&[0, 0, 0, 2, 0], WireError::BadLength { id: 0, len: 2 });
    check(&[0, 0, 0, 4, 4], WireError::BadLength { id: 4, len: 4 });
    check(&[0xff, 0xff, 0xff, 0xff, 5], WireError::TooLong { id: 5, len: u32::MAX });
    check(&[0, 0x10, 0, 10, 7], WireError::TooLong { id: 7, len: (1 << 20) + 10 });
    check(&[0, 0, 0, 9, 7], WireError::BadLength { id: 7, len: 9 });
    check(&[0, 0, 0, 1, 20], WireError::BadLength { id: 20, len: 1 });
    check(&[0, 0, 0, 1, 99], WireError::UnknownId(99));
    check(&[0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 1], WireError::BadBlock(1048577));
    check(&[0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], WireError::BadBlock(0));
}

#[test]
fn the_payload_of_a_piece_is_left_to_the_caller() {
    let mut bytes = encoded(&Message::Piece(Block { piece: 7, begin: 0, len: 3 }));
    bytes.extend(b"abc");
    bytes.extend(encoded(&Message::Choke));
    let (message, used) = decode(&bytes).expect("well formed").expect("whole");
    assert_eq!(message, Message::Piece(Block { piece: 7, begin: 0, len: 3 }));
    assert_eq!(decode(&bytes[used + 3..]), Ok(Some((Message::Choke, 5))));
}

#[test]
fn handshakes_are_refused_at_the_first_wrong_byte() {
    let handshake = Handshake::new([1; 20], *b"-EZ2000-abcdefghijkl");
    let bytes = handshake.encode();
    assert_eq!(Handshake::decode(&bytes), Ok(Some(handshake)));
    assert!(handshake.fast() && handshake.extended());
    for end in 0..HANDSHAKE_LEN {
        assert_eq!(Handshake::decode(&bytes[..end]), Ok(None));
    }
    assert_eq!(Handshake::decode(b"\x14"), Err(WireError::NotBitTorrent));
    assert_eq!(Handshake::decode(b"\x13BitTorrent protocoL"), Err(WireError::NotBitTorrent));
}

fn any_block() -> impl Strategy<Value = Block> {
    (any::<u32>(), any::<u32>(), 1..=BLOCK_LEN_MAX).prop_map(|(piece, begin, len)| Block {
        piece,
        begin,
        len,
    })
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        Just(Message::KeepAlive),
        Just(Message::NotInterested),
        Just(Message::HaveAll),
        any::<u32>().prop_map(Message::Have),
        any::<u16>().prop_map(Message::Port),
        any::<u32>().prop_map(Message::AllowedFast),
        any_block().prop_map(Message::Request),
        any_block().prop_map(Message::Piece),
        any_block().prop_map(Message::Cancel),
        any_block().prop_map(Message::Reject),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Message::Bitfield),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(id, payload)| Message::Extended { id, payload }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(message in any_message()) {
        let bytes = encoded(&message);
        prop_assert_eq!(decode(&bytes), Ok(Some((message, bytes.len()))));
        for end in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..end]), Ok(None));
        }
    }

    #[test]
    fn noise_is_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), id in 0_u8..22, len in 0_u8..40) {
        let _ = Handshake::decode(&bytes);
        let mut framed = vec![0, 0, 0, len, id];
        framed.extend(&bytes);
        for buf in [&bytes, &framed] {
            if let Ok(Some((message, used))) = decode(buf) {
                prop_assert!(used <= buf.len());
                prop_assert_eq!(encoded(&message), &buf[..used]);
            }
        }
    }
}
