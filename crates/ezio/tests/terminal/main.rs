//! What people see of the program: on a real terminal (a pseudo-terminal of the kernel's), in a pipe, in
//! a log.

#[expect(dead_code, reason = "shared with the tests of the dashboard")]
#[path = "../dashboard/browser.rs"]
mod browser;
#[expect(dead_code, reason = "shared with the tests of the dashboard")]
#[path = "../dashboard/room.rs"]
mod room;

mod doctor;
mod errors;
mod logs;
mod progress;
mod pty;
mod watch;

use lab::Running;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program under test.
fn ezio() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ezio"))
}

/// What no step of a test takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Peers on loopback only, at any port.
const ALONE: [&str; 4] = ["--port", "0", "--peers", "127.0.0.0/8"];

/// A directory with an image of `len` bytes, none of them zero.
fn image(len: usize) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("classroom");
    let bytes: Vec<u8> = (0..len).map(|at| (at * 31 + at / 4096) as u8 | 1).collect();
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// A server of that image.
fn serve(path: &Path, options: &[&str]) -> (Running, String) {
    let path = path.to_str().unwrap();
    Running::serve(ezio(), &[&[path, "--raw"], options].concat()).unwrap()
}

/// Runs to the end, without a terminal.
fn run(args: &[&str]) -> Output {
    let mut command = Command::new(ezio());
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Looks some times a second until it is so.
#[track_caller]
fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
