//! Conversations to tokens, and which of them the model learns to write.
//!
//! The model's own chat template renders a conversation up to an assistant's turn, opened for its answer, and once with that
//! answer; what the second adds is what the model would have to write. Learned are the tokens of the answer and the token
//! that ends it; the text of the template behind it is not.

use espalier_dataset::Turn;
use espalier_model::{Message, Model, SpecialTokens};
use sha2::{Digest, Sha256};

use crate::config::{OverLong, hex};
use crate::{TrainConfig, TrainError};

/// A conversation as the model sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// All tokens, in order.
    pub tokens: Vec<u32>,
    /// For each token its weight in the loss: 0 where the model does not learn to write it.
    pub weights: Vec<f32>,
    /// Place of the conversation in the data.
    pub index: usize,
}

impl Sequence {
    /// Tokens that are learned. The first token of a sequence is never predicted.
    pub fn targets(&self) -> usize {
        self.weights.iter().skip(1).filter(|&&weight| weight != 0.0).count()
    }

    /// Sum of the weights of what is learned.
    pub fn target_weight(&self) -> f64 {
        self.weights.iter().skip(1).map(|&weight| f64::from(weight)).sum()
    }
}

/// The data of a run.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// Conversations to train on, in the order of the data.
    pub rows: Vec<Sequence>,
    /// Conversations left out because they were too long.
    pub dropped: usize,
    /// Conversations whose end was cut off.
    pub truncated: usize,
}

impl Sequences {
    /// SHA-256 over all tokens and weights.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for row in &self.rows {
            hash.update((row.tokens.len() as u64).to_le_bytes());
            for (token, weight) in row.tokens.iter().zip(&row.weights) {
                hash.update(token.to_le_bytes());
                hash.update(weight.to_le_bytes());
            }
        }
        hex(&hash.finalize())
    }
}

/// Encodes all conversations, checks what each teaches, and treats those that are too long as the settings say.
pub fn encode(model: &Model, conversations: &[Vec<Turn>], config: &TrainConfig) -> Result<Sequences, TrainError> {
    let mut sequences = Sequences { rows: Vec::new(), dropped: 0, truncated: 0 };
    for (index, turns) in conversations.iter().enumerate() {
        let mut row = encode_conversation(model, turns)
            .and_then(|row| lint(model, row))
            .map_err(|problem| TrainError::Conversation { index, problem })?;
        row.index = index;
        if row.tokens.len() > config.max_sequence {
            let (length, longest) = (row.tokens.len(), config.max_sequence);
            match config.over_long {
                OverLong::Error => {
                    let problem = format!(
                        "it has {length} tokens, max_sequence is {longest}; raise that, or set over_long to drop or truncate"
                    );
                    return Err(TrainError::Conversation { index, problem });
                }
                OverLong::Drop => {
                    sequences.dropped += 1;
                    continue;
                }
                OverLong::Truncate => {
                    row.tokens.truncate(longest);
                    row.weights.truncate(longest);
                    if row.targets() == 0 {
                        sequences.dropped += 1;
                        continue;
                    }
                    sequences.truncated += 1;
                }
            }
        }
        sequences.rows.push(row);
    }
    if sequences.rows.is_empty() {
        let why = match sequences.dropped {
            0 => "the data is empty".to_owned(),
            dropped => format!("all {dropped} are longer than max_sequence ({}); raise it", config.max_sequence),
        };
        return Err(TrainError::Empty(why));
    }
    Ok(sequences)
}

