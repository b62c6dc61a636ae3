//! CRC-32C (Castagnoli; RFC 3720, B.4), the checksum of btrfs unless another was asked for.

/// The checksum of `bytes`.
///
/// Eight bytes a step with a table for each ("slicing by 8", Kounavis and Berry 2005): every node of
/// the extent tree passes through here, hundreds of MB of them in a file system of some TB.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let (steps, rest) = bytes.as_chunks::<8>();
    let mut crc = !0;
    for step in steps {
        let word = u64::from_le_bytes(*step) ^ u64::from(crc);
        let bytes = word.to_le_bytes();
        crc = (0..8).fold(0, |sum, i| sum ^ TABLES[7 - i][usize::from(bytes[i])]);
    }
    for byte in rest {
        let [low, ..] = crc.to_le_bytes();
        crc = TABLES[0][usize::from(low ^ byte)] ^ crc >> 8;
    }
    !crc
}

/// `TABLES[n][b]` is what byte `b` becomes when `n` more zero bytes follow it.
static TABLES: [[u32; 256]; 8] = tables();

/// The polynomial 0x1EDC6F41, its bits reversed.
const POLYNOMIAL: u32 = 0x82F6_3B78;

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32; // below 256
        let mut bits = 0;
        while bits < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bits += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut entry = 256;
    while entry < 8 * 256 {
        let crc = tables[entry / 256 - 1][entry % 256];
        tables[entry / 256][entry % 256] = crc >> 8 ^ tables[0][(crc & 0xFF) as usize];
        entry += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last four are of RFC 3720, B.4; the first is the customary check value.
    #[test]
    fn known_checksums() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, expected) in [
            (&b"123456789"[..], 0xE306_9283),
            (&b""[..], 0),
            (&[0; 32], 0x8A91_36AA),
            (&[0xFF; 32], 0x62A8_AB43),
            (&ascending, 0x46DD_794E),
            (&descending, 0x113F_DB5C),
        ] {
            assert_eq!(crc32c(bytes), expected, "{bytes:?}");
        }
    }
}
