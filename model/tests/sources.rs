//! Models from their three sources.

#![allow(clippy::unwrap_used)]

mod tiny;

use std::fs;
use std::path::Path;

use espalier_kernels::BlockType;
use espalier_kernels::ops::RopeStyle;
use espalier_model::gguf::{GgufWriter, TensorHeader};
use espalier_model::{Architecture, Model};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/assets");

/// Writes what an open model gives as F32.
fn export(model: &Model, path: &Path) {
    let headers: Vec<TensorHeader> = model
        .tensors()
        .map(|info| TensorHeader {
            name: info.name.clone(),
            dimensions: info.dimensions.clone(),
            block_type: BlockType::F32,
        })
        .collect();
    let mut writer = GgufWriter::create(path, model.metadata(), &headers).unwrap();
    for header in &headers {
        let values = model.tensor(&header.name).unwrap().to_vec().unwrap();
        writer.write_tensor_data(bytemuck::cast_slice(&values)).unwrap();
    }
    writer.finish().unwrap();
}

/// Everything that an export must keep.
fn assert_same(left: &Model, right: &Model) {
    assert_eq!(left.config(), right.config());
    assert_eq!(left.metadata(), right.metadata());
    assert_eq!(left.tokenizer().vocabulary(), right.tokenizer().vocabulary());
    assert_eq!(left.chat_template().source(), right.chat_template().source());
    for info in left.tensors() {
        let (a, b) = (left.tensor(&info.name).unwrap(), right.tensor(&info.name).unwrap());
        assert_eq!(a.to_vec().unwrap(), b.to_vec().unwrap(), "{}", info.name);
    }
}

#[test]
fn stories_from_llama2c() {
    let model = Model::open(&Path::new(ASSETS).join("model/stories260K.bin")).unwrap();
    let config = model.config();
    assert_eq!(config.name, "stories260K");
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!(config.rope_style(), RopeStyle::Interleaved);
    assert_eq!((config.hidden, config.layers, config.heads, config.kv_heads), (64, 5, 8, 4));
    assert_eq!((config.head_dim, config.feed_forward), (8, 172));
    assert_eq!((config.vocabulary, config.context), (512, 512));
    assert!(config.tied_head && !config.attention_bias);
    assert!(!model.has_tensor("output.weight"));
    assert_eq!(model.tokenizer().vocabulary(), 512);
    assert!(model.chat_template().is_builtin());
    let norm = model.tensor("output_norm.weight").unwrap().to_vec().unwrap();
    assert!(norm.iter().all(|value| (0.5..20.0).contains(value)), "{norm:?}");
    let tensor = model.tensor("blk.4.ffn_down.weight").unwrap();
    let mut row = vec![0.0; 172];
    tensor.row(63, &mut row).unwrap();
    assert_eq!(row, tensor.to_vec().unwrap()[63 * 172..]);
    assert!(tensor.row(64, &mut row).unwrap_err().to_string().contains("row 64"));
    assert!(tensor.row(0, &mut row[1..]).is_err());
    assert!(model.tensor("nothing").err().unwrap().to_string().contains("nothing"));
    assert_eq!(model.sha256().unwrap().len(), 64);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stories.gguf");
    export(&model, &path);
    let again = Model::open(&path).unwrap();
    assert_same(&model, &again);
    assert_ne!(again.sha256().unwrap(), model.sha256().unwrap());
}

#[test]
fn damaged_llama2c_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let bytes = fs::read(Path::new(ASSETS).join("model/stories260K.bin")).unwrap();
    for length in [0, 5, 27, 28, 1000, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = Model::open(&path).err().unwrap().to_string();
        assert!(message.contains("m.bin"), "{message}");
    }
    fs::write(&path, &bytes).unwrap();
    let message = Model::open(&path).err().unwrap().to_string();
    assert!(message.contains("tok512.bin"), "{message}");
}

