//! The protocol of `OpenAI` from the side that answers: bodies of requests in, responses out.
//!
//! The server ([`crate::serve`]) and files of requests read the same fields with the same words of refusal. What speaks to
//! another server is [`crate::ServerPool`].

mod chat;
mod completions;
mod embeddings;
mod fields;
mod response;

pub use chat::read_chat;
pub use completions::{AskedTexts, read_completion};
pub use embeddings::{AskedVectors, read_embeddings};
pub use fields::{Asked, Defaults, FieldProblem, parse_body};
pub use response::{Form, error_code};

pub(crate) use embeddings::vectors;
pub(crate) use response::{Echo, TokenColumns, reason, usage};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overflow::Overflow;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Names of fields that there are, and some that there are not.
    const NAMES: [&str; 30] = [
        "messages",
        "prompt",
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "seed",
        "stop",
        "stop_token_ids",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "response_format",
        "structured_outputs",
        "stream",
        "stream_options",
        "echo",
        "suffix",
        "best_of",
        "user",
        "tools",
        "role",
        "content",
        "type",
        "json_schema",
        "5",
    ];

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (0_u32..200).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            prop::sample::select(vec!["user", "system", "text", "json_schema", "json_object", "object", "("])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(NAMES.to_vec()), inner), 0..6)
                    .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            ]
        })
    }

    proptest! {
        /// Whatever a body holds, it is read or refused in words that begin with one of its fields, and what was read can be
        /// checked.
        #[test]
        fn any_body_is_read_or_refused(fields in prop::collection::vec((prop::sample::select(NAMES.to_vec()), json()), 0..8)) {
            let object: serde_json::Map<String, Value> =
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let bytes = Value::Object(object.clone()).to_string();
            prop_assert_eq!(parse_body(bytes.as_bytes()), Ok(object.clone()));
            let defaults = Defaults { seed: 1, overflow: Overflow::Refuse, max_tokens: 5 };
            let asked = [
                read_chat(&object, &defaults),
                read_completion(&object, &defaults).map(|read| read.asked),
            ];
            for asked in asked {
                match asked {
                    Ok(asked) => {
                        prop_assert!((1..=128).contains(&asked.n) && asked.request.top_logprobs <= 20);
                        if let Some(constraint) = &asked.request.constraint {
                            let _ = constraint.validate();
                        }
                    }
                    Err(problem) => {
                        let known = object.contains_key(&problem.field) || ["messages", "prompt"].contains(&problem.field.as_str());
                        prop_assert!(known && problem.to_string().starts_with(&problem.field));
                    }
                }
            }
        }

        /// Bytes that no client should send.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_body(&bytes);
        }
    }
}
