//! SPDX licence expressions, and the `/` that crates wrote for OR before there were any.

/// The sets of licences of which any one is enough, all licences of it together; in the order in which
/// they are named. `None` for what is no expression.
pub(super) fn alternatives(text: &str) -> Option<Vec<Vec<String>>> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let found = any(&mut words, 0)?;
    words.next().is_none().then_some(found)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// Deeper nesting is nobody's licence.
const DEPTH_MAX: usize = 8;

fn any(words: &mut Words<'_>, depth: usize) -> Option<Vec<Vec<String>>> {
    let mut sets = all(words, depth)?;
    while words.next_if_eq(&"OR").is_some() {
        sets.extend(all(words, depth)?);
    }
    Some(sets)
}

/// Binds closer than OR.
fn all(words: &mut Words<'_>, depth: usize) -> Option<Vec<Vec<String>>> {
    let mut sets = one(words, depth)?;
    while words.next_if_eq(&"AND").is_some() {
        let others = one(words, depth)?;
        let both = |set: &Vec<String>| -> Vec<Vec<String>> {
            others.iter().map(|other| [&set[..], other].concat()).collect()
        };
        sets = sets.iter().flat_map(both).collect();
    }
    Some(sets)
}

fn one(words: &mut Words<'_>, depth: usize) -> Option<Vec<Vec<String>>> {
    match words.next()? {
        "(" if depth < DEPTH_MAX => {
            let inner = any(words, depth + 1)?;
            words.next_if_eq(&")").map(|_| inner)
        }
        "(" | ")" | "AND" | "OR" | "WITH" => None,
        name => {
            let mut name = name.to_owned();
            if words.next_if_eq(&"WITH").is_some() {
                name = format!("{name} WITH {}", words.next()?);
            }
            Some(vec![vec![name]])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alternatives are separated by `|`, the licences of one by `+`.
    fn check(text: &str, wanted: Option<&str>) {
        let found = alternatives(text);
        let found =
            found.map(|sets| sets.iter().map(|set| set.join("+")).collect::<Vec<_>>().join("|"));
        assert_eq!(found.as_deref(), wanted, "{text}");
    }

    #[test]
    fn expressions_are_read_as_spdx_says() {
        check("MIT", Some("MIT"));
        check("MIT OR Apache-2.0", Some("MIT|Apache-2.0"));
        check("MIT/Apache-2.0", Some("MIT|Apache-2.0"));
        check(
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            Some("MIT+Unicode-3.0|Apache-2.0+Unicode-3.0"),
        );
        check("MIT OR Apache-2.0 AND Unicode-3.0", Some("MIT|Apache-2.0+Unicode-3.0"));
        check("Apache-2.0 WITH LLVM-exception OR MIT", Some("Apache-2.0 WITH LLVM-exception|MIT"));
        check("MIT AND (BSD-3-Clause AND Zlib)", Some("MIT+BSD-3-Clause+Zlib"));
        for wrong in ["", "MIT OR", "(MIT", "MIT)", "AND MIT", "MIT Apache-2.0", "MIT WITH"] {
            check(wrong, None);
        }
        check(&"(".repeat(100_000), None);
    }
}
