//! The rows of a run, for a person who wants to see them: counts, lengths, twins, and examples of what was kept and why the rest
//! was not.

use super::plot::{Bars, bar_plot};
use espalier_dataset::{Row, Verdict, funnel};
use serde::Serialize;
use std::collections::BTreeMap;

/// Kept rows of a leaf that the page shows, and rows rejected for one reason.
const SHOWN: (usize, usize) = (12, 4);
/// Rows that the page shows of all leaves together.
const CARDS: usize = 400;
/// Groups of twins that the page shows, and twins of each.
const GROUPS: (usize, usize) = (20, 5);
/// Characters of a text that the page shows.
const LONGEST: usize = 1200;
/// Characters of a question in the heading of its row.
const HEADING: usize = 100;
/// Bars of the plot of lengths.
const BARS: usize = 24;

/// What the page shows of rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RowSection {
    /// One line a leaf.
    pub leaves: Vec<LeafLine>,
    /// How long answers are, as SVG.
    pub lengths: Option<String>,
    /// Rows that were rejected because they repeat a kept one, the largest groups first.
    pub groups: Vec<TwinGroup>,
    /// How many more groups there are.
    pub groups_left_out: usize,
    /// Categories of reasons, for the filter.
    pub reasons: Vec<String>,
    /// Rows of every leaf, kept and rejected, evenly from its beginning to its end.
    pub cards: Vec<RowCard>,
    /// How many more there are.
    pub left_out: usize,
}

/// Rows of one leaf, counted and measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeafLine {
    /// The leaf.
    pub leaf: String,
    /// Rows written by the teacher.
    pub generated: u64,
    /// Rows that passed every check.
    pub accepted: u64,
    /// Reasons of rejection with their counts.
    pub rejected: String,
    /// Words of kept questions: `median (9 of 10 have at most)`.
    pub question_words: String,
    /// Words of kept answers, likewise.
    pub answer_words: String,
}

/// A kept row and those that repeat it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TwinGroup {
    /// The leaf of the kept row.
    pub leaf: String,
    /// What the kept row asks.
    pub kept: String,
    /// Number of rows that repeat it.
    pub count: usize,
    /// Some of them: how they are like it, and what they ask.
    pub twins: Vec<(String, String)>,
}

/// One generated row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowCard {
    /// The row.
    pub id: String,
    /// The leaf.
    pub leaf: String,
    /// Whether it was kept.
    pub accepted: bool,
    /// Category of the reason: the text before its colon.
    pub category: String,
    /// Why, or which check it passed.
    pub reason: String,
    /// What judges gave: `faithful 0.93`.
    pub scores: String,
    /// How the last question begins, in a line.
    pub heading: String,
    /// The last question.
    pub question: String,
    /// Its answer.
    pub answer: String,
}

impl RowSection {
    /// The rows of a table, in its order.
    pub fn of(rows: &[Row]) -> Self {
        let leaves = leaf_lines(rows);
        let (groups, groups_left_out) = twin_groups(rows);
        let cards = cards(rows);
        let mut reasons: Vec<String> = cards.iter().map(|card| card.category.clone()).collect();
        reasons.sort();
        reasons.dedup();
        let left_out = rows.len() - cards.len();
        Self { leaves, lengths: lengths(rows), groups, groups_left_out, reasons, cards, left_out }
    }
}

fn kept(row: &Row) -> bool {
    row.verdict == Verdict::Accepted
}

fn last(row: &Row, role: &str) -> Option<String> {
    row.turns.iter().rev().find(|turn| turn.role == role).map(|turn| turn.content.clone())
}

