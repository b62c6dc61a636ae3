//! `ezio deploy`: the images of torrents onto this machine's devices, into files or directories.

mod display;
mod from;
mod machine;
mod outcome;
mod report;
mod state;
mod stuck;

pub(crate) use from::served;

use crate::device::Claim;
use crate::engine::{Content, Job, Notice};
use crate::inspect::hex;
use crate::node::{Message, Node, NodeOptions, name_of};
use crate::preflight;
use crate::signatures::Leftovers;
use crate::store::{Target, io_reason};
use crate::ui::{Progress, Ui};
use crate::verify;
use anyhow::ensure;
use from::Order;
use outcome::Outcome;
use report::{Reporter, Step, Wish};
use state::{State, StateFile};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stuck::Stuck;
use swarm::metainfo::{Digest, Metainfo};
use swarm::units::{Bytes, Rate};

/// What to deploy, and to what.
#[derive(Clone, Debug)]
pub struct Deploy {
    /// A `.torrent` file, its URL, a magnet link, or `http://SERVER:6969`.
    pub from: String,
    /// The devices or files to write; if the server has several torrents, `NAME=PATH` for each.
    pub to: Vec<String>,
    /// The targets are directories, and get a file for each extent.
    pub as_files: bool,
    /// Every torrent must have one of these info-hashes, if there are any.
    pub info_hashes: Vec<Digest>,
    /// What is on the target already may be right: it is hashed, and what is right is kept.
    pub reuse: bool,
    /// Where to keep what an interrupted run has done.
    pub state: Option<PathBuf>,
    /// Read everything again from the medium at the end.
    pub verify: bool,
    /// How strict to be with targets.
    pub checks: preflight::Checks,
    /// Run through the shell when the data is on the medium.
    pub on_done: Option<String>,
    /// How long to serve others afterwards at most.
    pub seed_for: Duration,
    /// How long to wait after a failure for the dashboard to order another try.
    pub stay: Duration,
    /// How to meet others.
    pub node: NodeOptions,
}

/// Nothing sent for so long after the end: nobody needs us.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Nobody wants anything of us for so long, after the end: they have it all, or get it elsewhere.
/// Our own nodes say that they want nothing while enough is on its way to them, but not for seconds.
const UNWANTED_MAX: Duration = Duration::from_secs(2);

/// How often the display and the leaving rule are looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// How often the state file is written at the most, if something has changed: what comes after it is
/// fetched again if this process is killed. It is never written for more than a part of the time.
const STATE_PERIOD: Duration = Duration::from_millis(100);
const STATE_SHARE: u32 = 50;

/// Deploys; returns when the data is on the medium and others have been served for a while.
///
/// # Errors
/// Whatever keeps an image from being whole on its target.
pub fn run(deploy: &Deploy, ui: Ui, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut reporter = None;
    loop {
        let Err(error) = attempt(deploy, ui, stop, &mut reporter) else { return Ok(()) };
        let Some(reporter) = &reporter else { return Err(error) };
        reporter.fail(&error);
        if deploy.stay.is_zero() || stop.load(Ordering::Relaxed) {
            return Err(error);
        }
        let seconds = deploy.stay.as_secs();
        ui.warn(&format!("{error:#}; for {seconds} s the dashboard can order another try"));
        if !reporter.wait_for_retry(deploy.stay, stop) {
            return Err(error);
        }
        ui.note("the dashboard has ordered another try");
    }
}

