//! Markdown and plain text: nearly what they should be already.

use super::Extracted;
use super::encoding::Decoded;

/// Markdown. Front matter is left out; it may give the title.
pub(super) fn read(decoded: Decoded) -> Extracted {
    let Decoded { text, warnings } = decoded;
    let (title, body) = match front_matter(&text) {
        Some((title, body)) => (title, body.to_owned()),
        None => (None, text),
    };
    Extracted { text: body, title, pages: None, warnings }
}

/// Text without a form: lines that are underlined with `=` or `-` are headings, everything else stays.
pub(super) fn plain(decoded: Decoded) -> Extracted {
    let Decoded { text, warnings } = decoded;
    let lines: Vec<&str> = text.lines().collect();
    let mut result = String::with_capacity(text.len() + 16);
    let mut index = 0;
    while index < lines.len() {
        let line = lines[index];
        let apart = index == 0 || lines[index - 1].trim().is_empty();
        let level = lines.get(index + 1).and_then(|below| underline(line, below));
        if let (true, Some(level)) = (apart, level) {
            result.push_str(&format!("{} {}\n\n", "#".repeat(level), line.trim()));
            index += 2;
            continue;
        }
        result.push_str(line);
        result.push('\n');
        index += 1;
    }
    Extracted { text: result, title: None, pages: None, warnings }
}

/// The level of a heading whose second line is as long as the first, more or less.
fn underline(line: &str, below: &str) -> Option<usize> {
    let (title, rule) = (line.trim(), below.trim());
    let long = rule.len() >= 3 && rule.len().abs_diff(title.chars().count()) <= 2;
    if title.is_empty() || !long || !title.chars().any(char::is_alphanumeric) {
        return None;
    }
    match rule.as_bytes()[0] {
        b'=' if rule.bytes().all(|byte| byte == b'=') => Some(1),
        b'-' if rule.bytes().all(|byte| byte == b'-') => Some(2),
        _ => None,
    }
}

/// The title and what follows YAML between two lines of `---`.
fn front_matter(text: &str) -> Option<(Option<String>, &str)> {
    let rest = text.strip_prefix("---\n")?;
    let end = rest.find("\n---\n")?;
    let (matter, body) = (&rest[..end], &rest[end + 5..]);
    // A rule above running text is no front matter.
    if !matter.lines().all(|line| line.is_empty() || line.starts_with([' ', '#', '-']) || line.contains(':')) {
        return None;
    }
    let title = matter.lines().find_map(|line| line.strip_prefix("title:"));
    let title = title.map(|title| title.trim().trim_matches(['"', '\'']).to_owned());
    Some((title.filter(|title| !title.is_empty()), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Decoded {
        Decoded { text: text.to_owned(), ..Decoded::default() }
    }

    #[test]
    fn front_matter_gives_the_title_and_goes() {
        let found = read(decoded("---\ntitle: \"The pond\"\ntags:\n  - frogs\n---\n\n# Frogs\n\nGreen.\n"));
        assert_eq!((found.title.as_deref(), found.text.as_str()), (Some("The pond"), "\n# Frogs\n\nGreen.\n"));
        let rule = "---\nNot a mapping\n---\nwords\n";
        assert_eq!(read(decoded(rule)).text, rule);
    }

    #[test]
    fn underlined_lines_are_headings() {
        let found = plain(decoded("The pond\n========\nA frog.\n\nWater\n-----\n\nDeep.\na\n-----\n"));
        assert_eq!(found.text, "# The pond\n\nA frog.\n\n## Water\n\n\nDeep.\na\n-----\n");
    }
}
