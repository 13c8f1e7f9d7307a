//! Near-duplicates among rows by `MinHash`: of rows that are nearly the same, the first stays.
//!
//! A row is a near-duplicate when the Jaccard index of its [`Shingles`] with those of a row that was *kept* reaches the
//! threshold. So no two kept rows are twins (but for the 1 % of pairs at the threshold that never meet), and each rejected row
//! has its twin among the kept ones: no chain of small changes carries the first row's verdict to a row unlike it. Rows come in
//! their own order, and only sketches are made in parallel: the result is the same for any number of threads.
//!
//! State in memory is some 300 bytes a kept row; the shingles themselves are kept in memory or in a file.

mod bands;
mod log;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use self::bands::Bands;
use self::log::{Entry, Log};
use super::sample::Sample;
use super::shingles::Shingles;
use crate::error::DatasetError;
use crate::row::{Row, Verdict};

/// Kept rows that a row is compared with at most, the latest of each band first: a bound on the time when very many rows are
/// alike but not alike enough.
const MOST_COMPARED: usize = 1024;
/// Rows whose sketches are made at once.
const AT_ONCE: usize = 4096;
/// The end of a chain.
const NONE: u32 = u32::MAX;

/// What of a row is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compared {
    /// Everything that the user and the assistant say.
    #[default]
    Conversation,
    /// What the user asks: another answer to the same question is a twin.
    Question,
}

/// What is compared of one row: its whole text and, where the question has several paragraphs, what follows the last of them
/// as well. Both must be alike, else all questions about one long passage would be twins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    whole: Shingles,
    end: Option<Shingles>,
}

impl Fingerprint {
    /// What is compared of a row.
    pub fn new(sample: &Sample<'_>, compared: Compared) -> Self {
        let question = sample.question();
        let answer = match compared {
            Compared::Conversation => sample.answer(),
            Compared::Question => "".into(),
        };
        let end = sample.end_of_question().map(|end| Shingles::new(&format!("{end}\n{answer}")));
        Self { whole: Shingles::new(&format!("{question}\n{answer}")), end }
    }

    /// How alike two rows are, from 0 to 1.
    pub fn similarity(&self, other: &Self) -> f64 {
        let whole = self.whole.similarity(&other.whole);
        if self.end.is_none() && other.end.is_none() {
            return whole;
        }
        whole.min(self.last_part().similarity(other.last_part()))
    }

    fn last_part(&self) -> &Shingles {
        self.end.as_ref().unwrap_or(&self.whole)
    }
}

/// The row that a near-duplicate repeats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Duplicate {
    /// Id of the row that was kept.
    pub kept: String,
    /// How alike they are, from the threshold to 1.
    pub similarity: f64,
}

impl Duplicate {
    /// The reason of the rejection.
    pub fn reason(&self) -> String {
        // Cut, not rounded: what is not the same never reads as 1.00.
        format!("near-duplicate: {:.2} like {}", (self.similarity * 100.0).floor() / 100.0, self.kept)
    }
}

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = super::words::hash_of(bytes.iter().copied());
    }

    fn write_u32(&mut self, key: u32) {
        self.0 = super::words::mixed(u64::from(key));
    }
}

/// The kept rows, and by which keys they are found again.
#[derive(Debug)]
pub struct NearDuplicates {
    threshold: f64,
    compared: Compared,
    bands: Bands,
    /// Of each band: the latest kept row with a key.
    latest: Vec<HashMap<u32, u32, BuildHasherDefault<AsItIs>>>,
    /// Of each kept row and band: the kept row before with the same key.
    before: Vec<u32>,
    /// Of each kept row: where its entry is and how many shingles it has.
    kept: Vec<(u64, u32)>,
    /// Rows that other runs kept, and how many of `kept` they are.
    earlier: Option<(Log, usize)>,
    /// Rows kept here.
    here: Log,
    source: String,
}

impl NearDuplicates {
    /// Finds rows that are alike to `threshold` and more; shingles stay in memory.
    ///
    /// # Panics
    /// When the threshold is not in (0, 1].
    pub fn new(threshold: f64, compared: Compared) -> Self {
        assert!(threshold > 0.0 && threshold <= 1.0, "a similarity is more than 0 and at most 1, not {threshold}");
        let bands = Bands::of_threshold(threshold);
        Self {
            threshold,
            compared,
            bands,
            latest: vec![HashMap::default(); bands.bands],
            before: Vec::new(),
            kept: Vec::new(),
            earlier: None,
            here: Log::in_memory(),
            source: String::new(),
        }
    }

