//! What peers say to each other: bytes in, values out, and back.
//!
//! Messages of BEP 3, the fast extension (BEP 6) and the extension protocol (BEP 10). The payload
//! of a `piece` message is never touched here: [`decode`] stops behind its header, and the caller
//! receives the block where it shall stay. [`extension`] reads what BEP 10 messages carry.
//!
//! A length that a peer names meets a maximum before anything is allocated or waited for, and
//! nothing is copied that has not arrived. A [`WireError`] ends the connection.

pub mod extension;
pub mod metadata;
pub mod pex;

use crate::metainfo::Digest;
use alloc::vec::Vec;

/// Bytes of a handshake (BEP 3).
pub const HANDSHAKE_LEN: usize = 68;

/// Bytes of a `piece` message in front of its block: length, id, index, begin.
pub const PIECE_HEADER_LEN: usize = 13;

/// Largest block anybody may send or ask for: 1 MiB, 0.8 ms of a 10 Gbit/s link, is what `xg`
/// allows between our own nodes. Others send 16 KiB.
pub const BLOCK_LEN_MAX: u32 = 1 << 20;

/// Largest bitfield in bytes: as many pieces as a 256 MiB `.torrent` has room for hashes of.
pub const BITFIELD_LEN_MAX: u32 = (256 << 20) / 20 / 8;

/// Largest payload of an extended message in bytes. The largest in use is a metadata piece of
/// 16 KiB (BEP 9) with its dictionary; libtorrent's handshakes stay below 1 KiB.
pub const EXTENDED_LEN_MAX: u32 = 64 << 10;

/// The first message of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Capability bits. Bit 20 from the right is BEP 10, bit 2 BEP 6.
    pub reserved: [u8; 8],
    /// Which torrent the connection is about.
    pub info_hash: Digest,
    /// Who speaks: a client's name and random bytes (BEP 20).
    pub peer_id: [u8; 20],
}

/// Some bytes of a piece: what is requested, sent, cancelled, or rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Index of the piece.
    pub piece: u32,
    /// Offset in the piece, in bytes.
    pub begin: u32,
    /// Bytes.
    pub len: u32,
}

/// A message after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing; says the connection is alive.
    KeepAlive,
    /// The sender will not serve requests.
    Choke,
    /// The sender will serve requests.
    Unchoke,
    /// The sender wants what the receiver has.
    Interested,
    /// The sender wants nothing now.
    NotInterested,
    /// The sender has this piece.
    Have(u32),
    /// What the sender has, as bytes of [`crate::bitfield::Bitfield`]. Only the first message.
    Bitfield(Vec<u8>),
    /// Send me this block.
    Request(Block),
    /// This block follows. Its `len` bytes are not part of what [`decode`] used.
    Piece(Block),
    /// Do not send me this block any more.
    Cancel(Block),
    /// The sender's DHT port (BEP 5), which nobody here asks for.
    Port(u16),
    /// BEP 6: the sender would like to be asked for this piece.
    SuggestPiece(u32),
    /// BEP 6: the sender has every piece. Instead of a bitfield.
    HaveAll,
    /// BEP 6: the sender has no piece. Instead of a bitfield.
    HaveNone,
    /// BEP 6: this request will not be served.
    Reject(Block),
    /// BEP 6: this piece may be requested while choked.
    AllowedFast(u32),
    /// BEP 10: 0 is the extended handshake, others are as the receiver of the message named them.
    Extended {
        /// Which extension.
        id: u8,
        /// Its message.
        payload: Vec<u8>,
    },
}

/// Why bytes are no message. Each ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Something else speaks: encryption, HTTP, noise.
    #[error("the first bytes are no BitTorrent handshake")]
    NotBitTorrent,
    /// Longer than a message with this id may be.
    #[error("a message {id} of {len} bytes is too long")]
    TooLong {
        /// Message id.
        id: u8,
        /// Bytes it claims, id included.
        len: u32,
    },
    /// Not the length that messages with this id have.
    #[error("a message {id} cannot have {len} bytes")]
    BadLength {
        /// Message id.
        id: u8,
        /// Bytes it claims, id included.
        len: u32,
    },
    /// No message has this id.
    #[error("unknown message {0}")]
    UnknownId(u8),
    /// A block of no byte or above [`BLOCK_LEN_MAX`].
    #[error("a block of {0} bytes")]
    BadBlock(u32),
}

const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

impl Handshake {
    /// Our handshake: BEP 6 and BEP 10 are offered.
    #[must_use]
    pub fn new(info_hash: Digest, peer_id: [u8; 20]) -> Handshake {
        Handshake { reserved: [0, 0, 0, 0, 0, 0x10, 0, 0x04], info_hash, peer_id }
    }

