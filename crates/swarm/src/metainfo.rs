//! The `.torrent` file of an image (BEP 3, version 1, several "files").
//!
//! Each "file" is an extent: the last component of its path is the extent's device offset in
//! hexadecimal digits of any number, its length is the extent's. Components before the last (the C++
//! EZIO writes one for logical volumes) name a directory of a block-file image and say nothing
//! about the device. Nothing is derived from the torrent's name either.

mod draft;

pub use draft::{Draft, Origin, piece_len_for};

use crate::bencode::{BencodeError, Decoder, Limits};
use crate::layout::{Extent, Layout, LayoutError};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use sha1::{Digest as _, Sha1};

/// The SHA-1 digest of a piece, or of the bencoded `info` dictionary.
pub type Digest = [u8; 20];

/// Smallest piece a torrent may have: a block of BEP 3.
pub const PIECE_LEN_MIN: u32 = 16 << 10;

/// Largest piece a torrent may have. A piece is held in memory until it is verified, so this is
/// what a stranger's torrent can make a node hold for each piece in flight.
pub const PIECE_LEN_MAX: u32 = 64 << 20;

/// A torrent that has been checked: it has a layout, and as many hashes as its pieces need.
///
/// Keeps the file as it was read, and 28 bytes for each extent: a million extents take 95 MB.
#[derive(Clone)]
pub struct Metainfo {
    bytes: Vec<u8>,
    info: Range<usize>,
    info_hash: Digest,
    name: Vec<u8>,
    piece_len: u32,
    pieces: Range<usize>,
    layout: Layout,
    /// Where the bencoded `path` of each extent begins in `bytes`; below 256 MiB, so 32 bits do.
    paths: Vec<u32>,
    trackers: Vec<Vec<String>>,
    created_by: Option<String>,
    creation_date: Option<u64>,
    private: bool,
    origin: Option<Origin>,
}

