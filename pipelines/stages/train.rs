//! Rows to adapter.

use super::StageContext;
use crate::bound::{matmul_weights, product_rate};
use crate::models::ResolvedModel;
use crate::outcome::Interrupted;
use crate::reporter::size;
use anyhow::{Context, Result};
use espalier_dataset::read_teacher;
use espalier_model::Model;
use espalier_train::metrics::{GroupScore, LossLine, ValidationLine, read_losses};
use espalier_train::tensorboard::EventFile;
use espalier_train::{
    Best, DataProgress, DataSource, DeviceName, Metric, Precision, RunData, RunSources, Sequences, TrainConfig,
    TrainEvent, TrainPlan, attach_teacher, load, train,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Raised when the adapter that rows give would come out otherwise.
pub const VERSION: u32 = 2;

/// Names of what training leaves in its output folder; an adapter in GGUF has no place for what `DoRA` learns.
pub fn outputs(config: &TrainConfig) -> &'static [&'static str] {
    if config.dora { &["adapter", "loss.jsonl"] } else { &["adapter", ADAPTER_GGUF, "loss.jsonl"] }
}

const ADAPTER_GGUF: &str = "adapter.gguf";

/// Trains in `work`, which may hold the checkpoints of an interrupted run, then copies the results to `out`.
pub fn run(
    config: &TrainConfig,
    student: &ResolvedModel,
    sources: &RunSources,
    teacher: Option<&Path>,
    work: &Path,
    out: &Path,
    context: &StageContext<'_>,
) -> Result<String> {
    let model = Model::open(&student.path)?;
    let read = RunData::load(&model, sources, config, context.stop, &mut |progress| reading(progress, context));
    context.check_stop()?;
    let mut data = read?;
    for warning in data.warnings() {
        context.warn(warning);
    }
    if let Some(path) = teacher {
        let (origin, table) = read_teacher(path)?;
        attach_teacher(&mut data.rows, &model, &origin, &table).with_context(|| path.display().to_string())?;
    }
    if let Some(adapter) = &config.continue_from {
        context.note(format!("goes on from the adapter {}", adapter.display()));
    }
    for line in describe_sources(&data.rows) {
        context.note(line);
    }
    fs::create_dir_all(work).with_context(|| format!("cannot create {}", work.display()))?;
    let config = TrainConfig { precision: precision(config, context.precision), ..config.clone() };
    let utilization = Utilization::new(&model, config.precision);
    let mut board = Board::new(out.join("logs/tensorboard").join(context.stage));
    let outcome = train(&model, &data, &config, work, context.stop, &mut |event| {
        board.write(&event, utilization);
        report(&event, config.metric_for_best_model, utilization, context);
    })?;
    if let Some(problem) = board.problem {
        context.warn(problem);
    }
    if !outcome.finished {
        return Err(Interrupted.into());
    }
    let losses = read_losses(&work.join("loss.jsonl"))?;
    let learned = learned(&losses, outcome.steps_per_epoch);
    for name in outputs(&config) {
        publish(&work.join(name), &out.join(name))?;
    }
    if outcome.adapter_gguf.is_none() {
        // One of an earlier run would be taken for this adapter.
        let _ = fs::remove_file(out.join(ADAPTER_GGUF));
        context
            .note("no adapter.gguf: it has no place for DoRA; `pipeline adapter merge` makes a model of it".to_owned());
    }
    let steps = if outcome.step == 1 { "step" } else { "steps" };
    Ok(format!("{} {steps}, {learned}", outcome.step))
}

fn reading(progress: DataProgress, context: &StageContext<'_>) {
    context.progress("reading", progress.bytes, progress.of, "bytes", format!("{} rows", progress.rows));
}

/// Reads the rows of a run and says what to know of them.
pub fn read(
    model: &Model,
    sources: &[DataSource],
    config: &TrainConfig,
    context: &StageContext<'_>,
) -> Result<Sequences> {
    let read = load(model, sources, config, context.stop, &mut |progress| reading(progress, context));
    context.check_stop()?;
    let data = read?;
    for warning in &data.warnings {
        context.warn(warning);
    }
    Ok(data)
}

