//! Source code as fenced pieces, one for each thing that stands at the left margin.

use std::path::Path;

use super::blocks::Blocks;
use super::encoding::Decoded;
use super::{ExtractError, Extracted, Limits};

/// The file's name as heading, then its code cut at empty lines before an unindented line: functions, types and groups of
/// imports stay whole, and what follows decides which of them go together.
pub(super) fn read(name: &Path, language: &str, decoded: Decoded, limits: &Limits) -> Result<Extracted, ExtractError> {
    let Decoded { text, warnings } = decoded;
    let title = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut blocks = Blocks::new(limits);
    blocks.heading(1, &title)?;
    let mut piece = String::new();
    let mut gap = false;
    for line in text.lines() {
        let unindented = line.starts_with(|c: char| !c.is_whitespace() && !matches!(c, '}' | ')' | ']'));
        if gap && unindented {
            blocks.code(language, &piece)?;
            piece.clear();
        }
        gap = line.trim().is_empty();
        piece.push_str(line.trim_end());
        piece.push('\n');
    }
    blocks.code(language, &piece)?;
    Ok(Extracted { text: blocks.finish(), title: Some(title), pages: None, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_cut_between_functions_and_not_in_them() {
        let code =
            "import os\nimport sys\n\n\ndef one():\n    a = 1\n\n    return a\n\ndef two():\n    '''\n```\n'''\n";
        let decoded = Decoded { text: code.to_owned(), ..Decoded::default() };
        let found = read(Path::new("x/a.py"), "python", decoded, &Limits::default()).unwrap();
        assert_eq!(
            found.text,
            "# a.py\n\n```python\nimport os\nimport sys\n```\n\n```python\ndef one():\n    a = 1\n\n    return a\n```\n\n````python\ndef two():\n    '''\n```\n'''\n````"
        );
    }
}
