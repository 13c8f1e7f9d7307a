//! From names and files to tasks and groups: what includes, tags and groups stand for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use espalier_taxonomy::yaml::Value as Yaml;

use super::config::{GroupConfig, TaskConfig};
use super::shipped;
use super::source::{Entries, Entry, Source, overlay};
use crate::error::EvalError;

/// Tasks to be evaluated, with the groups that they were named by.
#[derive(Debug, Default)]
pub struct Selection {
    pub(crate) tasks: Vec<TaskConfig>,
    pub(crate) groups: Vec<Group>,
}

/// A group with what stands in it.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) config: GroupConfig,
    /// Names of tasks and groups directly in it.
    pub(crate) children: Vec<String>,
    /// Names of all tasks in it.
    pub(crate) tasks: Vec<String>,
}

/// Task files by the names that they give themselves.
struct Catalog {
    entries: HashMap<String, (PathBuf, Entries)>,
    /// Names of tasks under each tag, sorted.
    tags: HashMap<String, Vec<String>>,
}

impl Selection {
    /// Reads what was asked for: names of tasks, groups and tags that come with the program (`arc_easy`, `mmlu`), and paths of YAML
    /// files. A name may end with `*`. Groups and includes of a file find the files beside it.
    ///
    /// # Errors
    /// A name that is not known, a file that cannot be read or does not say a task: with its place.
    pub fn read(wanted: &[String]) -> Result<Self, EvalError> {
        let mut selection = Self::default();
        let shipped = Catalog::shipped()?;
        for name in wanted {
            let path = Path::new(name);
            if is_yaml(path) {
                let entries = read_file(path, &mut Vec::new())?;
                let beside = Catalog::folder(path, &shipped)?;
                selection.add(&beside, path, entries)?;
            } else {
                selection.named(&shipped, name)?;
            }
        }
        Ok(selection)
    }

    /// Names of the tasks.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| task.task.as_str())
    }

    /// Adds what a name stands for, and gives the names of what was added.
    fn named(&mut self, catalog: &Catalog, name: &str) -> Result<Vec<String>, EvalError> {
        if let Some((path, entries)) = catalog.entries.get(name) {
            return self.add(catalog, path, entries.clone()).map(|name| vec![name]);
        }
        let mut found: Vec<String> = catalog.tags.get(name).cloned().unwrap_or_default();
        if let Some(prefix) = name.strip_suffix('*') {
            let tasks =
                catalog.entries.iter().filter(|(known, (_, entries))| known.starts_with(prefix) && !is_group(entries));
            found = tasks.map(|(known, _)| known.clone()).collect();
            found.sort();
        }
        if found.is_empty() {
            return Err(catalog.unknown(name));
        }
        for task in &found {
            self.named(catalog, task)?;
        }
        Ok(found)
    }

    /// Adds one task or group, and gives its name.
    fn add(&mut self, catalog: &Catalog, path: &Path, entries: Entries) -> Result<String, EvalError> {
        if !is_group(&entries) {
            let task = TaskConfig::read(&entries, path)?;
            let name = task.task.clone();
            if !self.tasks.iter().any(|known| known.task == name) {
                self.tasks.push(task);
            }
            return Ok(name);
        }
        let config = GroupConfig::read(&entries)?;
        let name = config.group.clone();
        let mut children = Vec::new();
        for member in &config.members {
            children.extend(self.member(catalog, path, member)?);
        }
        let tasks = children.iter().flat_map(|child| self.tasks_of(child)).collect();
        if !self.groups.iter().any(|known| known.config.group == name) {
            self.groups.push(Group { config, children, tasks });
        }
        Ok(name)
    }

    fn member(&mut self, catalog: &Catalog, path: &Path, member: &Entry) -> Result<Vec<String>, EvalError> {
        let Yaml::Mapping(_) = member.node.value else {
            let name = member.text()?;
            return self.named(catalog, &name).map_err(|_| member.error(catalog.unknown(&name).to_string()));
        };
        let own = member.entries()?;
        let base = own
            .iter()
            .find(|entry| entry.key == "task")
            .filter(|_| !is_group(&own))
            .and_then(|task| task.text().ok().and_then(|name| catalog.entries.get(&name)));
        let entries = match base {
            Some((_, base)) => overlay(base.clone(), own),
            None => included(path, own, &mut Vec::new())?,
        };
        self.add(catalog, path, entries).map(|name| vec![name])
    }

    fn tasks_of(&self, name: &str) -> Vec<String> {
        match self.groups.iter().find(|group| group.config.group == name) {
            Some(group) => group.tasks.clone(),
            None => vec![name.to_owned()],
        }
    }
}

