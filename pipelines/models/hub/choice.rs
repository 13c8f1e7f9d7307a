//! Which files of a repository make the model that a reference names.

use super::listing::{Listing, RepositoryFile};
use crate::models::reference::HubReference;
use crate::outcome::Failure;
use crate::reporter::size;
use std::path::Path;

/// Small files that belong to a model, where it has them.
const PARTS: [&str; 18] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
];

/// Names that an error lists.
const LISTED: usize = 12;

/// What is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// One GGUF file.
    File(RepositoryFile),
    /// A Hugging Face folder.
    Folder(Vec<RepositoryFile>),
}

impl Choice {
    /// The files.
    pub fn files(&self) -> &[RepositoryFile] {
        match self {
            Self::File(file) => std::slice::from_ref(file),
            Self::Folder(files) => files,
        }
    }
}

/// Chooses the file that the reference names; without one, the folder of safetensors or else the only GGUF file.
pub fn choose(listing: &Listing, reference: &HubReference) -> Result<Choice, Failure> {
    let models: Vec<&RepositoryFile> = listing.files.iter().filter(|file| is_model(&file.path)).collect();
    let repository = &reference.repository;
    let Some(wanted) = &reference.file else {
        let folder = folder(listing);
        return match models.as_slice() {
            _ if !folder.is_empty() => Ok(Choice::Folder(folder)),
            [one] => Ok(Choice::File((*one).clone())),
            [] => Err(Failure::usage(format!("{repository} holds neither safetensors nor GGUF files"))
                .hint(format!("it may be in another format; its files: {}", names(listing.files.iter())))),
            _ => Err(Failure::usage(format!("{repository} holds {} GGUF files", models.len())).hint(format!(
                "name one, as in hf:{repository}:{}; it has {}",
                models[0].path,
                names(models)
            ))),
        };
    };
    let found: Vec<&RepositoryFile> = if is_gguf(wanted) {
        listing.files.iter().filter(|file| file.path == *wanted).collect()
    } else {
        models.iter().copied().filter(|file| has_tag(&file.path, wanted)).collect()
    };
    match found.as_slice() {
        [one] if is_shard(&one.path) => {
            Err(Failure::usage(format!("{} is one part of a model in several files", one.path)).hint(
                "a GGUF model must be in one file here: choose a smaller type, or join them with llama-gguf-split",
            ))
        }
        [one] => Ok(Choice::File((*one).clone())),
        [] if models.is_empty() => {
            Err(Failure::usage(format!("{repository} has no file {wanted}, and no GGUF file at all"))
                .hint(format!("for a folder of safetensors leave the name out: hf:{repository}")))
        }
        [] => {
            Err(Failure::usage(format!("{repository} has no GGUF file {wanted}"))
                .hint(format!("it has {}", names(models))))
        }
        _ => Err(Failure::usage(format!("{wanted} stands for {} files of {repository}", found.len()))
            .hint(format!("give the whole name of one: {}", names(found)))),
    }
}

/// The parts of a Hugging Face model, weights included; empty where there are no safetensors.
fn folder(listing: &Listing) -> Vec<RepositoryFile> {
    let weights = |file: &&RepositoryFile| file.path.ends_with(".safetensors") && !file.path.contains('/');
    // Some repositories hold the same weights again, in one file or under another naming.
    let standard = |file: &RepositoryFile| file.path.starts_with("model.") || file.path.starts_with("model-");
    let any_standard = listing.files.iter().filter(weights).any(standard);
    let shards = listing.files.iter().any(|file| file.path == "model.safetensors.index.json");
    let whole = listing.files.iter().any(|file| file.path == "model.safetensors");
    let wanted = |file: &&RepositoryFile| {
        let of_set = if any_standard { standard(file) } else { true };
        let doubled = shards && whole && file.path.starts_with("model-");
        weights(file) && of_set && !doubled
            || shards && !whole && file.path == "model.safetensors.index.json"
            || PARTS.contains(&file.path.as_str())
    };
    if !listing.files.iter().any(|file| weights(&file)) {
        return Vec::new();
    }
    let mut files: Vec<_> = listing.files.iter().filter(wanted).cloned().collect();
    // Small files first: what is wrong with a configuration shows before gigabytes were fetched.
    files.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.path.cmp(&b.path)));
    files
}

