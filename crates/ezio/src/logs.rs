//! The log: what happens, for administrators and their machines. Text, JSON, or systemd's journal.
//!
//! One road: whoever has something to say gives it to [`crate::ui::Ui`], if people at the terminal are to
//! know, else to `tracing` alone; `Ui` passes everything on to `tracing`, and here it becomes lines. While
//! the log has the standard error, `Ui` prints nothing there: nothing is said twice.
//!
//! `tracing` without `tracing-subscriber`: there are no spans to keep, levels are all there is to filter,
//! and two of the four forms (journald, spdlog) would have been ours anyway. Lines are written by a thread
//! of its own: a terminal that is stopped or a full pipe must never hold the scheduler up. What does not
//! fit into its queue is counted and said.

mod form;
mod journal;

use crate::store::io_reason;
use anyhow::Context as _;
use clap::ValueEnum;
use form::{Form, Record};
use journal::Journal;
use serde_json::Value;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};

/// Where the log goes, and how much of it: options of serve, deploy and the daemon.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LogArgs {
    /// Write a log of what happens to FILE, at its end; if somebody moves it away, as logrotate does, to a
    /// new one [default: what people should know goes to the standard error; to the journal if systemd
    /// runs this]
    #[arg(long = "log", value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// How the log is written; without --log to the standard error
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<Format>,

    /// The least important lines that are written [default: info; with -v debug, with -q error]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub log_level: Option<Level>,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Time, level, what, and `name=value`
    Text,
    /// One object a line
    Json,
    /// systemd's journal, with a field for each value
    Journald,
}

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    /// Of use only with the source at hand
    Trace,
    /// What helps to understand a run
    Debug,
    /// What happens
    Info,
    /// What somebody should look at; the work goes on
    #[value(alias = "warning")]
    Warn,
    /// What failed
    Error,
    /// What ends a torrent of the daemon
    #[value(skip)]
    Critical,
    /// Of no line: nothing is written
    #[value(skip)]
    Off,
}

impl Level {
    /// As lines have it, and `spdlog`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
            Level::Off => "off",
        }
    }

    /// syslog(3)'s number.
    fn priority(self) -> u8 {
        match self {
            Level::Trace | Level::Debug => 7,
            Level::Info => 6,
            Level::Warn => 4,
            Level::Error => 3,
            Level::Critical | Level::Off => 2,
        }
    }

    fn of(level: tracing::Level) -> Level {
        match level {
            tracing::Level::TRACE => Level::Trace,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::INFO => Level::Info,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::ERROR => Level::Error,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Level::Trace => LevelFilter::TRACE,
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error | Level::Critical => LevelFilter::ERROR,
            Level::Off => LevelFilter::OFF,
        }
    }
}

/// Starts the log of this process as asked for; `unsaid` is the level if the options name none. Without
/// options there is none, unless the standard error is read by systemd's journal.
///
/// # Errors
/// If the file cannot be opened, the journal not be reached though asked for, or there is a log already.
pub fn start(args: &LogArgs, unsaid: Level) -> anyhow::Result<()> {
    let least = args.log_level.unwrap_or(unsaid);
    let format = match (&args.file, args.log_format) {
        (Some(_), Some(Format::Journald)) => {
            anyhow::bail!("--log FILE and --log-format journald do not go together; give one");
        }
        (_, Some(format)) => format,
        (Some(_), None) => Format::Text,
        (None, None) if journal::reads(io::stderr()) => Format::Journald,
        (None, None) if args.log_level.is_some() => Format::Text,
        (None, None) => return Ok(()),
    };
    let output = match (format, &args.file) {
        (Format::Journald, _) => Output::journal(Stream::Err),
        (Format::Json, Some(path)) => Output::file(path, Form::Json)?,
        (_, Some(path)) => Output::file(path, Form::Text)?,
        (Format::Json, None) => Output::Stream(Stream::Err, Form::Json),
        (Format::Text, None) => Output::Stream(Stream::Err, Form::Text),
    };
    begin(output, least)
}

/// As [`start`], for the daemon: without options its lines are those of `spdlog`, on the standard output,
/// or in the journal if that reads it.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_daemon(args: &LogArgs, unsaid: Level) -> anyhow::Result<()> {
    let asked = args.file.is_some() || args.log_format.is_some();
    if asked {
        return start(args, unsaid);
    }
    let output = if journal::reads(io::stdout()) {
        Output::journal(Stream::Out)
    } else {
        Output::Stream(Stream::Out, Form::Spdlog)
    };
    begin(output, args.log_level.unwrap_or(unsaid))
}

/// Whether what people are to know reaches the standard error as lines of the log.
#[must_use]
pub fn has_stderr() -> bool {
    LOG.get().is_some_and(|log| log.has_stderr)
}

/// Waits until what was said so far is written, a second at the most.
pub fn flush() {
    let Some(log) = LOG.get() else { return };
    let (done, written) = sync_channel(1);
    if log.sender.send(Order::Flush(done)).is_ok() {
        let _ = written.recv_timeout(FLUSH_TIME_MAX);
    }
}

