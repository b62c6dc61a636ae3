//! Where the bytes of an image live on a device.
//!
//! An image is extents laid end to end. Everything else in the program speaks in image offsets;
//! only a store, and messages to people, turn them into device offsets, and they do it here.

use alloc::vec::Vec;
use core::ops::Range;

/// `len` used bytes which live at `offset` of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the start of the device (or partition, or image file).
    pub offset: u64,
    /// Bytes. Never 0 inside a [`Layout`].
    pub len: u64,
}

impl Extent {
    /// The first byte of the device behind the extent.
    #[must_use]
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// The image as the torrent sees it: extents laid end to end.
///
/// Holds 24 bytes for each extent. No extent is empty, none overlaps another, each ends at or
/// below [`DEVICE_END_MAX`], so arithmetic on what it returns does not overflow. Extents need not
/// be in device order: torrents of tools that sort names differently exist, and are harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    extents: Vec<Extent>,
    /// `starts[i]` is where `extents[i]` begins in the image.
    starts: Vec<u64>,
    len: u64,
}

/// The largest device offset the kernel can seek to: `off_t` is a signed 64-bit number.
pub const DEVICE_END_MAX: u64 = i64::MAX as u64;

/// Why extents are no layout. The index counts extents from 0, in the order they were given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// There is nothing to copy.
    #[error("there are no extents")]
    NoExtents,
    /// An extent holds no byte.
    #[error("extent {index} at {offset:#x} is empty")]
    EmptyExtent {
        /// Which extent.
        index: usize,
        /// Where it claims to be.
        offset: u64,
    },
    /// An extent ends behind the last offset a device can have.
    #[error(
        "extent {index} at {offset:#x} of {len} bytes ends behind the largest device (2^63 bytes)"
    )]
    TooFar {
        /// Which extent.
        index: usize,
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        len: u64,
    },
    /// Two extents claim the same bytes of the device: writing both would lose one.
    #[error("extent {index} at {offset:#x} overlaps extent {other}, which ends at {other_end:#x}")]
    Overlap {
        /// The extent that begins inside the other.
        index: usize,
        /// Where it begins.
        offset: u64,
        /// The extent it runs into.
        other: usize,
        /// Where that one ends.
        other_end: u64,
    },
}

impl Layout {
    /// Checks `extents` once, so that nothing is left to check later.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn new(extents: Vec<Extent>) -> Result<Layout, LayoutError> {
        let mut starts = Vec::with_capacity(extents.len());
        let mut len = 0_u64;
        for (index, &Extent { offset, len: extent_len }) in extents.iter().enumerate() {
            if extent_len == 0 {
                return Err(LayoutError::EmptyExtent { index, offset });
            }
            if offset.checked_add(extent_len).is_none_or(|end| end > DEVICE_END_MAX) {
                return Err(LayoutError::TooFar { index, offset, len: extent_len });
            }
            starts.push(len);
            // Without overlap the sum cannot pass DEVICE_END_MAX; with overlap it may, but then
            // the check below refuses the extents.
            len = len.saturating_add(extent_len);
        }
        if extents.is_empty() {
            return Err(LayoutError::NoExtents);
        }
        check_overlap(&extents)?;
        Ok(Layout { extents, starts, len })
    }

    /// Bytes of the image: the sum of all extents.
    #[must_use]
    pub fn image_len(&self) -> u64 {
        self.len
    }

    /// The extents in image order.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The image offset at which extent `index` begins.
    ///
    /// # Panics
    /// If there is no such extent.
    #[must_use]
    pub fn start(&self, index: usize) -> u64 {
        self.starts[index]
    }

    /// Bytes of the smallest device that holds every extent.
    #[must_use]
    pub fn device_end(&self) -> u64 {
        self.extents.iter().map(|e| e.end()).max().unwrap_or(0)
    }

    /// Whether reading the image from its start reads the device from low to high offsets.
    #[must_use]
    pub fn is_ascending(&self) -> bool {
        self.extents.is_sorted_by_key(|e| e.offset)
    }

    /// The index of the extent that holds the image's byte `offset`: O(log extents).
    ///
    /// # Panics
    /// If `offset` is not inside the image.
    #[must_use]
    pub fn extent_at(&self, offset: u64) -> usize {
        assert!(offset < self.len, "image offset {offset} in an image of {} bytes", self.len);
        self.starts.partition_point(|&start| start <= offset) - 1
    }

    /// Where the bytes `range` of the image live: each extent it touches, with the part of it.
    ///
    /// # Panics
    /// If `range` reaches behind the image.
    pub fn spans(&self, range: Range<u64>) -> impl Iterator<Item = Span> + '_ {
        assert!(range.end <= self.len, "image range {range:?} in {} bytes", self.len);
        let mut index = if range.is_empty() { 0 } else { self.extent_at(range.start) };
        let mut at = range.start;
        core::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let (extent, start) = (self.extents[index], self.starts[index]);
            let skip = at - start;
            let len = (extent.len - skip).min(range.end - at);
            let span = Span { index, skip, device: Extent { offset: extent.offset + skip, len } };
            index += 1;
            at += len;
            Some(span)
        })
    }

    /// The same bytes, with each extent cut, from its own start, into parts of `part_max` bytes.
    ///
    /// partclone cuts its block files so, with its buffer size as `part_max`.
    ///
    /// # Panics
    /// If `part_max` is 0.
    #[must_use]
    pub fn cut(&self, part_max: u64) -> Layout {
        assert!(part_max > 0, "an extent cannot be cut into parts of no bytes");
        let parts = self.extents.iter().flat_map(|&Extent { offset, len }| {
            (0..len.div_ceil(part_max)).map(move |i| Extent {
                offset: offset + i * part_max,
                len: part_max.min(len - i * part_max),
            })
        });
        Layout::new(parts.collect()).unwrap_or_else(|_| self.clone())
    }
}

