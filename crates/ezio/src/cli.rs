//! The command line: arguments into a command, a command into an exit code.
//!
//! Exit codes: 0 done, 1 failed (what, on what and why stands on standard error), 2 usage.

use crate::capture::{self, Capture};
use crate::control::interfaces::{self, Interface};
use crate::demo::{self, Demo};
use crate::deploy::{self, Deploy};
use crate::logs::{self, Level, LogArgs};
use crate::node::{BUDGET, NodeOptions};
use crate::serve::{self, Hooks, Serve};
use crate::ui::Ui;
use crate::{clear, doctor, inspect, legacy, preflight, simulate, verify, watch};
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};
use sim::predict::Scenario;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use swarm::metainfo::{PIECE_LEN_MAX, PIECE_LEN_MIN};
use swarm::networks::{Network, Networks};
use swarm::units::{parse_rate, parse_size};

/// Put one disk image on many machines, as fast as the wire.
#[derive(Debug, Parser)]
#[command(name = "ezio", version, disable_version_flag = true, arg_required_else_help = true)]
struct Cli {
    /// Print the version
    #[arg(short = 'v', long = "version", action = ArgAction::Version)]
    version: Option<bool>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the image of a disk to many machines; captures it first
    Serve(ServeArgs),
    /// Write an image to this machine's disk, getting it from everybody
    Deploy(DeployArgs),
    /// Make a torrent of the used blocks of a partition or an image file
    Capture(CaptureArgs),
    /// Read an image again and list every piece that is not what the torrent says
    Verify(VerifyArgs),
    /// Write zeros over what an image covers on a device or file, and over nothing else
    Clear(ClearArgs),
    /// Show what is in a torrent
    Inspect(InspectArgs),
    /// Watch a server's machines, or a daemon's torrents, live in the terminal
    Watch(WatchCommand),
    /// Look for what would go wrong on this machine, and say what to do
    Doctor(DoctorCommand),
    /// Show the whole loop on this machine, with files as disks: no root, no preparation
    Demo(DemoArgs),
    /// Predict how long a deployment takes
    Sim(SimArgs),
}

#[derive(Debug, Args)]
struct CaptureArgs {
    /// A block device or image file with a file system, a torrent.info of partclone, or a
    /// directory of block files (partclone -T)
    source: PathBuf,

    /// The torrent to write
    #[arg(short, long, value_name = "OUT.torrent")]
    output: PathBuf,

    /// The torrent's name [default: the source's file name]
    #[arg(long)]
    name: Option<String>,

    /// Bytes of a piece, as 16MiB [default: a power of two from 256 KiB to 4 MiB that makes 2000
    /// to 4000 pieces]
    #[arg(long, value_name = "SIZE", value_parser = piece_size)]
    piece_size: Option<u32>,

    /// A tracker's announce URL; several become tiers, tried in order
    #[arg(long = "tracker", value_name = "URL", value_parser = tracker_url)]
    trackers: Vec<String>,

    /// Who made the torrent, as it will say
    #[arg(long, default_value = capture::CREATOR)]
    creator: String,

    /// Also write the used blocks as files into DIR, as `partclone -T` does
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,

    /// Take all blocks, whatever the source holds
    #[arg(long)]
    raw: bool,

    /// Read a source that is mounted read-only, or whose file system was not unmounted cleanly
    #[arg(long)]
    force: bool,

    /// Leave the backup boot sector of NTFS out, as partclone does
    #[arg(long)]
    no_ntfs_tail: bool,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Devices or image files, which are captured first; or torrents, each with its --from
    #[arg(required = true)]
    sources: Vec<PathBuf>,

    /// Where the image of a torrent is: a device, a file, or a directory of block files; once for
    /// each torrent, in their order
    #[arg(long, value_name = "PATH")]
    from: Vec<PathBuf>,

    /// Where to answer HTTP: tracker, torrents, status; a port or an address with a port
    /// [default: 6969 on all addresses]
    #[arg(long, value_name = "ADDR", value_parser = serve::parse_http)]
    http: Vec<SocketAddr>,

    /// Show the dashboard, its data and metrics only to who has the token; without this only its
    /// buttons need it
    #[arg(long)]
    private: bool,

