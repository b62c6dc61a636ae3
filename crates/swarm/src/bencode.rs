//! Bencoding (BEP 3): a decoder that trusts nothing and an encoder that cannot write badly.
//!
//! The decoder is a cursor over the caller's bytes. It allocates nothing, never recurses over the
//! input, and hands out slices of it, so the exact bytes of an `info` dictionary are at hand for
//! its hash. A length in the input never reaches an allocator.

use alloc::vec::Vec;

/// How much a decoder takes before it refuses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Lists and dictionaries inside each other. At most [`DEPTH_MAX`].
    pub depth: usize,
    /// Integers, strings, lists and dictionaries in all, keys included.
    pub tokens: usize,
    /// Bytes of input.
    pub bytes: usize,
    /// Whether dictionary keys must ascend, as BEP 3 demands. Tools that write `.torrent` files in
    /// another order exist and libtorrent reads them, so files are read leniently.
    pub keys_ascend: bool,
}

/// Deepest nesting any limit may allow: the decoder keeps one slice a level, on its stack.
pub const DEPTH_MAX: usize = 32;

impl Limits {
    /// For what a peer or a tracker sends: replies of a few kilobytes, 4 levels deep in use.
    pub const NETWORK: Limits =
        Limits { depth: 8, tokens: 100_000, bytes: 4 << 20, keys_ascend: true };
    /// For `.torrent` files: 63 bytes and 6 tokens an extent, so room for four million extents.
    pub const TORRENT: Limits =
        Limits { depth: DEPTH_MAX, tokens: 32 << 20, bytes: 256 << 20, keys_ascend: false };
}

/// Why bytes are not what was asked for, and where: `at` is an offset into the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {at}")]
pub struct BencodeError {
    /// Bytes from the start of the input.
    pub at: usize,
    /// What is wrong there.
    pub kind: BencodeErrorKind,
}

/// What can be wrong with bencoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BencodeErrorKind {
    /// The input ends inside a value.
    #[error("the data is cut off")]
    Truncated,
    /// There is a value, but of another type.
    #[error("not {0}")]
    Expected(&'static str),
    /// Leading zero, minus zero, no digit, or something that is no digit.
    #[error("malformed integer")]
    BadInteger,
    /// An integer outside of 64 bits, or a negative one where none can be.
    #[error("integer out of range")]
    OutOfRange,
    /// A string whose length is malformed.
    #[error("malformed string length")]
    BadLength,
    /// More nesting than [`Limits::depth`].
    #[error("nested too deeply")]
    TooDeep,
    /// More values than [`Limits::tokens`].
    #[error("too many values")]
    TooManyTokens,
    /// More input than [`Limits::bytes`].
    #[error("too much data")]
    TooLong,
    /// A dictionary's keys do not ascend.
    #[error("dictionary keys out of order")]
    KeyOrder,
    /// A dictionary has a key twice.
    #[error("dictionary key given twice")]
    DuplicateKey,
    /// Something follows the value.
    #[error("data behind the end")]
    Trailing,
}

use BencodeErrorKind as Kind;

/// A cursor over bencoded bytes.
///
/// Each call reads the next value and fails if it is of another type. A closure given to
/// [`Decoder::dict`] or [`Decoder::list`] may leave its value unread: then it is skipped.
#[derive(Debug)]
pub struct Decoder<'a> {
    input: &'a [u8],
    at: usize,
    depth: usize,
    tokens: usize,
    limits: Limits,
}