/// Tokens and flags of one conversation.
fn encode_conversation(model: &Model, turns: &[Turn]) -> Result<Sequence, String> {
    let messages: Vec<Message> =
        turns.iter().map(|turn| Message { role: turn.role.clone(), content: turn.content.clone() }).collect();
    let render = |messages: &[Message], open: bool| {
        model.chat_template().render(messages, open).map_err(|error| error.to_string())
    };
    let Some(last) = turns.iter().rposition(|turn| turn.role == "assistant") else {
        return Err("it has no turn of the assistant, so nothing would be learned; give it one".to_owned());
    };
    let silent = |turn: &Turn| turn.role == "assistant" && turn.content.trim().is_empty();
    if let Some(at) = turns.iter().position(silent) {
        return Err(format!(
            "turn {at} of the assistant is empty: the model would learn to say nothing; remove the conversation or write an answer"
        ));
    }
    // What follows the last answer could never be learned.
    let whole = render(&messages[..=last], false)?;
    let mut pieces: Vec<(&str, bool)> = Vec::new();
    let mut done = 0;
    for turn in (0..=last).filter(|&turn| turns[turn].role == "assistant") {
        let opened = render(&messages[..turn], true)?;
        let answered = render(&messages[..=turn], false)?;
        if !answered.starts_with(&opened) || !whole.starts_with(&answered) || opened.len() < done {
            return Err(format!(
                "the chat template does not write turn {turn} as a continuation of the turns before it, so what the model \
                 would have to write is not defined; use a template that only appends"
            ));
        }
        pieces.push((&whole[done..opened.len()], false));
        pieces.push((&whole[opened.len()..answered.len()], true));
        done = answered.len();
    }
    let tokenizer = model.tokenizer();
    let encode = |text: &str| tokenizer.encode(text, SpecialTokens::Parse);
    let (mut tokens, mut weights) = (Vec::new(), Vec::new());
    if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos()) {
        tokens.push(bos);
        weights.push(0.0);
    }
    let mut end = 0;
    let mut text = Vec::new();
    for (piece, answer) in pieces {
        end += piece.len();
        // Tokens of the whole text so far where they continue what is there, as a tokenizer may treat the first piece of
        // a text in its own way; otherwise those of the piece alone, for generation too starts behind the opened turn.
        let so_far = encode(&whole[..end]);
        let new = match so_far.strip_prefix(text.as_slice()) {
            Some(new) => new.to_vec(),
            None => encode(piece),
        };
        text.extend_from_slice(&new);
        let stop = new.iter().rposition(|&token| tokenizer.is_end_of_generation(token));
        let learned = |at: usize| answer && stop.is_none_or(|stop| at <= stop);
        weights.extend((0..new.len()).map(|at| if learned(at) { 1.0 } else { 0.0 }));
        tokens.extend(new);
        if answer && stop.is_none() && end == whole.len() {
            // A template without an end of turn: without one in the data the model would never stop.
            let eos = tokenizer.eos().ok_or("the model has no end token, so an answer could never end")?;
            tokens.push(eos);
            weights.push(1.0);
        }
    }
    if tokens.len() > 1 && tokens[0] == tokens[1] && Some(tokens[0]) == tokenizer.bos() {
        // The template wrote the beginning itself.
        tokens.remove(0);
        weights.remove(0);
    }
    // What the template writes behind the last end of turn teaches nothing.
    let kept = weights.iter().rposition(|&weight| weight != 0.0).map_or(tokens.len(), |at| at + 1);
    tokens.truncate(kept);
    weights.truncate(kept);
    Ok(Sequence { tokens, weights, index: 0 })
}

/// Refuses a sequence from which nothing, or no end, would be learned.
fn lint(model: &Model, row: Sequence) -> Result<Sequence, String> {
    if row.targets() == 0 {
        return Err(
            "nothing in it would be learned: the chat template writes no answer; use another template".to_owned()
        );
    }
    let ends = |at: usize| model.tokenizer().is_end_of_generation(row.tokens[at]);
    if !(0..row.tokens.len()).any(|at| row.weights[at] != 0.0 && ends(at)) {
        return Err("no end-of-turn token is learned, so the model would never stop; the chat template must write one after each answer".to_owned());
    }
    Ok(row)
}

/// The text of a sequence; what the model does not learn stands between `⟦` and `⟧`.
pub fn marked_text(model: &Model, row: &Sequence) -> String {
    let mut text = String::new();
    let mut bytes = Vec::new();
    let mut masked = false;
    let flush = |bytes: &mut Vec<u8>, text: &mut String| {
        text.push_str(&String::from_utf8_lossy(bytes));
        bytes.clear();
    };
    for (token, weight) in row.tokens.iter().zip(&row.weights) {
        if masked == (*weight != 0.0) {
            flush(&mut bytes, &mut text);
            text.push(if masked { '⟧' } else { '⟦' });
            masked = !masked;
        }
        let tokenizer = model.tokenizer();
        if tokenizer.is_special(*token) {
            bytes.extend_from_slice(tokenizer.token_text(*token).as_bytes());
        } else {
            bytes.extend_from_slice(tokenizer.token_bytes(*token));
        }
    }
    flush(&mut bytes, &mut text);
    if masked {
        text.push('⟧');
    }
    text
}

/// The first `count` sequences of the data as [`marked_text`], for a look before training.
pub fn show_batch(
    model: &Model,
    conversations: &[Vec<Turn>],
    config: &TrainConfig,
    count: usize,
) -> Result<Vec<String>, TrainError> {
    let first = &conversations[..count.min(conversations.len())];
    Ok(encode(model, first, config)?.rows.iter().map(|row| marked_text(model, row)).collect())
}
