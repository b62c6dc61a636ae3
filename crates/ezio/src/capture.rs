//! `ezio capture`: from a source to a `.torrent`.
//!
//! Three kinds of source: a device or image file, of which [`partclone`] maps the used blocks and
//! we read and hash them; a directory of block files, which are hashed; a `torrent.info`, in which
//! partclone has written the hashes already. Each becomes an image, and that a torrent.

mod disk;
pub mod filesystem;
pub mod image_dir;
pub mod map;
pub mod partclone;
pub mod torrent_info;

use crate::hashing::{Hashing, Tee};
use crate::inspect::hex;
use crate::sha1::Digest;
use crate::store::{DirStore, Store, StoreError, io_reason, open_reason};
use crate::ui::Ui;
use anyhow::{Context as _, bail, ensure};
use image_dir::ImageDir;
use serde_json::json;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use swarm::layout::{Extent, Layout};
use swarm::metainfo::{Draft, Metainfo, Origin, piece_len_for};
use swarm::units::{Bytes, Rate};
use torrent_info::TorrentInfo;

/// What to capture, and how.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Device, image file, directory of block files, or `torrent.info`.
    pub source: PathBuf,
    /// The torrent to write. An existing file is replaced when the new one is whole.
    pub output: PathBuf,
    /// The torrent's name; parts after a `/` become directories before every offset. Without it
    /// the source's file name.
    pub name: Option<String>,
    /// Bytes of a piece; without it [`piece_len_for`] chooses.
    pub piece_len: Option<u32>,
    /// Announce URLs.
    pub trackers: Vec<String>,
    /// Who made the torrent, as it will say.
    pub creator: String,
    /// Also write the used blocks as files into this directory.
    pub image: Option<PathBuf>,
    /// All blocks, whatever the source holds.
    pub raw: bool,
    /// Go on where a source is mounted read-only or was not unmounted cleanly.
    pub force: bool,
    /// Include the last sector of an NTFS partition, its backup boot sector.
    pub ntfs_tail: bool,
}

/// What a torrent says about who made it, unless told otherwise.
pub const CREATOR: &str = concat!("ezio ", env!("CARGO_PKG_VERSION"));

impl Default for Capture {
    fn default() -> Capture {
        Capture {
            source: PathBuf::new(),
            output: PathBuf::new(),
            name: None,
            piece_len: None,
            trackers: Vec::new(),
            creator: CREATOR.to_owned(),
            image: None,
            raw: false,
            force: false,
            ntfs_tail: true,
        }
    }
}

/// What a torrent is made of.
struct Image {
    layout: Layout,
    piece_len: u32,
    hashes: Vec<Digest>,
    origin: Option<Origin>,
    /// In words: `ext4`, `raw copy`.
    what: String,
}

/// partclone's only piece length, as the type that torrents have it in. Fits: it is 2^24.
const PARTCLONE_PIECE_LEN: u32 = torrent_info::PIECE_LEN as u32;

/// Captures, and prints a summary.
///
/// # Errors
/// Whatever makes the torrent impossible or untrustworthy; then no torrent is written.
pub fn run(job: &Capture, ui: Ui, stop: &AtomicBool) -> anyhow::Result<()> {
    run_as(job, &job.output, ui, stop)
}

/// As [`run`], of what people know as `shown`: a torrent that nobody is to see has no name to tell.
///
/// # Errors
/// As [`run`].
pub fn run_as(job: &Capture, shown: &Path, ui: Ui, stop: &AtomicBool) -> anyhow::Result<()> {
    let started = Instant::now();
    let (what, torrent) = capture(job, Source::of(&job.source)?, ui, stop)?;
    summary(job, shown, &what, &torrent, started, ui);
    Ok(())
}

/// As [`run`], of a device or image file of which `used` is known to be used: no program is asked.
/// Prints no summary.
///
/// # Errors
/// As [`run`]; and if an extent is empty or outside, or two overlap.
pub fn run_used(job: &Capture, used: Vec<Extent>, ui: Ui, stop: &AtomicBool) -> anyhow::Result<()> {
    capture(job, Source::Disk(Some(used)), ui, stop).map(drop)
}

/// As [`run`], of a source that is partclone's `torrent.info` whatever it begins with. Prints no
/// summary.
///
/// # Errors
/// As [`run`].
pub fn run_torrent_info(job: &Capture, ui: Ui, stop: &AtomicBool) -> anyhow::Result<()> {
    let shown = job.source.display();
    let file = File::open(&job.source);
    let file = file.map_err(|e| anyhow::anyhow!("open {shown}: {}", io_reason(&e)))?;
    let mut bytes = Vec::new();
    file.take(TORRENT_INFO_LEN_MAX)
        .read_to_end(&mut bytes)
        .map_err(|e| anyhow::anyhow!("read {shown}: {}", io_reason(&e)))?;
    capture(job, Source::TorrentInfo(bytes), ui, stop).map(drop)
}

