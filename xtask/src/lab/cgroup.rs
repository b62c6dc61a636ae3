//! A memory group for a client, with a limit, as a container or a small machine has it: cgroup v2, or
//! the memory controller of v1 where that is what the machine has.

use anyhow::Context as _;
use std::fs::{create_dir, read_to_string, remove_dir, write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// What limits memory here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// The controller of v1, in a tree of its own.
    One,
    /// v2, all controllers in one tree.
    Two,
}

/// A group, removed when this is dropped.
#[derive(Debug)]
pub(super) struct MemoryGroup {
    dir: PathBuf,
    version: Version,
}

/// Whether this machine can limit memory that way.
///
/// # Errors
/// Why not, in words.
pub(super) fn supported() -> Result<(), String> {
    Version::found().map(drop)
}

impl Version {
    fn found() -> Result<Version, String> {
        let root = Version::Two.root();
        let controllers = read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_whitespace().any(|name| name == "memory") {
            Ok(Version::Two)
        } else if Version::One.root().join(Version::One.limit()).exists() {
            Ok(Version::One)
        } else {
            Err("neither cgroup v2 nor the memory controller of v1 below /sys/fs/cgroup".to_owned())
        }
    }

    /// Where it is mounted, by systemd and by all that follow it.
    fn root(self) -> &'static Path {
        Path::new(match self {
            Version::One => "/sys/fs/cgroup/memory",
            Version::Two => "/sys/fs/cgroup",
        })
    }

    fn limit(self) -> &'static str {
        match self {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        }
    }

    /// Memory and swap in v1, swap in v2. A kernel without swap has no such file.
    fn limit_with_swap(self) -> &'static str {
        match self {
            Version::One => "memory.memsw.limit_in_bytes",
            Version::Two => "memory.swap.max",
        }
    }

    fn peak(self) -> &'static str {
        match self {
            Version::One => "memory.max_usage_in_bytes",
            // Since Linux 5.19.
            Version::Two => "memory.peak",
        }
    }
}

impl MemoryGroup {
    /// Makes a group below the root that may have `max` bytes and no swap.
    pub(super) fn make(name: &str, max: u64) -> anyhow::Result<MemoryGroup> {
        let version = Version::found().map_err(anyhow::Error::msg)?;
        let root = version.root();
        if version == Version::Two {
            // Written once more it stays what it is.
            write(root.join("cgroup.subtree_control"), "+memory")
                .with_context(|| format!("let groups below {} limit memory", root.display()))?;
        }
        let dir = root.join(name);
        create_dir(&dir).with_context(|| format!("make the memory group {}", dir.display()))?;
        let group = MemoryGroup { dir, version };
        group.set(version.limit(), &max.to_string())?;
        if group.dir.join(version.limit_with_swap()).exists() {
            let max = if version == Version::One { max } else { 0 };
            group.set(version.limit_with_swap(), &max.to_string())?;
        }
        Ok(group)
    }

    /// The same command, in the group. Its process is still the program itself.
    pub(super) fn command(&self, command: &Command) -> Command {
        joined(&self.dir, command)
    }

    /// Bytes at the peak, page cache included, if the kernel says.
    pub(super) fn peak(&self) -> Option<u64> {
        read_to_string(self.dir.join(self.version.peak())).ok()?.trim().parse().ok()
    }

    fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let file = self.dir.join(file);
        write(&file, value).with_context(|| format!("write `{value}` to {}", file.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel needs a moment for those that were killed just now.
        for _ in 0..100 {
            if remove_dir(&self.dir).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("the memory group {} stays: somebody is in it", self.dir.display());
    }
}

/// Joins first: `ip netns exec` has another `/sys`, without groups.
fn joined(dir: &Path, command: &Command) -> Command {
    let mut shell = lab::tool::words("sh -c");
    shell.arg(JOIN).arg(dir).arg(command.get_program()).args(command.get_args());
    shell
}

/// Writes its process id where the group named first wants it, then becomes what follows.
const JOIN: &str = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;

/// Removes the groups that killed runs left behind.
pub(super) fn clean() {
    let Ok(version) = Version::found() else { return };
    let entries = std::fs::read_dir(version.root()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| lab::net::is_stale(&entry.file_name().to_string_lossy())) {
        // Its processes have ended with their namespaces.
        let _ = remove_dir(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_joins_before_it_begins_and_stays_the_same_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "cat \"$0/cgroup.procs\"; echo $$"]).arg(dir.path());
        let text = lab::tool::run(&mut joined(dir.path(), &command)).unwrap();
        let [group, own] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!(group, own);
    }

    #[test]
    fn a_group_limits_if_this_machine_has_groups() {
        if let Err(why) = supported().and_then(|()| lab::require(&[lab::Need::Root])) {
            lab::skip!("{why}");
        }
        let name = format!("{}{}-test", lab::net::PREFIX, std::process::id());
        let group = MemoryGroup::make(&name, 32 << 20).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 8000000 /dev/zero | tail -c 8000000 | wc -c"]);
        let text = lab::tool::run(&mut group.command(&command)).unwrap();
        assert_eq!(text.trim(), "8000000");
        // tail keeps all of it.
        assert!(group.peak().is_none_or(|peak| (8_000_000..=32 << 20).contains(&peak)));
        let mut greedy = Command::new("sh");
        greedy.args(["-c", "head -c 99000000 /dev/zero | tail -c 99000000 >/dev/null"]);
        assert!(lab::tool::run(&mut group.command(&greedy)).is_err(), "it got more than the limit");
        let dir = group.dir.clone();
        drop(group);
        assert!(!dir.exists());
    }
}
