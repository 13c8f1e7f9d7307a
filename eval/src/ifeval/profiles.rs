//! How often runs of one to three characters stand in 55 languages: the profiles of language-detection (Nakatani 2010, Apache-2.0), as
//! Python's langdetect has them (`scripts/embed-languages.py`).

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::LazyLock;

use bzip2::read::BzDecoder;

/// The longest run.
pub(super) const LONGEST: usize = 3;

/// A run of characters; shorter ones end in zeros.
pub(super) type Run = [char; LONGEST];

/// The profiles of all languages.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    /// ISO 639-1 codes, `zh-cn` and `zh-tw`.
    pub(super) codes: Vec<String>,
    runs: HashMap<Run, Range<usize>>,
    /// (place of the language, share of the run among those of its length there)
    shares: Vec<(usize, f64)>,
    /// Chinese characters that another one stands for.
    stands_for: HashMap<char, char>,
}

/// The profiles that are built in; damaged ones know no run, which the tests would show.
pub(super) static PROFILES: LazyLock<Profiles> = LazyLock::new(|| {
    let mut text = String::new();
    let packed = &include_bytes!("../../data/languages.txt.bz2")[..];
    match BzDecoder::new(packed).read_to_string(&mut text) {
        Ok(_) => Profiles::read(&text).unwrap_or_default(),
        Err(_) => Profiles::default(),
    }
});

/// The characters as a run; `None` where they are none or too many.
pub(super) fn run(characters: &[char]) -> Option<Run> {
    if characters.is_empty() || characters.len() > LONGEST {
        return None;
    }
    let mut run = Run::default();
    run[..characters.len()].copy_from_slice(characters);
    Some(run)
}

impl Profiles {
    fn read(text: &str) -> Option<Self> {
        let mut profiles = Self::default();
        let mut totals: Vec<Vec<f64>> = Vec::new();
        for line in text.lines() {
            if let Some((characters, counts)) = line.split_once('\t') {
                let characters: Vec<char> = characters.chars().collect();
                let first = profiles.shares.len();
                for count in counts.split(',') {
                    let (place, count) = count.split_once(':')?;
                    let (place, count): (usize, f64) = (place.parse().ok()?, count.parse().ok()?);
                    profiles.shares.push((place, count / totals.get(place)?.get(characters.len() - 1)?));
                }
                profiles.runs.insert(run(&characters)?, first..profiles.shares.len());
            } else if let Some(group) = line.strip_prefix('=') {
                let first = group.chars().next()?;
                profiles.stands_for.extend(group.chars().map(|character| (character, first)));
            } else {
                let mut words = line.strip_prefix('@')?.split(' ');
                profiles.codes.push(words.next()?.to_owned());
                totals.push(words.map(|word| word.parse().ok()).collect::<Option<_>>()?);
            }
        }
        Some(profiles)
    }

    /// The share of a run in the languages that have it; `None` where none has it.
    pub(super) fn shares(&self, run: &Run) -> Option<&[(usize, f64)]> {
        self.shares.get(self.runs.get(run)?.clone())
    }

    /// The character that stands for a Chinese one.
    pub(super) fn representative(&self, character: char) -> char {
        self.stands_for.get(&character).copied().unwrap_or(character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_whole() {
        let profiles = &*PROFILES;
        assert_eq!((profiles.codes.len(), profiles.runs.len(), profiles.shares.len()), (55, 87_598, 184_129));
        let english = profiles.codes.iter().position(|code| code == "en").unwrap();
        let shares = profiles.shares(&['t', 'h', 'e']).unwrap();
        let share = |place| shares.iter().find(|(language, _)| *language == place).map_or(0.0, |(_, share)| *share);
        let most = (0..55).max_by(|&a, &b| share(a).total_cmp(&share(b)));
        assert_eq!(most, Some(english));
        assert_eq!(profiles.representative('椴'), '佼');
        assert_eq!(profiles.shares(&['t', 'h', '\u{1}']), None);
    }
}