fn attempt(
    deploy: &Deploy,
    ui: Ui,
    stop: &AtomicBool,
    reporter: &mut Option<Reporter>,
) -> anyhow::Result<()> {
    let found = from::find(deploy, ui, stop)?;
    found.check_hashes(&deploy.info_hashes, &deploy.from)?;
    if reporter.is_none() {
        *reporter = found.server.map(|server| Reporter::new(&server, deploy));
    }
    let reporter = reporter.clone();
    let started = Instant::now();
    // All of them are looked at before one is written.
    let tasks = found.orders.into_iter().map(|order| Task::prepare(order, deploy, ui));
    let mut tasks = tasks.collect::<anyhow::Result<Vec<Task>>>()?;
    let state = recall(deploy, &mut tasks, ui)?;
    tasks.iter().for_each(|task| begin(deploy, task));
    if let Some(reporter) = &reporter {
        reporter.begin(&tasks);
    }
    let mut node = Node::start(&deploy.node, None, reporter.as_ref().map(Reporter::config))?;
    if deploy.checks.wipe {
        tasks.iter().filter_map(|task| task.leftovers.as_ref()).try_for_each(Leftovers::wipe)?;
    }
    for task in &mut tasks {
        let content = Content::Target {
            target: Arc::clone(&task.target),
            check: std::mem::take(&mut task.check),
        };
        let job = Job { metainfo: Arc::clone(&task.metainfo), content };
        node.add(job, std::mem::take(&mut task.trackers), false)?;
        task.peers.iter().for_each(|&addr| node.found(task.metainfo.info_hash(), addr));
    }
    if let Some(reporter) = &reporter {
        reporter.observe(Some(node.reader()));
    }
    let wish = Wish::default();
    let progress = Some(ui.parts(display::parts(&tasks)));
    let mut run = Run { deploy, node, tasks, state, started, ui, stop, reporter, wish, progress };
    let mut outcome = run.download();
    run.progress = None;
    if outcome.is_ok() {
        run.tell_server(Step::Done);
        outcome = run.seed();
        if let Some(state) = &run.state {
            state.remove();
        }
        if let Some(reporter) = &run.reporter {
            // The last second's numbers, and that it is done if that took no second.
            reporter.post();
        }
    }
    run.node.stop();
    outcome
}

fn begin(deploy: &Deploy, task: &Task) {
    tracing::info!(
        from = %deploy.from,
        device = %task.to.display(),
        image = %name_of(&task.metainfo),
        info_hash = %hex(&task.metainfo.info_hash()),
        bytes = task.metainfo.layout().image_len(),
        pieces_looked_at = task.check.len(),
        "deployment begins"
    );
}

/// One image on its way to its target.
struct Task {
    metainfo: Arc<Metainfo>,
    trackers: Vec<Vec<String>>,
    peers: Vec<SocketAddr>,
    to: PathBuf,
    target: Arc<dyn Target>,
    /// Pieces that may be there already.
    check: Vec<u32>,
    /// The same as a bitfield (BEP 3).
    hints: Vec<u8>,
    end: Option<End>,
    outcome: Outcome,
    #[expect(dead_code, reason = "held, not read: nobody mounts the target meanwhile")]
    claim: Option<Claim>,
    leftovers: Option<Leftovers>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Failed,
}

impl Task {
    fn prepare(order: Order, deploy: &Deploy, ui: Ui) -> anyhow::Result<Task> {
        let Order { metainfo, trackers, peers, to } = order;
        let opened = if deploy.as_files {
            preflight::open_dir(&to, &metainfo)?
        } else {
            preflight::open(&to, &metainfo, deploy.checks)?
        };
        opened.notes.iter().for_each(|note| ui.note(note));
        let preflight::Target { store: target, claim, leftovers, .. } = opened;
        let (check, hints) = (Vec::new(), Vec::new());
        let (end, outcome) = (None, Outcome::default());
        Ok(Task {
            metainfo,
            trackers,
            peers,
            to,
            target,
            check,
            hints,
            end,
            outcome,
            claim,
            leftovers,
        })
    }
}

/// Finds out which pieces may be on the targets already, and where to note those that come.
fn recall(deploy: &Deploy, tasks: &mut [Task], ui: Ui) -> anyhow::Result<Option<StateFile>> {
    let targets: Vec<_> = tasks.iter().map(|t| (t.metainfo.info_hash(), t.to.as_path())).collect();
    let torrent = Some(Path::new(&deploy.from)).filter(|path| path.is_file());
    let file = StateFile::open(deploy.state.as_deref(), torrent, &targets);
    if file.is_none() {
        ui.detail("/run/ezio cannot be made: an interrupted run will begin anew; see --state");
    }
    let old = file.as_ref().map_or(Ok(State::default()), StateFile::read);
    let old = old.unwrap_or_else(|why| {
        ui.warn(&why);
        State::default()
    });
    for task in tasks {
        let pieces = task.metainfo.piece_count();
        task.check = if deploy.reuse {
            (0..pieces).collect()
        } else {
            old.pieces(&task.metainfo.info_hash(), &task.to, pieces)
        };
        task.outcome.looked_at = task.check.len();
        task.hints = vec![0; pieces.div_ceil(8) as usize];
        for &piece in &task.check {
            task.hints[piece as usize / 8] |= 0x80 >> (piece % 8);
        }
        if !task.check.is_empty() {
            task.target.expect_content()?;
            let (count, to) = (task.check.len(), task.to.display());
            ui.note(&format!("{to} may hold {count} of {pieces} pieces already: looking"));
        }
    }
    Ok(file)
}

