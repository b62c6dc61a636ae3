use super::*;
use crate::sha1::digest;
use crate::store::{DeviceStore, DeviceTarget};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Condvar;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use swarm::layout::{Extent, Layout};
use swarm::metainfo::Draft;

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

/// Five extents of a device of 8 MiB, and the bytes of that device.
fn image(piece_len: u32) -> (Arc<Metainfo>, Vec<u8>) {
    let extents = [(0, 5000), (8192, 1 << 20), (2 << 20, 3 << 20), (6 << 20, 7), (7 << 20, 12345)];
    let extents = extents.map(|(offset, len)| Extent { offset, len }).to_vec();
    let layout = Layout::new(extents).unwrap();
    let mut device = vec![0; 8 << 20];
    lab::Random::new(7).fill(&mut device);
    let bytes: Vec<u8> = layout
        .extents()
        .iter()
        .flat_map(|e| device[e.offset as usize..e.end() as usize].to_vec())
        .collect();
    let hashes: Vec<Digest> = bytes.chunks(piece_len as usize).map(digest).collect();
    let draft = Draft {
        name: &["sda1"],
        layout: &layout,
        piece_len,
        hashes: &hashes,
        trackers: &[],
        created_by: None,
        creation_date: None,
        origin: None,
    };
    (Arc::new(Metainfo::parse(draft.encode()).unwrap()), device)
}

fn node() -> (Engine, Receiver<Notice>) {
    node_at(SocketAddr::from((LOOPBACK, 0)))
}

fn node_at(listen: SocketAddr) -> (Engine, Receiver<Notice>) {
    let (sender, notices) = channel();
    let config = EngineConfig {
        listen: vec![listen],
        budget: 64 << 20,
        networks: Networks::default(),
        limit: None,
    };
    let engine = Engine::start(&config, move |notice| drop(sender.send(notice))).unwrap();
    (engine, notices)
}

fn target(metainfo: &Arc<Metainfo>, path: &Path) -> Job {
    std::fs::write(path, vec![0xee; 8 << 20]).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let layout = Arc::new(metainfo.layout().clone());
    let target = Arc::new(DeviceTarget::new(file, path, layout));
    Job { metainfo: Arc::clone(metainfo), content: Content::Target { target, check: Vec::new() } }
}

fn source(metainfo: &Arc<Metainfo>, path: &Path) -> Job {
    let store = DeviceStore::open(path, Arc::new(metainfo.layout().clone())).unwrap();
    Job { metainfo: Arc::clone(metainfo), content: Content::Source(Arc::new(store)) }
}

