//! The helper programs of EZIO 2.x by their names, as links to this program: what Clonezilla's
//! scripts call to add torrents, to wait for them, to end the daemon.

use super::client::Client;
use super::daemon::LISTEN;
use super::messages::{AddRequest, Torrent};
use super::policy::Watching;
use super::signals::Signals;
use super::view::{View, Wish};
use crate::capture::{self, Capture};
use crate::screen::Screen;
use crate::store::io_reason;
use crate::ui::Ui;
use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Parser;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

/// Runs the helper of this name, if there is one.
pub(super) fn run(name: &str) -> Option<ExitCode> {
    let outcome = match name {
        "ezio_add_torrent.py" => add(&Add::parse()),
        // Clonezilla 5.4 to 5.9.
        "ezio_add_torrent_seed.py" => add(&Add { seed: true, ..Add::parse() }),
        "ezio_pause_torrent.py" => pause(true),
        "ezio_resume_torrent.py" => pause(false),
        "ezio_shutdown.py" => Client::connect(LISTEN).and_then(|mut daemon| daemon.shutdown()),
        "ezio_cli.py" => watch(&Watch::parse(), false),
        "ezio_ui.py" => watch(&Watch::parse(), true),
        "partclone_create_torrent.py" => create(Create::parse()),
        _ => return None,
    };
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    })
}

/// Have the daemon carry a torrent.
#[derive(Debug, Parser)]
#[command(name = "ezio_add_torrent.py", version)]
struct Add {
    /// The .torrent file
    torrent: PathBuf,

    /// The device, file, or directory of its image
    save_path: String,

    /// The daemon's gRPC address
    #[arg(short, long, default_value = LISTEN)]
    address: String,

    /// All of it is there: only serve it
    #[arg(short = 'S', long)]
    seed: bool,

    /// Ask for pieces in their order
    #[arg(short, long)]
    sequential: bool,

    /// Connections, a hint
    #[arg(short = 'c', long, default_value_t = 3)]
    max_connections: i32,

    /// Uploads at a time, a hint
    #[arg(short = 'u', long, default_value_t = 2)]
    max_uploads: i32,
}

fn add(add: &Add) -> anyhow::Result<()> {
    let torrent = std::fs::read(&add.torrent)
        .map_err(|e| anyhow!("read {}: {}", add.torrent.display(), io_reason(&e)))?;
    let request = AddRequest {
        torrent,
        save_path: add.save_path.clone(),
        seeding_mode: add.seed,
        max_uploads: add.max_uploads,
        max_connections: add.max_connections,
        sequential_download: add.sequential,
    };
    Client::connect(&add.address)?.add(request)?;
    Ok(())
}

fn pause(paused: bool) -> anyhow::Result<()> {
    let Some(hash) = std::env::args().nth(1) else { bail!("no torrent") };
    let mut daemon = Client::connect(LISTEN)?;
    if paused { daemon.pause(&hash) } else { daemon.resume(&hash) }
}

/// Wait until all torrents are whole and were served for a while, then end the daemon.
#[derive(Debug, Parser)]
#[command(name = "ezio_cli.py", version)]
struct Watch {
    /// The daemon's gRPC address
    #[arg(short, long, default_value = LISTEN)]
    address: String,

    /// Seconds to serve others at least
    #[arg(short, long, default_value_t = 15)]
    wait: i64,

    /// Seconds without upload after which others need nothing
    #[arg(short, long, default_value_t = 15)]
    last_upload: i64,
}

/// How often the torrents are looked at.
const PERIOD: Duration = Duration::from_secs(2);

/// How long the daemon may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// Shows how far everything is, on the whole terminal if `screen`, and ends the daemon.
fn watch(watch: &Watch, screen: bool) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    let rule = Watching { wait_secs: watch.wait, last_upload_secs: watch.last_upload };
    let mut daemon = Client::connect(&watch.address)?;
    let screen = if screen { Screen::take() } else { None };
    let mut view = View::default();
    while signals.caught().is_none() {
        let torrents = daemon.status(&[])?;
        let failed = failures(&mut daemon);
        match &screen {
            Some(screen) => {
                if show(screen, &mut view, &torrents, &failed) == Wish::Quit {
                    return Ok(());
                }
            }
            None => print(&line(&torrents)),
        }
        let over = |torrent: &&Torrent| rule.is_over(torrent);
        torrents.iter().filter(over).try_for_each(|torrent| daemon.pause(&torrent.hash))?;
        let done = |torrent: &Torrent| torrent.is_finished && torrent.is_paused;
        if torrents.iter().all(|torrent| done(torrent) || failed.contains_key(&torrent.hash)) {
            drop(screen);
            return finish(&mut daemon, watch, failed);
        }
        if screen.is_none() {
            thread::sleep(PERIOD);
        }
    }
    bail!("interrupted; the daemon goes on")
}

/// Ends the daemon and says what failed.
fn finish(
    daemon: &mut Client,
    watch: &Watch,
    failed: BTreeMap<String, String>,
) -> anyhow::Result<()> {
    daemon.shutdown()?;
    wait_for_end(&watch.address);
    print("\nFinished. Exiting...\n");
    let why: Vec<String> = failed.into_values().collect();
    ensure!(why.is_empty(), "{}", why.join("; "));
    Ok(())
}

