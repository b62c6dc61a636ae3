//! The table: file system as blkid names it -> partclone programs that map it -> who brings them.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file system some partclone knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the file system's own name")]
pub enum Kind {
    Ext2,
    Ext3,
    Ext4,
    Reiserfs,
    Reiser4,
    Xfs,
    Jfs,
    Btrfs,
    F2fs,
    Nilfs2,
    Fat12,
    Fat16,
    Fat32,
    ExFat,
    Ntfs,
    HfsPlus,
    Ufs,
    Minix,
    Vmfs,
    Apfs,
}

/// What the table says about a file system.
struct Row {
    kind: Kind,
    name: &'static str,
    /// blkid's TYPE.
    blkid_types: &'static [&'static str],
    /// Best first. Several names of one program exist because distributions link different ones.
    programs: &'static [&'static str],
    /// Debian's package `partclone` has it; else only Clonezilla's own build does.
    in_debian: bool,
    /// The program was seen to work while another process holds the device's exclusive claim.
    works_beside_claim: bool,
}

const fn row(
    kind: Kind,
    name: &'static str,
    blkid_types: &'static [&'static str],
    programs: &'static [&'static str],
) -> Row {
    Row { kind, name, blkid_types, programs, in_debian: true, works_beside_claim: true }
}

/// The programs of Debian's partclone were tried under a claim (0.3.23, loop devices): all work,
/// except `partclone.f2fs`, which opens the device exclusively itself. Those we could not try
/// (apfs, hfsp and all that Debian lacks) are not trusted with it.
const TABLE: [Row; 20] = [
    row(Kind::Ext2, "ext2", &["ext2"], &["partclone.ext2", "partclone.extfs"]),
    row(Kind::Ext3, "ext3", &["ext3"], &["partclone.ext3", "partclone.extfs"]),
    row(Kind::Ext4, "ext4", &["ext4", "ext4dev"], &["partclone.ext4", "partclone.extfs"]),
    untried(row(Kind::Reiserfs, "ReiserFS", &["reiserfs"], &["partclone.reiserfs"])),
    row(Kind::Reiser4, "Reiser4", &["reiser4"], &["partclone.reiser4"]),
    row(Kind::Xfs, "XFS", &["xfs"], &["partclone.xfs"]),
    untried(row(Kind::Jfs, "JFS", &["jfs"], &["partclone.jfs"])),
    row(Kind::Btrfs, "btrfs", &["btrfs"], &["partclone.btrfs"]),
    not_beside_claim(row(Kind::F2fs, "F2FS", &["f2fs"], &["partclone.f2fs"])),
    untried(row(Kind::Nilfs2, "NILFS2", &["nilfs2"], &["partclone.nilfs2"])),
    row(Kind::Fat12, "FAT12", &[], &["partclone.fat12", "partclone.fat", "partclone.vfat"]),
    row(Kind::Fat16, "FAT16", &[], &["partclone.fat16", "partclone.fat", "partclone.vfat"]),
    row(Kind::Fat32, "FAT32", &["vfat"], &["partclone.fat32", "partclone.fat", "partclone.vfat"]),
    row(Kind::ExFat, "exFAT", &["exfat"], &["partclone.exfat"]),
    row(Kind::Ntfs, "NTFS", &["ntfs"], &["partclone.ntfs"]),
    not_beside_claim(row(
        Kind::HfsPlus,
        "HFS+",
        &["hfsplus"],
        &["partclone.hfsp", "partclone.hfsplus", "partclone.hfs+"],
    )),
    untried(row(Kind::Ufs, "UFS", &["ufs"], &["partclone.ufs"])),
    row(Kind::Minix, "Minix", &["minix"], &["partclone.minix"]),
    untried(row(
        Kind::Vmfs,
        "VMFS",
        &["VMFS", "VMFS_volume_member"],
        &["partclone.vmfs", "partclone.vmfs5", "partclone.vmfs3"],
    )),
    not_beside_claim(row(Kind::Apfs, "APFS", &["apfs"], &["partclone.apfs"])),
];

const fn not_beside_claim(row: Row) -> Row {
    Row { works_beside_claim: false, ..row }
}

/// Only in Clonezilla's build, so never seen under a claim.
const fn untried(row: Row) -> Row {
    Row { in_debian: false, works_beside_claim: false, ..row }
}

