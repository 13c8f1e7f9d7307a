//! The vectors give the bits of the plain loops.

use half::bf16;

use super::*;

fn value(seed: usize) -> f32 {
    let bits = (seed as u32).wrapping_mul(2_654_435_761);
    (bits >> 8) as f32 / 8_388_608.0 - 1.0
}

#[test]
fn rows_are_packed_as_by_plain_loops() {
    for (rows, padded, columns, groups) in [(1, 1, 1, 0..1), (3, 4, 70, 0..3), (5, 5, 300, 2..8), (12, 12, 256, 0..8)] {
        let x: Vec<f32> = (0..rows * columns).map(|i| value(i) * 10.0_f32.powi(i as i32 % 7 - 3)).collect();
        let short: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let part = Part { rows: 0..rows, padded, groups };
        let count = padded * part.groups.len() + ROW_FACTOR_LINES;
        let (mut plain, mut packed) = (vec![Line([7; GROUP]); count], vec![Line([9; GROUP]); count]);
        PackRows { x: &x, columns, part: &part, lines: &mut plain }.run();
        pack_rows(Values::F32(&x), columns, &part, &mut packed);
        assert!(plain.iter().zip(&packed).all(|(plain, packed)| plain.0 == packed.0), "f32, {rows} x {columns}");
        PackRows { x: &short, columns, part: &part, lines: &mut plain }.run();
        pack_rows(Values::Bf16(&short), columns, &part, &mut packed);
        assert!(plain.iter().zip(&packed).all(|(plain, packed)| plain.0 == packed.0), "bf16, {rows} x {columns}");
    }
}

#[test]
fn panels_are_rounded_as_by_plain_loops() {
    for groups in [1, 3, 8] {
        let pair = |i: usize| {
            let [even, odd] = [value(2 * i), value(2 * i + 1)].map(|x| u32::from(bf16::from_f32(x).to_bits()));
            // One output of zeros.
            if i % PANEL == 3 { 0 } else { even | odd << 16 }
        };
        let words: Vec<u32> = (0..groups * GROUP * PANEL).map(pair).collect();
        let piece: Vec<Line> = words.chunks_exact(GROUP).map(|words| Line(words.try_into().expect("a line"))).collect();
        let mut factors = [Line([0; GROUP]); PANEL_FACTOR_LINES];
        panel_factors(&piece, &mut factors);
        let mut rounded = vec![Line([0; GROUP]); piece.len()];
        round_panel(&piece, &factors, &mut rounded);
        let own: &[f32; PANEL] = bytemuck::cast_ref(&factors);
        let mut plain = vec![Line([1; GROUP]); piece.len()];
        RoundPanel { piece: &piece, factors: own, target: &mut plain }.run();
        assert!(plain.iter().zip(&rounded).all(|(plain, rounded)| plain.0 == rounded.0), "{groups} groups");
        assert!(own[3].to_bits() == 0 && own[4] > 0.0);
        // Read back, every value is within half a factor.
        let integers: &[u32] = bytemuck::cast_slice(&rounded);
        for (i, &word) in words.iter().enumerate() {
            let factor = own[i % PANEL];
            for (value, integer) in [(even(word), integers[i] as i16), (odd(word), (integers[i] >> 16) as i16)] {
                assert!((value - f32::from(integer) * factor).abs() <= 0.501 * factor, "{value} of {factor}");
            }
        }
    }
}