/// Writes the torrent. Returns it, and what it is made of in words.
fn capture(
    job: &Capture,
    source: Source,
    ui: Ui,
    stop: &AtomicBool,
) -> anyhow::Result<(String, Metainfo)> {
    let name = job.name.clone().map_or_else(|| source.default_name(&job.source), Ok)?;
    let name: Vec<&str> = name.split('/').collect();
    ensure!(
        name.iter().all(|part| !matches!(*part, "" | "." | "..") && !part.contains('\0')),
        "the name `{}` cannot name a directory; choose another with --name",
        name.join("/")
    );
    // Before hours of reading, not after.
    let mut output = output_beside(&job.output)?;

    let image = match source {
        Source::Disk(used) => disk::capture(job, used, ui, stop)?,
        Source::ImageDir => from_image_dir(job, ui, stop)?,
        Source::TorrentInfo(bytes) => from_torrent_info(job, &bytes)?,
    };
    let draft = Draft {
        name: &name,
        layout: &image.layout,
        piece_len: image.piece_len,
        hashes: &image.hashes,
        trackers: &job.trackers,
        created_by: Some(&job.creator),
        creation_date: SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs()),
        origin: image.origin.as_ref(),
    };
    let bytes = draft.encode();
    // What nobody could load is not to be written: an image of very many extents may be too large.
    let torrent = Metainfo::parse(bytes)
        .with_context(|| format!("the torrent of {} would be unusable", job.source.display()))?;
    output
        .write_all(torrent.as_bytes())
        .and_then(|()| output.as_file().sync_all())
        .map_err(|e| anyhow::anyhow!("write {}: {}", job.output.display(), io_reason(&e)))?;
    output
        .persist(&job.output)
        .map_err(|e| anyhow::anyhow!("write {}: {}", job.output.display(), io_reason(&e.error)))?;
    Ok((image.what, torrent))
}

/// The kinds of source.
enum Source {
    /// With what is used of it, if that is known.
    Disk(Option<Vec<Extent>>),
    ImageDir,
    /// With its bytes.
    TorrentInfo(Vec<u8>),
}

/// `torrent.info` of a million extents has 130 MB; no image needs more than this.
const TORRENT_INFO_LEN_MAX: u64 = 1 << 30;

impl Source {
    fn of(path: &Path) -> anyhow::Result<Source> {
        let shown = path.display();
        let fail = |e: &std::io::Error| anyhow::anyhow!("open {shown}: {}", open_reason(path, e));
        let metadata = std::fs::metadata(path).map_err(|e| fail(&e))?;
        if metadata.is_dir() {
            return Ok(Source::ImageDir);
        }
        if !metadata.is_file() {
            return Ok(Source::Disk(None));
        }
        let file = File::open(path).map_err(|e| fail(&e))?;
        let mut start = Vec::new();
        (&file).take(16).read_to_end(&mut start).map_err(|e| fail(&e))?;
        if start.starts_with(b"partclone-image\0") {
            bail!(
                "{shown} is an image in partclone's own format; unpack it with `partclone.restore \
                 -T -s {shown} -O DIR` and capture DIR"
            );
        }
        let keys: [&[u8]; 3] = [b"block_size:", b"blocks_total:", b"offset:"];
        if !keys.iter().any(|key| start.starts_with(key)) {
            return Ok(Source::Disk(None));
        }
        let mut bytes = start;
        file.take(TORRENT_INFO_LEN_MAX).read_to_end(&mut bytes).map_err(|e| fail(&e))?;
        Ok(Source::TorrentInfo(bytes))
    }

    /// The last component of the path; for a `torrent.info`, of what it describes: Clonezilla
    /// calls it `sda1.torrent.info`, partclone `sda1/torrent.info`.
    fn default_name(&self, path: &Path) -> anyhow::Result<String> {
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut name = whole.file_name();
        if let Source::TorrentInfo(_) = self {
            name = match name.and_then(|name| name.to_str()?.strip_suffix(".torrent.info")) {
                Some(stem) if !stem.is_empty() => Some(stem.as_ref()),
                _ => whole.parent().and_then(Path::file_name),
            };
        }
        name.and_then(|name| name.to_str()).map(str::to_owned).with_context(|| {
            format!("{} gives the torrent no name; choose one with --name", path.display())
        })
    }
}

/// A new file in the directory of `path`, which takes its name when it is whole.
fn output_beside(path: &Path) -> anyhow::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display();
    if let Ok(metadata) = std::fs::metadata(path) {
        ensure!(metadata.is_file(), "write {shown}: it exists and is no file");
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".ezio-")
        .suffix(".torrent")
        // The umask takes away from this what the user wants.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                anyhow::anyhow!("write {shown}: its directory is not there; make it first")
            }
            _ => anyhow::anyhow!("write {shown}: {}", open_reason(dir, &e)),
        })
}

