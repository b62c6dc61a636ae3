//! EZIO 1.x: every torrent of the command line at once, until all were served for long enough.
//!
//! What it prints, its order and its exit codes are those of the C++ EZIO 1.2.1. Where that crashed
//! or went on with a target that it could not open, this says why on standard error and ends with 1.

use super::daemon::{LISTEN, addresses};
use super::grpc::{self, Server};
use super::messages::Torrent;
use super::options::Options;
use super::policy::OneShot;
use super::session::{News, Session};
use super::signals::Signals;
use crate::control;
use crate::magnet;
use crate::node::{BUDGET, NodeOptions};
use crate::store::io_reason;
use anyhow::{Context as _, anyhow, bail, ensure};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use swarm::bencode::Limits;
use swarm::magnet::Magnet;
use swarm::swarm::Caps;

/// Defaults of `-e` and `-t`.
const RATIO: i64 = 3;
const TIMEOUT_MIN: i64 = 15;

/// How often a line is printed.
const PERIOD: Duration = Duration::from_secs(1);

/// How often what happened is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Between the end of the download and the first look at the stop rules.
const BREATH: Duration = Duration::from_secs(3);

/// What the C++ EZIO 1.x prints for `-h`, and when it does not understand its arguments.
pub(super) const HELP: &str = "\
Allowed Options:
  -h [ --help ]          some help
  -e [ --ratio ] arg     assign seeding ratio limit
  -t [ --timeout ] arg   assign timeout as N min(s).
  -k [ --contact ] arg   assign maxminum failure number to contact tracker
  -m [ --maxu ] arg      assign maxminum upload number
  -c [ --maxc ] arg      assign maxminum connection number
  -s [ --sequential ]    enable sequential download
  -f [ --file ]          read data from file rather than raw disk
  -U [ --upload ]        seed mode
  --cache arg            assign cache size as N KiB, accepted and not needed
  --listen arg           gRPC service listen address and port, default is 
                         127.0.0.1:50051
  -T [ --torrent ] arg   multiple torrent support --torrent a.torrent --torrent
                         b.torrent
  -L [ --save_path ] arg multiple torrent support --save_path a/ --save_path b/
";

/// How a run came to its end.
enum End {
    Done,
    Signal(u8),
}

