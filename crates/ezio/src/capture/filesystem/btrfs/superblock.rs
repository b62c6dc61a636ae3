//! The superblock and its copies.

use swarm::layout::Extent;

use super::BtrfsError;
use super::crc32c::crc32c;
use super::fields::Fields;
use super::tree::{Format, NODE_LEN_MAX, Pointer};
use crate::capture::filesystem::ReadAt;

/// What of a superblock is needed to find the trees.
#[derive(Debug)]
pub(super) struct Superblock {
    /// Of this device.
    pub(super) device_id: u64,
    /// Bytes of a node of a tree: a power of two, 4 to 64 KiB.
    pub(super) node_len: u64,
    /// Bytes of all extents, each counted once, however many copies it has.
    pub(super) bytes_used: u64,
    pub(super) root: Pointer,
    pub(super) chunk_root: Pointer,
    /// The tree of log trees, if the file system was not unmounted after an fsync.
    pub(super) log_root: Option<Pointer>,
    /// Keys and chunk items of the chunks that hold the chunk tree.
    pub(super) system_chunks: Vec<u8>,
    generation: u64,
    /// What every node must have as its file system's id.
    id: [u8; 16],
    is_crc32c: bool,
}

impl Superblock {
    /// The first superblock if it is good: it is the only one the kernel mounts. Else the newest of
    /// its good copies, of which `btrfs rescue super-recover` would take one.
    pub(super) fn find(source: &dyn ReadAt, device_len: u64) -> Result<Superblock, BtrfsError> {
        let [first, copies @ ..] = OFFSETS;
        let why = match Superblock::read(source, first) {
            Err(why @ (BtrfsError::Damaged { .. } | BtrfsError::Read { .. })) => why,
            found => return found,
        };
        let copies = copies.into_iter().filter(|at| at.saturating_add(LEN as u64) <= device_len);
        let good = copies.filter_map(|at| Superblock::read(source, at).ok());
        good.max_by_key(|copy| copy.generation).ok_or(why)
    }

    pub(super) fn format(&self) -> Format {
        Format { node_len: self.node_len, id: self.id, is_crc32c: self.is_crc32c }
    }

    fn read(source: &dyn ReadAt, offset: u64) -> Result<Superblock, BtrfsError> {
        let mut bytes = [0; LEN];
        let read = source.read_at(&mut bytes, offset);
        let len = read.map_err(|error| BtrfsError::Read { offset, len: LEN as u64, error })?;
        if len < LEN {
            return Err(damaged(offset, "the device ends before it does"));
        }
        Superblock::parse(&bytes, offset)
    }

    /// `struct btrfs_super_block`.
    fn parse(bytes: &[u8; LEN], offset: u64) -> Result<Superblock, BtrfsError> {
        let fields = Fields(bytes);
        if fields.part(64, 8)? != b"_BHRfS_M" {
            return Err(damaged(offset, "its magic number is missing"));
        }
        let is_crc32c = fields.le16(196)? == 0;
        if is_crc32c && crc32c(&bytes[32..]) != fields.le32(0)? {
            return Err(damaged(offset, "its checksum is wrong"));
        }
        if fields.le64(48)? != offset {
            return Err(damaged(offset, "it belongs elsewhere"));
        }
        refuse_features(fields)?;
        let (node_len, generation) = (u64::from(fields.le32(148)?), fields.le64(72)?);
        if !node_len.is_power_of_two() || !(4096..=NODE_LEN_MAX).contains(&node_len) {
            return Err(damaged(offset, &format!("its nodes have {node_len} bytes")));
        }
        let system_chunks_len = fields.le32(160)? as usize; // an error below if it is long
        if system_chunks_len > SYSTEM_CHUNKS_LEN_MAX {
            return Err(damaged(offset, &format!("it has {system_chunks_len} bytes of chunks")));
        }
        let root = |at, level, generation| -> Result<Pointer, BtrfsError> {
            let (address, level) = (fields.le64(at)?, fields.u8(level)?);
            Ok(Pointer { address, generation, level, first: None })
        };
        // The log is of the transaction that was not committed any more.
        let log_root = root(96, 200, generation.wrapping_add(1))?;
        Ok(Superblock {
            device_id: fields.le64(201)?,
            node_len,
            bytes_used: fields.le64(120)?,
            root: root(80, 198, generation)?,
            chunk_root: root(88, 199, fields.le64(164)?)?,
            log_root: (log_root.address != 0).then_some(log_root),
            system_chunks: fields.part(811, system_chunks_len)?.to_vec(),
            generation,
            id: fields.array(if fields.le64(188)? & METADATA_UUID != 0 { 571 } else { 32 })?,
            is_crc32c,
        })
    }
}

