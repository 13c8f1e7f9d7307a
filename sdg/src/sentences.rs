//! A text as its sentences.

use unicode_segmentation::UnicodeSegmentation;

/// Words that end with a full stop where no sentence ends.
const ABBREVIATIONS: [&str; 18] = [
    "approx.", "cf.", "dr.", "e.g.", "etc.", "fig.", "i.e.", "jr.", "mr.", "mrs.", "ms.", "no.", "nos.", "prof.",
    "resp.", "sr.", "st.", "vs.",
];

/// The sentences of a text, by the rules of Unicode (UAX #29), each on one line. A wrapped line goes on in the next one;
/// an item of a list is a text of its own; headings, tables and code of Markdown hold no sentence.
pub(crate) fn sentences(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for paragraph in paragraphs(text) {
        let mut open = String::new();
        for piece in paragraph.split_sentence_bounds() {
            open.push_str(piece);
            if !ends_with_abbreviation(&open) {
                push_trimmed(&mut found, &open);
                open.clear();
            }
        }
        push_trimmed(&mut found, &open);
    }
    found
}

fn push_trimmed(found: &mut Vec<String>, sentence: &str) {
    let sentence = sentence.trim();
    if !sentence.is_empty() {
        found.push(sentence.to_owned());
    }
}

/// Whether a text ends with an abbreviation or with an initial, as in `J. S. Bach`.
fn ends_with_abbreviation(text: &str) -> bool {
    let Some(word) = text.split_whitespace().next_back() else { return false };
    let word = word.trim_start_matches(['(', '[', '"', '\'']);
    let is_initial = word.strip_suffix('.').is_some_and(|rest| {
        let mut letters = rest.chars();
        letters.next().is_some_and(char::is_uppercase) && letters.next().is_none()
    });
    is_initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// What belongs together, its lines joined.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut in_code = false;
    for line in text.lines().map(str::trim) {
        let fence = line.starts_with("```");
        in_code ^= fence;
        let holds_none = line.is_empty() || in_code || fence || line.starts_with(['#', '|']) || line.starts_with("---");
        let item = if holds_none { Some("") } else { list_item(line) };
        if item.is_some() {
            found.push(String::new());
        }
        if let Some(paragraph) = found.last_mut() {
            let more = item.unwrap_or(line);
            if !paragraph.is_empty() && !more.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(more);
        }
    }
    found.retain(|paragraph| !paragraph.is_empty());
    found
}

/// What stands behind the mark of a list's item.
fn list_item(line: &str) -> Option<&str> {
    if let Some(rest) = ["- ", "* ", "+ ", "\u{2022} "].iter().find_map(|mark| line.strip_prefix(mark)) {
        return Some(rest.trim_start());
    }
    let behind = line.trim_start_matches(|sign: char| sign.is_ascii_digit());
    let digits = line.len() - behind.len();
    // A year at the beginning of a line is no mark.
    if !(1..=3).contains(&digits) {
        return None;
    }
    let rest = behind.strip_prefix(". ").or_else(|| behind.strip_prefix(") "))?;
    Some(rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_they_end() {
        let text = "Dr. Smith grew 2.5 kg of pears, e.g. Conference.  He was\nglad! Was J. S. Bach? Yes; no. 5 was \"ripe.\" End";
        let wanted = [
            "Dr. Smith grew 2.5 kg of pears, e.g. Conference.",
            "He was glad!",
            "Was J. S. Bach?",
            "Yes; no. 5 was \"ripe.\"",
            "End",
        ];
        assert_eq!(sentences(text), wanted);
        assert_eq!(sentences("\u{68a8}\u{3002}\u{6843}\u{3002}"), ["\u{68a8}\u{3002}", "\u{6843}\u{3002}"]);
        assert!(sentences(" \n\n").is_empty());
    }

    #[test]
    fn markdown_keeps_its_sentences_and_nothing_else() {
        let text = "# Trees. And more\n\nA tree\nis tall.\n- One item. Two.\n12) Twelve.\n\n2012 was dry.\n\n| a. | b |\n|---|---|\n\
                    ```\nlet x. y\n```\n`cargo` ends it.";
        let wanted = ["A tree is tall.", "One item.", "Two.", "Twelve.", "2012 was dry.", "`cargo` ends it."];
        assert_eq!(sentences(text), wanted);
    }
}
