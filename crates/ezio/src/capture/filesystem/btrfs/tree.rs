//! Walking a tree: each node read once, checked, and taken from another copy if it is bad.

use std::cell::Cell;
use std::ops::Range;

use super::BtrfsError;
use super::chunks::Chunks;
use super::crc32c::crc32c;
use super::fields::Fields;
use crate::capture::filesystem::ReadAt;

/// What orders a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) id: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

/// Where a node is, and what must be found there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointer {
    /// Logical.
    pub(super) address: u64,
    /// The transaction that wrote it.
    pub(super) generation: u64,
    /// 0 for a leaf.
    pub(super) level: u8,
    /// Its first key; `None` for a root.
    pub(super) first: Option<Key>,
}

/// A checked node.
pub(super) struct Node {
    /// Logical.
    pub(super) address: u64,
    bytes: Vec<u8>,
    body: Body,
}

enum Body {
    /// Keys, and where in the node the data of each are.
    Leaf(Vec<(Key, Range<usize>)>),
    Inner(Vec<Pointer>),
}

/// A key of a leaf with its data.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) key: Key,
    pub(super) data: &'a [u8],
}

/// What the nodes of a file system have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Bytes of a node, at most [`NODE_LEN_MAX`].
    pub(super) node_len: u64,
    pub(super) id: [u8; 16],
    /// Other checksums (xxhash, SHA-256, BLAKE2) are not looked at; all else is.
    pub(super) is_crc32c: bool,
}

/// The trees of a file system.
pub(super) struct Trees<'a> {
    pub(super) source: &'a dyn ReadAt,
    pub(super) format: Format,
    pub(super) chunks: Chunks,
    /// How many more nodes there can be: of all walks together, since no two trees read here share
    /// one, and each has a place of its own on the device.
    pub(super) nodes_left: Cell<u64>,
}

impl Trees<'_> {
    /// Gives every node below and with `root` to `each`, parents first, leaves in the order of their
    /// keys.
    ///
    /// It ends on any input: levels fall by one from parent to child, keys rise from leaf to leaf,
    /// so that no leaf comes twice, and all walks together read no more nodes than the device has
    /// room for. It holds the pointers of one node for each level, and [`BATCH_LEN`] of leaves.
    pub(super) fn walk(
        &self,
        root: Pointer,
        each: &mut dyn FnMut(&Node) -> Result<(), BtrfsError>,
    ) -> Result<(), BtrfsError> {
        if root.level > LEVEL_MAX {
            return Err(damaged(root.address, &format!("it has level {}", root.level)));
        }
        let mut last = None;
        let mut stack = vec![vec![root].into_iter()];
        while let Some(siblings) = stack.last_mut() {
            let count = self.batch(siblings.as_slice());
            let batch: Vec<Pointer> = siblings.by_ref().take(count).collect();
            if batch.is_empty() {
                stack.pop();
            }
            for node in self.read(&batch)? {
                rises(&mut last, &node)?;
                each(&node)?;
                if let Body::Inner(children) = node.body {
                    stack.push(children.into_iter());
                }
            }
        }
        Ok(())
    }

    /// How many of `siblings` to read at once: of inner nodes the next one, whose children come
    /// before its sibling.
    fn batch(&self, siblings: &[Pointer]) -> usize {
        match siblings.first() {
            Some(next) if next.level == 0 => (BATCH_LEN / self.format.node_len) as usize, // at most 2^10
            _ => 1,
        }
    }

    /// The nodes of `batch` in its order. They are read in that of the device: leaves of an old file
    /// system are scattered, and a disk has a head to move.
    fn read(&self, batch: &[Pointer]) -> Result<Vec<Node>, BtrfsError> {
        let mut order = Vec::with_capacity(batch.len());
        for (index, pointer) in batch.iter().enumerate() {
            let (chunk, skip) = self.chunks.find(pointer.address, self.format.node_len)?;
            order.push((chunk.copies[0] + skip, index));
        }
        order.sort_unstable();
        let mut nodes = Vec::with_capacity(batch.len());
        for (_, index) in order {
            nodes.push((index, self.node(batch[index])?));
        }
        nodes.sort_unstable_by_key(|(index, _)| *index);
        Ok(nodes.into_iter().map(|(_, node)| node).collect())
    }

    /// The node at `pointer`, from its first copy that is good.
    fn node(&self, pointer: Pointer) -> Result<Node, BtrfsError> {
        let left = self.nodes_left.get().checked_sub(1);
        self.nodes_left.set(left.ok_or_else(|| {
            damaged(pointer.address, "with it there are more nodes than the device has room for")
        })?);
        let (chunk, skip) = self.chunks.find(pointer.address, self.format.node_len)?;
        let mut first = None;
        for copy in &chunk.copies {
            // Within the device: the chunk's end is, and the node ends before it.
            match self.copy(pointer, copy + skip) {
                Ok(node) => return Ok(node),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| damaged(pointer.address, "it has no copy")))
    }

    /// The copy of a node that is at `offset` of the device.
    fn copy(&self, pointer: Pointer, offset: u64) -> Result<Node, BtrfsError> {
        let len = self.format.node_len;
        let mut bytes = vec![0; len as usize]; // at most 64 KiB
        let read = self.source.read_at(&mut bytes, offset);
        let read = read.map_err(|error| BtrfsError::Read { offset, len, error })?;
        if read < bytes.len() {
            return Err(damaged(pointer.address, "it ends behind the end of the device"));
        }
        let body = self.format.parse(&bytes, pointer)?;
        Ok(Node { address: pointer.address, bytes, body })
    }
}

