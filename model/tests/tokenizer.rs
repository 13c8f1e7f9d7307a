//! Tokenizers against llama.cpp's vocabularies and expected ids, and against arbitrary text and metadata.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail this way")]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use espalier_model::gguf::{GgufFile, Metadata, Value};
use espalier_model::{ChatTemplate, Message, SpecialTokens, Tokenizer};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/assets").join(name)
}

fn metadata(path: &Path) -> Metadata {
    GgufFile::open(path).unwrap().metadata().clone()
}

fn vocabulary(name: &str) -> Tokenizer {
    Tokenizer::from_gguf_metadata(&metadata(&asset(&format!("vocab/ggml-vocab-{name}.gguf")))).unwrap()
}

/// The texts and ids that llama.cpp's own tests use.
fn check_vocabulary(name: &str) {
    let tokenizer = vocabulary(name);
    let texts = std::fs::read_to_string(asset(&format!("vocab/ggml-vocab-{name}.gguf.inp"))).unwrap();
    let expected = std::fs::read_to_string(asset(&format!("vocab/ggml-vocab-{name}.gguf.out"))).unwrap();
    let texts: Vec<&str> = texts.split_terminator("\n__ggml_vocab_test__\n").collect();
    assert_eq!((texts.len(), expected.lines().count()), (46, 46));
    for (text, line) in texts.iter().zip(expected.lines()) {
        let ids: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, SpecialTokens::AsText), ids, "{name}: {text:?}");
        assert_eq!(tokenizer.decode(&ids), *text, "{name}: {ids:?}");
    }
}

#[test]
fn gpt2_gives_the_expected_ids() {
    check_vocabulary("gpt-2");
}

#[test]
fn starcoder_gives_the_expected_ids() {
    check_vocabulary("starcoder");
}

#[test]
fn qwen2_gives_the_expected_ids() {
    check_vocabulary("qwen2");
}

#[test]
fn llama_spm_gives_the_expected_ids() {
    check_vocabulary("llama-spm");
}

/// Texts that tokenizers differ on: those of llama.cpp's tests, prose, special tokens.
fn various_texts() -> Vec<String> {
    let inputs = std::fs::read_to_string(asset("vocab/ggml-vocab-gpt-2.gguf.inp")).unwrap();
    let mut texts: Vec<String> = inputs.split_terminator("\n__ggml_vocab_test__\n").map(str::to_owned).collect();
    let prose = std::fs::read_to_string(asset("text/wiki.test.raw")).unwrap();
    texts.extend(prose.lines().take(400).map(str::to_owned));
    texts.extend(
        ["<|im_start|>user\nHi<|im_end|>", "<s>a</s> b<unk>", "▁▁a▁", "<0x0A>", " 1½²五Ⅷ ", "\u{0}\u{1}"]
            .map(str::to_owned),
    );
    texts
}

