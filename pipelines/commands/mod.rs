//! One module a command: typed arguments in, a status out.

mod adapter;
mod batch;
mod bench;
mod chat;
mod compare;
mod data;
mod doctor;
mod embed;
mod eval;
mod folder;
mod generate;
mod imatrix;
mod init;
mod model;
mod perplexity;
mod quantize;
mod run;
mod serve;
mod show_batch;
mod status;
mod taxonomy;
mod teach;
mod tokenize;
mod train;

use crate::cli::{Cli, Command, EvalCommand, PrecisionArgument};
use crate::models::ModelCache;
use crate::outcome::{Failure, Status};
use crate::reporter::{Output, Reporter};
use crate::stages::StageContext;
use crate::terminal::print_error;
use anyhow::Result;
use espalier_inference::{EngineOptions, WeightForm};
use espalier_kernels::Precision;
use std::sync::atomic::{AtomicBool, Ordering};

/// What every command may use.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// Where events go.
    pub reporter: &'a Reporter,
    /// Set by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// Precision of frozen weights.
    pub precision: Precision,
    /// Whether texts may be written with activations of 8 bits.
    pub int8_texts: bool,
    /// Memory that a training or its engines may take.
    pub memory: Option<espalier_train::Bytes>,
    /// Whether results on standard output are coloured.
    pub color: bool,
}