    /// Whether the speaker knows BEP 6.
    #[must_use]
    pub fn fast(&self) -> bool {
        self.reserved[7] & 0x04 != 0
    }

    /// Whether the speaker knows BEP 10.
    #[must_use]
    pub fn extended(&self) -> bool {
        self.reserved[5] & 0x10 != 0
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved);
        bytes[28..48].copy_from_slice(&self.info_hash);
        bytes[48..].copy_from_slice(&self.peer_id);
        bytes
    }

    /// Reads a handshake from the first [`HANDSHAKE_LEN`] bytes of `buf`. `Ok(None)` means more
    /// bytes are needed.
    ///
    /// # Errors
    /// `NotBitTorrent` at the first wrong byte, however few there are: aria2 tries an encrypted
    /// handshake first and comes back plain when it is closed at once.
    pub fn decode(buf: &[u8]) -> Result<Option<Handshake>, WireError> {
        if !buf.iter().zip(PROTOCOL).all(|(found, wanted)| found == wanted) {
            return Err(WireError::NotBitTorrent);
        }
        let Some((bytes, _)) = buf.split_first_chunk::<HANDSHAKE_LEN>() else {
            return Ok(None);
        };
        let part = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk());
        let reserved = bytes[20..].first_chunk().copied().unwrap_or_default();
        let info_hash = part(28).copied().unwrap_or_default();
        Ok(Some(Handshake { reserved, info_hash, peer_id: part(48).copied().unwrap_or_default() }))
    }
}

/// Decodes the first message of `buf` and says how many bytes it used.
///
/// `Ok(None)` means `buf` does not hold a whole message yet (of `piece`, a whole header). No
/// message needs more than [`BITFIELD_LEN_MAX`] + 5 bytes of `buf`.
///
/// # Errors
/// See [`WireError`]. A bad length is told as soon as the id is there, before waiting for the rest.
pub fn decode(buf: &[u8]) -> Result<Option<(Message, usize)>, WireError> {
    let Some((&len, rest)) = buf.split_first_chunk() else { return Ok(None) };
    let len = u32::from_be_bytes(len);
    if len == 0 {
        return Ok(Some((Message::KeepAlive, 4)));
    }
    let Some((&id, body)) = rest.split_first() else { return Ok(None) };
    check_len(id, len)?;
    if id == id::PIECE {
        let Some(header) = body.first_chunk::<8>() else { return Ok(None) };
        let [piece, begin] = words(header);
        let block = checked(Block { piece, begin, len: len - 9 })?;
        return Ok(Some((Message::Piece(block), PIECE_HEADER_LEN)));
    }
    // Bounded by `check_len`, so it fits and the sum below does not overflow.
    let body_len = len as usize - 1;
    let Some(body) = body.get(..body_len) else { return Ok(None) };
    Ok(Some((message(id, body)?, 5 + body_len)))
}

impl Message {
    /// Appends the message's bytes to `out`. Of a `piece` message that is the header: the block's
    /// bytes follow from where they are.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::KeepAlive => out.extend([0; 4]),
            Message::Choke => put(out, id::CHOKE, &[]),
            Message::Unchoke => put(out, id::UNCHOKE, &[]),
            Message::Interested => put(out, id::INTERESTED, &[]),
            Message::NotInterested => put(out, id::NOT_INTERESTED, &[]),
            Message::Have(piece) => put(out, id::HAVE, &piece.to_be_bytes()),
            Message::Bitfield(bytes) => put(out, id::BITFIELD, bytes),
            Message::Request(block) => put(out, id::REQUEST, &block_bytes(block)),
            Message::Piece(block) => {
                out.extend((9 + block.len).to_be_bytes());
                out.push(id::PIECE);
                out.extend_from_slice(&block_bytes(block)[..8]);
            }
            Message::Cancel(block) => put(out, id::CANCEL, &block_bytes(block)),
            Message::Port(port) => put(out, id::PORT, &port.to_be_bytes()),
            Message::SuggestPiece(piece) => put(out, id::SUGGEST_PIECE, &piece.to_be_bytes()),
            Message::HaveAll => put(out, id::HAVE_ALL, &[]),
            Message::HaveNone => put(out, id::HAVE_NONE, &[]),
            Message::Reject(block) => put(out, id::REJECT, &block_bytes(block)),
            Message::AllowedFast(piece) => put(out, id::ALLOWED_FAST, &piece.to_be_bytes()),
            Message::Extended { id, payload } => {
                put_len(out, id::EXTENDED, payload.len() + 1);
                out.push(*id);
                out.extend_from_slice(payload);
            }
        }
    }
}

