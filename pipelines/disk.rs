//! Free space.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Free bytes of the disk that holds a path, or that would hold it; `None` where the system does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let name = CString::new(existing(path).as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` is a terminated string and `found` is a place for the whole structure, read only after success.
    let found = unsafe {
        if libc::statvfs(name.as_ptr(), found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    Some(found.f_bavail * found.f_frsize)
}

/// The nearest folder above that is there.
fn existing(mut path: &Path) -> &Path {
    while !path.exists() {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => path = parent,
            _ => return Path::new("."),
        }
    }
    path
}
