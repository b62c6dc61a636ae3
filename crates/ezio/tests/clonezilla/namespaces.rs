//! What makes a machine of processes: mounts and process numbers of its own, at a cable of a switch.
//! All that runs there ends with it.

use crate::world::{Process, wait};
use lab::Lan;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) struct Namespaces {
    /// `unshare`, with whose end all processes of the machine end.
    _unshare: Process,
    /// Process 1 of the machine, as it is numbered outside.
    init: String,
}

impl Namespaces {
    /// Runs `script` in new ones, by a shell and with `args`, until it prints `ready`. Its output is
    /// kept in `dir`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        lan: &Lan,
        node: usize,
        dir: &Path,
        script: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Namespaces {
        let _quiet = mounts();
        let mut command = lan.command(node, Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]);
        command.args(["--kill-child", "--mount-proc", "--", "sh", "-c", script, "sh"]);
        let mut unshare = Process::start(command.args(args), dir);
        wait("a machine is ready", || {
            assert!(unshare.code().is_none(), "no machine: {}", unshare.all());
            unshare.output().contains("ready")
        });
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = std::fs::read_to_string(children).unwrap().trim().to_owned();
        assert!(init.parse::<u32>().is_ok(), "`{init}` is not one process");
        Namespaces { _unshare: unshare, init }
    }

    /// Lines of bash, to be run there, in the directory `at`.
    pub(crate) fn bash(&self, at: &str, lines: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--pid", "--net"]);
        command.args([&format!("--wd={at}"), "--", "bash", "-c", lines]);
        command
    }
}

/// Held while a machine is made, which copies all mounts, and while a test mounts something, which
/// must not be copied.
pub(crate) fn mounts() -> MutexGuard<'static, ()> {
    static MOUNTS: Mutex<()> = Mutex::new(());
    // A test that failed meanwhile has unmounted.
    MOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}
