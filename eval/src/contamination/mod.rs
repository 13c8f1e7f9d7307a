//! Whether what was trained on holds what is measured.
//!
//! Every training row is held against every item by an index over the items (see [`espalier_dataset::quality::Benchmarks`], which
//! decontaminates generated rows too): whole questions, and runs of 8 words, of 13 where a part is long, of question, choices and
//! answer apart. Rows are seen one after the other: memory grows with the items, time with the rows, whatever there are.
//!
//! What is found is told on both sides, row and item, with the text that they share; [`Contamination::clean`] gives the scores
//! without the items that were found.

use std::collections::{BTreeMap, HashSet};

use espalier_dataset::quality::{Alike, Benchmarks, Item, Part, Sample, Vectors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::evaluation::Evaluation;
use crate::statistics::Interval;
use crate::statistics::wilson::wilson;

/// Rows that are told of one item; more are counted.
const TOLD: usize = 5;

/// Items of tests, by which training rows are looked through.
#[derive(Debug)]
pub struct TestItems {
    index: Benchmarks,
    /// What the items ask, as vectors, once rows were looked through by them.
    questions: Option<Vectors>,
    /// Task and id of each item of the index.
    names: Vec<(String, String)>,
    found: BTreeMap<usize, ContaminatedItem>,
    rows: u64,
    contaminated_rows: u64,
}

/// What training rows and test items have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contamination {
    /// Rows that were looked through.
    pub rows: u64,
    /// Rows that hold an item.
    pub contaminated_rows: u64,
    /// Items that they were held against.
    pub items: usize,
    /// Items that a row holds, in the order of the tests.
    pub found: Vec<ContaminatedItem>,
}

/// An item that training rows hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContaminatedItem {
    /// The task.
    pub task: String,
    /// The item within it.
    pub item: String,
    /// Its question.
    pub question: String,
    /// How many rows hold it.
    pub rows: u64,
    /// The first of them.
    pub hits: Vec<RowHit>,
}

/// A row that holds an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowHit {
    /// Id of the row.
    pub row: String,
    /// What of the item was found: `question`, `choices`, `answer`, or `meaning` for other words of the same sense.
    pub part: String,
    /// How much of it, from 0 to 1; of meaning the cosine.
    pub share: f64,
    /// The words that both have, from the first on; of meaning what the row asks.
    pub text: String,
}

/// A score without contaminated items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CleanScore {
    /// Items that are left.
    pub items: usize,
    /// Share of right answers among them; NaN without an item.
    pub accuracy: f64,
    /// Its 95 % interval.
    pub wilson: Interval,
}

