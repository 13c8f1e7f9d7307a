//! Sentences by the decisions of Punkt (Kiss and Strunk 2006, Computational Linguistics 32), with word lists of our own in the
//! place of its trained ones.
//!
//! A sentence may end at `.`, `?` or `!` before white space or before a closing mark. `?` and `!` end it always. A point does,
//! unless it belongs to an abbreviation, an initial or a number before a small letter; three points end it before a word that
//! begins sentences. Closing quotation marks and brackets belong to the sentence before them.

/// Abbreviations of English without their last point, as far as newspapers use them: Punkt learned none of `etc`, `e.g`, `i.e`.
const ABBREVIATIONS: &str = "a.m adm ala ariz aug ave bros calif cie co col colo conn corp cos d.c dec dr feb fla fri ft ga gen ill inc jan \
    jr kan ky l.a lt ltd maj messrs mg mich minn mr mrs ms n.j n.y nev nov oct okla ore p.m pa ph.d prof rep reps \
    s.p.a sen sep sept sr st tenn tues u.k u.n u.s u.s.a va vs vt wash wed wis yr";

/// Words that begin sentences so often that an abbreviation or three points before them end one.
const BEGINNERS: &str = "a according after all also although an and as at because before but by each even finally first for from he here \
    how however i if in instead it it's its let many maybe most no now of on one or perhaps she since so some that \
    the then there these they this those to we what when while you";

/// The sentences of a text, without white space around them.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for end in ends(text) {
        // A closing mark that was taken into the sentence before lies behind this end already.
        if end < start {
            continue;
        }
        let after = &text[end..];
        let closed = closing_marks(after.trim_start());
        let behind = if closed == 0 { end } else { end + (after.len() - after.trim_start().len()) + closed };
        found.push(text[start..behind].trim());
        start = behind + (text[behind..].len() - text[behind..].trim_start().len());
    }
    found.push(text[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// How many sentences a text has.
pub(super) fn count_sentences(text: &str) -> usize {
    sentences(text).len()
}

/// The length of a run of closing marks that stands alone.
fn closing_marks(text: &str) -> usize {
    let run = text.find(|character| !is_closing(character)).unwrap_or(text.len());
    let rest = &text[run..];
    if rest.is_empty() || rest.starts_with(char::is_whitespace) || rest.starts_with("--") { run } else { 0 }
}

fn is_closing(character: char) -> bool {
    matches!(character, '"' | '\'' | ')' | ']' | '}' | '‘' | '’' | '“' | '”' | '«' | '»')
}

/// What may follow a sentence's end without white space.
fn is_mark(character: char) -> bool {
    is_closing(character) || matches!(character, ';' | '*' | ':' | '@' | '(' | '{' | '[')
}

/// The places just behind the points, question and exclamation marks that end a sentence.
fn ends(text: &str) -> impl Iterator<Item = usize> {
    text.char_indices().filter(|(_, character)| matches!(character, '.' | '?' | '!')).filter_map(|(at, character)| {
        let after = &text[at + 1..];
        let next = after.chars().next()?;
        // The word that follows; empty where a mark follows at once.
        let follower = if next.is_whitespace() {
            after.split_whitespace().next()?
        } else if is_mark(next) {
            ""
        } else {
            return None;
        };
        (character != '.' || point_ends(&text[..at], follower)).then_some(at + 1)
    })
}

/// Whether a point behind `before` ends a sentence when `follower` comes next.
fn point_ends(before: &str, follower: &str) -> bool {
    let start = before
        .rfind(char::is_whitespace)
        .map_or(0, |space| space + before[space..].chars().next().map_or(1, char::len_utf8));
    let token = &before[start..];
    let word = token.rsplit(is_mark).next().unwrap_or(token);
    if word.ends_with('.') {
        return begins_sentence(follower);
    }
    let lower = word.to_lowercase();
    let small = follower.chars().next().is_some_and(char::is_lowercase);
    let mut letters = word.chars();
    if let (Some(initial), None) = (letters.next(), letters.next())
        && initial.is_alphabetic()
    {
        // `J. Bach` is a name, `A. Introduction` an item of a list: that stands at the beginning of its line.
        let opens_line = before[..start].trim_end_matches([' ', '\t', '*', '#', '-', '(']).ends_with(['\n', '\r'])
            || before[..start].trim().is_empty();
        return !small && (opens_line || begins_sentence(follower));
    }
    if is_number(word) {
        return !small && !follower.starts_with([',', ';', ':', '.', '!', '?']);
    }
    let last_part = lower.rsplit('-').next().unwrap_or(&lower);
    if is_listed(ABBREVIATIONS, last_part) || is_initials(last_part) {
        return begins_sentence(follower);
    }
    true
}

/// `j.k`, `u.s.s.r`: single letters with points between them, other than `e.g` and `i.e`.
fn is_initials(word: &str) -> bool {
    word.contains('.')
        && word.split('.').all(|part| part.chars().count() == 1 && part.chars().all(char::is_alphabetic))
        && !matches!(word, "e.g" | "i.e")
}

fn is_number(word: &str) -> bool {
    word.contains(|character: char| character.is_ascii_digit())
        && word.chars().all(|character| character.is_ascii_digit() || matches!(character, ',' | '.' | '-'))
}

/// Whether a word stands in a list that is parted by spaces.
fn is_listed(words: &str, word: &str) -> bool {
    words.split(' ').any(|listed| listed == word)
}

/// Whether a word with a capital is one that begins sentences.
fn begins_sentence(word: &str) -> bool {
    let bare = word.trim_end_matches(|character: char| !character.is_alphanumeric());
    bare.chars().next().is_some_and(char::is_uppercase) && is_listed(BEGINNERS, &bare.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_punkt_ends_them() {
        for (text, expected) in [
            ("Hello Mr. Smith. How are you?", 2),
            ("It costs 3.50 dollars! Really?", 2),
            ("He said \"No.\" Then he left.", 2),
            ("Wait... what? Yes... The end", 3),
            ("See the U.S. Senate. Johann S. Bach wrote it.", 2),
            ("1. Take it.\n2. Leave it.", 4),
            ("A. Introduction\nB. Method", 3),
            ("Cats, dogs, etc. are pets", 2),
            ("(It rained.) We stayed.", 2),
            ("No end", 1),
            (" \n", 0),
            ("Hello?! World", 2),
            ("**Bold.** More.", 2),
        ] {
            assert_eq!(count_sentences(text), expected, "{:?}", sentences(text));
        }
    }
}
