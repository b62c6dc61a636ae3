//! Several trackers of a torrent (BEP 12), of which some are down and come up, and others go.

use super::*;

/// A port where nobody listens, and the announce URL there.
fn nowhere() -> (SocketAddr, String) {
    let addr = SocketAddr::from(([127, 0, 0, 1], lab::free_port()));
    (addr, format!("http://{addr}/announce"))
}

/// Whether the tracker at `addr` tells others of a peer at `port`.
fn knows(addr: SocketAddr, port: u16) -> bool {
    let hash = "an%20info%20hash%2C%2020%20by.";
    let who = "peer_id=-XG0100-00000000000x&port=9&left=1&compact=0";
    let answer = http_get(addr, &format!("/announce?info_hash={hash}&{who}"));
    answer.contains(&format!("4:porti{port}e"))
}

/// Lets the node look for peers until it `is` so.
fn starve_until(node: &Node, what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + 2 * PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "not in {:?}: {what}", 2 * PATIENCE);
        node.control.starving(HASH);
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn who_has_answered_is_asked_first_and_who_is_gone_is_stood_in_for() {
    let (addr, down) = nowhere();
    let (up, questions) = scripted(vec![peer_at(7009), peer_at(7009)]);
    let node = Node::start(quiet(1));
    node.control.add(torrent(7001, 9, &[&[down, up]]));
    node.wait_for_peer(7009, Origin::Tracker);
    assert!(questions.recv_timeout(PATIENCE).unwrap().contains("&event=started"));
    // The other one comes up: one of ours.
    let http = Some(HttpConfig::new(vec![addr]));
    let other = Node::start(ControlConfig { http, ..quiet(2) });
    other.control.add(torrent(7002, 0, &[]));
    starve_until(&node, "it asks again who has answered", || questions.try_recv().is_ok());
    assert!(!knows(addr, 7001), "one that answers is enough");
    // Its script is over, and it is gone.
    starve_until(&node, "it asks the other", || knows(addr, 7001));
    node.wait_for_peer(7002, Origin::Tracker);
}

#[test]
fn a_private_torrent_is_announced_to_one_tracker_at_a_time() {
    let (first, first_questions) = scripted(vec![peer_at(7009)]);
    let (second, second_questions) = scripted(vec![peer_at(7010)]);
    let node = Node::start(quiet(1));
    let private = Torrent { local: false, ..torrent(7001, 9, &[&[first], &[second]]) };
    node.control.add(private);
    node.wait_for_peer(7009, Origin::Tracker);
    assert!(first_questions.recv_timeout(PATIENCE).is_ok());
    assert!(second_questions.try_recv().is_err(), "the first has answered");
    let mut question = String::new();
    starve_until(&node, "it goes on to the second", || {
        second_questions.try_recv().map(|asked| question = asked).is_ok()
    });
    assert!(question.contains("&event=started"), "{question}");
    node.wait_for_peer(7010, Origin::Tracker);
}