    /// The same, with the shingles of kept rows in a file of its own (`path`), which goes when this value goes.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn with_scratch(mut self, path: &Path) -> Result<Self, DatasetError> {
        self.here = Log::scratch(path)?;
        Ok(self)
    }

    /// Knows the rows of earlier runs too, from an index file (which need not be there yet). What an earlier run under the name
    /// `source` left there does not count: that run is being repeated.
    ///
    /// # Errors
    /// When the file cannot be read or is not an index.
    pub fn with_index(mut self, path: &Path, source: &str) -> Result<Self, DatasetError> {
        source.clone_into(&mut self.source);
        let Some((log, places)) = Log::open(path, source)? else { return Ok(self) };
        for places in places.chunks(AT_ONCE) {
            let entries = places.iter().map(|&place| log.read(place)).collect::<Result<Vec<_>, _>>()?;
            let keys: Vec<_> = entries.par_iter().map(|entry| self.bands.keys(&entry.fingerprint.whole)).collect();
            for ((entry, keys), &place) in entries.iter().zip(keys).zip(places) {
                self.link(place, &entry.fingerprint, &keys);
            }
        }
        self.earlier = Some((log, self.kept.len()));
        Ok(self)
    }

    /// Adds the rows kept here to an index file, in one piece: what a kill leaves unfinished is cut off by the next one who
    /// opens it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append_to(&self, path: &Path) -> Result<(), DatasetError> {
        self.here.append_to(path, &self.source)
    }

    /// Rows that were kept, those of earlier runs too.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Looks at rows in turn: of each, the kept row that it repeats; a row without one is kept.
    ///
    /// # Errors
    /// When the files of shingles cannot be read or written.
    pub fn add_all(&mut self, samples: &[Sample<'_>]) -> Result<Vec<Option<Duplicate>>, DatasetError> {
        let mut found = Vec::with_capacity(samples.len());
        for samples in samples.chunks(AT_ONCE) {
            let (bands, compared) = (self.bands, self.compared);
            let sketches: Vec<_> = samples
                .par_iter()
                .map(|sample| {
                    let fingerprint = Fingerprint::new(sample, compared);
                    let keys = bands.keys(&fingerprint.whole);
                    (fingerprint, keys)
                })
                .collect();
            for (sample, (fingerprint, keys)) in samples.iter().zip(sketches) {
                let duplicate = self.find(&fingerprint, &keys)?;
                if duplicate.is_none() && !fingerprint.whole.is_empty() {
                    let place = self.here.append(sample.id, &fingerprint)?;
                    self.link(place, &fingerprint, &keys);
                }
                found.push(duplicate);
            }
        }
        Ok(found)
    }

    /// The kept row that is most alike, where one is alike enough; of several the first.
    fn find(&self, fingerprint: &Fingerprint, keys: &[u32]) -> Result<Option<Duplicate>, DatasetError> {
        let mut best: Option<(u32, Duplicate)> = None;
        for place in self.candidates(keys) {
            let size = self.kept[place as usize].1 as usize;
            if Shingles::most((fingerprint.whole.hashes().len(), size)) < self.threshold {
                continue;
            }
            let Entry { id, fingerprint: other } = self.entry(place)?;
            let similarity = fingerprint.similarity(&other);
            let better = best.as_ref().is_none_or(|(at, found)| {
                similarity > found.similarity || (similarity >= found.similarity && place < *at)
            });
            if similarity >= self.threshold && better {
                best = Some((place, Duplicate { kept: id, similarity }));
            }
        }
        Ok(best.map(|(_, duplicate)| duplicate))
    }

    /// Kept rows that share a key, each once.
    fn candidates(&self, keys: &[u32]) -> Vec<u32> {
        let share = MOST_COMPARED / self.bands.bands;
        let mut candidates = Vec::new();
        for (band, key) in keys.iter().enumerate() {
            let mut place = self.latest[band].get(key).copied().unwrap_or(NONE);
            for _ in 0..share {
                if place == NONE {
                    break;
                }
                candidates.push(place);
                place = self.before[place as usize * self.bands.bands + band];
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    fn entry(&self, place: u32) -> Result<Entry, DatasetError> {
        let at = self.kept[place as usize].0;
        match &self.earlier {
            Some((log, rows)) if (place as usize) < *rows => log.read(at),
            _ => self.here.read(at),
        }
    }

    /// A row without shingles has no keys, and is like no other row.
    fn link(&mut self, at: u64, fingerprint: &Fingerprint, keys: &[u32]) {
        if keys.is_empty() {
            return;
        }
        let place = self.kept.len() as u32;
        self.kept.push((at, fingerprint.whole.hashes().len() as u32));
        for (band, &key) in keys.iter().enumerate() {
            self.before.push(self.latest[band].insert(key, place).unwrap_or(NONE));
        }
    }
}

/// Rejects every accepted row that repeats one which `known` holds or which stands before it.
///
/// # Errors
/// When the files of shingles cannot be read or written.
pub fn reject_near_duplicates(rows: &mut [Row], known: &mut NearDuplicates) -> Result<(), DatasetError> {
    let accepted: Vec<usize> = (0..rows.len()).filter(|&index| rows[index].verdict == Verdict::Accepted).collect();
    let samples: Vec<Sample<'_>> = accepted.iter().map(|&index| Sample::from(&rows[index])).collect();
    let found = known.add_all(&samples)?;
    for (index, duplicate) in accepted.into_iter().zip(found) {
        if let Some(duplicate) = duplicate {
            rows[index].verdict = Verdict::Rejected;
            rows[index].reason = duplicate.reason();
        }
    }
    Ok(())
}

/// The path of the shingles beside an output: it lies where the output will, so on the same disk.
pub fn scratch_of(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".shingles.part");
    output.with_file_name(name)
}

#[cfg(test)]
mod tests;
