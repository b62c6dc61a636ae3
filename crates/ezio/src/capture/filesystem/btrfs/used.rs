//! Collects used bytes: logical ranges in, ranges of the device out.

use swarm::layout::Extent;

use super::BtrfsError;
use super::chunks::Chunks;

/// All bytes of `extents`, which may be in any order, empty, and overlap: in device order, one
/// extent for all that overlap or touch.
#[must_use]
pub fn merge(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.retain(|extent| extent.len > 0);
    extents.sort_unstable_by_key(|extent| extent.offset);
    extents.dedup_by(|next, kept| {
        let touches = next.offset <= kept.end();
        if touches {
            kept.len = kept.end().max(next.end()) - kept.offset;
        }
        touches
    });
    extents
}

/// The used bytes so far.
///
/// Ranges that touch in logical addresses are one before they are mapped: the extent tree lists a
/// large file in extents of 128 MiB, and metadata node by node.
pub(super) struct Used<'a> {
    chunks: &'a Chunks,
    /// Of logical addresses, not mapped yet. Within one chunk; empty at first.
    run: Extent,
    mapped: Vec<Extent>,
}

impl<'a> Used<'a> {
    pub(super) fn new(chunks: &'a Chunks) -> Used<'a> {
        Used { chunks, run: Extent { offset: 0, len: 0 }, mapped: Vec::new() }
    }

    /// Adds all copies of the `len` bytes at the logical `address`, which one chunk must have.
    pub(super) fn add(&mut self, address: u64, len: u64) -> Result<(), BtrfsError> {
        if len == 0 {
            return Err(BtrfsError::Damaged { what: format!("extent at {address:#x} is empty") });
        }
        let longer = self.run.len.saturating_add(len);
        let follows = self.run.len > 0 && self.run.end() == address;
        if follows && self.chunks.find(self.run.offset, longer).is_ok() {
            self.run.len = longer;
            return Ok(());
        }
        self.chunks.find(address, len)?;
        self.map_run()?;
        self.run = Extent { offset: address, len };
        Ok(())
    }

    /// Adds bytes of the device.
    pub(super) fn add_physical(&mut self, extent: Extent) {
        self.mapped.push(extent);
    }

    /// In device order, one for all that overlap or touch.
    pub(super) fn finish(mut self) -> Result<Vec<Extent>, BtrfsError> {
        self.map_run()?;
        Ok(merge(self.mapped))
    }

    fn map_run(&mut self) -> Result<(), BtrfsError> {
        let Extent { offset, len } = self.run;
        if len > 0 {
            let (chunk, skip) = self.chunks.find(offset, len)?;
            // Within the device: all of the chunk is.
            let copies = chunk.copies.iter().map(|copy| Extent { offset: copy + skip, len });
            self.mapped.extend(copies);
        }
        Ok(())
    }
}