/// Why bytes are no torrent of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// The notation is broken, or a value has another type than BEP 3 gives it.
    #[error("{field}: {error}")]
    Bencode {
        /// The key whose value was being read.
        field: &'static str,
        /// What is wrong, and where.
        error: BencodeError,
    },
    /// A key that must be there is not.
    #[error("the key `{0}` is missing")]
    Missing(&'static str),
    /// A key appears twice: which of both counts would be a guess.
    #[error("the key `{0}` is given twice")]
    Twice(&'static str),
    /// The torrent describes one ordinary file.
    #[error("it holds one plain file, not the extents of a device (no `files` in `info`)")]
    SingleFile,
    /// The name could not be a directory's.
    #[error("the name `{0}` cannot name a directory")]
    BadName(String),
    /// A path whose last component is no offset, or that could leave its directory.
    #[error("file {index} (`{path}`): {why}")]
    BadPath {
        /// Which file, counted from 0.
        index: usize,
        /// Its path, components joined by `/`, bytes escaped.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// BEP 47 padding: its "path" would look like an offset, its bytes exist nowhere.
    #[error("file {0} is padding (BEP 47), which no device has; make the torrent without padding")]
    Padding(usize),
    /// Not between [`PIECE_LEN_MIN`] and [`PIECE_LEN_MAX`].
    #[error("pieces of {0} bytes; 16 KiB to 64 MiB are supported")]
    BadPieceLength(u64),
    /// The hashes do not match the length of the image.
    #[error(
        "{found} bytes of piece hashes; {image_len} bytes in pieces of {piece_len} need {wanted}"
    )]
    PieceCount {
        /// Bytes of `pieces`.
        found: u64,
        /// Bytes it should have.
        wanted: u64,
        /// Bytes of all extents.
        image_len: u64,
        /// Bytes of a piece.
        piece_len: u32,
    },
    /// The extents contradict each other.
    #[error("{0}")]
    Layout(#[from] LayoutError),
    /// What the torrent says of its source contradicts its extents.
    #[error("the device it was made from has {device_len} bytes, but its extents end at {end}")]
    Origin {
        /// Bytes of the source device, as the torrent says.
        device_len: u64,
        /// Where the last extent ends.
        end: u64,
    },
}

impl Metainfo {
    /// Reads a `.torrent` file.
    ///
    /// # Errors
    /// See [`MetainfoError`]; the limits are [`Limits::TORRENT`]. Unsorted keys are accepted.
    pub fn parse(bytes: Vec<u8>) -> Result<Metainfo, MetainfoError> {
        let mut outer = Outer::default();
        let mut decoder = Decoder::new(&bytes, Limits::TORRENT).map_err(in_field("torrent"))?;
        decoder.dict(|d, key| outer.field(d, key)).map_err(Abort::named("torrent"))?;
        decoder.finish().map_err(in_field("torrent"))?;
        let info_range = outer.info.take().ok_or(MetainfoError::Missing("info"))?;

        let mut info = Info::default();
        let mut decoder =
            Decoder::new(&bytes[..info_range.end], Limits::TORRENT).map_err(in_field("info"))?;
        decoder.seek(info_range.start);
        decoder.dict(|d, key| info.field(d, key)).map_err(Abort::named("info"))?;

        let name = info.name.ok_or(MetainfoError::Missing("info.name"))?.to_vec();
        if !is_component(&name) {
            return Err(MetainfoError::BadName(escape(&[&name])));
        }
        let piece_len = info.piece_len.ok_or(MetainfoError::Missing("info.piece length"))?;
        let pieces = info.pieces.ok_or(MetainfoError::Missing("info.pieces"))?;
        let extents = match info.files {
            Some(files) => files,
            None if info.single => return Err(MetainfoError::SingleFile),
            None => return Err(MetainfoError::Missing("info.files")),
        };
        let layout = Layout::new(extents)?;
        check_pieces(&layout, piece_len, pieces.len())?;
        if let Some(Origin { device_len, .. }) = info.origin
            && device_len < layout.device_end()
        {
            return Err(MetainfoError::Origin { device_len, end: layout.device_end() });
        }
        Ok(Metainfo {
            info_hash: Sha1::digest(&bytes[info_range.clone()]).into(),
            info: info_range,
            name,
            piece_len,
            pieces,
            layout,
            paths: info.paths,
            trackers: outer.trackers(),
            created_by: outer.created_by,
            creation_date: outer.creation_date,
            private: info.private,
            origin: info.origin,
            bytes,
        })
    }

    /// SHA-1 of the `info` dictionary as it stands in the file.
    #[must_use]
    pub fn info_hash(&self) -> Digest {
        self.info_hash
    }

    /// The exact bytes of the `info` dictionary (what BEP 9 hands to those who have only its hash).
    #[must_use]
    pub fn info_bytes(&self) -> &[u8] {
        &self.bytes[self.info.clone()]
    }

    /// The whole file as it was read.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The torrent's name: a directory's name, no separators in it.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Bytes of every piece but the last.
    #[must_use]
    pub fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// How many pieces the image has.
    #[must_use]
    pub fn piece_count(&self) -> u32 {
        // At most 256 MiB of hashes, checked when the file was read.
        (self.pieces.len() / 20) as u32
    }

    /// The hash that piece `index` must have.
    ///
    /// # Panics
    /// If there is no such piece.
    #[must_use]
    pub fn piece_hash(&self, index: u32) -> Digest {
        self.piece_hashes()[index as usize]
    }

    /// The hashes of all pieces, in order.
    #[must_use]
    pub fn piece_hashes(&self) -> &[Digest] {
        self.bytes[self.pieces.clone()].as_chunks().0
    }

    /// The image bytes of piece `index`.
    ///
    /// # Panics
    /// If there is no such piece.
    #[must_use]
    pub fn piece_range(&self, index: u32) -> Range<u64> {
        assert!(index < self.piece_count(), "piece {index} of {}", self.piece_count());
        let start = u64::from(index) * u64::from(self.piece_len);
        start..(start + u64::from(self.piece_len)).min(self.layout.image_len())
    }

    /// Where the image's bytes live on the device.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The path of extent `index` as it stands in the torrent: what the block-file image calls it,
    /// below the directory [`Metainfo::name`].
    ///
    /// # Panics
    /// If there is no such extent.
    #[must_use]
    pub fn path(&self, index: usize) -> Vec<&[u8]> {
        let mut components = Vec::new();
        // The bytes were read once when the file was checked, so this cannot fail.
        if let Ok(mut decoder) = Decoder::new(&self.bytes, Limits::TORRENT) {
            decoder.seek(self.paths[index] as usize);
            let _ = decoder.list(|d| {
                components.push(d.bytes()?);
                Ok::<_, BencodeError>(())
            });
        }
        components
    }

    /// Tracker URLs in tiers (BEP 12); without `announce-list`, one tier of `announce`.
    #[must_use]
    pub fn trackers(&self) -> &[Vec<String>] {
        &self.trackers
    }

    /// The program or person that made the torrent, as it says itself.
    #[must_use]
    pub fn created_by(&self) -> Option<&str> {
        self.created_by.as_deref()
    }

    /// When the torrent was made, in seconds since 1970, as it says itself.
    #[must_use]
    pub fn creation_date(&self) -> Option<u64> {
        self.creation_date
    }

    /// Whether peers may come only from the trackers (BEP 27).
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Bytes of the smallest device that the image fits on. Where the torrent does not tell the size
    /// of the file system it is where the last extent ends, which a file system may exceed.
    #[must_use]
    pub fn target_len(&self) -> u64 {
        let end = self.layout.device_end();
        self.origin.as_ref().map_or(end, |origin| origin.target_len().max(end))
    }

    /// What the torrent says of the device it was made from. Only torrents of our `capture` do.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }
}

impl fmt::Debug for Metainfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metainfo")
            .field("name", &escape(&[&self.name]))
            .field("pieces", &self.piece_count())
            .field("extents", &self.layout.extents().len())
            .finish_non_exhaustive()
    }
}

