//! Every file system that Debian can make: how to make, fill, read and check one.

use crate::{Listing, Mount, Need, Tree, tool};
use anyhow::{Context as _, Result, bail};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;

/// A kind of file system, or a variant that lays out its blocks differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum FileSystem {
    Ext2,
    Ext3,
    Ext4,
    /// ext4 with blocks of 1 KiB, so that extents are not aligned to 4 KiB.
    Ext4Block1K,
    Xfs,
    Btrfs,
    F2fs,
    Fat12,
    Fat16,
    Fat32,
    Exfat,
    Ntfs,
    /// Version 2: Debian's `partclone.minix` 0.3.23 fails on version 3 ("seek failed").
    Minix,
    Reiser4,
    Reiserfs,
    Jfs,
    Nilfs2,
}

/// How files get in and out.
enum Access {
    /// `mount -t` with this type; the option lets a copy be mounted beside its source.
    Kernel(&'static str, &'static str),
    /// A FUSE program behind `mount -t`, and the `mount.` program of its own.
    Fuse(&'static str, &'static str),
    /// `mcopy`, `mdel`.
    Mtools,
    /// `sload.f2fs`, `dump.f2fs`.
    F2fsTools,
    /// A list of bad blocks, which `mkfs.minix` puts into a file.
    BadBlocks,
    /// Nobody can: there are only its metadata.
    None,
}

impl FileSystem {
    /// All of them.
    pub const ALL: [FileSystem; 17] = [
        FileSystem::Ext2,
        FileSystem::Ext3,
        FileSystem::Ext4,
        FileSystem::Ext4Block1K,
        FileSystem::Xfs,
        FileSystem::Btrfs,
        FileSystem::F2fs,
        FileSystem::Fat12,
        FileSystem::Fat16,
        FileSystem::Fat32,
        FileSystem::Exfat,
        FileSystem::Ntfs,
        FileSystem::Minix,
        FileSystem::Reiser4,
        FileSystem::Reiserfs,
        FileSystem::Jfs,
        FileSystem::Nilfs2,
    ];