    /// Read the token for the dashboard's buttons from FILE [default: a new one each time]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Run CMD through the shell for each machine that is done or has failed; EZIO_STATUS, EZIO_HOST,
    /// EZIO_ADDRESS, EZIO_TARGET, EZIO_SERIAL, EZIO_MAC, EZIO_ERROR, EZIO_SECONDS and EZIO_BYTES tell
    #[arg(long, value_name = "CMD")]
    on_machine: Option<String>,

    /// Run CMD through the shell when all machines are done or have failed; EZIO_MACHINES, EZIO_DONE,
    /// EZIO_FAILED and EZIO_SECONDS tell
    #[arg(long, value_name = "CMD")]
    on_all: Option<String>,

    /// Post both as JSON to URL (http://); may be repeated
    #[arg(long, value_name = "URL", value_parser = http_url)]
    webhook: Vec<String>,

    /// A name under which browsers reach this server, if it has dots; may be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Bytes of a piece when capturing, as 16MiB
    #[arg(long, value_name = "SIZE", value_parser = piece_size)]
    piece_size: Option<u32>,

    /// Take all blocks, whatever a source holds
    #[arg(long)]
    raw: bool,

    /// Serve a source that is in use, or whose file system was not unmounted cleanly
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    node: NodeArgs,

    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct DeployArgs {
    /// A torrent, its http URL, a magnet link, or http://SERVER:6969 of an `ezio serve`
    from: String,

    /// The device to write, or a file, which is made if it is not there; where a server has
    /// several torrents, once for each that is wanted, with its name
    #[arg(long, value_name = "[NAME=]PATH", required = true)]
    to: Vec<String>,

    /// Keep the image as block files below the directory PATH
    #[arg(long)]
    as_files: bool,

    /// Write only if the torrent has this info-hash; once for each torrent
    #[arg(long, value_name = "HEX", value_parser = deploy::parse_info_hash)]
    info_hash: Vec<[u8; 20]>,

    /// Keep what is right on the target already: hash all of it first
    #[arg(long)]
    reuse: bool,

    /// Where to note what is done, so that an interrupted run can go on [default: below /run/ezio,
    /// else beside the torrent]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Read everything again from the medium at the end
    #[arg(long)]
    verify: bool,

    /// Remove what the target held before and the image would leave in place: old signatures of
    /// RAID, LVM, ZFS, partition tables, file systems
    #[arg(long, conflicts_with = "as_files")]
    wipe: bool,

    /// Write to a device with sectors of another size than the image was made on
    #[arg(long)]
    force: bool,

    /// Run this through the shell when the data is on the medium
    #[arg(long, value_name = "COMMAND")]
    on_done: Option<String>,

    /// Serve others afterwards for at most so many seconds; earlier if nobody needs it
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    seed_for: u64,

    /// After a failure, wait for so many seconds: the dashboard can order another try
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    stay: u64,

    #[command(flatten)]
    node: NodeArgs,

    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct NodeArgs {
    /// BitTorrent's TCP port [default: the first free one from 6881 to 6889]
    #[arg(long)]
    port: Option<u16>,

    /// Use only this interface, by name or address
    #[arg(long, value_name = "NAME|ADDR", value_parser = interface)]
    interface: Option<Interface>,

    /// Talk only to these networks, as 10.0.0.0/8
    #[arg(long, value_name = "CIDR")]
    peers: Vec<Network>,

    /// Send at most so much, and receive at most so much, as 90MB/s or 500Mbit/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit: Option<u64>,
}

impl From<NodeArgs> for NodeOptions {
    fn from(args: NodeArgs) -> NodeOptions {
        NodeOptions {
            port: args.port,
            interface: args.interface,
            networks: Networks::new(args.peers),
            budget: BUDGET,
            limit: args.limit,
        }
    }
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The torrent
    torrent: PathBuf,

    /// A block device, a file with a device's bytes, or a directory of block files
    path: PathBuf,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct ClearArgs {
    /// The torrent
    torrent: PathBuf,

    /// A block device, or a file with a device's bytes
    path: PathBuf,

    /// Take a device with other sectors than those the image was made on
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The torrent
    torrent: PathBuf,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// How many targets get the image
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=demo::CLIENTS_MAX))]
    clients: u32,

