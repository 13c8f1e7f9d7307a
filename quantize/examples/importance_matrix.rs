//! Writes the importance matrix of the golden tests: `importance_matrix MODEL OUT.gguf`.

#[path = "../tests/support/importance.rs"]
mod importance;

use std::error::Error;
use std::path::PathBuf;

use espalier_model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, out] = paths.as_slice() else {
        return Err("usage: importance_matrix MODEL OUT.gguf".into());
    };
    importance::by_formula(&Model::open(model)?).write(out)?;
    Ok(())
}
