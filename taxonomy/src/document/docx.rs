//! DOCX: headings by style, paragraphs, lists and tables of the main text. Deleted and hidden text, headers, footers,
//! notes and fields' codes are left out.

use std::collections::HashMap;

use super::archive::Archive;
use super::blocks::Blocks;
use super::xml::{Step, attribute, walk};
use super::{ExtractError, Extracted, Limits};

const FORM: &str = "DOCX";

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Extracted, ExtractError> {
    let mut archive = Archive::open(bytes, limits)?;
    let styles = match archive.part("word/styles.xml")? {
        Some(part) => styles(&part, limits)?,
        None => HashMap::new(),
    };
    let lists = match archive.part("word/numbering.xml")? {
        Some(part) => numbered_lists(&part, limits)?,
        None => HashMap::new(),
    };
    let title = match archive.part("docProps/core.xml")? {
        Some(part) => title(&part, limits)?,
        None => None,
    };
    let Some(part) = archive.part("word/document.xml")? else {
        return Err(ExtractError::Damaged { form: FORM, reason: "it has no word/document.xml".to_owned() });
    };
    let mut body = Body { styles, lists, ..Body::new(limits) };
    walk(&part, FORM, limits, &mut |step| body.step(step))?;
    body.end_list()?;
    Ok(Extracted { text: body.blocks.finish(), title, pages: None, warnings: Vec::new() })
}

/// The level of heading that each style gives; 0 for the title of the document.
type Styles = HashMap<String, usize>;

fn styles(part: &[u8], limits: &Limits) -> Result<Styles, ExtractError> {
    #[derive(Default)]
    struct Style {
        id: String,
        based_on: Option<String>,
        level: Option<usize>,
    }
    let mut found: Vec<Style> = Vec::new();
    walk(part, FORM, limits, &mut |step| {
        if let Step::Open(name, element) = step {
            let value = || attribute(element, "val").unwrap_or_default();
            match (name, found.last_mut()) {
                ("style", _) => {
                    found.push(Style { id: attribute(element, "styleId").unwrap_or_default(), ..Style::default() });
                }
                ("name", Some(style)) => style.level = style.level.or(level_of_name(&value())),
                ("basedOn", Some(style)) => style.based_on = Some(value()),
                ("outlineLvl", Some(style)) => style.level = style.level.or(outline_level(&value())),
                _ => {}
            }
        }
        Ok(())
    })?;
    let parents: HashMap<&str, &Style> = found.iter().map(|style| (style.id.as_str(), style)).collect();
    let mut levels = Styles::new();
    for style in &found {
        let mut at = Some(style);
        // Chains of styles are short; a ring of them ends too.
        for _ in 0..16 {
            let Some(style) = at else { break };
            if style.level.is_some() {
                break;
            }
            at = style.based_on.as_deref().and_then(|id| parents.get(id).copied());
        }
        if let Some(level) = at.and_then(|style| style.level) {
            levels.insert(style.id.clone(), level);
        }
    }
    Ok(levels)
}

/// `heading 2` and `Title`, which keep their English names in a document of any language.
fn level_of_name(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    if name == "title" {
        return Some(0);
    }
    let level: usize = name.strip_prefix("heading")?.trim().parse().ok()?;
    (1..=9).contains(&level).then_some(level)
}

/// Outline levels count from 0; 9 is running text.
fn outline_level(value: &str) -> Option<usize> {
    value.parse().ok().filter(|level| *level < 9).map(|level: usize| level + 1)
}

