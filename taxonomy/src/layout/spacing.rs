//! Blanks around `:`, `,`, `-`, braces and brackets.

use serde_saphyr::granit_parser::{Span, TokenType};

use super::{Flaw, Rule, place_of};

/// Most flaws that are told: looking up the place of one takes as long as the text before it.
const MAX_FLAWS: usize = 500;

/// Blanks that may stand inside a brace or bracket.
const INSIDE: usize = 1;

pub(super) fn check(text: &str, tokens: &[(Span, TokenType<'_>)]) -> Vec<Flaw> {
    let mut flaws: Vec<(Rule, usize, &'static str)> = Vec::new();
    let mut flaw = |rule: Rule, offset: usize, message: &'static str| flaws.push((rule, offset, message));
    let mut before_is_alias = false;
    for (span, token) in tokens {
        let (Some(start), Some(end)) = (span.start.byte_offset(), span.end.byte_offset()) else { continue };
        let alias = std::mem::replace(&mut before_is_alias, matches!(token, TokenType::Alias(_)));
        match token {
            TokenType::FlowMappingStart | TokenType::FlowSequenceStart
                if after(text, end).is_some_and(|n| n > INSIDE) =>
            {
                flaw(bracket(token), end, "too many blanks inside a bracket");
            }
            TokenType::FlowMappingEnd | TokenType::FlowSequenceEnd
                if before(text, start).is_some_and(|n| n > INSIDE) =>
            {
                flaw(bracket(token), start, "too many blanks inside a bracket");
            }
            TokenType::FlowEntry => {
                if before(text, start).is_none_or(|blanks| blanks > 0) {
                    flaw("commas", start, "blanks stand before a comma");
                }
                if after(text, end).is_some_and(|blanks| blanks != 1) {
                    flaw("commas", end, "one blank stands behind a comma");
                }
            }
            TokenType::Value => {
                // The scanner gives the colon no width.
                let Some(colon) = text.get(start..).filter(|rest| rest.starts_with(':')).map(|_| start) else {
                    continue;
                };
                let allowed = usize::from(alias);
                if before(text, colon).is_some_and(|blanks| blanks > allowed) {
                    flaw("colons", colon, "blanks stand before a colon");
                }
                if after(text, colon + 1).is_some_and(|blanks| blanks > 1) {
                    flaw("colons", colon + 1, "too many blanks behind a colon");
                }
            }
            TokenType::BlockEntry => {
                // The scanner places the entry where its value begins.
                let kept = text[..start].trim_end_matches(' ');
                if kept.ends_with('-') && after(text, kept.len()).is_some_and(|blanks| blanks > 1) {
                    flaw("hyphens", kept.len(), "too many blanks behind a hyphen");
                }
            }
            _ => {}
        }
    }
    let flaw = |(rule, offset, message): (Rule, usize, &str)| Flaw {
        rule,
        place: place_of(text, offset),
        message: message.to_owned(),
    };
    flaws.into_iter().take(MAX_FLAWS).map(flaw).collect()
}

fn bracket(token: &TokenType<'_>) -> Rule {
    if matches!(token, TokenType::FlowMappingStart | TokenType::FlowMappingEnd) { "braces" } else { "brackets" }
}

/// Blanks in front of a byte, unless it is the first of its line.
fn before(text: &str, offset: usize) -> Option<usize> {
    let kept = text[..offset].trim_end_matches(' ');
    (!kept.is_empty() && !kept.ends_with('\n')).then(|| offset - kept.len())
}

/// Blanks from a byte on, unless the line or a comment ends it.
fn after(text: &str, offset: usize) -> Option<usize> {
    let rest = &text[offset..];
    let kept = rest.trim_start_matches(' ');
    let ends = kept.is_empty() || kept.starts_with(['\n', '\r']) || (kept.len() < rest.len() && kept.starts_with('#'));
    (!ends).then(|| rest.len() - kept.len())
}

#[cfg(test)]
mod tests {
    use crate::layout::lint;

    #[test]
    fn blanks_around_marks() {
        let messages = |text: &str| lint(text).iter().map(|flaw| flaw.message.clone()).collect::<Vec<_>>();
        assert_eq!(messages("a: { x: 1, y: [2, 3 ] }\nb:   # comment\n  - |\n    x\n"), [""; 0]);
        assert_eq!(messages("a: {  x: 1 }\n"), ["too many blanks inside a bracket"]);
        assert_eq!(messages("a: [1 ,2]\n"), ["blanks stand before a comma", "one blank stands behind a comma"]);
        assert_eq!(messages("a : 1\nb:  2\n"), ["blanks stand before a colon", "too many blanks behind a colon"]);
        assert_eq!(messages("a:\n  -  x\n"), ["too many blanks behind a hyphen"]);
        assert_eq!(messages("a: &x y\n*x : z\n"), [""; 0]);
    }
}
