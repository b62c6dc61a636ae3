//! Capture of a device or image file: what of it is used, whether it may be read now, and its
//! hashes.

use super::filesystem::{self, Content, Dirty, FileSystem};
use super::image_dir::ImageDirWriter;
use super::partclone;
use super::torrent_info::TorrentInfo;
use super::{Capture, Image, PARTCLONE_PIECE_LEN, hash, unshare};
use crate::device::{self, Claim, Device, Fingerprint, Purpose, Use};
use crate::hashing::Tee;
use crate::store::{DeviceStore, StoreError, io_reason};
use crate::ui::Ui;
use anyhow::{Context as _, bail, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use swarm::layout::{Extent, Layout};
use swarm::metainfo::{Origin, piece_len_for};
use swarm::units::Bytes;

/// Hashes the used blocks of the device or image file `job.source`; finds them unless they are
/// `known`.
pub(super) fn capture(
    job: &Capture,
    known: Option<Vec<Extent>>,
    ui: Ui,
    stop: &AtomicBool,
) -> anyhow::Result<Image> {
    ensure!(
        job.image.is_none() || job.piece_len.is_none_or(|len| len == PARTCLONE_PIECE_LEN),
        "--image writes partclone's torrent.info, whose pieces are 16 MiB; leave --piece-size out"
    );
    let (file, device) = device::open_source(&job.source)?;
    let source = Source { job, file, device, ui, stop };
    source.refuse_use()?;
    let mut claim = source.claim()?;
    let before = source.fingerprint()?;
    let used = match known {
        Some(extents) => Used { extents, what: "known extents".to_owned(), ..source.all() },
        None => source.used(&mut claim)?,
    };
    let layout = Layout::new(used.extents)?;
    let (layout, piece_len) = match job.image {
        // A block file is at most as long as the buffer that Clonezilla gives partclone.
        Some(_) => (layout.cut(u64::from(PARTCLONE_PIECE_LEN)), PARTCLONE_PIECE_LEN),
        None => {
            let len = job.piece_len.unwrap_or_else(|| piece_len_for(layout.image_len()));
            (layout, len)
        }
    };
    let layout = Arc::new(layout);
    let file = source.file.try_clone().context("duplicate a file descriptor")?;
    let store = DeviceStore::new(file, &job.source, Arc::clone(&layout))?;
    let writer = match &job.image {
        Some(dir) => Some(ImageDirWriter::create(dir, layout.extents())?),
        None => None,
    };
    let to_files = |offset: u64, bytes: &[u8]| match &writer {
        Some(writer) => tee(writer, &layout, offset, bytes),
        None => Ok(()),
    };
    let tee = writer.as_ref().map(|_| &to_files as &Tee<'_>);
    let hashes = hash(&store, &layout, piece_len, tee, ui, stop)?;
    source.refuse_change(&before)?;
    if let Some(writer) = writer {
        writer.finish(&TorrentInfo {
            block_size: Some(used.block_len),
            blocks_total: Some(used.blocks_len / u64::from(used.block_len)),
            extents: layout.extents().to_vec(),
            pieces: hashes.clone(),
        })?;
    }
    drop((claim, store));
    let (origin, what) = (Some(used.origin), used.what);
    Ok(Image { layout: unshare(layout), piece_len, hashes, origin, what })
}

/// A device or image file that is being captured.
struct Source<'a> {
    job: &'a Capture,
    file: File,
    device: Device,
    ui: Ui,
    stop: &'a AtomicBool,
}

/// The part of a source that is captured.
struct Used {
    extents: Vec<Extent>,
    origin: Origin,
    /// In words, for the summary.
    what: String,
    /// The unit of the map and the bytes it covers, for partclone's header.
    block_len: u32,
    blocks_len: u64,
}

impl Source<'_> {
    /// Finds out what is used. The claim is let go while a program needs the device for itself.
    fn used(&self, claim: &mut Option<Claim>) -> anyhow::Result<Used> {
        if self.job.raw {
            return Ok(self.all());
        }
        self.refuse_unreadable()?;
        let shown = self.device.path.display();
        let named = match filesystem::recognise(&self.device.path, &self.file)? {
            Content::FileSystem(fs) => return self.file_system(&fs, claim),
            Content::Swap { header_bytes } => return Ok(self.swap(header_bytes)),
            Content::Unsupported { blkid_type } => {
                return Ok(self.unknown(&format!(
                    "{blkid_type}, of which no partclone knows the used blocks"
                )));
            }
            Content::Empty => {
                return Ok(self.unknown("nothing that blkid knows; it begins with zeros"));
            }
            Content::Unknown => return Ok(self.unknown("nothing that blkid knows")),
            Content::PartitionTable { kind } => {
                let partitions = device::partitions(&self.device).unwrap_or_default();
                bail!(
                    "{shown} is a whole disk with a partition table ({kind}): {}\nor take all of \
                     its blocks with --raw",
                    filesystem::how_to_reach_partitions(&self.device, &partitions)
                );
            }
            Content::HibernatedSwap => {
                "the memory of a hibernated machine; wake it and shut it down".to_owned()
            }
            Content::Luks => {
                "an encrypted volume (LUKS); open it and capture what is inside".to_owned()
            }
            Content::BitLocker => {
                "a volume encrypted by BitLocker; decrypt it in Windows".to_owned()
            }
            Content::LvmMember => {
                "a physical volume of LVM; capture its logical volumes one by one".to_owned()
            }
            Content::RaidMember { kind } => {
                format!("a member of a RAID array ({kind}); capture the assembled array")
            }
            Content::MultiDevice { what } => {
                format!("{what}, which is not complete on one device")
            }
        };
        bail!("{shown} holds {named}, or take all of its blocks as they are with --raw")
    }

    /// Refuses a source whose start or end cannot be read. blkid looks at both (RAID has its marks
    /// at the end), and if it cannot read there it finds nothing, without a word.
    fn refuse_unreadable(&self) -> anyhow::Result<()> {
        let size = self.device.size_bytes;
        let mut buffer = vec![0; usize::try_from(size).map_or(PROBE_LEN, |len| len.min(PROBE_LEN))];
        let len = buffer.len() as u64;
        for offset in [0, size - len] {
            self.file.read_exact_at(&mut buffer, offset).map_err(|error| {
                let path = self.device.path.clone();
                StoreError { what: "read", path, offset, len, error }
            })?;
        }
        Ok(())
    }

    fn file_system(&self, fs: &FileSystem, claim: &mut Option<Claim>) -> anyhow::Result<Used> {
        let (shown, kind) = (self.device.path.display(), fs.kind);
        self.refuse_dirty(fs)?;
        if kind == filesystem::Kind::Fat12 {
            return Ok(self.fat12(fs));
        }
        let program = kind
            .find_partclone()
            .with_context(|| format!("{shown} holds {kind}, whose used blocks are not known"))?;
        self.ui.detail(&format!("{shown} holds {kind}; running {}", program.display()));
        if !kind.works_beside_claim() {
            drop(claim.take());
        }
        let run = partclone::Run {
            program: &program,
            device: &self.device.path,
            force: self.job.force,
            time_limit: PARTCLONE_TIME_MAX,
            stop: self.stop,
        };
        let found = run.map().with_context(|| format!("{shown} holds {kind}"))?;
        if claim.is_none() {
            *claim = self.claim()?;
        }
        for warning in &found.warnings {
            let text = format!("{} says: {warning}", program.display());
            // Forced, it complains about what it was forced over.
            if self.job.force { self.ui.detail(&text) } else { self.ui.note(&text) }
        }
        let len = found.map.end;
        ensure!(
            len <= self.device.size_bytes,
            "the {kind} on {shown} has {len} bytes, but the device only {}; was it cut off?",
            self.device.size_bytes
        );
        let mut extents = found.map.used;
        if self.job.ntfs_tail && kind == filesystem::Kind::Ntfs {
            let sector_len = self.device.logical_sector_bytes;
            let tail = filesystem::ntfs_tail(self.device.size_bytes, sector_len);
            if extents.last().is_none_or(|last| last.end() <= tail.offset) {
                extents.push(tail);
            }
        }
        if kind == filesystem::Kind::Btrfs {
            extents = self.with_all_of_btrfs(extents)?;
        }
        Ok(Used {
            extents,
            origin: self.origin(Some((&fs.blkid_type, len))),
            what: kind.to_string(),
            block_len: found.block_size.unwrap_or(SECTOR_LEN),
            blocks_len: len,
        })
    }

    /// What partclone lists, and what the extent tree lists: Debian's partclone 0.3.23 leaves out
    /// second copies of metadata and data, and now and then both copies of a node (partclone#239).
    fn with_all_of_btrfs(&self, mut extents: Vec<Extent>) -> anyhow::Result<Vec<Extent>> {
        let found = filesystem::btrfs_used(&self.file, self.device.size_bytes);
        extents.extend(found.map_err(|e| {
            anyhow::anyhow!(
                "find the used bytes of the btrfs on {}: {e}; --raw takes all of its blocks as they \
                 are",
                self.device.path.display()
            )
        })?);
        Ok(filesystem::merge(extents))
    }

    /// All blocks: partclone up to 0.3.38 takes FAT12's entries of 12 bits for 16, and its map lacks
    /// half of the files (seen with 0.3.23). A FAT12 has at most 4084 clusters.
    fn fat12(&self, fs: &FileSystem) -> Used {
        let len = self.device.size_bytes;
        self.ui.detail("all blocks of a FAT12 are captured: partclone's map of it is not reliable");
        let origin = self.origin(Some((&fs.blkid_type, len)));
        Used { origin, what: fs.kind.to_string(), ..self.all() }
    }

    fn swap(&self, header_len: u64) -> Used {
        self.ui.note(&format!(
            "{} is swap space: only its header of {} is captured, not what was swapped out",
            self.device.path.display(),
            Bytes(header_len)
        ));
        Used {
            extents: vec![Extent { offset: 0, len: header_len }],
            // swapon(8) refuses a device smaller than the header says.
            origin: self.origin(Some(("swap", self.device.size_bytes))),
            what: "swap".to_owned(),
            ..self.all()
        }
    }

    fn unknown(&self, what: &str) -> Used {
        self.ui.note(&format!(
            "{} holds {what}: all of its {} are captured",
            self.device.path.display(),
            Bytes(self.device.size_bytes)
        ));
        self.all()
    }

    /// All blocks. The header is that of partclone.dd.
    fn all(&self) -> Used {
        let len = self.device.size_bytes;
        Used {
            extents: vec![Extent { offset: 0, len }],
            origin: self.origin(None),
            what: "raw copy".to_owned(),
            block_len: SECTOR_LEN,
            blocks_len: len,
        }
    }

    fn origin(&self, file_system: Option<(&str, u64)>) -> Origin {
        Origin {
            device_len: self.device.size_bytes,
            file_system_len: file_system.map(|(_, len)| len),
            file_system: file_system.map(|(name, _)| name.to_owned()),
            sector_len: self.device.logical_sector_bytes,
        }
    }

    /// Refuses a source that others may be writing to; one that they only read needs `--force`.
    fn refuse_use(&self) -> anyhow::Result<()> {
        let (shown, uses) = (self.device.path.display(), self.uses()?);
        let writing: Vec<Use> = uses.iter().filter(|u| u.may_write()).cloned().collect();
        ensure!(
            writing.is_empty(),
            "{shown} is in use: {}; what changes while it is read cannot be captured, unmount or \
             stop it first",
            join(&writing)
        );
        ensure!(
            uses.is_empty() || self.job.force,
            "{shown} is in use: {}; unmount it, or capture it all the same with --force",
            join(&uses)
        );
        Ok(())
    }

    fn uses(&self) -> anyhow::Result<Vec<Use>> {
        device::usage(&self.device)
            .with_context(|| format!("find out who uses {}", self.device.path.display()))
    }

    /// Takes the exclusive hold of the device. One that is mounted read-only cannot be held.
    fn claim(&self) -> anyhow::Result<Option<Claim>> {
        if self.job.force && !self.uses()?.is_empty() {
            return Ok(None);
        }
        Ok(Some(device::claim(&self.device, Purpose::Reading)?))
    }

    fn refuse_dirty(&self, fs: &FileSystem) -> anyhow::Result<()> {
        let (shown, kind) = (self.device.path.display(), fs.kind);
        let dirty = filesystem::dirty(&self.file, fs)
            .map_err(|e| anyhow::anyhow!("look at the {kind} on {shown}: {}", io_reason(&e)))?;
        match dirty {
            Some(Dirty { why, what_to_do }) if !self.job.force => bail!(
                "the {kind} on {shown} is not clean: {why}; {what_to_do}, or capture it all the \
                 same with --force"
            ),
            _ => Ok(()),
        }
    }

    fn fingerprint(&self) -> anyhow::Result<Fingerprint> {
        Fingerprint::take(&self.file, &self.device).map_err(|e| {
            anyhow::anyhow!("look at {}: {}", self.device.path.display(), io_reason(&e))
        })
    }

    fn refuse_change(&self, before: &Fingerprint) -> anyhow::Result<()> {
        match before.changed(&self.fingerprint()?) {
            None => Ok(()),
            Some(change) => bail!(
                "{} changed while it was read ({change}); find out who writes to it and capture \
                 it again",
                self.device.path.display()
            ),
        }
    }
}

/// partclone reads metadata only; a fragmented file system of many TB on a slow disk takes minutes.
const PARTCLONE_TIME_MAX: Duration = Duration::from_secs(3600);

/// More than any mark of a file system or RAID is away from the start or the end.
const PROBE_LEN: usize = 1 << 20;

/// The block of partclone.dd, and of maps whose unit partclone did not tell.
const SECTOR_LEN: u32 = 512;

fn join(uses: &[Use]) -> String {
    uses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Hands bytes of the image to the block files they belong to.
fn tee(writer: &ImageDirWriter, layout: &Layout, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let mut at = 0;
    for span in layout.spans(offset..offset + bytes.len() as u64) {
        // A part of a buffer in memory.
        let len = span.device.len as usize;
        writer.write_all_at(span.index, span.skip, &bytes[at..at + len])?;
        at += len;
    }
    Ok(())
}
