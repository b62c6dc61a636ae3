//! Runs `partclone.<fs> -D`, which tells the used blocks of a file system from its metadata alone.
//!
//! What partclone 0.3.23 (Debian 12) was seen to do, and what is done about it:
//! - The progress thread sleeps two seconds between looks at the end of the work; `-f 0` makes it
//!   not sleep, `-q` not print: 0.01 to 0.3 s instead of 2. After an error it sleeps three
//!   seconds all the same.
//! - The log goes to `/var/log/partclone.log` unless `-L` names another. It says no more than
//!   stderr, so `/dev/null` takes it.
//! - Image files serve as well as devices. A file system that is cut off is often mapped whole,
//!   with exit code 0 (ext, XFS, FAT, exFAT, minix): whoever runs it compares [`Map::end`] with the
//!   size of the device.
//! - Some programs print on stdout (`partclone.exfat`: `block 0 4287`), so the map cannot go there.
//! - Every error has exit code 1; what was wrong is a line or two of stderr, between progress
//!   lines, carriage returns and, in HFS+, bytes that are no text.
//! - `-I` passes over a file system that is marked as not clean. `-F` passes over every error,
//!   also "not this file system", and then may crash (signal 11) or map nonsense; it is used only
//!   where nothing else maps a mounted device, and only what partclone said decides then.
//! - The block size it prints is, for every file system, the `block_size` of its `torrent.info`,
//!   and the end of the map is that times `blocks_total`.

pub mod messages;

use super::map::{Map, MapError, TEXT_MAX};
use crate::store::io_reason;
use messages::Said;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use swarm::units::{Bytes, Seconds};

/// One run of a partclone program.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The program, as [`find_partclone`](super::filesystem::Kind::find_partclone) gives it.
    pub program: &'a Path,
    /// The block device, or the image file of one.
    pub device: &'a Path,
    /// Also map a file system that is marked as not clean, or mounted.
    pub force: bool,
    /// The program is killed after this time.
    pub time_limit: Duration,
    /// Set from outside to kill the program.
    pub stop: &'a AtomicBool,
}

