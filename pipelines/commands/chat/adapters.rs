//! The adapters of a chat: what they are called, where they lie, and which one answers.

use crate::outcome::Failure;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The word that chooses the model alone.
pub const NONE: &str = "none";

/// An adapter and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What chooses it.
    pub name: String,
    /// A PEFT folder or a GGUF adapter.
    pub path: PathBuf,
}

impl Named {
    /// Reads `NAME=DIR`, or a path alone, which is called by its last part.
    pub fn parse(text: &str) -> Result<Self> {
        let named = text.split_once('=').filter(|(name, path)| !(name.is_empty() || path.is_empty()));
        let (name, path) = match named {
            Some((name, path)) if !Path::new(text).exists() => (name.to_owned(), PathBuf::from(path)),
            _ => {
                let path = PathBuf::from(text);
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                (name.strip_suffix(".gguf").unwrap_or(&name).to_owned(), path)
            }
        };
        if name.is_empty() || name == NONE {
            let problem = if name.is_empty() { "has no name" } else { "`none` means the model without an adapter" };
            return Err(Failure::usage(format!("adapter {text}: {problem}")).hint("write NAME=DIR").into());
        }
        Ok(Self { name, path })
    }
}

/// What a person asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The model alone.
    None,
    /// One that is there, by its place.
    Known(usize),
    /// One that is to be loaded.
    New(Named),
}

/// The adapters beside a model, which can be chosen from question to question.
#[derive(Debug, Default)]
pub struct Adapters {
    known: Vec<Named>,
    chosen: Option<usize>,
}

impl Adapters {
    /// These, the first of which is chosen.
    pub fn new(known: Vec<Named>) -> Self {
        Self { chosen: (!known.is_empty()).then_some(0), known }
    }

    /// The name of the one that answers.
    pub fn chosen(&self) -> Option<&str> {
        self.chosen.map(|place| self.known[place].name.as_str())
    }

    /// What a name, a path or `NAME=PATH` means.
    pub fn find(&self, text: &str) -> Result<Wanted> {
        if text == NONE {
            return Ok(Wanted::None);
        }
        let named = |name: &str| self.known.iter().position(|known| known.name == name);
        if let Some(place) = named(text) {
            return Ok(Wanted::Known(place));
        }
        let new = Named::parse(text)?;
        if !new.path.exists() {
            return Err(Failure::usage(format!("there is no adapter {text}: no loaded one, no folder and no file"))
                .hint(format!("loaded: {}; a PEFT folder or a .gguf adapter is loaded by its path", self.names()))
                .into());
        }
        match named(&new.name) {
            Some(place) if self.known[place].path == new.path => Ok(Wanted::Known(place)),
            Some(place) => {
                let (name, other) = (&new.name, self.known[place].path.display());
                Err(Failure::usage(format!("{other} is called {name} already"))
                    .hint(format!("give the new one another name: /adapter NAME={}", new.path.display()))
                    .into())
            }
            None => Ok(Wanted::New(new)),
        }
    }

    /// Chooses one that is there, or none.
    pub fn choose(&mut self, place: Option<usize>) {
        self.chosen = place;
    }

    /// Takes one over that was loaded, and chooses it.
    pub fn add(&mut self, new: Named) {
        self.known.push(new);
        self.chosen = Some(self.known.len() - 1);
    }

    /// All, a line each, with a sign at the one that answers.
    pub fn text(&self) -> String {
        let sign = |place| if self.chosen == place { '*' } else { ' ' };
        let mut text = format!("{} {NONE:18}  the model alone", sign(None));
        for (place, Named { name, path }) in self.known.iter().enumerate() {
            let _ = write!(text, "\n{} {name:18}  {}", sign(Some(place)), path.display());
        }
        text
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.known.iter().map(|known| known.name.as_str()).collect();
        if names.is_empty() { NONE.to_owned() } else { names.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, path: &str) -> Named {
        Named { name: name.to_owned(), path: path.into() }
    }

    #[test]
    fn an_adapter_is_called_as_it_is_said_or_by_its_path() -> Result<()> {
        assert_eq!(Named::parse("dates=runs/a")?, named("dates", "runs/a"));
        assert_eq!(Named::parse("runs/garden/adapter/")?, named("adapter", "runs/garden/adapter/"));
        assert_eq!(Named::parse("poems.gguf")?, named("poems", "poems.gguf"));
        let folder = tempfile::tempdir()?;
        let odd = folder.path().join("rank=16");
        std::fs::create_dir(&odd)?;
        assert_eq!(Named::parse(&odd.to_string_lossy())?.name, "rank=16");
        assert!(Named::parse("none=runs/a").is_err() && Named::parse("..").is_err() && Named::parse("").is_err());
        Ok(())
    }

    #[test]
    fn a_name_comes_before_a_path_and_means_one_adapter() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let [one, other] = ["a/dates", "b/dates"].map(|name| folder.path().join(name));
        for path in [&one, &other] {
            std::fs::create_dir_all(path)?;
        }
        let mut adapters = Adapters::new(vec![Named { name: "dates".into(), path: one.clone() }]);
        assert_eq!((adapters.chosen(), adapters.find("none")?), (Some("dates"), Wanted::None));
        assert_eq!(adapters.find("dates")?, Wanted::Known(0));
        assert_eq!(adapters.find(&one.to_string_lossy())?, Wanted::Known(0));
        assert!(adapters.find(&other.to_string_lossy()).is_err(), "another one of this name");
        let Wanted::New(new) = adapters.find(&format!("more={}", other.display()))? else { panic!("a new one") };
        adapters.add(new);
        assert_eq!(adapters.chosen(), Some("more"));
        adapters.choose(None);
        assert_eq!((adapters.chosen(), adapters.find("more")?), (None, Wanted::Known(1)));
        Ok(())
    }
}
