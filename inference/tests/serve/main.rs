//! The server over its protocol: what it answers, what it refuses, and what clients that misbehave do to it.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod bad_clients;
mod client;
#[path = "../common/mod.rs"]
mod common;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use client::*;
use espalier_inference::serve::{Limits, ServeOptions, Server};
use espalier_inference::{
    Answer, Constraint, EmbeddingOptions, EncoderEngine, EngineError, NativeEngine, Prompt, Request, Sampling,
    ServerOptions, ServerPool,
};
use espalier_kernels::Precision;
use espalier_model::EncoderModel;
use serde_json::{Value, json};

#[test]
fn answers_are_those_of_the_engine() {
    let running = start(options());
    let address = running.server.address();
    let said = post(address, CHAT, &json!({"messages": question(), "max_tokens": 12, "temperature": 0}));
    assert_eq!(said.status, 200, "{}", said.body);
    let answer = said.json();
    let expected = engine_texts(&running.engine, &[as_request(12)]);
    assert_eq!(answer["choices"][0]["message"]["content"], expected[0]);
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("stories")));
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    assert!(answer["created"].as_u64().unwrap() > 1_600_000_000);

    let body = json!({"model": "stories260K.bin", "messages": question(), "max_completion_tokens": 9, "n": 3, "seed": 7,
        "logprobs": true, "top_logprobs": 2});
    let answer = post(address, CHAT, &body).json();
    let mut request = Request { seed: 7, ..as_request(9) };
    request.sampling.temperature = 1.0;
    let expected = engine_texts(&running.engine, &request.alternatives(3).collect::<Vec<_>>());
    for (index, expected) in expected.iter().enumerate() {
        let choice = &answer["choices"][index];
        assert_eq!(choice["message"]["content"], *expected);
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        assert!(tokens.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
    }

    let prompts = ["Once upon a time", "One day", "Once upon a time"];
    let answer = post(address, TEXTS, &json!({"prompt": prompts, "max_tokens": 8, "temperature": 0})).json();
    let requests = prompts.map(|prompt| common::text(prompt, 8));
    for (index, expected) in engine_texts(&running.engine, &requests).iter().enumerate() {
        assert_eq!(
            (&answer["choices"][index]["text"], answer["choices"][index]["index"].as_u64()),
            (&json!(expected), Some(index as u64))
        );
    }
    assert_eq!(answer["object"], "text_completion");

    let schema = json!({"enum": ["red", "blue"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}});
    let answer = post(address, CHAT, &json!({"messages": question(), "response_format": format})).json();
    let colour = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(["\"red\"", "\"blue\""].contains(&colour), "{colour}");
    assert!(running.server.stop(Duration::from_secs(5)));
}