/// What a partclone program told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartcloneMap {
    /// The used bytes, and the size of the file system.
    pub map: Map,
    /// The unit of the map in bytes: a block, FAT's and exFAT's sector, btrfs' node.
    pub block_size: Option<u32>,
    /// `0.3.23`.
    pub version: Option<String>,
    /// What partclone said beside its usual lines.
    pub warnings: Vec<String>,
}

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
pub enum PartcloneError {
    /// There is no such program, or it cannot be started.
    #[error("run {}: {}", program.display(), io_reason(error))]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A signal ended it: a bug of the program, or the kernel was short of memory.
    #[error(
        "{program} crashed on {} (signal {signal}){}; check the file system with its fsck, and the \
         kernel's log", device.display(), said(words)
    )]
    Crashed {
        /// The program's name.
        program: String,
        /// What it should map.
        device: PathBuf,
        /// Its number: 11 is a segmentation fault.
        signal: i32,
        /// The last thing it said.
        words: String,
    },
    /// It refused.
    #[error("{program} cannot map {} (exit code {code}){}", device.display(), said(words))]
    Refused {
        /// The program's name.
        program: String,
        /// What it should map.
        device: PathBuf,
        /// Its exit code.
        code: i32,
        /// The last thing it said.
        words: String,
    },
    /// Forced over every error, it made a map, but complained about more than the mount.
    #[error("{program} mapped {} only after errors that make the map wrong{}",
        device.display(), said(words))]
    Untrusted {
        /// The program's name.
        program: String,
        /// What it mapped.
        device: PathBuf,
        /// What it complained about.
        words: String,
    },
    /// It reported success, but what it wrote is no map.
    #[error("{program} wrote a map of {} that cannot be used: {error}", device.display())]
    BadMap {
        /// The program's name.
        program: String,
        /// What it mapped.
        device: PathBuf,
        /// What is wrong with the map.
        error: MapError,
    },
    /// It reported success, but no block is in use; a file system always has some.
    #[error("{program} found no used block on {}; is there a file system on it?", device.display())]
    EmptyMap {
        /// The program's name.
        program: String,
        /// What it mapped.
        device: PathBuf,
    },
    /// It was killed because it wrote without end.
    #[error("{program} wrote more than {} {what} about {}; it was killed",
        Bytes(*limit), device.display())]
    TooMuch {
        /// The program's name.
        program: String,
        /// What it should map.
        device: PathBuf,
        /// `of messages` or `of map`.
        what: &'static str,
        /// Bytes it was allowed.
        limit: u64,
    },
    /// It was killed because it took too long.
    #[error("{program} did not map {} within {}{}; it was killed",
        device.display(), Seconds(limit.as_secs()), said(words))]
    TimedOut {
        /// The program's name.
        program: String,
        /// What it should map.
        device: PathBuf,
        /// How long it was given.
        limit: Duration,
        /// The last thing it said.
        words: String,
    },
    /// It was killed because the caller wanted it.
    #[error("interrupted while {program} mapped {}", device.display())]
    Stopped {
        /// The program's name.
        program: String,
        /// What it should map.
        device: PathBuf,
    },
    /// The files it writes into could not be made or read.
    #[error("{what} for {program}: {}", io_reason(error))]
    Scratch {
        /// What was tried.
        what: String,
        /// The program's name.
        program: String,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Run<'_> {
    /// Runs the program and reads its map. It reads the device, and writes only into a private
    /// directory below `TMPDIR`, which is removed: about 60 bytes for each used run of blocks.
    ///
    /// # Errors
    /// See [`PartcloneError`].
    pub fn map(&self) -> Result<PartcloneMap, PartcloneError> {
        if !self.force {
            return self.map_with(&[]);
        }
        match self.map_with(&["-I"]) {
            Err(PartcloneError::Refused { words, .. }) if words.contains(MOUNTED) => {}
            other => return other,
        }
        let found = self.map_with(&["-F"])?;
        let harmless = |line: &str| line.contains(MOUNTED) || line == "error exit";
        match found.warnings.iter().all(|line| harmless(line)) {
            true => Ok(found),
            false => Err(PartcloneError::Untrusted {
                program: self.name(),
                device: self.device.to_owned(),
                words: found.warnings.join("; "),
            }),
        }
    }

    fn map_with(&self, options: &[&str]) -> Result<PartcloneMap, PartcloneError> {
        let scratch = Scratch::new().map_err(|e| self.scratch_error("make temporary files", e))?;
        let mut child = self.start(options, &scratch)?;
        let ended = self.wait(&mut child, &scratch);
        if ended.is_err() {
            // Both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = ended?;
        let said = Said::parse(&scratch.messages());
        self.check(status, &said)?;
        let text = std::fs::read(&scratch.map)
            .map_err(|e| self.scratch_error("read the temporary map", e))?;
        let (program, device) = (self.name(), self.device.to_owned());
        let map = match Map::parse(&text, 0) {
            Ok(map) if map.used.is_empty() => {
                return Err(PartcloneError::EmptyMap { program, device });
            }
            Ok(map) => map,
            Err(error) => return Err(PartcloneError::BadMap { program, device, error }),
        };
        let Said { block_size, version, remarks: warnings } = said;
        Ok(PartcloneMap { map, block_size, version, warnings })
    }

    fn start(&self, options: &[&str], scratch: &Scratch) -> Result<Child, PartcloneError> {
        let messages = scratch.messages_for_child();
        let (stdout, stderr) =
            messages.map_err(|e| self.scratch_error("make temporary files", e))?;
        Command::new(self.program)
            .args(["-D", "-q", "-f", "0"])
            .args(options)
            .arg("-s")
            .arg(unambiguous(self.device))
            .arg("-o")
            .arg(&scratch.map)
            .args(["-L", "/dev/null"])
            .env("LC_ALL", "C")
            .env_remove("LANGUAGE")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|error| PartcloneError::Start { program: self.program.to_owned(), error })
    }

    /// Waits for the end of the child, the caller's stop, the time limit, or too much output.
    fn wait(&self, child: &mut Child, scratch: &Scratch) -> Result<ExitStatus, PartcloneError> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            let ended = child.try_wait().map_err(|e| self.scratch_error("wait", e))?;
            scratch.check_sizes(self)?;
            if let Some(status) = ended {
                return Ok(status);
            }
            let (program, device) = (self.name(), self.device.to_owned());
            if self.stop.load(Ordering::Relaxed) {
                return Err(PartcloneError::Stopped { program, device });
            }
            if started.elapsed() >= self.time_limit {
                let (limit, words) = (self.time_limit, Said::parse(&scratch.messages()).words());
                return Err(PartcloneError::TimedOut { program, device, limit, words });
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    fn check(&self, status: ExitStatus, said: &Said) -> Result<(), PartcloneError> {
        let (program, device) = (self.name(), self.device.to_owned());
        if !status.success() && self.stop.load(Ordering::Relaxed) {
            // A terminal's interrupt reaches the program too.
            return Err(PartcloneError::Stopped { program, device });
        }
        if let Some(signal) = status.signal() {
            return Err(PartcloneError::Crashed { program, device, signal, words: said.words() });
        }
        match status.code().unwrap_or(-1) {
            0 => Ok(()),
            code => Err(PartcloneError::Refused { program, device, code, words: said.words() }),
        }
    }

    fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str());
        name.to_string_lossy().into_owned()
    }

    fn scratch_error(&self, what: &str, error: io::Error) -> PartcloneError {
        PartcloneError::Scratch { what: what.to_owned(), program: self.name(), error }
    }
}

