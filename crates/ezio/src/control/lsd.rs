//! Local service discovery (BEP 14): announces by multicast, heard by whoever is near.
//!
//! Where a tracker refuses everything or does not exist, this is how nodes meet. Who hears an
//! announce connects to the one who made it, so an answer is needed only by those who cannot be
//! connected to; all is sent sparingly, because on a large network everybody hears everything.

use super::interfaces::{self, Interface};
use super::{Context, Origin};
use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use swarm::metainfo::Digest;
use swarm::random::Random;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The port of BEP 14.
pub const PORT: u16 = 6771;

/// The groups of BEP 14, organisation-local and site-local.
pub(crate) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);

/// Routers an announce may pass: both groups reach further than one link, if routers forward them.
const HOPS: u32 = 4;

/// Time between announces: BEP 14 allows one a minute.
const INTERVAL: Duration = Duration::from_secs(60);

/// The same where something happened: we starve, or a newcomer may not be able to reach us.
const INTERVAL_MIN: Duration = Duration::from_secs(5);

/// Answers come within this time by chance, so that a newcomer is not hit by all at once.
const ANSWER_SPREAD: Duration = Duration::from_millis(500);

/// Somebody who was silent for so long is a newcomer. Announces may be five minutes apart.
const FORGET: Duration = Duration::from_mins(6);

/// Somebody who announces more often than this is not passed on again.
const HEARD_INTERVAL: Duration = Duration::from_secs(2);

/// Announcers that are remembered; more are a flood, and ignored.
const HEARD_MAX: usize = 4096;

/// Bytes of a message, so that no network has to take it apart (BEP 14).
const MESSAGE_LEN_MAX: usize = 1400;

/// Torrents in a message we send: 52 bytes each, behind at most 120 bytes.
const SENT_HASHES_MAX: usize = 24;

/// What we announce.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    /// Where we listen for a torrent's peers, and which it is.
    pub(super) torrents: Vec<(u16, Digest)>,
    /// How many times we starved.
    pub(super) starved: u64,
}

/// An announce, as it goes over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where the sender listens.
    pub port: u16,
    /// What it has or wants.
    pub info_hashes: Vec<Digest>,
    /// By which it knows its own announces.
    pub cookie: Option<String>,
}

impl Message {
    /// Reads what came in one datagram. Header names are not case-sensitive, unknown ones are
    /// ignored, and at most as many info-hashes are taken as BEP 14 has room for.
    ///
    /// `None` if it is no announce: anybody may send anything to a multicast group.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Message> {
        if datagram.len() > MESSAGE_LEN_MAX {
            return None;
        }
        let text = std::str::from_utf8(datagram).ok()?;
        let mut lines = text.split("\r\n");
        let start = lines.next()?;
        if !start.eq_ignore_ascii_case("BT-SEARCH * HTTP/1.1") {
            return None;
        }
        let (mut port, mut info_hashes, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("port") {
                // `parse` alone would take a sign.
                let digits = value.bytes().all(|b| b.is_ascii_digit());
                port = value.parse().ok().filter(|port| digits && *port != 0);
            } else if name.eq_ignore_ascii_case("infohash") {
                info_hashes.push(parse_hash(value)?);
            } else if name.eq_ignore_ascii_case("cookie") {
                cookie = Some(value.to_owned());
            }
        }
        (!info_hashes.is_empty()).then_some(Message { port: port?, info_hashes, cookie })
    }

    fn encode(&self, group: SocketAddr) -> String {
        let mut out = format!("BT-SEARCH * HTTP/1.1\r\nHost: {group}\r\nPort: {}\r\n", self.port);
        for info_hash in &self.info_hashes {
            out.push_str("Infohash: ");
            for byte in info_hash {
                // Writing to a string cannot fail.
                let _ = write!(out, "{byte:02x}");
            }
            out.push_str("\r\n");
        }
        if let Some(cookie) = &self.cookie {
            let _ = write!(out, "cookie: {cookie}\r\n");
        }
        out + "\r\n\r\n"
    }
}

