//! Greedy continuations on the device that trained: to look at what was learned, and to hold a device against the CPU.
//!
//! Every token runs all rows again. The sequences go together, packed as in training, so that no cache of keys is needed and
//! the shapes are those of training; for chat and batches there is the inference engine. Products are in f32, as the CPU has
//! them: rounded to bf16, they would lead to other words in every third text.

use burn::tensor::{DType, Tensor};

use super::model::{DeviceModel, download};
use crate::error::NnError;
use crate::ops::self_attention::Layout;

impl DeviceModel {
    /// The `new` most probable next tokens of each prompt, one after another; fewer where one of `ends` comes, which is not
    /// among them. Of equally probable tokens the first is taken.
    ///
    /// # Errors
    ///
    /// A prompt without tokens or with one outside of the vocabulary, more positions than the model was loaded for, a device
    /// that fails.
    pub fn greedy(&self, prompts: &[Vec<u32>], new: usize, ends: &[u32]) -> Result<Vec<Vec<u32>>, NnError> {
        if prompts.iter().any(Vec::is_empty) {
            return Err(NnError::Batch("a prompt has no tokens".to_owned()));
        }
        // In bf16 many tokens of a large vocabulary would be equally probable.
        let head = self.base().head.clone().cast(DType::F32).transpose();
        let mut rows = prompts.to_vec();
        let mut open: Vec<usize> = (0..rows.len()).collect();
        for _ in 0..new {
            if open.is_empty() {
                break;
            }
            let next = self.most_probable(&open.iter().map(|&row| rows[row].as_slice()).collect::<Vec<_>>(), &head)?;
            let chosen: Vec<_> = open.into_iter().zip(next).filter(|(_, token)| !ends.contains(token)).collect();
            for &(row, token) in &chosen {
                rows[row].push(token);
            }
            open = chosen.into_iter().map(|(row, _)| row).collect();
        }
        Ok(rows.into_iter().zip(prompts).map(|(row, prompt)| row[prompt.len()..].to_vec()).collect())
    }

    /// The most probable next token of each sequence; `head [hidden, vocabulary]` in f32.
    fn most_probable(&self, sequences: &[&[u32]], head: &Tensor<2>) -> Result<Vec<u32>, NnError> {
        let tokens = sequences.concat();
        let layout = Layout::of_segments(sequences.iter().map(|sequence| sequence.len()).collect());
        let stream = self.pass(&tokens, &layout)?.wide().forward(&tokens);
        let ends = sequences.iter().scan(0, |end, sequence| {
            *end += sequence.len();
            Some(*end - 1)
        });
        let last = stream.select(0, self.indices(&ends.collect::<Vec<_>>()));
        let read = self.normed(last).cast(self.base().head.dtype()).cast(DType::F32);
        let logits: Tensor<2> = read.matmul(head.clone());
        let width = self.base().config.vocabulary;
        let largest = |logits: &[f32]| {
            let better = |best: usize, token: usize| if logits[token] > logits[best] { token } else { best };
            (1..width).fold(0, better) as u32
        };
        Ok(download(logits)?.chunks_exact(width).map(largest).collect())
    }
}
