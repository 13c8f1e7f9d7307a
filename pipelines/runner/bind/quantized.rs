//! What a `quantize` stage asks for and holds its files to.

use super::Bound;
use crate::graph::{Components, StageKind, StageSpec, ancestors};
use crate::stages::evaluate::{self, EvaluateStage};
use crate::stages::quantize::{self, QuantizeStage, Questions, least_questions, tested};
use crate::stages::{StageConfig, generate};
use anyhow::Result;

impl Bound<'_> {
    /// Refuses what cannot be written, and files or rows that are not there.
    pub(super) fn check_quantization(&self, config: &QuantizeStage) -> Result<()> {
        quantize::wanted(config).map_err(|error| {
            let text = error.to_string();
            let (message, hint) = text.split_once("\n  hint: ").unwrap_or((&text, "correct it here"));
            let key = if text.contains("the target") { "targets" } else { "types" };
            self.refuse(key, message, hint)
        })?;
        if let Some((key, problem)) = config.problem() {
            return Err(self.refuse(key, problem, "correct it here"));
        }
        if !config.targets.is_empty() {
            self.need(StageKind::Generate, "rows that `targets` are measured on")?;
        }
        if let Some(path) = &config.general
            && !self.tree_path(path).exists()
        {
            return Err(self.refuse(
                "general",
                format!("there is no text at {}", path.display()),
                "`general:` is a text file, by a path from the working folder, or from the pipeline file's folder",
            ));
        }
        if config.largest_kld().is_some() {
            self.need(StageKind::Generate, "rows that `accept` is measured on")?;
        }
        if let Some(path) = config.imatrix_file()
            && !self.tree_path(path).exists()
        {
            return Err(self.refuse(
                "imatrix",
                format!("there is no importance matrix at {}", path.display()),
                "write `rows`, `none`, or a file that `pipeline imatrix` wrote",
            ));
        }
        self.check_questions(config)
    }

    /// Refuses questions that are not there, and so few that no file could be accepted.
    fn check_questions(&self, config: &QuantizeStage) -> Result<()> {
        if !config.asks_questions() {
            return Ok(());
        }
        self.need(StageKind::Generate, "skills tree whose held-out questions `accept` asks")?;
        let asked = self.asks_as()?.0;
        let counts = self.question_counts(&asked)?;
        let count: usize = counts.iter().map(|(_, count)| count).sum();
        if count == 0 {
            return Err(self.refuse(
                "accept",
                "`accept: {task: non-inferior}` asks held-out questions, and no leaf of this tree has any",
                "add `test: test.jsonl` with {question, answer} lines to a leaf, or accept by `kld`, which needs none",
            ));
        }
        let (margin, needed) = least_questions(count, &asked);
        if needed == Some(count) {
            return Ok(());
        }
        let words =
            if count == 1 { "1 held-out question is".to_owned() } else { format!("{count} held-out questions are") };
        let ask = needed.map_or_else(|| "allow a `margin` above 0".into(), |needed| format!("ask {needed} or more"));
        Err(self.refuse(
            "accept",
            format!(
                "{words} too few for `accept: {{task: non-inferior}}`: even where a file changes no answer, a loss of {:.1} points is not ruled out",
                100.0 * margin
            ),
            format!("{ask} (the tests of the tree, `limit` and `margin` of the `evaluate` stage), or accept by `kld`"),
        ))
    }

    /// How questions are asked, and by which stage: as the first one asks that evaluates these files; by its defaults otherwise.
    fn asks_as(&self) -> Result<(EvaluateStage, Option<&StageSpec>)> {
        let stages = &self.runner.file.stages;
        let below = |stage: &StageSpec| ancestors(stages, stage).iter().any(|above| above.name == self.stage.name);
        for stage in stages.iter().filter(|stage| below(stage)) {
            if let StageConfig::Evaluate(config) = &stage.config {
                return Ok((config.clone(), Some(stage)));
            }
        }
        let defaults = StageConfig::defaults(StageKind::Evaluate)?;
        let StageConfig::Evaluate(config) = defaults else { anyhow::bail!("`evaluate` has no defaults") };
        Ok((config, None))
    }

    /// The leaves that are asked, with the number of their questions.
    fn question_counts(&self, asked: &EvaluateStage) -> Result<Vec<(String, usize)>> {
        let Some(taxonomy) = self.taxonomy().filter(|path| path.exists()) else { return Ok(Vec::new()) };
        let tree = generate::read_tree(&taxonomy)?;
        Ok(tested(&tree, asked).into_iter().map(|(leaf, count)| (leaf.id.clone(), count)).collect())
    }

    /// What files are asked. Answers are kept where the stage that evaluates them looks for its own.
    pub(super) fn questions(&self, config: &QuantizeStage) -> Result<Option<Questions>> {
        let Some(taxonomy) = self.taxonomy().filter(|_| config.asks_questions()) else { return Ok(None) };
        let (asked, stage) = self.asks_as()?;
        let work = stage.map_or_else(|| self.work(), |stage| self.runner.folder.work(&stage.name));
        Ok(Some(Questions { taxonomy, asked, work }))
    }

    /// Adds the questions to what the files depend on.
    pub(super) fn add_questions(&self, config: &QuantizeStage, from: &mut Components) -> Result<()> {
        let Some(questions) = self.questions(config)? else { return Ok(()) };
        for (leaf, _) in tested(&generate::read_tree(&questions.taxonomy)?, &questions.asked) {
            from.add(format!("leaf.{}", leaf.id), leaf.hash.clone());
        }
        let EvaluateStage { limit, margin, max_tokens, .. } = &questions.asked;
        let asked = serde_json::json!({"limit": limit, "margin": margin, "max_tokens": max_tokens});
        from.add("questions", format!("{asked} in version {}", evaluate::VERSION));
        Ok(())
    }

    /// Whether a stage above asks what this one asks, and keeps the answers where this one looks for them.
    pub(super) fn is_asked_above(&self) -> bool {
        let mut above = self.above.iter().map(|stage| &stage.config);
        let asked = above.any(|config| matches!(config, StageConfig::Quantize(config) if config.asks_questions()));
        asked && self.stage.kind == StageKind::Evaluate && self.work().is_dir()
    }

    /// What a `quantize` stage holds its files to, in words; none where it takes every file.
    pub fn gate(&self) -> Result<Option<String>> {
        let StageConfig::Quantize(config) = &self.stage.config else { return Ok(None) };
        let mut parts = Vec::new();
        if let Some(kld) = config.largest_kld() {
            parts.push(format!("mean divergence from the model on held-out rows, {kld} at most"));
        }
        if config.asks_questions() {
            let asked = self.asks_as()?.0;
            let counts = self.question_counts(&asked)?;
            let count: usize = counts.iter().map(|(_, count)| count).sum();
            let leaves: Vec<String> = counts.iter().map(|(leaf, count)| format!("{leaf} {count}")).collect();
            let margin = 100.0 * least_questions(count, &asked).0;
            parts.push(format!(
                "{count} held-out questions ({}) to the model and to each file, which may lose {margin:.1} points",
                leaves.join(", ")
            ));
        }
        Ok((!parts.is_empty()).then(|| parts.join("; ")))
    }
}
