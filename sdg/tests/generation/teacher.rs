//! A teacher that follows a script, and trees to give it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use espalier_dataset::{Journal, Row};
use espalier_inference::{Answer, EngineError, Finish, Prompt, Request};
use espalier_sdg::{GenerateConfig, GenerateEvent, LeafGeneration, SdgError, generate_with};
use espalier_taxonomy::{Tree, read_tree};

/// What the teacher says to a request: its number in the call, the request.
pub type Script<'a> = &'a dyn Fn(usize, &Request) -> Result<String, EngineError>;

/// What came of a generation.
pub struct Outcome {
    pub rows: Vec<Row>,
    pub events: Vec<GenerateEvent>,
    /// Every turn that the teacher read.
    pub read: Vec<String>,
}

/// A tree of one leaf in a folder. The leaf's name is always the same: draws depend on it.
pub fn tree_of(folder: &Path, leaf: &str, files: &[(&str, &str)]) -> Tree {
    let place = folder.join("tree/leaf");
    std::fs::create_dir_all(&place).unwrap();
    for (name, text) in [("qna.yaml", leaf)].iter().chain(files) {
        std::fs::write(place.join(name), text).unwrap();
    }
    read_tree(&folder.join("tree")).unwrap()
}

/// Generates the first leaf of a tree. Answers come backwards; after `stop_after` of them a stop is asked for.
pub fn generate(
    tree: &Tree,
    config: &GenerateConfig,
    journal: &Path,
    stop_after: usize,
    script: Script<'_>,
) -> Result<Outcome, SdgError> {
    let mut journal = Journal::open(journal)?;
    let stop = AtomicBool::new(false);
    let (mut read, mut answered, mut events) = (Vec::new(), 0, Vec::new());
    let leaf = &tree.leaves[0];
    let generation = LeafGeneration { tree, leaf, config, count_tokens: &|text| text.len() / 4, stop: &stop };
    let rows = generate_with(
        &generation,
        "scripted",
        &mut |requests, on_answer| {
            for (index, request) in requests.iter().enumerate().rev() {
                let Prompt::Chat(turns) = &request.prompt else { panic!("the teacher is asked in turns") };
                read.extend(turns.iter().map(|turn| turn.content.clone()));
                answered += 1;
                stop.store(answered >= stop_after, Ordering::Relaxed);
                let answer = script(index, request).map(|text| Answer {
                    text,
                    tokens: Vec::new(),
                    finish: Finish::Stop,
                    logprobs: Vec::new(),
                    end: None,
                    prompt_logprobs: Vec::new(),
                    echo: Vec::new(),
                    prompt_tokens: 0,
                    prompt_tokens_cut: 0,
                    server_usage: None,
                });
                if on_answer(index, answer) == ControlFlow::Break(()) {
                    break;
                }
            }
            Ok(())
        },
        &mut journal,
        &mut |event| events.push(event),
    )?;
    Ok(Outcome { rows, events, read })
}
