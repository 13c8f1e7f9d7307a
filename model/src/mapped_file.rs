//! Read-only memory maps.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::ModelError;

/// Maps a regular file; an empty file gives an empty slice.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, ModelError> {
    let file = File::open(path).map_err(ModelError::file(path, "open it"))?;
    let kind = file.metadata().map_err(ModelError::file(path, "read its size"))?;
    if !kind.is_file() {
        return Err(ModelError::invalid(
            path.display().to_string(),
            "this is not a regular file",
            "pass the path of a file",
        ));
    }
    // SAFETY: the map is read-only and private to this process. Bytes that another process changes under it give other
    // numbers, never an invalid value (only plain bytes are read); cutting the file short under a running program ends it
    // with a bus error, as it would end every program that maps its models.
    unsafe { Mmap::map(&file) }.map_err(ModelError::file(path, "map it into memory"))
}

/// Takes the pages of a range out of this process; they stay in the system's cache and come back when they are read.
pub(crate) fn release(map: &Mmap, range: std::ops::Range<usize>) {
    #[cfg(unix)]
    if range.end <= map.len() && !range.is_empty() {
        // SAFETY: the map is of a file and never written: reading a page again gives the same bytes. Where the advice is
        // refused, the pages simply stay.
        let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}