/// Rows and tokens of each source, where there is more than one or one that is not taken once an epoch; then leaves with a weight.
fn describe_sources(data: &Sequences) -> Vec<String> {
    let plain = data.mixing.iter().all(|weight| (weight - 1.0).abs() < f64::EPSILON);
    if data.sources.len() == 1 && plain {
        return describe_leaves(data);
    }
    let line = |(source, name): (usize, &String)| {
        let (rows, tokens) = data.count(source);
        let weight = data.mixing[source];
        let often = if (weight - 1.0).abs() < f64::EPSILON {
            "each once an epoch".to_owned()
        } else {
            format!("weight {weight}: {:.0} rows an epoch", rows as f64 * weight)
        };
        format!("{name}: {rows} rows, {tokens} tokens, {often}")
    };
    data.sources.iter().enumerate().map(line).chain(describe_leaves(data)).collect()
}

/// Leaves that give their rows a weight, and how many rows of them an epoch has, by the weights of their sources too.
fn describe_leaves(data: &Sequences) -> Vec<String> {
    let mut leaves: BTreeMap<(usize, u64), (usize, f64)> = BTreeMap::new();
    for row in &data.rows {
        if let (Some(leaf), Some(weight)) = (row.leaf, row.leaf_weight) {
            let (rows, epoch) = leaves.entry((leaf, weight.to_bits())).or_default();
            (*rows, *epoch) = (*rows + 1, *epoch + data.often(row));
        }
    }
    let line = |((leaf, weight), (rows, epoch)): ((usize, u64), (usize, f64))| {
        let (name, weight) = (&data.leaves[leaf], f64::from_bits(weight));
        format!("leaf {name}: {rows} rows, weight {weight}: {epoch:.1} rows an epoch")
    };
    leaves.into_iter().map(line).collect()
}

/// How the loss went. Steps hold different kinds of rows, so passes over all of them are compared where there are two.
fn learned(losses: &[LossLine], steps_per_epoch: usize) -> String {
    let mean = |lines: &[LossLine]| {
        let tokens: usize = lines.iter().map(|line| line.target_tokens).sum();
        lines.iter().map(|line| line.loss * line.target_tokens as f64).sum::<f64>() / tokens.max(1) as f64
    };
    let passes = losses.len() / steps_per_epoch.max(1);
    if passes < 2 {
        let (Some(first), Some(last)) = (losses.first(), losses.last()) else { return String::new() };
        if losses.len() == 1 {
            return format!("loss {:.3}", last.loss);
        }
        return format!("loss {:.3} to {:.3}", first.loss, last.loss);
    }
    let (first, last) = (&losses[..steps_per_epoch], &losses[(passes - 1) * steps_per_epoch..passes * steps_per_epoch]);
    format!("loss over a pass {:.3} to {:.3}", mean(first), mean(last))
}

/// How many rows a teacher teaches, where there is one.
fn taught(plan: &TrainPlan) -> String {
    match plan.taught {
        0 => String::new(),
        taught if taught == plan.conversations => " with a teacher's probabilities".to_owned(),
        taught => format!(" ({taught} with a teacher's probabilities, the others by their text alone)"),
    }
}

/// How much of what the machine can do goes into the model's own products.
#[derive(Clone, Copy)]
struct Utilization {
    /// Operations of a token: forward, and the gradient of the activations. Frozen weights need none of their own, and what
    /// attention and the updates take is not counted.
    operations: f64,
    /// Operations a second of our own product on operands in the caches, measured before the first step.
    product_rate: f64,
}

impl Utilization {
    fn new(model: &Model, precision: Precision) -> Self {
        let (blocks, head) = matmul_weights(model.config());
        Self { operations: 4.0 * (blocks + head) as f64, product_rate: product_rate(precision) }
    }

    fn at(self, tokens_per_second: f64) -> f64 {
        self.operations * tokens_per_second / self.product_rate
    }
}

