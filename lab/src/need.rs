//! What a test needs of the machine, and the line it prints when that is missing.

use crate::tool;
use std::fmt;
use std::io::Write as _;
use std::path::Path;

/// A right, a program or a part of the kernel without which a test cannot show anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Effective user id 0.
    Root,
    /// Loop devices: `/dev/loop-control`, and the right to use it.
    Loop,
    /// `/dev/fuse`, and the right to mount: root, or the program `fusermount3`.
    Fuse,
    /// A program in `PATH` or in one of the `sbin` directories.
    Program(&'static str),
    /// A file system of the running kernel, as `/proc/filesystems` calls it.
    Kernel(&'static str),
}

impl fmt::Display for Need {
    /// Says that it is missing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Root => write!(f, "not root"),
            Need::Loop => write!(f, "no loop devices (/dev/loop-control, as root)"),
            Need::Fuse => write!(f, "no FUSE (/dev/fuse, as root or with fusermount3)"),
            Need::Program(name) => write!(f, "no program {name}"),
            Need::Kernel(name) => write!(f, "the kernel has no {name}"),
        }
    }
}

/// Whether this machine has all of `needs`.
///
/// # Errors
/// Everything that is missing, in words, for [`skip!`](crate::skip).
pub fn require(needs: &[Need]) -> Result<(), String> {
    let mut missing: Vec<String> = Vec::new();
    for need in needs.iter().filter(|need| !is_met(**need)).map(Need::to_string) {
        if !missing.contains(&need) {
            missing.push(need);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
}

/// Prints `skipped: <test>: <why>` as one line on the standard error.
///
/// libtest captures `print!` and `eprint!` of a test that passes, and a skipped test passes; it
/// does not capture writes to the stream itself. It names each test's thread after the test.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("unnamed"));
    // In one write, so that lines of two tests do not mix. Nobody is left to tell if it fails.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn is_met(need: Need) -> bool {
    match need {
        Need::Root => is_root(),
        Need::Loop => is_root() && Path::new("/dev/loop-control").exists(),
        Need::Fuse => kernel_has("fuse") && (is_root() || tool::find("fusermount3").is_some()),
        Need::Program(name) => tool::find(name).is_some(),
        Need::Kernel(name) => kernel_has(name),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A module that is not loaded yet is loaded: only then does `/proc/filesystems` name it.
fn kernel_has(name: &str) -> bool {
    let listed = || {
        std::fs::read_to_string("/proc/filesystems")
            .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().last() == Some(name)))
    };
    listed() || (is_root() && tool::run(tool::words("modprobe").arg(name)).is_ok() && listed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_once() {
        let needs = [Need::Program("no-such-program"), Need::Program("no-such-program")];
        assert_eq!(require(&needs), Err("no program no-such-program".to_owned()));
        assert_eq!(require(&[Need::Program("sh")]), Ok(()));
        assert_eq!(require(&[Need::Kernel("nofs")]), Err("the kernel has no nofs".to_owned()));
        assert_eq!(require(&[Need::Kernel("proc")]), Ok(()));
    }
}