#[track_caller]
fn wait_finished(notices: &Receiver<Notice>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match notices.recv_timeout(left).expect("the node finishes in time") {
            Notice::Finished(_) => return,
            Notice::MorePeers(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[track_caller]
fn check_target(metainfo: &Metainfo, path: &Path, device: &[u8]) {
    let mut wanted = vec![0xee; 8 << 20];
    for e in metainfo.layout().extents() {
        let range = e.offset as usize..e.end() as usize;
        wanted[range.clone()].copy_from_slice(&device[range]);
    }
    assert!(std::fs::read(path).unwrap() == wanted, "{} is not the image", path.display());
}

#[test]
fn targets_get_the_image_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (metainfo, device) = image(64 << 10);
    let path = dir.path().join("source");
    std::fs::write(&path, &device).unwrap();
    let (seeder, _notices) = node();
    seeder.add(source(&metainfo, &path)).unwrap();
    let nodes: Vec<_> = (0..3).map(|_| node()).collect();
    let addrs: Vec<SocketAddr> =
        nodes.iter().chain([&(seeder, _notices)]).map(|(n, _)| n.listening()[0]).collect();
    for (index, (node, _)) in nodes.iter().enumerate() {
        node.add(target(&metainfo, &dir.path().join(index.to_string()))).unwrap();
        addrs.iter().for_each(|&addr| node.found(metainfo.info_hash(), addr));
    }
    nodes.iter().for_each(|(_, notices)| wait_finished(notices));
    for index in 0..nodes.len() {
        check_target(&metainfo, &dir.path().join(index.to_string()), &device);
    }
    nodes.into_iter().for_each(|(node, _)| node.stop());
}

/// Two connections to one seeder become one, not necessarily the one we dialled. When it ends, the
/// address is dialled again all the same.
#[test]
fn a_seeder_that_had_dialled_us_is_dialled_after_it_was_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let (metainfo, device) = image(64 << 10);
    let (path, copy) = (dir.path().join("source"), dir.path().join("copy"));
    std::fs::write(&path, &device).unwrap();
    let (client, notices) = node();
    // It makes the connection that is kept.
    let seeder = std::iter::repeat_with(node).map(|(seeder, _)| seeder);
    let seeder = seeder.into_iter().find(|s| s.peer_id() > client.peer_id()).unwrap();
    client.add(target(&metainfo, &copy)).unwrap();
    // The seeder has nothing to give yet, so nothing can be finished before it is restarted.
    let empty = dir.path().join("empty");
    seeder.add(target(&metainfo, &empty)).unwrap();
    seeder.found(metainfo.info_hash(), client.listening()[0]);
    let connected = || client.status().torrents.iter().any(|torrent| torrent.peers == 1);
    wait_until(connected);
    let addr = seeder.listening()[0];
    client.found(metainfo.info_hash(), addr);
    // The second connection is made and ended meanwhile; there is nothing to see of it.
    std::thread::sleep(Duration::from_secs(1));
    seeder.stop();
    // With it goes its port.
    drop(seeder);
    let (seeder, _notices) = node_at(addr);
    seeder.add(source(&metainfo, &path)).unwrap();
    wait_finished(&notices);
    check_target(&metainfo, &copy, &device);
}

#[track_caller]
fn wait_until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "it does not come to that");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A grant whose bytes were served before they were asked for never ended: its slot was lost until
/// the stall of ten seconds, and with all slots the whole swarm stood still.
#[test]
fn the_scheduler_hears_of_a_request_before_it_is_served() {
    const REQUESTS: u32 = 2000;
    let (dir, shared) = (tempfile::tempdir().unwrap(), shared());
    let (link, mut peer) = link_of_a_source(64 << 10, dir.path());
    link.with_outbox(|outbox| outbox.allow(u64::MAX));
    let pool = Arc::new(pieces::Pool::new(1 << 20));
    let (inputs, receiver) = inputs::channel(REQUESTS as usize + 10);
    thread::scope(|scope| {
        scope.spawn(|| reader::run(&link, &pool, &inputs, &shared));
        let mut bytes = Vec::new();
        for _ in 0..REQUESTS {
            let block = Block { piece: 0, begin: 0, len: 16 << 10 };
            swarm::wire::Message::Request(block).encode(&mut bytes);
        }
        let (mut heard, mut served, mut unheard) = (0, 0, 0);
        for request in bytes.chunks(bytes.len() / REQUESTS as usize) {
            peer.write_all(request).unwrap();
            let mut outbox = link.wait(Duration::from_secs(60)).expect("it is open");
            while let Some(run) = outbox.take(u32::MAX, |_| true) {
                served += u64::from(run.len);
            }
            drop(outbox);
            heard += receiver.try_iter().map(|waiting| requested(&waiting.input)).sum::<u64>();
            unheard += u32::from(heard < served);
        }
        // First: a reader that goes on would keep a failed test from ending.
        link.close();
        assert_eq!((served, unheard), (u64::from(REQUESTS) * (16 << 10), 0));
    });
}

/// What a connection's threads share in a node without torrents.
fn shared() -> Shared {
    Shared {
        peer_id: [0; 20],
        torrents: RwLock::default(),
        limits: Limits::new(None),
        links: AtomicUsize::new(0),
        uplink: AtomicU64::new(0),
    }
}

/// A connection without threads, of a node that has the whole image; and the peer's end of it.
fn link_of_a_source(piece_len: u32, dir: &Path) -> (Arc<link::Link>, TcpStream) {
    let (metainfo, device) = image(piece_len);
    let path = dir.join("source");
    std::fs::write(&path, &device).unwrap();
    let Content::Source(store) = source(&metainfo, &path).content else { panic!("a source") };
    let carried = Arc::new(Carried {
        id: TorrentId(0),
        have: Have::new(metainfo.piece_count(), true),
        metainfo,
        store,
        target: None,
        memory: Memory::default(),
        arriving: Arriving::default(),
        checking: AtomicU32::new(0),
        received: AtomicU64::new(0),
        sent: AtomicU64::new(0),
    });
    let listener = std::net::TcpListener::bind(SocketAddr::from((LOOPBACK, 0))).unwrap();
    let addr = listener.local_addr().unwrap();
    let peer = TcpStream::connect(addr).unwrap();
    let (stream, _) = listener.accept().unwrap();
    (Arc::new(link::Link::new(PeerId(0), carried, stream, addr, [0; 20], true)), peer)
}

