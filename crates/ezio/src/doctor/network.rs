//! The network, as far as this machine shows it: links, ports, multicast, firewalls.

use super::Finding;
use crate::control::interfaces::{Interface, interfaces};
use crate::control::lsd;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

pub(super) fn check() -> Vec<Finding> {
    let ups = interfaces().unwrap_or_default();
    let mut findings: Vec<Finding> = nics(Path::new("/sys/class/net")).iter().map(link).collect();
    if !ups.iter().any(|interface| !interface.loopback && !interface.addrs.is_empty()) {
        findings.push(Finding::wrong(
            "address",
            "no interface but loopback is up with an address",
            "plug the cable in; then `ip link set eth0 up` and an address, as by `dhclient eth0`",
        ));
    }
    findings.extend(ups.iter().filter(|interface| !interface.loopback).map(local_discovery));
    findings.push(http_port(&bind(6969), is_ezio(6969)));
    findings
        .push(peer_ports(&(6881..=6889).filter(|&port| bind(port).is_ok()).collect::<Vec<_>>()));
    findings.push(firewall(&Signs::look()));
    findings
}

/// An interface as sysfs describes it. Only those with a device behind them: bridges and tunnels have
/// no speed of their own.
#[derive(Clone, Debug, Default)]
struct Nic {
    name: String,
    up: bool,
    /// In Mbit/s.
    speed: Option<u64>,
    half_duplex: bool,
    mtu: Option<u64>,
    packets: u64,
    errors: u64,
    wireless: bool,
}

fn nics(dir: &Path) -> Vec<Nic> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<Nic> = entries
        .flatten()
        .filter(|entry| entry.path().join("device").exists())
        .map(|entry| nic(&entry.path(), &entry.file_name().to_string_lossy()))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn nic(dir: &Path, name: &str) -> Nic {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
    let number = |file: &str| read(file).and_then(|text| text.trim().parse::<u64>().ok());
    let count = |files: &[&str]| {
        files.iter().filter_map(|file| number(&format!("statistics/{file}"))).sum::<u64>()
    };
    Nic {
        name: name.to_owned(),
        // `unknown` is what drivers say that do not tell; a cable that is out is `down`.
        up: read("operstate").is_some_and(|text| matches!(text.trim(), "up" | "unknown")),
        // -1 and the greatest number of 32 bits both say that nobody knows.
        speed: number("speed").filter(|&mbit| mbit > 0 && mbit < u64::from(u32::MAX)),
        half_duplex: read("duplex").is_some_and(|text| text.trim() == "half"),
        mtu: number("mtu"),
        packets: count(&["rx_packets", "tx_packets"]),
        errors: count(&["rx_errors", "tx_errors"]),
        wireless: dir.join("wireless").exists() || dir.join("phy80211").exists(),
    }
}

/// Bits that are lost on a wire that is in order: one packet of a hundred thousand is far too much.
const PACKETS_AN_ERROR: u64 = 100_000;

/// What slows a link most is said; one thing at a time.
fn link(nic: &Nic) -> Finding {
    let check = format!("link {}", nic.name);
    let cable = "another cable (four pairs, all contacts), or another port of the switch; look at what \
                 both ends negotiate";
    if !nic.up {
        let text = "down: the cable is out, or it is not configured";
        return Finding::warning(check, text, "nothing, if another interface is used");
    }
    let speed = nic.speed.map(|mbit| format!("{mbit} Mbit/s")).unwrap_or("of unknown speed".into());
    if nic.half_duplex {
        return Finding::warning(check, format!("{speed}, half duplex"), cable);
    }
    if nic.wireless {
        let text = format!("{speed}, by radio: slow, and all machines share it");
        return Finding::warning(check, text, "take a cable");
    }
    if nic.speed.is_some_and(|mbit| mbit < 1000) {
        let text = format!("{speed} only; one such machine keeps the room waiting");
        return Finding::warning(check, text, cable);
    }
    if nic.errors > 10 && nic.errors > nic.packets / PACKETS_AN_ERROR {
        let text = format!("{speed}, {} errors in {} packets", nic.errors, nic.packets);
        return Finding::warning(check, text, cable);
    }
    match nic.mtu {
        Some(mtu) if mtu < 1500 => Finding::warning(
            check,
            format!("{speed}, MTU {mtu} instead of 1500"),
            format!("`ip link set {} mtu 1500`, unless a tunnel on the way needs less", nic.name),
        ),
        Some(mtu) if mtu > 1500 => Finding::ok(
            check,
            format!("{speed}, full duplex, MTU {mtu}, which all machines and switches must have"),
        ),
        _ => Finding::ok(check, format!("{speed}, full duplex")),
    }
}

