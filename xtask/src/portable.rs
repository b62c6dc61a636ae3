//! `cargo xtask static`: the program as one file that needs nothing of the system it runs on.
//!
//! glibc, linked statically: the only C library whose target is part of every Rust toolchain on Debian,
//! and the allocator and the `memcpy` that everything was measured with. What it cannot do, load modules
//! for names, `ezio::names` does without.

use crate::{root, run};
use anyhow::{Context as _, ensure};
use lab::Need;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Builds it, looks at it, and runs it where nothing else is.
///
/// # Errors
/// What could not be built, and what is not as it should be.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let host = host()?;
    let words = ["build", "--release", "--package", "ezio", "--locked", "--target", &host];
    run(Command::new("cargo").args(words).env("RUSTFLAGS", flags()?))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let binary = std::path::absolute(Path::new(&target).join(&host).join("release/ezio"))?;
    check_file(&binary)?;
    check_install(&host, &binary)?;
    match lab::require(&[Need::Root, Need::Program("unshare"), Need::Program("setpriv")]) {
        Ok(()) => check_alone(&binary)?,
        Err(why) => lab::skipped(&format!("the program in an empty root: {why}")),
    }
    Ok(binary)
}

/// With a target named, build scripts and macros are linked as ever.
fn flags() -> anyhow::Result<String> {
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags = format!("{flags} -C target-feature=+crt-static {}", nobodys_paths()?);
    Ok(flags.trim().to_owned())
}

/// `cargo install` as the README has it gives the same; with the flags of the build, so that nothing is
/// compiled twice.
fn check_install(host: &str, binary: &Path) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("ezio-install-").tempdir()?;
    let words = ["install", "--quiet", "--path", "crates/ezio", "--locked", "--target", host];
    let mut install = Command::new("cargo");
    install.args(words).arg("--root").arg(dir.path()).env("RUSTFLAGS", flags()?);
    lab::tool::run(&mut install)?;
    let installed = fs::read(dir.path().join("bin/ezio")).context("read what was installed")?;
    ensure!(installed == fs::read(binary)?, "cargo install gives another program than cargo build");
    Ok(())
}

/// Where the sources lie on this machine is in the messages of panics. Without it the program is the same
/// from whatever directory it is built.
fn nobodys_paths() -> anyhow::Result<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let (home, here) = (home.context("cargo has no home")?, std::env::current_dir()?);
    let (home, here) = (home.display(), here.display());
    Ok(format!("--remap-path-prefix={home}=/cargo --remap-path-prefix={here}=/ezio"))
}

/// What this compiler compiles for, if nothing else is said: `x86_64-unknown-linux-gnu`.
pub(crate) fn host() -> anyhow::Result<String> {
    let text = lab::tool::run(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Neither an interpreter nor a library is asked for.
fn check_file(binary: &Path) -> anyhow::Result<()> {
    let headers = Command::new("readelf").args(["-W", "-l", "-d"]).arg(binary).output();
    let headers = headers.context("run readelf, of the package binutils")?;
    let text = String::from_utf8_lossy(&headers.stdout);
    ensure!(text.contains("LOAD"), "readelf shows no program in {}", binary.display());
    for unwanted in ["INTERP", "(NEEDED)"] {
        let shown = binary.display();
        ensure!(!text.contains(unwanted), "{shown} is not static: it has {unwanted}");
    }
    Ok(())
}

/// In a root without a C library, without even a shell: serves, deploys, and finds names.
fn check_alone(binary: &Path) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("ezio-alone-").tempdir()?;
    let root = dir.path();
    for name in ["proc", "dev", "tmp", "etc"] {
        fs::create_dir(root.join(name))?;
    }
    fs::copy(binary, root.join("ezio")).context("copy the program into an empty root")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 by-file.test\n")?;
    fs::write(root.join("etc/resolv.conf"), format!("nameserver {}\n", NameServer::ADDR))?;
    let words = ["/ezio", "demo", "--clients", "2", "--size", "16MiB"];
    lab::tool::run(&mut root::inside(root, 120, &words))?;
    check_name(root, "by-file.test", KNOWN)?;
    let Ok(_server) = NameServer::start() else {
        lab::skipped("names by DNS: port 53 is taken on all of 127.0.0.0/8");
        return Ok(());
    };
    check_name(root, "by-dns.test", KNOWN)?;
    check_name(root, "nobody.test", UNKNOWN)
}

/// What `ezio deploy` of a server at `name` says, where nothing listens, must contain `wanted`.
pub(crate) fn check_name(root: &Path, name: &str, wanted: &str) -> anyhow::Result<()> {
    let installed = root.join("usr/bin/ezio").exists();
    let program = if installed { "/usr/bin/ezio" } else { "/ezio" };
    let url = format!("http://{name}:1/");
    let words = [program, "deploy", &url, "--to", "/tmp/target"];
    let output = lab::tool::output(&mut root::inside(root, 60, &words))?;
    let said = lab::tool::text(&output);
    ensure!(
        output.status.code() == Some(1) && said.contains(wanted),
        "a server called {name} should make it say `{wanted}`; it said ({}): {said}",
        output.status
    );
    Ok(())
}

/// It knows the name.
pub(crate) const KNOWN: &str = "connect to 127.0.0.1:1: Connection refused";

/// It does not, and says so, and has not died of it.
pub(crate) const UNKNOWN: &str = "look up nobody.test";

/// A name server on loopback that knows one name, until it is dropped.
pub(crate) struct NameServer {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl NameServer {
    /// Of all the addresses of loopback one that no local resolver takes.
    pub(crate) const ADDR: &str = "127.77.0.53";

    /// # Errors
    /// If its port is taken, or only for root.
    pub(crate) fn start() -> anyhow::Result<NameServer> {
        let socket = UdpSocket::bind((NameServer::ADDR, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            while !seen.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut question) {
                    // Who asked asks again.
                    let _ = answer(&question[..len]).map(|bytes| socket.send_to(&bytes, from));
                }
            }
        });
        Ok(NameServer { stop, thread: Some(thread) })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It has nothing to tell.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// RFC 1035: the question again, and 127.0.0.1 if that is what it asks for. `None` for what is no question.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let name = question.get(12..)?;
    let end = 12 + name.iter().position(|&byte| byte == 0)? + 5;
    let asked = question.get(12..end)?;
    let known = asked.starts_with(b"\x06by-dns\x04test\x00");
    let is_a = asked.ends_with(&[0, 1, 0, 1]);
    let mut bytes = question[..2].to_vec();
    // An answer, by who is responsible; no such name, if it is not known.
    bytes.extend([0x85, if known { 0x80 } else { 0x83 }]);
    bytes.extend([0, 1, 0, u8::from(known && is_a), 0, 0, 0, 0]);
    bytes.extend(asked);
    if known && is_a {
        // The name at offset 12, type A, class IN, a minute, four bytes.
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(bytes)
}
