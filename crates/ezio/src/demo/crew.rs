//! The processes of the demonstration: started, heard, ended. None of them outlives this one.
//!
//! A child asks the kernel to be killed when its parent dies (`PR_SET_PDEATHSIG`), which is safe to
//! do in the child's own program, and sure even if the parent is killed with signal 9. The children
//! have a process group of their own, so that Ctrl-C reaches only the parent, which ends them.

use crate::store::io_reason;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The process id of the parent that a process is to end with.
const PARENT: &str = "EZIO_ENDS_WITH";

/// Has the kernel end this process when its parent does, if the parent wants that.
///
/// Call it first thing. The signal comes when the parent's thread ends that has started this
/// process: its main thread.
pub fn end_with_parent() {
    let Some(parent) = std::env::var(PARENT).ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    // It may have died before.
    if asked.is_err() || getppid().map(Pid::as_raw_pid) != Some(parent) {
        eprintln!("ezio: the demo that started this process is gone");
        std::process::exit(1);
    }
}

/// Lines that wait for us; a process whose lines find no place waits.
const LINES_MAX: usize = 256;

/// How long a process may take to end when told to.
const END_MAX: Duration = Duration::from_secs(5);

/// Processes that print JSON.
pub(super) struct Crew {
    dir: PathBuf,
    members: Vec<Member>,
    sender: SyncSender<Said>,
    said: Option<Receiver<Said>>,
}

/// Who says it, and what; `None` when its output has ended.
type Said = (usize, Option<Value>);

struct Member {
    name: String,
    child: Child,
    /// What it says on the standard error.
    log: PathBuf,
    /// What it gave as the reason of its failure.
    error: Option<String>,
    reader: Option<JoinHandle<()>>,
}

impl Crew {
    /// Nobody yet; logs and temporary files will be in `dir`.
    pub(super) fn new(dir: &Path) -> Crew {
        let (sender, said) = sync_channel(LINES_MAX);
        Crew { dir: dir.to_owned(), members: Vec::new(), sender, said: Some(said) }
    }

    /// Starts this very program with `args`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn start(&mut self, name: &str, args: &[&str]) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("find this program's file")?;
        let log = self.dir.join(format!("{name}.log"));
        let errors = File::create(&log)
            .map_err(|e| anyhow::anyhow!("make {}: {}", log.display(), io_reason(&e)))?;
        let mut child = Command::new(&program)
            .args(args)
            .arg("--json")
            .env(PARENT, std::process::id().to_string())
            .env("TMPDIR", &self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|e| anyhow::anyhow!("start {}: {}", program.display(), io_reason(&e)))?;
        let (index, sender) = (self.members.len(), self.sender.clone());
        let output = child.stdout.take();
        let member = Member { name: name.to_owned(), child, log, error: None, reader: None };
        // Among the members before anything can fail: they are ended.
        self.members.push(member);
        let output = output.context("it is piped")?;
        let thread = thread::Builder::new().name(name.to_owned());
        let reader =
            thread.spawn(move || read(index, output, &sender)).context("start a thread")?;
        self.members[index].reader = Some(reader);
        Ok(())
    }

    /// The next thing that one of them says, if it comes within `time`.
    pub(super) fn listen(&mut self, time: Duration) -> Option<Said> {
        let (member, event) = self.said.as_ref()?.recv_timeout(time).ok()?;
        if let Some(event) = &event
            && event["event"] == "error"
        {
            self.members[member].error = event["message"].as_str().map(str::to_owned);
        }
        Some((member, event))
    }

    pub(super) fn name(&self, member: usize) -> &str {
        &self.members[member].name
    }

    /// Waits for the end of one that has closed its output. Says what went wrong.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub(super) fn ended_badly(&mut self, member: usize) -> anyhow::Result<Option<String>> {
        let member = &mut self.members[member];
        let status = member.wait(END_MAX).context("wait for a process")?;
        if status.is_some_and(|status| status.success()) {
            return Ok(None);
        }
        Ok(Some(member.error.clone().unwrap_or_else(|| {
            let ended = status.map_or("it does not end".to_owned(), |status| status.to_string());
            format!("{ended}; {}", last_lines(&member.log))
        })))
    }
}

impl Member {
    /// Waits for its end, but not for long.
    fn wait(&mut self, time: Duration) -> std::io::Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || started.elapsed() >= time {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end, without waiting.
    fn ask_to_end(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // A child that has not been waited for keeps its number.
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // Whoever waits for us to listen need not any more.
        self.said = None;
        self.members.iter_mut().for_each(Member::ask_to_end);
        for member in &mut self.members {
            if !matches!(member.wait(END_MAX), Ok(Some(_))) {
                let _ = member.child.kill();
                let _ = member.child.wait();
            }
            if let Some(reader) = member.reader.take() {
                let _ = reader.join();
            }
        }
    }
}

/// Passes on every line of `output` until it ends or nobody listens.
fn read(index: usize, output: ChildStdout, sender: &SyncSender<Said>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let event = serde_json::from_str(&line)
            .unwrap_or_else(|_| json!({"event": "note", "message": line}));
        if sender.send((index, Some(event))).is_err() {
            return;
        }
    }
    let _ = sender.send((index, None));
}

/// The end of a log, for a process that said nothing else.
fn last_lines(log: &Path) -> String {
    const SHOWN_MAX: u64 = 2000;
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(SHOWN_MAX)))?;
        file.take(SHOWN_MAX).read_to_end(&mut text)
    });
    match read {
        Ok(1..) => String::from_utf8_lossy(&text).trim().to_owned(),
        _ => "it said nothing".to_owned(),
    }
}
