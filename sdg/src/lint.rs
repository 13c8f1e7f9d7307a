//! Mistakes in templates and checks, found before anything is generated.

use espalier_taxonomy::{Diagnostic, Leaf, Place, QuestionTemplate, Severity, Tree, Verify};

use crate::expressions;
use crate::held_out::HeldOut;
use crate::slots::{capacity, draw, draw_distinct};
use crate::verify::Verifier;

/// Draws that a template is tried with.
const TRIALS: u64 = 20;

/// What [`lint`] finds in every leaf, and seeds that another leaf's test holds out; sorted by place.
pub fn lint_tree(tree: &Tree) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for leaf in &tree.leaves {
        found.extend(lint(leaf));
        let held_out = HeldOut::of_leaf(tree, &leaf.id);
        for seed in leaf.seeds.iter().filter(|seed| held_out.seed(seed)) {
            let mut findings = Findings { leaf, found: Vec::new() };
            findings.error(
                Place { line: seed.line, column: 1 },
                "this seed is a held-out test question of the tree".to_owned(),
                "remove it here or from the test",
            );
            found.append(&mut findings.found);
        }
    }
    found.sort_by(Diagnostic::by_place);
    found
}

/// Findings about the `questions` and `verify` of a leaf, each with its place in the file: templates and expressions that
/// fail, patterns and schemas that cannot be used, slots that nothing uses, seeds and test answers that fail the leaf's own
/// check, fewer combinations than samples wanted.
pub fn lint(leaf: &Leaf) -> Vec<Diagnostic> {
    let mut findings = Findings { leaf, found: Vec::new() };
    let verifier = match Verifier::new(leaf) {
        Ok(verifier) => Some(verifier),
        Err(error) => {
            findings.error(leaf.places.verify, error.to_string(), "correct the pattern, schema or expression");
            None
        }
    };
    if let Some(template) = &leaf.questions {
        questions(leaf, template, &mut findings);
    }
    if let Some(verifier) = verifier.filter(Verifier::is_some) {
        seeds(leaf, &verifier, &mut findings);
        test_answers(leaf, &verifier, &mut findings);
    }
    findings.found
}

struct Findings<'a> {
    leaf: &'a Leaf,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn error(&mut self, place: Place, message: String, hint: &str) {
        self.push(Severity::Error, place, message, hint);
    }

    fn warning(&mut self, place: Place, message: String, hint: &str) {
        self.push(Severity::Warning, place, message, hint);
    }

    fn push(&mut self, severity: Severity, place: Place, message: String, hint: &str) {
        let (line, column) = (place.line.max(1), place.column.max(1));
        self.found.push(Diagnostic::new(severity, &self.leaf.file, line, column, message).with_hint(hint));
    }
}

fn questions(leaf: &Leaf, template: &QuestionTemplate, findings: &mut Findings<'_>) {
    let place = |name: &str| {
        let places = &leaf.places;
        places.slots.get(name).or_else(|| places.derive.get(name)).copied().unwrap_or(places.template)
    };
    for index in 0..TRIALS {
        if let Err(error) = draw(leaf, template, 0, index) {
            let place = match &error {
                crate::SdgError::Expression { part, .. } if part.starts_with("questions.") => leaf.places.template,
                crate::SdgError::Expression { part, .. }
                    if leaf.verify.as_ref().and_then(Verify::truth) == Some(part.as_str()) =>
                {
                    leaf.places.verify
                }
                crate::SdgError::Expression { part, .. } => place(part.split(", ").next().unwrap_or(part)),
                _ => leaf.places.template,
            };
            findings.error(
                place,
                error.to_string(),
                "names come from `slots` and `derive`; the book's page on templates lists the filters",
            );
            return;
        }
    }
    unused(template, leaf, findings, &place);
    if let Some(samples) = leaf.samples {
        let held_out = HeldOut::new(&leaf.test);
        // Counting all combinations of a large template would take long, and it is large enough.
        if capacity(template) < 4 * samples as u64
            && let Ok(drawn) = draw_distinct(leaf, template, 0, samples, &held_out)
            && drawn.len() < samples
        {
            findings.warning(
                leaf.places.template,
                format!("the template gives {} different questions, and {samples} samples are wanted", drawn.len()),
                "give its slots more values, or lower `samples`",
            );
        }
    }
}

fn unused(template: &QuestionTemplate, leaf: &Leaf, findings: &mut Findings<'_>, place: &dyn Fn(&str) -> Place) {
    let check = leaf.verify.as_ref().map(Verify::expressions).unwrap_or_default().join(" ");
    let expressions: Vec<&String> = template.derive.values().collect();
    let uses = |name: &str| {
        template.template.contains(name)
            || check.contains(name)
            || expressions
                .iter()
                .any(|expression| expressions::needs(expression).is_ok_and(|needs| needs.contains(name)))
    };
    for name in template.slots.keys() {
        if !uses(name) {
            findings.warning(
                place(name),
                format!("nothing uses the slot `{name}`"),
                "use it in the template, or remove it",
            );
        }
    }
}

