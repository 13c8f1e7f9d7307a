//! Where the lines of a chat come from: an editor with a history on a terminal, plain lines elsewhere.

use crate::models::ModelCache;
use anyhow::{Context, Result};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use std::io::{IsTerminal, StdinLock};
use std::path::PathBuf;

/// Lines that are kept from chat to chat.
const KEPT: usize = 1000;

/// The lines of a chat.
pub enum Lines {
    /// A person types; what was typed in earlier chats can be called back.
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    /// A file or another program.
    Pipe(std::io::Lines<StdinLock<'static>>),
    /// No line at all.
    None,
}

impl Lines {
    /// Standard input.
    pub fn open() -> Self {
        let plain = || Self::Pipe(std::io::stdin().lines());
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return plain();
        }
        let config = Config::builder().max_history_size(KEPT).map(|config| config.auto_add_history(false).build());
        let Some(mut editor) = config.ok().and_then(|config| DefaultEditor::with_config(config).ok()) else {
            return plain();
        };
        let history = ModelCache::open().ok().map(|cache| cache.root().join("chat-history"));
        if let Some(history) = &history {
            // There is none before the first chat.
            let _ = editor.load_history(history);
        }
        Self::Terminal { editor: Box::new(editor), history }
    }

    /// No lines.
    pub fn none() -> Self {
        Self::None
    }

    /// Whether a person types.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next line; a person finds `initial` typed already. `None` at the end.
    pub fn next(&mut self, initial: &str) -> Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Pipe(lines) => lines.next().transpose().context("standard input is not UTF-8 text"),
            Self::Terminal { editor, history } => loop {
                match editor.readline_with_initial("> ", (initial, "")) {
                    Ok(line) => {
                        if !line.trim().is_empty() {
                            let _ = editor.add_history_entry(line.as_str());
                            // A history that cannot be written costs the next chat its memory, not this one.
                            if let Some(path) = history {
                                let _ = path.parent().map(std::fs::create_dir_all);
                                let _ = editor.save_history(path);
                            }
                        }
                        return Ok(Some(line));
                    }
                    // Ctrl-C takes back what was typed.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error).context("cannot read from the terminal"),
                }
            },
        }
    }
}