/// A part of one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which extent, counted from 0.
    pub index: usize,
    /// Bytes of the extent before the part.
    pub skip: u64,
    /// The part's place on the device.
    pub device: Extent,
}

fn check_overlap(extents: &[Extent]) -> Result<(), LayoutError> {
    let check = |(other, a): (usize, Extent), (index, b): (usize, Extent)| {
        if b.offset < a.end() {
            let (offset, other_end) = (b.offset, a.end());
            return Err(LayoutError::Overlap { index, offset, other, other_end });
        }
        Ok(())
    };
    let pairs =
        |all: &[(usize, Extent)]| all.windows(2).try_for_each(|pair| check(pair[0], pair[1]));
    if extents.is_sorted_by_key(|e| e.offset) {
        // The usual case needs no second copy of a million extents.
        return extents
            .windows(2)
            .enumerate()
            .try_for_each(|(i, pair)| check((i, pair[0]), (i + 1, pair[1])));
    }
    let mut sorted: Vec<(usize, Extent)> = extents.iter().copied().enumerate().collect();
    sorted.sort_unstable_by_key(|(_, e)| e.offset);
    pairs(&sorted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|&(offset, len)| Extent { offset, len }).collect()
    }

    fn refused(pairs: &[(u64, u64)], why: &str) {
        assert_eq!(Layout::new(extents(pairs)).unwrap_err().to_string(), why);
    }

    #[test]
    fn what_is_no_layout_is_refused_with_its_place() {
        refused(&[], "there are no extents");
        refused(&[(0, 1), (4096, 0)], "extent 1 at 0x1000 is empty");
        refused(
            &[(u64::MAX, 2)],
            "extent 0 at 0xffffffffffffffff of 2 bytes ends behind the largest device (2^63 bytes)",
        );
        refused(&[(0, 9), (8, 8)], "extent 1 at 0x8 overlaps extent 0, which ends at 0x9");
        refused(&[(8, 8), (0, 9)], "extent 0 at 0x8 overlaps extent 1, which ends at 0x9");
    }

    #[test]
    fn extents_out_of_device_order_are_a_layout() {
        let layout = Layout::new(extents(&[(100, 10), (0, 10)])).unwrap();
        assert!(!layout.is_ascending());
        assert_eq!(layout.device_end(), 110);
        let spans: Vec<_> = layout.spans(5..15).map(|s| (s.index, s.skip, s.device)).collect();
        let part = |offset, len| Extent { offset, len };
        assert_eq!(spans, [(0, 5, part(105, 5)), (1, 0, part(0, 5))]);
    }

    #[test]
    fn an_empty_range_has_no_spans() {
        let layout = Layout::new(extents(&[(0, 10)])).unwrap();
        assert_eq!(layout.spans(10..10).count(), 0);
    }

    #[test]
    fn extents_are_cut_from_their_own_start() {
        let layout = Layout::new(extents(&[(4, 10), (20, 3)])).unwrap();
        assert_eq!(layout.cut(4).extents(), extents(&[(4, 4), (8, 4), (12, 2), (20, 3)]));
    }

    proptest! {
        #[test]
        fn spans_are_what_a_scan_of_all_bytes_finds(
            gaps in prop::collection::vec((0_u64..5, 1_u64..9), 1..20),
            cut in (0_u64..100, 0_u64..100),
        ) {
            let mut at = 0;
            let all = gaps.iter().map(|&(gap, len)| {
                let extent = Extent { offset: at + gap, len };
                at = extent.end();
                extent
            }).collect::<Vec<_>>();
            let bytes: Vec<u64> = all.iter().flat_map(|e| e.offset..e.end()).collect();
            let layout = Layout::new(all).unwrap();
            let len = layout.image_len();
            let (a, b) = (cut.0 % (len + 1), cut.1 % (len + 1));
            let range = a.min(b)..a.max(b);
            let found: Vec<u64> = layout.spans(range.clone())
                .flat_map(|s| {
                    assert_eq!(layout.extents()[s.index].offset + s.skip, s.device.offset);
                    s.device.offset..s.device.end()
                })
                .collect();
            let wanted = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            prop_assert_eq!(&found[..], wanted);
        }
    }

    #[test]
    fn a_million_extents_are_found_in_logarithmic_time() {
        let layout =
            Layout::new((0..1_000_000).map(|i| Extent { offset: i * 8192, len: 4096 }).collect())
                .unwrap();
        assert_eq!(layout.extent_at(4096 * 777_777 + 5), 777_777);
        assert_eq!(layout.spans(0..layout.image_len()).count(), 1_000_000);
    }
}
