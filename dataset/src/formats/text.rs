//! `{"text"}`: continued pre-training, or conversations that another tool has rendered.

use serde_json::{Map, Value};

use super::example::Content;
use super::text_of;

pub(super) fn read(object: &Map<String, Value>) -> Result<Content, String> {
    let text = text_of(object, "text")?;
    if text.trim().is_empty() {
        return Err("`text` is empty; remove the row".to_owned());
    }
    Ok(Content::Text(text.to_owned()))
}