    /// What `blkid` says as `TYPE`.
    #[must_use]
    pub fn blkid_type(self) -> &'static str {
        match self {
            FileSystem::Ext2 => "ext2",
            FileSystem::Ext3 => "ext3",
            FileSystem::Ext4 | FileSystem::Ext4Block1K => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
            FileSystem::F2fs => "f2fs",
            FileSystem::Fat12 | FileSystem::Fat16 | FileSystem::Fat32 => "vfat",
            FileSystem::Exfat => "exfat",
            FileSystem::Ntfs => "ntfs",
            FileSystem::Minix => "minix",
            FileSystem::Reiser4 => "reiser4",
            FileSystem::Reiserfs => "reiserfs",
            FileSystem::Jfs => "jfs",
            FileSystem::Nilfs2 => "nilfs2",
        }
    }

    /// The program of partclone that knows its used blocks; Debian has those of all but the last
    /// three of [`FileSystem::ALL`].
    #[must_use]
    pub fn partclone(self) -> &'static str {
        match self {
            FileSystem::Ext2 => "partclone.ext2",
            FileSystem::Ext3 => "partclone.ext3",
            FileSystem::Ext4 | FileSystem::Ext4Block1K => "partclone.ext4",
            FileSystem::Xfs => "partclone.xfs",
            FileSystem::Btrfs => "partclone.btrfs",
            FileSystem::F2fs => "partclone.f2fs",
            FileSystem::Fat12 => "partclone.fat12",
            FileSystem::Fat16 => "partclone.fat16",
            FileSystem::Fat32 => "partclone.fat32",
            FileSystem::Exfat => "partclone.exfat",
            FileSystem::Ntfs => "partclone.ntfs",
            FileSystem::Minix => "partclone.minix",
            FileSystem::Reiser4 => "partclone.reiser4",
            FileSystem::Reiserfs => "partclone.reiserfs",
            FileSystem::Jfs => "partclone.jfs",
            FileSystem::Nilfs2 => "partclone.nilfs2",
        }
    }

    /// Bytes of a device on which it shows several extents, well above the least its mkfs accepts.
    #[must_use]
    pub fn device_len(self) -> u64 {
        let mebibytes = match self {
            FileSystem::Fat12 | FileSystem::Minix | FileSystem::Jfs => 32,
            FileSystem::Ext2
            | FileSystem::Ext3
            | FileSystem::Ext4
            | FileSystem::Ext4Block1K
            | FileSystem::Fat16
            | FileSystem::Exfat
            | FileSystem::Ntfs
            | FileSystem::Reiserfs => 128,
            // Its least is 128 MiB and 4 KiB.
            FileSystem::Nilfs2 => 160,
            FileSystem::Btrfs | FileSystem::F2fs => 300,
            // xfsprogs makes none below 300 MiB. A bitmap block of reiser4 stands for 128 MiB.
            FileSystem::Xfs | FileSystem::Reiser4 => 400,
            // 65 525 clusters are the least that FAT32 may have on sectors of 4096 bytes.
            FileSystem::Fat32 => 600,
        };
        mebibytes << 20
    }

    /// What [`make`](Self::make), [`fill`](Self::fill), [`listing`](Self::listing) and
    /// [`fsck`](Self::fsck) need of the machine.
    #[must_use]
    pub fn needs(self) -> Vec<Need> {
        let mut needs =
            vec![Need::Program(self.mkfs_program()), Need::Program(self.fsck_program())];
        needs.extend(match self.access() {
            Access::Kernel(kind, _) => vec![Need::Root, Need::Kernel(kind)],
            Access::Fuse(_, program) => {
                vec![Need::Root, Need::Kernel("fuseblk"), Need::Program(program)]
            }
            Access::Mtools => vec![Need::Program("mcopy"), Need::Program("mdel")],
            Access::F2fsTools => vec![Need::Program("sload.f2fs"), Need::Program("dump.f2fs")],
            Access::BadBlocks | Access::None => Vec::new(),
        });
        needs
    }

    /// Makes an empty one on the whole of `path`, a device or a file.
    ///
    /// # Errors
    /// What the mkfs said.
    pub fn make(self, path: &Path) -> Result<()> {
        tool::run(tool::words(self.mkfs()).arg(path)).map(|_| ())
    }

    /// Puts the files of `tree` into the one on the block device `device`, then deletes its doomed
    /// ones where there is a tool for that, so that free blocks with old data lie between used ones.
    ///
    /// minix gets no files but some scattered used blocks; reiser4 gets nothing.
    ///
    /// # Errors
    /// What the tool said; for reiserfs, jfs and nilfs2 that there is none.
    pub fn fill(self, device: &Path, tree: Tree) -> Result<()> {
        match self.access() {
            Access::Kernel(kind, _) | Access::Fuse(kind, _) => fill_mounted(device, kind, tree),
            Access::Mtools => fill_with_mtools(device, tree),
            Access::F2fsTools => fill_with_sload(device, tree),
            Access::BadBlocks => self.fill_with_bad_blocks(device, tree),
            Access::None if self == FileSystem::Reiser4 => Ok(()),
            Access::None => bail!("fill {self:?} on {}: no tool can", device.display()),
        }
    }

    /// All files of the one on the block device `device`, which is only read. `None` if no tool can
    /// list them.
    ///
    /// # Errors
    /// What the tool said.
    pub fn listing(self, device: &Path) -> Result<Option<Listing>> {
        match self.access() {
            Access::Kernel(kind, options) => list_mounted(device, kind, options).map(Some),
            Access::Fuse(kind, _) => list_mounted(device, kind, "ro").map(Some),
            Access::Mtools => list_with_mtools(device).map(Some),
            Access::F2fsTools => list_with_dump(device).map(Some),
            Access::BadBlocks | Access::None => Ok(None),
        }
    }

    /// Checks the one on `path`, a device or a file, without writing to it; a btrfs must be on a
    /// device.
    ///
    /// # Errors
    /// The last words of its own checker, if that finds anything wrong.
    pub fn fsck(self, path: &Path) -> Result<()> {
        let text = tool::run(tool::words(self.fsck_words()).arg(path))?;
        match self {
            // It exits with 0 whatever it finds.
            FileSystem::F2fs if text.contains("[Fail]") => bail!("fsck.f2fs: {text}"),
            FileSystem::Btrfs => scrub(path),
            // `ntfsfix` sees the boot sectors only; this one counts every cluster.
            FileSystem::Ntfs => {
                let mut count = tool::words("ntfsresize --info --force --no-progress-bar");
                tool::run(count.arg(path)).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn access(self) -> Access {
        match self {
            FileSystem::Ext2 => Access::Kernel("ext2", "ro"),
            FileSystem::Ext3 => Access::Kernel("ext3", "ro"),
            FileSystem::Ext4 | FileSystem::Ext4Block1K => Access::Kernel("ext4", "ro"),
            FileSystem::Xfs => Access::Kernel("xfs", "ro,nouuid"),
            FileSystem::Btrfs => Access::Kernel("btrfs", "ro"),
            FileSystem::F2fs => Access::F2fsTools,
            FileSystem::Fat12 | FileSystem::Fat16 | FileSystem::Fat32 => Access::Mtools,
            FileSystem::Exfat => Access::Fuse("exfat-fuse", "mount.exfat-fuse"),
            FileSystem::Ntfs => Access::Fuse("ntfs-3g", "mount.ntfs-3g"),
            FileSystem::Minix => Access::BadBlocks,
            FileSystem::Reiser4 | FileSystem::Reiserfs | FileSystem::Jfs | FileSystem::Nilfs2 => {
                Access::None
            }
        }
    }

    fn mkfs_program(self) -> &'static str {
        self.mkfs().split(' ').next().unwrap_or_default()
    }

    fn mkfs(self) -> &'static str {
        match self {
            FileSystem::Ext2 => "mkfs.ext2 -q -F",
            FileSystem::Ext3 => "mkfs.ext3 -q -F",
            FileSystem::Ext4 => "mkfs.ext4 -q -F",
            FileSystem::Ext4Block1K => "mkfs.ext4 -q -F -b 1024",
            FileSystem::Xfs => "mkfs.xfs -q -f",
            FileSystem::Btrfs => "mkfs.btrfs -q -f",
            FileSystem::F2fs => "mkfs.f2fs -q -f",
            // It refuses a loop device on which somebody has left partitions, unless it has -I.
            FileSystem::Fat12 => "mkfs.fat -I -F 12",
            FileSystem::Fat16 => "mkfs.fat -I -F 16",
            FileSystem::Fat32 => "mkfs.fat -I -F 32",
            FileSystem::Exfat => "mkfs.exfat",
            FileSystem::Ntfs => "mkfs.ntfs --quiet --force --fast",
            FileSystem::Minix => "mkfs.minix -2",
            FileSystem::Reiser4 => "mkfs.reiser4 --force --yes",
            FileSystem::Reiserfs => "mkfs.reiserfs -q -f -f",
            FileSystem::Jfs => "mkfs.jfs -q",
            FileSystem::Nilfs2 => "mkfs.nilfs2 -q -f",
        }
    }

    fn fsck_program(self) -> &'static str {
        self.fsck_words().split(' ').next().unwrap_or_default()
    }

    fn fsck_words(self) -> &'static str {
        match self {
            FileSystem::Ext2 | FileSystem::Ext3 | FileSystem::Ext4 | FileSystem::Ext4Block1K => {
                "e2fsck -f -n"
            }
            FileSystem::Xfs => "xfs_repair -n",
            FileSystem::Btrfs => "btrfs check --readonly --check-data-csum",
            FileSystem::F2fs => "fsck.f2fs --dry-run",
            FileSystem::Fat12 | FileSystem::Fat16 | FileSystem::Fat32 => "fsck.fat -n",
            FileSystem::Exfat => "fsck.exfat -n",
            FileSystem::Ntfs => "ntfsfix --no-action",
            FileSystem::Minix => "fsck.minix -f",
            FileSystem::Reiser4 => "fsck.reiser4 --yes --check",
            FileSystem::Reiserfs => "fsck.reiserfs --yes --check",
            FileSystem::Jfs => "fsck.jfs -n -f",
            // There is no checker; this one reads the superblock and the checkpoints.
            FileSystem::Nilfs2 => "lscp",
        }
    }

    /// Random data in blocks which then, as "bad" ones, belong to a file that mkfs makes.
    ///
    /// At most a hundred: with more than half of an indirect block mkfs.minix loses some.
    fn fill_with_bad_blocks(self, device: &Path, tree: Tree) -> Result<()> {
        let mut random = crate::Random::new(tree.seed);
        let file = std::fs::OpenOptions::new().write(true).open(device)?;
        let (mut list, mut data) = (String::new(), [0; 1024]);
        for block in (2000..16_000).step_by(150) {
            random.fill(&mut data);
            file.write_all_at(&data, block * 1024)?;
            list.push_str(&format!("{block}\n"));
        }
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("bad"), list)?;
        let mut mkfs = tool::words(self.mkfs());
        tool::run(mkfs.arg("-l").arg(dir.path().join("bad")).arg(device)).map(|_| ())
    }
}