/// A deployment that runs.
struct Run<'a> {
    deploy: &'a Deploy,
    node: Node,
    tasks: Vec<Task>,
    state: Option<StateFile>,
    started: Instant,
    ui: Ui,
    stop: &'a AtomicBool,
    reporter: Option<Reporter>,
    /// What of the server's wishes has been done.
    wish: Wish,
    /// Shows how far the images are, until they are there.
    progress: Option<Progress>,
}

impl Run<'_> {
    /// Waits until every image is on its medium.
    fn download(&mut self) -> anyhow::Result<()> {
        let (mut errors, mut noted, mut pause) = (Vec::new(), Instant::now(), STATE_PERIOD);
        let mut stuck = Stuck::new();
        while self.tasks.iter().any(|task| task.end.is_none()) {
            let ended = match self.node.wait(PERIOD) {
                Some(Message::Note(text)) => {
                    self.ui.note(&text);
                    None
                }
                Some(Message::Warning(text)) => {
                    self.ui.warn(&text);
                    None
                }
                Some(Message::Engine(notice)) => self.ended(notice),
                None => None,
            };
            if let Some((index, outcome)) = ended {
                self.tasks[index].end = match outcome.and_then(|()| self.done(index)) {
                    Ok(end) => end,
                    Err(error) => {
                        let error = format!("{error:#}");
                        self.ui.failure(self.describe(index), &error);
                        if self.tasks.len() > 1 {
                            // The only one's failure is the end, and said there.
                            tracing::error!("{error}");
                        }
                        errors.push(error);
                        Some(End::Failed)
                    }
                };
            }
            self.obey();
            let status = self.node.status();
            if let Some(progress) = &self.progress {
                display::show(progress, &self.tasks, &status);
            }
            if self.wish.paused {
                stuck = Stuck::new();
            } else if let Some(why) = stuck.look(&status) {
                self.ui.warn(&why);
            }
            let stopped = self.stop.load(Ordering::Relaxed);
            if noted.elapsed() >= pause || stopped {
                let begun = Instant::now();
                self.note_state();
                noted = Instant::now();
                pause = STATE_PERIOD.max(begun.elapsed() * STATE_SHARE);
            }
            ensure!(!stopped, "{}", self.interrupted());
        }
        self.note_state();
        ensure!(errors.is_empty(), "{}", errors.join("; "));
        Ok(())
    }

    /// Does what the server wants, if that is something else than before.
    fn obey(&mut self) {
        let Some(wish) = self.reporter.as_ref().map(Reporter::wish) else { return };
        if wish.paused != self.wish.paused {
            let hashes = self.tasks.iter().map(|task| task.metainfo.info_hash());
            hashes.for_each(|hash| self.node.pause(hash, wish.paused));
            self.ui.note(if wish.paused { "paused by the server" } else { "resumed" });
        }
        if wish.limit != self.wish.limit {
            self.node.limit(wish.limit.or(self.deploy.node.limit));
            let text = wish.limit.map_or_else(|| "none".to_owned(), |rate| Rate(rate).to_string());
            self.ui.note(&format!("the server's limit is {text}"));
        }
        self.wish = wish;
    }

    fn tell_server(&self, step: Step) {
        if let Some(reporter) = &self.reporter {
            reporter.set(step);
        }
    }

    /// Which target has come to an end, and how.
    fn ended(&self, notice: Notice) -> Option<(usize, anyhow::Result<()>)> {
        let (hash, outcome) = match notice {
            Notice::Finished(hash) => (hash, Ok(())),
            Notice::Failed(hash, error) => (hash, Err(error.to_string())),
            Notice::Unreadable(hash, piece, error) => (
                hash,
                Err(format!("piece {piece}, which was written, cannot be read again: {error}")),
            ),
            Notice::Rotten(hash, piece) => (
                hash,
                Err(format!("piece {piece}, which was written, is not what was written any more")),
            ),
            Notice::Wrong(_, piece, addr) => {
                self.ui.warn(&format!(
                    "piece {piece} from {addr} was wrong: it was told, others are asked for it"
                ));
                return None;
            }
            Notice::MorePeers(_) => return None,
        };
        // One that is done may turn out to be bad while another is still on its way.
        let open = |task: &Task| match task.end {
            None => true,
            Some(End::Done) => outcome.is_err(),
            Some(End::Failed) => false,
        };
        let is_it = |task: &Task| task.metainfo.info_hash() == hash && open(task);
        let index = self.tasks.iter().position(is_it)?;
        let to = self.tasks[index].to.display();
        let outcome = outcome.map_err(|why| anyhow::anyhow!("{why}; {to} is not usable"));
        Some((index, outcome))
    }

    /// The image is flushed: checks it if that was asked for, and says so. `None`: some of it is
    /// fetched once more.
    fn done(&mut self, index: usize) -> anyhow::Result<Option<End>> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.tasks[index].outcome.written.get_or_insert(seconds);
        if self.deploy.verify && !self.read_again(index)? {
            return Ok(None);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let (task, json) = (&self.tasks[index], self.describe(index));
        tell(task, seconds, json, self.ui);
        if let Some(command) = &self.deploy.on_done {
            on_done(command, task, seconds)?;
        }
        Ok(Some(End::Done))
    }

    /// Reads everything from the medium. Returns whether all of it is right; what is not is fetched
    /// once more, the first time.
    fn read_again(&mut self, index: usize) -> anyhow::Result<bool> {
        let task = &mut self.tasks[index];
        task.target.drop_cache();
        let begun = Instant::now();
        let len = task.metainfo.layout().image_len();
        let done = match &self.progress {
            Some(progress) => {
                progress.part(index).set("verifying", 0, len);
                progress.part(index).counter()
            }
            None => Arc::default(),
        };
        tracing::info!(device = %task.to.display(), "reads everything again");
        self.tell_server(Step::Verifying(Arc::clone(&done), len));
        let task = &mut self.tasks[index];
        let bad = verify::bad_pieces(&task.metainfo, &*task.target, &done, self.stop)?;
        *task.outcome.reading.get_or_insert(0.0) += begun.elapsed().as_secs_f64();
        self.tell_server(Step::Downloading);
        let task = &mut self.tasks[index];
        if bad.is_empty() {
            return Ok(true);
        }
        let (to, list) = (task.to.display(), verify::list(&task.metainfo, &bad));
        let list = list.trim_end();
        ensure!(
            task.outcome.again.is_empty(),
            "{to} does not give back what was written to it, also when it is written once more; the \
             disk is broken:\n{list}"
        );
        // What is kept back until the end is on the medium already, unless it is what is bad.
        if let (Err(error), false) = (task.target.expect_content(), bad.contains_key(&0)) {
            anyhow::bail!("{error}; the disk is broken");
        }
        self.ui.warn(&format!(
            "{to} does not give back what was written to it; fetched and written once more:\n{list}"
        ));
        task.outcome.again = bad.into_keys().collect();
        self.node.fetch_again(task.metainfo.info_hash(), task.outcome.again.clone());
        Ok(false)
    }

    /// How the target is now.
    fn describe(&self, index: usize) -> serde_json::Value {
        let task = &self.tasks[index];
        let hash = task.metainfo.info_hash();
        let status = self.node.status().into_iter().find(|torrent| torrent.info_hash == hash);
        let received = status.map_or(0, |torrent| torrent.received);
        let outcome = Outcome { received, ..task.outcome.clone() };
        outcome.describe(&task.metainfo, &task.to, self.started.elapsed().as_secs_f64())
    }

    fn interrupted(&self) -> String {
        let open = self.tasks.iter().filter(|task| task.end != Some(End::Done));
        let open: Vec<String> = open.map(|task| task.to.display().to_string()).collect();
        let resume = match &self.state {
            Some(_) => "; the same command goes on from where it was",
            None => "",
        };
        format!("interrupted; {} is not usable{resume}", open.join(", "))
    }

    fn note_state(&mut self) {
        let Some(file) = &mut self.state else { return };
        let mut state = State::default();
        for task in &self.tasks {
            let info_hash = task.metainfo.info_hash();
            if let Some(mut have) = self.node.have(&info_hash) {
                // What was not looked at yet may be there all the same.
                have.iter_mut().zip(&task.hints).for_each(|(here, hint)| *here |= hint);
                state.add(info_hash, &task.to, &have);
            }
        }
        if let Err(why) = file.write(state) {
            self.ui.warn(&format!("{why}; an interrupted run will begin anew"));
            self.state = None;
        }
    }

    /// Serves the others until none of them wants anything, nothing was sent for a while, or long
    /// enough.
    ///
    /// # Errors
    /// If a target turns out to hold something else than it did when it was finished.
    fn seed(&mut self) -> anyhow::Result<()> {
        let (started, mut sent_at, mut wanted_at) =
            (Instant::now(), Instant::now(), Instant::now());
        let mut sent = 0;
        let mut giving = display::Giving::new(self.ui);
        while started.elapsed() < self.deploy.seed_for && !self.stop.load(Ordering::Relaxed) {
            match self.node.wait(PERIOD) {
                Some(Message::Note(text)) => self.ui.note(&text),
                Some(Message::Warning(text)) => self.ui.warn(&text),
                Some(Message::Engine(Notice::Unreadable(_, piece, error))) => {
                    anyhow::bail!("piece {piece}, which was written, cannot be read again: {error}")
                }
                Some(Message::Engine(Notice::Rotten(_, piece))) => anyhow::bail!(
                    "piece {piece}, which was written, is not what was written any more; the disk \
                     is broken, or something else writes to it"
                ),
                _ => {}
            }
            self.obey();
            if self.wish.finish {
                break;
            }
            let status = self.node.status();
            let total: u64 = status.iter().map(|torrent| torrent.sent).sum();
            giving.show(&status);
            if total != sent {
                (sent_at, sent) = (Instant::now(), total);
            }
            if status.iter().any(|torrent| torrent.peers_interested > 0) {
                wanted_at = Instant::now();
            }
            if sent_at.elapsed().min(wanted_at.elapsed()) >= UNWANTED_MAX
                || sent_at.elapsed() >= IDLE_MAX
            {
                break;
            }
        }
        Ok(())
    }
}

