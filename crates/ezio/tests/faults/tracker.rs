//! A tracker led by hand: it answers each announce with what the test says, however wrong.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use swarm::tracker::{Announce, Event};

/// A small HTTP server.
pub(crate) struct Tracker {
    addr: SocketAddr,
    heard: Arc<Heard>,
    over: Arc<AtomicBool>,
}

#[derive(Default)]
struct Heard {
    announces: Mutex<Vec<Announce>>,
    changed: Condvar,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Vec<Announce>> {
        self.announces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracker {
    /// `answer` is called for each request, on a thread of its own, with the announce that it is.
    /// What it returns closes the connection.
    pub(crate) fn start(
        answer: impl Fn(&mut TcpStream, &Announce) -> io::Result<()> + Send + Sync + 'static,
    ) -> Tracker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (heard, over) = (Arc::<Heard>::default(), Arc::<AtomicBool>::default());
        let (answer, keep, end) = (Arc::new(answer), Arc::clone(&heard), Arc::clone(&over));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (answer, keep) = (Arc::clone(&answer), Arc::clone(&keep));
                thread::spawn(move || serve(stream, &keep, &*answer));
            }
        });
        Tracker { addr, heard, over }
    }

    /// One that tells everybody the same peers.
    pub(crate) fn of(peers: Vec<SocketAddr>) -> Tracker {
        Tracker::start(move |stream, _| stream.write_all(&peers_answer(&peers, 1800)))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/announce", self.addr)
    }

    /// Waits for an announce that `wanted` takes.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&Announce) -> bool) -> Announce {
        let none = |list: &mut Vec<Announce>| !list.iter().any(&wanted);
        let (list, _) = self
            .heard
            .changed
            .wait_timeout_while(self.heard.lock(), crate::process::PATIENCE, none)
            .unwrap_or_else(PoisonError::into_inner);
        let found = list.iter().find(|announce| wanted(announce)).cloned();
        found.unwrap_or_else(|| panic!("no {what} among {list:?}"))
    }

    /// The port of somebody who lacks something.
    #[track_caller]
    pub(crate) fn client(&self) -> u16 {
        self.wait("client", |announce| announce.left != Some(0)).port
    }

    /// The port of who lacked something last.
    pub(crate) fn last_port(&self) -> u16 {
        let list = self.heard.lock();
        let found = list.iter().rev().find(|announce| announce.left != Some(0));
        found.expect("somebody announced").port
    }

    /// Whether the peer at `port` has said goodbye.
    pub(crate) fn has_left(&self, port: u16) -> bool {
        self.heard.lock().iter().any(|a| a.port == port && a.event == Event::Stopped)
    }

    /// How many announces there were of somebody who lacks something.
    pub(crate) fn asked(&self) -> usize {
        self.heard.lock().iter().filter(|announce| announce.left != Some(0)).count()
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread, so that the port is free again.
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(
    mut stream: TcpStream,
    heard: &Heard,
    answer: &dyn Fn(&mut TcpStream, &Announce) -> io::Result<()>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut head = Vec::new();
    let mut bytes = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&bytes[..len]);
    }
    let line = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    let query = line.split(|&byte| byte == b'?').nth(1).unwrap_or_default();
    let announce = Announce::parse(query).map_err(io::Error::other)?;
    heard.lock().push(announce.clone());
    heard.changed.notify_all();
    answer(&mut stream, &announce)
}

/// A whole HTTP answer that succeeds.
pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An answer with IPv4 peers as BEP 23 wants them.
pub(crate) fn peers_answer(peers: &[SocketAddr], interval: i64) -> Vec<u8> {
    let bytes: Vec<u8> = peers
        .iter()
        .flat_map(|peer| {
            let IpAddr::V4(ip) = peer.ip() else { panic!("{peer} is not IPv4") };
            [&ip.octets()[..], &peer.port().to_be_bytes()].concat()
        })
        .collect();
    let head = format!("d8:intervali{interval}e5:peers{}:", bytes.len());
    ok(&[head.as_bytes(), &bytes, b"e"].concat())
}
