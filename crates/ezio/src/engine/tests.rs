use super::*;
use crate::sha1::digest;
use crate::store::{DeviceStore, DeviceTarget};
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
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
    let (sender, notices) = channel();
    let config = EngineConfig {
        listen: vec![SocketAddr::from((LOOPBACK, 0))],
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
    loop {
        match notices.recv_timeout(Duration::from_secs(60)).expect("the node finishes in time") {
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