/// Message ids: BEP 3 up to 8, BEP 5 9, BEP 6 13 to 17, BEP 10 20.
mod id {
    pub(super) const CHOKE: u8 = 0;
    pub(super) const UNCHOKE: u8 = 1;
    pub(super) const INTERESTED: u8 = 2;
    pub(super) const NOT_INTERESTED: u8 = 3;
    pub(super) const HAVE: u8 = 4;
    pub(super) const BITFIELD: u8 = 5;
    pub(super) const REQUEST: u8 = 6;
    pub(super) const PIECE: u8 = 7;
    pub(super) const CANCEL: u8 = 8;
    pub(super) const PORT: u8 = 9;
    pub(super) const SUGGEST_PIECE: u8 = 13;
    pub(super) const HAVE_ALL: u8 = 14;
    pub(super) const HAVE_NONE: u8 = 15;
    pub(super) const REJECT: u8 = 16;
    pub(super) const ALLOWED_FAST: u8 = 17;
    pub(super) const EXTENDED: u8 = 20;
}

fn check_len(id: u8, len: u32) -> Result<(), WireError> {
    let exact = |wanted: u32| (len == wanted).then_some(()).ok_or(WireError::BadLength { id, len });
    let within = |min: u32, max: u32| match len {
        _ if len < min => Err(WireError::BadLength { id, len }),
        _ if len > max => Err(WireError::TooLong { id, len }),
        _ => Ok(()),
    };
    match id {
        id::CHOKE | id::UNCHOKE | id::INTERESTED | id::NOT_INTERESTED => exact(1),
        id::HAVE_ALL | id::HAVE_NONE => exact(1),
        id::HAVE | id::SUGGEST_PIECE | id::ALLOWED_FAST => exact(5),
        id::REQUEST | id::CANCEL | id::REJECT => exact(13),
        id::PORT => exact(3),
        id::BITFIELD => within(1, 1 + BITFIELD_LEN_MAX),
        id::PIECE => within(10, 9 + BLOCK_LEN_MAX),
        id::EXTENDED => within(2, 2 + EXTENDED_LEN_MAX),
        _ => Err(WireError::UnknownId(id)),
    }
}

/// Reads the body of a message whose length [`check_len`] has passed.
fn message(id: u8, body: &[u8]) -> Result<Message, WireError> {
    let index = || body.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    Ok(match id {
        id::CHOKE => Message::Choke,
        id::UNCHOKE => Message::Unchoke,
        id::INTERESTED => Message::Interested,
        id::NOT_INTERESTED => Message::NotInterested,
        id::HAVE => Message::Have(index()),
        id::BITFIELD => Message::Bitfield(body.to_vec()),
        id::REQUEST => Message::Request(checked(block(body))?),
        id::CANCEL => Message::Cancel(checked(block(body))?),
        id::PORT => Message::Port(body.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))),
        id::SUGGEST_PIECE => Message::SuggestPiece(index()),
        id::HAVE_ALL => Message::HaveAll,
        id::HAVE_NONE => Message::HaveNone,
        id::REJECT => Message::Reject(checked(block(body))?),
        id::ALLOWED_FAST => Message::AllowedFast(index()),
        id::EXTENDED => match body.split_first() {
            Some((&id, payload)) => Message::Extended { id, payload: payload.to_vec() },
            None => return Err(WireError::BadLength { id, len: 1 }),
        },
        _ => return Err(WireError::UnknownId(id)),
    })
}

fn checked(block: Block) -> Result<Block, WireError> {
    let fits = (1..=BLOCK_LEN_MAX).contains(&block.len);
    fits.then_some(block).ok_or(WireError::BadBlock(block.len))
}

fn block(body: &[u8]) -> Block {
    let mut bytes = [0; 12];
    let len = body.len().min(12);
    bytes[..len].copy_from_slice(&body[..len]);
    let [piece, begin, len] = words(&bytes);
    Block { piece, begin, len }
}

fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u32; WORDS] {
    core::array::from_fn(|i| {
        bytes[4 * i..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
    })
}

fn block_bytes(block: &Block) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&block.piece.to_be_bytes());
    bytes[4..8].copy_from_slice(&block.begin.to_be_bytes());
    bytes[8..].copy_from_slice(&block.len.to_be_bytes());
    bytes
}

fn put(out: &mut Vec<u8>, id: u8, body: &[u8]) {
    put_len(out, id, body.len());
    out.extend_from_slice(body);
}

fn put_len(out: &mut Vec<u8>, id: u8, body_len: usize) {
    // Nothing in memory that is a message comes near 4 GiB: its makers bound it.
    let len = u32::try_from(body_len + 1).expect("a message below 4 GiB");
    out.extend(len.to_be_bytes());
    out.push(id);
}

#[cfg(test)]
mod tests;