fn is_gguf(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// A GGUF file that is a model: not the projector of a vision model, not an importance matrix.
fn is_model(path: &str) -> bool {
    let name = path.to_ascii_lowercase();
    is_gguf(path) && !name.contains("mmproj") && !name.contains("imatrix")
}

/// `-00001-of-00003.gguf`.
fn is_shard(path: &str) -> bool {
    path.rsplit_once("-of-").is_some_and(|(_, rest)| rest.bytes().take(5).all(|byte| byte.is_ascii_digit()))
}

/// Whether a type such as `Q4_K_M` stands in a file name as a word of its own (not the `Q4_K` of `Q4_K_M`, nor the Q4 of IQ4).
fn has_tag(path: &str, tag: &str) -> bool {
    let (name, tag) = (path.to_ascii_lowercase(), tag.to_ascii_lowercase());
    let of_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name.match_indices(&tag).any(|(at, _)| {
        let (before, after) = (at.checked_sub(1).map(|at| name.as_bytes()[at]), name.as_bytes().get(at + tag.len()));
        !of_word(before) && !of_word(after.copied())
    })
}

fn names<'a>(files: impl IntoIterator<Item = &'a RepositoryFile>) -> String {
    let all: Vec<String> = files.into_iter().map(|file| format!("{} ({})", file.path, size(file.bytes))).collect();
    let more = all.len().saturating_sub(LISTED);
    let listed = all.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match (all.is_empty(), more) {
        (true, _) => "none".into(),
        (_, 0) => listed,
        _ => format!("{listed} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::listing::ContentHash;
    use super::*;

    fn chosen(reference: &str, files: &[&str]) -> Result<Vec<String>, String> {
        let file = |path: &&str| RepositoryFile {
            path: (*path).to_owned(),
            bytes: path.len() as u64,
            hash: ContentHash::GitBlob("0".repeat(40)),
        };
        let listing = Listing { commit: "c".into(), license: None, files: files.iter().map(file).collect() };
        let reference = HubReference::parse(reference).expect("a reference");
        let choice = choose(&listing, &reference).map_err(|error| error.to_string())?;
        Ok(choice.files().iter().map(|file| file.path.clone()).collect())
    }

    #[test]
    fn a_folder_is_its_configuration_tokenizer_and_one_set_of_weights() {
        let files = ["README.md", "config.json", "consolidated.safetensors", "model.safetensors", "onnx/model.onnx"];
        assert_eq!(chosen("o/n", &files).unwrap(), ["README.md", "config.json", "model.safetensors"]);
        let shards = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let with_index = [&shards[..], &["model.safetensors.index.json", "pytorch_model.bin"]].concat();
        assert_eq!(chosen("o/n", &with_index).unwrap().len(), 4);
        let with_both = [&with_index[..], &["model.safetensors"]].concat();
        assert_eq!(chosen("o/n", &with_both).unwrap(), ["config.json", "model.safetensors"]);
    }

    #[test]
    fn a_file_is_named_whole_or_by_its_type() {
        let files =
            ["m-IQ4_XS.gguf", "m-Q4_K_M.gguf", "m.q8_0.gguf", "mmproj-Q8_0.gguf", "big-Q6_K-00001-of-00002.gguf"];
        assert_eq!(chosen("o/n:m-Q4_K_M.gguf", &files).unwrap(), ["m-Q4_K_M.gguf"]);
        assert_eq!(chosen("o/n:q8_0", &files).unwrap(), ["m.q8_0.gguf"]);
        assert_eq!(chosen("o/n", &["m.gguf", "mmproj.gguf"]).unwrap(), ["m.gguf"]);
        let refused: Vec<String> = [
            chosen("o/n", &files),
            chosen("o/n:Q4_K", &files),
            chosen("o/n:M-q4_k_m.gguf", &files),
            chosen("o/n:Q6_K", &files),
            chosen("o/n:Q6_K", &["config.json", "model.safetensors"]),
            chosen("o/n:Q4_0", &["a-Q4_0.gguf", "b-Q4_0.gguf"]),
            chosen("o/n", &["pytorch_model.bin"]),
            chosen("o/n", &[]),
        ]
        .into_iter()
        .map(|result| result.unwrap_err())
        .collect();
        insta::assert_snapshot!(refused.join("\n\n"));
    }
}
