//! Cutting a Markdown document into pieces that a model can read at once.

use serde::{Deserialize, Serialize};

use crate::leaf::Document;

/// A piece of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chunk {
    /// The headings above it, outermost first, joined by ` > `; empty before the first heading.
    pub heading: String,
    /// Its paragraphs, separated by empty lines; headings are not repeated in it.
    pub text: String,
}

/// Cuts a document into chunks of at most `max_tokens`, as `count_tokens` counts.
///
/// Sections are not mixed. In a section, paragraphs (code blocks, lists and tables are paragraphs too) stay whole where they
/// fit and are gathered greedily; a longer paragraph is cut at sentences, a longer sentence at words, and a longer word
/// stands alone. All text of the document below headings is in exactly one chunk, in order.
pub fn chunks(document: &Document, max_tokens: usize, count_tokens: &dyn Fn(&str) -> usize) -> Vec<Chunk> {
    let mut result = Vec::new();
    for section in sections(&document.text) {
        let mut text = String::new();
        for paragraph in &section.paragraphs {
            add(&mut text, paragraph, "\n\n", max_tokens, count_tokens, &mut |text| {
                result.push(Chunk { heading: section.heading.clone(), text });
            });
        }
        if !text.is_empty() {
            result.push(Chunk { heading: section.heading, text });
        }
    }
    result
}

/// Adds a piece to the text under way; what no longer fits begins a new one, and what does not fit at all is cut smaller.
fn add(
    text: &mut String,
    piece: &str,
    separator: &str,
    max_tokens: usize,
    count_tokens: &dyn Fn(&str) -> usize,
    emit: &mut dyn FnMut(String),
) {
    if !text.is_empty() {
        let joined = format!("{text}{separator}{piece}");
        if count_tokens(&joined) <= max_tokens {
            *text = joined;
            return;
        }
        emit(std::mem::take(text));
    }
    if count_tokens(piece) <= max_tokens {
        text.push_str(piece);
        return;
    }
    // A list, a table or code is cut at its lines, running text at its sentences, either of them at words in the end.
    match separator {
        "\n\n" if piece.contains('\n') => {
            for line in piece.lines().filter(|line| !line.trim().is_empty()) {
                add(text, line, "\n", max_tokens, count_tokens, emit);
            }
        }
        "\n\n" => {
            for sentence in sentences(piece) {
                add(text, sentence, " ", max_tokens, count_tokens, emit);
            }
        }
        _ => words(text, piece, max_tokens, count_tokens, emit),
    }
}

/// Gathers words; a word that is too long by itself stands alone.
fn words(
    text: &mut String,
    piece: &str,
    max_tokens: usize,
    count_tokens: &dyn Fn(&str) -> usize,
    emit: &mut dyn FnMut(String),
) {
    for word in piece.split_whitespace() {
        if !text.is_empty() {
            let joined = format!("{text} {word}");
            if count_tokens(&joined) <= max_tokens {
                *text = joined;
                continue;
            }
            emit(std::mem::take(text));
        }
        text.push_str(word);
    }
}

/// A paragraph cut after `.`, `!` or `?` before white space.
fn sentences(paragraph: &str) -> Vec<&str> {
    let mut result = Vec::new();
    let mut start = 0;
    let mut previous = ' ';
    for (index, c) in paragraph.char_indices() {
        if c.is_whitespace() && matches!(previous, '.' | '!' | '?') {
            result.push(paragraph[start..index].trim());
            start = index;
        }
        previous = c;
    }
    result.push(paragraph[start..].trim());
    result.retain(|sentence| !sentence.is_empty());
    result
}

struct Section {
    heading: String,
    paragraphs: Vec<String>,
}

