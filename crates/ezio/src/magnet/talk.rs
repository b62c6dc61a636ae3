//! One connection that asks for metadata: a thread that reads, and messages to it that anybody
//! writes. Everything but the extension protocol is read past.

use super::hang_up;
use std::io::{self, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use swarm::fetch::PeerId;
use swarm::metainfo::Digest;
use swarm::wire::extension::{HELLO_ID, Hello};
use swarm::wire::metadata::{METADATA_ID, Metadata};
use swarm::wire::{BITFIELD_LEN_MAX, EXTENDED_LEN_MAX, HANDSHAKE_LEN, Handshake, Message};

/// Who we are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Us {
    pub(super) info_hash: Digest,
    pub(super) peer_id: [u8; 20],
    /// Where we listen.
    pub(super) port: u16,
}

/// What the fetcher is told.
pub(super) enum Input {
    /// Somebody may have it.
    Found(SocketAddr),
    /// For people.
    Note(String),
    /// There is a connection.
    Opened(PeerId, Arc<Line>),
    /// It is one with ourselves.
    Itself(PeerId),
    Hello(PeerId, Hello),
    Data(PeerId, u32, Vec<u8>),
    Rejected(PeerId, u32),
    Gone(PeerId, String),
}

/// A connection's writing half.
pub(super) struct Line {
    stream: TcpStream,
    /// Held while a message is written: the thread that reads answers, too.
    writing: Mutex<()>,
}

impl Line {
    /// Sends an extended message.
    pub(super) fn say(&self, id: u8, payload: Vec<u8>) -> io::Result<()> {
        let mut bytes = Vec::new();
        Message::Extended { id, payload }.encode(&mut bytes);
        self.write(&bytes)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let _held = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(bytes)
    }

    pub(super) fn close(&self) {
        hang_up(&self.stream);
    }
}

/// A LAN answers in a millisecond.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Who says nothing for so long is gone. Who is asked and silent is given up long before.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Requests are small: whoever has no room for them is gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(2);

/// The longest message: a bitfield. It is not kept.
const MESSAGE_LEN_MAX: u32 = 1 + BITFIELD_LEN_MAX;

/// The id of extended messages (BEP 10).
const EXTENDED: u8 = 20;

/// Makes the connection unless it is there, and reads until it ends.
pub(super) fn run(
    us: Us,
    peer: PeerId,
    addr: SocketAddr,
    accepted: Option<TcpStream>,
    inputs: &SyncSender<Input>,
) {
    let dialled = accepted.is_none();
    let connected =
        accepted.map_or_else(|| TcpStream::connect_timeout(&addr, CONNECT_TIME_MAX), Ok);
    let ended = connected.and_then(|stream| {
        let line = Arc::new(Line { stream, writing: Mutex::default() });
        let _ = inputs.send(Input::Opened(peer, Arc::clone(&line)));
        let ended = converse(us, peer, dialled, &line, inputs);
        line.close();
        ended
    });
    let why = match ended {
        Ok(()) => "it closed the connection".to_owned(),
        Err(error) => crate::store::io_reason(&error),
    };
    // The fetcher may have what it wants.
    let _ = inputs.send(Input::Gone(peer, why));
}

fn converse(
    us: Us,
    peer: PeerId,
    dialled: bool,
    line: &Line,
    inputs: &SyncSender<Input>,
) -> io::Result<()> {
    line.stream.set_nonblocking(false)?;
    line.stream.set_nodelay(true)?;
    line.stream.set_read_timeout(Some(SILENCE_MAX))?;
    line.stream.set_write_timeout(Some(WRITE_TIME_MAX))?;
    // Without BEP 6, whose first message says what of the pieces is here: how many there are is what
    // we want to know.
    let ours = Handshake {
        reserved: [0, 0, 0, 0, 0, 0x10, 0, 0],
        ..Handshake::new(us.info_hash, us.peer_id)
    };
    if dialled {
        line.write(&ours.encode())?;
    }
    let mut reader = BufReader::with_capacity(64 << 10, &line.stream);
    let theirs = read_handshake(&mut reader)?;
    if theirs.info_hash != us.info_hash {
        return Err(io::Error::other("it spoke about another torrent"));
    }
    if theirs.peer_id == us.peer_id {
        let _ = inputs.send(Input::Itself(peer));
        return Ok(());
    }
    if !theirs.extended() {
        return Err(io::Error::other("it does not know the extension protocol (BEP 10)"));
    }
    if !dialled {
        line.write(&ours.encode())?;
    }
    let hello = Hello {
        metadata_id: Some(METADATA_ID),
        port: Some(us.port),
        client: Some(concat!("EZIO ", env!("CARGO_PKG_VERSION")).into()),
        ..Hello::default()
    };
    line.say(HELLO_ID, hello.encode())?;
    let mut metadata_id = None;
    while let Some((id, payload)) = next(&mut reader)? {
        let input = match id {
            HELLO_ID => {
                let hello = Hello::decode(&payload).map_err(malformed)?;
                metadata_id = hello.metadata_id;
                Input::Hello(peer, hello)
            }
            METADATA_ID => match Metadata::decode(&payload).map_err(malformed)? {
                Metadata::Data { piece, bytes, .. } => Input::Data(peer, piece, bytes.to_vec()),
                Metadata::Reject(piece) => Input::Rejected(peer, piece),
                Metadata::Request(piece) => {
                    // BEP 9: whoever has nothing says so.
                    if let Some(id) = metadata_id {
                        line.say(id, Metadata::Reject(piece).encode())?;
                    }
                    continue;
                }
                Metadata::Other => continue,
            },
            _ => continue,
        };
        if inputs.send(input).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn malformed(error: swarm::bencode::BencodeError) -> io::Error {
    io::Error::other(format!("it sent a malformed message: {error}"))
}

fn read_handshake(reader: &mut impl Read) -> io::Result<Handshake> {
    let mut bytes = [0; HANDSHAKE_LEN];
    reader.read_exact(&mut bytes)?;
    let handshake = Handshake::decode(&bytes).map_err(|e| io::Error::other(e.to_string()))?;
    handshake.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The next extended message: its id and payload. What else there is is read past. `None` at the
/// end of the stream.
fn next(reader: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    loop {
        let mut len = [0; 4];
        match reader.read_exact(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let len = u32::from_be_bytes(len);
        if len == 0 {
            continue;
        }
        if len > MESSAGE_LEN_MAX {
            return Err(io::Error::other(format!("it sent a message of {len} bytes")));
        }
        let mut id = [0];
        reader.read_exact(&mut id)?;
        let mut rest = reader.take(u64::from(len) - 1);
        if id != [EXTENDED] {
            io::copy(&mut rest, &mut io::sink())?;
            continue;
        }
        if len > 2 + EXTENDED_LEN_MAX {
            return Err(io::Error::other(format!("it sent an extended message of {len} bytes")));
        }
        let mut payload = Vec::new();
        rest.read_to_end(&mut payload)?;
        if payload.len() as u32 != len - 1 || payload.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        return Ok(Some((payload.remove(0), payload)));
    }
}
