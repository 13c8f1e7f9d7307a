//! An engine that follows a script, and shorthands to run flows with it.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use espalier_inference::{Answer, Finish, Prompt, Request};
use espalier_sdg::flow::{
    Budget, Flow, FlowEngine, FlowOptions, FlowRun, FlowTask, Origin, ResponseCache, Sample, read_flow, run,
};
use espalier_sdg::{HeldOut, SdgError};
use espalier_taxonomy::Leaf;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The pipelines of instructlab-sdg.
pub fn instructlab(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/assets/instructlab-sdg/pipelines").join(path)
}

/// Files beside the tests.
pub fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flows").join(path)
}

/// A flow that must be good.
pub fn flow(path: &Path) -> Flow {
    read_flow(path).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

/// A flow of some text in a folder, with other files.
pub fn flow_of(folder: &Path, text: &str, files: &[(&str, &str)]) -> Flow {
    for (name, text) in [("flow.yaml", text)].iter().chain(files) {
        std::fs::write(folder.join(name), text).unwrap();
    }
    flow(&folder.join("flow.yaml"))
}

/// Rows with these columns.
pub fn samples(rows: &[Value]) -> Vec<Sample> {
    let sample = |(number, row): (usize, &Value)| {
        let Value::Object(columns) = row else { panic!("{row} is not an object") };
        Sample::new("leaf", &number.to_le_bytes(), columns.clone(), Origin::default())
    };
    rows.iter().enumerate().map(sample).collect()
}

pub fn text_of(request: &Request) -> String {
    let Prompt::Chat(turns) = &request.prompt else { panic!("the teacher is asked in turns") };
    turns.iter().map(|turn| turn.content.as_str()).collect::<Vec<_>>().join(" ")
}

pub fn answer_of(text: &str) -> Answer {
    Answer {
        text: text.to_owned(),
        tokens: vec![0; text.split_whitespace().count()],
        finish: Finish::Stop,
        logprobs: Vec::new(),
        end: None,
        prompt_logprobs: Vec::new(),
        echo: Vec::new(),
        prompt_tokens: 10,
        prompt_tokens_cut: 0,
        server_usage: None,
    }
}

/// How a flow is run.
pub struct Run<'a> {
    pub leaf: Leaf,
    pub held_out: HeldOut,
    /// Answers come in this order: a permutation of a call's requests.
    pub order: &'a dyn Fn(usize) -> Vec<usize>,
    /// After so many answers a stop is asked for.
    pub stop_after: usize,
    pub scale: usize,
    pub seed: u64,
    pub cache: ResponseCache,
    /// Requests that reached the engine.
    pub asked: Vec<Request>,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self {
            leaf: Leaf { id: "leaf".to_owned(), ..Leaf::default() },
            held_out: HeldOut::default(),
            order: &|count| (0..count).collect(),
            stop_after: usize::MAX,
            scale: 3,
            seed: 7,
            cache: ResponseCache::in_memory(),
            asked: Vec::new(),
        }
    }
}

impl Run<'_> {
    /// Runs a flow whose one engine says what the script says to a request and its number among those with the same prompt.
    pub fn flow(
        &mut self,
        flow: &Flow,
        sources: Vec<Sample>,
        script: &dyn Fn(&Request, usize) -> String,
    ) -> Result<FlowRun, SdgError> {
        let stop = AtomicBool::new(false);
        let (asked, order, stop_after) = (&mut self.asked, self.order, self.stop_after);
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut answered = 0;
        let mut engine = |requests: &[Request], on_answer: &mut dyn FnMut(usize, _) -> ControlFlow<()>| {
            let texts: Vec<String> = requests
                .iter()
                .map(|request| {
                    let time = seen.entry(text_of(request)).and_modify(|times| *times += 1).or_insert(0);
                    script(request, *time)
                })
                .collect();
            for index in order(requests.len()) {
                asked.push(requests[index].clone());
                answered += 1;
                stop.store(answered >= stop_after, Ordering::Relaxed);
                if on_answer(index, Ok(answer_of(&texts[index]))) == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        };
        let teacher = FlowEngine::in_waves("scripted", &mut engine);
        let mut engines = BTreeMap::from([("teacher".to_owned(), teacher)]);
        let task = FlowTask { leaf: &self.leaf, flow, sources, held_out: &self.held_out, elsewhere: Vec::new() };
        let options = FlowOptions { seed: self.seed, scale: self.scale, budget: Budget::default(), stop: &stop };
        run(&[task], &mut engines, &mut self.cache, &options, &mut |_| {})
    }
}

/// What scripts/golden-flows.py says.
pub fn golden_answer(request: &Request, time: usize) -> String {
    let text = text_of(request);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let time = if request.sampling.temperature > 0.0 { time } else { 0 };
    let digest = Sha256::digest(format!("{words}|{time}"));
    let value = u32::from_be_bytes(digest[..4].try_into().unwrap()) as usize;
    let has = |part: &str| words.contains(part);
    if value.is_multiple_of(11) {
        return "I would rather not.".to_owned();
    }
    if has("[Start of Score]") || has("[Start of Rating]") || has("[Start of Explanation]") {
        let one = has("[Start of Rating]") || has("binary");
        let scores =
            if one { ["1", "1", " 1.0 ", "1", "0", "n/a", "2"] } else { ["2", "2.0", "2", " 2", "3", "n/a", "1"] };
        let verdict = if value.is_multiple_of(5) { "NO" } else { "YES" };
        let parts = [
            ("Evaluation", format!("Because of {value}.")),
            ("Explanation", format!("It is {value}.")),
            ("Feedback", format!("Fine:\n{value}")),
            ("Answer", verdict.to_owned()),
            ("Score", scores[value % 7].to_owned()),
            ("Rating", scores[value % 7].to_owned()),
        ];
        let parts = parts.map(|(tag, text)| format!("[Start of {tag}] {text} [End of {tag}]"));
        return parts.join("\n");
    }
    if has("diverse questions -") || has("Ask one question") {
        let one = |i| format!("[Start of Question]\nWhy {}?\n[End of Question]", value % 97 + i / 2);
        return format!("Here they are.\n{}", (0..=value % 4).map(one).collect::<Vec<_>>().join("\n"));
    }
    if has("diverse context for") {
        return format!("[Start of Context]\nA text of {} words.\n[End of Context]", value % 5);
    }
    if has("With certainty:") {
        let certainty = ["1", "2", "3", "x", "2.5"][value % 5];
        return format!("Answer: Ten<end> or {}. Certainty: {certainty} and so on", value % 13);
    }
    if has("[Start of Response]") {
        return format!("[Start of Response] Since {value}. [End of Response]");
    }
    if has("[QUESTION]") {
        let pair = |i| format!("[QUESTION]\nWhat is {}?\n[ANSWER]\nIt is {i}.\n[END]\n", value % 89 + i);
        return (0..value % 4).map(pair).collect::<Vec<_>>().join("\n");
    }
    if has("[Start of Question]") {
        return format!(
            "[Start of Question] Which {value}? A) 1 [End of Question] [Start of Answer] A) 1 [End of Answer]"
        );
    }
    format!("  Who is {}? He is {value}.  ", value % 7)
}
