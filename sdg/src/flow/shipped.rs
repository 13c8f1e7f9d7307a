//! The flows that come with the program. They are files as a user's are, in `sdg/flows` and `sdg/prompts`, under a path of their
//! own: `espalier:/flows/simple/knowledge.yaml`.

use std::path::{Component, Path, PathBuf};

/// Where shipped files stand.
const ROOT: &str = "espalier:";

/// A flow, or a folder with one for each kind of leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedFlow {
    /// What [`shipped`] takes.
    pub name: &'static str,
    /// What it makes, for whom.
    pub about: &'static str,
}

/// All of them.
pub const SHIPPED: [ShippedFlow; 7] = [
    ShippedFlow { name: "simple", about: "for small teachers: one call a row, form by example, checks by program" },
    ShippedFlow {
        name: "full",
        about: "for strong teachers: steps of their own for questions and answers, judges, repair",
    },
    ShippedFlow { name: "template", about: "questions of a template, answers checked by the leaf's `verify`" },
    ShippedFlow { name: "rejection_sampling", about: "the same, of eight answers the two shortest right ones" },
    ShippedFlow { name: "foundational_skills", about: "skills with the way to the answer; five ways must agree" },
    ShippedFlow { name: "multi_turn", about: "knowledge as conversations of two questions" },
    ShippedFlow { name: "multiple_choice", about: "knowledge as questions with four choices" },
];

/// The path of a shipped flow, for [`super::read_flow`], or of a folder of them, for [`super::read_flows`]; `None` for a name
/// that none has.
pub fn shipped(name: &str) -> Option<PathBuf> {
    let known = SHIPPED.iter().any(|flow| flow.name == name);
    let folder = Path::new(ROOT).join("flows");
    known.then(|| {
        let file = folder.join(format!("{name}.yaml"));
        if text(&file).is_some() { file } else { folder.join(name) }
    })
}

/// The text of a shipped file; `None` for any other path.
pub(super) fn text(path: &Path) -> Option<&'static str> {
    let mut components = path.components();
    if components.next()? != Component::Normal(ROOT.as_ref()) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for component in components {
        match component {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    let name = parts.join("/");
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $name)))),*]
    };
}

/// A test holds this list to the folders.
const FILES: &[(&str, &str)] = files![
    "flows/foundational_skills.yaml",
    "flows/full/freeform_skills.yaml",
    "flows/full/grounded_skills.yaml",
    "flows/full/knowledge.yaml",
    "flows/multi_turn.yaml",
    "flows/multiple_choice.yaml",
    "flows/rejection_sampling.yaml",
    "flows/simple/freeform_skills.yaml",
    "flows/simple/grounded_skills.yaml",
    "flows/simple/knowledge.yaml",
    "flows/template.yaml",
    "prompts/answer.jinja",
    "prompts/answer_from_document.jinja",
    "prompts/answer_grounded.jinja",
    "prompts/answer_reasoned.jinja",
    "prompts/follow_up.jinja",
    "prompts/follow_up_answer.jinja",
    "prompts/judge_answer.jinja",
    "prompts/judge_answer_grounded.jinja",
    "prompts/judge_choice.jinja",
    "prompts/judge_faithful.jinja",
    "prompts/judge_follow_up.jinja",
    "prompts/judge_question.jinja",
    "prompts/judge_relevant.jinja",
    "prompts/judge_stand_alone.jinja",
    "prompts/knowledge_question.jinja",
    "prompts/mend_document.jinja",
    "prompts/mend_grounded.jinja",
    "prompts/mend_task.jinja",
    "prompts/multiple_choice.jinja",
    "prompts/new_context.jinja",
    "prompts/new_grounded_question.jinja",
    "prompts/new_question.jinja",
    "prompts/opening.jinja",
    "prompts/question_for_sentence.jinja",
    "prompts/simple_freeform.jinja",
    "prompts/simple_grounded.jinja",
    "prompts/simple_knowledge.jinja",
    "prompts/summary.jinja",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else {
                let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
                found.insert(name.to_str().unwrap().replace('\\', "/"));
            }
        }
    }

    #[test]
    fn every_file_of_the_folders_is_shipped() {
        let mut found = BTreeSet::new();
        below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("flows"), &mut found);
        below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("prompts"), &mut found);
        // The prompts of the stage that runs without flows.
        for name in ["document", "grounded", "invented", "template"] {
            found.remove(&format!("prompts/{name}.jinja"));
        }
        assert_eq!(FILES.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>(), found);
    }

    #[test]
    fn a_prompt_says_which_flows_use_it() {
        for (name, text) in FILES.iter().filter(|(name, _)| name.starts_with("prompts/")) {
            let file = name.trim_start_matches("prompts/");
            let head = text.split("#}").next().unwrap();
            let users = FILES
                .iter()
                .filter(|(flow, text)| flow.starts_with("flows/") && text.contains(&format!("prompts/{file}")));
            let users: Vec<&str> =
                users.map(|(flow, _)| flow.trim_start_matches("flows/").trim_end_matches(".yaml")).collect();
            assert!(!users.is_empty(), "nothing uses {name}");
            for user in users {
                assert!(head.contains(user), "{name} does not say that {user} uses it");
            }
        }
    }

    #[test]
    fn other_paths_are_not_shipped() {
        assert_eq!(shipped("nobody"), None);
        assert!(text(Path::new("flows/simple/knowledge.yaml")).is_none());
        assert!(text(Path::new("espalier:/flows/simple/../../prompts/answer.jinja")).is_some());
        assert!(text(Path::new("espalier:/../../../etc/passwd")).is_none());
    }
}