fn parse_hash(hex: &str) -> Option<Digest> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let pairs: &[[u8; 2]; 20] = pairs.try_into().ok().filter(|_| rest.is_empty())?;
    let mut hash = [0; 20];
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        let digit = |d: u8| char::from(d).to_digit(16);
        // Two hexadecimal digits are below 256.
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(hash)
}

/// When to announce.
#[derive(Debug)]
struct Schedule {
    last: Option<Instant>,
    next: Instant,
}

impl Schedule {
    /// There is something new to announce.
    fn news(&mut self, now: Instant) {
        self.next = now;
    }

    /// Something happened that an announce could help; `delay` spreads those of many nodes.
    fn hurry(&mut self, now: Instant, delay: Duration) {
        let decent = self.last.map_or(now, |last| last + INTERVAL_MIN);
        self.next = self.next.min(decent.max(now + delay));
    }

    fn sent(&mut self, now: Instant) {
        (self.last, self.next) = (Some(now), now + INTERVAL);
    }
}

/// Who announced what, and when.
#[derive(Debug, Default)]
struct Heard(BTreeMap<(Digest, SocketAddr), Instant>);

/// What to do about an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    Newcomer,
    Known,
    TooMuch,
}

impl Heard {
    fn hear(&mut self, now: Instant, info_hash: Digest, addr: SocketAddr) -> Hearing {
        if let Some(last) = self.0.get_mut(&(info_hash, addr)) {
            let silence = now.duration_since(*last);
            if silence < HEARD_INTERVAL {
                return Hearing::TooMuch;
            }
            *last = now;
            return if silence < FORGET { Hearing::Known } else { Hearing::Newcomer };
        }
        if self.0.len() >= HEARD_MAX {
            self.0.retain(|_, last| now.duration_since(*last) < FORGET);
        }
        if self.0.len() >= HEARD_MAX {
            return Hearing::TooMuch;
        }
        self.0.insert((info_hash, addr), now);
        Hearing::Newcomer
    }
}

/// Announces what `wishes` says, and passes on what others announce, until it is dropped.
pub(super) async fn run(context: Arc<Context>, port: u16, mut wishes: watch::Receiver<Local>) {
    let mut lsd = Lsd::new(context, port);
    // Longer than any message that counts: what is cut off is too long.
    let (mut v4, mut v6) = ([0; MESSAGE_LEN_MAX + 1], [0; MESSAGE_LEN_MAX + 1]);
    loop {
        tokio::select! {
            changed = wishes.changed() => match changed {
                Ok(()) => {
                    let local = wishes.borrow_and_update().clone();
                    lsd.wish(local);
                }
                Err(_) => return,
            },
            () = sleep_until(lsd.schedule.next) => lsd.announce().await,
            (len, from) = receive(lsd.sockets.v4.as_ref(), &mut v4) => lsd.hear(&v4[..len], from),
            (len, from) = receive(lsd.sockets.v6.as_ref(), &mut v6) => lsd.hear(&v6[..len], from),
        }
    }
}

/// Waits for a datagram; for ever if there is no socket.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> (usize, SocketAddr) {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.recv_from(buffer).await {
            Ok(received) => return received,
            // Somebody's port was closed, an interface went down: the next one may do. Not at once,
            // or a lasting fault would keep the thread busy.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

struct Lsd {
    context: Arc<Context>,
    port: u16,
    cookie: String,
    local: Local,
    schedule: Schedule,
    heard: Heard,
    /// The interfaces that `sockets` are for.
    interfaces: Vec<Interface>,
    sockets: Sockets,
}

impl Lsd {
    fn new(context: Arc<Context>, port: u16) -> Lsd {
        let interfaces = chosen(&context);
        Lsd {
            cookie: format!("ezio-{:016x}", context.chance()),
            local: Local::default(),
            schedule: Schedule { last: None, next: Instant::now() + INTERVAL },
            heard: Heard::default(),
            sockets: Sockets::open(&context, &interfaces, port),
            interfaces,
            port,
            context,
        }
    }

