//! Quantizes a model and prints what became of it, with the options of llama-quantize:
//! `quantize [--imatrix FILE] [--refine] [--pure] [--tensor-type REGEX=TYPE]... [--token-embedding-type TYPE] [--output-tensor-type
//! TYPE] MODEL OUT.gguf TYPE`. The environment variable `NO_VERIFY` leaves out the check of the file.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use espalier_model::Model;
use espalier_quantize::{FileType, ImportanceMatrix, ImportanceSource, QuantizeOptions, encodable_type, quantize};

const USAGE: &str = "usage: quantize [OPTIONS] MODEL OUT.gguf TYPE";

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = QuantizeOptions { verify: std::env::var_os("NO_VERIFY").is_none(), ..QuantizeOptions::default() };
    let mut places = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(USAGE);
        match argument.as_str() {
            "--imatrix" => {
                let file = value()?;
                let matrix = ImportanceMatrix::read(Path::new(&file))?;
                options.importance = Some(ImportanceSource { matrix, file });
            }
            "--refine" => options.refine = true,
            "--pure" => options.mix.pure = true,
            "--tensor-type" => options.mix.tensor_types.push(value()?.parse()?),
            "--token-embedding-type" => {
                options.mix.token_embedding_type = Some(encodable_type(&value()?)?);
            }
            "--output-tensor-type" => options.mix.output_tensor_type = Some(encodable_type(&value()?)?),
            _ => places.push(argument),
        }
    }
    let [model, out, file_type] = places.as_slice() else {
        return Err(USAGE.into());
    };
    let file_type: FileType = file_type.parse()?;
    let start = Instant::now();
    let model = Model::open(Path::new(model))?;
    let report = quantize(&model, None, file_type, Path::new(out), &options, &mut |_| {})?;
    println!(
        "{file_type}: {} tensors, {:.2} MB, {:.2} bits per weight, {:.3} s",
        report.tensors.len(),
        report.file_bytes as f64 / 1e6,
        report.bits_per_weight(),
        start.elapsed().as_secs_f64()
    );
    for note in report.notes() {
        println!("note: {note}");
    }
    if let Some(verification) = report.verification {
        println!("verified: {verification:?}");
    }
    Ok(())
}
