//! A loop device on a sparse file of its own, and bytes moved between two of them.

use lab::{LoopDevice, LoopOptions};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use swarm::layout::{Extent, Layout};

/// A device full of zeros, and the file below it.
pub(crate) struct Disk {
    device: LoopDevice,
    pub(crate) image: PathBuf,
}

impl Disk {
    pub(crate) fn new(image: PathBuf, len: u64, sector_size: u32) -> Disk {
        File::create(&image).unwrap().set_len(len).unwrap();
        Disk::of(image, LoopOptions { sector_size, ..Default::default() })
    }

    pub(crate) fn of(image: PathBuf, options: LoopOptions) -> Disk {
        Disk { device: LoopDevice::attach(&image, options).unwrap(), image }
    }

    /// The device's path.
    pub(crate) fn path(&self) -> &Path {
        self.device.path()
    }

    pub(crate) fn device(&self) -> &LoopDevice {
        &self.device
    }

    /// Makes the file hold what was written to the device.
    pub(crate) fn sync(&self) {
        self.open().sync_all().unwrap();
    }

    /// Writes the extents of `layout` as they are on `source`, and nothing else.
    pub(crate) fn write_extents(&self, source: &Disk, layout: &Layout) {
        let (from, to) = (source.open(), self.open());
        let mut buf = vec![0; 4 << 20];
        for &Extent { offset, len } in layout.cut(4 << 20).extents() {
            let part = &mut buf[..usize::try_from(len).unwrap()]; // at most 4 MiB
            from.read_exact_at(part, offset).unwrap();
            to.write_all_at(part, offset).unwrap();
        }
        to.sync_all().unwrap();
    }

    /// The bytes of `extent`.
    pub(crate) fn read(&self, extent: Extent) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(extent.len).unwrap()]; // a part of a piece
        self.open().read_exact_at(&mut bytes, extent.offset).unwrap();
        bytes
    }

    /// Turns one bit of the byte at `offset`.
    pub(crate) fn flip(&self, offset: u64) {
        let (file, mut byte) = (self.open(), [0]);
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    }

    fn open(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.path()).unwrap()
    }
}

/// The first byte that no extent holds, if there is one. The extents are in device order.
pub(crate) fn free_byte(layout: &Layout, device_len: u64) -> Option<u64> {
    let mut end = 0;
    for extent in layout.extents() {
        if extent.offset > end {
            return Some(end);
        }
        end = extent.end();
    }
    (end < device_len).then_some(end)
}
