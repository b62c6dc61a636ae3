//! A set of piece indices, in the bit order of the wire (BEP 3: piece 0 is the highest bit of the
//! first byte).
//!
//! It counts its members as they change, so "has everything" and "how many" cost nothing, and
//! walks the members that two sets share a word of 64 at a time.

use alloc::vec;
use alloc::vec::Vec;

/// Some of the pieces `0..len`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    /// Piece `i` is bit `63 - i % 64` of word `i / 64`. Bits at and behind `len` are 0.
    words: Vec<u64>,
    len: u32,
    count: u32,
}

impl Bitfield {
    /// No piece of `len`.
    #[must_use]
    pub fn new(len: u32) -> Bitfield {
        Bitfield { words: vec![0; word_count(len)], len, count: 0 }
    }

    /// Every piece of `len`.
    #[must_use]
    pub fn full(len: u32) -> Bitfield {
        let mut words = vec![u64::MAX; word_count(len)];
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last = !(u64::MAX >> (len % 64));
        }
        Bitfield { words, len, count: len }
    }

    /// Reads the payload of a `bitfield` message. `None` if it is not `len.div_ceil(8)` bytes long
    /// or a spare bit at its end is set: BEP 3 lets both end the connection.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Bitfield> {
        if bytes.len() != byte_count(len) {
            return None;
        }
        let mut field = Bitfield::new(len);
        for (word, chunk) in field.words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_be_bytes(padded);
            field.count += word.count_ones();
        }
        let spare = !Bitfield::full(len).words.last().copied().unwrap_or(u64::MAX);
        (field.words.last().is_none_or(|last| last & spare == 0)).then_some(field)
    }

    /// The payload of a `bitfield` message: `len.div_ceil(8)` bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.truncate(byte_count(self.len));
        bytes
    }

    /// How many pieces there are to be in the set or not.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "`none` says what is meant")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// How many are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether all are in the set.
    #[must_use]
    pub fn all(&self) -> bool {
        self.count == self.len
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn none(&self) -> bool {
        self.count == 0
    }

    /// Whether `index` is in the set. An index behind the end is not.
    #[must_use]
    pub fn has(&self, index: u32) -> bool {
        index < self.len && self.words[word_of(index)] & bit_of(index) != 0
    }

    /// Puts `index` in. Returns whether that changed anything.
    ///
    /// # Panics
    /// If `index` is not below [`Bitfield::len`]: the caller checks what a peer says.
    pub fn insert(&mut self, index: u32) -> bool {
        assert!(index < self.len, "piece {index} of {}", self.len);
        let fresh = !self.has(index);
        self.words[word_of(index)] |= bit_of(index);
        self.count += u32::from(fresh);
        fresh
    }

    /// Takes `index` out. Returns whether that changed anything.
    ///
    /// # Panics
    /// If `index` is not below [`Bitfield::len`].
    pub fn remove(&mut self, index: u32) -> bool {
        assert!(index < self.len, "piece {index} of {}", self.len);
        let gone = self.has(index);
        self.words[word_of(index)] &= !bit_of(index);
        self.count -= u32::from(gone);
        gone
    }

    /// Takes out all that is in `other`, too.
    ///
    /// # Panics
    /// If the sets have different lengths.
    pub fn remove_all(&mut self, other: &Bitfield) {
        self.count -= self.count_both(other);
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    /// The members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        members(self.words.iter().copied())
    }

    /// What is in this set and in `other`, in ascending order.
    ///
    /// # Panics
    /// If the sets have different lengths.
    pub fn iter_both<'a>(&'a self, other: &'a Bitfield) -> impl Iterator<Item = u32> + 'a {
        assert_eq!(self.len, other.len, "sets of one torrent");
        members(self.words.iter().zip(&other.words).map(|(a, b)| a & b))
    }

    /// How many are in this set and in `other`.
    ///
    /// # Panics
    /// If the sets have different lengths.
    #[must_use]
    pub fn count_both(&self, other: &Bitfield) -> u32 {
        assert_eq!(self.len, other.len, "sets of one torrent");
        self.words.iter().zip(&other.words).map(|(a, b)| (a & b).count_ones()).sum()
    }
}

fn members(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
    words.zip((0_u32..).step_by(64)).flat_map(|(mut word, base)| {
        core::iter::from_fn(move || {
            let index = word.leading_zeros();
            word &= !1_u64.checked_shl(63_u32.wrapping_sub(index)).unwrap_or(0);
            (index < 64).then_some(base + index)
        })
    })
}

fn word_of(index: u32) -> usize {
    index as usize / 64
}

fn bit_of(index: u32) -> u64 {
    1 << (63 - index % 64)
}

fn word_count(len: u32) -> usize {
    len.div_ceil(64) as usize
}

fn byte_count(len: u32) -> usize {
    len.div_ceil(8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    #[test]
    fn piece_0_is_the_highest_bit() {
        let field = Bitfield::from_bytes(&[0b1000_0001, 0b0100_0000], 10).expect("10 bits");
        assert_eq!(field.iter().collect::<Vec<_>>(), [0, 7, 9]);
        assert_eq!(field.to_bytes(), [0b1000_0001, 0b0100_0000]);
    }

    #[test]
    fn wrong_lengths_and_spare_bits_are_refused() {
        for (bytes, len) in [(&[0_u8, 0][..], 8), (&[0], 9), (&[0, 0b0010_0000], 10), (&[1], 0)] {
            assert_eq!(Bitfield::from_bytes(bytes, len), None, "{bytes:?} for {len}");
        }
        assert!(Bitfield::from_bytes(&[], 0).is_some_and(|field| field.all() && field.none()));
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(len in 1_u32..300, changes in prop::collection::vec(any::<(bool, u32)>(), 0..200)) {
            let mut field = Bitfield::new(len);
            let mut set = BTreeSet::new();
            for (put, index) in changes {
                let index = index % len;
                if put {
                    prop_assert_eq!(field.insert(index), set.insert(index));
                } else {
                    prop_assert_eq!(field.remove(index), set.remove(&index));
                }
                prop_assert_eq!(field.count() as usize, set.len());
            }
            prop_assert!(field.iter().eq(set.iter().copied()));
            let full = Bitfield::full(len);
            let mut others = full.clone();
            others.remove_all(&field);
            prop_assert!(others.iter().eq((0..len).filter(|index| !set.contains(index))));
            prop_assert_eq!(others.count(), len - field.count());
            prop_assert_eq!(full.count() as usize, full.iter().count());
            prop_assert!(field.iter_both(&full).eq(set.iter().copied()));
            prop_assert_eq!(field.count_both(&full), field.count());
            prop_assert_eq!(Bitfield::from_bytes(&field.to_bytes(), len), Some(field));
            prop_assert_eq!(Bitfield::from_bytes(&full.to_bytes(), len), Some(full));
        }
    }
}