impl Catalog {
    /// What comes with the program.
    fn shipped() -> Result<Self, EvalError> {
        let mut entries = HashMap::new();
        for (file, text) in shipped::files() {
            let path = PathBuf::from(&file);
            let read = included(&path, Source::read(&path, &text)?, &mut Vec::new())?;
            if let Some(name) = name_of(&read) {
                entries.insert(name, (path, read));
            }
        }
        Self { entries, tags: HashMap::new() }.with_tags()
    }

    /// The task files beside `path`, over those of another catalog. Files that cannot be read are no part of it: only what is named is read in earnest.
    fn folder(path: &Path, under: &Self) -> Result<Self, EvalError> {
        let mut entries = under.entries.clone();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let files = std::fs::read_dir(folder).map_err(EvalError::file(folder, "read the folder of the task"))?;
        let mut files: Vec<PathBuf> = files.flatten().map(|entry| entry.path()).filter(|file| is_yaml(file)).collect();
        files.sort();
        for file in files {
            if let Ok(read) = read_file(&file, &mut Vec::new())
                && let Some(name) = name_of(&read)
            {
                entries.insert(name, (file, read));
            }
        }
        Self { entries, tags: HashMap::new() }.with_tags()
    }

    fn with_tags(mut self) -> Result<Self, EvalError> {
        for (name, (_, entries)) in &self.entries {
            if let Some(tag) = entries.iter().find(|entry| entry.key == "tag") {
                for tag in tag.texts()? {
                    self.tags.entry(tag).or_default().push(name.clone());
                }
            }
        }
        self.tags.values_mut().for_each(|names| names.sort());
        Ok(self)
    }

    fn unknown(&self, name: &str) -> EvalError {
        let known = self.entries.keys().chain(self.tags.keys());
        let near = known.map(|word| (espalier_taxonomy::yaml::distance(name, word), word)).min();
        let hint = match near {
            Some((edits, word)) if edits <= (name.chars().count() / 3).clamp(1, 3) => format!("did you mean {word:?}?"),
            _ => "`pipeline eval list` shows all; a task of your own is named by the path of its .yaml file".to_owned(),
        };
        EvalError::UnknownTask { name: name.to_owned(), hint }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
}

fn is_group(entries: &Entries) -> bool {
    entries.iter().any(|entry| entry.key == "group" && !entry.is_null())
        && entries.iter().any(|entry| entry.key == "task" && !matches!(entry.node.value, Yaml::Text(_)))
}

fn name_of(entries: &Entries) -> Option<String> {
    let key = if is_group(entries) { "group" } else { "task" };
    entries.iter().find(|entry| entry.key == key)?.text().ok()
}

/// The entries of a file with its includes under them. `above` holds the files that include it.
fn read_file(path: &Path, above: &mut Vec<PathBuf>) -> Result<Entries, EvalError> {
    let text = match shipped::include(path) {
        Some(text) if !path.exists() => text,
        _ => std::fs::read_to_string(path).map_err(EvalError::file(path, "read the task"))?,
    };
    included(path, Source::read(path, &text)?, above)
}

fn included(path: &Path, mut entries: Entries, above: &mut Vec<PathBuf>) -> Result<Entries, EvalError> {
    let Some(place) = entries.iter().position(|entry| entry.key == "include") else { return Ok(entries) };
    let include = entries.remove(place);
    above.push(path.to_owned());
    let mut under = Entries::new();
    for name in include.texts()? {
        let file = path.parent().unwrap_or(Path::new("")).join(&name);
        if above.contains(&file) {
            return Err(include.error(format!("{name} includes itself, on the way {}", above.len())));
        }
        let read = read_file(&file, above).map_err(|error| match error {
            EvalError::File { source, .. } => {
                include.error(format!("the included file {} cannot be read: {source}", file.display()))
            }
            other => other,
        })?;
        under = overlay(under, read);
    }
    above.pop();
    Ok(overlay(under, entries))
}