/// What partclone says of a mounted device: `device (/dev/sda1) is mounted at /`.
const MOUNTED: &str = " is mounted at ";

/// Short enough that nobody notices, long enough to cost nothing.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// A file called `-` would be read as stdin.
fn unambiguous(device: &Path) -> PathBuf {
    if device.is_absolute() { device.to_owned() } else { Path::new(".").join(device) }
}

/// Where the program writes: a directory of ours alone, gone at the end.
struct Scratch {
    map: PathBuf,
    /// Stdout and stderr. A file, not a pipe: a grandchild that holds it open blocks nobody.
    messages: File,
    _dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> io::Result<Scratch> {
        // Otherwise the umask would decide who may look into it.
        let private = std::fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("ezio-map-").permissions(private).tempdir()?;
        let path = |name| dir.path().join(name);
        let messages =
            File::options().read(true).append(true).create_new(true).open(path("messages"))?;
        Ok(Scratch { map: path("map"), messages, _dir: dir })
    }

    fn messages_for_child(&self) -> io::Result<(File, File)> {
        Ok((self.messages.try_clone()?, self.messages.try_clone()?))
    }

    fn check_sizes(&self, run: &Run<'_>) -> Result<(), PartcloneError> {
        let messages = self.messages.metadata().map_or(0, |m| m.len());
        let map = std::fs::metadata(&self.map).map_or(0, |m| m.len());
        let sizes = [("of messages", messages, MESSAGES_MAX), ("of map", map, TEXT_MAX as u64)];
        match sizes.into_iter().find(|(_, len, limit)| len > limit) {
            None => Ok(()),
            Some((what, _, limit)) => {
                let (program, device) = (run.name(), run.device.to_owned());
                Err(PartcloneError::TooMuch { program, device, what, limit })
            }
        }
    }

