//! Prints type and SHA-256 of every tensor of a GGUF file, one a line, in file order: `tensor_hashes FILE.gguf`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use espalier_model::Model;
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: tensor_hashes FILE.gguf")?;
    let model = Model::open(Path::new(&path))?;
    for info in model.tensors() {
        let tensor = model.tensor(&info.name)?;
        let raw = tensor.raw().ok_or("not a GGUF file")?;
        let mut hash = String::new();
        for byte in Sha256::digest(raw) {
            write!(hash, "{byte:02x}")?;
        }
        println!("{} {} {hash}", info.name, info.block_type.name());
    }
    Ok(())
}
