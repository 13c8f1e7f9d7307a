//! `pipeline quantize`: one file, merged and checked.

use super::Session;
use crate::cli::QuantizeArguments;
use crate::content::write_atomically;
use crate::models::resolve;
use crate::outcome::{Failure, Status};
use crate::reporter::size;
use crate::stages::{self, measured};
use anyhow::Result;
use espalier_inference::NativeEngine;
use espalier_kernels::BlockType;
use espalier_model::{LoraAdapter, Model};
use espalier_quantize::{
    AllocationInputs, FileType, ImportanceMatrix, ImportanceSource, MixOptions, QuantizeError, QuantizeOptions, Target,
    TypeOverride, dry_run, encodable_type,
};
use std::path::{Path, PathBuf};

/// What to write.
pub struct Arguments {
    /// The base.
    pub model: String,
    /// Its types.
    pub types: Types,
    /// The file.
    pub out: PathBuf,
    /// Folded in.
    pub adapter: Option<PathBuf>,
    /// Weighs the errors.
    pub imatrix: Option<PathBuf>,
    /// Move the scales of the blocks to lower the errors further.
    pub refine: bool,
    /// Say what would be written, and write nothing.
    pub dry_run: bool,
}

/// How the types of the tensors are chosen.
pub enum Types {
    /// A fixed mix with changes.
    Fixed {
        /// The mix.
        file_type: String,
        /// One type for every matrix.
        pure: bool,
        /// `REGEX=TYPE`.
        rules: Vec<String>,
        /// Of the token embedding.
        token_embedding: Option<String>,
        /// Of the head.
        output: Option<String>,
        /// The head keeps its type.
        leave_output: bool,
    },
    /// By measurement on rows or text.
    Measured {
        /// `4.6bpw`, `3.2GB`, `ram` or `speed`.
        target: String,
        /// Rows or text.
        data: String,
    },
}

impl Types {
    /// A mix as it is.
    pub fn fixed(file_type: &str) -> Self {
        Self::Fixed {
            file_type: file_type.to_owned(),
            pure: false,
            rules: Vec::new(),
            token_embedding: None,
            output: None,
            leave_output: false,
        }
    }
}

impl From<QuantizeArguments> for Arguments {
    fn from(said: QuantizeArguments) -> Self {
        let types = match (said.target, said.data) {
            (Some(target), Some(data)) => Types::Measured { target, data },
            _ => Types::Fixed {
                file_type: said.file_type.unwrap_or_default(),
                pure: said.mix.pure,
                rules: said.mix.tensor_type,
                token_embedding: said.mix.token_embedding_type,
                output: said.mix.output_tensor_type,
                leave_output: said.mix.leave_output_tensor,
            },
        };
        Self {
            model: said.model,
            types,
            out: said.out.unwrap_or_default(),
            adapter: said.adapter,
            imatrix: said.imatrix,
            refine: said.refine,
            dry_run: said.dry_run,
        }
    }
}

/// A mix without changes, to a file.
pub fn plain(model: &str, file_type: &str, out: &Path, adapter: Option<&Path>, session: Session<'_>) -> Result<Status> {
    let arguments = Arguments {
        model: model.to_owned(),
        types: Types::fixed(file_type),
        out: out.to_owned(),
        adapter: adapter.map(Path::to_owned),
        imatrix: None,
        refine: false,
        dry_run: false,
    };
    run(&arguments, session)
}

/// `pipeline quantize`.
pub fn run(arguments: &Arguments, session: Session<'_>) -> Result<Status> {
    if let Types::Fixed { file_type, rules, .. } = &arguments.types {
        // Before anything is fetched.
        stages::quantize::parse_type(file_type)?;
        overrides(rules)?;
    }
    let importance = arguments.imatrix.as_deref().map(importance_of).transpose()?;
    let found = resolve(&arguments.model, session.reporter, session.stop)?;
    let model = Model::open(&found.path)?;
    let adapter = arguments.adapter.as_ref().map(|path| LoraAdapter::load(path, model.config())).transpose()?;
    let context = session.stage("quantize");
    let (file_type, mix, allocation) = match &arguments.types {
        Types::Fixed { file_type, .. } => {
            (stages::quantize::parse_type(file_type)?, mix(&arguments.types, &model)?, None)
        }
        Types::Measured { target, data } => {
            let target = size_of_target(target, &model, session)?;
            let matrix = importance.as_ref().map(|source| &source.matrix);
            let engine = NativeEngine::load(&model, None, &session.engine_options())?;
            let texts = measured::texts(&model, &engine, data, &context)?;
            drop(engine);
            let inputs = AllocationInputs {
                model: &model,
                adapter: adapter.as_ref(),
                importance: matrix,
                refine: arguments.refine,
                texts,
                engine: session.engine_options(),
            };
            let found = stages::quantize::measured_types(inputs, target, &context)?;
            (found.file_type(), found.mix()?, Some(found))
        }
    };
    let options = QuantizeOptions { mix, importance, refine: arguments.refine, ..QuantizeOptions::default() };
    if arguments.dry_run {
        return tell(&model, adapter.as_ref(), file_type, &options, session);
    }
    let out = &arguments.out;
    let made = stages::quantize::write_one(&model, adapter.as_ref(), file_type, out, &options, &context)?;
    let note = if made.fallback.is_empty() { String::new() } else { format!("\n{}", made.fallback) };
    session.reporter.line(format!(
        "{} {}, {:.2} bits a weight, reopened and checked{note}",
        out.display(),
        size(made.bytes),
        made.bits_per_weight
    ));
    let mut result = serde_json::to_value(&made)?;
    if let Some(allocation) = allocation {
        let mut path = out.clone().into_os_string();
        path.push(".types.json");
        write_atomically(Path::new(&path), serde_json::to_string_pretty(&allocation)?.as_bytes())?;
        result["allocation"] = serde_json::to_value(&allocation)?;
    }
    session.reporter.result(result);
    Ok(Status::Done)
}

