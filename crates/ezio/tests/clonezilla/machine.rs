//! A machine on which Clonezilla's scripts run: processes, mounts, and a network of its own, the
//! disks of all. It ends with the test, however that ends, and with all that runs on it.

use crate::ezio;
use crate::namespaces::Namespaces;
use crate::world::{Process, text};
use lab::Lan;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Makes a machine of the namespaces that it is started in.
const SCRIPT: &str = include_str!("machine.sh");

/// What a script of Clonezilla may take: of `ocs-sr` a minute and a half is waiting by its own rule.
const PATIENCE: Duration = Duration::from_secs(900);

/// Programs that Clonezilla finds first where it looks for programs.
const PATH: &str = "/home/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running machine.
pub(crate) struct Machine {
    namespaces: Namespaces,
    dir: PathBuf,
}

impl Machine {
    /// Starts a machine at a cable of `lan`. Its files are below `dir`, which it makes.
    pub(crate) fn start(lan: &Lan, node: usize, dir: PathBuf) -> Machine {
        std::fs::create_dir(&dir).unwrap();
        let args = [dir.as_path(), ezio()];
        let namespaces = Namespaces::start(lan, node, &dir, SCRIPT, args);
        Machine { namespaces, dir }
    }

    /// Runs lines of shell to their end, and returns what they print, both streams.
    ///
    /// # Panics
    /// If they fail, or do not end.
    pub(crate) fn run(&self, lines: &str) -> String {
        let mut process = self.spawn(lines);
        let code = end(&mut process).code();
        assert_eq!(code, Some(0), "{lines}");
        process.all()
    }

    /// Starts lines of shell.
    pub(crate) fn spawn(&self, lines: &str) -> Process {
        let mut command = self.namespaces.bash("/", &format!("exec </dev/null\n{lines}"));
        // A locale that Clonezilla has the words of; a terminal that needs no setting up.
        command.env("PATH", PATH).env("TERM", "linux").env("LC_ALL", "C.UTF-8");
        Process::start(&mut command, &self.dir)
    }

    /// Whether a process of this name runs there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.run(&format!("ps -C {name} -o pid= || true")).trim() != ""
    }

    /// A file of the machine as it is seen from outside: `partimag`, `tmp`, `log`.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.dir.join(inside)
    }

    /// Copies directories and files from another machine, as NFS or HTTP would.
    pub(crate) fn copy(&self, from: &Path, to: &str) {
        let to = self.path(to);
        let mut command = lab::tool::words("cp -a");
        lab::tool::run(command.arg(from).arg(text(&to))).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- the logs of a machine:");
            let log = |name: &str| std::fs::read_to_string(self.path(name)).unwrap_or_default();
            eprintln!("{}\n{}", log("log/ezio-seeding.log"), log("log/clonezilla.log"));
        }
    }
}

/// Waits for the end of what takes long.
pub(crate) fn end(process: &mut Process) -> std::process::ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.code() {
            return status;
        }
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {}", process.all());
        thread::sleep(Duration::from_millis(100));
    }
}
