//! `proto/ezio.proto` in Rust, written by hand: the messages of the C++ EZIO 2.x, and so of 1.x,
//! which knows the fields 1 to 6 of a torrent. Numbers and types are fixed for ever; a test sends
//! them to an independent implementation. Our own service, `ezio.Node`, comes last.

use std::collections::HashMap;

/// Nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// How far one torrent is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Torrent {
    /// Info-hash, 40 lower-case hexadecimal digits.
    #[prost(string, tag = "1")]
    pub hash: String,
    /// What the torrent calls itself.
    #[prost(string, tag = "2")]
    pub name: String,
    /// 0 to 1.
    #[prost(double, tag = "3")]
    pub progress: f64,
    /// Bytes a second.
    #[prost(int64, tag = "4")]
    pub download_rate: i64,
    /// Bytes a second.
    #[prost(int64, tag = "5")]
    pub upload_rate: i64,
    /// Seconds since it was added, pauses left out.
    #[prost(int64, tag = "6")]
    pub active_time: i64,
    /// All of it is flushed to the medium.
    #[prost(bool, tag = "7")]
    pub is_finished: bool,
    /// Connections.
    #[prost(int64, tag = "8")]
    pub num_peers: i64,
    /// As libtorrent counts: [`DOWNLOADING`] or [`SEEDING`].
    #[prost(int64, tag = "9")]
    pub state: i64,
    /// Bytes that are on the medium, to a piece.
    #[prost(int64, tag = "10")]
    pub total_done: i64,
    /// Bytes of the image.
    #[prost(int64, tag = "11")]
    pub total: i64,
    /// Pieces that are right.
    #[prost(int64, tag = "12")]
    pub num_pieces: i64,
    /// Seconds since it was finished, pauses left out.
    #[prost(int64, tag = "13")]
    pub finished_time: i64,
    /// The same.
    #[prost(int64, tag = "14")]
    pub seeding_time: i64,
    /// Bytes received.
    #[prost(int64, tag = "15")]
    pub total_payload_download: i64,
    /// Bytes sent.
    #[prost(int64, tag = "16")]
    pub total_payload_upload: i64,
    /// Nothing is asked for and nothing served.
    #[prost(bool, tag = "17")]
    pub is_paused: bool,
    /// Where its bytes are.
    #[prost(string, tag = "18")]
    pub save_path: String,
    /// Seconds ago; -1 for never.
    #[prost(int64, tag = "19")]
    pub last_upload: i64,
    /// Seconds ago; -1 for never.
    #[prost(int64, tag = "20")]
    pub last_download: i64,
}

/// [`Torrent::state`] of what is not whole.
pub const DOWNLOADING: i64 = 3;

/// [`Torrent::state`] of what is whole.
pub const SEEDING: i64 = 5;

/// What to carry.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddRequest {
    /// The content of the `.torrent` file.
    #[prost(bytes = "vec", tag = "1")]
    pub torrent: Vec<u8>,
    /// A device or file; of a daemon started with `-F` a directory.
    #[prost(string, tag = "2")]
    pub save_path: String,
    /// All of it is there: it is only served.
    #[prost(bool, tag = "3")]
    pub seeding_mode: bool,
    /// A hint.
    #[prost(int32, tag = "4")]
    pub max_uploads: i32,
    /// A hint.
    #[prost(int32, tag = "5")]
    pub max_connections: i32,
    /// A hint.
    #[prost(bool, tag = "6")]
    pub sequential_download: bool,
}

/// It is carried now; the C++ EZIO says `false` even then.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddResponse {
    /// Whether it is carried.
    #[prost(bool, tag = "1")]
    pub result: bool,
}

/// Which torrents to tell of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateRequest {
    /// Info-hashes; none of them for all torrents.
    #[prost(string, repeated, tag = "1")]
    pub hashes: Vec<String>,
}

/// How far torrents are.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateStatus {
    /// In the order in which they were added.
    #[prost(string, repeated, tag = "1")]
    pub hashes: Vec<String>,
    /// By info-hash.
    #[prost(map = "string, message", tag = "2")]
    pub torrents: HashMap<String, Torrent>,
}

/// Which torrent to pause or resume: both requests look alike.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HashRequest {
    /// Info-hash.
    #[prost(string, tag = "1")]
    pub hash: String,
}

/// Of the daemon.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionResponse {
    /// `0.1.0`.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// What `ezio.EZIO` cannot tell of a torrent: see `proto/ezio_node.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Detail {
    /// Info-hash.
    #[prost(string, tag = "1")]
    pub hash: String,
    /// Why it will never be whole; empty unless it failed.
    #[prost(string, tag = "2")]
    pub error: String,
    /// All its pieces.
    #[prost(int64, tag = "3")]
    pub pieces: i64,
    /// Pieces that are missing and that no connected peer has.
    #[prost(int64, tag = "4")]
    pub nowhere: i64,
    /// Connections to peers that want something of us now.
    #[prost(int64, tag = "5")]
    pub peers_interested: i64,
    /// The connections.
    #[prost(message, repeated, tag = "6")]
    pub peers: Vec<Peer>,
}

/// A connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Peer {
    /// Of the other end, `ADDRESS:PORT`; where it listens only if we dialled it.
    #[prost(string, tag = "1")]
    pub address: String,
    /// How its peer id begins, `-LT2080-` (BEP 20); empty if that is no text.
    #[prost(string, tag = "2")]
    pub client: String,
    /// Bytes of blocks that came from it.
    #[prost(int64, tag = "3")]
    pub received: i64,
    /// Bytes of blocks that went to it.
    #[prost(int64, tag = "4")]
    pub sent: i64,
}

/// One of many answers of `ezio.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Everything {
    /// What `ezio.EZIO` tells.
    #[prost(message, optional, tag = "1")]
    pub status: Option<UpdateStatus>,
    /// What it cannot tell.
    #[prost(message, optional, tag = "2")]
    pub details: Option<Details>,
}

/// An answer of `ezio.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Details {
    /// In the order in which they were added.
    #[prost(message, repeated, tag = "1")]
    pub torrents: Vec<Detail>,
}

/// An answer of `ezio.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveResponse {
    /// Whether it had been carried.
    #[prost(bool, tag = "1")]
    pub removed: bool,
}

/// Bytes of a message at most: the largest torrent that is read.
pub const MESSAGE_LEN_MAX: usize = 256 << 20;
