//! How a stage of a graph finds its inputs: among the outputs of the stages that it needs.

mod quantized;

use super::{Models, Runner, numerics, numerics_words};
use crate::content::hash_path;
use crate::embedder::check_same_meaning;
use crate::graph::{Components, PipelineLock, StageKind, StageSpec, ancestors};
use crate::outcome::Failure;
use crate::servers;
use crate::stages::evaluate::{EvaluateStage, Side};
use crate::stages::{
    StageConfig, StageContext, StageOutcome, data, evaluate, generate, quantize, report, teach, train,
    weight_form_of_texts,
};
use anyhow::{Context, Result};
use espalier_inference::WeightForm;
use espalier_train::{DataItem, DataSource, RunSources, TrainConfig, TrainError};
use std::path::PathBuf;

/// A stage with the graph around it.
#[derive(Debug)]
pub struct Bound<'a> {
    runner: &'a Runner<'a>,
    stage: &'a StageSpec,
    above: Vec<&'a StageSpec>,
}

impl<'a> Bound<'a> {
    /// Looks up what stands above a stage.
    pub fn new(runner: &'a Runner<'a>, stage: &'a StageSpec) -> Self {
        Self { runner, stage, above: ancestors(&runner.file.stages, stage) }
    }

    /// Refuses a stage whose inputs no stage above makes, before anything runs.
    pub fn check(&self) -> Result<()> {
        match &self.stage.config {
            StageConfig::Generate(config) => {
                let taxonomy = self.tree_path(&config.taxonomy);
                if !taxonomy.exists() {
                    return Err(self.refuse(
                        "taxonomy",
                        format!("there is no skills tree at {}", config.taxonomy.display()),
                        "`taxonomy:` is a path from the working folder, or from the pipeline file's folder",
                    ));
                }
                generate::read_tree(&taxonomy)?;
            }
            StageConfig::Teach(config) => {
                self.need(StageKind::Generate, "rows")?;
                if config.adapter.is_none() && self.runner.file.teacher == self.runner.file.student {
                    return Err(self.refuse(
                        "",
                        format!("stage `{}` asks the student about itself, and that teaches nothing", self.stage.name),
                        "name a `teacher:` of the same tokenizer at the top of the file, or give this stage the `adapter:` of one",
                    ));
                }
                if config.top_k == 0 {
                    return Err(self.refuse("top_k", "no token at all teaches nothing", "32 is the default"));
                }
            }
            StageConfig::Train(config) => {
                if let Err(TrainError::Config { name, problem }) = config.validate() {
                    return Err(self.refuse(
                        name,
                        format!("`{name}`: {problem}"),
                        "correct it here; `pipeline plan` shows every value in force",
                    ));
                }
                self.sources(config)?;
                if let (Some(before), Some(_)) = (self.phase_before(), &config.continue_from) {
                    return Err(self.refuse(
                        "continue_from",
                        format!("`continue_from` and `needs: [{}]` each name an adapter to go on from", before.name),
                        "remove one of the two",
                    ));
                }
                if let Some(path) = &config.continue_from
                    && !self.tree_path(path).exists()
                {
                    return Err(self.refuse(
                        "continue_from",
                        format!("there is no adapter at {}", path.display()),
                        "`continue_from:` is a PEFT folder or an adapter GGUF, by a path from the working folder, or from the pipeline file's folder",
                    ));
                }
            }
            StageConfig::Quantize(config) => self.check_quantization(config)?,
            StageConfig::Evaluate(config) => self.check_evaluation(config)?,
            StageConfig::Report(_) => {}
        }
        Ok(())
    }