impl<'a> Decoder<'a> {
    /// A cursor at the first byte of `input`.
    ///
    /// # Errors
    /// `TooLong` if `input` is longer than `limits.bytes`.
    pub fn new(input: &'a [u8], limits: Limits) -> Result<Decoder<'a>, BencodeError> {
        assert!(limits.depth <= DEPTH_MAX, "a depth limit above DEPTH_MAX");
        if input.len() > limits.bytes {
            return Err(BencodeError { at: limits.bytes, kind: Kind::TooLong });
        }
        Ok(Decoder { input, at: 0, depth: 0, tokens: 0, limits })
    }

    /// Bytes read so far: the offset of the next value, for messages.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Moves to the value that begins at byte `offset`, as [`Decoder::offset`] told it before.
    pub(crate) fn seek(&mut self, offset: usize) {
        self.at = offset;
    }

    /// Reads an integer.
    ///
    /// # Errors
    /// Another type, a malformed integer, or one outside of an `i64`.
    pub fn int(&mut self) -> Result<i64, BencodeError> {
        let begin = self.at;
        self.open(b'i', "an integer")?;
        let negative = self.input.get(self.at) == Some(&b'-');
        self.at += usize::from(negative);
        let (digits, first) = (self.at, self.input.get(self.at).copied());
        let mut value = 0_i64;
        while let Some(&digit @ b'0'..=b'9') = self.input.get(self.at) {
            let digit = i64::from(digit - b'0');
            let digit = if negative { -digit } else { digit };
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(digit))
                .ok_or(BencodeError { at: begin, kind: Kind::OutOfRange })?;
            self.at += 1;
        }
        let count = self.at - digits;
        match self.input.get(self.at) {
            None => return self.fail(Kind::Truncated),
            Some(b'e') if count > 0 => self.at += 1,
            Some(_) => return Err(BencodeError { at: begin, kind: Kind::BadInteger }),
        }
        // "i-0e" and "i007e" name a number twice: BEP 3 allows only the shortest form.
        if first == Some(b'0') && (count > 1 || negative) {
            return Err(BencodeError { at: begin, kind: Kind::BadInteger });
        }
        Ok(value)
    }

    /// Reads an integer that cannot be negative.
    ///
    /// # Errors
    /// As [`Decoder::int`], and `OutOfRange` for a negative one.
    pub fn uint(&mut self) -> Result<u64, BencodeError> {
        let begin = self.at;
        u64::try_from(self.int()?).map_err(|_| BencodeError { at: begin, kind: Kind::OutOfRange })
    }

