//! One row to tokens, and which of them the model learns to write.
//!
//! The model's own chat template renders a conversation up to an assistant's turn, opened for its answer, and once with that
//! answer; what the second adds is what the model would have to write. Learned are the tokens of the answer and the token
//! that ends it; the text of the template behind it is not. Of a turn of another role that is learned by its own weight,
//! only what it says is. Templates know no clock and no chance here, so that a row always
//! renders the same.

use espalier_dataset::{Content, Example, WeightedTurn};
use espalier_model::{ChatTemplate, Message, SpecialTokens, Tokenizer};

use crate::config::OverLong;
use crate::data::Learned;

/// Turns rows into tokens.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) template: &'a ChatTemplate,
    /// Most tokens of a sequence.
    pub(crate) longest: usize,
    pub(crate) over_long: OverLong,
}

/// Tokens with the weight of each in the loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Weighted {
    pub(crate) tokens: Vec<u32>,
    pub(crate) weights: Vec<f32>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Encoded {
    /// One sequence, or the pieces of a long text.
    Whole(Vec<Weighted>),
    /// It was too long (with this many tokens) and lost its end.
    Truncated(Weighted, usize),
    /// It was too long (with this many tokens) and is left out.
    Dropped(usize),
}

impl Weighted {
    fn push(&mut self, token: u32, weight: f32) {
        self.tokens.push(token);
        self.weights.push(weight);
    }

    fn targets(&self) -> usize {
        self.weights.iter().skip(1).filter(|&&weight| weight != 0.0).count()
    }

    fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.weights.truncate(length);
    }

    /// What stands behind the last learned token teaches nothing.
    fn without_tail(mut self) -> Self {
        let kept = self.weights.iter().rposition(|&weight| weight != 0.0).map_or(self.tokens.len(), |at| at + 1);
        self.truncate(kept);
        self
    }
}

/// A stretch of the rendered text.
struct Stretch {
    /// Where it ends.
    end: usize,
    weight: f32,
    /// For what the assistant writes: the weight of what stands behind the end of its turn.
    behind: Option<f32>,
}

