//! What is asked of TCP for a connection: which congestion control, and how many bytes may wait in
//! the network.
//!
//! A dozen connections share a port, each with a window of its own that its congestion control
//! opens until something is dropped. So they fill the queue of the port together, and what should
//! be answered at once, a grant or a request, waits there. How long is known: TCP measures its round
//! trips, and the shortest there ever was is the path without queues. A connection whose round trips
//! take longer than that by [`QUEUE`] gets a smaller buffer to send from (`SO_SNDBUF`, socket(7)),
//! which bounds what it has on its way; one whose round trips do not gets a larger one. On a path
//! without a queue, however long or fast, nothing is ever touched.
//!
//! Not so with a peer that sends much slower than we do. Acknowledgements wait there behind what it sends
//! itself, and less on the way to it only makes that way slower: a client of eight that sends at a tenth
//! of the rate took 1.52 times the ideal time, and 1.09 without any of this.
//!
//! Nor with few connections: 8 clients on equal links took 1.045 without this and 1.042 with it, but three
//! of eight with slow uplinks 1.13 and 1.34, and links of many kinds 1.13 and 1.23.
//!
//! Always where the peer sends much faster than we do. What waits in front of our slow link keeps our
//! acknowledgements back, and with them what comes to us: three of eight with slow uplinks took 1.18
//! without this and 1.07 with it.
//!
//! Measured on links of 50 Mbit/s with 16 clients: 4300 packets dropped a run without, some tens with,
//! and 1.17 times the ideal time became 1.09.

use super::link::Link;
use socket2::SockRef;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use swarm::swarm::Uplink;

/// Bounds what a connection has on its way.
pub(super) struct Window {
    /// What `SO_SNDBUF` was set to, in bytes; `None`: the kernel chooses.
    buffer: Option<u32>,
    looked: Instant,
}

/// How long a round trip may be longer than the shortest, at the least: some packets of each connection
/// that shares a link of 100 Mbit/s, and an eighth of the time of a piece there.
const QUEUE: Duration = Duration::from_millis(10);

/// And so many bytes of our own link: [`LEAST`] of each of eight. On a link of 12.5 Mbit/s 10 ms are
/// ten packets, which no eight connections can keep to; all of them had the least, and in round trips of
/// a tenth of a second, half of them without anything to send, it did not fill the link.
const QUEUED: u64 = 64 << 10;

/// More is never right: a request that waits that long is late on any link.
const QUEUE_MOST: Duration = Duration::from_millis(200);

/// From so many connections on: what fewer have on their way, the queues of ports have room for.
const CROWD: usize = 12;

/// What the buffer holds at least, in bytes: enough packets that a lost one is noticed (RFC 5681,
/// three duplicate acknowledgements).
const LEAST: u32 = 8 << 10;

/// What it holds at most once it was set; the kernel has a lower bound (`net.core.wmem_max`).
const MOST: u32 = 4 << 20;

/// How often the round trip is looked at.
const EVERY: Duration = Duration::from_millis(20);

impl Window {
    pub(super) fn new() -> Window {
        Window { buffer: None, looked: Instant::now() }
    }

    /// Looks at the connection, one of `links`, if it is time to, and changes its buffer if need be.
    ///
    /// `uplink` is what our own link sends, in bytes a second, or 0.
    pub(super) fn follow(&mut self, link: &Link, links: usize, uplink: u64) -> io::Result<()> {
        let stream = &link.stream;
        if self.looked.elapsed() < EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        // Before Linux 4.6 there is no shortest round trip to compare with: the kernel chooses.
        let Ok(path) = Path::of(stream) else { return Ok(()) };
        let theirs = link.uplink.load(Ordering::Relaxed);
        let follows =
            theirs == Uplink::Faster as u8 || links >= CROWD && theirs != Uplink::Slower as u8;
        let allowed = queue_of(uplink);
        let resized = || resized(self.buffer, &path, allowed);
        let buffer = if follows { resized() } else { self.buffer.map(|_| MOST) };
        if buffer != self.buffer
            && let Some(len) = buffer
        {
            // As large as `u32`, which fits.
            SockRef::from(stream).set_send_buffer_size(len as usize)?;
        }
        self.buffer = buffer;
        Ok(())
    }
}

/// What TCP knows of the way to the other side.
#[derive(Debug, PartialEq, Eq)]
struct Path {
    /// How much longer than the shortest a round trip takes now.
    queue: Duration,
    /// Bytes sent and not acknowledged.
    in_flight: u32,
}

impl Path {
    fn of(stream: &TcpStream) -> io::Result<Path> {
        let info = info(stream)?;
        let micros = |at: usize| Duration::from_micros(info[at].into());
        Ok(Path {
            queue: micros(RTT).saturating_sub(micros(MIN_RTT)),
            in_flight: info[UNACKED].saturating_mul(info[SND_MSS]),
        })
    }
}

