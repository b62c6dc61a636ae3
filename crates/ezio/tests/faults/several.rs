//! One deployment of two images: what becomes of one is not forgotten while the other goes on.

use crate::peer::{Conn, Skill, id};
use crate::process::{PATIENCE, Process, text};
use lab::free_port;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use swarm::metainfo::Digest;
use swarm::wire::Message;
use swarm::wire::extension::{Hello, Xg};

/// Bytes of an image, and where one of its pieces lies.
const LEN: usize = 4 << 20;
const PIECE: u32 = 5;
const AT: u64 = PIECE as u64 * (256 << 10) + 1234;

#[test]
fn a_target_that_rots_after_its_image_was_there_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (seed, name) in [(1, "good"), (2, "rotten")] {
        let mut bytes = vec![0; LEN];
        lab::Random::new(seed).fill(&mut bytes);
        std::fs::write(path(name), &bytes).unwrap();
    }
    let (good, rotten) = (path("good"), path("rotten"));
    let args = ["serve", text(&good), text(&rotten), "--http", "127.0.0.1:0", "--port", "0"];
    let server = Process::start(&args);
    let ready = server.event("its port", |event| event["http_port"].is_u64());
    // The second never gets whole: its source has changed.
    tip_over(&rotten);

    let (port, http) = (free_port().to_string(), &ready["http_port"]);
    let to = [("good", path("a")), ("rotten", path("b"))];
    let to = to.map(|(name, path)| format!("{name}={}", text(&path)));
    let url = format!("http://127.0.0.1:{http}");
    let state = path("state");
    let mut args = vec!["deploy", &url, "--port", &port, "--state", text(&state)];
    to.iter().for_each(|to| args.extend(["--to", to]));
    let mut client = Process::start(&args);
    let result = client.result();
    assert_eq!(result["target"], text(&path("a")));
    tip_over(&path("a"));
    let hash: Vec<u8> =
        result["info_hash"].as_str().unwrap().as_bytes().chunks(2).map(byte).collect();
    let mut conn = Conn::dial(port.parse().unwrap()).unwrap();
    conn.greet(Digest::try_from(hash).unwrap(), id(7), Skill::Extended).unwrap();
    conn.handshake().unwrap();
    conn.say(&Message::HaveNone).unwrap();
    conn.hello(&Hello { xg_id: Some(1), ..Hello::default() }).unwrap();
    conn.xg(Xg { wrong: Some(PIECE), ..Xg::default() }).unwrap();

    let failed = client.event("a failure", |event| event["event"] == "failed");
    assert_eq!(failed["target"], text(&path("a")));
    let error = failed["error"].as_str().unwrap_or_default();
    assert!(error.contains("piece 5, which was written, is not what was written"), "{error}");
    client.signal("TERM");
    assert_eq!(client.code(PATIENCE), Some(1));
}

fn tip_over(path: &std::path::Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, AT).unwrap();
    file.write_all_at(&[!byte[0]], AT).unwrap();
}

fn byte(digits: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
}