fn fill_mounted(device: &Path, kind: &str, tree: Tree) -> Result<()> {
    let mount = Mount::new(device, kind, "")?;
    tree.grow(mount.path())?;
    // Without this nothing of the doomed files would ever have had a block.
    tool::run(tool::words("sync --file-system").arg(mount.path()))?;
    if kind == "btrfs" {
        // Trees that share blocks, and files that only one of them still has.
        let mut snapshot = tool::words("btrfs subvolume snapshot -r");
        tool::run(snapshot.arg(mount.path()).arg(mount.path().join("snapshot")))?;
    }
    tree.thin(mount.path())?;
    mount.unmount()
}

fn list_mounted(device: &Path, kind: &str, options: &str) -> Result<Listing> {
    let mount = match kind {
        "btrfs" => mount_copy_of_btrfs(device, options)?,
        _ => Mount::new(device, kind, options)?,
    };
    let listing = Listing::of_dir(mount.path())?;
    mount.unmount()?;
    Ok(listing)
}

/// Reads both copies of everything that btrfs keeps twice; `btrfs check` is content with one.
fn scrub(device: &Path) -> Result<()> {
    let mount = mount_copy_of_btrfs(device, "ro")?;
    let output = tool::output(tool::words("btrfs scrub start -B -r").arg(mount.path()))?;
    let text = tool::text(&output);
    mount.unmount()?;
    if !text.contains("no errors found") {
        bail!("btrfs scrub of {}: {text}", device.display());
    }
    Ok(())
}