fn from_image_dir(job: &Capture, ui: Ui, stop: &AtomicBool) -> anyhow::Result<Image> {
    refuse_options(job, "a directory of block files")?;
    let dir = ImageDir::open(&job.source)?;
    let layout = Arc::new(Layout::new(dir.extents().to_vec())?);
    let piece_len = job.piece_len.unwrap_or_else(|| piece_len_for(layout.image_len()));
    let info = dir.torrent_info()?;
    if let Some(info) = &info {
        let same = info.extents == layout.extents();
        ensure!(
            same,
            "the files in {} are not those its torrent.info names; was the image copied whole?",
            job.source.display()
        );
    }
    let store = DirStore::new(&job.source, dir.into_names(), Arc::clone(&layout));
    let hashes = hash(&store, &layout, piece_len, None, ui, stop)?;
    if let Some(info) = info
        && piece_len == PARTCLONE_PIECE_LEN
        && let Some(piece) = info.pieces.iter().zip(&hashes).position(|(a, b)| a != b)
    {
        bail!(
            "the files in {} do not have the hash that its torrent.info gives for piece {piece}; \
             the image is damaged",
            job.source.display()
        );
    }
    let what = "block files".to_owned();
    Ok(Image { layout: unshare(layout), piece_len, hashes, origin: None, what })
}

fn from_torrent_info(job: &Capture, bytes: &[u8]) -> anyhow::Result<Image> {
    refuse_options(job, "a torrent.info")?;
    ensure!(
        job.piece_len.is_none_or(|len| len == PARTCLONE_PIECE_LEN),
        "the hashes of {} are of pieces of 16 MiB; leave --piece-size out",
        job.source.display()
    );
    let info = TorrentInfo::parse(bytes)
        .with_context(|| format!("{} cannot be used", job.source.display()))?;
    Ok(Image {
        layout: Layout::new(info.extents)?,
        piece_len: PARTCLONE_PIECE_LEN,
        hashes: info.pieces,
        origin: None,
        what: "torrent.info".to_owned(),
    })
}

fn refuse_options(job: &Capture, source: &str) -> anyhow::Result<()> {
    ensure!(job.image.is_none(), "--image needs a device or an image file, not {source}");
    ensure!(!job.raw, "--raw needs a device or an image file, not {source}");
    Ok(())
}

/// Hashes all pieces of `layout`; every byte must be readable.
fn hash(
    store: &dyn Store,
    layout: &Layout,
    piece_len: u32,
    tee: Option<&Tee<'_>>,
    ui: Ui,
    stop: &AtomicBool,
) -> anyhow::Result<Vec<Digest>> {
    let pieces = layout.image_len().div_ceil(u64::from(piece_len));
    let pieces = usize::try_from(pieces).context("the image has too many pieces")?;
    let hashes = Mutex::new(vec![[0; 20]; pieces]);
    let failure: Mutex<Option<StoreError>> = Mutex::new(None);
    let progress = ui.progress("capture", layout.image_len());
    let hashing = Hashing {
        store,
        image_len: layout.image_len(),
        piece_len,
        done: &progress.done,
        stop,
        tee,
    };
    hashing.run(|piece, result| match result {
        Ok(digest) => {
            // There are as many hashes as pieces, so the index fits.
            hashes.lock().unwrap_or_else(PoisonError::into_inner)[piece as usize] = digest;
            true
        }
        Err(error) => {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            false
        }
    })?;
    drop(progress);
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        bail!("{error}; nothing was captured");
    }
    ensure!(!stop.load(Ordering::Relaxed), "interrupted; nothing was captured");
    Ok(hashes.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn unshare(layout: Arc<Layout>) -> Layout {
    Arc::try_unwrap(layout).unwrap_or_else(|shared| (*shared).clone())
}

fn summary(job: &Capture, shown: &Path, what: &str, torrent: &Metainfo, started: Instant, ui: Ui) {
    let (layout, seconds) = (torrent.layout(), started.elapsed().as_secs_f64());
    let len = layout.image_len();
    // The rate is for people: a float's 53 bits are enough.
    let rate = Rate((len as f64 / seconds.max(0.001)) as u64);
    let text = format!(
        "{}: {} of {what} in {} extents, {} pieces of {}, info-hash {} ({seconds:.1} s, {rate})",
        shown.display(),
        Bytes(len),
        layout.extents().len(),
        torrent.piece_count(),
        Bytes(torrent.piece_len().into()),
        hex(&torrent.info_hash()),
    );
    let json = json!({
        "torrent": job.output.to_string_lossy(),
        "content": what,
        "info_hash": hex(&torrent.info_hash()),
        "image_bytes": len,
        "extents": layout.extents().len(),
        "pieces": torrent.piece_count(),
        "piece_bytes": torrent.piece_len(),
        "seconds": seconds,
    });
    ui.result(&text, json);
}