#[test]
fn an_adapter_is_a_model_of_its_own() {
    let running = start(ServeOptions { adapters: vec!["poet".to_owned(), "judge".to_owned()], ..options() });
    let address = running.server.address();
    let names: Vec<Value> =
        get(address, "/v1/models").json()["data"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect();
    assert_eq!(names, ["stories", "poet", "judge"]);
    assert_eq!(get(address, "/v1/models/poet").json()["parent"], "stories");
    let models = [None, Some("stories"), Some("poet"), Some("judge")];
    let adapters = [None, None, Some("poet"), Some("judge")];
    let requests =
        adapters.map(|adapter| Request { adapter: adapter.map(str::to_owned), ..common::text("One day", 16) });
    let expected = engine_texts(&running.engine, &requests);
    assert!(expected[0] != expected[2] && expected[2] != expected[3], "{expected:?}");
    std::thread::scope(|scope| {
        for (model, expected) in models.iter().zip(&expected) {
            scope.spawn(move || {
                let body = json!({"model": model, "prompt": "One day", "max_tokens": 16, "temperature": 0});
                let answer = post(address, TEXTS, &body).json();
                assert_eq!(answer["choices"][0]["text"], **expected);
                assert_eq!(answer["model"], model.unwrap_or("stories"));
            });
        }
    });
    let unknown = post(address, TEXTS, &json!({"model": "cook", "prompt": "One day"})).error();
    let words = "model \"cook\" is not served here; there is \"stories\", \"poet\", \"judge\"";
    assert_eq!(unknown, format!("404 \"model_not_found\" \"model\": {words}"));
}

#[test]
fn a_stream_has_the_same_text_and_ends_with_its_usage() {
    let running = start(options());
    let address = running.server.address();
    let body = json!({"messages": question(), "max_tokens": 20, "seed": 3, "n": 2, "stop": ["."]});
    let whole = post(address, CHAT, &body).json();
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    streamed["logprobs"] = true.into();
    let said = post(address, CHAT, &streamed);
    assert!(said.head.contains("text/event-stream"), "{}", said.head);
    let events = events(&said);
    for index in 0..2 {
        let mine: Vec<&Value> = events
            .iter()
            .filter_map(|event| event["choices"].get(0))
            .filter(|choice| choice["index"] == index)
            .collect();
        assert_eq!(mine[0]["delta"]["role"], "assistant");
        let text: String = mine.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(whole["choices"][index]["message"]["content"], text);
        assert_eq!(mine.last().unwrap()["finish_reason"], whole["choices"][index]["finish_reason"]);
        assert!(mine.iter().any(|choice| choice["logprobs"]["content"][0]["logprob"].is_number()));
    }
    let last = events.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    assert!(events[0]["usage"].is_null());

    let body = json!({"prompt": "Once", "max_tokens": 9, "temperature": 0, "echo": true});
    let whole = post(address, TEXTS, &body).json();
    let mut streamed = body;
    streamed["stream"] = true.into();
    let text: String = self::events(&post(address, TEXTS, &streamed))
        .iter()
        .map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(whole["choices"][0]["text"], text);
    assert!(text.starts_with("Once"));

    // A client of the older protocol reads to the end of the connection.
    let body = json!({"prompt": "Once", "max_tokens": 9, "temperature": 0, "stream": true}).to_string();
    let said =
        send(address, format!("POST {TEXTS} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    assert!(said.status == 200 && !said.head.contains("chunked") && said.body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_prompt_is_scored_as_the_engine_scores_it() {
    let running = start(options());
    let address = running.server.address();
    let tokens =
        running.engine.prompt_tokens(&Prompt::Text("Once upon a time, there was a little girl".to_owned())).unwrap();
    let expected = running.engine.token_logprobs(&tokens);
    for prompt in [json!([tokens, tokens]), json!(["Once upon a time, there was a little girl"])] {
        let body =
            json!({"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true, "seed": 1234});
        let answer = post(address, TEXTS, &body).json();
        for choice in answer["choices"].as_array().unwrap() {
            let columns = &choice["logprobs"];
            let column = |name: &str| columns[name].as_array().unwrap().clone();
            let logprobs = column("token_logprobs");
            assert_eq!(logprobs.len(), tokens.len() + 1, "the prompt and one token");
            assert!(logprobs[0].is_null());
            for (found, expected) in logprobs[1..].iter().zip(&expected) {
                assert!((found.as_f64().unwrap() - f64::from(*expected)).abs() < 1e-5, "{found} {expected}");
            }
            let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
            for ((name, offset), top) in
                column("tokens").iter().zip(column("text_offset")).zip(column("top_logprobs")).skip(2)
            {
                let name: Vec<char> = name.as_str().unwrap().chars().collect();
                let offset = offset.as_u64().unwrap() as usize;
                assert_eq!(text[offset..offset + name.len()], name);
                assert!(top.as_object().unwrap().contains_key(&name.iter().collect::<String>()));
            }
        }
    }
    // Harnesses drop one entry at the end: also an answer that ends at once has it.
    let eos = running.engine.tokenizer().eos().unwrap();
    let body =
        json!({"prompt": [tokens], "max_tokens": 1, "logprobs": 1, "echo": true, "logit_bias": {eos.to_string(): 100}});
    let choice = post(address, TEXTS, &body).json()["choices"][0].clone();
    assert_eq!(
        (choice["finish_reason"].as_str(), choice["logprobs"]["tokens"].as_array().unwrap().len()),
        (Some("stop"), tokens.len() + 1)
    );
    assert_eq!(choice["logprobs"]["token_logprobs"].as_array().unwrap().len(), tokens.len() + 1);

    let body = json!({"prompt": "Once upon a time", "max_tokens": 0, "logprobs": 0, "echo": true});
    let answer = post(address, TEXTS, &body).json();
    assert_eq!(answer["choices"][0]["text"], "Once upon a time");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

/// The vectors of an answer.
fn embedded(said: &Value) -> Vec<Value> {
    said["data"].as_array().unwrap().iter().map(|entry| entry["embedding"].clone()).collect()
}

#[test]
fn vectors_are_those_of_the_engine_and_of_its_adapters() {
    let running = start(ServeOptions { adapters: vec!["poet".to_owned()], ..options() });
    let address = running.server.address();
    let texts = ["Once upon a time", "The dog", "Once upon a time"];
    let tokens: Vec<Vec<u32>> =
        texts.iter().map(|text| running.engine.prompt_tokens(&Prompt::Text((*text).to_owned())).unwrap()).collect();
    let vectors = |engine: &NativeEngine| {
        let mut vectors = vec![Value::Null; texts.len()];
        let take = &mut |index: usize, vector: Result<Vec<f32>, _>| {
            vectors[index] = json!(vector.unwrap());
            ControlFlow::Continue(())
        };
        engine.embed(&tokens, EmbeddingOptions::default(), take).unwrap();
        vectors
    };
    let base = vectors(&running.engine);
    let said = post(address, EMBEDDINGS, &json!({"input": texts, "model": "stories"})).json();
    assert_eq!((&said["object"], &said["model"]), (&json!("list"), &json!("stories")));
    assert_eq!(said["usage"]["prompt_tokens"].as_u64().unwrap() as usize, tokens.iter().map(Vec::len).sum::<usize>());
    assert_eq!(embedded(&said), base);
    let model = common::stories();
    let poet = common::adapter(&model, 4, 1);
    let alone = NativeEngine::load(&model, Some(&poet), &common::options(Precision::F32)).unwrap();
    let said = post(address, EMBEDDINGS, &json!({"input": texts, "model": "poet"})).json();
    assert_eq!((embedded(&said), &said["model"]), (vectors(&alone), &json!("poet")));
    assert_ne!(embedded(&said), base);
    let packed = post(address, EMBEDDINGS, &json!({"input": tokens[0], "encoding_format": "base64"})).json();
    let width = base[0].as_array().unwrap().len();
    assert_eq!(packed["data"][0]["embedding"].as_str().unwrap().len(), (width * 4).div_ceil(3) * 4);
    let words = [
        post(address, EMBEDDINGS, &json!({"input": "a", "dimensions": 5})).error(),
        post(address, EMBEDDINGS, &json!({"input": "Once upon a time ".repeat(600)})).error(),
        post(address, EMBEDDINGS, &json!({"input": [[99999]]})).error(),
    ];
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn an_encoder_makes_vectors_and_writes_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets/encoders/bert");
    let encoder = EncoderModel::open(folder.as_ref()).unwrap();
    let encoder = Arc::new(EncoderEngine::load(&encoder, &common::options(Precision::F32)).unwrap());
    let model = ServeOptions { model: "bert".to_owned(), ..options() };
    let server = Server::start(Arc::clone(&encoder), model, Box::new(|_| ())).unwrap();
    let address = server.address();
    let texts = ["The frog lived in a pond.", "Where did it live?"];
    let tokens: Vec<Vec<u32>> = texts.iter().map(|text| encoder.encode(text).0).collect();
    let mut expected = vec![Value::Null; texts.len()];
    let take = &mut |index: usize, vector: Result<Vec<f32>, _>| {
        expected[index] = json!(vector.unwrap());
        ControlFlow::Continue(())
    };
    encoder.embed(&tokens, EmbeddingOptions::default(), take).unwrap();
    for input in [json!(texts), json!(tokens)] {
        let said = post(address, EMBEDDINGS, &json!({"input": input, "model": "bert"})).json();
        assert_eq!(embedded(&said), expected);
        assert_eq!(said["usage"]["total_tokens"], tokens.concat().len());
    }
    assert_eq!(get(address, "/v1/models/bert").json()["context_length"], encoder.config().tokens);
    assert_eq!(get(address, "/props").json()["total_slots"], 1);
    assert_eq!(get(address, "/health").json(), json!({"status": "ok"}));
    assert!(get(address, "/metrics").body.contains("espalier_requests_writing 0"));
    let words = [
        post(address, CHAT, &json!({"messages": question()})).error(),
        post(address, TEXTS, &json!({"prompt": "Once", "stream": true})).error(),
        post(address, EMBEDDINGS, &json!({"input": "frog ".repeat(100)})).error(),
        post(address, EMBEDDINGS, &json!({"input": [[99999]]})).error(),
        post(address, EMBEDDINGS, &json!({"input": "a", "dimensions": 5})).error(),
        post(address, EMBEDDINGS, &json!({"input": "a", "model": "poet"})).error(),
    ];
    insta::assert_snapshot!(words.join("\n"));
    assert!(server.stop(Duration::from_secs(5)));
}

#[test]
fn refusals_say_what_is_wrong() {
    let limits = Limits { body_bytes: 20_000, ..Limits::default() };
    let running = start(ServeOptions { limits, max_waiting: 8, ..options() });
    let address = running.server.address();
    let chat = |extra: Value| {
        let mut body = json!({"messages": question(), "max_tokens": 4});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        post(address, CHAT, &body).error()
    };
    let long = "Once upon a time ".repeat(600);
    let words = [
        post_bytes(address, CHAT, b"{\"messages\": [").error(),
        post_bytes(address, CHAT, b"[]").error(),
        post_bytes(address, CHAT, b"").error(),
        post_bytes(address, CHAT, b"{\"messages\": \"\xff\xfe\"}").error(),
        post_bytes(address, CHAT, &b"[".repeat(10_000)).error(),
        post(address, CHAT, &json!({})).error(),
        chat(json!({"tempurature": 1})),
        chat(json!({"tools": []})),
        chat(json!({"model": "gpt-9"})),
        chat(json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "thing"}}}})),
        chat(json!({"messages": [{"role": "user", "content": long}]})),
        chat(json!({"logit_bias": {"99999": 5}})),
        post(address, TEXTS, &json!({"prompt": vec!["a"; 9]})).error(),
        post(address, TEXTS, &json!({"prompt": [[99999]], "max_tokens": 1})).error(),
        post(address, TEXTS, &json!({"prompt": "a", "echo": true, "logprobs": 1, "stream": true})).error(),
        post_bytes(address, CHAT, &vec![b'a'; 20_001]).error(),
        get(address, CHAT).error(),
        post(address, "/v1/models", &json!({})).error(),
        get(address, "/v1/nothing").error(),
        get(address, "/v1/models/nothing").error(),
        send(address, b"NONSENSE\r\n\r\n").error(),
        send(address, b"GET / HTTP/1.1\r\nOrigin: https://example.org\r\nConnection: close\r\n\r\n").error(),
    ];
    insta::assert_snapshot!(words.join("\n"));
    assert_eq!(get(address, "/health").json(), json!({"status": "ok"}));
    assert_eq!(get(address, "/v1/models").json()["data"][0]["id"], "stories");
    assert_eq!(get(address, "/v1/models/stories").json()["context_length"], running.engine.context());
    let log = running.log.lock().unwrap();
    assert!(log.iter().any(|line| (line.status, line.path.as_str()) == (404, "/v1/nothing")));
}

#[test]
fn a_pool_over_it_takes_its_slots_and_asks_in_its_words() {
    let running = start(options());
    let address = running.server.address();
    let props = get(address, "/props").json();
    assert_eq!((&props["total_slots"], &props["model_alias"]), (&json!(16), &json!("stories")));
    assert_eq!(props["default_generation_settings"]["n_ctx"], running.engine.context());
    assert_eq!(props["chat_template"], running.engine.chat_template().source());
    let few = start(ServeOptions { max_waiting: 3, ..options() });
    assert_eq!(get(few.server.address(), "/props").json()["total_slots"], 3);

    let pool = ServerPool::open(&format!("http://{address}"), &|_| None, ServerOptions::default()).unwrap();
    assert_eq!(pool.identity(), "espalier:stories");
    let sampling = Sampling { temperature: 0.8, top_k: 40, min_p: 0.05, repetition_penalty: 1.3, ..Sampling::GREEDY };
    let with = |constraint| Request { constraint: Some(Arc::new(constraint)), ..as_request(30) };
    let requests = [
        Request { sampling, seed: 7, stop_tokens: vec![400], ..as_request(20) },
        with(Constraint::Regex("[a-z]{3,9} and [a-z]{3,9}".to_owned())),
        with(Constraint::Choice(vec!["red".to_owned(), "blue".to_owned()])),
        Request { prompt_logprobs: Some(1), ..common::text("Once upon a time, there was", 1) },
    ];
    let expected = common::answers(&running.engine, &requests);
    let (mut found, mut news) = (vec![None; requests.len()], Vec::new());
    let take = &mut |index: usize, answer: Result<Answer, EngineError>| {
        found[index] = Some(answer.unwrap());
        ControlFlow::Continue(())
    };
    pool.generate(&requests, take, &mut |event| news.push(event.to_string())).unwrap();
    assert_eq!(news[0], format!("http://{address}: pipeline serve with stories; 16 at once: it has as many slots"));
    assert_eq!(news.len(), 2, "nothing is left out or estimated: {news:?}");
    for (found, expected) in found.into_iter().zip(expected) {
        let (found, expected) = (found.unwrap(), expected.unwrap());
        assert_eq!((&found.text, found.finish), (&expected.text, expected.finish));
        assert_eq!((found.prompt_tokens, found.new_tokens()), (expected.prompt_tokens, expected.tokens.len()));
        let logprobs = expected.prompt_logprobs.iter().map(|token| Some(f64::from(token.logprob)));
        assert_eq!(
            found.echo.iter().skip(1).map(|token| token.logprob).collect::<Vec<_>>(),
            logprobs.collect::<Vec<_>>()
        );
    }
}

#[test]
fn only_the_key_opens() {
    let running = start(ServeOptions { key: Some("secret".to_owned()), ..options() });
    let address = running.server.address();
    let with = |path: &str, line: &str| {
        send(address, format!("GET {path} HTTP/1.1\r\n{line}Connection: close\r\n\r\n").as_bytes())
    };
    assert_eq!(with("/v1/models", "Authorization: Bearer secret\r\n").status, 200);
    assert_eq!(with("/health", "").status, 200);
    for line in ["", "Authorization: Bearer other\r\n"] {
        for path in ["/v1/models", "/metrics", "/props", "/v1/nothing", "/v1/chat/completions"] {
            let said = with(path, line);
            assert!(said.error().starts_with("401 \"invalid_api_key\""), "{}", said.body);
            assert!(said.head.contains("WWW-Authenticate: Bearer"));
        }
    }
}
