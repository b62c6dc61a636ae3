//! A file that cannot be read in its middle, as on a disk with a bad sector.

use crate::{FileSystem, LoopDevice, LoopOptions, Mount, Need, tool};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A copy of a file of which one block of 4 KiB, and nothing else, answers with EIO.
///
/// It lies in a btrfs that keeps a checksum of every block, and the block was changed below it, on
/// the medium. No device mapper and no FUSE are needed, and the file can be attached as a loop
/// device.
#[derive(Debug)]
pub struct FailingFile {
    path: PathBuf,
    // In the order in which they must go.
    _mount: Mount,
    _device: LoopDevice,
    _dir: TempDir,
}

impl FailingFile {
    /// What this needs of the machine.
    pub const NEEDS: [Need; 4] =
        [Need::Root, Need::Loop, Need::Kernel("btrfs"), Need::Program("mkfs.btrfs")];

    /// Copies `source` and breaks the block at `offset`, a multiple of 4096. It must hold data that
    /// no other block holds, for the block is found on the medium by what is in it.
    ///
    /// # Errors
    /// What a program said; that the block is not there exactly once.
    pub fn new(source: &Path, offset: u64) -> Result<FailingFile> {
        let dir = tempfile::tempdir()?;
        let image = dir.path().join("btrfs.img");
        let len = source.metadata()?.len() + SPACE;
        File::create(&image)?.set_len(len)?;
        let device = LoopDevice::attach(&image, LoopOptions::default())?;
        FileSystem::Btrfs.make(device.path())?;
        let mount = Mount::new(device.path(), "btrfs", "")?;
        let mut copy = tool::words("cp --sparse=always");
        tool::run(copy.arg(source).arg(mount.path().join(NAME)))?;
        mount.unmount()?;

        let mut block = [0; BLOCK_LEN];
        File::open(source)?.read_exact_at(&mut block, offset)?;
        break_block(device.path(), len, &block)?;
        let mount = Mount::new(device.path(), "btrfs", "")?;
        let path = mount.path().join(NAME);
        ensure!(
            File::open(&path)?.read_exact_at(&mut block, offset).is_err(),
            "the block at {offset:#x} of {} can still be read",
            path.display()
        );
        Ok(FailingFile { path, _mount: mount, _device: device, _dir: dir })
    }

    /// The copy.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Changes the one block of `device` that is equal to `block`.
fn break_block(device: &Path, len: u64, block: &[u8; BLOCK_LEN]) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(device)?;
    let mut part = vec![0; 4 << 20];
    let mut found = None;
    for start in (0..len).step_by(part.len()) {
        let count = part.len().min(usize::try_from(len - start)?);
        file.read_exact_at(&mut part[..count], start)?;
        for (bytes, at) in part[..count].chunks(BLOCK_LEN).zip((start..).step_by(BLOCK_LEN)) {
            if bytes == block && found.replace(at).is_some() {
                bail!("two blocks of {} are equal", device.display());
            }
        }
    }
    let at = found.with_context(|| format!("{} does not hold the block", device.display()))?;
    file.write_all_at(&[!block[0]], at)?;
    Ok(file.sync_all()?)
}

const NAME: &str = "file";

/// The least that btrfs keeps a checksum of on x86.
const BLOCK_LEN: usize = 4096;

/// For what btrfs itself needs: its least is 109 MiB.
const SPACE: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn one_block_cannot_be_read() {
        crate::require!(FailingFile::NEEDS);
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        let mut data = vec![0; 1 << 20];
        Random::new(1).fill(&mut data);
        std::fs::write(&source, &data).unwrap();
        let failing = FailingFile::new(&source, 512 << 10).unwrap();
        let file = File::open(failing.path()).unwrap();
        let mut block = [0; BLOCK_LEN];
        for at in (0..1 << 20).step_by(BLOCK_LEN) {
            let answer = file.read_exact_at(&mut block, at);
            if at == 512 << 10 {
                assert_eq!(answer.unwrap_err().raw_os_error(), Some(5), "EIO");
            } else {
                answer.unwrap();
                assert_eq!(block, data[usize::try_from(at).unwrap()..][..BLOCK_LEN]);
            }
        }
    }
}