    /// Refuses to compare what no stage above makes, or with more examples than a leaf has.
    fn check_evaluation(&self, config: &EvaluateStage) -> Result<()> {
        self.need(StageKind::Generate, "skills tree")?;
        for (side, kind, what) in
            [(Side::Tuned, StageKind::Train, "tuned model"), (Side::Quantized, StageKind::Quantize, "quantized files")]
        {
            if config.compare.contains(&side) {
                self.need(kind, what)?;
            }
        }
        if let Err(reason) = check_same_meaning(config.embedder.as_deref(), config.same_meaning) {
            return Err(self.refuse("same_meaning", reason, "docs/pipeline-file.md has the keys of `evaluate`"));
        }
        let Some(taxonomy) = self.taxonomy().filter(|path| path.exists() && config.compare.contains(&Side::Base))
        else {
            return Ok(());
        };
        let tree = generate::read_tree(&taxonomy)?;
        let tested = tree.leaves.iter().filter(|leaf| !leaf.test.is_empty());
        match tested.min_by_key(|leaf| leaf.seeds.len()) {
            Some(leaf) if leaf.seeds.len() < config.shots => Err(self.refuse(
                "shots",
                format!("`shots: {}` needs as many seeds, and the leaf {} has {}", config.shots, leaf.id, leaf.seeds.len()),
                format!("write `shots: {}`, or give the leaf more `seed_examples`; with 0 the base is asked without examples only", leaf.seeds.len()),
            )),
            _ => Ok(()),
        }
    }

    /// A message about a key of this stage, with its place in the pipeline file.
    fn refuse(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        let error = self.runner.file.refuse(self.stage.places.key(key), message, hint);
        Failure::usage(error.to_string()).into()
    }

