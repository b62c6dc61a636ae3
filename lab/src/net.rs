//! Machines on a switch: network namespaces with limited links, on this machine and nowhere else.
//!
//! A [`Lan`] is a bridge in a namespace of its own and one namespace a node, joined by veth pairs.
//! Every link is full duplex and limited at both its ends, as a port of a switch is. Nothing of it
//! is in the machine's own network, and there is no way out. It says nothing about who talks.
//!
//! What a killed process has left behind, its successor removes ([`clean`]): names tell whose they
//! are.

use crate::need::{self, Need};
use crate::tool;
use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Nodes on one switch. Dropping it ends what still runs in its namespaces, and removes them.
#[derive(Debug)]
pub struct Lan {
    /// All its namespaces' names begin so.
    prefix: String,
    nodes: usize,
    /// `/proc/net/dev` of the switch, open: the kernel bound it to that namespace.
    counters: File,
}

/// How the nodes of a [`Lan`] are joined.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Of every node that is not in `others`.
    pub rates: Rates,
    /// Of the nodes whose links differ.
    pub others: BTreeMap<usize, Rates>,
    /// TCP's congestion control. Without it that of most machines, cubic, if this machine lets
    /// namespaces have it (`net.ipv4.tcp_allowed_congestion_control`), else reno, which is everywhere.
    pub congestion: Option<String>,
}

/// What a link allows, in bytes a second; without a limit, and without any queue, where `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// From the node to the switch.
    pub up: Option<u64>,
    /// From the switch to the node.
    pub down: Option<u64>,
}

impl Rates {
    /// The same in both directions.
    #[must_use]
    pub fn both(rate: u64) -> Rates {
        Rates { up: Some(rate), down: Some(rate) }
    }
}

impl Links {
    /// All links alike, `rate` bytes a second in either direction.
    #[must_use]
    pub fn equal(rate: u64) -> Links {
        Links { rates: Rates::both(rate), ..Links::default() }
    }

    /// What the link of a node allows.
    #[must_use]
    pub fn of(&self, node: usize) -> Rates {
        self.others.get(&node).copied().unwrap_or(self.rates)
    }
}

/// Bytes that went over a node's link, with Ethernet headers, as its port at the switch counted
/// them.
///
/// veth counts a packet that segmentation offload keeps whole (up to 64 KiB) with one header, so
/// this is within a percent of the bytes that TCP carried, not of the bytes on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent by the node.
    pub sent: u64,
    /// Received by the node.
    pub received: u64,
}

/// TCP payload of a full packet, with time stamps (RFC 7323), at an MTU of 1500.
const SEGMENT: f64 = 1448.0;

/// What that packet takes as the shaper counts it, with its Ethernet header.
const FRAME: f64 = 1514.0;

/// The most that TCP can carry over a link of `rate` bytes a second, in bytes a second.
#[must_use]
pub fn goodput(rate: u64) -> f64 {
    rate as f64 * SEGMENT / FRAME
}

/// Whether this machine can have a [`Lan`].
///
/// # Errors
/// What is missing, in words, for [`skip!`](crate::skip).
pub fn supported() -> Result<(), String> {
    need::require(&[Need::Root, Need::Program("ip"), Need::Program("tc")])?;
    let probe = Lan::new(1, &Links::equal(1_000_000));
    probe.map(drop).map_err(|error| format!("no network namespaces with limits: {error:#}"))
}

