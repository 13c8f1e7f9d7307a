//! Hashes that name rows and seed random numbers.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// sha256 over parts; each part's length goes first, so that no two lists of parts give the same bytes.
pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The first eight bytes of such a hash as a number.
pub(crate) fn number(parts: &[&[u8]]) -> u64 {
    let bytes = digest(parts);
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// Bytes in hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
