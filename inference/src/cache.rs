//! Keys and values of all sequences, in pages that sequences share.
//!
//! A sequence is a [`PageTable`]: the pages of its positions, [`PAGE_POSITIONS`] in each. Sequences with a common beginning
//! name the same pages for it; together their tables are a tree of prefixes. A page is freed when no table names it. Only
//! the page in which two sequences part exists twice: the second one gets the common positions of it as a copy.
//!
//! Layers with a window keep pages of their own, and a table lets go of those that no later query sees.

use espalier_kernels::ops::{KeyValuePages, PAGE_POSITIONS, PageFork, PageShape, PageSlot};

use crate::weights::Weights;

/// The pages of a table in one group of layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageSpan {
    /// Which page of the sequence the first of `pages` is; those before it are behind the window.
    pub(crate) first: usize,
    /// Their numbers.
    pub(crate) pages: Vec<u32>,
}

/// The pages of one sequence. Not `Clone`: every table is counted, and has to go back through [`Cache::release`].
#[derive(Debug, Default)]
pub(crate) struct PageTable {
    /// For each group of layers.
    spans: Vec<PageSpan>,
    /// Positions that are written, or will be by the batch in preparation.
    length: usize,
}

impl PageTable {
    /// Positions that are written, or will be by the batch in preparation.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The pages in one group of layers.
    pub(crate) fn span(&self, group: usize) -> &PageSpan {
        &self.spans[group]
    }
}

/// Layers with one window, and their pages.
#[derive(Debug)]
pub(crate) struct LayerGroup {
    window: Option<usize>,
    pub(crate) pages: KeyValuePages,
    /// How many tables name each page.
    named: Vec<u32>,
    free: Vec<u32>,
    /// Pages that no table names any more, but that the batch in preparation may read.
    resting: Vec<u32>,
    /// Forks of the batch in preparation.
    pub(crate) forks: Vec<PageFork>,
}

impl LayerGroup {
    fn take(&mut self) -> u32 {
        let page = self.free.pop().unwrap_or_else(|| self.pages.grow());
        self.named.resize(self.named.len().max(page as usize + 1), 0);
        self.named[page as usize] = 1;
        page
    }

    fn release(&mut self, page: u32) {
        let named = &mut self.named[page as usize];
        *named -= 1;
        if *named == 0 {
            self.resting.push(page);
        }
    }

    fn fork(&mut self, from: u32, positions: usize) -> u32 {
        let to = self.take();
        // The source stays until the batch has run, whatever becomes of its table.
        self.named[from as usize] += 1;
        self.forks.push(PageFork { from, to, positions: positions as u32 });
        to
    }

    /// The first page that the query at a position sees.
    fn first_page(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window)) / PAGE_POSITIONS
    }

    /// The most pages that a sequence of so many positions holds at a time, read in steps of `step`.
    fn most_pages(&self, positions: usize, step: usize) -> usize {
        let all = positions.div_ceil(PAGE_POSITIONS);
        self.window.map_or(all, |window| all.min((window + step).div_ceil(PAGE_POSITIONS) + 2))
    }

    fn used(&self) -> usize {
        self.named.len() - self.free.len()
    }
}

/// Keys and values of all sequences of a call.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) groups: Vec<LayerGroup>,
    /// For each layer its group and its place there.
    places: Vec<(usize, usize)>,
}

impl Cache {
    /// Without pages; memory comes with the first rows.
    ///
    pub(crate) fn new(weights: &Weights) -> Self {
        let (config, element) = (&weights.config, weights.kept);
        let mut windows: Vec<(Option<usize>, usize)> = Vec::new();
        let mut places = Vec::with_capacity(config.layers);
        for layer in 0..config.layers {
            // A window as long as the context is none.
            let window = config.attention_shape(layer).window.filter(|&window| window < config.context);
            let group = windows.iter().position(|(other, _)| *other == window).unwrap_or_else(|| {
                windows.push((window, 0));
                windows.len() - 1
            });
            places.push((group, windows[group].1));
            windows[group].1 += 1;
        }
        let shape = |layers| PageShape { element, layers, kv_heads: config.kv_heads, head_dim: config.head_dim };
        let group = |(window, layers)| LayerGroup {
            window,
            pages: KeyValuePages::new(shape(layers)),
            named: Vec::new(),
            free: Vec::new(),
            resting: Vec::new(),
            forks: Vec::new(),
        };
        Self { groups: windows.into_iter().map(group).collect(), places }
    }

    /// The group of a layer, and which of its layers it is.
    pub(crate) fn place(&self, layer: usize) -> (usize, usize) {
        self.places[layer]
    }

    /// An empty sequence.
    pub(crate) fn table(&self) -> PageTable {
        PageTable { spans: vec![PageSpan::default(); self.groups.len()], length: 0 }
    }