/// The kernel remembers devices by the UUID of their file system, and a copy has the same one:
/// without forgetting them it might mount the source instead.
fn mount_copy_of_btrfs(device: &Path, options: &str) -> Result<Mount> {
    tool::run(&mut tool::words("btrfs device scan --forget"))?;
    Mount::new(device, "btrfs", options)
}

fn fill_with_mtools(device: &Path, tree: Tree) -> Result<()> {
    let dir = tempfile::tempdir()?;
    tree.grow(dir.path())?;
    let mut mcopy = tool::words("mcopy -s -i");
    mcopy.arg(device);
    for entry in std::fs::read_dir(dir.path())? {
        mcopy.arg(entry?.path());
    }
    tool::run(mcopy.arg("::"))?;
    let doomed = tree.doomed().into_iter().map(|path| format!("::{}", path.display()));
    tool::run(tool::words("mdel -i").arg(device).args(doomed)).map(|_| ())
}

fn list_with_mtools(device: &Path) -> Result<Listing> {
    let dir = tempfile::tempdir()?;
    tool::run(tool::words("mcopy -s -n -i").arg(device).arg("::").arg(dir.path()))?;
    Listing::of_dir(dir.path())
}

fn fill_with_sload(device: &Path, tree: Tree) -> Result<()> {
    let dir = tempfile::tempdir()?;
    tree.grow(dir.path())?;
    tree.thin(dir.path())?; // It cannot delete.
    tool::run(tool::words("sload.f2fs -f").arg(dir.path()).arg(device)).map(|_| ())
}