/// Machines find each other by multicast, and through the server's tracker.
fn local_discovery(interface: &Interface) -> Finding {
    let outcome = match interface.addrs.iter().find(|addr| addr.is_ipv4()) {
        _ if !interface.multicast => Err("the interface has no multicast".to_owned()),
        Some(&IpAddr::V4(addr)) => join(addr).map_err(|error| crate::store::io_reason(&error)),
        // IPv6 does not work at all without.
        _ => Ok(()),
    };
    multicast(&interface.name, outcome)
}

fn join(addr: Ipv4Addr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.join_multicast_v4(&lsd::GROUP_V4, &addr)
}

fn multicast(name: &str, outcome: Result<(), String>) -> Finding {
    let check = format!("discovery {name}");
    match outcome {
        Ok(()) => Finding::ok(check, "multicast works, as far as this machine can tell"),
        Err(why) => Finding::warning(
            check,
            format!("no multicast: {why}"),
            "nothing, if all machines reach the server: its tracker is enough",
        ),
    }
}

fn bind(port: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // As the program itself listens.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(1)
}

/// Whether what answers there is one of ours.
fn is_ezio(port: u16) -> bool {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let open = TcpStream::connect_timeout(&addr, Duration::from_millis(500)).is_ok();
    let url = format!("http://127.0.0.1:{port}/api/openapi.json");
    open && crate::control::fetch(&url, 1 << 20)
        .is_ok_and(|page| String::from_utf8_lossy(&page).contains("ezio serve"))
}

fn http_port(free: &io::Result<()>, is_ezio: bool) -> Finding {
    match free {
        Ok(()) => Finding::ok("port 6969", "free for `ezio serve`"),
        Err(_) if is_ezio => Finding::ok("port 6969", "an `ezio serve` answers there"),
        Err(error) => Finding::warning(
            "port 6969",
            format!("cannot be listened on: {}", crate::store::io_reason(error)),
            "a server needs it: `ss -ltnp | grep 6969` shows who has it (opentracker does); end that, \
             or give `ezio serve --http PORT`",
        ),
    }
}

fn peer_ports(free: &[u16]) -> Finding {
    match free {
        [first, ..] => Finding::ok("peer port", format!("{first} is free")),
        [] => Finding::wrong(
            "peer port",
            "none of 6881 to 6889 is free",
            "`ss -ltnp | grep 688` shows who has them; end that, or give --port N",
        ),
    }
}

/// Traces of firewalls that anybody may see.
#[derive(Clone, Debug, Default)]
struct Signs {
    ufw: bool,
    firewalld: bool,
    /// Rules of nftables or iptables may be there: the kernel has loaded what keeps them.
    tables: bool,
}

impl Signs {
    fn look() -> Signs {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let ufw = read("/etc/ufw/ufw.conf").lines().any(|line| line.trim() == "ENABLED=yes");
        let modules = read("/proc/modules");
        let loaded = |name: &str| modules.lines().any(|line| line.starts_with(name));
        // Their chains hang on these; Docker alone loads the first of them for its own network.
        let tables = ["iptable_filter ", "ip6table_filter ", "nft_reject", "nft_ct "];
        Signs {
            ufw,
            firewalld: Path::new("/run/firewalld").exists() || runs("firewalld"),
            tables: tables.iter().any(|name| loaded(name)),
        }
    }
}

/// Whether a process of this name runs.
fn runs(name: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        std::fs::read_to_string(process.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    })
}

