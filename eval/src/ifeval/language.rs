//! The language of a response.

use std::collections::HashSet;
use std::sync::LazyLock;

use whatlang::{Detector, Lang};

/// What a text says about its language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It has no letters.
    NoLetters,
    /// No language stands out.
    Unclear,
    /// ISO 639-1 code.
    Code(&'static str),
}

/// The languages that langdetect knows too, with their codes: a language that it never answers is never right.
const LANGUAGES: [(Lang, &str); 47] = [
    (Lang::Afr, "af"),
    (Lang::Ara, "ar"),
    (Lang::Bul, "bg"),
    (Lang::Ben, "bn"),
    (Lang::Cat, "ca"),
    (Lang::Ces, "cs"),
    (Lang::Cym, "cy"),
    (Lang::Dan, "da"),
    (Lang::Deu, "de"),
    (Lang::Ell, "el"),
    (Lang::Eng, "en"),
    (Lang::Spa, "es"),
    (Lang::Est, "et"),
    (Lang::Pes, "fa"),
    (Lang::Fin, "fi"),
    (Lang::Fra, "fr"),
    (Lang::Guj, "gu"),
    (Lang::Heb, "he"),
    (Lang::Hin, "hi"),
    (Lang::Hrv, "hr"),
    (Lang::Hun, "hu"),
    (Lang::Ind, "id"),
    (Lang::Ita, "it"),
    (Lang::Jpn, "ja"),
    (Lang::Kan, "kn"),
    (Lang::Kor, "ko"),
    (Lang::Lit, "lt"),
    (Lang::Lav, "lv"),
    (Lang::Mkd, "mk"),
    (Lang::Mal, "ml"),
    (Lang::Mar, "mr"),
    (Lang::Nep, "ne"),
    (Lang::Nld, "nl"),
    (Lang::Nob, "no"),
    (Lang::Pan, "pa"),
    (Lang::Pol, "pl"),
    (Lang::Por, "pt"),
    (Lang::Ron, "ro"),
    (Lang::Rus, "ru"),
    (Lang::Slk, "sk"),
    (Lang::Slv, "sl"),
    (Lang::Swe, "sv"),
    (Lang::Tam, "ta"),
    (Lang::Tel, "te"),
    (Lang::Tha, "th"),
    (Lang::Tur, "tr"),
    (Lang::Ukr, "uk"),
];

static DETECTOR: LazyLock<Detector> = LazyLock::new(|| {
    let more = [Lang::Urd, Lang::Vie, Lang::Cmn];
    Detector::with_allowlist(LANGUAGES.iter().map(|(language, _)| *language).chain(more).collect())
});

/// Little words that a third of an English text is made of.
const ENGLISH: &str = "a about all an and are as at be but by can do for from has have he i if in is it me my not of on or she that the \
    their there they this to was we were what when which will with would you your";

/// Little words of Swahili, which whatlang does not know.
const SWAHILI: &str = "ambayo au baada cha hata hii hiyo huu kama katika kila kuwa kwa la lakini mtu mwaka na ni pia sana siku vya wa \
    wakati wake wangu watu ya yake yangu za";

/// The language that letters give away which no other has, even where much of the text is English.
fn by_letters(text: &str) -> Option<&'static str> {
    /// Share of the letters: a name or a quotation stays below it.
    const SCRIPT: f64 = 0.2;
    /// Vietnamese writes most letters as others do.
    const VIETNAMESE: f64 = 0.025;
    let mut counts = [0_usize; 12];
    let (mut all, mut vietnamese) = (0_usize, 0_usize);
    for character in text.chars().filter(|character| character.is_alphabetic()) {
        all += 1;
        vietnamese += usize::from(matches!(character, '\u{1ea0}'..='\u{1ef9}' | 'ơ' | 'ư' | 'đ'));
        if let Some(script) = SCRIPTS.iter().position(|(_, first, last)| (*first..=*last).contains(&character)) {
            counts[script] += 1;
        }
    }
    if vietnamese as f64 >= VIETNAMESE * all as f64 {
        return Some("vi");
    }
    let (script, most) = counts.into_iter().enumerate().max_by_key(|(_, count)| *count)?;
    (most as f64 >= SCRIPT * all as f64).then_some(SCRIPTS[script].0)
}

/// Scripts that one language of langdetect's is written in, with their first and last letters.
const SCRIPTS: [(&str, char, char); 12] = [
    ("el", '\u{370}', '\u{3ff}'),
    ("he", '\u{590}', '\u{5ff}'),
    ("bn", '\u{980}', '\u{9ff}'),
    ("pa", '\u{a00}', '\u{a7f}'),
    ("gu", '\u{a80}', '\u{aff}'),
    ("ta", '\u{b80}', '\u{bff}'),
    ("te", '\u{c00}', '\u{c7f}'),
    ("kn", '\u{c80}', '\u{cff}'),
    ("ml", '\u{d00}', '\u{d7f}'),
    ("th", '\u{e00}', '\u{e7f}'),
    ("ja", '\u{3040}', '\u{30ff}'),
    ("ko", '\u{ac00}', '\u{d7af}'),
];

/// The language of a text: by letters that it alone has, by its little words where they speak for English or Swahili,
/// else by whatlang.
///
/// Capitals are no hindrance. Addresses of web pages and mail do not count.
pub(super) fn language(text: &str) -> Finding {
    let words: Vec<&str> =
        text.split_whitespace().filter(|word| !word.contains("://") && !word.contains('@')).collect();
    let text = words.join(" ").to_lowercase();
    if !text.contains(char::is_alphabetic) {
        return Finding::NoLetters;
    }
    if let Some(code) = by_letters(&text) {
        return Finding::Code(code);
    }
    let share = |of: &HashSet<&str>| {
        let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let (mut all, mut found) = (0_usize, 0_usize);
        for word in words {
            all += 1;
            found += usize::from(of.contains(word));
        }
        found as f64 / all.max(1) as f64
    };
    static LITTLE: LazyLock<[HashSet<&str>; 2]> =
        LazyLock::new(|| [ENGLISH, SWAHILI].map(|words| words.split(' ').collect()));
    /// Share of little words from which on there is no doubt: other languages share a few of them.
    const CLEAR: f64 = 0.2;
    let [english, swahili] = &*LITTLE;
    let (english, swahili) = (share(english), share(swahili));
    if english.max(swahili) >= CLEAR {
        return Finding::Code(if english >= swahili { "en" } else { "sw" });
    }
    match DETECTOR.detect_lang(&text) {
        Some(Lang::Urd) => Finding::Code("ur"),
        Some(Lang::Vie) => Finding::Code("vi"),
        Some(Lang::Cmn) => Finding::Code("zh-cn"),
        Some(found) => LANGUAGES
            .iter()
            .find(|(language, _)| *language == found)
            .map_or(Finding::Unclear, |(_, code)| Finding::Code(code)),
        None => Finding::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_by_letters_and_little_words() {
        for (text, expected) in [
            ("THE CAT IS ON THE TABLE AND IT IS NOT MINE.", Finding::Code("en")),
            ("Der Hund schläft heute lange vor dem warmen Ofen und träumt.", Finding::Code("de")),
            ("Watoto wanacheza katika bustani na wazazi wao kwa furaha kila siku.", Finding::Code("sw")),
            ("Я люблю читать книги по вечерам, когда идёт дождь.", Finding::Code("ru")),
            ("오늘은 날씨가 매우 좋습니다.", Finding::Code("ko")),
            ("12 + 30 = 42! https://example.org/the/of", Finding::NoLetters),
        ] {
            assert_eq!(language(text), expected, "{text}");
        }
    }
}
