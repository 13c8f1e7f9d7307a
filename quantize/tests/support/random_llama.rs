//! A small llama with random weights whose widths are multiples of 256, so that every type of every mix occurs in it; the
//! same bytes on every machine.

use std::path::Path;

use espalier_kernels::BlockType;
use espalier_model::gguf::{GgufWriter, Metadata, TensorHeader};
use espalier_model::{Model, ModelError};

const HIDDEN: usize = 256;
const FEED_FORWARD: usize = 512;
const LAYERS: usize = 4;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = HIDDEN / HEADS;
const SEED: u64 = 20_260;

/// `SplitMix64` (Steele, Lea and Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The sum of four 16-bit numbers: near enough to normal, without a function that differs between machines.
    fn normal(&mut self, deviation: f32) -> f32 {
        let bits = self.next();
        let sum: i32 = (0..4).map(|part| ((bits >> (16 * part)) & 0xFFFF) as i32).sum();
        (sum - 131_070) as f32 * (deviation / 37_837.0)
    }
}

/// The rows of one tensor are special, to meet the corners of the encoders: zeros of both signs, ties, outliers, equal
/// values, one sign, exact grids, tiny values.
fn special(kind: usize, column: usize, random: &mut SplitMix) -> f32 {
    match kind {
        0 => [0.0, -0.0][(random.next() & 1) as usize],
        1 => [1.0, -1.0, 0.5, 0.0][(random.next() & 3) as usize],
        2 if column % 97 == 13 => 40.0,
        3 => 0.25,
        4 => random.normal(1.0).abs(),
        5 => -random.normal(1.0).abs(),
        6 => (random.next() % 33) as f32 / 8.0 - 2.0,
        7 => random.normal(1e-18),
        8 if column % 64 < 32 => 0.0,
        _ => random.normal(0.05),
    }
}

fn tensors() -> Vec<TensorHeader> {
    let header = |name: String, dimensions: &[usize]| TensorHeader {
        name,
        dimensions: dimensions.to_vec(),
        block_type: BlockType::F32,
    };
    let kv = KV_HEADS * HEAD_DIM;
    let mut list = vec![header("token_embd.weight".to_owned(), &[HIDDEN, 512])];
    for layer in 0..LAYERS {
        for (name, dimensions) in [
            ("attn_norm", &[HIDDEN][..]),
            ("attn_q", &[HIDDEN, HIDDEN]),
            ("attn_k", &[HIDDEN, kv]),
            ("attn_v", &[HIDDEN, kv]),
            ("attn_output", &[HIDDEN, HIDDEN]),
            ("ffn_norm", &[HIDDEN]),
            ("ffn_gate", &[HIDDEN, FEED_FORWARD]),
            ("ffn_up", &[HIDDEN, FEED_FORWARD]),
            ("ffn_down", &[FEED_FORWARD, HIDDEN]),
        ] {
            list.push(header(format!("blk.{layer}.{name}.weight"), dimensions));
        }
    }
    list.push(header("output_norm.weight".to_owned(), &[HIDDEN]));
    list.push(header("output.weight".to_owned(), &[HIDDEN, 512]));
    list
}

/// Writes the model in F32 with the tokenizer of `donor`, the 260K model.
pub(crate) fn write(donor: &Model, path: &Path) -> Result<(), ModelError> {
    let mut metadata: Metadata = donor.metadata().clone();
    metadata.insert("general.name", "random");
    for (key, value) in [
        ("embedding_length", HIDDEN),
        ("block_count", LAYERS),
        ("feed_forward_length", FEED_FORWARD),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("rope.dimension_count", HEAD_DIM),
    ] {
        metadata.insert(format!("llama.{key}"), value as u32);
    }
    let headers = tensors();
    let mut writer = GgufWriter::create(path, &metadata, &headers)?;
    let mut random = SplitMix(SEED);
    for header in &headers {
        let elements: usize = header.dimensions.iter().product();
        let columns = header.dimensions[0];
        let mut bytes = Vec::with_capacity(4 * elements);
        for element in 0..elements {
            let value = match header.name.as_str() {
                name if name.contains("norm") => 1.0 + random.normal(0.1),
                "blk.3.ffn_up.weight" => special(element / columns % 10, element % columns, &mut random),
                _ => random.normal(0.05),
            };
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        writer.write_tensor_data(&bytes)?;
    }
    writer.finish()
}
