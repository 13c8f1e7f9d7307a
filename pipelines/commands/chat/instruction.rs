//! What a line of a chat asks for.

use super::settings::{SETTINGS, Setting};
use crate::outcome::Failure;
use crate::suggestion::closest;
use anyhow::Result;
use std::path::PathBuf;

/// What `/help` shows.
pub const HELP: &str = "\
/regenerate         another answer to the last question
/edit [QUESTION]    the last question in another form; alone: it comes back to be edited
/adapter [NAME]     another adapter answers: a loaded one, a folder or .gguf file, or none; alone: which there are
/system [TEXT]      what comes before the conversation; alone: nothing
/clear              forgets the conversation
/prompt             the text that the model reads, as it is sent
/save FILE          writes the conversation as {\"messages\": [...]}, a row that `pipeline train` reads
/load FILE          goes on with a saved one
/settings           what is in force; change it with /temperature X, /top_k N, /top_p X, /min_p X,
                    /repetition_penalty X, /max_tokens N, /seed N
/quit               ends, as does Ctrl-D
Ctrl-C ends an answer and keeps what is there. //x asks the text /x.
";

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub enum Instruction {
    /// A question.
    Ask(String),
    /// What can be said.
    Help,
    /// Forgets the turns.
    Clear,
    /// Another adapter; without a name, which there are.
    Adapter(Option<String>),
    /// Another system turn, or none.
    System(Option<String>),
    /// Another answer.
    Regenerate,
    /// The last question in another form.
    Edit(Option<String>),
    /// A changed setting.
    Set(Setting),
    /// The settings.
    Settings,
    /// The prompt.
    Prompt,
    /// Writes the conversation.
    Save(PathBuf),
    /// Reads a conversation.
    Load(PathBuf),
    /// The end.
    Quit,
}

const WORDS: [&str; 12] =
    ["help", "clear", "adapter", "system", "regenerate", "edit", "settings", "prompt", "save", "load", "quit", "exit"];

impl Instruction {
    /// Reads a line; `None` where nothing is in it.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(None);
        }
        let Some(command) = line.strip_prefix('/') else { return Ok(Some(Self::Ask(line.to_owned()))) };
        if command.starts_with('/') {
            return Ok(Some(Self::Ask(command.to_owned())));
        }
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = Some(rest.trim()).filter(|rest| !rest.is_empty());
        let text = rest.map(str::to_owned);
        let file = || -> Result<PathBuf> {
            let missing = || Failure::usage(format!("/{word} needs the name of a file"));
            Ok(PathBuf::from(rest.ok_or_else(missing)?))
        };
        Ok(Some(match word {
            "help" => Self::Help,
            "clear" => Self::Clear,
            "adapter" => Self::Adapter(text),
            "system" => Self::System(text),
            "regenerate" => Self::Regenerate,
            "edit" => Self::Edit(text),
            "settings" => Self::Settings,
            "prompt" => Self::Prompt,
            "save" => Self::Save(file()?),
            "load" => Self::Load(file()?),
            "quit" | "exit" => Self::Quit,
            word if SETTINGS.contains(&word) => {
                Self::Set(Setting { name: word.to_owned(), value: text.unwrap_or_default() })
            }
            _ => {
                let known: Vec<&str> = WORDS.iter().chain(&SETTINGS).copied().collect();
                let failure = Failure::usage(format!("there is no /{word}"));
                return Err(match closest(word, &known) {
                    Some(meant) => failure.hint(format!("did you mean /{meant}? /help lists all")),
                    None => failure.hint("/help lists what there is; //x asks the text /x"),
                }
                .into());
            }
        }))
    }
}