    /// Bytes of the disk that is copied
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = demo::parse_size)]
    size: u64,

    /// Work in DIR, which must be empty or not there, and keep everything
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct SimArgs {
    /// How many machines get the image; several make a table
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2,4,8,16,32")]
    clients: Vec<usize>,

    /// Used bytes of the image, as 50GB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: u64,

    /// What every link carries each way
    #[arg(long, value_name = "RATE", default_value = "1Gbit/s", value_parser = rate)]
    link: u64,

    /// What every disk reads or writes, as 150MB/s [default: as fast as the link]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    disk: Option<u64>,

    /// Bytes of a piece [default: as capture chooses]
    #[arg(long, value_name = "SIZE", value_parser = piece_size)]
    piece_size: Option<u32>,

    /// Another seed is another run
    #[arg(long, default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct DoctorCommand {
    #[command(flatten)]
    doctor: doctor::DoctorArgs,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct WatchCommand {
    #[command(flatten)]
    watch: watch::WatchArgs,

    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Print one JSON object a line: progress, notes, the result
    #[arg(long)]
    json: bool,

    /// Print only the result and errors
    #[arg(short, long)]
    quiet: bool,

    /// Print more of what is done
    #[arg(short, long)]
    verbose: bool,
}

impl CommonArgs {
    fn ui(&self) -> Ui {
        Ui { json: self.json, quiet: self.quiet, verbose: self.verbose }
    }
}

/// The command line as it is described, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    demo::end_with_parent();
    let commands: Vec<String> = Cli::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .chain(["help".to_owned()])
        .collect();
    let help = || Cli::command().render_long_help().to_string();
    if let Some(code) = legacy::run(&commands, help) {
        return code;
    }
    let command = Cli::parse().command;
    let (ui, outcome) = match command {
        Command::Serve(args) => {
            let ui = args.common.ui();
            let log = args.log.clone();
            let run = |stop: &AtomicBool| serve::run(&args.into(), ui, stop).map(|()| true);
            (ui, logged("serve", &log, ui, || interruptible(run)))
        }
        Command::Deploy(args) => {
            let ui = args.common.ui();
            let log = args.log.clone();
            let run = |stop: &AtomicBool| deploy::run(&args.into(), ui, stop).map(|()| true);
            (ui, logged("deploy", &log, ui, || interruptible(run)))
        }
        Command::Capture(args) => {
            let ui = args.common.ui();
            (ui, interruptible(|stop| capture::run(&args.into(), ui, stop).map(|()| true)))
        }
        Command::Verify(args) => {
            let ui = args.common.ui();
            (ui, interruptible(|stop| verify::run(&args.torrent, &args.path, ui, stop)))
        }
        Command::Clear(args) => {
            let (ui, checks) =
                (args.common.ui(), preflight::Checks { force: args.force, wipe: false });
            let clear = |stop: &AtomicBool| clear::run(&args.torrent, &args.path, checks, ui, stop);
            (ui, interruptible(clear).map(|()| true))
        }
        Command::Inspect(args) => {
            let ui = args.common.ui();
            (ui, inspect::run(&args.torrent, ui).map(|()| true))
        }
        Command::Watch(args) => {
            let ui = args.common.ui();
            (ui, watch::run(&args.watch, ui).map(|()| true))
        }
        Command::Doctor(args) => {
            let ui = args.common.ui();
            (ui, interruptible(|stop| doctor::run(&args.doctor, ui, stop)))
        }
        Command::Demo(args) => {
            let (ui, demo) = (args.common.ui(), args.into());
            (ui, interruptible(|stop| demo::run(&demo, ui, stop)))
        }
        Command::Sim(args) => {
            let (ui, clients) = (args.common.ui(), args.clients.clone());
            (ui, simulate::run(&args.into(), &clients, ui).map(|()| true))
        }
    };
    let code = match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui.error(&error);
            ExitCode::FAILURE
        }
    };
    logs::flush();
    code
}

/// Runs `work` with a log, as much of it as is shown.
fn logged<T>(
    command: &'static str,
    log: &LogArgs,
    ui: Ui,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let unsaid = match (ui.quiet, ui.verbose) {
        (true, _) => Level::Error,
        (false, true) => Level::Debug,
        (false, false) => Level::Info,
    };
    logs::start(log, unsaid)?;
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    tracing::info!(command, version, pid, "ezio begins");
    let outcome = work();
    tracing::info!(command, pid, done = outcome.is_ok(), "ezio ends");
    outcome
}

