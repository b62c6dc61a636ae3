//! `deploy` killed with SIGKILL at any point and started again: it goes on from what is on its disk,
//! and believes no state file.

use super::{LEN, PIECE_LEN, Process, Served, Target, ezio, image, text};
use lab::disk::Model;
use lab::{Running, TestDisk};
use std::path::Path;
use std::time::{Duration, Instant};

const PIECES: u64 = LEN as u64 / PIECE_LEN;

/// Pieces that may have been written since the state was: at 3 MB/s, two thirds of a second.
const SLACK: u64 = 8;

struct Victim {
    served: Served,
    target: Target,
    kills: u64,
}

impl Victim {
    fn new() -> Victim {
        let (dir, image) = image();
        let source = dir.path().join("disk.img");
        // Slow enough to hit what is meant.
        let args = [text(&source), "--limit", "3MB/s"];
        let (server, url) = Running::serve(ezio(), &args).unwrap();
        let served = Served { dir, image, server: Process::new(server), url };
        let target = Target::file(served.dir.path());
        Victim { served, target, kills: 0 }
    }

    fn start(&self) -> Process {
        let state = self.served.dir.path().join("state");
        let to = text(self.target.path());
        let args = ["deploy", &self.served.url, "--to", to, "--verify", "--state", text(&state)];
        Process::new(Running::start(ezio(), &args).unwrap())
    }

    /// Pieces on the disk that are right; of the first what is behind the head, which comes last.
    fn right(&self) -> u64 {
        let bytes = self.target.bytes();
        let same = |piece: &u64| {
            let start = (piece * PIECE_LEN).max(4096) as usize;
            let range = start..((piece + 1) * PIECE_LEN) as usize;
            bytes[range.clone()] == self.served.image[range]
        };
        (0..PIECES).filter(same).count() as u64
    }

    /// Kills `client` as soon as `now` says so; returns how many pieces are there then.
    #[track_caller]
    fn kill_when(&mut self, client: Process, now: impl Fn(&Victim) -> bool) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !now(self) {
            assert!(Instant::now() < deadline, "kill {}: it does not get there", self.kills);
            std::thread::sleep(Duration::from_millis(3));
        }
        client.running.signal("KILL").unwrap();
        assert_eq!(client.running.code().unwrap(), None, "kill {}: it ended before", self.kills);
        self.kills += 1;
        self.right()
    }

    /// How many pieces a client says it will look at.
    #[track_caller]
    fn looked_at(&self, client: &mut Process) -> u64 {
        let note = client.note("already: looking");
        let count = note.split("may hold ").nth(1).and_then(|rest| rest.split(' ').next());
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{note}"))
    }
}

#[test]
fn a_deployment_that_is_killed_anywhere_goes_on() {
    lab::require!(TestDisk::NEEDS);
    let mut victim = Victim::new();
    // Before anything is there, and as soon as something is.
    let client = victim.start();
    victim.kill_when(client, |_| true);
    let client = victim.start();
    let mut there = victim.kill_when(client, |victim| victim.target.disk.stats().written_bytes > 0);
    // All over the image, and when the last piece was written: before, in or after the flush.
    for goal in (2..PIECES).step_by(4).chain([PIECES]) {
        let mut client = victim.start();
        if there > SLACK {
            let looked_at = victim.looked_at(&mut client);
            assert!(looked_at + SLACK >= there, "{looked_at} looked at, {there} are there");
        }
        there = victim.kill_when(client, |victim| victim.right() >= goal);
    }
    // While it looks at what is there, and while it verifies what it has written.
    victim.target.disk.set_model(Model::Rate { bytes_per_s: 16_000_000 });
    for part in [0.25, 0.75, 1.25, 1.5, 1.75] {
        victim.target.disk.take_stats();
        let client = victim.start();
        let bytes = (LEN as f64 * part) as u64;
        there = victim.kill_when(client, |victim| victim.target.disk.stats().read_bytes >= bytes);
        assert_eq!(there, PIECES, "part {part}: {:?}", victim.target.disk.stats());
    }
    victim.target.disk.set_model(Model::Instant);
    assert!(victim.kills >= 20, "{} kills", victim.kills);

    let mut client = victim.start();
    assert_eq!(victim.looked_at(&mut client), PIECES);
    let result = client.running.result().unwrap();
    assert!(result["received_bytes"].as_u64() <= Some(PIECE_LEN), "{result}");
    client.ends_well_after_result();
    assert!(victim.target.bytes() == victim.served.image);
    assert!(!victim.served.dir.path().join("state").exists());
}

/// What it says is on the disk is hashed first, and what it does not say is fetched.
#[test]
fn a_state_that_lies_is_not_believed() {
    let served = Served::new();
    let (mut probe, _) = served.deploy_well("probe.img");
    let hash = probe.running.result().unwrap()["info_hash"].as_str().expect("a hash").to_owned();
    let (path, state) = (served.dir.path().join("copy.img"), served.dir.path().join("state"));
    let says = |hash: &str, target: &Path, have: &str| {
        let target = serde_json::json!({"info_hash": hash, "target": target, "have": have});
        serde_json::json!({"targets": [target]}).to_string()
    };
    let (all, other) = ("f".repeat(16), served.dir.path().join("other.img"));
    let truth = says(&hash, &path, &all);
    let lies = [
        ("of everything, on a disk with other bytes", truth.clone(), PIECES),
        ("of another disk", says(&hash, &other, &all), 0),
        ("of another torrent", says(&"7".repeat(40), &path, &all), 0),
        ("cut off", truth[..truth.len() / 2].to_owned(), 0),
        ("of more pieces than there are", says(&hash, &path, &"f".repeat(5000)), PIECES),
        ("of no digits", says(&hash, &path, "pieces, all of them"), 14),
        ("of fewer pieces than are there", says(&hash, &path, "8"), 1),
    ];
    for (lie, text_of_it, looked_at) in lies {
        std::fs::write(&path, vec![0xAA; LEN]).unwrap();
        if lie.contains("fewer") {
            std::fs::write(&path, &served.image).unwrap();
        }
        std::fs::write(&state, text_of_it).unwrap();
        let args = ["deploy", &served.url, "--to", text(&path), "--state", text(&state)];
        let args = [&args[..], &["--seed-for", "0"]].concat();
        let mut client = Process::new(Running::start(ezio(), &args).unwrap());
        let result = client.running.result().unwrap();
        assert_eq!(result["pieces_looked_at"], looked_at, "{lie}: {result}");
        client.ends_well_after_result();
        served.check(&path);
    }
}
