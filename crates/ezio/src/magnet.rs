//! From a magnet link to its torrent: finds peers and gets the `info` dictionary of one (BEP 9).
//!
//! It runs before there is a node, which needs to know what it carries: it listens, announces and
//! is announced to on its own, and lets go of everything when it is done. Whom to ask and whom to
//! believe is decided in [`swarm::fetch`].

mod talk;

use crate::control::{self, Control, ControlConfig, Counters};
use crate::engine;
use crate::hashing::memory_available;
use crate::inspect::hex;
use crate::names;
use crate::node::{self, NodeOptions};
use anyhow::{Context as _, bail, ensure};
use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use swarm::fetch::{Action, Event, Fault, Fetch, METADATA_LEN_MAX, PeerId};
use swarm::magnet::Magnet;
use swarm::metainfo::Metainfo;
use swarm::networks::Networks;
use swarm::time::Time;
use swarm::wire::metadata::Metadata;
use talk::{Input, Line};

/// What a magnet link has led to.
#[derive(Debug)]
pub struct Found {
    /// The torrent, with the link's trackers.
    pub metainfo: Metainfo,
    /// Where its peers were found, for a node to begin with. None of a private torrent, whose peers
    /// may come only from its trackers (BEP 27).
    pub peers: Vec<SocketAddr>,
}

/// Reads a magnet link.
///
/// # Errors
/// What is wrong with it.
pub fn parse(link: &str) -> anyhow::Result<Magnet> {
    Magnet::parse(link).with_context(|| format!("{link} is no magnet link that EZIO can follow"))
}

/// Gets the torrent of a magnet link from peers; waits for one that has it until `stopped`. What
/// people should know meanwhile is told to `note`.
///
/// # Errors
/// If no port can be listened on, it is stopped, or the torrent is no image.
pub fn fetch(
    magnet: &Magnet,
    node: &NodeOptions,
    stopped: &dyn Fn() -> bool,
    note: &dyn Fn(&str),
) -> anyhow::Result<Found> {
    let mut fetcher = Fetcher::start(magnet, node, note)?;
    let info = fetcher.run(stopped)?;
    let peers = fetcher.peers();
    drop(fetcher);
    let hash = hex(&magnet.info_hash);
    let metainfo = Metainfo::parse(magnet.torrent(&info))
        .with_context(|| format!("the torrent with the info-hash {hash} is none of an image"))?;
    ensure!(metainfo.info_hash() == magnet.info_hash, "the metadata of {hash} is malformed");
    let peers = if metainfo.is_private() { Vec::new() } else { peers };
    Ok(Found { metainfo, peers })
}

/// How often sockets and times are looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// Connections at once that we made, and that others made.
const OUTGOING_MAX: usize = 24;
const INCOMING_MAX: usize = 8;

/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 256;

/// Peers' messages that may wait: of 16 KiB each at the most. Who sends more waits.
const INPUTS_MAX: usize = 64;

/// Nothing has come for so long: people should know why.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How often trackers are asked again while nothing has come.
const STARVING_PERIOD: Duration = Duration::from_secs(5);

struct Fetcher<'a> {
    magnet: &'a Magnet,
    note: &'a dyn Fn(&str),
    fetch: Fetch,
    control: Control,
    networks: Networks,
    listeners: Vec<TcpListener>,
    us: talk::Us,
    sender: SyncSender<Input>,
    inputs: Receiver<Input>,
    lines: BTreeMap<PeerId, Known>,
    addresses: BTreeMap<SocketAddr, Address>,
    next_peer: u32,
    started: Instant,
    ticked: Instant,
    starved: Instant,
    /// When to say the next time that nothing comes.
    stuck: Duration,
    /// What was wrong with the peer that failed last.
    last_fault: Option<String>,
}

/// A connection, or an attempt at one.
struct Known {
    addr: SocketAddr,
    dialled: bool,
    /// `None` while it is dialled.
    line: Option<Arc<Line>>,
}

