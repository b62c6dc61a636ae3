//! Ports of loopback for those who have to know theirs beforehand.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Below those that the kernel gives to whom does not ask for one (`ip_local_port_range`), above those
/// that programs are known by.
const PORTS: Range<u16> = 20_000..32_000;

/// What this process has taken, until it ends: a name of unix(7) each, which nobody else can take.
static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port of loopback where nobody listens with TCP or UDP, and which nobody gets by chance or by
/// asking here, in any process, as long as this one lives. So what listens there may end, be looked
/// for meanwhile, and come back.
pub fn free_port() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Far from where others begin who have just been started as well.
    let start = std::process::id().wrapping_mul(101) as usize % PORTS.len();
    for port in PORTS.cycle().skip(start).take(PORTS.len()) {
        let name = SocketAddr::from_abstract_name(format!("ezio-lab-port-{port}"));
        let Ok(claim) = name.and_then(|name| UnixListener::bind_addr(&name)) else { continue };
        let at = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            taken.push(claim);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}