/// How long what is queued may take on a link of `uplink` bytes a second; 0 if that is not known.
fn queue_of(uplink: u64) -> Duration {
    let nanos = (QUEUED * 1_000_000_000).checked_div(uplink).unwrap_or(0);
    QUEUE.max(Duration::from_nanos(nanos)).min(QUEUE_MOST)
}

/// The buffer that follows `buffer`, so that what waits takes `allowed`: gentle steps, because the round
/// trip answers late.
fn resized(buffer: Option<u32>, path: &Path, allowed: Duration) -> Option<u32> {
    if path.queue > allowed {
        let now = buffer.unwrap_or(path.in_flight);
        Some((now / 4 * 3).max(LEAST))
    } else if path.queue < allowed / 2 {
        buffer.map(|now| (now / 4 * 5).min(MOST))
    } else {
        buffer
    }
}

/// Takes another congestion control than BBR, if that is this machine's.
///
/// BBR keeps a rate for each connection, and here the share of each changes with every piece: with
/// 16 clients on links of 50 Mbit/s it took 1.26 times the ideal time where reno took 1.12.
pub(super) fn choose_congestion(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Whatever cannot be known or changed stays as it is: slower, but right.
    let Ok(name) = socket.tcp_congestion() else { return };
    if name.starts_with(b"bbr") && socket.set_tcp_congestion(b"cubic").is_err() {
        // cubic may need a right (`net.ipv4.tcp_allowed_congestion_control`), reno never does.
        let _ = socket.set_tcp_congestion(b"reno");
    }
}

/// The first words of `struct tcp_info` (linux/tcp.h); there is one for each position below.
type Info = [u32; MIN_RTT + 1];

/// Asks for `TCP_INFO`.
#[allow(unsafe_code)] // getsockopt(2) takes a pointer, and no library that we have asks for this.
fn info(stream: &TcpStream) -> io::Result<Info> {
    let mut info: Info = [0; _];
    let mut len = size_of::<Info>() as libc::socklen_t;
    let (tcp, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the descriptor is open as long as `stream` is borrowed. The kernel writes at most `len`
    // bytes, all of which `info` has, and any bytes are valid words.
    let answer = unsafe {
        libc::getsockopt(stream.as_raw_fd(), tcp, name, info.as_mut_ptr().cast(), &raw mut len)
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < size_of::<Info>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(info)
}

/// `tcpi_snd_mss`, bytes; a position in [`Info`], as those below.
const SND_MSS: usize = 4;
/// `tcpi_unacked`, packets.
const UNACKED: usize = 6;
/// `tcpi_rtt`, microseconds, smoothed.
const RTT: usize = 17;
/// `tcpi_min_rtt`, microseconds, the shortest of the last minutes.
const MIN_RTT: usize = 37;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (here, listener.accept().unwrap().0)
    }

    #[test]
    fn the_buffer_follows_the_queue() {
        let path = |queue, in_flight| Path { queue: Duration::from_millis(queue), in_flight };
        let resized = |buffer, path: &Path| resized(buffer, path, QUEUE);
        assert_eq!(resized(None, &path(1, 1 << 20)), None, "no queue: the kernel chooses");
        assert_eq!(resized(None, &path(50, 64 << 10)), Some(48 << 10));
        assert_eq!(resized(Some(48 << 10), &path(50, 0)), Some(36 << 10));
        assert_eq!(resized(Some(LEAST), &path(50, 0)), Some(LEAST));
        assert_eq!(resized(Some(48 << 10), &path(8, 0)), Some(48 << 10), "as it should be");
        assert_eq!(resized(Some(48 << 10), &path(1, 0)), Some(60 << 10));
        assert_eq!(resized(Some(MOST), &path(1, 0)), Some(MOST));
    }

    #[test]
    fn a_slow_link_may_have_a_longer_queue() {
        let millis = |rate| queue_of(rate).as_millis();
        assert_eq!(millis(0), 10);
        assert_eq!(millis(125_000_000), 10);
        assert_eq!(millis(1_562_500), 41);
        assert_eq!(millis(1), 200);
    }

    #[test]
    fn the_kernel_says_what_is_on_the_way() {
        let (mut here, mut there) = pair();
        here.write_all(&[0; 4096]).unwrap();
        there.read_exact(&mut [0; 4096]).unwrap();
        let info = info(&here).unwrap();
        assert!((500..65536).contains(&info[SND_MSS]), "{info:?}");
        assert!((1..1_000_000).contains(&info[RTT]), "{info:?}");
        assert!((1..=info[RTT] * 8).contains(&info[MIN_RTT]), "{info:?}");
        assert_eq!(info[UNACKED], 0, "what was read was acknowledged: {info:?}");
    }

    #[test]
    fn bbr_is_not_used() {
        let (here, _there) = pair();
        choose_congestion(&here);
        let name = SockRef::from(&here).tcp_congestion().unwrap();
        assert!(!name.starts_with(b"bbr"), "{}", String::from_utf8_lossy(&name));
    }
}
