//! Finding each other and talking to people: the one asynchronous thread.
//!
//! It announces our torrents to HTTP trackers (`announce`) and to the local network (`lsd`), and
//! for `ezio serve` it is the tracker, hands out torrents, and tells how far things are (`http`).
//! Peers found in any way leave as one kind of [`Event`]. It never touches a disk or a peer's
//! connection, and nothing waits for it: whatever hangs here hangs alone.

mod announce;
mod client;
pub mod events;
mod fleet;
mod http;
pub mod interfaces;
pub mod lsd;
mod reports;

pub(crate) use client::{Refused, follow};
pub use client::{fetch, fetch_until, post, tell};
pub use fleet::{Ended, Told, Turn};
pub use http::{HttpConfig, Looked};
pub use reports::ReportConfig;

use crate::panics::{or_abort, task_or_abort};
use anyhow::Context as _;
use interfaces::Interface;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use swarm::metainfo::Digest;
use swarm::networks::Networks;
use swarm::time::Time;
use swarm::tracker;
use tokio::runtime::{self, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How a node looks for others and is found.
#[derive(Clone)]
pub struct ControlConfig {
    /// Who we are, as in handshakes.
    pub peer_id: [u8; 20],
    /// The only interface to use; `None` for all.
    pub interface: Option<Interface>,
    /// Peers outside are neither found nor told.
    pub networks: Networks,
    /// Local service discovery (BEP 14), and on which port: [`lsd::PORT`]. `None` turns it off.
    pub lsd_port: Option<u16>,
    /// What `ezio serve` adds: the tracker and the pages.
    pub http: Option<HttpConfig>,
    /// Where to tell how far we are, once a second.
    pub report: Option<ReportConfig>,
}

impl ControlConfig {
    /// A node that announces and discovers, and serves nobody.
    #[must_use]
    pub fn new(peer_id: [u8; 20]) -> ControlConfig {
        ControlConfig {
            peer_id,
            interface: None,
            networks: Networks::default(),
            lsd_port: Some(lsd::PORT),
            http: None,
            report: None,
        }
    }
}

/// A torrent to be announced, and to be handed out if there is an HTTP server.
#[derive(Clone, Debug)]
pub struct Torrent {
    /// Which.
    pub info_hash: Digest,
    /// What it is called in `/torrents/NAME.torrent`.
    pub name: String,
    /// The whole `.torrent` file; `None` if it shall not be handed out.
    pub metainfo: Option<Arc<[u8]>>,
    /// Announce URLs in tiers (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// Whether to announce it on the local network. A private torrent (BEP 27) must not be, and is
    /// announced to one tracker at a time.
    pub local: bool,
    /// Where we listen for its peers.
    pub port: u16,
    /// How far it is; whoever knows keeps it up to date.
    pub counters: Arc<Counters>,
}

/// How far a torrent is, as trackers want to know it. In bytes.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sent to peers since the start.
    pub uploaded: AtomicU64,
    /// Received from peers since the start.
    pub downloaded: AtomicU64,
    /// Of the image, not here yet; 0 makes us a source.
    pub left: AtomicU64,
}

/// What the control thread has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody has, or wants, this torrent. The same peer may be found many times, and it may be
    /// ourselves: peer ids tell.
    Found {
        /// Which torrent.
        info_hash: Digest,
        /// Where the peer listens.
        addr: SocketAddr,
        /// How it was found.
        from: Origin,
    },
    /// Something people should read, once.
    Note(String),
    /// The same, and it keeps something from working.
    Warning(String),
}

/// How a peer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A tracker told us, or the peer told our tracker.
    Tracker,
    /// It announced itself on the local network.
    Lsd,
}

/// The running thread. Dropping it says goodbye to trackers and ends it, in a second at the most.
pub struct Control {
    commands: mpsc::Sender<Command>,
    http: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

/// How long trackers have to take our goodbye.
const STOP_TIME_MAX: Duration = Duration::from_millis(900);

/// Commands that may wait. A torrent is a handful; adding and removing wait when it is full, which
/// takes a thread that is stuck.
const COMMANDS_MAX: usize = 64;

impl Control {
    /// Starts the thread. `events` is called on it, so it must be quick, and must not call
    /// [`Control::add`], [`Control::remove`] or [`Control::completed`]: they may wait for it.
    ///
    /// # Errors
    /// If an address of the HTTP server cannot be listened on, or the thread not be started. That
    /// the local network cannot be searched is a [`Event::Warning`].
    pub fn start(
        config: ControlConfig,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> anyhow::Result<Control> {
        let runtime = runtime()?;
        let listeners = match &config.http {
            Some(http) => http::bind(&http.listen)?,
            None => Vec::new(),
        };
        let http = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let context = Arc::new(Context::new(&config, Box::new(events)));
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                or_abort(|| runtime.block_on(Desk::new(context, config).run(inbox, listeners)));
                // A name that is still being looked up is nobody's business any more.
                runtime.shutdown_background();
            })
            .context("start the thread `control`")?;
        Ok(Control { commands, http, thread: Some(thread) })
    }

