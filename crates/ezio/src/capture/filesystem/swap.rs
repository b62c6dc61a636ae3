//! The header of a swap area: one page, whose last ten bytes are a signature. The page size is the
//! one of the machine that made it and stands nowhere else.

use std::io;

use super::Content;
use super::bytes::ReadAt;

/// Page sizes Linux has: 4 KiB on x86, up to 64 KiB on arm64, ppc64 and others.
const PAGE_SIZES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// `SWAP-SPACE` is version 0, gone since Linux 2.6; see `mkswap(8)`.
const SIGNATURES: [&[u8; 10]; 2] = [b"SWAPSPACE2", b"SWAP-SPACE"];

/// The beginnings of what replaces the signature while a machine is hibernated: Linux's own,
/// userspace suspend's, TuxOnIce's.
const HIBERNATED: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];

/// Called when blkid said `swap`.
pub(super) fn classify(source: &dyn ReadAt) -> io::Result<Content> {
    for page_bytes in PAGE_SIZES {
        let mut end = [0; 10];
        if source.read_at(&mut end, page_bytes - 10)? < end.len() {
            break;
        }
        if HIBERNATED.iter().any(|h| end.starts_with(h)) {
            return Ok(Content::HibernatedSwap);
        }
        if SIGNATURES.contains(&&end) {
            return Ok(Content::Swap { header_bytes: page_bytes });
        }
    }
    Ok(Content::Unsupported { blkid_type: "swap".to_owned() })
}
