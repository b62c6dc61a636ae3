//! Running programs in a directory as their root. They and all that they have started end when their time
//! is up or we do, whatever ends us, and what was mounted for them ends with them.

use std::path::Path;
use std::process::{Command, Stdio};

/// A program, whose arguments may be added, with mounts and processes of its own; it has `seconds`.
pub(crate) fn contained(seconds: u32, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc", "--fork"]);
    command.args(["--kill-child", "timeout", "--kill-after=5", &seconds.to_string(), program]);
    command.stdin(Stdio::null());
    command
}

/// `words` below `root`, with /proc, the handful of devices that any program may expect, and no disks.
/// The network is that of this machine.
pub(crate) fn inside(root: &Path, seconds: u32, words: &[&str]) -> Command {
    let mut command = contained(seconds, "sh");
    command.args(["-c", ENTER]).arg(root).args(words).env_clear();
    for (name, value) in std::env::vars().filter(|(name, _)| name.ends_with("_proxy")) {
        command.env(name, value);
    }
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// `$0` is the new root. unshare(1) has made all mounts private.
const ENTER: &str = r#"
mount -t proc proc "$0/proc" && mount -t tmpfs -o mode=755 tmpfs "$0/dev" || exit 125
for node in null zero full random urandom; do
    : >"$0/dev/$node" && mount --bind "/dev/$node" "$0/dev/$node" || exit 125
done
ln -s /proc/self/fd "$0/dev/fd"
exec chroot "$0" "$@""#;