/// Runs `work` with a flag that Ctrl-C and SIGTERM set, so that it can clean up. A second signal
/// ends the process at once.
fn interruptible<T>(work: impl FnOnce(&AtomicBool) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    work(&stop)
}

impl From<ServeArgs> for Serve {
    fn from(args: ServeArgs) -> Serve {
        let all = [([0, 0, 0, 0], 6969).into(), ([0_u16; 8], 6969).into()];
        let http = if args.http.is_empty() { all.to_vec() } else { args.http };
        Serve {
            sources: args.sources,
            from: args.from,
            http,
            names: args.allow_host,
            private: args.private,
            token_file: args.token_file,
            hooks: Hooks {
                on_machine: args.on_machine,
                on_all: args.on_all,
                webhooks: args.webhook,
            },
            node: args.node.into(),
            capture: Capture {
                piece_len: args.piece_size,
                raw: args.raw,
                force: args.force,
                ..Capture::default()
            },
        }
    }
}

impl From<DeployArgs> for Deploy {
    fn from(args: DeployArgs) -> Deploy {
        Deploy {
            from: args.from,
            to: args.to,
            as_files: args.as_files,
            info_hashes: args.info_hash,
            reuse: args.reuse,
            state: args.state,
            verify: args.verify,
            checks: preflight::Checks { force: args.force, wipe: args.wipe },
            on_done: args.on_done,
            seed_for: Duration::from_secs(args.seed_for),
            stay: Duration::from_secs(args.stay),
            node: args.node.into(),
        }
    }
}

impl From<CaptureArgs> for Capture {
    fn from(args: CaptureArgs) -> Capture {
        Capture {
            source: args.source,
            output: args.output,
            name: args.name,
            piece_len: args.piece_size,
            trackers: args.trackers,
            creator: args.creator,
            image: args.image,
            raw: args.raw,
            force: args.force,
            ntfs_tail: !args.no_ntfs_tail,
        }
    }
}

impl From<DemoArgs> for Demo {
    fn from(args: DemoArgs) -> Demo {
        Demo { clients: args.clients, size: args.size, keep: args.keep }
    }
}

impl From<SimArgs> for Scenario {
    fn from(args: SimArgs) -> Scenario {
        let (piece_len, seed) = (args.piece_size, args.seed);
        Scenario { len: args.size, piece_len, link: args.link, disk: args.disk, seed }
    }
}

fn http_url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
        _ => Err("only URLs with http:// can be posted to".to_owned()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|e| e.to_string())
}

fn piece_size(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text).map_err(|e| e.to_string())?;
    u32::try_from(bytes)
        .ok()
        .filter(|len| (PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(len) && len.is_power_of_two())
        .ok_or_else(|| "a piece has a power of two of bytes, from 16KiB to 64MiB".to_owned())
}

fn rate(text: &str) -> Result<u64, String> {
    let rate = parse_rate(text).map_err(|e| e.to_string())?;
    if rate < RATE_MIN {
        Err("at least 100kB/s, or nothing ever ends".to_owned())
    } else {
        Ok(rate)
    }
}

/// Below this a block of 16 KiB takes so long that peers take us for dead.
const RATE_MIN: u64 = 100_000;

fn interface(text: &str) -> Result<Interface, String> {
    interfaces::choose(text).map_err(|error| format!("{error:#}"))
}

fn tracker_url(text: &str) -> Result<String, String> {
    let known = ["http://", "https://", "udp://"].iter().any(|scheme| text.starts_with(scheme));
    if known && !text.contains(char::is_whitespace) {
        Ok(text.to_owned())
    } else {
        Err("an announce URL looks like http://192.168.1.1:6969/announce".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn piece_sizes_are_powers_of_two_within_bounds() {
        assert_eq!(piece_size("16MiB"), Ok(16 << 20));
        assert!(piece_size("15MiB").is_err());
        assert!(piece_size("8KiB").is_err());
        assert!(piece_size("128MiB").is_err());
    }
}
