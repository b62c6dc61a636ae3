//! A node: the engine that moves bytes and the control thread that finds others, tied together.
//!
//! `serve` and `deploy` are a node each, and differ in what they carry and when they leave.

use crate::control::{self, Control, ControlConfig, Counters, HttpConfig, ReportConfig};
use crate::engine::{Engine, EngineConfig, Job, Notice, Removed, TorrentStatus};
use anyhow::{Context as _, bail};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use swarm::metainfo::{Digest, Metainfo};
use swarm::networks::Networks;
use swarm::swarm::Caps;

/// How a node meets others.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// BitTorrent's TCP port; without it the first free one from 6881 on.
    pub port: Option<u16>,
    /// The only interface to use, by name or address; all without it.
    pub interface: Option<control::interfaces::Interface>,
    /// Who may be talked to; all if empty.
    pub networks: Networks,
    /// Bytes of pieces in memory.
    pub budget: u64,
    /// Bytes a second in each direction at most.
    pub limit: Option<u64>,
}

/// Default of [`NodeOptions::budget`]: two pieces of the largest allowed size, or eight of 16 MiB.
pub const BUDGET: u64 = 128 << 20;

/// BitTorrent's customary ports.
const PORTS: std::ops::RangeInclusive<u16> = 6881..=6889;

/// A running node.
pub struct Node {
    engine: Arc<Engine>,
    control: Control,
    notices: Receiver<Message>,
    carried: Vec<(Digest, u64, Arc<Counters>)>,
}

/// What a node tells its owner.
pub enum Message {
    /// The engine's.
    Engine(Notice),
    /// The control thread's, for people.
    Note(String),
    /// The same, and it keeps something from working.
    Warning(String),
}

impl Node {
    /// Starts a node that carries nothing.
    ///
    /// # Errors
    /// If a port cannot be listened on, or a thread not be started.
    pub fn start(
        options: &NodeOptions,
        http: Option<HttpConfig>,
        report: Option<ReportConfig>,
    ) -> anyhow::Result<Node> {
        let (sender, notices) = channel();
        let to_owner = sender.clone();
        let engine = Arc::new(start_engine(options, move |notice| {
            // The owner may have gone.
            let _ = to_owner.send(Message::Engine(notice));
        })?);
        let config = ControlConfig {
            interface: options.interface.clone(),
            networks: options.networks.clone(),
            http,
            report,
            ..ControlConfig::new(engine.peer_id())
        };
        let finder = Arc::clone(&engine);
        let control = Control::start(config, move |event| match event {
            control::Event::Found { info_hash, addr, from: _ } => finder.found(info_hash, addr),
            control::Event::Note(text) => drop(sender.send(Message::Note(text))),
            control::Event::Warning(text) => drop(sender.send(Message::Warning(text))),
        })?;
        Ok(Node { engine, control, notices, carried: Vec::new() })
    }

    /// Carries a torrent: listens, announces, and hands out its file if this node serves.
    ///
    /// # Errors
    /// As [`Engine::add`].
    pub fn add(&mut self, job: Job, trackers: Vec<Vec<String>>, whole: bool) -> anyhow::Result<()> {
        let metainfo = Arc::clone(&job.metainfo);
        let len = metainfo.layout().image_len();
        let counters = Arc::new(Counters::default());
        counters.left.store(if whole { 0 } else { len }, Ordering::Relaxed);
        self.engine.add(job)?;
        self.carried.push((metainfo.info_hash(), len, Arc::clone(&counters)));
        self.control.add(control::Torrent {
            info_hash: metainfo.info_hash(),
            name: name_of(&metainfo),
            metainfo: Some(metainfo.as_bytes().into()),
            trackers,
            local: !metainfo.is_private(),
            port: self.port(),
            counters,
        });
        Ok(())
    }

    /// As [`Engine::found`].
    pub fn found(&self, info_hash: Digest, addr: SocketAddr) {
        self.engine.found(info_hash, addr);
    }

    /// As [`Engine::pause`].
    pub fn pause(&self, info_hash: Digest, paused: bool) {
        self.engine.pause(info_hash, paused);
    }

    /// As [`Engine::cap`].
    pub fn cap(&self, info_hash: Digest, caps: Caps) {
        self.engine.cap(info_hash, caps);
    }

    /// As [`Engine::fetch_again`].
    pub fn fetch_again(&self, info_hash: Digest, pieces: Vec<u32>) {
        self.engine.fetch_again(info_hash, pieces);
    }

    /// Carries a torrent no longer: says goodbye to its trackers, closes its connections. As
    /// [`Engine::remove`].
    pub fn remove(&mut self, info_hash: Digest) -> Removed {
        self.control.remove(info_hash);
        self.carried.retain(|(carried, ..)| *carried != info_hash);
        self.engine.remove(info_hash)
    }