fn sections(text: &str) -> Vec<Section> {
    let mut result = vec![Section { heading: String::new(), paragraphs: Vec::new() }];
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut paragraph: Vec<&str> = Vec::new();
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(mark) = fence {
            paragraph.push(line);
            if trimmed.starts_with(mark) && trimmed.trim_end().chars().all(|c| mark.starts_with(c)) {
                fence = None;
            }
        } else if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            fence = trimmed.get(..3);
            paragraph.push(line);
        } else if let Some((level, title)) = heading(line) {
            finish(&mut paragraph, &mut result);
            path.retain(|(above, _)| *above < level);
            path.push((level, title.to_owned()));
            let titles: Vec<&str> = path.iter().map(|(_, title)| title.as_str()).collect();
            result.push(Section { heading: titles.join(" > "), paragraphs: Vec::new() });
        } else if trimmed.is_empty() {
            finish(&mut paragraph, &mut result);
        } else {
            paragraph.push(line);
        }
    }
    finish(&mut paragraph, &mut result);
    result
}

/// Ends the paragraph under way. Lines of running text are joined; lines that have a structure keep it.
fn finish(lines: &mut Vec<&str>, sections: &mut [Section]) {
    if lines.is_empty() {
        return;
    }
    let structured = lines.iter().any(|line| {
        let line = line.trim_start();
        line.starts_with(['-', '*', '+', '|', '>', '`', '~']) && !line.starts_with("**")
            || line.split_once(['.', ')']).is_some_and(|(number, _)| {
                !number.is_empty() && number.len() <= 3 && number.bytes().all(|b| b.is_ascii_digit())
            })
    });
    let text =
        if structured { lines.join("\n") } else { lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ") };
    lines.clear();
    if let Some(section) = sections.last_mut() {
        section.paragraphs.push(text);
    }
}

/// `## Title ##` as level and title.
fn heading(line: &str) -> Option<(usize, &str)> {
    let line =
        line.strip_prefix("   ").or_else(|| line.strip_prefix("  ")).or_else(|| line.strip_prefix(' ')).unwrap_or(line);
    let level = line.bytes().take_while(|&byte| byte == b'#').count();
    let rest = &line[level..];
    if !(1..=6).contains(&level) || !(rest.is_empty() || rest.starts_with([' ', '\t'])) {
        return None;
    }
    Some((level, rest.trim().trim_end_matches('#').trim_end()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(text: &str) -> Document {
        Document { path: "d.md".into(), text: text.into() }
    }

    fn count(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn headings_are_carried_and_paragraphs_stay_whole() {
        let text = "Intro here.\n\n# Trees\n\nOne two\nthree four.\n\nFive six.\n\n## Apple\n\n- a\n- b\n\n```\n# not a heading\n\nx\n```\n\n# Walls\n\nStone.\n";
        let found = chunks(&document(text), 6, &count);
        let as_pairs: Vec<(&str, &str)> = found.iter().map(|c| (c.heading.as_str(), c.text.as_str())).collect();
        assert_eq!(
            as_pairs,
            [
                ("", "Intro here."),
                ("Trees", "One two three four.\n\nFive six."),
                ("Trees > Apple", "- a\n- b"),
                ("Trees > Apple", "```\n# not a heading\nx"),
                ("Trees > Apple", "```"),
                ("Walls", "Stone."),
            ]
        );
    }

    #[test]
    fn long_paragraphs_are_cut_at_sentences() {
        let found = chunks(&document("a b c. d e f. g h i j k l m."), 5, &count);
        let texts: Vec<&str> = found.iter().map(|c| c.text.as_str()).collect();
        assert_eq!(texts, ["a b c.", "d e f.", "g h i j k", "l m."]);
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_no_chunk_is_too_long(text in "([a-z#.`\\-]{0,6}[ \n]){0,60}", max in 1_usize..9) {
            let found = chunks(&document(&text), max, &count);
            for chunk in &found {
                prop_assert!(count(&chunk.text) <= max);
                prop_assert!(!chunk.text.trim().is_empty());
            }
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let all = sections(&text);
            let expected: Vec<String> = all.iter().flat_map(|s| &s.paragraphs).flat_map(|p| words(p)).collect();
            let kept: Vec<String> = found.iter().flat_map(|chunk| words(&chunk.text)).collect();
            prop_assert_eq!(kept, expected);
        }
    }
}