impl TestItems {
    /// Takes items by task, id and the question as it stood in its source. What names no question is taken by its longest text.
    pub fn new<'a>(items: impl IntoIterator<Item = (&'a str, &'a str, &'a Value)>) -> Self {
        let (mut known, mut names) = (Vec::new(), Vec::new());
        for (task, id, doc) in items {
            let item = doc.as_object().and_then(|object| Item::from_object(object).ok());
            let item = item.unwrap_or_else(|| Item { question: longest_text(doc), ..Item::default() });
            // The line finds the name again.
            known.push(Item { benchmark: task.to_owned(), line: names.len(), ..item });
            names.push((task.to_owned(), id.to_owned()));
        }
        Self {
            index: Benchmarks::new(known),
            questions: None,
            names,
            found: BTreeMap::new(),
            rows: 0,
            contaminated_rows: 0,
        }
    }

    /// How much of a part must stand in a row, instead of the half that is usual for benchmarks.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f64) -> Self {
        self.index = self.index.with_threshold(threshold);
        self
    }

    /// The items of evaluated tasks.
    pub fn of_evaluations<'a>(evaluations: impl IntoIterator<Item = &'a Evaluation>) -> Self {
        let items = |evaluation: &'a Evaluation| {
            evaluation.items.iter().map(|item| (evaluation.task.as_str(), item.id.as_str(), &item.doc))
        };
        Self::new(evaluations.into_iter().flat_map(items))
    }

    /// Looks a training row through; true where it holds an item.
    pub fn look_at(&mut self, row: &Sample<'_>) -> bool {
        let hits = self.index.hits(row);
        let any = !hits.is_empty();
        self.rows += 1;
        self.contaminated_rows += u64::from(any);
        for hit in hits {
            let (part, share) = match hit.part {
                Part::Question => ("question", hit.contained.question),
                Part::Choices => ("choices", hit.contained.choices),
                Part::Answer => ("answer", hit.contained.answer),
            };
            let found = RowHit { row: row.id.to_owned(), part: part.to_owned(), share, text: hit.row_text };
            self.add(hit.line, hit.item_text, found);
        }
        any
    }

    /// Looks a portion of rows through, and those that hold no item by their words for questions of the same sense too: by the
    /// vectors that `embed` makes of texts, from a cosine of `threshold` on.
    ///
    /// # Errors
    /// What `embed` returns.
    pub fn look_at_meaning<E>(
        &mut self,
        rows: &[Sample<'_>],
        threshold: f32,
        mut embed: impl FnMut(&[String]) -> Result<Vectors, E>,
    ) -> Result<(), E> {
        let questions = match self.questions.take() {
            Some(questions) => questions,
            None => embed(&self.index.questions())?,
        };
        let alike = self.index.alike(rows, &questions, threshold, embed)?;
        self.questions = Some(questions);
        for (row, alike) in rows.iter().zip(alike) {
            if self.look_at(row) {
                continue;
            }
            if let Some(Alike { line, cosine, item_text, .. }) = alike {
                let text = row.question().into_owned();
                self.contaminated_rows += 1;
                let part = "meaning".to_owned();
                self.add(line, item_text, RowHit { row: row.id.to_owned(), part, share: f64::from(cosine), text });
            }
        }
        Ok(())
    }

    fn add(&mut self, place: usize, question: String, hit: RowHit) {
        let (task, item) = self.names[place].clone();
        let found = self.found.entry(place).or_insert_with(|| ContaminatedItem {
            task,
            item,
            question,
            rows: 0,
            hits: Vec::new(),
        });
        found.rows += 1;
        if found.hits.len() < TOLD {
            found.hits.push(hit);
        }
    }

    /// What was found.
    pub fn finish(self) -> Contamination {
        Contamination {
            rows: self.rows,
            contaminated_rows: self.contaminated_rows,
            items: self.names.len(),
            found: self.found.into_values().collect(),
        }
    }
}

impl Contamination {
    /// Ids of the items of a task that were found.
    pub fn of_task(&self, task: &str) -> HashSet<&str> {
        self.found.iter().filter(|found| found.task == task).map(|found| found.item.as_str()).collect()
    }

    /// The score of an evaluation without the items that were found.
    pub fn clean(&self, evaluation: &Evaluation) -> CleanScore {
        let found = self.of_task(&evaluation.task);
        let kept = || evaluation.items.iter().filter(|item| !found.contains(item.id.as_str()));
        let (items, right) = (kept().count(), kept().filter(|item| item.correct).count());
        CleanScore { items, accuracy: right as f64 / items as f64, wilson: wilson(right, items, 0.95) }
    }

    /// The finding in one line.
    pub fn words(&self) -> String {
        let count = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let looked = format!("{} against {}", count(self.rows, "training row"), count(self.items as u64, "test item"));
        if self.found.is_empty() {
            return format!("no contamination: {looked}");
        }
        let first = &self.found[0];
        format!(
            "contamination: {} of {} stand in {} ({looked}); the first is {}",
            count(self.found.len() as u64, "item"),
            self.items,
            count(self.contaminated_rows, "row"),
            first.item
        )
    }
}

