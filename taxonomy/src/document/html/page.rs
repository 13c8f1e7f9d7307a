//! From tags to blocks.

use super::tokens::{Token, Tokens, attribute, unescape};
use crate::document::blocks::Blocks;
use crate::document::{ExtractError, Limits};

/// Elements that are no part of the text.
const LEFT_OUT: [&str; 10] =
    ["nav", "aside", "footer", "form", "button", "select", "template", "dialog", "canvas", "noscript"];

/// Elements that end the paragraph under way.
const BLOCKS: [&str; 27] = [
    "p",
    "div",
    "section",
    "article",
    "main",
    "header",
    "blockquote",
    "figure",
    "figcaption",
    "address",
    "fieldset",
    "dl",
    "dt",
    "dd",
    "hr",
    "body",
    "html",
    "head",
    "center",
    "details",
    "summary",
    "caption",
    "thead",
    "tbody",
    "tfoot",
    "hgroup",
    "search",
];

/// Elements that never hold anything.
const EMPTY: [&str; 9] = ["br", "hr", "img", "input", "meta", "link", "wbr", "col", "source"];

/// Lists deeper than this are written at this depth.
const DEEPEST_LIST: usize = 8;

/// Columns that one cell may span.
const WIDEST_CELL: usize = 64;

/// A page that has been read.
#[derive(Debug)]
pub(super) struct Page {
    /// Everything.
    pub whole: String,
    /// What stands in `main` or `article`.
    pub main: String,
    pub title: Option<String>,
    /// Whether the page ended in a part that is left out.
    pub cut_short: bool,
}

impl Page {
    /// Reads a page; with `everything`, navigation and the like too.
    pub fn read(text: &str, everything: bool, limits: &Limits) -> Result<Self, ExtractError> {
        let mut builder = Builder::new(limits);
        builder.everything = everything;
        for token in Tokens::new(text) {
            builder.token(token)?;
        }
        builder.finish()
    }
}

#[derive(Debug)]
struct List {
    /// The number of the next item; none for bullets.
    next: Option<u64>,
}

#[derive(Debug)]
struct Builder {
    whole: Blocks,
    main: Blocks,
    everything: bool,
    title: Option<String>,
    in_title: bool,
    /// The element that is left out, and how many of its name are open.
    left_out: Option<(String, usize)>,
    in_main: usize,
    paragraph: String,
    heading: Option<usize>,
    code: Option<(String, String)>,
    lists: Vec<List>,
    items: String,
    item: bool,
    table: Option<Vec<Vec<String>>>,
    tables: usize,
    limit: usize,
    seen: usize,
}

impl Builder {
    fn new(limits: &Limits) -> Self {
        Self {
            whole: Blocks::new(limits),
            main: Blocks::new(limits),
            everything: false,
            title: None,
            in_title: false,
            left_out: None,
            in_main: 0,
            paragraph: String::new(),
            heading: None,
            code: None,
            lists: Vec::new(),
            items: String::new(),
            item: false,
            table: None,
            tables: 0,
            limit: limits.text_bytes,
            seen: 0,
        }
    }

    fn finish(mut self) -> Result<Page, ExtractError> {
        self.end_paragraph()?;
        self.end_list()?;
        self.end_table()?;
        if let Some((language, code)) = self.code.take() {
            self.block(|blocks| blocks.code(&language, &code))?;
        }
        let cut_short = self.left_out.is_some();
        Ok(Page { whole: self.whole.finish(), main: self.main.finish(), title: self.title, cut_short })
    }

