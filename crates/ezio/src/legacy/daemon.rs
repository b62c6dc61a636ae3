//! The daemon of EZIO 2.x: carries what it is told over gRPC until it is told to end.

use super::grpc::{self, Server};
use super::log::{Level, Log};
use super::messages::Torrent;
use super::options::Options;
use super::session::{News, Session};
use super::signals::Signals;
use crate::logs;
use crate::names;
use crate::node::{BUDGET, NodeOptions};
use anyhow::{Context as _, anyhow};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Where the gRPC service is, if `--listen` does not say.
pub(super) const LISTEN: &str = "127.0.0.1:50051";

/// How often the daemon looks at what happened.
const PERIOD: Duration = Duration::from_millis(100);

/// How often a line about every torrent is logged.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// `--cache-size` may make our memory for pieces larger than the default, up to this: what is more
/// is better used by the kernel's own cache.
const BUDGET_MAX: u64 = 512 << 20;

/// Runs the daemon until a signal or a call of `Shutdown` ends it.
pub(super) fn run(options: &Options) -> ExitCode {
    let log = match Log::start(&options.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("ezio: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    println!("ezio {}", env!("CARGO_PKG_VERSION"));
    let code = match serve(options, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.say(Level::Critical, &format!("{error:#}"));
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    };
    logs::flush();
    code
}

/// Where a script keeps errors, unless the log is there.
fn complain(text: &str) {
    if !logs::has_stderr() {
        eprintln!("ezio: {text}");
    }
}

fn serve(options: &Options, log: Log) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    let listen = options.listen.as_deref().unwrap_or(LISTEN);
    // First of all: a daemon that is about to end lets this port go last.
    let listener = grpc::bind(&addresses(listen)?, signals.number())
        .map_err(|e| anyhow!("listen on {listen} for gRPC: {e}; does another ezio run?"))?;
    let session = start(&node_options(options)?, options.file, &signals)?;
    let session = Arc::new(session);
    let server = Server::start(listener, Arc::clone(&session), false)?;
    log.say(Level::Info, &format!("listening on {listen}"));
    if options.slow_start || options.slow_start_period.is_some() {
        log.say(Level::Info, "slow start is not needed: a source gives every piece once first");
    }
    let mut printed = Instant::now();
    while signals.caught().is_none() && !session.is_stopped() {
        for news in session.pump() {
            tell(log, &news);
        }
        if printed.elapsed() >= LINE_PERIOD {
            printed = Instant::now();
            session.torrents().iter().for_each(|t| log.say(Level::Info, &line(t)));
        }
        thread::sleep(PERIOD);
    }
    log.say(Level::Info, "shutting down");
    session.end();
    drop(server);
    Ok(())
}

fn tell(log: Log, news: &News) {
    match news {
        News::Finished(path) => log.say(Level::Info, &format!("[{path}] finished and flushed")),
        News::Failed(path, why) => {
            log.say(Level::Critical, &format!("[{path}] {why}"));
            complain(&format!("{path}: {why}"));
        }
        News::Note(text) => log.say(Level::Warn, text),
    }
}

/// As the C++ EZIO logs it every five seconds.
fn line(torrent: &Torrent) -> String {
    let mb = |rate: i64| rate as f64 / f64::from(1 << 20);
    let flags = [(torrent.is_paused, "P"), (torrent.is_finished, "F")];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
    format!(
        "[{}][{}%][D: {:.2}MB/s][U: {:.2}MB/s][{flags}][A: {}][F: {}][S: {}]",
        torrent.save_path,
        (torrent.progress * 100.0) as i64,
        mb(torrent.download_rate),
        mb(torrent.upload_rate),
        torrent.active_time,
        torrent.finished_time,
        torrent.seeding_time,
    )
}

/// The addresses of `ADDRESS:PORT`.
///
/// # Errors
/// If it is none, or a name that is not known.
pub(super) fn addresses(listen: &str) -> anyhow::Result<Vec<SocketAddr>> {
    names::look_up_pair(listen)
        .map_err(|e| anyhow!("`{listen}` is no address such as {LISTEN}: {e}"))
}

/// Starts the node; while its port is held by a daemon that is about to end, tries again.
fn start(options: &NodeOptions, files: bool, signals: &Signals) -> anyhow::Result<Session> {
    let begin = Instant::now();
    loop {
        match Session::start(options, files) {
            Err(_) if begin.elapsed() < PORT_TIME_MAX && signals.caught().is_none() => {
                thread::sleep(PERIOD);
            }
            result => return result,
        }
    }
}

/// How long to go on trying to listen for peers.
const PORT_TIME_MAX: Duration = Duration::from_secs(10);

fn node_options(options: &Options) -> anyhow::Result<NodeOptions> {
    let port = options.port.filter(|&port| port != 0).map(u16::try_from).transpose();
    let cache = options.cache_mb.and_then(|mb| u64::try_from(mb).ok());
    let cache = cache.map_or(BUDGET, |mb| mb.saturating_mul(1 << 20));
    Ok(NodeOptions {
        port: port.context("--port is a number from 1 to 65535, or 0 for 6881")?,
        budget: cache.clamp(BUDGET, BUDGET_MAX),
        ..NodeOptions::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_a_torrent_is_that_of_the_cpp_ezio() {
        let torrent = Torrent {
            save_path: "/dev/sda1".to_owned(),
            progress: 0.559,
            download_rate: 100 << 20,
            upload_rate: 3 << 19,
            active_time: 70,
            finished_time: 5,
            seeding_time: 4,
            is_paused: true,
            is_finished: true,
            ..Torrent::default()
        };
        assert_eq!(
            line(&torrent),
            "[/dev/sda1][55%][D: 100.00MB/s][U: 1.50MB/s][PF][A: 70][F: 5][S: 4]"
        );
    }

    #[test]
    fn the_memory_has_bounds() {
        let budget = |cache_mb| {
            let options = Options { cache_mb, ..Options::default() };
            node_options(&options).unwrap().budget >> 20
        };
        assert_eq!(
            [None, Some(-1), Some(1), Some(300), Some(1 << 40)].map(budget),
            [128, 128, 128, 300, 512]
        );
    }
}
