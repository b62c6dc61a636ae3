//! Which networks this machine is on.

use anyhow::{Context as _, bail};
use std::net::IpAddr;
use std::path::Path;

/// A network interface that is up, and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// As the kernel calls it: `eth0`.
    pub name: String,
    /// As the kernel counts it.
    pub index: u32,
    /// Its addresses, IPv4 first, those that are valid only on its own link last.
    pub addrs: Vec<IpAddr>,
    /// The machine itself, not a network.
    pub loopback: bool,
    /// Whether several can be addressed at once (`IFF_MULTICAST`).
    pub multicast: bool,
}

impl Interface {
    /// The address to talk to `remote` from: one of the same kind.
    #[must_use]
    pub fn address_for(&self, remote: IpAddr) -> Option<IpAddr> {
        self.addrs.iter().copied().find(|addr| addr.is_ipv4() == remote.is_ipv4())
    }
}

/// The interfaces that are up and have an address.
///
/// # Errors
/// If the C library cannot list them (`getifaddrs`).
pub fn interfaces() -> anyhow::Result<Vec<Interface>> {
    let mut found: Vec<Interface> = Vec::new();
    for one in if_addrs::get_if_addrs().context("list the network interfaces")? {
        let (Some(index), ip) = (one.index, one.ip()) else { continue };
        // Gone since it was listed, if it has no flags.
        let Some(flags) = flags(&one).filter(|flags| flags & IFF_UP != 0) else { continue };
        if let Some(known) = found.iter_mut().find(|known| known.index == index) {
            known.addrs.push(ip);
            continue;
        }
        found.push(Interface {
            name: one.name,
            index,
            addrs: vec![ip],
            loopback: flags & IFF_LOOPBACK != 0,
            multicast: flags & IFF_MULTICAST != 0,
        });
    }
    for interface in &mut found {
        interface.addrs.sort_by_key(|addr| (addr.is_ipv6(), is_link_local(*addr)));
    }
    Ok(found)
}

/// What the kernel's driver says of the link of the interface `name`: its speed in Mbit/s (`None`
/// for a virtual interface, or while the cable is out), and whether it is half duplex.
#[must_use]
pub fn link(name: &str) -> (Option<u64>, bool) {
    let read = |file| std::fs::read_to_string(format!("/sys/class/net/{name}/{file}"));
    let speed = read("speed").ok().and_then(|text| text.trim().parse().ok());
    // -1 and the greatest number of 32 bits both say that nobody knows.
    let known = speed.filter(|&mbit: &u64| mbit > 0 && mbit < u64::from(u32::MAX));
    (known, read("duplex").is_ok_and(|text| text.trim() == "half"))
}

/// The speed of this machine's fastest link in Mbit/s, if any is known.
#[must_use]
pub fn fastest_mbit() -> Option<u64> {
    let all = interfaces().unwrap_or_default();
    all.iter().filter(|interface| !interface.loopback).filter_map(|i| link(&i.name).0).max()
}

/// The hardware address of the interface `name`, as `52:54:00:12:34:56`.
#[must_use]
pub fn mac(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/address")).ok()?;
    Some(text.trim().to_owned()).filter(|mac| !mac.is_empty() && mac != "00:00:00:00:00:00")
}

/// The interface that `wanted` names: by its name, or by an address of it, which then is the only
/// one of its kind to be used.
///
/// # Errors
/// If there is none; says which there are.
pub fn choose(wanted: &str) -> anyhow::Result<Interface> {
    pick(interfaces()?, wanted)
}

fn pick(all: Vec<Interface>, wanted: &str) -> anyhow::Result<Interface> {
    if let Ok(addr) = wanted.parse::<IpAddr>() {
        let owner = all.iter().find(|interface| interface.addrs.contains(&addr));
        if let Some(owner) = owner {
            return Ok(Interface { addrs: vec![addr], ..owner.clone() });
        }
    }
    if let Some(named) = all.iter().find(|interface| interface.name == wanted) {
        return Ok(named.clone());
    }
    let known: Vec<String> = all
        .iter()
        .map(|interface| {
            let addrs: Vec<String> = interface.addrs.iter().map(IpAddr::to_string).collect();
            format!("{} ({})", interface.name, addrs.join(", "))
        })
        .collect();
    bail!(
        "no interface that is up is called `{wanted}` or has this address; there are {}",
        known.join(", ")
    )
}

/// From the kernel's `include/uapi/linux/if.h`.
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_MULTICAST: u32 = 1 << 12;

/// An interface's flags as sysfs shows them. An alias (`eth0:1`) has those of its interface.
fn flags(one: &if_addrs::Interface) -> Option<u32> {
    if !Path::new(SYSFS).exists() {
        return Some(likely_flags(one));
    }
    let name = one.name.split_once(':').map_or(&one.name[..], |(name, _)| name);
    let text = std::fs::read_to_string(format!("{SYSFS}/{name}/flags")).ok()?;
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

/// Where sysfs is not mounted, as in a rescue shell: what can be told from the little that is listed.
fn likely_flags(one: &if_addrs::Interface) -> u32 {
    let up = if one.is_oper_up() { IFF_UP } else { 0 };
    let kind = match (one.is_loopback(), one.is_p2p()) {
        (true, _) => IFF_LOOPBACK,
        (false, true) => 0,
        (false, false) => IFF_MULTICAST,
    };
    up | kind
}

const SYSFS: &str = "/sys/class/net";

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth0() -> Interface {
        Interface {
            name: "eth0".into(),
            index: 2,
            addrs: ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|a| a.parse().unwrap()).into(),
            loopback: false,
            multicast: true,
        }
    }

    fn check(wanted: &str, addrs: Result<&[&str], &str>) {
        let found = pick(vec![eth0()], wanted);
        let found = found.map(|i| i.addrs.iter().map(ToString::to_string).collect::<Vec<_>>());
        let wanted = addrs.map(|addrs| addrs.iter().map(ToString::to_string).collect());
        assert_eq!(found.map_err(|e| e.to_string()), wanted.map_err(str::to_owned));
    }

    #[test]
    fn an_interface_is_named_or_has_the_address() {
        check("eth0", Ok(&["10.0.0.1", "10.0.0.2", "fd00::1"]));
        check("10.0.0.2", Ok(&["10.0.0.2"]));
        check("fd00::1", Ok(&["fd00::1"]));
        let known =
            "is up is called `x` or has this address; there are eth0 (10.0.0.1, 10.0.0.2, fd00::1)";
        check("x", Err(&format!("no interface that {known}")));
        assert!(pick(vec![eth0()], "10.0.0.3").is_err());
    }

    #[test]
    fn without_sysfs_the_loopback_is_the_same() {
        let all = if_addrs::get_if_addrs().unwrap();
        let lo = all.iter().find(|one| one.is_loopback()).unwrap();
        let told = flags(lo).unwrap() & (IFF_UP | IFF_LOOPBACK | IFF_MULTICAST);
        assert_eq!(likely_flags(lo), told);
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let all = interfaces().unwrap();
        let lo = all.iter().find(|interface| interface.loopback).unwrap();
        assert!(lo.addrs.contains(&"127.0.0.1".parse().unwrap()), "{all:?}");
    }
}
