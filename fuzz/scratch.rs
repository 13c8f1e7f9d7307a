//! Files in memory, one folder a process: the readers take paths because they map their files.

use std::path::PathBuf;

/// Writes a file of this process' scratch folder.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let root = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let path = root.join(format!("espalier-fuzz-{}", std::process::id())).join(name);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).expect("a scratch folder");
    }
    std::fs::write(&path, bytes).expect("a scratch file");
    path
}
