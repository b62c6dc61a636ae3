//! Magnet links, which people paste: what was read can be written, and is then read as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm::magnet::Magnet;
use swarm::metainfo::Metainfo;

fuzz_target!(|data: &str| {
    let Ok(magnet) = Magnet::parse(data) else { return };
    assert!(Magnet::is_meant(data));
    assert_eq!(Magnet::parse(&magnet.to_string()).as_ref(), Ok(&magnet));
    assert!(magnet.peers.iter().all(|(host, port)| !host.is_empty() && *port != 0));
    // Whatever stands in it, what it is made into is read without panic, and is no torrent.
    assert!(Metainfo::parse(magnet.torrent(b"de")).is_err());
});
