//! A shuffle that holds a part of its items at a time: they go into files by the first bits of their place, and each file
//! is then sorted by itself.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::draw;

/// So many files: a million lines of 2 KB are 32 MB each.
const FILES: usize = 64;

/// Items on their way into an order that the seed draws.
#[derive(Debug)]
pub(super) struct Shuffle {
    seed: u64,
    count: u64,
    // Closed before their folder is removed.
    files: Vec<BufWriter<File>>,
    folder: Folder,
}

#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Shuffle {
    /// Begins a shuffle, with its files beside the file that will be written.
    pub(super) fn new(out: &Path, seed: u64) -> io::Result<Self> {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(".mixing");
        let folder = Folder(out.with_file_name(name));
        // What a kill left behind is of no use.
        let _ = std::fs::remove_dir_all(&folder.0);
        std::fs::create_dir_all(&folder.0)?;
        let file =
            |number: usize| Ok(BufWriter::with_capacity(1 << 16, File::create(folder.0.join(number.to_string()))?));
        let files = (0..FILES).map(file).collect::<io::Result<_>>()?;
        Ok(Self { seed, count: 0, files, folder })
    }

    /// Adds an item.
    pub(super) fn add(&mut self, item: &[u8]) -> io::Result<()> {
        let place = draw::draw_key(self.seed, &[b"order", &self.count.to_le_bytes()]);
        let file = &mut self.files[(place >> 58) as usize];
        for number in [place, self.count, item.len() as u64] {
            file.write_all(&number.to_le_bytes())?;
        }
        self.count += 1;
        file.write_all(item)
    }

    /// Writes the items in their order.
    pub(super) fn finish(mut self, out: &mut impl Write) -> io::Result<()> {
        for file in &mut self.files {
            file.flush()?;
        }
        for number in 0..FILES {
            let mut file = BufReader::new(File::open(self.folder.0.join(number.to_string()))?);
            let mut items: Vec<([u64; 2], Vec<u8>)> = Vec::new();
            while let Some([place, count, length]) = numbers(&mut file)? {
                let mut item = vec![0; length as usize];
                file.read_exact(&mut item)?;
                items.push(([place, count], item));
            }
            items.sort_unstable_by_key(|(place, _)| *place);
            items.iter().try_for_each(|(_, item)| out.write_all(item))?;
        }
        Ok(())
    }
}

/// The head of the next item; `None` at the end.
fn numbers(file: &mut impl Read) -> io::Result<Option<[u64; 3]>> {
    let mut bytes = [0; 24];
    match file.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
        u64::from_le_bytes(number)
    };
    Ok(Some([number(0), number(1), number(2)]))
}
