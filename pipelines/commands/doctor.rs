//! `pipeline doctor`: what this machine can do, before anything depends on it.

use super::Session;
use crate::disk::free_bytes;
use crate::models::ModelCache;
use crate::outcome::Status;
use crate::reporter::size;
use anyhow::Result;
use espalier_kernels::InstructionSet;
use std::path::Path;

/// `pipeline doctor`.
pub fn run(session: Session<'_>) -> Result<Status> {
    let chosen = InstructionSet::detect();
    let available: Vec<&str> = InstructionSet::available().into_iter().map(InstructionSet::name).collect();
    let threads = rayon::current_num_threads();
    let memory = memory();
    let cache = ModelCache::open()?;
    let here = free_bytes(Path::new("."));
    let there = free_bytes(cache.root());
    let pip = std::process::Command::new("python3").args(["-m", "pip", "--version"]).output();
    let pip =
        pip.ok().filter(|out| out.status.success()).map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let unknown = || "unknown".to_owned();
    session.reporter.line(format!(
        "version       {}\nprocessor     {}\ninstructions  {} (this CPU has: {})\nthreads       {threads}\nmemory        {} free of {}\ndisk here     {} free\nmodel cache   {} ({} free)\npip           {}\ndevices       cpu (GPU back ends are cargo features of burn; this build has none)",
        env!("CARGO_PKG_VERSION"),
        processor().unwrap_or_else(unknown),
        chosen.name(),
        available.join(", "),
        memory.map_or_else(unknown, |(free, _)| size(free)),
        memory.map_or_else(unknown, |(_, all)| size(all)),
        here.map_or_else(unknown, size),
        cache.root().display(),
        there.map_or_else(unknown, size),
        pip.clone().unwrap_or_else(|| "not found: `pypi:` models cannot be fetched".to_owned()),
    ));
    session.reporter.result(serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "instruction_set": chosen.name(), "available": available, "threads": threads,
        "memory_free": memory.map(|m| m.0), "memory_total": memory.map(|m| m.1), "disk_free": here,
        "cache": cache.root(), "cache_disk_free": there, "pip": pip, "devices": ["cpu"],
    }));
    Ok(Status::Done)
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Free and total memory in bytes.
pub(super) fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some((kilobytes("MemAvailable:")? * 1024, kilobytes("MemTotal:")? * 1024))
}
