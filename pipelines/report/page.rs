//! The page's content as data, and the template that shows it.

use super::items::ItemSection;
use super::rows::RowSection;
use anyhow::{Context, Result};
use serde::Serialize;

/// Everything that the page shows.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// Name of the run.
    pub name: String,
    /// The finding, in one or two sentences.
    pub verdict: String,
    /// Whether the finding is a gain.
    pub gained: bool,
    /// Name and value of each fact about models and numerics.
    pub facts: Vec<(String, String)>,
    /// Name of each stage and what it said at its end.
    pub stages: Vec<(String, String)>,
    /// What became of the generated rows, and some of them.
    pub rows: RowSection,
    /// The curves of training, each a heading and SVG.
    pub curves: Vec<(String, String)>,
    /// One section a held-out test.
    pub tasks: Vec<TaskSection>,
    /// What the tests and the rows that were trained on have in common; nothing where rows were not looked at.
    pub contamination: Option<ContaminationSection>,
    /// The items of the tests with the answers of every model.
    pub items: ItemSection,
    /// The files that were made.
    pub files: Vec<FileLine>,
    /// Sizes against quality as SVG.
    pub size_plot: Option<String>,
    /// Configuration of each stage as YAML.
    pub configuration: Vec<(String, String)>,
    /// How to use the result: ready to paste.
    pub serve: Vec<(String, String)>,
}

/// The scores on one held-out test.
#[derive(Debug, Clone, Serialize)]
pub struct TaskSection {
    /// The leaf.
    pub name: String,
    /// What is counted as right.
    pub measure: String,
    /// Number of items.
    pub items: usize,
    /// What so many items can show.
    pub power: String,
    /// One line a model.
    pub scores: Vec<ScoreRow>,
    /// The scores as SVG.
    pub plot: String,
}

/// One model on one test.
#[derive(Debug, Clone, Serialize)]
pub struct ScoreRow {
    /// Which model, and with how many shots.
    pub label: String,
    /// Share of right answers with its interval: `71.3 % (66.0 to 76.2)`.
    pub accuracy: String,
    /// Compared with what.
    pub against: String,
    /// Difference with its paired interval.
    pub difference: String,
    /// p of the paired test.
    pub p_value: String,
    /// The finding in words.
    pub verdict: String,
}

/// Test items that stand in training rows.
#[derive(Debug, Clone, Serialize)]
pub struct ContaminationSection {
    /// The finding in a line.
    pub words: String,
    /// Test item, training row, what of the item was found, and the words that both have.
    pub hits: Vec<[String; 4]>,
}

/// One file that was made.
#[derive(Debug, Clone, Serialize)]
pub struct FileLine {
    /// File name in the run folder.
    pub name: String,
    /// Its length.
    pub size: String,
    /// Bits a weight, divergence and what else was measured.
    pub detail: String,
    /// Content hash.
    pub sha256: String,
}

/// The page as HTML.
pub fn render(page: &Page) -> Result<String> {
    let mut environment = minijinja::Environment::new();
    environment
        .add_template("report.html", include_str!("report.html"))
        .context("the report's template cannot be read")?;
    environment
        .get_template("report.html")
        .and_then(|template| template.render(minijinja::value::Serde(page)))
        .context("the report cannot be rendered")
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_dataset::{Row, Turn};
    use espalier_eval::items::ItemRow;

    #[test]
    fn the_page_is_self_contained_and_escapes_what_models_wrote() -> Result<()> {
        let page = Page {
            name: "quick".into(),
            verdict: "The tuned model is better.".into(),
            gained: true,
            facts: vec![("student".into(), "m.gguf".into())],
            stages: vec![("train".into(), "9 steps".into())],
            rows: RowSection::of(&[Row {
                leaf: "a/b".into(),
                turns: vec![Turn::new("user", "<script>alert(1)</script>"), Turn::new("assistant", "2")],
                reason: "wrong".into(),
                ..Row::default()
            }]),
            curves: vec![("Training loss".into(), "<svg></svg>".into())],
            tasks: vec![],
            contamination: Some(ContaminationSection {
                words: "no contamination".into(),
                hits: vec![["i".into(), "r".into(), "question".into(), "<b>".into()]],
            }),
            items: ItemSection::of(&[ItemRow {
                task: "t".into(),
                response: "</script><script>alert(2)</script>".into(),
                ..ItemRow::default()
            }]),
            files: vec![],
            size_plot: None,
            configuration: vec![],
            serve: vec![],
        };
        let html = render(&page)?;
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script>alert") && html.contains("<svg></svg>"));
        assert!(!html.contains("http://") && !html.contains("https://"));
        Ok(())
    }
}
