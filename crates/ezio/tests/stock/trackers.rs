//! opentracker as the tracker of our own nodes: when it works, refuses, or is dead.

use crate::clients::{self, require_clients, text};
use crate::image::{Image, Pieces};
use socket2::{Domain, Protocol, Socket, Type};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// `ezio serve` and two `ezio deploy`s that have nothing but the torrent file.
fn check_swarm(image: &Image, torrent: &Path) {
    let _server = clients::serve(image, torrent);
    let targets = ["a.img", "b.img"].map(|name| image.target(name));
    let mut ours = targets.each_ref().map(|to| clients::deploy(text(torrent), to, &[]));
    ours.iter_mut().for_each(clients::wait_left);
    targets.iter().for_each(|target| image.check_target(target));
}

/// A private torrent (BEP 27) is not announced on the local network, so this is opentracker alone.
#[test]
fn opentracker_alone_brings_us_together() {
    require_clients!();
    let image = Image::private(Pieces::Small, 11);
    let tracker = clients::opentracker(&image, Some(&image.metainfo));
    check_swarm(&image, &image.torrent_with(&[&tracker.url]));
}

#[test]
fn nobody_is_found_without_tracker_and_local_network() {
    let image = Image::private(Pieces::Small, 12);
    let _server = clients::serve(&image, &image.torrent());
    let target = image.target("target.img");
    let mut deploy = clients::deploy(text(&image.torrent()), &target, &[]);
    let done = |line: &str| line.contains("\"result\"").then_some(());
    assert_eq!(deploy.wait_line_for(Duration::from_secs(3), done), None);
}

/// Debian's opentracker knows only what is on its whitelist.
#[test]
fn where_opentracker_refuses_the_local_network_does() {
    require_clients!();
    if !loopback_multicasts() {
        lab::skip!("no local discovery on lo: no multicasts there, or somebody keeps its port");
    }
    let image = Image::new(Pieces::Small, 13);
    let tracker = clients::opentracker(&image, None);
    check_swarm(&image, &image.torrent_with(&[&tracker.url]));
}

#[test]
fn where_opentracker_is_dead_the_local_network_does() {
    require_clients!();
    if !loopback_multicasts() {
        lab::skip!("no local discovery on lo: no multicasts there, or somebody keeps its port");
    }
    let image = Image::new(Pieces::Small, 14);
    let tracker = clients::opentracker(&image, Some(&image.metainfo)).url;
    check_swarm(&image, &image.torrent_with(&[&tracker]));
}

/// Without the local network, too, and the server's own tracker is only the second tier.
#[test]
fn where_opentracker_refuses_the_servers_own_tracker_does() {
    require_clients!();
    let image = Image::private(Pieces::Small, 15);
    let tracker = clients::opentracker(&image, None);
    let server = clients::serve(&image, &image.torrent());
    let torrent = image.torrent_with(&[&tracker.url, &server.tracker()]);
    let targets = ["a.img", "b.img"].map(|name| image.target(name));
    let mut ours = targets.each_ref().map(|to| clients::deploy(text(&torrent), to, &[]));
    ours.iter_mut().for_each(clients::wait_left);
    targets.iter().for_each(|target| image.check_target(target));
}

/// Whether announces of local discovery (BEP 14) come back on the loopback interface.
fn loopback_multicasts() -> bool {
    let (group, here) = (Ipv4Addr::new(239, 192, 152, 143), Ipv4Addr::LOCALHOST);
    let group_port = SocketAddr::from((group, 6771)).into();
    let attempt = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&group_port)?;
        socket.join_multicast_v4(&group, &here)?;
        socket.set_multicast_if_v4(&here)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to(b"?", &group_port)?;
        socket.recv(&mut [MaybeUninit::uninit(); 8])
    };
    attempt().is_ok()
}
