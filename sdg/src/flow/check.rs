//! What is wrong with a flow, found before anything is asked.

use std::collections::{BTreeSet, HashSet};

use espalier_taxonomy::yaml::distance;
use espalier_taxonomy::{Diagnostic, Place, Severity};

use super::ask::engine_for;
use super::block::BlockKind;
use super::block::columns::Columns;
use super::block::filter::Filter;
use super::block::judge::JudgeBlock;
use super::block::llm::{Ask, Llm};
use super::block::planted::LEAF_COLUMNS;
use super::prompt::FlowPrompt;
use super::{Block, Flow};
use crate::expressions;

impl Flow {
    /// Whether the flow can run over rows with these columns and with these engines: blocks that wait for each other or for
    /// none that is there, columns that no block before makes, prompts and expressions that are none or that need a column
    /// that is not there, engines that are not there, columns that are to come out and do not. Sorted by place.
    pub fn check(&self, source_columns: &BTreeSet<String>, engines: &[&str]) -> Vec<Diagnostic> {
        let mut checker = Checker { flow: self, engines, findings: Vec::new() };
        checker.graph(source_columns);
        checker.findings.sort_by(Diagnostic::by_place);
        checker.findings
    }
}

struct Checker<'a> {
    flow: &'a Flow,
    engines: &'a [&'a str],
    findings: Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        let Place { line, column } = place;
        let finding = Diagnostic::new(Severity::Error, &self.flow.file, line.max(1), column.max(1), message);
        self.findings.push(finding.with_hint(hint));
    }

    fn graph(&mut self, source_columns: &BTreeSet<String>) {
        if self.flow.blocks.is_empty() {
            self.error(Place { line: 1, column: 1 }, "the flow has no block", "add one to `blocks`");
            return;
        }
        self.names();
        let (Ok(before), true) = (self.flow.before(), self.findings.is_empty()) else { return };
        let order = match self.flow.order() {
            Ok(order) => order,
            Err(reason) => {
                let place = self.first_of_circle(&before);
                self.error(place, reason, "take one of the names out of `after`");
                return;
            }
        };
        let mut given: Vec<BTreeSet<String>> = vec![BTreeSet::new(); self.flow.blocks.len()];
        for block in order {
            // Where several meet, only what all of them give is sure to be there.
            let columns = before[block]
                .iter()
                .map(|&one| given[one].clone())
                .reduce(|a, b| &a & &b)
                .unwrap_or_else(|| source_columns.clone());
            given[block] = self.block(&self.flow.blocks[block], columns);
        }
        let ends = (0..self.flow.blocks.len()).filter(|block| !before.iter().any(|before| before.contains(block)));
        for end in ends.collect::<Vec<_>>() {
            for (output, place) in &self.flow.outputs {
                if !given[end].contains(output) {
                    let name = &self.flow.blocks[end].name;
                    let message = format!("`{output}` is to come out, and the last block `{name}` does not give it");
                    let hint = there(output, &given[end]);
                    self.error(*place, message, hint);
                }
            }
        }
    }

    fn names(&mut self) {
        let names: Vec<&str> = self.flow.block_names().collect();
        for block in &self.flow.blocks {
            for (name, place) in block.after.iter().flatten() {
                if !names.contains(&name.as_str()) {
                    let close = names.iter().find(|other| distance(other, name) <= 2);
                    let hint = match close {
                        Some(close) => format!("did you mean `{close}`?"),
                        None => format!("blocks are {}", names.join(", ")),
                    };
                    self.error(*place, format!("no block is called `{name}`"), hint);
                }
            }
        }
    }

    /// The `after` of the first block that waits for itself.
    fn first_of_circle(&self, before: &[Vec<usize>]) -> Place {
        let reaches = |start: usize| {
            let (mut seen, mut open) = (HashSet::new(), before[start].clone());
            while let Some(block) = open.pop() {
                if seen.insert(block) {
                    open.extend(&before[block]);
                }
            }
            seen.contains(&start)
        };
        let first = (0..before.len()).find(|&block| reaches(block)).unwrap_or_default();
        let block = &self.flow.blocks[first];
        block.keys.get("after").copied().unwrap_or(block.place)
    }

    /// Checks a block over columns, and gives those behind it.
    fn block(&mut self, block: &'a Block, mut columns: BTreeSet<String>) -> BTreeSet<String> {
        let is_there = |name: &str| self.engines.contains(&name);
        if let Some(engine) = block.kind.engine().filter(|engine| engine_for(engine, is_there).is_none()) {
            let place = block.keys.get("engine").copied().unwrap_or(block.place);
            let message = format!("the block `{}` asks the engine `{engine}`, which is not there", block.name);
            self.error(place, message, format!("engines are {}", self.engines.join(", ")));
        }
        self.kind(block, &block.kind, &mut columns);
        if let BlockKind::Repair(repair) = &block.kind {
            self.repairs(block, &repair.of);
        }
        for column in &block.drop_columns {
            columns.remove(column);
        }
        self.need(block, "drop_duplicates", &block.drop_duplicates, &columns);
        columns
    }

    fn kind(&mut self, block: &'a Block, kind: &'a BlockKind, columns: &mut BTreeSet<String>) {
        match kind {
            BlockKind::Llm(llm, _) => self.llm(block, llm, &[], columns),
            BlockKind::Judge(judge) => self.judge(block, judge, columns),
            BlockKind::Verify(verify) => {
                self.need_one(block, &["answer"], &verify.answer, columns);
                match &verify.check {
                    None => self.need_one(block, &["question"], &verify.question, columns),
                    Some(reward) => {
                        let names: BTreeSet<String> = reward.needs().into_iter().collect();
                        self.need(block, "check", &names.into_iter().collect::<Vec<_>>(), columns);
                    }
                }
            }
            BlockKind::Vote(vote) => {
                self.need(block, "by", &vote.by, columns);
                self.need_one(block, &["column"], &vote.column, columns);
            }
            BlockKind::Select(select) => {
                self.need(block, "by", &select.by, columns);
                self.need_one(block, &["column"], &select.column, columns);
            }
            BlockKind::Repair(repair) => self.llm(block, &repair.llm, &["reason"], columns),
            BlockKind::Command(program) => columns.extend(program.outputs.iter().cloned()),
            BlockKind::Split(split) => {
                self.need_one(block, &["column"], &split.column, columns);
                columns.insert(split.output.clone());
                if let Some(expression) = &split.keep {
                    self.expression(block, "keep", expression, columns);
                }
            }
            BlockKind::Filter(filter) => self.filter(block, filter, columns),
            BlockKind::Columns(kind) => self.columns(block, kind, columns),
            BlockKind::Each { block: inner, .. } => self.kind(block, inner, columns),
        }
    }

    /// A judge that is calibrated sees no column that planted rows do not have.
    fn judge(&mut self, block: &'a Block, judge: &'a JudgeBlock, columns: &BTreeSet<String>) {
        self.prompt(block, &judge.prompt, &["swapped"], columns);
        if let Some(otherwise) = &judge.otherwise {
            self.expression(block, "otherwise", &otherwise.expression, columns);
        }
        let (Some(planted), Ok(names)) = (&judge.calibrate, judge.prompt.needs()) else { return };
        let names: BTreeSet<String> = names.into_iter().collect();
        for name in names.iter().filter(|name| *name != "swapped" && !planted.have(name)) {
            let prompt = &judge.prompt.name;
            let message =
                format!("the prompt {prompt} shows `{name}`, which the planted rows of a calibration do not have");
            let hint = format!(
                "name it in `calibrate` as question, answer or context, or leave `calibrate` out; planted rows also have {}",
                LEAF_COLUMNS.join(", ")
            );
            self.error(place(block, &["calibrate"]), message, hint);
        }
    }

    /// A repair writes again what a block directly before it refused.
    fn repairs(&mut self, block: &'a Block, of: &str) {
        let before = block.after.iter().flatten().any(|(name, _)| name == of);
        let kind = self.flow.number(of).map(|number| &self.flow.blocks[number].kind);
        let others = self.flow.blocks.iter().filter(|other| match &other.kind {
            BlockKind::Repair(repair) => repair.of == of,
            _ => false,
        });
        let others = others.count();
        let place = place(block, &["of"]);
        match kind {
            None => self.error(place, format!("no block is called `{of}`"), "name the block that refuses"),
            Some(kind) if !kind.can_be_repaired() => {
                let message = format!("`{of}` gives no reason that a model could mend");
                self.error(place, message, "name a `judge`, a `verify` or a `filter`");
            }
            Some(_) if !before => {
                let message = format!("the block `{}` repairs `{of}` and does not come after it", block.name);
                self.error(place, message, format!("add `{of}` to `after`"));
            }
            Some(_) if others > 1 => {
                self.error(place, format!("two blocks repair `{of}`"), "leave one of them out");
            }
            Some(_) => {}
        }
    }

    fn llm(&mut self, block: &'a Block, llm: &'a Llm, own: &[&str], columns: &mut BTreeSet<String>) {
        if llm.num_samples.is_some() {
            columns.insert("num_samples".to_owned());
        }
        match &llm.ask {
            Ask::Choice { by, .. } => self.need_one(block, &["by", "selector_column_name"], by, columns),
            Ask::Conversation { column } => self.need_one(block, &["conversation", "input_col"], column, columns),
            Ask::Prompt(_) => {}
        }
        for prompt in llm.ask.prompts() {
            self.prompt(block, prompt, own, columns);
        }
        columns.extend(llm.outputs.iter().cloned());
    }

    fn prompt(&mut self, block: &'a Block, prompt: &FlowPrompt, own: &[&str], columns: &BTreeSet<String>) {
        let place = place(block, &["prompt", "prompts", "config_path", "config_paths"]);
        match prompt.needs() {
            Err(reason) => {
                self.error(
                    place,
                    format!("the prompt {} is not a template: {reason}", prompt.name),
                    "correct that file",
                );
            }
            Ok(names) => {
                let names: BTreeSet<String> = names.into_iter().collect();
                for name in names.iter().filter(|name| !columns.contains(*name) && !own.contains(&name.as_str())) {
                    let message = format!("the prompt {} needs `{name}`, which no block before makes", prompt.name);
                    self.error(place, message, there(name, columns));
                }
            }
        }
    }

    fn filter(&mut self, block: &'a Block, filter: &'a Filter, columns: &BTreeSet<String>) {
        match filter {
            Filter::Value(filter) => self.need_one(block, &["filter_column"], &filter.column, columns),
            Filter::Expression(keep) => self.expression(block, "keep", &keep.expression, columns),
            Filter::Unique { columns: wanted, .. } => self.need(block, "columns", wanted, columns),
        }
    }

    fn columns(&mut self, block: &'a Block, kind: &'a Columns, columns: &mut BTreeSet<String>) {
        match kind {
            Columns::Copy(pairs) => {
                self.sources(block, pairs, columns);
                columns.extend(pairs.iter().map(|(_, to)| to.clone()));
            }
            Columns::Rename(pairs) => {
                self.sources(block, pairs, columns);
                columns.retain(|column| !pairs.iter().any(|(from, _)| from == column));
                for (_, to) in pairs {
                    if !columns.insert(to.clone()) {
                        let message = format!("`{to}` is there already, and another column is renamed to it");
                        self.error(place(block, &["columns", "columns_map"]), message, "choose another name");
                    }
                }
            }
            Columns::Drop(dropped) => {
                self.need(block, "columns", dropped, columns);
                columns.retain(|column| !dropped.contains(column));
            }
            Columns::Combine { columns: wanted, output, .. } => {
                self.need(block, "columns", wanted, columns);
                columns.insert(output.clone());
            }
            Columns::Flatten { columns: wanted, name, value } => {
                self.need(
                    block,
                    if block.keys.contains_key("var_cols") { "var_cols" } else { "columns" },
                    wanted,
                    columns,
                );
                columns.retain(|column| !wanted.contains(column));
                columns.extend([name.clone(), value.clone()]);
            }
            Columns::Select { by, choices, output } => {
                self.need_one(block, &["choice_col"], by, columns);
                self.need(block, "choice_map", &choices.values().cloned().collect::<Vec<_>>(), columns);
                columns.insert(output.clone());
            }
            Columns::Populate { by, entries } => {
                self.need_one(block, &["column_name"], by, columns);
                columns.extend(entries.values().flat_map(|entries| entries.keys().cloned()));
            }
            Columns::Majority { column } => self.need_one(block, &["col_name"], column, columns),
            Columns::Map(expressions) => {
                for (column, expression) in expressions {
                    self.expression(block, "columns", expression, columns);
                    columns.insert(column.clone());
                }
            }
        }
    }

    fn sources(&mut self, block: &'a Block, pairs: &[(String, String)], columns: &BTreeSet<String>) {
        for (from, _) in pairs {
            self.need_one(block, &["columns", "columns_map"], from, columns);
        }
    }

    fn expression(&mut self, block: &'a Block, key: &str, expression: &str, columns: &BTreeSet<String>) {
        let place = place(block, &[key]);
        match expressions::needs(expression) {
            Err(reason) => self.error(place, format!("`{expression}` is not an expression: {reason}"), "correct it"),
            Ok(names) => {
                let names: BTreeSet<String> = names.into_iter().collect();
                for name in names.iter().filter(|name| !columns.contains(*name)) {
                    let message = format!("`{expression}` needs `{name}`, which no block before makes");
                    self.error(place, message, there(name, columns));
                }
            }
        }
    }

    fn need(&mut self, block: &'a Block, key: &str, wanted: &[String], columns: &BTreeSet<String>) {
        for column in wanted {
            self.need_one(block, &[key], column, columns);
        }
    }

    fn need_one(&mut self, block: &'a Block, keys: &[&str], column: &str, columns: &BTreeSet<String>) {
        if !columns.contains(column) {
            let message =
                format!("the block `{}` needs the column `{column}`, which no block before makes", block.name);
            self.error(place(block, keys), message, there(column, columns));
        }
    }
}

/// Where the first of these keys stands that the block has.
fn place(block: &Block, keys: &[&str]) -> Place {
    keys.iter().find_map(|key| block.keys.get(*key)).copied().unwrap_or(block.place)
}

/// A name that was perhaps meant, or all that are there.
fn there(name: &str, columns: &BTreeSet<String>) -> String {
    match columns.iter().find(|column| distance(column, name) <= 2) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("there are {}", columns.iter().cloned().collect::<Vec<_>>().join(", ")),
    }
}