/// How it stands with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    Idle {
        again: Instant,
        failures: u32,
    },
    Busy {
        failures: u32,
    },
    /// It lied, or it is ourselves.
    Useless,
}

impl<'a> Fetcher<'a> {
    fn start(
        magnet: &'a Magnet,
        options: &NodeOptions,
        note: &'a dyn Fn(&str),
    ) -> anyhow::Result<Fetcher<'a>> {
        let listeners = node::on_a_port(options, engine::listen)?;
        listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
        let port = listeners.first().and_then(|listener| listener.local_addr().ok());
        let port = port.map_or(0, |addr| addr.port());
        let us = talk::Us { info_hash: magnet.info_hash, peer_id: engine::new_peer_id()?, port };
        let (sender, inputs) = sync_channel(INPUTS_MAX);
        let control = announce(magnet, options, &us, sender.clone())?;
        look_up(magnet.peers.clone(), sender.clone());
        let now = Instant::now();
        Ok(Fetcher {
            magnet,
            note,
            fetch: Fetch::new(magnet.info_hash, metadata_len_max(memory_available())),
            control,
            networks: options.networks.clone(),
            listeners,
            us,
            sender,
            inputs,
            lines: BTreeMap::new(),
            addresses: BTreeMap::new(),
            next_peer: 0,
            started: now,
            ticked: now,
            starved: now,
            stuck: STUCK_AFTER,
            last_fault: None,
        })
    }

    /// Waits for the `info` dictionary.
    fn run(&mut self, stopped: &dyn Fn() -> bool) -> anyhow::Result<Vec<u8>> {
        loop {
            let whole = match self.inputs.recv_timeout(PERIOD) {
                Ok(input) => self.take(input),
                // One sender is ours, so there is always one.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
            };
            if let Some(info) = whole {
                return Ok(info);
            }
            if stopped() {
                bail!("interrupted before any peer had sent the torrent; nothing was written");
            }
            if self.ticked.elapsed() >= PERIOD {
                self.ticked = Instant::now();
                self.accept();
                self.dial();
                self.tell(Event::Tick);
                self.look_whether_stuck();
            }
        }
    }

    /// All addresses that may be of use.
    fn peers(&self) -> Vec<SocketAddr> {
        let useful = self.addresses.iter().filter(|(_, state)| **state != Address::Useless);
        useful.map(|(&addr, _)| addr).collect()
    }

    fn take(&mut self, input: Input) -> Option<Vec<u8>> {
        match input {
            Input::Found(addr) => self.found(addr),
            Input::Note(text) => (self.note)(&text),
            Input::Opened(peer, line) => {
                if let Some(known) = self.lines.get_mut(&peer) {
                    known.line = Some(line);
                }
                return self.tell(Event::Opened(peer));
            }
            Input::Itself(peer) => self.change(peer, |_| Address::Useless),
            Input::Hello(peer, hello) => {
                let known = self.lines.get(&peer).filter(|known| !known.dialled);
                let port = hello.port.filter(|&port| port != 0);
                if let (Some(known), Some(port)) = (known, port) {
                    self.found(SocketAddr::new(known.addr.ip(), port));
                }
                return self.tell(Event::Hello(peer, hello.metadata_id, hello.metadata_len));
            }
            Input::Data(peer, piece, bytes) => {
                return self.tell(Event::Data(peer, piece, &bytes));
            }
            Input::Rejected(peer, piece) => return self.tell(Event::Rejected(peer, piece)),
            Input::Gone(peer, why) => self.gone(peer, &why),
        }
        None
    }

    /// Tells the decisions and acts on them. Returns the metadata if that was the last of it.
    fn tell(&mut self, event: Event<'_>) -> Option<Vec<u8>> {
        // 584 years fit.
        let now = Time(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        for action in self.fetch.handle(now, event) {
            match action {
                Action::Ask(peer, id, piece) => {
                    let line = self.lines.get(&peer).and_then(|known| known.line.as_ref());
                    if let Some(line) = line
                        && line.say(id, Metadata::Request(piece).encode()).is_err()
                    {
                        // Its reader will tell that it is gone.
                        line.close();
                    }
                }
                Action::Close(peer, fault) => self.close(peer, fault),
                Action::Whole(_, info) => return Some(info),
            }
        }
        None
    }

    fn close(&mut self, peer: PeerId, fault: Fault) {
        let Some(known) = self.lines.get(&peer) else { return };
        if let Some(line) = &known.line {
            line.close();
        }
        let text = format!("{}: {fault}", known.addr);
        tracing::debug!(addr = %known.addr, %fault, "closed");
        if fault.is_final() {
            (self.note)(&format!("{text}; it is not asked again"));
            self.change(peer, |_| Address::Useless);
        }
        self.last_fault = Some(text);
    }

    fn gone(&mut self, peer: PeerId, why: &str) {
        if let Some(known) = self.lines.get(&peer) {
            tracing::debug!(addr = %known.addr, why, "disconnected");
            if known.line.is_none() {
                self.last_fault = Some(format!("{}: {why}", known.addr));
            }
        }
        self.change(peer, |failures| {
            let wait = Duration::from_secs(1 << failures.min(5));
            Address::Idle { again: Instant::now() + wait, failures: failures + 1 }
        });
        self.lines.remove(&peer);
        self.tell(Event::Gone(peer));
    }

    /// Changes what is said of the address that was dialled for `peer`, from its failures so far.
    fn change(&mut self, peer: PeerId, change: impl FnOnce(u32) -> Address) {
        let Some(known) = self.lines.get(&peer).filter(|known| known.dialled) else { return };
        if let Some(address) = self.addresses.get_mut(&known.addr)
            && let Address::Busy { failures } = *address
        {
            *address = change(failures);
        }
    }

    fn found(&mut self, addr: SocketAddr) {
        let known = self.addresses.contains_key(&addr);
        if !known && self.networks.allow(addr.ip()) && self.addresses.len() < ADDRESSES_MAX {
            self.addresses.insert(addr, Address::Idle { again: Instant::now(), failures: 0 });
        }
    }

    fn accept(&mut self) {
        let mut accepted = Vec::new();
        for listener in &self.listeners {
            let incoming = std::iter::from_fn(|| listener.accept().ok());
            accepted.extend(incoming.take(INCOMING_MAX));
        }
        for (stream, addr) in accepted {
            let count = self.lines.values().filter(|known| !known.dialled).count();
            // What is refused is closed.
            if count < INCOMING_MAX && self.networks.allow(addr.ip()) {
                self.converse(addr, Some(stream));
            }
        }
    }

    fn dial(&mut self) {
        let now = Instant::now();
        let dialled = self.lines.values().filter(|known| known.dialled).count();
        let mut due: Vec<(u32, SocketAddr)> = Vec::new();
        due.extend(self.addresses.iter().filter_map(|(&addr, state)| match *state {
            Address::Idle { again, failures } if again <= now => Some((failures, addr)),
            _ => None,
        }));
        due.sort_unstable();
        for (failures, addr) in due.into_iter().take(OUTGOING_MAX.saturating_sub(dialled)) {
            self.addresses.insert(addr, Address::Busy { failures });
            self.converse(addr, None);
        }
    }

    /// Starts the thread of a connection: one that was accepted, or is to be made.
    fn converse(&mut self, addr: SocketAddr, stream: Option<TcpStream>) {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        self.lines.insert(peer, Known { addr, dialled: stream.is_none(), line: None });
        let (us, inputs) = (self.us, self.sender.clone());
        let thread = thread::Builder::new().name(format!("ask {}", addr.ip()));
        let run = move || talk::run(us, peer, addr, stream, &inputs);
        // It ends with its connection; dialling takes some seconds at the most.
        if let Err(error) = thread.spawn(run) {
            self.gone(peer, &error.to_string());
        }
    }

    /// Says now and then why nothing comes, and asks for more peers.
    fn look_whether_stuck(&mut self) {
        if self.starved.elapsed() >= STARVING_PERIOD {
            self.starved = Instant::now();
            self.control.starving(self.magnet.info_hash);
        }
        let waited = self.started.elapsed();
        if waited < self.stuck {
            return;
        }
        self.stuck = 2 * waited;
        let progress = self.fetch.progress();
        let why = match (progress.best, &self.last_fault) {
            ((came, len), _) if came > 0 => format!("{came} of {len} bytes have come"),
            (_, Some(fault)) => format!("no peer has sent it yet; the last, {fault}"),
            (_, None) if progress.peers > 0 => "no peer has sent it yet".to_owned(),
            _ => "no peer was found; do those who have it run, and do the link's trackers or \
                  peers answer from here?"
                .to_owned(),
        };
        let hash = hex(&self.magnet.info_hash);
        (self.note)(&format!("the torrent {hash} is not here after {} s: {why}", waited.as_secs()));
    }
}

