//! What files there are, and what is in them.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::Hasher as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// All files below a directory with their lengths and a hash of their contents.
///
/// Equal listings mean equal files within one run of a program; the hash is no cryptographic one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    files: BTreeMap<PathBuf, (u64, u64)>,
}

impl Listing {
    /// Reads every file below `dir`. Directories count only through the files in them.
    ///
    /// # Errors
    /// What could not be read.
    pub fn of_dir(dir: &Path) -> Result<Listing> {
        let mut listing = Listing::default();
        listing.add_dir(dir, dir)?;
        Ok(listing)
    }

    /// How many files there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The first difference to `other` in words, if there is one.
    #[must_use]
    pub fn difference(&self, other: &Listing) -> Option<String> {
        let paths = self.files.keys().chain(other.files.keys());
        let path = paths.filter(|path| self.files.get(*path) != other.files.get(*path)).min()?;
        let words = |listing: &Listing| match listing.files.get(path) {
            Some((len, hash)) => format!("{len} bytes with hash {hash:016x}"),
            None => "missing".to_owned(),
        };
        Some(format!("{}: {} here, {} there", path.display(), words(self), words(other)))
    }

    fn add_dir(&mut self, root: &Path, dir: &Path) -> Result<()> {
        let entries = std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.add_dir(root, &entry.path())?;
            } else {
                let path = entry.path();
                let facts = digest(&path).with_context(|| format!("read {}", path.display()))?;
                self.files.insert(path.strip_prefix(root)?.to_owned(), facts);
            }
        }
        Ok(())
    }
}

/// The length of a file and a hash of its bytes.
fn digest(path: &Path) -> Result<(u64, u64)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut len) = (DefaultHasher::new(), 0);
    let mut buf = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buf)?;
        if count == 0 {
            return Ok((len, hasher.finish()));
        }
        hasher.write(&buf[..count]);
        len += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_and_a_missing_file_are_differences() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/a"), "one").unwrap();
        let before = Listing::of_dir(dir.path()).unwrap();
        assert_eq!(before.difference(&Listing::of_dir(dir.path()).unwrap()), None);
        std::fs::write(dir.path().join("d/a"), "two").unwrap();
        let after = Listing::of_dir(dir.path()).unwrap();
        assert!(before.difference(&after).unwrap().starts_with("d/a: 3 bytes with hash"));
        let nothing = Listing::default();
        assert!(nothing.difference(&after).unwrap().starts_with("d/a: missing here"));
    }
}