    /// A cable may be plugged in, an address given out, after we started.
    fn refresh(&mut self) {
        let interfaces = chosen(&self.context);
        if interfaces != self.interfaces {
            // Ports and groups are free again before they are taken again.
            self.sockets = Sockets::default();
            self.sockets = Sockets::open(&self.context, &interfaces, self.port);
            self.interfaces = interfaces;
        }
    }

    fn wish(&mut self, local: Local) {
        let now = Instant::now();
        if local.torrents.iter().any(|torrent| !self.local.torrents.contains(torrent)) {
            self.schedule.news(now);
        }
        if local.starved > self.local.starved {
            self.schedule.hurry(now, Duration::ZERO);
        }
        self.local = local;
    }

    async fn announce(&mut self) {
        let now = Instant::now();
        self.refresh();
        self.schedule.sent(now);
        if self.sockets.senders.is_empty() {
            self.schedule.hurry(now, INTERVAL_MIN);
            return;
        }
        let mut by_port: BTreeMap<u16, Vec<Digest>> = BTreeMap::new();
        for (port, info_hash) in &self.local.torrents {
            by_port.entry(*port).or_default().push(*info_hash);
        }
        for (port, all) in by_port {
            for some in all.chunks(SENT_HASHES_MAX) {
                let (info_hashes, cookie) = (some.to_vec(), Some(self.cookie.clone()));
                self.send(&Message { port, info_hashes, cookie }).await;
            }
        }
    }

    async fn send(&mut self, message: &Message) {
        for sender in &mut self.sockets.senders {
            let datagram = message.encode(sender.group);
            let sent = sender.socket.send_to(datagram.as_bytes(), sender.group).await;
            if let Err(error) = sent.as_ref()
                && !std::mem::replace(&mut sender.failed, true)
            {
                let (group, name) = (sender.group, &sender.name);
                self.context.note(format!(
                    "announce to {group} on {name}: {}",
                    crate::store::io_reason(error)
                ));
            }
        }
    }

    fn hear(&mut self, datagram: &[u8], from: SocketAddr) {
        let Some(message) = Message::parse(datagram) else { return };
        if message.cookie.as_deref() == Some(&self.cookie) {
            return;
        }
        let mut addr = from;
        addr.set_port(message.port);
        let now = Instant::now();
        for info_hash in message.info_hashes {
            let ours = self.local.torrents.iter().any(|(_, ours)| *ours == info_hash);
            if !ours || !self.context.networks.allow(addr.ip()) {
                continue;
            }
            match self.heard.hear(now, info_hash, addr) {
                Hearing::TooMuch => continue,
                Hearing::Newcomer => {
                    let delay = chance_below(&self.context, ANSWER_SPREAD);
                    self.schedule.hurry(now, delay);
                }
                Hearing::Known => {}
            }
            self.context.found(info_hash, addr, Origin::Lsd);
        }
    }
}

fn chance_below(context: &Context, span: Duration) -> Duration {
    // Half a second of nanoseconds fits.
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(Random::new(context.chance()).below(nanos))
}

/// One socket for each address of ours to send from, one for each group to hear.
#[derive(Default)]
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    senders: Vec<Sender>,
}

struct Sender {
    socket: UdpSocket,
    group: SocketAddr,
    name: String,
    /// It could not send, which was noted.
    failed: bool,
}

