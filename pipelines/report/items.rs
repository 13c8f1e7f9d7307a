//! The items of the tests, for a person who wants to see them: what was asked, and what each model said.

use espalier_eval::items::ItemRow;
use serde::Serialize;

/// Items that the page shows; the table has all of them.
const SHOWN: usize = 300;
/// Characters of a prompt or an answer that the page shows.
const LONGEST: usize = 1200;

/// What the page shows of items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ItemSection {
    /// Names of the models.
    pub models: Vec<String>,
    /// Names of the tests.
    pub tasks: Vec<String>,
    /// The items: those that models answer differently first, then those that all have wrong.
    pub cards: Vec<ItemCard>,
    /// How many more there are.
    pub left_out: usize,
}

/// One item with the answers of all models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemCard {
    /// The test.
    pub task: String,
    /// The item within it.
    pub item: String,
    /// What was asked.
    pub question: String,
    /// What would be right; of choices the number of the right one.
    pub target: String,
    /// Whether some models have it right and some wrong, or all the same.
    pub outcome: Outcome,
    /// One answer a model.
    pub answers: Vec<ItemAnswer>,
    /// Numbers of the models that have it right, between blanks.
    pub right: String,
}

/// How the models fared on one item, in the order in which the page shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Some right, some wrong.
    Changed,
    /// All wrong.
    Wrong,
    /// All right.
    Right,
}

/// What one model said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemAnswer {
    /// The model.
    pub model: String,
    /// Its answer.
    pub response: String,
    /// Whether it is right.
    pub correct: bool,
}

impl ItemSection {
    /// The items of a table, however its rows are ordered.
    pub fn of(rows: &[ItemRow]) -> Self {
        let mut section = Self::default();
        let mut places = std::collections::HashMap::new();
        for row in rows {
            let model = place_of(&mut section.models, &row.model);
            place_of(&mut section.tasks, &row.task);
            let place = *places.entry((&row.task, &row.item)).or_insert(section.cards.len());
            if place == section.cards.len() {
                section.cards.push(ItemCard::new(row));
            }
            let card = &mut section.cards[place];
            if row.correct {
                card.right += &format!("{model} ");
            }
            let said = if row.response.is_empty() { row.error.as_deref().unwrap_or_default() } else { &row.response };
            card.answers.push(ItemAnswer { model: row.model.clone(), response: cut(said), correct: row.correct });
        }
        for card in &mut section.cards {
            let right = card.answers.iter().filter(|answer| answer.correct).count();
            card.outcome = match right {
                0 => Outcome::Wrong,
                _ if right == card.answers.len() => Outcome::Right,
                _ => Outcome::Changed,
            };
        }
        section.cards.sort_by_key(|card| card.outcome);
        section.left_out = section.cards.len().saturating_sub(SHOWN);
        section.cards.truncate(SHOWN);
        section
    }
}

impl ItemCard {
    fn new(row: &ItemRow) -> Self {
        Self {
            task: row.task.clone(),
            item: row.item.clone(),
            question: cut(&question(&row.prompt)),
            target: cut(&row.target),
            outcome: Outcome::Wrong,
            answers: Vec::new(),
            right: " ".to_owned(),
        }
    }
}

/// The place of a name in a list that it is added to when it is not there.
fn place_of(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// What is asked: the last turn of a conversation, or the plain text.
fn question(prompt: &str) -> String {
    let turns: Option<Vec<serde_json::Value>> = serde_json::from_str(prompt).ok();
    let last = turns.and_then(|turns| Some(turns.last()?.get("content")?.as_str()?.to_owned()));
    last.unwrap_or_else(|| prompt.to_owned())
}

/// The end of a text that is too long: there the question stands.
fn cut(text: &str) -> String {
    let count = text.chars().count();
    if count <= LONGEST {
        return text.to_owned();
    }
    std::iter::once('…').chain(text.chars().skip(count - LONGEST)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_models_answer_differently_comes_first() {
        let row = |model: &str, item: &str, correct| ItemRow {
            model: model.into(),
            task: "t".into(),
            item: item.into(),
            prompt: r#"[{"role":"user","content":"Really?"}]"#.into(),
            response: if correct { "yes".into() } else { String::new() },
            error: (!correct).then(|| "too long".into()),
            correct,
            ..ItemRow::default()
        };
        let rows = [
            row("base", "1", true),
            row("base", "2", false),
            row("base", "3", false),
            row("tuned", "1", true),
            row("tuned", "2", false),
            row("tuned", "3", true),
        ];
        let section = ItemSection::of(&rows);
        let shown: Vec<_> =
            section.cards.iter().map(|card| (card.item.as_str(), card.outcome, card.right.as_str())).collect();
        assert_eq!(shown, [("3", Outcome::Changed, " 1 "), ("2", Outcome::Wrong, " "), ("1", Outcome::Right, " 0 1 ")]);
        assert_eq!((section.models.len(), section.tasks.len(), section.left_out), (2, 1, 0));
        assert_eq!(
            (section.cards[0].question.as_str(), section.cards[1].answers[0].response.as_str()),
            ("Really?", "too long")
        );
        let many: Vec<ItemRow> = (0..SHOWN + 7).map(|item| row("base", &item.to_string(), true)).collect();
        let section = ItemSection::of(&many);
        assert_eq!((section.cards.len(), section.left_out), (SHOWN, 7));
        assert_eq!(cut(&"ab".repeat(LONGEST)).chars().count(), LONGEST + 1);
    }
}
