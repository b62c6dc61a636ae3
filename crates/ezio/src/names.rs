//! Names of machines into addresses: every look-up of this program goes through here.
//!
//! The C library does it (hosts file, DNS, and whatever else /etc/nsswitch.conf names), with one exception.
//! A static program with glibc has the hosts file and DNS built in; anything else is a module of the
//! system's own C library, which must then be of the very version that this program was linked with. With
//! another one the process dies: by an assertion below Debian 11 (glibc 2.31), by SIGFPE below Debian 13
//! (2.41), in the middle of a deployment, for a name. So where modules are asked for, the system's own
//! `getent` asks them.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::process::{Command, Stdio};

/// The addresses of a host, which may be one already. Blocks as long as the resolver likes.
///
/// # Errors
/// If nobody knows the name.
pub(crate) fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if IS_STATIC_GLIBC && wants_modules(&std::fs::read_to_string(CONFIG).unwrap_or_default()) {
        let found = ask_getent(host)?;
        return Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    (host, port).to_socket_addrs().map(Iterator::collect)
}

/// As [`look_up`], for `HOST:PORT`.
///
/// # Errors
/// If it has not this form, or nobody knows the name.
pub(crate) fn look_up_pair(text: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(addr) = text.parse() {
        return Ok(vec![addr]);
    }
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("a port is missing"))?;
    look_up(host, port.parse().map_err(|_| wrong("its port is no number up to 65535"))?)
}

const IS_STATIC_GLIBC: bool = cfg!(all(target_env = "gnu", target_feature = "crt-static"));

/// Says which sources of names the C library asks, in which order: nsswitch.conf(5).
const CONFIG: &str = "/etc/nsswitch.conf";

/// Whether names of hosts are to be asked of more than is built in. Without the line they are not.
fn wants_modules(config: &str) -> bool {
    let lines = config.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut sources = lines.filter_map(|line| line.trim().strip_prefix("hosts:"));
    // What to do after an answer, as [NOTFOUND=return], is no source; it may contain spaces.
    let name = |text: &str| text.split('[').map(after_action).collect::<Vec<_>>().join(" ");
    sources.any(|line| name(line).split_whitespace().any(|word| word != "files" && word != "dns"))
}

fn after_action(text: &str) -> &str {
    text.split_once(']').map_or(text, |(_, rest)| rest)
}

/// Has the system's own program ask the system's own modules; it is where they are.
fn ask_getent(host: &str) -> io::Result<Vec<IpAddr>> {
    let output = Command::new("getent")
        .args(["ahosts", "--", host])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("ask getent, as {CONFIG} wants: {e}")))?;
    let found = addresses(&String::from_utf8_lossy(&output.stdout));
    if found.is_empty() { Err(io::Error::other("nobody knows this name")) } else { Ok(found) }
}

/// `getent ahosts` prints an address up to three times, once for each kind of socket.
fn addresses(listing: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in listing.lines() {
        let first = line.split_whitespace().next().and_then(|word| word.parse().ok());
        if let Some(ip) = first.filter(|ip| !found.contains(ip)) {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_whatever_is_neither_files_nor_dns() {
        for config in [
            "",
            "passwd: files systemd\n",
            "hosts: files dns\n",
            "hosts:\tdns [!UNAVAIL=return] files # resolve\n",
            "# hosts: resolve\nhosts: files [ NOTFOUND=return SUCCESS=merge ] dns",
        ] {
            assert!(!wants_modules(config), "{config}");
        }
        for config in [
            "hosts: files mdns4_minimal [NOTFOUND=return] dns\n",
            "passwd: files\n  hosts: files [NOTFOUND=return]resolve dns",
            "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns",
        ] {
            assert!(wants_modules(config), "{config}");
        }
    }

    #[test]
    fn the_systems_own_program_knows_this_machine() {
        // Twice for the name, and not thrice for each kind of socket.
        let listing = "::1             STREAM localhost\n::1             DGRAM  \n127.0.0.1 RAW\n";
        assert_eq!(
            addresses(listing),
            ["::1", "127.0.0.1"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        if Command::new("getent").arg("--version").output().is_err() {
            lab::skip!("no getent");
        }
        assert!(ask_getent("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(ask_getent("no-such-name.invalid").is_err());
        assert!(ask_getent("--help").is_err());
    }

    #[test]
    fn a_pair_is_a_host_and_a_port() {
        let addr: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(look_up_pair("[::1]:80").unwrap(), [addr]);
        assert!(look_up_pair("localhost:80").unwrap().iter().all(|addr| addr.ip().is_loopback()));
        for wrong in ["localhost", "localhost:", "localhost:65536", ""] {
            assert_eq!(look_up_pair(wrong).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
