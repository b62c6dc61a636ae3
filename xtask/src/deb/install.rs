//! `cargo xtask deb --install`: the package in a clean Debian, made by debootstrap from the mirror that this
//! machine uses: installed over the package of the C++ EZIO, used, started as a service, and purged.
//!
//! Everything is mounted in namespaces that end with their processes. What a killed run leaves is a
//! directory, which the next one removes.

mod service;

use super::{EPOCH, LINKS};
use crate::portable;
use crate::root::{contained, inside};
use anyhow::{Context as _, ensure};
use lab::{Need, net, tool};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Installs `package`, and all that it says it needs, and looks whether it does what it is for.
///
/// # Errors
/// What did not work.
pub(super) fn check(package: &Path) -> anyhow::Result<()> {
    let needs = ["debootstrap", "setpriv", "unshare", "apt-get", "dpkg-deb"].map(Need::Program);
    if let Err(why) = lab::require(&[&[Need::Root][..], &needs].concat()) {
        lab::skipped(&format!("the package in a clean Debian: {why}"));
        return Ok(());
    }
    let Some((mirror, suite)) = mirror()? else {
        lab::skipped("the package in a clean Debian: apt here has no mirror of this Debian");
        return Ok(());
    };
    let begin = Instant::now();
    let dir = clean_directory()?;
    let root = dir.path().join("debian");
    // systemd for the service, man-db for the pages; apt is there anyway.
    let words = ["--variant=minbase", "--include=systemd,man-db", &suite];
    tool::run(contained(600, "debootstrap").args(words).arg(&root).arg(&mirror))?;
    eprintln!("deb: a clean {suite} after {:.0} s", begin.elapsed().as_secs_f64());
    replace_the_old_one(&root, package)?;
    use_it(&root)?;
    service::check(&root)?;
    purge(&root)?;
    println!(
        "installed, used and purged in a clean {suite}: {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Where apt gets this machine's own release of Debian, and the release's name.
fn mirror() -> anyhow::Result<Option<(String, String)>> {
    let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let Some(name) = name else { return Ok(None) };
    let filter = ["Created-By: Packages", "Origin: Debian", "Component: main"];
    let format = "$(REPO_URI) $(CODENAME)";
    let words = ["indextargets", "--format", format];
    let text = tool::run(Command::new("apt-get").args(words).args(filter))?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(_, suite)| *suite == name);
    Ok(found.map(|(mirror, suite)| (mirror.to_owned(), suite.to_owned())))
}

/// In memory if there is room for a small Debian, where it takes half the time, else on disk.
fn clean_directory() -> anyhow::Result<tempfile::TempDir> {
    let places = [Path::new("/dev/shm"), Path::new("/var/tmp")];
    for place in places.iter().filter(|place| place.is_dir()) {
        for entry in fs::read_dir(place)? {
            let entry = entry?;
            if net::is_stale(&entry.file_name().to_string_lossy()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
    }
    let room = tool::run(tool::words("stat --file-system --format=%a/%S").arg(places[0]));
    let room = room.ok().and_then(|text| {
        let (blocks, size) = text.trim().split_once('/')?;
        blocks.parse::<u64>().ok()?.checked_mul(size.parse().ok()?)
    });
    let place = if room.is_some_and(|room| room > ROOM) { places[0] } else { places[1] };
    let prefix = format!("{}{}-", net::PREFIX, std::process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(place)?;
    // Users of that Debian go through it, too.
    fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755))?;
    Ok(made)
}

/// 300 MB of Debian, what apt fetches, two disks of the demo, as much again.
const ROOM: u64 = 1 << 30;

/// The package of the C++ EZIO, as far as names matter, and ours over it, with all it recommends.
fn replace_the_old_one(root: &Path, package: &Path) -> anyhow::Result<()> {
    let old = root.join("tmp/old");
    for name in ["usr/bin/ezio", "usr/bin/ezio_ui.py", "usr/share/ezio/version"] {
        super::put(&old.join(name), b"#!/bin/sh\necho the C++ EZIO\n", 0o755)?;
    }
    let control = "Package: ezio\nVersion: 2.0.29\nArchitecture: all\nMaintainer: nobody <n@localhost>\n\
                   Description: stands for the C++ EZIO\n";
    super::put(&old.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    let made = root.join("tmp/old.deb");
    tool::run(Command::new("dpkg-deb").arg("--build").args([&old, &made]))?;
    fs::copy(package, root.join("tmp/ezio.deb"))?;
    run(root, 60, &["dpkg", "--install", "/tmp/old.deb"])?;
    run(root, 120, &["apt-get", "update", "-qq"])?;
    run(root, 200, &["apt-get", "install", "-y", "-qq", "/tmp/ezio.deb"])?;
    let version = run(root, 20, &["dpkg-query", "-W", "-f", "${Version}", "ezio"])?;
    let wanted = format!("{EPOCH}:{}", env!("CARGO_PKG_VERSION"));
    ensure!(version == wanted, "apt has installed {version} instead of {wanted}");
    ensure!(!root.join("usr/share/ezio").exists(), "files of the old package are left");
    for name in LINKS {
        let target = fs::read_link(root.join("usr/bin").join(name))?;
        ensure!(target == Path::new("ezio"), "{name} leads to {}", target.display());
    }
    // What is on the disk is what was packed.
    let said = run(root, 20, &["dpkg", "--verify", "ezio"])?;
    ensure!(said.is_empty(), "dpkg --verify says {said}");
    Ok(())
}

fn use_it(root: &Path) -> anyhow::Result<()> {
    let version = run(root, 20, &["ezio", "--version"])?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "ezio --version says {version}");
    for page in ["ezio", "ezio-serve"] {
        let place = run(root, 20, &["man", "-w", page])?;
        ensure!(place.contains("/usr/share/man/man1/"), "man -w {page} says {place}");
    }
    let demo = run(root, 200, &["ezio", "demo", "--clients", "2", "--size", "64MiB"])?;
    // It says so if it had to do without.
    ensure!(!demo.contains("as there is no"), "something that is recommended is missing: {demo}");
    let said = run(root, 60, &["systemd-analyze", "verify", "ezio-serve.service"])?;
    ensure!(said.trim().is_empty(), "systemd-analyze verify says {said}");
    names_by_modules(root)
}

/// Where more than files and DNS is to be asked for names, the system's program is: modules of another
/// version of the C library would end a static one.
fn names_by_modules(root: &Path) -> anyhow::Result<()> {
    let config = root.join("etc/nsswitch.conf");
    let before = fs::read(&config)?;
    fs::write(&config, "hosts: files strange [NOTFOUND=return] dns\n")?;
    let stand_in = root.join("usr/local/bin/getent");
    let script =
        "#!/bin/sh\n[ \"$*\" = 'ahosts -- asked.test' ] && echo 127.0.0.1 STREAM asked.test\n";
    super::put(&stand_in, script.as_bytes(), 0o755)?;
    portable::check_name(root, "asked.test", portable::KNOWN)?;
    portable::check_name(root, "nobody.test", portable::UNKNOWN)?;
    fs::remove_file(stand_in)?;
    // The real one, which knows what is in the hosts file.
    fs::write(root.join("etc/hosts"), "127.0.0.1 by-file.test\n")?;
    portable::check_name(root, "by-file.test", portable::KNOWN)?;
    Ok(fs::write(config, before)?)
}

/// Nothing is left, neither of the package nor of what its service has made.
fn purge(root: &Path) -> anyhow::Result<()> {
    run(root, 60, &["apt-get", "purge", "-y", "-qq", "ezio"])?;
    // What is ours, and what man-db keeps of every page that was read.
    fs::remove_dir_all(root.join("tmp/old"))?;
    fs::remove_dir_all(root.join("var/cache/man"))?;
    for name in ["tmp/old.deb", "tmp/ezio.deb"] {
        fs::remove_file(root.join(name))?;
    }
    let left: Vec<PathBuf> = named_ezio(root)?;
    ensure!(left.is_empty(), "after the purge there is still {left:?}");
    Ok(())
}

/// All files below a directory with the program's name in theirs.
fn named_ezio(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains("ezio") {
            found.push(entry.path());
        } else if entry.file_type()?.is_dir() {
            found.extend(named_ezio(&entry.path())?);
        }
    }
    Ok(found)
}

fn run(root: &Path, seconds: u32, words: &[&str]) -> anyhow::Result<String> {
    tool::run(&mut inside(root, seconds, words)).with_context(|| format!("in {}", root.display()))
}