fn longest_text(doc: &Value) -> String {
    let texts = doc.as_object().into_iter().flat_map(|object| object.values()).filter_map(Value::as_str);
    texts.chain(doc.as_str()).max_by_key(|text| text.len()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn items() -> [(&'static str, &'static str, Value); 4] {
        let pond = "A farmer digs a pond that is four metres long, three metres wide and two metres deep. How much water fits in?";
        [
            ("ponds", "ponds#1", json!({"question": pond, "choices": ["24", "12"], "answer": "24"})),
            ("ponds", "ponds#2", json!({"question": "What do frogs eat in winter?", "answer": "nothing"})),
            (
                "pages",
                "pages#1",
                json!({"id": "x", "body": "The heron stands in the reeds until a careless frog comes near enough."}),
            ),
            ("pages", "pages#2", json!(7)),
        ]
    }

    fn look(rows: &[Sample<'_>]) -> Contamination {
        let items = items();
        let mut test = TestItems::new(items.iter().map(|(task, id, doc)| (*task, *id, doc)));
        for row in rows {
            test.look_at(row);
        }
        test.finish()
    }

    #[test]
    fn hits_are_told_on_both_sides() {
        let found = look(&[
            Sample::pair("r1", "What do toads eat?", "Flies."),
            Sample::pair("r2", "What do frogs eat in winter?", "Nothing."),
            Sample::pair(
                "r3",
                "A clerk digs a pond that is four metres long, three metres wide and two metres deep.",
                "Why?",
            ),
            Sample::pair("r4", "Go on.", "The heron stands in the reeds until a careless frog comes near."),
        ]);
        assert_eq!((found.rows, found.contaminated_rows, found.items), (4, 3, 4));
        let told: Vec<_> = found
            .found
            .iter()
            .map(|item| (item.item.as_str(), item.hits[0].row.as_str(), item.hits[0].part.as_str()))
            .collect();
        assert_eq!(told, [("ponds#1", "r3", "question"), ("ponds#2", "r2", "question"), ("pages#1", "r4", "question")]);
        assert!(found.found[0].hits[0].text.starts_with("digs a pond that is four metres long"));
        assert!(found.found[0].question.starts_with("A farmer digs") && found.found[0].hits[0].share < 1.0);
        assert_eq!(found.of_task("pages"), HashSet::from(["pages#1"]));
        assert!(
            found
                .words()
                .starts_with("contamination: 3 items of 4 stand in 3 rows (4 training rows against 4 test items)"),
            "{}",
            found.words()
        );
        assert_eq!(
            look(&[Sample::pair("r", "Hello?", "Hello.")]).words(),
            "no contamination: 1 training row against 4 test items"
        );
    }

    #[test]
    fn many_rows_with_one_item_are_counted_and_some_told() {
        let rows: Vec<String> = (0..40).map(|row| format!("r{row}")).collect();
        let rows: Vec<Sample<'_>> = rows.iter().map(|id| Sample::pair(id, "what do FROGS eat in winter", "")).collect();
        let found = look(&rows);
        assert_eq!((found.found.len(), found.found[0].rows, found.found[0].hits.len()), (1, 40, TOLD));
    }

    #[test]
    fn other_words_of_the_same_sense_are_found_by_vectors() {
        let items = items();
        let mut test = TestItems::new(items.iter().map(|(task, id, doc)| (*task, *id, doc)));
        let embed = |texts: &[String]| {
            let of = |text: &String, word: &str| f32::from(u8::from(text.contains(word)));
            let topics =
                |text: &String| vec![of(text, "frog") * of(text, "winter"), of(text, "pond"), of(text, "reeds")];
            Vectors::dense(&texts.iter().map(topics).collect::<Vec<_>>())
        };
        let rows =
            [Sample::pair("r1", "In winter, which food does a frog take?", ""), Sample::pair("r2", "And a heron?", "")];
        test.look_at_meaning(&rows, 0.9, embed).unwrap();
        let found = test.finish();
        assert_eq!((found.found.len(), found.contaminated_rows), (1, 1));
        assert_eq!((found.found[0].item.as_str(), found.found[0].hits[0].part.as_str()), ("ponds#2", "meaning"));
    }
}
