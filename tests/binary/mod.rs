//! Runs the binary as a person does and keeps what it says, with everything that differs between machines taken out.

// Each test binary takes the part that it needs.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of a test's own, with the binary to run beside it.
pub struct Bench {
    folder: tempfile::TempDir,
}

/// What a run of the binary left behind.
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output, normalised.
    pub out: String,
    /// Standard error, normalised.
    pub err: String,
}

impl Said {
    /// The error message and the exit code: what a snapshot of a refusal holds.
    pub fn refusal(&self) -> String {
        let at = self.err.find("error: ").unwrap_or_else(|| panic!("no error in: {}", self.err));
        let message = self.err[at..].trim_end();
        assert_eq!(
            message.matches("error: ").count() - message.matches(": error: ").count(),
            1,
            "one message: {message}"
        );
        assert!(!self.err.contains("panicked"), "{}", self.err);
        format!("{message}\nexit code {}", self.code)
    }
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as an argument.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, content).expect("a file");
        self.text(name)
    }

    /// The binary in the repository's root, with nothing of this machine's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).stdin(Stdio::null());
        command.env("ESPALIER_CACHE", self.path("cache")).env("COLUMNS", "120");
        command.env("HF_HOME", self.path("huggingface"));
        let settings = ["HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_CACHE"];
        let own = ["ESPALIER_PRECISION", "ESPALIER_THREADS", "ESPALIER_API_KEY", "ESPALIER_SERVER_PATIENCE"];
        for name in own.into_iter().chain(settings) {
            command.env_remove(name);
        }
        command
    }

    pub fn said(&self, output: &Output) -> Said {
        Said {
            code: output.status.code().unwrap_or(-1),
            out: self.normal(&String::from_utf8_lossy(&output.stdout)),
            err: self.normal(&String::from_utf8_lossy(&output.stderr)),
        }
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.said(&self.command(arguments).output().expect("the binary starts"))
    }

    /// Runs a pipeline file in a run folder of this bench.
    pub fn pipeline(&self, file: &str, folder: &str) -> Said {
        self.run(&["run", file, "--run-dir", &self.text(folder)])
    }

    fn normal(&self, text: &str) -> String {
        hashes(&text.replace(&*self.folder.path().to_string_lossy(), "[dir]"))
    }

    /// The results in a run folder by name; logs and unfinished work left out.
    pub fn results(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let root = self.path(folder);
        let mut found = BTreeMap::new();
        let mut waiting: Vec<PathBuf> = root.is_dir().then(|| root.clone()).into_iter().collect();
        while let Some(current) = waiting.pop() {
            for entry in fs::read_dir(&current).expect("a folder").flatten() {
                let path = entry.path();
                let name = relative(&path, &root);
                if name.starts_with("logs") || name.starts_with(".work") || name == ".running" {
                    continue;
                }
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    found.insert(name, fs::read(&path).expect("a file"));
                }
            }
        }
        found
    }

    /// Copies the tree of the tests, to be spoiled.
    pub fn tree(&self, name: &str) {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("taxonomy/examples/tiny"), &self.path(name));
    }
}

/// Content hashes change with every version of a stage.
fn hashes(text: &str) -> String {
    let mut normal = String::new();
    let mut word = String::new();
    for character in text.chars().chain(['\0']) {
        if character.is_ascii_digit() || ('a'..='f').contains(&character) {
            word.push(character);
            continue;
        }
        normal.push_str(if word.len() >= 12 && !normal.ends_with('.') { "[hash]" } else { &word });
        word.clear();
        if character != '\0' {
            normal.push(character);
        }
    }
    normal
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).expect("below").to_string_lossy().into_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a file");
        }
    }
}
