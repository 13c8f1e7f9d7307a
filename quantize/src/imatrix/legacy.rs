//! The `.dat` form, older than GGUF's: `i32` number of entries; for each the length of the name and the name, `i32` chunks,
//! `i32` number of values, and the values as `f32`, each the mean square times the chunks; then, or not, `i32` chunks in all,
//! the length of a dataset's name and the name. All little endian.

use super::{CHUNK_TOKENS, Importance, ImportanceMatrix};

/// Bytes that the smallest entry takes: three numbers, a letter and a value.
const LEAST_ENTRY: usize = 17;

pub(super) fn decode(bytes: &[u8]) -> Result<ImportanceMatrix, String> {
    let mut rest = Rest { bytes, length: bytes.len() };
    let entries = rest.size("number of entries")?;
    if entries == 0 || entries > rest.bytes.len() / LEAST_ENTRY {
        let length = bytes.len();
        return Err(format!("it is neither a GGUF file nor a .dat file: {entries} entries in {length} bytes"));
    }
    let mut matrix = ImportanceMatrix::new(Vec::new(), 0, CHUNK_TOKENS);
    for index in 0..entries {
        let name = rest.text(&format!("name of entry {index}"))?;
        let chunks = rest.number(&format!("chunks of {name:?}"))?;
        let length = rest.size(&format!("length of {name:?}"))?;
        let (values, _) = rest.take(length.saturating_mul(4), &format!("values of {name:?}"))?.as_chunks::<4>();
        let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes));
        // The values of an entry without a number of chunks are the means themselves.
        let chunks = u64::try_from(chunks).unwrap_or(0).max(1);
        // By a power of two, so that the means do not change.
        let sums = values.map(|value| value * CHUNK_TOKENS as f32).collect();
        let importance = Importance::new(sums, vec![chunks * u64::from(CHUNK_TOKENS)])
            .map_err(|problem| format!("entry {name:?}: {problem}"))?;
        if matrix.get(&name).is_some() {
            return Err(format!("entry {name:?} stands twice"));
        }
        matrix.insert(name, importance);
    }
    if !rest.bytes.is_empty() {
        matrix.chunks = u32::try_from(rest.number("number of chunks")?).unwrap_or(0);
        if !rest.bytes.is_empty() {
            matrix.datasets.push(rest.text("name of the dataset")?);
        }
    }
    Ok(matrix)
}

pub(super) fn encode(matrix: &ImportanceMatrix) -> Vec<u8> {
    let mut out = Vec::new();
    // As llama-imatrix: what no row reached is left out.
    let seen: Vec<_> =
        matrix.iter().filter(|(_, importance)| importance.counts.iter().any(|&count| count > 0)).collect();
    put(&mut out, seen.len() as u64);
    for (name, importance) in seen {
        put_text(&mut out, name);
        let rows = importance.counts.iter().copied().max().unwrap_or(0);
        let chunks = rows.div_ceil(u64::from(matrix.chunk_tokens.max(1)));
        put(&mut out, chunks);
        put(&mut out, importance.sums.len() as u64);
        for mean in importance.means() {
            out.extend_from_slice(&(mean * chunks as f32).to_le_bytes());
        }
    }
    put(&mut out, u64::from(matrix.chunks));
    put_text(&mut out, matrix.datasets.last().map_or("", String::as_str));
    out
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&i32::try_from(number).unwrap_or(i32::MAX).to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// What is still to be read.
struct Rest<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or_else(|| {
            let at = self.length - self.bytes.len();
            format!("byte {at}: {length} bytes of the {what} go beyond the end of the file ({} bytes)", self.length)
        })?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number(&mut self, what: &str) -> Result<i32, String> {
        let mut number = [0; 4];
        number.copy_from_slice(self.take(4, what)?);
        Ok(i32::from_le_bytes(number))
    }

    fn size(&mut self, what: &str) -> Result<usize, String> {
        let number = self.number(what)?;
        usize::try_from(number).map_err(|_| format!("the {what} is {number}"))
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        let length = self.size(what)?;
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("the {what} is no UTF-8 text"))
    }
}