    /// Where others reach us with BitTorrent.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.engine.listening().first().map_or(0, SocketAddr::port)
    }

    /// Where the HTTP server listens.
    #[must_use]
    pub fn http(&self) -> &[SocketAddr] {
        self.control.http()
    }

    /// How far everything is; also tells the announcing side.
    #[must_use]
    pub fn status(&self) -> Vec<TorrentStatus> {
        let status = self.engine.status().torrents;
        for (info_hash, len, counters) in &self.carried {
            let Some(torrent) = status.iter().find(|t| t.info_hash == *info_hash) else { continue };
            let left = len.saturating_sub(torrent.stored_bytes());
            counters.left.store(left, Ordering::Relaxed);
            counters.uploaded.store(torrent.sent, Ordering::Relaxed);
            counters.downloaded.store(torrent.received, Ordering::Relaxed);
        }
        status
    }

    /// As [`Engine::have`].
    #[must_use]
    pub fn have(&self, info_hash: &Digest) -> Option<Vec<u8>> {
        self.engine.have(info_hash)
    }

    /// Another [`NodeOptions::limit`] from now on.
    pub fn limit(&self, rate: Option<u64>) {
        self.engine.limit(rate);
    }

    /// What gives the status at any time, on any thread.
    #[must_use]
    pub fn reader(&self) -> NodeReader {
        NodeReader(Arc::clone(&self.engine))
    }

    /// Waits for news, at most `time`. What only the node itself has to know is dealt with.
    #[must_use]
    pub fn wait(&self, time: Duration) -> Option<Message> {
        match self.notices.recv_timeout(time) {
            Ok(Message::Engine(Notice::MorePeers(info_hash))) => {
                self.control.starving(info_hash);
                None
            }
            Ok(message) => {
                if let Message::Engine(Notice::Finished(info_hash)) = &message {
                    self.control.completed(*info_hash);
                }
                Some(message)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Says goodbye to everybody and ends all threads, as dropping does.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Node {
    /// Whoever fails in the middle has nothing written any more either, before it lets go of its targets.
    fn drop(&mut self) {
        self.control.end();
        self.engine.stop();
    }
}

/// Looks at a running node from elsewhere.
#[derive(Clone)]
pub struct NodeReader(Arc<Engine>);

impl NodeReader {
    /// How far everything is.
    #[must_use]
    pub fn status(&self) -> Vec<TorrentStatus> {
        self.0.status().torrents
    }

    /// As [`Engine::have`].
    #[must_use]
    pub fn have(&self, info_hash: &Digest) -> Option<Vec<u8>> {
        self.0.have(info_hash)
    }
}

/// The torrent's name, for people and for `/torrents/NAME.torrent`.
#[must_use]
pub fn name_of(metainfo: &Metainfo) -> String {
    String::from_utf8_lossy(metainfo.name()).into_owned()
}

fn start_engine(
    options: &NodeOptions,
    notices: impl Fn(Notice) + Send + Clone + 'static,
) -> anyhow::Result<Engine> {
    on_a_port(options, |listen| {
        let config = EngineConfig {
            listen: listen.to_vec(),
            budget: options.budget,
            networks: options.networks.clone(),
            limit: options.limit,
        };
        Engine::start(&config, notices.clone())
    })
}

/// Starts something that listens: on the port that is asked for, else on the first free one.
pub(crate) fn on_a_port<T>(
    options: &NodeOptions,
    start: impl Fn(&[SocketAddr]) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = |port: u16| {
        let addrs = addresses(options).into_iter().map(|ip| SocketAddr::new(ip, port));
        start(&addrs.collect::<Vec<_>>())
    };
    if let Some(port) = options.port {
        return start(port).map_err(|error| {
            anyhow::anyhow!(
                "{error:#}; end who has it (`ss -ltnp | grep :{port}`), or give another --port, or none"
            )
        });
    }
    let mut last = None;
    for port in PORTS {
        match start(port) {
            Ok(started) => return Ok(started),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).context("none of the ports 6881 to 6889 is free (`ss -ltnp` shows who has them); give another with --port"),
        None => bail!("there is no port to listen on"),
    }
}

/// Where to listen: on one interface, or on all, with IPv6 if this machine has it.
fn addresses(options: &NodeOptions) -> Vec<IpAddr> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    match &options.interface {
        Some(interface) => any.iter().filter_map(|&ip| interface.address_for(ip)).collect(),
        None if std::path::Path::new("/proc/net/if_inet6").exists() => any.to_vec(),
        None => any[..1].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_dropped_leaves_nothing_running() {
        let options =
            NodeOptions { port: Some(lab::free_port()), budget: 1 << 20, ..NodeOptions::default() };
        let node = Node::start(&options, None, None).unwrap();
        // Somebody looks at it all the same.
        let _reader = node.reader();
        drop(node);
        Node::start(&options, None, None).unwrap();
    }
}