/// Draws, and for a second does at once what keys ask for.
fn show(
    screen: &Screen,
    view: &mut View,
    torrents: &[Torrent],
    errors: &BTreeMap<String, String>,
) -> Wish {
    let draw = |view: &View| screen.draw(&view.draw(torrents, errors, screen.size()));
    draw(view);
    for _ in 0..10 {
        let keys = screen.keys();
        if keys.iter().any(|&key| view.press(key) == Wish::Quit) {
            return Wish::Quit;
        }
        if !keys.is_empty() {
            draw(view);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Wish::Nothing
}

/// That nobody reads it must not keep the daemon from ending.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Torrents that will never be whole, and why. The C++ EZIO's daemon knows of none.
fn failures(daemon: &mut Client) -> BTreeMap<String, String> {
    let details = daemon.details().unwrap_or_default();
    let failed = details.into_iter().filter(|detail| !detail.error.is_empty());
    failed.map(|detail| (detail.hash, detail.error)).collect()
}

/// Waits until the daemon has let go of its port, and so of its devices.
fn wait_for_end(addr: &str) {
    let begin = std::time::Instant::now();
    while begin.elapsed() < END_TIME_MAX && std::net::TcpStream::connect(addr).is_ok() {
        thread::sleep(Duration::from_millis(100));
    }
}

fn line(torrents: &[Torrent]) -> String {
    let sum = |of: fn(&Torrent) -> i64| torrents.iter().map(of).sum::<i64>();
    let gib_per_min = |rate: i64| rate as f64 * 60.0 / f64::from(1 << 30);
    format!(
        "\r[T: {}s][P: {:3}%][D: {:.2}GB/min][U: {:.2}GB/min][R: {}]",
        torrents.iter().map(|torrent| torrent.active_time).max().unwrap_or(0),
        i128::from(sum(|t| t.total_done)) * 100 / i128::from(sum(|t| t.total).max(1)),
        gib_per_min(sum(|t| t.download_rate)),
        gib_per_min(sum(|t| t.upload_rate)),
        torrents.iter().filter(|torrent| !torrent.is_finished).count(),
    )
}

/// Make a torrent of partclone's torrent.info.
#[derive(Debug, Parser)]
#[command(name = "partclone_create_torrent.py", version)]
struct Create {
    /// The torrent's name: sda1, or vg/lv
    #[arg(short = 'p', long = "prefix", value_name = "NAME")]
    name: String,

    /// The torrent to write
    #[arg(short, long)]
    output: PathBuf,

    /// Who makes it
    #[arg(short, long)]
    creator: String,

    /// partclone's torrent.info; standard input without it
    #[arg(short, long)]
    info: Option<PathBuf>,

    /// The tracker's announce URL
    #[arg(short, long)]
    tracker: Option<String>,
}

fn create(create: Create) -> anyhow::Result<()> {
    let mut input = tempfile::NamedTempFile::new().context("make a temporary file")?;
    let source = match create.info {
        Some(path) => path,
        None => {
            std::io::copy(&mut std::io::stdin().lock(), &mut input).context("read the input")?;
            input.path().to_owned()
        }
    };
    let output = create.output.display().to_string();
    let job = Capture {
        source,
        output: create.output,
        name: Some(create.name),
        trackers: create.tracker.into_iter().collect(),
        creator: create.creator,
        ..Capture::default()
    };
    let quiet = Ui { json: false, quiet: true, verbose: false };
    capture::run_torrent_info(&job, quiet, &AtomicBool::new(false))?;
    println!("{output} created successfully");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Add::command().debug_assert();
        Watch::command().debug_assert();
        Create::command().debug_assert();
    }

    #[test]
    fn clonezillas_command_lines_are_understood() {
        let add = |line: &str| Add::try_parse_from(line.split(' ')).unwrap();
        let seeder = add("ezio_add_torrent.py -S -c 6 -u 5 a/sda1.torrent /dev/sda1");
        assert!(seeder.seed && (seeder.max_connections, seeder.max_uploads) == (6, 5));
        let plain = add("ezio_add_torrent.py a.torrent /dev/sda1");
        assert_eq!((plain.max_connections, plain.max_uploads, plain.seed), (3, 2, false));
        let watch = Watch::try_parse_from(["ezio_ui.py", "-w", "90"]).unwrap();
        assert_eq!((watch.wait, watch.last_upload), (90, 15));
    }

    #[test]
    fn a_line_weighs_torrents_by_their_bytes() {
        let torrent = |done, total, finished| Torrent {
            total_done: done,
            total,
            is_finished: finished,
            active_time: 61,
            download_rate: (1 << 30) / 60,
            ..Torrent::default()
        };
        assert_eq!(
            line(&[torrent(10, 10, true), torrent(0, 90, false)]),
            "\r[T: 61s][P:  10%][D: 2.00GB/min][U: 0.00GB/min][R: 1]"
        );
    }
}