    /// Where the HTTP server listens; nothing without one.
    #[must_use]
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Announces a torrent, at once, and hands it out.
    pub fn add(&self, torrent: Torrent) {
        self.command(Command::Add(Box::new(torrent)));
    }

    /// Says goodbye to a torrent's trackers and forgets it.
    pub fn remove(&self, info_hash: Digest) {
        self.command(Command::Remove(info_hash));
    }

    /// Tells trackers that the torrent is whole now, and was not when it was added.
    pub fn completed(&self, info_hash: Digest) {
        self.command(Command::Completed(info_hash));
    }

    /// Looks for more peers at once, or as soon as that is decent: five seconds after the last
    /// time. Never waits, so a scheduler may call it; it may get lost, so it should be repeated.
    pub fn starving(&self, info_hash: Digest) {
        let _ = self.commands.try_send(Command::Starving(info_hash));
    }

    /// Says goodbye and ends the thread, as dropping does.
    pub fn stop(self) {
        drop(self);
    }

    /// The same for who keeps it. Nothing more is done after it.
    pub fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.command(Command::Stop);
            let _ = thread.join();
        }
    }

    fn command(&self, command: Command) {
        // The thread lives as long as `self`; should it have panicked, there is nobody to tell.
        let _ = self.commands.blocking_send(command);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.end();
    }
}

/// One thread; up to four more, called `resolve`, while names of hosts are looked up, because the C
/// library can do that only by waiting.
fn runtime() -> anyhow::Result<Runtime> {
    runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .thread_name("resolve")
        .max_blocking_threads(4)
        .build()
        .context("start the asynchronous runtime")
}

enum Command {
    Add(Box<Torrent>),
    Remove(Digest),
    Completed(Digest),
    Starving(Digest),
    Stop,
}

/// What all tasks know.
struct Context {
    peer_id: [u8; 20],
    interface: Option<Interface>,
    networks: Networks,
    events: Box<dyn Fn(Event) + Send + Sync>,
    started: Instant,
    chance: RandomState,
    /// The tracker of `ezio serve`; without that nobody asks it.
    tracker: Mutex<tracker::Tracker>,
}

impl Context {
    fn new(config: &ControlConfig, events: Box<dyn Fn(Event) + Send + Sync>) -> Context {
        let networks = config.networks.clone();
        let tracker = tracker::Config { networks: networks.clone(), ..tracker::Config::default() };
        Context {
            peer_id: config.peer_id,
            interface: config.interface.clone(),
            networks,
            events,
            started: Instant::now(),
            chance: RandomState::new(),
            tracker: Mutex::new(tracker::Tracker::new(tracker)),
        }
    }

    /// Passes a peer on, unless it is outside of the networks to deal with. What the local network
    /// told us, our tracker tells others: they may not hear multicasts.
    fn found(&self, info_hash: Digest, addr: SocketAddr, from: Origin) {
        if !self.networks.allow(addr.ip()) {
            return;
        }
        if from == Origin::Lsd {
            self.tracker().introduce(self.now(), &info_hash, addr);
        }
        (self.events)(Event::Found { info_hash, addr, from });
    }

    fn note(&self, text: String) {
        (self.events)(Event::Note(text));
    }

    fn warn(&self, text: String) {
        (self.events)(Event::Warning(text));
    }

    fn now(&self) -> Time {
        Time(0) + self.started.elapsed()
    }

    /// A number nobody can guess.
    fn chance(&self) -> u64 {
        self.chance.hash_one(self.started.elapsed())
    }

    fn tracker(&self) -> MutexGuard<'_, tracker::Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of ours to talk to `remote` from, if it matters.
    ///
    /// # Errors
    /// If the chosen interface has no address of that kind.
    fn source(&self, remote: IpAddr) -> anyhow::Result<Option<IpAddr>> {
        let Some(interface) = &self.interface else { return Ok(None) };
        let found = interface.address_for(remote).with_context(|| {
            let kind = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
            format!("the interface {} has no {kind} address", interface.name)
        })?;
        Ok(Some(found))
    }
}