fn answer(row: &Row) -> String {
    // A row that was rejected before it had an answer: what its block wrote.
    last(row, "assistant").filter(|text| !text.is_empty()).unwrap_or_else(|| row.answer.clone())
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn leaf_lines(rows: &[Row]) -> Vec<LeafLine> {
    let mut lengths: BTreeMap<&str, [Vec<usize>; 2]> = BTreeMap::new();
    for row in rows.iter().filter(|row| kept(row)) {
        let [questions, answers] = lengths.entry(&row.leaf).or_default();
        questions.push(words(&last(row, "user").unwrap_or_default()));
        answers.push(words(&answer(row)));
    }
    let line = |line: espalier_dataset::FunnelLine| {
        let rejected: Vec<String> =
            line.rejected_by.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let [questions, answers] = lengths.remove(line.leaf.as_str()).unwrap_or_default();
        LeafLine {
            generated: line.generated,
            accepted: line.accepted,
            rejected: rejected.join(", "),
            question_words: spread(questions),
            answer_words: spread(answers),
            leaf: line.leaf,
        }
    };
    funnel(rows).into_iter().map(line).collect()
}

/// Median, and the length that nine of ten do not exceed.
fn spread(mut lengths: Vec<usize>) -> String {
    lengths.sort_unstable();
    // The least length that so great a share does not exceed.
    let at = |tenths: usize| lengths[(lengths.len() * tenths).div_ceil(10) - 1];
    if lengths.is_empty() { String::new() } else { format!("{} ({})", at(5), at(9)) }
}

/// Kept and rejected rows by words of their answers. The longest hundredth stands in the last bar.
fn lengths(rows: &[Row]) -> Option<String> {
    let mut all: Vec<usize> = rows.iter().map(|row| words(&answer(row))).collect();
    all.sort_unstable();
    let longest = *all.get((all.len() * 99).div_ceil(100).checked_sub(1)?)?;
    let step = (longest / BARS + 1).max(1);
    let count = longest / step + 1;
    let bars = |which: bool| {
        let mut bars = vec![0; count];
        for row in rows.iter().filter(|row| kept(row) == which) {
            bars[(words(&answer(row)) / step).min(count - 1)] += 1;
        }
        bars
    };
    let plotted = Bars { step, below: bars(true), above: bars(false), names: ["kept", "rejected"], unit: "words" };
    Some(bar_plot("Length of answers", &plotted))
}

/// The id of the kept row that a rejected one repeats, from a reason such as `near-duplicate: 0.87 like 0123456789abcdef`.
fn repeats(row: &Row) -> Option<(&str, &str)> {
    let category = row.reason_category();
    if kept(row) || !matches!(category, "near-duplicate" | "same meaning") {
        return None;
    }
    row.reason.rsplit_once(" like ")
}

fn twin_groups(rows: &[Row]) -> (Vec<TwinGroup>, usize) {
    let mut found: BTreeMap<&str, Vec<(&str, &Row)>> = BTreeMap::new();
    for row in rows {
        if let Some((how, id)) = repeats(row) {
            found.entry(id).or_default().push((how, row));
        }
    }
    let asked = |row: &Row| cut(&last(row, "user").unwrap_or_default(), LONGEST);
    let mut groups: Vec<TwinGroup> = rows
        .iter()
        .filter_map(|first| {
            let twins = found.get(first.id.as_str())?;
            Some(TwinGroup {
                leaf: first.leaf.clone(),
                kept: asked(first),
                count: twins.len(),
                twins: twins.iter().take(GROUPS.1).map(|(how, row)| ((*how).to_owned(), asked(row))).collect(),
            })
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    let left_out = groups.len().saturating_sub(GROUPS.0);
    groups.truncate(GROUPS.0);
    (groups, left_out)
}

fn cards(rows: &[Row]) -> Vec<RowCard> {
    let mut sorts: BTreeMap<(&str, bool, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        // Kept rows of a leaf are of one sort, whichever check they passed.
        let category = if kept(row) { "" } else { row.reason_category() };
        sorts.entry((&row.leaf, !kept(row), category)).or_default().push(row);
    }
    let shown = |(_, rejected, _): &(&str, bool, &str)| if *rejected { SHOWN.1 } else { SHOWN.0 };
    // A tree of many leaves has fewer of each.
    let wanted: usize = sorts.iter().map(|(sort, rows)| rows.len().min(shown(sort))).sum();
    let share = |sort| (shown(sort) * CARDS / wanted.max(CARDS)).max(1);
    let mut cards = Vec::new();
    for (sort, rows) in &sorts {
        cards.extend(evenly(rows, share(sort)).map(|row| card(row)));
    }
    cards.truncate(CARDS);
    cards
}

/// At most `count` of a list, from its beginning to its end.
fn evenly<T>(list: &[T], count: usize) -> impl Iterator<Item = &T> {
    let count = count.min(list.len());
    (0..count).map(move |at| &list[at * list.len() / count])
}

fn card(row: &Row) -> RowCard {
    let question = last(row, "user").unwrap_or_default();
    let scores: Vec<String> = row.scores.iter().map(|score| format!("{} {:.2}", score.block, score.score)).collect();
    RowCard {
        id: row.id.clone(),
        leaf: row.leaf.clone(),
        accepted: kept(row),
        category: if kept(row) { "kept".to_owned() } else { row.reason_category().to_owned() },
        reason: row.reason.clone(),
        scores: scores.join(", "),
        heading: cut(&question.split_whitespace().collect::<Vec<_>>().join(" "), HEADING),
        question: cut(&question, LONGEST),
        answer: cut(&answer(row), LONGEST),
    }
}

/// The beginning of a text that is too long.
fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_dataset::Turn;

    fn row(leaf: &str, id: &str, reason: &str, question: &str, answer: &str) -> Row {
        Row {
            id: id.into(),
            leaf: leaf.into(),
            turns: vec![Turn::new("user", question), Turn::new("assistant", answer)],
            verdict: if reason.is_empty() { Verdict::Accepted } else { Verdict::Rejected },
            reason: reason.into(),
            ..Row::default()
        }
    }

    #[test]
    fn counts_lengths_and_twins_by_leaf() {
        let rows = [
            row("a", "1", "", "What is a cordon?", "A single stem"),
            row("a", "2", "near-duplicate: 0.91 like 1", "What is a cordon tree?", "A stem"),
            row("a", "3", "same meaning: 0.97 like 1", "Cordon, what is it?", "A single stem with spurs"),
            row("a", "4", "", "Why?", "Because it leans and so it fruits more"),
            row("b", "5", "empty", "Which?", ""),
        ];
        let section = RowSection::of(&rows);
        let line = &section.leaves[0];
        assert_eq!((line.generated, line.accepted, line.rejected.as_str()), (4, 2, "1 near-duplicate, 1 same meaning"));
        assert_eq!((line.question_words.as_str(), line.answer_words.as_str()), ("1 (4)", "3 (8)"));
        assert_eq!(section.leaves[1].question_words, "");
        let twins = vec![
            ("near-duplicate: 0.91".to_owned(), "What is a cordon tree?".to_owned()),
            ("same meaning: 0.97".to_owned(), "Cordon, what is it?".to_owned()),
        ];
        assert_eq!(section.groups, [TwinGroup { leaf: "a".into(), kept: "What is a cordon?".into(), count: 2, twins }]);
        assert_eq!(section.reasons, ["empty", "kept", "near-duplicate", "same meaning"]);
        assert_eq!((section.cards.len(), section.left_out), (5, 0));
        assert!(section.lengths.is_some_and(|plot| plot.contains("rejected")));
        assert_eq!(RowSection::of(&[]), RowSection::default());
    }

    #[test]
    fn many_rows_are_shown_evenly() {
        let many: Vec<Row> = (0..1000).map(|at| row("a", &at.to_string(), "", "Q?", "A")).collect();
        let ids: Vec<String> = RowSection::of(&many).cards.into_iter().map(|card| card.id).collect();
        assert_eq!((ids.len(), ids[0].as_str(), ids[1].as_str(), ids[11].as_str()), (12, "0", "83", "916"));
        let leaves: Vec<Row> = (0..300)
            .flat_map(|leaf| (0..4).map(move |at| row(&format!("{leaf:03}"), &at.to_string(), "", "Q?", "A")))
            .collect();
        let section = RowSection::of(&leaves);
        assert!(section.cards.len() >= 300 && section.cards.len() <= CARDS, "{}", section.cards.len());
        assert_eq!(section.cards.len() + section.left_out, 1200);
        assert_eq!(cut(&"é".repeat(LONGEST + 1), LONGEST).chars().count(), LONGEST + 1);
    }

    #[test]
    fn the_longest_answers_share_the_last_bar() {
        let mut rows: Vec<Row> = (0..200).map(|at| row("a", &at.to_string(), "", "Q?", "one two three")).collect();
        rows.push(row("a", "x", "", "Q?", &"word ".repeat(5000)));
        let plot = RowSection::of(&rows).lengths.unwrap_or_default();
        assert!(!plot.contains("5000") && !plot.contains("NaN"), "{plot}");
    }
}
