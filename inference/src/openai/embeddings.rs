//! The body of a request for embeddings, and its response.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::completions::read_prompts;
use super::fields::{FieldProblem, integer, wrong};
use crate::request::Prompt;

/// What a body asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedVectors {
    /// The texts.
    pub inputs: Vec<Prompt>,
    /// The model that is to answer, if the body names one.
    pub model: Option<String>,
    /// How many elements a vector is to have.
    pub dimensions: Option<usize>,
    /// Whether vectors are sent as the bytes of their numbers, in base64 (little-endian f32), in place of lists.
    pub base64: bool,
}

/// Reads the body of a request for embeddings.
///
/// # Errors
/// The first field that cannot be followed.
pub fn read_embeddings(body: &Map<String, Value>) -> Result<AskedVectors, FieldProblem> {
    let mut asked = AskedVectors { inputs: Vec::new(), model: None, dimensions: None, base64: false };
    for (field, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        set(&mut asked, field, value).map_err(|problem| FieldProblem { field: field.clone(), problem })?;
    }
    if asked.inputs.is_empty() {
        return Err(FieldProblem { field: "input".to_owned(), problem: ": is missing".to_owned() });
    }
    Ok(asked)
}

fn set(asked: &mut AskedVectors, field: &str, value: &Value) -> Result<(), String> {
    match field {
        "input" => asked.inputs = read_prompts(value)?,
        "model" => asked.model = Some(value.as_str().ok_or_else(|| wrong("a string", value))?.to_owned()),
        "dimensions" => asked.dimensions = Some(integer(value, 1..=usize::MAX)?),
        "encoding_format" => {
            asked.base64 = match value.as_str() {
                Some("float") => false,
                Some("base64") => true,
                _ => return Err(wrong("\"float\" or \"base64\"", value)),
            }
        }
        "user" => {}
        _ => return Err(": there is no such field".to_owned()),
    }
    Ok(())
}

/// The response with the vectors of all texts, in their order, which have so many tokens together.
pub(crate) fn vectors(model: &str, vectors: &[Vec<f32>], base64: bool, tokens: usize) -> Value {
    let embedding = |vector: &Vec<f32>| {
        if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|element| element.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        } else {
            json!(vector)
        }
    };
    let entry = |(index, vector)| json!({"object": "embedding", "index": index, "embedding": embedding(vector)});
    let data: Vec<Value> = vectors.iter().enumerate().map(entry).collect();
    json!({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_json(value: &Value) -> Result<AskedVectors, String> {
        read_embeddings(value.as_object().expect("a map")).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_body_is_read() {
        let body =
            json!({"input": ["a", "b"], "model": "m", "encoding_format": "base64", "dimensions": 3, "user": "u"});
        let inputs = vec![Prompt::Text("a".to_owned()), Prompt::Text("b".to_owned())];
        let expected = AskedVectors { inputs, model: Some("m".to_owned()), dimensions: Some(3), base64: true };
        assert_eq!(read_json(&body), Ok(expected));
        let refused = |value: Value| read_json(&value).expect_err("a refusal");
        let words = [
            refused(json!({})),
            refused(json!({"input": []})),
            refused(json!({"input": "a", "encoding_format": "int8"})),
            refused(json!({"input": "a", "dimensions": 0})),
            refused(json!({"input": "a", "prompt": "a"})),
        ];
        insta::assert_snapshot!(words.join("\n"));
    }

    #[test]
    fn bytes_are_those_of_the_numbers() {
        let found = vectors("m", &[vec![1.0, -0.5]], true, 2);
        assert_eq!(found["data"][0]["embedding"], "AACAPwAAAL8=");
        assert_eq!(vectors("m", &[vec![1.0, -0.5]], false, 2)["data"][0]["embedding"], json!([1.0, -0.5]));
    }
}