impl Sockets {
    /// What cannot be opened is noted and left out.
    fn open(context: &Context, interfaces: &[Interface], port: u16) -> Sockets {
        let mut sockets = Sockets::default();
        for interface in interfaces {
            // A machine hears itself by IPv4; many have no way for multicast of IPv6 to go round in it.
            let alone = interface.loopback && context.interface.is_none();
            let kinds = if alone { &[false][..] } else { &[false, true] };
            for &v6 in kinds {
                let Some(addr) = interface.addrs.iter().find(|addr| addr.is_ipv6() == v6) else {
                    continue;
                };
                if let Err(error) = sockets.add(interface, *addr, port) {
                    let kind = if v6 { "IPv6" } else { "IPv4" };
                    let name = &interface.name;
                    context.warn(format!("no local discovery on {name} ({kind}): {error:#}"));
                }
            }
        }
        sockets
    }

    fn add(&mut self, interface: &Interface, addr: IpAddr, port: u16) -> anyhow::Result<()> {
        let group = group(addr, port);
        let ear = if addr.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let listening = match ear.take() {
            Some(socket) => socket,
            None => listen(group).with_context(|| format!("listen on {group} (UDP)"))?,
        };
        let ear = ear.insert(listening);
        let joined = match addr {
            IpAddr::V4(addr) => ear.join_multicast_v4(GROUP_V4, addr),
            IpAddr::V6(_) => ear.join_multicast_v6(&GROUP_V6, interface.index),
        };
        joined.with_context(|| format!("join {}", group.ip()))?;
        let socket = send_from(interface, addr).with_context(|| format!("send from {addr}"))?;
        let name = interface.name.clone();
        self.senders.push(Sender { socket, group, name, failed: false });
        Ok(())
    }
}

fn group(addr: IpAddr, port: u16) -> SocketAddr {
    let group = if addr.is_ipv4() { IpAddr::V4(GROUP_V4) } else { IpAddr::V6(GROUP_V6) };
    SocketAddr::new(group, port)
}

/// The interfaces to discover on: the chosen one, else all networks, else this machine alone.
fn chosen(context: &Context) -> Vec<Interface> {
    if let Some(interface) = &context.interface {
        return vec![interface.clone()];
    }
    let all = interfaces::interfaces().unwrap_or_else(|error| {
        context.warn(format!("no local discovery: {error:#}"));
        Vec::new()
    });
    let (here, networks): (Vec<_>, Vec<_>) = all.into_iter().partition(|i| i.loopback);
    let networks: Vec<_> = networks.into_iter().filter(|i| i.multicast).collect();
    if networks.is_empty() { here } else { networks }
}