const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Lines that may wait to be written: a second of a busy node at level trace.
const LINES_MAX: usize = 4096;

/// The log of this process: it has one, as it has one standard error.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    sender: SyncSender<Order>,
    has_stderr: bool,
}

enum Order {
    Write(Record),
    Flush(SyncSender<()>),
}

fn begin(output: Output, least: Level) -> anyhow::Result<()> {
    let (sender, orders) = sync_channel(LINES_MAX);
    let has_stderr = matches!(output, Output::Stream(Stream::Err, _) | Output::Journal(_));
    thread::Builder::new()
        .name("log".into())
        .spawn(move || write(output, &orders))
        .context("start the thread `log`")?;
    let subscriber = Lines { sender: sender.clone(), least };
    tracing::subscriber::set_global_default(subscriber).context("start the log")?;
    let _ = LOG.set(Log { sender, has_stderr });
    Ok(())
}

/// Lines that did not fit into the queue.
static LOST: AtomicU64 = AtomicU64::new(0);

fn write(mut output: Output, orders: &Receiver<Order>) {
    for order in orders {
        match order {
            Order::Write(record) => output.put(&record),
            Order::Flush(done) => drop(done.send(())),
        }
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} lines of this log are missing: it was not read fast enough");
            output.put(&Record::new(Level::Warn, text));
        }
    }
}

enum Stream {
    Out,
    Err,
}

/// Where lines go. That one cannot be written ends nothing.
enum Output {
    Stream(Stream, Form),
    File(Kept, Form),
    Journal(Journal),
}

impl Output {
    fn file(path: &Path, form: Form) -> anyhow::Result<Output> {
        let file = Kept::open(path.to_owned()).map_err(|e| {
            let (shown, why) = (path.display(), io_reason(&e));
            anyhow::anyhow!("open the log {shown}: {why}; choose another file with --log")
        })?;
        Ok(Output::File(file, form))
    }

    /// The journal, or where there is none the prefixes by which it would know levels (sd-daemon(3)).
    fn journal(stream: Stream) -> Output {
        Journal::open().map_or(Output::Stream(stream, Form::Prefixed), Output::Journal)
    }

    fn put(&mut self, record: &Record) {
        let _: io::Result<()> = match self {
            // One write a line: several processes may share a file or a terminal.
            Output::Stream(Stream::Err, form) => {
                io::stderr().lock().write_all(form.line(record).as_bytes())
            }
            Output::Stream(Stream::Out, form) => {
                let mut out = io::stdout().lock();
                out.write_all(form.line(record).as_bytes()).and_then(|()| out.flush())
            }
            Output::File(file, form) => file.append(form.line(record).as_bytes()),
            Output::Journal(journal) => journal
                .put(record)
                .or_else(|_| io::stderr().lock().write_all(Form::Prefixed.line(record).as_bytes())),
        };
    }
}

/// A file whose name may come to mean another one, or none.
struct Kept {
    path: PathBuf,
    file: File,
    /// Device and inode.
    id: (u64, u64),
}

impl Kept {
    fn open(path: PathBuf) -> io::Result<Kept> {
        let file = File::options().append(true).create(true).open(&path)?;
        let id = id(&file.metadata()?);
        Ok(Kept { path, file, id })
    }

    /// Writes at the end of what has the name now. If that cannot be opened the old file goes on.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let here = std::fs::metadata(&self.path).is_ok_and(|found| id(&found) == self.id);
        if !here && let Ok(again) = Kept::open(self.path.clone()) {
            *self = again;
        }
        self.file.write_all(line)
    }
}

fn id(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Makes records of events and hands them over; never waits.
struct Lines {
    sender: SyncSender<Order>,
    least: Level,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries have much to say that nobody here can act on.
        let ours = metadata.target() == "ezio" || metadata.target().starts_with("ezio::");
        ours && metadata.is_event() && *metadata.level() <= self.least.filter()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.least.filter())
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut record = Record {
            module: metadata.target(),
            at: SystemTime::now(),
            ..Record::new(Level::of(*metadata.level()), String::new())
        };
        event.record(&mut record);
        if record.level < self.least {
            return;
        }
        if self.sender.try_send(Order::Write(record)).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Visit for Record {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == CRITICAL {
            self.level = Level::Critical;
        } else {
            self.fields.push((field.name(), value.into()));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field.name(), format!("{value:?}"));
    }
}

/// The field of an event that makes it critical: `tracing` knows nothing above an error.
const CRITICAL: &str = "critical";

impl Record {
    fn take(&mut self, name: &'static str, text: String) {
        if name == "message" {
            self.message = text;
        } else {
            self.fields.push((name, Value::String(text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_moved_away_goes_on_in_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let mut kept = Kept::open(path.clone()).unwrap();
        kept.append(b"one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        kept.append(b"two\n").unwrap();
        kept.append(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\nthree\n");
        // Where there is no place for a new one, the lines are with those before.
        std::fs::rename(&path, &old).unwrap();
        std::fs::create_dir(&path).unwrap();
        kept.append(b"four\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "two\nthree\nfour\n");
    }
}