fn report(event: &TrainEvent, metric: Metric, utilization: Utilization, context: &StageContext<'_>) {
    if let Ok(mut figures) = serde_json::to_value(event) {
        if let TrainEvent::Step { tokens_per_second, .. } = event {
            figures["model_flops_utilization"] = utilization.at(*tokens_per_second).into();
        }
        context.figures(figures);
    }
    match event {
        TrainEvent::Plan(plan) => describe_plan(plan, context),
        TrainEvent::Step { step, steps, loss, divergence, tokens_per_second, .. } => {
            let divergence = divergence.map(|divergence| format!(", {divergence:.3} from the teacher"));
            let detail = format!(
                "loss {loss:.3}{}, {tokens_per_second:.0} tokens/s, {:.0} % of the product rate",
                divergence.unwrap_or_default(),
                100.0 * utilization.at(*tokens_per_second)
            );
            context.progress("", *step as u64, *steps as u64, "steps", detail);
        }
        TrainEvent::Validated { line, best } => context.note(validated(line, best.as_ref(), metric)),
        TrainEvent::Forgetting { line } => context.note(format!(
            "step {}: {:.5} nats from the base on {} tokens of general text",
            line.step, line.forgetting, line.tokens
        )),
        TrainEvent::RolledBack { step, to, trouble, learning_rate_factor, rows } => {
            let slower = if *learning_rate_factor < 1.0 {
                format!("; the learning rate is {learning_rate_factor} of the schedule's from here on")
            } else {
                String::new()
            };
            context.warn(format!(
                "step {step}: {trouble}; back to step {to}, and its rows are passed over: {rows}{slower}"
            ));
        }
        TrainEvent::Done { steps, best: Some(best), .. } if best.step != *steps => {
            context.note(format!("the adapter is that of step {}, the best on the held-out rows", best.step));
        }
        TrainEvent::Checkpoint { .. } | TrainEvent::Done { .. } => {}
    }
}

fn validated(line: &ValidationLine, best: Option<&Best>, metric: Metric) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let earlier = match best.filter(|best| best.step < line.step) {
        Some(best) => {
            let figure = match metric {
                Metric::Loss => format!("a loss of {:.4}", best.loss),
                Metric::Accuracy => format!("{} (loss {:.4})", percent(best.accuracy), best.loss),
            };
            format!("; the best was {figure} at step {}", best.step)
        }
        None => String::new(),
    };
    format!(
        "step {}: validation loss {:.4}, {} of {} rows right ({}), {} of their tokens{earlier}",
        line.step,
        line.validation_loss,
        line.right(),
        line.rows,
        percent(line.accuracy),
        percent(line.token_accuracy),
    )
}

fn describe_plan(plan: &TrainPlan, context: &StageContext<'_>) {
    if let Some(repeated) = &plan.repeated {
        context.warn(repeated);
    }
    context.note(format!(
        "{} conversations{}{}, {} tokens ({} to learn) a pass, {} steps{}, {} adapter values, {} of {} base weights, products in {} on {}",
        plan.conversations,
        if plan.held_out > 0 { format!(" and {} held out", plan.held_out) } else { String::new() },
        taught(plan),
        plan.tokens,
        plan.target_tokens,
        plan.steps,
        if plan.resumed_at > 0 { format!(" of which {} are done", plan.resumed_at) } else { String::new() },
        plan.parameters,
        size(plan.frozen_bytes as u64),
        plan.base_weights,
        plan.precision,
        if plan.device == DeviceName::Cpu { plan.instruction_set.clone() } else { plan.device.to_string() },
    ));
    for value in &plan.derived {
        context.note(format!("{} {}: {}", value.name, value.value, value.reason));
    }
    for line in plan.memory.table() {
        context.note(line);
    }
}

/// What the frozen products compute in: f32 where the settings or `--precision` say so.
pub fn precision(config: &TrainConfig, asked: Precision) -> Precision {
    if config.precision == Precision::F32 { Precision::F32 } else { asked }
}

/// The curves of the run for `TensorBoard`. They are only a view: a file that cannot be written does not end the training.
struct Board {
    folder: PathBuf,
    file: Option<EventFile>,
    problem: Option<String>,
}

impl Board {
    fn new(folder: PathBuf) -> Self {
        Self { folder, file: None, problem: None }
    }

    fn write(&mut self, event: &TrainEvent, utilization: Utilization) {
        let (step, values) = match event {
            TrainEvent::Step { step, loss, learning_rate, grad_norm, tokens_per_second, memory, .. } => {
                let bytes = memory.map_or(0.0, |memory| memory.now as f64);
                let values = [
                    ("loss/train", *loss),
                    ("learning_rate", *learning_rate),
                    ("gradient_norm", *grad_norm),
                    ("tokens_per_second", *tokens_per_second),
                    ("model_flops_utilization", utilization.at(*tokens_per_second)),
                    ("memory_bytes", bytes),
                ];
                (*step, values.map(|(tag, value)| (tag.to_owned(), value)).to_vec())
            }
            TrainEvent::Validated { line, .. } => {
                let all = GroupScore { loss: line.validation_loss, accuracy: line.accuracy, ..GroupScore::default() };
                let groups = line.sources.0.iter().chain(&line.leaves.0);
                let groups = groups.map(|(name, score)| (format!("/{name}"), *score));
                let scores = std::iter::once((String::new(), all)).chain(groups);
                let values = scores.flat_map(|(name, score)| {
                    [("loss", score.loss), ("accuracy", score.accuracy)]
                        .map(|(figure, value)| (format!("{figure}/validation{name}"), value))
                });
                (line.step, values.collect())
            }
            TrainEvent::Forgetting { line } => (line.step, vec![("forgetting".to_owned(), line.forgetting)]),
            _ => return,
        };
        if self.problem.is_none()
            && let Err(error) = self.add(step, &values)
        {
            self.problem = Some(format!("no curves for TensorBoard in {}: {error}", self.folder.display()));
        }
    }

