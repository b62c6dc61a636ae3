//! Listening, dialling, handshakes: everything before a connection is worth two threads.
//!
//! One thread waits for all of them with `poll(2)`. Whoever says nothing, or something wrong, costs
//! a socket for some seconds and nothing else.

use super::{Carried, Input, Inputs, Shared};
use anyhow::Context as _;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use swarm::networks::Networks;
use swarm::wire::{HANDSHAKE_LEN, Handshake};

/// The thread `connect`, and what others tell it.
pub(super) struct Connector {
    listeners: Vec<TcpListener>,
    networks: Networks,
    shared: Arc<Shared>,
    dials: Mutex<Vec<(SocketAddr, Arc<Carried>)>>,
    /// Becomes readable when there is something to dial, or the end has come.
    wake: OwnedFd,
    closed: AtomicBool,
}

/// A connection whose handshake is not whole. On a LAN that takes a millisecond.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

/// Such connections at once, dialled or accepted. Who comes when there are as many takes the place
/// of who has been silent longest: an honest peer says all it has to say at once.
const PENDING_MAX: usize = 256;

/// Connections that are accepted before those that are pending are looked at again.
const ACCEPTED_MAX: usize = 64;

impl Connector {
    pub(super) fn bind(
        addrs: &[SocketAddr],
        networks: Networks,
        shared: Arc<Shared>,
    ) -> anyhow::Result<Connector> {
        Ok(Connector {
            listeners: listen_on_all(addrs)?,
            networks,
            shared,
            dials: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .context("make an eventfd")?,
            closed: AtomicBool::new(false),
        })
    }

    pub(super) fn listening(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.listening().first().map(SocketAddr::port)
    }

    /// Connects to `addr` about `torrent`; the scheduler is told how that ended.
    pub(super) fn dial(&self, addr: SocketAddr, torrent: Arc<Carried>) {
        assert!(self.may_dial(addr), "{addr} is outside of the networks to deal with");
        self.dials.lock().unwrap_or_else(PoisonError::into_inner).push((addr, torrent));
        self.wake();
    }

    /// Whether the networks to deal with include `addr`.
    pub(super) fn may_dial(&self, addr: SocketAddr) -> bool {
        self.networks.allow(addr.ip())
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Gives the ports back. Who looks at a node that has ended keeps its sockets.
    pub(super) fn listen_no_more(&self) {
        for listener in &self.listeners {
            // It may be so already.
            let _ = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
        }
    }

    fn wake(&self) {
        // It can fail only when it is full of wakes.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(super) fn run(&self, inputs: &Inputs) {
        let mut pending: Vec<Pending> = Vec::new();
        let mut door = Door::default();
        while !self.closed.load(Ordering::Relaxed) {
            self.wait(&pending, &door);
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            self.start_dials(&mut pending, inputs);
            if door.closed_until().is_none()
                && let Err(error) = self.accept(&mut pending)
            {
                door.close(&error);
            }
            let now = Instant::now();
            for mut connection in std::mem::take(&mut pending) {
                match connection.step(&self.shared, now) {
                    Ok(Step::Wait) => pending.push(connection),
                    Ok(Step::Done(torrent, handshake)) => {
                        connection.hand_over(torrent, handshake, inputs);
                    }
                    Err(error) => connection.fail(error, inputs),
                }
            }
        }
    }

    fn wait(&self, pending: &[Pending], door: &Door) {
        let fd = |fd, flags| PollFd::from_borrowed_fd(fd, flags);
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        let closed_until = door.closed_until();
        if closed_until.is_none() {
            fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        for connection in pending {
            let flags = if connection.out.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            fds.push(fd(rustix::fd::AsFd::as_fd(&connection.stream), flags));
        }
        let deadlines = pending.iter().map(|connection| connection.deadline);
        let timeout = deadlines.chain(closed_until).min();
        let timeout = timeout.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        // Whatever it says, all are looked at.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn start_dials(&self, pending: &mut Vec<Pending>, inputs: &Inputs) {
        let dials = std::mem::take(&mut *self.dials.lock().unwrap_or_else(PoisonError::into_inner));
        for (addr, torrent) in dials {
            let handshake = Handshake::new(torrent.metainfo.info_hash(), self.shared.peer_id);
            match connect(addr) {
                Ok(stream) => pending.push(Pending {
                    out: handshake.encode().to_vec(),
                    ..Pending::new(stream, addr, Some(torrent))
                }),
                Err(error) => inputs.send(Input::DialFailed { addr, error }),
            }
        }
    }

    /// Takes in who has come. An error is one of this machine, not of a connection.
    fn accept(&self, pending: &mut Vec<Pending>) -> io::Result<()> {
        for listener in &self.listeners {
            for _ in 0..ACCEPTED_MAX {
                let (stream, addr) = match listener.accept() {
                    Ok(accepted) => accepted,
                    Err(error) if waits(&error) => break,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                    Err(error) => return Err(error),
                };
                let welcome = self.networks.allow(addr.ip()) && make_place(pending);
                if welcome && stream.set_nonblocking(true).is_ok() {
                    pending.push(Pending::new(stream, addr, None));
                }
            }
        }
        Ok(())
    }
}

/// Whether connections are accepted. Without a file descriptor for them, most likely, they stay where
/// they are, and `poll` would say so again at once and for as long as that lasts.
#[derive(Default)]
struct Door {
    /// When it opened or will open again.
    opens: Option<Instant>,
    /// People know that it has been closed: an attacker can have it so again and again.
    said: bool,
}

/// Descriptors are given back when connections end: in seconds, if an attacker has them.
const CLOSED_FOR: Duration = Duration::from_millis(100);

impl Door {
    fn closed_until(&self) -> Option<Instant> {
        self.opens.filter(|&opens| opens > Instant::now())
    }

    fn close(&mut self, error: &io::Error) {
        self.opens = Some(Instant::now() + CLOSED_FOR);
        if !self.said {
            let advice =
                "if too many files are open, allow more: `ulimit -n`, or LimitNOFILE= in the unit";
            tracing::warn!(%error, advice, "a connection cannot be accepted now; it will be, later");
            self.said = true;
        }
    }
}

/// Gives up the oldest of those who came to us, if there are too many. Returns whether there is
/// room now.
fn make_place(pending: &mut Vec<Pending>) -> bool {
    if pending.len() >= PENDING_MAX
        && let Some(oldest) = pending.iter().position(|connection| !connection.outgoing)
    {
        pending.remove(oldest);
    }
    pending.len() < PENDING_MAX
}

/// Listens on all addresses. Where any port will do it is one that is free on all of them, because
/// a tracker is told of one.
pub(crate) fn listen_on_all(addrs: &[SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut tries = PORT_TRIES;
    loop {
        tries -= 1;
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut taken = None;
        for &(mut addr) in addrs {
            if addr.port() == 0
                && let Some(first) = listeners.first()
            {
                addr.set_port(first.local_addr().context("find out the port")?.port());
            }
            match listen(addr) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    taken = Some(Err(error).with_context(|| format!("listen on {addr} (TCP)")));
                    break;
                }
            }
        }
        match taken {
            None => return Ok(listeners),
            // The first address had one free that another does not have.
            Some(_) if !listeners.is_empty() && addrs[0].port() == 0 && tries > 0 => {}
            Some(error) => return error,
        }
    }
}

/// A port that is free on one address is rarely taken on the other.
const PORT_TRIES: u32 = 16;

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A node that is started again must not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(addr)) {
        Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(e),
        _ => Ok(socket.into()),
    }
}

