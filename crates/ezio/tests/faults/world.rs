//! A swarm under test: an image, somebody good who has it, and whoever the test brings in.

use crate::image::Image;
use crate::peer::{Conn, Listener};
use crate::process::{END_TIME_MAX, PATIENCE, Process, eventually, text};
use crate::tracker::{Tracker, peers_answer};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// An image, its tracker, and a good server that clients hear of only when the test says so.
pub(crate) struct World {
    pub(crate) image: Image,
    /// Tells clients of the peers of the test, and of the good server when it is shown.
    pub(crate) tracker: Tracker,
    pub(crate) server: Process,
    /// The good server's BitTorrent port.
    pub(crate) port: u16,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    shown: Arc<AtomicBool>,
    dir: TempDir,
}

impl World {
    /// An image of `len` bytes.
    pub(crate) fn new(len: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let (peers, shown, port) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<AtomicBool>::default(),
            Arc::<AtomicU16>::default(),
        );
        let (known, good, there) = (Arc::clone(&peers), Arc::clone(&shown), Arc::clone(&port));
        let tracker = Tracker::start(move |stream, announce| {
            let mut told = known.lock().unwrap().clone();
            if good.load(Ordering::Relaxed) {
                told.push(SocketAddr::from(([127, 0, 0, 1], there.load(Ordering::Relaxed))));
            }
            // Sources are told of nobody, so that it is the clients who dial.
            let told = if announce.left == Some(0) { &[][..] } else { &told };
            // They ask again as soon as they ever do.
            stream.write_all(&peers_answer(told, 5))
        });
        let image = Image::new(dir.path(), len, &[tracker.url()]);
        let (server, server_port) = serve(&image, "0");
        port.store(server_port, Ordering::Relaxed);
        World { image, tracker, server, port: server_port, peers, shown, dir }
    }

    /// Clients that announce from now on are told of these.
    pub(crate) fn peers(&self, peers: &[&Listener]) {
        self.addrs(peers.iter().map(|peer| peer.addr()).collect());
    }

    /// Clients that announce from now on are told of these addresses.
    pub(crate) fn addrs(&self, addrs: Vec<SocketAddr>) {
        *self.peers.lock().unwrap() = addrs;
    }

    /// Clients are told of the good server.
    pub(crate) fn show(&self) {
        self.shown.store(true, Ordering::Relaxed);
    }

    pub(crate) fn target(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("target{number}"))
    }

    /// Starts a client that writes [`target`](World::target) `number`.
    pub(crate) fn deploy(&self, number: u32) -> Process {
        deploy(&self.image, &self.target(number))
    }

    /// Waits until a client is done, and checks what it wrote and how it ended.
    #[track_caller]
    pub(crate) fn check_done(&self, client: &mut Process, number: u32) {
        client.result();
        assert_eq!(client.code(PATIENCE), Some(0));
        self.check_target(number);
        client.check_calm(NOTES_MAX);
    }

    #[track_caller]
    pub(crate) fn check_target(&self, number: u32) {
        let found = std::fs::read(self.target(number)).unwrap();
        assert!(found == *self.image.bytes, "target {number} is not the image");
    }

    /// Asks the good server to end and checks that it does so at once, having kept calm.
    #[track_caller]
    pub(crate) fn check_server(mut self) {
        self.server.signal("TERM");
        assert_eq!(self.server.code(END_TIME_MAX), Some(0), "{}", self.server.said());
        self.server.check_calm(NOTES_MAX);
    }
}

/// Lines a process may say in a test, besides its progress: its result, a tracker that is away and
/// comes back, a line about traffic now and then.
const NOTES_MAX: usize = 16;

/// Starts a server of `image` at a BitTorrent port; returns the port that it has.
pub(crate) fn serve(image: &Image, port: &str) -> (Process, u16) {
    let (torrent, from) = (text(&image.torrent), text(&image.path));
    let args = ["serve", torrent, "--from", from, "--http", "127.0.0.1:0", "--port", port];
    let server = Process::start(&args);
    let port = server.result()["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    (server, port.expect("a port"))
}

/// Starts a client that writes `image` to `target` and need not serve anybody when it is done.
pub(crate) fn deploy(image: &Image, target: &Path) -> Process {
    deploy_from(text(&image.torrent), target, &["--seed-for", "0"])
}

/// Starts a client; what it knows of its target is kept beside that.
pub(crate) fn deploy_from(from: &str, target: &Path, options: &[&str]) -> Process {
    let state = target.with_extension("state");
    let args = ["deploy", from, "--to", text(target), "--port", "0", "--state", text(&state)];
    Process::start(&[&args[..], options].concat())
}

/// How often something happened that a test waits for.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    /// Counts one more; returns how many there were before.
    pub(crate) fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    #[track_caller]
    pub(crate) fn wait(&self, times: usize) {
        let done = eventually(PATIENCE, || (self.get() >= times).then_some(()));
        assert!(done.is_some(), "it happened {} times and not {times}", self.get());
    }
}

/// A client meets a bad seeder, which counts its deeds, and after the first of them a good server.
/// It must get the image from the good one, and end well.
#[track_caller]
pub(crate) fn check(
    script: impl Fn(Conn, &Image, &Count) -> io::Result<()> + Send + Sync + 'static,
) {
    let world = World::new(LEN);
    let (image, deeds) = (world.image.clone(), Count::default());
    let counted = deeds.clone();
    let bad = Listener::start(move |conn| script(conn, &image, &counted));
    world.peers(&[&bad]);
    let mut client = world.deploy(0);
    deeds.wait(1);
    world.show();
    world.check_done(&mut client, 0);
    world.check_server();
}

/// Bytes of the image: many pieces, the last of them short.
pub(crate) const LEN: usize = 40 * 65536 + 5000;

/// Keeps a connection open without a word until the other side closes it, or for a while.
pub(crate) fn linger(mut conn: Conn) -> io::Result<()> {
    conn.stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    conn.wait_for_end()
}
