//! Texts whose keys and values are kept, so that a prompt that begins like one of them need not be computed again.

use std::collections::VecDeque;

use crate::cache::{Cache, PageTable};
use crate::prefix;

/// How many beginnings are kept that requests take turns with: a few steps of a few flows.
const BEGINNINGS: usize = 16;

/// A text that is kept.
struct Text {
    name: u64,
    /// The sequence that reads it, while one does.
    reader: Option<u64>,
    /// Keys and values of other adapters are others.
    adapter: Option<usize>,
    tokens: Vec<u32>,
    /// What of it was computed, or will be by the batch in preparation.
    table: PageTable,
}

/// The longest beginning of a prompt that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The name of the text that has it.
    text: Option<u64>,
    /// How many positions can be shared at once.
    pub(crate) positions: usize,
    /// How many more a sequence that is reading will have computed.
    pub(crate) coming: usize,
}

/// Which texts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Of prompts that have most in common the newest: enough for lists in an order in which neighbours share the most. Requests
    /// that follow from answers take turns with their beginnings, so some of those stay.
    Beginnings,
    /// So many recent prompts, and ended answers for the prompts that continue them.
    Texts(usize),
}

impl Keep {
    /// How many texts are kept at most.
    const fn most(self) -> usize {
        match self {
            Self::Beginnings => BEGINNINGS,
            Self::Texts(most) => most,
        }
    }

    /// Whether a new text makes an old one superfluous.
    fn replaces(self, old: &[u32], new: &[u32]) -> bool {
        match self {
            Self::Beginnings => prefix::common_prefix(old, new) * 4 >= old.len() * 3,
            Self::Texts(_) => new.starts_with(old),
        }
    }
}

/// Kept texts, the one that was used least recently in front. None is a beginning of another.
pub(crate) struct Kept {
    texts: VecDeque<Text>,
    keep: Keep,
    /// How many were ever kept.
    names: u64,
}

impl Kept {
    /// Without texts.
    pub(crate) fn new(keep: Keep) -> Self {
        Self { texts: VecDeque::new(), keep, names: 0 }
    }

    /// Whether texts outlive their answers.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self.keep, Keep::Texts(_))
    }

    /// What of `prompt` is kept. Its last token is always computed: the logits behind it start the answer.
    pub(crate) fn find(&self, cache: &Cache, adapter: Option<usize>, prompt: &[u32]) -> Found {
        let mut best = Found::default();
        let mut ahead = 0;
        for text in self.texts.iter().filter(|text| text.adapter == adapter) {
            let useful = prefix::common_prefix(&text.tokens, prompt).min(prompt.len() - 1);
            let positions = cache.shareable(&text.table, useful);
            if positions > best.positions {
                best = Found { text: Some(text.name), positions, coming: 0 };
            }
            if text.reader.is_some() {
                ahead = ahead.max(useful);
            }
        }
        Found { coming: ahead.saturating_sub(best.positions), ..best }
    }

    /// A sequence that begins with what was found.
    pub(crate) fn share(&mut self, cache: &mut Cache, found: Found) -> PageTable {
        let at = self.texts.iter().position(|text| Some(text.name) == found.text);
        match at.and_then(|at| self.texts.remove(at)) {
            Some(text) => {
                let table = cache.share(&text.table, found.positions);
                self.texts.push_back(text);
                table
            }
            None => cache.table(),
        }
    }

    /// Keeps a text, in place of those that it makes superfluous; `table` is given back sooner or later.
    pub(crate) fn put(
        &mut self,
        cache: &mut Cache,
        reader: Option<u64>,
        adapter: Option<usize>,
        tokens: Vec<u32>,
        table: PageTable,
    ) {
        let covered = |text: &Text| {
            text.adapter == adapter && text.tokens.starts_with(&tokens) && text.table.length() >= tokens.len()
        };
        if self.texts.iter().any(covered) {
            cache.release(table);
            return;
        }
        let keep = self.keep;
        self.release_where(cache, |text| text.adapter == adapter && keep.replaces(&text.tokens, &tokens));
        while self.texts.len() >= keep.most() {
            self.evict(cache, None);
        }
        self.names += 1;
        self.texts.push_back(Text { name: self.names, reader, adapter, tokens, table });
    }

    /// Takes over what a reader has computed by now.
    pub(crate) fn advance(&mut self, cache: &mut Cache, reader: u64, table: &PageTable, done: bool) {
        if let Some(text) = self.texts.iter_mut().find(|text| text.reader == Some(reader)) {
            let before = std::mem::replace(&mut text.table, cache.keep(table));
            cache.release(before);
            if done {
                text.reader = None;
            }
        }
    }

    /// A reader has gone: what it has computed is there, nothing more will come.
    pub(crate) fn leave(&mut self, reader: u64) {
        if let Some(text) = self.texts.iter_mut().find(|text| text.reader == Some(reader)) {
            text.reader = None;
            text.tokens.truncate(text.table.length());
        }
    }

    /// Gives back the text that was used least recently, but not the one that was found; `false` when there is none.
    pub(crate) fn evict(&mut self, cache: &mut Cache, found: Option<Found>) -> bool {
        let spared = found.and_then(|found| found.text);
        let at = self.texts.iter().position(|text| Some(text.name) != spared);
        at.and_then(|at| self.texts.remove(at)).map(|text| cache.release(text.table)).is_some()
    }

    /// Gives back everything.
    pub(crate) fn clear(&mut self, cache: &mut Cache) {
        while self.evict(cache, None) {}
    }

    fn release_where(&mut self, cache: &mut Cache, goes: impl Fn(&Text) -> bool) {
        for _ in 0..self.texts.len() {
            match self.texts.pop_front() {
                Some(text) if goes(&text) => cache.release(text.table),
                Some(text) => self.texts.push_back(text),
                None => {}
            }
        }
    }
}