/// A connection whose handshake is not whole.
struct Pending {
    stream: TcpStream,
    addr: SocketAddr,
    /// Whether we dialled.
    outgoing: bool,
    /// What it is about; `None` until somebody who came to us has said so.
    torrent: Option<Arc<Carried>>,
    deadline: Instant,
    /// Our handshake, as far as it is not sent.
    out: Vec<u8>,
    /// Theirs, as far as it has come.
    buffer: [u8; HANDSHAKE_LEN],
    len: usize,
}

enum Step {
    Wait,
    Done(Arc<Carried>, Handshake),
}

impl Pending {
    fn new(stream: TcpStream, addr: SocketAddr, torrent: Option<Arc<Carried>>) -> Pending {
        let deadline = Instant::now() + HANDSHAKE_TIME_MAX;
        let (out, buffer, outgoing) = (Vec::new(), [0; HANDSHAKE_LEN], torrent.is_some());
        Pending { stream, addr, outgoing, torrent, deadline, out, buffer, len: 0 }
    }

    /// Goes as far as it can without waiting.
    fn step(&mut self, shared: &Shared, now: Instant) -> io::Result<Step> {
        if now >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        if !self.send()? {
            return Ok(Step::Wait);
        }
        let Some(theirs) = self.receive()? else { return Ok(Step::Wait) };
        let torrent = match &self.torrent {
            Some(torrent) if torrent.metainfo.info_hash() == theirs.info_hash => {
                return Ok(Step::Done(Arc::clone(torrent), theirs));
            }
            Some(_) => return Err(io::Error::other("it answered about another torrent")),
            None => shared.torrent(&theirs.info_hash),
        };
        let torrent = torrent.ok_or_else(|| io::Error::other("it asked for an unknown torrent"))?;
        self.out = Handshake::new(theirs.info_hash, shared.peer_id).encode().to_vec();
        if self.send()? {
            return Ok(Step::Done(torrent, theirs));
        }
        // A new socket takes 68 bytes; if not, the rest is sent before anything is read.
        self.torrent = Some(torrent);
        Ok(Step::Wait)
    }

    /// Sends what is left of our handshake. `false` if the socket takes no more now.
    fn send(&mut self) -> io::Result<bool> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => drop(self.out.drain(..len)),
                Err(e) if waits(&e) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Receives their handshake and not a byte more.
    fn receive(&mut self) -> io::Result<Option<Handshake>> {
        while self.len < HANDSHAKE_LEN {
            match self.stream.read(&mut self.buffer[self.len..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.len += len,
                Err(e) if waits(&e) => break,
                Err(e) => return Err(e),
            }
        }
        Handshake::decode(&self.buffer[..self.len]).map_err(|e| io::Error::other(e.to_string()))
    }

    fn hand_over(self, torrent: Arc<Carried>, handshake: Handshake, inputs: &Inputs) {
        let (stream, addr, outgoing) = (self.stream, self.addr, self.outgoing);
        inputs.send(Input::Connected { torrent, stream, addr, outgoing, handshake });
    }

    fn fail(self, error: io::Error, inputs: &Inputs) {
        if self.outgoing {
            inputs.send(Input::DialFailed { addr: self.addr, error });
        }
    }
}

/// A socket that is not ready: also one whose connection is not made yet.
fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}
