//! Errors that say what to do next: each is made to happen, and its words are read.

use super::pty::{Terminal, plain};
use super::{ezio, image, run, serve, text};
use lab::{LoopDevice, LoopOptions, Need};
use std::process::Command;

/// Runs to its failure; what stands on the standard error.
#[track_caller]
fn fails(args: &[&str], words: &[&str]) {
    let output = run(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(said.starts_with("ezio: ") && said.lines().count() == 1, "{args:?}: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
}

#[test]
fn servers_that_cannot_be_reached() {
    let to = "--to=/tmp/never-made";
    fails(
        &["deploy", "http://127.0.0.1:1", to],
        &["refused", "start `ezio serve` on that machine"],
    );
    fails(&["deploy", "http://no-such-host.invalid:6969", to], &["look up no-such-host", "DNS"]);
    fails(&["deploy", "127.0.0.1:6969", to], &["write http://127.0.0.1:6969"]);
    fails(&["deploy", "no.torrent", to], &["FROM is a torrent, its URL, or http://SERVER:6969"]);
    fails(&["watch", "nothing"], &["as http://SERVER:6969, nor a daemon, as 127.0.0.1:50051"]);
}

/// In a pipe it is an argument of 1.x that makes no sense, with the help of 1.x.
#[test]
fn commands_that_are_mistyped() {
    for args in [&["sevre"][..], &["sevre", "/dev/sda1"]] {
        let mut terminal = Terminal::start(args, (80, 24), &[]);
        assert_eq!(terminal.end().code(), Some(2));
        let said = plain(&terminal.output());
        assert!(said.contains("a similar subcommand exists: 'serve'"), "{said}");
        assert!(!said.contains("Allowed Options"), "{said}");
    }
    fails(&["sevre"], &["`sevre` is neither a command nor has it a PATH behind it", "ezio --help"]);
}

#[test]
fn ports_that_are_taken() {
    let (_dir, path) = image(1 << 20);
    let path = path.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let (addr, port) = (addr.to_string(), addr.port().to_string());
    let serve = ["serve", path, "--raw", "-q", "--interface", "127.0.0.1"];
    let http = [&serve[..], &["--port", "0", "--http", &addr]].concat();
    fails(&http, &["in use", "ss -ltnp | grep :", "--http ADDR"]);
    let peers = [&serve[..], &["--http", "127.0.0.1:0", "--port", &port]].concat();
    fails(&peers, &["in use", "ss -ltnp | grep :", "--port"]);
}

#[test]
fn disks_that_cannot_be_used() {
    let (dir, path) = image(1 << 20);
    let (_server, url) = serve(&path, &[]);
    let out = dir.path().join("x.torrent").display().to_string();
    for device in ["/dev/no-such-disk", "/dev/no/such"] {
        fails(&["deploy", &url, "--to", device], &[device, "`lsblk` lists the disks"]);
        fails(&["capture", device, "-o", &out], &[device, "`lsblk` lists the disks"]);
        fails(&["serve", device, "--http", "127.0.0.1:0"], &[device, "`lsblk` lists the disks"]);
    }
    let image = path.to_str().unwrap();
    fails(&["capture", image, "--raw", "-o", "/no/such/dir/x"], &["directory", "make it first"]);
    fails(&["deploy", &url, "--to", "/dev/null"], &["character device", "give a block device"]);
    lab::require!([Need::Root, Need::Loop, Need::Program("setpriv")]);
    let small = dir.path().join("small");
    std::fs::File::create(&small).unwrap().set_len(512 << 10).unwrap();
    let small = LoopDevice::attach(&small, LoopOptions::default()).unwrap();
    let small = small.path().to_str().unwrap();
    fails(&["deploy", &url, "--to", small], &["the image needs 1048576", "take a larger device"]);
    if !may_run() {
        lab::skip!("only root may run {}", ezio().display());
    }
    let said = as_nobody(&["deploy", &url, "--to", small]);
    assert!(said.contains("permission denied, run as root"), "{said}");
    let said = as_nobody(&["capture", small, "-o", &out]);
    assert!(said.contains("run as root"), "{said}");
}

/// Where partclone is not installed; nor anything else that administrators have, but blkid.
#[test]
fn programs_that_are_missing() {
    let programs = ["unshare", "mount", "mkfs.ext4", "blkid"].map(Need::Program);
    lab::require!([&[Need::Root][..], &programs].concat());
    let dir = tempfile::tempdir().unwrap();
    let (image, bin) = (dir.path().join("sda1"), dir.path().join("bin"));
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    lab::tool::run(lab::tool::words("mkfs.ext4 -q -F").arg(&image)).unwrap();
    std::fs::create_dir(&bin).unwrap();
    let bare = |before: &str| {
        let script = format!(
            "{before} mount -t tmpfs none /usr/sbin && export PATH={bin} && \
             exec {} capture {image} -o {image}.torrent",
            ezio().display(),
            bin = bin.display(),
            image = image.display()
        );
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let said = bare("");
    assert!(said.contains("run blkid: not found") && said.contains("package util-linux"), "{said}");
    let said = bare(&format!("cp $(command -v blkid) {} &&", bin.display()));
    assert!(said.contains("partclone.ext4") && said.contains("the package partclone"), "{said}");
}

fn nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command
}

/// Whether nobody may run the program where it was built.
fn may_run() -> bool {
    nobody().args(["test", "-x"]).arg(ezio()).status().is_ok_and(|status| status.success())
}

fn as_nobody(args: &[&str]) -> String {
    let output = nobody().arg(ezio()).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}