    /// The start and the end of the messages.
    fn messages(&self) -> String {
        let mut file = &self.messages;
        let mut bytes = Vec::new();
        let len = file.metadata().map_or(0, |m| m.len());
        for start in [0, len.saturating_sub(MESSAGES_KEPT).max(MESSAGES_KEPT)] {
            // What cannot be read of our own file is missing from an error message.
            let _ = file.seek(SeekFrom::Start(start));
            let _ = file.take(MESSAGES_KEPT).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// 16 MiB: a usual run says less than 1 KiB.
const MESSAGES_MAX: u64 = 16 << 20;

/// Bytes of the start, where the version is, and of the end, where the reason is.
const MESSAGES_KEPT: u64 = 16 << 10;

fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::torrent_info::TorrentInfo;
    use lab::{Need, tool};
    use std::fs;
    use swarm::layout::Extent;

    static GO: AtomicBool = AtomicBool::new(false);

    fn run<'a>(program: &'a Path, device: &'a Path) -> Run<'a> {
        Run { program, device, force: false, time_limit: Duration::from_secs(60), stop: &GO }
    }

    /// A program that finds the path of the map in `$MAP`, its options in `$OPTIONS`.
    ///
    /// Written by a child: if this process had it open for writing, another test's child could
    /// inherit that, and the kernel would not run it (`ETXTBSY`).
    fn fake(dir: &tempfile::TempDir, script: &str) -> PathBuf {
        let program = dir.path().join("partclone.fake");
        let text = format!(
            "#!/bin/sh\nOPTIONS=\"$*\"\nwhile [ $# -gt 0 ]; do [ \"$1\" = -o ] && MAP=\"$2\"; \
             shift; done\n{script}\n"
        );
        let mut write = tool::words("sh -c");
        write.arg("printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"").arg(&program).arg(text);
        tool::run(&mut write).unwrap();
        program
    }

    const MAP: &str = "printf '0x3000 ?\\n0x0 0x1000 +\\n0x1000 0x2000 ?\\n' > \"$MAP\"";

    #[track_caller]
    fn refused(script: &str, wanted: &str) {
        let dir = tempfile::tempdir().unwrap();
        let program = fake(&dir, script);
        let error = run(&program, Path::new("/dev/x")).map().unwrap_err();
        assert_eq!(error.to_string(), wanted);
    }

    #[test]
    fn a_map_is_read_with_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("{MAP}; echo 'Partclone v0.3.99 http://partclone.org' >&2
            printf 'Elapsed: 00:00:01, Completed:   1.00%%bad sector\\r\\033[A\\nBlock size:   512 Byte\\n'");
        let program = fake(&dir, &script);
        let found = run(&program, Path::new("/dev/x")).map().unwrap();
        assert_eq!(found.map, Map { used: vec![Extent { offset: 0, len: 4096 }], end: 0x3000 });
        assert_eq!(found.block_size, Some(512));
        assert_eq!(found.version.as_deref(), Some("0.3.99"));
        assert_eq!(found.warnings, ["bad sector"]);
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let program = Path::new("/nonexistent/partclone.ext4");
        let error = run(program, Path::new("/dev/x")).map().unwrap_err().to_string();
        assert_eq!(error, "run /nonexistent/partclone.ext4: No such file or directory");
    }

    #[test]
    fn a_program_that_refuses_is_quoted_without_its_decoration() {
        refused(
            "printf 'Partclone v1 x\\nCalculating bitmap... Please wait... \\r   \\rElapsed: 00:00:01, \
             Remaining: 00:01:39, Completed:   1.00%%\\033[31mextfsclone.c: free count err\\033[0m\\n\
             Please run fsck\\033[A\\r\\nerror exit\\nPartclone fail, please check /x.log !\\n' >&2; exit 1",
            "partclone.fake cannot map /dev/x (exit code 1): extfsclone.c: free count err; \
             Please run fsck",
        );
        refused(
            "printf 'bad magic number in super-blockPartclone fail, please check x !' >&2; exit 3",
            "partclone.fake cannot map /dev/x (exit code 3): bad magic number in super-block",
        );
        refused("exit 1", "partclone.fake cannot map /dev/x (exit code 1)");
    }

    #[test]
    fn words_that_are_no_text_are_quoted_as_far_as_they_are() {
        refused(
            "printf 'incorrect signature \\000\\377\\n' >&2; exit 1",
            "partclone.fake cannot map /dev/x (exit code 1): incorrect signature  \u{fffd}",
        );
    }

    #[test]
    fn a_program_that_crashes_is_told_with_its_signal() {
        refused(
            &format!("{MAP}; echo half >&2; kill -SEGV $$"),
            "partclone.fake crashed on /dev/x (signal 11): half; check the file system with its \
             fsck, and the kernel's log",
        );
    }

    #[test]
    fn a_map_that_is_none_is_refused() {
        let bad = "partclone.fake wrote a map of /dev/x that cannot be used: ";
        let check = |script: &str, why: &str| refused(script, &format!("{bad}{why}"));
        check("echo rubbish > \"$MAP\"", "line 1: expected a current position and its state");
        check(
            "printf '0x3000 ?\\n0x0 0x1000 +\\n' > \"$MAP\"",
            "the map is cut off: its lines reach 0x1000, the file system 0x3000",
        );
        check(": > \"$MAP\"", "the map is cut off: there is no line with the current position");
        refused("", "read the temporary map for partclone.fake: No such file or directory");
        refused(
            "printf '16 ?\\n0 16 ?\\n' > \"$MAP\"",
            "partclone.fake found no used block on /dev/x; is there a file system on it?",
        );
    }

    #[test]
    fn a_program_that_writes_without_end_is_killed() {
        refused(
            "exec yes",
            "partclone.fake wrote more than 16 MiB of messages about /dev/x; it was killed",
        );
        // A hole of 1 GiB and more has no blocks.
        refused(
            "truncate -s 1025M \"$MAP\"; exec sleep 60",
            "partclone.fake wrote more than 1 GiB of map about /dev/x; it was killed",
        );
    }

    #[test]
    fn a_program_that_hangs_is_killed_after_its_time() {
        let dir = tempfile::tempdir().unwrap();
        // The grandchild, which is not killed, keeps stdout and stderr open.
        let program = fake(&dir, "echo waiting >&2; sleep 20");
        let limit = Duration::from_millis(1500);
        let hung = Run { time_limit: limit, ..run(&program, Path::new("/dev/x")) };
        let started = Instant::now();
        let error = hung.map().unwrap_err().to_string();
        let wanted = "partclone.fake did not map /dev/x within 1s: waiting; it was killed";
        assert_eq!(error, wanted);
        assert!((limit..limit * 10).contains(&started.elapsed()), "{:?}", started.elapsed());
    }

    #[test]
    fn a_program_is_killed_when_the_caller_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let program = fake(&dir, "exec sleep 60");
        let stopped = Run { stop: &AtomicBool::new(true), ..run(&program, Path::new("/dev/x")) };
        let error = stopped.map().unwrap_err().to_string();
        assert_eq!(error, "interrupted while partclone.fake mapped /dev/x");
    }

    #[test]
    fn a_program_that_dies_of_the_same_interrupt_is_no_crash() {
        let dir = tempfile::tempdir().unwrap();
        // Not SIGINT, which a shell has background jobs ignore.
        let program = fake(&dir, "kill -TERM $$");
        let (device, stop) = (Path::new("/dev/x"), AtomicBool::new(true));
        let status = Command::new(&program).status().unwrap();
        let said = Said::parse("");
        let stopped = Run { stop: &stop, ..run(&program, device) };
        let error = stopped.check(status, &said).unwrap_err().to_string();
        assert_eq!(error, "interrupted while partclone.fake mapped /dev/x");
        let error = run(&program, device).check(status, &said).unwrap_err().to_string();
        assert!(error.starts_with("partclone.fake crashed on /dev/x (signal 15); "), "{error}");
    }

    /// Says what partclone does of a mounted device, unless it is forced over every error.
    const MOUNTED_UNLESS_FORCED: &str = "echo 'device (/dev/x) is mounted at /mnt' >&2
        echo 'error exit' >&2
        case \" $OPTIONS \" in *\" -F \"*) ;; *) exit 1;; esac";

    #[test]
    fn a_mounted_device_is_mapped_by_force_alone() {
        let mounted = format!("{MOUNTED_UNLESS_FORCED}; {MAP}");
        refused(
            &mounted,
            "partclone.fake cannot map /dev/x (exit code 1): device (/dev/x) is mounted at /mnt",
        );
        let dir = tempfile::tempdir().unwrap();
        let program = fake(&dir, &mounted);
        let forced = Run { force: true, ..run(&program, Path::new("/dev/x")) };
        assert_eq!(forced.map().unwrap().map.end, 0x3000);
    }

    #[test]
    fn a_map_that_was_forced_over_other_errors_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let program = fake(&dir, &format!("{MOUNTED_UNLESS_FORCED}; echo 'bitmap error'; {MAP}"));
        let forced = Run { force: true, ..run(&program, Path::new("/dev/x")) };
        assert_eq!(
            forced.map().unwrap_err().to_string(),
            "partclone.fake mapped /dev/x only after errors that make the map wrong: \
             device (/dev/x) is mounted at /mnt; error exit; bitmap error",
        );
    }

    #[test]
    fn the_map_is_private_and_gone_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let seen = dir.path().join("seen");
        let program = fake(
            &dir,
            &format!(
                "{MAP}; stat -c %a \"${{MAP%/*}}\" > {0}; echo \"$MAP\" >> {0}",
                seen.display()
            ),
        );
        run(&program, Path::new("/dev/x")).map().unwrap();
        let seen = fs::read_to_string(seen).unwrap();
        let (mode, map) = seen.trim_end().split_once('\n').unwrap();
        assert_eq!(mode, "700", "nobody else may look into it");
        assert!(!Path::new(map).parent().unwrap().exists(), "{map}");
    }

