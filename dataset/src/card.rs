//! The data card: what a data set holds and where it comes from, for those who are to use it.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::DatasetError;
use crate::funnel::Funnel;
use crate::row::{Row, Verdict};
use crate::statistics::Statistics;
use crate::versions::RowSource;

/// What a card collects from rows; it grows with leaves, documents and engines, not with rows.
#[derive(Debug, Default)]
struct Collected {
    all: Statistics,
    funnel: Funnel,
    leaves: BTreeMap<String, LeafCard>,
    models: BTreeMap<String, u64>,
    flows: BTreeMap<String, u64>,
    judges: BTreeSet<String>,
    verifiers: BTreeSet<String>,
    licenses: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct LeafCard {
    kind: String,
    accepted: u64,
    licenses: BTreeSet<String>,
    documents: BTreeSet<String>,
}

/// Writes the card of rows in Markdown.
///
/// # Errors
/// When rows cannot be read.
pub fn data_card(name: &str, rows: &RowSource) -> Result<String, DatasetError> {
    let mut collected = Collected::default();
    for row in rows.rows() {
        collected.add(&row?);
    }
    let mut card = collected.write(name);
    if let Some(version) = rows.version() {
        card.push_str(&format!(
            "\n## Version\n\nVersion {} of the data set, {} parts.",
            version.version,
            version.parts.len()
        ));
        if let Some(tree) = &version.origin.taxonomy {
            card.push_str(&format!(" The tree of leaves has the hash `{tree}`."));
        }
        card.push('\n');
    }
    Ok(card)
}

impl Collected {
    fn add(&mut self, row: &Row) {
        self.all.add(row);
        self.funnel.add(row);
        count(&mut self.models, &row.model);
        let flow = match row.flow_version.as_str() {
            "" => row.flow.clone(),
            version => format!("{} ({})", row.flow, version.chars().take(12).collect::<String>()),
        };
        count(&mut self.flows, &flow);
        self.judges.extend(row.scores.iter().map(|score| score.block.clone()));
        if let Some(verifier) = &row.verifier {
            self.verifiers.insert(verifier.split_once(": ").map_or(verifier.as_str(), |(name, _)| name).to_owned());
        }
        let leaf = self.leaves.entry(row.leaf.clone()).or_default();
        leaf.kind.clone_from(&row.kind);
        if row.verdict == Verdict::Accepted {
            leaf.accepted += 1;
            leaf.documents.extend(row.document.clone());
            let stated = licenses(row);
            if stated.is_empty() {
                count(&mut self.licenses, "not stated");
            }
            for license in stated {
                count(&mut self.licenses, &license);
                leaf.licenses.insert(license);
            }
        }
    }

    fn write(self, name: &str) -> String {
        let mut card = format!("# Data card: {name}\n\n");
        let Statistics { rows, accepted, held_out, .. } = self.all;
        card.push_str(&format!(
            "{accepted} rows of {} leaves, of which {} are for training and {held_out} are held out for evaluation. They are \
             synthetic: {rows} rows were made and {} rejected.\n",
            self.leaves.len(),
            accepted - held_out,
            rows - accepted
        ));
        card.push_str("\n## Leaves\n\n| leaf | kind | rows | licences | documents |\n|---|---|---|---|---|\n");
        for (leaf, LeafCard { kind, accepted, licenses, documents }) in &self.leaves {
            let (licenses, documents) = (joined(licenses), joined(documents));
            card.push_str(&format!("| {} | {kind} | {accepted} | {licenses} | {documents} |\n", cell(leaf)));
        }
        card.push_str("\n## Licences\n\n");
        for (license, rows) in &self.licenses {
            card.push_str(&format!("- {}: {rows} rows\n", cell(license)));
        }
        if self.licenses.contains_key("not stated") {
            card.push_str("\nWhere no licence is stated, find out before the data is passed on.\n");
        }
        card.push_str("\n## How it was made\n\n");
        for (what, counts) in [("Teacher", &self.models), ("Flow", &self.flows)] {
            for (name, rows) in counts {
                card.push_str(&format!("- {what}: `{}`, {rows} rows\n", name.replace('`', "'")));
            }
        }
        for (what, names) in [("Scored by", &self.judges), ("Checked by", &self.verifiers)] {
            if !names.is_empty() {
                card.push_str(&format!("- {what}: {}\n", joined(names)));
            }
        }
        card.push_str("\n## What was left out\n\n| leaf | made | kept | rejected because |\n|---|---|---|---|\n");
        for line in self.funnel.lines() {
            let reasons: Vec<String> =
                line.rejected_by.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            card.push_str(&format!(
                "| {} | {} | {} | {} |\n",
                cell(&line.leaf),
                line.generated,
                line.accepted,
                cell(&reasons.join(", "))
            ));
        }
        card.push_str("\n## Lengths\n\n| what | least | 10 % | half | 90 % | most |\n|---|---|---|---|---|---|\n");
        for (what, lengths) in self.all.lengths() {
            if let Some(of) = lengths.summary() {
                card.push_str(&format!(
                    "| {what} | {} | {} | {} | {} | {} |\n",
                    of.least, of.tenth, of.median, of.nine_tenths, of.most
                ));
            }
        }
        card
    }
}

/// Licences of a row: SPDX identifiers where they are known, else what the attribution says.
fn licenses(row: &Row) -> Vec<String> {
    if row.licenses.is_empty() { row.license.iter().cloned().collect() } else { row.licenses.clone() }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    if name.is_empty() {
        return;
    }
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

/// A text that does not break a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn joined(names: &BTreeSet<String>) -> String {
    cell(&names.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
}