impl Lan {
    /// Makes a switch with `nodes` machines at it, numbered from 0.
    ///
    /// # Errors
    /// What `ip` or `tc` said: no right, no veth, no tbf in this kernel.
    pub fn new(nodes: usize, links: &Links) -> Result<Lan> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        ensure!((1..=NODES_MAX).contains(&nodes), "a lan has 1 to {NODES_MAX} nodes, not {nodes}");
        clean()?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{serial}-", std::process::id());
        // From here on it cleans up behind itself, whatever fails.
        let mut lan = Lan { prefix, nodes, counters: File::open("/dev/null")? };
        lan.make_switch()?;
        for node in 0..nodes {
            lan.make_node(node, links).with_context(|| format!("make node {node} of a lan"))?;
        }
        let counters = || File::open("/proc/thread-self/net/dev");
        lan.counters = within(&lan.switch(), counters)?.context("open /proc/net/dev")?;
        Ok(lan)
    }

    /// How many machines there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The congestion control that its nodes have.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn congestion(&self) -> Result<String> {
        let text = self.within(0, || std::fs::read_to_string(CONGESTION))?;
        Ok(text.with_context(|| format!("read {CONGESTION}"))?.trim().to_owned())
    }

    /// The address of a node.
    #[must_use]
    pub fn addr(&self, node: usize) -> Ipv4Addr {
        addr(node)
    }

    /// A command that runs `program` on a node. Its process is `program` itself, not a parent.
    #[must_use]
    pub fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = tool::words("ip netns exec");
        command.arg(self.node(node)).arg(program);
        command
    }

    /// Does `work` on a thread whose sockets are those of a node, and waits for it.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// As `work`.
    pub fn within<T: Send>(&self, node: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
        within(&self.node(node), work)
    }

    /// Changes what the link of a node allows. What waits in its queues stays there, unless a limit
    /// ends.
    ///
    /// # Errors
    /// What `tc` said.
    pub fn set_rates(&self, node: usize, rates: Rates) -> Result<()> {
        limit(&self.node(node), "eth0", rates.up)?;
        limit(&self.switch(), &port(node), rates.down)
    }

    /// Pulls the cable of a node out of the switch, or puts it in again.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn set_connected(&self, node: usize, connected: bool) -> Result<()> {
        let state = if connected { "up" } else { "down" };
        ip(&self.switch(), &format!("link set {} {state}", port(node)))
    }

    /// What went over each node's link so far.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn traffic(&self) -> Result<Vec<Traffic>> {
        // A line has at most 150 bytes; there are as many lines as nodes, a bridge and a loopback.
        let mut text = vec![0; 256 * (self.nodes + 4)];
        let mut len = 0;
        while len < text.len() {
            match self.counters.read_at(&mut text[len..], len as u64).context("read net/dev")? {
                0 => break,
                more => len += more,
            }
        }
        let text = String::from_utf8_lossy(&text[..len]);
        let traffic = |node| {
            traffic_of(&text, &port(node)).with_context(|| format!("net/dev has no port {node}"))
        };
        (0..self.nodes).map(traffic).collect()
    }

    /// Packets that the limiters threw away so far, in all.
    ///
    /// # Errors
    /// What `tc` said.
    pub fn drops(&self) -> Result<u64> {
        let mut drops = 0;
        let namespaces = (0..self.nodes).map(|node| self.node(node)).chain([self.switch()]);
        for namespace in namespaces {
            let text = tool::run(&mut tool::words(&format!("tc -n {namespace} -s -j qdisc show")))?;
            let queues: serde_json::Value =
                serde_json::from_str(text.trim()).context("read what tc printed")?;
            let list = queues.as_array().map_or(&[][..], Vec::as_slice);
            drops += list.iter().filter_map(|queue| queue["drops"].as_u64()).sum::<u64>();
        }
        Ok(drops)
    }

    fn node(&self, node: usize) -> String {
        format!("{}{node}", self.prefix)
    }

    fn switch(&self) -> String {
        format!("{}switch", self.prefix)
    }

    fn make_switch(&self) -> Result<()> {
        let switch = self.switch();
        add_namespace(&switch, None)?;
        ip(&switch, "link add switch mtu 1500 type bridge forward_delay 0 mcast_snooping 0")?;
        ip(&switch, "link set switch up")
    }

    fn make_node(&self, node: usize, links: &Links) -> Result<()> {
        let (switch, name, port) = (self.switch(), self.node(node), port(node));
        add_namespace(&name, links.congestion.as_deref())?;
        let pair = format!("link add {port} mtu 1500 type veth peer name eth0 mtu 1500 netns");
        ip(&switch, &format!("{pair} {name}"))?;
        ip(&switch, &format!("link set {port} master switch up"))?;
        ip(&name, "link set lo up")?;
        ip(&name, &format!("addr add {}/16 brd + dev eth0", self.addr(node)))?;
        ip(&name, "link set eth0 up")?;
        let gso = burst(links.of(node).up);
        ip(&name, &format!("link set dev eth0 gso_max_size {gso}"))?;
        // Multicast wants a route.
        ip(&name, "route add default dev eth0")?;
        self.set_rates(node, links.of(node))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            remove(&self.node(node));
        }
        remove(&self.switch());
    }
}

/// The address that a node has in every [`Lan`].
#[must_use]
pub fn addr(node: usize) -> Ipv4Addr {
    // At most `NODES_MAX`, which is below 250.
    Ipv4Addr::new(10, 77, 0, node as u8 + 1)
}

/// Removes what processes left behind that have ended. Others' are left alone.
///
/// # Errors
/// If the list of namespaces cannot be read.
pub fn clean() -> Result<()> {
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return Ok(()) };
    for entry in entries {
        let name = entry.with_context(|| format!("list {NAMESPACES}"))?.file_name();
        let name = name.to_string_lossy();
        if is_stale(&name) {
            remove(&name);
        }
    }
    Ok(())
}

