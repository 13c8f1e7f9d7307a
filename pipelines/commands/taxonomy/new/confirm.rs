//! A person reads what a model proposed.

use super::propose::{Part, Proposal, text};
use crate::commands::Session;
use crate::content::write_atomically;
use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Command;

/// What came of the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Every question was looked at.
    Accepted,
    /// Nobody is there, or the person wants to go on later.
    Later,
}

/// Shows each question to a person at a terminal: `y` keeps it, `n` drops it, `e` opens the file in an editor, and the end of
/// the input leaves everything as it is.
pub(super) fn ask(proposed: &Path, session: Session<'_>) -> Result<Answer> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Ok(Answer::Later);
    }
    let mut input = std::io::stdin().lock();
    let answer = read(proposed, &mut input, &mut |line| session.reporter.line(line))?;
    if answer == Choice::Edit {
        edit(proposed)?;
        return Ok(Answer::Later);
    }
    Ok(if answer == Choice::Done { Answer::Accepted } else { Answer::Later })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Done,
    Edit,
    Later,
}

/// Goes through a proposal; what is dropped goes from the file when all was seen.
fn read(proposed: &Path, input: &mut dyn BufRead, show: &mut dyn FnMut(&str)) -> Result<Choice> {
    let content = fs::read_to_string(proposed).with_context(|| format!("cannot read {}", proposed.display()))?;
    let mut proposal: Proposal = serde_yaml::from_str(&content).context("the proposal cannot be read again")?;
    let mut kept = Vec::new();
    for part in proposal.seed_examples {
        show(&format!("\n{}\n", part.context));
        let mut pairs = Vec::new();
        for pair in part.questions_and_answers {
            show(&format!("  {}\n    -> {}", pair.question, pair.answer));
            loop {
                show("keep it? y(es), n(o), e(dit the file), or Ctrl-D for later");
                std::io::stdout().flush()?;
                let mut line = String::new();
                if input.read_line(&mut line)? == 0 {
                    return Ok(Choice::Later);
                }
                match line.trim().to_lowercase().as_str() {
                    "y" | "yes" => pairs.push(pair),
                    "n" | "no" => {}
                    "e" | "edit" => return Ok(Choice::Edit),
                    _ => continue,
                }
                break;
            }
        }
        if !pairs.is_empty() {
            kept.push(Part { context: part.context, questions_and_answers: pairs });
        }
    }
    proposal.seed_examples = kept;
    write_atomically(proposed, text(&proposal)?.as_bytes())?;
    Ok(Choice::Done)
}

/// Opens the file in the editor of the person.
fn edit(file: &Path) -> Result<()> {
    let editor =
        ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    Command::new(program)
        .args(words)
        .arg(file)
        .status()
        .with_context(|| format!("cannot start the editor {program}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROPOSAL: &str = "espalier: 1\ncreated_by: me\ndomain: ponds\ndocument:\n  path: document.md\nseed_examples:\n- context: A frog.\n  questions_and_answers:\n  - question: One?\n    answer: 1\n  - question: Two?\n    answer: '2'\n- context: A toad.\n  questions_and_answers:\n  - question: Three?\n    answer: '3'\n";

    fn choose(keys: &str) -> (Choice, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("qna.yaml.proposed");
        fs::write(&file, PROPOSAL.replace("answer: 1", "answer: '1'")).unwrap();
        let choice = read(&file, &mut keys.as_bytes(), &mut |_| {}).unwrap();
        (choice, fs::read_to_string(&file).unwrap())
    }

    #[test]
    fn what_a_person_drops_goes_and_the_rest_stays() {
        let (choice, text) = choose("y\nwhat\nn\nyes\n");
        assert_eq!(choice, Choice::Done);
        assert!(text.contains("One?") && !text.contains("Two?") && text.contains("Three?"), "{text}");
        assert!(!choose("y\ny\nn\n").1.contains("A toad."));
        assert_eq!(choose("y\ne\n").0, Choice::Edit);
        let (choice, text) = choose("n\n");
        assert_eq!(choice, Choice::Later);
        assert!(text.contains("One?"), "nothing is lost: {text}");
    }
}
