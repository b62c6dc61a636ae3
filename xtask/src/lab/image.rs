//! The image that is spread, and what came of it.

use super::options::Shape;
use anyhow::{Context as _, bail, ensure};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use swarm::metainfo::Metainfo;

/// Random bytes in a file, and their torrent.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) torrent: PathBuf,
    pub(super) metainfo: Metainfo,
    pub(super) len: u64,
}

/// How much is made and compared at once.
const CHUNK: usize = 1 << 20;

impl Image {
    /// Makes the images in `dir` that `shape` is cut into, and captures all blocks of each.
    pub(super) fn make_all(
        dir: &Path,
        shape: &Shape,
        count: usize,
        tracker: Option<&str>,
        ezio: &Path,
    ) -> anyhow::Result<Vec<Image>> {
        let size = shape.size / count as u64;
        let part = Shape { size, ..*shape };
        let make = |index| Image::make(dir, &format!("image{index}"), &part, tracker, ezio);
        (0..count).map(make).collect()
    }

    fn make(
        dir: &Path,
        name: &str,
        shape: &Shape,
        tracker: Option<&str>,
        ezio: &Path,
    ) -> anyhow::Result<Image> {
        let (path, torrent) = (dir.join(name), dir.join(format!("{name}.torrent")));
        let mut file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        let random = File::open("/dev/urandom").context("open /dev/urandom")?;
        let made = std::io::copy(&mut random.take(shape.size), &mut file)
            .with_context(|| format!("fill {}", path.display()))?;
        ensure!(made == shape.size, "{made} random bytes instead of {}", shape.size);
        file.flush()?;
        let piece_len = shape.piece_len.to_string();
        let mut capture = Command::new(ezio);
        capture.args(["capture", "--raw", "--quiet", "--piece-size", &piece_len]);
        if let Some(tracker) = tracker {
            capture.args(["--tracker", tracker]);
        }
        lab::tool::run(capture.arg("-o").arg(&torrent).arg(&path))?;
        let metainfo = Metainfo::parse(std::fs::read(&torrent)?)?;
        ensure!(metainfo.layout().image_len() == shape.size, "the capture left something out");
        Ok(Image { path, torrent, metainfo, len: shape.size })
    }

    /// What `ezio deploy --to NAME=PATH` calls it.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(self.metainfo.name()).into_owned()
    }

    /// The only file of the torrent, below a client's directory.
    pub(super) fn file_below(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        let extents = self.metainfo.layout().extents();
        ensure!(extents.len() == 1 && extents[0].offset == 0, "not one extent: {extents:x?}");
        let name = String::from_utf8(self.metainfo.name().to_vec())?;
        // Offsets have 32 hexadecimal digits in what `ezio capture` writes.
        Ok(dir.join(name).join("0".repeat(32)))
    }

    /// Compares every byte.
    pub(super) fn compare(&self, copy: &Path) -> anyhow::Result<()> {
        let open =
            |path: &Path| File::open(path).with_context(|| format!("open {}", path.display()));
        let (ours, theirs) = (open(&self.path)?, open(copy)?);
        let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut offset = 0;
        while offset < self.len {
            // At most a chunk.
            let len = (self.len - offset).min(CHUNK as u64) as usize;
            ours.read_exact_at(&mut a[..len], offset)?;
            theirs
                .read_exact_at(&mut b[..len], offset)
                .with_context(|| format!("read {} at {offset:#x}", copy.display()))?;
            let (a, b) = (&a[..len], &b[..len]);
            if a != b {
                let right = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                bail!("{} is wrong at {:#x}", copy.display(), offset + right as u64);
            }
            offset += len as u64;
        }
        Ok(())
    }
}
