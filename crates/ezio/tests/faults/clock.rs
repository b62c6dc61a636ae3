//! A clock that is moved by hours and years while machines deploy: by somebody who sets it, or by a
//! time server on a machine whose battery is empty.
//!
//! Debian's `faketime` stands between a process and its C library's clocks; `CLOCK_MONOTONIC` stays
//! what it is, as it does when a real clock is set.

use crate::image::Image;
use crate::process::{END_TIME_MAX, PATIENCE, Process, eventually, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes of the image: at [`LIMIT`] long enough to do all this meanwhile.
const LEN: usize = 16 << 20;
const LIMIT: &str = "2MB/s";

/// A machine's clock.
struct Clock {
    library: PathBuf,
    /// What is read at each look at the clock.
    file: PathBuf,
}

impl Clock {
    /// A clock that goes `offset` wrong; `None` if this machine cannot have one.
    fn new(dir: &Path, name: &str, offset: &str) -> Option<Clock> {
        let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
        let library = |place| format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1").into();
        let library = places.map(library).into_iter().find(|path: &PathBuf| path.exists())?;
        let clock = Clock { library, file: dir.join(name) };
        clock.set(offset);
        Some(clock)
    }

    /// Moves it: `+7h`, `-400d` from the right time.
    fn set(&self, offset: &str) {
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, offset).unwrap();
        std::fs::rename(&beside, &self.file).unwrap();
    }

    /// Starts `ezio` on a machine with this clock.
    fn start(&self, args: &[&str]) -> Process {
        let env = [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file)),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        Process::start_in(&env, args)
    }
}

/// Removes what the library leaves in shared memory when its process is killed.
fn clean_up_after(process: u32) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        let _ = std::fs::remove_file(format!("/dev/shm/{name}{process}"));
    }
}

/// Waits until a client has written `bytes`.
#[track_caller]
fn wait_for(client: &Process, bytes: u64) {
    client.event("progress", |event| {
        assert_ne!(event["event"], "result", "it was too fast for this test");
        event["bytes"].as_u64().is_some_and(|written| written >= bytes)
    });
}

/// The clock of a machine as the server hears of it: its report names the time of its start.
#[track_caller]
fn hours_wrong(url: &str) -> i64 {
    let report = eventually(PATIENCE, || {
        let status = ezio::control::fetch(&format!("{url}/api/status"), 1 << 20).ok()?;
        let status: Value = serde_json::from_slice(&status).ok()?;
        Some(status["nodes"][0]["report"]["run"].as_str()?.to_owned())
    });
    let report = report.expect("the machine reports");
    let (_, millis) = report.rsplit_once('-').expect("a process and a time");
    let told: u64 = millis.parse().unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    (told as i64 / 1000 - now as i64) / 3600
}

#[test]
fn clocks_that_are_moved_by_hours_and_years_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(there) = Clock::new(dir.path(), "server", "+0") else {
        lab::skip!("no libfaketime (Debian: faketime)");
    };
    let here = Clock::new(dir.path(), "client", "-9d").unwrap();
    let image = Image::new(dir.path(), LEN, &[]);
    let (torrent, from) = (text(&image.torrent), text(&image.path));
    let args = ["serve", torrent, "--from", from, "--http", "127.0.0.1:0", "--port", "0"];
    let mut server = there.start(&args);
    let url = format!("http://127.0.0.1:{}", server.result()["http_port"]);
    let (target, state) = (dir.path().join("target"), dir.path().join("state"));
    let (target, state) = (text(&target), text(&state));
    let args = ["deploy", &url, "--to", target, "--state", state, "--port", "0", "--limit", LIMIT];

    let mut client = here.start(&args);
    wait_for(&client, 1);
    assert_eq!(hours_wrong(&url), -9 * 24, "the program does not see this clock");
    there.set("+7h");
    here.set("+400d");
    wait_for(&client, LEN as u64 / 4);
    there.set("-30h");
    here.set("-20000d");
    wait_for(&client, LEN as u64 / 2);
    // After a restart it is another day again; the state file is of a day that is yet to come.
    client.signal("KILL");
    assert_eq!(client.code(END_TIME_MAX), None);
    clean_up_after(client.id());
    here.set("-20001d");
    let mut client = here.start(&args);
    client.note("pieces already: looking");
    there.set("+1y");
    let result = client.result();
    let seconds = result["seconds"].as_f64().unwrap();
    assert!((0.0..PATIENCE.as_secs_f64()).contains(&seconds), "{result}");
    assert!(std::fs::read(target).unwrap() == *image.bytes, "the target is not the image");
    here.set("+2y");
    assert_eq!(client.code(Duration::from_secs(60)), Some(0));
    client.check_calm(10);
    server.signal("TERM");
    assert_eq!(server.code(END_TIME_MAX), Some(0), "{}", server.said());
    server.check_calm(10);
}
