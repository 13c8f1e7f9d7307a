//! The tasks that come with the program, under lm-eval's names, and the data of the small ones.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::bbh;
use crate::error::EvalError;

macro_rules! task_files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../../tasks/", $name)))),*] };
}

const FILES: &[(&str, &str)] = task_files![
    "arc_easy.yaml",
    "arc_challenge.yaml",
    "openbookqa.yaml",
    "copa.yaml",
    "gsm8k.yaml",
    "piqa.yaml",
    "hellaswag.yaml",
    "winogrande.yaml",
    "commonsense_qa.yaml",
    "boolq.yaml",
    "lambada_openai.yaml",
    "truthfulqa_mc1.yaml",
    "truthfulqa_mc2.yaml",
    "wikitext.yaml",
    "ifeval.yaml",
    "mmlu.yaml",
    "mmlu_stem.yaml",
    "mmlu_other.yaml",
    "mmlu_social_sciences.yaml",
    "mmlu_humanities.yaml",
];

/// What the tasks of MMLU include.
const MMLU: (&str, &str) = ("_default_template_yaml", include_str!("../../tasks/_default_template_yaml"));

/// The subjects of MMLU by the group they stand in.
const SUBJECTS: &[(&str, &[&str])] = &[
    (
        "stem",
        &[
            "abstract_algebra",
            "anatomy",
            "astronomy",
            "college_biology",
            "college_chemistry",
            "college_computer_science",
            "college_mathematics",
            "college_physics",
            "computer_security",
            "conceptual_physics",
            "electrical_engineering",
            "elementary_mathematics",
            "high_school_biology",
            "high_school_chemistry",
            "high_school_computer_science",
            "high_school_mathematics",
            "high_school_physics",
            "high_school_statistics",
            "machine_learning",
        ],
    ),
    (
        "other",
        &[
            "business_ethics",
            "clinical_knowledge",
            "college_medicine",
            "global_facts",
            "human_aging",
            "management",
            "marketing",
            "medical_genetics",
            "miscellaneous",
            "nutrition",
            "professional_accounting",
            "professional_medicine",
            "virology",
        ],
    ),
    (
        "social_sciences",
        &[
            "econometrics",
            "high_school_geography",
            "high_school_government_and_politics",
            "high_school_macroeconomics",
            "high_school_microeconomics",
            "high_school_psychology",
            "human_sexuality",
            "professional_psychology",
            "public_relations",
            "security_studies",
            "sociology",
            "us_foreign_policy",
        ],
    ),
    (
        "humanities",
        &[
            "formal_logic",
            "high_school_european_history",
            "high_school_us_history",
            "high_school_world_history",
            "international_law",
            "jurisprudence",
            "logical_fallacies",
            "moral_disputes",
            "moral_scenarios",
            "philosophy",
            "prehistory",
            "professional_law",
            "world_religions",
        ],
    ),
];

/// Every task file with its name.
pub(crate) fn files() -> Vec<(String, String)> {
    let subjects = SUBJECTS.iter().flat_map(|(group, subjects)| subjects.iter().map(move |subject| (group, subject)));
    let subjects = subjects.map(|(group, subject)| {
        let about = subject.replace('_', " ");
        let text = format!(
            "dataset_name: {subject}\n\
             description: \"The following are multiple choice questions (with answers) about {about}.\\n\\n\"\n\
             tag: mmlu_{group}_tasks\ninclude: {}\ntask: mmlu_{subject}\ntask_alias: {subject}\n",
            MMLU.0
        );
        (format!("mmlu_{subject}.yaml"), text)
    });
    let own = FILES.iter().map(|&(name, text)| (name.to_owned(), text.to_owned()));
    own.chain(subjects).chain(bbh::files()).collect()
}

/// A file that task files include by name.
pub(crate) fn include(path: &Path) -> Option<String> {
    let name = path.to_str()?;
    let all = FILES.iter().chain([&MMLU, &bbh::TEMPLATE]);
    all.into_iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
}

struct Embedded {
    path: &'static str,
    name: Option<&'static str>,
    split: &'static str,
    bytes: &'static [u8],
    licence: &'static str,
}

macro_rules! embedded {
    ($($path:literal $name:expr, $split:literal, $file:literal, $licence:literal;)*) => {
        &[$(Embedded {
            path: $path, name: $name, split: $split,
            bytes: include_bytes!(concat!("../../data/", $file, ".jsonl.gz")), licence: $licence,
        }),*]
    };
}

/// The data sets that are built in. `name` is `None` where the rows tell their part by `subject`.
const EMBEDDED: &[Embedded] = embedded![
    "allenai/ai2_arc" Some("ARC-Easy"), "test", "arc_easy.test", "CC BY-SA 4.0";
    "allenai/ai2_arc" Some("ARC-Challenge"), "test", "arc_challenge.test", "CC BY-SA 4.0";
    "allenai/openbookqa" Some("main"), "test", "openbookqa.test", "Apache-2.0";
    "aps/super_glue" Some("copa"), "validation", "copa.validation", "BSD-2-Clause";
    "openai/gsm8k" Some("main"), "train", "gsm8k.train", "MIT";
    "openai/gsm8k" Some("main"), "test", "gsm8k.test", "MIT";
    "google/IFEval" None, "train", "ifeval.train", "Apache-2.0";
    "cais/mmlu" None, "dev", "mmlu.dev", "MIT";
    "cais/mmlu" None, "test", "mmlu.test", "MIT";
];

fn find(path: &str, name: Option<&str>, split: &str) -> Option<&'static Embedded> {
    EMBEDDED.iter().find(|data| data.path == path && data.split == split && (data.name.is_none() || data.name == name))
}

/// The rows of a split that is built in, as JSON lines.
pub(crate) fn embedded(task: &str, path: &str, name: Option<&str>, split: &str) -> Result<Option<String>, EvalError> {
    let Some(data) = find(path, name, split) else { return Ok(None) };
    let mut text = String::new();
    GzDecoder::new(data.bytes).read_to_string(&mut text).map_err(|error| EvalError::Task {
        task: task.to_owned(),
        problem: format!("its built-in data is damaged: {error}"),
    })?;
    if data.name.is_none() {
        let of_part = |line: &&str| {
            serde_json::from_str::<Value>(line).is_ok_and(|row| row.get("subject").and_then(Value::as_str) == name)
        };
        text = text.lines().filter(of_part).flat_map(|line| [line, "\n"]).collect();
    }
    Ok(Some(text))
}

/// Whether a split is built in.
pub(crate) fn is_embedded(path: &str, name: Option<&str>, split: &str) -> bool {
    find(path, name, split).is_some()
}

/// The licence of a data set that is known here.
pub(crate) fn licence(path: &str, name: Option<&str>) -> Option<&'static str> {
    let built_in = EMBEDDED.iter().find(|data| data.path == path && (data.name.is_none() || data.name == name));
    built_in.map(|data| data.licence).or_else(|| {
        let others = [
            ("baber/piqa", "AFL-3.0"),
            ("SaylorTwift/bbh", "MIT"),
            ("Rowan/hellaswag", "MIT"),
            ("allenai/winogrande", "Apache-2.0"),
            ("tau/commonsense_qa", "MIT"),
            ("EleutherAI/lambada_openai", "MIT"),
            ("truthfulqa/truthful_qa", "Apache-2.0"),
            ("EleutherAI/wikitext_document_level", "CC BY-SA 3.0"),
            ("aps/super_glue", "CC BY-SA 3.0"),
        ];
        others.iter().find(|(known, _)| *known == path).map(|(_, licence)| *licence)
    })
}
