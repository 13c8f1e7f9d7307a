//! Streams as they were before they were packed.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::object::{hex, is_white};

/// What came out of a filter, and whether the stream was damaged before its end.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    pub bytes: Vec<u8>,
    pub cut: bool,
}

/// Undoes one filter; at most `most + 1` bytes come out. None for a filter that packs no text (pictures).
pub(super) fn unpack(filter: &[u8], bytes: &[u8], most: usize) -> Option<Unpacked> {
    Some(match filter {
        b"FlateDecode" | b"Fl" => flate(bytes, most),
        b"LZWDecode" | b"LZW" => lzw(bytes, most),
        b"ASCIIHexDecode" | b"AHx" => Unpacked { bytes: hexadecimal(bytes), cut: false },
        b"ASCII85Decode" | b"A85" => Unpacked { bytes: ascii85(bytes), cut: false },
        b"RunLengthDecode" | b"RL" => run_length(bytes, most),
        _ => return None,
    })
}

fn flate(bytes: &[u8], most: usize) -> Unpacked {
    let mut out = Vec::new();
    let result = ZlibDecoder::new(bytes).take(most as u64 + 1).read_to_end(&mut out);
    if result.is_err() && out.is_empty() {
        // Some writers leave the two bytes of the header out or wrong.
        let raw = bytes.get(2..).unwrap_or_default();
        let second = flate2::read::DeflateDecoder::new(raw).take(most as u64 + 1).read_to_end(&mut out);
        return Unpacked { bytes: out, cut: second.is_err() };
    }
    Unpacked { bytes: out, cut: result.is_err() }
}

/// LZW with codes of 9 to 12 bits and an early change, as PDF has it.
fn lzw(bytes: &[u8], most: usize) -> Unpacked {
    const CLEAR: usize = 256;
    const END: usize = 257;
    let mut out: Vec<u8> = Vec::new();
    // Each code after the first 258 is a piece of what stands already: start and length.
    let mut table: Vec<(usize, usize)> = Vec::new();
    let mut previous: Option<(usize, usize)> = None;
    let (mut window, mut bits) = (0_u32, 0_u32);
    for &byte in bytes {
        window = window << 8 | u32::from(byte);
        bits += 8;
        let width = match table.len() + 258 {
            ..511 => 9,
            511..1023 => 10,
            1023..2047 => 11,
            _ => 12,
        };
        if bits < width {
            continue;
        }
        bits -= width;
        let code = (window >> bits) as usize & ((1 << width) - 1);
        window &= (1 << bits) - 1;
        if code == END || out.len() > most {
            return Unpacked { bytes: out, cut: false };
        }
        if code == CLEAR {
            table.clear();
            previous = None;
            continue;
        }
        let start = out.len();
        if code < 256 {
            out.push(code as u8);
        } else {
            let piece = table.get(code - 258).copied();
            let Some((from, length)) =
                piece.or(previous.filter(|_| code - 258 == table.len()).map(|(from, length)| (from, length + 1)))
            else {
                return Unpacked { bytes: out, cut: true };
            };
            // The piece may reach into what it writes: its last byte is then its first.
            for index in from..from + length {
                let byte = out[index];
                out.push(byte);
            }
        }
        if let Some((from, length)) = previous
            && table.len() + 258 < 4096
        {
            table.push((from, length + 1));
        }
        previous = Some((start, out.len() - start));
    }
    Unpacked { bytes: out, cut: true }
}

fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = bytes.iter().take_while(|&&byte| byte != b'>').filter_map(|&byte| hex(byte)).collect();
    digits.chunks(2).map(|pair| 16 * pair[0] + pair.get(1).copied().unwrap_or(0)).collect()
}

fn ascii85(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut group: Vec<u32> = Vec::with_capacity(5);
    let mut write = |group: &[u32]| {
        let count = group.len();
        let padded = group.iter().copied().chain(std::iter::repeat(84)).take(5);
        let value = padded.fold(0_u32, |value, digit| value.wrapping_mul(85).wrapping_add(digit));
        out.extend_from_slice(&value.to_be_bytes()[..count - 1]);
    };
    for &byte in bytes.strip_prefix(b"<~").unwrap_or(bytes) {
        match byte {
            b'~' => break,
            b'z' if group.is_empty() => write(&[0; 5]),
            b'!'..=b'u' => group.push(u32::from(byte - b'!')),
            byte if is_white(byte) => {}
            _ => break,
        }
        if group.len() == 5 {
            write(&group);
            group.clear();
        }
    }
    if group.len() > 1 {
        write(&group);
    }
    out
}

fn run_length(bytes: &[u8], most: usize) -> Unpacked {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let [length, tail @ ..] = rest {
        if *length == 128 || out.len() > most {
            break;
        }
        let count = usize::from(*length) + 1;
        if *length < 128 {
            let count = count.min(tail.len());
            out.extend_from_slice(&tail[..count]);
            rest = &tail[count..];
        } else {
            let Some((byte, after)) = tail.split_first() else { break };
            out.extend(std::iter::repeat_n(*byte, 258 - count));
            rest = after;
        }
    }
    Unpacked { bytes: out, cut: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_give_what_their_definitions_say() {
        let of = |filter: &[u8], bytes: &[u8]| unpack(filter, bytes, 1000).unwrap().bytes;
        assert_eq!(of(b"ASCIIHexDecode", b"48 65 6C6c 6F7>"), b"Hellop");
        assert_eq!(of(b"ASCII85Decode", b"<~87cURD]i,\"Ebo80~>"), b"Hello World!");
        assert_eq!(of(b"RunLengthDecode", &[2, b'a', b'b', b'c', 254, b'x', 128, 9]), b"abcxxx");
        // The example of the PDF reference, 7.4.4.2.
        let example = [0x80, 0x0b, 0x60, 0x50, 0x22, 0x0c, 0x0c, 0x85, 0x01];
        assert_eq!(of(b"LZWDecode", &example), [45, 45, 45, 45, 45, 65, 45, 45, 45, 66]);
        assert!(unpack(b"DCTDecode", b"", 10).is_none());
    }
}