/// Reads an offset as EZIO's torrents and block files write it: hexadecimal digits, any number of
/// them, no prefix. `None` if it is not that, or names a place behind 2^63.
#[must_use]
pub fn parse_offset(digits: &[u8]) -> Option<u64> {
    let mut offset = 0_u64;
    for &digit in digits {
        let digit = char::from(digit).to_digit(16)?;
        offset = offset.checked_mul(16)?.checked_add(u64::from(digit))?;
    }
    (!digits.is_empty() && offset <= i64::MAX as u64).then_some(offset)
}

/// What stands outside of `info`.
#[derive(Default)]
struct Outer {
    info: Option<Range<usize>>,
    announce: Option<String>,
    announce_list: Vec<Vec<String>>,
    created_by: Option<String>,
    creation_date: Option<u64>,
}

impl Outer {
    fn field(&mut self, d: &mut Decoder<'_>, key: &[u8]) -> Result<(), Abort> {
        match key {
            b"info" => {
                let start = d.offset();
                d.skip().map_err(in_field("info"))?;
                set(&mut self.info, "info", start..d.offset())?;
            }
            b"announce" => {
                let url = d.bytes().map_err(in_field("announce"))?;
                set(&mut self.announce, "announce", text(url))?;
            }
            b"announce-list" => {
                d.list(|d| self.tier(d)).map_err(Abort::named("announce-list"))?;
            }
            b"created by" => {
                self.created_by = Some(text(d.bytes().map_err(in_field("created by"))?))
            }
            b"creation date" => {
                // Some tools write a negative date, or text; it decides nothing. But it must be a
                // value: reading goes on behind it.
                let value = d.skip().map_err(in_field("creation date"))?;
                let date = Decoder::new(value, Limits::TORRENT).and_then(|mut d| d.uint());
                self.creation_date = date.ok();
            }
            _ => {}
        }
        Ok(())
    }

    fn tier(&mut self, d: &mut Decoder<'_>) -> Result<(), Abort> {
        let mut tier = Vec::new();
        d.list(|d| {
            tier.push(text(d.bytes()?));
            Ok::<_, Abort>(())
        })?;
        if !tier.is_empty() {
            self.announce_list.push(tier);
        }
        Ok(())
    }

    fn trackers(&mut self) -> Vec<Vec<String>> {
        if self.announce_list.is_empty() {
            let announce = self.announce.take().filter(|url| !url.is_empty());
            return announce.map(|url| alloc::vec![url]).into_iter().collect();
        }
        core::mem::take(&mut self.announce_list)
    }
}

/// What stands in `info`.
#[derive(Default)]
struct Info<'a> {
    name: Option<&'a [u8]>,
    piece_len: Option<u32>,
    pieces: Option<Range<usize>>,
    files: Option<Vec<Extent>>,
    paths: Vec<u32>,
    single: bool,
    private: bool,
    origin: Option<Origin>,
}

