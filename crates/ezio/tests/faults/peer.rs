//! A peer led by hand: it speaks BEP 3, 6 and 10 with the swarm's own encoder, or says any bytes.

use crate::image::Image;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use swarm::metainfo::Digest;
use swarm::wire::extension::{HELLO_ID, Hello, XG_ID, Xg};
use swarm::wire::{self, Block, HANDSHAKE_LEN, Handshake, Message};

/// How long a peer of ours waits for anything before it gives up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A connection to the program under test.
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    heard: Vec<u8>,
}

/// What our peers offer in their handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skill {
    /// BEP 3 and nothing else.
    Plain,
    /// BEP 6 too.
    Fast,
    /// BEP 6 and BEP 10.
    Extended,
}

impl Conn {
    fn new(stream: TcpStream) -> Conn {
        stream.set_read_timeout(Some(SILENCE_MAX)).unwrap();
        stream.set_write_timeout(Some(SILENCE_MAX)).unwrap();
        // Messages go out as they are said.
        stream.set_nodelay(true).unwrap();
        Conn { stream, heard: Vec::new() }
    }

    pub(crate) fn dial(port: u16) -> io::Result<Conn> {
        TcpStream::connect(("127.0.0.1", port)).map(Conn::new)
    }

    /// Dials from another address of this machine, which has all of 127.0.0.0/8.
    pub(crate) fn dial_from(from: [u8; 4], port: u16) -> io::Result<Conn> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        Ok(Conn::new(socket.into()))
    }

    /// Dials and exchanges handshakes.
    pub(crate) fn meet(port: u16, image: &Image, name: u8, skill: Skill) -> io::Result<Conn> {
        let mut conn = Conn::dial(port)?;
        conn.greet(image.info_hash(), id(name), skill)?;
        conn.handshake()?;
        Ok(conn)
    }

    /// Sends a handshake.
    pub(crate) fn greet(&mut self, hash: Digest, id: [u8; 20], skill: Skill) -> io::Result<()> {
        let mut handshake = Handshake::new(hash, id);
        handshake.reserved[7] &= if skill == Skill::Plain { 0 } else { 0xff };
        handshake.reserved[5] &= if skill == Skill::Extended { 0xff } else { 0 };
        self.raw(&handshake.encode())
    }

    /// Receives a handshake.
    pub(crate) fn handshake(&mut self) -> io::Result<Handshake> {
        let mut bytes = [0; HANDSHAKE_LEN];
        self.stream.read_exact(&mut bytes)?;
        Ok(Handshake::decode(&bytes).map_err(io::Error::other)?.expect("it is whole"))
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn say(&mut self, message: &Message) -> io::Result<()> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.raw(&bytes)
    }

    pub(crate) fn hello(&mut self, hello: &Hello) -> io::Result<()> {
        self.say(&Message::Extended { id: HELLO_ID, payload: hello.encode() })
    }

    pub(crate) fn xg(&mut self, xg: Xg) -> io::Result<()> {
        self.say(&Message::Extended { id: XG_ID, payload: xg.encode() })
    }

    /// The next message; of a `piece` message also its block.
    pub(crate) fn hear(&mut self) -> io::Result<(Message, Vec<u8>)> {
        loop {
            if let Some((message, used)) = wire::decode(&self.heard).map_err(io::Error::other)? {
                let len = match message {
                    Message::Piece(block) => block.len as usize,
                    _ => 0,
                };
                while self.heard.len() < used + len {
                    self.receive()?;
                }
                let block = self.heard[used..used + len].to_vec();
                self.heard.drain(..used + len);
                return Ok((message, block));
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        let len = self.stream.read(&mut bytes)?;
        self.heard.extend_from_slice(&bytes[..len]);
        if len == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Waits for a message that `wanted` takes.
    pub(crate) fn wait<T>(&mut self, wanted: impl Fn(&Message) -> Option<T>) -> io::Result<T> {
        loop {
            if let Some(found) = wanted(&self.hear()?.0) {
                return Ok(found);
            }
        }
    }

    /// The next request.
    pub(crate) fn request(&mut self) -> io::Result<Block> {
        self.wait(|message| match message {
            Message::Request(block) => Some(*block),
            _ => None,
        })
    }

    /// Sends `bytes` as what was asked for with `block`.
    pub(crate) fn send(&mut self, block: Block, bytes: &[u8]) -> io::Result<()> {
        let mut message = Vec::new();
        Message::Piece(block).encode(&mut message);
        message.extend_from_slice(bytes);
        self.raw(&message)
    }

    /// Sends the right bytes of `block`.
    pub(crate) fn right(&mut self, image: &Image, block: Block) -> io::Result<()> {
        self.send(block, image.block(block))
    }

    /// Sends wrong bytes as `block`.
    pub(crate) fn wrong(&mut self, image: &Image, block: Block) -> io::Result<()> {
        let wrong: Vec<u8> = image.block(block).iter().map(|byte| !byte).collect();
        self.send(block, &wrong)
    }

    /// Waits until the other side has closed the connection.
    pub(crate) fn wait_for_end(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the other side has ended the connection, as far as is known.
    pub(crate) fn has_ended(&self) -> bool {
        let _ = self.stream.set_nonblocking(true);
        let ended = matches!(self.stream.peek(&mut [0]), Ok(0));
        let _ = self.stream.set_nonblocking(false);
        ended
    }

    /// Ends the connection with a reset: what is on its way is lost.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A peer id.
pub(crate) fn id(name: u8) -> [u8; 20] {
    [name; 20]
}

/// A peer that listens, and does with each connection what the test says.
pub(crate) struct Listener {
    addr: SocketAddr,
    met: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Listener {
    /// `script` is called for each connection, on a thread of its own. What it returns ends the
    /// connection.
    pub(crate) fn start(script: impl Fn(Conn) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (met, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (script, count, end) = (Arc::new(script), Arc::clone(&met), Arc::clone(&over));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                let script = Arc::clone(&script);
                thread::spawn(move || script(Conn::new(stream)));
            }
        });
        Listener { addr, met, over }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections there were.
    pub(crate) fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread, so that the port is free again.
        let _ = TcpStream::connect(self.addr);
    }
}
