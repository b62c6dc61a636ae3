//! Bencoding (BEP 3) once more: recursive, into a tree, each number compared with how it is
//! written.

/// A bencoded value, its strings still in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer.
    Int(i64),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A list.
    List(Vec<Value<'a>>),
    /// A dictionary, its entries in the input's order.
    Dict(Vec<(&'a [u8], Value<'a>)>),
}

/// What the first value of some bytes is.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// The value.
    pub value: Value<'a>,
    /// Bytes it takes.
    pub len: usize,
    /// Lists and dictionaries inside each other.
    pub depth: usize,
    /// Integers, strings, lists and dictionaries in all, keys included.
    pub tokens: usize,
    /// Whether in each dictionary each key is above the one before it.
    pub keys_ascend: bool,
    /// Whether some dictionary has the same key twice in a row.
    pub key_repeats: bool,
}

/// Deeper than any limit of the code under test, and shallow enough for the stack.
const DEPTH_MAX: usize = 64;

/// The first value of `input`, `None` if there is none, or a deeper one than 64 levels.
#[must_use]
pub fn parse(input: &[u8]) -> Option<Parsed<'_>> {
    let mut parser =
        Parser { rest: input, depth: 0, tokens: 0, keys_ascend: true, key_repeats: false };
    let value = parser.value(0)?;
    let Parser { rest, depth, tokens, keys_ascend, key_repeats } = parser;
    Some(Parsed { value, len: input.len() - rest.len(), depth, tokens, keys_ascend, key_repeats })
}

struct Parser<'a> {
    rest: &'a [u8],
    depth: usize,
    tokens: usize,
    keys_ascend: bool,
    key_repeats: bool,
}

impl<'a> Parser<'a> {
    fn value(&mut self, outside: usize) -> Option<Value<'a>> {
        let first = *self.rest.first()?;
        if first.is_ascii_digit() {
            return Some(Value::Bytes(self.string()?));
        }
        self.tokens += 1;
        self.rest = &self.rest[1..];
        match first {
            b'i' => Some(Value::Int(self.number(b'e')?)),
            b'l' => {
                self.enter(outside)?;
                let mut items = Vec::new();
                while !self.end()? {
                    items.push(self.value(outside + 1)?);
                }
                Some(Value::List(items))
            }
            b'd' => {
                self.enter(outside)?;
                let mut entries: Vec<(&[u8], Value<'_>)> = Vec::new();
                while !self.end()? {
                    let key = self.string()?;
                    if let Some((last, _)) = entries.last() {
                        self.keys_ascend &= *last < key;
                        self.key_repeats |= *last == key;
                    }
                    entries.push((key, self.value(outside + 1)?));
                }
                Some(Value::Dict(entries))
            }
            _ => None,
        }
    }

    fn enter(&mut self, outside: usize) -> Option<()> {
        self.depth = self.depth.max(outside + 1);
        (outside < DEPTH_MAX).then_some(())
    }

    fn end(&mut self) -> Option<bool> {
        let end = *self.rest.first()? == b'e';
        self.rest = &self.rest[usize::from(end)..];
        Some(end)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        self.tokens += 1;
        let len = usize::try_from(self.number(b':')?).ok()?;
        let (string, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(string)
    }

    /// A number up to `end`, written as this program would write it: that excludes leading zeros,
    /// minus zero and plus signs.
    fn number(&mut self, end: u8) -> Option<i64> {
        // -9223372036854775808 has 20 characters.
        let len = self.rest.iter().take(21).position(|&b| b == end)?;
        let text = str::from_utf8(&self.rest[..len]).ok()?;
        let number: i64 = text.parse().ok().filter(|n: &i64| n.to_string() == text)?;
        self.rest = &self.rest[len + 1..];
        Some(number)
    }
}

/// Appends `value` to `out`, its dictionaries in the order they have.
pub fn write(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Int(number) => out.extend(format!("i{number}e").as_bytes()),
        Value::Bytes(bytes) => write_bytes(bytes, out),
        Value::List(items) => {
            out.push(b'l');
            items.iter().for_each(|item| write(item, out));
            out.push(b'e');
        }
        Value::Dict(entries) => {
            out.push(b'd');
            for (key, value) in entries {
                write_bytes(key, out);
                write(value, out);
            }
            out.push(b'e');
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", bytes.len()).as_bytes());
    out.extend(bytes);
}
