//! Event files of `TensorBoard`: a record for each step, written by hand, as the format is small.
//!
//! A file is a row of records (length, masked CRC-32C of the length, bytes, masked CRC-32C of the bytes); a record holds a
//! protobuf message `Event { 1: wall_time, 2: step, 3: file_version, 5: Summary { 1: Value { 1: tag, 2: simple_value } } }`.
//! Formats: `core/lib/io/record_writer.h` and `core/util/event.proto` of tensorflow.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// A new file in `folder`. Readers put all files of a folder together: a resumed run begins another one.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let now = seconds();
        let name = format!("events.out.tfevents.{:010}.espalier.{}", now as u64, std::process::id());
        let mut events = Self { file: File::create(folder.join(name))? };
        let mut version = Vec::new();
        field_double(&mut version, 1, now);
        field_bytes(&mut version, 3, b"brain.Event:2");
        events.record(&version)?;
        Ok(events)
    }

    /// Adds the values of a step by their tags.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> io::Result<()> {
        self.record(&event(seconds(), step, values))
    }

    fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(&record(bytes))
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn event(time: f64, step: usize, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut entry = Vec::new();
        field_bytes(&mut entry, 1, tag.as_bytes());
        // Wire type 5: four bytes.
        entry.push(2 << 3 | 5);
        entry.extend((*value as f32).to_le_bytes());
        field_bytes(&mut summary, 1, &entry);
    }
    let mut event = Vec::new();
    field_double(&mut event, 1, time);
    event.push(2 << 3);
    varint(&mut event, step as u64);
    field_bytes(&mut event, 5, &summary);
    event
}

/// Wire type 1: eight bytes.
fn field_double(out: &mut Vec<u8>, number: u8, value: f64) {
    out.push(number << 3 | 1);
    out.extend(value.to_le_bytes());
}

/// Wire type 2: a length and so many bytes.
fn field_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let sum = |bytes: &[u8]| masked(crc32c(bytes)).to_le_bytes();
    [&length[..], &sum(&length), bytes, &sum(bytes)].concat()
}

/// CRC-32C (Castagnoli), bit by bit: a record has a few hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// A checksum of data that holds checksums would be weak: the format turns and shifts it.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Step, and values by tag, of every record; checks all sums.
    fn read(mut bytes: &[u8]) -> Vec<(u64, Vec<(String, f32)>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let sum = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(sum(8), masked(crc32c(&bytes[..8])));
            let message = &bytes[12..12 + length];
            assert_eq!(sum(12 + length), masked(crc32c(message)));
            let fields = fields(message);
            let step = fields.iter().find(|field| field.0 == 2).map_or(0, |field| field.1);
            let values = fields.iter().filter(|field| field.0 == 5).flat_map(|field| self::fields(field.2));
            let value = |entry: &[u8]| {
                let parts = self::fields(entry);
                (String::from_utf8(parts[0].2.to_vec()).unwrap(), f32::from_le_bytes(parts[1].2.try_into().unwrap()))
            };
            found.push((step, values.map(|field| value(field.2)).collect()));
            bytes = &bytes[16 + length..];
        }
        found
    }

    /// Number, integer and bytes of each field of a message.
    fn fields(mut bytes: &[u8]) -> Vec<(u8, u64, &[u8])> {
        let mut found = Vec::new();
        let integer = |bytes: &mut &[u8]| {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7F) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        while !bytes.is_empty() {
            let (number, wire) = (bytes[0] >> 3, bytes[0] & 7);
            bytes = &bytes[1..];
            let (value, length) = match wire {
                0 => (integer(&mut bytes), 0),
                1 => (0, 8),
                2 => (0, integer(&mut bytes) as usize),
                _ => (0, 4),
            };
            found.push((number, value, &bytes[..length]));
            bytes = &bytes[length..];
        }
        found
    }

    #[test]
    fn the_sum_is_that_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path()).unwrap();
        file.scalars(7, &[("loss/train", 1.5), ("learning_rate", 2e-4)]).unwrap();
        file.scalars(300, &[("loss/train", -0.25)]).unwrap();
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let found = read(&fs::read(path).unwrap());
        assert_eq!(found.len(), 3);
        let value = |tag: &str, value: f32| (tag.to_owned(), value);
        assert_eq!(found[1], (7, vec![value("loss/train", 1.5), value("learning_rate", 2e-4)]));
        assert_eq!(found[2], (300, vec![value("loss/train", -0.25)]));
    }
}