/// Whether `name` was made for a process that is not there any more: [`PREFIX`], its id, `-`.
#[must_use]
pub fn is_stale(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Names of namespaces, and of directories that belong to them, begin so; a process id follows.
pub const PREFIX: &str = "ezio-lab-";

/// One /24, and a machine that could run that many does not exist.
const NODES_MAX: usize = 200;

/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/var/run/netns";

fn port(node: usize) -> String {
    format!("port{node}")
}

/// Bytes that a node may send as one packet, for its own card to cut (segmentation offload).
///
/// Nothing here cuts them, so they go through the switch in one, which the packets of a real link
/// do not: there, others' packets come between. A millisecond of the link is fine enough beside what
/// a piece takes. With 64 KiB, 5 ms of 100 Mbit/s, eight clients that share an image took 1.09 times the
/// ideal time instead of 1.04, because links stood idle while such a clump was on its way elsewhere.
fn burst(up: Option<u64>) -> u64 {
    up.map_or(BURST_MAX, |rate| (rate / 1000).clamp(BURST_MIN, BURST_MAX))
}

/// Eight full packets: with less, this machine does little else than forward them.
const BURST_MIN: u64 = 12 << 10;

/// What Linux itself allows, less than the bucket.
const BURST_MAX: u64 = 64 << 10;

/// A namespace without IPv6, whose address checks would take a second at start.
fn add_namespace(name: &str, congestion: Option<&str>) -> Result<()> {
    tool::run(tool::words("ip netns add").arg(name))?;
    let set = |file: &str, value: &str| {
        std::fs::write(file, value).with_context(|| format!("write `{value}` to {file}"))
    };
    within(name, || {
        // `/proc/sys/net` is that of the thread that looks.
        if Path::new(NO_IPV6).exists() {
            set(NO_IPV6, "1")?;
        }
        match congestion {
            Some(wanted) => set(CONGESTION, wanted),
            // See `Links::congestion`.
            None => set(CONGESTION, "cubic").or_else(|_| set(CONGESTION, "reno")),
        }
    })?
}

const NO_IPV6: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Limits what leaves `device` to `rate` bytes a second, or not any more.
///
/// The bucket holds 80 KiB, so a packet as segmentation offload makes them is not cut: that costs
/// little CPU. They are no longer than [`burst`] says. The queue holds 50 ms, as a port of a switch
/// does, and at least what a few connections begin with.
fn limit(namespace: &str, device: &str, rate: Option<u64>) -> Result<()> {
    let Some(rate) = rate else {
        // Back to what a veth has by itself; to delete what is not there would be an error.
        let none = format!("tc -n {namespace} qdisc replace dev {device} root noqueue");
        return tool::run(&mut tool::words(&none)).map(drop);
    };
    let (burst, queue) = ((rate / 500).max(80 << 10), (rate / 20).max(256 << 10));
    let rate = rate * 8;
    let shape = format!(
        "tc -n {namespace} qdisc replace dev {device} root tbf rate {rate}bit burst {burst} limit {queue}"
    );
    tool::run(&mut tool::words(&shape)).map(drop)
}

fn ip(namespace: &str, words: &str) -> Result<()> {
    tool::run(&mut tool::words(&format!("ip -n {namespace} {words}"))).map(drop)
}

/// Ends what runs in a namespace and removes it. There is nobody to tell if that fails.
fn remove(name: &str) {
    if !Path::new(NAMESPACES).join(name).exists() {
        return;
    }
    let pids = tool::run(tool::words("ip netns pids").arg(name)).unwrap_or_default();
    for pid in pids.split_whitespace() {
        let _ = tool::run(tool::words("kill -KILL").arg(pid));
    }
    if let Err(error) = tool::run(tool::words("ip netns del").arg(name)) {
        eprintln!("{error:#}");
    }
}

fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let path = PathBuf::from(NAMESPACES).join(namespace);
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let enter = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    };
    let name = thread::current().name().unwrap_or("lan").to_owned();
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name).spawn_scoped(scope, enter);
        let outcome = thread.context("start a thread")?.join();
        let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.map_err(|e: rustix::io::Errno| anyhow::anyhow!("enter {}: {e}", path.display()))
    })
}

