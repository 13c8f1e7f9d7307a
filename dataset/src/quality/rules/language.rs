//! The language of an answer, by its script and by trigrams of letters.

use whatlang::{Lang, Script};

use super::prose::prose;

/// Letters from which on a script can be told.
const SCRIPT_LETTERS: usize = 12;
/// Letters from which on a language can be told.
const LETTERS: usize = 80;
/// How sure the detector must be, of 1.
const SURE: f64 = 0.95;

/// A language that can be told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Language(Lang);

/// ISO 639-1 codes of the languages that the detector knows.
const CODES: [(&str, Lang); 66] = [
    ("af", Lang::Afr),
    ("ak", Lang::Aka),
    ("am", Lang::Amh),
    ("ar", Lang::Ara),
    ("az", Lang::Aze),
    ("be", Lang::Bel),
    ("bg", Lang::Bul),
    ("bn", Lang::Ben),
    ("ca", Lang::Cat),
    ("cs", Lang::Ces),
    ("cy", Lang::Cym),
    ("da", Lang::Dan),
    ("de", Lang::Deu),
    ("el", Lang::Ell),
    ("en", Lang::Eng),
    ("eo", Lang::Epo),
    ("es", Lang::Spa),
    ("et", Lang::Est),
    ("fa", Lang::Pes),
    ("fi", Lang::Fin),
    ("fr", Lang::Fra),
    ("gu", Lang::Guj),
    ("he", Lang::Heb),
    ("hi", Lang::Hin),
    ("hr", Lang::Hrv),
    ("hu", Lang::Hun),
    ("hy", Lang::Hye),
    ("id", Lang::Ind),
    ("it", Lang::Ita),
    ("ja", Lang::Jpn),
    ("jv", Lang::Jav),
    ("ka", Lang::Kat),
    ("km", Lang::Khm),
    ("kn", Lang::Kan),
    ("ko", Lang::Kor),
    ("la", Lang::Lat),
    ("lt", Lang::Lit),
    ("lv", Lang::Lav),
    ("mk", Lang::Mkd),
    ("ml", Lang::Mal),
    ("mr", Lang::Mar),
    ("my", Lang::Mya),
    ("nb", Lang::Nob),
    ("ne", Lang::Nep),
    ("nl", Lang::Nld),
    ("no", Lang::Nob),
    ("or", Lang::Ori),
    ("pa", Lang::Pan),
    ("pl", Lang::Pol),
    ("pt", Lang::Por),
    ("ro", Lang::Ron),
    ("ru", Lang::Rus),
    ("si", Lang::Sin),
    ("sk", Lang::Slk),
    ("sl", Lang::Slv),
    ("sn", Lang::Sna),
    ("sr", Lang::Srp),
    ("sv", Lang::Swe),
    ("ta", Lang::Tam),
    ("te", Lang::Tel),
    ("th", Lang::Tha),
    ("tr", Lang::Tur),
    ("uk", Lang::Ukr),
    ("ur", Lang::Urd),
    ("vi", Lang::Vie),
    ("zh", Lang::Cmn),
];

/// Languages that trigrams of a few sentences confuse: none is held against another of its group.
const NEIGHBOURS: [&[Lang]; 9] = [
    &[Lang::Nob, Lang::Dan, Lang::Swe],
    &[Lang::Spa, Lang::Por, Lang::Cat, Lang::Ita, Lang::Lat, Lang::Ron],
    &[Lang::Hrv, Lang::Srp, Lang::Slv, Lang::Mkd, Lang::Bul],
    &[Lang::Ces, Lang::Slk],
    &[Lang::Rus, Lang::Ukr, Lang::Bel, Lang::Bul, Lang::Mkd, Lang::Srp],
    &[Lang::Hin, Lang::Mar, Lang::Nep],
    &[Lang::Nld, Lang::Afr, Lang::Deu],
    &[Lang::Tur, Lang::Aze, Lang::Tuk, Lang::Uzb],
    &[Lang::Ind, Lang::Jav, Lang::Tgl],
];

impl Language {
    /// The language of a code (`en`, `eng`, `en-GB`) or an English name (`German`); `None` for one that is not known.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.trim().to_lowercase();
        let code = name.split(['-', '_']).next().unwrap_or_default();
        let short = CODES.iter().find(|(known, _)| *known == code).map(|(_, language)| *language);
        let language = short.or_else(|| Lang::from_code(code)).or_else(|| match name.as_str() {
            "chinese" => Some(Lang::Cmn),
            "norwegian" => Some(Lang::Nob),
            _ => Lang::all().iter().copied().find(|language| language.eng_name().to_lowercase() == name),
        })?;
        Some(Self(language))
    }

    /// The English name.
    pub fn name(self) -> &'static str {
        self.0.eng_name()
    }

    /// Which other language a text is surely in. Code does not count; a short text can only have the wrong script.
    pub(super) fn contradicted(self, text: &str) -> Option<String> {
        let prose = prose(text);
        let letters = prose.chars().filter(|letter| letter.is_alphabetic()).count();
        let script = whatlang::detect_script(&prose)?;
        if letters >= SCRIPT_LETTERS && !self.written_in(script) {
            return Some(format!("{} letters where {} is asked for", script.name(), self.name()));
        }
        if letters < LETTERS {
            return None;
        }
        let found = whatlang::detect(&prose)?;
        let near = found.lang() == self.0
            || NEIGHBOURS.iter().any(|group| group.contains(&self.0) && group.contains(&found.lang()));
        (!near && found.is_reliable() && found.confidence() >= SURE)
            .then(|| format!("{} where {} is asked for", found.lang().eng_name(), self.name()))
    }

    fn written_in(self, script: Script) -> bool {
        match self.0 {
            // Kanji are Mandarin to a detector of scripts; Serbian, Azerbaijani, Uzbek and Turkmen have two alphabets.
            Lang::Jpn => matches!(script, Script::Mandarin | Script::Hiragana | Script::Katakana),
            Lang::Srp | Lang::Aze | Lang::Uzb | Lang::Tuk => matches!(script, Script::Latin | Script::Cyrillic),
            Lang::Kor => matches!(script, Script::Hangul | Script::Mandarin),
            language => script.langs().contains(&language),
        }
    }
}
