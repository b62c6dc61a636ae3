//! EZIO as it was: the command line of 1.x, the daemon of 2.x, and its helper programs by their
//! names. Whoever calls those today may call this program instead.
//!
//! The formats and moves are those of `serve` and `deploy`; here is only how it is asked for and
//! told. What differs from the C++ EZIO, and why, is in COMPATIBILITY.md.

mod client;
mod clock;
mod daemon;
mod grpc;
mod helpers;
mod log;
pub mod messages;
mod options;
mod policy;
mod session;
mod signals;
mod v1;
pub(crate) mod view;

pub use client::Client;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

/// Runs this process as one of the legacy programs if it was called as one: by its name, or with
/// something else than a command. `commands` are the names of the new command line.
///
/// `None`: the new command line is meant.
#[must_use]
pub fn run(commands: &[String], help: impl FnOnce() -> String) -> Option<ExitCode> {
    // Arguments that are no UTF-8 are paths: the new command line takes those.
    let args: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(code) = helpers::run(&name) {
        return Some(code);
    }
    let args = args.get(1..).unwrap_or_default();
    let person = || std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if args.first().is_some_and(|first| commands.contains(first) || is_word(first) && person()) {
        return None;
    }
    let options = match options::parse(args) {
        Ok(options) => options,
        Err(error) => {
            println!("{}", v1::HELP.trim_end());
            eprintln!("ezio: {error:#}; see ezio --help");
            return Some(ExitCode::FAILURE);
        }
    };
    Some(if options.help {
        println!("{}\n\n{}", help().trim_end(), HELP.trim_end());
        ExitCode::SUCCESS
    } else if options.version {
        println!("ezio {}", env!("CARGO_PKG_VERSION"));
        ExitCode::SUCCESS
    } else if options.is_one_shot() {
        v1::run(&options)
    } else {
        if args.is_empty() && person() {
            eprintln!("{ALONE}");
        }
        daemon::run(&options)
    })
}

/// Whether `text` can only be meant as a command: 1.x takes no torrent that is called so. Who has
/// mistyped one shall read which are like it, and scripts what they always read.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// What somebody may want to know who has typed `ezio` to see what it is. Scripts never see it.
const ALONE: &str = "as the daemon of EZIO 2.x, which waits for orders; Ctrl-C ends it, \
    `ezio --help` lists the commands";

/// What `ezio -h` says behind the commands. Clonezilla 5.3 looks for `--cache` in it.
const HELP: &str = "\
As EZIO 1.x, with any of -T -L -U or TORRENT PATH:
  -T, --torrent FILE      a torrent; may be repeated
  -L, --save_path PATH    its device, file or, with -f, directory; in the order of the torrents
  -U, --upload            seed: all of it is there; runs until it is ended
  -f, --file              PATH is a directory that holds block files
  -e, --ratio N           end when more than N images were sent [3]
  -t, --timeout MINUTES   end after so long without sending [15]
  -s, --sequential        accepted
  -k, -m, -c N            accepted: contact, maxu, maxc
  --cache KIB             accepted
  --listen ADDR           answer gRPC about the status [127.0.0.1:50051]

As the daemon of EZIO 2.x, with anything else, also with nothing:
  -F, --file              all paths are directories that hold block files
  -l, --listen ADDR       answer gRPC [127.0.0.1:50051]
  -p, --port N            BitTorrent's TCP port [6881]
  --cache-size MB         memory for pieces: from 128 to 512 is used
  --aio-threads N         accepted
  --slow-start, --slow-start-period S  accepted
  --log FILE, --log-format text|json|journald, --log-level LEVEL
                          the log; without them as spdlog, on the standard output
  -v, --version           print the version
";