/// A socket that hears `group`, once it has joined it. Others on this machine may do the same.
fn listen(group: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(group)?;
    socket.set_reuse_address(true)?;
    // Otherwise it would also hear what other programs have joined, on other interfaces.
    match group {
        SocketAddr::V4(_) => socket.set_multicast_all_v4(false)?,
        SocketAddr::V6(_) => socket.set_multicast_all_v6(false)?,
    }
    // Bound to the group, not to all addresses: only multicasts are to be heard.
    socket.bind(&group.into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket whose datagrams leave by `interface` and come from `addr`.
fn send_from(interface: &Interface, addr: IpAddr) -> io::Result<UdpSocket> {
    let socket = socket(SocketAddr::new(addr, 0))?;
    match addr {
        IpAddr::V4(addr) => {
            socket.set_multicast_if_v4(&addr)?;
            socket.set_multicast_ttl_v4(HOPS)?;
            socket.bind(&SocketAddr::new(addr.into(), 0).into())?;
        }
        // The kernel chooses the address by the scope of the group.
        IpAddr::V6(_) => {
            socket.set_multicast_if_v6(interface.index)?;
            socket.set_multicast_hops_v6(HOPS)?;
            socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0).into())?;
        }
    }
    UdpSocket::from_std(socket.into())
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "00112233445566778899AABBCCDDEEFF00112233";

    fn check(text: &str, wanted: Option<(u16, usize, Option<&str>)>) {
        let text = text.replace('\n', "\r\n").replace('@', HASH);
        let found = Message::parse(text.as_bytes());
        let found = found.as_ref().map(|m| (m.port, m.info_hashes.len(), m.cookie.as_deref()));
        assert_eq!(found, wanted, "{text}");
    }

    #[test]
    fn announces_of_all_clients_are_read() {
        let start = "BT-SEARCH * HTTP/1.1\nHost: 239.192.152.143:6771\n";
        check(&format!("{start}Port: 6881\nInfohash: @\n\n\n"), Some((6881, 1, None)));
        check(
            &format!("{start}cookie: a b\nPORT:1\nINFOHASH:@\ninfohash: @\nx: y:z\n\n\n"),
            Some((1, 2, Some("a b"))),
        );
        // Without the empty lines at the end, as some send it.
        check(&format!("{start}Port: 6881\nInfohash: @"), Some((6881, 1, None)));
    }

    #[test]
    fn what_is_no_announce_is_ignored() {
        let start = "BT-SEARCH * HTTP/1.1\n";
        check("", None);
        check("M-SEARCH * HTTP/1.1\nPort: 1\nInfohash: @\n\n", None);
        check(&format!("{start}Infohash: @\n\n"), None);
        check(&format!("{start}Port: 1\n\nInfohash: @\n\n"), None);
        for port in ["0", "65536", "-1", "+1", ""] {
            check(&format!("{start}Port: {port}\nInfohash: @\n\n"), None);
        }
        check(&format!("{start}Port: 1\nInfohash: @0\n\n"), None);
        check(&format!("{start}Port: 1\nInfohash: 0\n\n"), None);
        check(&format!("{start}Port: 1\nInfohash: {}\n\n", "g".repeat(40)), None);
        check(&format!("{start}Port: 1\nInfohash: {}\n\n", "é".repeat(20)), None);
        let long = "x: y\n".repeat(300);
        check(&format!("{start}Port: 1\nInfohash: @\n{long}\n"), None);
    }

    #[test]
    fn a_full_message_stays_below_the_limit() {
        let cookie = Some(format!("ezio-{:016x}", u64::MAX));
        let message = Message { port: 65535, info_hashes: vec![[7; 20]; SENT_HASHES_MAX], cookie };
        let text = message.encode(group(GROUP_V6.into(), 65535));
        assert!(text.len() <= MESSAGE_LEN_MAX, "{} bytes", text.len());
        assert_eq!(Message::parse(text.as_bytes()), Some(message));
    }

    #[test]
    fn announces_are_rare_unless_something_happens() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        let mut schedule = Schedule { last: None, next: start + s(60) };
        schedule.news(start);
        assert_eq!(schedule.next, start);
        schedule.sent(start);
        assert_eq!(schedule.next, start + s(60));
        schedule.hurry(start + s(1), Duration::ZERO);
        assert_eq!(schedule.next, start + s(5), "not more often than every five seconds");
        schedule.sent(start + s(5));
        schedule.hurry(start + s(20), s(1));
        assert_eq!(schedule.next, start + s(21));
        schedule.hurry(start + s(20), s(3));
        assert_eq!(schedule.next, start + s(21), "never later than planned");
    }

    #[test]
    fn announcers_are_remembered_in_bounds() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        let addr: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let mut heard = Heard::default();
        let mut check = |second, hash, wanted| {
            assert_eq!(heard.hear(start + s(second), hash, addr), wanted, "{second} s");
        };
        check(0, [0; 20], Hearing::Newcomer);
        check(1, [0; 20], Hearing::TooMuch);
        check(3, [0; 20], Hearing::Known);
        check(3 + 361, [0; 20], Hearing::Newcomer);
        for number in 0..HEARD_MAX as u64 - 1 {
            let mut hash = [1; 20];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            check(400, hash, Hearing::Newcomer);
        }
        check(400, [9; 20], Hearing::TooMuch);
        check(800, [9; 20], Hearing::Newcomer);
        assert_eq!(heard.0.len(), 1);
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_strange(datagram in prop::collection::vec(any::<u8>(), 0..1500)) {
            let _ = Message::parse(&datagram);
        }
    }
}