    /// Makes a file system in a new file and compares what partclone maps with what its `-t`
    /// writes of the same.
    #[track_caller]
    fn check_real(partclone: &'static str, mkfs: &'static str, options: &str, mib: u64) {
        lab::require!([Need::Program(partclone), Need::Program(mkfs)]);
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        tool::run(tool::words(&format!("{mkfs} {options}")).arg(&image)).unwrap();
        let program = tool::find(partclone).unwrap();
        let started = Instant::now();
        let found = run(&program, &image).map().unwrap();
        let seconds = started.elapsed().as_secs_f64();
        println!("{partclone} ({mkfs} {options}): {seconds:.3} s, {} runs", found.map.used.len());
        let out = dir.path().join("out");
        let mut torrent =
            tool::words(&format!("{partclone} -c -t -q -f 0 -z 16777216 -L /dev/null"));
        tool::run(torrent.arg("-s").arg(&image).arg("-O").arg(&out)).unwrap();
        let info = TorrentInfo::parse(&fs::read(out.join("torrent.info")).unwrap()).unwrap();
        let mut merged: Vec<Extent> = Vec::new();
        for extent in info.extents {
            match merged.last_mut() {
                Some(last) if last.end() == extent.offset => last.len += extent.len,
                _ => merged.push(extent),
            }
        }
        assert_eq!(found.map.used, merged);
        assert_eq!(found.block_size, info.block_size);
        assert_eq!(
            Some(found.map.end),
            info.blocks_total.map(|n| n * u64::from(found.block_size.unwrap()))
        );
        assert_eq!(found.warnings, [""; 0]);
        assert!(found.version.is_some());
    }

