//! Checks of rows: the first byte chooses between a text that is masked, checked by every rule and compared, an index of
//! near-duplicates, and a benchmark; the rest is any bytes.
#![no_main]

use espalier_dataset::quality::{
    Benchmarks, Compared, Item, Known, Language, Masked, NearDuplicates, Rules, Sample, Seeds, mask, read_items,
};
use libfuzzer_sys::fuzz_target;

#[path = "../scratch.rs"]
mod scratch;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    match first % 4 {
        0 => {
            let path = scratch::file("known.index", rest);
            if let Ok(mut known) = NearDuplicates::new(0.8, Compared::Conversation).with_index(&path, "fuzz") {
                let _ = known.add_all(&[Sample::pair("a", "Once upon a time", "there was a frog")]);
            }
        }
        1 => {
            let path = scratch::file("benchmark.jsonl", rest);
            if let Ok(items) = read_items(&path) {
                let _ = Benchmarks::new(items).hits(&Sample::pair("a", "Once upon a time?", "A frog."));
            }
        }
        _ => look_at(&String::from_utf8_lossy(rest)),
    }
});

fn look_at(text: &str) {
    let once = mask(text, &mut Masked::new()).into_owned();
    assert_eq!(mask(&once, &mut Masked::new()), once);
    let (question, answer) = text.split_once('\0').unwrap_or((text, text));
    let sample = Sample::pair("a", question, answer);
    let seeds = Seeds::new([(answer, question)]);
    let known = Known {
        language: Language::from_name("en"),
        seeds: Some(&seeds),
        instructions: Some(question),
        question_mark: true,
        ..Known::default()
    };
    let _ = Rules::default().check(&sample, &known);
    let item =
        Item { question: question.into(), choices: vec![answer.into()], answer: answer.into(), ..Item::default() };
    let _ = Benchmarks::new(vec![item]).hits(&sample);
    let _ = NearDuplicates::new(0.8, Compared::Question).add_all(&[sample.clone(), sample]);
}
