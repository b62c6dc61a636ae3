//! A `.torrent` file in the making.

use super::{Digest, PIECE_LEN_MAX, PIECE_LEN_MIN};
use crate::bencode::{BencodeError, Decoder, Encoder};
use crate::layout::Layout;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What the source was, under the key `ezio` of `info`: so that a target can be refused before a
/// byte is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Bytes of the source device.
    pub device_len: u64,
    /// Bytes that the file system covers; a target must have as many. `None` for a raw copy.
    pub file_system_len: Option<u64>,
    /// What `blkid` calls the file system. `None` for a raw copy.
    pub file_system: Option<String>,
    /// Bytes of a logical sector of the source; a file system made for 512 may not work on 4096.
    pub sector_len: u32,
}

impl Origin {
    /// Bytes a target must have: those of the file system, or of the device if there is none.
    #[must_use]
    pub fn target_len(&self) -> u64 {
        self.file_system_len.unwrap_or(self.device_len)
    }

    pub(super) fn read(d: &mut Decoder<'_>) -> Result<Origin, BencodeError> {
        let mut origin =
            Origin { device_len: 0, file_system_len: None, file_system: None, sector_len: 0 };
        d.dict(|d, key| {
            match key {
                b"device size" => origin.device_len = d.uint()?,
                b"file system" => {
                    origin.file_system = Some(String::from_utf8_lossy(d.bytes()?).into_owned());
                }
                b"file system size" => origin.file_system_len = Some(d.uint()?),
                b"sector size" => origin.sector_len = u32::try_from(d.uint()?).unwrap_or(u32::MAX),
                _ => {}
            }
            Ok::<_, BencodeError>(())
        })?;
        Ok(origin)
    }

    fn write(&self, e: &mut Encoder) {
        e.dict(|d| {
            d.key("device size").uint(self.device_len);
            if let Some(name) = &self.file_system {
                d.key("file system").bytes(name.as_bytes());
            }
            if let Some(len) = self.file_system_len {
                d.key("file system size").uint(len);
            }
            d.key("sector size").uint(u64::from(self.sector_len));
        });
    }
}

/// Everything a `.torrent` file is made from.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// The torrent's name and, before the offset, further components of every path: `["sda1"]`,
    /// or `["vg", "lv"]` as the C++ EZIO's tool writes logical volumes. At least one.
    pub name: &'a [&'a str],
    /// The extents.
    pub layout: &'a Layout,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// One hash for each piece of the layout.
    pub hashes: &'a [Digest],
    /// Tracker URLs. The first becomes `announce`; several become tiers of one each (BEP 12).
    pub trackers: &'a [String],
    /// The program that made it.
    pub created_by: Option<&'a str>,
    /// Seconds since 1970.
    pub creation_date: Option<u64>,
    /// Written under the key `ezio`; without it the `info` is what the C++ EZIO's tool writes.
    pub origin: Option<&'a Origin>,
}

impl Draft<'_> {
    /// Writes the file: canonical bencoding, `announce` first, offsets as 32 digits.
    ///
    /// # Panics
    /// If there are not as many hashes as the layout has pieces, or no name.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let pieces = self.layout.image_len().div_ceil(u64::from(self.piece_len));
        assert_eq!(self.hashes.len() as u64, pieces, "hashes for every piece");
        let (name, prefix) = self.name.split_first().expect("a torrent has a name");
        let mut e = Encoder::new();
        e.dict(|d| {
            if let Some(url) = self.trackers.first() {
                d.key("announce").bytes(url.as_bytes());
            }
            if self.trackers.len() > 1 {
                d.key("announce-list").list(|tiers| {
                    for url in self.trackers {
                        tiers.list(|tier| tier.bytes(url.as_bytes()));
                    }
                });
            }
            if let Some(who) = self.created_by {
                d.key("created by").bytes(who.as_bytes());
            }
            if let Some(when) = self.creation_date {
                d.key("creation date").uint(when);
            }
            d.key("info").dict(|info| {
                if let Some(origin) = self.origin {
                    origin.write(info.key("ezio"));
                }
                info.key("files").list(|files| self.files(files, prefix));
                info.key("name").bytes(name.as_bytes());
                info.key("piece length").uint(u64::from(self.piece_len));
                info.key("pieces").bytes(self.hashes.as_flattened());
            });
        });
        e.finish()
    }

    fn files(&self, files: &mut Encoder, prefix: &[&str]) {
        for extent in self.layout.extents() {
            files.dict(|file| {
                file.key("length").uint(extent.len);
                file.key("path").list(|path| {
                    prefix.iter().for_each(|component| path.bytes(component.as_bytes()));
                    path.bytes(format!("{:032x}", extent.offset).as_bytes());
                });
            });
        }
    }
}

/// The piece length for an image of `image_len` bytes: a power of two that makes 2000 to 4000
/// pieces of it, but between 256 KiB and 4 MiB.
///
/// A swarm's time over the ideal is a fixed number of piece times (15 to 25 at 32 nodes,
/// simulated), so a thousand pieces are the least, and more than a few thousand gain nothing.
/// Below 256 KiB the messages about pieces would weigh more than that. Above 4 MiB the 128 MiB that
/// a node holds are too few pieces to work with: 50 GB to 8 nodes with disks of 150 MB/s take 1.21
/// of the ideal with pieces of 16 MiB, 1.02 with 4 MiB (simulated).
#[must_use]
pub fn piece_len_for(image_len: u64) -> u32 {
    let wanted = image_len.div_ceil(4000).clamp(256 << 10, 4 << 20);
    // Four million hashes are 80 MB of torrent, which is enough.
    let wanted = wanted.max(image_len.div_ceil(4 << 20)).min(PIECE_LEN_MAX.into());
    // Powers of two, so rounding up keeps the upper bounds.
    let len = wanted.next_power_of_two() as u32;
    debug_assert!((PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(&len));
    len
}
