//! Writing Markdown, block by block, within a limit.

use super::{ExtractError, Limits};

/// Markdown under way. Every writer refuses to pass the limit of text.
#[derive(Debug)]
pub(super) struct Blocks {
    text: String,
    limit: usize,
}

impl Blocks {
    pub fn new(limits: &Limits) -> Self {
        Self { text: String::new(), limit: limits.text_bytes }
    }

    pub fn finish(self) -> String {
        self.text
    }

    /// A block as it stands; nothing for white space.
    pub fn raw(&mut self, block: &str) -> Result<(), ExtractError> {
        let block = block.trim_matches('\n').trim_end();
        if block.trim().is_empty() {
            return Ok(());
        }
        if self.text.len() + block.len() + 2 > self.limit {
            return Err(ExtractError::Limit { what: "its text in bytes", limit: self.limit as u64 });
        }
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        self.text.push_str(block);
        Ok(())
    }

    /// Running text. A beginning that Markdown would take for a heading or a fence is escaped.
    pub fn paragraph(&mut self, text: &str) -> Result<(), ExtractError> {
        let text = text.trim();
        if text.starts_with('#') || text.starts_with("```") || text.starts_with("~~~") {
            self.raw(&format!("\\{text}"))
        } else {
            self.raw(text)
        }
    }

    /// A heading of level 1 to 6.
    pub fn heading(&mut self, level: usize, text: &str) -> Result<(), ExtractError> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            return Ok(());
        }
        self.raw(&format!("{} {text}", "#".repeat(level.clamp(1, 6))))
    }

    /// Code between fences that are longer than any run of backticks in it.
    pub fn code(&mut self, language: &str, code: &str) -> Result<(), ExtractError> {
        if code.trim().is_empty() {
            return Ok(());
        }
        let (mut longest, mut run) = (0, 0);
        for c in code.chars() {
            run = if c == '`' { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        let fence = "`".repeat(3.max(longest + 1));
        self.raw(&format!("{fence}{language}\n{}\n{fence}", code.trim_matches('\n').trim_end()))
    }

    /// A table whose first row names the columns. A single column is paragraphs.
    pub fn table(&mut self, rows: &[Vec<String>]) -> Result<(), ExtractError> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns < 2 {
            return rows.iter().flatten().try_for_each(|cell| self.paragraph(cell));
        }
        let mut table = String::new();
        for (number, row) in rows.iter().enumerate() {
            table.push('|');
            for column in 0..columns {
                let cell = row.get(column).map_or("", String::as_str);
                let words = cell.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
                table.push(' ');
                table.push_str(&words);
                table.push_str(if words.is_empty() { "|" } else { " |" });
            }
            table.push('\n');
            if number == 0 {
                table.push('|');
                table.push_str(&" --- |".repeat(columns));
                table.push('\n');
            }
            if self.text.len() + table.len() > self.limit {
                return Err(ExtractError::Limit { what: "its text in bytes", limit: self.limit as u64 });
            }
        }
        self.raw(&table)
    }
}

/// The first heading of a Markdown text.
pub(super) fn first_heading(text: &str) -> Option<String> {
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let title = line.trim_start_matches('#');
        if !fenced && title.len() < line.len() && title.starts_with(' ') && !title.trim().is_empty() {
            return Some(title.trim().to_owned());
        }
    }
    None
}