#[test]
fn a_hugging_face_folder_comes_in_gguf_order() {
    for shards in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        tiny::write_huggingface(folder.path(), shards);
        let model = Model::open(folder.path()).unwrap();
        let config = model.config();
        assert_eq!((config.hidden, config.layers, config.heads), (16, 2, 4));
        assert_eq!((config.kv_heads, config.head_dim, config.vocabulary), (2, 4, 300));
        assert_eq!(model.tokenizer().vocabulary(), 300);
        assert_eq!((model.tokenizer().bos(), model.tokenizer().eos()), (Some(0), Some(1)));
        assert!(model.chat_template().source().contains("m.role"));

        // Head of four: rows 0 1 2 3 of a file become 0 2 1 3.
        for (name, gguf, heads) in [
            ("model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", 4),
            ("model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight", 2),
        ] {
            let stored = tiny::values(name, heads * 4 * 16);
            let tensor = model.tensor(gguf).unwrap();
            assert!(tensor.raw().is_none());
            let read = tensor.to_vec().unwrap();
            for head in 0..heads {
                for (to, from) in [(0, 0), (1, 2), (2, 1), (3, 3)] {
                    let (to, from) = ((head * 4 + to) * 16, (head * 4 + from) * 16);
                    assert_eq!(read[to..to + 16], stored[from..from + 16]);
                }
            }
        }
        let plain = model.tensor("blk.0.ffn_down.weight").unwrap();
        let stored = tiny::values("model.layers.0.mlp.down_proj.weight", 16 * 24);
        assert_eq!(plain.to_vec().unwrap(), stored);
        assert!(plain.raw().is_some());
        assert_eq!(plain.info().dimensions, [24, 16]);
        let wanted = if shards { BlockType::Bf16 } else { BlockType::F32 };
        assert_eq!(plain.info().block_type, wanted);
        let file_type = model.metadata().require_u32("general.file_type").unwrap();
        assert_eq!(file_type, if shards { 32 } else { 0 });

        let target = tempfile::tempdir().unwrap();
        let path = target.path().join("tiny.gguf");
        export(&model, &path);
        assert_same(&model, &Model::open(&path).unwrap());
    }
}

#[test]
fn incomplete_folders_are_refused_by_name() {
    let message = |change: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        tiny::write_huggingface(folder.path(), true);
        change(folder.path());
        Model::open(folder.path()).err().unwrap().to_string()
    };
    let edit = |field: &str, value: serde_json::Value| {
        let field = field.to_owned();
        move |folder: &Path| {
            let mut config = tiny::config_json();
            config[&field] = value.clone();
            fs::write(folder.join("config.json"), config.to_string()).unwrap();
        }
    };
    let remove = |name: &'static str| move |folder: &Path| fs::remove_file(folder.join(name)).unwrap();
    let shard = "model-00002-of-00002.safetensors";
    let cases: Vec<(String, &str)> = vec![
        (message(&remove("config.json")), "config.json"),
        (message(&remove("tokenizer.json")), "tokenizer.json"),
        (message(&remove("model.safetensors.index.json")), "model.safetensors.index.json"),
        (message(&remove(shard)), shard),
        (message(&edit("architectures", serde_json::json!(["MambaForCausalLM"]))), "Mamba"),
        (message(&edit("num_hidden_layers", 3.into())), "blk.2."),
        (message(&edit("num_hidden_layers", 1.into())), "has no use for it"),
        (message(&edit("intermediate_size", 25.into())), "implies [16, 25]"),
        (message(&edit("num_attention_heads", 0.into())), "num_attention_heads"),
        (message(&edit("tie_word_embeddings", false.into())), "output.weight"),
        (
            message(&|folder| {
                let bytes = fs::read(folder.join(shard)).unwrap();
                fs::write(folder.join(shard), &bytes[..bytes.len() - 1]).unwrap();
            }),
            "download",
        ),
        (
            message(&|folder| {
                let index = r#"{"weight_map":{"a":"../x.safetensors"}}"#;
                fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
            }),
            "no plain file name",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "expected {expected:?} in: {message}");
    }
}

#[test]
fn smollm2_opens() {
    let Some(path) = std::env::var_os("ESPALIER_TEST_SMOLLM2") else {
        println!("ESPALIER_TEST_SMOLLM2 is not set: skipped");
        return;
    };
    let model = Model::open(Path::new(&path)).unwrap();
    let config = model.config();
    assert_eq!((config.hidden, config.layers, config.heads, config.kv_heads), (576, 30, 9, 3));
    assert_eq!((config.vocabulary, config.head_dim), (49_152, 64));
    assert!(config.tied_head);
    assert!(!model.chat_template().is_builtin());
    let embedding = model.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.info().rows, embedding.info().columns), (49_152, 576));
    let mut row = vec![0.0; 576];
    embedding.row(49_151, &mut row).unwrap();
    assert!(row.iter().all(|value| value.is_finite()));
    assert_eq!(model.sha256().unwrap(), model.sha256().unwrap());
}