impl<'a> Info<'a> {
    fn field(&mut self, d: &mut Decoder<'a>, key: &[u8]) -> Result<(), Abort> {
        match key {
            b"name" => {
                let name = d.bytes().map_err(in_field("info.name"))?;
                set(&mut self.name, "info.name", name)?;
            }
            b"piece length" => {
                let len = d.uint().map_err(in_field("info.piece length"))?;
                let good = u32::try_from(len)
                    .ok()
                    .filter(|len| (PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(len))
                    .ok_or(MetainfoError::BadPieceLength(len))?;
                set(&mut self.piece_len, "info.piece length", good)?;
            }
            b"pieces" => {
                let len = d.bytes().map_err(in_field("info.pieces"))?.len();
                set(&mut self.pieces, "info.pieces", d.offset() - len..d.offset())?;
            }
            b"files" => {
                let (mut extents, mut paths) = (Vec::new(), Vec::new());
                d.list(|d| {
                    let (extent, path) = file(d, extents.len())?;
                    extents.push(extent);
                    paths.push(path);
                    Ok::<_, Abort>(())
                })
                .map_err(Abort::named("info.files"))?;
                set(&mut self.files, "info.files", extents)?;
                self.paths = paths;
            }
            b"length" => self.single = true,
            b"private" => self.private = d.int().map_err(in_field("info.private"))? == 1,
            b"ezio" => {
                let origin = Origin::read(d).map_err(in_field("info.ezio"))?;
                set(&mut self.origin, "info.ezio", origin)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// One entry of `files`: its extent, and where its bencoded path begins.
fn file(d: &mut Decoder<'_>, index: usize) -> Result<(Extent, u32), Abort> {
    let (mut len, mut offset, mut padding) = (None, None, false);
    d.dict(|d, key| {
        match key {
            b"length" => set(&mut len, "info.files.length", d.uint()?)?,
            b"path" => {
                let at = d.offset();
                let parsed = path_offset(d, index)?;
                // The input is below 256 MiB: `Limits::TORRENT`.
                set(&mut offset, "info.files.path", (parsed, at as u32))?;
            }
            b"attr" => padding = d.bytes()?.contains(&b'p'),
            _ => {}
        }
        Ok::<_, Abort>(())
    })
    .map_err(Abort::named("info.files"))?;
    if padding {
        return Err(MetainfoError::Padding(index).into());
    }
    let (offset, path) = offset.ok_or(MetainfoError::Missing("info.files.path"))?;
    let len = len.ok_or(MetainfoError::Missing("info.files.length"))?;
    Ok((Extent { offset, len }, path))
}

/// Reads a path and returns the device offset that its last component names.
fn path_offset(d: &mut Decoder<'_>, index: usize) -> Result<u64, Abort> {
    // Longer paths are wrong, but are kept whole for the message.
    let mut components: [&[u8]; 8] = [b""; 8];
    let mut count = 0;
    d.list(|d| {
        let component = d.bytes()?;
        if count < components.len() {
            components[count] = component;
        }
        count += 1;
        Ok::<_, Abort>(())
    })?;
    let bad = |why| {
        let path = escape(&components[..count.min(components.len())]);
        Err(MetainfoError::BadPath { index, path, why }.into())
    };
    if count == 0 || count > components.len() {
        return bad("a path has 1 to 8 components");
    }
    if !components[..count].iter().all(|c| is_component(c)) {
        return bad("a component is empty, `.`, `..`, or holds `/` or a zero byte");
    }
    match parse_offset(components[count - 1]) {
        Some(offset) => Ok(offset),
        None => bad("its last component is no hexadecimal device offset below 2^63; \
                     is this a torrent of a disk image?"),
    }
}

fn check_pieces(layout: &Layout, piece_len: u32, found: usize) -> Result<(), MetainfoError> {
    let image_len = layout.image_len();
    // An image is below 2^63 bytes and a piece at least 2^14, so this cannot overflow.
    let wanted = image_len.div_ceil(u64::from(piece_len)) * 20;
    let found = found as u64;
    if found == wanted {
        Ok(())
    } else {
        Err(MetainfoError::PieceCount { found, wanted, image_len, piece_len })
    }
}

/// Whether `bytes` can be one component of a path below a directory and nothing else.
fn is_component(bytes: &[u8]) -> bool {
    !matches!(bytes, b"" | b"." | b"..") && !bytes.iter().any(|b| matches!(b, b'/' | 0))
}

/// For messages: at most 200 characters of the components.
fn escape(components: &[&[u8]]) -> String {
    let joined = components.join(&b'/');
    joined.escape_ascii().take(200).map(char::from).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn set<T>(slot: &mut Option<T>, field: &'static str, value: T) -> Result<(), Abort> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(MetainfoError::Twice(field).into()),
    }
}

fn in_field(field: &'static str) -> impl Fn(BencodeError) -> MetainfoError {
    move |error| MetainfoError::Bencode { field, error }
}

/// What ends the reading of a dictionary: an error that knows its field, or one that does not yet.
enum Abort {
    Bencode(BencodeError),
    Metainfo(MetainfoError),
}

impl Abort {
    fn named(field: &'static str) -> impl Fn(Abort) -> MetainfoError {
        move |abort| match abort {
            Abort::Bencode(error) => MetainfoError::Bencode { field, error },
            Abort::Metainfo(error) => error,
        }
    }
}

impl From<BencodeError> for Abort {
    fn from(error: BencodeError) -> Abort {
        Abort::Bencode(error)
    }
}

impl From<MetainfoError> for Abort {
    fn from(error: MetainfoError) -> Abort {
        Abort::Metainfo(error)
    }
}

#[cfg(test)]
mod tests;