/// Every file by its name alone: `dump.f2fs` puts one inode's file into `./lost_found`, and the node
/// address table (`dump_nat`) says which inodes there are.
fn list_with_dump(device: &Path) -> Result<Listing> {
    let dir = tempfile::tempdir()?;
    tool::run(tool::words("dump.f2fs -n 0~-1").arg(device).current_dir(dir.path()))?;
    let table = std::fs::read_to_string(dir.path().join("dump_nat")).context("read dump_nat")?;
    std::fs::write(dir.path().join("yes"), "Y\n")?;
    for inode in inodes(&table) {
        let mut dump = tool::words("dump.f2fs -i");
        dump.arg(inode).arg(device).current_dir(dir.path());
        dump.stdin(Stdio::from(std::fs::File::open(dir.path().join("yes"))?));
        tool::run(&mut dump)?;
    }
    Listing::of_dir(&dir.path().join("lost_found"))
}

/// A line `nid: 4 ino: 4 offset: 0 ...` is an inode; a node of another number belongs to one. The
/// first three are the file system's own.
fn inodes(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (node, inode) = (words.nth(1)?, words.nth(1)?);
        (node == inode && !matches!(inode, "1" | "2" | "3")).then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoopDevice, LoopOptions};

    /// Makes, fills, checks and lists one on a loop device, then breaks its first MiB, which the
    /// checker must notice.
    fn check(kind: FileSystem, files: usize) {
        let mut needs = kind.needs();
        needs.extend([Need::Root, Need::Loop]);
        crate::require!(needs);
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(kind.device_len()).unwrap();
        let device = LoopDevice::attach(&image, LoopOptions::default()).unwrap();
        kind.make(device.path()).unwrap();
        kind.fill(device.path(), Tree { seed: 7, bytes: 8 << 20 }).unwrap();
        kind.fsck(device.path()).unwrap();
        let listing = kind.listing(device.path()).unwrap();
        assert_eq!(listing.map_or(0, |listing| listing.count()), files);
        tool::run(tool::words("blkid -p -o value -s TYPE").arg(device.path()))
            .map(|text| assert_eq!(text.trim(), kind.blkid_type()))
            .unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(device.path()).unwrap();
        file.write_all_at(&vec![0xa5; 1 << 20], 0).unwrap();
        kind.fsck(device.path()).unwrap_err();
    }

    #[test]
    fn kernel_mounted() {
        check(FileSystem::Ext4, 45);
    }

    #[test]
    fn fuse_mounted() {
        check(FileSystem::Ntfs, 45);
        check(FileSystem::Exfat, 45);
    }

    #[test]
    fn with_tools_of_its_own() {
        check(FileSystem::Fat16, 45);
        check(FileSystem::F2fs, 45);
    }

    #[test]
    fn without_files() {
        check(FileSystem::Minix, 0);
        check(FileSystem::Reiser4, 0);
    }

    #[test]
    fn every_mkfs_makes_what_blkid_calls_by_its_name() {
        for kind in FileSystem::ALL {
            crate::require!([Need::Program(kind.mkfs_program())]);
            let dir = tempfile::tempdir().unwrap();
            let image = dir.path().join("image");
            std::fs::File::create(&image).unwrap().set_len(kind.device_len()).unwrap();
            kind.make(&image).unwrap();
            let mut blkid = tool::words("blkid -p -o value -s TYPE");
            assert_eq!(tool::run(blkid.arg(&image)).unwrap().trim(), kind.blkid_type());
        }
    }
}