/// Whoever looks at what a source sent would see less than its peers received.
#[test]
fn what_a_peer_took_before_it_left_is_counted() {
    const LEN: u32 = 1 << 20;
    // Of one file, and of two extents.
    for piece in [2, 0] {
        let (dir, shared) = (tempfile::tempdir().unwrap(), shared());
        let (link, mut peer) = link_of_a_source(LEN, dir.path());
        // The sockets never take the whole block: with all of it handed over the writer would wait until
        // it is time for a keep-alive, which it was seen to do.
        socket2::SockRef::from(&link.stream).set_send_buffer_size(16 << 10).unwrap();
        socket2::SockRef::from(&peer).set_recv_buffer_size(16 << 10).unwrap();
        link.with_outbox(|outbox| {
            outbox.allow(u64::MAX);
            outbox.request(Block { piece, begin: 0, len: LEN }).unwrap();
        });
        let (inputs, _receiver) = inputs::channel(10);
        thread::scope(|scope| {
            scope.spawn(|| writer::run(&link, &inputs, &shared));
            let mut taken = vec![0; 13 + LEN as usize / 2];
            peer.read_exact(&mut taken).unwrap();
            // It has unread bytes: the other end is told at once that nobody takes them.
            drop(peer);
        });
        let sent = link.sent.load(Ordering::Relaxed);
        assert!((u64::from(LEN / 2)..=LEN.into()).contains(&sent), "piece {piece}: {sent}");
        assert_eq!(link.torrent.sent.load(Ordering::Relaxed), sent);
    }
}

fn requested(input: &Input) -> u64 {
    match input {
        Input::Event(Event::Requested(_, _, bytes)) => *bytes,
        _ => 0,
    }
}

