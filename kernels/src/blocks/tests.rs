//! Decoding against hand-worked blocks and against values of gguf-py.

#![allow(clippy::float_cmp, reason = "the values are exact")]

use half::f16;
use proptest::prelude::*;

use super::{BlockError, BlockType, decode, scale_and_minimum};

fn half(value: f32) -> [u8; 2] {
    f16::from_f32(value).to_le_bytes()
}

fn decoded(block_type: BlockType, bytes: &[u8]) -> Vec<f32> {
    let elements = bytes.len() / block_type.block_bytes() * block_type.block_size();
    let mut out = vec![f32::NAN; elements];
    decode(block_type, bytes, &mut out).expect("whole blocks");
    // However wide the registers are, the bits are the same.
    let mut plain = vec![f32::NAN; elements];
    super::decode_blocks(block_type, bytes, &mut plain);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&out), bits(&plain), "{block_type}");
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the feature.
        unsafe { super::decode_avx2(block_type, bytes, &mut plain) };
        assert_eq!(bits(&out), bits(&plain), "{block_type}");
    }
    out
}

/// Made by `tests/golden/block_decoding.py`, which also says the layout.
const GOLDEN: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/block_decoding.bin"));

#[test]
fn values_are_bit_equal_to_those_of_gguf_py() {
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let mut rest = GOLDEN;
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (name, others) = rest.split_at(8);
        let name = std::str::from_utf8(name).expect("a name").trim_end_matches('\0');
        let (length, values) = (word(others), word(&others[4..]));
        let (bytes, others) = others[8..].split_at(length);
        let (truth, others) = others.split_at(4 * values);
        let block_type = BlockType::ALL.into_iter().find(|kind| kind.name() == name).expect("a known type");
        let out = decoded(block_type, bytes);
        assert_eq!(out.len(), values);
        for (index, value) in out.iter().enumerate() {
            let truth = word(&truth[4 * index..]) as u32;
            if f32::from_bits(truth).is_nan() {
                assert!(value.is_nan(), "{name}: element {index}");
            } else {
                assert_eq!(value.to_bits(), truth, "{name}: element {index}");
            }
        }
        seen.push(block_type);
        rest = others;
    }
    // gguf-py does not decode the two newest.
    let known = BlockType::ALL.into_iter().filter(|kind| !matches!(kind, BlockType::Q1_0 | BlockType::Q2_0));
    assert_eq!(seen, known.collect::<Vec<_>>());
}

#[test]
fn lengths_are_checked() {
    let error = decode(BlockType::Q4_0, &[0; 35], &mut [0.0; 64]).expect_err("a partial block");
    assert_eq!(error, BlockError::PartialBlock { block_type: BlockType::Q4_0, bytes: 35 });
    assert_eq!(
        error.to_string(),
        "35 bytes of Q4_0 data are not whole blocks of 18 bytes; pass complete rows of the tensor"
    );
    let error = decode(BlockType::Q4_0, &[0; 36], &mut [0.0; 32]).expect_err("a short output");
    assert_eq!(error, BlockError::OutputLength { block_type: BlockType::Q4_0, elements: 64, output: 32 });
    assert!(error.to_string().contains("hold 64 elements but the output has room for 32"));
    assert_eq!(decode(BlockType::Q6K, &[], &mut []), Ok(()));
}

#[test]
fn floats_keep_their_special_values() {
    let specials = [0.0, -0.0, 1.0, -65504.0, 6.103_515_6e-5, 5.960_464_5e-8, f32::INFINITY, f32::NEG_INFINITY];
    let bytes: Vec<u8> = specials.iter().flat_map(|value| half(*value)).collect();
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&decoded(BlockType::F16, &bytes)), bits(&specials));
    assert!(decoded(BlockType::F16, &[0x01, 0x7C])[0].is_nan());
    assert_eq!(decoded(BlockType::Bf16, &[0x80, 0x3F, 0x49, 0xC0]), [1.0, -3.140_625]);
    assert_eq!(decoded(BlockType::F32, &1.5_f32.to_le_bytes()), [1.5]);
}

#[test]
fn q4_0_subtracts_eight() {
    let mut block = half(0.5).to_vec();
    block.extend((0..16).map(|j: u8| j | (15 - j) << 4));
    let out = decoded(BlockType::Q4_0, &block);
    for j in 0..16 {
        assert_eq!(out[j], (j as f32 - 8.0) * 0.5);
        assert_eq!(out[j + 16], (7.0 - j as f32) * 0.5);
    }
}

#[test]
fn q4_1_adds_its_minimum() {
    let mut block = [half(0.25), half(-1.0)].concat();
    block.extend([0x30; 16]);
    let out = decoded(BlockType::Q4_1, &block);
    assert_eq!(out[..16], [-1.0; 16]);
    assert_eq!(out[16..], [-0.25; 16]);
}

