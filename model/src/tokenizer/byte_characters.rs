//! The printable stand-ins of byte-level vocabularies.
//!
//! GPT-2's vocabulary file had to be readable text, so each byte that is not a printable Latin-1 character is written as a
//! character from U+0100 on: the space is `Ġ`, the newline `Ċ`.

/// The stand-in of each byte.
pub(crate) const fn byte_characters() -> [char; 256] {
    let mut characters = ['\0'; 256];
    let mut byte = 0;
    let mut next = 0x100;
    while byte < 256 {
        let code = if stands_for_itself(byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        // Codes are below U+0144, none of them a surrogate.
        if let Some(character) = char::from_u32(code) {
            characters[byte as usize] = character;
        }
        byte += 1;
    }
    characters
}

/// The byte that `character` stands for, if it stands for one.
pub(crate) fn byte_of(character: char) -> Option<u8> {
    const BYTES: [Option<u8>; 0x144] = bytes_of_characters();
    BYTES.get(character as usize).copied().flatten()
}

const fn stands_for_itself(code: u32) -> bool {
    matches!(code, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

const fn bytes_of_characters() -> [Option<u8>; 0x144] {
    let characters = byte_characters();
    let mut bytes = [None; 0x144];
    let mut byte = 0;
    while byte < 256 {
        bytes[characters[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_stand_ins() {
        let characters = byte_characters();
        assert_eq!(characters[usize::from(b' ')], 'Ġ');
        assert_eq!(characters[usize::from(b'\n')], 'Ċ');
        assert_eq!(characters[usize::from(b'A')], 'A');
        assert_eq!(characters[0xad], '\u{143}');
    }

    #[test]
    fn every_byte_comes_back() {
        for (byte, &character) in byte_characters().iter().enumerate() {
            assert_eq!(byte_of(character).map(usize::from), Some(byte));
        }
        assert_eq!(byte_of(' '), None);
        assert_eq!(byte_of('語'), None);
    }
}