    /// Reads a byte string.
    ///
    /// # Errors
    /// Another type, a malformed length, or one that reaches behind the input.
    pub fn bytes(&mut self) -> Result<&'a [u8], BencodeError> {
        let begin = self.at;
        match self.input.get(begin) {
            None => return self.fail(Kind::Truncated),
            Some(b'0'..=b'9') => {}
            Some(_) => return self.fail(Kind::Expected("a string")),
        }
        self.count_token()?;
        let mut len = 0_usize;
        while let Some(&digit @ b'0'..=b'9') = self.input.get(self.at) {
            // Saturation is enough: no input is as long as that.
            len = len.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
            self.at += 1;
        }
        match self.input.get(self.at) {
            None => return self.fail(Kind::Truncated),
            Some(b':') => {}
            Some(_) => return Err(BencodeError { at: begin, kind: Kind::BadLength }),
        }
        if self.input[begin] == b'0' && self.at - begin > 1 {
            return Err(BencodeError { at: begin, kind: Kind::BadLength });
        }
        let content = self.at + 1;
        let end = content.saturating_add(len);
        let bytes = self
            .input
            .get(content..end)
            .ok_or(BencodeError { at: begin, kind: Kind::Truncated })?;
        self.at = end;
        Ok(bytes)
    }

    /// Reads a list, calling `each` at every item.
    ///
    /// # Errors
    /// Another type, malformed input, or what `each` returns.
    pub fn list<E: From<BencodeError>>(
        &mut self,
        mut each: impl FnMut(&mut Decoder<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'l', "a list")?;
        self.enter()?;
        while !self.close()? {
            let before = self.at;
            each(self)?;
            if self.at == before {
                self.skip()?;
            }
        }
        Ok(())
    }

    /// Reads a dictionary, calling `each` with every key, the cursor standing at its value.
    ///
    /// # Errors
    /// Another type, malformed input, keys that do not ascend where they must, a key given twice
    /// in a row, or what `each` returns.
    pub fn dict<E: From<BencodeError>>(
        &mut self,
        mut each: impl FnMut(&mut Decoder<'a>, &'a [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'd', "a dictionary")?;
        self.enter()?;
        let mut last = None;
        while !self.close()? {
            let key = self.key(last)?;
            last = Some(key);
            let before = self.at;
            each(self, key)?;
            if self.at == before {
                self.skip()?;
            }
        }
        Ok(())
    }

    /// Passes over the next value, whatever it is, and returns its exact bytes.
    ///
    /// # Errors
    /// Malformed input: what is skipped is checked like what is read.
    pub fn skip(&mut self) -> Result<&'a [u8], BencodeError> {
        let begin = self.at;
        let outside = self.depth;
        // For each level entered here: in a dictionary its last key, `None` in a list.
        let mut levels = [Level::List; DEPTH_MAX];
        loop {
            if self.depth > outside {
                let level = self.depth - 1;
                if self.close()? {
                    if self.depth == outside {
                        break;
                    }
                    continue;
                }
                if let Level::Dict(last) = levels[level] {
                    levels[level] = Level::Dict(Some(self.key(last)?));
                }
            }
            match self.input.get(self.at) {
                Some(b'i') => drop(self.int()?),
                Some(b'l') => {
                    self.open(b'l', "a list")?;
                    self.enter()?;
                    levels[self.depth - 1] = Level::List;
                }
                Some(b'd') => {
                    self.open(b'd', "a dictionary")?;
                    self.enter()?;
                    levels[self.depth - 1] = Level::Dict(None);
                }
                Some(b'0'..=b'9') => drop(self.bytes()?),
                Some(_) => return self.fail(Kind::Expected("a value")),
                None => return self.fail(Kind::Truncated),
            }
            if self.depth == outside {
                break;
            }
        }
        Ok(&self.input[begin..self.at])
    }

    /// Fails unless the whole input has been read.
    ///
    /// # Errors
    /// `Trailing` with the offset of the first byte left over.
    pub fn finish(self) -> Result<(), BencodeError> {
        if self.at == self.input.len() { Ok(()) } else { self.fail(Kind::Trailing) }
    }

    fn key(&mut self, last: Option<&'a [u8]>) -> Result<&'a [u8], BencodeError> {
        let begin = self.at;
        let key = self.bytes()?;
        match last {
            Some(last) if last == key => Err(BencodeError { at: begin, kind: Kind::DuplicateKey }),
            Some(last) if last > key && self.limits.keys_ascend => {
                Err(BencodeError { at: begin, kind: Kind::KeyOrder })
            }
            _ => Ok(key),
        }
    }

    /// Consumes the letter that opens a value of the wanted type.
    fn open(&mut self, letter: u8, expected: &'static str) -> Result<(), BencodeError> {
        match self.input.get(self.at) {
            None => self.fail(Kind::Truncated),
            Some(&found) if found == letter => {
                self.count_token()?;
                self.at += 1;
                Ok(())
            }
            Some(_) => self.fail(Kind::Expected(expected)),
        }
    }

    fn enter(&mut self) -> Result<(), BencodeError> {
        if self.depth == self.limits.depth {
            return self.fail(Kind::TooDeep);
        }
        self.depth += 1;
        Ok(())
    }

    /// Consumes the end of a list or dictionary if it is next.
    fn close(&mut self) -> Result<bool, BencodeError> {
        match self.input.get(self.at) {
            None => self.fail(Kind::Truncated),
            Some(b'e') => {
                self.at += 1;
                self.depth -= 1;
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    fn count_token(&mut self) -> Result<(), BencodeError> {
        if self.tokens == self.limits.tokens {
            return self.fail(Kind::TooManyTokens);
        }
        self.tokens += 1;
        Ok(())
    }

    fn fail<T>(&self, kind: Kind) -> Result<T, BencodeError> {
        Err(BencodeError { at: self.at, kind })
    }
}

#[derive(Clone, Copy)]
enum Level<'a> {
    List,
    Dict(Option<&'a [u8]>),
}

/// Writes canonical bencoding: the shortest integers, keys ascending.
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// An encoder that has written nothing.
    #[must_use]
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Writes an integer.
    pub fn uint(&mut self, value: u64) {
        self.out.push(b'i');
        self.decimal(value);
        self.out.push(b'e');
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.decimal(bytes.len() as u64);
        self.out.push(b':');
        self.out.extend_from_slice(bytes);
    }

    /// Writes the list of what `items` writes.
    pub fn list(&mut self, items: impl FnOnce(&mut Encoder)) {
        self.out.push(b'l');
        items(self);
        self.out.push(b'e');
    }

    /// Writes the dictionary whose entries `entries` writes.
    pub fn dict(&mut self, entries: impl FnOnce(&mut DictEncoder<'_>)) {
        self.out.push(b'd');
        entries(&mut DictEncoder { encoder: self, last: Vec::new(), first: true });
        self.out.push(b'e');
    }

    /// Writes bytes that are bencoded already.
    pub fn raw(&mut self, bencoded: &[u8]) {
        self.out.extend_from_slice(bencoded);
    }

    /// What has been written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    fn decimal(&mut self, mut value: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[at..]);
    }
}

/// Writes the entries of one dictionary.
#[derive(Debug)]
pub struct DictEncoder<'e> {
    encoder: &'e mut Encoder,
    last: Vec<u8>,
    first: bool,
}

impl DictEncoder<'_> {
    /// Writes `key`; exactly one value has to be written to what is returned.
    ///
    /// # Panics
    /// If `key` does not come after the key before it: an unsorted dictionary would get another
    /// info-hash at the next program that sorts it.
    pub fn key(&mut self, key: &str) -> &mut Encoder {
        assert!(self.first || self.last.as_slice() < key.as_bytes(), "key {key:?} out of order");
        self.first = false;
        self.last.clear();
        self.last.extend_from_slice(key.as_bytes());
        self.encoder.bytes(key.as_bytes());
        self.encoder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::{String, ToString};
    use proptest::prelude::*;

    /// Skips the one value of `input`, in the strict way of the network.
    fn check(input: &[u8], wanted: Result<(), &str>) {
        let found = Decoder::new(input, Limits::NETWORK).and_then(|mut decoder| {
            decoder.skip()?;
            decoder.finish()
        });
        let found = found.map_err(|e| e.to_string());
        assert_eq!(found, wanted.map_err(String::from), "{}", input.escape_ascii());
    }

    #[test]
    fn values_are_read() {
        for good in ["i0e", "i-1e", "i9223372036854775807e", "i-9223372036854775808e", "0:"] {
            check(good.as_bytes(), Ok(()));
        }
        for good in ["le", "de", "l0:de4:spami3ee", "d0:i1e1:ale1:bd1:ci2eee"] {
            check(good.as_bytes(), Ok(()));
        }
    }

    #[test]
    fn malformed_values_are_refused_with_their_place() {
        check(b"", Err("the data is cut off at byte 0"));
        check(b"x", Err("not a value at byte 0"));
        check(b"ie", Err("malformed integer at byte 0"));
        check(b"i-e", Err("malformed integer at byte 0"));
        check(b"i-0e", Err("malformed integer at byte 0"));
        check(b"i042e", Err("malformed integer at byte 0"));
        check(b"i4 2e", Err("malformed integer at byte 0"));
        check(b"i42", Err("the data is cut off at byte 3"));
        check(b"i9223372036854775808e", Err("integer out of range at byte 0"));
        check(b"03:abc", Err("malformed string length at byte 0"));
        check(b"3abc", Err("malformed string length at byte 0"));
        check(b"4:abc", Err("the data is cut off at byte 0"));
        check(b"99999999999999999999999:abc", Err("the data is cut off at byte 0"));
        check(b"18446744073709551615:abc", Err("the data is cut off at byte 0"));
        check(b"l", Err("the data is cut off at byte 1"));
        check(b"di1ei2ee", Err("not a string at byte 1"));
        check(b"d1:a", Err("the data is cut off at byte 4"));
        check(b"d1:ae", Err("not a value at byte 4"));
        check(b"d1:bi1e1:ai1ee", Err("dictionary keys out of order at byte 7"));
        check(b"d1:ai1e1:ai1ee", Err("dictionary key given twice at byte 7"));
        check(b"i1ei2e", Err("data behind the end at byte 3"));
    }

    #[test]
    fn a_hundred_thousand_nested_lists_are_refused_not_followed() {
        check("l".repeat(100_000).as_bytes(), Err("nested too deeply at byte 9"));
        let dicts = format!("{}de{}", "d1:a".repeat(100_000), "e".repeat(100_000));
        check(dicts.as_bytes(), Err("nested too deeply at byte 33"));
    }

    #[test]
    fn too_many_values_and_too_much_data_are_refused() {
        let many = format!("l{}e", "i1e".repeat(100_000));
        check(many.as_bytes(), Err("too many values at byte 299998"));
        let long = format!("{}:{}", 5 << 20, " ".repeat(5 << 20));
        check(long.as_bytes(), Err("too much data at byte 4194304"));
    }

    #[test]
    fn files_may_have_their_keys_in_any_order() {
        let input = b"d1:bi1e1:ai2ee";
        let mut keys = Vec::new();
        let mut decoder = Decoder::new(input, Limits::TORRENT).unwrap();
        decoder
            .dict(|d, key| {
                keys.push((key, d.uint()?));
                Ok::<_, BencodeError>(())
            })
            .unwrap();
        assert_eq!(keys, [(&b"b"[..], 1), (b"a", 2)]);
    }

    #[test]
    fn what_a_closure_leaves_unread_is_skipped() {
        let mut decoder = Decoder::new(b"d1:ali1eli2eee1:bi3ee", Limits::NETWORK).unwrap();
        let mut b = 0;
        decoder
            .dict(|d, key| {
                if key == b"b" {
                    b = d.uint()?;
                }
                Ok::<_, BencodeError>(())
            })
            .unwrap();
        assert_eq!(b, 3);
        decoder.finish().unwrap();
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn the_encoder_refuses_unsorted_keys() {
        Encoder::new().dict(|d| {
            d.key("b").uint(1);
            d.key("a").uint(2);
        });
    }

    /// Any bencoded value, as the strict decoder wants it.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            any::<u64>().prop_map(|v| {
                let mut e = Encoder::new();
                e.uint(v >> 1);
                e.finish()
            }),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|v| {
                let mut e = Encoder::new();
                e.bytes(&v);
                e.finish()
            }),
        ];
        leaf.prop_recursive(6, 64, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|items| {
                    let mut e = Encoder::new();
                    e.list(|e| items.iter().for_each(|i| e.raw(i)));
                    e.finish()
                }),
                prop::collection::btree_map("[a-z]{0,4}", inner, 0..5).prop_map(|entries| {
                    let mut e = Encoder::new();
                    e.dict(|d| entries.iter().for_each(|(k, v)| d.key(k).raw(v)));
                    e.finish()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_the_encoder_writes_the_decoder_takes(input in value()) {
            let mut decoder = Decoder::new(&input, Limits::NETWORK).unwrap();
            prop_assert_eq!(decoder.skip().unwrap(), &input[..]);
            decoder.finish().unwrap();
        }

        #[test]
        fn a_value_cut_off_anywhere_is_refused(input in value(), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(input.len());
            let mut decoder = Decoder::new(&input[..cut], Limits::NETWORK).unwrap();
            let refused = decoder.skip().is_err();
            prop_assert!(refused);
        }
    }
}
