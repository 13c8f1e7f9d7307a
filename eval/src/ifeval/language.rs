//! The language of a response as langdetect finds it: naive Bayes over runs of characters that are drawn from the text (Nakatani 2010),
//! with Python's random numbers.
//!
//! lm-eval draws anew in every run. Here the most frequent answer of five fixed seeds counts, so that a verdict stays what it is.

use std::sync::LazyLock;

use regex::Regex;

use super::profiles::{LONGEST, PROFILES, Run, run};
use crate::tasks::random::Random;

/// What a text says about its language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finding {
    /// It has no letters that any language is known by.
    NoLetters,
    /// No language stands out.
    Unclear,
    /// ISO 639-1 code, `zh-cn` or `zh-tw`.
    Code(&'static str),
}

/// Seeds of the draws whose most frequent answer counts.
const SEEDS: std::ops::Range<u64> = 0..5;

/// Draws of a text, each until one language is left.
const TRIALS: usize = 7;
/// Weight of runs that a language does not have: mean and deviation between trials, in parts of [`BASE`].
const SMOOTHING: (f64, f64) = (0.5, 0.05);
const BASE: f64 = 10_000.0;
/// One language is left from this probability on.
const CONVERGED: f64 = 0.99999;
/// Runs drawn at most in a trial.
const DRAWS: usize = 1000;
/// A language below this probability is no answer.
const LEAST: f64 = 0.1;
/// Characters that are looked at.
const LONGEST_TEXT: usize = 10_000;

/// The language of a text.
pub(super) fn language(text: &str) -> Finding {
    let runs = runs(&cleaned(text));
    if runs.is_empty() {
        return Finding::NoLetters;
    }
    let mut found: Vec<Finding> = SEEDS.map(|seed| answer(&probabilities(&runs, seed))).collect();
    found.sort_unstable();
    let times = |finding: &Finding| found.iter().filter(|other| *other == finding).count();
    found.iter().copied().max_by_key(times).unwrap_or(Finding::Unclear)
}

fn answer(probabilities: &[f64]) -> Finding {
    let best = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    match best {
        Some((place, &probability)) if probability > LEAST => Finding::Code(&PROFILES.codes[place]),
        _ => Finding::Unclear,
    }
}

/// The mean over trials of what each language has of the probability.
fn probabilities(runs: &[Run], seed: u64) -> Vec<f64> {
    let languages = PROFILES.codes.len();
    let mut random = Random::new(seed);
    let mut mean = vec![0.0; languages];
    for _ in 0..TRIALS {
        let mut probabilities = vec![1.0 / languages as f64; languages];
        let weight = (SMOOTHING.0 + random.gauss() * SMOOTHING.1) / BASE;
        for draw in 0.. {
            let shares = PROFILES.shares(&runs[random.below(runs.len())]).unwrap_or_default();
            let mut at = shares.iter().peekable();
            for (place, probability) in probabilities.iter_mut().enumerate() {
                let share = at.next_if(|(language, _)| *language == place).map_or(0.0, |(_, share)| *share);
                *probability *= weight + share;
            }
            if draw % 5 == 0 {
                let sum: f64 = probabilities.iter().sum();
                for probability in &mut probabilities {
                    *probability /= sum;
                }
                if draw >= DRAWS || probabilities.iter().any(|&probability| probability > CONVERGED) {
                    break;
                }
            }
        }
        for (mean, probability) in mean.iter_mut().zip(probabilities) {
            *mean += probability / TRIALS as f64;
        }
    }
    mean
}

/// The text without addresses of pages and mail, marks of Vietnamese joined to their letters, spaces single; without Latin letters where
/// two thirds are others.
fn cleaned(text: &str) -> Vec<char> {
    static ADDRESSES: LazyLock<[Option<Regex>; 2]> = LazyLock::new(|| {
        ["https?://[-_.?&~;+=/#0-9A-Za-z]+", "[-_.0-9A-Za-z]{1,64}@[-_0-9A-Za-z]{1,255}[-_.0-9A-Za-z]{1,255}"]
            .map(|pattern| Regex::new(pattern).ok())
    });
    let mut text = text.to_owned();
    for pattern in ADDRESSES.iter().flatten() {
        text = pattern.replace_all(&text, " ").into_owned();
    }
    let mut characters: Vec<char> = with_marks_joined(&text).take(LONGEST_TEXT).collect();
    characters.dedup_by(|character, before| *character == ' ' && *before == ' ');
    let is_latin = |character: char| ('A'..='z').contains(&character);
    let latin = characters.iter().filter(|&&character| is_latin(character)).count();
    let is_other = |character: char| character >= '\u{300}' && !('\u{1e00}'..='\u{1eff}').contains(&character);
    let other = characters.iter().filter(|&&character| is_other(character)).count();
    if latin * 2 < other {
        characters.retain(|&character| !is_latin(character));
    }
    characters
}