    /// Gives a sequence pages for `rows` positions from `start` on, where a batch will write; what it held from there on is
    /// forgotten. Pages behind a window go, as far as no query from `lowest` on sees them. Tells the slots of the rows for each
    /// group of layers.
    pub(crate) fn prepare(
        &mut self,
        table: &mut PageTable,
        start: usize,
        rows: usize,
        lowest: usize,
        slots: &mut [Vec<PageSlot>],
    ) {
        debug_assert!(start <= table.length, "positions without a gap");
        self.truncate(table, start);
        for ((group, span), slots) in self.groups.iter_mut().zip(&mut table.spans).zip(slots) {
            let first = group.first_page(start.min(lowest));
            while span.first < first && !span.pages.is_empty() {
                group.release(span.pages.remove(0));
                span.first += 1;
            }
            if span.pages.is_empty() {
                // The first position of a page, so that nothing of it is missing.
                span.first = start / PAGE_POSITIONS;
            }
            while (span.first + span.pages.len()) * PAGE_POSITIONS < start + rows {
                span.pages.push(group.take());
            }
            slots.extend((start..start + rows).map(|position| PageSlot {
                page: span.pages[position / PAGE_POSITIONS - span.first],
                slot: (position % PAGE_POSITIONS) as u32,
            }));
        }
        table.length = start + rows;
    }

    /// Forgets the positions from `length` on. The page in which that lies is another one then, for a batch in preparation
    /// may still read the old one.
    fn truncate(&mut self, table: &mut PageTable, length: usize) {
        if length >= table.length {
            return;
        }
        for (group, span) in self.groups.iter_mut().zip(&mut table.spans) {
            let (page, rest) = (length / PAGE_POSITIONS, length % PAGE_POSITIONS);
            debug_assert!(length == 0 || page >= span.first, "a step back behind what a window has kept");
            let forgotten = span.pages.split_off(page.saturating_sub(span.first));
            if rest > 0 {
                span.pages.push(group.fork(forgotten[0], rest));
            }
            for page in forgotten {
                group.release(page);
            }
        }
        table.length = length;
    }

    /// How many of the first `wanted` positions of a sequence another one can begin with: all that are written, unless a
    /// layer with a window has let go of what the next query sees.
    pub(crate) fn shareable(&self, table: &PageTable, wanted: usize) -> usize {
        let wanted = wanted.min(table.length);
        let held = self.groups.iter().zip(&table.spans).all(|(group, span)| span.first <= group.first_page(wanted));
        if held { wanted } else { 0 }
    }

    /// A sequence that begins with the first `positions` of another one, as many as are [shareable](Self::shareable).
    pub(crate) fn share(&mut self, table: &PageTable, positions: usize) -> PageTable {
        let spans = self.groups.iter_mut().zip(&table.spans).map(|(group, span)| {
            let first = group.first_page(positions).min(positions / PAGE_POSITIONS);
            let mut pages = span.pages[first - span.first..positions / PAGE_POSITIONS - span.first].to_vec();
            for &page in &pages {
                group.named[page as usize] += 1;
            }
            let rest = positions % PAGE_POSITIONS;
            if rest > 0 {
                pages.push(group.fork(span.pages[positions / PAGE_POSITIONS - span.first], rest));
            }
            PageSpan { first, pages }
        });
        PageTable { spans: spans.collect(), length: positions }
    }

    /// The same sequence once more, without a page of its own: to be read and shared, not to be prolonged.
    pub(crate) fn keep(&mut self, table: &PageTable) -> PageTable {
        for (group, span) in self.groups.iter_mut().zip(&table.spans) {
            for &page in &span.pages {
                group.named[page as usize] += 1;
            }
        }
        PageTable { spans: table.spans.clone(), length: table.length }
    }

    /// Gives back a sequence's pages.
    pub(crate) fn release(&mut self, table: PageTable) {
        for (group, span) in self.groups.iter_mut().zip(table.spans) {
            for page in span.pages {
                group.release(page);
            }
        }
    }

    /// Says that no batch is in preparation: forks are done, and pages that were released may be written again.
    pub(crate) fn settle(&mut self) {
        for group in &mut self.groups {
            for fork in std::mem::take(&mut group.forks) {
                group.release(fork.from);
            }
            group.free.append(&mut group.resting);
        }
    }

    /// Memory of the pages that are in use.
    pub(crate) fn used_bytes(&self) -> usize {
        self.groups.iter().map(|group| group.used() * group.pages.shape().page_bytes()).sum()
    }

    /// Memory of the pages in use that will be free when the batch in preparation has run.
    pub(crate) fn resting_bytes(&self) -> usize {
        self.groups.iter().map(|group| group.resting.len() * group.pages.shape().page_bytes()).sum()
    }

