//! Files to fill a file system with: the same ones for the same seed.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Random data, large and small files, holes, and files that are deleted again so that free blocks
/// lie between used ones.
///
/// Names are unique over all directories, plain ASCII, and short enough for every file system, so
/// that tools which list only names can tell them apart.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Chooses sizes and contents.
    pub seed: u64,
    /// About how many bytes of data it has before anything is deleted.
    pub bytes: u64,
}

/// One file of the tree.
struct Leaf {
    path: PathBuf,
    len: u64,
    is_sparse: bool,
    /// Whether [`Tree::thin`] deletes it.
    is_doomed: bool,
}

impl Tree {
    /// Writes all files below `dir`.
    ///
    /// # Errors
    /// What could not be written, for example for want of space.
    pub fn grow(self, dir: &Path) -> Result<()> {
        for (salt, leaf) in self.leaves().iter().enumerate() {
            let path = dir.join(&leaf.path);
            write(&path, leaf, Random::new(self.seed ^ (salt as u64) << 32))
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Deletes every file of [`Tree::doomed`] below `dir`.
    ///
    /// # Errors
    /// What could not be deleted.
    pub fn thin(self, dir: &Path) -> Result<()> {
        for path in self.doomed() {
            let path = dir.join(path);
            std::fs::remove_file(&path).with_context(|| format!("delete {}", path.display()))?;
        }
        Ok(())
    }

    /// The files that are to be deleted, as paths below the tree's directory: about a third.
    #[must_use]
    pub fn doomed(self) -> Vec<PathBuf> {
        self.leaves().into_iter().filter(|leaf| leaf.is_doomed).map(|leaf| leaf.path).collect()
    }

    fn leaves(self) -> Vec<Leaf> {
        let mut random = Random::new(self.seed);
        let mut leaves = Vec::new();
        let mut push = |path: String, len, is_sparse, is_doomed| {
            leaves.push(Leaf { path: path.into(), len, is_sparse, is_doomed });
        };
        // Doomed ones between the others, so that deleting them makes holes and not one free end.
        for i in 0..6 {
            push(format!("large/large-{i}.bin"), self.bytes / 8, false, i % 2 == 1);
        }
        push("file with holes".to_owned(), 3 << 20, true, false);
        push("empty".to_owned(), 0, false, false);
        let small_max = (self.bytes / 4 / u64::from(SMALL_COUNT)) * 2;
        for i in 0..SMALL_COUNT {
            let len = random.below(small_max) + 1;
            push(format!("many/small-{i:02}.dat"), len, false, i % 3 == 1);
        }
        leaves
    }
}

/// Enough for several blocks of directory and inodes, few enough for tools that are run once for
/// each file.
const SMALL_COUNT: u32 = 60;

fn write(path: &Path, leaf: &Leaf, mut random: Random) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let file = File::create(path)?;
    if leaf.is_sparse {
        file.set_len(leaf.len)?;
        let mut data = [0; 10_000];
        random.fill(&mut data);
        file.write_all_at(&data, leaf.len / 3)?;
        file.write_all_at(&data[..100], leaf.len - 100)?;
        return Ok(());
    }
    let mut data = vec![0; (1 << 20).min(leaf.len as usize)]; // at most 1 MiB, so it fits
    let mut at = 0;
    while at < leaf.len {
        let part = &mut data[..(leaf.len - at).min(1 << 20) as usize]; // at most 1 MiB
        random.fill(part);
        file.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// SplitMix64 (Steele, Lea, Flood 2014): numbers that depend on nothing but the seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; the bias is of no matter to a test.
    ///
    /// # Panics
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// Fills `buf`.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for part in buf.chunks_mut(8) {
            part.copy_from_slice(&self.draw().to_le_bytes()[..part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Listing;

    #[test]
    fn one_seed_makes_one_tree() {
        let listing = |seed| {
            let dir = tempfile::tempdir().unwrap();
            let tree = Tree { seed, bytes: 1 << 20 };
            tree.grow(dir.path()).unwrap();
            tree.thin(dir.path()).unwrap();
            Listing::of_dir(dir.path()).unwrap()
        };
        assert_eq!(listing(1), listing(1));
        assert_ne!(listing(1), listing(2));
    }
}
