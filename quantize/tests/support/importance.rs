//! An importance matrix for any model by a fixed formula: the same bytes on every machine, and harsher on the encoders than a
//! measured one, with columns a million times as important as others, columns of none, and a tensor that saw no text.

use espalier_model::Model;
use espalier_quantize::{Importance, ImportanceMatrix};

/// `SplitMix64` (Steele, Lea and Flood 2014).
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The sum of squares of one column: a sixteenth of them zero, the others heavy-tailed, in products that are exact in `f64`.
fn sum_of_squares(bits: u64) -> f32 {
    if bits.is_multiple_of(16) {
        return 0.0;
    }
    let part = |shift: u32| ((bits >> shift) & 0xFFFF) as f64 / 65536.0;
    (part(8) * part(24) * part(40) * 4096.0) as f32
}

/// The importance of every matrix of `model` but the token embedding, as measured on 25 chunks.
pub(crate) fn by_formula(model: &Model) -> ImportanceMatrix {
    let mut matrix = ImportanceMatrix::new(vec!["formula.txt".to_owned()], 25, 512);
    for (tensor, info) in model.tensors().enumerate() {
        let measured = info.rows > 1 && info.name.ends_with("weight") && info.name != "token_embd.weight";
        if !measured {
            continue;
        }
        let column = |column: usize| sum_of_squares(mixed(((tensor as u64) << 32 | column as u64) + 1));
        let seen = if info.name == "blk.2.attn_k.weight" { 0 } else { 12_800 };
        let sums = (0..info.columns).map(column).collect();
        if let Ok(importance) = Importance::new(sums, vec![seen]) {
            matrix.insert(info.name.as_str(), importance);
        }
    }
    matrix
}