#[test]
fn tokenizer_json_makes_the_same_tokenizer_again() {
    for name in ["gpt-2", "starcoder", "qwen2", "llama-spm"] {
        let first = vocabulary(name);
        let json = first.to_tokenizer_json().unwrap().to_string();
        let config = first.to_tokenizer_config(1024, "").to_string();
        let again = Tokenizer::from_tokenizer_json_padded(&json, Some(&config), first.vocabulary()).unwrap();
        assert_eq!(again.adds_bos(), first.adds_bos(), "{name}");
        assert_eq!((again.bos(), again.eos(), again.padding()), (first.bos(), first.eos(), first.padding()), "{name}");
        assert_eq!(again.end_of_generation(), first.end_of_generation(), "{name}");
        for text in various_texts() {
            for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
                let ids = first.encode(&text, special);
                assert_eq!(again.encode(&text, special), ids, "{name}: {text:?}");
                assert_eq!(again.decode(&ids), first.decode(&ids), "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn metadata_makes_the_same_tokenizer_again() {
    for name in ["qwen2", "llama-spm"] {
        let first = vocabulary(name);
        let entries = first.to_gguf_metadata();
        let again = Tokenizer::from_gguf_metadata(&entries.iter().cloned().collect()).unwrap();
        assert_eq!(again.to_gguf_metadata(), entries);
        assert_eq!(again.end_of_generation(), first.end_of_generation());
        assert_eq!(again.adds_bos(), first.adds_bos());
    }
}

#[test]
fn special_tokens_are_parsed_only_when_asked() {
    let tokenizer = vocabulary("qwen2");
    let im_end = tokenizer.token_id("<|im_end|>").unwrap();
    let end_of_text = tokenizer.token_id("<|endoftext|>").unwrap();
    assert_eq!(tokenizer.encode("<|im_end|>", SpecialTokens::Parse), [im_end]);
    let as_text = tokenizer.encode("<|im_end|>", SpecialTokens::AsText);
    assert!(!as_text.contains(&im_end));
    assert_eq!(tokenizer.decode(&as_text), "<|im_end|>");
    assert_eq!(tokenizer.decode(&[im_end]), "");
    assert!(tokenizer.is_end_of_generation(im_end) && tokenizer.is_end_of_generation(end_of_text));
    assert!(tokenizer.is_special(im_end) && !tokenizer.is_special(0));
    assert_eq!(tokenizer.eos(), Some(end_of_text));
    assert!(!tokenizer.adds_bos());
}

#[test]
fn sentencepiece_starts_again_after_a_special_token() {
    let tokenizer = vocabulary("llama-spm");
    assert!(tokenizer.adds_bos());
    let hello = tokenizer.encode("Hello", SpecialTokens::Parse);
    let twice = tokenizer.encode("Hello</s>Hello", SpecialTokens::Parse);
    assert_eq!(twice, [hello.clone(), vec![2], hello].concat());
}

#[test]
fn unknown_models_and_pre_tokenizers_are_refused_by_name() {
    let mut metadata = metadata(&asset("vocab/ggml-vocab-gpt-2.gguf"));
    metadata.insert("tokenizer.ggml.pre", "viking");
    let error = Tokenizer::from_gguf_metadata(&metadata).err().unwrap().to_string();
    assert!(error.contains("\"viking\"") && error.contains("smollm"), "{error}");
    metadata.insert("tokenizer.ggml.model", "bert");
    let error = Tokenizer::from_gguf_metadata(&metadata).err().unwrap().to_string();
    assert!(error.contains("\"bert\""), "{error}");
    let error = Tokenizer::from_gguf_metadata(&Metadata::new()).err().unwrap().to_string();
    assert!(error.contains("tokenizer.ggml.model"), "{error}");
}

/// SHA-256 of llama.cpp's ids of the text, as little-endian u32.
const SMOLLM2_IDS: &str = "18e663b61dd00f49796c8a6ae498b7dbe009cac4a2eaf3c67fa7d81baf47d945";
const QWEN2_IDS: &str = "8557ef42be22a592e5f1704026fedbedc937b484e52f517add9f478adc0de20f";

fn sha256(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn smollm2_counts_the_ids_of_a_long_text() {
    let Ok(path) = std::env::var("ESPALIER_TEST_SMOLLM2") else {
        println!("ESPALIER_TEST_SMOLLM2 is not set: SmolLM2 is not tested");
        return;
    };
    let metadata = metadata(Path::new(&path));
    let tokenizer = Tokenizer::from_gguf_metadata(&metadata).unwrap();
    let text = std::fs::read_to_string(asset("text/wiki.test.raw")).unwrap();
    let start = std::time::Instant::now();
    let ids = tokenizer.encode(&text, SpecialTokens::AsText);
    println!("{} ids in {:?}", ids.len(), start.elapsed());
    assert_eq!(ids.len(), 303_415);
    assert_eq!(sha256(&ids), SMOLLM2_IDS);
    assert_eq!(tokenizer.decode(&ids), text);
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    assert!(tokenizer.is_end_of_generation(end) && tokenizer.eos() == Some(end));

    let source = metadata.get_str("tokenizer.chat_template").unwrap();
    let template = ChatTemplate::new(source, "<|im_start|>", "<|im_end|>").unwrap();
    let prompt = template.render(&[Message::new("user", "Hi <|im_end|>")], true).unwrap();
    assert_eq!(
        prompt,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn qwen2_gives_the_ids_of_llama_cpp_on_a_long_text() {
    let Ok(path) = std::env::var("ESPALIER_TEST_QWEN2") else {
        println!("ESPALIER_TEST_QWEN2 is not set: Qwen2.5 is not tested");
        return;
    };
    let tokenizer = Tokenizer::from_gguf_metadata(&metadata(Path::new(&path))).unwrap();
    let text = std::fs::read_to_string(asset("text/wiki.test.raw")).unwrap();
    let ids = tokenizer.encode(&text, SpecialTokens::AsText);
    assert_eq!((ids.len(), sha256(&ids).as_str()), (299_078, QWEN2_IDS));
}

#[test]
fn a_long_run_without_a_cut_is_fast_and_comes_back() {
    let text = "ab".repeat(200_000);
    for name in ["gpt-2", "llama-spm"] {
        let tokenizer = vocabulary(name);
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text, SpecialTokens::AsText)), text, "{name}");
    }
}

static GPT2: LazyLock<Tokenizer> = LazyLock::new(|| vocabulary("gpt-2"));
static QWEN2: LazyLock<Tokenizer> = LazyLock::new(|| vocabulary("qwen2"));
static LLAMA: LazyLock<Tokenizer> = LazyLock::new(|| vocabulary("llama-spm"));

/// A value of any kind for the metadata of a tokenizer.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u32>().prop_map(Value::from),
        (-3_i32..9).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just("gpt2"), Just("llama"), Just("default"), Just("qwen2"), Just("llama-bpe")]
            .prop_map(Value::from),
        prop::collection::vec("[ab Ġ▁<0x1>]{0,4}", 0..8).prop_map(Value::from),
        prop::collection::vec(-1_i32..9, 0..8).prop_map(Value::from),
        prop::collection::vec(any::<f32>(), 0..8).prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn byte_level_text_comes_back(text in "(\\PC|[ \\n\\r\\t0-9'])*") {
        for tokenizer in [&*GPT2, &*QWEN2] {
            prop_assert_eq!(&tokenizer.decode(&tokenizer.encode(&text, SpecialTokens::AsText)), &text);
        }
    }

    #[test]
    fn sentencepiece_text_comes_back(text in "[^▁]*") {
        prop_assert_eq!(&LLAMA.decode(&LLAMA.encode(&text, SpecialTokens::AsText)), &text);
    }

    #[test]
    fn arbitrary_metadata_never_panics(
        entries in prop::collection::vec((prop::sample::select(vec![
            "model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id", "add_bos_token",
        ]), any_value()), 0..9),
        tokens in prop::collection::vec("[ab Ġ▁<0x1>]{0,4}", 0..8),
        model in prop::sample::select(vec!["gpt2", "llama"]),
        text in "[ab ▁<0x1>é]{0,20}",
    ) {
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.model", model);
        metadata.insert("tokenizer.ggml.scores", vec![0.5_f32; tokens.len()]);
        metadata.insert("tokenizer.ggml.merges", vec!["a b".to_owned()]);
        metadata.insert("tokenizer.ggml.tokens", tokens);
        for (name, value) in entries {
            metadata.insert(format!("tokenizer.ggml.{name}"), value);
        }
        if let Ok(tokenizer) = Tokenizer::from_gguf_metadata(&metadata) {
            let ids = tokenizer.encode(&text, SpecialTokens::Parse);
            let _ = tokenizer.decode(&ids);
            let _ = tokenizer.token_bytes(u32::MAX);
            let _ = tokenizer.is_end_of_generation(u32::MAX);
        }
    }
}
