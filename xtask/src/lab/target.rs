//! What the server reads and what a client writes.

use super::image::Image;
use super::plan::Disk;
use super::program::Program;
use super::run::Site;
use anyhow::{Context as _, ensure};
use lab::disk::{Model, Stats};
use lab::{LoopDevice, LoopOptions, TestDisk};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file or a device that holds one image.
#[derive(Debug)]
pub(super) struct Medium {
    pub(super) path: PathBuf,
    /// Attached while the value lives.
    _device: Option<LoopDevice>,
    disk: Option<TestDisk>,
}

impl Medium {
    /// What the server reads `image` from.
    pub(super) fn source(image: &Image, disk: Disk) -> anyhow::Result<Medium> {
        match disk {
            Disk::File | Disk::Real => Ok(Medium::file(image.path.clone())),
            Disk::Loop => Medium::device(&image.path),
            Disk::Slow(model) | Disk::Cached(model) => {
                let disk = TestDisk::of(&image.path, model)?;
                Medium::over(disk)
            }
        }
    }

    /// What client `node` writes image `index` to.
    pub(super) fn target(site: &Site<'_>, node: usize, index: usize) -> anyhow::Result<Medium> {
        let image = &site.images[index];
        let client = &site.plan.clients[node - 1];
        if client.program == Program::Libtorrent {
            return Ok(Medium::file(image.file_below(&site.dir.join(format!("client{node}")))?));
        }
        let name = format!("target{node}.{index}");
        let backing = if client.disk == Disk::Real { site.real } else { site.dir }.join(name);
        match client.disk {
            Disk::File | Disk::Real => {
                make_file(&backing, image.len)?;
                Ok(Medium::file(backing))
            }
            Disk::Loop => {
                make_file(&backing, image.len)?;
                Medium::device(&backing)
            }
            Disk::Slow(model) => {
                let disk = TestDisk::new(image.len, model)?;
                let medium = Medium::file(disk.path().to_owned());
                Ok(Medium { disk: Some(disk), ..medium })
            }
            Disk::Cached(model) => Medium::over(TestDisk::new(image.len, model)?),
        }
    }

    /// Reads it as fast as the machine can from now on, to compare it.
    pub(super) fn hurry(&self) {
        if let Some(disk) = &self.disk {
            disk.set_model(Model::Instant);
        }
    }

    /// What its disk has done since it was last asked, if that counts.
    pub(super) fn take_stats(&self) -> Option<Stats> {
        self.disk.as_ref().map(TestDisk::take_stats)
    }

    fn file(path: PathBuf) -> Medium {
        Medium { path, _device: None, disk: None }
    }

    fn over(disk: TestDisk) -> anyhow::Result<Medium> {
        let medium = Medium::device(disk.path())?;
        Ok(Medium { disk: Some(disk), ..medium })
    }

    fn device(backing: &Path) -> anyhow::Result<Medium> {
        let len = std::fs::metadata(backing)
            .with_context(|| format!("look at {}", backing.display()))?
            .len();
        ensure!(len.is_multiple_of(512), "an image for a loop device is made of whole sectors");
        let device = LoopDevice::attach(backing, LoopOptions::default())?;
        Ok(Medium { path: device.path().to_owned(), _device: Some(device), disk: None })
    }
}

/// There before, as a device is: `ezio deploy` makes no files below /dev.
fn make_file(path: &Path, len: u64) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    file.set_len(len).with_context(|| format!("give {} {len} bytes", path.display()))
}