/// Lists, by number and level, that count; all others have bullets.
fn numbered_lists(part: &[u8], limits: &Limits) -> Result<HashMap<(String, usize), bool>, ExtractError> {
    let mut abstracts: HashMap<(String, usize), bool> = HashMap::new();
    let mut numbers: Vec<(String, String)> = Vec::new();
    let (mut current, mut level) = (String::new(), 0);
    walk(part, FORM, limits, &mut |step| {
        if let Step::Open(name, element) = step {
            let value = |name: &str| attribute(element, name).unwrap_or_default();
            match name {
                "abstractNum" => current = value("abstractNumId"),
                "lvl" => level = value("ilvl").parse().unwrap_or(0),
                "numFmt" => {
                    abstracts.insert((current.clone(), level), !matches!(value("val").as_str(), "bullet" | "none"));
                }
                "num" => numbers.push((value("numId"), String::new())),
                "abstractNumId" => {
                    if let Some((_, of)) = numbers.last_mut() {
                        *of = value("val");
                    }
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    let mut lists = HashMap::new();
    for (number, of) in numbers.into_iter().take(limits.entries) {
        for level in 0..9 {
            if let Some(counts) = abstracts.get(&(of.clone(), level)) {
                lists.insert((number.clone(), level), *counts);
            }
        }
    }
    Ok(lists)
}

fn title(part: &[u8], limits: &Limits) -> Result<Option<String>, ExtractError> {
    let mut title = String::new();
    let mut inside = false;
    walk(part, FORM, limits, &mut |step| {
        match step {
            Step::Open(name, _) => inside = name == "title",
            Step::Close(_) => inside = false,
            Step::Text(text) if inside => title.push_str(text),
            Step::Text(_) => {}
        }
        Ok(())
    })?;
    let title = title.trim().to_owned();
    Ok((!title.is_empty()).then_some(title))
}

/// What is known of the paragraph under way.
#[derive(Debug, Default)]
struct Paragraph {
    text: String,
    level: Option<usize>,
    list: Option<(String, usize)>,
}

#[derive(Debug)]
struct Body {
    blocks: Blocks,
    styles: Styles,
    lists: HashMap<(String, usize), bool>,
    paragraph: Paragraph,
    /// Tables around the place, outermost first; the inner ones become text of a cell.
    tables: Vec<Vec<Vec<String>>>,
    items: String,
    counters: [usize; 9],
    in_text: bool,
    in_properties: bool,
    hidden: bool,
    fallback: usize,
    written: usize,
    limit: usize,
}

impl Body {
    fn new(limits: &Limits) -> Self {
        Self {
            blocks: Blocks::new(limits),
            styles: Styles::new(),
            lists: HashMap::new(),
            paragraph: Paragraph::default(),
            tables: Vec::new(),
            items: String::new(),
            counters: [0; 9],
            in_text: false,
            in_properties: false,
            hidden: false,
            fallback: 0,
            written: 0,
            limit: limits.text_bytes,
        }
    }

    fn step(&mut self, step: Step<'_>) -> Result<(), ExtractError> {
        match step {
            // What older programs show in place of a shape: the same text again.
            Step::Open("Fallback", _) => self.fallback += 1,
            Step::Close("Fallback") => self.fallback = self.fallback.saturating_sub(1),
            _ if self.fallback > 0 => {}
            Step::Open(name, element) => {
                let value = || attribute(element, "val").unwrap_or_default();
                match name {
                    "p" => self.paragraph = Paragraph::default(),
                    "pPr" => self.in_properties = true,
                    "pStyle" => self.paragraph.level = self.styles.get(&value()).copied(),
                    "outlineLvl" if self.in_properties => self.paragraph.level = outline_level(&value()),
                    "ilvl" => {
                        let level = value().parse().unwrap_or(0_usize).min(8);
                        self.paragraph.list.get_or_insert_default().1 = level;
                    }
                    "numId" => self.paragraph.list.get_or_insert_default().0 = value(),
                    "r" => self.hidden = false,
                    "vanish" if !self.in_properties => {
                        self.hidden = !matches!(value().as_str(), "0" | "false" | "none");
                    }
                    "t" => self.in_text = true,
                    "tab" if !self.in_properties => self.push(" ")?,
                    "br" | "cr" => self.push(" ")?,
                    "noBreakHyphen" => self.push("-")?,
                    "tbl" => {
                        self.end_list()?;
                        self.tables.push(Vec::new());
                    }
                    "tr" => self.row(Vec::new())?,
                    "tc" => {
                        if let Some(row) = self.tables.last_mut().and_then(|table| table.last_mut()) {
                            row.push(String::new());
                        }
                    }
                    _ => {}
                }
            }
            Step::Close(name) => match name {
                "pPr" => self.in_properties = false,
                "t" => self.in_text = false,
                "p" => self.end_paragraph()?,
                "tbl" => self.end_table()?,
                _ => {}
            },
            Step::Text(text) if self.in_text && !self.hidden => self.push(text)?,
            Step::Text(_) => {}
        }
        Ok(())
    }

    fn push(&mut self, text: &str) -> Result<(), ExtractError> {
        self.written += text.len();
        if self.written > self.limit {
            return Err(ExtractError::Limit { what: "its text in bytes", limit: self.limit as u64 });
        }
        self.paragraph.text.push_str(text);
        Ok(())
    }

    fn row(&mut self, row: Vec<String>) -> Result<(), ExtractError> {
        // Each row and cell costs memory even where it is empty.
        self.written += 64;
        self.push("")?;
        if let Some(table) = self.tables.last_mut() {
            table.push(row);
        }
        Ok(())
    }

    fn end_paragraph(&mut self) -> Result<(), ExtractError> {
        let Paragraph { text, level, list } = std::mem::take(&mut self.paragraph);
        let text = text.trim();
        if let Some(table) = self.tables.last_mut() {
            if let Some(cell) = table.last_mut().and_then(|row| row.last_mut()) {
                if !cell.is_empty() && !text.is_empty() {
                    cell.push(' ');
                }
                cell.push_str(text);
            }
            return Ok(());
        }
        match (level, list) {
            (Some(level), _) => {
                self.end_list()?;
                self.blocks.heading(level.max(1), text)
            }
            (None, Some((number, depth))) if number != "0" && !text.is_empty() => {
                let counts = self.lists.get(&(number, depth)).copied().unwrap_or(false);
                self.counters[depth] += 1;
                self.counters[depth + 1..].fill(0);
                let mark = if counts { format!("{}.", self.counters[depth]) } else { "-".to_owned() };
                self.items.push_str(&format!("{}{mark} {text}\n", "  ".repeat(depth)));
                Ok(())
            }
            (None, _) => {
                if !text.is_empty() {
                    self.end_list()?;
                }
                self.blocks.paragraph(text)
            }
        }
    }

    fn end_list(&mut self) -> Result<(), ExtractError> {
        self.counters = [0; 9];
        self.blocks.raw(&std::mem::take(&mut self.items))
    }

    fn end_table(&mut self) -> Result<(), ExtractError> {
        let Some(rows) = self.tables.pop() else { return Ok(()) };
        let Some(outer) = self.tables.last_mut() else { return self.blocks.table(&rows) };
        if let Some(cell) = outer.last_mut().and_then(|row| row.last_mut()) {
            let words: Vec<String> = rows.into_iter().flatten().filter(|cell| !cell.is_empty()).collect();
            cell.push_str(&words.join(" "));
        }
        Ok(())
    }
}