/// Runs to the end that the options ask for.
pub(super) fn run(options: &Options) -> ExitCode {
    let pairs = match pairs(options) {
        Ok(pairs) => pairs,
        Err(why) => {
            print(HELP);
            eprintln!("ezio: {why:#}");
            return ExitCode::FAILURE;
        }
    };
    match serve(options, &pairs) {
        Ok(End::Done) => ExitCode::SUCCESS,
        // As a shell sees a program that the signal has ended.
        Ok(End::Signal(number)) => ExitCode::from(128 + number),
        Err(error) => {
            eprintln!("Error\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Torrents and their paths: `-T` and `-L` in their order, then the arguments without a flag.
fn pairs(options: &Options) -> anyhow::Result<Vec<(String, String)>> {
    let legacy = &options.legacy[..];
    let (torrents, paths) = (options.torrents.len(), options.save_paths.len());
    ensure!(
        legacy.len() != 1,
        "`{}` is neither a command nor has it a PATH behind it; see ezio --help",
        legacy[0]
    );
    ensure!(
        torrents == paths,
        "{torrents} times --torrent, but {paths} times --save_path; each torrent needs its own"
    );
    let zipped = options.torrents.iter().zip(&options.save_paths);
    let mut pairs: Vec<_> = zipped.map(|(t, p)| (t.clone(), p.clone())).collect();
    if let [torrent, path] = legacy {
        pairs.push((torrent.clone(), path.clone()));
    }
    ensure!(!pairs.is_empty(), "no torrent was given; see --torrent and --save_path");
    Ok(pairs)
}

fn serve(options: &Options, pairs: &[(String, String)]) -> anyhow::Result<End> {
    let signals = Signals::watch()?;
    let node = NodeOptions { budget: BUDGET, ..NodeOptions::default() };
    // All of them are read before anything is written.
    let mut torrents = Vec::new();
    for (torrent, _) in pairs {
        match find(torrent, &node, &signals)? {
            Ok(found) => torrents.push(found),
            Err(number) => return Ok(End::Signal(number)),
        }
    }
    let session = Arc::new(Session::start(&node, options.file)?);
    let _server = status_service(options, &session, &signals);
    for ((_, path), (torrent, peers)) in pairs.iter().zip(torrents) {
        if options.sequential {
            print("//NOTE// Sequential download is enabled!\n");
        }
        let added = session.add(torrent, Path::new(path), options.upload, caps(options));
        match added {
            Ok(info_hash) => peers.into_iter().for_each(|addr| session.found(info_hash, addr)),
            Err(refused) => {
                session.end();
                return Err(refused.why());
            }
        }
    }
    let run = Run { options, session: &session, signals: &signals };
    let end = run.to_the_end();
    session.end();
    end
}

/// What a person typed binds. Numbers that are not positive are no bound, as with libtorrent; nor is
/// what was not typed, because the defaults of 1.x make islands of a large swarm.
fn caps(options: &Options) -> Caps {
    let cap = |number: Option<i64>| {
        let number = number.filter(|&number| number > 0)?;
        Some(u32::try_from(number).unwrap_or(u32::MAX))
    };
    Caps {
        uploads: cap(options.max_uploads),
        connections: cap(options.max_connections),
        strangers_only: false,
    }
}

/// The bytes of a torrent, and where peers of it listen: of a file, from a URL, or from the peers
/// themselves if it is a magnet link. Or the signal that came while it was waited for.
fn find(
    torrent: &str,
    node: &NodeOptions,
    signals: &Signals,
) -> anyhow::Result<Result<Torrented, u8>> {
    let stopped = || signals.caught().is_some();
    let found = if Magnet::is_meant(torrent) {
        let magnet = magnet::parse(torrent)?;
        let note = |text: &str| eprintln!("ezio: {text}");
        magnet::fetch(&magnet, node, &stopped, &note)
            .map(|found| (found.metainfo.as_bytes().to_vec(), found.peers))
    } else if torrent.starts_with("http://") {
        control::fetch_until(torrent, Limits::TORRENT.bytes, signals.came())
            .map(|bytes| (bytes, Vec::new()))
    } else {
        read(torrent).map(|bytes| (bytes, Vec::new()))
    };
    signals.caught().map_or_else(|| found.map(Ok), |number| Ok(Err(number)))
}

/// A torrent's bytes, and where peers of it listen.
type Torrented = (Vec<u8>, Vec<SocketAddr>);

/// The bytes of a torrent file.
fn read(torrent: &str) -> anyhow::Result<Vec<u8>> {
    let path = Path::new(torrent);
    if !torrent.ends_with(".torrent") && !path.is_file() {
        bail!(
            "{torrent} is no file whose name ends in .torrent, no magnet link, and no URL that \
             begins with http://"
        );
    }
    let len = std::fs::metadata(path).map(|metadata| metadata.len());
    let len = len.map_err(|e| anyhow!("open {torrent}: {}", io_reason(&e)))?;
    ensure!(
        len <= Limits::TORRENT.bytes as u64,
        "{torrent} has {len} bytes, more than a torrent may have; is it the image?"
    );
    std::fs::read(path).map_err(|e| anyhow!("read {torrent}: {}", io_reason(&e)))
}

/// Answers about progress; a run whose port is taken does without.
fn status_service(options: &Options, session: &Arc<Session>, signals: &Signals) -> Option<Server> {
    let listen = options.listen.as_deref().unwrap_or(LISTEN);
    let start = || -> anyhow::Result<Server> {
        let addrs = addresses(listen)?;
        // Nobody waits ten seconds for what is only asked for progress.
        let listener = std::net::TcpListener::bind(&addrs[..]);
        let listener = match (listener, &options.listen) {
            (Err(_), Some(_)) => grpc::bind(&addrs, signals.number()),
            (listener, _) => listener,
        };
        let listener = listener.map_err(|e| anyhow!("{e}"))?;
        Server::start(listener, Arc::clone(session), true)
    };
    let started = start().with_context(|| format!("nobody can ask for the status at {listen}"));
    started.map_err(|why| eprintln!("ezio: {why:#}")).ok()
}

struct Run<'a> {
    options: &'a Options,
    session: &'a Session,
    signals: &'a Signals,
}

impl Run<'_> {
    fn to_the_end(&self) -> anyhow::Result<End> {
        print("Start downloading\n");
        loop {
            let torrents = self.session.torrents();
            print(&downloading(&torrents));
            if torrents.iter().all(|torrent| torrent.is_finished) {
                print(&averages(&torrents));
                break;
            }
            if let Some(number) = self.rest(PERIOD)? {
                return Ok(End::Signal(number));
            }
        }
        self.seed()
    }

    fn seed(&self) -> anyhow::Result<End> {
        let rule = OneShot {
            ratio: self.options.ratio.unwrap_or(RATIO),
            timeout_min: self.options.timeout.unwrap_or(TIMEOUT_MIN),
        };
        let mut wait = BREATH;
        loop {
            if let Some(number) = self.rest(wait)? {
                return Ok(End::Signal(number));
            }
            wait = PERIOD;
            let torrents = self.session.torrents();
            print(&seeding(&torrents));
            if self.options.upload {
                continue;
            }
            let over = |torrent: &&Torrent| !torrent.is_paused && rule.is_over(torrent);
            torrents.iter().filter(over).for_each(|t| self.session.pause(&t.hash, true));
            if torrents.iter().all(|torrent| torrent.is_paused) {
                print("\nDone, shutting down\n");
                return Ok(End::Done);
            }
        }
    }

    /// Lets `time` pass. Returns the signal that came meanwhile.
    ///
    /// # Errors
    /// If a target has failed.
    fn rest(&self, time: Duration) -> anyhow::Result<Option<u8>> {
        let begin = Instant::now();
        while begin.elapsed() < time {
            for news in self.session.pump() {
                match news {
                    News::Failed(path, why) => bail!("{path}\n{why}"),
                    News::Note(text) => eprintln!("ezio: {text}"),
                    News::Finished(_) => {}
                }
            }
            if let Some(number) = self.signals.caught() {
                return Ok(Some(number));
            }
            thread::sleep(LOOK.min(time.saturating_sub(begin.elapsed())));
        }
        Ok(None)
    }
}

/// The line of every second while something is missing.
fn downloading(torrents: &[Torrent]) -> String {
    let percent: i64 = torrents.iter().map(|t| (t.progress * 100.0) as i64).sum();
    let first = torrents.first();
    format!(
        "\r[P: {}%] [D: {:.2} GB/min] [DT: {} secs] [U: {:.2} GB/min] [UT: {} secs] ",
        percent / i64::try_from(torrents.len().max(1)).unwrap_or(1),
        gib_per_min(torrents.iter().map(|torrent| torrent.download_rate).sum()),
        first.map_or(0, |torrent| torrent.active_time),
        gib_per_min(torrents.iter().map(|torrent| torrent.upload_rate).sum()),
        first.map_or(0, |torrent| torrent.seeding_time),
    )
}

/// The line of every second afterwards.
fn seeding(torrents: &[Torrent]) -> String {
    format!(
        "\r[U: {:.2} GB/min] [T: {} secs] ",
        gib_per_min(torrents.iter().map(|torrent| torrent.upload_rate).sum()),
        torrents.iter().map(|torrent| torrent.seeding_time).max().unwrap_or(0),
    )
}

fn averages(torrents: &[Torrent]) -> String {
    let mut text = "\n".to_owned();
    for torrent in torrents.iter().filter(|torrent| torrent.active_time > 0) {
        let rate = torrent.total_done / torrent.active_time;
        let mib = rate as f64 / f64::from(1 << 20);
        let gib = gib_per_min(rate);
        // Writing into a string does not fail.
        let _ = write!(text, "\nAvg D: {gib:.2} GB/min, {mib:.2} MB/s\n");
    }
    text
}

fn gib_per_min(bytes_per_s: i64) -> f64 {
    bytes_per_s as f64 * 60.0 / f64::from(1 << 30)
}

/// To standard output, at once: the lines end in no newline. That nobody reads them must end
/// nothing.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 GiB in 40 s.
    fn torrents() -> Vec<Torrent> {
        let first = Torrent {
            progress: 0.999,
            download_rate: (1 << 30) / 60,
            upload_rate: (1 << 30) / 30,
            active_time: 40,
            seeding_time: 7,
            total_done: 2 << 30,
            ..Torrent::default()
        };
        vec![first, Torrent { progress: 0.5, seeding_time: 9, ..Torrent::default() }]
    }

    #[test]
    fn lines_are_those_of_1_2_1_byte_for_byte() {
        assert_eq!(
            downloading(&torrents()),
            "\r[P: 74%] [D: 1.00 GB/min] [DT: 40 secs] [U: 2.00 GB/min] [UT: 7 secs] "
        );
        assert_eq!(seeding(&torrents()), "\r[U: 2.00 GB/min] [T: 9 secs] ");
        assert_eq!(averages(&torrents()), "\n\nAvg D: 3.00 GB/min, 51.20 MB/s\n");
    }

    #[test]
    fn torrents_and_paths_are_zipped_in_their_order() {
        let check = |line: &str| {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            pairs(&super::super::options::parse(&args).unwrap())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            check("-T a -T b -L 1 -L 2 c 3").unwrap(),
            [pair("a", "1"), pair("b", "2"), pair("c", "3")]
        );
        assert!(check("-T a -T b -L 1").is_err() && check("a").is_err() && check("-U").is_err());
    }
}