/// An importance matrix under the name of its file.
pub fn importance_of(path: &Path) -> Result<ImportanceSource> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(ImportanceSource { matrix: ImportanceMatrix::read(path)?, file })
}

fn overrides(rules: &[String]) -> Result<Vec<TypeOverride>> {
    let read = |rule: &String| rule.parse().map_err(|error: QuantizeError| Failure::usage(error.to_string()).into());
    rules.iter().map(read).collect()
}

/// The changes that the command line makes to a mix.
fn mix(types: &Types, model: &Model) -> Result<MixOptions> {
    let Types::Fixed { pure, rules, token_embedding, output, leave_output, .. } = types else {
        return Ok(MixOptions::default());
    };
    let named = |option: &str, name: &Option<String>| -> Result<Option<BlockType>> {
        let read =
            |name: &String| encodable_type(name).map_err(|problem| Failure::usage(format!("{option}: {problem}")));
        Ok(name.as_ref().map(read).transpose()?)
    };
    let mut output_type = named("--output-tensor-type", output)?;
    if *leave_output {
        output_type = model.tensors().find(|info| info.name == "output.weight").map(|info| info.block_type);
    }
    Ok(MixOptions {
        pure: *pure,
        tensor_types: overrides(rules)?,
        token_embedding_type: named("--token-embedding-type", token_embedding)?,
        output_tensor_type: output_type,
    })
}

/// A size that is said, or (`ram`) what this machine holds beside keys and values: three quarters of its memory, or what
/// `--memory` says, without the keys and values of the whole context in half precision, as llama-server keeps them.
fn size_of_target(target: &str, model: &Model, session: Session<'_>) -> Result<Target> {
    if target != "ram" {
        return target.parse().map_err(|error: QuantizeError| Failure::usage(error.to_string()).into());
    }
    let config = model.config();
    let values = 2 * config.layers * config.kv_heads * config.head_dim * config.context;
    let cache = (values * size_of::<u16>()) as u64;
    let said = session.memory.map(|bytes| bytes.0 as u64);
    let all = said.or_else(|| super::doctor::memory().map(|(_, total)| total / 4 * 3)).ok_or_else(|| {
        Failure::usage("the memory of this machine cannot be read").hint("say it with `--memory`, as in `--memory 8GB`")
    })?;
    let left = all.checked_sub(cache).filter(|left| *left > 0).ok_or_else(|| {
        Failure::usage(format!(
            "the keys and values of {} tokens alone take {}, more than the {} for everything",
            config.context,
            size(cache),
            size(all)
        ))
        .hint("give a size, as in `--target 3GB`, and serve the model with a smaller context")
    })?;
    Ok(Target::Bytes(left))
}

/// Says what would be written.
fn tell(
    model: &Model,
    adapter: Option<&LoraAdapter>,
    file_type: FileType,
    options: &QuantizeOptions,
    session: Session<'_>,
) -> Result<Status> {
    let report = dry_run(model, adapter, file_type, options)?;
    for tensor in &report.tensors {
        let fallback = tensor.fallback.map(|fallback| format!("  (in place of {})", fallback.wanted.name()));
        session.reporter.line(format!(
            "{:<28} {:>6} -> {:<6} {:>10}{}",
            tensor.name,
            tensor.from.name(),
            tensor.to.name(),
            size(tensor.bytes),
            fallback.unwrap_or_default()
        ));
    }
    let notes: String = report.notes().iter().map(|note| format!("\n{note}")).collect();
    session.reporter.line(format!(
        "{} would be {}, {:.2} bits a weight{notes}",
        file_type.name(),
        size(report.file_bytes),
        report.bits_per_weight()
    ));
    session.reporter.result(serde_json::json!({
        "file_type": file_type.name(), "bytes": report.file_bytes, "bits_per_weight": report.bits_per_weight(),
        "fallback": report.notes(),
    }));
    Ok(Status::Done)
}
