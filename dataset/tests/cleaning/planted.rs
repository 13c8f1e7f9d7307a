//! Rows of a seeded generator, with faults planted at known places.

use serde_json::json;

/// What is planted in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Nothing: the row is right.
    Nothing,
    /// An earlier row, in other case and with another last word.
    Duplicate,
    /// An item of the benchmark.
    Contamination,
    /// An address of e-mail and a number of a card.
    Personal,
    /// A loop.
    Loop,
}

/// What row `index` is: of 100 rows four repeat earlier ones, two hold an item, two something personal, one a loop.
pub fn planted(index: u64) -> Planted {
    match index % 100 {
        20 | 40 | 60 | 80 => Planted::Duplicate,
        30 | 70 => Planted::Contamination,
        25 | 75 => Planted::Personal,
        55 => Planted::Loop,
        _ => Planted::Nothing,
    }
}

/// `SplitMix64`.
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A word of 8,000, the first ones most often.
fn word(number: u64) -> String {
    const SYLLABLES: [&str; 20] = [
        "ba", "be", "di", "do", "fu", "ga", "ke", "la", "lo", "mi", "mo", "na", "ne", "po", "ra", "ri", "sa", "su",
        "te", "vo",
    ];
    let share = (number >> 11) as f64 / (1_u64 << 53) as f64;
    let rank = (share * share * 8000.0) as usize;
    format!("{}{}{}", SYLLABLES[rank % 20], SYLLABLES[rank / 20 % 20], SYLLABLES[rank / 400])
}

/// `count` words from the place `from` of stream `seed` on, in sentences.
fn text(seed: u64, from: u64, count: u64) -> String {
    let mut text = String::new();
    for place in from..from + count {
        let word = word(mixed(seed.wrapping_mul(0x0001_0000_0001).wrapping_add(place)));
        match (place - from) % 11 {
            0 if place > from => text.push_str(". "),
            _ if place > from => text.push(' '),
            _ => {}
        }
        text.push_str(&word);
    }
    text + "."
}

fn pair(index: u64) -> (String, String) {
    let lengths = mixed(index ^ 0xabcd);
    (text(index, 0, 10 + lengths % 12) + " Why?", text(index, 100, 30 + (lengths >> 8) % 60))
}

/// Item `index` of the benchmark, as a line of its file.
pub fn item(index: u64) -> String {
    json!({"question": text(index ^ 0x1234_5678_0000, 0, 18), "choices": ["ba", "be"], "answer": 0}).to_string()
}

/// Items of the benchmark.
pub const ITEMS: u64 = 100;

/// Row `index`, as a line of JSON.
pub fn row(index: u64) -> String {
    let (mut question, mut answer) = pair(index);
    match planted(index) {
        Planted::Nothing => {}
        Planted::Duplicate => {
            // A place behind one of the same kind: nothing is planted there.
            let (first_question, first_answer) = pair(index - 20 * (1 + mixed(index) % (index / 20)) + 1);
            question = first_question.to_uppercase();
            answer = format!("{} other.", first_answer.trim_end_matches('.'));
        }
        Planted::Contamination => {
            let item: serde_json::Value = serde_json::from_str(&item(mixed(index) % ITEMS)).unwrap_or_default();
            question = format!("{question} {}", item["question"].as_str().unwrap_or_default());
        }
        Planted::Personal => answer += &format!(" Write to anna{index}@example.org or pay with 4111 1111 1111 1111."),
        Planted::Loop => answer = format!("{answer} {}", "and so on and on ".repeat(30)),
    }
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "metadata": {"leaf": format!("leaf{}", index % 7)}, "id": format!("{index:08}")})
    .to_string()
}
