//! A ZIP archive of one stored file, which is all that Oracle's import asks for.
//!
//! Invariant: the same file gives the same bytes: no compression, and the format's first day as its time. A crate for ZIP
//! brings encryption, compression and their dependencies, for these fifty lines.
//! Source: PKWARE's APPNOTE 6.3.10, 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (its end).

/// 1980-01-01, in MS-DOS's form.
const DAY: u16 = 0x0021;

/// The archive; `None` when the file is too large for the format without extensions (4 GiB).
pub fn archive(name: &str, file: &[u8]) -> Option<Vec<u8>> {
    let (size, name_size) = (u32::try_from(file.len()).ok()?, u16::try_from(name.len()).ok()?);
    let crc = crc32(file);
    // What the local header and the directory say alike: version, flags, method, time, day, sums, sizes, length of name.
    let mut common = Vec::new();
    common.extend([20u16, 0, 0, 0, DAY].into_iter().flat_map(u16::to_le_bytes));
    common.extend([crc, size, size].into_iter().flat_map(u32::to_le_bytes));
    common.extend([name_size, 0].into_iter().flat_map(u16::to_le_bytes));

    let mut out = b"PK\x03\x04".to_vec();
    out.extend(&common);
    out.extend(name.as_bytes());
    out.extend(file);
    let directory = u32::try_from(out.len()).ok()?;
    out.extend(b"PK\x01\x02\x14\x00");
    out.extend(&common);
    // Comment, disk, attributes (16 and 32 bits), and where the local header is: all zero.
    out.extend([0u8; 14]);
    out.extend(name.as_bytes());
    let directory_size = u32::try_from(out.len()).ok()? - directory;
    out.extend(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    out.extend([directory_size, directory].into_iter().flat_map(u32::to_le_bytes));
    out.extend([0u8; 2]);
    Some(out)
}

/// The file of an archive that [`archive`] made; `None` for any other.
pub fn stored<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let at = |from: usize| Some(u32::from_le_bytes(archive.get(from..from + 4)?.try_into().ok()?));
    let start = 30 + name.len();
    let size = usize::try_from(at(18)?).ok()?;
    let file = archive.get(start..start.checked_add(size)?)?;
    let right =
        archive.starts_with(b"PK\x03\x04") && archive.get(30..start)? == name.as_bytes() && at(14)? == crc32(file);
    right.then_some(file)
}

/// CRC-32 of ISO-HDLC.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_published_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn what_is_archived_is_read_back_and_damage_is_seen() {
        let whole = archive("GlInterface.csv", b"NEW,1\n").unwrap();
        assert_eq!(stored(&whole, "GlInterface.csv"), Some(&b"NEW,1\n"[..]));
        let mut damaged = whole.clone();
        damaged[46] ^= 1;
        assert_eq!(stored(&damaged, "GlInterface.csv"), None);
        assert_eq!(stored(&whole[..20], "GlInterface.csv"), None);
    }
}