    fn above(&self, kind: StageKind) -> Option<&'a StageSpec> {
        self.above.iter().rev().find(|stage| stage.kind == kind).copied()
    }

    fn need(&self, kind: StageKind, what: &str) -> Result<&'a StageSpec> {
        self.above(kind).ok_or_else(|| {
            let makers = self.runner.file.stages.iter().filter(|stage| stage.kind == kind);
            let names: Vec<&str> = makers.map(|stage| stage.name.as_str()).collect();
            let hint = match names.first() {
                Some(name) => format!("add `needs: [{name}]`"),
                None => format!("write a stage `{0}`, and add `needs: [{0}]` here", kind.name()),
            };
            let message =
                format!("stage `{}` has no {what}: no stage that it needs does `{}`", self.stage.name, kind.name());
            self.refuse("", message, hint)
        })
    }

    fn folder_of(&self, stage: &StageSpec) -> PathBuf {
        self.runner.folder.outputs(&stage.name, stage.kind.name())
    }

    fn folder(&self) -> PathBuf {
        self.folder_of(self.stage)
    }

    fn work(&self) -> PathBuf {
        self.runner.folder.work(&self.stage.name)
    }

    /// A path of the pipeline file: from the working folder, or else from the file's own.
    fn tree_path(&self, path: &std::path::Path) -> PathBuf {
        if path.exists() || path.is_absolute() {
            return path.to_path_buf();
        }
        self.runner.file.path.parent().map_or_else(|| path.to_path_buf(), |folder| folder.join(path))
    }

    /// What a `train` stage reads: the rows of the `generate` stages above that no entry speaks of, `data`, and what is looked
    /// at on the way.
    fn sources(&self, config: &TrainConfig) -> Result<RunSources> {
        if config.data.is_empty() {
            self.need(StageKind::Generate, "rows")?;
        }
        let rows: Vec<&StageSpec> =
            self.above.iter().filter(|stage| stage.kind == StageKind::Generate).copied().collect();
        let (apart, general) = (config.validation.items(), &config.forgetting);
        let entries = || config.data.iter().chain(apart).chain(general);
        let spoken_of = |name: &str| entries().any(|item| item.stage.as_deref() == Some(name));
        let silent = rows.iter().filter(|stage| !spoken_of(&stage.name));
        let silent = silent.map(|stage| DataItem { stage: Some(stage.name.clone()), ..DataItem::default() });
        let source = |key: &'static str, item: DataItem| {
            let Some(name) = &item.stage else {
                let base = self.runner.file.path.parent();
                return data::find(&item, base).map_err(|error| {
                    let text = error.to_string();
                    let (message, hint) = text.split_once("\n  hint: ").unwrap_or((&text, "correct it here"));
                    self.refuse(key, format!("`{key}`: {message}"), hint)
                });
            };
            let Some(stage) = rows.iter().find(|stage| stage.name == *name) else {
                let names: Vec<&str> = rows.iter().map(|stage| stage.name.as_str()).collect();
                let hint = if names.is_empty() {
                    "add the `generate` stage to `needs`".to_owned()
                } else {
                    format!("stages with rows here: {}", names.join(", "))
                };
                return Err(self.refuse(key, format!("`{key}`: no stage above is `{name}` and makes rows"), hint));
            };
            let file = self.folder_of(stage).join("rows/messages.jsonl");
            Ok(DataSource::new(&item, vec![file]))
        };
        let find = |key: &'static str, items: &[DataItem]| -> Result<Vec<DataSource>> {
            items.iter().map(|item| source(key, item.clone())).collect()
        };
        let rows: Vec<DataItem> = silent.chain(config.data.iter().cloned()).collect();
        Ok(RunSources {
            rows: find("data", &rows)?,
            validation: find("validation", apart)?,
            forgetting: find("forgetting", general)?,
        })
    }

    /// Every file of rows that a stage above trains on, or that one makes.
    fn trained_on(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for stage in &self.above {
            match &stage.config {
                StageConfig::Generate(_) => files.push(self.folder_of(stage).join("rows/messages.jsonl")),
                StageConfig::Train(config) => {
                    for item in config.data.iter().filter(|item| item.stage.is_none()) {
                        files.extend(data::find(item, self.runner.file.path.parent())?.files);
                    }
                }
                _ => {}
            }
        }
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// The `train` stage that a `train` stage names in `needs`: it goes on from its adapter.
    fn phase_before(&self) -> Option<&'a StageSpec> {
        let named = |stage: &&&StageSpec| stage.kind == StageKind::Train && self.stage.needs.contains(&stage.name);
        self.above.iter().rev().find(named).copied()
    }

    fn taxonomy(&self) -> Option<PathBuf> {
        match &self.above(StageKind::Generate)?.config {
            StageConfig::Generate(config) => Some(self.tree_path(&config.taxonomy)),
            _ => None,
        }
    }

    /// What the stage leaves in the run folder.
    pub fn outputs(&self) -> Vec<PathBuf> {
        let folder = self.folder();
        match &self.stage.config {
            StageConfig::Generate(_) => vec![folder.join("rows/rows.parquet"), folder.join("rows/messages.jsonl")],
            StageConfig::Teach(_) => vec![folder.join(teach::OUTPUT)],
            StageConfig::Train(config) => train::outputs(config).iter().map(|name| folder.join(name)).collect(),
            StageConfig::Quantize(config) => {
                let names = quantize::outputs(config, &folder);
                names.iter().map(String::as_str).chain([quantize::LIST]).map(|name| folder.join(name)).collect()
            }
            StageConfig::Evaluate(_) => vec![folder.join("eval")],
            StageConfig::Report(_) => vec![folder.join("report.html")],
        }
    }

    /// What the stage's outputs depend on.
    pub fn components(&self, models: &Models, lock: &PipelineLock) -> Result<Components> {
        let mut from = Components::default();
        from.add_config(&self.stage.config.json());
        let version = match &self.stage.config {
            StageConfig::Generate(config) => {
                let tree = generate::read_tree(&self.tree_path(&config.taxonomy))?;
                for leaf in &tree.leaves {
                    from.add(format!("leaf.{}", leaf.id), leaf.hash.clone());
                }
                from.add("input.teacher", models.teacher.sha256.clone());
                let engine = self.runner.engine.as_deref().map_or_else(|| "native".into(), servers::canonical);
                from.add("engine", engine);
                for (key, reference) in [("judge", config.judge_model()), ("embedder", config.embedder.as_deref())] {
                    if let Some(model) = reference.and_then(|reference| models.named.get(reference)) {
                        from.add(format!("input.{key}"), model.sha256.clone());
                    }
                }
                from.add("prompts", espalier_sdg::prompts_digest());
                for file in &config.decontaminate {
                    from.add(format!("benchmark.{}", file.display()), hash_path(&self.tree_path(file))?);
                }
                for flow in generate::flow_versions(config, &tree)? {
                    from.add(format!("flow.{flow}"), String::new());
                }
                generate::VERSION
            }
            StageConfig::Teach(config) => {
                from.add("input.student", models.student.sha256.clone());
                from.add("input.teacher", models.teacher.sha256.clone());
                if let Some(adapter) = &config.adapter {
                    from.add("input.adapter", hash_path(&self.tree_path(adapter))?);
                }
                teach::VERSION
            }
            StageConfig::Train(config) => {
                from.add("input.student", models.student.sha256.clone());
                let items = config.data.iter().chain(config.validation.items()).chain(&config.forgetting);
                for item in items.filter(|item| item.stage.is_none()) {
                    for file in data::find(item, self.runner.file.path.parent())?.files {
                        from.add(format!("input.{}", file.display()), hash_path(&file)?);
                    }
                }
                if let Some(template) = &config.chat_template {
                    from.add("input.chat_template", hash_path(&self.tree_path(template))?);
                }
                if let Some(path) = &config.continue_from {
                    from.add("input.continue_from", hash_path(&self.tree_path(path))?);
                }
                if let Some(memory) = self.runner.memory {
                    from.add("memory", memory.to_string());
                }
                train::VERSION
            }
            StageConfig::Quantize(config) => {
                from.add("input.student", models.student.sha256.clone());
                if let Some(path) = config.imatrix_file() {
                    from.add("input.imatrix", hash_path(&self.tree_path(path))?);
                }
                if let Some(path) = &config.general {
                    from.add("input.general", hash_path(&self.tree_path(path))?);
                }
                self.add_questions(config, &mut from)?;
                quantize::VERSION
            }
            StageConfig::Evaluate(config) => {
                from.add("input.student", models.student.sha256.clone());
                if let Some(model) = config.embedder.as_ref().and_then(|reference| models.named.get(reference)) {
                    from.add("input.embedder", model.sha256.clone());
                }
                if let Some(taxonomy) = self.taxonomy() {
                    for leaf in generate::read_tree(&taxonomy)?.leaves.iter().filter(|leaf| !leaf.test.is_empty()) {
                        from.add(format!("leaf.{}", leaf.id), leaf.hash.clone());
                    }
                }
                evaluate::VERSION
            }
            StageConfig::Report(_) => report::VERSION,
        };
        let form = match self.stage.config {
            StageConfig::Generate(_) => weight_form_of_texts(self.runner.int8_texts),
            _ => WeightForm::Packed,
        };
        let precision = match &self.stage.config {
            StageConfig::Train(config) => train::precision(config, self.runner.precision),
            _ => self.runner.precision,
        };
        numerics(&mut from, version, precision, form);
        for stage in &self.above {
            if let Some(locked) = lock.stages.get(&stage.name) {
                for (output, hash) in locked.outputs.iter().filter(|(output, _)| self.reads(stage.kind, output)) {
                    from.add(format!("input.{output}"), hash.clone());
                }
            }
        }
        Ok(from)
    }

    /// Whether this stage reads an output of a stage above: what it does not read cannot make it run again.
    fn reads(&self, above: StageKind, output: &str) -> bool {
        match (self.stage.kind, above) {
            (StageKind::Train | StageKind::Teach | StageKind::Evaluate, StageKind::Generate) => {
                output.ends_with("messages.jsonl")
            }
            (StageKind::Quantize, StageKind::Generate) => {
                let reads = matches!(&self.stage.config, StageConfig::Quantize(config) if config.reads_rows());
                reads && output.ends_with("messages.jsonl")
            }
            (StageKind::Train | StageKind::Quantize | StageKind::Evaluate, StageKind::Train) => {
                output.ends_with("adapter")
            }
            (StageKind::Train, StageKind::Teach)
            | (StageKind::Evaluate, StageKind::Quantize)
            | (StageKind::Report, _) => true,
            _ => false,
        }
    }

    /// Why a stage without an entry in the lock runs.
    pub fn unfinished(&self) -> String {
        if self.is_asked_above() {
            "it has not run to its end; what a stage above has asked is not asked again".into()
        } else if self.work().is_dir() {
            "it was begun and not finished: it goes on".into()
        } else {
            "it has not run yet".into()
        }
    }

    /// Runs the stage.
    pub fn execute(&self, models: &Models, from: &Components) -> Result<StageOutcome> {
        let runner = self.runner;
        let context = StageContext {
            stage: &self.stage.name,
            reporter: runner.reporter,
            stop: runner.stop,
            precision: runner.precision,
            int8_texts: runner.int8_texts,
            memory: runner.memory.map(|bytes| bytes.0 as u64),
        };
        let folder = self.folder();
        std::fs::create_dir_all(&folder)?;
        let trained = self.above(StageKind::Train).map(|stage| self.folder_of(stage));
        let quantized = self.above(StageKind::Quantize).map(|stage| self.folder_of(stage));
        Ok(match &self.stage.config {
            StageConfig::Generate(config) => {
                let mut config = config.clone();
                config.taxonomy = self.tree_path(&config.taxonomy);
                config.decontaminate = config.decontaminate.iter().map(|file| self.tree_path(file)).collect();
                let places = generate::Places { rows: folder.join("rows"), work: self.work() };
                let named = |reference: Option<&str>| models.named.get(reference?);
                let engines = generate::Engines {
                    teacher: runner.engine.as_deref().into(),
                    judge: config.judged_by(&models.teacher, named(config.judge_model())),
                    embedder: named(config.embedder.as_deref()),
                };
                generate::run(&config, &models.teacher, engines, &places, &context)?.into()
            }
            StageConfig::Teach(config) => {
                let sources = self.sources(&TrainConfig::default())?;
                let adapter = config.adapter.as_ref().map(|adapter| self.tree_path(adapter));
                let config = teach::TeachStage { adapter, ..config.clone() };
                let inputs =
                    teach::Inputs { student: &models.student, teacher: &models.teacher, sources: &sources.rows };
                let taught = teach::run(&config, inputs, &self.work(), &folder.join(teach::OUTPUT), &context)?;
                taught.summary().into()
            }
            StageConfig::Train(config) => {
                let sources = self.sources(config)?;
                let template = config.chat_template.as_deref().map(|path| self.tree_path(path));
                let continue_from = config.continue_from.as_deref().map(|path| self.tree_path(path));
                let continue_from =
                    continue_from.or_else(|| Some(self.folder_of(self.phase_before()?).join("adapter")));
                let memory = runner.memory.or(config.memory);
                let config =
                    TrainConfig { chat_template: template, continue_from, memory, ..TrainConfig::clone(config) };
                // Checkpoints of other inputs must not be taken for this run's.
                let work = self.work().join(&from.digest()[..24]);
                let teacher = self.above(StageKind::Teach).map(|stage| self.folder_of(stage).join(teach::OUTPUT));
                train::run(&config, &models.student, &sources, teacher.as_deref(), &work, &folder, &context)?.into()
            }
            StageConfig::Quantize(config) => {
                let adapter = trained.map(|folder| folder.join("adapter"));
                let generated = self.above(StageKind::Generate).map(|stage| self.folder_of(stage));
                let rows = generated.map(|folder| folder.join("rows/messages.jsonl"));
                let questions = self.questions(config)?;
                let inputs = quantize::Inputs {
                    student: &models.student,
                    adapter: adapter.as_deref(),
                    rows: rows.as_deref().filter(|_| config.reads_rows()),
                    questions: questions.as_ref(),
                };
                let imatrix = config.imatrix_file().map(|path| self.tree_path(path).to_string_lossy().into_owned());
                let config = quantize::QuantizeStage {
                    imatrix: imatrix.unwrap_or_else(|| config.imatrix.clone()),
                    general: config.general.as_deref().map(|path| self.tree_path(path)),
                    ..config.clone()
                };
                quantize::run(&config, inputs, &folder, &context)?.into()
            }
            StageConfig::Evaluate(config) => {
                let taxonomy = self.taxonomy().unwrap_or_default();
                let inputs = evaluate::Inputs {
                    taxonomy: &taxonomy,
                    student: &models.student,
                    adapter: trained.map(|folder| folder.join("adapter")),
                    quantized,
                    rows: self.trained_on()?,
                    embedder: config.embedder.as_ref().and_then(|reference| models.named.get(reference)),
                };
                evaluate::run(config, &inputs, &self.work(), &folder.join("eval"), &context)?
            }
            StageConfig::Report(config) => report::run(config, &self.report_inputs(models)?, &folder)?.into(),
        })
    }

    fn report_inputs(&self, models: &Models) -> Result<report::Inputs> {
        let below = |kind: StageKind, name: &str| {
            self.above(kind).map(|stage| self.folder_of(stage).join(name)).filter(|path| path.exists())
        };
        let model = |model: &crate::models::ResolvedModel| {
            let license = model.license.as_deref().map(|license| format!(", {license}")).unwrap_or_default();
            format!("{} (sha256 {}{license})", model.reference, model.sha256)
        };
        let trainings = self.above.iter().filter(|stage| stage.kind == StageKind::Train);
        let lock = PipelineLock::read(&self.runner.folder.lock())?;
        let done = |stage: &&StageSpec| Some((stage.name.clone(), lock.stages.get(&stage.name)?.summary.clone()));
        Ok(report::Inputs {
            name: self.runner.file.name.clone(),
            rows: below(StageKind::Generate, "rows/rows.parquet"),
            losses: trainings
                .map(|stage| (stage.name.clone(), self.folder_of(stage).join("loss.jsonl")))
                .filter(|(_, path)| path.exists())
                .collect(),
            quantized: self.above(StageKind::Quantize).map(|stage| self.folder_of(stage)),
            scores: below(StageKind::Evaluate, "eval/comparisons.json"),
            items: below(StageKind::Evaluate, "eval/items.parquet"),
            facts: vec![
                ("student".into(), model(&models.student)),
                ("teacher".into(), model(&models.teacher)),
                (
                    "numerics".into(),
                    numerics_words(self.runner.precision, weight_form_of_texts(self.runner.int8_texts)),
                ),
                ("version".into(), format!("espalier {}", env!("CARGO_PKG_VERSION"))),
            ],
            stages: self.above.iter().filter_map(done).collect(),
            configuration: self
                .above
                .iter()
                .map(|stage| (stage.name.clone(), serde_yaml::to_string(&stage.config.json()).unwrap_or_default()))
                .collect(),
        })
    }

    /// Forgets what an earlier run of the stage remembers: `--force` begins from nothing.
    pub fn discard(&self) -> Result<()> {
        match std::fs::remove_dir_all(self.work()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.work().display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes what only an unfinished stage needs. Journals stay: a changed leaf must not cost the others their rows.
    pub fn clean(&self) {
        if self.stage.kind == StageKind::Train {
            let _ = std::fs::remove_dir_all(self.work());
        }
    }
}
