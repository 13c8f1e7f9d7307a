//! `{"prompt", "completion"}`: two texts as they stand, without a template, or two lists of messages.

use serde_json::{Map, Value};

use super::example::Content;
use super::messages::{refuse_tools, turns};
use super::text_of;

pub(super) fn read(object: &Map<String, Value>) -> Result<Content, String> {
    let list = |key: &str| object.get(key).is_some_and(Value::is_array);
    match (list("prompt"), list("completion")) {
        (false, false) => Ok(Content::Completion {
            prompt: text_of(object, "prompt")?.to_owned(),
            completion: text_of(object, "completion")?.to_owned(),
        }),
        (true, true) => conversation(object),
        _ => Err("`prompt` and `completion` must be both texts, or both lists of messages".to_owned()),
    }
}

/// What the prompt's messages say is not learned.
fn conversation(object: &Map<String, Value>) -> Result<Content, String> {
    refuse_tools(object)?;
    let mut conversation = turns(object, "prompt")?;
    for turn in &mut conversation {
        turn.weight = Some(0.0);
    }
    conversation.extend(turns(object, "completion")?);
    Ok(Content::Conversation(conversation))
}