impl Node {
    /// The items, if it is a leaf.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let items = match &self.body {
            Body::Leaf(items) => &items[..],
            Body::Inner(_) => &[],
        };
        // The ranges were checked when they were made.
        items.iter().map(|(key, data)| Item { key: *key, data: &self.bytes[data.clone()] })
    }

    /// Its first and last key, unless it is an empty leaf.
    fn ends(&self) -> Option<(Key, Key)> {
        match &self.body {
            Body::Leaf(items) => Some((items.first()?.0, items.last()?.0)),
            Body::Inner(children) => Some((children.first()?.first?, children.last()?.first?)),
        }
    }
}

impl Format {
    /// `struct btrfs_header` and what follows it.
    fn parse(&self, bytes: &[u8], pointer: Pointer) -> Result<Body, BtrfsError> {
        let fields = Fields(bytes);
        let wrong = |why: &str| Err(damaged(pointer.address, why));
        if self.is_crc32c && crc32c(&bytes[32..]) != fields.le32(0)? {
            return wrong("its checksum is wrong");
        }
        if fields.array(32)? != self.id {
            return wrong("it belongs to another file system");
        }
        if fields.le64(48)? != pointer.address {
            return wrong("it belongs elsewhere");
        }
        if fields.le64(80)? != pointer.generation {
            return wrong("it is of another transaction than its parent says");
        }
        if fields.u8(100)? != pointer.level {
            return wrong("it is of another level than its parent says");
        }
        let count = fields.le32(96)? as usize; // checked against the node's length below
        let body = match pointer.level {
            0 => Body::Leaf(leaf(fields, count)?),
            level => Body::Inner(inner(fields, count, level - 1)?),
        };
        check_keys(&body, pointer)?;
        Ok(body)
    }
}

/// `struct btrfs_item`, `count` of them, their data from the node's end on.
fn leaf(fields: Fields<'_>, count: usize) -> Result<Vec<(Key, Range<usize>)>, BtrfsError> {
    let table = fields.part(HEADER_LEN, count.saturating_mul(ITEM_LEN))?;
    let mut items = Vec::with_capacity(count);
    for item in table.chunks_exact(ITEM_LEN).map(Fields) {
        let start = HEADER_LEN.saturating_add(item.le32(17)? as usize);
        let len = item.le32(21)? as usize;
        fields.part(start, len)?;
        items.push((key(item)?, start..start + len));
    }
    Ok(items)
}

/// `struct btrfs_key_ptr`, `count` of them.
fn inner(fields: Fields<'_>, count: usize, level: u8) -> Result<Vec<Pointer>, BtrfsError> {
    let table = fields.part(HEADER_LEN, count.saturating_mul(POINTER_LEN))?;
    let mut pointers = Vec::with_capacity(count);
    for entry in table.chunks_exact(POINTER_LEN).map(Fields) {
        let first = Some(key(entry)?);
        let (address, generation) = (entry.le64(17)?, entry.le64(25)?);
        pointers.push(Pointer { address, generation, level, first });
    }
    Ok(pointers)
}

/// `struct btrfs_disk_key`.
fn key(fields: Fields<'_>) -> Result<Key, BtrfsError> {
    Ok(Key { id: fields.le64(0)?, kind: fields.u8(8)?, offset: fields.le64(9)? })
}

/// Keys rise, and the first is the one the parent has. Only a leaf that is a root may be empty.
fn check_keys(body: &Body, pointer: Pointer) -> Result<(), BtrfsError> {
    let (first, rising) = match body {
        Body::Leaf(items) => (items.first().map(|i| i.0), items.is_sorted_by(|a, b| a.0 < b.0)),
        Body::Inner(children) => {
            let rising = children.is_sorted_by(|a, b| a.first < b.first);
            (children.first().and_then(|child| child.first), rising)
        }
    };
    if !rising {
        return Err(damaged(pointer.address, "its keys are out of order"));
    }
    let may_be_empty = pointer.level == 0 && pointer.first.is_none();
    match first {
        None if may_be_empty => Ok(()),
        None => Err(damaged(pointer.address, "it is empty")),
        Some(_) if pointer.first.is_none() => Ok(()),
        found if found == pointer.first => Ok(()),
        _ => Err(damaged(pointer.address, "it begins with another key than its parent says")),
    }
}

/// Refuses a leaf that does not come behind the one before it. `last` is the last key so far.
fn rises(last: &mut Option<Key>, node: &Node) -> Result<(), BtrfsError> {
    let (Body::Leaf(_), Some((first, end))) = (&node.body, node.ends()) else { return Ok(()) };
    if last.is_some_and(|last| last >= first) {
        return Err(damaged(node.address, "its keys come before those of its neighbour"));
    }
    *last = Some(end);
    Ok(())
}

fn damaged(address: u64, why: &str) -> BtrfsError {
    BtrfsError::Damaged { what: format!("node at {address:#x}: {why}") }
}

/// Bytes of the largest node btrfs makes.
pub(super) const NODE_LEN_MAX: u64 = 64 << 10;

/// Bytes of a `struct btrfs_disk_key`.
pub(super) const KEY_LEN: usize = 17;

/// Bytes of a `struct btrfs_header`, `btrfs_item`, `btrfs_key_ptr`.
const HEADER_LEN: usize = 101;
const ITEM_LEN: usize = 25;
const POINTER_LEN: usize = 33;

/// `BTRFS_MAX_LEVEL` is 8 levels.
const LEVEL_MAX: u8 = 7;

/// Bytes of leaves read at once: 256 of 16 KiB, half of what a parent points to. Enough for their
/// order to matter; with their tables of items they take 11 MiB at most.
const BATCH_LEN: u64 = 4 << 20;