fn firewall(signs: &Signs) -> Finding {
    let ports = "6969/tcp on the server, 6881 to 6889/tcp on all machines, 6771/udp for discovery";
    let (text, how) = match signs {
        Signs { firewalld: true, .. } => (
            "firewalld runs",
            "`firewall-cmd --add-port=6969/tcp --add-port=6881-6889/tcp --add-port=6771/udp`",
        ),
        Signs { ufw: true, .. } => {
            ("ufw is enabled", "`ufw allow 6969/tcp; ufw allow 6881:6889/tcp; ufw allow 6771/udp`")
        }
        Signs { tables: true, .. } => {
            ("the kernel has filter rules loaded, or had", "`nft list ruleset` shows them")
        }
        _ => return Finding::ok("firewall", "none is seen on this machine"),
    };
    Finding::warning("firewall", text, format!("let {ports} in: {how}"))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Ok as Fine, Warning, Wrong};
    use super::super::tests::check;
    use super::*;

    fn good() -> Nic {
        let (name, speed) = ("eth0".to_owned(), Some(1000));
        Nic { name, up: true, speed, mtu: Some(1500), packets: 1_000_000, ..Nic::default() }
    }

    #[test]
    fn a_link_is_judged_by_what_the_kernel_says() {
        check(&link(&good()), Fine, "link eth0: 1000 Mbit/s, full duplex");
        check(&link(&Nic { up: false, ..good() }), Warning, "down");
        check(&link(&Nic { speed: Some(100), ..good() }), Warning, "100 Mbit/s only");
        check(&link(&Nic { half_duplex: true, ..good() }), Warning, "half duplex -> another cable");
        check(&link(&Nic { wireless: true, ..good() }), Warning, "by radio");
        check(&link(&Nic { errors: 12, ..good() }), Warning, "12 errors in 1000000 packets");
        check(&link(&Nic { errors: 9, ..good() }), Fine, "");
        check(&link(&Nic { mtu: Some(1400), ..good() }), Warning, "ip link set eth0 mtu 1500");
        check(&link(&Nic { mtu: Some(9000), ..good() }), Fine, "all machines and switches");
        check(&link(&Nic { speed: None, ..good() }), Fine, "of unknown speed");
    }

    #[test]
    fn interfaces_are_read_from_sysfs() {
        let dir = tempfile::tempdir().unwrap();
        for (name, device, files) in [
            ("eth1", true, [("operstate", "up\n"), ("speed", "100\n"), ("duplex", "half\n")]),
            ("eth0", true, [("operstate", "down\n"), ("speed", "-1\n"), ("mtu", "1500\n")]),
            ("br0", false, [("operstate", "up\n"), ("speed", "10\n"), ("mtu", "1500\n")]),
        ] {
            let nic = dir.path().join(name);
            std::fs::create_dir_all(nic.join("statistics")).unwrap();
            files.iter().for_each(|(file, text)| std::fs::write(nic.join(file), text).unwrap());
            std::fs::write(nic.join("statistics/rx_errors"), "7\n").unwrap();
            if device {
                std::fs::create_dir(nic.join("device")).unwrap();
            }
        }
        let found = nics(dir.path());
        let facts: Vec<_> =
            found.iter().map(|n| (&n.name[..], n.up, n.speed, n.half_duplex, n.errors)).collect();
        assert_eq!(
            facts,
            [("eth0", false, None, false, 7), ("eth1", true, Some(100), true, 7)],
            "a bridge has no link of its own"
        );
    }

    #[test]
    fn ports_multicast_and_firewalls_are_judged() {
        let taken = || Err(io::Error::from(io::ErrorKind::AddrInUse));
        check(&http_port(&Ok(()), false), Fine, "free");
        check(&http_port(&taken(), true), Fine, "answers there");
        check(&http_port(&taken(), false), Warning, "--http PORT");
        check(&peer_ports(&[6883, 6884]), Fine, "6883 is free");
        check(&peer_ports(&[]), Wrong, "--port N");
        check(&multicast("eth0", Ok(())), Fine, "discovery eth0");
        check(&multicast("eth0", Err("no such device".into())), Warning, "no such device");
        check(&firewall(&Signs::default()), Fine, "none");
        check(&firewall(&Signs { ufw: true, ..Signs::default() }), Warning, "ufw allow 6969/tcp");
        check(&firewall(&Signs { firewalld: true, ..Signs::default() }), Warning, "firewall-cmd");
        check(&firewall(&Signs { tables: true, ..Signs::default() }), Warning, "nft list ruleset");
    }
}