    fn token(&mut self, token: Token<'_>) -> Result<(), ExtractError> {
        match token {
            Token::Open { name, attributes } => self.open(&name.to_ascii_lowercase(), attributes),
            Token::Close(name) => self.close(&name.to_ascii_lowercase()),
            Token::Raw(text) => {
                if std::mem::take(&mut self.in_title) && self.title.is_none() {
                    let title = unescape(text).split_whitespace().collect::<Vec<_>>().join(" ");
                    self.title = (!title.is_empty()).then_some(title);
                }
                Ok(())
            }
            Token::Text(text) if self.left_out.is_none() => self.text(&unescape(text)),
            Token::Text(_) => Ok(()),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), ExtractError> {
        self.cost(text.len())?;
        if let Some((_, code)) = &mut self.code {
            code.push_str(text);
            return Ok(());
        }
        for c in text.chars() {
            if !c.is_whitespace() {
                self.paragraph.push(c);
            } else if !self.paragraph.is_empty() && !self.paragraph.ends_with(' ') {
                self.paragraph.push(' ');
            }
        }
        Ok(())
    }

    fn cost(&mut self, bytes: usize) -> Result<(), ExtractError> {
        self.seen += bytes;
        if self.seen > self.limit {
            return Err(ExtractError::Limit { what: "its text in bytes", limit: self.limit as u64 });
        }
        Ok(())
    }

    fn open(&mut self, name: &str, attributes: &str) -> Result<(), ExtractError> {
        if let Some((left_out, depth)) = &mut self.left_out {
            *depth += usize::from(left_out == name);
            return Ok(());
        }
        if name == "title" {
            self.in_title = true;
            return Ok(());
        }
        let hidden = attribute(attributes, "hidden").is_some()
            || attribute(attributes, "aria-hidden") == Some("true")
            || attribute(attributes, "role") == Some("navigation")
            || attribute(attributes, "style").is_some_and(|style| {
                let style: String = style.chars().filter(|c| !c.is_whitespace()).collect();
                style.contains("display:none") || style.contains("visibility:hidden")
            });
        let left_out = hidden || LEFT_OUT.contains(&name);
        if left_out && !self.everything && !EMPTY.contains(&name) {
            self.end_paragraph()?;
            self.left_out = Some((name.to_owned(), 1));
            return Ok(());
        }
        match name {
            "br" if self.code.is_some() => self.text("\n"),
            "br" => self.text(" "),
            "pre" => {
                self.end_paragraph()?;
                self.end_list()?;
                self.code = Some((language(attributes), String::new()));
                Ok(())
            }
            "code" => {
                if let Some((known, code)) = &mut self.code
                    && code.is_empty()
                    && known.is_empty()
                {
                    *known = language(attributes);
                }
                Ok(())
            }
            "ul" | "ol" => {
                self.end_paragraph()?;
                let start = attribute(attributes, "start").and_then(|start| start.parse().ok()).unwrap_or(1);
                self.lists.push(List { next: (name == "ol").then_some(start) });
                Ok(())
            }
            "li" => {
                self.end_paragraph()?;
                self.item = true;
                Ok(())
            }
            "table" => {
                self.end_paragraph()?;
                self.end_list()?;
                self.tables += 1;
                self.table.get_or_insert_default();
                Ok(())
            }
            "tr" if self.tables == 1 => {
                self.end_paragraph()?;
                self.cost(64)?;
                self.table.get_or_insert_default().push(Vec::new());
                Ok(())
            }
            "td" | "th" if self.tables == 1 => self.cell(attributes),
            _ => {
                if let Some(level) = heading_level(name) {
                    self.end_paragraph()?;
                    self.heading = Some(level);
                } else if BLOCKS.contains(&name) {
                    self.end_paragraph()?;
                    if matches!(name, "main" | "article") {
                        self.end_list()?;
                        self.in_main += 1;
                    }
                }
                Ok(())
            }
        }
    }

    fn cell(&mut self, attributes: &str) -> Result<(), ExtractError> {
        self.end_paragraph()?;
        let span = attribute(attributes, "colspan").and_then(|span| span.parse().ok()).unwrap_or(1_usize);
        let span = span.clamp(1, WIDEST_CELL);
        self.cost(32 * span)?;
        let table = self.table.get_or_insert_default();
        if table.is_empty() {
            table.push(Vec::new());
        }
        if let Some(row) = table.last_mut() {
            // The text goes into the last cell: a wide one leaves the columns before it empty.
            row.extend(std::iter::repeat_n(String::new(), span));
        }
        Ok(())
    }

    fn close(&mut self, name: &str) -> Result<(), ExtractError> {
        if let Some((left_out, depth)) = &mut self.left_out {
            *depth -= usize::from(left_out == name);
            if *depth == 0 {
                self.left_out = None;
            }
            return Ok(());
        }
        match name {
            "pre" => {
                if let Some((language, code)) = self.code.take() {
                    self.block(|blocks| blocks.code(&language, &code))?;
                }
                Ok(())
            }
            "ul" | "ol" => {
                self.end_paragraph()?;
                self.lists.pop();
                if self.lists.is_empty() { self.end_list() } else { Ok(()) }
            }
            "table" => {
                self.end_paragraph()?;
                self.tables = self.tables.saturating_sub(1);
                if self.tables == 0 { self.end_table() } else { Ok(()) }
            }
            "li" | "td" | "th" | "tr" => self.end_paragraph(),
            "main" | "article" => {
                self.end_paragraph()?;
                self.end_list()?;
                self.in_main = self.in_main.saturating_sub(1);
                Ok(())
            }
            _ if heading_level(name).is_some() || BLOCKS.contains(&name) => self.end_paragraph(),
            _ => Ok(()),
        }
    }

    /// Puts the words under way where they belong: into a cell, an item, a heading or a paragraph.
    fn end_paragraph(&mut self) -> Result<(), ExtractError> {
        let text = std::mem::take(&mut self.paragraph);
        let text = text.trim_end();
        let heading = self.heading.take();
        if text.is_empty() {
            return Ok(());
        }
        if let Some(table) = &mut self.table {
            if let Some(cell) = table.last_mut().and_then(|row| row.last_mut()) {
                if !cell.is_empty() {
                    cell.push(' ');
                }
                cell.push_str(text);
            } else {
                self.block(|blocks| blocks.paragraph(text))?;
            }
            return Ok(());
        }
        if let Some(level) = heading {
            self.end_list()?;
            return self.block(|blocks| blocks.heading(level, text));
        }
        if self.lists.is_empty() {
            self.end_list()?;
            return self.block(|blocks| blocks.paragraph(text));
        }
        if std::mem::take(&mut self.item) {
            let depth = self.lists.len().min(DEEPEST_LIST) - 1;
            let mark = match self.lists.last_mut().and_then(|list| list.next.as_mut()) {
                Some(number) => {
                    *number = number.saturating_add(1);
                    format!("{}.", *number - 1)
                }
                None => "-".to_owned(),
            };
            self.cost(2 * depth + mark.len())?;
            self.items.push_str(&format!("\n{}{mark} {text}", "  ".repeat(depth)));
        } else {
            self.items.push(' ');
            self.items.push_str(text);
        }
        Ok(())
    }

    fn end_list(&mut self) -> Result<(), ExtractError> {
        let items = std::mem::take(&mut self.items);
        self.block(|blocks| blocks.raw(items.trim_start()))
    }

    fn end_table(&mut self) -> Result<(), ExtractError> {
        let Some(mut rows) = self.table.take() else { return Ok(()) };
        rows.retain(|row| row.iter().any(|cell| !cell.is_empty()));
        self.block(|blocks| blocks.table(&rows))
    }

    /// Writes into the whole page, and into its main part when the place is in it.
    fn block(&mut self, write: impl Fn(&mut Blocks) -> Result<(), ExtractError>) -> Result<(), ExtractError> {
        write(&mut self.whole)?;
        if self.in_main > 0 { write(&mut self.main) } else { Ok(()) }
    }
}

fn heading_level(name: &str) -> Option<usize> {
    match name.as_bytes() {
        [b'h', digit @ b'1'..=b'6'] => Some(usize::from(digit - b'0')),
        _ => None,
    }
}

/// The language that a class such as `language-rust` names.
fn language(attributes: &str) -> String {
    let class = attribute(attributes, "class").unwrap_or_default();
    let named =
        class.split_whitespace().find_map(|class| class.strip_prefix("language-").or(class.strip_prefix("lang-")));
    named.unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '#' | '-')).collect()
}
