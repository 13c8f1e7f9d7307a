//! The objects of a file, found by looking through it from start to end: the table at its end is not needed, so a damaged
//! one does no harm, and later versions of an object stand later.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::decode::unpack;
use super::object::{Dictionary, Lexer, Object, is_white};
use super::{damaged, text_string};
use crate::document::{ExtractError, Limits};

/// Most pages that are read.
const MAX_PAGES: usize = 20_000;

/// How many times its length a file may make the reader look at: objects that seem to hold each other are read again.
const LOOKS: usize = 8;

/// A page: its own dictionary, and the resources that it inherits.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub dictionary: Rc<Dictionary>,
    pub resources: Option<Object>,
}

#[derive(Debug)]
pub(super) struct Pdf<'a> {
    bytes: &'a [u8],
    objects: HashMap<u32, Object>,
    trailer: Dictionary,
    limits: Limits,
    left: Cell<usize>,
    cut: Cell<usize>,
}

impl<'a> Pdf<'a> {
    pub fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, ExtractError> {
        let mut pdf = Self {
            bytes,
            objects: HashMap::new(),
            trailer: Dictionary::new(),
            limits: *limits,
            left: Cell::new(limits.unpacked_bytes),
            cut: Cell::new(0),
        };
        pdf.scan()?;
        if pdf.trailer.contains_key(&b"Encrypt"[..]) {
            return Err(ExtractError::Encrypted("PDF"));
        }
        Ok(pdf)
    }

    /// Streams that were damaged before their end.
    pub fn cut_streams(&self) -> usize {
        self.cut.get()
    }

    fn scan(&mut self) -> Result<(), ExtractError> {
        let mut at = 0;
        let mut looked = 0;
        let mut packed: Vec<Object> = Vec::new();
        while let Some(found) = next_marker(self.bytes, at) {
            let (start, number) = match found {
                Marker::Trailer(start) => (start, None),
                Marker::Object(start, number) => (start, Some(number)),
            };
            let mut lexer = Lexer::new(self.bytes, start, self.limits.depth);
            let object = lexer.next().unwrap_or(Object::Null);
            looked += lexer.at - start;
            if looked > LOOKS * self.bytes.len() {
                return Err(damaged("its objects seem to hold each other"));
            }
            at = lexer.at.max(start);
            let Some(number) = number else {
                if let Some(entries) = object.dictionary() {
                    self.add_trailer(&entries.clone());
                }
                continue;
            };
            let object = match object {
                Object::Dictionary(entries) => match self.stream(&entries, at) {
                    Some((from, to)) => {
                        at = to;
                        Object::Stream(entries, from, to)
                    }
                    None => Object::Dictionary(entries),
                },
                // A string that never closes would swallow the objects behind it.
                other => {
                    if matches!(other, Object::String(_) | Object::Keyword(_)) {
                        at = start;
                    }
                    other
                }
            };
            if let Object::Stream(entries, ..) = &object {
                match entries.get(&b"Type"[..]).and_then(Object::name) {
                    Some(b"XRef") => self.add_trailer(&entries.clone()),
                    Some(b"ObjStm") => {
                        // Its objects stand where it stands: what comes later in the file replaces them.
                        self.unpack_objects(&object)?;
                        packed.push(object.clone());
                    }
                    _ => {}
                }
            }
            self.objects.insert(number, object);
            if self.objects.len() > 4_000_000 {
                return Err(ExtractError::Limit { what: "the number of its objects", limit: 4_000_000 });
            }
        }
        Ok(())
    }

    fn add_trailer(&mut self, entries: &Dictionary) {
        for key in [&b"Root"[..], b"Info", b"Encrypt"] {
            if let Some(value) = entries.get(key) {
                self.trailer.insert(key.into(), value.clone());
            }
        }
    }

    /// Where the bytes of a stream stand whose dictionary ends at `at`.
    fn stream(&self, entries: &Dictionary, at: usize) -> Option<(usize, usize)> {
        let mut lexer = Lexer::new(self.bytes, at, 0);
        lexer.skip_white();
        let rest = self.bytes.get(lexer.at..)?.strip_prefix(b"stream")?;
        let rest = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")).or(rest.strip_prefix(b"\r")).unwrap_or(rest);
        let start = self.bytes.len() - rest.len();
        if let Some(length) = entries.get(&b"Length"[..]).and_then(Object::number) {
            let end = start.saturating_add(length as usize);
            let mut after = Lexer::new(self.bytes, end, 0);
            after.skip_white();
            if length >= 0.0 && self.bytes.get(after.at..).is_some_and(|rest| rest.starts_with(b"endstream")) {
                return Some((start, end));
            }
        }
        let length = rest.windows(9).position(|window| window == b"endstream").unwrap_or(rest.len());
        Some((start, start + length))
    }

    fn unpack_objects(&mut self, stream: &Object) -> Result<(), ExtractError> {
        let bytes = self.unpacked(stream)?;
        let get = |key: &[u8]| Some(stream.dictionary()?.get(key)?.number()? as usize);
        let (Some(count), Some(first)) = (get(b"N"), get(b"First")) else { return Ok(()) };
        let mut header = Lexer::new(&bytes, 0, 0);
        for _ in 0..count {
            let (Some(Object::Number(number)), Some(Object::Number(offset))) = (header.next(), header.next()) else {
                break;
            };
            if header.at > first {
                break;
            }
            let mut lexer = Lexer::new(&bytes, first.saturating_add(offset as usize), self.limits.depth);
            if let Some(object) = lexer.next() {
                self.objects.insert(number as u32, object);
            }
        }
        Ok(())
    }