impl Encoder<'_> {
    /// The tokens of a row.
    pub(crate) fn encode(&self, example: &Example, learned: Learned) -> Result<Encoded, String> {
        if example.weight == 0.0 {
            return Err("its weight is 0, so nothing in it would be learned; remove the row".to_owned());
        }
        let mut encoded = match &example.content {
            Content::Conversation(turns) => self.fit(self.conversation(turns, learned)?)?,
            Content::Completion { prompt, completion } => self.fit(self.completion(prompt, completion)?)?,
            Content::Text(text) => Encoded::Whole(self.text(text, SpecialTokens::Parse)?),
            Content::Document(text) => Encoded::Whole(self.text(text, SpecialTokens::AsText)?),
        };
        let pieces = match &mut encoded {
            Encoded::Whole(pieces) => pieces.as_mut_slice(),
            Encoded::Truncated(piece, _) => std::slice::from_mut(piece),
            Encoded::Dropped(_) => &mut [],
        };
        for weight in pieces.iter_mut().flat_map(|piece| &mut piece.weights) {
            *weight *= example.weight;
        }
        Ok(encoded)
    }

    /// What happens to a row that is too long.
    fn fit(&self, mut row: Weighted) -> Result<Encoded, String> {
        let (length, longest) = (row.tokens.len(), self.longest);
        if length <= longest {
            return Ok(Encoded::Whole(vec![row]));
        }
        match self.over_long {
            OverLong::Error => Err(format!(
                "it has {length} tokens, max_sequence is {longest}; raise that, or set over_long to drop or truncate"
            )),
            OverLong::Drop => Ok(Encoded::Dropped(length)),
            OverLong::Truncate => {
                row.truncate(longest);
                Ok(if row.targets() == 0 { Encoded::Dropped(length) } else { Encoded::Truncated(row, length) })
            }
        }
    }

    fn conversation(&self, turns: &[WeightedTurn], learned: Learned) -> Result<Weighted, String> {
        let weights = turn_weights(turns, learned)?;
        let (text, stretches) = self.render(turns, &weights, learned)?;
        let row = self.tokens(&text, &stretches)?.without_tail();
        if row.targets() == 0 {
            return Err(
                "nothing in it would be learned: the chat template writes no answer; use another template".to_owned()
            );
        }
        let answers = turns.iter().zip(&weights).any(|(turn, &weight)| turn.role == "assistant" && weight != 0.0);
        let mut learned = row.tokens.iter().zip(&row.weights).filter(|(_, weight)| **weight != 0.0);
        if answers && !learned.any(|(token, _)| self.tokenizer.is_end_of_generation(*token)) {
            return Err("no end-of-turn token is learned, so the model would never stop; the chat template must write one after each answer".to_owned());
        }
        Ok(row)
    }

    /// The text of a conversation up to its last learned turn, and what of it is learned.
    fn render(
        &self,
        turns: &[WeightedTurn],
        weights: &[f32],
        learned: Learned,
    ) -> Result<(String, Vec<Stretch>), String> {
        let messages: Vec<Message> = turns.iter().map(|turn| Message::new(&turn.role, &turn.content)).collect();
        let render = |count: usize, open: bool| {
            self.template.render(&messages[..count], open).map_err(|error| error.to_string())
        };
        // What follows the last learned turn could never be learned.
        let last = weights.iter().rposition(|&weight| weight != 0.0).unwrap_or_default();
        let whole = render(last + 1, false)?;
        let between: f32 = if learned == Learned::All { 1.0 } else { 0.0 };
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut done = 0;
        for turn in (0..=last).filter(|&turn| weights[turn].to_bits() != between.to_bits()) {
            let answer = turns[turn].role == "assistant";
            let (before, after) = if answer {
                (render(turn, true)?, render(turn + 1, false)?)
            } else {
                self.around(&messages[..=turn], &render(turn + 1, false)?)?
            };
            if !after.starts_with(&before) || !whole.starts_with(&after) || before.len() < done {
                return Err(format!(
                    "the chat template does not write turn {turn} as a continuation of the turns before it, so what the \
                     model would have to write is not defined; use a template that only appends"
                ));
            }
            stretches.push(Stretch { end: before.len(), weight: between, behind: None });
            stretches.push(Stretch { end: after.len(), weight: weights[turn], behind: answer.then_some(between) });
            done = after.len();
        }
        if done < whole.len() {
            let behind = (turns[last].role == "assistant").then_some(between);
            stretches.push(Stretch { end: whole.len(), weight: between, behind });
        }
        Ok((whole, stretches))
    }

    /// What a conversation's text is before the content of its last turn, and up to the content's end: what the template
    /// writes around a question is never the model's to write.
    fn around(&self, messages: &[Message], rendered: &str) -> Result<(String, String), String> {
        // The template writes its own parts around any content, this one as well.
        const MARK: &str = "\u{e000}content\u{e000}";
        let mut marked = messages.to_vec();
        if let Some(last) = marked.last_mut() {
            *last = Message::new(last.role.clone(), MARK);
        }
        let marked = self.template.render(&marked, false).map_err(|error| error.to_string())?;
        let around = marked.split_once(MARK).filter(|(before, behind)| {
            rendered.len() >= before.len() + behind.len() && rendered.starts_with(before) && rendered.ends_with(behind)
        });
        let (before, behind) = around.ok_or(
            "the chat template writes a turn that is not the assistant's in a way that depends on what it says, so that its \
             words cannot be learned; remove its weight, or use another template",
        )?;
        // A space is a part of the word behind it in most vocabularies.
        let before = before.trim_end_matches(' ');
        Ok((before.to_owned(), rendered[..rendered.len() - behind.len()].to_owned()))
    }

    /// Tokens of rendered text.
    fn tokens(&self, whole: &str, stretches: &[Stretch]) -> Result<Weighted, String> {
        let tokenizer = self.tokenizer;
        let encode = |text: &str| tokenizer.encode(text, SpecialTokens::Parse);
        let mut row = Weighted::default();
        if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos()) {
            row.push(bos, 0.0);
        }
        let mut start = 0;
        let mut text = Vec::new();
        for &Stretch { end, weight, behind } in stretches {
            // Tokens of the whole text so far where they continue what is there, as a tokenizer may treat the first piece
            // of a text in its own way; otherwise those of the piece alone, for generation too starts behind the opened
            // turn.
            let so_far = encode(&whole[..end]);
            let added = match so_far.strip_prefix(text.as_slice()) {
                Some(added) => added.to_vec(),
                None => encode(&whole[start..end]),
            };
            start = end;
            text.extend_from_slice(&added);
            let stop = added.iter().rposition(|&token| tokenizer.is_end_of_generation(token));
            for (at, &token) in added.iter().enumerate() {
                let is_behind = stop.is_some_and(|stop| at > stop);
                row.push(token, behind.filter(|_| is_behind).unwrap_or(weight));
            }
            if behind.is_some() && stop.is_none() && end == whole.len() {
                // A template without an end of turn: without one in the data the model would never stop.
                let eos = tokenizer.eos().ok_or("the model has no end token, so an answer could never end")?;
                row.push(eos, weight);
            }
        }
        if row.tokens.len() > 1 && row.tokens[0] == row.tokens[1] && Some(row.tokens[0]) == tokenizer.bos() {
            // The template wrote the beginning itself.
            row.tokens.remove(0);
            row.weights.remove(0);
        }
        Ok(row)
    }

    /// Text as it stands, of which the completion and an end are learned.
    fn completion(&self, prompt: &str, completion: &str) -> Result<Weighted, String> {
        if completion.trim().is_empty() {
            return Err(
                "`completion` is empty: the model would learn to say nothing; remove the row or write one".to_owned()
            );
        }
        let whole = [prompt, completion].concat();
        let stretches = [
            Stretch { end: prompt.len(), weight: 0.0, behind: None },
            Stretch { end: whole.len(), weight: 1.0, behind: Some(0.0) },
        ];
        self.tokens(&whole, &stretches[usize::from(prompt.is_empty())..])
    }

    /// A text, every token of it learned, with the beginning and the end that the model's sequences have; a long one in
    /// pieces. Each token is predicted once: where a piece does not begin with BOS, it begins with the last token before.
    fn text(&self, text: &str, special: SpecialTokens) -> Result<Vec<Weighted>, String> {
        let tokenizer = self.tokenizer;
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let mut tokens = tokenizer.encode(text, special);
        if bos.is_some() && tokens.first().copied() == bos {
            tokens.remove(0);
        }
        if let Some(eos) = tokenizer.eos().filter(|eos| tokens.last() != Some(eos)) {
            tokens.push(eos);
        }
        let piece = |tokens: &[u32]| {
            let mut piece = Weighted::default();
            for (at, &token) in bos.iter().chain(tokens).enumerate() {
                piece.push(token, if at == 0 { 0.0 } else { 1.0 });
            }
            piece
        };
        let pieces: Vec<Weighted> = if bos.is_some() {
            tokens.chunks(self.longest - 1).map(piece).collect()
        } else {
            let starts = (0..tokens.len().saturating_sub(1)).step_by(self.longest - 1);
            starts.map(|start| piece(&tokens[start..tokens.len().min(start + self.longest)])).collect()
        };
        if pieces.is_empty() { Err("the text is too short to learn from; remove it".to_owned()) } else { Ok(pieces) }
    }
}

