//! How peers hand each other the `info` dictionary of a torrent: messages of `ut_metadata` (BEP 9).
//!
//! A bencoded dictionary with `msg_type` and `piece`; behind that of a piece sent stand its bytes,
//! which are not part of the dictionary. Who asks for what, and whether it is right, is decided in
//! [`fetch`](crate::fetch) and by the swarm.

use super::extension::LENIENT;
use crate::bencode::{BencodeError, Decoder, Encoder};
use alloc::vec::Vec;

/// The id by which we ask others to send us `ut_metadata` messages.
pub const METADATA_ID: u8 = 3;

/// Bytes of every piece of the metadata but the last (BEP 9).
pub const METADATA_PIECE_LEN: u32 = 16 << 10;

/// What is said about a piece of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata<'a> {
    /// Send me this piece.
    Request(u32),
    /// This is the piece.
    Data {
        /// Index of the piece.
        piece: u32,
        /// Bytes of all metadata, as the sender says; `None` if it does not.
        total: Option<u64>,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// This piece will not be sent.
    Reject(u32),
    /// Something newer, which BEP 9 wants to be ignored.
    Other,
}

impl Metadata<'_> {
    /// The payload of the extended message.
    ///
    /// # Panics
    /// For [`Metadata::Other`], which nobody can say.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, piece, total, bytes) = match *self {
            Metadata::Request(piece) => (REQUEST, piece, None, &[][..]),
            Metadata::Data { piece, total, bytes } => (DATA, piece, total, bytes),
            Metadata::Reject(piece) => (REJECT, piece, None, &[][..]),
            Metadata::Other => unreachable!("a message that nobody knows"),
        };
        let mut encoder = Encoder::new();
        encoder.dict(|d| {
            d.key("msg_type").uint(kind);
            d.key("piece").uint(piece.into());
            if let Some(total) = total {
                d.key("total_size").uint(total);
            }
        });
        encoder.raw(bytes);
        encoder.finish()
    }

    /// Reads an extended message that came with the id of `ut_metadata`.
    ///
    /// # Errors
    /// What is wrong with the notation, or with the type or range of a field we read.
    pub fn decode(payload: &[u8]) -> Result<Metadata<'_>, BencodeError> {
        let (mut kind, mut piece, mut total) = (None, None, None);
        let mut decoder = Decoder::new(payload, LENIENT)?;
        decoder.dict(|d, key| {
            match key {
                b"msg_type" => kind = Some(d.uint()?),
                b"piece" => piece = u32::try_from(d.uint()?).ok(),
                b"total_size" => total = Some(d.uint()?),
                _ => {}
            }
            Ok::<(), BencodeError>(())
        })?;
        let bytes = &payload[decoder.offset()..];
        Ok(match (kind, piece) {
            (Some(REQUEST), Some(piece)) => Metadata::Request(piece),
            (Some(DATA), Some(piece)) => Metadata::Data { piece, total, bytes },
            (Some(REJECT), Some(piece)) => Metadata::Reject(piece),
            _ => Metadata::Other,
        })
    }
}

const REQUEST: u64 = 0;
const DATA: u64 = 1;
const REJECT: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_bep_9_are_read_and_written() {
        let check = |bytes: &[u8], wanted: Metadata<'_>| {
            assert_eq!(Metadata::decode(bytes), Ok(wanted));
            assert_eq!(wanted.encode(), bytes);
        };
        check(b"d8:msg_typei0e5:piecei0ee", Metadata::Request(0));
        check(b"d8:msg_typei2e5:piecei0ee", Metadata::Reject(0));
        check(
            b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxx",
            Metadata::Data { piece: 0, total: Some(34256), bytes: b"xxx" },
        );
    }

    #[test]
    fn what_is_newer_or_out_of_range_is_passed_over() {
        assert_eq!(Metadata::decode(b"d8:msg_typei3e5:piecei0ee"), Ok(Metadata::Other));
        assert_eq!(Metadata::decode(b"d8:msg_typei0e5:piecei4294967296ee"), Ok(Metadata::Other));
        assert_eq!(Metadata::decode(b"de"), Ok(Metadata::Other));
        assert!(Metadata::decode(b"d8:msg_typei-1ee").is_err());
        assert!(Metadata::decode(b"").is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            piece in any::<u32>(), total in any::<Option<u32>>(),
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let data = Metadata::Data { piece, total: total.map(u64::from), bytes: &bytes };
            for message in [Metadata::Request(piece), Metadata::Reject(piece), data] {
                let encoded = message.encode();
                prop_assert_eq!(Metadata::decode(&encoded), Ok(message));
            }
        }

        #[test]
        fn noise_is_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Metadata::decode(&bytes);
        }
    }
}