impl Drop for Fetcher<'_> {
    fn drop(&mut self) {
        // Their threads notice; the channel's end lets go of those who wait to tell something.
        self.lines.values().filter_map(|known| known.line.as_ref()).for_each(|line| line.close());
    }
}

/// Bytes of metadata that are taken where so much memory is available: a quarter of it, because they are
/// there up to three times, as pieces that have come, as a whole, and as a torrent.
fn metadata_len_max(available: Option<u64>) -> u64 {
    available.map_or(METADATA_LEN_MAX, |len| len / 4)
}

/// Announces that we look for the torrent, to the link's trackers and on the local network.
fn announce(
    magnet: &Magnet,
    options: &NodeOptions,
    us: &talk::Us,
    inputs: SyncSender<Input>,
) -> anyhow::Result<Control> {
    let config = ControlConfig {
        interface: options.interface.clone(),
        networks: options.networks.clone(),
        ..ControlConfig::new(us.peer_id)
    };
    let control = Control::start(config, move |event| {
        let input = match event {
            control::Event::Found { addr, .. } => Input::Found(addr),
            control::Event::Note(text) | control::Event::Warning(text) => Input::Note(text),
        };
        // The control thread never waits. What gets lost is found again.
        let _ = inputs.try_send(input);
    })?;
    let counters = Arc::new(Counters::default());
    // How much it is is not known, but it is not nothing.
    counters.left.store(1, Ordering::Relaxed);
    control.add(control::Torrent {
        info_hash: magnet.info_hash,
        name: magnet.name.clone().unwrap_or_default(),
        metainfo: None,
        trackers: magnet.trackers.iter().map(|url| vec![url.clone()]).collect(),
        local: true,
        port: us.port,
        counters,
    });
    Ok(control)
}

/// Has the link's peers looked up, which may take as long as the resolver likes.
fn look_up(peers: Vec<(String, u16)>, inputs: SyncSender<Input>) {
    let work = move || {
        for (host, port) in peers {
            let found = names::look_up(&host, port).unwrap_or_else(|error| {
                let text = format!("look up {host}, a peer of the link: {error}");
                let _ = inputs.send(Input::Note(text));
                Vec::new()
            });
            // Nobody listens any more once the torrent is here.
            found.into_iter().for_each(|addr| drop(inputs.send(Input::Found(addr))));
        }
    };
    // Without the thread there are still trackers and the local network.
    let _ = thread::Builder::new().name("look up".to_owned()).spawn(work);
}

/// Ends a connection: its reader notices.
fn hang_up(stream: &TcpStream) {
    // It may be closed by the other side already.
    let _ = stream.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests;