/// What each turn counts: what its message says, else what `learned` says.
fn turn_weights(turns: &[WeightedTurn], learned: Learned) -> Result<Vec<f32>, String> {
    let last = turns.iter().rposition(|turn| turn.role == "assistant");
    if last.is_none() && learned != Learned::All && !turns.iter().any(|turn| turn.weight.is_some()) {
        return Err("it has no turn of the assistant, so nothing would be learned; give it one".to_owned());
    }
    let weight = |(at, turn): (usize, &WeightedTurn)| {
        let by_rule = match learned {
            Learned::All => true,
            Learned::Answers => turn.role == "assistant",
            Learned::Last => Some(at) == last,
        };
        turn.weight.unwrap_or(if by_rule { 1.0 } else { 0.0 })
    };
    let weights: Vec<f32> = turns.iter().enumerate().map(weight).collect();
    if weights.iter().all(|&weight| weight == 0.0) {
        return Err(
            "all its turns are masked (`train: false`, or a weight of 0), so nothing would be learned; remove the row"
                .to_owned(),
        );
    }
    let silent = |(turn, weight): (&WeightedTurn, &f32)| {
        turn.role == "assistant" && *weight != 0.0 && turn.content.trim().is_empty()
    };
    match turns.iter().zip(&weights).position(silent) {
        Some(at) => Err(format!(
            "turn {at} of the assistant is empty: the model would learn to say nothing; remove the conversation or write an answer"
        )),
        None => Ok(weights),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use espalier_dataset::Records;
    use espalier_model::gguf::{GgufFile, Value};
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        row: serde_json::Value,
        input_ids: Vec<u32>,
        labels: Vec<i64>,
    }

    /// Made by scripts/golden-instructlab-mask.py. What stands behind the last learned token is theirs alone: it is masked.
    #[test]
    fn lines_are_tokens_and_labels_as_instructlab_makes_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = GgufFile::open(&folder.join("../tests/assets/vocab/ggml-vocab-qwen2.gguf")).unwrap();
        let tokenizer = Tokenizer::from_gguf_metadata(file.metadata()).unwrap();
        let Some(Value::String(source)) = file.metadata().get("tokenizer.chat_template") else { panic!("a template") };
        let template = ChatTemplate::new(Some(source), "", "<|im_end|>").unwrap();
        let encoder = Encoder { tokenizer: &tokenizer, template: &template, longest: 512, over_long: OverLong::Error };
        let golden = std::fs::read_to_string(folder.join("tests/golden/instructlab_mask.json")).unwrap();
        let golden: Vec<Golden> = serde_json::from_str(&golden).unwrap();
        let temporary = tempfile::tempdir().unwrap();
        let rows = temporary.path().join("rows.jsonl");
        std::fs::write(&rows, golden.iter().map(|golden| format!("{}\n", golden.row)).collect::<String>()).unwrap();
        let records = Records::open(&rows, None).unwrap();
        for (record, golden) in records.zip(&golden) {
            let example = record.unwrap().example().unwrap();
            let Encoded::Whole(ours) = encoder.encode(&example, Learned::Answers).unwrap() else {
                panic!("a whole row")
            };
            let [ours] = <[_; 1]>::try_from(ours).unwrap();
            let kept = ours.tokens.len();
            assert_eq!(ours.tokens, golden.input_ids[..kept], "{}", golden.row);
            let labels: Vec<i64> = ours
                .tokens
                .iter()
                .zip(&ours.weights)
                .map(|(&token, &weight)| if weight == 0.0 { -100 } else { i64::from(token) })
                .collect();
            assert_eq!(labels, golden.labels[..kept], "{}", golden.row);
            assert!(golden.labels[kept..].iter().all(|&label| label == -100), "{}", golden.row);
        }
        assert_eq!(golden.len(), 9);
    }
}