#[test]
fn a_torrent_is_paused_resumed_removed_and_carried_again() {
    let (metainfo, device) = image(256 << 10);
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, &device).unwrap();
    let ((seeder, _), (leecher, notices)) = (node(), node());
    let hash = metainfo.info_hash();
    seeder.add(source(&metainfo, &from)).unwrap();
    leecher.add(target(&metainfo, &to)).unwrap();
    leecher.pause(hash, true);
    leecher.found(hash, seeder.listening()[0]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while leecher.status().torrents.first().is_none_or(|torrent| torrent.peers == 0) {
        assert!(Instant::now() < deadline, "they do not meet");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Not paused it would be whole by now: the image has 4 MiB.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(leecher.status().torrents[0].received, 0);
    leecher.pause(hash, false);
    wait_finished(&notices);
    let finished = &leecher.status().torrents[0];
    assert_eq!(finished.stored_bytes(), finished.image_len);
    assert!(finished.received >= finished.image_len);
    leecher.remove(hash).wait();
    assert_eq!(leecher.have(&hash), None);
    leecher.add(target(&metainfo, &to)).unwrap();
    leecher.found(hash, seeder.listening()[0]);
    wait_finished(&notices);
    for engine in [seeder, leecher] {
        engine.stop();
    }
}

#[test]
fn two_nodes_meet_only_because_a_third_knows_both() {
    let dir = tempfile::tempdir().unwrap();
    let (metainfo, device) = image(64 << 10);
    let path = dir.path().join("source");
    std::fs::write(&path, &device).unwrap();
    let [(seeder, _seeder_notices), (hub, hub_notices), (leaf, leaf_notices)] =
        [node(), node(), node()];
    seeder.add(source(&metainfo, &path)).unwrap();
    hub.add(target(&metainfo, &dir.path().join("hub"))).unwrap();
    leaf.add(target(&metainfo, &dir.path().join("leaf"))).unwrap();
    // The seeder dials nobody of itself, and nobody else is told where it is.
    hub.found(metainfo.info_hash(), seeder.listening()[0]);
    leaf.found(metainfo.info_hash(), hub.listening()[0]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while seeder.status().torrents.first().is_none_or(|torrent| torrent.peers < 2) {
        assert!(Instant::now() < deadline, "the seeder and the leaf have not met");
        std::thread::sleep(Duration::from_millis(50));
    }
    wait_finished(&hub_notices);
    wait_finished(&leaf_notices);
    check_target(&metainfo, &dir.path().join("leaf"), &device);
    [seeder, hub, leaf].iter().for_each(Engine::stop);
}

/// A target that cannot be looked at, in a way that nobody has thought of.
struct Broken;

impl Store for Broken {
    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), StoreError> {
        panic!("nobody has thought of this")
    }
}

impl Target for Broken {
    fn write(&self, _: u64, _: &[&[u8]]) -> Result<(), StoreError> {
        Ok(())
    }

    fn finish(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn drop_cache(&self) {}

    fn expect_content(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What this test runs in a process of its own.
const LOOKS: &str = "EZIO_TEST_LOOKS_AT_A_BROKEN_TARGET";

#[test]
fn a_panic_while_a_target_is_looked_at_ends_the_process() {
    if std::env::var_os(LOOKS).is_some() {
        let (metainfo, _) = image(256 << 10);
        let check = (0..metainfo.piece_count()).collect();
        let (node, _notices) = node();
        let content = Content::Target { target: Arc::new(Broken), check };
        node.add(Job { metainfo, content }).unwrap();
        // As long as a node that hangs would have it.
        std::thread::sleep(Duration::from_secs(20));
        return;
    }
    let name = "a_panic_while_a_target_is_looked_at_ends_the_process";
    let said = crate::panics::tests::end_of(name, LOOKS);
    assert!(said.contains("nobody has thought of this"), "{said}");
}

/// What this test runs in a process of its own.
const DESCRIPTORS: &str = "EZIO_TEST_HAS_NO_FILE_DESCRIPTORS";

/// It took a core for as long as there were none.
#[test]
fn who_comes_while_there_are_no_file_descriptors_waits_and_costs_nothing() {
    let name = "who_comes_while_there_are_no_file_descriptors_waits_and_costs_nothing";
    if std::env::var_os(DESCRIPTORS).is_none() {
        let output = crate::panics::tests::alone(name, DESCRIPTORS);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = crate::logs::LogArgs { file: Some(dir.path().join("log")), ..Default::default() };
    crate::logs::start(&log, crate::logs::Level::Warn).unwrap();
    let (metainfo, device) = image(256 << 10);
    std::fs::write(dir.path().join("source"), device).unwrap();
    let (node, _notices) = node();
    node.add(source(&metainfo, &dir.path().join("source"))).unwrap();
    // It connects without a descriptor that is not there.
    let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let stat = File::open("/proc/self/stat").unwrap();
    let all = take_all_descriptors();
    let before = cpu_ticks(&stat);
    peer.connect(&node.listening()[0].into()).unwrap();
    thread::sleep(Duration::from_secs(1));
    let spent = cpu_ticks(&stat) - before;
    drop(all);
    let mut peer = TcpStream::from(peer);
    peer.write_all(&Handshake::new(metainfo.info_hash(), [7; 20]).encode()).unwrap();
    peer.read_exact(&mut [0; swarm::wire::HANDSHAKE_LEN]).expect("it is served afterwards");
    assert!(spent < 20, "it was busy for {spent} hundredths of a second");
    crate::logs::flush();
    let lines = std::fs::read_to_string(log.file.unwrap()).unwrap();
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("Too many open files"), "{lines}");
}

fn take_all_descriptors() -> Vec<File> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).unwrap();
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Ticks of 10 ms that this process has spent on processors: it reads its own line of `/proc`.
fn cpu_ticks(stat: &File) -> u64 {
    let mut line = [0; 1024];
    let len = std::os::unix::fs::FileExt::read_at(stat, &mut line, 0).unwrap();
    let (_, fields) = str::from_utf8(&line[..len]).unwrap().rsplit_once(") ").unwrap();
    // In user mode and for it, the 14th and 15th of all fields.
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    ticks.sum()
}

/// A target whose first writes take as long as the test likes.
struct Slow {
    gate: Mutex<bool>,
    opened: Condvar,
    writes: AtomicUsize,
}

impl Slow {
    fn open(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Store for Slow {
    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), StoreError> {
        unreachable!("nobody asks for what is in memory")
    }
}

impl Target for Slow {
    fn write(&self, _: u64, _: &[&[u8]]) -> Result<(), StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        drop(self.opened.wait_while(self.gate.lock().unwrap(), |open| !*open).unwrap());
        Ok(())
    }

    fn finish(&self) -> Result<(), StoreError> {
        unreachable!("it was removed before")
    }

    fn drop_cache(&self) {}

    fn expect_content(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn a_target_that_was_given_back_is_not_written_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (metainfo, device) = image(256 << 10);
    let (from, hash) = (dir.path().join("from"), metainfo.info_hash());
    std::fs::write(&from, &device).unwrap();
    let (seeder, _notices) = node();
    seeder.add(source(&metainfo, &from)).unwrap();
    let (leecher, _notices) = node();
    let slow = Arc::new(Slow {
        gate: Mutex::default(),
        opened: Condvar::new(),
        writes: AtomicUsize::new(0),
    });
    let target = Arc::clone(&slow) as Arc<dyn Target>;
    let content = Content::Target { target, check: Vec::new() };
    leecher.add(Job { metainfo: Arc::clone(&metainfo), content }).unwrap();
    leecher.found(hash, seeder.listening()[0]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let all =
        |status: &Status| status.torrents.iter().all(|t| t.verified == metainfo.piece_count());
    while slow.writes.load(Ordering::Relaxed) < 2 || !all(&leecher.status()) {
        assert!(Instant::now() < deadline, "{:?}", leecher.status());
        thread::sleep(Duration::from_millis(20));
    }
    let removed = leecher.remove(hash);
    let (sender, over) = channel();
    thread::spawn(move || {
        removed.wait();
        let _ = sender.send(());
    });
    assert!(over.recv_timeout(Duration::from_millis(300)).is_err(), "two writes are on their way");
    slow.open();
    over.recv_timeout(Duration::from_secs(60)).expect("they are over");
    leecher.stop();
    assert_eq!(slow.writes.load(Ordering::Relaxed), 2, "others waited, and were written");
    seeder.stop();
}
