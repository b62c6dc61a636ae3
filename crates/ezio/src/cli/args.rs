//! What each command takes, and how that becomes the order that its module carries out.

use super::values::{http_url, interface, piece_size, rate, size, tracker_url};
use crate::capture::{self, Capture};
use crate::control::interfaces::Interface;
use crate::demo::{self, Demo};
use crate::deploy::{self, Deploy};
use crate::logs::LogArgs;
use crate::node::{BUDGET, NodeOptions};
use crate::serve::{self, Hooks, Serve};
use crate::ui::Ui;
use crate::{doctor, preflight, watch};
use clap::Args;
use sim::predict::Scenario;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use swarm::networks::{Network, Networks};

#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
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
    pub(super) common: CommonArgs,
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

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
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

    /// Take orders by the dashboard's buttons, which need the token, from these networks too, as
    /// 10.1.0.0/16; may be repeated [default: on this machine only]
    #[arg(long, value_name = "CIDR")]
    control: Vec<Network>,

    /// Show the dashboard, its data and metrics only to who has the token; without this only its
    /// buttons need it
    #[arg(long)]
    private: bool,

    /// Keep the token for the dashboard's buttons in FILE, which is made if it is not there [default: a
    /// new one each time, which is printed]
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
    pub(super) log: LogArgs,

    #[command(flatten)]
    pub(super) common: CommonArgs,
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
            control: args.control,
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

#[derive(Debug, Args)]
pub(super) struct DeployArgs {
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
    pub(super) log: LogArgs,

    #[command(flatten)]
    pub(super) common: CommonArgs,
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

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
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
pub(super) struct VerifyArgs {
    /// The torrent
    pub(super) torrent: PathBuf,

    /// A block device, a file with a device's bytes, or a directory of block files
    pub(super) path: PathBuf,

    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct ClearArgs {
    /// The torrent
    pub(super) torrent: PathBuf,

    /// A block device, or a file with a device's bytes
    pub(super) path: PathBuf,

    /// Take a device with other sectors than those the image was made on
    #[arg(long)]
    pub(super) force: bool,

    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The torrent
    pub(super) torrent: PathBuf,

    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
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
    pub(super) common: CommonArgs,
}

impl From<DemoArgs> for Demo {
    fn from(args: DemoArgs) -> Demo {
        Demo { clients: args.clients, size: args.size, keep: args.keep }
    }
}

#[derive(Debug, Args)]
pub(super) struct SimArgs {
    /// How many machines get the image; several make a table
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2,4,8,16,32")]
    pub(super) clients: Vec<usize>,

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
    pub(super) common: CommonArgs,
}

impl From<SimArgs> for Scenario {
    fn from(args: SimArgs) -> Scenario {
        let (piece_len, seed) = (args.piece_size, args.seed);
        Scenario { len: args.size, piece_len, link: args.link, disk: args.disk, seed }
    }
}

#[derive(Debug, Args)]
pub(super) struct DoctorCommand {
    #[command(flatten)]
    pub(super) doctor: doctor::DoctorArgs,

    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct WatchCommand {
    #[command(flatten)]
    pub(super) watch: watch::WatchArgs,

    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Debug, Args)]
pub(super) struct CommonArgs {
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
    pub(super) fn ui(&self) -> Ui {
        Ui { json: self.json, quiet: self.quiet, verbose: self.verbose }
    }
}