#[test]
fn the_fifth_bit_of_q5_comes_from_its_own_word() {
    // Elements 0 and 31 have it.
    let high = 0x8000_0001_u32.to_le_bytes();
    let mut block = half(1.0).to_vec();
    block.extend(high);
    block.extend([0; 16]);
    let out = decoded(BlockType::Q5_0, &block);
    assert_eq!((out[0], out[1], out[16], out[31]), (0.0, -16.0, -16.0, 0.0));
    let mut block = [half(1.0), half(2.0)].concat();
    block.extend(high);
    block.extend([0x21; 16]);
    let out = decoded(BlockType::Q5_1, &block);
    assert_eq!((out[0], out[1], out[16], out[31]), (19.0, 3.0, 4.0, 20.0));
}

#[test]
fn q8_0_is_signed() {
    let mut block = half(0.5).to_vec();
    block.extend((0..32).map(|j: i8| (j - 16).cast_unsigned()));
    let out = decoded(BlockType::Q8_0, &block);
    assert_eq!((out[0], out[16], out[31]), (-8.0, 0.0, 7.5));
}

#[test]
fn scales_of_six_bits_unpack() {
    // Group 0: scale 63, minimum 1; group 4: scale 0b11_0101, minimum 0b10_1010.
    let mut scales = [0; 12];
    scales[0] = 63 | 0b11 << 6;
    scales[4] = 1 | 0b10 << 6;
    scales[8] = 0b1010_0101;
    assert_eq!(scale_and_minimum(&scales, 0), (63, 1));
    assert_eq!(scale_and_minimum(&scales, 4), (0b11_0101, 0b10_1010));
    assert_eq!(scale_and_minimum(&scales, 7), (0, 0));
}

#[test]
fn q4_k_and_q5_k_share_scales_and_differ_in_the_fifth_bit() {
    let mut head = [half(0.5), half(0.25)].concat();
    let mut scales = [0; 12];
    scales[1] = 3; // scale of group 1
    scales[5] = 2; // its minimum
    head.extend(scales);
    let mut block = head.clone();
    block.extend([0x50; 128]);
    let out = decoded(BlockType::Q4K, &block);
    assert_eq!(out[..32], [0.0; 32]);
    assert_eq!(out[32..64], [0.5 * 3.0 * 5.0 - 0.25 * 2.0; 32]);
    let mut block = head;
    block.extend([0b10; 32]);
    block.extend([0x50; 128]);
    assert_eq!(decoded(BlockType::Q5K, &block)[32..64], [0.5 * 3.0 * 21.0 - 0.25 * 2.0; 32]);
}

#[test]
fn q2_k_q3_k_and_q6_k_place_their_bits() {
    // Group 15 of Q2_K lies in the top bits of the last sixteen bytes.
    let mut block = vec![0; 16];
    block[15] = 0x31;
    block.extend([0; 48]);
    block.extend([0xC0; 16]);
    block.extend(half(2.0));
    block.extend(half(0.5));
    let out = decoded(BlockType::Q2K, &block);
    assert_eq!(out[239], 0.0);
    assert_eq!(out[240..], [2.0 * 3.0 - 0.5 * 3.0; 16]);

    // Scale 33 in group 0 of Q3_K, all others 0 - 32; the third bit of element 0 is set.
    let mut block = vec![0; 110];
    block[0] = 1;
    block[32] = 2;
    block[96] = 1;
    block[104] = 0b10;
    block[108..].copy_from_slice(&half(1.0));
    let out = decoded(BlockType::Q3K, &block);
    assert_eq!((out[0], out[1], out[16]), (2.0, -4.0, 128.0));

    // Element 64 of Q6_K: high nibble of byte 0, bits 4 and 5 of the first high byte, scale of group 4.
    let mut block = vec![0; 210];
    block[0] = 0x70;
    block[128] = 0b11 << 4;
    block[192 + 4] = (-2_i8).cast_unsigned();
    block[208..].copy_from_slice(&half(0.5));
    let out = decoded(BlockType::Q6K, &block);
    assert_eq!((out[64], out[65], out[0]), (-(48.0 + 7.0 - 32.0), 32.0, 0.0));
}

#[test]
fn q1_0_and_q2_0_hold_signs_and_four_levels() {
    let mut block = half(0.5).to_vec();
    block.extend([0b0000_0101]);
    block.extend([0xFF; 15]);
    let out = decoded(BlockType::Q1_0, &block);
    assert_eq!(out[..9], [0.5, -0.5, 0.5, -0.5, -0.5, -0.5, -0.5, -0.5, 0.5]);

    let mut block = half(0.5).to_vec();
    block.extend([0b11_10_01_00; 16]);
    let out = decoded(BlockType::Q2_0, &block);
    assert_eq!(out[60..], [-0.5, 0.0, 0.5, 1.0]);
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(kind in 0..BlockType::ALL.len(), bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let block_type = BlockType::ALL[kind];
        let blocks = bytes.len() / block_type.block_bytes();
        let mut out = vec![0.0; blocks * block_type.block_size()];
        let whole = bytes.len() == blocks * block_type.block_bytes();
        prop_assert_eq!(decode(block_type, &bytes, &mut out).is_ok(), whole);
    }
}