/// A seed is checked as an answer would be, where the check needs no slots: nobody drew a seed's.
fn seeds(leaf: &Leaf, verifier: &Verifier, findings: &mut Findings<'_>) {
    for seed in &leaf.seeds {
        let context = seed.context.clone().unwrap_or_default();
        let slots = [("context".to_owned(), context.into())].into();
        if needs_slots(leaf) {
            return;
        }
        let place = Place { line: seed.line, column: 1 };
        match verifier.check(leaf, &slots, &seed.question, &seed.answer) {
            Ok(outcome) if outcome.passed => {}
            Ok(outcome) => findings.error(
                place,
                format!("the answer of this seed fails the leaf's own check: {}", outcome.reason),
                "correct the seed, or the check",
            ),
            Err(error) => {
                findings.error(leaf.places.verify, error.to_string(), "known names: question, answer, context");
                return;
            }
        }
    }
}

fn needs_slots(leaf: &Leaf) -> bool {
    let Some(verify) = &leaf.verify else { return false };
    // A truth that is no plain number is computed from slots.
    verify.truth().is_some_and(|truth| truth.parse::<f64>().is_err())
        || verify.expressions().into_iter().any(|expression| {
            expressions::needs(expression)
                .is_ok_and(|needs| needs.iter().any(|name| !["question", "answer", "context"].contains(&name.as_str())))
        })
}

/// A test answer that its own check refuses would count every right model as wrong.
fn test_answers(leaf: &Leaf, verifier: &Verifier, findings: &mut Findings<'_>) {
    for item in leaf.test.iter().filter(|item| item.choices.is_empty()) {
        let message = match verifier.check_key(leaf, item) {
            Ok(outcome) if outcome.passed => continue,
            Ok(outcome) => outcome.reason,
            Err(error) => error.to_string(),
        };
        let file = leaf.test_file.as_ref().unwrap_or(&leaf.file);
        let message = format!("the answer of this test row fails the leaf's own check: {message}");
        findings.found.push(
            Diagnostic::new(Severity::Error, file, item.line.max(1), 1, message)
                .with_hint("correct the answer, the slots, or the check"),
        );
    }
}

#[cfg(test)]
mod tests {
    use espalier_taxonomy::{Seed, Slot, TestItem};

    use super::*;

    #[test]
    fn finds_what_would_fail_later() {
        let mut leaf = Leaf { id: "x".into(), file: "x/qna.yaml".into(), samples: Some(10), ..Leaf::default() };
        leaf.places.template = Place { line: 9, column: 3 };
        leaf.places.slots = [("m".to_owned(), Place { line: 12, column: 5 })].into();
        let slot = || Slot::IntegerRange { from: 1, to: 4, step: 1 };
        leaf.questions = Some(QuestionTemplate {
            template: "{{ n }}".into(),
            slots: [("n".to_owned(), slot()), ("m".to_owned(), slot())].into(),
            ..QuestionTemplate::default()
        });
        let lines: Vec<String> =
            lint(&leaf).iter().map(|finding| finding.to_string().lines().next().unwrap_or("").to_owned()).collect();
        assert_eq!(
            lines,
            [
                "x/qna.yaml:12:5: warning: nothing uses the slot `m`",
                "x/qna.yaml:9:3: warning: the template gives 4 different questions, and 10 samples are wanted",
            ]
        );
        if let Some(questions) = &mut leaf.questions {
            questions.template = "{{ n | wonder }}".into();
        }
        let findings = lint(&leaf);
        assert_eq!((findings[0].severity, findings[0].line), (Severity::Error, 9));
        assert!(findings[0].message.contains("unknown filter"), "{}", findings[0].message);
    }

    #[test]
    fn seeds_are_checked() {
        let leaf = Leaf {
            seeds: vec![Seed { question: "q".into(), answer: "no".into(), context: None, line: 4, ..Seed::default() }],
            verify: Some(Verify::Regex { pattern: "^yes".into() }),
            ..Leaf::default()
        };
        assert_eq!((lint(&leaf)[0].severity, lint(&leaf)[0].line), (Severity::Error, 4));
    }

    #[test]
    fn test_answers_are_checked_in_their_own_file() {
        let item = |answer: &str, line: usize| TestItem { answer: answer.into(), line, ..TestItem::default() };
        let leaf = Leaf {
            verify: Some(Verify::Regex { pattern: "^[0-9]+$".into() }),
            test: vec![item("12", 1), item("twelve", 2)],
            test_file: Some("x/test.jsonl".into()),
            ..Leaf::default()
        };
        let found: Vec<String> = lint(&leaf).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("x/test.jsonl:2:1: error: the answer of this test row fails"), "{}", found[0]);
    }

    #[test]
    fn the_examples_are_clean_and_a_leak_is_found() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../taxonomy/examples");
        let mut tree = espalier_taxonomy::read_tree(examples.as_ref()).unwrap();
        assert_eq!(lint_tree(&tree), []);
        let question = tree.leaves[0].seeds[0].question.clone();
        let context = tree.leaves[0].seeds[0].context.clone();
        tree.leaves[1].test.push(TestItem { question, context, ..TestItem::default() });
        let found = lint_tree(&tree);
        assert!(found.iter().any(|finding| finding.message.contains("held-out test question")), "{found:?}");
    }
}
