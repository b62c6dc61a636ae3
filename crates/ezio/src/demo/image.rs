//! The disk that is copied, and what targets hold before.
//!
//! A real ext4, made and filled by `mkfs.ext4` as any user, if it and partclone are there. If not,
//! a sparse file: its data are the extents, its holes the gaps between them.

use crate::capture::filesystem::{Kind, find_program};
use crate::capture::{self, Capture};
use crate::store::io_reason;
use crate::ui::Ui;
use anyhow::ensure;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use swarm::layout::Extent;
use swarm::random::Random;
use swarm::units::Bytes;

/// What targets are full of. An extent begins and ends at a multiple of its length.
pub(super) const PATTERN: &[u8; 16] = b"ezio: untouched\n";

/// The disk's file, and so the torrent's name.
pub(super) const NAME: &str = "disk.img";

/// The disk to copy.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// In words.
    pub(super) what: String,
    /// Its torrent and extents, if nobody else can find out what is used.
    pub(super) torrent: Option<PathBuf>,
    pub(super) extents: Option<Vec<Extent>>,
    /// It holds an ext4.
    pub(super) is_file_system: bool,
}

/// Makes a disk of `size` bytes in `dir`.
///
/// # Errors
/// If it cannot be written, or `stop` is set.
pub(super) fn make(dir: &Path, size: u64, ui: Ui, stop: &AtomicBool) -> anyhow::Result<Source> {
    let path = dir.join(NAME);
    let why = match tools() {
        Err(why) => why,
        Ok(mkfs) => match file_system(&mkfs, dir, &path, size, stop)? {
            Ok(what) => {
                let (torrent, extents) = (None, None);
                return Ok(Source { path, what, torrent, extents, is_file_system: true });
            }
            Err(why) => why,
        },
    };
    ui.detail(&format!("{why}, so the image is no file system"));
    let extents = scattered(size);
    sparse(&path, size, &extents, stop)?;
    let torrent = dir.join("image.torrent");
    let job = Capture { source: path.clone(), output: torrent.clone(), ..Capture::default() };
    capture::run_used(&job, extents.clone(), Ui { quiet: true, ..ui }, stop)?;
    let what = format!(
        "a disk of {} with {} used parts of random bytes, as {why}",
        Bytes(size),
        extents.len()
    );
    let (torrent, extents) = (Some(torrent), Some(extents));
    Ok(Source { path, what, torrent, extents, is_file_system: false })
}

/// The `mkfs` to use, if all is there that capturing its file system needs; else what is missing.
fn tools() -> Result<PathBuf, String> {
    let mkfs = find_program("mkfs.ext4").ok_or("there is no mkfs.ext4")?;
    Kind::Ext4.find_partclone().map_err(|_| "there is no partclone")?;
    find_program("blkid").ok_or("there is no blkid")?;
    Ok(mkfs)
}

/// Makes a file system with random files in it. Says what it is, or why `mkfs` did not do it.
fn file_system(
    mkfs: &Path,
    dir: &Path,
    path: &Path,
    size: u64,
    stop: &AtomicBool,
) -> anyhow::Result<Result<String, String>> {
    let files = dir.join("files");
    // More would not fit beside the journal of a small one.
    let (count, bytes) = random_files(&files, size / 2, stop)?;
    new_file(path, size)?;
    let made = Command::new(mkfs)
        .args(["-q", "-F", "-d"])
        .args([&*files, path])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed("run", mkfs, &e))?;
    std::fs::remove_dir_all(&files).map_err(|e| failed("remove", &files, &e))?;
    // Ctrl-C has ended it as well.
    refuse_stop(stop)?;
    if made.status.success() {
        return Ok(Ok(format!("an ext4 of {} with {count} files, {}", Bytes(size), Bytes(bytes))));
    }
    let said = String::from_utf8_lossy(&made.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed");
    std::fs::remove_file(path).map_err(|e| failed("remove", path, &e))?;
    Ok(Err(format!("mkfs.ext4 did not work ({})", last.trim())))
}