/// What one torrent's announcing tasks shall do; they look whenever it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    /// How many times we starved.
    starved: u64,
    /// The torrent became whole.
    completed: bool,
    /// It is over.
    stop: bool,
}

/// Carries out commands and ends the tasks.
struct Desk {
    context: Arc<Context>,
    config: ControlConfig,
    torrents: BTreeMap<Digest, (Arc<Torrent>, watch::Sender<Wish>)>,
    announcers: JoinSet<()>,
    local: watch::Sender<lsd::Local>,
    pages: Option<Arc<http::Server>>,
}

impl Desk {
    fn new(context: Arc<Context>, config: ControlConfig) -> Desk {
        Desk {
            context,
            config,
            torrents: BTreeMap::new(),
            announcers: JoinSet::new(),
            local: watch::Sender::default(),
            pages: None,
        }
    }

    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        listeners: Vec<std::net::TcpListener>,
    ) {
        // Dropped, and so ended, when this function ends.
        let mut services = JoinSet::new();
        if let Some(config) = self.config.http.take() {
            let server = Arc::new(http::Server::new(config, Arc::clone(&self.context)));
            services.spawn(task_or_abort(http::watch(Arc::clone(&server))));
            for listener in listeners {
                services.spawn(task_or_abort(Arc::clone(&server).serve(listener)));
            }
            self.pages = Some(server);
        }
        if let Some(port) = self.config.lsd_port {
            let local = self.local.subscribe();
            services.spawn(task_or_abort(lsd::run(Arc::clone(&self.context), port, local)));
        }
        if let Some(config) = self.config.report.take() {
            services.spawn(task_or_abort(reports::send(Arc::clone(&self.context), config)));
        }
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Add(torrent) => self.add(*torrent),
                Command::Remove(info_hash) => self.remove(&info_hash),
                Command::Completed(info_hash) => self.completed(&info_hash),
                Command::Starving(info_hash) => self.starving(&info_hash),
                Command::Stop => break,
            }
            while self.announcers.try_join_next().is_some() {}
        }
        for (_, wish) in self.torrents.values() {
            wish.send_modify(|wish| wish.stop = true);
        }
        let goodbyes = async { while self.announcers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_TIME_MAX, goodbyes).await;
    }

    fn add(&mut self, torrent: Torrent) {
        self.remove(&torrent.info_hash);
        let torrent = Arc::new(torrent);
        if let Some(pages) = &self.pages {
            pages.add(&torrent);
            self.register(&torrent, torrent.counters.left.load(Ordering::Relaxed) == 0);
        }
        let wish = watch::Sender::default();
        let at_once = if torrent.local { 1 } else { torrent.trackers.len().max(1) };
        for tiers in torrent.trackers.chunks(at_once) {
            let (context, torrent) = (Arc::clone(&self.context), Arc::clone(&torrent));
            let announcer = announce::run(context, torrent, tiers.to_vec(), wish.subscribe());
            self.announcers.spawn(task_or_abort(announcer));
        }
        self.torrents.insert(torrent.info_hash, (torrent, wish));
        self.tell_local(false);
    }

    fn remove(&mut self, info_hash: &Digest) {
        let Some((_, wish)) = self.torrents.remove(info_hash) else { return };
        wish.send_modify(|wish| wish.stop = true);
        if let Some(pages) = &self.pages {
            pages.remove(info_hash);
            self.context.tracker().unregister(info_hash);
        }
        self.tell_local(false);
    }

    fn completed(&self, info_hash: &Digest) {
        let Some((torrent, wish)) = self.torrents.get(info_hash) else { return };
        wish.send_modify(|wish| wish.completed = true);
        if self.pages.is_some() {
            self.register(torrent, true);
        }
    }

    fn starving(&self, info_hash: &Digest) {
        let Some((_, wish)) = self.torrents.get(info_hash) else { return };
        wish.send_modify(|wish| wish.starved += 1);
        self.tell_local(true);
    }

    fn register(&self, torrent: &Torrent, complete: bool) {
        let own = tracker::Own { port: torrent.port, peer_id: self.context.peer_id, complete };
        self.context.tracker().register(torrent.info_hash, Some(own));
    }

    fn tell_local(&self, starving: bool) {
        let torrents = self.torrents.values().filter(|(torrent, _)| torrent.local);
        let torrents = torrents.map(|(torrent, _)| (torrent.port, torrent.info_hash)).collect();
        self.local.send_modify(|local| {
            local.torrents = torrents;
            local.starved += u64::from(starving);
        });
    }
}

#[cfg(test)]
mod tests;
