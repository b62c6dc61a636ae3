//! The machine itself: rights, programs, memory, descriptors, the clock, room for notes.

use super::Finding;
use crate::capture::filesystem::{Kind, find_program};
use crate::hashing::memory_available;
use crate::node::BUDGET;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use swarm::units::Bytes;

pub(super) fn check() -> Vec<Finding> {
    let mut findings =
        vec![rights(rustix::process::geteuid().is_root()), blkid(find_program("blkid").is_some())];
    findings.extend(partclone(|kind| kind.find_partclone().is_ok()));
    findings.push(memory(memory_available()));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    findings.push(descriptors(limit.current));
    findings.push(clock(SystemTime::now()));
    findings.push(notes(room_in(Path::new("/run"))));
    findings
}

fn rights(root: bool) -> Finding {
    if root {
        return Finding::ok("rights", "root");
    }
    Finding::warning(
        "rights",
        "not root: image files can be used, disks cannot",
        "run it as root, for instance with sudo, to capture, serve or write disks",
    )
}

fn blkid(found: bool) -> Finding {
    if found {
        return Finding::ok("blkid", "is there");
    }
    Finding::warning(
        "blkid",
        "is missing: nothing can be captured but with --raw",
        "install the package util-linux; a machine that only deploys needs it not",
    )
}

/// Which file systems can be captured, and what to install for the others.
fn partclone(has: impl Fn(Kind) -> bool) -> Vec<Finding> {
    let (found, missing): (Vec<Kind>, Vec<Kind>) = Kind::all().partition(|&kind| has(kind));
    let names =
        |kinds: &[Kind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut findings = Vec::new();
    if !found.is_empty() {
        findings.push(Finding::ok("partclone", format!("captures {}", names(&found))));
    }
    let mut by_source: BTreeMap<&str, Vec<Kind>> = BTreeMap::new();
    missing.into_iter().for_each(|kind| by_source.entry(kind.brought_by()).or_default().push(kind));
    for (source, kinds) in by_source {
        let text = format!("cannot capture {}", names(&kinds));
        let what = "a machine that only deploys needs none";
        // What Debian does not have is missing nearly everywhere, and nearly nobody needs it.
        let rare = !found.is_empty() && !source.starts_with("install");
        findings.push(match rare {
            true => Finding::ok("partclone", format!("{text}; {source}")),
            false => Finding::warning("partclone", text, format!("{source}; {what}")),
        });
    }
    findings
}

/// The program, its threads' stacks and the page cache of what is on its way, beside the pieces.
const BESIDE_PIECES: u64 = 64 << 20;

fn memory(available: Option<u64>) -> Finding {
    let needed = BUDGET + BESIDE_PIECES;
    let Some(available) = available else {
        return Finding::ok("memory", "/proc does not tell how much there is");
    };
    let text = format!("{} available", Bytes(available));
    let advice = format!(
        "pieces take up to {}: end other programs, give the machine (or its container) more, or a \
         smaller initramfs",
        Bytes(BUDGET)
    );
    match available {
        _ if available >= needed => Finding::ok("memory", text),
        _ if available >= BUDGET => Finding::warning("memory", text, advice),
        _ => Finding::wrong("memory", format!("only {text}"), advice),
    }
}

/// 64 peers, 256 that shake hands, 512 that ask by HTTP, and some files.
const DESCRIPTORS: u64 = 900;

fn descriptors(limit: Option<u64>) -> Finding {
    let advice = format!("`ulimit -n {}` before, or LimitNOFILE= in the unit", 4096);
    match limit {
        None => Finding::ok("descriptors", "no limit"),
        Some(limit) if limit >= DESCRIPTORS => Finding::ok("descriptors", format!("{limit}")),
        Some(limit) if limit >= 256 => Finding::warning(
            "descriptors",
            format!("only {limit} open files and sockets: a server of many machines needs more"),
            advice,
        ),
        Some(limit) => Finding::wrong("descriptors", format!("only {limit}"), advice),
    }
}

/// 2026-01-01: this program is younger.
const YOUNGER_THAN: Duration = Duration::from_secs(1_767_225_600);

fn clock(now: SystemTime) -> Finding {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let year = 1970 + since.as_secs() / 31_556_952;
    if since > YOUNGER_THAN && year < 2100 {
        return Finding::ok("clock", format!("in the year {year}"));
    }
    Finding::warning(
        "clock",
        format!("it says the year {year}: dates in torrents and logs will be wrong"),
        "set it: `date -s`, NTP, or the battery on the mainboard",
    )
}

/// A state file has a bit a piece; /run shares the memory.
const NOTES_LEN: u64 = 16 << 20;

fn room_in(dir: &Path) -> Option<u64> {
    let room = rustix::fs::statvfs(dir).ok()?;
    Some(room.f_bavail * room.f_frsize)
}

fn notes(free: Option<u64>) -> Finding {
    let advice = "give another place with `ezio deploy --state FILE`; without one an interrupted run \
                  begins anew";
    match free {
        Some(free) if free >= NOTES_LEN => {
            Finding::ok("state", format!("{} free in /run", Bytes(free)))
        }
        Some(free) => {
            Finding::warning("state", format!("only {} free in /run", Bytes(free)), advice)
        }
        None => Finding::warning("state", "there is no /run", advice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, tests::check};
    use super::*;

    #[test]
    fn the_machine_is_judged_by_its_facts() {
        use Verdict::{Ok, Warning, Wrong};
        check(&rights(true), Ok, "root");
        check(&rights(false), Warning, "sudo");
        check(&blkid(true), Ok, "there");
        check(&blkid(false), Warning, "util-linux");
        check(&memory(Some(1 << 30)), Ok, "1 GiB");
        check(&memory(Some(150 << 20)), Warning, "128 MiB");
        check(&memory(Some(100 << 20)), Wrong, "only 100 MiB");
        check(&memory(None), Ok, "does not tell");
        check(&descriptors(None), Ok, "no limit");
        check(&descriptors(Some(1024)), Ok, "1024");
        check(&descriptors(Some(512)), Warning, "ulimit -n 4096");
        check(&descriptors(Some(64)), Wrong, "only 64");
        check(&clock(UNIX_EPOCH), Warning, "year 1970");
        check(&clock(UNIX_EPOCH + Duration::from_secs(1_800_000_000)), Ok, "2027");
        check(&clock(UNIX_EPOCH + Duration::from_secs(5_000_000_000)), Warning, "2128");
        check(&notes(Some(1 << 30)), Ok, "1 GiB free");
        check(&notes(Some(1 << 20)), Warning, "--state");
        check(&notes(None), Warning, "no /run");
    }

    #[test]
    fn missing_partclones_are_named_with_their_package() {
        use Verdict::{Ok, Warning};
        let none = partclone(|_| false);
        assert_eq!(none.len(), 2);
        check(&none[0], Warning, "install the package partclone; a machine that only deploys");
        check(&none[1], Warning, "Clonezilla's");
        let debian = partclone(|kind| kind.brought_by().starts_with("install"));
        check(&debian[0], Ok, "captures ext2, ext3, ext4, Reiser4, XFS");
        check(&debian[1], Ok, "cannot capture ReiserFS, JFS");
        let no_xfs = partclone(|kind| kind != Kind::Xfs);
        check(&no_xfs[1], Warning, "cannot capture XFS -> install the package partclone");
        assert_eq!(partclone(|_| true).len(), 1);
    }
}