    fn add(&mut self, step: usize, values: &[(String, f64)]) -> std::io::Result<()> {
        if self.file.is_none() {
            self.file = Some(EventFile::create(&self.folder)?);
        }
        let values: Vec<(&str, f64)> = values.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        self.file.as_mut().map_or(Ok(()), |file| file.scalars(step, &values))
    }
}

/// Copies a result to its final name, replacing an older one. What it is made from stays where it is: a training that is killed
/// between two of them goes on from its last checkpoint and finds its losses there.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let mut made = to.as_os_str().to_owned();
    made.push(".new");
    let made = PathBuf::from(made);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    remove(&made)?;
    let copied = if from.is_dir() { copy_folder(from, &made) } else { fs::copy(from, &made).map(drop) };
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), made.display()))?;
    if to.is_dir() {
        remove(to)?;
    }
    fs::rename(&made, to).with_context(|| format!("cannot move {} to {}", made.display(), to.display()))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A folder of files alone.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::resolve;
    use crate::reporter::{Output, Reporter};
    use espalier_train::metrics::Groups;
    use std::sync::atomic::AtomicBool;

    /// A run that was killed between its results and the removal of its checkpoints.
    #[test]
    fn a_run_that_had_its_results_already_gives_them_again() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let rows = folder.path().join("rows.jsonl");
        let row = |name: &str| {
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Who is {name}?\"}}, {{\"role\": \"assistant\", \"content\": \"A dog.\"}}]}}\n"
            )
        };
        fs::write(&rows, ["Max", "Tom", "Lily", "Ben"].map(row).concat())?;
        let sources = RunSources {
            rows: vec![DataSource::new(&espalier_train::DataItem::file("rows.jsonl"), vec![rows])],
            ..RunSources::default()
        };
        let (reporter, stop) = (Reporter::new(Output::Quiet), AtomicBool::new(false));
        let student = resolve("tests/assets/model/stories260K.bin", &reporter, &stop)?;
        let context = StageContext {
            stage: "train",
            reporter: &reporter,
            stop: &stop,
            precision: Precision::F32,
            int8_texts: false,
            memory: None,
        };
        let config = TrainConfig {
            rank: 2,
            max_steps: Some(4),
            tokens_per_step: 64,
            max_sequence: 64,
            ..TrainConfig::default()
        };
        let (work, out) = (folder.path().join("work"), folder.path().join("out"));
        let mut found = Vec::new();
        for _ in 0..2 {
            run(&config, &student, &sources, None, &work, &out, &context)?;
            found.push((fs::read(out.join("loss.jsonl"))?, crate::content::hash_path(&out.join("adapter"))?));
        }
        assert_eq!(found[0].0.iter().filter(|&&byte| byte == b'\n').count(), 4);
        assert_eq!(found[0], found[1]);
        Ok(())
    }

    #[test]
    fn passes_are_compared_where_there_are_two() {
        let line = |loss: f64, target_tokens| LossLine {
            step: 1,
            loss,
            nll: None,
            divergence: None,
            learning_rate: 0.0,
            grad_norm: 0.0,
            tokens: 9,
            target_tokens,
            sources: Groups::default(),
            leaves: Groups::default(),
        };
        let lines = [line(4.0, 1), line(1.0, 3), line(3.0, 1), line(0.0, 3)];
        assert_eq!(learned(&lines, 2), "loss over a pass 1.750 to 0.750");
        assert_eq!(learned(&lines[..3], 2), "loss 4.000 to 3.000");
        assert_eq!(learned(&lines[..1], 2), "loss 4.000");
    }
}