/// Fills the new directory `dir` with files of together about `bytes` bytes. Returns how many there
/// are, and how many bytes.
fn random_files(dir: &Path, bytes: u64, stop: &AtomicBool) -> anyhow::Result<(u32, u64)> {
    let mut random = Random::new(1);
    let (mut count, mut total) = (0, 0);
    while total < bytes {
        refuse_stop(stop)?;
        let below = dir.join(format!("d{}", count % 10));
        std::fs::create_dir_all(&below).map_err(|e| failed("make", &below, &e))?;
        // Small ones and large ones, as on a real disk; the largest of the smallest disk: 256 KiB.
        let most = (bytes / 16).min(8 << 20) >> random.below(8);
        let len = (1 + random.below(most)).min(bytes - total);
        let path = below.join(format!("f{count}"));
        let file = new_file(&path, 0)?;
        write_random(&file, &path, Extent { offset: 0, len }, &mut random, stop)?;
        (count, total) = (count + 1, total + len);
    }
    Ok((count, total))
}

/// Extents of whole blocks, about 60 % of the disk in some 30 parts; the first one at its start,
/// where the most precious blocks of any file system are.
fn scattered(size: u64) -> Vec<Extent> {
    const BLOCK: u64 = 4096;
    let (blocks, mut random, mut at) = (size / BLOCK, Random::new(2), 0);
    let mut extents = Vec::new();
    while at < blocks {
        let len = (1 + random.below(blocks / 24)).min(blocks - at);
        extents.push(Extent { offset: at * BLOCK, len: len * BLOCK });
        at += len + 1 + random.below(blocks / 36);
    }
    extents
}

fn sparse(path: &Path, size: u64, extents: &[Extent], stop: &AtomicBool) -> anyhow::Result<()> {
    let (file, mut random) = (new_file(path, size)?, Random::new(3));
    extents.iter().try_for_each(|&extent| write_random(&file, path, extent, &mut random, stop))
}

fn write_random(
    file: &File,
    path: &Path,
    place: Extent,
    random: &mut Random,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut bytes = vec![0; CHUNK];
    for from in (place.offset..place.end()).step_by(CHUNK) {
        refuse_stop(stop)?;
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next_u64().to_le_bytes());
        }
        // At most a chunk.
        let len = (place.end() - from).min(CHUNK as u64) as usize;
        file.write_all_at(&bytes[..len], from).map_err(|e| failed("write", path, &e))?;
    }
    Ok(())
}

/// Makes the new file `path` of `len` bytes, all of them [`PATTERN`].
///
/// # Errors
/// If it cannot be written, or `stop` is set.
pub(super) fn fill_with_pattern(path: &Path, len: u64, stop: &AtomicBool) -> anyhow::Result<()> {
    let (mut file, chunk) = (new_file(path, 0)?, PATTERN.repeat(CHUNK / PATTERN.len()));
    let mut left = len;
    while left > 0 {
        refuse_stop(stop)?;
        // At most a chunk.
        let now = left.min(CHUNK as u64) as usize;
        file.write_all(&chunk[..now]).map_err(|e| failed("write", path, &e))?;
        left -= now as u64;
    }
    Ok(())
}

/// Has `e2fsck` look at the ext4 in the file `path`, without changing it. Says what is wrong.
///
/// # Errors
/// If it cannot be run.
pub(super) fn fsck(program: &Path, path: &Path) -> anyhow::Result<Option<String>> {
    let found = Command::new(program)
        .arg("-fn")
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed("run", program, &e))?;
    if found.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&found.stdout);
    Ok(Some(format!("e2fsck: {}", said.lines().last().unwrap_or("it failed"))))
}

/// Bytes that are written at once.
const CHUNK: usize = 1 << 20;

fn new_file(path: &Path, len: u64) -> anyhow::Result<File> {
    let file = File::options().write(true).create_new(true).open(path);
    let file = file.map_err(|e| failed("make", path, &e))?;
    file.set_len(len).map_err(|e| failed("make", path, &e))?;
    Ok(file)
}

fn refuse_stop(stop: &AtomicBool) -> anyhow::Result<()> {
    ensure!(!stop.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("{what} {}: {}", path.display(), io_reason(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_extents_leave_gaps_and_stay_inside() {
        for size in [8 << 20, 24 << 20, 1 << 30] {
            let extents = scattered(size);
            assert!(extents.len() > 10 && extents[0].offset == 0, "{extents:?}");
            assert!(extents.windows(2).all(|pair| pair[0].end() < pair[1].offset), "{extents:?}");
            assert!(extents.last().is_some_and(|last| last.end() <= size), "{extents:?}");
            let used: u64 = extents.iter().map(|extent| extent.len).sum();
            assert!((size * 4 / 10..size * 8 / 10).contains(&used), "{used} of {size}");
        }
    }
}