/// No program for a file system was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("run {}: not found in PATH or /usr/sbin; {brought_by}", .programs.join(" or "))]
pub struct MissingProgram {
    /// Any of these would do.
    pub programs: Vec<&'static str>,
    /// What brings them: `install the package partclone`, ...
    pub brought_by: &'static str,
}

impl Kind {
    /// All of them, in the table's order.
    pub fn all() -> impl Iterator<Item = Kind> {
        TABLE.iter().map(|row| row.kind)
    }

    /// By blkid's TYPE and VERSION (which tells the FATs apart); `None` if partclone has no program.
    pub fn from_blkid(blkid_type: &str, version: Option<&str>) -> Option<Kind> {
        let row = TABLE.iter().find(|row| row.blkid_types.contains(&blkid_type))?;
        Some(match (row.kind, version) {
            (Kind::Fat32, Some("FAT12")) => Kind::Fat12,
            (Kind::Fat32, Some("FAT16")) => Kind::Fat16,
            (kind, _) => kind,
        })
    }

    /// The programs that map it, best first.
    pub fn programs(self) -> &'static [&'static str] {
        self.row().programs
    }

    /// What brings the programs, as advice.
    pub fn brought_by(self) -> &'static str {
        if self.row().in_debian {
            "install the package partclone"
        } else {
            "the package partclone of Debian lacks it, Clonezilla's (Clonezilla live, or the \
             drbl.org repository) has it"
        }
    }

    /// Whether the program can read the device while we hold its [`crate::device::Claim`]. If not,
    /// drop the claim while it runs, take it again, and compare fingerprints.
    pub fn works_beside_claim(self) -> bool {
        self.row().works_beside_claim
    }

    /// The first of its programs that is installed.
    ///
    /// # Errors
    /// [`MissingProgram`] names them all and what brings them.
    pub fn find_partclone(self) -> Result<PathBuf, MissingProgram> {
        let found = self.programs().iter().find_map(|name| find_program(name));
        found.ok_or_else(|| MissingProgram {
            programs: self.programs().to_vec(),
            brought_by: self.brought_by(),
        })
    }

    fn row(self) -> &'static Row {
        // `Kind::all` and the test over it show that no kind is missing.
        TABLE.iter().find(|row| row.kind == self).unwrap_or(&TABLE[0])
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

/// The executable `name` in `PATH`, or in the directories of system programs that a user's `PATH`
/// often lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    find_in(&env::var_os("PATH").unwrap_or_default(), name)
        .or_else(|| find_in(OsStr::new("/usr/local/sbin:/usr/sbin:/sbin"), name))
}

fn find_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|directory| directory.join(name)).find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_row() {
        let kinds: Vec<Kind> = Kind::all().collect();
        assert_eq!(kinds.len(), 20);
        for kind in kinds {
            assert_eq!(kind.row().kind, kind);
            assert!(kind.programs().iter().all(|p| p.starts_with("partclone.")));
        }
    }

    #[test]
    fn blkid_types_lead_to_kinds() {
        for (blkid_type, version, expected) in [
            ("vfat", Some("FAT12"), Some(Kind::Fat12)),
            ("vfat", Some("FAT16"), Some(Kind::Fat16)),
            ("vfat", Some("FAT32"), Some(Kind::Fat32)),
            ("vfat", None, Some(Kind::Fat32)),
            ("ext4", Some("1.0"), Some(Kind::Ext4)),
            ("VMFS_volume_member", None, Some(Kind::Vmfs)),
            ("hfs", None, None),
            ("squashfs", None, None),
            ("", None, None),
        ] {
            assert_eq!(Kind::from_blkid(blkid_type, version), expected, "{blkid_type}");
        }
    }

    #[test]
    fn a_missing_program_is_named_with_what_brings_it() {
        let missing = MissingProgram {
            programs: Kind::Jfs.programs().to_vec(),
            brought_by: Kind::Jfs.brought_by(),
        };
        let text = missing.to_string();
        assert!(text.contains("partclone.jfs") && text.contains("Clonezilla"), "{text}");
        assert_eq!(find_in(OsStr::new("/nowhere:/dev"), "null"), None);
        assert!(find_in(OsStr::new("/nowhere:/bin"), "sh").is_some());
    }
}
