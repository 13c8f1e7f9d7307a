//! Values separated by commas, semicolons, tabs or bars.

use std::path::Path;

use super::blocks::Blocks;
use super::encoding::Decoded;
use super::{ExtractError, Extracted, Limits};

/// Columns that a table may have.
const MAX_COLUMNS: usize = 1000;

/// A table in Markdown; the first row names the columns.
pub(super) fn read(name: &Path, decoded: Decoded, limits: &Limits) -> Result<Extracted, ExtractError> {
    let Decoded { text, mut warnings } = decoded;
    // A table in Markdown is longer than its values, and rows in memory are longer still.
    if text.len() > limits.text_bytes {
        return Err(ExtractError::Limit { what: "its text in bytes", limit: limits.text_bytes as u64 });
    }
    let tabs = name.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
    let separator = if tabs { '\t' } else { separator(&text) };
    let rows = rows(&text, separator)?;
    if let Some(header) = rows.first() {
        let uneven = rows.iter().filter(|row| row.len() != header.len()).count();
        if uneven > 0 {
            let columns = header.len();
            warnings
                .push(format!("{uneven} row(s) have not the {columns} columns of the first: filled with empty cells"));
        }
    }
    let mut blocks = Blocks::new(limits);
    blocks.table(&rows)?;
    Ok(Extracted { text: blocks.finish(), title: None, pages: None, warnings })
}

/// The separator that the first line has most of outside quotes.
fn separator(text: &str) -> char {
    let mut quoted = false;
    let mut counts = [(',', 0_usize), (';', 0), ('\t', 0), ('|', 0)];
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '\n' if !quoted => break,
            c if !quoted => {
                if let Some((_, count)) = counts.iter_mut().find(|(separator, _)| *separator == c) {
                    *count += 1;
                }
            }
            _ => {}
        }
    }
    // Of equals the first: a comma.
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    counts.iter().find(|(_, count)| *count == most).map_or(',', |(separator, _)| *separator)
}

/// Rows by RFC 4180: a quoted cell may hold separators, line ends and doubled quotes.
fn rows(text: &str, separator: char) -> Result<Vec<Vec<String>>, ExtractError> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut cell = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.is_empty() => quoted = true,
            c if c == separator && !quoted => row.push(std::mem::take(&mut cell)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                if row.iter().any(|cell: &String| !cell.trim().is_empty()) {
                    rows.push(std::mem::take(&mut row));
                }
                row.clear();
            }
            c => cell.push(c),
        }
        if row.len() > MAX_COLUMNS {
            return Err(ExtractError::Limit { what: "the number of columns", limit: MAX_COLUMNS as u64 });
        }
    }
    if quoted {
        let reason = format!("a quote that opens in row {} never closes", rows.len() + 1);
        return Err(ExtractError::Damaged { form: "CSV", reason });
    }
    if !cell.is_empty() || !row.is_empty() {
        row.push(cell);
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, text: &str) -> Result<Extracted, ExtractError> {
        read(Path::new(name), Decoded { text: text.to_owned(), ..Decoded::default() }, &Limits::default())
    }

    #[test]
    fn quotes_bars_and_short_rows_are_kept_in_their_cells() {
        let found = table("a.csv", "name;note\n\"Ann; \"\"A\"\"\";\"two\nlines\"\nBo|b\n\n").unwrap();
        assert_eq!(found.text, "| name | note |\n| --- | --- |\n| Ann; \"A\" | two lines |\n| Bo\\|b | |");
        assert_eq!(found.warnings, ["1 row(s) have not the 2 columns of the first: filled with empty cells"]);
        assert_eq!(table("a.tsv", "a,b\tc\n1,2\t3\n").unwrap().text, "| a,b | c |\n| --- | --- |\n| 1,2 | 3 |");
        let error = table("a.csv", "a,b\n\"x,y\n").unwrap_err().to_string();
        assert_eq!(error, "is a damaged CSV: a quote that opens in row 2 never closes");
        assert!(matches!(table("a.csv", &",".repeat(2000)), Err(ExtractError::Limit { limit: 1000, .. })));
    }
}