    /// The most memory that a sequence still takes until it has so many positions, read in steps of `step`.
    pub(crate) fn missing_bytes(&self, table: &PageTable, positions: usize, step: usize) -> usize {
        self.bytes_beyond(|group| table.spans[group].pages.len(), positions, step)
    }

    /// The most memory that another sequence of so many positions takes, of which the first `shared` are shared.
    pub(crate) fn needed_bytes(&self, shared: usize, positions: usize, step: usize) -> usize {
        self.bytes_beyond(|_| shared / PAGE_POSITIONS, positions, step)
    }

    fn bytes_beyond(&self, held: impl Fn(usize) -> usize, positions: usize, step: usize) -> usize {
        let groups = self.groups.iter().enumerate().map(|(index, group)| {
            let most = group.most_pages(positions, step);
            // What a window lets go of may live on in other tables, so that what is held saves nothing there.
            let held = if most < positions.div_ceil(PAGE_POSITIONS) { 0 } else { held(index) };
            most.saturating_sub(held) * group.pages.shape().page_bytes()
        });
        groups.sum()
    }
}

#[cfg(test)]
mod tests {
    use espalier_kernels::ops::PageElement;

    use super::*;

    fn cache(windows: &[Option<usize>]) -> Cache {
        let shape = PageShape { element: PageElement::F32, layers: 1, kv_heads: 1, head_dim: 1 };
        let group = |&window: &Option<usize>| LayerGroup {
            window,
            pages: KeyValuePages::new(shape),
            named: Vec::new(),
            free: Vec::new(),
            resting: Vec::new(),
            forks: Vec::new(),
        };
        let places = (0..windows.len()).map(|group| (group, 0)).collect();
        Cache { groups: windows.iter().map(group).collect(), places }
    }

    fn write(cache: &mut Cache, table: &mut PageTable, start: usize, rows: usize) -> Vec<PageSlot> {
        let mut slots = vec![Vec::new(); cache.groups.len()];
        cache.prepare(table, start, rows, start, &mut slots);
        slots.swap_remove(0)
    }

    #[test]
    fn a_shared_prefix_is_the_same_pages_and_a_fork_of_the_last() {
        let mut cache = cache(&[None]);
        let mut first = cache.table();
        write(&mut cache, &mut first, 0, 150);
        assert_eq!(first.span(0).pages, [0, 1, 2]);
        let mut second = cache.share(&first, 130);
        assert_eq!(second.span(0).pages, [0, 1, 3]);
        assert_eq!(cache.groups[0].forks, [PageFork { from: 2, to: 3, positions: 2 }]);
        assert_eq!(write(&mut cache, &mut second, 130, 1), [PageSlot { page: 3, slot: 2 }]);
        cache.release(first);
        assert_eq!(cache.groups[0].free, [0_u32; 0], "the fork is not yet done");
        cache.settle();
        assert_eq!(cache.groups[0].free, [2]);
        cache.release(second);
        cache.settle();
        assert_eq!(cache.used_bytes(), 0);
    }

    #[test]
    fn stepping_back_leaves_what_the_batch_reads() {
        let mut cache = cache(&[None]);
        let mut table = cache.table();
        write(&mut cache, &mut table, 0, 70);
        assert_eq!(write(&mut cache, &mut table, 68, 1), [PageSlot { page: 2, slot: 4 }]);
        assert_eq!(cache.groups[0].forks, [PageFork { from: 1, to: 2, positions: 4 }]);
        assert_eq!(write(&mut cache, &mut table, 64, 1), [PageSlot { page: 3, slot: 0 }]);
        cache.settle();
        assert_eq!(cache.groups[0].used(), 2);
        cache.release(table);
        cache.settle();
        assert_eq!(cache.used_bytes(), 0);
    }

    #[test]
    fn what_has_left_the_window_is_freed() {
        let mut cache = cache(&[None, Some(100)]);
        let mut table = cache.table();
        write(&mut cache, &mut table, 0, 200);
        assert_eq!(table.span(1), &PageSpan { first: 0, pages: vec![0, 1, 2, 3] });
        write(&mut cache, &mut table, 200, 1);
        assert_eq!(table.span(1), &PageSpan { first: 1, pages: vec![1, 2, 3] });
        assert_eq!(table.span(0).pages.len(), 4);
        assert_eq!((cache.shareable(&table, 170), cache.shareable(&table, 150)), (170, 0));
        let other = cache.share(&table, 192);
        assert_eq!(other.span(1), &PageSpan { first: 1, pages: vec![1, 2] });
        assert_eq!(cache.groups[1].most_pages(10_000, 64), 5);
        cache.release(table);
        cache.release(other);
        cache.settle();
        assert_eq!(cache.used_bytes(), 0);
    }
}
