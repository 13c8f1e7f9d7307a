//! From a question and its answer to the turns of a row.

use espalier_dataset::Turn;
use espalier_taxonomy::{Leaf, read_script};

/// The turns that a question and its answer are: two, or those of a conversation where seeds of the leaf are conversations and
/// the question is written as their scripts are.
///
/// # Errors
/// Why a question that begins as a script is none.
pub(crate) fn turns(leaf: &Leaf, question: &str, answer: &str) -> Result<Vec<Turn>, &'static str> {
    let (history, question) =
        if leaf.has_conversations() { read_script(question)? } else { (Vec::new(), question.to_owned()) };
    let mut turns = Vec::with_capacity(2 * history.len() + 2);
    for exchange in history {
        turns.push(Turn::new("user", exchange.user));
        turns.push(Turn::new("assistant", exchange.assistant));
    }
    turns.push(Turn::new("user", question));
    turns.push(Turn::new("assistant", answer));
    Ok(turns)
}

/// What somebody says in turns, in order.
pub(crate) fn said_by<'a>(turns: &'a [Turn], role: &str) -> impl DoubleEndedIterator<Item = &'a str> {
    turns.iter().filter(move |turn| turn.role == role).map(|turn| turn.content.as_str())
}
