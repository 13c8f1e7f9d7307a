//! `pipeline doctor`: what this machine can do, before anything depends on it.

use super::Session;
use crate::disk::free_bytes;
use crate::models::ModelCache;
use crate::outcome::Status;
use crate::reporter::size;
use anyhow::Result;
use espalier_kernels::InstructionSet;
use espalier_train::device_list::{DeviceDescription, GpuBackend, describe, libdevice};
use espalier_train::{DeviceError, DeviceName};
use std::path::{Path, PathBuf};

/// `pipeline doctor`: fails if `wanted` cannot be used.
pub fn run(wanted: Option<DeviceName>, session: Session<'_>) -> Result<Status> {
    if let Some(name) = wanted {
        describe(name)?;
    }
    let devices = Devices::find();
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
        "version       {}\nprocessor     {}\ninstructions  {} (this CPU has: {})\nthreads       {threads}\nmemory        {} free of {}\ndisk here     {} free\nmodel cache   {} ({} free)\npip           {}\n{}",
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
        devices.lines(),
    ));
    session.reporter.result(serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "instruction_set": chosen.name(), "available": available, "threads": threads,
        "memory_free": memory.map(|m| m.0), "memory_total": memory.map(|m| m.1), "disk_free": here,
        "cache": cache.root(), "cache_disk_free": there, "pip": pip, "devices": devices.json(), "gpu_back_ends": devices.built,
        "libdevice": devices.libdevice.as_ref().and_then(|found| found.as_ref().ok()),
    }));
    Ok(Status::Done)
}

/// What there is to train on.
struct Devices {
    /// GPU back ends of this build.
    built: Vec<&'static str>,
    found: Vec<(DeviceName, Result<DeviceDescription, DeviceError>)>,
    /// Looked for by a build with CUDA alone.
    libdevice: Option<Result<PathBuf, DeviceError>>,
    /// Bytes of the cards, by their addresses on the bus.
    memory: Vec<(String, u64)>,
}

impl Devices {
    fn find() -> Self {
        let found: Vec<_> = DeviceName::found().into_iter().map(|name| (name, describe(name))).collect();
        let built = GpuBackend::ALL.into_iter().filter(|backend| backend.in_this_build());
        Self {
            built: built.map(GpuBackend::name).collect(),
            memory: if found.len() > 2 { card_memory() } else { Vec::new() },
            found,
            libdevice: GpuBackend::Cuda.in_this_build().then(libdevice),
        }
    }

    fn memory_of(&self, description: &DeviceDescription) -> Option<u64> {
        let address = description.pci_address.as_ref()?;
        // nvidia-smi writes the domain with more zeros.
        self.memory.iter().find(|(card, _)| card.ends_with(address.as_str())).map(|&(_, bytes)| bytes)
    }

    fn lines(&self) -> String {
        let absent = GpuBackend::ALL.into_iter().filter(|backend| !backend.in_this_build());
        let absent: Vec<&str> = absent.map(GpuBackend::name).collect();
        let built = if self.built.is_empty() { "none".to_owned() } else { self.built.join(", ") };
        let mut text = format!("GPU           {built} in this build");
        if !absent.is_empty() {
            text += &format!(" (cargo features that it was built without: {})", absent.join(", "));
        }
        for (index, (name, described)) in self.found.iter().enumerate() {
            let label = if index == 0 { "devices" } else { "" };
            let words = match described {
                Ok(description) => self.words(*name, description),
                Err(error) => error.to_string(),
            };
            text += &format!("\n{label:<13} {:<9} {words}", name.to_string());
        }
        match &self.libdevice {
            Some(Ok(path)) => text += &format!("\nlibdevice     {}", path.display()),
            Some(Err(error)) => text += &format!("\nlibdevice     {error}"),
            None => {}
        }
        text
    }

    fn words(&self, name: DeviceName, description: &DeviceDescription) -> String {
        let what = match name {
            DeviceName::Cpu => "kernels of this project",
            DeviceName::Flex => "plain operations, as a GPU runs them (slow)",
            DeviceName::Gpu(..) => description.part.as_str(),
        };
        let memory = self.memory_of(description).map(size);
        let target = Some(description.target.clone()).filter(|target| !target.is_empty());
        let mut parts: Vec<String> = [Some(what.to_owned()), memory, target].into_iter().flatten().collect();
        parts.extend(description.element_types.iter().map(ToString::to_string));
        parts.join(", ")
    }

    fn json(&self) -> Vec<serde_json::Value> {
        let one = |(name, described): &(DeviceName, Result<DeviceDescription, DeviceError>)| match described {
            Ok(description) => serde_json::json!({
                "name": name.to_string(), "part": description.part, "target": description.target,
                "pci_address": description.pci_address, "element_types": description.element_types,
                "memory_total": self.memory_of(description),
            }),
            Err(error) => serde_json::json!({"name": name.to_string(), "error": error.to_string()}),
        };
        self.found.iter().map(one).collect()
    }
}

/// Address on the bus, in lower case, and bytes of each NVIDIA card: burn does not tell them, the driver's own tool does.
fn card_memory() -> Vec<(String, u64)> {
    let query = ["--query-gpu=pci.bus_id,memory.total", "--format=csv,noheader,nounits"];
    let Ok(out) = std::process::Command::new("nvidia-smi").args(query).output() else { return Vec::new() };
    let card = |line: &str| {
        let (address, mebibytes) = line.split_once(',')?;
        Some((address.trim().to_lowercase(), mebibytes.trim().parse::<u64>().ok()? << 20))
    };
    String::from_utf8_lossy(&out.stdout).lines().filter_map(card).collect()
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
