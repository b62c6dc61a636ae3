//! Running programs in a directory as their root: what is mounted for them ends with them, whatever
//! ends us, because it is mounted in a namespace of their own.

use std::path::Path;
use std::process::Command;

/// `words` below `root`, with /proc, the handful of devices that any program may expect, and no disks.
/// Killed after `seconds`, with all that it has started. The network is that of this machine.
pub(crate) fn inside(root: &Path, seconds: u32, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &seconds.to_string(), "unshare"]);
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER]);
    command.arg(root).args(words).env_clear();
    for (name, value) in std::env::vars().filter(|(name, _)| name.ends_with("_proxy")) {
        command.env(name, value);
    }
    command
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(std::process::Stdio::null());
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