fn tell(task: &Task, seconds: f64, json: serde_json::Value, ui: Ui) {
    let len = task.metainfo.layout().image_len();
    // The rate is for people: a float's 53 bits are enough.
    let rate = Rate((len as f64 / seconds.max(0.001)) as u64);
    let how = match (&task.outcome.reading, task.outcome.again.len()) {
        (None, _) => "every piece verified".to_owned(),
        (Some(_), 0) => "every piece verified and read again".to_owned(),
        (Some(_), bad) => format!("every piece verified and read again, {bad} written twice"),
    };
    let text = format!(
        "{}: {} of {} are on the medium, {how} ({seconds:.1} s, {rate})",
        task.to.display(),
        Bytes(len),
        name_of(&task.metainfo)
    );
    tracing::info!(
        device = %task.to.display(),
        image = %name_of(&task.metainfo),
        bytes = len,
        seconds,
        "the image is on the medium, {how}"
    );
    ui.result(&text, json);
}

fn on_done(command: &str, task: &Task, seconds: f64) -> anyhow::Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", command])
        .env("EZIO_TARGET", &task.to)
        .env("EZIO_INFO_HASH", hex(&task.metainfo.info_hash()))
        .env("EZIO_STATUS", "done")
        .env("EZIO_SECONDS", format!("{seconds:.1}"))
        .env("EZIO_BYTES", task.metainfo.layout().image_len().to_string())
        .stdin(Stdio::null())
        .status()
        .map_err(|e| anyhow::anyhow!("run --on-done `{command}`: {}", io_reason(&e)))?;
    ensure!(status.success(), "the data is on the medium, but --on-done `{command}`: {status}");
    Ok(())
}

/// Forty hexadecimal digits.
///
/// # Errors
/// If it is not that.
pub fn parse_info_hash(text: &str) -> Result<Digest, String> {
    let mut hash = [0; 20];
    let good = text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).map_err(|_| NO_HASH.to_owned())?;
    }
    if good { Ok(hash) } else { Err(NO_HASH.to_owned()) }
}

const NO_HASH: &str = "an info-hash has 40 hexadecimal digits";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_hashes_are_forty_digits() {
        assert_eq!(parse_info_hash(&"0a".repeat(20)), Ok([10; 20]));
        for bad in ["", "0a", &"0g".repeat(20), &"0".repeat(41), &"+1".repeat(20)] {
            let _ = parse_info_hash(bad).unwrap_err();
        }
    }
}
