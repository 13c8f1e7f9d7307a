//! The command line of `pipeline taxonomy`.

use super::trees::{DiffArgs, LintArgs, NewArgs, PreviewArgs};
use clap::Subcommand;
use std::path::PathBuf;

/// Skills trees.
#[derive(Debug, Subcommand)]
pub enum TaxonomyCommand {
    /// Check every leaf; messages have file, line and column.
    #[command(
        after_help = "Examples:\n  pipeline taxonomy validate taxonomy/\n  pipeline taxonomy validate --strict taxonomy/   # before it goes to InstructLab\n  pipeline taxonomy validate --fix --dry-run taxonomy/\n  pipeline taxonomy validate --licenses accepted,CC-BY-3.0 taxonomy/\n  pipeline taxonomy validate --github taxonomy/   # in a workflow of GitHub"
    )]
    Validate {
        /// Trees or leaves.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Be as strict as ilab, which also asks for a layout of its own.
        #[arg(long)]
        strict: bool,
        /// Mend what can be mended without a change of meaning, and show each change.
        #[arg(long)]
        fix: bool,
        /// Show what --fix would do, and do nothing.
        #[arg(long, requires = "fix")]
        dry_run: bool,
        /// Licences that works may have, as SPDX identifiers; any other, or none, is an error. `accepted` stands for those
        /// that the public taxonomy takes.
        #[arg(long, value_name = "LIST", value_delimiter = ',')]
        licenses: Vec<String>,
        /// Print messages as GitHub annotations.
        #[arg(long)]
        github: bool,
    },
    /// Turn leaves of versions 1, 2 and 3 into the form `espalier: 1`; comments stay.
    #[command(
        after_help = "Examples:\n  pipeline taxonomy upgrade --dry-run taxonomy/\n  pipeline taxonomy upgrade --out garden/ taxonomy/"
    )]
    #[command(group = clap::ArgGroup::new("where").required(true))]
    Upgrade {
        /// Tree or leaf.
        path: PathBuf,
        /// Write a copy of the tree to this folder.
        #[arg(long, group = "where", value_name = "DIR")]
        out: Option<PathBuf>,
        /// Change the files where they are.
        #[arg(long, group = "where")]
        in_place: bool,
        /// Tell which leaves can be upgraded, and write nothing.
        #[arg(long, group = "where")]
        dry_run: bool,
    },
    /// The tree with its seeds, documents and tests.
    #[command(after_help = "Example:\n  pipeline taxonomy show taxonomy/")]
    Show {
        /// Tree or leaf.
        path: PathBuf,
    },
    /// The JSON schema of our form, for editors that check and complete YAML as it is typed.
    #[command(
        after_help = "Example:\n  pipeline taxonomy schema > espalier-1.schema.json\n\nThen, as the first line of a qna.yaml: # yaml-language-server: $schema=espalier-1.schema.json"
    )]
    Schema,
    /// What is made of a leaf: its documents as they are read, their chunks, and what its template draws.
    #[command(
        after_help = "Examples:\n  pipeline taxonomy preview taxonomy/skills/dates_to_iso --samples 3\n  pipeline taxonomy preview taxonomy/knowledge/espalier_pruning --model base.gguf --chunk-tokens 200\n  pipeline taxonomy preview manual.pdf --text   # a document that no leaf holds yet"
    )]
    Preview(PreviewArgs),
    /// What changed: leaves new, changed, moved and gone, and what changed in them.
    #[command(
        after_help = "Examples:\n  pipeline taxonomy diff ../older/taxonomy taxonomy/\n  pipeline taxonomy diff --git main taxonomy/\n  pipeline taxonomy diff --save last.json taxonomy/ && pipeline taxonomy diff last.json taxonomy/"
    )]
    Diff(DiffArgs),
    /// What the form allows and its author hardly meant: seeds twice, answers without support, leaks, thin leaves.
    #[command(
        after_help = "Examples:\n  pipeline taxonomy lint taxonomy/\n  pipeline taxonomy lint --deny --github taxonomy/   # in a workflow of GitHub\n  pipeline taxonomy lint --against mmlu.jsonl taxonomy/"
    )]
    Lint(LintArgs),
    /// A scaffold of a leaf, or one that a model proposes from documents and a person confirms.
    #[command(
        after_help = "Examples:\n  pipeline taxonomy new taxonomy/skills/haiku\n  pipeline taxonomy new taxonomy/knowledge/manual --from manual.pdf --model base.gguf\n  pipeline taxonomy new taxonomy/knowledge/manual --accept"
    )]
    New(NewArgs),
}
