//! Sizes and rates as people write and read them.

use core::fmt;

/// Bytes, shown with a binary unit: `16 MiB`, `1.5 GiB`, `512 B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// Bytes a second, shown with a decimal unit, as links and disks are sold: `118.2 MB/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// Seconds, shown as `42s`, `3m05s`, `2h10m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

/// Why a text is no size or rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No digits, or a number that is none.
    #[error("not a number with a unit, such as 16MiB, 50GB or 4096")]
    NotANumber,
    /// The letters behind the number.
    #[error("unknown unit; sizes take B, kB, KB, MB, GB, TB, KiB, MiB, GiB, TiB, K, M, G, T")]
    UnknownUnit,
    /// The letters behind the number of a rate.
    #[error(
        "unknown unit; rates take kbit/s, Mbit/s, Gbit/s, kB/s, MB/s, GB/s, KiB/s, MiB/s, GiB/s"
    )]
    UnknownRate,
    /// More than fits in 63 bits of bytes.
    #[error("too large")]
    TooLarge,
}

/// Reads a size in bytes: `4096`, `16MiB`, `50GB`, `1.5 TB`. A bare `K`, `M`, `G`, `T` is binary,
/// as in the block tools (`dd`, `losetup`).
///
/// # Errors
/// See [`UnitError`].
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err(UnitError::UnknownUnit),
    };
    scale(number, factor, 1)
}

/// Reads a rate in bytes a second: `100Mbit/s`, `90MB/s`, `1Gbit/s`.
///
/// # Errors
/// See [`UnitError`].
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let (factor, divisor) = match unit {
        "bit/s" => (1, 8),
        "kbit/s" | "Kbit/s" => (1_000, 8),
        "Mbit/s" => (1_000_000, 8),
        "Gbit/s" => (1_000_000_000, 8),
        "B/s" => (1, 1),
        "kB/s" | "KB/s" => (1_000, 1),
        "MB/s" => (1_000_000, 1),
        "GB/s" => (1_000_000_000, 1),
        "KiB/s" => (1 << 10, 1),
        "MiB/s" => (1 << 20, 1),
        "GiB/s" => (1 << 30, 1),
        _ => return Err(UnitError::UnknownRate),
    };
    scale(number, factor, divisor)
}

/// A decimal number: its digits without the point, and how many of them stand behind the point.
#[derive(Clone, Copy)]
struct Decimal {
    digits: u64,
    behind_point: u32,
}

fn split(text: &str) -> Result<(Decimal, &str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return Err(UnitError::NotANumber);
    }
    let mut digits = 0_u64;
    for digit in whole.bytes().chain(fraction.bytes()) {
        digits = digits
            .checked_mul(10)
            .and_then(|d| d.checked_add(u64::from(digit - b'0')))
            .ok_or(UnitError::TooLarge)?;
    }
    // At most 9, checked above.
    let behind_point = fraction.len() as u32;
    Ok((Decimal { digits, behind_point }, unit.trim_start()))
}

fn scale(number: Decimal, factor: u64, divisor: u64) -> Result<u64, UnitError> {
    let value = u128::from(number.digits) * u128::from(factor)
        / u128::from(10_u64.pow(number.behind_point))
        / u128::from(divisor);
    u64::try_from(value).ok().filter(|&v| v <= i64::MAX as u64).ok_or(UnitError::TooLarge)
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        show(f, self.0, &units, "B")
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "GB/s"), (1_000_000, "MB/s"), (1_000, "kB/s")];
        show(f, self.0, &units, "B/s")
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s @ 0..60 => write!(f, "{s}s"),
            s @ 60..3600 => write!(f, "{}m{:02}s", s / 60, s % 60),
            s => write!(f, "{}h{:02}m", s / 3600, s / 60 % 60),
        }
    }
}

/// With one digit behind the point, unless the value is a whole number of units.
fn show(
    f: &mut fmt::Formatter<'_>,
    value: u64,
    units: &[(u64, &str)],
    smallest: &str,
) -> fmt::Result {
    match units.iter().find(|(factor, _)| value >= *factor) {
        None => write!(f, "{value} {smallest}"),
        Some(&(factor, unit)) if value.is_multiple_of(factor) => {
            write!(f, "{} {unit}", value / factor)
        }
        Some(&(factor, unit)) => {
            let tenths = u128::from(value) * 10 / u128::from(factor);
            write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn sizes_are_read() {
        let check = |text, wanted| assert_eq!(parse_size(text), wanted, "{text}");
        check("4096", Ok(4096));
        check("16MiB", Ok(16 << 20));
        check("16M", Ok(16 << 20));
        check("50GB", Ok(50_000_000_000));
        check("1.5 TB", Ok(1_500_000_000_000));
        check("", Err(UnitError::NotANumber));
        check("-1", Err(UnitError::NotANumber));
        check("1.2.3", Err(UnitError::NotANumber));
        check("16 MiBs", Err(UnitError::UnknownUnit));
        check("99999999TiB", Err(UnitError::TooLarge));
        check("99999999999999999999", Err(UnitError::TooLarge));
    }

    #[test]
    fn rates_are_read() {
        let check = |text, wanted| assert_eq!(parse_rate(text), wanted, "{text}");
        check("100Mbit/s", Ok(12_500_000));
        check("90MB/s", Ok(90_000_000));
        check("2.5Gbit/s", Ok(312_500_000));
        check("90MB", Err(UnitError::UnknownRate));
    }

    #[test]
    fn numbers_are_shown_with_a_unit() {
        let check = |shown: &dyn ToString, wanted| assert_eq!(shown.to_string(), wanted);
        check(&Bytes(512), "512 B");
        check(&Bytes(16 << 20), "16 MiB");
        check(&Bytes(3 << 29), "1.5 GiB");
        check(&Rate(118_249_000), "118.2 MB/s");
        check(&Seconds(42), "42s");
        check(&Seconds(185), "3m05s");
        check(&Seconds(7800), "2h10m");
    }
}