/// What is used without being listed anywhere: the first MiB, which btrfs allocates nothing in and
/// boot loaders write to, with the first superblock in it, and the superblock's copies.
pub(super) fn fixed(device_len: u64) -> impl Iterator<Item = Extent> {
    let start = Extent { offset: 0, len: device_len.min(1 << 20) };
    let copies = OFFSETS.into_iter().map(|offset| Extent { offset, len: LEN as u64 });
    std::iter::once(start).chain(copies.filter(move |copy| copy.end() <= device_len))
}

/// Refuses what places bytes in ways that came after this was written, or that are not known here.
/// Also an unknown feature of which others need not know to read files: those have no use for the
/// extent tree, and it may be just that which changed.
fn refuse_features(fields: Fields<'_>) -> Result<(), BtrfsError> {
    let flags = [(fields.le64(188)?, &INCOMPAT[..]), (fields.le64(180)?, &COMPAT_RO[..])];
    for (flags, table) in flags {
        for bit in (0..64).filter(|bit| flags >> bit & 1 == 1) {
            match table.get(bit) {
                Some((_, true)) => {}
                Some((name, false)) => return Err(feature((*name).to_owned())),
                None => return Err(feature(format!("of bit {bit}, newer than this program"))),
            }
        }
    }
    let unfinished = fields.le64(56)? & !SUPER_FLAGS;
    if unfinished != 0 {
        return Err(BtrfsError::Damaged {
            what: format!(
                "btrfstune or btrfs-image left it unfinished (superblock flags {unfinished:#x})"
            ),
        });
    }
    Ok(())
}

fn feature(feature: String) -> BtrfsError {
    BtrfsError::Feature { feature }
}

fn damaged(offset: u64, why: &str) -> BtrfsError {
    BtrfsError::Damaged { what: format!("superblock at {offset:#x} of the device: {why}") }
}

/// Where superblocks are, if the device is long enough.
const OFFSETS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];

/// Bytes of a superblock.
const LEN: usize = 4096;

/// `BTRFS_SYSTEM_CHUNK_ARRAY_SIZE`.
const SYSTEM_CHUNKS_LEN_MAX: usize = 2048;

/// Nodes have another id than the superblock's first: its `metadata_uuid`.
const METADATA_UUID: u64 = 1 << 10;

/// `BTRFS_HEADER_FLAG_WRITTEN`, `_RELOC`, `BTRFS_SUPER_FLAG_ERROR`, `_SEEDING`.
const SUPER_FLAGS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 32;

/// `BTRFS_FEATURE_INCOMPAT_*` from bit 0 on, and whether it leaves extents and chunks as they are.
const INCOMPAT: [(&str, bool); 18] = [
    ("mixed-backref", true),
    ("default-subvol", true),
    ("mixed-bg", true),
    ("compress-lzo", true),
    ("compress-zstd", true),
    ("big-metadata", true),
    ("extref", true),
    // The profiles themselves are met in the chunks.
    ("raid56", true),
    ("skinny-metadata", true),
    ("no-holes", true),
    ("metadata-uuid", true),
    ("raid1c34", true),
    ("zoned", false),
    ("extent-tree-v2", false),
    ("raid-stripe-tree", false),
    ("of bit 15, which has no name", false),
    ("squota", true),
    ("remap-tree", false),
];

/// `BTRFS_FEATURE_COMPAT_RO_*`, likewise.
const COMPAT_RO: [(&str, bool); 4] = [
    ("free-space-tree", true),
    ("free-space-tree-valid", true),
    ("verity", true),
    ("block-group-tree", true),
];
