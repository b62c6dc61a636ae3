//! What several fuzz targets share: a second bencode parser to compare with, and a source of bytes
//! that is mostly zeros.
//!
//! Nothing here is fast or hardened. It is written to be obviously right, in another way than the
//! code under test, so that both do not make the same mistake.

pub mod reference;
pub mod sparse;
