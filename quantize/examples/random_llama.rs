//! Writes the random llama of the golden tests: `random_llama STORIES260K.bin OUT.gguf`.

#[path = "../tests/support/random_llama.rs"]
mod random_llama;

use std::error::Error;
use std::path::PathBuf;

use espalier_model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [donor, out] = paths.as_slice() else {
        return Err("usage: random_llama STORIES260K.bin OUT.gguf".into());
    };
    random_llama::write(&Model::open(donor)?, out)?;
    Ok(())
}