/// Letters of Vietnamese, and below each mark the letter with it.
const LETTERS: &str = "AEIOUYaeiouyÂÊÔâêôĂăƠơƯư";
const MARKED: [(char, &str); 5] = [
    ('\u{300}', "ÀÈÌÒÙỲàèìòùỳẦỀỒầềồẰằỜờỪừ"),
    ('\u{301}', "ÁÉÍÓÚÝáéíóúýẤẾỐấếốẮắỚớỨứ"),
    ('\u{303}', "ÃẼĨÕŨỸãẽĩõũỹẪỄỖẫễỗẴẵỠỡỮữ"),
    ('\u{309}', "ẢẺỈỎỦỶảẻỉỏủỷẨỂỔẩểổẲẳỞởỬử"),
    ('\u{323}', "ẠẸỊỌỤỴạẹịọụỵẬỆỘậệộẶặỢợỰự"),
];

fn with_marks_joined(text: &str) -> impl Iterator<Item = char> {
    let mut characters = text.chars().peekable();
    std::iter::from_fn(move || {
        let character = characters.next()?;
        let joined = characters.peek().and_then(|mark| {
            let (_, marked) = MARKED.iter().find(|(known, _)| known == mark)?;
            marked.chars().nth(LETTERS.chars().position(|letter| letter == character)?)
        });
        if joined.is_some() {
            characters.next();
        }
        Some(joined.unwrap_or(character))
    })
}

/// Every run of the text that some language has, in its order; those that end within a word in capitals, from its second letter on, are
/// left out.
fn runs(text: &[char]) -> Vec<Run> {
    let mut found = Vec::new();
    let (mut recent, mut in_capitals) = (vec![' '], false);
    for &character in text {
        let character = plain(character);
        let last = recent.last().copied().unwrap_or(' ');
        if last == ' ' {
            recent = vec![' '];
            in_capitals = false;
            if character == ' ' {
                continue;
            }
        } else if recent.len() >= LONGEST {
            recent.remove(0);
        }
        recent.push(character);
        if character.is_uppercase() {
            in_capitals |= last.is_uppercase();
        } else {
            in_capitals = false;
        }
        if in_capitals {
            continue;
        }
        let ends = (1..=recent.len()).filter_map(|length| run(&recent[recent.len() - length..]));
        found.extend(ends.filter(|run| *run != [' ', '\0', '\0'] && PROFILES.shares(run).is_some()));
    }
    found
}

/// The character that counts for one: marks and digits are spaces, and one letter stands for scripts that one language alone writes.
fn plain(character: char) -> char {
    match character {
        'A'..='Z' | 'a'..='z' => character,
        '\0'..='\u{7f}' | '\u{a0}' | '\u{ab}' | '\u{b0}' | '\u{bb}' | '\u{2000}'..='\u{206f}' => ' ',
        // Romanian with commas below, as with cedillas.
        '\u{219}' => '\u{15f}',
        '\u{21b}' => '\u{163}',
        // The Farsi yeh as the Arabic one.
        '\u{6cc}' => '\u{64a}',
        '\u{1ea0}'..='\u{1eff}' => '\u{1ec3}',
        '\u{3040}'..='\u{309f}' => '\u{3042}',
        '\u{30a0}'..='\u{30ff}' => '\u{30a2}',
        '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' => '\u{3105}',
        '\u{4e00}'..='\u{9fff}' => PROFILES.representative(character),
        '\u{ac00}'..='\u{d7af}' => '\u{ac00}',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_by_their_runs() {
        for (text, expected) in [
            ("the cat is on the table and it is not mine.", Finding::Code("en")),
            ("Der Hund schläft heute lange vor dem warmen Ofen und träumt.", Finding::Code("de")),
            ("Watoto wanacheza katika bustani na wazazi wao kwa furaha kila siku.", Finding::Code("sw")),
            ("Я люблю читать книги по вечерам, когда идёт дождь.", Finding::Code("ru")),
            ("오늘은 날씨가 매우 좋습니다.", Finding::Code("ko")),
            ("今天天气很好，我们去公园。", Finding::Code("zh-cn")),
            ("12 + 30 = 42! https://example.org/the/of a@b.example", Finding::NoLetters),
        ] {
            assert_eq!(language(text), expected, "{text}");
        }
    }

    /// What `langdetect.detect_langs` gives with `DetectorFactory.seed = SEED` (langdetect 1.0.9; scripts/golden-languages.py).
    #[test]
    fn probabilities_are_those_of_langdetect() {
        let mut texts = 0;
        for line in include_str!("../../tests/golden/languages.jsonl").lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = row["text"].as_str().unwrap();
            let runs = runs(&cleaned(text));
            for (seed, expected) in row["seeds"].as_array().unwrap().iter().enumerate() {
                let Some(expected) = expected.as_array() else {
                    assert!(runs.is_empty(), "{text}");
                    continue;
                };
                let found = probabilities(&runs, seed as u64);
                let told: f64 = expected
                    .iter()
                    .map(|pair| {
                        let place = PROFILES.codes.iter().position(|code| pair[0] == code.as_str()).unwrap();
                        let probability = pair[1].as_f64().unwrap();
                        assert!((found[place] - probability).abs() < 1e-9, "{text}: {pair} {}", found[place]);
                        probability
                    })
                    .sum();
                assert!(
                    found.iter().filter(|&&probability| probability > LEAST).count() == expected.len(),
                    "{text} {told}"
                );
            }
            texts += 1;
        }
        assert!(texts >= 150, "{texts}");
    }
}