impl<'a> Session<'a> {
    /// What a stage of this name works with.
    pub fn stage(&self, name: &'a str) -> StageContext<'a> {
        let Self { reporter, stop, precision, int8_texts, memory, .. } = *self;
        StageContext { stage: name, reporter, stop, precision, int8_texts, memory: memory.map(|bytes| bytes.0 as u64) }
    }

    /// How engines are loaded; see [`StageContext::engine_options`].
    pub fn engine_options(&self) -> EngineOptions {
        self.stage("").engine_options()
    }

    /// How engines are loaded that write one text at a time.
    pub fn one_text_options(&self) -> EngineOptions {
        let weight_form = if self.int8_texts { WeightForm::Blocks } else { WeightForm::Packed };
        EngineOptions { weight_form, ..self.engine_options() }
    }

    /// How engines are loaded that write many texts; see [`StageContext::writing_options`].
    pub fn writing_options(&self) -> EngineOptions {
        self.stage("").writing_options()
    }
}

/// Set by the signal handler; stages look at it between units of work.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs one command.
pub fn run(cli: Cli) -> Result<Status> {
    let output = match (cli.common.json, cli.common.quiet) {
        (true, _) => Output::Json,
        (_, true) => Output::Quiet,
        _ => Output::Human,
    };
    let reporter = Reporter::new(output);
    // Documents of a tree are read by many commands; without a cache folder each reads them anew.
    if let Ok(cache) = ModelCache::open() {
        espalier_taxonomy::document::keep_texts_in(cache.root().join("documents"));
    }
    if let Some(threads) = cli.common.threads {
        use_threads(threads)?;
    }
    // The first signal asks for a safe stop, the second one ends at once; everything is resumable either way.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        if !chat::ANSWERING.load(Ordering::Relaxed) {
            print_error("\nstopping at the next safe point; press Ctrl-C again to stop at once");
        }
    });
    let (precision, memory) = (cli.common.precision.into(), cli.common.memory);
    let int8_texts = cli.common.precision == PrecisionArgument::Auto;
    let session =
        Session { reporter: &reporter, stop: &STOP, precision, int8_texts, memory, color: cli.common.color.on() };
    match cli.command {
        Command::Run { run, from, to, only, force, dry_run, engine } => {
            let selection = crate::runner::Selection { from, to, only, force };
            run::run(&run, selection, dry_run, &engine, session)
        }
        Command::Plan { run } => run::plan(&run, session),
        Command::Status { run } => status::status(&run, session),
        Command::Why { stage, run } => status::why(&stage, &run, session),
        Command::Report { run } => status::report(&run, session),
        Command::Init { folder } => init::run(&folder, session),
        Command::Taxonomy(command) => taxonomy::run(command, session),
        Command::Generate(arguments) => generate::run(&arguments, session),
        Command::Data(command) => data::run(command, session),
        Command::Teach { model, adapter, student, data, out, top_k } => {
            let config = crate::stages::TeachStage { top_k, adapter };
            teach::run(&model, &student, &data, &out, &config, session)
        }
        Command::Train { model, data, teacher_logprobs, out, config, set, rank, max_steps, device, show_batch } => {
            let arguments = train::Arguments {
                model,
                data,
                teacher_logprobs,
                out,
                config,
                set,
                rank,
                max_steps,
                device,
                show_batch,
            };
            train::run(&arguments, session)
        }
        Command::Adapter(command) => adapter::run(command, session),
        Command::Quantize(arguments) => quantize::run(&arguments.into(), session),
        Command::Imatrix(arguments) => imatrix::run(arguments, session),
        Command::Compare(arguments) => compare::run(&arguments, session),
        Command::Eval { arguments, judging, command } => match (arguments, command) {
            (_, Some(EvalCommand::Compare(arguments))) => eval::compare(&arguments, session),
            (_, Some(EvalCommand::List)) => eval::list(session),
            (Some(arguments), None) => eval::run(&arguments, &judging, session),
            (None, None) => Err(Failure::usage("eval needs --model, --tasks and --out, or a subcommand")
                .hint("`pipeline eval --help` has examples")
                .into()),
        },
        Command::Perplexity { model, adapter, text, reference, chunks } => {
            perplexity::run(&model, adapter.as_deref(), &text, reference.as_deref(), chunks, session)
        }
        Command::Batch { model, adapter, engine, overflow, input, output } => {
            let arguments = batch::Arguments { model, adapter, engine, overflow: overflow.into(), input, output };
            batch::run(&arguments, session)
        }
        Command::Chat { model, adapters, compare, system, sampling, ask } => {
            let arguments = chat::Arguments { model, adapters, compare, system, settings: sampling.into(), ask };
            chat::run(&arguments, session)
        }
        Command::Serve {
            model,
            adapters,
            name,
            host,
            port,
            without_key,
            max_waiting,
            max_tokens,
            max_body,
            overflow,
            grace,
            verbose,
        } => {
            let arguments = serve::Arguments {
                model,
                adapters,
                name,
                host,
                port,
                without_key,
                max_waiting,
                max_tokens,
                max_body: max_body.0 as u64,
                overflow: overflow.into(),
                grace: std::time::Duration::from_secs(grace),
                verbose,
            };
            serve::run(&arguments, session)
        }
        Command::Embed { model, input, output, pooling, no_normalize } => {
            let options = espalier_inference::EmbeddingOptions {
                pooling: pooling.map(Into::into),
                normalize: no_normalize.then_some(false),
            };
            embed::run(&embed::Arguments { model, input, output, options }, session)
        }
        Command::Tokenize { model, text, special } => tokenize::run(&model, text, special, session),
        Command::Doctor { device } => doctor::run(device, session),
        Command::Model(command) => model::run(command, session),
        Command::Bench(command) => bench::run(command, session),
    }
}

fn use_threads(threads: usize) -> Result<()> {
    if threads == 0 {
        return Err(Failure::usage("--threads 0: at least one thread computes").into());
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    Ok(())
}

/// The URLs of servers, when `--engine` names some.
fn servers(engine: &str) -> Result<Option<String>> {
    if engine == "native" {
        return Ok(None);
    }
    for url in engine.split(',') {
        if url.trim().starts_with("https://") {
            return Err(Failure::usage(format!("{url}: this build speaks plain http"))
                .hint("put a local proxy in front, or use a server on this machine")
                .into());
        }
        if !url.trim().starts_with("http://") {
            return Err(Failure::usage(format!("there is no engine `{url}`"))
                .hint(
                    "`native`, or the URL of an OpenAI-compatible server such as http://127.0.0.1:8080, or several \
                     URLs with commas between them",
                )
                .into());
        }
    }
    Ok(Some(engine.to_owned()))
}

/// Key and value of one `--set`.
fn assignment(text: &str) -> Result<(String, serde_json::Value)> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("cannot understand --set {text}")).hint("the form is `--set rank=8`"))?;
    let value = serde_yaml::from_str(value).map_err(|error| Failure::usage(format!("--set {text}: {error}")))?;
    Ok((key.to_owned(), value))
}
