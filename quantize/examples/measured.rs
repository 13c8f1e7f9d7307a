//! Holds measured types against fixed ones at the same size, on text that neither has seen:
//! `measured MODEL.gguf IMATRIX CALIBRATION.txt HELD_OUT.txt WINDOWS TYPE...`. For each fixed type it prints the size and the
//! mean divergence of the fixed mix and of the measured types, both with the same importance matrix. With `REFINE` in the
//! environment the measured types are refined too; with `SHOW_TYPES` they are printed.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

use espalier_inference::{EngineOptions, NativeEngine};
use espalier_model::Model;
use espalier_quantize::{
    AllocationEvent, AllocationInputs, FileType, ImportanceMatrix, ImportanceSource, MeasuredText, QuantizeOptions,
    Target, allocate, divergence, quantize,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, imatrix, calibration, held_out, windows, types @ ..] = arguments.as_slice() else {
        return Err("usage: measured MODEL.gguf IMATRIX CALIBRATION.txt HELD_OUT.txt WINDOWS TYPE...".into());
    };
    let model = Model::open(Path::new(model))?;
    let matrix = ImportanceMatrix::read(Path::new(imatrix))?;
    let reference = NativeEngine::load(&model, None, &EngineOptions::default())?;
    let cut = |path: &str| -> Result<Vec<MeasuredText>, Box<dyn Error>> {
        Ok(MeasuredText::windows(&reference, &std::fs::read_to_string(path)?, 512))
    };
    let (calibration, mut held_out) = (cut(calibration)?, cut(held_out)?);
    held_out.truncate(windows.parse()?);
    let refine = std::env::var_os("REFINE").is_some();
    let folder = std::env::temp_dir();
    for name in types {
        let file_type: FileType = name.parse()?;
        let importance = Some(ImportanceSource { matrix: matrix.clone(), file: "imatrix.gguf".to_owned() });
        let measure = |options: &QuantizeOptions| -> Result<(u64, f64), Box<dyn Error>> {
            let out = folder.join(format!("measured-{}.gguf", std::process::id()));
            let report = quantize(&model, None, file_type, &out, options, &mut |_| {})?;
            let engine = NativeEngine::load(&Model::open(&out)?, None, &EngineOptions::default())?;
            let found = divergence(&reference, &engine, &held_out, &mut |_| ControlFlow::Continue(()))?;
            println!("{name}: {:.3} bits, mean divergence {:?}", report.bits_per_weight(), found.mean_kld);
            std::fs::remove_file(&out)?;
            Ok((report.tensors.iter().map(|tensor| tensor.bytes).sum(), found.mean_kld.value))
        };
        let fixed_options = QuantizeOptions { importance, verify: false, ..QuantizeOptions::default() };
        let (bytes, fixed) = measure(&fixed_options)?;
        let inputs = AllocationInputs {
            model: &model,
            adapter: None,
            importance: Some(&matrix),
            refine,
            texts: calibration.clone(),
            engine: EngineOptions::default(),
        };
        let allocation = allocate(inputs, Target::Bytes(bytes), &mut |event| {
            if let AllocationEvent::Measured { .. } = event {
                println!("{name}: {event:?}");
            }
            ControlFlow::Continue(())
        })?;
        if std::env::var_os("SHOW_TYPES").is_some() {
            for (tensor, block_type) in &allocation.types {
                println!("  {tensor} {}", block_type.name());
            }
        }
        let (ours, measured) = measure(&QuantizeOptions { mix: allocation.mix()?, refine, ..fixed_options })?;
        println!(
            "{name}: {bytes} and {ours} bytes, divergence {fixed:.5} and {measured:.5}: {:+.1} %",
            100.0 * (measured / fixed - 1.0)
        );
    }
    Ok(())
}