    macro_rules! real {
        ($($test:ident: $partclone:literal, $mkfs:literal $options:literal, $mib:literal MiB;)*) => {
            $(#[test]
            fn $test() {
                check_real($partclone, $mkfs, $options, $mib);
            })*
        };
    }

    real! {
        real_ext4_is_mapped: "partclone.ext4", "mkfs.ext4" "-q -F -b 4096", 64 MiB;
        real_ext4_of_1_kib_blocks_is_mapped: "partclone.ext4", "mkfs.ext4" "-q -F -b 1024", 64 MiB;
        real_ext2_is_mapped: "partclone.ext2", "mkfs.ext2" "-q -F", 64 MiB;
        real_xfs_is_mapped: "partclone.xfs", "mkfs.xfs" "-q", 320 MiB;
        real_btrfs_is_mapped: "partclone.btrfs", "mkfs.btrfs" "-q", 160 MiB;
        real_f2fs_is_mapped: "partclone.f2fs", "mkfs.f2fs" "-q", 160 MiB;
        real_fat12_is_mapped: "partclone.fat12", "mkfs.fat" "-F 12", 4 MiB;
        real_fat16_is_mapped: "partclone.fat16", "mkfs.fat" "-F 16", 64 MiB;
        real_fat32_is_mapped: "partclone.fat32", "mkfs.fat" "-F 32", 64 MiB;
        real_exfat_is_mapped: "partclone.exfat", "mkfs.exfat" "", 64 MiB;
        real_ntfs_is_mapped: "partclone.ntfs", "mkfs.ntfs" "-q -F -f", 64 MiB;
        real_minix_is_mapped: "partclone.minix", "mkfs.minix" "", 32 MiB;
        real_reiser4_is_mapped: "partclone.reiser4", "mkfs.reiser4" "-y -f", 64 MiB;
    }

    #[test]
    fn a_real_mounted_device_is_mapped_by_force_alone() {
        lab::require!([
            Need::Program("partclone.ext4"),
            Need::Program("mkfs.ext4"),
            Need::Loop,
            Need::Kernel("ext4"),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        tool::run(tool::words("mkfs.ext4 -q -F").arg(&image)).unwrap();
        let device = lab::LoopDevice::attach(&image, lab::LoopOptions::default()).unwrap();
        let program = tool::find("partclone.ext4").unwrap();
        let unmounted = run(&program, device.path()).map().unwrap();
        let mount = lab::Mount::new(device.path(), "ext4", "ro").unwrap();
        let error = run(&program, device.path()).map().unwrap_err().to_string();
        assert!(error.contains(" is mounted at "), "{error}");
        let forced = Run { force: true, ..run(&program, device.path()) };
        assert_eq!(forced.map().unwrap().map, unmounted.map);
        mount.unmount().unwrap();
    }

    #[test]
    fn real_partclone_refuses_what_is_no_file_system() {
        lab::require!([Need::Program("partclone.ext4")]);
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("zeros");
        fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let program = tool::find("partclone.ext4").unwrap();
        let error = run(&program, &image).map().unwrap_err().to_string();
        let wanted = format!(
            "partclone.ext4 cannot map {} (exit code 1): extfsclone.c: Couldn't find valid \
             filesystem superblock.",
            image.display()
        );
        assert_eq!(error, wanted);
    }
}