/// What `/proc/net/dev` says of `port`, turned around: what a port receives its node has sent.
fn traffic_of(text: &str, port: &str) -> Option<Traffic> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(port)?.strip_prefix(':'))?;
    let mut numbers = line.split_whitespace().map(str::parse);
    let sent = numbers.next()?.ok()?;
    // Eight columns of what is received, then those of what is sent.
    let received = numbers.nth(7)?.ok()?;
    Some(Traffic { sent, received })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn ports_are_read_from_the_kernels_table() {
        let text = "Inter-|   Receive\n face |bytes\n    lo:       5       1    0    0    0     0  \
                    0         0        6       2    0    0    0     0       0          0\n\
                    port1:     100       1    0    0    0     0          0         0      200  \
                    2    0    0    0     0       0          0\nport11: 7 1 0 0 0 0 0 0 8 2 0 0\n";
        assert_eq!(traffic_of(text, "port1"), Some(Traffic { sent: 100, received: 200 }));
        assert_eq!(traffic_of(text, "port11"), Some(Traffic { sent: 7, received: 8 }));
        assert_eq!(traffic_of(text, "port2"), None);
    }

    #[test]
    fn only_names_of_ended_processes_are_stale() {
        let own = std::process::id();
        assert!(!is_stale(&format!("{PREFIX}{own}-0-1")));
        assert!(!is_stale("somebody-else"));
        assert!(!is_stale(PREFIX));
        // Above what Linux gives (PID_MAX_LIMIT, 2^22).
        assert!(is_stale(&format!("{PREFIX}4194305-0-switch")));
    }

    #[test]
    fn a_link_is_limited_counted_and_gone_afterwards() {
        if let Err(why) = supported() {
            crate::skip!("{why}");
        }
        let rate = 5_000_000;
        let links = Links { congestion: Some("reno".to_owned()), ..Links::equal(rate) };
        let lan = Lan::new(2, &links).unwrap();
        assert_eq!(lan.congestion().unwrap(), "reno");
        let stays = Path::new(NAMESPACES).join(lan.node(1));
        let before = lan.traffic().unwrap();
        let len = 2_000_000;
        let seconds = transfer(&lan, 0, 1, len);
        // Both buckets are full at first; a loaded machine only makes it longer.
        let least = (len - 3 * (80 << 10)) as f64 / goodput(rate);
        assert!(seconds > least, "{seconds} s");
        let traffic = lan.traffic().unwrap();
        assert!((len..len * 11 / 10).contains(&(traffic[0].sent - before[0].sent)), "{traffic:?}");
        assert!(traffic[1].received - before[1].received >= len, "{traffic:?}");
        assert!(stays.exists());
        drop(lan);
        assert!(!stays.exists());
    }

    /// Seconds that `len` bytes take from node to node.
    fn transfer(lan: &Lan, from: usize, to: usize, len: u64) -> f64 {
        let listener = lan.within(to, || TcpListener::bind((lan.addr(to), 0))).unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        let mut sender = lan.within(from, || TcpStream::connect(addr)).unwrap().unwrap();
        let begin = Instant::now();
        let sender = thread::spawn(move || sender.write_all(&vec![7; len as usize]).unwrap());
        let (mut receiver, _) = listener.accept().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut bytes = Vec::new();
        receiver.read_to_end(&mut bytes).unwrap();
        sender.join().unwrap();
        assert_eq!(bytes.len() as u64, len);
        begin.elapsed().as_secs_f64()
    }

    #[test]
    fn a_link_has_its_own_rate_each_way_and_can_change() {
        if let Err(why) = supported() {
            crate::skip!("{why}");
        }
        let slow = Rates { up: Some(500_000), down: None };
        let links = Links { others: [(1, slow)].into(), ..Links::default() };
        let lan = Lan::new(2, &links).unwrap();
        // What is sent at once, from a full bucket, is not limited.
        let (len, burst) = (1_000_000, 80 << 10);
        let least = (len - burst) as f64 / 500_000.0;
        assert!(transfer(&lan, 1, 0, len) > least, "not limited on its way up");
        assert!(transfer(&lan, 0, 1, len) < least, "limited on its way down");
        lan.set_rates(1, Rates { up: None, down: Some(500_000) }).unwrap();
        assert!(transfer(&lan, 1, 0, len) < least, "limited on its way up");
        assert!(transfer(&lan, 0, 1, len) > least, "not limited on its way down");
    }

    #[test]
    fn a_cable_that_is_pulled_out_carries_nothing() {
        if let Err(why) = supported() {
            crate::skip!("{why}");
        }
        let lan = Lan::new(2, &Links::default()).unwrap();
        let listener = lan.within(1, || TcpListener::bind((lan.addr(1), 7000))).unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        let connect = || {
            let wait = Duration::from_millis(300);
            lan.within(0, || TcpStream::connect_timeout(&addr, wait)).unwrap().is_ok()
        };
        lan.set_connected(1, false).unwrap();
        assert!(!connect());
        lan.set_connected(1, true).unwrap();
        let begin = Instant::now();
        while !connect() {
            assert!(begin.elapsed() < Duration::from_secs(30), "it stays without a link");
        }
    }

    #[test]
    fn what_runs_on_a_node_ends_with_it() {
        if let Err(why) = supported() {
            crate::skip!("{why}");
        }
        let lan = Lan::new(1, &Links::default()).unwrap();
        let mut command = lan.command(0, Path::new("sleep"));
        let mut child = command.arg("600").spawn().unwrap();
        let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        while name(child.id()).trim() != "sleep" {
            thread::yield_now();
        }
        drop(lan);
        assert!(!child.wait().unwrap().success());
    }
}