    /// An object with references followed; null for what is not there.
    pub fn resolve(&self, object: &Object) -> Object {
        let mut object = object;
        // Chains are short, and a ring of them ends too.
        for _ in 0..16 {
            let Object::Reference(number) = object else { return object.clone() };
            let Some(found) = self.objects.get(number) else { return Object::Null };
            object = found;
        }
        Object::Null
    }

    pub fn get(&self, entries: &Dictionary, key: &[u8]) -> Object {
        entries.get(key).map_or(Object::Null, |value| self.resolve(value))
    }

    /// The bytes of a stream with its filters undone; nothing for what is no stream or a picture.
    pub fn unpacked(&self, object: &Object) -> Result<Vec<u8>, ExtractError> {
        let Object::Stream(entries, from, to) = object else { return Ok(Vec::new()) };
        let mut bytes = self.bytes.get(*from..*to).unwrap_or_default().to_vec();
        let filters = match self.get(entries, b"Filter") {
            Object::Array(filters) => filters.iter().map(|filter| self.resolve(filter)).collect(),
            Object::Null => Vec::new(),
            filter => vec![filter],
        };
        for filter in filters.iter().take(8) {
            let most = self.left.get();
            let Some(unpacked) = unpack(filter.name().unwrap_or_default(), &bytes, most) else { return Ok(Vec::new()) };
            if unpacked.bytes.len() > most {
                let limit = self.limits.unpacked_bytes as u64;
                return Err(ExtractError::Limit { what: "what it unpacks to in bytes", limit });
            }
            self.left.set(most - unpacked.bytes.len());
            self.cut.set(self.cut.get() + usize::from(unpacked.cut));
            bytes = unpacked.bytes;
        }
        Ok(bytes)
    }

    /// The pages in order.
    pub fn pages(&self) -> Vec<Page> {
        let root = self.get(&self.trailer, b"Root");
        let tree = root.dictionary().and_then(|root| root.get(&b"Pages"[..]).cloned());
        let mut pages = Vec::new();
        if let Some(tree) = tree {
            self.collect(&tree, None, self.limits.depth, &mut HashSet::new(), &mut pages);
        }
        if pages.is_empty() {
            // Without a tree: every page that there is, by number.
            let is_page = |object: &Object| {
                object.dictionary().is_some_and(|entries| self.get(entries, b"Type").name() == Some(b"Page"))
            };
            let mut numbers: Vec<u32> =
                self.objects.iter().filter(|(_, object)| is_page(object)).map(|(number, _)| *number).collect();
            numbers.sort_unstable();
            for number in numbers.into_iter().take(MAX_PAGES) {
                if let Some(dictionary) = self.objects.get(&number).and_then(Object::dictionary) {
                    let resources = dictionary.get(&b"Resources"[..]).cloned();
                    pages.push(Page { dictionary: dictionary.clone(), resources });
                }
            }
        }
        pages
    }

    fn collect(
        &self,
        node: &Object,
        resources: Option<&Object>,
        depth: usize,
        seen: &mut HashSet<u32>,
        pages: &mut Vec<Page>,
    ) {
        if let Object::Reference(number) = node
            && !seen.insert(*number)
        {
            return;
        }
        let node = self.resolve(node);
        let Some(entries) = node.dictionary() else { return };
        let resources = entries.get(&b"Resources"[..]).or(resources);
        match self.get(entries, b"Kids") {
            Object::Array(kids) if depth > 0 => {
                for kid in kids.iter() {
                    self.collect(kid, resources, depth - 1, seen, pages);
                }
            }
            _ if pages.len() < MAX_PAGES && !entries.contains_key(&b"Kids"[..]) => {
                pages.push(Page { dictionary: entries.clone(), resources: resources.cloned() });
            }
            _ => {}
        }
    }

    /// What the file calls itself.
    pub fn title(&self) -> Option<String> {
        let info = self.get(&self.trailer, b"Info");
        text_string(&self.get(info.dictionary()?, b"Title"))
    }
}

enum Marker {
    /// `trailer`: its dictionary begins here.
    Trailer(usize),
    /// `12 0 obj`: the object begins here.
    Object(usize, u32),
}

/// The next place where an object or a trailer begins.
fn next_marker(bytes: &[u8], from: usize) -> Option<Marker> {
    let mut at = from;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let found = rest.iter().position(|byte| matches!(byte, b'o' | b't'))?;
        at += found;
        let rest = &bytes[at..];
        if rest.starts_with(b"trailer") {
            return Some(Marker::Trailer(at + 7));
        }
        if rest.starts_with(b"obj")
            && let Some(number) = number_before(&bytes[from..at])
        {
            return Some(Marker::Object(at + 3, number));
        }
        at += 1;
    }
    None
}

/// The 12 of `12 0 ` at the end of the bytes.
fn number_before(bytes: &[u8]) -> Option<u32> {
    /// Ten digits twice and some white space.
    const LONGEST: usize = 40;
    let bytes = &bytes[bytes.len().saturating_sub(LONGEST)..];
    let end = bytes.iter().rposition(|&byte| !is_white(byte))? + 1;
    let generation = bytes[..end].iter().rposition(|byte| !byte.is_ascii_digit())? + 1;
    let gap = bytes[..generation].iter().rposition(|&byte| !is_white(byte))? + 1;
    let start = bytes[..gap].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
    if generation == end || gap == generation || start == gap {
        return None;
    }
    std::str::from_utf8(&bytes[start..gap]).ok()?.parse().ok()
}
